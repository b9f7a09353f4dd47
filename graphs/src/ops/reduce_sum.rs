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
        format!(
            " {:?}{}",
            self.axes,
            if self.keep_dims { " kept" } else { "" }
        )
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = inputs else {
            return Err(format!("takes 1 input, not {}", inputs.len()));
        };
        match x.dtype {
            DType::F32 | DType::BF16 | DType::F16 | DType::I64 => {}
            DType::U32 | DType::U8 | DType::Bool => {
                return Err(format!("does not sum {}", x.dtype));
            }
        }
        if self.axes.is_empty() || !self.axes.is_sorted_by(|a, b| a < b) {
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
        let inputs = [inputs[0].clone(), emitter.indices(&axes)];
        if !self.keep_dims && emitter.rank(&inputs[0])? == axes.len() {
            emitter.total("ReduceSum", &inputs, outputs);
            return Ok(());
        }
        emitter.standard_with(
            "ReduceSum",
            &inputs,
            outputs,
            [("keepdims", Attribute::Int(i64::from(self.keep_dims)))],
        );
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    use proptest::prelude::*;

    pub fn spec() -> Spec {
        let sum = |axes: &[usize], keep_dims| ReduceSum {
            axes: axes.to_vec(),
            keep_dims,
        };
        let values = [1.0, 2.0, 3.0, 4.0];
        let of = |op| Example::of(op).given(f32([2, 2]), &values).differentiable();
        Spec::default()
            .example(of(sum(&[0], false)).gives(&[2], &[4.0, 6.0]))
            .example(of(sum(&[1], true)).gives(&[2, 1], &[3.0, 7.0]))
            .example(of(sum(&[0, 1], false)).gives(&[], &[10.0]))
            .example(
                Example::of(sum(&[0, 2], false))
                    .floats([B, L, P])
                    .differentiable(),
            )
            .rejects(sum(&[], false), [f32([2])], "ascending")
            .rejects(sum(&[1, 0], false), [f32([2, 2])], "ascending")
            .rejects(sum(&[0, 0], false), [f32([2, 2])], "ascending")
            .rejects(sum(&[1], false), [f32([2])], "all of the dimensions [1]")
            .rejects(sum(&[0], false), [bool([2])], "does not sum bool")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_dimensions_have_their_gradients(
            dims in prop::collection::vec((1..4usize, any::<bool>()), 1..4),
            keep_dims: bool,
            seed: u64,
        ) {
            let axes: Vec<usize> = (0..dims.len()).filter(|&i| dims[i].1).collect();
            prop_assume!(!axes.is_empty());
            let shape = dims.into_iter().map(|(size, _)| size);
            let op = ReduceSum { axes, keep_dims };
            Example::seeded(op, seed).floats(shape).differentiable().check();
        }
    }
}
