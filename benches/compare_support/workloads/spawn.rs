//! The workloads about spawning and joining.

use std::time::Instant;

use super::{
    super::{
        futures::{Answer, Large, Small},
        peer::Peer,
        rows::Sample,
        stage::Stage,
    },
    park, release, sum_below,
};

/// Tasks that are spawned before the root waits for them.
const BATCH: usize = 1_000;

/// Measures: spawn, first poll, completion and the release of a detached task whose future has 16 bytes.
///
/// At most 1,000 tasks are alive, so memory is reused from the second batch on. The last task of a batch wakes the
/// root; a thousandth of that is in the figure. Not measured: growth to many live tasks.
pub(crate) fn spawn<P: Peer>(ops: usize) -> Sample {
    const { assert!(size_of::<Small>() == 16, "the row promises this size") };
    spawn_batches::<P, Small>(0, ops, |stage, value| Small { stage, value })
}

/// Measures: the same beside `parked` tasks that are parked meanwhile.
pub(crate) fn spawn_beside<P: Peer>(parked: usize, ops: usize) -> Sample {
    spawn_batches::<P, Small>(parked, ops, |stage, value| Small { stage, value })
}

/// Measures: the same with futures of 2 KiB, and so every copy of them on their way into the executor.
///
/// Most of the 2 KiB is room that nobody has filled yet, as in an `async` block before its first `await`.
/// Not measured: the making of big values.
pub(crate) fn spawn_2k<P: Peer>(ops: usize) -> Sample {
    const { assert!(size_of::<Large>() == 2_048, "the row promises this size") };
    spawn_batches::<P, Large>(0, ops, |stage, value| Large {
        stage,
        value,
        room: None,
    })
}

fn spawn_batches<P: Peer, F>(
    beside: usize,
    ops: usize,
    make: impl Fn(&'static Stage, usize) -> F,
) -> Sample
where
    F: Future<Output = ()> + 'static,
{
    let (peer, stage, batches) = (P::new(), Stage::leak(), ops.div_ceil(BATCH));
    let time = peer.block_on(async {
        let parked = park(&peer, stage, beside).await;
        let start = Instant::now();
        for _ in 0..batches {
            stage.expect(BATCH);
            for value in 0..BATCH {
                peer.spawn_detached(make(stage, value));
            }
            stage.reached().await;
        }
        let time = start.elapsed();
        assert_eq!(
            release::<P>(stage, parked).await,
            sum_below(beside),
            "each parked task has returned its index"
        );
        time
    });
    assert_eq!(
        stage.polls(),
        batches * BATCH + 2 * beside,
        "each task is polled once, a parked one twice"
    );
    assert_eq!(
        stage.sum(),
        batches * sum_below(BATCH),
        "each task has done its work"
    );
    Sample {
        ops: batches * BATCH,
        time,
    }
}

/// Measures: spawn one task, await its handle from the root, take the value; one after the other.
///
/// The joiner is the root because that is what `block_on(async { spawn(..).await })` does. So a wake and a poll of
/// the root are in the figure, on the peers that queue a new task.
pub(crate) fn join<P: Peer>(ops: usize) -> Sample {
    let (peer, stage) = (P::new(), Stage::leak());
    let (sum, time) = peer.block_on(async {
        let start = Instant::now();
        let mut sum = 0;
        for value in 0..ops {
            sum += P::returned(peer.spawn(Answer { stage, value }).await).expect("no task panics");
        }
        (sum, start.elapsed())
    });
    assert_eq!(stage.polls(), ops, "each task is polled once");
    assert_eq!(sum, sum_below(ops), "each handle gives its task's value");
    Sample { ops, time }
}

/// Measures: spawn 1,000 tasks, then await their handles in the order of spawning; per task.
///
/// Most are finished when they are awaited. The vector of handles is reused.
pub(crate) fn join_1000<P: Peer>(ops: usize) -> Sample {
    let (peer, stage, batches) = (P::new(), Stage::leak(), ops.div_ceil(BATCH));
    let (sum, time) = peer.block_on(async {
        let mut handles = Vec::with_capacity(BATCH);
        let start = Instant::now();
        let mut sum = 0;
        for _ in 0..batches {
            handles.extend((0..BATCH).map(|value| peer.spawn(Answer { stage, value })));
            for handle in handles.drain(..) {
                sum += P::returned(handle.await).expect("no task panics");
            }
        }
        (sum, start.elapsed())
    });
    assert_eq!(stage.polls(), batches * BATCH, "each task is polled once");
    assert_eq!(
        sum,
        batches * sum_below(BATCH),
        "each handle gives its task's value"
    );
    Sample {
        ops: batches * BATCH,
        time,
    }
}
