//! The end of it all: being asked to end, shutting down, `run`.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mainstay::{
    Completion, ContextKind, Executor, JoinHandle, JoinSet, LocalHandle, ReportPolicy,
    ShutdownReport, Supervisor, TaskGroup, cancel_requested, run, sleep, spawn, spawn_fallible,
    timeout, yield_now,
};

use crate::support::{
    Boom, DropLog, Fault, LEAKS, Recorder, Trace, WakeCount, check_accounting, counting_waker,
    counts, in_child_ok, on_drop, panic_message, poll_once, poll_with, quiet, yield_n,
};

type Request = Pin<Box<dyn Future<Output = ()>>>;

const SECOND: Duration = Duration::from_secs(1);

fn virtual_executor<'env>() -> Executor<'env> {
    Executor::builder().virtual_clock().build()
}

/// What a report says, in one line to compare.
#[track_caller]
fn assert_ends(
    report: ShutdownReport,
    finished: usize,
    failed: usize,
    cancelled: usize,
    dropped: usize,
) {
    assert_eq!(
        (
            report.finished(),
            report.failed(),
            report.cancelled(),
            report.dropped()
        ),
        (finished, failed, cancelled, dropped),
        "finished, failed, cancelled, dropped"
    );
}

/// Shuts down, and checks P2, that nothing is left, and that the report's sum is the number of tasks concerned.
#[track_caller]
fn shut_down(ex: &Executor<'_>, grace: Duration) -> ShutdownReport {
    let before = ex.stats();
    let report = ex.shutdown(grace);
    let after = ex.stats();
    let sum = report.finished() + report.failed() + report.cancelled() + report.dropped();
    assert_eq!(
        sum as u64,
        before.live + after.spawned - before.spawned,
        "{report:?} counts every task that was live or spawned"
    );
    assert_eq!(ex.len(), 0);
    check_accounting(ex);
    report
}

// ---- cancel_requested ---------------------------------------------------------------------------

// api.md "Shutdown", B037: who is asked decides for itself, and its result is its value.
#[test]
fn a_task_that_is_asked_ends_by_itself_and_its_value_is_its_outcome() {
    let ex = virtual_executor();
    let handle = ex.spawn(async {
        cancel_requested().await;
        sleep(SECOND).await;
        "saved"
    });
    ex.run_until_stalled();
    let start = ex.now();
    assert_ends(shut_down(&ex, 5 * SECOND), 1, 0, 0, 0);
    assert_eq!(
        ex.now() - start,
        SECOND,
        "it ends with the last task, not with the grace"
    );
    assert_eq!(ex.block_on(handle).unwrap(), "saved");
}

// A task asks at the first poll, also when the request is there already; a new future is ready at once.
#[test]
fn a_request_stays_for_those_who_look_later() {
    let ex = virtual_executor();
    let trace = Trace::new();
    let log = trace.clone();
    ex.spawn(async move {
        sleep(SECOND).await;
        cancel_requested().await;
        log.push("first");
        cancel_requested().await;
        log.push("second");
        let mut third = pin!(cancel_requested());
        third.as_mut().await;
        third.as_mut().await;
        log.push("again");
    })
    .detach();
    // Somebody must keep the grace going until then.
    ex.spawn(async {
        cancel_requested().await;
        sleep(2 * SECOND).await;
    })
    .detach();
    assert_ends(shut_down(&ex, 5 * SECOND), 2, 0, 0, 0);
    trace.assert(&["first", "second", "again"]);
}

// A select in a loop makes and drops one per turn: nothing piles up, none is missed.
#[test]
fn dropping_one_loses_nothing() {
    let ex = virtual_executor();
    let handle = ex.spawn(async {
        let mut turns = 0;
        loop {
            turns += 1;
            if timeout(SECOND, cancel_requested()).await.is_ok() {
                return turns;
            }
        }
    });
    ex.block_on(async { sleep(10 * SECOND + SECOND / 2).await });
    assert_ends(shut_down(&ex, SECOND), 1, 0, 0, 0);
    assert_eq!(ex.block_on(handle).unwrap(), 11);
}

/// Ready when all are.
async fn all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(|f| Some(Box::pin(f))).collect();
    poll_fn(|cx| {
        for slot in &mut futures {
            if slot
                .as_mut()
                .is_some_and(|f| f.as_mut().poll(cx).is_ready())
            {
                *slot = None;
            }
        }
        match futures.iter().any(Option::is_some) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    })
    .await;
}

#[test]
fn many_in_one_task_are_all_ready() {
    let ex = virtual_executor();
    ex.spawn(async { all((0..100).map(|_| cancel_requested()).collect()).await })
        .detach();
    ex.run_until_stalled();
    assert_ends(shut_down(&ex, SECOND), 1, 0, 0, 0);
}

