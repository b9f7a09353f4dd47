//! Kernels for NVIDIA GPUs, in CUDA C++, compiled when first needed.

mod attention;
mod compile;
mod module;

use ort::operator::OperatorDomain;
use ort::value::TensorElementType;

use super::attention::Pass;

/// The provider in whose memory they work.
const PROVIDER: &str = "CUDAExecutionProvider";

pub(super) fn add(mut domain: OperatorDomain, device_id: i32) -> ort::Result<OperatorDomain> {
    for element in [TensorElementType::Bfloat16, TensorElementType::Float16] {
        for pass in [Pass::Forward, Pass::Backward] {
            domain = domain.add(attention::Attention::new(pass, element, device_id))?;
        }
    }
    Ok(domain)
}
