//! Which executors are being driven on this thread.
//!
//! The only thread-local besides that of `waker`; everything that means "the running executor" asks here.

use std::cell::RefCell;
use std::rc::Rc;

use crate::scheduler::Scheduler;
use crate::unwind::Watch;
use crate::waker;

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
    waker::enter(scheduler.arena(), f)
}

/// The innermost driven executor of this thread.
pub(crate) fn current() -> Option<Rc<Scheduler>> {
    STACK
        .try_with(|stack| stack.borrow().last().cloned())
        .ok()
        .flatten()
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

/// A snapshot in which a task is shown as it is while its code runs.
pub(crate) fn current_task() -> Option<crate::task::TaskInfo> {
    let scheduler = current()?;
    let task = scheduler.arena().running()?;
    scheduler.arena().info(task)
}
