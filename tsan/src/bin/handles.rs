//! Threads spawn through a `Spawner` and do with their `RemoteHandle`s what they like: each task runs at home and sees what
//! its spawner had left, each outcome has one owner, and each failure is told or read.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mainstay::{Executor, JoinError, RemoteHandle, ReportPolicy, Spawner, yield_now};
use mainstay_tsan::{Handed, first_executor, join};

const THREADS: usize = 3;
const TASKS: usize = 24;

thread_local! {
    /// Whether this is the executor's thread.
    static HOME: Cell<bool> = const { Cell::new(false) };
}

fn main() {
    HOME.set(true);
    first_executor();
    for _ in 0..120 {
        there_and_back();
        awaited_elsewhere();
    }
    for round in 0..250 {
        every_outcome_has_an_owner(round % 2 == 0);
    }
    println!("handles: well");
}

/// Runs `body` on some threads, each with its number, and drives `ex` until all of them are through.
fn with_threads<R: Send + 'static>(
    ex: &Executor<'_>,
    body: impl Fn(usize, Spawner) -> R + Send + Copy + 'static,
) -> Vec<R> {
    let left = Arc::new(AtomicUsize::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            let (spawner, left) = (ex.spawner(), Arc::clone(&left));
            thread::spawn(move || {
                let result = body(n, spawner.clone());
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    // Taken up in the drive, or handed back because it is over.
                    drop(spawner.call_soon(|ex| ex.stop()));
                }
                result
            })
        })
        .collect();
    ex.run_forever();
    join(threads)
}

/// The task reads what its spawner had left, and leaves something that its spawner reads: after joining, or when it has
/// heard that the task is finished.
fn there_and_back() {
    let ex = Executor::new();
    let sums = with_threads(&ex, |n, spawner| {
        let mut sum = 0;
        for i in 0..TASKS {
            let cells = Arc::new([Handed::new(0), Handed::new(0)]);
            // SAFETY: the task looks when it runs, and it is spawned below.
            unsafe { cells[0].put(n + i) };
            let theirs = Arc::clone(&cells);
            let spawned = spawner.spawn(move || async move {
                assert!(HOME.get());
                let not_send = Rc::new(());
                yield_now().await;
                // SAFETY: it was written before the spawn.
                let got = unsafe { theirs[0].get() };
                // SAFETY: the spawner looks when this task has ended.
                unsafe { theirs[1].put(got + 1) };
                drop(not_send);
                (vec![got], theirs)
            });
            let handle = spawned.expect("the executor is there");
            if i % 2 == 0 {
                while !handle.is_finished() {
                    thread::yield_now();
                }
                // SAFETY: the task has ended.
                sum += unsafe { cells[1].get() };
            }
            let (value, back) = handle.join().expect("it returned");
            assert_eq!(value, [n + i]);
            // SAFETY: the task has ended.
            sum += unsafe { back[1].get() };
        }
        sum
    });
    let once = |n| (0..TASKS).map(|i| n + i + 1).sum::<usize>();
    let half = |n| (0..TASKS).step_by(2).map(|i| n + i + 1).sum::<usize>();
    for (n, sum) in sums.into_iter().enumerate() {
        assert_eq!(sum, once(n) + half(n));
    }
    assert_eq!(ex.stats().returned as usize, THREADS * TASKS);
}

/// Each thread awaits its handles on an executor of its own.
fn awaited_elsewhere() {
    let ex = Executor::new();
    let sums = with_threads(&ex, |n, spawner| {
        let own = Executor::new();
        let handles: Vec<RemoteHandle<Box<usize>>> = (0..TASKS)
            .map(|i| {
                let spawned = spawner.spawn(move || async move {
                    yield_now().await;
                    Box::new(n * i)
                });
                spawned.expect("the executor is there")
            })
            .collect();
        own.block_on(async {
            let mut sum = 0;
            for handle in handles {
                sum += *handle.await.expect("it returned");
            }
            sum
        })
    });
    for (n, sum) in sums.into_iter().enumerate() {
        assert_eq!(sum, n * TASKS * (TASKS - 1) / 2);
    }
}

/// What became of the outcomes, wherever that was.
#[derive(Default)]
struct Fates {
    accepted: AtomicUsize,
    refused: AtomicUsize,
    gone_at_home: Handed<usize>,
    handed_back: AtomicUsize,
    made: AtomicUsize,
    dropped: AtomicUsize,
}

/// An output that counts. Its memory is written at home.
struct Output(Arc<Fates>, Box<usize>);

