//! Regressions that hostile user code found: destructors, callbacks, hooks and handlers that come back into the executor at
//! the worst moment. Each test says which promise stood against it, and what broke.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt;
use mainstay::{
    CancelHandle, ContextKind, ExceptionContext, Executor, JoinHandle, LocalHandle, ReportPolicy,
    Supervisor, current_task, set_default_exception_handler, spawn, yield_now,
};

use crate::borrowed::leak;
use crate::remote::elsewhere;
use crate::support::{
    DropLog, Guard, LEAKS, Recorder, Trace, check_accounting, check_stats, counting_waker, counts,
    holding, in_child_ok, on_drop, poll_once, poll_with, quiet, yield_n,
};
use crate::wake::{Probe, alone};

/// A place for what is made now and taken later.
type Stash<T> = Rc<RefCell<Option<T>>>;
type Coroutine = Pin<Box<dyn Future<Output = ()>>>;

/// What is borrowed: enters `lender` in the log when it goes.
struct Lender {
    value: u64,
    _guard: Guard,
}

fn lender(log: &DropLog) -> Box<Lender> {
    Box::new(Lender {
        value: 0xfeed,
        _guard: log.guard("lender"),
    })
}

/// Who borrows: its destructor looks at what it borrows, then enters `borrower` in the log.
struct Borrower<'a> {
    lender: &'a Lender,
    _guard: Guard,
}

fn borrower<'a>(lender: &'a Lender, log: &DropLog) -> Borrower<'a> {
    Borrower {
        lender,
        _guard: log.guard("borrower"),
    }
}

impl Drop for Borrower<'_> {
    fn drop(&mut self) {
        assert_eq!(self.lender.value, 0xfeed, "what it borrows is alive");
    }
}

/// Polls a suspended coroutine once when it is dropped: what is in there goes on in the midst of somebody else's drop.
struct Resume(Stash<Coroutine>);

impl Drop for Resume {
    fn drop(&mut self) {
        let coroutine = self.0.take();
        if let Some(mut coroutine) = coroutine {
            assert!(poll_once(&mut coroutine).is_ready());
        }
    }
}

/// A handle that may outlive its executor, which is gone.
fn handle_of_a_dropped_executor() -> LocalHandle<'static> {
    let ex = Executor::new();
    ex.block_on(async { LocalHandle::current() })
}

/// A wake hook that does nothing and captures `guard`.
fn hook_with(guard: Guard) -> impl Fn() + Send + Sync + 'static {
    move || {
        let _captured = &guard;
    }
}

/// Calls `f`, which must not panic.
#[track_caller]
fn contained<R>(f: impl FnOnce() -> R) -> R {
    let result = catch_unwind(AssertUnwindSafe(f));
    assert!(result.is_ok(), "a panic of the user's came out");
    result.unwrap_or_else(|_| unreachable!("checked above"))
}

// ---------------------------------------------------------------------------------------------------------------------
// What borrows is dropped before what it borrows
// ---------------------------------------------------------------------------------------------------------------------

// Soundness: a callback added after the executor's end pinned the output, beyond its handle and beyond what it borrowed.
#[test]
fn a_late_callback_does_not_keep_a_borrowed_output_alive() {
    let log = DropLog::new();
    let lender = lender(&log);
    let ex = Executor::new();
    let handle = ex.spawn(async { borrower(&lender, &log) });
    let other = ex.spawn(async { 1 });
    ex.run_until_stalled();
    drop(ex);
    handle.add_done_callback(|_| {});
    drop(handle);
    drop(lender);
    drop(other);
    log.assert(&["borrower", "lender"]);
}

// Soundness: callbacks beyond a tick's budget pinned the output, and the drop of another handle let it go, too late.
#[test]
fn callbacks_left_over_by_a_tick_do_not_keep_a_borrowed_output_in_a_leaked_executor() {
    let log = DropLog::new();
    let lender = lender(&log);
    let ex = Executor::new();
    let other = ex.spawn(async { String::from("x") });
    ex.run_until_stalled();
    let handle = ex.spawn(async { borrower(&lender, &log) });
    handle.add_done_callback(|_| {});
    ex.tick(1);
    drop(handle);
    leak(ex);
    drop(lender);
    drop(other);
    assert_ne!(
        log.names(),
        ["lender", "borrower"],
        "leaked or dropped in time, never dropped too late"
    );
}

// Soundness: a handle dropped while another handle's drop was at work had its output dropped after that one, too late.
#[test]
fn a_handle_dropped_inside_another_handles_drop_drops_its_output_at_once() {
    let log = DropLog::new();
    let outer: Stash<JoinHandle<Resume>> = Rc::default();
    let rest: Stash<Coroutine> = Rc::default();
    let mut coroutine: Coroutine = Box::pin({
        let (log, outer, rest) = (log.clone(), Rc::clone(&outer), Rc::clone(&rest));
        async move {
            let lender = lender(&log);
            let ex = Executor::new();
            let inner = ex.spawn(async { borrower(&lender, &log) });
            let resumes = ex.spawn(async move { Resume(rest) });
            ex.run_until_stalled();
            drop(ex);
            outer.replace(Some(resumes));
            yield_now().await;
            drop(inner);
            drop(lender);
        }
    });
    assert!(poll_once(&mut coroutine).is_pending());
    rest.replace(Some(coroutine));
    let handle = outer.take();
    drop(handle);
    log.assert(&["borrower", "lender"]);
}

