//! The catalogue of what user code may do to an executor, in `hostile.md`, and the cases that no other module is about.
#![allow(
    clippy::print_stderr,
    reason = "children say on stderr how far they came"
)]

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::process::Output;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use mainstay::{
    ContextKind, Executor, JoinHandle, JoinSet, LocalHandle, ReportPolicy, Supervisor, TaskGroup,
    gather, sleep, yield_now,
};

use crate::borrowed::leak;
use crate::reentry::{PLACES, Place, arrange};
use crate::remote::without_hanging;
use crate::support::{
    Boom, DropLog, Event, Fault, LEAKS, LogCapture, Recorder, check_accounting, counts, holding,
    in_child, on_drop, poll_once, poll_with, quiet, yield_n,
};
use crate::table::{self, missing_tests, quoted};
use crate::wake::alone;

// ---------------------------------------------------------------------------------------------------------------------
// The table
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn every_test_in_the_catalogue_exists() {
    let rows = table::rows("hostile.md", |first| {
        !first.starts_with("---") && first != "what user code does"
    });
    assert!(rows.len() > 50, "{}", rows.len());
    let mut missing = Vec::new();
    for row in rows {
        assert_eq!(row.len(), 3, "{row:?}");
        assert_ne!(quoted(&row[2]).count(), 0, "{row:?}");
        missing.extend(missing_tests(&row[2]));
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

// ---------------------------------------------------------------------------------------------------------------------
// Panics at every call
// ---------------------------------------------------------------------------------------------------------------------

/// P2, P3: at each place in turn the user's code panics. Nothing leaves the loop, the bystander lives, the books add up, and
/// somebody is told.
#[test]
fn a_panic_at_every_place_is_contained_and_told() {
    quiet();
    for place in PLACES {
        let log = LogCapture::start();
        let ex = place.executor();
        let told = Rc::new(RefCell::new(Vec::new()));
        if !place.sets_a_handler() {
            let told = Rc::clone(&told);
            ex.set_exception_handler(move |_, report| told.borrow_mut().push(report.kind()));
        }
        let bystander = ex.spawn(yield_n(200));
        let keep = arrange(&ex, place, || panic_any(Boom("at a call into user code")));
        let before = ex.stats().polls;
        let driven = catch_unwind(AssertUnwindSafe(|| ex.run_until_stalled()));
        assert!(driven.is_ok(), "{place:?}: it left the loop");
        assert!(ex.stats().polls > before && bystander.is_finished());
        assert!(!bystander.is_cancelled() && !ex.is_running());
        assert!(ex.is_empty(), "{place:?}: {:?}", ex.tasks());
        drop(keep);
        check_accounting(&ex);
        assert!(ex.stats().reports > 0, "{place:?}: nobody was told");
        match place {
            // Then the default handler is told, of both.
            Place::Handler | Place::ErrorDisplay => {
                let record = log.only().text;
                assert!(record.contains("while handling"), "{place:?}: {record}");
            }
            _ if place.sets_a_handler() => {}
            _ => assert!(
                !told.borrow().is_empty(),
                "{place:?}: the handler was not told"
            ),
        }
    }
}

/// P3: the waker that a handle is polled with is cloned in that poll. Its panic is the poller's failure, and the awaited task
/// does not notice.
#[test]
fn a_waker_that_panics_when_cloned_fails_the_task_that_polls_with_it() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let awaited = ex.spawn(async {
        yield_n(3).await;
        7
    });
    let kept = Rc::new(RefCell::new(awaited));
    let handle = Rc::clone(&kept);
    let poller = ex.spawn(async move {
        let waker = cooked_waker::IntoWaker::into_waker(Box::new(PanicsWhenCloned));
        let polled = poll_with(&mut *handle.borrow_mut(), &waker);
        unreachable!("{polled:?}");
    });
    assert_eq!(ex.block_on(poller).map_err(|e| e.is_panic()), Err(true));
    assert_eq!(recorder.kinds(), [ContextKind::TaskFailed]);
    ex.run_until_stalled();
    let outcome = kept.borrow_mut().result();
    assert_eq!(outcome.expect("it has ended").expect("well"), 7);
    check_accounting(&ex);
}

struct PanicsWhenCloned;

impl Clone for PanicsWhenCloned {
    fn clone(&self) -> Self {
        panic_any(Boom("in the clone of a waker"))
    }
}

impl cooked_waker::WakeRef for PanicsWhenCloned {
    fn wake_by_ref(&self) {}
}

impl cooked_waker::Wake for PanicsWhenCloned {}

// ---------------------------------------------------------------------------------------------------------------------
// What Rust itself aborts on
// ---------------------------------------------------------------------------------------------------------------------

/// Asserts that a child did not come back: not by an exit status, but by a signal, where there are such.
#[track_caller]
fn assert_aborted(output: &Output, why: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(why), "{stderr}");
    assert!(!stderr.contains("it went on"), "{stderr}");
    assert!(!output.status.success());
    if cfg!(unix) {
        assert_eq!(output.status.code(), None, "a signal: {:?}", output.status);
    }
}

