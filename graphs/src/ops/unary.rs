//! Elementwise functions of one float, a declaration each, and the rectifier's derivative.

use super::broadcast;
use super::operator::{Arithmetic, Emitted, Expansion, Kernel, Operator, Vjp};
use crate::ir::{Array, Bindings, Cost, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::Emitter;
use crate::ops::Graph;
use ndarray::Zip;

/// The gradient of a function's input.
type Derivative = fn(&mut Graph, &Vjp) -> Result<ValueId, GraphError>;

/// Declares operators that apply a function to every element: the operator, which is ONNX's of the same
/// name, the graph's method, the function, its cost in flops and its derivative.
macro_rules! unary {
    ($(
        $(#[$doc:meta])*
        $name:ident, $method:ident: $function:expr, $flops:literal flops, $derivative:expr;
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name;

        impl Graph {
            $(#[$doc])*
            ///
            /// # Errors
            /// Where `x` is not a float.
            pub fn $method(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
                self.apply1($name, &[x])
            }
        }

        impl Operator for $name {
            fn name(&self) -> &'static str {
                stringify!($name)
            }

            fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
                broadcast::unary(inputs)
            }

            fn kernels(&self) -> Vec<Kernel> {
                vec![Kernel::Standard]
            }

            fn arithmetic(&self) -> Arithmetic {
                Arithmetic::Follow
            }

            fn cost(&self, node: &Operands) -> Cost {
                node.flops($flops * node.output(0))
            }

            fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
                let derivative: Option<Derivative> = $derivative;
                match derivative {
                    Some(derivative) => Ok(vec![Some(derivative(graph, at)?)]),
                    None => Err(at.refused()),
                }
            }

            fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
                Ok(vec![inputs[0].mapv($function)])
            }

            fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
                emitter.standard(self.name(), inputs, outputs);
                Ok(())
            }
        }
    )*};
}

unary! {
    /// The exponential.
    Exp, exp: f64::exp, 1 flops, Some(|graph, at| graph.mul(at.grad()?, at.output(0)));

    /// The error function; only in the expansion of GELU and of its derivative.
    Erf, erf: libm::erf, 1 flops, None;

    /// The square root.
    Sqrt, sqrt: f64::sqrt, 1 flops, Some(sqrt_gradient);

    /// The hyperbolic tangent.
    Tanh, tanh: f64::tanh, 1 flops, Some(tanh_gradient);

    /// The logistic function.
    Sigmoid, sigmoid: |x| 1.0 / (1.0 + (-x).exp()), 4 flops, Some(sigmoid_gradient);

    /// The rectifier, max(x, 0).
    Relu, relu: |x| x.max(0.0), 1 flops,
        Some(|graph, at| graph.apply1(ReluGrad, &[at.grad()?, at.output(0)]));
}

/// `½ · dy / y`
fn sqrt_gradient(graph: &mut Graph, at: &Vjp) -> Result<ValueId, GraphError> {
    let half = graph.scalar(0.5)?;
    let grad = graph.mul(at.grad()?, half)?;
    graph.div(grad, at.output(0))
}

/// `dy · (1 − y²)`
fn tanh_gradient(graph: &mut Graph, at: &Vjp) -> Result<ValueId, GraphError> {
    let (grad, y) = (at.grad()?, at.output(0));
    let square = graph.mul(y, y)?;
    let one = graph.scalar(1.0)?;
    let slope = graph.sub(one, square)?;
    graph.mul(grad, slope)
}

/// `dy · y · (1 − y)`
fn sigmoid_gradient(graph: &mut Graph, at: &Vjp) -> Result<ValueId, GraphError> {
    let (grad, y) = (at.grad()?, at.output(0));
    let one = graph.scalar(1.0)?;
    let rest = graph.sub(one, y)?;
    let slope = graph.mul(y, rest)?;
    graph.mul(grad, slope)
}

/// Derivative of the rectifier: `dy` where its output `y` is positive.
#[derive(Debug, Clone, PartialEq)]
pub struct ReluGrad;

