//! The oracles: what other executors test, and which of our tests says the same here. The table is in `oracles.md`.

use std::collections::BTreeSet;

use crate::table::{self, missing_tests, quoted};

/// The lines whose first cell is a number, or a letter for what no peer tests.
fn rows() -> Vec<Vec<String>> {
    table::rows("oracles.md", |first| {
        first.parse::<u32>().is_ok() || first.len() == 1
    })
}

#[test]
fn every_test_in_the_table_exists() {
    let mut missing = Vec::new();
    for row in rows() {
        assert_eq!(row.len(), 4, "{row:?}");
        assert_ne!(quoted(&row[2]).count(), 0, "{row:?}");
        missing.extend(missing_tests(&row[2]));
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn the_table_has_every_oracle() {
    let rows = rows();
    let numbers: BTreeSet<u32> = rows.iter().filter_map(|row| row[0].parse().ok()).collect();
    assert!(numbers.iter().copied().eq(1..=40), "{numbers:?}");
    let letters: Vec<&str> = rows
        .iter()
        .map(|row| row[0].as_str())
        .filter(|first| first.parse::<u32>().is_err())
        .collect();
    assert_eq!(letters.concat(), "abcdefghijklmno");
}
