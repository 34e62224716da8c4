//! The asyncio contract: time. The table is in `asyncio.md`.

use std::cell::Cell;
use std::future::{pending, poll_fn, ready};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use mainstay::{
    Elapsed, Executor, LocalHandle, interval, sleep, spawn, spawn_fallible, timeout, timeout_at,
    yield_now,
};

use crate::support::{DropLog, Fault, Recorder, Trace, counts, holding, quiet};

const SECOND: Duration = Duration::from_secs(1);

fn virtual_executor() -> Executor<'static> {
    Executor::builder().virtual_clock().build()
}

// B115: by deadline, and where those are equal by the order of making, however they were made.
#[test]
fn callbacks_are_called_by_deadline_then_by_the_order_of_making() {
    let ex = virtual_executor();
    let trace = Trace::new();
    let start = ex.now();
    for (n, seconds) in [3, 1, 2, 1, 3, 2, 1].into_iter().enumerate() {
        let trace = trace.clone();
        let note = move || trace.push(format!("{seconds}.{n}"));
        if n % 2 == 0 {
            ex.call_later(seconds * SECOND, note);
        } else {
            ex.call_at(start + seconds * SECOND, note);
        }
    }
    ex.block_on(async { sleep(4 * SECOND).await });
    trace.assert(&["1.1", "1.3", "1.6", "2.2", "2.5", "3.0", "3.4"]);
}

// B118: cancelled ones go at once, with what they hold; live ones keep their time and order; no deadline is left.
#[test]
fn cancelled_timers_are_gone_and_live_ones_unaffected() {
    let ex = virtual_executor();
    let trace = Trace::new();
    let drops = DropLog::new();
    let start = ex.now();
    for round in 0..100_u32 {
        let doomed: Vec<_> = (0..100)
            .map(|n| {
                let guard = drops.guard("captures");
                ex.call_later(Duration::from_millis(n), move || {
                    let _guard = &guard;
                    unreachable!("cancelled")
                })
            })
            .collect();
        if round % 25 == 0 {
            let trace = trace.clone();
            ex.call_later((4 - round / 25) * SECOND, move || {
                trace.push(round.to_string())
            });
        }
        assert!(doomed.iter().all(|call| call.cancel()));
        ex.tick(usize::MAX);
        assert_eq!(drops.len(), 100 * (round as usize + 1), "dropped uncalled");
    }
    assert_eq!(ex.tick(1).next_deadline, Some(start + SECOND));
    ex.block_on(async { sleep(5 * SECOND).await });
    trace.assert(&["75", "50", "25", "0"]);
    assert_eq!(ex.tick(1).next_deadline, None);
}

// B119: never, without a deadline; at once, with one that is past or zero; and one expiry is told once, to the innermost whose
// time is up.
#[test]
fn timeouts_of_every_length() {
    let ex = virtual_executor();
    ex.block_on(async {
        let now = || LocalHandle::current().now();
        let start = now();
        let never = timeout(Duration::MAX, async {
            sleep(1_000_000 * SECOND).await;
            7
        });
        assert_eq!(never.await, Ok(7));
        assert_eq!(now() - start, 1_000_000 * SECOND);

        let start = now();
        assert_eq!(timeout(Duration::ZERO, pending::<()>()).await, Err(Elapsed));
        assert_eq!(
            timeout_at(start - SECOND, pending::<()>()).await,
            Err(Elapsed)
        );
        assert_eq!(timeout_at(start, ready(7)).await, Ok(7));
        assert_eq!(now(), start);

        // Both are up at once: one of them says so.
        let both = timeout(SECOND, timeout(SECOND, pending::<()>())).await;
        assert_eq!(both, Ok(Err(Elapsed)));
        assert_eq!(now() - start, SECOND);
    });
}

// B120: what is ready wins; else the time is up and the future is gone. In Rust only a poll can tell which it is, so the
// future is polled; and a zero timeout, like a zero sleep, lets what else is ready have a turn before it is up.
#[test]
fn a_timeout_of_zero_takes_what_is_ready() {
    let ex = virtual_executor();
    let drops = DropLog::new();
    let polls = Rc::new(Cell::new(0));
    ex.block_on(async {
        let past = LocalHandle::current().now() - SECOND;
        assert_eq!(timeout(Duration::ZERO, ready(7)).await, Ok(7));
        assert_eq!(timeout_at(past, ready(7)).await, Ok(7));

        let count = Rc::clone(&polls);
        let slow = poll_fn(move |_| {
            count.set(count.get() + 1);
            Poll::<()>::Pending
        });
        let slow = holding(drops.guard("future"), slow);
        assert_eq!(timeout(Duration::ZERO, slow).await, Err(Elapsed));
        assert!((1..=2).contains(&polls.get()), "{} polls", polls.get());
        drops.assert(&["future"]);

        // A task has its turn: one that needs no more is done, another one is left alone, or cancelled with its handle.
        assert!(timeout(Duration::ZERO, spawn(ready(7))).await.is_ok());
        let task = spawn(holding(drops.guard("task"), pending::<()>())).cancel_on_drop();
        assert!(timeout(Duration::ZERO, task).await.is_err());
        drops.assert(&["future", "task"]);
        let mut task = spawn(sleep(SECOND));
        assert!(timeout(Duration::ZERO, &mut task).await.is_err());
        assert!(task.await.is_ok(), "its time was not its own");
    });
    assert_eq!(counts(&ex).cancelled, 1);
}

// B121: what fails in one tick's task is told, the next ticks come at their time; what has been cancelled ticks no more.
#[test]
fn a_failing_tick_is_told_and_the_timer_goes_on() {
    quiet();
    let ex = virtual_executor();
    let recorder = Recorder::on(&ex);
    let trace = Trace::new();
    let log = trace.clone();
    let timer = ex.spawn(async move {
        let start = LocalHandle::current().now();
        let mut ticks = interval(SECOND);
        for n in 0.. {
            let tick = ticks.tick().await - start;
            log.push(tick.as_secs().to_string());
            match n % 3 {
                0 => spawn(async { panic!("boom") }).detach(),
                1 => spawn_fallible(async { Err::<(), _>(Fault("no")) }).detach(),
                _ => spawn(async {}).detach(),
            }
        }
    });
    ex.block_on(async {
        sleep(4 * SECOND + SECOND / 2).await;
        timer.cancel();
        sleep(10 * SECOND).await;
    });
    trace.assert(&["1", "2", "3", "4"]);
    assert_eq!(recorder.exceptions(), ["boom", "no", "boom"]);
    assert_eq!(counts(&ex).cancelled, 1);
    assert_eq!(ex.tick(1).next_deadline, None, "its timer is disarmed");
}

// B122: the clock stands still for as long as anything is ready, then jumps; nobody waits.
#[test]
fn the_clock_does_not_jump_while_something_is_ready() {
    let ex = virtual_executor();
    let real = std::time::Instant::now();
    let start = ex.now();
    let trace = Trace::new();
    for hours in [3, 1, 2] {
        let trace = trace.clone();
        ex.spawn(async move {
            sleep(hours * 3_600 * SECOND).await;
            trace.push(hours.to_string());
        })
        .detach();
    }
    ex.block_on(async {
        for _ in 0..1_000 {
            yield_now().await;
            assert_eq!(LocalHandle::current().now(), start, "this task is ready");
        }
    });
    trace.assert(&[]);
    ex.block_on(ex.idle());
    trace.assert(&["1", "2", "3"]);
    assert_eq!(ex.now() - start, 3 * 3_600 * SECOND);
    assert!(real.elapsed() < 600 * SECOND, "three hours in no time");
}
