//! The front of an arena: all that a wake needs, and where this thread finds it.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use crate::home;
use crate::key::Key;
use crate::remote::endpoint::Endpoint;

use super::pages::Table;
use super::queue::RunQueue;
use super::record::reference;
use super::slots::{CALL, ENDED, Header, QUEUED, ROOT, VACANT, WOKEN};
use super::{Arena, TaskRef};

/// See the module documentation.
pub(crate) struct Front {
    /// A slot to be tried before the table: the task that was polled last, or one that was woken while it was queued. Both
    /// are likely to be woken next (a task wakes itself more often than any other does). Always a header that lives.
    near: Cell<NonNull<Header>>,
    /// The slot on the poll stack, or null. While nobody can look, between two polls of a stretch, that of the last poll,
    /// which may be vacant by then. Always a header that lives.
    running: Cell<*mut Header>,
    pub(super) queue: RunQueue,
    pub(super) table: Table,
    /// The executor's id, the high field of its keys.
    executor: u32,
    /// `LOOK` and `HAIL`: why the loop may not simply begin the next pass.
    attention: Cell<u8>,
}

/// There is more to see to than tasks.
const LOOK: u8 = 1;
/// A root was woken.
const HAIL: u8 = 2;

impl Front {
    /// `nowhere` is a vacant header that lives as long as the front.
    pub(super) fn new(executor: u32, nowhere: NonNull<Header>) -> Self {
        Front {
            near: Cell::new(nowhere),
            running: Cell::new(ptr::null_mut()),
            queue: RunQueue::new(),
            table: Table::new(),
            executor,
            attention: Cell::new(LOOK),
        }
    }

    #[inline]
    pub(super) fn executor(&self) -> u32 {
        self.executor
    }

    pub(crate) fn is_of(&self, executor: u32) -> bool {
        self.executor == executor
    }

    /// Wakes whom `key` names, if it names somebody here.
    #[inline(always)]
    pub(crate) fn wake(&self, key: usize) -> bool {
        let near = self.near.get();
        // SAFETY: what is near lives (`set_near`).
        let header = unsafe { near.as_ref() };
        if header.key.get() == key {
            // Never a root.
            self.enqueue_waiting(near, header);
            return true;
        }
        let Some(slot) = self.table.slot(Key::<usize>::from_word(key).index()) else {
            return false;
        };
        // SAFETY: frames lead to headers that live until the frame leads elsewhere.
        let header = unsafe { slot.as_ref() };
        // Two keys of different executors differ, so that this one comparison is all.
        if header.key.get() != key {
            return false;
        }
        self.enqueue(slot, header);
        true
    }

    /// Queues a slot whose key was asked for, if it is a task that waits.
    #[inline(always)]
    pub(super) fn enqueue(&self, slot: NonNull<Header>, header: &Header) {
        if self.enqueue_waiting(slot, header) {
            return;
        }
        let flags = header.flags.get();
        if flags & QUEUED != 0 {
            // Whoever is woken twice before its turn is likely to be woken a third time.
            self.near.set(slot);
        } else if flags & ROOT != 0 {
            header.flags.set(flags | WOKEN);
            self.attention.set(self.attention.get() | HAIL);
        }
    }

    #[inline(always)]
    fn enqueue_waiting(&self, slot: NonNull<Header>, header: &Header) -> bool {
        let flags = header.flags.get();
        let waits = flags & (QUEUED | ENDED) == 0;
        if waits {
            header.flags.set(flags | QUEUED);
            self.queue.push(slot);
        }
        waits
    }

    /// Has the loop see to more than tasks when the present pass is over.
    #[inline]
    pub(super) fn ask_attention(&self) {
        self.attention.set(self.attention.get() | LOOK);
    }

    /// Says whether, from now on, there is more to see to than tasks.
    #[inline]
    pub(super) fn set_attention(&self, look: bool) {
        let hail = self.attention.get() & HAIL;
        self.attention.set(hail | if look { LOOK } else { 0 });
    }

    /// A root is being seen to.
    #[inline]
    pub(super) fn answer_hail(&self) {
        self.attention.set(self.attention.get() & !HAIL);
    }

    /// Whether there is no more to see to than tasks.
    #[inline]
    pub(super) fn is_undisturbed(&self) -> bool {
        self.attention.get() == 0
    }

    /// Whether there is more to see to than tasks and roots.
    #[inline]
    pub(super) fn is_attention_asked(&self) -> bool {
        self.attention.get() & LOOK != 0
    }

    /// Forgets vacant slots, whose memory is to go; `nowhere` is not in it.
    pub(super) fn forget_vacant(&self, nowhere: NonNull<Header>) {
        self.set_near(nowhere);
        // SAFETY: it lives, as whoever frees memory calls this before.
        let polled_last = self.running().map(|slot| unsafe { slot.as_ref() });
        if polled_last.is_some_and(|header| header.has(VACANT)) {
            self.set_running(None);
        }
    }

