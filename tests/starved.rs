//! Out of memory: every allocation that a program makes fails once, each in a process of its own.
//!
//! The process ends well, its books in order; or by the standard library's own abort ("memory allocation of .. bytes
//! failed"). The arena's own allocations do neither: they panic at the spawn that asked, and leave the executor as it
//! was (`Executor::spawn`, "Panics"). Anything else is a failure of this test: a lost task, a fault, another message.
#![allow(
    unsafe_code,
    reason = "a global allocator cannot be written without it; nothing else here uses it"
)]
#![allow(
    clippy::print_stdout,
    reason = "a child tells its parent by its output, and the counts are this test's second result"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::array;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::env;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::ptr;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use mainstay::{Executor, JoinHandle, ReportPolicy, sleep, timeout, yield_now};

// ---------------------------------------------------------------------------------------------------------------------
// The allocator
// ---------------------------------------------------------------------------------------------------------------------

/// The system's allocator, which says no once.
struct Failing;

#[global_allocator]
static ALLOCATOR: Failing = Failing;

thread_local! {
    /// Allocations until one fails; `None`: none does.
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    static MADE: Cell<u32> = const { Cell::new(0) };
}

/// Whether this allocation is to fail.
fn fails() -> bool {
    // The thread may be ending, when its locals are gone.
    LEFT.try_with(|left| {
        MADE.set(MADE.get() + 1);
        match left.get() {
            None => false,
            Some(0) => {
                left.set(None);
                true
            }
            Some(n) => {
                left.set(Some(n - 1));
                false
            }
        }
    })
    .unwrap_or(false)
}

// SAFETY: every method hands its arguments to `System` as they are, or answers as an allocator without memory does; the
// counting beside it allocates nothing (the thread-locals are const-initialised, without destructors) and cannot unwind.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return ptr::null_mut();
        }
        // SAFETY: the caller's contract is that of `System::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if fails() {
            return ptr::null_mut();
        }
        // SAFETY: the caller's contract is that of `System::realloc`, and `memory` came from `System`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The child: a program that uses everything that allocates
// ---------------------------------------------------------------------------------------------------------------------

/// Counts what lives.
struct Guard(Rc<Cell<i64>>);

