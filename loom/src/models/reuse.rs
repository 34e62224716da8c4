//! Endpoints outlive their executors: a wake that comes too late meets the next owner.

use std::sync::Arc;
use std::task::Waker;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread::{self, JoinHandle};

use super::host::Host;
use super::{SOME, check, endpoint};
use crate::endpoint::Endpoint;
use crate::home::{self, FIRST, Home, key};

/// A wake for an executor that is about to go.
fn late(endpoint: &Arc<Endpoint>) -> JoinHandle<()> {
    let endpoint = Arc::clone(endpoint);
    thread::spawn(move || home::wake(&endpoint, key(0, FIRST)))
}

/// A wake of the next owner's own task, in the same slot, which has something to show.
fn own(endpoint: &Arc<Endpoint>, word: &Arc<AtomicU32>) -> JoinHandle<()> {
    let (endpoint, word) = (Arc::clone(endpoint), Arc::clone(word));
    thread::spawn(move || {
        word.store(1, Ordering::Relaxed);
        home::wake(&endpoint, key(0, FIRST));
    })
}

/// `Drop for Arena`, then `table::acquire`.
fn pass_on(endpoint: &Endpoint) {
    endpoint.forget_owner();
    endpoint.set_host(None);
    endpoint.clear();
}

/// A late wake is at most spurious for the next owner, and swallows none of its own: a loop that parks polls its task.
///
/// Both owners live on one thread here. On two, the pool of idle endpoints orders them just as strictly.
#[test]
fn a_late_wake_does_not_swallow_the_next_owners() {
    check(SOME, || {
        let endpoint = endpoint();
        let first = Home::new(&endpoint);
        let late = late(&endpoint);
        first.look_around();
        pass_on(&endpoint);
        let second = Home::new(&endpoint);
        let word = Arc::new(AtomicU32::new(0));
        let own = own(&endpoint, &word);
        second.block_on(|_| word.load(Ordering::Relaxed) == 1);
        late.join().unwrap();
        own.join().unwrap();
    });
}

/// The same, when the next owner is ticked by a host: a late wake's token does not keep the host from being told.
#[test]
fn a_late_wake_does_not_keep_the_next_host_from_being_told() {
    check(SOME, || {
        let endpoint = endpoint();
        let first = Home::new(&endpoint);
        endpoint.set_host(Some(Waker::from(Host::new())));
        let late = late(&endpoint);
        first.look_around();
        pass_on(&endpoint);
        let second = Home::new(&endpoint);
        let host = Host::new();
        endpoint.set_host(Some(Waker::from(Arc::clone(&host))));
        let word = Arc::new(AtomicU32::new(0));
        let own = own(&endpoint, &word);
        let mut seen = false;
        let mut tick = || {
            if host.hear() && !second.look_around().is_empty() {
                seen |= word.load(Ordering::Relaxed) == 1;
            }
        };
        tick();
        own.join().unwrap();
        late.join().unwrap();
        tick();
        assert!(seen);
    });
}
