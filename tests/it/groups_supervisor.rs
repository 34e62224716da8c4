//! `Supervisor`: siblings live on, each failure told at once (B098-B104), graceful ends, restarting.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mainstay::{
    ContextKind, Executor, GaveUp, JoinHandle, LocalHandle, ReportPolicy, RestartPolicy,
    ShutdownReport, Supervisor, TaskGroup, cancel_requested, sleep, spawn, yield_now,
};

use crate::support::{
    Boom, Counts, DropLog, Event, Fault, LogCapture, Recorder, Trace, check_stats, counting_waker,
    counts, holding, on_drop, poll_once, poll_with, quiet, yield_n,
};

const SECOND: Duration = Duration::from_secs(1);

fn executor() -> (Executor<'static>, Recorder) {
    quiet();
    let ex = Executor::builder().virtual_clock().build();
    let recorder = Recorder::on(&ex);
    (ex, recorder)
}

/// Asserts that nothing is live or unread, and gives the counts.
#[track_caller]
fn settled(ex: &Executor<'_>) -> Counts {
    let counts = counts(ex);
    assert_eq!((counts.live, counts.unread), (0, 0), "{counts:?}");
    counts
}

fn numbers(report: ShutdownReport) -> [usize; 4] {
    [
        report.finished(),
        report.failed(),
        report.cancelled(),
        report.dropped(),
    ]
}

fn now() -> Instant {
    LocalHandle::current().now()
}

/// A task that ends `after` it was asked to, with a label.
async fn graceful(trace: Trace, name: &'static str, after: Duration) {
    cancel_requested().await;
    sleep(after).await;
    trace.push(name);
}

/// P2: a supervisor's own handler is called for every failure, not only for the first few; one that is replaced goes.
#[test]
fn a_handler_of_its_own_hears_every_failure() {
    let (ex, recorder) = executor();
    let supervisor = Supervisor::new_in(&ex.handle());
    let heard = Rc::new(Cell::new(0));
    let (hears, captured) = (
        Rc::clone(&heard),
        DropLog::new().guard("captured").panics("boom in captures"),
    );
    supervisor.set_exception_handler(move |_, _| {
        let _captured = &captured;
        hears.set(hears.get() + 1);
    });
    assert!(supervisor.is_empty());
    for _ in 0..30 {
        supervisor.spawn(async { panic_any("boom") }).detach();
        assert_eq!((supervisor.len(), supervisor.is_empty()), (1, false));
        ex.run_until_stalled();
    }
    assert_eq!(heard.get(), 30);
    assert!(recorder.is_empty());
    supervisor.clear_exception_handler();
    assert_eq!(
        recorder.exceptions(),
        ["boom in captures"],
        "contained and told"
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Siblings live on, failures are told
// ---------------------------------------------------------------------------------------------------------------------

/// B098: a child fails: siblings and body go on, and it is told at once, under both policies and whoever holds the handle.
#[test]
fn a_failure_is_told_at_once_and_the_others_go_on() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        quiet();
        let ex = Executor::builder().virtual_clock().report(policy).build();
        let recorder = Recorder::on(&ex);
        let seen = recorder.clone();
        let (value, held) = ex.block_on(Supervisor::scope(async |s| {
            let sibling = s.spawn(async {
                sleep(2 * SECOND).await;
                7
            });
            s.task()
                .name("bad")
                .spawn(async { panic_any("boom") })
                .detach();
            let held = s
                .task()
                .name("worse")
                .spawn_fallible(async { Err::<(), _>("no") });
            yield_n(2).await;
            assert_eq!(seen.tasks(), ["bad", "worse"], "while the body runs");
            (sibling.await.unwrap(), held)
        }));
        assert_eq!(value, 7);
        assert_eq!(recorder.kinds(), [ContextKind::TaskFailed; 2]);
        // It stays with the handle, as any failure does.
        assert_eq!(ex.block_on(held).unwrap(), Err("no"));
        let end = settled(&ex);
        assert_eq!((end.returned, end.failed, end.reported), (1, 2, 2));
        drop(ex);
        assert_eq!(recorder.len(), 2, "never twice");
    }
}

/// B099: a child that cancels itself is silent, and the others go on.
#[test]
fn a_child_that_cancels_itself_is_silent() {
    let (ex, recorder) = executor();
    ex.block_on(Supervisor::scope(async |s| {
        let slot = Rc::new(RefCell::new(None));
        let own = Rc::clone(&slot);
        let handle = s.spawn(async move {
            let handle: mainstay::CancelHandle = own.take().unwrap();
            handle.cancel();
            pending::<()>().await;
        });
        *slot.borrow_mut() = Some(handle.cancel_handle());
        let other = s.spawn(sleep(SECOND));
        other.await.unwrap();
        assert!(handle.is_cancelled());
    }));
    assert!(recorder.is_empty());
    let end = settled(&ex);
    assert_eq!((end.returned, end.cancelled), (1, 1));
}

/// B100: the parent is cancelled: all children are cancelled, and gone before that returns.
#[test]
fn cancelling_the_parent_of_a_scope_cancels_its_tasks() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let (a, b) = (log.guard("a"), log.guard("b"));
    let parent = ex.spawn(Supervisor::scope(async move |s| {
        s.spawn(holding(a, pending::<()>())).detach();
        s.spawn(holding(b, pending::<()>())).detach();
    }));
    ex.block_on(async {
        yield_n(2).await;
        assert_eq!(ex.len(), 3, "the scope waits for them");
        parent.cancel();
        log.assert(&["a", "b"]);
    });
    assert_eq!(settled(&ex).cancelled, 3);
}

/// B104: the supervisor's own handler sees every failure, the loop's sees none.
#[test]
fn its_own_handler_sees_every_failure() {
    let (ex, recorder) = executor();
    let own = Recorder::new();
    let s = Supervisor::new_in(&ex.handle());
    let keep = own.clone();
    s.set_exception_handler(move |ex, report| {
        keep.record(report);
        assert!(!ex.stats().reports.eq(&0));
    });
    s.task()
        .name("a")
        .spawn(async { panic_any("boom") })
        .detach();
    s.task()
        .name("b")
        .spawn_fallible(async { Err::<(), _>(Fault("b")) })
        .detach();
    ex.spawn(async { panic_any("boom outside") }).detach();
    ex.run_until_stalled();
    assert_eq!(own.tasks(), ["a", "b"]);
    assert_eq!(recorder.only().exception.as_deref(), Some("boom outside"));
    s.clear_exception_handler();
    s.task()
        .name("c")
        .spawn(async { panic_any("boom") })
        .detach();
    ex.run_until_stalled();
    assert_eq!((own.len(), recorder.len()), (2, 2));
    let end = settled(&ex);
    assert_eq!((end.failed, end.reported, end.reports), (4, 4, 4));
}

