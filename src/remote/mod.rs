//! The cross-thread side: everything that a thread other than the executor's may touch.
//!
//! An executor borrows an [`Endpoint`](endpoint::Endpoint) for its life. Endpoints are type-stable: made once, never freed, handed to a
//! later executor when the present one is gone. So a wake that comes too late always has something valid to touch.

pub(crate) mod alarm;
pub(crate) mod endpoint;
pub(crate) mod handover;
pub(crate) mod inbox;
pub(crate) mod outer;
pub(crate) mod table;
