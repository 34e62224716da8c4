//! Handles on other threads: the outcome reaches them once, a failure is known to somebody and told at most once, and what
//! is not `Send` stays at home.

use std::future::{pending, ready};
use std::panic::panic_any;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use mainstay::{ContextKind, Executor, RemoteHandle, ReportPolicy};

use crate::remote::{elsewhere, without_hanging};
use crate::support::{
    Boom, Counts, DropLog, EndlessPayload, Fault, LogCapture, Recorder, WakeCount, counting_waker,
    counts, holding, panic_message, poll_once, poll_with, quiet,
};

fn unretrieved() -> Executor<'static> {
    Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build()
}

/// A task of `ex` that was spawned elsewhere and fails when it is run.
fn failing(ex: &Executor<'_>) -> RemoteHandle<()> {
    quiet();
    let spawner = ex.spawner();
    elsewhere(|| {
        spawner
            .spawn(|| async { panic_any(Boom("in a task")) })
            .unwrap()
    })
}

/// A task of `ex` that waits for ever, and holds a guard.
fn parked(ex: &Executor<'_>, drops: &DropLog) -> RemoteHandle<()> {
    let (spawner, guard) = (ex.spawner(), drops.guard("future"));
    let handle = elsewhere(move || {
        let make = move || holding((guard, Rc::new(())), pending());
        spawner.spawn(make).unwrap()
    });
    ex.run_until_stalled();
    handle
}

// ---------------------------------------------------------------------------------------------------------------------
// Awaiting and joining
// ---------------------------------------------------------------------------------------------------------------------

// Send: awaited by an executor on another thread, while it is pending and when it has finished.
#[test]
fn a_handle_is_awaited_on_another_executors_thread() {
    without_hanging(|| {
        let ex = Executor::new();
        let (go, gone) = async_channel::bounded::<()>(1);
        let spawner = ex.spawner();
        let thread = thread::spawn(move || {
            let late = spawner.spawn(move || async move { gone.recv().await.is_ok() });
            let early = spawner.spawn(|| ready("early"));
            let other = Executor::new();
            let outcome = other.block_on(async {
                let waits = mainstay::spawn(late.unwrap());
                mainstay::yield_now().await;
                let early = early.unwrap().await.unwrap();
                go.send(()).await.unwrap();
                (early, waits.await.unwrap().unwrap())
            });
            spawner.call_soon(|ex| ex.stop()).unwrap();
            outcome
        });
        ex.run_forever();
        assert_eq!(thread.join().unwrap(), ("early", true));
    });
}

// At home, it is awaited like any future.
#[test]
fn a_handle_is_awaited_at_home() {
    let ex = Executor::new();
    let handle = ex.spawner().spawn(|| async {
        mainstay::yield_now().await;
        5
    });
    assert_eq!(ex.block_on(handle.unwrap()).unwrap(), 5);
}

#[test]
fn is_finished_says_that_joining_will_not_wait() {
    let ex = Executor::new();
    let handle = ex.spawner().spawn(|| ready(1)).unwrap();
    assert!(!handle.is_finished());
    ex.run_until_stalled();
    assert!(handle.is_finished());
    assert!(format!("{handle:?}").contains("finished: true"));
    assert_eq!(
        handle.join().unwrap(),
        1,
        "at home too, as it does not wait"
    );
}

// B124; asyncio tk:test_run_coroutine_threadsafe_with_timeout.
#[test]
fn a_join_that_times_out_leaves_the_task_unless_it_is_cancelled() {
    without_hanging(|| {
        let drops = DropLog::new();
        let ex = Executor::new();
        let handle = parked(&ex, &drops);
        let handle = elsewhere(move || {
            let began = Instant::now();
            let handle = handle.join_timeout(Duration::from_millis(30)).unwrap_err();
            assert!(began.elapsed() >= Duration::from_millis(30), "never early");
            handle
        });
        ex.run_until_stalled();
        assert_eq!(ex.len(), 1, "the task is left alone");
        assert_eq!(drops.len(), 0);
        assert!(handle.cancel());
        ex.run_until_stalled();
        let outcome = elsewhere(move || handle.join_timeout(Duration::MAX)).unwrap();
        assert!(outcome.unwrap_err().is_cancelled());
        drops.assert(&["future"]);
    });
}

