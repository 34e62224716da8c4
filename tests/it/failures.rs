//! The failure path: the handler family, what a handler is given and may do, the default and the process-wide handler, the
//! panic hook, and what a `JoinError` says (P2, P3, P6; api.md, Failures; design section 6).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::future::pending;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, panic_any, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;

use mainstay::{
    ContextKind, Exception, ExceptionContext, ExceptionError, Executor, InvalidState, JoinError,
    JoinHandle, LocalHandle, ReportPolicy, Stopped, TaskId,
};

use crate::support::{
    Boom, Counts, DropLog, Event, Fault, LogCapture, Recorder, Trace, check_accounting,
    counting_waker, counts, holding, in_child_ok, on_drop, panic_message, poll_once, poll_with,
    quiet, yield_n,
};

type Stash<T> = Rc<RefCell<Option<JoinHandle<T>>>>;

// ---------------------------------------------------------------------------------------------------------------------
// Setting, getting, clearing
// ---------------------------------------------------------------------------------------------------------------------

/// B001: no handler at first; the default one is never returned.
#[test]
fn a_new_executor_has_no_handler() {
    let ex = Executor::new();
    assert!(!ex.has_exception_handler());
    assert!(ex.exception_handler().is_none());
    assert!(!ex.handle().has_exception_handler());
}

/// B001: the handler that was set is the one that is got; clearing goes back to the default.
#[test]
fn the_getter_gives_the_handler_that_was_set() {
    quiet();
    let log = LogCapture::start();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    assert!(ex.has_exception_handler());
    let first = ex.exception_handler().expect("set above");
    let again = ex.exception_handler().expect("set above");
    assert!(Rc::ptr_eq(&first, &again));
    let local = ex.handle().exception_handler().expect("set above");
    assert!(Rc::ptr_eq(&first, &local));
    ex.clear_exception_handler();
    assert!(!ex.has_exception_handler());
    assert!(ex.exception_handler().is_none());
    ex.spawn(async { panic!("boom") }).detach();
    ex.run_until_stalled();
    assert!(recorder.is_empty());
    assert!(log.only().text.contains("boom"));
}

/// api.md: a handler can be wrapped and put back.
#[test]
fn a_handler_can_be_wrapped_and_put_back() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let trace = Trace::new();
    let inner = ex.exception_handler().expect("set above");
    ex.set_exception_handler({
        let (trace, inner) = (trace.clone(), Rc::clone(&inner));
        move |local, context| {
            trace.push("before");
            inner(local, context);
            trace.push("after");
        }
    });
    ex.spawn(async { panic!("boom wrapped") }).detach();
    ex.run_until_stalled();
    trace.assert(&["before", "after"]);
    ex.set_exception_handler(move |local, context| inner(local, context));
    ex.spawn(async { panic!("boom bare") }).detach();
    ex.run_until_stalled();
    trace.assert(&[]);
    assert_eq!(recorder.exceptions(), ["boom wrapped", "boom bare"]);
}

/// P6: a handler that the user keeps lives on after it was cleared, and can be called by hand.
#[test]
fn a_handler_that_is_kept_can_be_called_by_hand() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let kept = ex.exception_handler().expect("set above");
    ex.clear_exception_handler();
    let context = ExceptionContext::new("by hand").build();
    kept(&ex.handle(), &context);
    assert_eq!(recorder.only().message, "by hand");
}

/// api.md: a new handler takes the old one's place; there is no stack of them.
#[test]
fn a_second_handler_replaces_the_first() {
    quiet();
    let ex = Executor::new();
    let first = Recorder::on(&ex);
    let second = Recorder::on(&ex);
    ex.spawn(async { panic!("boom") }).detach();
    ex.run_until_stalled();
    assert!(first.is_empty());
    assert_eq!(second.len(), 1);
}

/// api.md, LocalHandle: it has the whole handler family.
#[test]
fn a_local_handle_has_the_handler_family() {
    let log = LogCapture::start();
    let ex = Executor::new();
    let local = ex.handle();
    let calls = Rc::new(Cell::new(0));
    local.set_exception_handler({
        let calls = Rc::clone(&calls);
        move |_, _| calls.set(calls.get() + 1)
    });
    assert!(ex.has_exception_handler());
    let context = ExceptionContext::new("by hand").build();
    local.call_exception_handler(&context);
    assert_eq!(calls.get(), 1);
    local.default_exception_handler(&context);
    assert_eq!(calls.get(), 1);
    assert!(log.only().text.contains("by hand"));
    local.clear_exception_handler();
    assert!(!ex.has_exception_handler());
}

/// Two executors on one thread have a handler each.
#[test]
fn executors_do_not_share_handlers() {
    quiet();
    let (one, other) = (Executor::new(), Executor::new());
    let (of_one, of_other) = (Recorder::on(&one), Recorder::on(&other));
    one.spawn(async { panic!("boom one") }).detach();
    other.spawn(async { panic!("boom other") }).detach();
    one.run_until_stalled();
    other.run_until_stalled();
    assert_eq!(of_one.exceptions(), ["boom one"]);
    assert_eq!(of_other.exceptions(), ["boom other"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// What the handler is given
// ---------------------------------------------------------------------------------------------------------------------

/// api.md, ExceptionContext: who failed, where it was spawned, how, and who may see it besides.
#[test]
fn a_report_of_a_panic_says_who_and_what() {
    quiet();
    let ex = Executor::new();
    let seen = Rc::new(Cell::new(false));
    let expected: Rc<Cell<Option<(TaskId, u32)>>> = Rc::default();
    ex.set_exception_handler({
        let (seen, expected) = (Rc::clone(&seen), Rc::clone(&expected));
        move |_, context| {
            let (id, line) = expected.get().expect("stored below");
            assert_eq!(context.kind(), ContextKind::TaskFailed);
            assert!(!context.message().is_empty());
            let task = context.task().expect("a task failed");
            assert_eq!(task.id(), id);
            assert_eq!(task.name(), "fetch");
            assert!(task.location().file().ends_with("failures.rs"));
            assert_eq!(task.location().line(), line);
            let exception = context.exception().expect("a panic");
            assert!(exception.is_panic());
            assert!(!exception.is_error());
            assert_eq!(exception.message(), "boom 7");
            assert_eq!(
                exception.downcast_ref::<String>().map(String::as_str),
                Some("boom 7")
            );
            assert!(exception.downcast_ref::<Boom>().is_none());
            assert!(context.handle_held());
            assert!(context.original().is_none());
            seen.set(true);
        }
    });
    let n = 7;
    let task = ex.task().name("fetch");
    let line = line!() + 1;
    let handle: JoinHandle<()> = task.spawn(async move { panic!("boom {n}") });
    expected.set(Some((handle.id(), line)));
    ex.run_until_stalled();
    assert!(seen.get(), "the handler ran to its end");
}

/// api.md, ExceptionContext: the same for an `Err`.
#[test]
fn a_report_of_an_err_says_who_and_what() {
    let ex = Executor::new();
    let seen = Rc::new(Cell::new(false));
    ex.set_exception_handler({
        let seen = Rc::clone(&seen);
        move |_, context| {
            assert_eq!(context.kind(), ContextKind::TaskFailed);
            let exception = context.exception().expect("an error");
            assert!(exception.is_error());
            assert!(!exception.is_panic());
            assert_eq!(exception.message(), "no such file");
            assert_eq!(
                exception.downcast_ref::<Fault>(),
                Some(&Fault("no such file"))
            );
            assert!(exception.downcast_ref::<String>().is_none());
            assert!(exception.location().is_none());
            assert!(exception.backtrace().is_none());
            assert!(!context.handle_held());
            // A view is `Copy`, and shows itself as the error does.
            let copy: Exception<'_> = exception;
            assert_eq!(
                format!("{exception} {copy:?}"),
                "no such file Fault(\"no such file\")"
            );
            seen.set(true);
        }
    });
    ex.spawn_fallible(async { Err::<(), _>(Fault("no such file")) })
        .detach();
    ex.run_until_stalled();
    assert!(seen.get(), "the handler ran to its end");
}

/// api.md, Exception: the panic messages of the three kinds of payload, after tokio's `test_join_error_display`.
#[test]
fn a_view_shows_the_message_of_a_panic_when_that_is_a_string() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.spawn(async { panic!("boom as a literal") }).detach();
    ex.spawn(async { panic_any(String::from("boom as a String")) })
        .detach();
    ex.spawn(async { panic_any(Boom("not text")) }).detach();
    ex.run_until_stalled();
    let messages = recorder.exceptions();
    assert_eq!(messages[..2], ["boom as a literal", "boom as a String"]);
    assert!(!messages[2].is_empty(), "there is a text for want of one");
}

/// B052: tasks without a name are told apart in reports, those with one carry it.
#[test]
fn reports_name_the_task() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let unnamed = ex.spawn(async { panic!("boom") });
    let other = ex.spawn(async { panic!("boom") });
    ex.task()
        .name("named")
        .spawn(async { panic!("boom") })
        .detach();
    ex.run_until_stalled();
    let (unnamed, other): (JoinHandle<()>, JoinHandle<()>) = (unnamed, other);
    assert_eq!(
        recorder.tasks(),
        [unnamed.name(), other.name(), "named".to_owned()]
    );
    assert_ne!(unnamed.name(), other.name());
    for name in [unnamed.name(), other.name()] {
        let number = name.strip_prefix("Task-").expect("asyncio's default name");
        assert!(number.parse::<u64>().is_ok(), "{name}");
    }
}

/// api.md, ExceptionContext: `handle_held` tells whether the failure may be seen elsewhere.
#[test]
fn a_report_says_whether_the_handle_is_held() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let held = ex.spawn(async { panic!("boom held") });
    drop(ex.spawn(async { panic!("boom dropped") }));
    ex.block_on(async {
        let awaited: JoinHandle<()> = mainstay::spawn(async { panic!("boom awaited") });
        drop(awaited.await);
    });
    let (held, reports): (JoinHandle<()>, _) = (held, recorder.reports());
    let told: Vec<bool> = reports.iter().map(|report| report.handle_held).collect();
    assert_eq!(told, [true, false, true]);
    drop(held);
}

