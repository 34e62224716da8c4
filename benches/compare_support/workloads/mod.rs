//! The workloads, each written once for all peers.
//!
//! Every one builds its executor before the clock starts, drops it after the clock has stopped, and checks its
//! counts before it gives its time away.

pub(super) mod panic;
pub(super) mod remote;
pub(super) mod ring;
pub(super) mod spawn;
pub(super) mod timer;
pub(super) mod wake;

use std::{hint::black_box, time::Instant};

use super::{peer::Peer, rows::Sample};

/// Measures: a counting loop in the root. The least that any figure of this harness can be.
///
/// Not measured: anything of the executor but its `block_on`, once.
pub(crate) fn loop_only<P: Peer>(ops: usize) -> Sample {
    let peer = P::new();
    let (turns, time) = peer.block_on(async {
        let start = Instant::now();
        let mut turns = 0;
        while turns < ops {
            turns = black_box(turns + 1);
        }
        (turns, start.elapsed())
    });
    assert_eq!(turns, ops, "turns");
    Sample { ops, time }
}

/// `0 + 1 + ... + (count - 1)`
pub(super) fn sum_below(count: usize) -> usize {
    count * (count - 1) / 2
}