/// api.md: a panic of a supervisor's own handler is told to the loop's, with the child's report as `original()`; the
/// handler stays.
#[test]
fn a_panic_of_its_own_handler_is_told_to_the_loops() {
    let (ex, _) = executor();
    let trace = Trace::new();
    let told = trace.clone();
    ex.set_exception_handler(move |_, report| {
        let original = report.original().expect("the child's report");
        told.push(format!(
            "{:?} {} <- {:?} {} {}",
            report.kind(),
            report.exception().unwrap().message(),
            original.kind(),
            original.task().unwrap().name(),
            original.exception().unwrap().message()
        ));
    });
    let s = Supervisor::new_in(&ex.handle());
    s.set_exception_handler(|_, _| panic_any("boom in handler"));
    for name in ["a", "b"] {
        s.task()
            .name(name)
            .spawn(async { panic_any("boom") })
            .detach();
    }
    ex.run_until_stalled();
    trace.assert(&[
        "Handler boom in handler <- TaskFailed a boom",
        "Handler boom in handler <- TaskFailed b boom",
    ]);
    let end = settled(&ex);
    assert_eq!((end.failed, end.reported, end.reports), (2, 2, 4));
}

/// So is what its payload does when it is dropped.
#[test]
fn a_payload_of_its_own_handler_may_panic() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let s = Supervisor::new_in(&ex.handle());
    let payloads = log.clone();
    s.set_exception_handler(move |_, _| {
        panic_any(payloads.guard("payload").panics("boom in the payload"))
    });
    s.spawn(async { panic_any("boom") }).detach();
    let capture = LogCapture::start();
    ex.run_until_stalled();
    log.assert(&["payload"]);
    assert_eq!(recorder.only().kind, ContextKind::Handler);
    let text = capture.only().text;
    assert!(text.contains("boom in the payload"), "{text}");
    settled(&ex);
}

/// A handler that panics in the destructor of what it captured is contained, and one may replace itself.
#[test]
fn its_own_handler_may_replace_itself() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let guard = log.guard("first").panics("boom in drop");
    let s = Rc::new(Supervisor::new_in(&ex.handle()));
    let weak = Rc::downgrade(&s);
    let trace = Trace::new();
    let (t1, t2) = (trace.clone(), trace.clone());
    s.set_exception_handler(move |_, _| {
        let _guard = &guard;
        t1.push("first");
        let t2 = t2.clone();
        weak.upgrade()
            .unwrap()
            .set_exception_handler(move |_, _| t2.push("second"));
    });
    for _ in 0..2 {
        s.spawn(async { panic_any("boom") }).detach();
    }
    ex.run_until_stalled();
    trace.assert(&["first", "second"]);
    log.assert(&["first"]);
    assert_eq!(recorder.only().kind, ContextKind::Destructor);
    assert_eq!(settled(&ex).reported, 2);
}

/// Issue 5, 2: 10,000 failing children leave no memory behind but the slots of those that were live at once.
#[test]
fn failures_leave_nothing_behind() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let told = Rc::new(Cell::new(0));
    let count = Rc::clone(&told);
    s.set_exception_handler(move |_, _| count.set(count.get() + 1));
    let dropped = Rc::new(Cell::new(0));
    struct Payload(Rc<Cell<usize>>);
    impl Drop for Payload {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    impl std::fmt::Display for Payload {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("failed")
        }
    }
    impl std::fmt::Debug for Payload {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("failed")
        }
    }
    for _ in 0..100 {
        for _ in 0..100 {
            let payload = Payload(Rc::clone(&dropped));
            s.spawn_fallible(async { Err::<(), _>(payload) }).detach();
        }
        ex.run_until_stalled();
    }
    assert_eq!((told.get(), dropped.get()), (10_000, 10_000));
    assert!(s.is_empty());
    assert_eq!(settled(&ex).reported, 10_000);
}

// ---------------------------------------------------------------------------------------------------------------------
// The graceful end
// ---------------------------------------------------------------------------------------------------------------------

/// B101, B103: shutdown from another task waits for clean-up that awaits; the body's code after it runs.
#[test]
fn shutdown_from_another_task_waits_for_clean_up() {
    let (ex, recorder) = executor();
    let trace = Trace::new();
    ex.block_on(Supervisor::scope(async |s| {
        s.spawn(graceful(trace.clone(), "slow", 3 * SECOND))
            .detach();
        s.spawn(graceful(trace.clone(), "fast", SECOND)).detach();
        let t = trace.clone();
        s.spawn(holding(
            on_drop(move || t.push("deaf dropped")),
            pending::<()>(),
        ))
        .detach();
        let (other, t) = (s.clone(), trace.clone());
        let ender = spawn(async move {
            sleep(SECOND).await;
            let began = now();
            let report = other.shutdown(10 * SECOND).await;
            t.push(format!("ended after {:?}", now() - began));
            report
        });
        let report = ender.await.unwrap();
        assert_eq!(numbers(report), [2, 0, 0, 1]);
        assert!(s.is_closed() && s.is_empty());
        trace.push("the body goes on");
    }));
    trace.assert(&[
        "fast",
        "slow",
        "deaf dropped",
        "ended after 3s",
        "the body goes on",
    ]);
    assert!(recorder.is_empty());
    let end = settled(&ex);
    assert_eq!((end.returned, end.cancelled), (3, 1));
}

/// B102: shutdown before the children were first polled: none runs; a second one is the same again.
#[test]
fn shutdown_at_once_runs_nothing_that_does_not_ask() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let polled = Rc::new(Cell::new(0));
    for _ in 0..3 {
        let polled = Rc::clone(&polled);
        s.spawn(async move {
            polled.set(polled.get() + 1);
            pending::<()>().await;
        })
        .detach();
    }
    s.abort();
    ex.run_until_stalled();
    assert_eq!(polled.get(), 0, "none runs");
    let (first, second) =
        ex.block_on(async { (s.shutdown(SECOND).await, s.shutdown(SECOND).await) });
    assert_eq!(numbers(first), [0, 0, 0, 3]);
    assert_eq!(first, second);
    assert_eq!(settled(&ex).cancelled, 3);

    // Asked, they have the one pass that tells whether they listen.
    let s = Supervisor::new_in(&ex.handle());
    s.spawn(async {
        cancel_requested().await;
    })
    .detach();
    let deaf = s.spawn(pending::<()>());
    let report = ex.block_on(s.shutdown(Duration::ZERO));
    assert_eq!(numbers(report), [1, 0, 0, 1]);
    assert_eq!(
        ex.block_on(deaf).unwrap_err().reason(),
        Some("the supervisor is closed")
    );
}

/// Several callers wait for one end and get one report; the shortest grace counts; a dropped caller does not stop it.
#[test]
fn shutdown_is_one_however_many_ask() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    s.spawn(async {
        cancel_requested().await;
        pending::<()>().await;
    })
    .detach();
    ex.block_on(async {
        yield_now().await;
        let began = now();
        let long = spawn(s.shutdown(100 * SECOND));
        let short = spawn(s.shutdown(5 * SECOND));
        let gone = spawn(s.shutdown(3 * SECOND));
        sleep(SECOND).await;
        assert!(gone.cancel());
        let report = short.await.unwrap();
        assert_eq!(report, long.await.unwrap());
        assert_eq!(numbers(report), [0, 0, 0, 1]);
        assert_eq!(now() - began, 3 * SECOND, "the dropped caller's grace");
    });
    settled(&ex);
}

