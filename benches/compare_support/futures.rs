//! The futures that the workloads spawn, the same for all peers.
//!
//! They are written by hand, so that they have the size that a row promises and nothing but its work in their polls.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
    thread::Thread,
};

use super::{stage::Stage, workloads::remote::Exchange};

/// Returns at once: a word to find the counts, a word to show that it arrived.
pub(crate) struct Small {
    pub(crate) stage: &'static Stage,
    pub(crate) value: usize,
}

impl Future for Small {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.stage.add(self.value);
        self.stage.tick();
        Poll::Ready(())
    }
}

/// Returns at once, and is big.
pub(crate) struct Large {
    pub(crate) stage: &'static Stage,
    pub(crate) value: usize,
    /// Empty in this workload, which only a run of it can tell.
    pub(crate) room: Option<[u8; Self::ROOM]>,
}

impl Large {
    const ROOM: usize = 2_048 - 2 * size_of::<usize>() - size_of::<bool>();
}

impl Future for Large {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let filled = self
            .room
            .as_ref()
            .map_or(0, |room| usize::from(room[self.value]));
        self.stage.add(self.value + filled);
        self.stage.tick();
        Poll::Ready(())
    }
}

/// Returns its value at once.
pub(crate) struct Answer {
    pub(crate) stage: &'static Stage,
    pub(crate) value: usize,
}

impl Future for Answer {
    type Output = usize;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<usize> {
        self.stage.tick();
        Poll::Ready(self.value)
    }
}

/// Wakes itself and stays pending, so many times, then returns.
pub(crate) struct Yielder {
    pub(crate) stage: &'static Stage,
    pub(crate) left: usize,
}

impl Future for Yielder {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.stage.tick();
        if self.left == 0 {
            self.stage.add(1);
            return Poll::Ready(());
        }
        self.left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// One half of the table of [`ping_pong`](super::workloads::wake::ping_pong).
#[derive(Default)]
pub(crate) struct Side {
    pub(crate) ball: Cell<bool>,
    pub(crate) waker: Cell<Option<Waker>>,
}

/// Returns the ball so many times, then returns how often it was polled.
pub(crate) struct Player {
    pub(crate) own: &'static Side,
    pub(crate) other: &'static Side,
    pub(crate) left: usize,
    pub(crate) polls: usize,
}

impl Future for Player {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        self.polls += 1;
        if self.own.ball.replace(false) {
            self.other.ball.set(true);
            if let Some(waker) = self.other.waker.take() {
                waker.wake();
            }
            self.left -= 1;
            if self.left == 0 {
                return Poll::Ready(self.polls);
            }
        }
        self.own.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// Registers its waker at its first poll, and is pending until the stage is over; then returns its index.
pub(crate) struct Parked<const WORDS: usize> {
    stage: &'static Stage,
    index: usize,
    registered: bool,
    /// Makes it as big as a row wants it.
    payload: [usize; WORDS],
}

impl<const WORDS: usize> Parked<WORDS> {
    pub(crate) fn new(stage: &'static Stage, index: usize) -> Self {
        Self {
            stage,
            index,
            registered: false,
            payload: [index; WORDS],
        }
    }
}

impl<const WORDS: usize> Future for Parked<WORDS> {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        let stage = self.stage;
        stage.tick();
        if stage.over.get() {
            return Poll::Ready(self.payload.last().copied().unwrap_or(self.index));
        }
        if !self.registered {
            self.registered = true;
            stage.wakers.borrow_mut()[self.index] = cx.waker().clone();
        }
        Poll::Pending
    }
}

thread_local! {
    /// Where a [`Nothing`] finds what it has no room to carry, and the index of the next one to be polled first.
    static YARD: Cell<Option<(&'static Stage, usize)>> = const { Cell::new(None) };
}

/// Does what [`Parked`] does, and has no bytes.
pub(crate) struct Nothing(());

impl Nothing {
    /// Makes one whose stage is `stage`, as that of all others of this thread from now on.
    pub(crate) fn on(stage: &'static Stage) -> Self {
        if YARD.get().is_none() {
            YARD.set(Some((stage, 0)));
        }
        Self(())
    }
}

impl Future for Nothing {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (stage, index) = YARD.get().expect("it was made by `on`");
        stage.tick();
        if stage.over.get() {
            return Poll::Ready(());
        }
        let wakers = &mut *stage.wakers.borrow_mut();
        wakers[index] = cx.waker().clone();
        YARD.set(Some((stage, (index + 1) % wakers.len())));
        Poll::Pending
    }
}

/// Registers its waker at its first poll, answers a question of another thread at each other one, and returns the
/// last answer.
pub(crate) struct Answering {
    pub(crate) stage: &'static Stage,
    pub(crate) exchange: &'static Exchange,
    pub(crate) asker: Thread,
    pub(crate) last: usize,
    pub(crate) registered: bool,
}

impl Future for Answering {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        self.stage.tick();
        if !self.registered {
            self.registered = true;
            self.stage.wakers.borrow_mut()[0] = cx.waker().clone();
            return Poll::Pending;
        }
        let question = self.exchange.asked.load(Ordering::Acquire);
        self.exchange.answered.store(question, Ordering::Release);
        self.asker.unpark();
        if question == self.last {
            return Poll::Ready(question);
        }
        Poll::Pending
    }
}

/// Registers its waker at its first poll, and is pending until another thread says that it is over; then returns its
/// index.
pub(crate) struct Hailed {
    pub(crate) stage: &'static Stage,
    pub(crate) over: &'static AtomicBool,
    pub(crate) index: usize,
    pub(crate) registered: bool,
}

impl Future for Hailed {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        self.stage.tick();
        if !self.registered {
            self.registered = true;
            self.stage.wakers.borrow_mut()[self.index] = cx.waker().clone();
            return Poll::Pending;
        }
        if self.over.load(Ordering::Acquire) {
            return Poll::Ready(self.index);
        }
        Poll::Pending
    }
}

/// Panics at its first poll.
pub(crate) struct Bomb {
    pub(crate) stage: &'static Stage,
    pub(crate) value: usize,
}

impl Future for Bomb {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.stage.tick();
        explode(self.value)
    }
}

/// Raises the panic that the rows about panics are about.
pub(crate) fn explode(value: usize) -> ! {
    panic::panic_any(value)
}

/// What a user writes around a task of an executor that lets panics through: `None` is a panic.
pub(crate) struct Contained<F>(pub(crate) F);

impl<F: Future + Unpin> Future for Contained<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        match panic::catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.0).poll(cx))) {
            Ok(poll) => poll.map(Some),
            Err(_payload) => Poll::Ready(None),
        }
    }
}
