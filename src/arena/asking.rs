//! Asking tasks to end by themselves: what a slot notes of it.

use super::slots::{ASKS, ENDED, Header, LISTENS, REQUESTED};
use super::{Arena, TaskRef};

impl Arena {
    /// Asks a task to end. `None`: it has ended, or was asked before; else the key to wake, if the task itself listens.
    pub(crate) fn request(&self, task: TaskRef) -> Option<Option<usize>> {
        let header = self.live_header(task)?;
        if header.has(REQUESTED) {
            return None;
        }
        header.set(REQUESTED);
        Some(header.has(LISTENS).then(|| header.key.get()))
    }

    /// Whether the task has not ended and was asked to.
    pub(crate) fn is_requested(&self, task: TaskRef) -> bool {
        self.live_header(task)
            .is_some_and(|header| header.has(REQUESTED))
    }

    /// Whether the task has not ended and has ever wanted to know whether it is asked to.
    pub(crate) fn asks(&self, task: TaskRef) -> bool {
        self.live_header(task)
            .is_some_and(|header| header.has(ASKS))
    }

    /// Notes that the task wants to know. `false`: it has ended.
    pub(crate) fn note_asks(&self, task: TaskRef) -> bool {
        let header = self.live_header(task);
        header.map(|header| header.set(ASKS)).is_some()
    }

    /// Notes that the task itself is to be woken when it is asked. `false`: `key` is not its own.
    pub(crate) fn note_listens(&self, task: TaskRef, key: usize) -> bool {
        self.live_header(task).is_some_and(|header| {
            let own = header.key.get() == key;
            if own {
                header.set(LISTENS);
            }
            own
        })
    }

    /// Whether the task has ended, or its slot is another's by now.
    pub(crate) fn has_ended(&self, task: TaskRef) -> bool {
        self.live_header(task).is_none()
    }

    /// The header of a task that has not ended. To be let go of before anything else runs.
    fn live_header(&self, task: TaskRef) -> Option<&Header> {
        let slot = self.find(task)?;
        // SAFETY: found alive, and its page stays for as long as nothing else runs.
        let header = unsafe { slot.as_ref() };
        (!header.has(ENDED)).then_some(header)
    }
}