/// A worker that ends its own supervisor is cancelled with the rest, and does not have to be waited for.
#[test]
fn a_child_may_shut_its_supervisor_down() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let trace = Trace::new();
    s.spawn(graceful(trace.clone(), "sibling", 2 * SECOND))
        .detach();
    let (own, t) = (s.clone(), trace.clone());
    s.spawn(async move {
        // It has asked too, which must not keep it alive.
        let asked = Box::pin(cancel_requested());
        let work = Box::pin(sleep(SECOND));
        futures_select(asked, work).await;
        let own_end = t.clone();
        let _mark = on_drop(move || own_end.push("caller dropped"));
        own.shutdown(60 * SECOND).await;
        t.push("never");
    })
    .detach();
    drop(s);
    let start = ex.now();
    ex.block_on(ex.idle());
    trace.assert(&["sibling", "caller dropped"]);
    assert_eq!(ex.now() - start, 3 * SECOND, "not the whole grace");
    let end = settled(&ex);
    assert_eq!((end.returned, end.cancelled), (1, 1));
}

/// Waits for either.
async fn futures_select(
    mut a: impl Future<Output = ()> + Unpin,
    mut b: impl Future<Output = ()> + Unpin,
) {
    std::future::poll_fn(|cx| {
        let a = std::pin::Pin::new(&mut a).poll(cx);
        let b = std::pin::Pin::new(&mut b).poll(cx);
        if a.is_ready() { a } else { b }
    })
    .await;
}

/// Tasks spawned during a shutdown are asked from the start, cancelled and counted too.
#[test]
fn tasks_spawned_meanwhile_are_asked_and_counted() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let trace = Trace::new();
    let (own, t) = (s.clone(), trace.clone());
    s.spawn(async move {
        cancel_requested().await;
        assert!(!own.is_closed());
        own.spawn(graceful(t.clone(), "late", SECOND)).detach();
        own.spawn(async {
            cancel_requested().await;
            panic_any("boom late")
        })
        .detach();
        own.spawn(pending::<()>()).detach();
    })
    .detach();
    let report = ex.block_on(s.shutdown(10 * SECOND));
    assert_eq!(numbers(report), [2, 1, 0, 1]);
    trace.assert(&["late"]);
    let end = settled(&ex);
    assert_eq!((end.returned, end.failed, end.reported), (2, 1, 1));
}

/// A task that spawns its successor for ever cannot hang a shutdown, whether it asks or not.
#[test]
fn endless_successors_end() {
    async fn successor(s: Supervisor, asks: bool, count: Rc<Cell<usize>>) {
        count.set(count.get() + 1);
        if asks {
            cancel_requested().await;
        }
        let next = successor_boxed(s.clone(), asks, count);
        s.spawn(next).detach();
    }
    fn successor_boxed(
        s: Supervisor,
        asks: bool,
        count: Rc<Cell<usize>>,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(successor(s, asks, count))
    }
    for asks in [false, true] {
        let (ex, _) = executor();
        let s = Supervisor::new_in(&ex.handle());
        let count = Rc::new(Cell::new(0));
        s.spawn(successor(s.clone(), asks, Rc::clone(&count)))
            .detach();
        let report = ex.block_on(s.shutdown(Duration::MAX));
        assert_eq!(report.finished(), count.get());
        assert!((50..200).contains(&count.get()), "{}", count.get());
        settled(&ex);
    }
}

/// The same where each outlives the start of the next, so that there is always somebody who asks.
#[test]
fn endless_successors_that_overlap_end() {
    fn successor(
        s: Supervisor,
        count: Rc<Cell<usize>>,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            count.set(count.get() + 1);
            cancel_requested().await;
            if count.get() < 1_000 {
                s.spawn(successor(s.clone(), count)).detach();
            }
            yield_n(3).await;
        })
    }
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let count = Rc::new(Cell::new(0));
    s.spawn(successor(s.clone(), Rc::clone(&count))).detach();
    let report = ex.block_on(s.shutdown(Duration::MAX));
    assert_eq!(report.finished(), count.get());
    // Four are live at a time, which is a round.
    assert!((200..500).contains(&count.get()), "{}", count.get());
    settled(&ex);
}

/// And where one that does not ask stays all the while, so that no generation ends as a whole.
#[test]
fn endless_successors_beside_one_that_stays_end() {
    fn successor(
        s: Supervisor,
        count: Rc<Cell<usize>>,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            count.set(count.get() + 1);
            if count.get() < 1_000 {
                s.spawn(successor(s.clone(), count)).detach();
            }
        })
    }
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let count = Rc::new(Cell::new(0));
    s.spawn(pending::<()>()).detach();
    s.spawn(successor(s.clone(), Rc::clone(&count))).detach();
    let report = ex.block_on(s.shutdown(Duration::MAX));
    assert_eq!(report.finished(), count.get());
    assert_eq!(report.dropped(), 1);
    assert!((50..200).contains(&count.get()), "{}", count.get());
    settled(&ex);
}

/// A generation is one round, however many belong to it: many tasks may each leave one successor.
#[test]
fn many_may_leave_a_successor_in_the_grace() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    for _ in 0..300 {
        let own = s.clone();
        s.spawn(async move {
            cancel_requested().await;
            own.spawn(async {
                cancel_requested().await;
                yield_now().await;
            })
            .detach();
        })
        .detach();
    }
    let report = ex.block_on(s.shutdown(10 * SECOND));
    assert_eq!(numbers(report), [600, 0, 0, 0]);
    settled(&ex);
}

/// B102: those who do not ask have one pass more, and none of the grace.
#[test]
fn who_does_not_ask_has_none_of_the_grace() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let polls = Rc::new(Cell::new(0));
    let counting = Rc::clone(&polls);
    s.spawn(async move {
        loop {
            counting.set(counting.get() + 1);
            yield_now().await;
        }
    })
    .detach();
    s.spawn(pending::<()>()).detach();
    ex.tick(2);
    let (start, before) = (ex.now(), polls.get());
    let report = ex.block_on(s.shutdown(60 * SECOND));
    assert_eq!(numbers(report), [0, 0, 0, 2]);
    assert_eq!(ex.now(), start, "nothing to wait for");
    assert!(polls.get() - before <= 2, "{}", polls.get() - before);
    settled(&ex);
}

/// A later caller with a longer grace does not lengthen it, and the end leaves no timer behind.
#[test]
fn the_shortest_grace_counts_in_any_order() {
    for graces in [[2, 50], [50, 2], [2, 2]] {
        let (ex, _) = executor();
        let s = Supervisor::new_in(&ex.handle());
        s.spawn(async {
            cancel_requested().await;
            pending::<()>().await;
        })
        .detach();
        let start = ex.now();
        ex.block_on(async {
            yield_now().await;
            let waits = graces.map(|grace| spawn(s.shutdown(grace * SECOND)));
            for wait in waits {
                assert_eq!(numbers(wait.await.unwrap()), [0, 0, 0, 1]);
            }
        });
        assert_eq!(ex.now() - start, 2 * SECOND, "{graces:?}");
        assert_eq!(ex.tick(1).next_deadline, None, "{graces:?}");
        settled(&ex);
    }
}

/// Nor does an end before the grace is over, by the tasks' own or by an abort.
#[test]
fn an_early_end_leaves_no_timer() {
    for abort in [false, true] {
        let (ex, _) = executor();
        let s = Supervisor::new_in(&ex.handle());
        let trace = Trace::new();
        s.spawn(graceful(trace.clone(), "ends", 2 * SECOND))
            .detach();
        ex.block_on(async {
            let waits = spawn(s.shutdown(60 * SECOND));
            sleep(SECOND).await;
            if abort {
                s.abort();
            }
            waits.await.unwrap();
        });
        assert_eq!(trace.len(), usize::from(!abort));
        assert_eq!(ex.tick(1).next_deadline, None, "abort: {abort}");
        settled(&ex);
    }
}