// Soundness: a future that borrows, spawned on a dropped executor during another such spawn, was dropped after that one.
#[test]
fn a_borrowing_future_refused_inside_another_refusal_is_dropped_at_once() {
    let log = DropLog::new();
    let outer: Stash<LocalHandle<'static>> = Rc::default();
    let rest: Stash<Coroutine> = Rc::default();
    let mut coroutine: Coroutine = Box::pin({
        let (log, outer) = (log.clone(), Rc::clone(&outer));
        async move {
            let ex = Executor::new();
            let handle = ex.handle();
            outer.replace(Some(ex.block_on(async { LocalHandle::current() })));
            drop(ex);
            yield_now().await;
            let lender = lender(&log);
            let borrows = borrower(&lender, &log);
            handle
                .spawn(async move {
                    let _borrows = borrows;
                })
                .detach();
            drop(lender);
        }
    });
    assert!(poll_once(&mut coroutine).is_pending());
    rest.replace(Some(coroutine));
    let handle = outer.take().expect("it was put there");
    let resumes = Resume(rest);
    handle
        .spawn(async move {
            let _resumes = resumes;
        })
        .detach();
    log.assert(&["borrower", "lender"]);
}

// Soundness: a handle made by a destructor that ran at the very end of the executor's drop outlived the task's memory.
#[test]
fn a_handle_made_at_the_very_end_of_the_executors_drop_may_be_used() {
    /// Spawns its like when dropped, for ever, and keeps the latest handles.
    struct Again {
        local: LocalHandle<'static>,
        kept: Rc<RefCell<VecDeque<JoinHandle<()>>>>,
    }
    impl Drop for Again {
        fn drop(&mut self) {
            let next = Again {
                local: self.local.clone(),
                kept: Rc::clone(&self.kept),
            };
            let handle = self.local.spawn(async move {
                let _next = next;
            });
            let oldest = {
                let mut kept = self.kept.borrow_mut();
                kept.push_back(handle);
                (kept.len() > 100).then(|| kept.pop_front())
            };
            drop(oldest);
        }
    }
    let test = "hostile::a_handle_made_at_the_very_end_of_the_executors_drop_may_be_used";
    in_child_ok(test, &LEAKS, || {
        let ex = Executor::new();
        let kept = Rc::default();
        let again = Again {
            local: ex.block_on(async { LocalHandle::current() }),
            kept: Rc::clone(&kept),
        };
        ex.spawn(async move {
            let _again = again;
        })
        .detach();
        drop(ex);
        let kept = kept.take();
        assert_eq!(kept.len(), 100);
        for handle in kept {
            black_box((handle.is_finished(), handle.name()));
            drop(handle);
        }
    });
}

thread_local! {
    /// For hooks, which must be `Send`.
    static HOOKED: RefCell<Vec<Rc<Executor<'static>>>> = const { RefCell::new(Vec::new()) };
}

// Soundness: the wake of another executor's task, which had awaited one that just returned, called a hook while the one that
// had returned still counted as running. The hook had it taken and its memory given back.
#[test]
fn a_wake_hook_finds_no_task_running_that_has_returned() {
    let (home, other) = (Rc::new(Executor::new()), Rc::new(Executor::new()));
    HOOKED.replace(vec![Rc::clone(&home), Rc::clone(&other)]);
    let pad = black_box([7_u8; 700]);
    let handle = home.spawn(async move {
        yield_now().await;
        black_box(pad)[0]
    });
    let taken = Rc::new(Cell::new(0));
    let takes = Rc::clone(&taken);
    let awaiting = async move {
        takes.set(handle.await.unwrap());
        HOOKED.with_borrow(|all| all[0].shrink());
    };
    other.spawn(awaiting).detach();
    other.run_until_stalled();
    let hooked = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&hooked);
    other.on_wake(move || {
        calls.fetch_add(1, Ordering::SeqCst);
        assert!(current_task().is_none(), "it has returned");
        let other = HOOKED.with_borrow(|all| all.get(1).cloned());
        other.expect("set above").run_until_stalled();
        assert!(current_task().is_none());
    });
    home.run_until_stalled();
    HOOKED.take();
    assert_eq!((taken.get(), hooked.load(Ordering::SeqCst)), (7, 1));
    assert_eq!((home.stats().reports, other.stats().reports), (0, 0));
    check_accounting(&home);
    check_accounting(&other);
}

