//! `TaskGroup`: tasks that end together, the first failure ending all.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Debug, Display};
use std::future::{self, Future};
use std::pin::pin;
use std::rc::Rc;

use crate::completion::{Admission, Awaiter, Custody, End, Group, KeptFailure};
use crate::context::{LocalHandle, TaskBuilder};
use crate::driving;
use crate::exception::AnyError;
use crate::join::JoinHandle;
use crate::locals::Locals;
use crate::report;
use crate::scheduler::members::report_of;
use crate::task::TaskId;

use super::body::Body;
use super::exception_group::ExceptionGroup;
use super::members::Members;
use super::scope::{Abandon, Scope};

/// Tasks that end together. asyncio's `TaskGroup`, by the rules of Python 3.13.
///
/// [`try_scope`](Self::try_scope) and [`scope`](Self::scope) run a body that spawns tasks into the group, and wait for all
/// of them:
///
/// - Where all is well, the body's value comes out when the last task has ended. Tasks may spawn more until then.
/// - **The first failure ends the group**: a task's panic, the `Err` of one spawned with
///   [`spawn_fallible`](Self::spawn_fallible), or the body's own `Err`. The other tasks and the body are cancelled, and all
///   failures come out together, as an [`ExceptionGroup`]. That happens at the scope's next poll, so that tasks that fail in
///   the same pass are all listed. Nothing can be spawned into the group from the failure on.
/// - A task that is cancelled by its own handle has not failed, and the others go on.
/// - A panic of the body is the caller's own: the tasks are cancelled, their failures are reported, and the panic goes on.
///
/// When the task that runs the scope is asked to end, by a shutdown, so are the group's tasks: see
/// [`cancel_requested`](crate::cancel_requested).
///
/// **No task outlives its group.** However the scope is left, also when its future is dropped half-way, the tasks are
/// cancelled and their destructors have run before control leaves; only a task that drops its own group, from inside of its
/// own poll, goes right after that poll. What they failed by can then be handed to nobody, and is reported.
///
/// The group owns its tasks' failures: they are not reported, as whoever awaits the scope has them, and the failed task's
/// own handle gives a [`JoinError`](crate::JoinError) that says so ([`in_group`](crate::JoinError::in_group)). Values come
/// out of the handles, as usual.
///
/// This type is a handle to the group: clone it into tasks that are to spawn siblings.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::{Executor, TaskGroup};
///
/// let ex = Executor::builder().virtual_clock().build();
/// let sum = ex.block_on(async {
///     TaskGroup::scope(async |g| {
///         let three = g.spawn(async { 3 });
///         let four = g.spawn(async {
///             mainstay::sleep(Duration::from_secs(1)).await;
///             4
///         });
///         three.await.unwrap() + four.await.unwrap()
///     })
///     .await
/// });
/// assert_eq!(sum.unwrap(), 7);
/// ```
#[derive(Clone)]
pub struct TaskGroup {
    shared: Rc<Shared>,
}

pub(super) struct Shared {
    pub(super) members: Members,
    /// In the order in which they were settled.
    pub(super) failures: RefCell<Vec<KeptFailure>>,
    pub(super) phase: Cell<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// A member or the body has failed.
    Failed,
    /// By [`TaskGroup::cancel`].
    Cancelled,
    /// The scope is over, or its future was dropped.
    Over,
}

const CLOSED_BY_FAILURE: &str = "the group is closed: a task of it failed, or its body";
const CLOSED_BY_CANCEL: &str = "the group is closed: it was cancelled";
const CLOSED_AT_END: &str = "the group is closed: it has ended";