/// The end lets go of the handler, which may hold the supervisor: also where there was no task left to end, and where a task
/// ended it. What that task fails with, the handler still hears.
#[test]
fn the_end_lets_go_of_the_handler() {
    let (ex, recorder) = executor();
    let held = Rc::new(());
    let heard = Rc::new(Cell::new(0));
    let supervised = || {
        let s = Supervisor::new_in(&ex.handle());
        let (own, held, heard) = (s.clone(), Rc::clone(&held), Rc::clone(&heard));
        s.set_exception_handler(move |_, _| {
            let _ = (&own, &held);
            heard.set(heard.get() + 1);
        });
        s
    };
    let s = supervised();
    s.abort();
    assert_eq!(Rc::strong_count(&held), 1, "no task was there");

    let s = supervised();
    let own = s.clone();
    s.spawn(async move {
        yield_now().await;
        own.abort();
        panic_any("boom after the end")
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(heard.get(), 1);
    assert_eq!(Rc::strong_count(&held), 1, "its task has ended");
    assert!(recorder.is_empty());
    settled(&ex);
}

/// Abort ends a shutdown that is under way; so does the end of the last clone.
#[test]
fn abort_ends_the_grace() {
    for clones in [false, true] {
        let (ex, _) = executor();
        let s = Supervisor::new_in(&ex.handle());
        s.spawn(async {
            cancel_requested().await;
            pending::<()>().await;
        })
        .detach();
        ex.block_on(async {
            yield_now().await;
            let began = now();
            let waits = spawn(s.shutdown(60 * SECOND));
            sleep(SECOND).await;
            if clones {
                waits.cancel();
                drop(s);
                assert_eq!(LocalHandle::current().stats().live, 0);
            } else {
                s.abort();
                assert!(s.is_empty());
                assert_eq!(numbers(waits.await.unwrap()), [0, 0, 0, 1]);
            }
            assert_eq!(now() - began, SECOND);
        });
        settled(&ex);
    }
}

/// Issue 5, 5: when a parent is asked to end, the tasks of its groups are asked first, and theirs, before anybody is dropped.
#[test]
fn the_request_reaches_children_of_children() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let trace = Trace::new();
    let t = trace.clone();
    s.spawn(TaskGroup::scope(async move |outer| {
        let (t1, t2) = (t.clone(), t.clone());
        outer.spawn(graceful(t1, "child", SECOND)).detach();
        outer
            .spawn(Supervisor::scope(async move |inner| {
                inner.spawn(graceful(t2, "grandchild", 2 * SECOND)).detach();
            }))
            .detach();
    }))
    .detach();
    ex.run_until_stalled();
    let start = ex.now();
    let report = ex.block_on(s.shutdown(10 * SECOND));
    trace.assert(&["child", "grandchild"]);
    assert_eq!(ex.now() - start, 2 * SECOND);
    assert_eq!(numbers(report), [1, 0, 0, 0]);
    assert_eq!(settled(&ex).returned, 4);
}

/// A parent whose children have all ended is not waited for, if it does not ask itself.
#[test]
fn a_parent_that_does_not_ask_is_not_waited_for() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let trace = Trace::new();
    let t = trace.clone();
    s.spawn(TaskGroup::scope(async move |g| {
        g.spawn(graceful(t, "child", SECOND)).detach();
        pending::<()>().await;
    }))
    .detach();
    ex.run_until_stalled();
    let start = ex.now();
    let report = ex.block_on(s.shutdown(60 * SECOND));
    trace.assert(&["child"]);
    assert_eq!(ex.now() - start, SECOND, "not the whole grace");
    assert_eq!(numbers(report), [0, 0, 0, 1]);
    settled(&ex);
}

/// Children that are spawned after the parent was asked are asked from the start.
#[test]
fn later_children_of_an_asked_parent_are_asked() {
    let (ex, _) = executor();
    let trace = Trace::new();
    let t = trace.clone();
    ex.spawn(TaskGroup::scope(async move |g| {
        cancel_requested().await;
        g.spawn(graceful(t, "late child", SECOND)).detach();
    }))
    .detach();
    ex.run_until_stalled();
    let report = ex.shutdown(10 * SECOND);
    trace.assert(&["late child"]);
    assert_eq!(report.finished(), 2);
    settled(&ex);
}

/// The same where it is a supervisor that asks the parent, and not the executor, which asks everybody.
#[test]
fn later_children_of_a_child_that_was_asked_are_asked() {
    for supervised in [false, true] {
        let (ex, _) = executor();
        let outer = Supervisor::new_in(&ex.handle());
        let trace = Trace::new();
        let t = trace.clone();
        if supervised {
            outer
                .spawn(Supervisor::scope(async move |s| {
                    cancel_requested().await;
                    s.spawn(graceful(t, "late", SECOND)).detach();
                }))
                .detach();
        } else {
            outer
                .spawn(TaskGroup::scope(async move |g| {
                    cancel_requested().await;
                    g.spawn(graceful(t, "late", SECOND)).detach();
                }))
                .detach();
        }
        ex.run_until_stalled();
        let start = ex.now();
        let report = ex.block_on(outer.shutdown(10 * SECOND));
        trace.assert(&["late"]);
        assert_eq!(ex.now() - start, SECOND);
        assert_eq!(numbers(report), [1, 0, 0, 0]);
        settled(&ex);
    }
}

/// A request that a supervisor passes on reaches the tasks of combinators and sets, and those that come later.
#[test]
fn the_request_reaches_the_tasks_of_combinators() {
    let (ex, _) = executor();
    let outer = Supervisor::new_in(&ex.handle());
    let trace = Trace::new();
    let task = |name, seconds| graceful(trace.clone(), name, seconds * SECOND);
    let all = mainstay::gather_with_limit([task("gathered", 1), task("gathered later", 2)], 1);
    outer.spawn(async { drop(all.await) }).detach();
    let (first, second) = (task("in a set", 2), task("in a set later", 3));
    outer
        .spawn(async {
            let mut set = mainstay::JoinSet::new();
            set.spawn(first);
            set.join_next().await;
            set.spawn(second);
            set.join_next().await;
        })
        .detach();
    ex.run_until_stalled();
    let start = ex.now();
    let report = ex.block_on(outer.shutdown(60 * SECOND));
    trace.assert(&["gathered", "in a set", "gathered later", "in a set later"]);
    assert_eq!(ex.now() - start, 5 * SECOND);
    assert_eq!(numbers(report), [2, 0, 0, 0]);
    settled(&ex);
}

/// Of a scope that goes on, the parent is waited for until the last of those that asked has ended.
#[test]
fn a_parent_is_waited_for_until_the_last_that_asked_has_ended() {
    type Boxed = std::pin::Pin<Box<dyn Future<Output = ()>>>;
    let scopes: [fn(Boxed, Boxed) -> Boxed; 4] = [
        |asks, stays| {
            Box::pin(async {
                let scope = TaskGroup::scope(async |g| {
                    g.spawn(asks).detach();
                    g.spawn(stays).detach();
                });
                drop(scope.await);
            })
        },
        |asks, stays| {
            Box::pin(Supervisor::scope(async |s| {
                s.spawn(asks).detach();
                s.spawn(stays).detach();
            }))
        },
        |asks, stays| Box::pin(async { drop(mainstay::gather([asks, stays]).await) }),
        |asks, stays| {
            Box::pin(async {
                let mut set = mainstay::JoinSet::new();
                set.spawn(asks);
                set.spawn(stays);
                while set.join_next().await.is_some() {}
            })
        },
    ];
    for (number, scope) in scopes.into_iter().enumerate() {
        let (ex, _) = executor();
        let trace = Trace::new();
        let asks = Box::pin(graceful(trace.clone(), "asked", SECOND));
        ex.spawn(scope(asks, Box::pin(pending()))).detach();
        ex.run_until_stalled();
        let start = ex.now();
        let report = ex.shutdown(60 * SECOND);
        trace.assert(&["asked"]);
        assert_eq!(ex.now() - start, SECOND, "{number}");
        assert_eq!(report.finished(), 1);
        settled(&ex);
    }
}

