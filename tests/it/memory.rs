//! Where futures and outputs live: sizes, alignments, stable addresses, reuse, and that each is dropped exactly once. What
//! is allocated, and when, is for `tests/alloc.rs`.

use std::array;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::{Future, pending, poll_fn};
use std::marker::PhantomPinned;
use std::num::NonZeroU8;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread;

use mainstay::{Executor, JoinHandle, TaskId, yield_now};

use crate::support::{
    DropLog, Event, Recorder, Trace, check_accounting, counts, holding, on_drop, quiet, yield_n,
};
use crate::wake::Probe;

/// Runs `f` on a stack of 64 MiB: what is spawned is an argument first, however large it is.
fn on_a_large_stack(f: impl FnOnce() + Send + 'static) {
    thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(f)
        .expect("the thread starts")
        .join()
        .unwrap_or_else(|payload| resume_unwind(payload));
}

/// Where something is.
fn address_of<T>(value: &T) -> usize {
    ptr::from_ref(value).addr()
}

/// Whether it is there at a multiple of `align`.
fn is_aligned<T>(value: &T, align: usize) -> bool {
    address_of(value) % align == 0
}

/// A future of a chosen size, which checks whenever it can that nobody moved it or wrote over it. Its output is its bytes.
struct Canary<const N: usize> {
    filling: u8,
    polls_left: Cell<usize>,
    address: Cell<usize>,
    bytes: [u8; N],
    _pinned: PhantomPinned,
}

impl<const N: usize> Canary<N> {
    fn new(filling: u8, polls: usize) -> Self {
        Self {
            filling,
            polls_left: Cell::new(polls),
            address: Cell::new(0),
            bytes: [filling; N],
            _pinned: PhantomPinned,
        }
    }

    /// From the first poll on it must not move.
    fn check(&self) {
        let earlier = self.address.get();
        assert!(earlier == 0 || earlier == address_of(self), "it was moved");
        let whole = self.bytes.iter().all(|byte| *byte == self.filling);
        assert!(whole, "it was written over");
    }
}

