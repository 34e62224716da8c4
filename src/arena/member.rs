//! A group's member: its cell has a place, behind the body, for what it belongs to.
//!
//! With `MEMBER` that place holds a [`Membership`]; it is read in place by nobody but the functions here, which let go of
//! it before anything else runs, and taken out once.

use std::panic::Location;
use std::ptr::NonNull;
use std::rc::Rc;

use crate::completion::{Group, Membership};

use super::cell::Judge;
use super::claim::Claim;
use super::ended::{Ended, Pinned};
use super::owner::Opened;
use super::slots::{CLAIMED, HELD_BACK, Header, MEMBER, QUEUED, REQUESTED};
use super::{Arena, TaskRef};

impl<'env> Opened<'_, 'env> {
    /// Inserts a task as a member of `group`, which takes it in here. It is ready, unless the group holds it back.
    #[inline]
    #[track_caller]
    pub(crate) fn insert_member<F, J>(
        self,
        group: Rc<dyn Group>,
        future: F,
        location: &'static Location<'static>,
    ) -> Claim<F::Output>
    where
        F: Future + 'env,
        J: Judge<F::Output>,
    {
        let identity = self.arena.next_identity();
        let slot = self.take::<F, J, Membership>();
        // SAFETY: a slot of a live page.
        let header = unsafe { slot.as_ref() };
        // Were this to panic, there would be no task, and one vacant slot less to be let.
        let admission = group.admit(identity.id(), header.index());
        let flags = QUEUED | CLAIMED;
        // SAFETY: the slot is vacant still, and of this type's class.
        unsafe { self.move_in::<F, J, Membership>(slot, identity, future, flags, location) };
        // SAFETY: the place is of this type by `occupy`, and nobody was told of it before the flag below.
        unsafe { place(slot).write(Membership::new(group, admission.tag)) };
        header.set(MEMBER);
        if admission.held_back {
            header.set(HELD_BACK);
        }
        if admission.requested {
            header.set(REQUESTED);
        }
        self.enter(slot)
    }
}

impl Arena {
    /// Counts one more who asks on behalf of a member whether it is to end, or (`false`) one less. Gives the group if that
    /// begins or ends the member's asking.
    pub(crate) fn count_asking(&self, task: TaskRef, asks: bool) -> Option<Rc<dyn Group>> {
        look(self.find(task)?, |membership| {
            membership
                .count_asking(asks)
                .then(|| Rc::clone(&membership.group))
        })?
    }

    /// No longer counts those who ask on behalf of a member of `group`. `false`: there are none, or it is no member of that.
    pub(crate) fn discount_asking(&self, task: TaskRef, group: &dyn Group) -> bool {
        self.find(task)
            .and_then(|slot| look(slot, |membership| membership.discount(group)))
            .unwrap_or(false)
    }

    /// Drops a membership that nobody has ended: a safety net for teardown.
    #[cold]
    pub(super) fn drop_membership(&self, slot: NonNull<Header>) {
        drop(take(slot));
    }
}

impl Ended<'_> {
    /// Whether this is a member of a group, and nothing has to be done but telling the group and waking a task.
    #[inline]
    pub(crate) fn is_plain_member(&self) -> bool {
        let header = self.header();
        header.has(MEMBER) && !header.has(Self::UNPLAIN & !MEMBER)
    }

    /// Ends the membership.
    pub(crate) fn take_membership(&self) -> Option<Membership> {
        take(self.slot)
    }
}

impl Pinned {
    /// Ends the membership.
    pub(crate) fn take_membership(&self) -> Option<Membership> {
        take(self.slot)
    }

    /// The group that the task belongs to.
    pub(crate) fn group(&self) -> Option<Rc<dyn Group>> {
        look(self.slot, |membership| Rc::clone(&membership.group))
    }
}

/// Where a member's cell has its membership.
fn place(slot: NonNull<Header>) -> *mut Membership {
    // SAFETY: the callers hold an occupied slot.
    let vtable = unsafe { slot.as_ref() }.vtable.get();
    slot.as_ptr().wrapping_byte_add(vtable.member_offset).cast()
}

/// Looks at a membership, if there is one. No user code runs in `look`.
fn look<R>(slot: NonNull<Header>, look: impl FnOnce(&Membership) -> R) -> Option<R> {
    // SAFETY: the callers hold an occupied slot.
    if !unsafe { slot.as_ref() }.has(MEMBER) {
        return None;
    }
    // SAFETY: with MEMBER it is there, and it is taken out by `take` alone, which does not run meanwhile.
    Some(look(unsafe { &*place(slot) }))
}

/// Takes a membership out.
fn take(slot: NonNull<Header>) -> Option<Membership> {
    // SAFETY: the callers hold an occupied slot.
    let header = unsafe { slot.as_ref() };
    if !header.has(MEMBER) {
        return None;
    }
    header.clear(MEMBER);
    // SAFETY: with MEMBER it was there; the flag is cleared, so that it is not read again.
    Some(unsafe { place(slot).read() })
}
