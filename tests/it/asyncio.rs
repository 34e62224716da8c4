//! The asyncio contract as tables: what of asyncio there is, by number, with the tests that assert it and the change that
//! each is known to notice (`asyncio.md`), and what its names are called here (`README.md`).

use std::fs;
use std::path::{Path, PathBuf};

use crate::table::{self, missing_tests, quoted};

/// The numbers of the list. Those between are not in it.
const NUMBERS: &[u32] = &[
    1, 2, 3, 4, 11, 12, 14, 16, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 34, 37, 39, 40,
    41, 42, 43, 44, 48, 50, 52, 53, 54, 56, 57, 58, 59, 60, 61, 65, 67, 68, 69, 70, 71, 73, 74, 75,
    79, 80, 81, 82, 83, 84, 85, 86, 88, 94, 95, 96, 97, 98, 99, 100, 101, 102, 103, 104, 107, 109,
    110, 111, 112, 114, 115, 116, 118, 119, 120, 121, 122, 123, 124, 125, 126,
];

/// Those that need no test, since there is nothing of the kind here.
const NOT_HERE: &[u32] = &[40, 41, 59, 60];

fn rows() -> Vec<Vec<String>> {
    table::rows("asyncio.md", |first| {
        first
            .strip_prefix('B')
            .is_some_and(|number| number.parse::<u32>().is_ok())
    })
}

fn number(row: &[String]) -> u32 {
    row[0][1..].parse().expect("it was looked at in `rows`")
}

#[test]
fn every_number_of_the_list_has_one_row_in_its_place() {
    assert!(
        rows()
            .iter()
            .map(|row| number(row))
            .eq(NUMBERS.iter().copied())
    );
}

#[test]
fn no_cell_is_empty_and_what_is_not_here_says_why() {
    for row in rows() {
        assert_eq!(row.len(), 4, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        let not_here = NOT_HERE.contains(&number(&row));
        assert_eq!(row[2] == "none", not_here, "{row:?}");
        assert_eq!(row[3] == "none", not_here, "{row:?}");
        assert!(!not_here || row[1].starts_with("n/a: "), "{row:?}");
    }
}

#[test]
fn every_test_in_the_table_exists() {
    let mut missing = Vec::new();
    for row in rows() {
        assert_ne!(quoted(&row[2]).count() == 0, row[2] != "none", "{row:?}");
        missing.extend(missing_tests(&row[2]));
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

/// Each change is said as "file: what", and what it names first is in that file.
#[test]
fn every_change_is_one_of_something_that_exists() {
    for row in rows().iter().filter(|row| row[3] != "none") {
        for change in row[3].split("; ") {
            let (file, what) = change.split_once(": ").expect("`file: what`");
            let name = quoted(what).next().expect("it names what is changed");
            let code = fs::read_to_string(source().join(file));
            let code = code.unwrap_or_else(|error| panic!("{file} in {row:?}: {error}"));
            for part in name.split("::") {
                assert!(is_word_of(&code, part), "{name} in {file}: {row:?}");
            }
        }
    }
}

/// The names in the README's table.
#[test]
fn every_name_that_asyncios_are_called_here_is_public() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    let table: Vec<&str> = readme
        .lines()
        .skip_while(|line| *line != "| asyncio | mainstay | what differs |")
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(table.len() > 30, "{} rows", table.len());
    let code = Code::read();
    let mut missing = Vec::new();
    for line in table {
        let ours = line.split('|').nth(2).expect("three cells");
        for quote in quoted(ours) {
            missing.extend(
                code.unknown(quote)
                    .into_iter()
                    .map(|name| format!("{name} in `{quote}`")),
            );
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn a_name_that_is_not_public_is_found() {
    let code = Code {
        root: "pub use a::{Shown, free};".to_owned(),
        files: vec![
            "impl Shown {\n    pub fn one(&self) {}\n}\npub struct Shown;\nfn hidden() {}"
                .to_owned(),
            "impl Other {\n    pub fn other(&self) {}\n    pub async fn slow(&self) {}\n}"
                .to_owned(),
        ],
    };
    for known in ["Shown", "one", "Shown::one", "one()", "slow", ".await"] {
        assert!(code.unknown(known).is_empty(), "{known}");
    }
    for unknown in [
        "Other",
        "hidden",
        "Shown::other",
        "Shown::one().two(..)",
        "UNSET",
        "lost!",
    ] {
        assert_eq!(code.unknown(unknown).len(), 1, "{unknown}");
    }
}

/// All of `src/`, and its root, which says what is exported.
struct Code {
    root: String,
    files: Vec<String>,
}

impl Code {
    fn read() -> Self {
        let mut files = Vec::new();
        collect(&source(), &mut files);
        Code {
            root: fs::read_to_string(source().join("lib.rs")).expect("the root"),
            files,
        }
    }

    /// The names in a quoted piece of code that the public interface does not have: types and macros that are not exported,
    /// functions that are not public, in the type that is named before them if one is.
    fn unknown<'q>(&self, quote: &'q str) -> Vec<&'q str> {
        let mut unknown = Vec::new();
        let mut of_type = None;
        for name in quote.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '!')) {
            let is_type = name.starts_with(char::is_uppercase);
            let known = if name.is_empty() || name == "await" {
                true
            } else if let Some(name) = name.strip_suffix('!') {
                self.has(&format!("macro_rules! {name}"))
            } else if !name.contains(char::is_lowercase) {
                self.has(&format!("\"{name}\""))
            } else if is_type {
                is_word_of(&self.root, name)
            } else {
                self.files.iter().any(|file| {
                    of_type.is_none_or(|of_type| is_impl_of(file, of_type))
                        && (file.contains(&format!("pub fn {name}("))
                            || file.contains(&format!("pub fn {name}<"))
                            || file.contains(&format!("pub async fn {name}(")))
                        || file.contains(&format!("pub async fn {name}<"))
                })
            };
            if !known {
                unknown.push(name);
            }
            if is_type {
                of_type = Some(name);
            }
        }
        unknown
    }

    fn has(&self, text: &str) -> bool {
        self.files.iter().any(|file| file.contains(text))
    }
}

/// Whether code has a name, as a whole word.
fn is_word_of(code: &str, name: &str) -> bool {
    code.lines()
        .filter(|line| !line.starts_with("//"))
        .flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_')))
        .any(|word| word == name)
}

fn is_impl_of(file: &str, name: &str) -> bool {
    file.lines()
        .filter(|line| line.starts_with("impl"))
        .any(|line| is_word_of(line, name))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source() -> PathBuf {
    root().join("src")
}

fn collect(folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(fs::read_to_string(&path).expect("a source"));
        }
    }
}
