//! Cells: a future in place, later its outcome in the same place, and the code that knows their types.

use std::alloc::Layout;
use std::fmt::{Debug, Display};
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit, needs_drop};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use crate::exception::{AnyError, Exception, Owned};
use crate::locals::{self, Which};
use crate::unwind::{Panic, catch, catch_drop};

use super::pages;
use super::record::make_extras;
use super::slots::{
    ASKS, BACKGROUND, CALL, CANCEL, CLAIMED, DEDICATED, ENDED, EXTRAS, Header, MEMBER, PANICKED,
    QUEUED, STORED, WATCHED,
};

/// Decides what output counts as a failure.
pub(crate) trait Judge<T> {
    /// Whether it looks at all.
    const LOOKS: bool;

    fn failure(value: &T) -> Option<&(dyn AnyError + 'static)>;

    /// The failure by itself, or the value if it is none.
    fn into_failure(value: T) -> Result<Box<dyn AnyError>, T>;
}

/// `spawn`: never looks into the output.
#[derive(Debug)]
pub(crate) enum Plain {}

/// `spawn_fallible`: an `Err` is a failure.
#[derive(Debug)]
pub(crate) enum Fallible {}

impl<T> Judge<T> for Plain {
    const LOOKS: bool = false;

    #[inline]
    fn failure(_: &T) -> Option<&(dyn AnyError + 'static)> {
        None
    }

    fn into_failure(value: T) -> Result<Box<dyn AnyError>, T> {
        Err(value)
    }
}

impl<T, E: Display + Debug + 'static> Judge<Result<T, E>> for Fallible {
    const LOOKS: bool = true;

