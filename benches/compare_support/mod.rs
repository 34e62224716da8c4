//! The parts of the `compare` benchmark.
//!
//! To add a peer, implement [`peer::Peer`] in a file of its own and list it in [`peer::columns`]; no row changes.
//! To add a row, write its workload in [`workloads`], or beside it, and name it in [`rows::Row`]; no peer changes.

pub(crate) mod args;
mod cpu;
mod futures;
pub(crate) mod memory;
pub(crate) mod peer;
mod peers;
pub(crate) mod rows;
mod stage;
pub(crate) mod table;
mod workloads;
