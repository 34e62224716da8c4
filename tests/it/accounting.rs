//! P2, accounting: every task ends exactly once, every failure is retrieved or reported, and the counters prove it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;

use mainstay::{
    ContextKind, ExceptionContext, ExceptionError, Executor, JoinHandle, LocalHandle, Outcome,
    ReportPolicy, Stats, TaskId,
};

use crate::support::{
    Boom, Counts, DropLog, Event, Fault, Guard, LogCapture, Recorder, Trace, check_accounting,
    check_stats, counts, holding, on_drop, quiet, yield_n,
};

fn executor(policy: ReportPolicy) -> (Executor<'static>, Recorder) {
    quiet();
    let ex = Executor::builder().report(policy).build();
    let recorder = Recorder::on(&ex);
    (ex, recorder)
}

/// A task that panics with `boom` at its first poll, and has done so when this returns.
fn failed(ex: &Executor<'static>) -> JoinHandle<()> {
    let handle = ex.spawn(async { panic!("boom") });
    ex.run_until_stalled();
    handle
}

const ONE_REPORTED: Counts = Counts {
    spawned: 1,
    live: 0,
    returned: 0,
    failed: 1,
    cancelled: 0,
    reported: 1,
    retrieved: 0,
    unread: 0,
    reports: 1,
};

const ONE_RETRIEVED: Counts = Counts {
    reported: 0,
    retrieved: 1,
    reports: 0,
    ..ONE_REPORTED
};

const ONE_UNREAD: Counts = Counts {
    reported: 0,
    unread: 1,
    reports: 0,
    ..ONE_REPORTED
};

// ---------------------------------------------------------------------------------------------------------------------
// The task counters
// ---------------------------------------------------------------------------------------------------------------------

/// P2: nothing has happened on a new executor.
#[test]
fn a_new_executor_counts_nothing() {
    let ex = Executor::new();
    assert_eq!(counts(&ex), Counts::default());
    assert_eq!(ex.stats().polls, 0);
}

/// P2: a task is spawned and live from `spawn` on, before its first poll.
#[test]
fn a_task_is_live_from_its_spawn_to_its_end() {
    let ex = Executor::new();
    let live = Counts {
        spawned: 1,
        live: 1,
        ..Counts::default()
    };
    ex.spawn(yield_n(2)).detach();
    assert_eq!(counts(&ex), live);
    ex.tick(1);
    assert_eq!(counts(&ex), live);
    ex.run_until_stalled();
    let ended = Counts {
        live: 0,
        returned: 1,
        ..live
    };
    assert_eq!(counts(&ex), ended);
}

/// P2: each of the ways to end moves one counter, and no other.
#[test]
fn every_ending_moves_one_counter() {
    let (ex, _recorder) = executor(ReportPolicy::OnFailure);
    let mut expected = Counts::default();

    ex.spawn(async { 1 }).detach();
    ex.run_until_stalled();
    expected.spawned += 1;
    expected.returned += 1;
    assert_eq!(counts(&ex), expected);

    ex.spawn(async { panic!("boom") }).detach();
    ex.run_until_stalled();
    expected.spawned += 1;
    expected.failed += 1;
    expected.reported += 1;
    expected.reports += 1;
    assert_eq!(counts(&ex), expected);

    ex.spawn_fallible(async { Err::<(), _>(Fault("no")) })
        .detach();
    ex.run_until_stalled();
    expected.spawned += 1;
    expected.failed += 1;
    expected.reported += 1;
    expected.reports += 1;
    assert_eq!(counts(&ex), expected);

    ex.spawn_fallible(async { Ok::<_, Fault>(1) }).detach();
    ex.run_until_stalled();
    expected.spawned += 1;
    expected.returned += 1;
    assert_eq!(counts(&ex), expected);

    let handle = ex.spawn(pending::<()>());
    ex.run_until_stalled();
    assert!(handle.cancel());
    ex.run_until_stalled();
    expected.spawned += 1;
    expected.cancelled += 1;
    assert_eq!(counts(&ex), expected);
}

