//! Sixteen threads spawn tasks on one executor, as fast as they can: 100,000 each in a release build
//! (`cargo test --release --test many_spawns`), a tenth of that in a debug build.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use mainstay::Executor;

const THREADS: usize = 16;
const EACH: usize = if cfg!(debug_assertions) {
    10_000
} else {
    100_000
};
/// How many tasks of one thread are on their way at once, at most.
const AHEAD: usize = 100;

thread_local! {
    /// The number of the task that is to begin next, for each thread.
    static NEXT: RefCell<HashMap<usize, usize>> = RefCell::default();
}

// P1, P2, P9, B123; trio tr:test_TrioToken_run_sync_soon_massive_queue. Every task runs, those of one thread in their order, and
// every handle gets its value.
#[test]
fn sixteen_threads_spawn_and_nothing_is_lost() {
    let ex = Executor::new();
    let left = Arc::new(AtomicUsize::new(THREADS));
    let workers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (spawner, left) = (ex.spawner(), Arc::clone(&left));
            thread::spawn(move || {
                let mut sum = 0;
                let mut handles = Vec::new();
                for n in 0..EACH {
                    let handle = spawner.spawn(move || async move {
                        NEXT.with_borrow_mut(|next| {
                            let next = next.entry(thread).or_default();
                            assert_eq!(*next, n, "first in, first out");
                            *next += 1;
                        });
                        n
                    });
                    handles.push(handle.expect("the executor is there"));
                    if handles.len() == AHEAD || n + 1 == EACH {
                        let values = handles.drain(..).map(|handle| handle.join());
                        sum += values
                            .map(|value| value.expect("it returns"))
                            .sum::<usize>();
                    }
                }
                if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    spawner.call_soon(|ex| ex.stop()).expect("it is there");
                }
                sum
            })
        })
        .collect();
    ex.run_forever();
    for worker in workers {
        let sum = worker.join().expect("it ends well");
        assert_eq!(sum, EACH * (EACH - 1) / 2);
    }
    let stats = ex.stats();
    assert_eq!(stats.spawned, (THREADS * EACH) as u64);
    assert_eq!((stats.returned, stats.live), (stats.spawned, 0));
}
