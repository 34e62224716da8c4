//! What a task is called and what can be asked of it from outside.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

/// A task's identity: unique in the process, never reused.
///
/// Ids of one executor grow in spawn order; those of different executors are interleaved. A task that is spawned from another
/// thread has its id from the call on, so that in listings it may stand behind tasks that were spawned at home after it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(u64);

impl TaskId {
    pub(crate) fn new(id: u64) -> Self {
        TaskId(id)
    }

    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({})", self.0)
    }
}

/// What a live task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskState {
    /// It has been woken, or was just spawned, and waits for its turn.
    Ready,
    /// It is being polled, or dropped, at this moment.
    Running,
    /// It waits to be woken.
    Waiting,
}

/// A name, without an allocation where the task was given none.
#[derive(Clone)]
pub(crate) enum Name {
    Given(Arc<str>),
    /// `Task-` and up to 20 digits.
    Counted([u8; 25], u8),
}

impl Name {
    /// asyncio's default: `Task-` and the id.
    pub(crate) fn counted(id: TaskId) -> Self {
        let mut digits = [0; 20];
        let mut rest = id.0;
        let mut n = 0;
        loop {
            digits[n] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            n += 1;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let mut text = [0; 25];
        text[..5].copy_from_slice(b"Task-");
        for (to, from) in text[5..].iter_mut().zip(digits[..n].iter().rev()) {
            *to = *from;
        }
        Name::Counted(text, u8::try_from(5 + n).unwrap_or(25))
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Name::Given(name) => name,
            Name::Counted(text, len) => {
                std::str::from_utf8(&text[..usize::from(*len)]).unwrap_or("Task")
            }
        }
    }
}

/// A snapshot of a task: who it is, where it was spawned, what it was doing.
#[doc(alias = "all_tasks")]
#[derive(Clone)]
pub struct TaskInfo {
    id: TaskId,
    name: Name,
    location: &'static Location<'static>,
    state: TaskState,
}

impl TaskInfo {
    pub(crate) fn new(
        id: TaskId,
        name: Name,
        location: &'static Location<'static>,
        state: TaskState,
    ) -> Self {
        TaskInfo {
            id,
            name,
            location,
            state,
        }
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The name given at the spawn, or `Task-` and the id.
    #[doc(alias = "get_name")]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Where it was spawned.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// What it was doing when the snapshot was made. In reports and callbacks, where the task has ended, this is
    /// `Running`: its last step has just been made.
    pub fn state(&self) -> TaskState {
        self.state
    }
}

impl fmt::Debug for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskInfo")
            .field("id", &self.id.0)
            .field("name", &self.name())
            .field("location", &format_args!("{}", self.location))
            .field("state", &self.state)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, TaskId};

    #[test]
    fn a_task_without_a_name_is_called_by_its_id() {
        for id in [0, 1, 10, 907, u64::MAX] {
            assert_eq!(Name::counted(TaskId(id)).as_str(), format!("Task-{id}"));
        }
    }
}
