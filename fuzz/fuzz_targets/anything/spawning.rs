//! Everywhere that tasks are spawned, and everything that is.

use std::future::{pending, ready};
use std::rc::Rc;

use mainstay::{Executor, JoinHandle, LocalHandle, Supervisor, TaskGroup, task_local};

use crate::bodies::{Body, Line, guarded};
use crate::canary::Wild;
use crate::choices::{below, once_in};
use crate::contained::strict;
use crate::handles::BoxHandle;
use crate::world;

task_local! {
    pub(crate) static ONE: Wild;
    pub(crate) static OTHER: Wild;
}

pub(crate) enum Place {
    Executor(Rc<Executor<'static>>),
    Local(LocalHandle<'static>),
    Supervisor(Supervisor),
    Group(TaskGroup),
}

impl Place {
    fn plain<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let built = once_in(4);
        let background = once_in(8);
        strict("spawn", || match self {
            Place::Executor(executor) if built => {
                let task = executor.task().name("named");
                if background {
                    task.background().spawn(future)
                } else {
                    task.spawn(future)
                }
            }
            Place::Executor(executor) => executor.spawn(future),
            Place::Local(local) => local.spawn(future),
            Place::Supervisor(supervisor) => supervisor.spawn(future),
            Place::Group(group) => group.spawn(future),
        })
    }

    fn fallible<F, T: 'static>(&self, future: F) -> JoinHandle<Result<T, Wild>>
    where
        F: Future<Output = Result<T, Wild>> + 'static,
    {
        strict("spawn_fallible", || match self {
            Place::Executor(executor) => executor.spawn_fallible(future),
            Place::Local(local) => local.spawn_fallible(future),
            Place::Supervisor(supervisor) => supervisor.spawn_fallible(future),
            Place::Group(group) => group.spawn_fallible(future),
        })
    }

    /// Spawns one of many kinds. The size and the alignment choose the memory that it lives in.
    pub(crate) fn spawn(&self) -> BoxHandle {
        match below(13) {
            0 => Box::new(self.plain(ready(()))),
            1 => Box::new(self.plain(Body::new(Wild::new, ()))),
            2 => Box::new(self.plain(Body::new(|| (), [0_u8; 100]))),
            3 => Box::new(self.plain(Body::new(Wild::new, [0_u8; 20_000]))),
            4 => Box::new(self.plain(Body::new(Wild::new, Line))),
            5 => Box::new(self.fallible(Body::new(either, [0_u8; 8]))),
            6 => Box::new(self.fallible(Body::new(either, Line))),
            7 => Box::new(self.plain(Body::new(|| ([7_u64; 40], Wild::new()), ()))),
            8 => Box::new(self.plain(Body::new(|| 7_u8, ()))),
            9 => Box::new(self.plain(ONE.scope(Wild::new(), Body::new(Wild::new, ())))),
            10 => Box::new(self.fallible(OTHER.scope(Wild::new(), Body::new(either, ())))),
            11 => Box::new(self.plain(guarded())),
            _ => Box::new(self.plain(pending::<Wild>())),
        }
    }
}

pub(crate) fn either() -> Result<Wild, Wild> {
    if once_in(2) {
        Err(Wild::new())
    } else {
        Ok(Wild::new())
    }
}

/// Spawns one there, whose handle is dropped or kept.
pub(crate) fn spawn_and_keep(place: &Place) {
    let handle = place.spawn();
    if once_in(4) {
        strict("the drop of a handle", || drop(handle));
    } else {
        world::with(|world| world.handles.push(handle));
    }
}
