//! Guests: an executor inside another runtime, which polls when, and only when, the waker that the last turn was given has
//! been called.

use std::sync::Arc;
use std::task::Waker;

use loom::thread;

use super::host::Host;
use super::{ANY, SOME, check, leaked_endpoint};
use crate::endpoint::Endpoint;
use crate::home::{self, FIRST, Home, key};
use crate::outer::Outer;

/// What the endpoint wakes: `Scheduler::publish_hosts`, with one guest.
struct Tell(Arc<Outer>);

impl std::task::Wake for Tell {
    fn wake(self: Arc<Self>) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

/// `Visit::turn`: the waker is set before anything is looked at. Gives what was woken.
fn turn(home: &Home<'_>, outer: &Outer, host: &Arc<Host>) -> Vec<u32> {
    drop(outer.set(&Waker::from(Arc::clone(host))));
    let mut seen = home.look_around();
    while home.has_message() {
        seen.extend(home.look_around());
    }
    seen
}

fn remote(endpoint: &'static Endpoint, index: u32) -> thread::JoinHandle<()> {
    thread::spawn(move || home::wake(endpoint, key(index, FIRST)))
}

/// A wake that a turn does not see, the host is told of after that turn has begun, by the waker that it came with: so a host that
/// polls only when it is told sees every wake. Each turn comes with another waker, as from a host that moves the guest about.
#[test]
fn a_wake_around_a_turn_is_seen_or_told_to_the_latest_waker() {
    check(SOME, || {
        let endpoint = leaked_endpoint();
        let home = Home::new(endpoint);
        let outer = Arc::new(Outer::new());
        endpoint.set_host(Some(Waker::from(Arc::new(Tell(Arc::clone(&outer))))));
        let remotes = [remote(endpoint, 0), remote(endpoint, 1)];
        let mut seen = turn(&home, &outer, &Host::new());
        // Another one, for whatever reason.
        let mut host = Host::new();
        seen.extend(turn(&home, &outer, &host));
        for remote in remotes {
            remote.join().unwrap();
        }
        while host.hear() {
            host = Host::new();
            seen.extend(turn(&home, &outer, &host));
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
    });
}

/// A guest begins while a wake comes: its first turn sees the wake, or is told.
#[test]
fn a_wake_around_the_first_turn_is_seen_or_told() {
    check(ANY, || {
        let endpoint = leaked_endpoint();
        let home = Home::new(endpoint);
        let outer = Arc::new(Outer::new());
        let remote = remote(endpoint, 0);
        endpoint.set_host(Some(Waker::from(Arc::new(Tell(Arc::clone(&outer))))));
        let host = Host::new();
        let mut seen = turn(&home, &outer, &host);
        remote.join().unwrap();
        while host.hear() {
            seen.extend(turn(&home, &outer, &host));
        }
        assert_eq!(seen, [0]);
    });
}
