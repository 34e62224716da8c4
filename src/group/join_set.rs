//! `JoinSet`: tasks added at any time, outcomes as they come.

use std::fmt::{self, Debug, Display};
use std::future::{self, Future};
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::arena::cell::{Fallible, Judge, Plain};
use crate::context::LocalHandle;
use crate::error::JoinError;
use crate::join::JoinHandle;
use crate::task::TaskId;

use super::ends::Ends;

const CANCELLED: &str = "its join set was told to cancel all";

/// Tasks that are added at any time and whose outcomes are taken as they come.
///
/// A failure is one of the outcomes: [`join_next`](Self::join_next) gives it, and it is reported nowhere else. What was not
/// taken when the set is dropped is reported then, and the tasks that have not ended are cancelled: their destructors have
/// run when the drop returns. It holds outcomes until they are taken, so take them.
///
/// The set belongs to the executor that it was made on. For tasks that live on beside each other and whose results nobody
/// wants, see [`Supervisor`](crate::Supervisor); for tasks that fail together, [`TaskGroup`](crate::TaskGroup).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::{Executor, JoinSet, sleep};
///
/// let ex = Executor::builder().virtual_clock().build();
/// let got = ex.block_on(async {
///     let mut set = JoinSet::new();
///     for ms in [30, 10, 20] {
///         set.spawn(async move {
///             sleep(Duration::from_millis(ms)).await;
///             ms
///         });
///     }
///     let mut got = Vec::new();
///     while let Some((_, outcome)) = set.join_next().await {
///         got.push(outcome.unwrap());
///     }
///     got
/// });
/// assert_eq!(got, [10, 20, 30]);
/// ```
#[must_use = "dropping the set cancels its tasks"]
pub struct JoinSet<T> {
    ends: Rc<Ends>,
    /// A slab: as long as the most tasks and untaken outcomes that there were at once.
    handles: Vec<Option<JoinHandle<T>>>,
    vacant: Vec<usize>,
}

