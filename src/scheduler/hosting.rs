//! Hosts: who drives this executor from outside, and how they are told that there is something to do.
//!
//! A host loop has one *hook* ([`Executor::on_wake`](crate::Executor::on_wake)). Each `run_until` is a *guest* of some other
//! executor: it has a root, and the waker of whoever polls it. The endpoint knows one waker, made here, that tells them all:
//! each of them can do the work, and any of them may be gone without having said so.
//!
//! - **G1** Whoever turns the endpoint's token on tells all.
//! - **G2** A drive that ends with something left to do tells the guests, since what it leaves may be what their roots wait
//!   for. A guest whose root was woken is told in any case.
//! - **G3** A guest that waits while timers are armed has an *alarm* set: at the nearest deadline the endpoint is notified, by
//!   the host's own timers if the host is an executor of ours, else by the timer thread. There is one an executor.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use crate::arena::roots::Root;
use crate::remote::alarm;
use crate::remote::endpoint::Endpoint;
use crate::remote::outer::Outer;
use crate::timer::TimerId;
use crate::unwind::{catch, catch_drop};

use super::Scheduler;
use super::timing::Alarm;

/// A `run_until` that has begun.
pub(crate) struct Guest {
    /// The key of its root.
    root: usize,
    outer: Arc<Outer>,
    endpoint: &'static Endpoint,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Hosts {
    hook: RefCell<Option<Waker>>,
    guests: RefCell<Vec<Rc<Guest>>>,
    /// There are guests.
    visited: Cell<bool>,
    alarm: RefCell<Option<SetAlarm>>,
}

/// An alarm that was set for a deadline, and has gone off if that has passed.
struct SetAlarm {
    deadline: Instant,
    by: By,
}

enum By {
    Thread,
    Host(Weak<Scheduler>, TimerId),
}

/// A host's wake hook. Neither calling nor dropping it panics: it happens on whichever thread wakes last.
struct Hook<F: Fn()> {
    call: Option<F>,
    endpoint: &'static Endpoint,
}

impl<F: Fn()> Hook<F> {
    fn call(&self) {
        // User code: the wake hook.
        if let Err(panic) = catch(|| self.call.as_ref().map(|call| call())) {
            self.endpoint.hook_panicked(panic.into_payload());
        }
    }
}

impl<F: Fn()> Drop for Hook<F> {
    fn drop(&mut self) {
        // User code: Drop of the wake hook's captures.
        if let Err(panic) = catch_drop(self.call.take()) {
            self.endpoint.hook_panicked(panic.into_payload());
        }
    }
}

impl Guest {
    /// Sets whom to wake when there is something to do (O1).
    ///
    /// User code: clone of a foreign waker; a panic is that of whoever polls.
    pub(crate) fn set_outer(&self, waker: &Waker) {
        let old = self.outer.set(waker);
        // User code: Drop of a foreign waker.
        if let Err(panic) = catch_drop(old) {
            self.endpoint.hook_panicked(panic.into_payload());
        }
    }

    /// Asks for another turn.
    pub(crate) fn tell(&self) {
        tell(&self.outer, self.endpoint);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // User code: Drop of a foreign waker.
        if let Err(panic) = catch_drop(self.outer.take()) {
            self.endpoint.hook_panicked(panic.into_payload());
        }
    }
}

/// Wakes whoever polls a guest. Any thread.
fn tell(outer: &Outer, endpoint: &Endpoint) {
    if let Some(waker) = outer.take() {
        // User code: a foreign waker.
        if let Err(panic) = catch(|| waker.wake()) {
            endpoint.hook_panicked(panic.into_payload());
        }
    }
}

impl Scheduler {
    /// Sets the host loop's hook.
    pub(crate) fn set_hook(&self, hook: impl Fn() + Send + Sync + 'static) {
        let hook = Hook {
            call: Some(hook),
            endpoint: self.arena.endpoint(),
        };
        let hook = waker_fn::waker_fn(move || hook.call());
        let old = self.hosts.hook.replace(Some(hook));
        self.publish_hosts();
        // User code: Drop of the hook's captures, which contains itself.
        drop(old);
    }

    /// Nobody is to come back for an executor that is gone.
    pub(super) fn dismiss_hosts(&self) {
        let hook = self.hosts.hook.take();
        let guests = self.hosts.guests.take();
        self.publish_hosts();
        self.clear_alarm();
        // User code: Drop of the hook's captures and of foreign wakers, which contain themselves.
        drop((hook, guests));
    }

