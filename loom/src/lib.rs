//! Loom models of the wake and park protocol.
//!
//! `park`, `endpoint` and `key` are the library's own files, included by path. They take their primitives from
//! [`sync`], which is loom's here, and from the standard library there. Loom then runs each model in every order of
//! steps (up to a number of preemptions), and with every value that a relaxed load may legally return.
//!
//! # What is real and what stands in
//!
//! Real: `Parker`, `Endpoint`, `Key`. Stand-ins: the home thread's side ([`home`](crate::home)), which in the library is
//! spread over `scheduler/pass.rs`, `arena` and `executor.rs`, is written out again in a few lines; the queue of rare
//! messages ([`queue`](crate::queue)), whose own algorithm is crossbeam's affair; the read-write lock, because loom's
//! own shows no other thread that it is held.
//!
//! # What no model shows
//!
//! - Loom does not reorder a load with a *later* store of its thread (load buffering), does not model `SeqCst` beyond
//!   `AcqRel` (the protocol uses none), lets no weak compare-exchange fail for no reason, and wakes no condition variable
//!   spuriously.
//! - Slot tables that grow while a wake looks its slot up: links are made before the threads start.
//! - A wait that nothing ends shows as loom's deadlock panic, so "never lost" is what is checked, not "soon".
//!
//! `planted.sh` plants faults in copies of these files and sees that the models find each of them.

#[cfg(mainstay_loom)]
extern crate self as crossbeam_queue; // `endpoint` names the crate: here that leads to the stand-in
#[cfg(mainstay_loom)]
pub(crate) use queue::SegQueue;

#[allow(dead_code, reason = "the models use parts of it")]
#[path = "../../src/key.rs"]
mod key;

#[allow(dead_code, reason = "the models use parts of it")]
#[path = "../../src/park.rs"]
mod park;

#[allow(dead_code, reason = "the models use parts of it")]
#[path = "../../src/remote/endpoint.rs"]
mod endpoint;

mod sync;

#[cfg(mainstay_loom)]
mod queue;

#[cfg(all(test, mainstay_loom))]
mod home;

#[cfg(all(test, mainstay_loom))]
mod models;
