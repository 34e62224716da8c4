//! The workloads, each written once for all peers.
//!
//! Every one builds its executor before the clock starts, drops it after the clock has stopped, and checks its
//! counts before it gives its time away.

use std::{
    cell::Cell,
    future,
    hint::black_box,
    mem,
    panic::{self, PanicHookInfo},
    task::{Poll, Waker},
    thread,
    time::Instant,
};

use super::{
    futures::{Answer, Bomb, Contained, Large, Parked, Player, Side, Small, Yielder, explode},
    peer::Peer,
    rows::Sample,
    stage::Stage,
};

/// Tasks that are spawned before the root waits for them.
const BATCH: usize = 1_000;

/// Tasks of a ring.
const RING: usize = 1_000;

/// Tasks that are woken together.
const FAN: usize = 10_000;

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

/// Measures: spawn, first poll, completion and the release of a detached task whose future has 16 bytes.
///
/// At most 1,000 tasks are alive, so memory is reused from the second batch on. The last task of a batch wakes the
/// root; a thousandth of that is in the figure. Not measured: growth to many live tasks.
pub(crate) fn spawn<P: Peer>(ops: usize) -> Sample {
    const { assert!(size_of::<Small>() == 16, "the row promises this size") };
    spawn_batches::<P, Small>(ops, |stage, value| Small { stage, value })
}

/// Measures: the same with futures of 2 KiB, and so every copy of them on their way into the executor.
///
/// Most of the 2 KiB is room that nobody has filled yet, as in an `async` block before its first `await`.
/// Not measured: the making of big values.
pub(crate) fn spawn_2k<P: Peer>(ops: usize) -> Sample {
    const { assert!(size_of::<Large>() == 2_048, "the row promises this size") };
    spawn_batches::<P, Large>(ops, |stage, value| Large {
        stage,
        value,
        room: None,
    })
}

