//! What other threads leave for one executor: messages, and hints at outcomes that were taken or given up elsewhere.
//!
//! Made with the executor and closed with it, unlike the endpoint, which serves one executor after the other.
//!
//! - **I1** The queue decides about a message: one that it took before it was closed is run or dropped at home, one that
//!   comes later is handed back, and there is nothing in between.
//! - **I2** What is left here is published before the token is set, as everywhere.
//! - **I3** A hint carries nothing: the fact is in the [`Handover`](super::handover::Handover) that it names, and whoever
//!   ends the executor looks there. So a hint that comes too late is lost without harm.

use concurrent_queue::ConcurrentQueue;
use crossbeam_queue::SegQueue;

use super::endpoint::Endpoint;

/// See the module documentation. `M` is a message.
pub(crate) struct Inbox<M> {
    queue: ConcurrentQueue<M>,
    /// Ids of tasks whose outcomes are somebody's now.
    hints: SegQueue<u64>,
    endpoint: &'static Endpoint,
    /// The executor's thread.
    home: u64,
}

impl<M> Inbox<M> {
    pub(crate) fn new(endpoint: &'static Endpoint, home: u64) -> Self {
        Inbox {
            queue: ConcurrentQueue::unbounded(),
            hints: SegQueue::new(),
            endpoint,
            home,
        }
    }

    pub(crate) fn endpoint(&self) -> &'static Endpoint {
        self.endpoint
    }

    /// The number of the executor's thread.
    pub(crate) fn home(&self) -> u64 {
        self.home
    }

    /// Leaves a message. Any thread.
    ///
    /// # Errors
    ///
    /// The message itself, if the executor is gone (I1).
    pub(crate) fn send(&self, message: M) -> Result<(), M> {
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
    pub(crate) fn take(&self) -> Option<M> {
        self.queue.pop().ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// From here on messages are handed back. Home thread.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Says that it is worth looking at this task's handover. Any thread.
    pub(crate) fn hint(&self, task: u64) {
        self.hints.push(task);
        self.endpoint.notify();
    }

    /// The next hint. Home thread.
    pub(crate) fn next_hint(&self) -> Option<u64> {
        self.hints.pop()
    }

    /// How many hints are waiting: what one look may take.
    pub(crate) fn hints(&self) -> usize {
        self.hints.len()
    }
}

impl<M> std::fmt::Debug for Inbox<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("len", &self.queue.len())
            .finish_non_exhaustive()
    }
}
