//! Watching: debug mode, and the way of a poll when somebody looks on.
//!
//! Nothing of this is on the paths of an executor that nobody watches: the loop asks once whether it is, a spawn asks
//! together with what it has to ask anyway, and what a watched task has at its end (`WATCHED`, or the side record with its
//! [`Notes`]) takes it to the way of those that have something to tell.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::panic::Location;
use std::time::{Duration, Instant};

use crate::arena::TaskRef;
use crate::arena::driven::{Driven, Ready};
use crate::arena::front::{Front, with_current};
use crate::completion::Notes;
use crate::exception_context::ExceptionContext;
use crate::report::{Installed, write_warning};
use crate::task::TaskInfo;

use super::Scheduler;

/// asyncio's `slow_callback_duration`.
pub(crate) const SLOW: Duration = Duration::from_millis(100);

/// Debug mode.
pub(super) struct Debugging {
    /// What takes this long is logged.
    threshold: Duration,
    /// When the poll of the root began that is being made.
    root_began: Cell<Option<Instant>>,
    /// Where tasks were spawned whose `Result` nobody looked at, and that was said.
    hinted: RefCell<HashSet<Location<'static>>>,
}

impl Debugging {
    /// Debug mode if it is asked for, by `wanted` or else by the environment.
    pub(super) fn new(wanted: Option<bool>, threshold: Option<Duration>) -> Option<Self> {
        wanted.unwrap_or_else(is_in_environment).then(|| Debugging {
            threshold: threshold.unwrap_or(SLOW),
            root_began: Cell::new(None),
            hinted: RefCell::default(),
        })
    }
}

