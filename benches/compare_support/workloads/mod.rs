//! The workloads, each written once for all peers.
//!
//! Every one builds its executor before the clock starts, drops it after the clock has stopped, and checks its
//! counts before it gives its time away.

pub(super) mod panic;
pub(super) mod remote;
pub(super) mod ring;
pub(super) mod spawn;
pub(super) mod threads;
pub(super) mod timer;
pub(super) mod wake;

use std::{hint::black_box, task::Waker, time::Instant};

use super::{futures::Parked, peer::Peer, rows::Sample, stage::Stage};

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

/// Parks so many tasks, their wakers in the stage.
async fn park<P: Peer>(peer: &P, stage: &'static Stage, tasks: usize) -> Vec<P::Handle<usize>> {
    stage.wakers.replace(vec![Waker::noop().clone(); tasks]);
    stage.expect(tasks);
    let mut parked = Vec::with_capacity(tasks);
    parked.extend((0..tasks).map(|index| peer.spawn(Parked::<0>::new(stage, index))));
    stage.reached().await;
    parked
}

/// Has parked tasks return, and gives the sum of their indices.
async fn release<P: Peer>(stage: &'static Stage, parked: Vec<P::Handle<usize>>) -> usize {
    stage.over.set(true);
    for waker in stage.wakers.take() {
        waker.wake();
    }
    let mut sum = 0;
    for handle in parked {
        sum += P::returned(handle.await).expect("no task panics");
    }
    sum
}

/// `0 + 1 + ... + (count - 1)`
pub(super) fn sum_below(count: usize) -> usize {
    count * count.saturating_sub(1) / 2
}
