//! Hooks: who is told of every task, on its way from the spawn to the end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::thread;
use std::time::Duration;

use mainstay::{
    Builder, CancelHandle, Completion, ContextKind, Executor, JoinHandle, LocalHandle, Outcome,
    ReportPolicy, TaskGroup, TaskId, TaskInfo, TaskState, yield_now,
};

use crate::support::{
    DropLog, Event, Fault, LogCapture, Recorder, Trace, check_accounting, check_stats, counts,
    holding, on_drop, quiet, yield_n,
};

// ---------------------------------------------------------------------------------------------------------------------
// What they are told, and when
// ---------------------------------------------------------------------------------------------------------------------

fn end_in_words(completion: &Completion<'_>) -> String {
    let task = completion.task().name();
    match completion.outcome() {
        Outcome::Returned => format!("{task} returned"),
        Outcome::Failed(exception) => format!("{task} failed: {}", exception.message()),
        Outcome::Cancelled => format!("{task} cancelled"),
        other => format!("{task} {other:?}"),
    }
}

/// Settings with a hook of every kind, each of which enters what it is told.
fn traced(trace: &Trace) -> Builder<'static> {
    let [spawn, before, after, done] = [(); 4].map(|()| trace.clone());
    Executor::builder()
        .on_task_spawn(move |task| spawn.push(format!("spawn {}", task.name())))
        .before_poll(move |task| before.push(format!("before {}", task.name())))
        .after_poll(move |task| after.push(format!("after {}", task.name())))
        .on_task_done(move |completion| done.push(end_in_words(completion)))
}

/// B126.
#[test]
fn hooks_are_told_of_a_task_from_its_spawn_to_its_end() {
    let trace = Trace::new();
    let ex = traced(&trace).build();
    let inside = trace.clone();
    let handle = ex.task().name("a").spawn(async move {
        inside.push("first poll");
        yield_now().await;
        inside.push("second poll");
    });
    let callback = trace.clone();
    handle.add_done_callback(move |_| callback.push("its callback"));
    trace.assert(&["spawn a"]);
    ex.block_on(handle).expect("it returns");
    trace.assert(&[
        "before a",
        "first poll",
        "after a",
        "before a",
        "second poll",
        "after a",
        // As its done callbacks, and before those.
        "a returned",
        "its callback",
    ]);
}

/// B126: a task that ends in a poll has been counted when `after_poll` is called, and is told of after that.
#[test]
fn the_end_of_a_task_is_counted_before_and_told_after_the_hook() {
    quiet();
    let trace = Trace::new();
    let ex = Rc::new_cyclic(|weak: &Weak<Executor<'static>>| {
        let (weak, after) = (weak.clone(), trace.clone());
        traced(&trace)
            .after_poll(move |_| {
                let ex = weak.upgrade().expect("it is driven");
                after.push(format!("{} live", check_stats(&ex.stats()).live));
            })
            .build()
    });
    let handler = trace.clone();
    ex.set_exception_handler(move |_, context| handler.push(context.message()));
    ex.task().name("a").spawn(async { panic!("boom") }).detach();
    ex.run_until_stalled();
    trace.assert(&[
        "spawn a",
        "before a",
        "after a",
        "0 live",
        "Task panicked",
        "a failed: boom",
    ]);
}

/// B126: each kind of end reaches the hook, in this order, before the task's own callbacks.
#[test]
fn every_end_is_told_once() {
    quiet();
    let trace = Trace::new();
    let ends = trace.clone();
    let ex = Executor::builder()
        .on_task_done(move |completion| ends.push(end_in_words(completion)))
        .build();
    let recorder = Recorder::on(&ex);
    ex.task().name("value").spawn(async { 7 }).detach();
    let named = |name| ex.task().name(name);
    named("panic").spawn(async { panic!("boom") }).detach();
    named("error")
        .spawn_fallible(async { Err::<(), _>(Fault("no such file")) })
        .detach();
    let cancelled = named("cancelled").spawn(pending::<()>());
    let own: Rc<RefCell<Option<CancelHandle>>> = Rc::default();
    let cancel = Rc::clone(&own);
    let itself = named("itself").spawn(async move {
        assert!(cancel.take().expect("set below").cancel());
        pending::<()>().await;
    });
    *own.borrow_mut() = Some(itself.cancel_handle());
    let background = named("background").background();
    background.spawn(async {}).detach();
    named("destroyed").spawn(pending::<()>()).detach();
    cancelled.cancel();
    ex.run_until_stalled();
    // What was cancelled between drives goes first.
    trace.assert(&[
        "cancelled cancelled",
        "value returned",
        "panic failed: boom",
        "error failed: no such file",
        "itself cancelled",
        "background returned",
    ]);
    check_accounting(&ex);
    assert_eq!(recorder.len(), 2);
    drop(ex);
    trace.assert(&["destroyed cancelled"]);
}

