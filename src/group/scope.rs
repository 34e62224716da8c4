//! A task group's scope: runs the body, waits for the members, and settles what came of both.

use std::future::Future;
use std::task::{Context, Poll};

use crate::completion::KeptFailure;
use crate::exception::{AnyError, Owned};
use crate::unwind::{self, Panic, catch_drop};

use super::body::{Body, Step};
use super::exception_group::ExceptionGroup;
use super::members::Request;
use super::task_group::{Phase, Shared};

/// A scope that is being run.
pub(super) struct Scope<'a, B: Future, J, R> {
    shared: &'a Shared,
    /// Until it has returned or is cancelled.
    body: Body<'a, B>,
    judge: Option<J>,
    value: Option<R>,
    /// What the body failed by.
    error: Option<Owned>,
    /// Whether the task that runs this is asked to end.
    request: Request,
    /// The group's end was carried out.
    aborted: bool,
    /// The group was cancelled before its body returned.
    cancelled: bool,
}

impl<'a, B, J, R> Scope<'a, B, J, R>
where
    B: Future,
    J: FnOnce(B::Output) -> Result<R, Box<dyn AnyError>>,
{
    pub(super) fn new(shared: &'a Shared, body: Body<'a, B>, judge: J) -> Self {
        Scope {
            shared,
            body,
            judge: Some(judge),
            value: None,
            error: None,
            request: Request::new(&shared.members),
            aborted: false,
            cancelled: false,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<R, ExceptionGroup>> {
        self.shared.members.set_awaiter(cx.waker());
        self.request.pass_on(&self.shared.members, cx);
        self.abort_if_due();
        self.poll_body(cx);
        // What the body did may have ended the group.
        self.abort_if_due();
        if self.body.is_running() || !self.shared.members.is_empty() {
            self.shared.members.settle_asking();
            return Poll::Pending;
        }
        Poll::Ready(self.finish())
    }

    /// Carries the end of the group out, if it was cancelled or something failed, once.
    fn abort_if_due(&mut self) {
        let phase = self.shared.phase.get();
        if self.aborted || phase == Phase::Open {
            return;
        }
        self.aborted = true;
        self.shared.bury_members();
        if self.body.is_running() {
            self.cancelled = phase == Phase::Cancelled;
            self.shared.members.wait_for_all(true);
            if let Err(panic) = self.body.cancel() {
                self.error = Some(Owned::Panic(panic));
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) {
        let (value, dropped) = match self.body.poll(cx) {
            Step::Pending => return,
            Step::Returned(value, dropped) => (value, dropped),
            Step::Panicked(panic) => self.unwind(*panic),
        };
        self.shared.members.wait_for_all(true);
        let Some(judge) = self.judge.take() else {
            return;
        };
        match judge(value) {
            Ok(value) => self.value = Some(value),
            Err(error) => {
                self.error = Some(Owned::Error(error));
                self.shared.phase.set(Phase::Failed);
            }
        }
        if let Err(panic) = dropped {
            match self.error {
                // A task that returned an error has failed by that, too, and its destructor's panic is told.
                Some(_) => self.shared.members.tell_destructor(panic),
                None => self.unwind(*panic),
            }
        }
    }

    /// The body panicked, which is its caller's own panic. The members go first.
    fn unwind(&mut self, panic: Panic) -> ! {
        self.shared.abandon();
        // User code: Drop of what is left of the body, and of its value.
        let dropped = [self.body.cancel(), catch_drop(self.value.take())];
        for also in dropped.into_iter().filter_map(Result::err) {
            self.shared.members.tell_destructor(also);
        }
        unwind::resume(panic)
    }

    /// The body and all members have ended.
    fn finish(&mut self) -> Result<R, ExceptionGroup> {
        let shared = self.shared;
        shared.phase.set(Phase::Over);
        shared.members.forget_awaiter();
        shared.members.leave_host();
        let mut failures = shared.failures.take();
        failures.extend(self.error.take().map(|exception| KeptFailure {
            task: None,
            exception,
            unread: true,
            locals: None,
        }));
        match self.value.take() {
            Some(value) if failures.is_empty() => return Ok(value),
            // User code: Drop of the body's value.
            value => {
                if let Err(panic) = catch_drop(value) {
                    shared.members.tell_destructor(panic);
                }
            }
        }
        if let Some(scheduler) = shared.members.scheduler() {
            for failure in &mut failures {
                scheduler.handed_on(failure);
            }
        }
        Err(ExceptionGroup::new(failures, self.cancelled))
    }
}

impl<B: Future, J, R> Drop for Scope<'_, B, J, R> {
    fn drop(&mut self) {
        // The body failed, and the scope was left before that could be told to its caller.
        if let Some(exception) = self.error.take() {
            self.shared.tell(KeptFailure {
                task: None,
                exception,
                unread: true,
                locals: None,
            });
        }
    }
}

/// Ends a group whose scope is left before its end.
pub(super) struct Abandon<'a>(pub(super) &'a Shared);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
