//! The executors that are compared, each in a file of its own.

pub(super) mod mainstay;
pub(super) mod tokio;
