//! Runs the `quickstart` example and asserts all that it prints, in order.

mod example_output;

use example_output::assert_prints;

#[test]
fn quickstart_prints_the_whole_story_in_order() {
    assert_prints(
        "quickstart",
        "\
== two tasks wait for another thread
2 polls, 2 tasks wait
2 deliveries
== two failures, told to our own handler
handler: `flaky` panicked: the left engine stalled
handler: `parser` returned an error: invalid digit found in string
== two failures, told to the default handler
[ERROR mainstay] Task panicked
      task: flaky (id 5), spawned at examples/quickstart.rs:_
      exception: the left engine stalled
      debug: panic \"the left engine stalled\"
      at: examples/quickstart.rs:_
[ERROR mainstay] Task returned an error
      task: parser (id 6), spawned at examples/quickstart.rs:_
      exception: invalid digit found in string
      debug: ParseIntError { kind: InvalidDigit }
== the loop lives on
idler cancelled: true
the root got 42
== the counters
8 spawned = 0 live + 3 returned + 4 failed + 1 cancelled
4 failed = 4 reported + 0 retrieved + 0 unread
",
    );
}
