//! Handles of tasks, whatever their output.

use std::any::Any;
use std::pin::Pin;
use std::task::{Context, Poll};

use mainstay::{CancelHandle, JoinHandle, Outcome};

use crate::acts::act;
use crate::canary::Wild;
use crate::choices::once_in;
use crate::contained::{lenient, strict};

pub(crate) type BoxHandle = Box<dyn Handle>;

pub(crate) trait Handle {
    fn result(&mut self);
    fn cancel(&self);
    fn call_back(&self);
    /// Whether it is of no more use.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool;
    fn look(&self);
    fn cancel_handle(&self) -> CancelHandle;
    fn cancel_on_drop(self: Box<Self>) -> Box<dyn Any>;
}

impl<T: 'static> Handle for JoinHandle<T> {
    fn result(&mut self) {
        let result = strict("JoinHandle::result", || JoinHandle::result(self));
        lenient(|| drop(result));
    }

    fn cancel(&self) {
        let reasoned = once_in(2);
        strict("JoinHandle::cancel", || {
            if reasoned {
                self.cancel_with_reason("so it was chosen")
            } else {
                JoinHandle::cancel(self)
            }
        });
    }

    fn call_back(&self) {
        let captured = Wild::new();
        let id = strict("add_done_callback", || {
            self.add_done_callback(move |done| {
                if let Outcome::Failed(exception) = done.outcome() {
                    lenient(|| exception.message().len());
                    act();
                    // The exception must be whole still, whatever was done meanwhile.
                    lenient(|| format!("{exception:?} {exception}"));
                }
                captured.run();
            })
        });
        if once_in(6) {
            strict("remove_done_callback", || self.remove_done_callback(id));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        // A panic is that of the waker's clone, or says that the outcome was taken before.
        lenient(|| match Future::poll(Pin::new(self), cx) {
            Poll::Ready(outcome) => {
                lenient(|| drop(outcome));
                true
            }
            Poll::Pending => false,
        })
        .unwrap_or(true)
    }

    fn look(&self) {
        strict("looking at a handle", || {
            format!(
                "{self:?} {} {} {} {}",
                self.id(),
                self.name(),
                self.is_finished(),
                self.is_cancelled()
            )
        });
        if let Ok(Some(exception)) = strict("exception", || self.exception()) {
            act();
            lenient(|| format!("{} {exception:?}", exception.message()));
        }
    }

    fn cancel_handle(&self) -> CancelHandle {
        JoinHandle::cancel_handle(self)
    }

    fn cancel_on_drop(self: Box<Self>) -> Box<dyn Any> {
        Box::new(JoinHandle::cancel_on_drop(*self))
    }
}
