//! The end of an executor: what is dropped, in which order, what is told about it, and what destructors may do meanwhile.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use mainstay::{
    CancelHandle, ContextKind, ExceptionContext, Executor, JoinHandle, LocalHandle, Outcome,
};

use crate::capture::captured_log;
use crate::remote::without_hanging;
use crate::support::{
    DropLog, Event, LEAKS, Recorder, Trace, WakeCount, check_accounting, check_stats, holding,
    in_child_ok, on_drop, poll_once, poll_with, quiet, yield_n,
};
use crate::wake::Probe;

// ---------------------------------------------------------------------------------------------------------------------
// What is told
// ---------------------------------------------------------------------------------------------------------------------

// P9: callbacks that are never called are dropped in the order in which they were made, whatever places they were given.
#[test]
fn callbacks_that_are_left_go_in_the_order_of_making() {
    for shutdown in [false, true] {
        let ex = Executor::builder().virtual_clock().build();
        let log = DropLog::new();
        let call = |name: &str| {
            let guard = log.guard(name);
            ex.call_later(Duration::from_secs(3600), move || drop(guard))
        };
        let first = call("first");
        call("second");
        // Its place is the third one's.
        assert!(first.cancel());
        ex.run_until_stalled();
        call("third");
        if shutdown {
            ex.shutdown(Duration::ZERO);
        }
        drop(ex);
        log.assert(&["first", "second", "third"]);
    }
}

// B054; asyncio tk:test_log_destroyed_pending_task.
#[test]
fn each_pending_task_is_dropped_and_reported_once_in_spawn_order() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    for name in ["a", "b", "c", "d", "e"] {
        ex.task()
            .name(name)
            .spawn(holding(log.guard(name), pending::<()>()))
            .detach();
    }
    ex.run_until_stalled();
    drop(ex);
    log.assert(&["a", "b", "c", "d", "e"]);
    assert_eq!(recorder.tasks(), ["a", "b", "c", "d", "e"]);
    assert_eq!(recorder.kinds(), [ContextKind::DestroyedPending; 5]);
}

// B054: spawn order, whatever slots the tasks are in and whatever order they were polled in.
#[test]
fn the_order_is_that_of_spawning_also_when_slots_are_reused() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    let first: Vec<Probe> = (0..6).map(|_| Probe::new()).collect();
    for (i, probe) in first.iter().enumerate() {
        let name = format!("first-{i}");
        let body = holding(log.guard(name.clone()), probe.task());
        ex.task().name(name).spawn(body).detach();
    }
    ex.run_until_stalled();
    // Free some slots, in an order of their own, and fill them again.
    for i in [4, 1, 3] {
        first[i].complete();
        ex.run_until_stalled();
    }
    for i in 0..4 {
        let name = format!("second-{i}");
        let body = holding(log.guard(name.clone()), pending::<()>());
        ex.task().name(name).spawn(body).detach();
    }
    ex.run_until_stalled();
    first[5].wake();
    first[0].wake();
    drop(ex);
    let left = [
        "first-0", "first-2", "first-5", "second-0", "second-1", "second-2", "second-3",
    ];
    assert_eq!(log.names()[3..], left);
    assert_eq!(recorder.tasks(), left);
}

// B054: a task that was never polled is pending, too.
#[test]
fn tasks_that_were_never_polled_are_dropped_unpolled_and_reported() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    ex.task()
        .name("never")
        .spawn(holding(log.guard("never"), async {
            unreachable!("no drive, no poll")
        }))
        .detach();
    drop(ex);
    log.assert(&["never"]);
    assert_eq!(recorder.tasks(), ["never"]);
}

// B025, B054: there is no exception, and the report says whether somebody holds the handle.
#[test]
fn the_report_names_the_task_and_carries_no_exception() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let held = ex.task().name("held").spawn(pending::<()>());
    ex.task().name("detached").spawn(pending::<()>()).detach();
    ex.run_until_stalled();
    drop(ex);
    let reports = recorder.take();
    assert_eq!(reports.len(), 2);
    for (report, (name, handle_held)) in reports.iter().zip([("held", true), ("detached", false)]) {
        assert_eq!(report.kind, ContextKind::DestroyedPending);
        assert_eq!(report.task.as_deref(), Some(name));
        assert_eq!((&report.exception, report.panic), (&None, None));
        assert_eq!(report.handle_held, handle_held);
        assert!(!report.message.is_empty());
    }
    assert!(held.is_cancelled());
}

// B054: finished tasks, cancelled ones and background ones are no news.
#[test]
fn finished_cancelled_and_background_tasks_are_not_reported() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    let finished = ex.spawn(yield_n(1));
    let background = ex
        .task()
        .background()
        .spawn(holding(log.guard("background"), pending::<()>()));
    let cancelled = ex.spawn(holding(log.guard("cancelled"), pending::<()>()));
    let guarded = ex
        .spawn(holding(log.guard("guarded"), pending::<()>()))
        .cancel_on_drop();
    ex.run_until_stalled();
    assert!(cancelled.cancel());
    drop(guarded);
    drop(ex);
    assert_eq!(recorder.reports(), []);
    assert_eq!(log.len(), 3, "they are dropped all the same");
    log.assert_home();
    assert!(background.is_cancelled() && cancelled.is_cancelled());
    assert!(finished.is_finished() && !finished.is_cancelled());
}

// P2: the counters are right in each report, and once all are made.
#[test]
fn the_counters_add_up_in_every_report_and_afterwards() {
    let ex = Executor::new();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let seen_in_handler = Rc::clone(&seen);
    ex.set_exception_handler(move |handle, _| {
        let counts = check_stats(&handle.stats());
        seen_in_handler.borrow_mut().push(counts);
    });
    for _ in 0..5 {
        ex.spawn(pending::<()>()).detach();
    }
    ex.spawn(async {}).detach();
    ex.run_until_stalled();
    check_accounting(&ex);
    drop(ex);
    let seen = seen.borrow();
    assert_eq!(seen.len(), 5);
    assert!(seen.iter().all(|counts| counts.spawned == 6));
    assert!(seen.is_sorted_by(|earlier, later| earlier.cancelled <= later.cancelled));
}

