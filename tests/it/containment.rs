//! P3, containment: no panic in user code other than the root's leaves the loop, siblings are untouched, what remains of a
//! half-dropped task is still dropped, and the panic is reported.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mainstay::{
    ContextKind, ExceptionContext, Executor, JoinHandle, LocalHandle, Outcome, ReportPolicy,
    Supervisor, TaskGroup, cancel_requested, gather, sleep,
};

use crate::support::{
    Boom, DropLog, EndlessPayload, Event, Fault, Guard, LogCapture, Recorder, Report, Trace,
    WakeCount, check_accounting, counting_waker, counts, holding, in_child, in_child_ok, on_drop,
    panic_message, poll_with, quiet, yield_n,
};

/// Runs `fault` with a sibling spawned before it and one after it, drives everything to its end, and asserts that the
/// siblings ended as ever, that the loop can still be used, and that exactly these reports were made (kind and message).
#[track_caller]
fn check_contained(
    expected: &[(ContextKind, &str)],
    fault: impl FnOnce(&Executor<'static>) + 'static,
) {
    check_contained_under(ReportPolicy::OnFailure, expected, fault);
}

#[track_caller]
fn check_contained_under(
    policy: ReportPolicy,
    expected: &[(ContextKind, &str)],
    fault: impl FnOnce(&Executor<'static>) + 'static,
) {
    quiet();
    let ex = Executor::builder().report(policy).build();
    let recorder = Recorder::on(&ex);
    let ended = Rc::new(Cell::new(0));
    let sibling = || {
        let ended = Rc::clone(&ended);
        async move {
            yield_n(10).await;
            ended.set(ended.get() + 1);
        }
    };
    ex.task().name("older").spawn(sibling()).detach();
    fault(&ex);
    ex.task().name("younger").spawn(sibling()).detach();
    ex.run_until_stalled();
    assert_eq!(ended.get(), 2, "both siblings end as ever");
    assert_eq!(ex.block_on(async { 40 + 2 }), 42, "the loop lives on");
    check_accounting(&ex);
    drop(ex);
    assert_reports(&recorder.reports(), expected);
}

#[track_caller]
fn assert_reports(reports: &[Report], expected: &[(ContextKind, &str)]) {
    let reports: Vec<(ContextKind, &str)> = reports
        .iter()
        .map(|report| (report.kind, report.exception.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(reports, expected, "the reports, in order");
}

/// A future that panics with `boom` when it is polled.
fn panics() -> impl Future<Output = ()> {
    poll_fn(|_| panic!("boom"))
}

// ---------------------------------------------------------------------------------------------------------------------
// poll
// ---------------------------------------------------------------------------------------------------------------------

/// P3: a panic in the first poll.
#[test]
fn a_panic_in_the_first_poll_stays_in_its_task() {
    check_contained(&[(ContextKind::TaskFailed, "boom")], |ex| {
        ex.spawn(panics()).detach();
    });
}

/// P3: a panic in a later poll, after a wake.
#[test]
fn a_panic_in_a_later_poll_stays_in_its_task() {
    check_contained(&[(ContextKind::TaskFailed, "boom")], |ex| {
        ex.spawn(async {
            yield_n(3).await;
            panic!("boom");
        })
        .detach();
    });
}

/// P3: a panic whose payload is not a string.
#[test]
fn a_panic_without_a_message_stays_in_its_task() {
    quiet();
    let ex = Executor::new();
    let payload = Rc::new(Cell::new(None));
    ex.set_exception_handler({
        let payload = Rc::clone(&payload);
        move |_, context| {
            let exception = context.exception().expect("a panic");
            assert!(!exception.message().is_empty());
            payload.set(exception.downcast_ref::<Boom>().copied());
        }
    });
    ex.spawn(async { panic_any(Boom("why")) }).detach();
    ex.run_until_stalled();
    assert_eq!(payload.get(), Some(Boom("why")));
    check_accounting(&ex);
}

/// P3: a hundred failing tasks between a hundred sound ones.
#[test]
fn many_panics_in_one_pass_are_contained_one_by_one() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let ended = Rc::new(Cell::new(0));
    for n in 0..100 {
        ex.task()
            .name(format!("{n}"))
            .spawn(async { panic!("boom") })
            .detach();
        let ended = Rc::clone(&ended);
        ex.spawn(async move { ended.set(ended.get() + 1) }).detach();
    }
    ex.run_until_stalled();
    assert_eq!(ended.get(), 100);
    let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(recorder.tasks(), names);
    assert_eq!(counts(&ex).failed, 100);
}

/// P3: locals of an async body that panics are dropped while it unwinds, what it held beside them after it.
#[test]
fn what_remains_of_a_panicked_task_is_dropped() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let drops = DropLog::new();
    let local = drops.guard("local");
    ex.spawn(holding(drops.guard("held"), async move {
        let _local = local;
        yield_n(1).await;
        panic!("boom");
    }))
    .detach();
    ex.run_until_stalled();
    drops.assert(&["local", "held"]);
}

/// P3: a panic under `tick` and `run_forever` is contained as it is under `run_until_stalled` and `block_on`.
#[test]
fn panics_are_contained_however_the_loop_is_driven() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.spawn(panics()).detach();
    ex.tick(10);
    assert_eq!(recorder.len(), 1);
    ex.spawn(panics()).detach();
    ex.block_on(yield_n(3));
    assert_eq!(recorder.len(), 2);
    ex.spawn(panics()).detach();
    ex.spawn(async {
        yield_n(2).await;
        LocalHandle::current().stop();
    })
    .detach();
    ex.run_forever();
    assert_eq!(recorder.len(), 3);
    ex.spawn(panics()).detach();
    assert!(ex.try_block_on(yield_n(3)).is_ok());
    assert_eq!(recorder.len(), 4);
}

/// P3: a task that is woken by a task that then panics is polled.
#[test]
fn a_wake_made_before_a_panic_counts() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let event = Event::new();
    let waiting = ex.spawn(event.wait());
    ex.run_until_stalled();
    ex.spawn(async move {
        event.set();
        panic!("boom");
    })
    .detach();
    ex.run_until_stalled();
    assert!(waiting.is_finished());
}

// ---------------------------------------------------------------------------------------------------------------------
// The future's destructor
// ---------------------------------------------------------------------------------------------------------------------

