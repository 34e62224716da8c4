//! The figures as pictures.

use std::{fmt::Display, path::Path};

use plotters::{
    chart::ChartBuilder,
    coord::{Shift, combinators::IntoLogRange},
    drawing::{DrawingArea, IntoDrawingArea},
    element::{Circle, PathElement, Rectangle, Text},
    prelude::{Color, RGBColor, SVGBackend, WHITE},
    series::LineSeries,
    style::{
        IntoFont, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    figures::{Figures, rounded},
    rows::SCALE,
    table::is_yardstick,
};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const OURS: RGBColor = RGBColor(31, 97, 141);
const OTHER: RGBColor = RGBColor(178, 186, 187);
const INK: RGBColor = RGBColor(44, 62, 80);
const FAINT: RGBColor = RGBColor(213, 216, 220);

/// For the lines of the peers.
const PALETTE: [RGBColor; 7] = [
    RGBColor(192, 57, 43),
    RGBColor(39, 174, 96),
    RGBColor(243, 156, 18),
    RGBColor(142, 68, 173),
    RGBColor(127, 140, 141),
    RGBColor(22, 160, 133),
    RGBColor(110, 44, 0),
];

/// Draws two bars for each row: mainstay's ratio to tokio, and the best peer's.
pub(crate) fn comparison(file: &Path, all: &[Figures<'_>]) -> Result<(), String> {
    let bars: Vec<_> = all.iter().filter_map(Bar::of).collect();
    if bars.is_empty() {
        return Err(
            "there is nothing to draw: it takes mainstay, tokio and another peer".to_owned(),
        );
    }
    const WIDTH: i32 = 900;
    const TOP: i32 = 64;
    const STEP: i32 = 30;
    const LEFT: i32 = 150;
    const RIGHT: i32 = 680;
    let bottom = TOP + STEP * i32::try_from(bars.len()).unwrap_or(i32::MAX / STEP);
    let area = blank(file, (WIDTH, bottom + 34))?;
    // Beyond this, a bar is cut and its number tells.
    let most = bars
        .iter()
        .map(|bar| bar.ours.max(bar.best))
        .fold(1.0, f64::max)
        .clamp(1.0, 1.5);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a place within the picture"
    )]
    let x = |ratio: f64| LEFT + (f64::from(RIGHT - LEFT) * ratio.min(most) / most) as i32;

    write(
        &area,
        "Time per operation (memory: bytes per task), tokio = 1; shorter is better",
        (LEFT, 18),
        17,
        HPos::Left,
        INK,
    )?;
    for (at, name, color) in [
        (LEFT, "mainstay", OURS),
        (LEFT + 110, "the best of the others", OTHER),
    ] {
        fill(&area, (at, 36), (at + 12, 46), color)?;
        write(&area, name, (at + 18, 41), 13, HPos::Left, INK)?;
    }
    for mark in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let color = if mark == 1.0 { INK } else { FAINT };
        line(&area, (x(mark), TOP - 4), (x(mark), bottom), color)?;
        write(
            &area,
            &format!("{mark}"),
            (x(mark), bottom + 12),
            12,
            HPos::Center,
            INK,
        )?;
    }
    let mut top = TOP;
    for bar in &bars {
        write(&area, bar.row, (LEFT - 8, top + 13), 13, HPos::Right, INK)?;
        fill(&area, (LEFT, top + 2), (x(bar.ours), top + 13), OURS)?;
        fill(&area, (LEFT, top + 14), (x(bar.best), top + 24), OTHER)?;
        let ours = format!("{:.2}", bar.ours);
        write(
            &area,
            &ours,
            (x(bar.ours) + 5, top + 8),
            11,
            HPos::Left,
            OURS,
        )?;
        let best = format!("{:.2}  {}", bar.best, bar.best_name);
        write(
            &area,
            &best,
            (x(bar.best) + 5, top + 19),
            11,
            HPos::Left,
            INK,
        )?;
        top += STEP;
    }
    area.present().map_err(failed)
}

struct Bar {
    row: &'static str,
    ours: f64,
    best: f64,
    best_name: &'static str,
}

impl Bar {
    fn of(figures: &Figures<'_>) -> Option<Self> {
        let (tokio, best) = (figures.tokio()?, figures.best()?);
        (!is_yardstick(figures.row)).then_some(())?;
        Some(Self {
            row: figures.row,
            ours: figures.against(figures.ours()?, tokio)?.ratio,
            best: figures.against(best, tokio)?.ratio,
            best_name: figures.columns()[best].name,
        })
    }
}

