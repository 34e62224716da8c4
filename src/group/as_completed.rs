//! `as_completed`: outcomes as they come.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_core::stream::FusedStream;

use crate::arena::cell::Plain;
use crate::error::JoinError;

use super::batch::{Batch, Batched, Pull};

/// Runs all of them at once, each as a task, and gives their outcomes as they come, each with its place in the batch.
///
/// A failure is one of the outcomes: it is handed on here, reported nowhere else, and cancels nobody. (asyncio's later
/// failures are lost when the loop over them is left early, and aiotools tells each twice.) The stream has no end of its own
/// making: it ends when all of them have been given.
///
/// Nothing is started before it is polled. It may be given futures, or [`handles`](crate::handles) of tasks.
///
/// # Panics
///
/// When polled outside of a running executor; when the iterator panics.
///
/// # Cancel safety
///
/// Dropping the stream cancels what has not ended: destructors have run when the drop returns. Failures that were not given
/// are reported. Dropping [`next`](AsCompleted::next) loses nothing.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::{Executor, as_completed, sleep};
///
/// let ex = Executor::builder().virtual_clock().build();
/// let order = ex.block_on(async {
///     let mut outcomes = as_completed([30, 10, 20].map(|ms| async move {
///         sleep(Duration::from_millis(ms)).await;
///         ms
///     }));
///     let mut order = Vec::new();
///     while let Some((place, outcome)) = outcomes.next().await {
///         order.push((place, outcome.unwrap()));
///     }
///     order
/// });
/// assert_eq!(order, [(1, 10), (2, 20), (0, 30)]);
/// ```
#[doc(alias = "FuturesUnordered")]
#[track_caller]
pub fn as_completed<B: Batch>(futures: B) -> AsCompleted<B> {
    AsCompleted {
        batch: Batched::new("as_completed", futures, None),
        over: false,
    }
}

/// [`as_completed`], with at most `limit` of them at once, those among them whose outcomes have not been given: who is slow
/// to take them slows them down.
///
/// # Panics
///
/// As [`as_completed`], and if `limit` is 0.
///
/// # Cancel safety
///
/// As [`as_completed`].
#[doc(alias = "buffer_unordered")]
#[track_caller]
pub fn as_completed_with_limit<B: Batch>(futures: B, limit: usize) -> AsCompleted<B> {
    AsCompleted {
        batch: Batched::new("as_completed_with_limit", futures, Some(limit)),
        over: false,
    }
}

/// A stream of outcomes. Made by [`as_completed`].
#[must_use = "nothing is started before it is polled"]
pub struct AsCompleted<B: Batch> {
    batch: Batched<B::Pull, Plain>,
    over: bool,
}

impl<B: Batch> AsCompleted<B> {
    /// The next outcome, with its place in the batch; `None` when all have been given.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<(usize, Result<B::Output, JoinError>)> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<<Self as Stream>::Item>> {
        let next = std::task::ready!(self.batch.poll_next(cx));
        self.over = next.is_none();
        Poll::Ready(next.map(|done| (done.order, done.take())))
    }
}

// Nothing in it is ever pinned: the tasks' futures are in the arena.
impl<B: Batch> Unpin for AsCompleted<B> {}

impl<B: Batch> Stream for AsCompleted<B> {
    type Item = (usize, Result<B::Output, JoinError>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl<B: Batch> FusedStream for AsCompleted<B> {
    fn is_terminated(&self) -> bool {
        self.over
    }
}

impl<B: Batch> fmt::Debug for AsCompleted<B>
where
    B::Pull: Pull,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted")
            .field("batch", &self.batch)
            .finish()
    }
}
