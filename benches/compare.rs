//! Runs mainstay and its peers through the same workloads and prints one Markdown table.
//!
//! ```text
//! cargo bench --bench compare                                   # everything
//! cargo bench --bench compare -- --row yield --row ping_pong    # some rows
//! cargo bench --bench compare -- --peer mainstay --rounds 51    # one peer, more rounds
//! ```
//!
//! Each workload is written once, generic over [`Peer`](compare_support::peer::Peer), so that every peer runs the
//! very same futures. Rounds are interleaved over the peers in one process, each sample has a fresh executor, and
//! a sample checks its own counts (polls, results, wakes, reports) before its time is used.
//!
//! A cell is the median over the rounds, and in brackets the median of each round's ratio to tokio, that is to
//! the faster one of the tokio peers marked as reference in that same round. On a busy machine the ratios are
//! worth more than the nanoseconds, and instructions per operation (`benches/instructions.sh`) more than both.
//!
//! Figures are times on the wall, but for `timer/sleep`, which is the time that the thread has run. A dash is a row
//! that the peer, or the system, cannot do.
//!
//! Not measured: building and dropping an executor, I/O drivers (the peers are built without), latency under load.
//! Each workload's own code is part of its figure; `loop_only` shows what an empty one costs.
//!
//! Nothing here fails because of a time. A build with debug assertions runs each row once, small, for the sake of
//! its checks: its times would mean nothing.

mod compare_support;

use std::{
    io::{self, IsTerminal, Write},
    process::{Command, ExitCode},
};

use compare_support::{
    args::{self, Args},
    memory::{self, Footprint},
    peer::{self, Column},
    rows::Row,
    table::{Figures, Table},
};

/// How often each peer is sampled on a row unless `--rounds` says otherwise.
const ROUNDS: usize = 21;

/// What `--check` gives each row to do, as a share of its full size.
const CHECK_SHARE: usize = 100;

fn main() -> ExitCode {
    let done = args::parse(std::env::args().skip(1)).and_then(|args| run(&args));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            writeln!(io::stderr(), "compare: {message}").ok();
            ExitCode::from(2)
        }
    }
}

/// Does what the command line asks for.
fn run(args: &Args) -> Result<(), String> {
    let columns = chosen_columns(args)?;
    let (rows, with_memory) = chosen_rows(args)?;
    let written = if args.help {
        print_help()
    } else if args.list {
        print_names(&rows, with_memory)
    } else if let Some(tasks) = args.footprint {
        print_footprint(one(&columns, "--peer")?, tasks)
    } else if let Some(ops) = args.once {
        print_once(*one(&rows, "--row")?, one(&columns, "--peer")?, ops)?
    } else {
        return compare(args, &rows, with_memory, &columns);
    };
    ignore_closed_pipe(written)
}

/// Measures the chosen rows and prints the table.
fn compare(args: &Args, rows: &[Row], with_memory: bool, columns: &[Column]) -> Result<(), String> {
    let check = args.check || cfg!(debug_assertions);
    let rounds = if check {
        1
    } else {
        args.rounds.unwrap_or(ROUNDS)
    };
    let count = rows.len() + usize::from(with_memory);
    let mut table = Table::new(columns, io::stdout());
    ignore_closed_pipe(table.head(rounds, check))?;

    for (index, &row) in rows.iter().enumerate() {
        let rounds = rounds.min(row.rounds_at_most());
        let ops = if check {
            row.ops() / CHECK_SHARE
        } else {
            row.ops()
        };
        let mut figures = Figures::new(columns);
        for round in 0..rounds {
            progress(index, count, row.name(), round, rounds);
            for column in turns(columns.len(), round) {
                if let Some(sample) = (columns[column].sample)(row, ops) {
                    figures.add(column, sample.ns_per_op());
                }
            }
        }
        clear_progress();
        ignore_closed_pipe(table.line(row.name(), &figures))?;
    }

    if with_memory {
        let tasks = if check {
            memory::TASKS / CHECK_SHARE
        } else {
            memory::TASKS
        };
        measure_memory(
            &mut table,
            columns,
            tasks,
            rounds.min(memory::ROUNDS),
            count,
        )?;
    }
    ignore_closed_pipe(table.notes(rows, with_memory))
}

