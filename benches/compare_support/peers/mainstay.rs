//! mainstay as it comes out of `Executor::new()`.

use std::{cell::Cell, time::Duration};

use mainstay::{Executor, JoinError, JoinHandle};

use super::super::{
    peer::Peer,
    workloads::threads::{Post, Visit},
};

pub(crate) struct Mainstay(Executor<'static>);

impl Peer for Mainstay {
    const NAME: &'static str = super::OURS;
    const PACKAGES: &'static [&'static str] = &["mainstay"];
    const NOTE: &'static str =
        "`Executor::new()`; contains panics and tells the exception handler of each";

    type Joined<T> = Result<T, JoinError>;
    type Handle<T: 'static> = JoinHandle<T>;

    fn new() -> Self {
        Self(Executor::new())
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        self.0.block_on(root)
    }

    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
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

    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        mainstay::sleep(duration)
    }

    fn returned<T>(joined: Result<T, JoinError>) -> Option<T> {
        joined.ok()
    }

    fn count_reports(&self, reports: &'static Cell<usize>) -> bool {
        self.0
            .set_exception_handler(move |_, _| reports.set(reports.get() + 1));
        true
    }

    fn post(&self) -> Option<Post> {
        let spawner = self.0.spawner();
        Some(Box::new(move |token| {
            let sent = spawner.call_soon(move |home| home.spawn(Visit::of(token)).detach());
            sent.expect("the executor is there");
        }))
    }

    fn shrink(&self) -> bool {
        self.0.shrink();
        true
    }
}
