//! Threads wake tasks and roots of an executor that runs, parks, or is dropped: each poll sees what its waker had left.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::thread;

use mainstay::{Executor, JoinHandle, yield_now};
use mainstay_tsan::{Count, Handed, Parked, first_executor, join, parked, wait_for};

const THREADS: usize = 4;
const TASKS: usize = 64;

fn main() {
    first_executor();
    for _ in 0..200 {
        many_tasks(false);
        many_tasks(true);
    }
    for _ in 0..1000 {
        one_root();
    }
    for _ in 0..1000 {
        one_task_by_many();
    }
    for _ in 0..300 {
        while_it_is_dropped();
    }
    println!("wakes: well");
}

/// Each of many tasks is woken once, by one of several threads, while the executor is `busy` or parks in between.
fn many_tasks(busy: bool) {
    let ex = Executor::new();
    let cells: Arc<[Handed<usize>]> = (0..TASKS).map(|_| Handed::new(0)).collect();
    let mut wakers: [Vec<(usize, Waker)>; THREADS] = Default::default();
    let mut handles = Vec::new();
    for n in 0..TASKS {
        let cells = Arc::clone(&cells);
        let Parked { waker, handle } = parked(&ex, move || {
            // SAFETY: the one wake of this task came after the one write.
            unsafe { cells[n].get() }
        });
        wakers[n % THREADS].push((n, waker));
        handles.push(handle);
    }
    let waking = wakers.map(|wakers| {
        let cells = Arc::clone(&cells);
        thread::spawn(move || {
            for (n, waker) in wakers {
                // SAFETY: this task reads its cell when it was woken, which is only now.
                unsafe { cells[n].put(n + 1) };
                waker.wake();
                thread::yield_now();
            }
        })
    });
    let all_are_done = Rc::new(Cell::new(false));
    if busy {
        let done = Rc::clone(&all_are_done);
        ex.spawn(async move {
            while !done.get() {
                yield_now().await;
            }
        })
        .detach();
    }
    let sum = ex.block_on(async {
        let mut sum = 0;
        for handle in handles {
            sum += handle.await.expect("it returned");
        }
        sum
    });
    all_are_done.set(true);
    ex.run_until_stalled();
    join(waking);
    assert_eq!(sum, TASKS * (TASKS + 1) / 2);
    let stats = ex.stats();
    assert_eq!(stats.returned, stats.spawned);
    if !busy {
        assert_eq!(stats.polls as usize, 2 * TASKS, "no poll without a wake");
    }
}

/// A root is woken by a thread that it starts itself.
fn one_root() {
    let ex = Executor::new();
    let cell = Arc::new(Handed::new(0));
    let mut waking = None;
    let got = ex.block_on(poll_fn(|cx| {
        if waking.is_some() {
            // SAFETY: the root is polled again because the thread, which wrote before that, woke it.
            return Poll::Ready(unsafe { cell.get() });
        }
        let (theirs, waker) = (Arc::clone(&cell), cx.waker().clone());
        waking = Some(thread::spawn(move || {
            // SAFETY: the root reads when it was woken, which is only now.
            unsafe { theirs.put(7) };
            waker.wake_by_ref();
        }));
        Poll::Pending
    }));
    join(waking);
    assert_eq!(got, 7);
}

/// Several threads wake one task, so that all wakes but the first are duplicates: its one poll sees what each had left.
fn one_task_by_many() {
    let ex = Executor::new();
    let cells: Arc<[Handed<usize>]> = (0..THREADS).map(|_| Handed::new(0)).collect();
    let theirs = Arc::clone(&cells);
    let Parked { waker, handle } = parked(&ex, move || {
        // SAFETY: all threads had written and woken this task before the executor looked (see below).
        theirs
            .iter()
            .map(|cell| unsafe { cell.get() })
            .sum::<usize>()
    });
    let woken = Arc::new(AtomicUsize::new(0));
    let waking = (0..THREADS).map(|n| {
        let (cells, woken, waker) = (Arc::clone(&cells), Arc::clone(&woken), waker.clone());
        thread::spawn(move || {
            // SAFETY: the task reads when it is polled, which is after the last wake.
            unsafe { cells[n].put(1) };
            waker.wake();
            // Relaxed: what orders this thread's write before the poll is the wake alone.
            woken.fetch_add(1, Ordering::Relaxed);
        })
    });
    let waking: Vec<_> = waking.collect();
    wait_for(&woken, THREADS);
    ex.run_until_stalled();
    let sum = ex.block_on(handle).expect("it returned");
    join(waking);
    assert_eq!(sum, THREADS);
    assert_eq!(ex.stats().polls, 2);
}

/// Threads go on waking while the executor is driven, dropped, and gone.
fn while_it_is_dropped() {
    let dropped = Rc::new(Cell::new(0));
    let ex = Executor::new();
    let mut wakers = Vec::new();
    for _ in 0..TASKS {
        let guard = Count(Rc::clone(&dropped));
        let waker = Rc::new(Cell::new(None));
        let seen = Rc::clone(&waker);
        let body = async move {
            let _guard = guard;
            poll_fn(|cx| {
                seen.set(Some(cx.waker().clone()));
                Poll::Ready(())
            })
            .await;
            pending::<()>().await;
        };
        let handle: JoinHandle<()> = ex.task().background().spawn(body);
        handle.detach();
        ex.run_until_stalled();
        wakers.push(waker.take().expect("it was polled"));
    }
    let (begun, enough) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let waking = (0..THREADS).map(|_| {
        let (begun, enough, wakers) = (Arc::clone(&begun), Arc::clone(&enough), wakers.clone());
        thread::spawn(move || {
            begun.fetch_add(1, Ordering::Relaxed);
            while !enough.load(Ordering::Relaxed) {
                wakers.iter().for_each(Waker::wake_by_ref);
                thread::yield_now();
            }
        })
    });
    let waking: Vec<_> = waking.collect();
    wait_for(&begun, THREADS);
    ex.tick(TASKS / 2);
    assert_eq!(ex.stats().live as usize, TASKS);
    drop(ex);
    assert_eq!(dropped.get(), TASKS);
    enough.store(true, Ordering::Relaxed);
    join(waking);
    assert_eq!(dropped.get(), TASKS);
}
