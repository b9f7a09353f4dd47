//! Elementwise functions of two operands that broadcast against each other, a declaration each.

use super::broadcast;
use super::operator::{Arithmetic, Emitted, Kernel, Operator, Vjp};
use crate::ir::{Array, Bindings, Cost, DType, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::Emitter;
use crate::ops::Graph;

/// The gradients of both operands.
type Derivative = fn(&mut Graph, &Vjp) -> Result<Vec<Option<ValueId>>, GraphError>;

/// The element type of a result.
enum Gives {
    /// That of the operands.
    Same,
    Bool,
}

const FLOATS: &[DType] = &[DType::F32, DType::BF16, DType::F16];
const NUMBERS: &[DType] = &[DType::F32, DType::BF16, DType::F16, DType::I64];
const ORDERED: &[DType] = &[DType::F32, DType::BF16, DType::F16, DType::I64, DType::U32];
const COMPARED: &[DType] = &[DType::F32, DType::I64, DType::Bool];

/// Declares operators that apply a function to every pair of elements: the operator, the graph's method,
/// the element types of its operands and its result, the function, the ONNX operator that computes it,
/// what it does in 16 bits and its derivative.
macro_rules! binary {
    ($(
        $(#[$doc:meta])*
        $name:ident, $method:ident: $operands:expr => $gives:ident,
        $function:expr, $onnx:literal, $arithmetic:ident, $derivative:expr;
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name;

        impl Graph {
            $(#[$doc])*
            ///
            /// # Errors
            /// Where the element types are others or the shapes do not broadcast.
            pub fn $method(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
                self.apply1($name, &[a, b])
            }
        }

        impl Operator for $name {
            fn name(&self) -> &'static str {
                stringify!($name)
            }

            fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
                let mut types = broadcast::elementwise(inputs, $operands)?;
                match Gives::$gives {
                    Gives::Same => {}
                    Gives::Bool => types[0].dtype = DType::Bool,
                }
                Ok(types)
            }

            fn kernels(&self) -> Vec<Kernel> {
                vec![Kernel::Standard]
            }

            fn arithmetic(&self) -> Arithmetic {
                Arithmetic::$arithmetic
            }

            fn cost(&self, node: &Operands) -> Cost {
                node.flops(node.output(0))
            }

            fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
                let derivative: Derivative = $derivative;
                derivative(graph, at)
            }

            fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
                broadcast::evaluate(inputs, $function)
            }

            fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
                emitter.standard($onnx, inputs, outputs);
                Ok(())
            }
        }
    )*};
}

binary! {
    /// The sum, broadcasting.
    Add, add: NUMBERS => Same, |a, b| a + b, "Add", Join, |_, at| {
        let grad = at.grad()?;
        Ok(vec![Some(grad), Some(grad)])
    };

    /// The difference, broadcasting.
    Sub, sub: NUMBERS => Same, |a, b| a - b, "Sub", Follow, |graph, at| {
        let grad = at.grad()?;
        let minus_one = graph.scalar(-1.0)?;
        Ok(vec![Some(grad), Some(graph.mul(grad, minus_one)?)])
    };

    /// The product, broadcasting.
    Mul, mul: NUMBERS => Same, |a, b| a * b, "Mul", Follow, |graph, at| {
        let grad = at.grad()?;
        Ok(vec![Some(graph.mul(grad, at.input(1))?), Some(graph.mul(grad, at.input(0))?)])
    };

    /// The quotient, broadcasting.
    Div, div: FLOATS => Same, |a, b| a / b, "Div", Follow, |graph, at| {
        let of_a = graph.div(at.grad()?, at.input(1))?;
        let of_b = graph.mul(of_a, at.output(0))?;
        let minus_one = graph.scalar(-1.0)?;
        Ok(vec![Some(of_a), Some(graph.mul(of_b, minus_one)?)])
    };

    /// The product of 32-bit counters modulo 2³², broadcasting: the hash behind dropout masks that a device
    /// computes for itself.
    WrappingMul, wrapping_mul: &[DType::U32] => Same,
        |a, b| f64::from((a as u32).wrapping_mul(b as u32)), "Mul", Follow, no_gradients;

    /// Whether `a < b`, broadcasting.
    Less, less: ORDERED => Bool, |a, b| f64::from(a < b), "Less", Full, no_gradients;

    /// Whether `a = b`, broadcasting.
    Equal, equal: COMPARED => Bool, |a, b| f64::from(a == b), "Equal", Full, no_gradients;

    /// The conjunction of booleans, broadcasting.
    And, and: &[DType::Bool] => Same, |a, b| a * b, "And", Follow, no_gradients;
}

