//! User code may use the executor from wherever the executor calls it: a poll, a destructor, a callback, a handler, a waker
//! (P6). Each test here goes through every such [`Place`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use mainstay::{
    CancelHandle, ContextKind, ExceptionContext, Executor, JoinHandle, LocalHandle, RestartPolicy,
    Supervisor, current_task, sleep, yield_now,
};

use crate::remote::without_hanging;
use crate::support::{
    Fault, Recorder, Trace, check_accounting, check_stats, holding, on_next_record, panic_message,
    poll_once, poll_with, quiet, yield_n,
};
use crate::wake::Probe;

// ---------------------------------------------------------------------------------------------------------------------
// The places
// ---------------------------------------------------------------------------------------------------------------------

/// Where the executor calls user code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `Future::poll` of a task.
    Poll,
    /// The destructor of a future that returned.
    ReturnedFuture,
    /// The destructor of a future that is cancelled by another task.
    CancelledFuture,
    /// The destructor of a future whose poll panicked.
    PanickedFuture,
    /// The destructor of the output of a detached task.
    DetachedOutput,
    /// The destructor of an output whose handle is dropped unread in a task.
    UnreadOutput,
    /// A done callback.
    DoneCallback,
    /// The destructor of what a done callback captured that is removed.
    RemovedCallback,
    /// The exception handler.
    Handler,
    /// The destructor of the exception handler, when another one replaces it.
    ReplacedHandler,
    /// `Display` of an error, in the exception handler.
    ErrorDisplay,
    /// The destructor of an error that was reported.
    ErrorDrop,
    /// The destructor of a panic payload that was reported.
    PayloadDrop,
    /// `Wake::wake` of a foreign waker that awaits a handle.
    AwaiterWake,
    /// The destructor of such a waker.
    AwaiterDrop,
    /// `Clone` of such a waker.
    AwaiterClone,
    /// `Debug` of an error, in the exception handler.
    ErrorDebug,
    /// The logger, called by the default handler.
    Logger,
    /// A supervisor's own handler.
    GroupHandler,
    /// What makes the tasks that a supervisor restarts.
    Factory,
    /// A callback.
    CallSoon,
    /// A callback with a deadline.
    CallLater,
    /// The destructor of what a callback captured that is cancelled.
    CancelledCall,
    /// A closure from a spawner.
    Message,
    /// A closure from a spawner that makes a future.
    Maker,
    /// `Wake::wake` of a foreign waker that waits for a deadline.
    TimerWake,
    /// The destructor of a task-local value.
    LocalDrop,
    /// A hook that is told of a spawn by a task.
    SpawnHook,
    /// A hook that is told that a task is about to be polled.
    BeforeHook,
    /// A hook that is told that a task was polled.
    AfterHook,
    /// A hook that is told that a task has ended.
    DoneHook,
    /// The destructor of a hook that has panicked.
    RemovedHook,
}

pub(crate) const PLACES: [Place; 32] = [
    Place::Poll,
    Place::ReturnedFuture,
    Place::CancelledFuture,
    Place::PanickedFuture,
    Place::DetachedOutput,
    Place::UnreadOutput,
    Place::DoneCallback,
    Place::RemovedCallback,
    Place::Handler,
    Place::ReplacedHandler,
    Place::ErrorDisplay,
    Place::ErrorDrop,
    Place::PayloadDrop,
    Place::AwaiterWake,
    Place::AwaiterDrop,
    Place::AwaiterClone,
    Place::ErrorDebug,
    Place::Logger,
    Place::GroupHandler,
    Place::Factory,
    Place::CallSoon,
    Place::CallLater,
    Place::CancelledCall,
    Place::Message,
    Place::Maker,
    Place::TimerWake,
    Place::LocalDrop,
    Place::SpawnHook,
    Place::BeforeHook,
    Place::AfterHook,
    Place::DoneHook,
    Place::RemovedHook,
];

impl Place {
    /// An executor that has what this place needs.
    pub(crate) fn executor(self) -> Rc<Executor<'static>> {
        let builder = Executor::builder();
        let ex = Rc::new(
            match self {
                // Not while the test spawns.
                Place::SpawnHook => builder.on_task_spawn(|_| {
                    if LocalHandle::try_current().is_some() {
                        call();
                    }
                }),
                Place::BeforeHook => builder.before_poll(|_| call()),
                Place::AfterHook => builder.after_poll(|_| call()),
                Place::DoneHook => builder.on_task_done(|_| call()),
                Place::TimerWake => builder.virtual_clock(),
                Place::RemovedHook => {
                    let captured = ON_DROP;
                    builder.before_poll(move |_| panic!("boom in a hook: {captured}"))
                }
                _ => builder,
            }
            .build(),
        );
        CLOCK.set(Rc::downgrade(&ex));
        ex
    }

    /// Whether [`arrange`] sets the exception handler that it needs, or has none.
    pub(crate) fn sets_a_handler(self) -> bool {
        matches!(
            self,
            Place::Handler
                | Place::ReplacedHandler
                | Place::ErrorDisplay
                | Place::ErrorDebug
                | Place::Logger
        )
    }
}

