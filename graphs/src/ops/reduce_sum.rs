//! Sums over dimensions.

use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, DType, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use ndarray::Axis;

/// The sum over `axes` (ascending), which stay as dimensions of size 1 if `keep_dims`.
#[derive(Debug, Clone, PartialEq)]
pub struct ReduceSum {
    pub axes: Vec<usize>,
    pub keep_dims: bool,
}

impl Graph {
    /// `x` summed over `axes`.
    ///
    /// # Errors
    /// Where `x` has no such dimension.
    pub fn reduce_sum(
        &mut self,
        x: ValueId,
        axes: &[usize],
        keep_dims: bool,
    ) -> Result<ValueId, GraphError> {
        let op = ReduceSum {
            axes: axes.to_vec(),
            keep_dims,
        };
        self.apply1(op, &[x])
    }
}

impl Operator for ReduceSum {
    fn name(&self) -> &'static str {
        "ReduceSum"
    }

    fn attributes(&self) -> String {
        format!(" {:?}", self.axes)
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = inputs else {
            return Err(format!("takes 1 input, not {}", inputs.len()));
        };
        if x.dtype == DType::Bool {
            return Err("does not sum booleans".to_owned());
        }
        if self.axes.is_empty() || !self.axes.is_sorted() {
            return Err("needs ascending dimensions".to_owned());
        }
        if self.axes.iter().any(|&a| a >= x.rank()) {
            return Err(format!("has not all of the dimensions {:?}", self.axes));
        }
        let mut shape = Vec::new();
        for (i, dim) in x.shape.iter().enumerate() {
            match (self.axes.contains(&i), self.keep_dims) {
                (false, _) => shape.push(dim.clone()),
                (true, true) => shape.push(Dim::from(1)),
                (true, false) => {}
            }
        }
        Ok(vec![Type::new(x.dtype, shape)])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let shape = graph.ty(at.input(0)).shape.clone();
        let mut kept = shape.clone();
        for &axis in &self.axes {
            kept[axis] = Dim::from(1);
        }
        let grad = graph.reshape(at.grad()?, kept)?;
        Ok(vec![Some(graph.expand(grad, shape)?)])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let mut x = inputs[0].clone();
        for &axis in self.axes.iter().rev() {
            x = x.sum_axis(Axis(axis));
            if self.keep_dims {
                x = x.insert_axis(Axis(axis));
            }
        }
        Ok(vec![x])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let axes: Vec<i64> = self.axes.iter().map(|&a| a as i64).collect();
        let axes = emitter.indices(&axes);
        emitter.standard_with(
            "ReduceSum",
            &[inputs[0].clone(), axes],
            outputs,
            [("keepdims", Attribute::Int(i64::from(self.keep_dims)))],
        );
        Ok(())
    }
}
