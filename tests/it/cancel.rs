//! Cancelling: the future is dropped, promptly, once and at home; nobody else is touched; a stale handle hits nobody (P1,
//! P2, P5, P6; api.md, JoinHandle; design sections 5 and 7).

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use mainstay::{
    CancelHandle, ContextKind, ExceptionError, Executor, JoinHandle, LocalHandle, Outcome, TaskId,
};

use crate::support::{
    Counts, DropLog, Event, Fault, Guard, LogCapture, Recorder, Trace, check_accounting,
    counting_waker, counts, holding, on_drop, panic_message, poll_with, quiet, yield_n,
};

const ONE_CANCELLED: Counts = Counts {
    spawned: 1,
    live: 0,
    returned: 0,
    failed: 0,
    cancelled: 1,
    reported: 0,
    retrieved: 0,
    unread: 0,
    reports: 0,
};

/// A task that waits for ever and enters `name` in `drops` when its future is dropped.
fn parked(ex: &Executor<'static>, drops: &DropLog, name: &str) -> JoinHandle<()> {
    ex.task()
        .name(name)
        .spawn(holding(drops.guard(name), pending()))
}

type Stash<T> = Rc<RefCell<Option<JoinHandle<T>>>>;

/// Spawns a task that is given its own handle, through a place from which it can take it.
fn spawn_knowing_itself<F: Future + 'static>(
    ex: &Executor<'static>,
    make: impl FnOnce(Stash<F::Output>) -> F,
) -> (Stash<F::Output>, CancelHandle) {
    let stash: Stash<F::Output> = Rc::default();
    let handle = ex.spawn(make(Rc::clone(&stash)));
    let canceller = handle.cancel_handle();
    stash.replace(Some(handle));
    (stash, canceller)
}

// ---------------------------------------------------------------------------------------------------------------------
// When the future goes
// ---------------------------------------------------------------------------------------------------------------------

/// behaviours.md 2.4: a task that is cancelled before its first poll never runs.
#[test]
fn a_task_cancelled_before_its_first_poll_never_runs() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let polled = Rc::new(Cell::new(false));
    let mut handle = ex.spawn(holding(drops.guard("future"), {
        let polled = Rc::clone(&polled);
        async move { polled.set(true) }
    }));
    assert!(handle.cancel());
    ex.run_until_stalled();
    assert!(!polled.get());
    drops.assert(&["future"]);
    assert!(handle.is_cancelled());
    let error = handle
        .result()
        .expect("finished")
        .expect_err("no output exists");
    assert!(error.is_cancelled());
    assert_eq!(counts(&ex), ONE_CANCELLED);
    assert_eq!(ex.stats().polls, 0);
}

/// api.md, `cancel()`: while the executor is driven, the future is gone before `cancel` returns, and the outcome is there.
#[test]
fn cancelling_from_another_task_takes_effect_before_it_returns() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let mut handle = parked(&ex, &drops, "victim");
    let ended = Rc::new(Cell::new(false));
    ex.spawn({
        let (drops, ended) = (drops.clone(), Rc::clone(&ended));
        async move {
            yield_n(1).await;
            assert!(!handle.is_finished());
            assert!(handle.cancel());
            drops.assert(&["victim"]);
            assert!(handle.is_finished());
            assert!(handle.is_cancelled());
            // A task cancelled without any panic is published at once (design section 6).
            let error = handle
                .result()
                .expect("published")
                .expect_err("no output exists");
            assert!(error.is_cancelled());
            ended.set(true);
        }
    })
    .detach();
    ex.run_until_stalled();
    assert!(ended.get());
    check_accounting(&ex);
}

/// api.md, `cancel()`: the root drives as well; a cancel from it takes effect at once.
#[test]
fn cancelling_from_the_root_takes_effect_before_it_returns() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let handle = parked(&ex, &drops, "victim");
    ex.block_on(async {
        yield_n(1).await;
        assert!(handle.cancel());
        drops.assert(&["victim"]);
        assert!(handle.await.expect_err("no output exists").is_cancelled());
    });
    assert_eq!(counts(&ex), ONE_CANCELLED);
}

