//! What happens when a task has ended: it is counted, told, its callbacks run, and its outcome is published.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::task::Waker;

use crate::arena::TaskRef;
use crate::arena::ended::{Ended, Pinned};
use crate::completion::{Awaiter, End, FINISHED, KeptFailure};
use crate::exception::Exception;
use crate::exception_context::{ContextKind, ExceptionContext};
use crate::locals::{self, Locals};
use crate::report::Installed;
use crate::task::TaskInfo;
use crate::unwind::{Panic, bury, catch};
use crate::waker;

use super::Scheduler;
use super::callbacks::{Calls, take_callbacks};
use super::delivery::NEVER_RETRIEVED;

/// Something to be settled by the loop.
pub(super) enum Item {
    /// A task that has just ended, with the panics that followed its own.
    Ended(Pinned, Option<Box<Panic>>),
    /// Done callbacks to be called.
    Calls(Calls),
    /// A failed outcome that was given up unread.
    Unread(Pinned),
    /// A failure that a group had taken and could not hand on.
    Kept(KeptFailure),
    Notice(Notice),
}

/// A failure that belongs to no cell.
pub(super) struct Notice {
    kind: ContextKind,
    message: Cow<'static, str>,
    panic: Option<Box<Panic>>,
    task: Option<TaskInfo>,
    /// What was set where it arose.
    locals: Option<Locals>,
}

impl Scheduler {
    /// Counts a task that has just ended and publishes its outcome, at once or, if there is something to tell, when the
    /// loop settles.
    #[inline]
    pub(super) fn ended(&self, ended: Ended<'_>) {
        if ended.is_plain() {
            self.counters.live.sub(1);
            match ended.end() {
                End::Returned => self.counters.returned.add(1),
                End::Cancelled => self.counters.cancelled.add(1),
                End::Failed => unreachable!("a failure is not plain"),
            }
            match ended.publish() {
                Awaiter::Nobody => {}
                Awaiter::Key(key) => waker::wake_key(key),
                Awaiter::Foreign(_) | Awaiter::Elsewhere(_) => {
                    unreachable!("only a key is awaited without a side record")
                }
            }
        } else if ended.is_plain_member() {
            self.plain_member_ended(ended);
        } else {
            self.ended_aside(ended);
        }
        if self.has_idlers.get() {
            self.wake_idlers();
        }
    }

    #[cold]
    fn ended_aside(&self, ended: Ended<'_>) {
        let mut ended = ended;
        let also = match ended.end() {
            End::Failed => ended.take_also(),
            End::Returned | End::Cancelled => None,
        };
        let mut pinned = ended.pin();
        let panic = pinned
            .exception()
            .and_then(|exception| exception.as_panic());
        self.end_in_note(pinned.task(), panic);
        if pinned.is_call() {
            return self.call_ended(pinned, also);
        }
        self.counters.live.sub(1);
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
        if pinned.asked() {
            self.count_asking(false);
        }
        let record = self.arena.extras_if_any(pinned.task());
        let woken = match pinned.end() {
            End::Failed => self.member_failed(&pinned),
            End::Returned | End::Cancelled => None,
        };
        if let Some(finished) = record
            .as_ref()
            .and_then(|record| record.borrow().finished.clone())
        {
            finished.fetch_or(FINISHED, Ordering::Release);
        }
        let listeners = record
            .as_ref()
            .and_then(|record| record.borrow_mut().listeners.take());
        if let Some(listeners) = listeners {
            // Nobody will ask this task any more.
            self.drop_listeners(&listeners);
        }
        if pinned.end() == End::Failed {
            self.push(Item::Ended(pinned, also));
            return self.wake_group(woken);
        }
        if pinned.end() == End::Returned {
            return self.push(Item::Ended(pinned, None));
        }
        // There is no exception that anybody could look at: published at once.
        let queue = take_callbacks(record.as_deref());
        let (task, info) = (pinned.task(), pinned.info());
        let locals = self.locals_of(task);
        self.within(locals.clone(), || {
            let left = self.leave_group(&mut pinned, &info);
            self.publish(pinned, &info);
            self.wake_left(left, Some(&info));
        });
        let hooks = !self.hooks.done.is_empty();
        if hooks || !queue.is_empty() {
            self.push(Item::Calls(Calls {
                task: Some(task),
                info,
                end: End::Cancelled,
                pinned: None,
                also: None,
                hooks,
                locals,
                queue,
            }));
        } else {
            self.let_go(locals);
        }
    }

