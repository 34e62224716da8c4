//! Under what values handlers and done callbacks are told.

use std::cell::Cell;
use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;

use mainstay::{
    Executor, JoinHandle, LocalHandle, ReportPolicy, Supervisor, TaskGroup, spawn, spawn_fallible,
    yield_now,
};

use crate::support::{Boom, DropLog, Fault, Trace, counts, holding, quiet, yield_n};

use super::{GUARD, HITS, USER, noting, passer_by, told, user};

// B023, for a panic: what was set where it began, through every scope that it left.
#[test]
fn the_handler_sees_what_was_set_where_the_task_panicked_b023() {
    quiet();
    let ex = Executor::new();
    let trace = told(&ex);
    let other = passer_by(&ex);
    let ways: [fn() -> JoinHandle<()>; 6] = [
        // Around the whole future.
        || spawn(USER.scope("whole", async { panic!("boom 1") })),
        // In the middle of it, after a yield.
        || {
            spawn(async {
                USER.scope("middle", async {
                    yield_now().await;
                    panic!("boom 2")
                })
                .await
            })
        },
        // The innermost of several.
        || {
            spawn(USER.scope("outer", async {
                HITS.scope(
                    Cell::new(0),
                    USER.scope("inner", async { panic!("boom 3") }),
                )
                .await
            }))
        },
        // In a closure.
        || spawn(async { USER.sync_scope("closure", || panic!("boom 4")) }),
        // Outside of a scope that is over.
        || {
            spawn(USER.scope("around", async {
                USER.scope("over", ready(())).await;
                USER.sync_scope("over too", || ());
                panic!("boom 5")
            }))
        },
        // Nothing is set, and was.
        || {
            spawn(async {
                USER.scope("over", ready(())).await;
                panic!("boom 6")
            })
        },
    ];
    ex.block_on(async move {
        for way in ways {
            way().detach();
        }
        USER.scope("root", yield_n(4)).await;
    });
    trace.assert(&[
        "boom 1@whole",
        "boom 3@inner",
        "boom 4@closure",
        "boom 5@around",
        "boom 6@-",
        "boom 2@middle",
    ]);
    drop(other);
}

// B023, for an `Err`: what the task inherited, and what was set around its whole future.
#[test]
fn the_handler_sees_what_was_set_around_the_task_that_returned_an_error_b023() {
    let ex = Executor::new();
    let trace = told(&ex);
    let other = passer_by(&ex);
    ex.block_on(USER.scope("root", async {
        let fails = |text| async move { Err::<(), _>(Fault(text)) };
        spawn_fallible(fails("inherits")).detach();
        spawn_fallible(USER.scope("whole", fails("around"))).detach();
        spawn_fallible(USER.scope("outer", USER.scope("inner", fails("twice")))).detach();
        spawn_fallible(async {
            USER.scope("over", ready(())).await;
            Err::<(), _>(Fault("after a scope"))
        })
        .detach();
        yield_n(3).await;
    }));
    trace.assert(&[
        "inherits@root",
        "around@whole",
        "twice@inner",
        "after a scope@root",
    ]);
    let plain = ex.spawn_fallible(async {
        USER.scope("over", ready(())).await;
        Err::<(), _>(Fault("none"))
    });
    plain.detach();
    ex.run_until_stalled();
    trace.assert(&["none@-"]);
    drop(other);
}

// B023 under asyncio's policy: the report is made on whatever stack drops the handle, or by the executor's end.
#[test]
fn a_late_report_sees_the_failed_tasks_values_not_the_droppers_b023() {
    quiet();
    for fallible in [false, true] {
        let ex = Executor::builder()
            .report(ReportPolicy::IfUnretrieved)
            .build();
        let trace = told(&ex);
        let fail = |name: &'static str| {
            ex.spawn_fallible(USER.scope(name, async move {
                if fallible {
                    return Err::<(), _>(Fault("boom"));
                }
                panic!("boom")
            }))
        };
        let (early, late) = (fail("early"), fail("late"));
        let kept = USER.sync_scope("kept", || {
            ex.spawn_fallible(async { Err::<(), _>(Fault("boom")) })
        });
        ex.run_until_stalled();
        trace.assert(&[]);
        ex.block_on(USER.scope("dropper", async {
            drop(early);
            assert_eq!(user(), "dropper");
        }));
        trace.assert(&["boom@early"]);
        USER.sync_scope("outside", || drop(late));
        trace.assert(&["boom@late"]);
        USER.sync_scope("end", || drop(ex));
        trace.assert(&["boom@kept"]);
        drop(kept);
    }
}

