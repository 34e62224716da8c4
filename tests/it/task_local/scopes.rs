//! Where a value is set, and where it is not.

use std::cell::{Cell, RefCell};
use std::future::ready;
use std::panic::panic_any;
use std::pin::pin;
use std::rc::Rc;

use mainstay::{Executor, LocalKey, spawn, yield_now};

use crate::support::{Boom, Trace, panic_message, quiet, yield_n};

use super::{HITS, USER, user};

#[test]
fn a_value_is_set_within_its_scope_and_nowhere_else() {
    let ex = Executor::new();
    assert_eq!(user(), "-");
    ex.block_on(async {
        assert_eq!(user(), "-");
        let seen = USER
            .scope("ada", async {
                let before = user();
                yield_n(3).await;
                (before, user())
            })
            .await;
        assert_eq!(seen, ("ada", "ada"));
        assert_eq!(user(), "-");
    });
}

#[test]
fn tasks_that_take_turns_see_each_their_own() {
    let ex = Executor::new();
    let trace = Trace::new();
    for name in ["ada", "grace"] {
        let trace = trace.clone();
        let work = USER.scope(name, async move {
            for _ in 0..2 {
                trace.push(user());
                yield_now().await;
            }
        });
        ex.spawn(work).detach();
    }
    let bystander = trace.clone();
    ex.spawn(async move {
        bystander.push(user());
        yield_now().await;
        bystander.push(user());
    })
    .detach();
    ex.run_until_stalled();
    trace.assert(&["ada", "grace", "-", "ada", "grace", "-"]);
}

#[test]
fn an_inner_scope_shadows_an_outer_one_of_its_key_and_leaves_others_alone() {
    Executor::new().block_on(USER.scope(
        "outer",
        HITS.scope(Cell::new(7), async {
            USER.scope("inner", async {
                assert_eq!((user(), HITS.with(Cell::get)), ("inner", 7));
                HITS.with(|hits| hits.set(8));
            })
            .await;
            assert_eq!((user(), HITS.with(Cell::get)), ("outer", 8));
        }),
    ));
}

#[test]
fn a_closure_is_a_scope_too_within_with_and_without_an_executor() {
    let seen = USER.sync_scope("ada", || {
        USER.with(|outer| (*outer, USER.sync_scope("grace", user), user()))
    });
    assert_eq!(seen, ("ada", "grace", "ada"));
    assert_eq!(user(), "-");
}

#[test]
fn a_scope_may_be_opened_and_a_task_spawned_within_with() {
    let ex = Executor::new();
    let spawned = ex.block_on(USER.scope("ada", async {
        let spawned = USER.with(|_| spawn(async { user() }));
        let inner = USER.with(|outer| {
            let inner = USER.scope("grace", async { user() });
            assert_eq!((*outer, user()), ("ada", "ada"), "made, not yet polled");
            inner
        });
        assert_eq!(inner.await, "grace");
        spawned.await
    }));
    assert_eq!(spawned.unwrap(), "ada");
}

#[test]
fn two_scopes_of_one_future_at_once_see_each_their_own() {
    let ex = Executor::new();
    ex.block_on(async {
        let mut one = pin!(USER.scope("one", async {
            yield_now().await;
            user()
        }));
        let mut two = pin!(USER.scope("two", async {
            yield_now().await;
            user()
        }));
        let mut seen = Vec::new();
        std::future::poll_fn(|cx| {
            let mut ready = true;
            // Either may be ready once only.
            if seen.is_empty() {
                match one.as_mut().poll(cx) {
                    std::task::Poll::Ready(user) => seen.push(user),
                    std::task::Poll::Pending => ready = false,
                }
                match two.as_mut().poll(cx) {
                    std::task::Poll::Ready(user) => seen.push(user),
                    std::task::Poll::Pending => ready = false,
                }
            }
            if ready {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        assert_eq!(seen, ["one", "two"]);
    });
}

// A scope that is polled under one user and then under another sees the others' values as they are then.
#[test]
fn a_scope_that_is_moved_sees_what_is_set_where_it_is_polled() {
    let ex = Executor::new();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let sink = Rc::clone(&seen);
    let mut moved = Box::pin(HITS.scope(Cell::new(1), async move {
        loop {
            HITS.with(|hits| hits.set(hits.get() + 1));
            sink.borrow_mut().push((user(), HITS.with(Cell::get)));
            yield_now().await;
        }
    }));
    ex.block_on(async {
        for name in ["ada", "grace", "grace"] {
            let once = std::future::poll_fn(|cx| {
                assert!(moved.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            });
            USER.scope(name, once).await;
        }
    });
    assert_eq!(*seen.borrow(), [("ada", 2), ("grace", 3), ("grace", 4)]);
}

#[test]
fn a_look_where_nothing_is_set_blames_the_caller_and_names_the_key() {
    quiet();
    let message = panic_message(|| USER.with(|_| ()));
    assert!(
        message.contains("`USER`") && message.contains("not set"),
        "{message}"
    );
    let error = USER.try_with(|_| ()).unwrap_err();
    assert!(message.ends_with(&error.to_string()), "{message}");

    let ex = Executor::new();
    mainstay::install_panic_hook();
    let recorder = Rc::new(Cell::new(0));
    let line = Rc::clone(&recorder);
    ex.set_exception_handler(move |_, report| {
        let location = report.exception().unwrap().location().unwrap();
        assert_eq!(location.file(), file!());
        line.set(location.line());
    });
    let here = line!() + 1;
    ex.spawn(async { USER.with(|_| panic_any(Boom("never"))) })
        .detach();
    ex.run_until_stalled();
    assert_eq!(recorder.get(), here);
}

#[test]
fn a_scope_polled_after_its_end_says_so() {
    quiet();
    let mut done = USER.scope("ada", ready(()));
    assert!(crate::support::poll_once(&mut done).is_ready());
    let message = panic_message(|| crate::support::poll_once(&mut done));
    assert!(message.contains("after it had been ready"), "{message}");
}

#[test]
fn keys_of_one_type_and_name_are_different_keys() {
    mod elsewhere {
        mainstay::task_local! { pub(super) static USER: &'static str; }
    }
    static BY_HAND: &LocalKey<&'static str> = &elsewhere::USER;
    USER.sync_scope("here", || {
        assert!(elsewhere::USER.try_with(|_| ()).is_err());
        BY_HAND.sync_scope("there", || {
            assert_eq!(
                (user(), elsewhere::USER.with(|user| *user)),
                ("here", "there")
            );
        });
    });
}