/// However many callbacks are called after it, one a tick or late, a done hook is told of a task once; and it need not have
/// other hooks beside it to be told.
#[test]
fn a_done_hook_is_told_once_whatever_is_called_after() {
    quiet();
    let told = Trace::new();
    let tell = told.clone();
    let ex = Executor::builder()
        .on_task_done(move |completion| tell.push(end_in_words(completion)))
        .build();
    let (trace, _recorder) = (Trace::new(), Recorder::on(&ex));
    ex.block_on(async {
        mainstay::spawn(async {}).detach();
        yield_n(2).await;
    });
    assert_eq!(told.len(), 1, "the plainest of tasks");
    told.clear();
    let returns = ex.task().name("a").spawn(async {});
    let fails = ex.task().name("b").spawn(async { panic!("boom") });
    let ends = ex.task().name("c").spawn(pending::<()>());
    for handle in [&returns, &fails, &ends] {
        for _ in 0..3 {
            let calls = trace.clone();
            handle.add_done_callback(move |_| calls.push("called"));
        }
    }
    ex.tick(3);
    ends.cancel();
    while ex.tick(1).more {}
    assert_eq!(trace.len(), 9);
    // What is cancelled has ended, the rest ends with its callbacks.
    told.assert(&["a returned", "c cancelled", "b failed: boom"]);
    for handle in [returns, fails, ends] {
        let calls = trace.clone();
        handle.add_done_callback(move |_| calls.push("called late"));
        ex.run_until_stalled();
    }
    assert_eq!(trace.len(), 12);
    told.assert(&[]);
}

/// Hooks of one kind are called in the order of adding.
#[test]
fn several_hooks_of_one_kind_are_called_in_order() {
    let trace = Trace::new();
    let mut builder = Executor::builder();
    for n in 1..=3 {
        let [a, b, c, d] = [(); 4].map(|()| trace.clone());
        builder = builder
            .on_task_spawn(move |_| a.push(format!("spawn {n}")))
            .before_poll(move |_| b.push(format!("before {n}")))
            .after_poll(move |_| c.push(format!("after {n}")))
            .on_task_done(move |_| d.push(format!("done {n}")));
    }
    let ex = builder.build();
    ex.spawn(async {}).detach();
    ex.run_until_stalled();
    trace.assert(&[
        "spawn 1", "spawn 2", "spawn 3", "before 1", "before 2", "before 3", "after 1", "after 2",
        "after 3", "done 1", "done 2", "done 3",
    ]);
}

