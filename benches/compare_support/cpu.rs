//! What the system tells of the time that a thread had a core.

use std::{fs, thread, time::Duration};

/// How long this thread has run, its system calls included, where the system tells.
pub(crate) fn time_run() -> Option<Duration> {
    // The kernel brings it up to date when the thread stops running.
    thread::sleep(Duration::from_nanos(1));
    // `stat` has the same in hundredths of a second, which is too coarse.
    field(0).filter(|time| !time.is_zero())
}

/// How long this thread was ready to run and had no core. Zero where the system does not tell.
pub(crate) fn time_without_core() -> Duration {
    field(1).unwrap_or_default()
}

fn field(index: usize) -> Option<Duration> {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = schedstat.split_whitespace().nth(index)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}
