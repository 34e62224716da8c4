//! The handle of a task that was spawned from another thread.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::arena::TaskRef;
use crate::arena::claim::Taken;
use crate::driving;
use crate::error::{self, JoinError};
use crate::home;
use crate::key::Key;
use crate::park::Parker;
use crate::remote::endpoint::CancelRequest;
use crate::remote::handover::{Asked, Handover, Take};
use crate::report::{self};
use crate::scheduler::messages::{Message, Messages};
use crate::task::{Name, TaskId};
use crate::unwind::{Panic, catch_drop};
use crate::waker;

/// A task's handle on another thread than its executor's: awaits its outcome or blocks for it, and cancels it.
///
/// `Send` where the output is, and a future that any executor can await. **Dropping it detaches the task**, as dropping a
/// [`JoinHandle`](crate::JoinHandle) does. A failure that nobody has read by then, and of which no handler has been told
/// ([`ReportPolicy::IfUnretrieved`](crate::ReportPolicy::IfUnretrieved)), is reported on the executor's thread.
///
/// The output crosses threads; the future, and whatever else the task holds, does not. An output that nobody takes is
/// dropped with the handle, on whichever thread that is; with the task, on its own thread, if the handle went first.
///
/// A handle may outlive its executor: a task that had not finished then reads as cancelled.
///
/// # Examples
///
/// ```
/// use std::rc::Rc;
/// use mainstay::Executor;
///
/// let ex = Executor::new();
/// let spawner = ex.spawner();
/// let thread = std::thread::spawn(move || {
///     // The closure is made here and called there, so what it makes need not be `Send`.
///     let handle = spawner.spawn(|| async { *Rc::new(42) }).unwrap();
///     let answer = handle.join();
///     spawner.call_soon(|ex| ex.stop()).unwrap();
///     answer
/// });
/// ex.run_forever();
/// assert_eq!(thread.join().unwrap().unwrap(), 42);
/// ```
#[must_use = "dropping the handle detaches the task; say so with `.detach()`, or await or join it"]
pub struct RemoteHandle<T> {
    handover: Arc<Handover<Taken<T>>>,
    inbox: Arc<Messages>,
    id: TaskId,
}

impl<T> RemoteHandle<T> {
    pub(crate) fn new(handover: Arc<Handover<Taken<T>>>, inbox: Arc<Messages>, id: TaskId) -> Self {
        RemoteHandle {
            handover,
            inbox,
            id,
        }
    }

    /// The task's id. It is known from the call to [`Spawner::spawn`](crate::Spawner::spawn) on.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Whether the outcome is there: awaiting or joining will not wait.
    #[doc(alias = "done")]
    pub fn is_finished(&self) -> bool {
        self.handover.is_finished()
    }

    /// Cancels the task. Returns `false` if its outcome is there already.
    ///
    /// It never blocks. The future is dropped on the executor's thread, in its next pass; at once, if this is called there
    /// while the executor is being driven. If the task has not begun, its closure is dropped there, uncalled.
    #[doc(alias = "abort")]
    pub fn cancel(&self) -> bool {
        match self.handover.ask_cancel() {
            Asked::Finished => false,
            Asked::Noted => true,
            Asked::Tell(index) => {
                let endpoint = self.inbox.endpoint();
                let task = TaskRef { id: self.id, index };
                let here = driving::with(endpoint.id(), |scheduler| scheduler.cancel(task, None));
                here.unwrap_or_else(|| {
                    endpoint.cancel(CancelRequest {
                        index,
                        id: self.id.get(),
                        reason: None,
                    });
                    true
                })
            }
        }
    }

    /// Blocks the thread until the task has ended, and gives its outcome.
    ///
    /// It waits with a token of its own: `std::thread::park` and `unpark` elsewhere on the thread neither end the wait nor
    /// are taken by it.
    ///
    /// # Errors
    ///
    /// [`JoinError`], if the task panicked or was cancelled.
    ///
    /// # Panics
    ///
    /// On the executor's own thread, unless the outcome is there: nobody could finish the task meanwhile, and this would
    /// wait for ever. Await the handle instead. Also when the outcome was taken before, by awaiting `&mut` of the handle.
    #[track_caller]
    pub fn join(mut self) -> Result<T, JoinError> {
        match self.wait(None) {
            Some(result) => result,
            None => unreachable!("it waits for ever"),
        }
    }

