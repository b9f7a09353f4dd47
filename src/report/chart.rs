//! One chart: curves over updates as SVG, and the same numbers for the values under the pointer.

use super::page::escape;
use serde::Serialize;
use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 30.0;
/// Points of a curve at most.
const POINTS: usize = 1500;

/// One curve.
#[derive(Debug, Serialize)]
pub struct Series {
    name: &'static str,
    points: Vec<(u64, f64)>,
}

impl Series {
    pub fn new(name: &'static str) -> Series {
        Series {
            name,
            points: Vec::new(),
        }
    }

    pub fn push(&mut self, step: u64, value: f64) {
        if value.is_finite() {
            self.points.push((step, value));
        }
    }

    /// Fewer points: of each group the first, the last, the lowest and the highest, so that no spike
    /// is lost.
    fn thin(&mut self) {
        if self.points.len() <= POINTS {
            return;
        }
        let group = self.points.len().div_ceil(POINTS / 4);
        let mut kept = Vec::new();
        for points in self.points.chunks(group) {
            let by_value = |a: &&(u64, f64), b: &&(u64, f64)| a.1.total_cmp(&b.1);
            let mut few = vec![points[0], points[points.len() - 1]];
            few.extend(points.iter().min_by(by_value));
            few.extend(points.iter().max_by(by_value));
            few.sort_by_key(|p| p.0);
            few.dedup();
            kept.extend(few);
        }
        self.points = kept;
    }
}

/// Curves on common axes.
#[derive(Debug)]
pub struct Chart {
    title: &'static str,
    series: Vec<Series>,
    floor: Floor,
}

/// Where the vertical axis begins.
#[derive(Debug, Clone, Copy)]
pub enum Floor {
    /// At the lowest value.
    Lowest,
    /// At zero, so that what is nearly constant looks so.
    Zero,
}

/// From numbers to places on the page.
#[derive(Serialize)]
struct Scale {
    from: f64,
    to: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, step: f64) -> f64 {
        LEFT + (step - self.from) / (self.to - self.from) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + (self.high - value) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart {
    pub fn new(title: &'static str, floor: Floor, mut series: Vec<Series>) -> Chart {
        series.iter_mut().for_each(Series::thin);
        Chart {
            title,
            series,
            floor,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|s| s.points.is_empty())
    }

    /// A `figure` of the page.
    pub fn figure(&self) -> String {
        let points = || self.series.iter().flat_map(|s| &s.points);
        let steps = points().map(|p| p.0 as f64);
        let values = || points().map(|p| p.1);
        let (from, to) = widened(
            steps.clone().fold(f64::MAX, f64::min),
            steps.fold(0.0, f64::max),
        );
        let low = match self.floor {
            Floor::Lowest => values().fold(f64::MAX, f64::min),
            Floor::Zero => values().fold(0.0, f64::min),
        };
        let high = values().fold(f64::MIN, f64::max);
        let (low, high) = widened(low, high);
        let scale = Scale {
            from,
            to,
            low,
            high,
        };
        let mut svg = format!(
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\">",
            escape(self.title),
            escape(self.title)
        );
        let _ = write!(
            svg,
            "<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"end\">update</text>",
            LEFT - 16.0,
            HEIGHT - 10.0
        );
        for tick in ticks(low, high) {
            let y = scale.y(tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                number(tick)
            );
        }
        for tick in ticks(from, to) {
            let x = scale.x(tick);
            let _ = write!(
                svg,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - 10.0,
                number(tick)
            );
        }
        for (index, series) in self.series.iter().enumerate() {
            let mut line = String::new();
            for (step, value) in &series.points {
                let _ = write!(line, "{:.1},{:.1} ", scale.x(*step as f64), scale.y(*value));
            }
            let _ = write!(svg, "<polyline class=\"s{index}\" points=\"{line}\"/>");
            // Few points are hard to see as a line.
            if series.points.len() <= 40 {
                for (step, value) in &series.points {
                    let (x, y) = (scale.x(*step as f64), scale.y(*value));
                    let _ = write!(
                        svg,
                        "<circle class=\"s{index}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"/>"
                    );
                }
            }
        }
        svg += "<line class=\"cursor\" y1=\"12\" y2=\"220\"/></svg>";
        if self.series.len() > 1 {
            svg += "<div class=\"legend\">";
            for (index, series) in self.series.iter().enumerate() {
                let _ = write!(
                    svg,
                    "<span class=\"k{index}\">{}</span>",
                    escape(series.name)
                );
            }
            svg += "</div>";
        }
        let data = serde_json::json!({
            "scale": scale, "left": LEFT, "right": WIDTH - RIGHT, "series": self.series,
        });
        // Nothing in a string may end the element.
        let data = data.to_string().replace('<', "\\u003c");
        let _ = write!(
            svg,
            "<output aria-live=\"off\"></output><button type=\"button\">PNG</button>\
             <script type=\"application/json\">{data}</script></figure>"
        );
        svg
    }
}

/// Two different numbers.
fn widened(low: f64, high: f64) -> (f64, f64) {
    if high > low {
        return (low, high);
    }
    let by = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
    (low - by, low + by)
}

/// About five round numbers from `low` to `high`.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|m| m * power)
        .into_iter()
        .find(|&step| step >= rough)
        .unwrap_or(rough);
    let first = (low / step).ceil();
    (0..12)
        .map(|i| (first + f64::from(i)) * step)
        .take_while(|&tick| tick <= high + 1e-9 * step)
        .collect()
}

/// Short: thousands and millions by their letters.
fn number(value: f64) -> String {
    let short = |value: f64, unit: &str| {
        let text = format!("{value:.4}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match value.abs() {
        a if a < 1e-14 => "0".into(),
        a if !(1e-3..1e9).contains(&a) => format!("{value:.1e}"),
        a if a >= 1e6 => short(value / 1e6, "M"),
        a if a >= 1e4 => short(value / 1e3, "k"),
        _ => short(value, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_spikes() {
        let mut series = Series::new("x");
        for step in 0..100_000 {
            series.push(step, if step == 77_777 { 50.0 } else { 1.0 });
        }
        series.thin();
        assert!(series.points.len() <= POINTS + 4, "{}", series.points.len());
        assert!(series.points.contains(&(77_777, 50.0)));
        assert_eq!(series.points.last(), Some(&(99_999, 1.0)));
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(7.9, 12.1), [8.0, 9.0, 10.0, 11.0, 12.0]);
        assert_eq!(
            [5e-4, 0.25, 2601.5, 28_000.0, 1_250_000.0].map(number),
            ["5.0e-4", "0.25", "2601.5", "28k", "1.25M"]
        );
    }
}
