//! mainstay as it comes out of `Executor::new()`.

use std::{cell::Cell, sync::OnceLock, time::Duration};

use mainstay::{Executor, JoinError, JoinHandle};

use super::super::{
    peer::Peer,
    workloads::threads::{Post, Visit},
};

pub(crate) struct Mainstay(Executor<'static>);

/// The slack of its timers, where the command line asks for one.
static SLACK: OnceLock<Duration> = OnceLock::new();

/// Gives the timers of those that are made from now on a slack, in microseconds.
pub(crate) fn set_timer_slack(micros: usize) {
    SLACK.get_or_init(|| Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)));
}

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

    fn with_timers() -> Self {
        match SLACK.get() {
            None => Self::new(),
            Some(&slack) => Self(Executor::builder().timer_slack(slack).build()),
        }
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
