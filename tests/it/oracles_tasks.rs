//! Oracles (see `oracles.md`): the destructors of tasks, and what else user code may do.

use std::cell::RefCell;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay::{
    ContextKind, ExceptionContext, Executor, LocalHandle, ReportPolicy, current_task, sleep,
};

use crate::oracles_outcomes::FAILURES;
use crate::support::{
    Counts, DropLog, Event, Recorder, Trace, counts, holding, on_drop, panic_message, quiet,
};

// ---------------------------------------------------------------------------------------------------------------------
// Destructors
// ---------------------------------------------------------------------------------------------------------------------

/// Writes down, when it is dropped, which task is the current one, and whether an executor is.
fn look_round(label: &'static str, trace: &Trace) -> impl Drop + use<> {
    let trace = trace.clone();
    on_drop(move || {
        let task = current_task().map_or("nobody".to_owned(), |task| task.name().to_owned());
        let executor = if LocalHandle::try_current().is_some() {
            "driven"
        } else {
            "idle"
        };
        trace.push(format!("{label}: {task}, {executor}"));
    })
}

/// Gives the output at the first poll, or never.
struct Gives<F, O> {
    _future: F,
    output: Option<O>,
}

impl<F, O> Unpin for Gives<F, O> {}

impl<F, O> Future for Gives<F, O> {
    type Output = O;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<O> {
        self.output.take().map_or(Poll::Pending, Poll::Ready)
    }
}

// tokio task_id::{task_id_future_destructor_completion, task_id_future_destructor_abort,
// task_id_output_destructor_handle_dropped_before_completion, .._after_completion}, rt_basic::drop_tasks_in_context,
// task_local::{task_local_available_on_abort, task_local_available_on_completion_drop}.
#[test]
fn destructors_know_their_task_and_executor() {
    let trace = Trace::new();
    let ex = Executor::<'static>::new();
    let spawn = |name: &str, gives: bool| {
        ex.task().name(name).background().spawn(Gives {
            _future: look_round("future", &trace),
            output: gives.then(|| look_round("output", &trace)),
        })
    };
    // Completed, and nobody wants the output: it is the task that drops it.
    spawn("detached", true).detach();
    ex.run_until_stalled();
    trace.assert(&["future: detached, driven", "output: detached, driven"]);

    // The output is whoever's who drops the handle. (tokio: the finished task's, wherever that happens.)
    let handle = spawn("held", true);
    ex.run_until_stalled();
    drop(handle);
    trace.assert(&["future: held, driven", "output: nobody, idle"]);
    let handle = spawn("held", true);
    ex.run_until_stalled();
    ex.task()
        .name("other")
        .spawn(async move { drop(handle) })
        .detach();
    ex.run_until_stalled();
    trace.assert(&["future: held, driven", "output: other, driven"]);

    // Cancelled: by a root, by another task, between two drives.
    let handle = spawn("by the root", false);
    ex.block_on(async { assert!(handle.cancel()) });
    let handle = spawn("by a task", false);
    ex.spawn(async move { assert!(handle.cancel()) }).detach();
    ex.run_until_stalled();
    let handle = spawn("between", false);
    assert!(handle.cancel());
    ex.run_until_stalled();
    trace.assert(&[
        "future: by the root, driven",
        "future: by a task, driven",
        "future: between, driven",
    ]);

    // And at the end.
    spawn("waiting", false).detach();
    ex.run_until_stalled();
    spawn("unpolled", false).detach();
    let finished = ex.spawn(async { 7 });
    drop(ex);
    drop(finished);
    trace.assert(&["future: waiting, driven", "future: unpolled, driven"]);
}

