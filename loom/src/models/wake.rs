//! Wakes against the loop that drains them: rules R1 to R3, order, and that nothing is lost.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread::{self, JoinHandle};

use super::{ANY, SOME, check, endpoint};
use crate::endpoint::Endpoint;
use crate::home::{self, FIRST, Home, key};

/// A word per waker: written, relaxed, before the wake, and read, relaxed, by the poll. Only the protocol orders the two.
fn words<const N: usize>() -> Arc<[AtomicU32; N]> {
    Arc::new([(); N].map(|()| AtomicU32::new(0)))
}

/// A thread that sets word `n` and wakes the first tenant of slot `index`.
fn waker<const N: usize>(
    endpoint: &Arc<Endpoint>,
    words: &Arc<[AtomicU32; N]>,
    n: usize,
    index: u32,
) -> JoinHandle<()> {
    let (endpoint, words) = (Arc::clone(endpoint), Arc::clone(words));
    thread::spawn(move || {
        words[n].store(1, Ordering::Relaxed);
        home::wake(&endpoint, key(index, FIRST));
    })
}

/// One wake, at any moment around a look and a park, leads to a poll that sees what was done before it.
#[test]
fn a_wake_at_any_moment_around_a_park_is_not_lost() {
    check(ANY, || {
        let endpoint = endpoint();
        let home = Home::new(&endpoint);
        let words = words::<1>();
        let remote = waker(&endpoint, &words, 0, 0);
        home.block_on(|index| {
            assert_eq!(index, 0);
            assert_eq!(words[0].load(Ordering::Relaxed), 1);
            true
        });
        remote.join().unwrap();
    });
}

/// R1. Two threads wake one slot: each of the two wakes, also one that found the bit on, is followed by a poll that sees
/// its data.
///
/// The loop parks until it has seen both, so that a wake whose data no poll sees shows as a deadlock.
#[test]
fn every_wake_is_followed_by_a_poll_that_sees_its_data() {
    check(SOME, || {
        let endpoint = endpoint();
        let home = Home::new(&endpoint);
        let words = words::<2>();
        let remotes = [0, 1].map(|n| waker(&endpoint, &words, n, 0));
        let mut seen = [false; 2];
        home.block_on(|_| {
            for (seen, word) in seen.iter_mut().zip(&*words) {
                *seen |= word.load(Ordering::Relaxed) == 1;
            }
            seen == [true; 2]
        });
        for remote in remotes {
            remote.join().unwrap();
        }
    });
}

/// R2. A wake that comes while an earlier one is being applied leads to one more dequeue.
///
/// Stricter than the library needs: here the poll itself is what `drain_wakes` calls, so that the bit must be clear
/// before that. (The arena only puts the task on its run queue there, and polls after the drain.)
#[test]
fn a_wake_during_the_poll_leads_to_another() {
    check(ANY, || {
        let endpoint = endpoint();
        let home = Home::new(&endpoint);
        let word = words::<1>();
        let remote = {
            let (endpoint, word) = (Arc::clone(&endpoint), Arc::clone(&word));
            thread::spawn(move || {
                for value in 1..=2 {
                    word[0].store(value, Ordering::Relaxed);
                    home::wake(&endpoint, key(0, FIRST));
                }
            })
        };
        let mut seen = 0;
        while seen < 2 {
            home.look(|_| seen = word[0].load(Ordering::Relaxed));
            if seen < 2 {
                home.park_if_idle();
            }
        }
        remote.join().unwrap();
    });
}

/// R2, second half. A wake whose slot is free is dequeued like any other: the slot's next tenant can be woken.
#[test]
fn a_wake_that_found_nobody_does_not_swallow_the_next() {
    check(SOME, || {
        let endpoint = endpoint();
        let home = Home::new(&endpoint);
        home.let_to(0, None);
        let stale = {
            let endpoint = Arc::clone(&endpoint);
            thread::spawn(move || home::wake(&endpoint, key(0, FIRST)))
        };
        assert!(home.look_around().is_empty());
        home.let_to(0, Some(FIRST + 1));
        let words = words::<1>();
        let living = {
            let (endpoint, words) = (Arc::clone(&endpoint), Arc::clone(&words));
            thread::spawn(move || {
                words[0].store(1, Ordering::Relaxed);
                home::wake(&endpoint, key(0, FIRST + 1));
            })
        };
        home.block_on(|_| words[0].load(Ordering::Relaxed) == 1);
        stale.join().unwrap();
        living.join().unwrap();
    });
}