/// api.md, `cancel()`: the same from a done callback and from the exception handler.
#[test]
fn cancelling_from_a_callback_or_the_handler_takes_effect_before_it_returns() {
    quiet();
    let ex = Executor::new();
    let drops = DropLog::new();
    let by_callback = parked(&ex, &drops, "by callback");
    let by_handler = parked(&ex, &drops, "by handler");
    let trace = Trace::new();
    ex.set_exception_handler({
        let (drops, trace) = (drops.clone(), trace.clone());
        let canceller = by_handler.cancel_handle();
        move |_, _| {
            assert!(canceller.cancel());
            trace.push(drops.names().join(", "));
        }
    });
    let failing = ex.spawn(async {
        yield_n(1).await;
        panic!("boom");
    });
    failing.add_done_callback({
        let (drops, trace) = (drops.clone(), trace.clone());
        move |_| {
            assert!(by_callback.cancel());
            trace.push(drops.names().join(", "));
        }
    });
    failing.detach();
    ex.run_until_stalled();
    trace.assert(&["by handler", "by handler, by callback"]);
    assert!(by_handler.is_cancelled());
    assert_eq!(counts(&ex).cancelled, 2);
}

/// api.md, `cancel()`: between drives a cancel is carried out by the next pass, without a poll.
#[test]
fn cancelling_between_drives_waits_for_the_next_pass() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let mut handle = parked(&ex, &drops, "victim");
    ex.run_until_stalled();
    let polls = ex.stats().polls;
    assert!(handle.cancel());
    assert_eq!(drops.len(), 0);
    assert!(!handle.is_finished());
    assert!(!handle.is_cancelled());
    assert!(handle.result().is_err());
    assert_eq!(counts(&ex).live, 1);
    // It is not finished, so it can be cancelled again.
    assert!(handle.cancel());
    ex.tick(1);
    drops.assert(&["victim"]);
    assert!(handle.is_cancelled());
    assert!(!handle.cancel());
    assert_eq!(ex.stats().polls, polls);
    assert_eq!(counts(&ex), ONE_CANCELLED);
}

/// api.md, `cancel()`: or by the executor's drop, and then nobody calls it destroyed while pending.
#[test]
fn cancelling_between_drives_may_wait_for_the_executors_drop() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let mut handle = parked(&ex, &drops, "victim");
    ex.run_until_stalled();
    assert!(handle.cancel_with_reason("closing time"));
    drop(ex);
    drops.assert(&["victim"]);
    assert!(recorder.is_empty());
    let error = handle
        .result()
        .expect("finished")
        .expect_err("no output exists");
    assert!(error.is_cancelled());
    assert_eq!(error.reason(), Some("closing time"));
}

