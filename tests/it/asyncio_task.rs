//! The asyncio contract: a task's life. The table is in `asyncio.md`.

use std::cell::RefCell;
use std::collections::HashSet;
use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;

use mainstay::{
    CallbackId, ExceptionError, Executor, InvalidState, JoinHandle, LocalHandle, ReportPolicy,
    TaskId, current_task, spawn, yield_now,
};

use crate::support::{
    DropLog, Event, Fault, Recorder, Trace, check_accounting, counts, holding, quiet, yield_n,
};

// B027: both accessors say that it is pending, in every state before the end, and the loop goes on.
#[test]
fn the_outcome_of_a_pending_task_is_an_error_not_a_panic() {
    quiet();
    type Body = Pin<Box<dyn Future<Output = Result<u32, Fault>>>>;
    let bodies: [fn(Event) -> Body; 3] = [
        |event| {
            Box::pin(async move {
                event.wait().await;
                Ok(7)
            })
        },
        |event| {
            Box::pin(async move {
                event.wait().await;
                panic!("boom")
            })
        },
        |event| {
            Box::pin(async move {
                event.wait().await;
                Err(Fault("no"))
            })
        },
    ];
    for (n, body) in bodies.into_iter().enumerate() {
        let ex = Executor::builder()
            .report(ReportPolicy::IfUnretrieved)
            .build();
        let event = Event::new();
        let mut handle = ex.spawn_fallible(body(event.clone()));
        let look = |handle: &mut JoinHandle<Result<u32, Fault>>| {
            assert!(!handle.is_finished() && !handle.is_cancelled());
            assert!(matches!(handle.result(), Err(InvalidState::Pending)));
            assert_eq!(handle.exception().err(), Some(ExceptionError::Pending));
        };
        look(&mut handle); // never polled
        ex.run_until_stalled();
        look(&mut handle); // waiting
        event.set();
        look(&mut handle); // woken
        ex.run_until_stalled();
        assert_eq!(
            handle.exception().expect("finished").is_some(),
            n > 0,
            "case {n}"
        );
        match (n, handle.result().expect("finished")) {
            (0, value) => assert_eq!(value.expect("returned"), Ok(7)),
            (1, error) => assert!(error.expect_err("it failed").is_panic()),
            (_, value) => assert_eq!(value.expect("no panic"), Err(Fault("no"))),
        }
        check_accounting(&ex);
    }
}

// B029: the await gives an error that says so, and the task goes on with it.
#[test]
fn a_task_that_awaits_itself_is_told_so() {
    let ex = Executor::new();
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let trace = Trace::new();
    let (slot, log) = (Rc::clone(&own), trace.clone());
    let handle = ex.task().name("ouroboros").spawn(async move {
        let handle = slot.borrow_mut().take().expect("stored below");
        let error = handle.await.expect_err("it would never end");
        assert!(!error.is_cancelled() && !error.is_panic());
        log.push(error.to_string());
    });
    own.replace(Some(handle));
    ex.run_until_stalled();
    let said = trace.labels().concat();
    assert!(
        said.contains("ouroboros") && said.contains("its own handle"),
        "{said}"
    );
    assert_eq!(counts(&ex).returned, 1);
}

// B030: while it waits, however often; afterwards it is cancelled, and a cancel is too late.
#[test]
fn a_waiting_task_is_cancelled_once() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let drops = DropLog::new();
    let handle = ex.spawn(holding(drops.guard("future"), pending::<()>()));
    ex.run_until_stalled();
    assert!(handle.cancel_with_reason("first"));
    assert!(handle.cancel_with_reason("second"), "not finished yet");
    ex.run_until_stalled();
    drops.assert(&["future"]);
    assert!(handle.is_finished() && handle.is_cancelled());
    assert!(!handle.cancel() && !handle.cancel_handle().cancel());
    assert_eq!(handle.exception().err(), Some(ExceptionError::Cancelled));
    let error = ex.block_on(handle).expect_err("it was cancelled");
    assert!(error.is_cancelled());
    assert_eq!(error.reason(), Some("first"));
    assert_eq!(counts(&ex).cancelled, 1);
    assert!(recorder.is_empty(), "a cancelled task has not failed");
}

// B044: six of the same, each removed by its own id: it was there each time, and none runs.
#[test]
fn six_equal_callbacks_are_removed_and_none_runs() {
    let ex = Executor::new();
    let trace = Trace::new();
    let handle = ex.spawn(async {});
    let ids: Vec<CallbackId> = (0..6)
        .map(|_| {
            let trace = trace.clone();
            handle.add_done_callback(move |_| trace.push("called"))
        })
        .collect();
    let removed = ids
        .iter()
        .filter(|id| handle.remove_done_callback(**id))
        .count();
    assert_eq!(removed, 6);
    let again = ids
        .iter()
        .filter(|id| handle.remove_done_callback(**id))
        .count();
    assert_eq!(again, 0);
    ex.run_until_stalled();
    trace.assert(&[]);
}

