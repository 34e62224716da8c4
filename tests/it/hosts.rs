//! Loops that are the host of an executor: what they may forget, and what they may get wrong.
//!
//! How `tick`, `Progress` and the hook work is in `driving.rs`; the examples with a real host are run by `tests/hosts.rs`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainstay::{
    ContextKind, Executor, LocalHandle, Supervisor, TaskGroup, current_task, sleep, yield_now,
};

use crate::remote::elsewhere;
use crate::support::{
    DropLog, Recorder, Trace, check_accounting, counts, holding, panic_message, poll_once, quiet,
    yield_n,
};
use crate::wake::Probe;

/// Installs a hook that counts.
fn counting_hook(ex: &Executor<'_>) -> Arc<AtomicUsize> {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    ex.on_wake(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    calls
}

// ---------------------------------------------------------------------------------------------------------------------
// A host that forgets to tick
// ---------------------------------------------------------------------------------------------------------------------

// P1, P8, P9, B125: all that came meanwhile is there at the next tick, in its order, and the hook was called once for all.
#[test]
fn a_host_that_forgets_to_tick_loses_nothing() {
    let ex = Executor::builder().virtual_clock().build();
    let (trace, drops) = (Trace::new(), DropLog::new());
    let probes = [Probe::new(), Probe::new()];
    for probe in &probes {
        ex.spawn(probe.task()).detach();
    }
    let sleeper = trace.clone();
    ex.spawn(async move {
        sleep(Duration::from_secs(1)).await;
        sleeper.push("slept");
    })
    .detach();
    let victim = ex.spawn(holding(drops.guard("victim"), pending::<()>()));
    ex.run_until_stalled();
    let calls = counting_hook(&ex);

    // A day in which the host does nothing.
    for n in 0..3 {
        let trace = trace.clone();
        ex.spawn(async move { trace.push(format!("spawned {n}")) })
            .detach();
    }
    let called = trace.clone();
    ex.call_soon(move || called.push("called"));
    let spawner = ex.spawner();
    elsewhere(|| {
        for _ in 0..1_000 {
            probes.iter().for_each(Probe::wake);
        }
        for _ in 0..10 {
            spawner
                .spawn(|| ready(7))
                .expect("the executor lives")
                .detach();
        }
    });
    let far = victim.cancel_handle();
    assert!(elsewhere(|| far.cancel()));
    ex.advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!(calls.load(Ordering::SeqCst), 1, "coalesced");
    assert_eq!(
        counts(&ex).live,
        4 + 3,
        "what threads send comes in a drive"
    );
    assert_eq!(trace.len(), 0);

    let polls: Vec<usize> = probes.iter().map(Probe::polls).collect();
    while ex.tick(4).more {}
    trace.assert(&["spawned 0", "spawned 1", "spawned 2", "called", "slept"]);
    drops.assert(&["victim"]);
    for (probe, before) in probes.iter().zip(polls) {
        assert_eq!(probe.polls(), before + 1, "one poll for a thousand wakes");
    }
    assert_eq!(counts(&ex).returned, 1 + 3 + 10);
    assert_eq!(counts(&ex).live, 2, "the probes");
    assert_eq!(
        calls.load(Ordering::SeqCst),
        1,
        "`more` has told the rest of it"
    );
    probes.iter().for_each(Probe::complete);
    assert_eq!(calls.load(Ordering::SeqCst), 2, "it is told of what is new");
    ex.run_until_stalled();
    check_accounting(&ex);
}

