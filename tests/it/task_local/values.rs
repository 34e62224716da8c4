//! For how long values live, and what their destructors may do.

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::FutureExt;
use mainstay::{
    ContextKind, Executor, JoinHandle, LocalHandle, ReportPolicy, Supervisor, TaskGroup, spawn,
    task_local,
};

use crate::support::{
    DropLog, Guard, Recorder, Trace, check_accounting, counts, holding, on_drop, panic_message,
    poll_once, quiet, yield_n,
};

use super::{GUARD, OTHER, USER, told, user};

#[test]
fn a_value_goes_with_its_scope_on_every_way() {
    quiet();
    let log = DropLog::new();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let value = |name: &str| log.guard(name);

    GUARD.sync_scope(value("closure"), || ());
    log.assert(&["closure"]);

    // Ready, and dropped where the await ends.
    let (guard, seen) = (value("awaited"), log.clone());
    ex.block_on(async move {
        GUARD.scope(guard, async {}).await;
        assert_eq!(seen.count("awaited"), 1);
    });

    // Never polled.
    drop(GUARD.scope(value("unpolled"), async {}));
    drop(ex.spawn(GUARD.scope(value("returned"), async {})));
    let panicked = ex.spawn(GUARD.scope(value("panicked"), async { panic!("boom") }));
    let cancelled = ex.spawn(GUARD.scope(value("cancelled"), pending::<()>()));
    ex.run_until_stalled();
    cancelled.cancel();
    ex.run_until_stalled();
    assert_eq!(
        log.names(),
        ["closure", "awaited", "unpolled", "returned", "cancelled"]
    );
    assert_eq!(log.count("panicked"), 0, "kept with the failure");
    ex.block_on(panicked).unwrap_err();
    assert_eq!(log.count("panicked"), 1);

    let kept = ex.spawn(GUARD.scope(value("kept failure"), async { panic!("boom") }));
    ex.run_until_stalled();
    assert_eq!(log.count("kept failure"), 0);
    drop(kept);
    assert_eq!(log.count("kept failure"), 1);

    ex.spawn(GUARD.scope(value("with the executor"), pending::<()>()))
        .detach();
    GUARD.sync_scope(value("callback's"), || {
        ex.call_later(Duration::from_secs(1_000), || ());
    });
    ex.run_until_stalled();
    drop(ex);
    assert_eq!(log.count("with the executor"), 1);
    assert_eq!(log.count("callback's"), 1);
    assert_eq!(log.len(), 9, "each once");
    log.assert_home();
    assert_eq!(recorder.len(), 3, "two panics, one task destroyed");
}

#[test]
fn a_failure_in_a_handle_that_outlives_the_executor_lets_its_values_go_at_last() {
    quiet();
    let log = DropLog::new();
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    let fails = || GUARD.scope(log.guard("value"), async { panic!("boom") });
    let (taken, dropped): (JoinHandle<()>, JoinHandle<()>) = (ex.spawn(fails()), ex.spawn(fails()));
    ex.run_until_stalled();
    drop(ex);
    let mut taken = taken;
    assert!(taken.result().unwrap().is_err());
    log.assert(&["value"]);
    drop(dropped);
    log.assert(&["value", "value"]);
}

// A chain of tasks that spawn one another must not drag all their values along (P7).
#[test]
fn a_chain_of_tasks_keeps_one_value_of_a_key() {
    fn link(n: u32, log: DropLog) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            assert!(GUARD.try_with(|_| ()).is_ok());
            // Its own, that of the one before, and that of the one that spawned it and is not yet told of.
            assert!(log.len() + 3 >= n as usize, "{n}: {} dropped", log.len());
            if n < 1_000 {
                let guard = log.guard(n.to_string());
                let next = GUARD.scope(guard, link(n + 1, log));
                spawn(next).detach();
            }
        })
    }
    let ex = Executor::new();
    let log = DropLog::new();
    let recorder = Recorder::on(&ex);
    ex.spawn(GUARD.scope(log.guard("0"), link(1, log.clone())))
        .detach();
    ex.run_until_stalled();
    assert!(recorder.is_empty(), "{:?}", recorder.reports());
    assert_eq!(log.len(), 1_000);
}

