//! The comparison's program, and its runs under callgrind.

use std::{
    collections::BTreeMap,
    env,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
};

/// Builds the comparison and gives its program.
pub(crate) fn build(all_peers: bool) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["bench", "--bench", "compare", "--no-run"])
        .arg("--message-format=json-render-diagnostics");
    if all_peers {
        cargo.args(["--manifest-path", "benches/compare/Cargo.toml"]);
    }
    let output = cargo.output().map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = messages
        .lines()
        .filter_map(|line| line.split_once("\"executable\":\"")?.1.split_once('"'))
        .next_back();
    path.map(|(path, _)| PathBuf::from(path))
        .ok_or_else(|| "cargo names no program".to_owned())
}

/// The names that the program lists.
pub(crate) fn list(program: &Path, option: &str) -> Result<Vec<String>, String> {
    let output = Command::new(program).arg(option).output();
    let output = output.map_err(|error| error.to_string())?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(names.lines().map(str::to_owned).collect())
}

/// The operations of the smaller run. So many that a row's batches divide them, so few that a run takes a second.
fn ops_of(row: &str) -> usize {
    match row {
        "panic" | "bare_catch" => 200,
        "yield/10000" | "fan_out" => 20_000,
        _ => 10_000,
    }
}

/// By row and peer; `None` is a row that the peer cannot do.
pub(crate) type Figures = BTreeMap<(String, String), Option<f64>>;

/// Counts each row of each peer, on all cores.
pub(crate) fn count_all(
    program: &Path,
    rows: &[String],
    peers: &[String],
    ops: Option<usize>,
) -> Result<Figures, String> {
    let pairs = rows
        .iter()
        .flat_map(|row| peers.iter().map(move |peer| (row.clone(), peer.clone())));
    let mut left: Vec<_> = pairs.collect();
    left.reverse();
    let total = left.len();
    let (left, figures, failure) = (
        Mutex::new(left),
        Mutex::new(Figures::new()),
        Mutex::new(None),
    );
    let next = || left.lock().ok()?.pop();
    let worker = || {
        while let Some((row, peer)) = next() {
            let ops = ops.unwrap_or_else(|| ops_of(&row));
            match per_operation(program, &row, &peer, ops) {
                Ok(figure) => {
                    if let Ok(mut figures) = figures.lock() {
                        figures.insert((row, peer), figure);
                        progress(figures.len(), total);
                    }
                }
                Err(why) => {
                    if let (Ok(mut failure), Ok(mut left)) = (failure.lock(), left.lock()) {
                        *failure = Some(format!("{row} of {peer}: {why}"));
                        left.clear();
                    }
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    if let Some(why) = failure.into_inner().map_err(|error| error.to_string())? {
        return Err(why);
    }
    figures.into_inner().map_err(|error| error.to_string())
}

/// `None` if the peer cannot do the row.
fn per_operation(program: &Path, row: &str, peer: &str, ops: usize) -> Result<Option<f64>, String> {
    let (Some(once), Some(twice)) = (
        count(program, row, peer, ops)?,
        count(program, row, peer, 2 * ops)?,
    ) else {
        return Ok(None);
    };
    if twice.ops <= once.ops {
        return Err(format!("{ops} operations are too few to tell"));
    }
    let instructions = twice.instructions - once.instructions;
    Ok(Some(instructions / (twice.ops - once.ops)))
}

struct Count {
    ops: f64,
    instructions: f64,
}

fn count(program: &Path, row: &str, peer: &str, ops: usize) -> Result<Option<Count>, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--row", row, "--peer", peer, "--once", &ops.to_string()])
        .output()
        .map_err(|error| error.to_string())?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    if log.contains(" cannot run ") {
        return Ok(None);
    }
    let done = String::from_utf8_lossy(&output.stdout).trim().parse();
    let collected = log
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match (done, collected) {
        (Ok(ops), Some(instructions)) if output.status.success() => {
            Ok(Some(Count { ops, instructions }))
        }
        _ => Err(log),
    }
}

fn progress(done: usize, total: usize) {
    let mut err = io::stderr();
    if err.is_terminal() {
        write!(err, "\r\x1b[K{done} of {total}").ok();
        if done == total {
            write!(err, "\r\x1b[K").ok();
        }
    }
}
