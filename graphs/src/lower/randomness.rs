//! What a training graph takes for its dropout.

use crate::ops::Graph;
use crate::passes::device_dropout::factors;
use mpnet_plan::{DropoutSite, Provider, Randomness};

/// What `graph`, lowered for `provider`, takes in the place of the masks of `sites`.
pub(super) fn randomness(graph: &Graph, provider: Provider, sites: Vec<DropoutSite>) -> Randomness {
    if provider.info().dropout_on_device {
        Randomness::Factors(factors(graph))
    } else {
        Randomness::Masks(sites)
    }
}