/// api.md, what counts as a failure: plain `spawn` never looks into its output.
#[test]
fn an_err_from_plain_spawn_is_a_value() {
    let (ex, recorder) = executor(ReportPolicy::OnFailure);
    let mut kept = ex.spawn(async { Err::<(), _>(Fault("kept")) });
    ex.spawn(async { Err::<(), _>(Fault("dropped")) }).detach();
    ex.run_until_stalled();
    assert_eq!(counts(&ex).returned, 2);
    let value = kept.result().expect("finished").expect("returned");
    assert_eq!(value, Err(Fault("kept")));
    assert!(recorder.is_empty());
}

/// api.md, what counts as a failure: a cancelled task has not failed (B016).
#[test]
fn a_cancelled_task_is_never_reported() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        let (ex, recorder) = executor(policy);
        let handle = ex.spawn(pending::<()>());
        ex.run_until_stalled();
        handle.cancel();
        ex.run_until_stalled();
        assert_eq!(counts(&ex).cancelled, 1);
        drop(handle);
        drop(ex);
        assert!(recorder.is_empty());
    }
}

/// B012: neither a value that nobody reads nor a pending task that its handle left is a failure.
#[test]
fn an_unread_value_and_an_abandoned_task_are_not_reported() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        let (ex, recorder) = executor(policy);
        let event = Event::new();
        let unread = ex.spawn(async { 1 });
        drop(ex.spawn(event.wait()));
        ex.run_until_stalled();
        drop(unread);
        event.set();
        ex.run_until_stalled();
        assert_eq!(counts(&ex).returned, 2);
        drop(ex);
        assert!(recorder.is_empty());
    }
}

