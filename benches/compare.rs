//! Runs mainstay and its peers through the same workloads and prints a Markdown table.
//!
//! ```text
//! cargo bench --bench compare                                   # everything
//! cargo bench --bench compare -- --row yield --row ping_pong    # some rows
//! cargo bench --bench compare -- --peer mainstay --rounds 51    # one peer, more rounds
//! cargo bench --manifest-path benches/compare/Cargo.toml        # with the peers that are long to build
//! ```
//!
//! Each workload is written once, generic over [`Peer`](compare_support::peer::Peer), so that every peer runs the
//! very same futures. Rounds are interleaved over the peers in one process, each sample has a fresh executor, and
//! a sample checks its own counts (polls, results, wakes, reports) before its time is used.
//!
//! A cell is the median over the rounds, and in brackets the medians of the per-round ratios to tokio (the faster of
//! its two forms without drivers) and to the best peer, which is the fastest of the others on that row. A peer does
//! not count as the best where it does something else: the notes below the table say which, and why. On a busy machine
//! the ratios are worth more than the nanoseconds, and instructions per operation (`cargo bench --bench instructions`)
//! more than both.
//!
//! Figures are times on the wall, but for `timer/sleep`, which is the time that the thread has run. A dash is a row
//! that the peer, or the system, cannot do.
//!
//! Not measured: building and dropping an executor, I/O, latency under load. Each workload's own code is part of its
//! figure; `loop_only` shows what an empty one costs.
//!
//! Nothing here fails because of a time. A build with debug assertions runs each row once, small, for the sake of
//! its checks: its times would mean nothing.

mod compare_support;

use std::process::ExitCode;

fn main() -> ExitCode {
    compare_support::main("compare", compare_support::peers::columns())
}
