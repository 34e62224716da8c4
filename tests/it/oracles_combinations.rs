//! Every way in which one task can end, times every way in which its handle can go: after tokio's
//! `task_combinations::test_combinations`, with both kinds of failure, both policies, and with and without a handler.
//!
//! What each case must come to is computed beforehand, in `oracles_case`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use mainstay::{CancelHandle, Executor, InvalidState, JoinError, JoinHandle};

use crate::oracles_case::{Case, DROP, ERR, Ending, Interest, OUTPUT, POLL, Panics, Source, When};
use crate::remote::elsewhere;
use crate::support::{
    DropLog, Event, Guard, LogCapture, Recorder, check_accounting, counting_waker, counts, holding,
    poll_with, quiet,
};
use crate::wake::alone;

/// P2, P3, P4; tokio `task_combinations::test_combinations`.
///
/// Alone, because it counts the polls on 21,504 executors, one of which would get the endpoint of any other test's that is
/// gone, and with it a late wake.
#[test]
fn every_combination_of_failures_adds_up() {
    alone(
        "oracles_combinations::every_combination_of_failures_adds_up",
        || {
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
        },
    );
}

/// How many cases are possible, of the 30,912 of the whole product.
const CASES: usize = 21_504;

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