thread_local! {
    /// What the next [`call`] on this thread does.
    static ACTION: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    /// The executor whose clock is to be moved.
    static CLOCK: RefCell<Weak<Executor<'static>>> = const { RefCell::new(Weak::new()) };
    /// Of a task that has finished.
    static LATE: Cell<Option<JoinHandle<()>>> = const { Cell::new(None) };
}

/// Does what [`arrange`] was given, if that was not done yet.
fn call() {
    let action = ACTION.with_borrow_mut(Option::take);
    if let Some(action) = action {
        action();
    }
}

/// Does it at one of its calls.
struct Calls(When);

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Dropped,
    Displayed,
    Debugged,
}

impl Calls {
    fn is(&self, when: When) {
        if self.0 == when {
            call();
        }
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.is(When::Displayed);
        f.write_str("an error")
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.is(When::Debugged);
        f.write_str("Calls")
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.is(When::Dropped);
    }
}

const ON_DROP: Calls = Calls(When::Dropped);

mainstay::task_local! { static LOCAL: Calls; }

/// A foreign waker that does it when it is woken, or when it is dropped.
struct CallsWaker {
    on_wake: bool,
}

impl Wake for CallsWaker {
    fn wake(self: Arc<Self>) {
        if self.on_wake {
            call();
        }
    }
}

impl Drop for CallsWaker {
    fn drop(&mut self) {
        if !self.on_wake {
            call();
        }
    }
}

/// A foreign waker that does it when it is cloned.
struct CallsWhenCloned;

impl Clone for CallsWhenCloned {
    fn clone(&self) -> Self {
        call();
        CallsWhenCloned
    }
}

impl cooked_waker::WakeRef for CallsWhenCloned {
    fn wake_by_ref(&self) {}
}

impl cooked_waker::Wake for CallsWhenCloned {
    fn wake(self) {}
}

