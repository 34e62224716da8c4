//! The process-wide table from executor id to endpoint, and the pool of idle endpoints.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_queue::SegQueue;

use crate::key::Key;

use super::endpoint::Endpoint;

const PAGE: usize = 128;
const PAGES: usize = <Key>::MAX_EXECUTOR as usize / PAGE + 1;

type Page = [OnceLock<&'static Endpoint>; PAGE];

/// Two levels, so that a process with a few executors touches a few cache lines.
static TABLE: [OnceLock<Box<Page>>; PAGES] = [const { OnceLock::new() }; PAGES];

/// Ids handed out so far; an endpoint keeps its id for ever.
static LAST_ID: AtomicU32 = AtomicU32::new(0);

/// Endpoints whose executor is gone. A later executor takes one of these before a new one is made.
static IDLE: SegQueue<&'static Endpoint> = SegQueue::new();

/// The endpoint of an executor id, if one was ever made.
#[inline]
pub(crate) fn endpoint(id: u32) -> Option<&'static Endpoint> {
    let id = id as usize;
    TABLE.get(id / PAGE)?.get()?.get(id % PAGE)?.get().copied()
}

/// Takes an endpoint for a new executor.
///
/// # Panics
///
/// When every executor id is taken by a living executor.
#[track_caller]
pub(crate) fn acquire() -> &'static Endpoint {
    if let Some(endpoint) = IDLE.pop() {
        endpoint.clear();
        return endpoint;
    }
    let id = match LAST_ID.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
        (last < <Key>::MAX_EXECUTOR).then_some(last + 1)
    }) {
        Ok(last) => last + 1,
        Err(limit) => panic!(
            "mainstay: out of executor ids: {limit} executors are alive in this process; drop some"
        ),
    };
    // Leaked on purpose: a waker may name it for as long as the process lives.
    let endpoint: &'static Endpoint = Box::leak(Box::new(Endpoint::new(id)));
    let page =
        TABLE[id as usize / PAGE].get_or_init(|| Box::new([const { OnceLock::new() }; PAGE]));
    let fresh = page[id as usize % PAGE].set(endpoint).is_ok();
    debug_assert!(fresh, "an id is handed out once");
    endpoint
}

/// Gives an endpoint back. Late wakes may still arrive at it; its next owner takes them for spurious ones.
pub(crate) fn release(endpoint: &'static Endpoint) {
    IDLE.push(endpoint);
}

#[cfg(test)]
mod tests {
    use super::{acquire, endpoint, release};

    #[test]
    fn an_id_finds_its_endpoint_and_no_other() {
        let (a, b) = (acquire(), acquire());
        assert_ne!(a.id(), b.id());
        assert!(std::ptr::eq(endpoint(a.id()).unwrap(), a));
        assert!(std::ptr::eq(endpoint(b.id()).unwrap(), b));
        assert!(endpoint(0).is_none(), "0 is nobody's id");
        assert!(endpoint(u32::MAX).is_none());
        release(a);
        release(b);
    }
}
