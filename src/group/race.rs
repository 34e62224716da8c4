//! `race`: the first of a batch.

use std::fmt::{Debug, Display};
use std::future::Future;

use crate::arena::cell::{Fallible, Plain};
use crate::completion::{End, KeptFailure};
use crate::error::JoinError;
use crate::exception::Owned;
use crate::join::JoinHandle;
use crate::unwind::Panic;

use super::batch::{Batch, Batched, Pull};
use super::exception_group::ExceptionGroup;
use super::values::Values;

/// Runs all of them at once, each as a task, and gives the outcome of the first to end, whatever it says. The rest is
/// cancelled, and gone when this gives it.
///
/// Of several that end in the same pass it is the one that was polled first. What else has failed by then is reported.
///
/// Nothing is started before this is polled. It may be given futures, or [`handles`](crate::handles) of tasks.
///
/// # Errors
///
/// How the first one failed; of nothing, an error that says so.
///
/// # Panics
///
/// When polled outside of a running executor; when the iterator panics.
///
/// # Cancel safety
///
/// Dropping this cancels all of them: their destructors have run when the drop returns.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::{Executor, race, sleep};
///
/// let ex = Executor::builder().virtual_clock().build();
/// let first = ex.block_on(race([30, 10, 20].map(|ms| async move {
///     sleep(Duration::from_millis(ms)).await;
///     ms
/// })));
/// assert_eq!(first.unwrap(), 10);
/// assert!(ex.is_empty(), "the others are gone");
/// ```
#[doc(alias = "select")]
#[doc(alias = "FIRST_COMPLETED")]
#[track_caller]
pub fn race<B: Batch>(futures: B) -> impl Future<Output = Result<B::Output, JoinError>> {
    first(Batched::<B::Pull, Plain>::new("race", futures, None))
}

/// [`race`], between the first `limit` of them alone: when one has ended the race is over, so that the others are never begun.
///
/// # Errors
///
/// As [`race`].
///
/// # Panics
///
/// As [`race`], and if `limit` is 0.
///
/// # Cancel safety
///
/// As [`race`].
#[track_caller]
pub fn race_with_limit<B: Batch>(
    futures: B,
    limit: usize,
) -> impl Future<Output = Result<B::Output, JoinError>> {
    first(Batched::<B::Pull, Plain>::new(
        "race_with_limit",
        futures,
        Some(limit),
    ))
}

async fn first<P: Pull>(mut batch: Batched<P, Plain>) -> Result<P::Output, JoinError> {
    match batch.next().await {
        Some(done) => done.take(),
        None => Err(JoinError::nothing("a race of nothing")),
    }
}

/// What a [`race_ok`] was won with.
#[derive(Debug)]
pub struct Raced<T> {
    /// The value of the first that succeeded.
    pub value: T,
    /// The failures before it. Empty if there were none.
    pub failures: ExceptionGroup,
}

/// Runs all of them at once, each as a task, and gives the value of the first `Ok`, with the failures that came before it.
/// The rest is cancelled, and gone when this gives it. Those that are cancelled by themselves are left out.
///
/// # Errors
///
/// All failures, in the order in which they came, if nobody succeeded. Of nothing, or if all were cancelled, the group is
/// empty.
///
/// # Panics
///
/// As [`race`].
///
/// # Cancel safety
///
/// As [`race`]; failures so far are reported.
///
/// # Examples
///
/// ```
/// use mainstay::{Executor, race_ok};
///
/// let ex = Executor::new();
/// let won = ex.block_on(race_ok(["x", "7", "8"].map(|text| async move { text.parse::<u32>() })));
/// let won = won.unwrap();
/// assert_eq!(won.value, 7);
/// assert_eq!(won.failures.len(), 1);
/// ```
#[doc(alias = "select_ok")]
#[doc(alias = "any")]
#[track_caller]
pub fn race_ok<B, T, E>(futures: B) -> impl Future<Output = Result<Raced<T>, ExceptionGroup>>
where
    B: Batch<Output = Result<T, E>>,
    E: Display + Debug + 'static,
{
    first_ok(Batched::<B::Pull, Fallible>::new("race_ok", futures, None))
}

/// [`race_ok`], with at most `limit` of them at once: the next begins when one has failed.
///
/// # Panics
///
/// As [`race`], and if `limit` is 0.
///
/// # Cancel safety
///
/// As [`race_ok`].
#[track_caller]
pub fn race_ok_with_limit<B, T, E>(
    futures: B,
    limit: usize,
) -> impl Future<Output = Result<Raced<T>, ExceptionGroup>>
where
    B: Batch<Output = Result<T, E>>,
    E: Display + Debug + 'static,
{
    first_ok(Batched::<B::Pull, Fallible>::new(
        "race_ok_with_limit",
        futures,
        Some(limit),
    ))
}

/// A task that did not win.
enum Lost<T> {
    /// Its failure is still in its handle, which tells it if this is dropped.
    Task(JoinHandle<T>),
    /// The `Err` of a task for which that is no failure: the caller's alone.
    Value(KeptFailure),
}

async fn first_ok<P, T, E>(mut batch: Batched<P, Fallible>) -> Result<Raced<T>, ExceptionGroup>
where
    P: Pull<Output = Result<T, E>>,
    E: Display + Debug + 'static,
{
    let mut lost: Values<Lost<Result<T, E>>> = Values::new();
    while let Some(mut done) = batch.next().await {
        match done.handle.end() {
            Some(End::Returned) => {
                let info = done.handle.info();
                match done.handle.result() {
                    Ok(Ok(Ok(value))) => {
                        return Ok(Raced {
                            value,
                            failures: failures(lost),
                        });
                    }
                    Ok(Ok(Err(error))) => lost.push(Lost::Value(KeptFailure {
                        task: info,
                        exception: Owned::Error(Box::new(error)),
                        unread: false,
                        locals: None,
                    })),
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            Some(End::Failed) => lost.push(Lost::Task(done.handle)),
            Some(End::Cancelled) | None => {}
        }
    }
    Err(failures(lost))
}

/// Takes what the losers failed by, to hand it on now.
fn failures<T, E>(mut lost: Values<Lost<Result<T, E>>>) -> ExceptionGroup
where
    E: Display + Debug + 'static,
{
    let failures = lost.take().filter_map(|lost| match lost {
        Lost::Value(failure) => Some(failure),
        Lost::Task(mut handle) => {
            let task = handle.info();
            let exception = match handle.result().ok()? {
                Ok(Ok(_)) => return None,
                Ok(Err(error)) => Owned::Error(Box::new(error)),
                Err(error) => match error.try_into_panic() {
                    Ok(payload) => Owned::Panic(Panic::from_payload(payload)),
                    // It failed in another group, which has the failure itself.
                    Err(error) => Owned::Error(Box::new(error)),
                },
            };
            Some(KeptFailure {
                task,
                exception,
                unread: false,
                locals: None,
            })
        }
    });
    ExceptionGroup::new(failures.collect(), false)
}
