//! The `LocalPool` of futures.

use std::cell::RefCell;

use futures_executor::{LocalPool, LocalSpawner};
use futures_util::{future::RemoteHandle, task::LocalSpawnExt};

use super::super::peer::{Peer, Reasons};

const OPEN: &str = "the pool is there";

pub(crate) struct Pool {
    pool: RefCell<LocalPool>,
    spawner: LocalSpawner,
}

impl Peer for Pool {
    const NAME: &'static str = "local_pool";
    const PACKAGES: &'static [&'static str] = &["futures-executor", "futures-util"];
    const NOTE: &'static str = "futures' `LocalPool`, handles by `spawn_local_with_handle`; dropping a handle cancels; a panic of a detached \
         task ends `run_until`, one of a task with a handle is raised again at its `await`";
    const CANNOT: Reasons = &[("timer", "it has no timers")];
    const CONTAINS_PANICS: bool = false;

    type Joined<T> = T;
    type Handle<T: 'static> = RemoteHandle<T>;

    fn new() -> Self {
        let pool = LocalPool::new();
        Self {
            spawner: pool.spawner(),
            pool: RefCell::new(pool),
        }
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        self.pool.borrow_mut().run_until(root)
    }

    fn spawn<F>(&self, future: F) -> RemoteHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.spawner.spawn_local_with_handle(future).expect(OPEN)
    }

    fn spawn_detached<F>(&self, future: F)
    where
        F: Future<Output = ()> + 'static,
    {
        self.spawner.spawn_local(future).expect(OPEN);
    }

    fn returned<T>(joined: T) -> Option<T> {
        Some(joined)
    }
}