// A combinator with wakers of its own polls with those: each is woken.
#[test]
fn one_behind_a_foreign_waker_is_woken_by_that() {
    let ex = virtual_executor();
    let (waker, count) = counting_waker();
    ex.spawn(async move {
        let mut asked = Box::pin(cancel_requested());
        poll_fn(|_| poll_with(&mut asked, &waker)).await;
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(count.wakes(), 0);
    // Nothing wakes the task itself: it is dropped when the grace is over.
    assert_ends(shut_down(&ex, SECOND), 0, 0, 0, 1);
    assert_eq!(count.wakes(), 1);
}

#[test]
fn a_foreign_waker_that_is_no_longer_wanted_is_not_woken() {
    let ex = virtual_executor();
    let (waker, count) = counting_waker();
    ex.spawn(async move {
        let mut asked = Box::pin(cancel_requested());
        poll_fn(|_| {
            assert!(poll_with(&mut asked, &waker).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(asked);
        pending::<()>().await;
    })
    .detach();
    ex.run_until_stalled();
    shut_down(&ex, SECOND);
    assert_eq!(count.wakes(), 0);
}

// P3: foreign wakers may panic when they are woken or dropped.
#[test]
fn wakers_that_panic_are_reported_and_keep_nobody_from_being_asked() {
    quiet();
    let ex = virtual_executor();
    let recorder = Recorder::on(&ex);
    for count in [
        WakeCount::panicking_on_wake(),
        WakeCount::panicking_on_drop(),
    ] {
        let waker = Waker::from(count);
        ex.spawn(async move {
            let mut asked = Box::pin(cancel_requested());
            poll_fn(|_| poll_with(&mut asked, &waker)).await;
        })
        .detach();
    }
    ex.spawn(cancel_requested()).detach();
    ex.run_until_stalled();
    // Where the waker is part of the future, its destructor's panic is the task's failure.
    assert_ends(shut_down(&ex, SECOND), 1, 1, 0, 1);
    assert!(
        recorder.kinds().contains(&ContextKind::Callback),
        "{:?}",
        recorder.kinds()
    );
}

// Bound to the task that polls it first: another one that has it hears what that one is asked.
#[test]
fn one_that_moves_to_another_task_still_means_the_first() {
    let ex = virtual_executor();
    let handed = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&handed);
    let first = ex.spawn(async move {
        let mut asked = Box::pin(cancel_requested());
        poll_fn(|cx| {
            assert!(asked.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        *slot.borrow_mut() = Some(asked);
        pending::<()>().await;
    });
    ex.run_until_stalled();
    let asked = handed.take().unwrap();
    let second = ex.spawn(asked);
    ex.run_until_stalled();
    assert!(!second.is_finished());
    // The first asked, so that it is waited for; the second is woken with it.
    assert_ends(shut_down(&ex, SECOND), 1, 0, 0, 1);
    assert!(first.is_cancelled() && !second.is_cancelled());

    // The first is gone: nobody will ask it.
    let third = ex.spawn(async move {
        let mut asked = Box::pin(cancel_requested());
        poll_fn(|cx| {
            assert!(asked.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        Some(asked)
    });
    let mut asked = ex.block_on(third).unwrap().unwrap();
    let fourth = ex.spawn(async move { asked.as_mut().await });
    ex.run_until_stalled();
    assert_ends(shut_down(&ex, SECOND), 0, 0, 0, 1);
    assert!(fourth.is_cancelled());
}

// P3: what listens when its task ends is let go of, and a destructor that panics there is told.
#[test]
fn wakers_that_wait_for_a_task_that_ends_are_dropped_contained() {
    quiet();
    let ex = virtual_executor();
    let recorder = Recorder::on(&ex);
    let kept: Rc<RefCell<Option<Request>>> = Rc::default();
    let slot = Rc::clone(&kept);
    ex.spawn(async move {
        let mut asked: Request = Box::pin(cancel_requested());
        let waker = Waker::from(WakeCount::panicking_on_drop());
        assert!(poll_with(&mut asked, &waker).is_pending());
        *slot.borrow_mut() = Some(asked);
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(recorder.kinds(), [ContextKind::Destructor]);
    let asked = kept.take();
    drop(asked);
    assert_eq!(shut_down(&ex, SECOND), ShutdownReport::default());
}

#[test]
fn outside_of_a_running_executor_it_panics_at_its_first_poll() {
    let mut asked = Box::pin(cancel_requested());
    let message = panic_message(|| poll_once(&mut asked));
    assert!(
        message.contains("`cancel_requested`") && message.contains("outside of a running executor")
    );
}

#[test]
fn in_a_root_it_is_pending() {
    let ex = virtual_executor();
    ex.block_on(async {
        assert!(timeout(SECOND, cancel_requested()).await.is_err());
    });
}

// A callback is asked when the executor is shut down; so is what a callback polled before.
#[test]
fn in_a_callback_it_is_ready_when_the_executor_is_shut_down() {
    let ex = virtual_executor();
    let early: Rc<RefCell<Option<Request>>> = Rc::default();
    let slot = Rc::clone(&early);
    let (waker, count) = counting_waker();
    ex.call_soon(move || {
        let mut asked: Request = Box::pin(cancel_requested());
        assert!(poll_with(&mut asked, &waker).is_pending());
        *slot.borrow_mut() = Some(asked);
    });
    ex.run_until_stalled();
    let ready = Rc::new(Cell::new(0));
    let seen = Rc::clone(&ready);
    ex.call_soon(move || {
        let mut asked = Box::pin(cancel_requested());
        seen.set(seen.get() + usize::from(poll_once(&mut asked).is_ready()));
    });
    shut_down(&ex, SECOND);
    assert_eq!((ready.get(), count.wakes()), (1, 1));
    let mut early = early.take().unwrap();
    assert!(
        poll_once(&mut early).is_ready(),
        "there was a shutdown since the first poll"
    );

    // And one that begins afterwards waits for the next.
    let later: Rc<Cell<Option<bool>>> = Rc::default();
    let seen = Rc::clone(&later);
    ex.call_soon(move || {
        let mut asked = Box::pin(cancel_requested());
        seen.set(Some(poll_once(&mut asked).is_ready()));
    });
    ex.run_until_stalled();
    assert_eq!(later.get(), Some(false));
}

// ---- shutdown: its course -----------------------------------------------------------------------

#[test]
fn without_tasks_there_is_nothing_to_do() {
    let ex = virtual_executor();
    let start = ex.now();
    assert_eq!(shut_down(&ex, SECOND), ShutdownReport::default());
    assert_eq!(shut_down(&ex, Duration::ZERO), ShutdownReport::default());
    assert_eq!(shut_down(&ex, Duration::MAX), ShutdownReport::default());
    assert_eq!(ex.now(), start);
}

// When nobody asked: one pass, and then all are dropped, in spawn order.
#[test]
fn tasks_that_never_ask_are_dropped_after_one_pass() {
    let ex = virtual_executor();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let polls = Rc::new(Cell::new(0));
    for name in ["a", "b", "c"] {
        let (guard, polls) = (drops.guard(name), Rc::clone(&polls));
        let task = async move {
            let _guard = guard;
            loop {
                polls.set(polls.get() + 1);
                yield_now().await;
            }
        };
        if name == "b" {
            ex.task().background().spawn(task).detach();
        } else {
            ex.spawn(task).detach();
        }
    }
    let start = ex.now();
    assert_ends(shut_down(&ex, SECOND), 0, 0, 0, 3);
    assert_eq!(polls.get(), 3, "one poll each");
    drops.assert(&["a", "b", "c"]);
    assert_eq!(ex.now(), start);
    drop(ex);
    assert!(
        recorder.is_empty(),
        "nothing was destroyed while pending: {:?}",
        recorder.reports()
    );
}

// A task that was never polled gets its chance to ask.
#[test]
fn a_fresh_task_may_ask_in_the_one_pass() {
    let ex = virtual_executor();
    ex.spawn(async {
        cancel_requested().await;
        sleep(SECOND).await;
    })
    .detach();
    assert_ends(shut_down(&ex, 2 * SECOND), 1, 0, 0, 0);
}

// What never asked runs on beside one that asked: it may finish meanwhile.
#[test]
fn everything_runs_for_as_long_as_one_that_asked_is_live() {
    let ex = virtual_executor();
    ex.spawn(async { sleep(SECOND).await }).detach();
    ex.spawn(async { sleep(3 * SECOND).await }).detach();
    ex.spawn(async {
        cancel_requested().await;
        sleep(2 * SECOND).await;
    })
    .detach();
    let calls = Rc::new(Cell::new(0));
    let seen = Rc::clone(&calls);
    ex.call_later(SECOND, move || seen.set(seen.get() + 1));
    ex.run_until_stalled();
    let start = ex.now();
    assert_ends(shut_down(&ex, 10 * SECOND), 2, 0, 0, 1);
    assert_eq!((ex.now() - start, calls.get()), (2 * SECOND, 1));
}

#[test]
fn the_grace_bounds_a_task_that_swallows_the_request() {
    let ex = virtual_executor();
    let drops = DropLog::new();
    let guard = drops.guard("deaf");
    let handle = ex.spawn(async move {
        let _guard = guard;
        cancel_requested().await;
        pending::<()>().await;
    });
    ex.run_until_stalled();
    let start = ex.now();
    assert_ends(shut_down(&ex, 3 * SECOND), 0, 0, 0, 1);
    assert_eq!(ex.now() - start, 3 * SECOND);
    drops.assert(&["deaf"]);
    let error = ex.block_on(handle).unwrap_err();
    assert!(error.is_cancelled());
    assert_eq!(error.reason(), Some("the executor is being shut down"));
}

#[test]
fn what_is_due_when_the_grace_ends_still_runs() {
    let ex = virtual_executor();
    ex.spawn(async {
        cancel_requested().await;
        sleep(SECOND).await;
    })
    .detach();
    ex.run_until_stalled();
    assert_ends(shut_down(&ex, SECOND), 1, 0, 0, 0);
}

#[test]
fn no_grace_is_one_pass() {
    let ex = virtual_executor();
    ex.spawn(cancel_requested()).detach();
    ex.spawn(async {
        cancel_requested().await;
        yield_now().await;
    })
    .detach();
    assert_ends(shut_down(&ex, Duration::ZERO), 1, 0, 0, 1);
}

// The real clock: it waits, and no longer than it must.
#[test]
fn the_grace_is_real_time_on_a_real_clock() {
    let ex = Executor::new();
    ex.spawn(async {
        cancel_requested().await;
        pending::<()>().await;
    })
    .detach();
    let start = Instant::now();
    assert_ends(shut_down(&ex, Duration::from_millis(50)), 0, 0, 0, 1);
    assert!(start.elapsed() >= Duration::from_millis(50));

    // A task that spins takes no more than its share.
    ex.spawn(async {
        cancel_requested().await;
        loop {
            yield_now().await;
        }
    })
    .detach();
    assert_ends(shut_down(&ex, Duration::from_millis(20)), 0, 0, 0, 1);
    // And one that ends ends it.
    ex.spawn(async {
        cancel_requested().await;
        sleep(Duration::from_millis(5)).await;
    })
    .detach();
    assert_ends(shut_down(&ex, Duration::MAX), 1, 0, 0, 0);
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_wake_from_another_thread_is_noticed_while_it_waits() {
    let ex = Executor::new();
    let (sender, receiver) = async_channel::bounded(1);
    ex.spawn(async move {
        cancel_requested().await;
        receiver.recv().await.unwrap();
    })
    .detach();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(10));
        sender.send_blocking(()).unwrap();
    });
    assert_ends(shut_down(&ex, Duration::MAX), 1, 0, 0, 0);
    thread.join().unwrap();
}

#[test]
fn cancelled_tasks_are_told_apart_from_dropped_ones() {
    let ex = virtual_executor();
    let victim = ex.spawn(pending::<()>()).cancel_on_drop();
    ex.spawn(async {
        cancel_requested().await;
        drop(victim);
    })
    .detach();
    let early = ex.spawn(pending::<()>());
    ex.spawn(pending::<()>()).detach();
    ex.run_until_stalled();
    early.cancel(); // carried out by the next drive, which is the shutdown
    assert_ends(shut_down(&ex, SECOND), 1, 0, 2, 1);
}

#[test]
fn done_callbacks_run() {
    let ex = virtual_executor();
    let trace = Trace::new();
    for (name, asks) in [("asks", true), ("does not", false)] {
        let handle = ex.spawn(async move {
            if asks {
                cancel_requested().await;
            } else {
                pending::<()>().await;
            }
        });
        let log = trace.clone();
        handle.add_done_callback(move |done| log.push(format!("{name}: {:?}", done.outcome())));
        handle.detach();
    }
    shut_down(&ex, SECOND);
    trace.assert(&["asks: Returned", "does not: Cancelled"]);
}

// Also one that a destructor adds, at the very end, to a task that has finished: its outcome can be taken then.
#[test]
fn done_callbacks_that_destructors_add_run() {
    let ex = virtual_executor();
    let trace = Trace::new();
    let finished = Rc::new(RefCell::new(ex.spawn(async { 7 })));
    ex.run_until_stalled();
    let (handle, log) = (Rc::clone(&finished), trace.clone());
    let guard = on_drop(move || {
        let call = move |_: &Completion<'_>| log.push("called");
        handle.borrow().add_done_callback(call);
    });
    ex.spawn(async move {
        let _guard = guard;
        pending::<()>().await;
    })
    .detach();
    shut_down(&ex, SECOND);
    trace.assert(&["called"]);
    assert_eq!(finished.borrow_mut().result().unwrap().unwrap(), 7);
}

// Callbacks: those that are ready or due run, later ones are dropped, and their timers with them.
#[test]
fn callbacks_run_until_the_end_and_are_dropped_then() {
    let ex = virtual_executor();
    let (trace, drops) = (Trace::new(), DropLog::new());
    for (name, delay) in [
        ("soon", None),
        ("due", Some(Duration::ZERO)),
        ("later", Some(SECOND)),
    ] {
        let (log, guard) = (trace.clone(), drops.guard(name));
        let call = move || {
            let _guard = guard;
            log.push(name);
        };
        match delay {
            None => ex.call_soon(call),
            Some(delay) => ex.call_later(delay, call),
        };
    }
    assert_eq!(shut_down(&ex, SECOND), ShutdownReport::default());
    trace.assert(&["soon", "due"]);
    assert_eq!(drops.len(), 3);
    assert_eq!(ex.tick(1).next_deadline, None, "its timer is gone too");
}

// ---- shutdown: failures -------------------------------------------------------------------------

// B075: told with kind `Shutdown`, once, under both policies, whoever holds the handle.
#[test]
fn failures_during_it_are_reported_once_with_their_own_kind() {
    quiet();
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        let ex = Executor::builder().virtual_clock().report(policy).build();
        let recorder = Recorder::on(&ex);
        let held: JoinHandle<Result<(), Fault>> = ex.spawn_fallible(async {
            cancel_requested().await;
            sleep(SECOND).await;
            Err(Fault("cannot save"))
        });
        ex.spawn(async {
            cancel_requested().await;
            panic_any(Boom("cannot close"));
        })
        .detach();
        let guard = DropLog::new().guard("late").panics("boom in a destructor");
        ex.spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        })
        .detach();
        assert_ends(shut_down(&ex, 2 * SECOND), 0, 3, 0, 0);
        assert_eq!(recorder.kinds(), [ContextKind::Shutdown; 3], "{policy:?}");
        assert_eq!(
            recorder.reports()[0].message,
            "Task failed while the executor was shut down"
        );
        assert_eq!(recorder.exceptions()[1], "cannot save");
        drop(held);
        drop(ex);
        assert_eq!(recorder.len(), 3, "not again");
    }
}

// What failed before the shutdown is no failure of it.
#[test]
fn earlier_failures_keep_their_kind() {
    quiet();
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();
    let recorder = Recorder::on(&ex);
    let unread = ex.spawn(async { panic_any(Boom("early")) });
    ex.run_until_stalled();
    shut_down(&ex, Duration::ZERO);
    assert!(recorder.is_empty());
    drop(ex);
    assert_eq!(recorder.kinds(), [ContextKind::NeverRetrieved]);
    drop(unread);
}

// A tick's budget may leave what has failed to be told: that is told first.
#[test]
fn what_an_earlier_tick_has_left_is_no_failure_of_the_shutdown() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let guard = DropLog::new()
        .guard("victim")
        .panics("boom in a destructor");
    let victim = ex.spawn(async move {
        let _guard = guard;
        pending::<()>().await;
    });
    ex.run_until_stalled();
    victim.add_done_callback(|_| {});
    ex.spawn(async move {
        victim.cancel();
        panic_any(Boom("too"));
    })
    .detach();
    ex.tick(1);
    assert_eq!(recorder.len(), 1, "the other one waits for its turn");
    assert_eq!(shut_down(&ex, SECOND), ShutdownReport::default());
    assert_eq!(recorder.kinds(), [ContextKind::TaskFailed; 2]);
}

#[test]
fn a_handler_may_do_anything_meanwhile() {
    quiet();
    let ex = virtual_executor();
    let reports = Rc::new(Cell::new(0));
    let seen = Rc::clone(&reports);
    ex.set_exception_handler(move |ex, report| {
        assert_eq!(report.kind(), ContextKind::Shutdown);
        seen.set(seen.get() + 1);
        ex.spawn(pending::<()>()).detach();
        if seen.get() < 10 {
            ex.spawn(async { panic_any(Boom("again")) }).detach();
        }
        panic_any(Boom("in the handler"));
    });
    ex.spawn(async {
        cancel_requested().await;
        panic_any(Boom("first"));
    })
    .detach();
    ex.spawn(async {
        cancel_requested().await;
        sleep(SECOND).await;
    })
    .detach();
    let report = shut_down(&ex, 2 * SECOND);
    assert_eq!(report.failed(), reports.get());
    assert_ends(report, 1, 10, 0, 10);
}

// ---- shutdown: nothing hangs it -----------------------------------------------------------------

// asyncio.run's hole: tasks created during the shutdown are asked too.
#[test]
fn tasks_spawned_meanwhile_are_asked_and_counted() {
    let ex = virtual_executor();
    ex.spawn(async {
        cancel_requested().await;
        spawn(async {
            cancel_requested().await;
            sleep(SECOND).await;
        })
        .detach();
        spawn(pending::<()>()).detach();
    })
    .detach();
    assert_ends(shut_down(&ex, 2 * SECOND), 2, 0, 0, 1);
}

fn respawn(count: Rc<Cell<usize>>) -> Request {
    Box::pin(async move {
        count.set(count.get() + 1);
        cancel_requested().await;
        let next = spawn(respawn(Rc::clone(&count)));
        if next.is_finished() {
            let error = next.await.unwrap_err();
            assert!(error.is_cancelled());
            assert_eq!(error.reason(), Some("the executor is being shut down"));
            count.set(count.get() + 1_000);
        }
    })
}

// So are those that come through a spawner.
#[test]
fn tasks_from_elsewhere_are_asked_too() {
    let ex = virtual_executor();
    let spawner = ex.spawner();
    ex.spawn(async move {
        cancel_requested().await;
        let late = spawner.spawn(|| async {
            cancel_requested().await;
            sleep(SECOND).await;
        });
        late.unwrap_or_else(|_| panic!("it is open")).await.unwrap();
    })
    .detach();
    let start = ex.now();
    assert_ends(shut_down(&ex, 10 * SECOND), 2, 0, 0, 0);
    assert_eq!(ex.now() - start, SECOND);
}

// B094's idea: endless re-spawners end after 100 rounds.
#[test]
fn re_spawners_are_refused_after_a_hundred_rounds() {
    let ex = virtual_executor();
    let count = Rc::new(Cell::new(0));
    ex.spawn(respawn(Rc::clone(&count))).detach();
    // The last one is refused: cancelled by its spawn, unpolled.
    assert_ends(shut_down(&ex, Duration::MAX), 101, 0, 1, 0);
    assert_eq!(count.get(), 1_101);
    let after = ex.spawn(async { 7 });
    assert_eq!(ex.block_on(after).unwrap(), 7, "that is over");
}

// Nobody asked, and somebody spawns in every pass: newcomers have their pass, a hundred times.
#[test]
fn a_task_that_spawns_for_ever_and_never_asks_is_cut_off() {
    let ex = Executor::new();
    ex.spawn(async {
        loop {
            spawn(pending::<()>()).detach();
            yield_now().await;
        }
    })
    .detach();
    assert_ends(shut_down(&ex, Duration::MAX), 0, 0, 1, 101);
}

// A chain of tasks is no endless one as long as one that was there before is live.
#[test]
fn a_server_that_drains_may_spawn_as_often_as_it_needs() {
    let ex = virtual_executor();
    ex.spawn(async {
        cancel_requested().await;
        for _ in 0..1_000 {
            spawn(async {}).await.unwrap();
        }
    })
    .detach();
    assert_ends(shut_down(&ex, SECOND), 1_001, 0, 0, 0);
}

struct SpawnsItsLike<'env>(LocalHandle<'env>, Rc<Cell<usize>>);

impl Drop for SpawnsItsLike<'_> {
    fn drop(&mut self) {
        self.1.set(self.1.get() + 1);
        let next = SpawnsItsLike(self.0.clone(), Rc::clone(&self.1));
        self.0
            .spawn(async move {
                let _next = next;
                pending::<()>().await;
            })
            .detach();
    }
}

struct CallsItsLike<'env>(LocalHandle<'env>);

impl Drop for CallsItsLike<'_> {
    fn drop(&mut self) {
        let next = CallsItsLike(self.0.clone());
        self.0.call_soon(move || drop(next));
    }
}

// A destructor that spawns its like is dropped in rounds, then at once, and at last leaked, with a report. Borrowing tasks
// and others alike: nothing recurses.
#[test]
fn destructors_that_spawn_for_ever_are_cut_off() {
    let test = "shutdown::destructors_that_spawn_for_ever_are_cut_off";
    in_child_ok(test, &LEAKS, || {
        let borrowed = Cell::new(0);
        for borrows in [false, true] {
            let ex = virtual_executor();
            let recorder = Recorder::on(&ex);
            let count = Rc::new(Cell::new(0));
            if borrows {
                let (first, borrowed) = (SpawnsItsLike(ex.handle(), Rc::clone(&count)), &borrowed);
                let task = async move {
                    let _first = first;
                    borrowed.set(borrowed.get() + 1);
                    pending::<()>().await;
                };
                ex.spawn(task).detach();
            } else {
                let count = Rc::clone(&count);
                ex.spawn(async move {
                    let _first = SpawnsItsLike(LocalHandle::current(), count);
                    pending::<()>().await;
                })
                .detach();
            }
            let report = shut_down(&ex, SECOND);
            assert_eq!(report.dropped(), count.get());
            assert!(count.get() > 1_000_000);
            assert_eq!(recorder.kinds(), [ContextKind::Destructor]);
            assert_eq!(ex.stats().reports, 1);
            // That is over: a later shutdown refuses in its own turn.
            ex.spawn(respawn(Rc::default())).detach();
            assert_ends(shut_down(&ex, SECOND), 101, 0, 1, 0);
            // What was leaked holds nothing up.
            assert_eq!(ex.block_on(ex.spawn(async { 7 })).unwrap(), 7);
        }
    });
}

#[test]
fn destructors_of_callbacks_that_call_for_ever_are_cut_off() {
    let test = "shutdown::destructors_of_callbacks_that_call_for_ever_are_cut_off";
    in_child_ok(test, &LEAKS, || {
        let ex = virtual_executor();
        let recorder = Recorder::on(&ex);
        let first = CallsItsLike(ex.handle());
        ex.call_later(SECOND, move || drop(first));
        shut_down(&ex, SECOND);
        assert_eq!(recorder.kinds(), [ContextKind::Destructor]);
    });
}

#[test]
fn a_task_that_yields_for_ever_cannot_stop_a_virtual_clock() {
    for grace in [SECOND, Duration::MAX] {
        let ex = virtual_executor();
        ex.spawn(async {
            cancel_requested().await;
            loop {
                yield_now().await;
            }
        })
        .detach();
        assert_ends(shut_down(&ex, grace), 0, 0, 0, 1);
    }
}

fn again(ex: &LocalHandle<'static>) {
    let handle = ex.clone();
    ex.call_soon(move || {
        handle.spawn(async {}).detach();
        again(&handle);
    });
}

#[test]
fn callbacks_that_call_themselves_for_ever_end_with_it() {
    let ex = virtual_executor();
    again(&ex.handle());
    shut_down(&ex, SECOND);
    again(&ex.handle());
    ex.spawn(async {
        cancel_requested().await;
        pending::<()>().await;
    })
    .detach();
    shut_down(&ex, Duration::MAX);
    assert_eq!(ex.run_until_stalled().polls, 0, "no callback is left");
}

// With a virtual clock there is nothing to wait for where there is no deadline.
#[test]
fn an_endless_grace_ends_where_nothing_can_happen() {
    let ex = virtual_executor();
    ex.spawn(async {
        cancel_requested().await;
        sleep(SECOND).await;
        pending::<()>().await;
    })
    .detach();
    let start = ex.now();
    assert_ends(shut_down(&ex, Duration::MAX), 0, 0, 0, 1);
    assert_eq!(ex.now() - start, SECOND, "what could happen has happened");
}

// ---- shutdown: stopping, re-entry, reuse --------------------------------------------------------

#[test]
fn stop_ends_the_grace_at_once() {
    let ex = virtual_executor();
    ex.spawn(async {
        cancel_requested().await;
        sleep(SECOND).await;
        LocalHandle::current().stop();
        yield_n(5).await;
    })
    .detach();
    let start = ex.now();
    assert_ends(shut_down(&ex, 10 * SECOND), 0, 0, 0, 1);
    assert_eq!(ex.now() - start, SECOND);
    // It is spent: the next drive does not stop.
    assert_eq!(ex.block_on(async { 7 }), 7);
    ex.spawn(async { sleep(SECOND).await }).detach();
    ex.block_on(ex.idle());

    // One that came before counts as well.
    ex.stop();
    ex.spawn(async {
        cancel_requested().await;
        sleep(SECOND).await;
    })
    .detach();
    assert_ends(shut_down(&ex, 10 * SECOND), 0, 0, 0, 1);

    // And one out of a destructor.
    let handle = ex.handle();
    let guard = on_drop(move || handle.stop());
    ex.spawn(async move {
        let _guard = guard;
        pending::<()>().await;
    })
    .detach();
    shut_down(&ex, SECOND);
    assert_eq!(ex.block_on(async { yield_now().await }), ());
}

#[test]
fn stop_with_unwinds_when_everything_is_dropped() {
    quiet();
    let ex = virtual_executor();
    let drops = DropLog::new();
    for name in ["a", "b"] {
        let guard = drops.guard(name);
        ex.spawn(async move {
            let _guard = guard;
            cancel_requested().await;
            LocalHandle::current().stop_with(Box::new("fatal"));
            pending::<()>().await;
        })
        .detach();
    }
    let recorder = Recorder::on(&ex);
    let payload = catch_unwind(AssertUnwindSafe(|| ex.shutdown(SECOND))).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"fatal"));
    drops.assert(&["a", "b"]);
    assert_eq!(recorder.kinds(), [ContextKind::Other], "the second payload");
    assert_eq!(counts(&ex).live, 0);
    assert_eq!(ex.block_on(async { 7 }), 7);
}