    #[inline]
    fn failure(value: &Result<T, E>) -> Option<&(dyn AnyError + 'static)> {
        value
            .as_ref()
            .err()
            .map(|error| error as &(dyn AnyError + 'static))
    }

    fn into_failure(value: Result<T, E>) -> Result<Box<dyn AnyError>, Result<T, E>> {
        match value {
            Ok(value) => Err(Ok(value)),
            Err(error) => Ok(Box::new(error)),
        }
    }
}

/// What a cell holds when its future is gone; the header's flags say which.
// Not an enum: the tag would cost a word in most cells, and a store and a load per task.
#[repr(C)]
pub(super) union Held<T> {
    value: ManuallyDrop<T>,
    panic: ManuallyDrop<Box<Panic>>,
}

/// A cell with its future gone. A [`Claim`](super::claim::Claim) knows the output's type only, so that the place is the
/// same for all futures: the first after the header that has the alignment.
#[repr(C)]
struct Remains<T> {
    header: Header,
    held: Held<T>,
}

/// Either the future or what came of it.
#[repr(C)]
union Body<F: Future> {
    future: ManuallyDrop<F>,
    held: ManuallyDrop<Held<F::Output>>,
}

/// A task in memory. `Header` first, so that a pointer to the one is a pointer to the other.
#[repr(C)]
pub(super) struct TaskCell<F: Future, M = ()> {
    header: Header,
    body: Body<F>,
    /// The place of a `Membership`, in cells of a group's members (`member.rs`). Last, so that the body's place is the same
    /// in all cells of a future.
    member: MaybeUninit<M>,
}

/// Where a cell keeps what its task failed by.
pub(super) enum Failure {
    Panic(NonNull<Panic>),
    Error(NonNull<dyn AnyError>),
}

impl Failure {
    /// # Safety
    ///
    /// The cell that this came from goes on holding it for `'a`.
    pub(super) unsafe fn view<'a>(self) -> Exception<'a> {
        match self {
            // SAFETY: the caller's contract; a panic in its box does not move.
            Failure::Panic(panic) => Exception::panic(unsafe { panic.as_ref() }),
            // SAFETY: the caller's contract; the error lies in the cell, which does not move.
            Failure::Error(error) => Exception::error(unsafe { error.as_ref() }),
        }
    }
}

/// What a poll came to.
// Bits, to be asked one by one in the order of how often each is so: of an enum, the compiler makes a table of jumps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Step(u8);

impl Step {
    pub(super) const PENDING: Step = Step(0);
    /// It returned, nothing is kept of it, and nobody wants to know: to be vacated.
    pub(super) const GONE: Step = Step(1);
    /// It returned and the value is stored and may be taken: `ENDED` is set. Only an awaiter by key is to be woken.
    pub(super) const STORED: Step = Step(2);
    /// It returned, and there is more to it.
    pub(super) const RETURNED: Step = Step(4);
    pub(super) const FAILED: Step = Step(4 | 8);

    #[inline]
    pub(super) fn is_pending(self) -> bool {
        self.0 == 0
    }

    /// Returned or failed, with more to be done than to store a value.
    #[inline]
    pub(super) fn is_unplain(self) -> bool {
        self.0 & 4 != 0
    }

    #[inline]
    pub(super) fn is_stored(self) -> bool {
        self.0 & 2 != 0
    }

    #[inline]
    pub(super) fn is_failed(self) -> bool {
        self.0 & 8 != 0
    }
}

/// What makes a task's return more than giving its value to whoever claims it.
const UNPLAIN: u32 = CANCEL | EXTRAS | BACKGROUND | CALL | ASKS | MEMBER | WATCHED;

/// What makes vacating a slot more than putting it on its free list.
const BOUND: u32 = CLAIMED | QUEUED | DEDICATED;

/// The typed half of a task, behind its header.
pub(super) struct VTable {
    /// # Safety
    ///
    /// The cell is of this table's type and its future is alive and not borrowed by anybody else.
    pub(super) poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Step,
    /// May unwind; the future counts as dropped then too.
    ///
    /// # Safety
    ///
    /// As for `poll`; the future is gone afterwards.
    pub(super) drop_future: unsafe fn(NonNull<Header>),
    /// May unwind; what was held counts as dropped then too.
    ///
    /// # Safety
    ///
    /// The cell is of this table's type, `STORED`, and nobody looks at what it holds; it holds nothing afterwards.
    pub(super) drop_held: unsafe fn(NonNull<Header>),
    /// # Safety
    ///
    /// The cell is of this table's type and holds nothing.
    pub(super) store_panic: unsafe fn(NonNull<Header>, Box<Panic>),
    /// # Safety
    ///
    /// The cell is of this table's type and `STORED`.
    pub(super) failure: unsafe fn(NonNull<Header>) -> Option<Failure>,
    /// # Safety
    ///
    /// The cell is of this table's type, `STORED`, and nobody looks at what it holds.
    pub(super) take_also: unsafe fn(NonNull<Header>) -> Option<Box<Panic>>,
    /// Moves what the task failed by out of the cell; `None`: it did not fail, and the cell is as it was.
    ///
    /// # Safety
    ///
    /// The cell is of this table's type, `STORED`, and nobody looks at what it holds.
    pub(super) take_failure: unsafe fn(NonNull<Header>) -> Option<Owned>,
    /// Where the place of a `Membership` is, from the header, if there is one.
    pub(super) member_offset: usize,
    pub(super) class: usize,
    pub(super) layout: Layout,
}

/// Makes the table of a future type, a way of judging its output, and what else the cell has a place for.
pub(super) struct Typed<F, J, M = ()>(PhantomData<(F, J, M)>);

impl<F: Future, J: Judge<F::Output>, M> Typed<F, J, M> {
    pub(super) const LAYOUT: Layout = {
        // The body is no lower than what remains of it, and has room for it.
        assert!(
            std::mem::offset_of!(Remains<F::Output>, held)
                <= std::mem::offset_of!(TaskCell<F, M>, body)
        );
        // Whoever stores and takes a future or what came of it knows nothing of `M`.
        assert!(
            std::mem::offset_of!(TaskCell<F>, body) == std::mem::offset_of!(TaskCell<F, M>, body)
        );
        Layout::new::<TaskCell<F, M>>()
    };
    pub(super) const CLASS: usize = pages::class_of(Self::LAYOUT);
    pub(super) const VTABLE: &'static VTable = &VTable {
        poll: poll::<F, J>,
        drop_future: drop_future::<F>,
        drop_held: drop_held::<F::Output>,
        store_panic: store_panic::<F>,
        failure: failure::<F, J>,
        take_also: take_also::<F>,
        take_failure: take_failure::<F, J>,
        member_offset: std::mem::offset_of!(TaskCell<F, M>, member),
        class: Self::CLASS,
        layout: Self::LAYOUT,
    };
}

/// The table in vacant slots. Nothing in it is ever called.
pub(super) const fn vacant_vtable() -> &'static VTable {
    Typed::<std::future::Ready<()>, Plain>::VTABLE
}

