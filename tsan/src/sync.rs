//! The library's `sync`, for ThreadSanitizer: locks made of atomics.
//!
//! Those of the prebuilt standard library are acquired, when they are contended, in code that is not instrumented, so that
//! what they order looks like a race. `run.sh` puts this file in the place of `src/sync.rs` in its copy of the library.
//! Nothing here is poisoned, and waiting is spinning.
#![allow(unsafe_code, reason = "locks lend out what they guard")]

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError, TryLockResult};
use std::thread;
use std::time::{Duration, Instant};

pub use std::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
/// A mutex that is locked, or a lock with a writer. Less is the number of readers.
const TAKEN: u32 = u32::MAX;

/// As the standard library's.
#[derive(Debug, Default)]
pub struct RwLock<T> {
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: at any time there is one writer or there are readers (`state`).
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

impl<T> RwLock<T> {
    /// A lock that is free.
    pub const fn new(value: T) -> Self {
        RwLock {
            state: AtomicU32::new(FREE),
            value: UnsafeCell::new(value),
        }
    }

    /// Shared access, if there is no writer.
    ///
    /// # Errors
    ///
    /// There is one.
    pub fn try_read(&self) -> TryLockResult<ReadGuard<'_, T>> {
        let entered = self
            .state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                (state != TAKEN).then(|| state + 1)
            });
        match entered {
            Ok(_) => Ok(ReadGuard(self)),
            Err(_) => Err(TryLockError::WouldBlock),
        }
    }

    /// Exclusive access.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn write(&self) -> LockResult<WriteGuard<'_, T>> {
        while self
            .state
            .compare_exchange_weak(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            thread::yield_now();
        }
        Ok(WriteGuard(self))
    }
}

/// Shared access.
#[derive(Debug)]
pub struct ReadGuard<'a, T>(&'a RwLock<T>);

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: there is no writer while this guard lives.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        self.0.state.fetch_sub(1, Ordering::Release);
    }
}

/// Exclusive access.
#[derive(Debug)]
pub struct WriteGuard<'a, T>(&'a RwLock<T>);

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: nobody else has access while this guard lives.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: nobody else has access while this guard lives.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        self.0.state.store(FREE, Ordering::Release);
    }
}

/// As the standard library's.
#[derive(Debug, Default)]
pub struct Mutex<T>(RwLock<T>);

// SAFETY: there is one guard at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// A mutex that is free.
    pub const fn new(value: T) -> Self {
        Mutex(RwLock::new(value))
    }

    /// Access.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn lock(&self) -> LockResult<WriteGuard<'_, T>> {
        self.0.write()
    }
}

/// As the standard library's.
#[derive(Debug, Default)]
pub struct Condvar {
    signals: AtomicU32,
}

impl Condvar {
    /// Nobody waits.
    pub const fn new() -> Self {
        Condvar {
            signals: AtomicU32::new(0),
        }
    }

    /// Waits for a signal, with the lock given up meanwhile.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn wait<'a, T>(&self, guard: WriteGuard<'a, T>) -> LockResult<WriteGuard<'a, T>> {
        Ok(self.wait_until(guard, None))
    }

    /// Waits for a signal, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: WriteGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(WriteGuard<'a, T>, ())> {
        Ok((
            self.wait_until(guard, Instant::now().checked_add(timeout)),
            (),
        ))
    }

    fn wait_until<'a, T>(
        &self,
        guard: WriteGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> WriteGuard<'a, T> {
        let lock = guard.0;
        let before = self.signals.load(Ordering::Relaxed);
        drop(guard);
        // Relaxed: whoever signals has had the lock, and that is what orders.
        while self.signals.load(Ordering::Relaxed) == before
            && deadline.is_none_or(|deadline| Instant::now() < deadline)
        {
            thread::yield_now();
        }
        lock.write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Signals.
    pub fn notify_one(&self) {
        self.signals.fetch_add(1, Ordering::Relaxed);
    }
}

/// As the standard library's.
#[derive(Debug, Default)]
pub struct OnceLock<T> {
    /// `FREE`, `TAKEN` while it is being written, then 1.
    state: AtomicU32,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: it is written once, before anybody looks.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

const READY: u32 = 1;

impl<T> OnceLock<T> {
    /// An empty one.
    pub const fn new() -> Self {
        OnceLock {
            state: AtomicU32::new(FREE),
            value: UnsafeCell::new(None),
        }
    }

    /// What is in it.
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != READY {
            return None;
        }
        // SAFETY: it is ready, so nobody writes any more.
        unsafe { &*self.value.get() }.as_ref()
    }

    /// What is in it, after writing it if nobody has.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let first = self
            .state
            .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Acquire)
            .is_ok();
        if first {
            let value = make();
            // SAFETY: whoever turned `FREE` into `TAKEN` has it alone until it is ready.
            unsafe { *self.value.get() = Some(value) };
            self.state.store(READY, Ordering::Release);
        }
        loop {
            if let Some(value) = self.get() {
                return value;
            }
            thread::yield_now();
        }
    }
}