fn spawn_and_go_on<F: Future + 'static>(future: F) {
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    ex.spawn(future).detach();
    ex.run_until_stalled();
    eprintln!("it went on");
}

/// P3, its limit: the second destructor panics while the first one's panic unwinds through the drop of one future.
#[test]
fn two_panicking_destructors_in_one_future_abort() {
    let test = "hostile_catalogue::two_panicking_destructors_in_one_future_abort";
    let child = in_child(test, &[], || {
        let bad = || on_drop(|| panic!("boom"));
        spawn_and_go_on(holding((bad(), bad()), async {}));
    });
    if let Some(output) = child {
        assert_aborted(&output, "panic in a destructor during cleanup");
    }
}

/// P3, its limit: an async body panics, and a local's destructor panics on the way out.
#[test]
fn a_body_that_panics_past_a_panicking_local_aborts() {
    let test = "hostile_catalogue::a_body_that_panics_past_a_panicking_local_aborts";
    let child = in_child(test, &[], || {
        spawn_and_go_on(async {
            let _local = on_drop(|| panic!("boom, again"));
            panic!("boom");
        });
    });
    if let Some(output) = child {
        assert_aborted(&output, "panic in a destructor during cleanup");
    }
}

/// P3, its limit.
#[test]
fn a_stack_overflow_in_a_task_aborts() {
    #[expect(unconditional_recursion, reason = "what is tested")]
    fn deeper(n: &mut [u8; 4096]) -> usize {
        let mut more = std::hint::black_box(*n);
        deeper(&mut more) + usize::from(more[0])
    }
    let test = "hostile_catalogue::a_stack_overflow_in_a_task_aborts";
    // A sanitizer that looks on ends it in the same way, or leaves it to the standard library.
    let sanitized = [
        ("ASAN_OPTIONS", "abort_on_error=1"),
        ("LSAN_OPTIONS", "handle_segv=0"),
    ];
    let child = in_child(test, &sanitized, || {
        spawn_and_go_on(async { assert_ne!(deeper(&mut [1; 4096]), 0) });
    });
    if let Some(output) = child {
        assert_aborted(&output, "overflow");
    }
}

