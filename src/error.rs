//! Errors that users are given.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::arena::claim::Taken;
use crate::task::{Name, TaskId};
use crate::unwind::{Panic, PanicLocation};

/// Why awaiting a task gave no value.
///
/// One pointer wide, so that `Result<T, JoinError>` is no wider than it must be. It is allocated when a task has failed
/// or was cancelled, never for one that returned.
pub struct JoinError(Box<Inner>);

struct Inner {
    /// `None`: there was no task.
    id: Option<TaskId>,
    name: String,
    cause: Cause,
}

enum Cause {
    Cancelled(Option<Box<str>>),
    Panic {
        /// A payload is `Send` and not `Sync`; taking it needs the error by value, so that the lock is never contended.
        payload: Mutex<Box<dyn Any + Send>>,
        message: String,
        location: Option<PanicLocation>,
    },
    /// The task's group has what it failed by; this is the message.
    InGroup(Option<Box<str>>),
    /// The task awaited its own handle.
    OwnHandle,
    /// There was no task to await.
    Nothing,
}

impl JoinError {
    pub(crate) fn cancelled(id: TaskId, name: &Name, reason: Option<Box<str>>) -> Self {
        JoinError::new(id, name, Cause::Cancelled(reason))
    }

    fn panicked(id: TaskId, name: &Name, panic: Panic) -> Self {
        let message = panic.message().into_owned();
        let location = panic.location().cloned();
        let payload = Mutex::new(panic.into_payload());
        JoinError::new(
            id,
            name,
            Cause::Panic {
                payload,
                message,
                location,
            },
        )
    }

    fn kept(id: TaskId, name: &Name, message: Option<Box<str>>) -> Self {
        JoinError::new(id, name, Cause::InGroup(message))
    }

    pub(crate) fn own_handle(id: TaskId, name: &Name) -> Self {
        JoinError::new(id, name, Cause::OwnHandle)
    }

    /// There was no task; `name` says where.
    pub(crate) fn nothing(name: &str) -> Self {
        JoinError(Box::new(Inner {
            id: None,
            name: name.to_owned(),
            cause: Cause::Nothing,
        }))
    }

    fn new(id: TaskId, name: &Name, cause: Cause) -> Self {
        JoinError(Box::new(Inner {
            id: Some(id),
            name: name.as_str().to_owned(),
            cause,
        }))
    }

    /// Whether the task was cancelled, or its executor was dropped before it ended.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0.cause, Cause::Cancelled(_))
    }

    /// Whether the task panicked and this error has the payload.
    pub fn is_panic(&self) -> bool {
        matches!(self.0.cause, Cause::Panic { .. })
    }

    /// Whether the task's failure belongs to a [`TaskGroup`](crate::TaskGroup), which has the payload or error; this error
    /// has the message.
    pub fn in_group(&self) -> bool {
        matches!(self.0.cause, Cause::InGroup(_))
    }

    /// The payload of the task's panic, as `std::panic::catch_unwind` would give it.
    ///
    /// # Panics
    ///
    /// If there is none: ask [`is_panic`](Self::is_panic) first, or use [`try_into_panic`](Self::try_into_panic).
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.try_into_panic() {
            Ok(payload) => payload,
            Err(error) => panic!("`JoinError::into_panic` on an error that is no panic: {error}"),
        }
    }

    /// The payload of the task's panic.
    ///
    /// # Errors
    ///
    /// The error itself, if it is no panic.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.0.cause {
            Cause::Panic { payload, .. } => {
                Ok(payload.into_inner().unwrap_or_else(PoisonError::into_inner))
            }
            _ => Err(self),
        }
    }

    /// The task; `None` where there was none: a [`race`](crate::race) of nothing.
    pub fn id(&self) -> Option<TaskId> {
        self.0.id
    }

    /// The reason given to [`cancel_with_reason`](crate::JoinHandle::cancel_with_reason).
    pub fn reason(&self) -> Option<&str> {
        match &self.0.cause {
            Cause::Cancelled(reason) => reason.as_deref(),
            _ => None,
        }
    }
}

