//! The workloads about waking and polling.

use std::{
    future,
    hint::black_box,
    task::{Poll, Waker},
    time::Instant,
};

use super::{
    super::{
        futures::{Parked, Player, Side, Yielder},
        peer::Peer,
        rows::Sample,
        stage::Stage,
    },
    park, release, sum_below,
};

/// Tasks that are woken together.
const FAN: usize = 10_000;

/// Tasks that are woken together among many that are not.
const FEW: usize = 100;

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
    let wake_all = |wakers: &[Waker]| wakers.iter().for_each(Waker::wake_by_ref);
    heralded::<P>(FAN, FAN, ops, wake_all)
}

/// Measures: the same where 100 of `live` parked tasks are woken in a row, other ones each time and far from each
/// other; per task.
///
/// The wakers are as far from each other as the tasks: with many tasks, finding the waker is a good part of it, the
/// same for all peers.
pub(crate) fn parked<P: Peer>(live: usize, ops: usize) -> Sample {
    let few = live.min(FEW);
    let (step, mut next) = (far_step(live), 0);
    heralded::<P>(live, few, ops, move |wakers| {
        for _ in 0..few {
            wakers[next].wake_by_ref();
            next += step;
            if next >= live {
                next -= live;
            }
        }
    })
}

/// About 0.618 of `count`, and so that counting on by it, modulo `count`, a power of ten, goes through all numbers.
fn far_step(count: usize) -> usize {
    let step = (count * 618 / 1_000) | 1;
    if step % 5 == 0 { step + 2 } else { step }
}

/// Has one task wake `few` of `live` parked tasks by `wake`, wait until these were polled, and so on.
fn heralded<P: Peer>(
    live: usize,
    few: usize,
    ops: usize,
    mut wake: impl FnMut(&[Waker]) + 'static,
) -> Sample {
    let (peer, stage, rounds) = (P::new(), Stage::leak(), ops.div_ceil(few));
    let (sum, time) = peer.block_on(async {
        let parked = park(&peer, stage, live).await;
        let herald = peer.spawn(async move {
            let wakers = stage.wakers.take();
            let start = Instant::now();
            for _ in 0..rounds {
                stage.expect(few);
                wake(&wakers);
                stage.reached().await;
            }
            let time = start.elapsed();
            stage.wakers.replace(wakers);
            time
        });
        let time = P::returned(herald.await).expect("the herald does not panic");
        (release::<P>(stage, parked).await, time)
    });
    assert_eq!(
        stage.polls(),
        rounds * few + 2 * live,
        "each wake is one poll"
    );
    assert_eq!(sum, sum_below(live), "each task has returned its index");
    Sample {
        ops: rounds * few,
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
