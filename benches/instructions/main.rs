//! Counts instructions per operation with callgrind: the figure to trust on a busy machine.
//!
//! ```text
//! cargo bench --bench instructions                                    # mainstay, beside the committed figures
//! cargo bench --bench instructions -- --row yield --row join          # some rows, or groups of rows
//! cargo bench --bench instructions -- --peer mainstay --peer tokio_local
//! cargo bench --bench instructions -- --all-peers                     # with the peers of benches/compare/
//! cargo bench --bench instructions -- --baseline                      # commit what this prints from now on
//! ```
//!
//! Each workload of `compare` runs with n and with 2n operations; a figure is `(I(2n) - I(n)) / n`. So the set-up, the
//! first growth of an executor and the process itself drop out, and what is left repeats to a fraction of an
//! instruction. The workload's own instructions are in it: `loop_only` has those of an empty one.
//!
//! It fails when a row of mainstay has grown by more than 3 % against `benches/instructions.txt`, if compiler, C library
//! and valgrind are those that the file was made with. With others it only prints.
//!
//! Not measured: cache misses, locked instructions (one counts as much as any other), system calls. Not in the table
//! unless named: rows with another thread (under callgrind threads take turns), rows that depend on the clock, and those
//! with a million tasks, which take minutes.

mod args;
mod baseline;
mod callgrind;

#[path = "../compare_support/programs.rs"]
mod programs;
#[path = "../compare_support/sections.rs"]
mod sections;

