//! Dropping what is spawned on an executor that is gone.
//!
//! The future is dropped unpolled, by the spawn itself. Its destructor may spawn the next one on the same executor, and
//! so on; so that a chain of these does not recurse, the outermost spawn drops them all, one after the other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ptr::NonNull;

use crate::unwind::{Panic, catch, catch_drop};

use super::owner::Gate;
use super::slots::BORROWS;

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
#[derive(Default)]
struct Wake {
    waiting: VecDeque<Erased>,
    buried: usize,
    /// The end of its patience was reported.
    said: bool,
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
///
/// Only what borrows nothing is deferred. What may borrow is dropped here and now, by the call that names its lifetime: an
/// outer call of this function may last longer than what it borrows (an async body that is resumed within it can end).
pub(crate) fn refuse<'env, F: 'env>(
    gate: Gate<'env>,
    future: F,
    tell: &dyn Fn(Box<Panic>),
) -> Refused {
    let mut future = Some(future);
    let outer = if gate.flags & BORROWS != 0 {
        Outer::None
    } else {
        WAKE.try_with(|wake| match &mut *wake.borrow_mut() {
            None => Outer::None,
            Some(wake) if wake.buried == MAX_AFTERLIFE => {
                Outer::Full(!std::mem::replace(&mut wake.said, true))
            }
            Some(wake) => {
                wake.buried += 1;
                if let Some(future) = future.take() {
                    wake.waiting.push_back(Erased::new(future));
                }
                Outer::Took
            }
        })
        .unwrap_or(Outer::None)
    };
    match outer {
        Outer::Took => Refused::Dropped,
        Outer::Full(first) => {
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
        Outer::None if gate.flags & BORROWS != 0 => {
            // User code: Drop of the future.
            if let Err(panic) = catch_drop(future) {
                tell(panic);
            }
            Refused::Dropped
        }
        Outer::None => {
            drop_all(future, tell);
            Refused::Dropped
        }
    }
}

/// What the outermost call did with a future.
enum Outer {
    /// There is none.
    None,
    Took,
    /// It has dropped as many as it will; `true` if this is said for the first time.
    Full(bool),
}

fn drop_all<F>(future: F, tell: &dyn Fn(Box<Panic>)) {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            drop(WAKE.try_with(|wake| wake.take()));
        }
    }
    // Where the thread-local is gone, nothing is deferred.
    drop(WAKE.try_with(|wake| wake.replace(Some(Wake::default()))));
    let _end = End;
    // User code: Drop of the future.
    if let Err(panic) = catch_drop(future) {
        tell(panic);
    }
    loop {
        let next = WAKE.try_with(|wake| {
            wake.borrow_mut()
                .as_mut()
                .and_then(|wake| wake.waiting.pop_front())
        });
        let Ok(Some(erased)) = next else { break };
        // User code: Drop of the future.
        // SAFETY: taken off the list, hence once; it borrows nothing (`refuse`), so that it may be dropped at any time on
        // this thread.
        if let Err(panic) = catch(|| unsafe { (erased.drop)(erased.future) }) {
            tell(panic);
        }
    }
}
