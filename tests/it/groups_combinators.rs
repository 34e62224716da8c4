//! `gather` and its kin, `as_completed`, `race`: order, emptiness, limits, what is cancelled (B107-B114), and that no
//! failure is lost and none told twice.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, ready};
use std::panic::panic_any;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use mainstay::{
    ContextKind, Executor, JoinHandle, LocalHandle, Raced, ReportPolicy, TaskError, as_completed,
    as_completed_with_limit, gather, gather_settled, gather_settled_with_limit, gather_with_limit,
    handles, race, race_ok, race_ok_with_limit, race_with_limit, sleep, timeout, try_gather,
    try_gather_with_limit, yield_now,
};

use crate::support::{
    Boom, DropLog, Event, Recorder, check_accounting, counting_waker, counts, holding, on_drop,
    panic_message, poll_with, quiet, yield_n,
};

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

const SECOND: Duration = Duration::from_secs(1);

fn executor() -> (Executor<'static>, Recorder) {
    quiet();
    let ex = Executor::builder().virtual_clock().build();
    let recorder = Recorder::on(&ex);
    (ex, recorder)
}

fn after<T: 'static>(seconds: u32, value: T) -> Boxed<T> {
    Box::pin(async move {
        sleep(SECOND * seconds).await;
        value
    })
}

fn panics<T: 'static>(seconds: u32, message: &'static str) -> Boxed<T> {
    Box::pin(async move {
        sleep(SECOND * seconds).await;
        panic_any(message)
    })
}

/// A future that counts, by being dropped, under a name.
fn guarded<T: 'static>(log: &DropLog, name: &str, future: Boxed<T>) -> Boxed<T> {
    Box::pin(holding(log.guard(name), future))
}

/// Nothing is live, nothing unread, and nothing was reported.
#[track_caller]
fn all_handed_on(ex: &Executor<'_>) {
    let counts = counts(ex);
    assert_eq!((counts.live, counts.unread), (0, 0), "{counts:?}");
    assert_eq!((counts.reported, counts.reports), (0, 0), "{counts:?}");
}

// ---------------------------------------------------------------------------------------------------------------------
// gather
// ---------------------------------------------------------------------------------------------------------------------

/// B109: values come in the order of the arguments, whatever the order of the ends. (ga:test_gather_safe)
#[test]
fn gather_keeps_the_order_of_its_arguments() {
    let (ex, _) = executor();
    let start = ex.now();
    let values = ex.block_on(gather([after(3, "a"), after(1, "b"), after(2, "c")]));
    assert_eq!(values.unwrap(), ["a", "b", "c"]);
    assert_eq!(ex.now() - start, 3 * SECOND, "at once");
    all_handed_on(&ex);
}

/// B109: of nothing, an empty vector, without waiting.
#[test]
fn gather_of_nothing_is_empty() {
    let (ex, _) = executor();
    let none = || Vec::<Boxed<u8>>::new();
    assert_eq!(ex.block_on(gather(none())).unwrap(), []);
    assert!(ex.block_on(gather_settled(none())).is_empty());
    let none = Vec::<Boxed<Result<u8, String>>>::new();
    assert_eq!(ex.block_on(try_gather(none)).unwrap(), []);
    assert_eq!(ex.stats().spawned, 0);
}

/// asyncio leaves the siblings running; here they are gone when the failure comes out.
#[test]
fn the_first_failure_of_a_gather_cancels_the_rest() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let failed = ex.block_on(async {
        let failed = gather([
            guarded(&log, "slow", after(9, ())),
            panics(1, "boom"),
            guarded(&log, "slower", after(10, ())),
        ])
        .await
        .unwrap_err();
        log.assert(&["slow", "slower"]);
        failed
    });
    assert!(failed.is_panic());
    assert_eq!(
        failed.into_panic().downcast_ref::<&str>(),
        Some(&"boom"),
        "with its payload"
    );
    log.assert_home();
    let end = counts(&ex);
    assert_eq!((end.failed, end.retrieved, end.cancelled), (1, 1, 2));
    all_handed_on(&ex);
}

