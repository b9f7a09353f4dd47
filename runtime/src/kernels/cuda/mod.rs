//! Kernels for NVIDIA GPUs, in CUDA C++, compiled when first needed.

mod adamw;
mod attention;
mod bias_gelu;
mod compile;
mod cross_entropy;
mod definition;
mod elementwise;
mod memory;
mod module;
mod residual_norm;

use ort::operator::OperatorDomain;
use ort::value::TensorElementType;

use super::attention::{Attributes, Pass};
use attention::{Attention, Layout};
use definition::{Defined, Definition, RowDropout};

/// The provider in whose memory they work.
const PROVIDER: &str = "CUDAExecutionProvider";

/// The flags with which a run starts no kernel of ours.
const WITHOUT_KERNELS: &str = "--attention expanded --no-own-kernels";

pub(super) fn add(mut domain: OperatorDomain, device_id: i32) -> ort::Result<OperatorDomain> {
    use TensorElementType::{Bfloat16, Float16, Float32};
    let dropout = RowDropout::default();
    for element in [Float32, Bfloat16, Float16] {
        domain = with(
            domain,
            device_id,
            elementwise::FactorDropout { element, dropout },
        )?;
        for approximate in [false, true] {
            let definition = elementwise::GeluGrad {
                element,
                approximate,
            };
            domain = with(domain, device_id, definition)?;
        }
        let norm = residual_norm::ResidualNorm {
            element,
            dropout,
            epsilon: 0.0,
        };
        domain = with(domain, device_id, norm)?;
        let norm = residual_norm::ResidualNormGrad { element, dropout };
        domain = with(domain, device_id, norm)?;
        domain = with(
            domain,
            device_id,
            residual_norm::NormalizedAgain { element },
        )?;
        for pass in [bias_gelu::Pass::Forward, bias_gelu::Pass::Backward] {
            let definition = bias_gelu::BiasGelu {
                pass,
                element,
                dropout,
                approximate: false,
            };
            domain = with(domain, device_id, definition)?;
        }
        for pass in [Pass::Forward, Pass::Backward] {
            for layout in [Layout::Apart, Layout::Packed] {
                let attention = Attention {
                    pass,
                    layout,
                    element,
                    attributes: Attributes::default(),
                };
                domain = with(domain, device_id, attention)?;
            }
        }
        let ignored = 0;
        let entropy = cross_entropy::CrossEntropy { element, ignored };
        domain = with(domain, device_id, entropy)?;
        let entropy = cross_entropy::CrossEntropyGrad { element, ignored };
        domain = with(domain, device_id, entropy)?;
    }
    domain = with(domain, device_id, elementwise::LayerNormGrad)?;
    domain = with(domain, device_id, adamw::AdamW::default())?;
    Ok(domain)
}

fn with(
    domain: OperatorDomain,
    device_id: i32,
    definition: impl Definition,
) -> ort::Result<OperatorDomain> {
    domain.add(Defined {
        definition,
        device_id,
    })
}
