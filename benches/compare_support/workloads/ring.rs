//! The workloads about channels.

use std::mem;

use futures_channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use futures_util::StreamExt;

use super::super::{peer::Peer, rows::Sample, stage::Stage};

/// Tasks of a ring.
const RING: usize = 1_000;

/// One channel of a ring.
trait Link: Sized + 'static {
    type Sender: Clone + 'static;
    type Receiver: 'static;

    fn open() -> (Self::Sender, Self::Receiver);

    fn send(to: &mut Self::Sender, token: usize) -> impl Future<Output = ()>;

    fn receive(from: &mut Self::Receiver) -> impl Future<Output = usize>;
}

const OPEN: &str = "the ring is open";

struct AsyncChannel;

impl Link for AsyncChannel {
    type Sender = async_channel::Sender<usize>;
    type Receiver = async_channel::Receiver<usize>;

    fn open() -> (Self::Sender, Self::Receiver) {
        async_channel::bounded(1)
    }

    async fn send(to: &mut Self::Sender, token: usize) {
        to.send(token).await.expect(OPEN);
    }

    async fn receive(from: &mut Self::Receiver) -> usize {
        from.recv().await.expect(OPEN)
    }
}

struct Mpsc;

impl Link for Mpsc {
    type Sender = UnboundedSender<usize>;
    type Receiver = UnboundedReceiver<usize>;

    fn open() -> (Self::Sender, Self::Receiver) {
        mpsc::unbounded()
    }

    async fn send(to: &mut Self::Sender, token: usize) {
        to.unbounded_send(token).expect(OPEN);
    }

    async fn receive(from: &mut Self::Receiver) -> usize {
        from.next().await.expect(OPEN)
    }
}

/// Measures: one token on its way around a ring of 1,000 tasks, through a bounded channel of `async-channel` between
/// each two; per hop, which is a wait, a send, a wake, a poll and a receive. Most of it is the channel's own work.
pub(crate) fn async_channel<P: Peer>(ops: usize) -> Sample {
    ring::<P, AsyncChannel>(ops)
}

/// Measures: the same through an unbounded mpsc channel of `futures-channel`, which costs less.
pub(crate) fn mpsc<P: Peer>(ops: usize) -> Sample {
    ring::<P, Mpsc>(ops)
}

/// The clock runs from the first hop of the second lap to the last hop. Not measured: a channel with several items.
fn ring<P: Peer, L: Link>(ops: usize) -> Sample {
    let (peer, stage) = (P::new(), Stage::leak());
    let laps = ops.div_ceil(RING) + 1;
    let (mut first, last) = L::open();
    let mut last = Some(last);
    let token = peer.block_on(async {
        stage.expect_between(RING, RING * laps);
        let mut from = last.take();
        let tasks: Vec<_> = (0..RING)
            .map(|index| {
                let (mut to, next) = if index + 1 == RING {
                    (first.clone(), None)
                } else {
                    let (to, next) = L::open();
                    (to, Some(next))
                };
                let mut from = mem::replace(&mut from, next).expect("each task has a receiver");
                peer.spawn(async move {
                    let mut token = 0;
                    for lap in 0..laps {
                        token = L::receive(&mut from).await + 1;
                        stage.tick();
                        if lap + 1 < laps || index + 1 < RING {
                            L::send(&mut to, token).await;
                        }
                    }
                    token
                })
            })
            .collect();
        L::send(&mut first, 0).await;
        let mut token = None;
        for task in tasks {
            token = P::returned(task.await);
        }
        token
    });
    assert_eq!(stage.polls(), RING * laps, "each task receives once a lap");
    assert_eq!(token, Some(RING * laps), "the token has gone all the way");
    Sample {
        ops: RING * (laps - 1),
        time: stage.time(),
    }
}
