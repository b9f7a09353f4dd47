//! AMD GPUs through the provider that is translated from CUDA's.

use super::{Bf16Form, Coverage, ProviderInfo, cuda};
use crate::Precision;

pub(super) const INFO: ProviderInfo = ProviderInfo {
    name: "rocm",
    runtime_name: "ROCMExecutionProvider",
    package: "onnxruntime-rocm",
    plugin: None,
    training_package: None,
    needs: "an AMD GPU and ROCm",
    precision: Precision::BF16,
    bf16: Bf16Form::Tensors,
    memory: Some("Hip"),
    updates_in_place: true,
    addresses: true,
    takes_optimized_graphs: true,
    contrib: &["FusedMatMul", "Gelu", "FastGelu"],
    layer_norm_statistics: true,
    scatter_adds: true,
    scatter_nd_adds: false,
    dropout_on_device: true,
    kernels: &[],
    coverage: Some(Coverage {
        source: "CUDA's kernels, which ROCm's provider is translated from",
        ..cuda::COVERAGE
    }),
};
