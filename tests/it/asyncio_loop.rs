//! The asyncio contract: the loop. The table is in `asyncio.md`.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainstay::{CallHandle, Executor, LocalHandle};

use crate::support::{
    DropLog, Fault, Recorder, Trace, counts, holding, panic_message, quiet, yield_n,
};

// B065, the other half: a root that is ready in the pass in which the stop came still wins.
#[test]
fn a_root_that_is_ready_when_the_stop_comes_wins() {
    let ex = Executor::new();
    let task = ex.spawn(async { 7 });
    ex.call_soon(|| LocalHandle::current().stop());
    assert_eq!(ex.try_block_on(task).ok().map(Result::ok), Some(Some(7)));
    // And the stop has been used up: it does not end the next run.
    assert_eq!(
        ex.block_on(async {
            yield_n(3).await;
            8
        }),
        8
    );
    let message = panic_message(|| {
        ex.block_on(async {
            LocalHandle::current().stop();
            pending::<()>().await;
        })
    });
    assert!(
        message.contains("stopped before the root finished"),
        "{message}"
    );
}

// B069: each way of giving work to an executor that is gone, by whatever is left of it.
#[test]
fn nothing_can_be_scheduled_on_an_executor_that_is_gone() {
    let ex = Executor::<'static>::new();
    let (local, spawner) = (ex.handle(), ex.spawner());
    let finished = ex.spawn(async {});
    ex.run_until_stalled();
    drop(ex);
    let drops = DropLog::new();
    let never = |name: &'static str| {
        let guard = drops.guard(name);
        move || {
            let _guard = &guard;
            unreachable!("never called")
        }
    };
    for call in [
        local.call_soon(never("soon")),
        local.call_later(Duration::ZERO, never("later")),
        local.call_at(local.now(), never("at")),
    ] {
        assert!(!call.cancel(), "there is nothing to cancel");
    }
    drops.assert(&["soon", "later", "at"]);

    let plain = local.spawn(holding(drops.guard("spawn"), pending::<()>()));
    let fallible = local.spawn_fallible(holding(drops.guard("spawn_fallible"), async {
        Ok::<_, Fault>(())
    }));
    let built = local
        .task()
        .background()
        .spawn(holding(drops.guard("task"), pending::<()>()));
    assert!(plain.is_cancelled() && fallible.is_cancelled() && built.is_cancelled());
    assert_eq!(drops.names()[3..], ["spawn", "spawn_fallible", "task"]);

    // From elsewhere it is an error that gives the closure back.
    assert!(spawner.is_closed());
    let (soon, remote) = (drops.guard("spawner"), drops.guard("remote"));
    let back = spawner.call_soon(move |_| drop(soon)).expect_err("gone");
    let made = spawner.spawn(move || async move { drop(remote) });
    let made = made.expect_err("gone");
    assert_eq!(drops.len(), 6, "they are the caller's again");
    drop((back, made));
    assert_eq!(drops.names()[6..], ["spawner", "remote"]);

    let late = drops.guard("done callback");
    finished.add_done_callback(move |_| drop(late));
    assert_eq!(drops.count("done callback"), 1);
}

// B071: of two timers that are due at once, the first cancels the second.
#[test]
fn a_timer_may_cancel_another_that_is_due_with_it() {
    let ex = Executor::builder().virtual_clock().build();
    let drops = DropLog::new();
    let second: Rc<RefCell<Option<CallHandle>>> = Rc::default();
    let at = ex.now() + Duration::from_secs(1);
    let (slot, seen) = (Rc::clone(&second), drops.clone());
    let trace = Trace::new();
    let (one, other) = (trace.clone(), trace.clone());
    ex.call_at(at, move || {
        let cancelled = slot.borrow().as_ref().expect("made below").cancel();
        one.push(format!("{cancelled}, dropped {}", seen.count("captures")));
    });
    let guard = drops.guard("captures");
    second.replace(Some(ex.call_at(at, move || {
        let _guard = &guard;
        other.push("called");
    })));
    ex.block_on(mainstay_sleep_until(at));
    trace.assert(&["true, dropped 1"]);
    drops.assert(&["captures"]);
}

