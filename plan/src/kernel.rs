//! The operators of this project, which no build of ONNX Runtime has.

use std::fmt;
use std::str::FromStr;

use crate::Precision;

/// The domain of these operators in models.
pub const OWN_DOMAIN: &str = "mpnet";

/// Declares the enum and its names: the variant is the operator's type in models.
macro_rules! kernels {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// An operator of this project. Which provider has a kernel of it, and in which precision, is in
        /// [`ProviderInfo::kernels`](crate::ProviderInfo::kernels).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum KernelId {
            $($(#[doc = $doc])* $name,)*
        }

        impl KernelId {
            /// Every operator.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The operator's type in models.
            pub fn op_type(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

kernels! {
    /// A gradient added to what has been gathered of it, which the runtime is told of.
    AddGradient,
    /// AdamW's update of one segment.
    AdamWUpdate,
    /// Cross entropy of logits and a bias, with the best class.
    BiasCrossEntropy,
    /// Its derivative.
    BiasCrossEntropyGrad,
    /// Bias, GELU and dropout.
    BiasGelu,
    /// Its derivative.
    BiasGeluGrad,
    /// Matrix product of f32 tensors in blocks of fixed sizes, whose operands may be rounded to bf16.
    BlockedMatMul,
    /// Cross entropy of logits.
    CrossEntropy,
    /// Its derivative.
    CrossEntropyGrad,
    /// Dropout by a hash of its factors.
    FactorDropout,
    /// The derivative of GELU's tanh approximation.
    FastGeluGrad,
    /// The derivative of GELU.
    GeluGrad,
    /// Layer normalization.
    LayerNormalization,
    /// Its derivative.
    LayerNormalizationGrad,
    /// Rows times a matrix in 16 bits, and a bias.
    Linear,
    /// A matrix' gradient of rows in 16 bits, added in f32 to what has been gathered of it.
    LinearGradient,
    /// Dropout by a mask of bytes.
    MaskDropout,
    /// Rows normalized once more from what was kept of them.
    NormalizedAgain,
    /// Two-stream attention over queries, keys and values in one tensor.
    PackedAttention,
    /// Its derivative.
    PackedAttentionGrad,
    /// Bias, dropout, residual and layer normalization.
    ResidualNorm,
    /// Its derivative.
    ResidualNormGrad,
    /// Rows added to those of a table that indices name, in the order of the indices.
    ScatterAdd,
    /// The sum of all rows, added up in one order.
    SumRows,
    /// The sum of the squares of a vector, added up in one order whatever the machine does meanwhile.
    SumSquares,
    /// Two-stream attention.
    TwoStreamAttention,
    /// Its derivative.
    TwoStreamAttentionGrad,
}

impl KernelId {
    /// The float type by which its kernel is chosen in a step of that precision: some operators stand only
    /// where values are f32 in every precision.
    pub fn element(self, step: Precision) -> Precision {
        match self {
            Self::AdamWUpdate
            | Self::AddGradient
            | Self::BlockedMatMul
            | Self::LayerNormalization
            | Self::LayerNormalizationGrad
            | Self::ScatterAdd
            | Self::SumSquares => Precision::F32,
            Self::BiasCrossEntropy
            | Self::BiasCrossEntropyGrad
            | Self::BiasGelu
            | Self::BiasGeluGrad
            | Self::CrossEntropy
            | Self::CrossEntropyGrad
            | Self::FactorDropout
            | Self::FastGeluGrad
            | Self::GeluGrad
            | Self::Linear
            | Self::LinearGradient
            | Self::MaskDropout
            | Self::NormalizedAgain
            | Self::PackedAttention
            | Self::PackedAttentionGrad
            | Self::ResidualNorm
            | Self::ResidualNormGrad
            | Self::SumRows
            | Self::TwoStreamAttention
            | Self::TwoStreamAttentionGrad => step,
        }
    }
}

impl fmt::Display for KernelId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.op_type())
    }
}

/// A type that is none of this project's operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this project has no operator '{op_type}'")]
pub struct UnknownKernel {
    /// The type given.
    pub op_type: String,
}

impl FromStr for KernelId {
    type Err = UnknownKernel;

    fn from_str(op_type: &str) -> Result<Self, UnknownKernel> {
        Self::ALL
            .iter()
            .copied()
            .find(|kernel| kernel.op_type() == op_type)
            .ok_or_else(|| UnknownKernel {
                op_type: op_type.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_back() {
        for &kernel in KernelId::ALL {
            assert_eq!(kernel.to_string().parse(), Ok(kernel));
        }
        assert!("Softmax".parse::<KernelId>().is_err());
    }
}
