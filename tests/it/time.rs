//! Timers, callbacks and the virtual clock: never early, in order, nothing left behind.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use mainstay::{
    ContextKind, Executor, LocalHandle, interval, sleep, sleep_until, timeout, timeout_at,
    yield_now,
};

use crate::support::{
    DropLog, Recorder, Trace, WakeCount, check_accounting, counting_waker, poll_with, quiet,
};

const SECOND: Duration = Duration::from_secs(1);

fn virtual_executor() -> Executor<'static> {
    Executor::builder().virtual_clock().build()
}

// B122, trio mc:test_mock_clock_autojump: sleeps finish in no time, in the order of their deadlines.
#[test]
fn the_virtual_clock_jumps_to_the_next_deadline() {
    let ex = virtual_executor();
    let trace = Trace::new();
    for n in [3, 1, 2] {
        let trace = trace.clone();
        ex.spawn(async move {
            sleep(n * SECOND).await;
            trace.push(n.to_string());
        })
        .detach();
    }
    let start = ex.now();
    ex.block_on(ex.idle());
    trace.assert(&["1", "2", "3"]);
    assert_eq!(ex.now() - start, 3 * SECOND);
}

// api.md: with a virtual clock, time never moves while something is ready, and `tick` never moves it.
#[test]
fn virtual_time_stands_still_while_something_is_ready() {
    let ex = virtual_executor();
    let start = ex.now();
    ex.spawn(sleep_until(start + SECOND)).detach();
    ex.block_on(async {
        for _ in 0..1_000 {
            yield_now().await;
        }
    });
    assert_eq!(ex.now(), start);
    for _ in 0..10 {
        let progress = ex.tick(100);
        assert_eq!(progress.next_deadline, Some(start + SECOND));
        assert!(!progress.more);
    }
    ex.run_until_stalled();
    assert_eq!(ex.now(), start);
    ex.advance(SECOND / 2);
    ex.run_until_stalled();
    assert_eq!(ex.len(), 1, "half of it is not enough");
    ex.advance(SECOND / 2);
    assert_eq!(ex.run_until_stalled().next_deadline, None);
    assert!(ex.is_empty());
}

// api.md: `advance` belongs to the virtual clock.
#[test]
#[should_panic(expected = "virtual")]
fn advancing_the_real_clock_panics() {
    Executor::new().advance(SECOND);
}

// P9, B115: equal deadlines fire in the order of arming (asyncio leaves that open).
#[test]
fn equal_deadlines_fire_in_the_order_of_arming() {
    let ex = virtual_executor();
    let trace = Trace::new();
    let at = ex.now() + SECOND;
    for n in 0..20 {
        let trace = trace.clone();
        ex.call_at(at, move || trace.push(n.to_string()));
    }
    ex.block_on(sleep_until(at));
    let labels: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(trace.labels(), labels);
}

// B116: what is ready runs before timers that are due in the same pass; a deadline in the past is no error.
#[test]
fn what_is_ready_runs_before_what_is_due() {
    let ex = virtual_executor();
    let trace = Trace::new();
    let (a, b) = (trace.clone(), trace.clone());
    ex.call_at(ex.now() - SECOND, move || a.push("due"));
    ex.call_soon(move || b.push("ready"));
    ex.run_until_stalled();
    trace.assert(&["ready", "due"]);
}

// Never early, on the real clock.
#[test]
fn a_sleep_never_ends_early() {
    let ex = Executor::new();
    ex.block_on(async {
        for micros in [0, 1, 50, 900, 3_000] {
            let duration = Duration::from_micros(micros);
            let start = Instant::now();
            sleep(duration).await;
            assert!(start.elapsed() >= duration);
        }
    });
}