#[inline]
fn future_of<F: Future>(header: NonNull<Header>) -> *mut F {
    let cell = header.cast::<TaskCell<F>>().as_ptr();
    // No reference is made: only the address of a field of the allocation is computed.
    cell.wrapping_byte_add(std::mem::offset_of!(TaskCell<F>, body))
        .cast()
}

#[inline]
fn held_of<T>(header: NonNull<Header>) -> *mut Held<T> {
    let cell = header.cast::<Remains<T>>().as_ptr();
    cell.wrapping_byte_add(std::mem::offset_of!(Remains<T>, held))
        .cast()
}

#[inline]
fn value_of<T>(header: NonNull<Header>) -> *mut T {
    held_of::<T>(header).cast()
}

#[inline]
fn panic_of<T>(header: NonNull<Header>) -> *mut Box<Panic> {
    held_of::<T>(header).cast()
}

/// Moves a future into a vacant cell.
///
/// # Safety
///
/// The cell was made for this layout (`Typed::<F, _>::CLASS`) and is vacant.
#[inline]
pub(super) unsafe fn store_future<F: Future>(header: NonNull<Header>, future: F) {
    // SAFETY: the caller gives a vacant cell of the right size and alignment, so nothing is overwritten that lives.
    unsafe { future_of::<F>(header).write(future) };
}

/// Takes the value that a cell holds.
///
/// # Safety
///
/// The cell is that of a future whose output is `T`, it is `STORED` and not `PANICKED`, and nobody looks at what it holds;
/// the caller clears `STORED`.
#[inline]
pub(super) unsafe fn take_value<T>(header: NonNull<Header>) -> T {
    // SAFETY: the caller's contract: it is alive, and read once.
    unsafe { value_of::<T>(header).read() }
}

/// Takes the panic that a cell holds.
///
/// # Safety
///
/// As for [`take_value`], but that the cell is `PANICKED`.
#[cold]
pub(super) unsafe fn take_panic<T>(header: NonNull<Header>) -> Box<Panic> {
    // SAFETY: the caller's contract: it is alive, and read once.
    unsafe { panic_of::<T>(header).read() }
}

/// The one function that polls.
///
/// # Safety
///
/// See [`VTable::poll`].
unsafe fn poll<F: Future, J: Judge<F::Output>>(
    header: NonNull<Header>,
    cx: &mut Context<'_>,
) -> Step {
    // SAFETY: the caller gives exclusive access to a live future for this call (its slot is RUNNING, A2).
    let future = unsafe { &mut *future_of::<F>(header) };
    // SAFETY: the future never moves while it lives: cells have stable addresses and only `drop_future` ends it, in place
    // (A1).
    let pinned = unsafe { Pin::new_unchecked(future) };
    // User code: Future::poll.
    match catch(|| pinned.poll(cx)) {
        Ok(Poll::Pending) => Step::PENDING,
        // SAFETY: the future is alive and RUNNING, as it was for the poll.
        Ok(Poll::Ready(value)) => unsafe { returned::<F, J>(header, value) },
        // SAFETY: the same; a panicking poll leaves the future to be dropped.
        Err(panic) => unsafe { panicked::<F>(header, panic) },
    }
}

