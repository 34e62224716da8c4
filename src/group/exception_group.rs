//! The failures of a group, together.

use std::any::Any;
use std::error::Error;
use std::fmt;

use crate::completion::KeptFailure;
use crate::driving;
use crate::exception::{Exception, Owned};
use crate::task::{TaskId, TaskInfo};
use crate::unwind::{catch_drop, guarded};

/// Why a [`TaskGroup`](crate::TaskGroup) gave no value: what its tasks and its body failed by, in the order in which they
/// failed, the body's own failure last.
///
/// It owns the panics' payloads and the errors. An error may be any type, also one that is not `Send`; so this is an
/// [`Error`] that is not `Send` either, and `?` takes it into `Box<dyn Error>`. For `anyhow::Error` and
/// `Box<dyn Error + Send + Sync>`, [`into_summary`](Self::into_summary) keeps the messages.
///
/// A group in a group that fails is one member of the outer one's: look for it with
/// [`Exception::downcast_ref`].
///
/// # Examples
///
/// ```
/// use mainstay::{Executor, TaskGroup};
///
/// # std::panic::set_hook(Box::new(|_| {}));
/// let ex = Executor::new();
/// let result: anyhow::Result<()> = ex.block_on(async {
///     TaskGroup::scope(async |g| {
///         g.task().name("fetch").spawn_fallible(async { Err::<(), _>("no such host") }).detach();
///         g.task().name("parse").spawn(async { panic!("no input") }).detach();
///     })
///     .await
///     .map_err(|failed| {
///         let messages: Vec<_> = failed.iter().map(|(_, exception)| exception.message()).collect();
///         assert_eq!(messages, ["no such host", "no input"]);
///         failed.into_summary()
///     })?;
///     Ok(())
/// });
/// let text = result.unwrap_err().to_string();
/// assert_eq!(text, "2 failures in a group: fetch: no such host; parse: no input");
/// ```
pub struct ExceptionGroup {
    members: Vec<KeptFailure>,
    cancelled: bool,
}

impl ExceptionGroup {
    pub(super) fn new(members: Vec<KeptFailure>, cancelled: bool) -> Self {
        ExceptionGroup { members, cancelled }
    }

    /// How many failures there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none: then the group was cancelled.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether [`TaskGroup::cancel`](crate::TaskGroup::cancel) ended the group before its body returned.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// The failures, in the order in which the tasks failed: each with its task, or with `None` for the body's own, which
    /// is the last.
    #[doc(alias = "exceptions")]
    pub fn iter(&self) -> impl Iterator<Item = (Option<&TaskInfo>, Exception<'_>)> {
        self.members
            .iter()
            .map(|member| (member.task.as_ref(), member.exception.view()))
    }

    /// The payload of the first panic among them, to go on unwinding with
    /// ([`resume_unwind`](std::panic::resume_unwind)). The rest is dropped.
    pub fn into_first_panic(mut self) -> Option<Box<dyn Any + Send>> {
        let at = self
            .members
            .iter()
            .position(|member| matches!(member.exception, Owned::Panic(_)))?;
        match self.members.remove(at).exception {
            Owned::Panic(panic) => Some(panic.into_payload()),
            Owned::Error(_) => None,
        }
    }

    /// The messages alone, which may go anywhere. The payloads and errors are dropped.
    ///
    /// Where the `Display` of an error panics, the message says so.
    pub fn into_summary(self) -> GroupSummary {
        GroupSummary {
            members: self
                .iter()
                .map(|(task, exception)| Line {
                    task: task.map(|task| (task.id(), task.name().into())),
                    message: guarded(|| exception.message().into_owned()).into(),
                })
                .collect(),
            cancelled: self.cancelled,
        }
    }
}

impl Drop for ExceptionGroup {
    fn drop(&mut self) {
        // One by one: two destructors that panic in one drop would abort.
        for KeptFailure {
            task, exception, ..
        } in self.members.drain(..)
        {
            let dropped = match exception {
                // User code: Drop of the payload.
                Owned::Panic(panic) => catch_drop(panic),
                // User code: Drop of the error.
                Owned::Error(error) => catch_drop(error),
            };
            if let Err(panic) = dropped {
                driving::tell_destructor(panic, task.as_ref());
            }
        }
    }
}

/// Writes what failed, in one line. `lines` gives the name, or `None` for the body, and the message of each.
fn write_line(
    f: &mut fmt::Formatter<'_>,
    len: usize,
    cancelled: bool,
    lines: impl Iterator<Item = (Option<impl fmt::Display>, impl fmt::Display)>,
) -> fmt::Result {
    if cancelled {
        f.write_str("the group was cancelled")?;
        if len == 0 {
            return Ok(());
        }
        f.write_str(", with ")?;
    }
    match len {
        1 => f.write_str("1 failure in a group: ")?,
        n => write!(f, "{n} failures in a group: ")?,
    }
    for (at, (name, message)) in lines.enumerate() {
        let between = if at == 0 { "" } else { "; " };
        f.write_str(between)?;
        match name {
            Some(name) => write!(f, "{name}: {message}")?,
            None => write!(f, "its body: {message}")?,
        }
    }
    Ok(())
}

impl fmt::Display for ExceptionGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self
            .iter()
            .map(|(task, exception)| (task.map(TaskInfo::name), exception));
        write_line(f, self.len(), self.cancelled, lines)
    }
}

impl fmt::Debug for ExceptionGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Members<'a>(&'a ExceptionGroup);
        impl fmt::Debug for Members<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.0.iter()).finish()
            }
        }
        f.debug_struct("ExceptionGroup")
            .field("cancelled", &self.cancelled)
            .field("members", &Members(self))
            .finish()
    }
}

impl Error for ExceptionGroup {}

/// The messages of an [`ExceptionGroup`]: what is left of it when it is to cross threads or to become an
/// `anyhow::Error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    members: Vec<Line>,
    cancelled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    task: Option<(TaskId, Box<str>)>,
    message: Box<str>,
}

impl GroupSummary {
    /// How many failures there were.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there was none: then the group was cancelled.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether [`TaskGroup::cancel`](crate::TaskGroup::cancel) ended the group before its body returned.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// The messages, in the order in which the tasks failed: each with its task's id, or with `None` for the body's own.
    pub fn iter(&self) -> impl Iterator<Item = (Option<TaskId>, &str)> {
        self.members
            .iter()
            .map(|line| (line.task.as_ref().map(|(id, _)| *id), &*line.message))
    }
}

impl From<ExceptionGroup> for GroupSummary {
    fn from(group: ExceptionGroup) -> Self {
        group.into_summary()
    }
}

impl fmt::Display for GroupSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.members.iter().map(|line| {
            let name = line.task.as_ref().map(|(_, name)| &**name);
            (name, &line.message)
        });
        write_line(f, self.len(), self.cancelled, lines)
    }
}

impl Error for GroupSummary {}
