//! smol's executor with async-io, which has the timers.

use std::time::Duration;

use async_executor::{LocalExecutor, Task};
use async_io::Timer;

use crate::compare_support::peer::{Peer, Reasons};

const AS_WITHOUT: &str = "without timers or I/O it is `async_ex` with another `block_on`";

pub(crate) struct AsyncExIo(LocalExecutor<'static>);

impl Peer for AsyncExIo {
    const NAME: &'static str = "async_ex_io";
    const PACKAGES: &'static [&'static str] = &["async-executor", "async-io"];
    const NOTE: &'static str = "`LocalExecutor` under `async_io::block_on`, for the timer rows; timers are a tree behind a lock";
    const CANNOT: Reasons = &[
        ("spawn", AS_WITHOUT),
        ("spawn_2k", AS_WITHOUT),
        ("join", AS_WITHOUT),
        ("join_1000", AS_WITHOUT),
        ("yield", AS_WITHOUT),
        ("yield_1m", AS_WITHOUT),
        ("ping_pong", AS_WITHOUT),
        ("fan_out", AS_WITHOUT),
        ("waker", AS_WITHOUT),
        ("remote", AS_WITHOUT),
        ("ring", AS_WITHOUT),
        ("panic", AS_WITHOUT),
        ("memory", AS_WITHOUT),
    ];

    type Joined<T> = T;
    type Handle<T: 'static> = Task<T>;

    fn new() -> Self {
        Self(LocalExecutor::new())
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        async_io::block_on(self.0.run(root))
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

    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        let timer = Timer::after(duration);
        async move {
            timer.await;
        }
    }

    fn returned<T>(joined: T) -> Option<T> {
        Some(joined)
    }
}