/// R3. The stale waker of a slot's former tenant and the waker of its present one are called at once: the present one is
/// polled, and sees what its waker published, whichever of the two turned the bit on.
#[test]
fn a_stale_key_does_not_swallow_the_wake_of_the_living_tenant() {
    check(SOME, || {
        let endpoint = endpoint();
        let home = Home::new(&endpoint);
        home.let_to(0, Some(FIRST + 1));
        let words = words::<1>();
        let stale = {
            let endpoint = Arc::clone(&endpoint);
            thread::spawn(move || home::wake(&endpoint, key(0, FIRST)))
        };
        let living = {
            let (endpoint, words) = (Arc::clone(&endpoint), Arc::clone(&words));
            thread::spawn(move || {
                words[0].store(1, Ordering::Relaxed);
                home::wake(&endpoint, key(0, FIRST + 1));
            })
        };
        home.block_on(|_| words[0].load(Ordering::Relaxed) == 1);
        stale.join().unwrap();
        living.join().unwrap();
    });
}

/// Two threads wake different slots: every index comes out, once, and those of one thread in the order of its wakes.
#[test]
fn pushers_lose_nothing_and_keep_their_order() {
    check(Some(3), || {
        let endpoint = endpoint();
        let home = Home::new(&endpoint);
        let remotes = [&[0, 1][..], &[2]].map(|indices| {
            let endpoint = Arc::clone(&endpoint);
            thread::spawn(move || {
                for &index in indices {
                    home::wake(&endpoint, key(index, FIRST));
                }
            })
        });
        let mut order = Vec::new();
        home.block_on(|index| {
            order.push(index);
            order.len() == 3
        });
        for remote in remotes {
            remote.join().unwrap();
        }
        assert!(home.look_around().is_empty());
        let at = |index| order.iter().position(|&i| i == index);
        assert!(at(0).is_some() && at(2).is_some());
        assert!(at(0) < at(1), "{order:?}");
    });
}

/// When a wake of a slot of its own has returned, one look finds it, wherever in its own wake another thread is held up.
///
/// Not so for a wake that found its bit on: its entry is linked by whoever turned the bit on, when that one goes on.
#[test]
fn a_wake_waits_for_no_other_thread() {
    check(ANY, || {
        let endpoint = endpoint();
        let home = Home::new(&endpoint);
        let slow = {
            let endpoint = Arc::clone(&endpoint);
            thread::spawn(move || home::wake(&endpoint, key(0, FIRST)))
        };
        let mut seen = home.look_around();
        let quick = {
            let endpoint = Arc::clone(&endpoint);
            thread::spawn(move || home::wake(&endpoint, key(1, FIRST)))
        };
        quick.join().unwrap();
        seen.extend(home.look_around());
        assert!(seen.contains(&1));
        slow.join().unwrap();
    });
}

/// However often a slot is woken, and by however many threads, a look finds at most one entry of it; and the last wake is
/// seen.
#[test]
fn a_hot_slot_occupies_one_entry() {
    check(SOME, || {
        let endpoint = endpoint();
        let home = Home::new(&endpoint);
        let word = words::<1>();
        let hot = {
            let (endpoint, word) = (Arc::clone(&endpoint), Arc::clone(&word));
            thread::spawn(move || {
                for value in 1..=3 {
                    word[0].store(value, Ordering::Relaxed);
                    home::wake(&endpoint, key(0, FIRST));
                }
            })
        };
        let warm = {
            let endpoint = Arc::clone(&endpoint);
            thread::spawn(move || home::wake(&endpoint, key(0, FIRST)))
        };
        let mut seen = 0;
        let look = |seen: &mut u32| {
            let ready = home.look_around();
            assert!(ready.len() <= 1, "{ready:?}");
            if !ready.is_empty() {
                *seen = word[0].load(Ordering::Relaxed);
            }
        };
        look(&mut seen);
        look(&mut seen);
        hot.join().unwrap();
        warm.join().unwrap();
        look(&mut seen);
        assert_eq!(seen, 3);
    });
}
