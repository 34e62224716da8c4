//! Time: the clock, and what is to happen when.
//!
//! The clock is read only where timers are armed, and then at most once in 64 polls and before the loop parks or returns
//! (a read costs as much as three polls). Timers that are due take their place at the end of the run queue.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::arena::TaskRef;
use crate::arena::owner::Gate;
use crate::exception_context::ContextKind;
use crate::locals;
use crate::remote::endpoint::Endpoint;
use crate::timer::{TimerId, Timers};
use crate::unwind::{Panic, catch, catch_drop};
use crate::waker;

use super::Scheduler;

/// What a timer wakes.
#[derive(Debug)]
pub(crate) enum Alarm {
    /// One of ours, as its key.
    Key(usize),
    Foreign(Waker),
    /// An executor that is this one's guest.
    Endpoint(&'static Endpoint),
}

impl Alarm {
    /// User code: clone of a foreign waker.
    pub(crate) fn of(waker: &Waker) -> Self {
        match waker::key_of(waker) {
            Some(key) => Alarm::Key(key),
            None => Alarm::Foreign(waker.clone()),
        }
    }

    /// Whether it would wake what `waker` wakes. No user code.
    pub(crate) fn is_of(&self, waker: &Waker) -> bool {
        match self {
            Alarm::Key(key) => waker::key_of(waker) == Some(*key),
            Alarm::Foreign(own) => own.will_wake(waker),
            Alarm::Endpoint(_) => false,
        }
    }
}

/// An executor's time.
pub(crate) struct Time {
    timers: RefCell<Timers<Alarm>>,
    /// What is being fired; empty but for its room in between.
    due: RefCell<Vec<Alarm>>,
    /// Whether `timers` has any: all that the hot path looks at.
    armed: Cell<bool>,
    /// Polls since the clock was last read.
    since: Cell<usize>,
    /// The time by the virtual clock, if this executor has one.
    virtual_now: Option<Cell<Instant>>,
    /// How long a park may go on beyond a deadline.
    slack: Duration,
}

impl Time {
    pub(super) fn new(virtual_clock: bool, slack: Duration) -> Self {
        Time {
            timers: RefCell::new(Timers::new()),
            due: RefCell::default(),
            armed: Cell::new(false),
            since: Cell::new(0),
            virtual_now: virtual_clock.then(|| Cell::new(Instant::now())),
            // Jumps are exact, and cost nothing.
            slack: if virtual_clock { Duration::ZERO } else { slack },
        }
    }
}

/// When a callback is to be called.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    /// In the next pass.
    Now,
    At(Instant),
    /// Its time is beyond the clock's end.
    Never,
}

/// How many polls may pass before the clock is looked at (P8).
const LOOK_EVERY: usize = 64;

impl Scheduler {
    /// The time by this executor's clock.
    pub(crate) fn now(&self) -> Instant {
        match &self.time.virtual_now {
            Some(now) => now.get(),
            None => Instant::now(),
        }
    }

    /// Moves the virtual clock. `false`: there is none.
    pub(crate) fn advance(&self, by: Duration) -> bool {
        let Some(now) = &self.time.virtual_now else {
            return false;
        };
        now.set(now.get().checked_add(by).unwrap_or(now.get()));
        // What is due now is found by the next look.
        self.time.since.set(LOOK_EVERY);
        self.prod();
        true
    }

