//! Kernels for NVIDIA GPUs, in CUDA C++, compiled when first needed.

mod attention;
mod compile;
mod elementwise;
mod memory;
mod module;

use ort::operator::OperatorDomain;
use ort::value::TensorElementType;

use super::attention::Pass;
use elementwise::{Elementwise, Kind};

/// The provider in whose memory they work.
const PROVIDER: &str = "CUDAExecutionProvider";

pub(super) fn add(mut domain: OperatorDomain, device_id: i32) -> ort::Result<OperatorDomain> {
    use TensorElementType::{Bfloat16, Float16, Float32};
    for element in [Float32, Bfloat16, Float16] {
        for kind in [Kind::Dropout, Kind::GeluGrad, Kind::FastGeluGrad] {
            domain = domain.add(Elementwise::new(kind, element, device_id))?;
        }
    }
    domain = domain.add(Elementwise::new(Kind::LayerNormGrad, Float32, device_id))?;
    for element in [Bfloat16, Float16] {
        for pass in [Pass::Forward, Pass::Backward] {
            domain = domain.add(attention::Attention::new(pass, element, device_id))?;
        }
    }
    Ok(domain)
}
