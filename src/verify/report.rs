//! One row a compared quantity; a difference that is not a number fails.

use serde::Serialize;
use std::fmt;
use std::ops::Range;

/// One compared quantity.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub quantity: String,
    /// Absent where the values could not be compared at all.
    pub difference: Option<f64>,
    pub tolerance: f64,
    pub passed: bool,
}

/// Every quantity of a case.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub case: String,
    pub rows: Vec<Row>,
}

impl Report {
    /// An empty report.
    pub fn new(case: &str) -> Report {
        Report {
            case: case.to_owned(),
            rows: Vec::new(),
        }
    }

    /// Whether every quantity is within its tolerance.
    pub fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.passed)
    }

    fn push(&mut self, quantity: &str, difference: Option<f64>, tolerance: f64) {
        let difference = difference.filter(|d| !d.is_nan());
        self.rows.push(Row {
            quantity: quantity.to_owned(),
            difference,
            tolerance,
            passed: difference.is_some_and(|d| d <= tolerance),
        });
    }

    /// Largest difference over the largest expected value.
    pub fn largest(&mut self, quantity: &str, found: &[f32], expected: &[f64], tolerance: f64) {
        let largest = expected.iter().fold(0.0, |m, x| max(m, x.abs()));
        let difference = pairs(found.iter().map(|&x| f64::from(x)), expected)
            .map(|p| p.fold(0.0, |m, (a, b)| max(m, (a - b).abs())) / largest);
        self.push(quantity, difference, tolerance);
    }

    /// Largest relative difference.
    pub fn relative(&mut self, quantity: &str, found: &[f64], expected: &[f64], tolerance: f64) {
        let difference = pairs(found.iter().copied(), expected)
            .map(|p| p.fold(0.0, |m, (a, b)| max(m, ((a - b) / b).abs())));
        self.push(quantity, difference, tolerance);
    }

    /// Largest absolute difference.
    pub fn absolute(&mut self, quantity: &str, found: &[f64], expected: &[f64], tolerance: f64) {
        let difference = pairs(found.iter().copied(), expected)
            .map(|p| p.fold(0.0, |m, (a, b)| max(m, (a - b).abs())));
        self.push(quantity, difference, tolerance);
    }

    /// ‖found − expected‖ / ‖expected‖
    pub fn distance(&mut self, quantity: &str, found: &[f32], expected: &[f64], tolerance: f64) {
        let norm = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
        let difference = pairs(found.iter().map(|&x| f64::from(x)), expected)
            .map(|p| p.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt() / norm);
        self.push(quantity, difference, tolerance);
    }

    /// ‖found − expected‖ / ‖expected − start‖, without the elements `ignored`.
    pub fn change(
        &mut self,
        quantity: &str,
        start: &[f32],
        found: &[f32],
        expected: &[f64],
        ignored: Range<usize>,
        tolerance: f64,
    ) {
        let difference =
            (start.len() == expected.len() && found.len() == expected.len()).then(|| {
                let (mut wrong, mut moved) = (0.0, 0.0);
                for (i, expected) in expected.iter().enumerate() {
                    if !ignored.contains(&i) {
                        wrong += (f64::from(found[i]) - expected).powi(2);
                        moved += (expected - f64::from(start[i])).powi(2);
                    }
                }
                (wrong / moved).sqrt()
            });
        self.push(quantity, difference, tolerance);
    }
}

/// The larger one; NaN if either is.
fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b > a || b.is_nan() {
        if a.is_nan() { a } else { b }
    } else {
        a
    }
}

fn pairs(
    found: impl ExactSizeIterator<Item = f64>,
    expected: &[f64],
) -> Option<impl Iterator<Item = (f64, f64)>> {
    (found.len() == expected.len()).then(|| found.zip(expected.iter().copied()))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .rows
            .iter()
            .map(|r| r.quantity.len())
            .max()
            .unwrap_or(0);
        writeln!(f, "{:width$}  difference  tolerance", self.case)?;
        for row in &self.rows {
            let difference = match row.difference {
                Some(d) => format!("{d:.1e}"),
                None => "not comparable".to_owned(),
            };
            let verdict = if row.passed { "ok" } else { "FAILED" };
            writeln!(
                f,
                "{:width$}  {difference:>10}  {:>9.0e}  {verdict}",
                row.quantity, row.tolerance
            )?;
        }
        let failed = self.rows.iter().filter(|r| !r.passed).count();
        write!(
            f,
            "{} quantities, {failed} outside their tolerance",
            self.rows.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn nan_and_wrong_lengths_fail() {
        let mut report = Report::new("case");
        report.relative("nan", &[1.0, f64::NAN], &[1.0, 1.0], 1.0);
        report.absolute("nan first", &[f64::NAN, 1.0], &[1.0, 1.0], 1.0);
        report.distance("expected nan", &[1.0], &[f64::NAN], 1.0);
        report.largest("length", &[1.0], &[1.0, 1.0], 1.0);
        report.change("unmoved", &[1.0], &[1.0], &[1.0], 0..0, 1.0);
        assert!(report.rows.iter().all(|row| !row.passed), "{report}");
        assert!(!report.passed() && !Report::new("empty").passed());
    }

    #[test]
    fn differences_within_the_tolerance_pass() {
        let mut report = Report::new("case");
        report.relative("relative", &[2.02], &[2.0], 0.011);
        report.change("change", &[0.0, 5.0], &[1.0, 9.0], &[1.1, 0.0], 1..2, 0.1);
        assert!(report.passed(), "{report}");
        report.relative("outside", &[2.03], &[2.0], 0.011);
        assert!(!report.passed());
    }
}
