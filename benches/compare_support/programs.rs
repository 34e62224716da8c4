//! What other programs say.

use std::process::Command;

/// The first line of what a program prints; `None` if it cannot be run or prints nothing.
pub(crate) fn first_line_of(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.trim().to_owned())
}