// Nothing is early, and one wait of the thread is enough for all that is due within the slack.
#[test]
fn with_slack_what_is_due_soon_after_ends_together_and_none_early() {
    let slack = Duration::from_millis(400);
    let ex = Executor::builder().timer_slack(slack).build();
    let start = Instant::now();
    let ended = Trace::new();
    let mut sleeps: Vec<_> = [300, 1, 200, 100]
        .map(|ms| {
            let ended = ended.clone();
            ex.spawn(async move {
                sleep(Duration::from_millis(ms)).await;
                assert!(start.elapsed() >= Duration::from_millis(ms));
                ended.push(ms.to_string());
            })
        })
        .into();
    let first = ex.block_on(sleeps.remove(1));
    first.expect("it is not early");
    ended.assert(&["1", "100", "200", "300"]);
    assert!(start.elapsed() >= slack, "the whole of it was waited for");
    for sleep in sleeps {
        ex.block_on(sleep).expect("it is not early");
    }
}

// The slack is no delay: whatever ends the wait before, fires what is due.
#[test]
fn with_slack_a_wake_from_another_thread_fires_what_is_due() {
    let ex = Executor::builder().timer_slack(Duration::MAX).build();
    let spawner = ex.spawner();
    let due = ex.spawn(async { sleep(Duration::from_millis(1)).await });
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        spawner.call_soon(|_| {}).expect("it lives");
    });
    ex.block_on(due).expect("it is not waited for ever");
    thread.join().expect("it ends");
}

// The root's limits are not prolonged by it: a shutdown ends with its grace.
#[test]
fn with_slack_a_shutdown_still_ends_with_its_grace() {
    let ex = Executor::builder().timer_slack(SECOND * 3600).build();
    ex.task()
        .background()
        .spawn(async {
            // It listens, and does not end.
            mainstay::cancel_requested().await;
            sleep(SECOND * 7200).await;
        })
        .detach();
    ex.run_until_stalled();
    let report = ex.shutdown(Duration::from_millis(5));
    assert_eq!(report.dropped(), 1);
}

// Virtual time is exact, whatever the slack.
#[test]
fn slack_does_nothing_to_a_virtual_clock() {
    let ex = Executor::builder()
        .timer_slack(SECOND)
        .virtual_clock()
        .build();
    let start = ex.now();
    ex.block_on(async { sleep(SECOND * 5).await });
    assert_eq!(ex.now() - start, SECOND * 5);
}

// Issue: `Duration::MAX` and zero are fine.
#[test]
fn a_sleep_beyond_the_clocks_end_never_ends_and_costs_nothing() {
    let ex = virtual_executor();
    ex.spawn(async { sleep(Duration::MAX).await }).detach();
    let call = ex.call_later(Duration::MAX, || unreachable!("never"));
    let start = ex.now();
    ex.block_on(async {
        let forever = sleep(Duration::MAX);
        assert_eq!(forever.deadline(), None);
        assert!(timeout(SECOND, forever).await.is_err());
        assert_eq!(timeout(Duration::MAX, async { 7 }).await, Ok(7));
        sleep(Duration::ZERO).await;
    });
    assert_eq!(ex.now() - start, SECOND);
    assert!(call.cancel());
}

// B119, B120: a ready value wins, also against zero; else the time is up and the future is gone.
#[test]
fn a_timeout_drops_its_future_before_it_says_so() {
    let ex = virtual_executor();
    let log = DropLog::new();
    ex.block_on(async {
        assert_eq!(timeout(Duration::ZERO, async { 1 }).await, Ok(1));
        let guard = log.guard("late");
        let late = async move {
            let _guard = guard;
            pending::<()>().await;
        };
        assert!(timeout(SECOND, late).await.is_err());
        log.assert(&["late"]);
        let now = LocalHandle::current().now();
        assert!(timeout_at(now - SECOND, pending::<()>()).await.is_err());
    });
}

// B119: nested timeouts: the one whose time is up says so.
#[test]
fn nested_timeouts_end_by_the_shorter_one() {
    let ex = virtual_executor();
    ex.block_on(async {
        let inner = timeout(SECOND, timeout(5 * SECOND, pending::<()>())).await;
        assert!(inner.is_err());
        let outer = timeout(5 * SECOND, timeout(SECOND, pending::<()>())).await;
        assert!(matches!(outer, Ok(Err(_))));
    });
}

