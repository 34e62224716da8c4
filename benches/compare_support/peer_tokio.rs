//! tokio's two ways to run `!Send` tasks on one thread.

use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime, Runtime},
    task::{self, JoinError, JoinHandle, LocalSet},
};

use super::peer::Peer;

/// A `LocalSet` on a current-thread runtime.
pub(crate) struct TokioLocal {
    tasks: LocalSet,
    runtime: Runtime,
}

impl Peer for TokioLocal {
    const NAME: &'static str = "tokio_local";
    const NOTE: &'static str =
        "`LocalSet` on a current-thread runtime without drivers; contains panics, tells nobody";
    const REFERENCE: bool = true;

    type Joined<T> = Result<T, JoinError>;
    type Handle<T: 'static> = JoinHandle<T>;

    fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .build()
            .expect("a runtime without drivers needs nothing");
        Self {
            tasks: LocalSet::new(),
            runtime,
        }
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

    fn returned<T>(joined: Result<T, JoinError>) -> Option<T> {
        joined.ok()
    }
}

/// A `LocalRuntime`.
pub(crate) struct TokioLocalRt(LocalRuntime);

impl Peer for TokioLocalRt {
    const NAME: &'static str = "tokio_localrt";
    const NOTE: &'static str = "`LocalRuntime` without drivers; contains panics, tells nobody";
    const REFERENCE: bool = true;

    type Joined<T> = Result<T, JoinError>;
    type Handle<T: 'static> = JoinHandle<T>;

    fn new() -> Self {
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default());
        Self(runtime.expect("a runtime without drivers needs nothing"))
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

    fn returned<T>(joined: Result<T, JoinError>) -> Option<T> {
        joined.ok()
    }
}
