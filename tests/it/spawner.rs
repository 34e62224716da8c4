//! Work that other threads send: closures that make futures at home, in order, none lost, none taken by an executor that
//! is gone.

use std::cell::{Cell, RefCell};
use std::future::{pending, ready};
use std::panic::panic_any;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use mainstay::{Closed, ContextKind, Executor, LocalHandle, Spawner, current_task};

use crate::remote::{elsewhere, without_hanging};
use crate::support::{Boom, Counts, DropLog, Fault, Recorder, counts, quiet};

/// Stops the executor when it is run: the last message of a thread.
fn stop(spawner: &Spawner) {
    spawner
        .call_soon(|ex| ex.stop())
        .expect("the executor lives");
}

// ---------------------------------------------------------------------------------------------------------------------
// What is made at home
// ---------------------------------------------------------------------------------------------------------------------

// P4: the closure is called, the future polled and dropped on the home thread; the output crosses.
#[test]
fn a_future_that_is_not_send_is_made_and_ends_at_home() {
    let home = thread::current().id();
    let drops = DropLog::new();
    let ex = Executor::new();
    let spawner = ex.spawner();
    let guards = [drops.guard("captured"), drops.guard("made")];
    let handle = elsewhere(move || {
        let [captured, made] = guards;
        spawner
            .spawn(move || {
                let made_on = thread::current().id();
                let held = Rc::new((captured, made));
                async move {
                    mainstay::yield_now().await;
                    assert_eq!(made_on, thread::current().id());
                    drop(held);
                    made_on
                }
            })
            .unwrap()
    });
    ex.run_until_stalled();
    assert_eq!(elsewhere(move || handle.join()).unwrap(), home);
    drops.assert(&["captured", "made"]);
}

// B124; asyncio tk:test_run_coroutine_threadsafe.
#[test]
fn a_value_crosses_from_an_executor_that_runs_for_ever() {
    without_hanging(|| {
        let ex = Executor::new();
        let spawner = ex.spawner();
        let thread = thread::spawn(move || {
            let sum = spawner
                .spawn(|| async {
                    mainstay::yield_now().await;
                    1 + 2
                })
                .unwrap()
                .join();
            stop(&spawner);
            sum
        });
        ex.run_forever();
        assert_eq!(thread.join().unwrap().unwrap(), 3);
    });
}

// The task is one like any other: it has its id before it begins, a name, the place of the call, and is listed.
#[test]
fn the_task_is_known_by_the_id_that_its_handle_had_first() {
    let ex = Executor::new();
    let spawner = ex.spawner();
    let line = line!() + 3;
    let (id, handle) = elsewhere(|| {
        let handle = spawner
            .spawn(|| async {
                let own = current_task().unwrap();
                mainstay::yield_now().await;
                own
            })
            .unwrap();
        (handle.id(), handle)
    });
    assert!(ex.is_empty(), "the executor has not looked yet");
    ex.tick(10);
    let listed = ex.tasks();
    assert_eq!((listed.len(), listed[0].id()), (1, id));
    let own = ex.block_on(handle).unwrap();
    assert_eq!(own.id(), id);
    assert_eq!(own.name(), format!("Task-{id}"));
    assert_eq!(own.location().file(), file!());
    assert!((line - 1..=line + 1).contains(&own.location().line()));
    assert_eq!(counts(&ex).returned, 1);
}

// P2: what panics while making the future is the task's failure, with the task's name and place.
#[test]
fn a_closure_that_panics_is_a_task_that_failed() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let spawner = ex.spawner();
    let handle = elsewhere(|| {
        spawner
            .spawn(|| -> std::future::Ready<()> { panic_any(Boom("in make")) })
            .unwrap()
    });
    ex.run_until_stalled();
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::TaskFailed);
    assert_eq!(report.task, Some(format!("Task-{}", handle.id())));
    assert!(report.handle_held);
    let error = elsewhere(move || handle.join()).unwrap_err();
    assert_eq!(error.into_panic().downcast_ref(), Some(&Boom("in make")));
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
fn the_err_of_a_fallible_spawn_is_a_failure_and_of_a_plain_one_is_not() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let spawner = ex.spawner();
    elsewhere(|| {
        let plain = spawner.spawn(|| ready(Err::<(), _>(Fault("plain"))));
        plain.unwrap().detach();
        let fallible = spawner.spawn_fallible(|| ready(Err::<(), _>(Fault("fallible"))));
        fallible.unwrap().detach();
    });
    ex.run_until_stalled();
    assert_eq!(recorder.exceptions(), ["fallible"]);
    let counts = counts(&ex);
    assert_eq!((counts.returned, counts.failed, counts.reported), (1, 1, 1));
}