#[test]
fn a_join_without_time_only_looks() {
    let ex = Executor::new();
    let handle = ex.spawner().spawn(|| ready(3)).unwrap();
    ex.block_on(async {
        let handle = handle.join_timeout(Duration::ZERO).unwrap_err();
        mainstay::yield_now().await;
        mainstay::yield_now().await;
        let outcome = handle.join_timeout(Duration::ZERO).unwrap();
        assert_eq!(outcome.unwrap(), 3);
    });
}

// It would wait for itself.
#[test]
fn joining_at_home_panics_instead_of_waiting_for_ever() {
    quiet();
    let ex = Executor::new();
    let spawn = || ex.spawner().spawn(pending::<()>).unwrap();
    let text = ex.block_on(async { panic_message(|| spawn().join()) });
    assert!(text.contains("would wait for itself"), "{text}");
    let text = ex.block_on(async {
        panic_message(|| spawn().join_timeout(Duration::from_secs(9)).map_err(drop))
    });
    assert!(text.contains("would wait for itself"), "{text}");
    // Nobody drives it meanwhile, so this would wait no shorter.
    let text = panic_message(|| spawn().join());
    assert!(text.contains("would wait for itself"), "{text}");
    ex.set_exception_handler(|_, _| {});
}

// After the futures crate's local_pool::park_unpark_independence.
#[test]
fn joining_takes_and_leaves_no_token_of_std_park() {
    without_hanging(|| {
        let ex = Executor::new();
        let spawner = ex.spawner();
        let thread = thread::spawn(move || {
            thread::current().unpark();
            let handle = spawner.spawn(|| async {
                mainstay::sleep(Duration::from_millis(10)).await;
            });
            handle.unwrap().join().unwrap();
            thread::park(); // would block for ever if the join had taken the token
            let handle = spawner.spawn(|| async {
                mainstay::sleep(Duration::from_millis(10)).await;
            });
            handle.unwrap().join().unwrap();
            spawner.call_soon(|ex| ex.stop()).unwrap();
            // A token that the join had left would end this at once. (It may end early for no reason: then try again.)
            (0..10).any(|_| {
                let began = Instant::now();
                thread::park_timeout(Duration::from_millis(20));
                began.elapsed() >= Duration::from_millis(20)
            })
        });
        ex.run_forever();
        assert!(thread.join().unwrap());
    });
}

#[test]
fn polling_a_handle_whose_outcome_was_taken_panics() {
    quiet();
    let ex = Executor::new();
    let mut handle = ex.spawner().spawn(|| ready(1)).unwrap();
    ex.run_until_stalled();
    assert!(poll_once(&mut handle).is_ready());
    let text = panic_message(|| poll_once(&mut handle));
    assert!(text.contains("taken"), "{text}");
    let text = panic_message(|| handle.join());
    assert!(text.contains("taken"), "{text}");
}

// B029; asyncio tk:test_task_awaits_on_itself.
#[test]
fn a_task_that_awaits_its_own_handle_gets_an_error() {
    let ex = Executor::new();
    let (sender, receiver) = async_channel::bounded::<RemoteHandle<String>>(1);
    let handle = ex.spawner().spawn(move || async move {
        let mut own = receiver.recv().await.unwrap();
        (&mut own).await.unwrap_err().to_string()
    });
    sender.try_send(handle.unwrap()).unwrap();
    let log = ex.spawner().spawn(|| async {});
    ex.block_on(log.unwrap()).unwrap();
    ex.run_until_stalled();
    assert_eq!(counts(&ex).returned, 2, "it did not wait for itself");
}

