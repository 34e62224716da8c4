//! The body of a scope: a future in its caller's own task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::unwind::{Panic, catch};

/// A scope's body, until it has returned or is cancelled.
pub(super) struct Body<'a, B: Future>(Pin<&'a mut Option<B>>);

/// What came of polling a body.
pub(super) enum Step<T> {
    Pending,
    /// It returned; its destructor may have panicked after that.
    Returned(T, Result<(), Box<Panic>>),
    Panicked(Box<Panic>),
}

impl<'a, B: Future> Body<'a, B> {
    pub(super) fn new(body: Pin<&'a mut Option<B>>) -> Self {
        Body(body)
    }

    pub(super) fn is_running(&self) -> bool {
        self.0.is_some()
    }

    /// Polls it, if it is still there, and drops it when it has returned.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Step<B::Output> {
        let Some(body) = self.0.as_mut().as_pin_mut() else {
            return Step::Pending;
        };
        // User code: the body's poll.
        match catch(|| body.poll(cx)) {
            Ok(Poll::Pending) => Step::Pending,
            Ok(Poll::Ready(value)) => Step::Returned(value, self.cancel()),
            Err(panic) => Step::Panicked(panic),
        }
    }

    /// Drops what is left of it.
    pub(super) fn cancel(&mut self) -> Result<(), Box<Panic>> {
        // User code: Drop of the body.
        catch(|| self.0.set(None))
    }
}
