//! Kernels for the processor, in f32: the reference of those for GPUs.

mod adamw;
mod add_gradient;
mod attention;
mod cross_entropy;
mod elementwise;
mod head;
mod memory;
mod product;
mod rows;
mod vector;

use mpnet_plan::KernelId;
use ort::value::TensorElementType;

use super::attention::Pass;
use super::{Registry, Told, missing};
use elementwise::{Elementwise, Kind};

/// Adds the kernel of an operator for floats of the type `element`.
///
/// # Errors
/// There is none, or ONNX Runtime refuses it.
pub(super) fn add<R: Registry>(
    registry: R,
    kernel: KernelId,
    element: TensorElementType,
    told: &Told,
) -> ort::Result<R> {
    if element != TensorElementType::Float32 {
        return Err(missing(kernel, element));
    }
    match kernel {
        KernelId::AddGradient => registry.add(add_gradient::AddGradient(told.clone())),
        KernelId::AdamWUpdate => registry.add(adamw::AdamWUpdate),
        KernelId::CrossEntropy => registry.add(cross_entropy::CrossEntropy(Pass::Forward)),
        KernelId::CrossEntropyGrad => registry.add(cross_entropy::CrossEntropy(Pass::Backward)),
        KernelId::FastGeluGrad => registry.add(Elementwise(Kind::FastGeluGrad)),
        KernelId::GeluGrad => registry.add(Elementwise(Kind::GeluGrad)),
        KernelId::LayerNormalizationGrad => registry.add(Elementwise(Kind::LayerNormGrad)),
        KernelId::MaskDropout => registry.add(Elementwise(Kind::Dropout)),
        KernelId::TwoStreamAttention => registry.add(attention::Attention::new(Pass::Forward)),
        KernelId::TwoStreamAttentionGrad => registry.add(attention::Attention::new(Pass::Backward)),
        KernelId::BiasCrossEntropy
        | KernelId::BiasCrossEntropyGrad
        | KernelId::BiasGelu
        | KernelId::BiasGeluGrad
        | KernelId::FactorDropout
        | KernelId::NormalizedAgain
        | KernelId::PackedAttention
        | KernelId::PackedAttentionGrad
        | KernelId::ResidualNorm
        | KernelId::ResidualNormGrad
        | KernelId::SumSquares => Err(missing(kernel, element)),
    }
}
