//! Whatever user code does: any number of calls of the public API, on whatever there is.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use mainstay::{
    Executor, JoinSet, LocalHandle, RestartPolicy, Supervisor, TaskGroup, current_task, yield_now,
};

use crate::bodies::{Body, root};
use crate::canary::{Canary, Wild};
use crate::choices::{self, below, maybe_panic, once_in};
use crate::combined;
use crate::contained::{lenient, strict};
use crate::executors::{drive, handler, make};
use crate::spawning::{ONE, Place, spawn_and_keep};
use crate::wakers::with_foreign;
use crate::world::{self, Loose, let_go, pick, take, with};

/// How deep user code may be in user code.
const DEEPEST: u32 = 5;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Does anything, or nothing.
pub(crate) fn act() {
    if DEPTH.get() >= DEEPEST {
        return;
    }
    DEPTH.set(DEPTH.get() + 1);
    // What panics does so within; `act` itself returns.
    while choices::left() > 0 && !once_in(3) {
        one();
    }
    DEPTH.set(DEPTH.get() - 1);
}

/// Does one thing.
pub(crate) fn one() {
    match below(40) {
        0..=3 => on_executor(|executor| spawn_and_keep(&Place::Executor(Rc::clone(executor)))),
        4 => on_local(|local| spawn_and_keep(&Place::Local(local.clone()))),
        5 => {
            if let Some(local) = LocalHandle::try_current() {
                spawn_and_keep(&Place::Local(local));
            }
        }
        6..=14 => with_handle(),
        15 | 16 => drive(),
        17 if with(|world| world.executors.len()) < 4 => make(),
        18 => {
            if let Some(executor) = take(|world| &mut world.executors) {
                let_go(executor);
            }
        }
        19 => on_executor(|executor| strict("shrink", || executor.shrink())),
        20 => on_executor(|executor| strict("stop", || executor.stop())),
        21 => on_executor(|executor| {
            if !executor.is_running() {
                let grace = Duration::from_millis(below(2) as u64);
                strict("shutdown", || executor.shutdown(grace));
            }
        }),
        22 => on_local(call),
        23 => {
            if let Some(call) = take(|world| &mut world.calls) {
                strict("CallHandle::cancel", || call.cancel());
            }
        }
        24 => {
            if let Some(cancel) = pick(|world| &mut world.cancels) {
                strict("CancelHandle::cancel", || cancel.cancel());
            }
        }
        25 => {
            if let Some(guard) = take(|world| &mut world.guards) {
                strict("the drop of a guard", || drop(guard));
            }
        }
        26 | 27 => {
            if let Some(waker) = pick(|world| &mut world.wakers) {
                strict("wake", || waker.wake());
            }
        }
        28 => supervise(),
        29 => group(),
        30 => scope(),
        31 | 32 => with_loose(),
        33 => on_executor(|executor| {
            let executor = Rc::clone(executor);
            let future = async move { executor.run_until(root()).await };
            put_loose(Loose(Box::pin(future)));
        }),
        34 => set(),
        35 => on_executor(from_another_thread),
        36 => with_remote(),
        37 => on_executor(|executor| put_loose(combined::any(executor))),
        38 => on_local(look),
        _ => locals(),
    }
}