/// Every way of spawning is told, with the name and the place of the spawn; `tk:test_task_source_traceback`.
#[test]
fn every_spawn_is_told_with_its_name_and_place() {
    let seen: Rc<RefCell<Vec<TaskInfo>>> = Rc::default();
    let tells = Rc::clone(&seen);
    let ex = Executor::builder()
        .on_task_spawn(move |task| tells.borrow_mut().push(task.clone()))
        .build();
    let here = line!();
    ex.spawn(async {}).detach();
    ex.spawn_fallible(async { Ok::<(), Fault>(()) }).detach();
    ex.task().name("named").spawn(async {}).detach();
    ex.handle().spawn(async {}).detach();
    ex.handle().task().background().spawn(async {}).detach();
    let outside = seen.borrow().len();
    ex.spawn(async {
        mainstay::spawn(async {}).detach();
        mainstay::spawn_fallible(async { Ok::<(), Fault>(()) }).detach();
        drop(on_drop(|| mainstay::spawn(async {}).detach()));
    })
    .detach();
    ex.run_until_stalled();
    let seen = seen.borrow();
    let lines: Vec<_> = seen.iter().map(|task| task.location().line()).collect();
    assert_eq!(
        lines[..5],
        [here + 1, here + 2, here + 3, here + 4, here + 5]
    );
    assert_eq!((outside, seen.len()), (5, 9));
    assert!(
        seen.iter()
            .all(|task| task.location().file().ends_with("hooks.rs"))
    );
    assert!(seen.iter().all(|task| task.state() == TaskState::Ready));
    assert_eq!(seen[2].name(), "named");
    assert_eq!(seen.len() as u64, counts(&ex).spawned);
}

/// Tasks from other threads, also those that are cancelled before they begin, and members of groups are tasks like others.
#[test]
fn tasks_from_elsewhere_and_members_of_groups_are_told() {
    let trace = Trace::new();
    let ex = traced(&trace).build();
    let spawner = ex.spawner();
    let (kept, cancelled) = thread::spawn(move || {
        let kept = spawner.spawn(|| async { 7 }).expect("it is there");
        let cancelled = spawner.spawn(pending::<()>).expect("it is there");
        cancelled.cancel();
        (kept, cancelled)
    })
    .join()
    .expect("the thread ends well");
    trace.assert(&[]);
    let (a, b) = (
        format!("Task-{}", kept.id()),
        format!("Task-{}", cancelled.id()),
    );
    assert_eq!(ex.block_on(kept).expect("it returns"), 7);
    assert!(
        ex.block_on(cancelled)
            .is_err_and(|error| error.is_cancelled())
    );
    let labels = trace.labels();
    for label in [
        format!("spawn {a}"),
        format!("{a} returned"),
        format!("spawn {b}"),
    ] {
        assert!(labels.contains(&label), "{label} in {labels:?}");
    }
    assert_eq!(
        labels
            .iter()
            .filter(|l| **l == format!("{b} cancelled"))
            .count(),
        1
    );
    assert!(!labels.contains(&format!("before {b}")), "{labels:?}");
    trace.clear();
    let result = ex.block_on(TaskGroup::scope(async |group: &TaskGroup| {
        group.task().name("member").spawn(async {}).detach();
    }));
    assert!(result.is_ok());
    trace.assert(&[
        "spawn member",
        "before member",
        "after member",
        "member returned",
    ]);
    check_accounting(&ex);
}

/// The states that a task is seen in.
#[test]
fn hooks_see_the_state_of_the_task() {
    let seen: Rc<RefCell<Vec<(&str, TaskState)>>> = Rc::default();
    let [before, after] = [(); 2].map(|()| Rc::clone(&seen));
    let ex = Executor::builder()
        .before_poll(move |task| before.borrow_mut().push(("before", task.state())))
        .after_poll(move |task| after.borrow_mut().push(("after", task.state())))
        .build();
    let event = Event::new();
    let waits = event.clone();
    ex.spawn(async move {
        yield_now().await;
        waits.wait().await;
    })
    .detach();
    ex.run_until_stalled();
    event.set();
    ex.run_until_stalled();
    assert_eq!(
        *seen.borrow(),
        [
            ("before", TaskState::Running),
            ("after", TaskState::Ready),
            ("before", TaskState::Running),
            ("after", TaskState::Waiting),
            ("before", TaskState::Running),
            ("after", TaskState::Running),
        ]
    );
}

/// Callbacks and the root are no tasks.
#[test]
fn callbacks_and_the_root_are_not_told() {
    let trace = Trace::new();
    let ex = traced(&trace).virtual_clock().build();
    let calls = Rc::new(Cell::new(0));
    let count = || {
        let calls = Rc::clone(&calls);
        move || calls.set(calls.get() + 1)
    };
    ex.call_soon(count());
    ex.call_later(Duration::from_secs(1), count());
    let (thrown, counted) = (count(), Rc::clone(&calls));
    ex.call_soon(move || {
        thrown();
        LocalHandle::current().call_soon(move || counted.set(counted.get() + 1));
    });
    ex.block_on(async { mainstay::sleep(Duration::from_secs(2)).await });
    assert_eq!(calls.get(), 4);
    trace.assert(&[]);
}

