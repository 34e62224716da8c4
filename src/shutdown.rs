//! The end of a program: tasks are asked to end, given time, and dropped.

use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use crate::arena::driven::Driven;
use crate::executor::Executor;
use crate::rooted::stopped;
use crate::scheduler::shutting::{Shutdown, ShutdownReport};
use crate::unwind::{catch, catch_drop};

/// What [`run`] gives to the tasks that its root has left.
const GRACE: Duration = Duration::from_secs(1);

/// After the first pass, the clock is looked at after this many polls.
const STRETCH: usize = 64;

/// A virtual clock stands still while something is ready: what never rests is given this many passes.
const BUSY_PASSES: usize = 10_000;

impl Executor<'_> {
    /// Asks every task to end, runs them on for as long as one that listens is live, `grace` at most, and drops what is
    /// left.
    ///
    /// Every task's [`cancel_requested`](crate::cancel_requested) becomes ready, and is ready from the start for those that
    /// are spawned meanwhile. One pass is made in any case, and a new task has one too while there is time, so that each that
    /// is ready may ask. Then all goes on as ever, for as long as a task that has ever polled a `cancel_requested` is live,
    /// whatever it made of it. At the end of the grace, or at once when nobody asked, every task is dropped, in spawn order,
    /// those in the [background](crate::TaskBuilder::background) too. Handles read as cancelled, done callbacks run, nothing
    /// is reported as destroyed.
    ///
    /// A task that fails during this is reported with kind [`Shutdown`](crate::ContextKind::Shutdown), under both
    /// [policies](crate::ReportPolicy), and once; so is one whose destructor panics when it is dropped.
    ///
    /// Callbacks run as ever, until the end of the grace; those that have not been called then are dropped, uncalled, after
    /// the tasks. What other threads send after the last pass waits for the next drive.
    ///
    /// # How it ends
    ///
    /// The grace is by this executor's clock. The pass that is being made when it is over goes on to its end; a single poll
    /// that blocks is not interrupted. [`Duration::ZERO`] allows one pass. With [`Duration::MAX`] it waits for as long as a
    /// task that listens lives, which may be for ever.
    ///
    /// A virtual clock jumps as in [`block_on`](Self::block_on). When nothing is ready and there is no deadline to jump to,
    /// or when tasks keep it standing still for 10,000 passes, the grace is over.
    ///
    /// Tasks may go on spawning, and so may destructors. A round of such tasks is over when all that were live at its start
    /// have ended; after 100 rounds the next are cancelled by their spawn, unpolled, with a reason that says so.
    ///
    /// [`stop`](Self::stop) ends the grace: what is left is dropped after the present pass. So does
    /// [`stop_with`](Self::stop_with), and when everything is dropped, this unwinds with its payload.
    ///
    /// The executor is usable afterwards, as if it were new: what is spawned then has not been asked.
    ///
    /// # On Ctrl-C
    ///
    /// A signal's thread reaches the executor by a [`Spawner`](crate::Spawner). With the `ctrlc` crate, where a second
    /// signal ends the grace:
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use mainstay::Executor;
    ///
    /// let ex = Executor::new();
    /// let spawner = ex.spawner();
    /// ctrlc::set_handler(move || drop(spawner.call_soon(|ex| ex.stop()))).expect("no other handler is set");
    /// ex.run_forever();
    /// ex.shutdown(Duration::from_secs(10));
    /// ```
    ///
    /// # Panics
    ///
    /// With the payload of [`stop_with`](Self::stop_with). If this executor is being driven already: a task that wants the
    /// end of all calls [`stop`](crate::LocalHandle::stop), and whoever drives shuts down.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::Executor;
    ///
    /// let ex = Executor::builder().virtual_clock().build();
    /// // Ends when it is asked to, and has something to do first.
    /// ex.spawn(async {
    ///     mainstay::cancel_requested().await;
    ///     mainstay::sleep(Duration::from_secs(2)).await;
    /// })
    /// .detach();
    /// // Never looks.
    /// ex.spawn(std::future::pending::<()>()).detach();
    /// ex.run_until_stalled();
    ///
    /// let report = ex.shutdown(Duration::from_secs(10));
    /// assert_eq!((report.finished(), report.dropped()), (1, 1));
    /// assert!(ex.is_empty());
    /// ```
    #[doc(alias = "close")]
    #[doc(alias = "shutdown_timeout")]
    #[doc(alias = "shutdown_asyncgens")]
    #[track_caller]
    pub fn shutdown(&self, grace: Duration) -> ShutdownReport {
        let report = self.shut_down(grace);
        if let Some(payload) = self.scheduler().take_stop() {
            resume_unwind(payload);
        }
        report
    }

    /// [`shutdown`](Self::shutdown), with the stop that came meanwhile left to be obeyed.
    #[track_caller]
    fn shut_down(&self, grace: Duration) -> ShutdownReport {
        let report = self.drive("shutdown", |driven| {
            let end = self.scheduler().now().checked_add(grace);
            let mut shutdown = self.scheduler().begin_shutdown();
            self.run_out(driven, &mut shutdown, end);
            shutdown.drop_rest(driven)
        });
        self.scheduler().tell_hosts();
        report
    }

    /// Goes on until nobody is left who asked, or the grace is over.
    fn run_out(&self, driven: Driven<'_>, shutdown: &mut Shutdown<'_>, end: Option<Instant>) {
        let scheduler = self.scheduler();
        let is_virtual = scheduler.has_virtual_clock();
        let (mut seen, mut still) = (scheduler.now(), 0);
        let mut budget = usize::MAX;
        loop {
            if budget == usize::MAX {
                shutdown.begin_whole_pass();
            }
            scheduler.look_at_clock_now();
            scheduler.pass(driven, budget);
            if !shutdown.goes_on() || scheduler.is_stopping() {
                return;
            }
            let asking = scheduler.is_anybody_asking();
            let now = scheduler.now();
            if end.is_some_and(|end| end <= now) {
                return;
            }
            if is_virtual {
                still = if now == seen { still + 1 } else { 0 };
                seen = now;
                if still == BUSY_PASSES || asking && self.rests_for_ever(end) {
                    return;
                }
            }
            budget = if asking && !is_virtual {
                STRETCH
            } else {
                usize::MAX
            };
            if asking {
                self.park_if_idle(None, end);
            }
        }
    }

    /// Whether, by a virtual clock, nothing will happen any more.
    fn rests_for_ever(&self, end: Option<Instant>) -> bool {
        let scheduler = self.scheduler();
        end.is_none() && !scheduler.has_work() && scheduler.next_deadline().is_none()
    }
}