#[test]
fn a_value_whose_destructor_panics_fails_whoever_ends_its_scope() {
    quiet();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let log = DropLog::new();
    let bomb = |text: &str| log.guard(text).panics(format!("boom {text}"));

    let message = panic_message(|| GUARD.sync_scope(bomb("closure"), || ()));
    assert_eq!(message, "boom closure");

    // Awaited: the task fails. As the whole future: its destructor panicked, so that it failed too.
    ex.spawn({
        let value = bomb("awaited");
        async move { GUARD.scope(value, async {}).await }
    })
    .detach();
    ex.spawn(GUARD.scope(bomb("whole"), async {})).detach();
    let cancelled = ex.spawn(GUARD.scope(bomb("cancelled"), pending::<()>()));
    ex.run_until_stalled();
    cancelled.cancel();
    ex.run_until_stalled();
    assert_eq!(
        recorder.exceptions(),
        ["boom awaited", "boom whole", "boom cancelled"]
    );
    assert_eq!(counts(&ex).failed, 3);
    assert_eq!(log.len(), 4, "each once");

    // The last to let go is an heir that has returned long ago: it has not failed, and the report is one by itself.
    recorder.take();
    let heir = GUARD.sync_scope(bomb("heir's"), || ex.spawn(yield_n(3)));
    ex.block_on(heir).unwrap();
    assert_eq!(recorder.kinds(), [ContextKind::Destructor]);
    assert_eq!(recorder.exceptions(), ["boom heir's"]);
    assert_eq!(counts(&ex).failed, 3);
    check_accounting(&ex);
}

#[test]
fn two_values_that_both_panic_are_both_contained() {
    quiet();
    let log = DropLog::new();
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let bomb = |text: &str| {
        log.guard(text)
            .panics_while_unwinding(format!("boom {text}"))
    };

    // One task inherits both, and is the last to have them.
    let heir = GUARD.sync_scope(bomb("1"), || {
        OTHER.sync_scope(bomb("2"), || ex.spawn(async {}))
    });
    ex.block_on(heir).unwrap();
    assert_eq!(recorder.exceptions(), ["boom 1", "boom 2"]);
    recorder.take();

    // The future's own destructor, and two values: the first is the task's failure, the others are told after it.
    let future = holding(bomb("3"), async {});
    ex.spawn(GUARD.scope(bomb("4"), OTHER.scope(bomb("5"), future)))
        .detach();
    ex.run_until_stalled();
    let mut told = recorder.exceptions();
    told.sort();
    assert_eq!(told, ["boom 3", "boom 4", "boom 5"]);
    recorder.take();

    // While the poll's own panic unwinds through the scopes.
    let inner = OTHER.scope(bomb("6"), async { panic!("boom poll") });
    let both = GUARD.scope(bomb("7"), inner);
    ex.spawn(async {
        both.await;
    })
    .detach();
    ex.run_until_stalled();
    let told = recorder.exceptions();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.contains(&"boom poll".into()), "{told:?}");
    assert_eq!(log.len(), 7, "each once");
    check_accounting(&ex);
}