/// Hooks are no callbacks in the eyes of a budget.
#[test]
fn hooks_take_nothing_from_the_budget_of_a_tick() {
    let trace = Trace::new();
    let ex = traced(&trace).build();
    ex.task().name("a").spawn(async {}).detach();
    let progress = ex.tick(1);
    assert_eq!((progress.polls, progress.more), (1, false));
    trace.assert(&["spawn a", "before a", "after a", "a returned"]);
}

/// The hooks of one executor hear nothing of another, also when its tasks drive that one.
#[test]
fn each_executor_has_its_own_hooks() {
    let (outer_trace, inner_trace) = (Trace::new(), Trace::new());
    let outer = traced(&outer_trace).build();
    let inner = traced(&inner_trace).build();
    outer
        .task()
        .name("outer")
        .spawn(async move {
            let handle = inner.task().name("inner").spawn(async {});
            inner.block_on(handle).expect("it returns");
            mainstay::spawn(async {}).detach();
        })
        .detach();
    outer.tick(1);
    inner_trace.assert(&[
        "spawn inner",
        "before inner",
        "after inner",
        "inner returned",
    ]);
    let labels = outer_trace.labels();
    assert_eq!(labels[..2], ["spawn outer", "before outer"]);
    assert!(labels[2].starts_with("spawn Task-") && labels[3] == "after outer");
}

/// B004, api.md: for a hook to ask how a task failed is retrieving the failure, as for a done callback.
#[test]
fn a_done_hook_that_looks_at_a_failure_retrieves_it() {
    quiet();
    for looks in [false, true] {
        let ex = Executor::builder()
            .report(ReportPolicy::IfUnretrieved)
            .on_task_done(move |completion| {
                // Looking through Debug is not retrieving.
                assert!(format!("{completion:?}").contains("boom"));
                if looks {
                    assert!(matches!(completion.outcome(), Outcome::Failed(_)));
                }
            })
            .build();
        let recorder = Recorder::on(&ex);
        ex.spawn(async { panic!("boom") }).detach();
        ex.run_until_stalled();
        let counts = counts(&ex);
        assert_eq!(
            (counts.retrieved, counts.reported),
            (u64::from(looks), u64::from(!looks))
        );
        assert_eq!(recorder.len(), usize::from(!looks));
    }
}

/// The outcome is still there to be taken, whatever hooks look on.
#[test]
fn hooks_leave_the_outcome_alone() {
    let ex = traced(&Trace::new()).build();
    let value = ex.block_on(async {
        let text = mainstay::spawn(async { String::from("kept") });
        yield_n(3).await;
        assert!(text.is_finished());
        text.await
    });
    assert_eq!(value.expect("it returned"), "kept");
    assert!(ex.is_empty());
}

// ---------------------------------------------------------------------------------------------------------------------
// Balance
// ---------------------------------------------------------------------------------------------------------------------

/// B126: to each `before_poll` there is one `after_poll`, also when the poll panics or the task cancels itself.
#[test]
fn before_and_after_are_balanced_when_a_poll_panics() {
    quiet();
    let trace = Trace::new();
    let ex = traced(&trace).build();
    Recorder::on(&ex);
    let drops = DropLog::new();
    let guard = drops.guard("future").panics("boom in a destructor");
    ex.task().name("a").spawn(async { panic!("boom") }).detach();
    ex.task().name("b").spawn(holding(guard, async {})).detach();
    ex.run_until_stalled();
    trace.assert(&[
        "spawn a",
        "spawn b",
        "before a",
        "after a",
        "a failed: boom",
        "before b",
        "after b",
        "b failed: boom in a destructor",
    ]);
}