fn is_in_environment() -> bool {
    std::env::var_os("MAINSTAY_DEBUG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether a type with this name is a `Result`, under whatever alias. The name is not guaranteed to stay what it is; a hint
/// that is not given is all that depends on it.
fn is_result(type_name: &str) -> bool {
    type_name.starts_with("core::result::Result<")
}

impl Scheduler {
    // --- tasks ------------------------------------------------------------------------------------------------------

    /// Whether somebody looks on at every spawn.
    pub(super) fn watches_spawns(&self) -> bool {
        self.debugging.is_some() || self.hooks.watch_tasks()
    }

    /// Looks at a task that was just spawned. `unseen` names the type of an output into which nobody will look.
    #[cold]
    pub(super) fn spawned_watched(&self, task: TaskRef, unseen: &str) {
        if self.debugging.is_some() {
            let parent = with_current(Front::running_task);
            if let Some(record) = self.arena.extras(task) {
                record.borrow_mut().notes = Some(Box::new(Notes {
                    parent: parent.map(|parent| parent.id),
                    overlooked: is_result(unseen),
                    ..Notes::default()
                }));
            }
        }
        // Whoever looks on after a poll looks at the task, also if that has ended by it.
        if self.watches_polls || !self.hooks.done.is_empty() {
            self.arena.watch(task);
        }
        if !self.hooks.spawn.is_empty() {
            if let Some(info) = self.arena.info(task) {
                self.tell_spawned(&info);
            }
        }
    }

    /// Polls one task, with all that look on.
    #[cold]
    #[inline(never)]
    pub(super) fn watched_step<'a>(&self, driven: Driven<'a>, ready: Ready<'a>) {
        let task = ready.task();
        let is_call = self.arena.is_call(ready.key());
        let has_after = !is_call && !self.hooks.after.is_empty();
        if !is_call && !self.hooks.before.is_empty() {
            ready.keep_while(|| {
                if let Some(info) = self.arena.info(task) {
                    self.tell_before(&info);
                }
            });
        }
        self.note(task, |notes| {
            notes.polls += 1;
            notes.awaiting = None;
        });
        let began = self.begin();
        let polled = self.poll(driven, ready);
        // Before anybody looks.
        let doomed = driven.rest();
        let slow = self.took_long(began);
        // Now, as its slot may soon be another's.
        let info = if has_after || slow.is_some() {
            self.arena.info(task)
        } else {
            None
        };
        // It is counted before anybody looks, and told of after.
        self.polled(driven, polled);
        if let (Some(info), true) = (&info, has_after) {
            self.tell_after(info);
        }
        if let Some(task) = doomed {
            self.bury(driven, task);
        }
        if let (Some(info), Some(took)) = (&info, slow) {
            if is_call {
                log_slow(&format!("a callback made at {}", info.location()), took);
            } else {
                log_slow(&in_words(info), took);
            }
        }
    }

    fn note(&self, task: TaskRef, note: impl FnOnce(&mut Notes)) {
        if self.debugging.is_none() {
            return;
        }
        if let Some(record) = self.arena.extras_if_any(task) {
            if let Some(notes) = &mut record.borrow_mut().notes {
                note(notes);
            }
        }
    }

    /// The running task asked another for its outcome, and has to wait.
    pub(crate) fn note_awaiting(&self, awaited: TaskRef) {
        if let Some(running) = self.arena.running() {
            self.note(running, |notes| {
                notes.awaiting = Some((awaited.id, awaited.index));
            });
        }
    }

    /// A handle is dropped whose outcome nobody has taken: if that is a `Result` into which nobody looks, says so, once for
    /// each place that spawns such tasks.
    pub(crate) fn hint_overlooked(&self, task: TaskRef) {
        let Some(debugging) = &self.debugging else {
            return;
        };
        let mut overlooked = false;
        self.note(task, |notes| overlooked = notes.overlooked);
        if !overlooked || self.arena.is_cancel_asked(task) {
            return;
        }
        let Some(info) = self.arena.info(task) else {
            return;
        };
        if debugging.hinted.borrow_mut().insert(*info.location()) {
            write_warning(&format!(
                "Nobody looks at the Result of {}: its handle was dropped, and an `Err` would be lost; \
                 spawn it with `spawn_fallible`, or await it",
                in_words(&info)
            ));
        }
    }

    // --- time -------------------------------------------------------------------------------------------------------

    /// Starts to measure user code, by the real clock: `None` when nobody wants to know.
    #[inline]
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.debugging.is_some().then(Instant::now)
    }

    /// Logs `what` if it took long.
    #[inline]
    pub(crate) fn end(&self, began: Option<Instant>, what: impl FnOnce() -> String) {
        if began.is_some() {
            self.end_watched(began, what);
        }
    }

    #[cold]
    fn end_watched(&self, began: Option<Instant>, what: impl FnOnce() -> String) {
        if let Some(took) = self.took_long(began) {
            log_slow(&what(), took);
        }
    }

    fn took_long(&self, began: Option<Instant>) -> Option<Duration> {
        let threshold = self.debugging.as_ref()?.threshold;
        Some(began?.elapsed()).filter(|took| *took >= threshold)
    }

    #[inline]
    pub(crate) fn is_debugging(&self) -> bool {
        self.debugging.is_some()
    }

    /// The root is about to be polled.
    #[cold]
    pub(crate) fn root_begins(&self) {
        if let Some(debugging) = &self.debugging {
            debugging.root_began.set(Some(Instant::now()));
        }
    }

    /// The root was polled, by `what`.
    #[cold]
    pub(crate) fn root_ends(&self, what: &str) {
        if let Some(debugging) = &self.debugging {
            self.end(debugging.root_began.take(), || {
                format!("the root of `{what}`")
            });
        }
    }

    /// Gives a report to a group's handler or else to the executor's.
    pub(super) fn dispatch(&self, own: Option<&Installed>, context: &ExceptionContext<'_>) {
        let began = self.begin();
        match own {
            Some(own) => self.reporter.dispatch_to(own, context),
            None => self.reporter.dispatch(context),
        }
        self.end(began, || {
            let of = context
                .task()
                .map_or_else(String::new, |task| format!(" of {}", in_words(task)));
            format!("the exception handler, told {:?}{of},", context.message())
        });
    }
}

/// asyncio's `Executing <repr> took %.3f seconds`.
fn log_slow(what: &str, took: Duration) {
    write_warning(&format!(
        "Executing {what} took {:.3} s",
        took.as_secs_f64()
    ));
}

pub(super) fn in_words(task: &TaskInfo) -> String {
    format!(
        "task {} (id {}, spawned at {})",
        task.name(),
        task.id(),
        task.location()
    )
}
