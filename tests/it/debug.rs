//! Debug mode: what is slow, what is overlooked, and what can be asked of a task.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, pending, poll_fn};
use std::io::Write as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use mainstay::{
    Builder, Completion, ExceptionContext, Executor, JoinHandle, LocalHandle, TaskId, TaskInfo,
    TaskState, current_task, yield_now,
};

use crate::support::{
    Event, Fault, LogCapture, LogRecord, check_accounting, counting_waker, holding, in_child_ok,
    on_drop, poll_with, quiet, yield_n,
};

// ---------------------------------------------------------------------------------------------------------------------
// What is slow
// ---------------------------------------------------------------------------------------------------------------------

/// Debug mode that logs every poll.
fn chatty() -> Builder<'static> {
    Executor::builder()
        .debug(true)
        .slow_poll_threshold(Duration::ZERO)
}

/// What was executed, by the records: each is a warning that ends in a time.
#[track_caller]
fn executed(records: &[LogRecord]) -> Vec<String> {
    let parse = |record: &LogRecord| {
        assert_eq!(
            (record.level, record.target.as_str()),
            (log::Level::Warn, "mainstay")
        );
        let text = record.text.strip_prefix("Executing ").expect(&record.text);
        let (what, took) = text.rsplit_once(" took ").expect(&record.text);
        let seconds = took.strip_suffix(" s").expect(&record.text);
        assert!(
            seconds.parse::<f64>().is_ok() && seconds.len() >= 5,
            "{took}"
        );
        what.to_owned()
    };
    records.iter().map(parse).collect()
}

/// B126, `be:test_log_slow_callbacks`: each poll over the threshold is one warning with the task's name, id and spawn
/// location; a threshold of zero makes every poll one.
#[test]
fn a_slow_poll_is_logged_with_name_place_and_time() {
    let log = LogCapture::start();
    let ex = chatty().build();
    let task = ex.task().name("fetch");
    let line = line!() + 1;
    let handle = task.spawn(yield_n(1));
    let id = handle.id();
    ex.run_until_stalled();
    let place = file!();
    let text = format!("task fetch (id {id}, spawned at {place}:{line}:{})", 23);
    assert_eq!(
        executed(&log.records()),
        [&*text, &*text],
        "it was polled twice"
    );
}

/// B126: the time is that of the real clock, also under a virtual one, in which a poll takes no time.
#[test]
fn a_poll_that_blocks_is_logged_whatever_the_clock_says() {
    for virtual_clock in [false, true] {
        let log = LogCapture::start();
        let mut builder = Executor::builder()
            .debug(true)
            .slow_poll_threshold(Duration::from_millis(1));
        if virtual_clock {
            builder = builder.virtual_clock();
        }
        let ex = builder.build();
        let began = ex.now();
        ex.task()
            .name("blocks")
            .spawn(async { thread::sleep(Duration::from_millis(5)) })
            .detach();
        ex.run_until_stalled();
        // Others may be there too, on a busy machine.
        let records = log.records();
        let blocks: Vec<_> = records
            .iter()
            .filter(|r| r.text.contains("blocks"))
            .collect();
        assert_eq!(blocks.len(), 1, "{records:?}");
        let seconds = blocks[0].text.rsplit(' ').nth(1).expect("the time");
        assert!(
            seconds.parse::<f64>().expect("a number") >= 0.005,
            "{records:?}"
        );
        assert!(!virtual_clock || ex.now() == began);
    }
}

