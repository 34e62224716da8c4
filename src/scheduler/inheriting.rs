//! Task locals on the scheduler's side: what a task or callback inherits, and under what its end is told.
//!
//! A task that is spawned where nothing is set knows nothing of this. One that is spawned where something is set is wrapped,
//! so that its code runs, and is dropped, with that set as the current one.

use std::panic::Location;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use crate::arena::TaskRef;
use crate::arena::cell::Judge;
use crate::arena::claim::Claim;
use crate::arena::owner::Gate;
use crate::completion::Group;
use crate::locals::{self, Locals, Setting, both};
use crate::timer::TimerId;
use crate::unwind::{Mark, Panic, catch_drop, end_drop};

use super::Scheduler;
use super::timing::Due;

/// A future or a closure that runs, and is dropped, under what was set where it was given to the executor.
pub(super) struct Inheriting<X> {
    inner: Option<X>,
    locals: Option<Locals>,
    scheduler: Weak<Scheduler>,
}

/// Erased, so that a spawn under a task local makes one more type for each output, not for each future.
pub(super) type AnyFuture<'env, T> = Pin<Box<dyn Future<Output = T> + 'env>>;

impl<F: Future + ?Sized> Future for Inheriting<Pin<Box<F>>> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let Some(future) = &mut this.inner else {
            unreachable!("it is there until this is dropped");
        };
        // What comes back is not the last: this has one.
        locals::within(this.locals.clone(), || future.as_mut().poll(cx)).0
    }
}

impl Inheriting<Box<dyn FnOnce() + '_>> {
    fn call(mut self) {
        if let Some(call) = self.inner.take() {
            drop(locals::within(self.locals.clone(), call));
        }
    }
}

impl<X> Drop for Inheriting<X> {
    fn drop(&mut self) {
        let inner = self.inner.take();
        // User code: Drop of the future or of the closure's captures.
        let (dropped, _) = locals::within(self.locals.clone(), || catch_drop(inner));
        // User code: Drop of task-local values.
        let released = self.locals.take().map_or(Ok(()), Locals::release);
        end_drop(both(dropped, released), |panic| {
            if let Some(scheduler) = self.scheduler.upgrade() {
                scheduler.tell_destructor(panic, None);
            }
        });
    }
}

/// A panic on its way through scopes, and what was set where it began.
pub(super) struct Note {
    mark: Mark,
    locals: Locals,
}

impl Scheduler {
    /// Wraps what is to inherit what is set here.
    fn inheriting<X>(&self, inner: X) -> Inheriting<X> {
        Inheriting {
            inner: Some(inner),
            locals: locals::current(),
            scheduler: self.weak(),
        }
    }

    /// [`spawn`](Self::spawn) where something is set.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(super) fn spawn_inheriting<'env, T: 'env, J: Judge<T>>(
        &self,
        gate: Gate<'env>,
        group: Option<Rc<dyn Group>>,
        future: AnyFuture<'env, T>,
        location: &'static Location<'static>,
        prepare: &mut dyn FnMut(&Claim<T>),
    ) -> Claim<T> {
        let future = self.inheriting(future);
        let locals = future.locals.clone();
        // With nothing set, so that the wrapper goes the ordinary way. No closure: a spawn blames its caller.
        let setting = Setting::new(None);
        let claim = self.spawn_prepared::<_, J>(gate, group, future, location, |claim| {
            prepare(claim);
            if let Some(task) = claim.task() {
                self.bequeath(task, locals);
            }
        });
        setting.end();
        claim
    }

    /// [`call`](Self::call) where something is set.
    #[cold]
    #[inline(never)]
    pub(super) fn call_inheriting<'env>(
        &self,
        gate: Gate<'env>,
        due: Due,
        call: Box<dyn FnOnce() + 'env>,
        location: &'static Location<'static>,
    ) -> Option<(TaskRef, Option<TimerId>)> {
        let inheriting = self.inheriting(call);
        let locals = inheriting.locals.clone();
        let made = self.call_plainly(gate, due, move || inheriting.call(), location);
        if let Some((call, _)) = made {
            self.bequeath(call, locals);
        }
        made
    }

    fn bequeath(&self, task: TaskRef, locals: Option<Locals>) {
        if let Some(record) = self.arena.extras(task) {
            record.borrow_mut().inherited = locals;
        }
    }

    /// What those are to see who are told of a task's end.
    pub(super) fn locals_of(&self, task: TaskRef) -> Option<Locals> {
        let record = self.arena.extras_if_any(task)?;
        record.borrow().locals().cloned()
    }

    /// Runs `f`, in which user code may run on behalf of whom `locals` are of, and of nobody who is up the stack.
    pub(super) fn within<R>(&self, locals: Option<Locals>, f: impl FnOnce() -> R) -> R {
        let (result, locals) = locals::within(locals, f);
        self.let_go(locals);
        result
    }

    /// Lets go of task-local values.
    pub(crate) fn let_go(&self, locals: Option<Locals>) {
        if let Some(Err(panic)) = locals.map(Locals::release) {
            self.tell_destructor(panic, None);
        }
    }

    /// Lets go of what a task's end was told under.
    pub(crate) fn let_go_of(&self, task: TaskRef) {
        for locals in self.arena.take_locals(task) {
            self.let_go(locals);
        }
    }

    /// A panic leaves a scope, whose values would be out of reach for whoever is told of it. One that the user catches
    /// leaves a note behind that nobody takes; the next settling drops it.
    pub(crate) fn note_panic(&self, panic: &Panic, locals: Locals) {
        let known = self
            .note
            .borrow()
            .as_ref()
            .is_some_and(|note| panic.is(&note.mark));
        if known {
            // An inner scope has said more.
            return self.let_go(Some(locals));
        }
        let note = Note {
            mark: panic.mark(),
            locals,
        };
        let old = self.note.replace(Some(note));
        self.has_items.set(true);
        self.arena.interrupt();
        self.let_go(old.map(|note| note.locals));
    }

    /// What was set where a panic began, if it came through scopes.
    pub(crate) fn take_note(&self, panic: &Panic) -> Option<Locals> {
        let mut note = self.note.borrow_mut();
        note.take_if(|note| panic.is(&note.mark))
            .map(|note| note.locals)
    }

    pub(super) fn drop_note(&self) {
        let note = self.note.take();
        self.let_go(note.map(|note| note.locals));
    }

    /// A task has failed by a panic that came through scopes: its end is told under what was set there.
    pub(super) fn end_in_note(&self, task: TaskRef, panic: Option<&Panic>) {
        let Some(locals) = panic.and_then(|panic| self.take_note(panic)) else {
            return;
        };
        let old = match self.arena.extras(task) {
            Some(record) => record.borrow_mut().ended_in.replace(locals),
            None => Some(locals),
        };
        self.let_go(old);
    }
}

impl Note {
    pub(super) fn release(self) -> Result<(), Box<Panic>> {
        self.locals.release()
    }
}
