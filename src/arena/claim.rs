//! A handle's right to a task's outcome.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;

use crate::completion::{Awaiter, End, Extras};
use crate::exception::Exception;
use crate::remote::table;
use crate::task::{Name, TaskId};
use crate::unwind::{Panic, bury, catch_drop};

use super::cell::{take_panic, take_value};
use super::ended::Pinned;
use super::front::current_arena;
use super::record::{make_extras, name_of, reference};
use super::slots::{
    BACKGROUND, CANCELLED, CLAIMED, DEDICATED, ENDED, EXTRAS, FAILED, Header, MEMBER, PANICKED,
    PINNED, QUEUED, READ, STORED, TOLD,
};
use super::{Arena, TaskRef};

/// The right to a task's outcome, one word wide. While it lives, the slot stays the task's.
///
/// When the outcome has been taken, the slot is let again, and the word holds what is left to ask for: the id and how the
/// task ended, or, for the few that have a name of their own, a box with that and more.
pub(crate) struct Claim<T> {
    /// The slot (low bits 00); id and end (low bit 1); or a `Box<Remains>` (low bits 10).
    word: NonNull<Header>,
    _output: PhantomData<(T, *mut ())>,
}

/// What is left of a named task when its slot is let again, or of one that never had a slot.
struct Remains {
    id: TaskId,
    name: Name,
    end: End,
    /// Why it never began, if that is so and nobody has been told yet.
    refused: Cell<Option<&'static str>>,
}

const SPENT: usize = 1;
const REMAINS: usize = 2;

/// What a claim can say of its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It has not ended.
    Pending,
    /// It has, and its outcome is being looked at.
    Finishing,
    /// The outcome can be taken.
    Finished(End),
    /// The outcome was taken.
    Taken(End),
}

/// An outcome, out of its cell.
pub(crate) enum Taken<T> {
    /// What the future returned; also the `Err` of a fallible task.
    Value(T),
    Panic(Box<Panic>),
    Cancelled(Option<Box<str>>),
    /// The group has it; this is its message.
    InGroup(Option<Box<str>>),
}

impl<T> Claim<T> {
    #[inline]
    pub(super) fn new(slot: NonNull<Header>) -> Self {
        Claim {
            word: slot,
            _output: PhantomData,
        }
    }

    /// A claim to nothing at all, to be filled.
    fn nothing() -> Self {
        Claim {
            word: NonNull::<Header>::dangling().map_addr(|address| address | SPENT),
            _output: PhantomData,
        }
    }

    /// A claim to nothing: it reads as a task that was cancelled before it began, for this reason.
    pub(crate) fn cancelled(name: Option<Arc<str>>, reason: &'static str) -> Self {
        let id = super::insert::fresh_id();
        let mut claim = Claim::nothing();
        claim.leave(Remains {
            id,
            name: name.map_or_else(|| Name::counted(id), Name::Given),
            end: End::Cancelled,
            refused: Cell::new(Some(reason)),
        });
        claim
    }

    /// Names a task that never began.
    pub(crate) fn set_name(&mut self, name: Arc<str>) {
        if let Some(remains) = self.remains() {
            let (id, end, refused) = (remains.id, remains.end, remains.refused.get());
            *self = Claim::nothing().leaving(Remains {
                id,
                name: Name::Given(name),
                end,
                refused: Cell::new(refused),
            });
        }
    }

    fn leaving(mut self, remains: Remains) -> Self {
        self.leave(remains);
        self
    }

    fn leave(&mut self, remains: Remains) {
        let remains: NonNull<Header> = NonNull::from(Box::leak(Box::new(remains))).cast();
        self.word = remains.map_addr(|address| address | REMAINS);
    }

    fn remains(&self) -> Option<&Remains> {
        if self.word.addr().get() & 3 != REMAINS {
            return None;
        }
        let remains: *const Remains = self
            .word
            .as_ptr()
            .map_addr(|address| address & !REMAINS)
            .cast();
        // SAFETY: with this tag the word came from `leave`, and the box is freed by `Drop` alone.
        Some(unsafe { &*remains })
    }

    #[inline]
    fn header(&self) -> Option<&Header> {
        if self.word.addr().get() & (SPENT | REMAINS) != 0 {
            return None;
        }
        // SAFETY: a word without a tag is the address of a slot that this claim keeps occupied (A3), in an arena that outlives
        // its tenants (`Arena::heirs`).
        Some(unsafe { self.word.as_ref() })
    }

