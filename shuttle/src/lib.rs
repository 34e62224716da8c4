//! The library's own files for what happens between threads, under shuttle: one thread runs at a time, and every step on an
//! atomic, lock or condition variable may hand over to another, at random.
//!
//! Loom goes through all orders of a few steps, and through what weak orderings allow; shuttle goes through some orders of
//! thousands of steps by half a dozen threads, all of them sequentially consistent. The queues are the real ones, and each
//! of their operations is one step here.
//!
//! A wake that is lost shows as shuttle's report of a deadlock, with the schedule that leads to it.

#[allow(dead_code, reason = "the schedules use parts of it")]
#[path = "../../src/key.rs"]
mod key;

#[allow(dead_code, reason = "the schedules use parts of it")]
#[path = "../../src/park.rs"]
mod park;

#[allow(dead_code, reason = "the schedules use parts of it")]
#[path = "../../src/remote/endpoint.rs"]
mod endpoint;

#[allow(dead_code, reason = "the schedules use parts of it")]
#[path = "../../src/remote/inbox.rs"]
mod inbox;

#[allow(dead_code, reason = "the schedules use parts of it")]
#[path = "../../src/wide.rs"]
mod wide;

/// Shuttle's in the place of the standard library's.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicU32, Ordering};
    pub(crate) use shuttle::sync::{Condvar, Mutex, RwLock};
    // Set before the threads start.
    pub(crate) use std::sync::OnceLock;
}

/// The home thread's side, as for loom.
#[cfg(test)]
#[allow(dead_code, reason = "the schedules use parts of it")]
#[path = "../../loom/src/home.rs"]
mod home;

#[cfg(test)]
mod schedules;
