//! Where the tables go as they come.

use std::io::{self, Write};

/// Text that is printed at once, and kept.
#[derive(Default)]
pub(crate) struct Output {
    text: String,
}

impl Output {
    /// Prints a line. A reader that has seen enough (`| head`) is no failure.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), String> {
        self.text.push_str(line);
        self.text.push('\n');
        match writeln!(io::stdout(), "{line}") {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}
