//! Spawning tasks that nobody will ever await, and hearing of it when one of them fails.
//!
//! ```text
//! cargo run --release --example spawn_and_forget
//! ```
//!
//! This follows the forum thread on spawning tasks and forgetting them: first its idiom, line by
//! line, then the same in mainstay's own words. The thread's second task fails by a typo; ours has
//! it too, and returns an `Err`. A panic would be told in the same ways. The seconds are shortened,
//! see `SECOND`. The executor follows asyncio's rule, `ReportPolicy::IfUnretrieved`: what the
//! done callback has looked at is not told again, so that each failure is printed once.
//!
//! What mainstay does better:
//!
//! 1. The executor owns its tasks. asyncio's loop does not, and may lose one to the garbage
//!    collector; that is what the idiom's list is for.
//! 2. A forgotten task's failure goes to the exception handler when it happens. asyncio has such a
//!    handler, but calls it for a task only when that is garbage collected, at some later time;
//!    that is what the idiom's callback is for.
//! 3. A cancelled task has an outcome of its own. In the idiom, `task.exception()` raises for one,
//!    inside the callback.
//!
//! Without any of this, the default policy and the default handler log every failure.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::cell::RefCell;
use std::time::Duration;

use mainstay::{Completion, Executor, JoinHandle, Outcome, ReportPolicy, sleep};

/// The thread's second, shortened: its order is the point, not its length.
const SECOND: Duration = Duration::from_millis(50);

fn main() {
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();

    println!("== the idiom");
    idiom(&ex);

    println!("== in mainstay's own words");
    own_words(&ex);
}

async fn task1() -> anyhow::Result<()> {
    println!("Starting task 1");
    sleep(SECOND).await;
    println!("Ending task 1");
    Ok(())
}

async fn task2() -> anyhow::Result<()> {
    println!("Starting task 2");
    call("slep", 2 * SECOND).await // oopsie typo
}

/// Looks a function up by its name when the program runs. Only so can such a typo get that far.
async fn call(function: &str, time: Duration) -> anyhow::Result<()> {
    match function {
        "sleep" => sleep(time).await,
        other => anyhow::bail!("there is no function `{other}`"),
    }
    Ok(())
}

// --- the idiom ----------------------------------------------------------------------------------

thread_local! {
    static ALL_TASKS: RefCell<Vec<JoinHandle<anyhow::Result<()>>>> =
        const { RefCell::new(Vec::new()) };
}

fn task_done(completion: &Completion<'_>) {
    let done = completion.task();
    ALL_TASKS.with_borrow_mut(|tasks| tasks.retain(|task| task.id() != done.id()));
    // To ask is also to mark the failure as handled.
    if let Outcome::Failed(exception) = completion.outcome() {
        println!("{} failed: {exception:?}", done.name());
    }
}

/// Spawns a future as a stand-alone task.
fn spawn(future: impl Future<Output = anyhow::Result<()>> + 'static) {
    let task = mainstay::spawn_fallible(future);
    task.add_done_callback(task_done);
    ALL_TASKS.with_borrow_mut(|tasks| tasks.push(task));
}

fn idiom(ex: &Executor<'_>) {
    ex.block_on(async {
        println!("blah blah stuff goes here");
        spawn(task1());
        spawn(task2());
        sleep(3 * SECOND).await;
        println!("Shutting down");
    });
    ALL_TASKS.with_borrow(|tasks| println!("Unfinished tasks: {tasks:?}"));
}

// --- in mainstay's own words --------------------------------------------------------------------

fn own_words(ex: &Executor<'_>) {
    ex.set_exception_handler(|_, report| println!("{report}"));
    ex.block_on(async {
        println!("blah blah stuff goes here");
        ex.spawn_fallible(task1()).detach();
        ex.spawn_fallible(task2()).detach();
        sleep(3 * SECOND).await;
        println!("Shutting down");
    });
    println!("Unfinished tasks: {:?}", ex.tasks());
}
