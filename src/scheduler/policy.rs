//! When a failure is reported.

/// When a *spawned* task's failure reaches the exception handler.
///
/// Under both, every failure is reported or retrieved, and none is reported twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReportPolicy {
    /// When the task fails, whoever holds its handle. The outcome still goes to the handle too.
    #[default]
    OnFailure,
    /// Only if nobody retrieved it, as in asyncio: when the task is detached, at the failure, after its done callbacks
    /// ran; else when the handle is dropped without having been asked; at the latest when the executor is dropped.
    ///
    /// A handle on another thread ([`RemoteHandle`](crate::RemoteHandle)) retrieves by being awaited or joined; if it is dropped
    /// unread, the report is made on the executor's thread, at its next look.
    ///
    /// Retrieving is awaiting the handle, `result()`, `exception()`, or asking a
    /// [`Completion`](crate::Completion) for the outcome.
    IfUnretrieved,
}