/// The neighbours of those limits: one panicking destructor, alone or after a panic of the poll that was over by then, does
/// not abort.
#[test]
fn one_panicking_destructor_at_a_time_does_not_abort() {
    fn bad() -> impl Drop {
        on_drop(|| panic!("boom"))
    }
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.spawn(holding(bad(), async {})).detach();
    ex.spawn(holding(bad(), async { panic!("boom") })).detach();
    ex.spawn(async {
        let _local = bad();
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(counts(&ex).failed, 3);
    assert_eq!(recorder.len(), 4);
}

// ---------------------------------------------------------------------------------------------------------------------
// Things that are forgotten
// ---------------------------------------------------------------------------------------------------------------------

/// P1, P2: a forgotten handle keeps no task and loses none; what it would have given stays unread.
#[test]
fn forgotten_handles_of_every_kind_hold_up_nothing() {
    quiet();
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        let drops = DropLog::new();
        let told = Rc::new(Cell::new(0));
        let ex = Executor::builder().report(policy).build();
        let count = Rc::clone(&told);
        ex.set_exception_handler(move |_, _| count.set(count.get() + 1));
        let guard = drops.guard("output");
        leak(ex.spawn(async move { guard }));
        leak(ex.spawn(holding(drops.guard("future"), yield_n(2))));
        leak(ex.spawn_fallible(async { Err::<(), _>(Fault("unread")) }));
        leak(ex.spawn(pending::<()>()).cancel_handle());
        leak(
            ex.spawn(holding(drops.guard("owned"), pending::<()>()))
                .cancel_on_drop(),
        );
        let called = Rc::new(Cell::new(false));
        let flag = Rc::clone(&called);
        leak(ex.call_soon(move || flag.set(true)));
        leak(ex.spawner().spawn(|| async { 7 }).expect("it is there"));
        leak(ex.handle());
        ex.run_until_stalled();
        assert!(called.get());
        assert_eq!(drops.names(), ["future"], "the output is the handle's");
        let after = counts(&ex);
        assert_eq!((after.returned, after.failed, after.live), (3, 1, 2));
        // `OnFailure` tells at once; the other rule is due at the latest when the executor goes.
        assert_eq!(told.get(), usize::from(policy == ReportPolicy::OnFailure));
        drop(ex);
        assert_eq!(drops.names(), ["future", "owned"]);
        // The failure, the two that were pending.
        assert_eq!(told.get(), 3);
    }
}

/// P1, P2: futures that hold tasks are forgotten in the middle. Their tasks live on until the executor goes; a failure that
/// such a group was to hand on stays unread with it.
#[test]
fn forgotten_groups_and_combinators_hold_up_nothing() {
    quiet();
    let drops = DropLog::new();
    let told = Rc::new(RefCell::new(Vec::new()));
    let ex = Executor::new();
    let list = Rc::clone(&told);
    ex.set_exception_handler(move |_, report| {
        let exception = report.exception().map(|e| e.message().into_owned());
        list.borrow_mut().push(exception.unwrap_or_default());
    });
    let ran = Rc::new(Cell::new(0));
    let child = |name: &'static str| {
        let (ran, guard) = (Rc::clone(&ran), drops.guard(name));
        async move {
            let _guard = guard;
            yield_n(2).await;
            ran.set(ran.get() + 1);
            pending::<()>().await;
        }
    };
    let (first, second) = (child("group"), child("gathered"));
    let (third, fourth) = (child("supervised"), child("in a set"));
    let drops_of_body = drops.clone();
    ex.block_on(async {
        let mut group = Box::pin(TaskGroup::scope(async move |g: &TaskGroup| {
            let _body = drops_of_body.guard("body");
            g.spawn(first).detach();
            g.spawn_fallible(async {
                yield_n(4).await;
                Err::<(), _>(Fault("in a forgotten group"))
            })
            .detach();
            pending::<()>().await;
        }));
        assert!(poll_once(&mut group).is_pending());
        leak(group);
        let mut gathered = Box::pin(gather([second]));
        assert!(poll_once(&mut gathered).is_pending());
        leak(gathered);
        let supervisor = Supervisor::new();
        supervisor.spawn(third).detach();
        leak(supervisor);
        let mut set = JoinSet::new();
        set.spawn(fourth);
        leak(set);
    });
    ex.run_until_stalled();
    assert_eq!(ran.get(), 4, "they run");
    let books = counts(&ex);
    assert_eq!((books.failed, books.unread, books.live), (1, 1, 4));
    drop(ex);
    let mut gone = drops.names();
    gone.sort_unstable();
    // The body is in the future that was forgotten.
    assert_eq!(gone, ["gathered", "group", "in a set", "supervised"]);
    // Nor is the failure anybody's but the group's: it stays unread, and the books say so.
    assert!(
        told.borrow().iter().all(String::is_empty),
        "the four that were pending"
    );
}