/// P3, api.md: a panic in the destructor of a future that had returned makes the task failed, and its value is dropped.
#[test]
fn a_panicking_destructor_fails_a_task_that_had_returned() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let output = drops.guard("output");
    let mut handle = ex.spawn(holding(
        drops.guard("future").panics("boom in drop"),
        async move { output },
    ));
    ex.run_until_stalled();
    assert_eq!(drops.count("output"), 1);
    let error = handle.result().expect("finished").expect_err("it failed");
    assert!(error.is_panic());
    assert!(error.to_string().contains("boom in drop"));
    assert_reports(
        &recorder.reports(),
        &[(ContextKind::TaskFailed, "boom in drop")],
    );
    assert_eq!((counts(&ex).failed, counts(&ex).returned), (1, 0));
}

/// P3: the same for a detached task, with siblings.
#[test]
fn a_panicking_destructor_on_completion_is_contained() {
    check_contained(&[(ContextKind::TaskFailed, "boom in drop")], |ex| {
        let guard = DropLog::new().guard("future").panics("boom in drop");
        ex.spawn(holding(guard, async {})).detach();
    });
}

/// P3, api.md: after a panic in `poll`, a second one from what remains is a report of its own, kind `Destructor`.
#[test]
fn a_panicking_destructor_after_a_panic_in_poll_is_a_second_report() {
    check_contained(
        &[
            (ContextKind::TaskFailed, "boom"),
            (ContextKind::Destructor, "boom in drop"),
        ],
        |ex| {
            let guard = DropLog::new().guard("future").panics("boom in drop");
            ex.task()
                .name("twice")
                .spawn(holding(guard, panics()))
                .detach();
        },
    );
}

/// P3: an `Err` whose future then panics in its destructor: both are told.
/// Reading: the error came first and stays the task's failure.
#[test]
fn a_panicking_destructor_after_an_err_loses_neither() {
    check_contained(
        &[
            (ContextKind::TaskFailed, "no"),
            (ContextKind::Destructor, "boom in drop"),
        ],
        |ex| {
            let guard = DropLog::new().guard("future").panics("boom in drop");
            ex.spawn_fallible(holding(guard, async { Err::<(), _>(Fault("no")) }))
                .detach();
        },
    );
}

/// P3, tokio `test_abort_task_that_panics_on_drop_returned`: on cancellation a panicking destructor is the task's failure.
#[test]
fn a_panicking_destructor_fails_a_task_that_is_cancelled_by_another() {
    check_contained(&[(ContextKind::TaskFailed, "boom in drop")], |ex| {
        let guard = DropLog::new().guard("future").panics("boom in drop");
        let handle = ex.spawn(holding(guard, pending::<()>()));
        ex.spawn(async move {
            yield_n(1).await;
            assert!(handle.cancel());
            // Gone before `cancel` returned, and the panic did not come through here.
            assert!(handle.is_finished());
            assert!(!handle.is_cancelled());
            let error = handle.await.expect_err("it failed");
            assert!(error.is_panic());
        })
        .detach();
    });
}

/// P3, tokio `test_abort_task_that_panics_on_drop_contained`: the same where the cancel is carried out by the next pass.
#[test]
fn a_panicking_destructor_of_a_task_cancelled_between_drives_is_contained() {
    check_contained(&[(ContextKind::TaskFailed, "boom in drop")], |ex| {
        let guard = DropLog::new().guard("future").panics("boom in drop");
        let handle = ex.spawn(holding(guard, pending::<()>()));
        ex.run_until_stalled();
        assert!(handle.cancel());
        drop(handle);
    });
}

/// P3: a task that cancels itself has its destructor run after the poll, under the same protection.
#[test]
fn a_panicking_destructor_of_a_task_that_cancelled_itself_is_contained() {
    check_contained(&[(ContextKind::TaskFailed, "boom in drop")], |ex| {
        let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
        let guard = DropLog::new().guard("future").panics("boom in drop");
        let handle = ex.spawn(holding(guard, {
            let own = Rc::clone(&own);
            async move {
                own.take().expect("stored").cancel();
                pending::<()>().await;
            }
        }));
        own.replace(Some(handle));
    });
}

/// P3, compio and LocalPool abort or leak here: a panicking destructor at the executor's drop leaves the other tasks to be
/// dropped in their order.
/// Reading: the task is reported as destroyed while pending like its siblings, and its panic once, whatever its kind.
#[test]
fn a_panicking_destructor_at_executor_drop_is_contained() {
    quiet();
    let drops = DropLog::new();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    for name in ["a", "b", "c"] {
        let mut guard = drops.guard(name);
        if name == "b" {
            guard = guard.panics("boom in drop");
        }
        ex.task()
            .name(name)
            .spawn(holding(guard, pending::<()>()))
            .detach();
    }
    ex.run_until_stalled();
    assert!(catch_unwind(AssertUnwindSafe(move || drop(ex))).is_ok());
    drops.assert(&["a", "b", "c"]);
    let reports = recorder.reports();
    let destroyed: Vec<&str> = reports
        .iter()
        .filter(|report| report.kind == ContextKind::DestroyedPending)
        .filter_map(|report| report.task.as_deref())
        .collect();
    assert_eq!(destroyed, ["a", "b", "c"]);
    let panics: Vec<&Report> = reports
        .iter()
        .filter(|report| report.exception.as_deref() == Some("boom in drop"))
        .collect();
    assert_eq!(panics.len(), 1, "{reports:#?}");
    assert_eq!(panics[0].task.as_deref(), Some("b"));
}

/// P3: an executor that is dropped while the thread unwinds contains its tasks' panics as well.
#[test]
fn a_panicking_destructor_at_executor_drop_while_unwinding_is_contained() {
    let test = "containment::a_panicking_destructor_at_executor_drop_while_unwinding_is_contained";
    in_child_ok(test, &[], || {
        quiet();
        let drops = DropLog::new();
        let recorder = Recorder::new();
        let message = panic_message(|| {
            let ex = Executor::new();
            recorder.install(&ex);
            for name in ["a", "b"] {
                let guard = drops
                    .guard(name)
                    .panics_while_unwinding(format!("boom {name}"));
                ex.spawn(holding(guard, pending::<()>())).detach();
            }
            ex.run_until_stalled();
            panic!("boom outside");
        });
        assert_eq!(message, "boom outside");
        drops.assert(&["a", "b"]);
        let mut panics = recorder.exceptions();
        panics.retain(|message| !message.is_empty());
        assert_eq!(panics, ["boom a", "boom b"]);
    });
}