// B067: from inside it panics there, and the loop goes on.
#[test]
fn from_inside_a_drive_it_panics() {
    let ex = Rc::new(virtual_executor());
    let weak = Rc::downgrade(&ex);
    let message = ex.block_on(async move {
        let ex = weak.upgrade().unwrap();
        panic_message(|| ex.shutdown(SECOND))
    });
    assert!(
        message.contains("`shutdown`") && message.contains("driven already"),
        "{message}"
    );
    let weak = Rc::downgrade(&ex);
    let handle = ex.spawn(async move {
        cancel_requested().await;
        let ex = weak.upgrade().unwrap();
        panic_message(|| ex.shutdown(SECOND))
    });
    assert_ends(shut_down(&ex, SECOND), 1, 0, 0, 0);
    assert!(ex.block_on(handle).unwrap().contains("`shutdown`"));
}

// api.md "Shutdown": it waits for as long as a live task that asks is there. A scope that has been left, whose last members
// are still on the poll stack or go on without it, is none.
#[test]
fn a_scope_that_was_left_holds_up_no_shutdown() {
    /// Asks, and then drops the scope that it is in from inside of its own poll.
    async fn member(host: Rc<RefCell<Option<JoinHandle<()>>>>) {
        assert!(poll_once(&mut pin!(cancel_requested())).is_pending());
        yield_now().await;
        let host = host.take().expect("the host's handle");
        assert!(host.cancel());
        pending::<()>().await;
    }
    type Host = fn(Request) -> Request;
    let hosts: [(&str, Host); 3] = [
        ("TaskGroup", |member| {
            Box::pin(async {
                let scope = TaskGroup::scope(async |g| {
                    g.spawn(member).detach();
                    pending::<()>().await;
                });
                scope.await.unwrap();
            })
        }),
        ("Supervisor", |member| {
            Box::pin(Supervisor::scope(async |s| {
                s.spawn(member).detach();
                pending::<()>().await;
            }))
        }),
        ("JoinSet", |member| {
            Box::pin(async {
                let mut set = JoinSet::new();
                set.spawn(member);
                set.join_next().await;
            })
        }),
    ];
    for (name, host) in hosts {
        let ex = virtual_executor();
        let slot = Rc::new(RefCell::new(None));
        let handle = ex.spawn(host(Box::pin(member(Rc::clone(&slot)))));
        slot.replace(Some(handle));
        ex.run_until_stalled();
        assert_eq!(ex.len(), 0, "{name}");
        let before = ex.now();
        shut_down(&ex, SECOND * 3600);
        assert_eq!(ex.now(), before, "{name}: nobody asks");
    }
}