/// Runs `root` on an executor of its own, then [shuts down](Executor::shutdown) what it has left, and gives what `root`
/// gave. asyncio's `asyncio.run`.
///
/// The tasks that are left have a second, if they listen to [`cancel_requested`](crate::cancel_requested), and are dropped
/// then. That is bounded, also where they spawn others meanwhile. Failures of theirs are reported, and do not change what
/// this gives.
///
/// It works wherever [`Executor::block_on`] on a new executor does: in a task of another executor it blocks that one.
///
/// # Panics
///
/// With `root`'s own panic, after the shutdown. With the payload of [`stop_with`](crate::LocalHandle::stop_with), also
/// when it came during the shutdown; of two payloads, and of a payload and `root`'s panic, the first one comes out, the other is
/// reported. If [`stop`](crate::LocalHandle::stop) came before `root` had finished.
///
/// As [`Executor::new`].
///
/// # Examples
///
/// ```
/// let answer = mainstay::run(async {
///     mainstay::spawn(std::future::pending::<()>()).detach(); // does not keep this from ending
///     mainstay::spawn(async { 6 * 7 }).await.unwrap()
/// });
/// assert_eq!(answer, 42);
/// ```
#[doc(alias = "asyncio.run")]
#[doc(alias = "Runner")]
#[track_caller]
pub fn run<F: Future>(root: F) -> F::Output {
    let ex = Executor::new();
    // User code: the root. Its panic waits for the shutdown.
    let ended = catch(|| ex.try_block_on(root));
    ex.shut_down(GRACE);
    let fatal = match ended {
        Ok(Ok(value)) => match ex.scheduler().take_stop() {
            None => return value,
            Some(payload) => {
                // User code: Drop of the root's output.
                if let Err(panic) = catch_drop(value) {
                    ex.scheduler().tell_destructor(panic, None);
                }
                Some(payload)
            }
        },
        Ok(Err(stopped)) => match stopped.into_payload() {
            None => ex.scheduler().take_stop(),
            payload => payload,
        },
        Err(panic) => Some(panic.into_payload()),
    };
    // A payload that came second is reported by this.
    drop(ex);
    match fatal {
        Some(payload) => resume_unwind(payload),
        None => stopped(),
    }
}