impl<T: 'static> JoinSet<T> {
    /// Makes a set on the running executor.
    ///
    /// # Panics
    ///
    /// Outside of a running executor; see [`new_in`](Self::new_in).
    #[expect(
        clippy::new_without_default,
        reason = "a default that panics outside of an executor surprises"
    )]
    #[track_caller]
    pub fn new() -> Self {
        match LocalHandle::try_current() {
            Some(ex) => JoinSet::new_in(&ex),
            None => panic!(
                "mainstay: `JoinSet::new` was called outside of a running executor; call it from a task or a callback, \
                 or use `JoinSet::new_in`"
            ),
        }
    }

    /// Makes a set on the executor of `ex`, also between drives. Its tasks borrow nothing, whatever those of `ex` may borrow.
    /// When the executor is gone, what is spawned into the set is dropped unpolled, and reads as cancelled.
    pub fn new_in(ex: &LocalHandle<'_>) -> Self {
        JoinSet::of(Ends::new(ex))
    }

    fn of(ends: Rc<Ends>) -> Self {
        JoinSet {
            ends,
            handles: Vec::new(),
            vacant: Vec::new(),
        }
    }

    /// Spawns a task into the set. Its panic is a failure; what it returns is not looked into.
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F) -> TaskId
    where
        F: Future<Output = T> + 'static,
    {
        self.insert::<F, Plain>(future, None, Location::caller())
    }

    /// Spawns a named task into the set.
    #[track_caller]
    pub fn spawn_named<F>(&mut self, name: impl Into<Arc<str>>, future: F) -> TaskId
    where
        F: Future<Output = T> + 'static,
    {
        self.insert::<F, Plain>(future, Some(name.into()), Location::caller())
    }

    #[track_caller]
    fn insert<F, J>(
        &mut self,
        future: F,
        name: Option<Arc<str>>,
        location: &'static Location<'static>,
    ) -> TaskId
    where
        F: Future<Output = T> + 'static,
        J: Judge<T>,
    {
        let slot = self.vacant.last().copied().unwrap_or(self.handles.len());
        let mut builder = self.ends.builder(slot);
        if let Some(name) = name {
            builder = builder.name(name);
        }
        let handle = builder.insert::<F, J>(future, location);
        let id = handle.id();
        if handle.never_began() {
            // Nobody else will note its end.
            self.ends.note(slot);
        }
        match self.vacant.pop() {
            Some(slot) => self.handles[slot] = Some(handle),
            None => self.handles.push(Some(handle)),
        }
        id
    }

    /// Waits for the next task to end, and gives its id and outcome; `None` if the set is empty.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: an outcome is taken only when it is given.
    pub async fn join_next(&mut self) -> Option<(TaskId, Result<T, JoinError>)> {
        future::poll_fn(|cx| self.poll_join_next(cx)).await
    }

    /// [`join_next`](Self::join_next) for futures that are written by hand. Wakes the task that polled last.
    pub fn poll_join_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(TaskId, Result<T, JoinError>)>> {
        self.ends.begin_poll(cx);
        if let Some(ended) = self.try_join_next() {
            return Poll::Ready(Some(ended));
        }
        if self.is_empty() {
            return Poll::Ready(None);
        }
        if self.ends.set_awaiter(cx.waker()) {
            return Poll::Pending;
        }
        // A member has ended while a foreign waker was cloned. One that is still being told of wakes whoever asks.
        match self.try_join_next() {
            Some(ended) => Poll::Ready(Some(ended)),
            None => Poll::Pending,
        }
    }

    /// Gives the outcome of a task that has ended, if there is one. Never waits.
    pub fn try_join_next(&mut self) -> Option<(TaskId, Result<T, JoinError>)> {
        let slot = self.ends.next_done()?;
        let mut handle = self.handles[slot].take()?;
        match handle.result() {
            Ok(outcome) => {
                self.vacant.push(slot);
                Some((handle.id(), outcome))
            }
            Err(_) => {
                // It is being told of at this moment, by code up the stack.
                self.handles[slot] = Some(handle);
                self.ends.note(slot);
                None
            }
        }
    }

    /// Cancels the task with this id. Returns `false` if it is none of the set's, or has ended. Its outcome, that it was
    /// cancelled, comes like any other. Takes time in proportion to the tasks in the set.
    pub fn cancel(&self, id: TaskId) -> bool {
        self.handles
            .iter()
            .flatten()
            .find(|handle| handle.id() == id)
            .is_some_and(JoinHandle::cancel)
    }

    /// Cancels all tasks that have not ended: all are gone when this returns, but for one that calls it. Their outcomes come
    /// like any others.
    #[doc(alias = "abort_all")]
    pub fn cancel_all(&self) {
        self.ends.cancel_members(CANCELLED);
    }

    /// Lets all tasks go on without the set. Outcomes that were not taken are dropped, and failures among them reported; so
    /// are those of the tasks that are let go, as for any task without a handle.
    pub fn detach_all(mut self) {
        self.ends.let_go();
        for handle in self.handles.drain(..) {
            // An outcome that nobody took goes with its handle, contained there.
            drop(handle);
        }
    }

    /// How many tasks there are whose outcomes have not been taken.
    pub fn len(&self) -> usize {
        self.handles.len() - self.vacant.len()
    }

    /// Whether every outcome has been taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bounds how many of the tasks run at once. Those beyond the limit wait for their first poll until others have ended.
    ///
    /// # Panics
    ///
    /// If `tasks` is 0.
    #[track_caller]
    pub fn limit(&self, tasks: usize) -> &Self {
        self.ends.set_limit(tasks);
        self
    }
}

impl<T: 'static, E> JoinSet<Result<T, E>>
where
    E: Display + Debug + 'static,
{
    /// Spawns a task into the set whose `Err` is a failure: one that is not taken before the set is dropped is reported.
    #[track_caller]
    pub fn spawn_fallible<F>(&mut self, future: F) -> TaskId
    where
        F: Future<Output = Result<T, E>> + 'static,
    {
        self.insert::<F, Fallible>(future, None, Location::caller())
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.ends.close();
        // Then the handles go, which tell what nobody took.
    }
}

impl<T> Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet")
            .field("len", &(self.handles.len() - self.vacant.len()))
            .finish_non_exhaustive()
    }
}