// B119, tokio time_sleep::reset: a sleep can be given another deadline, before and after it was ready.
#[test]
fn a_sleep_can_be_reset() {
    let ex = virtual_executor();
    ex.block_on(async {
        let handle = LocalHandle::current();
        let start = handle.now();
        let mut nap = sleep(SECOND);
        assert!(timeout(SECOND / 2, &mut nap).await.is_err());
        nap.reset(start + 3 * SECOND);
        (&mut nap).await;
        assert_eq!(handle.now() - start, 3 * SECOND);
        assert!(nap.is_elapsed());
        nap.reset(start + 4 * SECOND);
        nap.await;
        assert_eq!(handle.now() - start, 4 * SECOND);
    });
}

// api.md: bound to the executor that first polls it; outside of one, a clear panic.
#[test]
#[should_panic(expected = "outside of a running executor")]
fn a_sleep_outside_of_an_executor_panics() {
    drop(sleep(SECOND));
}

// B118, P7: a dropped sleep leaves nothing behind, and no deadline that would wake the loop.
#[test]
fn dropped_sleeps_leave_nothing_behind() {
    let ex = virtual_executor();
    ex.block_on(async {
        for _ in 0..10_000 {
            let mut nap = sleep(SECOND);
            assert!(
                timeout(Duration::ZERO, Pin::new(&mut nap)).await.is_err(),
                "it is armed"
            );
        }
    });
    assert_eq!(ex.run_until_stalled().next_deadline, None);
}

// A million sleepers at once: each wakes once, in order.
#[test]
fn a_hundred_thousand_sleepers_wake_in_order() {
    let ex = virtual_executor();
    let woken = Rc::new(Cell::new((ex.now(), 0)));
    for n in 0..100_000_u64 {
        let woken = Rc::clone(&woken);
        let at = ex.now() + Duration::from_nanos(n * 7_919 % 100_000_007);
        ex.spawn(async move {
            sleep_until(at).await;
            let (last, count) = woken.get();
            assert!(at >= last, "in the order of deadlines");
            woken.set((at, count + 1));
        })
        .detach();
    }
    ex.block_on(ex.idle());
    assert_eq!(woken.get().1, 100_000);
    check_accounting(&ex);
}