/// P9: a task that had been woken before it was cancelled is not polled any more.
#[test]
fn a_woken_task_that_is_cancelled_is_not_polled() {
    let ex = Executor::new();
    let event = Event::new();
    let polls = Rc::new(Cell::new(0));
    let victim = ex.spawn({
        let polls = Rc::clone(&polls);
        let mut wait = event.wait();
        poll_fn(move |cx| {
            polls.set(polls.get() + 1);
            Pin::new(&mut wait).poll(cx)
        })
    });
    ex.run_until_stalled();
    // The canceller's turn comes first, then the victim's, who was woken in between.
    ex.spawn(async move {
        event.set();
        assert!(victim.cancel());
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(polls.get(), 1);
    let expected = Counts {
        spawned: 2,
        returned: 1,
        cancelled: 1,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
}

/// P5, async-task `cancel_and_wake_during_run`: a wake after the cancel is too late as well.
#[test]
fn a_cancelled_task_that_is_woken_is_not_polled() {
    let ex = Executor::new();
    let event = Event::new();
    let drops = DropLog::new();
    let victim = ex.spawn(holding(drops.guard("victim"), event.wait()));
    ex.run_until_stalled();
    let waker = event.waker().expect("it waits");
    ex.spawn(async move {
        assert!(victim.cancel());
        waker.wake_by_ref();
        event.set();
        waker.wake();
    })
    .detach();
    let progress = ex.run_until_stalled();
    assert_eq!(progress.polls, 1);
    drops.assert(&["victim"]);
    assert_eq!((counts(&ex).returned, counts(&ex).cancelled), (1, 1));
}

/// tokio `test_abort_wakes_task_3964`: a cancel followed by the drop of the handle still drops the future.
#[test]
fn dropping_the_handle_after_a_cancel_does_not_undo_it() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let handle = parked(&ex, &drops, "victim");
    ex.run_until_stalled();
    assert!(handle.cancel());
    drop(handle);
    ex.run_until_stalled();
    drops.assert(&["victim"]);
    assert_eq!(counts(&ex), ONE_CANCELLED);
}

/// api.md, JoinHandle: dropping the handle, or detaching, cancels nothing.
#[test]
fn dropping_or_detaching_does_not_cancel() {
    let ex = Executor::new();
    let drops = DropLog::new();
    drop(parked(&ex, &drops, "dropped"));
    parked(&ex, &drops, "detached").detach();
    {
        let _canceller = parked(&ex, &drops, "cancel handle").cancel_handle();
    }
    ex.run_until_stalled();
    assert_eq!(drops.len(), 0);
    assert_eq!(counts(&ex).live, 3);
}

// ---------------------------------------------------------------------------------------------------------------------
// Cancelling oneself
// ---------------------------------------------------------------------------------------------------------------------

/// B034: a task that cancels itself and then waits stops at that await; its current poll is finished first.
#[test]
fn a_task_that_cancels_itself_stops_at_its_next_await() {
    let ex = Executor::new();
    let trace = Trace::new();
    let drops = DropLog::new();
    let (_stash, canceller) = spawn_knowing_itself(&ex, |own| {
        holding(drops.guard("future"), {
            let (trace, drops) = (trace.clone(), drops.clone());
            async move {
                let handle = own.take().expect("stored");
                assert!(handle.cancel());
                assert!(handle.cancel(), "true for as long as it is not finished");
                assert!(!handle.is_finished());
                assert_eq!(drops.len(), 0, "it is being polled");
                trace.push("goes on");
                yield_n(1).await;
                trace.push("never reached");
            }
        })
    });
    ex.run_until_stalled();
    trace.assert(&["goes on"]);
    drops.assert(&["future"]);
    assert!(canceller.is_finished());
    assert!(!canceller.cancel());
    assert_eq!(counts(&ex), ONE_CANCELLED);
}

/// behaviours.md, decisions: a pending cancel beats a value, which is dropped.
#[test]
fn a_pending_cancel_beats_a_value() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let output = drops.guard("output");
    let (stash, _) = spawn_knowing_itself(&ex, |own: Stash<Guard>| async move {
        assert!(own.borrow().as_ref().expect("stored").cancel());
        output
    });
    ex.run_until_stalled();
    drops.assert(&["output"]);
    let mut handle = stash.take().expect("nobody took it");
    assert!(handle.is_cancelled());
    let error = handle
        .result()
        .expect("finished")
        .expect_err("the value is gone");
    assert!(error.is_cancelled());
    assert_eq!(counts(&ex), ONE_CANCELLED);
}

/// behaviours.md, decisions: a failure beats a pending cancel, a panic ...
#[test]
fn a_panic_beats_a_pending_cancel() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let (stash, _) = spawn_knowing_itself(&ex, |own: Stash<()>| async move {
        assert!(own.borrow().as_ref().expect("stored").cancel());
        panic!("boom");
    });
    ex.run_until_stalled();
    let mut handle = stash.take().expect("nobody took it");
    assert!(!handle.is_cancelled());
    assert!(
        handle
            .result()
            .expect("finished")
            .expect_err("it failed")
            .is_panic()
    );
    assert_eq!(recorder.exceptions(), ["boom"]);
    assert_eq!(counts(&ex).failed, 1);
}

/// ... and an `Err` where it counts.
#[test]
fn an_err_beats_a_pending_cancel() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let stash: Stash<Result<(), Fault>> = Rc::default();
    let handle = ex.spawn_fallible({
        let own = Rc::clone(&stash);
        async move {
            assert!(own.borrow().as_ref().expect("stored").cancel());
            Err::<(), _>(Fault("no"))
        }
    });
    stash.replace(Some(handle));
    ex.run_until_stalled();
    let mut handle = stash.take().expect("nobody took it");
    assert!(!handle.is_cancelled());
    assert_eq!(
        handle.result().expect("finished").expect("no panic"),
        Err(Fault("no"))
    );
    assert_eq!(recorder.exceptions(), ["no"]);
}

/// B029: a task that awaits its own handle does not deadlock.
/// Reading: it ends, whether the handle gives it an error or its poll panics.
#[test]
fn a_task_that_awaits_itself_ends() {
    quiet();
    let ex = Executor::new();
    let _log = LogCapture::start();
    let (stash, _) = spawn_knowing_itself(&ex, |own: Stash<()>| async move {
        let handle = own.take().expect("stored");
        let outcome = handle.await;
        assert!(outcome.is_err());
    });
    ex.run_until_stalled();
    assert!(stash.borrow().is_none());
    assert!(ex.is_empty(), "it does not wait for ever");
    check_accounting(&ex);
}

/// api.md, `cancel()`: a task on the poll stack, though not on its top, is dropped right after its poll.
#[test]
fn cancelling_a_task_that_drives_another_executor_waits_for_its_poll() {
    let outer = Executor::new();
    let drops = DropLog::new();
    let trace = Trace::new();
    let (_stash, canceller) = spawn_knowing_itself(&outer, |own| {
        holding(drops.guard("outer task"), {
            let (drops, trace) = (drops.clone(), trace.clone());
            async move {
                let inner = Executor::new();
                inner
                    .spawn(async move {
                        assert!(own.take().expect("stored").cancel());
                        assert_eq!(drops.len(), 0, "it is on the poll stack");
                    })
                    .detach();
                inner.run_until_stalled();
                assert_eq!(counts(&inner).returned, 1);
                trace.push("goes on");
                yield_n(1).await;
                trace.push("never reached");
            }
        })
    });
    outer.run_until_stalled();
    trace.assert(&["goes on"]);
    drops.assert(&["outer task"]);
    assert!(canceller.is_finished());
    assert_eq!(counts(&outer), ONE_CANCELLED);
}

