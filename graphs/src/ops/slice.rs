//! A range along one dimension.

use super::operator::{Arithmetic, Emitted, Kernel, Operator, Vjp, exactly};
use crate::ir::{Array, Bindings, Cost, DType, Dim, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use ndarray::{Axis, IxDyn, Slice as Range};

/// Elements `start..end` along `axis`.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    pub axis: usize,
    pub start: Dim,
    pub end: Dim,
}

impl Graph {
    /// `x[start..end]` along `axis`.
    ///
    /// # Errors
    /// Where there is no such axis.
    pub fn slice(
        &mut self,
        x: ValueId,
        axis: usize,
        start: Dim,
        end: Dim,
    ) -> Result<ValueId, GraphError> {
        if start.is(0) && self.ty(x).shape.get(axis) == Some(&end) {
            return Ok(x);
        }
        self.apply1(Slice { axis, start, end }, &[x])
    }
}

impl Operator for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn attributes(&self) -> String {
        format!(" axis={} {}..{}", self.axis, self.start, self.end)
    }

    fn dims(&self) -> Vec<&Dim> {
        vec![&self.start, &self.end]
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = exactly(inputs)?;
        if self.axis >= x.rank() {
            return Err(format!("has no dimension {}", self.axis));
        }
        let whole = &x.shape[self.axis];
        let len = self.end.clone() - self.start.clone();
        let rest = whole.clone() - self.end.clone();
        if self.start.is_negative() || len.is_negative() || rest.is_negative() {
            return Err(format!(
                "{}..{} is no range of {whole}",
                self.start, self.end
            ));
        }
        let mut ty = (*x).clone();
        ty.shape[self.axis] = len;
        Ok(vec![ty])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let pad = Pad {
            axis: self.axis,
            before: self.start.clone(),
            after: graph.ty(at.input(0)).shape[self.axis].clone() - self.end.clone(),
        };
        Ok(vec![Some(graph.apply1(pad, &[at.grad()?])?)])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Move
    }

    fn cost(&self, node: &Operands) -> Cost {
        Cost {
            flops: 0,
            bytes: 2 * node.written(),
        }
    }

    fn evaluate(&self, bindings: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let (start, end) = (self.start.eval(bindings)?, self.end.eval(bindings)?);
        if start < 0 || end < start || end as usize > inputs[0].shape()[self.axis] {
            return Err(format!("{start}..{end} is out of range"));
        }
        let range = Range::from(start as usize..end as usize);
        Ok(vec![
            inputs[0].slice_axis(Axis(self.axis), range).to_owned(),
        ])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let start = emitter.dims(std::slice::from_ref(&self.start))?;
        let end = emitter.dims(std::slice::from_ref(&self.end))?;
        let axes = emitter.indices(&[self.axis as i64]);
        emitter.standard("Slice", &[inputs[0].clone(), start, end, axes], outputs);
        Ok(())
    }
}

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
            let zero = emitter.temporary(DType::BF16);
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
        let [x] = exactly(inputs)?;
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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Move
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.moves()
    }

    fn evaluate(&self, bindings: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let (before, after) = (self.before.eval(bindings)?, self.after.eval(bindings)?);
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

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
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
    use proptest::prelude::*;

    fn range(axis: usize, start: impl Into<Dim>, end: impl Into<Dim>) -> Slice {
        let (start, end) = (start.into(), end.into());
        Slice { axis, start, end }
    }

    pub fn slice() -> Spec {
        let beyond = Dim::from(L) + 1.into();
        Spec::default()
            .example(
                Example::of(range(1, 1, 3))
                    .given(f32([2, 3]), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
                    .gives(&[2, 2], &[2.0, 3.0, 5.0, 6.0])
                    .differentiable(),
            )
            .example(
                Example::of(range(0, Dim::from(L) - P.into(), L))
                    .floats([Dim::from(L), 2.into()])
                    .differentiable(),
            )
            .rejects(range(1, 0, 1), [f32([2])], "no dimension 1")
            .rejects(range(0, 2, 1), [f32([2])], "2..1 is no range of 2")
            .rejects(range(0, 0, 3), [f32([2])], "0..3 is no range of 2")
            .rejects(range(0, 0, beyond), [f32([L])], "0..L+1 is no range of L")
    }

    #[test]
    fn a_range_that_does_not_fit_the_sizes_is_an_error() {
        let outputs = range(0, L, P).evaluate(&SIZES, &[&array(&[6], &[0.0; 6])]);
        assert_eq!(outputs, Err("5..3 is out of range".to_owned()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_range_has_its_gradient(
            shape in prop::collection::vec(1..4usize, 1..4),
            axis: prop::sample::Index,
            [from, to]: [prop::sample::Index; 2],
            seed: u64,
        ) {
            let axis = axis.index(shape.len());
            let ends = [from, to].map(|end| end.index(shape[axis] + 1));
            let op = range(axis, ends[0].min(ends[1]), ends[0].max(ends[1]));
            Example::seeded(op, seed).floats(shape).differentiable().check();
        }
    }

    pub fn pad() -> Spec {
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