// api.md: a nearer deadline set between ticks fires the wake hook; a later one need not.
#[test]
fn a_nearer_deadline_between_ticks_tells_the_host() {
    let ex = virtual_executor();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    ex.on_wake(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let start = ex.now();
    ex.call_later(10 * SECOND, || {});
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(ex.tick(10).next_deadline, Some(start + 10 * SECOND));
    ex.call_later(20 * SECOND, || {});
    assert_eq!(calls.load(Ordering::Relaxed), 1, "not nearer");
    ex.call_later(5 * SECOND, || {});
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert_eq!(ex.tick(10).next_deadline, Some(start + 5 * SECOND));
    // A sleep that is given another deadline, and a clock that is moved.
    let sleep = Rc::new(RefCell::new(sleep_until(start + 4 * SECOND)));
    let shared = Rc::clone(&sleep);
    let sleeper = ex.spawn(poll_fn(move |cx| {
        Pin::new(&mut *shared.borrow_mut()).poll(cx)
    }));
    assert_eq!(ex.tick(10).next_deadline, Some(start + 4 * SECOND));
    let before = calls.load(Ordering::Relaxed);
    sleep.borrow_mut().reset(start + 3 * SECOND);
    assert_eq!(calls.load(Ordering::Relaxed), before + 1);
    assert_eq!(ex.tick(10).next_deadline, Some(start + 3 * SECOND));
    ex.advance(3 * SECOND);
    assert_eq!(calls.load(Ordering::Relaxed), before + 2);
    ex.tick(10);
    assert!(sleeper.is_finished());
}

// P7: a callback that was cancelled is nothing to wait for.
#[test]
fn a_cancelled_callback_leaves_no_deadline() {
    let ex = virtual_executor();
    let start = ex.now();
    let sooner = ex.call_later(SECOND, || {});
    let later = ex.call_later(2 * SECOND, || {});
    assert_eq!(ex.tick(10).next_deadline, Some(start + SECOND));
    assert!(sooner.cancel());
    assert_eq!(ex.tick(10).next_deadline, Some(start + 2 * SECOND));
    assert!(later.cancel());
    assert_eq!(ex.tick(10).next_deadline, None);
}

// P3: a foreign waker that panics when it is dropped, by a sleep that is polled with another or dropped, is told.
#[test]
fn the_waker_of_a_sleep_may_panic_when_it_is_dropped() {
    quiet();
    let ex = virtual_executor();
    let recorder = Recorder::on(&ex);
    ex.block_on(async {
        for dropped in [false, true] {
            let mut sleep = sleep(SECOND);
            let waker = Waker::from(WakeCount::panicking_on_drop());
            assert!(poll_with(&mut sleep, &waker).is_pending());
            drop(waker);
            if dropped {
                drop(sleep);
            } else {
                let (other, _) = counting_waker();
                assert!(poll_with(&mut sleep, &other).is_pending());
            }
        }
    });
    ex.run_until_stalled();
    let told = (ContextKind::Destructor, "boom in waker drop".to_owned());
    let reports: Vec<_> = recorder
        .kinds()
        .into_iter()
        .zip(recorder.exceptions())
        .collect();
    assert_eq!(reports, [told.clone(), told]);
}

// P8: a due timer is noticed within 64 polls, whatever wakes itself.
#[test]
fn a_self_waking_task_starves_no_timer() {
    let ex = Executor::new();
    ex.task()
        .background()
        .spawn(async {
            loop {
                yield_now().await;
            }
        })
        .detach();
    ex.block_on(async { sleep(Duration::from_millis(1)).await });
}

// B061: a callback that is made by a callback runs in the next pass.
#[test]
fn a_callback_made_by_a_callback_runs_in_the_next_pass() {
    let ex = Executor::<'static>::new();
    let trace = Trace::new();
    let (a, b, c) = (trace.clone(), trace.clone(), trace.clone());
    let handle = ex.handle();
    ex.call_soon(move || {
        a.push("a");
        handle.call_soon(move || c.push("c"));
    });
    ex.call_soon(move || b.push("b"));
    ex.tick(100);
    trace.assert(&["a", "b"]);
    ex.tick(100);
    trace.assert(&["c"]);
}

// B057: what was called before a task yields runs before the task does.
#[test]
fn a_callback_runs_before_a_task_that_yields_after_it() {
    let ex = Executor::<'static>::new();
    let trace = Trace::new();
    let (outer, inner) = (trace.clone(), trace.clone());
    ex.spawn(async move {
        LocalHandle::current().call_soon(move || inner.push("callback"));
        yield_now().await;
        outer.push("task");
    })
    .detach();
    ex.run_until_stalled();
    trace.assert(&["callback", "task"]);
}

// B002, B003: a callback's panic is told once, with its kind, and the loop goes on; it is no task.
#[test]
fn a_panicking_callback_is_reported_and_is_no_task() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.call_soon(|| panic!("boom in a callback"));
    ex.call_later(Duration::ZERO, || panic!("boom in a timer"));
    assert!(ex.is_empty() && ex.tasks().is_empty());
    while ex.run_until_stalled().next_deadline.is_some() {}
    let reports = recorder.take();
    assert_eq!(reports.len(), 2);
    for report in &reports {
        assert_eq!(report.kind, ContextKind::Callback);
        assert_eq!(report.task, None);
    }
    assert_eq!(ex.stats().failed, 0);
    assert_eq!(ex.stats().reports, 2);
    check_accounting(&ex);
}

// B048: in a callback there is no current task.
#[test]
fn there_is_no_current_task_in_a_callback() {
    let ex = Executor::new();
    let seen = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&seen);
    ex.call_soon(move || {
        slot.replace(Some(mainstay::current_task().is_none()));
    });
    ex.run_until_stalled();
    assert_eq!(*seen.borrow(), Some(true));
}

