//! Wakers: whom they wake, how many polls that makes, and that one which is kept for too long harms nobody.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use mainstay::{Executor, JoinHandle, cancel_requested};

use crate::remote::elsewhere;
use crate::support::{
    Event, Trace, check_accounting, counting_waker, in_child_ok, on_drop, poll_once, poll_with,
    yield_n,
};

// ---------------------------------------------------------------------------------------------------------------------
// The probe
// ---------------------------------------------------------------------------------------------------------------------

/// A task that parks until it is told to finish, and shows its polls and its waker to any thread. Clones are the same
/// probe. It never wakes itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probe {
    inner: Arc<ProbeInner>,
}

#[derive(Debug, Default)]
struct ProbeInner {
    polls: AtomicUsize,
    finished: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Probe {
    /// A probe that was not polled yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The future: counts its polls, keeps its latest waker, and is ready once [`Probe::finish`] was called.
    pub(crate) fn task(&self) -> ProbeTask {
        ProbeTask(self.clone())
    }

    /// How often it was polled.
    pub(crate) fn polls(&self) -> usize {
        self.inner.polls.load(Ordering::SeqCst)
    }

    /// A clone of the waker of the latest poll.
    #[track_caller]
    pub(crate) fn waker(&self) -> Waker {
        self.try_waker().expect("the probe was polled")
    }

    /// As [`Probe::waker`], or nothing before the first poll.
    pub(crate) fn try_waker(&self) -> Option<Waker> {
        let waker = self.inner.waker.lock();
        waker.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Wakes it, if it was polled before.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.try_waker() {
            waker.wake();
        }
    }

    /// Lets its next poll be the last one, without waking it.
    pub(crate) fn finish(&self) {
        self.inner.finished.store(true, Ordering::SeqCst);
    }

    /// Lets its next poll be the last one, and wakes it.
    pub(crate) fn complete(&self) {
        self.finish();
        self.wake();
    }
}

/// The future of [`Probe::task`].
#[derive(Debug)]
pub(crate) struct ProbeTask(Probe);

impl Future for ProbeTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &self.0.inner;
        inner.polls.fetch_add(1, Ordering::SeqCst);
        let waker = cx.waker().clone();
        let mut kept = inner.waker.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = kept.replace(waker);
        drop(kept);
        drop(earlier);
        // The waker is kept first, then the flag is read: `complete` does the two in the other order.
        if inner.finished.load(Ordering::SeqCst) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Runs the body of a test that wakes tasks of executors which are gone, if only by chance, in a process of its own: such a
/// wake may be a spurious one for whoever has the executor's endpoint by then, and that might be another test that counts
/// its polls.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if cfg!(miri) {
        // No processes there, and one test at a time.
        body();
    } else {
        in_child_ok(test, &[], body);
    }
}

/// Spawns a probe on `ex` and lets it park.
fn parked(ex: &Executor<'_>) -> (Probe, JoinHandle<()>) {
    let probe = Probe::new();
    let handle = ex.spawn(probe.task());
    ex.run_until_stalled();
    assert_eq!(probe.polls(), 1, "it is polled once, to begin with");
    (probe, handle)
}

// ---------------------------------------------------------------------------------------------------------------------
// Exactly as many polls as wakes ask for
// ---------------------------------------------------------------------------------------------------------------------

// tokio rt_basic::no_extra_poll.
#[test]
fn a_task_is_polled_once_to_start_and_once_per_wake() {
    let ex = Executor::new();
    let probe = Probe::new();
    let handle = ex.spawn(probe.task());
    assert_eq!(probe.polls(), 0, "spawning does not poll");
    for polls in 1..=5 {
        ex.run_until_stalled();
        assert_eq!(probe.polls(), polls);
        // Driving on its own polls nothing.
        ex.run_until_stalled();
        ex.tick(100);
        assert_eq!(probe.polls(), polls);
        probe.wake();
        assert_eq!(probe.polls(), polls, "waking does not poll");
    }
    probe.complete();
    ex.run_until_stalled();
    assert_eq!(probe.polls(), 6);
    assert!(handle.is_finished());
    assert_eq!(ex.stats().polls, 6);
}

// tokio rt_basic::no_extra_poll: the root and what it awaits.
#[test]
fn awaiting_a_handle_polls_the_awaiter_twice_and_the_task_once() {
    let ex = Executor::new();
    let task_polls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&task_polls);
    let mut handle = ex.spawn(poll_fn(move |_| {
        counted.set(counted.get() + 1);
        Poll::Ready(7)
    }));
    let root_polls = Cell::new(0);
    let value = ex.block_on(poll_fn(|cx| {
        root_polls.set(root_polls.get() + 1);
        Pin::new(&mut handle).poll(cx)
    }));
    assert_eq!(value.expect("the task returns"), 7);
    assert_eq!((root_polls.get(), task_polls.get()), (2, 1));
}

