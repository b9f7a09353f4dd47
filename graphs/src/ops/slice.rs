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

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = inputs else {
            return Err(format!("takes 1 input, not {}", inputs.len()));
        };
        if self.axis >= x.rank() {
            return Err(format!("has no dimension {}", self.axis));
        }
        let mut ty = (*x).clone();
        ty.shape[self.axis] = self.end.clone() - self.start.clone();
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
        Ok(vec![inputs[0].slice_axis(Axis(self.axis), range).to_owned()])
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