/// What a handle gives for what it took.
pub(crate) fn outcome<T>(id: TaskId, name: &Name, taken: Taken<T>) -> Result<T, JoinError> {
    match taken {
        Taken::Value(value) => Ok(value),
        Taken::Panic(panic) => Err(JoinError::panicked(id, name, *panic)),
        Taken::Cancelled(reason) => Err(JoinError::cancelled(id, name, reason)),
        Taken::InGroup(message) => Err(JoinError::kept(id, name, message)),
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.0.name;
        match &self.0.cause {
            Cause::Cancelled(None) => write!(f, "task {name} was cancelled"),
            Cause::Cancelled(Some(reason)) => write!(f, "task {name} was cancelled: {reason}"),
            Cause::Panic {
                message, location, ..
            } => {
                write!(f, "task {name} panicked: {message}")?;
                match location {
                    Some(location) => write!(f, " (at {location})"),
                    None => Ok(()),
                }
            }
            Cause::InGroup(Some(message)) => {
                write!(
                    f,
                    "task {name} failed, which its group has to tell: {message}"
                )
            }
            Cause::InGroup(None) => write!(f, "task {name} failed, which its group has to tell"),
            Cause::OwnHandle => write!(
                f,
                "task {name} awaited its own handle, which would never end"
            ),
            Cause::Nothing => write!(f, "{name}: there is no task to wait for"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("JoinError");
        out.field("id", &self.0.id).field("name", &self.0.name);
        match &self.0.cause {
            Cause::Cancelled(reason) => out.field("cancelled", reason),
            Cause::Panic {
                message, location, ..
            } => out.field("panic", message).field("location", location),
            Cause::InGroup(message) => out.field("in_group", message),
            Cause::OwnHandle => out.field("own_handle", &true),
            Cause::Nothing => out.field("nothing", &true),
        };
        out.finish()
    }
}

impl Error for JoinError {}

/// Why a task of a [`try_gather`](crate::try_gather) gave no value: by its own `Err`, or otherwise.
///
/// Converts by `?` into `anyhow::Error` and `Box<dyn Error + Send + Sync>` where `E` may go there. It does not convert from
/// `E`: a `TaskError` says that a task of its own gave the error.
#[derive(Debug)]
pub enum TaskError<E> {
    /// The task returned this.
    Failed(E),
    /// The task panicked or was cancelled.
    Join(JoinError),
}

impl<E: fmt::Display> fmt::Display for TaskError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskError::Failed(error) => error.fmt(f),
            TaskError::Join(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Display + fmt::Debug> Error for TaskError<E> {}

impl<E> From<JoinError> for TaskError<E> {
    fn from(error: JoinError) -> Self {
        TaskError::Join(error)
    }
}

/// The task's outcome was asked for when there was none to take. asyncio's `InvalidStateError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidState {
    /// The task has not finished, or its end is still being told to the handler and the callbacks.
    Pending,
    /// The outcome was taken before.
    Taken,
}

impl fmt::Display for InvalidState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidState::Pending => {
                "the task has not finished yet; await the handle, or ask `is_finished()` first"
            }
            InvalidState::Taken => "the task's outcome was taken before; a handle gives it once",
        })
    }
}

impl Error for InvalidState {}

/// The task has no exception to show. asyncio raises from `Task.exception()` in the first two of these cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExceptionError {
    /// The task has not finished, or its end is still being told to the handler and the callbacks.
    Pending,
    /// The task was cancelled, which is not a failure.
    Cancelled,
    /// The outcome was taken before, the exception with it; or the task's group has the exception.
    Taken,
}

impl fmt::Display for ExceptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ExceptionError::Pending => {
                "the task has not finished yet; await the handle, or ask `is_finished()` first"
            }
            ExceptionError::Cancelled => "the task was cancelled, so that it has no exception",
            ExceptionError::Taken => {
                "the task's exception was taken before, with its outcome or by its group"
            }
        })
    }
}

impl Error for ExceptionError {}

/// [`Executor::stop`](crate::Executor::stop) came before the root had finished.
pub struct Stopped(Mutex<Option<Box<dyn Any + Send>>>);

impl Stopped {
    pub(crate) fn new(payload: Option<Box<dyn Any + Send>>) -> Self {
        Stopped(Mutex::new(payload))
    }

    /// What was given to [`Executor::stop_with`](crate::Executor::stop_with), if it was that.
    pub fn into_payload(self) -> Option<Box<dyn Any + Send>> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the executor was stopped before the root finished")
    }
}

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopped").finish_non_exhaustive()
    }
}

impl Error for Stopped {}
