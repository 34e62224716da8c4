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
