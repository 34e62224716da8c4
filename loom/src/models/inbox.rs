//! The inbox: messages against the park and against the executor's end.
//!
//! The queue is a stand-in, so these are about what is around it. The race of the real queue's `push` and `close` is run, not
//! modelled, by `tests/it/spawner.rs`.

use std::sync::Arc;

use loom::thread;

use super::{SOME, check, leaked_endpoint};
use crate::home::Home;
use crate::inbox::Inbox;

/// I2: a loop that parks runs every message.
#[test]
fn a_message_at_any_moment_around_a_park_is_run() {
    check(SOME, || {
        let endpoint = leaked_endpoint();
        let home = Home::new(endpoint);
        let inbox = Arc::new(Inbox::new(endpoint, 1));
        let senders = [1, 2].map(|message| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || assert_eq!(inbox.send(message), Ok(())))
        });
        let mut run = Vec::new();
        while run.len() < 2 {
            if home.take_message() {
                for _ in 0..inbox.len() {
                    run.extend(inbox.take());
                }
            } else {
                home.park_if_idle();
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
        run.sort_unstable();
        assert_eq!(run, [1, 2]);
    });
}

/// I1: the executor ends while messages come. Each is taken at home or handed back, in the order of its thread.
#[test]
fn a_message_at_the_end_is_taken_or_handed_back() {
    check(SOME, || {
        let inbox = Arc::new(Inbox::new(leaked_endpoint(), 1));
        let senders = [[1, 2], [3, 4]].map(|messages| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || messages.map(|message| inbox.send(message)))
        });
        let mut taken: Vec<u32> = Vec::new();
        taken.extend(inbox.take());
        inbox.close();
        while let Some(message) = inbox.take() {
            taken.push(message);
        }
        for sender in senders {
            let [first, second] = sender.join().unwrap();
            assert!(
                first.is_ok() || second.is_err(),
                "the first was before the second"
            );
            taken.extend([first, second].into_iter().filter_map(Result::err));
        }
        assert!(inbox.take().is_none(), "nothing is left behind");
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3, 4]);
    });
}