/// The future gave its value: drop it, then store or drop the value.
///
/// # Safety
///
/// As for [`VTable::poll`].
#[inline]
unsafe fn returned<F: Future, J: Judge<F::Output>>(
    header: NonNull<Header>,
    value: F::Output,
) -> Step {
    if needs_drop::<F>() {
        // SAFETY: the header is that of an occupied cell.
        let extras = unsafe { header.as_ref() }.has(EXTRAS);
        let failed = J::failure(&value).is_some();
        // User code: Drop of F.
        let drop = || {
            // SAFETY: the future is alive, and gone after this call, whether it unwinds or not.
            unsafe { drop_future::<F>(header) }
        };
        let dropped = if extras || failed {
            // SAFETY: the header is that of an occupied cell.
            drop_to_tell(unsafe { header.as_ref() }, failed, Which::Returned, drop)
        } else {
            catch(drop)
        };
        if let Err(panic) = dropped {
            // SAFETY: the future is gone, so the cell holds nothing.
            return unsafe { spoiled::<F, J>(header, value, panic) };
        }
    }
    // SAFETY: the header is that of an occupied cell; only `Cell` fields are touched.
    let flags = unsafe { header.as_ref() }.flags.get();
    let failed = J::failure(&value).is_some();
    let more = flags & (UNPLAIN | BOUND);
    if !failed && more == CLAIMED {
        // SAFETY: the future is gone, so the cell holds nothing, and has room for it (`Typed::LAYOUT`).
        unsafe { value_of::<F::Output>(header).write(value) };
        // SAFETY: as above.
        unsafe { header.as_ref() }.flags.set(flags | STORED | ENDED);
        return Step::STORED;
    }
    if !failed && more == 0 && !needs_drop::<F::Output>() {
        return Step::GONE;
    }
    if failed || flags & CLAIMED != 0 && flags & CANCEL == 0 {
        // SAFETY: as above.
        unsafe { value_of::<F::Output>(header).write(value) };
        // SAFETY: as above.
        unsafe { header.as_ref() }.flags.set(flags | STORED);
        return if failed { Step::FAILED } else { Step::RETURNED };
    }
    // Nobody can ask for it: drop it now, not when its slot is used again.
    // User code: Drop of the output.
    match catch_drop(value) {
        Ok(()) => {
            // SAFETY: as above.
            let flags = unsafe { header.as_ref() }.flags.get();
            if flags & (UNPLAIN | BOUND) == 0 {
                Step::GONE
            } else {
                Step::RETURNED
            }
        }
        Err(panic) => {
            // SAFETY: the future is gone, so the cell holds nothing.
            unsafe { store_panic::<F>(header, panic) };
            Step::FAILED
        }
    }
}

/// Drops the future of a task whose end somebody may be told of, who is then to see what was set in it.
#[cold]
pub(super) fn drop_to_tell(
    header: &Header,
    failed: bool,
    which: Which,
    drop: impl FnOnce(),
) -> Result<(), Box<Panic>> {
    let called = header.has(EXTRAS) && !make_extras(header).borrow().callbacks.is_empty();
    if !failed && !called {
        return catch(drop);
    }
    let (dropped, found) = locals::collect(which, drop);
    if found.is_some() {
        make_extras(header).borrow_mut().ended_in = found;
    }
    dropped
}

/// A destructor of a future that had returned panicked: the task failed, and its value goes. If it had returned an error,
/// that is what it failed by, and the panic is a second failure: neither is lost.
///
/// # Safety
///
/// The future is gone and the cell holds nothing.
#[cold]
unsafe fn spoiled<F: Future, J: Judge<F::Output>>(
    header: NonNull<Header>,
    value: F::Output,
    mut panic: Box<Panic>,
) -> Step {
    if J::failure(&value).is_some() {
        // SAFETY: the caller's contract, and the cell has room for it (`Typed::LAYOUT`).
        unsafe { value_of::<F::Output>(header).write(value) };
        // SAFETY: the header is that of an occupied cell.
        let header = unsafe { header.as_ref() };
        header.set(STORED);
        make_extras(header).borrow_mut().also = Some(panic);
        return Step::FAILED;
    }
    // User code: Drop of the output.
    if let Err(second) = catch_drop(value) {
        panic.push(second);
    }
    // SAFETY: the caller's contract.
    unsafe { store_panic::<F>(header, panic) };
    Step::FAILED
}

