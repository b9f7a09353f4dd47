//! The same elements under another shape.

use super::operator::{Arithmetic, Emitted, Kernel, Operator, Vjp, exactly};
use crate::ir::{Array, Bindings, Cost, Dim, GraphError, Operands, Storage, Type, ValueId};
use crate::onnx::emitter::Emitter;
use crate::ops::Graph;
use ndarray::IxDyn;

/// The same elements, in the same order, under another shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Reshape {
    pub shape: Vec<Dim>,
}

impl Graph {
    /// `x` with another shape of as many elements.
    ///
    /// # Errors
    /// Where the number of elements differs.
    pub fn reshape(
        &mut self,
        x: ValueId,
        shape: impl IntoIterator<Item = Dim>,
    ) -> Result<ValueId, GraphError> {
        let shape: Vec<Dim> = shape.into_iter().collect();
        if self.ty(x).shape == shape {
            return Ok(x);
        }
        self.apply1(Reshape { shape }, &[x])
    }

    /// `[…, N]` as the matrix `[rows, N]`.
    ///
    /// # Errors
    /// Never for a tensor with dimensions.
    pub fn flatten_rows(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
        let shape = &self.ty(x).shape;
        let Some((last, rows)) = shape.split_last() else {
            return self.reshape(x, [Dim::from(1), Dim::from(1)]);
        };
        let shape = [Dim::product(rows), last.clone()];
        self.reshape(x, shape)
    }
}

impl Operator for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }

    fn dims(&self) -> Vec<&Dim> {
        self.shape.iter().collect()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = exactly(inputs)?;
        if Dim::product(&x.shape) != Dim::product(&self.shape) {
            return Err(format!(
                "cannot become {}",
                Type::new(x.dtype, self.shape.clone())
            ));
        }
        Ok(vec![Type::new(x.dtype, self.shape.clone())])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let shape = graph.ty(at.input(0)).shape.clone();
        Ok(vec![Some(graph.reshape(at.grad()?, shape)?)])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Move
    }

    fn cost(&self, _: &Operands) -> Cost {
        // Another view of what is there.
        Cost::default()
    }

    fn storage(&self) -> Storage {
        Storage::OfInput
    }

    fn evaluate(&self, bindings: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let shape = mpnet_plan::shape(&self.shape, bindings)?;
        let x = inputs[0].as_standard_layout().into_owned();
        let x = x
            .into_shape_with_order(IxDyn(&shape))
            .map_err(|e| e.to_string())?;
        Ok(vec![x])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        if self.shape.is_empty() {
            emitter.scalar(&inputs[0], outputs);
            return Ok(());
        }
        emitter.reshape(&inputs[0], &self.shape, outputs)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn reshape() -> Spec {
        let to = |shape: &[Dim]| Reshape {
            shape: shape.to_vec(),
        };
        let rows = Dim::from(B) * L.into();
        Spec::default()
            .example(
                Example::of(to(&[3.into(), 1.into(), 2.into()]))
                    .given(f32([2, 3]), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
                    .gives(&[3, 1, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
                    .differentiable(),
            )
            .example(
                Example::of(to(&[rows.clone(), 3.into()]))
                    .floats([Dim::from(L), B.into(), 3.into()])
                    .differentiable(),
            )
            .example(Example::of(to(&[])).floats([1, 1]).differentiable())
            .rejects(to(&[5.into()]), [f32([2, 3])], "cannot become f32[5]")
            .rejects(to(&[rows]), [f32([B, P])], "cannot become f32[BL]")
    }
}