/// B110: asyncio loses the second failure.
#[test]
fn later_failures_of_a_gather_are_reported() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        quiet();
        let ex = Executor::builder().virtual_clock().report(policy).build();
        let recorder = Recorder::on(&ex);
        let failed = ex.block_on(gather([
            panics::<()>(1, "first"),
            panics(1, "second"),
            after(2, ()),
        ]));
        assert_eq!(
            failed.unwrap_err().into_panic().downcast_ref::<&str>(),
            Some(&"first")
        );
        let report = recorder.only();
        assert_eq!(report.exception.as_deref(), Some("second"));
        assert_eq!(report.kind, ContextKind::NeverRetrieved);
        let end = counts(&ex);
        assert_eq!((end.failed, end.retrieved, end.reported), (2, 1, 1));
        assert_eq!((end.live, end.unread), (0, 0));
    }
}

/// B110, for `Err`.
#[test]
fn later_errors_of_a_try_gather_are_reported() {
    let (ex, recorder) = executor();
    let failed = ex.block_on(try_gather([
        after(1, Err::<(), _>("first")),
        after(1, Err("second")),
        after(2, Ok(())),
    ]));
    assert!(matches!(failed, Err(TaskError::Failed("first"))));
    assert_eq!(recorder.only().exception.as_deref(), Some("second"));
    let end = counts(&ex);
    assert_eq!((end.failed, end.retrieved, end.reported), (2, 1, 1));
}

/// A failure that is handed on is told nobody else, under neither policy.
#[test]
fn a_failure_handed_on_is_not_reported() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        quiet();
        let ex = Executor::builder().virtual_clock().report(policy).build();
        let recorder = Recorder::on(&ex);
        ex.block_on(async {
            assert!(gather([panics::<()>(1, "a")]).await.is_err());
            assert!(try_gather([after(1, Err::<(), _>("b"))]).await.is_err());
            assert!(gather_settled([panics::<()>(1, "c")]).await[0].is_err());
            let mut ends = as_completed([panics::<()>(1, "d")]);
            assert!(ends.next().await.unwrap().1.is_err());
            assert!(race([panics::<()>(1, "e")]).await.is_err());
            assert!(race_ok([after(1, Err::<(), _>("f"))]).await.is_err());
        });
        assert!(recorder.is_empty());
        let end = counts(&ex);
        assert_eq!((end.failed, end.retrieved), (6, 6));
        all_handed_on(&ex);
    }
}

/// A task that was cancelled by itself is a failure of the gather, as in asyncio, and none of the books.
#[test]
fn a_task_that_is_cancelled_fails_its_gather() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let failed = ex.block_on(async {
        let one = mainstay::spawn(pending::<()>());
        let cancel = one.cancel_handle();
        mainstay::spawn(async move {
            sleep(SECOND).await;
            assert!(cancel.cancel());
        })
        .detach();
        let other = mainstay::spawn(guarded(&log, "other", after(9, ())));
        gather(handles([one, other])).await.unwrap_err()
    });
    assert!(failed.is_cancelled());
    log.assert(&["other"]);
    assert_eq!(counts(&ex).failed, 0);
}

/// B109: `return_exceptions=True`: failures are among the values, and cancel nobody. (tk:test_return_exceptions)
#[test]
fn gather_settled_collects_failures_and_goes_on() {
    let (ex, _) = executor();
    let outcomes = ex.block_on(gather_settled([
        after(2, 1),
        panics(1, "boom"),
        after(3, 3),
    ]));
    assert_eq!(outcomes.len(), 3);
    assert_eq!(outcomes[0].as_ref().unwrap(), &1);
    assert!(outcomes[1].as_ref().unwrap_err().is_panic());
    assert_eq!(outcomes[2].as_ref().unwrap(), &3);
    all_handed_on(&ex);
}