/// api.md, ExceptionContext: `Display` says all of it in words.
#[test]
fn a_report_can_be_displayed() {
    let ex = Executor::new();
    let shown: Rc<RefCell<Vec<String>>> = Rc::default();
    ex.set_exception_handler({
        let shown = Rc::clone(&shown);
        move |_, context| {
            let headline = context.message().to_owned();
            let id = context.task().expect("a task").id().to_string();
            *shown.borrow_mut() = vec![context.to_string(), format!("{context:?}"), headline, id];
        }
    });
    ex.task()
        .name("shown")
        .spawn_fallible(async { Err::<(), _>(Fault("no such file")) })
        .detach();
    ex.run_until_stalled();
    let shown = shown.take();
    let [display, debug, headline, id] = shown.as_slice() else {
        panic!("the handler ran");
    };
    for part in [headline, id, "shown", "no such file", "failures.rs"] {
        assert!(display.contains(part), "{part} is not in {display}");
    }
    assert!(display.starts_with(headline.as_str()), "{display}");
    assert!(
        debug.contains("shown") && debug.contains("no such file"),
        "{debug}"
    );
}

/// An error whose `Display` and `Debug` panic.
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("boom in Display");
    }
}

impl fmt::Debug for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("boom in Debug");
    }
}

/// api.md: `Debug` of public types never panics. Reading: not even where it shows a user's error whose `Debug` does.
#[test]
fn debug_of_a_report_never_panics() {
    quiet();
    let ex = Executor::new();
    let shown = Rc::new(RefCell::new(String::new()));
    ex.set_exception_handler({
        let shown = Rc::clone(&shown);
        move |_, context| *shown.borrow_mut() = format!("{context:?}")
    });
    ex.task()
        .name("shown")
        .spawn_fallible(async { Err::<(), _>(Unspeakable) })
        .detach();
    ex.run_until_stalled();
    assert!(shown.borrow().contains("shown"), "{}", shown.borrow());
}

/// B025: a report without an exception has `None` there.
#[test]
fn a_report_of_a_destroyed_task_has_no_exception() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.task().name("pending").spawn(pending::<()>()).detach();
    ex.run_until_stalled();
    drop(ex);
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::DestroyedPending);
    assert_eq!(report.task.as_deref(), Some("pending"));
    assert_eq!((report.exception, report.panic), (None, None));
}

/// B026: a detached task's failure is told when it happens, in order, not at some later collection.
#[test]
fn failures_are_told_in_the_order_in_which_they_happen() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    for (name, yields) in [("third", 2), ("first", 0), ("second", 1)] {
        ex.task()
            .name(name)
            .spawn(async move {
                yield_n(yields).await;
                panic!("boom");
            })
            .detach();
    }
    ex.tick(3);
    assert_eq!(recorder.tasks(), ["first"]);
    ex.tick(2);
    assert_eq!(recorder.tasks(), ["first", "second"]);
    ex.tick(1);
    assert_eq!(recorder.tasks(), ["first", "second", "third"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// The finishing state
// ---------------------------------------------------------------------------------------------------------------------

/// Design section 6: inside the handler the task is finished, and its outcome cannot be taken yet.
#[test]
fn inside_the_handler_the_task_is_finished_and_not_published() {
    quiet();
    let ex = Executor::new();
    let stash: Stash<()> = Rc::default();
    let trace = Trace::new();
    ex.set_exception_handler({
        let (stash, trace) = (Rc::clone(&stash), trace.clone());
        move |_, context| {
            let mut handle = stash.take().expect("stored below");
            trace.push(format!("finished {}", handle.is_finished()));
            trace.push(format!("cancelled {}", handle.is_cancelled()));
            trace.push(format!("cancel {}", handle.cancel()));
            trace.push(format!("result {}", handle.result().is_err()));
            trace.push(format!("awaiter {}", poll_once(&mut handle).is_pending()));
            // The view outlives all that.
            let exception = context.exception().expect("a panic");
            trace.push(exception.message().into_owned());
            stash.replace(Some(handle));
        }
    });
    stash.replace(Some(ex.spawn(async { panic!("boom") })));
    ex.run_until_stalled();
    trace.assert(&[
        "finished true",
        "cancelled false",
        "cancel false",
        "result true",
        "awaiter true",
        "boom",
    ]);
    // Published after the handler.
    let mut handle = stash.take().expect("put back");
    let error = handle.result().expect("published").expect_err("it failed");
    assert!(error.is_panic());
    check_accounting(&ex);
}

/// Design section 6: a handler that drops the handle of the task it is told of leaves the view whole, under both policies.
#[test]
fn a_view_outlives_the_handle_that_the_handler_drops() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        let ex = Executor::builder().report(policy).build();
        let stash: Stash<Result<(), Fault>> = Rc::default();
        let trace = Trace::new();
        ex.set_exception_handler({
            let (stash, trace) = (Rc::clone(&stash), trace.clone());
            move |_, context| {
                let exception = context.exception().expect("an error");
                drop(stash.take());
                trace.push(exception.message().into_owned());
                trace.push(exception.downcast_ref::<Fault>().expect("the error").0);
                trace.push(context.task().expect("a task").name());
            }
        });
        let handle = ex
            .task()
            .name("dropped")
            .spawn_fallible(async { Err::<(), _>(Fault("no")) });
        if policy == ReportPolicy::OnFailure {
            stash.replace(Some(handle));
            ex.run_until_stalled();
        } else {
            ex.run_until_stalled();
            drop(handle);
        }
        trace.assert(&["no", "no", "dropped"]);
        assert_eq!((counts(&ex).reported, counts(&ex).reports), (1, 1));
    }
}

/// Design section 6: the awaiter is woken only when handler and callbacks have seen the failure.
#[test]
fn the_awaiter_goes_on_after_the_handler() {
    quiet();
    let ex = Executor::new();
    let trace = Trace::new();
    ex.set_exception_handler({
        let trace = trace.clone();
        move |_, _| trace.push("handler")
    });
    let failing = ex.spawn(async {
        yield_n(1).await;
        panic!("boom");
    });
    failing.add_done_callback({
        let trace = trace.clone();
        move |_| trace.push("callback")
    });
    ex.spawn({
        let trace = trace.clone();
        async move {
            let outcome: Result<(), JoinError> = failing.await;
            assert!(outcome.is_err());
            trace.push("awaiter");
        }
    })
    .detach();
    ex.run_until_stalled();
    trace.assert(&["handler", "callback", "awaiter"]);
}

