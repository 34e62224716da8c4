//! A host loop's `on_wake` hook is called by the threads that wake, cancel and send, while the host ticks, replaces the
//! hook, and drops the executor: no wake is lost, and each hook sees what its maker had put into it.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::thread;

use mainstay::Executor;
use mainstay_tsan::{first_executor, join, wait_for};

const THREADS: usize = 3;
const EACH: usize = 200;

fn main() {
    first_executor();
    for _ in 0..120 {
        a_host_loop();
    }
    for _ in 0..120 {
        replaced_and_dropped();
    }
    println!("hooks: well");
}

/// A host that ticks when its hook was called, and only then, hears of every wake.
fn a_host_loop() {
    let ex = Executor::new();
    let called = Arc::new(AtomicUsize::new(0));
    let (counter, sevens) = (Arc::clone(&called), vec![7; 3]);
    ex.on_wake(move || {
        assert_eq!(sevens, [7; 3]);
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let steps: Arc<[AtomicUsize]> = (0..THREADS).map(|_| AtomicUsize::new(0)).collect();
    let seen: Arc<[AtomicUsize]> = (0..THREADS).map(|_| AtomicUsize::new(0)).collect();
    let mut waking = Vec::new();
    for n in 0..THREADS {
        let (in_task, seen_by_task) = (Arc::clone(&steps), Arc::clone(&seen));
        let first = Rc::new(Cell::new(None));
        let waker = Rc::clone(&first);
        ex.spawn(poll_fn(move |cx| {
            waker.set(Some(cx.waker().clone()));
            let step = in_task[n].load(Ordering::Relaxed);
            seen_by_task[n].store(step, Ordering::Relaxed);
            match step {
                EACH => Poll::Ready(()),
                _ => Poll::Pending,
            }
        }))
        .detach();
        ex.tick(THREADS);
        let waker: Waker = first.take().expect("it was polled");
        let (steps, seen) = (Arc::clone(&steps), Arc::clone(&seen));
        waking.push(move || {
            for step in 1..=EACH {
                steps[n].store(step, Ordering::Relaxed);
                waker.wake_by_ref();
                wait_for(&seen[n], step);
            }
        });
    }
    let waking: Vec<_> = waking.into_iter().map(thread::spawn).collect();
    let mut heard = 0;
    while !ex.is_empty() {
        wait_for(&called, heard + 1);
        heard = called.load(Ordering::Relaxed);
        while ex.tick(THREADS).more {}
    }
    join(waking);
    assert_eq!(ex.stats().returned as usize, THREADS);
}

/// The hook is replaced over and over while threads wake, and goes with the executor.
fn replaced_and_dropped() {
    let ex = Executor::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let enough = Arc::new(AtomicBool::new(false));
    let first = Rc::new(Cell::new(None));
    let waker = Rc::clone(&first);
    ex.task()
        .background()
        .spawn(poll_fn(move |cx| {
            waker.set(Some(cx.waker().clone()));
            Poll::<()>::Pending
        }))
        .detach();
    ex.run_until_stalled();
    let waker: Waker = first.take().expect("it was polled");
    let waking = [(); THREADS].map(|()| {
        let (waker, enough) = (waker.clone(), Arc::clone(&enough));
        thread::spawn(move || {
            while !enough.load(Ordering::Relaxed) {
                waker.wake_by_ref();
                thread::yield_now();
            }
        })
    });
    for n in 0..EACH {
        let (calls, data) = (Arc::clone(&calls), vec![n; 3]);
        ex.on_wake(move || {
            assert_eq!(data, [n; 3]);
            calls.fetch_add(1, Ordering::Relaxed);
        });
        ex.tick(1);
    }
    wait_for(&calls, 1);
    drop(ex);
    enough.store(true, Ordering::Relaxed);
    join(waking);
}
