//! Every way in which one task can end, times every way in which its handle can go: after tokio's
//! `task_combinations::test_combinations`, with both kinds of failure, both policies, and with and without a handler.
//!
//! What each case must come to is computed beforehand (`Case::ending` and below), from the rules in the documentation.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use mainstay::{CancelHandle, Executor, InvalidState, JoinError, JoinHandle, ReportPolicy};

use crate::remote::elsewhere;
use crate::support::{
    Counts, DropLog, Event, Guard, LogCapture, Recorder, check_accounting, counting_waker, counts,
    holding, poll_with, quiet,
};

/// P2, P3, P4; tokio `task_combinations::test_combinations`.
#[test]
fn every_combination_of_failures_adds_up() {
    quiet();
    let mut cases = 0;
    let mut wrong: Vec<Case> = Vec::new();
    for case in Case::all() {
        cases += 1;
        if catch_unwind(|| case.check()).is_err() {
            wrong.push(case);
            assert!(wrong.len() < 10, "and more: {wrong:#?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        cases, CASES,
        "a value that is left out is left out on purpose"
    );
}

/// How many cases are possible, of the 30,912 of the whole product.
const CASES: usize = 21_504;

// ---------------------------------------------------------------------------------------------------------------------
// The axes
// ---------------------------------------------------------------------------------------------------------------------

/// Where the task panics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Panics {
    Never,
    InPoll,
    InDrop,
    InBoth,
}

/// What the task gives, if it comes to that. An error is one of `spawn_fallible`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gives {
    Value,
    ValueThatPanicsOnDrop,
    Error,
    ErrorThatPanicsOnDrop,
}

/// Who polls the handle before the task has run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Interest {
    Nobody,
    /// Somebody with a waker that is not the executor's.
    Foreigner,
    /// A root of the same executor.
    Root,
}

/// When something is done to the task: by itself in its two polls, else from outside.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum When {
    BeforeFirstPoll,
    InFirstPoll,
    WhileWaiting,
    InLastPoll,
    AfterEnd,
    AfterReading,
    /// Of cancelling: not at all. Of the handle: when the executor is gone.
    Never,
}

const WHENS: [When; 7] = [
    When::BeforeFirstPoll,
    When::InFirstPoll,
    When::WhileWaiting,
    When::InLastPoll,
    When::AfterEnd,
    When::AfterReading,
    When::Never,
];

/// Who cancels, and by what.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    /// The join handle, between two drives.
    JoinHandle,
    /// A cancel handle, between two drives.
    CancelHandle,
    /// A cancel handle, while the executor is driven.
    Driven,
    /// A cancel handle, on another thread.
    Elsewhere,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    panics: Panics,
    gives: Gives,
    interest: Interest,
    handle_dropped: When,
    cancelled: When,
    source: Source,
    policy: ReportPolicy,
    handler: bool,
}

impl Case {
    fn all() -> impl Iterator<Item = Case> {
        use Panics::{InBoth, InDrop, InPoll, Never};
        let mut all = Vec::new();
        for panics in [Never, InPoll, InDrop, InBoth] {
            for gives in [
                Gives::Value,
                Gives::ValueThatPanicsOnDrop,
                Gives::Error,
                Gives::ErrorThatPanicsOnDrop,
            ] {
                for interest in [Interest::Nobody, Interest::Foreigner, Interest::Root] {
                    for handle_dropped in WHENS {
                        for (cancelled, source) in cancels() {
                            for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
                                for handler in [true, false] {
                                    all.push(Case {
                                        panics,
                                        gives,
                                        interest,
                                        handle_dropped,
                                        cancelled,
                                        source,
                                        policy,
                                        handler,
                                    });
                                }
                            }
                        }
                    }
                }
            }
        }
        all.into_iter().filter(|case| case.is_possible())
    }

    fn is_possible(self) -> bool {
        // Nobody cancels with a handle that is gone.
        let by_a_dropped_handle = self.source == Source::JoinHandle
            && self.cancelled != When::Never
            && self.handle_dropped < self.cancelled;
        let in_no_poll = match self.handle_dropped {
            When::InFirstPoll => self.cancelled == When::BeforeFirstPoll,
            When::InLastPoll => self.is_cancelled_in_time(),
            _ => false,
        };
        // Nobody reads.
        let unread =
            self.cancelled == When::AfterReading && self.handle_dropped != When::AfterReading;
        !by_a_dropped_handle && !in_no_poll && !unread
    }
}