/// api.md, JoinHandle: the accessors before, at and after the end.
#[test]
fn the_accessors_follow_the_task() {
    let ex = Executor::new();
    let mut handle = ex.spawn(async {
        yield_n(1).await;
        7
    });
    let state: Result<_, InvalidState> = handle.result();
    assert!(!state.expect_err("pending").to_string().is_empty());
    assert_eq!(handle.exception().err(), Some(ExceptionError::Pending));
    ex.run_until_stalled();
    assert!(handle.exception().expect("finished").is_none());
    assert_eq!(handle.result().expect("finished").expect("returned"), 7);
    // Reading: what was taken is not there a second time, and says so.
    assert!(handle.result().is_err());
    // asyncio: the exception of a task that returned is none, however often it is asked for.
    assert!(handle.exception().expect("it returned").is_none());
    assert!(handle.is_finished());
    assert!(!handle.is_cancelled());
}

/// api.md, JoinHandle: of several wakers that polled a handle the last one is woken, once, when the outcome can be taken.
#[test]
fn the_last_waker_that_polled_a_handle_is_woken() {
    let ex = Executor::new();
    let event = Event::new();
    let mut handle = ex.spawn({
        let event = event.clone();
        async move {
            event.wait().await;
            7
        }
    });
    let (first, first_count) = counting_waker();
    let (last, last_count) = counting_waker();
    for waker in [&first, &first, &last, &last] {
        assert!(poll_with(&mut handle, waker).is_pending());
    }
    ex.run_until_stalled();
    assert_eq!(last_count.wakes(), 0);
    event.set();
    ex.run_until_stalled();
    assert_eq!((first_count.wakes(), last_count.wakes()), (0, 1));
    assert!(matches!(poll_with(&mut handle, &last), Poll::Ready(Ok(7))));
}

/// api.md, JoinHandle: a handle that is first polled after the end is ready at once, for each of the endings.
#[test]
fn a_handle_polled_after_the_end_is_ready() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let mut returned = ex.spawn(async { 7 });
    let mut failed: JoinHandle<()> = ex.spawn(async { panic!("boom") });
    let mut cancelled = ex.spawn(pending::<()>());
    cancelled.cancel();
    ex.run_until_stalled();
    assert!(matches!(poll_once(&mut returned), Poll::Ready(Ok(7))));
    assert!(matches!(poll_once(&mut failed), Poll::Ready(Err(error)) if error.is_panic()));
    assert!(matches!(poll_once(&mut cancelled), Poll::Ready(Err(error)) if error.is_cancelled()));
}

/// api.md, JoinHandle: `exception()` shows an `Err` where that counts, and `None` where it does not.
#[test]
fn exception_shows_an_err_where_it_counts() {
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let counted = ex.spawn_fallible(async { Err::<(), _>(Fault("no")) });
    let plain = ex.spawn(async { Err::<(), _>(Fault("no")) });
    ex.run_until_stalled();
    let exception = counted.exception().expect("finished").expect("it failed");
    assert!(exception.is_error());
    assert_eq!(exception.downcast_ref::<Fault>(), Some(&Fault("no")));
    assert!(plain.exception().expect("finished").is_none());
}

// ---------------------------------------------------------------------------------------------------------------------
// What the handler may do
// ---------------------------------------------------------------------------------------------------------------------

/// behaviours.md 1.1: replacing the handler from inside itself affects the very next report of the same pass.
#[test]
fn a_handler_that_replaces_itself_is_not_called_again() {
    quiet();
    let ex = Executor::new();
    let second = Recorder::new();
    let drops = DropLog::new();
    let trace = Trace::new();
    let captured = drops.guard("first handler");
    ex.set_exception_handler({
        let (second, drops, trace) = (second.clone(), drops.clone(), trace.clone());
        move |local, _| {
            let second = second.clone();
            local.set_exception_handler(move |_, context| second.record(context));
            // What runs is not freed under its own feet.
            assert!(format!("{captured:?}").contains("first handler"));
            assert_eq!(drops.len(), 0);
            trace.push("first handler");
        }
    });
    for n in 0..3 {
        ex.spawn(async move { panic!("boom {n}") }).detach();
    }
    ex.run_until_stalled();
    trace.assert(&["first handler"]);
    assert_eq!(second.exceptions(), ["boom 1", "boom 2"]);
    drops.assert(&["first handler"]);
}

/// The same for a handler that clears itself: the default handler is next.
#[test]
fn a_handler_that_clears_itself_leaves_the_rest_to_the_default() {
    quiet();
    let log = LogCapture::start();
    let ex = Executor::new();
    let calls = Rc::new(Cell::new(0));
    ex.set_exception_handler({
        let calls = Rc::clone(&calls);
        move |local, _| {
            calls.set(calls.get() + 1);
            local.clear_exception_handler();
        }
    });
    for n in 0..2 {
        ex.spawn(async move { panic!("boom {n}") }).detach();
    }
    ex.run_until_stalled();
    assert_eq!(calls.get(), 1);
    assert!(log.only().text.contains("boom 1"));
    assert_eq!(counts(&ex).reported, 2);
}

/// P6: a handler may spawn, cancel, wake and look.
#[test]
fn a_handler_may_spawn_cancel_wake_and_look() {
    quiet();
    let ex = Executor::new();
    let trace = Trace::new();
    let event = Event::new();
    let waiting = ex.task().name("waiting").spawn({
        let (trace, event) = (trace.clone(), event.clone());
        async move {
            event.wait().await;
            trace.push("woken");
        }
    });
    let victim = ex.task().name("victim").spawn(pending::<()>());
    ex.set_exception_handler({
        let (trace, canceller) = (trace.clone(), victim.cancel_handle());
        move |local, _| {
            assert!(canceller.cancel());
            event.set();
            local
                .spawn({
                    let trace = trace.clone();
                    async move { trace.push("spawned") }
                })
                .detach();
            let mut names: Vec<String> = local
                .tasks()
                .iter()
                .map(|task| task.name().to_owned())
                .collect();
            names.sort();
            trace.push(names[names.len() - 1].clone());
            trace.push(format!("{} live", local.stats().live));
        }
    });
    ex.run_until_stalled();
    ex.spawn(async { panic!("boom") }).detach();
    ex.run_until_stalled();
    trace.assert(&["waiting", "2 live", "woken", "spawned"]);
    assert!(victim.is_cancelled());
    assert!(waiting.is_finished());
    assert!(ex.is_empty());
}

/// Design section 6: failures that arise while a handler runs are told after it, not inside it.
#[test]
fn a_failure_that_arises_in_a_handler_is_told_after_it() {
    quiet();
    let ex = Executor::new();
    let trace = Trace::new();
    let guard = DropLog::new().guard("victim").panics("boom in drop");
    let victim = ex
        .task()
        .name("victim")
        .spawn(holding(guard, pending::<()>()));
    ex.set_exception_handler({
        let (trace, canceller) = (trace.clone(), victim.cancel_handle());
        move |_, context| {
            let name = context.task().expect("a task").name().to_owned();
            trace.push(format!("{name} begins"));
            canceller.cancel();
            trace.push(format!("{name} ends, {}", canceller.is_finished()));
        }
    });
    ex.task()
        .name("first")
        .spawn(async {
            yield_n(1).await;
            panic!("boom");
        })
        .detach();
    ex.run_until_stalled();
    trace.assert(&[
        "first begins",
        "first ends, true",
        "victim begins",
        "victim ends, true",
    ]);
    assert_eq!((counts(&ex).failed, counts(&ex).reported), (2, 2));
}

/// Design section 6: the same for an unread failure whose handle a handler drops, outside the loop too.
#[test]
fn an_unread_handle_dropped_in_a_handler_is_told_after_it() {
    quiet();
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();
    let trace = Trace::new();
    let spawn = |name: &'static str| -> JoinHandle<()> {
        ex.task().name(name).spawn(async { panic!("boom") })
    };
    let (first, second) = (spawn("first"), spawn("second"));
    let stash: Stash<()> = Rc::new(RefCell::new(Some(second)));
    ex.set_exception_handler({
        let (stash, trace) = (Rc::clone(&stash), trace.clone());
        move |_, context| {
            let name = context.task().expect("a task").name().to_owned();
            trace.push(format!("{name} begins"));
            drop(stash.take());
            trace.push(format!("{name} ends"));
        }
    });
    ex.run_until_stalled();
    trace.assert(&[]);
    drop(first);
    trace.assert(&["first begins", "first ends", "second begins", "second ends"]);
    assert_eq!(counts(&ex).reported, 2);
}