/// api.md, `cancel()`: what counts is whether the task's own executor is driven, not whether any is.
#[test]
fn cancelling_from_another_executors_task_waits_for_the_next_pass() {
    let (home, other) = (Executor::new(), Executor::new());
    let drops = DropLog::new();
    let handle = parked(&home, &drops, "victim");
    home.run_until_stalled();
    other
        .spawn({
            let drops = drops.clone();
            async move {
                assert!(handle.cancel());
                assert_eq!(drops.len(), 0);
            }
        })
        .detach();
    other.run_until_stalled();
    assert_eq!(counts(&other).returned, 1);
    assert_eq!(drops.len(), 0);
    home.run_until_stalled();
    drops.assert(&["victim"]);
    assert_eq!(counts(&home), ONE_CANCELLED);
}

// ---------------------------------------------------------------------------------------------------------------------
// What a cancel says
// ---------------------------------------------------------------------------------------------------------------------

/// B030, api.md: true for as long as the task is not finished, then false, however it ended.
#[test]
fn cancelling_a_finished_task_is_false_and_changes_nothing() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let mut returned = ex.spawn(async { 7 });
    let mut failed = ex.spawn(async { panic!("boom") });
    ex.run_until_stalled();
    assert!(!returned.cancel());
    assert!(!returned.cancel_with_reason("too late"));
    assert!(!failed.cancel());
    assert!(!failed.cancel_handle().cancel());
    ex.run_until_stalled();
    assert!(!returned.is_cancelled());
    assert_eq!(returned.result().expect("finished").expect("returned"), 7);
    let error: Result<(), _> = failed.result().expect("finished");
    assert!(error.expect_err("it failed").is_panic());
    assert_eq!(recorder.len(), 1);
    assert_eq!(counts(&ex).cancelled, 0);
}

/// Design section 6: a task is finished when its handler runs; a cancel from there is too late.
/// Reading: a `CancelHandle` says so like the join handle.
#[test]
fn cancelling_from_its_own_report_is_false() {
    quiet();
    let ex = Executor::new();
    let failing = ex.spawn(async { panic!("boom") });
    let said = Rc::new(Cell::new(None));
    ex.set_exception_handler({
        let (canceller, said) = (failing.cancel_handle(), Rc::clone(&said));
        move |_, _| said.set(Some((canceller.is_finished(), canceller.cancel())))
    });
    ex.run_until_stalled();
    assert_eq!(said.get(), Some((true, false)));
    assert!(!failing.is_cancelled());
    let failing: JoinHandle<()> = failing;
    drop(failing);
    assert_eq!(counts(&ex).failed, 1);
}

/// api.md, `cancel()`: the first reason wins.
#[test]
fn the_first_reason_wins() {
    let ex = Executor::new();
    let mut handle = ex.spawn(pending::<()>());
    ex.run_until_stalled();
    assert!(handle.cancel_with_reason("first"));
    assert!(handle.cancel_with_reason(String::from("second")));
    assert!(handle.cancel());
    ex.run_until_stalled();
    let error = handle
        .result()
        .expect("finished")
        .expect_err("no output exists");
    assert_eq!(error.reason(), Some("first"));
    assert!(error.to_string().contains("first"), "{error}");
}

/// api.md, JoinError: what it says of a cancelled task.
#[test]
fn the_error_of_a_cancelled_task_says_so() {
    quiet();
    let ex = Executor::new();
    let handle = ex.spawn(pending::<()>());
    let id = handle.id();
    handle.cancel();
    let error = ex.block_on(handle).expect_err("no output exists");
    assert!(error.is_cancelled());
    assert!(!error.is_panic());
    assert!(!error.in_group());
    assert_eq!(error.id(), Some(id));
    assert_eq!(error.reason(), None);
    assert!(error.to_string().contains("cancelled"), "{error}");
    // There is no payload to take; the error comes back as it was.
    let error = error.try_into_panic().expect_err("no payload");
    assert!(error.is_cancelled());
    assert!(!panic_message(|| error.into_panic()).is_empty());
}