// api.md on Executor::drop: the default handler writes ten, then one line for the rest.
#[test]
fn the_default_handler_writes_ten_and_one_line_for_the_rest() {
    let log = captured_log();
    let ex = Executor::new();
    for i in 0..35 {
        ex.task()
            .name(format!("worker-{i}"))
            .spawn(pending::<()>())
            .detach();
    }
    ex.run_until_stalled();
    drop(ex);
    let records = log.records();
    assert_eq!(records.len(), 11);
    for (i, record) in records[..10].iter().enumerate() {
        assert_eq!(record.level, log::Level::Error);
        let name = format!("worker-{i}");
        assert!(record.text.contains(&name), "{name} in {}", record.text);
    }
    let last = &records[10];
    assert_eq!(last.level, log::Level::Error);
    assert!(last.text.contains("25"), "{}", last.text);
}

/// Those that are told in one line count as a report each, like the others.
#[test]
fn those_that_are_summed_up_are_counted() {
    let ex = Executor::new();
    let (handle, reports) = (ex.handle(), Rc::new(Cell::new(0)));
    for _ in 0..14 {
        ex.spawn(pending::<()>()).detach();
    }
    let count = Rc::clone(&reports);
    let look = on_drop(move || count.set(handle.stats().reports));
    ex.spawn(holding(look, pending::<()>())).detach();
    let _log = captured_log();
    drop(ex);
    assert_eq!(reports.get(), 15);
}

/// The last thing that is told is a failure that another thread's handle holds. What its report causes is told too.
#[test]
fn what_the_last_report_causes_is_seen_to() {
    quiet();
    for fails in [false, true] {
        let policy = mainstay::ReportPolicy::IfUnretrieved;
        let ex = Executor::builder().report(policy).build();
        let (recorder, trace, log) = (Recorder::new(), Trace::new(), DropLog::new());
        let finished = ex.spawn(async {});
        let owed = ex.spawner().spawn(|| async { panic!("boom owed") });
        let owed = owed.unwrap_or_else(|_| panic!("it takes tasks"));
        ex.run_until_stalled();
        let (told, called, guards) = (recorder.clone(), trace.clone(), log.clone());
        ex.set_exception_handler(move |handle, report| {
            told.record(report);
            if told.len() > 1 {
            } else if fails {
                let guard = guards.guard("late").panics("boom in the end");
                handle.spawn(holding(guard, pending::<()>())).detach();
            } else {
                let called = called.clone();
                finished.add_done_callback(move |_| called.push("called"));
            }
        });
        drop(ex);
        assert_eq!(recorder.exceptions()[0], "boom owed");
        if fails {
            assert_eq!(recorder.exceptions()[1..], ["boom in the end"]);
        } else {
            trace.assert(&["called"]);
        }
        drop(owed);
    }
}

// api.md on Executor::drop: ten need no summary, eleven do.
#[test]
fn the_line_for_the_rest_is_written_only_when_there_is_a_rest() {
    for (tasks, records) in [(0, 0), (1, 1), (10, 10), (11, 11), (12, 11)] {
        let log = captured_log();
        let ex = Executor::new();
        for _ in 0..tasks {
            ex.spawn(pending::<()>()).detach();
        }
        ex.task().background().spawn(pending::<()>()).detach();
        drop(ex);
        assert_eq!(log.records().len(), records, "for {tasks} tasks");
    }
}

// api.md on Executor::drop: the limit is the default handler's; one that was set is told of each.
#[test]
fn a_handler_is_told_of_every_pending_task() {
    let log = captured_log();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    for _ in 0..35 {
        ex.spawn(pending::<()>()).detach();
    }
    drop(ex);
    assert_eq!(recorder.len(), 35);
    assert_eq!(log.records().len(), 0);
}

// P3: a handler that panics at each report hinders nothing.
#[test]
fn a_handler_that_panics_hinders_no_teardown() {
    quiet();
    let records = captured_log();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| panic!("boom in the handler"));
    let log = DropLog::new();
    for name in ["a", "b", "c"] {
        ex.task()
            .name(name)
            .spawn(holding(log.guard(name), pending::<()>()))
            .detach();
    }
    drop(ex);
    log.assert(&["a", "b", "c"]);
    let records = records.records();
    for name in ["a", "b", "c"] {
        let told = records.iter().filter(|record| record.text.contains(name));
        assert!(told.count() >= 1, "the report of {name} is not lost");
    }
}