/// P2: a handler that spawns a failing task each time is told of each, without recursion.
#[test]
fn a_handler_that_spawns_failing_tasks_is_told_of_each() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::new();
    let on_stack = Rc::new(Cell::new(0));
    ex.set_exception_handler({
        let (recorder, on_stack) = (recorder.clone(), Rc::clone(&on_stack));
        move |local, context| {
            on_stack.set(on_stack.get() + 1);
            recorder.record(context);
            if recorder.len() < 100 && on_stack.get() == 1 {
                local.spawn(async { panic!("boom") }).detach();
            }
            on_stack.set(on_stack.get() - 1);
        }
    });
    ex.spawn(async { panic!("boom") }).detach();
    ex.run_until_stalled();
    assert_eq!(recorder.len(), 100);
    assert_eq!((counts(&ex).failed, counts(&ex).reported), (100, 100));
}

/// api.md, Stopping: a handler may end the loop politely.
#[test]
fn a_handler_may_stop_the_loop() {
    quiet();
    let ex = Executor::new();
    let trace = Trace::new();
    ex.set_exception_handler(|local, _| local.stop());
    ex.spawn(async { panic!("boom") }).detach();
    ex.spawn({
        let trace = trace.clone();
        async move {
            trace.push("the pass ends first");
            yield_n(1).await;
            trace.push("next run");
        }
    })
    .detach();
    ex.run_forever();
    trace.assert(&["the pass ends first"]);
    ex.run_until_stalled();
    trace.assert(&["next run"]);
}

/// B017, behaviours.md, decisions: `stop_with` from a handler is "crash on any task panic"; what was ready stays ready.
#[test]
fn a_handler_may_crash_the_loop() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|local, _| local.stop_with(Box::new(Boom("fatal"))));
    ex.spawn(async { panic!("boom") }).detach();
    let survivor = ex.spawn(async {
        yield_n(3).await;
        7
    });
    let unwound = catch_unwind(AssertUnwindSafe(|| ex.block_on(pending::<()>())));
    let payload = unwound.expect_err("stopped with a payload");
    assert_eq!(payload.downcast_ref::<Boom>(), Some(&Boom("fatal")));
    // Not closed: the rest of the queue is there.
    assert!(!ex.is_running());
    ex.clear_exception_handler();
    assert_eq!(ex.block_on(survivor).expect("returned"), 7);
}

/// api.md, Stopping: `try_block_on` gives that payload instead of unwinding.
#[test]
fn a_crash_can_be_caught_as_a_value() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|local, _| local.stop_with(Box::new(Boom("fatal"))));
    ex.spawn(async { panic!("boom") }).detach();
    let stopped: Stopped = ex
        .try_block_on(pending::<()>())
        .expect_err("stopped with a payload");
    let payload = stopped.into_payload().expect("the payload");
    assert_eq!(payload.downcast_ref::<Boom>(), Some(&Boom("fatal")));
}

/// P6: a handler that is told outside the loop, by the drop of a handle, can use its `LocalHandle` as well.
#[test]
fn a_handler_told_outside_the_loop_may_spawn() {
    quiet();
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();
    let ran = Rc::new(Cell::new(false));
    ex.set_exception_handler({
        let ran = Rc::clone(&ran);
        move |local, _| {
            let ran = Rc::clone(&ran);
            local.spawn(async move { ran.set(true) }).detach();
        }
    });
    let handle: JoinHandle<()> = ex.spawn(async { panic!("boom") });
    ex.run_until_stalled();
    drop(handle);
    assert_eq!(ex.len(), 1);
    ex.run_until_stalled();
    assert!(ran.get());
}

/// P1, design section 7: a handler that keeps a `LocalHandle` of its own executor does not keep the executor alive.
#[test]
fn a_handler_that_holds_a_local_handle_does_not_leak_the_executor() {
    let drops = DropLog::new();
    let ex: Executor<'static> = Executor::new();
    let (local, captured) = (ex.handle(), drops.guard("handler"));
    ex.set_exception_handler(move |_, _| {
        assert!(format!("{captured:?}").contains("handler"));
        local.stop();
    });
    ex.task()
        .background()
        .spawn(holding(drops.guard("task"), pending::<()>()))
        .detach();
    drop(ex);
    assert_eq!(drops.count("task"), 1);
    assert_eq!(drops.count("handler"), 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// Reports of the user's own
// ---------------------------------------------------------------------------------------------------------------------

/// api.md, ExceptionContext: users report their own, with each of the builder's parts.
#[test]
fn users_may_report_their_own() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);

    ex.call_exception_handler(&ExceptionContext::new("bare").build());

    let fault = Fault("a typed error");
    ex.call_exception_handler(&ExceptionContext::new("typed").error(&fault).build());

    let boxed: Box<dyn Error> = Box::new(Fault("a boxed error"));
    ex.call_exception_handler(&ExceptionContext::new("boxed").source(&*boxed).build());

    let payload: Box<dyn Any + Send> = catch_unwind(|| panic!("boom by hand"))
        .map(|never: ()| never)
        .expect_err("it panicked");
    ex.call_exception_handler(&ExceptionContext::new("panicked").panic(&payload).build());

    let task = ex.task().name("blamed").spawn(pending::<()>());
    let info = ex.tasks().remove(0);
    ex.call_exception_handler(&ExceptionContext::new("of a task").task(info).build());

    let reports = recorder.reports();
    assert_eq!(recorder.kinds(), [ContextKind::Other; 5]);
    let messages: Vec<&str> = reports
        .iter()
        .map(|report| report.message.as_str())
        .collect();
    assert_eq!(
        messages,
        ["bare", "typed", "boxed", "panicked", "of a task"]
    );
    assert_eq!(
        recorder.exceptions(),
        ["", "a typed error", "a boxed error", "boom by hand", ""]
    );
    assert_eq!(recorder.tasks(), ["", "", "", "", "blamed"]);
    let panics: Vec<Option<bool>> = reports.iter().map(|report| report.panic).collect();
    assert_eq!(panics, [None, Some(false), Some(false), Some(true), None]);
    assert_eq!((counts(&ex).reports, counts(&ex).failed), (5, 0));
    drop(task);
}

/// api.md, Exception: a view of the user's own error or payload can be looked into.
#[test]
fn a_view_of_the_users_own_error_can_be_downcast() {
    let fault = Fault("typed");
    let context = ExceptionContext::new("typed").error(&fault).build();
    let exception = context.exception().expect("set above");
    assert_eq!(exception.downcast_ref::<Fault>(), Some(&fault));
    assert!(exception.is_error());

    let payload: Box<dyn Any + Send> = Box::new(Boom("by hand"));
    let context = ExceptionContext::new("panicked").panic(&payload).build();
    let exception = context.exception().expect("set above");
    assert_eq!(exception.downcast_ref::<Boom>(), Some(&Boom("by hand")));
    assert!(exception.is_panic());
    assert!(context.task().is_none());
    assert!(!context.handle_held());
    assert!(context.original().is_none());
    assert_eq!(context.kind(), ContextKind::Other);
}

/// api.md: a report that a handler makes itself nests; eight of them on the stack are all told.
#[test]
fn reports_that_a_handler_makes_nest_to_a_depth_of_eight() {
    let log = LogCapture::start();
    let ex = Executor::new();
    let trace = Trace::new();
    ex.set_exception_handler({
        let trace = trace.clone();
        move |local, context| {
            let depth: usize = context.message().parse().expect("a number");
            trace.push(format!("{depth} begins"));
            if depth < 8 {
                let deeper = (depth + 1).to_string();
                local.call_exception_handler(&ExceptionContext::new(deeper.as_str()).build());
            }
            trace.push(format!("{depth} ends"));
        }
    });
    ex.call_exception_handler(&ExceptionContext::new("1").build());
    let mut expected: Vec<String> = (1..=8).map(|depth| format!("{depth} begins")).collect();
    expected.extend((1..=8).rev().map(|depth| format!("{depth} ends")));
    assert_eq!(trace.labels(), expected);
    assert!(log.records().is_empty());
    assert_eq!(counts(&ex).reports, 8);
}

