//! A 64-bit number that threads share: an atomic one where there is such a thing.
//!
//! A few 32-bit targets have none (PowerPC, MIPS, older ARM). There it is behind a lock of its own, which is held for a few
//! instructions and never while user code runs. What is counted here is never used again, so that 32 bits would not do.

#[cfg(target_has_atomic = "64")]
use atomic as imp;
#[cfg(not(target_has_atomic = "64"))]
use locked as imp;

/// See the module documentation. No operation orders any other.
#[derive(Debug)]
pub(crate) struct Wide(imp::Number);

impl Wide {
    pub(crate) const fn new(value: u64) -> Self {
        Wide(imp::Number::new(value))
    }

    #[inline]
    pub(crate) fn load(&self) -> u64 {
        self.0.load()
    }

    #[inline]
    pub(crate) fn store(&self, value: u64) {
        self.0.store(value);
    }

    /// Replaces the number by what `next` makes of it, which may be asked more than once. Gives the one before, also if there
    /// is no next one (`Err`).
    #[inline]
    pub(crate) fn update(&self, next: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        self.0.update(next)
    }
}

#[cfg(target_has_atomic = "64")]
mod atomic {
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug)]
    pub(super) struct Number(AtomicU64);

    impl Number {
        pub(super) const fn new(value: u64) -> Self {
            Number(AtomicU64::new(value))
        }

        #[inline]
        pub(super) fn load(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        #[inline]
        pub(super) fn store(&self, value: u64) {
            self.0.store(value, Ordering::Relaxed);
        }

        #[inline]
        pub(super) fn update(&self, next: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
            self.0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        }
    }
}

#[cfg(any(test, not(target_has_atomic = "64")))]
mod locked {
    use std::sync::{Mutex, MutexGuard};

    #[derive(Debug)]
    pub(super) struct Number(Mutex<u64>);

    impl Number {
        pub(super) const fn new(value: u64) -> Self {
            Number(Mutex::new(value))
        }

        fn lock(&self) -> MutexGuard<'_, u64> {
            self.0.lock().unwrap_or_else(|e| e.into_inner())
        }

        pub(super) fn load(&self) -> u64 {
            *self.lock()
        }

        pub(super) fn store(&self, value: u64) {
            *self.lock() = value;
        }

        pub(super) fn update(&self, mut next: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
            let mut number = self.lock();
            let before = *number;
            *number = next(before).ok_or(before)?;
            Ok(before)
        }
    }
}

#[cfg(test)]
mod tests {
    macro_rules! a_number {
        ($name:ident, $number:ty) => {
            #[test]
            fn $name() {
                static NUMBER: $number = <$number>::new(u64::MAX - 400);
                let up = || NUMBER.update(|n| n.checked_add(1));
                let threads: Vec<_> = (0..4)
                    .map(|_| std::thread::spawn(move || (0..100).map(|_| up()).collect::<Vec<_>>()))
                    .collect();
                let mut seen: Vec<_> = threads
                    .into_iter()
                    .flat_map(|thread| thread.join().unwrap())
                    .map(|number| number.expect("there is room for all"))
                    .collect();
                seen.sort_unstable();
                assert!(seen.into_iter().eq(u64::MAX - 400..u64::MAX));
                assert_eq!(up(), Err(u64::MAX), "and no further");
                assert_eq!(NUMBER.load(), u64::MAX);
                NUMBER.store(1 << 40);
                assert_eq!(NUMBER.load(), 1 << 40);
            }
        };
    }

    a_number!(threads_count_to_the_end_without_a_gap, super::Wide);
    a_number!(
        threads_count_to_the_end_without_a_gap_where_atomics_are_narrow,
        super::locked::Number
    );
}
