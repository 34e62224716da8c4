//! Running and dropping futures: what may be done while an owner is borrowed up the stack.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::task::Context;

use crate::locals::Which;

use super::cell::{Step, drop_to_tell};
use super::ended::Ended;
use super::record::reference;
use super::slots::{
    BORROWS, CANCEL, CANCELLED, ENDED, FAILED, HELD_BACK, Header, PINNED, QUEUED, RUNNING, VACANT,
};
use super::{Arena, TaskRef};

/// Leave to run and drop futures: an [`Owner`](super::owner::Owner) is borrowed up the stack.
#[derive(Clone, Copy)]
pub(crate) struct Driven<'a> {
    arena: &'a Arena,
    _home: PhantomData<*mut ()>,
}

impl<'a> Driven<'a> {
    /// # Safety
    ///
    /// An `Owner` of this arena is borrowed up the stack for as long as the result is used (A5).
    #[inline]
    pub(super) unsafe fn new(arena: &'a Arena) -> Self {
        Driven {
            arena,
            _home: PhantomData,
        }
    }
}

/// A slot taken off the run queue, to be polled. It is on the poll stack, so that nobody destroys it.
pub(crate) struct Ready<'a> {
    slot: NonNull<Header>,
    arena: &'a Arena,
}

impl Ready<'_> {
    /// The key that the task's waker carries.
    #[inline]
    pub(crate) fn key(&self) -> usize {
        // SAFETY: a ready slot is occupied, and not vacated before it is polled.
        unsafe { self.slot.as_ref() }.key.get()
    }

    pub(crate) fn task(&self) -> TaskRef {
        // SAFETY: as in `key`.
        reference(unsafe { self.slot.as_ref() })
    }

    /// Runs user code before the poll. The task counts as being on the poll stack, so that it is still there afterwards.
    pub(crate) fn keep_while<R>(&self, user: impl FnOnce() -> R) -> R {
        struct Kept<'a>(&'a Ready<'a>, &'a Header);
        impl Drop for Kept<'_> {
            fn drop(&mut self) {
                self.1.clear(RUNNING);
                self.0.arena.front.set_running(Some(self.0.slot));
            }
        }
        // SAFETY: as in `key`; and while RUNNING nobody destroys it.
        let header = unsafe { self.slot.as_ref() };
        header.set(RUNNING);
        // It is not its code that runs.
        self.arena.front.set_running(None);
        let _kept = Kept(self, header);
        user()
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        // Not polled after all (a hook panicked, the pass ended): it waits for its turn again.
        // SAFETY: as in `key`.
        let header = unsafe { self.slot.as_ref() };
        self.arena.front.set_running(None);
        self.arena.front.enqueue(self.slot, header);
    }
}

/// What a poll came to.
pub(crate) enum Polled<'a> {
    Pending,
    /// It returned, and nobody cares.
    Gone,
    /// It returned and its value may be taken. With the key of whoever awaits it, or 0.
    Stored(usize),
    Ended(Ended<'a>),
}

impl<'a> Driven<'a> {
    /// Starts a pass over what is ready now.
    #[inline]
    pub(crate) fn begin_pass(&self) {
        self.arena.front.queue.begin_pass();
    }

    /// Puts what is ready into another order.
    pub(crate) fn shuffle_pass(&self, random: impl FnMut() -> u64) {
        self.arena.front.queue.shuffle(random);
    }

    /// Lets up to so many of what is left of the pass be taken. `false`: nothing is left.
    #[inline]
    pub(crate) fn stretch(&self, most: usize) -> bool {
        self.arena.front.queue.stretch(most)
    }

    /// Goes on with the pass or, if that is over, with a new one, up to so many. `false`: nothing is ready.
    #[inline]
    pub(crate) fn go_on(&self, most: usize) -> bool {
        self.arena.front.queue.go_on(most)
    }

