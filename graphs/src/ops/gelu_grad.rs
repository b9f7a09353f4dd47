//! Derivative of GELU: of (dy, x), with respect to x.

use super::broadcast;
use super::gelu::{TANH_CUBIC, TANH_SCALE, tanh_argument};
use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
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

    fn expand(
        &self,
        graph: &mut Graph,
        inputs: &[ValueId],
    ) -> Result<Option<Vec<ValueId>>, GraphError> {
        let (dy, x) = (inputs[0], inputs[1]);
        let one = graph.scalar_like(x, 1.0)?;
        // Twice the slope, so that its half is one scaling at the end.
        let slope = if self.approximate {
            // 1 + t + x·(1 − t²)·(√(2/π) + 3·√(2/π)·0.044715·x²)
            let argument = tanh_argument(graph, x)?;
            let t = graph.tanh(argument)?;
            let square = graph.mul(x, x)?;
            let square = graph.scale(square, 3.0 * TANH_SCALE * TANH_CUBIC)?;
            let linear = graph.scalar_like(x, TANH_SCALE)?;
            let inner = graph.add(square, linear)?;
            let inner = graph.mul(x, inner)?;
            let above = graph.add(one, t)?;
            let below = graph.sub(one, t)?;
            let rest = graph.mul(below, inner)?;
            let rest = graph.add(rest, one)?;
            graph.mul(above, rest)?
        } else {
            // With u = x/√2: 1 + erf(u) + (2/√π)·u/exp(u²); where exp overflows, the quotient is 0.
            let u = graph.scale(x, std::f64::consts::FRAC_1_SQRT_2)?;
            let erf = graph.erf(u)?;
            let square = graph.mul(u, u)?;
            let inverse = graph.exp(square)?;
            let density = graph.div(u, inverse)?;
            let density = graph.scale(density, std::f64::consts::FRAC_2_SQRT_PI)?;
            let sum = graph.add(erf, density)?;
            graph.add(sum, one)?
        };
        let dx = graph.mul(dy, slope)?;
        Ok(Some(vec![graph.scale(dx, 0.5)?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::gelu::Gelu;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        let of = |approximate| Example::of(GeluGrad { approximate });
        Spec::default()
            .example(of(false).floats([2]).floats([2]).derivative_refused())
            .example(
                of(true)
                    .given(f32([1]), &[3.0])
                    .given(f32([1]), &[0.0])
                    .gives(&[1], &[1.5])
                    .derivative_refused(),
            )
            .rejects(
                GeluGrad { approximate: true },
                [f32([2]), f32([3])],
                "one shape",
            )
    }

    #[test]
    fn it_is_the_derivative_of_gelu() {
        for approximate in [false, true] {
            let x = [-30.0, -3.0, -0.75, 0.0, 0.1, 2.0, 30.0];
            let forward = Example::of(Gelu { approximate }).given(f32([7]), &x);
            let dy = array(&[7], &[1.0, -2.0, 0.5, 3.0, 1.0, -1.0, 2.0]);
            let found = evaluate(
                &GeluGrad { approximate }.into(),
                &[dy.clone(), forward.arrays().remove(0)],
            );
            assert_close(&found[0], &forward.difference(&[Some(dy)], 0), 1e-7, "x");
        }
    }
}
