//! The end of an executor: every task ends, everything is told.

use crate::arena::driven::Driven;
use crate::exception_context::{ContextKind, ExceptionContext};
use crate::report::{has_process_handler, write_record};

use super::{Phase, Scheduler};

impl Scheduler {
    /// Ends every task and tells everything that is still to be told. Nothing can be spawned any more.
    pub(crate) fn close(&self, driven: Driven<'_>) {
        /// How many pending tasks the default handler names.
        const NAMED: usize = 10;
        // What was spawned elsewhere and never begun becomes a task that ends like the others.
        self.end_messages();
        self.take_cancels();
        self.set_phase(Phase::Closed);
        self.dismiss_hosts();
        self.tell_hook_panics();
        let quiet_after = if self.reporter.handler().is_some() || has_process_handler() {
            usize::MAX
        } else {
            NAMED
        };
        let mut destroyed = 0;
        loop {
            let live = self.arena.destroyable();
            if live.is_empty() {
                break;
            }
            for task in live {
                let Some(info) = self.arena.info(task) else {
                    continue;
                };
                if !self.arena.is_cancel_asked(task) && !self.arena.is_background(task) {
                    destroyed += 1;
                    if destroyed <= quiet_after {
                        let context = ExceptionContext::of(
                            ContextKind::DestroyedPending,
                            "Task was destroyed but it is pending",
                        )
                        .with_task(Some(info))
                        .with_handle_held(self.is_held(task));
                        self.within(self.locals_of(task), || self.report(&context));
                    } else {
                        self.reporter.count_one();
                    }
                }
                let _ = self.arena.ask_cancel(task);
                self.bury(driven, task);
                self.settle_all();
            }
        }
        for call in self.arena.calls() {
            let _ = self.arena.ask_cancel(call);
            self.bury(driven, call);
        }
        if destroyed > quiet_after {
            write_record(&format!(
                "{} more tasks were destroyed but they were pending",
                destroyed - quiet_after
            ));
        }
        self.drop_stop();
        // A handler or callback that is told here may fail tasks, add callbacks and keep handles in its turn.
        for _ in 0..MAX_ROUNDS {
            self.settle_all();
            self.run_all_late();
            let unread = self.arena.unread();
            for task in &unread {
                self.tell_unread(*task);
            }
            self.tell_all_owed();
            let quiet = unread.is_empty() && !self.has_items() && self.late.borrow().is_empty();
            if quiet && !self.drop_hooks() {
                break;
            }
        }
        self.wake_idlers();
    }
    /// Settles until there is no more, within reason: a callback that makes its like for ever ends with the executor.
    pub(crate) fn settle_all(&self) {
        for _ in 0..MAX_ROUNDS {
            if !self.has_items() {
                break;
            }
            self.settle();
        }
    }

    /// Calls what was added to finished tasks, and what those calls add. A callback that adds its like for ever is ended
    /// by the executor's end.
    pub(super) fn run_all_late(&self) {
        for _ in 0..MAX_ROUNDS {
            if self.late.borrow().is_empty() {
                break;
            }
            self.run_late(&mut usize::MAX.clone());
            self.settle_all();
        }
    }
}

/// How often the end of an executor looks again for what its callbacks have left.
const MAX_ROUNDS: usize = 1_000;