// Soundness: between the end of a group's member and the publishing of its outcome, a foreign waker that waited for room in the
// group gave up the handle, or made a side record. The outcome was lost, or the record's address taken for a key.
#[test]
fn a_waker_that_waits_for_room_may_do_anything_to_the_member_that_makes_it() {
    type Held = RefCell<Option<JoinHandle<Guard>>>;
    struct Meddles(fn(&Held));
    thread_local! {
        static HELD: Held = const { RefCell::new(None) };
    }
    impl Wake for Meddles {
        fn wake(self: Arc<Self>) {
            HELD.with(|held| (self.0)(held));
        }
    }
    let ways: [fn(&Held); 5] = [
        |held| drop(held.take()),
        |held| drop(held.borrow().as_ref().expect("held").cancel_handle()),
        |held| {
            let handle = &mut *held.borrow_mut();
            assert!(poll_once(handle.as_mut().expect("held")).is_pending());
        },
        |held| {
            let handle = held.borrow();
            handle.as_ref().expect("held").add_done_callback(|_| {});
        },
        |held| assert!(!held.borrow().as_ref().expect("held").cancel()),
    ];
    for (way, meddle) in ways.into_iter().enumerate() {
        let ex = Executor::new();
        let log = DropLog::new();
        let guard = log.guard("output");
        ex.block_on(async {
            let group = Supervisor::new();
            group.limit(1);
            HELD.with(|held| held.replace(Some(group.spawn(async move { guard }))));
            let mut room = Box::pin(group.room());
            let waker = Waker::from(Arc::new(Meddles(meddle)));
            assert!(poll_with(&mut room, &waker).is_pending());
            yield_n(4).await;
            let held = HELD.with(RefCell::take);
            assert_eq!(held.is_none(), way == 0);
            assert_eq!(log.len(), usize::from(way == 0), "way {way}");
            drop(held.map(|mut handle| handle.result().expect("finished").expect("returned")));
        });
        log.assert(&["output"]);
        assert_eq!(ex.stats().reports, 0);
        check_accounting(&ex);
    }
}

