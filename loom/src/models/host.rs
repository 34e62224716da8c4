//! Host loops: they call `tick` when, and only when, the hook of `on_wake` has told them to.

use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread::{self, JoinHandle};

use super::{ANY, SOME, check, endpoint};
use crate::endpoint::Endpoint;
use crate::home::{self, FIRST, Home, key};

/// A hook that passes the message on: it counts.
pub(super) struct Host {
    told: AtomicU32,
    /// If it panics after that: the endpoint that will be told of it, as `Executor::on_wake` does.
    panics: Option<Weak<Endpoint>>,
}

impl Host {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Host {
            told: AtomicU32::new(0),
            panics: None,
        })
    }

    fn panicking(endpoint: &Arc<Endpoint>) -> Arc<Self> {
        Arc::new(Host {
            told: AtomicU32::new(0),
            panics: Some(Arc::downgrade(endpoint)),
        })
    }

    /// Whether the host was told since the last time that this was asked.
    ///
    /// Ordered, as every way of passing a message to another thread is.
    pub(super) fn hear(&self) -> bool {
        self.told.swap(0, Ordering::AcqRel) > 0
    }
}

impl Wake for Host {
    fn wake(self: Arc<Self>) {
        self.told.fetch_add(1, Ordering::AcqRel);
        if let Some(endpoint) = self.panics.as_ref().and_then(Weak::upgrade) {
            endpoint.hook_panicked(Box::new("the hook panicked"));
        }
    }
}

fn waker(endpoint: &Arc<Endpoint>, indices: &'static [u32]) -> JoinHandle<()> {
    let endpoint = Arc::clone(endpoint);
    thread::spawn(move || {
        for &index in indices {
            home::wake(&endpoint, key(index, FIRST));
        }
    })
}

/// Threads wake while the home thread ticks: what that tick does not see, the host is told of after it has begun. There is
/// never a wake that waits while the token is off, or on and nobody has been told.
#[test]
fn a_wake_during_a_tick_is_seen_or_told() {
    check(SOME, || {
        let endpoint = endpoint();
        let home = Home::new(&endpoint);
        let host = Host::new();
        endpoint.set_host(Some(Waker::from(Arc::clone(&host))));
        let remotes = [waker(&endpoint, &[0]), waker(&endpoint, &[1])];
        // A tick, whether the host has been told or not.
        host.hear();
        let mut seen = home.look_around();
        for remote in remotes {
            remote.join().unwrap();
        }
        while host.hear() {
            seen.extend(home.look_around());
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
    });
}

/// Threads wake while the hook is being set for the first time: the new hook is told, although a wake may have come too
/// early for it or met the lock held.
#[test]
fn a_wake_while_a_hook_is_set_is_told() {
    check(SOME, || {
        let endpoint = endpoint();
        let _home = Home::new(&endpoint);
        let host = Host::new();
        let remotes = [waker(&endpoint, &[0]), waker(&endpoint, &[1])];
        endpoint.set_host(Some(Waker::from(Arc::clone(&host))));
        for remote in remotes {
            remote.join().unwrap();
        }
        assert!(host.hear());
    });
}

/// A thread wakes while one hook takes the place of another: the later hook is told, as nobody has looked yet.
#[test]
fn a_wake_while_a_hook_is_replaced_is_told_to_the_new_one() {
    check(ANY, || {
        let endpoint = endpoint();
        let _home = Home::new(&endpoint);
        let (old, new) = (Host::new(), Host::new());
        endpoint.set_host(Some(Waker::from(old)));
        let remote = waker(&endpoint, &[0]);
        endpoint.set_host(Some(Waker::from(Arc::clone(&new))));
        remote.join().unwrap();
        assert!(new.hear());
    });
}

/// The hook tells its host, and panics: that panic's own message for the home thread must not keep the next wake from
/// being told.
#[test]
fn a_panicking_hook_hides_no_later_wake() {
    check(ANY, || {
        let endpoint = endpoint();
        let home = Home::new(&endpoint);
        let host = Host::panicking(&endpoint);
        endpoint.set_host(Some(Waker::from(Arc::clone(&host))));
        let remote = waker(&endpoint, &[0, 1]);
        let mut seen = Vec::new();
        let mut tick = || {
            if host.hear() {
                seen.extend(home.look_around());
            }
        };
        tick();
        remote.join().unwrap();
        tick();
        tick();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
    });
}
