//! Where futures and outputs live: sizes, alignments, stable addresses, reuse, and that each is dropped exactly once. What
//! is allocated, and when, is for `tests/alloc.rs`.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::{Future, pending, poll_fn};
use std::marker::PhantomPinned;
use std::num::NonZeroU8;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread;

use mainstay::{Executor, JoinHandle, TaskId, yield_now};

use crate::support::{
    DropLog, Event, Recorder, check_accounting, counts, holding, on_drop, yield_n,
};
use crate::wake::Probe;

/// Runs `f` on a stack of 64 MiB: what is spawned is an argument first, however large it is.
fn on_a_large_stack(f: impl FnOnce() + Send + 'static) {
    thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(f)
        .expect("the thread starts")
        .join()
        .unwrap_or_else(|payload| resume_unwind(payload));
}

/// A future of a chosen size, which checks at each poll that nobody moved it or wrote over it.
struct Canary<const N: usize> {
    filling: u8,
    polls_left: usize,
    address: Cell<usize>,
    bytes: [u8; N],
    _pinned: PhantomPinned,
}

impl<const N: usize> Canary<N> {
    fn new(filling: u8, polls_left: usize) -> Self {
        Self {
            filling,
            polls_left,
            address: Cell::new(0),
            bytes: [filling; N],
            _pinned: PhantomPinned,
        }
    }

    fn check(&self) {
        let address = ptr::from_ref(self).addr();
        let earlier = self.address.replace(address);
        assert!(earlier == 0 || earlier == address, "it was moved");
        assert!(self.bytes.iter().all(|byte| *byte == self.filling));
    }
}

impl<const N: usize> Future for Canary<N> {
    type Output = [u8; N];

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<[u8; N]> {
        self.check();
        if self.polls_left == 0 {
            return Poll::Ready(self.bytes);
        }
        cx.waker().wake_by_ref();
        let left = self.polls_left - 1;
        // Written back through a projection that `Canary` offers for its counter alone.
        *polls_left(self) = left;
        Poll::Pending
    }
}

/// The counter of a pinned canary, which is not pinned itself.
fn polls_left<const N: usize>(canary: Pin<&mut Canary<N>>) -> &mut usize {
    todo!()
}

impl<const N: usize> Drop for Canary<N> {
    fn drop(&mut self) {
        self.check();
    }
}
