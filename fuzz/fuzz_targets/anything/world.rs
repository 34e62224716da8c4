//! What a program has: every act takes from it at random and puts into it.

use std::any::Any;
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use mainstay::{
    CallHandle, CancelHandle, Executor, JoinSet, LocalHandle, RemoteHandle, Supervisor, TaskGroup,
};

use crate::canary::{Canary, Wild};
use crate::choices::below;
use crate::contained::{lenient, strict};
use crate::handles::BoxHandle;

/// A future of combinators, groups or roots, polled wherever an act happens to poll it.
pub(crate) struct Loose(pub(crate) Pin<Box<dyn Future<Output = ()>>>);

impl Loose {
    /// Whether it is of no more use. What panics out of it is its own, or the waker's.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        lenient(|| self.0.as_mut().poll(cx).is_ready()).unwrap_or(true)
    }
}

/// An output that may go to other threads: a `Canary` may.
pub(crate) type Sent = Canary;

#[derive(Default)]
pub(crate) struct World {
    pub(crate) executors: Vec<Rc<Executor<'static>>>,
    pub(crate) locals: Vec<LocalHandle<'static>>,
    pub(crate) handles: Vec<BoxHandle>,
    pub(crate) wakers: Vec<Waker>,
    pub(crate) cancels: Vec<CancelHandle>,
    pub(crate) calls: Vec<CallHandle>,
    pub(crate) guards: Vec<Box<dyn Any>>,
    pub(crate) loose: Vec<Loose>,
    pub(crate) supervisors: Vec<Supervisor>,
    pub(crate) groups: Vec<TaskGroup>,
    pub(crate) sets: Vec<JoinSet<Wild>>,
    pub(crate) remotes: Vec<RemoteHandle<Sent>>,
    /// Every executor that was made.
    made: Vec<Weak<Executor<'static>>>,
}

thread_local! {
    // Without a destructor, as `choices` is; `empty` leaves nothing in it.
    static WORLD: ManuallyDrop<RefCell<World>> = ManuallyDrop::new(RefCell::default());
}

/// No user code runs in `look`.
pub(crate) fn with<R>(look: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with(|world| look(&mut world.borrow_mut()))
}

/// Takes one of the things that `of` names.
pub(crate) fn take<T>(of: impl FnOnce(&mut World) -> &mut Vec<T>) -> Option<T> {
    with(|world| {
        let all = of(world);
        (!all.is_empty()).then(|| all.swap_remove(below(all.len())))
    })
}

/// A copy of one of them.
pub(crate) fn pick<T: Clone>(of: impl FnOnce(&mut World) -> &mut Vec<T>) -> Option<T> {
    with(|world| {
        let all = of(world);
        (!all.is_empty()).then(|| all[below(all.len())].clone())
    })
}

pub(crate) fn put_executor(executor: Executor<'static>) {
    let executor = Rc::new(executor);
    let local = LocalHandle::clone(&executor.handle());
    with(|world| {
        world.made.push(Rc::downgrade(&executor));
        world.executors.push(executor);
        world.locals.push(local);
    });
}

/// Lets go of it; whoever is last ends it.
pub(crate) fn let_go(executor: Rc<Executor<'static>>) {
    check_books(&executor);
    strict("the drop of an executor", || drop(executor));
}

/// P2: every task is in one column, and every failure was told, read, or is neither yet.
pub(crate) fn check_books(executor: &Executor<'static>) {
    strict("the books", || {
        let stats = executor.stats();
        let ended = stats.returned + stats.failed + stats.cancelled;
        assert_eq!(stats.spawned, stats.live + ended, "{stats:?}");
        let failures = stats.reported + stats.retrieved + stats.unread;
        assert_eq!(stats.failed, failures, "{stats:?}");
    });
}

/// Drops all that there is, in the order that the bytes choose, and what is put there meanwhile.
pub(crate) fn empty() {
    loop {
        let first = below(8);
        if !(0..8).any(|next| drop_one((first + next) % 8)) {
            break;
        }
    }
    let (wakers, cancels, calls, locals) = with(|world| {
        (
            std::mem::take(&mut world.wakers),
            std::mem::take(&mut world.cancels),
            std::mem::take(&mut world.calls),
            std::mem::take(&mut world.locals),
        )
    });
    strict("what is stale", || {
        for waker in &wakers {
            waker.wake_by_ref();
        }
        for cancel in &cancels {
            let _ = cancel.cancel();
        }
        for call in &calls {
            call.cancel();
        }
        drop(locals);
    });
}

fn drop_one(kind: usize) -> bool {
    match kind {
        0 => take(|world| &mut world.executors).map(let_go),
        1 => dropped("a handle", take(|world| &mut world.handles)),
        2 => dropped("a guard", take(|world| &mut world.guards)),
        3 => dropped("a supervisor", take(|world| &mut world.supervisors)),
        4 => dropped("a group", take(|world| &mut world.groups)),
        5 => dropped("a set", take(|world| &mut world.sets)),
        6 => dropped("a remote handle", take(|world| &mut world.remotes)),
        // The body of a scope, say, is its own.
        _ => take(|world| &mut world.loose).map(|future| {
            lenient(|| drop(future));
        }),
    }
    .is_some()
}

fn dropped<T>(what: &str, one: Option<T>) -> Option<()> {
    one.map(|one| strict(what, || drop(one)))
}

/// Ends what keeps itself: a `run_until` holds its executor, and may have got into a task of that very executor.
pub(crate) fn end_circles() {
    for executor in with(|world| std::mem::take(&mut world.made)) {
        if let Some(executor) = executor.upgrade() {
            strict("shutdown", || executor.shutdown(Duration::ZERO));
            let_go(executor);
        }
    }
    with(|world| *world = World::default());
}