/// P3: a destructor that spawns and then panics: the heir lives.
#[test]
fn a_task_spawned_by_a_panicking_destructor_runs() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let ran = Rc::new(Cell::new(false));
    let heir = {
        let ran = Rc::clone(&ran);
        on_drop(move || {
            mainstay::spawn(async move { ran.set(true) }).detach();
            panic!("boom in drop");
        })
    };
    ex.spawn(holding(heir, async {})).detach();
    ex.run_until_stalled();
    assert!(ran.get());
    check_accounting(&ex);
}

// ---------------------------------------------------------------------------------------------------------------------
// The output's destructor
// ---------------------------------------------------------------------------------------------------------------------

/// P3, api.md: the output of a detached task is dropped at completion; a panic there is the task's failure.
#[test]
fn a_panicking_output_of_a_detached_task_is_its_failure() {
    check_contained(&[(ContextKind::TaskFailed, "boom in output")], |ex| {
        let output = DropLog::new().guard("output").panics("boom in output");
        ex.spawn(async move { output }).detach();
    });
    check_contained_under(
        ReportPolicy::IfUnretrieved,
        &[(ContextKind::NeverRetrieved, "boom in output")],
        |ex| {
            let output = DropLog::new().guard("output").panics("boom in output");
            ex.spawn(async move { output }).detach();
        },
    );
}

/// P3, tokio `test_panics_do_not_propagate_when_dropping_join_handle`: nor does the drop of a handle let a panic out.
/// Reading: the task had returned and stays so (a task ends once); the panic is a report of kind `Destructor`.
#[test]
fn a_panicking_output_does_not_come_out_of_the_drop_of_a_handle() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let output = DropLog::new().guard("output").panics("boom in output");
    let handle = ex.task().name("returned").spawn(async move { output });
    ex.run_until_stalled();
    assert!(catch_unwind(AssertUnwindSafe(move || drop(handle))).is_ok());
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::Destructor);
    assert_eq!(report.exception.as_deref(), Some("boom in output"));
    assert_eq!(report.task.as_deref(), Some("returned"));
    let counts = counts(&ex);
    assert_eq!((counts.returned, counts.failed, counts.reports), (1, 0, 1));
}

/// P3: the same where the handle is dropped by another task, which is not the one to blame.
#[test]
fn a_panicking_output_does_not_fail_the_task_that_drops_the_handle() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let output = DropLog::new().guard("output").panics("boom in output");
    let handle = ex.task().name("owner").spawn(async move { output });
    let dropper = ex.task().name("dropper").spawn(async move {
        yield_n(2).await;
        drop(handle);
    });
    ex.run_until_stalled();
    assert!(dropper.is_finished());
    assert_eq!(counts(&ex).returned, 2);
    assert_eq!(recorder.only().task.as_deref(), Some("owner"));
}

/// P3, B022: the same after the executor is gone. Reading: its handler is still the one to be told.
#[test]
fn a_panicking_output_is_reported_after_the_executor_is_gone() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let output = DropLog::new().guard("output").panics("boom in output");
    let handle = ex.spawn(async move { output });
    ex.run_until_stalled();
    drop(ex);
    assert!(recorder.is_empty());
    assert!(catch_unwind(AssertUnwindSafe(move || drop(handle))).is_ok());
    assert_reports(
        &recorder.reports(),
        &[(ContextKind::Destructor, "boom in output")],
    );
}

/// P3: the value of a task that had cancelled itself is dropped; a panic there makes the task failed.
#[test]
fn a_panicking_value_that_a_cancel_beat_is_a_failure() {
    check_contained(&[(ContextKind::TaskFailed, "boom in output")], |ex| {
        let own: Rc<RefCell<Option<JoinHandle<Guard>>>> = Rc::default();
        let output = DropLog::new().guard("output").panics("boom in output");
        let handle = ex.spawn({
            let own = Rc::clone(&own);
            async move {
                let handle = own.take().expect("stored");
                assert!(handle.cancel());
                output
            }
        });
        own.replace(Some(handle));
    });
}

/// P3: value and future both panic when they are dropped: the first is the failure, the second a report of its own.
#[test]
fn a_future_and_its_value_that_both_panic_on_drop_are_both_reported() {
    check_contained(
        &[
            (ContextKind::TaskFailed, "boom in drop"),
            (ContextKind::Destructor, "boom in output"),
        ],
        |ex| {
            let drops = DropLog::new();
            let output = drops.guard("output").panics("boom in output");
            let guard = drops.guard("future").panics("boom in drop");
            ex.spawn(holding(guard, async move { output })).detach();
        },
    );
}

/// An error whose destructor panics.
struct LoudError(#[expect(dead_code, reason = "held for its destructor")] Guard);

impl fmt::Display for LoudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("loud")
    }
}

impl fmt::Debug for LoudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoudError")
    }
}

/// P3: an error whose destructor panics after it was reported, in a detached task and in a handle that is dropped.
#[test]
fn a_panicking_error_is_contained() {
    let loud = || LoudError(DropLog::new().guard("error").panics("boom in error"));
    check_contained(
        &[
            (ContextKind::TaskFailed, "loud"),
            (ContextKind::Destructor, "boom in error"),
        ],
        move |ex| {
            let error = loud();
            ex.spawn_fallible(async move { Err::<(), _>(error) })
                .detach();
        },
    );
    check_contained_under(
        ReportPolicy::IfUnretrieved,
        &[
            (ContextKind::NeverRetrieved, "loud"),
            (ContextKind::Destructor, "boom in error"),
        ],
        move |ex| {
            let error = loud();
            let handle = ex.spawn_fallible(async move { Err::<(), _>(error) });
            ex.run_until_stalled();
            assert!(catch_unwind(AssertUnwindSafe(move || drop(handle))).is_ok());
        },
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// The panic payload's destructor
// ---------------------------------------------------------------------------------------------------------------------

/// P3: a payload whose destructor panics, in a detached task.
#[test]
fn a_panicking_payload_of_a_detached_task_is_contained() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let payload = drops.guard("payload").panics("boom in payload");
    ex.spawn(async move { panic_any(payload) }).detach();
    let sibling = ex.spawn(yield_n(5));
    ex.run_until_stalled();
    assert!(sibling.is_finished());
    drops.assert(&["payload"]);
    assert_eq!(
        recorder.kinds(),
        [ContextKind::TaskFailed, ContextKind::Destructor]
    );
    assert_eq!(recorder.exceptions()[1], "boom in payload");
    check_accounting(&ex);
}

/// P3, tokio #4412: a payload whose destructor panics does not come out of the drop of the handle.
#[test]
fn a_panicking_payload_does_not_come_out_of_the_drop_of_a_handle() {
    quiet();
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        let ex = Executor::builder().report(policy).build();
        let recorder = Recorder::on(&ex);
        let drops = DropLog::new();
        let payload = drops.guard("payload").panics("boom in payload");
        let handle: JoinHandle<()> = ex.spawn(async move { panic_any(payload) });
        ex.run_until_stalled();
        assert_eq!(drops.len(), 0, "the handle still has it");
        assert!(catch_unwind(AssertUnwindSafe(move || drop(handle))).is_ok());
        drops.assert(&["payload"]);
        assert_eq!(recorder.kinds()[1..], [ContextKind::Destructor]);
        assert_eq!(recorder.exceptions()[1], "boom in payload");
        check_accounting(&ex);
    }
}

