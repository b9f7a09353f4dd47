//! Layer normalization over the last dimension, with the statistics its derivative reads.

use super::matmul::MatMul;
use super::operator::{
    Arithmetic, Emitted, Expansion, Feature, Kernel, Operator, Vjp, exactly, operands,
};
use crate::ir::{Array, Bindings, Cost, Dim, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use mpnet_plan::KernelId;
use ndarray::Axis;

/// Layer normalization over the last dimension, with the statistics its derivative reads.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm {
    pub epsilon: f32,
}

impl Graph {
    /// `(x − mean) / √(variance + epsilon) · scale + bias` over the last dimension.
    ///
    /// # Errors
    /// Where scale and bias are not as long as that dimension.
    pub fn layer_norm(
        &mut self,
        x: ValueId,
        scale: ValueId,
        bias: ValueId,
        epsilon: f32,
    ) -> Result<ValueId, GraphError> {
        self.apply1(LayerNorm { epsilon }, &[x, scale, bias])
    }
}

impl Operator for LayerNorm {
    fn name(&self) -> &'static str {
        "LayerNorm"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x, scale, bias] = exactly(inputs)?;
        let Some((last, rows)) = x.shape.split_last() else {
            return Err("takes a tensor with dimensions".to_owned());
        };
        if !x.dtype.is_float() || inputs.iter().any(|t| t.dtype != x.dtype) {
            return Err("takes floats of one type".to_owned());
        }
        if scale.shape != [last.clone()] || bias.shape != [last.clone()] {
            return Err(format!("scale and bias must be [{last}]"));
        }
        let statistics = Type::f32(rows.iter().cloned().chain([Dim::from(1)]));
        Ok(vec![(*x).clone(), statistics.clone(), statistics])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let inputs = [
            at.grad()?,
            at.input(0),
            at.input(1),
            at.output(1),
            at.output(2),
        ];
        let grads = graph.apply(LayerNormGrad, &inputs)?;
        Ok(grads.into_iter().map(Some).collect())
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![
            Kernel::Own(KernelId::LayerNormalization),
            Kernel::Feature(Feature::LayerNormStatistics),
        ]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Stream
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Mean, subtract, variance (2), normalize, scale, shift.
        node.flops(7 * node.input(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let last = Axis(inputs[0].ndim() - 1);
        let mean = inputs[0]
            .mean_axis(last)
            .ok_or("empty dimension")?
            .insert_axis(last);
        let centred = inputs[0] - &mean;
        let variance = (&centred * &centred)
            .mean_axis(last)
            .ok_or("empty dimension")?;
        let inverse = variance
            .mapv(|v| 1.0 / (v + f64::from(self.epsilon)).sqrt())
            .insert_axis(last);
        let y = &centred * &inverse * inputs[1] + inputs[2];
        Ok(vec![y, mean, inverse])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let kernel = KernelId::LayerNormalization;
        let epsilon = ("epsilon", Attribute::Float(self.epsilon));
        if emitter.has(kernel) {
            emitter.own(kernel, &inputs[0], inputs, outputs, [epsilon]);
        } else {
            let rest = [
                ("axis", Attribute::Int(-1)),
                epsilon,
                ("stash_type", Attribute::Int(1)),
            ];
            emitter.standard_with(kernel.op_type(), inputs, outputs, rest);
        }
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let [x, scale, bias] = operands(self.name(), inputs)?;
        let output = LayerNormOutput {
            epsilon: self.epsilon,
        };
        let y = graph.apply1(output, &[x, scale, bias])?;
        let last = graph.ty(x).rank().saturating_sub(1);
        let size = graph.ty(x).shape.get(last).and_then(Dim::as_const);
        let Some(size) = size else {
            return Err(GraphError::Emit {
                op: self.name(),
                reason: "the normalised dimension has no fixed size".to_owned(),
            });
        };
        let share = 1.0 / size as f64;
        let sum = graph.reduce_sum(x, &[last], true)?;
        let mean = graph.scale(sum, share)?; // [.., 1]
        let centred = graph.sub(x, mean)?;
        let square = graph.mul(centred, centred)?;
        let sum = graph.reduce_sum(square, &[last], true)?;
        let variance = graph.scale(sum, share)?;
        let epsilon = graph.scalar_like(x, f64::from(self.epsilon))?;
        let variance = graph.add(variance, epsilon)?;
        let deviation = graph.sqrt(variance)?;
        let one = graph.scalar_like(x, 1.0)?;
        let inverse = graph.div(one, deviation)?; // [.., 1]
        Ok(Some(vec![y, mean, inverse]))
    }
}