/// Stats: `reports` counts reports of every kind, the task counters only tasks.
#[test]
fn reports_that_are_not_of_tasks_move_no_task_counter() {
    let (ex, recorder) = executor(ReportPolicy::OnFailure);
    let context = ExceptionContext::new("by hand").build();
    ex.call_exception_handler(&context);
    assert_eq!(
        counts(&ex),
        Counts {
            reports: 1,
            ..Counts::default()
        }
    );

    let handle = ex.spawn(async {});
    handle.add_done_callback(|_| panic!("boom in a callback"));
    ex.run_until_stalled();
    let expected = Counts {
        spawned: 1,
        returned: 1,
        reports: 2,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
    assert_eq!(
        recorder.kinds(),
        [ContextKind::Other, ContextKind::Callback]
    );
}

/// Stats: `polls` counts each poll of a task, and `Progress` those of the call.
/// Reading: a task that yields n times is polled n + 1 times, never more (P9; tokio `no_extra_poll`).
#[test]
fn polls_are_counted() {
    let ex = Executor::new();
    ex.spawn(yield_n(3)).detach();
    ex.spawn(yield_n(0)).detach();
    let progress = ex.run_until_stalled();
    assert_eq!(progress.polls, 5);
    assert!(!progress.more);
    assert_eq!(ex.stats().polls, 5);
    ex.spawn(yield_n(0)).detach();
    assert_eq!(ex.run_until_stalled().polls, 1);
    assert_eq!(ex.stats().polls, 6);
}

/// P2: a fallible task that is spawned by the free function or by a handle is counted like any other.
#[test]
fn every_way_to_spawn_is_counted() {
    let (ex, recorder) = executor(ReportPolicy::OnFailure);
    let local = ex.handle();
    local.spawn(async {}).detach();
    local
        .spawn_fallible(async { Err::<(), _>(Fault("by the handle")) })
        .detach();
    ex.task()
        .name("built")
        .spawn_fallible(async { Err::<(), _>(Fault("by the builder")) })
        .detach();
    ex.block_on(async {
        mainstay::spawn(async {}).detach();
        mainstay::spawn_fallible(async { Err::<(), _>(Fault("by the function")) }).detach();
    });
    ex.run_until_stalled();
    let expected = Counts {
        spawned: 5,
        returned: 2,
        failed: 3,
        reported: 3,
        reports: 3,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
    assert_eq!(
        recorder.exceptions(),
        ["by the handle", "by the builder", "by the function"]
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// The counters as user code sees them
// ---------------------------------------------------------------------------------------------------------------------

/// P2: the counters are moved before the handler can look. Reading: what it is being told of counts as reported.
#[test]
fn the_handler_sees_its_failure_counted() {
    quiet();
    let ex = Executor::new();
    let seen = Rc::new(Cell::new(None));
    ex.set_exception_handler({
        let seen = Rc::clone(&seen);
        move |local, _| seen.set(Some(check_stats(&local.stats())))
    });
    ex.spawn(async { panic!("boom") }).detach();
    ex.run_until_stalled();
    assert_eq!(seen.get(), Some(ONE_REPORTED));
}

/// P2: under `IfUnretrieved` as well, when the report is made by the drop of the handle.
#[test]
fn the_handler_sees_a_late_report_counted() {
    quiet();
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();
    let seen = Rc::new(Cell::new(None));
    ex.set_exception_handler({
        let seen = Rc::clone(&seen);
        move |local, _| seen.set(Some(check_stats(&local.stats())))
    });
    let handle = failed(&ex);
    assert_eq!(counts(&ex), ONE_UNREAD);
    drop(handle);
    assert_eq!(seen.get(), Some(ONE_REPORTED));
}

/// P2: a done callback sees its task's ending counted, whichever it is.
#[test]
fn a_done_callback_sees_its_task_counted() {
    let (ex, _recorder) = executor(ReportPolicy::OnFailure);
    let seen: Rc<RefCell<Vec<Counts>>> = Rc::default();
    let look = |handle: &JoinHandle<()>| {
        let seen = Rc::clone(&seen);
        handle.add_done_callback(move |_| {
            let counts = check_stats(&LocalHandle::current().stats());
            seen.borrow_mut().push(counts);
        });
    };
    let returned = ex.spawn(async {});
    look(&returned);
    ex.run_until_stalled();
    let failed = ex.spawn(async { panic!("boom") });
    look(&failed);
    ex.run_until_stalled();
    let cancelled = ex.spawn(pending());
    look(&cancelled);
    cancelled.cancel();
    ex.run_until_stalled();

    let first = Counts {
        spawned: 1,
        returned: 1,
        ..Counts::default()
    };
    let second = Counts {
        spawned: 2,
        failed: 1,
        reported: 1,
        reports: 1,
        ..first
    };
    let third = Counts {
        spawned: 3,
        cancelled: 1,
        ..second
    };
    assert_eq!(*seen.borrow(), [first, second, third]);
}

/// P2: the sums hold wherever user code can look: in a poll, in the future's destructor, in the output's.
#[test]
fn the_sums_hold_inside_polls_and_destructors() {
    let (ex, _recorder) = executor(ReportPolicy::OnFailure);
    let looks = Rc::new(Cell::new(0));
    let look = {
        let looks = Rc::clone(&looks);
        move || {
            let counts = check_stats(&LocalHandle::current().stats());
            assert_eq!(counts.spawned, 3);
            looks.set(looks.get() + 1);
        }
    };
    // One returns a value that is dropped at once, one fails, one is cancelled by the first.
    let cancelled = ex.spawn(holding(on_drop(look.clone()), pending::<()>()));
    ex.spawn(holding(on_drop(look.clone()), {
        let look = look.clone();
        async move {
            look();
            yield_n(1).await;
            cancelled.cancel();
            look();
            on_drop(look)
        }
    }))
    .detach();
    ex.spawn(holding(on_drop(look.clone()), async move {
        look();
        panic!("boom");
    }))
    .detach();
    ex.run_until_stalled();
    assert_eq!(looks.get(), 7);
    let expected = Counts {
        spawned: 3,
        returned: 1,
        failed: 1,
        cancelled: 1,
        reported: 1,
        reports: 1,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
}

/// P2: and while the executor is dropped: in the destructors, the callbacks and the reports of its pending tasks.
#[test]
fn the_sums_hold_while_the_executor_is_dropped() {
    quiet();
    let ex: Executor<'static> = Executor::new();
    // Checked afterwards: a panic in there would be contained.
    let seen: Rc<RefCell<Vec<Stats>>> = Rc::default();
    ex.set_exception_handler({
        let seen = Rc::clone(&seen);
        move |local, _| seen.borrow_mut().push(local.stats())
    });
    for n in 0..3 {
        let look = {
            let (seen, local) = (Rc::clone(&seen), ex.handle());
            move || seen.borrow_mut().push(local.stats())
        };
        let handle = ex.spawn(holding(
            on_drop({
                let look = look.clone();
                move || {
                    look();
                    if n == 1 {
                        panic!("boom in drop");
                    }
                }
            }),
            pending::<()>(),
        ));
        handle.add_done_callback(move |_| look());
    }
    ex.run_until_stalled();
    drop(ex);
    let seen = seen.take();
    // A destructor, a callback and a report each, and one report more.
    assert_eq!(seen.len(), 10);
    for stats in &seen {
        check_stats(stats);
    }
}

/// P2: a task is still live in the poll that ends it, and ended when its awaiter runs.
#[test]
fn an_awaiter_sees_the_awaited_task_counted() {
    let ex = Executor::new();
    ex.block_on(async {
        let handle = mainstay::spawn(async {
            let counts = check_stats(&LocalHandle::current().stats());
            assert_eq!((counts.live, counts.returned), (1, 0));
        });
        handle.await.expect("returned");
        let counts = check_stats(&LocalHandle::current().stats());
        assert_eq!((counts.live, counts.returned), (0, 1));
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// ReportPolicy::OnFailure
// ---------------------------------------------------------------------------------------------------------------------

/// api.md, ReportPolicy: `OnFailure` is the default.
#[test]
fn on_failure_is_the_default_policy() {
    quiet();
    assert_eq!(ReportPolicy::default(), ReportPolicy::OnFailure);
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let handle = failed(&ex);
    assert_eq!(recorder.only().kind, ContextKind::TaskFailed);
    assert_eq!(counts(&ex), ONE_REPORTED);
    drop(handle);
}

/// api.md, ReportPolicy: under `OnFailure` a failure is told when it happens, whoever holds the handle (B026).
#[test]
fn on_failure_tells_whoever_holds_the_handle() {
    let (ex, recorder) = executor(ReportPolicy::OnFailure);
    let kept = ex.spawn(async { panic!("boom kept") });
    ex.spawn(async { panic!("boom dropped") }).detach();
    let fallible = ex.spawn_fallible(async { Err::<(), _>(Fault("err kept")) });
    ex.spawn_fallible(async { Err::<(), _>(Fault("err dropped")) })
        .detach();
    ex.run_until_stalled();
    assert_eq!(
        recorder.exceptions(),
        ["boom kept", "boom dropped", "err kept", "err dropped"]
    );
    assert_eq!(recorder.kinds(), [ContextKind::TaskFailed; 4]);
    let held: Vec<bool> = recorder
        .reports()
        .iter()
        .map(|report| report.handle_held)
        .collect();
    assert_eq!(held, [true, false, true, false]);
    // Neither reading nor dropping tells of them again.
    let kept: JoinHandle<()> = kept;
    drop(kept);
    drop(fallible);
    let expected = Counts {
        spawned: 4,
        failed: 4,
        reported: 4,
        reports: 4,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
    drop(ex);
    assert_eq!(recorder.len(), 4);
}

/// api.md, ReportPolicy: the outcome still goes to the handle; a failure stays retrievable after it was reported.
#[test]
fn a_reported_failure_can_still_be_retrieved() {
    let (ex, recorder) = executor(ReportPolicy::OnFailure);
    let mut by_result = failed(&ex);
    assert_eq!(recorder.len(), 1);
    let error = by_result
        .result()
        .expect("finished")
        .expect_err("it failed");
    assert_eq!(
        error.into_panic().downcast_ref::<&'static str>(),
        Some(&"boom")
    );

    let by_await = failed(&ex);
    let error = ex.block_on(by_await).expect_err("it failed");
    assert!(error.is_panic());

    let by_exception = failed(&ex);
    let exception = by_exception.exception().expect("finished");
    assert_eq!(exception.expect("it failed").message(), "boom");

    // Reading took nothing from the reported ones: a task is reported or retrieved in the books, not both.
    let expected = Counts {
        spawned: 3,
        failed: 3,
        reported: 3,
        reports: 3,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
    assert_eq!(recorder.len(), 3);
}

/// P2: an awaiter that was there before the failure changes nothing: told once, and awaited.
#[test]
fn a_failure_with_an_awaiter_is_both_told_and_awaited() {
    let (ex, recorder) = executor(ReportPolicy::OnFailure);
    let outcome = ex.block_on(async {
        let handle = mainstay::spawn_fallible(async {
            yield_n(2).await;
            Err::<(), _>(Fault("no"))
        });
        handle.await
    });
    assert_eq!(outcome.expect("no panic"), Err(Fault("no")));
    assert_eq!(recorder.exceptions(), ["no"]);
    assert_eq!(counts(&ex), ONE_REPORTED);
}

/// P2: `unread` is for failures that were not told: there is none under `OnFailure`.
#[test]
fn nothing_is_unread_under_on_failure() {
    let (ex, _recorder) = executor(ReportPolicy::OnFailure);
    let handles: Vec<JoinHandle<()>> = (0..10).map(|_| failed(&ex)).collect();
    assert_eq!(counts(&ex).unread, 0);
    drop(handles);
    assert_eq!(counts(&ex).reported, 10);
}

// ---------------------------------------------------------------------------------------------------------------------
// ReportPolicy::IfUnretrieved
// ---------------------------------------------------------------------------------------------------------------------

/// api.md, ReportPolicy: under `IfUnretrieved` a failure waits in a live handle, untold.
#[test]
fn an_unread_failure_waits_in_its_handle() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let handle = failed(&ex);
    for _ in 0..10 {
        ex.run_until_stalled();
    }
    assert!(recorder.is_empty());
    assert_eq!(counts(&ex), ONE_UNREAD);
    drop(handle);
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::NeverRetrieved);
    assert_eq!(report.exception.as_deref(), Some("boom"));
    assert_eq!(counts(&ex), ONE_REPORTED);
}

/// B011: `await` retrieves, for both kinds of failure.
#[test]
fn awaiting_retrieves() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let handle = failed(&ex);
    assert!(ex.block_on(handle).expect_err("it failed").is_panic());
    assert_eq!(counts(&ex), ONE_RETRIEVED);

    let handle = ex.spawn_fallible(async { Err::<(), _>(Fault("no")) });
    assert_eq!(ex.block_on(handle).expect("no panic"), Err(Fault("no")));
    let expected = Counts {
        spawned: 2,
        failed: 2,
        retrieved: 2,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
    drop(ex);
    assert!(recorder.is_empty());
}

/// B011: `result()` retrieves, for both kinds of failure.
#[test]
fn result_retrieves() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let mut handle = failed(&ex);
    assert!(
        handle
            .result()
            .expect("finished")
            .expect_err("it failed")
            .is_panic()
    );
    assert_eq!(counts(&ex), ONE_RETRIEVED);
    drop(handle);

    let mut handle = ex.spawn_fallible(async { Err::<(), _>(Fault("no")) });
    ex.run_until_stalled();
    assert_eq!(counts(&ex).unread, 1);
    let value = handle.result().expect("finished").expect("no panic");
    assert_eq!(value, Err(Fault("no")));
    assert_eq!((counts(&ex).unread, counts(&ex).retrieved), (0, 2));
    drop(handle);
    drop(ex);
    assert!(recorder.is_empty());
}

/// B011: `exception()` retrieves without taking.
#[test]
fn exception_retrieves() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let handle = failed(&ex);
    {
        let exception = handle.exception().expect("finished").expect("it failed");
        assert_eq!(exception.message(), "boom");
    }
    assert_eq!(counts(&ex), ONE_RETRIEVED);
    drop(handle);
    drop(ex);
    assert!(recorder.is_empty());
}

/// B014: `exception()` by reference, then `result()`: the same failure, counted once, and nothing told.
#[test]
fn exception_then_result_give_the_same_failure() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let mut handle = ex.spawn(async { panic_any(Boom("same")) });
    ex.run_until_stalled();
    let seen = {
        let exception = handle.exception().expect("finished").expect("it failed");
        *exception.downcast_ref::<Boom>().expect("the payload")
    };
    assert_eq!(
        handle.exception().expect("again").map(|e| e.is_panic()),
        Some(true)
    );
    let error: Result<(), _> = handle.result().expect("finished");
    let payload = error.expect_err("it failed").into_panic();
    assert_eq!(payload.downcast_ref::<Boom>(), Some(&seen));
    assert_eq!(
        handle.exception().err(),
        Some(ExceptionError::Taken),
        "`result()` took it"
    );
    drop(handle);
    assert_eq!(counts(&ex), ONE_RETRIEVED);
    drop(ex);
    assert!(recorder.is_empty());
}

/// api.md, ReportPolicy: `Completion::outcome()` of a failure retrieves it, in a held handle and in a detached task.
#[test]
fn a_callback_that_reads_the_outcome_retrieves() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let read = |handle: &JoinHandle<()>| {
        handle.add_done_callback(|completion| {
            assert!(matches!(completion.outcome(), Outcome::Failed(_)));
        });
    };
    let held = ex.spawn(async { panic!("boom held") });
    read(&held);
    let detached = ex.spawn(async { panic!("boom detached") });
    read(&detached);
    detached.detach();
    ex.run_until_stalled();
    let expected = Counts {
        spawned: 2,
        failed: 2,
        retrieved: 2,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
    drop(held);
    drop(ex);
    assert!(recorder.is_empty());
}

/// behaviours.md, decisions: looking is not retrieving.
#[test]
fn looking_does_not_retrieve() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let mut handle = ex.spawn(async { panic!("boom") });
    handle.add_done_callback(|completion| {
        assert!(!completion.task().name().is_empty());
        assert!(!format!("{completion:?}").is_empty());
    });
    // Too early: neither accessor finds anything, and neither counts.
    assert_eq!(handle.exception().err(), Some(ExceptionError::Pending));
    assert!(handle.result().is_err());
    ex.run_until_stalled();
    assert!(handle.is_finished());
    assert!(!handle.is_cancelled());
    assert!(!handle.cancel());
    assert!(!handle.name().is_empty());
    assert!(!format!("{handle:?} {}", handle.id()).is_empty());
    assert!(handle.cancel_handle().is_finished());
    assert_eq!(counts(&ex), ONE_UNREAD);
    let handle: JoinHandle<()> = handle;
    drop(handle);
    assert_eq!(recorder.kinds(), [ContextKind::NeverRetrieved]);
}

/// api.md, ReportPolicy: a detached task's failure is told at the failure, not at exit (B026).
/// Reading: the kind is `NeverRetrieved`, as for every report that this policy makes of a failed task.
#[test]
fn a_detached_failure_is_told_at_once_under_if_unretrieved() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    ex.task()
        .name("detached")
        .spawn(async { panic!("boom") })
        .detach();
    ex.run_until_stalled();
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::NeverRetrieved);
    assert_eq!(report.task.as_deref(), Some("detached"));
    assert!(!report.handle_held);
    assert_eq!(counts(&ex), ONE_REPORTED);
}

/// api.md, ReportPolicy: the same where the handle was dropped while the task waited.
#[test]
fn a_handle_dropped_before_the_failure_has_it_told_at_the_failure() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let event = Event::new();
    let handle = ex.spawn_fallible({
        let event = event.clone();
        async move {
            event.wait().await;
            Err::<(), _>(Fault("late"))
        }
    });
    ex.run_until_stalled();
    drop(handle);
    assert!(recorder.is_empty());
    event.set();
    ex.run_until_stalled();
    assert_eq!(recorder.exceptions(), ["late"]);
    assert_eq!(counts(&ex), ONE_REPORTED);
}

/// api.md, ReportPolicy: a detached task is told of after its done callbacks ran, because they may have read it.
#[test]
fn a_detached_failure_is_told_after_its_callbacks() {
    quiet();
    let trace = Trace::new();
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();
    ex.set_exception_handler({
        let trace = trace.clone();
        move |_, _| trace.push("handler")
    });
    let handle = ex.spawn(async { panic!("boom") });
    for n in 0..2 {
        let trace = trace.clone();
        handle.add_done_callback(move |_| trace.push(format!("callback {n}")));
    }
    drop(handle);
    ex.run_until_stalled();
    trace.assert(&["callback 0", "callback 1", "handler"]);
    assert_eq!(counts(&ex), ONE_REPORTED);
}

/// P2, design section 6: a handle dropped between the failure and its publication is told of once, and not lost.
#[test]
fn a_handle_dropped_in_a_callback_has_the_failure_told_once() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let stash: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let handle = ex.spawn(async { panic!("boom") });
    handle.add_done_callback({
        let stash = Rc::clone(&stash);
        move |_| drop(stash.take())
    });
    stash.replace(Some(handle));
    ex.run_until_stalled();
    assert!(stash.borrow().is_none());
    assert_eq!(recorder.exceptions(), ["boom"]);
    assert_eq!(counts(&ex), ONE_REPORTED);
}