/// What comes when nothing of the executor is left is dropped contained, and the default handler is told: a future that is
/// spawned, a callback that is added, and the payload of the panic.
#[test]
fn what_comes_when_nothing_is_left_is_dropped_contained() {
    quiet();
    let log = DropLog::new();
    let ex = Executor::<'static>::new();
    let local = ex.handle();
    let mut taken = ex.spawn(async {});
    ex.run_until_stalled();
    taken.result().unwrap().unwrap();
    drop(ex);

    let capture = LogCapture::start();
    drop(local.spawn(holding(log.guard("silent"), pending::<()>())));
    log.assert(&["silent"]);
    assert_eq!(capture.records().len(), 0);

    let future = holding(log.guard("future").panics("boom future"), pending::<()>());
    assert!(local.spawn(future).result().unwrap().is_err());
    let payload = log.guard("payload").panics("boom payload");
    let captures = on_drop(move || panic_any(payload));
    taken.add_done_callback(move |_| drop(captures));
    log.assert(&["silent", "future", "payload"]);
    let records = capture.records();
    assert_eq!(records.len(), 2, "{records:#?}");
    assert!(records[0].text.contains("boom future"));
    assert!(records[1].text.starts_with("Panic in a destructor"));
}

/// What is never run because the executor ends is dropped contained: a closure that another thread has sent, and a payload that
/// came when there was nobody left to unwind.
#[test]
fn what_is_left_at_the_end_is_dropped_contained() {
    quiet();
    let log = DropLog::new();
    let ex = Executor::<'static>::new();
    let recorder = Recorder::on(&ex);
    let local = ex.handle();
    let keeps = ex.spawn(async {});
    ex.run_until_stalled();
    let captured = log.guard("closure").panics("boom closure");
    let sent = ex.spawner().call_soon(move |_| drop(captured));
    assert!(sent.is_ok());
    drop(ex);
    log.assert(&["closure"]);
    assert_eq!(recorder.only().kind, ContextKind::Destructor);
    assert_eq!(recorder.exceptions(), ["boom closure"]);

    let capture = LogCapture::start();
    local.stop_with(Box::new(log.guard("payload").panics("boom payload")));
    drop(local);
    assert_eq!(log.len(), 1);
    drop(keeps);
    log.assert(&["closure", "payload"]);
    assert!(capture.only().text.contains("boom payload"));
}

/// P3, design section 5: a payload whose destructor panics with another such payload, for ever, is capped and reported.
#[test]
fn an_endless_payload_ends() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.spawn(async { panic_any(EndlessPayload) }).detach();
    let sibling = ex.spawn(yield_n(5));
    ex.run_until_stalled();
    assert!(sibling.is_finished());
    assert_eq!(counts(&ex).failed, 1);
    let kinds = recorder.kinds();
    assert_eq!(kinds[0], ContextKind::TaskFailed);
    assert!(kinds.len() > 1, "what was leaked is reported");
    assert!(
        kinds[1..]
            .iter()
            .all(|kind| *kind == ContextKind::Destructor)
    );
    check_accounting(&ex);
}

/// P3: a destructor may panic with a payload whose own destructor panics.
#[test]
fn a_destructor_may_panic_with_a_panicking_payload() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let payload = drops.guard("payload").panics("boom in payload");
    let bomb = on_drop(move || panic_any(payload));
    ex.spawn(holding(bomb, async {})).detach();
    ex.run_until_stalled();
    drops.assert(&["payload"]);
    assert_eq!(
        recorder.kinds(),
        [ContextKind::TaskFailed, ContextKind::Destructor]
    );
    check_accounting(&ex);
}

