//! Slots: the header in front of every cell, and the states that a task goes through.
//!
//! ```text
//!              1 insert           2 next_ready         4 ready or panic        6 publish            7 taken, or
//!   (vacant) ──────────► Ready ───────────► Running ───────────────► Finishing ─────────► Finished ─► claim dropped
//!                         ▲  ▲               │ │                         ▲                                │
//!                         │  └───────────────┘ │ pending                 │ 5 destroy                      ▼
//!                         │  3 woken while     ▼                         │                      (vacant, other key)
//!                         └───────────────  Waiting ─────────────────────┘
//!                               3 wake
//! ```
//!
//! 1 [`Arena::insert`](super::Arena) · 2 `Driven::next_ready` · 3 `Arena::wake` · 4 `Driven::poll` · 5 `Driven::destroy`
//! · 6 `Ended::publish`, `Pinned::publish` · 7 `Claim::take`, `Claim::drop`.
//!
//! Finishing is `ENDED | PINNED`: the future is gone, the outcome is in the cell, and some code may be looking at it, so
//! that nobody may take or drop it.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::ptr;
use std::rc::Rc;

use crate::completion::Extras;
use crate::key::{ID_ROUNDS, Key};
use crate::task::TaskId;

use super::cell::{VTable, vacant_vtable};

/// The slot's address is in the run queue, exactly once.
pub(super) const QUEUED: u32 = 1 << 0;
/// The future is on the poll stack: being polled, or being dropped. Not set while the slot is the one that
/// [`Front::running`](super::front::Front) names for a poll: [`Arena::is_on_stack`](super::Arena).
pub(super) const RUNNING: u32 = 1 << 1;
/// The future is gone. Also of a vacant slot, so that one look tells whether there is anything to poll.
pub(super) const ENDED: u32 = 1 << 31;
/// A token (`Ended`, `Pinned`) exists: the outcome stays where it is.
pub(super) const PINNED: u32 = 1 << 3;
/// A `Claim` exists: somebody may still ask for the outcome.
pub(super) const CLAIMED: u32 = 1 << 4;
/// The cell holds a value or a panic (`Held`).
pub(super) const STORED: u32 = 1 << 5;
/// What it holds is a panic.
pub(super) const PANICKED: u32 = 1 << 2;
/// How it ended, valid with `ENDED`; neither of the two: it returned.
pub(super) const FAILED: u32 = 1 << 6;
pub(super) const CANCELLED: u32 = 1 << 7;
/// Cancellation was asked for.
pub(super) const CANCEL: u32 = 1 << 8;
/// The future may borrow from the executor's `'env`: it is run or dropped only while the executor is driven.
pub(super) const BORROWS: u32 = 1 << 9;
/// `extra` is a counted pointer to the side record.
pub(super) const EXTRAS: u32 = 1 << 10;
/// A failure that a handler has been told.
pub(super) const TOLD: u32 = 1 << 11;
/// A failure that somebody has read.
pub(super) const READ: u32 = 1 << 12;
/// Spawned with `.background()`.
pub(super) const BACKGROUND: u32 = 1 << 13;
/// The cell has an allocation of its own.
pub(super) const DEDICATED: u32 = 1 << 14;
/// No task but a callback: hidden from listings and counters.
pub(super) const CALL: u32 = 1 << 16;
/// Callbacks wait for the next pass on this finished task.
pub(super) const LATE: u32 = 1 << 17;
/// It was asked to end by itself.
pub(super) const REQUESTED: u32 = 1 << 19;
/// It has wanted to know whether it is asked to.
pub(super) const ASKS: u32 = 1 << 20;
/// It is to be woken when it is asked.
pub(super) const LISTENS: u32 = 1 << 21;
/// Somebody looks on at its end.
pub(super) const WATCHED: u32 = 1 << 24;
/// Vacant, in a page that is about to be given back.
pub(super) const SHED: u32 = 1 << 18;
/// A member of a group that has too many running: not polled until it is released.
pub(super) const HELD_BACK: u32 = 1 << 22;
/// The cell holds a `Membership`: the task belongs to a group.
pub(super) const MEMBER: u32 = 1 << 23;
/// Nobody lives here.
pub(super) const VACANT: u32 = 1 << 15;
/// No task but a driver's root: it has no future here and is never queued (`ENDED`).
pub(super) const ROOT: u32 = 1 << 28;
/// A root that is to be polled.
pub(super) const WOKEN: u32 = 1 << 29;

/// No two flags share a bit.
const _: () = {
    let all = [
        QUEUED, RUNNING, ENDED, PINNED, CLAIMED, STORED, FAILED, CANCELLED, CANCEL, BORROWS,
        EXTRAS, TOLD, READ, BACKGROUND, DEDICATED, CALL, LATE, REQUESTED, ASKS, LISTENS, SHED,
        HELD_BACK, MEMBER, WATCHED, VACANT, ROOT, WOKEN, PANICKED,
    ];
    let (mut seen, mut at) = (0, 0);
    while at < all.len() {
        assert!(seen & all[at] == 0);
        seen |= all[at];
        at += 1;
    }
};