async fn mainstay_sleep_until(at: std::time::Instant) {
    mainstay::sleep_until(at).await;
}

// B073: an `Err` of the root is its value: it comes back, and nobody else is told.
#[test]
fn the_roots_error_comes_back_and_is_not_reported() {
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let value: Result<u32, Fault> = ex.block_on(async { Err(Fault("root")) });
    assert_eq!(value, Err(Fault("root")));
    assert_eq!(
        ex.try_block_on(async { Err::<(), _>(Fault("root")) }).ok(),
        Some(Err(Fault("root")))
    );
    assert!(recorder.is_empty());
    assert_eq!(counts(&ex).failed, 0);
}

// B080: everything of the first run goes on in the second: tasks, callbacks, timers, and what they wait for.
#[test]
fn what_one_run_leaves_goes_on_in_the_next() {
    let ex = Executor::builder().virtual_clock().build();
    let trace = Trace::new();
    let (task, soon, later) = (trace.clone(), trace.clone(), trace.clone());
    let handle = ex.block_on(async {
        let ex = LocalHandle::current();
        ex.call_later(Duration::from_secs(5), move || later.push("timer"));
        let handle = ex.spawn(async move {
            mainstay::sleep(Duration::from_secs(1)).await;
            task.push("task");
            7
        });
        ex.call_soon(move || soon.push("callback"));
        Some(handle)
    });
    let handle = handle.expect("made above");
    trace.assert(&[]);
    assert_eq!(ex.block_on(handle).expect("returned"), 7);
    trace.assert(&["callback", "task"]);
    ex.block_on(mainstay_sleep_until(ex.now() + Duration::from_secs(10)));
    trace.assert(&["timer"]);
}

// B125: a host that ticks when it is told to, and at the deadline. What it makes between two ticks tells it again, a nearer
// deadline too; the outcome of what it spawned comes to its done callback, both ways to fail among them.
#[test]
fn a_host_ticks_a_guest_to_its_end_and_is_told_of_its_outcome() {
    quiet();
    let ex = Executor::builder().virtual_clock().build();
    ex.set_exception_handler(|_, _| {});
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    ex.on_wake(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let told = move || told.swap(0, Ordering::Relaxed) > 0;
    let trace = Trace::new();
    let guest = |name: &'static str, seconds: u64| {
        let handle = ex.spawn_fallible(async move {
            mainstay::sleep(Duration::from_secs(seconds)).await;
            match name {
                "returns" => Ok(()),
                "panics" => panic!("boom"),
                _ => Err(Fault("no")),
            }
        });
        let trace = trace.clone();
        handle.add_done_callback(move |completion| {
            trace.push(format!("{name}: {:?}", completion.outcome()));
        });
        handle.detach();
    };
    let start = ex.now();
    guest("returns", 30);
    assert!(told(), "a spawn is something to do");
    while ex.tick(1).more {}
    guest("panics", 10);
    guest("errs", 20);
    assert!(told());
    let mut progress = ex.tick(100);
    // The host's own timer, nearer than all of the guest's.
    let seen = trace.clone();
    ex.call_later(Duration::from_secs(5), move || seen.push("host"));
    assert!(told(), "its deadline has moved");
    for _ in 0..10 {
        progress = ex.tick(100);
        if let (false, Some(deadline)) = (progress.more, progress.next_deadline) {
            ex.advance(deadline - ex.now());
        }
    }
    assert_eq!((progress.more, progress.next_deadline), (false, None));
    assert_eq!(ex.now() - start, Duration::from_secs(30));
    let labels = trace.labels();
    assert_eq!(labels.len(), 4);
    assert_eq!(labels[0], "host");
    assert!(labels[1].starts_with("panics: Failed(") && labels[1].contains("boom"));
    assert!(labels[2].starts_with("errs: Failed(") && labels[2].contains("no"));
    assert_eq!(labels[3], "returns: Returned");
}
