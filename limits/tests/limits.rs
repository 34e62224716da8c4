//! Beyond the limits: executor ids, task slots, task ids, and the generations of a slot. Each is an error that says so at
//! whoever asked for one more, and leaves what there was as it was (P1, P2); a generation that comes round again wakes a
//! stranger for nothing, and does no more (P5).
//!
//! The limits are low here: 3 executors, 1,024 slots each, 8 generations, 65,536 ids.

#[cfg(not(mainstay_small))]
compile_error!("the limits are out of reach: RUSTFLAGS=\"--cfg mainstay_small\"");

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use mainstay::{Executor, yield_now};

/// Executors are few: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `f` panics with.
#[track_caller]
fn message<T>(f: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("it should have panicked"),
        Err(payload) => match payload.downcast::<String>() {
            Ok(message) => *message,
            Err(payload) => (*payload.downcast::<&str>().expect("a message")).to_owned(),
        },
    }
}

/// Runs the body in a process of its own.
fn in_child(test: &str, body: impl FnOnce()) {
    if std::env::var_os("MAINSTAY_LIMITS_CHILD").is_some() {
        return body();
    }
    let this = std::env::current_exe().expect("a test has a path");
    let child = Command::new(this)
        .args(["--exact", test, "--nocapture"])
        .env("MAINSTAY_LIMITS_CHILD", "1")
        .output()
        .expect("it starts");
    let output = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(
        child.status.success(),
        "{output}\n{}",
        String::from_utf8_lossy(&child.stderr)
    );
    assert!(
        output.contains("1 passed"),
        "no test is called {test}: {output}"
    );
}

#[test]
fn one_executor_too_many_is_refused_and_the_others_run_on() {
    let _alone = alone();
    let mut executors: Vec<_> = (0..3).map(|_| Executor::new()).collect();
    let said = message(Executor::<'static>::new);
    assert!(
        said.contains("out of executor ids: 3 executors are alive"),
        "{said}"
    );
    for ex in &executors {
        assert_eq!(ex.block_on(ex.spawn(async { 7 })).unwrap(), 7);
    }
    drop(executors.pop());
    let again = Executor::new();
    assert_eq!(again.block_on(again.spawn(async { 8 })).unwrap(), 8);
}

#[test]
fn one_task_too_many_is_refused_and_the_executor_is_as_it_was() {
    let _alone = alone();
    let ex = Executor::new();
    let event = Rc::new(Cell::new(false));
    let spawn = || {
        let event = Rc::clone(&event);
        ex.spawn(async move {
            while !event.get() {
                yield_now().await;
            }
            1
        })
    };
    let mut handles = Vec::new();
    let said = message(|| {
        loop {
            handles.push(spawn());
        }
    });
    assert!(
        said.contains("out of task slots: this executor already has 1024"),
        "{said}"
    );
    // A page of the class is 64 slots: the last ones may be kept by it.
    assert!((900..=1_024).contains(&handles.len()), "{}", handles.len());
    let spawned = u64::try_from(handles.len()).unwrap();
    assert_eq!((ex.stats().spawned, ex.stats().live), (spawned, spawned));
    // What could not be spawned was dropped, and counted nowhere.
    assert_eq!(Rc::strong_count(&event), handles.len() + 1);
    // All of them run; room that is made is used again.
    assert_eq!(ex.tick(usize::MAX).polls, handles.len());
    assert!(handles.pop().expect("many").cancel());
    ex.tick(usize::MAX);
    handles.push(spawn());
    event.set(true);
    ex.run_until_stalled();
    let mut sum = 0;
    for mut handle in handles {
        sum += handle.result().expect("finished").expect("returned");
    }
    assert_eq!(sum, spawned);
    let stats = ex.stats();
    assert_eq!(
        (stats.spawned, stats.returned, stats.cancelled),
        (spawned + 1, spawned, 1)
    );
}

#[test]
fn one_id_too_many_is_refused_and_what_lives_runs_on() {
    in_child("one_id_too_many_is_refused_and_what_lives_runs_on", || {
        let ex = Executor::new();
        let event = Rc::new(Cell::new(false));
        let seen = Rc::clone(&event);
        let mut lives = ex.spawn(async move {
            while !seen.get() {
                yield_now().await;
            }
            9
        });
        let spawned = Cell::new(1_u64);
        let said = message(|| {
            loop {
                ex.spawn(async {}).detach();
                ex.tick(2);
                spawned.set(spawned.get() + 1);
            }
        });
        assert!(said.contains("out of task ids"), "{said}");
        let spawned = spawned.get();
        assert!((60_000..=65_536).contains(&spawned), "{spawned}");
        assert_eq!(ex.stats().spawned, spawned);
        // Other executors take from the same ids.
        let other = Executor::new();
        let said = message(|| other.spawn(async {}));
        assert!(said.contains("out of task ids"), "{said}");
        // What lives goes on; a drive needs no id.
        event.set(true);
        assert_eq!(ex.block_on(async { 3 }), 3);
        ex.run_until_stalled();
        assert_eq!(lives.result().expect("finished").expect("returned"), 9);
        let stats = ex.stats();
        assert_eq!((stats.returned, stats.live), (spawned, 0));
    });
}

/// P5: with eight generations, every ninth tenant of a slot has the key of one before.
#[test]
fn a_generation_that_comes_round_wakes_a_stranger_for_nothing() {
    let _alone = alone();
    let ex = Executor::new();
    let stale: Rc<Cell<Option<Waker>>> = Rc::default();
    let keep = Rc::clone(&stale);
    let first = ex.spawn(poll_fn(move |cx| {
        keep.set(Some(cx.waker().clone()));
        Poll::Ready(())
    }));
    let (cancel, first_id) = (first.cancel_handle(), first.id());
    ex.run_until_stalled();
    drop(first);
    let waker = stale.take().expect("it was polled");
    let mut hits = 0;
    for _ in 0..64 {
        let polls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&polls);
        let tenant = ex.spawn(poll_fn(move |_| {
            counted.set(counted.get() + 1);
            Poll::<()>::Pending
        }));
        ex.run_until_stalled();
        assert_eq!(polls.get(), 1);
        waker.wake_by_ref();
        ex.run_until_stalled();
        hits += polls.get() - 1;
        assert!(polls.get() <= 2, "at most one poll for nothing");
        // Who asks by the id is never mistaken.
        assert_ne!(tenant.id(), first_id);
        assert!(!cancel.cancel());
        ex.run_until_stalled();
        assert!(!tenant.is_finished());
        assert!(tenant.cancel());
        ex.run_until_stalled();
        assert!(tenant.is_cancelled());
    }
    assert_eq!(hits, 8, "one tenant in eight");
}

/// Many passes through few generations, slots and blocks of ids: nothing is mixed up.
#[test]
fn handles_keep_to_their_own_tasks_through_all_generations() {
    let _alone = alone();
    let ex = Executor::new();
    for round in 0..200_u64 {
        let handles: Vec<_> = (0..20)
            .map(|n| {
                ex.spawn(async move {
                    yield_now().await;
                    round * 100 + n
                })
            })
            .collect();
        let parked = ex.spawn(pending::<()>());
        ex.block_on(async {
            for (n, handle) in (0..20).zip(handles) {
                assert_eq!(handle.await.unwrap(), round * 100 + n);
            }
        });
        drop(parked.cancel_on_drop());
    }
    ex.run_until_stalled();
    let stats = ex.stats();
    assert_eq!(
        (stats.returned, stats.cancelled, stats.live),
        (4_000, 200, 0)
    );
}
