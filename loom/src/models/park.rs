//! The parker by itself.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::{ANY, SOME, check};
use crate::park::Parker;

/// An unpark before, during or after the moment of parking ends the park, and what was done before it is visible then.
///
/// Left out: two threads that park at the same parker, which the type does not allow.
#[test]
fn a_park_ends_with_what_the_unpark_published() {
    check(ANY, || {
        let parker = Arc::new(Parker::new());
        let data = Arc::new(AtomicU32::new(0));
        let remote = {
            let (parker, data) = (Arc::clone(&parker), Arc::clone(&data));
            thread::spawn(move || {
                data.store(1, Ordering::Relaxed);
                parker.unpark();
            })
        };
        parker.park(None);
        assert_eq!(data.load(Ordering::Relaxed), 1);
        remote.join().unwrap();
        assert!(!parker.take(), "the park took the token");
    });
}

/// An unpark that finds the token set publishes too: taking the token shows what *every* unpark until then published,
/// and one that comes later sets it again.
#[test]
fn no_unpark_is_lost_to_another() {
    check(SOME, || {
        let parker = Arc::new(Parker::new());
        let data = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let remotes = [0, 1].map(|n| {
            let (parker, data) = (Arc::clone(&parker), Arc::clone(&data));
            thread::spawn(move || {
                data[n].store(1, Ordering::Relaxed);
                parker.unpark();
            })
        });
        // The way of a loop: a look takes the token first; only when there is nothing more to do it parks.
        let mut seen = [false; 2];
        loop {
            for n in 0..2 {
                seen[n] |= data[n].load(Ordering::Relaxed) == 1;
            }
            if seen == [true; 2] {
                break;
            }
            if !parker.take() {
                parker.park(None);
            }
        }
        for remote in remotes {
            remote.join().unwrap();
        }
    });
}

/// Exactly one unpark hears that it turned the token on, for every time that the token is taken: on this rests that a
/// host is told once for many wakes.
#[test]
fn every_token_has_one_giver() {
    check(ANY, || {
        let parker = Arc::new(Parker::new());
        let remotes = [(), ()].map(|()| {
            let parker = Arc::clone(&parker);
            thread::spawn(move || u32::from(parker.unpark()))
        });
        let mut taken = u32::from(parker.take()) + u32::from(parker.take());
        let given: u32 = remotes.map(|remote| remote.join().unwrap()).iter().sum();
        taken += u32::from(parker.take());
        assert_eq!(taken, given);
    });
}

/// A park that ends by its timeout either takes the token of an unpark, with what it published, or leaves it for the
/// next look.
///
/// The model's wait is over at once, so that it is always the timeout that ends it; the signal's case is the model
/// above.
#[test]
fn a_timeout_loses_no_token() {
    check(ANY, || {
        let parker = Arc::new(Parker::new());
        let data = Arc::new(AtomicU32::new(0));
        let remote = {
            let (parker, data) = (Arc::clone(&parker), Arc::clone(&data));
            thread::spawn(move || {
                data.store(1, Ordering::Relaxed);
                parker.unpark();
            })
        };
        parker.park(Some(Duration::from_secs(1)));
        // After a park the loop looks, whatever ended it.
        if data.load(Ordering::Relaxed) == 0 {
            parker.park(None);
            assert_eq!(data.load(Ordering::Relaxed), 1);
        }
        remote.join().unwrap();
    });
}
