//! Runs an example and compares all that it prints.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Asserts that the example ends well and prints exactly this on stdout.
///
/// Line and column of the example's source are `_` in `expected`, so that editing its comments changes nothing.
#[track_caller]
pub(crate) fn assert_prints(name: &str, expected: &str) {
    let output = Command::new(example(name))
        // What a report holds must not depend on the caller's settings.
        .env_remove("RUST_LOG")
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LIB_BACKTRACE")
        .output()
        .expect("the example starts");
    let stdout = String::from_utf8(output.stdout).expect("the example prints UTF-8");
    let stdout = without_positions(&stdout, &format!("examples/{name}.rs:"));
    let stderr = String::from_utf8_lossy(&output.stderr);

    assert!(
        output.status.success(),
        "{}\n--- stdout\n{stdout}\n--- stderr\n{stderr}",
        output.status
    );
    if stdout != expected {
        let line = stdout
            .lines()
            .zip(expected.lines())
            .take_while(|(is, should)| is == should)
            .count();
        panic!(
            "first difference in line {}\n--- printed\n{stdout}\n--- expected\n{expected}\n--- stderr\n{stderr}",
            line + 1
        );
    }
}

/// The built example: `cargo test` has put it beside this test, in `target/<profile>/examples`.
#[track_caller]
pub(crate) fn example(name: &str) -> PathBuf {
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
        "{} is not built: `cargo test` and `cargo build --examples` build it, `cargo test --test ..` does not",
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
