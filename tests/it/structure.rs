//! The source keeps its own rules: which module may import which, who re-exports, where unsafe lives.
//!
//! The tests read `src/` as text. They see what is written there, not what macros expand to, and leave
//! out what is compiled for unit tests only: a test may use the whole crate.

use std::fs;
use std::path::{Path, PathBuf};

/// The bands, bottom first. A module may import from its own top-level module and from lower bands.
///
/// A row holds for the module and everything under it, unless a longer row says otherwise.
const BANDS: &[(&str, u32)] = &[
    // Know nothing of tasks that run: a key, a thread's primitives, a panic, a task's data.
    ("key", 0),
    ("sync", 0),
    ("task", 0),
    ("unwind", 0),
    ("wide", 0),
    ("exception", 1),
    ("home", 1),
    ("listeners", 1),
    ("locals", 1),
    ("park", 1),
    ("completion", 2),
    ("exception_context", 2),
    ("remote", 2),
    ("timer", 2),
    ("arena", 3),
    ("waker", 4),
    ("report", 5),
    ("scheduler", 6),
    ("driving", 7),
    ("task_spans", 7),
    ("error", 7),
    ("cancel_handle", 8),
    ("join", 9),
    ("remote_handle", 9),
    ("request", 9),
    ("rooted", 9),
    ("task_local", 9),
    ("time", 9),
    ("context", 10),
    ("call", 11),
    ("group", 11),
    ("spawner", 11),
    ("executor", 12),
    ("futures_spawn", 12),
    ("builder", 13),
    ("guest", 13),
    ("shutdown", 13),
    // Exempt from the import rule: it re-exports from everywhere.
    ("lib", 14),
];

/// Where `unsafe` may be written: a folder ends in `/`.
const UNSAFE_WALL: &[&str] = &["arena/", "waker.rs"];

/// Where the width of a pointer may be asked for.
const WIDTH_WALL: &[&str] = &["key.rs"];

/// Where 64-bit atomics are used, which a few 32-bit targets lack.
const WIDE_ATOMICS_WALL: &[&str] = &["wide.rs"];

/// What a module other than the crate's root may pass on: crates, never our own items.
///
/// (The loom models swap the primitives of one for those of the other.)
const PASSED_ON: &[&str] = &["std", "core", "alloc", "loom"];

// ---- the rules ----------------------------------------------------------------------------------

#[test]
fn every_module_has_a_band() {
    let strays: Vec<_> = sources()
        .into_iter()
        .filter(|source| band(&source.module).is_none())
        .map(|source| source.path)
        .collect();
    assert!(strays.is_empty(), "not in BANDS: {strays:?}");
}