// B024
#[test]
fn the_handler_of_a_failing_callback_sees_the_callbacks_values_b024() {
    quiet();
    let ex = Executor::new();
    let trace = told(&ex);
    let other = passer_by(&ex);
    USER.sync_scope("ada", || {
        ex.call_soon(|| panic!("boom 1"));
        ex.call_soon(|| USER.sync_scope("inner", || panic!("boom 2")));
    });
    ex.call_soon(|| panic!("boom 3"));
    ex.block_on(USER.scope("root", yield_n(2)));
    trace.assert(&["boom 1@ada", "boom 2@inner", "boom 3@-"]);
    drop(other);
}

// B023 and B024: done callbacks are the task's; one that fails is told under the same values.
#[test]
fn done_callbacks_see_the_tasks_values_however_it_ended() {
    quiet();
    let ex = Executor::new();
    let trace = told(&ex);
    let seen = trace.clone();
    let other = passer_by(&ex);
    let watch = |handle: JoinHandle<()>| handle.add_done_callback(noting(&seen));

    watch(ex.spawn(USER.scope("returns", async {})));
    watch(USER.sync_scope("heir", || ex.spawn(async {})));
    ex.block_on(USER.scope("root", yield_n(2)));
    trace.assert(&["done@returns", "done@heir"]);

    watch(ex.spawn(USER.scope("panics", async { panic!("boom") })));
    ex.block_on(USER.scope("root", yield_n(2)));
    trace.assert(&["boom@panics", "done@panics"]);

    let victims = [
        ex.spawn(USER.scope("suspended", pending::<()>())),
        ex.spawn(async { USER.scope("inner", pending::<()>()).await }),
        USER.sync_scope("unpolled heir", || ex.spawn(pending::<()>())),
    ];
    for victim in &victims {
        victim.add_done_callback(noting(&seen));
    }
    ex.block_on(USER.scope("root", async {
        yield_now().await;
        for victim in &victims {
            victim.cancel();
        }
        yield_n(2).await;
    }));
    trace.assert(&["done@suspended", "done@inner", "done@unpolled heir"]);

    let loud = ex.spawn(USER.scope("loud", async {}));
    loud.add_done_callback(|_| panic!("boom in callback"));
    loud.add_done_callback(|_| USER.sync_scope("deeper", || panic!("boom deeper")));
    ex.block_on(USER.scope("root", yield_n(2)));
    trace.assert(&["boom in callback@loud", "boom deeper@deeper"]);
    drop(other);
}

#[test]
fn a_late_done_callback_sees_a_failures_values_else_those_where_it_is_added() {
    quiet();
    let ex = Executor::new();
    let trace = told(&ex);
    let failed = ex.spawn(USER.scope("failed", async { panic!("boom") }));
    let returned = ex.spawn(USER.scope("returned", async {}));
    ex.run_until_stalled();
    trace.assert(&["boom@failed"]);
    USER.sync_scope("adder", || {
        failed.add_done_callback(noting(&trace));
        returned.add_done_callback(noting(&trace));
    });
    ex.run_until_stalled();
    trace.assert(&["done@failed", "done@adder"]);
}

#[test]
fn a_task_destroyed_pending_is_told_under_what_it_inherited() {
    let ex = Executor::new();
    let trace = told(&ex);
    USER.sync_scope("heir", || ex.spawn(pending::<()>()).detach());
    ex.spawn(pending::<()>()).detach();
    USER.sync_scope("end", || drop(ex));
    trace.assert(&["-@heir", "-@-"]);
}

#[test]
fn a_destructor_that_panics_is_told_under_its_own_values() {
    quiet();
    let ex = Executor::new();
    let trace = told(&ex);
    let log = DropLog::new();
    let bomb = log.guard("bomb").panics("boom in drop");
    let victim = ex.spawn(async {
        USER.scope("middle", holding(bomb, pending::<()>())).await;
    });
    ex.block_on(USER.scope("killer", async {
        yield_now().await;
        victim.cancel();
        yield_n(2).await;
    }));
    trace.assert(&["boom in drop@middle"]);
    log.assert(&["bomb"]);
    assert_eq!(counts(&ex).failed, 1);
}

// A user's own report is made where it is made.
#[test]
fn a_report_of_the_users_own_is_told_under_what_is_set_there() {
    let ex = Executor::new();
    let trace = told(&ex);
    let report = || mainstay::ExceptionContext::new("own").build();
    ex.block_on(USER.scope("ada", async {
        LocalHandle::current().call_exception_handler(&report());
    }));
    ex.call_exception_handler(&report());
    trace.assert(&["-@ada", "-@-"]);
}

