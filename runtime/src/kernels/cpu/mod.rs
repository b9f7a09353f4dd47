//! Kernels for the processor: the reference of those for GPUs.

mod attention;
mod head;
mod rows;

use ort::operator::OperatorDomain;

use super::attention::Pass;

pub(super) fn add(domain: OperatorDomain) -> ort::Result<OperatorDomain> {
    domain
        .add(attention::Attention::new(Pass::Forward))?
        .add(attention::Attention::new(Pass::Backward))
}