/// Spawns on `ex` what makes it call `action` at `place`, once, in one of the next passes. What is given back has to live
/// until then.
pub(crate) fn arrange(
    ex: &Executor<'static>,
    place: Place,
    action: impl FnOnce() + 'static,
) -> Option<JoinHandle<()>> {
    ACTION.set(Some(Box::new(action)));
    match place {
        Place::Poll => ex.spawn(async { call() }).detach(),
        Place::ReturnedFuture => ex.spawn(holding(ON_DROP, yield_n(1))).detach(),
        Place::CancelledFuture => {
            let victim = ex.spawn(holding(ON_DROP, pending::<()>()));
            ex.spawn(async move {
                assert!(victim.cancel());
            })
            .detach();
        }
        Place::PanickedFuture => ex
            .spawn(holding(ON_DROP, async { panic!("boom in a task") }))
            .detach(),
        Place::DetachedOutput => ex.spawn(async { ON_DROP }).detach(),
        Place::UnreadOutput => {
            let unread = ex.spawn(async { ON_DROP });
            ex.spawn(async move {
                yield_n(2).await;
                assert!(unread.is_finished());
                drop(unread);
            })
            .detach();
        }
        Place::DoneCallback => {
            let handle = ex.spawn(async {});
            handle.add_done_callback(|_| call());
        }
        Place::RemovedCallback => {
            let handle = ex.spawn(yield_n(3));
            let captured = ON_DROP;
            let id = handle.add_done_callback(move |_| {
                unreachable!("removed before: {captured:?}");
            });
            ex.spawn(async move {
                assert!(handle.remove_done_callback(id));
            })
            .detach();
        }
        Place::Handler => {
            ex.set_exception_handler(|_, _| call());
            ex.spawn_fallible(async { Err::<(), _>(Fault("told to the handler")) })
                .detach();
        }
        Place::ReplacedHandler => {
            let captured = ON_DROP;
            ex.set_exception_handler(move |_, _| {
                let _ = &captured;
            });
            ex.spawn_fallible(async { Err::<(), _>(Fault("while it is there")) })
                .detach();
            ex.spawn(async {
                yield_now().await;
                LocalHandle::current().set_exception_handler(|_, _| {});
            })
            .detach();
        }
        Place::ErrorDisplay => {
            ex.set_exception_handler(|_, context| {
                let exception = context.exception().expect("an `Err`");
                assert!(!exception.message().is_empty());
            });
            ex.spawn_fallible(async { Err::<(), _>(Calls(When::Displayed)) })
                .detach();
        }
        Place::ErrorDrop => ex.spawn_fallible(async { Err::<(), _>(ON_DROP) }).detach(),
        Place::PayloadDrop => ex.spawn(async { panic_any(ON_DROP) }).detach(),
        Place::AwaiterWake | Place::AwaiterDrop => {
            let mut handle = ex.spawn(yield_n(1));
            let waker = Waker::from(Arc::new(CallsWaker {
                on_wake: place == Place::AwaiterWake,
            }));
            assert!(poll_with(&mut handle, &waker).is_pending());
            return Some(handle);
        }
        Place::AwaiterClone => ex
            .spawn(async {
                let mut handle = mainstay::spawn(yield_n(1));
                let waker = cooked_waker::IntoWaker::into_waker(Box::new(CallsWhenCloned));
                assert!(poll_with(&mut handle, &waker).is_pending());
                yield_n(3).await;
            })
            .detach(),
        Place::ErrorDebug => {
            ex.set_exception_handler(|_, context| assert!(!context.to_string().is_empty()));
            ex.spawn_fallible(async { Err::<(), _>(Calls(When::Debugged)) })
                .detach();
        }
        Place::Logger => {
            ex.clear_exception_handler();
            on_next_record(call);
            ex.spawn_fallible(async { Err::<(), _>(Fault("told to the log")) })
                .detach();
        }
        Place::GroupHandler => ex
            .spawn(Supervisor::scope(async |group: &Supervisor| {
                group.set_exception_handler(|_, _| call());
                group
                    .spawn_fallible(async { Err::<(), _>(Fault("told to the group's")) })
                    .detach();
            }))
            .detach(),
        Place::Factory => ex
            .spawn(Supervisor::scope(async |group: &Supervisor| {
                let make = || {
                    call();
                    async {}
                };
                group
                    .spawn_restarting(make, RestartPolicy::on_failure().limit(0, Duration::MAX))
                    .detach();
            }))
            .detach(),
        Place::CallSoon => drop(ex.call_soon(call)),
        Place::CallLater => drop(ex.call_later(Duration::ZERO, call)),
        Place::CancelledCall => {
            let captured = ON_DROP;
            let called = ex.call_later(Duration::from_secs(60), move || {
                unreachable!("cancelled before: {captured:?}");
            });
            ex.spawn(async move { assert!(called.cancel()) }).detach();
        }
        Place::Message => ex.spawner().call_soon(|_| call()).expect("it is there"),
        Place::Maker => {
            let made = ex.spawner().spawn(|| {
                call();
                async {}
            });
            made.expect("it is there").detach();
        }
        Place::TimerWake => {
            ex.spawn(async {
                let mut foreign = Box::pin(sleep(Duration::from_secs(1)));
                let waker = Waker::from(Arc::new(CallsWaker { on_wake: true }));
                assert!(poll_with(&mut foreign, &waker).is_pending());
                let ex = CLOCK.with_borrow(Weak::upgrade).expect("the test holds it");
                ex.advance(Duration::from_secs(2));
                drop(ex);
                yield_n(2).await;
            })
            .detach();
        }
        Place::LocalDrop => ex.spawn(LOCAL.scope(ON_DROP, yield_n(1))).detach(),
        Place::SpawnHook => ex
            .spawn(async { mainstay::spawn(async {}).detach() })
            .detach(),
        Place::BeforeHook | Place::AfterHook | Place::DoneHook | Place::RemovedHook => {
            ex.spawn(yield_n(1)).detach();
        }
    }
    None
}

