//! Stand-ins for crossbeam's `SegQueue` and for `ConcurrentQueue`: the same promises (linearisable, first in first out, what
//! was done before a push is visible after the pop; after `close` no push is taken), none of the algorithms.

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

/// An unbounded queue that can be closed.
#[derive(Debug)]
pub(crate) struct ConcurrentQueue<T> {
    state: Mutex<Closable<T>>,
}

#[derive(Debug)]
struct Closable<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// What was to be pushed, when it was too late.
#[derive(Debug)]
pub(crate) struct PushError<T>(T);

impl<T> PushError<T> {
    pub(crate) fn into_inner(self) -> T {
        self.0
    }
}

/// There is nothing to pop.
#[derive(Debug)]
pub(crate) struct PopError;

impl<T> ConcurrentQueue<T> {
    pub(crate) fn unbounded() -> Self {
        ConcurrentQueue {
            state: Mutex::new(Closable {
                items: VecDeque::new(),
                closed: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, Closable<T>> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn push(&self, item: T) -> Result<(), PushError<T>> {
        let mut state = self.state();
        if state.closed {
            return Err(PushError(item));
        }
        state.items.push_back(item);
        Ok(())
    }

    pub(crate) fn pop(&self) -> Result<T, PopError> {
        self.state().items.pop_front().ok_or(PopError)
    }

    pub(crate) fn len(&self) -> usize {
        self.state().items.len()
    }

    pub(crate) fn close(&self) -> bool {
        !std::mem::replace(&mut self.state().closed, true)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }
}