#[test]
fn what_a_handler_spawns_inherits_from_the_task_that_failed() {
    quiet();
    let ex = Executor::new();
    let trace = Trace::new();
    let seen = trace.clone();
    ex.set_exception_handler(move |ex, _| {
        let seen = seen.clone();
        ex.spawn(async move { seen.push(user()) }).detach();
    });
    ex.spawn(USER.scope("ada", async { panic!("boom") }))
        .detach();
    ex.run_until_stalled();
    trace.assert(&["ada"]);
}

// The values of a panic that the task itself has caught are not those of its next one.
#[test]
fn a_panic_that_the_task_catches_leaves_nothing_behind() {
    quiet();
    let ex = Executor::new();
    let trace = told(&ex);
    let log = DropLog::new();
    let task = ex.spawn({
        let guard = log.guard("value");
        async move {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                GUARD.sync_scope(guard, || {
                    USER.sync_scope("caught", || panic!("boom, caught"))
                })
            }));
            assert!(caught.is_err());
            drop(caught);
            yield_now().await;
            assert!(GUARD.try_with(|_| ()).is_err());
            panic!("boom, not caught")
        }
    });
    ex.tick(1);
    ex.tick(1);
    log.assert(&["value"]);
    ex.run_until_stalled();
    trace.assert(&["boom, not caught@-"]);
    drop(task);

    // In one step, too.
    ex.spawn(async {
        let caught = catch_unwind(|| USER.sync_scope("caught", || panic!("boom, caught")));
        drop(caught);
        panic!("boom, not caught")
    })
    .detach();
    ex.run_until_stalled();
    trace.assert(&["boom, not caught@-"]);
}

#[test]
fn a_panic_that_leaves_a_nested_executor_keeps_what_was_set_in_its_root() {
    quiet();
    let ex = Executor::new();
    let trace = told(&ex);
    ex.spawn(USER.scope("outer", async {
        Executor::new().block_on(USER.scope("root", async { panic!("boom") }))
    }))
    .detach();
    ex.run_until_stalled();
    trace.assert(&["boom@root"]);
}

#[test]
fn where_a_panic_happened_is_known_through_scopes() {
    quiet();
    mainstay::install_panic_hook();
    let ex = Executor::new();
    let line = Rc::new(Cell::new(0));
    let seen = Rc::clone(&line);
    ex.set_exception_handler(move |_, report| {
        seen.set(report.exception().unwrap().location().unwrap().line());
    });
    let here = line!() + 2;
    ex.spawn(USER.scope("a", async {
        USER.scope("b", async { panic_any(Boom("there")) }).await
    }))
    .detach();
    ex.run_until_stalled();
    assert_eq!(line.get(), here);
}

// B023 in groups: a supervisor's own handler, and the report of what a group could not hand on.
#[test]
fn groups_tell_under_the_values_of_the_member_that_failed() {
    quiet();
    let ex = Executor::new();
    let trace = told(&ex);
    let own = trace.clone();
    let other = passer_by(&ex);
    ex.block_on(USER.scope("owner", async {
        Supervisor::scope(async |s| {
            s.set_exception_handler(move |_, _| own.push(format!("own@{}", user())));
            s.spawn(USER.scope("child", async { panic!("boom") }))
                .detach();
            s.spawn(async { panic!("boom") }).detach();
            yield_n(3).await;
        })
        .await;
    }));
    trace.assert(&["own@child", "own@owner"]);

    // The group keeps the failure, and is dropped before it could be handed on.
    let group = ex.spawn(async {
        let ended = TaskGroup::scope(async |g| {
            g.spawn(USER.scope("member", async { panic!("boom") }))
                .detach();
            pending::<()>().await;
        })
        .await;
        drop(ended);
    });
    ex.tick(2);
    while ex.stats().failed < 3 {
        ex.tick(1);
    }
    ex.block_on(USER.scope("killer", async { group.cancel() }));
    trace.assert(&["boom@member"]);
    drop(other);
}

// B023 for a task from another thread, whose handle is dropped there unread.
#[test]
fn a_failure_owed_to_another_thread_is_told_under_its_own_values() {
    quiet();
    let ex = Executor::builder()
        .report(ReportPolicy::IfUnretrieved)
        .build();
    let trace = told(&ex);
    let log = DropLog::new();
    let guard = log.guard("value");
    let spawner = ex.spawner();
    let thread = std::thread::spawn(move || {
        spawner
            .spawn(move || GUARD.scope(guard, USER.scope("remote", async { panic!("boom") })))
            .unwrap()
    });
    let handle = thread.join().unwrap();
    ex.run_until_stalled();
    trace.assert(&[]);
    drop(handle);
    ex.block_on(USER.scope("root", yield_n(2)));
    trace.assert(&["boom@remote"]);
    log.assert(&["value"]);
}
