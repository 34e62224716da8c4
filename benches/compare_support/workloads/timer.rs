//! The workloads of the timer rows, in the manner of the other [workloads](super).

use std::{
    cell::Cell,
    future,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    super::{cpu::time_run, peer::Peer, rows::Sample, stage::Stage},
    sum_below,
};

/// Of so many sleeps, one looks at the clock before and after, to see that it did not end early.
const WATCHED: usize = 16;

/// Sleeps that a task makes in one poll: fewer than any peer's budget, beyond which it may pretend to be pending.
const BURST: usize = 100;

/// Measures: spawn a detached task that sleeps once, for 1 to 100 ms, and polls of its sleep until it returns; all
/// tasks are spawned at once. It is the time that this thread has run, its system calls included and its waits not.
///
/// The durations are spread evenly, in steps of a nanosecond, and the same for all peers. Not measured: how late the
/// sleeps end. Gives no sample where the system does not tell what a thread has run.
pub(crate) fn sleep<P: Peer>(ops: usize) -> Option<Sample> {
    let (peer, stage) = (P::with_timers(), Stage::leak());
    let early: &'static Cell<usize> = Box::leak(Box::default());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let time = peer.block_on(async {
        let before = time_run();
        stage.expect(ops);
        for index in 0..ops {
            let duration = Duration::from_nanos(1_000_000 + random.below(99_000_000));
            let watched = index % WATCHED == 0;
            peer.spawn_detached(async move {
                let start = watched.then(Instant::now);
                P::sleep(duration).await;
                if start.is_some_and(|start| start.elapsed() < duration) {
                    early.set(early.get() + 1);
                }
                stage.add(index);
                stage.tick();
            });
        }
        stage.reached().await;
        Some(time_run()?.saturating_sub(before?))
    });
    assert_eq!(stage.polls(), ops, "each sleep ends");
    assert_eq!(stage.sum(), sum_below(ops), "each sleep ends once");
    assert_eq!(early.get(), 0, "no sleep ends early");
    Some(Sample { ops, time: time? })
}

/// Measures: create a sleep of a second, poll it once, drop it: what a timeout costs that never strikes.
///
/// No other timer is armed. A hundredth of a wake and a poll of the task is in the figure.
pub(crate) fn create_drop<P: Peer>(ops: usize) -> Sample {
    create_drop_beside::<P>(0, ops, || Duration::from_secs(1))
}

/// Measures: the same beside `armed` sleeping tasks; all sleeps are of 100 s to an hour, spread evenly.
pub(crate) fn armed<P: Peer>(armed: usize, ops: usize) -> Sample {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    create_drop_beside::<P>(armed, ops, move || Duration::from_millis(long(&mut random)))
}

/// Milliseconds for which a sleep never ends while it is measured.
fn long(random: &mut Random) -> u64 {
    100_000 + random.below(3_500_000)
}

fn create_drop_beside<P: Peer>(
    armed: usize,
    ops: usize,
    mut duration: impl FnMut() -> Duration + 'static,
) -> Sample {
    let (peer, stage, bursts) = (P::with_timers(), Stage::leak(), ops.div_ceil(BURST));
    let reports: &'static Cell<usize> = Box::leak(Box::default());
    // The sleeping tasks are dropped with the executor, which may report each.
    peer.count_reports(reports);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (pending, time) = peer.block_on(async {
        stage.expect(armed);
        for _ in 0..armed {
            let duration = Duration::from_millis(long(&mut random));
            peer.spawn_detached(async move {
                stage.tick();
                P::sleep(duration).await;
                stage.tick();
            });
        }
        stage.reached().await;
        let (mut start, mut pending) = (None, 0);
        let task = peer.spawn(future::poll_fn(move |cx| {
            let start = *start.get_or_insert_with(Instant::now);
            stage.tick();
            for _ in 0..BURST {
                let sleep = pin!(P::sleep(duration()));
                pending += usize::from(sleep.poll(cx).is_pending());
            }
            if stage.polls() == armed + bursts {
                return Poll::Ready((pending, start.elapsed()));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        P::returned(task.await).expect("the task does not panic")
    });
    assert_eq!(
        stage.polls(),
        armed + bursts,
        "no dropped sleep wakes the task, and no other one ends"
    );
    assert_eq!(pending, bursts * BURST, "no sleep ends early");
    Sample {
        ops: bursts * BURST,
        time,
    }
}

/// Xorshift: the same numbers in each sample.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
