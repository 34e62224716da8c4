//! Handles: what a spawn gives.

use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::task::{Context, Poll, Waker};

use crate::arena::claim::{Claim, Status, Taken};
use crate::cancel_handle::CancelHandle;
use crate::completion::{Awaiter, CallbackId, Completion, End, FINISHED};
use crate::driving;
use crate::error::{ExceptionError, InvalidState, JoinError, outcome};
use crate::exception::Exception;
use crate::report;
use crate::scheduler::Scheduler;
use crate::task::{TaskId, TaskInfo, TaskState};
use crate::unwind::catch_drop;
use crate::waker;

/// A task's handle: awaits its outcome, asks after it, cancels it.
///
/// **Dropping it detaches the task**: the arena owns the task, and it runs on. Its failure is still told, as the
/// executor's [`ReportPolicy`](crate::ReportPolicy) says. To have a drop cancel instead, see
/// [`cancel_on_drop`](Self::cancel_on_drop).
///
/// A handle may outlive its executor: a task that was pending then reads as cancelled, one that had finished gives its
/// outcome.
///
/// # Examples
///
/// ```
/// use mainstay::Executor;
///
/// let ex = Executor::new();
/// let value = ex.block_on(async {
///     let handle = mainstay::spawn(async { 6 * 7 });
///     handle.await
/// });
/// assert_eq!(value.unwrap(), 42);
/// ```
///
/// It stays on the executor's thread, as the output does:
///
/// ```compile_fail
/// fn assert_send<T: Send>() {}
/// assert_send::<mainstay::JoinHandle<u8>>();
/// ```
///
/// A task's panic or cancellation is a [`JoinError`], which works with `?` into `anyhow::Error` and
/// `Box<dyn Error + Send + Sync>`:
///
/// ```
/// use mainstay::Executor;
///
/// # std::panic::set_hook(Box::new(|_| {}));
/// let ex = Executor::new();
/// ex.set_exception_handler(|_, _| {});
/// let result: anyhow::Result<u32> = ex.block_on(async {
///     let handle = mainstay::spawn(async { panic!("no answer") });
///     let value: u32 = handle.await?;
///     Ok(value)
/// });
/// assert!(result.unwrap_err().to_string().contains("no answer"));
/// ```
#[doc(alias = "Task")]
#[must_use = "dropping the handle detaches the task; say so with `.detach()`, or await it"]
pub struct JoinHandle<T> {
    // So that its drop is part of this one's: between the two, what was let go of would be looked at again.
    claim: ManuallyDrop<Claim<T>>,
}

impl<T> JoinHandle<T> {
    #[inline]
    pub(crate) fn new(claim: Claim<T>) -> Self {
        JoinHandle {
            claim: ManuallyDrop::new(claim),
        }
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.claim.id()
    }

    /// The name given at the spawn, or `Task-` and the id.
    #[doc(alias = "get_name")]
    pub fn name(&self) -> String {
        self.claim.name().as_str().to_owned()
    }

    /// Whether the task has ended: its future is gone.
    ///
    /// While its end is being told to the exception handler and the done callbacks this is true already, and the
    /// outcome cannot be taken yet.
    #[doc(alias = "done")]
    pub fn is_finished(&self) -> bool {
        self.claim.has_ended()
    }

    /// Whether the task has ended by being cancelled.
    #[doc(alias = "cancelled")]
    pub fn is_cancelled(&self) -> bool {
        self.claim.end() == Some(End::Cancelled)
    }

    /// Cancels the task: drops its future. Returns `false` if it had already finished.
    ///
    /// While the executor is being driven, the future is gone when the outermost `cancel` (or drop of a future) returns;
    /// a cancel from within another task's destructor is carried out after that destructor. A task that cancels itself
    /// goes right after its current poll. While the executor is not being driven, the next pass drops the future, or the
    /// drop of the executor. Until then this goes on returning `true`, and the first reason stands.
    ///
    /// A failure beats a pending cancel, a pending cancel beats a value: a task that cancels itself and then panics has
    /// failed; one that returns has been cancelled, and its value is dropped. A panic in a destructor of the cancelled
    /// future makes the task failed.
    ///
    /// The task's own handles to other tasks are dropped with it, and detach: cancelling one that awaits another leaves
    /// the other alone.
    #[doc(alias = "abort")]
    pub fn cancel(&self) -> bool {
        self.cancel_for(None)
    }

    /// [`cancel`](Self::cancel), with a reason that [`JoinError::reason`] gives. The first one stands.
    pub fn cancel_with_reason(&self, reason: impl Into<String>) -> bool {
        self.cancel_for(Some(reason.into().into_boxed_str()))
    }

