//! Sizes that are known only when a batch arrives: symbols, polynomials in them, and their values.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Mul, Sub};

use crate::{Tensor, TensorData};

/// A size that is known only when a batch arrives. What is trained decides which symbols its graph has and
/// declares those that are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(&'static str);

impl Symbol {
    /// B, rows of the batch.
    pub const BATCH: Self = Self::new("B");
    /// L, tokens of a row.
    pub const LENGTH: Self = Self::new("L");
    /// P, predicted tokens of a row.
    pub const PREDICTED: Self = Self::new("P");

    /// The symbol with these letters; equal letters are one symbol.
    pub const fn new(letters: &'static str) -> Self {
        Self(letters)
    }

    /// The letters used in shapes.
    pub fn letters(self) -> &'static str {
        self.0
    }
}

/// Most symbols of one graph.
const MOST_SYMBOLS: usize = 8;

/// A size for each symbol of a graph: those of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bindings {
    /// The first `len` count.
    sizes: [(Symbol, usize); MOST_SYMBOLS],
    len: usize,
}

impl Bindings {
    /// These sizes, each symbol's once.
    pub const fn new<const N: usize>(sizes: [(Symbol, usize); N]) -> Self {
        const { assert!(N <= MOST_SYMBOLS) };
        let mut all = [(Symbol(""), 0); MOST_SYMBOLS];
        let mut index = 0;
        while index < N {
            all[index] = sizes[index];
            index += 1;
        }
        Self { sizes: all, len: N }
    }

    /// The size of `symbol`; none where it is not bound.
    pub fn get(&self, symbol: Symbol) -> Option<usize> {
        let sizes = self.sizes[..self.len].iter();
        sizes
            .copied()
            .find_map(|(bound, size)| (bound == symbol).then_some(size))
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
    ///
    /// # Errors
    /// Naming a symbol that they don't bind.
    pub fn eval(&self, bindings: &Bindings) -> Result<i64, Unbound> {
        let size = |symbol| bindings.get(symbol).ok_or(Unbound(symbol));
        let product = |(symbols, c): (&Vec<Symbol>, &i64)| {
            let mut symbols = symbols.iter();
            symbols.try_fold(*c, |product, &symbol| Ok(product * size(symbol)? as i64))
        };
        self.terms.iter().map(product).sum()
    }

    /// The symbols in it, some of them more than once.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol> {
        self.terms.keys().flatten().copied()
    }

    /// Products of symbols with their coefficients; the constant has no symbols.
    pub fn terms(&self) -> impl Iterator<Item = (&[Symbol], i64)> {
        self.terms.iter().map(|(s, &c)| (s.as_slice(), c))
    }

    /// The product of many dimensions.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Self {
        dims.into_iter().fold(Dim::from(1), |a, b| a * b.clone())
    }

    fn combine(mut self, other: &Dim, sign: i64) -> Self {
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
    fn from(n: usize) -> Self {
        let mut dim = Self::default();
        if n != 0 {
            dim.terms.insert(Vec::new(), n as i64);
        }
        dim
    }
}

/// A size that a batch does not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the batch gives no size {}", .0.letters())]
pub struct Unbound(pub Symbol);

/// For rules that say their refusals in words.
impl From<Unbound> for String {
    fn from(unbound: Unbound) -> String {
        unbound.to_string()
    }
}

impl From<Symbol> for Dim {
    fn from(symbol: Symbol) -> Self {
        Dim {
            terms: BTreeMap::from([(vec![symbol], 1)]),
        }
    }
}

impl Add for Dim {
    type Output = Dim;
    fn add(self, other: Dim) -> Self {
        self.combine(&other, 1)
    }
}

impl Sub for Dim {
    type Output = Dim;
    fn sub(self, other: Dim) -> Self {
        self.combine(&other, -1)
    }
}

impl Mul for Dim {
    type Output = Dim;
    fn mul(self, other: Dim) -> Self {
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
            let letters: String = symbols.iter().map(|s| s.letters()).collect();
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

/// An input of sizes, i64, computed by the caller instead of by the model: a provider for accelerators would leave
/// the nodes that compute them to the processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeInput {
    /// Name of the model's input.
    pub name: String,
    /// Its elements.
    pub dims: Vec<Dim>,
    /// Whether it has no dimensions; otherwise its shape is `[dims.len()]`.
    pub scalar: bool,
}

impl SizeInput {
    /// The input for a batch of these sizes.
    ///
    /// # Errors
    /// Naming a size that is not among them.
    pub fn tensor(&self, sizes: &Bindings) -> Result<Tensor, Unbound> {
        let dims = self.dims.iter().map(|dim| dim.eval(sizes));
        Ok(Tensor {
            name: self.name.clone(),
            shape: if self.scalar {
                Vec::new()
            } else {
                vec![self.dims.len()]
            },
            data: TensorData::I64(dims.collect::<Result<_, _>>()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_polynomials_are_equal_and_print_alike() {
        let (l, p) = (Dim::from(Symbol::LENGTH), Dim::from(Symbol::PREDICTED));
        let s = l.clone() + p.clone();
        let q = s.clone() + p.clone();
        assert_eq!(q.clone() - p.clone(), s);
        assert_eq!(q.to_string(), "L+2P");
        assert_eq!((s.clone() * q.clone()), q.clone() * s.clone());
        assert_eq!((l.clone() - l).as_const(), Some(0));
        let sizes = Bindings::new([(Symbol::LENGTH, 10), (Symbol::PREDICTED, 3)]);
        assert_eq!((s * q).eval(&sizes), Ok(13 * 16));
    }

    #[test]
    fn a_task_has_symbols_of_its_own() {
        let pairs = Symbol::new("N");
        let sizes = Bindings::new([(pairs, 7), (Symbol::BATCH, 2)]);
        assert_eq!(sizes.get(Symbol::new("N")), Some(7));
        assert_eq!(sizes.get(Symbol::LENGTH), None);
        let both = Dim::from(pairs) * Dim::from(Symbol::BATCH);
        assert_eq!(both.eval(&sizes), Ok(14));
        let input = SizeInput {
            name: "size.0".to_owned(),
            dims: vec![both.clone() + Dim::from(Symbol::LENGTH)],
            scalar: false,
        };
        let lacking = input.tensor(&sizes).expect_err("L is not among them");
        assert_eq!(lacking.to_string(), "the batch gives no size L");
        assert_eq!(both.to_string(), "BN");
        assert_eq!(both.symbols().collect::<Vec<_>>(), [Symbol::BATCH, pairs]);
    }
}