/// A handler that is told outside of any drive may drive; what fails after that is told after it all the same.
#[test]
fn what_fails_after_a_handlers_own_drive_is_told_after_it() {
    quiet();
    let ex = Rc::new(
        Executor::builder()
            .report(ReportPolicy::IfUnretrieved)
            .build(),
    );
    let [first, second] =
        ["first", "second"].map(|name| ex.task().name(name).spawn(async { panic!("boom") }));
    ex.run_until_stalled();
    let trace = Trace::new();
    let (log, own, second) = (trace.clone(), Rc::downgrade(&ex), Cell::new(Some(second)));
    ex.set_exception_handler(move |_, report| {
        let name = report.task().unwrap().name().to_owned();
        log.push(format!("{name} begins"));
        own.upgrade().unwrap().run_until_stalled();
        drop(second.take());
        log.push(format!("{name} ends"));
    });
    drop(first);
    trace.assert(&["first begins", "first ends", "second begins", "second ends"]);
}

/// api.md: deeper ones go to the default handler, so that nothing recurses for ever and nothing is lost.
/// Reading: eight handlers are on the stack at most; whether the outermost counts as one of the nested is left open.
#[test]
fn deeper_reports_go_to_the_default_handler() {
    let log = LogCapture::start();
    let ex = Executor::new();
    let calls = Rc::new(Cell::new(0));
    ex.set_exception_handler({
        let calls = Rc::clone(&calls);
        move |local, _| {
            calls.set(calls.get() + 1);
            let message = format!("call {}", calls.get());
            local.call_exception_handler(&ExceptionContext::new(message.as_str()).build());
        }
    });
    ex.call_exception_handler(&ExceptionContext::new("outermost").build());
    assert!((8..=9).contains(&calls.get()), "{} calls", calls.get());
    let deepest = format!("call {}", calls.get());
    assert!(log.only().text.contains(&deepest));
    // And the handler is whole again afterwards.
    calls.set(0);
    ex.call_exception_handler(&ExceptionContext::new("outermost").build());
    assert!((8..=9).contains(&calls.get()), "{} calls", calls.get());
    assert_eq!(log.records().len(), 2);
}

// ---------------------------------------------------------------------------------------------------------------------
// The default handler
// ---------------------------------------------------------------------------------------------------------------------

/// Asserts that the parts occur in `text`, in this order.
#[track_caller]
fn assert_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some(at) = rest.find(part) else {
            panic!("{part:?} is missing, or out of order, in\n{text}");
        };
        rest = &rest[at + part.len()..];
    }
}

/// B003, B020, api.md: one `error` record, target `mainstay`: headline, then id, name and spawn location, then the exception
/// as `{}` and as `{:?}`.
#[test]
fn the_default_handler_writes_one_record() {
    let log = LogCapture::start();
    let ex = Executor::new();
    let task = ex.task().name("fetch");
    let line = line!() + 1;
    let handle = task.spawn_fallible(async { Err::<(), _>(Fault("no such file")) });
    let id = handle.id().to_string();
    ex.run_until_stalled();
    let record = log.only();
    assert_eq!(record.level, log::Level::Error);
    assert_eq!(record.target, "mainstay");
    let headline = record.text.lines().next().expect("a headline");
    assert!(!headline.is_empty());
    assert_in_order(&record.text, &[headline, "fetch", "no such file"]);
    assert_in_order(
        &record.text,
        &[
            headline,
            &format!("failures.rs:{line}"),
            "no such file",
            "Fault(\"no such file\")",
        ],
    );
    let after_headline = &record.text[headline.len()..];
    assert!(after_headline.contains(&id), "{}", record.text);
}

/// api.md: the same for a panic, told at once and told late.
#[test]
fn the_default_handler_shows_a_panic() {
    quiet();
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        let log = LogCapture::start();
        let ex = Executor::builder().report(policy).build();
        let handle: JoinHandle<()> = ex
            .task()
            .name("fetch")
            .spawn(async { panic!("boom in fetch") });
        ex.run_until_stalled();
        drop(handle);
        let record = log.only();
        assert_eq!(record.level, log::Level::Error);
        assert_in_order(&record.text, &["fetch", "boom in fetch"]);
    }
}

/// B004: the record of a failure that nobody retrieved says that.
#[test]
fn the_record_of_a_late_report_differs_in_its_headline() {
    quiet();
    let headline = |policy| {
        let log = LogCapture::start();
        let ex = Executor::builder().report(policy).build();
        let handle: JoinHandle<()> = ex.spawn(async { panic!("boom") });
        ex.run_until_stalled();
        drop(handle);
        let text = log.only().text;
        text.lines().next().expect("a headline").to_owned()
    };
    let (at_once, late) = (
        headline(ReportPolicy::OnFailure),
        headline(ReportPolicy::IfUnretrieved),
    );
    assert_ne!(at_once, late);
    assert!(late.contains("never retrieved"), "{late}");
}

/// api.md: an anyhow error prints its chain in the record.
#[test]
fn the_default_handler_prints_the_chain_of_an_anyhow_error() {
    let log = LogCapture::start();
    let ex = Executor::new();
    ex.spawn_fallible(async {
        let low = anyhow::Error::new(Fault("no such file"));
        Err::<(), _>(low.context("cannot read the settings"))
    })
    .detach();
    ex.run_until_stalled();
    assert_in_order(
        &log.only().text,
        &["cannot read the settings", "Caused by", "no such file"],
    );
}

/// B019: a report without a message gets a headline all the same.
#[test]
fn a_report_without_a_message_has_a_headline() {
    let log = LogCapture::start();
    let ex = Executor::new();
    ex.call_exception_handler(&ExceptionContext::new("").build());
    let text = log.only().text;
    let headline = text.lines().next().expect("a headline");
    assert!(headline.contains("Unhandled exception"), "{headline:?}");
}

/// api.md: `default_exception_handler` can be delegated to, and does not come back to the handler.
#[test]
fn a_handler_may_delegate_to_the_default() {
    quiet();
    let log = LogCapture::start();
    let ex = Executor::new();
    let calls = Rc::new(Cell::new(0));
    ex.set_exception_handler({
        let calls = Rc::clone(&calls);
        move |local, context| {
            calls.set(calls.get() + 1);
            local.default_exception_handler(context);
        }
    });
    ex.spawn(async { panic!("boom delegated") }).detach();
    ex.run_until_stalled();
    assert_eq!(calls.get(), 1);
    assert!(log.only().text.contains("boom delegated"));
    assert_eq!(counts(&ex).reported, 1);
}

/// B021: where an error's `Display` or `Debug` panics, the rest of the record is still written.
#[test]
fn an_error_that_cannot_be_shown_does_not_take_the_record_with_it() {
    let test = "failures::an_error_that_cannot_be_shown_does_not_take_the_record_with_it";
    let stderr = in_child_ok(test, &[], || {
        quiet();
        let log = LogCapture::start();
        let ex = Executor::new();
        ex.task()
            .name("clumsy")
            .spawn_fallible(async { Err::<(), _>(Unspeakable) })
            .detach();
        ex.run_until_stalled();
        assert_eq!(counts(&ex).reported, 1);
        // Whether it is the record or the last-resort line that tells of it is left open.
        for record in log.records() {
            writeln!(io::stderr(), "{}", record.text).expect("stderr is open");
        }
    });
    if let Some(stderr) = stderr {
        assert!(stderr.contains("clumsy"), "{stderr}");
    }
}

