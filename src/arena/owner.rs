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

    /// Runs `f` with leave to poll and drop. Nesting is the caller's to refuse.
    #[inline]
    pub(crate) fn drive<R>(&self, f: impl FnOnce(Driven<'_>) -> R) -> R {
        struct Restore<'a>(&'a Arena, bool, *const Front);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.set_driven(self.1);
                // SAFETY: drives nest, so that each undoes its own `enter` before those before it do.
                unsafe { leave(self.2) };
            }
        }
        // SAFETY: the owner, and with it the arena, is borrowed until `_restore` is dropped, at the end of this call.
        let before = unsafe { enter(&self.arena) };
        let _restore = Restore(&self.arena, self.arena.is_driven(), before);
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
