//! Loom models of the wake and park protocol.
//!
//! `park`, `endpoint`, `handover`, `inbox`, `outer` and `key` are the library's own files, included by path. They take their primitives from `sync`,
//! which has loom's here and the standard library's there. Loom then runs each model in every order of steps (for three
//! threads: with up to a number of preemptions), and with every value that a load may legally return.
//!
//! # What is real and what stands in
//!
//! Real: `Parker`, `Endpoint`, `Handover`, `Inbox`, `Outer`, `Key`. Stand-ins: the home thread's side (`home`), which in the library is spread over
//! `scheduler/pass.rs`, `arena`, `guest.rs` and `executor.rs`, is written out again in a few lines; the queues
//! (`queue`), whose own algorithms are the affair of their crates; the read-write lock, because loom's own shows no other thread
//! that it is held.
//!
//! # What no model shows
//!
//! - Loom runs one thread after the other, so a load never sees a store that is yet to come, and the read-modify-writes
//!   of one atomic happen in the order in which they are run. Hence no model needs the release of the push and the
//!   acquire of the drain at the list's head, which keep the home thread's swap of a link behind the pusher's.
//! - No weak compare-exchange fails for no reason, no condition variable ends its wait for no reason. (The protocol uses
//!   no `SeqCst`, which loom would treat as `AcqRel`.)
//! - Slot tables that grow while a wake looks its slot up: links are made before the threads start.
//! - A wait that nothing ends shows as loom's deadlock panic: what is checked is "never lost", not "soon".
//!
//! `planted.sh` plants faults in copies of these files and sees that the models find each of them.

// `endpoint` and `inbox` name these crates: here that leads to the stand-ins.
#[cfg(mainstay_loom)]
extern crate self as concurrent_queue;
#[cfg(mainstay_loom)]
extern crate self as crossbeam_queue;
#[cfg(mainstay_loom)]
pub(crate) use queue::{ConcurrentQueue, SegQueue};

#[allow(dead_code, reason = "the models use parts of it")]
#[path = "../../src/key.rs"]
mod key;

#[allow(dead_code, reason = "the models use parts of it")]
#[path = "../../src/park.rs"]
mod park;

#[allow(dead_code, reason = "the models use parts of it")]
#[path = "../../src/remote/endpoint.rs"]
mod endpoint;

#[allow(dead_code, reason = "the models use parts of it")]
#[path = "../../src/remote/handover.rs"]
mod handover;

#[allow(dead_code, reason = "the models use parts of it")]
#[path = "../../src/remote/inbox.rs"]
mod inbox;

#[allow(dead_code, reason = "the models use parts of it")]
#[path = "../../src/remote/outer.rs"]
mod outer;

#[allow(dead_code, reason = "the models use parts of it")]
#[path = "../../src/wide.rs"]
mod wide;

mod sync;

#[cfg(mainstay_loom)]
mod queue;

#[cfg(all(test, mainstay_loom))]
mod home;

#[cfg(all(test, mainstay_loom))]
mod models;