// async-task waker_pending::wake_during_run; P9.
#[test]
fn waking_itself_many_times_in_a_poll_makes_one_more_poll() {
    let ex = Executor::new();
    let polls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&polls);
    ex.spawn(poll_fn(move |cx| {
        counted.set(counted.get() + 1);
        if counted.get() == 1 {
            let clone = cx.waker().clone();
            for _ in 0..10 {
                cx.waker().wake_by_ref();
                let another = clone.clone();
                another.wake();
            }
            clone.wake();
        }
        Poll::<()>::Pending
    }))
    .detach();
    ex.run_until_stalled();
    assert_eq!(polls.get(), 2);
}

// async-task waker_pending::wake_during_run, with the wake on another thread.
#[test]
fn a_wake_from_another_thread_during_the_poll_makes_one_more_poll() {
    let ex = Executor::new();
    let polls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&polls);
    ex.spawn(poll_fn(move |cx| {
        counted.set(counted.get() + 1);
        if counted.get() == 1 {
            let waker = cx.waker().clone();
            elsewhere(move || {
                for _ in 0..10 {
                    waker.wake_by_ref();
                }
            });
        }
        Poll::<()>::Pending
    }))
    .detach();
    ex.run_until_stalled();
    assert_eq!(polls.get(), 2);
}

// async-task waker_ready: a wake of what is about to return counts for nothing.
#[test]
fn a_task_that_wakes_itself_and_returns_is_not_polled_again() {
    let ex = Executor::new();
    let handle = ex.spawn(poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::Ready(())
    }));
    ex.run_until_stalled();
    assert!(handle.is_finished());
    assert_eq!(ex.stats().polls, 1);
}

// async-task waker_pending::wake_and_cancel_during_run.
#[test]
fn a_task_that_wakes_and_cancels_itself_is_not_polled_again() {
    let ex = Executor::new();
    let own = Rc::new(RefCell::new(None));
    let own_in_task = Rc::clone(&own);
    let handle = ex.spawn(poll_fn(move |cx| {
        cx.waker().wake_by_ref();
        let own = own_in_task.borrow();
        let own: &mainstay::CancelHandle = own.as_ref().expect("set before the first poll");
        assert!(own.cancel());
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    *own.borrow_mut() = Some(handle.cancel_handle());
    ex.run_until_stalled();
    assert!(handle.is_cancelled());
    assert_eq!(ex.stats().polls, 1);
}

// P7, P9: wakes of one kind coalesce.
#[test]
fn many_wakes_before_a_pass_make_one_poll() {
    let ex = Executor::new();
    let (probe, _handle) = parked(&ex);
    let waker = probe.waker();
    for _ in 0..100 {
        waker.wake_by_ref();
    }
    ex.run_until_stalled();
    assert_eq!(probe.polls(), 2, "woken at home between two drives");
    let waker = probe.waker();
    elsewhere(|| {
        for _ in 0..100 {
            waker.wake_by_ref();
        }
    });
    ex.run_until_stalled();
    assert_eq!(probe.polls(), 3, "woken from another thread");
    let target = probe.clone();
    ex.spawn(async move {
        for _ in 0..100 {
            target.wake();
        }
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(probe.polls(), 4, "woken by another task");
}

// P9: a wake is kept until its pass comes, however the drive before it ended.
#[test]
fn a_wake_between_two_drives_is_not_lost() {
    let ex = Executor::new();
    let (probe, mut handle) = parked(&ex);
    probe.complete();
    assert!(ex.block_on(&mut handle).is_ok());
    assert_eq!(probe.polls(), 2);
}

// ---------------------------------------------------------------------------------------------------------------------
// Identity
// ---------------------------------------------------------------------------------------------------------------------

// P5, design section 3: `will_wake` is exact.
#[test]
fn will_wake_holds_for_the_wakers_of_one_task() {
    let ex = Executor::new();
    let (probe, _handle) = parked(&ex);
    let first = probe.waker();
    probe.wake();
    ex.run_until_stalled();
    let second = probe.waker();
    assert!(first.will_wake(&second));
    assert!(second.clone().will_wake(&first.clone()));
    let far = first.clone();
    assert!(elsewhere(move || far.clone()).will_wake(&second));
}

// P5, design section 3: `will_wake` is exact.
#[test]
fn will_wake_tells_tasks_roots_and_executors_apart() {
    let a = Executor::new();
    let b = Executor::new();
    let (first, _handle) = parked(&a);
    let (second, _handle) = parked(&a);
    let (other, _handle) = parked(&b);
    let root = a.block_on(poll_fn(|cx| Poll::Ready(cx.waker().clone())));
    let wakers = [first.waker(), second.waker(), other.waker(), root];
    for (i, one) in wakers.iter().enumerate() {
        for (j, another) in wakers.iter().enumerate() {
            assert_eq!(one.will_wake(another), i == j, "wakers {i} and {j}");
        }
    }
}

// P5: the generation tells the tenants of a slot apart.
#[test]
fn will_wake_tells_the_tenants_of_a_slot_apart() {
    let ex = Executor::new();
    let mut wakers: Vec<Waker> = Vec::new();
    for _ in 0..64 {
        let (probe, handle) = parked(&ex);
        let waker = probe.waker();
        assert!(!wakers.iter().any(|earlier| earlier.will_wake(&waker)));
        wakers.push(waker);
        probe.complete();
        ex.run_until_stalled();
        assert!(handle.is_finished());
    }
}

// glommio #194: wakers are Send and Sync, and equal wherever they are compared.
#[test]
fn wakers_are_shared_by_reference_among_threads() {
    let ex = Executor::new();
    let (probe, handle) = parked(&ex);
    probe.finish();
    let waker = probe.waker();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert!(waker.will_wake(&waker.clone()));
                waker.wake_by_ref();
            });
        }
    });
    ex.run_until_stalled();
    assert!(handle.is_finished());
    assert_eq!(probe.polls(), 2);
}