// P3: what the handler captured goes with the executor, and may panic.
#[test]
fn the_handlers_captures_are_dropped_at_the_end() {
    quiet();
    let ex = Executor::new();
    let log = DropLog::new();
    let captured = log.guard("handler").panics("boom in a capture");
    ex.set_exception_handler(move |_, _| {
        let _ = &captured;
    });
    ex.spawn(holding(log.guard("task"), pending::<()>()))
        .detach();
    drop(ex);
    log.assert(&["task", "handler"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Done callbacks
// ---------------------------------------------------------------------------------------------------------------------

// api.md on Executor::drop: done callbacks run with `Cancelled`, those of background and cancelled tasks included.
#[test]
fn done_callbacks_run_with_cancelled() {
    let ex = Executor::new();
    let trace = Trace::new();
    let plain = ex.task().name("plain").spawn(pending::<()>());
    let background = ex
        .task()
        .name("background")
        .background()
        .spawn(pending::<()>());
    let cancelled = ex.task().name("cancelled").spawn(pending::<()>());
    for handle in [&plain, &background, &cancelled] {
        for i in 1..=2 {
            let trace = trace.clone();
            handle.add_done_callback(move |completion| {
                assert!(matches!(completion.outcome(), Outcome::Cancelled));
                trace.push(format!("{} {i}", completion.task().name()));
            });
        }
    }
    ex.run_until_stalled();
    assert!(cancelled.cancel());
    drop(ex);
    let mut labels = trace.labels();
    for name in ["plain", "background", "cancelled"] {
        let of_task: Vec<&String> = labels.iter().filter(|l| l.starts_with(name)).collect();
        assert_eq!(of_task, [&format!("{name} 1"), &format!("{name} 2")]);
    }
    labels.retain(|label| !label.starts_with("cancelled"));
    assert_eq!(
        labels,
        ["plain 1", "plain 2", "background 1", "background 2"],
        "in spawn order"
    );
}

// P3: a done callback that panics while the executor is dropped.
#[test]
fn a_done_callback_that_panics_at_the_end_is_reported() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let trace = Trace::new();
    let handle = ex.task().background().spawn(pending::<()>());
    handle.add_done_callback(|_| panic!("boom in a callback"));
    let second = trace.clone();
    handle.add_done_callback(move |_| second.push("second"));
    drop(ex);
    trace.assert(&["second"]);
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::Callback);
    assert_eq!(report.exception.as_deref(), Some("boom in a callback"));
}

// P6: a done callback spawns, cancels and looks round while the executor is dropped.
#[test]
fn a_done_callback_may_use_the_dying_executor() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    let other = ex.task().background().spawn(pending::<()>());
    let cancel = other.cancel_handle();
    let spawned = Rc::new(RefCell::new(None));
    let handle = ex.task().background().spawn(pending::<()>());
    let (ex_handle, guard) = (ex.handle(), log.guard("spawned"));
    let keep = Rc::clone(&spawned);
    handle.add_done_callback(move |_| {
        cancel.cancel();
        check_stats(&ex_handle.stats());
        drop(ex_handle.tasks());
        let refused = ex_handle.spawn(holding(guard, async { unreachable!("never polled") }));
        *keep.borrow_mut() = Some(refused);
    });
    drop(ex);
    log.assert(&["spawned"]);
    let spawned = spawned.take().expect("the callback ran");
    assert!(spawned.is_cancelled());
    assert!(other.is_cancelled());
    drop(recorder);
}

// ---------------------------------------------------------------------------------------------------------------------
// Handles that live longer
// ---------------------------------------------------------------------------------------------------------------------

// api.md on JoinHandle; async-executor drop::await_task_after_dropping_executor.
#[test]
fn a_pending_task_comes_out_as_cancelled_after_its_executor() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let mut handle = ex.spawn(pending::<u8>());
    let mut awaited = ex.spawn(pending::<u8>());
    ex.run_until_stalled();
    drop(ex);
    assert!(handle.is_finished() && handle.is_cancelled());
    assert!(!handle.cancel(), "it has ended");
    let error = handle.result().expect("it has ended").expect_err("badly");
    assert!(error.is_cancelled() && !error.is_panic());
    let Poll::Ready(Err(error)) = poll_once(&mut awaited) else {
        panic!("it is ready and cancelled");
    };
    assert!(error.is_cancelled());
    assert_eq!(recorder.len(), 2);
}

// api.md on JoinHandle; async-executor drop::drop_executor_and_then_drop_finished_task.
#[test]
fn a_finished_task_keeps_its_outcome_after_its_executor() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    let output = log.guard("read");
    let mut returned = ex.spawn(async move { output });
    let output = log.guard("unread");
    let unread = ex.spawn(async move { output });
    let mut failed = ex.spawn(async { panic!("boom in a task") });
    let mut cancelled = ex.spawn(pending::<()>());
    assert!(cancelled.cancel_with_reason("not needed"));
    ex.run_until_stalled();
    drop(ex);
    assert_eq!(log.len(), 0, "outputs stay with their handles");

    let guard = returned.result().expect("finished").expect("well");
    drop(guard);
    log.assert(&["read"]);
    drop(unread);
    log.assert(&["read", "unread"]);
    let error = failed.result().expect("finished").expect_err("badly");
    assert!(error.is_panic());
    assert_eq!(
        error.into_panic().downcast_ref::<&str>(),
        Some(&"boom in a task")
    );
    let error = cancelled.result().expect("finished").expect_err("badly");
    assert_eq!(error.reason(), Some("not needed"));
    assert_eq!(recorder.len(), 1, "the failure, when it happened");
}

// async-executor drop::await_task_after_dropping_executor: somebody waits at that moment.
#[test]
fn the_end_of_an_executor_wakes_those_who_await_its_tasks() {
    let dying = Executor::new();
    let living = Executor::new();
    let handle = dying.task().background().spawn(pending::<()>());
    let mut awaiter = living.spawn(handle);
    living.run_until_stalled();
    dying.run_until_stalled();
    assert!(!awaiter.is_finished());
    drop(dying);
    living.run_until_stalled();
    let result = awaiter.result().expect("finished").expect("it returns");
    assert!(result.expect_err("what it awaited was").is_cancelled());
}

// P3: the waker of somebody who waits panics while the executor is dropped.
#[test]
fn an_awaiter_whose_waker_panics_hinders_no_teardown() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    let mut handle = ex.task().background().spawn(pending::<()>());
    let count = WakeCount::panicking_on_wake();
    let waker = std::task::Waker::from(std::sync::Arc::clone(&count));
    assert!(poll_with(&mut handle, &waker).is_pending());
    ex.task()
        .background()
        .spawn(holding(log.guard("other"), pending::<()>()))
        .detach();
    drop(ex);
    assert_eq!(count.wakes(), 1);
    log.assert(&["other"]);
    assert!(handle.is_cancelled());
    assert_eq!(recorder.exceptions(), ["boom in wake"]);
}

