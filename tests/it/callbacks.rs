//! Done callbacks: on the loop and never inline, in the order of adding, before the outcome can be taken, whatever happens to
//! the handle (api.md, JoinHandle; behaviours.md 2.5; design section 6).

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;

use mainstay::{
    CallbackId, Completion, ContextKind, Executor, JoinHandle, LocalHandle, Outcome, ReportPolicy,
};

use crate::support::{
    DropLog, Event, Fault, Recorder, Trace, check_accounting, counts, holding, on_drop, poll_once,
    quiet, yield_n,
};

type Stash<T> = Rc<RefCell<Option<JoinHandle<T>>>>;

/// Adds a callback that pushes `label` to `trace`.
fn trace_on<T>(handle: &JoinHandle<T>, trace: &Trace, label: &str) -> CallbackId {
    let (trace, label) = (trace.clone(), label.to_owned());
    handle.add_done_callback(move |_| trace.push(label))
}

fn outcome(completion: &Completion<'_>) -> String {
    match completion.outcome() {
        Outcome::Returned => "returned".to_owned(),
        Outcome::Failed(exception) => format!("failed: {}", exception.message()),
        Outcome::Cancelled => "cancelled".to_owned(),
        _ => "unknown".to_owned(),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// When and in which order
// ---------------------------------------------------------------------------------------------------------------------

/// B042: callbacks run in the order of adding.
#[test]
fn callbacks_run_in_the_order_of_adding() {
    let ex = Executor::new();
    let trace = Trace::new();
    let handle = ex.spawn(yield_n(1));
    for label in ["c1", "c2", "c1", "c3"] {
        trace_on(&handle, &trace, label);
    }
    trace.assert(&[]);
    ex.run_until_stalled();
    // What was added twice runs twice.
    trace.assert(&["c1", "c2", "c1", "c3"]);
}

/// B042: they run after the step that completed the task, future's destructor included, and never inside it.
#[test]
fn callbacks_run_after_the_step_that_completed_the_task() {
    let ex = Executor::new();
    let trace = Trace::new();
    let dropped = on_drop({
        let trace = trace.clone();
        move || trace.push("future dropped")
    });
    let handle = ex.spawn(holding(dropped, {
        let trace = trace.clone();
        async move {
            yield_n(1).await;
            trace.push("last step");
        }
    }));
    trace_on(&handle, &trace, "callback");
    ex.run_until_stalled();
    trace.assert(&["last step", "future dropped", "callback"]);
}

/// B056: the callbacks of a task come before its awaiter, though the awaiter was there first.
#[test]
fn callbacks_run_before_the_awaiter_goes_on() {
    let ex = Executor::new();
    let trace = Trace::new();
    let event = Event::new();
    let stash: Stash<u32> = Rc::default();
    stash.replace(Some(ex.spawn({
        let event = event.clone();
        async move {
            event.wait().await;
            7
        }
    })));
    let awaiter = ex.spawn({
        let (stash, trace) = (Rc::clone(&stash), trace.clone());
        std::future::poll_fn(move |cx| {
            let mut stash = stash.borrow_mut();
            let handle = stash.as_mut().expect("stored above");
            let polled = std::pin::Pin::new(handle).poll(cx);
            if polled.is_ready() {
                trace.push("awaiter");
            }
            polled
        })
    });
    ex.run_until_stalled();
    for label in ["w1", "w2"] {
        trace_on(
            stash.borrow().as_ref().expect("stored above"),
            &trace,
            label,
        );
    }
    event.set();
    let value = ex.block_on(awaiter).expect("returned").expect("returned");
    assert_eq!(value, 7);
    trace.assert(&["w1", "w2", "awaiter"]);
}

/// Tasks that finish in one pass have their callbacks run in the order of finishing.
#[test]
fn callbacks_of_several_tasks_run_in_the_order_of_finishing() {
    let ex = Executor::new();
    let trace = Trace::new();
    for (label, yields) in [("third", 2), ("first", 1), ("second", 1)] {
        let handle = ex.spawn(yield_n(yields));
        trace_on(&handle, &trace, &format!("{label} a"));
        trace_on(&handle, &trace, &format!("{label} b"));
    }
    ex.run_until_stalled();
    trace.assert(&[
        "first a", "first b", "second a", "second b", "third a", "third b",
    ]);
}

/// B043: one that is added to a finished task is not run inline, but in the next pass, for every ending.
#[test]
fn a_callback_added_to_a_finished_task_runs_in_the_next_pass() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let trace = Trace::new();
    let returned = ex.spawn(async {});
    let failed = ex.spawn(async { panic!("boom") });
    let cancelled = ex.spawn(pending::<()>());
    cancelled.cancel();
    ex.run_until_stalled();
    let failed: JoinHandle<()> = failed;
    for handle in [&returned, &failed, &cancelled] {
        let trace = trace.clone();
        handle.add_done_callback(move |completion| trace.push(outcome(completion)));
    }
    trace.assert(&[]);
    ex.run_until_stalled();
    trace.assert(&["returned", "failed: boom", "cancelled"]);
    check_accounting(&ex);
}

/// B043: the same from within the loop: whoever adds it goes on first.
#[test]
fn a_callback_added_from_a_task_does_not_run_inline() {
    let ex = Executor::new();
    let trace = Trace::new();
    let finished = ex.spawn(async {});
    ex.run_until_stalled();
    ex.spawn({
        let trace = trace.clone();
        async move {
            trace_on(&finished, &trace, "callback");
            trace.push("added");
            yield_n(2).await;
            trace.push("later");
        }
    })
    .detach();
    ex.run_until_stalled();
    trace.assert(&["added", "callback", "later"]);
}

/// behaviours.md 2.5: a callback that adds another one to the same task has it run, later and once.
#[test]
fn a_callback_may_add_another() {
    let ex = Executor::new();
    let trace = Trace::new();
    let stash: Stash<()> = Rc::default();
    let handle = ex.spawn(async {});
    handle.add_done_callback({
        let (stash, trace) = (Rc::clone(&stash), trace.clone());
        move |_| {
            let stash = stash.borrow();
            trace_on(stash.as_ref().expect("stored below"), &trace, "added");
            trace.push("adding");
        }
    });
    trace_on(&handle, &trace, "second");
    stash.replace(Some(handle));
    ex.run_until_stalled();
    trace.assert(&["adding", "second", "added"]);
    stash.take();
}

/// P8: callbacks that add callbacks for ever starve neither a task nor the root.
#[test]
fn a_callback_that_adds_itself_for_ever_starves_nobody() {
    fn again(stash: Stash<()>, calls: Rc<Cell<u32>>) {
        calls.set(calls.get() + 1);
        let next = Rc::clone(&stash);
        let borrowed = stash.borrow();
        if let Some(handle) = borrowed.as_ref() {
            handle.add_done_callback(move |_| again(next, calls));
        }
    }
    let ex = Executor::new();
    let calls = Rc::new(Cell::new(0));
    let stash: Stash<()> = Rc::default();
    stash.replace(Some(ex.spawn(async {})));
    again(Rc::clone(&stash), Rc::clone(&calls));
    let sibling = ex.spawn(yield_n(50));
    ex.block_on(async {
        yield_n(100).await;
        sibling.await.expect("returned");
    });
    assert!(calls.get() > 10, "{} calls", calls.get());
    // End it, or the next drive until stalled would be endless.
    stash.take();
    ex.run_until_stalled();
}

/// api.md: a callback counts as work: `tick` runs it within its budget, and says when there is more.
/// Reading: done callbacks are among the callbacks of that budget, those of a task that has just finished too.
#[test]
fn callbacks_are_within_the_budget_of_a_tick() {
    let ex = Executor::new();
    let trace = Trace::new();
    let handle = ex.spawn(async {});
    for n in 0..4 {
        trace_on(&handle, &trace, &n.to_string());
    }
    // One poll and two callbacks.
    let progress = ex.tick(3);
    assert!(progress.more);
    assert!(trace.len() <= 2, "{:?}", trace.labels());
    let mut ticks = 0;
    while ex.tick(1).more {
        ticks += 1;
        assert!(ticks < 10, "it comes to an end");
    }
    trace.assert(&["0", "1", "2", "3"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// What a callback is given
// ---------------------------------------------------------------------------------------------------------------------

/// api.md, Completion: the task and its outcome, for each of the endings.
#[test]
fn a_callback_is_told_how_the_task_ended() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let trace = Trace::new();
    let look = |handle: &JoinHandle<()>| {
        let (trace, id) = (trace.clone(), handle.id());
        handle.add_done_callback(move |completion| {
            assert_eq!(completion.task().id(), id);
            let file = completion.task().location().file();
            assert!(file.ends_with("callbacks.rs"), "{file}");
            trace.push(format!(
                "{} {}",
                completion.task().name(),
                outcome(completion)
            ));
        });
    };
    let returned = ex.task().name("a").spawn(async {});
    let panicked = ex.task().name("b").spawn(async { panic!("boom") });
    let cancelled = ex.task().name("c").spawn(pending());
    for handle in [&returned, &panicked, &cancelled] {
        look(handle);
    }
    let erred = ex
        .task()
        .name("d")
        .spawn_fallible(async { Err::<(), _>(Fault("no")) });
    erred.add_done_callback({
        let trace = trace.clone();
        move |completion| {
            if let Outcome::Failed(exception) = completion.outcome() {
                assert!(exception.is_error());
                assert_eq!(exception.downcast_ref::<Fault>(), Some(&Fault("no")));
            }
            trace.push(format!(
                "{} {}",
                completion.task().name(),
                outcome(completion)
            ));
        }
    });
    ex.run_until_stalled();
    cancelled.cancel();
    ex.run_until_stalled();
    trace.assert(&[
        "a returned",
        "b failed: boom",
        "d failed: no",
        "c cancelled",
    ]);
}

/// An `Err` of plain `spawn` is a value here too.
#[test]
fn an_err_of_plain_spawn_has_returned() {
    let ex = Executor::new();
    let trace = Trace::new();
    let handle = ex.spawn(async { Err::<(), _>(Fault("no")) });
    handle.add_done_callback({
        let trace = trace.clone();
        move |completion| trace.push(outcome(completion))
    });
    ex.run_until_stalled();
    trace.assert(&["returned"]);
}

/// Design section 6, api.md: in a callback the task is finished, and its outcome cannot be taken yet, returned or failed.
#[test]
fn inside_a_callback_the_outcome_cannot_be_taken() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    for fails in [false, true] {
        let trace = Trace::new();
        let stash: Stash<u32> = Rc::default();
        let handle = ex.spawn(async move {
            if fails {
                panic!("boom");
            }
            7
        });
        handle.add_done_callback({
            let (stash, trace) = (Rc::clone(&stash), trace.clone());
            move |completion| {
                let mut handle = stash.take().expect("stored below");
                trace.push(format!("finished {}", handle.is_finished()));
                trace.push(format!("result {}", handle.result().is_err()));
                trace.push(format!("awaiter {}", poll_once(&mut handle).is_pending()));
                trace.push(outcome(completion));
                stash.replace(Some(handle));
            }
        });
        stash.replace(Some(handle));
        ex.run_until_stalled();
        let last = if fails { "failed: boom" } else { "returned" };
        trace.assert(&["finished true", "result true", "awaiter true", last]);
        let mut handle = stash.take().expect("put back");
        let result = handle.result().expect("published after its callbacks");
        assert_eq!(result.is_err(), fails);
    }
    check_accounting(&ex);
}

/// Design section 6: the last of several callbacks still sees the view, and `result()` still waits for it.
#[test]
fn the_outcome_waits_for_the_last_callback() {
    let ex = Executor::new();
    let trace = Trace::new();
    let stash: Stash<u32> = Rc::default();
    let handle = ex.spawn(async { 7 });
    for n in 0..3 {
        let (stash, trace) = (Rc::clone(&stash), trace.clone());
        handle.add_done_callback(move |_| {
            let mut stash = stash.borrow_mut();
            let taken = stash.as_mut().expect("stored below").result().is_ok();
            trace.push(format!("{n} {taken}"));
        });
    }
    stash.replace(Some(handle));
    ex.run_until_stalled();
    trace.assert(&["0 false", "1 false", "2 false"]);
    let value = stash.take().expect("stored").result().expect("published");
    assert_eq!(value.expect("returned"), 7);
}

/// Design section 6: a callback that drops the task's handle leaves its view whole, under both policies.
#[test]
fn a_view_outlives_the_handle_that_a_callback_drops() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        let ex = Executor::builder().report(policy).build();
        let recorder = Recorder::on(&ex);
        let trace = Trace::new();
        let stash: Stash<Result<(), Fault>> = Rc::default();
        let handle = ex.spawn_fallible(async { Err::<(), _>(Fault("no")) });
        handle.add_done_callback({
            let (stash, trace) = (Rc::clone(&stash), trace.clone());
            move |completion| {
                let Outcome::Failed(exception) = completion.outcome() else {
                    return;
                };
                drop(stash.take());
                trace.push(exception.message().into_owned());
                trace.push(exception.downcast_ref::<Fault>().expect("the error").0);
            }
        });
        trace_on(&handle, &trace, "second");
        stash.replace(Some(handle));
        ex.run_until_stalled();
        trace.assert(&["no", "no", "second"]);
        let told = usize::from(policy == ReportPolicy::OnFailure);
        assert_eq!(recorder.len(), told);
        check_accounting(&ex);
    }
}