// glommio: its i16 reference count panics at 32,767 wakers. Keys have no count.
#[test]
fn a_task_may_have_any_number_of_wakers() {
    let ex = Executor::new();
    let (probe, handle) = parked(&ex);
    let waker = probe.waker();
    let clones: Vec<Waker> = (0..70_000).map(|_| waker.clone()).collect();
    elsewhere(move || drop(clones));
    assert_eq!(probe.polls(), 1, "dropping wakers wakes nobody");
    assert_eq!(ex.len(), 1);
    probe.finish();
    waker.wake();
    ex.run_until_stalled();
    assert!(handle.is_finished());
    assert_eq!(probe.polls(), 2);
}

// P5; monoio #120 and #121: wakers were unsound across threads.
#[test]
fn wakers_are_cloned_and_dropped_on_many_threads_at_once() {
    let ex = Executor::new();
    let (probe, handle) = parked(&ex);
    let start = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let waker = probe.waker();
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                for _ in 0..1_000 {
                    let clones = [waker.clone(), waker.clone()];
                    assert!(clones[0].will_wake(&clones[1]));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread ends well");
    }
    assert_eq!(probe.polls(), 1);
    probe.complete();
    ex.run_until_stalled();
    assert!(handle.is_finished());
}

// ---------------------------------------------------------------------------------------------------------------------
// Stale wakers
// ---------------------------------------------------------------------------------------------------------------------

// P5; embassy waking_after_completion_does_not_poll, glommio wake_completed_task.
#[test]
fn waking_after_completion_does_not_poll() {
    let ex = Executor::new();
    let (probe, handle) = parked(&ex);
    let stale = probe.waker();
    probe.complete();
    ex.run_until_stalled();
    assert!(handle.is_finished());
    let polls = ex.stats().polls;

    stale.wake_by_ref();
    let clone = stale.clone();
    clone.wake();
    ex.run_until_stalled();
    elsewhere(|| stale.wake_by_ref());
    ex.run_until_stalled();
    assert_eq!(ex.stats().polls, polls);

    let late = stale.clone();
    ex.spawn(async move { late.wake() }).detach();
    ex.run_until_stalled();
    assert_eq!(
        ex.stats().polls,
        polls + 1,
        "only the waking task is polled"
    );
    assert_eq!(probe.polls(), 2);
    check_accounting(&ex);
}

// P5; glommio #404 and drop_waker_of_completed_task.
#[test]
fn the_last_waker_of_a_finished_task_may_be_dropped_anywhere() {
    let ex = Executor::new();
    let (at_home, first) = parked(&ex);
    let (far_off, second) = parked(&ex);
    let wakers = (at_home.waker(), far_off.waker());
    at_home.complete();
    far_off.complete();
    ex.run_until_stalled();
    assert!(first.is_finished() && second.is_finished());
    drop((at_home, far_off));
    drop(wakers.0);
    elsewhere(move || drop(wakers.1));
    drop((first, second));
    ex.run_until_stalled();
    assert!(ex.is_empty());
}

