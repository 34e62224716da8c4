//! The inbox: closures from other threads.

use std::any::Any;
use std::rc::Rc;

use concurrent_queue::ConcurrentQueue;

use crate::remote::endpoint::Endpoint;

use super::Scheduler;

/// A closure that another thread has left. Run at home, with the scheduler.
pub(crate) trait Message: Send {
    fn run(self: Box<Self>, scheduler: &Rc<Scheduler>);

    /// Back to what it was, for a sender who came too late.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Shared by an executor and its spawners.
pub(crate) struct Inbox {
    queue: ConcurrentQueue<Box<dyn Message>>,
    endpoint: &'static Endpoint,
}

impl Inbox {
    pub(crate) fn new(endpoint: &'static Endpoint) -> Self {
        Inbox {
            queue: ConcurrentQueue::unbounded(),
            endpoint,
        }
    }

    /// Leaves a message. Any thread.
    ///
    /// # Errors
    ///
    /// The message itself, if the executor is gone. The queue decides: one that it took before it was closed is run or
    /// dropped at home, one that comes later is handed back, and there is nothing in between.
    pub(crate) fn send(&self, message: Box<dyn Message>) -> Result<(), Box<dyn Message>> {
        self.queue
            .push(message)
            .map_err(|refused| refused.into_inner())?;
        // The executor may be gone by now, and its endpoint another's: then this is a spurious look.
        self.endpoint.notify();
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// The oldest message. Home thread.
    pub(super) fn take(&self) -> Option<Box<dyn Message>> {
        self.queue.pop().ok()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn close(&self) {
        self.queue.close();
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("len", &self.queue.len())
            .finish_non_exhaustive()
    }
}
