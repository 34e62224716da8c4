//! `JoinSet`: tasks added at any time, outcomes as they come, nothing lost.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, ready};
use std::panic::panic_any;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use mainstay::{
    CancelHandle, ContextKind, Executor, JoinSet, LocalHandle, ReportPolicy, Supervisor, TaskId,
    cancel_requested, sleep, spawn, timeout, yield_now,
};

use crate::support::{
    DropLog, Recorder, check_accounting, counting_waker, counts, holding, on_drop, panic_message,
    poll_with, quiet,
};

const SECOND: Duration = Duration::from_secs(1);

fn executor() -> (Executor<'static>, Recorder) {
    quiet();
    let ex = Executor::builder().virtual_clock().build();
    let recorder = Recorder::on(&ex);
    (ex, recorder)
}

async fn after<T>(seconds: u32, value: T) -> T {
    sleep(SECOND * seconds).await;
    value
}

#[test]
fn outcomes_come_in_the_order_of_the_ends() {
    let (ex, recorder) = executor();
    let seen = ex.block_on(async {
        let mut set = JoinSet::new();
        let ids: Vec<TaskId> = [3, 1, 2].map(|n| set.spawn(after(n, n))).into();
        assert_eq!(set.len(), 3);
        let mut seen = Vec::new();
        while let Some((id, outcome)) = set.join_next().await {
            let n = outcome.unwrap();
            assert_eq!(
                ids.iter().position(|other| *other == id),
                Some([9, 1, 2, 0][n as usize])
            );
            seen.push(n);
        }
        assert!(set.is_empty() && set.join_next().await.is_none());
        seen
    });
    assert_eq!(seen, [1, 2, 3]);
    assert!(recorder.is_empty());
    assert_eq!(counts(&ex).live, 0);
}

#[test]
fn a_task_of_a_set_may_have_a_name() {
    let (ex, _) = executor();
    ex.block_on(async {
        let mut set = JoinSet::new();
        set.spawn_named("fetch", pending::<()>());
        assert_eq!(LocalHandle::current().tasks()[0].name(), "fetch");
    });
}

/// Tasks can be added while others are waited for, also by a task that was told of an end.
#[test]
fn tasks_are_added_at_any_time() {
    let (ex, _) = executor();
    let total = ex.block_on(async {
        let mut set = JoinSet::new();
        set.spawn(after(1, 10_u32));
        let mut total = 0;
        while let Some((_, outcome)) = set.join_next().await {
            let n = outcome.unwrap();
            total += n;
            if n > 1 {
                set.spawn(after(1, n / 2));
                set.spawn(ready(1));
            }
        }
        total
    });
    assert_eq!(total, 10 + 5 + 2 + 1 + 3);
}

/// Failures are outcomes: handed on, told nobody else.
#[test]
fn failures_are_outcomes() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        quiet();
        let ex = Executor::builder().virtual_clock().report(policy).build();
        let recorder = Recorder::on(&ex);
        ex.block_on(async {
            let mut set: JoinSet<Result<(), &str>> = JoinSet::new();
            set.spawn_fallible(after(1, Err("an error")));
            set.spawn(async { panic_any("a panic") });
            let (_, panicked) = set.join_next().await.unwrap();
            assert!(panicked.unwrap_err().is_panic());
            let (_, failed) = set.join_next().await.unwrap();
            assert_eq!(failed.unwrap(), Err("an error"));
        });
        assert!(recorder.is_empty());
        let end = counts(&ex);
        assert_eq!((end.failed, end.retrieved, end.unread), (2, 2, 0));
    }
}

/// What nobody took is reported when the set goes, once, and what has not ended is cancelled and gone.
#[test]
fn a_dropped_set_reports_what_was_not_taken_and_cancels_the_rest() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        quiet();
        let ex = Executor::builder().virtual_clock().report(policy).build();
        let recorder = Recorder::on(&ex);
        let log = DropLog::new();
        ex.block_on(async {
            let mut set: JoinSet<Result<(), &str>> = JoinSet::new();
            set.spawn_fallible(ready(Err("an error")));
            set.spawn(async { panic_any("a panic") });
            set.spawn(holding(log.guard("pending"), pending()));
            yield_now().await;
            assert!(recorder.is_empty(), "the set may still hand them on");
            drop(set);
            log.assert(&["pending"]);
            assert_eq!(LocalHandle::current().stats().live, 0);
        });
        assert_eq!(recorder.exceptions(), ["an error", "a panic"]);
        let end = counts(&ex);
        assert_eq!((end.failed, end.reported, end.cancelled), (2, 2, 1));
    }
}

