//! The closed set of operators: an operator and its derivative in one file, with everything there is to say
//! of them; families of elementwise ones in one file each.

mod broadcast;
mod operator;
#[cfg(test)]
pub(crate) mod testing;

pub mod accumulate;
pub mod adamw_update;
pub mod add_gradient;
pub mod bias_cross_entropy;
pub mod bias_gelu;
pub mod binary;
pub mod cast;
pub mod concat;
pub mod constant;
pub mod cross_entropy;
pub mod dropout;
pub mod dropping;
pub mod expand;
pub mod gather;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod matmul;
pub mod packed_attention;
pub mod reduce;
pub mod reshape;
pub mod residual_norm;
pub mod scatter;
pub mod slice;
pub mod softmax;
pub mod transpose;
pub mod two_stream_attention;
pub mod unary;
pub mod where_select;

use crate::ir::{Array, Bindings, Cost, Operands, Operation, Storage, Type};
use crate::onnx::emitter::{Emit, Emitter};

pub use operator::{Arithmetic, Emitted, Feature, Kernel, Operator, Vjp};

/// Declares the operator enum, and one test for each operator: its file's tests must have a specification
/// of the name given, so an operator without a test does not compile.
macro_rules! operators {
    ($($module:ident :: $name:ident : $spec:ident),* $(,)?) => {
        /// Every operator of the IR.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Op {
            $($name($module::$name),)*
        }

        impl Op {
            /// The operator's rules.
            pub fn operator(&self) -> &dyn Operator {
                match self {
                    $(Op::$name(op) => op,)*
                }
            }

            /// The operator, to change it.
            pub(crate) fn operator_mut(&mut self) -> &mut dyn Operator {
                match self {
                    $(Op::$name(op) => op,)*
                }
            }
        }

        $(impl From<$module::$name> for Op {
            fn from(op: $module::$name) -> Op {
                Op::$name(op)
            }
        })*

        #[cfg(test)]
        mod specs {
            $(#[test]
            fn $spec() {
                let is_own = |op: &super::Op| matches!(op, super::Op::$name(_));
                super::$module::tests::$spec().check(is_own);
            })*
        }
    };
}

/// A graph of these operators.
pub type Graph = crate::ir::Graph<Op>;
/// A node of such a graph.
pub type Node = crate::ir::Node<Op>;

impl Operation for Op {
    fn name(&self) -> &'static str {
        self.operator().name()
    }

    fn attributes(&self) -> String {
        self.operator().attributes()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        self.operator().infer(inputs)
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        self.operator().evaluate(sizes, inputs)
    }

    fn cost(&self, node: &Operands) -> Cost {
        self.operator().cost(node)
    }

    fn storage(&self) -> Storage {
        self.operator().storage()
    }

    fn optional_outputs(&self) -> bool {
        self.operator().optional_outputs()
    }
}

impl Emit for Op {
    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        self.operator().emit(emitter, inputs, outputs)
    }
}

operators! {
    accumulate::Accumulate: accumulate,
    adamw_update::AdamWUpdate: adamw_update,
    add_gradient::AddGradient: add_gradient,
    bias_cross_entropy::BiasCrossEntropy: bias_cross_entropy,
    bias_cross_entropy::BiasCrossEntropyGrad: bias_cross_entropy_grad,
    bias_gelu::BiasGelu: bias_gelu,
    bias_gelu::BiasGeluGrad: bias_gelu_grad,
    binary::Add: add,
    binary::And: and,
    binary::Div: div,
    binary::Equal: equal,
    binary::Less: less,
    binary::Mul: mul,
    binary::Sub: sub,
    binary::WrappingMul: wrapping_mul,
    cast::Cast: cast,
    concat::Concat: concat,
    concat::Split: split,
    constant::Constant: constant,
    constant::Iota: iota,
    cross_entropy::CrossEntropy: cross_entropy,
    cross_entropy::CrossEntropyGrad: cross_entropy_grad,
    dropout::Dropout: dropout,
    dropout::FactorDropout: factor_dropout,
    expand::Expand: expand,
    gather::Gather: gather,
    gelu::Gelu: gelu,
    gelu::GeluGrad: gelu_grad,
    layer_norm::LayerNorm: layer_norm,
    layer_norm::LayerNormGrad: layer_norm_grad,
    layer_norm::LayerNormOutput: layer_norm_output,
    linear::Linear: linear,
    linear::LinearGradient: linear_gradient,
    matmul::MatMul: matmul,
    packed_attention::PackedAttention: packed_attention,
    packed_attention::PackedAttentionGrad: packed_attention_grad,
    reduce::ArgMax: argmax,
    reduce::CumSum: cumsum,
    reduce::ReduceSum: reduce_sum,
    reduce::SumRows: sum_rows,
    reduce::SumSquares: sum_squares,
    reshape::Reshape: reshape,
    residual_norm::NormalizedAgain: normalized_again,
    residual_norm::ResidualNorm: residual_norm,
    residual_norm::ResidualNormGrad: residual_norm_grad,
    scatter::ScatterAdd: scatter_add,
    scatter::ScatterElements: scatter_elements,
    slice::Pad: pad,
    slice::Slice: slice,
    softmax::Softmax: softmax,
    softmax::SoftmaxGrad: softmax_grad,
    transpose::Transpose: transpose,
    two_stream_attention::TwoStreamAttention: two_stream_attention,
    two_stream_attention::TwoStreamAttentionGrad: two_stream_attention_grad,
    unary::Erf: erf,
    unary::Exp: exp,
    unary::Relu: relu,
    unary::ReluGrad: relu_grad,
    unary::Sigmoid: sigmoid,
    unary::Sqrt: sqrt,
    unary::Tanh: tanh,
    where_select::Where: where_select,
}