/// P4, P5: an executor is forgotten on a thread that ends. Its wakers, cancel handles and spawners do nothing, wherever they are;
/// none of its futures is dropped anywhere else.
#[test]
fn an_executor_forgotten_on_a_thread_that_ends_harms_nobody() {
    let drops = DropLog::new();
    let log = drops.clone();
    let (waker, cancel, spawner, remote) = thread::spawn(move || {
        let ex = Executor::new();
        let waker = Rc::new(RefCell::new(None));
        let place = Rc::clone(&waker);
        let handle = ex.spawn(holding(
            log.guard("future"),
            poll_fn(move |cx| {
                place.replace(Some(cx.waker().clone()));
                Poll::<()>::Pending
            }),
        ));
        let cancel = handle.cancel_handle();
        let spawner = ex.spawner();
        let remote = spawner.spawn(pending::<()>).expect("it is there");
        ex.run_until_stalled();
        leak((ex, handle));
        let waker = waker.take().expect("it was polled");
        (waker, cancel, spawner, remote)
    })
    .join()
    .expect("the thread ends well");
    waker.wake_by_ref();
    cancel.cancel();
    remote.cancel();
    // Accepted, for nobody can know; begun by nobody.
    drop(spawner.call_soon(|_| unreachable!("nobody drives it")));
    // And this thread's own executors do not notice.
    let ex = Executor::new();
    assert_eq!(ex.block_on(async { 7 }), 7);
    drop((waker, cancel, spawner, remote));
    assert_eq!(drops.len(), 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Wakers that go far
// ---------------------------------------------------------------------------------------------------------------------

/// P5, P8: sixteen threads clone a task's waker, wake it and drop the clones while it runs, and past its end, and past the
/// executor's.
#[test]
fn a_future_that_hands_its_waker_to_sixteen_threads() {
    alone(
        "hostile_catalogue::a_future_that_hands_its_waker_to_sixteen_threads",
        || {
            const THREADS: usize = 16;
            const WAKES: usize = 500;
            without_hanging(|| {
                let ex = Executor::new();
                let woken = Arc::new(AtomicUsize::new(0));
                let over = Arc::new(Barrier::new(THREADS + 1));
                let (seen, end) = (Arc::clone(&woken), Arc::clone(&over));
                let mut polls = 0;
                let mut started = Vec::new();
                let task = ex.spawn(poll_fn(move |cx| {
                    polls += 1;
                    if polls == 1 {
                        for _ in 0..THREADS {
                            let waker = cx.waker().clone();
                            let (woken, over) = (Arc::clone(&seen), Arc::clone(&end));
                            started.push(thread::spawn(move || {
                                for _ in 0..WAKES {
                                    let clone = waker.clone();
                                    woken.fetch_add(1, Ordering::Relaxed);
                                    clone.wake();
                                }
                                // The task ends, then the executor.
                                for _ in 0..2 {
                                    over.wait();
                                    waker.wake_by_ref();
                                }
                                drop(waker);
                            }));
                        }
                    }
                    // The first poll is not the last, also where all of them are through before it is: they have woken the task.
                    if polls > 1 && seen.load(Ordering::Relaxed) == THREADS * WAKES {
                        return Poll::Ready((polls, std::mem::take(&mut started)));
                    }
                    Poll::Pending
                }));
                let (polls, threads) = ex.block_on(task).expect("it is not cancelled");
                assert!(polls >= 2, "{polls}");
                over.wait();
                ex.run_until_stalled();
                check_accounting(&ex);
                drop(ex);
                over.wait();
                for thread in threads {
                    thread.join().expect("a wake never panics");
                }
                assert_eq!(woken.load(Ordering::Relaxed), THREADS * WAKES);
            });
        },
    );
}

/// P5: wakers in a static outlive the tasks, the executor and its thread, and are called by whoever finds them.
#[test]
fn wakers_in_a_static_outlive_everything() {
    alone(
        "hostile_catalogue::wakers_in_a_static_outlive_everything",
        || {
            static KEPT: Mutex<Vec<Waker>> = Mutex::new(Vec::new());
            let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
            thread::spawn(move || {
                let ex = Executor::new();
                for n in 0..50 {
                    ex.spawn(poll_fn(move |cx| {
                        kept().push(cx.waker().clone());
                        if n % 2 == 0 {
                            Poll::Ready(())
                        } else {
                            Poll::Pending
                        }
                    }))
                    .detach();
                }
                ex.run_until_stalled();
            })
            .join()
            .expect("the thread ends well");
            // The next executor may have the id, and its tasks the slots, of those that are gone: at worst they are polled in vain.
            let ex = Executor::new();
            let event = Event::new();
            let tasks: Vec<JoinHandle<()>> = (0..50).map(|_| ex.spawn(event.wait())).collect();
            ex.run_until_stalled();
            let wake = || kept().iter().for_each(Waker::wake_by_ref);
            wake();
            thread::scope(|scope| scope.spawn(wake).join()).expect("a wake never panics");
            ex.run_until_stalled();
            assert!(tasks.iter().all(|task| !task.is_finished()));
            event.set();
            ex.run_until_stalled();
            assert!(tasks.iter().all(JoinHandle::is_finished));
            assert_eq!(kept().len(), 50);
        },
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Drops at bad moments
// ---------------------------------------------------------------------------------------------------------------------

/// P2, P3: handles of every kind go while a panic unwinds: each does what it does at any other time, the outputs' own panics
/// included.
#[test]
fn handles_dropped_during_unwinding_do_what_they_do_else() {
    quiet();
    for in_task in [true, false] {
        let drops = DropLog::new();
        let ex = Executor::builder()
            .report(ReportPolicy::IfUnretrieved)
            .build();
        let recorder = Recorder::on(&ex);
        let output = drops
            .guard("output")
            .panics_while_unwinding("boom in an output");
        let returned = ex.spawn(async move { output });
        let failed = ex.spawn_fallible(async { Err::<(), _>(Fault("unread")) });
        let owned = ex.spawn(holding(drops.guard("owned"), pending::<()>()));
        let detached = ex.spawn(yield_n(50));
        let other = ex.spawn(pending::<()>());
        ex.run_until_stalled();
        let all = (
            returned,
            failed,
            owned.cancel_on_drop(),
            detached,
            other.cancel_handle(),
            ex.call_later(Duration::from_secs(60), || {}),
            ex.spawner().spawn(pending::<()>).expect("it is there"),
            ex.handle(),
        );
        if in_task {
            ex.spawn(async move {
                let _all = all;
                panic_any(Boom("with all handles"));
            })
            .detach();
        } else {
            let panicked = catch_unwind(AssertUnwindSafe(move || {
                let _all = all;
                panic_any(Boom("with all handles"));
            }));
            assert!(panicked.is_err());
        }
        ex.run_until_stalled();
        let mut gone = drops.names();
        gone.sort_unstable();
        assert_eq!(gone, ["output", "owned"]);
        let told = recorder.exceptions();
        for text in ["boom in an output", "unread"] {
            assert_eq!(
                told.iter().filter(|told| *told == text).count(),
                1,
                "{told:?}"
            );
        }
        assert_eq!(counts(&ex).cancelled, 1);
        assert!(!other.is_finished());
        drop(other);
        check_accounting(&ex);
    }
}

/// P3, P6: a destructor blocks on another executor, and the tasks there have such destructors too: in a cancel, at a return, and at
/// the end of the executor.
#[test]
fn a_destructor_may_block_on_another_executor() {
    fn blocks(depth: usize, done: Rc<Cell<usize>>) -> impl Drop {
        on_drop(move || {
            let inner = Executor::new();
            inner.block_on(async {
                sleep(Duration::from_micros(10)).await;
                if depth > 0 {
                    let task = holding(blocks(depth - 1, Rc::clone(&done)), yield_now());
                    mainstay::spawn(task).await.expect("it is not cancelled");
                    // And one that its end drops.
                    mainstay::spawn(holding(blocks(0, Rc::clone(&done)), pending::<()>())).detach();
                }
            });
            done.set(done.get() + 1);
        })
    }
    let done = Rc::new(Cell::new(0));
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let victim = ex.spawn(holding(blocks(3, Rc::clone(&done)), pending::<()>()));
    ex.spawn(holding(blocks(3, Rc::clone(&done)), yield_now()))
        .detach();
    ex.spawn(holding(blocks(3, Rc::clone(&done)), pending::<()>()))
        .detach();
    ex.run_until_stalled();
    ex.block_on(async { assert!(victim.cancel()) });
    // Each blocks at four depths, and leaves one at three of them.
    assert_eq!(done.get(), 14);
    assert!(!ex.is_running() && LocalHandle::try_current().is_none());
    drop(ex);
    assert_eq!(done.get(), 21);
}

/// A resumed panic is a panic like any other: the hook is not run, and the payload arrives as it was.
#[test]
fn a_task_that_resumes_a_panic_fails_with_it() {
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let handle = ex.spawn(async { resume_unwind(Box::new(7_u8)) });
    let error = ex.block_on(handle).expect_err("it panicked");
    assert_eq!(error.into_panic().downcast_ref(), Some(&7_u8));
}

// ---------------------------------------------------------------------------------------------------------------------
// The end of the process
// ---------------------------------------------------------------------------------------------------------------------

/// A task ends the process, with executors alive in thread-locals and on another thread, which wakes it all the while: it ends, with
/// the status that was asked for, and no task of the loops that run is dropped.
#[test]
fn an_exit_inside_a_task_ends_the_process_at_once() {
    thread_local! {
        static IN_PLACE: Executor<'static> = Executor::new();
    }
    let test = "hostile_catalogue::an_exit_inside_a_task_ends_the_process_at_once";
    let child = in_child(test, &LEAKS, || {
        let shout = || on_drop(|| eprintln!("a destructor ran"));
        // The C library may end thread-locals on the way out, inside of the task that asked for the exit.
        IN_PLACE.with(|ex| ex.spawn(holding(on_drop(|| ()), pending::<()>())).detach());
        let ex = Executor::new();
        ex.set_exception_handler(|_, _| std::process::exit(3));
        ex.spawn(holding(shout(), pending::<()>())).detach();
        let spawner = ex.spawner();
        thread::spawn(move || {
            let other = Executor::new();
            other
                .spawn(holding(on_drop(|| ()), pending::<()>()))
                .detach();
            while spawner.call_soon(|_| {}).is_ok() {
                other.tick(1);
            }
        });
        ex.block_on(async {
            yield_n(100).await;
            mainstay::spawn(holding(shout(), async { std::process::exit(7) }))
                .await
                .expect("not reached");
        });
    });
    if let Some(output) = child {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{stderr}");
        assert!(!stderr.contains("a destructor ran"), "{stderr}");
    }
}

/// The same from a handler and from a destructor.
#[test]
fn an_exit_inside_a_handler_or_a_destructor_ends_the_process() {
    let test = "hostile_catalogue::an_exit_inside_a_handler_or_a_destructor_ends_the_process";
    for (place, status) in [("handler", 4), ("destructor", 5)] {
        let env = [LEAKS[0], LEAKS[1], ("MAINSTAY_TEST_PLACE", place)];
        let child = in_child(test, &env, || {
            let ex = Executor::new();
            if std::env::var("MAINSTAY_TEST_PLACE").is_ok_and(|place| place == "handler") {
                ex.set_exception_handler(|_, _| std::process::exit(4));
                ex.spawn_fallible(async { Err::<(), _>(Fault("told")) })
                    .detach();
            } else {
                ex.spawn(holding(on_drop(|| std::process::exit(5)), async {}))
                    .detach();
            }
            ex.run_until_stalled();
        });
        let Some(output) = child else { return };
        assert_eq!(output.status.code(), Some(status), "{place}");
    }
}