    /// The arena of a slot that is occupied.
    #[inline]
    fn arena(header: &Header) -> NonNull<Arena> {
        let executor = header.key().executor();
        // Nearly always it is the one that is being driven, which saves the way through the table (12 instructions).
        match current_arena(executor) {
            Some(arena) => arena,
            None => Self::arena_by_table(executor),
        }
    }

    #[cold]
    fn arena_by_table(executor: u32) -> NonNull<Arena> {
        let owner = table::endpoint(executor).map_or(ptr::null_mut(), |endpoint| endpoint.owner());
        match NonNull::new(owner.cast()) {
            Some(arena) => arena,
            None => unreachable!("an arena keeps its endpoint for as long as it lives"),
        }
    }

    /// Lets go of a slot for good.
    #[inline]
    fn spend(&mut self, id: TaskId, end: End) {
        if id.get() > (usize::MAX >> 3) as u64 {
            // Only where a word is too narrow for every id.
            return self.leave(Remains {
                id,
                name: Name::counted(id),
                end,
                refused: Cell::new(None),
            });
        }
        let end = match end {
            End::Returned => 0,
            End::Failed => 2,
            End::Cancelled => 4,
        };
        #[expect(clippy::cast_possible_truncation, reason = "checked above")]
        let word = (id.get() as usize) << 3 | end | 1;
        self.word = NonNull::new(ptr::without_provenance_mut(word)).unwrap_or(NonNull::dangling());
    }

    fn spent(&self) -> (TaskId, End) {
        if let Some(remains) = self.remains() {
            return (remains.id, remains.end);
        }
        let word = self.word.addr().get();
        let end = match word & 6 {
            0 => End::Returned,
            2 => End::Failed,
            _ => End::Cancelled,
        };
        (TaskId::new((word >> 3) as u64), end)
    }

    pub(crate) fn id(&self) -> TaskId {
        match self.header() {
            Some(header) => header.id(),
            None => self.spent().0,
        }
    }

    pub(crate) fn name(&self) -> Name {
        match (self.header(), self.remains()) {
            (Some(header), _) => name_of(header),
            (None, Some(remains)) => remains.name.clone(),
            (None, None) => Name::counted(self.spent().0),
        }
    }

    #[inline]
    pub(crate) fn status(&self) -> Status {
        let Some(header) = self.header() else {
            return Status::Taken(self.spent().1);
        };
        let flags = header.flags.get();
        if flags & ENDED == 0 {
            Status::Pending
        } else if flags & PINNED != 0 {
            Status::Finishing
        } else {
            Status::Finished(End::of(flags))
        }
    }