/// P2: an awaiter that is cancelled before it could read has retrieved nothing.
#[test]
fn a_failure_whose_awaiter_was_cancelled_is_told() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let event = Event::new();
    let failing: JoinHandle<()> = ex.spawn({
        let event = event.clone();
        async move {
            event.wait().await;
            panic!("boom");
        }
    });
    let awaiter = ex.spawn(failing);
    ex.run_until_stalled();
    awaiter.cancel();
    event.set();
    ex.run_until_stalled();
    assert_eq!(recorder.exceptions(), ["boom"]);
    let expected = Counts {
        spawned: 2,
        failed: 1,
        cancelled: 1,
        reported: 1,
        reports: 1,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
}

/// P2: the same where both happen in one pass: the failure is published, and the awaiter is gone before it is polled.
#[test]
fn a_failure_whose_awaiter_is_cancelled_in_the_same_pass_is_told() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let failing: JoinHandle<()> = ex.spawn(async {
        yield_n(1).await;
        panic!("boom");
    });
    let awaiter = ex.spawn(failing);
    let canceller = awaiter.cancel_handle();
    ex.spawn(async move {
        yield_n(1).await;
        canceller.cancel();
    })
    .detach();
    ex.run_until_stalled();
    assert!(awaiter.is_cancelled());
    assert_eq!(recorder.exceptions(), ["boom"]);
    assert_eq!(counts(&ex).reported, 1);
}