impl Drop for Output {
    fn drop(&mut self) {
        assert_eq!(*self.1, 7);
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is captured by the closures, and then by the tasks: it counts where it is dropped.
struct Captured(Arc<Fates>);

impl Drop for Captured {
    fn drop(&mut self) {
        if !HOME.get() {
            self.0.handed_back.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // SAFETY: only the home thread comes here.
        let count = unsafe { self.0.gone_at_home.get() };
        // SAFETY: as above.
        unsafe { self.0.gone_at_home.put(count + 1) };
    }
}

/// Handles are joined, awaited for a while, dropped, and cancelled at any moment; the executor may go before they do.
fn every_outcome_has_an_owner(goes_early: bool) {
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();
    let told = Rc::new(Cell::new(0));
    let count = Rc::clone(&told);
    ex.set_exception_handler(move |_, report| {
        let failed = report
            .exception()
            .is_some_and(|exception| exception.is_error());
        count.set(count.get() + usize::from(failed));
    });
    let fates = Arc::new(Fates::default());
    let begun = Arc::new(AtomicUsize::new(0));
    let kept = ex.spawner();
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            let spawner = ex.spawner();
            let (fates, begun) = (Arc::clone(&fates), Arc::clone(&begun));
            thread::spawn(move || {
                let mut read = 0;
                for i in 0..TASKS {
                    begun.fetch_add(1, Ordering::Relaxed);
                    if let Some(handle) = spawn_one(&spawner, &fates, n + i) {
                        read += usize::from(use_up(handle, n * TASKS + i));
                    }
                }
                read
            })
        })
        .collect();
    let enough = if goes_early { TASKS } else { THREADS * TASKS };
    while begun.load(Ordering::Relaxed) < enough {
        ex.run_until_stalled();
        thread::yield_now();
    }
    let failed_in_time = match goes_early {
        true => {
            drop(ex);
            None
        }
        false => {
            while !threads.iter().all(thread::JoinHandle::is_finished) {
                ex.run_until_stalled();
                thread::yield_now();
            }
            Some(ex)
        }
    };
    let read: usize = join(threads).into_iter().sum();
    if let Some(ex) = failed_in_time {
        // Only those that wait for ever are left.
        ex.run_until_stalled();
        let stats = ex.stats();
        assert_eq!(stats.spawned as usize, THREADS * TASKS);
        assert_eq!(stats.unread, 0);
        assert_eq!(
            stats.failed as usize,
            told.get() + read,
            "told or read, each once"
        );
        drop(ex);
    }
    drop(kept);
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    // SAFETY: nobody is left who counts.
    assert_eq!(unsafe { fates.gone_at_home.get() }, count(&fates.accepted));
    assert_eq!(count(&fates.handed_back), count(&fates.refused));
    assert_eq!(count(&fates.dropped), count(&fates.made));
}

type Outcome = Result<Output, &'static str>;

/// Spawns a task that returns, fails, or waits to be cancelled; `None` when the executor is gone.
fn spawn_one(spawner: &Spawner, fates: &Arc<Fates>, kind: usize) -> Option<RemoteHandle<Outcome>> {
    let captured = Captured(Arc::clone(fates));
    let spawned = spawner.spawn_fallible(move || async move {
        let captured = captured;
        yield_now().await;
        match kind % 5 {
            0 => Err("on purpose"),
            4 => pending().await,
            _ => {
                let fates = Arc::clone(&captured.0);
                fates.made.fetch_add(1, Ordering::Relaxed);
                Ok(Output(fates, Box::new(7)))
            }
        }
    });
    match spawned {
        Ok(handle) => {
            fates.accepted.fetch_add(1, Ordering::Relaxed);
            Some(handle)
        }
        Err(closed) => {
            fates.refused.fetch_add(1, Ordering::Relaxed);
            drop(closed);
            None
        }
    }
}

/// Does one of many things with a handle. Whether it has read a failure.
fn use_up(handle: RemoteHandle<Outcome>, way: usize) -> bool {
    let is_failure = |outcome: Result<Outcome, JoinError>| matches!(outcome, Ok(Err(_)));
    match way % 6 {
        0 => {
            drop(handle);
            false
        }
        1 => {
            thread::yield_now();
            drop(handle);
            false
        }
        2 => {
            handle.cancel();
            is_failure(handle.join())
        }
        3 => {
            thread::yield_now();
            handle.cancel();
            is_failure(handle.join())
        }
        4 => match handle.join_timeout(Duration::from_micros(200)) {
            Ok(outcome) => is_failure(outcome),
            Err(handle) => {
                handle.cancel();
                handle.detach();
                false
            }
        },
        _ => {
            let cancelled = handle.cancel();
            let outcome = Executor::new().block_on(handle);
            assert!(cancelled || !matches!(&outcome, Err(error) if error.is_cancelled()));
            is_failure(outcome)
        }
    }
}
