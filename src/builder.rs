//! Making an executor with settings.

use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use crate::completion::Completion;
use crate::executor::Executor;
use crate::scheduler::Settings;
use crate::scheduler::policy::ReportPolicy;
use crate::task::TaskInfo;

/// Settings of an executor to be made. From [`Executor::builder`].
///
/// ```
/// use mainstay::{Executor, ReportPolicy};
///
/// let ex = Executor::builder()
///     .name("ui")
///     .report(ReportPolicy::IfUnretrieved)
///     .capacity(10_000)
///     .build();
/// assert!(ex.is_empty());
/// ```
///
/// # Hooks
///
/// A hook is called on the executor's thread for each task of it: [`on_task_spawn`](Self::on_task_spawn),
/// [`before_poll`](Self::before_poll), [`after_poll`](Self::after_poll), [`on_task_done`](Self::on_task_done). Callbacks
/// and the root are no tasks. Several of one kind are called in the order of adding. Hooks work without debug mode.
///
/// A hook may do what a task may: spawn, cancel, wake, stop, drop handles; it reaches the executor by
/// [`LocalHandle::try_current`](crate::LocalHandle::try_current), but must not drive it. It is not called while it is on
/// the stack: of a task that a hook spawns, the others are told, and it is not.
///
/// A hook that panics is reported, once ([`ContextKind::Callback`](crate::ContextKind::Callback)), and removed; the others go
/// on. All of them are dropped with the executor, when everything has been told, so that one may hold handles of it.
#[derive(Debug, Default)]
#[must_use = "nothing is made before `.build()`"]
pub struct Builder<'env> {
    settings: Settings,
    _env: PhantomData<fn(&'env ()) -> &'env ()>,
}

impl<'env> Executor<'env> {
    /// Starts making an executor with settings.
    pub fn builder() -> Builder<'env> {
        Builder {
            settings: Settings::default(),
            _env: PhantomData,
        }
    }
}

