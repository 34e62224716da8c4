//! Members of groups: how they join, and what becomes of their failures.

use std::rc::Rc;

use crate::arena::TaskRef;
use crate::arena::ended::{Ended, Pinned};
use crate::completion::{Awaiter, Custody, End, Group, KeptFailure, Membership};
use crate::exception::Owned;
use crate::exception_context::{ContextKind, ExceptionContext};
use crate::locals;
use crate::report::Installed;
use crate::task::{TaskId, TaskInfo};
use crate::unwind::{catch_drop, guarded};
use crate::waker;

use super::Scheduler;
use super::ending::Item;
use super::policy::ReportPolicy;

/// What is left of a membership that has ended: whom to wake, when the outcome is published, and the group.
pub(super) struct Left {
    awaiter: Awaiter,
    group: Rc<dyn Group>,
}

impl Scheduler {
    /// A task has begun to ask whether it is to end, or no longer does: so do those above it whose members it is among.
    pub(crate) fn note_asking(&self, task: TaskRef, asks: bool) {
        let mut next = Some(task);
        while let Some(task) = next {
            let changed = self.arena.count_asking(task, asks);
            next = changed.and_then(|group| above(group.asks(asks)));
        }
    }

    /// A member of a group has ended of which there is nothing to tell.
    pub(super) fn plain_member_ended(&self, ended: Ended<'_>) {
        let end = ended.end();
        self.counters.live.sub(1);
        match end {
            End::Returned => self.counters.returned.add(1),
            End::Cancelled => self.counters.cancelled.add(1),
            End::Failed => unreachable!("a failure is not plain"),
        }
        let left = ended
            .take_membership()
            .map(|membership| self.leave(membership, end, None));
        // What has just left the group may have called foreign wakers, who may have done anything to the handle.
        if ended.is_still_plain() {
            if let Awaiter::Key(key) = ended.publish() {
                waker::wake_key(key);
            }
            return self.wake_left(left, None);
        }
        let pinned = ended.pin();
        let info = pinned.info();
        self.publish(pinned, &info);
        self.wake_left(left, Some(&info));
    }

    /// A task has failed: its group is told, if it has one.
    pub(super) fn member_failed(&self, pinned: &Pinned) -> Option<(Awaiter, TaskInfo)> {
        let group = pinned.group()?;
        Some((group.failed(), pinned.info()))
    }

    pub(super) fn wake_group(&self, woken: Option<(Awaiter, TaskInfo)>) {
        if let Some((awaiter, info)) = woken {
            self.wake(awaiter, Some(&info));
        }
    }

    /// Makes the report that is due as soon as a task has failed, before its callbacks run.
    pub(super) fn report_at_failure(&self, pinned: &Pinned, info: &TaskInfo) {
        let custody = pinned
            .group()
            .map_or(Custody::Policy, |group| group.custody());
        match custody {
            Custody::Policy => {
                if let Some(kind) = self.kind_at_failure() {
                    self.report_task(pinned, info, kind, None);
                }
            }
            Custody::Tell(own) => {
                let own = own.and_then(|own| own.downcast::<Installed>().ok());
                let kind = self.kind_at_failure().unwrap_or(ContextKind::TaskFailed);
                self.report_task(pinned, info, kind, own.as_deref());
                // It may have been replaced, and then this is its last owner.
                // User code: Drop of the handler's captures.
                if let Err(panic) = catch_drop(own) {
                    self.tell_destructor(panic, Some(info));
                }
            }
            Custody::Keep | Custody::Note => {}
        }
    }

    /// What the report is about that an ordinary task has as soon as it fails, if it has one then.
    fn kind_at_failure(&self) -> Option<ContextKind> {
        match (self.is_shutting_down(), self.policy) {
            (true, _) => Some(ContextKind::Shutdown),
            (false, ReportPolicy::OnFailure) => Some(ContextKind::TaskFailed),
            (false, ReportPolicy::IfUnretrieved) => None,
        }
    }

    /// No longer counts a member of `group`, or those below it, as one that asks: it waits for the group's end itself.
    pub(crate) fn discount_asking(&self, task: TaskRef, group: &dyn Group) {
        if self.arena.discount_asking(task, group) {
            let _ = group.asks(false);
        }
    }

