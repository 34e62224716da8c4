//! A stand-in for crossbeam's `SegQueue`: the same promises (linearisable, first in first out, what was done before a
//! push is visible after the pop), none of the algorithm.

use std::collections::VecDeque;

use loom::sync::{Mutex, MutexGuard};

/// An unbounded queue. Its operations are points at which loom switches threads.
pub(crate) struct SegQueue<T> {
    items: Mutex<VecDeque<T>>,
}

impl<T> SegQueue<T> {
    pub(crate) fn new() -> Self {
        SegQueue {
            items: Mutex::new(VecDeque::new()),
        }
    }

    fn items(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.items.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn push(&self, item: T) {
        self.items().push_back(item);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.items().pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.items().len()
    }
}
