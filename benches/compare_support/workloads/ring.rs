//! The workloads about channels.

use std::mem;

use super::super::{peer::Peer, rows::Sample, stage::Stage};

/// Tasks of a ring.
const RING: usize = 1_000;

/// Measures: one token on its way around a ring of 1,000 tasks, through a bounded channel of `async-channel` between
/// each two; per hop, which is a wait, a send, a wake, a poll and a receive. Most of it is the channel's own work.
///
/// The clock runs from the first hop of the second lap to the last hop. Not measured: a channel with several items.
pub(crate) fn ring_async_channel<P: Peer>(ops: usize) -> Sample {
    let (peer, stage) = (P::new(), Stage::leak());
    let laps = ops.div_ceil(RING) + 1;
    let (first, last) = async_channel::bounded(1);
    let token = peer.block_on(async {
        stage.expect_between(RING, RING * laps);
        let mut from = last.clone();
        let tasks: Vec<_> = (0..RING)
            .map(|index| {
                let (to, next) = if index + 1 == RING {
                    (first.clone(), last.clone())
                } else {
                    async_channel::bounded(1)
                };
                let from = mem::replace(&mut from, next);
                peer.spawn(async move {
                    for _ in 0..laps {
                        let token: usize = from.recv().await.expect("the ring is closed");
                        stage.tick();
                        to.send(token + 1).await.expect("the ring is closed");
                    }
                })
            })
            .collect();
        first.send(0).await.expect("the first task receives");
        for task in tasks {
            P::returned(task.await).expect("no task panics");
        }
        last.recv().await
    });
    assert_eq!(stage.polls(), RING * laps, "each task receives once a lap");
    assert_eq!(token, Ok(RING * laps), "the token has gone all the way");
    Sample {
        ops: RING * (laps - 1),
        time: stage.time(),
    }
}
