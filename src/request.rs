//! Being asked to end: the graceful half of cancelling, as a task sees it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use crate::arena::TaskRef;
use crate::driving;
use crate::scheduler::Scheduler;

/// Waits until this task is asked to end by itself: by [`Executor::shutdown`](crate::Executor::shutdown), or by the group
/// that it belongs to.
///
/// A task that is cancelled is dropped where it stands. One that has something to finish first, and needs to `await` for
/// it, waits for this beside its work, and is given time: a shutdown goes on for as long as a task that has ever polled
/// this is live, up to its grace. It is a request: whether and when the task ends is its own affair, until the grace is
/// over.
///
/// It is bound to the task that polls it first, and ready at once if that was asked before. Any number of these may wait
/// in one task. Polled by a task of another kind, or after the task that it is bound to has ended, it means that first task
/// all the same; once that has ended without having been asked, it is pending for good.
///
/// Outside of tasks, in a root or a callback, it is ready when the executor is being shut down, or was since the first
/// poll. No shutdown runs while [`block_on`](crate::Executor::block_on) does, so that in a root of that it is pending for
/// good.
///
/// # Panics
///
/// If it is polled for the first time outside of a running executor.
///
/// # Cancel safety
///
/// Dropping the future loses nothing: a new one is ready at once if the task was asked.
///
/// # Examples
///
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use std::time::Duration;
/// use mainstay::Executor;
///
/// let lines = Rc::new(RefCell::new(Vec::new()));
/// let ex = Executor::builder().virtual_clock().build();
/// let log = Rc::clone(&lines);
/// ex.spawn(async move {
///     mainstay::cancel_requested().await;
///     mainstay::sleep(Duration::from_millis(200)).await; // writes what it has, say
///     log.borrow_mut().push("saved");
/// })
/// .detach();
/// ex.run_until_stalled();
///
/// let report = ex.shutdown(Duration::from_secs(1));
/// assert_eq!(report.finished(), 1);
/// assert_eq!(*lines.borrow(), ["saved"]);
/// ```
#[doc(alias = "CancellationToken")]
#[doc(alias = "CancelledError")]
pub fn cancel_requested() -> impl Future<Output = ()> {
    CancelRequested::new(true)
}

/// See [`cancel_requested`].
pub(crate) struct CancelRequested {
    /// A task that polls this asks; without it, it is only listened to what it is asked.
    asks: bool,
    bound: Bound,
    /// The place in a list of listeners.
    id: Option<u64>,
}

enum Bound {
    /// Not polled yet.
    New,
    Task(Weak<Scheduler>, TaskRef),
    /// No task polled it first: it means the executor, from this many shutdowns on.
    Executor(Weak<Scheduler>, u64),
}

impl CancelRequested {
    /// The same without asking: for a scope that passes the request on.
    pub(crate) fn listening() -> Self {
        CancelRequested::new(false)
    }

    fn new(asks: bool) -> Self {
        CancelRequested {
            asks,
            bound: Bound::New,
            id: None,
        }
    }

    fn bind(&mut self) -> Rc<Scheduler> {
        let scheduler = driving::running("cancel_requested");
        self.bound = match scheduler.arena().running() {
            Some(task) => {
                if self.asks {
                    scheduler.note_asks(task);
                }
                Bound::Task(scheduler.weak(), task)
            }
            None => Bound::Executor(scheduler.weak(), scheduler.shutdowns()),
        };
        scheduler
    }

    fn scheduler(&self) -> Option<Rc<Scheduler>> {
        match &self.bound {
            Bound::New => None,
            Bound::Task(scheduler, _) | Bound::Executor(scheduler, _) => scheduler.upgrade(),
        }
    }
}

impl Future for CancelRequested {
    type Output = ();

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let scheduler = match this.bound {
            Bound::New => this.bind(),
            _ => match this.scheduler() {
                Some(scheduler) => scheduler,
                // Nobody is left who could ask.
                None => return Poll::Pending,
            },
        };
        match this.bound {
            Bound::Task(_, task) => scheduler.poll_request(task, &mut this.id, cx.waker()),
            Bound::Executor(_, since) => scheduler.poll_shutdown(since, &mut this.id, cx.waker()),
            Bound::New => Poll::Pending,
        }
    }
}

impl Drop for CancelRequested {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let Some(scheduler) = self.scheduler() else {
            return;
        };
        match self.bound {
            Bound::Task(_, task) => scheduler.stop_listening(task, id),
            Bound::Executor(..) => scheduler.stop_listening_outside(id),
            Bound::New => {}
        }
    }
}

impl fmt::Debug for CancelRequested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelRequested")
            .field("asks", &self.asks)
            .field("bound", &!matches!(self.bound, Bound::New))
            .finish_non_exhaustive()
    }
}
