//! The waker of whoever polls a `run_until`: the way in which other threads, and this one between two turns, ask for a turn.
//!
//! - **O1** It is set before the turn takes the token and looks at its queues. So a wake that this turn does not see finds it.
//! - **O2** It is taken out to be called, and called outside of the lock: it is foreign, and so are its clone and its drop. One
//!   call is enough until the next turn, which sets it again.

use std::task::Waker;

use crate::sync::Mutex;

/// See the module documentation.
pub(crate) struct Outer {
    waker: Mutex<Option<Waker>>,
}

impl Outer {
    pub(crate) fn new() -> Self {
        Outer {
            waker: Mutex::new(None),
        }
    }

    /// One step under the lock: it moves a waker and does nothing else.
    fn step<R>(&self, step: impl FnOnce(&mut Option<Waker>) -> R) -> R {
        step(&mut self.waker.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Sets who is to be woken. Gives the one that is no longer, to be dropped. Home thread, at the beginning of a turn.
    ///
    /// User code: clone of a foreign waker.
    #[must_use = "a foreign waker is to be dropped with care"]
    pub(crate) fn set(&self, waker: &Waker) -> Option<Waker> {
        // `will_wake` compares two words: no user code.
        if self.step(|set| set.as_ref().is_some_and(|set| set.will_wake(waker))) {
            return None;
        }
        let waker = waker.clone();
        self.step(|set| set.replace(waker))
    }

    /// Takes whoever is to be woken, if the wake since the last turn is the first. Any thread.
    #[must_use = "it is to be woken"]
    pub(crate) fn take(&self) -> Option<Waker> {
        self.step(Option::take)
    }
}

impl std::fmt::Debug for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outer").finish_non_exhaustive()
    }
}