    /// Whether the future is gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.header().is_none_or(|header| header.has(ENDED))
    }

    /// How it ended, if it has.
    pub(crate) fn end(&self) -> Option<End> {
        match self.header() {
            None => Some(self.spent().1),
            Some(header) => header.has(ENDED).then(|| End::of(header.flags.get())),
        }
    }

    /// The task, while its slot is ours.
    pub(crate) fn task(&self) -> Option<TaskRef> {
        self.header().map(reference)
    }

    /// Takes whoever awaits the outcome: nobody will.
    pub(crate) fn take_awaiter(&self) -> Awaiter {
        match self.header() {
            Some(header) => super::ended::take_awaiter(header),
            None => Awaiter::Nobody,
        }
    }

    pub(crate) fn set_background(&self) {
        if let Some(header) = self.header() {
            header.set(BACKGROUND);
        }
    }

    /// The side record, made if there is none; `None` when the slot is no longer ours.
    pub(crate) fn extras(&self) -> Option<Rc<RefCell<Extras>>> {
        self.header().map(make_extras)
    }

    /// Whether the task has a side record.
    pub(crate) fn has_extras(&self) -> bool {
        self.header().is_some_and(|header| header.has(EXTRAS))
    }

    /// What the arena belongs to, if that is an `S`.
    pub(crate) fn host<S: 'static>(&self) -> Option<Rc<S>> {
        let header = self.header()?;
        let arena = Self::arena(header);
        // SAFETY: the arena outlives its claims.
        let arena = unsafe { arena.as_ref() };
        let host: Rc<dyn Any> = arena.host.borrow().as_ref()?.upgrade()?;
        host.downcast::<S>().ok()
    }

    /// The endpoint of the task's executor.
    pub(crate) fn endpoint(&self) -> Option<&'static crate::remote::endpoint::Endpoint> {
        table::endpoint(self.header()?.key().executor())
    }

    /// Sets a key of ours to be woken when the outcome can be taken. `false`: there is a side record, which holds it.
    #[inline]
    pub(crate) fn await_by_key(&self, key: usize) -> bool {
        match self.header() {
            Some(header) if !header.has(EXTRAS) => {
                header.set_awaiter_key(key);
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    /// Whether the failure is one that nobody has been told or has read; marks it read.
    pub(crate) fn mark_read(&self) -> bool {
        let unread = self.is_unread();
        if let (true, Some(header)) = (unread, self.header()) {
            header.set(READ);
        }
        unread
    }

    /// Whether it is a failure that nobody has been told or has read.
    pub(crate) fn is_unread(&self) -> bool {
        self.header()
            .is_some_and(|header| header.has(FAILED) && !header.has(TOLD | READ))
    }

    /// The failure of a finished task.
    pub(crate) fn failure(&self) -> Option<Exception<'_>> {
        let header = self.header()?;
        if !header.has(FAILED) || !header.has(STORED) || header.has(PINNED) {
            return None;
        }
        // SAFETY: the table is the cell's own and the cell holds something.
        let failure = unsafe { (header.vtable.get().failure)(self.word) }?;
        // SAFETY: it stays while the view borrows this claim: taking it and dropping the claim need `&mut` (A4), and a
        // token drops it only when there is no claim.
        Some(unsafe { failure.view() })
    }

    /// The key that the task's waker carries, while its slot is ours.
    #[inline]
    pub(crate) fn key(&self) -> Option<usize> {
        self.header().map(|header| header.key.get())
    }

    /// Takes the one outcome of a task that never began: the reason. `None`: it is not such a task, or was taken.
    pub(crate) fn take_refusal(&mut self) -> Option<&'static str> {
        self.remains()?.refused.take()
    }

    /// Whether the task never began, and its one outcome has not been taken.
    pub(crate) fn is_refused(&self) -> bool {
        self.remains()
            .is_some_and(|remains| remains.refused.get().is_some())
    }

    /// Whether giving the claim up leaves something to look at or to drop.
    #[inline]
    pub(crate) fn has_something(&self) -> bool {
        self.header()
            .is_some_and(|header| header.has(STORED | EXTRAS))
    }

    /// Takes the outcome, if it can be taken.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Taken<T>> {
        let slot = self.word;
        let header = self.header()?;
        let flags = header.flags.get();
        if flags & (ENDED | PINNED) != ENDED {
            return None;
        }
        header.flags.set(flags & !STORED);
        let taken = if flags & (STORED | PANICKED) == STORED {
            // SAFETY: `T` is the output of the future that this claim was made for, and STORED says that one is there. The
            // flag is cleared, so that it is not read again; not PINNED, so that nobody looks (A4).
            Taken::Value(unsafe { take_value(slot) })
        } else if flags & STORED != 0 {
            // SAFETY: the same, and it is a panic.
            Taken::Panic(unsafe { take_panic::<T>(slot) })
        } else if flags & FAILED != 0 {
            Taken::InGroup(take_kept_message(header))
        } else {
            Taken::Cancelled(reason(header))
        };
        let (id, end) = (header.id(), End::of(flags));
        let arena = Self::arena(header);
        let named = if flags & EXTRAS != 0 {
            given_name(header)
        } else {
            None
        };
        header.clear(CLAIMED);
        // First, so that this names the slot no more whatever comes of giving it back.
        match named {
            None => self.spend(id, end),
            Some(name) => self.leave(Remains {
                id,
                name: Name::Given(name),
                end,
                refused: Cell::new(None),
            }),
        }
        // SAFETY: the arena is that of the slot, whose tenant this claim has kept; neither is touched afterwards.
        unsafe { Arena::vacate_claimed(arena, slot) };
        Some(taken)
    }

    /// [`take`](Self::take) for the ordinary case: it returned, there is nothing but the value, and its executor is the one
    /// that is being driven.
    #[inline]
    pub(crate) fn take_plain(&mut self) -> Option<T> {
        const ALL: u32 =
            ENDED | STORED | PINNED | FAILED | CANCELLED | EXTRAS | MEMBER | QUEUED | DEDICATED;
        let slot = self.word;
        let header = self.header()?;
        if header.flags.get() & ALL != ENDED | STORED {
            return None;
        }
        let arena = current_arena(header.key().executor())?;
        // SAFETY: as in `take`; a task that has not failed holds no panic. The slot is vacated below.
        let value = unsafe { take_value(slot) };
        let id = header.id();
        header.clear(STORED | CLAIMED);
        // SAFETY: being driven, it is borrowed up the stack.
        unsafe { arena.as_ref() }.vacate_plain(slot);
        self.spend(id, End::Returned);
        Some(value)
    }

    /// [`await_by_key`](Self::await_by_key) for the ordinary case: the task is pending, has no side record, and is not the
    /// one that would be woken. `false`: it is another case.
    #[inline]
    pub(crate) fn await_plain(&self, key: usize) -> bool {
        match self.header() {
            Some(header) if !header.has(ENDED | EXTRAS) && header.key.get() != key => {
                header.set_awaiter_key(key);
                true
            }
            _ => false,
        }
    }

    /// Gives the claim up. A finished task with something to look at or drop is handed over as a token.
    pub(crate) fn give_up(&mut self) -> Option<Pinned> {
        let slot = self.word;
        let header = self.header()?;
        let flags = header.flags.get();
        header.clear(CLAIMED);
        let arena = (flags & (ENDED | PINNED) == ENDED).then(|| Self::arena(header));
        let has_something = flags & (STORED | EXTRAS) != 0;
        if arena.is_some() && has_something {
            header.set(PINNED);
        }
        // As in `take`.
        self.spend(TaskId::new(0), End::Returned);
        let arena = arena?;
        if !has_something {
            // SAFETY: the arena is that of the slot, whose tenant this claim has kept; neither is touched afterwards.
            unsafe { Arena::vacate_claimed(arena, slot) };
            return None;
        }
        // SAFETY: the arena is alive: its tenant keeps it.
        let arena = unsafe { arena.as_ref() };
        // SAFETY: ended, and pinned by this call; the arena is the slot's.
        Some(unsafe { Pinned::new(arena, slot) })
    }
}