// Nor is what a drive of another kind leaves behind, now or for later: the hook is called when it has ended.
#[test]
fn the_host_is_told_what_any_drive_leaves() {
    let leaves: [fn(); 2] = [
        || mainstay::spawn(yield_n(10)).detach(),
        || mainstay::spawn(sleep(Duration::from_secs(1_000))).detach(),
    ];
    type Drive = fn(&Executor<'static>, Rc<dyn Fn()>);
    let drives: [Drive; 3] = [
        |ex, leave| {
            ex.block_on(async {
                leave();
                // The sleeper has its first poll.
                yield_n(2).await;
                leave();
            });
        },
        |ex, leave| {
            let stopped = ex.try_block_on(async {
                leave();
                yield_n(2).await;
                LocalHandle::current().stop();
                leave();
                pending::<()>().await;
            });
            assert!(stopped.is_err());
        },
        |ex, leave| {
            ex.spawn(async move {
                leave();
                yield_n(2).await;
                leave();
                LocalHandle::current().stop();
            })
            .detach();
            ex.run_forever();
        },
    ];
    for (which, leave) in leaves.into_iter().enumerate() {
        for (number, drive) in drives.into_iter().enumerate() {
            let ex = Executor::new();
            let calls = counting_hook(&ex);
            let count = Arc::clone(&calls);
            let leave = move || {
                leave();
                count.store(0, Ordering::SeqCst);
            };
            drive(&ex, Rc::new(leave));
            let told = calls.load(Ordering::SeqCst);
            assert!(told > 0, "{number} leaves {which}");
        }
    }
}

// Nor what is done between two drives that has something left to do: a stop, and the end of a group whose tasks have callbacks.
#[test]
fn the_host_is_told_of_ends_between_drives() {
    quiet();
    let ex = Executor::builder().virtual_clock().build();
    let calls = counting_hook(&ex);
    ex.handle().stop_with(Box::new(7));
    assert_eq!(calls.load(Ordering::SeqCst), 1, "a payload to unwind with");
    assert!(catch_unwind(AssertUnwindSafe(|| ex.run_until_stalled())).is_err());

    let called = Rc::new(Cell::new(false));
    let done = Rc::clone(&called);
    let mut scope = Box::pin(TaskGroup::scope(async |group| {
        let task = group.spawn(pending::<()>());
        task.add_done_callback(move |_| done.set(true));
        pending::<()>().await;
    }));
    ex.block_on(async { assert!(poll_once(&mut scope).is_pending()) });
    ex.run_until_stalled();
    let before = calls.load(Ordering::SeqCst);
    drop(scope);
    assert_eq!(calls.load(Ordering::SeqCst), before + 1, "a callback");
    assert!(!called.get());
    ex.run_until_stalled();
    assert!(called.get());
}

// P2: one that never ticks at all is told what it has not run.
#[test]
fn a_host_that_never_ticks_is_told_at_the_end() {
    let ex = Executor::new();
    let (recorder, drops) = (Recorder::on(&ex), DropLog::new());
    let calls = counting_hook(&ex);
    for name in ["a", "b"] {
        let task = ex.task().name(name);
        task.spawn(holding(drops.guard(name), ready(()))).detach();
    }
    drop(ex);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    drops.assert(&["a", "b"]);
    assert_eq!(recorder.tasks(), ["a", "b"]);
    assert!(
        recorder
            .kinds()
            .iter()
            .all(|kind| *kind == ContextKind::DestroyedPending)
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// tick(0)
// ---------------------------------------------------------------------------------------------------------------------

// api.md on Progress: a tick without budget polls nothing, but looks: at threads, at the clock, and at when to come again.
#[test]
fn a_tick_without_budget_looks_all_the_same() {
    let ex = Executor::builder().virtual_clock().build();
    let probe = Probe::new();
    ex.spawn(probe.task()).detach();
    ex.run_until_stalled();
    let calls = counting_hook(&ex);

    let idle = ex.tick(0);
    assert_eq!(
        (idle.polls, idle.more, idle.next_deadline),
        (0, false, None)
    );

    elsewhere(|| probe.wake());
    for round in 1..=3 {
        let woken = ex.tick(0);
        assert_eq!((woken.polls, woken.more), (0, true), "round {round}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    elsewhere(|| probe.complete());
    while ex.tick(1).more {}
    assert!(ex.is_empty(), "the wakes are still there");

    let deadline = ex.now() + Duration::from_secs(1);
    ex.spawn(async { sleep(Duration::from_secs(1)).await })
        .detach();
    while ex.tick(1).more {}
    let armed = ex.tick(0);
    assert_eq!((armed.more, armed.next_deadline), (false, Some(deadline)));
    ex.advance(Duration::from_secs(1));
    let due = ex.tick(0);
    assert_eq!((due.polls, due.more), (0, true));
    assert_eq!(ex.len(), 1);
    while ex.tick(1).more {}
    assert!(ex.is_empty());
}

// ---------------------------------------------------------------------------------------------------------------------
// The hook
// ---------------------------------------------------------------------------------------------------------------------

// P3: whoever wakes from elsewhere sees nothing of it, no wake is lost, and each of its panics is told once.
#[test]
fn a_hook_that_panics_on_other_threads_is_told_at_home_and_costs_no_wake() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let probe = Probe::new();
    ex.spawn(probe.task()).detach();
    ex.run_until_stalled();
    ex.on_wake(|| panic!("boom in the hook"));
    for round in 1..=3 {
        let polls = probe.polls();
        elsewhere(|| {
            probe.wake();
            probe.wake();
        });
        assert_eq!(recorder.len(), round - 1, "not on that thread");
        ex.run_until_stalled();
        assert_eq!(probe.polls(), polls + 1);
        assert_eq!(recorder.len(), round, "one call, one panic, one report");
    }
    assert!(recorder.kinds().iter().all(|k| *k == ContextKind::Callback));

    // A later hook is as good as new.
    let calls = counting_hook(&ex);
    elsewhere(|| probe.complete());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    ex.run_until_stalled();
    assert!(ex.is_empty());
    assert_eq!(recorder.len(), 3);
}

thread_local! {
    /// What a hook finds, which is `Send` and so cannot hold it.
    static HOOKED: RefCell<Weak<Executor<'static>>> = const { RefCell::new(Weak::new()) };
}

// P6: api.md forbids a hook to tick; one that does so at home breaks nothing, and what it was called for runs then.
#[test]
fn a_hook_that_ticks_at_home_breaks_nothing() {
    let ex = Rc::new(Executor::<'static>::new());
    HOOKED.set(Rc::downgrade(&ex));
    let ticks = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ticks);
    ex.on_wake(move || {
        let ex = HOOKED
            .with_borrow(Weak::upgrade)
            .expect("the test holds it");
        assert!(!ex.is_running());
        ex.tick(10);
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let probe = Probe::new();
    let first = ex.spawn(probe.task());
    let mut second = ex.spawn(ready(7));
    probe.complete();
    while ex.tick(10).more {}
    assert!(ticks.load(Ordering::SeqCst) >= 1);
    assert!(first.is_finished());
    assert_eq!(
        second.result().expect("it has ended").expect("it returns"),
        7
    );
    check_accounting(&ex);
}

// ---------------------------------------------------------------------------------------------------------------------
// Re-entry through the host
// ---------------------------------------------------------------------------------------------------------------------

/// A host with callbacks, which our own tasks may call: they emit signals, or open dialogs that run the loop in a loop.
#[derive(Default)]
struct Host {
    queue: RefCell<VecDeque<Box<dyn FnOnce()>>>,
}

impl Host {
    fn post(&self, event: impl FnOnce() + 'static) {
        self.queue.borrow_mut().push_back(Box::new(event));
    }

    /// Calls back for all that is in the queue.
    fn iterate(&self) {
        loop {
            let Some(event) = self.queue.borrow_mut().pop_front() else {
                return;
            };
            event();
        }
    }
}

// B070: a task runs the host's loop inside of the host's loop, as a modal dialog does, and a turn comes up in there.
#[test]
fn a_turn_in_a_nested_host_loop_gets_a_clear_answer_and_costs_nothing() {
    let (ex, host) = (
        Rc::new(Executor::<'static>::new()),
        Rc::new(Host::default()),
    );
    let recorder = Recorder::on(&ex);
    let messages = Rc::new(RefCell::new(Vec::new()));
    let trace = Trace::new();
    let probe = Probe::new();
    ex.spawn(probe.task()).detach();
    ex.run_until_stalled();
    let calls = counting_hook(&ex);

    let (weak, outer, said) = (Rc::downgrade(&ex), Rc::clone(&host), Rc::clone(&messages));
    let (dialog, done) = (trace.clone(), probe.clone());
    ex.task()
        .name("dialog")
        .spawn(async move {
            let ex = weak.upgrade().expect("the test holds it");
            let (turn, callback) = (Rc::clone(&ex), dialog.clone());
            outer.post(move || {
                // A callback of the host's: it knows nothing of the task below it on the stack.
                assert!(turn.is_running(), "what a careful host asks");
                said.borrow_mut().push(panic_message(|| turn.tick(10)));
                said.borrow_mut()
                    .push(panic_message(|| turn.run_until_stalled()));
                said.borrow_mut()
                    .push(panic_message(|| turn.block_on(async {})));
                // What it may do: spawn, wake, look.
                turn.spawn(async move { callback.push("spawned by the callback") })
                    .detach();
                done.complete();
                assert_eq!(current_task().expect("the dialog").name(), "dialog");
            });
            outer.iterate();
            dialog.push("dialog closed");
            yield_now().await;
            dialog.push("dialog's task goes on");
        })
        .detach();
    let bystander = ex.spawn(yield_n(2));

    let turn = Rc::clone(&ex);
    host.post(move || while turn.tick(10).more {});
    host.iterate();
    for message in messages.borrow().iter() {
        assert!(message.contains("being driven already"), "{message}");
        assert!(message.contains("await there instead"), "{message}");
    }
    let messages = messages.borrow();
    let named = ["`tick`", "`run_until_stalled`", "`block_on`"];
    assert_eq!(messages.len(), named.len());
    assert!(messages.iter().zip(named).all(|(m, name)| m.contains(name)));
    trace.assert(&[
        "dialog closed",
        "spawned by the callback",
        "dialog's task goes on",
    ]);
    assert!(bystander.is_finished());
    assert!(ex.is_empty(), "the probe's wake came through");
    assert!(!ex.is_running());
    assert!(recorder.is_empty(), "the host has caught the panics");
    assert_eq!(
        calls.load(Ordering::SeqCst),
        1,
        "for the spawns before; the drive saw the others itself"
    );
    check_accounting(&ex);
}

// B070, P3: a host that catches nothing: the panic is that of the task that called it.
#[test]
fn a_turn_that_a_task_causes_through_the_host_fails_that_task_only() {
    let (ex, host) = (
        Rc::new(Executor::<'static>::new()),
        Rc::new(Host::default()),
    );
    let recorder = Recorder::on(&ex);
    let (turn, inner) = (Rc::downgrade(&ex), Rc::clone(&host));
    ex.task()
        .name("emitter")
        .spawn(async move {
            inner.post(move || {
                turn.upgrade().expect("the test holds it").tick(1);
            });
            inner.iterate();
        })
        .detach();
    let bystander = ex.spawn(yield_n(2));
    while ex.tick(1).more {}
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::TaskFailed);
    assert_eq!(report.task.as_deref(), Some("emitter"));
    let said = report.exception.expect("the panic");
    assert!(said.contains("being driven already"), "{said}");
    assert!(bystander.is_finished());
    assert_eq!(ex.block_on(ready(7)), 7);
    // The host's queue was not left borrowed, or half emptied.
    let ran = Rc::new(Cell::new(false));
    let flag = Rc::clone(&ran);
    host.post(move || flag.set(true));
    host.iterate();
    assert!(ran.get());
}

// ---------------------------------------------------------------------------------------------------------------------
// A host that outlives its executor
// ---------------------------------------------------------------------------------------------------------------------

// P1, P2: a callback that comes too late has its future dropped at once and unpolled, and a handle that says so.
#[test]
fn a_callback_that_outlives_the_executor_spawns_into_nothing_and_is_told_so() {
    let ex = Executor::<'static>::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let (handle, window): (LocalHandle<'static>, Supervisor) =
        (ex.handle(), Supervisor::new_in(&ex.handle()));
    let calls = counting_hook(&ex);
    drop(ex);

    let body = |name: &str| holding(drops.guard(name), async { panic!("never polled") });
    let late = [
        handle.spawn(body("through a handle")),
        handle.task().name("late").spawn(body("with a name")),
        window.spawn(body("into a supervisor")),
    ];
    drops.assert(&["through a handle", "with a name", "into a supervisor"]);
    let fallible = handle.spawn_fallible(ready(Err::<(), _>("never looked at")));
    assert!(fallible.is_finished() && fallible.is_cancelled());
    assert_eq!(calls.load(Ordering::SeqCst), 0, "nobody is to tick");
    assert!(window.is_empty() && handle.tasks().is_empty());

    // Awaited anywhere, they read as cancelled.
    let elsewhere = Executor::new();
    for handle in late {
        assert!(handle.is_finished());
        let error = elsewhere.block_on(handle).expect_err("it never ran");
        assert!(error.is_cancelled());
        assert!(!error.to_string().is_empty());
    }
    assert!(
        recorder.is_empty(),
        "a refusal is no failure: the handle says it"
    );
}
