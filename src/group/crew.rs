//! A supervisor's tasks, and how they end.
//!
//! A graceful end goes by itself, whoever waits for it: it is carried on by callbacks of the loop, which look when all that
//! were asked have had their turn, when the last that asks no longer does, and at the end of the grace.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::arena::TaskRef;
use crate::completion::{Admission, Awaiter, Custody, End, Group, KeptFailure};
use crate::context::{self, ExceptionHandler, LocalHandle, TaskBuilder};
use crate::driving;
use crate::listeners::Listeners;
use crate::scheduler::shutting::ShutdownReport;
use crate::scheduler::timing::Due;
use crate::task::TaskId;
use crate::timer::TimerId;
use crate::unwind::catch_drop;

use super::members::Members;

/// A supervisor's state, which its tasks keep too.
pub(super) struct Crew {
    this: Weak<Crew>,
    pub(super) members: Members,
    /// A `report::Installed`.
    handler: RefCell<Option<Rc<dyn Any>>>,
    phase: Cell<Phase>,
    /// A look is on its way.
    looking: Cell<bool>,
    deadline: Cell<Option<Instant>>,
    /// The look at the end of the grace.
    alarm: Cell<Option<(TaskRef, Option<TimerId>)>>,
    round: Cell<Round>,
    /// Some have come since the last look, and have not had their turn.
    newcomers: Cell<bool>,
    report: Cell<ShutdownReport>,
    /// Who waits for the end.
    waiters: RefCell<Listeners>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// All were asked to end, and those that come are.
    Ending,
    /// There were too many rounds of those.
    Refusing,
    /// All were cancelled.
    Closed,
}

/// Those that were there at a moment while the crew is ending, so that it ends.
#[derive(Clone, Copy, Default)]
struct Round {
    /// How many there have been.
    count: usize,
    /// The newest of this one.
    newest: u64,
    /// How many of this one have not ended.
    left: usize,
}

/// After how many rounds of tasks that were spawned meanwhile the next are refused; as in a shutdown of the executor.
const MAX_ROUNDS: usize = 100;

const CLOSED: &str = "the supervisor is closed";

/// A look at how far the end is, by a callback of the loop: when that is called, or else when it is dropped.
struct Look(Weak<Crew>);

impl Drop for Look {
    fn drop(&mut self) {
        if let Some(crew) = self.0.upgrade() {
            crew.look();
        }
    }
}

impl Crew {
    pub(super) fn new(ex: &LocalHandle<'_>) -> Rc<Self> {
        Rc::new_cyclic(|this| Crew {
            this: Weak::clone(this),
            members: Members::new(ex),
            handler: RefCell::default(),
            phase: Cell::new(Phase::Open),
            looking: Cell::new(false),
            deadline: Cell::new(None),
            alarm: Cell::new(None),
            round: Cell::default(),
            newcomers: Cell::new(false),
            report: Cell::default(),
            waiters: RefCell::default(),
        })
    }

    /// Starts a spawn.
    pub(super) fn builder(&self) -> TaskBuilder<'static, 'static> {
        match self.this.upgrade() {
            Some(this) => self.members.builder(this),
            None => unreachable!("it is borrowed from its owner"),
        }
    }

