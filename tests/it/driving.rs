//! Driving: what each way of running an executor runs, when it returns, and how it is stopped.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::{Future, pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread::{self, ThreadId};
use std::time::Duration;

use mainstay::{
    ContextKind, Executor, JoinHandle, LocalHandle, Stopped, TaskId, current_task, yield_now,
};

use crate::remote::{elsewhere, without_hanging};
use crate::support::{
    Boom, DropLog, Event, Recorder, Trace, check_accounting, counts, holding, panic_message, quiet,
    yield_n,
};
use crate::wake::Probe;

/// Wakes itself at each poll, for ever.
fn restless() -> impl Future<Output = ()> {
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// What `f` unwinds with.
#[track_caller]
fn payload_of<R>(f: impl FnOnce() -> R) -> Box<dyn Any + Send> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("expected it to unwind"),
        Err(payload) => payload,
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// block_on
// ---------------------------------------------------------------------------------------------------------------------

// api.md on block_on; futures local_pool::run_until_single_future.
#[test]
fn block_on_gives_the_roots_value() {
    let ex = Executor::new();
    assert_eq!(ex.block_on(async { 40 + 2 }), 42);
    assert_eq!(ex.block_on(ready("ready")), "ready");
    let value = ex.block_on(async {
        yield_n(3).await;
        vec![1, 2, 3]
    });
    assert_eq!(value, [1, 2, 3]);
    assert_eq!(ex.stats().spawned, 0, "a root is no task");
}

// api.md on block_on: the root need be neither Send nor 'static, and is not moved once it is polled.
#[test]
fn a_root_may_borrow_locals_and_hold_what_is_not_send() {
    let ex = Executor::new();
    let mut count = 0;
    let shared = Rc::new(Cell::new(0));
    ex.block_on(async {
        let clone = Rc::clone(&shared);
        for _ in 0..3 {
            count += 1;
            clone.set(clone.get() + 1);
            yield_now().await;
        }
    });
    assert_eq!((count, shared.get()), (3, 3));
}

// futures local_pool::run_until_executes_spawned.
#[test]
fn block_on_runs_what_was_spawned() {
    let ex = Executor::new();
    let trace = Trace::new();
    let before = trace.clone();
    ex.spawn(async move { before.push("spawned before") })
        .detach();
    let value = ex.block_on(async {
        let inside = trace.clone();
        let handle = mainstay::spawn(async move {
            inside.push("spawned inside");
            7
        });
        handle.await.expect("the task returns")
    });
    assert_eq!(value, 7);
    trace.assert(&["spawned before", "spawned inside"]);
}

// B080: block_on returns with its root; what is left goes on in the next drive.
#[test]
fn block_on_leaves_pending_tasks_to_the_next_drive() {
    let ex = Executor::new();
    let event = Event::new();
    let waits = event.clone();
    let handle = ex.spawn(async move {
        yield_n(10).await;
        waits.wait().await;
        "done"
    });
    ex.block_on(yield_n(2));
    assert!(!handle.is_finished());
    ex.block_on(yield_n(20));
    assert!(event.is_awaited());
    event.set();
    assert_eq!(ex.block_on(handle).expect("it returns"), "done");
}

// api.md: a root has been dropped when block_on returns.
#[test]
fn the_root_is_dropped_before_block_on_returns() {
    let ex = Executor::new();
    let log = DropLog::new();
    let value = ex.block_on(holding(log.guard("root"), async { 7 }));
    assert_eq!(value, 7);
    log.assert(&["root"]);
}

// Design section 5: roots need no task, so a drive of nothing else works, too.
#[test]
fn an_executor_may_be_driven_any_number_of_times() {
    let ex = Executor::new();
    for i in 0..1_000 {
        assert_eq!(ex.block_on(async { i }), i);
    }
    assert_eq!(counts(&ex), Default::default());
}

// api.md: a default executor and a built one are as good.
#[test]
fn executors_are_made_in_several_ways() {
    for ex in [
        Executor::new(),
        Executor::default(),
        Executor::builder().build(),
        Executor::builder().name("main").capacity(16).build(),
        Executor::builder().capacity(0).build(),
    ] {
        let handles: Vec<JoinHandle<usize>> = (0..40).map(|i| ex.spawn(async move { i })).collect();
        let sum = ex.block_on(async {
            let mut sum = 0;
            for handle in handles {
                sum += handle.await.expect("the task returns");
            }
            sum
        });
        assert_eq!(sum, 40 * 39 / 2);
        assert!(!format!("{ex:?}").is_empty());
    }
}

// api.md on is_running: while a drive frame is on the stack.
#[test]
fn is_running_holds_during_a_drive_only() {
    quiet();
    let ex = Rc::new(Executor::new());
    assert!(!ex.is_running());
    let seen = Rc::new(Cell::new(0));
    for _ in 0..5 {
        let (weak, counter) = (Rc::downgrade(&ex), Rc::clone(&seen));
        ex.spawn(async move {
            let ex = weak.upgrade().expect("the test holds it");
            assert!(ex.is_running());
            counter.set(counter.get() + 1);
            ex.stop();
        })
        .detach();
        match seen.get() {
            0 => drop(ex.try_block_on(yield_n(2))),
            1 => ex.run_forever(),
            2 => assert_eq!(ex.tick(1).polls, 1),
            3 => assert_eq!(ex.run_until_stalled().polls, 1),
            _ => drop(payload_of(|| {
                ex.block_on(async {
                    assert!(ex.is_running());
                    yield_n(3).await;
                    panic!("boom in the root");
                });
            })),
        }
        assert!(!ex.is_running());
    }
    assert_eq!(seen.get(), 5);
}

// ---------------------------------------------------------------------------------------------------------------------
// Panics of the root
// ---------------------------------------------------------------------------------------------------------------------

// B073, api.md: the root's panic unwinds out of block_on with its own payload, is not reported, and breaks nothing.
#[test]
fn a_panic_of_the_root_unwinds_with_its_own_payload() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let task = ex.spawn(yield_n(5));
    let log = DropLog::new();
    let guard = log.guard("root");
    let payload = payload_of(|| {
        ex.block_on(async {
            let _guard = guard;
            yield_now().await;
            panic_any(Boom("the root"));
        });
    });
    assert_eq!(payload.downcast_ref::<Boom>(), Some(&Boom("the root")));
    log.assert(&["root"]);
    assert!(recorder.is_empty(), "it is not reported too");
    assert_eq!(counts(&ex).failed, 0);
    // The executor stays usable, and its tasks go on.
    ex.block_on(task).expect("the task returns");
    assert_eq!(ex.block_on(async { 7 }), 7);
}