// B058, B069; api.md: on a dropped executor, spawning gives a handle that reads as cancelled.
#[test]
fn spawning_on_a_dropped_executor_drops_the_future_unpolled() {
    let ex = Executor::<'static>::new();
    let local = ex.handle();
    drop(ex);
    let log = DropLog::new();
    let never = || async { unreachable!("never polled") };
    let mut plain = local.spawn(holding(log.guard("plain"), never()));
    log.assert(&["plain"]);
    let fallible = local.spawn_fallible(holding(log.guard("fallible"), async {
        Err::<(), _>("never polled")
    }));
    let named = local
        .task()
        .name("late")
        .spawn(holding(log.guard("named"), never()));
    log.assert(&["plain", "fallible", "named"]);
    assert!(plain.is_finished() && plain.is_cancelled());
    assert!(fallible.is_cancelled() && named.is_cancelled());
    assert!(!plain.cancel() && !plain.cancel_handle().cancel());
    // Reading: the handle of a refused task has an id and a name like any other.
    assert_eq!(named.name(), "late");
    assert_ne!(named.id(), plain.id());
    assert!(plain.result().expect("it has ended").is_err());
}

// B069: everything else that a handle of a dropped executor offers.
#[test]
fn the_handle_of_a_dropped_executor_is_harmless() {
    let ex = Executor::<'static>::new();
    let local = ex.handle();
    ex.task().background().spawn(pending::<()>()).detach();
    drop(ex);
    assert!(local.tasks().is_empty());
    check_stats(&local.stats());
    assert_eq!(local.stats().live, 0);
    local.stop();
    local.stop_with(Box::new("nobody is told"));
    local.set_exception_handler(|_, _| {});
    local.clear_exception_handler();
    assert!(!format!("{local:?}").is_empty());
    let clone = local.clone();
    // Nothing is live, so there is nothing to wait for.
    assert!(poll_once(&mut Box::pin(clone.idle())).is_ready());
    drop((local, clone));
}

// B022: the report of a user is told although the executor is gone.
#[test]
fn a_report_through_the_handle_of_a_dropped_executor_reaches_the_default_handler() {
    let log = captured_log();
    let ex = Executor::<'static>::new();
    let local = ex.handle();
    drop(ex);
    // Reading: no failure is silent, so with no handler left it is the default handler's.
    local.call_exception_handler(&ExceptionContext::new("told late").build());
    assert!(log.only().text.contains("told late"));
}

// B068; P6: dropping handles and wakers of all kinds after their executor, in any order.
#[test]
fn handles_of_every_kind_may_be_dropped_after_their_executor() {
    let ex = Executor::<'static>::new();
    let probe = Probe::new();
    let join = ex.task().background().spawn(probe.task());
    let cancel = join.cancel_handle();
    let guarded = ex
        .task()
        .background()
        .spawn(pending::<()>())
        .cancel_on_drop();
    let local = ex.handle();
    let builder_name = ex.task().name("never spawned");
    drop(builder_name);
    ex.run_until_stalled();
    let waker = probe.waker();
    drop(ex);
    drop(cancel);
    drop(join);
    drop(guarded);
    drop(local);
    drop(waker);
    assert_eq!(probe.polls(), 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// What destructors may do meanwhile
// ---------------------------------------------------------------------------------------------------------------------

// tokio runtime/tests/task.rs::spawn_during_shutdown; compio: spawning from a destructor tripped an assertion.
#[test]
fn a_destructor_may_spawn_and_what_it_spawns_is_dropped_unpolled() {
    let ex = Executor::<'static>::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    let handles = Rc::new(RefCell::new(Vec::new()));
    for i in 0..5 {
        let (local, log, handles) = (ex.handle(), log.clone(), Rc::clone(&handles));
        let name = format!("spawned-{i}");
        let guard = on_drop(move || {
            let late = holding(log.guard(name), async { unreachable!("never polled") });
            handles.borrow_mut().push(local.spawn(late));
        });
        ex.task()
            .background()
            .spawn(holding(guard, pending::<()>()))
            .detach();
    }
    ex.run_until_stalled();
    drop(ex);
    assert_eq!(
        log.names(),
        [
            "spawned-0",
            "spawned-1",
            "spawned-2",
            "spawned-3",
            "spawned-4"
        ]
    );
    let handles: Vec<JoinHandle<()>> = handles.take();
    assert_eq!(handles.len(), 5);
    assert!(handles.iter().all(JoinHandle::is_cancelled));
    drop(recorder);
}

// P6: destructors cancel tasks that went before them, that come after them, and their own.
#[test]
fn a_destructor_may_cancel_earlier_later_and_its_own_task() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    let cancels: Rc<RefCell<Vec<CancelHandle>>> = Rc::default();
    let mut handles = Vec::new();
    for i in 0..5 {
        let theirs = Rc::clone(&cancels);
        let guard = on_drop(move || {
            let cancels = theirs.borrow().clone();
            for cancel in cancels {
                cancel.cancel();
            }
        });
        let body = holding((log.guard(i.to_string()), guard), pending::<()>());
        handles.push(ex.task().name(format!("task-{i}")).spawn(body));
    }
    cancels
        .borrow_mut()
        .extend(handles.iter().map(JoinHandle::cancel_handle));
    ex.run_until_stalled();
    drop(ex);
    let mut names = log.names();
    names.sort();
    assert_eq!(names, ["0", "1", "2", "3", "4"], "each is dropped once");
    assert!(handles.iter().all(JoinHandle::is_cancelled));
    // Those that a destructor cancelled in time need not be reported; the first one was pending.
    let reported = recorder.tasks();
    assert_eq!(reported.iter().filter(|name| *name == "task-0").count(), 1);
    for name in &reported {
        assert_eq!(reported.iter().filter(|other| *other == name).count(), 1);
    }
}

// P6: a destructor reports through the executor that is being dropped.
#[test]
fn a_destructor_may_report() {
    let ex = Executor::<'static>::new();
    let recorder = Recorder::on(&ex);
    let local = ex.handle();
    let guard = on_drop(move || {
        let context = ExceptionContext::new("not flushed").build();
        local.call_exception_handler(&context);
    });
    ex.task()
        .background()
        .spawn(holding(guard, pending::<()>()))
        .detach();
    ex.run_until_stalled();
    drop(ex);
    assert_eq!(recorder.only().message, "not flushed");
}

// tokio task_local_set::acquire_mutex_in_drop and rt_basic::acquire_mutex_in_drop.
#[test]
fn a_destructor_may_set_what_another_task_waits_for() {
    let ex = Executor::new();
    let trace = Trace::new();
    let event = Event::new();
    for i in 0..3 {
        let (event, trace) = (event.clone(), trace.clone());
        ex.task()
            .background()
            .spawn(async move {
                event.wait().await;
                trace.push(format!("resumed {i}"));
            })
            .detach();
    }
    let setter = event.clone();
    ex.task()
        .background()
        .spawn(holding(on_drop(move || setter.set()), pending::<()>()))
        .detach();
    for i in 3..6 {
        let (event, trace) = (event.clone(), trace.clone());
        ex.task()
            .background()
            .spawn(async move {
                event.wait().await;
                trace.push(format!("resumed {i}"));
            })
            .detach();
    }
    ex.run_until_stalled();
    drop(ex);
    trace.assert(&[]);
}

// P6: a destructor drops the handles of other tasks, replaces the handler and looks round.
#[test]
fn a_destructor_may_use_everything_that_a_handle_offers() {
    let ex = Executor::<'static>::new();
    let first = Recorder::on(&ex);
    let second = Recorder::new();
    let held: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
    let (local, theirs, replacement) = (ex.handle(), Rc::clone(&held), second.clone());
    let guard = on_drop(move || {
        check_stats(&local.stats());
        assert!(!format!("{local:?} {:?}", local.tasks()).is_empty());
        drop(theirs.take());
        local.set_exception_handler(move |_, context| replacement.record(context));
        local.stop();
        drop(local.clone().idle());
    });
    ex.task()
        .background()
        .spawn(holding(guard, pending::<()>()))
        .detach();
    for name in ["a", "b"] {
        let handle = ex.task().name(name).spawn(pending::<()>());
        held.borrow_mut().push(handle);
    }
    ex.run_until_stalled();
    drop(ex);
    assert!(first.is_empty());
    assert_eq!(second.tasks(), ["a", "b"]);
}

// P3; futures LocalPool leaks the siblings, async-executor and compio abort.
#[test]
fn a_panicking_destructor_stops_no_sibling() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    for name in ["a", "b", "c", "d"] {
        let mut guard = log.guard(name);
        if name == "b" || name == "c" {
            guard = guard.panics(format!("boom in {name}"));
        }
        ex.task()
            .name(name)
            .spawn(holding(guard, pending::<()>()))
            .detach();
    }
    ex.run_until_stalled();
    drop(ex);
    log.assert(&["a", "b", "c", "d"]);
    let exceptions = recorder.exceptions();
    for message in ["boom in b", "boom in c"] {
        let told = exceptions.iter().filter(|told| *told == message).count();
        assert_eq!(told, 1, "{message}, once");
    }
    let destroyed = recorder
        .reports()
        .into_iter()
        .filter(|report| report.kind == ContextKind::DestroyedPending)
        .filter_map(|report| report.task)
        .collect::<Vec<_>>();
    for name in ["a", "d"] {
        let told = destroyed.iter().filter(|told| *told == name).count();
        assert_eq!(told, 1, "{name}, once");
    }
}