/// P3, P2: the payload of a callback that panicked is dropped when that was told; if its destructor panics too, that is one
/// more report, and what goes on for ever is said to have been leaked.
#[test]
fn the_destructor_of_a_callbacks_payload_is_told_apart_from_its_panic() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let told = |expected: &[(ContextKind, &str)]| {
        ex.run_until_stalled();
        let reports = recorder.take();
        let reports: Vec<_> = reports.iter().map(|r| (r.kind, &*r.message)).collect();
        assert_eq!(reports, expected);
    };
    const CALLED: (ContextKind, &str) = (ContextKind::Callback, "Panic in a done callback");

    let plain = ex.spawn(async {});
    plain.add_done_callback(|_| panic_any(Boom("once")));
    told(&[CALLED]);

    let drops = DropLog::new();
    let payload = drops.guard("payload").panics("boom in payload");
    let twice = ex.spawn(async {});
    twice.add_done_callback(move |_| panic_any(payload));
    told(&[
        CALLED,
        (
            ContextKind::Destructor,
            "Panic in the destructor of a panic payload: boom in payload",
        ),
    ]);
    drops.assert(&["payload"]);

    let endless = ex.spawn(async {});
    endless.add_done_callback(|_| panic_any(EndlessPayload));
    ex.run_until_stalled();
    let messages: Vec<String> = recorder.take().into_iter().map(|r| r.message).collect();
    assert_eq!(messages[0], CALLED.1);
    assert_eq!(
        messages.last().map(String::as_str),
        Some("A panic payload whose destructor panics for ever was leaked")
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// On an executor that is gone
// ---------------------------------------------------------------------------------------------------------------------

/// P3, B058: what is given to an executor that is gone is dropped there and then; the panics of its destructors are told.
#[test]
fn destructors_of_what_comes_too_late_are_contained_and_told() {
    quiet();
    let ex = Executor::<'static>::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let local = ex.handle();
    // Keeps the executor's memory, and with it its handler.
    let ended = ex.spawn(async {});
    ex.run_until_stalled();
    drop(ex);
    let late = |name: &str| drops.guard(name).panics(format!("boom in {name}"));

    let (task, call, done) = (late("task"), late("call"), late("done"));
    assert!(local.spawn(holding(task, async {})).is_cancelled());
    local.call_soon(move || drop(call));
    ended.add_done_callback(move |_| drop(done));
    drops.assert(&["task", "call", "done"]);
    assert_reports(
        &recorder.reports(),
        &[
            (ContextKind::Destructor, "boom in task"),
            (ContextKind::Destructor, "boom in call"),
            (ContextKind::Destructor, "boom in done"),
        ],
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Done callbacks
// ---------------------------------------------------------------------------------------------------------------------

/// P3, B002: a callback that panics is a report of kind `Callback`; those after it still run, and the outcome stands.
#[test]
fn a_panicking_callback_is_reported_and_the_rest_run() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let trace = Trace::new();
    let mut handle = ex.task().name("called").spawn(async { 7 });
    for n in 0..3 {
        let trace = trace.clone();
        handle.add_done_callback(move |_| {
            trace.push(format!("callback {n}"));
            if n != 2 {
                panic!("boom {n}");
            }
        });
    }
    ex.run_until_stalled();
    trace.assert(&["callback 0", "callback 1", "callback 2"]);
    assert_reports(
        &recorder.reports(),
        &[
            (ContextKind::Callback, "boom 0"),
            (ContextKind::Callback, "boom 1"),
        ],
    );
    assert_eq!(recorder.tasks(), ["called", "called"]);
    assert_eq!(handle.result().expect("finished").expect("returned"), 7);
}

/// P3: a callback of a failed task that panics: two reports, of which only one is the task's.
#[test]
fn a_panicking_callback_of_a_failed_task_is_contained() {
    check_contained(
        &[
            (ContextKind::TaskFailed, "boom"),
            (ContextKind::Callback, "boom in callback"),
        ],
        |ex| {
            let handle = ex.spawn(panics());
            handle.add_done_callback(|_| panic!("boom in callback"));
            handle.detach();
        },
    );
}

/// P3: a callback whose captures panic when they are dropped, at the end of its run.
#[test]
fn a_callback_with_panicking_captures_is_contained() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let trace = Trace::new();
    let handle = ex.spawn(async {});
    let captured = drops.guard("captured").panics("boom in captures");
    handle.add_done_callback({
        let trace = trace.clone();
        move |_| trace.push(format!("first {}", captured_name(&captured)))
    });
    handle.add_done_callback({
        let trace = trace.clone();
        move |_| trace.push("second")
    });
    ex.run_until_stalled();
    trace.assert(&["first captured", "second"]);
    drops.assert(&["captured"]);
    assert_eq!(
        recorder.only().exception.as_deref(),
        Some("boom in captures")
    );
}

fn captured_name(guard: &Guard) -> &'static str {
    assert!(format!("{guard:?}").contains("captured"));
    "captured"
}

/// P3: the captures of a callback that is removed unrun panic when they are dropped.
/// Reading: whoever removes it is not to blame: the panic is contained there and reported.
#[test]
fn a_removed_callback_with_panicking_captures_is_contained() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let handle = ex.spawn(pending::<()>());
    let captured = drops.guard("captured").panics("boom in captures");
    let id = handle.add_done_callback(move |_| {
        captured_name(&captured);
    });
    let remover = ex.spawn(async move {
        assert!(handle.remove_done_callback(id));
        yield_n(1).await;
        handle.cancel();
    });
    ex.run_until_stalled();
    drops.assert(&["captured"]);
    assert!(remover.is_finished());
    assert_eq!((counts(&ex).returned, counts(&ex).failed), (1, 0));
    assert_eq!(
        recorder.only().exception.as_deref(),
        Some("boom in captures")
    );
}

/// P3: a callback that runs at the executor's drop and panics leaves the rest of the teardown alone.
#[test]
fn a_panicking_callback_at_executor_drop_is_contained() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let trace = Trace::new();
    for name in ["a", "b"] {
        let handle = ex
            .task()
            .name(name)
            .background()
            .spawn(holding(drops.guard(name), pending::<()>()));
        let trace = trace.clone();
        handle.add_done_callback(move |completion| {
            assert!(matches!(completion.outcome(), Outcome::Cancelled));
            trace.push(name);
            panic!("boom in callback {name}");
        });
        handle.detach();
    }
    ex.run_until_stalled();
    assert!(catch_unwind(AssertUnwindSafe(move || drop(ex))).is_ok());
    assert_eq!(trace.len(), 2);
    drops.assert(&["a", "b"]);
    let mut messages = recorder.exceptions();
    messages.sort();
    assert_eq!(messages, ["boom in callback a", "boom in callback b"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Foreign wakers
// ---------------------------------------------------------------------------------------------------------------------

/// P3: an awaiter's foreign waker that panics when it is called. Reading: that is reported, of whatever kind.
#[test]
fn a_foreign_waker_that_panics_when_called_is_contained() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let event = Event::new();
    let mut handle = ex.spawn({
        let event = event.clone();
        async move {
            event.wait().await;
            7
        }
    });
    let count = WakeCount::panicking_on_wake();
    let waker = Waker::from(Arc::clone(&count));
    assert!(poll_with(&mut handle, &waker).is_pending());
    let sibling = ex.spawn(yield_n(5));
    ex.run_until_stalled();
    event.set();
    ex.run_until_stalled();
    assert_eq!(count.wakes(), 1);
    assert!(sibling.is_finished());
    assert_eq!(recorder.exceptions(), ["boom in wake"]);
    assert_eq!(handle.result().expect("finished").expect("returned"), 7);
    check_accounting(&ex);
}

/// P3: the same when the awaited task is cancelled by another, which is not to blame.
#[test]
fn a_foreign_waker_that_panics_does_not_fail_the_task_that_cancels() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let mut handle = ex.spawn(pending::<()>());
    let canceller = handle.cancel_handle();
    let waker = Waker::from(WakeCount::panicking_on_wake());
    assert!(poll_with(&mut handle, &waker).is_pending());
    let other = ex.spawn(async move { canceller.cancel() });
    ex.run_until_stalled();
    assert!(handle.is_cancelled());
    assert_eq!((counts(&ex).returned, counts(&ex).failed), (1, 0));
    assert_eq!(recorder.exceptions(), ["boom in wake"]);
    drop(other);
}