// H2: the waker that counts is the last one.
#[test]
fn the_latest_waker_is_woken_once() {
    let ex = Executor::new();
    let mut handle = ex.spawner().spawn(|| ready(())).unwrap();
    let ((old, old_count), (new, new_count)) = (counting_waker(), counting_waker());
    assert!(poll_with(&mut handle, &old).is_pending());
    assert!(poll_with(&mut handle, &old).is_pending());
    assert!(poll_with(&mut handle, &new).is_pending());
    ex.run_until_stalled();
    assert_eq!((old_count.wakes(), new_count.wakes()), (0, 1));
    assert!(poll_with(&mut handle, &old).is_ready());
}

// P3: wakers of those who wait elsewhere.
#[test]
fn a_waker_that_panics_is_contained_and_reported() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let mut handle = ex.spawner().spawn(|| ready(2)).unwrap();
    let waker = Waker::from(WakeCount::panicking_on_wake());
    assert!(poll_with(&mut handle, &waker).is_pending());
    ex.run_until_stalled();
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::Callback);
    assert_eq!(report.exception.as_deref(), Some("boom in wake"));
    assert_eq!(handle.join().unwrap(), 2);
}

#[test]
fn a_waker_whose_destructor_panics_with_its_handle_is_reported_at_home() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let mut handle = ex.spawner().spawn(pending::<()>).unwrap();
    elsewhere(move || {
        let waker = Waker::from(WakeCount::panicking_on_drop());
        assert!(poll_with(&mut handle, &waker).is_pending());
        drop(waker); // the clone in the handle is the last
        drop(handle);
    });
    assert!(recorder.is_empty(), "it is told at home");
    ex.run_until_stalled();
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::Destructor);
    assert_eq!(report.exception.as_deref(), Some("boom in waker drop"));
}

// ---------------------------------------------------------------------------------------------------------------------
// Failures
// ---------------------------------------------------------------------------------------------------------------------

// B124: delivered remotely and not reported twice; asyncio tk:test_run_coroutine_threadsafe_with_exception.
#[test]
fn a_failure_is_reported_once_and_reaches_the_handle() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let handle = failing(&ex);
    ex.run_until_stalled();
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::TaskFailed);
    assert!(report.handle_held);
    let error = elsewhere(|| handle.join()).unwrap_err();
    assert!(error.is_panic());
    ex.run_until_stalled();
    assert_eq!(recorder.len(), 1);
    assert_eq!(
        counts(&ex),
        Counts {
            spawned: 1,
            failed: 1,
            reported: 1,
            reports: 1,
            ..Counts::default()
        }
    );
}

#[test]
fn a_report_says_whether_the_handle_elsewhere_is_there() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    failing(&ex).detach();
    ex.run_until_stalled();
    assert!(!recorder.only().handle_held);
}

// P2, as asyncio has it: between the reading and the executor's look it counts as unread.
#[test]
fn a_failure_that_is_read_elsewhere_is_not_reported() {
    let ex = unretrieved();
    let recorder = Recorder::on(&ex);
    let spawner = ex.spawner();
    let (panic, error) = (
        failing(&ex),
        elsewhere(|| {
            spawner
                .spawn_fallible(|| ready(Err::<(), _>(Fault("an error"))))
                .unwrap()
        }),
    );
    ex.run_until_stalled();
    assert_eq!(counts(&ex).unread, 2);
    elsewhere(|| {
        assert!(panic.join().unwrap_err().is_panic());
        assert_eq!(error.join().unwrap(), Err(Fault("an error")));
    });
    assert_eq!(counts(&ex).unread, 2, "the executor has not looked");
    ex.run_until_stalled();
    assert_eq!((counts(&ex).unread, counts(&ex).retrieved), (0, 2));
    drop(ex);
    assert!(recorder.is_empty());
}

