//! Several texts read as one: each text comes from one of them, drawn by their weights.
//!
//! The draw depends on the seed and on how many texts came before, so that it goes on after a resume as if
//! never interrupted. Every part goes through its own epochs; there is none of the whole.

use crate::data::error::{DataError, Result};
use crate::data::rng::{Purpose, below, keyed};

use super::order::{Cursor, Next, Order};

/// What comes next, and where its part stands after it.
pub type Placed = (Next, Place);

/// A part of a mixture, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub part: usize,
    pub cursor: Cursor,
}

/// Texts without end, of one part or of several.
pub struct Mixture {
    parts: Vec<Order>,
    /// For each part, the draw from which on it is a later one's turn.
    limits: Vec<u32>,
    seed: u64,
}

impl Mixture {
    /// The parts with their weights, which are above 0.
    ///
    /// # Errors
    /// When a weight is none.
    pub fn new(parts: Vec<(Order, f64)>, seed: u64) -> Result<Self> {
        let all: f64 = parts.iter().map(|(_, weight)| weight).sum();
        let usable = |weight: f64| weight.is_finite() && weight > 0.0;
        if parts.is_empty() || !all.is_finite() || !parts.iter().all(|(_, w)| usable(*w)) {
            return Err(DataError::Loader {
                problem: "the weights of a mixture must be above 0".into(),
            });
        }
        let mut sum = 0.0;
        let mut limits = Vec::new();
        for (_, weight) in &parts {
            sum += weight / all;
            limits.push((sum * f64::from(u32::MAX)) as u32);
        }
        // Whatever was rounded, the last part takes the rest.
        limits.pop();
        Ok(Self {
            parts: parts.into_iter().map(|(order, _)| order).collect(),
            limits,
            seed,
        })
    }

    /// The part whose turn it is.
    fn draw(&self) -> usize {
        if self.limits.is_empty() {
            return 0;
        }
        let texts = self.parts.iter().map(|part| part.cursor().texts).sum();
        let mut rng = keyed(self.seed, Purpose::Mixture, 0, texts);
        let drawn = below(&mut rng, u32::MAX);
        self.limits.partition_point(|&limit| limit <= drawn)
    }

    /// The next text, or the end of a part's epoch.
    ///
    /// # Errors
    /// Those of [`Order::next`].
    pub fn next(&mut self) -> Result<Placed> {
        let part = self.draw();
        let order = &mut self.parts[part];
        let next = order.next()?;
        let cursor = order.cursor();
        Ok((next, Place { part, cursor }))
    }
}
