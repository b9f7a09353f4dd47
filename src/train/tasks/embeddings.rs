//! Sentence embeddings as a run's task: settings, and the model that comes out.

use super::RowTask;
use crate::convert::OutputHead;
use crate::convert::sentence_transformers::SentenceModel;
use crate::convert::source::Source;
use crate::data::Tokenizer;
use crate::data::pairs::{RowKind, RowSet, TextCut};
use crate::train::log::record::LossUnit;
use crate::train::measures::{MeasureFiles, Measures};
use anyhow::{Result, bail};
use mpnet_graphs::model::Task;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::pooling::Pooling;
use mpnet_graphs::model::ranking::Ranking;
use mpnet_graphs::model::scored::Scored;
use mpnet_graphs::model::sentences::{SentenceLoss, Sentences};
use mpnet_graphs::model::triplets::Triplets;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// Settings of sentence embeddings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Embeddings {
    #[serde(flatten)]
    pub loss: LossChoice,
    /// Rows that are embedded at once, where a batch is more than that.
    pub mini_batch_size: Option<usize>,
    /// Widths of embeddings that are trained, the first so many of their columns; the whole where there are none.
    pub matryoshka: Vec<usize>,
    /// How hidden states become an embedding; as the model does it where absent.
    pub pooling: Option<PoolingChoice>,
    /// Whether the model that comes out scales embeddings to length 1, also where the one before did not.
    pub normalize: bool,
    /// What embeddings are measured by whenever the run is validated.
    pub measures: MeasureFiles,
}

/// What embeddings are trained for, with the settings of that.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "loss", rename_all = "kebab-case")]
pub enum LossChoice {
    Ranking {
        /// What cosines are multiplied by.
        scale: f32,
        /// Whether positives are to find their anchors, too.
        symmetric: bool,
    },
    Cosent {
        /// What cosines are multiplied by.
        scale: f32,
    },
    Cosine,
    Triplet {
        /// By how much the positive is to be nearer.
        margin: f32,
    },
}

/// How hidden states become an embedding, as it can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PoolingChoice {
    /// The mean over the tokens
    Mean,
    /// The first token's
    Cls,
}

impl Embeddings {
    /// What stands on the encoder while it is trained and in the model that comes out: `own`, which the model has, with
    /// the changes that are asked for.
    ///
    /// # Errors
    /// Where it has a layer of its own, which is not trained.
    pub fn sentence(&self, own: SentenceModel, max_tokens: usize) -> Result<SentenceModel> {
        let mut sentence = own;
        if sentence.has_dense() {
            bail!(
                "its embeddings go through a module Dense, which is not trained here: take a model of Transformer, \
                 Pooling and Normalize alone"
            );
        }
        match self.pooling {
            Some(PoolingChoice::Mean) => sentence.pooling = vec![Pooling::Mean],
            Some(PoolingChoice::Cls) => sentence.pooling = vec![Pooling::Cls],
            None => {}
        }
        if let Some(other) = (sentence.pooling.iter())
            .find(|pooling| !matches!(pooling, Pooling::Mean | Pooling::Cls))
        {
            bail!("its pooling {other:?} is not trained: give --pooling mean or --pooling cls");
        }
        sentence.max_seq_length = max_tokens;
        Ok(match self.normalize {
            true => sentence.normalized(),
            false => sentence,
        })
    }
}

impl RowTask for Embeddings {
    fn kind(&self, start: &Source) -> Result<RowKind> {
        let pooled = || -> Result<usize> {
            let sentence = self.sentence(start.sentence_model()?, start.model.max_positions)?;
            Ok(sentence.pooling.len() * start.model.encoder_embed_dim)
        };
        Ok(match self.loss {
            LossChoice::Ranking { .. } => RowKind::Ranked {
                gathered: self.mini_batch_size.map(|_| pooled()).transpose()?,
            },
            LossChoice::Cosent { .. } | LossChoice::Cosine => RowKind::Scored,
            LossChoice::Triplet { .. } => RowKind::Compared,
        })
    }

    fn part(&self) -> Option<usize> {
        self.mini_batch_size
    }

    fn usual_columns(&self) -> &'static [&'static [&'static str]] {
        match self.loss {
            LossChoice::Ranking { .. } => {
                &[&["anchor", "positive", "negative"], &["anchor", "positive"]]
            }
            LossChoice::Cosent { .. } | LossChoice::Cosine => &[
                &["sentence1", "sentence2", "label"],
                &["sentence1", "sentence2", "score"],
            ],
            LossChoice::Triplet { .. } => &[&["anchor", "positive", "negative"]],
        }
    }

    fn unit(&self) -> LossUnit {
        match self.loss {
            LossChoice::Ranking { .. } | LossChoice::Cosent { .. } => LossUnit::NatsPerRow,
            LossChoice::Cosine | LossChoice::Triplet { .. } => LossUnit::PerRow,
        }
    }

    fn cut(&self, start: &Source, max_tokens: usize) -> Result<TextCut> {
        Ok(TextCut {
            max_tokens,
            lower_case: start.sentence_model()?.do_lower_case,
        })
    }

    fn learn(&mut self, _: &RowSet) {}

    fn classes(&self) -> Option<&[String]> {
        None
    }

    fn graph(&self, model: &ModelConfig, start: &Source, columns: usize) -> Result<Arc<dyn Task>> {
        let sentence = self.sentence(start.sentence_model()?, model.max_positions)?;
        let loss = match self.loss {
            LossChoice::Ranking { scale, symmetric } => {
                SentenceLoss::Ranking(Ranking { scale, symmetric })
            }
            LossChoice::Cosent { scale } => SentenceLoss::Scored(Scored::CoSent { scale }),
            LossChoice::Cosine => SentenceLoss::Scored(Scored::Cosine),
            LossChoice::Triplet { margin } => SentenceLoss::Triplets(Triplets {
                margin,
                normalized: sentence.is_normalized(),
            }),
        };
        if let Some(reason) = loss.refuses(columns) {
            bail!("the loss (--loss) {reason}: name fitting columns with --columns");
        }
        Ok(Arc::new(Sentences {
            model: model.clone(),
            pooling: sentence.pooling,
            columns,
            loss,
            matryoshka: self.matryoshka.clone(),
            gathered: self.mini_batch_size.is_some(),
        }))
    }

    fn measures(
        &self,
        tokenizer: &Tokenizer,
        cut: TextCut,
        shape: [usize; 2],
        kind: RowKind,
    ) -> Result<Option<Measures>> {
        let files = (!self.measures.is_empty()).then_some(&self.measures);
        files
            .map(|files| files.open(tokenizer, cut, shape, kind))
            .transpose()
    }

    fn head(&self, start: &Source, _: &Value, max_tokens: usize) -> Result<OutputHead> {
        let sentence = self.sentence(start.sentence_model()?, max_tokens)?;
        Ok(OutputHead::Sentence(sentence))
    }
}
