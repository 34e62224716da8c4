//! The order of polls, and that nothing which runs for ever keeps anything else from running.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::thread;

use mainstay::{Executor, JoinHandle, LocalHandle, yield_now};

use crate::remote::{elsewhere, without_hanging};
use crate::support::{Event, Trace, yield_n};
use crate::wake::Probe;

/// Pushes `name` and its number at each poll, and wakes itself until it was polled `polls` times.
fn stepping(trace: &Trace, name: &str, polls: usize) -> impl Future<Output = ()> + use<> {
    let (trace, name) = (trace.clone(), name.to_owned());
    let mut step = 0;
    poll_fn(move |cx| {
        step += 1;
        trace.push(format!("{name}{step}"));
        if step == polls {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// A future that wakes itself at each poll, for ever, and counts.
fn restless(polls: &Rc<Cell<usize>>) -> impl Future<Output = ()> + use<> {
    let polls = Rc::clone(polls);
    poll_fn(move |cx| {
        polls.set(polls.get() + 1);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

// ---------------------------------------------------------------------------------------------------------------------
// First in, first out
// ---------------------------------------------------------------------------------------------------------------------

// B028, P9; asyncio tk:test_bare_create_task.
#[test]
fn tasks_start_in_the_order_of_spawning_and_never_inline() {
    let ex = Executor::new();
    let trace = Trace::new();
    for name in ["a", "b", "c"] {
        let trace_in_task = trace.clone();
        ex.spawn(async move { trace_in_task.push(name) }).detach();
        trace.push(format!("spawned {name}"));
    }
    ex.run_until_stalled();
    trace.assert(&["spawned a", "spawned b", "spawned c", "a", "b", "c"]);
}

// B028: the same from within a task; the creator goes on first.
#[test]
fn a_task_that_spawns_goes_on_before_what_it_spawned() {
    let ex = Executor::new();
    let trace = Trace::new();
    let outer = trace.clone();
    ex.spawn(async move {
        for name in ["a", "b", "c"] {
            let trace = outer.clone();
            mainstay::spawn(async move { trace.push(name) }).detach();
        }
        outer.push("spawned");
        yield_now().await;
        outer.push("resumed");
    })
    .detach();
    ex.run_until_stalled();
    // Spawned before it yielded, so they are before it in the queue.
    trace.assert(&["spawned", "a", "b", "c", "resumed"]);
}

// P9: the ready tasks take turns.
#[test]
fn tasks_that_yield_take_turns() {
    let ex = Executor::new();
    let trace = Trace::new();
    ex.spawn(stepping(&trace, "a", 3)).detach();
    ex.spawn(stepping(&trace, "b", 1)).detach();
    ex.spawn(stepping(&trace, "c", 3)).detach();
    ex.run_until_stalled();
    trace.assert(&["a1", "b1", "c1", "a2", "c2", "a3", "c3"]);
}

// P9: a thousand of them, too.
#[test]
fn a_thousand_tasks_keep_their_order_over_many_passes() {
    let ex = Executor::new();
    let order = Rc::new(RefCell::new(Vec::new()));
    for i in 0..1_000 {
        let order = Rc::clone(&order);
        ex.spawn(async move {
            for _ in 0..10 {
                order.borrow_mut().push(i);
                yield_now().await;
            }
        })
        .detach();
    }
    ex.run_until_stalled();
    let expected: Vec<usize> = (0..10).flat_map(|_| 0..1_000).collect();
    assert!(*order.borrow() == expected, "each pass is in spawn order");
}

// P9: wakes of a pass run in the next one, in the order of waking.
#[test]
fn what_a_pass_wakes_runs_in_the_next_in_the_order_of_waking() {
    let ex = Executor::new();
    let trace = Trace::new();
    let events = [Event::new(), Event::new(), Event::new()];
    for (name, event) in ["p", "q", "r"].into_iter().zip(&events) {
        let (trace, event) = (trace.clone(), event.clone());
        ex.spawn(async move {
            event.wait().await;
            trace.push(name);
        })
        .detach();
    }
    ex.run_until_stalled();
    let [p, q, r] = events;
    let first = trace.clone();
    ex.spawn(async move {
        first.push("a");
        r.set();
        yield_now().await;
        first.push("a again");
    })
    .detach();
    let second = trace.clone();
    ex.spawn(async move {
        second.push("b");
        p.set();
        q.set();
    })
    .detach();
    ex.spawn(stepping(&trace, "c", 1)).detach();
    ex.run_until_stalled();
    trace.assert(&["a", "b", "c1", "r", "a again", "p", "q"]);
}

// P9: woken twice, a task keeps the place of its first wake.
#[test]
fn a_second_wake_does_not_move_a_task_in_the_queue() {
    let ex = Executor::new();
    let trace = Trace::new();
    let probes: Vec<Probe> = (0..3).map(|_| Probe::new()).collect();
    for (i, probe) in probes.iter().enumerate() {
        let (body, trace) = (probe.task(), trace.clone());
        ex.spawn(async move {
            body.await;
            trace.push(i.to_string());
        })
        .detach();
    }
    ex.run_until_stalled();
    let waking = probes.clone();
    ex.spawn(async move {
        for i in [2, 0, 1, 2, 1, 0] {
            waking[i].complete();
        }
    })
    .detach();
    ex.run_until_stalled();
    trace.assert(&["2", "0", "1"]);
}

// P9: what is spawned and what is woken share one queue.
#[test]
fn spawned_and_woken_tasks_share_one_queue() {
    let ex = Executor::new();
    let trace = Trace::new();
    let event = Event::new();
    let (waiter, waits) = (trace.clone(), event.clone());
    ex.spawn(async move {
        waits.wait().await;
        waiter.push("woken");
    })
    .detach();
    ex.run_until_stalled();
    let outer = trace.clone();
    ex.spawn(async move {
        let first = outer.clone();
        mainstay::spawn(async move { first.push("spawned first") }).detach();
        event.set();
        mainstay::spawn(async move { outer.push("spawned last") }).detach();
    })
    .detach();
    ex.run_until_stalled();
    trace.assert(&["spawned first", "woken", "spawned last"]);
}

// P9: how a host slices the drive does not change the order.
#[test]
fn the_order_does_not_depend_on_how_the_drive_is_sliced() {
    let mut traces = Vec::new();
    for budget in [1, 2, 3, 7, 1_000] {
        let ex = Executor::new();
        let trace = Trace::new();
        for (name, polls) in [("a", 4), ("b", 2), ("c", 5), ("d", 1)] {
            ex.spawn(stepping(&trace, name, polls)).detach();
        }
        let outer = trace.clone();
        ex.spawn(async move {
            mainstay::spawn(stepping(&outer, "e", 3)).detach();
        })
        .detach();
        while ex.tick(budget).more {}
        assert!(ex.is_empty());
        traces.push((budget, trace.labels()));
    }
    let (_, first) = &traces[0];
    for (budget, trace) in &traces {
        assert_eq!(trace, first, "with a budget of {budget}");
    }
}

// P9: what is spawned between two drives is behind what is ready already.
#[test]
fn what_is_spawned_between_two_drives_is_behind_what_is_ready() {
    let ex = Executor::new();
    let trace = Trace::new();
    ex.spawn(stepping(&trace, "a", 3)).detach();
    ex.spawn(stepping(&trace, "b", 2)).detach();
    assert!(ex.tick(2).more);
    ex.spawn(stepping(&trace, "c", 1)).detach();
    ex.run_until_stalled();
    trace.assert(&["a1", "b1", "a2", "b2", "c1", "a3"]);
}

// tokio task_local_set::local_tasks_wake_join_all (2460).
#[test]
fn a_root_that_awaits_many_handles_gets_them_all_2460() {
    let ex = Executor::new();
    let sum = ex.block_on(async {
        let handles: Vec<JoinHandle<usize>> = (0..128)
            .map(|i| {
                mainstay::spawn(async move {
                    yield_n(i % 5).await;
                    i
                })
            })
            .collect();
        let mut sum = 0;
        for handle in handles {
            sum += handle.await.expect("the task returns");
        }
        sum
    });
    assert_eq!(sum, 128 * 127 / 2);
}

// ---------------------------------------------------------------------------------------------------------------------
// The root
// ---------------------------------------------------------------------------------------------------------------------

// Design section 5: a pass polls the root that was woken, then the tasks; compio gives its root no priority.
#[test]
fn a_root_that_was_woken_is_polled_first_in_each_pass() {
    let ex = Executor::new();
    let trace = Trace::new();
    ex.spawn(stepping(&trace, "a", 3)).detach();
    ex.spawn(stepping(&trace, "b", 3)).detach();
    ex.block_on(stepping(&trace, "root", 4));
    trace.assert(&[
        "root1", "a1", "b1", // the first pass
        "root2", "a2", "b2", // all three woke themselves
        "root3", "a3", "b3",    //
        "root4", // and is done: the pass is not needed any more
    ]);
}

// Design section 5: a root that was not woken is not polled, however long the tasks run.
#[test]
fn a_root_that_was_not_woken_is_not_polled() {
    let ex = Executor::new();
    let root = Probe::new();
    let completes = root.clone();
    ex.spawn(async move {
        yield_n(100).await;
        completes.complete();
    })
    .detach();
    ex.block_on(root.task());
    assert_eq!(root.polls(), 2);
}

// Design section 5, P9: a root that a task woke goes before the tasks of the next pass.
#[test]
fn a_root_woken_in_a_pass_goes_first_in_the_next() {
    let ex = Executor::new();
    let trace = Trace::new();
    let event = Event::new();
    ex.spawn(stepping(&trace, "a", 3)).detach();
    let (setter, sets) = (trace.clone(), event.clone());
    ex.spawn(async move {
        setter.push("set");
        sets.set();
    })
    .detach();
    ex.spawn(stepping(&trace, "b", 3)).detach();
    ex.block_on(async {
        trace.push("root waits");
        event.wait().await;
        trace.push("root goes on");
        yield_now().await;
        trace.push("root ends");
    });
    trace.assert(&[
        "root waits",
        "a1",
        "set",
        "b1", // it does not interrupt the pass
        "root goes on",
        "a2",
        "b2", //
        "root ends",
    ]);
}

// B028, B057: the asyncio idiom `create_task(..)`, then `await sleep(0)`.
#[test]
fn a_root_that_yields_lets_what_it_spawned_start() {
    let ex = Executor::new();
    let trace = Trace::new();
    ex.block_on(async {
        for name in ["a", "b"] {
            let trace = trace.clone();
            mainstay::spawn(async move { trace.push(name) }).detach();
        }
        trace.push("spawned");
        // Reading: the tasks of a pass are those that are ready after its roots were polled.
        yield_now().await;
        trace.push("resumed");
    });
    trace.assert(&["spawned", "a", "b", "resumed"]);
}

// B080: leftovers of one drive go on in the next, in their order.
#[test]
fn leftovers_go_on_in_their_order_in_the_next_drive() {
    let ex = Executor::new();
    let trace = Trace::new();
    ex.spawn(stepping(&trace, "a", 3)).detach();
    ex.spawn(stepping(&trace, "b", 3)).detach();
    ex.block_on(yield_now());
    let first = trace.labels();
    assert_eq!(first, ["a1", "b1"]);
    ex.run_until_stalled();
    trace.assert(&["a1", "b1", "a2", "b2", "a3", "b3"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Fairness
// ---------------------------------------------------------------------------------------------------------------------

// P8; futures local_pool::tasks_are_scheduled_fairly.
#[test]
fn two_tasks_that_wake_themselves_stay_in_step() {
    let ex = Executor::new();
    let steps = Rc::new(RefCell::new([0_i32; 2]));
    for me in 0..2 {
        let steps = Rc::clone(&steps);
        ex.spawn(poll_fn(move |cx| {
            let mut steps = steps.borrow_mut();
            assert!((steps[0] - steps[1]).abs() <= 1, "{steps:?}");
            if steps[me] >= 50 {
                return Poll::Ready(());
            }
            steps[me] += 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }))
        .detach();
    }
    ex.run_until_stalled();
    assert_eq!(*steps.borrow(), [50, 50]);
    assert_eq!(ex.stats().returned, 2, "no assertion failed in a task");
}

// P8: a task that wakes itself for ever starves neither the others nor the root.
#[test]
fn a_task_that_wakes_itself_for_ever_starves_nobody() {
    let ex = Executor::new();
    let hot = Rc::new(Cell::new(0));
    ex.task().background().spawn(restless(&hot)).detach();
    let other = ex.spawn(yield_n(1_000));
    ex.block_on(async {
        other.await.expect("the task returns");
        yield_n(1_000).await;
    });
    // It had its turn in each pass, and no more than that.
    assert!((1_990..=2_010).contains(&hot.get()), "{} polls", hot.get());
}

// P8: a root that wakes itself for ever starves no task.
#[test]
fn a_root_that_wakes_itself_for_ever_starves_no_task() {
    let ex = Executor::new();
    let polls = Rc::new(Cell::new(0));
    let root = restless(&polls);
    let done = ex.spawn(yield_n(100));
    let mut root = Box::pin(root);
    ex.block_on(poll_fn(|cx| {
        if done.is_finished() {
            return Poll::Ready(());
        }
        root.as_mut().poll(cx)
    }));
    assert!(polls.get() <= 110, "{} polls", polls.get());
}

// P8; tokio rt_common::ping_pong_saturation.
#[test]
fn two_tasks_that_wake_each_other_advance_among_many_busy_ones() {
    const BUSY: usize = 100;
    const ROUNDS: usize = 100;
    let ex = Executor::new();
    let busy: Vec<Rc<Cell<usize>>> = (0..BUSY).map(|_| Rc::default()).collect();
    for polls in &busy {
        ex.task().background().spawn(restless(polls)).detach();
    }
    let events: Rc<Vec<Event>> = Rc::new((0..2 * ROUNDS).map(|_| Event::new()).collect());
    let theirs = Rc::clone(&events);
    let ping = ex.spawn(async move {
        for round in 0..ROUNDS {
            theirs[2 * round].set();
            theirs[2 * round + 1].wait().await;
        }
    });
    let pong = ex.spawn(async move {
        for round in 0..ROUNDS {
            events[2 * round].wait().await;
            events[2 * round + 1].set();
        }
    });
    ex.block_on(async {
        ping.await.expect("the task returns");
        pong.await.expect("the task returns");
    });
    // Each round takes two passes, in each of which each busy task is polled once.
    for polls in &busy {
        assert!((100..=2 * ROUNDS + 10).contains(&polls.get()));
    }
}

// P8: a task that spawns its like for ever starves nobody.
#[test]
fn tasks_that_spawn_their_like_for_ever_starve_nobody() {
    fn breed(spawned: Rc<Cell<usize>>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            spawned.set(spawned.get() + 1);
            mainstay::spawn(breed(spawned)).detach();
        })
    }
    let ex = Executor::new();
    let spawned = Rc::new(Cell::new(0));
    ex.spawn(breed(Rc::clone(&spawned))).detach();
    let other = ex.spawn(yield_n(500));
    ex.block_on(async {
        other.await.expect("the task returns");
        yield_n(500).await;
    });
    assert!((990..=1_010).contains(&spawned.get()), "{}", spawned.get());
    assert_eq!(ex.len(), 1, "one is always next");
}

// P8: a done callback that adds itself again for ever starves nobody.
#[test]
fn a_done_callback_that_adds_itself_for_ever_starves_nobody() {
    fn again(handle: Rc<JoinHandle<()>>, calls: Rc<Cell<usize>>, over: Rc<Cell<bool>>) {
        let next = Rc::clone(&handle);
        handle.add_done_callback(move |_| {
            calls.set(calls.get() + 1);
            if !over.get() {
                again(next, calls, over);
            }
        });
    }
    let ex = Executor::new();
    let (calls, over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let finished = Rc::new(ex.spawn(async {}));
    ex.run_until_stalled();
    again(Rc::clone(&finished), Rc::clone(&calls), Rc::clone(&over));
    let other = ex.spawn(yield_n(300));
    ex.block_on(async {
        other.await.expect("the task returns");
        yield_n(300).await;
    });
    // One added to a finished task runs in the next pass, so it is about one for each pass.
    assert!((500..=700).contains(&calls.get()), "{}", calls.get());
    over.set(true);
    ex.run_until_stalled();
    let after = calls.get();
    ex.run_until_stalled();
    assert_eq!(calls.get(), after);
}

// P8: `stop` is heard although tasks and the root wake themselves for ever.
#[test]
fn stop_is_heard_under_load() {
    without_hanging(|| {
        let ex = Executor::new();
        let polls: Vec<Rc<Cell<usize>>> = (0..10).map(|_| Rc::default()).collect();
        for count in &polls {
            ex.task().background().spawn(restless(count)).detach();
        }
        ex.spawn(async {
            yield_n(50).await;
            LocalHandle::current().stop();
        })
        .detach();
        let root = Rc::new(Cell::new(0));
        assert!(ex.try_block_on(restless(&root)).is_err());
        for count in &polls {
            assert_eq!(count.get(), 51, "the pass in which it stopped ends");
        }
        assert!((51..=52).contains(&root.get()));
    });
}

/// A thread that wakes without end, from now on and until this is dropped.
struct Flood {
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flood {
    fn of(waker: &Waker) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicBool::new(false));
        let (waker, stop, begins) = (waker.clone(), Arc::clone(&over), Arc::clone(&begun));
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                waker.wake_by_ref();
                begins.store(true, Ordering::Release);
            }
        });
        while !begun.load(Ordering::Acquire) {
            thread::yield_now();
        }
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the thread ends well");
        }
    }
}

// P8; tokio rt_common::complete_block_on_under_load.
#[test]
fn a_flood_of_wakes_from_a_thread_starves_neither_root_nor_tasks_nor_stop() {
    without_hanging(|| {
        let ex = Executor::new();
        let flooded = Probe::new();
        ex.task().background().spawn(flooded.task()).detach();
        ex.run_until_stalled();
        let flood = Flood::of(&flooded.waker());

        // The root, and another task.
        let other = ex.spawn(yield_n(2_000));
        ex.block_on(async {
            other.await.expect("the task returns");
            yield_n(2_000).await;
        });
        // A wake from a thread that is not of the flood.
        let root = Probe::new();
        let seen = root.clone();
        let thread = thread::spawn(move || {
            while seen.try_waker().is_none() {
                thread::yield_now();
            }
            seen.complete();
        });
        ex.block_on(root.task());
        thread.join().expect("the thread ends well");
        // And `stop`.
        ex.spawn(async {
            yield_n(100).await;
            LocalHandle::current().stop();
        })
        .detach();
        ex.run_forever();
        assert!(flooded.polls() > 1);
        drop(flood);
    });
}

// P8: the same when the flood is for the root itself.
#[test]
fn a_flood_of_wakes_for_the_root_starves_no_task() {
    without_hanging(|| {
        let ex = Executor::new();
        let done = ex.spawn(yield_n(2_000));
        let mut flood = None;
        ex.block_on(poll_fn(|cx| {
            flood.get_or_insert_with(|| Flood::of(cx.waker()));
            if done.is_finished() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        drop(flood);
    });
}

// P8: `tick` and `run_until_stalled` return under a flood: a drain takes what is there when it starts.
#[test]
fn a_tick_ends_under_a_flood_of_wakes() {
    without_hanging(|| {
        let ex = Executor::new();
        let flooded = Probe::new();
        ex.task().background().spawn(flooded.task()).detach();
        ex.run_until_stalled();
        let flood = Flood::of(&flooded.waker());
        for _ in 0..1_000 {
            assert!(ex.tick(16).polls <= 16);
        }
        drop(flood);
    });
}

// P8: a remote wake is noticed within 64 polls, then takes its place in the queue.
#[test]
fn a_remote_wake_is_noticed_within_64_polls() {
    const TASKS: usize = 1_000;
    for at in [0, 9, 500, 930] {
        let ex = Executor::new();
        let order = Rc::new(RefCell::new(Vec::new()));
        let probe = Probe::new();
        let (body, pushes) = (probe.task(), Rc::clone(&order));
        ex.spawn(async move {
            body.await;
            pushes.borrow_mut().push(usize::MAX);
        })
        .detach();
        ex.run_until_stalled();
        for i in 0..TASKS {
            let (order, probe) = (Rc::clone(&order), probe.clone());
            ex.spawn(async move {
                order.borrow_mut().push(i);
                if i == at {
                    elsewhere(|| probe.complete());
                }
                yield_now().await;
                order.borrow_mut().push(i);
            })
            .detach();
        }
        ex.run_until_stalled();
        let order = order.borrow();
        assert_eq!(order.len(), 2 * TASKS + 1);
        let place = order.iter().position(|i| *i == usize::MAX);
        let place = place.expect("the woken task ran");
        // Queued behind those that yielded before it was noticed, so in the second pass, at `at + 1 + 64` at most.
        assert!(
            (TASKS..=TASKS + at + 1 + 64).contains(&place),
            "woken at {at}, polled at {place}"
        );
    }
}

// P8, P9: a busy executor still notices that its root was woken from a thread.
#[test]
fn a_root_woken_from_a_thread_is_polled_in_the_next_pass() {
    let ex = Executor::new();
    let polls = Rc::new(Cell::new(0));
    for _ in 0..200 {
        ex.task().background().spawn(restless(&polls)).detach();
    }
    let mut waiting = false;
    ex.block_on(poll_fn(|cx| {
        if waiting {
            return Poll::Ready(());
        }
        waiting = true;
        let waker = cx.waker().clone();
        elsewhere(move || waker.wake());
        Poll::Pending
    }));
    assert!(polls.get() <= 2 * 200, "{} polls", polls.get());
}

// P8: a long pass of tasks that only end does not keep a woken task waiting for ever, and neither does an empty queue.
#[test]
fn a_wake_between_short_tasks_finds_its_place() {
    let ex = Executor::new();
    let trace = Trace::new();
    let event = Event::new();
    let (waits, pushes) = (event.clone(), trace.clone());
    ex.spawn(async move {
        waits.wait().await;
        pushes.push("woken");
    })
    .detach();
    ex.spawn(pending::<()>()).cancel();
    ex.run_until_stalled();
    for i in 0..3 {
        let (trace, event) = (trace.clone(), event.clone());
        ex.spawn(async move {
            trace.push(format!("short {i}"));
            event.set();
        })
        .detach();
    }
    ex.run_until_stalled();
    trace.assert(&["short 0", "short 1", "short 2", "woken"]);
}
