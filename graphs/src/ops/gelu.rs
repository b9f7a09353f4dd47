//! Gaussian error linear unit, exact or by its tanh approximation.

use super::broadcast;
use super::gelu_grad::GeluGrad;
use super::operator::{Kernel, Operator, Vjp};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Gaussian error linear unit, exact or by its tanh approximation.
#[derive(Debug, Clone, PartialEq)]
pub struct Gelu {
    /// `0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))` instead of `x·Φ(x)`.
    pub approximate: bool,
}

impl Graph {
    /// GELU, exact or by its tanh approximation.
    ///
    /// # Errors
    /// Where `x` is not a float.
    pub fn gelu(&mut self, x: ValueId, approximate: bool) -> Result<ValueId, GraphError> {
        self.apply1(Gelu { approximate }, &[x])
    }
}

/// √(2/π)
pub(super) const TANH_SCALE: f64 = 0.797_884_560_802_865_4;
pub(super) const TANH_CUBIC: f64 = 0.044_715;

/// `√(2/π)·(x + 0.044715·x³)`
pub(super) fn tanh_argument(graph: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let square = graph.mul(x, x)?;
    let cubic = graph.scale(square, TANH_SCALE * TANH_CUBIC)?;
    let linear = graph.scalar_like(x, TANH_SCALE)?;
    let factor = graph.add(cubic, linear)?;
    graph.mul(x, factor)
}

impl Operator for Gelu {
    fn name(&self) -> &'static str {
        "Gelu"
    }

    fn attributes(&self) -> String {
        if self.approximate { " tanh" } else { "" }.to_owned()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::unary(inputs)
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let op = GeluGrad {
            approximate: self.approximate,
        };
        Ok(vec![Some(graph.apply1(op, &[at.grad()?, at.input(0)])?)])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let f = |x: f64| match self.approximate {
            true => 0.5 * x * (1.0 + (TANH_SCALE * (x + TANH_CUBIC * x * x * x)).tanh()),
            false => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
        };
        Ok(vec![inputs[0].mapv(f)])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let kernel = if self.approximate { "FastGelu" } else { "Gelu" };
        emitter.contrib(kernel, inputs, outputs, []);
        Ok(())
    }

    fn kernel(&self) -> Kernel {
        Kernel::Contrib
    }

    fn contrib(&self) -> Option<&'static str> {
        Some(if self.approximate { "FastGelu" } else { "Gelu" })
    }

    fn expand(
        &self,
        graph: &mut Graph,
        inputs: &[ValueId],
    ) -> Result<Option<Vec<ValueId>>, GraphError> {
        let x = inputs[0];
        let inner = if self.approximate {
            let argument = tanh_argument(graph, x)?;
            graph.tanh(argument)?
        } else {
            // ONNX Runtime knows the operator in this form, divided, and computes it in one.
            let root = graph.scalar_like(x, std::f64::consts::SQRT_2)?;
            let argument = graph.div(x, root)?;
            graph.erf(argument)?
        };
        let one = graph.scalar_like(x, 1.0)?;
        let gate = graph.add(inner, one)?;
        let y = graph.mul(x, gate)?;
        Ok(Some(vec![graph.scale(y, 0.5)?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        let of = |approximate| Example::of(Gelu { approximate });
        let at = |approximate| {
            of(approximate)
                .given(f32([3]), &[0.0, 1.0, -1.0])
                .differentiable()
        };
        // Φ(1), and its approximation.
        let (exact, tanh) = (0.841_344_746_068_542_9, 0.841_191_990_608_276_8);
        Spec::default()
            .example(at(false).gives(&[3], &[0.0, exact, exact - 1.0]))
            .example(at(true).gives(&[3], &[0.0, tanh, tanh - 1.0]))
            .example(of(false).floats([B, L]).differentiable())
            .example(of(true).floats([B, L]).differentiable())
            .rejects(Gelu { approximate: false }, [i64([2])], "not i64")
    }
}
