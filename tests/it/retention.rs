//! P1, retention: from `spawn` to its end a task is owned by the arena, whatever happens to handles and wakers.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Poll, Waker};

use mainstay::{Executor, JoinHandle, LocalHandle};

use crate::support::{
    Counts, DropLog, Event, Trace, check_accounting, counts, holding, on_drop, quiet, yield_n,
};

/// P1, B053: asyncio's weak set of tasks is what this project exists for (gh-91887).
#[test]
fn dropping_the_handle_keeps_the_task() {
    let ex = Executor::new();
    let event = Event::new();
    let trace = Trace::new();
    let handle = ex.spawn({
        let (event, trace) = (event.clone(), trace.clone());
        async move {
            trace.push("began");
            event.wait().await;
            trace.push("ended");
        }
    });
    drop(handle);
    ex.run_until_stalled();
    trace.assert(&["began"]);
    assert_eq!(ex.len(), 1);
    event.set();
    ex.run_until_stalled();
    trace.assert(&["ended"]);
    assert_eq!(counts(&ex).returned, 1);
}

/// P1: `detach` is the drop of the handle, by name.
#[test]
fn detaching_keeps_the_task() {
    let ex = Executor::new();
    let ran = Rc::new(Cell::new(false));
    ex.spawn({
        let ran = Rc::clone(&ran);
        async move {
            yield_n(3).await;
            ran.set(true);
        }
    })
    .detach();
    ex.run_until_stalled();
    assert!(ran.get());
}

/// P1: the handle may go at any moment of the task's life, the middle of its own poll included.
#[test]
fn dropping_the_handle_from_within_the_task_keeps_it() {
    let ex = Executor::new();
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let ended = Rc::new(Cell::new(false));
    let handle = ex.spawn({
        let (own, ended) = (Rc::clone(&own), Rc::clone(&ended));
        async move {
            let handle = own.take().expect("stored below");
            drop(handle);
            yield_n(2).await;
            ended.set(true);
        }
    });
    own.replace(Some(handle));
    ex.run_until_stalled();
    assert!(ended.get());
    assert_eq!(counts(&ex).returned, 1);
}

/// P1, B053: a task that waits on something nobody else owns is still alive and still listed after a long time.
#[test]
fn a_task_that_nobody_can_wake_stays_listed() {
    let ex = Executor::new();
    let drops = DropLog::new();
    ex.task()
        .name("orphan")
        .spawn(holding(drops.guard("orphan"), pending::<()>()))
        .detach();
    for _ in 0..1_000 {
        ex.run_until_stalled();
    }
    let names: Vec<String> = ex
        .tasks()
        .iter()
        .map(|task| task.name().to_owned())
        .collect();
    assert_eq!(names, ["orphan"]);
    assert_eq!(drops.len(), 0);
    check_accounting(&ex);
    drop(ex);
    drops.assert(&["orphan"]);
}

/// P1: monoio and glommio own a parked task through its wakers alone; here the last waker holds nothing.
#[test]
fn dropping_every_waker_and_the_handle_keeps_the_task() {
    let ex = Executor::new();
    let event = Event::new();
    let drops = DropLog::new();
    let handle = ex.spawn(holding(drops.guard("task"), event.wait()));
    ex.run_until_stalled();
    drop(handle);
    assert!(event.is_awaited());
    event.forget_wakers();
    ex.run_until_stalled();
    assert_eq!(ex.len(), 1);
    assert_eq!(drops.len(), 0);
}

/// P1, P5: a waker that is kept holds neither the future nor its output (compio drops the output with its last waker).
#[test]
fn a_waker_that_is_kept_does_not_keep_the_future_or_its_output() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
    let future = {
        let kept = Rc::clone(&kept);
        let output = drops.guard("output");
        let mut output = Some(output);
        poll_fn(move |cx| {
            if kept.borrow().is_none() {
                kept.replace(Some(cx.waker().clone()));
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(output.take())
        })
    };
    ex.spawn(holding(drops.guard("future"), future)).detach();
    ex.run_until_stalled();
    assert!(kept.borrow().is_some());
    assert_eq!(drops.count("future"), 1);
    assert_eq!(drops.count("output"), 1);
    // The kept waker is stale now and changes nothing.
    kept.borrow().as_ref().expect("just seen").wake_by_ref();
    let progress = ex.run_until_stalled();
    assert_eq!(progress.polls, 0);
    check_accounting(&ex);
}

