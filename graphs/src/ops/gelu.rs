//! Gaussian error linear unit, exact or by its tanh approximation.

use super::broadcast;
use super::operator::{Arithmetic, Emitted, Expansion, Kernel, Operator, Vjp};
use crate::ir::{Array, Bindings, Cost, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use mpnet_plan::KernelId;

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

/// The opset that has GELU as an operator of the standard.
pub const GELU_OPSET: i64 = 20;

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

impl Gelu {
    /// The type of ONNX Runtime's operator.
    fn kernel(&self) -> &'static str {
        if self.approximate { "FastGelu" } else { "Gelu" }
    }
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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Contrib(self.kernel())]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Follow
    }

    fn cost(&self, node: &Operands) -> Cost {
        // x/√2, erf, + 1, · x, / 2; the cubic's three more and tanh for erf.
        node.flops(if self.approximate { 8 } else { 5 } * node.output(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let f = |x: f64| match self.approximate {
            true => 0.5 * x * (1.0 + (TANH_SCALE * (x + TANH_CUBIC * x * x * x)).tanh()),
            false => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
        };
        Ok(vec![inputs[0].mapv(f)])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        if emitter.export_opset >= Some(GELU_OPSET) {
            let form = if self.approximate { "tanh" } else { "none" };
            let form = [("approximate", Attribute::Text(form))];
            emitter.standard_with("Gelu", inputs, outputs, form);
        } else {
            emitter.contrib(self.kernel(), inputs, outputs, []);
        }
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
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

/// Derivative of GELU: of (dy, x), with respect to x.
#[derive(Debug, Clone, PartialEq)]
pub struct GeluGrad {
    pub approximate: bool,
}

impl GeluGrad {
    /// Our kernel, whose operator is of the same type as that of training builds.
    fn kernel(&self) -> KernelId {
        if self.approximate {
            KernelId::FastGeluGrad
        } else {
            KernelId::GeluGrad
        }
    }
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

    fn kernels(&self) -> Vec<Kernel> {
        vec![
            Kernel::Own(self.kernel()),
            Kernel::Training(self.kernel().op_type()),
        ]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Follow
    }

    fn cost(&self, node: &Operands) -> Cost {
        // The distribution (4), the density (4), their sum, times dy; the cubic's more.
        node.flops(if self.approximate { 17 } else { 11 } * node.output(0))
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

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let kernel = self.kernel();
        if emitter.has(kernel) {
            emitter.own(kernel, &inputs[0], inputs, outputs, []);
        } else {
            emitter.contrib(kernel.op_type(), inputs, outputs, []);
        }
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
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
    use crate::ops::testing::*;

    pub fn gelu() -> Spec {
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

    pub fn gelu_grad() -> Spec {
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