/// Whatever of the user's holds up the loop is measured: callbacks of each kind, the handler, hooks and the root.
#[test]
fn everything_that_the_loop_calls_is_measured() {
    quiet();
    let log = LogCapture::start();
    let ex = chatty()
        .after_poll(|_| {})
        .on_task_done(|_| {})
        .virtual_clock()
        .build();
    ex.set_exception_handler(|_, _| {});
    let line = line!() + 1;
    ex.call_soon(|| {});
    ex.run_until_stalled();
    let place = file!();
    let callback = format!("a callback made at {place}:{line}:8");
    assert_eq!(executed(&log.records()), [callback]);

    let log = LogCapture::start();
    let spawner = ex.spawner();
    spawner.call_soon(|_| {}).expect("it is there");
    ex.run_until_stalled();
    assert_eq!(executed(&log.records()), ["what another thread has sent"]);

    let log = LogCapture::start();
    ex.block_on(async {});
    assert_eq!(executed(&log.records()), ["the root of `block_on`"]);

    let log = LogCapture::start();
    let handle = ex.task().name("fails").spawn(async { panic!("boom") });
    let (id, place) = (handle.id(), ex.tasks()[0].location());
    handle.add_done_callback(|_: &Completion<'_>| {});
    drop::<JoinHandle<()>>(handle);
    ex.run_until_stalled();
    let task = format!("task fails (id {id}, spawned at {place})");
    assert_eq!(
        executed(&log.records()),
        [
            "a hook, after_poll".to_owned(),
            task.clone(),
            format!("the exception handler, told \"Task panicked\" of {task},"),
            "a hook, on_task_done".to_owned(),
            format!("a done callback of {task}"),
        ]
    );

    let log = LogCapture::start();
    ex.call_exception_handler(&ExceptionContext::new("mine").build());
    assert_eq!(
        executed(&log.records()),
        ["the exception handler, told \"mine\","]
    );
}

/// Without debug mode a threshold says nothing; with it, 100 ms is a lot and `Duration::MAX` is for ever.
#[test]
fn what_is_not_slow_is_not_logged() {
    let log = LogCapture::start();
    let run = |builder: Builder<'static>| {
        let ex = builder.build();
        ex.spawn(async {}).detach();
        ex.call_soon(|| {});
        ex.run_until_stalled();
        ex.spawn(yield_n(2)).detach();
        ex.block_on(yield_n(4));
    };
    run(Executor::builder()
        .debug(false)
        .slow_poll_threshold(Duration::ZERO));
    assert!(log.records().is_empty());
    run(Executor::builder()
        .debug(true)
        .slow_poll_threshold(Duration::MAX));
    assert!(log.records().is_empty());
}

/// A huge poll is over any threshold below it: that of 100 ms is there unless another one is set.
#[test]
fn the_threshold_is_100_ms_unless_set() {
    let log = LogCapture::start();
    let ex = Executor::builder().debug(true).build();
    ex.task()
        .name("blocks")
        .spawn(async { thread::sleep(Duration::from_millis(100)) })
        .detach();
    ex.run_until_stalled();
    assert!(
        log.records()
            .iter()
            .any(|record| record.text.contains("task blocks"))
    );
}

/// P3: a logger that panics about a slow poll costs that record, which goes to stderr, and nothing else.
#[test]
fn a_logger_that_panics_about_a_slow_poll_is_contained() {
    let test = "debug::a_logger_that_panics_about_a_slow_poll_is_contained";
    let stderr = in_child_ok(test, &[], || {
        quiet();
        let log = LogCapture::start();
        log.panics(true);
        let ex = chatty().build();
        let handle = ex.task().name("unlogged").spawn(async { 7 });
        assert_eq!(ex.block_on(handle).expect("it returns"), 7);
        check_accounting(&ex);
    });
    if let Some(stderr) = stderr {
        let lines: Vec<_> = stderr.lines().filter(|l| l.contains("unlogged")).collect();
        assert_eq!(lines.len(), 1, "{stderr}");
        assert!(lines[0].contains("boom in the logger"), "{stderr}");
    }
}

