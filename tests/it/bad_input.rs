//! Input at the edge, and use at the wrong time: each has an answer that the documentation gives.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use mainstay::{
    ExceptionError, Executor, InvalidState, JoinHandle, LocalHandle, interval, sleep, sleep_until,
    spawn, timeout,
};

use crate::support::{
    Boom, DropLog, Fault, Recorder, Trace, check_accounting, counts, holding, on_drop,
    panic_message, poll_once, quiet, yield_n,
};

fn virtual_executor() -> Executor<'static> {
    Executor::builder().virtual_clock().build()
}

// ---- durations ------------------------------------------------------------------------------------------------------

// `sleep` and `call_later`: zero is the next pass, what is beyond the clock's end never comes and arms nothing.
#[test]
fn durations_of_zero_and_beyond_the_clocks_end() {
    let ex = virtual_executor();
    let trace = Trace::new();
    let (zero, later, never) = (trace.clone(), trace.clone(), trace.clone());
    ex.call_later(Duration::MAX, move || never.push("call_later for ever"));
    ex.call_later(Duration::ZERO, move || zero.push("call_later zero"));
    let start = ex.now();
    ex.block_on(async {
        sleep(Duration::ZERO).await;
        trace.push("sleep zero");
        let mut never = sleep(Duration::MAX);
        assert_eq!(never.deadline(), None);
        assert!(poll_once(&mut never).is_pending() && !never.is_elapsed());
        assert!(timeout(Duration::from_secs(1), never).await.is_err());
        sleep_until(start).await;
        later.push("sleep until the past");
    });
    let mut came = trace.labels();
    came.sort();
    assert_eq!(
        came,
        ["call_later zero", "sleep until the past", "sleep zero"]
    );
    assert_eq!(ex.now() - start, Duration::from_secs(1));
    assert_eq!(ex.tick(10).next_deadline, None);
}

#[test]
fn an_interval_of_zero_panics_and_one_beyond_the_clocks_end_never_ticks() {
    let ex = virtual_executor();
    ex.block_on(async {
        let message = panic_message(|| interval(Duration::ZERO));
        assert!(message.contains("must not be zero"), "{message}");
        let mut never = interval(Duration::MAX);
        assert!(timeout(Duration::from_secs(1), never.tick()).await.is_err());
        let mut shortest = interval(Duration::from_nanos(1));
        shortest.tick().await;
        sleep(Duration::from_secs(3_600)).await;
        shortest.tick().await;
        shortest.tick().await;
    });
}

#[test]
fn the_virtual_clock_does_not_move_beyond_its_end() {
    let ex = virtual_executor();
    let start = ex.now();
    ex.advance(Duration::MAX);
    assert_eq!(ex.now(), start);
    ex.advance(Duration::ZERO);
    assert_eq!(ex.now(), start);
    ex.advance(Duration::from_secs(1));
    assert_eq!(ex.now() - start, Duration::from_secs(1));
}

#[test]
fn a_tick_of_nothing_polls_nothing() {
    let ex = Executor::new();
    let task = ex.spawn(async {});
    let progress = ex.tick(0);
    assert_eq!((progress.polls, progress.more), (0, true));
    assert!(!task.is_finished());
    assert_eq!(ex.tick(usize::MAX).polls, 1);
    assert!(task.is_finished());
}

// ---- names ----------------------------------------------------------------------------------------------------------

#[test]
fn an_empty_name_is_a_name_and_so_is_any_other() {
    quiet();
    let ex = Executor::builder().name("").build();
    let recorder = Recorder::on(&ex);
    let long = "n".repeat(10_000);
    for name in ["", " ", "line\nbreak", "\u{1f980}", &long] {
        let handle = ex.task().name(name).spawn(async { panic!("boom") });
        assert_eq!(handle.name(), name);
        assert_eq!(ex.tasks().last().expect("just spawned").name(), name);
        ex.run_until_stalled();
        let error: Result<(), _> = ex.block_on(handle);
        assert!(error.unwrap_err().to_string().contains(name));
        assert_eq!(recorder.take()[0].task.as_deref(), Some(name));
    }
    assert!(format!("{ex:?}").contains("\"\""), "{ex:?}");
}

// ---- handlers -------------------------------------------------------------------------------------------------------

// What the handler captured goes when its call is over, contained, and the new one is in place at once.
#[test]
fn a_handler_that_is_replaced_while_it_runs_is_dropped_after_its_call() {
    quiet();
    let ex = Executor::new();
    let trace = Trace::new();
    let drops = DropLog::new();
    let captured = drops.guard("old handler").panics("boom in its captures");
    let (log, seen) = (trace.clone(), drops.clone());
    ex.set_exception_handler(move |ex, _| {
        let _captured = &captured;
        let log = log.clone();
        ex.set_exception_handler(move |_, report| {
            log.push(report.exception().expect("a failure").message());
        });
        seen.assert(&[]);
    });
    for text in ["1", "2"] {
        ex.spawn_fallible(async move { Err::<(), _>(Fault(text)) })
            .detach();
    }
    ex.run_until_stalled();
    drops.assert(&["old handler"]);
    let told = trace.labels();
    assert_eq!(
        told,
        ["2"],
        "its own destructor's panic is the default handler's"
    );
    assert_eq!(ex.stats().reports, 3);
}