/// What is in front of every cell. 40 bytes on 64-bit targets.
///
/// All fields are `Cell`s, so that `&Header` may be held anywhere on the home thread: nothing ever takes a `&mut`.
#[repr(C)]
pub(super) struct Header {
    /// The tenant's key; in a vacant slot the bare index, which no key equals.
    pub(super) key: Cell<usize>,
    /// The bits of the `TaskId` above those that the key carries as its generation.
    id_high: Cell<u32>,
    pub(super) flags: Cell<u32>,
    pub(super) vtable: Cell<&'static VTable>,
    pub(super) location: Cell<&'static Location<'static>>,
    /// Vacant: the next vacant slot of the class. Else, with `EXTRAS`, the side record; without it, the awaiter's key
    /// as an address without provenance, or null.
    pub(super) extra: Cell<*mut ()>,
}

impl Header {
    #[track_caller]
    pub(super) const fn vacant(index: u32, flags: u32) -> Self {
        Header {
            key: Cell::new(Key::vacant(index)),
            id_high: Cell::new(0),
            flags: Cell::new(VACANT | ENDED | flags),
            vtable: Cell::new(vacant_vtable()),
            location: Cell::new(Location::caller()),
            extra: Cell::new(ptr::null_mut()),
        }
    }

    #[inline]
    pub(super) fn key(&self) -> Key {
        Key::from_word(self.key.get())
    }

    #[inline]
    pub(super) fn index(&self) -> u32 {
        self.key().index()
    }

    /// Gives a vacant slot to a tenant.
    #[inline]
    pub(super) fn occupy(
        &self,
        identity: Identity,
        flags: u32,
        vtable: &'static VTable,
        location: &'static Location<'static>,
    ) {
        // What a vacant slot has for a key is its index.
        self.key.set(identity.key | self.key.get());
        self.id_high.set(identity.id_high);
        self.flags.set(flags);
        self.vtable.set(vtable);
        self.location.set(location);
        self.extra.set(ptr::null_mut());
    }

    #[inline]
    pub(super) fn id(&self) -> TaskId {
        self.identity().id()
    }

    /// Who lives here; the key has the index, too.
    #[inline]
    fn identity(&self) -> Identity {
        Identity {
            key: self.key.get(),
            id_high: self.id_high.get(),
        }
    }

    /// Leaves the slot to nobody; `keep` are flags that stay.
    #[inline]
    pub(super) fn leave(&self, keep: u32) {
        self.key.set(Key::vacant(self.index()));
        self.flags.set(VACANT | ENDED | self.flags.get() & keep);
    }

    #[inline]
    pub(super) fn has(&self, flags: u32) -> bool {
        self.flags.get() & flags != 0
    }

    #[inline]
    pub(super) fn set(&self, flags: u32) {
        self.flags.set(self.flags.get() | flags);
    }

    #[inline]
    pub(super) fn clear(&self, flags: u32) {
        self.flags.set(self.flags.get() & !flags);
    }

    /// The awaiter's key, if there is no side record. 0: none.
    #[inline]
    pub(super) fn awaiter_key(&self) -> usize {
        self.extra.get().addr()
    }

    #[inline]
    pub(super) fn set_awaiter_key(&self, key: usize) {
        debug_assert!(!self.has(EXTRAS));
        self.extra.set(ptr::without_provenance_mut(key));
    }
}

/// Who a slot's tenant is: an id, in the form in which a header has it.
#[derive(Clone, Copy)]
pub(super) struct Identity {
    /// The key, but for the index. The generation is the low part of the id, so that no two tenants of one slot share a key
    /// until 2^24 tasks later.
    pub(super) key: usize,
    /// The rest of the id.
    pub(super) id_high: u32,
}

impl Identity {
    #[expect(clippy::cast_possible_truncation, reason = "ids end at MAX_ID")]
    pub(super) fn new(executor: u32, id: u64) -> Self {
        Identity {
            key: Key::<usize>::new(executor, id, 0).word(),
            id_high: (id / (Key::<usize>::GENERATION_MASK + 1)) as u32,
        }
    }

    #[inline]
    pub(super) fn id(self) -> TaskId {
        let high = u64::from(self.id_high) * (Key::<usize>::GENERATION_MASK + 1);
        TaskId::new(high | Key::from_word(self.key).generation())
    }
}

/// The last id of a task: the generation bits and 32 more, which are not all ones. What is above names roots.
pub(super) const MAX_ID: u64 = (Key::<usize>::GENERATION_MASK + 1) * ID_ROUNDS - 1;

/// The side record as it hangs in `extra`.
pub(super) type SideRecord = Rc<RefCell<Extras>>;

#[cfg(test)]
mod tests {
    use super::{ENDED, Header, Identity, MAX_ID, VACANT, vacant_vtable};
    use crate::task::TaskId;
    use std::panic::Location;
    use std::ptr;

    #[test]
    fn a_header_knows_its_tenants_whole_id_and_nothing_of_the_one_before() {
        let header = Header::vacant(7, 0);
        for id in [1, (1 << 24) - 1, 1 << 24, (1 << 40) + 5, MAX_ID, 2] {
            let identity = Identity::new(3, id);
            header.occupy(identity, 0, vacant_vtable(), Location::caller());
            assert_eq!(header.id(), TaskId::new(id));
            assert_eq!((header.index(), header.key().executor()), (7, 3));
            assert_eq!(header.awaiter_key(), 0);
            header.extra.set(ptr::without_provenance_mut(99));
            header.flags.set(ENDED);
            header.leave(0);
            assert!(header.has(VACANT) && header.index() == 7);
        }
    }
}
