//! One executor per thread, nothing shared: a counter of words in shards, of which each thread owns one.
//!
//! ```text
//! cargo run --release --example thread_per_core
//! cargo run --release --example thread_per_core -- --threads 4 --requests 1000000
//! ```
//!
//! A shard is an `Rc<RefCell<..>>`: no lock, no atomic count. Clients run as tasks beside it. What belongs to another shard
//! is asked of its thread, by a closure through its `Spawner`, and the answer is awaited like any task. A request that fails
//! fails alone: the client has the error, and the shard's exception handler has been told.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "throughput is what it shows"
)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use mainstay::{Executor, Spawner, Stats, gather};

const USAGE: &str = "usage: thread_per_core [--threads N] [--requests N]

  --threads N    the most threads to run on; 2 unless given
  --requests N   how many requests, on all threads together; 200000 unless given";

/// Tasks that make requests, on each thread.
const CLIENTS: u64 = 64;

/// Every so many words, there is one that cannot be counted.
const UNLUCKY: u64 = 10_007;

/// What one thread owns.
type Shard = Rc<RefCell<HashMap<u64, u64>>>;

thread_local! {
    /// The way from a closure that comes from elsewhere to what lives here.
    static SHARD: Shard = Shard::default();
}

#[derive(Debug)]
struct NoSuchWord(u64);

impl fmt::Display for NoSuchWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no such word: {}", self.0)
    }
}

/// Counts a word in this thread's shard.
fn count(word: u64) -> Result<u64, NoSuchWord> {
    if word % UNLUCKY == 0 {
        return Err(NoSuchWord(word));
    }
    SHARD.with(|shard| {
        let mut shard = shard.borrow_mut();
        let counted = shard.entry(word).or_default();
        *counted += 1;
        Ok(*counted)
    })
}

/// Asks the shard of a word.
async fn request(shards: &[Spawner], word: u64) -> Result<u64, NoSuchWord> {
    let shard = &shards[usize::try_from(word).unwrap_or(0) % shards.len()];
    let asked = shard.spawn_fallible(move || async move { count(word) });
    // The shards outlive their clients, and counting does not panic.
    let answer = asked.expect("no shard is closed").await;
    answer.expect("a shard answers")
}

/// Makes requests one after the other; gives how many were answered.
async fn client(shards: Arc<[Spawner]>, words: impl Iterator<Item = u64>) -> u64 {
    let mut answered = 0;
    for word in words {
        // An error has been told to the shard's handler.
        answered += u64::from(request(&shards, word).await.is_ok());
    }
    answered
}

/// What a thread has to say at its end.
struct Books {
    counted: u64,
    told: u64,
    stats: Stats,
}

/// One thread's life: it serves until it is told to stop.
fn serve(ready: &mpsc::Sender<Spawner>) -> Books {
    let executor = Executor::new();
    let told = Rc::new(RefCell::new(0));
    let telling = Rc::clone(&told);
    executor.set_exception_handler(move |_, _| *telling.borrow_mut() += 1);
    ready
        .send(executor.spawner())
        .expect("whoever started this waits for it");
    executor.run_forever();
    let counted = SHARD.with(|shard| shard.borrow().values().sum());
    Books {
        counted,
        told: told.take(),
        stats: executor.stats(),
    }
}

fn run(threads: u64, requests: u64) {
    let (ready, spawners) = mpsc::channel();
    let servers: Vec<_> = (0..threads)
        .map(|_| {
            let ready = ready.clone();
            thread::spawn(move || serve(&ready))
        })
        .collect();
    let shards: Arc<[Spawner]> = spawners.iter().take(servers.len()).collect();

    let began = Instant::now();
    let each = requests / (threads * CLIENTS);
    let clients: Vec<_> = (0..threads)
        .zip(shards.iter())
        .map(|(thread, home)| {
            let shards = Arc::clone(&shards);
            // The closure crosses over; the clients that it makes are at home there and never leave.
            let made = home.spawn(move || async move {
                let clients = (0..CLIENTS).map(|client_number| {
                    let first = (thread * CLIENTS + client_number) * each + 1;
                    client(Arc::clone(&shards), first..first + each)
                });
                let answered = gather(clients).await.expect("no client panics");
                answered.into_iter().sum::<u64>()
            });
            made.expect("no shard is closed")
        })
        .collect();
    let answered: u64 = clients
        .into_iter()
        .map(|clients| clients.join().expect("clients do not fail"))
        .sum();
    let took = began.elapsed();

    for shard in shards.iter() {
        shard
            .call_soon(|executor| executor.stop())
            .expect("no shard is closed");
    }
    let books: Vec<Books> = servers
        .into_iter()
        .map(|server| server.join().expect("a server does not panic"))
        .collect();
    let sum = |of: fn(&Books) -> u64| books.iter().map(of).sum::<u64>();
    let made = each * threads * CLIENTS;
    let failed = made - answered;
    println!(
        "{threads} thread(s): {made} requests, {:.0} per second; {failed} failed",
        made as f64 / took.as_secs_f64(),
    );
    assert_eq!(
        sum(|books| books.counted),
        answered,
        "each answer was counted once, in one shard"
    );
    assert_eq!(
        sum(|books| books.told),
        failed,
        "each failure was told once"
    );
    assert_eq!(sum(|books| books.stats.failed), failed);
}

fn main() -> ExitCode {
    let (mut threads, mut requests) = (2, 200_000);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next().map(|value| value.parse::<u64>())) {
            ("--help" | "-h", _) => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            ("--threads", Some(Ok(value @ 1..))) => threads = value,
            ("--requests", Some(Ok(value))) => requests = value,
            _ => {
                eprintln!("{arg}: not understood\n\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    for threads in 1..=threads {
        run(threads, requests);
    }
    ExitCode::SUCCESS
}