/// Whom it may be cancelled by, and when. (Not at all needs no source; in a poll, everybody drives.)
fn cancels() -> impl Iterator<Item = (When, Source)> {
    let sources = [
        Source::JoinHandle,
        Source::CancelHandle,
        Source::Driven,
        Source::Elsewhere,
    ];
    WHENS
        .into_iter()
        .flat_map(move |when| sources.map(|source| (when, source)))
        .filter(|(when, source)| match when {
            When::Never => *source == Source::JoinHandle,
            When::InFirstPoll | When::InLastPoll => *source != Source::Driven,
            _ => true,
        })
}

// ---------------------------------------------------------------------------------------------------------------------
// What is to be expected
// ---------------------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Returned,
    Failed(&'static str),
    Cancelled,
}

const POLL: &str = "boom in poll";
const DROP: &str = "boom in the future's drop";
const OUTPUT: &str = "boom in the output's drop";
const ERR: &str = "the error";

impl Case {
    fn gives_error(self) -> bool {
        matches!(self.gives, Gives::Error | Gives::ErrorThatPanicsOnDrop)
    }

    fn output_panics(self) -> bool {
        matches!(
            self.gives,
            Gives::ValueThatPanicsOnDrop | Gives::ErrorThatPanicsOnDrop
        )
    }

    fn drop_panics(self) -> bool {
        matches!(self.panics, Panics::InDrop | Panics::InBoth)
    }

    fn is_read(self) -> bool {
        self.handle_dropped == When::AfterReading
    }

    /// Whether the cancel comes before the last poll.
    fn is_cancelled_in_time(self) -> bool {
        self.cancelled < When::InLastPoll
    }

    /// Whether the task has cancelled itself in its last poll. (What comes from another thread is looked at after it.)
    fn cancels_itself(self) -> bool {
        self.cancelled == When::InLastPoll && self.source != Source::Elsewhere
    }

    /// Whether somebody holds the handle when the task ends.
    fn is_held_at_the_end(self) -> bool {
        if !self.is_cancelled_in_time() {
            return self.handle_dropped > When::InLastPoll;
        }
        match self.source {
            // The task is gone before the handle is dropped.
            Source::Driven => self.handle_dropped >= self.cancelled,
            // The task goes in the next pass.
            _ => self.handle_dropped > self.cancelled,
        }
    }

    /// Whether the task comes to the point where it gives something.
    fn produces(self) -> bool {
        !self.is_cancelled_in_time() && matches!(self.panics, Panics::Never | Panics::InDrop)
    }

    /// How the task ends, and the messages of the reports of kind `Destructor` that come on top of it.
    fn ending(self) -> (Ending, Vec<&'static str>) {
        if self.is_cancelled_in_time() {
            // A cancelled task has not failed, unless its destructor panicked.
            return match self.drop_panics() {
                true => (Ending::Failed(DROP), vec![]),
                false => (Ending::Cancelled, vec![]),
            };
        }
        match (self.panics, self.gives_error()) {
            (Panics::InPoll, _) => (Ending::Failed(POLL), vec![]),
            // A second panic, from what remains after one in `poll`, is a report of its own.
            (Panics::InBoth, _) => (Ending::Failed(POLL), vec![DROP]),
            // tokio's rule: a panic in the destructor makes it failed, and the value is dropped.
            (Panics::InDrop, false) if self.output_panics() => (Ending::Failed(DROP), vec![OUTPUT]),
            (Panics::InDrop, false) => (Ending::Failed(DROP), vec![]),
            // Reading: the error came first and stays the task's failure, so that neither is lost.
            (Panics::InDrop, true) => (Ending::Failed(ERR), self.in_cell(vec![DROP])),
            (Panics::Never, true) => (Ending::Failed(ERR), self.in_cell(vec![])),
            // A pending cancel beats a value. The value that it beat, and that of a detached task, is dropped at the end of
            // the task, and a panic there is the task's failure.
            (Panics::Never, false) if self.cancels_itself() || !self.is_held_at_the_end() => {
                match (self.output_panics(), self.cancels_itself()) {
                    (true, _) => (Ending::Failed(OUTPUT), vec![]),
                    (false, true) => (Ending::Cancelled, vec![]),
                    (false, false) => (Ending::Returned, vec![]),
                }
            }
            (Panics::Never, false) => (Ending::Returned, self.in_cell(vec![])),
        }
    }

