//! A service: workers that are restarted, a group of tasks for each request, and an orderly end on Ctrl-C.
//!
//! ```text
//! cargo run --release --example supervised_service             raises its own signal
//! cargo run --release --example supervised_service -- wait     waits for yours
//! ```
//!
//! One [`Supervisor`] owns all that runs. What fails in it is told at once and ends nothing else. A request is a
//! [`TaskGroup`]: its lookups make sense only together, so that the first that fails ends the others.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to its reader"
)]

use std::cell::Cell;
use std::fmt;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use mainstay::{
    Executor, GroupSummary, RestartPolicy, Supervisor, TaskGroup, cancel_requested, sleep, timeout,
};

const USAGE: &str = "usage: supervised_service [wait]

  wait   for your Ctrl-C; unless given, it raises the signal itself";

const MOMENT: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    let waits = match waits() {
        Ok(waits) => waits,
        Err(exit) => return exit,
    };
    let ex = Executor::new();
    ex.set_exception_handler(|_, report| println!("outside of the service: {report}"));
    let signal = ctrl_c(&ex);
    ex.block_on(serve(signal, waits));
    let stats = ex.stats();
    println!(
        "{} tasks: {} returned, {} failed ({} told, {} handed on), {} cancelled, {} live",
        stats.spawned,
        stats.returned,
        stats.failed,
        stats.reported,
        stats.retrieved,
        stats.cancelled,
        stats.live
    );
    ExitCode::SUCCESS
}

/// Whether to wait for a signal from outside, by the arguments; else with what to exit at once.
fn waits() -> Result<bool, ExitCode> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(false),
        ["wait"] => Ok(true),
        ["--help" | "-h"] => {
            println!("{USAGE}");
            Err(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("{}: not understood\n\n{USAGE}", args.join(" "));
            Err(ExitCode::from(2))
        }
    }
}

/// The signal's thread only passes the word on.
fn ctrl_c(ex: &Executor<'_>) -> Receiver<()> {
    let (sender, signal) = async_channel::unbounded();
    let spawner = ex.spawner();
    let told = ctrlc::set_handler(move || {
        let sender = sender.clone();
        // On the executor's thread. Whether anybody still waits for it is no matter.
        drop(spawner.call_soon(move |_| {
            let _ = sender.try_send(());
        }));
    });
    told.expect("no other handler is set");
    signal
}

async fn serve(signal: Receiver<()>, waits: bool) {
    let service = Supervisor::new();
    service.set_exception_handler(|_, report| {
        let task = report.task().map_or("?", |task| task.name());
        let what = report.exception().map(|exception| exception.message());
        println!("told: {task}: {}", what.unwrap_or_default());
    });

    // Restarted until its third attempt succeeds; it then runs until it is asked to end.
    let (quotes, feed) = async_channel::bounded(1);
    let attempts = Rc::new(Cell::new(0));
    let policy = RestartPolicy::on_failure().backoff(MOMENT, 4 * MOMENT);
    let connect = move || feed_quotes(attempts.replace(attempts.get() + 1), quotes.clone());
    let policy = policy.name("feed");
    service.spawn_restarting_fallible(connect, policy).detach();
    let price = feed.recv().await.expect("the feed is kept up");
    println!("feed: the price is {price}");

    // One that nothing helps is given up, and that is told; the others do not notice.
    let policy = RestartPolicy::on_failure()
        .backoff(MOMENT, MOMENT)
        .limit(2, Duration::from_secs(60))
        .name("mirror");
    let mirror = || async { Err::<(), _>(Fault("disk full")) };
    let gave_up = service.spawn_restarting_fallible(mirror, policy).await;
    println!("mirror: {}", gave_up.unwrap().unwrap_err());

    for (item, stock) in [("apples", Some(42)), ("pears", None)] {
        let request = service.task().name(item).spawn(request(item, price, stock));
        match request.await.expect("requests do not panic") {
            Ok(answer) => println!("{item}: {answer}"),
            Err(failed) => println!("{item}: {failed}"),
        }
    }

    // In flight when the signal comes.
    service.task().name("order").spawn(order()).detach();
    service.task().name("deaf").spawn(deaf()).detach();
    mainstay::yield_now().await;
    if waits {
        println!("waiting for Ctrl-C");
    } else {
        interrupt();
    }
    signal.recv().await.expect("the handler keeps the sender");
    println!("Ctrl-C");
    let report = service.shutdown(Duration::from_secs(5)).await;
    println!(
        "{} finished, {} failed, {} cancelled, {} dropped",
        report.finished(),
        report.failed(),
        report.cancelled(),
        report.dropped()
    );
}

/// Fails at its first two attempts; then gives quotes until it is asked to end.
async fn feed_quotes(attempt: u32, quotes: Sender<u32>) -> Result<(), Fault> {
    if attempt < 2 {
        return Err(Fault("connection refused"));
    }
    quotes.send(3).await.map_err(|_| Fault("nobody listens"))?;
    while timeout(MOMENT, cancel_requested()).await.is_err() {
        // Another quote, where there is room for it.
        let _ = quotes.try_send(3);
    }
    println!("feed: closed");
    Ok(())
}

/// Looks everything up at once. What is missing ends the rest.
async fn request(
    item: &'static str,
    price: u32,
    stock: Option<u32>,
) -> Result<String, GroupSummary> {
    let scope = TaskGroup::try_scope(async |g| {
        let price = g.task().name("price").spawn(async move {
            let _left = Left(item);
            sleep(MOMENT).await;
            price
        });
        let stock = g
            .task()
            .name("stock")
            .spawn_fallible(async move { stock.ok_or(Fault("no such item")) });
        let (price, stock) = (price.await?, stock.await?);
        Ok::<_, anyhow::Error>(format!("{} at {price}", stock?))
    });
    scope.await.map_err(GroupSummary::from)
}

struct Left(&'static str);

impl Drop for Left {
    fn drop(&mut self) {
        println!("{}: the price lookup has ended", self.0);
    }
}

/// Ends what it has begun, in a group of its own: the request to end reaches that, too.
async fn order() {
    let written = TaskGroup::scope(async |g| {
        let journal = g.task().name("journal");
        let written = journal.spawn(async {
            cancel_requested().await;
            sleep(2 * MOMENT).await;
            println!("order: written to the journal");
        });
        written.detach();
    });
    written.await.expect("it does not fail");
    println!("order: done");
}

/// Has never heard of ending, and is dropped where it stands.
async fn deaf() {
    std::future::pending::<()>().await;
}

#[derive(Clone, Copy, Debug)]
struct Fault(&'static str);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Fault {}

/// Sends this process what a terminal sends at Ctrl-C.
fn interrupt() {
    let own = std::process::id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &own])
        .status();
    assert!(sent.is_ok_and(|status| status.success()), "`kill` works");
}