// api.md: the same for try_block_on, whose error is for stops.
#[test]
fn a_panic_of_the_root_unwinds_out_of_try_block_on() {
    quiet();
    let ex = Executor::new();
    let payload = payload_of(|| ex.try_block_on(async { panic_any(Boom("the root")) }));
    assert!(payload.is::<Boom>());
    assert!(ex.try_block_on(async {}).is_ok());
}

// P3: a panic of a root leaves the wakes and the other tasks of that pass alone.
#[test]
fn a_panic_of_the_root_loses_no_wake() {
    quiet();
    let ex = Executor::new();
    let probe = Probe::new();
    let handle = ex.spawn(probe.task());
    ex.run_until_stalled();
    let payload = payload_of(|| {
        ex.block_on(async {
            probe.complete();
            mainstay::spawn(yield_n(3)).detach();
            panic!("boom in the root");
        });
    });
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"boom in the root"));
    ex.run_until_stalled();
    assert!(handle.is_finished());
    assert!(ex.is_empty());
}

// Design section 5: the root's destructor runs under a catch of its own; its panic is reported, the root's own resumed.
#[test]
fn a_panic_of_the_roots_destructor_is_reported_and_hides_nothing() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    let guard = log.guard("first").panics("boom in the destructor");
    let payload = payload_of(|| ex.block_on(holding(guard, async { panic_any(Boom("the root")) })));
    assert_eq!(payload.downcast_ref::<Boom>(), Some(&Boom("the root")));
    let report = recorder.take();
    assert_eq!(report.len(), 1);
    assert_eq!(report[0].kind, ContextKind::Destructor);
    assert_eq!(
        report[0].exception.as_deref(),
        Some("boom in the destructor")
    );
    assert_eq!(report[0].task, None, "a root is no task");

    // Reading: a root that has returned gives its value, although its destructor panics.
    let guard = log.guard("second").panics("boom after the value");
    assert_eq!(ex.block_on(holding(guard, async { 7 })), 7);
    assert_eq!(recorder.exceptions(), ["boom after the value"]);
    log.assert(&["first", "second"]);
}

// P3: a task's panic never reaches the caller of block_on.
#[test]
fn a_panic_of_a_task_does_not_reach_the_caller() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.spawn(async { panic!("boom in a task") }).detach();
    assert_eq!(
        ex.block_on(async {
            yield_n(3).await;
            7
        }),
        7
    );
    assert_eq!(recorder.only().kind, ContextKind::TaskFailed);
}

// ---------------------------------------------------------------------------------------------------------------------
// stop
// ---------------------------------------------------------------------------------------------------------------------

// B065; asyncio tk:test_stop_while_run_in_complete.
#[test]
fn try_block_on_tells_that_it_was_stopped() {
    let ex = Executor::new();
    ex.spawn(async { LocalHandle::current().stop() }).detach();
    let log = DropLog::new();
    let root = holding(log.guard("root"), pending::<()>());
    let stopped: Stopped = ex.try_block_on(root).expect_err("stopped");
    log.assert(&["root"]);
    assert!(!stopped.to_string().is_empty() && !format!("{stopped:?}").is_empty());
    assert!(
        stopped.into_payload().is_none(),
        "a polite stop has no payload"
    );
    // It is over then.
    assert_eq!(
        ex.try_block_on(async {
            yield_n(5).await;
            7
        })
        .ok(),
        Some(7)
    );
}

// api.md on JoinError: `Stopped` works into the usual error types as well.
#[test]
fn stopped_works_into_the_usual_error_types() {
    fn boxed(ex: &Executor<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(ex.try_block_on(pending::<()>())?)
    }
    fn any(ex: &Executor<'_>) -> anyhow::Result<()> {
        Ok(ex.try_block_on(pending::<()>())?)
    }
    let ex = Executor::new();
    ex.stop();
    assert!(boxed(&ex).is_err());
    ex.stop();
    assert!(any(&ex).is_err());
}

// B065: what block_on cannot return, it panics with.
#[test]
fn block_on_panics_when_it_is_stopped_before_its_root_finished() {
    let ex = Executor::new();
    ex.spawn(async { LocalHandle::current().stop() }).detach();
    let message = panic_message(|| ex.block_on(pending::<()>()));
    assert!(
        message.contains("stopped before the root finished"),
        "{message}"
    );
    assert!(!ex.is_running());
    assert_eq!(ex.block_on(async { 7 }), 7);
}

