//! How a task ended, as done callbacks see it; and the side record that holds them.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::task::Waker;

use crate::exception::Exception;
use crate::listeners::Listeners;
use crate::task::TaskInfo;
use crate::unwind::Panic;

/// How a task ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// With a value, which only the handle can take.
    Returned,
    /// By a panic, or an `Err` of a task spawned with `spawn_fallible`.
    Failed(Exception<'a>),
    /// By being cancelled, or because its executor was dropped.
    Cancelled,
}

/// What a done callback is given.
pub struct Completion<'a> {
    task: &'a TaskInfo,
    outcome: Outcome<'a>,
    on_read: &'a dyn Fn(),
}

impl<'a> Completion<'a> {
    pub(crate) fn new(task: &'a TaskInfo, outcome: Outcome<'a>, on_read: &'a dyn Fn()) -> Self {
        Completion {
            task,
            outcome,
            on_read,
        }
    }

    /// The task that ended.
    pub fn task(&self) -> &TaskInfo {
        self.task
    }

    /// How it ended.
    ///
    /// Asking this of a failed task *retrieves* the failure, as asyncio's `Task.exception()` does: under
    /// [`ReportPolicy::IfUnretrieved`](crate::ReportPolicy::IfUnretrieved) it is then not reported.
    #[doc(alias = "exception")]
    pub fn outcome(&self) -> Outcome<'a> {
        if matches!(self.outcome, Outcome::Failed(_)) {
            (self.on_read)();
        }
        self.outcome
    }
}

impl fmt::Debug for Completion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Looking through Debug is not retrieving.
        f.debug_struct("Completion")
            .field("task", self.task)
            .field("outcome", &self.outcome)
            .finish()
    }
}

/// Names a done callback, to remove it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallbackId(pub(crate) u64);

pub(crate) type DoneCallback = Box<dyn FnOnce(&Completion<'_>)>;

/// Who waits for an outcome.
#[derive(Debug, Default)]
pub(crate) enum Awaiter {
    #[default]
    Nobody,
    /// A waker of ours, as its key.
    Key(usize),
    Foreign(Waker),
}

/// The task has ended.
pub(crate) const FINISHED: u8 = 1;
/// A cancel from another thread, or from between two drives, is on its way; there need be only one.
pub(crate) const ASKED: u8 = 2;

/// What few tasks have. Allocated when the first of these is needed.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) reason: Option<Box<str>>,
    /// Who awaits the handle.
    pub(crate) awaiter: Awaiter,
    pub(crate) callbacks: Vec<(CallbackId, DoneCallback)>,
    /// A destructor's panic, beside the error that the task returned.
    pub(crate) also: Option<Box<Panic>>,
    /// Who is to be woken when the task is asked to end; the task itself, in the ordinary case, needs no place here.
    pub(crate) listeners: Option<Rc<RefCell<Listeners>>>,
    /// Shared with the task's `CancelHandle`s: [`FINISHED`], [`ASKED`].
    pub(crate) finished: Option<Arc<AtomicU8>>,
}

impl Extras {
    /// A record for a task that may already be awaited by key; 0 is no key.
    pub(crate) fn new(awaiter_key: usize) -> Self {
        Extras {
            awaiter: match awaiter_key {
                0 => Awaiter::Nobody,
                key => Awaiter::Key(key),
            },
            ..Extras::default()
        }
    }
}

impl fmt::Debug for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extras")
            .field("name", &self.name)
            .field("reason", &self.reason)
            .field("callbacks", &self.callbacks.len())
            .finish_non_exhaustive()
    }
}
