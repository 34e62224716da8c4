//! What a row needs of an executor.

use std::{cell::Cell, future, time::Duration};

use super::{
    memory::{self, Footprint},
    rows::{Row, Sample, is_in},
    workloads::threads::Post,
};

/// Rows, or groups of rows, each with a reason.
pub(crate) type Reasons = &'static [(&'static str, &'static str)];

/// A single-threaded executor of `!Send` futures, in its best configuration.
///
/// The methods are to be thin: whatever they add to the executor's own cost would be charged to it.
pub(crate) trait Peer: Sized + 'static {
    /// The name in the table and of `--peer`.
    const NAME: &'static str;

    /// The packages whose versions are told beside the figures.
    const PACKAGES: &'static [&'static str];

    /// How it is set up, and what it does not do that others do: a reader judges the figures by it.
    const NOTE: &'static str;

    /// Whether its time is a candidate for "tokio" in the ratios.
    const REFERENCE: bool = false;

    /// What it cannot do: these rows show a dash.
    const CANNOT: Reasons = &[];

    /// Where its figure is shown and is not a candidate for the best peer, because it does something else there.
    const NOT_COMPARABLE: Reasons = &[];

    /// Whether a panic of a task comes out of its handle as a value. If not, the panic row wraps each of its tasks in
    /// `catch_unwind`, as a user would have to.
    const CONTAINS_PANICS: bool = true;

    /// What awaiting a [`Handle`](Self::Handle) gives.
    type Joined<T>;

    /// The handle of a spawned task.
    type Handle<T: 'static>: Future<Output = Self::Joined<T>> + 'static;

    /// Whether it works on this system.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    fn available() -> Result<(), String> {
        Ok(())
    }

    fn new() -> Self;

    /// The same with what its timers need.
    fn with_timers() -> Self {
        Self::new()
    }

    /// Runs `root`, and the tasks meanwhile, until `root` is ready. Called once.
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

    /// Makes a sleep from within a task of a peer that was made [`with_timers`](Self::with_timers). A peer without
    /// timers lists the timer rows in [`CANNOT`](Self::CANNOT).
    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        let _: Duration = duration;
        future::pending()
    }

    /// The value of a task, or `None` if it panicked.
    fn returned<T>(joined: Self::Joined<T>) -> Option<T>;

    /// Has every failed task counted in `reports` by a handler that does nothing else; false if this peer tells
    /// nobody.
    fn count_reports(&self, reports: &'static Cell<usize>) -> bool {
        let _: &Cell<usize> = reports;
        false
    }

    /// What starts tasks on it from other threads, if it has something for that: see [`threads`](super::workloads::threads).
    fn post(&self) -> Option<Post> {
        None
    }

    /// Asks it to give back what memory it does not need now; false if it cannot be asked.
    fn shrink(&self) -> bool {
        false
    }
}

/// A [`Peer`] with its type erased: one column of the table.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) packages: &'static [&'static str],
    pub(crate) note: &'static str,
    pub(crate) reference: bool,
    pub(crate) cannot: Reasons,
    pub(crate) not_comparable: Reasons,
    pub(crate) available: fn() -> Result<(), String>,
    /// Runs about so many operations of a row on a fresh executor; `None` if the system has not what it takes.
    sample: fn(&Row, usize) -> Option<Sample>,
    /// Measures this process with so many parked tasks, whose futures have so many bytes.
    pub(crate) footprint: fn(usize, usize) -> Option<Footprint>,
}

impl Column {
    pub(crate) fn of<P: Peer>() -> Self {
        Self {
            name: P::NAME,
            packages: P::PACKAGES,
            note: P::NOTE,
            reference: P::REFERENCE,
            cannot: P::CANNOT,
            not_comparable: P::NOT_COMPARABLE,
            available: P::available,
            sample: Row::sample::<P>,
            footprint: memory::footprint::<P>,
        }
    }

    pub(crate) fn can(&self, row: &str) -> bool {
        !listed(self.cannot, row)
    }

    pub(crate) fn is_comparable(&self, row: &str) -> bool {
        !listed(self.not_comparable, row)
    }

    /// Runs about so many operations of a row on a fresh executor; `None` if that is not possible.
    pub(crate) fn sample(&self, row: &Row, ops: usize) -> Option<Sample> {
        if self.can(row.name) && self.can(row.like) {
            (self.sample)(row, ops)
        } else {
            None
        }
    }
}

fn listed(reasons: Reasons, row: &str) -> bool {
    reasons.iter().any(|(group, _)| is_in(row, group))
}
