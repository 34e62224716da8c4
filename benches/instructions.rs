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

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Mutex,
    thread,
};

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

const HELP: &str = "\
Counts instructions per operation under callgrind.

Usage: cargo bench --bench instructions -- [OPTIONS]

  --row NAME     only this row, or this group of rows; repeatable
  --peer NAME    these executors instead of mainstay alone; repeatable
  --all-peers    every executor that benches/compare/ has
  --ops N        instead of what each row does usually
  --baseline     write the figures of mainstay to benches/instructions.txt
  --into FILE    put the table also into FILE, between `<!-- instructions -->` and `<!-- /instructions -->`
  --help         this text";

fn main() -> ExitCode {
    match parse(env::args().skip(1)).and_then(|args| run(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            say(&format!("instructions: {message}"));
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Args {
    rows: Vec<String>,
    peers: Vec<String>,
    all_peers: bool,
    ops: Option<usize>,
    baseline: bool,
    into: Vec<PathBuf>,
    help: bool,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args::default();
    while let Some(option) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| format!("{option} needs a value"))
        };
        match option.as_str() {
            "--row" => args.rows.push(value()?),
            "--peer" => args.peers.push(value()?),
            "--all-peers" => args.all_peers = true,
            "--ops" => {
                let ops = value()?.parse();
                args.ops = Some(ops.map_err(|_| "--ops needs a number".to_owned())?);
            }
            "--baseline" => args.baseline = true,
            "--into" => args.into.push(value()?.into()),
            "--help" | "-h" => args.help = true,
            _ => {} // such as `--bench`, which cargo adds
        }
    }
    Ok(args)
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
    let program = build(args.all_peers)?;
    let rows = rows(&program, &args.rows)?;
    let peers = if args.all_peers && args.peers.is_empty() {
        list(&program, "--list-peers")?
    } else if args.peers.is_empty() {
        vec![OURS.to_owned()]
    } else {
        args.peers.clone()
    };

    let figures = count_all(&program, &rows, &peers, args.ops)?;
    let file = root().join("benches/instructions.txt");
    if args.baseline {
        if !args.rows.is_empty() || args.ops.is_some() {
            return Err("a baseline has all rows, with their usual operations".to_owned());
        }
        let baseline = Baseline::of(&tools, &rows, &figures)?;
        fs::write(&file, baseline.to_string()).map_err(|error| error.to_string())?;
        say(&format!("wrote {}", file.display()));
    }
    let baseline = Baseline::read(&file)?;
    let table = table(&tools, &rows, &peers, &figures, &baseline);
    print(&table)?;
    for file in &args.into {
        put_into(file, &table)?;
    }
    Ok(judge(&tools, &rows, &figures, &baseline))
}

/// What counts, and what is counted.
#[derive(PartialEq)]
struct Tools {
    rustc: String,
    libc: String,
    valgrind: String,
    target: String,
}

impl Tools {
    fn here() -> Option<Self> {
        Some(Self {
            valgrind: first_line_of("valgrind", "--version")?,
            rustc: first_line_of("rustc", "--version").unwrap_or_default(),
            libc: first_line_of("ldd", "--version").unwrap_or_default(),
            target: format!("{}-{}", env::consts::ARCH, env::consts::OS),
        })
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rustc,
            libc,
            valgrind,
            target,
        } = self;
        write!(f, "{rustc}; {libc}; {valgrind}; {target}")
    }
}

fn first_line_of(program: &str, option: &str) -> Option<String> {
    let output = Command::new(program).arg(option).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.trim().to_owned())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds the comparison and gives its program.
fn build(all_peers: bool) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root())
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