    /// A callback has been called, or dropped uncalled.
    fn call_ended(&self, pinned: Pinned, also: Option<Box<Panic>>) {
        if pinned.end() == End::Failed {
            // Told when the loop settles, like a task's failure; a callback is nobody's to be asked for.
            return self.push(Item::Ended(pinned, also));
        }
        let info = pinned.info();
        self.publish(pinned, &info);
    }

    pub(super) fn push(&self, item: Item) {
        self.items.borrow_mut().push_back(item);
        self.has_items.set(true);
        self.arena.interrupt();
    }

    #[inline]
    pub(super) fn has_items(&self) -> bool {
        self.has_items.get()
    }

    /// Works off what is to be told now. See [`settle_within`](Self::settle_within). To be called by the loop.
    pub(crate) fn settle(&self) {
        if self.has_items() {
            self.settle_within(&mut usize::MAX.clone());
        }
    }

    /// Tells what only has to be told, outside of the loop: no done callback runs here. A report is made on whatever stack
    /// finds the failure, but after the one that is being made.
    pub(super) fn settle_reports(&self) {
        if self.settling.replace(true) {
            return;
        }
        let _done = Settled(self);
        loop {
            let item = {
                let mut items = self.items.borrow_mut();
                let at = items.iter().position(|item| {
                    matches!(item, Item::Unread(_) | Item::Kept(_) | Item::Notice(_))
                });
                at.and_then(|at| items.remove(at))
            };
            match item {
                Some(item) => self.tell_item(item),
                None => break,
            }
        }
    }

    /// Makes a report that borrows its failure. What fails meanwhile is told after it; a report from within a handler
    /// nests.
    pub(crate) fn report(&self, context: &ExceptionContext<'_>) {
        if self.settling.replace(true) {
            return self.dispatch(None, context);
        }
        {
            let _done = Settled(self);
            self.dispatch(None, context);
        }
        if self.has_items() {
            self.settle_reports();
        }
    }

