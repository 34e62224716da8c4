//! What is allocated, and when: a counting allocator for the whole binary, which counts for each thread on its own, so that
//! tests may run side by side.
#![allow(
    unsafe_code,
    reason = "a global allocator cannot be written without it; nothing else here uses it"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::array;
use std::cell::Cell;
use std::env;
use std::future::{Future, pending, poll_fn};
use std::hint::black_box;
use std::process::Command;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use mainstay::{Executor, JoinHandle, sleep_until, yield_now};

// ---------------------------------------------------------------------------------------------------------------------
// The allocator
// ---------------------------------------------------------------------------------------------------------------------

/// The system's allocator, with counters.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { allocations: 0, live: 0, peak: 0 }) };
}

/// What this thread has allocated so far, and has not given back.
#[derive(Clone, Copy)]
struct Counts {
    /// How often it asked for memory, or for more of it.
    allocations: usize,
    /// Bytes that it holds; what another thread gives back is not taken off.
    live: isize,
    /// The most that `live` was since it was last looked at.
    peak: isize,
}

fn count(allocations: usize, bytes: isize) {
    // The thread may be ending, when its locals are gone.
    let _ = COUNTS.try_with(|counts| {
        let mut now = counts.get();
        now.allocations += allocations;
        now.live += bytes;
        now.peak = now.peak.max(now.live);
        counts.set(now);
    });
}

fn signed(size: usize) -> isize {
    isize::try_from(size).expect("a layout's size fits")
}

// SAFETY: every method hands its arguments to `System` as they are and gives back what that gives; the counting beside it
// allocates nothing (the thread-local is const-initialised and has no destructor) and cannot unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, signed(layout.size()));
        // SAFETY: the caller's contract is that of `System::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, signed(layout.size()));
        // SAFETY: the caller's contract is that of `System::alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, signed(size) - signed(layout.size()));
        // SAFETY: the caller's contract is that of `System::realloc`, and `memory` came from `System`.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, -signed(layout.size()));
        // SAFETY: the caller's contract is that of `System::dealloc`, and `memory` came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// How often the calling thread allocates in `f`.
fn allocations(f: impl FnOnce()) -> usize {
    let before = COUNTS.get().allocations;
    f();
    COUNTS.get().allocations - before
}

/// The bytes that the calling thread holds.
fn live() -> isize {
    COUNTS.get().live
}

/// By how many bytes the calling thread's holdings grow in `f`, at their peak.
fn growth(f: impl FnOnce()) -> isize {
    let mut counts = COUNTS.get();
    counts.peak = counts.live;
    COUNTS.set(counts);
    f();
    COUNTS.get().peak - counts.live
}

/// Calls `f` often enough for everything that it needs to be there, then asserts that it allocates nothing any more.
#[track_caller]
fn allocates_nothing_once_warm(what: &str, mut f: impl FnMut()) {
    for _ in 0..20 {
        f();
    }
    let allocations = allocations(|| {
        for _ in 0..50 {
            f();
        }
    });
    assert_eq!(allocations, 0, "{what}, 50 times over");
}

/// A future of about `N` bytes that yields once.
fn sized<const N: usize>() -> impl Future<Output = u8> {
    let bytes = [1_u8; N];
    async move {
        yield_now().await;
        black_box(&bytes)[N - 1]
    }
}

/// A future of about `N` bytes that never ends.
fn parks_with<const N: usize>() -> impl Future<Output = ()> {
    let bytes = [1_u8; N];
    async move {
        pending::<()>().await;
        black_box(&bytes);
    }
}

