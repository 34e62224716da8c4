//! Being asked to end: the graceful half of cancelling, as a task sees it.

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
/// in one task. Where another task goes on polling it, it still means the first one; once that has ended, it is pending for
/// good.
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{Future, poll_fn};
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::{Context, Poll, Waker};

    use super::{CancelRequested, cancel_requested};
    use crate::executor::Executor;

    /// Spawns a task that notes when it was asked; gives what it notes in.
    fn listen(ex: &Executor<'static>, asks: bool) -> (crate::arena::TaskRef, Rc<Cell<bool>>) {
        let heard = Rc::new(Cell::new(false));
        let note = Rc::clone(&heard);
        ex.spawn(async move {
            CancelRequested::new(asks).await;
            note.set(true);
        })
        .detach();
        ex.run_until_stalled();
        let task = *ex.scheduler().arena().live().last().unwrap();
        (task, heard)
    }

    // What a group's scope needs: it hears what its task is asked, and the task has not asked by that.
    #[test]
    fn who_only_listens_is_woken_and_does_not_ask() {
        let ex = Executor::new();
        for asks in [true, false] {
            let (task, heard) = listen(&ex, asks);
            let scheduler = ex.scheduler();
            assert_eq!(scheduler.has_asked(task), asks);
            assert_eq!(scheduler.is_anybody_asking(), asks);
            assert!(scheduler.request_cancel(task), "the first request");
            assert!(!scheduler.request_cancel(task), "the second one is none");
            assert_eq!(ex.run_until_stalled().polls, 1);
            assert!(heard.get());
            assert!(!scheduler.request_cancel(task), "it has ended");
            assert!(!scheduler.has_asked(task) && !scheduler.is_anybody_asking());
        }
    }

    // The request goes to one task alone, also from within the loop.
    #[test]
    fn a_request_is_for_one_task() {
        let ex = Executor::new();
        let (first, heard_first) = listen(&ex, true);
        let (_, heard_second) = listen(&ex, true);
        let scheduler = Rc::clone(ex.scheduler());
        ex.call_soon(move || {
            scheduler.request_cancel(first);
        });
        ex.run_until_stalled();
        assert!(heard_first.get() && !heard_second.get());
        assert!(ex.scheduler().is_anybody_asking());
    }

    // A task that has swallowed the request still counts as one that asked.
    #[test]
    fn having_asked_is_for_good() {
        let ex = Executor::new();
        let handle = ex.spawn(async {
            let mut asked = cancel_requested();
            poll_fn(|cx| {
                assert!(Pin::new(&mut asked).poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(asked);
            std::future::pending::<()>().await;
        });
        ex.run_until_stalled();
        let task = ex.scheduler().arena().live()[0];
        ex.scheduler().request_cancel(task);
        ex.run_until_stalled();
        assert!(ex.scheduler().has_asked(task));
        drop(handle.cancel_on_drop());
        ex.run_until_stalled();
        assert!(!ex.scheduler().is_anybody_asking());
    }

    // A destructor may poll one too: the books stay right.
    #[test]
    fn asking_in_a_destructor_is_counted_and_over_with_it() {
        struct Asks;
        impl Drop for Asks {
            fn drop(&mut self) {
                let mut asked = cancel_requested();
                let mut cx = Context::from_waker(Waker::noop());
                assert!(Pin::new(&mut asked).poll(&mut cx).is_pending());
            }
        }
        let ex = Executor::new();
        let handle = ex.spawn(async {
            let _asks = Asks;
            std::future::pending::<()>().await;
        });
        ex.run_until_stalled();
        handle.cancel();
        ex.run_until_stalled();
        assert!(handle.is_cancelled() && !ex.scheduler().is_anybody_asking());
    }
}
