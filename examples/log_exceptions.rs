//! Logging the failures of tasks: late, because nobody asked; at once, by a done callback; at once
//! for every task, by a helper that spawns.
//!
//! ```text
//! cargo run --release --example log_exceptions
//! ```
//!
//! This follows the tutorial on logging task exceptions automatically in asyncio. Where its tasks
//! raise, ours return an `Err` and are spawned with `spawn_fallible`; a panic is told in the same
//! ways. Its seconds are shortened, see `SECOND`. The executor follows asyncio's rule,
//! `ReportPolicy::IfUnretrieved`: what somebody has looked at is not told again, so that each
//! failure is logged once.
//!
//! What mainstay does better:
//!
//! 1. Late is a known moment: when the handle is dropped, or, for one that is kept, when the
//!    executor is. asyncio tells when the garbage collector comes by. It has nothing to say of a
//!    task that is still referred to at the end; the last program here is about that one.
//! 2. A done callback is given the outcome as a value. `task.exception()` raises when the task was
//!    cancelled, and the callback then fails by asking.
//! 3. Neither callback nor helper is needed. With the default policy, `ReportPolicy::OnFailure`,
//!    every failure is logged as soon as it happens, whoever holds the handle.
//!
//! With `RUST_BACKTRACE=1` the traces are logged too: anyhow records where an error was made.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::fmt::{Debug, Display};
use std::time::Duration;

use mainstay::{Completion, Executor, JoinHandle, Outcome, ReportPolicy, sleep};

/// The tutorial's second, shortened: its order is the point, not its length.
const SECOND: Duration = Duration::from_millis(50);

fn main() {
    log_to_stdout();
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();

    println!("== a failure that nobody asks for");
    ex.block_on(never_retrieved());

    println!("== a done callback logs it");
    ex.block_on(done_callback());

    println!("== a helper spawns and adds the callback");
    ex.block_on(helper());

    println!("== nobody asks, and the handle is kept");
    let kept = ex.block_on(never_retrieved_and_kept());
    log::info!("The executor goes");
    drop(ex);
    log::info!("{} is still in hand", kept.name());
}

/// The task of all these programs.
async fn work() -> anyhow::Result<()> {
    log::info!("Task is starting");
    sleep(SECOND).await;
    anyhow::bail!("Something bad happened");
}

async fn never_retrieved() {
    log::info!("Main is starting");
    let task = mainstay::spawn_fallible(work());
    sleep(2 * SECOND).await;
    log::info!("Main is done");
    // With the handle goes the last chance to ask, so this is when the failure is told.
    drop(task);
}

async fn done_callback() {
    log::info!("Main is starting");
    let task = mainstay::spawn_fallible(work());
    task.add_done_callback(log_failure);
    sleep(2 * SECOND).await;
    log::info!("Main is done");
}

async fn helper() {
    log::info!("Main is starting");
    spawn_logged(work()).detach();
    sleep(2 * SECOND).await;
    log::info!("Main is done");
}

async fn never_retrieved_and_kept() -> JoinHandle<anyhow::Result<()>> {
    log::info!("Main is starting");
    let task = mainstay::spawn_fallible(work());
    sleep(2 * SECOND).await;
    log::info!("Main is done");
    task
}

/// The tutorial's `helper_done_callback`. Asking for the outcome retrieves the failure.
fn log_failure(completion: &Completion<'_>) {
    if let Outcome::Failed(exception) = completion.outcome() {
        let task = completion.task();
        log::error!(
            "{}, spawned at {}, failed with exception {exception:?}",
            task.name(),
            task.location()
        );
    }
}

/// The tutorial's `create_task_helper`: spawns a task whose failure is logged as soon as it ends.
// So that a task's spawn location is where this is called.
#[track_caller]
fn spawn_logged<F, T, E>(future: F) -> JoinHandle<Result<T, E>>
where
    F: Future<Output = Result<T, E>> + 'static,
    E: Display + Debug + 'static,
{
    let task = mainstay::spawn_fallible(future);
    task.add_done_callback(log_failure);
    task
}

/// The tutorial's `logging.basicConfig`.
fn log_to_stdout() {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Debug)
        .target(env_logger::Target::Stdout)
        .write_style(env_logger::WriteStyle::Never)
        .format_timestamp(None)
        .init();
}