// B065, api.md: a root that is passed as `Pin<&mut F>` is resumed by a later call.
#[test]
fn a_root_that_was_pinned_by_its_owner_may_be_resumed() {
    let ex = Executor::new();
    let trace = Trace::new();
    let event = Event::new();
    ex.spawn(async { LocalHandle::current().stop() }).detach();
    let mut root = pin!(async {
        trace.push("begun");
        event.wait().await;
        trace.push("resumed");
        7
    });
    assert!(ex.try_block_on(root.as_mut()).is_err());
    trace.assert(&["begun"]);
    event.set();
    let value = ex.try_block_on(root.as_mut()).expect("not stopped");
    assert_eq!(value, 7);
    trace.assert(&["resumed"]);
}

// api.md on stopping: a root that is ready in the pass that was stopped wins.
#[test]
fn a_root_that_is_ready_in_the_pass_that_was_stopped_wins() {
    let ex = Executor::new();
    let value = ex.try_block_on(async {
        LocalHandle::current().stop();
        7
    });
    assert_eq!(value.expect("the root wins"), 7);
    // The stop is spent, one way or the other.
    assert!(ex.try_block_on(yield_n(5)).is_ok());
}

// api.md on stopping: one whose last wait ended in that pass, by the task that stopped it, too.
#[test]
fn a_root_that_the_stopped_pass_made_ready_wins() {
    let ex = Executor::new();
    let event = Event::new();
    let sets = event.clone();
    ex.spawn(async move {
        LocalHandle::current().stop();
        sets.set();
    })
    .detach();
    let value = ex.try_block_on(async {
        event.wait().await;
        7
    });
    // Reading: a root that was woken in the pass has its poll before the drive ends; it is ready, not only woken.
    assert_eq!(value.expect("the root wins"), 7);
    // One that goes on waiting is stopped.
    ex.spawn(async { LocalHandle::current().stop() }).detach();
    assert!(ex.try_block_on(yield_n(5)).is_err());
}

// api.md on stopping, B065: the pass ends, and what it made ready is left to the next drive.
#[test]
fn a_stop_lets_the_current_pass_end_and_no_more() {
    let ex = Executor::new();
    let trace = Trace::new();
    for name in ["a", "b", "c"] {
        let trace = trace.clone();
        ex.spawn(async move {
            trace.push(name);
            if name == "b" {
                LocalHandle::current().stop();
            }
            yield_now().await;
            trace.push(format!("{name} again"));
        })
        .detach();
    }
    ex.run_forever();
    trace.assert(&["a", "b", "c"]);
    ex.run_until_stalled();
    trace.assert(&["a again", "b again", "c again"]);
}

// api.md on stopping: `run_forever`, `tick` and `run_until_stalled` just return.
#[test]
fn a_stop_ends_each_kind_of_drive() {
    without_hanging(|| {
        let ex = Executor::new();
        let stop = || ex.spawn(async { LocalHandle::current().stop() }).detach();
        ex.task().background().spawn(restless()).detach();
        stop();
        ex.run_forever();
        stop();
        // Without the stop, it would never stall.
        assert!(ex.run_until_stalled().more);
        stop();
        let polls = ex.tick(usize::MAX).polls;
        assert!((1..=10).contains(&polls), "{polls} polls");
        stop();
        assert!(ex.try_block_on(pending::<()>()).is_err());
    });
}

// asyncio: stop() before run_forever() makes it run one pass; api.md on stopping.
#[test]
fn a_stop_before_the_drive_ends_it_after_one_pass_that_does_not_block() {
    without_hanging(|| {
        let ex = Executor::new();
        let trace = Trace::new();
        let pushes = trace.clone();
        ex.spawn(async move {
            pushes.push("first");
            yield_now().await;
            pushes.push("second");
        })
        .detach();
        ex.stop();
        ex.run_forever();
        trace.assert(&["first"]);
        // Nothing is ready here, and it returns all the same.
        ex.run_until_stalled();
        trace.assert(&["second"]);
        ex.stop();
        ex.run_forever();
        // Several are one.
        ex.stop();
        ex.handle().stop();
        assert!(ex.try_block_on(pending::<()>()).is_err());
        assert!(ex.try_block_on(yield_n(3)).is_ok());
        // A root that is ready in that one pass wins.
        ex.stop();
        assert!(ex.try_block_on(async {}).is_ok());
    });
}

