//! `run_until`: driven by another runtime's `block_on`, in turns, without a lost wake, starving nobody.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn, ready};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join;
use mainstay::{ContextKind, Executor, LocalHandle, current_task, sleep, timeout};

use crate::borrowed::leak as keep;
use crate::remote::{elsewhere, without_hanging};
use crate::support::{
    Boom, DropLog, Event, Recorder, Trace, WakeCount, counting_waker, counts, holding, in_child_ok,
    on_drop, panic_message, poll_with, quiet, yield_n,
};

// ---------------------------------------------------------------------------------------------------------------------
// Hosts
// ---------------------------------------------------------------------------------------------------------------------

type Local<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

fn in_tokio(future: Local<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future);
}

fn in_mainstay(future: Local<'_>) {
    Executor::new().block_on(future);
}

fn in_a_mainstay_task(future: Local<'_>) {
    let host = Executor::new();
    let task = host.spawn(future);
    // The future may borrow, so that the executor is dropped before what it borrows.
    host.block_on(task).unwrap();
}

fn in_a_mainstay_run_until(future: Local<'_>) {
    let host = Executor::new();
    pollster::block_on(host.run_until(future));
}

/// Wakers of this one are not the host's own, but lead there.
fn in_a_set_of_futures(future: Local<'_>) {
    let host = Executor::new();
    host.block_on(async {
        let mut set = futures_util::stream::FuturesUnordered::new();
        set.push(future);
        futures_util::StreamExt::next(&mut set).await.unwrap();
    });
}