impl TaskGroup {
    /// Runs `body`, and waits for every task that is spawned into the group. The one to use: `?` in the body ends the
    /// group.
    ///
    /// # Errors
    ///
    /// What the tasks and the body failed by. Or nothing at all, if [`cancel`](Self::cancel) ended the group before the body
    /// returned: see [`ExceptionGroup::is_cancelled`].
    ///
    /// # Panics
    ///
    /// Outside of a running executor, and with the body's own panic.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the body and every task of the group; see [`TaskGroup`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{Executor, TaskGroup};
    ///
    /// let ex = Executor::new();
    /// let failed = ex.block_on(async {
    ///     TaskGroup::try_scope(async |g| {
    ///         let fetch = g.spawn_fallible(async { Err::<u32, _>("no such host") });
    ///         let size = fetch.await.map_err(|_| "not reached: the body is cancelled")?;
    ///         Ok::<_, &str>(size)
    ///     })
    ///     .await
    /// });
    /// assert_eq!(failed.unwrap_err().to_string(), "1 failure in a group: Task-1: no such host");
    /// assert_eq!(ex.stats().reports, 0, "the caller has it");
    /// ```
    #[doc(alias = "nursery")]
    pub async fn try_scope<R, E, B>(body: B) -> Result<R, ExceptionGroup>
    where
        B: AsyncFnOnce(&TaskGroup) -> Result<R, E>,
        E: Display + Debug + 'static,
    {
        let group = TaskGroup::open("TaskGroup::try_scope");
        group
            .run(body(&group), |result| {
                result.map_err(|error| Box::new(error) as Box<dyn AnyError>)
            })
            .await
    }

    /// [`try_scope`](Self::try_scope), for a body that cannot fail: its value is not looked into, also if that is a
    /// `Result`.
    ///
    /// # Errors
    ///
    /// As [`try_scope`](Self::try_scope).
    ///
    /// # Panics
    ///
    /// As [`try_scope`](Self::try_scope).
    ///
    /// # Cancel safety
    ///
    /// As [`try_scope`](Self::try_scope).
    pub async fn scope<R, B>(body: B) -> Result<R, ExceptionGroup>
    where
        B: AsyncFnOnce(&TaskGroup) -> R,
    {
        let group = TaskGroup::open("TaskGroup::scope");
        group.run(body(&group), Ok).await
    }

    fn open(what: &str) -> Self {
        let scheduler = driving::running(what);
        let members = Members::new(&LocalHandle::of(&scheduler));
        members.be_hosted_by(scheduler.arena().running());
        TaskGroup {
            shared: Rc::new(Shared {
                members,
                failures: RefCell::default(),
                phase: Cell::new(Phase::Open),
            }),
        }
    }

    async fn run<T, R>(
        &self,
        body: impl Future<Output = T>,
        judge: impl FnOnce(T) -> Result<R, Box<dyn AnyError>>,
    ) -> Result<R, ExceptionGroup> {
        let body = pin!(Some(body));
        let mut scope = Scope::new(&self.shared, Body::new(body), judge);
        // Made after the body, so that it is dropped before it: the members go first.
        let _abandon = Abandon(&self.shared);
        future::poll_fn(|cx| scope.poll(cx)).await
    }

    /// Spawns a task into the group. Its panic ends the group.
    ///
    /// In a closed group (after the first failure, after [`cancel`](Self::cancel), when the scope is over) the future is
    /// dropped unpolled, and the handle reads as cancelled, with a reason that says so.
    #[doc(alias = "create_task")]
    #[doc(alias = "start_soon")]
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
    {
        self.task().spawn(future)
    }

    /// Spawns a task into the group whose `Err` is a failure, and ends the group, like a panic.
    #[track_caller]
    pub fn spawn_fallible<F, T, E>(&self, future: F) -> JoinHandle<Result<T, E>>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
        E: Display + Debug + 'static,
    {
        self.task().spawn_fallible(future)
    }

    /// Starts a spawn into the group with options: `.name(..)`.
    pub fn task(&self) -> TaskBuilder<'_, 'static> {
        let group = Rc::clone(&self.shared);
        self.shared.members.builder(group)
    }

    /// Bounds how many tasks of the group run at once. Those beyond the limit wait for their first poll until others have
    /// ended, in spawn order. Tasks that run already are left alone.
    ///
    /// A task that waits for one that is held back may wait for ever.
    ///
    /// # Panics
    ///
    /// If `tasks` is 0.
    #[track_caller]
    pub fn limit(&self, tasks: usize) -> &Self {
        self.shared.members.set_limit(tasks);
        self
    }

