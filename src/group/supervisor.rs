//! `Supervisor`: tasks that belong together and fail each for itself.

use std::fmt::{self, Debug, Display};
use std::future::{self, Future};
use std::panic::Location;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::arena::cell::{Fallible, Judge, Plain};
use crate::context::{LocalHandle, TaskBuilder};
use crate::driving;
use crate::exception_context::ExceptionContext;
use crate::join::JoinHandle;
use crate::scheduler::shutting::ShutdownReport;
use crate::unwind;

use super::body::{Body, Step};
use super::crew::{Crew, Ended};
use super::members::Request;
use super::restart::{GaveUp, RestartPolicy, oversee};

/// Tasks that belong together and fail each for itself: siblings go on.
///
/// A long-lived place for tasks that nobody awaits, owned by whatever has to do with them, a server or a window: callbacks
/// spawn into it ([`spawn`](Self::spawn) is an ordinary function), and when the owner goes, they go.
///
/// - **A failure is told at once**, whatever the executor's [`ReportPolicy`](crate::ReportPolicy): to the supervisor's own
///   handler ([`set_exception_handler`](Self::set_exception_handler)), or else to the executor's. Nothing is kept of it but
///   what the task's own handle holds.
/// - [`shutdown`](Self::shutdown) ends it gracefully, [`abort`](Self::abort) at once.
/// - **Dropping the last clone cancels the tasks**: they are gone when that returns, wherever it happens on this thread, but
///   for a task that does so from inside of its own poll, which goes right after it. A task that has a clone of its own
///   supervisor keeps it from that.
/// - [`scope`](Self::scope) is the form for one function, which waits for its tasks; [`TaskGroup`](crate::TaskGroup) is the
///   one for tasks of which none makes sense without the others.
///
/// # Examples
///
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use mainstay::{Executor, Supervisor};
///
/// # std::panic::set_hook(Box::new(|_| {}));
/// let ex = Executor::new();
/// let window = Supervisor::new_in(&ex.handle());
/// let status = Rc::new(RefCell::new(Vec::new()));
/// let line = Rc::clone(&status);
/// window.set_exception_handler(move |_, report| {
///     line.borrow_mut().push(report.exception().unwrap().message().into_owned());
/// });
///
/// // A button's callback, which is no task.
/// let on_click = |text: &'static str| window.spawn(async move { assert!(!text.is_empty(), "nothing to send") }).detach();
/// on_click("");
/// on_click("hello");
/// ex.run_until_stalled();
///
/// assert_eq!(*status.borrow(), ["nothing to send"]);
/// assert_eq!(ex.stats().returned, 1);
/// ```
#[derive(Clone)]
pub struct Supervisor {
    owner: Rc<Owner>,
}