// B065: a stop is heard while the loop is parked, too: whoever stops it was woken before.
#[test]
fn run_forever_parks_until_a_woken_task_stops_it() {
    without_hanging(|| {
        let ex = Executor::new();
        let probe = Probe::new();
        let body = probe.task();
        ex.spawn(async move {
            body.await;
            LocalHandle::current().stop();
        })
        .detach();
        let thread = thread::spawn(move || {
            while probe.try_waker().is_none() {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(5));
            probe.complete();
        });
        ex.run_forever();
        thread.join().expect("the thread ends well");
        assert!(ex.is_empty());
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// stop_with
// ---------------------------------------------------------------------------------------------------------------------

// B017, api.md on stopping: whatever drives the executor unwinds with the payload, at the end of the pass.
#[test]
fn stop_with_unwinds_with_its_payload_out_of_each_kind_of_drive() {
    quiet();
    let drives: [fn(&Executor<'static>); 4] = [
        |ex| ex.block_on(pending()),
        |ex| ex.run_forever(),
        |ex| {
            let _ = ex.tick(100);
        },
        |ex| {
            let _ = ex.run_until_stalled();
        },
    ];
    for (i, drive) in drives.iter().enumerate() {
        let ex = Executor::<'static>::new();
        let trace = Trace::new();
        for name in ["a", "b", "c"] {
            let trace = trace.clone();
            ex.spawn(async move {
                trace.push(name);
                if name == "b" {
                    LocalHandle::current().stop_with(Box::new(Boom("fatal")));
                }
                yield_now().await;
                trace.push("again");
            })
            .detach();
        }
        let payload = payload_of(|| drive(&ex));
        assert_eq!(payload.downcast_ref::<Boom>(), Some(&Boom("fatal")), "{i}");
        trace.assert(&["a", "b", "c"]);
        // B017: what is left in the queue is preserved, and the loop is usable.
        assert!(!ex.is_running());
        ex.run_until_stalled();
        trace.assert(&["again", "again", "again"]);
        check_accounting(&ex);
    }
}

// api.md on stopping: try_block_on gives the payload back.
#[test]
fn try_block_on_gives_the_payload_of_stop_with() {
    let ex = Executor::new();
    ex.spawn(async { LocalHandle::current().stop_with(Box::new("why")) })
        .detach();
    let stopped = ex.try_block_on(pending::<()>()).expect_err("stopped");
    let payload = stopped.into_payload().expect("it has one");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"why"));
}

// api.md on stopping: `stop_with` beats the root.
#[test]
fn stop_with_beats_a_root_that_is_ready() {
    let ex = Executor::new();
    let log = DropLog::new();
    let output = log.guard("output");
    let result = ex.try_block_on(async {
        LocalHandle::current().stop_with(Box::new("why"));
        output
    });
    let stopped = result.expect_err("stopped");
    assert!(stopped.into_payload().is_some());
    log.assert(&["output"]);
}

// The value of a root that was beaten is dropped contained.
#[test]
fn the_value_of_a_beaten_root_may_panic_when_it_is_dropped() {
    quiet();
    let ex = Executor::new();
    let (recorder, log) = (Recorder::on(&ex), DropLog::new());
    let output = log.guard("output").panics("boom in the output");
    let result = ex.try_block_on(async {
        LocalHandle::current().stop_with(Box::new("why"));
        output
    });
    assert!(result.expect_err("stopped").into_payload().is_some());
    assert_eq!(recorder.only().kind, ContextKind::Destructor);
    log.assert(&["output"]);
}

// api.md on stopping: it beats a polite stop, before or after it.
#[test]
fn stop_with_beats_stop() {
    for fatal_first in [true, false] {
        let ex = Executor::new();
        ex.spawn(async move {
            let local = LocalHandle::current();
            if !fatal_first {
                local.stop();
            }
            local.stop_with(Box::new("why"));
            local.stop();
        })
        .detach();
        let stopped = ex.try_block_on(pending::<()>()).expect_err("stopped");
        assert!(stopped.into_payload().is_some());
        assert!(ex.try_block_on(yield_n(3)).is_ok(), "both are spent");
    }
}

// api.md on stopping: the first payload wins, later ones are reported.
#[test]
fn the_first_payload_wins_and_later_ones_are_reported() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    for payload in ["first", "second", "third"] {
        ex.spawn(async move { LocalHandle::current().stop_with(Box::new(payload)) })
            .detach();
    }
    let stopped = ex.try_block_on(pending::<()>()).expect_err("stopped");
    let payload = stopped.into_payload().expect("it has one");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"first"));
    // Reading: a payload is reported as a panic is, by what it says.
    assert_eq!(recorder.exceptions(), ["second", "third"]);
}

// api.md on stopping: as with `stop`, between two drives it is for the next one.
#[test]
fn stop_with_between_two_drives_ends_the_next() {
    without_hanging(|| {
        quiet();
        let ex = Executor::new();
        let trace = Trace::new();
        let pushes = trace.clone();
        ex.spawn(async move { pushes.push("polled") }).detach();
        // Reading: like `stop`, it lets that drive make one pass.
        ex.stop_with(Box::new(Boom("early")));
        let payload = payload_of(|| ex.run_forever());
        assert_eq!(payload.downcast_ref::<Boom>(), Some(&Boom("early")));
        trace.assert(&["polled"]);
        ex.run_until_stalled();
    });
}