#[test]
fn a_set_whose_tasks_were_let_go_holds_up_no_shutdown() {
    let ex = virtual_executor();
    ex.block_on(async {
        spawn(async {
            let mut set = JoinSet::new();
            set.spawn(async {
                assert!(poll_once(&mut pin!(cancel_requested())).is_pending());
                sleep(SECOND).await;
            });
            assert!(poll_once(&mut pin!(set.join_next())).is_pending());
            yield_now().await; // it asks
            set.detach_all();
        })
        .await
        .unwrap();
        sleep(SECOND * 2).await;
    });
    assert_eq!(ex.len(), 0);
    let before = ex.now();
    shut_down(&ex, SECOND * 3600);
    assert_eq!(ex.now(), before, "nobody asks");
}

#[test]
fn another_executor_can_be_shut_down_in_a_task() {
    let outer = virtual_executor();
    outer.block_on(async {
        let inner = virtual_executor();
        inner
            .spawn(async {
                cancel_requested().await;
                sleep(SECOND).await;
            })
            .detach();
        assert_ends(shut_down(&inner, 2 * SECOND), 1, 0, 0, 0);
    });
}

// B068, B080: twice is as good as once, and the executor goes on.
#[test]
fn afterwards_the_executor_is_as_good_as_new() {
    quiet();
    let ex = virtual_executor();
    let recorder = Recorder::on(&ex);
    ex.spawn(cancel_requested()).detach();
    assert_ends(shut_down(&ex, SECOND), 1, 0, 0, 0);
    assert_ends(shut_down(&ex, SECOND), 0, 0, 0, 0);
    let fresh = ex.spawn(cancel_requested());
    ex.run_until_stalled();
    assert!(!fresh.is_finished(), "it has not been asked");
    ex.spawn(async { panic_any(Boom("ordinary")) }).detach();
    ex.run_until_stalled();
    assert_eq!(recorder.kinds(), [ContextKind::TaskFailed]);
    assert_ends(shut_down(&ex, SECOND), 1, 0, 0, 0);
}