/// api.md, JoinHandle: the accessors of a cancelled task.
#[test]
fn the_accessors_of_a_cancelled_task_say_so() {
    let ex = Executor::new();
    let handle = ex.spawn(pending::<()>());
    assert_eq!(handle.exception().err(), Some(ExceptionError::Pending));
    handle.cancel();
    ex.run_until_stalled();
    assert!(handle.is_finished());
    assert!(handle.is_cancelled());
    assert_eq!(handle.exception().err(), Some(ExceptionError::Cancelled));
    assert_eq!(
        handle.exception().err(),
        Some(ExceptionError::Cancelled),
        "looking takes nothing"
    );
}

/// api.md, JoinHandle: an awaiter is woken, and told.
#[test]
fn an_awaiter_of_a_cancelled_task_is_woken() {
    let ex = Executor::new();
    let handle = ex.spawn(pending::<()>());
    let canceller = handle.cancel_handle();
    let trace = Trace::new();
    ex.spawn({
        let trace = trace.clone();
        async move {
            let error = handle.await.expect_err("no output exists");
            trace.push(if error.is_cancelled() {
                "told"
            } else {
                "told wrong"
            });
        }
    })
    .detach();
    ex.run_until_stalled();
    canceller.cancel();
    ex.run_until_stalled();
    trace.assert(&["told"]);
    assert!(ex.is_empty());
}

/// The same for an awaiter with a waker of its own, which is called once.
#[test]
fn a_foreign_waker_of_a_cancelled_task_is_called_once() {
    let ex = Executor::new();
    let (waker, count) = counting_waker();
    let mut handle = ex.spawn(pending::<()>());
    assert!(poll_with(&mut handle, &waker).is_pending());
    ex.run_until_stalled();
    assert_eq!(count.wakes(), 0);
    handle.cancel();
    ex.run_until_stalled();
    assert_eq!(count.wakes(), 1);
    assert!(
        matches!(poll_with(&mut handle, &waker), Poll::Ready(Err(error)) if error.is_cancelled())
    );
}

