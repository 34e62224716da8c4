//! The committed figures, and what they were made with.

use std::{env, fmt, fs, io, path::Path};

use super::{OURS, callgrind::Figures, programs::first_line_of};

/// The committed figures.
pub(crate) struct Baseline {
    pub(crate) tools: String,
    rows: Vec<(String, f64)>,
}

impl Baseline {
    const HEAD: &str = "\
# Instructions per operation of mainstay. `cargo bench --bench instructions` compares with them, and
# `cargo bench --bench instructions -- --baseline` writes them.
";

    pub(crate) fn of(tools: &Tools, rows: &[String], figures: &Figures) -> Result<Self, String> {
        let figure = |row: &String| {
            let figure = figures.get(&(row.clone(), OURS.to_owned())).copied();
            let figure = figure
                .flatten()
                .ok_or_else(|| format!("{row} has no figure"))?;
            Ok((row.clone(), figure))
        };
        Ok(Self {
            tools: tools.to_string(),
            rows: rows.iter().map(figure).collect::<Result<_, String>>()?,
        })
    }

    /// An empty one if there is no file.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("{}: {error}", file.display())),
        };
        let mut baseline = Self {
            tools: String::new(),
            rows: Vec::new(),
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            if let Some(tools) = line.strip_prefix("with: ") {
                baseline.tools = tools.to_owned();
                continue;
            }
            let row = line
                .rsplit_once(' ')
                .and_then(|(row, figure)| Some((row.trim().to_owned(), figure.parse().ok()?)));
            let row = row.ok_or_else(|| format!("{}: cannot read {line:?}", file.display()))?;
            baseline.rows.push(row);
        }
        Ok(baseline)
    }

    pub(crate) fn figure(&self, row: &str) -> Option<f64> {
        let (_, figure) = self.rows.iter().find(|(name, _)| name == row)?;
        Some(*figure)
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}with: {}", Self::HEAD, self.tools)?;
        for (row, figure) in &self.rows {
            writeln!(f, "{row:<20} {figure:.1}")?;
        }
        Ok(())
    }
}

/// What counts, and what is counted.
pub(crate) struct Tools {
    rustc: String,
    libc: String,
    valgrind: String,
    target: String,
}

impl Tools {
    pub(crate) fn here() -> Option<Self> {
        Some(Self {
            valgrind: first_line_of("valgrind", &["--version"])?,
            rustc: first_line_of("rustc", &["--version"]).unwrap_or_default(),
            libc: first_line_of("ldd", &["--version"]).unwrap_or_default(),
            target: format!("{}-{}", env::consts::ARCH, env::consts::OS),
        })
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rustc,
            libc,
            valgrind,
            target,
        } = self;
        write!(f, "{rustc}; {libc}; {valgrind}; {target}")
    }
}
