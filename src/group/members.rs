//! A group's members in their executor, and who waits for them.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::{Rc, Weak};
use std::task::Waker;

use crate::arena::TaskRef;
use crate::arena::owner::Gate;
use crate::completion::{Admission, Awaiter, Group};
use crate::context::TaskBuilder;
use crate::driving;
use crate::scheduler::Scheduler;
use crate::task::TaskId;
use crate::unwind::{Panic, catch_drop};
use crate::waker;

use super::roster::Roster;

/// The members of a group, and who is woken on its behalf.
pub(super) struct Members {
    scheduler: Weak<Scheduler>,
    gate: Gate<'static>,
    roster: RefCell<Roster>,
    awaiter: RefCell<Awaiter>,
}

impl Members {
    pub(super) fn new(scheduler: &Rc<Scheduler>) -> Self {
        Members {
            scheduler: Rc::downgrade(scheduler),
            gate: scheduler.arena().static_gate(),
            roster: RefCell::default(),
            awaiter: RefCell::default(),
        }
    }

    pub(super) fn scheduler(&self) -> Option<Rc<Scheduler>> {
        self.scheduler.upgrade()
    }

    /// Starts a spawn into the group whose members these are.
    pub(super) fn builder(&self, group: Rc<dyn Group>) -> TaskBuilder<'static, 'static> {
        TaskBuilder::new(self.scheduler(), self.gate).in_group(group)
    }

    pub(super) fn len(&self) -> usize {
        self.roster.borrow().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn admit(&self, id: TaskId, index: u32) -> Admission {
        self.roster.borrow_mut().admit(TaskRef { id, index })
    }

    /// Strikes a member off that has ended.
    pub(super) fn strike(&self, tag: usize) {
        self.roster.borrow_mut().strike(tag);
    }

    /// Bounds how many run at once.
    pub(super) fn set_limit(&self, limit: NonZeroUsize) {
        self.roster.borrow_mut().set_limit(limit);
        self.release();
    }

    /// Lets members run that were held back, as many as the limit allows.
    pub(super) fn release(&self) {
        loop {
            let next = self.roster.borrow_mut().next_to_run();
            let Some(task) = next else { break };
            if let Some(scheduler) = self.scheduler() {
                scheduler.arena().release_held(task);
            }
        }
    }

    /// Cancels all members. They are gone when this returns, but for those on the poll stack.
    pub(super) fn bury(&self, reason: &'static str) {
        let members = self.roster.borrow().members();
        let Some(scheduler) = self.scheduler() else {
            return;
        };
        if members.is_empty() {
            return;
        }
        if scheduler.arena().is_driven() {
            scheduler.bury_members(&members, reason);
        } else {
            // Destructors find the executor that they find at any other time.
            driving::enter(&scheduler, || scheduler.bury_members(&members, reason));
        }
    }

    /// Remembers who is to be woken.
    pub(super) fn set_awaiter(&self, waker: &Waker) {
        if self.awaiter.borrow().is_foreign(waker) {
            return;
        }
        // User code: clone of a foreign waker. A panic is that of whoever polls.
        let awaiter = waker::awaiter(waker);
        let old = self.awaiter.replace(awaiter);
        self.drop_awaiter(old);
    }

    /// Takes whoever is to be woken.
    pub(super) fn take_awaiter(&self) -> Awaiter {
        self.awaiter.take()
    }

    /// Wakes whoever is to be woken.
    pub(super) fn wake(&self) {
        let awaiter = self.take_awaiter();
        if let Some(scheduler) = self.scheduler() {
            scheduler.wake(awaiter, None);
        }
    }

    /// Nobody is to be woken any more.
    pub(super) fn forget_awaiter(&self) {
        self.drop_awaiter(self.take_awaiter());
    }

    fn drop_awaiter(&self, awaiter: Awaiter) {
        // User code: Drop of a foreign waker.
        if let Err(panic) = catch_drop(awaiter) {
            self.tell_destructor(panic);
        }
    }

    /// Tells of a destructor that panicked and that no task can be made to fail for.
    pub(super) fn tell_destructor(&self, panic: Box<Panic>) {
        if let Some(scheduler) = self.scheduler() {
            scheduler.tell_destructor(panic, None);
        }
    }
}
