//! Blocking the executor's thread, and the token that ends it.
//!
//! Why not `std::thread::park`: its token is shared with everything else on the thread, so that user code which parks
//! would take our wake-ups, and we would take its own. This parker has a token of its own.
//!
//! The token doubles as the one flag that a running loop looks at: whoever hands something over from another thread
//! first publishes it, then sets the token. The loop takes the token *before* it looks at its queues, so what arrives
//! later sets it again.

use std::time::Duration;

use crate::sync::{AtomicU32, Condvar, Mutex, Ordering};

const EMPTY: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;

/// Parks one thread at a time; may be unparked from any thread, before or after.
#[derive(Debug)]
pub(crate) struct Parker {
    state: AtomicU32,
    lock: Mutex<()>,
    wakeup: Condvar,
}

impl Parker {
    pub(crate) fn new() -> Self {
        Parker {
            state: AtomicU32::new(EMPTY),
            lock: Mutex::new(()),
            wakeup: Condvar::new(),
        }
    }

    /// Whether the token is set. A hint: take the token to act on it.
    #[inline]
    pub(crate) fn is_notified(&self) -> bool {
        self.state.load(Ordering::Relaxed) == NOTIFIED
    }

    /// Whether the token is set, ordered against other threads' setting it (a read-modify-write).
    pub(crate) fn is_notified_exactly(&self) -> bool {
        self.state.fetch_or(0, Ordering::AcqRel) == NOTIFIED
    }

    /// Takes the token if it is set. What was published before the token was set is visible afterwards.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        // The load keeps the locked swap off the path of a loop that nobody has notified. A token set just after it is
        // seen at the next look, at most 64 polls later; before parking, `park` itself swaps.
        self.is_notified() && self.state.swap(EMPTY, Ordering::AcqRel) == NOTIFIED
    }

    /// Blocks until the token is set or `timeout` is over, and takes the token.
    pub(crate) fn park(&self, timeout: Option<Duration>) {
        if self.state.swap(EMPTY, Ordering::AcqRel) == NOTIFIED {
            return;
        }
        let mut guard = self.lock.lock().unwrap_or_else(|e| e.into_inner());
        // An unpark since the swap is seen here; one from now on waits for the lock before it signals.
        match self
            .state
            .compare_exchange(EMPTY, PARKED, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => {}
            Err(_) => {
                self.state.swap(EMPTY, Ordering::AcqRel);
                return;
            }
        }
        match timeout {
            None => loop {
                guard = self.wakeup.wait(guard).unwrap_or_else(|e| e.into_inner());
                if self
                    .state
                    .compare_exchange(NOTIFIED, EMPTY, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok()
                {
                    return;
                }
            },
            Some(timeout) => {
                // A spurious end of the wait is harmless: the loop looks around and parks again.
                let (_guard, _) = self
                    .wakeup
                    .wait_timeout(guard, timeout)
                    .unwrap_or_else(|e| e.into_inner());
                self.state.swap(EMPTY, Ordering::AcqRel);
            }
        }
    }

    /// Sets the token and ends a park. Returns whether this call turned the token on.
    ///
    /// The read-modify-write happens even when the token is set already: it publishes what the caller did before to
    /// the thread that takes the token.
    pub(crate) fn unpark(&self) -> bool {
        match self.state.swap(NOTIFIED, Ordering::AcqRel) {
            NOTIFIED => false,
            PARKED => {
                // The parked thread holds the lock from before it became PARKED until it waits, so that taking the
                // lock here proves that the signal cannot come too early.
                drop(self.lock.lock().unwrap_or_else(|e| e.into_inner()));
                self.wakeup.notify_one();
                true
            }
            _ => true,
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::Parker;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_token_set_before_parking_ends_the_park_at_once() {
        let parker = Parker::new();
        assert!(parker.unpark());
        assert!(!parker.unpark(), "the token is one");
        parker.park(None);
        assert!(!parker.take());
    }

    #[test]
    fn an_unpark_from_another_thread_ends_the_park() {
        let parker = Arc::new(Parker::new());
        let remote = Arc::clone(&parker);
        let thread = thread::spawn(move || remote.unpark());
        parker.park(None);
        thread.join().unwrap();
    }

    #[test]
    fn a_timeout_ends_the_park() {
        Parker::new().park(Some(Duration::from_millis(1)));
    }

    #[test]
    fn the_token_of_std_park_is_left_alone() {
        let parker = Parker::new();
        thread::current().unpark();
        parker.unpark();
        parker.park(None);
        thread::park(); // would block for ever if our park had taken it
    }
}
