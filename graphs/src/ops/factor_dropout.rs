//! Dropout by a hash of an element's row and column.

use super::operator::{Kernel, Operator, Vjp};
use crate::ir::{Array, Bindings, DType, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};

/// Dropout of `x` `[rows, B, width]` with factors u32 `[rows, B, 1]` and `[width]`: an element is kept,
/// and scaled by `1 / (1 − ratio)`, where their product modulo 2³² is not below `ratio · 2³²`.
#[derive(Debug, Clone, PartialEq)]
pub struct FactorDropout {
    /// Probability of being dropped.
    pub ratio: f32,
}

/// A hash below drops.
fn limit(ratio: f32) -> f64 {
    (f64::from(ratio) * 2f64.powi(32)).round()
}

/// Whether the element of a row and a column with these factors is kept.
pub(super) fn kept(ratio: f32, row: f64, column: f64) -> bool {
    f64::from((row as u32).wrapping_mul(column as u32)) >= limit(ratio)
}

impl FactorDropout {
    fn scale(&self) -> f64 {
        1.0 / (1.0 - f64::from(self.ratio))
    }
}

impl Operator for FactorDropout {
    fn name(&self) -> &'static str {
        "FactorDropout"
    }

    fn attributes(&self) -> String {
        format!(" {}", self.ratio)
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x, rows, columns] = inputs else {
            return Err(format!("takes 3 inputs, not {}", inputs.len()));
        };
        let [r, b, width] = &x.shape[..] else {
            return Err("takes floats [rows, batch, width]".to_owned());
        };
        let of_rows = Type::new(DType::U32, [r.clone(), b.clone(), Dim::from(1)]);
        let of_columns = Type::new(DType::U32, [width.clone()]);
        match x.dtype.is_float() && **rows == of_rows && **columns == of_columns {
            true => Ok(vec![(*x).clone()]),
            false => Err("takes floats and u32 factors of their rows and columns".to_owned()),
        }
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let inputs = [at.grad()?, at.input(1), at.input(2)];
        let grad = graph.apply1(self.clone(), &inputs)?;
        Ok(vec![Some(grad), None, None])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let [x, rows, columns] = inputs else {
            return Err("takes 3 inputs".to_owned());
        };
        let mut y = (*x).clone();
        for (at, value) in y.indexed_iter_mut() {
            let (row, column) = (rows[[at[0], at[1], 0]], columns[[at[2]]]);
            *value *= match kept(self.ratio, row, column) {
                true => self.scale(),
                false => 0.0,
            };
        }
        Ok(vec![y])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let ratio = [("ratio", Attribute::Float(self.ratio))];
        emitter.own(self.name(), inputs, outputs, ratio);
        Ok(())
    }

    fn kernel(&self) -> Kernel {
        Kernel::Own
    }

    fn expand(
        &self,
        graph: &mut Graph,
        inputs: &[ValueId],
    ) -> Result<Option<Vec<ValueId>>, GraphError> {
        let &[x, rows, columns] = inputs else {
            return Err(GraphError::Emit {
                op: self.name(),
                reason: format!("takes 3 inputs, not {}", inputs.len()),
            });
        };
        let hash = graph.wrapping_mul(rows, columns)?;
        // Kept where the hash is at least the limit, so above the number before it.
        let below = (limit(self.ratio) - 1.0).max(0.0);
        let below = graph.constant(DType::U32, &[], [below])?;
        let kept = graph.less(below, hash)?;
        let zero = graph.scalar_like(x, 0.0)?;
        let y = graph.where_select(kept, x, zero)?;
        Ok(Some(vec![graph.scale(y, self.scale())?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn spec() -> Spec {
        let op = FactorDropout { ratio: 0.25 };
        let u32s = |shape: &[usize]| Type::new(DType::U32, shape.iter().map(|&d| Dim::from(d)));
        Spec::default()
            .example(
                Example::of(op.clone())
                    .given(f32([1, 1, 2]), &[3.0, 6.0])
                    .given(u32s(&[1, 1, 1]), &[3.0])
                    // 3 · 5 is below a quarter of 2³², 3 · 2³⁰ is not.
                    .given(u32s(&[2]), &[5.0, f64::from(1 << 30)])
                    .gives(&[1, 1, 2], &[0.0, 8.0])
                    .differentiable(),
            )
            .example(
                Example::of(op.clone())
                    .floats([Dim::from(L), B.into(), 7.into()])
                    .factors([Dim::from(L), B.into(), 1.into()])
                    .factors([7])
                    .differentiable(),
            )
            .rejects(
                op.clone(),
                [f32([2, 3]), u32s(&[2, 1]), u32s(&[3])],
                "[rows, batch, width]",
            )
            .rejects(
                op,
                [f32([2, 3, 4]), u32s(&[2, 3, 1]), u32s(&[3])],
                "factors of their rows",
            )
    }
}
