//! Who waits for something of the executor's or of a task's: that it is idle, that an end is asked for.

use std::cell::RefCell;
use std::task::Waker;

use crate::exception_context::ContextKind;
use crate::listeners::Listeners;
use crate::unwind::{catch, catch_drop};

use super::Scheduler;

impl Scheduler {
    /// A number for somebody who waits.
    pub(crate) fn new_listener(&self) -> u64 {
        self.new_callback_id().0
    }

    /// Sets whom to wake; one waker for each who waits.
    pub(crate) fn set_listener(&self, list: &RefCell<Listeners>, id: u64, waker: &Waker) {
        if list.borrow().has(id, waker) {
            return;
        }
        // User code: clone of a foreign waker. A panic is that of whoever polls.
        let waker = waker.clone();
        let old = list.borrow_mut().set(id, waker);
        self.drop_waker(old);
    }

    pub(crate) fn remove_listener(&self, list: &RefCell<Listeners>, id: u64) {
        let removed = list.borrow_mut().remove(id);
        self.drop_waker(removed);
    }

    fn drop_waker(&self, waker: Option<Waker>) {
        // User code: Drop of a foreign waker.
        if let Err(panic) = catch_drop(waker) {
            self.tell_destructor(panic, None);
        }
    }

    /// Wakes all, who come back if it is not yet time.
    pub(crate) fn wake_listeners(&self, list: &RefCell<Listeners>) {
        let listeners = std::mem::take(&mut *list.borrow_mut());
        for waker in listeners.into_wakers() {
            // User code: a foreign waker.
            if let Err(panic) = catch(|| waker.wake()) {
                self.tell(ContextKind::Callback, "Panic in a waker", Some(panic), None);
            }
        }
    }

    /// Drops the wakers of those who will not be woken.
    pub(crate) fn drop_listeners(&self, list: &RefCell<Listeners>) {
        let listeners = std::mem::take(&mut *list.borrow_mut());
        for waker in listeners.into_wakers() {
            self.drop_waker(Some(waker));
        }
    }

    // --- idle -------------------------------------------------------------------------------------------------------

    /// Whether no task but the running one, and those in the background, is live.
    pub(crate) fn is_idle(&self) -> bool {
        let own = self
            .arena
            .running()
            .is_some_and(|task| !self.arena.is_background(task));
        self.counters.live.get() - self.counters.background.get() <= u64::from(own)
    }

    /// Sets whom to wake when a task has ended.
    pub(crate) fn set_idler(&self, id: u64, waker: &Waker) {
        self.set_listener(&self.idlers, id, waker);
        self.has_idlers.set(true);
    }

    pub(crate) fn remove_idler(&self, id: u64) {
        self.remove_listener(&self.idlers, id);
    }

    /// A task has ended: each looks for itself whether it is time.
    #[cold]
    pub(super) fn wake_idlers(&self) {
        self.has_idlers.set(false);
        self.wake_listeners(&self.idlers);
    }
}
