//! The executor: the owner of it all, and the ways of driving it.

use std::any::Any;
use std::fmt::{self, Debug, Display};
use std::panic::{Location, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::arena::cell::{Fallible, Judge, Plain};
use crate::arena::claim::Claim;
use crate::arena::driven::Driven;
use crate::arena::owner::Owner;
use crate::arena::roots::Root;
use crate::call::CallHandle;
use crate::context::{self, ExceptionHandler, LocalHandle, TaskBuilder};
use crate::driving;
use crate::error::Stopped;
use crate::exception_context::ExceptionContext;
use crate::join::JoinHandle;
use crate::locals;
use crate::report;
use crate::rooted::{Driving, Rooted, unwind};
use crate::scheduler::counters::Stats;
use crate::scheduler::{Scheduler, Settings};
use crate::spawner::Spawner;
use crate::task::TaskInfo;
#[cfg(feature = "tracing")]
use crate::task_spans;

/// A single-threaded executor. It owns every task spawned on it until the task ends.
///
/// `'env` is what tasks may borrow from: anything declared before the executor.
///
/// ```
/// use std::cell::Cell;
/// use mainstay::Executor;
///
/// let total = Cell::new(0); // declared first, so that tasks may borrow it
/// let ex = Executor::new();
/// for n in 1..=3 {
///     let total = &total;
///     ex.spawn(async move { total.set(total.get() + n) }).detach();
/// }
/// ex.run_until_stalled();
/// assert_eq!(total.get(), 6);
/// ```
///
/// It stays on its thread:
///
/// ```compile_fail
/// fn assert_send<T: Send>() {}
/// assert_send::<mainstay::Executor<'static>>();
/// ```
///
/// and what tasks borrow must outlive it:
///
/// ```compile_fail
/// let ex = mainstay::Executor::new();
/// let late = String::new();
/// ex.spawn(async { println!("{late}") }).detach();
/// ```
///
/// # Dropping
///
/// Every task that is pending is dropped, in spawn order; its done callbacks run with `Cancelled`, and it gets one report
/// of kind [`DestroyedPending`](crate::ContextKind::DestroyedPending), unless it was cancelled before or spawned with
/// [`.background()`](TaskBuilder::background). What destructors spawn meanwhile is dropped too. Failures in handles that
/// nobody has read are reported. Handles live on; wakers kept elsewhere do nothing from then on.
#[doc(alias = "LocalExecutor")]
#[doc(alias = "EventLoop")]
#[doc(alias = "LocalSet")]
pub struct Executor<'env> {
    // Declared before the scheduler, so that it is dropped first: its drop is what 'env relies on.
    owner: Owner<'env>,
    scheduler: Rc<Scheduler>,
}

/// What one turn of an executor came to: all that a host loop needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Polls and callbacks made.
    pub polls: usize,
    /// There is more to do at once: call again.
    pub more: bool,
    /// Call again then, at the latest, or when the [`on_wake`](Executor::on_wake) hook fires.
    pub next_deadline: Option<Instant>,
}

impl<'env> Executor<'env> {
    /// Makes an executor with default settings.
    ///
    /// # Panics
    ///
    /// When 16,383 executors are alive in the process already (31 on 32-bit targets).
    #[doc(alias = "new_event_loop")]
    #[track_caller]
    pub fn new() -> Self {
        Executor::with_settings(Settings::default())
    }

