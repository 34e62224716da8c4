//! `gather` and its kin: all of a batch, in its order.

use std::fmt::{Debug, Display};
use std::future::Future;

use crate::arena::cell::{Fallible, Judge, Plain};
use crate::error::{JoinError, TaskError};

use super::batch::{Batch, Batched, Done, Pull};
use super::values::Values;

/// Runs all of them at once, each as a task, and gives their values in the order in which they came. The first failure
/// cancels the rest, and is what this gives.
///
/// asyncio's `gather` leaves the others running after the first failure and loses the failures after it. Here the others are
/// gone when this gives its error, and what else has failed meanwhile is reported. A task that was cancelled by itself
/// counts as a failure. Nothing to run gives an empty vector, at once. For values that are `Result`s see [`try_gather`].
///
/// Nothing is started before this is polled. It may be given futures, or [`handles`](crate::handles) of tasks.
///
/// # Panics
///
/// When polled outside of a running executor; when the iterator panics.
///
/// # Cancel safety
///
/// Dropping this cancels all of them: their destructors have run when the drop returns. What had failed is reported.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::{Executor, gather, sleep};
///
/// let ex = Executor::builder().virtual_clock().build();
/// let start = ex.now();
/// let values = ex.block_on(gather((1..=3).map(|n| async move {
///     sleep(Duration::from_secs(10 - n)).await;
///     n
/// })));
/// assert_eq!(values.unwrap(), [1, 2, 3]);
/// assert_eq!((ex.now() - start).as_secs(), 9, "at once");
/// ```
#[doc(alias = "join_all")]
#[track_caller]
pub fn gather<B: Batch>(futures: B) -> impl Future<Output = Result<Vec<B::Output>, JoinError>> {
    all(Batched::<B::Pull, Plain>::new("gather", futures, None))
}

/// [`gather`], with at most `limit` of them at once; the next is taken from the iterator when one has ended.
///
/// # Panics
///
/// As [`gather`], and if `limit` is 0.
///
/// # Cancel safety
///
/// As [`gather`].
#[track_caller]
pub fn gather_with_limit<B: Batch>(
    futures: B,
    limit: usize,
) -> impl Future<Output = Result<Vec<B::Output>, JoinError>> {
    all(Batched::<B::Pull, Plain>::new(
        "gather_with_limit",
        futures,
        Some(limit),
    ))
}

async fn all<P: Pull>(mut batch: Batched<P, Plain>) -> Result<Vec<P::Output>, JoinError> {
    let mut values = Values::new();
    while let Some(done) = batch.next().await {
        let order = done.order;
        values.set(order, done.take()?);
    }
    Ok(values.take().collect())
}

/// Runs all of them at once, each as a task, and gives the values of their `Ok`s in the order in which they came. The first
/// `Err`, panic or cancellation cancels the rest, and is what this gives.
///
/// The rest is as for [`gather`].
///
/// # Panics
///
/// As [`gather`].
///
/// # Cancel safety
///
/// As [`gather`].
///
/// # Examples
///
/// ```
/// use mainstay::{Executor, TaskError, try_gather};
///
/// let ex = Executor::new();
/// let parsed = ex.block_on(try_gather(["6", "x", "7"].map(|text| async move { text.parse::<u32>() })));
/// assert!(matches!(parsed, Err(TaskError::Failed(_))));
/// assert_eq!(ex.stats().reports, 0, "the caller has it");
/// ```
#[doc(alias = "try_join_all")]
#[track_caller]
pub fn try_gather<B, T, E>(futures: B) -> impl Future<Output = Result<Vec<T>, TaskError<E>>>
where
    B: Batch<Output = Result<T, E>>,
    E: Display + Debug + 'static,
{
    try_all(Batched::<B::Pull, Fallible>::new(
        "try_gather",
        futures,
        None,
    ))
}

/// [`try_gather`], with at most `limit` of them at once.
///
/// # Panics
///
/// As [`gather`], and if `limit` is 0.
///
/// # Cancel safety
///
/// As [`gather`].
#[track_caller]
pub fn try_gather_with_limit<B, T, E>(
    futures: B,
    limit: usize,
) -> impl Future<Output = Result<Vec<T>, TaskError<E>>>
where
    B: Batch<Output = Result<T, E>>,
    E: Display + Debug + 'static,
{
    try_all(Batched::<B::Pull, Fallible>::new(
        "try_gather_with_limit",
        futures,
        Some(limit),
    ))
}

async fn try_all<P, T, E>(mut batch: Batched<P, Fallible>) -> Result<Vec<T>, TaskError<E>>
where
    P: Pull<Output = Result<T, E>>,
    E: Display + Debug + 'static,
{
    let mut values = Values::new();
    while let Some(done) = batch.next().await {
        let order = done.order;
        let value = done.take().map_err(TaskError::Join)?;
        values.set(order, value.map_err(TaskError::Failed)?);
    }
    Ok(values.take().collect())
}

/// Runs all of them at once, each as a task, and gives what came of each, in the order in which they came. No failure
/// cancels another. asyncio's `gather(.., return_exceptions=True)`.
///
/// The outcomes are taken when the last task has ended: if this is dropped before that, the failures so far are reported.
/// The rest is as for [`gather`].
///
/// # Panics
///
/// As [`gather`].
///
/// # Cancel safety
///
/// As [`gather`].
///
/// # Examples
///
/// ```
/// use mainstay::{Executor, gather_settled};
///
/// # std::panic::set_hook(Box::new(|_| {}));
/// let ex = Executor::new();
/// let outcomes = ex.block_on(gather_settled([1, 0, 2].map(|n| async move { 10 / n })));
/// assert_eq!(outcomes[0].as_ref().unwrap(), &10);
/// assert!(outcomes[1].as_ref().unwrap_err().is_panic());
/// assert_eq!(outcomes[2].as_ref().unwrap(), &5);
/// ```
#[doc(alias = "return_exceptions")]
#[track_caller]
pub fn gather_settled<B: Batch>(
    futures: B,
) -> impl Future<Output = Vec<Result<B::Output, JoinError>>> {
    settled(Batched::<B::Pull, Plain>::new(
        "gather_settled",
        futures,
        None,
    ))
}

/// [`gather_settled`], with at most `limit` of them at once.
///
/// # Panics
///
/// As [`gather`], and if `limit` is 0.
///
/// # Cancel safety
///
/// As [`gather`].
#[track_caller]
pub fn gather_settled_with_limit<B: Batch>(
    futures: B,
    limit: usize,
) -> impl Future<Output = Vec<Result<B::Output, JoinError>>> {
    settled(Batched::<B::Pull, Plain>::new(
        "gather_settled_with_limit",
        futures,
        Some(limit),
    ))
}

async fn settled<P: Pull, J: Judge<P::Output>>(
    mut batch: Batched<P, J>,
) -> Vec<Result<P::Output, JoinError>> {
    // Handles, not outcomes: what they hold is still told if this is dropped.
    let mut ended = Values::new();
    while let Some(done) = batch.next().await {
        ended.set(done.order, done);
    }
    ended.take().map(Done::take).collect()
}