    fn cancel_for(&self, reason: Option<Box<str>>) -> bool {
        if self.claim.has_ended() {
            return false;
        }
        match (self.claim.task(), self.scheduler()) {
            (Some(task), Some(scheduler)) => scheduler.cancel(task, reason),
            _ => false,
        }
    }

    fn scheduler(&self) -> Option<std::rc::Rc<Scheduler>> {
        self.claim.host::<Scheduler>()
    }

    /// Takes the outcome if the task has finished. asyncio's `Task.result()`.
    ///
    /// It is given once: afterwards this is [`InvalidState::Taken`], and awaiting the handle panics. Taking a failure
    /// retrieves it.
    ///
    /// # Errors
    ///
    /// [`InvalidState::Pending`] while there is nothing to take, [`InvalidState::Taken`] when it was taken.
    pub fn result(&mut self) -> Result<Result<T, JoinError>, InvalidState> {
        match self.claim.status() {
            Status::Pending | Status::Finishing => Err(InvalidState::Pending),
            Status::Taken(_) => self
                .take_again()
                .map_or(Err(InvalidState::Taken), |error| Ok(Err(error))),
            Status::Finished(end) => self.take(end).ok_or(InvalidState::Taken),
        }
    }

    /// What the task failed by; `None` if it returned, also when its value has been taken. asyncio's `Task.exception()`.
    ///
    /// A look at a failure retrieves it. The outcome stays where it is, to be awaited or taken.
    ///
    /// # Errors
    ///
    /// [`ExceptionError::Pending`] while the task has not finished, [`ExceptionError::Cancelled`] if it was cancelled,
    /// [`ExceptionError::Taken`] when it failed and the outcome was taken, or the exception by the task's group.
    pub fn exception(&self) -> Result<Option<Exception<'_>>, ExceptionError> {
        match self.claim.status() {
            Status::Pending | Status::Finishing => Err(ExceptionError::Pending),
            Status::Taken(End::Cancelled) | Status::Finished(End::Cancelled) => {
                Err(ExceptionError::Cancelled)
            }
            Status::Taken(End::Failed) => Err(ExceptionError::Taken),
            Status::Taken(End::Returned) | Status::Finished(End::Returned) => Ok(None),
            Status::Finished(End::Failed) => {
                self.read();
                self.claim.failure().map(Some).ok_or(ExceptionError::Taken)
            }
        }
    }

    /// Counts a failure as retrieved, if it is the first look at one that nobody was told of.
    fn read(&self) {
        if self.claim.mark_read() {
            if let Some(scheduler) = self.scheduler() {
                scheduler.count_read();
            }
        }
    }

    /// Adds a callback for the task's end. It is called on the loop, after the step that ended the task and before the
    /// outcome can be taken; in the order of adding, awaiters after all callbacks.
    ///
    /// On a task that has finished, it is called in the next pass. If it panics, that is reported
    /// ([`ContextKind::Callback`](crate::ContextKind::Callback)) and the others still run. When the executor is dropped,
    /// the callbacks of pending tasks run with [`Outcome::Cancelled`](crate::Outcome::Cancelled); one that is added after
    /// that is dropped, uncalled. One that is added after the outcome was taken is called in the next pass of the running
    /// executor, and dropped uncalled where none is running.
    ///
    /// Until a callback that was added to a finished task has been called, the outcome cannot be taken.
    #[track_caller]
    pub fn add_done_callback(
        &self,
        callback: impl FnOnce(&Completion<'_>) + 'static,
    ) -> CallbackId {
        // When the outcome was taken, the slot is another task's, and with it the way to the executor.
        let Some(scheduler) = self.scheduler().or_else(driving::current) else {
            // User code: Drop of the callback's captures.
            if let Err(panic) = catch_drop(callback) {
                report::default_destructor(panic, None);
            }
            return CallbackId(u64::MAX);
        };
        match self.claim.status() {
            Status::Pending => {
                let id = scheduler.new_callback_id();
                if let Some(record) = self.claim.extras() {
                    record.borrow_mut().callbacks.push((id, Box::new(callback)));
                }
                id
            }
            Status::Finishing | Status::Finished(_) | Status::Taken(_) => {
                let end = self.claim.end().unwrap_or(End::Returned);
                let task = self.claim.task();
                let info = task
                    .and_then(|task| scheduler.arena().info(task))
                    .unwrap_or_else(|| {
                        TaskInfo::new(
                            self.id(),
                            self.claim.name(),
                            Location::caller(),
                            TaskState::Running,
                        )
                    });
                scheduler.add_late(task, info, end, Box::new(callback))
            }
        }
    }

    /// Removes a callback of this task. `false`: it is not there, or it is too late because the task has ended and its callbacks are
    /// queued. One that was added after the outcome was taken is found only where an executor is running.
    pub fn remove_done_callback(&self, id: CallbackId) -> bool {
        // As in `add_done_callback`.
        let Some(scheduler) = self.scheduler().or_else(driving::current) else {
            return false;
        };
        let mut removed = None;
        if self.claim.status() == Status::Pending && self.claim.has_extras() {
            if let Some(record) = self.claim.extras() {
                let callbacks = &mut record.borrow_mut().callbacks;
                if let Some(at) = callbacks.iter().position(|(other, _)| *other == id) {
                    removed = Some(callbacks.remove(at).1);
                }
            }
        }
        let removed = removed.or_else(|| scheduler.remove_late(self.id(), id));
        let found = removed.is_some();
        // User code: Drop of the callback's captures.
        if let Err(panic) = catch_drop(removed) {
            scheduler.tell_destructor(panic, None);
        }
        found
    }

    /// A handle that can only cancel, from any thread, any number of them.
    #[doc(alias = "abort_handle")]
    pub fn cancel_handle(&self) -> CancelHandle {
        let ended = self.claim.has_ended();
        let shared = match self.claim.extras() {
            Some(record) if !ended => {
                let mut record = record.borrow_mut();
                Arc::clone(record.finished.get_or_insert_default())
            }
            _ => Arc::new(AtomicU8::new(FINISHED)),
        };
        let index = self.claim.task().map_or(0, |task| task.index);
        CancelHandle::new(shared, self.id(), index, self.claim.endpoint())
    }

    /// Makes a handle whose drop cancels the task.
    #[doc(alias = "AbortOnDropHandle")]
    pub fn cancel_on_drop(self) -> CancelOnDrop<T> {
        CancelOnDrop { handle: self }
    }

    /// Lets the task run on without a handle. The same as dropping the handle, but said.
    pub fn detach(self) {}

    /// Takes the outcome of a finished task.
    #[inline]
    fn take(&mut self, end: End) -> Option<Result<T, JoinError>> {
        if end != End::Returned {
            return self.take_aside(end);
        }
        match self.claim.take()? {
            Taken::Value(value) => Some(Ok(value)),
            Taken::Panic(_) | Taken::Cancelled(_) | Taken::InGroup(_) => {
                unreachable!("it returned")
            }
        }
    }

    #[cold]
    fn take_aside(&mut self, end: End) -> Option<Result<T, JoinError>> {
        if end == End::Failed {
            self.read();
            self.let_go();
        }
        let (id, name) = (self.claim.id(), self.claim.name());
        Some(outcome(id, &name, self.claim.take()?))
    }

    /// A failure keeps the task-local values that it happened under: for as long as it is here to be told.
    fn let_go(&self) {
        if !self.claim.has_extras() {
            return;
        }
        let (Some(scheduler), Some(task)) = (self.scheduler(), self.claim.task()) else {
            return;
        };
        scheduler.let_go_of(task);
    }

    /// A handle of a task that never began is finished without ever having been published.
    fn take_again(&mut self) -> Option<JoinError> {
        let reason = self.claim.take_refusal()?;
        Some(JoinError::cancelled(
            self.claim.id(),
            &self.claim.name(),
            Some(reason.into()),
        ))
    }

    fn pending(&mut self, waker: &Waker) -> Poll<Result<T, JoinError>> {
        match waker::key_of(waker) {
            Some(key) => {
                if self.is_own(key) {
                    return Poll::Ready(Err(JoinError::own_handle(
                        self.claim.id(),
                        &self.claim.name(),
                    )));
                }
                if !self.claim.await_by_key(key) {
                    self.set_awaiter(Awaiter::Key(key));
                }
            }
            None => self.await_by_waker(waker),
        }
        Poll::Pending
    }

    /// Whether the task awaits itself.
    pub(crate) fn is_own(&self, key: usize) -> bool {
        self.claim.key() == Some(key)
    }

    pub(crate) fn own_handle_error(&self) -> JoinError {
        JoinError::own_handle(self.claim.id(), &self.claim.name())
    }

    /// Whether [`result`](Self::result) gives an outcome.
    pub(crate) fn is_takeable(&self) -> bool {
        matches!(self.claim.status(), Status::Finished(_)) || self.claim.is_refused()
    }

    /// Whether the task was refused, and nobody has been told so yet.
    pub(crate) fn never_began(&self) -> bool {
        self.claim.is_refused()
    }

    /// Has `waker` woken when the outcome can be taken, which is not yet so.
    pub(crate) fn wake_when_takeable(&mut self, waker: &Waker) {
        drop(self.pending(waker));
    }

    /// How the task has ended, if it has.
    pub(crate) fn end(&self) -> Option<End> {
        self.claim.end()
    }

    /// What can be said of the task, while its outcome has not been taken.
    pub(crate) fn info(&self) -> Option<TaskInfo> {
        self.scheduler()?.arena().info(self.claim.task()?)
    }

    #[cold]
    fn set_awaiter(&self, awaiter: Awaiter) {
        let Some(record) = self.claim.extras() else {
            return;
        };
        let (old, noted) = {
            let mut record = record.borrow_mut();
            let old = std::mem::replace(&mut record.awaiter, awaiter);
            (old, record.notes.is_some())
        };
        if noted {
            self.note_awaiting();
        }
        // User code: Drop of a foreign waker.
        if let Err(panic) = catch_drop(old) {
            if let Some(scheduler) = self.scheduler() {
                scheduler.tell_destructor(panic, None);
            }
        }
    }

    /// Notes, in debug mode, what the running task waits for.
    #[cold]
    fn note_awaiting(&self) {
        if let (Some(scheduler), Some(task)) = (driving::current(), self.claim.task()) {
            scheduler.note_awaiting(task);
        }
    }

    #[cold]
    fn await_by_waker(&self, waker: &Waker) {
        let known = self
            .claim
            .extras()
            .is_some_and(|record| record.borrow().awaiter.is_foreign(waker));
        if known {
            self.note_awaiting();
        } else {
            // User code: clone of a foreign waker. A panic is that of whoever polls this handle.
            let waker = waker.clone();
            self.set_awaiter(Awaiter::Foreign(waker));
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    ///
    /// If the outcome was taken before.
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(value) = this.claim.take_plain() {
            return Poll::Ready(Ok(value));
        }
        if waker::key_of(cx.waker()).is_some_and(|key| this.claim.await_plain(key)) {
            return Poll::Pending;
        }
        this.poll_aside(cx)
    }
}

impl<T> JoinHandle<T> {
    #[cold]
    #[inline(never)]
    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        let this = self;
        match this.claim.status() {
            Status::Finished(end) => match this.take(end) {
                Some(result) => Poll::Ready(result),
                None => taken(),
            },
            Status::Pending | Status::Finishing => {
                let polled = this.pending(cx.waker());
                match this.claim.status() {
                    // Cloning a foreign waker ended the task, before the clone could be woken.
                    Status::Finished(end) => this.take(end).map_or(polled, Poll::Ready),
                    _ => polled,
                }
            }
            Status::Taken(_) => match this.take_again() {
                Some(error) => Poll::Ready(Err(error)),
                None => taken(),
            },
        }
    }
}

