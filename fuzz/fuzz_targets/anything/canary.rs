//! Values that know whether they were dropped once, in good health.

use std::fmt;
use std::panic::panic_any;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::acts::act;
use crate::choices::{Boom, maybe_panic, once_in};

const ALIVE: u64 = 0xfeed_f00d;

/// How many there are, on all threads: one program runs at a time.
static COUNT: AtomicI64 = AtomicI64::new(0);

/// Its memory is of its own, so that AddressSanitizer sees a second drop, and LeakSanitizer a missing one.
pub(crate) struct Canary(Box<u64>);

impl Canary {
    pub(crate) fn new() -> Self {
        COUNT.fetch_add(1, Ordering::Relaxed);
        Canary(Box::new(ALIVE))
    }

    /// Aborts instead of panicking: the library would contain a panic.
    pub(crate) fn check(&self) {
        if *self.0 != ALIVE {
            eprintln!("a value was used that is not there");
            std::process::abort();
        }
    }

    pub(crate) fn count() -> i64 {
        COUNT.load(Ordering::Relaxed)
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.check();
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The payload of a panic, whose own destructor may panic: not with its like, as the library leaks a chain that is too long.
pub(crate) struct Payload(Canary);

impl Payload {
    pub(crate) fn new() -> Self {
        Payload(Canary::new())
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.0.check();
        act();
        if !std::thread::panicking() && once_in(9) {
            panic_any(Boom);
        }
    }
}

/// A value of the user's whose destructor, `Display` and `Debug` do anything: outputs, errors, task locals, captures.
pub(crate) struct Wild(Canary);

impl Wild {
    pub(crate) fn new() -> Self {
        Wild(Canary::new())
    }

    /// What a callback, hook or handler does that has captured this.
    pub(crate) fn run(&self) {
        self.0.check();
        act();
        maybe_panic();
        self.0.check();
    }
}

impl Drop for Wild {
    fn drop(&mut self) {
        self.run();
    }
}

impl fmt::Display for Wild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.run();
        f.write_str("wild")
    }
}

impl fmt::Debug for Wild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.run();
        f.write_str("Wild")
    }
}
