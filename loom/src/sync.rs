//! The primitives of `park` and `endpoint`: loom's under `cfg(mainstay_loom)`, the standard library's otherwise.

#[cfg(not(mainstay_loom))]
pub(crate) use std::sync::{Condvar, Mutex, RwLock, atomic::AtomicU32, atomic::Ordering};

#[cfg(mainstay_loom)]
pub(crate) use self::modelled::{Condvar, RwLock};
#[cfg(mainstay_loom)]
pub(crate) use loom::sync::{Mutex, atomic::AtomicU32, atomic::Ordering};

// Links are made before the threads start, so that there is nothing to model.
pub(crate) use std::sync::OnceLock;

#[cfg(mainstay_loom)]
mod modelled {
    use std::ops::{Deref, DerefMut};
    use std::sync::{self as std_sync, LockResult, TryLockError, TryLockResult};
    use std::time::Duration;

    use loom::sync::MutexGuard;
    use loom::sync::atomic::{AtomicU32, Ordering};

    /// Loom's, but for the wait with a timeout, which in loom never times out and here is over at once.
    ///
    /// The other end of such a wait, the signal, is that of a wait without a timeout.
    #[derive(Debug)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Condvar(loom::sync::Condvar::new())
        }

        pub(crate) fn wait<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
        ) -> LockResult<MutexGuard<'a, T>> {
            self.0.wait(guard)
        }

        #[expect(clippy::unused_self, reason = "stands in for a method")]
        pub(crate) fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            _: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, TimedOut)> {
            Ok((guard, TimedOut))
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }
    }

    /// What a wait with a timeout came to: always that.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct TimedOut;

    /// Set while the writer is in.
    const WRITING: u32 = 1 << 31;
    /// Set while the writer waits for readers to leave: it keeps new ones out, as the standard library's may.
    const WAITING: u32 = 1 << 30;

    /// A read-write lock for one writer at a time, which all can see while it is held.
    ///
    /// Loom's own has no step at its release. So a critical section without a step of its own is one indivisible step
    /// in it, and no `try_read` ever meets a held lock.
    #[derive(Debug)]
    pub(crate) struct RwLock<T> {
        /// Readers, `WRITING`, `WAITING`.
        state: AtomicU32,
        /// Never contended: `state` says who may.
        data: std_sync::RwLock<T>,
    }

    impl<T> RwLock<T> {
        pub(crate) fn new(data: T) -> Self {
            RwLock {
                state: AtomicU32::new(0),
                data: std_sync::RwLock::new(data),
            }
        }

        pub(crate) fn write(&self) -> LockResult<WriteGuard<'_, T>> {
            let before = self.state.fetch_or(WAITING, Ordering::Relaxed);
            assert!(before < WAITING, "the home thread alone writes");
            while self
                .state
                .compare_exchange(WAITING, WRITING, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
            {
                loom::thread::yield_now();
            }
            let data = self.data.try_write().ok();
            assert!(data.is_some(), "the state says that nobody is in");
            Ok(WriteGuard { lock: self, data })
        }

        /// Fails while the writer is in or waits. Like the standard library's, a failure orders nothing.
        pub(crate) fn try_read(&self) -> TryLockResult<ReadGuard<'_, T>> {
            let entered = self
                .state
                .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                    (state < WAITING).then_some(state + 1)
                });
            if entered.is_err() {
                return Err(TryLockError::WouldBlock);
            }
            let data = self.data.try_read().ok();
            assert!(data.is_some(), "the state says that no writer is in");
            Ok(ReadGuard { lock: self, data })
        }
    }

    pub(crate) struct ReadGuard<'a, T> {
        lock: &'a RwLock<T>,
        /// `None` while it is being dropped: the data is left before the lock is.
        data: Option<std_sync::RwLockReadGuard<'a, T>>,
    }

    pub(crate) struct WriteGuard<'a, T> {
        lock: &'a RwLock<T>,
        data: Option<std_sync::RwLockWriteGuard<'a, T>>,
    }

    impl<T> Deref for ReadGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.data.as_deref().unwrap_or_else(|| unreachable!())
        }
    }

    impl<T> Deref for WriteGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.data.as_deref().unwrap_or_else(|| unreachable!())
        }
    }

    impl<T> DerefMut for WriteGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.data.as_deref_mut().unwrap_or_else(|| unreachable!())
        }
    }

    impl<T> Drop for ReadGuard<'_, T> {
        fn drop(&mut self) {
            self.data = None;
            self.lock.state.fetch_sub(1, Ordering::Release);
        }
    }

    impl<T> Drop for WriteGuard<'_, T> {
        fn drop(&mut self) {
            self.data = None;
            self.lock.state.swap(0, Ordering::Release);
        }
    }
}
