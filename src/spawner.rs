//! Work from other threads.

use std::any::Any;
use std::error::Error;
use std::fmt::{self, Debug, Display};
use std::marker::PhantomData;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use crate::arena::cell::{Fallible, Judge, Plain};
use crate::arena::insert::fresh_id;
use crate::context::LocalHandle;
use crate::driving;
use crate::remote::handover::Handover;
use crate::remote_handle::RemoteHandle;
use crate::scheduler::Scheduler;
use crate::scheduler::delivery::Promise;
use crate::scheduler::messages::{Message, Messages};
use crate::task::TaskId;

/// Hands work to an executor from any thread; `Send`, `Sync` and `Clone`, and weak: it does not keep the executor alive.
///
/// What one thread sends runs in the order in which it was sent. Nothing here ever blocks.
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
    inbox: Option<Arc<Messages>>,
}

/// The executor is gone; this is what was to be run.
pub struct Closed<M>(pub M);

struct Call<C>(C);

impl<C: FnOnce(&LocalHandle<'static>) + Send + 'static> Message for Call<C> {
    fn run(self: Box<Self>, scheduler: &Rc<Scheduler>) {
        (self.0)(&LocalHandle::of(scheduler));
    }

    fn end(self: Box<Self>, _: &Rc<Scheduler>) {}

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// A task to be. `J` judges its output.
struct Spawn<M, T, J> {
    make: M,
    promise: Promise<T>,
    id: TaskId,
    location: &'static Location<'static>,
    _judge: PhantomData<fn() -> J>,
}

impl<M, F, J> Message for Spawn<M, F::Output, J>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
    J: Judge<F::Output> + 'static,
{
    fn run(self: Box<Self>, scheduler: &Rc<Scheduler>) {
        let Spawn {
            make,
            promise,
            id,
            location,
            ..
        } = *self;
        // The closure is called by the task's first poll, so that its panic is the task's.
        let future = driving::await_made(make);
        scheduler.spawn_for::<_, J>(promise, id, future, location);
    }

    fn end(self: Box<Self>, scheduler: &Rc<Scheduler>) {
        // It ends as the tasks do that are pending.
        self.run(scheduler);
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

    /// Spawns a task on the executor's thread: `make` is called there, in the next pass, and the future that it makes is
    /// polled and dropped there. Only the closure and the output cross threads.
    ///
    /// The task is like any other, but for its handle: it is owned by the executor, counted from when the executor has looked
    /// on, listed, and its failure reported by the executor's [`ReportPolicy`](crate::ReportPolicy). A panic of `make` is
    /// the task's. If the executor is dropped before its next pass, the closure is dropped uncalled, on the executor's
    /// thread, and the task ends like any that is pending then.
    ///
    /// # Errors
    ///
    /// [`Closed`] with the closure, if the executor is gone.
    ///
    /// # Panics
    ///
    /// Out of task ids.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use mainstay::Executor;
    ///
    /// let ex = Executor::new();
    /// let spawner = ex.spawner();
    /// let handle = std::thread::spawn(move || {
    ///     spawner.spawn(|| async {
    ///         let count = Rc::new(Cell::new(1)); // not `Send`, and it need not be
    ///         mainstay::yield_now().await;
    ///         count.get()
    ///     })
    /// });
    /// let handle = handle.join().unwrap().unwrap();
    /// assert_eq!(ex.block_on(handle).unwrap(), 1);
    ///
    /// let spawner = ex.spawner();
    /// drop(ex);
    /// let closed = spawner.spawn(|| async { "nobody is at home" }).unwrap_err();
    /// let _make = closed.0; // nothing is lost
    /// ```
    #[doc(alias = "run_coroutine_threadsafe")]
    #[doc(alias = "spawn_from_within")]
    #[track_caller]
    pub fn spawn<M, F>(&self, make: M) -> Result<RemoteHandle<F::Output>, Closed<M>>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        self.send_spawn::<M, F, Plain>(make, Location::caller())
    }

    /// [`spawn`](Self::spawn), for a task whose `Err` is a failure, like a panic.
    ///
    /// # Errors
    ///
    /// [`Closed`] with the closure, if the executor is gone.
    ///
    /// # Panics
    ///
    /// Out of task ids.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::Executor;
    ///
    /// let ex = Executor::new();
    /// ex.set_exception_handler(|_, report| {
    ///     assert_eq!(report.exception().unwrap().message(), "no such host");
    /// });
    /// let spawner = ex.spawner();
    /// let handle = spawner.spawn_fallible(|| async { Err::<(), _>("no such host") }).unwrap();
    /// assert_eq!(ex.block_on(handle).unwrap(), Err("no such host"));
    /// assert_eq!(ex.stats().reported, 1);
    /// ```
    #[track_caller]
    pub fn spawn_fallible<M, F, T, E>(
        &self,
        make: M,
    ) -> Result<RemoteHandle<Result<T, E>>, Closed<M>>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + 'static,
        T: Send + 'static,
        E: Display + Debug + Send + 'static,
    {
        self.send_spawn::<M, F, Fallible>(make, Location::caller())
    }

    #[track_caller]
    fn send_spawn<M, F, J>(
        &self,
        make: M,
        location: &'static Location<'static>,
    ) -> Result<RemoteHandle<F::Output>, Closed<M>>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
        J: Judge<F::Output> + 'static,
    {
        let Some(inbox) = &self.inbox else {
            return Err(Closed(make));
        };
        let id = fresh_id();
        let handover = Arc::new(Handover::new());
        let spawn = Spawn::<M, F::Output, J> {
            make,
            promise: Promise::new(&handover),
            id,
            location,
            _judge: PhantomData,
        };
        match send(inbox, spawn) {
            Ok(()) => Ok(RemoteHandle::new(handover, Arc::clone(inbox), id)),
            Err(refused) => Err(Closed(refused.make)),
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
        send(inbox, Call(call)).map_err(|refused| Closed(refused.0))
    }

    /// Whether the executor is gone.
    pub fn is_closed(&self) -> bool {
        self.inbox.as_ref().is_none_or(|inbox| inbox.is_closed())
    }
}

/// Sends a message, or gives it back as what it was.
fn send<M: Message + 'static>(inbox: &Messages, message: M) -> Result<(), M> {
    inbox
        .send(Box::new(message))
        .map_err(|refused| match refused.into_any().downcast::<M>() {
            Ok(message) => *message,
            Err(_) => unreachable!("a refused message is the one that was sent"),
        })
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

impl Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner")
            .field("closed", &self.is_closed())
            .finish()
    }
}

impl<M> Debug for Closed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closed").finish_non_exhaustive()
    }
}

impl<M> Display for Closed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the executor is gone")
    }
}

impl<M> Error for Closed<M> {}