/// A hook may cancel the task that it is told of: before the poll it is too late for that poll.
#[test]
fn a_hook_may_cancel_the_task_it_is_told_of() {
    for place in ["before", "after", "done"] {
        let handles: Rc<RefCell<HashMap<String, JoinHandle<()>>>> = Rc::default();
        let trace = Trace::new();
        let act = |at: &'static str| {
            let handles = Rc::clone(&handles);
            move |name: &str| {
                if at == place {
                    if let Some(handle) = handles.borrow().get(name) {
                        assert_eq!(handle.cancel(), at != "done");
                    }
                }
            }
        };
        let (before, after, done) = (act("before"), act("after"), act("done"));
        let ex = traced(&trace)
            .before_poll(move |task| before(task.name()))
            .after_poll(move |task| after(task.name()))
            .on_task_done(move |completion| done(completion.task().name()))
            .build();
        let handle = ex.task().name("a").spawn(yield_n(1));
        handles.borrow_mut().insert("a".to_owned(), handle);
        ex.run_until_stalled();
        let once = ["spawn a", "before a", "after a", "a cancelled"];
        match place {
            "done" => trace.assert(&[
                "spawn a",
                "before a",
                "after a",
                "before a",
                "after a",
                "a returned",
            ]),
            _ => trace.assert(&once),
        }
        check_accounting(&ex);
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }
}

/// What random programs share.
#[derive(Clone)]
struct Program {
    random: Rc<RefCell<Random>>,
    handles: Rc<RefCell<Vec<JoinHandle<()>>>>,
    left: Rc<Cell<u32>>,
}

impl Program {
    fn below(&self, n: u64) -> u64 {
        self.random.borrow_mut().below(n)
    }

    fn spawn(&self) {
        if self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            let handle = mainstay::spawn(self.clone().task());
            if self.below(2) == 0 {
                self.handles.borrow_mut().push(handle);
            }
        }
    }

    fn some_handle(&self) -> Option<JoinHandle<()>> {
        let mut handles = self.handles.borrow_mut();
        let n = handles.len() as u64;
        (n > 0).then(|| self.below(n)).map(|at| {
            let at = usize::try_from(at).expect("small");
            handles.swap_remove(at)
        })
    }

    /// One thing that anybody may do.
    fn act(&self) {
        match self.below(6) {
            0 | 1 => self.spawn(),
            2 => {
                if let Some(handle) = self.some_handle() {
                    handle.cancel();
                    self.handles.borrow_mut().push(handle);
                }
            }
            3 => drop(self.some_handle()),
            _ => {}
        }
    }

    fn task(self) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let acts = self.clone();
            let _last = on_drop(move || acts.act());
            for _ in 0..self.below(4) {
                self.act();
                match self.below(8) {
                    0 => panic!("boom in a random task"),
                    1 => {
                        if let Some(handle) = self.some_handle() {
                            // Two may wait for each other: the end of the executor ends both.
                            drop(handle.await);
                        }
                    }
                    _ => yield_now().await,
                }
            }
        })
    }
}