impl<'env> Builder<'env> {
    /// Names the executor, for its `Debug`. An empty name is a name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = Some(name.into().into_boxed_str());
        self
    }

    /// When failures are reported. [`ReportPolicy::OnFailure`] unless set.
    pub fn report(mut self, policy: ReportPolicy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Makes room in the tables for this many tasks at once. The cells themselves are made by size, when tasks come.
    pub fn capacity(mut self, tasks: usize) -> Self {
        self.settings.capacity = tasks;
        self
    }

    /// Gives the executor a clock of its own, which stands still while something is ready.
    ///
    /// [`block_on`](Executor::block_on) and [`run_forever`](Executor::run_forever) jump to the next deadline when nothing
    /// is ready; [`tick`](Executor::tick) and [`run_until_stalled`](Executor::run_until_stalled) never do;
    /// [`advance`](Executor::advance) moves it by hand. So a program that sleeps for hours is tested in no time, and runs
    /// the same way every time. It begins at the time of the call to [`build`](Self::build).
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::Executor;
    ///
    /// let ex = Executor::builder().virtual_clock().build();
    /// let start = ex.now();
    /// ex.block_on(mainstay_sleep_for_an_hour());
    /// assert_eq!(ex.now() - start, Duration::from_secs(3600));
    ///
    /// async fn mainstay_sleep_for_an_hour() {
    ///     mainstay::sleep(Duration::from_secs(3600)).await;
    /// }
    /// ```
    pub fn virtual_clock(mut self) -> Self {
        self.settings.virtual_clock = true;
        self
    }

    /// How much later than their deadline timers may fire, so that more of them end one wait of the thread. Zero unless set:
    /// each deadline that nothing else shares ends a wait of its own, and a thousand sleeps that end at a thousand times wake
    /// the thread a thousand times.
    ///
    /// Nothing fires early, and the order stays. The thread waits until the earliest deadline and this are over, and whatever
    /// ends the wait before, a wake from another thread say, fires all that is due by then. A slack of a millisecond is what
    /// tokio's timers have. It is for the waits of the executor itself ([`block_on`](Executor::block_on),
    /// [`run_forever`](Executor::run_forever), [`shutdown`](Executor::shutdown), whose grace it does not prolong): the deadlines
    /// in [`Progress`](crate::Progress) and those told to a host of [`run_until`](Executor::run_until) are exact. A
    /// [virtual clock](Self::virtual_clock) has none.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::{Executor, sleep, spawn};
    ///
    /// let ex = Executor::builder().timer_slack(Duration::from_millis(20)).build();
    /// ex.block_on(async {
    ///     let first = spawn(sleep(Duration::from_millis(1)));
    ///     let second = spawn(sleep(Duration::from_millis(2)));
    ///     first.await.unwrap();
    ///     assert!(second.is_finished(), "one wait for both");
    /// });
    /// ```
    #[doc(alias = "coalesce")]
    pub fn timer_slack(mut self, slack: Duration) -> Self {
        self.settings.slack = slack;
        self
    }

    /// Polls what is ready in a pass in an order drawn from `seed` instead of first in, first out: to find what depends
    /// on the order. The same seed gives the same order.
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.settings.shuffle = Some(seed);
        self
    }

    /// Turns debug mode on or off. Unless this says, the environment does when the executor is made: `MAINSTAY_DEBUG` set to
    /// anything but nothing or `0` turns it on.
    ///
    /// In debug mode
    ///
    /// - a poll, a callback, a done callback, a hook or a call of the exception handler that takes long is logged with
    ///   `log::warn!`, target `mainstay`: see [`slow_poll_threshold`](Self::slow_poll_threshold);
    /// - [`TaskInfo`] knows [`polls`](TaskInfo::polls), [`parent`](TaskInfo::parent) and
    ///   [`awaiting`](TaskInfo::awaiting);
    /// - a task spawned with plain `spawn` whose output is a `Result` and whose handle is dropped before that was taken is
    ///   logged, once for each place that spawns such tasks: its `Err` would be lost, and
    ///   [`spawn_fallible`](Executor::spawn_fallible) would tell it.
    ///
    /// It costs two readings of the clock per poll, and an allocation or two per task.
    ///
    /// ```
    /// use mainstay::Executor;
    ///
    /// let ex = Executor::builder().debug(true).build();
    /// let task = ex.spawn(async {
    ///     mainstay::yield_now().await;
    ///     mainstay::current_task().unwrap().polls()
    /// });
    /// assert_eq!(ex.block_on(task).unwrap(), 2);
    /// ```
    #[doc(alias = "set_debug")]
    #[doc(alias = "PYTHONASYNCIODEBUG")]
    pub fn debug(mut self, on: bool) -> Self {
        self.settings.debug = Some(on);
        self
    }

    /// How long user code may hold the loop before [debug mode](Self::debug) logs it; 100 ms unless set. Without debug mode
    /// it has no effect.
    ///
    /// Zero logs every poll and callback. The time is that of the real clock, also under a virtual one, where a poll takes
    /// none. A poll includes the destructor of a future that ends in it.
    #[doc(alias = "slow_callback_duration")]
    pub fn slow_poll_threshold(mut self, threshold: Duration) -> Self {
        self.settings.slow = Some(threshold);
        self
    }

    /// Adds a hook that is told of every task that is spawned, before it is polled for the first time. See
    /// [hooks](Self#hooks).
    ///
    /// It is called within the spawn, so also between two drives, where no executor is current. A spawn on an executor that
    /// is gone makes no task, and is not told.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use mainstay::Executor;
    ///
    /// let load = Rc::new(Cell::new(0));
    /// let (up, down) = (Rc::clone(&load), Rc::clone(&load));
    /// let ex = Executor::builder()
    ///     .on_task_spawn(move |_| up.set(up.get() + 1))
    ///     .on_task_done(move |_| down.set(down.get() - 1))
    ///     .build();
    /// ex.spawn(async {}).detach();
    /// assert_eq!(load.get(), 1);
    /// ex.run_until_stalled();
    /// assert_eq!(load.get(), 0);
    /// ```
    pub fn on_task_spawn(mut self, hook: impl Fn(&TaskInfo) + 'static) -> Self {
        self.settings.hooks.spawn.add(Rc::new(hook));
        self
    }

    /// Adds a hook that is told how every task ended, as a done callback of it would be and right before those. See
    /// [hooks](Self#hooks).
    ///
    /// What [`JoinHandle::add_done_callback`](crate::JoinHandle::add_done_callback) says of the time holds here too, and so
    /// does what [`Completion::outcome`] says: to ask it of a failure retrieves that.
    pub fn on_task_done(mut self, hook: impl Fn(&Completion<'_>) + 'static) -> Self {
        self.settings.hooks.done.add(Rc::new(hook));
        self
    }

    /// Adds a hook that is told of every task right before each of its polls. See [hooks](Self#hooks).
    ///
    /// To each call there is one of the [`after_poll`](Self::after_poll) hooks, also when the poll panics. A cancel of that
    /// very task comes too late for the poll, and takes effect after it. In debug mode, the poll is not yet counted.
    #[doc(alias = "on_before_task_poll")]
    pub fn before_poll(mut self, hook: impl Fn(&TaskInfo) + 'static) -> Self {
        self.settings.hooks.before.add(Rc::new(hook));
        self
    }

    /// Adds a hook that is told of every task right after each of its polls. See [hooks](Self#hooks).
    ///
    /// If the task ended in that poll, it has been counted; its failure is reported and its callbacks run after this.
    #[doc(alias = "on_after_task_poll")]
    pub fn after_poll(mut self, hook: impl Fn(&TaskInfo) + 'static) -> Self {
        self.settings.hooks.after.add(Rc::new(hook));
        self
    }

    /// Makes the executor.
    ///
    /// # Panics
    ///
    /// As [`Executor::new`]; if [`capacity`](Self::capacity) asks for more slots than there can be.
    #[track_caller]
    pub fn build(self) -> Executor<'env> {
        Executor::with_settings(self.settings)
    }
}
