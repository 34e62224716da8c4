//! A thousand tasks that belong together: each yields once and gives a number, and all numbers are summed.
//!
//! ```text
//! cargo bench --bench groups                     41 rounds
//! cargo bench --bench groups -- --rounds 101
//! ```
//!
//! Ours (`gather`, `TaskGroup`, `JoinSet`) and tokio's (`JoinSet` on a `LocalSet`) run each as a task: panics are contained, one
//! by one. futures' `join_all` and `FuturesUnordered` poll all within the one task that awaits them, where a panic of one is the end
//! of all. Rounds are interleaved; what counts is the median of the ratios per round.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints")]

use std::env;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use mainstay::{Executor, JoinSet, TaskGroup, gather};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

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

fn main() {
    let args: Vec<String> = env::args().collect();
    let rounds = args
        .iter()
        .position(|arg| arg == "--rounds")
        .and_then(|at| args.get(at + 1)?.parse().ok())
        .unwrap_or(41);
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
    println!("| a thousand of | ns per task | of the best that is not ours |");
    println!("|---|---:|---:|");
    for (at, (name, _)) in workloads.iter().enumerate() {
        let ratios = times[at].iter().zip(&best).map(|(own, best)| own / best);
        println!(
            "| {name} | {:.1} | {:.2} |",
            median(times[at].clone()),
            median(ratios.collect())
        );
    }
}
