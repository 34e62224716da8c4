//! What a task can reach: the local handle, and the free functions that use the running executor.

use std::any::Any;
use std::cell::Cell;
use std::fmt::{self, Debug, Display};
use std::future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::arena::afterlife::{self, Refused};
use crate::arena::cell::{Fallible, Judge, Plain};
use crate::arena::claim::Claim;
use crate::arena::owner::Gate;
use crate::completion::Group;
use crate::driving;
use crate::exception_context::{ContextKind, ExceptionContext};
use crate::join::JoinHandle;
use crate::report::{self, Installed};
use crate::scheduler::counters::Stats;
use crate::scheduler::{ENDLESS, GONE, Scheduler};
use crate::task::TaskInfo;
use crate::unwind::catch_drop;

/// An exception handler as [`Executor::exception_handler`](crate::Executor::exception_handler) gives it back: to be
/// wrapped, or put in place again.
pub type ExceptionHandler = Rc<dyn Fn(&LocalHandle<'static>, &ExceptionContext<'_>)>;

/// Reaches an executor from its own thread. Weak: it keeps neither the executor nor its tasks alive.
///
/// A task that borrows from outside spawns borrowing tasks through it; an exception handler is given one, to spawn,
/// cancel and stop. When the executor is gone, spawning drops the future unpolled and gives a handle that reads as
/// cancelled, and everything else does nothing.
///
/// A chain of destructors that spawn one another on an executor that is gone does not grow the stack through handles of what
/// borrows nothing ([`LocalHandle::current`], and those that handlers are given); through a handle from
/// [`Executor::handle`](crate::Executor::handle), whose tasks may borrow, each is dropped within the one before.
#[doc(alias = "Handle")]
pub struct LocalHandle<'env> {
    scheduler: Weak<Scheduler>,
    gate: Gate<'env>,
}

impl LocalHandle<'static> {
    /// The running executor's handle.
    ///
    /// # Panics
    ///
    /// Outside of a running executor; see [`try_current`](Self::try_current).
    #[doc(alias = "get_running_loop")]
    #[track_caller]
    pub fn current() -> Self {
        match Self::try_current() {
            Some(handle) => handle,
            None => nobody_runs("LocalHandle::current"),
        }
    }

    /// The running executor's handle; `None` outside of a running executor.
    pub fn try_current() -> Option<Self> {
        driving::current().map(|scheduler| Self::of(&scheduler))
    }

    pub(crate) fn of(scheduler: &Rc<Scheduler>) -> Self {
        LocalHandle {
            gate: scheduler.arena().static_gate(),
            scheduler: Rc::downgrade(scheduler),
        }
    }
}

impl<'env> LocalHandle<'env> {
    pub(crate) fn new(scheduler: &Rc<Scheduler>, gate: Gate<'env>) -> Self {
        LocalHandle {
            scheduler: Rc::downgrade(scheduler),
            gate,
        }
    }

    pub(crate) fn weak(&self) -> &Weak<Scheduler> {
        &self.scheduler
    }

