//! The Markdown.

use super::{
    figures::{Figures, Rival, rounded},
    memory,
    output::Output,
    peer::Column,
    rows::{self, Row},
};

/// Writes what the figures are, and the head of the table.
pub(crate) fn head(
    out: &mut Output,
    columns: &[Column],
    rounds: usize,
    check: bool,
) -> Result<(), String> {
    if check {
        out.line("**A check of the counts: the times mean nothing.**\n")?;
    }
    out.line(&format!(
        "Nanoseconds per operation: median of at most {rounds} interleaved rounds. In brackets the medians of the \
         per-round ratios to {}, and to the best peer, which is in bold.\n",
        references(columns)
    ))?;
    let names: Vec<_> = columns.iter().map(|column| column.name).collect();
    out.line(&format!("| row | {} |", names.join(" | ")))?;
    out.line(&format!("|---|{}", "---:|".repeat(names.len())))
}

fn references(columns: &[Column]) -> String {
    let names = columns.iter().filter(|column| column.reference);
    let names: Vec<_> = names.map(|column| format!("`{}`", column.name)).collect();
    match &names[..] {
        [] => "tokio (not here)".to_owned(),
        [only] => only.clone(),
        several => format!("tokio (the faster of {})", several.join(" and ")),
    }
}

/// Writes one row.
pub(crate) fn line(out: &mut Output, figures: &Figures<'_>) -> Result<(), String> {
    let (tokio, best) = (figures.tokio(), figures.best());
    cells(out, figures, |column, figure| {
        let against = |rival: Option<usize>| figures.against(column, rival?);
        let figure = if Some(column) == best {
            format!("**{}**", rounded(figure))
        } else {
            rounded(figure)
        };
        match (against(tokio), against(best)) {
            (Some(tokio), Some(best)) => {
                format!("{figure} ({:.2}; {:.2})", tokio.ratio, best.ratio)
            }
            (None, Some(best)) => format!("{figure} (-; {:.2})", best.ratio),
            _ => figure,
        }
    })
}

/// Writes one row whose figures may be about zero, or below.
pub(crate) fn line_without_ratio(out: &mut Output, figures: &Figures<'_>) -> Result<(), String> {
    cells(out, figures, |_, figure| rounded(figure))
}

fn cells(
    out: &mut Output,
    figures: &Figures<'_>,
    cell: impl Fn(usize, f64) -> String,
) -> Result<(), String> {
    let cells = (0..figures.columns().len()).map(|column| match figures.median(column) {
        Some(figure) => cell(column, figure),
        None => "-".to_owned(),
    });
    let cells: Vec<_> = cells.collect();
    out.line(&format!("| {} | {} |", figures.row, cells.join(" | ")))
}

/// Writes below the table what each row and each column is, and why there is a dash.
pub(crate) fn notes(
    out: &mut Output,
    columns: &[Column],
    rows: &[&Row],
    with_memory: bool,
) -> Result<(), String> {
    out.line("")?;
    // Rows of a series say the same.
    for alike in rows.chunk_by(|a, b| a.what == b.what) {
        let name = match alike {
            [first, .., last] => format!("`{}` to `{}`", first.name, last.name),
            _ => format!("`{}`", alike[0].name),
        };
        out.line(&format!("- {name}: {}", alike[0].what))?;
    }
    if with_memory {
        out.line(&format!("- `{}`: {}", memory::NAME, memory::WHAT))?;
    }
    out.line("")?;
    for column in columns {
        out.line(&format!("- **{}**: {}", column.name, column.note))?;
        for (group, why) in column.cannot {
            out.line(&format!("  - no `{group}`: {why}"))?;
        }
        for (group, why) in column.not_comparable {
            out.line(&format!("  - not the best peer in `{group}`: {why}"))?;
        }
    }
    Ok(())
}

/// The rows that readers in a hurry see.
const HEADLINES: &[&str] = &[
    "spawn",
    "spawn_2k",
    "join",
    "join_1000",
    "yield/100",
    "yield_1m",
    "ping_pong",
    "fan_out",
    "waker/clone_drop",
    "remote/wakes",
    "threads/2",
    "timer/sleep",
    "timer/create_drop",
    "ring/mpsc",
    "panic",
    "memory/64",
];

/// mainstay's rows for readers in a hurry; empty if none was measured.
pub(crate) fn summary(all: &[Figures<'_>]) -> String {
    let mut text = String::from(
        "| what | mainstay | of the best other | of tokio |\n| --- | ---: | ---: | ---: |\n",
    );
    let mut lines = 0;
    let headlines = HEADLINES
        .iter()
        .filter_map(|row| all.iter().find(|figures| figures.row == *row));
    for figures in headlines {
        let Some(ours) = figures.ours() else { continue };
        let Some(figure) = figures.median(ours) else {
            continue;
        };
        let against = |rival: Option<usize>| figures.against(ours, rival?);
        let named = |rival: Rival| {
            format!(
                "{:.2} ({} {})",
                rival.ratio,
                rival.name,
                rounded(rival.median)
            )
        };
        let cell = |rival: Option<Rival>, show: &dyn Fn(Rival) -> String| {
            rival.map_or_else(|| "-".to_owned(), show)
        };
        text.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            figures.what,
            rounded(figure),
            cell(against(figures.best()), &named),
            cell(against(figures.tokio()), &|rival| format!(
                "{:.2}",
                rival.ratio
            )),
        ));
        lines += 1;
    }
    if lines == 0 { String::new() } else { text }
}

/// What was aimed at beside what was reached; empty if mainstay was not measured.
pub(crate) fn aims(all: &[Figures<'_>]) -> String {
    let mut text = String::from(
        "| row | to the best peer | aim | to tokio | aim |\n|---|---:|---:|---:|---:|\n",
    );
    let mut lines = 0;
    for figures in all {
        let Some(ours) = figures.ours() else { continue };
        let reached = |rival: Option<usize>, aim: Option<f64>| {
            let aimed = aim.map_or_else(|| "-".to_owned(), |aim| format!("{aim:.2}"));
            match rival.and_then(|rival| figures.against(ours, rival)) {
                Some(rival) => {
                    let missed = aim.is_some_and(|aim| rival.ratio > aim + 0.005);
                    let mark = if missed { " (missed)" } else { "" };
                    format!("{:.2}{mark} | {aimed}", rival.ratio)
                }
                None => format!("- | {aimed}"),
            }
        };
        if figures.aims.best.is_none() && figures.aims.tokio.is_none() {
            continue;
        }
        text.push_str(&format!(
            "| {} | {} | {} |\n",
            figures.row,
            reached(figures.best(), figures.aims.best),
            reached(figures.tokio(), figures.aims.tokio),
        ));
        lines += 1;
    }
    if lines == 0 {
        return String::new();
    }
    if let Some(ratio) = panic_to_bare_catch(all) {
        text.push_str(&format!(
            "\n`panic` is {ratio:.2} of `{}`, which no executor can go below; aimed at: 1.05.\n",
            rows::BARE_CATCH
        ));
    }
    text
}

fn panic_to_bare_catch(all: &[Figures<'_>]) -> Option<f64> {
    let median = |row: &str| {
        let figures = all.iter().find(|figures| figures.row == row)?;
        figures.median(figures.ours()?)
    };
    Some(median("panic")? / median(rows::BARE_CATCH)?)
}

/// Whether a row is about the machine and not about executors.
pub(crate) fn is_yardstick(row: &str) -> bool {
    [rows::LOOP_ONLY, rows::BARE_CATCH].contains(&row)
}
