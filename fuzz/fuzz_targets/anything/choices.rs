//! The one source of choices: the fuzzer's bytes, reached from wherever user code runs.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::panic::panic_any;

use crate::canary::Payload;

/// What is left of the input, last byte first, and whether user code panics.
type Left = (Vec<u8>, bool);

thread_local! {
    // Without a destructor, so that it is there for user code that runs while the thread's locals go.
    static LEFT: ManuallyDrop<RefCell<Left>> =
        const { ManuallyDrop::new(RefCell::new((Vec::new(), false))) };
}

/// A panic that is meant. The fuzzer's hook lets it pass.
pub(crate) struct Boom;

/// From now on `bytes` decide, until they are used up or [`end`] is called.
pub(crate) fn begin(bytes: &[u8], panics: bool) {
    let bytes = bytes.iter().rev().copied().collect();
    LEFT.with(|left| *left.borrow_mut() = (bytes, panics));
}

/// From now on every choice is the tame one.
pub(crate) fn end() {
    begin(&[], false);
}

/// How many bytes are left.
pub(crate) fn left() -> usize {
    LEFT.with(|left| left.borrow().0.len())
}

pub(crate) fn below(n: usize) -> usize {
    LEFT.with(|left| usize::from(left.borrow_mut().0.pop().unwrap_or(0)) % n)
}

/// Once in `n` times; never when the bytes are used up.
pub(crate) fn once_in(n: usize) -> bool {
    below(n) == n - 1
}

/// Most user code ends in this.
pub(crate) fn maybe_panic() {
    // A second panic while one unwinds would abort, whoever catches.
    let may = LEFT.with(|left| left.borrow().1) && !std::thread::panicking();
    if may && once_in(9) {
        if once_in(4) {
            panic_any(Payload::new());
        }
        panic_any(Boom);
    }
}