// compio-runtime no_abort::simple_drop, tokio rt_basic::wake_in_drop_after_panic: one task awaits another when the root
// fails, in each of the two ways, and the executor goes with everything in it.
#[test]
fn a_failing_root_leaves_awaiting_tasks_to_a_quiet_end() {
    quiet();
    for fail in FAILURES {
        let drops = DropLog::new();
        let recorder = Recorder::new();
        let (sleeper, awaiter) = (drops.guard("sleeper"), drops.guard("awaiter"));
        let result = catch_unwind(AssertUnwindSafe(|| {
            let ex = Executor::<'static>::builder().virtual_clock().build();
            recorder.install(&ex);
            let asleep = ex.spawn(holding(sleeper, async {
                sleep(Duration::from_secs(2)).await;
            }));
            ex.spawn(holding(awaiter, async move {
                drop(asleep.await);
            }))
            .detach();
            ex.block_on(async {
                sleep(Duration::from_secs(1)).await;
                fail()
            })
        }));
        assert!(!matches!(result, Ok(Ok(_))));
        drops.assert(&["sleeper", "awaiter"]);
        assert_eq!(recorder.kinds(), [ContextKind::DestroyedPending; 2]);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What no peer has
// ---------------------------------------------------------------------------------------------------------------------

// async-executor drop::iterator_panics_mid_run: there is no `spawn_many` here, so that a user's iterator never runs inside
// of a spawn; what it had spawned before it panicked lives on.
#[test]
fn what_an_iterator_spawned_before_it_panicked_lives_on() {
    quiet();
    for in_a_task in [true, false] {
        let ex = Executor::<'static>::new();
        let recorder = Recorder::on(&ex);
        let event = Event::new();
        let mut futures = (0..6).map({
            let event = event.clone();
            move |n| {
                let wait = event.wait();
                assert!(n < 4, "boom in the iterator");
                async move {
                    wait.await;
                    FAILURES.get(n).map_or(Ok(7), |fail| fail())
                }
            }
        });
        let handle = ex.handle();
        let mut spawn_all = move || {
            for future in futures.by_ref() {
                handle.spawn_fallible(future).detach();
            }
        };
        if in_a_task {
            ex.spawn(async move { spawn_all() }).detach();
            ex.run_until_stalled();
            assert_eq!(recorder.take().len(), 1, "the task that spawned has failed");
        } else {
            assert_eq!(panic_message(spawn_all), "boom in the iterator");
        }
        ex.run_until_stalled();
        assert_eq!(ex.len(), 4);
        event.set();
        ex.run_until_stalled();
        assert_eq!(recorder.exceptions(), ["boom", "boom"]);
        let counts = counts(&ex);
        assert_eq!((counts.live, counts.returned), (0, 2));
        assert_eq!(counts.failed, 2 + u64::from(in_a_task));
    }
}

/// An executor that its own exception handler takes out of here, and drops.
type Doomed = Rc<RefCell<Option<Executor<'static>>>>;

fn doomed(drops: &DropLog) -> (Doomed, Recorder) {
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();
    let recorder = Recorder::new();
    let slot: Doomed = Rc::default();
    let (own, seen) = (Rc::clone(&slot), recorder.clone());
    ex.set_exception_handler(move |local, context| {
        seen.record(context);
        let gone = own.take();
        drop(gone);
        // What the report borrows is still there, and the handle knows that the executor is not.
        assert!(!context.to_string().is_empty());
        assert!(local.spawn(async {}).is_cancelled());
    });
    for name in ["first", "second"] {
        let guard = drops.guard(name);
        ex.spawn(holding(guard, pending::<()>())).detach();
    }
    slot.replace(Some(ex));
    (slot, recorder)
}

// P6: a handler may drop its own executor, where the report was not made by a drive. What that tells is told after it.
#[test]
fn a_handler_may_drop_its_executor() {
    quiet();
    let told = [
        ContextKind::NeverRetrieved,
        ContextKind::DestroyedPending,
        ContextKind::DestroyedPending,
    ];
    for fail in FAILURES {
        let drops = DropLog::new();
        let (slot, recorder) = doomed(&drops);
        let failed = {
            let ex = slot.borrow();
            let ex = ex.as_ref().expect("not dropped yet");
            let failed = ex.spawn_fallible(async move { fail() });
            ex.run_until_stalled();
            assert_eq!(
                counts(ex),
                Counts {
                    spawned: 3,
                    live: 2,
                    failed: 1,
                    unread: 1,
                    ..Counts::default()
                }
            );
            failed
        };
        assert!(recorder.is_empty());
        drop(failed);
        assert!(slot.borrow().is_none());
        drops.assert(&["first", "second"]);
        assert_eq!(recorder.kinds(), told);
    }
    // The same in a report of the user's own.
    let drops = DropLog::new();
    let (slot, recorder) = doomed(&drops);
    let handle = slot.borrow().as_ref().expect("not dropped yet").handle();
    handle.call_exception_handler(&ExceptionContext::new("of the user's own").build());
    drops.assert(&["first", "second"]);
    assert_eq!(recorder.len(), 3);
}
