//! Where the tables go: to stdout as they come, and into the sections of a document.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

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

/// Replaces what is between `<!-- name -->` and `<!-- /name -->` in the file, for each of the sections that it has.
///
/// # Errors
///
/// If the file cannot be read or written, has none of the sections, or one that does not end.
pub(crate) fn put_into(file: &Path, sections: &[(String, String)]) -> Result<(), String> {
    let failed = |why: String| format!("{}: {why}", file.display());
    let mut document = fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let mut put = Vec::new();
    for (name, text) in sections {
        let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let Some(start) = document.find(&open).map(|at| at + open.len()) else {
            continue;
        };
        let end = document[start..]
            .find(&close)
            .ok_or_else(|| failed(format!("{} has no {close}", open.trim_end())))?;
        document.replace_range(start..start + end, &format!("\n{}\n\n", text.trim()));
        put.push(name.as_str());
    }
    if put.is_empty() {
        let names: Vec<_> = sections.iter().map(|(name, _)| name.as_str()).collect();
        return Err(failed(format!(
            "has none of the sections {}",
            names.join(", ")
        )));
    }
    fs::write(file, document).map_err(|error| failed(error.to_string()))?;
    writeln!(io::stderr(), "{}: wrote {}", file.display(), put.join(", ")).ok();
    Ok(())
}
