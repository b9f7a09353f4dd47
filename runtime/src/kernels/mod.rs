//! Operators of this project, registered with ONNX Runtime: what no build brings.
//!
//! Each has a form in ordinary operators too, for providers without a kernel here.

mod attention;
mod cpu;
mod cuda;

use ort::operator::OperatorDomain;
use ort::session::builder::SessionBuilder;

use crate::provider::Provider;

/// The operators' domain in models.
const DOMAIN: &str = "mpnet";

/// Adds the operators that have kernels for `provider` to a session's options.
///
/// # Errors
/// ONNX Runtime refuses them.
pub(crate) fn register(
    builder: SessionBuilder,
    provider: Provider,
    device_id: i32,
) -> ort::Result<SessionBuilder> {
    let domain = OperatorDomain::new(DOMAIN)?;
    let domain = match provider {
        Provider::Cpu => cpu::add(domain)?,
        Provider::Cuda => cuda::add(domain, device_id)?,
        Provider::Rocm
        | Provider::MigraphX
        | Provider::DirectMl
        | Provider::OpenVino
        | Provider::WebGpu => return Ok(builder),
    };
    Ok(builder.with_operators(domain)?)
}
