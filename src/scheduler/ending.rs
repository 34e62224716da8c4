//! What happens when a task has ended: it is counted, told, its callbacks run, and its outcome is published.

use std::borrow::Cow;
use std::cell::Cell;

use crate::arena::TaskRef;
use crate::arena::ended::{End, Ended, Pinned};
use crate::completion::{Awaiter, CallbackId, Completion, DoneCallback, Outcome};
use crate::exception::Exception;
use crate::report::{ContextKind, ExceptionContext, write_record};
use crate::task::TaskInfo;
use crate::unwind::{Panic, bury, catch};
use crate::waker;

use super::policy::ReportPolicy;
use super::{Late, Scheduler};

/// Something to be settled by the loop.
pub(super) enum Item {
    /// A task that has just ended, with the panics that followed its own.
    Ended(Pinned, Option<Box<Panic>>),
    /// A failed outcome that was given up unread.
    Unread(Pinned),
    Notice(Notice),
}

/// A failure that belongs to no cell.
pub(super) struct Notice {
    kind: ContextKind,
    message: Cow<'static, str>,
    panic: Option<Box<Panic>>,
    task: Option<TaskInfo>,
}

impl Scheduler {
    /// Counts a task that has just ended and publishes its outcome, at once or, if there is something to tell, when the
    /// loop settles.
    #[inline]
    pub(super) fn ended(&self, ended: Ended<'_>) {
        self.counters.live.sub(1);
        if ended.is_plain() {
            match ended.end() {
                End::Returned => self.counters.returned.add(1),
                End::Cancelled => self.counters.cancelled.add(1),
                End::Failed => unreachable!("a failure is not plain"),
            }
            match ended.publish() {
                Awaiter::Nobody => {}
                Awaiter::Key(key) => waker::wake_key(key),
                Awaiter::Foreign(_) => unreachable!("a foreign awaiter is not plain"),
            }
        } else {
            self.ended_aside(ended);
        }
        if self.has_idlers.get() {
            self.wake_idlers();
        }
    }

    #[cold]
    fn ended_aside(&self, ended: Ended<'_>) {
        let mut pinned = ended.pin();
        match pinned.end() {
            End::Returned => self.counters.returned.add(1),
            End::Cancelled => self.counters.cancelled.add(1),
            End::Failed => {
                self.counters.failed.add(1);
                self.counters.unread.add(1);
            }
        }
        if pinned.is_background() {
            self.counters.background.sub(1);
        }
        let also = pinned.take_also();
        self.push(Item::Ended(pinned, also));
    }

    #[cold]
    fn wake_idlers(&self) {
        // Each looks for itself and comes back if it is not yet time.
        let idlers = std::mem::take(&mut *self.idlers.borrow_mut());
        self.has_idlers.set(false);
        for waker in idlers {
            // User code: a foreign waker.
            if let Err(panic) = catch(|| waker.wake()) {
                self.tell(ContextKind::Callback, "Panic in a waker", Some(panic), None);
            }
        }
    }

    fn push(&self, item: Item) {
        self.items.borrow_mut().push_back(item);
        self.has_items.set(true);
    }

    #[inline]
    pub(super) fn has_items(&self) -> bool {
        self.has_items.get()
    }