fn no_gradients(_: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
    Ok(vec![None, None])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::Dim;
    use crate::ops::testing::*;
    use proptest::prelude::*;

    pub fn add() -> Spec {
        Spec::default()
            .example(
                Example::of(Add)
                    .given(i64([2]), &[1.0, 2.0])
                    .given(i64([2]), &[4.0, 5.0])
                    .gives(&[2], &[5.0, 7.0])
                    .derivative_unchecked(),
            )
            .example(
                Example::of(Add)
                    .floats([Dim::from(B), 1.into(), 3.into()])
                    .floats([Dim::from(L), 1.into()])
                    .differentiable(),
            )
            .rejects(
                Add,
                [f32([2, 3]), f32([2])],
                "dimension 1 is 3 in one and 2 in the other",
            )
            .rejects(Add, [f32([2]), i64([2])], "different element types")
            .rejects(Add, [bool([2]), bool([2])], "not bool")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn gradients_of_add_undo_any_broadcast((a, b) in broadcastable(), seed: u64) {
            Example::seeded(Add, seed).floats(a).floats(b).differentiable().check();
        }
    }

    pub fn sub() -> Spec {
        Spec::default()
            .example(
                Example::of(Sub)
                    .given(i64([2]), &[1.0, 2.0])
                    .given(i64([2]), &[4.0, 5.0])
                    .gives(&[2], &[-3.0, -3.0])
                    .derivative_unchecked(),
            )
            .example(
                Example::of(Sub)
                    .floats([Dim::from(B), 1.into(), 3.into()])
                    .floats([Dim::from(L), 1.into()])
                    .differentiable(),
            )
            .rejects(
                Sub,
                [f32([2, 3]), f32([2])],
                "dimension 1 is 3 in one and 2 in the other",
            )
            .rejects(Sub, [f32([2]), i64([2])], "different element types")
            .rejects(Sub, [bool([2]), bool([2])], "not bool")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn gradients_of_sub_undo_any_broadcast((a, b) in broadcastable(), seed: u64) {
            Example::seeded(Sub, seed).floats(a).floats(b).differentiable().check();
        }
    }

    pub fn mul() -> Spec {
        Spec::default()
            .example(
                Example::of(Mul)
                    .given(i64([2]), &[1.0, 2.0])
                    .given(i64([2]), &[4.0, 5.0])
                    .gives(&[2], &[4.0, 10.0])
                    .derivative_unchecked(),
            )
            .example(
                Example::of(Mul)
                    .floats([Dim::from(B), 1.into(), 3.into()])
                    .floats([Dim::from(L), 1.into()])
                    .differentiable(),
            )
            .rejects(
                Mul,
                [f32([2, 3]), f32([2])],
                "dimension 1 is 3 in one and 2 in the other",
            )
            .rejects(Mul, [f32([2]), i64([2])], "different element types")
            .rejects(Mul, [bool([2]), bool([2])], "not bool")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn gradients_of_mul_undo_any_broadcast((a, b) in broadcastable(), seed: u64) {
            Example::seeded(Mul, seed).floats(a).floats(b).differentiable().check();
        }
    }

    pub fn div() -> Spec {
        Spec::default()
            .example(
                Example::of(Div)
                    .given(f32([2, 1]), &[3.0, -1.0])
                    .given(f32([2]), &[2.0, 4.0])
                    .gives(&[2, 2], &[1.5, 0.75, -0.5, -0.25])
                    .differentiable(),
            )
            .rejects(Div, [i64([2]), i64([2])], "not i64")
            .rejects(Div, [f32([2]), i64([2])], "different element types")
    }

    pub fn wrapping_mul() -> Spec {
        let u32s = |shape: [usize; 1]| Type::new(DType::U32, shape.map(Into::into));
        Spec::default()
            .example(
                Example::of(WrappingMul)
                    .given(u32s([2]), &[3.0, 4_294_967_295.0])
                    .given(u32s([1]), &[2_863_311_531.0])
                    .gives(&[2], &[1.0, 1_431_655_765.0])
                    .not_differentiable(),
            )
            .rejects(WrappingMul, [i64([2]), i64([2])], "takes u32")
            .rejects(
                WrappingMul,
                [u32s([2]), i64([2])],
                "different element types",
            )
    }

    pub fn less() -> Spec {
        Spec::default()
            .example(
                Example::of(Less)
                    .given(i64([2, 1]), &[1.0, 2.0])
                    .given(i64([2]), &[2.0, 3.0])
                    .gives(&[2, 2], &[1.0, 1.0, 0.0, 1.0])
                    .not_differentiable(),
            )
            .example(
                Example::of(Less)
                    .floats([B, L])
                    .floats([L])
                    .not_differentiable(),
            )
            .rejects(Less, [bool([2]), bool([2])], "not bool")
            .rejects(
                Less,
                [i64([2]), i64([3])],
                "dimension 0 is 2 in one and 3 in the other",
            )
    }

    pub fn equal() -> Spec {
        Spec::default()
            .example(
                Example::of(Equal)
                    .given(i64([3]), &[1.0, 2.0, 3.0])
                    .given(i64(SCALAR), &[2.0])
                    .gives(&[3], &[0.0, 1.0, 0.0])
                    .not_differentiable(),
            )
            .example(
                Example::of(Equal)
                    .floats([B, L])
                    .floats([B, L])
                    .not_differentiable(),
            )
            .rejects(
                Equal,
                [i64([2]), i64([3])],
                "dimension 0 is 2 in one and 3 in the other",
            )
            .rejects(Equal, [i64([2]), f32([2])], "different element types")
    }

    pub fn and() -> Spec {
        Spec::default()
            .example(
                Example::of(And)
                    .given(bool([2, 1]), &[0.0, 1.0])
                    .given(bool([2]), &[0.0, 1.0])
                    .gives(&[2, 2], &[0.0, 0.0, 0.0, 1.0])
                    .not_differentiable(),
            )
            .rejects(And, [i64([2]), i64([2])], "not i64")
            .rejects(
                And,
                [bool([2]), bool([3])],
                "dimension 0 is 2 in one and 3 in the other",
            )
    }
}
