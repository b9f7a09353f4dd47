//! Broadcasting made explicit.

use super::broadcast;
use super::operator::{Arithmetic, Emitted, Kernel, Operator, Vjp, exactly};
use crate::ir::{Array, Bindings, Cost, Dim, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::Emitter;
use crate::ops::Graph;
use ndarray::IxDyn;

/// The input repeated along its dimensions of size 1 and along new leading ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Expand {
    pub shape: Vec<Dim>,
}

impl Graph {
    /// `x` broadcast to `shape`.
    ///
    /// # Errors
    /// Where it does not broadcast to that shape.
    pub fn expand(
        &mut self,
        x: ValueId,
        shape: impl IntoIterator<Item = Dim>,
    ) -> Result<ValueId, GraphError> {
        let shape: Vec<Dim> = shape.into_iter().collect();
        if self.ty(x).shape == shape {
            return Ok(x);
        }
        self.apply1(Expand { shape }, &[x])
    }
}

impl Operator for Expand {
    fn name(&self) -> &'static str {
        "Expand"
    }

    fn dims(&self) -> Vec<&Dim> {
        self.shape.iter().collect()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = exactly(inputs)?;
        if broadcast::shape(&x.shape, &self.shape)? != self.shape {
            return Err(format!(
                "does not broadcast to {}",
                Type::new(x.dtype, self.shape.clone())
            ));
        }
        Ok(vec![Type::new(x.dtype, self.shape.clone())])
    }

    /// The driver sums over what was repeated.
    fn vjp(&self, _: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(vec![Some(at.grad()?)])
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
        let shape = mpnet_plan::shape(&self.shape, bindings)?;
        let view = inputs[0]
            .broadcast(IxDyn(&shape))
            .ok_or("does not broadcast")?;
        Ok(vec![view.to_owned()])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let shape = emitter.dims(&self.shape)?;
        emitter.standard("Expand", &[inputs[0].clone(), shape], outputs);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn expand() -> Spec {
        let to = |shape: &[Dim]| Expand {
            shape: shape.to_vec(),
        };
        Spec::default()
            .example(
                Example::of(to(&[2.into(), 2.into()]))
                    .given(f32([2, 1]), &[1.0, 2.0])
                    .gives(&[2, 2], &[1.0, 1.0, 2.0, 2.0])
                    .differentiable(),
            )
            .example(
                Example::of(to(&[B.into(), L.into(), 3.into()]))
                    .floats([Dim::from(L), 1.into()])
                    .differentiable(),
            )
            .example(
                Example::of(to(&[B.into(), P.into()]))
                    .floats(SCALAR)
                    .differentiable(),
            )
            .rejects(
                to(&[3.into()]),
                [f32([2])],
                "dimension 0 is 2 in one and 3 in the other",
            )
            .rejects(to(&[1.into()]), [f32([2])], "does not broadcast to f32[1]")
    }
}