/// B126, P2: under random programs, in which hooks take part, every hook is told of everything, exactly once.
#[test]
fn hooks_are_balanced_under_random_programs() {
    quiet();
    for seed in 0..300 {
        let program = Program {
            random: Rc::new(RefCell::new(Random(seed))),
            handles: Rc::default(),
            left: Rc::new(Cell::new(60)),
        };
        let polled: Rc<Cell<Option<TaskId>>> = Rc::default();
        let spawned: Rc<RefCell<Vec<TaskId>>> = Rc::default();
        let done: Rc<RefCell<Vec<TaskId>>> = Rc::default();
        let polls: Rc<Cell<u64>> = Rc::default();
        let acts = |n: u64| {
            let program = program.clone();
            move || {
                if program.below(n) == 0 && LocalHandle::try_current().is_some() {
                    program.act();
                }
            }
        };
        let (act1, act2, act3, act4) = (acts(5), acts(5), acts(5), acts(5));
        let (on_spawn, on_done) = (Rc::clone(&spawned), Rc::clone(&done));
        let (begins, ends, count) = (Rc::clone(&polled), Rc::clone(&polled), Rc::clone(&polls));
        let ex = Executor::builder()
            .debug(seed % 2 == 0)
            .slow_poll_threshold(Duration::MAX)
            .shuffle(seed)
            // The first notes, the second acts: so that the first hears of what the second spawns.
            .on_task_spawn(move |task| on_spawn.borrow_mut().push(task.id()))
            .on_task_spawn(move |_| act1())
            .before_poll(move |task| assert_eq!(begins.replace(Some(task.id())), None))
            .before_poll(move |_| act2())
            .after_poll(move |task| {
                assert_eq!(ends.take(), Some(task.id()));
                count.set(count.get() + 1);
            })
            .after_poll(move |_| act3())
            .on_task_done(move |completion| on_done.borrow_mut().push(completion.task().id()))
            .on_task_done(move |_| act4())
            .build();
        let recorder = Recorder::on(&ex);
        ex.block_on(async {
            for _ in 0..10 {
                program.spawn();
            }
            yield_n(40).await;
        });
        assert_eq!(polls.get(), ex.stats().polls, "seed {seed}");
        assert_eq!(spawned.borrow().len() as u64, ex.stats().spawned);
        let live = ex.tasks().len();
        assert_eq!(spawned.borrow().len() - done.borrow().len(), live);
        drop(ex);
        assert_eq!(polled.get(), None);
        let mut done = done.take();
        done.sort_unstable();
        let mut spawned = spawned.take();
        spawned.sort_unstable();
        assert_eq!(
            spawned, done,
            "seed {seed}: each is told once at either end"
        );
        // A hook's assertion that fails would be contained and reported.
        assert!(
            !recorder.kinds().contains(&ContextKind::Callback),
            "seed {seed}"
        );
        drop(program.handles.take());
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Hostile ones
// ---------------------------------------------------------------------------------------------------------------------

/// B126, `in:test_instruments_crash`: a hook that panics is reported once and removed; the others go on, and so do the tasks.
#[test]
fn a_panicking_hook_is_reported_once_and_removed() {
    quiet();
    for kind in ["on_task_spawn", "before_poll", "after_poll", "on_task_done"] {
        let trace = Trace::new();
        let first = traced(&trace);
        let bad = match kind {
            "on_task_spawn" => first.on_task_spawn(|_| panic!("boom in a hook")),
            "before_poll" => first.before_poll(|_| panic!("boom in a hook")),
            "after_poll" => first.after_poll(|_| panic!("boom in a hook")),
            _ => first.on_task_done(|_| panic!("boom in a hook")),
        };
        let others = trace.clone();
        let last = match kind {
            "on_task_spawn" => bad.on_task_spawn(move |_| others.push("the other")),
            "before_poll" => bad.before_poll(move |_| others.push("the other")),
            "after_poll" => bad.after_poll(move |_| others.push("the other")),
            _ => bad.on_task_done(move |_| others.push("the other")),
        };
        let ex = last.build();
        let recorder = Recorder::on(&ex);
        for name in ["a", "b"] {
            let handle = ex.task().name(name).spawn(async {});
            ex.block_on(handle).expect("the task returns all the same");
        }
        let report = recorder.only();
        assert_eq!(report.kind, ContextKind::Callback);
        assert!(report.message.contains(kind), "{}", report.message);
        assert_eq!(report.exception.as_deref(), Some("boom in a hook"));
        assert_eq!(
            report.task.as_deref(),
            Some("a"),
            "the task that it was told of"
        );
        let labels = trace.labels();
        let expected = ["spawn", "before", "after", "returned", "the other"];
        for label in expected {
            let heard = labels.iter().filter(|other| other.contains(label)).count();
            assert_eq!(heard, 2, "{kind}: {label} in {labels:?}");
        }
        check_accounting(&ex);
    }
}

/// What a hook captured is dropped when it is removed, and a destructor that panics then is told of, too.
#[test]
fn a_removed_hook_is_dropped() {
    quiet();
    let drops = DropLog::new();
    let guard = drops.guard("hook").panics("boom in a destructor");
    let ex = Executor::builder()
        .before_poll(move |_| panic!("boom {}", size_of_val(&guard)))
        .build();
    let recorder = Recorder::on(&ex);
    ex.spawn(yield_n(1)).detach();
    ex.run_until_stalled();
    drops.assert(&["hook"]);
    assert_eq!(
        recorder.kinds(),
        [ContextKind::Callback, ContextKind::Destructor]
    );
    assert!(ex.is_empty());
}

/// Hooks go with the executor, when everything was told, though a handle lives on.
#[test]
fn hooks_are_dropped_with_the_executor() {
    quiet();
    let drops = DropLog::new();
    let trace = Trace::new();
    let mut builder = traced(&trace);
    for name in ["spawn", "before", "after", "done"] {
        let held = drops.guard(name).panics(format!("boom in {name}"));
        builder = match name {
            "spawn" => builder.on_task_spawn(move |_| _ = &held),
            "before" => builder.before_poll(move |_| _ = &held),
            "after" => builder.after_poll(move |_| _ = &held),
            _ => builder.on_task_done(move |_| _ = &held),
        };
    }
    let ex = builder.build();
    let recorder = Recorder::on(&ex);
    let handle = ex.task().name("a").spawn(pending::<()>());
    ex.run_until_stalled();
    assert_eq!(drops.len(), 0);
    drop(ex);
    assert_eq!(drops.len(), 4);
    drops.assert_home();
    assert_eq!(
        trace.labels().last().map(String::as_str),
        Some("a cancelled")
    );
    let kinds = recorder.kinds();
    assert_eq!(kinds[0], ContextKind::DestroyedPending);
    assert_eq!(kinds[1..], [ContextKind::Destructor; 4], "each by itself");
    drop(handle);
}

/// What its destructor does is told when it is the only one, and the last of all to go.
#[test]
fn the_destructor_of_the_last_hook_is_told_of() {
    quiet();
    for done in [false, true] {
        let drops = DropLog::new();
        let held = drops.guard("hook").panics("boom in the last hook");
        let builder = Executor::builder();
        let ex = if done {
            builder.on_task_done(move |_| _ = &held).build()
        } else {
            builder.on_task_spawn(move |_| _ = &held).build()
        };
        let recorder = Recorder::on(&ex);
        drop(ex);
        assert_eq!(recorder.exceptions(), ["boom in the last hook"]);
        drops.assert(&["hook"]);
    }
}

/// A hook may hold handles of its own executor: nothing leaks.
#[test]
fn a_hook_that_holds_a_handle_does_not_keep_the_executor() {
    let drops = DropLog::new();
    let held: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
    let holds = Rc::clone(&held);
    let ex = Executor::builder()
        .on_task_done(move |_| drop(holds.borrow()))
        .build();
    let guard = drops.guard("handler");
    ex.set_exception_handler(move |_, _| _ = &guard);
    let task = ex.task().background().spawn(pending());
    held.borrow_mut().push(task);
    drop(held);
    drop(ex);
    drops.assert(&["handler"]);
}

/// A hook that spawns is not told of what it spawns, so that it does not go on for ever; another one is, and the end of all
/// of them is told to everybody.
#[test]
fn a_spawn_hook_is_not_told_of_what_it_spawns() {
    for driven in [false, true] {
        let trace = Trace::new();
        let (other, spawns, done) = (trace.clone(), trace.clone(), trace.clone());
        let ex = Rc::new_cyclic(|weak: &Weak<Executor<'static>>| {
            let weak = weak.clone();
            Executor::builder()
                .on_task_spawn(move |task| {
                    spawns.push(format!("it hears {}", task.name()));
                    let ex = weak.upgrade().expect("the test holds it");
                    ex.task().name("its own").spawn(async {}).detach();
                    ex.task().name("another").spawn(async {}).detach();
                })
                .on_task_spawn(move |task| other.push(format!("the other hears {}", task.name())))
                .on_task_done(move |completion| done.push(end_in_words(completion)))
                .build()
        });
        let spawn = || ex.task().name("a").spawn(async {}).detach();
        if driven {
            ex.block_on(async { spawn() });
        } else {
            spawn();
        }
        trace.assert(&[
            "it hears a",
            "the other hears its own",
            "the other hears another",
            "the other hears a",
        ]);
        ex.run_until_stalled();
        trace.assert(&["a returned", "its own returned", "another returned"]);
        check_accounting(&ex);
    }
}

/// Two hooks that spawn, on two executors, do not call each other for ever.
#[test]
fn spawn_hooks_of_two_executors_do_not_call_each_other_for_ever() {
    type Slot = Rc<RefCell<Option<Weak<Executor<'static>>>>>;
    let (to_b, to_a): (Slot, Slot) = (Rc::default(), Rc::default());
    let spawn_on = |slot: &Slot| {
        let slot = Rc::clone(slot);
        move |_: &TaskInfo| {
            let ex = slot.borrow().as_ref().and_then(Weak::upgrade);
            ex.expect("the test holds it").spawn(async {}).detach();
        }
    };
    let a = Rc::new(Executor::builder().on_task_spawn(spawn_on(&to_b)).build());
    let b = Rc::new(Executor::builder().on_task_spawn(spawn_on(&to_a)).build());
    *to_b.borrow_mut() = Some(Rc::downgrade(&b));
    *to_a.borrow_mut() = Some(Rc::downgrade(&a));
    a.spawn(async {}).detach();
    assert_eq!((a.len(), b.len()), (2, 1));
    a.run_until_stalled();
    b.run_until_stalled();
    assert!(a.is_empty() && b.is_empty());
}

/// A hook that spawns at every end of a task does not keep the executor's end from coming.
#[test]
fn a_done_hook_that_spawns_for_ever_does_not_hang_the_end() {
    let ex = Rc::new(RefCell::new(None));
    let weak: Rc<RefCell<Option<LocalHandle<'static>>>> = Rc::default();
    let handle = Rc::clone(&weak);
    let log = LogCapture::start();
    *ex.borrow_mut() = Some(
        Executor::builder()
            .on_task_done(move |_| {
                if let Some(handle) = &*handle.borrow() {
                    handle.spawn(async {}).detach();
                }
            })
            .build(),
    );
    if let Some(ex) = &*ex.borrow() {
        *weak.borrow_mut() = Some(ex.handle());
        ex.spawn(pending::<()>()).detach();
        // One more in each pass (P8).
        let polls = ex.tick(10).polls;
        assert_eq!(polls, 1);
    }
    drop(ex.take());
    assert!(!log.records().is_empty());
}

/// The executor may go while its hook runs.
#[test]
fn a_spawn_hook_may_drop_the_executor() {
    let ex: Rc<RefCell<Option<Executor<'static>>>> = Rc::default();
    let drops = DropLog::new();
    let (dropped, guard) = (Rc::clone(&ex), drops.guard("hook"));
    *ex.borrow_mut() = Some(
        Executor::builder()
            .on_task_spawn(move |_| {
                let _ = &guard;
                drop(dropped.take());
            })
            .build(),
    );
    let _log = LogCapture::start();
    let handle = ex
        .borrow()
        .as_ref()
        .map(Executor::handle)
        .expect("made above");
    let task = handle.spawn(holding(drops.guard("future"), pending::<()>()));
    assert!(ex.borrow().is_none());
    assert!(task.is_cancelled());
    drops.assert(&["future", "hook"]);
}

/// A hook between two drives may drive: no executor is current there, and nothing is borrowed.
#[test]
fn a_spawn_hook_between_drives_may_drive() {
    let trace = Trace::new();
    let inside = trace.clone();
    let ex = Rc::new_cyclic(|weak: &Weak<Executor<'static>>| {
        let weak = weak.clone();
        Executor::builder()
            .on_task_spawn(move |task| {
                assert!(LocalHandle::try_current().is_none());
                weak.upgrade().expect("held").run_until_stalled();
                inside.push(format!("drove {}", task.name()));
            })
            .build()
    });
    let runs = trace.clone();
    let task = ex.task().name("a").spawn(async move { runs.push("ran") });
    trace.assert(&["ran", "drove a"]);
    assert!(task.is_finished());
}