/// The environment turns debug mode on, when the executor is made, and the builder has the last word.
#[test]
fn the_environment_turns_debug_mode_on() {
    let test = "debug::the_environment_turns_debug_mode_on";
    for (value, on) in [
        ("1", true),
        ("yes", true),
        ("00", true),
        ("0", false),
        ("", false),
    ] {
        let stderr = in_child_ok(test, &[("MAINSTAY_DEBUG", value)], || {
            let polls = |builder: Builder<'static>| {
                let ex = builder.build();
                let handle = ex.spawn(async { current_task().expect("a task").polls() });
                ex.block_on(handle).expect("it returns")
            };
            let default = Executor::new();
            let handle = default.spawn(async { current_task().expect("a task").polls() });
            let by_default = default.block_on(handle).expect("it returns");
            writeln!(
                std::io::stderr(),
                "default {by_default} new {} off {} on {}",
                polls(Executor::builder()),
                polls(Executor::builder().debug(false)),
                polls(Executor::builder().debug(true)),
            )
            .expect("stderr is open");
        });
        if let Some(stderr) = stderr {
            let expected = format!("default {0} new {0} off 0 on 1", u8::from(on));
            assert!(stderr.contains(&expected), "{value:?}: {stderr}");
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A `Result` into which nobody looks
// ---------------------------------------------------------------------------------------------------------------------

/// Debug mode that logs no poll, however slow.
fn calm() -> Builder<'static> {
    Executor::builder()
        .debug(true)
        .slow_poll_threshold(Duration::MAX)
}

/// api.md: a plain `spawn` of a `Result` whose handle is dropped unread is hinted at, once for each place.
#[test]
fn an_overlooked_result_is_hinted_at_once_per_place() {
    let log = LogCapture::start();
    let ex = calm().build();
    let ok = || async { Ok::<(), Fault>(()) };
    let first = line!() + 2;
    for _ in 0..3 {
        ex.task().name("here").spawn(ok()).detach();
    }
    ex.task().name("there").spawn(ok()).detach();
    ex.run_until_stalled();
    let records = log.records();
    assert_eq!(records.len(), 2, "{records:?}");
    assert!(
        records
            .iter()
            .all(|record| record.level == log::Level::Warn)
    );
    assert!(
        records
            .iter()
            .all(|record| record.text.contains("`spawn_fallible`"))
    );
    assert!(records[0].text.contains("task here"), "{records:?}");
    assert!(
        records[0].text.contains(&format!("debug.rs:{first}")),
        "{records:?}"
    );
    assert!(records[1].text.contains("task there"), "{records:?}");
    // Another executor has not said it yet.
    let other = calm().build();
    other.spawn(ok()).detach();
    assert_eq!(log.records().len(), 3);
}

/// It does not matter when the handle goes, or under which name the `Result` goes.
#[test]
fn an_overlooked_result_is_found_whenever_its_handle_is_dropped() {
    let log = LogCapture::start();
    let hints = || log.records().len();
    let ex = calm().build();
    let write = || async { std::io::Result::Ok(7) };
    let handle = ex.spawn(write());
    ex.run_until_stalled();
    assert_eq!(hints(), 0, "it may still be read");
    drop(handle);
    assert_eq!(hints(), 1);
    // `exception()` looks at failures, and an `Err` of plain `spawn` is none.
    let handle = ex.spawn(async { Err::<(), _>(Fault("lost")) });
    ex.run_until_stalled();
    assert!(matches!(handle.exception(), Ok(None)));
    drop(handle);
    assert_eq!(hints(), 2);
    // In a task, and when the executor is gone.
    ex.spawn(async move { drop(mainstay::spawn(write())) })
        .detach();
    let kept = ex.spawn(write());
    ex.run_until_stalled();
    assert_eq!(hints(), 3);
    drop(ex);
    assert_eq!(hints(), 3);
    drop(kept);
    assert_eq!(hints(), 4);
}

/// There is no hint where nothing can be lost.
#[test]
fn no_hint_is_given_where_nothing_is_overlooked() {
    let log = LogCapture::start();
    async fn ok() -> Result<(), Fault> {
        Ok(())
    }
    let ex = calm().build();
    ex.block_on(async {
        // Read.
        assert!(mainstay::spawn(ok()).await.is_ok());
        let mut taken = mainstay::spawn(ok());
        yield_n(2).await;
        assert!(taken.result().is_ok());
        drop(taken);
        // Somebody looks into it.
        mainstay::spawn_fallible(ok()).detach();
        // No `Result`, though one is in it.
        mainstay::spawn(async { Some(ok().await) }).detach();
        mainstay::spawn(async {}).detach();
        // Cancelled: there will be none.
        drop(mainstay::spawn(ok()).cancel_on_drop());
        let cancelled = mainstay::spawn(async { pending::<Result<(), Fault>>().await });
        yield_now().await;
        cancelled.cancel();
        drop(cancelled);
    });
    drop(ex.spawn(ok()).cancel_on_drop());
    let destroyed = ex.task().background().spawn(pending::<Result<(), Fault>>());
    drop(ex);
    drop(destroyed);
    // And without debug mode there is none at all.
    let ex = Executor::builder().debug(false).build();
    ex.spawn(ok()).detach();
    ex.run_until_stalled();
    let records = log.records();
    assert!(records.is_empty(), "{records:?}");
}

// ---------------------------------------------------------------------------------------------------------------------
// What a task is asked
// ---------------------------------------------------------------------------------------------------------------------

fn info(ex: &Executor<'_>, id: TaskId) -> TaskInfo {
    let tasks = ex.tasks();
    tasks
        .into_iter()
        .find(|task| task.id() == id)
        .expect("it is live")
}

/// Polls are counted, and every look sees the count of its time.
#[test]
fn polls_are_counted() {
    let seen: Rc<RefCell<Vec<u64>>> = Rc::default();
    let sees = || {
        let seen = Rc::clone(&seen);
        move |polls: u64| seen.borrow_mut().push(polls)
    };
    let (before, inside, after, done) = (sees(), sees(), sees(), sees());
    let ex = calm()
        .before_poll(move |task| before(task.polls()))
        .after_poll(move |task| after(task.polls()))
        .on_task_done(move |completion| done(completion.task().polls()))
        .build();
    let handle = ex.spawn(poll_fn(move |cx| {
        let polls = current_task().expect("a task").polls();
        inside(polls);
        cx.waker().wake_by_ref();
        if polls < 3 {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }));
    assert_eq!(info(&ex, handle.id()).polls(), 0);
    ex.tick(1);
    assert_eq!(info(&ex, handle.id()).polls(), 1);
    ex.run_until_stalled();
    assert_eq!(*seen.borrow(), [0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
}

/// The parent is the task on whose stack the spawn was, also when that has ended.
#[test]
fn the_parent_is_the_task_that_spawned() {
    let ex = calm().build();
    let outside = ex.task().background().spawn(pending::<()>());
    let ids: Rc<RefCell<Vec<TaskId>>> = Rc::default();
    let noted = Rc::clone(&ids);
    let parent = ex.block_on(async {
        let root = mainstay::spawn(pending::<()>());
        assert_eq!(info(&ex, root.id()).parent(), None, "the root is no task");
        let parent = mainstay::spawn(async move {
            let child = mainstay::spawn(async move {
                let grandchild = mainstay::spawn(pending::<()>());
                noted.borrow_mut().push(grandchild.id());
                pending::<()>().await
            });
            ids.borrow_mut().push(child.id());
            yield_n(3).await;
            ids.take()
        });
        let id = parent.id();
        let ids = parent.await.expect("it returns");
        let [child, grandchild] = ids.as_slice() else {
            panic!("{ids:?}")
        };
        assert_eq!(info(&ex, *child).parent(), Some(id));
        assert_eq!(info(&ex, *grandchild).parent(), Some(*child));
        root.cancel();
        id
    });
    assert!(
        ex.tasks().iter().all(|task| task.id() != parent),
        "it has ended"
    );
    assert_eq!(info(&ex, outside.id()).parent(), None);
    // Neither a callback nor a handler is a task; a destructor is part of one.
    let spawns = |name: &'static str| {
        move || {
            LocalHandle::current()
                .task()
                .name(name)
                .spawn(pending::<()>())
                .detach()
        }
    };
    ex.set_exception_handler(move |ex, _| {
        ex.task().name("handler").spawn(pending::<()>()).detach()
    });
    ex.call_soon(spawns("callback"));
    let done = ex.spawn(async {});
    done.add_done_callback(move |_| spawns("done")());
    let failed = ex.spawn_fallible(async { Err::<(), _>(Fault("told")) });
    let destroyed = ex.spawn(holding(on_drop(spawns("destructor")), async {}));
    let destroyed_id = destroyed.id();
    ex.run_until_stalled();
    for task in ex.tasks() {
        let expected = (task.name() == "destructor").then_some(destroyed_id);
        if ["handler", "callback", "done", "destructor"].contains(&task.name()) {
            assert_eq!(task.parent(), expected, "{}", task.name());
        }
    }
    drop((done, failed, destroyed));
    ex.set_exception_handler(|_, _| {});
}

/// A task may have its parent on another executor.
#[test]
fn the_parent_may_be_on_another_executor() {
    let outer = calm().build();
    let inner = Rc::new(calm().build());
    let theirs = Rc::clone(&inner);
    let handle = outer.spawn(async move {
        let of_task = theirs.spawn(async {});
        assert_eq!(
            info(&theirs, of_task.id()).parent(),
            current_task().map(|task| task.id())
        );
        theirs.block_on(async {
            // Here it is the inner executor's root that spawns.
            let of_root = mainstay::spawn(async {});
            assert_eq!(info(&theirs, of_root.id()).parent(), None);
        });
    });
    outer.block_on(handle).expect("the assertions hold");
}

/// Debug mode's answers are in reports and completions too; without it they are 0 and `None`.
#[test]
fn reports_know_what_debug_mode_knows() {
    quiet();
    for debug in [false, true] {
        let seen: Rc<RefCell<Vec<TaskInfo>>> = Rc::default();
        let (told, done) = (Rc::clone(&seen), Rc::clone(&seen));
        let ex = Executor::builder().debug(debug).build();
        ex.set_exception_handler(move |_, context| {
            told.borrow_mut().extend(context.task().cloned());
        });
        let parent = ex.spawn(async move {
            let child = mainstay::spawn(async {
                yield_now().await;
                panic!("boom");
            });
            child.add_done_callback(move |completion| {
                done.borrow_mut().push(completion.task().clone());
            });
            drop::<Result<(), _>>(child.await);
        });
        let id = parent.id();
        ex.block_on(parent).expect("it returns");
        let seen = seen.borrow();
        assert_eq!(seen.len(), 2);
        for task in seen.iter() {
            let expected = if debug { (2, Some(id)) } else { (0, None) };
            assert_eq!((task.polls(), task.parent()), expected);
            assert_eq!(task.awaiting(), None);
            assert_eq!(format!("{task:?}").contains("polls"), debug);
        }
    }
}

/// What `awaiting` says of a task named `waiter`, after each pass.
fn awaiting_after_each_pass<F>(
    waiter: impl FnOnce(Vec<JoinHandle<u8>>) -> F,
    events: &[Event],
    passes: usize,
) -> Vec<Option<String>>
where
    F: Future + 'static,
{
    let ex = calm().build();
    let handles = events.iter().enumerate().map(|(n, event)| {
        let event = event.clone();
        ex.task().name(format!("t{n}")).spawn(async move {
            event.wait().await;
            7
        })
    });
    let handles: Vec<_> = handles.collect();
    let names: HashMap<TaskId, String> = handles.iter().map(|h| (h.id(), h.name())).collect();
    let id = ex.spawn(waiter(handles)).id();
    let look = |_| {
        ex.tick(usize::MAX);
        let tasks = ex.tasks();
        let waiter = tasks.iter().find(|task| task.id() == id)?;
        Some(waiter.awaiting().map(|id| names[&id].clone()))
    };
    let seen = (0..passes).map_while(look).collect();
    ex.set_exception_handler(|_, _| {});
    seen
}

/// The words of [`awaiting_after_each_pass`].
fn some(names: &[&str]) -> Vec<Option<String>> {
    let name = |name: &&str| (!name.is_empty()).then(|| (*name).to_owned());
    names.iter().map(name).collect()
}

/// Two awaits in turn, and then something else.
#[test]
fn awaiting_follows_a_task_from_await_to_await() {
    let events = [Event::new(), Event::new(), Event::new()];
    let [first, second, third] = events.clone();
    let seen = awaiting_after_each_pass(
        |handles| async move {
            yield_now().await;
            let mut handles = handles.into_iter();
            for event in [first, second] {
                let mut handle = handles.next().expect("three");
                let mut polls = 0;
                // Two spurious polls first.
                let value = poll_fn(|cx| {
                    polls += 1;
                    if polls < 3 {
                        cx.waker().wake_by_ref();
                    } else if polls == 3 {
                        event.set();
                    }
                    Pin::new(&mut handle).poll(cx)
                })
                .await;
                assert_eq!(value.expect("it returns"), 7);
            }
            third.wait().await;
        },
        &events,
        12,
    );
    // In the last pass in which it waits for a task, that one has ended and woken it.
    let expected = ["", "t0", "t0", "t0", "", "t1", "t1", "t1", "", "", "", ""];
    assert_eq!(seen[..4], some(&expected)[..4], "{seen:?}");
    let turns: Vec<_> = seen.iter().flatten().collect();
    assert!(
        turns.iter().filter(|name| **name == "t0").count() >= 3,
        "{seen:?}"
    );
    assert!(
        turns.iter().filter(|name| **name == "t1").count() >= 3,
        "{seen:?}"
    );
    assert!(turns.is_sorted(), "one after the other: {seen:?}");
    assert_eq!(
        seen.last(),
        Some(&None),
        "waiting for an event is waiting for no task"
    );
}

/// A handle that is dropped while it is awaited, as a select does, is waited for no longer.
#[test]
fn awaiting_ends_with_the_handle() {
    // In the poll in which it was asked.
    let seen = awaiting_after_each_pass(
        |mut handles| async move {
            let mut handle = handles.pop();
            let polled = poll_fn(|cx| {
                Poll::Ready(
                    Pin::new(handle.as_mut().expect("there"))
                        .poll(cx)
                        .is_pending(),
                )
            });
            assert!(polled.await);
            drop(handle.take());
            pending::<()>().await;
        },
        &[Event::new()],
        2,
    );
    assert_eq!(seen, some(&["", ""]));
    // By somebody else, while it waits.
    let shared: Rc<RefCell<Option<JoinHandle<u8>>>> = Rc::default();
    let ex = calm().build();
    ex.set_exception_handler(|_, _| {});
    *shared.borrow_mut() = Some(ex.spawn(pending::<u8>()));
    let asked = Rc::clone(&shared);
    let waiter = ex.spawn(poll_fn(move |cx| match &mut *asked.borrow_mut() {
        Some(handle) => Pin::new(handle).poll(cx).map(drop),
        None => Poll::Ready(()),
    }));
    ex.run_until_stalled();
    let id = shared.borrow().as_ref().map(JoinHandle::id);
    assert_eq!(info(&ex, waiter.id()).awaiting(), id);
    drop(shared.take());
    assert_eq!(info(&ex, waiter.id()).awaiting(), None);
}

/// A handle that goes over to another task takes the waiting with it.
#[test]
fn awaiting_moves_with_the_handle() {
    let ex = calm().build();
    ex.set_exception_handler(|_, _| {});
    let shared = Rc::new(RefCell::new(ex.spawn(pending::<()>())));
    let waiter = || {
        let shared = Rc::clone(&shared);
        poll_fn(move |cx| Pin::new(&mut *shared.borrow_mut()).poll(cx).map(drop))
    };
    let first = ex.spawn(waiter());
    ex.run_until_stalled();
    let awaited = shared.borrow().id();
    assert_eq!(info(&ex, first.id()).awaiting(), Some(awaited));
    let second = ex.spawn(waiter());
    ex.run_until_stalled();
    assert_eq!(
        info(&ex, first.id()).awaiting(),
        None,
        "only the last one is woken"
    );
    assert_eq!(info(&ex, second.id()).awaiting(), Some(awaited));
}

/// A task that has asked once and went on to wait for something else does not wait any more, though it would be woken.
#[test]
fn awaiting_is_what_the_latest_poll_asked_for() {
    let ex = calm().build();
    ex.set_exception_handler(|_, _| {});
    let mut awaited = ex.spawn(pending::<()>());
    let (id, event) = (awaited.id(), Event::new());
    let wait = event.wait();
    let waiter = ex.spawn(async move {
        yield_now().await;
        poll_fn(|cx| {
            assert!(Pin::new(&mut awaited).poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        wait.await;
        yield_now().await;
        pending::<()>().await;
    });
    ex.run_until_stalled();
    assert_eq!(info(&ex, waiter.id()).awaiting(), Some(id));
    event.set();
    ex.run_until_stalled();
    assert_eq!(info(&ex, waiter.id()).awaiting(), None);
}

/// Nobody waits for what was cancelled, before the waiting task has heard of it and after.
#[test]
fn awaiting_ends_when_the_awaited_task_is_cancelled() {
    let ex = calm().build();
    let awaited = ex.spawn(pending::<()>());
    let (id, cancel) = (awaited.id(), awaited.cancel_handle());
    let waiter = ex.spawn(async move {
        assert!(awaited.await.is_err_and(|error| error.is_cancelled()));
        pending::<()>().await;
    });
    ex.run_until_stalled();
    assert_eq!(info(&ex, waiter.id()).awaiting(), Some(id));
    ex.block_on(async {
        assert!(cancel.cancel());
        let task = info(&ex, waiter.id());
        assert_eq!((task.state(), task.awaiting()), (TaskState::Ready, None));
    });
    ex.run_until_stalled();
    assert_eq!(info(&ex, waiter.id()).awaiting(), None);
    waiter.cancel();
}

/// A later task in the slot of an awaited one is not taken for it.
#[test]
fn awaiting_never_names_a_later_tenant() {
    let ex = calm().build();
    ex.set_exception_handler(|_, _| {});
    let shared = Rc::new(RefCell::new(Some(ex.spawn(pending::<()>()))));
    let asked = Rc::clone(&shared);
    let waiter = ex.spawn(poll_fn(move |cx| match &mut *asked.borrow_mut() {
        Some(handle) => Pin::new(handle).poll(cx).map(drop),
        None => Poll::Pending,
    }));
    ex.run_until_stalled();
    ex.block_on(async {
        shared.borrow().as_ref().expect("there").cancel();
        drop(shared.take());
        // One of these has its slot.
        let tenants: Vec<_> = (0..100).map(|_| mainstay::spawn(pending::<()>())).collect();
        assert_eq!(info(&ex, waiter.id()).awaiting(), None);
        drop(tenants);
    });
}

/// Through `CancelOnDrop`, through a foreign waker, and with two at a time; as long as it goes on asking.
#[test]
fn awaiting_sees_through_what_is_between() {
    let ex = calm().build();
    ex.set_exception_handler(|_, _| {});
    let spawn = || ex.spawn(pending::<()>());
    let (guarded, mut foreign, mut first, mut second) =
        (spawn().cancel_on_drop(), spawn(), spawn(), spawn());
    let ids = [guarded.id(), foreign.id(), second.id()];
    let by_guard = ex.spawn(async move { drop(guarded.await) });
    let again: Rc<RefCell<Option<Waker>>> = Rc::default();
    let wakes = Rc::clone(&again);
    let (waker, _) = counting_waker();
    // As a combinator does that has wakers of its own.
    let by_foreign = ex.spawn(poll_fn(move |cx| {
        *wakes.borrow_mut() = Some(cx.waker().clone());
        poll_with(&mut foreign, &waker).map(drop)
    }));
    let by_two = ex.spawn(poll_fn(move |cx| {
        assert!(Pin::new(&mut first).poll(cx).is_pending());
        Pin::new(&mut second).poll(cx).map(drop)
    }));
    for polls in 1..=3 {
        ex.run_until_stalled();
        for (waiter, awaited) in [&by_guard, &by_foreign, &by_two].iter().zip(ids) {
            assert_eq!(info(&ex, waiter.id()).awaiting(), Some(awaited));
        }
        assert_eq!(info(&ex, by_foreign.id()).polls(), polls);
        again.take().expect("it was polled").wake();
    }
}

/// The root waits as no task, and a root of another executor neither.
#[test]
fn awaiting_is_for_tasks_of_the_same_executor() {
    let outer = calm().build();
    let inner = calm().build();
    let handle = outer.spawn(async move {
        let mut on_inner = inner.spawn(pending::<()>());
        let own = current_task().expect("a task").id();
        let asked = poll_fn(|cx| Poll::Ready(Pin::new(&mut on_inner).poll(cx).is_pending()));
        assert!(asked.await);
        assert_eq!(current_task().expect("a task").awaiting(), None);
        // The inner root asks for an outer task: it is not the outer one that does.
        let mut on_outer = mainstay::spawn(pending::<()>());
        inner.block_on(poll_fn(|cx| {
            assert!(Pin::new(&mut on_outer).poll(cx).is_pending());
            Poll::Ready(())
        }));
        assert_eq!(current_task().expect("a task").awaiting(), None);
        assert_eq!(current_task().expect("a task").id(), own);
        inner.set_exception_handler(|_, _| {});
        on_outer.cancel();
    });
    outer.block_on(handle).expect("the assertions hold");
}

/// What `awaiting` is for: a circle of tasks that wait for one another.
#[test]
fn a_deadlock_shows_as_a_circle() {
    let ex = calm().build();
    ex.set_exception_handler(|_, _| {});
    let handles: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
    for n in 0..3_usize {
        let theirs = Rc::clone(&handles);
        let handle = ex.spawn(poll_fn(move |cx| {
            Pin::new(&mut theirs.borrow_mut()[(n + 1) % 3])
                .poll(cx)
                .map(drop)
        }));
        handles.borrow_mut().push(handle);
    }
    ex.run_until_stalled();
    let tasks = ex.tasks();
    let next = |id: TaskId| info(&ex, id).awaiting().expect("each waits");
    let first = tasks[0].id();
    assert_eq!(next(first), tasks[1].id());
    assert_eq!(next(next(next(first))), first);
}

/// `tasks()` without debug mode: the same tasks, and nothing more known of them.
#[test]
fn without_debug_mode_nothing_more_is_known() {
    let ex = Executor::builder().debug(false).build();
    let awaited = ex.task().name("awaited").spawn(pending::<()>());
    ex.spawn(async move {
        mainstay::spawn(pending::<()>()).detach();
        drop(awaited.await);
    })
    .detach();
    ex.run_until_stalled();
    let tasks = ex.tasks();
    assert_eq!(tasks.len(), 3);
    for task in &tasks {
        assert_eq!(
            (task.polls(), task.parent(), task.awaiting()),
            (0, None, None)
        );
    }
    ex.set_exception_handler(|_, _| {});
}