/// B048: a callback is nobody's step: there is no current task, and the executor is there.
#[test]
fn there_is_no_current_task_in_a_callback() {
    let ex = Executor::new();
    let trace = Trace::new();
    let handle = ex.spawn(async {});
    handle.add_done_callback({
        let trace = trace.clone();
        move |_| {
            trace.push(format!("task {}", mainstay::current_task().is_some()));
            trace.push(format!("loop {}", LocalHandle::try_current().is_some()));
        }
    });
    ex.run_until_stalled();
    trace.assert(&["task false", "loop true"]);
}

/// P6: a callback may spawn, cancel, wake and set a handler.
#[test]
fn a_callback_may_do_anything() {
    let ex = Executor::new();
    let trace = Trace::new();
    let event = Event::new();
    let victim = ex.spawn(pending::<()>());
    ex.spawn({
        let (trace, event) = (trace.clone(), event.clone());
        async move {
            event.wait().await;
            trace.push("woken");
        }
    })
    .detach();
    ex.run_until_stalled();
    let handle = ex.spawn(async {});
    handle.add_done_callback({
        let trace = trace.clone();
        move |_| {
            assert!(victim.cancel());
            event.set();
            LocalHandle::current().set_exception_handler(|_, _| {});
            let spawned = trace.clone();
            mainstay::spawn(async move { spawned.push("spawned") }).detach();
            trace.push("callback");
        }
    });
    ex.run_until_stalled();
    trace.assert(&["callback", "woken", "spawned"]);
    assert!(ex.has_exception_handler());
    assert!(ex.is_empty());
    assert_eq!(counts(&ex).cancelled, 1);
}