/// The clones of a supervisor together: the tasks do not count.
struct Owner(Rc<Crew>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Supervisor {
    /// Makes a supervisor on the running executor.
    ///
    /// # Panics
    ///
    /// Outside of a running executor; see [`new_in`](Self::new_in).
    #[expect(
        clippy::new_without_default,
        reason = "it needs a running executor, which a Default should not"
    )]
    #[doc(alias = "PersistentTaskGroup")]
    #[track_caller]
    pub fn new() -> Self {
        let scheduler = driving::running("Supervisor::new");
        Supervisor::new_in(&LocalHandle::of(&scheduler))
    }

    /// Makes a supervisor on the executor of `ex`. Its tasks borrow nothing, whatever those of `ex` may borrow.
    pub fn new_in(ex: &LocalHandle<'_>) -> Self {
        Supervisor {
            owner: Rc::new(Owner(Crew::new(ex))),
        }
    }

    /// Runs `body` with a supervisor of its own, waits for all of its tasks, and gives what `body` gave.
    ///
    /// The tasks may spawn others until the last has ended. When [`shutdown`](Self::shutdown) or [`abort`](Self::abort) ends
    /// them, the body goes on to its own end.
    ///
    /// # Panics
    ///
    /// Outside of a running executor, and with the body's own panic; the tasks are gone by then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the body and every task; their destructors have run when the drop returns.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{Executor, Supervisor};
    ///
    /// let ex = Executor::new();
    /// ex.set_exception_handler(|_, report| assert_eq!(report.exception().unwrap().message(), "bad row"));
    /// let good = ex.block_on(Supervisor::scope(async |s| {
    ///     let rows = [Ok(1), Err("bad row"), Ok(3)];
    ///     let handles = rows.map(|row| s.spawn_fallible(async move { row }));
    ///     let mut good = 0;
    ///     for handle in handles {
    ///         good += handle.await.unwrap().unwrap_or(0);
    ///     }
    ///     good
    /// }));
    /// assert_eq!(good, 4);
    /// ```
    #[doc(alias = "TaskScope")]
    pub async fn scope<R, B>(body: B) -> R
    where
        B: AsyncFnOnce(&Supervisor) -> R,
    {
        let scheduler = driving::running("Supervisor::scope");
        let supervisor = Supervisor::new_in(&LocalHandle::of(&scheduler));
        let crew = Rc::clone(&supervisor.owner.0);
        crew.members.be_hosted_by(scheduler.arena().running());
        drop(scheduler);
        let body = pin!(Some(body(&supervisor)));
        let mut body = Body::new(body);
        let mut request = Request::new(&crew.members);
        let mut value = None;
        // Made after the body, so that it is dropped before it: the tasks go first.
        let _abort = Abort(&crew);
        future::poll_fn(|cx| {
            crew.members.set_awaiter(cx.waker());
            request.pass_on(&crew.members, cx);
            match body.poll(cx) {
                Step::Pending => {}
                Step::Returned(returned, Ok(())) => value = Some(returned),
                Step::Returned(_, Err(panic)) | Step::Panicked(panic) => {
                    // The body's panic is its caller's own. The tasks go first.
                    crew.abort();
                    if let Err(also) = body.cancel() {
                        crew.members.tell_destructor(also);
                    }
                    unwind::resume(*panic)
                }
            }
            crew.members.wait_for_all(!body.is_running());
            crew.members.settle_asking();
            match value.take() {
                Some(value) if crew.members.is_empty() => Poll::Ready(value),
                other => {
                    value = other;
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Spawns a task. Its panic is told, and the others go on.
    ///
    /// When the supervisor has been shut down or aborted, the future is dropped unpolled, and the handle reads as cancelled,
    /// with a reason that says so.
    #[doc(alias = "create_task")]
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
    {
        self.task().spawn(future)
    }

    /// Spawns a task whose `Err` is a failure, and told like a panic.
    #[track_caller]
    pub fn spawn_fallible<F, T, E>(&self, future: F) -> JoinHandle<Result<T, E>>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
        E: Display + Debug + 'static,
    {
        self.task().spawn_fallible(future)
    }

    /// Starts a spawn with options: `.name(..)`, `.background()`.
    pub fn task(&self) -> TaskBuilder<'_, 'static> {
        self.owner.0.builder()
    }

    /// Spawns a task that is made anew when it has ended, as `policy` says.
    ///
    /// What `factory` makes runs as a task of its own each time, and its failure is told like any task's; a panic of
    /// `factory` is one. The handle is that of the task that oversees them: cancelling it cancels the one that runs; it
    /// returns when there is nothing to restart any more, because the task has returned, was cancelled or is
    /// [asked to end](crate::cancel_requested). When it gives up, it fails with [`GaveUp`], which is told too.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use std::time::Duration;
    /// use mainstay::{Executor, RestartPolicy, Supervisor};
    ///
    /// # std::panic::set_hook(Box::new(|_| {}));
    /// let ex = Executor::builder().virtual_clock().build();
    /// let told = Rc::new(Cell::new(0));
    /// let (told_too, attempts) = (Rc::clone(&told), Rc::new(Cell::new(0)));
    /// ex.block_on(Supervisor::scope(async |s| {
    ///     s.set_exception_handler(move |_, _| told_too.set(told_too.get() + 1));
    ///     let policy = RestartPolicy::on_failure().limit(3, Duration::from_secs(60));
    ///     let poller = move || {
    ///         attempts.set(attempts.get() + 1);
    ///         let attempt = attempts.get();
    ///         async move { assert!(attempt == 3, "no connection") }
    ///     };
    ///     s.spawn_restarting(poller, policy).await.unwrap().unwrap();
    /// }));
    /// assert_eq!(told.get(), 2, "the third attempt returned");
    /// ```
    #[track_caller]
    pub fn spawn_restarting<M, F>(
        &self,
        factory: M,
        policy: RestartPolicy,
    ) -> JoinHandle<Result<(), GaveUp>>
    where
        M: Fn() -> F + 'static,
        F: Future + 'static,
    {
        self.restart::<Plain, M, F>(factory, policy, Location::caller())
    }

    /// [`spawn_restarting`](Self::spawn_restarting) for tasks whose `Err` is a failure.
    #[track_caller]
    pub fn spawn_restarting_fallible<M, F, T, E>(
        &self,
        factory: M,
        policy: RestartPolicy,
    ) -> JoinHandle<Result<(), GaveUp>>
    where
        M: Fn() -> F + 'static,
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
        E: Display + Debug + 'static,
    {
        self.restart::<Fallible, M, F>(factory, policy, Location::caller())
    }

    fn restart<J, M, F>(
        &self,
        factory: M,
        policy: RestartPolicy,
        location: &'static Location<'static>,
    ) -> JoinHandle<Result<(), GaveUp>>
    where
        M: Fn() -> F + 'static,
        F: Future + 'static,
        J: Judge<F::Output> + 'static,
    {
        let crew = Rc::clone(&self.owner.0);
        let mut builder = crew.builder();
        if let Some(name) = &policy.name {
            builder = builder.name(format!("{name} (restarting)"));
        }
        let overseer = oversee::<J, F>(crew, factory, policy, location);
        builder.insert::<_, Fallible>(overseer, location)
    }

    /// Sets the supervisor's own exception handler: it is told of its tasks' failures, and the executor's is not.
    ///
    /// It is called like that one ([`Executor::set_exception_handler`](crate::Executor::set_exception_handler)). If it
    /// panics, the executor's handler is told, with the task's report as
    /// [`original`](ExceptionContext::original). It is dropped when the supervisor is closed and its last task has ended.
    pub fn set_exception_handler(
        &self,
        handler: impl Fn(&LocalHandle<'static>, &ExceptionContext<'_>) + 'static,
    ) {
        self.owner.0.set_handler(Some(Rc::new(handler)));
    }

    /// Back to the executor's handler.
    pub fn clear_exception_handler(&self) {
        self.owner.0.set_handler(None);
    }

    /// Bounds how many tasks run at once; see [`TaskGroup::limit`](crate::TaskGroup::limit).
    ///
    /// # Panics
    ///
    /// If `tasks` is 0.
    #[track_caller]
    pub fn limit(&self, tasks: usize) -> &Self {
        self.owner.0.members.set_limit(tasks);
        self
    }

    /// Waits until a task that is spawned now would run at once; see [`TaskGroup::room`](crate::TaskGroup::room).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn room(&self) {
        self.owner.0.members.room().await;
    }

    /// Asks every task to end, runs them on for as long as one that listens is live, `grace` at most, and cancels what is
    /// left.
    ///
    /// It begins at the first poll, and then goes on by itself: dropping the future does not stop it. Every task's
    /// [`cancel_requested`](crate::cancel_requested) becomes ready, and is ready from the start for those that are spawned
    /// meanwhile, as it is in the groups that the tasks have of their own. When each has had its turn and none is live that
    /// has ever polled a `cancel_requested`, or at the end of the grace, all that is left is cancelled, and the supervisor is
    /// closed. A task that goes on spawning others cannot hang this: after 100 rounds of such the next are refused.
    ///
    /// Any task may call this, any number of times; all get the same report, and the shortest grace is the one that counts.
    /// A task of this supervisor's that calls it is cancelled with the rest, at its `await`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses only the report.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::{Executor, Supervisor, cancel_requested, sleep};
    ///
    /// let ex = Executor::builder().virtual_clock().build();
    /// let report = ex.block_on(async {
    ///     let s = Supervisor::new();
    ///     s.spawn(async {
    ///         cancel_requested().await;
    ///         sleep(Duration::from_secs(1)).await; // says good-bye
    ///     })
    ///     .detach();
    ///     s.spawn(std::future::pending::<()>()).detach();
    ///     mainstay::yield_now().await;
    ///     s.shutdown(Duration::from_secs(5)).await
    /// });
    /// assert_eq!((report.finished(), report.dropped()), (1, 1));
    /// ```
    #[doc(alias = "aclose")]
    pub fn shutdown(&self, grace: Duration) -> impl Future<Output = ShutdownReport> + use<> {
        // A clone, so that the grace does not end with the caller's own.
        let supervisor = self.clone();
        async move {
            let crew = &supervisor.owner.0;
            crew.begin_end(grace);
            Ended::new(Rc::clone(crew)).await
        }
    }

    /// Cancels every task, now, and closes the supervisor: their destructors have run when this returns, but for a task that
    /// is on the poll stack, which goes right after its poll. Ends a [`shutdown`](Self::shutdown) that is under way.
    pub fn abort(&self) {
        self.owner.0.abort();
    }

    /// How many tasks have not ended.
    pub fn len(&self) -> usize {
        self.owner.0.members.len()
    }

    /// Whether every task has ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing can be spawned any more.
    pub fn is_closed(&self) -> bool {
        self.owner.0.is_closed()
    }
}

impl Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("len", &self.len())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// Ends a supervisor whose scope is left.
struct Abort<'a>(&'a Crew);

impl Drop for Abort<'_> {
    fn drop(&mut self) {
        self.0.abort();
        // Nobody polls the scope any more.
        self.0.members.forget_awaiter();
        self.0.members.leave_host();
    }
}
