//! What the tasks of one sample share: their counts, and the root's way to wait for them.

use std::{
    cell::{Cell, RefCell},
    future,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// Never reached: a sample has far fewer polls.
const NEVER: usize = usize::MAX;

/// Counts polls, and wakes the root (or whoever waits) when a given number has been reached.
///
/// A task holds it by `&'static`, so a future carries one plain word and no reference counts distort the figures.
pub(crate) struct Stage {
    polls: Cell<usize>,
    /// The number of polls at which [`Stage::tick`] has something to do; the only check that it makes otherwise.
    mark: Cell<usize>,
    start_at: Cell<usize>,
    stop_at: Cell<usize>,
    started: Cell<Option<Instant>>,
    stopped: Cell<Option<Instant>>,
    waiting: Cell<Option<Waker>>,
    sum: Cell<usize>,
    /// Tells the [parked](super::futures::Parked) tasks to return at their next poll.
    pub(crate) over: Cell<bool>,
    /// The parked tasks' wakers, by their index.
    pub(crate) wakers: RefCell<Vec<Waker>>,
}

impl Stage {
    /// Sets up the shared state of one sample.
    ///
    /// It is never freed: tasks are `'static` for all peers, and some hundred bytes a sample are nothing.
    pub(crate) fn leak() -> &'static Self {
        Box::leak(Box::new(Self {
            polls: Cell::new(0),
            mark: Cell::new(NEVER),
            start_at: Cell::new(NEVER),
            stop_at: Cell::new(NEVER),
            started: Cell::new(None),
            stopped: Cell::new(None),
            waiting: Cell::new(None),
            sum: Cell::new(0),
            over: Cell::new(false),
            wakers: RefCell::new(Vec::new()),
        }))
    }

    /// Counts a poll of a task.
    #[inline]
    pub(crate) fn tick(&self) {
        let polls = self.polls.get() + 1;
        self.polls.set(polls);
        if polls == self.mark.get() {
            self.pass_mark(polls);
        }
    }

    /// Adds to what the tasks have to show for their work.
    #[inline]
    pub(crate) fn add(&self, value: usize) {
        self.sum.set(self.sum.get() + value);
    }

    pub(crate) fn polls(&self) -> usize {
        self.polls.get()
    }

    pub(crate) fn sum(&self) -> usize {
        self.sum.get()
    }

    /// Makes [`Stage::reached`] wait for so many polls from now on.
    pub(crate) fn expect(&self, more: usize) {
        self.expect_total(self.polls.get() + more);
    }

    /// Makes [`Stage::reached`] wait until there were so many polls in all.
    pub(crate) fn expect_total(&self, total: usize) {
        self.start_at.set(NEVER);
        self.stop_at.set(total);
        self.mark.set(total);
    }

    /// Takes the time between two numbers of polls, and makes [`Stage::reached`] wait for the second one.
    ///
    /// The clock is read in the very polls that reach them. So neither spawning and completing the tasks nor the
    /// moment at which the executor happens to poll the root is part of it.
    pub(crate) fn expect_between(&self, start_at: usize, stop_at: usize) {
        assert!(
            self.polls.get() < start_at && start_at < stop_at,
            "the marks lie ahead, in order"
        );
        self.start_at.set(start_at);
        self.stop_at.set(stop_at);
        self.mark.set(start_at);
    }

    /// Waits for the expected number of polls.
    pub(crate) fn reached(&self) -> impl Future<Output = ()> {
        future::poll_fn(|cx| self.poll_reached(cx))
    }

    /// The time between the marks of [`Stage::expect_between`].
    ///
    /// # Panics
    ///
    /// If they have not been reached.
    pub(crate) fn time(&self) -> Duration {
        let started = self.started.get().expect("the first mark has been reached");
        let stopped = self
            .stopped
            .get()
            .expect("the second mark has been reached");
        stopped.duration_since(started)
    }

    fn poll_reached(&self, cx: &Context<'_>) -> Poll<()> {
        if self.polls.get() >= self.stop_at.get() {
            return Poll::Ready(());
        }
        self.waiting.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    #[cold]
    fn pass_mark(&self, polls: usize) {
        let now = Instant::now();
        if polls == self.start_at.get() {
            self.started.set(Some(now));
            self.mark.set(self.stop_at.get());
        } else {
            self.stopped.set(Some(now));
            self.mark.set(NEVER);
            if let Some(waker) = self.waiting.take() {
                waker.wake();
            }
        }
    }
}
