//! Asking a task to end by itself: what `cancel_requested` listens to.
//!
//! Two things are kept apart. A task that *asks* has wanted to know whether it is to end, and a shutdown or a group waits for
//! it; that is noted for good, also where the task does not obey. Who *listens* is woken when the task is asked; a scope
//! that passes the request on to its children listens, and the task that it runs in does not ask by that.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::arena::TaskRef;
use crate::listeners::Listeners;
use crate::waker;

use super::{Phase, Scheduler};

impl Scheduler {
    /// Asks a task to end by itself. `false`: it has ended, or was asked before.
    ///
    /// User code: foreign wakers of those who listen.
    pub(crate) fn request_cancel(&self, task: TaskRef) -> bool {
        let Some(own) = self.arena.request(task) else {
            return false;
        };
        if let Some(key) = own {
            waker::wake_key(key);
        }
        if let Some(listeners) = self.listeners_if_any(task) {
            self.wake_listeners(&listeners);
        }
        true
    }

    /// Whether the task is live and has ever polled a `cancel_requested`, whatever it made of it.
    pub(crate) fn has_asked(&self, task: TaskRef) -> bool {
        self.arena.asks(task)
    }

    /// Notes that a task has polled a `cancel_requested`.
    pub(crate) fn note_asks(&self, task: TaskRef) {
        if !self.has_asked(task) && self.arena.note_asks(task) {
            self.count_asking(true);
            self.note_asking(task, true);
        }
    }

    /// Counts one more that a shutdown waits for, a task that asks or a scope whose members do; or (`false`) one less.
    pub(crate) fn count_asking(&self, asks: bool) {
        let asking = self.asking.get();
        self.asking.set(if asks { asking + 1 } else { asking - 1 });
    }

    /// Whether a live task has asked.
    pub(crate) fn is_anybody_asking(&self) -> bool {
        self.asking.get() > 0
    }

    /// Whether the task was asked to end; if not, `waker` is woken when it is. `id` names who waits, once it is in a list.
    ///
    /// For a task that has ended this is pending for good.
    pub(crate) fn poll_request(
        &self,
        task: TaskRef,
        id: &mut Option<u64>,
        waker: &Waker,
    ) -> Poll<()> {
        if !self.arena.is_requested(task) {
            // In the ordinary case it is the task itself that waits, and a bit will do.
            let own = waker::key_of(waker).is_some_and(|key| self.arena.note_listens(task, key));
            if own {
                return Poll::Pending;
            }
            let Some(listeners) = self.listeners(task) else {
                return Poll::Pending;
            };
            let id = *id.get_or_insert_with(|| self.new_listener());
            self.set_listener(&listeners, id, waker);
        }
        // Cloning a foreign waker may have asked, or ended, the task.
        if self.arena.is_requested(task) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Takes a listener of [`poll_request`](Self::poll_request) out.
    pub(crate) fn stop_listening(&self, task: TaskRef, id: u64) {
        if let Some(listeners) = self.listeners_if_any(task) {
            self.remove_listener(&listeners, id);
        }
    }

    /// The same outside of tasks: whether the executor is being shut down, or was since there had been `since` shutdowns.
    pub(crate) fn poll_shutdown(
        &self,
        since: u64,
        id: &mut Option<u64>,
        waker: &Waker,
    ) -> Poll<()> {
        if !self.was_shut_down(since) {
            let id = *id.get_or_insert_with(|| self.new_listener());
            self.set_listener(&self.outside, id, waker);
        }
        // Cloning a foreign waker may do anything.
        if self.was_shut_down(since) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Takes a listener of [`poll_shutdown`](Self::poll_shutdown) out.
    pub(crate) fn stop_listening_outside(&self, id: u64) {
        self.remove_listener(&self.outside, id);
    }

    /// How often the executor has been shut down.
    pub(crate) fn shutdowns(&self) -> u64 {
        self.shutdowns.get()
    }

    fn was_shut_down(&self, since: u64) -> bool {
        self.phase.get() != Phase::Open || self.shutdowns.get() != since
    }

    /// Those who listen to a live task.
    fn listeners(&self, task: TaskRef) -> Option<Rc<RefCell<Listeners>>> {
        if self.arena.has_ended(task) {
            return None;
        }
        let record = self.arena.extras(task)?;
        let mut record = record.borrow_mut();
        Some(Rc::clone(record.listeners.get_or_insert_default()))
    }

    fn listeners_if_any(&self, task: TaskRef) -> Option<Rc<RefCell<Listeners>>> {
        let record = self.arena.extras_if_any(task)?;
        record.borrow().listeners.clone()
    }
}
