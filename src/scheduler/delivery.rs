//! Bringing outcomes to handles on other threads, and what is owed for them.
//!
//! A task that was spawned from another thread has a claim like any other; it is held not by a handle but by a [`Carrier`],
//! which waits in the task's side record as its awaiter. So such a task takes the same way as all (handler, callbacks,
//! publication), and then its outcome leaves the arena for the [`Handover`].
//!
//! A failure that nobody has been told of by then is *owed*. It stays counted as unread until the handle has read it, has
//! been dropped, or the executor ends; the first two are said by a hint, and looked up in the handover.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use crate::arena::TaskRef;
use crate::arena::cell::Judge;
use crate::arena::claim::{Claim, Taken};
use crate::completion::{Awaiter, Deliver, Delivery, Looked, Owed};
use crate::exception::Exception;
use crate::exception_context::{ContextKind, ExceptionContext};
use crate::locals::Locals;
use crate::remote::handover::{Delivered, Handover, Look};
use crate::report;
use crate::task::{Name, TaskId, TaskInfo, TaskState};
use crate::unwind::catch_drop;

use super::{Phase, Scheduler};

/// An outcome will be delivered, or, if this is dropped before, that the task was cancelled.
pub(crate) struct Promise<T> {
    /// `None`: it was kept.
    handover: Option<Arc<Handover<Taken<T>>>>,
}

impl<T> Promise<T> {
    pub(crate) fn new(handover: &Arc<Handover<Taken<T>>>) -> Self {
        Promise {
            handover: Some(Arc::clone(handover)),
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let Some(handover) = self.handover.take() else {
            return;
        };
        let Delivered::Accepted(Some(waker)) = handover.deliver(Taken::Cancelled(None), false)
        else {
            return;
        };
        report::wake_or_default(waker);
    }
}

/// Carries one task's outcome from its cell to its handover.
struct Carrier<T, J> {
    // Dropped first: a handle that waits is told whatever the claim's drop does.
    promise: Promise<T>,
    claim: Claim<T>,
    info: TaskInfo,
    _judge: PhantomData<J>,
}

impl<T: 'static, J: Judge<T> + 'static> Deliver for Carrier<T, J> {
    fn deliver(mut self: Box<Self>) -> Delivery {
        let mut delivery = Delivery::done(self.info.clone());
        let owed = self.claim.is_unread();
        let (Some(outcome), Some(handover)) = (self.claim.take(), self.promise.handover.take())
        else {
            unreachable!("a carrier is called once, when the outcome can be taken");
        };
        match handover.deliver(outcome, owed) {
            Delivered::Accepted(waker) => delivery.waker = waker,
            Delivered::Left => {}
            // User code: Drop of the output.
            Delivered::Refused(outcome) => delivery.dropped = catch_drop(outcome),
        }
        if owed {
            delivery.owed = Some(Rc::new(Debt::<T, J> {
                handover,
                info: self.info,
                _judge: PhantomData,
            }));
        }
        delivery
    }

    fn task(&self) -> Option<(TaskId, u32)> {
        let task = self.claim.task()?;
        Some((task.id, task.index))
    }

    fn is_held(&self) -> bool {
        self.promise
            .handover
            .as_ref()
            .is_some_and(|handover| handover.is_held())
    }
}

impl<T, J> fmt::Debug for Carrier<T, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier")
            .field("task", &self.info.id())
            .finish_non_exhaustive()
    }
}

/// A failure that is owed, and what was set where it happened.
pub(super) struct Owing {
    owed: Rc<dyn Owed>,
    locals: Option<Locals>,
}

/// A failure in a handover, of which somebody must get to know.
struct Debt<T, J> {
    handover: Arc<Handover<Taken<T>>>,
    info: TaskInfo,
    _judge: PhantomData<J>,
}

impl<T, J: Judge<T>> Debt<T, J> {
    fn show(&self, outcome: &Taken<T>, held: bool, tell: Tell<'_>) {
        let exception = match outcome {
            Taken::Value(value) => match J::failure(value) {
                Some(error) => Exception::error(error),
                None => return,
            },
            Taken::Panic(panic) => Exception::panic(panic),
            Taken::Cancelled(_) | Taken::InGroup(_) => return,
        };
        tell(&self.info, exception, held);
    }
}