    /// Runs a drive. One that begins while something is being told outside of any drive (a destructor or a handler that
    /// drives) settles for itself: it may wait for what it settles.
    pub(crate) fn with_settling_of_its_own<R>(&self, drive: impl FnOnce() -> R) -> R {
        struct Restore<'a>(&'a Scheduler, bool);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.settling.set(self.1);
            }
        }
        let _restore = Restore(self, self.settling.replace(false));
        drive()
    }

    /// Works off what there is to tell now, oldest first, calling at most `left` callbacks. Not re-entered, and what arises
    /// meanwhile is told after what is being told, at the next look: a callback that makes its like for ever keeps nobody
    /// else from their turn (P8).
    #[cold]
    pub(super) fn settle_within(&self, left: &mut usize) {
        if self.settling.replace(true) {
            return;
        }
        let _done = Settled(self);
        self.drop_note();
        let mut now = self.items.borrow().len();
        while now > 0 {
            let Some(item) = self.items.borrow_mut().pop_front() else {
                break;
            };
            now -= 1;
            match item {
                Item::Ended(pinned, also) => {
                    let locals = self.locals_of(pinned.task());
                    if let Some(calls) = self.within(locals, || self.finish(pinned, also)) {
                        self.items.borrow_mut().push_front(Item::Calls(calls));
                        now += 1;
                    }
                }
                Item::Calls(calls) => {
                    let locals = calls.locals.clone();
                    if let Some(rest) = self.within(locals, || self.run_calls(calls, left)) {
                        self.items.borrow_mut().push_front(Item::Calls(rest));
                        break;
                    }
                }
                Item::Unread(_) | Item::Kept(_) | Item::Notice(_) => self.tell_item(item),
            }
        }
    }

    fn tell_item(&self, item: Item) {
        match item {
            Item::Unread(pinned) => {
                let info = pinned.info();
                self.within(self.locals_of(pinned.task()), || {
                    self.conclude(pinned, None, &info)
                });
            }
            Item::Notice(mut notice) => {
                self.within(notice.locals.take(), || self.notify(notice));
            }
            Item::Kept(mut failure) => {
                self.within(failure.locals.take(), || self.tell_kept(failure));
            }
            Item::Ended(..) | Item::Calls(_) => unreachable!("these are the loop's"),
        }
    }

    /// Tells of a failure that belongs to no cell: now, or after what is being told.
    pub(crate) fn tell(
        &self,
        kind: ContextKind,
        message: impl Into<Cow<'static, str>>,
        panic: Option<Box<Panic>>,
        task: Option<TaskInfo>,
    ) {
        let noted = panic.as_deref().and_then(|panic| self.take_note(panic));
        self.push(Item::Notice(Notice {
            kind,
            message: message.into(),
            panic,
            task,
            locals: noted.or_else(locals::current),
        }));
        if !self.arena.is_driven() {
            // No loop will come to it: a report is made where it arises.
            self.settle_reports();
        }
    }

    fn notify(&self, notice: Notice) {
        let exception = notice.panic.as_deref().map(Exception::panic);
        let context = ExceptionContext::of(notice.kind, notice.message)
            .with_exception(exception)
            .with_task(notice.task.clone());
        self.dispatch(None, &context);
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

    /// Tells what there is to tell of a task that has ended, and queues its callbacks, all at once: what is removed or
    /// added from inside of one is too late, or for the next pass.
    fn finish(&self, pinned: Pinned, also: Option<Box<Panic>>) -> Option<Calls> {
        let info = pinned.info();
        if pinned.is_call() {
            let context = ExceptionContext::of(ContextKind::Callback, "Exception in callback")
                .with_exception(pinned.exception())
                .with_location(info.location());
            self.dispatch(None, &context);
            drop(context);
            self.tell_also(also, None);
            self.publish(pinned, &info);
            return None;
        }
        if pinned.end() == End::Failed {
            self.report_at_failure(&pinned, &info);
        }
        let record = self.arena.extras_if_any(pinned.task());
        let queue = take_callbacks(record.as_deref());
        let hooks = !self.hooks.done.is_empty();
        if !hooks && queue.is_empty() {
            self.conclude(pinned, also, &info);
            return None;
        }
        Some(Calls {
            task: Some(pinned.task()),
            end: pinned.end(),
            info,
            locals: self.locals_of(pinned.task()),
            pinned: Some(pinned),
            also,
            hooks,
            queue,
        })
    }

    /// All that was to be called is called: the last chance to report, and then the outcome is anybody's.
    pub(super) fn conclude(&self, mut pinned: Pinned, also: Option<Box<Panic>>, info: &TaskInfo) {
        let left = self.leave_group(&mut pinned, info);
        let untold = pinned.end() == End::Failed && !pinned.is_told() && !pinned.is_read();
        if untold && !pinned.is_claimed() {
            self.report_task(&pinned, info, ContextKind::NeverRetrieved, None);
        }
        self.tell_also(also, Some(info));
        self.publish(pinned, info);
        self.wake_left(left, Some(info));
    }

    /// Makes the one report of a failed task, to a handler of its group's or else to the executor's.
    pub(super) fn report_task(
        &self,
        pinned: &Pinned,
        info: &TaskInfo,
        kind: ContextKind,
        own: Option<&Installed>,
    ) {
        pinned.mark_told();
        self.counters.unread.sub(1);
        self.counters.reported.add(1);
        let exception = pinned.exception();
        let message = match (kind, exception) {
            (ContextKind::NeverRetrieved, _) => NEVER_RETRIEVED,
            (ContextKind::Shutdown, _) => "Task failed while the executor was shut down",
            (_, Some(exception)) if exception.is_error() => "Task returned an error",
            _ => "Task panicked",
        };
        let context = ExceptionContext::of(kind, message)
            .with_exception(exception)
            .with_task(Some(info.clone()))
            .with_handle_held(self.is_held(pinned.task()));
        self.dispatch(own, &context);
    }

    /// Whether somebody holds the task's handle, here or elsewhere.
    pub(super) fn is_held(&self, task: TaskRef) -> bool {
        if let Some(record) = self.arena.extras_if_any(task) {
            if let Awaiter::Elsewhere(carrier) = &record.borrow().awaiter {
                return carrier.is_held();
            }
        }
        self.arena.is_claimed(task)
    }

    /// A failure was looked at.
    pub(super) fn read(&self, pinned: &Pinned) {
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
    pub(super) fn publish(&self, pinned: Pinned, info: &TaskInfo) {
        let task = pinned.task();
        if self.arena.note_late(task, false) {
            let mut late = self.late.borrow_mut();
            if let Some(late) = late.iter_mut().find(|late| late.task == Some(task)) {
                // A callback was added while this pin was held: it is to see what those before it saw.
                late.pinned = Some(pinned);
                self.arena.note_late(task, true);
                return;
            }
        }
        if pinned.end() != End::Failed || !pinned.is_claimed() {
            // A failure keeps what it happened under: a late callback, or a late report, is to see it.
            self.let_go_of(task);
        }
        let (awaiter, dropped) = pinned.publish();
        if let Err(panic) = dropped {
            self.tell_destructor(panic, Some(info));
        }
        self.wake(awaiter, Some(info));
    }

    /// Wakes whoever waits for the end of a task, or of a group.
    pub(crate) fn wake(&self, awaiter: Awaiter, info: Option<&TaskInfo>) {
        match awaiter {
            Awaiter::Nobody => {}
            Awaiter::Key(key) => waker::wake_key(key),
            Awaiter::Foreign(waker) => self.wake_foreign(waker, info),
            Awaiter::Elsewhere(carrier) => self.deliver(carrier),
        }
    }

    pub(super) fn wake_foreign(&self, waker: Waker, info: Option<&TaskInfo>) {
        // User code: a foreign waker.
        if let Err(panic) = catch(|| waker.wake()) {
            let text = "Panic in the waker of a task's awaiter";
            self.tell(ContextKind::Callback, text, Some(panic), info.cloned());
        }
    }

    /// A handle was dropped whose task had finished. An output is dropped here and now, by the handle that names its type
    /// (A5). A failure that nobody was told of is told, on whatever stack drops the handle.
    pub(crate) fn given_up(&self, pinned: Pinned) {
        if pinned.end() == End::Failed && !pinned.is_told() && !pinned.is_read() {
            self.push(Item::Unread(pinned));
            self.settle_reports();
            return;
        }
        let info = pinned.info();
        self.let_go_of(pinned.task());
        let (awaiter, dropped) = pinned.publish_for_handle();
        if let Err(panic) = dropped {
            self.tell_destructor(panic, Some(&info));
        }
        self.wake(awaiter, Some(&info));
    }

    /// A failed outcome that a handle still holds, when the executor goes.
    pub(super) fn tell_unread(&self, task: TaskRef) {
        let Some(pinned) = self.arena.pin_unread(task) else {
            return;
        };
        let info = pinned.info();
        // A handler may have read it meanwhile, in the report of another.
        if !pinned.is_told() && !pinned.is_read() {
            self.within(self.locals_of(task), || {
                self.report_task(&pinned, &info, ContextKind::NeverRetrieved, None);
            });
        }
        self.publish(pinned, &info);
    }
}

/// Ends a settling, and notes what it has left.
struct Settled<'a>(&'a Scheduler);

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        self.0.settling.set(false);
        let noted = self.0.note.borrow().is_some();
        self.0
            .has_items
            .set(noted || !self.0.items.borrow().is_empty());
    }
}
