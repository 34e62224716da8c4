//! The asyncio contract: the exception handler and what it is told. The table is in `asyncio.md`.

use std::cell::{Cell, RefCell};
use std::panic::panic_any;
use std::rc::Rc;
use std::time::Duration;

use mainstay::{
    ContextKind, ExceptionContext, Executor, JoinHandle, LocalHandle, ReportPolicy, current_task,
};

use crate::support::{
    Boom, DropLog, Fault, LogCapture, Recorder, Trace, check_accounting, counts, quiet, yield_n,
};

type Fail = fn(&Executor<'static>) -> JoinHandle<Result<(), Fault>>;

/// The two ways to fail.
const WAYS: [Fail; 2] = [
    |ex| ex.task().name("fetch").spawn(async { panic!("boom") }),
    |ex| {
        ex.task()
            .name("fetch")
            .spawn_fallible(async { Err(Fault("boom")) })
    },
];

fn executor(policy: ReportPolicy) -> Executor<'static> {
    Executor::builder().report(policy).virtual_clock().build()
}

// B002: one call for each, with the kind, the payload and the place where the callback was made; the loop goes on.
#[test]
fn a_failing_callback_is_told_with_its_payload_and_its_place() {
    quiet();
    let ex = executor(ReportPolicy::OnFailure);
    let told = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&told);
    ex.set_exception_handler(move |_, report| {
        assert_eq!(report.kind(), ContextKind::Callback);
        assert!(report.task().is_none(), "a callback is no task");
        assert!(current_task().is_none());
        let exception = report.exception().expect("the panic");
        let payload = *exception.downcast_ref::<Boom>().expect("the payload");
        seen.borrow_mut().push((payload.0, report.to_string()));
    });
    let trace = Trace::new();
    let after = trace.clone();
    let line = line!();
    ex.call_soon(|| panic_any(Boom("soon")));
    ex.call_later(Duration::from_secs(1), || panic_any(Boom("later")));
    ex.call_soon(move || after.push("after"));
    ex.block_on(mainstay_sleep(2));
    trace.assert(&["after"]);
    let told = told.borrow();
    assert_eq!(told.len(), 2);
    for (n, (payload, text)) in told.iter().enumerate() {
        assert_eq!(*payload, ["soon", "later"][n]);
        let place = format!("{}:{}:", file!(), usize::try_from(line).unwrap() + n + 1);
        assert!(text.contains(&place), "{text}");
    }
    assert_eq!(ex.block_on(async { 7 }), 7);
}

async fn mainstay_sleep(seconds: u64) {
    mainstay::sleep(Duration::from_secs(seconds)).await;
}

