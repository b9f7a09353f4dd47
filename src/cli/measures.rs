//! The flags of what embeddings are measured by.

use super::exit::UsageError;
use crate::train::flags::Effect;
use crate::train::measures::{FIGURES, MeasureFiles, RetrievalFiles};
use crate::train::position::BestBy;
use clap::{Args, ValueEnum};
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

/// By what the best checkpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BestName {
    /// The loss on --valid-pairs
    Loss,
    /// The share of the rows of --valid-pairs that come out right
    Accuracy,
    /// Of --scored-pairs
    Spearman,
    /// Of --triplets
    Triplets,
    /// Of --queries
    #[value(name = "ndcg@10")]
    Ndcg,
    /// Of --queries
    #[value(name = "recall@10")]
    Recall,
}

impl MeasureFiles {
    /// What validations are compared by where that is `asked` for; else the first of these that is measured: nDCG@10,
    /// Spearman's correlation, triplets, and the loss where nothing is.
    ///
    /// # Errors
    /// Where what is asked for is not measured.
    pub fn best_by(&self, asked: Option<BestName>) -> Result<BestBy, UsageError> {
        let [spearman, triplets, ndcg, recall] = FIGURES;
        let measured = [
            (BestName::Ndcg, ndcg, self.retrieval.is_some(), "--queries"),
            (
                BestName::Spearman,
                spearman,
                self.scored_pairs.is_some(),
                "--scored-pairs",
            ),
            (
                BestName::Triplets,
                triplets,
                self.triplets.is_some(),
                "--triplets",
            ),
            (
                BestName::Recall,
                recall,
                self.retrieval.is_some(),
                "--queries",
            ),
        ];
        let named = |(_, figure, ..): &(BestName, &'static str, bool, &str)| BestBy::Figure(figure);
        match asked {
            Some(BestName::Loss) => Ok(BestBy::Loss),
            Some(BestName::Accuracy) => Ok(BestBy::Accuracy),
            Some(asked) => match measured.iter().find(|(name, ..)| *name == asked) {
                Some(found) if found.2 => Ok(named(found)),
                Some((_, figure, _, flag)) => Err(UsageError(format!(
                    "--best-by {figure}: it is not measured without {flag}"
                ))),
                None => Ok(BestBy::Loss),
            },
            None => Ok(measured
                .iter()
                .find(|(_, _, there, _)| *there)
                .map_or(BestBy::Loss, named)),
        }
    }
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
