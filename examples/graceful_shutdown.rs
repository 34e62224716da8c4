//! Ending on Ctrl-C: the tasks are asked to end, those that have something to finish are given time, and the rest is
//! dropped.
//!
//! ```text
//! cargo run --release --example graceful_shutdown             raises its own signal
//! cargo run --release --example graceful_shutdown -- wait     waits for yours
//! ```
//!
//! A second Ctrl-C, while the tasks are finishing, ends their time at once: `stop` does that to a shutdown.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to its reader"
)]

use std::future::pending;
use std::process::ExitCode;
use std::time::Duration;

use mainstay::{Executor, cancel_requested, sleep, timeout};

const USAGE: &str = "usage: graceful_shutdown [wait]

  wait   for your Ctrl-C; unless given, it raises the signal itself";

const MOMENT: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let waits = match waits() {
        Ok(waits) => waits,
        Err(exit) => return exit,
    };
    let ex = Executor::new();
    ex.set_exception_handler(|_, report| {
        let task = report.task().map_or("?", |task| task.name());
        let what = report.exception().map(|exception| exception.message());
        println!("{:?}: {task}: {}", report.kind(), what.unwrap_or_default());
    });

    // The signal's thread only passes the word on; what it sends runs here, on the executor's thread.
    let spawner = ex.spawner();
    let told = ctrlc::set_handler(move || {
        let sent = spawner.call_soon(|ex| {
            println!("Ctrl-C");
            ex.stop();
        });
        if sent.is_err() {
            println!("Ctrl-C: there is nothing left to stop");
        }
    });
    told.expect("no other handler is set");

    ex.task().name("journal").spawn(journal()).detach();
    ex.task().name("client").spawn(client()).detach();
    ex.task().name("lock").spawn_fallible(lock()).detach();
    ex.task().name("deaf").spawn(deaf()).detach();
    if waits {
        println!("waiting for Ctrl-C");
    } else {
        ex.call_later(MOMENT, interrupt);
    }

    ex.run_forever();
    let report = ex.shutdown(Duration::from_secs(5));
    println!(
        "{} finished, {} failed, {} cancelled, {} dropped; {} live",
        report.finished(),
        report.failed(),
        report.cancelled(),
        report.dropped(),
        ex.len()
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

/// Works in turns, and looks between them. Has something to write at the end.
async fn journal() {
    while timeout(MOMENT / 4, cancel_requested()).await.is_err() {
        // The work of each turn.
    }
    sleep(MOMENT).await;
    println!("journal: written");
}

/// Ends what it has begun, and begins nothing new.
async fn client() {
    cancel_requested().await;
    sleep(3 * MOMENT).await;
    println!("client: answered");
}

/// Fails at the end: that is told, and stops nothing.
async fn lock() -> anyhow::Result<()> {
    cancel_requested().await;
    anyhow::bail!("the lock file is gone")
}

/// Has never heard of ending, and is dropped where it stands.
async fn deaf() {
    struct Left;
    impl Drop for Left {
        fn drop(&mut self) {
            println!("deaf: dropped");
        }
    }
    let _left = Left;
    pending::<()>().await;
}

/// Sends this process what a terminal sends at Ctrl-C.
fn interrupt() {
    let own = std::process::id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &own])
        .status();
    assert!(sent.is_ok_and(|status| status.success()), "`kill` works");
}
