//! Looking: what can be asked of the tasks in an arena, by reference, by key, or of all of them.

use std::ptr::NonNull;

use crate::key::Key;
use crate::task::TaskInfo;

use super::record::{awaiting, info_of, is_awaited_by, reference};
use super::slots::{
    BACKGROUND, CALL, CANCEL, CLAIMED, ENDED, FAILED, Header, PINNED, READ, RUNNING, TOLD, VACANT,
    WOKEN,
};
use super::{Arena, TaskRef};

impl Arena {
    /// Whether a task is ready.
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        !self.front.queue.is_empty()
    }

    /// The task that is on the poll stack; none while a callback is.
    pub(crate) fn running(&self) -> Option<TaskRef> {
        self.front.running_task()
    }

    /// Whether the slot's future is being polled or dropped up the stack.
    #[inline]
    pub(super) fn is_on_stack(&self, slot: NonNull<Header>, header: &Header) -> bool {
        header.has(RUNNING) || self.front.is_running(slot)
    }

    pub(super) fn find(&self, task: TaskRef) -> Option<NonNull<Header>> {
        let slot = self.front.table.slot(task.index)?;
        // SAFETY: frames lead to live headers.
        let header = unsafe { slot.as_ref() };
        (!header.has(VACANT) && header.id() == task.id).then_some(slot)
    }

    /// The task's present state in words.
    pub(crate) fn info(&self, task: TaskRef) -> Option<TaskInfo> {
        let slot = self.find(task)?;
        // SAFETY: found alive.
        let header = unsafe { slot.as_ref() };
        let awaiting = awaiting(header).filter(|awaited| self.is_awaited_by(*awaited, header));
        Some(info_of(
            header,
            self.is_on_stack(slot, header),
            awaiting.map(|awaited| awaited.id),
        ))
    }

    /// Whether a task that another asked for its outcome still owes it that.
    pub(super) fn is_awaited_by(&self, task: TaskRef, waiting: &Header) -> bool {
        let Some(slot) = self.find(task) else {
            return false;
        };
        // SAFETY: found alive.
        let header = unsafe { slot.as_ref() };
        header.has(CLAIMED) && !header.has(ENDED) && is_awaited_by(header, waiting.key.get())
    }

    /// All tasks that have not ended, in spawn order.
    pub(crate) fn live(&self) -> Vec<TaskRef> {
        let mut live: Vec<TaskRef> = self
            .occupied()
            .filter(|(_, flags)| flags & (ENDED | CALL) == 0)
            .map(|(task, _)| task)
            .collect();
        live.sort_unstable_by_key(|task| task.id);
        live
    }

    /// All tasks that can be destroyed now, in spawn order: those that live, but for what is on the poll stack. (That can
    /// be while the executor ends: a destructor that runs between two drives may end it.)
    pub(crate) fn destroyable(&self) -> Vec<TaskRef> {
        let mut live = self.live();
        live.retain(|task| !self.is_running(*task));
        live
    }

    /// All callbacks that have not been called, in the order in which they were made.
    pub(crate) fn calls(&self) -> Vec<TaskRef> {
        let mut calls: Vec<TaskRef> = self
            .occupied()
            .filter(|(_, flags)| flags & (ENDED | CALL) == CALL)
            .map(|(task, _)| task)
            .collect();
        calls.sort_unstable_by_key(|task| task.id);
        calls
    }

    /// Whether this key is that of a callback that is still there.
    pub(crate) fn is_call(&self, key: usize) -> bool {
        self.flags_of(key) & CALL != 0
    }

    /// Whether this key is that of a root that was woken and has not been polled since.
    pub(crate) fn is_woken_root(&self, key: usize) -> bool {
        self.flags_of(key) & WOKEN != 0
    }

    /// The flags of whom a key names; none if it names nobody.
    pub(super) fn flags_of(&self, key: usize) -> u32 {
        let slot = self.front.table.slot(Key::<usize>::from_word(key).index());
        slot.map_or(0, |slot| {
            // SAFETY: frames lead to live headers.
            let header = unsafe { slot.as_ref() };
            if header.key.get() == key {
                header.flags.get()
            } else {
                0
            }
        })
    }

    /// All tasks that failed, were neither told nor read, and are only kept by a handle; in spawn order.
    pub(crate) fn unread(&self) -> Vec<TaskRef> {
        let mut unread: Vec<TaskRef> = self
            .occupied()
            .filter(|(_, flags)| flags & FAILED != 0 && flags & (TOLD | READ | PINNED) == 0)
            .map(|(task, _)| task)
            .collect();
        unread.sort_unstable_by_key(|task| task.id);
        unread
    }

    pub(super) fn occupied(&self) -> impl Iterator<Item = (TaskRef, u32)> {
        self.pages.occupied(&self.front).into_iter().map(|slot| {
            // SAFETY: found alive, and nothing runs between finding and this.
            let header = unsafe { slot.as_ref() };
            (reference(header), header.flags.get())
        })
    }

    /// Whether the task was spawned with `.background()`.
    pub(crate) fn is_background(&self, task: TaskRef) -> bool {
        self.flags(task) & BACKGROUND != 0
    }

    /// Whether the task is on the poll stack.
    pub(crate) fn is_running(&self, task: TaskRef) -> bool {
        self.find(task).is_some_and(|slot| {
            // SAFETY: found alive.
            self.is_on_stack(slot, unsafe { slot.as_ref() })
        })
    }

    /// Whether somebody holds the task's handle.
    pub(crate) fn is_claimed(&self, task: TaskRef) -> bool {
        self.flags(task) & CLAIMED != 0
    }

    /// Whether cancellation was asked for.
    pub(crate) fn is_cancel_asked(&self, task: TaskRef) -> bool {
        self.flags(task) & CANCEL != 0
    }

    pub(super) fn flags(&self, task: TaskRef) -> u32 {
        match self.find(task) {
            // SAFETY: found alive.
            Some(slot) => unsafe { slot.as_ref() }.flags.get(),
            None => 0,
        }
    }
}