/// api.md, ReportPolicy: at the latest, a failure is told when the executor is dropped; it stays in its handle.
#[test]
fn an_unread_failure_is_told_when_the_executor_is_dropped() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let mut handle = failed(&ex);
    assert!(recorder.is_empty());
    drop(ex);
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::NeverRetrieved);
    assert_eq!(report.exception.as_deref(), Some("boom"));
    assert!(report.handle_held);
    let error = handle.result().expect("finished").expect_err("it failed");
    assert!(error.is_panic());
    drop(handle);
    assert_eq!(recorder.len(), 1);
}

/// B022: a failure that was told at the executor's drop is not told again when its handle goes.
#[test]
fn a_handle_dropped_after_the_executor_tells_nothing_twice() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let panicked = failed(&ex);
    let erred = ex.spawn_fallible(async { Err::<(), _>(Fault("no")) });
    ex.run_until_stalled();
    drop(ex);
    assert_eq!(recorder.exceptions(), ["boom", "no"]);
    drop(panicked);
    drop(erred);
    assert_eq!(recorder.len(), 2);
}

/// P2: a failure that was read is not told at the executor's drop either.
#[test]
fn a_retrieved_failure_is_not_told_when_the_executor_is_dropped() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let handle = failed(&ex);
    assert!(handle.exception().expect("finished").is_some());
    drop(ex);
    drop(handle);
    assert!(recorder.is_empty());
}