    /// Ends a task's membership, if it has one: its callbacks have run, and its outcome is about to be published. The
    /// failure passes to a group that keeps failures.
    pub(super) fn leave_group(&self, pinned: &mut Pinned, info: &TaskInfo) -> Option<Left> {
        let group = pinned.group()?;
        let mut failure = None;
        if pinned.end() == End::Failed && !pinned.is_told() {
            failure = self.pass_failure(pinned, info, &*group);
        }
        let membership = pinned.take_membership()?;
        Some(self.leave(membership, pinned.end(), failure))
    }

    fn leave(&self, membership: Membership, end: End, failure: Option<KeptFailure>) -> Left {
        if membership.is_asking() {
            // Whoever runs its scope asks on until that is polled (`Members::settle_asking`).
            let _ = membership.group.asks(false);
        }
        let awaiter = membership.group.concluded(membership.tag, end, failure);
        Left {
            awaiter,
            group: membership.group,
        }
    }

    /// Moves a failure to the group, if it still wants it; reports what was not reported for the group's sake, if it does
    /// not.
    fn pass_failure(
        &self,
        pinned: &mut Pinned,
        info: &TaskInfo,
        group: &dyn Group,
    ) -> Option<KeptFailure> {
        let mut custody = group.custody();
        if matches!(custody, Custody::Keep) && pinned.is_claimed() {
            let message = pinned
                .exception()
                .map(|exception| guarded(|| exception.message().into_owned()).into());
            if let Some(record) = self.arena.extras(pinned.task()) {
                record.borrow_mut().kept = message;
            }
            // The group may have ended while the error was formatted.
            custody = group.custody();
        }
        match custody {
            Custody::Keep => {}
            // The group ended while the callbacks ran: now it is a failure like any other.
            Custody::Policy => {
                if let (Some(kind), false) = (self.kind_at_failure(), pinned.is_read()) {
                    self.report_task(pinned, info, kind, None);
                }
                return None;
            }
            Custody::Note | Custody::Tell(_) => return None,
        }
        let exception = pinned.take_failure()?;
        let unread = !pinned.is_read();
        // From here on the group answers for it.
        pinned.mark_read();
        Some(KeptFailure {
            task: Some(info.clone()),
            exception,
            unread,
            locals: self.locals_of(pinned.task()),
        })
    }

    /// The outcome is published: whoever waits for the member's end may come.
    pub(super) fn wake_left(&self, left: Option<Left>, info: Option<&TaskInfo>) {
        let Some(Left { awaiter, group }) = left else {
            return;
        };
        self.wake(awaiter, info);
        // It may be the last owner.
        // User code: Drop of what users gave the group (an exception handler).
        if let Err(panic) = catch_drop(group) {
            self.tell_destructor(panic, info);
        }
    }

    /// A kept failure was handed to the group's caller.
    pub(crate) fn handed_on(&self, failure: &mut KeptFailure) {
        self.let_go(failure.locals.take());
        if std::mem::replace(&mut failure.unread, false) && failure.task.is_some() {
            self.count_read();
        }
    }

    /// A kept failure could not be handed to anybody: it is reported, now or after what is being told, unless somebody
    /// has read it.
    pub(crate) fn not_handed_on(&self, mut failure: KeptFailure) {
        failure.locals = failure.locals.or_else(locals::current);
        self.push(Item::Kept(failure));
        if !self.arena.is_driven() {
            self.settle_reports();
        }
    }

    pub(super) fn tell_kept(&self, failure: KeptFailure) {
        let task = failure.task.as_ref();
        if failure.unread {
            if task.is_some() {
                self.counters.unread.sub(1);
                self.counters.reported.add(1);
            }
            self.dispatch(None, &report_of(&failure));
        }
        match failure.exception {
            Owned::Panic(panic) => self.bury_panic(panic, task),
            Owned::Error(error) => {
                // User code: Drop of the error.
                if let Err(panic) = catch_drop(error) {
                    self.tell_destructor(panic, task);
                }
            }
        }
    }
}

/// What there is to tell of a failure that was not handed on.
pub(crate) fn report_of(failure: &KeptFailure) -> ExceptionContext<'_> {
    let (kind, text) = match failure.task {
        Some(_) => (
            ContextKind::NeverRetrieved,
            "Task failed in a group whose caller was gone",
        ),
        None => (
            ContextKind::Other,
            "The body of a group failed, and its caller was gone",
        ),
    };
    ExceptionContext::of(kind, text)
        .with_exception(Some(failure.exception.view()))
        .with_task(failure.task.clone())
}

fn above(task: Option<(TaskId, u32)>) -> Option<TaskRef> {
    task.map(|(id, index)| TaskRef { id, index })
}
