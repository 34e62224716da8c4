//! A long mixed load with random faults, and the books at the end.
//!
//! Two threads, an executor each, which wake, cancel and call into each other. Each keeps half of the tasks: they
//! return, panic, return an `Err`, sleep, park until the other thread wakes them, await each other, panic in
//! destructors, and are cancelled; their handles are awaited, dropped, kept, or cancel on drop. In waves: up to the
//! peak, then down to nothing.
//!
//! ```text
//! cargo run --release --example soak -- --minutes 30
//! cargo run --release --example soak -- --minutes 1 --tasks 1000000 --seed 7
//! ```
//!
//! A progress line on stderr after each wave, the accounting on stdout. Exit status 1 if anything differs: a guard
//! not dropped exactly once on its own thread, a sum of counters, a failure that nobody was told of, memory that grew.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the accounting goes to stdout, the progress to stderr"
)]

use std::alloc;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use cap::Cap;
use mainstay::{CancelHandle, Executor, JoinHandle, LocalHandle, Spawner, Stats, sleep, yield_now};

const USAGE: &str = "usage: soak [--minutes N] [--tasks PEAK] [--seed N]

  --minutes N   how long it runs; 1 unless given, fractions allowed
  --tasks PEAK  live tasks at the peak, on both threads together; 1000000 unless given
  --seed N      another sequence of programs; 1 unless given";

#[derive(Clone, Copy)]
struct Settings {
    minutes: f64,
    peak: u64,
    seed: u64,
}

fn settings() -> Result<Settings, String> {
    let mut settings = Settings {
        minutes: 1.0,
        peak: 1_000_000,
        seed: 1,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--help" || arg == "-h" {
            return Err(String::new());
        }
        let value = args.next().ok_or(format!("{arg} needs a value"))?;
        let bad = |_| format!("{arg}: {value:?} is not a number");
        match arg.as_str() {
            "--minutes" => settings.minutes = value.parse().map_err(|_| bad(()))?,
            "--tasks" => settings.peak = value.parse().map_err(|_| bad(()))?,
            "--seed" => settings.seed = value.parse().map_err(|_| bad(()))?,
            _ => return Err(format!("unknown option {arg}")),
        }
    }
    Ok(settings)
}

/// What both threads count.
#[derive(Default)]
struct Totals {
    guards_made: AtomicU64,
    guards_dropped: AtomicU64,
    /// Guards dropped on a thread that is not their own (promise P4).
    astray: AtomicU64,
    told: AtomicU64,
    default_told: AtomicU64,
    remote_calls: AtomicU64,
    remote_called: AtomicU64,
}

static TOTALS: Totals = Totals {
    guards_made: AtomicU64::new(0),
    guards_dropped: AtomicU64::new(0),
    astray: AtomicU64::new(0),
    told: AtomicU64::new(0),
    default_told: AtomicU64::new(0),
    remote_calls: AtomicU64::new(0),
    remote_called: AtomicU64::new(0),
};

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Every task holds one: it must be dropped once, at home.
struct Guard {
    home: thread::ThreadId,
    /// Its destructor panics.
    armed: bool,
}