/// P3: and when it is woken by the executor's drop.
#[test]
fn a_foreign_waker_that_panics_at_executor_drop_is_contained() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let spawn = |name: &'static str| {
        ex.task()
            .background()
            .spawn(holding(drops.guard(name), pending::<()>()))
    };
    let mut handle = spawn("a");
    spawn("b").detach();
    let count = WakeCount::panicking_on_wake();
    let waker = Waker::from(Arc::clone(&count));
    assert!(poll_with(&mut handle, &waker).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(move || drop(ex))).is_ok());
    assert_eq!(count.wakes(), 1);
    drops.assert(&["a", "b"]);
    assert_eq!(recorder.exceptions(), ["boom in wake"]);
    assert!(handle.is_cancelled());
}

/// P3: a foreign waker whose drop panics, when the handle that holds it is dropped.
/// Reading: the waker goes with the handle, and its panic is reported like that of its call.
#[test]
fn a_foreign_waker_that_panics_on_drop_does_not_come_out_of_the_drop_of_a_handle() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let mut handle = ex.spawn(pending::<()>());
    let waker = Waker::from(WakeCount::panicking_on_drop());
    assert!(poll_with(&mut handle, &waker).is_pending());
    // The handle has the last clone from here on.
    drop(waker);
    let dropped = catch_unwind(AssertUnwindSafe(move || drop(handle)));
    assert!(dropped.is_ok());
    ex.run_until_stalled();
    assert_eq!(recorder.exceptions(), ["boom in waker drop"]);
    check_accounting(&ex);
}

/// P3: a foreign waker whose drop panics, when another one takes its place.
#[test]
fn a_foreign_waker_that_panics_on_drop_when_replaced_is_contained() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let mut handle = ex.spawn(pending::<()>());
    let waker = Waker::from(WakeCount::panicking_on_drop());
    assert!(poll_with(&mut handle, &waker).is_pending());
    drop(waker);
    let polled = catch_unwind(AssertUnwindSafe(|| {
        poll_with(&mut handle, Waker::noop()).is_pending()
    }));
    assert!(matches!(polled, Ok(true)));
    assert_eq!(recorder.exceptions(), ["boom in waker drop"]);
    assert!(!handle.is_finished());
}

/// P3, P2: what the payload of a handler's panic and the handler's own captures do when they are dropped is told by the default
/// handler, and counted.
#[test]
fn destructors_around_a_handler_are_told_by_the_default_handler() {
    quiet();
    for endless in [false, true] {
        let log = LogCapture::start();
        let ex = Executor::new();
        let drops = DropLog::new();
        let payload = drops.guard("payload").panics("boom in payload");
        let captured = drops.guard("captured").panics("boom in captured");
        let payload = Cell::new(Some(payload));
        ex.set_exception_handler(move |local, _| {
            let _captured = &captured;
            // So that what holds the captures last is the report that is being made.
            local.clear_exception_handler();
            if endless {
                panic_any(EndlessPayload);
            }
            panic_any(payload.take().expect("called once"));
        });
        ex.spawn(async { panic_any(Boom("told")) }).detach();
        ex.run_until_stalled();
        let records = log.records();
        let told = |what: &str| records.iter().filter(|r| r.text.contains(what)).count();
        assert_eq!(told("Unhandled error in exception handler"), 1);
        assert_eq!(told("boom in payload"), usize::from(!endless));
        assert_eq!(told("for ever was leaked"), usize::from(endless));
        assert_eq!(told("destructor of an exception handler"), 1);
        assert_eq!(drops.count("captured"), 1);
        // The first is the one that the handler was given.
        assert_eq!(ex.stats().reports, 1 + records.len() as u64, "{records:#?}");
    }
}

/// P7: whoever stops waiting lets go of its waker, whatever it waited for.
#[test]
fn a_wait_that_is_given_up_keeps_no_waker() {
    #[track_caller]
    fn given_up(future: impl Future) {
        let mut future = Box::pin(future);
        let (waker, count) = counting_waker();
        assert!(poll_with(&mut future, &waker).is_pending());
        drop((future, waker));
        assert_eq!(Arc::strong_count(&count), 1);
    }
    quiet();
    let ex = Executor::new();
    let supervisor = Supervisor::new_in(&ex.handle());
    supervisor.limit(1).spawn(pending::<()>()).detach();
    given_up(ex.idle());
    given_up(supervisor.room());
    ex.block_on(async {
        given_up(cancel_requested());
        given_up(supervisor.shutdown(Duration::from_secs(1)));
        given_up(TaskGroup::scope(async |g| {
            g.limit(1).spawn(pending::<()>()).detach();
            g.room().await;
        }));
        given_up(TaskGroup::scope(async |_| pending::<()>().await));
        given_up(Supervisor::scope(async |_| pending::<()>().await));
        given_up(gather([pending::<()>()]));
        given_up(sleep(Duration::from_secs(1)));
    });
}

/// P3: the same where the destructor of that waker panics, when it is replaced or given up: contained and told.
#[test]
fn a_waker_that_panics_may_be_replaced_or_given_up() {
    type Boxed = Pin<Box<dyn Future<Output = ()>>>;
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let supervisor = Supervisor::new_in(&ex.handle());
    supervisor.limit(1).spawn(pending::<()>()).detach();
    let waits: [&dyn Fn() -> Boxed; 5] = [
        &|| {
            let supervisor = supervisor.clone();
            Box::pin(async move { supervisor.room().await })
        },
        &|| Box::pin(async { LocalHandle::current().idle().await }),
        &|| Box::pin(cancel_requested()),
        &|| Box::pin(async { drop(TaskGroup::scope(async |_| pending::<()>().await).await) }),
        &|| Box::pin(Supervisor::scope(async |_| pending::<()>().await)),
    ];
    ex.block_on(async {
        for wait in waits {
            for replaced in [false, true] {
                let mut wait = wait();
                let waker = Waker::from(WakeCount::panicking_on_drop());
                assert!(poll_with(&mut wait, &waker).is_pending());
                drop(waker);
                if replaced {
                    assert!(poll_with(&mut wait, Waker::noop()).is_pending());
                }
                drop(wait);
                yield_n(1).await;
                assert_eq!(recorder.only().kind, ContextKind::Destructor);
                assert_eq!(
                    recorder.take()[0].exception.as_deref(),
                    Some("boom in waker drop")
                );
            }
        }
    });
}

