//! Wakers: a key in the data pointer, and nothing else.
//!
//! Cloning one copies a word; dropping one does nothing; two are `will_wake`-equal exactly if they name the same task.
//! There is no reference count, so there is nothing to leak, to race on, or to drop on the wrong thread (P4, P5).
//!
//! - **W1** The data pointer is an address without provenance. It is never dereferenced.
//! - **W2** A wake finds its executor by identity: the innermost driven executor of this thread if the key is of that
//!   one, else, whoever and wherever it is, by its endpoint: directly if this is its thread, else through the endpoint's list.

use std::mem::ManuallyDrop;
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

use crate::arena::front::{with_current, with_home};
use crate::completion::Awaiter;
use crate::key::Key;
use crate::remote::table;

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, drop);

fn raw(word: usize) -> RawWaker {
    RawWaker::new(ptr::without_provenance(word), &VTABLE)
}

fn clone(data: *const ()) -> RawWaker {
    raw(data.addr())
}

fn wake(data: *const ()) {
    wake_key(data.addr());
}

fn drop(_: *const ()) {}

/// A waker that is made for one poll. Dropping wakers of ours does nothing, so that it need not be dropped.
#[inline]
pub(crate) fn borrowed(word: usize) -> ManuallyDrop<Waker> {
    // SAFETY: the functions of `VTABLE` keep the contract of `RawWakerVTable`: they take any address (W1), are
    // thread-safe, and neither own nor free anything.
    ManuallyDrop::new(unsafe { Waker::from_raw(raw(word)) })
}

/// The key of a waker, if it is one of ours.
#[inline]
pub(crate) fn key_of(waker: &Waker) -> Option<usize> {
    ptr::eq(waker.vtable(), &raw const VTABLE).then(|| waker.data().addr())
}

/// Whom a waker wakes, to be kept.
///
/// User code: clone of a foreign waker.
pub(crate) fn awaiter(waker: &Waker) -> Awaiter {
    match key_of(waker) {
        Some(key) => Awaiter::Key(key),
        None => Awaiter::Foreign(waker.clone()),
    }
}

/// Wakes whom a key names. Any thread, any time.
#[inline]
pub(crate) fn wake_key(word: usize) {
    if !with_current(|front| front.wake(word)) {
        wake_elsewhere(word);
    }
}

/// Nobody whom the innermost driven executor has is named.
#[cold]
#[inline(never)]
fn wake_elsewhere(word: usize) {
    let key = Key::<usize>::from_word(word);
    if with_current(|front| front.is_of(key.executor())) {
        // Whom it named is no more.
        return;
    }
    let Some(endpoint) = table::endpoint(key.executor()) else {
        return;
    };
    // At home, between two drives or inside of another executor's: the same as in one, but that somebody has to be told
    // who drives. Only the first such wake tells; that sets the token, and the next drive takes it.
    match with_home(endpoint, |front, driven| front.wake(word) && !driven) {
        Some(true) if !endpoint.parker().is_notified() => endpoint.notify(),
        Some(_) => {}
        None => endpoint.wake(key.index()),
    }
}

#[cfg(test)]
mod tests {
    use super::{borrowed, key_of};
    use std::task::Waker;

    #[test]
    fn a_waker_is_its_key_and_nothing_else() {
        let (a, b) = (borrowed(8), borrowed(16));
        assert_eq!(key_of(&a), Some(8));
        assert!(a.will_wake(&a.clone()) && !a.will_wake(&b));
        assert_eq!(key_of(Waker::noop()), None);
    }
}
