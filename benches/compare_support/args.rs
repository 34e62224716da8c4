//! The command line.

use std::path::PathBuf;

use super::{rows::is_in, sections::from_where_cargo_was_started};

/// The text of `--help`, without the lists of rows and peers.
pub(crate) const HELP: &str = "\
Compares single-threaded executors and prints a Markdown table.

Usage: cargo bench --bench compare -- [OPTIONS]
       cargo bench --manifest-path benches/compare/Cargo.toml -- [OPTIONS]   (with more peers)

  --row NAME        only this row, or this group of rows (`yield` is `yield/1`, `yield/100`, ...); repeatable
  --peer NAME       only this peer; repeatable
                    rows of the group `scale` are measured if they are named only
  --huge            rows of `scale` with 10,000,000 tasks, too; they need up to 10 GB
  --timer-slack US  give mainstay's timers this many microseconds of slack (it has none unless asked; tokio's have 1000)
  --rounds N        samples of each peer on each row
  --check           one small sample of each, for its checks (always so in a build with debug assertions); the
                    times mean nothing, so nothing is drawn, and nothing put into files
  --list            print the names of the chosen rows
  --list-peers      print the names of the chosen peers
  --chart FILE      draw the comparison, or the rows of `scale`, as an SVG
  --into FILE       put what is printed also into FILE, between `<!-- NAME -->` and `<!-- /NAME -->`; the names are on stderr
  --once OPS        run one row of one peer once, and print how many operations that was (for profilers)
  --footprint TASKS print one peer's bytes per task in this very process (the memory row runs this)
  --size BYTES      of the futures of `--footprint`
  --help            this text

Other arguments are ignored, such as those that cargo adds.";

/// What the command line asked for.
#[derive(Default)]
pub(crate) struct Args {
    rows: Vec<String>,
    peers: Vec<String>,
    /// In microseconds.
    pub(crate) timer_slack: Option<usize>,
    pub(crate) rounds: Option<usize>,
    pub(crate) check: bool,
    pub(crate) huge: bool,
    pub(crate) chart: Option<PathBuf>,
    pub(crate) list: bool,
    pub(crate) list_peers: bool,
    pub(crate) once: Option<usize>,
    pub(crate) footprint: Option<usize>,
    pub(crate) size: Option<usize>,
    pub(crate) into: Vec<PathBuf>,
    pub(crate) help: bool,
}

impl Args {
    /// Whether the row is chosen: by its name, by its group, or because none was.
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|wanted| is_in(row, wanted))
    }

    /// Whether the row is chosen by its name, or by its group.
    pub(crate) fn names(&self, row: &str) -> bool {
        !self.rows.is_empty() && self.wants(row)
    }

    /// Whether the peer is chosen: by its name, or because none was.
    pub(crate) fn wants_peer(&self, peer: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|wanted| wanted == peer)
    }

    /// The first `--row` that chooses none of `rows`.
    pub(crate) fn unknown_row(&self, rows: &[&str]) -> Option<&str> {
        let unknown = |wanted: &&String| !rows.iter().any(|row| is_in(row, wanted));
        self.rows.iter().find(unknown).map(String::as_str)
    }

    /// The first `--peer` that is none of `peers`.
    pub(crate) fn unknown_peer(&self, peers: &[&str]) -> Option<&str> {
        let unknown = |wanted: &&String| !peers.contains(&wanted.as_str());
        self.peers.iter().find(unknown).map(String::as_str)
    }
}

/// Reads the command line, both `--row NAME` and `--row=NAME`.
///
/// # Errors
///
/// If a value is missing, or no number where one is needed.
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args::default();
    let mut words = words.flat_map(|word| match word.split_once('=') {
        Some((option, value)) => vec![option.to_owned(), value.to_owned()],
        None => vec![word],
    });
    while let Some(option) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| format!("{option} needs a value"))
        };
        match option.as_str() {
            "--row" => args.rows.push(value()?),
            "--peer" => args.peers.push(value()?),
            "--timer-slack" => args.timer_slack = Some(number(&option, &value()?)?),
            "--rounds" => args.rounds = Some(number(&option, &value()?)?),
            "--once" => args.once = Some(number(&option, &value()?)?),
            "--footprint" => args.footprint = Some(number(&option, &value()?)?),
            "--size" => args.size = Some(any_number(&option, &value()?)?),
            "--into" => args.into.push(from_where_cargo_was_started(&value()?)),
            "--huge" => args.huge = true,
            "--chart" => args.chart = Some(from_where_cargo_was_started(&value()?)),
            "--check" => args.check = true,
            "--list" => args.list = true,
            "--list-peers" => args.list_peers = true,
            "--help" | "-h" => args.help = true,
            _ => {}
        }
    }
    Ok(args)
}

fn number(option: &str, value: &str) -> Result<usize, String> {
    match any_number(option, value)? {
        0 => Err(format!("{option} needs a number above 0")),
        number => Ok(number),
    }
}

fn any_number(option: &str, value: &str) -> Result<usize, String> {
    value
        .parse()
        .map_err(|_| format!("{option} needs a number, not {value:?}"))
}
