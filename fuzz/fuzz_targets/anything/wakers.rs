//! Wakers of which every part is user code.

use std::task::{Context, Waker};

use cooked_waker::{IntoWaker, Wake, WakeRef};

use crate::canary::Wild;
use crate::contained::lenient;

#[derive(Debug)]
struct Foreign(Wild);

impl Clone for Foreign {
    fn clone(&self) -> Self {
        self.0.run();
        Foreign(Wild::new())
    }
}

impl WakeRef for Foreign {
    fn wake_by_ref(&self) {
        self.0.run();
    }
}

// By value: as by reference, then the destructor.
impl Wake for Foreign {}

/// Calls `poll` with a foreign waker, whose own panics are the caller's.
pub(crate) fn with_foreign<R>(poll: impl FnOnce(&mut Context<'_>) -> R) -> R {
    let waker: Waker = Box::new(Foreign(Wild::new())).into_waker();
    let polled = poll(&mut Context::from_waker(&waker));
    lenient(|| drop(waker));
    polled
}