impl Guard {
    fn new(alive: &Rc<Cell<i64>>) -> Self {
        alive.set(alive.get() + 1);
        Guard(Rc::clone(alive))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Runs what may run out of memory; `None` if it did, and said so as it should.
fn starving<T>(what: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(what)) {
        Ok(value) => Some(value),
        Err(payload) => {
            let text = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .expect("the library's panics have a text");
            assert!(text.starts_with("mainstay: out of memory"), "{text}");
            None
        }
    }
}

fn spawn_some(ex: &Executor<'static>, alive: &Rc<Cell<i64>>) -> Vec<JoinHandle<usize>> {
    let mut handles = Vec::with_capacity(1_000);
    for n in 0..120 {
        let guard = Guard::new(alive);
        handles.extend(starving(|| {
            ex.spawn(async move {
                yield_now().await;
                drop(guard);
                n
            })
        }));
    }
    for n in 0..8 {
        let (guard, pad) = (Guard::new(alive), [n; 300]);
        handles.extend(starving(|| {
            ex.spawn(async move {
                sleep(Duration::from_millis(5)).await;
                drop(guard);
                pad[n]
            })
        }));
        let (guard, pad) = (Guard::new(alive), [n; 5_000]);
        handles.extend(starving(|| {
            ex.spawn(async move {
                yield_now().await;
                drop(guard);
                pad[n]
            })
        }));
    }
    handles
}

fn child(n: Option<u32>) {
    panic::set_hook(Box::new(|_| {}));
    let alive = Rc::new(Cell::new(0));
    let told = Rc::new(Cell::new(0));
    LEFT.set(n);
    MADE.set(0);
    let Some(ex) = starving(|| {
        Executor::builder()
            .virtual_clock()
            .report(ReportPolicy::OnFailure)
            .build()
    }) else {
        return;
    };
    let count = Rc::clone(&told);
    ex.set_exception_handler(move |_, _| count.set(count.get() + 1));
    let handles = spawn_some(&ex, &alive);
    if let Some(handle) = handles.first() {
        handle.add_done_callback(|_| ());
        let _ = handle.cancel_with_reason("a reason");
    }
    let named = starving(|| ex.task().name("named").spawn(async { 1 }));
    let failed = starving(|| ex.spawn_fallible(async { Err::<(), _>("failed") }));
    let panicked = starving(|| ex.spawn(async { panic::resume_unwind(Box::new("panicked")) }));
    let _call = starving(|| ex.call_later(Duration::from_millis(1), || ()));
    let guard = Guard::new(&alive);
    let waiting = starving(|| {
        ex.spawn(async move {
            let _guard = guard;
            let never = timeout(Duration::from_millis(20), std::future::pending::<()>());
            assert!(never.await.is_err());
        })
    });
    let cancel = waiting.as_ref().map(JoinHandle::cancel_handle);
    let spawner = ex.spawner();
    let thread = thread::Builder::new().spawn(move || {
        drop(spawner.call_soon(|_| ()));
        cancel.map(|cancel| cancel.cancel())
    });
    if let Ok(thread) = thread {
        assert!(thread.join().is_ok());
    }
    let _ = ex.run_until_stalled();
    ex.advance(Duration::from_millis(30));
    let _ = ex.run_until_stalled();
    ex.shrink();
    let more = spawn_some(&ex, &alive);
    let _ = ex.run_until_stalled();

    let stats = ex.stats();
    let ended = stats.live + stats.returned + stats.failed + stats.cancelled;
    assert_eq!(stats.spawned, ended, "P2: {stats:?}");
    assert_eq!(
        stats.failed,
        stats.reported + stats.retrieved + stats.unread
    );
    assert_eq!(
        stats.failed,
        u64::from(failed.is_some()) + u64::from(panicked.is_some())
    );
    assert_eq!(stats.reports, told.get());
    drop((named, failed, panicked, waiting, handles, more));
    drop(ex);
    assert_eq!(alive.get(), 0, "P1: a future was lost");
    let made = MADE.get();
    LEFT.set(None);
    println!("fine, {made} allocations");
}

// ---------------------------------------------------------------------------------------------------------------------
// The arena by itself
// ---------------------------------------------------------------------------------------------------------------------

/// What a spawn allocates is the arena's own, and the standard library's abort is no answer there: whichever of these fails,
/// the spawn panics, at the caller, and everything is as it was.
#[test]
fn a_spawn_without_memory_panics_at_its_caller_and_changes_nothing() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<&str>();
        if !text.is_some_and(|text| text.contains("out of memory")) {
            return usual(panic);
        }
        let place = panic.location().expect("a panic has a place").file();
        assert!(place.ends_with("starved.rs"), "it blames {place}");
    }));
    let mut failures = 0;
    for n in 0.. {
        let ex = Executor::new();
        let alive = Rc::new(Cell::new(0));
        let mut handles = Vec::with_capacity(1_000);
        let mut left = Some(n);
        let mut spawn = |pad: usize| {
            let guard = Guard::new(&alive);
            let before = ex.stats();
            // Allocations count in the spawn alone.
            let spawned = match pad {
                0 => starving(|| {
                    LEFT.set(left);
                    ex.spawn(async move { drop(guard) })
                }),
                300 => starving(|| {
                    LEFT.set(left);
                    ex.spawn(holding(guard, [0_u8; 300]))
                }),
                _ => starving(|| {
                    LEFT.set(left);
                    ex.spawn(holding(guard, [0_u8; 40_000]))
                }),
            };
            left = LEFT.replace(None);
            if spawned.is_none() {
                assert_eq!(ex.stats(), before, "it was not spawned");
            }
            handles.extend(spawned);
        };
        (0..600).for_each(|_| spawn(0));
        (0..100).for_each(|_| spawn(300));
        (0..10).for_each(|_| spawn(40_000));
        let all = handles.len() == 710;
        assert!(handles.len() >= 709, "one failure costs one spawn");
        assert_eq!(alive.get(), i64::try_from(handles.len()).expect("few"));
        ex.run_until_stalled();
        assert!(handles.iter().all(JoinHandle::is_finished));
        drop(handles);
        drop(ex);
        assert_eq!(alive.get(), 0);
        if all {
            break;
        }
        failures += 1;
    }
    drop(panic::take_hook());
    assert!(failures > 20, "{failures}: too few to show anything");
}

async fn holding<T>(guard: Guard, pad: T) {
    yield_now().await;
    drop((guard, pad));
}

// ---------------------------------------------------------------------------------------------------------------------
// The parent
// ---------------------------------------------------------------------------------------------------------------------

const FAIL_AT: &str = "MAINSTAY_FAIL_AT";

/// How a child ended, in words; `Err` if it must not end so.
fn run_child(at: &str) -> Result<String, String> {
    let output = Command::new(env::current_exe().expect("a test has a path"))
        .args(["--exact", "every_allocation_may_fail", "--nocapture"])
        .env(FAIL_AT, at)
        .output()
        .expect("a child can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    if output.status.code().is_none() && errors.contains("memory allocation of") {
        return Ok("abort".to_owned());
    }
    Err(format!("{}\n{text}{errors}", output.status))
}

#[test]
fn every_allocation_may_fail() {
    if let Ok(at) = env::var(FAIL_AT) {
        return child(at.parse().ok());
    }
    let whole = run_child("never").unwrap_or_else(|why| panic!("without a failure: {why}"));
    let count = whole
        .split("fine, ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|count| count.parse::<u32>().ok())
        .expect("the child counts");
    assert!(count > 50, "{count} allocations: too few to show anything");
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    let workers: [_; 2] = array::from_fn(|worker: usize| {
        thread::spawn(move || {
            (worker..count as usize)
                .step_by(2)
                .map(|at| (at, run_child(&at.to_string())))
                .collect::<Vec<_>>()
        })
    });
    for (at, end) in workers
        .into_iter()
        .flat_map(|worker| worker.join().expect("it only waits"))
    {
        match end {
            Ok(text) if text == "abort" => *ends.entry("aborted by std").or_default() += 1,
            Ok(text) if text.contains("fine, ") => *ends.entry("ended well").or_default() += 1,
            Ok(_) => *ends.entry("had no executor").or_default() += 1,
            Err(why) => panic!("allocation {at} of {count} failed, and then: {why}"),
        }
    }
    println!("{count} allocations, each failed once: {ends:?}");
    assert!(
        ends["ended well"] > 20,
        "the arena's own allocations panic: {ends:?}"
    );
}
