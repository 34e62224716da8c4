//! Other threads: their wakes and cancels arrive, in order and without waiting for anybody, and whatever is not `Send`
//! stays at home.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::panic::{panic_any, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use mainstay::{CancelHandle, Executor, JoinHandle};

use crate::support::{
    DropLog, Recorder, Trace, check_accounting, counts, holding, on_drop, quiet, yield_n,
};
use crate::wake::{Probe, alone};

// ---------------------------------------------------------------------------------------------------------------------
// Threads to test with
// ---------------------------------------------------------------------------------------------------------------------

/// Calls `f` on another thread, waits for its end, and gives what it gave.
pub(crate) fn elsewhere<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(f).join()).unwrap_or_else(|payload| resume_unwind(payload))
}

/// Calls `f` on a thread of its own and fails when it is not done after two minutes: for what would hang if it broke.
#[track_caller]
pub(crate) fn without_hanging(f: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let _dropped_at_the_end = sender;
        f();
    });
    match receiver.recv_timeout(Duration::from_secs(120)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("this hangs"),
        _ => thread
            .join()
            .unwrap_or_else(|payload| resume_unwind(payload)),
    }
}

/// Waits until `probe` was polled for the first time, then completes it: what another thread does in many tests here.
fn complete_once_polled(probe: &Probe) {
    while probe.try_waker().is_none() {
        thread::yield_now();
    }
    probe.complete();
}

/// Spawns a probe on `ex` and lets it park.
fn parked(ex: &Executor<'_>) -> (Probe, JoinHandle<()>) {
    let probe = Probe::new();
    let handle = ex.spawn(probe.task());
    ex.run_until_stalled();
    (probe, handle)
}

// ---------------------------------------------------------------------------------------------------------------------
// Wakes arrive
// ---------------------------------------------------------------------------------------------------------------------

// B123; asyncio ev:test_call_soon_threadsafe.
#[test]
fn a_wake_from_another_thread_ends_the_wait_of_block_on() {
    without_hanging(|| {
        let ex = Executor::new();
        let root = Probe::new();
        let seen = root.clone();
        let thread = thread::spawn(move || complete_once_polled(&seen));
        ex.block_on(root.task());
        thread.join().expect("the thread ends well");
        assert!(root.polls() <= 2);

        let task = Probe::new();
        let seen = task.clone();
        let thread = thread::spawn(move || complete_once_polled(&seen));
        let handle = ex.spawn(task.task());
        assert!(ex.block_on(handle).is_ok());
        thread.join().expect("the thread ends well");
        assert!(task.polls() <= 2);
    });
}

// glommio foreign_wake: between two drives, nobody is parked and nothing is lost.
#[test]
fn a_wake_from_another_thread_between_two_drives_counts() {
    let ex = Executor::new();
    let (probe, handle) = parked(&ex);
    elsewhere(|| probe.complete());
    assert_eq!(probe.polls(), 1, "nothing is polled on the other thread");
    ex.run_until_stalled();
    assert!(handle.is_finished());
}

// compio #948: a wake at any moment around the park is not lost.
#[test]
fn a_wake_at_any_moment_around_the_park_is_not_lost() {
    without_hanging(|| {
        let (sender, receiver) = mpsc::channel::<Probe>();
        let thread = thread::spawn(move || {
            for (i, probe) in receiver.into_iter().enumerate() {
                // Now before the first poll, now during it, now when the loop is about to park, now later.
                for _ in 0..(i % 7) * 20 {
                    std::hint::spin_loop();
                }
                complete_once_polled(&probe);
            }
        });
        let ex = Executor::new();
        for _ in 0..5_000 {
            let root = Probe::new();
            sender.send(root.clone()).expect("the thread lives");
            ex.block_on(root.task());
        }
        drop(sender);
        thread.join().expect("the thread ends well");
    });
}

// P5, compio #948: a task and a thread that wait for each other in turn, through a park each time.
#[test]
fn a_task_and_a_thread_alternate_without_losing_a_wake() {
    const ROUNDS: usize = 2_000;
    without_hanging(|| {
        let ex = Executor::new();
        let turn = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&turn);
        let mut thread = None;
        ex.block_on(poll_fn(|cx| {
            thread.get_or_insert_with(|| {
                let (turn, waker) = (Arc::clone(&theirs), cx.waker().clone());
                thread::spawn(move || {
                    for round in 0..ROUNDS {
                        while turn.load(Ordering::Acquire) != 2 * round {
                            thread::yield_now();
                        }
                        turn.store(2 * round + 1, Ordering::Release);
                        waker.wake_by_ref();
                    }
                })
            });
            let now = turn.load(Ordering::Acquire);
            if now == 2 * ROUNDS - 1 {
                return Poll::Ready(());
            }
            if now % 2 == 1 {
                turn.store(now + 1, Ordering::Release);
            }
            Poll::Pending
        }));
        let thread = thread.expect("started at the first poll");
        thread.join().expect("the thread ends well");
    });
}

