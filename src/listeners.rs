//! Who waits for one and the same thing, each under a number of its own.

use std::task::Waker;

/// Wakers by the number of who waits. A plain list: few wait for the same thing.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Vec<(u64, Waker)>);

impl Listeners {
    /// Whether `waker` is the one that is set for `id`. It compares two words: no user code.
    pub(crate) fn has(&self, id: u64, waker: &Waker) -> bool {
        self.0
            .iter()
            .any(|(other, old)| *other == id && old.will_wake(waker))
    }

    /// Sets the waker of `id`. Gives the one before it, to be dropped where user code may run.
    #[must_use]
    pub(crate) fn set(&mut self, id: u64, waker: Waker) -> Option<Waker> {
        let old = self.remove(id);
        self.0.push((id, waker));
        old
    }

    /// Takes the waker of `id` out.
    #[must_use]
    pub(crate) fn remove(&mut self, id: u64) -> Option<Waker> {
        let at = self.0.iter().position(|(other, _)| *other == id)?;
        Some(self.0.remove(at).1)
    }

    /// Each waker, in the order of setting.
    pub(crate) fn into_wakers(self) -> impl Iterator<Item = Waker> {
        self.0.into_iter().map(|(_, waker)| waker)
    }
}