fn spawn_batches<P: Peer, F>(ops: usize, make: impl Fn(&'static Stage, usize) -> F) -> Sample
where
    F: Future<Output = ()> + 'static,
{
    let (peer, stage, batches) = (P::new(), Stage::leak(), ops.div_ceil(BATCH));
    let time = peer.block_on(async {
        let start = Instant::now();
        for _ in 0..batches {
            stage.expect(BATCH);
            for value in 0..BATCH {
                peer.spawn_detached(make(stage, value));
            }
            stage.reached().await;
        }
        start.elapsed()
    });
    assert_eq!(stage.polls(), batches * BATCH, "each task is polled once");
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

/// Measures: a poll of a task that wakes itself by reference and stays pending, among `tasks` of them.
///
/// The clock runs from the end of everybody's first poll to the last one before anybody completes. Not measured:
/// the peers' own `yield_now`, some of which do more than a wake, and whether the turns are fair.
pub(crate) fn yields<P: Peer>(tasks: usize, ops: usize) -> Sample {
    let (peer, stage) = (P::new(), Stage::leak());
    let yields = ops.div_ceil(tasks) + 1;
    peer.block_on(async {
        stage.expect_between(tasks, tasks * yields);
        for _ in 0..tasks {
            peer.spawn_detached(Yielder {
                stage,
                left: yields,
            });
        }
        stage.reached().await;
        stage.expect_total(tasks * (yields + 1));
        stage.reached().await;
    });
    assert_eq!(stage.polls(), tasks * (yields + 1), "each wake is one poll");
    assert_eq!(stage.sum(), tasks, "each task has returned");
    Sample {
        ops: tasks * (yields - 1),
        time: stage.time(),
    }
}

/// Measures: a round trip of a ball between two tasks. Per trip that is two times: take the other's waker out of its
/// cell, wake it by value, be polled, clone one's own waker into one's cell.
pub(crate) fn ping_pong<P: Peer>(ops: usize) -> Sample {
    let peer = P::new();
    let sides: &'static [Side; 2] = Box::leak(Box::default());
    let player = |own, other| Player {
        own: &sides[own],
        other: &sides[other],
        left: ops,
        polls: 0,
    };
    let (polls, time) = peer.block_on(async {
        sides[1].ball.set(true);
        let start = Instant::now();
        let (first, second) = (peer.spawn(player(0, 1)), peer.spawn(player(1, 0)));
        let polls = [P::returned(first.await), P::returned(second.await)];
        (polls.into_iter().flatten().sum::<usize>(), start.elapsed())
    });
    // One more if the side without the ball is polled first. Both have returned, so no wake was lost.
    assert!(
        (2 * ops..=2 * ops + 1).contains(&polls),
        "{polls} polls for {ops} round trips"
    );
    Sample { ops, time }
}

/// Measures: 10,000 parked tasks woken by one task in a row, through wakers that it keeps, and polled; per task.
///
/// The tasks do not register again. Not measured: a first registration, wakes that find a task queued.
pub(crate) fn fan_out<P: Peer>(ops: usize) -> Sample {
    let (peer, stage, rounds) = (P::new(), Stage::leak(), ops.div_ceil(FAN));
    stage.wakers.replace(vec![Waker::noop().clone(); FAN]);
    let (sum, time) = peer.block_on(async {
        stage.expect(FAN);
        let parked: Vec<_> = (0..FAN)
            .map(|index| peer.spawn(Parked::<0>::new(stage, index)))
            .collect();
        stage.reached().await;

        let herald = peer.spawn(async move {
            let wakers = stage.wakers.take();
            let start = Instant::now();
            for _ in 0..rounds {
                stage.expect(FAN);
                wakers.iter().for_each(Waker::wake_by_ref);
                stage.reached().await;
            }
            let time = start.elapsed();
            stage.over.set(true);
            wakers.iter().for_each(Waker::wake_by_ref);
            time
        });
        let time = P::returned(herald.await).expect("the herald does not panic");

        let mut sum = 0;
        for handle in parked {
            sum += P::returned(handle.await).expect("no task panics");
        }
        (sum, time)
    });
    assert_eq!(stage.polls(), (rounds + 2) * FAN, "each wake is one poll");
    assert_eq!(sum, sum_below(FAN), "each task has returned its index");
    Sample {
        ops: rounds * FAN,
        time,
    }
}

/// Measures: a clone of the waker that a task is given, and the clone's drop, both through the vtable.
pub(crate) fn waker_clone_drop<P: Peer>(ops: usize) -> Sample {
    let (peer, stage) = (P::new(), Stage::leak());
    let time = peer.block_on(async {
        let task = peer.spawn(future::poll_fn(move |cx| {
            stage.tick();
            let start = Instant::now();
            for _ in 0..ops {
                drop(black_box(cx.waker()).clone());
            }
            Poll::Ready(start.elapsed())
        }));
        P::returned(task.await).expect("the task does not panic")
    });
    assert_eq!(
        stage.polls(),
        1,
        "cloning and dropping a waker wakes nobody"
    );
    Sample { ops, time }
}

/// Measures: `wake_by_ref` of another task of the same executor that has been woken and not yet polled again.
pub(crate) fn waker_wake_queued<P: Peer>(ops: usize) -> Sample {
    let (peer, stage) = (P::new(), Stage::leak());
    stage.wakers.replace(vec![Waker::noop().clone()]);
    let (index, time) = peer.block_on(async {
        stage.expect(1);
        let target = peer.spawn(Parked::<0>::new(stage, 0));
        stage.reached().await;

        let task = peer.spawn(async move {
            let wakers = stage.wakers.take();
            stage.over.set(true);
            wakers[0].wake_by_ref();
            let start = Instant::now();
            for _ in 0..ops {
                black_box(&wakers[0]).wake_by_ref();
            }
            start.elapsed()
        });
        let time = P::returned(task.await).expect("the waking task does not panic");
        (P::returned(target.await), time)
    });
    assert_eq!(stage.polls(), 2, "all the wakes together are one poll");
    assert_eq!(index, Some(0), "the woken task has returned");
    Sample { ops, time }
}

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

/// Measures: spawn a task that panics at its first poll, contain the panic, tell a handler that only counts (on
/// peers that have one), await the handle, drop the payload; one after the other.
///
/// The process's panic hook does nothing meanwhile: printing would hide everything else.
pub(crate) fn panic<P: Peer>(ops: usize) -> Sample {
    let (peer, stage) = (P::new(), Stage::leak());
    let reports: &'static Cell<usize> = Box::leak(Box::default());
    let reporting = peer.count_reports(reports);
    let quiet = QuietPanics::begin();
    let (contained, time) = peer.block_on(async {
        let start = Instant::now();
        let mut contained = 0;
        for value in 0..ops {
            let failed = if P::CONTAINS_PANICS {
                P::returned(peer.spawn(Bomb { stage, value }).await).is_none()
            } else {
                P::returned(peer.spawn(Contained(Bomb { stage, value })).await) == Some(None)
            };
            contained += usize::from(failed);
        }
        (contained, start.elapsed())
    });
    drop(quiet);
    assert_eq!(stage.polls(), ops, "each task is polled once");
    assert_eq!(contained, ops, "each panic is contained");
    assert_eq!(
        reports.get(),
        if reporting { ops } else { 0 },
        "each failure is reported, once"
    );
    Sample { ops, time }
}

/// Measures: the same panic raised and caught in the root, without a task: what unwinding itself costs here.
pub(crate) fn bare_catch<P: Peer>(ops: usize) -> Sample {
    let peer = P::new();
    let quiet = QuietPanics::begin();
    let (caught, time) = peer.block_on(async {
        let start = Instant::now();
        let mut caught = 0;
        for value in 0..ops {
            caught += usize::from(panic::catch_unwind(|| explode(black_box(value))).is_err());
        }
        (caught, start.elapsed())
    });
    drop(quiet);
    assert_eq!(caught, ops, "each panic is caught");
    Sample { ops, time }
}

/// `0 + 1 + ... + (count - 1)`
pub(crate) fn sum_below(count: usize) -> usize {
    count * (count - 1) / 2
}

/// The hook of the process that was there before.
type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send + 'static>;

/// While it lives, the panic hook does nothing.
struct QuietPanics {
    before: Option<Hook>,
}

impl QuietPanics {
    fn begin() -> Self {
        let before = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        Self {
            before: Some(before),
        }
    }
}

impl Drop for QuietPanics {
    fn drop(&mut self) {
        // The hook cannot be set while unwinding; the process is about to end then.
        if let (false, Some(before)) = (thread::panicking(), self.before.take()) {
            panic::set_hook(before);
        }
    }
}