// P5, P7: no wake is lost among those of many threads for one root.
#[test]
fn eight_threads_wake_one_root_and_the_last_wake_counts() {
    const WAKES: usize = 10_000;
    without_hanging(|| {
        let ex = Executor::new();
        let hits = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        ex.block_on(poll_fn(|cx| {
            if threads.is_empty() {
                threads.extend((0..8).map(|_| hitter(&hits, cx.waker(), WAKES)));
            }
            if hits.load(Ordering::SeqCst) == 8 * WAKES {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        for thread in threads {
            thread.join().expect("the thread ends well");
        }
    });
}

// P5, P7: the same for tasks, each woken by all threads.
#[test]
fn eight_threads_wake_eight_tasks_and_the_last_wake_of_each_counts() {
    const WAKES: usize = 2_000;
    without_hanging(|| {
        let ex = Executor::new();
        let threads = Rc::new(Cell::new(Vec::new()));
        for _ in 0..8 {
            let hits = Arc::new(AtomicUsize::new(0));
            let started = Rc::clone(&threads);
            let mut first = true;
            ex.spawn(poll_fn(move |cx| {
                if first {
                    first = false;
                    let mut threads = started.take();
                    threads.extend((0..8).map(|_| hitter(&hits, cx.waker(), WAKES)));
                    started.set(threads);
                }
                if hits.load(Ordering::SeqCst) == 8 * WAKES {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            }))
            .detach();
        }
        ex.block_on(ex.idle());
        for thread in threads.take() {
            thread.join().expect("the thread ends well");
        }
        assert_eq!(ex.stats().returned, 8);
    });
}

/// A thread that counts a hit and wakes, `wakes` times.
fn hitter(hits: &Arc<AtomicUsize>, waker: &Waker, wakes: usize) -> thread::JoinHandle<()> {
    let (hits, waker) = (Arc::clone(hits), waker.clone());
    thread::spawn(move || {
        for _ in 0..wakes {
            hits.fetch_add(1, Ordering::SeqCst);
            waker.wake_by_ref();
        }
    })
}

// P5, P7: many tasks, each woken once, by several threads at once.
#[test]
fn every_task_woken_by_some_thread_runs() {
    without_hanging(|| {
        let ex = Executor::new();
        let tasks: Vec<(Probe, JoinHandle<()>)> = (0..2_000)
            .map(|_| {
                let probe = Probe::new();
                let handle = ex.spawn(probe.task());
                (probe, handle)
            })
            .collect();
        ex.run_until_stalled();
        let start = Arc::new(Barrier::new(8));
        let threads: Vec<_> = (0..8)
            .map(|me| {
                let start = Arc::clone(&start);
                let mine: Vec<Probe> = tasks
                    .iter()
                    .skip(me)
                    .step_by(8)
                    .map(|(probe, _)| probe.clone())
                    .collect();
                thread::spawn(move || {
                    start.wait();
                    mine.iter().for_each(Probe::complete);
                })
            })
            .collect();
        ex.block_on(ex.idle());
        for thread in threads {
            thread.join().expect("the thread ends well");
        }
        assert!(tasks.iter().all(|(_, handle)| handle.is_finished()));
        assert!(tasks.iter().all(|(probe, _)| probe.polls() == 2));
    });
}

// P9, B123; trio test_TrioToken_run_sync_soon_FIFO.
#[test]
fn the_wakes_of_one_thread_are_served_in_their_order() {
    let ex = Executor::new();
    let trace = Trace::new();
    let probes: Vec<Probe> = (0..100).map(|_| Probe::new()).collect();
    for (i, probe) in probes.iter().enumerate() {
        let (body, trace) = (probe.task(), trace.clone());
        ex.spawn(async move {
            body.await;
            trace.push(i.to_string());
        })
        .detach();
    }
    ex.run_until_stalled();
    let order: Vec<usize> = (0..100).map(|i| i * 37 % 100).collect();
    elsewhere(|| order.iter().for_each(|i| probes[*i].complete()));
    ex.run_until_stalled();
    let expected: Vec<String> = order.iter().map(usize::to_string).collect();
    assert_eq!(trace.labels(), expected);
}

// P9, B123: the order of each thread's own wakes holds among those of others.
#[test]
fn the_wakes_of_each_of_several_threads_are_served_in_their_order() {
    let ex = Executor::new();
    let trace = Trace::new();
    let probes: Vec<Probe> = (0..200).map(|_| Probe::new()).collect();
    for (i, probe) in probes.iter().enumerate() {
        let (body, trace) = (probe.task(), trace.clone());
        ex.spawn(async move {
            body.await;
            trace.push(i.to_string());
        })
        .detach();
    }
    ex.run_until_stalled();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for of_thread in probes.chunks(50) {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                of_thread.iter().for_each(Probe::complete);
            });
        }
    });
    ex.run_until_stalled();
    let order: Vec<usize> = trace
        .labels()
        .iter()
        .map(|label| label.parse().expect("a number"))
        .collect();
    assert_eq!(order.len(), 200);
    for thread in 0..4 {
        let own: Vec<usize> = order.iter().copied().filter(|i| i / 50 == thread).collect();
        assert!(own.is_sorted(), "thread {thread}: {own:?}");
    }
}

// P7, P8: one task, woken without end from another thread, is polled again and again and the loop goes on.
#[test]
fn a_thread_that_wakes_one_task_in_a_tight_loop_lets_it_and_others_run() {
    without_hanging(|| {
        let ex = Executor::new();
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let mut thread = None;
        let mut polls = 0;
        let hot = ex.spawn(poll_fn(move |cx| {
            thread.get_or_insert_with(|| {
                let (stop, waker) = (Arc::clone(&stop), cx.waker().clone());
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        waker.wake_by_ref();
                    }
                })
            });
            polls += 1;
            if polls < 1_000 {
                return Poll::Pending;
            }
            stop.store(true, Ordering::Relaxed);
            let thread = thread.take().expect("started at the first poll");
            thread.join().expect("the thread ends well");
            Poll::Ready(())
        }));
        let other = ex.spawn(yield_n(1_000));
        assert!(ex.block_on(hot).is_ok());
        assert!(ex.block_on(other).is_ok());
        assert!(over.load(Ordering::Relaxed));
    });
}

