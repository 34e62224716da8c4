//! Runs the `quickstart` example and asserts all that it prints, in order.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Line and column of the example's source are `_` here, so that editing its comments changes nothing.
const EXPECTED: &str = "\
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
";

#[test]
fn quickstart_prints_the_whole_story_in_order() {
    let output = Command::new(example("quickstart"))
        // What the report holds must not depend on the caller's settings.
        .env_remove("RUST_LOG")
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LIB_BACKTRACE")
        .output()
        .expect("the example starts");
    let stdout = String::from_utf8(output.stdout).expect("the example prints UTF-8");
    let stdout = without_positions(&stdout, "examples/quickstart.rs:");
    let stderr = String::from_utf8_lossy(&output.stderr);

    assert!(
        output.status.success(),
        "{}\n--- stdout\n{stdout}\n--- stderr\n{stderr}",
        output.status
    );
    if stdout != EXPECTED {
        let line = stdout
            .lines()
            .zip(EXPECTED.lines())
            .take_while(|(is, should)| is == should)
            .count();
        panic!(
            "first difference in line {}\n--- printed\n{stdout}\n--- expected\n{EXPECTED}\n--- stderr\n{stderr}",
            line + 1
        );
    }
}

/// The built example: `cargo test` has put it beside this test, in `target/<profile>/examples`.
fn example(name: &str) -> PathBuf {
    let this = env::current_exe().expect("a test knows its own path");
    let profile = this
        .ancestors()
        .nth(2)
        .expect("a test is built in `target/<profile>/deps`");
    let example = profile
        .join("examples")
        .join(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(
        example.exists(),
        "{} is not built: `cargo test` builds it, `cargo test --test quickstart` does not",
        example.display()
    );
    example
}

/// Replaces the `line:column` after each `file` by `_`.
fn without_positions(text: &str, file: &str) -> String {
    let mut pieces = text.split(file);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        out.push_str(file);
        out.push('_');
        out.push_str(piece.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':'));
    }
    out
}
