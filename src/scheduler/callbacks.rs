//! Done callbacks: queued together when a task has ended, or one by one when it has finished long ago.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::arena::TaskRef;
use crate::arena::ended::Pinned;
use crate::completion::{CallbackId, Completion, DoneCallback, End, Extras, Outcome};
use crate::exception::Exception;
use crate::exception_context::ContextKind;
use crate::locals::{self, Locals};
use crate::task::{TaskId, TaskInfo};
use crate::unwind::{Panic, catch, catch_drop};

use super::Scheduler;
use super::ending::Item;
use super::watching::in_words;

/// Done callbacks of one task, queued together.
pub(super) struct Calls {
    pub(super) task: Option<TaskRef>,
    pub(super) info: TaskInfo,
    pub(super) end: End,
    /// Keeps the outcome where it is. `None`: there is nothing to protect, or somebody else protects it for now.
    pub(super) pinned: Option<Pinned>,
    pub(super) also: Option<Box<Panic>>,
    /// The hooks are to be told first.
    pub(super) hooks: bool,
    /// What they are to see.
    pub(super) locals: Option<Locals>,
    pub(super) queue: VecDeque<(CallbackId, DoneCallback)>,
}

impl Calls {
    /// Drops what nobody will call, each under its own guard.
    pub(super) fn drop_each(self) -> impl Iterator<Item = Result<(), Box<Panic>>> {
        let locals = self.locals.map(Locals::release);
        self.queue.into_iter().map(catch_drop).chain(locals)
    }
}

impl Scheduler {
    /// Calls callbacks, at most `left`; gives what is left to call. The last one concludes the task.
    pub(super) fn run_calls(&self, mut calls: Calls, left: &mut usize) -> Option<Calls> {
        if std::mem::take(&mut calls.hooks) {
            self.with_completion(&calls, |completion| self.tell_done(completion));
        }
        while let Some((id, call)) = calls.queue.pop_front() {
            if *left == 0 {
                calls.queue.push_front((id, call));
                return Some(calls);
            }
            *left -= 1;
            self.run_callback(call, &calls);
        }
        if let Some(pinned) = calls.pinned {
            self.conclude(pinned, calls.also, &calls.info);
        }
        None
    }

    fn run_callback(&self, call: DoneCallback, calls: &Calls) {
        let began = self.begin();
        // User code: a done callback, and the destructors of what it captured.
        let called = self.with_completion(calls, |completion| catch(|| call(completion)));
        self.end(began, || {
            format!("a done callback of {}", in_words(&calls.info))
        });
        if let Err(panic) = called {
            self.tell(
                ContextKind::Callback,
                "Panic in a done callback",
                Some(panic),
                Some(calls.info.clone()),
            );
        }
    }

    /// Shows how a task ended.
    fn with_completion<R>(&self, calls: &Calls, show: impl FnOnce(&Completion<'_>) -> R) -> R {
        let pinned = calls.pinned.as_ref();
        let outcome = match calls.end {
            End::Returned => Outcome::Returned,
            End::Cancelled => Outcome::Cancelled,
            // Where the exception was taken already (a late callback), there is nothing left to show but that.
            End::Failed => Outcome::Failed(pinned.and_then(Pinned::exception).unwrap_or(
                Exception::payload(&"the exception was taken by the task's handle"),
            )),
        };
        let on_read = || {
            if let Some(pinned) = pinned {
                self.read(pinned);
            }
        };
        show(&Completion::new(&calls.info, outcome, &on_read))
    }

    /// Adds a callback to a task that has finished: it runs in the next pass. Until then the outcome stays where it is.
    pub(crate) fn add_late(
        &self,
        task: Option<TaskRef>,
        info: TaskInfo,
        end: End,
        call: DoneCallback,
    ) -> CallbackId {
        let id = self.new_callback_id();
        if self.is_gone() {
            // Nothing will ever run it, and nothing may stay pinned for it.
            // User code: Drop of the callback's captures.
            if let Err(panic) = catch_drop(call) {
                self.tell_destructor(panic, Some(&info));
            }
            return id;
        }
        let known = task.is_some_and(|task| self.arena.note_late(task, true));
        let pinned = task.and_then(|task| self.arena.pin_unread(task));
        let locals = task
            .and_then(|task| self.locals_of(task))
            .or_else(locals::current);
        let mut late = self.late.borrow_mut();
        // The note spares tasks with one late callback, the ordinary case, the search.
        let calls = if known {
            late.iter_mut().find(|late| late.task == task)
        } else {
            None
        };
        match calls {
            Some(calls) => calls.queue.push_back((id, call)),
            None => late.push(Calls {
                task,
                info,
                end,
                pinned,
                also: None,
                hooks: false,
                locals,
                queue: VecDeque::from([(id, call)]),
            }),
        }
        drop(late);
        self.arena.ask_attention();
        self.prod();
        id
    }

    /// Removes a callback that waits for the next pass. (Another executor's task may have one with the same id.)
    pub(crate) fn remove_late(&self, task: TaskId, id: CallbackId) -> Option<DoneCallback> {
        let mut late = self.late.borrow_mut();
        for calls in late.iter_mut().filter(|calls| calls.info.id() == task) {
            if let Some(at) = calls.queue.iter().position(|(other, _)| *other == id) {
                return calls.queue.remove(at).map(|(_, call)| call);
            }
        }
        None
    }

    /// Calls what was added to finished tasks.
    #[cold]
    pub(super) fn run_late(&self, left: &mut usize) {
        let late = std::mem::take(&mut *self.late.borrow_mut());
        for calls in late {
            if let Some(task) = calls.task {
                self.arena.note_late(task, false);
            }
            self.push(Item::Calls(calls));
        }
        self.settle_within(left);
    }
}

pub(super) fn take_callbacks(
    record: Option<&RefCell<Extras>>,
) -> VecDeque<(CallbackId, DoneCallback)> {
    match record {
        Some(record) => std::mem::take(&mut record.borrow_mut().callbacks).into(),
        None => VecDeque::new(),
    }
}