// P3: what remains of a half-dropped task is still dropped.
#[test]
fn what_remains_of_a_half_dropped_task_is_dropped() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    let held = (
        log.guard("before"),
        log.guard("panics").panics("boom in the middle"),
        log.guard("after"),
    );
    ex.task()
        .background()
        .spawn(holding(held, pending::<()>()))
        .detach();
    drop(ex);
    log.assert(&["before", "panics", "after"]);
    assert_eq!(recorder.exceptions(), ["boom in the middle"]);
}

// compio #888, #901 and #913: dropping the executor while unwinding leaked all futures.
#[test]
fn an_executor_dropped_while_unwinding_drops_and_reports_everything() {
    quiet();
    let recorder = Recorder::new();
    let log = DropLog::new();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let ex = Executor::new();
        recorder.install(&ex);
        for name in ["a", "b"] {
            ex.task()
                .name(name)
                .spawn(holding(log.guard(name), pending::<()>()))
                .detach();
        }
        ex.run_until_stalled();
        panic!("boom outside");
    }));
    assert!(result.is_err());
    log.assert(&["a", "b"]);
    assert_eq!(recorder.tasks(), ["a", "b"]);
}

// P3: destructors panic while the thread is unwinding already; each is dropped under a catch of its own.
#[test]
fn destructors_may_panic_while_the_executor_is_dropped_by_a_panic() {
    quiet();
    let recorder = Recorder::new();
    let log = DropLog::new();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let ex = Executor::new();
        recorder.install(&ex);
        for name in ["a", "b"] {
            let guard = log
                .guard(name)
                .panics_while_unwinding(format!("boom in {name}"));
            ex.task()
                .background()
                .spawn(holding(guard, pending::<()>()))
                .detach();
        }
        ex.spawn(holding(log.guard("c"), pending::<()>())).detach();
        panic!("boom outside");
    }));
    let payload = result.expect_err("the panic goes on");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"boom outside"));
    log.assert(&["a", "b", "c"]);
    let exceptions = recorder.exceptions();
    assert!(
        exceptions.contains(&"boom in a".to_owned()),
        "{exceptions:?}"
    );
    assert!(
        exceptions.contains(&"boom in b".to_owned()),
        "{exceptions:?}"
    );
}

