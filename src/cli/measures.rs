//! The flags of what embeddings are measured by.

use super::exit::UsageError;
use crate::train::flags::Effect;
use crate::train::measures::{MeasureFiles, RetrievalFiles};
use clap::Args;
use std::path::PathBuf;

/// Files to measure embeddings by, in any format with columns.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Measures of embeddings")]
pub struct MeasureArgs {
    /// Correlate cosines with scores (Spearman): columns sentence1, sentence2, score
    #[arg(long, value_name = "ROWS", add = Effect::Surroundings(&["measures.scored_pairs"]))]
    pub scored_pairs: Option<PathBuf>,
    /// Count the anchors that are nearer to their positive than to their negative: columns anchor, positive, negative
    #[arg(long, value_name = "ROWS", add = Effect::Surroundings(&["measures.triplets"]))]
    pub triplets: Option<PathBuf>,
    /// Search for these, by recall and nDCG of ten results: columns id, text
    #[arg(long, value_name = "ROWS", requires_all = ["corpus", "relevant"],
        add = Effect::Surroundings(&["measures.retrieval.queries"]))]
    pub queries: Option<PathBuf>,
    /// Search among these texts: columns id, text
    #[arg(long, value_name = "ROWS", requires = "queries",
        add = Effect::Surroundings(&["measures.retrieval.corpus"]))]
    pub corpus: Option<PathBuf>,
    /// What is relevant to which query: columns query-id, corpus-id
    #[arg(long, value_name = "ROWS", requires = "queries",
        add = Effect::Surroundings(&["measures.retrieval.relevant"]))]
    pub relevant: Option<PathBuf>,
}

impl MeasureArgs {
    /// The files.
    ///
    /// # Errors
    /// Where a search lacks one of its three.
    pub fn files(&self) -> Result<MeasureFiles, UsageError> {
        let retrieval = match (&self.queries, &self.corpus, &self.relevant) {
            (None, None, None) => None,
            (Some(queries), Some(corpus), Some(relevant)) => Some(RetrievalFiles {
                queries: queries.clone(),
                corpus: corpus.clone(),
                relevant: relevant.clone(),
            }),
            _ => {
                return Err(UsageError(
                    "--queries, --corpus and --relevant go together: give all three".into(),
                ));
            }
        };
        Ok(MeasureFiles {
            scored_pairs: self.scored_pairs.clone(),
            triplets: self.triplets.clone(),
            retrieval,
        })
    }
}
