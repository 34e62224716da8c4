//! Tables in Markdown beside the tests, read by tests: `oracles.md`, `asyncio.md`, `hostile.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The lines of a table whose first cell is one of those wanted, as cells.
pub(crate) fn rows(file: &str, wanted: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    read(file)
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
        .filter(|cells: &Vec<String>| wanted(&cells[0]))
        .collect()
}

/// The tests that a cell names, as `module::name`, which do not exist.
#[track_caller]
pub(crate) fn missing_tests(cell: &str) -> Vec<String> {
    quoted(cell)
        .filter(|name| {
            let (module, test) = name.rsplit_once("::").expect("`module::name`");
            let file = format!("{}.rs", module.replace("::", "/"));
            !tests(&read(&file)).contains(test)
        })
        .map(str::to_owned)
        .collect()
}

/// What a cell quotes.
pub(crate) fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

pub(crate) fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it")
        .join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
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
fn a_test_is_found_where_it_is_one() {
    let source = "#[test]\nfn one() {}\n\n#[test]\n#[should_panic(expected = \"x\")]\nfn two() {}\n\nfn helper() {}\n";
    assert!(tests(source).into_iter().eq(["one", "two"]));
}
