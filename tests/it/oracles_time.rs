//! Oracles (see `oracles.md`): sleeps that go at an awkward moment.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use mainstay::{Executor, Sleep, sleep};

use crate::support::{poll_once, quiet};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

thread_local! {
    static NAPS: RefCell<Vec<Sleep>> = const { RefCell::new(Vec::new()) };
    static WAKES: Cell<usize> = const { Cell::new(0) };
}

/// Drops all sleeps in `NAPS`, its own among them, and then panics if it was told to.
struct DropsThem {
    panics: bool,
}

impl Wake for DropsThem {
    fn wake(self: Arc<Self>) {
        WAKES.set(WAKES.get() + 1);
        let gone = NAPS.take();
        drop(gone);
        assert!(!self.panics, "boom in a waker");
    }
}

// tokio time_sleep::drop_from_wake: the waker of a due sleep drops a hundred that are due as well.
#[test]
fn a_waker_may_drop_all_sleeps_that_are_due() {
    quiet();
    for panics in [false, true] {
        WAKES.set(0);
        let ex = Executor::<'static>::builder().virtual_clock().build();
        let reports = Rc::new(Cell::new(0));
        let count = Rc::clone(&reports);
        ex.set_exception_handler(move |_, _| count.set(count.get() + 1));
        let waker = Waker::from(Arc::new(DropsThem { panics }));
        ex.block_on(async {
            let naps = (0..100).map(|_| {
                let mut nap = sleep(ms(10));
                let polled = Pin::new(&mut nap).poll(&mut Context::from_waker(&waker));
                assert!(polled.is_pending());
                nap
            });
            let naps: Vec<Sleep> = naps.collect();
            NAPS.set(naps);
            sleep(ms(11)).await;
        });
        assert!(NAPS.take().is_empty());
        // All that was due was taken before any of it was woken, so that the rest is woken in vain.
        let wakes = WAKES.get();
        assert_eq!(wakes, 100);
        assert_eq!(reports.get(), if panics { wakes } else { 0 });
        assert_eq!(ex.tick(0).next_deadline, None);
    }
}

// tokio time_sleep::drop_after_reschedule_at_new_scheduled_time: a sleep that was moved to where another one is armed, and
// then dropped or not, leaves the other one where it is, and nothing of itself.
#[test]
fn a_sleep_that_was_moved_takes_no_other_with_it() {
    for is_dropped in [true, false] {
        let ex = Executor::<'static>::builder().virtual_clock().build();
        let start = ex.now();
        let next = |at: u64| assert_eq!(ex.tick(0).next_deadline, Some(start + ms(at)));
        let (a, mut b, mut c) = ex.block_on(async {
            let mut naps = (sleep(ms(5)), sleep(ms(5)), sleep(ms(10)));
            for nap in [&mut naps.0, &mut naps.1, &mut naps.2] {
                assert!(poll_once(nap).is_pending());
            }
            naps.1.reset(start + ms(10));
            naps
        });
        assert!(ex.block_on(async { poll_once(&mut b) }).is_pending());
        next(5);
        ex.block_on(a);
        assert_eq!(ex.now(), start + ms(5));
        next(10);
        if is_dropped {
            drop(b);
            next(10);
            c.reset(start + ms(20));
            next(20);
            ex.block_on(c);
            assert_eq!(ex.now(), start + ms(20));
        } else {
            ex.block_on(c);
            assert_eq!(ex.now(), start + ms(10));
            assert!(poll_once(&mut b).is_ready(), "it is due at the same time");
        }
        assert_eq!(ex.tick(0).next_deadline, None);
    }
}

// tokio time_sleep::issue_5183: a sleep of billions of years beside a short one.
#[test]
fn a_sleep_of_ages_does_not_hide_a_short_one_5183() {
    let ex = Executor::<'static>::builder().virtual_clock().build();
    for ages in [u64::MAX / 10, u64::MAX / 1_000_000_000, u64::MAX] {
        let began = ex.now();
        ex.block_on(async {
            let (mut long, mut short) = (sleep(Duration::from_secs(ages)), sleep(ms(1)));
            poll_fn(|cx| {
                assert!(Pin::new(&mut long).poll(cx).is_pending());
                Pin::new(&mut short).poll(cx)
            })
            .await;
        });
        assert_eq!(ex.now() - began, ms(1));
    }
}
