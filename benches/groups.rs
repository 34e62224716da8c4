//! A thousand tasks that belong together: each yields once and gives a number, and all numbers are summed.
//!
//! ```text
//! cargo bench --bench groups                     41 rounds
//! cargo bench --bench groups -- --rounds 101
//! cargo bench --bench groups -- --into benches/RESULTS.md --into README.md
//! ```
//!
//! Ours (`gather`, `TaskGroup`, `JoinSet`) and tokio's (`JoinSet` on a `LocalSet`) run each as a task: panics are contained, one
//! by one. futures' `join_all` and `FuturesUnordered` poll all within the one task that awaits them, where a panic of one is the end
//! of all. Rounds are interleaved; what counts is the median of the ratios per round.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints")]

#[path = "compare_support/sections.rs"]
mod sections;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use mainstay::{Executor, JoinSet, TaskGroup, gather};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

const HELP: &str = "A thousand tasks that belong together, beside tokio's JoinSet and futures' join_all and FuturesUnordered.

Usage: cargo bench --bench groups -- [OPTIONS]

  --rounds N    41 unless given
  --into FILE   put the table also into FILE, between `<!-- groups -->` and `<!-- /groups -->`; repeatable
  --help        this text";

const TASKS: u64 = 1_000;
const REPEAT: u32 = 20;

/// The same for all: one poll that wakes itself, one that is ready.
async fn child(n: u64) -> u64 {
    mainstay_free_yield().await;
    n
}

/// Yields without the help of any executor.
async fn mainstay_free_yield() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

fn on_mainstay<F: Future<Output = u64>>(work: impl Fn() -> F) -> u64 {
    let ex = Executor::new();
    (0..REPEAT).map(|_| ex.block_on(work())).sum()
}

fn on_tokio<F: Future<Output = u64>>(runtime: &Runtime, work: impl Fn() -> F) -> u64 {
    let local = LocalSet::new();
    (0..REPEAT).map(|_| local.block_on(runtime, work())).sum()
}

async fn with_gather() -> u64 {
    let values = gather((0..TASKS).map(child)).await;
    values.expect("none fails").into_iter().sum()
}

async fn with_task_group() -> u64 {
    let handles = TaskGroup::scope(async |g: &TaskGroup| {
        (0..TASKS).map(|n| g.spawn(child(n))).collect::<Vec<_>>()
    });
    let mut sum = 0;
    for handle in handles.await.expect("none fails") {
        sum += handle.await.expect("none fails");
    }
    sum
}

async fn with_join_set() -> u64 {
    let mut set = JoinSet::new();
    for n in 0..TASKS {
        set.spawn(child(n));
    }
    let mut sum = 0;
    while let Some((_, value)) = set.join_next().await {
        sum += value.expect("none fails");
    }
    sum
}

async fn with_tokio_join_set() -> u64 {
    let mut set = tokio::task::JoinSet::new();
    for n in 0..TASKS {
        set.spawn_local(child(n));
    }
    let mut sum = 0;
    while let Some(value) = set.join_next().await {
        sum += value.expect("none fails");
    }
    sum
}

async fn with_join_all() -> u64 {
    join_all((0..TASKS).map(child)).await.into_iter().sum()
}

async fn with_futures_unordered() -> u64 {
    let all: FuturesUnordered<_> = (0..TASKS).map(child).collect();
    all.fold(0, async |sum, n| sum + n).await
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Options {
    rounds: usize,
    into: Vec<PathBuf>,
}

/// What the command line asks for; `None`: the help.
fn options(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options {
        rounds: 41,
        into: Vec::new(),
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--help" | "-h" => return Ok(None),
            "--rounds" => {
                options.rounds = value()?
                    .parse()
                    .ok()
                    .filter(|rounds| *rounds > 0)
                    .ok_or("--rounds needs a number from 1 on")?;
            }
            "--into" => options
                .into
                .push(sections::from_where_cargo_was_started(&value()?)),
            _ => return Err(format!("{arg}: no such option; see --help")),
        }
    }
    Ok(Some(options))
}

fn main() -> ExitCode {
    let options = match options(env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let table = measure(options.rounds);
    println!("{table}");
    for file in &options.into {
        if let Err(why) = sections::put_into(file, &[("groups".to_owned(), table.clone())]) {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Measures all; gives the table.
fn measure(rounds: usize) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be made");
    let workloads: [(&str, &dyn Fn() -> u64); 7] = [
        ("mainstay gather", &|| on_mainstay(with_gather)),
        ("mainstay TaskGroup", &|| on_mainstay(with_task_group)),
        ("mainstay JoinSet", &|| on_mainstay(with_join_set)),
        ("tokio JoinSet", &|| on_tokio(&runtime, with_tokio_join_set)),
        ("futures join_all, on mainstay", &|| {
            on_mainstay(with_join_all)
        }),
        ("futures FuturesUnordered, on mainstay", &|| {
            on_mainstay(with_futures_unordered)
        }),
        ("futures FuturesUnordered, on tokio", &|| {
            on_tokio(&runtime, with_futures_unordered)
        }),
    ];
    let expected = u64::from(REPEAT) * TASKS * (TASKS - 1) / 2;
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); workloads.len()];
    for round in 0..=rounds {
        eprint!("\rround {round} of {rounds}");
        for (at, (_, work)) in workloads.iter().enumerate() {
            let began = Instant::now();
            let sum = work();
            let took = began.elapsed();
            assert_eq!(sum, expected);
            // The first round warms up.
            if round > 0 {
                let tasks = f64::from(REPEAT) * TASKS as f64;
                times[at].push(took.as_secs_f64() * 1e9 / tasks);
            }
        }
    }
    eprintln!();
    let best: Vec<f64> = (0..rounds)
        .map(|round| {
            times[3..]
                .iter()
                .map(|times| times[round])
                .fold(f64::MAX, f64::min)
        })
        .collect();
    let mut table = String::from(
        "| a thousand tasks in | ns per task | of the best that is not ours |\n|---|---:|---:|\n",
    );
    for (at, (name, _)) in workloads.iter().enumerate() {
        let ratios = times[at].iter().zip(&best).map(|(own, best)| own / best);
        table += &format!(
            "| {name} | {:.1} | {:.2} |\n",
            median(times[at].clone()),
            median(ratios.collect())
        );
    }
    table
}