    /// Works off what is to be told, oldest first, until there is no more. Not re-entered: what arises meanwhile is told
    /// after what is being told.
    #[cold]
    pub(crate) fn settle(&self) {
        struct Done<'a>(&'a Cell<bool>);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }
        if self.settling.replace(true) {
            return;
        }
        let _done = Done(&self.settling);
        loop {
            let item = self.items.borrow_mut().pop_front();
            match item {
                Some(Item::Ended(pinned, also)) => self.finish(pinned, also),
                Some(Item::Unread(pinned)) => self.finish_unread(pinned),
                Some(Item::Notice(notice)) => self.notify(notice),
                None => break,
            }
        }
        self.has_items.set(false);
    }

    /// Tells of a failure that belongs to no cell: now, or after what is being told.
    pub(crate) fn tell(
        &self,
        kind: ContextKind,
        message: impl Into<Cow<'static, str>>,
        panic: Option<Box<Panic>>,
        task: Option<TaskInfo>,
    ) {
        self.push(Item::Notice(Notice {
            kind,
            message: message.into(),
            panic,
            task,
        }));
        if !self.arena.is_driven() && !self.reporter.is_telling() {
            // No loop will come to it: a report is made where it arises.
            self.settle();
        }
    }

    fn notify(&self, notice: Notice) {
        let exception = notice.panic.as_deref().map(Exception::panic);
        let context = ExceptionContext::of(notice.kind, notice.message)
            .with_exception(exception)
            .with_task(notice.task.clone());
        self.reporter.dispatch(&context);
        drop(context);
        if let Some(mut panic) = notice.panic {
            let also = panic.also.take();
            self.bury_panic(panic, notice.task.as_ref());
            self.tell_also(also, notice.task.as_ref());
        }
    }

    /// Reports each panic of a chain by itself.
    fn tell_also(&self, also: Option<Box<Panic>>, task: Option<&TaskInfo>) {
        if let Some(panic) = also {
            self.tell(
                ContextKind::Destructor,
                "Panic in a destructor",
                Some(panic),
                task.cloned(),
            );
        }
    }

    /// Drops a panic that was reported or read; tells what its payload's destructor does.
    pub(crate) fn bury_panic(&self, panic: Box<Panic>, task: Option<&TaskInfo>) {
        let Some(buried) = bury(panic) else { return };
        for message in buried.messages {
            let text = format!("Panic in the destructor of a panic payload: {message}");
            self.tell(ContextKind::Destructor, text, None, task.cloned());
        }
        if buried.leaked {
            self.tell(
                ContextKind::Destructor,
                "A panic payload whose destructor panics for ever was leaked",
                None,
                task.cloned(),
            );
        }
    }

    /// A destructor of the user's panicked where no task can be made to fail for it.
    pub(crate) fn tell_destructor(&self, panic: Box<Panic>, task: Option<&TaskInfo>) {
        self.tell(
            ContextKind::Destructor,
            "Panic in a destructor",
            Some(panic),
            task.cloned(),
        );
    }

    /// Tells what there is to tell of a task that has ended, runs its callbacks, publishes its outcome.
    fn finish(&self, pinned: Pinned, also: Option<Box<Panic>>) {
        let info = pinned.info();
        let failed = pinned.end() == End::Failed;
        if failed && self.policy == ReportPolicy::OnFailure {
            self.report_task(&pinned, &info, ContextKind::TaskFailed);
        }
        self.run_callbacks(&pinned, &info);
        let untold = failed && !pinned.is_told() && !pinned.is_read();
        if untold && !pinned.is_claimed() {
            self.report_task(&pinned, &info, ContextKind::NeverRetrieved);
        }
        self.tell_also(also, Some(&info));
        self.publish(pinned, &info);
    }

    /// A failure that nobody asked for.
    fn finish_unread(&self, pinned: Pinned) {
        let info = pinned.info();
        if !pinned.is_told() && !pinned.is_read() {
            self.report_task(&pinned, &info, ContextKind::NeverRetrieved);
        }
        self.publish(pinned, &info);
    }

    /// Makes the one report of a failed task.
    fn report_task(&self, pinned: &Pinned, info: &TaskInfo, kind: ContextKind) {
        pinned.mark_told();
        self.counters.unread.sub(1);
        self.counters.reported.add(1);
        let exception = pinned.exception();
        let message = match (kind, exception) {
            (ContextKind::NeverRetrieved, _) => "Task exception was never retrieved",
            (_, Some(exception)) if exception.is_error() => "Task returned an error",
            _ => "Task panicked",
        };
        let context = ExceptionContext::of(kind, message)
            .with_exception(exception)
            .with_task(Some(info.clone()))
            .with_handle_held(pinned.is_claimed());
        self.reporter.dispatch(&context);
    }

    fn run_callbacks(&self, pinned: &Pinned, info: &TaskInfo) {
        let Some(record) = self.arena.extras_if_any(pinned.task()) else {
            return;
        };
        // The whole list at once: what is removed or added from inside is too late, or for the next pass.
        let (callbacks, finished) = {
            let mut record = record.borrow_mut();
            (
                std::mem::take(&mut record.callbacks),
                record.finished.clone(),
            )
        };
        if let Some(finished) = finished {
            finished.store(true, std::sync::atomic::Ordering::Release);
        }
        for (_, call) in callbacks {
            self.run_callback(call, pinned, info);
        }
    }

    fn run_callback(&self, call: DoneCallback, pinned: &Pinned, info: &TaskInfo) {
        let outcome = match pinned.end() {
            End::Returned => Outcome::Returned,
            End::Cancelled => Outcome::Cancelled,
            // Where the exception was taken already (a late callback), there is nothing left to show but that.
            End::Failed => match pinned.exception() {
                Some(exception) => Outcome::Failed(exception),
                None => Outcome::Failed(Exception::payload(
                    &"the exception was taken by the task's handle",
                )),
            },
        };
        self.call_back(call, info, outcome, &|| self.read(pinned));
    }

    fn call_back(
        &self,
        call: DoneCallback,
        info: &TaskInfo,
        outcome: Outcome<'_>,
        on_read: &dyn Fn(),
    ) {
        // User code: a done callback, and the destructors of what it captured.
        if let Err(panic) = catch(|| call(&Completion::new(info, outcome, on_read))) {
            self.tell(
                ContextKind::Callback,
                "Panic in a done callback",
                Some(panic),
                Some(info.clone()),
            );
        }
    }

    /// A failure was looked at.
    fn read(&self, pinned: &Pinned) {
        if !pinned.is_told() && !pinned.is_read() {
            pinned.mark_read();
            self.count_read();
        }
    }

    /// One unread failure less.
    pub(crate) fn count_read(&self) {
        self.counters.unread.sub(1);
        self.counters.retrieved.add(1);
    }

    /// Lets handles take the outcome; drops it where there is none.
    fn publish(&self, pinned: Pinned, info: &TaskInfo) {
        let (awaiter, dropped) = pinned.publish();
        if let Err(panic) = dropped {
            self.tell_destructor(panic, Some(info));
        }
        self.wake(awaiter, info);
    }

    fn wake(&self, awaiter: Awaiter, info: &TaskInfo) {
        match awaiter {
            Awaiter::Nobody => {}
            Awaiter::Key(key) => waker::wake_key(key),
            Awaiter::Foreign(waker) => {
                // User code: a foreign waker.
                if let Err(panic) = catch(|| waker.wake()) {
                    let text = "Panic in the waker of a task's awaiter";
                    self.tell(ContextKind::Callback, text, Some(panic), Some(info.clone()));
                }
            }
        }
    }

    /// A handle was dropped whose task had finished.
    pub(crate) fn given_up(&self, pinned: Pinned) {
        let untold = pinned.end() == End::Failed && !pinned.is_told() && !pinned.is_read();
        if untold {
            self.push(Item::Unread(pinned));
            // A report is made on whatever stack drops the handle; but after the one that is being made.
            self.settle();
        } else {
            let info = pinned.info();
            self.publish(pinned, &info);
        }
    }

    // --- callbacks of finished tasks --------------------------------------------------------------------------------

    /// Adds a callback to a task that has finished: it runs in the next pass.
    pub(crate) fn add_late(
        &self,
        task: Option<TaskRef>,
        info: TaskInfo,
        end: End,
        call: DoneCallback,
    ) -> CallbackId {
        let id = self.new_callback_id();
        self.late.borrow_mut().push(Late {
            id,
            task,
            info,
            end,
            call,
        });
        self.prod();
        id
    }

    /// Removes a callback that waits for the next pass.
    pub(crate) fn remove_late(&self, id: CallbackId) -> Option<DoneCallback> {
        let mut late = self.late.borrow_mut();
        let at = late.iter().position(|late| late.id == id)?;
        Some(late.remove(at).call)
    }

    /// Runs callbacks that were added to finished tasks, at most `budget` of them.
    pub(super) fn run_late(&self, budget: usize) -> usize {
        let batch: Vec<Late> = {
            let mut late = self.late.borrow_mut();
            let n = late.len().min(budget);
            late.drain(..n).collect()
        };
        let count = batch.len();
        for late in batch {
            match late.task.and_then(|task| self.arena.pin_unread(task)) {
                Some(pinned) => {
                    self.run_callback(late.call, &pinned, &late.info);
                    self.publish(pinned, &late.info);
                }
                None => {
                    let outcome = match late.end {
                        End::Returned => Outcome::Returned,
                        End::Cancelled => Outcome::Cancelled,
                        End::Failed => Outcome::Failed(Exception::payload(
                            &"the exception was taken by the task's handle",
                        )),
                    };
                    self.call_back(late.call, &late.info, outcome, &|| {});
                }
            }
            if self.has_items() {
                self.settle();
            }
        }
        count
    }

    // --- the end ----------------------------------------------------------------------------------------------------

    /// Ends every task and tells everything that is still to be told. Nothing can be spawned any more.
    pub(crate) fn close(&self, driven: crate::arena::Driven<'_>) {
        /// How many pending tasks the default handler names.
        const NAMED: usize = 10;
        self.closed.set(true);
        self.drop_messages();
        let quiet_after =
            if self.reporter.handler().is_some() || crate::report::has_process_handler() {
                usize::MAX
            } else {
                NAMED
            };
        let mut destroyed = 0;
        loop {
            let live = self.arena.live();
            if live.is_empty() || self.is_afterlife_over() {
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
                        .with_task(Some(info));
                        self.reporter.dispatch(&context);
                    } else {
                        self.reporter.count_one();
                    }
                }
                let _ = self.arena.ask_cancel(task);
                self.bury(driven, task);
                self.settle();
            }
        }
        if destroyed > quiet_after {
            write_record(&format!(
                "{} more tasks were destroyed but they were pending",
                destroyed - quiet_after
            ));
        }
        self.settle();
        while self.run_late(usize::MAX) > 0 {}
        for task in self.arena.unread() {
            if let Some(pinned) = self.arena.pin_unread(task) {
                self.push(Item::Unread(pinned));
            }
        }
        self.settle();
        self.wake_idlers();
    }
}