/// Measures the memory rows: for each sample a process of its own, so that no peer inherits another one's heap.
fn measure_memory<W: Write>(
    table: &mut Table<'_, W>,
    columns: &[Column],
    tasks: usize,
    rounds: usize,
    count: usize,
) -> Result<(), String> {
    if memory::resident_bytes().is_none() {
        writeln!(
            io::stderr(),
            "{}: skipped, this system has no /proc/self/status",
            memory::NAME
        )
        .ok();
        return Ok(());
    }
    let (mut parked, mut kept, mut growth) = (
        Figures::new(columns),
        Figures::new(columns),
        Figures::new(columns),
    );
    for round in 0..rounds {
        progress(count - 1, count, memory::NAME, round, rounds);
        for column in turns(columns.len(), round) {
            let footprint = footprint_in_child(&columns[column], tasks)?;
            parked.add(column, footprint.parked);
            kept.add(column, footprint.kept);
            growth.add(column, footprint.growth);
        }
    }
    clear_progress();
    ignore_closed_pipe(
        table
            .line("memory/parked (bytes)", &parked)
            .and_then(|()| table.line_without_ratio("memory/kept (bytes)", &kept))
            .and_then(|()| table.line_without_ratio("memory/growth (bytes)", &growth)),
    )
}

/// Runs this program again for one peer's footprint.
fn footprint_in_child(column: &Column, tasks: usize) -> Result<Footprint, String> {
    let failed = |why: String| format!("{} of {}: {why}", memory::NAME, column.name);
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let output = Command::new(program)
        .args(["--peer", column.name, "--footprint", &tasks.to_string()])
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Footprint::parse(&text).ok_or_else(|| failed(format!("cannot read {text:?}")))
}

/// The order of the peers in this round: each one is first in turn, so that none always follows the same neighbour's
/// heap and caches from the same place.
fn turns(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round) % count)
}

/// The chosen timed rows, and whether the memory row is chosen.
fn chosen_rows(args: &Args) -> Result<(Vec<Row>, bool), String> {
    let names: Vec<_> = Row::ALL
        .iter()
        .map(|row| row.name())
        .chain([memory::NAME])
        .collect();
    if let Some(unknown) = args.unknown_row(&names) {
        return Err(format!("no row is named {unknown:?}; see --list"));
    }
    let rows = Row::ALL
        .iter()
        .copied()
        .filter(|row| args.wants(row.name()))
        .collect();
    Ok((rows, args.wants(memory::NAME)))
}

fn chosen_columns(args: &Args) -> Result<Vec<Column>, String> {
    let mut columns = peer::columns();
    let names: Vec<_> = columns.iter().map(|column| column.name).collect();
    if let Some(unknown) = args.unknown_peer(&names) {
        return Err(format!("no peer is named {unknown:?}; see --help"));
    }
    columns.retain(|column| args.wants_peer(column.name));
    Ok(columns)
}

fn one<'a, T>(of: &'a [T], option: &str) -> Result<&'a T, String> {
    match of {
        [only] => Ok(only),
        _ => Err(format!("this needs exactly one {option}")),
    }
}

fn print_help() -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{}\n\nRows:", args::HELP)?;
    for row in Row::ALL {
        writeln!(out, "  {:<18} {}", row.name(), row.what())?;
    }
    writeln!(out, "  {:<18} {}\n\nPeers:", memory::NAME, memory::WHAT)?;
    for column in peer::columns() {
        writeln!(out, "  {:<18} {}", column.name, column.note)?;
    }
    Ok(())
}

fn print_names(rows: &[Row], with_memory: bool) -> io::Result<()> {
    let names = rows
        .iter()
        .map(|row| row.name())
        .chain(with_memory.then_some(memory::NAME));
    names
        .into_iter()
        .try_for_each(|name| writeln!(io::stdout(), "{name}"))
}

fn print_footprint(column: &Column, tasks: usize) -> io::Result<()> {
    writeln!(io::stdout(), "{}", (column.footprint)(tasks))
}

fn print_once(row: Row, column: &Column, ops: usize) -> Result<io::Result<()>, String> {
    match (column.sample)(row, ops) {
        Some(sample) => Ok(writeln!(io::stdout(), "{}", sample.ops)),
        None => Err(format!("{} cannot run {} here", column.name, row.name())),
    }
}

fn progress(index: usize, count: usize, name: &str, round: usize, rounds: usize) {
    let (index, round) = (index + 1, round + 1);
    let mut err = io::stderr();
    if err.is_terminal() {
        write!(
            err,
            "\r\x1b[K[{index}/{count}] {name}: round {round} of {rounds}"
        )
        .ok();
    } else if round == 1 {
        writeln!(err, "[{index}/{count}] {name}: {rounds} rounds").ok();
    }
}

fn clear_progress() {
    let mut err = io::stderr();
    if err.is_terminal() {
        write!(err, "\r\x1b[K").ok();
    }
}

/// A reader that has seen enough (`| head`) is no failure.
fn ignore_closed_pipe(written: io::Result<()>) -> Result<(), String> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}
