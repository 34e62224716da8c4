//! Threads send closures through a `Spawner` to an executor that runs, parks, or is dropped: each is called at home,
//! dropped at home, or handed back to its sender, once.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use mainstay::{Closed, Executor, Spawner};
use mainstay_tsan::{Handed, first_executor, join, wait_for};

const THREADS: usize = 4;

thread_local! {
    /// Whether this is the executor's thread.
    static HOME: Cell<bool> = const { Cell::new(false) };
}

fn main() {
    HOME.set(true);
    first_executor();
    for _ in 0..200 {
        in_order();
    }
    for round in 0..1500 {
        while_it_is_dropped(round % 3);
    }
    println!("calls: well");
}

/// Each thread's closures are called in the order in which it sent them, with what it had put into them.
fn in_order() {
    const EACH: usize = 100;
    let ex = Executor::new();
    let spawner = ex.spawner();
    // Written by the closures, at home.
    let next: Arc<[Handed<usize>]> = (0..THREADS).map(|_| Handed::new(0)).collect();
    let total = Arc::new(Handed::new(0));
    let sending = (0..THREADS).map(|thread| {
        let (spawner, next, total) = (spawner.clone(), Arc::clone(&next), Arc::clone(&total));
        thread::spawn(move || {
            // What the closures hold is freed at home; these are kept until all of them have been called.
            for n in 0..EACH {
                let (next, total, data) = (Arc::clone(&next), Arc::clone(&total), vec![thread; 3]);
                let sent = spawner.call_soon(move |ex| {
                    assert_eq!(data, [thread; 3]);
                    // SAFETY: closures run at home, one after the other, and all of them before the join below.
                    let expected = unsafe { next[thread].get() };
                    assert_eq!(expected, n);
                    // SAFETY: as above.
                    unsafe { next[thread].put(n + 1) };
                    // SAFETY: as above.
                    let called = unsafe { total.get() } + 1;
                    // SAFETY: as above.
                    unsafe { total.put(called) };
                    if called == THREADS * EACH {
                        ex.stop();
                    }
                });
                assert!(sent.is_ok());
            }
        })
    });
    let sending: Vec<_> = sending.collect();
    ex.run_forever();
    join(sending);
    // SAFETY: all closures were called on this thread.
    assert_eq!(unsafe { total.get() }, THREADS * EACH);
}

/// What became of the closures.
#[derive(Default)]
struct Fates {
    called: Handed<usize>,
    dropped_at_home: Handed<usize>,
    handed_back: AtomicUsize,
}

/// A closure's captures, which say what became of them.
struct Captured {
    fates: Arc<Fates>,
    was_called: bool,
    data: Box<usize>,
}

impl Drop for Captured {
    fn drop(&mut self) {
        assert_eq!(*self.data, 7);
        if !HOME.get() {
            self.fates.handed_back.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let fate = match self.was_called {
            true => &self.fates.called,
            false => &self.fates.dropped_at_home,
        };
        // SAFETY: only the home thread comes here.
        let count = unsafe { fate.get() };
        // SAFETY: as above.
        unsafe { fate.put(count + 1) };
    }
}

/// Threads go on sending until they are told that the executor is gone.
fn while_it_is_dropped(ticks: usize) {
    let ex = Executor::new();
    let spawner = ex.spawner();
    let fates = Arc::new(Fates::default());
    let sent = Arc::new(AtomicUsize::new(0));
    let enough = Arc::new(AtomicBool::new(false));
    let sending = (0..THREADS).map(|_| {
        let (spawner, fates) = (spawner.clone(), Arc::clone(&fates));
        let (sent, enough) = (Arc::clone(&sent), Arc::clone(&enough));
        thread::spawn(move || {
            let mut accepted = 0;
            // A few more after the first that was refused.
            let mut refused = 0;
            while refused < 3 {
                match send(&spawner, &fates) {
                    true => accepted += 1,
                    false => refused += 1,
                }
                sent.fetch_add(1, Ordering::Relaxed);
                if accepted % 64 == 0 && !enough.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            }
            assert!(spawner.is_closed());
            (accepted, refused)
        })
    });
    let sending: Vec<_> = sending.collect();
    wait_for(&sent, 20);
    for _ in 0..ticks {
        ex.tick(50);
    }
    drop(ex);
    enough.store(true, Ordering::Relaxed);
    let totals = join(sending);
    let accepted: usize = totals.iter().map(|(accepted, _)| accepted).sum();
    let refused: usize = totals.iter().map(|(_, refused)| refused).sum();
    // SAFETY: the executor is gone, and nobody else writes there.
    let called = unsafe { fates.called.get() };
    // SAFETY: as above.
    let dropped = unsafe { fates.dropped_at_home.get() };
    assert_eq!(called + dropped, accepted);
    assert_eq!(fates.handed_back.load(Ordering::Relaxed), refused);
    assert_eq!(called == 0, ticks == 0);
}

/// Sends one closure; `false` if it was handed back.
fn send(spawner: &Spawner, fates: &Arc<Fates>) -> bool {
    let captured = Captured {
        fates: Arc::clone(fates),
        was_called: false,
        data: Box::new(7),
    };
    let sent = spawner.call_soon(move |_| {
        assert!(HOME.get());
        let mut all_of_it = captured;
        all_of_it.was_called = true;
    });
    match sent {
        Ok(()) => true,
        Err(Closed(back)) => {
            drop(back);
            false
        }
    }
}
