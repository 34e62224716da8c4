//! What the figures were measured with.

use std::{fs, path::Path, thread};

use super::{peer::Column, programs::first_line_of};

/// A Markdown list: date, machine, system, compiler, versions of the peers.
pub(crate) fn describe(columns: &[Column]) -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let facts = [
        ("Date", first_line_of("date", &["+%F"])),
        ("Machine", cpu().map(|cpu| format!("{cores} cores of {cpu}"))),
        ("System", system()),
        ("Compiler", first_line_of("rustc", &["--version"])),
        (
            "Profile",
            Some("`opt-level = 3`, `lto = \"fat\"`, one codegen unit, unwinding panics, system allocator".to_owned()),
        ),
        ("Versions", versions(columns)),
    ];
    let lines = facts.map(|(name, fact)| match fact {
        Some(fact) => format!("- {name}: {fact}\n"),
        None => format!("- {name}: not known\n"),
    });
    lines.concat()
}

fn cpu() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn system() -> Option<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let libc = first_line_of("ldd", &["--version"]).unwrap_or_default();
    Some(format!("Linux {}, {libc}", kernel.trim()))
}

/// Asks the lock file that this benchmark was built with.
fn versions(columns: &[Column]) -> Option<String> {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = fs::read_to_string(lock).ok()?;
    let packages = columns.iter().flat_map(|column| column.packages);
    let mut named = Vec::new();
    for package in packages {
        if !named.contains(package) {
            named.push(*package);
        }
    }
    let versions = named.into_iter().map(|package| {
        let entry = format!("name = \"{package}\"\nversion = \"");
        let version = lock
            .rsplit_once(&entry) // of several, the latest is last
            .and_then(|(_, rest)| rest.split_once('"'))
            .map_or("?", |(version, _)| version);
        format!("{package} {version}")
    });
    Some(versions.collect::<Vec<_>>().join(", "))
}