#[test]
fn a_failure_that_is_read_before_the_executor_looks_again_is_retrieved_at_its_end_too() {
    let ex = unretrieved();
    let recorder = Recorder::on(&ex);
    let handle = failing(&ex);
    ex.run_until_stalled();
    assert!(elsewhere(|| handle.join()).is_err());
    drop(ex); // finds the hint, or looks for itself
    assert!(recorder.is_empty());
}

#[test]
fn a_handle_dropped_unread_elsewhere_has_the_failure_reported_at_home() {
    quiet();
    let ex = unretrieved();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let (spawner, payload) = (ex.spawner(), drops.guard("payload"));
    let handle = elsewhere(move || {
        spawner
            .spawn(|| async { panic_any(payload) })
            .map_err(drop)
            .unwrap()
    });
    ex.run_until_stalled();
    assert!(recorder.is_empty());
    elsewhere(|| drop(handle));
    assert!(recorder.is_empty(), "it is told at home");
    assert_eq!(counts(&ex).unread, 1);
    ex.run_until_stalled();
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::NeverRetrieved);
    assert!(!report.handle_held);
    assert_eq!((counts(&ex).unread, counts(&ex).reported), (0, 1));
    drops.assert(&["payload"]);
}

#[test]
fn a_handle_dropped_before_the_failure_has_it_reported_when_it_happens() {
    let ex = unretrieved();
    let recorder = Recorder::on(&ex);
    failing(&ex).detach();
    let spawner = ex.spawner();
    elsewhere(|| {
        let fails = spawner.spawn_fallible(|| ready(Err::<(), _>(Fault("an error"))));
        fails.unwrap().detach();
    });
    ex.run_until_stalled();
    assert_eq!(recorder.kinds(), [ContextKind::NeverRetrieved; 2]);
    assert_eq!(recorder.exceptions()[1], "an error");
    assert_eq!((counts(&ex).unread, counts(&ex).reported), (0, 2));
}

// At the latest when the executor is dropped; the outcome still goes to the handle.
#[test]
fn an_unread_failure_is_reported_at_the_end_and_stays_for_its_handle() {
    let ex = unretrieved();
    let recorder = Recorder::on(&ex);
    let (kept, left) = (failing(&ex), failing(&ex));
    ex.run_until_stalled();
    elsewhere(|| drop(left));
    drop(ex);
    assert_eq!(recorder.kinds(), [ContextKind::NeverRetrieved; 2]);
    let held: Vec<_> = recorder.reports().iter().map(|r| r.handle_held).collect();
    assert_eq!(held, [true, false], "in the order of their ids");
    let error = elsewhere(|| kept.join()).unwrap_err();
    assert_eq!(error.into_panic().downcast_ref(), Some(&Boom("in a task")));
    assert_eq!(recorder.len(), 2, "told once");
}

// P6: the handler that is told at the end drops the very handle, or reads it.
#[test]
fn a_handler_may_read_or_drop_the_handle_of_the_failure_that_it_is_told() {
    for read in [false, true] {
        let ex = unretrieved();
        let handle = std::cell::RefCell::new(Some(failing(&ex)));
        let told = Rc::new(std::cell::Cell::new(0));
        let count = Rc::clone(&told);
        ex.set_exception_handler(move |_, report| {
            count.set(count.get() + 1);
            assert!(report.handle_held());
            if let Some(mut handle) = handle.take() {
                if read {
                    // It is in the handler's hands at this moment, and comes back.
                    assert!(poll_once(&mut handle).is_pending());
                }
            }
            assert_eq!(
                report.exception().unwrap().downcast_ref(),
                Some(&Boom("in a task"))
            );
        });
        ex.run_until_stalled();
        drop(ex);
        assert_eq!(told.get(), 1);
    }
}