/// The first output of [`LayerNorm`].
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNormOutput {
    pub epsilon: f32,
}

impl LayerNormOutput {
    fn whole(&self) -> LayerNorm {
        LayerNorm {
            epsilon: self.epsilon,
        }
    }
}

impl Operator for LayerNormOutput {
    fn name(&self) -> &'static str {
        "LayerNormOutput"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let mut outputs = self.whole().infer(inputs)?;
        outputs.truncate(1);
        Ok(outputs)
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::LayerNormalization), Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Stream
    }

    fn cost(&self, node: &Operands) -> Cost {
        // As the whole.
        node.flops(7 * node.input(0))
    }

    fn evaluate(&self, bindings: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let mut outputs = self.whole().evaluate(bindings, inputs)?;
        outputs.truncate(1);
        Ok(outputs)
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        self.whole().emit(emitter, inputs, outputs)
    }
}

/// Derivative of layer normalization with respect to its input, scale and bias.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNormGrad;

impl Operator for LayerNormGrad {
    fn name(&self) -> &'static str {
        "LayerNormGrad"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [dy, x, scale, mean, inverse] = exactly(inputs)?;
        let Some((last, rows)) = x.shape.split_last() else {
            return Err("takes tensors with dimensions".to_owned());
        };
        let statistics = Type::f32(rows.iter().cloned().chain([Dim::from(1)]));
        if dy != x || !x.dtype.is_float() || mean.shape != statistics.shape || mean != inverse {
            return Err("gradient, input and statistics do not fit".to_owned());
        }
        if **scale != Type::f32([last.clone()]) {
            return Err(format!("scale must be [{last}]"));
        }
        Ok(vec![(*x).clone(), (*scale).clone(), (*scale).clone()])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![
            Kernel::Own(KernelId::LayerNormalizationGrad),
            Kernel::Training("LayerNormalizationGrad"),
        ]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Stream
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Normalize (2), scale's gradient (2), bias's, scaled gradient, two means (3), result (4).
        node.flops(13 * node.input(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let [dy, x, scale, mean, inverse] = exactly(inputs)?;
        let last = Axis(x.ndim() - 1);
        let normal = (*x - *mean) * *inverse;
        let rows = |a: Array| (0..x.ndim() - 1).fold(a, |a, _| a.sum_axis(Axis(0)));
        let dscale = rows(*dy * &normal);
        let dbias = rows((*dy).clone());
        let g = *dy * *scale;
        let mean_of = |a: &Array| a.mean_axis(last).map(|m| m.insert_axis(last));
        let a = mean_of(&g).ok_or("empty dimension")?;
        let b = mean_of(&(&g * &normal)).ok_or("empty dimension")?;
        let dx = (g - a - normal * b) * *inverse;
        Ok(vec![dx, dscale, dbias])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let axis = [("axis", Attribute::Int(-1))];
        let kernel = KernelId::LayerNormalizationGrad;
        if emitter.has(kernel) {
            emitter.own(kernel, &inputs[0], inputs, outputs, axis);
        } else {
            emitter.contrib(kernel.op_type(), inputs, outputs, axis);
        }
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let [dy, x, scale, mean, inverse] = operands(self.name(), inputs)?;
        let rank = graph.ty(x).rank();
        let width = graph.ty(x).shape[rank - 1].clone();
        let Some(size) = width.as_const() else {
            return Err(GraphError::Emit {
                op: self.name(),
                reason: "the normalised dimension has no fixed size".to_owned(),
            });
        };
        let rows: Vec<usize> = (0..rank - 1).collect();
        let (mean, inverse) = (graph.cast_like(mean, x)?, graph.cast_like(inverse, x)?);
        let centred = graph.sub(x, mean)?;
        let normal = graph.mul(centred, inverse)?;
        let product = graph.mul(dy, normal)?;
        let dscale = graph.reduce_sum(product, &rows, false)?;
        let dbias = graph.reduce_sum(dy, &rows, false)?;
        // Means over a row weighted by the scale are products with one column.
        let column = graph.reshape(scale, [width, 1.into()])?;
        let column = graph.scale(column, 1.0 / size as f64)?;
        let plain = MatMul::default;
        let a = graph.matmul(dy, column, plain())?; // [.., 1]
        let b = graph.matmul(product, column, plain())?; // [.., 1]
        let scaled = graph.mul(dy, scale)?;
        let along = graph.mul(normal, b)?;
        let rest = graph.sub(scaled, along)?;
        let rest = graph.sub(rest, a)?;
        let dx = graph.mul(rest, inverse)?;
        Ok(Some(vec![dx, dscale, dbias]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn layer_norm() -> Spec {
        let op = LayerNorm { epsilon: 0.25 };
        let of = || Example::of(op.clone());
        // Mean 3, variance 1, so that 1 / √(1 + 1/4) is the inverse deviation.
        let inverse = 1.0 / 1.25f64.sqrt();
        Spec::default()
            .example(
                of().given(f32([1, 2]), &[2.0, 4.0])
                    .given(f32([2]), &[1.0, 10.0])
                    .given(f32([2]), &[0.0, 5.0])
                    .gives(&[1, 2], &[-inverse, 10.0 * inverse + 5.0])
                    .gives(&[1, 1], &[3.0])
                    .gives(&[1, 1], &[inverse])
                    .differentiable(),
            )
            .example(
                of().floats([Dim::from(B), P.into(), 4.into()])
                    .floats([4])
                    .floats([4])
                    .differentiable(),
            )
            // The statistics are for the derivative alone.
            .example(
                of().floats([2, 3])
                    .floats([3])
                    .floats([3])
                    .reading(&[0, 1])
                    .derivative_refused(),
            )
            .rejects(op.clone(), [f32([2, 3]), f32([2]), f32([3])], "must be [3]")
            .rejects(
                op.clone(),
                [f32(SCALAR), f32([1]), f32([1])],
                "with dimensions",
            )
            .rejects(op.clone(), [f32([3]), i64([3]), f32([3])], "takes floats")
    }

    pub fn layer_norm_output() -> Spec {
        let op = LayerNormOutput { epsilon: 0.25 };
        let inverse = 1.0 / 1.25f64.sqrt();
        Spec::default()
            .example(
                Example::of(op.clone())
                    .given(f32([1, 2]), &[2.0, 4.0])
                    .given(f32([2]), &[1.0, 10.0])
                    .given(f32([2]), &[0.0, 5.0])
                    .gives(&[1, 2], &[-inverse, 10.0 * inverse + 5.0])
                    .derivative_refused(),
            )
            .rejects(op, [f32([2, 3]), f32([2]), f32([3])], "must be [3]")
    }

    pub fn layer_norm_grad() -> Spec {
        let statistics = || f32([2, 1]);
        Spec::default()
            .example(
                Example::of(LayerNormGrad)
                    .floats([2, 3])
                    .floats([2, 3])
                    .floats([3])
                    .floats([2, 1])
                    .floats([2, 1])
                    .derivative_refused(),
            )
            .rejects(
                LayerNormGrad,
                [
                    f32([2, 3]),
                    f32([2, 4]),
                    f32([3]),
                    statistics(),
                    statistics(),
                ],
                "gradient, input and statistics do not fit",
            )
            .rejects(
                LayerNormGrad,
                [
                    f32([2, 3]),
                    f32([2, 3]),
                    f32([2]),
                    statistics(),
                    statistics(),
                ],
                "scale must be [3]",
            )
            .rejects(
                LayerNormGrad,
                [f32([2, 3]), f32([2, 3]), f32([3]), f32([3, 1]), f32([3, 1])],
                "gradient, input and statistics do not fit",
            )
    }

    #[test]
    fn it_is_the_derivative_of_layer_norm() {
        let forward = Example::of(LayerNorm { epsilon: 1e-5 })
            .floats([2, 3, 5])
            .floats([5])
            .floats([5]);
        let dy = Example::seeded(LayerNormGrad, 1)
            .floats([2, 3, 5])
            .arrays()
            .remove(0);
        let [x, scale, _] = &forward.arrays()[..] else {
            unreachable!("three inputs were given")
        };
        let [_, mean, inverse] = &forward.evaluate()[..] else {
            unreachable!("three outputs")
        };
        let inputs = [&dy, x, scale, mean, inverse].map(Clone::clone);
        let found = evaluate(&LayerNormGrad.into(), &inputs);
        for (i, grad) in found.iter().enumerate() {
            let expected = forward.difference(&[Some(dy.clone()), None, None], i);
            assert_close(grad, &expected, 1e-7, &format!("input {i}"));
        }
    }
}
