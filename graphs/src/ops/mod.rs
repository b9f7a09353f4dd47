//! The closed set of operators: one file each, with shape rule, derivative, reference evaluation
//! and ONNX emission.

mod broadcast;
mod operator;

pub use operator::{Kernel, Operator, Vjp};

/// Declares the operator enum from its files, so that a new operator is one file and one line.
macro_rules! operators {
    ($($module:ident :: $name:ident),* $(,)?) => {
        $(pub mod $module;)*

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
    };
}

operators! {
    accumulate::Accumulate,
    add::Add,
    and::And,
    argmax::ArgMax,
    cast::Cast,
    concat::Concat,
    constant::Constant,
    cross_entropy::CrossEntropy,
    cross_entropy_grad::CrossEntropyGrad,
    div::Div,
    dropout::Dropout,
    equal::Equal,
    erf::Erf,
    exp::Exp,
    expand::Expand,
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
    pad::Pad,
    reduce_sum::ReduceSum,
    relu::Relu,
    relu_grad::ReluGrad,
    reshape::Reshape,
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
    where_select::Where,
    wrapping_mul::WrappingMul,
}
