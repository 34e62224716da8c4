//! compio's executor by itself.

use compio_executor::{Executor, JoinError, JoinHandle};

use super::{
    super::peer::{Peer, Reasons},
    root::poll_between,
};

pub(crate) struct CompioEx(Executor);

impl Peer for CompioEx {
    const NAME: &'static str = "compio_ex";
    const PACKAGES: &'static [&'static str] = &["compio-executor"];
    const NOTE: &'static str = "`compio_executor::Executor`, ticked without a pause; contains panics, tells nobody; a panic in a destructor \
         aborts; it never parks";
    const CANNOT: Reasons = &[
        (
            "remote",
            "it cannot wait for another thread; compio's runtime can",
        ),
        ("timer", "it has no timers; compio's runtime has"),
    ];

    type Joined<T> = Result<T, JoinError>;
    type Handle<T: 'static> = JoinHandle<T>;

    fn new() -> Self {
        Self(Executor::new())
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        poll_between(root, |done| {
            while !done() {
                self.0.tick();
            }
        })
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

    fn returned<T>(joined: Result<T, JoinError>) -> Option<T> {
        joined.ok()
    }
}