// B080: what one `block_on` leaves goes on in the next.
#[test]
fn leftovers_of_one_drive_go_on_in_the_next_until_they_are_shut_down() {
    let ex = virtual_executor();
    let mut left = None;
    ex.block_on(async {
        left = Some(spawn(async {
            sleep(2 * SECOND).await;
            7
        }));
    });
    let left = left.unwrap();
    assert!(!left.is_finished());
    assert_eq!(ex.block_on(left).unwrap(), 7);
}

#[test]
fn borrowing_tasks_are_dropped_while_what_they_borrow_lives() {
    let log = RefCell::new(Vec::new());
    let ex = virtual_executor();
    ex.spawn(async {
        let _left = on_drop(|| log.borrow_mut().push("dropped"));
        pending::<()>().await;
    })
    .detach();
    ex.spawn(async {
        cancel_requested().await;
        log.borrow_mut().push("asked");
    })
    .detach();
    assert_ends(shut_down(&ex, SECOND), 1, 0, 0, 1);
    assert_eq!(*log.borrow(), ["asked", "dropped"]);
}

#[test]
fn idle_waits_through_it() {
    let ex = virtual_executor();
    let (waker, count) = counting_waker();
    let mut idle = Box::pin(ex.idle());
    ex.spawn(pending::<()>()).detach();
    assert!(poll_with(&mut idle, &waker).is_pending());
    shut_down(&ex, SECOND);
    assert_eq!(count.wakes(), 1);
    assert!(poll_with(&mut idle, &waker).is_ready());
}

