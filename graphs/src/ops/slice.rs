//! A range along one dimension.

use super::operator::{Operator, Vjp};
use super::pad::Pad;
use crate::ir::{Array, Bindings, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;
use ndarray::{Axis, Slice as Range};

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
        let [x] = inputs else {
            return Err(format!("takes 1 input, not {}", inputs.len()));
        };
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

    fn evaluate(&self, bindings: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let (start, end) = (self.start.eval(bindings), self.end.eval(bindings));
        if start < 0 || end < start || end as usize > inputs[0].shape()[self.axis] {
            return Err(format!("{start}..{end} is out of range"));
        }
        let range = Range::from(start as usize..end as usize);
        Ok(vec![
            inputs[0].slice_axis(Axis(self.axis), range).to_owned(),
        ])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let start = emitter.dims(std::slice::from_ref(&self.start))?;
        let end = emitter.dims(std::slice::from_ref(&self.end))?;
        let axes = emitter.indices(&[self.axis as i64]);
        emitter.standard("Slice", &[inputs[0].clone(), start, end, axes], outputs);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    use proptest::prelude::*;

    fn slice(axis: usize, start: impl Into<Dim>, end: impl Into<Dim>) -> Slice {
        let (start, end) = (start.into(), end.into());
        Slice { axis, start, end }
    }

    pub fn spec() -> Spec {
        let beyond = Dim::from(L) + 1.into();
        Spec::default()
            .example(
                Example::of(slice(1, 1, 3))
                    .given(f32([2, 3]), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
                    .gives(&[2, 2], &[2.0, 3.0, 5.0, 6.0])
                    .differentiable(),
            )
            .example(
                Example::of(slice(0, Dim::from(L) - P.into(), L))
                    .floats([Dim::from(L), 2.into()])
                    .differentiable(),
            )
            .rejects(slice(1, 0, 1), [f32([2])], "no dimension 1")
            .rejects(slice(0, 2, 1), [f32([2])], "2..1 is no range of 2")
            .rejects(slice(0, 0, 3), [f32([2])], "0..3 is no range of 2")
            .rejects(slice(0, 0, beyond), [f32([L])], "0..L+1 is no range of L")
    }

    #[test]
    fn a_range_that_does_not_fit_the_sizes_is_an_error() {
        let outputs = slice(0, L, P).evaluate(&SIZES, &[&array(&[6], &[0.0; 6])]);
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
            let op = slice(axis, ends[0].min(ends[1]), ends[0].max(ends[1]));
            Example::seeded(op, seed).floats(shape).differentiable().check();
        }
    }
}
