//! Runs the `graceful_shutdown` example, which interrupts itself, and asserts all that it prints.
#![cfg(unix)]

mod example_output;

use example_output::assert_prints;

#[test]
fn graceful_shutdown_hears_its_own_signal_and_lets_no_task_hang() {
    assert_prints(
        "graceful_shutdown",
        "\
Ctrl-C
Shutdown: lock: the lock file is gone
journal: written
client: answered
deaf: dropped
2 finished, 1 failed, 0 cancelled, 1 dropped; 0 live
",
    );
}