    /// Adds the panic of what lies in the task's cell until the handle lets go of it. Reading: the task has ended by then
    /// and ends once only, so that is a report of its own.
    fn in_cell(self, mut extra: Vec<&'static str>) -> Vec<&'static str> {
        if self.output_panics() && !self.is_read() {
            extra.push(OUTPUT);
        }
        extra
    }

    /// All reports as kind and message, sorted.
    fn reports(self) -> Vec<(&'static str, &'static str)> {
        let (ending, extra) = self.ending();
        let mut reports: Vec<_> = extra
            .iter()
            .map(|message| ("Destructor", *message))
            .collect();
        if let Ending::Failed(message) = ending {
            match self.policy {
                ReportPolicy::OnFailure => reports.push(("TaskFailed", message)),
                _ if self.is_read() => {}
                _ => reports.push(("NeverRetrieved", message)),
            }
        }
        reports.sort_unstable();
        reports
    }

    /// The counters when all has been done but the drop of the executor and, where that comes later, of the handle.
    fn counts(self) -> Counts {
        let (ending, _) = self.ending();
        let outlives = self.handle_dropped == When::Never;
        let mut expected = Counts {
            spawned: 1,
            ..Counts::default()
        };
        match ending {
            Ending::Returned => expected.returned = 1,
            Ending::Cancelled => expected.cancelled = 1,
            Ending::Failed(_) => {
                expected.failed = 1;
                match self.policy {
                    ReportPolicy::OnFailure => expected.reported = 1,
                    _ if self.is_read() => expected.retrieved = 1,
                    _ if outlives => expected.unread = 1,
                    _ => expected.reported = 1,
                }
            }
        }
        let later = self.reports().into_iter().filter(|(kind, message)| {
            let in_cell =
                *kind == "Destructor" && *message == OUTPUT && ending != Ending::Failed(DROP);
            outlives && (in_cell || *kind == "NeverRetrieved")
        });
        expected.reports = (self.reports().len() - later.count()) as u64;
        expected
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What happens
// ---------------------------------------------------------------------------------------------------------------------

/// The value, and the error: its destructor can be seen and may panic.
struct Given {
    _guard: Guard,
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ERR)
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ERR)
    }
}

type Handle = JoinHandle<Result<Given, Given>>;

/// The handles, which the task reaches too.
#[derive(Clone)]
struct Handles {
    case: Case,
    join: Rc<RefCell<Option<Handle>>>,
    cancel: Rc<Cell<Option<CancelHandle>>>,
}

impl Handles {
    fn canceller(&self) -> CancelHandle {
        let canceller = self.cancel.take().expect("there from the beginning");
        self.cancel.set(Some(canceller.clone()));
        canceller
    }

    /// Cancels or drops the handle, if this is the time for it. In that order.
    fn act(&self, now: When, ex: Option<&Executor<'_>>) {
        if self.case.cancelled == now && now != When::Never {
            let is_late = now > When::InLastPoll;
            assert_eq!(self.canceller().is_finished(), is_late);
            assert_eq!(self.cancel(ex), !is_late);
        }
        if self.case.handle_dropped == now {
            let handle = self.join.take().expect("dropped once");
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(handle)));
            assert!(dropped.is_ok(), "dropping a handle does not panic");
        }
    }

    fn cancel(&self, ex: Option<&Executor<'_>>) -> bool {
        let canceller = self.canceller();
        match (self.case.source, ex) {
            (Source::JoinHandle, _) => {
                let handle = self.join.take().expect("the handle is there");
                let done = handle.cancel();
                self.join.replace(Some(handle));
                done
            }
            (Source::Elsewhere, _) => elsewhere(|| canceller.cancel()),
            (Source::Driven, Some(ex)) => {
                let done = ex.block_on(async { canceller.cancel() });
                assert!(canceller.is_finished(), "at once");
                done
            }
            (Source::CancelHandle | Source::Driven, _) => canceller.cancel(),
        }
    }
}

impl Case {
    fn check(self) {
        let drops = DropLog::new();
        let log = LogCapture::start();
        let ex = Executor::builder().report(self.policy).build();
        let recorder = Recorder::new();
        if self.handler {
            recorder.install(&ex);
        }
        let event = Event::new();
        let handles = self.spawn(&ex, &event, &drops);
        let (waker, woken) = counting_waker();
        {
            let mut handle = handles.join.borrow_mut();
            let handle = handle.as_mut().expect("just spawned");
            match self.interest {
                Interest::Nobody => {}
                Interest::Foreigner => assert!(poll_with(handle, &waker).is_pending()),
                Interest::Root => ex.block_on(poll_fn(|cx| {
                    assert!(Pin::new(&mut *handle).poll(cx).is_pending());
                    Poll::Ready(())
                })),
            }
        }

        handles.act(When::BeforeFirstPoll, Some(&ex));
        check_accounting(&ex);
        ex.run_until_stalled();
        check_accounting(&ex);
        handles.act(When::WhileWaiting, Some(&ex));
        check_accounting(&ex);
        ex.run_until_stalled();
        event.set();
        ex.run_until_stalled();
        check_accounting(&ex);
        let is_awaited = self.interest == Interest::Foreigner && self.is_held_at_the_end();
        assert_eq!(woken.wakes(), usize::from(is_awaited));
        handles.act(When::AfterEnd, Some(&ex));
        check_accounting(&ex);
        if self.is_read() {
            let mut handle = handles.join.take().expect("it is to be read");
            self.read(&mut handle, &ex);
            handles.join.replace(Some(handle));
        }
        handles.act(When::AfterReading, Some(&ex));
        assert_eq!(counts(&ex), self.counts());
        assert_eq!(ex.stats().polls, self.polls());
        drop(ex);
        handles.act(When::Never, None);
        assert!(handles.join.take().is_none());
        assert!(handles.canceller().is_finished());

        if self.handler {
            assert!(log.records().is_empty());
            self.check_reports(&recorder);
        } else {
            self.check_records(&log);
        }
        // What was made is dropped once, at home.
        assert_eq!(drops.count("future"), 1);
        assert_eq!(drops.count("output"), usize::from(self.produces()));
        drops.assert_home();
    }