#[test]
fn clearing_a_handler_that_is_not_set_is_no_error() {
    let ex = Executor::new();
    ex.clear_exception_handler();
    ex.clear_exception_handler();
    assert!(!ex.has_exception_handler());
}

// ---- finished tasks -------------------------------------------------------------------------------------------------

// Added when the outcome is still there, and when it has been taken; removed before its turn; while nobody drives.
#[test]
fn callbacks_on_finished_tasks_run_in_the_next_pass() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let trace = Trace::new();
    let mut handles: Vec<JoinHandle<Result<(), Fault>>> = vec![
        ex.spawn(async { Ok(()) }),
        ex.spawn(async { panic!("boom") }),
        ex.spawn_fallible(async { Err(Fault("no")) }),
    ];
    ex.run_until_stalled();
    for handle in &handles {
        let log = trace.clone();
        handle.add_done_callback(move |completion| log.push(format!("{:?}", completion.outcome())));
        let removed = handle.add_done_callback(|_| unreachable!("removed"));
        assert!(handle.remove_done_callback(removed));
        assert!(!handle.remove_done_callback(removed));
    }
    trace.assert(&[]);
    ex.tick(usize::MAX);
    let labels = trace.labels();
    assert_eq!(labels.len(), 3);
    assert!(labels[0] == "Returned" && labels[1].contains("boom") && labels[2].contains("no"));
    // The outcome can be taken again, and then there is none to look at.
    ex.block_on(async {
        for handle in &mut handles {
            drop((&mut *handle).await);
            let log = trace.clone();
            handle.add_done_callback(move |_| log.push("after the outcome was taken"));
        }
        yield_n(2).await;
    });
    assert_eq!(trace.len(), 6);
    check_accounting(&ex);
}

// The second time it says that it was taken; the exception of one that returned is none for ever.
#[test]
fn an_outcome_is_given_once_and_the_second_time_says_so() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let mut handles: Vec<JoinHandle<Result<u8, Fault>>> = vec![
        ex.spawn(async { Ok(7) }),
        ex.spawn(async { std::panic::panic_any(Boom("boom")) }),
        ex.spawn_fallible(async { Err(Fault("no")) }),
        ex.spawn(pending()),
    ];
    handles[3].cancel();
    ex.run_until_stalled();
    for (n, handle) in handles.iter_mut().enumerate() {
        drop(handle.result().expect("finished"));
        for _ in 0..2 {
            assert!(matches!(handle.result(), Err(InvalidState::Taken)));
        }
        match n {
            0 => assert!(handle.exception().expect("it returned").is_none()),
            3 => assert_eq!(handle.exception().err(), Some(ExceptionError::Cancelled)),
            _ => assert_eq!(handle.exception().err(), Some(ExceptionError::Taken)),
        }
        assert!(handle.is_finished() && !handle.cancel());
        let message = panic_message(|| poll_once(handle));
        assert!(message.contains("outcome had been taken"), "{message}");
    }
}

// ---- handles of an executor that is gone ----------------------------------------------------------------------------

#[test]
fn handles_answer_when_their_executor_is_gone() {
    quiet();
    let ex = Executor::<'static>::new();
    ex.set_exception_handler(|_, _| {});
    let mut handles: Vec<JoinHandle<Result<u8, Fault>>> = vec![
        ex.spawn(async { Ok(7) }),
        ex.spawn(async { panic!("boom") }),
        ex.spawn_fallible(async { Err(Fault("no")) }),
    ];
    let cancel = handles[0].cancel_handle();
    ex.run_until_stalled();
    handles.push(ex.spawn(pending()));
    let call = ex.call_later(Duration::from_secs(1), || ());
    let local = ex.handle();
    drop(ex);
    assert!(!call.cancel() && !cancel.cancel() && cancel.is_finished());
    assert!(local.tasks().is_empty());
    local.stop();
    for (n, handle) in handles.iter_mut().enumerate() {
        assert!(handle.is_finished() && !handle.cancel());
        assert_eq!(handle.is_cancelled(), n == 3);
        let called = handle.add_done_callback(|_| unreachable!("nothing will call it"));
        assert!(!handle.remove_done_callback(called));
        let exception = handle.exception().map(|exception| exception.is_some());
        match n {
            0 => assert_eq!(exception, Ok(false)),
            3 => assert_eq!(exception, Err(ExceptionError::Cancelled)),
            _ => assert_eq!(exception, Ok(true)),
        }
        let outcome = handle.result().expect("finished");
        match n {
            0 => assert_eq!(outcome.expect("returned"), Ok(7)),
            1 => assert!(outcome.expect_err("it failed").is_panic()),
            2 => assert_eq!(outcome.expect("its value"), Err(Fault("no"))),
            _ => assert!(outcome.expect_err("destroyed").is_cancelled()),
        }
    }
}

