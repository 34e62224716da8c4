//! The arena through its front door: futures of every size and alignment, whose memory is full of a pattern that must be
//! whole at every poll and at the drop; handles, cancels, wakes and `shrink` in any order. For AddressSanitizer.
#![no_main]

mod bytes;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mainstay::{Executor, JoinHandle};

#[derive(Default)]
struct World {
    alive: Cell<i64>,
    wakers: std::cell::RefCell<Vec<Waker>>,
}

/// A future of `N` words that stays where it is and ends after some polls.
struct Body<A: Copy, const N: usize> {
    _align: [A; 0],
    words: [u64; N],
    tag: u64,
    polls: u8,
    at: usize,
    world: Rc<World>,
}

impl<A: Copy, const N: usize> Body<A, N> {
    fn new(world: &Rc<World>, tag: u64, polls: u8) -> Self {
        world.alive.set(world.alive.get() + 1);
        Body {
            _align: [],
            words: [tag; N],
            tag,
            polls,
            at: 0,
            world: Rc::clone(world),
        }
    }

    fn check(&self) {
        assert!(self.words.iter().all(|word| *word == self.tag));
        assert_eq!(std::ptr::from_ref(self).addr() % align_of::<Self>(), 0);
    }
}

impl<A: Copy + Unpin, const N: usize> Future for Body<A, N> {
    type Output = (u64, Rc<World>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.check();
        let here = std::ptr::from_ref(&*self).addr();
        assert!(self.at == 0 || self.at == here, "it was moved");
        self.at = here;
        if self.polls == 0 {
            return Poll::Ready((self.tag, Rc::clone(&self.world)));
        }
        self.polls -= 1;
        self.world.wakers.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }
}

impl<A: Copy, const N: usize> Drop for Body<A, N> {
    fn drop(&mut self) {
        self.check();
        self.world.alive.set(self.world.alive.get() - 1);
    }
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line;

#[derive(Clone, Copy)]
#[repr(align(512))]
struct Sector;

type Handle = JoinHandle<(u64, Rc<World>)>;

fn spawn(ex: &Executor<'static>, world: &Rc<World>, kind: u8, tag: u64) -> Handle {
    let polls = kind >> 6;
    match kind % 12 {
        0 => ex.spawn(Body::<u8, 0>::new(world, tag, polls)),
        1 => ex.spawn(Body::<u8, 1>::new(world, tag, polls)),
        2 => ex.spawn(Body::<u8, 5>::new(world, tag, polls)),
        3 => ex.spawn(Body::<u8, 17>::new(world, tag, polls)),
        4 => ex.spawn(Body::<u8, 60>::new(world, tag, polls)),
        5 => ex.spawn(Body::<u8, 250>::new(world, tag, polls)),
        6 => ex.spawn(Body::<u8, 1_000>::new(world, tag, polls)),
        7 => ex.spawn(Body::<u8, 6_000>::new(world, tag, polls)),
        8 => ex.spawn(Body::<Line, 0>::new(world, tag, polls)),
        9 => ex.spawn(Body::<Line, 40>::new(world, tag, polls)),
        10 => ex.spawn(Body::<Sector, 1>::new(world, tag, polls)),
        _ => ex.spawn(Body::<u128, 3>::new(world, tag, polls)),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let world = Rc::new(World::default());
    let ex = Executor::builder()
        .capacity(usize::from(bytes.byte()))
        .build();
    // The default handler would write a record for each task that is pending at the end.
    ex.set_exception_handler(|_, _| {});
    let mut handles: Vec<(u64, Handle)> = Vec::new();
    let mut tag = 0;
    while !bytes.is_empty() {
        match bytes.byte() % 16 {
            0..=4 => {
                let kind = bytes.byte();
                for _ in 0..bytes.byte() % 40 {
                    tag += 1;
                    handles.push((tag, spawn(&ex, &world, kind, tag)));
                }
            }
            5 | 6 if !handles.is_empty() => {
                let at = usize::from(bytes.byte()) % handles.len();
                drop(handles.swap_remove(at));
            }
            7 if !handles.is_empty() => {
                let at = usize::from(bytes.byte()) % handles.len();
                let (tag, handle) = &mut handles[at];
                if let Ok(Ok((value, _))) = handle.result() {
                    assert_eq!(value, *tag);
                }
            }
            8 if !handles.is_empty() => {
                let at = usize::from(bytes.byte()) % handles.len();
                let _ = handles[at].1.cancel();
            }
            9 => {
                let wakers = world.wakers.take();
                for (at, waker) in wakers.into_iter().enumerate() {
                    if at % 3 != 2 {
                        waker.wake();
                    }
                }
            }
            10 => ex.shrink(),
            11 => handles.truncate(usize::from(bytes.byte())),
            12 => drop(ex.run_until_stalled()),
            _ => drop(ex.tick(usize::from(bytes.byte()))),
        }
        let stats = ex.stats();
        assert_eq!(
            stats.spawned,
            stats.live + stats.returned + stats.failed + stats.cancelled
        );
        assert_eq!(stats.failed, 0);
    }
    if tag % 2 == 0 {
        handles.clear();
    }
    drop(ex);
    assert_eq!(world.alive.get(), 0);
    for (tag, handle) in &mut handles {
        if let Ok(Ok((value, _))) = handle.result() {
            assert_eq!(value, *tag);
        }
    }
    drop(handles);
    for waker in world.wakers.take() {
        waker.wake();
    }
    assert_eq!(Rc::strong_count(&world), 1);
});
