//! `CancelHandle`: a task is cancelled from anywhere.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::arena::TaskRef;
use crate::completion::{ASKED, FINISHED};
use crate::driving;
use crate::remote::endpoint::{CancelRequest, Endpoint};
use crate::task::TaskId;

/// Cancels a task, from any thread; `Send`, `Sync` and `Clone`. It keeps nothing alive.
///
/// It names the task by its [`TaskId`], which is never reused, so that a stale one hits nobody.
#[derive(Clone)]
pub struct CancelHandle {
    state: Arc<AtomicU8>,
    id: TaskId,
    index: u32,
    endpoint: Option<&'static Endpoint>,
}

impl CancelHandle {
    /// `endpoint` is none where there is nobody to ask any more.
    pub(crate) fn new(
        state: Arc<AtomicU8>,
        id: TaskId,
        index: u32,
        endpoint: Option<&'static Endpoint>,
    ) -> Self {
        CancelHandle {
            state,
            id,
            index,
            endpoint,
        }
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.state.load(Ordering::Acquire) & FINISHED != 0
    }

    /// Cancels the task. Returns `false` if it had already finished.
    ///
    /// On the executor's thread while it is being driven, this is [`JoinHandle::cancel`](crate::JoinHandle::cancel). Elsewhere it is handed over:
    /// the next pass drops the future, on the executor's thread, and this call does not wait for it. It never blocks.
    pub fn cancel(&self) -> bool {
        let Some(endpoint) = self.endpoint else {
            return false;
        };
        if self.is_finished() {
            return false;
        }
        let task = TaskRef {
            id: self.id,
            index: self.index,
        };
        if let Some(done) = driving::with(endpoint.id(), |scheduler| scheduler.cancel(task, None)) {
            return done;
        }
        if self.state.fetch_or(ASKED, Ordering::AcqRel) & ASKED != 0 {
            return true;
        }
        endpoint.cancel(CancelRequest {
            index: self.index,
            id: self.id.get(),
            reason: None,
        });
        true
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle")
            .field("id", &self.id.get())
            .field("finished", &self.is_finished())
            .finish()
    }
}