// B017, P3: a payload that panics when dropped is the business of whoever catches it.
#[test]
fn the_payload_of_stop_with_is_handed_over_untouched() {
    let ex = Executor::new();
    let log = DropLog::new();
    let payload = log.guard("payload");
    ex.spawn(async move { LocalHandle::current().stop_with(Box::new(payload)) })
        .detach();
    let stopped = ex.try_block_on(pending::<()>()).expect_err("stopped");
    assert_eq!(log.len(), 0);
    drop(stopped);
    log.assert(&["payload"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// tick and run_until_stalled
// ---------------------------------------------------------------------------------------------------------------------

// api.md on tick: at most `budget` polls, and the rest keeps its turn.
#[test]
fn tick_polls_at_most_its_budget() {
    let ex = Executor::new();
    let trace = Trace::new();
    for name in ["a", "b", "c", "d", "e"] {
        let trace = trace.clone();
        ex.spawn(async move { trace.push(name) }).detach();
    }
    let progress = ex.tick(2);
    assert_eq!((progress.polls, progress.more), (2, true));
    assert!(progress.next_deadline.is_none(), "there are no timers");
    trace.assert(&["a", "b"]);
    let progress = ex.tick(2);
    assert_eq!((progress.polls, progress.more), (2, true));
    trace.assert(&["c", "d"]);
    let progress = ex.tick(2);
    assert_eq!((progress.polls, progress.more), (1, false));
    trace.assert(&["e"]);
    let progress = ex.tick(2);
    assert_eq!((progress.polls, progress.more), (0, false));
    assert!(ex.is_empty());
}

// api.md on tick: a budget of nothing polls nothing, and says whether there is something to do.
#[test]
fn a_tick_without_budget_polls_nothing() {
    let ex = Executor::new();
    let probe = Probe::new();
    ex.spawn(probe.task()).detach();
    let progress = ex.tick(0);
    assert_eq!((progress.polls, progress.more), (0, true));
    assert_eq!(probe.polls(), 0);
    assert!(!ex.tick(1).more);
    assert!(!ex.tick(0).more);
    probe.complete();
    ex.tick(1);
}

// futures local_pool::self_waking_try_run_one (#2593).
#[test]
fn a_tick_says_more_while_a_task_wakes_itself_2593() {
    let ex = Executor::new();
    for _ in 0..3 {
        ex.spawn(yield_n(10)).detach();
    }
    let mut polls = 0;
    let mut ticks = 0;
    loop {
        let progress = ex.tick(1);
        assert!(progress.polls <= 1);
        polls += progress.polls;
        ticks += 1;
        if !progress.more {
            break;
        }
    }
    assert_eq!((polls, ticks), (33, 33));
    assert!(ex.is_empty());
}

// api.md on tick: it never blocks, and a task that wakes itself for ever does not make it go on for ever.
#[test]
fn a_tick_ends_although_a_task_wakes_itself_for_ever() {
    let ex = Executor::new();
    ex.task().background().spawn(restless()).detach();
    let other = ex.spawn(yield_n(3));
    for _ in 0..100 {
        let progress = ex.tick(10);
        assert!((1..=10).contains(&progress.polls));
        assert!(progress.more);
    }
    assert!(other.is_finished());
}

// api.md on tick: done callbacks count against the budget, too.
#[test]
fn a_tick_counts_callbacks_against_its_budget() {
    let ex = Executor::new();
    let trace = Trace::new();
    let handle = ex.spawn(async {});
    for name in ["a", "b", "c"] {
        let trace = trace.clone();
        handle.add_done_callback(move |_| trace.push(name));
    }
    let mut ticks = 0;
    while ex.tick(1).more {
        ticks += 1;
        assert!(ticks < 10, "it never ends");
        assert!(trace.len() <= ticks, "one thing a tick");
    }
    trace.assert(&["a", "b", "c"]);
    assert!(handle.is_finished());
}

// futures local_pool::self_waking_run_until_stalled (#2593), run_until_stalled_runs_spawned_sub_futures.
#[test]
fn run_until_stalled_runs_until_nothing_is_ready_2593() {
    let ex = Executor::new();
    let event = Event::new();
    let trace = Trace::new();
    for i in 0..3 {
        let (trace, event) = (trace.clone(), event.clone());
        ex.spawn(async move {
            yield_n(10).await;
            let inner = trace.clone();
            mainstay::spawn(async move { inner.push(format!("spawned by {i}")) }).detach();
            event.wait().await;
            trace.push(format!("{i} is done"));
        })
        .detach();
    }
    let progress = ex.run_until_stalled();
    // Eleven polls of each of the three, and one of each of what they spawned.
    assert_eq!((progress.polls, progress.more), (36, false));
    assert!(progress.next_deadline.is_none());
    trace.assert(&["spawned by 0", "spawned by 1", "spawned by 2"]);
    assert_eq!(ex.run_until_stalled().polls, 0);
    event.set();
    assert_eq!(ex.run_until_stalled().polls, 3);
    trace.assert(&["0 is done", "1 is done", "2 is done"]);
}

// api.md on Stats: `polls` and `Progress::polls` count the same polls.
#[test]
fn progress_and_stats_count_the_same_polls() {
    let ex = Executor::new();
    let mut polls = 0;
    for i in 0..10 {
        ex.spawn(yield_n(i)).detach();
        polls += ex.tick(3).polls;
    }
    polls += ex.run_until_stalled().polls;
    assert_eq!(polls, 10 + 45);
    assert_eq!(ex.stats().polls, polls as u64);
}

// api.md on run_until_stalled: it never blocks.
#[test]
fn run_until_stalled_of_nothing_returns_at_once() {
    let ex = Executor::new();
    let progress = ex.run_until_stalled();
    assert_eq!((progress.polls, progress.more), (0, false));
    ex.spawn(pending::<()>()).cancel();
    ex.task().background().spawn(pending::<()>()).detach();
    assert!(!ex.run_until_stalled().more);
    assert_eq!(ex.run_until_stalled().polls, 0);
}

// Design section 5, P9: the ways of driving may be mixed.
#[test]
fn the_ways_of_driving_may_be_mixed() {
    let ex = Executor::new();
    let trace = Trace::new();
    let pushes = trace.clone();
    let handle = ex.spawn(async move {
        for i in 0..6 {
            pushes.push(i.to_string());
            yield_now().await;
        }
    });
    ex.tick(1);
    ex.block_on(yield_now());
    ex.stop();
    ex.run_forever();
    assert!(ex.try_block_on(yield_now()).is_ok());
    trace.labels().iter().enumerate().for_each(|(i, label)| {
        assert_eq!(*label, i.to_string());
    });
    ex.run_until_stalled();
    trace.assert(&["0", "1", "2", "3", "4", "5"]);
    assert!(handle.is_finished());
}

// ---------------------------------------------------------------------------------------------------------------------
// on_wake
// ---------------------------------------------------------------------------------------------------------------------

/// Counts the calls of the hook of `ex`.
fn hook(ex: &Executor<'_>) -> Arc<AtomicUsize> {
    let calls = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&calls);
    ex.on_wake(move || {
        counts.fetch_add(1, Ordering::SeqCst);
    });
    calls
}

// api.md on on_wake; async-executor #88 and #158; tokio task_local_set::spawn_wakes_localset.
#[test]
fn whatever_makes_work_between_two_drives_calls_the_hook() {
    let ex = Executor::<'static>::new();
    let probes: Vec<Probe> = (0..2).map(|_| Probe::new()).collect();
    for probe in &probes {
        ex.spawn(probe.task()).detach();
    }
    let victims: Vec<JoinHandle<()>> = (0..3).map(|_| ex.spawn(pending())).collect();
    let guarded = Cell::new(Some(ex.spawn(pending::<()>()).cancel_on_drop()));
    let finished = ex.spawn(async {});
    ex.run_until_stalled();
    let calls = hook(&ex);
    let local = ex.handle();
    let far = victims[1].cancel_handle();
    let acts: [(&str, &dyn Fn()); 12] = [
        ("spawn", &|| ex.spawn(async {}).detach()),
        ("spawn_fallible", &|| {
            ex.spawn_fallible(async { Ok::<(), String>(()) }).detach();
        }),
        ("task", &|| ex.task().name("named").spawn(async {}).detach()),
        ("spawn through a handle", &|| local.spawn(async {}).detach()),
        ("wake", &|| probes[0].wake()),
        ("wake from a thread", &|| elsewhere(|| probes[1].wake())),
        ("cancel", &|| {
            assert!(victims[0].cancel());
        }),
        ("cancel from a thread", &|| {
            assert!(elsewhere(|| far.cancel()));
        }),
        ("cancel on drop", &|| drop(guarded.take())),
        ("stop", &|| ex.stop()),
        ("stop through a handle", &|| local.stop()),
        // Reading: a callback on a finished task runs in the next pass, so it is work.
        ("a late callback", &|| {
            finished.add_done_callback(|_| {});
        }),
    ];
    for (what, act) in acts {
        let before = calls.load(Ordering::SeqCst);
        act();
        assert_eq!(calls.load(Ordering::SeqCst), before + 1, "{what}");
        let done = calls.load(Ordering::SeqCst);
        while ex.tick(100).more {}
        assert_eq!(
            calls.load(Ordering::SeqCst),
            done,
            "{what}: not by the drive"
        );
    }
    assert!(guarded.take().is_none());
    assert_eq!(ex.len(), 3, "two probes and one victim");
}

// api.md on on_wake: a wake that no hook heard, because there was none or because it was being replaced, is told the new one.
#[test]
fn a_hook_is_called_when_there_is_work_as_it_is_set() {
    let ex = Executor::new();
    ex.spawn(async {}).detach();
    let first = hook(&ex);
    assert_eq!(first.load(Ordering::SeqCst), 1);
    let second = hook(&ex);
    assert_eq!(second.load(Ordering::SeqCst), 1);
    ex.run_until_stalled();
    let third = hook(&ex);
    assert_eq!(third.load(Ordering::SeqCst), 0, "there is nothing to do");
}

// api.md on on_wake: coalesced, until the next tick looks at the queues.
#[test]
fn the_hook_is_called_once_until_the_next_tick() {
    let ex = Executor::new();
    let probe = Probe::new();
    ex.spawn(probe.task()).detach();
    ex.run_until_stalled();
    let calls = hook(&ex);
    for round in 1..=5 {
        for _ in 0..10 {
            ex.spawn(async {}).detach();
            probe.wake();
            elsewhere(|| probe.wake());
        }
        assert_eq!(calls.load(Ordering::SeqCst), round);
        while ex.tick(7).more {}
    }
}

// api.md on on_wake: what a drive makes ready itself shows in its `Progress`.
#[test]
fn the_hook_is_not_called_for_what_a_drive_makes_ready_itself() {
    let ex = Executor::new();
    let calls = hook(&ex);
    let event = Event::new();
    let waits = event.clone();
    ex.spawn(async move { waits.wait().await }).detach();
    ex.spawn(async move {
        yield_n(3).await;
        mainstay::spawn(yield_n(2)).detach();
        mainstay::spawn(pending::<()>()).cancel();
        event.set();
    })
    .detach();
    let before = calls.load(Ordering::SeqCst);
    while ex.tick(1).more {}
    assert!(ex.is_empty());
    assert_eq!(calls.load(Ordering::SeqCst), before);
}

// Design section 5: the flag is cleared before the queues are looked at, so a wake during a tick is not lost to the host.
#[test]
fn a_wake_from_a_thread_during_a_tick_is_seen_by_that_tick_or_calls_the_hook() {
    let ex = Executor::new();
    let probe = Probe::new();
    let handle = ex.spawn(probe.task());
    ex.run_until_stalled();
    let calls = hook(&ex);
    let wakes = probe.clone();
    ex.spawn(async move {
        elsewhere(|| wakes.complete());
    })
    .detach();
    let before = calls.load(Ordering::SeqCst);
    let progress = ex.tick(1);
    let called = calls.load(Ordering::SeqCst) > before;
    assert!(progress.more || called || handle.is_finished());
    while ex.tick(1).more {}
    assert!(handle.is_finished());
}

// B125: a host that knows nothing but `tick` and the hook drives tasks that threads wake.
#[test]
fn a_host_loop_needs_only_tick_and_the_hook() {
    without_hanging(|| {
        let ex = Executor::new();
        let (sender, receiver) = mpsc::channel::<()>();
        ex.on_wake(move || {
            // The host may be gone, which is no concern of the hook's.
            let _ = sender.send(());
        });
        let probes: Vec<Probe> = (0..20).map(|_| Probe::new()).collect();
        let done = Rc::new(Cell::new(0));
        for probe in &probes {
            let (body, done) = (probe.task(), Rc::clone(&done));
            ex.spawn(async move {
                body.await;
                yield_n(3).await;
                done.set(done.get() + 1);
            })
            .detach();
        }
        let thread = thread::spawn(move || {
            for probe in &probes {
                while probe.try_waker().is_none() {
                    thread::yield_now();
                }
                probe.complete();
            }
        });
        let mut events = 0;
        while done.get() < 20 {
            receiver.recv().expect("the executor has the sender");
            events += 1;
            while ex.tick(4).more {}
        }
        thread.join().expect("the thread ends well");
        assert!((1..=21).contains(&events), "{events} events for 21 causes");
        assert!(ex.is_empty());
    });
}

// P1, P7, P9: a host that forgets to tick is told once, however much there is to do; and when it comes back, all of it is
// done, in order, each task once however often it was woken.
#[test]
fn a_host_that_forgets_to_tick_loses_nothing() {
    let ex = Executor::builder().virtual_clock().build();
    let hook = hook(&ex);
    let probe = Probe::new();
    ex.spawn(probe.task()).detach();
    let parked = ex.spawn(pending::<()>());
    ex.run_until_stalled();
    let (told, polls) = (hook.load(Ordering::SeqCst), probe.polls());
    let trace = Trace::new();
    let log = |label: &'static str| {
        let trace = trace.clone();
        async move { trace.push(label) }
    };
    ex.spawn(log("spawned")).detach();
    let spawner = ex.spawner();
    elsewhere(|| {
        for _ in 0..10_000 {
            probe.wake();
        }
        for _ in 0..1_000 {
            spawner.spawn(|| async {}).unwrap().detach();
        }
    });
    let timed = trace.clone();
    ex.call_later(Duration::from_secs(1), move || timed.push("timed"));
    ex.advance(Duration::from_secs(3_600));
    parked.cancel();
    ex.spawn(log("spawned late")).detach();
    assert_eq!(hook.load(Ordering::SeqCst), told + 1, "coalesced");
    assert_eq!(probe.polls(), polls);

    while ex.tick(100).more {}
    trace.assert(&["spawned", "spawned late", "timed"]);
    assert_eq!(probe.polls(), polls + 1);
    let counts = counts(&ex);
    assert_eq!(
        (counts.live, counts.returned, counts.cancelled),
        (1, 1_002, 1)
    );
    probe.complete();
    while ex.tick(100).more {}
    assert!(ex.is_empty());
}

// api.md on on_wake: the hook is called where the wake is made.
#[test]
fn the_hook_runs_on_the_thread_that_wakes() {
    let ex = Executor::new();
    let probe = Probe::new();
    ex.spawn(probe.task()).detach();
    ex.run_until_stalled();
    let (sender, receiver) = mpsc::channel::<ThreadId>();
    ex.on_wake(move || {
        let _ = sender.send(thread::current().id());
    });
    let there = elsewhere(|| {
        probe.wake();
        thread::current().id()
    });
    assert_eq!(receiver.try_recv().ok(), Some(there));
    ex.run_until_stalled();
    probe.wake();
    assert_eq!(receiver.try_recv().ok(), Some(thread::current().id()));
    probe.complete();
}

// P3: a hook that panics does so in front of nobody: neither who spawns nor who wakes.
#[test]
fn a_hook_that_panics_is_contained() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.on_wake(|| panic!("boom in the hook"));
    let probe = Probe::new();
    let handle = ex.spawn(probe.task());
    ex.run_until_stalled();
    // Reading: a failure at home is reported at home, at the latest in the next drive; it may be told as an exception or in
    // the headline.
    let report = recorder.only();
    let told = format!(
        "{} {}",
        report.message,
        report.exception.unwrap_or_default()
    );
    assert!(told.contains("boom in the hook"), "{told}");
    elsewhere(|| probe.complete());
    ex.run_until_stalled();
    assert!(handle.is_finished());
}

