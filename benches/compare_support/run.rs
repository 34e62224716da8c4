//! What the command line asks for.

use std::{
    io::{self, IsTerminal, Write},
    process::{Command, ExitCode},
    time::Duration,
};

use super::{
    args::{self, Args},
    chart,
    figures::Figures,
    machine,
    memory::{self, Footprint},
    output::Output,
    peer::Column,
    peers,
    rows::{HUGE, ROWS, Row, SCALE, SCALE_GROUP, Size, is_in},
    sections, table,
};

/// How often each peer is sampled on a row unless `--rounds` says otherwise.
const ROUNDS: usize = 21;

/// What `--check` gives each row to do, as a share of its full size.
const CHECK_SHARE: usize = 100;

/// What a peer that is slow on a row does less operations for.
const SAMPLE_TIME: Duration = Duration::from_millis(20);

/// The least share of a row's size that a slow peer does.
const LEAST_SHARE: usize = 100;

/// Compares `columns` as the command line asks for. The sections of `--into` are named with `prefix`.
pub(crate) fn main(prefix: &str, columns: Vec<Column>) -> ExitCode {
    let done = args::parse(std::env::args().skip(1)).and_then(|args| run(prefix, columns, &args));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tell(&format!("compare: {message}"));
            ExitCode::from(2)
        }
    }
}

/// Does what the command line asks for.
fn run(prefix: &str, columns: Vec<Column>, args: &Args) -> Result<(), String> {
    let mut out = Output::default();
    if args.help {
        return print_help(&mut out, &columns);
    }
    if let Some(micros) = args.timer_slack {
        peers::mainstay::set_timer_slack(micros);
        out.line(&format!("mainstay's timers have a slack of {micros} us.\n"))?;
    }
    let columns = chosen_columns(columns, args)?;
    let (rows, with_memory) = chosen_rows(args)?;
    if args.list {
        let names = rows.iter().map(|row| row.name);
        let names = names.chain(with_memory.then_some(memory::NAME));
        names.into_iter().try_for_each(|name| out.line(name))
    } else if args.list_peers {
        columns.iter().try_for_each(|column| out.line(column.name))
    } else if let Some(tasks) = args.footprint {
        let footprint = one(&columns, "--peer")?.footprint;
        match footprint(tasks, args.size.unwrap_or(64)) {
            Some(footprint) => out.line(&footprint.to_string()),
            None => Err("there is no future of that size".to_owned()),
        }
    } else if let Some(ops) = args.once {
        let (row, column) = (one(&rows, "--row")?, one(&columns, "--peer")?);
        match column.sample(row, ops) {
            Some(sample) => out.line(&sample.ops.to_string()),
            None => Err(format!("{} cannot run {} here", column.name, row.name)),
        }
    } else {
        compare(prefix, &columns, &rows, with_memory, args, out)
    }
}

/// Measures the chosen rows and prints the tables.
fn compare(
    prefix: &str,
    columns: &[Column],
    rows: &[&Row],
    with_memory: bool,
    args: &Args,
    mut out: Output,
) -> Result<(), String> {
    let check = args.check || cfg!(debug_assertions);
    let rounds = if check {
        1
    } else {
        args.rounds.unwrap_or(ROUNDS)
    };
    let steps = rows.len() + usize::from(with_memory);
    let mut all = Vec::new();
    table::head(&mut out, columns, rounds, check)?;
    for (step, row) in rows.iter().enumerate() {
        let figures = measure(row, columns, rounds, check, (step + 1, steps));
        table::line(&mut out, &figures)?;
        all.push(figures);
    }
    if with_memory {
        for (line, figures) in memory::LINES
            .iter()
            .zip(measure_memory(columns, rounds, check, steps)?)
        {
            if line.about_zero {
                table::line_without_ratio(&mut out, &figures)?;
            } else {
                table::line(&mut out, &figures)?;
                all.push(figures);
            }
        }
    }
    table::notes(&mut out, columns, rows, with_memory)?;

    if check {
        return Ok(()); // nothing of it is worth a picture or a place in a document
    }
    let scale = !rows.is_empty() && rows.iter().all(|row| is_in(row.name, SCALE_GROUP));
    match &args.chart {
        Some(file) if scale => chart::scale(file, &all)?,
        Some(file) => chart::comparison(file, &all)?,
        None => {}
    }
    let sections = if scale {
        vec![(SCALE_GROUP, out.into_text())]
    } else {
        let rest = [
            ("summary", table::summary(&all)),
            ("aims", table::aims(&all)),
            ("machine", machine::describe(columns)),
        ];
        let mut printed = Output::default();
        for (name, text) in rest.iter().filter(|(_, text)| !text.is_empty()) {
            printed.line(&format!("\n{name}:\n\n{}", text.trim_end()))?;
        }
        [("rows", out.into_text())]
            .into_iter()
            .chain(rest)
            .collect()
    };
    let sections: Vec<_> = sections
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| (format!("{prefix}-{name}"), text))
        .collect();
    args.into
        .iter()
        .try_for_each(|file| sections::put_into(file, &sections))
}

/// Measures one row. `step` is where it stands among all.
fn measure<'a>(
    row: &Row,
    columns: &'a [Column],
    rounds: usize,
    check: bool,
    step: (usize, usize),
) -> Figures<'a> {
    let mut figures = Figures::new(row.name, row.like, row.what, row.aims, columns);
    let rounds = rounds.min(row.rounds_at_most);
    let ops: Vec<_> = columns
        .iter()
        .map(|column| {
            if check {
                row.ops() / CHECK_SHARE
            } else {
                ops_for(row, column)
            }
        })
        .collect();
    for round in 0..rounds {
        progress(step, row.name, round, rounds);
        for column in turns(columns.len(), round) {
            if let Some(sample) = columns[column].sample(row, ops[column]) {
                figures.add(column, sample.ns_per_op());
            }
        }
    }
    clear_progress();
    figures
}