    pub(super) fn set_handler(&self, handler: Option<ExceptionHandler>) {
        let installed = handler.map(|handler| {
            Rc::new(context::installed(self.members.weak(), handler)) as Rc<dyn Any>
        });
        let old = self.handler.replace(installed);
        // User code: Drop of the old handler's captures.
        if let Err(panic) = catch_drop(old) {
            self.members.tell_destructor(panic);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.refusal().is_some()
    }

    /// Asks all to end, and ends them when nobody asks for time any more, at the latest after `grace`.
    #[track_caller]
    pub(super) fn begin_end(&self, grace: Duration) {
        let Some(scheduler) = self.members.scheduler() else {
            return self.phase.set(Phase::Closed);
        };
        // Not a task that drives the executor on which this is called.
        let own = driving::current().is_some_and(|current| Rc::ptr_eq(&current, &scheduler));
        if let (Some(caller), true) = (scheduler.arena().running(), own) {
            // Whoever waits for the end does not keep it from coming.
            if let Some(this) = self.this.upgrade() {
                scheduler.discount_asking(caller, &*this);
            }
        }
        match self.phase.get() {
            Phase::Closed => return,
            Phase::Ending | Phase::Refusing => {}
            Phase::Open => {
                self.phase.set(Phase::Ending);
                self.begin_round(0);
                self.members.request();
                self.look_soon();
            }
        }
        let Some(deadline) = scheduler.now().checked_add(grace) else {
            return;
        };
        if self.deadline.get().is_none_or(|before| deadline < before) {
            self.deadline.set(Some(deadline));
            self.disarm();
            self.alarm.set(self.call(Due::At(deadline)));
        }
    }

    /// Cancels all, now.
    pub(super) fn abort(&self) {
        let before = self.phase.replace(Phase::Closed);
        if before == Phase::Closed && self.members.is_empty() {
            return;
        }
        self.disarm();
        self.members.bury(CLOSED);
        self.members.settle_asking();
        if self.members.is_empty() {
            self.gone();
        }
    }

    /// Whether all have ended and no more can come; if not, the waker of `cx` is woken then.
    pub(super) fn poll_end(
        &self,
        id: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<ShutdownReport> {
        let is_over = || self.phase.get() != Phase::Open && self.members.is_empty();
        if !is_over() {
            if let Some(scheduler) = self.members.scheduler() {
                let id = *id.get_or_insert_with(|| scheduler.new_listener());
                // User code: clone of a foreign waker.
                scheduler.set_listener(&self.waiters, id, cx.waker());
            }
        }
        // Cloning a foreign waker may do anything.
        if is_over() {
            Poll::Ready(self.report.get())
        } else {
            Poll::Pending
        }
    }

    /// Takes a listener of [`poll_end`](Self::poll_end) out.
    pub(super) fn stop_waiting(&self, id: u64) {
        if let Some(scheduler) = self.members.scheduler() {
            scheduler.remove_listener(&self.waiters, id);
        }
    }

    /// Looks whether it is time to cancel what is left.
    fn look(&self) {
        self.looking.set(false);
        match self.phase.get() {
            Phase::Open => return,
            Phase::Closed => {}
            Phase::Ending | Phase::Refusing if self.members.is_empty() => {
                self.phase.set(Phase::Closed);
                self.disarm();
            }
            Phase::Ending | Phase::Refusing if self.is_time_over() => return self.abort(),
            // They have the grace; the look is repeated when the last of them no longer asks.
            Phase::Ending | Phase::Refusing if self.members.is_anybody_asking() => return,
            Phase::Ending if self.newcomers.replace(false) => {
                self.begin_round(self.round.get().count + 1);
                return self.look_soon();
            }
            Phase::Ending | Phase::Refusing => return self.abort(),
        }
        if self.members.is_empty() {
            self.gone();
        }
    }

    fn is_time_over(&self) -> bool {
        match (self.members.scheduler(), self.deadline.get()) {
            (Some(scheduler), Some(deadline)) => deadline <= scheduler.now(),
            (None, _) => true,
            (Some(_), None) => false,
        }
    }

    /// Looks when those that are ready now have had their turn.
    fn look_soon(&self) {
        if !self.looking.replace(true) {
            // Looked at once where no callback is taken any more, as it is dropped then.
            let _ = self.call(Due::Now);
        }
    }

    #[track_caller]
    fn call(&self, due: Due) -> Option<(TaskRef, Option<TimerId>)> {
        let look = Look(Weak::clone(&self.this));
        let scheduler = self.members.scheduler()?;
        scheduler.call(
            self.members.gate(),
            due,
            move || drop(look),
            Location::caller(),
        )
    }

    fn disarm(&self) {
        if let (Some((task, timer)), Some(scheduler)) =
            (self.alarm.take(), self.members.scheduler())
        {
            scheduler.cancel_call(task, timer);
        }
    }

    fn begin_round(&self, count: usize) {
        let newest = self.members.newest().map_or(0, |task| task.get());
        self.round.set(Round {
            count,
            newest,
            left: self.members.len(),
        });
        if count == MAX_ROUNDS && self.phase.get() == Phase::Ending {
            self.phase.set(Phase::Refusing);
        }
    }

    /// All are gone and no more can come.
    fn gone(&self) {
        if let Some(scheduler) = self.members.scheduler() {
            scheduler.wake_listeners(&self.waiters);
        }
        // It may have a clone of the supervisor, and so keep itself alive.
        self.set_handler(None);
    }

    fn count(&self, end: End) {
        let mut report = self.report.get();
        match (end, self.phase.get()) {
            (End::Returned, _) => report.finished += 1,
            (End::Failed, _) => report.failed += 1,
            (End::Cancelled, Phase::Closed) => report.dropped += 1,
            (End::Cancelled, _) => report.cancelled += 1,
        }
        self.report.set(report);
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // One that was set after the end.
        self.set_handler(None);
    }
}

impl Group for Crew {
    fn refusal(&self) -> Option<&'static str> {
        match self.phase.get() {
            Phase::Open | Phase::Ending => None,
            Phase::Refusing | Phase::Closed => Some(CLOSED),
        }
    }

    fn admit(&self, id: TaskId, index: u32) -> Admission {
        let admission = self.members.admit(id, index);
        let ending = self.phase.get() != Phase::Open;
        if ending {
            self.newcomers.set(true);
        }
        Admission {
            requested: ending || admission.requested,
            ..admission
        }
    }

    fn custody(&self) -> Custody {
        Custody::Tell(self.handler.borrow().clone())
    }

    fn asks(&self, asks: bool) -> Option<(TaskId, u32)> {
        let above = self.members.count_asking(asks);
        if self.phase.get() != Phase::Open && !self.members.is_anybody_asking() {
            self.look_soon();
        }
        above
    }

    fn concluded(&self, tag: usize, end: End, _: Option<KeptFailure>) -> Awaiter {
        let member = self.members.strike(tag);
        self.members.release();
        if self.phase.get() == Phase::Open {
            return self.members.awaiter_if_empty();
        }
        self.count(end);
        let mut round = self.round.get();
        if member.is_some_and(|member| member.id.get() <= round.newest) {
            round.left -= 1;
            self.round.set(round);
            if round.left == 0 {
                self.begin_round(round.count + 1);
            }
        }
        if self.members.is_empty() {
            self.look_soon();
        }
        self.members.awaiter_if_empty()
    }
}

/// Waits for the end of a crew.
pub(super) struct Ended {
    pub(super) crew: Rc<Crew>,
    id: Option<u64>,
}

impl Ended {
    pub(super) fn new(crew: Rc<Crew>) -> Self {
        Ended { crew, id: None }
    }
}

impl Future for Ended {
    type Output = ShutdownReport;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ShutdownReport> {
        let this = &mut *self;
        this.crew.poll_end(&mut this.id, cx)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.crew.stop_waiting(id);
        }
    }
}