/// Children are asked when their parent is, and not before.
#[test]
fn children_of_a_parent_that_was_not_asked_are_not_asked() {
    let (ex, _) = executor();
    let asked = Rc::new(Cell::new(0));
    let child = || {
        let asked = Rc::clone(&asked);
        async move {
            let mut request = Box::pin(cancel_requested());
            for _ in 0..3 {
                let ready = poll_once(&mut request).is_ready();
                asked.set(asked.get() + usize::from(ready));
                yield_now().await;
            }
        }
    };
    let (first, second, third) = (child(), child(), child());
    ex.spawn(async move {
        TaskGroup::scope(async move |g| g.spawn(first).detach())
            .await
            .unwrap();
        Supervisor::scope(async move |s| s.spawn(second).detach()).await;
        mainstay::gather([third]).await.unwrap();
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(asked.get(), 0);
    assert_eq!(settled(&ex).returned, 4);
}

/// Whoever had children that asked is not waited for when its scope is over, however that ended and whoever it belongs to.
#[test]
fn a_parent_whose_scope_is_over_is_not_waited_for() {
    type Boxed = std::pin::Pin<Box<dyn Future<Output = ()>>>;
    async fn child() {
        futures_select(Box::pin(cancel_requested()), Box::pin(sleep(SECOND))).await;
    }
    type Scope = (&'static str, fn() -> Boxed);
    let scopes: [Scope; 5] = [
        ("group", || {
            Box::pin(async {
                let scope = TaskGroup::scope(async |g| g.spawn(child()).detach());
                scope.await.unwrap();
            })
        }),
        ("supervisor", || {
            Box::pin(Supervisor::scope(async |s| s.spawn(child()).detach()))
        }),
        ("gather", || {
            Box::pin(async { drop(mainstay::gather([child(), child()]).await) })
        }),
        ("set", || {
            Box::pin(async {
                let mut set = mainstay::JoinSet::new();
                set.spawn(child());
                while set.join_next().await.is_some() {}
            })
        }),
        ("nested", || {
            Box::pin(async {
                let scope = TaskGroup::scope(async |g| {
                    g.spawn(Supervisor::scope(async |s| s.spawn(child()).detach()))
                        .detach()
                });
                scope.await.unwrap();
            })
        }),
    ];
    for (name, scope) in scopes {
        for (left, member) in [(false, false), (true, false), (false, true), (true, true)] {
            let what = format!("{name}, left early: {left}, in a group: {member}");
            let (ex, _) = executor();
            let limit = if left { SECOND / 2 } else { 10 * SECOND };
            let parent = async move {
                assert_eq!(mainstay::timeout(limit, scope()).await.is_err(), left);
                pending::<()>().await;
            };
            if member {
                ex.spawn(TaskGroup::scope(async move |g| {
                    g.spawn(parent).detach();
                    pending::<()>().await;
                }))
                .detach();
            } else {
                ex.spawn(parent).detach();
            }
            ex.block_on(async { sleep(2 * SECOND).await });
            let start = ex.now();
            let report = ex.shutdown(60 * SECOND);
            assert_eq!(ex.now(), start, "{what}");
            assert_eq!(
                report.dropped() + report.cancelled(),
                1 + usize::from(member)
            );
            settled(&ex);
        }
    }
}

/// A supervisor that is nobody's scope has nobody who is waited for in its stead.
#[test]
fn the_executors_shutdown_waits_for_a_supervisors_task_and_no_longer() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let trace = Trace::new();
    s.spawn(graceful(trace.clone(), "ends", SECOND)).detach();
    s.spawn(pending::<()>()).detach();
    ex.run_until_stalled();
    let start = ex.now();
    let report = ex.shutdown(60 * SECOND);
    trace.assert(&["ends"]);
    assert_eq!(ex.now() - start, SECOND);
    assert_eq!(numbers(report), [1, 0, 0, 1]);
    settled(&ex);
}

/// A failing child of a group whose parent was asked to end is in the group's error (B085, graceful).
#[test]
fn a_child_that_fails_when_asked_is_its_groups() {
    let (ex, recorder) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let parent = s.spawn(TaskGroup::scope(async |g| {
        g.task()
            .name("bad")
            .spawn(async {
                cancel_requested().await;
                panic_any("boom in clean-up")
            })
            .detach();
        g.task()
            .name("worse")
            .spawn_fallible(async {
                cancel_requested().await;
                Err::<(), _>("no clean-up")
            })
            .detach();
    }));
    ex.run_until_stalled();
    ex.block_on(s.shutdown(SECOND));
    let failed = ex.block_on(parent).unwrap().unwrap_err();
    assert_eq!(
        failed.to_string(),
        "2 failures in a group: bad: boom in clean-up; worse: no clean-up"
    );
    assert!(recorder.is_empty());
    let end = settled(&ex);
    assert_eq!((end.failed, end.retrieved, end.returned), (2, 2, 1));
}

/// Who waits for the end of another supervisor is waited for by its own; and a task that ends its own, without having asked,
/// does not take anything from those who have.
#[test]
fn waiting_for_an_end_counts_for_whoever_else_waits() {
    let (ex, _) = executor();
    let trace = Trace::new();
    let (outer, inner) = (
        Supervisor::new_in(&ex.handle()),
        Supervisor::new_in(&ex.handle()),
    );
    inner
        .spawn(graceful(trace.clone(), "inner", 2 * SECOND))
        .detach();
    let (other, t) = (inner.clone(), trace.clone());
    outer
        .spawn(async move {
            cancel_requested().await;
            other.shutdown(60 * SECOND).await;
            t.push("outer");
        })
        .detach();
    ex.run_until_stalled();
    ex.block_on(outer.shutdown(60 * SECOND));
    trace.assert(&["inner", "outer"]);

    let s = Supervisor::new_in(&ex.handle());
    s.spawn(graceful(trace.clone(), "sibling", SECOND)).detach();
    let own = s.clone();
    s.spawn(async move {
        yield_now().await;
        own.shutdown(60 * SECOND).await;
    })
    .detach();
    ex.block_on(ex.idle());
    trace.assert(&["sibling"]);
    settled(&ex);
}

/// Ended by its tasks themselves, it is closed like any other.
#[test]
fn it_is_closed_after_a_graceful_end() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    s.spawn(cancel_requested()).detach();
    assert_eq!(numbers(ex.block_on(s.shutdown(SECOND))), [1, 0, 0, 0]);
    assert!(s.is_closed());
    let error = ex.block_on(s.spawn(async {})).unwrap_err();
    assert_eq!(error.reason(), Some("the supervisor is closed"));
}

/// The executor's own shutdown in the middle of a supervisor's leaves nobody waiting.
#[test]
fn the_executors_shutdown_ends_it_too() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    s.spawn(async {
        cancel_requested().await;
        pending::<()>().await;
    })
    .detach();
    let waits = ex.spawn(s.shutdown(100 * SECOND));
    ex.run_until_stalled();
    let report = ex.shutdown(SECOND);
    assert_eq!(report.dropped() + report.cancelled() + report.finished(), 2);
    assert!(waits.is_finished());
    // It is closed, and asking for its end again is no matter.
    let report = ex.block_on(s.shutdown(SECOND));
    assert_eq!(
        numbers(report)[0] + numbers(report)[2] + numbers(report)[3],
        1
    );
    settled(&ex);
}