type Host = fn(Local<'_>);

/// All the hosts that the claims of this file are tried in.
const HOSTS: &[(&str, Host)] = &[
    ("tokio", in_tokio),
    ("async-io", |future| async_io::block_on(future)),
    ("smol", |future| smol::block_on(future)),
    ("pollster", |future| pollster::block_on(future)),
    ("futures", |future| futures_executor::block_on(future)),
    ("futures-lite", |future| {
        futures_lite::future::block_on(future)
    }),
    ("mainstay", in_mainstay),
    ("a task of mainstay", in_a_mainstay_task),
    ("a run_until of mainstay", in_a_mainstay_run_until),
    ("FuturesUnordered", in_a_set_of_futures),
];

/// Runs `test` in every host, each with a name for messages.
fn in_every_host(test: impl Fn(&str, Host) + Send + 'static) {
    without_hanging(move || {
        for &(name, host) in HOSTS {
            test(name, host);
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// What runs
// ---------------------------------------------------------------------------------------------------------------------

// B125; trio gm:test_guest_trivial: the host gets the root's value, tasks spawn tasks, P9 holds.
#[test]
fn a_root_and_its_tasks_run_to_the_roots_end_in_every_host() {
    in_every_host(|name, host| {
        let ex = Executor::new();
        let trace = Trace::new();
        let value = Rc::new(Cell::new(0)); // no `Send` anywhere
        let (out, log) = (Rc::clone(&value), trace.clone());
        host(Box::pin(async {
            let root = ex.run_until(async {
                let inner = log.clone();
                let task = mainstay::spawn(async move {
                    inner.push("task");
                    let inner = inner.clone();
                    mainstay::spawn(async move { inner.push("its task") })
                        .await
                        .unwrap();
                    20
                });
                log.push("root");
                task.await.unwrap() + 22
            });
            out.set(root.await);
        }));
        assert_eq!(value.get(), 42, "in {name}");
        trace.assert(&["root", "task", "its task"]);
        assert_eq!(counts(&ex).returned, 2);
    });
}

// B125, P5: a thread wakes the root and a task while the host waits; nothing is lost.
#[test]
fn wakes_from_other_threads_end_the_hosts_wait() {
    in_every_host(|_, host| {
        let ex = Executor::new();
        let (sender, receiver) = async_channel::bounded::<u32>(1);
        let (replies, reply) = async_channel::bounded::<u32>(1);
        let echo = receiver.clone();
        let thread = thread::spawn(move || {
            for n in 0..200 {
                sender.send_blocking(n).unwrap();
                assert_eq!(reply.recv_blocking().unwrap(), n);
            }
        });
        host(Box::pin(ex.run_until(async {
            let task = mainstay::spawn(async move {
                for _ in 0..100 {
                    replies.send(echo.recv().await.unwrap()).await.unwrap();
                }
                replies
            });
            let replies = task.await.unwrap();
            for _ in 0..100 {
                replies.send(receiver.recv().await.unwrap()).await.unwrap();
            }
        })));
        thread.join().unwrap();
    });
}

// Tasks that were spawned elsewhere, and their handles, while the host waits.
#[test]
fn spawners_reach_an_executor_that_is_a_guest() {
    in_every_host(|_, host| {
        let ex = Executor::new();
        let spawner = ex.spawner();
        let (done, is_done) = async_channel::bounded::<()>(1);
        let thread = thread::spawn(move || {
            let sum: u32 = (0..50)
                .map(|n| {
                    let make = move || async move {
                        mainstay::yield_now().await;
                        n
                    };
                    spawner.spawn(make).unwrap().join().unwrap()
                })
                .sum();
            done.send_blocking(()).unwrap();
            sum
        });
        host(Box::pin(ex.run_until(async {
            is_done.recv().await.unwrap();
        })));
        assert_eq!(thread.join().unwrap(), 1225);
    });
}

// B125; trio gm:test_host_can_directly_wake_trio_task: the host wakes a task between two turns, on the same thread.
#[test]
fn a_wake_at_home_between_two_turns_gets_a_turn() {
    let ex = Executor::new();
    let event = Event::new();
    let (waker, told) = counting_waker();
    let mut run = pin!(ex.run_until(async {
        let waits = event.clone();
        mainstay::spawn(async move { waits.wait().await })
            .await
            .unwrap();
        7
    }));
    let mut turn = || run.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(turn().is_pending());
    assert_eq!(told.wakes(), 0, "there is nothing to do");
    assert!(turn().is_pending(), "a turn for nothing");
    event.set();
    assert_eq!(told.wakes(), 1);
    let other = Event::new();
    other.set();
    assert!(turn().is_ready());
    assert_eq!(told.wakes(), 1);
}

// Coalesced: of a hundred wakes between two turns, the first tells.
#[test]
fn the_host_is_told_once_between_two_turns() {
    let ex = Executor::new();
    let event = Event::new();
    for _ in 0..100 {
        let event = event.clone();
        ex.spawn(async move { event.wait().await }).detach();
    }
    let (waker, told) = counting_waker();
    let mut run = pin!(ex.run_until(pending::<()>()));
    let mut turn = || {
        assert!(
            run.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        )
    };
    turn();
    event.pulse();
    ex.spawn(ready(())).detach();
    ex.call_soon(|| {});
    elsewhere({
        let spawner = ex.spawner();
        move || spawner.call_soon(|_| {}).unwrap()
    });
    assert_eq!(told.wakes(), 1, "first wake at home, the rest is known");
    turn();
    assert_eq!(
        told.wakes(),
        1,
        "a turn that does everything asks for no other"
    );
    let polls = ex.stats().polls;
    turn();
    assert_eq!(ex.stats().polls, polls, "and there was nothing left");
    event.set();
    assert_eq!(told.wakes(), 2);
    turn();
    assert_eq!(ex.len(), 0);
}

// Whatever makes work between two turns asks for one.
#[test]
fn what_is_done_between_two_turns_gets_a_turn() {
    type Act = fn(&Executor<'_>, &mainstay::JoinHandle<()>);
    let acts: &[Act] = &[
        |ex, _| drop(ex.spawn(ready(()))),
        |ex, _| drop(ex.call_soon(|| {})),
        |_, parked| assert!(parked.cancel()),
        |_, parked| assert!(elsewhere_cancel(parked)),
        |_, parked| {
            parked.add_done_callback(|_| {});
        },
        |ex, _| ex.stop(),
        |ex, _| drop(ex.call_later(Duration::from_secs(60), || {})),
    ];
    fn elsewhere_cancel(parked: &mainstay::JoinHandle<()>) -> bool {
        let handle = parked.cancel_handle();
        elsewhere(move || handle.cancel())
    }
    for (n, act) in acts.iter().enumerate() {
        // A finished task for the callback, a parked one for the rest.
        let ex = Executor::new();
        let finishes = n == 4;
        let parked = ex.spawn(async move {
            if !finishes {
                pending::<()>().await;
            }
        });
        let (waker, told) = counting_waker();
        let mut run = Box::pin(ex.run_until(pending::<()>()));
        assert!(poll_with(&mut run, &waker).is_pending());
        act(&ex, &parked);
        assert_eq!(told.wakes(), 1, "act {n}");
        quiet();
        drop(catch_unwind(AssertUnwindSafe(|| {
            poll_with(&mut run, &waker)
        })));
        parked.cancel();
        drop(run);
        ex.run_until_stalled();
        ex.set_exception_handler(|_, _| {});
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Turns
// ---------------------------------------------------------------------------------------------------------------------

// P8: tasks that never rest leave the host its turns.
#[test]
fn a_task_that_wakes_itself_for_ever_does_not_starve_the_host() {
    in_every_host(|name, host| {
        let ex = Executor::new();
        for _ in 0..10 {
            ex.spawn(yield_n(usize::MAX)).detach();
        }
        let turns = Rc::new(Cell::new(0_u32));
        let seen = Rc::clone(&turns);
        host(Box::pin(async {
            let mut guest = pin!(ex.run_until(pending::<()>()));
            poll_fn(|cx| {
                // The host's own future goes on between the turns.
                seen.set(seen.get() + 1);
                assert!(guest.as_mut().poll(cx).is_pending());
                match seen.get() {
                    100 => Poll::Ready(()),
                    _ => Poll::Pending,
                }
            })
            .await;
        }));
        let polls = ex.stats().polls;
        assert!(polls <= 100 * 256, "{polls} polls in 100 turns in {name}");
        assert!(polls >= 100 * 64, "a turn is worth its while: {polls}");
        ex.set_exception_handler(|_, _| {});
    });
}

// A root that wakes itself for ever neither.
#[test]
fn a_root_that_wakes_itself_for_ever_does_not_starve_the_host() {
    let ex = Executor::new();
    let (waker, told) = counting_waker();
    let mut run = Box::pin(ex.run_until(yield_n(1_000)));
    let mut turns = 1;
    while poll_with(&mut run, &waker).is_pending() {
        assert_eq!(told.wakes(), turns, "it asks for the next turn");
        turns += 1;
    }
    assert!((4..=10).contains(&turns), "{turns} turns");
}

#[test]
fn it_is_driven_only_while_a_turn_is_on_the_stack() {
    let ex = Executor::new();
    let seen = Rc::new(Cell::new(false));
    let inside = Rc::clone(&seen);
    let own = &ex;
    let mut run = Box::pin(ex.run_until(async move {
        inside.set(own.is_running());
        assert!(LocalHandle::try_current().is_some());
        pending::<()>().await;
    }));
    assert!(poll_with(&mut run, Waker::noop()).is_pending());
    assert!(seen.get());
    assert!(!ex.is_running());
    assert!(LocalHandle::try_current().is_none());
    // So another drive is welcome.
    assert_eq!(ex.block_on(async { 3 }), 3);
    ex.tick(10);
}

// A clear answer to who calls it where it is driven.
#[test]
fn a_run_until_in_a_task_of_the_same_executor_panics_there() {
    quiet();
    let ex = Rc::new(Executor::new());
    let recorder = Recorder::on(&ex);
    let own = Rc::downgrade(&ex);
    ex.spawn(async move {
        let own = own.upgrade().unwrap();
        let text = panic_message(|| Box::pin(own.run_until(ready(1))).now_or_never());
        assert!(
            text.contains("`run_until`") && text.contains("driven already"),
            "{text}"
        );
    })
    .detach();
    pollster::block_on(ex.run_until(mainstay::yield_now()));
    assert!(recorder.is_empty());
    assert_eq!(counts(&ex).returned, 1);
}

// Another executor's task may, and waits without blocking it.
#[test]
fn an_executor_is_the_guest_of_another_whose_tasks_go_on() {
    let (host, guest) = (Executor::new(), Executor::new());
    let trace = Trace::new();
    let (outer, inner, other) = (trace.clone(), trace.clone(), trace.clone());
    let event = Event::new();
    let waits = event.clone();
    host.block_on(async {
        let own = host.spawn(async move {
            other.push("host's task");
            event.set();
        });
        guest
            .run_until(async {
                inner.push("guest's root");
                assert!(current_task().is_none());
                waits.wait().await;
                inner.push("woken by the host's task");
            })
            .await;
        own.await.unwrap();
        outer.push("host's root");
    });
    trace.assert(&[
        "guest's root",
        "host's task",
        "woken by the host's task",
        "host's root",
    ]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Time
// ---------------------------------------------------------------------------------------------------------------------

// B125: never early, in hosts that know nothing of our timers too. (Their order is tested with a virtual clock.)
#[test]
fn sleeps_end_in_every_host() {
    in_every_host(|name, host| {
        let ex = Executor::new();
        let began = Instant::now();
        host(Box::pin(ex.run_until(async {
            let tasks = [40, 10].map(|millis| {
                mainstay::spawn(async move {
                    sleep(Duration::from_millis(millis)).await;
                    assert!(began.elapsed() >= Duration::from_millis(millis));
                })
            });
            let waits = timeout(Duration::from_millis(20), pending::<()>());
            waits.await.unwrap_err();
            assert!(began.elapsed() >= Duration::from_millis(20));
            for task in tasks {
                task.await.unwrap();
            }
        })));
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(40), "{took:?} in {name}");
        assert!(took < Duration::from_secs(20), "{took:?} in {name}");
    });
}

// B125; trio gm:test_host_altering_deadlines_wakes_trio_up.
#[test]
fn a_nearer_deadline_set_between_two_turns_is_kept() {
    without_hanging(|| {
        let ex = Executor::new();
        let (rang, rings) = (Rc::new(Cell::new(false)), Event::new());
        pollster::block_on(async {
            let (bell, event) = (Rc::clone(&rang), rings.clone());
            let guest = ex.run_until(async {
                // Armed for ages: the host waits with this alarm.
                let _ = timeout(Duration::from_secs(3_000), rings.wait()).await;
            });
            let mut guest = pin!(guest);
            poll_fn(|cx| {
                assert!(guest.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            let (bell, event) = (bell.clone(), event.clone());
            ex.call_later(Duration::from_millis(10), move || {
                bell.set(true);
                event.set();
            });
            guest.await;
        });
        assert!(rang.get());
    });
}

// G3: so is one that is set in a turn.
#[test]
fn a_nearer_deadline_set_in_a_turn_is_kept() {
    in_every_host(|_, host| {
        let ex = Executor::new();
        let (sender, woken) = async_channel::bounded(1);
        host(Box::pin(ex.run_until(async move {
            mainstay::spawn(sleep(Duration::from_secs(3_000))).detach();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(5));
                sender.send_blocking(()).unwrap();
            });
            // The host waits with that alarm, and then with a nearer one.
            woken.recv().await.unwrap();
            sleep(Duration::from_millis(5)).await;
        })));
    });
}

/// A guest that is done, or dropped, leaves no timer behind in a host of ours.
#[test]
fn the_alarm_of_a_guest_goes_with_it() {
    for left in [false, true] {
        let (host, ex) = (Executor::new(), Executor::new());
        let event = Event::new();
        let setter = event.clone();
        host.spawn(async move {
            yield_n(5).await;
            setter.set();
        })
        .detach();
        host.block_on(async {
            let guest = ex.run_until(async {
                mainstay::spawn(sleep(Duration::from_secs(3_000))).detach();
                event.wait().await;
            });
            let mut guest = Box::pin(guest);
            if left {
                poll_fn(|cx| {
                    assert!(guest.as_mut().poll(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
            } else {
                guest.await;
            }
        });
        assert_eq!(host.tick(1).next_deadline, None, "left: {left}");
        assert!(ex.tick(1).next_deadline.is_some());
    }
}

#[test]
fn a_virtual_clock_jumps_when_nothing_is_ready_here() {
    in_every_host(|name, host| {
        let ex = Executor::builder().virtual_clock().build();
        let start = ex.now();
        host(Box::pin(ex.run_until(async {
            let other = mainstay::spawn(async {
                sleep(Duration::from_secs(3_600)).await;
                LocalHandle::current().now()
            });
            sleep(Duration::from_secs(60)).await;
            assert!(
                !other.is_finished(),
                "in {name}: in the order of their deadlines"
            );
            other.await.unwrap();
        })));
        assert_eq!(ex.now() - start, Duration::from_secs(3_600));
    });
}

fn threads() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir("/proc/self/task")
        .map(|tasks| {
            tasks
                .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap())
                .map(|name| name.trim().to_owned())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

// No extra thread, but the one for timers, where a host needs it.
#[cfg(target_os = "linux")]
#[test]
fn the_timer_thread_is_started_when_a_host_needs_it_and_not_before() {
    const NAME: &str = "run_until::the_timer_thread_is_started_when_a_host_needs_it_and_not_before";
    in_child_ok(NAME, &[], || {
        let has_one = || threads().iter().any(|name| name == "mainstay-timers");
        let before = threads().len();
        let ex = Executor::new();
        // No timer is armed.
        pollster::block_on(ex.run_until(async { mainstay::spawn(yield_n(1_000)).await.unwrap() }));
        // The host knows our timers.
        let host = Executor::new();
        host.block_on(ex.run_until(sleep_here(5)));
        host.block_on(host.spawn(ex.run_until(sleep_here(5))))
            .unwrap();
        // The clock is virtual.
        let other = Executor::builder().virtual_clock().build();
        pollster::block_on(other.run_until(sleep_here(5)));
        // The deadline has come when the turn ends.
        pollster::block_on(ex.run_until(sleep_here(0)));
        assert_eq!(threads().len(), before, "no thread so far");
        pollster::block_on(ex.run_until(sleep_here(5)));
        assert!(has_one(), "{:?}", threads());
        // One for all.
        elsewhere(|| pollster::block_on(Executor::new().run_until(sleep_here(5))));
        assert_eq!(threads().len(), before + 1);
    });

    async fn sleep_here(millis: u64) {
        sleep(Duration::from_millis(millis)).await;
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Several, and beside a host loop
// ---------------------------------------------------------------------------------------------------------------------

// Two of them at once: each runs the tasks of both, neither takes the other's wake.
#[test]
fn two_at_once_each_get_their_own_roots_value() {
    in_every_host(|_, host| {
        let ex = Executor::new();
        let (a, b) = (Event::new(), Event::new());
        let both = Rc::new(Cell::new((0, 0)));
        let out = Rc::clone(&both);
        host(Box::pin(async {
            let first = ex.run_until(async {
                let (done, waits) = (b.clone(), a.clone());
                mainstay::spawn(async move {
                    waits.wait().await;
                    sleep(Duration::from_millis(3)).await;
                    done.set();
                })
                .detach();
                yield_n(3).await;
                b.wait().await;
                1
            });
            let second = ex.run_until(async {
                sleep(Duration::from_millis(3)).await;
                a.set();
                2
            });
            out.set(join(first, second).await);
        }));
        assert_eq!(both.get(), (1, 2));
    });
}

// A root that is woken in another's turn, and by nothing that anybody was told of: the first turn of that other one.
#[test]
fn a_root_that_is_woken_in_anothers_turn_gets_one() {
    let ex = Executor::new();
    let event = Event::new();
    let waits = event.clone();
    let ((one, one_told), (other, _)) = (counting_waker(), counting_waker());
    let mut long = Box::pin(ex.run_until(async move { waits.wait().await }));
    assert!(poll_with(&mut long, &one).is_pending());
    let mut first = Box::pin(ex.run_until(async move {
        event.set();
        pending::<()>().await;
    }));
    assert!(poll_with(&mut first, &other).is_pending());
    assert_eq!(one_told.wakes(), 1);
    assert!(poll_with(&mut long, &one).is_ready());
}

// Each in a task of its own, so that each has a waker of its own; the one that ends first leaves the other's tasks ready.
#[test]
fn what_one_leaves_the_other_does() {
    let ex = Executor::new();
    let host = Executor::new(); // its tasks borrow the other
    let event = Event::new();
    let waits = event.clone();
    let ended = Trace::new();
    let (first, second) = (ended.clone(), ended.clone());
    let guest = &ex;
    let long = host.spawn(async move {
        guest
            .run_until(async {
                waits.wait().await;
                first.push("long");
            })
            .await;
    });
    let short = host.spawn(async move {
        guest
            .run_until(async {
                // Ready when this root ends, and never polled in its turn.
                mainstay::spawn(async move { event.set() }).detach();
                second.push("short");
            })
            .await;
    });
    host.run_until_stalled();
    assert!(long.is_finished() && short.is_finished());
    ended.assert(&["short", "long"]);
}

// One that is dropped in the middle of its work leaves it to the other.
#[test]
fn what_one_leaves_when_it_is_dropped_the_other_does() {
    for (leak, late) in [(false, false), (true, false), (false, true)] {
        let ex = Executor::new();
        let event = Event::new();
        let waits = event.clone();
        let ((stays, stays_told), (goes, goes_told)) = (counting_waker(), counting_waker());
        let mut long = Box::pin(ex.run_until(async move { waits.wait().await }));
        assert!(poll_with(&mut long, &stays).is_pending());
        assert_eq!(stays_told.wakes(), 0, "there is nothing to do");
        // More than a turn's worth, and what the other waits for behind it; or work that the root's end makes.
        let mut short = Box::pin(ex.run_until(async move {
            let work = async move {
                yield_n(if late { 0 } else { 1_000 }).await;
                event.set();
            };
            let spawn = || mainstay::spawn(work).detach();
            if late {
                let _last = on_drop(spawn);
                pending::<()>().await;
            } else {
                spawn();
                pending::<()>().await;
            }
        }));
        assert!(poll_with(&mut short, &goes).is_pending());
        assert_eq!(goes_told.wakes(), usize::from(!late), "there is more to do");
        if leak {
            keep(short);
        } else {
            drop(short);
        }
        assert_eq!(stays_told.wakes(), 1, "leaked: {leak}, late: {late}");
        let mut turns = 0;
        while poll_with(&mut long, &stays).is_pending() {
            turns += 1;
            assert!(turns < 20, "leaked: {leak}, late: {late}");
        }
    }
}

// P7: forgotten ones cost a slot each, and nothing that keeps others from running.
#[test]
fn one_that_is_forgotten_harms_nobody() {
    let ex = Executor::new();
    for _ in 0..100 {
        let mut run = Box::pin(ex.run_until(yield_n(usize::MAX)));
        assert!(poll_with(&mut run, Waker::noop()).is_pending());
        keep(run);
    }
    let value = ex.run_until(async { mainstay::spawn(ready(9)).await.unwrap() });
    assert_eq!(pollster::block_on(value), 9);
    assert_eq!(ex.block_on(async { 8 }), 8);
}

// One together with a host's `tick`: both do the work of both.
#[test]
fn beside_a_host_loop_that_ticks_no_wake_is_lost() {
    let ex = Executor::new();
    let hook = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&hook);
    ex.on_wake(move || {
        calls.fetch_add(1, Ordering::SeqCst);
    });
    let event = Event::new();
    let waits = event.clone();
    let (waker, told) = counting_waker();
    let mut run = Box::pin(ex.run_until(async move {
        waits.wait().await;
        5
    }));
    assert!(poll_with(&mut run, &waker).is_pending());
    // A task wakes the root, in a tick of the host loop.
    ex.spawn(async move { event.set() }).detach();
    assert_eq!(hook.load(Ordering::SeqCst), 1, "the hook is called as ever");
    assert_eq!(ex.tick(10).polls, 1, "the loop is first");
    assert_eq!(
        told.wakes(),
        1,
        "the root was woken, and only its host polls it"
    );
    assert_eq!(poll_with(&mut run, &waker), Poll::Ready(5));
    // And what the guest leaves is for the loop, which is told.
    let before = hook.load(Ordering::SeqCst);
    let leaves = async { mainstay::spawn(ready(())).detach() };
    assert!(Box::pin(ex.run_until(leaves)).now_or_never().is_some());
    assert!(hook.load(Ordering::SeqCst) > before);
    assert_eq!(ex.tick(10).polls, 1);
}

// A drive of another kind wakes a guest's root, and leaves what a guest waits for.
#[test]
fn other_drives_tell_the_guests_what_they_leave() {
    let ex = Executor::new();
    let event = Event::new();
    let waits = event.clone();
    let (waker, told) = counting_waker();
    let mut run = Box::pin(ex.run_until(async move { waits.wait().await }));
    assert!(poll_with(&mut run, &waker).is_pending());
    let leaves = event.clone();
    ex.block_on(async { mainstay::spawn(async move { leaves.set() }).detach() });
    assert_eq!(told.wakes(), 1, "a task is ready, and nobody else drives");
    assert!(poll_with(&mut run, &waker).is_ready());
}

// ---------------------------------------------------------------------------------------------------------------------
// Ends: panics, stops, drops
// ---------------------------------------------------------------------------------------------------------------------

// P3: the root's own panic comes out where it is polled; others' do not.
#[test]
fn a_panic_of_the_root_reaches_the_host_and_a_tasks_does_not() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let guard = drops.guard("root");
    let payload = catch_unwind(AssertUnwindSafe(|| {
        pollster::block_on(ex.run_until(holding(guard, async {
            mainstay::spawn(async { panic_any(Boom("a task's")) }).detach();
            yield_n(2).await;
            panic_any(Boom("the root's"));
        })))
    }))
    .unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&Boom("the root's")));
    assert_eq!(recorder.kinds(), [ContextKind::TaskFailed]);
    drops.assert(&["root"]);
    assert_eq!(pollster::block_on(ex.run_until(async { 4 })), 4, "usable");
}

// api.md, Stopping.
#[test]
fn a_stop_ends_a_run_until_as_it_ends_every_drive() {
    quiet();
    let ex = Executor::new();
    let text = panic_message(|| {
        pollster::block_on(ex.run_until(async {
            mainstay::spawn(async { LocalHandle::current().stop() }).detach();
            pending::<()>().await;
        }))
    });
    assert!(text.contains("stopped before the root finished"), "{text}");
    // A root that is ready in that pass wins.
    let value = pollster::block_on(ex.run_until(async {
        LocalHandle::current().stop();
        mainstay::spawn(ready(6)).await.unwrap()
    }));
    assert_eq!(value, 6);
    // One that is given by reference can go on.
    let mut root = pin!(async {
        let first = mainstay::spawn(async { LocalHandle::current().stop() });
        first.await.unwrap();
        yield_n(2).await;
        7
    });
    panic_message(|| pollster::block_on(ex.run_until(root.as_mut())));
    assert_eq!(pollster::block_on(ex.run_until(root)), 7);
    // A stop between two turns.
    ex.stop();
    let text = panic_message(|| pollster::block_on(ex.run_until(pending::<()>())));
    assert!(text.contains("stopped before the root finished"), "{text}");
}

#[test]
fn a_fatal_stop_unwinds_into_the_host_with_its_payload() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|ex, report| ex.stop_with(Box::new(report.message().to_owned())));
    let payload = catch_unwind(AssertUnwindSafe(|| {
        pollster::block_on(ex.run_until(async {
            mainstay::spawn(async { panic_any(Boom("fatal")) }).detach();
            mainstay::yield_now().await;
            "a value that is beaten"
        }))
    }))
    .unwrap_err();
    assert_eq!(payload.downcast_ref::<String>().unwrap(), "Task panicked");
}

// Dropped mid-way: the root goes in a drive, so that what it cancels goes at once; tasks stay.
#[test]
fn dropping_it_drops_the_root_and_leaves_the_tasks() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let task = ex.spawn(holding(drops.guard("cancelled"), pending::<()>()));
    let stays = ex.spawn(async {
        yield_n(3).await;
        8
    });
    let guard = drops.guard("root");
    let mut run = Box::pin(ex.run_until(async move {
        let _last = on_drop(move || {
            assert!(LocalHandle::try_current().is_some(), "in a drive");
            task.cancel();
            drop(guard);
        });
        pending::<()>().await;
    }));
    assert!(poll_with(&mut run, Waker::noop()).is_pending());
    drop(run);
    drops.assert(&["cancelled", "root"]);
    assert_eq!(ex.block_on(stays).unwrap(), 8);
}

/// Also where one of its executor's own tasks drops it.
#[test]
fn a_root_that_panics_may_be_dropped_in_a_task_of_its_own_executor() {
    quiet();
    let ex = Executor::new();
    let (recorder, drops) = (Recorder::on(&ex), DropLog::new());
    let guard = drops.guard("root").panics("boom in the root");
    let mut run = Box::pin(ex.run_until(holding(guard, pending::<()>())));
    assert!(poll_with(&mut run, Waker::noop()).is_pending());
    ex.block_on(async move {
        drop(run);
        assert!(current_task().is_none());
    });
    drops.assert(&["root"]);
    assert_eq!(recorder.only().kind, ContextKind::Destructor);
    assert_eq!(recorder.exceptions(), ["boom in the root"]);
}

// P3.
#[test]
fn a_root_whose_destructor_panics_is_reported_however_it_ends() {
    quiet();
    let drops = DropLog::new();
    let guard = || drops.guard("root").panics("boom in the root's destructor");
    for polled in [true, false] {
        let ex = Executor::new();
        let recorder = Recorder::on(&ex);
        if polled {
            let mut run = Box::pin(ex.run_until(holding(guard(), pending::<()>())));
            assert!(poll_with(&mut run, Waker::noop()).is_pending());
            drop(run);
        } else {
            assert_eq!(
                pollster::block_on(ex.run_until(holding(guard(), ready(1)))),
                1
            );
        }
        assert_eq!(recorder.only().kind, ContextKind::Destructor);
    }
    assert_eq!(drops.len(), 2);
}

// P3: the host's waker is foreign.
#[test]
fn a_hosts_waker_that_panics_is_contained_and_reported() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let waker = Waker::from(WakeCount::panicking_on_wake());
    let mut run = Box::pin(ex.run_until(pending::<()>()));
    assert!(poll_with(&mut run, &waker).is_pending());
    ex.spawn(ready(())).detach();
    assert!(poll_with(&mut run, Waker::noop()).is_pending());
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::Callback);
    assert_eq!(report.exception.as_deref(), Some("boom in wake"));

    let waker = Waker::from(WakeCount::panicking_on_drop());
    assert!(poll_with(&mut run, &waker).is_pending());
    drop(waker);
    assert!(poll_with(&mut run, Waker::noop()).is_pending());
    ex.run_until_stalled();
    assert_eq!(recorder.exceptions()[1..], ["boom in waker drop"]);

    // The one that is there when the future is dropped.
    let waker = Waker::from(WakeCount::panicking_on_drop());
    assert!(poll_with(&mut run, &waker).is_pending());
    drop(waker);
    drop(run);
    ex.run_until_stalled();
    assert_eq!(recorder.exceptions()[2..], ["boom in waker drop"]);
}

// A peer runtime goes from under us: our tasks are told by their futures, and the executor goes on elsewhere.
#[test]
fn a_runtime_dropped_from_under_its_guest_leaves_the_executor_usable() {
    without_hanging(|| {
        quiet();
        let ex = Executor::new();
        let recorder = Recorder::on(&ex);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let left = runtime.block_on(ex.run_until(async {
            let asleep = mainstay::spawn(async {
                // A timer of tokio's, which nobody will fire.
                tokio::time::sleep(Duration::from_millis(20)).await;
            });
            let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
            let dropped = mainstay::spawn(receiver);
            mainstay::yield_now().await;
            tokio::spawn(async move {
                pending::<()>().await;
                drop(sender);
            });
            (asleep, dropped)
        }));
        drop(runtime);
        let (asleep, dropped) = left;
        // What tokio dropped with its task woke ours.
        assert!(ex.block_on(dropped).unwrap().is_err());
        // tokio's timer panics or wakes; it must not take the loop with it.
        let outcome = ex.block_on(async { timeout(Duration::from_secs(20), asleep).await });
        let outcome = outcome.unwrap();
        assert!(
            outcome.is_err(),
            "tokio says that its runtime is being shut down"
        );
        assert_eq!(recorder.kinds(), [ContextKind::TaskFailed]);
        assert_eq!(pollster::block_on(ex.run_until(async { 2 })), 2);
    });
}

// P1, P2: the host's own panic drops the guest's future while the thread unwinds.
#[test]
fn a_host_that_panics_drops_the_root_and_nothing_is_lost() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let guard = drops.guard("root");
    let task = ex.spawn(async { 3 });
    drop(catch_unwind(AssertUnwindSafe(|| {
        pollster::block_on(async {
            let mut run = pin!(ex.run_until(holding(guard, pending::<()>())));
            poll_fn(|cx| {
                run.as_mut()
                    .poll(cx)
                    .map(drop)
                    .is_pending()
                    .then_some(())
                    .map_or(Poll::Pending, Poll::Ready)
            })
            .await;
            panic_any(Boom("the host's"));
        })
    })));
    drops.assert(&["root"]);
    assert_eq!(ex.block_on(task).unwrap(), 3);
    assert!(recorder.is_empty());
}

// ---------------------------------------------------------------------------------------------------------------------
// Inside tokio, and others with I/O
// ---------------------------------------------------------------------------------------------------------------------

/// Echoes each connection's bytes, on a plain thread.
fn echo_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    stream.write_all(&buffer[..n]).unwrap();
                }
            });
        }
    });
    address
}

