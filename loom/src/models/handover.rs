//! Outcomes on their way to a handle on another thread: delivery against taking, cancelling and dropping, and the end of the
//! executor against all of them.

use std::sync::Arc;
use std::task::Waker;

use loom::thread;

use super::host::Host;
use super::{ANY, check, leaked_endpoint};
use crate::handover::{Asked, Delivered, Handover, Look, Take};
use crate::home::Home;
use crate::inbox::Inbox;

/// What the home thread does with an outcome: delivers it, and wakes who waits.
fn deliver(handover: &Handover<u32>, outcome: u32, owed: bool) -> Option<u32> {
    match handover.deliver(outcome, owed) {
        Delivered::Accepted(waker) => {
            if let Some(waker) = waker {
                waker.wake();
            }
            None
        }
        Delivered::Left => None,
        Delivered::Refused(outcome) => Some(outcome),
    }
}

fn taken(take: Take<u32>) -> Option<u32> {
    match take {
        Take::NotYet => None,
        Take::Outcome { outcome, .. } => Some(outcome),
        Take::Spent => unreachable!("it is taken once"),
    }
}

/// A handle is polled while its outcome comes: it has the outcome, or its waker is woken and the next poll has it.
#[test]
fn an_outcome_is_taken_or_told() {
    check(ANY, || {
        let handover = Arc::new(Handover::new());
        let home = thread::spawn({
            let handover = Arc::clone(&handover);
            move || assert_eq!(deliver(&handover, 7, false), None)
        });
        let host = Host::new();
        let first = taken(handover.take_or_wait(&Waker::from(Arc::clone(&host))));
        home.join().unwrap();
        let outcome = first.or_else(|| {
            assert!(host.hear(), "it waited");
            taken(handover.take())
        });
        assert_eq!(outcome, Some(7));
    });
}

/// The same with a handle that is polled again with another waker: the later one counts.
#[test]
fn the_later_of_two_wakers_is_told() {
    check(ANY, || {
        let handover = Arc::new(Handover::new());
        let home = thread::spawn({
            let handover = Arc::clone(&handover);
            move || assert_eq!(deliver(&handover, 7, false), None)
        });
        let (earlier, later) = (Host::new(), Host::new());
        let mut outcome = taken(handover.take_or_wait(&Waker::from(earlier)));
        if outcome.is_none() {
            outcome = taken(handover.take_or_wait(&Waker::from(Arc::clone(&later))));
        }
        home.join().unwrap();
        let outcome = outcome.or_else(|| {
            assert!(later.hear(), "it waited last");
            taken(handover.take())
        });
        assert_eq!(outcome, Some(7));
    });
}

/// Who was told that it is finished need not wait.
#[test]
fn what_is_finished_can_be_taken() {
    check(ANY, || {
        let handover = Arc::new(Handover::new());
        let home = thread::spawn({
            let handover = Arc::clone(&handover);
            move || assert_eq!(deliver(&handover, 7, false), None)
        });
        if handover.is_finished() {
            assert_eq!(taken(handover.take()), Some(7));
        }
        home.join().unwrap();
        assert!(handover.is_finished());
    });
}

/// H3: a cancel comes while the task begins. Either the beginning sees it, or the canceller is told the slot, and never both.
#[test]
fn a_cancel_reaches_the_beginning_or_the_task() {
    check(ANY, || {
        let handover = Arc::new(Handover::<u32>::new());
        let cancellers = [(); 2].map(|()| {
            let handover = Arc::clone(&handover);
            thread::spawn(move || handover.ask_cancel())
        });
        let seen = handover.begin(3);
        let mut told = 0;
        for canceller in cancellers {
            match canceller.join().unwrap() {
                Asked::Tell(index) => {
                    assert_eq!(index, 3);
                    told += 1;
                }
                Asked::Noted => {}
                Asked::Finished => unreachable!("nothing was delivered"),
            }
        }
        assert_eq!(u32::from(seen) + told, 1);
    });
}

/// A cancel comes while the outcome does: it is passed on to the executor, or is told that there is nothing left to cancel, and
/// then the outcome can be taken.
#[test]
fn a_cancel_that_comes_too_late_finds_the_outcome() {
    check(ANY, || {
        let handover = Arc::new(Handover::new());
        assert!(!handover.begin(3), "nobody has asked");
        let home = thread::spawn({
            let handover = Arc::clone(&handover);
            move || assert_eq!(deliver(&handover, 7, false), None)
        });
        let taken_at_once = match handover.ask_cancel() {
            Asked::Finished => {
                let outcome = taken(handover.take());
                assert_eq!(outcome, Some(7), "it was said to be there");
                outcome
            }
            Asked::Tell(index) => {
                assert_eq!(index, 3);
                None
            }
            Asked::Noted => unreachable!("it had begun, and nobody had asked"),
        };
        home.join().unwrap();
        assert_eq!(taken_at_once.or_else(|| taken(handover.take())), Some(7));
    });
}

