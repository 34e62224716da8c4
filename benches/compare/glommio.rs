//! glommio.

use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Task, timer::Timer};

use crate::compare_support::peer::{Peer, Reasons};

pub(crate) struct Glommio(LocalExecutor);

impl Peer for Glommio {
    const NAME: &'static str = "glommio";
    const PACKAGES: &'static [&'static str] = &["glommio"];
    const NOTE: &'static str = "`LocalExecutor` on io_uring; polls a new task at once, inside `spawn_local`; dropping a handle cancels; a panic of \
         a task ends `run`; a panic in a destructor aborts";
    const NOT_COMPARABLE: Reasons = &[("join", "it polls the new task inside `spawn_local`")];
    const CONTAINS_PANICS: bool = false;

    type Joined<T> = T;
    type Handle<T: 'static> = Task<T>;

    fn available() -> Result<(), String> {
        let made = LocalExecutorBuilder::default().make();
        made.map(drop).map_err(|error| error.to_string())
    }

    fn new() -> Self {
        let made = LocalExecutorBuilder::default().make();
        Self(made.expect("the system has given one before"))
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        self.0.run(root)
    }

    fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        glommio::spawn_local(future)
    }

    fn spawn_detached<F>(&self, future: F)
    where
        F: Future<Output = ()> + 'static,
    {
        drop(glommio::spawn_local(future).detach());
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        let timer = Timer::new(duration);
        async move {
            timer.await;
        }
    }

    fn returned<T>(joined: T) -> Option<T> {
        Some(joined)
    }
}