/// Wakes itself at each of its first `n` polls.
fn yields(mut n: usize) -> impl Future<Output = ()> {
    poll_fn(move |cx| {
        if n == 0 {
            return Poll::Ready(());
        }
        n -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

// The counters themselves, or everything below proves nothing.
#[test]
fn the_allocator_counts() {
    let allocated = allocations(|| drop(black_box(Box::new(1_u64))));
    assert_eq!(allocated, 1);
    let before = live();
    let bytes = black_box(vec![1_u8; 1_000]);
    assert_eq!(live(), before + 1_000);
    drop(bytes);
    assert_eq!(live(), before);
    assert!(growth(|| drop(black_box(vec![1_u8; 5_000]))) >= 5_000);
}

// ---------------------------------------------------------------------------------------------------------------------
// Spawning
// ---------------------------------------------------------------------------------------------------------------------

/// Asserts that batches of tasks of about `N` bytes allocate nothing once warm: detached, joined, read and cancelled.
fn spawning_is_free<const N: usize>() {
    const BATCH: usize = 64;
    let ex = Executor::new();
    allocates_nothing_once_warm(&format!("spawn and detach of {N} bytes"), || {
        for _ in 0..BATCH {
            ex.spawn(sized::<N>()).detach();
        }
        ex.run_until_stalled();
    });

    let mut handles: Vec<JoinHandle<u8>> = Vec::with_capacity(BATCH);
    allocates_nothing_once_warm(&format!("spawn and result of {N} bytes"), || {
        handles.extend((0..BATCH).map(|_| ex.spawn(sized::<N>())));
        ex.run_until_stalled();
        for mut handle in handles.drain(..) {
            assert_eq!(handle.result().expect("finished").ok(), Some(1));
        }
    });

    // Driven by `run_until_stalled`, because this is about spawning, and a `block_on` may cost something of its own.
    allocates_nothing_once_warm(&format!("spawn and await of {N} bytes"), || {
        let handles: [JoinHandle<u8>; BATCH] = array::from_fn(|_| ex.spawn(sized::<N>()));
        let all = ex.spawn(async move {
            for handle in handles {
                assert_eq!(handle.await.ok(), Some(1));
            }
        });
        ex.run_until_stalled();
        assert!(all.is_finished());
    });

    allocates_nothing_once_warm(&format!("spawn and cancel of {N} bytes"), || {
        let handles: [JoinHandle<u8>; BATCH] = array::from_fn(|_| ex.spawn(sized::<N>()));
        ex.tick(BATCH / 2);
        let all = ex.spawn(async move {
            // Half of them have returned by now; the others have yielded.
            for handle in handles {
                handle.cancel();
            }
        });
        ex.run_until_stalled();
        assert!(all.is_finished());
    });
}

// Design section 4: spawning in the steady state is a pop and a move, without malloc.
#[test]
fn spawning_small_futures_in_the_steady_state_does_not_allocate() {
    spawning_is_free::<1>();
    spawning_is_free::<64>();
    spawning_is_free::<200>();
}

// Design section 4: the same for futures of 2 KiB.
#[test]
fn spawning_futures_of_two_kibibytes_in_the_steady_state_does_not_allocate() {
    spawning_is_free::<2_048>();
}

// Design section 4: from within a task, through the free functions, as servers do.
#[test]
fn spawning_from_within_tasks_in_the_steady_state_does_not_allocate() {
    let ex = Executor::new();
    allocates_nothing_once_warm("a task that spawns and joins", || {
        let mut handle = ex.spawn(async {
            let mut sum = 0;
            for _ in 0..10 {
                let small = mainstay::spawn(sized::<16>());
                let large = mainstay::spawn(sized::<1_000>());
                mainstay::spawn(yields(3)).detach();
                sum +=
                    usize::from(small.await.unwrap_or(0)) + usize::from(large.await.unwrap_or(0));
            }
            sum
        });
        ex.run_until_stalled();
        assert_eq!(handle.result().expect("finished").ok(), Some(20));
    });
}

// Design section 4: many sizes in turn do not drive each other out of their pages.
#[test]
fn spawning_mixed_sizes_in_the_steady_state_does_not_allocate() {
    let ex = Executor::new();
    allocates_nothing_once_warm("mixed sizes", || {
        for i in 0..60 {
            match i % 5 {
                0 => ex.spawn(sized::<8>()).detach(),
                1 => ex.spawn(sized::<100>()).detach(),
                2 => ex.spawn(sized::<400>()).detach(),
                3 => ex.spawn(sized::<900>()).detach(),
                _ => ex.spawn(sized::<1_900>()).detach(),
            }
        }
        ex.run_until_stalled();
    });
}

// Design section 4: `spawn_fallible`, too, as long as nothing fails.
#[test]
fn spawning_fallible_futures_in_the_steady_state_does_not_allocate() {
    let ex = Executor::new();
    allocates_nothing_once_warm("spawn_fallible", || {
        for _ in 0..30 {
            ex.spawn_fallible(async {
                yield_now().await;
                Ok::<u8, String>(7)
            })
            .detach();
        }
        ex.run_until_stalled();
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Waking
// ---------------------------------------------------------------------------------------------------------------------

/// Parks for ever, and leaves its latest waker in `kept`.
fn parked(kept: &Arc<Mutex<Option<Waker>>>) -> impl Future<Output = ()> + use<> {
    let kept = Arc::clone(kept);
    poll_fn(move |cx| {
        *kept.lock().expect("not poisoned") = Some(cx.waker().clone());
        Poll::Pending
    })
}

fn waker(kept: &Arc<Mutex<Option<Waker>>>) -> Waker {
    let waker = kept.lock().expect("not poisoned").clone();
    waker.expect("it was polled")
}

// Design section 3: keys are the wakers, so there is nothing to allocate.
#[test]
fn wakes_at_home_do_not_allocate() {
    let ex = Executor::new();
    for _ in 0..50 {
        ex.task().background().spawn(yields(usize::MAX)).detach();
    }
    allocates_nothing_once_warm("tasks that wake themselves", || {
        ex.tick(500);
    });

    let ex = Executor::new();
    let kept = Arc::new(Mutex::new(None));
    ex.task().background().spawn(parked(&kept)).detach();
    ex.run_until_stalled();
    allocates_nothing_once_warm("a wake between two drives", || {
        let waker = waker(&kept);
        waker.wake_by_ref();
        waker.wake();
        ex.run_until_stalled();
    });
    let between = Arc::clone(&kept);
    let waking = ex.spawn(async move {
        for _ in 0..200 {
            waker(&between).wake();
            yield_now().await;
        }
    });
    ex.tick(20);
    assert_eq!(allocations(|| while ex.tick(20).more {}), 0, "task to task");
    assert!(waking.is_finished());
}

// Design section 3: cloning a waker copies it; dropping it does nothing.
#[test]
fn cloning_wakers_does_not_allocate() {
    let ex = Executor::new();
    let kept = Arc::new(Mutex::new(None));
    ex.task().background().spawn(parked(&kept)).detach();
    ex.run_until_stalled();
    let waker = waker(&kept);
    let mut clones: Vec<Waker> = Vec::with_capacity(1_000);
    let allocated = allocations(|| {
        clones.extend((0..1_000).map(|_| waker.clone()));
        clones.clear();
    });
    assert_eq!(allocated, 0);
}

// Design section 3, P7: a wake from another thread allocates nothing, there or at home, however often.
#[test]
fn wakes_from_other_threads_do_not_allocate() {
    let ex = Executor::new();
    let kept: Vec<_> = (0..300).map(|_| Arc::new(Mutex::new(None))).collect();
    for kept in &kept {
        ex.task().background().spawn(parked(kept)).detach();
    }
    ex.run_until_stalled();
    for round in 0..5 {
        let wakers: Vec<Waker> = kept.iter().map(waker).collect();
        let there = thread::spawn(move || {
            allocations(|| {
                for _ in 0..100 {
                    wakers.iter().for_each(Waker::wake_by_ref);
                }
            })
        })
        .join()
        .expect("the thread ends well");
        assert_eq!(there, 0, "on the thread that wakes");
        let at_home = allocations(|| {
            assert_eq!(ex.run_until_stalled().polls, 300);
        });
        assert!(round == 0 || at_home == 0, "at home: {at_home}");
    }
}

// P7: a thread that wakes one task in a tight loop occupies one entry.
#[test]
fn a_million_wakes_of_one_task_occupy_no_memory() {
    let ex = Executor::new();
    let kept = Arc::new(Mutex::new(None));
    ex.task().background().spawn(parked(&kept)).detach();
    ex.run_until_stalled();
    let waker = waker(&kept);
    let at_home = growth(|| {
        for _ in 0..1_000_000 {
            waker.wake_by_ref();
        }
    });
    assert_eq!(at_home, 0);
    let elsewhere = thread::spawn(move || {
        growth(|| {
            for _ in 0..1_000_000 {
                waker.wake_by_ref();
            }
        })
    });
    assert_eq!(elsewhere.join().expect("the thread ends well"), 0);
    assert_eq!(ex.run_until_stalled().polls, 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// Bounds
// ---------------------------------------------------------------------------------------------------------------------

// P7: slots, pages and run-queue entries are bounded by what lives, under spawn-and-cancel in a loop as well.
#[test]
fn spawning_and_cancelling_in_one_poll_keeps_memory_bounded() {
    let ex = Executor::new();
    let root = async {
        let at_peak = growth(|| {
            for _ in 0..100_000 {
                let handle = mainstay::spawn(sized::<2_048>());
                assert!(handle.cancel());
            }
        });
        assert!(at_peak < 1 << 20, "it grew by {at_peak} bytes");
    };
    ex.block_on(root);
    assert!(ex.is_empty());
}

// P7: the same where each task was woken, so that it had its place in the queue.
#[test]
fn waking_and_cancelling_in_one_poll_keeps_memory_bounded() {
    let ex = Executor::new();
    ex.block_on(async {
        let handle = mainstay::spawn(async {
            let at_peak = growth(|| {
                for _ in 0..100_000 {
                    let dropped = mainstay::spawn(yields(1)).cancel_on_drop();
                    drop(dropped);
                    mainstay::spawn(pending::<()>()).cancel();
                }
            });
            assert!(at_peak < 1 << 20, "it grew by {at_peak} bytes");
        });
        assert!(handle.await.is_ok());
    });
    assert!(ex.is_empty());
}

// P7: cancels that wait for a drive are bounded by what lives, too.
#[test]
fn cancelling_again_and_again_between_drives_keeps_memory_bounded() {
    let ex = Executor::new();
    let handle = ex.spawn(pending::<()>());
    let cancel = handle.cancel_handle();
    handle.cancel();
    let grown = growth(|| {
        for _ in 0..100_000 {
            assert!(handle.cancel());
            assert!(cancel.cancel());
        }
    });
    assert!(grown < 64 << 10, "it grew by {grown} bytes");
    ex.run_until_stalled();
    assert!(handle.is_cancelled());
}

// P7: a loop that lives long, with a few tasks at a time, does not grow.
#[test]
fn a_long_life_with_few_tasks_at_a_time_keeps_memory_bounded() {
    let ex = Executor::new();
    let life = || {
        let mut held = Vec::with_capacity(10);
        for i in 0..1_000 {
            held.push(ex.spawn(sized::<300>()));
            ex.task().background().spawn(yields(i % 3)).detach();
            ex.tick(4);
            if held.len() == 10 {
                held.clear();
            }
        }
        ex.run_until_stalled();
        drop(held);
        ex.run_until_stalled();
    };
    life();
    let before = live();
    for _ in 0..20 {
        life();
    }
    assert_eq!(live(), before);
}

// P7: unread outcomes in held handles are all that remains of finished tasks.
#[test]
fn outcomes_are_given_back_with_their_handles() {
    let ex = Executor::new();
    let round = || {
        let handles: Vec<JoinHandle<Box<[u8]>>> = (0..100)
            .map(|_| ex.spawn(async { vec![1_u8; 1_000].into_boxed_slice() }))
            .collect();
        ex.run_until_stalled();
        handles
    };
    drop(round());
    let before = live();
    let handles = round();
    assert!(live() >= before + 100 * 1_000);
    drop(handles);
    assert_eq!(live(), before);
}

// Design section 4: what few tasks have is given back with them.
#[test]
fn names_callbacks_and_reasons_are_given_back_with_their_task() {
    let ex = Executor::new();
    let round = || {
        for i in 0..50 {
            let handle = ex.task().name(format!("task-{i}")).spawn(yields(2));
            for _ in 0..3 {
                handle.add_done_callback(|_| {});
            }
            let removed = handle.add_done_callback(|_| {});
            assert!(handle.remove_done_callback(removed));
            if i % 2 == 0 {
                handle.cancel_with_reason("a reason that is long enough to be allocated");
            }
        }
        ex.run_until_stalled();
    };
    round();
    round();
    let before = live();
    for _ in 0..10 {
        round();
    }
    assert_eq!(live(), before);
}

// Design section 4: a handle that keeps its task's name, after its outcome was taken, gives that back with itself.
#[test]
fn what_a_handle_remembers_is_given_back_with_it() {
    let ex = Executor::new();
    let round = || {
        let mut handle = ex.task().name("the name of a task").spawn(async {});
        ex.run_until_stalled();
        handle.result().expect("it has ended").expect("it returned");
        assert_eq!(handle.name(), "the name of a task");
    };
    round();
    let before = live();
    for _ in 0..100 {
        round();
    }
    assert_eq!(live(), before);
}

// Design section 4: the cell of a small future stays within two cache lines, and a slot is small.
#[test]
fn a_small_task_takes_little_memory() {
    const TASKS: usize = 10_000;
    let ex = Executor::builder().capacity(TASKS).build();
    let before = live();
    for i in 0..TASKS {
        ex.task()
            .background()
            .spawn(async move {
                pending::<()>().await;
                black_box(i);
            })
            .detach();
    }
    ex.run_until_stalled();
    let each = (live() - before) / signed(TASKS);
    assert!(each <= 256, "{each} bytes for each");
}

// Design section 4: `shrink` gives memory back that is not used.
#[test]
fn shrink_gives_memory_back() {
    let ex = Executor::new();
    ex.spawn(yields(1)).detach();
    ex.run_until_stalled();
    ex.shrink();
    let before = live();
    for _ in 0..10_000 {
        ex.spawn(sized::<2_048>()).detach();
    }
    ex.run_until_stalled();
    assert!(ex.is_empty());
    let kept = live() - before;
    assert!(kept > 10 << 20, "pages are kept for reuse: {kept} bytes");
    ex.shrink();
    let left = live() - before;
    assert!(left < 1 << 20, "{left} bytes are left");
    // And it works as before.
    ex.spawn(sized::<2_048>()).detach();
    assert_eq!(ex.block_on(async { 7 }), 7);
}

// Design section 4: an executor that shrinks, with nobody in it, is as small as when it was new: also its tables.
#[test]
fn an_executor_that_shrinks_is_as_small_as_a_new_one() {
    let load = |ex: &Executor<'_>, tasks: usize| {
        for _ in 0..tasks {
            ex.spawn(sized::<16>()).detach();
        }
        ex.run_until_stalled();
        ex.shrink();
    };
    alone("an_executor_that_shrinks_is_as_small_as_a_new_one", || {
        // The endpoint's bits are never given back, and the next executor has the same endpoint.
        load(&Executor::new(), 20_000);
        let ex = Executor::new();
        load(&ex, 1);
        let before = live();
        load(&ex, 20_000);
        assert_eq!(live(), before);
    });
}

// A task with an allocation of its own gives that back at its end, in a cancel or a destructor, say: no place to ask for more.
#[test]
fn a_big_task_ends_without_allocating_also_after_a_shrink() {
    let ex = Executor::new();
    for _ in 0..100 {
        ex.spawn(sized::<20_000>()).detach();
    }
    ex.tick(100);
    ex.shrink();
    assert_eq!(ex.len(), 100);
    let ends = || assert!(!ex.run_until_stalled().more);
    assert_eq!(allocations(ends), 0);
    assert!(ex.is_empty());
}

// P7: a root's place is let again when its drive is over.
#[test]
fn a_thousand_roots_take_no_more_memory_than_one() {
    let ex = Executor::new();
    let drives = || (0..1_000).for_each(|_| ex.block_on(yields(1)));
    drives();
    let before = live();
    drives();
    assert_eq!(live(), before);
}

/// Asserts that many lives of an executor take no more memory than two. Alone in its process.
#[track_caller]
fn leaves_nothing(life: impl Fn()) {
    // What belongs to the process is there after the first ones.
    life();
    life();
    let before = live();
    for _ in 0..40 {
        life();
    }
    // Not exact, because the pool of idle endpoints grows and shrinks by the block.
    let grown = live() - before;
    assert!(grown < 4 << 10, "{grown} bytes after 40 lives");
}

// Design section 7: what handles keep of an executor that is gone goes with the last of them.
#[test]
fn handles_that_outlive_their_executor_give_it_back() {
    let life = || {
        let ex = Executor::new();
        ex.set_exception_handler(|_, _| {});
        let handles: Vec<_> = (0..10).map(|_| ex.spawn(sized::<1_000>())).collect();
        let pending: Vec<_> = (0..10).map(|_| ex.spawn(pending::<()>())).collect();
        ex.block_on(yields(3));
        drop(ex);
        drop((handles, pending));
    };
    alone("handles_that_outlive_their_executor_give_it_back", || {
        leaves_nothing(life);
    });
}

// api.md: with a capacity, the tables are there from the start, and only pages are still to be had.
#[test]
fn a_capacity_spares_growing_the_tables() {
    const TASKS: usize = 20_000;
    let spawns = |ex: &Executor<'static>| {
        allocations(|| {
            for _ in 0..TASKS {
                ex.spawn(pending::<()>()).detach();
            }
        })
    };
    let grown = Executor::new();
    let with = Executor::builder().capacity(TASKS).build();
    let (with, grown) = (spawns(&with), spawns(&grown));
    assert!(with + 10 < grown, "{with} allocations instead of {grown}");
}

// Design section 4: when nobody lives, an executor that shrinks keeps nothing but what it began with.
#[test]
fn shrink_gives_back_all_that_nobody_lives_in() {
    let ex = Executor::new();
    let round = || {
        for _ in 0..1_000 {
            ex.spawn(sized::<16>()).detach();
            ex.spawn(sized::<2_048>()).detach();
        }
        ex.run_until_stalled();
        ex.shrink();
        live()
    };
    // The endpoint's bits are never given back.
    let before = round();
    assert_eq!(round(), before);
    let one = ex.spawn(parks_with::<16>());
    ex.run_until_stalled();
    ex.shrink();
    let with_one = live();
    assert!(with_one - before < 16 << 10, "a page and its tables");
    round();
    assert_eq!(live(), with_one);
    drop(one);
}

// Design section 8, P7: the same of timers: those that were cancelled, and those that were due at once.
#[test]
fn shrink_gives_back_what_timers_took() {
    let load = |ex: &Executor<'_>, timers: u64, due: bool| {
        let start = ex.now();
        let at = |n| start + Duration::from_secs(if due { 1 } else { n });
        let sleeps = (1..=timers).map(|n| ex.spawn(sleep_until(at(n))));
        let handles: Vec<_> = sleeps.collect();
        ex.run_until_stalled();
        if due {
            ex.advance(Duration::from_secs(1));
        } else {
            assert!(handles.iter().all(JoinHandle::cancel));
        }
        ex.run_until_stalled();
        assert!(ex.is_empty());
        drop(handles);
        ex.shrink();
    };
    alone("shrink_gives_back_what_timers_took", || {
        for due in [false, true] {
            let new = || Executor::builder().virtual_clock().build();
            // The endpoint's bits are never given back, and the next executor has the same endpoint.
            load(&new(), 2_000, due);
            let ex = new();
            load(&ex, 1, due);
            let before = live();
            load(&ex, 2_000, due);
            // The lists of what to look at next, which are short.
            let left = live() - before;
            assert!(left < 1 << 10, "{left} bytes are left, due: {due}");
            ex.block_on(sleep_until(ex.now() + Duration::from_secs(1)));
        }
    });
}

// Design section 4: a page in which somebody lives goes on letting its other slots after a shrink, and no page that is gone.
#[test]
fn the_vacant_slots_of_a_page_that_stays_are_let_after_a_shrink() {
    /// The slots of a page of small tasks.
    const PAGE: usize = 64;
    // Which tasks of the page that stays are ended before those of the pages that go, and which after.
    for first in [0, PAGE / 2, PAGE - 1] {
        let ex = Executor::new();
        let mut handles: Vec<_> = (0..3 * PAGE)
            .map(|_| ex.spawn(parks_with::<16>()))
            .collect();
        ex.run_until_stalled();
        let mut end = |range: std::ops::Range<usize>| {
            for handle in &mut handles[range] {
                handle.cancel();
            }
            ex.run_until_stalled();
        };
        end(1..1 + first);
        end(PAGE..3 * PAGE);
        end(1 + first..PAGE);
        handles.truncate(1);
        ex.shrink();
        handles.reserve(PAGE);
        let again = allocations(|| {
            handles.extend((1..PAGE).map(|_| ex.spawn(parks_with::<16>())));
        });
        assert_eq!(again, 0, "the slots are there, {first} of them ended first");
        let more = allocations(|| handles.push(ex.spawn(parks_with::<16>())));
        assert!(more > 0, "the page is full, {first} of them ended first");
        ex.run_until_stalled();
        assert_eq!(ex.len(), PAGE + 1);
    }
}

// Design section 4, P7: what was cancelled while it was queued is no reason to keep a page.
#[test]
fn shrink_gives_back_what_was_cancelled_while_it_was_queued() {
    let round = |ex: &Executor<'_>, queued: usize, shrink_at_once: bool| {
        ex.block_on(async {
            let handles: Vec<_> = (0..queued).map(|_| ex.spawn(sized::<2_048>())).collect();
            for handle in handles {
                handle.cancel();
            }
            if !shrink_at_once {
                yield_now().await;
            }
            ex.shrink();
            live()
        })
    };
    for shrink_at_once in [false, true] {
        let ex = Executor::new();
        let before = round(&ex, 0, shrink_at_once);
        // Few enough that nobody has come by to compact the queue.
        let kept = round(&ex, 50, shrink_at_once) - before;
        assert!(
            kept < 50 * 2_048 / 2,
            "{kept} bytes are kept, at once: {shrink_at_once}"
        );
    }
}

/// Runs `body` in a process of its own, where no other test makes executors: what belongs to the process, as the endpoints of
/// executors that are gone, is shared with them.
fn alone(test: &str, body: impl FnOnce()) {
    const CHILD: &str = "MAINSTAY_ALLOC_CHILD";
    if cfg!(miri) || env::var_os(CHILD).is_some_and(|name| name == *test) {
        return body();
    }
    let output = Command::new(env::current_exe().expect("the path of the test binary"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .output()
        .expect("the test binary starts again");
    assert!(
        output.status.success(),
        "{test} failed in its own process\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

// Design section 4: pages are given back when the executor is dropped, and nothing else remains of it.
#[test]
fn an_executor_gives_everything_back_when_it_is_dropped() {
    let life = || {
        let ex = Executor::new();
        for i in 0..300 {
            ex.spawn(sized::<100>()).detach();
            ex.task()
                .background()
                .name(format!("task-{i}"))
                .spawn(pending::<()>())
                .detach();
            ex.task().background().spawn(sized::<3_000>()).detach();
            let shared = Rc::new(i);
            let handle = ex.task().background().spawn(async move {
                pending::<()>().await;
                drop(shared);
            });
            handle.add_done_callback(|_| {});
        }
        // With allocations of their own: one that ends, one that is polled, and one that is not.
        ex.spawn(sized::<100_000>()).detach();
        ex.task()
            .background()
            .spawn(parks_with::<100_000>())
            .detach();
        ex.on_wake(|| {});
        ex.set_exception_handler(|_, _| {});
        ex.block_on(yields(3));
        ex.task()
            .background()
            .spawn(parks_with::<100_000>())
            .detach();
    };
    alone(
        "an_executor_gives_everything_back_when_it_is_dropped",
        || {
            leaves_nothing(life);
        },
    );
}

// Design section 4: huge and over-aligned futures have an allocation of their own, and it ends with them.
#[test]
fn a_huge_future_gives_its_memory_back_when_it_ends() {
    let ex = Executor::new();
    let round = || {
        let huge = ex.spawn(sized::<100_000>());
        ex.run_until_stalled();
        assert!(huge.is_finished());
        drop(huge);
    };
    round();
    let before = live();
    let at_peak = growth(round);
    assert!(at_peak >= 100_000, "{at_peak} bytes");
    assert_eq!(live(), before);
}

// Design section 4: the future is moved into place, not boxed first and copied later: one allocation for a huge one.
#[test]
fn a_huge_future_is_allocated_once() {
    let ex = Executor::new();
    ex.spawn(sized::<100_000>()).detach();
    ex.run_until_stalled();
    let at_peak = growth(|| {
        ex.spawn(sized::<100_000>()).detach();
        ex.run_until_stalled();
    });
    assert!(at_peak < 2 * 100_000, "{at_peak} bytes at the peak");
}

// Design section 5: a drive of an idle executor costs no memory, nor does looking at it.
#[test]
fn driving_and_counting_do_not_allocate() {
    let ex = Executor::new();
    ex.task().background().spawn(pending::<()>()).detach();
    ex.run_until_stalled();
    allocates_nothing_once_warm("drives of an idle executor", || {
        ex.tick(10);
        ex.run_until_stalled();
        black_box((ex.stats(), ex.len(), ex.is_empty(), ex.is_running()));
    });
}