/// api.md, design section 6: a logger that panics leaves one last-resort line on stderr, which names the task.
/// Reading: "one line" is meant: what it says of the report is on that line.
#[test]
fn a_logger_that_panics_leaves_one_line_on_stderr() {
    let test = "failures::a_logger_that_panics_leaves_one_line_on_stderr";
    let stderr = in_child_ok(test, &[], || {
        quiet();
        let log = LogCapture::start();
        log.panics(true);
        let ex = Executor::new();
        ex.task()
            .name("unlogged")
            .spawn(async { panic!("boom in poll") })
            .detach();
        ex.run_until_stalled();
        assert_eq!(counts(&ex).reported, 1);
    });
    if let Some(stderr) = stderr {
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 1, "{stderr}");
        assert!(lines[0].contains("unlogged"), "{stderr}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A handler that panics
// ---------------------------------------------------------------------------------------------------------------------

/// api.md, behaviours.md 1.2: its panic and the report it was given both go to the default handler, in one record.
#[test]
fn a_panicking_handler_and_its_report_share_one_record() {
    quiet();
    let log = LogCapture::start();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| panic!("boom in the handler"));
    ex.task()
        .name("victim")
        .spawn(async { panic!("boom in the task") })
        .detach();
    ex.run_until_stalled();
    let record = log.only();
    for part in ["boom in the handler", "victim", "boom in the task"] {
        assert!(
            record.text.contains(part),
            "{part} is not in {}",
            record.text
        );
    }
    assert_eq!((counts(&ex).failed, counts(&ex).reported), (1, 1));
}

/// api.md: it stays installed, and is called again for the next report.
#[test]
fn a_panicking_handler_stays_installed() {
    quiet();
    let log = LogCapture::start();
    let ex = Executor::new();
    let recorder = Recorder::new();
    ex.set_exception_handler({
        let recorder = recorder.clone();
        move |_, context| {
            recorder.record(context);
            if recorder.len() == 1 {
                panic!("boom in the handler");
            }
        }
    });
    let before = ex.exception_handler().expect("set above");
    for n in 0..3 {
        ex.spawn(async move { panic!("boom {n}") }).detach();
    }
    ex.run_until_stalled();
    let after = ex.exception_handler().expect("it stays");
    assert!(Rc::ptr_eq(&before, &after));
    assert_eq!(recorder.exceptions(), ["boom 0", "boom 1", "boom 2"]);
    assert_eq!(log.records().len(), 1);
}

/// P2: what a panicking handler had queued before (a failure that arose in it) is still told.
#[test]
fn a_failure_that_arose_in_a_panicking_handler_is_told() {
    quiet();
    let log = LogCapture::start();
    let ex = Executor::new();
    let recorder = Recorder::new();
    let guard = DropLog::new().guard("victim").panics("boom in drop");
    let victim = ex
        .task()
        .name("victim")
        .spawn(holding(guard, pending::<()>()));
    ex.set_exception_handler({
        let (recorder, canceller) = (recorder.clone(), victim.cancel_handle());
        move |_, context| {
            recorder.record(context);
            canceller.cancel();
            panic!("boom in the handler");
        }
    });
    ex.task()
        .name("first")
        .spawn(async { panic!("boom") })
        .detach();
    ex.run_until_stalled();
    assert_eq!(recorder.tasks(), ["first", "victim"]);
    assert_eq!(log.records().len(), 2);
    assert_eq!((counts(&ex).failed, counts(&ex).reported), (2, 2));
}

/// api.md: a panicking handler among nested ones: each nested report is told, and the outer handler goes on.
#[test]
fn a_panic_in_a_nested_handler_does_not_end_the_outer_one() {
    quiet();
    let log = LogCapture::start();
    let ex = Executor::new();
    let trace = Trace::new();
    ex.set_exception_handler({
        let trace = trace.clone();
        move |local, context| {
            if context.message() == "inner" {
                panic!("boom in the inner handler");
            }
            local.call_exception_handler(&ExceptionContext::new("inner").build());
            trace.push("outer goes on");
        }
    });
    ex.call_exception_handler(&ExceptionContext::new("outer").build());
    trace.assert(&["outer goes on"]);
    let text = log.only().text;
    assert!(
        text.contains("boom in the inner handler") && text.contains("inner"),
        "{text}"
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// The process-wide handler (in processes of its own, because it is that)
// ---------------------------------------------------------------------------------------------------------------------

type Told = Arc<Mutex<Vec<String>>>;

/// Sets a process-wide handler that keeps kind, task and message of each report.
fn set_process_wide() -> Told {
    let told = Told::default();
    mainstay::set_default_exception_handler({
        let told = Arc::clone(&told);
        move |context| {
            let task = context.task().map(|task| task.name().to_owned());
            let message = context
                .exception()
                .map(|exception| exception.message().into_owned());
            told.lock().expect("not poisoned").push(format!(
                "{:?} {} {}",
                context.kind(),
                task.unwrap_or_default(),
                message.unwrap_or_default()
            ));
        }
    });
    told
}

/// api.md: the process-wide handler serves executors without a handler, on any thread, and no others.
#[test]
fn the_process_wide_handler_serves_executors_without_a_handler() {
    let test = "failures::the_process_wide_handler_serves_executors_without_a_handler";
    in_child_ok(test, &[], || {
        quiet();
        let log = LogCapture::start();
        let told = set_process_wide();
        let (with, without) = (Executor::new(), Executor::new());
        let recorder = Recorder::on(&with);
        for ex in [&with, &without] {
            ex.task()
                .name("panicked")
                .spawn(async { panic!("boom") })
                .detach();
            ex.task()
                .name("erred")
                .spawn_fallible(async { Err::<(), _>(Fault("no")) })
                .detach();
            ex.run_until_stalled();
            assert_eq!(counts(ex).reported, 2);
        }
        assert_eq!(recorder.exceptions(), ["boom", "no"]);
        let expected = ["TaskFailed panicked boom", "TaskFailed erred no"];
        assert_eq!(*told.lock().expect("not poisoned"), expected);

        // It is nobody's own handler.
        assert!(!without.has_exception_handler());
        assert!(without.exception_handler().is_none());

        // Back to the default means: to this one.
        with.clear_exception_handler();
        with.spawn_fallible(async { Err::<(), _>(Fault("after clearing")) })
            .detach();
        with.run_until_stalled();
        assert_eq!(recorder.len(), 2);
        assert_eq!(told.lock().expect("not poisoned").len(), 3);

        let elsewhere = thread::spawn(|| {
            let ex = Executor::new();
            ex.task()
                .name("elsewhere")
                .spawn(async { panic!("boom") })
                .detach();
            ex.run_until_stalled();
        });
        elsewhere.join().expect("contained");
        let last = told.lock().expect("not poisoned").pop();
        assert_eq!(last.as_deref(), Some("TaskFailed elsewhere boom"));
        assert!(log.records().is_empty(), "nothing is logged besides");
    });
}

/// api.md, `original()`: a handler that panics. Reading: the default handler that is told of it is the process-wide one,
/// where there is one.
#[test]
fn the_process_wide_handler_is_told_of_a_panicking_handler() {
    let test = "failures::the_process_wide_handler_is_told_of_a_panicking_handler";
    in_child_ok(test, &[], || {
        quiet();
        let told = Told::default();
        mainstay::set_default_exception_handler({
            let told = Arc::clone(&told);
            move |context| {
                let original = context.original().expect("the report it was given");
                let parts = [
                    format!("{:?}", context.kind()),
                    context
                        .exception()
                        .expect("its panic")
                        .message()
                        .into_owned(),
                    format!("{:?}", original.kind()),
                    original
                        .exception()
                        .expect("the error")
                        .message()
                        .into_owned(),
                    original.task().expect("the task").name().to_owned(),
                    format!("{}", original.original().is_none()),
                ];
                told.lock().expect("not poisoned").extend(parts);
            }
        });
        let ex = Executor::new();
        ex.set_exception_handler(|_, _| panic!("boom in the handler"));
        ex.task()
            .name("victim")
            .spawn_fallible(async { Err::<(), _>(Fault("no")) })
            .detach();
        ex.run_until_stalled();
        assert_eq!(
            *told.lock().expect("not poisoned"),
            [
                "Handler",
                "boom in the handler",
                "TaskFailed",
                "no",
                "victim",
                "true"
            ]
        );
    });
}

/// P3: a process-wide handler that panics is contained, and the report is not lost.
#[test]
fn a_process_wide_handler_that_panics_is_contained() {
    let test = "failures::a_process_wide_handler_that_panics_is_contained";
    in_child_ok(test, &[], || {
        quiet();
        let log = LogCapture::start();
        mainstay::set_default_exception_handler(|_| panic!("boom in the process-wide handler"));
        let ex = Executor::new();
        ex.task()
            .name("victim")
            .spawn(async { panic!("boom in the task") })
            .detach();
        let sibling = ex.spawn(yield_n(5));
        ex.run_until_stalled();
        assert!(sibling.is_finished());
        assert_eq!(counts(&ex).reported, 1);
        let text = log.only().text;
        for part in [
            "boom in the process-wide handler",
            "victim",
            "boom in the task",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    });
}

/// api.md: a later one takes its place; it may itself run an executor.
#[test]
fn a_process_wide_handler_can_be_replaced_from_within_itself() {
    let test = "failures::a_process_wide_handler_can_be_replaced_from_within_itself";
    in_child_ok(test, &[], || {
        quiet();
        let first = Arc::new(AtomicUsize::new(0));
        let second = Told::default();
        mainstay::set_default_exception_handler({
            let (first, second) = (Arc::clone(&first), Arc::clone(&second));
            move |_| {
                first.fetch_add(1, Ordering::SeqCst);
                let second = Arc::clone(&second);
                mainstay::set_default_exception_handler(move |context| {
                    let name = context.task().map(|task| task.name().to_owned());
                    second
                        .lock()
                        .expect("not poisoned")
                        .push(name.unwrap_or_default());
                });
                // No lock is held across user code.
                let nested = Executor::new();
                nested
                    .task()
                    .name("nested")
                    .spawn(async { panic!("boom") })
                    .detach();
                nested.run_until_stalled();
            }
        });
        let ex = Executor::new();
        for name in ["a", "b"] {
            ex.task()
                .name(name)
                .spawn(async { panic!("boom") })
                .detach();
        }
        ex.run_until_stalled();
        assert_eq!(first.load(Ordering::SeqCst), 1);
        assert_eq!(*second.lock().expect("not poisoned"), ["nested", "b"]);
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// The panic hook
// ---------------------------------------------------------------------------------------------------------------------

/// api.md, `install_panic_hook`: it records where a task panicked, and the default record shows it.
#[test]
fn the_panic_hook_records_where_a_task_panicked() {
    quiet();
    mainstay::install_panic_hook();
    let log = LogCapture::start();
    let ex = Executor::new();
    let (at, seen) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    ex.set_exception_handler({
        let seen = Rc::clone(&seen);
        move |local, context| {
            let exception = context.exception().expect("a panic");
            let location = exception.location().expect("the hook is installed");
            assert!(location.file().ends_with("failures.rs"));
            assert_eq!(location.column(), 13, "of the `panic!` below");
            seen.set(location.line());
            local.default_exception_handler(context);
        }
    });
    ex.spawn({
        let at = Rc::clone(&at);
        async move {
            yield_n(1).await;
            at.set(line!() + 1);
            panic!("boom");
        }
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(seen.get(), at.get());
    let place = format!("failures.rs:{}", at.get());
    assert!(log.only().text.contains(&place), "{}", log.only().text);
}

/// api.md, `install_panic_hook`: the view in a handle that is read later knows the place as well.
#[test]
fn the_place_of_a_panic_is_kept_with_the_outcome() {
    quiet();
    mainstay::install_panic_hook();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let handle: JoinHandle<()> = ex.spawn(async { panic!("boom first") });
    ex.spawn(async { panic!("boom second") }).detach();
    ex.run_until_stalled();
    let exception = handle.exception().expect("finished").expect("it failed");
    let location = exception.location().expect("the hook is installed");
    let spawned: &'static Location<'static> = Location::caller();
    assert_eq!(location.file(), spawned.file());
    assert!(location.to_string().contains(&location.line().to_string()));
}

/// Reading: a place is that of the very panic or there is none. A panic that its task caught itself, and one that was
/// started by `resume_unwind`, for which no hook runs, do not lend theirs to another.
#[test]
fn a_place_is_never_that_of_another_panic() {
    quiet();
    mainstay::install_panic_hook();
    let ex = Executor::new();
    let places: Rc<RefCell<Vec<bool>>> = Rc::default();
    ex.set_exception_handler({
        let places = Rc::clone(&places);
        move |_, context| {
            let exception = context.exception().expect("a panic");
            places.borrow_mut().push(exception.location().is_some());
        }
    });
    ex.spawn(async {
        let caught = catch_unwind(|| panic_any(Boom("caught")));
        assert!(caught.map(|never: ()| never).is_err());
    })
    .detach();
    ex.spawn(async { resume_unwind(Box::new(Boom("resumed"))) })
        .detach();
    ex.spawn(async { panic_any(Boom("hooked")) }).detach();
    ex.run_until_stalled();
    assert_eq!(*places.borrow(), [false, true]);
}

/// api.md, Exception: without the hook there is neither place nor backtrace.
#[test]
fn without_the_hook_there_is_no_place() {
    let test = "failures::without_the_hook_there_is_no_place";
    in_child_ok(test, &[("RUST_BACKTRACE", "1")], || {
        quiet();
        let ex = Executor::new();
        ex.set_exception_handler(|_, _| {});
        let handle: JoinHandle<()> = ex.spawn(async { panic!("boom") });
        ex.run_until_stalled();
        let exception = handle.exception().expect("finished").expect("it failed");
        assert!(exception.location().is_none());
        assert!(exception.backtrace().is_none());
    });
}

/// api.md, `install_panic_hook`: it chains to the hook before it, once, however often it is installed.
#[test]
fn the_panic_hook_chains_to_the_one_before() {
    let test = "failures::the_panic_hook_chains_to_the_one_before";
    in_child_ok(test, &[], || {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        std::panic::set_hook(Box::new(|_| {
            CALLS.fetch_add(1, Ordering::SeqCst);
        }));
        for _ in 0..3 {
            mainstay::install_panic_hook();
        }
        let ex = Executor::new();
        ex.set_exception_handler(|_, _| {});
        let handle: JoinHandle<()> = ex.spawn(async { panic!("boom") });
        ex.run_until_stalled();
        assert_eq!(CALLS.load(Ordering::SeqCst), 1);
        let exception = handle.exception().expect("finished").expect("it failed");
        assert!(exception.location().is_some());
        // A panic that is no task's reaches it too.
        let unwound = thread::spawn(|| panic!("boom")).join();
        assert!(unwound.map(|never: ()| never).is_err());
        assert_eq!(CALLS.load(Ordering::SeqCst), 2);
        drop(std::panic::take_hook());
    });
}

/// Issue 2: a backtrace when `RUST_BACKTRACE` asks for one ...
#[test]
fn the_panic_hook_takes_a_backtrace_when_asked() {
    let test = "failures::the_panic_hook_takes_a_backtrace_when_asked";
    let env = [("RUST_BACKTRACE", "1"), ("RUST_LIB_BACKTRACE", "1")];
    in_child_ok(test, &env, || {
        quiet();
        mainstay::install_panic_hook();
        let log = LogCapture::start();
        let ex = Executor::new();
        let handle: JoinHandle<()> = ex.spawn(async { panic!("boom") });
        ex.run_until_stalled();
        let exception = handle.exception().expect("finished").expect("it failed");
        let backtrace = exception.backtrace().expect("asked for");
        assert!(!backtrace.to_string().is_empty());
        assert!(log.only().text.lines().count() > 10, "the record shows it");
    });
}

/// ... and none when it does not.
#[test]
fn the_panic_hook_takes_no_backtrace_unasked() {
    let test = "failures::the_panic_hook_takes_no_backtrace_unasked";
    let env = [("RUST_BACKTRACE", "0"), ("RUST_LIB_BACKTRACE", "0")];
    in_child_ok(test, &env, || {
        quiet();
        mainstay::install_panic_hook();
        let ex = Executor::new();
        ex.set_exception_handler(|_, _| {});
        let handle: JoinHandle<()> = ex.spawn(async { panic!("boom") });
        ex.run_until_stalled();
        let exception = handle.exception().expect("finished").expect("it failed");
        assert!(exception.location().is_some());
        assert!(exception.backtrace().is_none());
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// JoinError
// ---------------------------------------------------------------------------------------------------------------------

fn join_error<T>(ex: &Executor<'static>, handle: JoinHandle<T>) -> JoinError {
    match ex.block_on(handle) {
        Ok(_) => panic!("it was to fail"),
        Err(error) => error,
    }
}

/// api.md, JoinError: `Send + Sync + 'static`, an `Error`, like `Stopped`.
#[test]
fn the_errors_can_be_sent_and_boxed() {
    fn assert_error<T: Error + Send + Sync + 'static>() {}
    assert_error::<JoinError>();
    assert_error::<Stopped>();
    assert_error::<InvalidState>();
    assert_error::<ExceptionError>();
}

/// api.md: public types implement `Debug`, and what names or tells something may go to another thread.
#[test]
fn public_types_show_themselves_and_may_travel() {
    fn assert_data<T: fmt::Debug + Clone + Send + Sync + 'static>() {}
    fn assert_key<T: Copy + Eq + Ord + std::hash::Hash + fmt::Display>() {}
    assert_data::<ContextKind>();
    assert_data::<ReportPolicy>();
    assert_data::<mainstay::CallbackId>();
    assert_data::<mainstay::CancelHandle>();
    assert_data::<mainstay::Progress>();
    assert_data::<mainstay::Stats>();
    assert_data::<mainstay::TaskInfo>();
    assert_data::<mainstay::TaskState>();
    assert_data::<TaskId>();
    assert_key::<TaskId>();

    quiet();
    let ex: Executor<'static> = Executor::default();
    let shown: Rc<RefCell<Vec<String>>> = Rc::default();
    let stash: Stash<()> = Rc::default();
    // In the middle of everything: from a handler, while a task fails and the executor is driven.
    ex.set_exception_handler({
        let (shown, stash) = (Rc::clone(&shown), Rc::clone(&stash));
        move |local, context| {
            let exception = context.exception().expect("a panic");
            let handle = stash.take().expect("stored below");
            *shown.borrow_mut() = vec![
                format!("{local:?}"),
                format!("{context:?}"),
                format!("{exception:?}"),
                format!("{handle:?}"),
                format!("{:?}", handle.cancel_handle()),
                format!("{:?}", handle.cancel_on_drop()),
                format!("{:?}", local.stats()),
                format!("{:?}", local.tasks()),
            ];
        }
    });
    stash.replace(Some(ex.spawn(async { panic!("boom") })));
    ex.run_until_stalled();
    let shown = shown.take();
    assert_eq!(shown.len(), 8, "the handler ran to its end");
    assert!(shown.iter().all(|text| !text.is_empty()));
    assert!(!format!("{ex:?} {:?}", Executor::builder()).is_empty());
    check_accounting(&ex);
}

/// api.md, JoinError: a panic's payload comes back as it was thrown.
#[test]
fn a_join_error_gives_the_payload_back() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let handle = ex.spawn(async { panic_any(Boom("payload")) });
    let id = handle.id();
    let handle: JoinHandle<()> = handle;
    let error = join_error(&ex, handle);
    assert!(error.is_panic());
    assert!(!error.is_cancelled());
    assert!(!error.in_group());
    assert_eq!(error.id(), Some(id));
    assert_eq!(error.reason(), None);
    let payload = error.into_panic();
    assert_eq!(payload.downcast_ref::<Boom>(), Some(&Boom("payload")));

    let again: JoinHandle<()> = ex.spawn(async { panic_any(Boom("again")) });
    let payload = join_error(&ex, again).try_into_panic().expect("a panic");
    assert_eq!(payload.downcast_ref::<Boom>(), Some(&Boom("again")));
}

/// api.md: a payload that was taken can be thrown on.
#[test]
fn a_payload_can_be_resumed_by_the_awaiter() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let message = panic_message(|| {
        ex.block_on(async {
            let child: JoinHandle<()> = mainstay::spawn(async { panic!("boom in the child") });
            match child.await {
                Ok(()) => {}
                Err(error) => resume_unwind(error.into_panic()),
            }
        })
    });
    assert_eq!(message, "boom in the child");
}

/// tokio `test_join_error_display`, `test_join_error_debug`: &str, String, other payloads; one line, no full stop.
#[test]
fn a_join_error_shows_the_message_when_that_is_a_string() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let literal: JoinHandle<()> = ex.spawn(async { panic!("boom as a literal") });
    let string: JoinHandle<()> = ex.spawn(async { panic_any(String::from("boom as a String")) });
    let other: JoinHandle<()> = ex.spawn(async { panic_any(Boom("not text")) });
    for (handle, message) in [
        (literal, "boom as a literal"),
        (string, "boom as a String"),
        (other, ""),
    ] {
        let error = join_error(&ex, handle);
        let (display, debug) = (error.to_string(), format!("{error:?}"));
        assert!(display.contains(message), "{display}");
        assert!(debug.contains(message), "{debug}");
        assert!(display.contains("panic"), "{display}");
        assert!(
            !display.contains('\n') && !display.ends_with('.'),
            "{display}"
        );
        assert!(!display.contains("not text"), "{display}");
    }
}

/// api.md, JoinError: it names its task by id, which is unique and never used again.
#[test]
fn join_errors_of_different_tasks_have_different_ids() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let mut ids: Vec<TaskId> = (0..10)
        .filter_map(|_| {
            let handle: JoinHandle<()> = ex.spawn(async { panic!("boom") });
            join_error(&ex, handle).id()
        })
        .collect();
    assert_eq!(ids.len(), 10);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 10);
}

/// api.md, JoinError: `h.await?` works into `anyhow::Error`, which can give it back.
#[test]
fn a_join_error_goes_into_anyhow() {
    async fn fetch(handle: JoinHandle<u32>) -> anyhow::Result<u32> {
        Ok(handle.await? + 1)
    }
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let value = ex.block_on(fetch(ex.spawn(async { 1 })));
    assert_eq!(value.expect("returned"), 2);
    let error = ex
        .block_on(fetch(ex.spawn(async { panic!("boom in fetch") })))
        .expect_err("it panicked");
    assert!(error.to_string().contains("boom in fetch"));
    let error: JoinError = error.downcast().expect("what went in");
    assert!(error.is_panic());
}

/// api.md, JoinError: and into `Box<dyn Error + Send + Sync>`; so do both layers of a fallible task.
#[test]
fn a_join_error_goes_into_a_boxed_error() {
    async fn fetch(
        handle: JoinHandle<Result<u32, Fault>>,
    ) -> Result<u32, Box<dyn Error + Send + Sync>> {
        Ok(handle.await?? + 1)
    }
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let value = ex.block_on(fetch(ex.spawn_fallible(async { Ok(1) })));
    assert_eq!(value.expect("returned"), 2);
    let error = ex
        .block_on(fetch(ex.spawn_fallible(async { Err(Fault("no")) })))
        .expect_err("it failed");
    assert_eq!(error.downcast_ref::<Fault>(), Some(&Fault("no")));
    let error = ex
        .block_on(fetch(ex.spawn_fallible(async { panic!("boom") })))
        .expect_err("it panicked");
    assert!(error.downcast_ref::<JoinError>().is_some());
}

/// api.md: a `Stopped` goes there too.
#[test]
fn stopped_goes_into_anyhow() {
    fn run(ex: &Executor<'_>) -> anyhow::Result<()> {
        ex.try_block_on(pending::<()>())?;
        Ok(())
    }
    let ex = Executor::new();
    ex.stop();
    let error = run(&ex).expect_err("stopped");
    assert!(!error.to_string().is_empty());
    let stopped: Stopped = error.downcast().expect("what went in");
    assert!(stopped.into_payload().is_none());
}

/// P4, api.md: an `E` that is not `Send` fails a task like any other; only its view is lent out.
#[test]
fn an_error_need_not_be_send() {
    #[derive(Debug)]
    struct Local(Rc<Cell<u32>>);
    impl fmt::Display for Local {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "local {}", self.0.get())
        }
    }
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let cell = Rc::new(Cell::new(7));
    let error = Local(Rc::clone(&cell));
    let handle = ex.spawn_fallible(async move { Err::<(), _>(error) });
    ex.run_until_stalled();
    assert_eq!(recorder.exceptions(), ["local 7"]);
    assert_eq!(Rc::strong_count(&cell), 2, "lent, not cloned");
    drop(handle);
    assert_eq!(Rc::strong_count(&cell), 1);
}

/// P2: a task that catches its own panic has not failed.
#[test]
fn a_panic_that_the_task_catches_is_no_failure() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let handle = ex.spawn(async {
        let caught = catch_unwind(|| panic!("boom"));
        caught.map(|never: ()| never).is_err()
    });
    assert!(ex.block_on(handle).expect("returned"));
    assert!(recorder.is_empty());
    let expected = Counts {
        spawned: 1,
        returned: 1,
        ..Counts::default()
    };
    assert_eq!(counts(&ex), expected);
}

/// P6: a destructor that runs while a failed task's future is dropped may report of its own accord.
#[test]
fn a_destructor_may_report() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let reporting = on_drop(|| {
        let context = ExceptionContext::new("from the destructor").build();
        LocalHandle::current().call_exception_handler(&context);
    });
    ex.spawn(holding(reporting, async { panic!("boom") }))
        .detach();
    ex.run_until_stalled();
    let mut kinds = recorder.kinds();
    kinds.sort_by_key(|kind| format!("{kind:?}"));
    assert_eq!(kinds, [ContextKind::Other, ContextKind::TaskFailed]);
    check_accounting(&ex);
}
