//! The arena: owner of every task.
//!
//! A task's future, and later its outcome, lives in a cell of the arena from `insert` until nobody can ask for it any
//! more. Handles and wakers name it; they do not own it (P1).
//!
//! All unsafe code about task memory is behind this module's types. They are safe to use in any order, but for what would cost
//! each poll and each end a check: a `Ready` is polled, by its own arena's `Driven`, before anything else is and before
//! [`Driven::rest`]; and between the look that finds a task [plain](ended::Ended::is_plain) and its publishing no user code
//! runs. (`scheduler/pass.rs` and `ending.rs` see to that; debug assertions look.)
//!
//! - [`Owner`](owner::Owner) is the executor's side. Only through it can the arena be *driven*; dropping it drops every future that
//!   may borrow from the executor's `'env`.
//! - [`Driven`] exists while an `Owner` is borrowed up the stack. Only through it are futures polled, and dropped; those
//!   that borrow nothing are dropped also by [`Arena::destroy_unbound`].
//! - [`Ready`](driven::Ready) is a slot taken off the run queue, to be polled exactly once.
//! - [`Ended`](ended::Ended) and [`Pinned`] are a task whose future is gone and whose outcome nobody may take yet.
//! - [`Claim`](claim::Claim) is a handle's right to the outcome.
//! - [`TaskRef`] names a task by id and index; it is checked at every use.
//!
//! # Rules
//!
//! - **A1** A future does not move and its cell is not freed from `insert` until it is dropped in place.
//! - **A2** A future is touched only while its slot is on the poll stack: named by `Front::running`, or marked `RUNNING`.
//!   Exactly one frame puts it there, and takes it off, and no arena is driven within its own drive. So there is one
//!   reference to a future at a time.
//! - **A3** A cell is vacated only when its future is gone (`ENDED`), it holds nothing (not `STORED`), no claim
//!   (`CLAIMED`) and no token (`PINNED`) exists.
//! - **A4** What a cell holds is taken or dropped only by the claim while it is not `PINNED`, or, when there is no claim,
//!   by the token.
//! - **A5** A future with `BORROWS` is touched only through [`Driven`], which proves that `'env` is alive.
//! - **A6** No `&mut` to a header, page or arena is ever made: all state is in `Cell`s, and what user code re-enters finds
//!   it consistent.
//! - **A7** Everything here happens on the thread that made the arena: none of these types is `Send` or `Sync`.

pub(crate) mod afterlife;
mod asking;
pub(crate) mod cell;
pub(crate) mod claim;
pub(crate) mod driven;
pub(crate) mod ended;
pub(crate) mod front;
pub(crate) mod insert;
mod looking;
mod member;
pub(crate) mod owner;
mod pages;
mod queue;
mod record;
pub(crate) mod roots;
mod slots;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ptr::{self, NonNull};
use std::rc::{Rc, Weak};

use crate::completion::Extras;
use crate::locals::Locals;
use crate::remote::endpoint::Endpoint;
use crate::remote::table;
use crate::task::TaskId;
use crate::unwind::{Panic, bury, catch_drop};
use crate::wide::Wide;

use driven::Driven;
use ended::Pinned;
use front::Front;
use pages::Pages;
use record::{make_extras, take_extras};
use roots::Root;
use slots::{
    CALL, CANCEL, CLAIMED, ENDED, EXTRAS, HELD_BACK, Header, LATE, MEMBER, PINNED, QUEUED, RUNNING,
    STORED, VACANT, WATCHED,
};

/// A task named by its id; its index says where to look. Checked at every use, so a stale one names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskRef {
    pub(crate) id: TaskId,
    pub(crate) index: u32,
}

/// What came of a request to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelState {
    /// There is nothing left to cancel.
    Finished,
    /// Somebody asked before; the first reason stands.
    Asked {
        /// It is being polled or dropped.
        running: bool,
    },
    /// It is being polled or dropped: whoever does that sees the request.
    Running,
    /// It waits for [`Driven::destroy`].
    Waiting,
}