// tokio rt_basic::wake_in_drop_after_panic.
#[test]
fn destructors_may_wake_each_other_after_the_root_panicked() {
    quiet();
    let probes = [Probe::new(), Probe::new()];
    let theirs = probes.clone();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let ex = Executor::new();
        for (me, other) in [(0, 1), (1, 0)] {
            let other = theirs[other].clone();
            let guard = on_drop(move || other.wake());
            ex.task()
                .background()
                .spawn(holding(guard, theirs[me].task()))
                .detach();
        }
        ex.block_on(async {
            mainstay::yield_now().await;
            mainstay::yield_now().await;
            panic!("boom in the root");
        });
    }));
    assert!(result.is_err());
    assert!(probes.iter().all(|probe| probe.polls() == 1));
}

// tokio rt_basic::drop_tasks_in_context: whatever a destructor finds as the current executor, using it does no harm.
#[test]
fn a_destructor_may_look_for_the_current_executor() {
    let ex = Executor::<'static>::new();
    let trace = Trace::new();
    let spawned = Rc::new(RefCell::new(None));
    let (seen, keep) = (trace.clone(), Rc::clone(&spawned));
    let guard = on_drop(move || {
        // Reading: a dying executor may or may not be current; a task spawned on it is dropped unpolled.
        if let Some(current) = LocalHandle::try_current() {
            let never = async { unreachable!("never polled") };
            *keep.borrow_mut() = Some(current.spawn(never));
        }
        seen.push("dropped");
    });
    ex.task()
        .background()
        .spawn(holding(guard, pending::<()>()))
        .detach();
    ex.run_until_stalled();
    drop(ex);
    trace.assert(&["dropped"]);
    let spawned: Option<JoinHandle<()>> = spawned.take();
    assert!(spawned.is_none_or(|spawned| spawned.is_cancelled()));
}