/// Drives a fresh executor until `action` was called at each place in turn, each time with its bystanders unharmed.
pub(crate) fn at_every_place(action: impl Fn(&Executor<'static>, Place) + Clone + 'static) {
    quiet();
    for place in PLACES {
        let ex = place.executor();
        let bystander = ex.spawn(yield_n(200));
        let called = Rc::new(Cell::new(0));
        let well = Rc::new(Cell::new(false));
        let succeeded = Rc::clone(&well);
        let (weak, counts, act) = (Rc::downgrade(&ex), Rc::clone(&called), action.clone());
        let keep = arrange(&ex, place, move || {
            counts.set(counts.get() + 1);
            let ex = weak.upgrade().expect("the test holds it");
            assert!(ex.is_running());
            act(&ex, place);
            succeeded.set(true);
        });
        let result = catch_unwind(AssertUnwindSafe(|| ex.run_until_stalled()));
        assert!(result.is_ok(), "{place:?}: a panic left the loop");
        assert_eq!(called.get(), 1, "{place:?}: it is called, once");
        // A failed assertion in the action would be contained, too.
        assert!(well.get(), "{place:?}: the action panicked");
        let (live, failed) = (ex.stats().live, failures_expected(place));
        assert_eq!(live, 0, "{place:?}: nothing is left");
        assert_eq!(ex.stats().failed, failed, "{place:?}: nothing else failed");
        assert!(bystander.is_finished() && !bystander.is_cancelled());
        assert!(!ex.is_running());
        check_accounting(&ex);
        drop(keep);
    }
}

/// How many tasks fail when [`arrange`] is all there is.
fn failures_expected(place: Place) -> u64 {
    match place {
        Place::PanickedFuture
        | Place::ErrorDebug
        | Place::Logger
        | Place::GroupHandler
        | Place::Handler
        | Place::ReplacedHandler
        | Place::ErrorDisplay
        | Place::ErrorDrop
        | Place::PayloadDrop => 1,
        _ => 0,
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Every method, from every place
// ---------------------------------------------------------------------------------------------------------------------

// P6; whisker #663, local-runtime: a spawn from within was a `BorrowMutError`.
#[test]
fn spawning_is_possible_from_every_place() {
    let ran = Rc::new(Cell::new(0));
    let counts = Rc::clone(&ran);
    at_every_place(move |ex, _| {
        let task = || {
            let counts = Rc::clone(&counts);
            async move {
                yield_now().await;
                counts.set(counts.get() + 1);
            }
        };
        let fallible = || {
            let task = task();
            async move {
                task.await;
                Ok::<(), Fault>(())
            }
        };
        ex.spawn(task()).detach();
        drop(ex.spawn_fallible(fallible()));
        ex.task().name("named").spawn(task()).detach();
        ex.task().background().spawn_fallible(fallible()).detach();
        let local = ex.handle();
        local.spawn(task()).detach();
        local.spawn_fallible(fallible()).detach();
        local
            .task()
            .name("named")
            .background()
            .spawn(task())
            .detach();
        mainstay::spawn(task()).detach();
        mainstay::spawn_fallible(fallible()).detach();
        LocalHandle::current().spawn(task()).detach();
    });
    assert_eq!(ran.get(), 10 * PLACES.len());
}

// P6.
#[test]
fn looking_is_possible_from_every_place() {
    at_every_place(|ex, place| {
        let local = ex.handle();
        let counts = check_stats(&ex.stats());
        assert_eq!(check_stats(&local.stats()), counts);
        assert_eq!(ex.len() as u64, counts.live, "{place:?}");
        assert_eq!(ex.tasks().len(), ex.len());
        assert_eq!(local.tasks().len(), ex.len());
        assert!(!ex.is_empty(), "the bystander lives");
        assert!(ex.is_running());
        for task in ex.tasks() {
            assert!(!task.name().is_empty());
            assert!(task.location().file().ends_with(".rs"));
        }
        let shown = format!(
            "{ex:?} {local:?} {:?} {:?} {:?}",
            ex.tasks(),
            ex.stats(),
            current_task()
        );
        assert!(!shown.is_empty());
        assert!(LocalHandle::try_current().is_some());
        ex.shrink();
    });
}

// P6.
#[test]
fn cancelling_everything_is_possible_from_every_place() {
    quiet();
    for place in PLACES {
        let ex = place.executor();
        let recorder = Recorder::on(&ex);
        let handles: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
        let theirs = Rc::clone(&handles);
        let keep = arrange(&ex, place, move || {
            let handles = theirs.borrow();
            let cancels: Vec<CancelHandle> =
                handles.iter().map(JoinHandle::cancel_handle).collect();
            for (handle, cancel) in handles.iter().zip(cancels) {
                handle.cancel();
                cancel.cancel();
                handle.cancel_with_reason("a second reason");
            }
        });
        let probe = Probe::new();
        for _ in 0..3 {
            let mut handles = handles.borrow_mut();
            handles.push(ex.spawn(pending()));
            handles.push(ex.spawn(yield_n(100)));
            handles.push(ex.spawn(probe.task()));
        }
        ex.run_until_stalled();
        for handle in handles.borrow().iter() {
            assert!(handle.is_cancelled(), "{place:?}");
            assert!(!handle.cancel(), "{place:?}");
        }
        assert!(ex.is_empty(), "{place:?}");
        check_accounting(&ex);
        drop((keep, recorder));
    }
}

// P6.
#[test]
fn spawning_and_cancelling_in_one_go_is_possible_from_every_place() {
    let kept: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
    let dropped = Rc::new(Cell::new(0));
    let (handles, counts) = (Rc::clone(&kept), Rc::clone(&dropped));
    at_every_place(move |ex, _| {
        // Those of the place before keep an executor's id in use, of which there are 31 on 32 bits.
        let earlier = handles.take();
        assert!(earlier.iter().all(JoinHandle::is_cancelled));
        drop(earlier);
        for _ in 0..3 {
            let counts = Rc::clone(&counts);
            let guard = crate::support::on_drop(move || counts.set(counts.get() + 1));
            let handle = ex.spawn(holding(guard, async { unreachable!("never polled") }));
            assert!(handle.cancel());
            handles.borrow_mut().push(handle);
        }
        drop(ex.spawn(pending::<()>()).cancel_on_drop());
    });
    assert_eq!(dropped.get(), 3 * PLACES.len());
    assert!(kept.borrow().iter().all(JoinHandle::is_cancelled));
}

// P6.
#[test]
fn the_handler_may_be_replaced_from_every_place() {
    let reports = Recorder::new();
    let recorder = reports.clone();
    at_every_place(move |ex, _| {
        let earlier = ex.exception_handler();
        assert_eq!(earlier.is_some(), ex.has_exception_handler());
        ex.clear_exception_handler();
        assert!(!ex.has_exception_handler() && ex.exception_handler().is_none());
        let recorder = recorder.clone();
        ex.set_exception_handler(move |_, context| recorder.record(context));
        assert!(ex.has_exception_handler());
        ex.call_exception_handler(&ExceptionContext::new("to the new one").build());
        // Wrapped, as a user would who wants to add something and keep the rest.
        let wrapped = ex.exception_handler().expect("just set");
        ex.set_exception_handler(move |handle, context| wrapped(handle, context));
        ex.call_exception_handler(&ExceptionContext::new("through a wrapper").build());
        match earlier {
            Some(earlier) => {
                ex.set_exception_handler(move |handle, context| earlier(handle, context));
            }
            None => ex.clear_exception_handler(),
        }
    });
    // Every one of them is told, though a handler that is running may make it wait its turn.
    let told = |message| {
        let reports = reports.reports();
        reports.iter().filter(|r| r.message == message).count()
    };
    assert_eq!(told("to the new one"), PLACES.len());
    assert_eq!(told("through a wrapper"), PLACES.len());
}

// P6: `default_exception_handler` writes to the log from anywhere.
#[test]
fn the_default_handler_may_be_called_from_every_place() {
    let log = Rc::new(crate::capture::captured_log());
    let kept = Rc::clone(&log);
    at_every_place(move |ex, place| {
        let before = kept.records().len();
        let local = ex.handle();
        let message = format!("written from {place:?}");
        ex.default_exception_handler(&ExceptionContext::new(&message).build());
        local.default_exception_handler(&ExceptionContext::new(&message).build());
        let records = kept.records();
        assert_eq!(records.len(), before + 2);
        assert!(records[before..].iter().all(|r| r.text.contains(&message)));
    });
    let all = log.records();
    let written = all.iter().filter(|r| r.text.contains("written from"));
    assert_eq!(written.count(), 2 * PLACES.len());
}

// P6.
#[test]
fn waking_and_awaiting_are_possible_from_every_place() {
    let woken = Rc::new(Cell::new(0));
    let counts = Rc::clone(&woken);
    at_every_place(move |ex, _| {
        let probe = Probe::new();
        let mut handle = ex.spawn(probe.task());
        assert!(poll_once(&mut handle).is_pending());
        assert!(poll_once(&mut Box::pin(ex.idle())).is_pending());
        assert!(handle.result().is_err());
        assert!(handle.exception().is_err());
        let counts = Rc::clone(&counts);
        handle.add_done_callback(move |_| counts.set(counts.get() + 1));
        let id = handle.add_done_callback(|_| unreachable!("removed"));
        assert!(handle.remove_done_callback(id));
        let (awaits, wakes) = (handle, probe.clone());
        ex.spawn(async move {
            yield_now().await;
            wakes.complete();
            awaits.await.expect("the task returns");
        })
        .detach();
        // Too early, and so for nothing.
        probe.wake();
    });
    assert_eq!(woken.get(), PLACES.len());
}

// P6: `stop` from anywhere ends the drive, politely, and the executor may be driven again.
#[test]
fn stop_is_heard_from_every_place() {
    without_hanging(|| {
        quiet();
        for place in PLACES {
            for through_handle in [false, true] {
                let ex = place.executor();
                let weak = Rc::downgrade(&ex);
                let keep = arrange(&ex, place, move || {
                    let ex = weak.upgrade().expect("the test holds it");
                    if through_handle {
                        ex.handle().stop();
                    } else {
                        ex.stop();
                    }
                });
                let bystander = ex.spawn(yield_n(200));
                ex.run_forever();
                assert!(!bystander.is_finished(), "{place:?}: it took too long");
                ex.run_until_stalled();
                assert!(bystander.is_finished(), "{place:?}");
                drop(keep);
            }
        }
    });
}

// P6, B017: `stop_with` from anywhere makes whatever drives the executor unwind with the payload.
#[test]
fn stop_with_is_heard_from_every_place() {
    without_hanging(|| {
        quiet();
        for place in PLACES {
            let ex = place.executor();
            let weak = Rc::downgrade(&ex);
            let keep = arrange(&ex, place, move || {
                let ex = weak.upgrade().expect("the test holds it");
                ex.handle().stop_with(Box::new(place));
            });
            let bystander = ex.spawn(yield_n(200));
            let payload =
                catch_unwind(AssertUnwindSafe(|| ex.run_forever())).expect_err("it unwinds");
            assert_eq!(payload.downcast_ref::<Place>(), Some(&place));
            ex.run_until_stalled();
            assert!(bystander.is_finished(), "{place:?}: the loop lives on");
            check_accounting(&ex);
            drop(keep);
        }
    });
}

/// Everything that drives an executor.
const DRIVES: [fn(&Executor<'static>); 5] = [
    |ex| ex.block_on(async {}),
    |ex| drop(ex.try_block_on(async {})),
    |ex| ex.run_forever(),
    |ex| {
        let _ = ex.tick(1);
    },
    |ex| {
        let _ = ex.run_until_stalled();
    },
];

// B070; compio: `tick` from within a task broke the outer loop; wasm-bindgen-futures #2562.
#[test]
fn driving_an_executor_from_within_itself_panics_and_says_why() {
    at_every_place(|ex, place| {
        for (i, drive) in DRIVES.iter().enumerate() {
            let message = panic_message(|| drive(ex));
            // Reading: "a message that says so" has these words in it.
            assert!(
                message.contains("already") && message.contains("driven"),
                "{place:?}, drive {i}: {message}"
            );
        }
    });
}

// B070: uncaught, that panic is the task's failure, and the loop goes on.
#[test]
fn a_task_that_drives_its_own_executor_fails_and_the_loop_goes_on() {
    for drive in DRIVES {
        let ex = Rc::new(Executor::new());
        let recorder = Recorder::on(&ex);
        let weak = Rc::downgrade(&ex);
        ex.task()
            .name("nested")
            .spawn(async move { drive(&weak.upgrade().expect("the test holds it")) })
            .detach();
        let bystander = ex.spawn(yield_n(3));
        ex.block_on(bystander).expect("the bystander returns");
        let report = recorder.only();
        assert_eq!(report.kind, ContextKind::TaskFailed);
        assert_eq!(report.task.as_deref(), Some("nested"));
        let message = report.exception.expect("the panic");
        assert!(message.contains("already"), "{message}");
    }
}

// B070: the root is no exception; its panic leaves `block_on`.
#[test]
fn a_root_that_drives_its_own_executor_panics() {
    let ex = Executor::<'static>::new();
    for drive in DRIVES {
        let message = panic_message(|| ex.block_on(async { drive(&ex) }));
        assert!(message.contains("already"), "{message}");
        assert!(!ex.is_running());
    }
    assert_eq!(ex.block_on(async { 7 }), 7);
}

// api.md on driving: another executor may be driven from anywhere, and blocks.
#[test]
fn another_executor_may_be_driven_from_every_place() {
    without_hanging(|| {
        let ran = Rc::new(Cell::new(0));
        let counts = Rc::clone(&ran);
        at_every_place(move |outer, place| {
            let inner = Executor::new();
            let handle = inner.spawn(async {
                yield_now().await;
                assert!(current_task().is_some());
                7
            });
            assert!(!inner.is_running());
            let root = Probe::new();
            let seen = root.clone();
            let thread = thread::spawn(move || {
                while seen.try_waker().is_none() {
                    thread::yield_now();
                }
                seen.complete();
            });
            let value = inner.block_on(async {
                assert!(inner.is_running() && outer.is_running());
                // Parks: the outer executor waits meanwhile.
                root.task().await;
                handle.await.expect("the task returns")
            });
            thread.join().expect("the thread ends well");
            assert_eq!(value, 7);
            assert!(!inner.is_running() && outer.is_running(), "{place:?}");
            inner.spawn(yield_n(2)).detach();
            inner.run_until_stalled();
            assert!(inner.is_empty());
            // And the outer one is current again.
            let counts = Rc::clone(&counts);
            let before = outer.len();
            mainstay::spawn(async move { counts.set(counts.get() + 1) }).detach();
            assert_eq!(outer.len(), before + 1);
        });
        assert_eq!(ran.get(), PLACES.len());
    });
}

// P6: an executor with pending tasks is made, driven and dropped wherever user code runs.
#[test]
fn another_executor_may_be_dropped_from_every_place() {
    let dropped = Rc::new(Cell::new(0));
    let counts = Rc::clone(&dropped);
    at_every_place(move |_, _| {
        let inner = Executor::new();
        for _ in 0..3 {
            let counts = Rc::clone(&counts);
            let guard = crate::support::on_drop(move || counts.set(counts.get() + 1));
            inner
                .task()
                .background()
                .spawn(holding(guard, pending::<()>()))
                .detach();
        }
        inner.run_until_stalled();
    });
    assert_eq!(dropped.get(), 3 * PLACES.len());
}

// P6: a task drops all handles there are, its own among them.
#[test]
fn all_handles_may_be_dropped_from_every_place() {
    quiet();
    for place in PLACES {
        let ex = place.executor();
        let handles: Rc<RefCell<Vec<JoinHandle<Calls>>>> = Rc::default();
        let theirs = Rc::clone(&handles);
        let keep = arrange(&ex, place, move || drop(theirs.take()));
        for polls in [0, 1, 50] {
            let handle = ex.spawn(async move {
                yield_n(polls).await;
                ON_DROP
            });
            handles.borrow_mut().push(handle);
        }
        ex.run_until_stalled();
        assert!(handles.borrow().is_empty(), "{place:?}: it was called");
        assert!(ex.is_empty(), "{place:?}: detached is not cancelled");
        assert_eq!(
            ex.stats().cancelled,
            u64::from(place == Place::CancelledFuture)
        );
        check_accounting(&ex);
        drop(keep);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Some places by name
// ---------------------------------------------------------------------------------------------------------------------

// P6: a poll cancels tasks that are ahead in the pass, behind in it, and waiting.
#[test]
fn a_poll_may_cancel_its_neighbours_in_the_pass() {
    let ex = Executor::new();
    let trace = Trace::new();
    let handles: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
    for i in 0..5 {
        let (trace, theirs) = (trace.clone(), Rc::clone(&handles));
        let handle = ex.spawn(async move {
            trace.push(format!("{i} first"));
            if i == 2 {
                for victim in [1, 3] {
                    assert!(theirs.borrow()[victim].cancel());
                }
            }
            yield_now().await;
            trace.push(format!("{i} second"));
        });
        handles.borrow_mut().push(handle);
    }
    ex.run_until_stalled();
    trace.assert(&[
        "0 first", "1 first", "2 first", "4 first", // 3 was cancelled before its turn
        "0 second", "2 second", "4 second", // and 1 while it waited for its own
    ]);
}

// P6: the body of a task drops the handle of the task itself, and goes on.
#[test]
fn a_task_may_drop_its_own_handle() {
    let ex = Executor::new();
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let (mine, trace) = (Rc::clone(&own), Trace::new());
    let pushes = trace.clone();
    let handle = ex.spawn(async move {
        drop(mine.take());
        pushes.push("dropped");
        yield_now().await;
        pushes.push("and goes on");
    });
    *own.borrow_mut() = Some(handle);
    ex.run_until_stalled();
    trace.assert(&["dropped", "and goes on"]);
}

// P6, B029; asyncio tk:test_task_awaits_on_itself.
#[test]
fn a_task_that_awaits_itself_does_not_wait_for_ever() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let mine = Rc::clone(&own);
    let handle = ex.spawn(poll_fn(move |cx| {
        let mut own = mine.borrow_mut();
        let own = own.as_mut().expect("set before the first pass");
        Pin::new(own).poll(cx).map(drop)
    }));
    *own.borrow_mut() = Some(handle);
    ex.run_until_stalled();
    // Reading: whether the await gives an error or panics, the task ends.
    assert!(ex.is_empty());
    check_accounting(&ex);
    drop((own.take(), recorder));
}

// P6: a done callback takes the outcome's handle, adds callbacks and spawns who awaits it.
#[test]
fn a_done_callback_may_use_the_handle_of_its_task() {
    let ex = Executor::new();
    let trace = Trace::new();
    let kept: Rc<RefCell<Option<JoinHandle<&'static str>>>> = Rc::default();
    let handle = ex.spawn(async { "output" });
    let (mine, pushes) = (Rc::clone(&kept), trace.clone());
    handle.add_done_callback(move |_| {
        let mut handle = mine.take().expect("stored before the first pass");
        assert!(handle.is_finished());
        // Before the outcome can be taken: a callback cannot take it away from under the others.
        assert!(handle.result().is_err());
        let late = pushes.clone();
        handle.add_done_callback(move |_| late.push("added by a callback"));
        pushes.push("first");
        mainstay::spawn(async move { pushes.push(handle.await.expect("it returned")) }).detach();
    });
    let pushes = trace.clone();
    handle.add_done_callback(move |_| pushes.push("second"));
    *kept.borrow_mut() = Some(handle);
    ex.run_until_stalled();
    let labels = trace.labels();
    assert_eq!(labels[..2], ["first", "second"]);
    assert_eq!(labels.len(), 4);
    assert!(labels.contains(&"added by a callback".to_owned()));
    assert!(labels.contains(&"output".to_owned()));
}

// P6: a handler cancels, spawns, stops and looks, through the handle it is given.
#[test]
fn a_handler_may_use_the_handle_it_is_given() {
    quiet();
    let ex = Executor::<'static>::new();
    let trace = Trace::new();
    let victim = ex.spawn(pending::<()>());
    let (cancel, pushes) = (victim.cancel_handle(), trace.clone());
    ex.set_exception_handler(move |handle, context| {
        check_stats(&handle.stats());
        assert!(handle.has_exception_handler());
        pushes.push(format!(
            "told of {}",
            context.task().expect("a task").name()
        ));
        cancel.cancel();
        let pushes = pushes.clone();
        handle
            .task()
            .name("repair")
            .spawn(async move { pushes.push("repaired") })
            .detach();
        handle.stop();
    });
    ex.task()
        .name("failing")
        .spawn(async { panic!("boom in a task") })
        .detach();
    ex.run_forever();
    assert!(victim.is_cancelled());
    ex.run_until_stalled();
    trace.assert(&["told of failing", "repaired"]);
}

thread_local! {
    /// The executor that the hook of the test below finds: a hook is `Send` and `Sync`, so it cannot hold one.
    static HOOKED: RefCell<Weak<Executor<'static>>> = const { RefCell::new(Weak::new()) };
}

// P6: the `on_wake` hook runs within `spawn` and `wake` at home, and may use the executor.
#[test]
fn a_wake_hook_at_home_may_use_the_executor() {
    let ex = Rc::new(Executor::<'static>::new());
    HOOKED.set(Rc::downgrade(&ex));
    let calls = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&calls);
    ex.on_wake(move || {
        counts.fetch_add(1, Ordering::SeqCst);
        let hooked = HOOKED
            .with_borrow(Weak::upgrade)
            .expect("the test holds it");
        check_stats(&hooked.stats());
        assert_eq!(hooked.len(), hooked.tasks().len());
        // Coalesced, so it does not call itself.
        hooked.spawn(async {}).detach();
        drop(hooked.spawn(pending::<()>()).cancel_on_drop());
    });
    let probe = Probe::new();
    let handle = ex.spawn(probe.task());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    ex.run_until_stalled();
    probe.complete();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    ex.run_until_stalled();
    assert!(handle.is_finished());
    assert_eq!(ex.stats().spawned, 5);
    assert_eq!(ex.stats().live, 0);
}

// P6: so it may within whatever calls it; a late callback and a timer are what it is told of, and what it adds.
#[test]
fn a_wake_hook_may_do_what_it_is_told_of() {
    let ex = Rc::new(Executor::<'static>::new());
    let recorder = Recorder::on(&ex);
    HOOKED.set(Rc::downgrade(&ex));
    let finished = ex.spawn(async {});
    ex.run_until_stalled();
    LATE.set(Some(finished));
    let calls = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&calls);
    ex.on_wake(move || {
        let hooked = HOOKED
            .with_borrow(Weak::upgrade)
            .expect("the test holds it");
        let called = Arc::clone(&counts);
        let late = LATE.take().expect("coalesced, so it does not call itself");
        late.add_done_callback(move |_| {
            called.fetch_add(1, Ordering::SeqCst);
        });
        LATE.set(Some(late));
        let called = Arc::clone(&counts);
        hooked.call_later(Duration::ZERO, move || {
            called.fetch_add(1, Ordering::SeqCst);
        });
    });
    let other = ex.spawn(async {});
    ex.run_until_stalled();
    assert_eq!(calls.swap(0, Ordering::SeqCst), 2, "a spawn");
    other.add_done_callback(|_| ());
    ex.run_until_stalled();
    assert_eq!(calls.swap(0, Ordering::SeqCst), 2, "a late callback");
    ex.call_later(Duration::from_secs(1_000), || ());
    ex.run_until_stalled();
    assert_eq!(calls.swap(0, Ordering::SeqCst), 2, "a timer");
    assert!(recorder.is_empty(), "{:?}", recorder.reports());
    LATE.take();
}

// P6: dropping a handle between two drives runs a destructor that drives that very executor.
#[test]
fn a_destructor_outside_of_a_drive_may_drive() {
    let ex = Rc::new(Executor::<'static>::new());
    let weak = Rc::downgrade(&ex);
    let ran = Rc::new(Cell::new(false));
    let flag = Rc::clone(&ran);
    let output = crate::support::on_drop(move || {
        let ex = weak.upgrade().expect("the test holds it");
        assert!(!ex.is_running());
        ex.spawn(async move { flag.set(true) }).detach();
        ex.run_until_stalled();
    });
    let handle = ex.spawn(async move { output });
    ex.run_until_stalled();
    drop(handle);
    assert!(ran.get());
    assert!(ex.is_empty());
    check_accounting(&ex);
}
