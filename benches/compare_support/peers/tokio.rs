//! tokio's two ways to run `!Send` tasks on one thread.

use std::time::Duration;

use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime, Runtime},
    task::{self, JoinError, JoinHandle, LocalSet},
    time::{self, Sleep},
};

use super::super::peer::Peer;

const NEEDS_NOTHING: &str = "a runtime without I/O needs nothing of the system";

/// A `LocalSet` on a current-thread runtime.
pub(crate) struct TokioLocal {
    tasks: LocalSet,
    runtime: Runtime,
}

impl TokioLocal {
    fn from(builder: &mut Builder) -> Self {
        Self {
            tasks: LocalSet::new(),
            runtime: builder.build().expect(NEEDS_NOTHING),
        }
    }
}

impl Peer for TokioLocal {
    const NAME: &'static str = "tokio_local";
    const NOTE: &'static str = "`LocalSet` on a current-thread runtime without drivers, in the timer rows with `enable_time`; contains \
         panics, tells nobody";
    const REFERENCE: bool = true;

    type Joined<T> = Result<T, JoinError>;
    type Handle<T: 'static> = JoinHandle<T>;
    type Sleep = Sleep;

    fn new() -> Self {
        Self::from(&mut Builder::new_current_thread())
    }

    fn with_timers() -> Option<Self> {
        Some(Self::from(Builder::new_current_thread().enable_time()))
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        self.tasks.block_on(&self.runtime, root)
    }

    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        task::spawn_local(future)
    }

    fn spawn_detached<F>(&self, future: F)
    where
        F: Future<Output = ()> + 'static,
    {
        drop(task::spawn_local(future));
    }

    fn sleep(duration: Duration) -> Sleep {
        time::sleep(duration)
    }

    fn returned<T>(joined: Result<T, JoinError>) -> Option<T> {
        joined.ok()
    }
}

/// A `LocalRuntime`.
pub(crate) struct TokioLocalRt(LocalRuntime);

impl TokioLocalRt {
    fn from(builder: &mut Builder) -> Self {
        let runtime = builder.build_local(LocalOptions::default());
        Self(runtime.expect(NEEDS_NOTHING))
    }
}

impl Peer for TokioLocalRt {
    const NAME: &'static str = "tokio_localrt";
    const NOTE: &'static str = "`LocalRuntime` without drivers, in the timer rows with `enable_time`; contains panics, tells nobody";
    const REFERENCE: bool = true;

    type Joined<T> = Result<T, JoinError>;
    type Handle<T: 'static> = JoinHandle<T>;
    type Sleep = Sleep;

    fn new() -> Self {
        Self::from(&mut Builder::new_current_thread())
    }

    fn with_timers() -> Option<Self> {
        Some(Self::from(Builder::new_current_thread().enable_time()))
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        self.0.block_on(root)
    }

    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.0.spawn_local(future)
    }

    fn spawn_detached<F>(&self, future: F)
    where
        F: Future<Output = ()> + 'static,
    {
        drop(self.0.spawn_local(future));
    }

    fn sleep(duration: Duration) -> Sleep {
        time::sleep(duration)
    }

    fn returned<T>(joined: Result<T, JoinError>) -> Option<T> {
        joined.ok()
    }
}