// P5; embassy waking_with_old_waker_after_respawn: a spurious wake of the new tenant is the worst that may happen.
#[test]
fn stale_wakers_wake_a_later_tenant_at_most_spuriously() {
    let ex = Executor::new();
    let mut stale = Vec::new();
    for _ in 0..100 {
        let (probe, handle) = parked(&ex);
        stale.push(probe.waker());
        probe.complete();
        ex.run_until_stalled();
        assert!(handle.is_finished());
    }
    let (tenant, handle) = parked(&ex);

    stale.iter().for_each(Waker::wake_by_ref);
    ex.run_until_stalled();
    assert!(
        tenant.polls() <= 2,
        "at most one spurious poll between drives"
    );

    let before = tenant.polls();
    let wakers = stale.clone();
    ex.spawn(async move { wakers.iter().for_each(Waker::wake_by_ref) })
        .detach();
    ex.run_until_stalled();
    assert!(tenant.polls() <= before + 1, "at most one from a task");

    let before = tenant.polls();
    elsewhere(|| stale.iter().for_each(Waker::wake_by_ref));
    ex.run_until_stalled();
    assert!(tenant.polls() <= before + 1, "at most one from a thread");

    assert!(!handle.is_finished());
    tenant.complete();
    ex.run_until_stalled();
    assert!(handle.is_finished());
    check_accounting(&ex);
}

// Rule R3 of design section 3: a stale key that got there first must not swallow the live tenant's wake.
#[test]
fn a_stale_wake_does_not_swallow_the_wake_of_the_live_tenant() {
    for stale_first in [true, false] {
        for far_off in [true, false] {
            let ex = Executor::new();
            let (first, handle) = parked(&ex);
            let stale = first.waker();
            first.complete();
            ex.run_until_stalled();
            assert!(handle.is_finished());
            drop(handle);
            let (tenant, handle) = parked(&ex);
            let live = tenant.waker();
            tenant.finish();
            let wake = || {
                if stale_first {
                    stale.wake_by_ref();
                    live.wake_by_ref();
                } else {
                    live.wake_by_ref();
                    stale.wake_by_ref();
                }
            };
            if far_off {
                elsewhere(wake);
            } else {
                wake();
            }
            ex.run_until_stalled();
            assert!(
                handle.is_finished(),
                "stale first: {stale_first}, from another thread: {far_off}"
            );
        }
    }
}

// Rule R2 of design section 3: a wake that found nobody leaves no mark behind which would swallow the next tenant's.
#[test]
fn a_wake_that_found_nobody_does_not_swallow_the_next_tenants() {
    let ex = Executor::new();
    let (first, handle) = parked(&ex);
    let stale = first.waker();
    first.complete();
    ex.run_until_stalled();
    drop(handle);
    // The slot is vacant when this one arrives, and when it is taken out of the queue.
    elsewhere(|| stale.wake_by_ref());
    ex.run_until_stalled();
    let (tenant, handle) = parked(&ex);
    tenant.finish();
    elsewhere(|| tenant.wake());
    ex.run_until_stalled();
    assert!(handle.is_finished());
}

// P5: the executor a waker belonged to is gone.
#[test]
fn wakers_outlive_their_executor() {
    alone("wake::wakers_outlive_their_executor", || {
        let ex = Executor::new();
        let (pending, _handle) = parked(&ex);
        let (finished, _handle) = parked(&ex);
        finished.complete();
        ex.run_until_stalled();
        let root = ex.block_on(poll_fn(|cx| Poll::Ready(cx.waker().clone())));
        let wakers = [pending.waker(), finished.waker(), root];
        drop(ex);
        for waker in &wakers {
            waker.wake_by_ref();
            let clone = waker.clone();
            clone.wake();
            assert!(waker.will_wake(&waker.clone()));
        }
        elsewhere(move || {
            for waker in wakers {
                waker.wake_by_ref();
                waker.wake();
            }
        });
        assert_eq!((pending.polls(), finished.polls()), (1, 2));
    });
}

