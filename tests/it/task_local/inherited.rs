//! What tasks and callbacks inherit from where they are made.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use mainstay::{Executor, LocalHandle, current_task, spawn, spawn_fallible, yield_now};

use crate::support::{DropLog, Event, Fault, Trace, check_accounting, holding, on_drop, yield_n};

use super::{GUARD, HITS, USER, user};

// api.md: inherited by spawned tasks, which share the value.
#[test]
fn a_spawned_task_inherits_what_is_set_where_it_is_spawned() {
    let ex = Executor::new();
    let (child, local, fallible, built, grandchild) = ex.block_on(HITS.scope(
        Cell::new(0),
        USER.scope("ada", async {
            let hit = || async {
                yield_now().await;
                HITS.with(|hits| hits.set(hits.get() + 1));
                user()
            };
            let child = spawn(hit());
            let local = LocalHandle::current().spawn(hit());
            let fallible = spawn_fallible(async move { Ok::<_, Fault>(hit().await) });
            let built = LocalHandle::current().task().name("built").spawn(hit());
            let grandchild = spawn(async move { spawn(hit()).await.unwrap() });
            let all = (
                child.await.unwrap(),
                local.await.unwrap(),
                fallible.await.unwrap().unwrap(),
                built.await.unwrap(),
                grandchild.await.unwrap(),
            );
            assert_eq!(HITS.with(Cell::get), 5, "one value, shared");
            all
        }),
    ));
    assert_eq!(
        [child, local, fallible, built, grandchild],
        ["ada"; 5],
        "all of them, and those that they spawn"
    );
}

#[test]
fn a_task_with_options_keeps_them_where_values_are_set() {
    let ex = Executor::new();
    USER.sync_scope("ada", || {
        ex.task()
            .name("named")
            .background()
            .spawn(pending::<()>())
            .detach();
    });
    assert_eq!(ex.tasks()[0].name(), "named");
    // In the background, it keeps nobody waiting.
    assert!(ex.idle().now_or_never().is_some());
}

#[test]
fn a_child_keeps_its_value_when_the_scope_is_over() {
    let ex = Executor::new();
    let log = DropLog::new();
    let go = Event::new();
    let child = {
        let go = go.clone();
        let guard = log.guard("value");
        GUARD.sync_scope(guard, || {
            ex.spawn(async move {
                go.wait().await;
                GUARD.try_with(|_| ()).is_ok()
            })
        })
    };
    log.assert(&[]);
    go.set();
    assert!(ex.block_on(child).unwrap());
    log.assert(&["value"]);
}

#[test]
fn what_a_child_sets_is_its_own() {
    let ex = Executor::new();
    ex.block_on(USER.scope("ada", async {
        let child = spawn(USER.scope("child", async {
            yield_n(2).await;
            (user(), spawn(async { user() }).await.unwrap())
        }));
        assert_eq!(user(), "ada");
        assert_eq!(child.await.unwrap(), ("child", "child"));
        assert_eq!(user(), "ada");
    }));
}

#[test]
fn a_task_spawned_outside_of_a_drive_inherits_too_and_may_borrow() {
    let words = vec![String::from("borrowed")];
    let ex = Executor::new();
    let task = USER.sync_scope("ada", || {
        let words = &words;
        ex.spawn(async move { (user(), words[0].len()) })
    });
    assert_eq!(ex.block_on(task).unwrap(), ("ada", 8));
}

// asyncio: a callback runs in the context in which it was made.
#[test]
fn callbacks_see_what_was_set_where_they_were_made() {
    let ex = Executor::builder().virtual_clock().build();
    let trace = Trace::new();
    let note = |label: &'static str| {
        let trace = trace.clone();
        move || trace.push(format!("{label}@{} {}", user(), current_task().is_none()))
    };
    ex.block_on(async {
        let inner = LocalHandle::current();
        let now = inner.now();
        USER.scope("ada", async {
            inner.call_soon(note("soon"));
            inner.call_later(Duration::from_secs(1), note("later"));
            inner.call_at(now + Duration::from_secs(2), note("at"));
        })
        .await;
        inner.call_soon(note("outside"));
        USER.scope("grace", mainstay::sleep(Duration::from_secs(3)))
            .await;
    });
    trace.assert(&[
        "soon@ada true",
        "outside@- true",
        "later@ada true",
        "at@ada true",
    ]);
}

