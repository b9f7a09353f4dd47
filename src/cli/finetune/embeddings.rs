//! The flags of sentence embeddings.

use super::{UsageError, count, positive};
use crate::train::flags::Effect;
use crate::train::measures::MeasureFiles;
use crate::train::tasks::embeddings::{Embeddings, LossChoice, PoolingChoice};
use clap::{Args, ValueEnum};

/// What cosines are multiplied by where nothing else is said.
const USUAL_SCALE: f64 = 20.0;
/// The usual margin of triplets.
const USUAL_MARGIN: f64 = 5.0;

/// The losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LossName {
    /// Multiple negatives ranking: each anchor is to find its positive among all texts of the batch
    Ranking,
    /// CoSENT: cosines of pairs are to be in the order of their scores
    Cosent,
    /// The cosine of a pair is to be its score
    Cosine,
    /// Each anchor is to be nearer to its positive than to its negative, by Euclidean distance
    Triplet,
}

/// How embeddings are made and compared.
#[derive(Debug, Args)]
#[command(next_help_heading = "Embeddings")]
pub struct EmbeddingArgs {
    /// Train embeddings for this [default: ranking]
    #[arg(long, value_enum, value_name = "LOSS", add = Effect::Updates(&["loss"]))]
    pub loss: Option<LossName>,
    /// Multiply cosines by this, of --loss ranking and cosent: the inverse of the temperature [default: 20]
    #[arg(long, value_name = "NUMBER", value_parser = positive, add = Effect::Updates(&["scale"]))]
    pub scale: Option<f64>,
    /// Embed so many rows at once of a batch that is too large for memory: gradients are those of the whole batch; several
    /// ranks share its parts. Of --loss ranking
    #[arg(long, value_name = "N", value_parser = count::<usize>, add = Effect::Updates(&["mini_batch_size"]))]
    pub mini_batch_size: Option<usize>,
    /// By how much positives are to be nearer than negatives, of --loss triplet [default: 5]
    #[arg(long, value_name = "DISTANCE", value_parser = positive, add = Effect::Updates(&["margin"]))]
    pub margin: Option<f64>,
    /// Let positives find their anchors, too: the loss is the mean of both directions
    #[arg(long, add = Effect::Updates(&["symmetric"]))]
    pub symmetric: bool,
    /// Train these widths, each the first so many columns of an embedding, so that it may be cut to any of them: 768,256,64
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',', value_parser = count::<usize>,
        add = Effect::Updates(&["matryoshka"]))]
    pub matryoshka: Vec<usize>,
    /// Make an embedding of hidden states like this [default: as the model says, else the mean]
    #[arg(long, value_enum, value_name = "POOLING", add = Effect::Updates(&["pooling"]))]
    pub pooling: Option<PoolingChoice>,
    /// Let the model that comes out scale embeddings to length 1, also where the one before did not
    #[arg(long, add = Effect::Surroundings(&["normalize"]))]
    pub normalize: bool,
}

impl EmbeddingArgs {
    /// The task, for a model whose embeddings have `width` columns.
    ///
    /// # Errors
    /// Where a flag does not go with the loss, or there are no such widths.
    pub fn task(&self, measures: MeasureFiles, width: usize) -> Result<Embeddings, UsageError> {
        if let Some(wide) = self.matryoshka.iter().find(|w| **w > width) {
            return Err(UsageError(format!(
                "--matryoshka {wide}: embeddings of this model have {width} columns"
            )));
        }
        Ok(Embeddings {
            loss: self.loss()?,
            mini_batch_size: self.mini_batch_size,
            matryoshka: self.matryoshka.clone(),
            pooling: self.pooling,
            normalize: self.normalize,
            measures,
        })
    }

    /// Refuses what makes no sense for another `task`.
    ///
    /// # Errors
    /// Where it is given.
    pub fn refuse_for(&self, task: &str) -> Result<(), UsageError> {
        for (flag, given) in [
            ("--loss", self.loss.is_some()),
            ("--scale", self.scale.is_some()),
            ("--mini-batch-size", self.mini_batch_size.is_some()),
            ("--margin", self.margin.is_some()),
            ("--symmetric", self.symmetric),
            ("--matryoshka", !self.matryoshka.is_empty()),
            ("--pooling", self.pooling.is_some()),
            ("--normalize", self.normalize),
        ] {
            if given {
                return Err(UsageError(format!(
                    "{flag} is for --task embeddings, and this is --task {task}: leave it out"
                )));
            }
        }
        Ok(())
    }

    fn loss(&self) -> Result<LossChoice, UsageError> {
        let name = self.loss.unwrap_or(LossName::Ranking);
        let scale = self.scale.unwrap_or(USUAL_SCALE) as f32;
        let loss = match name {
            LossName::Ranking => LossChoice::Ranking {
                scale,
                symmetric: self.symmetric,
            },
            LossName::Cosent => LossChoice::Cosent { scale },
            LossName::Cosine => LossChoice::Cosine,
            LossName::Triplet => LossChoice::Triplet {
                margin: self.margin.unwrap_or(USUAL_MARGIN) as f32,
            },
        };
        let ranking = name == LossName::Ranking;
        let scaled = ranking || name == LossName::Cosent;
        for (flag, given, fits, losses) in [
            (
                "--scale",
                self.scale.is_some(),
                scaled,
                "ranking and cosent",
            ),
            ("--symmetric", self.symmetric, ranking, "ranking"),
            (
                "--mini-batch-size",
                self.mini_batch_size.is_some(),
                ranking,
                "ranking",
            ),
            (
                "--margin",
                self.margin.is_some(),
                name == LossName::Triplet,
                "triplet",
            ),
        ] {
            if given && !fits {
                return Err(UsageError(format!(
                    "{flag} is for --loss {losses}: leave it out"
                )));
            }
        }
        Ok(loss)
    }
}
