//! Whether attention can be one operator.

use crate::model::task::{Task, TwoStreams};
use mpnet_plan::{KernelId, Precision, Provider};

/// Whether `provider` has a kernel of the attention of `task`: for two streams; on GPUs for heads of up to 128
/// columns, in whole 16 bytes or, for tensor cores, a multiple of 32, and as
/// many positions as their shared memory holds.
pub fn attends(provider: Provider, task: &dyn Task, precision: Precision) -> bool {
    let Some(TwoStreams {
        head_dim,
        positions,
    }) = task.two_streams()
    else {
        return false;
    };
    let multiple = match precision {
        Precision::F32 => 4,
        Precision::BF16 | Precision::F16 => 32,
    };
    let fits = head_dim.is_multiple_of(multiple) && head_dim <= 128 && positions <= 2048;
    provider.has_kernel(KernelId::TwoStreamAttention, precision)
        && (provider == Provider::Cpu || fits)
}