impl<const N: usize> Future for Canary<N> {
    type Output = [u8; N];

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<[u8; N]> {
        self.address.set(address_of(&*self).max(self.address.get()));
        self.check();
        match self.polls_left.get() {
            0 => Poll::Ready(self.bytes),
            left => {
                self.polls_left.set(left - 1);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl<const N: usize> Drop for Canary<N> {
    fn drop(&mut self) {
        self.check();
    }
}

/// Spawns canaries of `N` bytes that end in different passes, and checks their outputs.
async fn canaries<const N: usize>() {
    let handles: [JoinHandle<[u8; N]>; 4] = array::from_fn(|i| {
        let filling = u8::try_from(N % 250 + i).expect("small");
        mainstay::spawn(Canary::new(filling, 3 * i))
    });
    for (i, handle) in handles.into_iter().enumerate() {
        let bytes = handle.await.expect("the canary is well");
        assert!(bytes.iter().all(|byte| usize::from(*byte) == N % 250 + i));
    }
}

// Design section 4: cells hold the future, then the outcome, in place; addresses are stable.
#[test]
fn futures_of_every_size_keep_their_place_and_their_contents() {
    let ex = Executor::new();
    // Twice, so that the second time finds used slots and cells.
    for _ in 0..2 {
        // Spawned together, so that the sizes live side by side.
        let sizes: [JoinHandle<()>; 22] = [
            ex.spawn(canaries::<0>()),
            ex.spawn(canaries::<1>()),
            ex.spawn(canaries::<7>()),
            ex.spawn(canaries::<8>()),
            ex.spawn(canaries::<15>()),
            ex.spawn(canaries::<16>()),
            ex.spawn(canaries::<24>()),
            ex.spawn(canaries::<33>()),
            ex.spawn(canaries::<48>()),
            ex.spawn(canaries::<64>()),
            ex.spawn(canaries::<100>()),
            ex.spawn(canaries::<128>()),
            ex.spawn(canaries::<200>()),
            ex.spawn(canaries::<256>()),
            ex.spawn(canaries::<500>()),
            ex.spawn(canaries::<1_000>()),
            ex.spawn(canaries::<1_024>()),
            ex.spawn(canaries::<2_048>()),
            ex.spawn(canaries::<4_000>()),
            ex.spawn(canaries::<4_096>()),
            ex.spawn(canaries::<10_000>()),
            ex.spawn(canaries::<40_000>()),
        ];
        ex.block_on(async {
            for size in sizes {
                size.await.expect("all canaries of that size are well");
            }
        });
        assert!(ex.is_empty());
    }
    assert_eq!(counts(&ex).failed, 0);
}

// Issue list of the core, design section 4: an allocation of its own for a huge future, and a huge output.
#[test]
fn a_future_of_a_mebibyte_works() {
    on_a_large_stack(|| {
        let ex = Executor::new();
        for size in 0..3 {
            let handle = ex.spawn(Canary::<{ 1 << 20 }>::new(size + 1, 2));
            let small = ex.spawn(Canary::<8>::new(9, 2));
            let bytes = ex.block_on(handle).expect("the canary is well");
            assert!(bytes.iter().all(|byte| *byte == size + 1));
            assert_eq!(ex.block_on(small).expect("the canary is well"), [9; 8]);
        }
        // Cancelled, unpolled and unread ones, too.
        let cancelled = ex.spawn(Canary::<{ 1 << 20 }>::new(1, 100));
        let unread = ex.spawn(Canary::<{ 1 << 20 }>::new(2, 0));
        ex.tick(2);
        assert!(cancelled.cancel());
        drop(unread);
        ex.run_until_stalled();
        assert!(ex.is_empty());
        ex.task()
            .background()
            .spawn(Canary::<{ 1 << 20 }>::new(3, 0))
            .detach();
        drop(ex);
    });
}

// Design section 4: the output may be far larger or far smaller than the future.
#[test]
fn an_output_may_be_larger_or_smaller_than_its_future() {
    on_a_large_stack(|| {
        let ex = Executor::new();
        let from_nothing = ex.spawn(async { [7_u8; 5_000] });
        let to_nothing = ex.spawn(async {
            let bytes = [7_u8; 5_000];
            yield_now().await;
            assert!(bytes.iter().all(|byte| *byte == 7));
        });
        let huge = ex.spawn(async { [8_u8; 300_000] });
        ex.block_on(async {
            let bytes = from_nothing.await.expect("the task returns");
            assert!(bytes.iter().all(|byte| *byte == 7));
            to_nothing.await.expect("the task returns");
            let bytes = huge.await.expect("the task returns");
            assert!(bytes.iter().all(|byte| *byte == 8));
        });
    });
}

/// A future and an output of an alignment of their own.
macro_rules! aligned {
    ($ex:expr, $($align:literal),*) => {
        $({
            #[repr(align($align))]
            #[derive(Clone, Copy)]
            struct Aligned(u64);

            impl Future for Aligned {
                type Output = Aligned;

                fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Aligned> {
                    assert!(is_aligned(&*self, $align), "to {}", $align);
                    self.0 += 1;
                    if self.0 == 5 {
                        return Poll::Ready(*self);
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }

            let ex: &Executor<'_> = $ex;
            for _ in 0..3 {
                let small = ex.spawn(yield_n(2));
                let handles: [JoinHandle<Aligned>; 3] = array::from_fn(|_| ex.spawn(Aligned(0)));
                // An aligned future beside something small in an unaligned place.
                let mixed = ex.spawn(async {
                    let byte = 1_u8;
                    let inner = Aligned(3);
                    yield_now().await;
                    assert!(is_aligned(&inner, $align), "to {}", $align);
                    (byte, inner.await.0)
                });
                ex.block_on(async {
                    for handle in handles {
                        let output = handle.await.expect("it was aligned at each poll");
                        assert_eq!(output.0, 5);
                    }
                    assert_eq!(mixed.await.expect("it was aligned"), (1, 5));
                    small.await.expect("the task returns");
                });
            }
        })*
    };
}

// Issue list of the core, design section 4: `align(4096)` works.
#[test]
fn futures_of_every_alignment_are_aligned() {
    on_a_large_stack(|| {
        let ex = Executor::new();
        aligned!(
            &ex, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384
        );
        assert_eq!(counts(&ex).failed, 0);
        assert!(ex.is_empty());
    });
}

/// Nothing at all, but it is counted when it is dropped.
struct Nothing;

thread_local! {
    static NOTHINGS: Cell<usize> = const { Cell::new(0) };
}

impl Future for Nothing {
    type Output = Nothing;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Nothing> {
        Poll::Ready(Nothing)
    }
}

impl Drop for Nothing {
    fn drop(&mut self) {
        NOTHINGS.set(NOTHINGS.get() + 1);
    }
}

// Issue list of the core: zero-sized futures and outputs work, and are dropped once each.
#[test]
fn futures_without_a_size_work_and_are_dropped_once() {
    assert_eq!(size_of::<Nothing>(), 0);
    let ex = Executor::new();
    let handles: Vec<JoinHandle<Nothing>> = (0..100).map(|_| ex.spawn(Nothing)).collect();
    assert_eq!(NOTHINGS.get(), 0);
    ex.run_until_stalled();
    assert_eq!(NOTHINGS.get(), 100, "the futures");
    for (i, mut handle) in handles.into_iter().enumerate() {
        if i % 2 == 0 {
            drop(handle.result().expect("finished").expect("well"));
        }
    }
    assert_eq!(NOTHINGS.get(), 200, "the outputs, read or not");
    ex.spawn(Nothing).detach();
    ex.run_until_stalled();
    assert_eq!(NOTHINGS.get(), 202, "detached");
    assert!(ex.spawn(Nothing).cancel());
    ex.run_until_stalled();
    assert_eq!(NOTHINGS.get(), 203, "cancelled, so there is no output");
    ex.task().background().spawn(Nothing).detach();
    drop(ex);
    assert_eq!(NOTHINGS.get(), 204, "pending at the end");
}

// Design section 4: a zero-sized future may have an alignment, too.
#[test]
fn a_future_without_a_size_may_be_aligned() {
    #[repr(align(256))]
    struct Aligned;
    impl Future for Aligned {
        type Output = bool;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<bool> {
            Poll::Ready(is_aligned(&*self, 256))
        }
    }
    let ex = Executor::new();
    for _ in 0..10 {
        let handle = ex.spawn(Aligned);
        assert!(ex.block_on(handle).expect("it returns"));
    }
}

// Design section 4: addresses are stable (pinning), however much the arena grows and shrinks around a task.
#[test]
fn a_future_stays_where_it_is_while_the_arena_grows_and_shrinks() {
    let ex = Executor::new();
    let event = Event::new();
    let addresses = Rc::new(RefCell::new(Vec::new()));
    let (waits, seen) = (event.clone(), Rc::clone(&addresses));
    let watched = ex.spawn(async move {
        let local = 0_u64;
        loop {
            seen.borrow_mut().push(address_of(&local));
            if seen.borrow().len() == 7 {
                break;
            }
            let mut polls = 0;
            poll_fn(|cx| {
                polls += 1;
                let _ = Pin::new(&mut waits.wait()).poll(cx);
                if polls == 2 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
        local
    });
    let look = || {
        event.pulse();
        ex.run_until_stalled();
    };
    ex.run_until_stalled();
    let crowd: Vec<JoinHandle<()>> = (0..10_000).map(|_| ex.spawn(pending())).collect();
    look();
    for victim in crowd.iter().step_by(2) {
        assert!(victim.cancel());
    }
    look();
    ex.shrink();
    look();
    drop(
        crowd
            .into_iter()
            .map(JoinHandle::cancel_on_drop)
            .collect::<Vec<_>>(),
    );
    look();
    ex.shrink();
    look();
    ex.spawn(yield_n(3)).detach();
    look();
    assert!(watched.is_finished());
    let addresses = addresses.borrow();
    assert_eq!(addresses.len(), 7);
    assert!(addresses.iter().all(|address| *address == addresses[0]));
}

// Design section 4, pinning: a future that refers to itself.
#[test]
fn a_future_may_refer_to_itself() {
    let ex = Executor::new();
    let handles: Vec<JoinHandle<usize>> = (0..50)
        .map(|i| {
            ex.spawn(async move {
                let numbers: [usize; 16] = array::from_fn(|j| i + j);
                let first_half = &numbers[..8];
                let mut sum = 0;
                for number in first_half {
                    yield_now().await;
                    sum += *number;
                }
                sum
            })
        })
        .collect();
    ex.block_on(async {
        for (i, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.await.expect("it returns"), 8 * i + 28);
        }
    });
}

// tokio runtime/tests/task.rs::spawn_niche_in_task (6729): niches of futures and outputs are left alone.
#[test]
fn niches_of_futures_and_outputs_are_left_alone_6729() {
    let ex = Executor::new();
    let trace = Trace::new();
    let flags = [Some(true), Some(false), None];
    for flag in flags {
        let pushes = trace.clone();
        let handle = ex.spawn(async move {
            // Kept across an await, so it is in the future's layout.
            let kept = flag;
            yield_now().await;
            pushes.push(format!("{kept:?}"));
            kept.map(|kept| NonZeroU8::new(u8::from(kept)))
        });
        let output = ex.block_on(handle).expect("it returns");
        assert_eq!(output, flag.map(|flag| NonZeroU8::new(u8::from(flag))));
    }
    trace.assert(&["Some(true)", "Some(false)", "None"]);
    let nothing: Result<(), ()> = ex
        .block_on(ex.spawn(async { Err(()) }))
        .expect("it returns");
    assert_eq!(nothing, Err(()));
    let text: Option<Box<str>> = ex.block_on(ex.spawn(async { None })).expect("it returns");
    assert_eq!(text, None);
    let unit: Option<()> = ex
        .block_on(ex.spawn(async { Some(()) }))
        .expect("it returns");
    assert_eq!(unit, Some(()));
}

// api.md on TaskId: unique per process, never reused, although slots are.
#[test]
fn ids_are_never_reused_although_slots_are() {
    let mut seen: HashSet<TaskId> = HashSet::new();
    let mut last = None;
    for _ in 0..4 {
        let ex = Executor::new();
        for _ in 0..5_000 {
            let handle = ex.spawn(async {});
            assert!(seen.insert(handle.id()), "{} again", handle.id());
            // Ids grow, so that their order is that of spawning.
            assert!(last < Some(handle.id()));
            last = Some(handle.id());
            ex.run_until_stalled();
            assert!(handle.is_finished());
        }
    }
    assert_eq!(seen.len(), 20_000);
}

/// Executors take their ids in blocks: those of two that spawn by turns are different, block after block.
#[test]
fn ids_of_executors_that_take_turns_are_different() {
    let executors = [Executor::new(), Executor::new()];
    let mut seen: HashSet<TaskId> = HashSet::new();
    for n in 0..10_000 {
        for ex in &executors {
            let handle = ex.spawn(async {});
            assert!(seen.insert(handle.id()), "{} again", handle.id());
            if n % 100 == 0 {
                ex.run_until_stalled();
            }
        }
    }
}

/// Each way in which a task may end, and what happens to its output.
type End = (&'static str, fn(&Executor<'static>, Canaried), bool);

/// A task whose future and output are guards, and its handle.
struct Canaried {
    probe: Probe,
    handle: JoinHandle<crate::support::Guard>,
}

// P2, design section 4: a future is dropped once, an output that exists is dropped once, in every case.
#[test]
fn every_future_and_every_output_is_dropped_exactly_once() {
    quiet();
    let ends: [End; 10] = [
        (
            "detached, then returned",
            |ex, task| {
                task.handle.detach();
                task.probe.complete();
                ex.run_until_stalled();
            },
            true,
        ),
        (
            "returned, then dropped unread",
            |ex, task| {
                task.probe.complete();
                ex.run_until_stalled();
                drop(task.handle);
            },
            true,
        ),
        (
            "returned and read",
            |ex, mut task| {
                task.probe.complete();
                ex.run_until_stalled();
                drop(task.handle.result().expect("finished").expect("well"));
                // A second look finds nothing, and drops nothing.
                drop(task.handle.result());
            },
            true,
        ),
        (
            "returned and awaited",
            |ex, task| {
                task.probe.complete();
                drop(ex.block_on(task.handle).expect("it returns"));
            },
            true,
        ),
        (
            "returned, dropped unread in a task",
            |ex, task| {
                task.probe.complete();
                ex.run_until_stalled();
                let handle = task.handle;
                ex.block_on(async { drop(handle) });
            },
            true,
        ),
        (
            "cancelled",
            |ex, task| {
                assert!(task.handle.cancel());
                ex.run_until_stalled();
            },
            false,
        ),
        (
            "cancelled in a drive",
            |ex, task| {
                ex.block_on(async { assert!(task.handle.cancel()) });
            },
            false,
        ),
        (
            "cancelled by its guard",
            |ex, task| {
                drop(task.handle.cancel_on_drop());
                ex.run_until_stalled();
            },
            false,
        ),
        (
            "cancelled after it was woken",
            |ex, task| {
                task.probe.complete();
                assert!(task.handle.cancel());
                ex.run_until_stalled();
            },
            false,
        ),
        ("left to the end", |_, task| drop(task.probe), false),
    ];
    for polled in [true, false] {
        for (what, end, returns) in ends {
            let log = DropLog::new();
            let ex = Executor::new();
            let recorder = Recorder::on(&ex);
            let probe = Probe::new();
            let (body, output) = (probe.task(), log.guard("output"));
            let handle = ex.spawn(holding(log.guard("future"), async move {
                body.await;
                output
            }));
            if polled {
                ex.run_until_stalled();
            }
            // What was not polled has no waker, so let it return at its first poll.
            if !polled && returns {
                probe.finish();
            }
            end(&ex, Canaried { probe, handle });
            check_accounting(&ex);
            drop(ex);
            // The output is a capture of the future until it is returned.
            assert_eq!(log.count("future"), 1, "{what}, polled: {polled}");
            assert_eq!(log.count("output"), 1, "{what}, polled: {polled}");
            drop(recorder);
        }
    }
}

// P7, design section 4: slots and cells are reused in whatever order they become free.
#[test]
fn a_random_life_of_many_tasks_leaves_every_canary_well() {
    async fn life<const N: usize>(canary: Canary<N>) {
        canary.await;
    }
    fn spawn(ex: &Executor<'static>, random: usize) -> JoinHandle<()> {
        let filling = u8::try_from(random % 251).expect("small");
        let polls = random / 7 % 9;
        match random / 64 % 6 {
            0 => ex.spawn(life(Canary::<8>::new(filling, polls))),
            1 => ex.spawn(life(Canary::<40>::new(filling, polls))),
            2 => ex.spawn(life(Canary::<120>::new(filling, polls))),
            3 => ex.spawn(life(Canary::<700>::new(filling, polls))),
            4 => ex.spawn(life(Canary::<3_000>::new(filling, polls))),
            _ => ex.spawn(life(Canary::<20_000>::new(filling, polls))),
        }
    }
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let mut kept: Vec<JoinHandle<()>> = Vec::new();
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..20_000 {
        // xorshift, for a sequence that is the same each time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let random = usize::try_from(state >> 33).expect("31 bits");
        match random % 8 {
            0..4 => kept.push(spawn(&ex, random / 8)),
            4 => spawn(&ex, random / 8).detach(),
            5 if !kept.is_empty() => {
                let handle = kept.swap_remove(random / 8 % kept.len());
                handle.cancel();
            }
            6 => {
                ex.tick(random / 8 % 20);
            }
            _ => {
                ex.tick(3);
                if random % 1_000 == 7 {
                    ex.shrink();
                }
            }
        }
        if kept.len() > 500 {
            kept.drain(..400);
        }
    }
    ex.run_until_stalled();
    assert!(ex.is_empty());
    assert_eq!(counts(&ex).failed, 0);
    assert!(recorder.is_empty());
}

// P7: many tasks at once, twice.
#[test]
fn a_hundred_thousand_tasks_may_live_at_once() {
    let ex = Executor::builder().capacity(1_000).build();
    for _ in 0..2 {
        let event = Event::new();
        let done = Rc::new(Cell::new(0));
        for _ in 0..100_000 {
            let (event, done) = (event.clone(), Rc::clone(&done));
            ex.spawn(async move {
                // Registering a hundred thousand wakers is not the point here.
                if event.is_awaited() {
                    yield_now().await;
                } else {
                    event.wait().await;
                }
                done.set(done.get() + 1);
            })
            .detach();
        }
        assert_eq!(ex.len(), 100_000);
        ex.run_until_stalled();
        assert_eq!(done.get(), 99_999);
        event.set();
        ex.run_until_stalled();
        assert_eq!(done.get(), 100_000);
        assert!(ex.is_empty());
    }
}

// Design section 4: a huge future has an allocation of its own, which many indices lead to; it is one task all the same.
#[test]
fn a_huge_task_is_listed_and_told_once() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    for name in ["first", "second"] {
        ex.task()
            .name(name)
            .spawn(holding([1_u8; 100_000], pending::<()>()))
            .detach();
    }
    ex.task().name("small").spawn(pending::<()>()).detach();
    ex.run_until_stalled();
    let tasks = ex.tasks();
    let names: Vec<&str> = tasks.iter().map(|task| task.name()).collect();
    assert_eq!(names, ["first", "second", "small"]);
    drop(ex);
    assert_eq!(recorder.tasks(), ["first", "second", "small"]);
}

// Design section 4: `shrink` may be called at any time, and what lives is not touched.
#[test]
fn shrink_may_be_called_at_any_time() {
    let ex = Rc::new(Executor::new());
    ex.shrink();
    let output = ex.spawn(async { [3_u8; 100] });
    for round in 0..20 {
        let handles: Vec<JoinHandle<[u8; 300]>> = (0..50)
            .map(|i| ex.spawn(Canary::<300>::new(i, usize::from(i) % 5)))
            .collect();
        ex.shrink();
        let weak = Rc::downgrade(&ex);
        ex.spawn(async move {
            let guard = on_drop(move || weak.upgrade().expect("the test holds it").shrink());
            yield_n(round % 4).await;
            drop(guard);
        })
        .detach();
        ex.tick(60);
        ex.shrink();
        ex.run_until_stalled();
        for (i, mut handle) in handles.into_iter().enumerate() {
            let bytes = handle.result().expect("finished").expect("well");
            assert!(bytes.iter().all(|byte| usize::from(*byte) == i));
        }
        ex.shrink();
    }
    // An unread outcome lives, too.
    assert_eq!(ex.block_on(output).expect("it returned"), [3; 100]);
    ex.shrink();
    assert!(ex.is_empty());
    assert_eq!(ex.block_on(async { 7 }), 7);
}

// api.md on Builder: the capacity is a hint, not a limit.
#[test]
fn the_capacity_is_no_limit() {
    for capacity in [0, 1, 10, 5_000] {
        let ex = Executor::builder().capacity(capacity).build();
        assert!(ex.is_empty());
        for _ in 0..100 {
            ex.spawn(yield_n(1)).detach();
        }
        assert_eq!(ex.len(), 100);
        ex.run_until_stalled();
        assert!(ex.is_empty());
    }
}
