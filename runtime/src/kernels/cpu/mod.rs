//! Kernels for the processor, in f32: the reference of those for GPUs.

mod adamw;
mod add_gradient;
mod attention;
mod blocked;
mod cross_entropy;
mod elementwise;
mod head;
mod layer_norm;
mod memory;
mod product;
mod rows;
mod sum_squares;
mod vector;

use mpnet_plan::KernelId;
use ort::value::TensorElementType;

use super::attention::Pass;
use super::{Registry, Told, missing};
use elementwise::{Elementwise, Kind};
use layer_norm::LayerNorm;

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
        KernelId::BlockedMatMul => registry.add(blocked::MatMul),
        KernelId::CrossEntropy => registry.add(cross_entropy::CrossEntropy(Pass::Forward)),
        KernelId::CrossEntropyGrad => registry.add(cross_entropy::CrossEntropy(Pass::Backward)),
        KernelId::FastGeluGrad => registry.add(Elementwise(Kind::FastGeluGrad)),
        KernelId::GeluGrad => registry.add(Elementwise(Kind::GeluGrad)),
        KernelId::LayerNormalization => registry.add(LayerNorm(Pass::Forward)),
        KernelId::LayerNormalizationGrad => registry.add(LayerNorm(Pass::Backward)),
        KernelId::MaskDropout => registry.add(Elementwise(Kind::Dropout)),
        KernelId::SumSquares => registry.add(sum_squares::SumSquares),
        KernelId::TwoStreamAttention => registry.add(attention::Attention::new(Pass::Forward)),
        KernelId::TwoStreamAttentionGrad => registry.add(attention::Attention::new(Pass::Backward)),
        KernelId::BiasCrossEntropy
        | KernelId::BiasCrossEntropyGrad
        | KernelId::BiasGelu
        | KernelId::BiasGeluGrad
        | KernelId::FactorDropout
        | KernelId::Linear
        | KernelId::LinearGradient
        | KernelId::NormalizedAgain
        | KernelId::PackedAttention
        | KernelId::PackedAttentionGrad
        | KernelId::ResidualNorm
        | KernelId::ResidualNormGrad
        | KernelId::ScatterAdd
        | KernelId::SumRows => Err(missing(kernel, element)),
    }
}
