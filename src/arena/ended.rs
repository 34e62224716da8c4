//! Tokens of a task whose future is gone and whose outcome is not yet anybody's.

use std::ptr::NonNull;
use std::rc::Rc;

use crate::completion::{Awaiter, End};
use crate::exception::{Exception, Owned};
use crate::task::TaskInfo;
use crate::unwind::{Panic, bury, catch, catch_drop};

use super::record::{info_of, make_extras, reference};
use super::slots::{
    ASKS, BACKGROUND, BORROWS, CALL, CANCELLED, CLAIMED, EXTRAS, FAILED, Header, LATE, MEMBER,
    PINNED, READ, STORED, TOLD, WATCHED,
};
use super::{Arena, Dropped, TaskRef};

impl End {
    #[inline]
    pub(super) fn of(flags: u32) -> Self {
        if flags & FAILED != 0 {
            End::Failed
        } else if flags & CANCELLED != 0 {
            End::Cancelled
        } else {
            End::Returned
        }
    }
}

/// A task that has just ended. To be published or pinned.
#[must_use = "a task that is neither published nor pinned keeps its slot for ever"]
pub(crate) struct Ended<'a> {
    arena: &'a Arena,
    pub(super) slot: NonNull<Header>,
}

impl<'a> Ended<'a> {
    /// # Safety
    ///
    /// The slot is `ENDED`, and the caller has just set `PINNED` for this token.
    #[inline]
    pub(super) unsafe fn new(arena: &'a Arena, slot: NonNull<Header>) -> Self {
        Ended { arena, slot }
    }

    #[inline]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: PINNED keeps the slot occupied (A3), and the arena is borrowed.
        unsafe { self.slot.as_ref() }
    }

    #[inline]
    pub(crate) fn end(&self) -> End {
        End::of(self.header().flags.get())
    }

    /// Whether nothing has to be done but waking a task: no failure, no callback, no hook, no foreign awaiter, nothing to
    /// count.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        !self.header().has(Self::UNPLAIN)
    }

    /// Whether it is [plain](Self::is_plain) now that user code has run since it ended: that may have given up the handle, or
    /// added to the side record.
    #[inline]
    pub(crate) fn is_still_plain(&self) -> bool {
        let header = self.header();
        !header.has(Self::UNPLAIN | LATE) && (header.has(CLAIMED) || !header.has(STORED))
    }

    pub(super) const UNPLAIN: u32 = FAILED | EXTRAS | BACKGROUND | CALL | ASKS | MEMBER | WATCHED;

    /// Makes the outcome of a [plain](Self::is_plain) task takeable, or frees the slot if nobody can take it.
    #[inline]
    pub(crate) fn publish(self) -> Awaiter {
        let header = self.header();
        debug_assert!(self.is_still_plain());
        header.clear(PINNED);
        if header.has(CLAIMED) {
            let key = header.awaiter_key();
            if key == 0 {
                return Awaiter::Nobody;
            }
            header.set_awaiter_key(0);
            return Awaiter::Key(key);
        }
        // Without a claim there is no output: it was dropped as it came (`cell::returned`), and no user code has run since, or
        // it was looked at again (`is_still_plain`).
        self.arena.vacate(self.slot);
        Awaiter::Nobody
    }

    /// Takes the panics that followed the task's own, each to be reported by itself.
    #[cold]
    pub(crate) fn take_also(&mut self) -> Option<Box<Panic>> {
        let header = self.header();
        if header.has(EXTRAS) {
            let also = make_extras(header).borrow_mut().also.take();
            if also.is_some() {
                return also;
            }
        }
        if !header.has(STORED) {
            return None;
        }
        // SAFETY: the table is the cell's own, and the cell holds something. Nobody looks at it: handles look at what is not
        // PINNED, which this is since the task ended (`new`), and this token gives no view.
        unsafe { (header.vtable.get().take_also)(self.slot) }
    }

    /// Keeps the outcome where it is, to be looked at, for as long as it takes.
    #[cold]
    pub(crate) fn pin(self) -> Pinned {
        // SAFETY: the pin passes on; the arena is alive.
        unsafe { Pinned::new(self.arena, self.slot) }
    }
}

/// A task whose outcome may be looked at. Keeps the arena.
#[must_use = "a pinned outcome cannot be taken until it is published"]
pub(crate) struct Pinned {
    arena: Rc<Arena>,
    pub(super) slot: NonNull<Header>,
    /// The pin was given back; the slot may be another task's, or gone.
    settled: bool,
    /// The handle that named the output's type is being dropped up the stack.
    by_handle: bool,
}

impl Pinned {
    /// # Safety
    ///
    /// The slot is `ENDED` and `PINNED`, and the pin passes to this token. `arena` is its arena.
    pub(super) unsafe fn new(arena: &Arena, slot: NonNull<Header>) -> Self {
        Pinned {
            arena: arena.share(),
            slot,
            settled: false,
            by_handle: false,
        }
    }

    fn header(&self) -> &Header {
        // SAFETY: PINNED keeps the slot occupied (A3), and `arena` its memory.
        unsafe { self.slot.as_ref() }
    }

    pub(crate) fn task(&self) -> TaskRef {
        reference(self.header())
    }