/// The operations that this peer does in about [`SAMPLE_TIME`], but no more than the row has.
fn ops_for(row: &Row, column: &Column) -> usize {
    let Size::UpTo(most) = row.size else {
        return row.ops();
    };
    let least = most / LEAST_SHARE;
    let Some(sample) = column.sample(row, least) else {
        return most;
    };
    let ops = SAMPLE_TIME.as_secs_f64() * 1e9 / sample.ns_per_op();
    // A float that is too big or no number becomes the nearest integer or 0, which the limits mend.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it saturates, as said above"
    )]
    #[expect(clippy::cast_sign_loss, reason = "times are not below zero")]
    let ops = ops as usize;
    ops.clamp(least, most)
}

/// Measures the memory rows: for each sample a process of its own, so that no peer inherits another one's heap.
fn measure_memory<'a>(
    columns: &'a [Column],
    rounds: usize,
    check: bool,
    steps: usize,
) -> Result<Vec<Figures<'a>>, String> {
    let figures =
        |line: &memory::Line| Figures::new(line.row, memory::NAME, line.what, line.aims, columns);
    let mut all: Vec<_> = memory::LINES.iter().map(figures).collect();
    if memory::resident_bytes().is_none() {
        tell("memory: skipped, this system has no /proc/self/status");
        return Ok(all);
    }
    let tasks = if check {
        memory::TASKS / CHECK_SHARE
    } else {
        memory::TASKS
    };
    for &(size, at_most) in memory::SIZES {
        let rounds = rounds.min(at_most);
        for round in 0..rounds {
            progress((steps, steps), memory::NAME, round, rounds);
            for column in turns(columns.len(), round) {
                if !columns[column].can(memory::NAME) {
                    continue;
                }
                let footprint = footprint_in_child(&columns[column], tasks, size)?;
                for (line, figures) in memory::LINES.iter().zip(&mut all) {
                    let bytes = (line.of)(&footprint).filter(|_| line.size == size);
                    if let Some(bytes) = bytes {
                        figures.add(column, bytes);
                    }
                }
            }
        }
    }
    clear_progress();
    Ok(all)
}

/// Runs this program again for one peer's footprint.
fn footprint_in_child(column: &Column, tasks: usize, size: usize) -> Result<Footprint, String> {
    let failed = |why: String| format!("{} of {}: {why}", memory::NAME, column.name);
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let (tasks, size) = (tasks.to_string(), size.to_string());
    let output = Command::new(program)
        .args([
            "--peer",
            column.name,
            "--footprint",
            &tasks,
            "--size",
            &size,
        ])
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

/// The chosen timed rows, and whether the memory rows are chosen.
fn chosen_rows(args: &Args) -> Result<(Vec<&'static Row>, bool), String> {
    let scale = || SCALE.iter().flat_map(|series| series.rows);
    let names = ROWS.iter().map(|row| row.name);
    let names = names.chain(scale().map(|(_, row)| row.name));
    let names: Vec<_> = names.chain([memory::NAME]).collect();
    if let Some(unknown) = args.unknown_row(&names) {
        return Err(format!("no row is named {unknown:?}; see --list"));
    }
    let rows = ROWS.iter().filter(|row| args.wants(row.name));
    let scale = scale()
        .filter(|(number, row)| args.names(row.name) && (args.huge || *number < HUGE))
        .map(|(_, row)| row);
    Ok((rows.chain(scale).collect(), args.wants(memory::NAME)))
}

/// The chosen peers that work here; of the others it is told why they do not.
fn chosen_columns(mut columns: Vec<Column>, args: &Args) -> Result<Vec<Column>, String> {
    let names: Vec<_> = columns.iter().map(|column| column.name).collect();
    if let Some(unknown) = args.unknown_peer(&names) {
        return Err(format!("no peer is named {unknown:?}; see --help"));
    }
    columns.retain(|column| args.wants_peer(column.name));
    columns.retain(|column| match (column.available)() {
        Ok(()) => true,
        Err(why) => {
            tell(&format!("{}: skipped: {why}", column.name));
            false
        }
    });
    Ok(columns)
}

fn one<'a, T>(of: &'a [T], option: &str) -> Result<&'a T, String> {
    match of {
        [only] => Ok(only),
        _ => Err(format!("this needs exactly one {option}")),
    }
}

fn print_help(out: &mut Output, columns: &[Column]) -> Result<(), String> {
    out.line(args::HELP)?;
    out.line("\nRows:")?;
    for row in ROWS {
        out.line(&format!("  {:<18} {}", row.name, row.what))?;
    }
    out.line(&format!("  {:<18} {}", memory::NAME, memory::WHAT))?;
    for series in SCALE {
        out.line(&format!("  {:<18} {}", series.name, series.title))?;
    }
    out.line("\nPeers:")?;
    for column in columns {
        out.line(&format!("  {:<18} {}", column.name, column.note))?;
    }
    Ok(())
}

fn progress((step, steps): (usize, usize), name: &str, round: usize, rounds: usize) {
    let round = round + 1;
    let mut err = io::stderr();
    if err.is_terminal() {
        write!(
            err,
            "\r\x1b[K[{step}/{steps}] {name}: round {round} of {rounds}"
        )
        .ok();
    } else if round == 1 {
        writeln!(err, "[{step}/{steps}] {name}: {rounds} rounds").ok();
    }
}

fn clear_progress() {
    let mut err = io::stderr();
    if err.is_terminal() {
        write!(err, "\r\x1b[K").ok();
    }
}

/// Says something that is no result.
fn tell(message: &str) {
    writeln!(io::stderr(), "{message}").ok();
}