use std::{
    env, fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use args::{Args, HELP};
use baseline::{Baseline, Tools};
use callgrind::Figures;

/// By how much a row may grow.
const TOLERANCE: f64 = 0.03;

/// The least growth that counts: below it is what the alignment of a heap block makes.
const LEAST: f64 = 0.5;

const OURS: &str = "mainstay";

/// Groups of rows that are counted only if they are named.
const UNFIT: &[&str] = &[
    "remote",
    "threads",
    "timer/sleep",
    "yield_1m",
    "memory",
    "scale",
];

/// What mainstay is meant to reach, where that was laid down.
const AIMS: &[(&str, f64)] = &[
    ("spawn", 120.0),
    ("spawn_2k", 300.0),
    ("join", 260.0),
    ("join_1000", 180.0),
    ("yield/1", 55.0),
    ("yield/100", 55.0),
    ("yield/10000", 55.0),
    ("ping_pong", 240.0),
    ("fan_out", 60.0),
    ("waker/clone_drop", 18.0),
    ("waker/wake_queued", 18.0),
];

fn main() -> ExitCode {
    match args::parse(env::args().skip(1)).and_then(|args| run(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            say(&format!("instructions: {message}"));
            ExitCode::from(2)
        }
    }
}

/// Gives whether no row has grown.
fn run(args: &Args) -> Result<bool, String> {
    if args.help {
        return print(HELP).map(|()| true);
    }
    if cfg!(debug_assertions) {
        return print("instructions: skipped, this build has debug assertions").map(|()| true);
    }
    let Some(tools) = Tools::here() else {
        return print("instructions: skipped, valgrind is not installed").map(|()| true);
    };
    let program = callgrind::build(args.all_peers)?;
    let rows = rows(&program, &args.rows)?;
    let peers = if args.all_peers && args.peers.is_empty() {
        callgrind::list(&program, "--list-peers")?
    } else if args.peers.is_empty() {
        vec![OURS.to_owned()]
    } else {
        args.peers.clone()
    };

    let figures = callgrind::count_all(&program, &rows, &peers, args.ops)?;
    let file = root().join("benches/instructions.txt");
    if args.baseline {
        if args.all_peers || !args.rows.is_empty() || args.ops.is_some() {
            return Err("a baseline has all rows, with their usual operations and without the peers of benches/compare/".to_owned());
        }
        let baseline = Baseline::of(&tools, &rows, &figures)?;
        fs::write(&file, baseline.to_string()).map_err(|error| error.to_string())?;
        say(&format!("wrote {}", file.display()));
    }
    // Beside other peers the compiler may choose differently, so mainstay's figures there are not those of the file.
    let baseline = if args.all_peers {
        None
    } else {
        Some(Baseline::read(&file)?)
    };
    let table = table(&tools, &rows, &peers, &figures, baseline.as_ref());
    print(&table)?;
    let sections = [("instructions".to_owned(), table)];
    for file in &args.into {
        sections::put_into(file, &sections)?;
    }
    Ok(baseline.is_none_or(|baseline| judge(&tools, &rows, &figures, &baseline)))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows(program: &Path, wanted: &[String]) -> Result<Vec<String>, String> {
    let mut rows = callgrind::list(program, "--list")?;
    let is_in = |row: &str, group: &str| {
        let rest = row.strip_prefix(group);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if wanted.is_empty() {
        rows.retain(|row| !UNFIT.iter().any(|group| is_in(row, group)));
    } else {
        rows.retain(|row| row != "memory" && wanted.iter().any(|group| is_in(row, group)));
    }
    if rows.is_empty() {
        return Err("there are no such rows".to_owned());
    }
    Ok(rows)
}

fn ours(figures: &Figures, row: &str) -> Option<f64> {
    *figures.get(&(row.to_owned(), OURS.to_owned()))?
}

fn table(
    tools: &Tools,
    rows: &[String],
    peers: &[String],
    figures: &Figures,
    baseline: Option<&Baseline>,
) -> String {
    let baseline = baseline.filter(|_| peers.iter().any(|peer| peer == OURS));
    let shown =
        |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{figure:.1}"));
    let mut text = format!("Instructions per operation: {tools}.\n\n| row |");
    for peer in peers {
        text.push_str(&format!(" {peer} |"));
    }
    text.push_str(" aim of mainstay |");
    if baseline.is_some() {
        text.push_str(" committed | change |");
    }
    let columns = peers.len() + if baseline.is_some() { 3 } else { 1 };
    text.push_str(&format!("\n|---|{}", "---:|".repeat(columns)));
    for row in rows {
        text.push_str(&format!("\n| {row} |"));
        for peer in peers {
            let figure = figures.get(&(row.clone(), peer.clone()));
            text.push_str(&format!(" {} |", shown(figure.copied().flatten())));
        }
        let aim = AIMS.iter().find(|(name, _)| name == row);
        let aim = aim.map_or("-".to_owned(), |(_, aim)| format!("{aim:.0}"));
        text.push_str(&format!(" {aim} |"));
        if let Some(baseline) = baseline {
            let (before, now) = (baseline.figure(row), ours(figures, row));
            let change = match (before, now) {
                (Some(before), Some(now)) => format!("{:+.1} %", (now / before - 1.0) * 100.0),
                _ => "-".to_owned(),
            };
            text.push_str(&format!(" {} | {change} |", shown(before)));
        }
    }
    text.push('\n');
    text
}

/// Whether no row has grown beyond the tolerance, or the figures cannot be compared.
fn judge(tools: &Tools, rows: &[String], figures: &Figures, baseline: &Baseline) -> bool {
    const AGAIN: &str = "`cargo bench --bench instructions -- --baseline` writes new figures to benches/instructions.txt";
    if rows.iter().all(|row| ours(figures, row).is_none()) {
        return true;
    }
    if baseline.tools != tools.to_string() {
        say(&format!(
            "not compared: the committed figures are of {:?}. {AGAIN}",
            baseline.tools
        ));
        return true;
    }
    let mut grown = false;
    for row in rows {
        match (baseline.figure(row), ours(figures, row)) {
            (Some(before), Some(now))
                if now > before * (1.0 + TOLERANCE) && now > before + LEAST =>
            {
                say(&format!("{row} has grown from {before:.1} to {now:.1}"));
                grown = true;
            }
            (None, Some(_)) => say(&format!(
                "{row} is not among the committed figures. {AGAIN}"
            )),
            _ => {}
        }
    }
    if grown {
        say(&format!("If that is meant to be: {AGAIN}"));
    }
    !grown
}

fn print(text: &str) -> Result<(), String> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn say(message: &str) {
    writeln!(io::stderr(), "{message}").ok();
}
