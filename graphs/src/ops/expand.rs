//! Broadcasting made explicit.

use super::broadcast;
use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;
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

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = inputs else {
            return Err(format!("takes 1 input, not {}", inputs.len()));
        };
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

    fn evaluate(&self, bindings: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let shape: Vec<usize> = self.shape.iter().map(|d| d.eval(bindings) as usize).collect();
        let view = inputs[0].broadcast(IxDyn(&shape)).ok_or("does not broadcast")?;
        Ok(vec![view.to_owned()])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let shape = emitter.dims(&self.shape)?;
        emitter.standard("Expand", &[inputs[0].clone(), shape], outputs);
        Ok(())
    }
}