// ---------------------------------------------------------------------------------------------------------------------
// Another executor
// ---------------------------------------------------------------------------------------------------------------------

// api.md on driving: driving another executor from a task works and blocks.
#[test]
fn driving_another_executor_from_a_task_blocks_the_outer_one() {
    without_hanging(|| {
        let outer = Executor::new();
        let trace = Trace::new();
        let pushes = trace.clone();
        outer
            .spawn(async move {
                let inner = Executor::new();
                let tick = pushes.clone();
                let handle = inner.spawn(async move {
                    for i in 0..3 {
                        tick.push(format!("inner {i}"));
                        yield_now().await;
                    }
                });
                inner.block_on(handle).expect("the task returns");
                pushes.push("back");
            })
            .detach();
        let other = trace.clone();
        outer.spawn(async move { other.push("other") }).detach();
        outer.run_until_stalled();
        trace.assert(&["inner 0", "inner 1", "inner 2", "back", "other"]);
    });
}

// B048; asyncio tk:test_current_task_with_interleaving_tasks, across executors.
#[test]
fn the_current_task_and_executor_follow_the_nesting() {
    let outer = Executor::<'static>::new();
    let ids: Rc<RefCell<Vec<Option<TaskId>>>> = Rc::default();
    let look = {
        let ids = Rc::clone(&ids);
        move || ids.borrow_mut().push(current_task().map(|task| task.id()))
    };
    let (outside, inside) = (look.clone(), look.clone());
    let handle = outer.spawn(async move {
        outside();
        let inner = Executor::<'static>::new();
        let of_inner = inner.spawn(async move { inside() });
        let inner_id = of_inner.id();
        inner.block_on(async {
            // A root is no task, also when it runs within one of another executor.
            assert!(current_task().is_none());
            of_inner.await.expect("the task returns");
        });
        outside();
        yield_now().await;
        outside();
        inner_id
    });
    let id = handle.id();
    let inner_id = outer.block_on(handle).expect("the task returns");
    assert_eq!(
        *ids.borrow(),
        [Some(id), Some(inner_id), Some(id), Some(id)]
    );
    outer.block_on(async move {
        look();
        assert_eq!(ids.borrow().last(), Some(&None), "none in a root");
    });
}