// P5, design section 3: a reused endpoint may receive the indices of a bigger arena.
#[test]
fn wakers_of_a_bigger_executor_harm_no_later_one() {
    alone(
        "wake::wakers_of_a_bigger_executor_harm_no_later_one",
        || {
            let big = Executor::new();
            let probes: Vec<Probe> = (0..500).map(|_| Probe::new()).collect();
            for probe in &probes {
                big.task().background().spawn(probe.task()).detach();
            }
            big.run_until_stalled();
            let stale: Vec<Waker> = probes.iter().map(Probe::waker).collect();
            drop(big);

            for _ in 0..20 {
                let small = Executor::new();
                let (tenant, handle) = parked(&small);
                elsewhere(|| stale.iter().for_each(Waker::wake_by_ref));
                stale.iter().for_each(Waker::wake_by_ref);
                small.run_until_stalled();
                // Two rounds of stale wakes, so two spurious polls at most.
                assert!(tenant.polls() <= 3);
                let before = tenant.polls();
                let wakers = stale.clone();
                small
                    .spawn(async move { wakers.iter().for_each(Waker::wake_by_ref) })
                    .detach();
                small.run_until_stalled();
                assert!(tenant.polls() <= before + 1);
                elsewhere(|| {
                    stale.iter().for_each(Waker::wake_by_ref);
                    tenant.complete();
                });
                small.run_until_stalled();
                assert!(
                    handle.is_finished(),
                    "the live wake among the stale ones counts"
                );
                assert_eq!(small.stats().live, 0);
            }
            assert!(probes.iter().all(|probe| probe.polls() == 1));
        },
    );
}

// P5: the waker of a root that has returned.
#[test]
fn the_waker_of_an_earlier_root_is_harmless() {
    let ex = Executor::new();
    let stale = ex.block_on(poll_fn(|cx| Poll::Ready(cx.waker().clone())));
    stale.wake_by_ref();
    elsewhere(|| stale.wake_by_ref());
    let polls = Cell::new(0);
    let probe = Probe::new();
    let mut task = probe.task();
    ex.spawn({
        let (stale, probe) = (stale.clone(), probe.clone());
        async move {
            stale.wake_by_ref();
            yield_n(3).await;
            stale.wake_by_ref();
            yield_n(3).await;
            probe.complete();
        }
    })
    .detach();
    ex.block_on(poll_fn(|cx| {
        polls.set(polls.get() + 1);
        Pin::new(&mut task).poll(cx)
    }));
    // Two are due: one to start, one for `complete`. Each time that the stale waker was called allows one more.
    assert!((2..=6).contains(&polls.get()), "{} polls", polls.get());
    stale.wake();
}

// async-local-executor: a stale id ended its drain early.
#[test]
fn a_stale_entry_does_not_end_the_pass() {
    let ex = Executor::new();
    let trace = Trace::new();
    let victim = Rc::new(RefCell::new(None::<JoinHandle<()>>));
    let canceller = (trace.clone(), Rc::clone(&victim));
    ex.spawn(async move {
        let (trace, victim) = canceller;
        trace.push("cancel");
        let victim = victim.take().expect("set before the first pass");
        assert!(victim.cancel());
    })
    .detach();
    *victim.borrow_mut() = Some(ex.spawn(async { unreachable!("cancelled before its turn") }));
    let last = trace.clone();
    ex.spawn(async move { last.push("last") }).detach();
    ex.tick(2);
    trace.assert(&["cancel", "last"]);
}

// async-local-executor, with wakes from another thread.
#[test]
fn stale_wakes_among_live_ones_do_not_end_the_drain() {
    let ex = Executor::new();
    let tasks: Vec<(Probe, JoinHandle<()>)> = (0..100).map(|_| parked(&ex)).collect();
    for (_, handle) in tasks.iter().step_by(3) {
        assert!(handle.cancel());
    }
    ex.run_until_stalled();
    let probes: Vec<Probe> = tasks.iter().map(|(probe, _)| probe.clone()).collect();
    elsewhere(move || probes.iter().for_each(Probe::complete));
    ex.run_until_stalled();
    for (i, (probe, handle)) in tasks.iter().enumerate() {
        assert!(handle.is_finished());
        assert_eq!(handle.is_cancelled(), i % 3 == 0);
        assert_eq!(probe.polls(), if i % 3 == 0 { 1 } else { 2 });
    }
}