    /// The earliest deadline that is armed.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if !self.time.armed.get() {
            return None;
        }
        self.time.timers.borrow().next_deadline()
    }

    /// Whether any timer is armed.
    pub(super) fn is_armed_at_all(&self) -> bool {
        self.time.armed.get()
    }

    /// Arms a timer. Between drives, a nearer deadline than all others is told to the host.
    pub(crate) fn arm(&self, deadline: Instant, alarm: Alarm) -> TimerId {
        let mut timers = self.time.timers.borrow_mut();
        let nearer =
            !self.arena.is_driven() && timers.next_deadline().is_none_or(|next| deadline < next);
        let id = timers.arm(deadline, alarm);
        drop(timers);
        self.time.armed.set(true);
        self.arena.ask_attention();
        if nearer {
            self.prod();
        }
        id
    }

    /// Disarms a timer. `false`: it has fired.
    pub(crate) fn disarm(&self, id: TimerId) -> bool {
        let alarm = {
            let mut timers = self.time.timers.borrow_mut();
            let alarm = timers.disarm(id);
            self.time.armed.set(!timers.is_empty());
            alarm
        };
        let found = alarm.is_some();
        // User code: Drop of a foreign waker.
        if let Err(panic) = catch_drop(alarm) {
            self.tell_destructor(panic, None);
        }
        found
    }

    /// Gives a timer that has yet to fire another deadline. `false`: it has fired.
    pub(crate) fn rearm(&self, id: TimerId, deadline: Instant) -> bool {
        let rearmed = self.time.timers.borrow_mut().rearm(id, deadline);
        if rearmed {
            self.prod();
        }
        rearmed
    }

    /// Gives back the memory of timers that are not armed.
    pub(crate) fn shrink_timers(&self) {
        self.time.timers.borrow_mut().shrink();
        self.time.due.borrow_mut().shrink_to_fit();
    }

    /// Whether a timer has yet to fire; gives it another alarm if `waker` is not the one that it has.
    pub(crate) fn is_armed(&self, id: TimerId, waker: &Waker) -> bool {
        match self.time.timers.borrow_mut().get_mut(id) {
            None => return false,
            Some(alarm) if alarm.is_of(waker) => return true,
            Some(_) => {}
        }
        // User code: clone of a foreign waker.
        let mut alarm = Alarm::of(waker);
        let armed = match self.time.timers.borrow_mut().get_mut(id) {
            Some(armed) => {
                std::mem::swap(armed, &mut alarm);
                true
            }
            // It fired while the waker was cloned.
            None => false,
        };
        // User code: Drop of a foreign waker.
        if let Err(panic) = catch_drop(alarm) {
            self.tell_destructor(panic, None);
        }
        armed
    }

    /// Looks at the clock if timers are armed and 64 polls have been made since the last look.
    #[inline]
    pub(super) fn look_at_clock(&self, polls: usize) {
        if self.time.armed.get() {
            self.look_at_clock_after(polls);
        }
    }

    fn look_at_clock_after(&self, polls: usize) {
        let since = self.time.since.get() + polls;
        self.time.since.set(since);
        if since >= LOOK_EVERY {
            self.fire_due();
        }
    }

    /// Looks at the clock now: before the loop parks or returns.
    pub(crate) fn look_at_clock_now(&self) {
        if self.time.armed.get() {
            self.fire_due();
        }
    }

    /// Wakes what is due, by deadline and then by the order of arming.
    #[cold]
    fn fire_due(&self) {
        self.time.since.set(0);
        let now = self.now();
        // All that is due is taken before any of it is woken: a waker that arms a past deadline again waits for the next
        // look like everybody else.
        let mut due = std::mem::take(&mut *self.time.due.borrow_mut());
        {
            let mut timers = self.time.timers.borrow_mut();
            while let Some((_, _, alarm)) = timers.pop_due(now) {
                due.push(alarm);
            }
            self.time.armed.set(!timers.is_empty());
        }
        for alarm in due.drain(..) {
            match alarm {
                Alarm::Key(key) => waker::wake_key(key),
                // Hosts are called here; what they do is contained where they are.
                Alarm::Endpoint(endpoint) => endpoint.notify(),
                Alarm::Foreign(waker) => {
                    // User code: a foreign waker.
                    if let Err(panic) = catch(|| waker.wake()) {
                        self.tell(ContextKind::Callback, "Panic in a waker", Some(panic), None);
                    }
                }
            }
        }
        // Kept for the next time, so that firing allocates nothing in the steady state.
        self.time.due.replace(due);
    }

    /// Whether this executor has a clock of its own, which jumps.
    pub(crate) fn has_virtual_clock(&self) -> bool {
        self.time.virtual_now.is_some()
    }

    /// Jumps to the next deadline, if there is one and the clock is virtual.
    pub(crate) fn jump(&self) -> bool {
        let (Some(deadline), Some(now)) = (self.next_deadline(), &self.time.virtual_now) else {
            return false;
        };
        now.set(deadline.max(now.get()));
        self.time.since.set(LOOK_EVERY);
        true
    }

    /// Waits until another thread notifies or the next deadline with its slack, or `limit`, comes; with a virtual clock, jumps
    /// there.
    pub(crate) fn park(&self, limit: Option<Instant>) {
        // A slack beyond the clock's end is for ever.
        let due = self.next_deadline();
        let due = due.and_then(|deadline| deadline.checked_add(self.time.slack));
        let deadline = match (due, limit) {
            (Some(deadline), Some(limit)) => Some(deadline.min(limit)),
            (deadline, limit) => deadline.or(limit),
        };
        // Whatever ends this, time has passed.
        self.time.since.set(LOOK_EVERY);
        let parker = self.arena.endpoint().parker();
        match (deadline, &self.time.virtual_now) {
            (Some(deadline), Some(now)) => now.set(deadline.max(now.get())),
            (Some(deadline), None) => {
                let timeout = deadline.saturating_duration_since(Instant::now());
                if !timeout.is_zero() {
                    parker.park(Some(timeout));
                    self.look_again();
                }
            }
            (None, _) => {
                parker.park(None);
                // The token is spent: it said "look", so the next pass must.
                self.look_again();
            }
        }
    }

    /// The token was spent by a park: the next pass is to look at what it stood for.
    fn look_again(&self) {
        self.must_look.set(true);
        self.arena.ask_attention();
    }

    // --- callbacks --------------------------------------------------------------------------------------------------

    /// Makes a callback.
    #[track_caller]
    pub(crate) fn call<'env, F>(
        &self,
        gate: Gate<'env>,
        due: Due,
        call: F,
        location: &'static Location<'static>,
    ) -> Option<(TaskRef, Option<TimerId>)>
    where
        F: FnOnce() + 'env,
    {
        if locals::is_set() {
            return self.call_inheriting(gate, due, Box::new(call), location);
        }
        self.call_plainly(gate, due, call, location)
    }

    #[track_caller]
    pub(super) fn call_plainly<'env, F>(
        &self,
        gate: Gate<'env>,
        due: Due,
        call: F,
        location: &'static Location<'static>,
    ) -> Option<(TaskRef, Option<TimerId>)>
    where
        F: FnOnce() + 'env,
    {
        if self.takes_no_more() {
            self.drop_refused(gate, call);
            return None;
        }
        if !self.arena.is_driven() {
            self.arena.take_remote_wakes_between_drives();
        }
        let mut call = Some(call);
        let future = std::future::poll_fn(move |_| {
            if let Some(call) = call.take() {
                call();
            }
            std::task::Poll::Ready(())
        });
        let ready = matches!(due, Due::Now);
        // It has an owner: the executor is not gone.
        let opened = self.arena.open(gate, || true)?;
        let (task, key) = opened.insert_call(future, ready, location);
        if self.is_ending() {
            self.bury_late(task, None);
            return None;
        }
        let timer = match due {
            Due::At(at) => Some(self.arm(at, Alarm::Key(key))),
            Due::Now | Due::Never => None,
        };
        if ready {
            self.prod();
        }
        Some((task, timer))
    }

    /// Disarms the timers of all callbacks: they are about to be dropped.
    pub(super) fn disarm_calls(&self) {
        let mut timers = self.time.timers.borrow_mut();
        let disarmed =
            timers.disarm_if(|alarm| matches!(alarm, Alarm::Key(key) if self.arena.is_call(*key)));
        self.time.armed.set(!timers.is_empty());
        drop(timers);
        // Keys: no user code.
        drop(disarmed);
    }

    /// Drops what is armed still, when nothing will fire it any more.
    pub(super) fn drop_alarms(&mut self) -> impl Iterator<Item = Result<(), Box<Panic>>> + use<> {
        // User code: Drop of foreign wakers.
        self.time.timers.get_mut().take_all().map(catch_drop)
    }

    /// Drops a callback uncalled. `false`: it was called, or dropped before.
    pub(crate) fn cancel_call(&self, task: TaskRef, timer: Option<TimerId>) -> bool {
        if self.arena.is_running(task) {
            return false;
        }
        if let Some(timer) = timer {
            self.disarm(timer);
        }
        self.cancel(task, None)
    }
}