    pub(crate) fn gate(&self) -> Gate<'env> {
        self.gate
    }

    pub(crate) fn live(&self) -> Option<Rc<Scheduler>> {
        self.scheduler.upgrade()
    }

    /// Spawns a task. See [`Executor::spawn`](crate::Executor::spawn).
    #[doc(alias = "create_task")]
    #[doc(alias = "spawn_local")]
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'env,
        F::Output: 'env,
    {
        self.task().spawn(future)
    }

    /// Spawns a task whose `Err` is a failure. See [`Executor::spawn_fallible`](crate::Executor::spawn_fallible).
    #[track_caller]
    pub fn spawn_fallible<F, T, E>(&self, future: F) -> JoinHandle<Result<T, E>>
    where
        F: Future<Output = Result<T, E>> + 'env,
        T: 'env,
        E: Display + Debug + 'static,
    {
        self.task().spawn_fallible(future)
    }

    /// Starts a spawn with options.
    pub fn task(&self) -> TaskBuilder<'_, 'env> {
        TaskBuilder::new(self.live(), self.gate)
    }

    /// See [`Executor::stop`](crate::Executor::stop).
    pub fn stop(&self) {
        if let Some(scheduler) = self.live() {
            scheduler.stop();
        }
    }

    /// See [`Executor::stop_with`](crate::Executor::stop_with).
    pub fn stop_with(&self, payload: Box<dyn Any + Send>) {
        if let Some(scheduler) = self.live() {
            scheduler.stop_with(payload);
        }
    }

    /// See [`Executor::tasks`](crate::Executor::tasks).
    #[doc(alias = "all_tasks")]
    pub fn tasks(&self) -> Vec<TaskInfo> {
        self.live()
            .map_or_else(Vec::new, |scheduler| scheduler.tasks())
    }

    /// See [`Executor::stats`](crate::Executor::stats). All zero when the executor is gone.
    pub fn stats(&self) -> Stats {
        self.live()
            .map_or_else(Stats::default, |scheduler| stats(&scheduler))
    }

    /// See [`Executor::now`](crate::Executor::now).
    #[doc(alias = "time")]
    pub fn now(&self) -> Instant {
        self.live()
            .map_or_else(Instant::now, |scheduler| scheduler.now())
    }

    /// See [`Executor::idle`](crate::Executor::idle). Ready at once when the executor is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn idle(&self) {
        idle(self.scheduler.clone()).await;
    }

    /// See [`Executor::set_exception_handler`](crate::Executor::set_exception_handler).
    pub fn set_exception_handler(
        &self,
        handler: impl Fn(&LocalHandle<'static>, &ExceptionContext<'_>) + 'static,
    ) {
        match self.live() {
            Some(scheduler) => set_handler(&scheduler, Some(Rc::new(handler))),
            None => {
                // User code: Drop of the handler's captures.
                if let Err(panic) = catch_drop(handler) {
                    driving::tell_destructor(panic, None);
                }
            }
        }
    }

    /// See [`Executor::clear_exception_handler`](crate::Executor::clear_exception_handler).
    pub fn clear_exception_handler(&self) {
        if let Some(scheduler) = self.live() {
            set_handler(&scheduler, None);
        }
    }

    /// See [`Executor::exception_handler`](crate::Executor::exception_handler).
    #[doc(alias = "get_exception_handler")]
    pub fn exception_handler(&self) -> Option<ExceptionHandler> {
        get_handler(&*self.live()?)
    }

    /// See [`Executor::has_exception_handler`](crate::Executor::has_exception_handler).
    pub fn has_exception_handler(&self) -> bool {
        self.exception_handler().is_some()
    }

    /// See [`Executor::call_exception_handler`](crate::Executor::call_exception_handler). When the executor is gone, the
    /// default handler is called: no report is lost.
    pub fn call_exception_handler(&self, context: &ExceptionContext<'_>) {
        match self.live() {
            Some(scheduler) => scheduler.report(context),
            None => report::default(context),
        }
    }

    /// See [`Executor::default_exception_handler`](crate::Executor::default_exception_handler).
    pub fn default_exception_handler(&self, context: &ExceptionContext<'_>) {
        report::default(context);
    }
}

impl Clone for LocalHandle<'_> {
    fn clone(&self) -> Self {
        LocalHandle {
            scheduler: self.scheduler.clone(),
            gate: self.gate,
        }
    }
}

impl Debug for LocalHandle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalHandle")
            .field("alive", &(self.scheduler.strong_count() > 0))
            .finish_non_exhaustive()
    }
}

/// Makes a handler callable without the executor, which it is given.
pub(crate) fn installed(scheduler: &Weak<Scheduler>, handler: ExceptionHandler) -> Installed {
    let weak = Weak::clone(scheduler);
    let call = Rc::clone(&handler);
    Installed {
        call: Rc::new(move |context| {
            // Weak, as a handler must not keep its executor alive; while it is called, the executor is there.
            if let Some(scheduler) = weak.upgrade() {
                call(&LocalHandle::of(&scheduler), context);
            }
        }),
        original: Rc::new(handler),
    }
}