// api.md on free functions: they use the innermost executor that is driven.
#[test]
fn free_functions_spawn_on_the_innermost_executor() {
    let outer = Executor::<'static>::new();
    outer.block_on(async {
        mainstay::spawn(async {}).detach();
        assert_eq!(outer.stats().spawned, 1);
        let inner = Executor::<'static>::new();
        inner.block_on(async {
            mainstay::spawn(async {}).detach();
            LocalHandle::current().spawn(async {}).detach();
        });
        assert_eq!((outer.stats().spawned, inner.stats().spawned), (1, 2));
        mainstay::spawn_fallible(async { Ok::<(), String>(()) }).detach();
        assert_eq!((outer.stats().spawned, inner.stats().spawned), (2, 2));
    });
}

// P3: an inner drive that unwinds leaves the outer executor current.
#[test]
fn an_inner_drive_that_unwinds_leaves_the_outer_executor_current() {
    quiet();
    let outer = Executor::<'static>::new();
    outer.block_on(async {
        let inner = Executor::<'static>::new();
        let payload = payload_of(|| inner.block_on(async { panic!("boom in the inner root") }));
        drop(payload);
        assert!(!inner.is_running() && outer.is_running());
        mainstay::spawn(async {}).detach();
        assert_eq!((outer.stats().spawned, inner.stats().spawned), (1, 0));
    });
}

