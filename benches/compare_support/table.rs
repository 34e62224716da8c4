//! Medians, ratios and the Markdown that shows them.

use std::io::{self, Write};

use super::{memory, peer::Column, rows::Row};

/// One row's figures: for each peer one a round.
pub(crate) struct Figures {
    rounds: Vec<Vec<f64>>,
    reference: Vec<bool>,
}

impl Figures {
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self {
            rounds: vec![Vec::new(); columns.len()],
            reference: columns.iter().map(|column| column.reference).collect(),
        }
    }

    /// Adds this round's figure of a peer.
    pub(crate) fn add(&mut self, column: usize, figure: f64) {
        self.rounds[column].push(figure);
    }

    fn median(&self, column: usize) -> Option<f64> {
        median(self.rounds[column].clone())
    }

    /// The median over the rounds of this peer's figure by the least of the references' in the same round.
    fn ratio(&self, column: usize) -> Option<f64> {
        let ratios = self.rounds[column].iter().enumerate();
        let ratios = ratios.map(|(round, figure)| Some(figure / self.reference_in(round)?));
        median(ratios.collect::<Option<_>>()?)
    }

    fn reference_in(&self, round: usize) -> Option<f64> {
        let references = self
            .rounds
            .iter()
            .zip(&self.reference)
            .filter(|(_, is)| **is);
        references
            .filter_map(|(rounds, _)| rounds.get(round).copied())
            .reduce(f64::min)
    }
}

/// Writes the table as the rows come in.
pub(crate) struct Table<'a, W> {
    columns: &'a [Column],
    out: W,
}

impl<'a, W: Write> Table<'a, W> {
    pub(crate) fn new(columns: &'a [Column], out: W) -> Self {
        Self { columns, out }
    }

    /// Writes what the figures are, and the head.
    pub(crate) fn head(&mut self, rounds: usize, check: bool) -> io::Result<()> {
        if check {
            writeln!(
                self.out,
                "**A check of the counts: the times mean nothing.**\n"
            )?;
        }
        writeln!(
            self.out,
            "ns per operation: median of at most {rounds} interleaved rounds; in brackets the median per-round ratio \
             to tokio (the faster of its columns).\n"
        )?;
        let names: Vec<_> = self.columns.iter().map(|column| column.name).collect();
        writeln!(self.out, "| row | {} |", names.join(" | "))?;
        writeln!(self.out, "|---|{}", "---:|".repeat(names.len()))
    }

    /// Writes one row.
    pub(crate) fn line(&mut self, name: &str, figures: &Figures) -> io::Result<()> {
        self.cells(name, |column| {
            match (figures.median(column), figures.ratio(column)) {
                (Some(figure), Some(ratio)) => format!("{} ({ratio:.2})", rounded(figure)),
                (Some(figure), None) => rounded(figure),
                (None, _) => "-".to_owned(),
            }
        })
    }

    /// Writes one row whose figures may be about zero, or below.
    pub(crate) fn line_without_ratio(&mut self, name: &str, figures: &Figures) -> io::Result<()> {
        self.cells(name, |column| {
            figures.median(column).map_or("-".to_owned(), rounded)
        })
    }

    /// Writes below the table what each row and each column is.
    pub(crate) fn notes(&mut self, rows: &[Row], with_memory: bool) -> io::Result<()> {
        writeln!(self.out)?;
        for row in rows {
            writeln!(self.out, "- `{}`: {}", row.name(), row.what())?;
        }
        if with_memory {
            writeln!(self.out, "- `{}`: {}", memory::NAME, memory::WHAT)?;
        }
        for column in self.columns {
            writeln!(self.out, "- **{}**: {}", column.name, column.note)?;
        }
        Ok(())
    }

    fn cells(&mut self, name: &str, cell: impl Fn(usize) -> String) -> io::Result<()> {
        let cells: Vec<_> = (0..self.columns.len()).map(cell).collect();
        writeln!(self.out, "| {name} | {} |", cells.join(" | "))
    }
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        even if even % 2 == 0 => Some((figures[middle - 1] + figures[middle]) / 2.0),
        _ => Some(figures[middle]),
    }
}

/// Three digits or so: the others are noise.
fn rounded(figure: f64) -> String {
    match figure.abs() {
        size if size < 10.0 => format!("{figure:.2}"),
        size if size < 1_000.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}
