//! What a row needs of an executor, and the list of those that are compared.

use std::{cell::Cell, time::Duration};

use super::{
    memory::{self, Footprint},
    peers::{
        mainstay::Mainstay,
        tokio::{TokioLocal, TokioLocalRt},
    },
    rows::{Row, Sample},
};

/// A single-threaded executor of `!Send` futures, in its best configuration.
///
/// The methods are to be thin: whatever they add to the executor's own cost would be charged to it.
pub(crate) trait Peer: Sized + 'static {
    /// The name in the table and of `--peer`.
    const NAME: &'static str;

    /// How it is set up, and what it does not do that others do: a reader judges the figures by it.
    const NOTE: &'static str;

    /// Whether its time is a candidate for "tokio" in the ratios.
    const REFERENCE: bool = false;

    /// Whether a panic of a task stays in that task. If not, the panic row wraps each of its tasks in
    /// `catch_unwind`, as a user would have to.
    const CONTAINS_PANICS: bool = true;

    /// What awaiting a [`Handle`](Self::Handle) gives.
    type Joined<T>;

    /// The handle of a spawned task.
    type Handle<T: 'static>: Future<Output = Self::Joined<T>> + 'static;

    /// The future that ends after a given time; [`Pending`](std::future::Pending) if it has none.
    type Sleep: Future<Output = ()> + 'static;

    fn new() -> Self;

    /// The same with what its timers need, or `None` if it has none: the timer rows show a dash then.
    fn with_timers() -> Option<Self>;

    /// Runs `root`, and the tasks meanwhile, until `root` is ready.
    fn block_on<F: Future>(&self, root: F) -> F::Output;

    /// Spawns a task from within the root or from within another task.
    fn spawn<F>(&self, future: F) -> Self::Handle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static;

    /// Spawns a task whose outcome nobody will ask for.
    fn spawn_detached<F>(&self, future: F)
    where
        F: Future<Output = ()> + 'static;

    /// Makes a sleep from within a task of a peer that was made [`with_timers`](Self::with_timers).
    fn sleep(duration: Duration) -> Self::Sleep;

    /// The value of a task, or `None` if it panicked.
    fn returned<T>(joined: Self::Joined<T>) -> Option<T>;

    /// Has every failed task counted in `reports` by a handler that does nothing else; false if this peer tells
    /// nobody.
    fn count_reports(&self, reports: &'static Cell<usize>) -> bool {
        let _: &Cell<usize> = reports;
        false
    }
}

/// A [`Peer`] with its type erased: one column of the table.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) note: &'static str,
    pub(crate) reference: bool,
    /// Runs about so many operations of a row on a fresh executor; `None` if this peer cannot do that row.
    pub(crate) sample: fn(Row, usize) -> Option<Sample>,
    /// Measures this process with so many parked tasks.
    pub(crate) footprint: fn(usize) -> Footprint,
}

impl Column {
    fn of<P: Peer>() -> Self {
        Self {
            name: P::NAME,
            note: P::NOTE,
            reference: P::REFERENCE,
            sample: Row::sample::<P>,
            footprint: memory::footprint::<P>,
        }
    }
}

/// The peers, in the order of the table.
pub(crate) fn columns() -> Vec<Column> {
    vec![
        Column::of::<Mainstay>(),
        Column::of::<TokioLocal>(),
        Column::of::<TokioLocalRt>(),
    ]
}