// B003: without a handler, one record for each, with headline and message.
#[test]
fn a_failing_callback_is_one_record_without_a_handler() {
    quiet();
    let calls: [fn(&Executor<'static>); 2] = [
        |ex| {
            ex.call_soon(|| panic!("boom in a callback"));
        },
        |ex| {
            ex.call_later(Duration::from_secs(1), || panic!("boom in a callback"));
        },
    ];
    for call in calls {
        let log = LogCapture::start();
        let ex = executor(ReportPolicy::OnFailure);
        call(&ex);
        ex.block_on(mainstay_sleep(2));
        let record = log.only();
        assert_eq!(record.level, log::Level::Error);
        let mut lines = record.text.lines();
        assert_eq!(lines.next(), Some("Exception in callback"));
        assert!(record.text.contains("boom in a callback"), "{record:?}");
        assert!(record.text.contains(file!()), "{record:?}");
    }
}

// B004: the handle is dropped unread: one record, which says so and names the task. For both kinds.
#[test]
fn a_failure_that_nobody_reads_is_one_record_that_names_the_task() {
    quiet();
    for way in WAYS {
        let log = LogCapture::start();
        let ex = executor(ReportPolicy::IfUnretrieved);
        let handle = way(&ex);
        ex.run_until_stalled();
        assert_eq!(log.records().len(), 0, "its handle may still be read");
        drop(handle);
        let record = log.only();
        let headline = record.text.lines().next();
        assert_eq!(headline, Some("Task exception was never retrieved"));
        assert!(record.text.contains("fetch") && record.text.contains("boom"));
        drop(ex);
        assert_eq!(log.records().len(), 1, "not again at the end");
    }
}

// B011: each way of retrieving, for both kinds of failure.
#[test]
fn a_failure_that_was_read_is_never_reported() {
    quiet();
    type Read = fn(&Executor<'static>, &mut JoinHandle<Result<(), Fault>>);
    let reads: [Read; 4] = [
        |ex, handle| drop(ex.block_on(handle)),
        |_, handle| drop(handle.result()),
        |_, handle| {
            let exception = handle.exception().expect("finished");
            assert_eq!(exception.expect("it failed").message(), "boom");
        },
        |ex, handle| {
            handle.add_done_callback(|completion| {
                let _ = completion.outcome();
            });
            ex.run_until_stalled();
        },
    ];
    for way in WAYS {
        for read in reads {
            let ex = executor(ReportPolicy::IfUnretrieved);
            let recorder = Recorder::on(&ex);
            let mut handle = way(&ex);
            ex.run_until_stalled();
            read(&ex, &mut handle);
            assert_eq!((counts(&ex).failed, counts(&ex).retrieved), (1, 1));
            drop(handle);
            drop(ex);
            assert!(recorder.is_empty());
        }
    }
}

// B014 instead: by reference, then taken; the same failure both times, counted once, nothing told.
#[test]
fn a_failure_is_looked_at_and_then_taken() {
    quiet();
    for (n, way) in WAYS.into_iter().enumerate() {
        let ex = executor(ReportPolicy::IfUnretrieved);
        let recorder = Recorder::on(&ex);
        let mut handle = way(&ex);
        ex.run_until_stalled();
        for _ in 0..2 {
            let exception = handle.exception().expect("finished").expect("it failed");
            assert_eq!(exception.is_error(), n == 1);
            assert_eq!(exception.message(), "boom");
        }
        match handle.result().expect("finished") {
            Ok(value) => assert_eq!((n, value), (1, Err(Fault("boom")))),
            Err(error) => {
                let payload = error.into_panic();
                assert_eq!((n, payload.downcast_ref()), (0, Some(&"boom")));
            }
        }
        assert_eq!(counts(&ex).retrieved, 1);
        drop(handle);
        drop(ex);
        assert!(recorder.is_empty());
    }
}

// B017: a callback's fatal signal escapes from whatever drives; the rest of the queue stays, and the loop is not closed.
#[test]
fn a_fatal_signal_from_a_callback_escapes_and_keeps_the_rest() {
    quiet();
    let ex = Executor::new();
    let trace = Trace::new();
    let handle = ex.handle();
    let (same, next) = (trace.clone(), trace.clone());
    ex.call_soon(move || {
        LocalHandle::current().stop_with(Box::new(Boom("fatal")));
        handle.call_soon(move || next.push("next pass"));
    });
    ex.call_soon(move || same.push("same pass"));
    let stopped = ex.try_block_on(std::future::pending::<()>()).unwrap_err();
    let payload = stopped.into_payload().expect("it was fatal");
    assert_eq!(payload.downcast_ref(), Some(&Boom("fatal")));
    trace.assert(&["same pass"]);
    assert!(!ex.is_running());
    ex.run_until_stalled();
    trace.assert(&["next pass"]);
}

// B019
#[test]
fn a_report_without_a_message_has_asyncios_headline() {
    let log = LogCapture::start();
    let ex = Executor::new();
    let fault = Fault("why");
    ex.call_exception_handler(&ExceptionContext::new("").error(&fault).build());
    let text = log.only().text;
    assert_eq!(
        text.lines().next(),
        Some("Unhandled exception in event loop")
    );
    assert!(text.contains("why"));
}

// B020: the headline first, the fields in an order that does not change, the exception last.
#[test]
fn the_record_has_the_headline_first_and_the_exception_last() {
    let log = LogCapture::start();
    let ex = Executor::new();
    for way in &WAYS[1..] {
        for _ in 0..2 {
            way(&ex).detach();
        }
    }
    ex.run_until_stalled();
    let records = log.records();
    assert_eq!(records.len(), 2);
    for record in records {
        let firsts: Vec<&str> = record
            .text
            .lines()
            .map(|line| line.split_once(": ").map_or(line, |(field, _)| field))
            .collect();
        assert_eq!(
            firsts,
            ["Task returned an error", "  task", "  exception", "  debug"]
        );
        let last: Vec<&str> = record.text.lines().skip(2).collect();
        assert_eq!(last, ["  exception: boom", "  debug: Fault(\"boom\")"]);
    }
}

/// An error of which one half cannot be shown.
struct Unspeakable {
    display: bool,
}

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        assert!(self.display, "boom in Display");
        f.write_str("shown")
    }
}