// ---------------------------------------------------------------------------------------------------------------------
// Nobody outlives it
// ---------------------------------------------------------------------------------------------------------------------

/// Dropping the last clone cancels the tasks, at once, wherever that is.
#[test]
fn dropping_the_last_clone_cancels_the_tasks() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let s = Supervisor::new_in(&ex.handle());
    s.spawn(holding(log.guard("a"), pending::<()>())).detach();
    s.task()
        .name("b")
        .spawn(holding(log.guard("b").panics("boom in b"), pending::<()>()))
        .detach();
    let clone = s.clone();
    drop(s);
    ex.run_until_stalled();
    assert_eq!(log.len(), 0);
    drop(clone); // between two drives
    log.assert(&["a", "b"]);
    ex.run_until_stalled();
    assert_eq!(recorder.only().task.as_deref(), Some("b"));
    let end = settled(&ex);
    assert_eq!((end.failed, end.reported, end.cancelled), (1, 1, 1));
}

/// A child that drops the last clone goes right after its poll, its siblings at once.
#[test]
fn a_child_that_drops_the_last_clone_goes_after_its_poll() {
    let (ex, _) = executor();
    let trace = Trace::new();
    let s = Supervisor::new_in(&ex.handle());
    let t = trace.clone();
    s.spawn(holding(on_drop(move || t.push("sibling")), pending::<()>()))
        .detach();
    let (last, t) = (s.clone(), trace.clone());
    s.spawn(async move {
        let end = t.clone();
        let _mark = on_drop(move || end.push("dropped"));
        yield_now().await;
        drop(last);
        t.push("goes on");
        pending::<()>().await;
    })
    .detach();
    drop(s);
    ex.run_until_stalled();
    trace.assert(&["sibling", "goes on", "dropped"]);
    assert_eq!(settled(&ex).cancelled, 2);
}

/// The first reason wins, over that of the supervisor's end too.
#[test]
fn an_end_does_not_take_the_place_of_an_earlier_reason() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let task = s.spawn(pending::<()>());
    ex.run_until_stalled();
    // Between drives: the next one would carry it out.
    assert!(task.cancel_with_reason("mine"));
    s.abort();
    assert_eq!(ex.block_on(task).unwrap_err().reason(), Some("mine"));
    settled(&ex);
}

/// Ended between drives, it calls no callback on the spot, and the host is told that there is one to call.
#[test]
fn an_end_between_drives_leaves_the_callbacks_to_the_next() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let trace = Trace::new();
    let t = trace.clone();
    let task = s.spawn(pending::<()>());
    task.add_done_callback(move |_| t.push("called"));
    ex.run_until_stalled();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    ex.on_wake(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    s.abort();
    assert!(s.is_empty() && task.is_finished());
    trace.assert(&[]);
    assert_eq!(told.load(Ordering::SeqCst), 1);
    ex.run_until_stalled();
    trace.assert(&["called"]);
    settled(&ex);
}

/// A task may have a destructor that ends the executor and then panics: that is told.
#[test]
fn a_destructor_may_end_the_executor_and_panic() {
    let (ex, recorder) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let handle = ex.handle();
    let slot = Rc::new(RefCell::new(None));
    let own = Rc::clone(&slot);
    let log = DropLog::new();
    let held = (
        on_drop(move || drop(own.take())),
        log.guard("last").panics("boom at last"),
    );
    s.spawn(holding(held, pending::<()>())).detach();
    ex.run_until_stalled();
    *slot.borrow_mut() = Some(ex);
    s.abort();
    log.assert(&["last"]);
    assert_eq!(recorder.exceptions(), ["boom at last"]);
    let stats = check_stats(&handle.stats());
    assert_eq!((stats.live, stats.unread), (0, 0));
}

/// A chain of destructors that each end a supervisor and cancel the next task goes no deeper than one of them.
#[test]
fn destructors_that_end_supervisors_and_cancel_do_not_nest() {
    let (ex, _) = executor();
    let (depth, deepest) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let mut next: Option<JoinHandle<()>> = None;
    for _ in 0..100 {
        let s = Supervisor::new_in(&ex.handle());
        s.spawn(pending::<()>()).detach();
        let (depth, deepest, other) = (Rc::clone(&depth), Rc::clone(&deepest), next.take());
        let end = on_drop(move || {
            depth.set(depth.get() + 1);
            deepest.set(deepest.get().max(depth.get()));
            drop(s);
            if let Some(other) = &other {
                assert!(other.cancel());
            }
            depth.set(depth.get() - 1);
        });
        next = Some(ex.spawn(holding(end, pending::<()>())));
    }
    ex.block_on(async {
        yield_now().await;
        next.unwrap().cancel();
    });
    assert_eq!(settled(&ex).cancelled, 200);
    assert_eq!(deepest.get(), 1);
}

/// A scope's body that panics: the tasks go first, and the panic goes on.
#[test]
fn a_panic_of_a_scopes_body_goes_on() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let guard = log.guard("task");
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        ex.block_on(Supervisor::scope(async |s| {
            s.spawn(holding(guard, pending::<()>())).detach();
            yield_now().await;
            panic_any(Boom("body"))
        }))
    }));
    assert_eq!(
        unwound.unwrap_err().downcast_ref::<Boom>(),
        Some(&Boom("body"))
    );
    log.assert(&["task"]);
    assert!(recorder.is_empty());
    settled(&ex);
}

/// What comes after the end is dropped unpolled, with a reason; so it is when the executor is gone.
#[test]
fn a_closed_supervisor_refuses() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let s = Supervisor::new_in(&ex.handle());
    assert!(!s.is_closed());
    s.abort();
    s.abort();
    assert!(s.is_closed());
    let refused = s.spawn(holding(log.guard("late"), pending::<()>()));
    log.assert(&["late"]);
    let error = ex.block_on(refused).unwrap_err();
    assert_eq!(error.reason(), Some("the supervisor is closed"));
    assert_eq!(settled(&ex).spawned, 0);

    let s = Supervisor::new_in(&ex.handle());
    drop(ex);
    let mut refused = s.spawn(holding(log.guard("later"), pending::<()>()));
    assert_eq!(log.count("later"), 1);
    let error = refused.result().unwrap().unwrap_err();
    assert_eq!(error.reason(), Some("the executor was dropped"));
    let (waker, _) = counting_waker();
    let mut end = Box::pin(s.shutdown(SECOND));
    assert!(
        poll_with(&mut end, &waker).is_ready(),
        "nothing to wait for"
    );
}