/// B111: cancelling whoever awaits cancels all, whose destructors have run, also in collect mode; it ends cancelled.
/// (tk:test_cancellation_broadcast, tk:test_cancel_gather_2)
#[test]
fn cancelling_a_gather_cancels_all_of_it() {
    let (ex, recorder) = executor();
    for settled in [false, true] {
        let log = DropLog::new();
        let children = [
            guarded(&log, "a", after(9, ())),
            guarded(&log, "b", after(9, ())),
        ];
        let task = if settled {
            ex.spawn(async move { drop(gather_settled(children).await) })
        } else {
            ex.spawn(async move { drop(gather(children).await) })
        };
        ex.block_on(async {
            sleep(SECOND).await;
            assert!(task.cancel());
            log.assert(&["a", "b"]);
            assert!(task.await.unwrap_err().is_cancelled());
        });
    }
    assert!(recorder.is_empty());
    assert_eq!(counts(&ex).cancelled, 6);
}

/// What had failed and was not yet handed on when a collecting gather is dropped is reported.
#[test]
fn failures_of_a_dropped_gather_settled_are_reported() {
    let (ex, recorder) = executor();
    ex.block_on(async {
        let all = gather_settled([panics(1, "early"), after(9, ())]);
        assert!(timeout(3 * SECOND, all).await.is_err());
        assert_eq!(
            LocalHandle::current().stats().live,
            0,
            "gone when the drop returns"
        );
    });
    assert_eq!(recorder.only().exception.as_deref(), Some("early"));
    let end = counts(&ex);
    assert_eq!((end.failed, end.reported, end.retrieved), (1, 1, 0));
}

/// B102's kin: dropped before the first poll, nothing has been started.
#[test]
fn nothing_is_started_before_the_first_poll() {
    let (ex, _) = executor();
    let made = Rc::new(Cell::new(0));
    ex.block_on(async {
        let count = Rc::clone(&made);
        let futures = (0..3).map(move |_| {
            count.set(count.get() + 1);
            ready(())
        });
        drop(gather(futures));
    });
    assert_eq!((made.get(), ex.stats().spawned), (0, 0));
}

/// The call's place is the tasks' spawn location.
#[test]
fn tasks_of_a_gather_are_spawned_where_it_was_called() {
    let (ex, _) = executor();
    ex.block_on(async {
        let line = line!() + 1;
        let all = gather([pending::<()>()]);
        let mut all = pin!(all);
        assert!(poll_with(&mut all, &counting_waker().0).is_pending());
        let tasks = LocalHandle::current().tasks();
        assert_eq!(tasks[0].location().line(), line);
        assert!(
            tasks[0]
                .location()
                .file()
                .ends_with("groups_combinators.rs")
        );
    });
}

#[test]
fn a_combinator_outside_of_an_executor_says_what_to_do() {
    quiet();
    let (waker, _) = counting_waker();
    let message = panic_message(|| {
        let mut all = pin!(gather([ready(1)]));
        drop(poll_with(&mut all, &waker));
    });
    assert!(
        message.contains("`gather` was polled outside of a running executor"),
        "{message}"
    );
}

/// A panic of the iterator is that of whoever awaits; what was started is cancelled. (async-executor:
/// drop::iterator_panics_mid_run)
#[test]
fn an_iterator_that_panics_ends_the_gather() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let inner = log.clone();
    let task = ex.spawn(async move {
        let futures = (0..5).map(move |n| {
            assert!(n < 2, "no more");
            guarded(&inner, "started", after(9, n))
        });
        drop(gather(futures).await);
    });
    let failed = ex.block_on(task).unwrap_err();
    assert!(failed.to_string().contains("no more"));
    log.assert(&["started", "started"]);
    assert_eq!(recorder.len(), 1, "the awaiting task's own");
    check_accounting(&ex);
}