#[cold]
fn given_name(header: &Header) -> Option<Arc<str>> {
    make_extras(header).borrow().name.clone()
}

#[cold]
fn reason(header: &Header) -> Option<Box<str>> {
    if header.has(EXTRAS) {
        make_extras(header).borrow().reason.clone()
    } else {
        None
    }
}

#[cold]
fn take_kept_message(header: &Header) -> Option<Box<str>> {
    make_extras(header).borrow_mut().kept.take()
}

impl<T> Claim<T> {
    /// Lets go in the ordinary cases: the outcome was taken, or the task has still to run and has no side record. `false`: it
    /// is another case, and nothing was done.
    #[inline]
    pub(crate) fn let_go(&mut self) -> bool {
        match self.header() {
            Some(header) if !header.has(ENDED | EXTRAS) => {
                header.clear(CLAIMED);
                self.spend(TaskId::new(0), End::Returned);
                true
            }
            Some(_) => false,
            None => self.word.addr().get() & SPENT != 0,
        }
    }
}

impl<T> Drop for Claim<T> {
    #[inline]
    fn drop(&mut self) {
        if !self.let_go() {
            self.let_go_aside();
        }
    }
}

impl<T> Claim<T> {
    /// Lets go in all cases. Whoever cares for what is dropped has asked for the token before ([`give_up`](Self::give_up)).
    #[cold]
    #[inline(never)]
    pub(crate) fn let_go_aside(&mut self) {
        let tag = self.word.addr().get() & (SPENT | REMAINS);
        if tag == 0 {
            if let Some(pinned) = self.give_up() {
                // Nobody is left to be told what the destructors do.
                let (awaiter, dropped) = pinned.publish_for_handle();
                // User code: Drop of a foreign waker.
                for panic in [catch_drop(awaiter), dropped]
                    .into_iter()
                    .filter_map(Result::err)
                {
                    drop(bury(panic));
                }
            }
        } else if tag == REMAINS {
            let remains: *mut Remains = self
                .word
                .as_ptr()
                .map_addr(|address| address & !REMAINS)
                .cast();
            self.spend(TaskId::new(0), End::Returned);
            // SAFETY: with this tag the word came from `leave`; now it has another.
            drop(unsafe { Box::from_raw(remains) });
        }
    }
}
