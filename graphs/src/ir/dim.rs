//! Symbolic dimensions: polynomials with integer coefficients over the batch's sizes.

use super::bindings::Bindings;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Mul, Sub};

/// A size that is known only when a batch arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Symbol {
    /// B, rows of the batch.
    Batch,
    /// L, tokens of a row.
    Length,
    /// P, predicted tokens of a row.
    Predicted,
}

impl Symbol {
    /// The letter used in shapes.
    pub fn letter(self) -> &'static str {
        match self {
            Symbol::Batch => "B",
            Symbol::Length => "L",
            Symbol::Predicted => "P",
        }
    }
}

/// One dimension, in a canonical form: two dimensions are equal when they are equal for every size.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dim {
    /// Sorted product of symbols → coefficient, never 0. The constant term has the empty product.
    terms: BTreeMap<Vec<Symbol>, i64>,
}

impl Dim {
    /// The number, if no symbol is involved.
    pub fn as_const(&self) -> Option<usize> {
        match self.terms.len() {
            0 => Some(0),
            1 => self
                .terms
                .get(&Vec::new())
                .and_then(|&c| usize::try_from(c).ok()),
            _ => None,
        }
    }

    /// Whether this is the number `n` whatever the sizes.
    pub fn is(&self, n: usize) -> bool {
        self.as_const() == Some(n)
    }

    /// Whether this is below 0 whatever the sizes, which are at least 1.
    pub fn is_negative(&self) -> bool {
        !self.terms.is_empty() && self.terms.values().all(|&c| c < 0)
    }

    /// The size under `bindings`.
    pub fn eval(&self, bindings: &Bindings) -> i64 {
        self.terms
            .iter()
            .map(|(symbols, c)| symbols.iter().fold(*c, |p, &s| p * bindings.get(s) as i64))
            .sum()
    }

    /// Products of symbols with their coefficients; the constant has no symbols.
    pub fn terms(&self) -> impl Iterator<Item = (&[Symbol], i64)> {
        self.terms.iter().map(|(s, &c)| (s.as_slice(), c))
    }

    /// The product of many dimensions.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::from(1), |a, b| a * b.clone())
    }

    fn combine(mut self, other: &Dim, sign: i64) -> Dim {
        for (symbols, c) in &other.terms {
            let entry = self.terms.entry(symbols.clone()).or_default();
            *entry += sign * c;
            if *entry == 0 {
                self.terms.remove(symbols);
            }
        }
        self
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        let mut dim = Dim::default();
        if n != 0 {
            dim.terms.insert(Vec::new(), n as i64);
        }
        dim
    }
}

impl From<Symbol> for Dim {
    fn from(symbol: Symbol) -> Dim {
        Dim {
            terms: BTreeMap::from([(vec![symbol], 1)]),
        }
    }
}

impl Add for Dim {
    type Output = Dim;
    fn add(self, other: Dim) -> Dim {
        self.combine(&other, 1)
    }
}

impl Sub for Dim {
    type Output = Dim;
    fn sub(self, other: Dim) -> Dim {
        self.combine(&other, -1)
    }
}

impl Mul for Dim {
    type Output = Dim;
    fn mul(self, other: Dim) -> Dim {
        let mut product = Dim::default();
        for (a, x) in &self.terms {
            for (b, y) in &other.terms {
                let mut symbols = [a.as_slice(), b.as_slice()].concat();
                symbols.sort_unstable();
                let term = Dim {
                    terms: BTreeMap::from([(symbols, x * y)]),
                };
                product = product + term;
            }
        }
        product
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        // Symbols first, the constant last: `L + 2P + 1`.
        let (constant, symbolic): (Vec<_>, Vec<_>) =
            self.terms.iter().partition(|(s, _)| s.is_empty());
        for (i, (symbols, c)) in symbolic.into_iter().chain(constant).enumerate() {
            let letters: String = symbols.iter().map(|s| s.letter()).collect();
            match (i, *c < 0) {
                (0, false) => {}
                (0, true) => f.write_str("-")?,
                (_, false) => f.write_str("+")?,
                (_, true) => f.write_str("-")?,
            }
            let c = c.unsigned_abs();
            if c != 1 || letters.is_empty() {
                write!(f, "{c}")?;
            }
            f.write_str(&letters)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_polynomials_are_equal_and_print_alike() {
        let (l, p) = (Dim::from(Symbol::Length), Dim::from(Symbol::Predicted));
        let s = l.clone() + p.clone();
        let q = s.clone() + p.clone();
        assert_eq!(q.clone() - p.clone(), s);
        assert_eq!(q.to_string(), "L+2P");
        assert_eq!((s.clone() * q.clone()), q.clone() * s.clone());
        assert_eq!((l.clone() - l).as_const(), Some(0));
        let sizes = Bindings {
            batch: 2,
            length: 10,
            predicted: 3,
        };
        assert_eq!((s * q).eval(&sizes), 13 * 16);
    }
}