#[test]
fn modules_import_downwards_only() {
    let offences: Vec<_> = sources()
        .iter()
        .filter(|source| source.module != "lib")
        .flat_map(upward_imports)
        .collect();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn only_the_root_re_exports() {
    let offences: Vec<_> = sources()
        .iter()
        .filter(|source| source.module != "lib")
        .flat_map(re_exports)
        .collect();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn unsafe_stays_behind_its_wall() {
    let offences: Vec<_> = sources()
        .iter()
        .filter(|source| !behind(UNSAFE_WALL, &source.path))
        .flat_map(unsafe_lines)
        .collect();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

// What is tested is one system; this is what the others go by.
#[test]
fn nothing_is_for_one_system_only() {
    let offences: Vec<_> = sources().iter().flat_map(system_lines).collect();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn the_width_of_a_pointer_matters_to_the_key_only() {
    let offences: Vec<_> = sources().iter().flat_map(width_lines).collect();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn no_module_shadows_the_core_crate() {
    let shadows: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.module.split("::").any(|segment| segment == "core"))
        .map(|source| source.path)
        .collect();
    assert!(shadows.is_empty(), "{shadows:?}");
}

// ---- the rules find planted faults --------------------------------------------------------------

#[test]
fn an_upward_import_is_found_in_every_form() {
    for planted in [
        "use crate::executor::Executor;",
        "pub(crate) use crate::executor;",
        "use crate::{key::TaskKey, executor::{self, Executor}};",
        "use crate::{\n    key::TaskKey,\n    executor::Executor,\n};",
        "fn f() { crate::executor::run() }",
        "use super::executor::Executor;",
        "use crate::builder::Builder as B;",
    ] {
        let offences = upward_imports(&Source::planted("scheduler.rs", planted));
        assert_eq!(
            offences.len(),
            if planted.contains("self,") { 2 } else { 1 },
            "{planted}: {offences:?}"
        );
    }
}

#[test]
fn what_is_for_one_system_is_found_in_every_form() {
    for planted in [
        "#[cfg(unix)]",
        "#[cfg(all(test, windows))]",
        "#[cfg_attr(not(unix), allow(unused))]",
        "if cfg!(target_os = \"linux\") {}",
        "#[cfg(target_arch = \"x86_64\")]",
        "use std::os::fd::AsRawFd;",
        "use std::{os::fd::RawFd, thread};",
        "let pid = unsafe { libc::getpid() };",
    ] {
        let found = system_lines(&Source::planted("park.rs", planted));
        assert_eq!(found.len(), 1, "{planted}: {found:?}");
    }
    for fine in [
        "for pair in slice.windows(2) {}",
        "// on unix: std::os::fd",
        "let name = \"libc\";",
        "#[cfg(test)]",
        "use std::thread; let os = 1;",
    ] {
        let found = system_lines(&Source::planted("park.rs", fine));
        assert!(found.is_empty(), "{fine}: {found:?}");
    }
}

#[test]
fn the_width_of_a_pointer_is_found_outside_of_the_key() {
    for planted in [
        "#[cfg(target_pointer_width = \"64\")]",
        "const _: () = assert!(usize::BITS == 64);",
        "const _: () = assert!(size_of :: <usize>() == 8);",
        "static NEXT: AtomicU64 = AtomicU64::new(1);",
    ] {
        let found = width_lines(&Source::planted("park.rs", planted));
        assert_eq!(found.len(), 1, "{planted}: {found:?}");
    }
    let key = Source::planted("key.rs", "#[cfg(target_pointer_width = \"32\")]");
    assert!(width_lines(&key).is_empty());
}

#[test]
fn an_import_past_the_defining_module_is_found() {
    let offences = upward_imports(&Source::planted("executor.rs", "use crate::JoinHandle;"));
    assert_eq!(offences.len(), 1, "{offences:?}");
}

#[test]
fn a_sideways_import_is_found() {
    let offences = upward_imports(&Source::planted("remote.rs", "use crate::timer::Timers;"));
    assert_eq!(offences.len(), 1, "{offences:?}");
}

#[test]
fn imports_that_are_all_right_are_left_alone() {
    for (path, text) in [
        (
            "arena/cell.rs",
            "use crate::arena::slots::Slots; use super::pages::Pages; use crate::key::TaskKey;",
        ),
        (
            "scheduler.rs",
            "use crate::{arena::{cell::Cell, slots}, report};",
        ),
        (
            "scheduler.rs",
            "// use crate::executor::Executor;\nlet s = \"use crate::executor::Executor;\";",
        ),
        (
            "scheduler.rs",
            "#[cfg(test)]\nmod tests { use crate::executor::Executor; fn f() { {} } }",
        ),
        (
            "scheduler.rs",
            "mod imp { use super::State; }  pub(crate) struct A; pub(in crate::scheduler) fn f() {}",
        ),
        (
            "key.rs",
            "macro_rules! m { () => { $crate::executor::Executor } }",
        ),
    ] {
        let offences = upward_imports(&Source::planted(path, text));
        assert!(offences.is_empty(), "{path}: {offences:?}");
    }
}

#[test]
fn code_after_a_test_module_is_still_read() {
    let text =
        "#[cfg(test)]\nmod tests { use crate::executor::Executor; }\nuse crate::builder::Builder;";
    let offences = upward_imports(&Source::planted("scheduler.rs", text));
    assert_eq!(offences.len(), 1, "{offences:?}");
}

#[test]
fn a_re_export_is_found() {
    for planted in [
        "pub use crate::key::TaskKey;",
        "pub(crate) use self::slots::Slots;",
        "pub(super)\nuse slots::Slots;",
    ] {
        let offences = re_exports(&Source::planted("arena/mod.rs", planted));
        assert_eq!(offences.len(), 1, "{planted}: {offences:?}");
    }
    let fine =
        "use crate::key::TaskKey; pub(crate) use std::sync::atomic::AtomicU64; pub fn use_up() {}";
    let offences = re_exports(&Source::planted("sync.rs", fine));
    assert!(offences.is_empty(), "{offences:?}");
}

#[test]
fn unsafe_is_found_in_code_only() {
    let found = "fn f() { unsafe { g() } }\nunsafe impl Send for X {}";
    assert_eq!(
        unsafe_lines(&Source::planted("executor.rs", found)).len(),
        2
    );

    let fine = concat!(
        "/* unsafe /* nested unsafe */ unsafe */ #![expect(unsafe_code, reason = \"unsafe\")]\n",
        "/// unsafe\nlet s = r#\"a \" unsafe\"#; let c = '\"'; let d: &'static str = \"\\\" unsafe\";",
    );
    let lines = unsafe_lines(&Source::planted("executor.rs", fine));
    assert!(lines.is_empty(), "{lines:?}");

    assert!(behind(UNSAFE_WALL, "arena/cell.rs") && behind(UNSAFE_WALL, "waker.rs"));
    assert!(!behind(UNSAFE_WALL, "arena_two/cell.rs") && !behind(UNSAFE_WALL, "waker_two.rs"));
}

// ---- checks of one source -----------------------------------------------------------------------

/// Each import of a module that is neither the importer's own nor in a lower band.
fn upward_imports(source: &Source) -> Vec<String> {
    let Some(own_band) = band(&source.module) else {
        return Vec::new(); // the business of `every_module_has_a_band`
    };
    let mut offences = Vec::new();
    for import in source.imports() {
        let top = top_level(&import);
        if top == top_level(&source.module) {
            continue;
        }
        match band(&import) {
            Some(band) if band < own_band => {}
            Some(band) => {
                offences.push(format!(
                    "{} (band {own_band}) imports {import} (band {band})",
                    source.path
                ));
            }
            None => offences.push(format!(
                "{} imports {import}: no module, so a re-export",
                source.path
            )),
        }
    }
    offences
}

/// Each `pub use` (of any visibility) that passes on items of the crate.
fn re_exports(source: &Source) -> Vec<String> {
    let mut offences = Vec::new();
    for (at, _) in words(&source.code, "pub") {
        let mut rest = source.code[at + "pub".len()..].trim_start();
        if rest.starts_with('(') {
            rest = rest
                .split_once(')')
                .map_or("", |(_, rest)| rest)
                .trim_start();
        }
        let Some(path) = rest
            .strip_prefix("use")
            .filter(|path| path.starts_with(char::is_whitespace))
        else {
            continue;
        };
        let path = path.trim_start().trim_start_matches("::");
        let root = path
            .split(|c: char| !is_identifier(c))
            .next()
            .unwrap_or_default();
        if !PASSED_ON.contains(&root) {
            let line = source.line_of(at);
            offences.push(format!("{}:{line} re-exports from `{root}`", source.path));
        }
    }
    offences
}

/// Each line with the word `unsafe` in its code.
fn unsafe_lines(source: &Source) -> Vec<String> {
    words(&source.all_code, "unsafe")
        .map(|(at, _)| {
            format!(
                "{}:{}",
                source.path,
                source.all_code[..at].matches('\n').count() + 1
            )
        })
        .collect()
}

/// Lines that compile, or can only work, on some systems.
fn system_lines(source: &Source) -> Vec<String> {
    const NAMES: &[&str] = &[
        "target_os",
        "target_family",
        "target_arch",
        "target_env",
        "target_vendor",
        "libc",
        "rustix",
        "winapi",
        "windows_sys",
    ];
    lines_with(source, |line| {
        let has = |name| words(line, name).next().is_some();
        // As a word of its own, `windows` is also a method of slices.
        let in_a_cfg = has("cfg") || has("cfg_attr");
        NAMES.iter().any(|name| has(name))
            || in_a_cfg && (has("unix") || has("windows"))
            || words(line, "os").any(|(at, _)| line[at + "os".len()..].starts_with("::"))
    })
}

/// Lines that ask how wide a pointer is, or need more than 32 bits at once, where that is not expected.
fn width_lines(source: &Source) -> Vec<String> {
    lines_with(source, |line| {
        let has = |name| words(line, name).next().is_some();
        let dense: String = line.split_whitespace().collect();
        let width = has("target_pointer_width")
            || dense.contains("usize::BITS")
            || dense.contains("size_of::<usize>")
            || dense.contains("size_of::<u64>");
        width && !behind(WIDTH_WALL, &source.path)
            || (has("AtomicU64") || has("AtomicI64")) && !behind(WIDE_ATOMICS_WALL, &source.path)
    })
}

fn lines_with(source: &Source, offends: impl Fn(&str) -> bool) -> Vec<String> {
    source
        .all_code
        .lines()
        .enumerate()
        .filter(|(_, line)| offends(line))
        .map(|(at, line)| format!("{}:{}: {}", source.path, at + 1, line.trim()))
        .collect()
}

fn behind(wall: &[&str], path: &str) -> bool {
    wall.iter().any(|allowed| {
        if allowed.ends_with('/') {
            path.starts_with(allowed)
        } else {
            path == *allowed
        }
    })
}

/// The band of a module or of an item in it: the longest row of the table that fits.
fn band(path: &str) -> Option<u32> {
    BANDS
        .iter()
        .filter(|(row, _)| {
            path.strip_prefix(row)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
        .max_by_key(|(row, _)| row.len())
        .map(|&(_, band)| band)
}

fn top_level(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

// ---- reading ------------------------------------------------------------------------------------

/// One file of `src/`.
struct Source {
    /// Relative to `src/`, with `/`.
    path: String,
    /// `arena::slots` for `arena/slots.rs`, `arena` for `arena/mod.rs`, `lib` for the root.
    module: String,
    /// The text, with comments and literals blanked out.
    all_code: String,
    /// The same, with what only unit tests compile blanked out too.
    code: String,
}

impl Source {
    fn new(path: String, text: &str) -> Self {
        let stem = path.strip_suffix(".rs").unwrap_or(&path);
        let module = stem.strip_suffix("/mod").unwrap_or(stem).replace('/', "::");
        let all_code = without_comments_and_literals(text);
        // A file of unit tests, declared by a `#[cfg(test)] mod tests;` elsewhere.
        let only_tests = module.split("::").any(|segment| segment == "tests");
        let code = if only_tests {
            String::new()
        } else {
            without_unit_tests(&all_code)
        };
        Self {
            path,
            module,
            all_code,
            code,
        }
    }

    fn planted(path: &str, text: &str) -> Self {
        Self::new(path.to_owned(), text)
    }

    fn line_of(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    /// The paths, from the crate's root, of everything named by `crate::` or by a `super::` that
    /// reaches the root.
    fn imports(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for (at, before) in words(&self.code, "crate") {
            // `$crate` is for users of a macro, who only see the root's re-exports.
            if before == Some('$') {
                continue;
            }
            if let Some(tree) = self.code[at + "crate".len()..].strip_prefix("::") {
                expand("", tree, &mut paths);
            }
        }
        let depth = self.module.split("::").count();
        for (at, before) in words(&self.code, "super") {
            if before == Some(':') {
                continue; // the tail of a `super::super` that was seen at its head
            }
            let mut tree = &self.code[at..];
            let mut climbed = 0;
            while let Some(rest) = tree.strip_prefix("super::") {
                tree = rest;
                climbed += 1;
            }
            if climbed >= depth {
                let mut from_root = Vec::new();
                expand("", tree, &mut from_root);
                // In an inline module, `super` is the file's own module: take known modules only.
                paths.extend(from_root.into_iter().filter(|path| band(path).is_some()));
            }
        }
        paths
    }
}

/// All files of `src/`, in a stable order.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(!files.is_empty(), "no source under {}", root.display());
    files
        .iter()
        .map(|file| {
            let path = file.strip_prefix(&root).expect("found under the root");
            let path = path
                .to_str()
                .expect("source paths are UTF-8")
                .replace('\\', "/");
            let text = fs::read_to_string(file)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            Source::new(path, &text)
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Expands a use tree, or an inline path, to plain paths: `a::{b, c::d}` to `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim_start();
    if let Some(group) = tree.strip_prefix('{') {
        let group = &group[..closing(group, '{', '}')];
        for part in split_outside_braces(group) {
            if !part.trim().is_empty() {
                expand(prefix, part, paths);
            }
        }
        return;
    }
    let end = tree.find(|c| !is_identifier(c)).unwrap_or(tree.len());
    let (segment, rest) = tree.split_at(end);
    let path = match (prefix, segment) {
        ("", _) => segment.to_owned(),
        (_, "self" | "") => prefix.to_owned(),
        _ => format!("{prefix}::{segment}"),
    };
    match rest.strip_prefix("::") {
        Some(deeper)
            if deeper
                .trim_start()
                .starts_with(|c| c == '{' || is_identifier(c)) =>
        {
            expand(&path, deeper, paths);
        }
        _ => paths.push(path),
    }
}

fn split_outside_braces(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Where the bracket that was opened just before `text` is closed.
fn closing(text: &str, open: char, close: char) -> usize {
    let mut depth = 1_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    text.len()
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The places of a whole word, each with the character before it.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = (usize, Option<char>)> + 'a {
    text.match_indices(word).filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let whole = !before.is_some_and(is_identifier) && !after.is_some_and(is_identifier);
        whole.then_some((at, before))
    })
}

/// Blanks out the items under `#[cfg(test)]`, keeping line numbers.
fn without_unit_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = ["#[cfg(test)]", "#[cfg(all(test,"]
        .iter()
        .filter_map(|cfg| rest.find(cfg))
        .min()
    {
        out.push_str(&rest[..at]);
        let item = &rest[at..];
        // Its attributes, then the item: up to its closing brace, or its semicolon.
        let mut end = 0;
        while item[end..].trim_start().starts_with("#[") {
            end += item[end..].find('[').unwrap_or(0) + 1;
            end += closing(&item[end..], '[', ']') + 1;
        }
        end += match item[end..].find(['{', ';']) {
            Some(at) if item[end + at..].starts_with('{') => {
                let body = end + at + 1;
                (at + 1 + closing(&item[body..], '{', '}') + 1).min(item.len() - end)
            }
            Some(at) => at + 1,
            None => item.len() - end,
        };
        out.extend(item[..end].chars().filter(|&c| c == '\n'));
        rest = &item[end..];
    }
    out.push_str(rest);
    out
}

/// Blanks out comments, strings and character literals, keeping line numbers.
fn without_comments_and_literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if c == '"' {
            string(rest)
        } else if c == 'r' && (!is_identifier(before) || "bc".contains(before)) {
            raw_string(rest)
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        if skipped == 0 {
            out.push(c);
            before = c;
            rest = &rest[c.len_utf8()..];
        } else {
            out.push(' ');
            out.extend(rest[..skipped].chars().filter(|&c| c == '\n'));
            before = ' ';
            rest = &rest[skipped..];
        }
    }
    out
}

/// The length of the block comment that `text` starts with; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the string that `text` starts with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string that `text` starts with; 0 if it starts with something else.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|&c| c == '#').count();
    let Some(body) = text[1 + hashes..].strip_prefix('"') else {
        return 0;
    };
    let end = format!("\"{}", "#".repeat(hashes));
    body.find(&end)
        .map_or(text.len(), |at| 1 + hashes + 1 + at + end.len())
}

/// The length of the character literal that `text` starts with; 0 if it starts with a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        // What follows the backslash may itself be a quote.
        (Some((_, '\\')), Some((at, c))) => {
            let tail = at + c.len_utf8();
            text[tail..]
                .find('\'')
                .map_or(text.len(), |end| tail + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}