pub(crate) fn set_handler(scheduler: &Scheduler, handler: Option<ExceptionHandler>) {
    let installed = handler.map(|handler| installed(&scheduler.weak(), handler));
    if let Err(panic) = scheduler.reporter.set_handler(installed) {
        scheduler.tell(
            ContextKind::Destructor,
            "Panic in the destructor of an exception handler",
            Some(panic),
            None,
        );
    }
}

pub(crate) fn get_handler(scheduler: &Scheduler) -> Option<ExceptionHandler> {
    let original = scheduler.reporter.handler()?.original;
    original.downcast_ref::<ExceptionHandler>().cloned()
}

pub(crate) fn stats(scheduler: &Scheduler) -> Stats {
    scheduler.counters.stats(scheduler.reporter.count())
}

/// Ready when no other task is live.
pub(crate) fn idle(scheduler: Weak<Scheduler>) -> impl Future<Output = ()> {
    struct Idler {
        scheduler: Weak<Scheduler>,
        id: Option<u64>,
    }
    impl Drop for Idler {
        fn drop(&mut self) {
            if let (Some(scheduler), Some(id)) = (self.scheduler.upgrade(), self.id) {
                scheduler.remove_idler(id);
            }
        }
    }
    let mut idler = Idler {
        scheduler,
        id: None,
    };
    future::poll_fn(move |cx| match idler.scheduler.upgrade() {
        Some(scheduler) if !scheduler.is_idle() => {
            let id = *idler.id.get_or_insert_with(|| scheduler.new_listener());
            scheduler.set_idler(id, cx.waker());
            // Cloning a foreign waker may have ended the last task.
            if scheduler.is_idle() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }
        _ => Poll::Ready(()),
    })
}

/// A spawn with options. Made by [`Executor::task`](crate::Executor::task).
///
/// ```
/// use mainstay::Executor;
///
/// let ex = Executor::new();
/// let fetch = ex.task().name("fetch").spawn(async { 7 });
/// assert_eq!(ex.tasks()[0].name(), "fetch");
/// assert_eq!(ex.block_on(fetch).unwrap(), 7);
/// ```
#[must_use = "nothing is spawned before `.spawn(future)`"]
pub struct TaskBuilder<'a, 'env> {
    scheduler: Option<Rc<Scheduler>>,
    gate: Gate<'env>,
    name: Option<Arc<str>>,
    background: bool,
    group: Option<Rc<dyn Group>>,
    _from: PhantomData<&'a ()>,
}

impl<'env> TaskBuilder<'_, 'env> {
    pub(crate) fn new(scheduler: Option<Rc<Scheduler>>, gate: Gate<'env>) -> Self {
        TaskBuilder {
            scheduler,
            gate,
            name: None,
            background: false,
            group: None,
            _from: PhantomData,
        }
    }

    /// Makes the task a member of a group.
    pub(crate) fn in_group(mut self, group: Rc<dyn Group>) -> Self {
        self.group = Some(group);
        self
    }

    /// Names the task; the name is in its reports. An empty name is a name.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Marks a task that is meant to run until the executor goes: it gets no report of kind
    /// [`DestroyedPending`](ContextKind::DestroyedPending) then, and [`idle`](crate::Executor::idle) does not wait for it.
    pub fn background(mut self) -> Self {
        self.background = true;
        self
    }

    /// Spawns the task. See [`Executor::spawn`](crate::Executor::spawn).
    #[track_caller]
    pub fn spawn<F>(self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'env,
        F::Output: 'env,
    {
        self.insert::<F, Plain>(future, Location::caller())
    }

    /// Spawns a task whose `Err` is a failure. See [`Executor::spawn_fallible`](crate::Executor::spawn_fallible).
    #[track_caller]
    pub fn spawn_fallible<F, T, E>(self, future: F) -> JoinHandle<Result<T, E>>
    where
        F: Future<Output = Result<T, E>> + 'env,
        T: 'env,
        E: Display + Debug + 'static,
    {
        self.insert::<F, Fallible>(future, Location::caller())
    }

    #[track_caller]
    pub(crate) fn insert<F, J>(
        self,
        future: F,
        location: &'static Location<'static>,
    ) -> JoinHandle<F::Output>
    where
        F: Future + 'env,
        J: Judge<F::Output>,
    {
        let Some(scheduler) = self.scheduler else {
            return refused(self.gate, future, self.name);
        };
        let why = self.group.as_ref().and_then(|group| group.refusal());
        let mut claim = match why {
            Some(why) => scheduler.turn_away(self.gate, future, why),
            None => {
                scheduler.spawn_prepared::<F, J>(self.gate, self.group, future, location, |claim| {
                    if let Some(name) = &self.name {
                        if let Some(record) = claim.extras() {
                            record.borrow_mut().name = Some(Arc::clone(name));
                        }
                    }
                    if self.background {
                        claim.set_background();
                        scheduler.counters.background.add(1);
                    }
                })
            }
        };
        if let Some(name) = self.name {
            claim.set_name(name);
        }
        JoinHandle::new(claim)
    }
}

