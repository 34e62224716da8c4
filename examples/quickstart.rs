//! A handful of tasks, two of them woken from another thread, some of them failing, and a loop that
//! goes on.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! What to watch for:
//!
//! 1. The couriers borrow a local variable and are not `Send`; another thread wakes them all the same.
//! 2. `flaky` panics and `parser` returns an `Err`. Nobody holds their handles, yet both failures are
//!    told: first to a handler of our own, then, once that is cleared, to the default handler, which
//!    writes log records. Here env_logger shows those.
//! 3. The loop does not notice: later tasks run, the root gets its value.
//! 4. The counters at the end add up. No task is missing, and no failure.
//!
//! Everything is written to stdout, so the order that you see is the order of events.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::cell::Cell;
use std::future;
use std::num::ParseIntError;
use std::panic;
use std::thread;

use async_channel::Receiver;
use mainstay::{ExceptionContext, Executor, JoinError, LocalHandle};

fn main() -> Result<(), JoinError> {
    log_to_stdout();
    quiet_contained_panics();
    // After the hook above, because it chains to the one that it finds. It records where a task
    // panicked, for the report.
    mainstay::install_panic_hook();

    // Declared before the executor, so tasks may borrow it: no `Rc`, no `'static`.
    let deliveries = Cell::new(0);

    let ex = Executor::new();
    ex.set_exception_handler(tell);

    println!("== two tasks wait for another thread");
    let (to_north, from_north) = async_channel::bounded(1);
    let (to_south, from_south) = async_channel::bounded(1);
    let north = ex
        .task()
        .name("north")
        .spawn(courier(from_north, &deliveries));
    let south = ex
        .task()
        .name("south")
        .spawn(courier(from_south, &deliveries));
    // Nothing is sent before both have been polled, so it is really the thread that wakes them.
    let progress = ex.run_until_stalled();
    println!("{} polls, {} tasks wait", progress.polls, ex.len());
    let sender = thread::spawn(move || {
        to_north.send_blocking(20).expect("the courier listens");
        to_south.send_blocking(22).expect("the courier listens");
    });

    let answer = ex.block_on(async {
        let sum = north.await? + south.await?;
        println!("{} deliveries", deliveries.get());

        println!("== two failures, told to our own handler");
        spawn_failing(&ex);
        ex.idle().await;

        println!("== two failures, told to the default handler");
        ex.clear_exception_handler();
        spawn_failing(&ex);
        ex.idle().await;

        println!("== the loop lives on");
        let idler = ex.task().name("idler").spawn(future::pending::<()>());
        println!("idler cancelled: {}", idler.cancel());
        ex.task().name("last").spawn(async move { sum }).await
    })?;
    println!("the root got {answer}");
    sender.join().expect("the thread only sends");

    println!("== the counters");
    let stats = ex.stats();
    println!(
        "{} spawned = {} live + {} returned + {} failed + {} cancelled",
        stats.spawned, stats.live, stats.returned, stats.failed, stats.cancelled
    );
    println!(
        "{} failed = {} reported + {} retrieved + {} unread",
        stats.failed, stats.reported, stats.retrieved, stats.unread
    );
    Ok(())
}

/// Waits for one parcel and notes the delivery in a variable of `main`.
async fn courier(inbox: Receiver<u32>, deliveries: &Cell<u32>) -> u32 {
    let parcel = inbox
        .recv()
        .await
        .expect("a parcel is sent before the sender goes");
    deliveries.set(deliveries.get() + 1);
    parcel
}

/// Spawns one task that panics and one that returns an `Err`, and keeps neither handle.
///
/// Detaching loses neither the task nor its failure: the executor owns both.
fn spawn_failing(ex: &Executor<'_>) {
    ex.task().name("flaky").spawn(flaky()).detach();
    // `spawn_fallible`, because a plain `spawn` never looks into what a task returns.
    ex.task().name("parser").spawn_fallible(parser()).detach();
}

async fn flaky() {
    panic!("the left engine stalled");
}

async fn parser() -> Result<u32, ParseIntError> {
    "forty-two".parse()
}

/// The exception handler: is given each failure, when it happens.
fn tell(_executor: &LocalHandle<'static>, context: &ExceptionContext<'_>) {
    let Some((task, exception)) = context.task().zip(context.exception()) else {
        println!("handler: {context}");
        return;
    };
    let how = if exception.is_panic() {
        "panicked"
    } else {
        "returned an error"
    };
    println!("handler: `{}` {how}: {}", task.name(), exception.message());
}

/// Lets env_logger show the default handler's records, among the lines that `println!` writes.
fn log_to_stdout() {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .target(env_logger::Target::Stdout)
        .write_style(env_logger::WriteStyle::Never)
        .format_timestamp(None)
        .init();
}

/// Silences the process's panic hook for panics in tasks.
///
/// A contained panic runs the hook like any other and would be printed twice: by the hook when it
/// starts, by the handler when the task has ended. Panics elsewhere are shown as before.
fn quiet_contained_panics() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if mainstay::current_task().is_none() {
            previous(info);
        }
    }));
}