    /// Waits until fewer tasks than the [`limit`](Self::limit) are in flight, so that one that is spawned now would run at
    /// once: a body that waits for this before each spawn holds no more futures than run. Without a limit it is ready at
    /// once.
    ///
    /// Of several who wait, those that wait longest look first. A task that waits for this counts itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{Executor, TaskGroup};
    ///
    /// let ex = Executor::new();
    /// ex.block_on(TaskGroup::scope(async |g| {
    ///     g.limit(100);
    ///     for n in 0..10_000u32 {
    ///         g.room().await;
    ///         assert!(g.len() < 100);
    ///         g.spawn(async move { n }).detach();
    ///     }
    /// }))
    /// .unwrap();
    /// ```
    pub async fn room(&self) {
        self.shared.members.room().await;
    }

    /// Ends the group politely: its tasks are cancelled now, as by [`JoinHandle::cancel`], and the body at the scope's next
    /// poll. Nothing can be spawned any more.
    ///
    /// If the body has not returned, the scope gives an [`ExceptionGroup`] that [`is_cancelled`](ExceptionGroup::is_cancelled)
    /// and is empty unless something failed meanwhile; a body that returns in the poll in which it calls this has returned. If
    /// it has, the scope gives the body's value. Calling this again does nothing. Returns `false` if the scope is over.
    #[doc(alias = "abort")]
    pub fn cancel(&self) -> bool {
        let shared = &self.shared;
        match shared.phase.get() {
            Phase::Over => return false,
            Phase::Open => shared.phase.set(Phase::Cancelled),
            Phase::Failed | Phase::Cancelled => {}
        }
        shared.bury_members();
        shared.members.wake();
        true
    }

    /// How many tasks of the group have not ended.
    pub fn len(&self) -> usize {
        self.shared.members.len()
    }

    /// Whether every task of the group has ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing can be spawned into the group any more.
    pub fn is_closed(&self) -> bool {
        self.shared.phase.get() != Phase::Open
    }
}

impl Debug for TaskGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup")
            .field("len", &self.len())
            .field("phase", &self.shared.phase.get())
            .finish_non_exhaustive()
    }
}

impl Group for Shared {
    fn refusal(&self) -> Option<&'static str> {
        match self.phase.get() {
            Phase::Open => None,
            Phase::Failed => Some(CLOSED_BY_FAILURE),
            Phase::Cancelled => Some(CLOSED_BY_CANCEL),
            Phase::Over => Some(CLOSED_AT_END),
        }
    }

    fn admit(&self, id: TaskId, index: u32) -> Admission {
        self.members.admit(id, index)
    }

    fn asks(&self, asks: bool) -> Option<(TaskId, u32)> {
        self.members.count_asking(asks)
    }

    fn custody(&self) -> Custody {
        match self.phase.get() {
            Phase::Over => Custody::Policy,
            Phase::Open | Phase::Failed | Phase::Cancelled => Custody::Keep,
        }
    }

    fn failed(&self) -> Awaiter {
        if self.phase.get() == Phase::Open {
            self.phase.set(Phase::Failed);
        }
        self.members.take_awaiter()
    }

    fn concluded(&self, tag: usize, _: End, failure: Option<KeptFailure>) -> Awaiter {
        self.members.strike(tag);
        if let Some(failure) = failure {
            self.failures.borrow_mut().push(failure);
        }
        if self.phase.get() == Phase::Open {
            self.members.release();
        }
        self.members.awaiter_if_empty()
    }
}

impl Shared {
    /// Cancels all members. They are gone when this returns, but for those on the poll stack.
    pub(super) fn bury_members(&self) {
        self.members.bury(self.refusal().unwrap_or(CLOSED_AT_END));
    }

    /// The scope is left before its end: members go, and failures that nobody will have are told.
    pub(super) fn abandon(&self) {
        if self.phase.replace(Phase::Over) == Phase::Over {
            return;
        }
        self.members.forget_awaiter();
        self.bury_members();
        self.members.leave_host();
        for failure in self.failures.take() {
            self.tell(failure);
        }
    }

    /// Tells of a failure that nobody will be handed.
    pub(super) fn tell(&self, mut failure: KeptFailure) {
        match self.members.scheduler() {
            Some(scheduler) => scheduler.not_handed_on(failure),
            None => {
                report::default(&report_of(&failure));
                if let Some(Err(panic)) = failure.locals.take().map(Locals::release) {
                    driving::tell_destructor(panic, None);
                }
                // Whose drop contains what the failure's own does.
                drop(ExceptionGroup::new(vec![failure], false));
            }
        }
    }
}