// P5: executors on four threads pass a token round, each by waking the next one's root.
#[test]
fn executors_on_several_threads_wake_each_other() {
    alone(
        "remote::executors_on_several_threads_wake_each_other",
        || {
            const THREADS: usize = 4;
            const ROUNDS: usize = 300;
            without_hanging(|| {
                let seats: Vec<(AtomicUsize, Mutex<Option<Waker>>)> =
                    (0..THREADS).map(|_| Default::default()).collect();
                seats[0].0.store(1, Ordering::SeqCst);
                thread::scope(|scope| {
                    for me in 0..THREADS {
                        let seats = &seats;
                        scope.spawn(move || {
                            let (tokens, kept) = &seats[me];
                            let next = &seats[(me + 1) % THREADS];
                            let mut seen = 0;
                            Executor::new().block_on(poll_fn(|cx| {
                                *kept.lock().expect("not poisoned") = Some(cx.waker().clone());
                                while seen < tokens.load(Ordering::SeqCst) {
                                    seen += 1;
                                    next.0.fetch_add(1, Ordering::SeqCst);
                                    let waker = next.1.lock().expect("not poisoned").clone();
                                    if let Some(waker) = waker {
                                        waker.wake();
                                    }
                                }
                                if seen >= ROUNDS {
                                    Poll::Ready(())
                                } else {
                                    Poll::Pending
                                }
                            }));
                        });
                    }
                });
                assert!(
                    seats
                        .iter()
                        .all(|seat| seat.0.load(Ordering::SeqCst) >= ROUNDS)
                );
            });
        },
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// A wake waits for nobody
// ---------------------------------------------------------------------------------------------------------------------

// compio #1044: a bounded inbox, a full one, and a mutex that the waking thread holds, made a deadlock. 40,000 is more
// than its 64 and than an i16.
#[test]
fn wakes_do_not_wait_for_an_executor_that_waits_for_their_mutex() {
    without_hanging(|| {
        let ex = Executor::new();
        let probes: Vec<Probe> = (0..40_000).map(|_| Probe::new()).collect();
        for probe in &probes {
            ex.spawn(probe.task()).detach();
        }
        ex.run_until_stalled();

        let mutex = Arc::new(Mutex::new(()));
        let held = Arc::new(Barrier::new(2));
        let thread = {
            let (mutex, held) = (Arc::clone(&mutex), Arc::clone(&held));
            let probes = probes.clone();
            thread::spawn(move || {
                let _guard = mutex.lock().expect("not poisoned");
                held.wait();
                probes.iter().for_each(Probe::complete);
                for _ in 0..40_000 {
                    probes[0].wake();
                }
            })
        };
        let blocked = ex.spawn(async move {
            held.wait();
            drop(mutex.lock().expect("not poisoned"));
        });
        assert!(ex.block_on(blocked).is_ok());
        thread.join().expect("the thread ends well");
        ex.block_on(ex.idle());
        assert!(probes.iter().all(|probe| probe.polls() == 2));
    });
}

// compio #1044, the other way round: the executor wakes and cancels while it holds a mutex that the thread wants.
#[test]
fn wakes_at_home_do_not_wait_for_a_thread_that_waits_for_a_mutex() {
    without_hanging(|| {
        let ex = Executor::new();
        let (probe, handle) = parked(&ex);
        let mutex = Arc::new(Mutex::new(()));
        let start = Arc::new(Barrier::new(2));
        let thread = {
            let (mutex, start, probe) = (Arc::clone(&mutex), Arc::clone(&start), probe.clone());
            thread::spawn(move || {
                start.wait();
                for _ in 0..100 {
                    let _guard = mutex.lock().expect("not poisoned");
                    probe.wake();
                }
            })
        };
        let waking = probe.clone();
        let done = ex.spawn(async move {
            start.wait();
            for _ in 0..100 {
                {
                    let _guard = mutex.lock().expect("not poisoned");
                    waking.wake();
                }
                mainstay::yield_now().await;
            }
            waking.complete();
        });
        assert!(ex.block_on(done).is_ok());
        assert!(ex.block_on(handle).is_ok());
        thread.join().expect("the thread ends well");
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Parking
// ---------------------------------------------------------------------------------------------------------------------

// futures local_pool::park_unpark_independence.
#[test]
fn a_task_that_parks_its_thread_takes_no_wake_from_the_loop() {
    without_hanging(|| {
        let ex = Executor::new();
        let mut polls = 0;
        let handle = ex.spawn(poll_fn(move |cx| {
            polls += 1;
            if polls == 2 {
                return Poll::Ready(());
            }
            // Wake first, then park the thread as user code may do: its `park` must not eat the wake.
            let waker = cx.waker().clone();
            let home = thread::current();
            let latch = Arc::new(AtomicBool::new(false));
            let signal = Arc::clone(&latch);
            let thread = thread::spawn(move || {
                waker.wake();
                signal.store(true, Ordering::SeqCst);
                home.unpark();
            });
            while !latch.load(Ordering::SeqCst) {
                thread::park();
            }
            thread.join().expect("the thread ends well");
            Poll::Pending
        }));
        assert!(ex.block_on(handle).is_ok());
    });
}

// futures local_pool::park_unpark_independence, the other way round.
#[test]
fn the_loop_does_not_take_the_users_unpark_token() {
    without_hanging(|| {
        thread::current().unpark();
        let ex = Executor::new();
        let root = Probe::new();
        let seen = root.clone();
        let thread = thread::spawn(move || {
            while seen.try_waker().is_none() {
                thread::yield_now();
            }
            // Gives the loop the time to park.
            thread::sleep(Duration::from_millis(20));
            seen.complete();
        });
        ex.block_on(root.task());
        thread.join().expect("the thread ends well");
        let start = Instant::now();
        thread::park_timeout(Duration::from_secs(60));
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "the token is gone"
        );
    });
}

// futures local_pool::park_unpark_independence: a token of the user's is no wake.
#[test]
fn a_stray_unpark_polls_nothing() {
    without_hanging(|| {
        let ex = Executor::new();
        let (task, _handle) = parked(&ex);
        let root = Probe::new();
        let seen = root.clone();
        let home = thread::current();
        let thread = thread::spawn(move || {
            while seen.try_waker().is_none() {
                thread::yield_now();
            }
            for _ in 0..1_000 {
                home.unpark();
            }
            seen.complete();
        });
        ex.block_on(root.task());
        thread.join().expect("the thread ends well");
        assert_eq!((root.polls(), task.polls()), (2, 1));
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Cancels
// ---------------------------------------------------------------------------------------------------------------------

// tokio task_abort::remote_abort_local_set_3929, RUSTSEC-2021-0072; P4.
#[test]
fn a_remote_cancel_drops_a_future_that_is_not_send_at_home_3929() {
    without_hanging(|| {
        let ex = Executor::new();
        let log = DropLog::new();
        let not_send = Rc::new(());
        let handle = ex.spawn(holding(
            (log.guard("future"), Rc::clone(&not_send)),
            pending::<()>(),
        ));
        ex.run_until_stalled();
        let cancel = handle.cancel_handle();
        let thread = thread::spawn(move || cancel.cancel());
        let error = ex.block_on(handle).expect_err("cancelled");
        assert!(error.is_cancelled());
        assert!(thread.join().expect("the thread ends well"));
        log.assert(&["future"]);
        assert_eq!(Rc::strong_count(&not_send), 1);
        check_accounting(&ex);
    });
}

// tokio task_abort::test_abort_without_panic_3662 and _3157.
#[test]
fn a_remote_cancel_wakes_the_idle_loop() {
    without_hanging(|| {
        let ex = Executor::new();
        let log = DropLog::new();
        let polled = Probe::new();
        let handle = ex.spawn(holding(log.guard("future"), polled.task()));
        let cancel = handle.cancel_handle();
        let thread = thread::spawn(move || {
            while polled.try_waker().is_none() {
                thread::yield_now();
            }
            // Gives the loop the time to park.
            thread::sleep(Duration::from_millis(10));
            cancel.cancel()
        });
        assert!(ex.block_on(handle).expect_err("cancelled").is_cancelled());
        assert!(thread.join().expect("the thread ends well"));
        log.assert(&["future"]);
    });
}

// Design section 7, P4: between two drives it waits for the next pass, and what it drops it drops there.
#[test]
fn a_remote_cancel_between_two_drives_takes_effect_in_the_next() {
    let ex = Executor::new();
    let log = DropLog::new();
    let probe = Probe::new();
    let handle = ex.spawn(holding(log.guard("future"), probe.task()));
    ex.run_until_stalled();
    let cancel = handle.cancel_handle();
    assert!(elsewhere(|| cancel.cancel()));
    assert_eq!(log.len(), 0, "nothing is dropped on the other thread");
    // True for as long as the task is not finished.
    assert!(elsewhere(|| cancel.cancel()));
    // Reading: the cancel came first, so the wake that follows it at home does not let the task return.
    probe.complete();
    ex.run_until_stalled();
    log.assert(&["future"]);
    assert!(handle.is_cancelled());
    assert_eq!(probe.polls(), 1);
    assert_eq!(counts(&ex).cancelled, 1);
}

// api.md on cancel: it returns true for as long as the task is not finished.
#[test]
fn a_remote_cancel_of_a_finished_task_is_refused() {
    let ex = Executor::new();
    let (probe, mut handle) = parked(&ex);
    let cancel = handle.cancel_handle();
    assert_eq!(cancel.id(), handle.id());
    assert!(!elsewhere(|| cancel.is_finished()));
    probe.complete();
    ex.run_until_stalled();
    // Reading: a thread that looks after the end (here there is a join between) sees it.
    assert!(elsewhere(|| cancel.is_finished()));
    assert!(!elsewhere(|| cancel.cancel()));
    ex.run_until_stalled();
    assert!(handle.result().expect("finished").is_ok());
    assert!(elsewhere(|| cancel.is_finished()));
    drop(ex);
    assert!(!elsewhere(|| cancel.cancel()));
}

// P5: the executor is gone, and its pending tasks with it.
#[test]
fn a_remote_cancel_after_the_executor_is_gone_is_refused() {
    let ex = Executor::new();
    let log = DropLog::new();
    let handle = ex
        .task()
        .background()
        .spawn(holding(log.guard("future"), pending::<()>()));
    let cancel = handle.cancel_handle();
    drop(ex);
    log.assert(&["future"]);
    // Reading: what the end of the executor cancelled is finished, to a cancel handle as to a join handle.
    elsewhere(|| {
        assert!(cancel.is_finished());
        assert!(!cancel.clone().cancel());
    });
    drop(handle);
    elsewhere(move || drop(cancel));
}

// P4, P5: an endpoint may have served an executor of this thread before; that its present executor lives on another is what
// counts, and a wake by this thread is one from elsewhere.
#[test]
fn a_wake_by_the_thread_of_an_endpoints_earlier_executor_comes_from_elsewhere() {
    let test = "remote::a_wake_by_the_thread_of_an_endpoints_earlier_executor_comes_from_elsewhere";
    alone(test, || {
        drop(Executor::new());
        let probe = Probe::new();
        let task = probe.task();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let ex = Executor::new();
            ex.block_on(task);
            sender.send(()).expect("it is awaited");
        });
        while probe.try_waker().is_none() {
            thread::yield_now();
        }
        // It is parked by then, or as good as.
        thread::sleep(Duration::from_millis(10));
        probe.complete();
        let woken = receiver.recv_timeout(Duration::from_secs(20));
        woken.expect("the wake gets through");
    });
}

// P5: handles compare the never-reused `TaskId`, so a late cancel finds nobody.
#[test]
fn a_stale_remote_cancel_never_touches_a_later_tenant() {
    let ex = Executor::new();
    let mut stale: Vec<CancelHandle> = Vec::new();
    for _ in 0..50 {
        let (probe, handle) = parked(&ex);
        stale.push(handle.cancel_handle());
        probe.complete();
        ex.run_until_stalled();
        assert!(handle.is_finished());
    }
    let (tenant, handle) = parked(&ex);
    elsewhere(|| {
        for cancel in &stale {
            assert!(!cancel.cancel());
        }
    });
    ex.run_until_stalled();
    assert!(!handle.is_finished());
    tenant.complete();
    ex.run_until_stalled();
    assert!(handle.is_finished() && !handle.is_cancelled());
}

// P2, P4: many threads cancel many tasks, some of them twice.
#[test]
fn eight_threads_cancel_and_each_task_ends_once_at_home() {
    without_hanging(|| {
        let ex = Executor::new();
        let log = DropLog::new();
        let handles: Vec<JoinHandle<()>> = (0..400)
            .map(|i| ex.spawn(holding(log.guard(i.to_string()), pending::<()>())))
            .collect();
        let threads: Vec<_> = (0..8)
            .map(|me| {
                let mine: Vec<CancelHandle> = handles
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| i % 8 == me || i % 5 == me)
                    .map(|(_, handle)| handle.cancel_handle())
                    .collect();
                thread::spawn(move || {
                    for cancel in mine {
                        // Whether it is still true depends on who was first.
                        cancel.cancel();
                    }
                })
            })
            .collect();
        ex.block_on(ex.idle());
        for thread in threads {
            thread.join().expect("the thread ends well");
        }
        assert_eq!(log.len(), 400);
        log.assert_home();
        let counts = counts(&ex);
        assert_eq!((counts.cancelled, counts.live), (400, 0));
        assert!(handles.iter().all(JoinHandle::is_cancelled));
    });
}

// P2: a cancel and a wake that would let it return race for each task; it ends one way or the other.
#[test]
fn remote_cancels_and_wakes_race_and_each_task_ends_once() {
    without_hanging(|| {
        let ex = Executor::new();
        let log = DropLog::new();
        let tasks: Vec<(Probe, JoinHandle<()>)> = (0..500)
            .map(|i| {
                let probe = Probe::new();
                let handle = ex.spawn(holding(log.guard(i.to_string()), probe.task()));
                (probe, handle)
            })
            .collect();
        ex.run_until_stalled();
        let start = Arc::new(Barrier::new(2));
        let waking = {
            let start = Arc::clone(&start);
            let probes: Vec<Probe> = tasks.iter().map(|(probe, _)| probe.clone()).collect();
            thread::spawn(move || {
                start.wait();
                probes.iter().for_each(Probe::complete);
            })
        };
        let cancelling = {
            let cancels: Vec<CancelHandle> = tasks
                .iter()
                .map(|(_, handle)| handle.cancel_handle())
                .collect();
            thread::spawn(move || {
                start.wait();
                for cancel in cancels {
                    cancel.cancel();
                }
            })
        };
        ex.block_on(ex.idle());
        waking.join().expect("the thread ends well");
        cancelling.join().expect("the thread ends well");
        assert_eq!(log.len(), 500);
        log.assert_home();
        let counts = counts(&ex);
        assert_eq!(counts.returned + counts.cancelled, 500);
        let cancelled = tasks.iter().filter(|(_, handle)| handle.is_cancelled());
        assert_eq!(cancelled.count() as u64, counts.cancelled);
    });
}

// P4, api.md on cancel: while the task is being polled, the cancel from elsewhere takes effect after that poll.
#[test]
fn a_remote_cancel_of_the_task_being_polled_waits_for_the_poll() {
    let ex = Executor::new();
    let log = DropLog::new();
    let own = Rc::new(Cell::new(None::<CancelHandle>));
    let (own_in_task, log_in_task) = (Rc::clone(&own), log.clone());
    let handle = ex.spawn(holding(
        log.guard("future"),
        poll_fn(move |_| {
            let cancel = own_in_task.take().expect("polled once only");
            assert!(elsewhere(move || cancel.cancel()));
            assert_eq!(log_in_task.len(), 0);
            Poll::<()>::Pending
        }),
    ));
    own.set(Some(handle.cancel_handle()));
    ex.run_until_stalled();
    log.assert(&["future"]);
    assert!(handle.is_cancelled());
}

// ---------------------------------------------------------------------------------------------------------------------
// What stays at home
// ---------------------------------------------------------------------------------------------------------------------

// P4; compio 0.1.3 and 0.2.0-beta.1 dropped it where the last waker was.
#[test]
fn the_output_of_a_detached_task_is_dropped_at_home_wherever_its_last_waker_is() {
    let ex = Executor::new();
    let log = DropLog::new();
    let probe = Probe::new();
    let (body, output) = (probe.task(), (log.guard("output"), Rc::new(())));
    ex.spawn(async move {
        body.await;
        output
    })
    .detach();
    ex.run_until_stalled();
    let waker = probe.waker();
    probe.finish();
    drop(probe);

    let (sender, receiver) = mpsc::channel::<Waker>();
    let thread = thread::spawn(move || {
        let waker = receiver.recv().expect("a waker is sent");
        waker.wake_by_ref();
        // The last waker is dropped here, after the task has finished.
        let again = receiver.recv().expect("a waker is sent");
        drop(waker);
        drop(again);
    });
    let last = waker.clone();
    sender.send(waker).expect("the thread lives");
    let mut spins = 0_u64;
    while !ex.is_empty() {
        ex.run_until_stalled();
        thread::yield_now();
        spins += 1;
        assert!(spins < 1_000_000_000, "the wake never came");
    }
    log.assert(&["output"]);
    sender.send(last).expect("the thread lives");
    thread.join().expect("the thread ends well");
    log.assert(&["output"]);
}

// P4: the same for an output that nobody read and whose handle goes after the last waker.
#[test]
fn an_unread_output_is_dropped_at_home_with_its_handle() {
    let ex = Executor::new();
    let log = DropLog::new();
    let probe = Probe::new();
    let (body, output) = (probe.task(), (log.guard("output"), Rc::new(())));
    let handle = ex.spawn(async move {
        body.await;
        output
    });
    ex.run_until_stalled();
    let waker = probe.waker();
    probe.finish();
    drop(probe);
    elsewhere(move || waker.wake());
    ex.run_until_stalled();
    assert!(handle.is_finished());
    assert_eq!(log.len(), 0);
    drop(handle);
    log.assert(&["output"]);
}

// P4: a panic payload, too, is dropped at home, although it is Send.
#[test]
fn a_panic_payload_is_dropped_at_home_wherever_the_last_waker_is() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    let probe = Probe::new();
    let (body, payload) = (probe.task(), log.guard("payload"));
    ex.spawn(async move {
        body.await;
        panic_any(payload);
    })
    .detach();
    ex.run_until_stalled();
    let waker = probe.waker();
    probe.finish();
    drop(probe);
    elsewhere(|| waker.wake_by_ref());
    ex.run_until_stalled();
    log.assert(&["payload"]);
    elsewhere(move || drop(waker));
    assert_eq!(log.len(), 1);
    assert_eq!(recorder.len(), 1);
}

// P4: a future that holds its own waker, and a clone of it elsewhere: the future goes at home.
#[test]
fn a_pending_future_is_dropped_at_home_by_the_end_of_its_executor() {
    alone(
        "remote::a_pending_future_is_dropped_at_home_by_the_end_of_its_executor",
        || {
            let ex = Executor::new();
            let log = DropLog::new();
            let probe = Probe::new();
            ex.task()
                .background()
                .spawn(holding((log.guard("future"), Rc::new(())), probe.task()))
                .detach();
            ex.run_until_stalled();
            let waker = probe.waker();
            drop(ex);
            log.assert(&["future"]);
            elsewhere(move || waker.wake());
            log.assert(&["future"]);
        },
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// The end of the executor
// ---------------------------------------------------------------------------------------------------------------------

// P5; async-executor #163: its waker touched the executor's state after it had published the wake.
#[test]
fn wakes_race_with_the_end_of_their_executor_and_the_start_of_the_next() {
    alone(
        "remote::wakes_race_with_the_end_of_their_executor_and_the_start_of_the_next",
        || {
            without_hanging(|| {
                for round in 0..300 {
                    let ex = Executor::new();
                    let probes: Vec<Probe> = (0..4).map(|_| Probe::new()).collect();
                    for probe in &probes {
                        ex.task().background().spawn(probe.task()).detach();
                    }
                    ex.run_until_stalled();
                    let start = Arc::new(Barrier::new(3));
                    let threads: Vec<_> = (0..2)
                        .map(|_| {
                            let (start, probes) = (Arc::clone(&start), probes.clone());
                            thread::spawn(move || {
                                start.wait();
                                for _ in 0..20 {
                                    probes.iter().for_each(Probe::wake);
                                }
                            })
                        })
                        .collect();
                    start.wait();
                    if round % 2 == 0 {
                        ex.run_until_stalled();
                    }
                    drop(ex);
                    // It may get the endpoint that the late wakes go to.
                    let next = Executor::new();
                    let (tenant, handle) = parked(&next);
                    tenant.complete();
                    // Waits, where a late wake that is being made right now stands for this one as well.
                    assert!(next.block_on(handle).is_ok());
                    for thread in threads {
                        thread.join().expect("the thread ends well");
                    }
                }
            });
        },
    );
}

// P5; async-executor #163: the executor's whole thread is gone when its waker is called.
#[test]
fn a_waker_outlives_the_thread_of_its_executor() {
    alone(
        "remote::a_waker_outlives_the_thread_of_its_executor",
        || {
            let (sender, receiver) = mpsc::channel();
            thread::spawn(move || {
                let ex = Executor::new();
                let (probe, handle) = parked(&ex);
                assert!(handle.cancel());
                sender
                    .send((probe.waker(), handle.cancel_handle()))
                    .expect("the test waits");
            })
            .join()
            .expect("the thread ends well");
            let (waker, cancel) = receiver.recv().expect("sent before the end");
            waker.wake_by_ref();
            let clone = waker.clone();
            assert!(clone.will_wake(&waker));
            clone.wake();
            assert!(!cancel.cancel());
        },
    );
}

// tokio rt_common::wake_while_rt_is_dropping; P6: a destructor waits for a thread that wakes the executor that is going.
#[test]
fn a_destructor_may_wait_for_a_thread_that_wakes_the_dying_executor() {
    without_hanging(|| {
        let ex = Executor::new();
        let probes: Vec<Probe> = (0..3).map(|_| Probe::new()).collect();
        for probe in &probes {
            let theirs = probes.clone();
            let guard = on_drop(move || {
                elsewhere(|| {
                    for _ in 0..100 {
                        theirs.iter().for_each(Probe::wake);
                    }
                });
            });
            ex.task()
                .background()
                .spawn(holding(guard, probe.task()))
                .detach();
        }
        ex.run_until_stalled();
        drop(ex);
        assert!(probes.iter().all(|probe| probe.polls() == 1));
    });
}

// P5, P6: cancels from another thread arrive while the executor is being dropped.
#[test]
fn a_destructor_may_wait_for_a_thread_that_cancels_tasks_of_the_dying_executor() {
    without_hanging(|| {
        let ex = Executor::new();
        let log = DropLog::new();
        let cancels = Rc::new(Cell::new(Vec::<CancelHandle>::new()));
        let theirs = Rc::clone(&cancels);
        let first = ex.task().background().spawn(holding(
            on_drop(move || {
                let cancels = theirs.take();
                elsewhere(move || {
                    for cancel in cancels {
                        cancel.cancel();
                    }
                });
            }),
            pending::<()>(),
        ));
        let others: Vec<JoinHandle<()>> = (0..3)
            .map(|i| {
                let body = holding(log.guard(i.to_string()), pending::<()>());
                ex.task().background().spawn(body)
            })
            .collect();
        cancels.set(
            others
                .iter()
                .chain([&first])
                .map(JoinHandle::cancel_handle)
                .collect(),
        );
        drop(ex);
        assert_eq!(log.len(), 3);
        log.assert_home();
        assert!(others.iter().all(JoinHandle::is_cancelled));
        assert!(first.is_cancelled());
    });
}

// tokio task_local_set::local_tasks_wake_join_all (2460): one root awaits tasks that threads complete.
#[test]
fn a_root_joins_many_tasks_that_threads_complete_2460() {
    without_hanging(|| {
        let ex = Executor::new();
        let tasks: Vec<(Probe, JoinHandle<()>)> = (0..64)
            .map(|_| {
                let probe = Probe::new();
                let handle = ex.spawn(probe.task());
                (probe, handle)
            })
            .collect();
        let probes: Vec<Probe> = tasks.iter().map(|(probe, _)| probe.clone()).collect();
        let thread = thread::spawn(move || probes.iter().for_each(complete_once_polled));
        let mut handles: Vec<Option<JoinHandle<()>>> =
            tasks.into_iter().map(|(_, handle)| Some(handle)).collect();
        ex.block_on(poll_fn(|cx| {
            for slot in &mut handles {
                let ready = slot
                    .as_mut()
                    .is_some_and(|handle| Pin::new(handle).poll(cx).is_ready());
                if ready {
                    *slot = None;
                }
            }
            if handles.iter().all(Option::is_none) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        thread.join().expect("the thread ends well");
    });
}
