//! The comparison as a picture.

use std::fmt::Write as _;

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, SegmentValue, ValueFormatter};
use plotters::prelude::*;

use super::table::{grouped, place};
use super::{Cycles, Overhead, PolicyRow};

/// Width of the picture.
const WIDTH: u32 = 1000;
/// Height of a sweep's picture.
const HEIGHT: u32 = 640;
/// Height of a policy's bar.
const BAR: u32 = 30;

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plot: {0}")]
pub struct PlotError(String);

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A policy, or several that cost the same.
struct Line {
    label: String,
    cycles: Vec<Cycles>,
}

impl Overhead {
    /// As SVG: of a sweep a line for each policy over its values, with the range of the cost model;
    /// otherwise bars.
    ///
    /// # Errors
    /// It cannot be drawn.
    pub fn svg(&self) -> Result<String, PlotError> {
        let mut svg = String::new();
        let lines = self.lines();
        let drawn = if self.points.len() > 1 {
            self.draw_sweep(&mut svg, &lines)
        } else {
            self.draw_bars(&mut svg, &lines)
        };
        drawn.map_err(|error| PlotError(error.to_string()))?;
        Ok(svg)
    }

    /// As one HTML page with the picture, the tables and what stands behind them. It refers to
    /// nothing outside.
    ///
    /// # Errors
    /// As [`Overhead::svg`].
    pub fn html(&self, command: &str) -> Result<String, PlotError> {
        let svg = self.svg()?;
        let title = escaped(&format!("LBR of guests: {}", self.scene));
        let mut html = String::new();
        // Writing to a String does not fail.
        let _ = write!(
            html,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
             <link rel=\"icon\" href=\"data:,\">\n\
             <style>\nbody {{ font-family: sans-serif; margin: 2em; }}\nsvg {{ max-width: 100%; height: auto; }}\n\
             pre {{ overflow-x: auto; }}\n</style>\n</head>\n<body>\n<h1>{title}</h1>\n{svg}\n<pre>{}</pre>\n\
             <h2>Made by</h2>\n<pre>{}\nvlbr {}\n",
            escaped(&self.text()),
            escaped(command),
            escaped(self.version)
        );
        for input in &self.inputs {
            let _ = writeln!(html, "{}  {}", input.sha256, escaped(&input.name));
        }
        html.push_str("</pre>\n</body>\n</html>\n");
        Ok(html)
    }

    /// Policies that run everywhere and cost something somewhere.
    fn lines(&self) -> Vec<Line> {
        let row = |point: usize, n: usize| -> &PolicyRow { &self.points[point].rows[n] };
        let points = 0..self.points.len();
        let mut lines = Vec::new();
        for group in self.groups() {
            let first = group[0];
            if points
                .clone()
                .any(|point| row(point, first).failed.is_some())
            {
                continue;
            }
            let cycles: Vec<Cycles> = points.clone().map(|p| row(p, first).overhead).collect();
            if cycles.iter().all(|cycles| cycles.default <= 0) {
                continue;
            }
            let names: Vec<&str> = group.iter().map(|n| &*row(0, *n).policy).collect();
            let mut label = names.join(" = ");
            if points
                .clone()
                .any(|point| row(point, first).letters.denied != 0)
            {
                label.push_str(" (refuses accesses)");
            }
            lines.push(Line { label, cycles });
        }
        lines
    }

    fn heading(&self) -> String {
        let costs = self.points.first().map_or("", |point| &point.models.costs);
        let part = self.points.first().map_or("", |point| &point.models.part);
        format!("{}: {part}, costs {costs}, low to high", self.scene)
    }

