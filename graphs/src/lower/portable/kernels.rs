//! Whether attention can be one operator.

use crate::model::Objective;
use crate::model::config::ModelConfig;
use mpnet_plan::{KernelId, Precision, Provider};

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
