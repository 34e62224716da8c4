//! Medians and ratios.

use super::{peer::Column, peers::OURS, rows::Aims};

/// One row's figures: for each peer one a round.
pub(crate) struct Figures<'a> {
    pub(crate) row: &'static str,
    /// The row that decides with whom it can be compared.
    like: &'static str,
    pub(crate) what: &'static str,
    pub(crate) aims: Aims,
    columns: &'a [Column],
    rounds: Vec<Vec<f64>>,
}

/// What a column is compared with.
pub(crate) struct Rival {
    pub(crate) name: &'static str,
    pub(crate) median: f64,
    /// The median over the rounds of the column's figure by the rival's in the same round.
    pub(crate) ratio: f64,
}

impl<'a> Figures<'a> {
    pub(crate) fn new(
        row: &'static str,
        like: &'static str,
        what: &'static str,
        aims: Aims,
        columns: &'a [Column],
    ) -> Self {
        Self {
            row,
            like,
            what,
            aims,
            columns,
            rounds: vec![Vec::new(); columns.len()],
        }
    }

    /// Adds this round's figure of a peer. A peer has a figure in each round, or in none.
    pub(crate) fn add(&mut self, column: usize, figure: f64) {
        self.rounds[column].push(figure);
    }

    pub(crate) fn columns(&self) -> &'a [Column] {
        self.columns
    }

    /// Where mainstay is.
    pub(crate) fn ours(&self) -> Option<usize> {
        self.columns.iter().position(|column| column.name == OURS)
    }

    pub(crate) fn median(&self, column: usize) -> Option<f64> {
        median(self.rounds[column].clone())
    }

    /// The fastest of the columns that stand for tokio.
    pub(crate) fn tokio(&self) -> Option<usize> {
        self.fastest(|column| column.reference)
    }

    /// The fastest peer whose figure is of the same thing.
    pub(crate) fn best(&self) -> Option<usize> {
        self.fastest(|column| {
            column.name != OURS && column.is_comparable(self.row) && column.is_comparable(self.like)
        })
    }

    /// The one with the least median of those that `counts` lets through.
    fn fastest(&self, counts: impl Fn(&Column) -> bool) -> Option<usize> {
        let medians = (0..self.columns.len())
            .filter(|&column| counts(&self.columns[column]))
            .filter_map(|column| Some((column, self.median(column)?)));
        let (column, _) = medians.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        Some(column)
    }

    /// The comparison of two columns.
    pub(crate) fn against(&self, column: usize, rival: usize) -> Option<Rival> {
        let rounds = self.rounds[column].iter().zip(&self.rounds[rival]);
        Some(Rival {
            name: self.columns[rival].name,
            median: self.median(rival)?,
            ratio: median(rounds.map(|(own, rival)| own / rival).collect())?,
        })
    }
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        even if even % 2 == 0 => Some(f64::midpoint(figures[middle - 1], figures[middle])),
        _ => Some(figures[middle]),
    }
}

/// Three digits or so: the others are noise.
pub(crate) fn rounded(figure: f64) -> String {
    match figure.abs() {
        size if size < 10.0 => format!("{figure:.2}"),
        size if size < 1_000.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}