/// Two values whose destructors panic, in a gather that fails: both are told, and nothing aborts.
#[test]
fn values_dropped_with_a_failed_gather_are_contained() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let values = [
        log.guard("first").panics("first"),
        log.guard("second").panics("second"),
    ];
    let mut futures: Vec<Boxed<_>> = values.into_iter().map(|guard| after(1, guard)).collect();
    futures.push(panics(2, "boom"));
    ex.block_on(async {
        assert!(gather(futures).await.is_err());
    });
    log.assert(&["first", "second"]);
    assert_eq!(
        recorder.kinds(),
        [ContextKind::Destructor, ContextKind::Destructor]
    );
}

/// A sibling whose destructor panics when it is cancelled has failed, which nobody is handed.
#[test]
fn a_panicking_destructor_of_a_cancelled_sibling_is_reported() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        quiet();
        let ex = Executor::builder().virtual_clock().report(policy).build();
        let recorder = Recorder::on(&ex);
        let log = DropLog::new();
        let sibling = Box::pin(holding(log.guard("sibling").panics("late"), after(9, ())));
        let failed = ex.block_on(gather([sibling as Boxed<()>, panics(1, "boom")]));
        assert!(failed.unwrap_err().is_panic());
        assert_eq!(recorder.only().exception.as_deref(), Some("late"));
        let end = counts(&ex);
        assert_eq!((end.failed, end.retrieved, end.reported), (2, 1, 1));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Limits
// ---------------------------------------------------------------------------------------------------------------------

/// A future that says how many of its like run at once.
fn counted(running: &Rc<Cell<usize>>, most: &Rc<Cell<usize>>, n: usize) -> Boxed<usize> {
    let (running, most) = (Rc::clone(running), Rc::clone(most));
    Box::pin(async move {
        running.set(running.get() + 1);
        most.set(most.get().max(running.get()));
        yield_n(n % 5 + 1).await;
        running.set(running.get() - 1);
        n
    })
}

#[test]
fn a_limit_bounds_what_runs_at_once() {
    let (ex, _) = executor();
    let (running, most) = (Rc::<Cell<usize>>::default(), Rc::<Cell<usize>>::default());
    let futures = || (0..40).map(|n| counted(&running, &most, n));
    let expected: Vec<usize> = (0..40).collect();
    ex.block_on(async {
        assert_eq!(gather_with_limit(futures(), 7).await.unwrap(), expected);
        assert_eq!(most.replace(0), 7);
        let settled = gather_settled_with_limit(futures(), 3).await;
        assert_eq!(
            settled.into_iter().map(Result::unwrap).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(most.replace(0), 3);
        let fallible = futures().map(|future| async move { Ok::<_, String>(future.await) });
        assert_eq!(try_gather_with_limit(fallible, 2).await.unwrap(), expected);
        assert_eq!(most.replace(0), 2);
        let mut ends = as_completed_with_limit(futures(), 4);
        let mut seen = Vec::new();
        while let Some((place, outcome)) = ends.next().await {
            assert_eq!(place, outcome.unwrap());
            seen.push(place);
        }
        seen.sort_unstable();
        assert_eq!(seen, expected);
        assert_eq!(most.replace(0), 4);
    });
    all_handed_on(&ex);
}

#[test]
fn a_limit_of_nothing_is_refused_at_once() {
    quiet();
    let message = panic_message(|| drop(gather_with_limit([ready(1)], 0)));
    assert!(message.contains("would never run any"), "{message}");
}

/// A million futures through a limit of a hundred: no more than a hundred live at once.
#[test]
fn many_futures_through_a_limit_live_a_hundred_at_a_time() {
    let (ex, _) = executor();
    let most = Rc::new(Cell::new(0));
    let count = if cfg!(debug_assertions) {
        50_000
    } else {
        1_000_000
    };
    let total = ex.block_on(async {
        let seen = Rc::clone(&most);
        let futures = (0..count).map(move |n: u64| {
            let seen = Rc::clone(&seen);
            async move {
                seen.set(LocalHandle::current().stats().live.max(seen.get()));
                n
            }
        });
        let mut ends = as_completed_with_limit(futures, 100);
        let mut total = 0;
        while let Some((_, outcome)) = ends.next().await {
            total += outcome.unwrap();
        }
        total
    });
    assert_eq!(total, count * (count - 1) / 2);
    assert_eq!(most.get(), 100);
    all_handed_on(&ex);
}

// ---------------------------------------------------------------------------------------------------------------------
// as_completed
// ---------------------------------------------------------------------------------------------------------------------

/// B107: in the order of the ends, failures among them. (ac:test_as_completed_safe, _partial_failure)
#[test]
fn as_completed_gives_outcomes_as_they_come() {
    let (ex, _) = executor();
    let seen = ex.block_on(async {
        let mut ends = as_completed([after(3, 3), panics(2, "two"), after(1, 1), after(1, 4)]);
        let mut seen = Vec::new();
        while let Some((place, outcome)) = ends.next().await {
            seen.push((place, outcome.ok()));
        }
        assert!(ends.next().await.is_none(), "and stays over");
        seen
    });
    let expected = [(2, Some(1)), (3, Some(4)), (1, None), (0, Some(3))];
    assert_eq!(seen, expected);
    all_handed_on(&ex);
}

/// B107: closed early, the rest is cancelled, and a failure that was not given is reported, once. aiotools tells those that
/// were given a second time. (ac:test_error_from_body)
#[test]
fn a_stream_that_is_left_early_cancels_the_rest() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    ex.block_on(async {
        let mut ends = as_completed([
            guarded(&log, "late", after(9, ())),
            panics(1, "given"),
            panics(1, "not given"),
        ]);
        let (place, outcome) = ends.next().await.unwrap();
        assert_eq!((place, outcome.is_err()), (1, true));
        drop(ends);
        log.assert(&["late"]);
    });
    assert_eq!(recorder.only().exception.as_deref(), Some("not given"));
    let end = counts(&ex);
    assert_eq!((end.failed, end.retrieved, end.reported), (2, 1, 1));
}