// api.md on free functions: a clear message outside a running executor.
#[test]
fn free_functions_panic_outside_a_drive_and_say_why() {
    let ex = Executor::<'static>::new();
    assert!(LocalHandle::try_current().is_none());
    let messages = [
        panic_message(|| mainstay::spawn(async {})),
        panic_message(|| mainstay::spawn_fallible(async { Ok::<(), String>(()) })),
        panic_message(LocalHandle::current),
    ];
    for message in messages {
        // Reading: a clear message names what is missing.
        assert!(message.contains("executor"), "{message}");
    }
    ex.block_on(async {
        assert!(LocalHandle::try_current().is_some());
    });
    assert!(LocalHandle::try_current().is_none());
    assert_eq!(ex.stats().spawned, 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// idle
// ---------------------------------------------------------------------------------------------------------------------

// tokio #2039: wait for all detached tasks.
#[test]
fn idle_waits_for_every_task_also_for_those_spawned_meanwhile() {
    let ex = Executor::new();
    let trace = Trace::new();
    for i in 0..3 {
        let trace = trace.clone();
        ex.spawn(async move {
            yield_n(i).await;
            let inner = trace.clone();
            mainstay::spawn(async move {
                yield_n(5).await;
                inner.push(format!("grandchild {i}"));
            })
            .detach();
            trace.push(format!("child {i}"));
        })
        .detach();
    }
    ex.block_on(ex.idle());
    assert!(ex.is_empty());
    assert_eq!(trace.len(), 6);
    // Nothing to wait for.
    ex.block_on(ex.idle());
}

// tokio #2039: from a task, *other* tasks are waited for.
#[test]
fn idle_in_a_task_does_not_wait_for_that_task() {
    let ex = Executor::new();
    let trace = Trace::new();
    let (first, second) = (trace.clone(), trace.clone());
    let waiter = ex.spawn(async move {
        LocalHandle::current().idle().await;
        first.push("idle");
    });
    ex.spawn(async move {
        yield_n(5).await;
        second.push("other");
    })
    .detach();
    ex.block_on(waiter).expect("the task returns");
    trace.assert(&["other", "idle"]);
}

// tokio #2039: a background task that has ended makes up for nobody who has not.
#[test]
fn idle_waits_for_tasks_after_a_background_task_has_ended() {
    let ex = Executor::new();
    for callbacks in [false, true] {
        let background = ex.task().background().spawn(async {});
        if callbacks {
            background.add_done_callback(|_| {});
        }
        background.detach();
        ex.run_until_stalled();
        let other = ex.spawn(yield_n(5));
        ex.block_on(ex.idle());
        assert!(other.is_finished());
    }
}

// tokio #2039: tasks that end badly have ended, too.
#[test]
fn idle_counts_failed_and_cancelled_tasks_as_ended() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.spawn(async {
        yield_now().await;
        panic!("boom in a task");
    })
    .detach();
    let victim = ex.spawn(pending::<()>());
    ex.spawn(async move {
        yield_n(3).await;
        assert!(victim.cancel());
    })
    .detach();
    ex.block_on(ex.idle());
    assert_eq!(recorder.len(), 1);
    let counts = counts(&ex);
    assert_eq!((counts.live, counts.failed, counts.cancelled), (0, 1, 1));
}
