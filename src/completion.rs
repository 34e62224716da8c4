//! How a task ended, as done callbacks see it; and the side record that holds them.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::task::Waker;

use crate::exception::{Exception, Owned};
use crate::listeners::Listeners;
use crate::locals::Locals;
use crate::task::{TaskId, TaskInfo};
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

/// How a task ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Returned,
    Failed,
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

    /// How it ended, without retrieving anything.
    #[cfg(feature = "tracing")]
    pub(crate) fn peek(&self) -> Outcome<'a> {
        self.outcome
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
    /// A handle on another thread.
    Elsewhere(Box<dyn Deliver>),
}

/// Brings a task's outcome to a handle on another thread.
pub(crate) trait Deliver: fmt::Debug {
    /// Takes the outcome out of the task's cell, where it can be taken now, and hands it over.
    fn deliver(self: Box<Self>) -> Delivery;

    /// The task, by id and index, while its outcome has not been taken.
    fn task(&self) -> Option<(TaskId, u32)>;

    /// Whether the handle is still there.
    fn is_held(&self) -> bool;
}

/// What remains to be done when an outcome was handed over.
pub(crate) struct Delivery {
    pub(crate) task: TaskInfo,
    /// Who waits for it.
    pub(crate) waker: Option<Waker>,
    /// It is a failure of which nobody was told.
    pub(crate) owed: Option<Rc<dyn Owed>>,
    /// What dropping it came to, where the handle was gone.
    pub(crate) dropped: Result<(), Box<Panic>>,
}

impl Delivery {
    /// Nothing remains to be done.
    pub(crate) fn done(task: TaskInfo) -> Self {
        Delivery {
            task,
            waker: None,
            owed: None,
            dropped: Ok(()),
        }
    }
}

/// A failure that was handed over, and of which somebody must get to know.
pub(crate) trait Owed {
    /// Looks what became of it. If its handle is gone, it is given to `tell` and dropped; if the handle has not read it and
    /// this is the `last` look, it is given to `tell` and stays for the handle. `tell` is also given whether there is a
    /// handle.
    fn look(&self, last: bool, tell: &mut dyn FnMut(&TaskInfo, Exception<'_>, bool)) -> Looked;
}

/// What became of a failure that is owed.
pub(crate) enum Looked {
    /// Its handle has yet to read it.
    Held,
    /// Its handle has read it.
    Read,
    /// `tell` was given it.
    Told(Delivery),
}

/// What members of it belong to: a task group, a supervisor, a combinator. It is told of their ends before any handle can
/// look.
///
/// The only user code that runs in any of these is foreign wakers of those who wait, contained.
pub(crate) trait Group {
    /// Why nothing can be spawned into it; `None`: it is open.
    fn refusal(&self) -> Option<&'static str>;

    /// Takes in a task that is being spawned. Called before any user code can know of the task.
    fn admit(&self, id: TaskId, index: u32) -> Admission;

    /// What becomes of the failure of a member. Asked when it has failed, and again when its done callbacks have run.
    fn custody(&self) -> Custody;

    /// A member has failed. Gives whom to wake.
    fn failed(&self) -> Awaiter {
        Awaiter::Nobody
    }

    /// A member, or one of its own members, has begun to ask whether it is to end, or (`false`) no longer does. Gives the
    /// task, by id and index, whose members these are, if that begins to count as one that asks by this; when that ends is
    /// the group's to say.
    fn asks(&self, asks: bool) -> Option<(TaskId, u32)> {
        let _ = asks;
        None
    }

    /// A member has ended, and its done callbacks have run unless it was cancelled; its outcome is published right after
    /// this. With its failure, if that is [kept](Custody::Keep). Gives whom to wake then.
    fn concluded(&self, tag: usize, end: End, failure: Option<KeptFailure>) -> Awaiter;
}

/// How a group takes a new member in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    /// What the group will know it by.
    pub(crate) tag: usize,
    /// It is not to run before the group releases it.
    pub(crate) held_back: bool,
    /// It is asked to end from the start.
    pub(crate) requested: bool,
}

/// What becomes of a member's failure.
#[allow(dead_code, reason = "not every kind of group is there in every build")]
pub(crate) enum Custody {
    /// What becomes of any task's: the executor's policy.
    Policy,
    /// The group takes it, to hand it on. No report is made.
    Keep,
    /// It stays with the handle, which the group has and will read. No report is made but for one given up unread.
    Note,
    /// It is told at once, to this handler (a `report::Installed`) if there is one. It stays with the handle.
    Tell(Option<Rc<dyn Any>>),
}

/// A failure that a group has, to hand it on.
pub(crate) struct KeptFailure {
    /// The member; `None`: it is that of the group's own body, which is no task and in no counter.
    pub(crate) task: Option<TaskInfo>,
    pub(crate) exception: Owned,
    /// Nobody has read it yet: it counts as unread until it is handed on or told.
    pub(crate) unread: bool,
    /// What was set where it happened, for as long as it may have to be told.
    pub(crate) locals: Option<Locals>,
}

/// That a task belongs to a group.
pub(crate) struct Membership {
    pub(crate) group: Rc<dyn Group>,
    pub(crate) tag: usize,
    /// How many ask whether they are to end: the task itself, and each group whose members are its own.
    asking: Cell<usize>,
}

impl Membership {
    pub(crate) fn new(group: Rc<dyn Group>, tag: usize) -> Self {
        Membership {
            group,
            tag,
            asking: Cell::new(0),
        }
    }

