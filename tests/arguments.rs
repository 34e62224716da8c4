//! What the examples that take arguments say to `--help`, and to what they do not understand.

#[allow(dead_code, reason = "it needs the path alone")]
mod example_output;

use std::process::{Command, Output};

use example_output::example;

const EXAMPLES: [&str; 4] = [
    "graceful_shutdown",
    "http_server",
    "soak",
    "supervised_service",
];

fn run(name: &str, args: &[&str]) -> Output {
    let output = Command::new(example(name)).args(args).output();
    output.expect("the example starts")
}

#[test]
fn help_is_printed_and_nothing_else_is_done() {
    for name in EXAMPLES {
        for option in ["--help", "-h"] {
            let output = run(name, &[option]);
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{name} {option}: {output:?}");
            assert!(stdout.starts_with(&format!("usage: {name} ")), "{stdout}");
            assert!(output.stderr.is_empty(), "{name} {option}: {output:?}");
        }
    }
}

/// What was wrong is in the first line, how it is done below, and the exit status is 2, as other programs have it.
#[test]
fn what_is_not_understood_is_said() {
    let wrong: [(&str, &[&str], &str); 10] = [
        ("graceful_shutdown", &["now"], "now"),
        ("graceful_shutdown", &["wait", "more"], "wait more"),
        ("supervised_service", &["--wait"], "--wait"),
        ("http_server", &["8080"], "8080"),
        ("http_server", &["--port"], "--port"),
        ("http_server", &["--port", "http"], "\"http\""),
        ("http_server", &["--port", "65536"], "\"65536\""),
        ("soak", &["--minutes"], "--minutes"),
        ("soak", &["--minutes", "ten"], "\"ten\""),
        ("soak", &["--hours", "1"], "--hours"),
    ];
    for (name, args, said) in wrong {
        let output = run(name, args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name} {args:?}: {stderr}");
        let (first, rest) = stderr.split_once('\n').expect("several lines");
        assert!(first.contains(said), "{name} {args:?}: {stderr}");
        assert!(
            rest.contains(&format!("usage: {name} ")),
            "{name} {args:?}: {stderr}"
        );
        assert!(output.stdout.is_empty(), "{name} {args:?}: {output:?}");
    }
}