/// The handler is told before the callbacks under `OnFailure` (design section 6).
#[test]
fn the_handler_is_told_before_the_callbacks() {
    quiet();
    let ex = Executor::new();
    let trace = Trace::new();
    ex.set_exception_handler({
        let trace = trace.clone();
        move |_, _| trace.push("handler")
    });
    let handle = ex.spawn(async { panic!("boom") });
    trace_on(&handle, &trace, "callback");
    let handle: JoinHandle<()> = handle;
    handle.detach();
    ex.run_until_stalled();
    trace.assert(&["handler", "callback"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Handles that go
// ---------------------------------------------------------------------------------------------------------------------

/// P1: callbacks belong to the task: dropping the handle takes none of them away.
#[test]
fn callbacks_outlive_the_handle() {
    let ex = Executor::new();
    let trace = Trace::new();
    let event = Event::new();
    let handle = ex.spawn(event.wait());
    trace_on(&handle, &trace, "callback");
    ex.run_until_stalled();
    drop(handle);
    trace.assert(&[]);
    event.set();
    ex.run_until_stalled();
    trace.assert(&["callback"]);
}

/// api.md: one added to a finished task runs though the handle goes before the next pass.
/// Reading: it sees the outcome, because a callback added later pins it like any other (design section 6).
#[test]
fn a_late_callback_outlives_the_handle() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let trace = Trace::new();
    let handle = ex.spawn(async { panic!("boom") });
    ex.run_until_stalled();
    let handle: JoinHandle<()> = handle;
    handle.add_done_callback({
        let trace = trace.clone();
        move |completion| trace.push(outcome(completion))
    });
    drop(handle);
    trace.assert(&[]);
    ex.run_until_stalled();
    trace.assert(&["failed: boom"]);
    check_accounting(&ex);
}

/// api.md, design section 6: a late callback pins the outcome like any other.
/// Reading: under `IfUnretrieved` a late callback that reads a failure in time retrieves it, so it is not reported.
#[test]
fn a_late_callback_may_still_retrieve() {
    quiet();
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();
    let recorder = Recorder::on(&ex);
    let handle = ex.spawn(async { panic!("boom") });
    ex.run_until_stalled();
    let handle: JoinHandle<()> = handle;
    assert_eq!(counts(&ex).unread, 1);
    handle.add_done_callback(|completion| {
        assert!(matches!(completion.outcome(), Outcome::Failed(_)));
    });
    ex.run_until_stalled();
    assert_eq!((counts(&ex).unread, counts(&ex).retrieved), (0, 1));
    drop(handle);
    drop(ex);
    assert!(recorder.is_empty());
}

/// api.md, `Executor::drop`: the callbacks of pending tasks run with `Cancelled`, in spawn order.
#[test]
fn callbacks_of_pending_tasks_run_at_executor_drop() {
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let trace = Trace::new();
    let drops = DropLog::new();
    for name in ["a", "b"] {
        let handle = ex
            .task()
            .name(name)
            .spawn(holding(drops.guard(name), pending::<()>()));
        let (trace, drops) = (trace.clone(), drops.clone());
        handle.add_done_callback(move |completion| {
            let dropped = drops.count(completion.task().name()) == 1;
            trace.push(format!("{name} {} {dropped}", outcome(completion)));
        });
    }
    ex.run_until_stalled();
    drop(ex);
    trace.assert(&["a cancelled true", "b cancelled true"]);
    drops.assert(&["a", "b"]);
}

/// P2: a callback that was added to a finished task and never had its pass runs, or is at least dropped, with the executor.
/// Reading: it runs, because no callback of a task is lost.
#[test]
fn a_late_callback_is_not_lost_at_executor_drop() {
    let ex = Executor::new();
    let trace = Trace::new();
    let drops = DropLog::new();
    let handle = ex.spawn(async {});
    ex.run_until_stalled();
    let captured = drops.guard("captures");
    handle.add_done_callback({
        let trace = trace.clone();
        move |completion| {
            assert!(format!("{captured:?}").contains("captures"));
            trace.push(outcome(completion));
        }
    });
    drop(ex);
    drops.assert(&["captures"]);
    trace.assert(&["returned"]);
    drop(handle);
}

// ---------------------------------------------------------------------------------------------------------------------
// Removing
// ---------------------------------------------------------------------------------------------------------------------

/// B044: a callback that is removed does not run, and its captures go at once; the others run as ever.
#[test]
fn a_removed_callback_does_not_run() {
    let ex = Executor::new();
    let trace = Trace::new();
    let drops = DropLog::new();
    let handle = ex.spawn(async {});
    trace_on(&handle, &trace, "first");
    let captured = drops.guard("captures");
    let removed = handle.add_done_callback({
        let trace = trace.clone();
        move |_| trace.push(format!("{captured:?}"))
    });
    trace_on(&handle, &trace, "third");
    assert!(handle.remove_done_callback(removed));
    drops.assert(&["captures"]);
    assert!(!handle.remove_done_callback(removed), "it is gone");
    ex.run_until_stalled();
    trace.assert(&["first", "third"]);
    assert!(!handle.remove_done_callback(removed));
}

/// B044: each of several equal callbacks has an id of its own.
#[test]
fn equal_callbacks_are_removed_one_by_one() {
    let ex = Executor::new();
    let trace = Trace::new();
    let handle = ex.spawn(async {});
    let ids: Vec<CallbackId> = (0..6).map(|_| trace_on(&handle, &trace, "same")).collect();
    for (n, id) in ids.iter().enumerate() {
        assert!(ids[n + 1..].iter().all(|other| other != id));
    }
    for id in &ids[..5] {
        assert!(handle.remove_done_callback(*id));
    }
    ex.run_until_stalled();
    trace.assert(&["same"]);
}

/// A callback that ran cannot be removed.
#[test]
fn a_callback_that_ran_cannot_be_removed() {
    let ex = Executor::new();
    let trace = Trace::new();
    let handle = ex.spawn(async {});
    let id = trace_on(&handle, &trace, "ran");
    ex.run_until_stalled();
    trace.assert(&["ran"]);
    assert!(!handle.remove_done_callback(id));
}

/// P5: an id of one task's callback removes nothing from another task.
#[test]
fn a_callback_id_of_another_task_removes_nothing() {
    let ex = Executor::new();
    let trace = Trace::new();
    let (one, other) = (ex.spawn(async {}), ex.spawn(async {}));
    let of_one = trace_on(&one, &trace, "one");
    trace_on(&other, &trace, "other");
    assert!(!other.remove_done_callback(of_one));
    ex.run_until_stalled();
    trace.assert(&["one", "other"]);
}

/// P5: nor from a finished one of another executor, which counts its callbacks anew.
#[test]
fn a_callback_id_of_another_executor_removes_nothing() {
    let trace = Trace::new();
    let (home, elsewhere) = (Executor::new(), Executor::new());
    let (one, other) = (home.spawn(async {}), elsewhere.spawn(async {}));
    home.run_until_stalled();
    elsewhere.run_until_stalled();
    let of_one = trace_on(&one, &trace, "one");
    let of_other = trace_on(&other, &trace, "other");
    assert_eq!(of_one, of_other, "the second assertion below needs it");
    let same = home.spawn(async {});
    assert!(!same.remove_done_callback(of_other));
    home.run_until_stalled();
    trace.assert(&["one"]);
    elsewhere.run_until_stalled();
    trace.assert(&["other"]);
}

/// A callback that was added when the outcome had been taken is removed like others.
#[test]
fn a_callback_on_a_taken_outcome_can_be_removed() {
    let ex = Executor::new();
    let trace = Trace::new();
    let mut handle = ex.spawn(async {});
    ex.run_until_stalled();
    handle.result().expect("finished").expect("returned");
    let seen = trace.clone();
    ex.block_on(async move {
        let id = trace_on(&handle, &seen, "never");
        assert!(handle.remove_done_callback(id));
        assert!(!handle.remove_done_callback(id));
    });
    ex.run_until_stalled();
    trace.assert(&[]);
}

/// P6: the captures of a removed callback may themselves add and remove callbacks of that task.
#[test]
fn the_captures_of_a_removed_callback_may_add_another() {
    let ex = Executor::new();
    let trace = Trace::new();
    let stash: Rc<RefCell<Option<Rc<JoinHandle<()>>>>> = Rc::default();
    let handle = Rc::new(ex.spawn(async {}));
    stash.replace(Some(Rc::clone(&handle)));
    let captured = on_drop({
        let (stash, trace) = (Rc::clone(&stash), trace.clone());
        move || {
            let handle = stash.take().expect("stored above");
            trace_on(&handle, &trace, "added by a destructor");
        }
    });
    let id = handle.add_done_callback(move |_| drop(captured));
    assert!(handle.remove_done_callback(id));
    ex.run_until_stalled();
    trace.assert(&["added by a destructor"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// What goes wrong
// ---------------------------------------------------------------------------------------------------------------------

/// B002: a panicking callback is reported with its task, under kind `Callback`; that is no failure of the task.
#[test]
fn a_panicking_callback_does_not_fail_its_task() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let mut handle = ex.task().name("called").spawn(async { 7 });
    handle.add_done_callback(|_| panic!("boom"));
    ex.run_until_stalled();
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::Callback);
    assert_eq!(report.task.as_deref(), Some("called"));
    assert_eq!(
        (report.exception.as_deref(), report.panic),
        (Some("boom"), Some(true))
    );
    assert_eq!(handle.result().expect("finished").expect("returned"), 7);
    let counts = counts(&ex);
    assert_eq!((counts.returned, counts.failed, counts.reports), (1, 0, 1));
}

/// behaviours.md 1.6: a callback that passes a failure on by panicking has read it: one report, of its own kind, under
/// `IfUnretrieved`.
#[test]
fn a_callback_that_passes_a_failure_on_makes_one_report() {
    quiet();
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();
    let recorder = Recorder::on(&ex);
    let handle = ex.spawn(async { panic!("boom in the task") });
    handle.add_done_callback(|completion| {
        if let Outcome::Failed(exception) = completion.outcome() {
            panic!("boom passed on: {}", exception.message());
        }
    });
    let handle: JoinHandle<()> = handle;
    drop(handle);
    ex.run_until_stalled();
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::Callback);
    assert_eq!(
        report.exception.as_deref(),
        Some("boom passed on: boom in the task")
    );
    assert_eq!((counts(&ex).retrieved, counts(&ex).reported), (1, 0));
}

/// P7: callbacks are dropped with their captures when they have run, not kept until the handle goes.
#[test]
fn captures_go_when_the_callback_has_run() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let handle = ex.spawn(async { 7 });
    for name in ["a", "b"] {
        let captured = drops.guard(name);
        handle.add_done_callback(move |_| {
            assert!(format!("{captured:?}").contains(name));
        });
    }
    assert_eq!(drops.len(), 0);
    ex.run_until_stalled();
    drops.assert(&["a", "b"]);
    drop(handle);
    check_accounting(&ex);
}

/// P7: a thousand callbacks on one task run in order.
#[test]
fn a_thousand_callbacks_run_in_order() {
    let ex = Executor::new();
    let seen: Rc<RefCell<Vec<u32>>> = Rc::default();
    let handle = ex.spawn(yield_n(2));
    for n in 0..1_000 {
        let seen = Rc::clone(&seen);
        handle.add_done_callback(move |_| seen.borrow_mut().push(n));
    }
    ex.run_until_stalled();
    assert_eq!(*seen.borrow(), (0..1_000).collect::<Vec<u32>>());
}