/// Whoever lets go of a value last, its destructor's panic is contained, and told once.
#[test]
fn a_value_that_panics_is_contained_wherever_it_goes() {
    type Way = fn(&Executor<'static>, Guard);
    fn fails(guard: Guard) -> impl Future<Output = ()> {
        GUARD.scope(guard, async { panic!("boom in a task") })
    }
    let ways: [(&str, Way); 14] = [
        ("detached", |ex, guard| ex.spawn(fails(guard)).detach()),
        ("its handle dropped", |ex, guard| {
            let handle = ex.spawn(fails(guard));
            ex.run_until_stalled();
            drop(handle);
        }),
        ("its handle read", |ex, guard| {
            assert!(ex.block_on(ex.spawn(fails(guard))).is_err());
        }),
        ("its handle kept", |ex, guard| {
            let handle = ex.spawn(fails(guard));
            handle.add_done_callback(|_| ());
            ex.run_until_stalled();
            handle.add_done_callback(|_| ());
            ex.run_until_stalled();
            drop(handle);
        }),
        ("a panic that is caught", |ex, guard| {
            ex.block_on(async {
                let caught = AssertUnwindSafe(fails(guard)).catch_unwind().await;
                assert!(caught.is_err());
                yield_n(1).await;
            });
        }),
        ("a caught panic and another", |ex, guard| {
            let other = DropLog::new().guard("other");
            ex.spawn(async {
                let caught = AssertUnwindSafe(fails(guard)).catch_unwind().await;
                assert!(caught.is_err());
                fails(other).await;
            })
            .detach();
        }),
        ("the root's", |ex, guard| {
            let text = panic_message(|| ex.block_on(fails(guard)));
            assert_eq!(text, "boom in a task");
        }),
        ("a group's", |ex, guard| {
            let group = TaskGroup::scope(async |g| g.spawn(fails(guard)).detach());
            assert_eq!(ex.block_on(group).unwrap_err().len(), 1);
        }),
        ("a group's that is left", |ex, guard| {
            let mut group = Box::pin(TaskGroup::scope(async |g| {
                g.spawn(fails(guard)).detach();
                pending::<()>().await;
            }));
            ex.block_on(async {
                assert!(poll_once(&mut group).is_pending());
                yield_n(2).await;
            });
        }),
        ("a supervisor's", |ex, guard| {
            ex.block_on(Supervisor::scope(async |s| s.spawn(fails(guard)).detach()));
        }),
        ("elsewhere, read", |ex, guard| {
            let handle = ex.spawner().spawn(move || fails(guard));
            let handle = handle.unwrap_or_else(|_| panic!("it is open"));
            ex.run_until_stalled();
            assert!(ex.block_on(handle).is_err());
        }),
        ("elsewhere, left", |ex, guard| {
            drop(ex.spawner().spawn(move || fails(guard)));
        }),
        ("inherited by a callback", |ex, guard| {
            GUARD.sync_scope(guard, || drop(ex.call_soon(|| ())));
        }),
        ("inherited by a task that is cancelled", |ex, guard| {
            let task = GUARD.sync_scope(guard, || ex.spawn(pending::<()>()));
            task.add_done_callback(|_| ());
            ex.run_until_stalled();
            task.cancel();
        }),
    ];
    quiet();
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        for (name, way) in ways {
            let ex = Executor::builder().report(policy).build();
            let (recorder, log) = (Recorder::on(&ex), DropLog::new());
            way(&ex, log.guard("value").panics("boom in a value"));
            ex.run_until_stalled();
            let told = recorder.exceptions();
            let of_value = told.iter().filter(|text| *text == "boom in a value");
            assert_eq!(of_value.count(), 1, "{name}: {told:?}");
            assert_eq!(log.len(), 1, "{name}");
            check_accounting(&ex);
        }
    }
}

/// What was spawned, or made, where a value is set may panic when it is dropped. That is told, also while the thread unwinds.
#[test]
fn destructors_of_what_inherits_are_told_of() {
    quiet();
    for unwinds in [false, true] {
        let (ex, log) = (Executor::new(), DropLog::new());
        let recorder = Recorder::on(&ex);
        let bomb = |name: &str| {
            log.guard(name)
                .panics_while_unwinding(format!("boom {name}"))
        };
        USER.sync_scope("a", || {
            let held = bomb("in a task");
            ex.spawn(holding(held, pending::<()>())).detach();
            let held = bomb("in a callback");
            ex.call_later(Duration::from_secs(1_000), move || drop(held));
        });
        ex.run_until_stalled();
        if unwinds {
            let unwound = catch_unwind(AssertUnwindSafe(move || {
                let _ends = ex;
                panic!("boom first")
            }));
            assert!(unwound.is_err());
        } else {
            drop(ex);
        }
        let told: Vec<_> = recorder.exceptions().into_iter().skip(1).collect();
        assert_eq!(told, ["boom in a task", "boom in a callback"], "{unwinds}");
    }
}

