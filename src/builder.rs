//! Making an executor with settings.

use std::marker::PhantomData;

use crate::executor::Executor;
use crate::scheduler::Settings;
use crate::scheduler::policy::ReportPolicy;

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
    /// Names the executor, for its `Debug`.
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

    /// Polls what is ready in a pass in an order drawn from `seed` instead of first in, first out: to find what depends
    /// on the order. The same seed gives the same order.
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.settings.shuffle = Some(seed);
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