// Design section 3: run-queue entries carry the generation.
#[test]
fn the_entry_of_a_cancelled_task_does_not_poll_the_next_tenant_early() {
    let ex = Executor::new();
    let trace = Trace::new();
    let victim = Rc::new(RefCell::new(None::<JoinHandle<()>>));
    let first = (trace.clone(), Rc::clone(&victim));
    ex.spawn(async move {
        let (trace, victim) = first;
        trace.push("cancel and respawn");
        // The future is gone at once, so the slot may be taken by the next task.
        assert!(victim.take().expect("set before the first pass").cancel());
        mainstay::spawn(async move { trace.push("replacement") }).detach();
    })
    .detach();
    *victim.borrow_mut() = Some(ex.spawn(async { unreachable!("cancelled before its turn") }));
    for name in ["b", "c"] {
        let trace = trace.clone();
        ex.spawn(async move { trace.push(name) }).detach();
    }
    ex.run_until_stalled();
    trace.assert(&["cancel and respawn", "b", "c", "replacement"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Thread-local destructors
// ---------------------------------------------------------------------------------------------------------------------

/// Calls the wakers left in it while the thread's locals are destroyed.
struct LateWakers(RefCell<Vec<Waker>>);

impl Drop for LateWakers {
    fn drop(&mut self) {
        for waker in self.0.take() {
            let clone = waker.clone();
            waker.wake_by_ref();
            clone.wake();
        }
    }
}

thread_local! {
    static LATE: LateWakers = const { LateWakers(RefCell::new(Vec::new())) };
    static HOME: RefCell<Option<Executor<'static>>> = const { RefCell::new(None) };
}

// tokio rt_common::wake_by_ref_from_thread_local and wake_by_val_from_thread_local, in both orders of destruction.
#[test]
fn wakers_in_a_thread_local_may_be_called_while_the_thread_ends() {
    alone(
        "wake::wakers_in_a_thread_local_may_be_called_while_the_thread_ends",
        || {
            for late_first in [true, false] {
                let probe = Probe::new();
                let seen = probe.clone();
                thread::spawn(move || {
                    if late_first {
                        LATE.with(|_| ());
                    }
                    let ex = Executor::new();
                    ex.task().background().spawn(probe.task()).detach();
                    ex.run_until_stalled();
                    LATE.with(|late| late.0.borrow_mut().push(probe.waker()));
                })
                .join()
                .expect("the thread ends well");
                assert_eq!(seen.polls(), 1);
            }
        },
    );
}

// tokio rt_common::wake_by_ref_from_thread_local, with the executor in a thread-local beside it, in both orders.
#[test]
fn wakers_and_executor_may_both_be_thread_locals() {
    alone(
        "wake::wakers_and_executor_may_both_be_thread_locals",
        || {
            for late_first in [true, false] {
                let probe = Probe::new();
                let seen = probe.clone();
                thread::spawn(move || {
                    if late_first {
                        LATE.with(|_| ());
                    }
                    HOME.with_borrow_mut(|home| {
                        let ex = home.insert(Executor::new());
                        ex.task().background().spawn(probe.task()).detach();
                        ex.run_until_stalled();
                    });
                    LATE.with(|late| late.0.borrow_mut().push(probe.waker()));
                })
                .join()
                .expect("the thread ends well");
                assert_eq!(seen.polls(), 1);
            }
        },
    );
}

// P5: the destructor of a thread-local wakes tasks of an executor that lives on another thread.
#[test]
fn a_thread_local_destructor_elsewhere_may_wake_a_live_task() {
    let ex = Executor::new();
    let (probe, handle) = parked(&ex);
    probe.finish();
    let waker = probe.waker();
    // Joined, not scoped: a scope does not wait for thread-local destructors.
    thread::spawn(move || LATE.with(|late| late.0.borrow_mut().push(waker)))
        .join()
        .expect("the thread ends well");
    ex.run_until_stalled();
    assert!(handle.is_finished());
    assert_eq!(probe.polls(), 2);
}

// ---------------------------------------------------------------------------------------------------------------------
// Several executors on one thread
// ---------------------------------------------------------------------------------------------------------------------

// async-local-executor: its wake went to the executor that was current, not to the waker's own.
#[test]
fn a_task_wakes_a_task_of_another_executor_of_its_thread() {
    let a = Executor::new();
    let b = Executor::new();
    let (of_b, handle) = parked(&b);
    of_b.finish();
    let target = of_b.clone();
    a.spawn(async move { target.wake() }).detach();
    a.run_until_stalled();
    assert_eq!(
        of_b.polls(),
        1,
        "driving one executor polls nothing of another"
    );
    b.run_until_stalled();
    assert_eq!(of_b.polls(), 2);
    assert!(handle.is_finished());
}

// async-local-executor; design section 3: wakes are matched by executor identity.
#[test]
fn a_task_of_an_inner_executor_wakes_one_of_the_outer() {
    let outer = Executor::new();
    let trace = Trace::new();
    let event = Event::new();
    let waiter = (trace.clone(), event.clone());
    outer
        .spawn(async move {
            waiter.1.wait().await;
            waiter.0.push("woken");
        })
        .detach();
    let driver = (trace.clone(), event.clone());
    outer
        .spawn(async move {
            let (trace, event) = driver;
            let inner = Executor::new();
            let setter = trace.clone();
            inner
                .spawn(async move {
                    setter.push("inner task");
                    event.set();
                })
                .detach();
            inner.run_until_stalled();
            trace.push("back in the outer");
        })
        .detach();
    outer.run_until_stalled();
    trace.assert(&["inner task", "back in the outer", "woken"]);
    assert!(outer.is_empty());
}

// P5, design section 3: after the inner drive, wakes at home take the outer executor again.
#[test]
fn wakes_find_the_outer_executor_again_after_an_inner_drive() {
    let outer = Executor::new();
    let polls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&polls);
    outer
        .spawn(poll_fn(move |cx| {
            counted.set(counted.get() + 1);
            if counted.get() > 10 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            let inner = Executor::new();
            inner.block_on(yield_n(3));
            drop(inner);
            cx.waker().wake_by_ref();
            Poll::Pending
        }))
        .detach();
    outer.run_until_stalled();
    assert_eq!(polls.get(), 11);
}

// async-executor different_executors::shared_queue_slot.
#[test]
fn two_executors_driven_in_turn_pass_wakes_to_each_other() {
    const ROUNDS: usize = 100;
    let a = Executor::new();
    let b = Executor::new();
    let events: Rc<Vec<Event>> = Rc::new((0..2 * ROUNDS).map(|_| Event::new()).collect());
    let of_a = Rc::clone(&events);
    let ping = a.spawn(async move {
        for round in 0..ROUNDS {
            of_a[2 * round].set();
            of_a[2 * round + 1].wait().await;
        }
    });
    let of_b = Rc::clone(&events);
    let pong = b.spawn(async move {
        for round in 0..ROUNDS {
            of_b[2 * round].wait().await;
            of_b[2 * round + 1].set();
        }
    });
    let mut ticks = 0;
    while !(ping.is_finished() && pong.is_finished()) {
        a.tick(8);
        b.tick(8);
        ticks += 1;
        assert!(ticks <= 2 * ROUNDS + 2, "a wake was lost");
    }
    assert!(a.is_empty() && b.is_empty());
}

// async-executor local_queue::two_queues: the end of one executor leaves the other's wakes alone.
#[test]
fn the_end_of_one_executor_leaves_the_other_on_its_thread_alone() {
    alone(
        "wake::the_end_of_one_executor_leaves_the_other_on_its_thread_alone",
        || {
            let a = Executor::new();
            let b = Executor::new();
            let (of_a, _handle) = parked(&a);
            let (of_b, handle) = parked(&b);
            drop(a);
            of_a.wake();
            of_b.complete();
            b.run_until_stalled();
            assert!(handle.is_finished());
            assert_eq!(of_a.polls(), 1);
        },
    );
}

// tokio task_local_set::join_local_future_elsewhere, on the executors of one thread.
#[test]
fn a_handle_is_awaited_on_another_executor() {
    let a = Executor::new();
    let b = Executor::new();
    let event = Event::new();
    let waiting = event.clone();
    let of_a = a.spawn(async move {
        waiting.wait().await;
        "from a"
    });
    let mut of_b = b.spawn(async move { of_a.await.expect("the task of a returns") });
    b.run_until_stalled();
    a.run_until_stalled();
    event.set();
    a.run_until_stalled();
    assert!(!of_b.is_finished(), "only b polls what is b's");
    b.run_until_stalled();
    assert_eq!(
        of_b.result().expect("b's task ended").expect("well"),
        "from a"
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Wakes from destructors
// ---------------------------------------------------------------------------------------------------------------------

// P6: a destructor wakes its own task and another one, when the task returns and when it is cancelled.
#[test]
fn a_destructor_may_wake_its_own_task_and_others() {
    for cancelled in [false, true] {
        let ex = Executor::new();
        let (other, _handle) = parked(&ex);
        let dying = Probe::new();
        let wakes = (dying.clone(), other.clone());
        let guard = on_drop(move || {
            wakes.0.wake();
            wakes.1.wake();
        });
        let body = dying.task();
        let handle = ex.spawn(async move {
            let _guard = guard;
            body.await;
        });
        ex.run_until_stalled();
        if cancelled {
            assert!(handle.cancel());
        } else {
            dying.complete();
        }
        ex.run_until_stalled();
        assert!(handle.is_finished());
        assert_eq!(handle.is_cancelled(), cancelled);
        assert_eq!(dying.polls(), if cancelled { 1 } else { 2 });
        assert_eq!(other.polls(), 2, "the wake from the destructor counts");
    }
}

// P5, P6: the task that a destructor wakes is itself being dropped.
#[test]
fn destructors_may_wake_each_other_while_the_executor_is_dropped() {
    let ex = Executor::new();
    let probes: Vec<Probe> = (0..10).map(|_| Probe::new()).collect();
    for probe in &probes {
        let others = probes.clone();
        let guard = on_drop(move || others.iter().for_each(Probe::wake));
        let body = probe.task();
        ex.task()
            .background()
            .spawn(async move {
                let _guard = guard;
                body.await;
            })
            .detach();
    }
    ex.run_until_stalled();
    drop(ex);
    assert!(probes.iter().all(|probe| probe.polls() == 1));
}

// ---------------------------------------------------------------------------------------------------------------------
// The awaiter's waker
// ---------------------------------------------------------------------------------------------------------------------

// std::future::Future: only the waker of the latest poll must be woken.
#[test]
fn a_handle_wakes_the_waker_of_its_latest_poll_only() {
    let ex = Executor::new();
    let (probe, mut handle) = parked(&ex);
    let (first, first_count) = counting_waker();
    let (second, second_count) = counting_waker();
    assert!(poll_with(&mut handle, &first).is_pending());
    assert!(poll_with(&mut handle, &first).is_pending());
    assert!(poll_with(&mut handle, &second).is_pending());
    assert!(poll_with(&mut handle, &second).is_pending());
    probe.complete();
    ex.run_until_stalled();
    assert_eq!((first_count.wakes(), second_count.wakes()), (0, 1));
    assert!(poll_once(&mut handle).is_ready());
}

// std::future::Future: the handle moves from one task to another between two polls.
#[test]
fn a_handle_that_moves_to_another_task_wakes_that_one() {
    let ex = Executor::new();
    let (probe, handle) = parked(&ex);
    let shared = Rc::new(RefCell::new(handle));
    let polls = Rc::new(Cell::new([0_usize; 2]));
    let turn = Rc::new(Cell::new(0));
    for me in 0..2 {
        let (shared, polls, turn) = (Rc::clone(&shared), Rc::clone(&polls), Rc::clone(&turn));
        ex.spawn(poll_fn(move |cx| {
            let mut counts = polls.get();
            counts[me] += 1;
            polls.set(counts);
            // Each polls the handle once to begin with; then only the second one holds it.
            if counts[me] == 1 || turn.get() == me {
                turn.set(1);
                return Pin::new(&mut *shared.borrow_mut()).poll(cx).map(drop);
            }
            Poll::Pending
        }))
        .detach();
    }
    ex.run_until_stalled();
    assert_eq!(polls.get(), [1, 1]);
    probe.complete();
    ex.run_until_stalled();
    assert_eq!(polls.get(), [1, 2]);
    assert_eq!(ex.len(), 1, "the first one waits for nothing any more");
    drop(ex);
}

// Whatever the task is: one that asks whether it is to end is ended on another way than most.
#[test]
fn who_has_dropped_a_handle_is_not_woken_by_the_tasks_end() {
    for asks in [false, true] {
        let ex = Executor::new();
        let end = Event::new();
        let ended = end.wait();
        let mut handle = ex.spawn(async move {
            if asks {
                let mut request = pin!(cancel_requested());
                poll_fn(|cx| {
                    assert!(request.as_mut().poll(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
            }
            ended.await;
        });
        let polls = Rc::new(Cell::new(0));
        let count = Rc::clone(&polls);
        ex.spawn(async move {
            poll_fn(|cx| {
                assert!(Pin::new(&mut handle).poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(handle);
            poll_fn(|_| {
                count.set(count.get() + 1);
                Poll::<()>::Pending
            })
            .await;
        })
        .detach();
        ex.run_until_stalled();
        end.set();
        ex.run_until_stalled();
        assert_eq!((ex.len(), polls.get()), (1, 1), "asks: {asks}");
    }
}

// P5: what awaits a handle may be gone when the task ends.
#[test]
fn the_awaiter_may_be_gone_when_the_task_ends() {
    let ex = Executor::new();
    let (probe, handle) = parked(&ex);
    let awaiter = ex.spawn(handle);
    ex.run_until_stalled();
    assert!(awaiter.cancel());
    ex.run_until_stalled();
    assert!(awaiter.is_cancelled());
    probe.complete();
    ex.run_until_stalled();
    assert_eq!(probe.polls(), 2, "the awaited task lives on, detached");
    assert!(ex.is_empty());
}