// ---- cancelling from destructors ------------------------------------------------------------------------------------

type Stash<T> = Rc<RefCell<Option<JoinHandle<T>>>>;

/// Spawns a task whose future's destructor cancels what is in the stash, and tells what that gave.
fn canceller<T: 'static>(
    ex: &Executor<'static>,
    stash: &Stash<T>,
    trace: &Trace,
    body: impl Future<Output = u8> + 'static,
) -> JoinHandle<u8> {
    let (stash, trace) = (Rc::clone(stash), trace.clone());
    let cancels = on_drop(move || {
        let answer = stash.borrow().as_ref().map(JoinHandle::cancel);
        trace.push(format!("{answer:?}"));
    });
    ex.spawn(holding(cancels, body))
}

// Another task: it is gone before the outermost cancel returns, or, where it has ended, it is too late.
#[test]
fn a_destructor_may_cancel_another_task() {
    let ex = Executor::new();
    let trace = Trace::new();
    let drops = DropLog::new();
    let stash: Stash<()> = Rc::default();
    stash.replace(Some(ex.spawn(holding(drops.guard("victim"), pending()))));
    let first = canceller(&ex, &stash, &trace, pending());
    let second = canceller(&ex, &stash, &trace, pending());
    ex.block_on(async {
        yield_n(1).await;
        assert!(first.cancel());
        drops.assert(&["victim"]);
        trace.assert(&["Some(true)"]);
        assert!(second.cancel());
        trace.assert(&["Some(false)"]);
    });
    assert_eq!(counts(&ex).cancelled, 3);
}

// Itself: its end is under way, so that it is not finished yet; a pending cancel beats the value that it has returned.
#[test]
fn a_destructor_may_cancel_its_own_task() {
    let ex = Executor::new();
    let trace = Trace::new();
    let own: Stash<u8> = Rc::default();
    for returns in [true, false] {
        let body = async move {
            if !returns {
                pending::<()>().await;
            }
            7
        };
        own.replace(Some(canceller(&ex, &own, &trace, body)));
        ex.run_until_stalled();
        let handle = own.take().expect("stored above");
        if !returns {
            own.replace(Some(handle));
            ex.block_on(async { assert!(own.borrow().as_ref().expect("stored").cancel()) });
            assert!(own.take().expect("stored").is_cancelled());
        } else {
            let error = ex.block_on(handle).expect_err("the cancel beat the value");
            assert!(error.is_cancelled());
        }
        let labels = trace.labels();
        assert!(
            labels.last().is_some_and(|label| label == "Some(true)"),
            "{labels:?}"
        );
    }
    assert_eq!(counts(&ex).cancelled, 2);
    check_accounting(&ex);
}

// From the destructors of an output, of a callback's captures, of an error and of a panic payload.
#[test]
fn destructors_of_what_is_left_may_cancel_too() {
    quiet();
    struct Cancels(Rc<Cell<usize>>, Stash<()>);
    impl Drop for Cancels {
        fn drop(&mut self) {
            let handle = self.1.take().expect("one for each");
            assert!(handle.cancel());
            self.0.set(self.0.get() + 1);
        }
    }
    impl std::fmt::Debug for Cancels {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Cancels")
        }
    }
    impl std::fmt::Display for Cancels {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Cancels")
        }
    }
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let cancelled = Rc::new(Cell::new(0));
    let cancels = || {
        let victim = ex.spawn(pending::<()>());
        Cancels(Rc::clone(&cancelled), Rc::new(RefCell::new(Some(victim))))
    };
    let output = cancels();
    ex.spawn(async move { output }).detach();
    let error = cancels();
    ex.spawn_fallible(async move { Err::<(), _>(error) })
        .detach();
    let captured = cancels();
    ex.call_soon(move || drop(captured));
    let uncalled = cancels();
    let call = ex.call_later(Duration::MAX, move || drop(uncalled));
    let done = cancels();
    ex.spawn(async {}).add_done_callback(move |_| drop(done));
    ex.run_until_stalled();
    ex.block_on(async move { assert!(call.cancel()) });
    let in_task = cancels();
    ex.block_on(async { drop(spawn(async move { drop(in_task) }).await) });
    assert_eq!(cancelled.get(), 6);
    ex.run_until_stalled();
    assert_eq!(counts(&ex).cancelled, 6);
    assert!(ex.is_empty());
}

// `cancel` on drop, from a drop: a `CancelOnDrop` that a cancelled task holds.
#[test]
fn a_chain_of_handles_that_cancel_on_drop_goes_at_once() {
    let ex = Executor::new();
    let drops = DropLog::new();
    let mut last = ex
        .spawn(holding(drops.guard("0"), pending::<()>()))
        .cancel_on_drop();
    for n in 1..5 {
        let held = (drops.guard(n.to_string()), last);
        last = ex.spawn(holding(held, pending::<()>())).cancel_on_drop();
    }
    ex.block_on(async move {
        yield_n(1).await;
        drop(last);
        drops.assert(&["4", "3", "2", "1", "0"]);
        assert!(LocalHandle::current().tasks().is_empty());
    });
}