/// P1, B080: what is pending when `block_on` returns goes on at the next one.
#[test]
fn tasks_outlive_the_block_on_that_spawned_them() {
    let ex = Executor::new();
    let event = Event::new();
    let trace = Trace::new();
    ex.block_on(async {
        mainstay::spawn({
            let (event, trace) = (event.clone(), trace.clone());
            async move {
                event.wait().await;
                trace.push("second run");
            }
        })
        .detach();
        yield_n(1).await;
    });
    assert_eq!(ex.len(), 1);
    event.set();
    ex.block_on(yield_n(2));
    trace.assert(&["second run"]);
    assert!(ex.is_empty());
}

/// P1: tasks that a task spawned are the executor's, not their parent's.
#[test]
fn tasks_outlive_the_task_that_spawned_them() {
    let ex = Executor::new();
    let trace = Trace::new();
    ex.spawn({
        let trace = trace.clone();
        async move {
            for n in 0..3 {
                let trace = trace.clone();
                mainstay::spawn(async move {
                    yield_n(5).await;
                    trace.push(format!("child {n}"));
                })
                .detach();
            }
            trace.push("parent");
        }
    })
    .detach();
    ex.run_until_stalled();
    trace.assert(&["parent", "child 0", "child 1", "child 2"]);
}

/// P1: a task that holds the handle of another one lets go of it without ending it.
#[test]
fn the_end_of_a_task_does_not_end_the_one_whose_handle_it_held() {
    let ex = Executor::new();
    let event = Event::new();
    let inner = ex.spawn({
        let event = event.clone();
        async move { event.wait().await }
    });
    ex.spawn(async move {
        yield_n(1).await;
        drop(inner);
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(ex.len(), 1);
    event.set();
    ex.run_until_stalled();
    assert_eq!(counts(&ex).returned, 2);
}

/// P1, tokio `drop_tasks_with_reference_cycle`: tasks that own their own or each other's handles are freed with the executor.
#[test]
fn handles_in_a_cycle_do_not_leak_the_tasks() {
    let drops = DropLog::new();
    {
        let ex = Executor::new();
        let slots: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
        for name in ["a", "b"] {
            let handle = ex.spawn(holding(
                (drops.guard(name), Rc::clone(&slots)),
                pending::<()>(),
            ));
            slots.borrow_mut().push(handle);
        }
        drop(slots);
        ex.run_until_stalled();
        assert_eq!(drops.len(), 0);
    }
    assert_eq!(drops.count("a"), 1);
    assert_eq!(drops.count("b"), 1);
}

/// P1: a thousand detached tasks with different lives all come to their end.
#[test]
fn a_thousand_detached_tasks_all_finish() {
    let ex = Executor::new();
    let ended = Rc::new(Cell::new(0));
    for n in 0..1_000 {
        let ended = Rc::clone(&ended);
        ex.spawn(async move {
            yield_n(n % 17).await;
            ended.set(ended.get() + 1);
        })
        .detach();
    }
    ex.run_until_stalled();
    assert_eq!(ended.get(), 1_000);
    let expected = Counts {
        spawned: 1_000,
        returned: 1_000,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
}

/// P1, P7: an output that a handle still holds stays where it is while its neighbours' slots are used again and again.
#[test]
fn an_unread_output_survives_the_reuse_of_slots() {
    let ex = Executor::new();
    let mut kept: Vec<JoinHandle<String>> = Vec::new();
    for n in 0..10 {
        kept.push(ex.spawn(async move { format!("kept {n}") }));
        drop(ex.spawn(async move { format!("dropped {n}") }));
    }
    ex.run_until_stalled();
    for round in 0..100 {
        for n in 0..10 {
            ex.spawn(async move { format!("{round} {n}") }).detach();
        }
        ex.run_until_stalled();
    }
    for (n, handle) in kept.iter_mut().enumerate() {
        let value = handle.result().expect("finished").expect("returned");
        assert_eq!(value, format!("kept {n}"));
    }
    check_accounting(&ex);
}

/// P1: the arena forgets a task at its end; a handle that is kept makes it neither live nor listed.
#[test]
fn a_finished_task_is_not_listed_though_its_handle_is_kept() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let mut handle = ex.spawn(holding(drops.guard("future"), async { 7 }));
    assert_eq!(ex.len(), 1);
    ex.run_until_stalled();
    assert!(ex.tasks().is_empty());
    assert!(ex.is_empty());
    // The future goes at completion, its output waits.
    drops.assert(&["future"]);
    assert_eq!(handle.result().expect("finished").expect("returned"), 7);
}

/// P1: `stop()` takes nobody's task.
#[test]
fn stopping_the_loop_keeps_the_tasks() {
    let ex = Executor::new();
    let trace = Trace::new();
    ex.spawn({
        let trace = trace.clone();
        async move {
            for n in 0..3 {
                trace.push(format!("step {n}"));
                if n == 0 {
                    LocalHandle::current().stop();
                }
                yield_n(1).await;
            }
        }
    })
    .detach();
    ex.run_forever();
    trace.assert(&["step 0"]);
    assert_eq!(ex.len(), 1);
    ex.run_until_stalled();
    trace.assert(&["step 1", "step 2"]);
}

/// P1: a root that panics unwinds alone; the tasks go on at the next drive.
#[test]
fn a_root_that_panics_keeps_the_tasks() {
    quiet();
    let ex = Executor::new();
    let event = Event::new();
    let mut handle = ex.spawn({
        let event = event.clone();
        async move {
            event.wait().await;
            "kept"
        }
    });
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        ex.block_on(async {
            yield_n(2).await;
            panic!("boom in the root");
        })
    }));
    assert!(unwound.is_err());
    assert_eq!(ex.len(), 1);
    event.set();
    ex.run_until_stalled();
    assert_eq!(
        handle.result().expect("finished").expect("returned"),
        "kept"
    );
}

