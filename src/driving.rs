//! Which executors are being driven on this thread.
//!
//! The only thread-local besides that of `waker`; everything that means "the running executor" asks here.

use std::cell::RefCell;
use std::future;
use std::pin::pin;
use std::rc::Rc;

use crate::locals;
use crate::report;
use crate::scheduler::Scheduler;
use crate::task::TaskInfo;
use crate::unwind::{self, Panic, Watch, catch, catch_drop};

thread_local! {
    /// Outermost first.
    static STACK: RefCell<Vec<Rc<Scheduler>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` with `scheduler` as the innermost driven one.
pub(crate) fn enter<R>(scheduler: &Rc<Scheduler>, f: impl FnOnce() -> R) -> R {
    struct Leave(bool);
    impl Drop for Leave {
        fn drop(&mut self) {
            if self.0 {
                let left = STACK.try_with(|stack| stack.borrow_mut().pop());
                drop(left);
            }
        }
    }
    // In a thread-local's destructor the stack may be gone. The executor works all the same, without a "current" one.
    let pushed = STACK
        .try_with(|stack| stack.borrow_mut().push(Rc::clone(scheduler)))
        .is_ok();
    let _leave = Leave(pushed);
    let _watch = Watch::new();
    // What is set up the stack is that of another executor's task, or of whoever drives.
    locals::aside(f)
}

/// The innermost driven executor of this thread.
pub(crate) fn current() -> Option<Rc<Scheduler>> {
    STACK
        .try_with(|stack| stack.borrow().last().cloned())
        .ok()
        .flatten()
}

/// The innermost driven executor of this thread, which `what` needs.
#[track_caller]
pub(crate) fn running(what: &str) -> Rc<Scheduler> {
    match current() {
        Some(scheduler) => scheduler,
        None => panic!(
            "mainstay: `{what}` was called or polled outside of a running executor; call it from a task or a callback"
        ),
    }
}

/// Runs `f` on the executor with this id if it is being driven on this thread.
pub(crate) fn with<R>(executor: u32, f: impl FnOnce(&Scheduler) -> R) -> Option<R> {
    let found = STACK
        .try_with(|stack| {
            let stack = stack.borrow();
            stack
                .iter()
                .find(|s| s.arena().executor() == executor)
                .cloned()
        })
        .ok()
        .flatten()?;
    Some(f(&found))
}

/// Tells of a destructor's panic for which no task can be made to fail: the innermost driven executor, else the default
/// handler.
pub(crate) fn tell_destructor(panic: Box<Panic>, task: Option<&TaskInfo>) {
    match current() {
        Some(scheduler) => scheduler.tell_destructor(panic, task),
        None => report::default_destructor(panic, task.cloned()),
    }
}

/// Makes a future and awaits it. If its destructor panics, its output is dropped: the compiler leaks the value of a block
/// whose locals panic as they go.
pub(crate) async fn await_made<F: Future>(make: impl FnOnce() -> F) -> F::Output {
    // User code: the closure.
    let mut future = pin!(Some(make()));
    let output = future::poll_fn(|cx| match future.as_mut().as_pin_mut() {
        // User code: Future::poll.
        Some(future) => future.poll(cx),
        None => unreachable!("it is there until it is ready"),
    })
    .await;
    // User code: Drop of the future.
    if let Err(mut panic) = catch(|| future.set(None)) {
        // User code: Drop of the output.
        if let Err(second) = catch_drop(output) {
            panic.push(second);
        }
        unwind::unwind(*panic, |panic| tell_destructor(panic, None));
    }
    output
}

/// A snapshot in which a task is shown as it is while its code runs.
pub(crate) fn current_task() -> Option<TaskInfo> {
    let scheduler = current()?;
    let task = scheduler.arena().running()?;
    scheduler.arena().info(task)
}

/// Records where a task panics, so that reports can say it.
///
/// Opt-in and process-wide: it chains to the panic hook that was there before, which goes on doing what it did (the
/// standard one prints to stderr). With it, [`Exception::location`](crate::Exception::location) is filled for panics
/// that happen while an executor is driven on the panicking thread, and
/// [`Exception::backtrace`](crate::Exception::backtrace) too where `RUST_BACKTRACE` (or `RUST_LIB_BACKTRACE`) asks for
/// backtraces. Calling it again does nothing.
///
/// A contained panic runs the process's panic hook as any panic does. To quiet the hook's own output while keeping the
/// location, set a silent hook first:
///
/// ```
/// use mainstay::Executor;
///
/// std::panic::set_hook(Box::new(|_| {})); // prints nothing
/// mainstay::install_panic_hook(); // notes the location, then calls the one above
///
/// let ex = Executor::new();
/// ex.set_exception_handler(|_, report| {
///     let exception = report.exception().unwrap();
///     assert!(exception.location().unwrap().line() > 0);
/// });
/// ex.spawn(async { panic!("noted") }).detach();
/// ex.run_until_stalled();
/// assert_eq!(ex.stats().reported, 1);
/// ```
pub fn install_panic_hook() {
    unwind::install(|| current().map_or(0, |scheduler| scheduler.counters.polls.get()));
}
