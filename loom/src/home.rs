//! The home thread's side of the protocol, as `Scheduler::look_around`, `Arena::take_remote_wakes` and
//! `Executor::park_if_idle` with `Scheduler::park` do it, with a table of tenants for an arena and a closure for a poll.
//!
//! What those change in the order of their steps has to be changed here too: nothing but reading holds the two together.

use std::cell::Cell;

use crate::endpoint::Endpoint;
use crate::key::Key;

/// How many slots an arena of the models has.
pub(crate) const SLOTS: u32 = 3;

/// The generation of the tenant that a slot has when nothing else is said.
pub(crate) const FIRST: u64 = 0;

/// `waker::wake_elsewhere`: a waker of a slot's tenant is called on another thread.
pub(crate) fn wake(endpoint: &Endpoint, key: Key<u64>) {
    endpoint.wake(key.index());
}

/// The key of slot `index`'s tenant of that generation.
pub(crate) fn key(index: u32, generation: u64) -> Key<u64> {
    Key::new(1, generation, index)
}

/// One executor, seen from its own thread.
pub(crate) struct Home<'a> {
    endpoint: &'a Endpoint,
    /// Who lives where, by generation.
    tenants: Cell<[Option<u64>; SLOTS as usize]>,
    /// A park took the token: its message is still to be obeyed.
    must_look: Cell<bool>,
}

impl<'a> Home<'a> {
    /// An executor with a tenant of the first generation in every slot.
    pub(crate) fn new(endpoint: &'a Endpoint) -> Self {
        assert!(endpoint.reserve(SLOTS));
        Home {
            endpoint,
            tenants: Cell::new([Some(FIRST); SLOTS as usize]),
            must_look: Cell::new(false),
        }
    }

    /// Lets slot `index` to the tenant of that generation, or to nobody.
    pub(crate) fn let_to(&self, index: u32, tenant: Option<u64>) {
        let mut tenants = self.tenants.get();
        tenants[index as usize] = tenant;
        self.tenants.set(tenants);
    }

    /// Takes the token and, if it was set, the wakes: the slots whose tenants are now ready, the oldest wake first.
    pub(crate) fn look_around(&self) -> Vec<u32> {
        let mut ready = Vec::new();
        self.look(|index| ready.push(index));
        ready.reverse();
        ready
    }

    /// The same, with each wake applied while the drain goes on, the newest first.
    pub(crate) fn look(&self, apply: impl FnMut(u32)) {
        if self.take_message() {
            self.drain(apply);
        }
    }

    /// Whether there is something to look at: the token, or one that a park took.
    pub(crate) fn take_message(&self) -> bool {
        let token = self.endpoint.parker().take();
        self.must_look.replace(false) || token
    }

    /// Whether a look would find something: what a drive asks before it ends.
    pub(crate) fn has_message(&self) -> bool {
        self.must_look.get() || self.endpoint.parker().is_notified()
    }

    fn drain(&self, mut apply: impl FnMut(u32)) {
        self.endpoint.drain_wakes(|index| {
            // R3: whoever lives there now.
            if self.tenants.get()[index as usize].is_some() {
                apply(index);
            }
        });
    }

    /// Blocks the thread while there is nothing to do.
    pub(crate) fn park_if_idle(&self) {
        let parker = self.endpoint.parker();
        if !parker.is_notified() && !self.must_look.get() {
            parker.park(None);
            // The token is spent: it said "look", so the next look must.
            self.must_look.set(true);
        }
    }

    /// `block_on`: polls what was woken until a poll says that this is enough.
    pub(crate) fn block_on(&self, mut poll: impl FnMut(u32) -> bool) {
        let mut enough = false;
        loop {
            for index in self.look_around() {
                enough |= poll(index);
            }
            if enough {
                return;
            }
            self.park_if_idle();
        }
    }
}