/// P3: a foreign waker whose drop panics, when it was called and is dropped by that.
#[test]
fn a_foreign_waker_that_panics_on_drop_once_called_is_contained() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let mut handle = ex.spawn(yield_n(1));
    let waker = Waker::from(WakeCount::panicking_on_drop());
    assert!(poll_with(&mut handle, &waker).is_pending());
    drop(waker);
    let sibling = ex.spawn(yield_n(5));
    ex.run_until_stalled();
    assert!(handle.is_finished());
    assert!(sibling.is_finished());
    assert_eq!(recorder.exceptions(), ["boom in waker drop"]);
    check_accounting(&ex);
}

/// Polls a future with a waker of its own, as `FuturesUnordered` does with its children.
struct WithWaker<F>(F, Waker);

impl<F: Future + Unpin> Future for WithWaker<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<F::Output> {
        let Self(future, waker) = &mut *self;
        Pin::new(future).poll(&mut Context::from_waker(waker))
    }
}

/// P3: the same from within a task: neither the awaited task nor the one that wraps the handle fails.
#[test]
fn a_foreign_waker_inside_a_task_that_panics_is_contained() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let count = WakeCount::panicking_on_wake();
    let awaited = ex.task().name("awaited").spawn(yield_n(3));
    let waker = Waker::from(Arc::clone(&count));
    let awaiter = ex.task().name("awaiter").spawn(WithWaker(awaited, waker));
    ex.run_until_stalled();
    assert_eq!(count.wakes(), 1);
    assert_eq!(recorder.exceptions(), ["boom in wake"]);
    assert_eq!((counts(&ex).returned, counts(&ex).failed), (1, 0));
    // Its waker woke nobody, so the awaiter waits on.
    assert!(!awaiter.is_finished());
}

// ---------------------------------------------------------------------------------------------------------------------
// The handler and what it is given
// ---------------------------------------------------------------------------------------------------------------------

/// P3, B002: a handler that panics stays installed and harms nobody.
#[test]
fn a_panicking_handler_is_contained() {
    quiet();
    let _log = LogCapture::start();
    let ex = Executor::new();
    let calls = Rc::new(Cell::new(0));
    ex.set_exception_handler({
        let calls = Rc::clone(&calls);
        move |_, _| {
            calls.set(calls.get() + 1);
            panic!("boom in handler");
        }
    });
    for _ in 0..3 {
        ex.spawn(panics()).detach();
    }
    let sibling = ex.spawn(yield_n(5));
    ex.run_until_stalled();
    assert_eq!(calls.get(), 3);
    assert!(sibling.is_finished());
    assert!(ex.has_exception_handler());
    assert_eq!((counts(&ex).failed, counts(&ex).reported), (3, 3));
}

/// P3: a handler that panics with a payload whose destructor panics.
#[test]
fn a_handler_that_panics_with_a_panicking_payload_is_contained() {
    quiet();
    let _log = LogCapture::start();
    let ex = Executor::new();
    let drops = DropLog::new();
    ex.set_exception_handler({
        let drops = drops.clone();
        let calls = Cell::new(0);
        move |_, _| {
            calls.set(calls.get() + 1);
            if calls.get() == 1 {
                panic_any(drops.guard("payload").panics("boom in payload"));
            }
        }
    });
    ex.spawn(panics()).detach();
    let sibling = ex.spawn(yield_n(5));
    ex.run_until_stalled();
    drops.assert(&["payload"]);
    assert!(sibling.is_finished());
    check_accounting(&ex);
}

/// P3: a handler that panics where the report is not made by the loop: by a user's call, and by the drop of a handle.
#[test]
fn a_panicking_handler_does_not_come_out_of_calls_outside_the_loop() {
    quiet();
    let log = LogCapture::start();
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();
    ex.set_exception_handler(|_, _| panic!("boom in handler"));
    let context = ExceptionContext::new("by hand").build();
    assert!(catch_unwind(AssertUnwindSafe(|| ex.call_exception_handler(&context))).is_ok());
    assert_eq!(log.records().len(), 1);

    let handle = ex.spawn(panics());
    ex.run_until_stalled();
    assert!(catch_unwind(AssertUnwindSafe(move || drop(handle))).is_ok());
    assert_eq!(log.records().len(), 2);

    let handle = ex.spawn(panics());
    ex.run_until_stalled();
    assert!(catch_unwind(AssertUnwindSafe(move || drop(ex))).is_ok());
    assert_eq!(log.records().len(), 3);
    drop(handle);
}

/// P3: a handler that panics in a report that was made because of a cancel: the canceller is not to blame.
#[test]
fn a_panicking_handler_does_not_fail_the_task_that_cancels() {
    quiet();
    let _log = LogCapture::start();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| panic!("boom in handler"));
    let guard = DropLog::new().guard("future").panics("boom in drop");
    let handle = ex.spawn(holding(guard, pending::<()>()));
    ex.spawn(async move {
        handle.cancel();
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!((counts(&ex).returned, counts(&ex).failed), (1, 1));
}

/// An error whose `Display` or `Debug` panics.
struct Unspeakable {
    display: bool,
    debug: bool,
}

impl fmt::Display for Unspeakable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.display {
            panic!("boom in Display");
        }
        f.write_str("unspeakable")
    }
}

impl fmt::Debug for Unspeakable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.debug {
            panic!("boom in Debug");
        }
        f.write_str("Unspeakable")
    }
}

/// P3, B021: the default handler shows an error whose `Display`, `Debug` or both panic: the loop goes on.
#[test]
fn a_display_or_debug_that_panics_in_the_default_handler_is_contained() {
    quiet();
    let _log = LogCapture::start();
    for (display, debug) in [(true, false), (false, true), (true, true)] {
        let ex = Executor::new();
        ex.spawn_fallible(async move { Err::<(), _>(Unspeakable { display, debug }) })
            .detach();
        let sibling = ex.spawn(yield_n(5));
        ex.run_until_stalled();
        assert!(sibling.is_finished());
        assert_eq!((counts(&ex).failed, counts(&ex).reported), (1, 1));
    }
}