// Soundness: what ends last, the executor, a task that is being dropped or a handle, takes the arena with it, and nothing
// before. The destructor of a task, which nobody may hold, drops the executor, while other handles are about.
#[test]
fn a_destructor_that_drops_the_executor_leaves_the_handles_their_outcomes() {
    for claimed in [false, true] {
        let log = DropLog::new();
        let stash: Stash<Executor<'static>> = Rc::default();
        let ex = Executor::new();
        let local = ex.block_on(async { LocalHandle::current() });
        let (owner, guard) = (Rc::clone(&stash), log.guard("task"));
        let last = on_drop(move || drop(owner.take()));
        // Members of a group are dropped at once, also between drives.
        let group = Supervisor::new_in(&local);
        let handle = group.spawn(async move {
            let _held = (last, guard);
            pending::<()>().await;
        });
        let handle = claimed.then_some(handle);
        let others = [local.spawn(yield_n(0)), local.spawn(pending())];
        let kept = local.spawn(async { String::from("kept") });
        ex.run_until_stalled();
        stash.replace(Some(ex));
        group.abort();
        assert!(stash.borrow().is_none(), "the executor is gone");
        log.assert(&["task"]);
        assert!(handle.is_none_or(|handle| handle.is_cancelled()));
        assert!(others[0].is_finished() && others[1].is_cancelled());
        drop((others, group));
        assert_eq!(kept.now_or_never().unwrap().unwrap(), "kept");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Panics of what hooks, handlers and callbacks capture
// ---------------------------------------------------------------------------------------------------------------------

/// A process-wide handler that replaces itself, so that its call drops what it captures, which panics.
fn replaces_itself(guard: Guard) {
    set_default_exception_handler(move |_| {
        let _captured = &guard;
        set_default_exception_handler(|_| {});
    });
}

// P3: the captures of a process-wide handler that had replaced itself panicked out of the loop.
#[test]
fn the_captures_of_a_process_wide_handler_do_not_panic_out_of_the_loop() {
    let test = "hostile::the_captures_of_a_process_wide_handler_do_not_panic_out_of_the_loop";
    in_child_ok(test, &[], || {
        quiet();
        let log = DropLog::new();
        replaces_itself(log.guard("captured").panics("boom in the captures"));
        let ex = Executor::new();
        let handle = ex.spawn(async { panic!("boom") });
        contained(|| ex.run_until_stalled());
        assert!(handle.is_finished());
        log.assert(&["captured"]);
        check_accounting(&ex);
    });
}

// P3 and soundness: such a panic left the executor's drop half done, and handles looked at freed memory.
#[test]
fn the_captures_of_a_process_wide_handler_do_not_panic_out_of_the_executors_drop() {
    let test =
        "hostile::the_captures_of_a_process_wide_handler_do_not_panic_out_of_the_executors_drop";
    in_child_ok(test, &[], || {
        quiet();
        let log = DropLog::new();
        replaces_itself(log.guard("captured").panics("boom in the captures"));
        let ex = Executor::new();
        let handles = [ex.spawn(pending::<()>()), ex.spawn(pending::<()>())];
        contained(|| drop(ex));
        log.assert(&["captured"]);
        for handle in handles {
            assert!(handle.is_cancelled());
            drop(handle);
        }
    });
}

// P3: the captures of the wake hook panicked out of the executor's drop.
#[test]
fn the_captures_of_the_wake_hook_do_not_panic_out_of_the_executors_drop() {
    quiet();
    let log = DropLog::new();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.on_wake(hook_with(
        log.guard("captured").panics("boom in the captures"),
    ));
    contained(|| drop(ex));
    log.assert(&["captured"]);
    assert_eq!(recorder.len(), 1, "it is told: {:?}", recorder.reports());
}

// P3: replacing the wake hook let a panic of the old one's captures out.
#[test]
fn the_captures_of_a_replaced_wake_hook_do_not_panic_out_of_on_wake() {
    quiet();
    let log = DropLog::new();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.on_wake(hook_with(
        log.guard("captured").panics("boom in the captures"),
    ));
    contained(|| ex.on_wake(|| {}));
    log.assert(&["captured"]);
    ex.run_until_stalled();
    assert_eq!(recorder.len(), 1, "it is told: {:?}", recorder.reports());
}

// P7: each such panic lost an executor id for good, until no executor could be made.
#[test]
fn an_executor_whose_wake_hook_panics_at_the_end_gives_its_id_back() {
    let test = "hostile::an_executor_whose_wake_hook_panics_at_the_end_gives_its_id_back";
    in_child_ok(test, &[], || {
        quiet();
        let log = DropLog::new();
        for _ in 0..20_000 {
            let ex = Executor::new();
            ex.set_exception_handler(|_, _| {});
            ex.on_wake(hook_with(log.guard("captured").panics("boom")));
            contained(|| drop(ex));
        }
        assert_eq!(log.len(), 20_000);
    });
}

// P3: late callbacks were dropped together, so that two whose captures panic aborted the process.
#[test]
fn two_late_callbacks_whose_captures_panic_do_not_abort() {
    let test = "hostile::two_late_callbacks_whose_captures_panic_do_not_abort";
    in_child_ok(test, &[], || {
        quiet();
        let log = DropLog::new();
        let ex = Executor::new();
        let handles = [ex.spawn(async {}), ex.spawn(async {})];
        ex.run_until_stalled();
        drop(ex);
        for (handle, name) in handles.iter().zip(["first", "second"]) {
            let captured = log.guard(name).panics_while_unwinding("boom");
            // Whose panic this is when nobody runs is left open; that it is one at a time is not.
            drop(catch_unwind(AssertUnwindSafe(|| {
                handle.add_done_callback(move |_| drop(captured))
            })));
        }
        for handle in handles {
            drop(catch_unwind(AssertUnwindSafe(|| drop(handle))));
        }
        log.assert(&["first", "second"]);
    });
}

// P3: the payload of a hook's last panic stayed behind, and its destructor blew up the next `Executor::new`.
#[test]
fn the_payload_of_a_hooks_last_panic_does_not_reach_the_next_executor() {
    let test = "hostile::the_payload_of_a_hooks_last_panic_does_not_reach_the_next_executor";
    in_child_ok(test, &[], || {
        quiet();
        let log = DropLog::new();
        let ex = Executor::new();
        let payloads = log.clone();
        ex.on_wake(move || panic_any(payloads.guard("payload").panics("boom in the payload")));
        ex.task().background().spawn(async {}).detach();
        contained(|| drop(ex));
        contained(|| drop(Executor::new()));
        log.assert(&["payload"]);
    });
}

// P3 and P5: a stale wake still called the hook of a dropped executor, and its payload blew up the next `Executor::new`.
#[test]
fn a_stale_wake_leaves_no_payload_for_the_next_executor() {
    let test = "hostile::a_stale_wake_leaves_no_payload_for_the_next_executor";
    alone(test, || {
        quiet();
        let log = DropLog::new();
        let ex = Executor::new();
        let keeps = ex.spawn(async { 1 });
        let probe = Probe::new();
        ex.spawn(probe.task()).detach();
        ex.run_until_stalled();
        let payloads = log.clone();
        ex.on_wake(move || panic_any(payloads.guard("payload").panics("boom in the payload")));
        drop(ex);
        elsewhere(|| probe.wake());
        drop(keeps);
        contained(|| drop(Executor::new()));
    });
}

// P3 and P2: a hook's panic between the last drive and the drop was told to nobody.
#[test]
fn a_panic_of_the_wake_hook_before_the_end_is_told() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.on_wake(|| panic!("boom in the hook"));
    ex.task().background().spawn(async {}).detach();
    drop(ex);
    assert_eq!(recorder.kinds(), [ContextKind::Callback]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Outcomes and reports
// ---------------------------------------------------------------------------------------------------------------------

// P2: a callback added after the executor's end, which nobody will call, kept the outcome from its handle for ever.
#[test]
fn a_callback_added_after_the_executors_end_leaves_the_outcome() {
    let ex = Executor::new();
    let mut handle = ex.spawn(async { 7 });
    ex.run_until_stalled();
    drop(ex);
    handle.add_done_callback(|_| {});
    assert_eq!(handle.result().unwrap().unwrap(), 7);
}

// P2: a task that a `CancelHandle` had cancelled was reported as destroyed while pending.
#[test]
fn a_task_cancelled_by_its_cancel_handle_is_not_reported_at_the_end() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let handle = ex.spawn(pending::<()>());
    assert!(handle.cancel_handle().cancel());
    drop(ex);
    assert!(recorder.is_empty(), "{:?}", recorder.reports());
    assert!(handle.is_cancelled());
}

// P2: a failure that the handler read while the executor was dropped was counted twice, told too, and aborted.
#[test]
fn a_failure_read_by_the_handler_at_the_end_is_not_told_as_well() {
    let test = "hostile::a_failure_read_by_the_handler_at_the_end_is_not_told_as_well";
    in_child_ok(test, &[], || {
        quiet();
        let ex = Executor::builder()
            .report(ReportPolicy::IfUnretrieved)
            .build();
        let first: JoinHandle<()> = ex.spawn(async { panic!("boom a") });
        let second: JoinHandle<()> = ex.spawn(async { panic!("boom b") });
        let second = Rc::new(RefCell::new(Some(second)));
        ex.run_until_stalled();
        let recorder = Recorder::new();
        // What the handler sees is asserted outside of it, where a panic is not contained.
        let seen = Rc::new(RefCell::new(Vec::new()));
        ex.set_exception_handler({
            let (recorder, second, seen) = (recorder.clone(), Rc::clone(&second), Rc::clone(&seen));
            move |handle, context| {
                recorder.record(context);
                let read = second.borrow().as_ref().map(|second| {
                    let failure = second.exception();
                    failure.is_ok_and(|failure| failure.is_some())
                });
                seen.borrow_mut().push((read, handle.stats()));
            }
        });
        contained(|| drop(ex));
        assert_eq!(recorder.exceptions(), ["boom a"]);
        let (read, stats) = seen.borrow_mut().pop().expect("it was called");
        assert_eq!(read, Some(true));
        let counts = check_stats(&stats);
        assert_eq!((counts.reported, counts.retrieved), (1, 1));
        let second = second.take().expect("it stayed there");
        assert!(first.is_finished() && second.is_finished());
    });
}

// P6: what failed while a user's own report was being made was told inside of the running handler.
#[test]
fn a_failure_during_a_users_report_is_told_after_the_handler() {
    quiet();
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();
    let handle: JoinHandle<()> = ex.spawn(async { panic!("boom") });
    ex.run_until_stalled();
    let stash = Rc::new(RefCell::new(Some(handle)));
    let trace = Trace::new();
    ex.set_exception_handler({
        let (trace, stash) = (trace.clone(), Rc::clone(&stash));
        move |_, _| {
            trace.push("begins");
            let handle = stash.take();
            drop(handle);
            trace.push("ends");
        }
    });
    ex.call_exception_handler(&ExceptionContext::new("mine").build());
    trace.assert(&["begins", "ends", "begins", "ends"]);
    assert_eq!(counts(&ex).reports, 2);
}

// P3: what the captures of a replaced handler panicked with, during a user's report outside of a drive, was told late.
#[test]
fn a_panic_of_a_replaced_handlers_captures_is_told_after_a_users_report() {
    quiet();
    let log = DropLog::new();
    let recorder = Recorder::new();
    let ex = Executor::new();
    ex.set_exception_handler({
        let (log, recorder) = (log.clone(), recorder.clone());
        move |handle, context| {
            recorder.record(context);
            let captured = log.guard("captured").panics("boom in the captures");
            handle.set_exception_handler(move |_, _| {
                let _captured = &captured;
            });
            let last = recorder.clone();
            handle.set_exception_handler(move |_, context| last.record(context));
        }
    });
    ex.call_exception_handler(&ExceptionContext::new("mine").build());
    assert_eq!(
        recorder.kinds(),
        [ContextKind::Other, ContextKind::Destructor]
    );
    log.assert(&["captured"]);
}

// P3: a process-wide handler that passed its report back to the executor recursed until the stack overflowed.
#[test]
fn a_process_wide_handler_that_calls_back_does_not_overflow_the_stack() {
    let test = "hostile::a_process_wide_handler_that_calls_back_does_not_overflow_the_stack";
    in_child_ok(test, &[], || {
        quiet();
        set_default_exception_handler(|context| {
            if let Some(handle) = LocalHandle::try_current() {
                handle.call_exception_handler(context);
            }
        });
        let ex = Executor::new();
        ex.spawn(async { panic!("boom") }).detach();
        ex.run_until_stalled();
        assert_eq!(counts(&ex).reported, 1);
    });
}

// P2: a payload of `stop_with` that no drive collected was lost in silence.
#[test]
fn a_payload_of_stop_with_that_no_drive_collects_is_told() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    ex.stop_with(Box::new("fatal"));
    drop(ex);
    assert_eq!(recorder.len(), 1, "{:?}", recorder.reports());
}

// P2: a refused task lost the name that it was given.
#[test]
fn a_refused_task_has_the_name_it_was_given() {
    let ex = Executor::new();
    let handle = ex.handle();
    let keeps = ex.spawn(async { 1 });
    drop(ex);
    let refused = handle.task().name("given").spawn(async {});
    assert_eq!(refused.name(), "given");
    drop(keeps);
}

// ---------------------------------------------------------------------------------------------------------------------
// Who is called, when, and where
// ---------------------------------------------------------------------------------------------------------------------

// P6: dropping a handle in a poll called another task's callbacks right there, with the polled task as the current one.
#[test]
fn dropping_a_handle_in_a_poll_calls_no_callback_of_another_task() {
    let ex = Executor::new();
    let done = ex.spawn(async { String::from("x") });
    let other = ex.spawn(pending::<()>());
    let polling = Rc::new(Cell::new(false));
    let called = Rc::new(Cell::new(None));
    other.add_done_callback({
        let (polling, called) = (Rc::clone(&polling), Rc::clone(&called));
        move |_| called.set(Some((polling.get(), current_task().is_some())))
    });
    ex.run_until_stalled();
    ex.spawn(async move {
        polling.set(true);
        other.cancel();
        drop(done);
        polling.set(false);
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(
        called.get(),
        Some((false, false)),
        "inside of a poll, with a current task"
    );
}

// P6: callbacks that a tick had left over were called by the drop of some handle, outside of any drive.
#[test]
fn callbacks_left_over_by_a_tick_are_not_called_by_a_handles_drop() {
    let ex = Executor::new();
    let other = ex.spawn(async { String::from("x") });
    ex.run_until_stalled();
    let handle = ex.spawn(async {});
    let driven = Rc::new(Cell::new(None));
    let sees = Rc::clone(&driven);
    handle.add_done_callback(move |_| sees.set(Some(LocalHandle::try_current().is_some())));
    ex.tick(1);
    drop(other);
    assert_ne!(driven.get(), Some(false), "called outside of any drive");
    ex.run_until_stalled();
    assert_eq!(driven.get(), Some(true));
}

// P6: a cancel repeated inside a drive was taken as done already, although the future was still there.
#[test]
fn a_cancel_from_between_drives_repeated_in_a_drive_takes_effect_at_once() {
    let log = DropLog::new();
    let ex = Executor::new();
    let handle = ex.spawn(holding(log.guard("future"), pending::<()>()));
    ex.run_until_stalled();
    assert!(handle.cancel());
    ex.block_on(async {
        handle.cancel();
        log.assert(&["future"]);
    });
    assert!(handle.is_cancelled());
    check_accounting(&ex);
}

// P9: a stop asked for by a root that panicked was left over, and ended the next drive.
#[test]
fn a_stop_of_a_root_that_panics_does_not_end_the_next_drive() {
    quiet();
    let ex = Executor::new();
    let first = catch_unwind(AssertUnwindSafe(|| {
        ex.block_on(async {
            ex.stop();
            panic!("boom in the root")
        })
    }));
    assert!(first.is_err());
    assert!(ex.try_block_on(yield_n(5)).is_ok());
}

// P3: a fatal stop beside a panicking root was left over, and unwound out of the next, innocent drive.
#[test]
fn a_fatal_stop_of_a_root_that_panics_does_not_unwind_out_of_the_next_drive() {
    quiet();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let first = catch_unwind(AssertUnwindSafe(|| {
        ex.block_on(async {
            ex.stop_with(Box::new("fatal"));
            panic!("boom in the root")
        })
    }));
    assert!(first.is_err());
    contained(|| ex.block_on(yield_n(2)));
}

// P9: a task woken between two drives ran after one that was spawned later.
#[test]
fn what_is_woken_and_spawned_between_drives_runs_in_that_order() {
    let ex = Executor::new();
    let trace = Trace::new();
    let waker: Stash<Waker> = Rc::default();
    ex.spawn({
        let (trace, waker) = (trace.clone(), Rc::clone(&waker));
        async move {
            poll_fn(|cx| {
                if waker.borrow().is_some() {
                    return Poll::Ready(());
                }
                waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            })
            .await;
            trace.push("woken first");
        }
    })
    .detach();
    ex.run_until_stalled();
    let wakes = waker.borrow().clone().expect("it was polled");
    wakes.wake();
    let pushes = trace.clone();
    ex.spawn(async move { pushes.push("spawned second") })
        .detach();
    ex.run_until_stalled();
    trace.assert(&["woken first", "spawned second"]);
}

// P9: the same of a wake that came from another thread, and of a callback.
#[test]
fn what_another_thread_woke_between_drives_runs_before_what_is_added_later() {
    for call in [false, true] {
        let ex = Executor::new();
        let trace = Trace::new();
        let probe = Probe::new();
        ex.spawn({
            let (trace, woken) = (trace.clone(), probe.task());
            async move {
                woken.await;
                trace.push("woken first");
            }
        })
        .detach();
        ex.run_until_stalled();
        elsewhere(move || probe.complete());
        let pushes = trace.clone();
        if call {
            ex.call_soon(move || pushes.push("added second"));
        } else {
            ex.spawn(async move { pushes.push("added second") })
                .detach();
        }
        ex.run_until_stalled();
        trace.assert(&["woken first", "added second"]);
    }
}

/// A foreign waker that cancels a task when its last clone is dropped.
struct CancelsOnDrop(CancelHandle);

impl Wake for CancelsOnDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for CancelsOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

// P6: a foreign waker whose clone ended the awaited task lost the wake of whoever registered; here its drop does that.
#[test]
fn a_foreign_waker_that_cancels_while_it_is_replaced_loses_no_wake() {
    let ex = Executor::new();
    let mut handle = ex.spawn(pending::<()>());
    let cancels = Waker::from(Arc::new(CancelsOnDrop(handle.cancel_handle())));
    let (waker, woken) = counting_waker();
    ex.block_on(async {
        assert!(poll_with(&mut handle, &cancels).is_pending());
        drop(cancels);
        assert!(!handle.is_finished(), "the handle keeps a clone");
        let polled = poll_with(&mut handle, &waker);
        assert!(
            polled.is_ready() || woken.wakes() > 0,
            "pending, and nobody will wake it"
        );
        assert!(handle.is_finished());
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Nobody starves, nothing grows, nothing overflows
// ---------------------------------------------------------------------------------------------------------------------

/// Spawns and cancels a task whose callback does the same again, until told to stop.
fn cancels_its_like(ex: Rc<Executor<'static>>, calls: Rc<Cell<u32>>, stop: Rc<Cell<bool>>) {
    if stop.get() || calls.get() >= 50_000 {
        return;
    }
    calls.set(calls.get() + 1);
    let handle = ex.spawn(pending::<()>());
    handle.add_done_callback(move |_| cancels_its_like(ex, calls, stop));
    handle.cancel();
}

// P8: callbacks of cancelled tasks that cancel their like kept the loop from every other task.
#[test]
fn callbacks_that_cancel_their_like_for_ever_starve_nobody() {
    let ex = Rc::new(Executor::new());
    let (calls, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    ex.block_on({
        let (ex, calls, stop) = (Rc::clone(&ex), Rc::clone(&calls), Rc::clone(&stop));
        async move {
            let stops = Rc::clone(&stop);
            let sibling = spawn(async move {
                yield_n(2).await;
                stops.set(true);
            });
            let starts = spawn(async move { cancels_its_like(ex, calls, stop) });
            sibling.await.unwrap();
            starts.await.unwrap();
        }
    });
    assert!(
        calls.get() < 50_000,
        "{} callbacks before a sibling's third poll",
        calls.get()
    );
    check_accounting(&ex);
}

/// Adds itself as a callback to the finished task in the stash, for as long as there is one.
fn adds_itself(stash: Stash<JoinHandle<()>>) {
    let next = Rc::clone(&stash);
    if let Some(handle) = stash.borrow().as_ref() {
        handle.add_done_callback(move |_| adds_itself(next));
    }
}

// P8: in ticks of one step each, a callback that adds itself again took every step.
#[test]
fn a_callback_that_adds_itself_does_not_take_every_step_of_small_ticks() {
    let ex = Executor::new();
    let stash: Stash<JoinHandle<()>> = Rc::default();
    stash.replace(Some(ex.spawn(async {})));
    ex.run_until_stalled();
    adds_itself(Rc::clone(&stash));
    let sibling = ex.spawn(yield_n(2));
    for _ in 0..1000 {
        ex.tick(1);
    }
    let finished = sibling.is_finished();
    drop(stash.take());
    ex.run_until_stalled();
    assert!(finished, "a ready task had its turns within 1000 ticks");
}

// P8: a tick carried out every message from other threads, whatever its budget.
#[test]
fn messages_are_within_the_budget_of_a_tick() {
    let ex = Executor::new();
    let calls = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        let calls = Arc::clone(&calls);
        ex.spawner()
            .call_soon(move |_| {
                calls.fetch_add(1, Ordering::SeqCst);
            })
            .unwrap();
    }
    ex.tick(1);
    assert!(calls.load(Ordering::SeqCst) <= 1);
    ex.run_until_stalled();
    assert_eq!(calls.load(Ordering::SeqCst), 100);
}

// P7: each poll of `idle` kept another clone of its waker.
#[test]
fn polling_idle_often_keeps_one_waker() {
    let ex = Executor::new();
    let handle = ex.spawn(pending::<()>());
    let (waker, count) = counting_waker();
    let mut idle = Box::pin(ex.idle());
    for _ in 0..1000 {
        assert!(poll_with(&mut idle, &waker).is_pending());
    }
    assert!(
        Arc::strong_count(&count) < 10,
        "{} wakers kept",
        Arc::strong_count(&count)
    );
    drop(idle);
    drop(handle);
}

// P7: shrinking took time with the square of the slots; here with enough of them to notice.
#[test]
fn many_slots_shrink() {
    let ex = Executor::new();
    for _ in 0..50_000 {
        ex.spawn(async {}).detach();
    }
    ex.run_until_stalled();
    ex.shrink();
    assert_eq!(ex.block_on(ex.spawn(async { 1 })).unwrap(), 1);
    check_accounting(&ex);
}

// P7: late callbacks took time with the square of their number; here with enough of them to notice.
#[test]
fn many_late_callbacks_are_called() {
    let ex = Executor::new();
    let handles: Vec<_> = (0..16_000).map(|_| ex.spawn(async {})).collect();
    ex.run_until_stalled();
    let calls = Rc::new(Cell::new(0));
    for handle in &handles {
        let calls = Rc::clone(&calls);
        handle.add_done_callback(move |_| calls.set(calls.get() + 1));
    }
    ex.run_until_stalled();
    assert_eq!(calls.get(), handles.len());
}

/// Spawns its like on the other of two executors when it is dropped.
struct PingPong {
    here: LocalHandle<'static>,
    there: LocalHandle<'static>,
    left: u32,
    drops: Rc<Cell<u32>>,
}

impl Drop for PingPong {
    fn drop(&mut self) {
        self.drops.set(self.drops.get() + 1);
        if self.left > 0 {
            let next = PingPong {
                here: self.there.clone(),
                there: self.here.clone(),
                left: self.left - 1,
                drops: Rc::clone(&self.drops),
            };
            self.here
                .spawn(async move {
                    let _next = next;
                })
                .detach();
        }
    }
}

// P3: destructors that spawn by turns on two dropped executors recursed until the stack overflowed.
#[test]
fn a_chain_over_two_dropped_executors_does_not_overflow() {
    let test = "hostile::a_chain_over_two_dropped_executors_does_not_overflow";
    in_child_ok(test, &[], || {
        let drops = Rc::new(Cell::new(0));
        drop(PingPong {
            here: handle_of_a_dropped_executor(),
            there: handle_of_a_dropped_executor(),
            left: 100_000,
            drops: Rc::clone(&drops),
        });
        assert_eq!(drops.get(), 100_001);
    });
}

/// Makes an executor, queues a background task of more than 100 KB on it, and drops it.
fn queue_a_big_task_and_go() {
    let ex = Executor::new();
    let big = [1_u8; 100_000];
    ex.task()
        .background()
        .spawn(async move {
            yield_now().await;
            black_box(&big);
        })
        .detach();
    drop(ex);
}

// P7: the memory of a big task that was queued when its executor went was never freed (for the leak checkers).
#[test]
fn a_big_task_that_is_queued_at_the_end_is_freed() {
    for _ in 0..10 {
        queue_a_big_task_and_go();
    }
}

// P7: so was that of an over-aligned one, cancelled while it was queued.
#[test]
fn an_over_aligned_task_that_is_queued_at_the_end_is_freed() {
    #[repr(align(64))]
    struct Aligned(u8);
    impl Future for Aligned {
        type Output = u8;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u8> {
            Poll::Ready(self.0)
        }
    }
    for _ in 0..10 {
        let ex = Executor::new();
        let handle = ex.spawn(Aligned(1));
        ex.block_on(async {
            assert!(handle.cancel());
        });
        assert!(handle.is_cancelled());
        drop(handle);
        drop(ex);
    }
}

/// The memory of this process that is resident, in KB.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("there is such a line");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

// P7: the same without a leak checker: a process that made executors over and over grew by their big tasks.
#[cfg(target_os = "linux")]
#[test]
fn a_process_does_not_grow_with_every_executor() {
    let test = "hostile::a_process_does_not_grow_with_every_executor";
    // The address sanitizer would keep what is freed.
    let env = [("ASAN_OPTIONS", "quarantine_size_mb=1")];
    in_child_ok(test, &env, || {
        queue_a_big_task_and_go();
        let before = resident();
        for _ in 0..1000 {
            queue_a_big_task_and_go();
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 30_000, "grown by {grown} KB over 1000 executors");
    });
}

// P5: a cancel from another thread that is overtaken, its task gone and the slot let again, never hits the next tenant.
#[test]
fn an_overtaken_remote_cancel_spares_the_next_tenant_of_the_slot() {
    let ex = Executor::new();
    ex.block_on(async {
        let first = spawn(pending::<()>());
        yield_now().await;
        let remote = first.cancel_handle();
        std::thread::spawn(move || assert!(remote.cancel()))
            .join()
            .expect("cancelling does not panic");
        // The request is under way. Here the task ends first, and its slot is free at once.
        assert!(first.cancel());
        drop(first);
        let tenants: Vec<_> = (0..64).map(|_| spawn(pending::<()>())).collect();
        for _ in 0..3 {
            yield_now().await;
        }
        assert!(tenants.iter().all(|tenant| !tenant.is_finished()));
        tenants.iter().for_each(|tenant| assert!(tenant.cancel()));
    });
}

// P2, api.md "at the latest when the executor is dropped": what fails, and what is called, while the last reports are made is
// told and called, too.
#[test]
fn what_a_handler_starts_during_the_last_reports_is_told_and_called() {
    for policy in [ReportPolicy::IfUnretrieved, ReportPolicy::OnFailure] {
        quiet();
        let ex = Executor::builder().report(policy).build();
        let kept = Rc::new(RefCell::new(None));
        let called = Rc::new(Cell::new(false));
        let books = ex.spawn(async {});
        ex.set_exception_handler({
            let (kept, called) = (Rc::clone(&kept), Rc::clone(&called));
            move |local, _| {
                if kept.borrow().is_some() {
                    return;
                }
                let guard = DropLog::new().guard("late").panics("boom in drop");
                let handle = local.spawn(async move {
                    let _guard = guard;
                });
                let called = Rc::clone(&called);
                handle.add_done_callback(move |_| called.set(true));
                kept.replace(Some(handle));
            }
        });
        ex.run_until_stalled();
        let local = ex.handle();
        ex.stop_with(Box::new("too late"));
        drop(ex);
        assert!(called.get(), "{policy:?}");
        let stats = local.stats();
        assert_eq!(
            (stats.failed, stats.unread),
            (1, 0),
            "{policy:?}: {stats:?}"
        );
        drop((kept, books));
    }
}

// P6: a handler that is told a user's own report may do anything, also add callbacks to finished tasks and replace itself.
#[test]
fn a_users_own_report_is_told_under_no_borrow() {
    let ex = Executor::<'static>::new();
    let (finished, victim) = (ex.spawn(async {}), ex.spawn(pending::<()>()));
    ex.run_until_stalled();
    let called = Rc::new(Cell::new(0));
    let count = Rc::clone(&called);
    let handles = RefCell::new(Some((finished, victim)));
    ex.set_exception_handler(move |local, _| {
        let Some((finished, victim)) = handles.borrow_mut().take() else {
            return;
        };
        let count = Rc::clone(&count);
        finished.add_done_callback(move |_| count.set(count.get() + 1));
        assert!(victim.cancel());
        local.spawn(async {}).detach();
        local.call_soon(|| {}).cancel();
        local.call_exception_handler(&ExceptionContext::new("nested").build());
        local.set_exception_handler(|_, _| {});
        local.stop();
        drop((finished, victim));
    });
    ex.call_exception_handler(&ExceptionContext::new("mine").build());
    ex.run_until_stalled();
    ex.run_until_stalled();
    assert_eq!(called.get(), 1);
    assert!(ex.is_empty());
}
