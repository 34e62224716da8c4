//! Oracles (see `oracles.md`): the outcomes of tasks.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::thread;

use mainstay::{
    CancelHandle, ExceptionError, Executor, InvalidState, JoinError, JoinHandle, ReportPolicy,
};

use crate::remote::{elsewhere, without_hanging};
use crate::support::{
    DropLog, Fault, Recorder, check_accounting, counts, holding, panic_message, quiet, yield_n,
};

type Outcome = Result<Result<u8, Fault>, JoinError>;

/// The ways to fail.
pub(crate) const FAILURES: [fn() -> Result<u8, Fault>; 2] =
    [|| panic!("boom"), || Err(Fault("boom"))];

/// A task in each of the ways to end: it has returned, panicked, given an `Err`, been cancelled.
fn one_of_each(ex: &Executor<'static>) -> [JoinHandle<Result<u8, Fault>>; 4] {
    let handles = [
        ex.spawn_fallible(async { Ok(7) }),
        ex.spawn_fallible(async { FAILURES[0]() }),
        ex.spawn_fallible(async { FAILURES[1]() }),
        ex.spawn_fallible(pending()),
    ];
    assert!(handles[3].cancel());
    ex.run_until_stalled();
    handles
}

// async-task join::join_twice and waker_panic::panic_and_poll: there the second answer is none, here it is an error.
#[test]
fn an_outcome_is_given_once() {
    quiet();
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        let ex = Executor::builder().report(policy).build();
        let recorder = Recorder::on(&ex);
        for (n, mut handle) in one_of_each(&ex).into_iter().enumerate() {
            let outcome: Outcome = ex.block_on(&mut handle);
            match n {
                0 => assert_eq!(outcome.expect("returned"), Ok(7)),
                1 => assert!(outcome.expect_err("panicked").is_panic()),
                2 => assert_eq!(outcome.expect("its `Err` is there"), Err(Fault("boom"))),
                _ => assert!(outcome.expect_err("cancelled").is_cancelled()),
            }
            assert!(handle.is_finished());
            assert!(matches!(handle.result(), Err(InvalidState::Taken)));
            match (n, handle.exception()) {
                (0, again) => assert!(again.expect("it returned").is_none()),
                (3, again) => assert_eq!(again.err(), Some(ExceptionError::Cancelled)),
                (_, again) => assert_eq!(again.err(), Some(ExceptionError::Taken)),
            }
            let message = panic_message(|| ex.block_on(&mut handle));
            assert!(message.contains("had been taken"), "{message}");
            assert!(!handle.cancel());
        }
        let told = usize::from(policy == ReportPolicy::OnFailure) * 2;
        assert_eq!(recorder.len(), told);
        check_accounting(&ex);
    }
}

// async-task waker_panic::wake_and_cancel_during_run, cancel_and_wake_during_run: for both kinds of failure.
#[test]
fn a_task_woken_and_cancelled_in_the_poll_that_fails_has_failed_once() {
    quiet();
    for fail in FAILURES {
        for wakes_first in [true, false] {
            for remote in [true, false] {
                let ex = Executor::new();
                let recorder = Recorder::on(&ex);
                let drops = DropLog::new();
                let own = Rc::new(Cell::new(None::<CancelHandle>));
                let kept = Rc::new(Cell::new(None::<Waker>));
                let (canceller, keep) = (Rc::clone(&own), Rc::clone(&kept));
                let handle = ex.spawn_fallible(holding(
                    drops.guard("future"),
                    poll_fn(move |cx| {
                        let cancel = canceller.take().expect("polled once");
                        let waker = cx.waker().clone();
                        keep.set(Some(waker.clone()));
                        let both = move || {
                            if wakes_first {
                                waker.wake_by_ref();
                            }
                            assert!(cancel.cancel());
                            if !wakes_first {
                                waker.wake();
                            }
                        };
                        if remote {
                            elsewhere(both)
                        } else {
                            both()
                        }
                        Poll::Ready(fail())
                    }),
                ));
                own.set(Some(handle.cancel_handle()));
                ex.run_until_stalled();
                kept.take().expect("it was polled").wake();
                ex.run_until_stalled();
                assert_eq!(ex.stats().polls, 1);
                drops.assert(&["future"]);
                assert!(!handle.is_cancelled());
                assert_eq!(recorder.only().exception.as_deref(), Some("boom"));
                assert_eq!((counts(&ex).failed, counts(&ex).reported), (1, 1));
            }
        }
    }
}

// tokio task_local_set::join_local_future_elsewhere: a handle is not `Send` here, an outcome is; and each of the four.
#[test]
fn outcomes_are_awaited_on_the_executor_of_another_thread() {
    quiet();
    without_hanging(|| {
        let (go, gone) = async_channel::bounded::<()>(1);
        let (give, given) = async_channel::unbounded::<Outcome>();
        let there = thread::spawn(move || {
            Executor::new().block_on(async {
                let mut outcomes = Vec::new();
                for _ in 0..4 {
                    go.send(()).await.expect("the tasks wait");
                    outcomes.push(given.recv().await.expect("each is given"));
                }
                outcomes
            })
        });
        let home = thread::current().id();
        let ex = Executor::new();
        ex.set_exception_handler(|_, _| {});
        let root = ex.handle();
        ex.block_on(async {
            for n in 0..4 {
                let (gone, not_send) = (gone.clone(), Rc::new(7));
                let handle = root.spawn_fallible(async move {
                    gone.recv().await.expect("the other thread says so");
                    assert_eq!(thread::current().id(), home);
                    match n {
                        0 => Ok(*not_send),
                        3 => pending().await,
                        n => FAILURES[n - 1](),
                    }
                });
                if n == 3 {
                    let cancel = handle.cancel_handle();
                    root.spawn(async move {
                        yield_n(10).await;
                        cancel.cancel()
                    })
                    .detach();
                }
                give.send(handle.await).await.expect("it is awaited");
            }
        });
        let outcomes = there.join().expect("the thread ends well");
        let said: Vec<String> = outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Ok(Ok(value)) => value.to_string(),
                Ok(Err(fault)) => format!("{fault:?}"),
                Err(error) if error.is_cancelled() => "cancelled".to_owned(),
                Err(error) => error.to_string(),
            })
            .collect();
        assert_eq!(said[0], "7");
        assert!(said[1].contains("panic") && said[1].contains("boom"));
        assert_eq!(said[2], "Fault(\"boom\")");
        assert_eq!(said[3], "cancelled");
    });
}