    /// Makes `slot`, which lives, the one that is tried first. Who frees its memory calls [`forget_vacant`](Self::forget_vacant).
    #[inline]
    pub(super) fn set_near(&self, slot: NonNull<Header>) {
        self.near.set(slot);
    }

    /// The slot on the poll stack.
    #[inline]
    pub(super) fn running(&self) -> Option<NonNull<Header>> {
        NonNull::new(self.running.get())
    }

    /// The task on the poll stack; none while a callback is.
    pub(crate) fn running_task(&self) -> Option<TaskRef> {
        // SAFETY: the slot of the last poll lives (`forget_vacant`).
        let header = unsafe { self.running()?.as_ref() };
        (!header.has(CALL)).then(|| reference(header))
    }

    /// Puts another slot on top of the poll stack; gives the one before.
    #[inline]
    pub(super) fn set_running(&self, slot: Option<NonNull<Header>>) {
        self.running
            .set(slot.map_or(ptr::null_mut(), NonNull::as_ptr));
    }

    #[inline]
    pub(super) fn is_running(&self, slot: NonNull<Header>) -> bool {
        self.running.get() == slot.as_ptr()
    }
}

/// More than any key has room for.
const NOT_AN_EXECUTOR: u32 = <Key>::MAX_EXECUTOR + 1;

/// What stands where no arena is driven: no key leads anywhere from here. So a wake need not ask whether there is one.
struct Nobody {
    header: Header,
    front: Front,
}

// SAFETY: it is never written to: no key leads to its header through the empty table, and a word that is made to equal that
// of the header, which no key does, finds it ended, not queued and no root, whereupon `enqueue` does nothing.
unsafe impl Sync for Nobody {}

static NOBODY: Nobody = Nobody {
    header: Header::vacant(0, 0),
    front: Front {
        near: Cell::new(NonNull::new((&raw const NOBODY.header).cast_mut()).unwrap()),
        running: Cell::new(ptr::null_mut()),
        queue: RunQueue::new(),
        table: Table::new(),
        executor: NOT_AN_EXECUTOR,
        attention: Cell::new(0),
    },
};

thread_local! {
    /// The front of the arena that is being driven on this thread, the innermost if drives are nested; it is borrowed by a
    /// frame of `Owner::drive` up the stack. Const-initialised and without a destructor, so that a wake from a
    /// thread-local's destructor finds it too.
    static CURRENT: Cell<*const Front> = const { Cell::new(&raw const NOBODY.front) };
}

/// Looks at the front of the innermost driven arena of this thread. If there is none, nobody is found in it.
#[inline(always)]
pub(crate) fn with_current<R>(look: impl FnOnce(&Front) -> R) -> R {
    let current = CURRENT.get();
    // SAFETY: it is `NOBODY`'s, or that of an arena which a frame up this stack borrows (`enter`).
    look(unsafe { &*current })
}

/// Looks at the front of the arena that owns `endpoint`, and whether it is being driven, if it is this thread's.
pub(crate) fn with_home<R>(endpoint: &Endpoint, look: impl FnOnce(&Front, bool) -> R) -> Option<R> {
    let arena: NonNull<Arena> = endpoint.owner_at_home(home::here())?.cast();
    // SAFETY: an arena names itself there from its making until its drop, both on this thread. So it is alive now, and stays
    // so during `look`, which calls no user code that could drop it.
    let arena = unsafe { arena.as_ref() };
    Some(look(&arena.front, arena.is_driven()))
}

/// The innermost driven arena of this thread, if it is that of `executor`.
#[inline]
pub(super) fn current_arena(executor: u32) -> Option<NonNull<Arena>> {
    let current = CURRENT.get();
    // SAFETY: as in `with_current`.
    if unsafe { &*current }.executor != executor {
        return None;
    }
    // SAFETY: not null (`NOBODY`'s neither). It is not that one, as no key names `NOT_AN_EXECUTOR`: an arena starts with its
    // front, and the pointer was made from one to all of it (`enter`).
    Some(unsafe { NonNull::new_unchecked(current.cast_mut().cast()) })
}

/// Makes an arena the current one; gives what was current before.
///
/// # Safety
///
/// The arena is borrowed until the same thread calls [`leave`] with the result.
pub(super) unsafe fn enter(arena: &Arena) -> *const Front {
    CURRENT.replace(ptr::from_ref(arena).cast())
}

/// Undoes [`enter`].
///
/// # Safety
///
/// `before` is what the latest `enter` gave that was not undone.
pub(super) unsafe fn leave(before: *const Front) {
    CURRENT.set(before);
}
