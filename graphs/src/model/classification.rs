//! Classes of texts, as transformers' `MPNetForSequenceClassification` has them: a layer with tanh over the first token's
//! hidden state, and one with an output for each class.

use super::builder::{AttentionForm, Builder};
use super::config::ModelConfig;
use super::loss::{cross_entropy, hits};
use super::parameters::{Init, Parameter, encoder_parameters};
use super::pooling::{Pooling, SentenceHead, embed_texts};
use super::pretraining::{ATTENTION_MASK, INPUT_IDS};
use super::single_stream::{Encoded, encode};
use super::task::{CLASSES, CORRECT, LOGITS, LossGraph, Task, TwoStreams};
use crate::ir::{DType, GraphError, Symbol, Type};

const DENSE: &str = "classifier.dense";
const OUTPUT: &str = "classifier.out_proj";

/// Classes of texts, as a task: of B rows of one text each.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    pub model: ModelConfig,
    /// How many there are.
    pub classes: usize,
}

impl Classification {
    /// The parameters behind the encoder, which transformers calls alike.
    pub fn head(&self) -> Vec<Parameter> {
        let width = self.model.encoder_embed_dim;
        [(DENSE, width), (OUTPUT, self.classes)]
            .into_iter()
            .flat_map(|(layer, outputs)| {
                let normal = Init::Normal { zero_row: None };
                let parameter = |part: &str, shape: Vec<usize>, init| Parameter {
                    name: format!("{layer}.{part}"),
                    shape,
                    init,
                };
                [
                    parameter("weight", vec![outputs, width], normal),
                    parameter("bias", vec![outputs], Init::Zeros),
                ]
            })
            .collect()
    }
}

impl Task for Classification {
    fn parameters(&self) -> Vec<Parameter> {
        let mut all = encoder_parameters(&self.model);
        all.extend(self.head());
        all
    }

    fn symbols(&self) -> &'static [Symbol] {
        &[Symbol::BATCH, Symbol::LENGTH]
    }

    fn two_streams(&self) -> Option<TwoStreams> {
        Some(TwoStreams::of(&self.model))
    }

    fn loss(&self, training: bool, attention: AttentionForm) -> Result<LossGraph, GraphError> {
        if self.classes < 2 {
            return Err(GraphError::Description(
                "there are fewer than two classes".to_owned(),
            ));
        }
        let mut b = Builder::of(&self.model, self.parameters(), training)?;
        let texts = [Symbol::BATCH.into(), Symbol::LENGTH.into()];
        let ty = Type::new(DType::I64, texts);
        let input_ids = b.graph.input(INPUT_IDS, ty.clone());
        let attention_mask = b.graph.input(ATTENTION_MASK, ty);
        let ty = Type::new(DType::I64, [Symbol::BATCH.into()]);
        let classes = b.graph.input(CLASSES, ty);

        let keep = b.graph.cast(attention_mask, DType::Bool)?; // [B, L]
        let Encoded {
            hidden,
            checkpoints,
        } = encode(&mut b, input_ids, keep, attention)?;
        let first = SentenceHead {
            pooling: vec![Pooling::Cls],
            steps: Vec::new(),
        };
        let x = embed_texts(&mut b, hidden, keep, &first)?; // [B, D]
        let dropout = self.model.dropout;
        let x = b.dropout(x, dropout, "classifier.hidden")?;
        let x = b.linear(x, DENSE)?;
        let x = b.graph.tanh(x)?;
        let x = b.dropout(x, dropout, "classifier.dense")?;
        let logits = b.linear(x, OUTPUT)?; // [B, classes]
        let loss_sum = cross_entropy(&mut b.graph, logits, classes)?;
        let best = b.graph.argmax(logits)?;
        let correct = hits(&mut b.graph, best, classes)?;
        Ok(LossGraph {
            graph: b.graph,
            loss_sum,
            objective: None,
            figures: vec![(CORRECT, correct)],
            stepped: Vec::new(),
            evaluated: Vec::new(),
            exposed: vec![(LOGITS, logits)],
            sites: b.sites,
            checkpoints,
        })
    }
}
