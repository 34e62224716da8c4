//! The oracles: what other executors test, and which of our tests says the same here. The table is in `oracles.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The lines of the table whose first cell is a number, or a letter for what no peer tests, as cells.
fn rows() -> Vec<Vec<String>> {
    let table = read("oracles.md");
    table
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
        .filter(|cells: &Vec<String>| {
            let first = &cells[0];
            first.parse::<u32>().is_ok() || first.len() == 1
        })
        .collect()
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it")
        .join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a cell quotes, as `module::name`.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The tests of a module: functions right after their attributes, of which one is `#[test]`.
fn tests(source: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines() {
        match line.strip_prefix("fn ") {
            Some(name) if is_test => {
                found.extend(name.split_once('(').map(|(name, _)| name));
                is_test = false;
            }
            _ if line.starts_with("#[") => is_test |= line == "#[test]",
            _ => is_test = false,
        }
    }
    found
}

#[test]
fn every_test_in_the_table_exists() {
    let mut missing = Vec::new();
    for row in rows() {
        assert_eq!(row.len(), 4, "{row:?}");
        let mut names = 0;
        for name in quoted(&row[2]) {
            let (module, test) = name.split_once("::").expect("`module::name`");
            names += 1;
            if !tests(&read(&format!("{module}.rs"))).contains(test) {
                missing.push(format!("{}: {name}", row[0]));
            }
        }
        assert_ne!(names, 0, "{row:?}");
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

#[test]
fn a_test_is_found_where_it_is_one() {
    let source = "#[test]\nfn one() {}\n\n#[test]\n#[should_panic(expected = \"x\")]\nfn two() {}\n\nfn helper() {}\n";
    assert!(tests(source).into_iter().eq(["one", "two"]));
}