/// It is a `Stream`, and a fused one.
#[test]
fn as_completed_is_a_stream() {
    use futures_core::{FusedStream, Stream};
    let (ex, _) = executor();
    ex.block_on(async {
        let mut ends = as_completed([ready(7)]);
        assert!(!ends.is_terminated());
        let first = std::future::poll_fn(|cx| Pin::new(&mut ends).poll_next(cx)).await;
        assert_eq!(
            first.map(|(place, outcome)| (place, outcome.unwrap())),
            Some((0, 7))
        );
        let end = std::future::poll_fn(|cx| Pin::new(&mut ends).poll_next(cx)).await;
        assert!(end.is_none() && ends.is_terminated());
    });
}

/// `next` is cancel safe: one that is dropped takes nothing with it.
#[test]
fn a_dropped_next_loses_no_outcome() {
    let (ex, _) = executor();
    let got = ex.block_on(async {
        let mut ends = as_completed([after(3, 'x')]);
        for _ in 0..2 {
            assert!(timeout(SECOND, ends.next()).await.is_err());
        }
        ends.next().await.unwrap().1.unwrap()
    });
    assert_eq!(got, 'x');
}

// ---------------------------------------------------------------------------------------------------------------------
// race
// ---------------------------------------------------------------------------------------------------------------------

/// B112: the first to end wins, whatever it says; the rest is gone.
#[test]
fn the_first_to_end_wins_the_race() {
    let (ex, _) = executor();
    let log = DropLog::new();
    ex.block_on(async {
        let futures = [guarded(&log, "slow", after(5, 5)), after(1, 1)];
        assert_eq!(race(futures).await.unwrap(), 1);
        log.assert(&["slow"]);
        let failed = race([after(2, ()), panics(1, "boom")]).await.unwrap_err();
        assert!(failed.is_panic());
    });
    all_handed_on(&ex);
}

