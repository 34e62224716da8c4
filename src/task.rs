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

/// What only debug mode knows of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traced {
    pub(crate) polls: u64,
    pub(crate) parent: Option<TaskId>,
    pub(crate) awaiting: Option<TaskId>,
}

/// A snapshot of a task: who it is, where it was spawned, what it was doing.
///
/// From [`Executor::tasks`](crate::Executor::tasks), [`current_task`](crate::current_task), reports, done callbacks and
/// hooks. It stays as it is, whatever becomes of the task.
///
/// Three more answers need [debug mode](crate::Builder::debug):
///
/// ```
/// use mainstay::Executor;
///
/// let ex = Executor::builder().debug(true).build();
/// # ex.set_exception_handler(|_, _| {}); // both are destroyed at the end
/// ex.block_on(async {
///     let waiter = mainstay::spawn(async {
///         let worker = mainstay::spawn(std::future::pending::<()>());
///         worker.await
///     });
///     mainstay::yield_now().await;
///     mainstay::yield_now().await;
///     let tasks = ex.tasks();
///     let [waiting, worker] = tasks.as_slice() else { unreachable!() };
///     assert_eq!(waiting.id(), waiter.id());
///     assert_eq!(waiting.awaiting(), Some(worker.id()));
///     assert_eq!(worker.parent(), Some(waiting.id()));
///     assert_eq!(worker.polls(), 1);
/// });
/// ```
#[doc(alias = "all_tasks")]
#[derive(Clone)]
pub struct TaskInfo {
    id: TaskId,
    name: Name,
    location: &'static Location<'static>,
    state: TaskState,
    traced: Option<Traced>,
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
            traced: None,
        }
    }

    /// Adds what debug mode knows.
    pub(crate) fn with_traced(mut self, traced: Traced) -> Self {
        self.traced = Some(traced);
        self
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

    /// How often it had been polled, counting the poll that was being made. Always 0 outside of
    /// [debug mode](crate::Builder::debug).
    pub fn polls(&self) -> u64 {
        self.traced.map_or(0, |traced| traced.polls)
    }

    /// The task that spawned it, also one that has ended by now. `None` if no task did (the root, a callback, a handler,
    /// another thread, or code between two drives), and always outside of [debug mode](crate::Builder::debug).
    pub fn parent(&self) -> Option<TaskId> {
        self.traced?.parent
    }

    /// The task that it was waiting for: that whose [`JoinHandle`](crate::JoinHandle) it asked in its latest poll, and
    /// which had not ended. Of several, the one asked last. A chain of these that comes back to where it began is a
    /// deadlock.
    ///
    /// `None` when the handle is gone, for tasks of other executors, and always outside of
    /// [debug mode](crate::Builder::debug). A task that gives up waiting and keeps the handle is shown as waiting until it is
    /// polled again. A combinator that asks only those handles that were woken hides the others.
    pub fn awaiting(&self) -> Option<TaskId> {
        self.traced?.awaiting
    }
}

impl fmt::Debug for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("TaskInfo");
        shown
            .field("id", &self.id.0)
            .field("name", &self.name())
            .field("location", &format_args!("{}", self.location))
            .field("state", &self.state);
        if let Some(traced) = self.traced {
            shown
                .field("polls", &traced.polls)
                .field("parent", &traced.parent)
                .field("awaiting", &traced.awaiting);
        }
        shown.finish()
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