/// Also between drives: the tasks are `'static`.
#[test]
fn a_set_dropped_between_drives_cancels_at_once() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let set = ex.block_on(async {
        let mut set = JoinSet::new();
        set.spawn(holding(log.guard("pending"), pending::<()>()));
        set
    });
    drop(set);
    log.assert(&["pending"]);
    assert_eq!((ex.len(), counts(&ex).cancelled), (0, 1));
}

#[test]
fn one_task_of_a_set_can_be_cancelled() {
    let (ex, _) = executor();
    ex.block_on(async {
        let mut set = JoinSet::new();
        let first = set.spawn(pending::<()>());
        let second = set.spawn(after(1, ()));
        assert!(set.cancel(first));
        assert!(!set.cancel(first), "it has ended");
        let (id, outcome) = set.join_next().await.unwrap();
        assert!(id == first && outcome.unwrap_err().is_cancelled());
        assert!(!set.cancel(first), "it was taken");
        assert_eq!(set.join_next().await.unwrap().0, second);
    });
    check_accounting(&ex);
}

#[test]
fn all_of_a_set_can_be_cancelled_and_it_goes_on() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    ex.block_on(async {
        let mut set = JoinSet::new();
        for n in 0..3 {
            set.spawn(holding(log.guard(n.to_string()), pending::<u8>()));
        }
        set.cancel_all();
        log.assert(&["0", "1", "2"]);
        assert_eq!(set.len(), 3, "their outcomes are still to be taken");
        set.spawn(ready(7));
        let mut cancelled = 0;
        while let Some((_, outcome)) = set.join_next().await {
            match outcome {
                Ok(value) => assert_eq!(value, 7),
                Err(error) => {
                    assert!(error.is_cancelled());
                    cancelled += 1;
                }
            }
        }
        assert_eq!(cancelled, 3);
    });
    assert!(recorder.is_empty());
}

#[test]
fn tasks_that_are_let_go_run_on() {
    let (ex, recorder) = executor();
    let done = Rc::new(Cell::new(0));
    ex.block_on(async {
        let mut set = JoinSet::new();
        set.limit(1);
        for n in 0..3 {
            let done = Rc::clone(&done);
            set.spawn(async move {
                sleep(SECOND).await;
                done.set(done.get() + 1);
                assert!(n != 2, "the last");
            });
        }
        yield_now().await;
        set.detach_all();
        sleep(5 * SECOND).await;
    });
    assert_eq!(done.get(), 3);
    assert_eq!(recorder.len(), 1, "as any task's failure");
    check_accounting(&ex);
}

/// Their failures are told when they happen, not when their outcomes go.
#[test]
fn failures_of_tasks_that_are_let_go_are_told_like_any_others() {
    let (ex, recorder) = executor();
    ex.block_on(async {
        let mut set = JoinSet::new();
        set.spawn(async {
            yield_now().await;
            panic_any("boom")
        });
        set.detach_all();
    });
    ex.run_until_stalled();
    assert_eq!(recorder.only().kind, ContextKind::TaskFailed);
}

/// `join_next` is cancel safe.
#[test]
fn a_dropped_join_next_loses_no_outcome() {
    let (ex, _) = executor();
    let got = ex.block_on(async {
        let mut set = JoinSet::new();
        set.spawn(after(3, 'x'));
        assert!(timeout(SECOND, set.join_next()).await.is_err());
        assert!(set.try_join_next().is_none());
        sleep(5 * SECOND).await;
        let got = set.try_join_next().unwrap().1.unwrap();
        assert!(set.try_join_next().is_none());
        got
    });
    assert_eq!(got, 'x');
}

