//! The command line.

use std::path::PathBuf;

use super::sections::from_where_cargo_was_started;

pub(crate) const HELP: &str = "\
Counts instructions per operation under callgrind.

Usage: cargo bench --bench instructions -- [OPTIONS]

  --row NAME     only this row, or this group of rows; repeatable
  --peer NAME    these executors instead of mainstay alone; repeatable
  --all-peers    every executor that benches/compare/ has
  --ops N        instead of what each row does usually
  --baseline     write the figures of mainstay to benches/instructions.txt
  --into FILE    put the table also into FILE, between `<!-- instructions -->` and `<!-- /instructions -->`
  --help         this text";

#[derive(Default)]
pub(crate) struct Args {
    pub(crate) rows: Vec<String>,
    pub(crate) peers: Vec<String>,
    pub(crate) all_peers: bool,
    pub(crate) ops: Option<usize>,
    pub(crate) baseline: bool,
    pub(crate) into: Vec<PathBuf>,
    pub(crate) help: bool,
}

pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
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
            "--into" => args.into.push(from_where_cargo_was_started(&value()?)),
            "--help" | "-h" => args.help = true,
            _ => {} // such as `--bench`, which cargo adds
        }
    }
    Ok(args)
}
