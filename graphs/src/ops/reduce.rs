//! Sums over dimensions.

use super::broadcast;
use super::operator::{Arithmetic, Emitted, Expansion, Kernel, Operator, Vjp, exactly, operands};
use crate::ir::{Array, Bindings, Cost, DType, Dim, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use mpnet_plan::KernelId;
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
        let [x] = exactly(inputs)?;
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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Follow
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.flops(node.input(0))
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

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
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

/// The sum of all rows `[.., n]`, `[n]`, by a kernel that adds them up in one order.
#[derive(Debug, Clone, PartialEq)]
pub struct SumRows;

impl Operator for SumRows {
    fn name(&self) -> &'static str {
        "SumRows"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = exactly(inputs)?;
        match &x.shape[..] {
            [_, .., columns] if x.dtype.is_float() => {
                Ok(vec![Type::new(x.dtype, [columns.clone()])])
            }
            _ => Err("takes rows of floats".to_owned()),
        }
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::SumRows)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Follow
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.flops(node.input(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let [x] = exactly(inputs)?;
        let mut sum = (*x).clone();
        while sum.ndim() > 1 {
            sum = sum.sum_axis(Axis(0));
        }
        Ok(vec![sum])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        emitter.own(KernelId::SumRows, &inputs[0], inputs, outputs, []);
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let [x] = operands(self.name(), inputs)?;
        let axes: Vec<usize> = (0..graph.ty(x).rank() - 1).collect();
        Ok(Some(vec![graph.reduce_sum(x, &axes, false)?]))
    }
}

/// Sum of the squares of all elements, for the norm of the gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct SumSquares;

impl Operator for SumSquares {
    fn name(&self) -> &'static str {
        "SumSquares"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::unary(inputs)?;
        Ok(vec![Type::f32([])])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::SumSquares), Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Full
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.flops(2 * node.input(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        Ok(vec![
            ndarray::arr0(inputs[0].mapv(|x| x * x).sum()).into_dyn(),
        ])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        match emitter.has(KernelId::SumSquares) {
            true => emitter.own(KernelId::SumSquares, &inputs[0], inputs, outputs, []),
            false => emitter.total("ReduceSumSquare", inputs, outputs),
        }
        Ok(())
    }
}

/// Index of the largest element along the last dimension; the first of equals.
#[derive(Debug, Clone, PartialEq)]
pub struct ArgMax;

impl Graph {
    /// Index of the largest element along the last dimension.
    ///
    /// # Errors
    /// Where `x` has no dimension.
    pub fn argmax(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(ArgMax, &[x])
    }
}

impl Operator for ArgMax {
    fn name(&self) -> &'static str {
        "ArgMax"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = exactly(inputs)?;
        if x.dtype == DType::Bool {
            return Err("takes numbers, not bool".to_owned());
        }
        let Some((_, rows)) = x.shape.split_last() else {
            return Err("takes a tensor with dimensions".to_owned());
        };
        Ok(vec![Type::new(DType::I64, rows.iter().cloned())])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(vec![None])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Full
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.flops(node.input(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let last = Axis(inputs[0].ndim() - 1);
        let best = inputs[0].map_axis(last, |lane| {
            let mut best = 0;
            for (i, x) in lane.iter().enumerate() {
                if *x > lane[best] {
                    best = i;
                }
            }
            best as f64
        });
        Ok(vec![best])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        emitter.standard_with(
            "ArgMax",
            inputs,
            outputs,
            [
                ("axis", Attribute::Int(-1)),
                ("keepdims", Attribute::Int(0)),
            ],
        );
        Ok(())
    }
}

/// Running totals of whole numbers along the last dimension, each with its own element.
#[derive(Debug, Clone, PartialEq)]
pub struct CumSum;

impl Graph {
    /// Running totals of `x` along its last dimension.
    ///
    /// # Errors
    /// Where `x` has no dimension or is not i64.
    pub fn cumsum(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(CumSum, &[x])
    }
}

impl Operator for CumSum {
    fn name(&self) -> &'static str {
        "CumSum"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = exactly(inputs)?;
        if x.dtype != DType::I64 {
            return Err(format!("counts in i64, not {}", x.dtype));
        }
        if x.rank() == 0 {
            return Err("takes a tensor with dimensions".to_owned());
        }
        Ok(vec![(*x).clone()])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(vec![None])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Full
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.flops(node.input(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let mut totals = inputs[0].clone();
        let last = Axis(totals.ndim() - 1);
        totals.accumulate_axis_inplace(last, |before, x| *x += before);
        Ok(vec![totals])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let inputs = [inputs[0].clone(), emitter.index_scalar(-1)];
        emitter.standard("CumSum", &inputs, outputs);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    use proptest::prelude::*;

    pub fn reduce_sum() -> Spec {
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

    pub fn sum_rows() -> Spec {
        Spec::default()
            .example(
                Example::of(SumRows)
                    .given(f32([1, 2, 2]), &[1.0, 2.0, 30.0, 40.0])
                    .gives(&[2], &[31.0, 42.0])
                    .derivative_refused(),
            )
            .rejects(SumRows, [f32([3])], "rows of floats")
            .rejects(SumRows, [i64([3, 2])], "rows of floats")
    }

    pub fn sum_squares() -> Spec {
        Spec::default()
            .example(
                Example::of(SumSquares)
                    .given(f32([2, 2]), &[1.0, -2.0, 3.0, -4.0])
                    .gives(&[], &[30.0])
                    .derivative_refused(),
            )
            .rejects(SumSquares, [i64([2])], "not i64")
    }

    pub fn argmax() -> Spec {
        Spec::default()
            .example(
                Example::of(ArgMax)
                    .given(f32([2, 3]), &[1.0, 3.0, 3.0, 5.0, 2.0, 5.0])
                    .gives(&[2], &[1.0, 0.0])
                    .not_differentiable(),
            )
            .example(Example::of(ArgMax).floats([B, L, P]).not_differentiable())
            .rejects(ArgMax, [f32(SCALAR)], "with dimensions")
            .rejects(ArgMax, [bool([3])], "not bool")
    }

    pub fn cumsum() -> Spec {
        Spec::default()
            .example(
                Example::of(CumSum)
                    .given(i64([2, 3]), &[1.0, 0.0, 2.0, -1.0, 1.0, 1.0])
                    .gives(&[2, 3], &[1.0, 1.0, 3.0, -1.0, 0.0, 1.0])
                    .not_differentiable(),
            )
            .example(
                Example::of(CumSum)
                    .indices([B, L, P], 9)
                    .not_differentiable(),
            )
            .rejects(CumSum, [i64(SCALAR)], "with dimensions")
            .rejects(CumSum, [f32([3])], "not f32")
    }
}