#[test]
fn a_limited_set_runs_so_many_at_once() {
    let (ex, _) = executor();
    let most = ex.block_on(async {
        let (running, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let mut set = JoinSet::new();
        set.limit(2);
        for _ in 0..9 {
            let (running, most) = (Rc::clone(&running), Rc::clone(&most));
            set.spawn(async move {
                running.set(running.get() + 1);
                most.set(most.get().max(running.get()));
                sleep(SECOND).await;
                running.set(running.get() - 1);
            });
        }
        while let Some((_, outcome)) = set.join_next().await {
            outcome.unwrap();
        }
        most.get()
    });
    assert_eq!(most, 2);
}

/// P7: ten thousand tasks through a set, a few at a time, leave nothing.
#[test]
fn a_set_uses_its_places_again() {
    let (ex, _) = executor();
    ex.block_on(async {
        let mut set = JoinSet::new();
        for n in 0..10_000_u32 {
            set.spawn(ready(n));
            if n % 4 == 3 {
                while let Some((_, outcome)) = set.join_next().await {
                    outcome.unwrap();
                }
            }
        }
        assert!(format!("{set:?}").contains("len: 0"));
    });
    assert_eq!(counts(&ex).returned, 10_000);
}

#[test]
fn a_set_outside_of_an_executor_says_what_to_do() {
    quiet();
    let message = panic_message(|| drop(JoinSet::<()>::new()));
    assert!(
        message.contains("outside of a running executor"),
        "{message}"
    );
}

/// A set of a task's own: the task is cancelled, and the set's tasks with it, in that order of destructors.
#[test]
fn a_cancelled_owner_takes_its_set_along() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let inner = log.clone();
    let owner = ex.spawn(async move {
        let mut set = JoinSet::new();
        for name in ["a", "b"] {
            set.spawn(holding(inner.guard(name), pending::<()>()));
        }
        set.join_next().await;
    });
    ex.block_on(async {
        yield_now().await;
        yield_now().await;
        assert!(owner.cancel());
        log.assert(&["a", "b"]);
    });
    assert_eq!(counts(&ex).cancelled, 3);
}

/// A destructor that adds to the set that is being cancelled: what it adds is gone too.
#[test]
fn a_destructor_that_spawns_into_its_own_set() {
    type Set = Rc<RefCell<Option<JoinSet<()>>>>;
    let (ex, _) = executor();
    let log = DropLog::new();
    let set: Set = Rc::default();
    ex.block_on(async {
        let mut own: JoinSet<()> = JoinSet::new();
        let (other, late) = (Rc::clone(&set), log.guard("late"));
        own.spawn(holding(
            on_drop(move || {
                if let Some(set) = &mut *other.borrow_mut() {
                    set.spawn(holding(late, pending()));
                }
            }),
            pending(),
        ));
        let cancel = {
            set.replace(Some(JoinSet::new()));
            own
        };
        drop(cancel);
        assert_eq!(set.borrow().as_ref().map(JoinSet::len), Some(1));
        let taken = set.borrow_mut().take();
        drop(taken);
        log.assert(&["late"]);
    });
    check_accounting(&ex);
    assert_eq!(counts(&ex).live, 0);
}

/// By hand, with a waker of another kind.
#[test]
fn join_next_wakes_a_foreign_waker() {
    let (ex, _) = executor();
    ex.block_on(async {
        let (waker, wakes) = counting_waker();
        let mut set = JoinSet::new();
        set.spawn(after(1, 1));
        {
            let mut next: Pin<&mut _> = pin!(set.join_next());
            assert!(poll_with(&mut next, &waker).is_pending());
            sleep(2 * SECOND).await;
            assert_eq!(wakes.wakes(), 1);
            let Poll::Ready(Some((_, Ok(1)))) = next
                .as_mut()
                .poll(&mut std::task::Context::from_waker(&waker))
            else {
                panic!("it has ended");
            };
        }
    });
}

/// When the task that waits for the set is asked to end, so are the set's tasks.
#[test]
fn a_request_to_end_passes_on_to_the_set() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let inner = log.clone();
    ex.spawn(async move {
        let mut set = JoinSet::new();
        set.spawn(async move {
            cancel_requested().await;
            sleep(SECOND).await;
            drop(inner.guard("ended by itself"));
        });
        assert!(set.join_next().await.unwrap().1.is_ok());
    })
    .detach();
    let _ = ex.run_until_stalled();
    let report = ex.shutdown(5 * SECOND);
    log.assert(&["ended by itself"]);
    assert_eq!((report.finished(), report.dropped()), (2, 0));
}