// A due timer that only the root waits for, found just before parking, keeps the loop from parking.
#[test]
fn a_root_that_sleeps_for_no_time_is_woken() {
    for ex in [Executor::new(), virtual_executor()] {
        ex.block_on(async { sleep(Duration::ZERO).await });
        ex.block_on(async {
            let past = LocalHandle::current().now() - SECOND;
            sleep_until(past).await;
        });
    }
}

// B071: cancelled before its turn, also by an earlier callback of the same pass: not called, captures dropped at once.
#[test]
fn a_cancelled_callback_is_dropped_at_once() {
    let ex = Executor::<'static>::new();
    let log = DropLog::new();
    let guard = log.guard("captures");
    let victim = Rc::new(RefCell::new(None::<mainstay::CallHandle>));
    let (slot, seen) = (Rc::clone(&victim), log.clone());
    let trace = Trace::new();
    let (first, second) = (trace.clone(), trace.clone());
    ex.call_soon(move || {
        let call = slot.borrow_mut().take().expect("made below");
        first.push(format!("cancelled {}", call.cancel()));
        first.push(format!("dropped {}", seen.count("captures")));
        first.push(format!("again {}", call.cancel()));
    });
    victim.replace(Some(ex.call_soon(move || {
        let _guard = &guard;
        second.push("called");
    })));
    ex.run_until_stalled();
    trace.assert(&["cancelled true", "dropped 1", "again false"]);
    log.assert(&["captures"]);
}

// asyncio: closing a loop drops its callbacks uncalled, and tells nobody.
#[test]
fn callbacks_die_with_their_executor_in_silence() {
    let log = DropLog::new();
    let ex = Executor::<'static>::new();
    let recorder = Recorder::on(&ex);
    let (soon, later, cancelled) = (
        log.guard("soon"),
        log.guard("later"),
        log.guard("cancelled"),
    );
    ex.call_soon(move || drop(soon));
    ex.call_later(SECOND, move || drop(later));
    ex.call_soon(move || drop(cancelled)).cancel();
    let handle = ex.handle();
    drop(ex);
    assert_eq!(log.len(), 3, "each once");
    assert_eq!(recorder.len(), 0);
    assert!(
        !handle
            .call_soon(|| unreachable!("the executor is gone"))
            .cancel()
    );
}

// B121: an interval keeps its rhythm, and skips what was missed.
#[test]
fn an_interval_skips_missed_ticks() {
    let ex = virtual_executor();
    ex.block_on(async {
        let start = LocalHandle::current().now();
        let mut ticks = interval(SECOND);
        let mut seen = Vec::new();
        for late in [0, 0, 35, 0, 0] {
            seen.push((ticks.tick().await - start).as_secs());
            sleep(late * SECOND / 10).await;
        }
        assert_eq!(seen, [1, 2, 3, 4, 7]);
    });
}

/// The ticks that come after missed ones are in the rhythm too. One that is too short to count those it missed begins anew,
/// later than now.
#[test]
fn an_interval_is_in_its_rhythm_after_missed_ticks() {
    let ex = virtual_executor();
    ex.block_on(async {
        let mut ticks = interval(10 * SECOND);
        let first = ticks.tick().await;
        sleep(35 * SECOND).await;
        assert_eq!(ticks.tick().await - first, 10 * SECOND, "missed");
        assert_eq!(ticks.tick().await - first, 40 * SECOND);
        assert_eq!(LocalHandle::current().now() - first, 40 * SECOND);

        let mut ticks = interval(Duration::from_nanos(1));
        ticks.tick().await;
        sleep(10 * SECOND).await;
        ticks.tick().await;
        let now = LocalHandle::current().now();
        assert_eq!(ticks.tick().await - now, Duration::from_nanos(1));
    });
}

/// B125: a loop that waits for a deadline is woken from elsewhere before that.
#[test]
fn a_wake_from_elsewhere_ends_a_wait_for_a_deadline() {
    crate::remote::without_hanging(|| {
        let ex = Executor::new();
        ex.spawn(sleep_for_ages()).detach();
        let (sender, receiver) = async_channel::bounded(1);
        let task = ex.spawn(async move { receiver.recv().await });
        ex.run_until_stalled();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(10));
            sender.send_blocking(7).unwrap();
        });
        assert_eq!(ex.block_on(task).unwrap(), Ok(7));
        thread.join().unwrap();
    });
}

