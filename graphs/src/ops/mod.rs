//! The closed set of operators: one file each, with shape rule, derivative, reference evaluation
//! and ONNX emission.

mod broadcast;
mod operator;
#[cfg(test)]
mod testing;

pub mod accumulate;
pub mod adamw_update;
pub mod add;
pub mod and;
pub mod argmax;
pub mod bias_cross_entropy;
pub mod bias_cross_entropy_grad;
pub mod bias_gelu;
pub mod bias_gelu_grad;
pub mod cast;
pub mod concat;
pub mod constant;
pub mod cross_entropy;
pub mod cross_entropy_grad;
pub mod cumsum;
pub mod div;
pub mod dropout;
pub mod dropping;
pub mod equal;
pub mod erf;
pub mod exp;
pub mod expand;
pub mod factor_dropout;
pub mod gather;
pub mod gelu;
pub mod gelu_grad;
pub mod iota;
pub mod layer_norm;
pub mod layer_norm_grad;
pub mod layer_norm_output;
pub mod less;
pub mod matmul;
pub mod mul;
pub mod normalized_again;
pub mod packed_attention;
pub mod packed_attention_grad;
pub mod pad;
pub mod reduce_sum;
pub mod relu;
pub mod relu_grad;
pub mod reshape;
pub mod residual_norm;
pub mod residual_norm_grad;
pub mod scatter_add;
pub mod scatter_elements;
pub mod sigmoid;
pub mod slice;
pub mod softmax;
pub mod softmax_grad;
pub mod split;
pub mod sqrt;
pub mod sub;
pub mod sum_squares;
pub mod tanh;
pub mod transpose;
pub mod two_stream_attention;
pub mod two_stream_attention_grad;
pub mod where_select;
pub mod wrapping_mul;

pub use operator::{Kernel, Operator, Vjp};

/// Declares the operator enum, and one test for each operator: its file must have a `tests::spec`,
/// so an operator without a test does not compile.
macro_rules! operators {
    ($($module:ident :: $name:ident),* $(,)?) => {
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
        }

        $(impl From<$module::$name> for Op {
            fn from(op: $module::$name) -> Op {
                Op::$name(op)
            }
        })*

        #[cfg(test)]
        mod specs {
            $(#[test]
            fn $module() {
                let is_own = |op: &super::Op| matches!(op, super::Op::$name(_));
                super::$module::tests::spec().check(is_own);
            })*
        }
    };
}

operators! {
    accumulate::Accumulate,
    adamw_update::AdamWUpdate,
    add::Add,
    and::And,
    argmax::ArgMax,
    bias_cross_entropy::BiasCrossEntropy,
    bias_cross_entropy_grad::BiasCrossEntropyGrad,
    bias_gelu::BiasGelu,
    bias_gelu_grad::BiasGeluGrad,
    cast::Cast,
    concat::Concat,
    constant::Constant,
    cross_entropy::CrossEntropy,
    cross_entropy_grad::CrossEntropyGrad,
    cumsum::CumSum,
    div::Div,
    dropout::Dropout,
    equal::Equal,
    erf::Erf,
    exp::Exp,
    expand::Expand,
    factor_dropout::FactorDropout,
    gather::Gather,
    gelu::Gelu,
    gelu_grad::GeluGrad,
    iota::Iota,
    layer_norm::LayerNorm,
    layer_norm_grad::LayerNormGrad,
    layer_norm_output::LayerNormOutput,
    less::Less,
    matmul::MatMul,
    mul::Mul,
    normalized_again::NormalizedAgain,
    packed_attention::PackedAttention,
    packed_attention_grad::PackedAttentionGrad,
    pad::Pad,
    reduce_sum::ReduceSum,
    relu::Relu,
    relu_grad::ReluGrad,
    reshape::Reshape,
    residual_norm::ResidualNorm,
    residual_norm_grad::ResidualNormGrad,
    scatter_add::ScatterAdd,
    scatter_elements::ScatterElements,
    sigmoid::Sigmoid,
    slice::Slice,
    softmax::Softmax,
    softmax_grad::SoftmaxGrad,
    split::Split,
    sqrt::Sqrt,
    sub::Sub,
    sum_squares::SumSquares,
    tanh::Tanh,
    transpose::Transpose,
    two_stream_attention::TwoStreamAttention,
    two_stream_attention_grad::TwoStreamAttentionGrad,
    where_select::Where,
    wrapping_mul::WrappingMul,
}
