//! The accounting: every task ends exactly once, every failure is told or read (P2).
//!
//! Each counter is moved by the event that it counts, none is computed from others, and all are moved before user code
//! can look.

use std::cell::Cell;

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(Cell<u64>);

impl Counter {
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }

    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.set(self.0.get() + n);
    }

    #[inline]
    pub(crate) fn sub(&self, n: u64) {
        self.0.set(self.0.get() - n);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) spawned: Counter,
    pub(crate) live: Counter,
    pub(crate) background: Counter,
    pub(crate) returned: Counter,
    pub(crate) failed: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) reported: Counter,
    pub(crate) retrieved: Counter,
    pub(crate) unread: Counter,
    pub(crate) polls: Counter,
}

/// An executor's accounts at one moment.
///
/// At every moment at which user code can look, `spawned = live + returned + failed + cancelled` and
/// `failed = reported + retrieved + unread`. The counters are kept independently of each other, so that the two sums
/// prove something.
///
/// They are kept on the executor's thread. So a task that was [spawned](crate::Spawner::spawn) from another thread counts from
/// when the executor has looked, and a failure that a [`RemoteHandle`](crate::RemoteHandle) has read on another thread is `unread`
/// until it has looked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks spawned.
    pub spawned: u64,
    /// Tasks that have not ended.
    pub live: u64,
    /// Tasks that ended with a value.
    pub returned: u64,
    /// Tasks that ended by a panic, or by an `Err` where that counts.
    pub failed: u64,
    /// Tasks that were cancelled, or destroyed with the executor.
    pub cancelled: u64,
    /// Failed tasks that a handler was told of.
    pub reported: u64,
    /// Failed tasks that somebody read and no handler was told of.
    pub retrieved: u64,
    /// Failed tasks that nobody has read and no handler was told of: their handles still hold them.
    pub unread: u64,
    /// Reports made, of every kind.
    pub reports: u64,
    /// Polls of tasks; the root's are not counted.
    pub polls: u64,
}

impl Counters {
    pub(crate) fn stats(&self, reports: u64) -> Stats {
        Stats {
            spawned: self.spawned.get(),
            live: self.live.get(),
            returned: self.returned.get(),
            failed: self.failed.get(),
            cancelled: self.cancelled.get(),
            reported: self.reported.get(),
            retrieved: self.retrieved.get(),
            unread: self.unread.get(),
            reports,
            polls: self.polls.get(),
        }
    }
}
