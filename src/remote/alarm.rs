//! The timer thread: one for the process, which tells hosts that know no timers of ours when a deadline has come.
//!
//! It is started when an executor's [`run_until`](crate::Executor::run_until) waits with timers armed inside a host that is no
//! executor of ours, and ends when it has had nothing to wait for during [`IDLE`]. It holds one deadline an executor, which
//! names the endpoint: so an executor that is gone is woken in vain, once, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::table;

/// For how long the thread waits for something to wait for.
const IDLE: Duration = Duration::from_secs(10);

/// What the thread is called, for debuggers and process listings.
const NAME: &str = "mainstay-timers";

struct Alarms {
    /// By deadline: which executor.
    due: BTreeSet<(Instant, u32)>,
    /// By executor: its deadline.
    of: BTreeMap<u32, Instant>,
    running: bool,
}

static ALARMS: Mutex<Alarms> = Mutex::new(Alarms {
    due: BTreeSet::new(),
    of: BTreeMap::new(),
    running: false,
});
static NEARER: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Alarms> {
    ALARMS.lock().unwrap_or_else(|e| e.into_inner())
}

impl Alarms {
    fn remove(&mut self, executor: u32) {
        if let Some(deadline) = self.of.remove(&executor) {
            self.due.remove(&(deadline, executor));
        }
    }

    /// Takes the executor whose deadline comes first, if it has come.
    fn take_due(&mut self, now: Instant) -> Option<u32> {
        let &(deadline, executor) = self.due.first()?;
        (deadline <= now).then(|| {
            self.remove(executor);
            executor
        })
    }
}

/// Has the executor's endpoint notified when `deadline` has come, and at no other time that was set before.
///
/// # Errors
///
/// What kept the thread from being started. Nothing is set then.
pub(crate) fn set(executor: u32, deadline: Instant) -> io::Result<()> {
    let mut alarms = lock();
    if !alarms.running {
        // It waits for the lock.
        thread::Builder::new().name(NAME.into()).spawn(run)?;
        alarms.running = true;
    }
    alarms.remove(executor);
    alarms.of.insert(executor, deadline);
    alarms.due.insert((deadline, executor));
    let nearest = alarms.due.first() == Some(&(deadline, executor));
    drop(alarms);
    if nearest {
        NEARER.notify_one();
    }
    Ok(())
}

/// Takes back what was set.
pub(crate) fn clear(executor: u32) {
    lock().remove(executor);
}

fn run() {
    let mut alarms = lock();
    loop {
        let now = Instant::now();
        if let Some(executor) = alarms.take_due(now) {
            drop(alarms);
            if let Some(endpoint) = table::endpoint(executor) {
                // A host's hook and waker are called here; what they do is contained where they are.
                endpoint.notify();
            }
            alarms = lock();
            continue;
        }
        let next = alarms.due.first().map(|&(deadline, _)| deadline);
        let wait = next.map_or(IDLE, |deadline| deadline.saturating_duration_since(now));
        let (back, timeout) = NEARER
            .wait_timeout(alarms, wait)
            .unwrap_or_else(|e| e.into_inner());
        alarms = back;
        if next.is_none() && timeout.timed_out() && alarms.due.is_empty() {
            alarms.running = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{clear, lock, set};
    use crate::remote::endpoint::Endpoint;
    use crate::remote::table;
    use std::time::{Duration, Instant};

    /// The deadlines that are set for an executor.
    fn set_for(endpoint: &Endpoint) -> Vec<Instant> {
        let alarms = lock();
        let due = alarms.due.iter();
        let own: Vec<_> = due.filter(|due| due.1 == endpoint.id()).collect();
        assert_eq!(alarms.of.contains_key(&endpoint.id()), !own.is_empty());
        own.into_iter().map(|due| due.0).collect()
    }

    #[test]
    fn an_endpoint_is_notified_when_its_deadline_has_come_and_not_before() {
        let endpoint = table::acquire();
        let began = Instant::now();
        let soon = Duration::from_millis(20);
        set(endpoint.id(), began + Duration::from_secs(1000)).unwrap();
        set(endpoint.id(), began + soon).unwrap();
        assert_eq!(set_for(endpoint), [began + soon], "one an executor");
        endpoint.parker().park(Some(Duration::from_secs(100)));
        assert!(began.elapsed() >= soon);
        assert_eq!(set_for(endpoint), []);
        table::release(endpoint);
    }

    #[test]
    fn what_is_cleared_notifies_nobody() {
        let endpoint = table::acquire();
        let (began, wait) = (Instant::now(), Duration::from_millis(30));
        set(endpoint.id(), began + Duration::from_millis(10)).unwrap();
        clear(endpoint.id());
        assert_eq!(set_for(endpoint), []);
        endpoint.parker().park(Some(wait));
        assert!(began.elapsed() >= wait, "nothing ended the wait");
        table::release(endpoint);
    }
}
