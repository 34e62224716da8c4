//! Work from other threads.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::context::LocalHandle;
use crate::scheduler::Scheduler;
use crate::scheduler::inbox::{Inbox, Message};

/// Hands work to an executor from any thread; `Send`, `Sync` and `Clone`, and weak: it does not keep the executor alive.
///
/// ```
/// use mainstay::Executor;
///
/// let ex = Executor::new();
/// let spawner = ex.spawner();
/// let thread = std::thread::spawn(move || {
///     // This closure is made here and runs there: what it spawns need not be `Send`.
///     spawner.call_soon(|ex| ex.stop()).unwrap();
/// });
/// ex.run_forever();
/// thread.join().unwrap();
/// ```
#[derive(Clone)]
pub struct Spawner {
    /// `None`: made of a handle whose executor was gone.
    inbox: Option<Arc<Inbox>>,
}

/// The executor is gone; this is what was to be run.
pub struct Closed<M>(pub M);

struct Call<C>(C);

impl<C: FnOnce(&LocalHandle<'static>) + Send + 'static> Message for Call<C> {
    fn run(self: Box<Self>, scheduler: &Rc<Scheduler>) {
        (self.0)(&LocalHandle::of(scheduler));
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Spawner {
    pub(crate) fn of(scheduler: &Scheduler) -> Self {
        Spawner {
            inbox: Some(Arc::clone(scheduler.inbox())),
        }
    }

    /// Calls `call` on the executor's thread, in its next pass, after what was sent before.
    ///
    /// Never blocks. A panic of the closure is reported ([`ContextKind::Callback`](crate::ContextKind::Callback)). If the
    /// executor is dropped before its next pass, the closure is dropped uncalled, on the executor's thread.
    ///
    /// # Errors
    ///
    /// [`Closed`] with the closure, if the executor is gone.
    #[doc(alias = "call_soon_threadsafe")]
    pub fn call_soon<C>(&self, call: C) -> Result<(), Closed<C>>
    where
        C: FnOnce(&LocalHandle<'static>) + Send + 'static,
    {
        let Some(inbox) = &self.inbox else {
            return Err(Closed(call));
        };
        inbox.send(Box::new(Call(call))).map_err(|refused| {
            match refused.into_any().downcast::<Call<C>>() {
                Ok(call) => Closed(call.0),
                Err(_) => unreachable!("a refused message is the one that was sent"),
            }
        })
    }

    /// Whether the executor is gone.
    pub fn is_closed(&self) -> bool {
        self.inbox.as_ref().is_none_or(|inbox| inbox.is_closed())
    }
}

impl LocalHandle<'_> {
    /// See [`Executor::spawner`](crate::Executor::spawner). Closed when the executor is gone.
    pub fn spawner(&self) -> Spawner {
        match self.live() {
            Some(scheduler) => Spawner::of(&scheduler),
            None => Spawner { inbox: None },
        }
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner")
            .field("closed", &self.is_closed())
            .finish()
    }
}

impl<M> fmt::Debug for Closed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closed").finish_non_exhaustive()
    }
}

impl<M> fmt::Display for Closed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the executor is gone")
    }
}

impl<M> Error for Closed<M> {}
