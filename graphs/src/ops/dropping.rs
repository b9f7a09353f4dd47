//! What decides which elements an operator with dropout inside drops.

use super::dropout::Dropout;
use super::dropout::{FactorDropout, kept};
use crate::ir::{Array, DType, Dim, GraphError, Type, ValueId};
use crate::ops::Graph;

/// What decides which elements are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropping {
    Nothing,
    /// A further input, u8 of the elements' shape: 1 where one is kept.
    Mask,
    /// Further inputs, u32, each of some dimensions, broadcast and multiplied modulo 2³²: an element is
    /// kept where the product is not below `ratio · 2³²`.
    Factors,
}

/// Dropout of rows `[R, B, W]` inside an operator, by a mask or by the factors of [`FactorDropout`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowDropout {
    /// Probability of being dropped.
    pub ratio: f32,
    pub dropping: Dropping,
}

impl RowDropout {
    /// The ratio that counts.
    pub(super) fn effective_ratio(&self) -> f32 {
        match self.dropping {
            Dropping::Nothing => 0.0,
            Dropping::Mask | Dropping::Factors => self.ratio,
        }
    }

    pub(super) fn shown(&self) -> String {
        match self.dropping {
            Dropping::Nothing => String::new(),
            Dropping::Mask => format!(" dropout={} by mask", self.ratio),
            Dropping::Factors => format!(" dropout={} by factors", self.ratio),
        }
    }

    /// Checks the further inputs `given` for rows like `x`.
    pub(super) fn check(&self, x: &Type, given: &[&Type]) -> Result<(), String> {
        let [r, b, w] = &x.shape[..] else {
            return Err("takes floats [rows, batch, width]".to_owned());
        };
        let wanted = match self.dropping {
            Dropping::Nothing => vec![],
            Dropping::Mask => vec![Type::new(DType::U8, x.shape.clone())],
            Dropping::Factors => vec![
                Type::new(DType::U32, [r.clone(), b.clone(), Dim::from(1)]),
                Type::new(DType::U32, [w.clone()]),
            ],
        };
        match given.iter().copied().eq(&wanted) {
            true => Ok(()),
            false => Err("dropout's inputs have the wrong shapes".to_owned()),
        }
    }

    /// What elements like those of `x` are multiplied with.
    pub(super) fn multipliers(&self, x: &Array, given: &[&Array]) -> Array {
        let scale = 1.0 / (1.0 - f64::from(self.ratio));
        match (self.dropping, given) {
            (Dropping::Mask, [mask]) => *mask * scale,
            (Dropping::Factors, [rows, columns]) => {
                let mut all = Array::zeros(x.raw_dim());
                for (at, value) in all.indexed_iter_mut() {
                    let (row, column) = (rows[[at[0], at[1], 0]], columns[[at[2]]]);
                    *value = if kept(self.ratio, row, column) {
                        scale
                    } else {
                        0.0
                    };
                }
                all
            }
            _ => Array::ones(x.raw_dim()),
        }
    }

    /// `x` with dropout, in an operator of its own.
    pub(super) fn apply(
        &self,
        graph: &mut Graph,
        x: ValueId,
        given: &[ValueId],
    ) -> Result<ValueId, GraphError> {
        let inputs = [&[x], given].concat();
        let ratio = self.ratio;
        match self.dropping {
            Dropping::Nothing => Ok(x),
            Dropping::Mask => graph.apply1(Dropout { ratio }, &inputs),
            Dropping::Factors => graph.apply1(FactorDropout { ratio }, &inputs),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::Example;

    /// No dropout, and dropout in each way.
    pub(in crate::ops) const ALL: [RowDropout; 3] = [
        dropout(Dropping::Nothing),
        dropout(Dropping::Mask),
        dropout(Dropping::Factors),
    ];

    const fn dropout(dropping: Dropping) -> RowDropout {
        RowDropout {
            ratio: 0.25,
            dropping,
        }
    }

    /// Adds the further inputs for rows `[r, b, w]`.
    pub(in crate::ops) fn given(
        dropout: RowDropout,
        [r, b, w]: [Dim; 3],
        example: Example,
    ) -> Example {
        match dropout.dropping {
            Dropping::Nothing => example,
            Dropping::Mask => example.bytes([r, b, w]),
            Dropping::Factors => example.factors([r, b, 1.into()]).factors([w]),
        }
    }
}