// ---- run ----------------------------------------------------------------------------------------

// B074: leftovers have ended before it returns.
#[test]
fn run_drains_what_the_root_has_left() {
    let drops = DropLog::new();
    let trace = Trace::new();
    let (guard, log) = (drops.guard("deaf"), trace.clone());
    let answer = run(async {
        spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        })
        .detach();
        spawn(async move {
            cancel_requested().await;
            log.push("asked");
            spawn(async move {
                cancel_requested().await;
                log.push("asked too");
            })
            .detach();
        })
        .detach();
        yield_now().await;
        6 * 7
    });
    assert_eq!(answer, 42);
    drops.assert(&["deaf"]);
    trace.assert(&["asked", "asked too"]);
}

/// Installs a recorder from inside of `run`.
fn record() -> Recorder {
    let recorder = Recorder::new();
    let log = recorder.clone();
    LocalHandle::current().set_exception_handler(move |_, report| log.record(report));
    recorder
}

fn leave_one_that_fails() {
    spawn_fallible(async {
        cancel_requested().await;
        Err::<(), _>(Fault("cannot save"))
    })
    .detach();
}

// B075, B079: the root's value and error are what it gives, whatever the leftovers do.
#[test]
fn run_gives_what_the_root_gave_and_reports_the_rest() {
    quiet();
    for outcome in [Ok(7), Err(Fault("root"))] {
        let expected = outcome.clone();
        let recorder = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&recorder);
        let got = run(async move {
            *slot.borrow_mut() = Some(record());
            leave_one_that_fails();
            yield_now().await;
            outcome
        });
        assert_eq!(got, expected);
        let recorder = recorder.take().unwrap();
        assert_eq!(recorder.kinds(), [ContextKind::Shutdown]);
    }
}

