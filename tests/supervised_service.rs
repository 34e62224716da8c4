//! Runs the `supervised_service` example, which interrupts itself, and asserts all that it prints.
#![cfg(unix)]

mod example_output;

use example_output::assert_prints;

#[test]
fn supervised_service_restarts_fails_fast_and_ends_in_order() {
    assert_prints(
        "supervised_service",
        "\
told: feed: connection refused
told: feed: connection refused
feed: the price is 3
told: mirror: disk full
told: mirror: disk full
told: mirror: disk full
told: mirror (restarting): gave up after 2 restarts within 60s
mirror: gave up after 2 restarts within 60s
apples: the price lookup has ended
apples: 42 at 3
pears: the price lookup has ended
pears: 1 failure in a group: stock: no such item
Ctrl-C
feed: closed
order: written to the journal
order: done
3 finished, 0 failed, 0 cancelled, 1 dropped
17 tasks: 8 returned, 7 failed (6 told, 1 handed on), 2 cancelled, 0 live
",
    );
}