/// See the module documentation.
#[repr(C)]
pub(crate) struct Arena {
    /// First, so that the address of the front is that of the arena.
    front: Front,
    pages: Pages,
    /// The key of the next task, but for its index, and where the present block of ids ends.
    next_key: Cell<usize>,
    last_key: Cell<usize>,
    /// The high part of the ids of this block.
    id_high: Cell<u32>,
    /// When the owner is gone: how many slots are still lived in. The owner, and then these, have one count of this arena. So
    /// it outlives the claims, each of which keeps a slot.
    // Not the claims are counted, and nothing before the owner goes: so neither a spawn nor an end does, and a claim that is
    // dropped before its task ends need not find its arena.
    heirs: Cell<Option<usize>>,
    driven: Cell<bool>,
    /// Driven, and nothing of the scheduler's is in the way of a spawn.
    open: Cell<bool>,
    /// What the scheduler says of that.
    accepting: Cell<bool>,
    endpoint: &'static Endpoint,
    serial: u64,
    /// Roots made so far: the generation of the next one.
    roots: Cell<u64>,
    host: RefCell<Option<Weak<dyn Any>>>,
    /// Keeps the host, and through it this arena, for the claims that outlive the executor.
    legacy: RefCell<Option<Rc<dyn Any>>>,
}

impl Arena {
    #[track_caller]
    fn new() -> Rc<Self> {
        static NEXT_SERIAL: Wide = Wide::new(0);
        let (Ok(serial) | Err(serial)) = NEXT_SERIAL.update(|next| Some(next + 1));
        let endpoint = table::acquire();
        let pages = Pages::new();
        let arena = Rc::new(Arena {
            front: Front::new(endpoint.id(), pages.nowhere()),
            pages,
            next_key: Cell::new(0),
            last_key: Cell::new(0),
            id_high: Cell::new(0),
            heirs: Cell::new(None),
            driven: Cell::new(false),
            open: Cell::new(false),
            accepting: Cell::new(true),
            endpoint,
            serial,
            roots: Cell::new(0),
            host: RefCell::new(None),
            legacy: RefCell::new(None),
        });
        // What came too late for the endpoint's owner before.
        arena.drop_hook_panics();
        arena
    }

    /// Drops payloads of the wake hook that nobody will report.
    fn drop_hook_panics(&self) {
        while let Some(payload) = self.endpoint.next_hook_panic() {
            drop(bury(Panic::from_payload(payload)));
        }
    }