// B048: the right one in each of two that take turns, whoever woke it; none in a callback, a done callback, a handler, a root.
#[test]
fn the_current_task_is_the_one_whose_code_runs() {
    quiet();
    let ex = Executor::new();
    type Seen = Vec<(&'static str, Option<TaskId>)>;
    let seen: Rc<RefCell<Seen>> = Rc::default();
    let look = {
        let seen = Rc::clone(&seen);
        move |place: &'static str| {
            let id = current_task().map(|task| task.id());
            seen.borrow_mut().push((place, id));
        }
    };
    let in_handler = look.clone();
    ex.set_exception_handler(move |_, _| in_handler("handler"));
    let turns = |place: &'static str| {
        let look = look.clone();
        async move {
            look(place);
            let (in_callback, in_drop) = (look.clone(), look.clone());
            LocalHandle::current().call_soon(move || in_callback("callback"));
            yield_now().await;
            look(place);
            let _dropped = crate::support::on_drop(move || in_drop(place));
            panic!("boom");
        }
    };
    let (a, b): (JoinHandle<()>, JoinHandle<()>) = (ex.spawn(turns("a")), ex.spawn(turns("b")));
    let in_done = look.clone();
    a.add_done_callback(move |_| in_done("done callback"));
    ex.block_on(async {
        look("root");
        yield_n(3).await;
    });
    let (a, b) = (Some(a.id()), Some(b.id()));
    let seen = seen.borrow();
    assert!(seen.len() >= 10, "{seen:?}");
    for (place, id) in seen.iter() {
        let expected = match *place {
            "a" => a,
            "b" => b,
            _ => None,
        };
        assert_eq!(*id, expected, "{place}");
    }
    for place in ["a", "b", "root", "callback", "handler", "done callback"] {
        assert!(seen.iter().any(|(seen, _)| *seen == place), "{place}");
    }
}

// B050: only those that have not ended, the one that asks among them, however the others ended.
#[test]
fn the_listing_has_what_has_not_ended() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let names = |tasks: Vec<mainstay::TaskInfo>| -> Vec<String> {
        tasks.iter().map(|task| task.name().to_owned()).collect()
    };
    let spawn_named = |name: &'static str| ex.task().name(name);
    let returned = spawn_named("returned").spawn(async {});
    let failed = spawn_named("failed").spawn(async { panic!("boom") });
    let erred = spawn_named("erred").spawn_fallible(async { Err::<(), _>(Fault("no")) });
    let waiting = spawn_named("waiting").spawn(pending::<()>());
    let cancelled = spawn_named("cancelled").spawn(pending::<()>());
    assert_eq!(names(ex.tasks()).len(), 5);
    ex.run_until_stalled();
    cancelled.cancel();
    ex.run_until_stalled();
    let asking = spawn_named("asking").spawn(async move {
        let other = spawn(pending::<()>());
        let tasks = LocalHandle::current().tasks();
        other.cancel();
        tasks
    });
    let tasks = ex.block_on(asking).expect("returned");
    let unnamed = tasks[2].name().to_owned();
    assert!(unnamed.starts_with("Task-"), "{unnamed}");
    assert_eq!(names(tasks), ["waiting", "asking", &unnamed]);
    assert_eq!(names(ex.tasks()), ["waiting"]);
    // The handles are still there: it is the tasks that are not.
    let failed: JoinHandle<()> = failed;
    assert!(returned.is_finished() && failed.is_finished() && erred.is_finished());
    drop(waiting);
}

// B052: names and ids are unique among unnamed tasks, also of several executors; a name is kept as it was given.
#[test]
fn unnamed_tasks_have_names_of_their_own() {
    let (one, two) = (Executor::new(), Executor::new());
    let handles: Vec<JoinHandle<()>> = (0..100)
        .map(|n| if n % 2 == 0 { &one } else { &two })
        .map(|ex| ex.spawn(async {}))
        .collect();
    let names: HashSet<String> = handles.iter().map(JoinHandle::name).collect();
    let ids: HashSet<TaskId> = handles.iter().map(JoinHandle::id).collect();
    assert_eq!((names.len(), ids.len()), (100, 100));
    for handle in &handles {
        assert_eq!(handle.name(), format!("Task-{}", handle.id()));
    }
    let mut named = one.task().name("Task-1").spawn(async {});
    assert_eq!(named.name(), "Task-1");
    one.run_until_stalled();
    assert_eq!(named.name(), "Task-1", "also when it has ended");
    assert!(matches!(named.result(), Ok(Ok(()))));
    assert_eq!(named.name(), "Task-1", "also when that was told");
}