    /// Whether there is nothing to see to but tasks.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        self.arena.front.is_undisturbed() && !self.arena.endpoint.parker().is_notified()
    }

    /// Whether there is more to see to than tasks and roots, as far as this thread knows.
    #[inline]
    pub(crate) fn is_attention_asked(&self) -> bool {
        self.arena.front.is_attention_asked()
    }

    /// Whether nothing is left of the pass.
    #[inline]
    pub(crate) fn is_pass_over(&self) -> bool {
        self.arena.front.queue.is_pass_over()
    }

    /// Takes the next task of the stretch.
    #[inline]
    pub(crate) fn next_ready(&self) -> Option<Ready<'a>> {
        loop {
            let slot = self.arena.front.queue.pop()?;
            // SAFETY: queued slots are valid.
            let header = unsafe { slot.as_ref() };
            debug_assert!(header.has(QUEUED));
            let flags = header.flags.get() ^ QUEUED;
            header.flags.set(flags);
            // Running: its destructor, which runs between two drives, drives. Cancelled: the same, and it is to go after
            // that one, by the hand of whoever asked.
            if flags & (ENDED | HELD_BACK | RUNNING | CANCEL) != 0 {
                self.skip(slot, header);
                continue;
            }
            self.arena.front.set_running(Some(slot));
            return Some(Ready {
                slot,
                arena: self.arena,
            });
        }
    }

    /// A slot came out of the queue in which there is nothing to poll, any more or yet.
    #[cold]
    fn skip(&self, slot: NonNull<Header>, header: &Header) {
        if header.has(VACANT) {
            self.arena.front.queue.remove_limbo();
            self.arena.leave_limbo(slot);
        }
    }

    /// Ends a stretch: nobody is on the poll stack any more. Gives the task that was polled last, if it was cancelled
    /// meanwhile and is to be destroyed.
    ///
    /// To be called before any user code that is not of that task. That a cancelled one is not polled again before this
    /// relies on [`Arena::ask_cancel`] to interrupt the stretch: the next poll would name another task.
    #[inline]
    pub(crate) fn rest(&self) -> Option<TaskRef> {
        let slot = self.arena.front.running()?;
        self.arena.front.set_running(None);
        // SAFETY: the slot of the last poll lives (`Front::forget_vacant`).
        let header = unsafe { slot.as_ref() };
        let flags = header.flags.get();
        (flags & (CANCEL | ENDED) == CANCEL).then(|| reference(header))
    }

    /// Polls a task once.
    #[inline]
    pub(crate) fn poll(&self, ready: Ready<'a>, cx: &mut Context<'_>) -> Polled<'a> {
        let arena = self.arena;
        // Its drop would put it back.
        let slot = ManuallyDrop::new(ready).slot;
        // SAFETY: a ready slot is occupied.
        let header = unsafe { slot.as_ref() };
        arena.front.set_near(slot);
        debug_assert!(arena.front.is_running(slot) && !header.has(ENDED | RUNNING));
        debug_assert!(header.key().executor() == arena.executor());
        // SAFETY: the table is the cell's own; the slot is on the stack through this token alone, so that nobody else has
        // a reference to the future (A2); it is alive because the slot is not ENDED; `'env` is alive (A5).
        let step = unsafe { (header.vtable.get().poll)(slot, cx) };
        // It stays the running one until the next poll or `rest`: nobody can look before. So what is pending costs no
        // more than this comparison; whether it was cancelled is seen in `rest`, as `ask_cancel` ends the stretch.
        if step.is_pending() {
            return Polled::Pending;
        }
        if step.is_unplain() {
            arena.front.set_running(None);
            return self.polled(slot, step);
        }
        if step.is_stored() {
            let awaiter = header.awaiter_key();
            if awaiter != 0 {
                header.set_awaiter_key(0);
            }
            return Polled::Stored(awaiter);
        }
        arena.vacate_plain(slot);
        Polled::Gone
    }

    fn polled(&self, slot: NonNull<Header>, step: Step) -> Polled<'a> {
        // SAFETY: as in `poll`.
        let header = unsafe { slot.as_ref() };
        let flags = header.flags.get();
        // A failure beats a pending cancel, a pending cancel beats a value.
        let end = if step.is_failed() {
            FAILED
        } else if flags & CANCEL != 0 {
            CANCELLED
        } else {
            0
        };
        header.flags.set(flags | ENDED | PINNED | end);
        // SAFETY: the future is gone and this call has just pinned the slot.
        Polled::Ended(unsafe { Ended::new(self.arena, slot) })
    }

    /// Drops a task's future. `None`: it is not there, it has ended, or it is on the poll stack.
    ///
    /// A panicking destructor makes the task failed, else it is cancelled.
    pub(crate) fn destroy(&self, task: TaskRef) -> Option<Ended<'a>> {
        let slot = self.arena.find(task)?;
        // SAFETY: found alive, and `'env` is: this token proves it (A5).
        unsafe { destroy(self.arena, slot) }
    }
}

impl Arena {
    /// [`Driven::destroy`] for a task that borrows nothing: it may be dropped at any time, on this thread. `None` also for
    /// one that may borrow.
    pub(crate) fn destroy_unbound(&self, task: TaskRef) -> Option<Ended<'_>> {
        let slot = self.find(task)?;
        // SAFETY: found alive.
        if unsafe { slot.as_ref() }.has(BORROWS) {
            return None;
        }
        // SAFETY: found alive, and the future borrows nothing (A5).
        unsafe { destroy(self, slot) }
    }
}

/// # Safety
///
/// The slot is occupied, and what its future may borrow is alive (A5).
unsafe fn destroy(arena: &Arena, slot: NonNull<Header>) -> Option<Ended<'_>> {
    // SAFETY: the caller's contract.
    let header = unsafe { slot.as_ref() };
    let front = &arena.front;
    if header.has(ENDED) || arena.is_on_stack(slot, header) {
        return None;
    }
    // Whoever is below on the stack keeps its mark there, now that the front names another.
    let below = front.running();
    // SAFETY: a running slot is occupied (A2).
    let below_header = below.map(|below| unsafe { below.as_ref() });
    let marked = below_header.filter(|below| !below.has(RUNNING));
    if let Some(below) = marked {
        below.set(RUNNING);
    }
    header.set(RUNNING);
    front.set_running(Some(slot));
    // User code: Drop of the future.
    // SAFETY: as in `Driven::poll`: alive, ours alone by RUNNING, and what it borrows is alive by contract (A5).
    let drop = || unsafe { (header.vtable.get().drop_future)(slot) };
    let dropped = drop_to_tell(header, false, Which::Pending, drop);
    front.set_running(below);
    if let Some(below) = marked {
        below.clear(RUNNING);
    }
    let end = match dropped {
        Ok(()) => CANCELLED,
        Err(panic) => {
            // SAFETY: the future is gone, so that the cell holds nothing.
            unsafe { (header.vtable.get().store_panic)(slot, panic) };
            FAILED
        }
    };
    let flags = header.flags.get();
    header.flags.set(flags & !RUNNING | ENDED | PINNED | end);
    // SAFETY: the future is gone and this call has just pinned the slot.
    Some(unsafe { Ended::new(arena, slot) })
}