/// A supervisor is polled by a foreign waker: it is woken at the end; one that panics is reported.
#[test]
fn foreign_wakers_are_woken() {
    let (ex, _) = executor();
    let (waker, count) = counting_waker();
    let event = Event::new();
    let s = Supervisor::new_in(&ex.handle());
    s.spawn({
        let wait = event.wait();
        async move {
            cancel_requested().await;
            wait.await;
        }
    })
    .detach();
    let mut end = Box::pin(s.shutdown(10 * SECOND));
    ex.block_on(async {
        yield_now().await;
        assert!(poll_with(&mut end, &waker).is_pending());
        yield_n(3).await;
        assert_eq!(count.wakes(), 0);
        event.set();
        yield_n(3).await;
        assert_eq!(count.wakes(), 1);
        assert!(poll_with(&mut end, &waker).is_ready());
    });
    settled(&ex);
}

/// A limit holds for supervisors too.
#[test]
fn a_limit_bounds_who_runs() {
    let (ex, _) = executor();
    let (running, peak) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    ex.block_on(Supervisor::scope(async |s| {
        s.limit(3);
        for _ in 0..10 {
            let (running, peak) = (Rc::clone(&running), Rc::clone(&peak));
            s.spawn(async move {
                running.set(running.get() + 1);
                peak.set(peak.get().max(running.get()));
                yield_n(3).await;
                running.set(running.get() - 1);
                panic_any("boom")
            })
            .detach();
        }
    }));
    assert_eq!(peak.get(), 3);
    assert_eq!(settled(&ex).failed, 10);
}

// ---------------------------------------------------------------------------------------------------------------------
// Restarting
// ---------------------------------------------------------------------------------------------------------------------

/// The times, in seconds since the start, at which the factory was called; each attempt ends as `attempt` says.
fn attempts(
    policy: RestartPolicy,
    attempt: impl Fn(usize) -> Result<(), Fault> + Clone + 'static,
) -> (Vec<f64>, Result<(), GaveUp>, Vec<String>, Counts) {
    let (ex, recorder) = executor();
    let times = Rc::new(RefCell::new(Vec::new()));
    let (start, log) = (ex.now(), Rc::clone(&times));
    let ended = ex.block_on(Supervisor::scope(async move |s| {
        let factory = move || {
            log.borrow_mut().push((now() - start).as_secs_f64());
            let (n, attempt) = (log.borrow().len(), attempt.clone());
            async move {
                sleep(SECOND / 2).await;
                attempt(n)
            }
        };
        s.spawn_restarting_fallible(factory, policy).await.unwrap()
    }));
    let told = recorder.exceptions();
    let times = times.take();
    (times, ended, told, settled(&ex))
}

/// The wait before a restart doubles from the shortest to the longest.
#[test]
fn the_backoff_doubles_up_to_its_longest() {
    let policy = RestartPolicy::on_failure().backoff(SECOND, 4 * SECOND);
    let (times, ended, told, end) = attempts(policy, |n| match n {
        6 => Ok(()),
        _ => Err(Fault("again")),
    });
    assert_eq!(times, [0.0, 1.5, 4.0, 8.5, 13.0, 17.5]);
    assert_eq!(ended, Ok(()));
    assert_eq!(told, ["again"; 5], "each told at once");
    assert_eq!((end.failed, end.reported, end.returned), (5, 5, 2));
}

/// An attempt that ran for at least the longest wait begins with the shortest again.
#[test]
fn a_long_run_resets_the_backoff() {
    let (ex, _) = executor();
    let times = Rc::new(RefCell::new(Vec::new()));
    let (start, log) = (ex.now(), Rc::clone(&times));
    ex.block_on(Supervisor::scope(async move |s| {
        let policy = RestartPolicy::on_failure().backoff(SECOND, 4 * SECOND);
        let factory = move || {
            log.borrow_mut().push((now() - start).as_secs());
            let n = log.borrow().len();
            async move {
                if n == 3 {
                    sleep(4 * SECOND).await;
                }
                assert!(n == 5, "boom");
            }
        };
        s.spawn_restarting(factory, policy).await.unwrap().unwrap();
    }));
    // Waits of 1 and 2; then 4 seconds of work, and waits of 1 and 2 again.
    assert_eq!(*times.borrow(), [0, 1, 3, 8, 10]);
    assert_eq!(settled(&ex).failed, 4);
}

/// It gives up after so many restarts within the time, which is a failure of its own, told.
#[test]
fn it_gives_up_at_its_limit() {
    let policy = RestartPolicy::on_failure()
        .backoff(SECOND / 2, SECOND / 2)
        .limit(2, 10 * SECOND);
    let (times, ended, told, end) = attempts(policy, |_| Err(Fault("again")));
    assert_eq!(times, [0.0, 1.0, 2.0]);
    let gave_up = ended.unwrap_err();
    assert_eq!((gave_up.restarts(), gave_up.per()), (2, 10 * SECOND));
    assert_eq!(
        told,
        [
            "again",
            "again",
            "again",
            "gave up after 2 restarts within 10s"
        ]
    );
    assert_eq!((end.failed, end.reported), (4, 4));
}

/// Restarts that are longer ago than the limit's time do not count.
#[test]
fn old_restarts_do_not_count() {
    let policy = RestartPolicy::on_failure()
        .backoff(3 * SECOND, 3 * SECOND)
        .limit(2, 6 * SECOND);
    let (times, ended, _, _) = attempts(policy, |n| match n {
        8 => Ok(()),
        _ => Err(Fault("again")),
    });
    assert_eq!(times.len(), 8, "at most two in any six seconds");
    assert_eq!(ended, Ok(()));
}

/// `always` restarts a task that has returned, too; `on_failure` does not.
#[test]
fn always_restarts_what_returned() {
    let always = RestartPolicy::always()
        .backoff(Duration::ZERO, Duration::ZERO)
        .limit(3, 100 * SECOND);
    let (times, ended, told, _) = attempts(always, |_| Ok(()));
    assert_eq!(times.len(), 4);
    assert!(ended.is_err());
    assert_eq!(told, ["gave up after 3 restarts within 100s"]);
    let (times, ended, told, _) = attempts(RestartPolicy::on_failure(), |_| Ok(()));
    assert_eq!((times.len(), ended, told.len()), (1, Ok(()), 0));
}

/// A panic of the factory is a failure of the attempt.
#[test]
fn a_panicking_factory_is_restarted() {
    let (ex, recorder) = executor();
    let calls = Rc::new(Cell::new(0));
    let count = Rc::clone(&calls);
    ex.block_on(Supervisor::scope(async move |s| {
        let factory = move || {
            count.set(count.get() + 1);
            if count.get() < 3 {
                panic_any("boom in factory");
            }
            async {}
        };
        let policy = RestartPolicy::on_failure().name("worker");
        s.spawn_restarting(factory, policy).await.unwrap().unwrap();
    }));
    assert_eq!(calls.get(), 3);
    assert_eq!(recorder.tasks(), ["worker", "worker"]);
    assert_eq!(settled(&ex).reported, 2);
}
/// P3: a factory whose captures go, and panic, as soon as it has returned, because it has ended whoever runs it: what it made is
/// dropped. Found by `fuzz/fuzz_targets/anything`.
#[test]
fn what_a_factory_makes_is_dropped_also_when_its_captures_panic_after_it() {
    for fails in [false, true] {
        let (ex, recorder) = executor();
        let drops = DropLog::new();
        let s = Supervisor::new_in(&ex.handle());
        let captures = drops.guard("captures").panics("boom in the captures");
        let (own, made) = (s.clone(), drops.clone());
        let factory = move || {
            let _captures = &captures;
            own.abort();
            assert!(!fails, "boom in the factory");
            holding(made.guard("made"), pending::<()>())
        };
        s.spawn_restarting(factory, RestartPolicy::always())
            .detach();
        ex.run_until_stalled();
        assert_eq!(drops.count("captures"), 1);
        assert_eq!(drops.count("made"), usize::from(!fails));
        assert!(
            recorder
                .exceptions()
                .contains(&"boom in the captures".to_owned())
        );
        assert!(ex.is_empty());
    }
}