impl Operator for ReluGrad {
    fn name(&self) -> &'static str {
        "ReluGrad"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::same_floats(inputs)
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Training("ReluGrad")]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Follow
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.flops(node.output(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let mut dx = inputs[0].clone();
        Zip::from(&mut dx).and(inputs[1]).for_each(|d, &y| {
            if y <= 0.0 {
                *d = 0.0;
            }
        });
        Ok(vec![dx])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        emitter.contrib("ReluGrad", inputs, outputs, []);
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let (dy, y) = (inputs[0], inputs[1]);
        let zero = graph.scalar_like(y, 0.0)?;
        let positive = graph.less(zero, y)?;
        Ok(Some(vec![graph.where_select(positive, dy, zero)?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn exp() -> Spec {
        Spec::default()
            .example(
                Example::of(Exp)
                    .given(f32([2]), &[0.0, 1.0])
                    .gives(&[2], &[1.0, std::f64::consts::E])
                    .differentiable(),
            )
            .rejects(Exp, [i64([2])], "not i64")
    }

    pub fn erf() -> Spec {
        Spec::default()
            .example(
                Example::of(Erf)
                    .given(f32([3]), &[0.0, 40.0, -40.0])
                    .gives(&[3], &[0.0, 1.0, -1.0])
                    .derivative_refused(),
            )
            .rejects(Erf, [i64([2])], "not i64")
    }

    pub fn sqrt() -> Spec {
        Spec::default()
            .example(
                Example::of(Sqrt)
                    .given(f32([2]), &[0.0, 2.25])
                    .gives(&[2], &[0.0, 1.5])
                    .derivative_unchecked(),
            )
            .example(
                Example::of(Sqrt)
                    .given(f32([3]), &[0.5, 1.0, 9.0])
                    .differentiable(),
            )
            .rejects(Sqrt, [i64([2])], "not i64")
    }

    pub fn tanh() -> Spec {
        Spec::default()
            .example(
                Example::of(Tanh)
                    .given(f32([3]), &[0.0, 2f64.ln(), -800.0])
                    .gives(&[3], &[0.0, 0.6, -1.0])
                    .differentiable(),
            )
            .example(Example::of(Tanh).floats([B, L]).differentiable())
            .rejects(Tanh, [bool([2])], "not bool")
    }

    pub fn sigmoid() -> Spec {
        Spec::default()
            .example(
                Example::of(Sigmoid)
                    .given(f32([3]), &[0.0, 3f64.ln(), -800.0])
                    .gives(&[3], &[0.5, 0.75, 0.0])
                    .differentiable(),
            )
            .example(Example::of(Sigmoid).floats([B, L]).differentiable())
            .rejects(Sigmoid, [i64([2])], "not i64")
    }

    pub fn relu() -> Spec {
        Spec::default()
            .example(
                Example::of(Relu)
                    .given(f32([2]), &[-2.0, 3.0])
                    .gives(&[2], &[0.0, 3.0])
                    .differentiable(),
            )
            .example(Example::of(Relu).floats([B, L]).differentiable())
            .rejects(Relu, [i64([2])], "not i64")
    }

    pub fn relu_grad() -> Spec {
        Spec::default()
            // 0 at the kink, as PyTorch has it.
            .example(
                Example::of(ReluGrad)
                    .given(f32([3]), &[5.0, 6.0, 7.0])
                    .given(f32([3]), &[0.0, 2.0, -1.0])
                    .gives(&[3], &[0.0, 6.0, 0.0])
                    .derivative_refused(),
            )
            .rejects(ReluGrad, [f32([2]), f32([3])], "one shape")
    }

    #[test]
    fn relu_grad_is_the_derivative_of_relu() {
        let forward = Example::of(Relu).floats([12]);
        let dy = Example::seeded(Relu, 1).floats([12]).arrays().remove(0);
        let found = evaluate(
            &ReluGrad.into(),
            &[dy.clone(), forward.evaluate().remove(0)],
        );
        assert_close(&found[0], &forward.difference(&[Some(dy)], 0), 1e-7, "x");
    }
}
