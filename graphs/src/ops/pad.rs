//! Zeros before and after along one dimension: the derivative of [`Slice`].

use super::operator::{Operator, Vjp};
use super::slice::Slice;
use crate::ir::{Array, Bindings, DType, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use ndarray::{Axis, IxDyn, Slice as Range};

/// `before` zeros, the input, `after` zeros along `axis`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pad {
    pub axis: usize,
    pub before: Dim,
    pub after: Dim,
}

impl Pad {
    /// Pad has no bf16 kernels, on any provider; Concat has.
    fn emit_by_concatenation(
        &self,
        emitter: &mut Emitter,
        x: &str,
        outputs: &[String],
    ) -> Result<(), String> {
        let shape = emitter.shape(x)?;
        let mut zeros = |size: &Dim| -> Result<Option<String>, String> {
            if size.is(0) {
                return Ok(None);
            }
            let mut shape = shape.clone();
            shape[self.axis] = size.clone();
            let zero = emitter.temporary();
            emitter.initializer(&zero, DType::BF16, &[], &[0.0]);
            let shape = emitter.dims(&shape)?;
            Ok(Some(emitter.apply("Expand", &[zero, shape])))
        };
        let (before, after) = (zeros(&self.before)?, zeros(&self.after)?);
        let parts: Vec<String> = before
            .into_iter()
            .chain([x.to_owned()])
            .chain(after)
            .collect();
        let axis = [("axis", Attribute::Int(self.axis as i64))];
        emitter.standard_with("Concat", &parts, outputs, axis);
        Ok(())
    }
}

impl Operator for Pad {
    fn name(&self) -> &'static str {
        "Pad"
    }

    fn attributes(&self) -> String {
        format!(" axis={} {}, {}", self.axis, self.before, self.after)
    }

    fn dims(&self) -> Vec<&Dim> {
        vec![&self.before, &self.after]
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = inputs else {
            return Err(format!("takes 1 input, not {}", inputs.len()));
        };
        if self.axis >= x.rank() {
            return Err(format!("has no dimension {}", self.axis));
        }
        if self.before.is_negative() || self.after.is_negative() {
            return Err("pads by less than nothing".to_owned());
        }
        let mut ty = (*x).clone();
        let dim = &mut ty.shape[self.axis];
        *dim = dim.clone() + self.before.clone() + self.after.clone();
        Ok(vec![ty])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let slice = Slice {
            axis: self.axis,
            start: self.before.clone(),
            end: self.before.clone() + graph.ty(at.input(0)).shape[self.axis].clone(),
        };
        Ok(vec![Some(graph.apply1(slice, &[at.grad()?])?)])
    }

    fn evaluate(&self, bindings: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let (before, after) = (self.before.eval(bindings), self.after.eval(bindings));
        if before < 0 || after < 0 {
            return Err(format!("pads by {before} and {after}"));
        }
        let mut shape = inputs[0].shape().to_vec();
        let start = before as usize;
        let end = start + shape[self.axis];
        shape[self.axis] = end + after as usize;
        let mut out = Array::zeros(IxDyn(&shape));
        out.slice_axis_mut(Axis(self.axis), Range::from(start..end))
            .assign(inputs[0]);
        Ok(vec![out])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        if emitter.dtype(&inputs[0])? == DType::BF16 {
            return self.emit_by_concatenation(emitter, &inputs[0], outputs);
        }
        // ONNX lists the padding before every dimension, then that after every dimension.
        let rank = emitter.rank(&inputs[0])?;
        let mut pads = vec![Dim::from(0); 2 * rank];
        pads[self.axis] = self.before.clone();
        pads[rank + self.axis] = self.after.clone();
        let pads = emitter.dims(&pads)?;
        emitter.standard("Pad", &[inputs[0].clone(), pads], outputs);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        let pad = |axis, before: Dim, after: Dim| Pad {
            axis,
            before,
            after,
        };
        Spec::default()
            .example(
                Example::of(pad(1, 1.into(), 2.into()))
                    .given(f32([2, 1]), &[3.0, 4.0])
                    .gives(&[2, 4], &[0.0, 3.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0])
                    .differentiable(),
            )
            .example(
                Example::of(pad(0, L.into(), Dim::from(L) - P.into()))
                    .floats([Dim::from(B), 2.into()])
                    .differentiable(),
            )
            .rejects(pad(1, 0.into(), 1.into()), [f32([2])], "no dimension 1")
            .rejects(
                pad(0, 0.into(), Dim::from(1) - 2.into()),
                [f32([2])],
                "by less than nothing",
            )
    }

    #[test]
    fn negative_padding_is_an_error() {
        let pad = Pad {
            axis: 0,
            before: 0.into(),
            after: Dim::from(P) - L.into(),
        };
        let outputs = pad.evaluate(&SIZES, &[&array(&[3], &[0.0; 3])]);
        assert_eq!(outputs, Err("pads by 0 and -2".to_owned()));
    }
}