// B073, B079: the root's panic comes out, after the shutdown, and is not reported.
#[test]
fn the_roots_panic_comes_out_after_the_shutdown() {
    quiet();
    let trace = Trace::new();
    let log = trace.clone();
    let recorder = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&recorder);
    let payload = catch_unwind(AssertUnwindSafe(|| {
        run(async move {
            *slot.borrow_mut() = Some(record());
            leave_one_that_fails();
            spawn(async move {
                cancel_requested().await;
                log.push("saved");
                // The root's comes first.
                LocalHandle::current().stop_with(Box::new("second"));
            })
            .detach();
            yield_now().await;
            panic_any(Boom("root"));
        })
    }))
    .unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&Boom("root")));
    trace.assert(&["saved"]);
    let recorder = recorder.take().unwrap();
    assert_eq!(
        recorder.kinds(),
        [ContextKind::Shutdown, ContextKind::Other]
    );
}

#[test]
fn a_stop_comes_out_of_run_after_the_shutdown() {
    quiet();
    // Before the root had finished, politely.
    let drops = DropLog::new();
    let guard = drops.guard("left");
    let message = panic_message(|| {
        run(async move {
            spawn(async move {
                let _guard = guard;
                pending::<()>().await;
            })
            .detach();
            LocalHandle::current().stop();
            pending::<()>().await;
        })
    });
    assert!(
        message.contains("stopped before the root finished"),
        "{message}"
    );
    drops.assert(&["left"]);

    // With a payload, before the root had finished, and during the shutdown.
    for early in [true, false] {
        let value = drops.guard("value");
        let payload = catch_unwind(AssertUnwindSafe(|| {
            run(async move {
                if early {
                    LocalHandle::current().stop_with(Box::new(7));
                } else {
                    spawn(async {
                        cancel_requested().await;
                        LocalHandle::current().stop_with(Box::new(7));
                    })
                    .detach();
                }
                value
            })
        }))
        .unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&7));
    }
    assert_eq!(drops.count("value"), 2);
}

