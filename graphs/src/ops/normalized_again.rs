//! Normalized rows once more, from what a residual normalization kept for its derivative.

use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use super::residual_norm::parts;
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// The rows of [`super::residual_norm::ResidualNorm`] like its `branch`, from its sum `[R, B, D]`, mean and
/// inverse deviation f32 `[R, B, 1]`, scale and shift f32 `[D]`.
///
/// A last input, of floats that are not read, says after what: computed earlier, the rows would have to
/// be kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormalizedAgain;

impl Operator for NormalizedAgain {
    fn name(&self) -> &'static str {
        "NormalizedAgain"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [sum, mean, inverse, scale, shift, after] = inputs else {
            return Err(format!("takes 6 inputs, not {}", inputs.len()));
        };
        let (vector, statistics) = parts(sum)?;
        if **mean != statistics || **inverse != statistics {
            return Err("sum and statistics do not fit".to_owned());
        }
        if **scale != vector || **shift != vector {
            return Err(format!("scale and shift must be {vector}"));
        }
        match after.dtype.is_float() {
            true => Ok(vec![(*sum).clone()]),
            false => Err("what it waits for must be floats".to_owned()),
        }
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let [sum, mean, inverse, scale, shift, _] = inputs else {
            return Err("takes 6 inputs".to_owned());
        };
        Ok(vec![(*sum - *mean) * *inverse * *scale + *shift])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.own(self.name(), inputs, outputs, []);
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
        let &[sum, mean, inverse, scale, shift, _] = inputs else {
            return Err(GraphError::Emit {
                op: self.name(),
                reason: format!("takes 6 inputs, not {}", inputs.len()),
            });
        };
        let wide = graph.cast(sum, DType::F32)?;
        let centred = graph.sub(wide, mean)?;
        let normal = graph.mul(centred, inverse)?;
        let scaled = graph.mul(normal, scale)?;
        let shifted = graph.add(scaled, shift)?;
        Ok(Some(vec![graph.cast_like(shifted, sum)?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn spec() -> Spec {
        let types = |mean: Type, scale: Type, after: Type| {
            [f32([1, 1, 2]), mean, f32([1, 1, 1]), scale, f32([2]), after]
        };
        Spec::default()
            .example(
                Example::of(NormalizedAgain)
                    .given(f32([1, 1, 2]), &[3.0, 5.0])
                    .given(f32([1, 1, 1]), &[4.0])
                    .given(f32([1, 1, 1]), &[0.5])
                    .given(f32([2]), &[1.0, 10.0])
                    .given(f32([2]), &[0.0, 7.0])
                    .given(f32([3]), &[1.0, 2.0, 3.0])
                    .gives(&[1, 1, 2], &[-0.5, 12.0])
                    .derivative_refused(),
            )
            .rejects(
                NormalizedAgain,
                types(f32([1, 1, 2]), f32([2]), f32([1])),
                "statistics do not fit",
            )
            .rejects(
                NormalizedAgain,
                types(f32([1, 1, 1]), f32([3]), f32([1])),
                "scale and shift must be",
            )
            .rejects(
                NormalizedAgain,
                types(f32([1, 1, 1]), f32([2]), i64([1])),
                "must be floats",
            )
    }
}
