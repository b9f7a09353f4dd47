//! Which operators a provider runs as they are emitted.

use crate::model::Objective;
use crate::model::config::ModelConfig;
use crate::ops::{Kernel, Op};
use mpnet_plan::{KernelId, Precision, Provider};

/// The operator of this project that `op` can be emitted as.
pub(super) fn own_kernel(op: &Op) -> Option<KernelId> {
    let kernel = match op {
        Op::AdamWUpdate(_) => KernelId::AdamWUpdate,
        Op::BiasCrossEntropy(_) => KernelId::BiasCrossEntropy,
        Op::BiasCrossEntropyGrad(_) => KernelId::BiasCrossEntropyGrad,
        Op::BiasGelu(_) => KernelId::BiasGelu,
        Op::BiasGeluGrad(_) => KernelId::BiasGeluGrad,
        Op::CrossEntropy(_) => KernelId::CrossEntropy,
        Op::CrossEntropyGrad(_) => KernelId::CrossEntropyGrad,
        Op::Dropout(_) => KernelId::MaskDropout,
        Op::FactorDropout(_) => KernelId::FactorDropout,
        Op::GeluGrad(op) if op.approximate => KernelId::FastGeluGrad,
        Op::GeluGrad(_) => KernelId::GeluGrad,
        Op::LayerNormGrad(_) => KernelId::LayerNormalizationGrad,
        Op::NormalizedAgain(_) => KernelId::NormalizedAgain,
        Op::PackedAttention(_) => KernelId::PackedAttention,
        Op::PackedAttentionGrad(_) => KernelId::PackedAttentionGrad,
        Op::ResidualNorm(_) => KernelId::ResidualNorm,
        Op::ResidualNormGrad(_) => KernelId::ResidualNormGrad,
        Op::TwoStreamAttention(_) => KernelId::TwoStreamAttention,
        Op::TwoStreamAttentionGrad(_) => KernelId::TwoStreamAttentionGrad,
        _ => return None,
    };
    Some(kernel)
}

/// Whether `provider` runs `op` by kernels of ONNX Runtime's ordinary builds.
pub(super) fn runs(provider: Provider, op: &Op) -> bool {
    let info = provider.info();
    let operator = op.operator();
    match operator.kernel() {
        Kernel::Standard => {
            let by_rows = info.scatter_adds && info.scatter_nd_adds;
            match op {
                Op::ScatterAdd(_) => by_rows,
                Op::ScatterElements(_) | Op::CrossEntropyGrad(_) => info.scatter_adds,
                Op::LayerNorm(_) => info.layer_norm_statistics,
                _ => true,
            }
        }
        Kernel::Contrib => operator
            .contrib()
            .is_some_and(|kernel| info.contrib.contains(&kernel)),
        Kernel::Own | Kernel::Training => false,
    }
}

/// Whether `provider` has a kernel of the attention of a model: for two streams, whose content rows the last layer
/// skips; on GPUs for heads of up to 128 columns, in whole 16 bytes or, for tensor cores, a multiple of 32, and as
/// many positions as their shared memory holds.
pub fn attends(provider: Provider, config: &ModelConfig, precision: Precision) -> bool {
    let two_streams = match config.objective {
        Objective::Mpnet => true,
        Objective::MpnetMlm | Objective::Plm | Objective::Mlm => false,
    };
    let fits = || {
        let multiple = match precision {
            Precision::F32 => 4,
            Precision::BF16 | Precision::F16 => 32,
        };
        config.head_dim().is_multiple_of(multiple)
            && config.head_dim() <= 128
            && config.max_positions <= 2048
    };
    two_streams
        && provider.has_kernel(KernelId::TwoStreamAttention, precision)
        && (provider == Provider::Cpu || fits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gelu::Gelu;
    use crate::ops::matmul::MatMul;
    use crate::ops::scatter_add::ScatterAdd;
    use crate::ops::softmax_grad::SoftmaxGrad;

    #[test]
    fn training_kernels_are_nowhere_and_fused_ones_where_the_table_says() {
        let transposed = MatMul {
            trans_a: true,
            ..MatMul::default()
        };
        for &provider in Provider::ALL {
            assert!(!runs(provider, &SoftmaxGrad.into()));
            assert!(runs(provider, &MatMul::default().into()));
        }
        assert!(runs(Provider::Cuda, &transposed.clone().into()));
        assert!(!runs(Provider::OpenVino, &transposed.into()));
        assert!(runs(Provider::WebGpu, &Gelu { approximate: true }.into()));
        assert!(runs(Provider::MigraphX, &ScatterAdd.into()));
        assert!(!runs(Provider::Cpu, &ScatterAdd.into()));
    }
}
