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

#[cfg(test)]
mod tests {
    use super::Listeners;
    use std::sync::Arc;
    use std::task::{Wake, Waker};

    struct Nothing;

    impl Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn each_number_has_the_waker_that_was_set_last() {
        let [one, other] = [0, 1].map(|_| Waker::from(Arc::new(Nothing)));
        let mut list = Listeners::default();
        assert!(list.set(1, one.clone()).is_none());
        assert!(list.has(1, &one));
        assert!(
            !list.has(2, &one),
            "who waits with the same waker is another"
        );
        assert!(
            !list.has(1, &other),
            "who goes on with another waker is to be woken by that"
        );
        assert!(list.set(2, one.clone()).is_none());
        assert!(
            list.set(1, other.clone())
                .is_some_and(|old| old.will_wake(&one))
        );
        assert!(list.has(1, &other) && list.has(2, &one));
        assert!(list.remove(2).is_some() && list.remove(2).is_none());
        assert_eq!(list.into_wakers().count(), 1);
    }
}
