//! Kernels for NVIDIA GPUs, in CUDA C++, compiled when first needed.

mod adamw;
mod attention;
mod bias_gelu;
mod compile;
mod cross_entropy;
mod definition;
mod elementwise;
mod gradients;
mod linear;
mod memory;
mod module;
mod residual_norm;
mod scatter_add;
mod sum_rows;

use mpnet_plan::KernelId;
use ort::value::TensorElementType;

use super::attention::{Attributes, Pass};
use super::{Registry, Told, missing};
use attention::{Attention, Layout};
pub(super) use definition::Device;
use definition::{Defined, Definition, RowDropout};

/// The provider in whose memory they work.
const PROVIDER: &str = "CUDAExecutionProvider";

/// The flags with which a run starts no kernel of ours.
const WITHOUT_KERNELS: &str = "--attention expanded --no-own-kernels";

/// Adds the kernel of an operator for floats of the type `element`.
///
/// # Errors
/// There is none, or ONNX Runtime refuses it.
pub(super) fn add<R: Registry>(
    registry: R,
    kernel: KernelId,
    element: TensorElementType,
    device: &Device,
) -> ort::Result<R> {
    let adding = Adding { registry, device };
    let (dropout, ignored) = (RowDropout::default(), 0);
    let attention = |pass, layout| Attention {
        pass,
        layout,
        element,
        attributes: Attributes::default(),
    };
    let gelu_grad = |approximate| elementwise::GeluGrad {
        element,
        approximate,
    };
    let bias_gelu = |pass| bias_gelu::BiasGelu {
        pass,
        element,
        dropout,
        approximate: false,
    };
    match kernel {
        KernelId::AddGradient => adding.with(gradients::AddGradient::default()),
        KernelId::AdamWUpdate => adding.with(adamw::AdamW::default()),
        KernelId::BiasCrossEntropy => adding.with(cross_entropy::CrossEntropy { element, ignored }),
        KernelId::BiasCrossEntropyGrad => {
            adding.with(cross_entropy::CrossEntropyGrad { element, ignored })
        }
        KernelId::BiasGelu => adding.with(bias_gelu(bias_gelu::Pass::Forward)),
        KernelId::BiasGeluGrad => adding.with(bias_gelu(bias_gelu::Pass::Backward)),
        KernelId::FactorDropout => adding.with(elementwise::FactorDropout { element, dropout }),
        KernelId::FastGeluGrad => adding.with(gelu_grad(true)),
        KernelId::GeluGrad => adding.with(gelu_grad(false)),
        KernelId::LayerNormalizationGrad => adding.with(elementwise::LayerNormGrad),
        KernelId::Linear => adding.with(linear::Linear {
            element,
            transposed: false,
        }),
        KernelId::LinearGradient => adding.with(linear::LinearGradient {
            element,
            segment: -1,
        }),
        KernelId::NormalizedAgain => adding.with(residual_norm::NormalizedAgain { element }),
        KernelId::PackedAttention => adding.with(attention(Pass::Forward, Layout::Packed)),
        KernelId::PackedAttentionGrad => adding.with(attention(Pass::Backward, Layout::Packed)),
        KernelId::ResidualNorm => adding.with(residual_norm::ResidualNorm {
            element,
            dropout,
            epsilon: 0.0,
        }),
        KernelId::ResidualNormGrad => {
            adding.with(residual_norm::ResidualNormGrad { element, dropout })
        }
        KernelId::ScatterAdd => adding.with(scatter_add::ScatterAdd),
        KernelId::SumRows => adding.with(sum_rows::SumRows { element }),
        KernelId::SumSquares => adding.with(gradients::SumSquares),
        KernelId::TwoStreamAttention => adding.with(attention(Pass::Forward, Layout::Apart)),
        KernelId::TwoStreamAttentionGrad => adding.with(attention(Pass::Backward, Layout::Apart)),
        KernelId::BlockedMatMul
        | KernelId::CrossEntropy
        | KernelId::CrossEntropyGrad
        | KernelId::LayerNormalization
        | KernelId::MaskDropout => Err(missing(kernel, element)),
    }
}

/// A registry and the device for which kernels are added.
struct Adding<'a, R> {
    registry: R,
    device: &'a Device,
}

impl<R: Registry> Adding<'_, R> {
    fn with(self, definition: impl Definition) -> ort::Result<R> {
        self.registry.add(Defined {
            definition,
            device: self.device.clone(),
        })
    }
}
