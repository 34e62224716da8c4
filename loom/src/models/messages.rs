//! What is handed over through a queue beside the wakes: cancels, and in the same way the inbox of spawners.

use std::sync::Arc;

use loom::thread;

use super::{SOME, check, endpoint};
use crate::endpoint::CancelRequest;
use crate::home::Home;

/// A cancel is pushed before the token is set, and the token is taken before the queue is looked at: so a loop that
/// parks carries out every cancel.
///
/// The queue is a stand-in, so this is about the token alone.
#[test]
fn a_cancel_at_any_moment_around_a_park_is_carried_out() {
    check(SOME, || {
        let endpoint = endpoint();
        let home = Home::new(&endpoint);
        let remotes = [1, 2].map(|id| {
            let endpoint = Arc::clone(&endpoint);
            thread::spawn(move || {
                endpoint.cancel(CancelRequest {
                    index: 0,
                    id,
                    reason: None,
                });
            })
        });
        let mut cancelled = Vec::new();
        while cancelled.len() < 2 {
            if home.take_message() {
                for _ in 0..endpoint.cancels() {
                    cancelled.extend(endpoint.next_cancel().map(|request| request.id));
                }
            } else {
                home.park_if_idle();
            }
        }
        for remote in remotes {
            remote.join().unwrap();
        }
        cancelled.sort_unstable();
        assert_eq!(cancelled, [1, 2]);
    });
}