impl std::fmt::Debug for Unspeakable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        assert!(!self.display, "boom in Debug");
        f.write_str("debugged")
    }
}

// B021: one record all the same, with headline, task, the other half, and why the first is not there.
#[test]
fn a_field_that_cannot_be_shown_takes_nothing_else_with_it() {
    quiet();
    for display in [true, false] {
        let log = LogCapture::start();
        let ex = Executor::new();
        ex.task()
            .name("clumsy")
            .spawn_fallible(async move { Err::<(), _>(Unspeakable { display }) })
            .detach();
        ex.run_until_stalled();
        let text = log.only().text;
        assert_eq!(text.lines().next(), Some("Task returned an error"));
        assert!(text.contains("clumsy"), "{text}");
        let (whole, why) = if display {
            ("exception: shown", "boom in Debug")
        } else {
            ("debug: debugged", "boom in Display")
        };
        assert!(text.contains(whole) && text.contains(why), "{text}");
    }
}

// B022: what goes wrong after the executor's end is still told to its handler.
#[test]
fn a_report_after_the_end_reaches_the_handler() {
    quiet();
    let ex = executor(ReportPolicy::IfUnretrieved);
    let recorder = Recorder::on(&ex);
    let output = DropLog::new().guard("output").panics("boom in output");
    let returned = ex.spawn(async move { output });
    let failed =
        ex.spawn(async { panic_any(DropLog::new().guard("payload").panics("boom in payload")) });
    ex.run_until_stalled();
    drop(ex);
    // Unread failures are told when the executor goes, at the latest.
    assert_eq!(recorder.kinds(), [ContextKind::NeverRetrieved]);
    recorder.take();
    drop(returned);
    assert_eq!(recorder.exceptions(), ["boom in output"]);
    recorder.take();
    let failed: JoinHandle<()> = failed;
    drop(failed);
    assert_eq!(recorder.kinds(), [ContextKind::Destructor]);
}

// B026: told in the pass in which it failed, under both policies, for both kinds.
#[test]
fn a_detached_failure_is_told_in_its_own_pass() {
    quiet();
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        for way in WAYS {
            let ex = executor(policy);
            let recorder = Recorder::on(&ex);
            way(&ex).detach();
            let bystander = ex.spawn(yield_n(5));
            ex.tick(usize::MAX);
            assert!(!bystander.is_finished(), "one pass was made");
            assert_eq!(recorder.exceptions(), ["boom"], "{policy:?}");
            ex.run_until_stalled();
            drop(bystander);
            drop(ex);
            assert_eq!(recorder.len(), 1);
        }
    }
}

// Section 1.2 of asyncio's rules, in our form: the handler in place when a report is made is the one that is called; the
// next report, also in the same pass, goes to the one that it has put in its place.
#[test]
fn a_handler_that_replaces_itself_is_out_of_the_way_for_the_next_report() {
    quiet();
    let ex = Executor::new();
    let trace = Trace::new();
    let (old, new) = (trace.clone(), trace.clone());
    ex.set_exception_handler(move |ex, report| {
        old.push(format!("old {}", report.exception().unwrap().message()));
        let new = new.clone();
        ex.set_exception_handler(move |_, report| {
            new.push(format!("new {}", report.exception().unwrap().message()));
        });
    });
    for text in ["1", "2", "3"] {
        ex.spawn_fallible(async move { Err::<(), _>(Fault(text)) })
            .detach();
    }
    ex.tick(usize::MAX);
    trace.assert(&["old 1", "new 2", "new 3"]);
    check_accounting(&ex);
}

// The same from within a report that the handler makes itself: it goes to what is in place by then.
#[test]
fn a_handler_may_be_cleared_while_it_runs() {
    let log = LogCapture::start();
    let ex = Executor::new();
    let calls = Rc::new(Cell::new(0));
    let count = Rc::clone(&calls);
    ex.set_exception_handler(move |ex, _| {
        count.set(count.get() + 1);
        ex.clear_exception_handler();
        ex.call_exception_handler(&ExceptionContext::new("from within").build());
    });
    ex.call_exception_handler(&ExceptionContext::new("first").build());
    assert_eq!(calls.get(), 1);
    assert_eq!(log.only().text, "from within");
    assert!(!ex.has_exception_handler());
}