async fn sleep_for_ages() {
    sleep(3_000 * SECOND).await;
}

// Builder::shuffle: another order, the same for the same seed, and every task still runs.
#[test]
fn a_shuffled_pass_has_a_seeded_order() {
    let order = |seed: Option<u64>| {
        let builder = Executor::<'static>::builder();
        let ex = match seed {
            Some(seed) => builder.shuffle(seed).build(),
            None => builder.build(),
        };
        let trace = Trace::new();
        for n in 0..50 {
            let trace = trace.clone();
            ex.spawn(async move { trace.push(n.to_string()) }).detach();
        }
        ex.run_until_stalled();
        trace.labels()
    };
    let (fifo, one, two) = (order(None), order(Some(1)), order(Some(2)));
    assert_eq!(one, order(Some(1)));
    assert_ne!(one, fifo);
    assert_ne!(one, two);
    let mut sorted = one.clone();
    sorted.sort_by_key(|n| n.parse::<u32>().expect("a number"));
    assert_eq!(sorted, fifo);
}

/// Each pass has an order of its own, in whatever way the executor is driven.
#[test]
fn every_pass_is_shuffled_anew() {
    let drives: [fn(&Executor<'static>); 3] = [
        |ex| {
            ex.run_until_stalled();
        },
        |ex| ex.block_on(ex.idle()),
        |ex| while ex.tick(20).more {},
    ];
    for drive in drives {
        let ex = Executor::builder().shuffle(7).build();
        let passes: Rc<RefCell<[Vec<u32>; 3]>> = Rc::default();
        for n in 0..20 {
            let passes = Rc::clone(&passes);
            ex.spawn(async move {
                for pass in 0..3 {
                    passes.borrow_mut()[pass].push(n);
                    yield_now().await;
                }
            })
            .detach();
        }
        drive(&ex);
        let [first, second, third] = passes.take();
        let fifo: Vec<_> = (0..20).collect();
        for pass in [&first, &second, &third] {
            assert_eq!(pass.len(), 20);
            assert_ne!(*pass, fifo, "in the order of the pass before");
        }
        assert!(first != second && second != third && first != third);
    }
}

/// P8: what becomes due during a pass is noticed within 64 polls, and has its turn before those that come after that.
#[test]
fn what_is_due_is_noticed_within_64_polls() {
    let ex = Rc::new(virtual_executor());
    let trace = Trace::new();
    let woken = trace.clone();
    ex.spawn(async move {
        sleep(SECOND).await;
        woken.push("due");
    })
    .detach();
    ex.run_until_stalled();
    for n in 0..200 {
        let (own, trace) = (Rc::downgrade(&ex), trace.clone());
        ex.spawn(async move {
            if n == 0 {
                own.upgrade().expect("it is driven").advance(SECOND);
            }
            yield_now().await;
            trace.push(n.to_string());
        })
        .detach();
    }
    ex.run_until_stalled();
    let at = trace.labels().iter().position(|label| label == "due");
    assert!(at.is_some_and(|at| at <= 64), "{at:?}");
}

// R3 and callbacks: a stale wake from another thread, for whoever lived in the slot, calls nothing before its time.
#[test]
fn a_stale_wake_calls_no_callback_early() {
    let ex = virtual_executor();
    let wakers = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..64 {
        let wakers = Rc::clone(&wakers);
        ex.spawn(poll_fn(move |cx| {
            wakers.borrow_mut().push(cx.waker().clone());
            std::task::Poll::Ready(())
        }))
        .detach();
    }
    ex.run_until_stalled();
    let called = Rc::new(Cell::new(0));
    for _ in 0..64 {
        let called = Rc::clone(&called);
        ex.call_later(3_600 * SECOND, move || called.set(called.get() + 1));
    }
    let stale = wakers.take();
    thread::spawn(move || stale.into_iter().for_each(Waker::wake))
        .join()
        .expect("waking does not panic");
    ex.run_until_stalled();
    assert_eq!(called.get(), 0);
}