/// B112: a race of nothing is an error, which says so.
#[test]
fn a_race_of_nothing_is_an_error() {
    let (ex, _) = executor();
    let error = ex.block_on(race(Vec::<Boxed<()>>::new())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a race of nothing: there is no task to wait for"
    );
    assert!(!error.is_panic() && !error.is_cancelled() && error.id().is_none());
    let error = ex
        .block_on(race_ok(Vec::<Boxed<Result<(), String>>>::new()))
        .unwrap_err();
    assert!(error.is_empty() && !error.is_cancelled());
    assert!(!error.to_string().is_empty());
}

/// B112: the first success wins, with the failures before it; the later ones are cancelled. (ra:*)
#[test]
fn the_first_success_wins_the_race_of_results() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let won = ex.block_on(race_ok([
        guarded(&log, "late", after(9, Ok(9))),
        after(2, Err("two")),
        panics(1, "one"),
        after(3, Ok(3)),
    ]));
    let Raced { value, failures } = won.unwrap();
    assert_eq!(value, 3);
    let told: Vec<_> = failures
        .iter()
        .map(|(_, e)| e.message().into_owned())
        .collect();
    assert_eq!(told, ["one", "two"]);
    assert!(failures.iter().all(|(task, _)| task.is_some()));
    log.assert(&["late"]);
    assert!(recorder.is_empty());
    all_handed_on(&ex);
}

/// B112: where all fail, all are told; those that were cancelled are left out.
#[test]
fn a_race_that_nobody_wins_gives_all_failures() {
    let (ex, recorder) = executor();
    let lost = ex.block_on(async {
        let futures = [
            after(2, Err::<(), _>("b")),
            after(1, Err("a")),
            panics(3, "c"),
        ];
        race_ok(futures).await.unwrap_err()
    });
    let told: Vec<_> = lost.iter().map(|(_, e)| e.message().into_owned()).collect();
    assert_eq!(told, ["a", "b", "c"]);
    assert_eq!(lost.iter().filter(|(_, e)| e.is_panic()).count(), 1);
    assert!(recorder.is_empty());
    all_handed_on(&ex);
}

/// Failures that a dropped race had collected are reported: they were handed to nobody.
#[test]
fn failures_of_a_dropped_race_are_reported() {
    let (ex, recorder) = executor();
    ex.block_on(async {
        let futures = [after(1, Err::<(), _>("early")), after(9, Ok(()))];
        assert!(timeout(3 * SECOND, race_ok(futures)).await.is_err());
    });
    assert_eq!(recorder.only().exception.as_deref(), Some("early"));
    let end = counts(&ex);
    assert_eq!((end.failed, end.reported, end.live), (1, 1, 0));
}

/// With a limit, those beyond it are never begun.
#[test]
fn a_limited_race_is_between_the_first_alone() {
    let (ex, _) = executor();
    let futures = [after(3, 3), after(2, 2), after(1, 1)];
    assert_eq!(ex.block_on(race_with_limit(futures, 2)).unwrap(), 2);
    assert_eq!(counts(&ex).spawned, 2);
}

/// With a limit, the next begins when one has failed.
#[test]
fn a_limited_race_tries_one_after_the_other() {
    let (ex, _) = executor();
    let begun = Rc::new(Cell::new(0));
    let count = Rc::clone(&begun);
    let futures = (0..9).map(move |n| {
        let count = Rc::clone(&count);
        async move {
            count.set(count.get() + 1);
            yield_now().await;
            if n == 2 { Ok(n) } else { Err("no") }
        }
    });
    let won = ex.block_on(race_ok_with_limit(futures, 1)).unwrap();
    assert_eq!((won.value, won.failures.len(), begun.get()), (2, 2, 3));
    all_handed_on(&ex);
}

// ---------------------------------------------------------------------------------------------------------------------
// Handles
// ---------------------------------------------------------------------------------------------------------------------

