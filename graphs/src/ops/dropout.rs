//! Dropout by a given mask: kept elements scaled by `1 / (1 − ratio)`, the others 0.

use super::operator::{Kernel, Operator, Vjp};
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
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

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        Ok(vec![inputs[0] * inputs[1] / (1.0 - f64::from(self.ratio))])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        if emitter.has(KernelId::MaskDropout) {
            let ratio = [("ratio", Attribute::Float(self.ratio))];
            emitter.own("MaskDropout", inputs, outputs, ratio);
            return Ok(());
        }
        // The bytes become factors 0 and 1 / (1 − ratio) in one threaded pass, three times as fast on
        // the CPU as DropoutGrad, which has one thread.
        let scale = emitter.float_scalar(1.0 / (1.0 - self.ratio));
        let mut factors = emitter.apply("DequantizeLinear", &[inputs[1].clone(), scale]);
        match emitter.dtype(&inputs[0])? {
            DType::F32 => {}
            low => factors = emitter.convert(&factors, low),
        }
        emitter.standard("Mul", &[inputs[0].clone(), factors], outputs);
        Ok(())
    }

    fn kernel(&self) -> Kernel {
        Kernel::Standard
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
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
}
