//! The comparison of executors, for `benches/compare.rs` and, with more peers, for the package in `benches/compare/`.
//!
//! To add a peer, implement [`peer::Peer`] in a file of its own and list it in [`peers::columns`], or in the package
//! if it is long to build; no row changes. To add a row, write its workload in [`workloads`] and name it in
//! [`rows::ROWS`]; no peer changes.

mod args;
mod chart;
mod cpu;
mod figures;
mod futures;
mod machine;
mod memory;
mod output;
pub(crate) mod peer;
pub(crate) mod peers;
mod programs;
mod rows;
mod run;
mod sections;
mod stage;
mod table;
mod workloads;

pub(crate) use run::main;