/// Tasks that run, have ended, failed or were cancelled before: all are taken as they are.
#[test]
fn handles_in_every_state_can_be_gathered() {
    let (ex, recorder) = executor();
    let outcomes = ex.block_on(async {
        let ended = mainstay::spawn(ready(1));
        let failed = mainstay::spawn(async { panic_any("boom") });
        let cancelled = mainstay::spawn(pending());
        let _ = cancelled.cancel_with_reason("unwanted");
        yield_now().await;
        let running = mainstay::spawn(after(2, 4));
        gather_settled(handles([ended, failed, cancelled, running])).await
    });
    assert_eq!(outcomes[0].as_ref().unwrap(), &1);
    assert!(outcomes[1].as_ref().unwrap_err().is_panic());
    assert_eq!(outcomes[2].as_ref().unwrap_err().reason(), Some("unwanted"));
    assert_eq!(outcomes[3].as_ref().unwrap(), &4);
    assert_eq!(recorder.len(), 1, "by the policy, as any task's");
    check_accounting(&ex);
    assert_eq!(counts(&ex).unread, 0);
}

/// Handles whose tasks are being told of at that moment are waited for.
#[test]
fn a_handle_whose_task_is_finishing_is_waited_for() {
    let (ex, _) = executor();
    let sum = ex.block_on(async {
        let task = mainstay::spawn(ready(5));
        let seen = Rc::new(Cell::new(0));
        for _ in 0..3 {
            let seen = Rc::clone(&seen);
            task.add_done_callback(move |_| seen.set(seen.get() + 1));
        }
        let sum = gather(handles([task])).await.unwrap()[0];
        assert_eq!(seen.get(), 3, "callbacks first");
        sum
    });
    assert_eq!(sum, 5);
}

/// One that goes on elsewhere when its executor is gone starts nothing more, and says so.
#[test]
fn what_is_not_started_when_its_executor_goes_reads_as_cancelled() {
    let (ex, _) = executor();
    let futures = [pending::<()>(), pending(), pending()];
    let mut all = Box::pin(gather_settled_with_limit(futures, 1));
    ex.block_on(async { assert!(poll_with(&mut all, std::task::Waker::noop()).is_pending()) });
    drop(ex);
    let outcomes = Executor::new().block_on(all);
    assert_eq!(outcomes.len(), 3);
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(error.is_cancelled());
    }
}

/// An iterator that has said that there is no more is not asked again.
#[test]
fn an_iterator_is_not_asked_again_after_its_end() {
    let asked = Rc::new(Cell::new(0));
    let count = Rc::clone(&asked);
    let restless = std::iter::from_fn(move || {
        count.set(count.get() + 1);
        (count.get() != 2).then(|| yield_n(3))
    });
    let (ex, _) = executor();
    let all = gather_with_limit(restless, 2);
    assert_eq!(ex.block_on(all).unwrap().len(), 1);
    assert_eq!(asked.get(), 2);
}

/// Own handles given to a combinator that is dropped are cancelled.
#[test]
fn handles_of_a_dropped_race_are_cancelled() {
    let (ex, _) = executor();
    let log = DropLog::new();
    ex.block_on(async {
        let slow = mainstay::spawn(guarded(&log, "slow", after(9, 9)));
        let fast = mainstay::spawn(after(1, 1));
        assert_eq!(race(handles([slow, fast])).await.unwrap(), 1);
        log.assert(&["slow"]);
    });
    assert_eq!(counts(&ex).cancelled, 1);
}