/// Cancelling the handle cancels the one that runs; nothing is restarted.
#[test]
fn cancelling_the_handle_ends_it_all() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let made = log.clone();
    let s = Supervisor::new_in(&ex.handle());
    let handle = s.spawn_restarting(
        move || holding(made.guard("attempt"), pending::<()>()),
        RestartPolicy::always().name("worker"),
    );
    ex.run_until_stalled();
    assert_eq!(handle.name(), "worker (restarting)");
    assert_eq!(s.len(), 2);
    ex.block_on(async { handle.cancel() });
    log.assert(&["attempt"]);
    assert!(s.is_empty());
    assert_eq!(settled(&ex).cancelled, 2);
}

/// Asked to end, it is not restarted: neither while it waits nor when the last attempt has failed meanwhile.
#[test]
fn nothing_is_restarted_after_the_request() {
    let (ex, recorder) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let made = Rc::new(Cell::new(0));
    let count = Rc::clone(&made);
    let runs = s.spawn_restarting(
        move || {
            count.set(count.get() + 1);
            async {
                cancel_requested().await;
                sleep(SECOND).await;
                panic_any("boom at the end")
            }
        },
        RestartPolicy::always(),
    );
    let waits = s.spawn_restarting(
        || async { panic_any("boom at once") },
        RestartPolicy::on_failure().backoff(100 * SECOND, 100 * SECOND),
    );
    ex.run_until_stalled();
    let start = ex.now();
    let report = ex.block_on(s.shutdown(10 * SECOND));
    assert_eq!(ex.now() - start, SECOND);
    assert_eq!(made.get(), 1);
    assert_eq!(recorder.exceptions(), ["boom at once", "boom at the end"]);
    // Both overseers returned, or were dropped as the last when nobody asked any more.
    assert_eq!(report.failed(), 1);
    assert!(runs.is_finished() && waits.is_finished());
    settled(&ex);
}

/// Asked while it waits to restart, it ends at once; and what ends because it was asked is no failure too many.
#[test]
fn a_request_ends_the_restarting_at_once() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let policy = RestartPolicy::always().backoff(60 * SECOND, 60 * SECOND);
    let waiting = s.spawn_restarting(async || {}, policy);
    let policy = RestartPolicy::always().limit(0, SECOND);
    let asked = s.spawn_restarting(async || cancel_requested().await, policy);
    let trace = Trace::new();
    s.spawn(graceful(trace.clone(), "a sibling", SECOND))
        .detach();
    ex.run_until_stalled();
    let end = ex.spawn(s.shutdown(100 * SECOND));
    ex.run_until_stalled();
    assert!(waiting.is_finished() && asked.is_finished());
    assert_eq!(ex.block_on(waiting).unwrap(), Ok(()));
    assert_eq!(ex.block_on(asked).unwrap(), Ok(()));
    trace.assert(&[]);
    assert_eq!(numbers(ex.block_on(end).unwrap()), [4, 0, 0, 0]);
    trace.assert(&["a sibling"]);
    settled(&ex);
}

/// A restart counts for as long as the limit says, and not at its end.
#[test]
fn a_restart_is_old_when_its_time_is_up() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let made = Rc::new(Cell::new(0));
    let count = Rc::clone(&made);
    let policy = RestartPolicy::always()
        .backoff(10 * SECOND, 10 * SECOND)
        .limit(1, 10 * SECOND);
    let handle = s.spawn_restarting(
        move || {
            count.set(count.get() + 1);
            async {}
        },
        policy,
    );
    ex.block_on(async { sleep(95 * SECOND).await });
    assert_eq!(made.get(), 10);
    assert!(!handle.is_finished());
    s.abort();
}

/// A destructor of an output or a payload that panics is told, and does not end the restarting.
#[test]
fn a_panicking_output_does_not_end_the_restarting() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let made = log.clone();
    let count = Rc::new(Cell::new(0));
    let n = Rc::clone(&count);
    let ended = ex.block_on(Supervisor::scope(async move |s| {
        let factory = move || {
            n.set(n.get() + 1);
            let guard = made.guard("output").panics("boom in output");
            async move { guard }
        };
        let policy = RestartPolicy::always().limit(2, 100 * SECOND);
        s.spawn_restarting(factory, policy).await.unwrap()
    }));
    assert!(ended.is_err());
    assert_eq!(count.get(), 3);
    assert_eq!(log.count("output"), 3);
    let destructors = recorder
        .kinds()
        .into_iter()
        .filter(|kind| *kind == ContextKind::Destructor);
    assert_eq!(destructors.count(), 3);
    settled(&ex);
}

/// A task that waits for the end of its own supervisor asks for no time. One of another executor that waits, within a drive by
/// a member, says nothing about that member.
#[test]
fn a_member_that_drives_whoever_ends_its_supervisor_keeps_its_grace() {
    let (ex, _) = executor();
    let s = Supervisor::new_in(&ex.handle());
    let inner = Executor::new();
    inner.spawn(s.shutdown(10 * SECOND)).detach();
    let mut member = s.spawn(async move {
        let mut asked = Box::pin(cancel_requested());
        assert!(poll_once(&mut asked).is_pending());
        inner.run_until_stalled(); // the end begins here
        asked.await;
        sleep(SECOND).await; // says good-bye
    });
    ex.block_on(ex.idle());
    assert!(matches!(member.result(), Ok(Ok(()))), "{member:?}");
}

/// Between drives too, whatever the destructor of one that goes does: those that are to go after it are polled no more.
#[test]
fn who_is_to_go_is_not_polled_by_a_destructor_that_drives() {
    let ex = Rc::new(Executor::new());
    let s = Supervisor::new_in(&ex.handle());
    let own = Rc::clone(&ex);
    let drives = on_drop(move || {
        own.run_until_stalled();
    });
    s.spawn(holding(drives, pending::<()>())).detach();
    let polls = Rc::new(Cell::new(0));
    for _ in 0..2 {
        let polls = Rc::clone(&polls);
        s.spawn(async move {
            polls.set(polls.get() + 1);
            pending::<()>().await;
        })
        .detach();
    }
    s.abort();
    assert_eq!((ex.len(), polls.get()), (0, 0));
    assert_eq!(ex.stats().cancelled, 3);
}

/// `Debug` and the errors' texts say what there is, and nothing is logged besides.
#[test]
fn a_quiet_supervisor_logs_nothing() {
    let log = LogCapture::start();
    quiet();
    let ex = Executor::new();
    let s = Supervisor::new_in(&ex.handle());
    s.spawn(async {}).detach();
    assert_eq!(format!("{s:?}"), "Supervisor { len: 1, closed: false, .. }");
    ex.run_until_stalled();
    drop(s);
    drop(ex);
    assert!(log.records().is_empty());
}
