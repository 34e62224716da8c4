//! Dropping what is spawned on an executor that is gone.
//!
//! The future is dropped unpolled, by the spawn itself. Its destructor may spawn the next one on the same executor, and
//! so on; so that a chain of these does not recurse, the outermost spawn drops them all, one after the other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ptr::NonNull;

use crate::unwind::{Panic, catch, catch_drop};

use super::Gate;

/// How many futures one spawn drops at most: a destructor that spawns its like would go on for ever. What comes after
/// this many is leaked, and reported. Far above any chain that ends.
pub(crate) const MAX_AFTERLIFE: usize = 1_000_000;

/// A future on the heap whose type was forgotten.
struct Erased {
    future: NonNull<()>,
    /// # Safety
    ///
    /// To be called once, with `future`, while what the future borrows is alive.
    drop: unsafe fn(NonNull<()>),
}

impl Erased {
    fn new<F>(future: F) -> Self {
        unsafe fn drop_boxed<F>(future: NonNull<()>) {
            // SAFETY: `future` came from `Box::into_raw` below, for this `F`, and is dropped once.
            drop(unsafe { Box::from_raw(future.cast::<F>().as_ptr()) });
        }
        Erased {
            future: NonNull::from(Box::leak(Box::new(future))).cast(),
            drop: drop_boxed::<F>,
        }
    }
}

/// The outermost spawn on a gone executor, while it drops.
struct Wake {
    serial: u64,
    waiting: VecDeque<Erased>,
    buried: usize,
}

thread_local! {
    static WAKE: RefCell<Option<Wake>> = const { RefCell::new(None) };
}

/// What came of a refused future.
pub(crate) enum Refused {
    /// It was dropped, or will be before the outermost such call returns.
    Dropped,
    /// The chain did not end; this one was leaked. Said once per chain.
    Leaked,
}

/// Drops a future that came too late for the executor of `gate`. Panics of destructors go to `tell`.
pub(crate) fn refuse<'env, F: 'env>(
    gate: Gate<'env>,
    future: F,
    tell: &dyn Fn(Box<Panic>),
) -> Refused {
    enum Place<F> {
        Outermost(F),
        Waiting,
        TooMany(F, bool),
    }
    let place = WAKE.try_with(|wake| {
        let mut wake = wake.borrow_mut();
        match &mut *wake {
            // Deferring is sound only within a call for the same executor: its 'env then began before that call,
            // because the executor did, and lasts beyond it, because a region that is alive in a nested call and
            // began before the outer one covers the whole outer call. With another executor, made and dropped by a
            // destructor in between, what the future borrows may end with that destructor.
            Some(outer) if outer.serial == gate.serial => {
                outer.buried += 1;
                if outer.buried > MAX_AFTERLIFE {
                    Place::TooMany(future, outer.buried == MAX_AFTERLIFE + 1)
                } else {
                    outer.waiting.push_back(Erased::new(future));
                    Place::Waiting
                }
            }
            _ => Place::Outermost(future),
        }
    });
    match place {
        Ok(Place::Waiting) => Refused::Dropped,
        Ok(Place::TooMany(future, first)) => {
            #[expect(
                clippy::mem_forget,
                reason = "a chain without end can only be leaked, and this is reported"
            )]
            std::mem::forget(future);
            if first {
                Refused::Leaked
            } else {
                Refused::Dropped
            }
        }
        Ok(Place::Outermost(future)) => {
            drop_all(gate.serial, future, tell);
            Refused::Dropped
        }
        // The thread-local is gone, and `future` with the closure that would have moved it.
        Err(_) => Refused::Dropped,
    }
}

fn drop_all<F>(serial: u64, future: F, tell: &dyn Fn(Box<Panic>)) {
    struct Restore(Option<Wake>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let outer = self.0.take();
            let inner = WAKE.try_with(|wake| wake.replace(outer));
            drop(inner);
        }
    }
    let outer = WAKE.with(|wake| {
        wake.replace(Some(Wake {
            serial,
            waiting: VecDeque::new(),
            buried: 0,
        }))
    });
    let _restore = Restore(outer);
    // User code: Drop of the future.
    if let Err(panic) = catch_drop(future) {
        tell(panic);
    }
    loop {
        let next = WAKE.with(|wake| {
            wake.borrow_mut()
                .as_mut()
                .and_then(|wake| wake.waiting.pop_front())
        });
        let Some(erased) = next else { break };
        // User code: Drop of the future.
        // SAFETY: taken off the list, hence once; what it borrows is alive, see `refuse`.
        if let Err(panic) = catch(|| unsafe { (erased.drop)(erased.future) }) {
            tell(panic);
        }
    }
}
