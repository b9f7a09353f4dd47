//! Dropout by a given mask: kept elements scaled by `1 / (1 − ratio)`, the others 0.

use super::operator::{Arithmetic, Emitted, Expansion, Kernel, Operator, Vjp, exactly, operands};
use crate::ir::{Array, Bindings, Cost, DType, Dim, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use mpnet_plan::KernelId;

/// Dropout by a given mask: kept elements scaled by `1 / (1 − ratio)`, the others 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Dropout {
    /// Probability of being dropped.
    pub ratio: f32,
}

impl Graph {
    /// `x` where `keep` is 1, scaled by `1 / (1 − ratio)`, 0 where it is 0.
    ///
    /// # Errors
    /// Where the mask is not of bytes or not of `x`'s shape.
    pub fn dropout(
        &mut self,
        x: ValueId,
        keep: ValueId,
        ratio: f32,
    ) -> Result<ValueId, GraphError> {
        self.apply1(Dropout { ratio }, &[x, keep])
    }
}

impl Operator for Dropout {
    fn name(&self) -> &'static str {
        "Dropout"
    }

    fn attributes(&self) -> String {
        format!(" {}", self.ratio)
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        match inputs {
            [x, keep] if x.dtype.is_float() && keep.dtype == DType::U8 && x.shape == keep.shape => {
                Ok(vec![(*x).clone()])
            }
            _ => Err("takes floats and a mask of bytes of their shape".to_owned()),
        }
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let grad = graph.dropout(at.grad()?, at.input(1), self.ratio)?;
        Ok(vec![Some(grad), None])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::MaskDropout), Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Follow
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Mask and scale.
        node.flops(2 * node.output(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        Ok(vec![inputs[0] * inputs[1] / (1.0 - f64::from(self.ratio))])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        if emitter.has(KernelId::MaskDropout) {
            let ratio = [("ratio", Attribute::Float(self.ratio))];
            emitter.own(KernelId::MaskDropout, &inputs[0], inputs, outputs, ratio);
            return Ok(());
        }
        // The bytes become factors 0 and 1 / (1 − ratio) in one threaded pass, three times as fast on
        // the CPU as DropoutGrad, which has one thread.
        let scale = emitter.float_scalar(1.0 / (1.0 - self.ratio));
        let bytes = [inputs[1].clone(), scale];
        let mut factors = emitter.apply_as("DequantizeLinear", &bytes, DType::F32);
        match emitter.dtype(&inputs[0])? {
            DType::F32 => {}
            low => factors = emitter.convert(&factors, low),
        }
        emitter.standard("Mul", &[inputs[0].clone(), factors], outputs);
        Ok(())
    }
}

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
        let [x, rows, columns] = exactly(inputs)?;
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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::FactorDropout)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Follow
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Mask and scale.
        node.flops(2 * node.output(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let [x, rows, columns] = exactly(inputs)?;
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

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let ratio = [("ratio", Attribute::Float(self.ratio))];
        emitter.own(KernelId::FactorDropout, &inputs[0], inputs, outputs, ratio);
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let [x, rows, columns] = operands(self.name(), inputs)?;
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

    pub fn dropout() -> Spec {
        let op = Dropout { ratio: 0.75 };
        Spec::default()
            .example(
                Example::of(op.clone())
                    .given(f32([2]), &[3.0, 5.0])
                    .given(u8([2]), &[0.0, 1.0])
                    .gives(&[2], &[0.0, 20.0])
                    .differentiable(),
            )
            .example(
                Example::of(op.clone())
                    .floats([B, L])
                    .bytes([B, L])
                    .differentiable(),
            )
            .rejects(
                op.clone(),
                [f32([2, 3]), u8([3])],
                "mask of bytes of their shape",
            )
            .rejects(op, [f32([2]), bool([2])], "mask of bytes")
    }

    pub fn factor_dropout() -> Spec {
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