/// A spawn on an executor that is gone, and of which nothing remains.
#[cold]
fn refused<'env, F: Future + 'env>(
    gate: Gate<'env>,
    future: F,
    name: Option<Arc<str>>,
) -> JoinHandle<F::Output> {
    let refused = afterlife::refuse(gate, future, &|panic| {
        report::default_destructor(panic, None);
    });
    if matches!(refused, Refused::Leaked) {
        report::default(&ExceptionContext::of(ContextKind::Destructor, ENDLESS));
    }
    JoinHandle::new(Claim::cancelled(name, GONE))
}

impl Debug for TaskBuilder<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder")
            .field("name", &self.name)
            .field("background", &self.background)
            .finish_non_exhaustive()
    }
}

#[track_caller]
fn running(what: &str) -> Rc<Scheduler> {
    match driving::current() {
        Some(scheduler) => scheduler,
        None => nobody_runs(what),
    }
}

#[cold]
#[track_caller]
fn nobody_runs(what: &str) -> ! {
    panic!(
        "mainstay: `{what}` was called outside of a running executor; call it from a task, a callback or a handler"
    )
}

/// Spawns a task on the running executor. See [`Executor::spawn`](crate::Executor::spawn); what it borrows must be
/// `'static`.
///
/// # Panics
///
/// Outside of a running executor.
#[doc(alias = "create_task")]
#[doc(alias = "ensure_future")]
#[doc(alias = "spawn_local")]
#[inline]
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    let scheduler = running("spawn");
    let gate = scheduler.arena().static_gate();
    JoinHandle::new(scheduler.spawn::<F, Plain>(gate, future, Location::caller()))
}

/// Spawns a task whose `Err` is a failure on the running executor. See
/// [`Executor::spawn_fallible`](crate::Executor::spawn_fallible); what it borrows must be `'static`.
///
/// # Panics
///
/// Outside of a running executor.
#[track_caller]
pub fn spawn_fallible<F, T, E>(future: F) -> JoinHandle<Result<T, E>>
where
    F: Future<Output = Result<T, E>> + 'static,
    E: Display + Debug + 'static,
{
    let scheduler = running("spawn_fallible");
    let gate = scheduler.arena().static_gate();
    JoinHandle::new(scheduler.spawn::<F, Fallible>(gate, future, Location::caller()))
}

/// Lets everything else that is ready run once. asyncio's `sleep(0)`.
///
/// # Cancel safety
///
/// Dropping the future loses nothing.
#[doc(alias = "sleep(0)")]
pub fn yield_now() -> impl Future<Output = ()> {
    YieldNow(Cell::new(false))
}

struct YieldNow(Cell<bool>);

impl Future for YieldNow {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.replace(true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The task that is being polled, or whose future is being dropped, on this thread; `None` elsewhere, also in callbacks
/// and handlers.
///
/// With executors nested, it is that of the innermost one.
pub fn current_task() -> Option<TaskInfo> {
    driving::current_task()
}
