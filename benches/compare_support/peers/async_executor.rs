//! smol's executor for one thread, in both of its forms.

use async_executor::{LocalExecutor, StaticLocalExecutor, Task};
use futures_lite::future;

use super::super::peer::{Peer, Reasons};

const PACKAGES: &[&str] = &["async-executor", "async-task", "futures-lite"];
const NO_TIMERS: Reasons = &[("timer", "it has no timers; async-io has")];

pub(crate) struct AsyncEx(LocalExecutor<'static>);

impl Peer for AsyncEx {
    const NAME: &'static str = "async_ex";
    const PACKAGES: &'static [&'static str] = PACKAGES;
    const NOTE: &'static str = "`LocalExecutor` under `futures_lite::block_on`; dropping a handle cancels; a panic is raised again at the \
         `await` of its handle, that of a detached task is told to nobody; a panic in a destructor aborts";
    const CANNOT: Reasons = NO_TIMERS;
    const CONTAINS_PANICS: bool = false;

    type Joined<T> = T;
    type Handle<T: 'static> = Task<T>;

    fn new() -> Self {
        Self(LocalExecutor::new())
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        future::block_on(self.0.run(root))
    }

    fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.0.spawn(future)
    }

    fn spawn_detached<F>(&self, future: F)
    where
        F: Future<Output = ()> + 'static,
    {
        self.0.spawn(future).detach();
    }

    fn returned<T>(joined: T) -> Option<T> {
        Some(joined)
    }
}

pub(crate) struct AsyncExStatic(&'static StaticLocalExecutor);

impl Peer for AsyncExStatic {
    const NAME: &'static str = "async_ex_static";
    const PACKAGES: &'static [&'static str] = PACKAGES;
    const NOTE: &'static str = "its `StaticLocalExecutor`: the same, but it keeps no list of its tasks, so it can never be dropped and end them";
    const CANNOT: Reasons = NO_TIMERS;
    const CONTAINS_PANICS: bool = false;

    type Joined<T> = T;
    type Handle<T: 'static> = Task<T>;

    fn new() -> Self {
        Self(Box::leak(Box::new(StaticLocalExecutor::new())))
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        future::block_on(self.0.run(root))
    }

    fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.0.spawn(future)
    }

    fn spawn_detached<F>(&self, future: F)
    where
        F: Future<Output = ()> + 'static,
    {
        self.0.spawn(future).detach();
    }

    fn returned<T>(joined: T) -> Option<T> {
        Some(joined)
    }
}