impl Guard {
    fn new(armed: bool) -> Self {
        count(&TOTALS.guards_made);
        Guard {
            home: thread::current().id(),
            armed,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        count(&TOTALS.guards_dropped);
        if thread::current().id() != self.home {
            count(&TOTALS.astray);
        }
        if self.armed && !thread::panicking() {
            panic!("soak: a destructor");
        }
    }
}

struct Random(Cell<u64>);

impl Random {
    fn below(&self, n: u64) -> u64 {
        let next = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(next);
        let z = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What one thread leaves for the other.
#[derive(Default)]
struct Exchange {
    wakers: Mutex<Vec<(Waker, Arc<AtomicBool>)>>,
    cancels: Mutex<Vec<CancelHandle>>,
}

impl Exchange {
    /// Drops what nobody came for.
    fn clear(&self) {
        if let Ok(mut wakers) = self.wakers.lock() {
            drop(std::mem::take(&mut *wakers));
        }
        if let Ok(mut cancels) = self.cancels.lock() {
            drop(std::mem::take(&mut *cancels));
        }
    }
}

/// One thread's half.
struct Half {
    random: Random,
    own: Arc<Exchange>,
    other: Arc<Exchange>,
    neighbour: RefCell<Option<Spawner>>,
    kept: RefCell<Vec<JoinHandle<u64>>>,
}

/// Parks until somebody with the waker wakes it.
fn parked(half: &Half) -> impl Future<Output = ()> + use<> {
    let exchange = Arc::clone(&half.own);
    let woken = Arc::new(AtomicBool::new(false));
    let mut left = false;
    poll_fn(move |cx| {
        if woken.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if !left {
            left = true;
            let entry = (cx.waker().clone(), Arc::clone(&woken));
            if let Ok(mut wakers) = exchange.wakers.lock() {
                wakers.push(entry);
            }
        }
        Poll::Pending
    })
}

fn spawn_one(half: &Rc<Half>, ex: &LocalHandle<'static>) {
    let random = &half.random;
    let n = random.below(1_000);
    let guard = Guard::new(random.below(200) == 0);
    let handle = match random.below(10) {
        0 | 1 => ex.spawn(async move {
            for _ in 0..n % 8 {
                yield_now().await;
            }
            drop(guard);
            n
        }),
        2 | 3 => {
            let parked = parked(half);
            ex.spawn(async move {
                parked.await;
                drop(guard);
                n
            })
        }
        4 => ex.spawn(async move {
            sleep(Duration::from_millis(n)).await;
            drop(guard);
            n
        }),
        5 => {
            let pad = [n; 64];
            ex.task().name("padded").spawn(async move {
                yield_now().await;
                drop(guard);
                pad[7]
            })
        }
        6 => {
            let failed = ex.spawn_fallible(async move {
                yield_now().await;
                drop(guard);
                if n < 300 {
                    Err("soak: an error")
                } else {
                    Ok(n)
                }
            });
            ex.spawn(async move { failed.await.map_or(0, |n| n.unwrap_or(0)) })
        }
        7 => ex.spawn(async move {
            yield_now().await;
            drop(guard);
            if n < 100 {
                panic!("soak: a task");
            }
            n
        }),
        8 => {
            let half = Rc::clone(half);
            ex.spawn(async move {
                let _guard = guard;
                spawn_one(&half, &LocalHandle::current());
                yield_now().await;
                n
            })
        }
        _ => {
            let inner = half.kept.borrow_mut().pop();
            ex.spawn(async move {
                let _guard = guard;
                match inner {
                    Some(inner) => inner.await.unwrap_or(n),
                    None => n,
                }
            })
        }
    };
    match random.below(8) {
        0..=3 => handle.detach(),
        4 => {
            handle.add_done_callback(|completion| {
                let _ = completion.outcome();
            });
            handle.detach();
        }
        5 => {
            if let Ok(mut cancels) = half.own.cancels.lock() {
                cancels.push(handle.cancel_handle());
            }
            half.kept.borrow_mut().push(handle);
        }
        6 if n < 20 => drop(handle.cancel_on_drop()),
        _ => half.kept.borrow_mut().push(handle),
    }
}

/// Wakes some of the tasks that park at an exchange.
fn wake(exchange: &Exchange, share: usize) {
    let wakers = exchange.wakers.lock().map(|mut wakers| {
        let all = wakers.len();
        wakers.split_off(all - all.min(share))
    });
    for (waker, woken) in wakers.unwrap_or_default() {
        woken.store(true, Ordering::Release);
        waker.wake();
    }
}

/// Wakes and cancels what the other thread has left, and calls into it.
fn meddle(half: &Half, share: usize) {
    wake(&half.other, share);
    let cancels = half.other.cancels.lock().map(|mut cancels| {
        let all = cancels.len();
        cancels.split_off(all - all.min(share / 4))
    });
    for cancel in cancels.unwrap_or_default() {
        if half.random.below(20) == 0 {
            cancel.cancel();
        }
    }
    if let Some(neighbour) = &*half.neighbour.borrow() {
        let call = neighbour.call_soon(|ex| {
            count(&TOTALS.remote_called);
            ex.spawn(async {}).detach();
        });
        if call.is_ok() {
            count(&TOTALS.remote_calls);
        }
    }
}

/// One wave: up to `peak` live tasks, then down to none.
async fn wave(half: Rc<Half>, peak: u64, highest: Rc<Cell<u64>>) {
    let ex = LocalHandle::current();
    while ex.stats().live < peak {
        for _ in 0..4_096 {
            spawn_one(&half, &ex);
        }
        highest.set(highest.get().max(ex.stats().live));
        meddle(&half, 256);
        yield_now().await;
    }
    // Down again: read some outcomes, drop the other handles, wake everybody.
    loop {
        for _ in 0..8_192 {
            let handle = half.kept.borrow_mut().pop();
            match handle {
                Some(mut handle) if half.random.below(3) == 0 => drop(handle.result()),
                other => drop(other),
            }
        }
        meddle(&half, 16_384);
        // The other thread may have come to the end of its wave, and wake nobody.
        wake(&half.own, 256);
        if ex.stats().live == 0 && half.kept.borrow().is_empty() {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// The system's allocator, with a count of the bytes that are in use. What is resident would not do: allocators give back, or
/// keep, what they like.
#[global_allocator]
static ALLOCATOR: Cap<alloc::System> = Cap::new(alloc::System, usize::MAX);

/// Memory when nothing runs, in bytes.
#[derive(Clone, Copy)]
struct Memory {
    used: usize,
    /// Where the system says it.
    resident: Option<u64>,
}

impl Memory {
    fn now() -> Self {
        Memory {
            used: ALLOCATOR.allocated(),
            resident: resident(),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} KiB in use ({} MiB resident)",
            self.used >> 10,
            self.resident.unwrap_or(0) >> 20
        )
    }
}

/// Resident memory in bytes, where the system says it.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4_096)
}

struct Outcome {
    stats: Stats,
    highest: u64,
    waves: u64,
    settled: Option<Memory>,
    last: Memory,
}

fn thread_main(
    settings: Settings,
    number: usize,
    exchanges: &[Arc<Exchange>; 2],
    spawners: &Mutex<[Option<Spawner>; 2]>,
    barrier: &Barrier,
    over: &AtomicBool,
) -> Outcome {
    let at = number;
    let ex: Executor<'static> = Executor::new();
    ex.set_exception_handler(|_, _| {
        count(&TOTALS.told);
        if TOTALS.told.load(Ordering::Relaxed) % 1_000 == 0 {
            panic!("soak: the handler");
        }
    });
    let half = Rc::new(Half {
        random: Random(Cell::new(settings.seed * 1_000_003 + number as u64)),
        own: Arc::clone(&exchanges[at]),
        other: Arc::clone(&exchanges[1 - at]),
        neighbour: RefCell::new(None),
        kept: RefCell::default(),
    });
    if let Ok(mut spawners) = spawners.lock() {
        spawners[at] = Some(ex.spawner());
    }
    barrier.wait();
    if let Ok(spawners) = spawners.lock() {
        half.neighbour.replace(spawners[1 - at].clone());
    }
    let began = Instant::now();
    let highest = Rc::new(Cell::new(0));
    let (mut waves, mut settled) = (0, None);
    let last = loop {
        ex.block_on(wave(
            Rc::clone(&half),
            settings.peak / 2,
            Rc::clone(&highest),
        ));
        waves += 1;
        // Both are at rest between these two: what is in use after them is what an idle program keeps.
        barrier.wait();
        half.own.clear();
        // Empty by now, but with room for the most that were ever kept at once.
        drop(half.kept.take());
        ex.run_until_stalled();
        ex.shrink();
        barrier.wait();
        let now = Memory::now();
        let minute = Duration::from_secs(60).min(Duration::from_secs_f64(settings.minutes * 20.0));
        if settled.is_none() && began.elapsed() >= minute {
            settled = Some(now);
        }
        if number == 0 {
            let stats = ex.stats();
            eprintln!(
                "{:>6.1} s: wave {waves}, {} tasks and {} failures on this thread, at rest {now}",
                began.elapsed().as_secs_f64(),
                stats.spawned,
                stats.failed,
            );
            over.store(
                began.elapsed().as_secs_f64() >= settings.minutes * 60.0,
                Ordering::SeqCst,
            );
        }
        barrier.wait();
        if over.load(Ordering::SeqCst) {
            break now;
        }
    };
    // What the neighbour sent last is called; then nobody sends any more.
    half.neighbour.replace(None);
    barrier.wait();
    ex.run_until_stalled();
    let stats = ex.stats();
    drop(ex);
    Outcome {
        stats,
        highest: highest.get(),
        waves,
        settled,
        last,
    }
}

fn main() -> ExitCode {
    let settings = match settings() {
        Ok(settings) => settings,
        Err(why) if why.is_empty() => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    panic::set_hook(Box::new(|_| {}));
    mainstay::set_default_exception_handler(|_| count(&TOTALS.default_told));
    let exchanges = [Arc::default(), Arc::default()];
    let spawners = Mutex::new([None, None]);
    let barrier = Barrier::new(2);
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let run = |number| thread_main(settings, number, &exchanges, &spawners, &barrier, &over);
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let threads = [0, 1].map(|number| scope.spawn(move || run(number)));
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    });
    report(&outcomes, began.elapsed())
}

fn report(outcomes: &[Outcome], took: Duration) -> ExitCode {
    let sum = |of: fn(&Stats) -> u64| outcomes.iter().map(|o| of(&o.stats)).sum::<u64>();
    let get = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let (spawned, live) = (sum(|s| s.spawned), sum(|s| s.live));
    let (returned, failed, cancelled) =
        (sum(|s| s.returned), sum(|s| s.failed), sum(|s| s.cancelled));
    let (reported, retrieved, unread) =
        (sum(|s| s.reported), sum(|s| s.retrieved), sum(|s| s.unread));
    let reports = sum(|s| s.reports);
    let highest: u64 = outcomes.iter().map(|o| o.highest).sum();
    let waves = outcomes.first().map_or(0, |o| o.waves);
    let (made, dropped) = (get(&TOTALS.guards_made), get(&TOTALS.guards_dropped));
    let (calls, called) = (get(&TOTALS.remote_calls), get(&TOTALS.remote_called));
    let told = get(&TOTALS.told) + get(&TOTALS.default_told);
    let settled = outcomes.iter().find_map(|o| o.settled);
    let last = outcomes
        .iter()
        .map(|o| o.last)
        .max_by_key(|memory| memory.used);
    println!("{waves} waves in {took:.1?}, {highest} live tasks at the peak");
    println!(
        "tasks: {spawned} spawned, {live} live, {returned} returned, {failed} failed, {cancelled} cancelled"
    );
    println!("failures: {reported} reported, {retrieved} retrieved, {unread} unread");
    println!("reports: {reports} made, {told} heard");
    println!(
        "guards: {made} made, {dropped} dropped, {} on another thread",
        get(&TOTALS.astray)
    );
    println!("closures from the other thread: {calls} sent, {called} called");
    if let (Some(settled), Some(last)) = (settled, last) {
        println!("memory at rest, after the first minute: {settled}; at the end: {last}");
    }
    // The same to the byte but for small tables; a leak of one byte per task would be far more.
    let grew = matches!((settled, last), (Some(settled), Some(last)) if last.used > settled.used + settled.used / 8 + (1 << 20));
    let checks = [
        ("a thread died", outcomes.len() == 2),
        (
            "spawned is the sum",
            spawned == live + returned + failed + cancelled,
        ),
        ("nothing is left", live == 0),
        (
            "failed is the sum",
            failed == reported + retrieved + unread && unread == 0,
        ),
        ("every report was heard", reports == told),
        ("every guard was dropped once", made == dropped),
        ("every guard was dropped at home", get(&TOTALS.astray) == 0),
        ("every closure was called", calls == called),
        ("memory did not grow", !grew),
    ];
    let mut status = ExitCode::SUCCESS;
    for (what, holds) in checks {
        if !holds {
            println!("DIFFERENCE: not so: {what}");
            status = ExitCode::FAILURE;
        }
    }
    if status == ExitCode::SUCCESS {
        println!("everything adds up");
    }
    status
}
