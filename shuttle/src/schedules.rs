//! Long random schedules.

use std::sync::Arc;

use shuttle::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use shuttle::thread;

use crate::endpoint::{CancelRequest, Endpoint};
use crate::home::{FIRST, Home, SLOTS, key, wake};
use crate::inbox::Inbox;

/// Runs `schedule` in so many random orders, half of them with few changes of the thread that runs, at the worst places.
fn check(schedule: impl Fn() + Send + Sync + Copy + 'static) {
    let runs =
        std::env::var("MAINSTAY_SHUTTLE").map_or(2_000, |runs| runs.parse().expect("a number"));
    shuttle::check_random(schedule, runs / 2);
    shuttle::check_pct(schedule, runs - runs / 2, 3);
}

fn endpoint() -> &'static Endpoint {
    // What came through it is gone by the end of a run; a few hundred bytes each, for as long as the process lives.
    Box::leak(Box::new(Endpoint::new(1)))
}

/// P5, R1, R2: five threads, each of which says something and wakes, over and over. The loop parks whenever it finds nothing,
/// and ends when it has seen all that was said: each wake is followed by a look that sees it.
#[test]
fn no_wake_of_many_is_lost() {
    const THREADS: usize = 5;
    const WAKES: u32 = 20;
    check(|| {
        let endpoint = endpoint();
        let home = Home::new(endpoint);
        let said: Arc<[AtomicU32; THREADS]> = Arc::new(std::array::from_fn(|_| AtomicU32::new(0)));
        let threads: Vec<_> = (0..THREADS)
            .map(|n| {
                let said = Arc::clone(&said);
                thread::spawn(move || {
                    for wakes in 1..=WAKES {
                        said[n].store(wakes, Ordering::Relaxed);
                        wake(endpoint, key((n as u32 + wakes) % SLOTS, FIRST));
                    }
                })
            })
            .collect();
        home.block_on(|_| {
            said.iter()
                .all(|said| said.load(Ordering::Relaxed) == WAKES)
        });
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// P4, I1, I2: messages from four threads at an executor that parks, and ends at some moment. What was sent is
/// run, or taken at the end, or handed back to its sender; in the order of its sender; once.
#[test]
fn each_message_is_run_or_taken_or_handed_back() {
    const SENDERS: u32 = 4;
    const MESSAGES: u32 = 12;
    const ALL: usize = (SENDERS * MESSAGES) as usize;
    // The executor ends in the middle of them, or waits for the last.
    for awaited in [ALL / 2, ALL] {
        check(move || {
            let endpoint = endpoint();
            let home = Home::new(endpoint);
            let inbox = Arc::new(Inbox::new(endpoint, 1));
            let senders: Vec<_> = (0..SENDERS)
                .map(|sender| {
                    let inbox = Arc::clone(&inbox);
                    thread::spawn(move || {
                        let sent = |n| inbox.send(sender * MESSAGES + n).err();
                        (0..MESSAGES).filter_map(sent).collect::<Vec<_>>()
                    })
                })
                .collect();
            let mut run = Vec::new();
            while run.len() < awaited {
                if home.take_message() {
                    for _ in 0..inbox.len() {
                        run.extend(inbox.take());
                    }
                } else {
                    home.park_if_idle();
                }
            }
            inbox.close();
            while let Some(message) = inbox.take() {
                run.push(message);
            }
            for sender in senders {
                run.extend(sender.join().unwrap());
            }
            assert!(inbox.take().is_none(), "nothing is left behind");
            for sender in 0..SENDERS {
                let of_it = run.iter().filter(|message| **message / MESSAGES == sender);
                assert!(of_it.is_sorted(), "{run:?}");
            }
            run.sort_unstable();
            assert_eq!(run, (0..SENDERS * MESSAGES).collect::<Vec<_>>());
        });
    }
}

/// P5: wakers of an executor that is gone go on waking while a later one uses the endpoint. Its own wakes are not lost in
/// those, and each of its cancels arrives.
#[test]
fn late_wakes_hide_none_of_the_next_executors() {
    const WAKES: u32 = 15;
    check(|| {
        let endpoint = endpoint();
        let stale: Vec<_> = {
            let _gone = Home::new(endpoint);
            (0..2)
                .map(|n| {
                    thread::spawn(move || {
                        for wakes in 0..WAKES {
                            wake(endpoint, key((n + wakes) % SLOTS, FIRST));
                            if wakes == WAKES / 2 {
                                endpoint.cancel(CancelRequest {
                                    index: 0,
                                    id: 1,
                                    reason: None,
                                });
                            }
                        }
                    })
                })
                .collect()
        };
        endpoint.clear();
        let home = Home::new(endpoint);
        let said = Arc::new(AtomicU32::new(0));
        let says = Arc::clone(&said);
        let own = thread::spawn(move || {
            for wakes in 1..=WAKES {
                says.store(wakes, Ordering::Relaxed);
                wake(endpoint, key(wakes % SLOTS, FIRST));
            }
            endpoint.cancel(CancelRequest {
                index: 0,
                id: 2,
                reason: None,
            });
        });
        let (mut seen, mut cancelled) = (0, false);
        while seen < WAKES || !cancelled {
            if !home.has_message() {
                home.park_if_idle();
            }
            if home.take_message() {
                endpoint.drain_wakes(|_| seen = seen.max(said.load(Ordering::Relaxed)));
                for _ in 0..endpoint.cancels() {
                    let request = endpoint.next_cancel().expect("it is counted");
                    cancelled |= request.id == 2;
                }
            }
        }
        for thread in stale {
            thread.join().unwrap();
        }
        own.join().unwrap();
    });
}

/// P8: the hook of a host loop is told of every wake that comes after the host has looked, while the hook itself is replaced.
#[test]
fn a_host_that_looks_when_it_is_told_sees_every_wake() {
    const WAKES: u32 = 12;
    check(|| {
        let endpoint = endpoint();
        let home = Home::new(endpoint);
        let hails = Arc::new(AtomicUsize::new(0));
        let hook = || {
            let hails = Arc::clone(&hails);
            waker_that(move || {
                hails.fetch_add(1, Ordering::SeqCst);
            })
        };
        endpoint.set_host(Some(hook()));
        let said = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let said = Arc::clone(&said);
                thread::spawn(move || {
                    for wakes in 0..WAKES {
                        said.fetch_add(1, Ordering::Relaxed);
                        wake(endpoint, key((n + wakes) % SLOTS, FIRST));
                    }
                })
            })
            .collect();
        let mut looked = 0;
        let mut seen = 0;
        while seen < 3 * WAKES {
            // A host sleeps until it is told; here that is a turn of the others.
            while hails.load(Ordering::SeqCst) == looked {
                thread::yield_now();
            }
            looked = hails.load(Ordering::SeqCst);
            if looked % 3 == 0 {
                endpoint.set_host(Some(hook()));
            }
            home.look(|_| seen = seen.max(said.load(Ordering::Relaxed)));
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

fn waker_that(wake: impl Fn() + Send + Sync + 'static) -> std::task::Waker {
    struct Hook<F>(F);
    impl<F: Fn() + Send + Sync + 'static> std::task::Wake for Hook<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }
    Arc::new(Hook(wake)).into()
}