    fn polls(self) -> u64 {
        match self.cancelled {
            When::BeforeFirstPoll => 0,
            When::InFirstPoll | When::WhileWaiting => 1,
            _ => 2,
        }
    }

    fn check_reports(self, recorder: &Recorder) {
        let mut made: Vec<(String, String)> = Vec::new();
        for report in recorder.reports() {
            assert_eq!(report.task.as_deref(), Some("subject"));
            let kind = format!("{:?}", report.kind);
            if kind == "TaskFailed" {
                assert_eq!(report.handle_held, self.is_held_at_the_end());
            }
            made.push((kind, report.exception.unwrap_or_default()));
        }
        made.sort_unstable();
        let made: Vec<(&str, &str)> = made
            .iter()
            .map(|(kind, message)| (kind.as_str(), message.as_str()))
            .collect();
        assert_eq!(made, self.reports());
    }

    fn check_records(self, log: &LogCapture) {
        let records = log.records();
        let expected = self.reports();
        assert_eq!(records.len(), expected.len(), "{records:#?}");
        for (_, message) in expected {
            let told = records.iter().any(|record| record.text.contains(message));
            assert!(told, "{message} is not in {records:#?}");
        }
    }

    fn spawn(self, ex: &Executor<'static>, event: &Event, drops: &DropLog) -> Handles {
        let handles = Handles {
            case: self,
            join: Rc::default(),
            cancel: Rc::default(),
        };
        let mut guard = drops.guard("future");
        if self.drop_panics() {
            guard = guard.panics(DROP);
        }
        let mut wait = event.wait();
        let (drops, own) = (drops.clone(), handles.clone());
        let mut is_first = true;
        let body = poll_fn(move |cx| {
            if std::mem::take(&mut is_first) {
                own.act(When::InFirstPoll, None);
            }
            if Pin::new(&mut wait).poll(cx).is_pending() {
                return Poll::Pending;
            }
            own.act(When::InLastPoll, None);
            if matches!(self.panics, Panics::InPoll | Panics::InBoth) {
                panic!("{POLL}");
            }
            let mut guard = drops.guard("output");
            if self.output_panics() {
                guard = guard.panics(OUTPUT);
            }
            let given = Given { _guard: guard };
            Poll::Ready(match self.gives_error() {
                true => Err(given),
                false => Ok(given),
            })
        });
        let future = holding(guard, body);
        let task = ex.task().name("subject");
        let handle = match self.gives_error() {
            true => task.spawn_fallible(future),
            false => task.spawn(future),
        };
        handles.cancel.set(Some(handle.cancel_handle()));
        handles.join.replace(Some(handle));
        handles
    }

    /// Takes the outcome, in one of the ways that there are.
    fn read(self, handle: &mut Handle, ex: &Executor<'_>) {
        let result: Result<Result<Given, Given>, JoinError> = match self.interest {
            Interest::Nobody => handle.result().expect("finished"),
            Interest::Root => ex.block_on(&mut *handle),
            Interest::Foreigner => match poll_with(handle, &counting_waker().0) {
                Poll::Ready(result) => result,
                Poll::Pending => panic!("finished"),
            },
        };
        let (ending, _) = self.ending();
        match (ending, &result) {
            (Ending::Returned, Ok(Ok(_))) | (Ending::Failed(ERR), Ok(Err(_))) => {}
            (Ending::Cancelled, Err(error)) => assert!(error.is_cancelled()),
            (Ending::Failed(message), Err(error)) => {
                assert!(error.is_panic());
                assert!(error.to_string().contains(message), "{error}");
            }
            _ => panic!("it ended unlike {ending:?}: {result:?}"),
        }
        assert!(matches!(handle.result(), Err(InvalidState::Taken)));
        // The value is the reader's now, and so is a panic in its destructor.
        let panics = result.is_ok() && self.output_panics();
        let dropped = catch_unwind(AssertUnwindSafe(move || drop(result)));
        assert_eq!(dropped.is_err(), panics);
    }
}
