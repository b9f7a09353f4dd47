//! Conversion to another element type.

use super::operator::{Arithmetic, Emitted, Kernel, Operator, Vjp};
use crate::ir::{Array, Bindings, Cost, DType, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter, onnx_type};
use crate::ops::Graph;

/// Conversion to another element type.
#[derive(Debug, Clone, PartialEq)]
pub struct Cast {
    pub to: DType,
}

impl Graph {
    /// `x` as elements of type `to`.
    ///
    /// # Errors
    /// Never for one tensor.
    pub fn cast(&mut self, x: ValueId, to: DType) -> Result<ValueId, GraphError> {
        if self.ty(x).dtype == to {
            return Ok(x);
        }
        self.apply1(Cast { to }, &[x])
    }
}

impl Graph {
    /// `x` as elements of the type of `like`.
    ///
    /// # Errors
    /// Never for one tensor.
    pub fn cast_like(&mut self, x: ValueId, like: ValueId) -> Result<ValueId, GraphError> {
        self.cast(x, self.ty(like).dtype)
    }
}

impl Operator for Cast {
    fn name(&self) -> &'static str {
        "Cast"
    }

    fn attributes(&self) -> String {
        format!(" {}", self.to)
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        match inputs {
            [x] => Ok(vec![Type::new(self.to, x.shape.clone())]),
            _ => Err(format!("takes 1 input, not {}", inputs.len())),
        }
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        // Only integers and booleans are cast, and nothing flows through those.
        match graph.ty(at.input(0)).dtype {
            DType::I64 | DType::U32 | DType::U8 | DType::Bool => Ok(vec![None]),
            DType::F32 | DType::BF16 | DType::F16 => Err(GraphError::Derivative {
                op: self.name(),
                reason: "floats are only cast to what has no derivative".to_owned(),
            }),
        }
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Follow
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.moves()
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        Ok(vec![match self.to {
            // Half precision is not rounded here: the interpreter tells what a graph means.
            DType::F32 | DType::BF16 | DType::F16 => inputs[0].clone(),
            DType::I64 | DType::U32 | DType::U8 => inputs[0].mapv(f64::trunc),
            DType::Bool => inputs[0].mapv(|x| f64::from(x != 0.0)),
        }])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let to = i64::from(onnx_type(self.to));
        emitter.standard_with("Cast", inputs, outputs, [("to", Attribute::Int(to))]);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn cast() -> Spec {
        let cast = |to| Example::of(Cast { to });
        Spec::default()
            .example(
                cast(DType::F32)
                    .given(i64([2]), &[3.0, -4.0])
                    .gives(&[2], &[3.0, -4.0])
                    .not_differentiable(),
            )
            .example(
                cast(DType::Bool)
                    .given(i64([3]), &[0.0, 2.0, -1.0])
                    .gives(&[3], &[0.0, 1.0, 1.0])
                    .not_differentiable(),
            )
            .example(
                cast(DType::I64)
                    .given(f32([2]), &[1.7, -1.7])
                    .gives(&[2], &[1.0, -1.0])
                    .derivative_refused(),
            )
    }

    #[test]
    fn a_cast_to_its_own_type_is_none() {
        let mut graph = Graph::new();
        let x = graph.input("x", bool([2]));
        assert_eq!(graph.cast(x, DType::Bool), Ok(x));
        assert!(graph.nodes().is_empty());
    }
}