/// P2: several unread failures are told in the order of their handles' drops, each under its own name.
#[test]
fn unread_failures_are_told_one_by_one() {
    let (ex, recorder) = executor(ReportPolicy::IfUnretrieved);
    let spawn = |name: &'static str| {
        ex.task().name(name).spawn(async move {
            panic!("boom {name}");
        })
    };
    let handles: [JoinHandle<()>; 3] = [spawn("a"), spawn("b"), spawn("c")];
    ex.run_until_stalled();
    let [a, b, c] = handles;
    for handle in [c, a, b] {
        drop(handle);
        check_accounting(&ex);
    }
    assert_eq!(recorder.tasks(), ["c", "a", "b"]);
    assert_eq!(recorder.exceptions(), ["boom c", "boom a", "boom b"]);
}

/// P2: without a handler the default one is told, and that counts as reported as well.
#[test]
fn a_failure_told_to_the_default_handler_is_reported() {
    quiet();
    let log = LogCapture::start();
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        let before = log.records().len();
        let ex = Executor::builder().report(policy).build();
        drop(failed(&ex));
        ex.run_until_stalled();
        assert_eq!(counts(&ex), ONE_REPORTED);
        assert_eq!(log.records().len(), before + 1);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Random faults
// ---------------------------------------------------------------------------------------------------------------------

/// xorshift64*: enough to choose faults with, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(drawn % n).expect("small")
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

type Fallible = Result<Guard, Fault>;

fn random_task(
    random: &mut Random,
    event: &Event,
    drops: &DropLog,
) -> impl Future<Output = Fallible> + use<> {
    let mut guard = drops.guard("future");
    if random.one_in(5) {
        guard = guard.panics("boom in the future's drop");
    }
    let mut output = drops.guard("output");
    if random.one_in(5) {
        output = output.panics("boom in the output's drop");
    }
    let yields = random.below(4);
    let ending = random.below(6);
    let waits = random.one_in(3).then(|| event.wait());
    holding(guard, async move {
        yield_n(yields).await;
        if let Some(wait) = waits {
            wait.await;
        }
        match ending {
            0 => panic!("boom"),
            1 => panic_any(Boom("random")),
            2 => Err(Fault("random")),
            _ => Ok(output),
        }
    })
}

fn random_run(seed: u64, policy: ReportPolicy) {
    let drops = DropLog::new();
    let event = Event::new();
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let told: Rc<RefCell<Vec<TaskId>>> = Rc::default();
    // What the counters were wherever code could look. Checked at the end: a panic in there would be contained.
    let seen: Rc<RefCell<Vec<Stats>>> = Rc::default();
    let ex = Executor::builder().report(policy).build();
    ex.set_exception_handler({
        let (told, seen) = (Rc::clone(&told), Rc::clone(&seen));
        let calls = Cell::new(0_u64);
        move |local, context| {
            seen.borrow_mut().push(local.stats());
            if matches!(
                context.kind(),
                ContextKind::TaskFailed | ContextKind::NeverRetrieved
            ) {
                let task = context.task().expect("a task failed");
                told.borrow_mut().push(task.id());
            }
            calls.set(calls.get() + 1);
            match calls.get() % 7 {
                3 => panic!("boom in the handler"),
                5 => local.spawn(yield_n(1)).detach(),
                _ => {}
            }
        }
    });

    let mut handles: Vec<JoinHandle<Fallible>> = Vec::new();
    for _ in 0..40 {
        match random.below(8) {
            0..4 => {
                let future = random_task(&mut random, &event, &drops);
                let handle = ex.spawn_fallible(future);
                match random.below(5) {
                    0 => handle.detach(),
                    1 => {
                        // The output's destructor may panic in the awaiter, which then fails itself.
                        ex.spawn(async move {
                            if let Ok(Ok(guard)) = handle.await {
                                drop(guard);
                            }
                        })
                        .detach();
                    }
                    2 => {
                        handle.add_done_callback(|_| panic!("boom in a callback"));
                        handles.push(handle);
                    }
                    3 => {
                        let seen = Rc::clone(&seen);
                        handle.add_done_callback(move |completion| {
                            seen.borrow_mut().push(LocalHandle::current().stats());
                            let returned = matches!(completion.outcome(), Outcome::Returned);
                            std::hint::black_box(returned);
                        });
                        handles.push(handle);
                    }
                    _ => handles.push(handle),
                }
            }
            4 if !handles.is_empty() => {
                let which = random.below(handles.len() as u64);
                handles[which].cancel();
            }
            5 if !handles.is_empty() => {
                let which = random.below(handles.len() as u64);
                drop(handles.swap_remove(which));
            }
            6 if !handles.is_empty() => {
                let which = random.below(handles.len() as u64);
                if let Ok(result) = handles[which].result() {
                    drop(catch_unwind(AssertUnwindSafe(move || drop(result))));
                }
            }
            _ => {
                ex.tick(1 + random.below(20));
            }
        }
        check_accounting(&ex);
    }
    event.set();
    ex.run_until_stalled();
    check_accounting(&ex);
    for handle in handles {
        drop(handle);
        check_accounting(&ex);
    }
    ex.run_until_stalled();

    let end = counts(&ex);
    assert_eq!(end.live, 0, "seed {seed}: everybody could end");
    assert_eq!(end.unread, 0, "seed {seed}: no handle is left");
    let told = told.take();
    let once: BTreeSet<TaskId> = told.iter().copied().collect();
    assert_eq!(told.len(), once.len(), "seed {seed}: told twice");
    assert_eq!(
        u64::try_from(told.len()).expect("few"),
        end.reported,
        "seed {seed}"
    );
    if policy == ReportPolicy::OnFailure {
        assert_eq!(end.failed, end.reported, "seed {seed}");
    }
    drop(ex);
    drops.assert_home();
    for stats in &*seen.borrow() {
        check_stats(stats);
    }
}

/// P2, against random faults: the books balance at every step, no failure is told twice, and none is left over.
#[test]
fn random_faults_keep_the_books() {
    quiet();
    for seed in 1..=100 {
        random_run(seed, ReportPolicy::OnFailure);
        random_run(seed, ReportPolicy::IfUnretrieved);
    }
}
