//! Hostile user code that meets an executor which is going, or gone: wakers that wait there still, closures that come too
//! late, groups whose executor went first. Each test says which promise stood against it, and what broke.

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use mainstay::{Executor, JoinHandle, Sleep, TaskGroup, sleep};

use crate::support::{DropLog, LogCapture, WakeCount, counting_waker, poll_once, poll_with, quiet};

/// Calls `f`, which must not panic.
#[track_caller]
fn contained<R>(f: impl FnOnce() -> R) -> R {
    let result = catch_unwind(AssertUnwindSafe(f));
    assert!(result.is_ok(), "a panic of the user's came out");
    result.unwrap_or_else(|_| unreachable!("checked above"))
}

/// A sleep that waits with `count` for its waker, by an executor that is gone; and a finished task's handle, which keeps what
/// is left of that executor.
fn sleeping_and_gone(count: Arc<WakeCount>) -> (Sleep, JoinHandle<i32>) {
    let ex = Executor::new();
    let handle = ex.spawn(async { 5 });
    let mut sleeping = None;
    ex.block_on(async {
        let sleeping = sleeping.insert(sleep(Duration::from_secs(1_000)));
        assert!(poll_with(sleeping, &Waker::from(count)).is_pending());
    });
    ex.run_until_stalled();
    contained(|| drop(ex));
    (sleeping.expect("made above"), handle)
}

// P3: what the last handle lets go of has the timers that were never due. The panic of a waker in them came out of
// `result`, left the handle with a slot that was no longer its own, and the handle's drop panicked in its turn: an abort.
#[test]
fn a_waker_left_in_the_timers_does_not_panic_out_of_the_last_handle() {
    quiet();
    let log = LogCapture::start();
    let (sleeping, mut handle) = sleeping_and_gone(WakeCount::panicking_on_drop());
    assert_eq!(contained(|| handle.result()).unwrap().unwrap(), 5);
    assert!(log.only().text.contains("boom in waker drop"));
    contained(|| drop(handle));
    drop(sleeping);

    let (sleeping, handle) = sleeping_and_gone(WakeCount::panicking_on_drop());
    contained(|| drop(handle));
    assert_eq!(log.records().len(), 2);
    drop(sleeping);
}

// P3: and without such a handle, out of the executor's drop.
#[test]
fn wakers_left_in_the_timers_do_not_panic_out_of_the_executors_drop() {
    quiet();
    let log = LogCapture::start();
    let ex = Executor::new();
    let sleeping: Vec<Sleep> = ex.block_on(async {
        let sleeping = [1_000, 2_000].map(|seconds| {
            let mut sleeping = sleep(Duration::from_secs(seconds));
            let waker = Waker::from(WakeCount::panicking_on_drop());
            assert!(poll_with(&mut sleeping, &waker).is_pending());
            sleeping
        });
        sleeping.into()
    });
    contained(|| drop(ex));
    assert_eq!(log.records().len(), 2, "each is told");
    drop(sleeping);
}

// P3: the captures of a callback that came too late panicked out of `call_soon`, if no handle kept what was left of the
// executor; with one they were contained.
#[test]
fn the_captures_of_a_callback_for_an_executor_that_is_gone_are_dropped_contained() {
    quiet();
    let log = LogCapture::start();
    let drops = DropLog::new();
    for keep in [false, true] {
        let ex = Executor::new();
        let kept = keep.then(|| ex.spawn(async {}));
        let local = ex.handle();
        drop(ex);
        let before = log.records().len();
        let captured = drops.guard("captured").panics("boom in the captures");
        let call = contained(|| {
            local.call_soon(move || {
                let _captured = &captured;
            })
        });
        assert!(!call.cancel());
        assert_eq!(log.records().len(), before + 1, "it is told");
        drop(kept);
    }
    drops.assert(&["captured", "captured"]);
}

// P3: the same of a handler that comes too late. Found by `fuzz/fuzz_targets/anything`.
#[test]
fn the_captures_of_a_handler_for_an_executor_that_is_gone_are_dropped_contained() {
    quiet();
    let log = LogCapture::start();
    let drops = DropLog::new();
    let ex = Executor::new();
    let local = ex.handle();
    drop(ex);
    let captured = drops.guard("captured").panics("boom in the captures");
    contained(|| {
        local.set_exception_handler(move |_, _| {
            let _captured = &captured;
        });
    });
    assert!(log.only().text.contains("boom in the captures"));
    drops.assert(&["captured"]);
}

type Scope = Pin<Box<dyn Future<Output = bool>>>;

/// A group's scope, polled once with `waker`, of an executor that is gone. Gives whether the group was cancelled.
fn scope_of_a_gone_executor(waker: &Waker) -> (TaskGroup, Scope) {
    let ex = Executor::new();
    let (send, receive) = std::sync::mpsc::channel();
    let mut scope: Scope = Box::pin(async move {
        let ended = TaskGroup::scope(async |group| {
            send.send(group.clone()).unwrap();
            pending::<()>().await;
        });
        ended.await.is_err_and(|group| group.is_cancelled())
    });
    ex.block_on(async {
        assert!(poll_with(&mut scope, waker).is_pending());
    });
    drop(ex);
    (receive.recv().unwrap(), scope)
}

// P1: cancelling a group whose executor was gone forgot to wake whoever polls its scope, which waited for ever.
#[test]
fn cancelling_a_group_of_an_executor_that_is_gone_wakes_its_scope() {
    let (waker, count) = counting_waker();
    let (group, mut scope) = scope_of_a_gone_executor(&waker);
    let before = count.wakes();
    assert!(group.cancel());
    assert_eq!(count.wakes(), before + 1);
    assert_eq!(poll_once(&mut scope), Poll::Ready(true));
}

// P3: and let the panic of that waker's destructor out.
#[test]
fn cancelling_a_group_of_an_executor_that_is_gone_contains_the_waker() {
    quiet();
    for count in [
        WakeCount::panicking_on_wake(),
        WakeCount::panicking_on_drop(),
    ] {
        let log = LogCapture::start();
        let (group, scope) = scope_of_a_gone_executor(&Waker::from(count));
        assert!(contained(|| group.cancel()));
        assert!(log.only().text.contains("boom in wake"));
        contained(|| drop(scope));
    }
}