/// A task that gathers its own handle is told so, as one that awaits it (B029).
#[test]
fn a_task_that_gathers_itself_is_told_so() {
    let (ex, _) = executor();
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let (inner, said) = (Rc::clone(&own), Rc::new(RefCell::new(String::new())));
    let out = Rc::clone(&said);
    let handle = ex.spawn(async move {
        let handle = inner.borrow_mut().take().expect("it was put there");
        let failed = gather(handles([handle])).await.unwrap_err();
        out.replace(failed.to_string());
    });
    own.replace(Some(handle));
    let _ = ex.run_until_stalled();
    assert!(
        said.borrow().contains("awaited its own handle"),
        "{}",
        said.borrow()
    );
    // Its handle was given up with the gather, which cancels what it has: itself, right after that poll.
    assert_eq!(counts(&ex).live, 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// In odd places
// ---------------------------------------------------------------------------------------------------------------------

/// Combinators nest.
#[test]
fn combinators_nest() {
    let (ex, _) = executor();
    let sums = ex.block_on(gather((0..3).map(|n| async move {
        let inner = gather((0..=n).map(|m| after(1, m))).await.unwrap();
        inner.into_iter().sum::<u32>()
    })));
    assert_eq!(sums.unwrap(), [0, 1, 3]);
    all_handed_on(&ex);
}

/// On an executor that is closing, what a combinator would spawn is cancelled, and the combinator ends.
#[test]
fn a_combinator_in_a_destructor_at_the_end_does_not_hang() {
    let (ex, _) = executor();
    let seen = Rc::new(Cell::new(None));
    let out = Rc::clone(&seen);
    let guard = on_drop(move || {
        let mut all = pin!(gather([pending::<()>()]));
        let polled = poll_with(&mut all, &counting_waker().0);
        out.set(Some(match polled {
            Poll::Ready(outcome) => outcome.unwrap_err().is_cancelled(),
            Poll::Pending => false,
        }));
    });
    ex.task()
        .background()
        .spawn(holding(guard, pending::<()>()))
        .detach();
    let _ = ex.run_until_stalled();
    drop(ex);
    assert!(seen.get().is_some(), "it was polled");
}

/// Awaited by a foreign waker, from a `block_on` of another kind.
#[test]
fn a_combinator_wakes_a_foreign_waker() {
    let (ex, _) = executor();
    let event = Event::new();
    let (waker, wakes) = counting_waker();
    ex.block_on(async {
        let waiting = event.wait();
        let mut all = pin!(gather([waiting]));
        assert!(poll_with(&mut all, &waker).is_pending());
        yield_now().await;
        event.set();
        yield_n(2).await;
        assert_eq!(wakes.wakes(), 1);
        assert!(poll_with(&mut all, &waker).is_ready());
    });
}

/// A panic with an odd payload comes through whole.
#[test]
fn payloads_come_through_whole() {
    let (ex, _) = executor();
    let failed = ex.block_on(gather([async { panic_any(Boom("odd")) }]));
    let payload = failed
        .map(|values: Vec<()>| values.len())
        .unwrap_err()
        .into_panic();
    assert_eq!(payload.downcast_ref::<Boom>().unwrap().0, "odd");
}

/// When the task that awaits a combinator is asked to end, so are the tasks that it runs.
#[test]
fn a_request_to_end_passes_on_to_gathered_tasks() {
    let (ex, _) = executor();
    let done = Rc::new(Cell::new(0));
    let count = Rc::clone(&done);
    ex.spawn(async move {
        let all = gather((0..3).map(|_| {
            let count = Rc::clone(&count);
            async move {
                mainstay::cancel_requested().await;
                sleep(SECOND).await;
                count.set(count.get() + 1);
            }
        }));
        assert_eq!(all.await.unwrap().len(), 3);
    })
    .detach();
    let _ = ex.run_until_stalled();
    let report = ex.shutdown(5 * SECOND);
    assert_eq!((done.get(), report.finished(), report.dropped()), (3, 4, 0));
}

/// P3: the iterator that the futures come from goes with the combinator, whatever its destructor does.
#[test]
fn the_destructor_of_the_iterator_is_contained_and_told() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let guard = log.guard("iterator").panics("boom in the iterator");
    ex.block_on(async {
        let futures = std::iter::repeat_with(move || {
            let _guard = &guard;
            pending::<()>()
        });
        let mut all = Box::pin(gather_with_limit(futures.take(10), 2));
        let (waker, _) = counting_waker();
        assert!(poll_with(&mut all, &waker).is_pending());
        drop(all);
        log.assert(&["iterator"]);
    });
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::Destructor);
    assert_eq!(report.exception.as_deref(), Some("boom in the iterator"));
    assert_eq!(counts(&ex).live, 0);
}