    /// [`join`](Self::join), for at most `timeout`.
    ///
    /// The task is left alone when the time is up. With [`Duration::ZERO`] this only looks, and may be called on any thread.
    ///
    /// # Errors
    ///
    /// The handle itself, if the task has not ended by then.
    ///
    /// # Panics
    ///
    /// As [`join`](Self::join), unless `timeout` is zero.
    #[track_caller]
    pub fn join_timeout(mut self, timeout: Duration) -> Result<Result<T, JoinError>, Self> {
        if timeout.is_zero() {
            return self.look().ok_or(self);
        }
        // A time beyond the clock's end never comes.
        self.wait(Instant::now().checked_add(timeout)).ok_or(self)
    }

    /// Lets the task run on without a handle. The same as dropping the handle, but said.
    pub fn detach(self) {}

    #[track_caller]
    fn wait(&mut self, deadline: Option<Instant>) -> Option<Result<T, JoinError>> {
        if let Some(result) = self.look() {
            return Some(result);
        }
        assert!(
            home::here() != self.inbox.home(),
            "mainstay: `RemoteHandle::join` was called on the thread of the task's executor, which would wait for itself; \
             await the handle instead"
        );
        let waiter = Arc::new(Waiter(Parker::new()));
        let waker = Waker::from(Arc::clone(&waiter));
        loop {
            if let Poll::Ready(result) = self.poll_with(&waker) {
                return Some(result);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            waiter.0.park(left);
        }
    }

    fn look(&mut self) -> Option<Result<T, JoinError>> {
        match self.taken(self.handover.take()) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    fn poll_with(&mut self, waker: &Waker) -> Poll<Result<T, JoinError>> {
        if self.is_own(waker) {
            return Poll::Ready(Err(JoinError::own_handle(self.id, &Name::counted(self.id))));
        }
        self.taken(self.handover.take_or_wait(waker))
    }

    fn taken(&self, take: Take<Taken<T>>) -> Poll<Result<T, JoinError>> {
        let outcome = match take {
            Take::NotYet => return Poll::Pending,
            Take::Spent => panic!("a RemoteHandle was polled after its outcome had been taken"),
            Take::Outcome { outcome, owed } => {
                if owed {
                    self.inbox.hint(self.id.get());
                }
                outcome
            }
        };
        Poll::Ready(error::outcome(self.id, &Name::counted(self.id), outcome))
    }

    /// Whether the task awaits itself.
    fn is_own(&self, waker: &Waker) -> bool {
        let (Some(key), Some(index)) = (waker::key_of(waker), self.handover.index()) else {
            return false;
        };
        Key::<usize>::new(self.inbox.endpoint().id(), self.id.get(), index).word() == key
    }
}

/// A thread that waits.
struct Waiter(Parker);

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<T> Future for RemoteHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    ///
    /// If the outcome was taken before.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_with(cx.waker())
    }
}

impl<T> Unpin for RemoteHandle<T> {}

impl<T> Drop for RemoteHandle<T> {
    fn drop(&mut self) {
        let leftover = self.handover.abandon();
        if leftover.owed {
            self.inbox.hint(self.id.get());
        }
        // One by one: two that panic in one drop would abort.
        // User code: Drop of a foreign waker, and of the outcome.
        for dropped in [catch_drop(leftover.waker), catch_drop(leftover.outcome)] {
            if let Err(panic) = dropped {
                tell(&self.inbox, panic);
            }
        }
    }
}

/// A destructor panicked on this thread: reported at home, or here where nobody is at home.
fn tell(inbox: &Messages, panic: Box<Panic>) {
    let Err(refused) = inbox.send(Box::new(Wreck(panic))) else {
        return;
    };
    if let Ok(wreck) = refused.into_any().downcast::<Wreck>() {
        report::default_destructor(wreck.0, None);
    }
}

/// The panic of a destructor that ran on another thread.
struct Wreck(Box<Panic>);

impl Message for Wreck {
    fn run(self: Box<Self>, scheduler: &std::rc::Rc<crate::scheduler::Scheduler>) {
        scheduler.tell_destructor(self.0, None);
    }

    fn end(self: Box<Self>, scheduler: &std::rc::Rc<crate::scheduler::Scheduler>) {
        self.run(scheduler);
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}

impl<T> fmt::Debug for RemoteHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteHandle")
            .field("id", &self.id.get())
            .field("finished", &self.is_finished())
            .finish()
    }
}