// P6: a spawner may be used from anywhere on the home thread too.
#[test]
fn a_spawner_may_be_used_at_home_from_tasks_handlers_callbacks_and_destructors() {
    quiet();
    thread_local! {
        static LOG: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }
    let spawn = |spawner: &Spawner, from: &'static str| {
        spawner
            .spawn(move || async move { LOG.with_borrow_mut(|log| log.push(from)) })
            .unwrap()
            .detach();
    };
    let ex = Executor::new();
    let spawner = ex.spawner();
    let from_handler = spawner.clone();
    ex.set_exception_handler(move |_, _| spawn(&from_handler, "handler"));
    let from_callback = spawner.clone();
    ex.call_soon(move || spawn(&from_callback, "callback"));
    let from_drop = spawner.clone();
    let guard = crate::support::on_drop(move || spawn(&from_drop, "destructor"));
    ex.spawn(async move {
        spawn(&spawner, "task");
        drop(guard);
        panic_any(Boom("for the handler"));
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(
        LOG.take(),
        ["callback", "task", "destructor", "handler"],
        "in the order of sending"
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Order, and nothing lost
// ---------------------------------------------------------------------------------------------------------------------

// B123, P9; trio tr:test_TrioToken_run_sync_soon_FIFO.
#[test]
fn spawns_and_calls_of_one_thread_begin_in_their_order() {
    thread_local! {
        static LOG: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }
    const EACH: usize = 1_000;
    let ex = Executor::new();
    let spawner = ex.spawner();
    elsewhere(|| {
        for n in 0..EACH {
            spawner
                .spawn(move || async move { LOG.with_borrow_mut(|log| log.push(2 * n)) })
                .unwrap()
                .detach();
            // A call spawns, so that what it begins takes its place in the same queue.
            spawner
                .call_soon(move |ex| {
                    ex.spawn(async move { LOG.with_borrow_mut(|log| log.push(2 * n + 1)) })
                        .detach();
                })
                .unwrap();
        }
    });
    ex.run_until_stalled();
    assert!(LOG.take().into_iter().eq(0..2 * EACH));
}

// P7: a queue full of messages is not turned into tasks all at once.
#[test]
fn messages_become_tasks_a_few_at_a_time() {
    let ex = Executor::new();
    let spawner = ex.spawner();
    elsewhere(|| {
        for _ in 0..10_000 {
            let spawned = spawner.spawn(|| async { LocalHandle::current().stats().live });
            spawned.unwrap().detach();
        }
    });
    let most = Rc::new(Cell::new(0));
    let seen = Rc::clone(&most);
    let watch = ex.handle();
    ex.spawn(async move {
        while watch.stats().returned < 10_000 {
            seen.set(seen.get().max(watch.stats().live));
            mainstay::yield_now().await;
        }
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(counts(&ex).returned, 10_001);
    assert!(most.get() > 1, "the watcher saw some of them");
    assert!(most.get() < 1_000, "{} at once", most.get());
}

// P8: a thread that spawns for ever starves neither tasks nor timers nor the root.
#[test]
fn a_thread_that_spawns_for_ever_starves_nobody() {
    without_hanging(|| {
        let ex = Executor::new();
        let spawner = ex.spawner();
        let enough = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&enough);
        let flood = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                spawner.spawn(|| async {}).unwrap().detach();
            }
        });
        ex.block_on(async {
            let local = mainstay::spawn(async {
                for _ in 0..100 {
                    mainstay::yield_now().await;
                }
            });
            mainstay::sleep(Duration::from_millis(20)).await;
            local.await.unwrap();
        });
        enough.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        ex.run_until_stalled();
        assert_eq!(counts(&ex).live, 0);
    });
}

/// P8: a message that arrives in the middle of passes which follow each other without a pause is called all the same.
#[test]
fn a_message_is_noticed_while_tasks_yield_for_ever() {
    let ex = Executor::new();
    let spawner = ex.spawner();
    let polls = Rc::new(Cell::new(0));
    for _ in 0..100 {
        let (polls, spawner) = (Rc::clone(&polls), spawner.clone());
        ex.spawn(async move {
            loop {
                polls.set(polls.get() + 1);
                match polls.get() {
                    1_010 => stop(&spawner),
                    // Not noticed: each has had ten turns since.
                    2_010 => LocalHandle::current().stop(),
                    _ => {}
                }
                mainstay::yield_now().await;
            }
        })
        .detach();
    }
    assert!(ex.try_block_on(pending::<()>()).is_err(), "stopped");
    assert!(polls.get() < 1_300, "within two passes: {}", polls.get());
}

// B123.
#[test]
fn a_spawn_ends_the_wait_of_an_idle_loop_and_tells_a_host() {
    without_hanging(|| {
        let ex = Executor::new();
        let (parked, is_parked) = mpsc::channel();
        let spawner = ex.spawner();
        let thread = thread::spawn(move || {
            is_parked.recv().unwrap();
            thread::sleep(Duration::from_millis(10));
            let ready = spawner.spawn(|| async { 7 }).unwrap().join();
            stop(&spawner);
            ready
        });
        ex.call_soon(move || parked.send(()).unwrap());
        ex.run_forever();
        assert_eq!(thread.join().unwrap().unwrap(), 7);

        let told = Arc::new(AtomicUsize::new(0));
        let hook = Arc::clone(&told);
        ex.on_wake(move || {
            hook.fetch_add(1, Ordering::SeqCst);
        });
        let spawner = ex.spawner();
        elsewhere(|| {
            for _ in 0..3 {
                spawner.spawn(|| async {}).unwrap().detach();
            }
        });
        assert_eq!(told.load(Ordering::SeqCst), 1, "coalesced");
        ex.run_until_stalled();
        assert_eq!(counts(&ex).returned, 4);
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// An executor that is gone
// ---------------------------------------------------------------------------------------------------------------------

// B123; trio tr:test_TrioToken_run_sync_soon_too_late, asyncio ev:test_close.
#[test]
fn a_dead_executor_gives_the_closure_back_as_it_was() {
    let ex = Executor::new();
    let (spawner, handle) = (ex.spawner(), ex.handle());
    assert!(!spawner.is_closed());
    drop(ex);
    assert!(spawner.is_closed());
    let drops = DropLog::new();
    let guard = drops.guard("captured");
    let Closed(make) = spawner
        .spawn(move || {
            let _guard = &guard;
            ready(7)
        })
        .unwrap_err();
    assert_eq!(drops.len(), 0, "nothing is lost");
    assert_eq!(make().into_inner(), 7);
    let closed = spawner.spawn_fallible(|| ready(Ok::<_, Fault>(8)));
    assert_eq!(closed.unwrap_err().0().into_inner(), Ok(8));
    let closed = spawner.call_soon(|_| {});
    assert_eq!(closed.unwrap_err().to_string(), "the executor is gone");
    // Also one that was made when it was too late.
    assert!(handle.spawner().is_closed());
    let Closed(_) = handle.spawner().spawn(|| ready(())).unwrap_err();
}

// P4, P2: accepted and not begun, it ends as pending tasks do.
#[test]
fn what_was_not_begun_is_dropped_at_home_and_reported_and_reads_as_cancelled() {
    without_hanging(|| {
        let drops = DropLog::new();
        let ex = Executor::new();
        let recorder = Recorder::on(&ex);
        let spawner = ex.spawner();
        let (guard, other) = (drops.guard("not begun"), drops.guard("not called"));
        let handle = elsewhere(move || {
            spawner
                .call_soon(move |_| drop(other))
                .expect("the executor lives");
            spawner
                .spawn(move || {
                    drop(guard);
                    pending::<()>()
                })
                .unwrap()
        });
        let id = handle.id();
        let waiting = thread::spawn(move || handle.join());
        thread::sleep(Duration::from_millis(10));
        drop(ex);
        drops.assert(&["not called", "not begun"]);
        let error = waiting.join().unwrap().unwrap_err();
        assert!(error.is_cancelled());
        assert_eq!(error.id(), Some(id));
        let report = recorder.only();
        assert_eq!(report.kind, ContextKind::DestroyedPending);
        assert_eq!(report.task, Some(format!("Task-{id}")));
        assert!(report.handle_held);
    });
}

/// Returns what it has, and its destructor panics.
struct PanicsWhenDropped(Arc<()>);

impl Future for PanicsWhenDropped {
    type Output = Arc<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Arc<()>> {
        Poll::Ready(Arc::clone(&self.0))
    }
}

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic_any(Boom("in the destructor"));
    }
}

// P2: the task has failed, and its output was dropped. It was leaked. Found by `fuzz/fuzz_targets/anything`.
#[test]
fn an_output_is_dropped_when_the_destructor_of_its_future_panics() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let output = Arc::new(());
    let copy = Arc::clone(&output);
    let handle = ex.spawner().spawn(move || PanicsWhenDropped(copy));
    ex.run_until_stalled();
    assert_eq!(ex.stats().failed, 1);
    assert_eq!(Arc::strong_count(&output), 1);
    drop(handle);
}

// P3, P2: the destructor of a closure that was never called panics; the task has failed and the others end all the same.
#[test]
fn a_closure_whose_destructor_panics_at_the_end_is_a_task_that_failed() {
    quiet();
    let drops = DropLog::new();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let spawner = ex.spawner();
    let bad = drops.guard("bad").panics("boom at the end");
    let good = drops.guard("good");
    let handles = elsewhere(move || {
        let spawn = |guard| {
            let make = move || {
                drop(guard);
                pending::<()>()
            };
            spawner.spawn(make).unwrap()
        };
        [spawn(bad), spawn(good)]
    });
    drop(ex);
    drops.assert(&["bad", "good"]);
    let [bad, good] = handles;
    assert!(elsewhere(|| bad.join()).unwrap_err().is_panic());
    assert!(elsewhere(|| good.join()).unwrap_err().is_cancelled());
    assert_eq!(
        recorder.kinds(),
        [
            ContextKind::DestroyedPending,
            ContextKind::TaskFailed,
            ContextKind::DestroyedPending
        ]
    );
}

// B123 in the race: each closure is either given back or its task ends, at home, once.
#[test]
fn spawns_race_with_the_end_of_their_executor_and_none_is_lost() {
    without_hanging(|| {
        const THREADS: usize = 3;
        const MOST: usize = 200;
        let mut given_back = 0;
        for round in 0..60 {
            let ran = Arc::new(AtomicUsize::new(0));
            let dropped = DropLog::new();
            let ex = Executor::new();
            ex.set_exception_handler(|_, _| {});
            let barrier = Arc::new(Barrier::new(THREADS + 1));
            let handles = Arc::new(Mutex::new(Vec::new()));
            let workers: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (spawner, barrier) = (ex.spawner(), Arc::clone(&barrier));
                    let handles = Arc::clone(&handles);
                    let (ran, dropped) = (Arc::clone(&ran), dropped.clone());
                    thread::spawn(move || {
                        barrier.wait();
                        let mut sent = 0;
                        let mut given_back = None;
                        while sent < MOST {
                            let (guard, ran) = (dropped.guard("captured"), Arc::clone(&ran));
                            let make = move || async move {
                                let _guard = guard;
                                ran.fetch_add(1, Ordering::SeqCst);
                            };
                            sent += 1;
                            match spawner.spawn(make) {
                                Ok(handle) => handles.lock().unwrap().push(handle),
                                Err(Closed(make)) => {
                                    given_back = Some(make);
                                    break;
                                }
                            }
                        }
                        (sent, given_back)
                    })
                })
                .collect();
            barrier.wait();
            for _ in 0..round % 7 {
                ex.tick(10);
            }
            drop(ex);
            let ends: Vec<_> = workers.into_iter().map(|w| w.join().unwrap()).collect();
            let sent: usize = ends.iter().map(|(sent, _)| sent).sum();
            let refused = ends.iter().filter(|(_, back)| back.is_some()).count();
            let handles = std::mem::take(&mut *handles.lock().unwrap());
            let accepted = handles.len();
            assert_eq!(sent, accepted + refused);
            given_back += refused;
            let finished = handles
                .into_iter()
                .map(|handle| handle.join())
                .filter(|outcome| match outcome {
                    Ok(()) => true,
                    Err(error) => {
                        assert!(error.is_cancelled());
                        false
                    }
                })
                .count();
            assert_eq!(finished, ran.load(Ordering::SeqCst));
            assert_eq!(dropped.len(), accepted);
            dropped.assert_home();
            drop(ends); // what was given back was not touched until here
        }
        assert!(given_back > 0, "some came too late");
    });
}