    pub(crate) fn info(&self) -> TaskInfo {
        // What has ended waits for nobody.
        info_of(self.header(), false, None)
    }

    pub(crate) fn end(&self) -> End {
        End::of(self.header().flags.get())
    }

    /// What the task failed by; `None` if it did not, or if it was taken meanwhile.
    pub(crate) fn exception(&self) -> Option<Exception<'_>> {
        let header = self.header();
        if !header.has(STORED) || !header.has(FAILED) {
            return None;
        }
        // SAFETY: the table is the cell's own and the cell holds something.
        let failure = unsafe { (header.vtable.get().failure)(self.slot) }?;
        // SAFETY: PINNED keeps it there while `self`, from which the view borrows, lives (A4).
        Some(unsafe { failure.view() })
    }

    /// Moves what a group's member failed by out of the cell, for good: its handle will find that it is gone. `None`: it
    /// holds no failure, or it is no member (any more).
    pub(crate) fn take_failure(&mut self) -> Option<Owned> {
        let header = self.header();
        if !header.has(STORED) || !header.has(FAILED) || !header.has(MEMBER) {
            return None;
        }
        // SAFETY: the table is the cell's own; the cell holds something; `&mut self` excludes views of this token. A handle
        // may go on looking, while the task is pinned again, at what it saw before; but this one was never published, as a
        // publication ends the membership (`settle`), so that no handle has seen anything (A4).
        unsafe { (header.vtable.get().take_failure)(self.slot) }
    }

    /// Whether a handle may still ask for the outcome.
    pub(crate) fn is_claimed(&self) -> bool {
        self.header().has(CLAIMED)
    }

    /// Whether this was a callback, not a task.
    pub(crate) fn is_call(&self) -> bool {
        self.header().has(CALL)
    }

    pub(crate) fn is_background(&self) -> bool {
        self.header().has(BACKGROUND)
    }

    /// Whether the task has ever wanted to know whether it is asked to end.
    pub(crate) fn asked(&self) -> bool {
        self.header().has(ASKS)
    }

    pub(crate) fn is_told(&self) -> bool {
        self.header().has(TOLD)
    }

    pub(crate) fn is_read(&self) -> bool {
        self.header().has(READ)
    }

    pub(crate) fn mark_told(&self) {
        self.header().set(TOLD);
    }

    pub(crate) fn mark_read(&self) {
        self.header().set(READ);
    }

    /// Makes the outcome takeable; where nobody can take it, drops it and frees the slot. Gives who waits, and the
    /// panic that dropping started.
    pub(crate) fn publish(mut self) -> (Awaiter, Dropped) {
        self.settle()
    }

    /// Whether what is held may borrow from an `'env` that may be over (A5). An output is safe to drop while the executor
    /// is driven, or in the drop of the `JoinHandle<T>` that names its type, which settles at once
    /// ([`publish_for_handle`](Self::publish_for_handle)). What a task failed by is `'static`.
    fn may_outlive_env(&self) -> bool {
        let header = self.header();
        header.has(BORROWS) && !header.has(FAILED) && !self.arena.is_driven() && !self.by_handle
    }

    /// [`publish`](Self::publish), in the drop of the handle that gave the claim up.
    pub(crate) fn publish_for_handle(mut self) -> (Awaiter, Dropped) {
        self.by_handle = true;
        self.settle()
    }

    fn settle(&mut self) -> (Awaiter, Dropped) {
        self.settled = true;
        // It was ended before, but for the safety net below. From here on handles look: `take_failure` relies on this.
        // User code: Drop of what users gave the group, if this is its last owner.
        if let Err(panic) = catch_drop(self.take_membership()) {
            drop(bury(panic));
        }
        let header = self.header();
        if header.has(CLAIMED) {
            header.clear(PINNED);
            return (take_awaiter(header), Ok(()));
        }
        let mut dropped = Ok(());
        if header.has(STORED) && self.may_outlive_env() {
            // Leaked: see `may_outlive_env`. The loop, and the handle's own drop, never come here.
            header.clear(STORED);
        }
        if header.has(STORED) {
            // User code: Drop of the output, the error or the panic payload.
            // SAFETY: the table is the cell's own, and nobody looks: there is no claim, and this token is being spent.
            dropped = catch(|| unsafe { (header.vtable.get().drop_held)(self.slot) });
        }
        header.clear(PINNED);
        let awaiter = match take_awaiter(header) {
            // Whoever has awaited the handle has dropped it since.
            Awaiter::Key(_) => Awaiter::Nobody,
            other => other,
        };
        self.arena.vacate(self.slot);
        (awaiter, dropped)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        // Not published: a safety net for teardown. Nothing is told any more.
        let (awaiter, dropped) = self.settle();
        // User code: Drop of a foreign waker.
        for panic in [catch_drop(awaiter), dropped]
            .into_iter()
            .filter_map(Result::err)
        {
            drop(bury(panic));
        }
    }
}

pub(super) fn take_awaiter(header: &Header) -> Awaiter {
    if header.has(EXTRAS) {
        return std::mem::take(&mut make_extras(header).borrow_mut().awaiter);
    }
    match header.awaiter_key() {
        0 => Awaiter::Nobody,
        key => {
            header.set_awaiter_key(0);
            Awaiter::Key(key)
        }
    }
}
