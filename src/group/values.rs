//! Values by number, dropped with care.

use crate::driving;
use crate::unwind::catch_drop;

/// Values of users' by their numbers, dropped one by one: two destructors that panic in one drop would abort.
pub(super) struct Values<T>(Vec<Option<T>>);

impl<T> Values<T> {
    pub(super) fn new() -> Self {
        Values(Vec::new())
    }

    pub(super) fn set(&mut self, number: usize, value: T) {
        if self.0.len() <= number {
            self.0.resize_with(number + 1, || None);
        }
        self.0[number] = Some(value);
    }

    pub(super) fn push(&mut self, value: T) {
        self.0.push(Some(value));
    }

    /// All of them, in order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.0).into_iter().flatten()
    }
}

impl<T> Drop for Values<T> {
    fn drop(&mut self) {
        for value in self.0.drain(..) {
            // User code: Drop of the value.
            if let Err(panic) = catch_drop(value) {
                driving::tell_destructor(panic, None);
            }
        }
    }
}