/// P1: neighbours that fail or are cancelled take nothing with them.
#[test]
fn the_end_of_one_task_leaves_the_others_alone() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let event = Event::new();
    let survivor = ex.spawn({
        let event = event.clone();
        async move { event.wait().await }
    });
    ex.spawn(async { panic!("boom") }).detach();
    let cancelled = ex.spawn(pending::<()>());
    ex.run_until_stalled();
    assert!(cancelled.cancel());
    ex.run_until_stalled();
    assert!(!survivor.is_finished());
    event.set();
    ex.run_until_stalled();
    assert!(survivor.is_finished());
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

/// api.md, JoinHandle: a handle may outlive its executor; a pending task then reads as cancelled.
#[test]
fn a_handle_of_a_pending_task_outlives_the_executor_as_cancelled() {
    let drops = DropLog::new();
    let mut handle = {
        let ex = Executor::new();
        ex.set_exception_handler(|_, _| {});
        let handle = ex
            .task()
            .name("late")
            .spawn(holding(drops.guard("future"), pending::<()>()));
        ex.run_until_stalled();
        handle
    };
    drops.assert(&["future"]);
    assert!(handle.is_finished());
    assert!(handle.is_cancelled());
    assert!(!handle.cancel());
    assert_eq!(handle.name(), "late");
    let error = handle
        .result()
        .expect("finished")
        .expect_err("no output exists");
    assert!(error.is_cancelled());
}

/// api.md, JoinHandle: a handle may outlive its executor; a finished task keeps its outcome.
#[test]
fn a_handle_of_a_finished_task_outlives_the_executor_with_its_outcome() {
    quiet();
    let drops = DropLog::new();
    let (mut returned, mut failed, unread) = {
        let ex = Executor::new();
        ex.set_exception_handler(|_, _| {});
        let returned = ex.spawn(async { vec![1, 2, 3] });
        let failed = ex.spawn(async { panic!("boom") });
        let output = drops.guard("output");
        let unread = ex.spawn(async move { output });
        ex.run_until_stalled();
        (returned, failed, unread)
    };
    assert_eq!(
        returned.result().expect("finished").expect("returned"),
        [1, 2, 3]
    );
    let error: Result<(), _> = failed.result().expect("finished");
    assert!(error.expect_err("failed").is_panic());
    assert_eq!(drops.len(), 0);
    drop(unread);
    drops.assert(&["output"]);
}

/// P1: a task that is woken in vain a thousand times is polled each time and kept.
#[test]
fn spurious_wakes_do_not_lose_the_task() {
    let ex = Executor::new();
    let event = Event::new();
    let polls = Rc::new(Cell::new(0));
    ex.spawn({
        let polls = Rc::clone(&polls);
        let mut wait = event.wait();
        poll_fn(move |cx| {
            polls.set(polls.get() + 1);
            std::pin::Pin::new(&mut wait).poll(cx)
        })
    })
    .detach();
    ex.run_until_stalled();
    for _ in 0..1_000 {
        event.pulse();
        ex.run_until_stalled();
    }
    assert_eq!(polls.get(), 1_001);
    event.set();
    ex.run_until_stalled();
    assert!(ex.is_empty());
}

/// P1, P6: a destructor that runs at completion may spawn; what it spawns is owned like any other task.
#[test]
fn a_task_spawned_by_a_destructor_is_kept() {
    let ex = Executor::new();
    let trace = Trace::new();
    let heir = {
        let trace = trace.clone();
        on_drop(move || {
            let trace = trace.clone();
            mainstay::spawn(async move {
                yield_n(1).await;
                trace.push("heir");
            })
            .detach();
        })
    };
    ex.spawn(holding(heir, {
        let trace = trace.clone();
        async move { trace.push("parent") }
    }))
    .detach();
    ex.run_until_stalled();
    trace.assert(&["parent", "heir"]);
    assert_eq!(counts(&ex).returned, 2);
}
