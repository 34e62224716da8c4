//! Making executors, with every part that calls user code, and driving them.

use std::time::Duration;

use mainstay::{ExceptionContext, Executor, LocalHandle, ReportPolicy};

use crate::acts::act;
use crate::bodies::root;
use crate::canary::Wild;
use crate::choices::{below, maybe_panic, once_in};
use crate::contained::{lenient, strict};
use crate::spawning::{Place, spawn_and_keep};
use crate::world;

/// Time is virtual: nothing waits, and every run of a program is the same.
pub(crate) fn make() {
    let mut builder = Executor::builder().virtual_clock();
    if once_in(3) {
        builder = builder.report(ReportPolicy::IfUnretrieved);
    }
    if once_in(3) {
        // What is slow is a matter of real time, so nothing is.
        builder = builder
            .debug(true)
            .slow_poll_threshold(Duration::from_secs(1_000));
    }
    if once_in(4) {
        builder = builder.shuffle(below(256) as u64);
    }
    if once_in(4) {
        let wild = Wild::new();
        builder = builder.on_task_spawn(move |_| wild.run());
    }
    if once_in(4) {
        let wild = Wild::new();
        builder = builder.on_task_done(move |_| wild.run());
    }
    if once_in(4) {
        let wild = Wild::new();
        builder = builder.before_poll(move |_| wild.run());
    }
    if once_in(4) {
        let wild = Wild::new();
        builder = builder.after_poll(move |_| wild.run());
    }
    let executor = builder.build();
    if once_in(2) {
        executor.set_exception_handler(handler());
    }
    if once_in(3) {
        executor.on_wake(|| {
            act();
            maybe_panic();
        });
    }
    world::put_executor(executor);
}

/// An exception handler that looks at what it is given, and spawns.
pub(crate) fn handler() -> impl Fn(&LocalHandle<'static>, &ExceptionContext<'_>) + 'static {
    let wild = Wild::new();
    move |local, context| {
        wild.run();
        if once_in(2) {
            lenient(|| format!("{context} {context:?}"));
        }
        if once_in(3) {
            spawn_and_keep(&Place::Local(local.clone()));
        }
        wild.run();
    }
}

/// Drives one of them, unless it is being driven: that would panic, as documented.
pub(crate) fn drive() {
    let Some(executor) = world::pick(|world| &mut world.executors) else {
        return;
    };
    if !executor.is_running() {
        let budget = below(5);
        match below(6) {
            0 | 1 => {
                for _ in 0..20 {
                    strict("tick", || executor.tick(budget));
                }
            }
            2 => drop(strict("tick", || executor.tick(1))),
            // A root's panic is the caller's.
            3 => drop(lenient(|| executor.block_on(root()))),
            4 => {
                strict("advance", || executor.advance(Duration::from_millis(2)));
                strict("tick", || executor.tick(3));
            }
            _ => drop(strict("tick", || executor.tick(64))),
        }
    }
    world::let_go(executor);
}
