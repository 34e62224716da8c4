//! Threads cancel tasks through `CancelHandle`s: each is dropped once, at home, and sees what its canceller had left; and
//! who hears that a task is finished sees what the task did.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use mainstay::{CancelHandle, Executor, yield_now};
use mainstay_tsan::{Count, Handed, first_executor, join, parked};

const THREADS: usize = 4;
const TASKS: usize = 64;

fn main() {
    first_executor();
    for _ in 0..500 {
        each_by_one();
        each_by_all();
        against_wakes();
        what_it_did();
    }
    println!("cancels: well");
}

/// Each task is cancelled by one thread, and its destructor reads what that thread had left.
fn each_by_one() {
    let ex = Executor::new();
    let cells: Arc<[Handed<usize>]> = (0..TASKS).map(|_| Handed::new(0)).collect();
    let sum = Rc::new(Cell::new(0));
    let mut cancels: [Vec<(usize, CancelHandle)>; THREADS] = Default::default();
    for n in 0..TASKS {
        let read = ReadOnDrop {
            cells: Arc::clone(&cells),
            n,
            sum: Rc::clone(&sum),
        };
        let handle = ex.spawn(async move {
            let _read = read;
            pending::<()>().await;
        });
        cancels[n % THREADS].push((n, handle.cancel_handle()));
        handle.detach();
    }
    // What the cancel handles share is freed here, by this thread.
    let kept = cancels.clone();
    let cancelling = cancels.map(|cancels| {
        let cells = Arc::clone(&cells);
        thread::spawn(move || {
            for (n, cancel) in cancels {
                // SAFETY: the destructor reads when the task was cancelled, which is only now.
                unsafe { cells[n].put(n + 1) };
                assert!(cancel.cancel());
            }
        })
    });
    ex.block_on(ex.idle());
    join(cancelling);
    assert_eq!(sum.get(), TASKS * (TASKS + 1) / 2);
    assert_eq!(ex.stats().cancelled as usize, TASKS);
    drop(kept);
}

/// Reads a cell when it is dropped, and adds it up in memory of the home thread's.
struct ReadOnDrop {
    cells: Arc<[Handed<usize>]>,
    n: usize,
    sum: Rc<Cell<usize>>,
}

impl Drop for ReadOnDrop {
    fn drop(&mut self) {
        // SAFETY: the task was cancelled by the thread that wrote before that, and by nothing else.
        let read = unsafe { self.cells[self.n].get() };
        self.sum.set(self.sum.get() + read);
    }
}

/// All threads cancel all tasks, over and over, until they hear that all are finished.
fn each_by_all() {
    let ex = Executor::new();
    let dropped = Rc::new(Cell::new(0));
    let handles: Vec<_> = (0..TASKS)
        .map(|_| {
            let guard = Count(Rc::clone(&dropped));
            ex.spawn(async move {
                let _guard = guard;
                pending::<()>().await;
            })
        })
        .collect();
    let cancels: Vec<CancelHandle> = handles
        .iter()
        .map(|handle| handle.cancel_handle())
        .collect();
    let cancelling = [(); THREADS].map(|()| {
        let cancels = cancels.clone();
        thread::spawn(move || {
            while !cancels.iter().all(CancelHandle::is_finished) {
                for cancel in &cancels {
                    cancel.cancel();
                }
                thread::yield_now();
            }
        })
    });
    ex.block_on(ex.idle());
    join(cancelling);
    assert_eq!(dropped.get(), TASKS);
    assert_eq!(ex.stats().cancelled as usize, TASKS);
    assert!(handles.iter().all(|handle| handle.is_cancelled()));
}

/// One thread cancels the tasks that another wakes: each ends in one of the two ways.
fn against_wakes() {
    let ex = Executor::new();
    let tasks: Vec<_> = (0..TASKS).map(|_| parked(&ex, || ())).collect();
    let wakers: Vec<_> = tasks.iter().map(|task| task.waker.clone()).collect();
    let cancels: Vec<_> = tasks
        .iter()
        .map(|task| task.handle.cancel_handle())
        .collect();
    let kept = cancels.clone();
    let waking = thread::spawn(move || {
        for waker in wakers {
            waker.wake();
        }
    });
    let cancelling = thread::spawn(move || {
        for cancel in cancels.iter().rev() {
            cancel.cancel();
        }
    });
    ex.block_on(ex.idle());
    join([waking, cancelling]);
    let stats = ex.stats();
    assert_eq!((stats.returned + stats.cancelled) as usize, TASKS);
    let cancelled = tasks.iter().filter(|task| task.handle.is_cancelled());
    assert_eq!(cancelled.count() as u64, stats.cancelled);
    assert!(kept.iter().all(CancelHandle::is_finished));
}

/// A thread looks until a task is finished, and then at what the task left.
fn what_it_did() {
    let ex = Executor::new();
    let cell = Arc::new(Handed::new(0));
    let left = Arc::clone(&cell);
    let handle = ex.spawn(async move {
        for _ in 0..3 {
            yield_now().await;
        }
        // SAFETY: the thread reads when this task is finished, which is only later.
        unsafe { left.put(7) };
    });
    let kept = handle.cancel_handle();
    let (theirs, cancel) = (Arc::clone(&cell), kept.clone());
    let looking = thread::spawn(move || {
        while !cancel.is_finished() {
            thread::yield_now();
        }
        // SAFETY: the task is finished, and wrote before that.
        let got = unsafe { theirs.get() };
        assert!(!cancel.cancel());
        got
    });
    ex.block_on(handle).expect("it returned");
    assert_eq!(join([looking]), [7]);
    drop(kept);
}