type Tell<'a> = &'a mut dyn FnMut(&TaskInfo, Exception<'_>, bool);

impl<T, J: Judge<T>> Owed for Debt<T, J> {
    fn look(&self, last: bool, tell: Tell<'_>) -> Looked {
        match self.handover.look(last) {
            Look::Held => Looked::Held,
            Look::Read => Looked::Read,
            Look::Left(outcome) => {
                self.show(&outcome, false, tell);
                let mut delivery = Delivery::done(self.info.clone());
                // User code: Drop of the failure.
                delivery.dropped = catch_drop(outcome);
                Looked::Told(delivery)
            }
            Look::Shown(outcome) => {
                self.show(&outcome, true, tell);
                let mut delivery = Delivery::done(self.info.clone());
                match self.handover.put_back(outcome) {
                    Ok(waker) => delivery.waker = waker,
                    // User code: Drop of the failure.
                    Err(outcome) => delivery.dropped = catch_drop(outcome),
                }
                Looked::Told(delivery)
            }
        }
    }
}

impl Scheduler {
    /// Spawns a task for a handle elsewhere.
    #[track_caller]
    pub(crate) fn spawn_for<F, J>(
        &self,
        promise: Promise<F::Output>,
        id: TaskId,
        future: F,
        location: &'static Location<'static>,
    ) where
        F: Future + 'static,
        F::Output: 'static,
        J: Judge<F::Output> + 'static,
    {
        if self.takes_no_more() {
            // A shutdown that refuses, after a million others. The promise's drop says that it was cancelled.
            return;
        }
        let Some(claim) = self.arena.insert_as::<F, J>(id, future, location) else {
            return;
        };
        self.counters.spawned.add(1);
        self.counters.live.add(1);
        let (Some(task), Some(record)) = (claim.task(), claim.extras()) else {
            unreachable!("it was inserted just now");
        };
        let handover = promise.handover.clone();
        record.borrow_mut().awaiter = Awaiter::Elsewhere(Box::new(Carrier::<F::Output, J> {
            promise,
            claim,
            info: TaskInfo::new(id, Name::counted(id), location, TaskState::Running),
            _judge: PhantomData,
        }));
        if self.watches_spawns() {
            // Before it can end.
            self.spawned_watched(task, "");
        }
        if handover.is_some_and(|handover| handover.begin(task.index)) {
            // It was cancelled before it began.
            self.cancel(task, None);
        }
        if self.phase.get() != Phase::Open {
            self.spawned_late(Some(task));
        }
    }

    /// Hands an outcome over.
    pub(super) fn deliver(&self, carrier: Box<dyn Deliver>) {
        let mut locals = carrier.task().and_then(|(id, index)| {
            let task = TaskRef { id, index };
            let locals = self.locals_of(task);
            self.let_go_of(task);
            locals
        });
        let mut delivery = carrier.deliver();
        if let Some(owed) = delivery.owed.take() {
            let id = delivery.task.id();
            let locals = locals.take();
            self.owed.borrow_mut().insert(id, Owing { owed, locals });
            // Its handle may be gone already.
            self.look_at(id, false);
        }
        self.let_go(locals);
        self.delivered(delivery);
    }

    fn delivered(&self, delivery: Delivery) {
        if let Err(panic) = delivery.dropped {
            self.tell_destructor(panic, Some(&delivery.task));
        }
        if let Some(waker) = delivery.waker {
            self.wake_foreign(waker, Some(&delivery.task));
        }
    }

    /// Looks at what handles elsewhere have read or left since the last look.
    pub(super) fn take_hints(&self) {
        // As many as there are now (P8).
        for _ in 0..self.inbox.hints() {
            let Some(id) = self.inbox.next_hint() else {
                break;
            };
            self.look_at(TaskId::new(id), false);
        }
    }

    /// Tells of everything that is still owed: the executor ends.
    pub(super) fn tell_all_owed(&self) {
        let ids: Vec<TaskId> = self.owed.borrow().keys().copied().collect();
        for id in ids {
            self.look_at(id, true);
        }
    }

    /// Settles what is owed for a task, if its handle has read it or is gone; in any case, if this is the `last` look.
    fn look_at(&self, id: TaskId, last: bool) {
        let owing = self.owed.borrow_mut().remove(&id);
        let Some(Owing { owed, locals }) = owing else {
            return;
        };
        let looked = self.within(locals.clone(), || {
            owed.look(last, &mut |info, exception, held| {
                self.report_owed(info, exception, held);
            })
        });
        match looked {
            Looked::Held => {
                drop(self.owed.borrow_mut().insert(id, Owing { owed, locals }));
                return;
            }
            Looked::Read => self.count_read(),
            Looked::Told(delivery) => self.delivered(delivery),
        }
        self.let_go(locals);
    }

    fn report_owed(&self, info: &TaskInfo, exception: Exception<'_>, held: bool) {
        self.counters.unread.sub(1);
        self.counters.reported.add(1);
        self.report(
            &ExceptionContext::of(ContextKind::NeverRetrieved, NEVER_RETRIEVED)
                .with_exception(Some(exception))
                .with_task(Some(info.clone()))
                .with_handle_held(held),
        );
    }
}

/// asyncio's headline.
pub(super) const NEVER_RETRIEVED: &str = "Task exception was never retrieved";
