//! Callbacks: plain closures that the loop calls.

use std::fmt;
use std::panic::Location;
use std::rc::Weak;
use std::time::{Duration, Instant};

use crate::arena::TaskRef;
use crate::arena::owner::Gate;
use crate::context::LocalHandle;
use crate::driving;
use crate::scheduler::Scheduler;
use crate::scheduler::timing::Due;
use crate::timer::TimerId;
use crate::unwind::catch_drop;

/// A callback that is to be called. Dropping this cancels nothing.
#[doc(alias = "TimerHandle")]
#[derive(Clone)]
pub struct CallHandle {
    scheduler: Weak<Scheduler>,
    /// `None`: it was never accepted, because the executor was gone.
    call: Option<(TaskRef, Option<TimerId>)>,
    when: Option<Instant>,
}

impl CallHandle {
    #[track_caller]
    pub(crate) fn make<'env>(
        scheduler: &Weak<Scheduler>,
        gate: Gate<'env>,
        when: When,
        call: impl FnOnce() + 'env,
    ) -> Self {
        let Some(live) = scheduler.upgrade() else {
            // User code: Drop of the callback's captures.
            if let Err(panic) = catch_drop(call) {
                driving::tell_destructor(panic, None);
            }
            return CallHandle {
                scheduler: Weak::new(),
                call: None,
                when: None,
            };
        };
        let due = match when {
            When::Soon => Due::Now,
            When::At(at) => Due::At(at),
            When::After(delay) => live.now().checked_add(delay).map_or(Due::Never, Due::At),
        };
        CallHandle {
            scheduler: scheduler.clone(),
            call: live.call(gate, due, call, Location::caller()),
            when: match due {
                Due::At(at) => Some(at),
                Due::Now | Due::Never => None,
            },
        }
    }

    /// Cancels the callback: drops the closure uncalled. Returns `false` if it was called, is being called, or was
    /// dropped before.
    ///
    /// While the executor is being driven the closure is gone when this returns, else the next pass drops it.
    pub fn cancel(&self) -> bool {
        match (self.scheduler.upgrade(), self.call) {
            (Some(scheduler), Some((task, timer))) => scheduler.cancel_call(task, timer),
            _ => false,
        }
    }

    /// When it is to be called, if that was said.
    pub fn when(&self) -> Option<Instant> {
        self.when
    }
}

impl fmt::Debug for CallHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallHandle")
            .field("when", &self.when)
            .finish_non_exhaustive()
    }
}

/// When a callback is to be called.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    Soon,
    After(Duration),
    At(Instant),
}

impl<'env> LocalHandle<'env> {
    /// See [`Executor::call_soon`](crate::Executor::call_soon).
    #[track_caller]
    pub fn call_soon(&self, f: impl FnOnce() + 'env) -> CallHandle {
        CallHandle::make(self.weak(), self.gate(), When::Soon, f)
    }

    /// See [`Executor::call_later`](crate::Executor::call_later).
    #[track_caller]
    pub fn call_later(&self, delay: Duration, f: impl FnOnce() + 'env) -> CallHandle {
        CallHandle::make(self.weak(), self.gate(), When::After(delay), f)
    }

    /// See [`Executor::call_at`](crate::Executor::call_at).
    #[track_caller]
    pub fn call_at(&self, when: Instant, f: impl FnOnce() + 'env) -> CallHandle {
        CallHandle::make(self.weak(), self.gate(), When::At(when), f)
    }
}
