//! Derivative of GELU: of (dy, x), with respect to x.

use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use super::broadcast;
use super::gelu::{TANH_CUBIC, TANH_SCALE};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Derivative of GELU: of (dy, x), with respect to x.
#[derive(Debug, Clone, PartialEq)]
pub struct GeluGrad {
    pub approximate: bool,
}

impl Operator for GeluGrad {
    fn name(&self) -> &'static str {
        "GeluGrad"
    }

    fn attributes(&self) -> String {
        if self.approximate { " tanh" } else { "" }.to_owned()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::same_floats(inputs)
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let slope = |x: f64| {
            if self.approximate {
                let t = (TANH_SCALE * (x + TANH_CUBIC * x * x * x)).tanh();
                let inner = TANH_SCALE * (1.0 + 3.0 * TANH_CUBIC * x * x);
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
            } else {
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                0.5 * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)) + x * density
            }
        };
        Ok(vec![inputs[0] * &inputs[1].mapv(slope)])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let kernel = if self.approximate {
            "FastGeluGrad"
        } else {
            "GeluGrad"
        };
        emitter.contrib(kernel, inputs, outputs, []);
        Ok(())
    }

    fn kernel(&self) -> Kernel {
        Kernel::Training
    }
}
