//! Executors come and go on several threads, and their endpoints pass from one to the next, while other threads wake,
//! cancel and send with what they keep of every executor that ever was: each living one does its own work, once.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::thread;

use mainstay::{CancelHandle, Executor, Spawner};
use mainstay_tsan::{Count, Published, first_executor, join};

const HOMES: usize = 3;
const PESTS: usize = 2;
const LIVES: usize = 1000;
const TASKS: usize = 8;

/// What is kept of one executor.
struct Kept {
    wakers: Vec<Waker>,
    /// Of tasks that wait for nothing else than their end.
    cancels: Vec<CancelHandle>,
    spawner: Spawner,
    called: AtomicUsize,
}

fn main() {
    first_executor();
    let kept: Arc<[Published<Kept>]> = (0..HOMES * LIVES).map(|_| Published::new()).collect();
    let enough = Arc::new(AtomicBool::new(false));
    let pests = [(); PESTS].map(|()| {
        let (kept, enough) = (Arc::clone(&kept), Arc::clone(&enough));
        thread::spawn(move || {
            let mut rounds = 0;
            while !enough.load(Ordering::Relaxed) {
                kept.iter().filter_map(Published::get).for_each(pester);
                rounds += 1;
                thread::yield_now();
            }
            rounds
        })
    });
    let homes = [0, 1, 2].map(|home| {
        let kept = Arc::clone(&kept);
        thread::spawn(move || {
            for life in 0..LIVES {
                live(&kept[home * LIVES + life], life % 2 == 0);
            }
        })
    });
    join(homes);
    enough.store(true, Ordering::Relaxed);
    let rounds = join(pests);
    assert!(rounds.iter().all(|rounds| *rounds > 1));
    assert!(kept.iter().all(|kept| kept.get().is_some()));
    println!("reuse: well");
}

/// Wakes, cancels and sends, whether the executor is still there or not.
fn pester(kept: &'static Kept) {
    kept.wakers.iter().for_each(Waker::wake_by_ref);
    for cancel in &kept.cancels {
        cancel.cancel();
    }
    if !kept.spawner.is_closed() {
        let sent = kept.spawner.call_soon(|_| {
            kept.called.fetch_add(1, Ordering::Relaxed);
        });
        drop(sent);
    }
}

/// One executor's life. What is kept of it is published at its beginning, or else when it is gone.
fn live(kept: &Published<Kept>, from_the_beginning: bool) {
    let dropped = Rc::new(Cell::new(0));
    let ex = Executor::new();
    let flags: Arc<[AtomicBool]> = (0..TASKS).map(|_| AtomicBool::new(false)).collect();
    let mut wakers = Vec::new();
    let mut handles = Vec::new();
    for n in 0..TASKS {
        let (guard, flags) = (Count(Rc::clone(&dropped)), Arc::clone(&flags));
        let first = Rc::new(Cell::new(None));
        let seen = Rc::clone(&first);
        handles.push(ex.spawn(poll_fn(move |cx| {
            let _held = &guard;
            seen.set(Some(cx.waker().clone()));
            // Relaxed: that the task sees its flag at all is up to the wake.
            match flags[n].load(Ordering::Relaxed) {
                true => Poll::Ready(n),
                false => Poll::Pending,
            }
        })));
        ex.run_until_stalled();
        wakers.push(first.take().expect("it was polled"));
    }
    let victims: Vec<_> = (0..TASKS)
        .map(|_| {
            let guard = Count(Rc::clone(&dropped));
            ex.task().background().spawn(async move {
                let _held = guard;
                pending::<()>().await;
            })
        })
        .collect();
    let remains = Kept {
        wakers: wakers.clone(),
        cancels: victims
            .iter()
            .map(|victim| victim.cancel_handle())
            .collect(),
        spawner: ex.spawner(),
        called: AtomicUsize::new(0),
    };
    let mut late = None;
    match from_the_beginning {
        true => kept.set(remains),
        false => late = Some(remains),
    }
    let friend = {
        let flags = Arc::clone(&flags);
        thread::spawn(move || {
            for (flag, waker) in flags.iter().zip(wakers) {
                flag.store(true, Ordering::Relaxed);
                waker.wake();
            }
        })
    };
    let sum = ex.block_on(async {
        let mut sum = 0;
        for handle in handles {
            sum += handle.await.expect("nobody cancels this one");
        }
        sum
    });
    join([friend]);
    assert_eq!(sum, TASKS * (TASKS - 1) / 2);
    let stats = ex.stats();
    assert_eq!(stats.returned as usize, TASKS);
    assert_eq!((stats.live + stats.cancelled) as usize, TASKS);
    assert!(
        from_the_beginning || stats.cancelled == 0,
        "a stale cancel hits nobody"
    );
    drop(ex);
    assert_eq!(dropped.get(), 2 * TASKS);
    if let Some(remains) = late {
        kept.set(remains);
    }
}
