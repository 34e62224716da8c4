//! A root: the future that a drive is for, from its first poll to its drop.

use std::any::Any;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::arena::driven::Driven;
use crate::arena::roots::Root;
use crate::driving;
use crate::exception_context::ContextKind;
use crate::locals::{self, Locals};
use crate::scheduler::Scheduler;
use crate::unwind::{Panic, catch, catch_drop, resume};
use crate::waker;

/// A root on its way.
pub(crate) struct Rooted<'a, F> {
    scheduler: &'a Scheduler,
    /// What the drive is called in messages.
    what: &'a str,
    slot: &'a Root<'a>,
    future: Pin<&'a mut Option<F>>,
    /// What is set where the drive was asked for.
    set: Option<Locals>,
    inherits: bool,
    /// After a polite stop: a root that was woken in the last pass has one more poll to be ready.
    is_last: bool,
}

/// What came of one round of a drive with a root.
pub(crate) struct Round<T> {
    pub(crate) ended: Poll<Driving<T>>,
    /// Polls and callbacks of the pass.
    pub(crate) polls: usize,
}

/// How a drive ended.
pub(crate) enum Driving<T> {
    Finished(T),
    /// The root panicked.
    Panicked(Box<Panic>, Option<Locals>),
    Stopped(Option<Box<dyn Any + Send>>),
}

impl<'a, F: Future> Rooted<'a, F> {
    pub(crate) fn new(
        scheduler: &'a Scheduler,
        what: &'a str,
        slot: &'a Root<'a>,
        future: Pin<&'a mut Option<F>>,
        set: Option<Locals>,
    ) -> Self {
        Rooted {
            scheduler,
            what,
            slot,
            future,
            inherits: set.is_some(),
            set,
            is_last: false,
        }
    }

    /// Whether the next round is the last one, without a pass.
    pub(crate) fn is_last(&self) -> bool {
        self.is_last
    }

    /// The root's poll, if it was woken, and passes until there is something to look at; or one pass of at most `budget`
    /// polls.
    pub(crate) fn round(&mut self, driven: Driven<'_>, budget: Option<usize>) -> Round<F::Output> {
        let scheduler = self.scheduler;
        let ended = |ended| Round {
            ended: Poll::Ready(ended),
            polls: 0,
        };
        // A fatal stop beats the root, which is dropped with all that it has.
        let beaten = self.is_last && scheduler.has_fatal();
        if !beaten && self.slot.take_woken() {
            let timed = scheduler.is_debugging();
            if timed {
                scheduler.root_begins();
            }
            let polled = self.poll();
            if timed {
                scheduler.root_ends(self.what);
            }
            match polled {
                Ok(Poll::Pending) => scheduler.settle(),
                Ok(Poll::Ready(value)) => {
                    scheduler.settle();
                    return ended(finished(scheduler, value));
                }
                Err(panic) => {
                    let noted = scheduler.take_note(&panic);
                    scheduler.settle();
                    scheduler.drop_stop();
                    return ended(Driving::Panicked(panic, noted));
                }
            }
        }
        if self.is_last || scheduler.has_fatal() {
            return ended(Driving::Stopped(scheduler.take_stop()));
        }
        let polls = match budget {
            None => scheduler.passes(driven),
            Some(budget) => scheduler.pass(driven, budget),
        };
        self.is_last = scheduler.is_stopping();
        Round {
            ended: Poll::Pending,
            polls,
        }
    }

    fn poll(&mut self) -> Result<Poll<F::Output>, Box<Panic>> {
        let waker = waker::borrowed(self.slot.key());
        let mut cx = Context::from_waker(&waker);
        if self.inherits {
            locals::exchange(&mut self.set);
        }
        // User code: the root's poll.
        let polled = catch(|| match self.future.as_mut().as_pin_mut() {
            Some(root) => root.poll(&mut cx),
            None => Poll::Pending,
        });
        if self.inherits {
            locals::exchange(&mut self.set);
        }
        polled
    }

    /// Drops the root, inside of the drive, so that what it cancels goes at once, and settles what it leaves.
    pub(crate) fn drop_within(mut self) {
        let mut future = self.future.as_mut();
        // User code: Drop of the root.
        let (dropped, set) = locals::within(self.set.take(), || catch(|| future.set(None)));
        // The caller's scope has it too: nothing of the user's is dropped.
        drop(set);
        if let Err(panic) = dropped {
            self.scheduler.tell(
                ContextKind::Destructor,
                "Panic in the destructor of the root",
                Some(panic),
                None,
            );
        }
        self.scheduler.settle_all();
    }
}

/// The root has its value. A stop that was asked for meanwhile ends with this drive; a fatal one beats the value.
fn finished<T>(scheduler: &Scheduler, value: T) -> Driving<T> {
    if scheduler.has_fatal() {
        // User code: Drop of the root's output.
        if let Err(panic) = catch_drop(value) {
            scheduler.tell_destructor(panic, None);
        }
        return Driving::Stopped(scheduler.take_stop());
    }
    if scheduler.is_stopping() {
        scheduler.take_stop();
    }
    Driving::Finished(value)
}

impl<T> Driving<T> {
    /// The root's value, or the panic that ended the drive.
    #[track_caller]
    pub(crate) fn into_value(self, scheduler: &Scheduler) -> T {
        match self {
            Driving::Finished(value) => value,
            Driving::Panicked(panic, noted) => unwind(scheduler, *panic, noted),
            Driving::Stopped(Some(payload)) => resume_unwind(payload),
            Driving::Stopped(None) => stopped(),
        }
    }
}

/// Goes on with the root's panic, which began where `noted` was set. If this drive is nested in another executor's, it may
/// become the failure of a task there.
#[cold]
pub(crate) fn unwind(scheduler: &Scheduler, panic: Panic, noted: Option<Locals>) -> ! {
    match (noted, driving::current()) {
        (Some(noted), Some(outer)) => outer.note_panic(&panic, noted),
        (noted, _) => scheduler.let_go(noted),
    }
    resume(panic)
}

#[cold]
#[track_caller]
pub(crate) fn stopped() -> ! {
    panic!("mainstay: the executor was stopped before the root finished")
}