#[test]
fn a_closure_from_another_thread_sees_nothing() {
    let ex = Executor::new();
    let seen = USER.sync_scope("home", || {
        let spawner = ex.spawner();
        let thread = std::thread::spawn(move || {
            assert_eq!(user(), "-");
            USER.sync_scope("elsewhere", || {
                spawner
                    .call_soon(|ex| {
                        assert_eq!(user(), "-");
                        ex.stop();
                    })
                    .unwrap();
            });
        });
        thread.join().unwrap();
        ex.run_forever();
        user()
    });
    assert_eq!(seen, "home");
}

#[test]
fn the_root_sees_what_is_set_where_it_is_driven_and_tasks_do_not() {
    let ex = Executor::new();
    let before = ex.spawn(async { user() });
    let (root, before, within) = USER.sync_scope("caller", || {
        ex.block_on(async {
            yield_now().await;
            let within = spawn(async { user() });
            (user(), before.await.unwrap(), within.await.unwrap())
        })
    });
    assert_eq!((root, before, within), ("caller", "-", "caller"));
    let polled = ex.spawn(async { user() });
    USER.sync_scope("caller", || ex.run_until_stalled());
    assert_eq!(ex.block_on(polled).unwrap(), "-");
}

#[test]
fn an_executor_driven_within_a_task_does_not_see_that_tasks_values() {
    let outer = Executor::new();
    let inner = Rc::new(Executor::new());
    let stranger = inner.spawn(async {
        yield_now().await;
        user()
    });
    let driven = Rc::clone(&inner);
    let task = outer.spawn(USER.scope("outer", async move {
        let child = driven.spawn(async { user() });
        let seen = driven.block_on(async {
            USER.scope("root", yield_n(2)).await;
            (
                user(),
                stranger.await.unwrap(),
                child.await.unwrap(),
                current_task().is_none(),
            )
        });
        (seen, user())
    }));
    let seen = outer.block_on(task).unwrap();
    assert_eq!(seen, (("outer", "-", "outer", true), "outer"));
}

#[test]
fn a_task_woken_or_cancelled_by_another_sees_its_own_values_only() {
    let ex = Executor::new();
    let trace = Trace::new();
    let victim = {
        let trace = trace.clone();
        let seen = move |what: &str| trace.push(format!("{what}@{}", user()));
        let drop_seen = seen.clone();
        ex.spawn(holding(on_drop(move || drop_seen("plain")), async move {
            let _inner = on_drop(move || seen("body"));
            pending::<()>().await;
        }))
    };
    let heir = {
        let trace = trace.clone();
        USER.sync_scope("ada", || {
            ex.spawn(async move {
                let _inner = on_drop(move || trace.push(format!("heir@{}", user())));
                pending::<()>().await;
            })
        })
    };
    ex.block_on(USER.scope("killer", async {
        yield_now().await;
        assert!(victim.cancel());
        assert!(heir.cancel());
        assert_eq!(user(), "killer");
    }));
    trace.assert(&["body@-", "plain@-", "heir@ada"]);
}

// tokio: task_local_available_on_abort, _on_completion_drop and _drop_value.
#[test]
fn destructors_see_the_values_whatever_ends_the_task() {
    for end in ["cancelled", "unpolled", "returned", "executor dropped"] {
        let trace = Trace::new();
        let ex = Executor::new();
        ex.set_exception_handler(|_, _| {});
        let body = |label: &'static str| {
            let trace = trace.clone();
            let seen = on_drop(move || trace.push(format!("{label}@{}", user())));
            holding(seen, async move {
                if end != "returned" {
                    pending::<()>().await;
                }
            })
        };
        let inherits = USER.sync_scope("ada", || ex.spawn(body("inherits")));
        let scoped = ex.spawn(USER.scope("grace", body("scoped")));
        if end != "unpolled" {
            ex.run_until_stalled();
        }
        if end == "cancelled" || end == "unpolled" {
            inherits.cancel();
            scoped.cancel();
            ex.run_until_stalled();
        }
        drop((inherits, scoped));
        check_accounting(&ex);
        drop(ex);
        let labels = trace.labels();
        assert_eq!(labels, ["inherits@ada", "scoped@grace"], "{end}");
    }
}

#[test]
fn a_callback_that_is_cancelled_drops_its_captures_under_its_values() {
    let ex = Executor::new();
    let trace = Trace::new();
    let noted = trace.clone();
    let capture = on_drop(move || noted.push(user()));
    let call = USER.sync_scope("ada", || {
        ex.call_soon(move || {
            let _capture = &capture;
            unreachable!("cancelled in time")
        })
    });
    ex.block_on(USER.scope("killer", async move { assert!(call.cancel()) }));
    trace.assert(&["ada"]);
}