// P6: an executor is dropped by a task of another one, and by a destructor while that other one is dropped.
#[test]
fn an_executor_may_be_dropped_within_another() {
    let log = DropLog::new();
    let inner = |name: &str| {
        let ex = Executor::<'static>::new();
        ex.task()
            .background()
            .spawn(holding(log.guard(name), pending::<()>()))
            .detach();
        ex.run_until_stalled();
        ex
    };
    let (first, second) = (inner("first"), inner("second"));
    let outer = Executor::new();
    let after = log.guard("after");
    outer
        .spawn(async move {
            drop(first);
            mainstay::yield_now().await;
            drop(after);
        })
        .detach();
    outer
        .task()
        .background()
        .spawn(holding(second, pending::<()>()))
        .detach();
    outer.run_until_stalled();
    log.assert(&["first", "after"]);
    drop(outer);
    log.assert(&["first", "after", "second"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Cycles
// ---------------------------------------------------------------------------------------------------------------------

// tokio rt_handle::drop_tasks_with_reference_cycle.
#[test]
fn tasks_that_hold_each_others_handles_are_dropped() {
    let ex = Executor::new();
    let log = DropLog::new();
    let slots: [Rc<RefCell<Option<JoinHandle<()>>>>; 2] = Default::default();
    for (me, other) in [(0, 1), (1, 0)] {
        let (guard, other) = (log.guard(me.to_string()), Rc::clone(&slots[other]));
        let handle = ex.task().background().spawn(async move {
            let _guard = guard;
            mainstay::yield_now().await;
            let other = other.take().expect("stored before the first pass");
            drop(other.await);
        });
        *slots[me].borrow_mut() = Some(handle);
    }
    ex.run_until_stalled();
    assert_eq!(log.len(), 0, "each waits for the other");
    drop(slots);
    drop(ex);
    assert_eq!(log.len(), 2);
}

// tokio rt_handle::drop_tasks_with_reference_cycle: a task that holds everything there is about itself.
#[test]
fn a_task_that_holds_its_own_handles_is_dropped() {
    let ex = Executor::<'static>::new();
    let log = DropLog::new();
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let probe = Probe::new();
    let held = (
        log.guard("task"),
        Rc::clone(&own),
        ex.handle(),
        probe.clone(),
    );
    let handle = ex.task().background().spawn(holding(held, probe.task()));
    *own.borrow_mut() = Some(handle);
    drop(own);
    ex.run_until_stalled();
    let local = ex.handle();
    ex.set_exception_handler(move |_, _| drop(local.tasks()));
    drop(ex);
    log.assert(&["task"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Chains
// ---------------------------------------------------------------------------------------------------------------------

const CHAIN: usize = 100_000;

/// Spawns [`CHAIN`] tasks, each of which cancels the next one in its destructor, and gives the handle of the first.
fn cancel_chain(ex: &Executor<'static>, dropped: &Rc<Cell<usize>>) -> JoinHandle<()> {
    let mut next: Option<JoinHandle<()>> = None;
    for _ in 0..CHAIN {
        let count = Rc::clone(dropped);
        let guard = on_drop(move || {
            count.set(count.get() + 1);
            if let Some(next) = next {
                next.cancel();
            }
        });
        next = Some(
            ex.task()
                .background()
                .spawn(holding(guard, pending::<()>())),
        );
    }
    next.expect("the chain is not empty")
}

// Design section 5: drops never recurse.
#[test]
fn a_chain_of_destructors_that_cancel_does_not_overflow_in_a_drive() {
    let ex = Executor::new();
    let dropped = Rc::new(Cell::new(0));
    let first = cancel_chain(&ex, &dropped);
    ex.run_until_stalled();
    let seen = Rc::clone(&dropped);
    ex.block_on(async {
        assert!(first.cancel());
        assert_eq!(
            seen.get(),
            CHAIN,
            "gone before the outermost cancel returns"
        );
    });
    assert!(ex.is_empty());
    check_accounting(&ex);
}

// Design section 5: drops never recurse.
#[test]
fn a_chain_of_destructors_that_cancel_does_not_overflow_at_the_end() {
    let ex = Executor::new();
    let dropped = Rc::new(Cell::new(0));
    let last_spawned = cancel_chain(&ex, &dropped);
    drop(ex);
    assert_eq!(dropped.get(), CHAIN);
    assert!(last_spawned.is_cancelled());

    // And cancelled from its head while nothing drives the executor, then by its end.
    let ex = Executor::new();
    let dropped = Rc::new(Cell::new(0));
    assert!(cancel_chain(&ex, &dropped).cancel());
    drop(ex);
    assert_eq!(dropped.get(), CHAIN);
}

// Design section 5: drops never recurse; each task owns the next one through a handle that cancels when dropped.
#[test]
fn a_chain_of_handles_that_cancel_on_drop_does_not_overflow() {
    for driven in [true, false] {
        let ex = Executor::<'static>::new();
        let dropped = Rc::new(Cell::new(0));
        let mut next = None;
        for _ in 0..CHAIN {
            let count = Rc::clone(&dropped);
            let guard = on_drop(move || count.set(count.get() + 1));
            let body = holding((guard, next), pending::<()>());
            next = Some(ex.task().background().spawn(body).cancel_on_drop());
        }
        if driven {
            ex.block_on(async { drop(next) });
            assert_eq!(dropped.get(), CHAIN);
        } else {
            drop(next);
        }
        drop(ex);
        assert_eq!(dropped.get(), CHAIN);
    }
}

/// A future that is never polled: its destructor spawns the next one, `left` times.
struct Respawn {
    local: LocalHandle<'static>,
    left: usize,
    dropped: Rc<Cell<usize>>,
}

impl Future for Respawn {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Drop for Respawn {
    fn drop(&mut self) {
        self.dropped.set(self.dropped.get() + 1);
        if self.left > 0 {
            let next = Respawn {
                local: self.local.clone(),
                left: self.left - 1,
                dropped: Rc::clone(&self.dropped),
            };
            self.local.spawn(next).detach();
        }
    }
}

// Design section 5: drops never recurse; a spawn on a closed executor drops its future.
#[test]
fn a_chain_of_destructors_that_spawn_on_the_dying_executor_does_not_overflow() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let dropped = Rc::new(Cell::new(0));
    let first = Respawn {
        local: ex.handle(),
        left: CHAIN - 1,
        dropped: Rc::clone(&dropped),
    };
    ex.task().background().spawn(first).detach();
    ex.run_until_stalled();
    drop(ex);
    assert_eq!(dropped.get(), CHAIN);
    drop(recorder);
}

// Design section 5: the same on one that is closed already, so that the outermost drop is that of the first spawn.
#[test]
fn a_chain_of_destructors_that_spawn_on_a_dropped_executor_does_not_overflow() {
    let ex = Executor::new();
    // A handle that spawns what borrows nothing: what may borrow is dropped in place, by the call that names its lifetime.
    let local = ex.block_on(async { LocalHandle::current() });
    drop(ex);
    let dropped = Rc::new(Cell::new(0));
    let first = Respawn {
        local: local.clone(),
        left: CHAIN - 1,
        dropped: Rc::clone(&dropped),
    };
    local.spawn(first).detach();
    assert_eq!(
        dropped.get(),
        CHAIN,
        "gone before the outermost spawn returns"
    );
}

// Design section 5: drops never recurse, on an open executor either: each destructor spawns and cancels the next one.
#[test]
fn a_chain_of_destructors_that_spawn_and_cancel_does_not_overflow() {
    struct Next {
        left: usize,
        dropped: Rc<Cell<usize>>,
    }
    impl Drop for Next {
        fn drop(&mut self) {
            self.dropped.set(self.dropped.get() + 1);
            if self.left > 0 {
                let next = Next {
                    left: self.left - 1,
                    dropped: Rc::clone(&self.dropped),
                };
                mainstay::spawn(holding(next, pending::<()>())).cancel();
            }
        }
    }
    let ex = Executor::new();
    let dropped = Rc::new(Cell::new(0));
    let count = Rc::clone(&dropped);
    ex.block_on(async {
        let left = CHAIN - 1;
        let first = Next { left, dropped };
        mainstay::spawn(holding(first, pending::<()>())).cancel();
        assert_eq!(
            count.get(),
            CHAIN,
            "gone before the outermost cancel returns"
        );
    });
    assert!(ex.is_empty());
    check_accounting(&ex);
}

// tokio task_local_set::drop_cancels_remote_tasks (1885): dropping the LocalSet never ended.
#[test]
fn destructors_that_spawn_for_ever_do_not_hang_the_end_1885() {
    let test = "teardown::destructors_that_spawn_for_ever_do_not_hang_the_end_1885";
    in_child_ok(test, &LEAKS, || {
        without_hanging(|| {
            let log = captured_log();
            let ex = Executor::new();
            let dropped = Rc::new(Cell::new(0));
            let endless = Respawn {
                local: ex.handle(),
                left: usize::MAX,
                dropped: Rc::clone(&dropped),
            };
            ex.task().background().spawn(endless).detach();
            let sibling = DropLog::new();
            ex.task()
                .background()
                .spawn(holding(sibling.guard("sibling"), pending::<()>()))
                .detach();
            ex.run_until_stalled();
            drop(ex);
            assert!(dropped.get() >= 1);
            sibling.assert(&["sibling"]);
            assert!(!log.records().is_empty(), "what is leaked is reported");
        });
    });
}

// Design section 5: capped on an executor that was closed before, too.
#[test]
fn destructors_that_spawn_for_ever_do_not_hang_a_late_spawn() {
    let test = "teardown::destructors_that_spawn_for_ever_do_not_hang_a_late_spawn";
    in_child_ok(test, &LEAKS, || {
        without_hanging(|| {
            let ex = Executor::new();
            // A handle that spawns what borrows nothing: what may borrow is dropped in place, by the call that names its lifetime.
            let local = ex.block_on(async { LocalHandle::current() });
            drop(ex);
            let endless = Respawn {
                local: local.clone(),
                left: usize::MAX,
                dropped: Rc::default(),
            };
            local.spawn(endless).detach();
        });
    });
}

// tokio task_local_set 1885: a handler that spawns at every report ends with the executor, too.
#[test]
fn a_handler_that_spawns_at_every_report_does_not_hang_the_end() {
    without_hanging(|| {
        let ex = Executor::new();
        let reports = Rc::new(Cell::new(0_usize));
        let count = Rc::clone(&reports);
        ex.set_exception_handler(move |handle, _| {
            count.set(count.get() + 1);
            handle.spawn(pending::<()>()).detach();
        });
        ex.spawn(pending::<()>()).detach();
        ex.spawn(pending::<()>()).detach();
        drop(ex);
        assert!(reports.get() >= 2);
    });
}

// tokio task_local_set 1885: two tasks that wake each other whenever they are dropped or woken.
#[test]
fn destructors_that_wake_for_ever_do_not_hang_the_end_1885() {
    without_hanging(|| {
        let ex = Executor::new();
        let probes: Vec<Probe> = (0..3).map(|_| Probe::new()).collect();
        for probe in &probes {
            let all = probes.clone();
            let guard = on_drop(move || {
                for probe in &all {
                    probe.wake();
                    probe.wake();
                }
            });
            ex.task()
                .background()
                .spawn(holding(guard, probe.task()))
                .detach();
        }
        ex.run_until_stalled();
        probes.iter().for_each(Probe::wake);
        drop(ex);
        assert!(probes.iter().all(|probe| probe.polls() == 1));
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Thread-locals
// ---------------------------------------------------------------------------------------------------------------------

thread_local! {
    static HOME: RefCell<Option<Executor<'static>>> = const { RefCell::new(None) };
    static LATE: LateHandle = const { LateHandle(RefCell::new(None)) };
}

/// Uses the handle left in it while the thread's locals are destroyed.
struct LateHandle(RefCell<Option<(LocalHandle<'static>, JoinHandle<()>)>>);

impl Drop for LateHandle {
    fn drop(&mut self) {
        if let Some((local, join)) = self.0.take() {
            local.spawn(pending::<()>()).detach();
            check_stats(&local.stats());
            join.cancel();
            drop(join);
        }
    }
}

// tokio rt_common::runtime_in_thread_local, task_local_set::localset_in_thread_local.
#[test]
fn an_executor_in_a_thread_local_is_torn_down_with_its_thread() {
    let log = DropLog::new();
    let theirs = log.clone();
    thread::spawn(move || {
        HOME.with_borrow_mut(|home| {
            let ex = home.insert(Executor::new());
            // No handler: the default one tells of them, in the destructor of a thread-local.
            for name in ["a", "b"] {
                ex.spawn(holding(theirs.guard(name), pending::<()>()))
                    .detach();
            }
            ex.block_on(yield_n(2));
        });
    })
    .join()
    .expect("the thread ends well");
    assert_eq!(log.names(), ["a", "b"]);
}

// tokio task_local_set::store_local_set_in_thread_local_with_runtime, in both orders of destruction.
#[test]
fn handles_in_a_thread_local_may_go_before_or_after_their_executor() {
    for handle_first in [true, false] {
        let log = DropLog::new();
        let theirs = log.clone();
        thread::spawn(move || {
            if handle_first {
                LATE.with(|_| ());
            }
            HOME.with_borrow_mut(|home| {
                let ex = home.insert(Executor::new());
                let local = ex.handle();
                let body = holding(theirs.guard("task"), pending::<()>());
                let join = ex.task().background().spawn(body);
                ex.run_until_stalled();
                LATE.with(|late| *late.0.borrow_mut() = Some((local, join)));
            });
        })
        .join()
        .expect("the thread ends well");
        assert_eq!(log.names(), ["task"]);
    }
}

// tokio rt_common::runtime_in_thread_local: destructors that spawn, wake and drive while the thread ends.
#[test]
fn destructors_in_a_thread_local_executor_may_use_it() {
    let log = DropLog::new();
    let theirs = log.clone();
    thread::spawn(move || {
        HOME.with_borrow_mut(|home| {
            let ex = home.insert(Executor::new());
            let (local, log, probe) = (ex.handle(), theirs.clone(), Probe::new());
            let woken = probe.clone();
            let guard = on_drop(move || {
                woken.wake();
                local
                    .spawn(holding(log.guard("spawned"), async {
                        unreachable!("never polled")
                    }))
                    .detach();
                // An executor of its own, in the destructor of a thread-local.
                Executor::new().block_on(yield_n(2));
                drop(log.guard("dropped"));
            });
            ex.task()
                .background()
                .spawn(holding(guard, probe.task()))
                .detach();
            ex.run_until_stalled();
        });
    })
    .join()
    .expect("the thread ends well");
    let mut names = log.names();
    names.sort();
    assert_eq!(names, ["dropped", "spawned"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Executors that are never dropped
// ---------------------------------------------------------------------------------------------------------------------

// Design section 7: handles of a leaked executor go on to answer, and what they cannot do they leave undone.
#[test]
fn the_handles_of_a_leaked_executor_may_be_used() {
    let log = DropLog::new();
    let ex = Executor::<'static>::new();
    let probe = Probe::new();
    let mut pending_one = ex.spawn(holding(log.guard("pending"), probe.task()));
    let output = log.guard("output");
    let mut finished = ex.spawn(async move { output });
    ex.run_until_stalled();
    let local = ex.handle();
    let waker = probe.waker();
    crate::borrowed::leak(ex);

    probe.finish();
    waker.wake();
    assert_eq!(probe.polls(), 1, "nobody drives it");
    assert!(pending_one.result().is_err(), "it is still pending");
    assert!(pending_one.cancel());
    assert!(!pending_one.is_finished());
    assert_eq!(
        log.len(),
        0,
        "the cancel waits for a drive that never comes"
    );
    let late = local.spawn(holding(log.guard("late"), async {}));
    assert!(!late.is_finished());
    assert_eq!(check_stats(&local.stats()).live, 2);
    drop(late);
    drop(pending_one);
    assert_eq!(log.len(), 0);
    drop(finished.result().expect("it had finished").expect("well"));
    log.assert(&["output"]);
}