/// The poll panicked: drop what remains of the future, keep the panic.
///
/// # Safety
///
/// As for [`VTable::poll`].
#[cold]
unsafe fn panicked<F: Future>(header: NonNull<Header>, mut panic: Box<Panic>) -> Step {
    if needs_drop::<F>() {
        // User code: Drop of F.
        // SAFETY: the future is alive, and gone after this call, whether it unwinds or not.
        if let Err(second) = catch(|| unsafe { drop_future::<F>(header) }) {
            panic.push(second);
        }
    }
    // SAFETY: the future is gone, so the cell holds nothing.
    unsafe { store_panic::<F>(header, panic) };
    Step::FAILED
}

unsafe fn drop_future<F: Future>(header: NonNull<Header>) {
    // SAFETY: the caller's contract ([`VTable::drop_future`]): alive, not borrowed, and never touched again. It is
    // dropped where it was pinned.
    unsafe { future_of::<F>(header).drop_in_place() };
}

unsafe fn drop_held<T>(header: NonNull<Header>) {
    // SAFETY: the header is that of an occupied cell.
    let flags = unsafe { header.as_ref() };
    // Cleared first, so that nobody looks at it again, also if this unwinds.
    flags.clear(STORED);
    if flags.has(PANICKED) {
        // SAFETY: the caller's contract ([`VTable::drop_held`]), and it is a panic.
        unsafe { panic_of::<T>(header).drop_in_place() };
    } else {
        // SAFETY: the same, and it is a value.
        unsafe { value_of::<T>(header).drop_in_place() };
    }
}

unsafe fn store_panic<F: Future>(header: NonNull<Header>, panic: Box<Panic>) {
    // SAFETY: the caller's contract ([`VTable::store_panic`]): the cell holds nothing that this would overwrite; and it has
    // room for it (`Typed::LAYOUT`).
    unsafe { panic_of::<F::Output>(header).write(panic) };
    // SAFETY: the header is that of an occupied cell.
    unsafe { header.as_ref() }.set(STORED | PANICKED);
}

unsafe fn failure<F: Future, J: Judge<F::Output>>(header: NonNull<Header>) -> Option<Failure> {
    // SAFETY: the header is that of an occupied cell.
    if unsafe { header.as_ref() }.has(PANICKED) {
        // SAFETY: the caller's contract ([`VTable::failure`]): it is there, and nothing writes it during this call.
        let panic: &Panic = unsafe { &*panic_of::<F::Output>(header) };
        return Some(Failure::Panic(panic.into()));
    }
    // SAFETY: the same; it is a value.
    let value = unsafe { &*value_of::<F::Output>(header) };
    J::failure(value).map(|error| Failure::Error(error.into()))
}

unsafe fn take_also<F: Future>(header: NonNull<Header>) -> Option<Box<Panic>> {
    // SAFETY: the header is that of an occupied cell.
    if !unsafe { header.as_ref() }.has(PANICKED) {
        return None;
    }
    // SAFETY: the caller's contract ([`VTable::take_also`]): it is there and nobody looks at it.
    unsafe { &mut *panic_of::<F::Output>(header) }.also.take()
}

unsafe fn take_failure<F: Future, J: Judge<F::Output>>(header: NonNull<Header>) -> Option<Owned> {
    // SAFETY: the header is that of an occupied cell.
    let flags = unsafe { header.as_ref() };
    flags.clear(STORED);
    if flags.has(PANICKED) {
        // SAFETY: the caller's contract ([`VTable::take_failure`]): it is there, nobody looks at it, and the flag above
        // keeps it from being read again.
        return Some(Owned::Panic(unsafe { take_panic::<F::Output>(header) }));
    }
    // SAFETY: the same.
    match J::into_failure(unsafe { take_value::<F::Output>(header) }) {
        Ok(error) => Some(Owned::Error(error)),
        Err(value) => {
            // SAFETY: it was moved out of here just now, so that nothing is overwritten that lives.
            unsafe { value_of::<F::Output>(header).write(value) };
            flags.set(STORED);
            None
        }
    }
}
