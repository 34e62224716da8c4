//! Members of groups: how they join, and what becomes of their failures.

use std::cell::RefCell;
use std::ptr;
use std::rc::Rc;

use crate::arena::TaskRef;
use crate::arena::ended::Pinned;
use crate::completion::{Awaiter, Custody, End, Extras, Group, KeptFailure, Membership};
use crate::exception::Owned;
use crate::report::{ContextKind, ExceptionContext, Installed};
use crate::task::{TaskId, TaskInfo};
use crate::unwind::{catch_drop, guarded};

use super::Scheduler;
use super::ending::Item;
use super::policy::ReportPolicy;

/// What is left of a membership that has ended: whom to wake, when the outcome is published, and the group.
pub(super) struct Left {
    awaiter: Awaiter,
    group: Rc<dyn Group>,
}

impl Scheduler {
    /// Makes a task that is being spawned a member of a group.
    pub(crate) fn join_group(&self, group: Rc<dyn Group>, task: TaskRef) {
        let admission = group.admit(task.id, task.index);
        if admission.held_back {
            self.arena.hold_back(task);
        }
        if let Some(record) = self.arena.extras(task) {
            record.borrow_mut().membership = Some(Membership {
                group,
                tag: admission.tag,
                asking: 0,
            });
        }
        if admission.requested {
            // Nobody listens yet.
            let _ = self.arena.request(task);
        }
    }

    /// A task has begun to ask whether it is to end, or no longer does: so do those above it whose members it is among.
    pub(crate) fn note_asking(&self, task: TaskRef, asks: bool) {
        let mut next = Some(task);
        while let Some(task) = next {
            let record = self.arena.extras_if_any(task);
            let changed = record.and_then(|record| {
                let membership = &mut record.borrow_mut().membership;
                membership.as_mut()?.count_asking(asks)
            });
            next = changed.and_then(|group| above(group.asks(asks)));
        }
    }

    /// A task has failed: its group is told, if it has one.
    pub(super) fn member_failed(
        &self,
        record: Option<&RefCell<Extras>>,
        pinned: &Pinned,
    ) -> Option<(Awaiter, TaskInfo)> {
        let group = group_of(record)?;
        Some((group.failed(), pinned.info()))
    }

    pub(super) fn wake_group(&self, woken: Option<(Awaiter, TaskInfo)>) {
        if let Some((awaiter, info)) = woken {
            self.wake(awaiter, Some(&info));
        }
    }

    /// Makes the report that is due as soon as a task has failed, before its callbacks run.
    pub(super) fn report_at_failure(&self, pinned: &Pinned, info: &TaskInfo) {
        let record = self.arena.extras_if_any(pinned.task());
        let custody = group_of(record.as_deref()).map_or(Custody::Policy, |group| group.custody());
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
        let Some(record) = self.arena.extras_if_any(task) else {
            return;
        };
        let asked = match &mut record.borrow_mut().membership {
            Some(membership) if ptr::addr_eq(&*membership.group, group) => {
                std::mem::take(&mut membership.asking) > 0
            }
            _ => false,
        };
        if asked {
            if let Some(above) = above(group.asks(false)) {
                self.note_asking(above, false);
            }
        }
    }

    /// Ends a task's membership, if it has one: its callbacks have run, and its outcome is about to be published. The
    /// failure passes to a group that keeps failures.
    pub(super) fn leave_group(&self, pinned: &mut Pinned, info: &TaskInfo) -> Option<Left> {
        let record = self.arena.extras_if_any(pinned.task())?;
        let Membership { group, tag, asking } = record.borrow_mut().membership.take()?;
        if asking > 0 {
            if let Some(task) = above(group.asks(false)) {
                self.note_asking(task, false);
            }
        }
        let end = pinned.end();
        let mut failure = None;
        if end == End::Failed && !pinned.is_told() {
            failure = self.pass_failure(pinned, info, &record, &*group);
        }
        let awaiter = group.concluded(tag, end, failure);
        Some(Left { awaiter, group })
    }

    /// Moves a failure to the group, if it still wants it; reports what was not reported for the group's sake, if it does
    /// not.
    fn pass_failure(
        &self,
        pinned: &mut Pinned,
        info: &TaskInfo,
        record: &RefCell<Extras>,
        group: &dyn Group,
    ) -> Option<KeptFailure> {
        let mut custody = group.custody();
        if matches!(custody, Custody::Keep) && pinned.is_claimed() {
            let message = pinned
                .exception()
                .map(|exception| guarded(|| exception.message().into_owned()).into());
            record.borrow_mut().kept = message;
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
        })
    }

    /// The outcome is published: whoever waits for the member's end may come.
    pub(super) fn wake_left(&self, left: Option<Left>, info: &TaskInfo) {
        let Some(Left { awaiter, group }) = left else {
            return;
        };
        self.wake(awaiter, Some(info));
        // It may be the last owner.
        // User code: Drop of what users gave the group (an exception handler).
        if let Err(panic) = catch_drop(group) {
            self.tell_destructor(panic, Some(info));
        }
    }

    /// A kept failure was handed to the group's caller.
    pub(crate) fn handed_on(&self, failure: &mut KeptFailure) {
        if std::mem::replace(&mut failure.unread, false) && failure.task.is_some() {
            self.count_read();
        }
    }

    /// A kept failure could not be handed to anybody: it is reported, now or after what is being told, unless somebody
    /// has read it.
    pub(crate) fn not_handed_on(&self, failure: KeptFailure) {
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
            self.reporter.dispatch(&report_of(&failure));
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

fn group_of(record: Option<&RefCell<Extras>>) -> Option<Rc<dyn Group>> {
    let record = record?.borrow();
    record
        .membership
        .as_ref()
        .map(|membership| Rc::clone(&membership.group))
}