// P3: payloads whose destructors panic, wherever they end.
#[test]
fn a_payload_whose_destructor_panics_is_contained_wherever_it_is_dropped() {
    quiet();
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        for early in [true, false] {
            let ex = Executor::builder().report(policy).build();
            let recorder = Recorder::on(&ex);
            let spawner = ex.spawner();
            let handle = elsewhere(|| {
                spawner
                    .spawn(|| async { panic_any(EndlessPayload) })
                    .unwrap()
            });
            if early {
                elsewhere(|| drop(handle));
                ex.run_until_stalled();
            } else {
                ex.run_until_stalled();
                elsewhere(|| drop(handle));
                ex.run_until_stalled();
            }
            let counts = counts(&ex);
            assert_eq!((counts.failed, counts.reported, counts.unread), (1, 1, 0));
            assert!(recorder.kinds().contains(&ContextKind::Destructor));
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Cancelling
// ---------------------------------------------------------------------------------------------------------------------

/// What a handle elsewhere met when it dropped an outcome is told at home, at the executor's end if it has not looked since.
#[test]
fn what_a_dropped_outcome_did_elsewhere_is_told_at_the_end() {
    for looks in [false, true] {
        quiet();
        let ex = Executor::new();
        let (recorder, drops) = (Recorder::on(&ex), DropLog::new());
        let output = drops.guard("output").panics("boom in the output");
        let handle = ex.spawner().spawn(move || ready(output));
        let handle = handle.unwrap_or_else(|_| panic!("it is open"));
        ex.run_until_stalled();
        elsewhere(move || drop(handle));
        assert_eq!(drops.len(), 1);
        if looks {
            ex.run_until_stalled();
            assert_eq!(recorder.len(), 1);
        }
        drop(ex);
        assert_eq!(recorder.exceptions(), ["boom in the output"]);
        assert_eq!(recorder.only().kind, ContextKind::Destructor);
    }
}

// B124, P4; asyncio tk:test_run_coroutine_threadsafe_task_cancelled.
#[test]
fn a_cancel_from_elsewhere_drops_the_future_at_home() {
    let drops = DropLog::new();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let handle = parked(&ex, &drops);
    elsewhere(|| {
        assert!(handle.cancel());
        assert!(handle.cancel(), "asked for before, and not finished");
    });
    assert_eq!(drops.len(), 0);
    ex.run_until_stalled();
    drops.assert(&["future"]);
    assert!(!handle.cancel());
    assert!(elsewhere(|| handle.join()).unwrap_err().is_cancelled());
    assert_eq!(counts(&ex).cancelled, 1);
    assert!(recorder.is_empty(), "a cancelled task has not failed");
}

#[test]
fn a_task_that_is_cancelled_before_it_begins_is_never_made() {
    let drops = DropLog::new();
    let ex = Executor::new();
    let (spawner, guard) = (ex.spawner(), drops.guard("closure"));
    let handle = elsewhere(move || {
        let make = move || -> std::future::Pending<()> {
            let _guard = &guard;
            unreachable!("it was cancelled")
        };
        let handle = spawner.spawn(make).unwrap();
        assert!(handle.cancel());
        handle
    });
    ex.run_until_stalled();
    drops.assert(&["closure"]);
    assert!(handle.join().unwrap_err().is_cancelled());
    assert_eq!(
        counts(&ex),
        Counts {
            spawned: 1,
            cancelled: 1,
            ..Counts::default()
        }
    );
}

#[test]
fn a_cancel_at_home_takes_effect_before_it_returns() {
    let drops = DropLog::new();
    let ex = Executor::new();
    let handle = parked(&ex, &drops);
    ex.block_on(async {
        assert!(handle.cancel());
        drops.assert(&["future"]);
    });
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn a_cancel_of_a_finished_task_is_refused_also_when_its_executor_is_gone() {
    let ex = Executor::new();
    let handle = ex.spawner().spawn(|| ready(1)).unwrap();
    let other = ex.spawner().spawn(|| ready(2)).unwrap();
    ex.run_until_stalled();
    assert!(!handle.cancel());
    assert_eq!(handle.join().unwrap(), 1);
    drop(ex);
    assert!(!other.cancel());
    assert_eq!(
        elsewhere(|| other.join()).unwrap(),
        2,
        "it outlives its executor"
    );
}

// A handle outlives its executor.
#[test]
fn a_task_that_was_pending_when_its_executor_went_reads_as_cancelled() {
    without_hanging(|| {
        let drops = DropLog::new();
        let ex = Executor::new();
        ex.set_exception_handler(|_, _| {});
        let handle = parked(&ex, &drops);
        let waiting = thread::spawn(move || handle.join());
        thread::sleep(Duration::from_millis(5));
        drop(ex);
        drops.assert(&["future"]);
        assert!(waiting.join().unwrap().unwrap_err().is_cancelled());
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Outputs that nobody takes
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn an_output_is_dropped_at_home_if_its_handle_went_first() {
    let drops = DropLog::new();
    let ex = Executor::new();
    let (spawner, guard) = (ex.spawner(), drops.guard("output"));
    elsewhere(move || {
        spawner
            .spawn(move || ready(guard))
            .map_err(drop)
            .unwrap()
            .detach()
    });
    ex.run_until_stalled();
    drops.assert(&["output"]);
}

#[test]
fn an_output_that_was_handed_over_is_dropped_with_its_handle() {
    let drops = DropLog::new();
    let ex = Executor::new();
    let (spawner, guard) = (ex.spawner(), drops.guard("output"));
    let handle = elsewhere(move || spawner.spawn(move || ready(guard)).map_err(drop).unwrap());
    ex.run_until_stalled();
    assert_eq!(drops.len(), 0);
    let there = elsewhere(|| {
        drop(handle);
        thread::current().id()
    });
    assert_eq!(drops.threads(), [there]);
}

// P3: a destructor that panics on another thread is contained there and told at home, or there, where nobody is at home.
#[test]
fn an_output_whose_destructor_panics_elsewhere_is_reported() {
    quiet();
    let drops = DropLog::new();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let spawner = ex.spawner();
    let guards = [
        drops.guard("one").panics("boom one"),
        drops.guard("two").panics("boom two"),
    ];
    let [one, two] = elsewhere(move || {
        guards.map(|guard| spawner.spawn(move || ready(guard)).map_err(drop).unwrap())
    });
    ex.run_until_stalled();
    elsewhere(|| drop(one));
    ex.run_until_stalled();
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::Destructor);
    assert_eq!(report.exception.as_deref(), Some("boom one"));
    drop(ex);
    let text = elsewhere(|| {
        let log = LogCapture::start();
        drop(two);
        log.only().text
    });
    assert!(text.contains("boom two"), "{text}");
    assert_eq!(recorder.len(), 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// Races
// ---------------------------------------------------------------------------------------------------------------------

/// A waker that passes the news on to a thread.
struct Bell(mpsc::Sender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

// P2 under both policies: threads await, join, cancel and drop while the tasks end, and every failure is known to exactly
// one.
#[test]
fn every_outcome_has_one_owner_whatever_its_handle_does_meanwhile() {
    without_hanging(|| {
        const THREADS: usize = 4;
        const EACH: usize = 500;
        for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
            quiet();
            let ex = Executor::builder().report(policy).build();
            let recorder = Recorder::on(&ex);
            let dropped = DropLog::new();
            let read = Arc::new(AtomicUsize::new(0));
            let left = Arc::new(AtomicUsize::new(THREADS));
            let barrier = Arc::new(Barrier::new(THREADS));
            let workers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let spawner = ex.spawner();
                    let (read, left) = (Arc::clone(&read), Arc::clone(&left));
                    let (barrier, dropped) = (Arc::clone(&barrier), dropped.clone());
                    thread::spawn(move || {
                        barrier.wait();
                        for n in 0..EACH {
                            let guard = dropped.guard("future");
                            let make = move || {
                                let guard = Rc::new(guard);
                                async move {
                                    let _guard = guard;
                                    if n % 3 == 0 {
                                        mainstay::yield_now().await;
                                    }
                                    match n % 2 {
                                        0 => panic_any(Boom("one of many")),
                                        _ => n,
                                    }
                                }
                            };
                            let mut handle = spawner.spawn(make).map_err(drop).unwrap();
                            let outcome = match (n + thread) % 5 {
                                0 => Some(handle.join()),
                                1 => {
                                    drop(handle);
                                    None
                                }
                                2 => {
                                    handle.cancel();
                                    Some(handle.join())
                                }
                                3 => {
                                    let (bell, rings) = mpsc::channel();
                                    let waker = Waker::from(Arc::new(Bell(bell)));
                                    let mut cx = Context::from_waker(&waker);
                                    loop {
                                        match Pin::new(&mut handle).poll(&mut cx) {
                                            Poll::Ready(outcome) => break Some(outcome),
                                            Poll::Pending => rings.recv().unwrap(),
                                        }
                                    }
                                }
                                _ => {
                                    while !handle.is_finished() && n % 4 != 0 {
                                        thread::yield_now();
                                    }
                                    handle.cancel();
                                    drop(handle);
                                    None
                                }
                            };
                            if matches!(outcome, Some(Err(error)) if error.is_panic()) {
                                read.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                            spawner.call_soon(|ex| ex.stop()).unwrap();
                        }
                    })
                })
                .collect();
            ex.run_forever();
            for worker in workers {
                worker.join().unwrap();
            }
            ex.run_until_stalled();
            let counts = counts(&ex);
            assert_eq!(counts.spawned, (THREADS * EACH) as u64);
            assert_eq!((counts.live, counts.unread), (0, 0));
            assert_eq!(counts.reported, recorder.len() as u64);
            if policy == ReportPolicy::IfUnretrieved {
                assert_eq!(counts.retrieved, read.load(Ordering::SeqCst) as u64);
            } else {
                assert_eq!(counts.retrieved, 0);
            }
            assert_eq!(dropped.len(), THREADS * EACH);
            dropped.assert_home();
        }
    });
}

// The end of the executor looks at what it is owed while handles elsewhere are read and dropped.
#[test]
fn the_end_of_an_executor_races_with_readers_and_each_failure_is_known_once() {
    without_hanging(|| {
        for round in 0..200 {
            let ex = unretrieved();
            let recorder = Recorder::on(&ex);
            let handles: Vec<_> = (0..8).map(|_| failing(&ex)).collect();
            ex.run_until_stalled();
            assert_eq!(counts(&ex).unread, 8);
            let barrier = Arc::new(Barrier::new(2));
            let other = Arc::clone(&barrier);
            let thread = thread::spawn(move || {
                other.wait();
                let mut read = 0;
                for (n, handle) in handles.into_iter().enumerate() {
                    if (n + round) % 2 == 0 {
                        assert!(handle.join().unwrap_err().is_panic());
                        read += 1;
                    }
                }
                read
            });
            barrier.wait();
            drop(ex);
            assert_eq!(thread.join().unwrap(), 4);
            let told = recorder.len();
            assert!(
                (4..=8).contains(&told),
                "4 were never read, but {told} told"
            );
        }
    });
}

// Nothing of a task is kept for its handle's sake once the outcome was handed over.
#[test]
fn many_unread_outputs_keep_no_task_alive() {
    let ex = Executor::new();
    let spawner = ex.spawner();
    let handles: Vec<_> = elsewhere(|| {
        (0..100)
            .map(|n| spawner.spawn(move || ready(n)).unwrap())
            .collect()
    });
    ex.run_until_stalled();
    assert!(ex.is_empty() && ex.tasks().is_empty());
    ex.shrink();
    let sum: i32 = elsewhere(|| handles.into_iter().map(|h| h.join().unwrap()).sum());
    assert_eq!(sum, 4950);
}