    /// Has the endpoint wake those that there are now.
    fn publish_hosts(&self) {
        let endpoint = self.arena.endpoint();
        let hook = self.hosts.hook.borrow().clone();
        let outers: Vec<Arc<Outer>> = {
            let guests = self.hosts.guests.borrow();
            self.hosts.visited.set(!guests.is_empty());
            guests
                .iter()
                .map(|guest| Arc::clone(&guest.outer))
                .collect()
        };
        if outers.is_empty() {
            return endpoint.set_host(hook);
        }
        endpoint.set_host(Some(waker_fn::waker_fn(move || {
            if let Some(hook) = &hook {
                hook.wake_by_ref();
            }
            for outer in &outers {
                tell(outer, endpoint);
            }
        })));
    }

    /// A `run_until` begins.
    pub(crate) fn welcome(&self, root: &Root<'_>) -> Rc<Guest> {
        let guest = Rc::new(Guest {
            root: root.key(),
            outer: Arc::new(Outer::new()),
            endpoint: self.arena.endpoint(),
        });
        self.hosts.guests.borrow_mut().push(Rc::clone(&guest));
        self.publish_hosts();
        guest
    }

    /// A `run_until` ends. What it leaves, the others are told.
    pub(crate) fn see_off(&self, guest: &Rc<Guest>) {
        self.hosts
            .guests
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, guest));
        self.publish_hosts();
        if !self.hosts.visited.get() {
            self.clear_alarm();
        }
        self.tell_hosts();
    }

    /// A drive has ended whose caller is told nothing of what it leaves: if that is something, now or at some time, all hosts
    /// are told.
    pub(crate) fn tell_hosts(&self) {
        if !self.has_work() && self.next_deadline().is_none() {
            return self.tell_guests(false);
        }
        let hook = self.hosts.hook.borrow().clone();
        if let Some(hook) = hook {
            // User code: the wake hook, which contains itself.
            hook.wake();
        }
        self.tell_guests(true);
    }

    /// A drive has ended (G2). To be called outside of it: a host may come back at once.
    #[inline]
    pub(crate) fn drive_ended(&self) {
        if self.hosts.visited.get() {
            self.tell_guests(self.has_work() || !self.is_alarm_good());
        }
    }

    /// Tells the guests whose roots were woken, or all.
    fn tell_guests(&self, all: bool) {
        let mut at = 0;
        loop {
            // A borrow for each: a host may do anything.
            let next = self.hosts.guests.borrow().get(at).map(Rc::clone);
            let Some(guest) = next else { break };
            if all || self.arena.is_woken_root(guest.root) {
                guest.tell();
            }
            at += 1;
        }
    }

    // --- the alarm --------------------------------------------------------------------------------------------------

    /// Sees to it that a guest is told at the nearest deadline (G3). `host` is the executor of ours that polls it, if it is
    /// one.
    ///
    /// # Errors
    ///
    /// What kept the timer thread from being started.
    pub(crate) fn set_alarm(&self, host: Option<&Scheduler>) -> io::Result<()> {
        let Some(deadline) = self.next_deadline() else {
            // One that was set before may go off in vain.
            return Ok(());
        };
        let set = self.hosts.alarm.borrow().as_ref().is_some_and(|set| {
            let same = match (&set.by, host) {
                (By::Thread, None) => true,
                (By::Host(by, _), Some(host)) => std::ptr::eq(by.as_ptr(), host),
                _ => false,
            };
            // An earlier one is good enough: it goes off in vain, once, and then this one is set.
            same && set.deadline <= deadline && set.deadline > self.now()
        });
        if set {
            return Ok(());
        }
        self.clear_alarm();
        let endpoint = self.arena.endpoint();
        let by = match host {
            None => {
                alarm::set(endpoint.id(), deadline)?;
                By::Thread
            }
            Some(host) => By::Host(host.weak(), host.arm(deadline, Alarm::Endpoint(endpoint))),
        };
        self.hosts.alarm.replace(Some(SetAlarm { deadline, by }));
        Ok(())
    }

    /// Whether an alarm will go off no later than the nearest deadline.
    fn is_alarm_good(&self) -> bool {
        self.next_deadline().is_none_or(|deadline| {
            let alarm = self.hosts.alarm.borrow();
            alarm.as_ref().is_some_and(|set| set.deadline <= deadline)
        })
    }

    fn clear_alarm(&self) {
        let set = self.hosts.alarm.take();
        match set.map(|set| set.by) {
            Some(By::Thread) => alarm::clear(self.arena.endpoint().id()),
            Some(By::Host(host, timer)) => {
                if let Some(host) = host.upgrade() {
                    host.disarm(timer);
                }
            }
            None => {}
        }
    }
}
