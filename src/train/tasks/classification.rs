//! Classes of texts as a run's task: their names, and the model that comes out.

use super::RowTask;
use crate::convert::source::Source;
use crate::convert::{OutputHead, TaskHead};
use crate::data::Tokenizer;
use crate::data::pairs::{RowKind, RowSet, TextCut};
use crate::train::log::record::LossUnit;
use crate::train::measures::Measures;
use anyhow::{Context, Result};
use mpnet_graphs::model::Task;
use mpnet_graphs::model::classification;
use mpnet_graphs::model::config::ModelConfig;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Settings of classification.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Classification {
    /// The names of the classes, once rows are read.
    pub labels: Vec<String>,
}

impl Classification {
    fn of(&self, model: &ModelConfig) -> classification::Classification {
        classification::Classification {
            model: model.clone(),
            classes: self.labels.len(),
        }
    }
}

impl RowTask for Classification {
    fn kind(&self, _: &Source) -> Result<RowKind> {
        Ok(RowKind::Classified)
    }

    fn usual_columns(&self) -> &'static [&'static [&'static str]] {
        &[
            &["text", "label"],
            &["sentence", "label"],
            &["sentence1", "sentence2", "label"],
            &["premise", "hypothesis", "label"],
        ]
    }

    fn unit(&self) -> LossUnit {
        LossUnit::NatsPerRow
    }

    fn cut(&self, _: &Source, max_tokens: usize) -> Result<TextCut> {
        Ok(TextCut {
            max_tokens,
            lower_case: false,
        })
    }

    fn learn(&mut self, rows: &RowSet) {
        self.labels = rows.classes().to_vec();
    }

    fn classes(&self) -> Option<&[String]> {
        (!self.labels.is_empty()).then_some(&self.labels)
    }

    fn graph(&self, model: &ModelConfig, _: &Source, _: usize) -> Result<Arc<dyn Task>> {
        Ok(Arc::new(self.of(model)))
    }

    fn measures(
        &self,
        _: &Tokenizer,
        _: TextCut,
        _: [usize; 2],
        _: RowKind,
    ) -> Result<Option<Measures>> {
        Ok(None)
    }

    fn head(&self, start: &Source, run: &Value, max_tokens: usize) -> Result<OutputHead> {
        let labels: Vec<String> = match run.get("labels") {
            Some(labels) => serde_json::from_value(labels.clone())
                .context("the names of the classes in a checkpoint")?,
            None => Vec::new(),
        };
        let (mut names, mut places) = (Map::new(), Map::new());
        for (place, label) in labels.iter().enumerate() {
            names.insert(place.to_string(), json!(label));
            places.insert(label.clone(), json!(place));
        }
        let head = Classification { labels }.of(&start.model).head();
        Ok(OutputHead::Task(TaskHead {
            class: "MPNetForSequenceClassification",
            pipeline: "text-classification",
            parameters: head.into_iter().map(|parameter| parameter.name).collect(),
            config: Map::from_iter([
                ("id2label".to_owned(), Value::Object(names)),
                ("label2id".to_owned(), Value::Object(places)),
                (
                    "problem_type".to_owned(),
                    json!("single_label_classification"),
                ),
            ]),
            max_tokens,
        }))
    }
}