    fn draw_bars(&self, svg: &mut String, lines: &[Line]) -> Drawn {
        let height = 120 + BAR * lines.len().max(1) as u32;
        let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let (least, most) = bounds(lines);
        // The cheapest on top.
        let mut lines: Vec<&Line> = lines.iter().collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.cycles[0].default));
        let labels: Vec<String> = lines.iter().map(|line| line.label.clone()).collect();
        let widest = labels.iter().map(String::len).max().unwrap_or(0) as u32;
        let mut chart = ChartBuilder::on(&root)
            .caption(self.heading(), ("sans-serif", 18))
            .margin(12)
            .margin_right(36)
            .x_label_area_size(40)
            .y_label_area_size((widest * 7 + 20).min(WIDTH / 2))
            .build_cartesian_2d(
                (least..most).log_scale(),
                (0..lines.len().max(1) as i32 - 1).into_segmented(),
            )?;
        let name = |at: &SegmentValue<i32>| match at {
            SegmentValue::CenterOf(n) | SegmentValue::Exact(n) => {
                labels.get(*n as usize).cloned().unwrap_or_default()
            }
            SegmentValue::Last => String::new(),
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(lines.len().max(1))
            .y_label_formatter(&name)
            .x_label_formatter(&|x| grouped(x.round() as i64))
            .x_desc("LBR cycles beyond those with a processor of the guest's own")
            .draw()?;
        for (n, line) in lines.iter().enumerate() {
            let n = n as i32;
            let color = color(n as usize, lines.len());
            let Cycles { low, default, high } = line.cycles[0];
            let (low, high) = ((low as f64).max(least), (high as f64).max(least));
            let default = (default as f64).max(least);
            let (below, above) = (SegmentValue::Exact(n), SegmentValue::Exact(n + 1));
            let mut bar =
                Rectangle::new([(least, below), (default, above)], color.mix(0.6).filled());
            bar.set_margin(5, 5, 0, 0);
            chart.draw_series([bar])?;
            let middle = || SegmentValue::CenterOf(n);
            chart.draw_series([PathElement::new(
                vec![(low, middle()), (high, middle())],
                BLACK.stroke_width(1),
            )])?;
            let ends = [low, high].map(|x| Circle::new((x, middle()), 2, BLACK.filled()));
            chart.draw_series(ends)?;
        }
        root.present()?;
        Ok(())
    }

    fn draw_sweep(&self, svg: &mut String, lines: &[Line]) -> Drawn {
        let axis = self.axis();
        let (first, last) = (axis[0], axis[axis.len() - 1]);
        let (least, most) = bounds(lines);
        let y = (least..most).log_scale();
        // Values that grow by a factor stand as far apart as each other.
        let geometric =
            first > 0.0 && axis.len() > 2 && axis[2] - axis[1] > 1.5 * (axis[1] - axis[0]);
        let last = if last > first { last } else { first + 1.0 };
        if geometric {
            self.draw_lines(svg, lines, (first..last).log_scale(), y)
        } else {
            self.draw_lines(svg, lines, first..last, y)
        }
    }

    fn draw_lines<X, Y>(&self, svg: &mut String, lines: &[Line], x: X, y: Y) -> Drawn
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let axis = self.axis();
        let height = HEIGHT + 18 * lines.len() as u32;
        let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let (upper, lower) = root.split_vertically(HEIGHT);
        let key = self.key.as_deref().unwrap_or_default();
        let named: Vec<&str> = self
            .points
            .iter()
            .filter_map(|p| p.value.as_deref())
            .collect();
        let numbers = named.iter().all(|value| value.parse::<f64>().is_ok());
        let mut chart = ChartBuilder::on(&upper)
            .caption(self.heading(), ("sans-serif", 18))
            .margin(12)
            .margin_right(36)
            .x_label_area_size(40)
            .y_label_area_size(110)
            .build_cartesian_2d(x, y)?;
        let label = |x: &f64| match (numbers, x.fract() == 0.0) {
            (true, _) => place(*x),
            (false, true) => named
                .get(*x as usize)
                .copied()
                .unwrap_or_default()
                .to_owned(),
            (false, false) => String::new(),
        };
        chart
            .configure_mesh()
            .x_label_formatter(&label)
            .y_label_formatter(&|y| grouped(y.round() as i64))
            .x_desc(key)
            .y_desc("LBR cycles beyond ideal")
            .draw()?;
        let shown = |cycles: i64| cycles.max(1) as f64;
        for (n, line) in lines.iter().enumerate() {
            let color = color(n, lines.len());
            let along = || axis.iter().zip(&line.cycles);
            let mut area: Vec<(f64, f64)> = along().map(|(x, c)| (*x, shown(c.low))).collect();
            area.extend(along().rev().map(|(x, c)| (*x, shown(c.high))));
            chart.draw_series([Polygon::new(area, color.mix(0.08))])?;
            let middle = along().map(|(x, c)| (*x, shown(c.default)));
            chart.draw_series(LineSeries::new(middle, color.stroke_width(2)))?;
            let at = 18 * n as i32 + 9;
            lower.draw(&PathElement::new(
                vec![(30, at), (60, at)],
                color.stroke_width(3),
            ))?;
            let text = (line.label.as_str(), ("sans-serif", 13));
            lower.draw(&Text::new(text.0.to_owned(), (68, at - 7), text.1))?;
        }
        root.present()?;
        Ok(())
    }
}

/// What the axis of cycles reaches from and to.
fn bounds(lines: &[Line]) -> (f64, f64) {
    let all = || lines.iter().flat_map(|line| &line.cycles);
    let least = all()
        .flat_map(|c| [c.low, c.default])
        .filter(|c| *c > 0)
        .min()
        .unwrap_or(1);
    let most = all().map(|cycles| cycles.high).max().unwrap_or(1);
    let (least, most) = (least as f64, (most as f64).max(least as f64 * 2.0));
    (least * 0.8, most * 1.2)
}

/// Colours as far apart as the circle allows.
fn color(n: usize, of: usize) -> HSLColor {
    HSLColor(n as f64 / of.max(1) as f64, 0.75, 0.4)
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() && c != '\n' => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
