//! Kernels for the processor: the reference of those for GPUs.

mod adamw;
mod attention;
mod cross_entropy;
mod elementwise;
mod head;
mod memory;
mod product;
mod rows;
mod vector;

use ort::operator::OperatorDomain;

use super::attention::Pass;

pub(super) fn add(domain: OperatorDomain) -> ort::Result<OperatorDomain> {
    let domain = elementwise::Kind::ALL
        .into_iter()
        .try_fold(domain, |domain, kind| {
            domain.add(elementwise::Elementwise(kind))
        })?
        .add(adamw::AdamWUpdate)?
        .add(cross_entropy::CrossEntropy(Pass::Forward))?
        .add(cross_entropy::CrossEntropy(Pass::Backward))?;
    domain
        .add(attention::Attention::new(Pass::Forward))?
        .add(attention::Attention::new(Pass::Backward))
}