// tokio's sockets, timers and pool, used by tasks that are not `Send`.
#[test]
fn tokios_sockets_timers_and_threads_work_in_our_tasks() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    without_hanging(|| {
        let address = echo_server();
        let ex = Executor::new();
        let replies = Rc::new(RefCell::new(Vec::new()));
        let out = Rc::clone(&replies);
        in_tokio(Box::pin(ex.run_until(async move {
            let tasks: Vec<_> = (0..20_u8)
                .map(|n| {
                    let out = Rc::clone(&out);
                    mainstay::spawn_fallible(async move {
                        let mut stream = tokio::net::TcpStream::connect(address).await?;
                        for round in 0..10 {
                            stream.write_all(&[n, round]).await?;
                            let mut reply = [0; 2];
                            stream.read_exact(&mut reply).await?;
                            assert_eq!(reply, [n, round]);
                            if round == 5 {
                                tokio::time::sleep(Duration::from_millis(2)).await;
                            }
                        }
                        let n = tokio::task::spawn_blocking(move || n).await.unwrap();
                        out.borrow_mut().push(n);
                        Ok::<_, std::io::Error>(())
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap().unwrap();
            }
        })));
        replies.borrow_mut().sort_unstable();
        assert!(replies.take().into_iter().eq(0..20));
    });
}

#[test]
fn async_ios_sockets_and_timers_work_in_our_tasks() {
    use futures_lite::{AsyncReadExt, AsyncWriteExt};
    without_hanging(|| {
        let address = echo_server();
        for host in [in_async_io as Host, |future| pollster::block_on(future)] {
            let ex = Executor::new();
            host(Box::pin(ex.run_until(async move {
                let tasks: Vec<_> = (0..20_u8)
                    .map(|n| {
                        mainstay::spawn_fallible(async move {
                            let mut stream =
                                async_io::Async::<std::net::TcpStream>::connect(address).await?;
                            for round in 0..10 {
                                stream.write_all(&[n, round]).await?;
                                let mut reply = [0; 2];
                                stream.read_exact(&mut reply).await?;
                                assert_eq!(reply, [n, round]);
                            }
                            async_io::Timer::after(Duration::from_millis(2)).await;
                            Ok::<_, std::io::Error>(())
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap().unwrap();
                }
            })));
            assert_eq!(counts(&ex).returned, 20);
        }
    });

    fn in_async_io(future: Local<'_>) {
        async_io::block_on(future);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Races
// ---------------------------------------------------------------------------------------------------------------------

/// A host that counts on its waker alone: it polls when, and only when, it was told.
struct Strict {
    told: mpsc::Sender<()>,
    pending: AtomicBool,
}

impl Wake for Strict {
    fn wake(self: Arc<Self>) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            let _ = self.told.send(());
        }
    }
}

fn in_a_strict_host<F: Future>(future: F) -> F::Output {
    let (told, hears) = mpsc::channel();
    let host = Arc::new(Strict {
        told,
        pending: AtomicBool::new(false),
    });
    let mut future = pin!(future);
    loop {
        // A new waker every time, as from a host that moves its task about.
        let waker = Waker::from(Arc::clone(&host));
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        hears.recv().unwrap();
        host.pending.store(false, Ordering::Release);
    }
}

// Threads wake tasks and the root, spawn and cancel, while a host polls only when it is told: none of it is lost.
#[test]
fn nothing_is_lost_by_a_host_that_polls_only_when_told() {
    without_hanging(|| {
        const THREADS: usize = 3;
        const EACH: usize = 400;
        let ex = Executor::new();
        let (sender, receiver) = async_channel::bounded::<usize>(4);
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (spawner, sender) = (ex.spawner(), sender.clone());
                thread::spawn(move || {
                    for n in 0..EACH {
                        match n % 3 {
                            0 => drop(spawner.spawn(|| async { 1 }).unwrap().join().unwrap()),
                            1 => {
                                let parked = spawner.spawn(pending::<()>).unwrap();
                                parked.cancel();
                                assert!(parked.join().unwrap_err().is_cancelled());
                            }
                            _ => sender.send_blocking(n).unwrap(),
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let received = in_a_strict_host(ex.run_until(async {
            let task = mainstay::spawn(async move {
                let mut received = 0;
                while receiver.recv().await.is_ok() {
                    received += 1;
                }
                received
            });
            task.await.unwrap()
        }));
        assert_eq!(received, THREADS * (EACH / 3));
        for worker in workers {
            worker.join().unwrap();
        }
        drop(ex);
    });
}
