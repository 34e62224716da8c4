//! Cancelling: a task's future is dropped, by the outermost cancel or drop, never recursively.

use std::cell::Cell;

use crate::arena::afterlife::MAX_AFTERLIFE;
use crate::arena::driven::Driven;
use crate::arena::{CancelState, TaskRef};
use crate::exception_context::ContextKind;

use super::{ENDLESS, Scheduler};

/// Ends a burying.
struct Done<'a>(&'a Cell<bool>);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Scheduler {
    /// Asks for a task's end. `false`: it has ended already.
    pub(crate) fn cancel(&self, task: TaskRef, reason: Option<Box<str>>) -> bool {
        let state = self.arena.ask_cancel(task);
        if matches!(state, CancelState::Running | CancelState::Waiting) {
            if let Some(reason) = reason {
                if let Some(record) = self.arena.extras(task) {
                    record.borrow_mut().reason = Some(reason);
                }
            }
        }
        match state {
            CancelState::Finished => false,
            CancelState::Running => true,
            CancelState::Asked { running } => {
                // Asked between drives, and again in this one: it need not wait for the next look.
                if !running && !self.burying.get() {
                    self.arena.if_driven(|driven| self.bury(driven, task));
                }
                true
            }
            CancelState::Waiting => {
                let buried = self.arena.if_driven(|driven| self.bury(driven, task));
                if buried.is_none() {
                    self.doomed.borrow_mut().push(task);
                    self.prod();
                }
                true
            }
        }
    }

    /// Destroys a task, now or, when a task is being destroyed up the stack, right after that one.
    pub(super) fn bury(&self, driven: Driven<'_>, task: TaskRef) {
        self.graveyard.borrow_mut().push_back(task);
        if self.burying.replace(true) {
            return;
        }
        let _done = Done(&self.burying);
        self.bury_all(driven);
    }

    /// Destroys the members of a group. All of them are gone when this returns, whatever is being destroyed up the stack
    /// and whether the executor is being driven or not; but for those that are on the poll stack, which go right after it.
    /// So this is as deep as groups are nested.
    pub(crate) fn bury_members(&self, members: &[TaskRef], reason: &'static str) {
        // All are asked before the first destructor runs, which may look at the others.
        for member in members {
            let state = self.arena.ask_cancel(*member);
            if matches!(state, CancelState::Running | CancelState::Waiting)
                && self.arena.is_claimed(*member)
            {
                if let Some(record) = self.arena.extras(*member) {
                    record.borrow_mut().reason = Some(reason.into());
                }
            }
        }
        // Between drives there is no graveyard: what destructors cancel is left to the next drive.
        let outermost = self.arena.is_driven() && !self.burying.replace(true);
        let done = outermost.then(|| Done(&self.burying));
        for member in members {
            if let Some(ended) = self.arena.destroy_unbound(*member) {
                self.ended(ended);
            }
        }
        if let Some(_done) = done {
            self.arena.if_driven(|driven| self.bury_all(driven));
        }
        if self.is_gone() {
            // A destructor has ended the executor: no drive will settle what came of the others.
            self.settle_all();
        }
        self.prod();
    }

    fn bury_all(&self, driven: Driven<'_>) {
        loop {
            let next = self.graveyard.borrow_mut().pop_front();
            let Some(task) = next else { break };
            // The destructors see what their own task inherited, not what is set where it is cancelled.
            if let Some(ended) = self.within(None, || driven.destroy(task)) {
                self.ended(ended);
            }
        }
    }

    /// A task was spawned, or a callback made, on an executor that takes none. Destructors that make their like are capped.
    pub(super) fn bury_late(&self, task: TaskRef, reason: Option<&str>) {
        self.afterlife.set(self.afterlife.get() + 1);
        if self.is_afterlife_over() {
            let info = self.arena.info(task);
            self.tell(ContextKind::Destructor, ENDLESS, None, info);
        }
        self.cancel(task, reason.map(Box::from));
    }

    pub(super) fn is_afterlife_over(&self) -> bool {
        self.afterlife.get() >= MAX_AFTERLIFE
    }
}