// Where a payload beats the root's value, that is dropped contained.
#[test]
fn the_value_that_run_drops_may_panic() {
    quiet();
    let log = DropLog::new();
    let value = log.guard("value").panics("boom in the value");
    let recorder = Recorder::new();
    let told = recorder.clone();
    let payload = catch_unwind(AssertUnwindSafe(|| {
        run(async move {
            LocalHandle::current().set_exception_handler(move |_, report| told.record(report));
            spawn(async {
                cancel_requested().await;
                LocalHandle::current().stop_with(Box::new(7));
            })
            .detach();
            value
        })
    }));
    assert_eq!(payload.unwrap_err().downcast_ref(), Some(&7));
    log.assert(&["value"]);
    assert_eq!(recorder.only().kind, ContextKind::Destructor);
}

// What fails before the shutdown is told as ever, and not again at the end.
#[test]
fn earlier_failures_are_told_as_ever() {
    quiet();
    let recorder = Recorder::new();
    let log = recorder.clone();
    let mut handle = None;
    run(async {
        LocalHandle::current().set_exception_handler(move |_, report| log.record(report));
        handle = Some(spawn(async { panic_any(Boom("unread")) }));
        yield_now().await;
    });
    assert_eq!(recorder.kinds(), [ContextKind::TaskFailed]);
    drop(handle);
    assert_eq!(recorder.len(), 1);
}

// B070: inside a task of another executor it is that executor which waits.
#[test]
fn run_works_in_a_task_of_another_executor() {
    let ex = Executor::new();
    let handle = ex.spawn(async { run(async { spawn(async { 7 }).await.unwrap() }) });
    assert_eq!(ex.block_on(handle).unwrap(), 7);
    assert_eq!(run(async { run(async { 8 }) }), 8);
}

#[test]
fn run_is_bounded_in_time() {
    let start = Instant::now();
    run(async {
        spawn(async {
            cancel_requested().await;
            loop {
                spawn(pending::<()>()).detach();
                sleep(Duration::from_millis(1)).await;
            }
        })
        .detach();
        yield_now().await;
    });
    let took = start.elapsed();
    assert!(took >= SECOND && took < 30 * SECOND, "{took:?}");
}

// A poll of a context that is nobody's task, while a shutdown runs, is P6's affair: the wakers of listeners may call anything.
#[test]
fn a_listeners_waker_may_spawn_and_cancel() {
    struct Spawns(Rc<Executor<'static>>);
    thread_local! { static HOME: RefCell<Option<Spawns>> = const { RefCell::new(None) }; }
    struct Waking;
    impl std::task::Wake for Waking {
        fn wake(self: std::sync::Arc<Self>) {
            HOME.with(|home| {
                let home = home.borrow();
                let ex = &home.as_ref().unwrap().0;
                ex.spawn(pending::<()>()).detach();
                ex.spawn(pending::<()>()).cancel();
            });
        }
    }
    let ex = Rc::new(virtual_executor());
    HOME.set(Some(Spawns(Rc::clone(&ex))));
    ex.spawn(async {
        let waker = Waker::from(std::sync::Arc::new(Waking));
        let mut asked = Box::pin(cancel_requested());
        let mut cx = Context::from_waker(&waker);
        assert!(asked.as_mut().poll(&mut cx).is_pending());
        asked.await;
    })
    .detach();
    ex.run_until_stalled();
    assert_ends(shut_down(&ex, SECOND), 1, 0, 1, 1);
    HOME.take();
}
