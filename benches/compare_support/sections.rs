//! Sections of a document, which a benchmark writes anew.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A file that was named on the command line. Cargo runs a benchmark in its package's folder, wherever cargo was started.
pub(crate) fn from_where_cargo_was_started(name: &str) -> PathBuf {
    let started_in = env::var_os("PWD").map(PathBuf::from);
    started_in.unwrap_or_default().join(name)
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
