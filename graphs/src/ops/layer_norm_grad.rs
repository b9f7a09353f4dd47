//! Derivative of layer normalization with respect to its input, scale and bias.

use super::matmul::MatMul;
use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use ndarray::Axis;

/// Derivative of layer normalization with respect to its input, scale and bias.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNormGrad;

impl Operator for LayerNormGrad {
    fn name(&self) -> &'static str {
        "LayerNormGrad"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [dy, x, scale, mean, inverse] = inputs else {
            return Err(format!("takes 5 inputs, not {}", inputs.len()));
        };
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

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let [dy, x, scale, mean, inverse] = inputs else {
            return Err("takes 5 inputs".to_owned());
        };
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

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.contrib(
            "LayerNormalizationGrad",
            inputs,
            outputs,
            [("axis", Attribute::Int(-1))],
        );
        Ok(())
    }

    fn kernel(&self) -> Kernel {
        Kernel::Training
    }

    fn expand(
        &self,
        graph: &mut Graph,
        inputs: &[ValueId],
    ) -> Result<Option<Vec<ValueId>>, GraphError> {
        let &[dy, x, scale, mean, inverse] = inputs else {
            return Err(GraphError::Emit {
                op: self.name(),
                reason: format!("takes 5 inputs, not {}", inputs.len()),
            });
        };
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
    use crate::ops::layer_norm::LayerNorm;
    use crate::ops::testing::*;

    pub fn spec() -> Spec {
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
