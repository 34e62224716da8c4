//! The executor's side of an arena.

use std::marker::PhantomData;
use std::rc::Rc;

use crate::home;

use super::Arena;
use super::driven::Driven;
use super::front::{Front, enter, leave};
use super::slots::BORROWS;

#[cold]
pub(super) fn foreign_gate() -> ! {
    unreachable!("a gate is used with the arena that it came from")
}

#[cold]
fn nested() -> ! {
    unreachable!("an arena is not driven within its own drive")
}

/// Leave to insert futures that borrow from `'env` into one certain arena.
#[derive(Clone, Copy)]
pub(crate) struct Gate<'env> {
    pub(super) serial: u64,
    /// `BORROWS`, unless nothing can be borrowed.
    pub(super) flags: u32,
    pub(super) _env: PhantomData<fn(&'env ()) -> &'env ()>,
}

impl Gate<'_> {
    /// Leave to insert what borrows nothing into the same arena.
    pub(crate) fn unbound(self) -> Gate<'static> {
        Gate {
            serial: self.serial,
            flags: 0,
            _env: PhantomData,
        }
    }
}

/// A [`Gate`] that was found to be this arena's.
#[derive(Clone, Copy)]
pub(crate) struct Opened<'a, 'env> {
    pub(super) arena: &'a Arena,
    pub(super) flags: u32,
    pub(super) _env: PhantomData<fn(&'env ()) -> &'env ()>,
}

/// The executor's side of an arena. Invariant in `'env`.
pub(crate) struct Owner<'env> {
    arena: Rc<Arena>,
    _env: PhantomData<fn(&'env ()) -> &'env ()>,
}

impl<'env> Owner<'env> {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let arena = Arena::new();
        arena
            .endpoint
            .set_owner(Rc::as_ptr(&arena).cast_mut().cast(), home::here());
        #[expect(
            clippy::mem_forget,
            reason = "the count that the arena's tenants and this owner have together; `Arena::disinherit` gives it back"
        )]
        std::mem::forget(Rc::clone(&arena));
        Owner {
            arena,
            _env: PhantomData,
        }
    }

    #[inline]
    pub(crate) fn arena(&self) -> &Rc<Arena> {
        &self.arena
    }

    #[inline]
    pub(crate) fn gate(&self) -> Gate<'env> {
        Gate {
            serial: self.arena.serial,
            flags: BORROWS,
            _env: PhantomData,
        }
    }

    /// Runs `f` with leave to poll and drop. Not to be nested.
    #[inline]
    pub(crate) fn drive<R>(&self, f: impl FnOnce(Driven<'_>) -> R) -> R {
        struct Restore<'a>(&'a Arena, *const Front);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.set_driven(false);
                // SAFETY: drives of different arenas nest, so that each undoes its own `enter` before those before it do.
                unsafe { leave(self.1) };
            }
        }
        // A2: the slot that is being polled would be polled again, if it has been woken. The callers say so in their words.
        if self.arena.is_driven() {
            nested();
        }
        // SAFETY: the owner, and with it the arena, is borrowed until `_restore` is dropped, at the end of this call.
        let before = unsafe { enter(&self.arena) };
        let _restore = Restore(&self.arena, before);
        self.arena.set_driven(true);
        // SAFETY: this owner is borrowed for the whole call, and `f` cannot keep what it is given beyond it.
        f(unsafe { Driven::new(&self.arena) })
    }
}

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        // The executor has ended every task before. This is for soundness alone: whatever happened there, no future that
        // borrows from 'env survives its owner. Bounded, as a destructor may spawn its like; what is left is leaked,
        // and never touched again because nothing can drive this arena any more.
        for _ in 0..100 {
            let mut live = self.arena.live();
            live.extend(self.arena.calls());
            if live.is_empty() {
                break;
            }
            self.drive(|driven| {
                for task in live {
                    if let Some(ended) = driven.destroy(task) {
                        drop(ended.pin());
                    }
                }
            });
        }
        self.arena.lose_owner();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::{Future, pending};
    use std::panic::{AssertUnwindSafe, Location, catch_unwind};
    use std::pin::Pin;
    use std::rc::{Rc, Weak};
    use std::task::{Context, Poll};

    use super::Owner;
    use crate::arena::cell::Plain;
    use crate::arena::claim::Claim;
    use crate::arena::{Arena, TaskRef};
    use crate::completion::{Admission, Custody, End, Group, KeptFailure};
    use crate::task::TaskId;

    type Place<T> = Rc<RefCell<Option<T>>>;

    fn insert<F: Future + 'static>(arena: &Arena, future: F) -> Claim<F::Output> {
        let opened = arena.open(arena.static_gate(), || true);
        let opened = opened.expect("its owner is there");
        opened.insert::<F, Plain>(future, Location::caller())
    }

    /// Its destructor inserts its like, up to `left` times. `alive` counts those that have not been dropped.
    struct Hydra {
        arena: Weak<Arena>,
        left: u32,
        alive: Rc<Cell<i32>>,
    }

    impl Hydra {
        fn insert(arena: &Rc<Arena>, left: u32, alive: &Rc<Cell<i32>>) -> Claim<u8> {
            alive.set(alive.get() + 1);
            let hydra = Hydra {
                arena: Rc::downgrade(arena),
                left,
                alive: Rc::clone(alive),
            };
            insert(arena, hydra)
        }
    }

    impl Future for Hydra {
        type Output = u8;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u8> {
            Poll::Pending
        }
    }

    impl Drop for Hydra {
        fn drop(&mut self) {
            self.alive.set(self.alive.get() - 1);
            if let (Some(arena), true) = (self.arena.upgrade(), self.left > 0) {
                drop(Hydra::insert(&arena, self.left - 1, &self.alive));
            }
        }
    }

    // A1: what was pinned keeps its memory until it is dropped. Nobody holds this one, and nothing will ever drop it.
    #[test]
    fn a_future_that_the_owner_could_not_drop_keeps_the_arena() {
        for left in [0, 99, 100, 1_000] {
            let owner = Owner::new();
            let arena = Rc::downgrade(owner.arena());
            let alive = Rc::new(Cell::new(0));
            let claim = Hydra::insert(owner.arena(), left, &alive);
            let finished = insert(owner.arena(), pending::<()>());
            drop(owner);
            let survives = left >= 100;
            assert_eq!(alive.get(), i32::from(survives), "{left}");
            assert!(arena.strong_count() > 0, "two claims are left");
            drop((claim, finished));
            assert_eq!(arena.strong_count() > 0, survives, "{left}");
            if let Some(arena) = arena.upgrade() {
                assert_eq!(arena.live().len(), 1);
                // Neither does giving memory back touch it.
                arena.shrink();
                assert_eq!(arena.live().len(), 1);
            }
        }
    }

    // A1: nor is there anything to keep where all was dropped.
    #[test]
    fn an_arena_goes_with_its_owner_or_its_last_claim() {
        let owner = Owner::new();
        let arena = Rc::downgrade(owner.arena());
        drop(insert(owner.arena(), pending::<()>()));
        let kept = insert(owner.arena(), pending::<()>());
        drop(owner);
        assert_eq!(arena.strong_count(), 1, "the count of those who live on");
        drop(kept);
        assert_eq!(arena.strong_count(), 0);
        let owner = Owner::new();
        let arena = Rc::downgrade(owner.arena());
        drop(insert(owner.arena(), pending::<()>()));
        drop(owner);
        assert_eq!(arena.strong_count(), 0);
    }

    // A3: those who live in an arena when its owner goes are counted then, so that nobody may come later.
    #[test]
    fn nothing_is_inserted_when_the_owner_is_gone() {
        let owner = Owner::new();
        let kept = insert(owner.arena(), pending::<()>());
        let (arena, gate) = (Rc::clone(owner.arena()), owner.gate());
        assert!(arena.open(gate, || true).is_some());
        assert!(arena.open(gate, || false).is_none());
        owner.drive(|_| assert!(arena.open(gate, || false).is_some(), "it need not ask"));
        drop(owner);
        assert!(arena.open(gate, || true).is_none());
        assert!(arena.open(arena.static_gate(), || true).is_none());
        drop(kept);
    }

    // A2: what was taken off the queue is on the poll stack, whatever is called before it is polled.
    #[test]
    fn what_is_to_be_polled_is_not_destroyed() {
        let owner = Owner::new();
        let alive = Rc::new(Cell::new(0));
        drop(Hydra::insert(owner.arena(), 0, &alive));
        owner.drive(|driven| {
            driven.begin_pass();
            assert!(driven.stretch(1));
            let ready = driven.next_ready().expect("it was inserted");
            let task = ready.task();
            assert!(driven.destroy(task).is_none());
            assert!(ready.keep_while(|| driven.destroy(task)).is_none());
            assert!(driven.destroy(task).is_none());
            assert_eq!(alive.get(), 1);
            // Not polled after all.
            drop(ready);
            drop(driven.destroy(task).expect("it waits again").pin());
            assert_eq!(alive.get(), 0);
        });
    }

    /// Its destructor drops the owner of its own arena.
    struct EndsAll(Place<Owner<'static>>);

    impl Drop for EndsAll {
        fn drop(&mut self) {
            drop(self.0.take());
        }
    }

    // A1: a future whose own destructor is running when the owner goes lies in the arena until that returns.
    #[test]
    fn a_future_that_is_being_dropped_keeps_the_arena() {
        let place: Place<Owner<'static>> = Rc::default();
        let owner = Owner::new();
        let arena = Rc::clone(owner.arena());
        let ends = EndsAll(Rc::clone(&place));
        drop(insert(&arena, async move {
            let _ends = ends;
            pending::<()>().await;
        }));
        let task = arena.live()[0];
        place.replace(Some(owner));
        let counted = Rc::downgrade(&arena);
        let ended = arena.destroy_unbound(task).expect("it was alive");
        assert!(place.borrow().is_none());
        drop(ended.pin());
        drop(arena);
        assert_eq!(counted.strong_count(), 0, "and no longer");
    }

    // A2: a task that has woken itself would be polled within its own poll.
    #[test]
    fn an_arena_is_not_driven_within_its_own_drive() {
        let owner = Owner::new();
        let nested = owner.drive(|_| catch_unwind(AssertUnwindSafe(|| owner.drive(|_| {}))));
        assert!(nested.is_err());
        assert!(!owner.arena().is_driven());
        owner.drive(|_| assert!(owner.arena().is_driven()));
    }

    /// A group that cannot take anybody in.
    struct Full;

    impl Group for Full {
        fn refusal(&self) -> Option<&'static str> {
            None
        }

        fn admit(&self, _: TaskId, _: u32) -> Admission {
            panic!("no memory")
        }

        fn custody(&self) -> Custody {
            Custody::Policy
        }

        fn concluded(
            &self,
            _: usize,
            _: End,
            _: Option<KeptFailure>,
        ) -> crate::completion::Awaiter {
            unreachable!("nobody is in it")
        }
    }

    // A panic where a group takes a member in leaves no task behind that nobody knows of.
    #[test]
    fn a_group_that_panics_taking_a_member_in_leaves_no_task() {
        let owner = Owner::new();
        let arena = Rc::downgrade(owner.arena());
        let dropped = Rc::new(());
        let future = std::future::ready(Rc::clone(&dropped));
        let spawn = || {
            let opened = owner.arena().open(owner.gate(), || true).unwrap();
            opened.insert_member::<_, Plain>(Rc::new(Full), future, Location::caller())
        };
        assert!(catch_unwind(AssertUnwindSafe(spawn)).is_err());
        assert_eq!(Rc::strong_count(&dropped), 1);
        let none: [TaskRef; 0] = [];
        assert_eq!(owner.arena().live(), none);
        assert!(!owner.arena().has_ready());
        drop(owner);
        assert_eq!(arena.strong_count(), 0);
    }
}