    pub(crate) fn endpoint(&self) -> &'static Endpoint {
        self.endpoint
    }

    /// This arena's executor id, the high field of its keys.
    #[inline]
    pub(crate) fn executor(&self) -> u32 {
        self.front.executor()
    }

    /// Whether an [`Owner`](owner::Owner) is driving this arena up the stack.
    #[inline]
    pub(crate) fn is_driven(&self) -> bool {
        self.driven.get()
    }

    /// Whether a spawn is nothing but that: the arena is being driven, and [accepts](Self::set_accepting) tasks.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.open.get()
    }

    fn set_driven(&self, driven: bool) {
        self.driven.set(driven);
        self.open.set(driven && self.accepting.get());
    }

    /// Says whether tasks are simply to be inserted.
    pub(crate) fn set_accepting(&self, accepting: bool) {
        self.accepting.set(accepting);
        self.open.set(accepting && self.driven.get());
    }

    /// Calls `f` with leave to run and drop futures, if the arena is being driven.
    #[inline]
    pub(crate) fn if_driven<R>(&self, f: impl FnOnce(Driven<'_>) -> R) -> Option<R> {
        // SAFETY: the flag is set by `Owner::drive` alone, for as long as it is on the stack; that is below this call, beyond
        // which `f` cannot keep what it is given.
        self.driven.get().then(|| f(unsafe { Driven::new(self) }))
    }

    /// Remembers what the arena belongs to, for claims to find.
    pub(crate) fn set_host(&self, host: Weak<dyn Any>) {
        self.host.replace(Some(host));
    }

    /// Keeps `host` alive for as long as there are claims. To be called when the executor goes.
    pub(crate) fn bequeath(&self, host: Rc<dyn Any>) {
        if self.count_heirs() > 0 {
            self.legacy.replace(Some(host));
        }
    }

    /// Makes room in the tables for `tasks` slots.
    #[track_caller]
    pub(crate) fn reserve(&self, tasks: usize) {
        self.pages.reserve(tasks, &self.front, self.endpoint);
    }

    // --- waking -----------------------------------------------------------------------------------------------------

    /// What other threads have woken between two drives comes before what is spawned after that (P9).
    #[cold]
    pub(crate) fn take_remote_wakes_between_drives(&self) {
        if !self.driven.get() {
            self.take_remote_wakes();
        }
    }

    /// Takes the wakes that came from other threads, oldest first.
    pub(crate) fn take_remote_wakes(&self) {
        let start = self.front.queue.len();
        self.endpoint.drain_wakes(|index| {
            // R3: whoever lives there now. An endpoint that served a bigger arena may name slots that are not here.
            let Some(slot) = self.front.table.slot(index) else {
                return;
            };
            // SAFETY: frames lead to live headers.
            let header = unsafe { slot.as_ref() };
            // Nobody has a callback's waker: what comes for it from elsewhere is stale, and it may not be time.
            if !header.has(CALL | VACANT) {
                self.front.enqueue(slot, header);
            }
        });
        self.front.queue.reverse_from(start);
    }

    /// Ends the present stretch of polls: the loop is to look around before it goes on.
    #[inline]
    pub(crate) fn interrupt(&self) {
        self.front.ask_attention();
        self.front.queue.interrupt();
    }

    /// Has the loop look around before it begins the next pass.
    #[inline]
    pub(crate) fn ask_attention(&self) {
        self.front.ask_attention();
    }

    /// Says whether, as of now, the loop is to look around before it begins the next pass.
    #[inline]
    pub(crate) fn set_attention(&self, look: bool) {
        self.front.set_attention(look);
    }

    // --- changing ---------------------------------------------------------------------------------------------------

    /// Notes that somebody looks on at the task's end.
    pub(crate) fn watch(&self, task: TaskRef) {
        if let Some(slot) = self.find(task) {
            // SAFETY: found alive.
            unsafe { slot.as_ref() }.set(WATCHED);
        }
    }

    /// Notes whether callbacks wait for the next pass on this finished task; gives what was noted before.
    pub(crate) fn note_late(&self, task: TaskRef, late: bool) -> bool {
        let Some(slot) = self.find(task) else {
            return false;
        };
        // SAFETY: found alive.
        let header = unsafe { slot.as_ref() };
        let before = header.has(LATE);
        if late {
            header.set(LATE)
        } else {
            header.clear(LATE)
        }
        before
    }

    /// The task's side record; makes one if it has none.
    pub(crate) fn extras(&self, task: TaskRef) -> Option<Rc<RefCell<Extras>>> {
        let slot = self.find(task)?;
        // SAFETY: found alive.
        Some(make_extras(unsafe { slot.as_ref() }))
    }

    /// The task's side record, if it has one.
    pub(crate) fn extras_if_any(&self, task: TaskRef) -> Option<Rc<RefCell<Extras>>> {
        let slot = self.find(task)?;
        // SAFETY: found alive.
        let header = unsafe { slot.as_ref() };
        header.has(EXTRAS).then(|| make_extras(header))
    }

    /// Lets a task run that was held back: it is ready.
    pub(crate) fn release_held(&self, task: TaskRef) {
        if let Some(slot) = self.find(task) {
            // SAFETY: found alive.
            let header = unsafe { slot.as_ref() };
            header.clear(HELD_BACK);
            self.front.enqueue(slot, header);
        }
    }

    /// Takes the task-local values that its end was told under.
    pub(crate) fn take_locals(&self, task: TaskRef) -> [Option<Locals>; 2] {
        self.extras_if_any(task)
            .map_or([None, None], |record| take_locals(&record))
    }

    /// Marks a task for cancelling. What that leads to is the caller's to do.
    pub(crate) fn ask_cancel(&self, task: TaskRef) -> CancelState {
        let Some(slot) = self.find(task) else {
            return CancelState::Finished;
        };
        // SAFETY: found alive.
        let header = unsafe { slot.as_ref() };
        if header.has(ENDED) {
            return CancelState::Finished;
        }
        let running = self.is_on_stack(slot, header);
        if header.has(CANCEL) {
            return CancelState::Asked { running };
        }
        header.set(CANCEL);
        if running {
            // The loop looks for this when the stretch has ended, not after each poll.
            self.interrupt();
            CancelState::Running
        } else {
            CancelState::Waiting
        }
    }

    /// Pins the outcome of a failed task that only its handle keeps, to report it.
    pub(crate) fn pin_unread(&self, task: TaskRef) -> Option<Pinned> {
        let slot = self.find(task)?;
        // SAFETY: found alive.
        let header = unsafe { slot.as_ref() };
        if !header.has(ENDED) || header.has(PINNED) {
            return None;
        }
        header.set(PINNED);
        // SAFETY: the slot is alive and was just pinned by this call.
        Some(unsafe { Pinned::new(self, slot) })
    }

    /// Makes a root: something that is woken like a task and polled by whoever drives.
    #[track_caller]
    pub(crate) fn root(&self) -> Root<'_> {
        Root::new(self)
    }

    /// Gives memory back that no task lives in.
    pub(crate) fn shrink(&self) {
        self.compact();
        self.pages.shrink(&self.front);
    }

    // --- ending -----------------------------------------------------------------------------------------------------

    /// [`vacate`](Self::vacate) for the ordinary case: no side record, not queued, not dedicated, and the owner is there.
    #[inline]
    fn vacate_plain(&self, slot: NonNull<Header>) {
        // SAFETY: the callers hold an occupied slot.
        let header = unsafe { slot.as_ref() };
        debug_assert!(
            !header.has(EXTRAS | MEMBER | QUEUED | slots::DEDICATED | PINNED | RUNNING | VACANT)
        );
        header.leave(0);
        // SAFETY: just vacated, not queued, in a page, and the table is that of the tenant for which it was taken.
        unsafe { self.pages.give_paged(slot, header.vtable.get().class) };
    }

    /// Makes a slot vacant whose future is gone and whose outcome nobody keeps (A3).
    fn vacate(&self, slot: NonNull<Header>) {
        self.vacate_slot(slot);
        if self.one_less() {
            // SAFETY: the callers borrow the arena from something that counts by itself.
            unsafe { Arena::disinherit(NonNull::from(self)) };
        }
    }

    /// One slot less that is lived in. Whether that was the last, and the owner is gone too.
    fn one_less(&self) -> bool {
        let heirs = self.heirs.get().map(|heirs| heirs - 1);
        self.heirs.set(heirs);
        heirs == Some(0)
    }

    fn vacate_slot(&self, slot: NonNull<Header>) {
        // SAFETY: the callers hold an occupied slot.
        let header = unsafe { slot.as_ref() };
        let mut flags = header.flags.get();
        debug_assert!(
            flags & ENDED != 0 && flags & (STORED | CLAIMED | PINNED | RUNNING | VACANT) == 0
        );
        if flags & (EXTRAS | MEMBER) != 0 {
            // There is no token, and none is to be made by whoever looks meanwhile.
            header.set(PINNED);
            self.drop_extras(slot);
            // What is dropped there may have driven, which takes entries out of the queue.
            flags = header.flags.get();
        }
        header.leave(QUEUED | slots::DEDICATED);
        if flags & QUEUED != 0 {
            if self.front.queue.add_limbo() {
                self.compact();
            }
            return;
        }
        let vtable = header.vtable.get();
        // SAFETY: just vacated, not queued, and the table is that of the tenant for which it was taken.
        unsafe {
            self.pages
                .give(slot, vtable.class, vtable.layout, &self.front)
        };
    }

    #[cold]
    fn drop_extras(&self, slot: NonNull<Header>) {
        self.drop_membership(slot);
        // SAFETY: the caller holds an occupied slot.
        let record = take_extras(unsafe { slot.as_ref() });
        let Some(record) = record else {
            return;
        };
        // Callbacks and a foreign awaiter were taken out before (by the token, under `catch`); what remains is ours. So were
        // the task-local values, but for where no scheduler comes to it any more.
        let [inherited, ended_in] = take_locals(&record).map(|locals| {
            // User code: Drop of task-local values.
            locals.map_or(Ok(()), Locals::release)
        });
        // Ours, as said, but for what a foreign waker's clone has put there after the end.
        // User code: Drop of a foreign waker.
        let dropped = [inherited, ended_in, catch_drop(record)];
        for panic in dropped.into_iter().filter_map(Result::err) {
            drop(bury(panic));
        }
    }

    /// A vacated slot's entry came out of the run queue: now it can be let again.
    #[cold]
    fn leave_limbo(&self, slot: NonNull<Header>) {
        // SAFETY: a slot stays valid until its entry is out.
        let header = unsafe { slot.as_ref() };
        header.clear(QUEUED);
        let vtable = header.vtable.get();
        // SAFETY: vacant, and no longer queued.
        unsafe {
            self.pages
                .give(slot, vtable.class, vtable.layout, &self.front)
        };
    }

    #[cold]
    fn compact(&self) {
        let mut gone = Vec::new();
        self.front.queue.compact(|slot| {
            // SAFETY: queued slots are valid.
            let vacant = unsafe { slot.as_ref() }.has(VACANT);
            if vacant {
                gone.push(slot);
            }
            !vacant
        });
        for slot in gone {
            self.leave_limbo(slot);
        }
    }

    /// A count of its own.
    fn share(&self) -> Rc<Arena> {
        let this: *const Arena = self.endpoint.owner().cast_const().cast();
        debug_assert!(ptr::eq(this, self));
        // SAFETY: the owner's pointer came from `Rc::as_ptr` (`Owner::new`) and names this arena until it is dropped;
        // it is alive, being borrowed.
        unsafe { Rc::increment_strong_count(this) };
        // SAFETY: the same, and the count was taken just now.
        unsafe { Rc::from_raw(this) }
    }

    /// Vacates a slot by its claim.
    ///
    /// # Safety
    ///
    /// The slot is this arena's, and so far lived in. The arena may be gone afterwards.
    unsafe fn vacate_claimed(this: NonNull<Arena>, slot: NonNull<Header>) {
        let last = {
            // SAFETY: alive, as it has a tenant.
            let arena = unsafe { this.as_ref() };
            arena.vacate_slot(slot);
            arena.one_less()
        };
        if last {
            // SAFETY: alive until now, and not touched after.
            unsafe { Arena::disinherit(this) };
        }
    }

    /// The owner goes, and the last tenant does: gives the count back that they had together.
    ///
    /// # Safety
    ///
    /// That count has not been given back, and there is another one or the arena is not touched any more.
    #[cold]
    unsafe fn disinherit(this: NonNull<Arena>) {
        // SAFETY: alive by the count that is given back here.
        let arena = unsafe { this.as_ref() };
        // The pointer that `Rc::as_ptr` gave: counting needs one that is good for the counters too.
        let counted: *const Arena = arena.endpoint.owner().cast_const().cast();
        let legacy = arena.legacy.take();
        // User code: Drop of what users gave the host. It contains that; and whatever it does, the count below is given back.
        if let Err(panic) = catch_drop(legacy) {
            drop(bury(panic));
        }
        // SAFETY: the count that `Owner::new` took. It may be the last one.
        unsafe { Rc::decrement_strong_count(counted) };
    }

    /// The owner goes. What it could not end keeps the arena for ever: a future that was not dropped keeps its memory (A1).
    fn lose_owner(&self) {
        let heirs = self.count_heirs();
        self.heirs.set(Some(heirs));
        if heirs == 0 {
            // SAFETY: the owner has a count of its own.
            unsafe { Arena::disinherit(NonNull::from(self)) };
        }
    }

    /// How many slots are lived in.
    fn count_heirs(&self) -> usize {
        self.pages.occupied(&self.front).len()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // Vacated slots that are still queued: an allocation of their own is freed when the entry comes out.
        self.compact();
        self.endpoint.forget_owner();
        // User code: Drop of the wake hook's captures, which contains itself (`scheduler::hosting::Hook`).
        self.endpoint.set_host(None);
        self.drop_hook_panics();
        table::release(self.endpoint);
    }
}

fn take_locals(record: &RefCell<Extras>) -> [Option<Locals>; 2] {
    let mut record = record.borrow_mut();
    [record.inherited.take(), record.ended_in.take()]
}

/// A panic that came out of dropping what a cell held.
type Dropped = Result<(), Box<Panic>>;
