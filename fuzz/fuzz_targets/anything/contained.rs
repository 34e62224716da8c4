//! What may panic, and what must not.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::choices::Boom;

/// The library contains what user code does in this call. A panic that comes out of it is a finding, wherever it would be
/// caught further up.
pub(crate) fn strict<R>(what: &str, call: impl FnOnce() -> R) -> R {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => value,
        Err(payload) => {
            eprintln!("a panic came out of {what}: {}", text(&*payload));
            std::process::abort();
        }
    }
}

/// Here a panic is the caller's: of a root, of a waker's clone, of a value that the caller owns.
pub(crate) fn lenient<R>(call: impl FnOnce() -> R) -> Option<R> {
    let mut caught = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => return Some(value),
        Err(payload) => payload,
    };
    // A payload's destructor is user code too, and may panic with another.
    while let Err(next) = catch_unwind(AssertUnwindSafe(|| drop(caught))) {
        caught = next;
    }
    None
}

/// What a panic says.
pub(crate) fn text(payload: &(dyn Any + Send)) -> &str {
    if payload.is::<Boom>() {
        return "one of the program's own";
    }
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    owned
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("of another type")
}
