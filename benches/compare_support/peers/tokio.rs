//! tokio's two ways to run `!Send` tasks on one thread.

use std::time::Duration;

use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime, Runtime},
    task::{self, JoinError, JoinHandle, LocalSet},
    time,
};

use super::super::peer::Peer;

const NEEDS_NOTHING: &str = "the system gives what a runtime needs";

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
    const PACKAGES: &'static [&'static str] = &["tokio"];
    const NOTE: &'static str = "`LocalSet` on a current-thread runtime without drivers, in the timer rows with `enable_time`; contains \
         panics, tells nobody";
    const REFERENCE: bool = true;

    type Joined<T> = Result<T, JoinError>;
    type Handle<T: 'static> = JoinHandle<T>;

    fn new() -> Self {
        Self::from(&mut Builder::new_current_thread())
    }

    fn with_timers() -> Self {
        Self::from(Builder::new_current_thread().enable_time())
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

    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        time::sleep(duration)
    }

    fn returned<T>(joined: Result<T, JoinError>) -> Option<T> {
        joined.ok()
    }
}

/// A `LocalRuntime`, with all of its drivers if `ALL`.
pub(crate) struct LocalRt<const ALL: bool>(LocalRuntime);

pub(crate) type TokioLocalRt = LocalRt<false>;
pub(crate) type TokioLocalRtAll = LocalRt<true>;

impl<const ALL: bool> LocalRt<ALL> {
    fn from(builder: &mut Builder) -> Self {
        if ALL {
            builder.enable_all();
        }
        let runtime = builder.build_local(LocalOptions::default());
        Self(runtime.expect(NEEDS_NOTHING))
    }
}

impl<const ALL: bool> Peer for LocalRt<ALL> {
    const NAME: &'static str = if ALL {
        "tokio_localrt_all"
    } else {
        "tokio_localrt"
    };
    const PACKAGES: &'static [&'static str] = &["tokio"];
    const NOTE: &'static str = if ALL {
        "`LocalRuntime` with `enable_all`, as `LocalRuntime::new` makes it; it looks at its I/O driver when it falls idle \
         and every 61 polls; contains panics, tells nobody"
    } else {
        "`LocalRuntime` without drivers, in the timer rows with `enable_time`; contains panics, tells nobody"
    };
    const REFERENCE: bool = !ALL;

    type Joined<T> = Result<T, JoinError>;
    type Handle<T: 'static> = JoinHandle<T>;

    fn new() -> Self {
        Self::from(&mut Builder::new_current_thread())
    }

    fn with_timers() -> Self {
        Self::from(Builder::new_current_thread().enable_time())
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

    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        time::sleep(duration)
    }

    fn returned<T>(joined: Result<T, JoinError>) -> Option<T> {
        joined.ok()
    }
}