fn rows(program: &Path, wanted: &[String]) -> Result<Vec<String>, String> {
    let mut rows = list(program, "--list")?;
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

fn list(program: &Path, option: &str) -> Result<Vec<String>, String> {
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

type Figures = BTreeMap<(String, String), Option<f64>>;

/// Counts each row of each peer, on all cores.
fn count_all(
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

/// The committed figures.
struct Baseline {
    tools: String,
    rows: Vec<(String, f64)>,
}

impl Baseline {
    const HEAD: &str = "\
# Instructions per operation of mainstay. `cargo bench --bench instructions` compares with them, and
# `cargo bench --bench instructions -- --baseline` writes them.
";

    fn of(tools: &Tools, rows: &[String], figures: &Figures) -> Result<Self, String> {
        let figure = |row: &String| {
            let figure = figures.get(&(row.clone(), OURS.to_owned())).copied();
            let figure = figure
                .flatten()
                .ok_or_else(|| format!("{row} has no figure"))?;
            Ok((row.clone(), figure))
        };
        Ok(Self {
            tools: tools.to_string(),
            rows: rows.iter().map(figure).collect::<Result<_, String>>()?,
        })
    }

    /// An empty one if there is no file.
    fn read(file: &Path) -> Result<Self, String> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("{}: {error}", file.display())),
        };
        let mut baseline = Self {
            tools: String::new(),
            rows: Vec::new(),
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            if let Some(tools) = line.strip_prefix("with: ") {
                baseline.tools = tools.to_owned();
                continue;
            }
            let row = line
                .rsplit_once(' ')
                .and_then(|(row, figure)| Some((row.trim().to_owned(), figure.parse().ok()?)));
            let row = row.ok_or_else(|| format!("{}: cannot read {line:?}", file.display()))?;
            baseline.rows.push(row);
        }
        Ok(baseline)
    }

    fn figure(&self, row: &str) -> Option<f64> {
        let (_, figure) = self.rows.iter().find(|(name, _)| name == row)?;
        Some(*figure)
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}with: {}", Self::HEAD, self.tools)?;
        for (row, figure) in &self.rows {
            writeln!(f, "{row:<20} {figure:.1}")?;
        }
        Ok(())
    }
}

fn ours(figures: &Figures, row: &str) -> Option<f64> {
    *figures.get(&(row.to_owned(), OURS.to_owned()))?
}

fn table(
    tools: &Tools,
    rows: &[String],
    peers: &[String],
    figures: &Figures,
    baseline: &Baseline,
) -> String {
    let with_ours = peers.iter().any(|peer| peer == OURS);
    let shown =
        |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{figure:.1}"));
    let mut text = format!("Instructions per operation: {tools}.\n\n| row |");
    for peer in peers {
        text.push_str(&format!(" {peer} |"));
    }
    if with_ours {
        text.push_str(" committed | change | aim |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(peers.len() + if with_ours { 3 } else { 0 }));
    for row in rows {
        text.push_str(&format!("\n| {row} |"));
        for peer in peers {
            let figure = figures.get(&(row.clone(), peer.clone()));
            text.push_str(&format!(" {} |", shown(figure.copied().flatten())));
        }
        if with_ours {
            let (before, now) = (baseline.figure(row), ours(figures, row));
            let change = match (before, now) {
                (Some(before), Some(now)) => format!("{:+.1} %", (now / before - 1.0) * 100.0),
                _ => "-".to_owned(),
            };
            let aim = AIMS.iter().find(|(name, _)| name == row);
            let aim = aim.map_or("-".to_owned(), |(_, aim)| format!("{aim:.0}"));
            text.push_str(&format!(" {} | {change} | {aim} |", shown(before)));
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

fn put_into(file: &Path, table: &str) -> Result<(), String> {
    const OPEN: &str = "<!-- instructions -->\n";
    const CLOSE: &str = "<!-- /instructions -->";
    let failed = |why: String| format!("{}: {why}", file.display());
    let document = fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let parts = document
        .split_once(OPEN)
        .and_then(|(before, rest)| Some((before, rest.split_once(CLOSE)?.1)));
    let (before, after) = parts.ok_or_else(|| failed(format!("has no {}", OPEN.trim_end())))?;
    let document = format!("{before}{OPEN}\n{}\n\n{CLOSE}{after}", table.trim_end());
    fs::write(file, document).map_err(|error| failed(error.to_string()))
}

fn print(text: &str) -> Result<(), String> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn progress(done: usize, total: usize) {
    let mut err = io::stderr();
    if io::IsTerminal::is_terminal(&err) {
        write!(err, "\r\x1b[K{done} of {total}").ok();
        if done == total {
            write!(err, "\r\x1b[K").ok();
        }
    }
}

fn say(message: &str) {
    writeln!(io::stderr(), "{message}").ok();
}