/// What is spawned into a set of an executor that is gone comes out as cancelled.
#[test]
fn a_set_of_a_dropped_executor_gives_cancelled_tasks() {
    let (ex, _) = executor();
    let mut set = JoinSet::new_in(&ex.handle());
    drop(ex);
    let log = DropLog::new();
    let id = set.spawn(holding(log.guard("unpolled"), ready(1)));
    log.assert(&["unpolled"]);
    let (other, outcome) = set.try_join_next().unwrap();
    assert!(other == id && outcome.unwrap_err().is_cancelled());
    assert!(set.is_empty());
}

/// Cancel and wait: where the task is done, it is as if nobody had tried (B114).
#[test]
fn cancelling_and_awaiting_what_is_done_changes_nothing() {
    let (ex, recorder) = executor();
    ex.block_on(async {
        let mut set = JoinSet::new();
        let returned = set.spawn(async { 7 });
        let failed = set.spawn(async { panic_any("boom") });
        let handle = spawn(async { 8 });
        yield_now().await;
        assert!(!set.cancel(returned) && !set.cancel(failed));
        set.cancel_all();
        let (id, outcome) = set.join_next().await.unwrap();
        assert_eq!((id, outcome.unwrap()), (returned, 7));
        let (id, outcome) = set.join_next().await.unwrap();
        assert!(id == failed && outcome.unwrap_err().is_panic());
        assert!(!handle.cancel() && !handle.is_cancelled());
        assert_eq!(handle.await.unwrap(), 8);
    });
    assert!(recorder.is_empty());
    assert_eq!(counts(&ex).cancelled, 0);
}

/// A task that has cancelled another and waits for it is cancelled itself: it ends by that, whatever it gets to hear of
/// the other (B114).
#[test]
fn cancelling_and_awaiting_swallows_nobodys_cancel() {
    let (ex, recorder) = executor();
    // Its own comes while the other is being cancelled, from there.
    for returns_at_once in [true, false] {
        let own: Rc<RefCell<Option<CancelHandle>>> = Rc::default();
        let slot = Rc::clone(&own);
        let heard = Rc::new(Cell::new((false, false)));
        let note = Rc::clone(&heard);
        let waiter = ex.spawn(async move {
            let cancels_waiter = on_drop(move || {
                slot.take().unwrap().cancel();
            });
            let other = spawn(holding(cancels_waiter, pending::<()>()));
            yield_now().await;
            assert!(other.cancel());
            let cancelled = other.await.unwrap_err().is_cancelled();
            note.set((cancelled, false));
            if !returns_at_once {
                yield_now().await;
                note.set((cancelled, true));
            }
        });
        own.replace(Some(waiter.cancel_handle()));
        let id = waiter.id();
        let ended = ex.block_on(waiter).unwrap_err();
        assert!(ended.is_cancelled() && ended.id() == Some(id));
        assert_eq!(
            heard.get(),
            (true, false),
            "it heard of the other, and no more"
        );
    }
    // Both come at once, before the end of the other could be heard.
    for waiter_first in [true, false] {
        let other = ex.spawn(pending::<()>());
        let cancel_other = other.cancel_handle();
        let waiter = ex.spawn(async move { drop(other.await) });
        ex.run_until_stalled();
        if waiter_first {
            assert!(waiter.cancel() && cancel_other.cancel());
        } else {
            assert!(cancel_other.cancel() && waiter.cancel());
        }
        assert!(ex.block_on(waiter).unwrap_err().is_cancelled());
        assert!(cancel_other.is_finished());
    }
    // It comes while the other cleans up, which that goes on with.
    let group = Supervisor::new_in(&ex.handle());
    let other = group.spawn(async {
        cancel_requested().await;
        sleep(3 * SECOND).await;
        7
    });
    let waiter = ex.spawn(group.shutdown(9 * SECOND));
    ex.block_on(async {
        sleep(SECOND).await;
        assert!(waiter.cancel() && !other.is_finished());
        assert!(waiter.await.unwrap_err().is_cancelled());
        assert_eq!(other.await.unwrap(), 7);
    });
    assert!(recorder.is_empty());
    assert_eq!(counts(&ex).live, 0);
}
