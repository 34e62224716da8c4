//! The synchronisation types that cross-thread modules are written against.
//!
//! `park.rs` and the files in `remote/` that have models import them from here and from nowhere else, so that the model
//! checker's package (`loom/`) can include those files with its own `sync` in place of this one.

pub(crate) use std::sync::atomic::{AtomicU32, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, OnceLock, RwLock};
