//! Asking a task what it failed by, and handling its failure where the outcome is taken.
//!
//! ```text
//! cargo run --release --example exception_handling
//! ```
//!
//! This follows the tutorial on exception handling in asyncio tasks, one function for each of its
//! programs. Where its tasks raise, ours return an `Err` and are spawned with `spawn_fallible`. Its
//! seconds are shortened, see `SECOND`. The executor follows asyncio's rule,
//! `ReportPolicy::IfUnretrieved`; every failure here is asked for, so none is reported.
//!
//! What mainstay does better:
//!
//! 1. To ask too early, or to ask a cancelled task, is answered by a value of `ExceptionError`. In
//!    asyncio either raises, and the tutorial's programs end there; ours go on.
//! 2. `cancel()` has dropped the task's future when it returns. In asyncio it is a request, and the
//!    task must first be given time to respond.
//! 3. The type of an outcome says what there is to handle. A task that ends with a `Result<T, E>`
//!    is awaited as a `Result<Result<T, E>, JoinError>`: inside, what the task said; outside, that
//!    it panicked or was cancelled and could say nothing.
//!
//! One thing is different: an outcome is given away, not copied. `await` and `result()` take it,
//! and `exception()` afterwards says `Taken`. So the first program waits without taking.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Duration;

use mainstay::{Exception, ExceptionError, Executor, LocalHandle, ReportPolicy, sleep};

/// The tutorial's second, shortened: its order is the point, not its length.
const SECOND: Duration = Duration::from_millis(100);

fn main() {
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();

    println!("== the exception of a task that did not fail");
    ex.block_on(no_exception());

    println!("== the exception of a task that failed");
    ex.block_on(exception_of_a_failed_task());

    println!("== the exception of a task that is running");
    ex.block_on(exception_of_a_running_task());

    println!("== the exception of a task that was cancelled");
    ex.block_on(exception_of_a_cancelled_task());

    println!("== a failure handled at `await`");
    ex.block_on(handled_at_await());

    println!("== a failure handled at `result()`");
    ex.block_on(handled_at_result());

    println!("== the accounts");
    let stats = ex.stats();
    println!(
        "{} failed = {} retrieved + {} reported",
        stats.failed, stats.retrieved, stats.reported
    );
}

/// A task that ends well.
async fn succeed() {
    println!("executing the task");
    sleep(SECOND).await;
}

/// A task that would give a number, but fails.
async fn fail() -> anyhow::Result<u32> {
    println!("executing the task");
    sleep(SECOND).await;
    anyhow::bail!("Something bad happened");
}

async fn no_exception() {
    println!("main coroutine started");
    let task = mainstay::spawn(succeed());
    // Until no other task is left. `task.await` would take the outcome.
    LocalHandle::current().idle().await;
    show(task.exception());
    println!("main coroutine done");
}

async fn exception_of_a_failed_task() {
    println!("main coroutine started");
    let task = mainstay::spawn_fallible(fail());
    sleep(SECOND.mul_f64(1.1)).await;
    show(task.exception());
    println!("main coroutine done");
}

async fn exception_of_a_running_task() {
    println!("main coroutine started");
    let task = mainstay::spawn(succeed());
    sleep(SECOND.mul_f64(0.2)).await;
    // `task.is_finished()` would have told that it is too early.
    show(task.exception());
    println!("main coroutine done");
    // Nobody waits for it any more.
    task.cancel();
}

async fn exception_of_a_cancelled_task() {
    println!("main coroutine started");
    let task = mainstay::spawn(succeed());
    sleep(SECOND.mul_f64(0.1)).await;
    task.cancel();
    // `task.is_cancelled()` is true from here on.
    show(task.exception());
    println!("main coroutine done");
}

async fn handled_at_await() {
    println!("main coroutine started");
    let task = mainstay::spawn_fallible(fail());
    // The `try`: `?` passes on a panic or a cancellation, what is left is the task's own `Result`.
    let result: anyhow::Result<u32> = async { task.await? }.await;
    match result {
        Ok(value) => println!("value: {value}"),
        Err(error) => println!("Failed with: {error}"),
    }
    println!("main coroutine done");
}

async fn handled_at_result() {
    println!("main coroutine started");
    let mut task = mainstay::spawn_fallible(fail());
    sleep(SECOND.mul_f64(1.1)).await;
    // The same, case by case.
    match task.result() {
        Ok(Ok(Ok(value))) => println!("value: {value}"),
        Ok(Ok(Err(error))) => println!("Failed with: {error}"),
        Ok(Err(error)) => println!("Panicked or cancelled: {error}"),
        Err(error) => println!("Nothing to take: {error}"),
    }
    println!("main coroutine done");
}

/// Prints what `exception()` gave.
fn show(exception: Result<Option<Exception<'_>>, ExceptionError>) {
    match exception {
        Ok(None) => println!("exception: None"),
        Ok(Some(exception)) => println!("exception: {exception}"),
        Err(error) => println!("ExceptionError::{error:?}: {error}"),
    }
}