/// P3: a handler that shows such an error panics itself, and then the default handler panics over it too.
#[test]
fn a_handler_that_trips_over_a_panicking_display_is_contained() {
    quiet();
    let _log = LogCapture::start();
    for show in [
        (|context| context.to_string()) as fn(&ExceptionContext<'_>) -> String,
        |context| {
            context
                .exception()
                .expect("an error")
                .message()
                .into_owned()
        },
    ] {
        let ex = Executor::new();
        let calls = Rc::new(Cell::new(0));
        ex.set_exception_handler({
            let calls = Rc::clone(&calls);
            move |_, context| {
                calls.set(calls.get() + 1);
                std::hint::black_box(show(context));
            }
        });
        for _ in 0..2 {
            ex.spawn_fallible(async {
                Err::<(), _>(Unspeakable {
                    display: true,
                    debug: true,
                })
            })
            .detach();
        }
        let sibling = ex.spawn(yield_n(5));
        ex.run_until_stalled();
        assert_eq!(calls.get(), 2);
        assert!(sibling.is_finished());
        check_accounting(&ex);
    }
}

/// P3: a logger that panics.
#[test]
fn a_logger_that_panics_is_contained() {
    quiet();
    let log = LogCapture::start();
    log.panics(true);
    let ex = Executor::new();
    let first = ex.spawn(panics());
    let sibling = ex.spawn(yield_n(5));
    ex.run_until_stalled();
    assert!(sibling.is_finished());
    drop(first);
    assert_eq!((counts(&ex).failed, counts(&ex).reported), (1, 1));
    // Once it works again, it is told of the next failure.
    log.panics(false);
    ex.task()
        .name("after the logger came back")
        .spawn(panics())
        .detach();
    ex.run_until_stalled();
    assert!(log.only().text.contains("after the logger came back"));
}

/// P3: handler, `Display` and logger all panic over one failure.
#[test]
fn when_everything_panics_the_loop_goes_on() {
    quiet();
    let log = LogCapture::start();
    log.panics(true);
    let ex = Executor::new();
    ex.set_exception_handler(|_, context| {
        let text = context.exception().expect("an error").message();
        panic!("boom in handler: {text}");
    });
    ex.spawn_fallible(async {
        Err::<(), _>(Unspeakable {
            display: true,
            debug: true,
        })
    })
    .detach();
    let sibling = ex.spawn(yield_n(5));
    ex.run_until_stalled();
    assert!(sibling.is_finished());
    assert_eq!(ex.block_on(async { 1 }), 1);
    check_accounting(&ex);
}

/// P3: the handler's own captures panic when they are dropped, at the executor's end.
/// Reading: the handler's captures are among those of callbacks.
#[test]
fn a_handler_whose_captures_panic_is_dropped_with_the_executor() {
    quiet();
    let _log = LogCapture::start();
    let drops = DropLog::new();
    let ex = Executor::new();
    let captured = drops.guard("captured").panics("boom in captures");
    ex.set_exception_handler(move |_, _| {
        captured_name(&captured);
    });
    let guard = drops.guard("future");
    ex.task()
        .background()
        .spawn(holding(guard, pending::<()>()))
        .detach();
    assert!(catch_unwind(AssertUnwindSafe(move || drop(ex))).is_ok());
    drops.assert(&["future", "captured"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// The root
// ---------------------------------------------------------------------------------------------------------------------

/// api.md, B073: a panic of the root unwinds out of `block_on` with its own payload and is not reported too.
#[test]
fn the_roots_panic_is_the_callers_alone() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        ex.block_on(async {
            yield_n(1).await;
            panic_any(Boom("root"));
        })
    }));
    let payload = unwound.map(|never: ()| never).expect_err("it panicked");
    assert_eq!(payload.downcast_ref::<Boom>(), Some(&Boom("root")));
    assert!(recorder.is_empty());
    assert!(!ex.is_running());
    // The executor stays usable.
    assert_eq!(ex.block_on(async { 1 }), 1);
    assert_eq!(counts(&ex).spawned, 0);
}

/// api.md: `try_block_on` lets a root's panic through like `block_on`; its `Err` is for stopping.
#[test]
fn the_roots_panic_unwinds_out_of_try_block_on() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let message = panic_message(|| {
        let value: Result<(), _> = ex.try_block_on(async { panic!("boom in the root") });
        value
    });
    assert_eq!(message, "boom in the root");
    assert!(recorder.is_empty());
}

/// Design section 5: a root that panics in `poll` and again in its destructor unwinds with the first; the second is reported.
#[test]
fn a_root_that_panics_twice_unwinds_with_the_first() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let guard = DropLog::new().guard("root").panics("boom in drop");
    let message = panic_message(|| ex.block_on(holding(guard, panics())));
    assert_eq!(message, "boom");
    assert_eq!(recorder.exceptions(), ["boom in drop"]);
    assert_eq!(ex.block_on(async { 1 }), 1);
}

/// Design section 5: a root's destructor that panics after the root returned is reported. Reading: its value comes out.
#[test]
fn a_root_whose_destructor_panics_gives_its_value() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let guard = DropLog::new().guard("root").panics("boom in drop");
    assert_eq!(ex.block_on(holding(guard, async { 7 })), 7);
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::Destructor);
    assert_eq!(report.exception.as_deref(), Some("boom in drop"));
    assert_eq!(report.task, None);
}

/// P3: the root's panic reaches the caller though a task fails in the same pass.
#[test]
fn a_root_and_a_task_that_panic_in_one_pass_are_kept_apart() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.spawn(async { panic!("boom in the task") }).detach();
    let event = Event::new();
    ex.spawn({
        let event = event.clone();
        async move {
            event.set();
        }
    })
    .detach();
    let message = panic_message(|| {
        ex.block_on(async {
            event.wait().await;
            panic!("boom in the root");
        })
    });
    assert_eq!(message, "boom in the root");
    ex.run_until_stalled();
    assert_eq!(recorder.exceptions(), ["boom in the task"]);
}

// What keeps these tests honest: an assertion that fails where the executor contains it ends the process.
#[test]
fn an_assertion_of_a_test_is_not_contained() {
    let this = "containment::an_assertion_of_a_test_is_not_contained";
    for in_callback in [true, false] {
        let place = if in_callback { "callback" } else { "task" };
        let ended = in_child(this, &[("MAINSTAY_TEST_PLACE", place)], || {
            quiet();
            let ex = Executor::<'static>::new();
            let fails = || assert!(std::hint::black_box(false));
            let said = std::env::var("MAINSTAY_TEST_PLACE");
            if said.is_ok_and(|place| place == "callback") {
                ex.call_soon(fails);
            } else {
                ex.spawn(async move { unreachable!("on purpose") }).detach();
            }
            ex.run_until_stalled();
        });
        let Some(output) = ended else { return };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(101), "{said}");
        assert!(said.contains("which would contain it"), "{said}");
    }
}
