//! monoio, on both of its drivers.

use std::{cell::RefCell, io, time::Duration};

use monoio::{
    Buildable, Driver, IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder,
    task::JoinHandle,
    time::{self, TimeDriver},
};

use crate::compare_support::peer::{Peer, Reasons};

/// A runtime of monoio on the driver `D`, with timers or without.
pub(crate) struct Monoio<D: 'static>(RefCell<Kind<D>>);

pub(crate) type MonoioLegacy = Monoio<LegacyDriver>;
pub(crate) type MonoioUring = Monoio<IoUringDriver>;

enum Kind<D: 'static> {
    Plain(Runtime<D>),
    Timed(Runtime<TimeDriver<D>>),
}

/// What the two drivers differ in.
pub(crate) trait Named: Driver + Buildable + 'static
where
    TimeDriver<Self>: Driver + Buildable,
{
    const NAME: &'static str;
    const NOTE: &'static str;
}

impl Named for LegacyDriver {
    const NAME: &'static str = "monoio_legacy";
    const NOTE: &'static str = "`Runtime` on epoll; a panic of a task ends `block_on`; a task that wakes itself goes to the front of the queue; \
         at the drop of the runtime, parked tasks may leak";
}

impl Named for IoUringDriver {
    const NAME: &'static str = "monoio_uring";
    const NOTE: &'static str = "`Runtime` on io_uring; the rest as `monoio_legacy`";
}

const SLOWER_WITH_SYNC: &str = "it needs the feature `sync`, which makes its local wakes slower: see `monoio-sync` in \
     benches/compare/Cargo.toml";

impl<D: Named> Peer for Monoio<D>
where
    TimeDriver<D>: Driver + Buildable,
{
    const NAME: &'static str = D::NAME;
    const PACKAGES: &'static [&'static str] = &["monoio"];
    const NOTE: &'static str = D::NOTE;
    const CANNOT: Reasons = if cfg!(feature = "monoio-sync") {
        &[]
    } else {
        &[("remote", SLOWER_WITH_SYNC)]
    };
    const NOT_COMPARABLE: Reasons = &[
        ("yield/100", STARVES),
        ("yield/10000", STARVES),
        ("yield_1m", STARVES),
    ];
    const CONTAINS_PANICS: bool = false;

    type Joined<T> = T;
    type Handle<T: 'static> = JoinHandle<T>;

    fn available() -> Result<(), String> {
        build::<D>().map(drop).map_err(|error| error.to_string())
    }

    fn new() -> Self {
        Self(RefCell::new(Kind::Plain(build().expect(AS_BEFORE))))
    }

    fn with_timers() -> Self {
        Self(RefCell::new(Kind::Timed(build().expect(AS_BEFORE))))
    }

    fn block_on<F: Future>(&self, root: F) -> F::Output {
        match &mut *self.0.borrow_mut() {
            Kind::Plain(runtime) => runtime.block_on(root),
            Kind::Timed(runtime) => runtime.block_on(root),
        }
    }

    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        monoio::spawn(future)
    }

    fn spawn_detached<F>(&self, future: F)
    where
        F: Future<Output = ()> + 'static,
    {
        drop(monoio::spawn(future));
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        time::sleep(duration)
    }

    fn returned<T>(joined: T) -> Option<T> {
        Some(joined)
    }
}

const STARVES: &str = "one task runs to its end while the others starve";

const AS_BEFORE: &str = "the system has given one before";

fn build<D: Buildable>() -> io::Result<Runtime<D>> {
    Buildable::build(RuntimeBuilder::<D>::new())
}