/// api.md, done callbacks: they run with `Cancelled`.
#[test]
fn done_callbacks_of_a_cancelled_task_run() {
    let ex = Executor::new();
    let trace = Trace::new();
    let handle = ex.spawn(pending::<()>());
    handle.add_done_callback({
        let trace = trace.clone();
        move |completion| {
            assert!(matches!(completion.outcome(), Outcome::Cancelled));
            trace.push("cancelled");
        }
    });
    handle.cancel();
    ex.run_until_stalled();
    trace.assert(&["cancelled"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Whom a cancel does not touch
// ---------------------------------------------------------------------------------------------------------------------

/// B039: cancelling a task that awaits another drops the awaiting future only.
#[test]
fn cancelling_an_awaiter_leaves_the_awaited_task_alive() {
    let ex = Executor::new();
    let event = Event::new();
    let ended = Rc::new(Cell::new(false));
    let awaited = ex.spawn({
        let (event, ended) = (event.clone(), Rc::clone(&ended));
        async move {
            event.wait().await;
            ended.set(true);
        }
    });
    let awaiter = ex.spawn(async move { awaited.await.is_ok() });
    ex.run_until_stalled();
    awaiter.cancel();
    ex.run_until_stalled();
    assert!(awaiter.is_cancelled());
    assert!(!ended.get());
    assert_eq!(ex.len(), 1);
    event.set();
    ex.run_until_stalled();
    assert!(ended.get());
    assert_eq!((counts(&ex).returned, counts(&ex).cancelled), (1, 1));
}

/// B039: where the handle is only borrowed for the await, it can be awaited again by whoever has it then.
#[test]
fn an_awaited_task_can_be_awaited_again_after_its_awaiter_was_cancelled() {
    let ex = Executor::new();
    let event = Event::new();
    let shared: Rc<RefCell<Option<JoinHandle<u32>>>> = Rc::default();
    shared.replace(Some(ex.spawn({
        let event = event.clone();
        async move {
            event.wait().await;
            7
        }
    })));
    let awaits = |shared: &Rc<RefCell<Option<JoinHandle<u32>>>>| {
        let shared = Rc::clone(shared);
        poll_fn(move |cx| {
            let mut handle = shared.borrow_mut();
            Pin::new(handle.as_mut().expect("stored")).poll(cx)
        })
    };
    let first = ex.spawn(awaits(&shared));
    ex.run_until_stalled();
    first.cancel();
    ex.run_until_stalled();
    let second = ex.spawn(awaits(&shared));
    ex.run_until_stalled();
    event.set();
    let value = ex.block_on(second).expect("returned").expect("returned");
    assert_eq!(value, 7);
}

/// P5: a stale `CancelHandle` never touches a later tenant of its slot.
#[test]
fn a_stale_cancel_handle_touches_no_later_tenant() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let mut stale: Vec<CancelHandle> = Vec::new();
    for _ in 0..1_000 {
        let handle = ex.spawn(async {});
        stale.push(handle.cancel_handle());
        drop(handle);
        ex.run_until_stalled();
    }
    let tenant = parked(&ex, &drops, "tenant");
    ex.run_until_stalled();
    for canceller in &stale {
        assert!(canceller.is_finished());
        assert!(!canceller.cancel());
    }
    ex.run_until_stalled();
    assert_eq!(drops.len(), 0);
    assert!(!tenant.is_finished());
    check_accounting(&ex);
}

/// P5: nor does one whose executor is gone, in an executor that took its place.
#[test]
fn a_cancel_handle_whose_executor_is_gone_touches_nobody() {
    let stale = {
        let ex = Executor::new();
        ex.set_exception_handler(|_, _| {});
        let handle = ex.spawn(pending::<()>());
        ex.run_until_stalled();
        handle.cancel_handle()
    };
    let ex = Executor::new();
    let tenant = ex.spawn(pending::<()>());
    ex.run_until_stalled();
    assert!(stale.is_finished());
    assert!(!stale.cancel());
    ex.run_until_stalled();
    assert!(!tenant.is_finished());
}

/// P9: where a task cancels most of those that are queued behind it, the others have their one poll in that pass, in order.
#[test]
fn cancelling_most_of_a_pass_leaves_the_others_their_polls() {
    for (all, kept) in [(200_usize, 20), (400, 70), (1_000, 3)] {
        let ex = Executor::new();
        let trace = Trace::new();
        let handles: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
        let doomed = Rc::clone(&handles);
        ex.spawn(async move {
            for handle in doomed.take() {
                handle.cancel();
            }
        })
        .detach();
        for n in 0..all {
            let trace = trace.clone();
            let task = ex.spawn(async move {
                loop {
                    trace.push(n.to_string());
                    yield_n(1).await;
                }
            });
            if n % (all / kept) == 0 {
                task.detach();
            } else {
                handles.borrow_mut().push(task);
            }
        }
        let others = all.div_ceil(all / kept);
        let progress = ex.tick(1 + others);
        assert_eq!(progress.polls, 1 + others);
        let polled = trace.labels();
        let expected: Vec<_> = (0..all)
            .step_by(all / kept)
            .map(|n| n.to_string())
            .collect();
        assert_eq!(polled, expected);
        ex.tick(others);
        assert_eq!(trace.labels()[others..], expected);
    }
}

/// P9: cancelling one of many tasks leaves the order of the rest as it was.
#[test]
fn cancelling_leaves_the_order_of_the_others() {
    let ex = Executor::new();
    let trace = Trace::new();
    let handles: Vec<JoinHandle<()>> = (0..5)
        .map(|n| {
            let trace = trace.clone();
            ex.spawn(async move {
                trace.push(format!("{n} begins"));
                yield_n(1).await;
                trace.push(format!("{n} ends"));
            })
        })
        .collect();
    ex.tick(5);
    trace.assert(&["0 begins", "1 begins", "2 begins", "3 begins", "4 begins"]);
    handles[1].cancel();
    handles[3].cancel();
    ex.run_until_stalled();
    trace.assert(&["0 ends", "2 ends", "4 ends"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// CancelHandle and CancelOnDrop
// ---------------------------------------------------------------------------------------------------------------------

/// api.md: a `CancelHandle` is `Send + Sync + Clone`, names its task, and outlives the join handle.
#[test]
fn a_cancel_handle_works_without_the_join_handle() {
    fn assert_send_sync<T: Send + Sync + Clone + 'static>(_: &T) {}
    let ex = Executor::new();
    let drops = DropLog::new();
    let handle = parked(&ex, &drops, "victim");
    let id: TaskId = handle.id();
    let canceller = handle.cancel_handle();
    assert_send_sync(&canceller);
    drop(handle);
    let clone = canceller.clone();
    assert_eq!((canceller.id(), clone.id()), (id, id));
    ex.run_until_stalled();
    assert!(!clone.is_finished());
    assert!(canceller.cancel());
    assert!(clone.cancel());
    ex.run_until_stalled();
    assert!(clone.is_finished());
    assert!(!clone.cancel());
    drops.assert(&["victim"]);
}

/// api.md: a `CancelHandle` knows of an ordinary end as well.
#[test]
fn a_cancel_handle_sees_the_task_finish() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let returned = ex.spawn(yield_n(1)).cancel_handle();
    let failed = ex.spawn(async { panic!("boom") }).cancel_handle();
    assert!(!returned.is_finished());
    assert!(!failed.is_finished());
    ex.run_until_stalled();
    assert!(returned.is_finished());
    assert!(failed.is_finished());
}

/// api.md: `cancel_on_drop` cancels when it is dropped, at once while the executor is driven.
#[test]
fn cancel_on_drop_cancels() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let owned = parked(&ex, &drops, "owned").cancel_on_drop();
    ex.spawn({
        let drops = drops.clone();
        async move {
            yield_n(1).await;
            drop(owned);
            drops.assert(&["owned"]);
        }
    })
    .detach();
    ex.run_until_stalled();
    let expected = Counts {
        spawned: 2,
        returned: 1,
        cancelled: 1,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
}

/// api.md: dropped between drives it waits for the next pass like any cancel.
#[test]
fn cancel_on_drop_between_drives_waits_for_the_next_pass() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let owned = parked(&ex, &drops, "owned").cancel_on_drop();
    ex.run_until_stalled();
    drop(owned);
    assert_eq!(drops.len(), 0);
    ex.run_until_stalled();
    drops.assert(&["owned"]);
    assert_eq!(counts(&ex), ONE_CANCELLED);
}

/// api.md: a `CancelOnDrop` can be awaited like the handle it was made of, and cancels nothing once the task is finished.
#[test]
fn cancel_on_drop_gives_the_outcome() {
    let ex = Executor::new();
    let owned = ex
        .spawn(async {
            yield_n(2).await;
            7
        })
        .cancel_on_drop();
    assert_eq!(ex.block_on(owned).expect("returned"), 7);
    let finished = ex.spawn(async { 8 }).cancel_on_drop();
    ex.run_until_stalled();
    drop(finished);
    ex.run_until_stalled();
    let expected = Counts {
        spawned: 2,
        returned: 2,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
}

/// api.md, behaviours.md: with `cancel_on_drop`, and only with it, cancelling an awaiter reaches the awaited task.
#[test]
fn cancelling_the_owner_of_a_cancel_on_drop_cancels_the_owned() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let owned = parked(&ex, &drops, "owned").cancel_on_drop();
    let owner = ex.spawn(holding(
        drops.guard("owner"),
        async move { owned.await.is_ok() },
    ));
    ex.run_until_stalled();
    owner.cancel();
    ex.run_until_stalled();
    assert_eq!(drops.len(), 2);
    assert_eq!(counts(&ex).cancelled, 2);
}

/// P2: a `CancelOnDrop` of a failed task that is dropped unread: the failure was told, once.
#[test]
fn cancel_on_drop_of_a_failed_task_tells_nothing_twice() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let owned = ex.spawn(async { panic!("boom") }).cancel_on_drop();
    ex.run_until_stalled();
    drop(owned);
    drop(ex);
    assert_eq!(recorder.kinds(), [ContextKind::TaskFailed]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Cancels in destructors
// ---------------------------------------------------------------------------------------------------------------------

/// api.md, `cancel()`: nested cancels are queued, not recursed, and done before the outermost returns.
#[test]
fn nested_cancels_are_done_when_the_outermost_returns() {
    let ex = Executor::new();
    let trace = Trace::new();
    let next: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    for name in ["third", "second", "first"] {
        let then = next.take();
        let future = holding(
            on_drop({
                let trace = trace.clone();
                move || {
                    trace.push(format!("{name} begins to drop"));
                    if let Some(then) = then {
                        assert!(then.cancel());
                    }
                    trace.push(format!("{name} dropped"));
                }
            }),
            pending(),
        );
        next.replace(Some(ex.spawn(future)));
    }
    let first = next.take().expect("spawned last");
    ex.spawn({
        let trace = trace.clone();
        async move {
            first.cancel();
            trace.push("cancel returned");
        }
    })
    .detach();
    ex.run_until_stalled();
    trace.assert(&[
        "first begins to drop",
        "first dropped",
        "second begins to drop",
        "second dropped",
        "third begins to drop",
        "third dropped",
        "cancel returned",
    ]);
    assert_eq!(counts(&ex).cancelled, 3);
}

/// Design section 5: a chain of 100,000 tasks whose destructors cancel one another does not overflow the stack.
#[test]
fn a_chain_of_100_000_cancels_in_destructors_does_not_overflow_the_stack() {
    const LINKS: u64 = 100_000;
    let ex = Executor::builder().capacity(100_001).build();
    let dropped = Rc::new(Cell::new(0_u64));
    let mut next: Option<JoinHandle<()>> = None;
    for _ in 0..LINKS {
        let (then, dropped) = (next.take(), Rc::clone(&dropped));
        let link = on_drop(move || {
            dropped.set(dropped.get() + 1);
            if let Some(then) = then {
                then.cancel();
            }
        });
        next = Some(ex.spawn(holding(link, pending())));
    }
    let first = next.expect("there are links");
    ex.spawn({
        let dropped = Rc::clone(&dropped);
        async move {
            first.cancel();
            assert_eq!(dropped.get(), LINKS, "all gone before `cancel` returned");
        }
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(counts(&ex).cancelled, LINKS);
    assert_eq!(counts(&ex).returned, 1);
}

/// Design section 5: the same where each future owns the next one's `CancelOnDrop`.
#[test]
fn a_chain_of_100_000_owned_tasks_does_not_overflow_the_stack() {
    const LINKS: u64 = 100_000;
    let ex = Executor::new();
    let mut next = ex.spawn(pending::<()>()).cancel_on_drop();
    for _ in 1..LINKS {
        next = ex.spawn(holding(next, pending::<()>())).cancel_on_drop();
    }
    ex.spawn(async move { drop(next) }).detach();
    ex.run_until_stalled();
    assert_eq!(counts(&ex).cancelled, LINKS);
    assert!(ex.is_empty());
}

/// P6: tasks whose destructors cancel each other and themselves are each dropped once.
#[test]
fn destructors_that_cancel_in_a_circle_come_to_an_end() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let all: Rc<RefCell<Vec<CancelHandle>>> = Rc::default();
    for name in ["a", "b", "c"] {
        let everybody = on_drop({
            let all = Rc::clone(&all);
            move || {
                let all = all.borrow().clone();
                for canceller in all {
                    canceller.cancel();
                }
            }
        });
        let handle = ex.spawn(holding((drops.guard(name), everybody), pending::<()>()));
        all.borrow_mut().push(handle.cancel_handle());
        drop(handle);
    }
    ex.run_until_stalled();
    let first = all.borrow()[0].clone();
    ex.spawn(async move { first.cancel() }).detach();
    ex.run_until_stalled();
    assert_eq!(drops.len(), 3);
    for name in ["a", "b", "c"] {
        assert_eq!(drops.count(name), 1);
    }
    assert_eq!(counts(&ex).cancelled, 3);
    all.take();
}

/// P6: a destructor that runs because of a cancel may spawn, wake and set a handler.
#[test]
fn a_destructor_run_by_a_cancel_may_do_anything() {
    let ex = Executor::new();
    let trace = Trace::new();
    let event = Event::new();
    ex.spawn({
        let (trace, event) = (trace.clone(), event.clone());
        async move {
            event.wait().await;
            trace.push("woken");
        }
    })
    .detach();
    let busy = on_drop({
        let trace = trace.clone();
        move || {
            let local = LocalHandle::current();
            local.set_exception_handler(|_, _| {});
            mainstay::spawn(async move { trace.push("spawned") }).detach();
            event.set();
        }
    });
    let victim = ex.spawn(holding(busy, pending::<()>()));
    ex.run_until_stalled();
    ex.spawn(async move { victim.cancel() }).detach();
    ex.run_until_stalled();
    trace.assert(&["spawned", "woken"]);
    assert!(ex.has_exception_handler());
    assert!(ex.is_empty());
}

/// P3: a chain in which one destructor panics goes on to its end; only that task has failed.
#[test]
fn a_panic_in_a_chain_of_cancels_does_not_break_it() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let mut next: Option<JoinHandle<()>> = None;
    for n in (0..5).rev() {
        let then = next.take();
        let link = on_drop(move || {
            if let Some(then) = then {
                then.cancel();
            }
            if n == 2 {
                panic!("boom {n}");
            }
        });
        next = Some(ex.spawn(holding(link, pending())));
    }
    let first = next.expect("there are links");
    let canceller = ex.spawn(async move { first.cancel() });
    ex.run_until_stalled();
    assert!(ex.block_on(canceller).expect("not to blame"));
    let counts = counts(&ex);
    assert_eq!((counts.cancelled, counts.failed), (4, 1));
    assert_eq!(recorder.exceptions(), ["boom 2"]);
}

/// P3: a cancel from outside the loop does not let a destructor's panic out, whenever it is carried out.
#[test]
fn a_cancel_never_panics() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let guard = DropLog::new().guard("future").panics("boom in drop");
    let handle = ex.spawn(holding(guard, pending::<()>()));
    ex.run_until_stalled();
    let cancelled = catch_unwind(AssertUnwindSafe(|| handle.cancel()));
    assert!(matches!(cancelled, Ok(true)));
    ex.run_until_stalled();
    assert_eq!(recorder.exceptions(), ["boom in drop"]);
    assert_eq!(counts(&ex).failed, 1);
}