/// Where a scope's end panics after its code has returned or panicked, the first panic is the one that goes on, and what follows
/// it is told: the value's, and that of what the code gave.
#[test]
fn what_follows_the_first_panic_of_a_scope_is_told() {
    quiet();
    let (ex, log) = (Executor::new(), DropLog::new());
    let recorder = Recorder::on(&ex);
    let bomb = |name: &str| {
        log.guard(name)
            .panics_while_unwinding(format!("boom {name}"))
    };
    ex.block_on(async {
        let text = panic_message(|| GUARD.sync_scope(bomb("value"), || bomb("result")));
        assert_eq!(text, "boom value");
        let text = panic_message(|| GUARD.sync_scope(bomb("second value"), || panic!("boom code")));
        assert_eq!(text, "boom code");
    });
    let told = ["boom result", "boom second value"];
    assert_eq!(recorder.exceptions(), told);
    recorder.take();

    let result = bomb("output");
    let future = holding(bomb("future"), async move { result });
    ex.spawn(USER.scope("a", future)).detach();
    ex.run_until_stalled();
    assert_eq!(recorder.exceptions(), ["boom output", "boom future"]);
    assert_eq!(log.len(), 5);
    check_accounting(&ex);
}

#[test]
fn a_destructor_of_a_value_may_do_anything() {
    quiet();
    task_local! { static ANY: Box<dyn std::any::Any>; }
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let trace = Trace::new();
    let seen = trace.clone();
    let busy = on_drop(move || {
        seen.push(format!("{} {}", user(), ANY.try_with(|_| ()).is_ok()));
        spawn(USER.scope("spawned", async { panic!("boom") })).detach();
        LocalHandle::current().clear_exception_handler();
        USER.sync_scope("within", || seen.push(user()));
    });
    ex.block_on(async {
        ANY.scope(Box::new(busy), USER.scope("ada", async {})).await;
    });
    trace.assert(&["- false", "within"]);
    recorder.install(&ex);
    ex.run_until_stalled();
    assert_eq!(recorder.exceptions(), ["boom"]);
}

// A destructor that runs because of a panic catches one of its own: it is the first that is told, under its values.
#[test]
fn a_panic_within_a_destructor_does_not_take_the_place_of_the_first() {
    quiet();
    let ex = Executor::new();
    let trace = told(&ex);
    ex.spawn(async {
        let _caught = on_drop(|| {
            let caught = catch_unwind(|| USER.sync_scope("destructor", || panic!("boom inner")));
            assert!(caught.is_err());
        });
        USER.scope("first", async { panic!("boom") }).await
    })
    .detach();
    ex.run_until_stalled();
    trace.assert(&["boom@first"]);
}

#[test]
fn a_spawn_on_an_executor_that_is_gone_drops_the_future_under_the_values() {
    let trace = Trace::new();
    let log = DropLog::new();
    let ex = Executor::new();
    let handle = ex.handle();
    let keep = ex.spawn(async {});
    drop(ex);
    let noted = trace.clone();
    let seen = on_drop(move || noted.push(user()));
    USER.sync_scope("ada", || {
        GUARD.sync_scope(log.guard("value"), || {
            let refused = handle.spawn(holding(seen, async {}));
            assert!(refused.is_cancelled());
            assert!(!handle.call_soon(|| ()).cancel());
        })
    });
    trace.assert(&["ada"]);
    log.assert(&["value"]);
    drop(keep);
}

#[test]
fn showing_a_key_or_a_scope_shows_no_value() {
    let scope = USER.scope("secret", pending::<()>());
    let text = format!("{USER:?} {scope:?}");
    assert!(text.contains("USER") && text.contains("TaskLocalFuture"));
    assert!(!text.contains("secret"), "{text}");
}
