//! embassy's executor, whose tasks are static.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use embassy_executor::{Executor, Spawner, raw::TaskStorage};

use crate::compare_support::{
    peer::{Peer, Reasons},
    peers::root::poll_between,
};

/// The place of each task is leaked: static is what it would be in a program.
pub(crate) struct Embassy {
    executor: Cell<Option<&'static mut Executor>>,
    spawner: Cell<Option<Spawner>>,
}

const STATIC_TASKS: &str = "its tasks are static";

impl Peer for Embassy {
    const NAME: &'static str = "embassy";
    const PACKAGES: &'static [&'static str] = &["embassy-executor"];
    const NOTE: &'static str = "`Executor` of `platform-std`; tasks are static, no handles (here: a cell for the value), last in first out within a \
         pass; a panic of a task ends `run_until`; a wake of an idle executor takes a lock";
    const CANNOT: Reasons = &[
        ("spawn", STATIC_TASKS),
        ("spawn_2k", STATIC_TASKS),
        ("join", STATIC_TASKS),
        ("join_1000", STATIC_TASKS),
        ("threads", STATIC_TASKS),
        ("panic", STATIC_TASKS),
        ("memory", STATIC_TASKS),
        (
            "timer",
            "its timers are another crate, with ticks and a thread",
        ),
    ];
    const NOT_COMPARABLE: Reasons = &[
        ("yield", STATIC_TASKS),
        ("yield_1m", STATIC_TASKS),
        ("ping_pong", STATIC_TASKS),
        ("waker", STATIC_TASKS),
    ];
    const CONTAINS_PANICS: bool = false;

    type Joined<T> = T;
    type Handle<T: 'static> = Handle<T>;

    fn new() -> Self {
        Self {
            executor: Cell::new(Some(Box::leak(Box::new(Executor::new())))),
            spawner: Cell::new(None),
        }
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        let executor = self.executor.take().expect("this is the only call");
        poll_between(root, |done| {
            executor.run_until(|spawner| self.spawner.set(Some(spawner)), done);
        })
    }

    fn spawn<F>(&self, future: F) -> Handle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let place = Rc::new(Place::default());
        let handle = Handle(Rc::clone(&place));
        self.start(async move { place.put(future.await) });
        handle
    }

    fn spawn_detached<F>(&self, future: F)
    where
        F: Future<Output = ()> + 'static,
    {
        self.start(future);
    }

    fn returned<T>(joined: T) -> Option<T> {
        Some(joined)
    }
}

impl Embassy {
    fn start<F: Future<Output = ()> + 'static>(&self, future: F) {
        let storage: &'static TaskStorage<F> = Box::leak(Box::new(TaskStorage::new()));
        let token = storage.spawn(|| future).expect("the place is new");
        let spawner = self.spawner.get().expect("the executor is running");
        spawner.spawn(token);
    }
}

/// Where a task's value waits for who awaits it.
struct Place<T> {
    value: Cell<Option<T>>,
    awaiting: RefCell<Option<Waker>>,
}

impl<T> Place<T> {
    fn put(&self, value: T) {
        self.value.set(Some(value));
        if let Some(waker) = self.awaiting.take() {
            waker.wake();
        }
    }
}

impl<T> Default for Place<T> {
    fn default() -> Self {
        Self {
            value: Cell::new(None),
            awaiting: RefCell::new(None),
        }
    }
}

/// Gives what the task has put in its place.
pub(crate) struct Handle<T>(Rc<Place<T>>);

impl<T> Future for Handle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.0.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                self.0.awaiting.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}