#[cold]
fn taken() -> ! {
    panic!("a JoinHandle was polled after its outcome had been taken")
}

impl<T> Unpin for JoinHandle<T> {}

impl<T> Drop for JoinHandle<T> {
    #[inline]
    fn drop(&mut self) {
        if !self.claim.let_go() {
            if self.claim.has_something() {
                self.give_up();
            }
            self.claim.let_go_aside();
        }
    }
}

impl<T> JoinHandle<T> {
    /// The outcome, or the side record, needs care.
    #[cold]
    fn give_up(&mut self) {
        let scheduler = self.scheduler();
        if let (Some(scheduler), Some(task)) = (&scheduler, self.claim.task()) {
            scheduler.hint_overlooked(task);
        }
        // User code: Drop of a foreign waker.
        if let Err(panic) = catch_drop(self.claim.take_awaiter()) {
            if let Some(scheduler) = &scheduler {
                scheduler.tell_destructor(panic, None);
            }
        }
        let Some(pinned) = self.claim.give_up() else {
            return;
        };
        match scheduler {
            Some(scheduler) => scheduler.given_up(pinned),
            None => drop(pinned),
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("id", &self.id().get())
            .field("name", &self.claim.name().as_str())
            .field("status", &self.claim.status())
            .finish()
    }
}

/// A [`JoinHandle`] whose drop cancels its task. Awaiting it awaits the task.
#[must_use = "dropping this cancels the task"]
pub struct CancelOnDrop<T> {
    handle: JoinHandle<T>,
}

impl<T> CancelOnDrop<T> {
    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.handle.id()
    }

    /// The handle inside, for everything else that it can do.
    pub fn handle(&self) -> &JoinHandle<T> {
        &self.handle
    }
}

impl<T> Future for CancelOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.handle).poll(cx)
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        let _ = self.handle.cancel();
    }
}

impl<T> fmt::Debug for CancelOnDrop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelOnDrop").field(&self.handle).finish()
    }
}