    #[track_caller]
    pub(crate) fn with_settings(
        #[cfg_attr(
            not(feature = "tracing"),
            expect(unused_mut, reason = "a feature adds hooks")
        )]
        mut settings: Settings,
    ) -> Self {
        #[cfg(feature = "tracing")]
        task_spans::add(&mut settings.hooks);
        let owner = Owner::new();
        owner.arena().reserve(settings.capacity);
        let scheduler = Scheduler::new(Rc::clone(owner.arena()), settings);
        Executor { owner, scheduler }
    }

    // --- running ----------------------------------------------------------------------------------------------------

    /// Runs `root` to its end, and every task in turn, and gives what `root` gives. Parks the thread while there is
    /// nothing to do.
    ///
    /// The root is polled whenever it was woken, once per pass. It need be neither `'static` nor `Send`, and it is no
    /// task: it is not counted, and its failure is not reported. Tasks that are pending when it ends stay, and go on at
    /// the next drive.
    ///
    /// # Panics
    ///
    /// With the root's own panic, after the root was dropped; the executor stays usable. If [`stop`](Self::stop) came
    /// before the root had finished, or with the payload of [`stop_with`](Self::stop_with). If this executor is being
    /// driven already. A panic in a task does not come out here: see
    /// [`set_exception_handler`](Self::set_exception_handler).
    ///
    /// # Examples
    ///
    /// ```
    /// let ex = mainstay::Executor::new();
    /// let answer = ex.block_on(async { 40 + 2 });
    /// assert_eq!(answer, 42);
    /// ```
    #[doc(alias = "run_until_complete")]
    #[track_caller]
    pub fn block_on<F: Future>(&self, root: F) -> F::Output {
        self.drive_root("block_on", root)
            .into_value(&self.scheduler)
    }

    /// [`block_on`](Self::block_on) for programs in which [`stop`](Self::stop) is ordinary.
    ///
    /// # Errors
    ///
    /// [`Stopped`], if a stop came before the root had finished. A root given as `Pin<&mut F>` can be resumed by a later
    /// call; another one has been dropped.
    ///
    /// # Panics
    ///
    /// With the root's own panic; if this executor is being driven already.
    #[track_caller]
    pub fn try_block_on<F: Future>(&self, root: F) -> Result<F::Output, Stopped> {
        match self.drive_root("try_block_on", root) {
            Driving::Finished(value) => Ok(value),
            Driving::Panicked(panic, noted) => unwind(&self.scheduler, *panic, noted),
            Driving::Stopped(payload) => Err(Stopped::new(payload)),
        }
    }

    /// Runs tasks until [`stop`](Self::stop), parking the thread while there is nothing to do.
    ///
    /// # Panics
    ///
    /// With the payload of [`stop_with`](Self::stop_with). If this executor is being driven already.
    #[track_caller]
    pub fn run_forever(&self) {
        let payload = self.drive("run_forever", |driven| {
            loop {
                self.scheduler.passes(driven);
                if self.scheduler.is_stopping() {
                    return self.scheduler.take_stop();
                }
                self.park_if_idle(None, None);
            }
        });
        self.scheduler.tell_hosts();
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }

    /// Ends what drives the executor, politely: the pass that is being made goes on to its end first.
    ///
    /// A root that is ready in that pass still wins; else [`block_on`](Self::block_on) panics and
    /// [`try_block_on`](Self::try_block_on) gives [`Stopped`]. The other ways of driving just return. While nothing is
    /// being driven, this ends the next drive after one pass that does not block. Tasks stay as they are.
    pub fn stop(&self) {
        self.scheduler.stop();
    }

    /// Ends what drives the executor, fatally: at the end of the pass it unwinds with `payload`, even if the root is
    /// ready. The way for "crash on any task panic", and for what asyncio does with `KeyboardInterrupt`.
    ///
    /// [`try_block_on`](Self::try_block_on) gives [`Stopped`] with the payload instead. The first payload wins, later
    /// ones are reported.
    ///
    /// ```
    /// use mainstay::Executor;
    ///
    /// # std::panic::set_hook(Box::new(|_| {}));
    /// let ex = Executor::new();
    /// ex.set_exception_handler(|ex, report| {
    ///     ex.stop_with(Box::new(report.to_string()));
    /// });
    /// ex.spawn(async { panic!("unrecoverable") }).detach();
    /// let stopped = ex.try_block_on(std::future::pending::<()>()).unwrap_err();
    /// let payload = stopped.into_payload().unwrap();
    /// assert!(payload.downcast_ref::<String>().unwrap().contains("unrecoverable"));
    /// ```
    pub fn stop_with(&self, payload: Box<dyn Any + Send>) {
        self.scheduler.stop_with(payload);
    }

    /// Makes passes until nothing is ready. Never blocks. A task that wakes itself for ever keeps this from returning;
    /// see [`tick`](Self::tick).
    ///
    /// # Panics
    ///
    /// With the payload of [`stop_with`](Self::stop_with). If this executor is being driven already.
    #[track_caller]
    pub fn run_until_stalled(&self) -> Progress {
        let (progress, payload) = self.drive("run_until_stalled", |driven| {
            let before = self.scheduler.counters.polls.get();
            let mut calls = 0;
            loop {
                calls += self.scheduler.passes(driven);
                if self.scheduler.is_stopping() {
                    break;
                }
                if !self.scheduler.has_work() {
                    self.scheduler.look_at_clock_now();
                    if !self.scheduler.has_work() {
                        break;
                    }
                }
            }
            let polls = self.scheduler.counters.polls.get() - before;
            let polls = usize::try_from(polls).unwrap_or(usize::MAX);
            (self.progress(polls.saturating_add(calls)), self.end_stop())
        });
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
        progress
    }

    /// Makes one pass of at most `budget` polls and callbacks. Never blocks. With a budget of zero it only looks around.
    ///
    /// # Panics
    ///
    /// With the payload of [`stop_with`](Self::stop_with). If this executor is being driven already.
    #[doc(alias = "try_tick")]
    #[track_caller]
    pub fn tick(&self, budget: usize) -> Progress {
        let (progress, payload) = self.drive("tick", |driven| {
            if !self.scheduler.has_work() {
                self.scheduler.look_at_clock_now();
            }
            let polls = self.scheduler.pass(driven, budget);
            self.scheduler.look_at_clock_now();
            (self.progress(polls), self.end_stop())
        });
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
        progress
    }

    /// Sets the hook of a host loop: called when there is work and [`tick`](Self::tick) should be called again.
    ///
    /// It is called from whichever thread makes the work: when another thread wakes a task, cancels one or sends
    /// something, and when the home thread spawns, wakes, cancels or stops between two drives. It should only
    /// pass the message on, and must not call `tick` itself. Calls are coalesced: after one, there is no other before the
    /// executor has looked, which it does at the beginning of a drive. A panic of the hook is contained, and reported at the next drive. A later hook replaces it.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use mainstay::Executor;
    ///
    /// let calls = Arc::new(AtomicUsize::new(0));
    /// let ex = Executor::new();
    /// let counter = Arc::clone(&calls);
    /// ex.on_wake(move || {
    ///     counter.fetch_add(1, Ordering::Relaxed);
    /// });
    /// ex.spawn(async {}).detach();
    /// ex.spawn(async {}).detach();
    /// assert_eq!(calls.load(Ordering::Relaxed), 1, "coalesced");
    /// assert_eq!(ex.tick(100).polls, 2);
    /// ```
    pub fn on_wake(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.scheduler.set_hook(hook);
    }

    // --- spawning ---------------------------------------------------------------------------------------------------

    /// Spawns a task. It is polled for the first time in the next pass.
    ///
    /// The executor owns it until it ends, whatever becomes of the handle. If it panics, the exception handler is told
    /// ([`ReportPolicy`](crate::ReportPolicy)); its output is not looked into: for a future that gives a `Result`, see
    /// [`spawn_fallible`](Self::spawn_fallible). It may be `!Send`, and may borrow what was declared before the executor.
    ///
    /// Between drives this fires the [`on_wake`](Self::on_wake) hook.
    ///
    /// # Panics
    ///
    /// Out of memory, task slots (67 million) or task ids; the executor is then as it was before.
    #[doc(alias = "create_task")]
    #[doc(alias = "spawn_local")]
    #[inline]
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'env,
        F::Output: 'env,
    {
        JoinHandle::new(self.spawn_as::<F, Plain>(future, Location::caller()))
    }

    /// Spawns a task whose `Err` is a failure, like a panic: the exception handler is told.
    ///
    /// The handle gives the `Result` as it is. `E` need not be an `Error`: anyhow's error works.
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
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
    /// ex.spawn_fallible(async { Err::<(), _>("no such host") }).detach();
    /// ex.run_until_stalled();
    /// assert_eq!(ex.stats().reported, 1);
    /// ```
    #[inline]
    #[track_caller]
    pub fn spawn_fallible<F, T, E>(&self, future: F) -> JoinHandle<Result<T, E>>
    where
        F: Future<Output = Result<T, E>> + 'env,
        T: 'env,
        E: Display + Debug + 'static,
    {
        JoinHandle::new(self.spawn_as::<F, Fallible>(future, Location::caller()))
    }

    #[inline]
    #[track_caller]
    fn spawn_as<F, J>(&self, future: F, location: &'static Location<'static>) -> Claim<F::Output>
    where
        F: Future + 'env,
        J: Judge<F::Output>,
    {
        let (arena, gate) = (self.owner.arena(), self.owner.gate());
        self.scheduler
            .spawn_in::<F, J>(arena, gate, None, future, location, |_| {})
    }

    /// Starts a spawn with options: `.name(..)`, `.background()`, then `.spawn(..)` or `.spawn_fallible(..)`.
    pub fn task(&self) -> TaskBuilder<'_, 'env> {
        TaskBuilder::new(Some(Rc::clone(&self.scheduler)), self.owner.gate())
    }

    // --- the exception handler --------------------------------------------------------------------------------------

    /// Sets the handler that is told of failures: of tasks, callbacks, destructors.
    ///
    /// It is called on the executor's thread, inline where the failure is found, and may do anything: spawn, cancel,
    /// stop, replace itself. Failures that arise while it runs are told after it. If it panics, it stays installed, and
    /// the default handler is told of the panic and of the report, in one record. It outlives the executor for as long as
    /// handles do; so one that captures a [`JoinHandle`] of this executor keeps itself alive, as any cycle does: capture the
    /// [`CancelHandle`](crate::CancelHandle) or the id instead. Without one, the default handler writes an error record
    /// through [`log`].
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use std::rc::Rc;
    /// use mainstay::Executor;
    ///
    /// # std::panic::set_hook(Box::new(|_| {}));
    /// let failures = Rc::new(RefCell::new(Vec::new()));
    /// let ex = Executor::new();
    /// let seen = Rc::clone(&failures);
    /// ex.set_exception_handler(move |_, report| {
    ///     let task = report.task().unwrap().name().to_owned();
    ///     seen.borrow_mut().push((task, report.exception().unwrap().message().into_owned()));
    /// });
    /// ex.task().name("worker").spawn(async { panic!("out of paper") }).detach();
    /// ex.run_until_stalled();
    /// assert_eq!(*failures.borrow(), [("worker".to_owned(), "out of paper".to_owned())]);
    /// ```
    pub fn set_exception_handler(
        &self,
        handler: impl Fn(&LocalHandle<'static>, &ExceptionContext<'_>) + 'static,
    ) {
        context::set_handler(&self.scheduler, Some(Rc::new(handler)));
    }

    /// Back to the default handler.
    pub fn clear_exception_handler(&self) {
        context::set_handler(&self.scheduler, None);
    }

    /// The handler that is set; `None` means that the default one is in use.
    #[doc(alias = "get_exception_handler")]
    pub fn exception_handler(&self) -> Option<ExceptionHandler> {
        context::get_handler(&self.scheduler)
    }

    /// Whether a handler is set.
    pub fn has_exception_handler(&self) -> bool {
        self.exception_handler().is_some()
    }

    /// Makes a report of the user's own.
    ///
    /// From within a handler, such reports nest, to a depth of 8; deeper ones go to the default handler.
    pub fn call_exception_handler(&self, context: &ExceptionContext<'_>) {
        self.scheduler.report(context);
    }

    /// Does what is done without a handler: calls the process-wide one
    /// ([`set_default_exception_handler`](crate::set_default_exception_handler)) or else writes one error record through
    /// [`log`], target `mainstay`. For handlers that delegate.
    pub fn default_exception_handler(&self, context: &ExceptionContext<'_>) {
        report::default(context);
    }

    // --- callbacks and time ---------------------------------------------------------------------

    /// Calls `f` in the next pass, after what is ready now.
    ///
    /// A callback is no task: it is in no counter and no listing, and [`current_task`](crate::current_task) is `None` in
    /// it. If it panics, that is reported ([`ContextKind::Callback`](crate::ContextKind::Callback)). When the executor is dropped, callbacks that have
    /// not been called are dropped, uncalled.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use mainstay::Executor;
    ///
    /// let calls = Cell::new(0);
    /// let ex = Executor::new();
    /// ex.call_soon(|| calls.set(calls.get() + 1));
    /// let other = ex.call_soon(|| unreachable!("cancelled in time"));
    /// assert!(other.cancel());
    /// ex.run_until_stalled();
    /// assert_eq!(calls.get(), 1);
    /// ```
    #[track_caller]
    pub fn call_soon(&self, f: impl FnOnce() + 'env) -> CallHandle {
        self.handle().call_soon(f)
    }

    /// Calls `f` when `delay` has passed, never earlier. A delay beyond the clock's end never comes.
    ///
    /// Callbacks with the same deadline are called in the order in which they were made (asyncio leaves that open). The
    /// rest is as for [`call_soon`](Self::call_soon). Between drives, a deadline nearer than all others fires the
    /// [`on_wake`](Self::on_wake) hook.
    #[track_caller]
    pub fn call_later(&self, delay: Duration, f: impl FnOnce() + 'env) -> CallHandle {
        self.handle().call_later(delay, f)
    }

    /// Calls `f` when `when` has come, by this executor's clock; in the next pass if it is past.
    #[track_caller]
    pub fn call_at(&self, when: Instant, f: impl FnOnce() + 'env) -> CallHandle {
        self.handle().call_at(when, f)
    }

    // --- looking in -------------------------------------------------------------------------------------------------

    /// The time by this executor's clock.
    #[doc(alias = "time")]
    pub fn now(&self) -> Instant {
        self.scheduler.now()
    }

    /// Moves the virtual clock on. What is due then is found by the next pass. A move beyond the clock's end is none.
    ///
    /// # Panics
    ///
    /// If this executor has the real clock: see [`Builder::virtual_clock`](crate::Builder::virtual_clock).
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        assert!(
            self.scheduler.advance(by),
            "mainstay: `advance` moves a virtual clock, and this executor has the real one; \
             make it with `Executor::builder().virtual_clock()`"
        );
    }

    /// A snapshot of all tasks that have not ended, in spawn order.
    #[doc(alias = "all_tasks")]
    pub fn tasks(&self) -> Vec<TaskInfo> {
        self.scheduler.tasks()
    }

    /// How many tasks have not ended.
    pub fn len(&self) -> usize {
        usize::try_from(self.scheduler.counters.live.get()).unwrap_or(usize::MAX)
    }

    /// Whether every task has ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is being driven at this moment.
    pub fn is_running(&self) -> bool {
        self.owner.arena().is_driven()
    }

    /// The accounts.
    pub fn stats(&self) -> Stats {
        context::stats(&self.scheduler)
    }

    /// Gives memory back that no task needs now. Costs time in proportion to the slots there are.
    pub fn shrink(&self) {
        self.owner.arena().shrink();
        self.scheduler.shrink_timers();
    }

    /// Waits until no other task is live; those in the [background](TaskBuilder::background) do not count.
    ///
    /// Two tasks that both wait for this wait for each other.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn idle(&self) {
        context::idle(Rc::downgrade(&self.scheduler)).await;
    }

    /// A weak handle, for tasks and callbacks on this thread.
    pub fn handle(&self) -> LocalHandle<'env> {
        LocalHandle::new(&self.scheduler, self.owner.gate())
    }

    /// A weak handle for other threads.
    pub fn spawner(&self) -> Spawner {
        Spawner::of(&self.scheduler)
    }

    // --- driving ----------------------------------------------------------------------------------------------------

    pub(crate) fn scheduler(&self) -> &Rc<Scheduler> {
        &self.scheduler
    }

    #[track_caller]
    pub(crate) fn drive<R>(&self, what: &str, f: impl FnOnce(Driven<'_>) -> R) -> R {
        if self.is_running() {
            driven_already(what);
        }
        let result = self.owner.drive(|driven| {
            driving::enter(&self.scheduler, || {
                self.scheduler.with_settling_of_its_own(|| {
                    self.scheduler.tell_hook_panics();
                    f(driven)
                })
            })
        });
        self.scheduler.drive_ended();
        result
    }

    /// Runs a root. What the root leaves is settled before this returns.
    #[track_caller]
    fn drive_root<F: Future>(&self, what: &str, root: F) -> Driving<F::Output> {
        // The root is part of the caller's code, and sees what is set there. The tasks do not.
        let set = locals::current();
        let ended = self.drive(what, |driven| {
            let slot = self.root();
            let future = pin!(Some(root));
            let mut root = Rooted::new(&self.scheduler, what, &slot, future, set);
            let result = loop {
                let round = root.round(driven, None);
                if let Poll::Ready(ended) = round.ended {
                    break ended;
                }
                if !root.is_last() && !slot.is_woken() {
                    self.park_if_idle(Some(&slot), None);
                }
            };
            root.drop_within();
            result
        });
        self.scheduler.tell_hosts();
        ended
    }

    /// Parks unless there is something to do, for the root too, if there is one; at most until `limit`.
    pub(crate) fn park_if_idle(&self, root: Option<&Root<'_>>, limit: Option<Instant>) {
        if self.is_idle(root) {
            self.scheduler.park(limit);
        }
    }

    /// Whether there is nothing to do now, for the root neither, if there is one.
    pub(crate) fn is_idle(&self, root: Option<&Root<'_>>) -> bool {
        let idle = || {
            !self.scheduler.has_work()
                && !self.scheduler.is_stopping()
                && !root.is_some_and(Root::is_woken)
        };
        // What is due may be the root's, and a foreign waker may do anything.
        idle() && {
            self.scheduler.look_at_clock_now();
            idle()
        }
    }

    /// Leave to be woken as a root.
    pub(crate) fn root(&self) -> Root<'_> {
        self.owner.arena().root()
    }

    fn progress(&self, polls: usize) -> Progress {
        Progress {
            polls,
            more: self.scheduler.has_work(),
            next_deadline: self.scheduler.next_deadline(),
        }
    }

    fn end_stop(&self) -> Option<Box<dyn Any + Send>> {
        if self.scheduler.is_stopping() {
            self.scheduler.take_stop()
        } else {
            None
        }
    }
}

#[cold]
#[track_caller]
fn driven_already(what: &str) -> ! {
    panic!(
        "mainstay: `{what}` was called on an executor that is being driven already, from inside one of its own tasks, \
         callbacks or handlers; await there instead of blocking"
    )
}

impl Drop for Executor<'_> {
    fn drop(&mut self) {
        /// What handles need later is left to them, whatever happens while the executor closes.
        struct Bequeath<'a>(&'a Rc<Scheduler>);
        impl Drop for Bequeath<'_> {
            fn drop(&mut self) {
                let host: Rc<dyn Any> = self.0.clone();
                self.0.arena().bequeath(host);
            }
        }
        let _bequeath = Bequeath(&self.scheduler);
        self.drive("drop", |driven| self.scheduler.close(driven));
    }
}

impl Default for Executor<'_> {
    fn default() -> Self {
        Executor::new()
    }
}

impl Debug for Executor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("name", &self.scheduler.name())
            .field("live", &self.len())
            .field("running", &self.is_running())
            .finish_non_exhaustive()
    }
}