/// A handle is dropped while an outcome that nobody is owed comes: one of the two drops it.
#[test]
fn an_outcome_of_a_dropped_handle_is_dropped_by_one_side() {
    check(ANY, || {
        let handover = Arc::new(Handover::new());
        let home = thread::spawn({
            let handover = Arc::clone(&handover);
            move || deliver(&handover, 7, false)
        });
        let left = handover.abandon();
        let refused = home.join().unwrap();
        assert!(!left.owed);
        assert_eq!(
            [left.outcome, refused].into_iter().flatten().sum::<u32>(),
            7
        );
    });
}

/// A failure that is owed, its handle taken or dropped meanwhile, and a home that parks until the debt is settled: the hint
/// comes, and the debt is settled once.
fn a_debt_is_settled(read: bool) {
    check(ANY, move || {
        let endpoint = leaked_endpoint();
        let home = Home::new(endpoint);
        let inbox = Arc::new(Inbox::<()>::new(endpoint, 1));
        let handover = Arc::new(Handover::new());
        let handle = thread::spawn({
            let (inbox, handover) = (Arc::clone(&inbox), Arc::clone(&handover));
            move || {
                if read {
                    if let Take::Outcome { outcome, owed } = handover.take() {
                        assert_eq!(outcome, 7);
                        if owed {
                            inbox.hint(1);
                        }
                        return true;
                    }
                }
                if handover.abandon().owed {
                    inbox.hint(1);
                }
                false
            }
        });
        let mut told = 0;
        let mut settled = false;
        let look = |told: &mut u32| match handover.look(false) {
            Look::Held => false,
            Look::Read => true,
            Look::Left(outcome) => {
                assert_eq!(outcome, 7);
                *told += 1;
                true
            }
            Look::Shown(_) => unreachable!("not the last look"),
        };
        match handover.deliver(7, true) {
            Delivered::Accepted(waker) => assert!(waker.is_none()),
            Delivered::Left => settled = look(&mut told),
            Delivered::Refused(_) => unreachable!("it is owed"),
        }
        while !settled {
            if home.take_message() {
                for _ in 0..inbox.hints() {
                    if inbox.next_hint().is_some() {
                        settled |= look(&mut told);
                    }
                }
            } else {
                home.park_if_idle();
            }
        }
        let was_read = handle.join().unwrap();
        assert_eq!(told, u32::from(!was_read));
    });
}

#[test]
fn a_debt_is_settled_when_its_handle_is_dropped() {
    a_debt_is_settled(false);
}

#[test]
fn a_debt_is_settled_when_its_handle_is_read_or_dropped() {
    a_debt_is_settled(true);
}

/// The executor ends, and looks for the last time at a failure that is owed, while its handle is polled: it is told or read,
/// and in any case the handle has it in the end.
#[test]
fn the_last_look_leaves_the_outcome_to_a_handle_that_waits() {
    check(ANY, || {
        let handover = Arc::new(Handover::new());
        assert_eq!(deliver(&handover, 7, true), None);
        let home = thread::spawn({
            let handover = Arc::clone(&handover);
            move || match handover.look(true) {
                Look::Read => false,
                Look::Shown(outcome) => {
                    if let Some(waker) = handover.put_back(outcome).expect("the handle is there") {
                        waker.wake();
                    }
                    true
                }
                Look::Held | Look::Left(_) => {
                    unreachable!("it is the last look, and the handle is there")
                }
            }
        });
        let host = Host::new();
        let first = handover.take_or_wait(&Waker::from(Arc::clone(&host)));
        let told = home.join().unwrap();
        match first {
            Take::Outcome { outcome, owed } => {
                assert_eq!(outcome, 7);
                assert_eq!(
                    owed, !told,
                    "somebody gets to know of it, and one only is counted"
                );
            }
            Take::NotYet => {
                assert!(host.hear(), "it waited");
                assert!(told);
                assert_eq!(taken(handover.take()), Some(7));
            }
            Take::Spent => unreachable!("it is taken once"),
        }
    });
}

/// The same while the handle is dropped: the failure is told once, and the outcome is dropped by one side.
#[test]
fn the_last_look_tells_what_a_dropped_handle_leaves() {
    check(ANY, || {
        let handover = Arc::new(Handover::new());
        assert_eq!(deliver(&handover, 7, true), None);
        let home = thread::spawn({
            let handover = Arc::clone(&handover);
            move || match handover.look(true) {
                Look::Left(outcome) => outcome,
                Look::Shown(outcome) => match handover.put_back(outcome) {
                    Ok(waker) => {
                        assert!(waker.is_none());
                        0
                    }
                    Err(outcome) => outcome,
                },
                Look::Held | Look::Read => unreachable!("nobody reads it"),
            }
        });
        let left = handover.abandon();
        let at_home = home.join().unwrap();
        assert_eq!(left.outcome.unwrap_or(0) + at_home, 7);
    });
}