fn on_executor(f: impl FnOnce(&Rc<Executor<'static>>)) {
    if let Some(executor) = pick(|world| &mut world.executors) {
        f(&executor);
        let_go(executor);
    }
}

fn on_local(f: impl FnOnce(&LocalHandle<'static>)) {
    if let Some(local) = pick(|world| &mut world.locals) {
        f(&local);
    }
}

fn put_loose(future: Loose) {
    with(|world| world.loose.push(future));
}

fn with_handle() {
    let Some(mut handle) = take(|world| &mut world.handles) else {
        return;
    };
    match below(9) {
        0 | 1 => return strict("the drop of a handle", || drop(handle)),
        2 | 3 => handle.cancel(),
        4 => handle.call_back(),
        5 => handle.result(),
        6 => handle.look(),
        7 => {
            if with_foreign(|cx| handle.poll(cx)) {
                return strict("the drop of a handle", || drop(handle));
            }
        }
        _ if once_in(2) => {
            let guard = handle.cancel_on_drop();
            return with(|world| world.guards.push(guard));
        }
        _ => {
            let cancel = handle.cancel_handle();
            with(|world| world.cancels.push(cancel));
        }
    }
    with(|world| world.handles.push(handle));
}

fn call(local: &LocalHandle<'static>) {
    let wild = Wild::new();
    let delay = Duration::from_millis(below(3) as u64);
    let call = strict("call_soon or call_later", || {
        if delay.is_zero() {
            local.call_soon(move || wild.run())
        } else {
            local.call_later(delay, move || wild.run())
        }
    });
    with(|world| world.calls.push(call));
}

fn supervise() {
    let Some(supervisor) = take(|world| &mut world.supervisors) else {
        return on_local(|local| {
            let supervisor = strict("Supervisor::new_in", || Supervisor::new_in(local));
            if once_in(2) {
                supervisor.limit(1);
            }
            if once_in(3) {
                supervisor.set_exception_handler(handler());
            }
            with(|world| world.supervisors.push(supervisor));
        });
    };
    match below(6) {
        0 | 1 => spawn_and_keep(&Place::Supervisor(supervisor.clone())),
        2 => strict("abort", || supervisor.abort()),
        3 => {
            let shutdown = supervisor.shutdown(Duration::from_millis(1));
            put_loose(Loose(Box::pin(async {
                let _ = shutdown.await;
            })));
        }
        4 => {
            let wild = Wild::new();
            let again = move || {
                wild.run();
                Body::new(|| (), ())
            };
            let policy = RestartPolicy::always().limit(3, Duration::from_secs(1));
            strict("spawn_restarting", || {
                supervisor.spawn_restarting(again, policy).detach();
            });
        }
        _ => return strict("the drop of a supervisor", || drop(supervisor)),
    }
    with(|world| world.supervisors.push(supervisor));
}

/// A scope, into which whoever finds its group spawns too.
fn scope() {
    let future = async {
        let body = async |group: &TaskGroup| {
            let other = group.clone();
            with(|world| world.groups.push(other));
            for _ in 0..below(3) {
                act();
                spawn_and_keep(&Place::Group(group.clone()));
                yield_now().await;
                maybe_panic();
            }
        };
        if let Err(failures) = TaskGroup::scope(body).await {
            lenient(|| format!("{failures} {failures:?}"));
            lenient(|| drop(failures));
        }
    };
    put_loose(Loose(Box::pin(future)));
}

fn group() {
    if let Some(group) = take(|world| &mut world.groups) {
        match below(4) {
            0 => drop(strict("TaskGroup::cancel", || group.cancel())),
            1 => return strict("the drop of a group", || drop(group)),
            _ => spawn_and_keep(&Place::Group(group.clone())),
        }
        with(|world| world.groups.push(group));
    }
}

fn with_loose() {
    let Some(mut future) = take(|world| &mut world.loose) else {
        return;
    };
    let ended = match below(4) {
        0 => true,
        1 => with_foreign(|cx| future.poll(cx)),
        _ => match pick(|world| &mut world.executors) {
            // In a root, as groups and combinators want a running executor.
            Some(executor) if !executor.is_running() => {
                let ended =
                    lenient(|| executor.block_on(poll_fn(|cx| Poll::Ready(future.poll(cx)))));
                let_go(executor);
                ended.unwrap_or(false)
            }
            _ => false,
        },
    };
    if ended {
        lenient(|| drop(future));
    } else {
        put_loose(future);
    }
}

fn set() {
    let Some(mut set) = take(|world| &mut world.sets) else {
        return on_local(|local| {
            let mut set = strict("JoinSet::new_in", || JoinSet::new_in(local));
            for _ in 0..below(3) {
                strict("JoinSet::spawn", || set.spawn(Body::new(Wild::new, ())));
            }
            with(|world| world.sets.push(set));
        });
    };
    match below(4) {
        0 => {
            with_foreign(|cx| lenient(|| set.poll_join_next(cx).is_ready()));
        }
        1 => strict("cancel_all", || set.cancel_all()),
        2 => {
            let next = strict("try_join_next", || set.try_join_next());
            lenient(|| drop(next));
        }
        _ => return strict("the drop of a set", || drop(set)),
    }
    with(|world| world.sets.push(set));
}

/// To its end, so that every run of a program is the same.
fn from_another_thread(executor: &Rc<Executor<'static>>) {
    let spawner = executor.spawner();
    let make = || {
        act();
        maybe_panic();
        Body::new(Canary::new, [0_u8; 50])
    };
    let elsewhere = std::thread::spawn(move || spawner.spawn(make).ok());
    let spawned = elsewhere.join().expect("nothing panics there");
    with(|world| world.remotes.extend(spawned));
}

fn with_remote() {
    let Some(mut remote) = take(|world| &mut world.remotes) else {
        return;
    };
    match below(3) {
        0 => drop(strict("RemoteHandle::cancel", || remote.cancel())),
        1 => return strict("the drop of a remote handle", || drop(remote)),
        _ => {
            let ended =
                with_foreign(|cx| lenient(|| Future::poll(Pin::new(&mut remote), cx).is_ready()));
            if ended != Some(false) {
                return strict("the drop of a remote handle", || drop(remote));
            }
        }
    }
    with(|world| world.remotes.push(remote));
}

fn look(local: &LocalHandle<'static>) {
    strict("looking in", || {
        format!(
            "{:?} {:?} {:?}",
            local.tasks(),
            local.stats(),
            current_task()
        )
    });
    with(|world| {
        for executor in &world.executors {
            world::check_books(executor);
        }
    });
    if once_in(3) {
        strict("clear_exception_handler", || {
            local.clear_exception_handler()
        });
    } else {
        strict("set_exception_handler", || {
            local.set_exception_handler(handler())
        });
    }
}

/// The destructor of the value may panic: it is the caller's.
fn locals() {
    lenient(|| {
        ONE.sync_scope(Wild::new(), || {
            act();
            maybe_panic();
        });
    });
}
