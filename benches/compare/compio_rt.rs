//! compio's runtime, with its driver and its timers.

use std::time::Duration;

use compio_runtime::{JoinError, JoinHandle, Runtime, time};

use crate::compare_support::peer::Peer;

pub(crate) struct CompioRt(Runtime);

impl Peer for CompioRt {
    const NAME: &'static str = "compio_rt";
    const PACKAGES: &'static [&'static str] = &["compio-runtime", "compio-driver"];
    const NOTE: &'static str = "`compio_runtime::Runtime` on io_uring; a system call for each turn of the loop, and for a wake when the loop \
         is idle; contains panics, tells nobody; a panic in a destructor aborts";

    type Joined<T> = Result<T, JoinError>;
    type Handle<T: 'static> = JoinHandle<T>;

    fn available() -> Result<(), String> {
        Runtime::new().map(drop).map_err(|error| error.to_string())
    }

    fn new() -> Self {
        Self(Runtime::new().expect("the system has given one before"))
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
        time::sleep(duration)
    }

    fn returned<T>(joined: Result<T, JoinError>) -> Option<T> {
        joined.ok()
    }
}