/// Draws a panel for each series, with a line for each peer, both axes logarithmic.
pub(crate) fn scale(file: &Path, all: &[Figures<'_>]) -> Result<(), String> {
    let area = blank(file, (1_080, 640))?;
    let mut panels = area.split_evenly((2, 3)).into_iter();
    let mut drawn = Vec::new();
    for series in SCALE {
        let rows = series.rows.iter().filter_map(|(number, row)| {
            let figures = all.iter().find(|figures| figures.row == row.name)?;
            Some((*number, figures))
        });
        let rows: Vec<_> = rows.collect();
        if let (false, Some(panel)) = (rows.is_empty(), panels.next()) {
            draw_series(&panel, series.title, &rows)?;
            drawn = rows;
        }
    }
    let (Some(legend), Some((_, figures))) = (panels.next(), drawn.first()) else {
        return Err("there is nothing to draw".to_owned());
    };
    let mut at = 40;
    for (index, column) in figures.columns().iter().enumerate() {
        line(&legend, (60, at), (90, at), color(index))?;
        write(&legend, column.name, (98, at), 14, HPos::Left, INK)?;
        at += 22;
    }
    let axes = "up: nanoseconds per operation; right: the number of tasks";
    write(&legend, axes, (40, at + 10), 12, HPos::Left, INK)?;
    area.present().map_err(failed)
}

fn draw_series(
    panel: &Area<'_>,
    title: &str,
    rows: &[(usize, &Figures<'_>)],
) -> Result<(), String> {
    let columns = rows[0].1.columns().len();
    let points = |column: usize| {
        rows.iter()
            .filter_map(move |(number, figures)| Some((*number as f64, figures.median(column)?)))
    };
    let all = || (0..columns).flat_map(points);
    let (least, most) = all().fold((f64::MAX, 1.0_f64), |(least, most), (_, ns)| {
        (least.min(ns), most.max(ns))
    });
    let (first, last) = (rows[0].0 as f64, rows[rows.len() - 1].0 as f64);
    let mut top = 12;
    for part in lines_of(title) {
        write(panel, &part, (180, top), 12, HPos::Center, INK)?;
        top += 14;
    }
    let mut chart = ChartBuilder::on(panel)
        .margin_top(top)
        .margin_right(16)
        .x_label_area_size(26)
        .y_label_area_size(46)
        .build_cartesian_2d(
            (first..last).log_scale(),
            (decade(least, f64::floor)..decade(most, f64::ceil)).log_scale(),
        )
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .x_labels(rows.len())
        .y_labels(6)
        .x_label_formatter(&|number| short(*number))
        .y_label_formatter(&|ns| {
            rounded(*ns)
                .trim_end_matches(".00")
                .trim_end_matches(".0")
                .to_owned()
        })
        .label_style(("sans-serif", 11).into_font().color(&INK))
        .draw()
        .map_err(failed)?;
    for column in (0..columns).rev() {
        let style = color(column).stroke_width(if column == 0 { 3 } else { 1 });
        chart
            .draw_series(LineSeries::new(points(column), style))
            .map_err(failed)?;
        let dots = points(column).map(|at| Circle::new(at, 2, color(column).filled()));
        chart.draw_series(dots).map_err(failed)?;
    }
    Ok(())
}

/// A power of ten near a figure.
fn decade(figure: f64, round: fn(f64) -> f64) -> f64 {
    10_f64.powf(round(figure.log10()))
}

/// Breaks a title where a line would become too long.
fn lines_of(title: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in title.split(' ') {
        let last = lines.len() - 1;
        if lines[last].len() + word.len() > 52 {
            lines.push(word.to_owned());
        } else {
            let gap = if lines[last].is_empty() { "" } else { " " };
            lines[last].push_str(gap);
            lines[last].push_str(word);
        }
    }
    lines
}

fn short(number: f64) -> String {
    match number {
        few if few < 1e3 => format!("{few:.0}"),
        thousands if thousands < 1e6 => format!("{:.0}k", thousands / 1e3),
        millions => format!("{:.0}M", millions / 1e6),
    }
}

/// mainstay is the first column.
fn color(column: usize) -> RGBColor {
    match column {
        0 => OURS,
        peer => PALETTE[(peer - 1) % PALETTE.len()],
    }
}

fn blank(file: &Path, (width, height): (i32, i32)) -> Result<Area<'_>, String> {
    let size = (width.unsigned_abs(), height.unsigned_abs());
    let area = SVGBackend::new(file, size).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    Ok(area)
}

fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: u32,
    side: HPos,
    color: RGBColor,
) -> Result<(), String> {
    let style = TextStyle::from(("sans-serif", size).into_font())
        .color(&color)
        .pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text, at, style)).map_err(failed)
}

fn fill(area: &Area<'_>, from: (i32, i32), to: (i32, i32), color: RGBColor) -> Result<(), String> {
    area.draw(&Rectangle::new([from, to], color.filled()))
        .map_err(failed)
}

fn line(area: &Area<'_>, from: (i32, i32), to: (i32, i32), color: RGBColor) -> Result<(), String> {
    area.draw(&PathElement::new([from, to], color))
        .map_err(failed)
}

fn failed(error: impl Display) -> String {
    format!("the chart: {error}")
}