    pub(crate) fn is_asking(&self) -> bool {
        self.asking.get() > 0
    }

    /// Counts one more that asks, or (`false`) one less. Whether that begins or ends the member's asking.
    pub(crate) fn count_asking(&self, asks: bool) -> bool {
        match (asks, self.asking.get()) {
            (true, asking) => self.asking.set(asking + 1),
            // It was discounted meanwhile.
            (false, 0) => return false,
            (false, asking) => self.asking.set(asking - 1),
        }
        self.asking.get() == usize::from(asks)
    }

    /// Counts nobody any more, if the member is one of `group`. Whether it was asking.
    pub(crate) fn discount(&self, group: &dyn Group) -> bool {
        ptr::addr_eq(&*self.group, group) && self.asking.take() > 0
    }
}

/// The task has ended.
pub(crate) const FINISHED: u8 = 1;
/// A cancel from another thread, or from between two drives, is on its way; there need be only one.
pub(crate) const ASKED: u8 = 2;

/// What debug mode notes of a task.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) polls: u64,
    pub(crate) parent: Option<TaskId>,
    /// The task, with its slot, whose handle was pending when this task asked it in its latest poll.
    pub(crate) awaiting: Option<(TaskId, u32)>,
    /// A `Result` into which nobody looks.
    pub(crate) overlooked: bool,
}

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
    /// The task-local values that the task inherited.
    pub(crate) inherited: Option<Locals>,
    /// Those that were set where it ended.
    pub(crate) ended_in: Option<Locals>,
    /// Shared with the task's `CancelHandle`s: [`FINISHED`], [`ASKED`].
    pub(crate) finished: Option<Arc<AtomicU8>>,
    /// The message of the failure that the group has taken.
    pub(crate) kept: Option<Box<str>>,
    /// In debug mode only, and then always.
    pub(crate) notes: Option<Box<Notes>>,
}

impl Extras {
    /// What its handlers and callbacks are to see.
    pub(crate) fn locals(&self) -> Option<&Locals> {
        self.ended_in.as_ref().or(self.inherited.as_ref())
    }

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

impl Awaiter {
    /// Whether it is a foreign waker that wakes what `waker` wakes. No user code.
    pub(crate) fn is_foreign(&self, waker: &Waker) -> bool {
        match self {
            // `will_wake` compares two words.
            Awaiter::Foreign(own) => own.will_wake(waker),
            Awaiter::Nobody | Awaiter::Key(_) | Awaiter::Elsewhere(_) => false,
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
