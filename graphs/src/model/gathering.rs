//! Embeddings of a batch that comes in parts: each part embeds its own texts and is given the embeddings of the others.
//!
//! The loss of the whole batch is computed by every part, and differentiated by the part's own texts alone; the gradients
//! of all parts then add up to those of the whole batch, exactly (Gao et al. 2021). What is computed twice is the loss, little
//! beside the encoder.

use crate::ir::{DType, Dim, GraphError, Symbol, Type, ValueId};
use crate::ops::Graph;

/// G, rows of the whole batch.
pub const WHOLE: Symbol = Symbol::new("G");
/// Input: the pooled embeddings of the texts of the whole batch, f32 `[C·G, E]`; what stands in the places of the part's own
/// texts counts for nothing.
pub const GIVEN: &str = "given_embeddings";
/// Input: where the embedding of each text of the whole batch is, i64 `[C·G]`: its place among the part's own texts, or
/// behind those among the given ones.
pub const PLACES: &str = "places";
/// Input: which rows of the whole batch are the part's, i64 `[G]`: the number of the row where it is, else −1.
pub const OWN_ROWS: &str = "own_rows";
/// Output: the pooled embeddings of the part's own texts, `[C·B, E]`.
pub const POOLED: &str = "pooled_embeddings";

/// The inputs of a part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gathering {
    given: ValueId,
    places: ValueId,
    pub own_rows: ValueId,
}

impl Gathering {
    /// Adds them, for rows of `columns` texts with embeddings of so many elements.
    pub(super) fn inputs(graph: &mut Graph, columns: usize, width: usize) -> Gathering {
        let texts = Dim::from(columns) * WHOLE.into();
        let given = Type::f32([texts.clone(), width.into()]);
        Gathering {
            given: graph.input(GIVEN, given),
            places: graph.input(PLACES, Type::new(DType::I64, [texts])),
            own_rows: graph.input(OWN_ROWS, Type::new(DType::I64, [WHOLE.into()])),
        }
    }

    /// The embeddings of the whole batch, `[C·G, E]`, of which `own` are the part's, `[C·B, E]`.
    pub(super) fn whole(&self, graph: &mut Graph, own: ValueId) -> Result<ValueId, GraphError> {
        let all = graph.concat(0, &[own, self.given])?;
        graph.gather(all, self.places)
    }
}
