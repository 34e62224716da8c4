//! Inserting: a future becomes a task, or a callback, in a slot of its own, with an id that nobody else has.

use std::marker::PhantomData;
use std::ops::Range;
use std::panic::Location;
use std::ptr::NonNull;

use crate::key::Key;
use crate::task::TaskId;
use crate::wide::Wide;

use super::cell::{Judge, Plain, Typed, store_future};
use super::claim::Claim;
use super::owner::{Gate, Opened, foreign_gate};
use super::record::reference;
use super::slots::{self, CALL, CLAIMED, Header, Identity, MAX_ID, QUEUED};
use super::{Arena, TaskRef, pages};

/// Ids are handed out in blocks, so that a spawn is not an atomic operation. All ids of one have the same high part.
const ID_BLOCK: u64 = if Key::<usize>::GENERATION_MASK < 1 << 12 {
    Key::<usize>::GENERATION_MASK + 1
} else {
    1 << 12
};
static NEXT_ID: Wide = Wide::new(1);

impl Arena {
    /// Leave to insert what borrows nothing.
    pub(crate) fn static_gate(&self) -> Gate<'static> {
        Gate {
            serial: self.serial,
            flags: 0,
            _env: PhantomData,
        }
    }

    /// Sees that a gate is of this arena, and that tasks are taken: where it is not [open](Self::is_open), `aside` says so.
    /// `None`: they are not, or the owner is gone, and with it the time when those who live here were counted.
    #[inline]
    pub(crate) fn open<'env>(
        &self,
        gate: Gate<'env>,
        aside: impl FnOnce() -> bool,
    ) -> Option<Opened<'_, 'env>> {
        if gate.serial != self.serial {
            foreign_gate();
        }
        // Open, it is being driven, by its owner.
        if !(self.is_open() || aside() && self.heirs.get().is_none()) {
            return None;
        }
        Some(Opened {
            arena: self,
            flags: gate.flags,
            _env: PhantomData,
        })
    }

    /// Inserts a task whose id was taken before. It is ready. `None`: the owner is gone.
    #[track_caller]
    pub(crate) fn insert_as<F, J>(
        &self,
        id: TaskId,
        future: F,
        location: &'static Location<'static>,
    ) -> Option<Claim<F::Output>>
    where
        F: Future + 'static,
        J: Judge<F::Output>,
    {
        let identity = Identity::new(self.executor(), id.get());
        let opened = self.open(self.static_gate(), || true)?;
        Some(opened.insert_task::<F, J>(identity, future, location))
    }

    #[inline]
    #[track_caller]
    pub(super) fn next_identity(&self) -> Identity {
        let key = self.next_key.get();
        if key == self.last_key.get() {
            return self.next_block();
        }
        // May wrap at the end of a block, where it is not used.
        self.next_key
            .set(key.wrapping_add(Key::<usize>::GENERATION_STEP));
        Identity {
            key,
            id_high: self.id_high.get(),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(super) fn next_block(&self) -> Identity {
        // Up to the next multiple of the block's size, which no high part goes across.
        let ids = claim_ids(|next| ID_BLOCK - next % ID_BLOCK);
        let first = Identity::new(self.executor(), ids.start);
        let count = usize::try_from(ids.end - ids.start).unwrap_or(1);
        self.next_key
            .set(first.key.wrapping_add(Key::<usize>::GENERATION_STEP));
        self.last_key.set(
            first
                .key
                .wrapping_add(count.wrapping_mul(Key::<usize>::GENERATION_STEP)),
        );
        self.id_high.set(first.id_high);
        first
    }
}

impl<'env> Opened<'_, 'env> {
    /// Inserts a task that may borrow from the `'env` of the gate. It is ready.
    #[inline]
    #[track_caller]
    pub(crate) fn insert<F, J>(
        self,
        future: F,
        location: &'static Location<'static>,
    ) -> Claim<F::Output>
    where
        F: Future + 'env,
        J: Judge<F::Output>,
    {
        // What can fail comes first, so that a failure leaves everything as it was.
        let identity = self.arena.next_identity();
        self.insert_task::<F, J>(identity, future, location)
    }

    #[inline]
    #[track_caller]
    pub(super) fn insert_task<F, J>(
        self,
        identity: Identity,
        future: F,
        location: &'static Location<'static>,
    ) -> Claim<F::Output>
    where
        F: Future + 'env,
        J: Judge<F::Output>,
    {
        let slot = self.occupy::<F, J, ()>(identity, future, QUEUED | CLAIMED, location);
        self.enter(slot)
    }

    /// Puts a new task into the run queue, and makes the claim to it.
    #[inline]
    pub(super) fn enter<T>(self, slot: NonNull<Header>) -> Claim<T> {
        self.arena.front.queue.push(slot);
        Claim::new(slot)
    }

    /// Inserts a callback, ready or, without `ready`, to be woken by its key. Nobody holds it.
    #[track_caller]
    pub(crate) fn insert_call<F>(
        self,
        future: F,
        ready: bool,
        location: &'static Location<'static>,
    ) -> (TaskRef, usize)
    where
        F: Future<Output = ()> + 'env,
    {
        let identity = self.arena.next_identity();
        let slot = self.occupy::<F, Plain, ()>(identity, future, CALL, location);
        // SAFETY: just occupied.
        let header = unsafe { slot.as_ref() };
        if ready {
            self.arena.front.enqueue(slot, header);
        }
        (reference(header), header.key.get())
    }

    #[inline]
    #[track_caller]
    pub(super) fn occupy<F, J, M>(
        self,
        identity: Identity,
        future: F,
        flags: u32,
        location: &'static Location<'static>,
    ) -> NonNull<Header>
    where
        F: Future + 'env,
        J: Judge<F::Output>,
    {
        let slot = self.take::<F, J, M>();
        // SAFETY: the slot is vacant, and of this type's class.
        unsafe { self.move_in::<F, J, M>(slot, identity, future, flags, location) };
        slot
    }

    /// A vacant slot for such a task.
    #[inline]
    #[track_caller]
    pub(super) fn take<F, J, M>(&self) -> NonNull<Header>
    where
        F: Future + 'env,
        J: Judge<F::Output>,
    {
        let Arena {
            pages,
            front,
            endpoint,
            ..
        } = self.arena;
        let (class, layout) = (Typed::<F, J, M>::CLASS, Typed::<F, J, M>::LAYOUT);
        pages.take(class, layout, front, endpoint)
    }

    /// # Safety
    ///
    /// The slot came from [`take`](Self::take) for the same types, and is vacant.
    #[inline]
    pub(super) unsafe fn move_in<F, J, M>(
        self,
        slot: NonNull<Header>,
        identity: Identity,
        future: F,
        flags: u32,
        location: &'static Location<'static>,
    ) where
        F: Future + 'env,
        J: Judge<F::Output>,
    {
        // SAFETY: the caller gives a vacant slot of this type's class. The gate is of this arena: either `F: 'static`, or its
        // owner's 'env outlives every time at which the owner is borrowed (`Driven`) and its drop, and BORROWS, which
        // is in the gate's flags, keeps the future untouched at other times (A5).
        unsafe { store_future(slot, future) };
        // SAFETY: a slot of a live page.
        let header = unsafe { slot.as_ref() };
        let dedicated = if Typed::<F, J, M>::CLASS == pages::NO_CLASS {
            slots::DEDICATED
        } else {
            0
        };
        header.occupy(
            identity,
            self.flags | dedicated | flags,
            Typed::<F, J, M>::VTABLE,
            location,
        );
    }
}

/// Takes ids that no executor has, as many as `count` says from where they begin.
#[track_caller]
fn claim_ids(count: impl Fn(u64) -> u64) -> Range<u64> {
    let claimed = NEXT_ID.update(|next| (next <= MAX_ID - ID_BLOCK).then_some(next + count(next)));
    match claimed {
        Ok(first) => first..first + count(first),
        Err(_) => {
            panic!(
                "mainstay: out of task ids: this process has used all of them; the executor is as it was before this spawn"
            )
        }
    }
}

/// An id for a task that is not in an arena yet, or never was.
#[track_caller]
pub(crate) fn fresh_id() -> TaskId {
    TaskId::new(claim_ids(|_| 1).start)
}
