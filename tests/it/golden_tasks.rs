//! Tasks of rows against what sentence-transformers and transformers compute: golden cases made by
//! `tests/python/golden_embeddings.py`.

use std::sync::Arc;

use mpnet::data::MaskKey;
use mpnet::data::pairs::{Given, Part, RowBatch};
use mpnet::train::engine::{Running, start};
use mpnet::train::execution::{AttentionKind, EngineKind, Execution, Requested};
use mpnet::train::micro_batch::{MicroBatch, Outputs};
use mpnet_graphs::lower::ort_training::Options;
use mpnet_graphs::model::classification::Classification;
use mpnet_graphs::model::config::{Activation, ModelConfig};
use mpnet_graphs::model::gathering::{GIVEN, POOLED};
use mpnet_graphs::model::pooling::Pooling;
use mpnet_graphs::model::ranking::Ranking;
use mpnet_graphs::model::scored::Scored;
use mpnet_graphs::model::sentences::{SentenceLoss, Sentences};
use mpnet_graphs::model::task::LOSS_SUM;
use mpnet_graphs::model::triplets::Triplets;
use mpnet_graphs::model::{Objective, Task};
use mpnet_graphs::optimizer::adamw::AdamW;
use mpnet_plan::{Provider, names};
use mpnet_runtime::engine::{NamedArray, Tensor, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

use crate::common::repository;

fn data(name: &str) -> Vec<u8> {
    std::fs::read(repository("tests/data/embeddings").join(name)).unwrap()
}

fn floats(view: &TensorView) -> Vec<f64> {
    match view.data().len() / view.shape().iter().product::<usize>().max(1) {
        4 => {
            let (chunks, _) = view.data().as_chunks::<4>();
            chunks
                .iter()
                .map(|b| f32::from_le_bytes(*b).into())
                .collect()
        }
        _ => {
            let (chunks, _) = view.data().as_chunks::<8>();
            chunks.iter().map(|b| f64::from_le_bytes(*b)).collect()
        }
    }
}

fn integers(view: &TensorView) -> Vec<i64> {
    let (chunks, _) = view.data().as_chunks::<8>();
    chunks.iter().map(|b| i64::from_le_bytes(*b)).collect()
}

/// The model of the cases, with so much dropout.
fn model(about: &Value, dropout: f32) -> ModelConfig {
    let size = |name: &str| about["model"][name].as_u64().unwrap() as usize;
    ModelConfig {
        encoder_layers: size("layers"),
        encoder_embed_dim: size("width"),
        encoder_ffn_dim: size("ffn"),
        encoder_attention_heads: size("heads"),
        activation_fn: Activation::Gelu,
        normalize_before: false,
        max_positions: size("positions"),
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        vocab_size: size("vocabulary"),
        padded_vocab_size: size("vocabulary"),
        pad_token_id: 1,
        bos_token_id: 0,
        eos_token_id: 2,
        unk_token_id: 3,
        mask_token_id: size("vocabulary") as i64 - 1,
        objective: Objective::default(),
        dropout,
        attention_dropout: dropout,
        activation_dropout: dropout,
    }
}

/// A golden case.
struct Case {
    about: Value,
    name: &'static str,
    bytes: Vec<u8>,
}

impl Case {
    fn open(name: &'static str) -> Case {
        Case {
            about: serde_json::from_slice(&data("cases.json")).unwrap(),
            name,
            bytes: data(&format!("{name}.safetensors")),
        }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    fn asked(&self) -> &Value {
        &self.about["cases"][self.name]
    }

    fn columns(&self) -> usize {
        self.asked()["columns"].as_u64().unwrap() as usize
    }

    /// What it trains; `gathered` where batches come in parts.
    fn task(&self, gathered: bool, dropout: f32) -> Arc<dyn Task> {
        let asked = self.asked();
        let number = |name: &str| asked[name].as_f64().unwrap() as f32;
        let model = model(&self.about, dropout);
        let loss = match asked["loss"].as_str().unwrap() {
            "ranking" => SentenceLoss::Ranking(Ranking {
                scale: number("scale"),
                symmetric: asked["symmetric"].as_bool().unwrap(),
            }),
            "cosent" => SentenceLoss::Scored(Scored::CoSent {
                scale: number("scale"),
            }),
            "cosine" => SentenceLoss::Scored(Scored::Cosine),
            "triplet" => SentenceLoss::Triplets(Triplets {
                margin: number("margin"),
                normalized: false,
            }),
            "classes" => {
                return Arc::new(Classification {
                    model,
                    classes: number("classes") as usize,
                });
            }
            other => panic!("no loss {other}"),
        };
        let widths = asked["matryoshka"].as_array().into_iter().flatten();
        Arc::new(Sentences {
            model,
            pooling: vec![match asked["pooling"].as_str().unwrap() {
                "cls" => Pooling::Cls,
                _ => Pooling::Mean,
            }],
            columns: self.columns(),
            loss,
            matryoshka: widths.map(|w| w.as_u64().unwrap() as usize).collect(),
            gathered,
        })
    }

    /// The batch of update `update`, of which every text counts.
    fn batch(&self, update: usize) -> RowBatch {
        let (case, columns) = (self.tensors(), self.columns());
        let tensor = |name: &str| case.tensor(&format!("{update}.{name}"));
        let ids = tensor("input_ids").unwrap();
        let attention_mask = integers(&tensor("attention_mask").unwrap());
        let rows = ids.shape()[0] / columns;
        RowBatch {
            rows,
            columns,
            length: ids.shape()[1],
            input_ids: integers(&ids),
            tokens: attention_mask.iter().filter(|m| **m == 1).count(),
            attention_mask,
            given: match (self.asked()["loss"].as_str().unwrap(), tensor("labels")) {
                ("classes", Ok(places)) => Given::Classes(integers(&places)),
                (_, Ok(scores)) => {
                    Given::Scores(floats(&scores).into_iter().map(|x| x as f32).collect())
                }
                ("triplet", Err(_)) => Given::Nothing,
                (_, Err(_)) => Given::Candidates(vec![1; rows * rows * (columns - 1)]),
            },
        }
    }

    fn losses(&self) -> Vec<f64> {
        floats(&self.tensors().tensor("losses").unwrap())
    }

    /// `task` on an engine, with the parameters that the case starts from.
    fn start(&self, task: &Arc<dyn Task>, engine: EngineKind, attention: AttentionKind) -> Running {
        let bytes = data("model.safetensors");
        let (model, own) = (SafeTensors::deserialize(&bytes).unwrap(), self.tensors());
        let initial = task.parameters().into_iter().map(|parameter| {
            let own = own.tensor(&format!("start.{}", parameter.name));
            let values = floats(&own.or_else(|_| model.tensor(&parameter.name)).unwrap());
            NamedArray {
                name: parameter.name,
                shape: parameter.shape,
                values: values.into_iter().map(|x| x as f32).collect(),
            }
        });
        let initial: Vec<NamedArray> = initial.collect();
        let number = |name: &str| self.about["optimizer"][name].as_f64().unwrap() as f32;
        let options = Options {
            optimizer: AdamW {
                beta1: number("beta1"),
                beta2: number("beta2"),
                epsilon: number("epsilon"),
                weight_decay: number("weight_decay"),
                clip_grad_norm: number("clip_grad_norm"),
            },
            gradient_checkpointing: false,
            expose: true,
        };
        let execution = Execution {
            engine,
            attention,
            provider: Some(Provider::Cpu),
            threads: Some(2),
            ..Execution::default()
        };
        let placement = execution.place();
        // A process has one build: this one has both engines.
        let training_api = Execution {
            engine: EngineKind::TrainingApi,
            ..execution
        };
        let loaded = training_api.place().load(Requested::default()).unwrap();
        start(&loaded, task, &options, &initial, &placement).unwrap()
    }

    fn update(&self, running: &mut Running) {
        let rate = self.about["rate"].as_f64().unwrap() as f32;
        running.engine.optimizer_step(rate).unwrap();
    }

    /// That `loss` is the one of that update to 1e-5, and the first one's gradients are the case's to 1e-4.
    fn compare(&self, update: usize, loss: f64, outputs: &Outputs, task: &dyn Task) {
        let expected = self.losses()[update];
        assert!(
            (loss - expected).abs() <= 1e-5 * expected.abs().max(1.0),
            "{}, update {update}: {loss}, not {expected}",
            self.name
        );
        if update > 0 {
            return;
        }
        for parameter in task.parameters() {
            let name = format!("grad.{}", parameter.name);
            let expected = floats(&self.tensors().tensor(&name).unwrap());
            let found = gradient(outputs, &parameter.name);
            assert_near(
                &found,
                &expected,
                1e-4,
                &format!("{} of {}", self.name, parameter.name),
            );
        }
    }
}

fn gradient(outputs: &Outputs, parameter: &str) -> Vec<f64> {
    let name = names::exposed_gradient(parameter);
    let found = outputs.floats(&name).unwrap().iter();
    found.map(|x| f64::from(*x)).collect()
}

/// That numbers differ by `tolerance` of the largest at most.
fn assert_near(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0f64, |m, g| m.max(g.abs())).max(1e-3);
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= tolerance * scale,
            "{what}: {found}, not {expected}"
        );
    }
}

/// Ten updates of the case `name`.
fn check(name: &'static str, engine: EngineKind, attention: AttentionKind) {
    let case = Case::open(name);
    let task = case.task(false, 0.0);
    let mut running = case.start(&task, engine, attention);
    for update in 0..case.losses().len() {
        let batch = case.batch(update);
        let outputs = running
            .train_step(&batch, batch.rows, MaskKey::default())
            .unwrap();
        let loss = outputs.figure(LOSS_SUM).unwrap() / batch.rows as f64;
        case.compare(update, loss, &outputs, &task);
        case.update(&mut running);
    }
}

fn check_on_both_engines(name: &'static str) {
    check(name, EngineKind::Session, AttentionKind::Fused);
    check(name, EngineKind::Session, AttentionKind::Expanded);
    check(name, EngineKind::TrainingApi, AttentionKind::Fused);
}

#[test]
fn losses_and_gradients_are_sentence_transformers() {
    for name in [
        "pairs",
        "symmetric",
        "negatives",
        "matryoshka",
        "cosent",
        "cosine",
        "triplet",
        "triplet-matryoshka",
    ] {
        check_on_both_engines(name);
    }
}

#[test]
fn classes_are_transformers() {
    check_on_both_engines("classes");
}

/// The rows `first..` of `whole`, so many, as a part of it.
fn part(whole: &RowBatch, first: usize, rows: usize, width: usize) -> RowBatch {
    let texts = (0..whole.columns).flat_map(|c| (first..first + rows).map(move |r| (c, r)));
    let of = |all: &[i64]| -> Vec<i64> {
        let text = |(column, row): (usize, usize)| {
            all[(column * whole.rows + row) * whole.length..][..whole.length].to_vec()
        };
        texts.clone().flat_map(text).collect()
    };
    let Given::Candidates(candidates) = &whole.given else {
        panic!("it has no candidates")
    };
    RowBatch {
        rows,
        input_ids: of(&whole.input_ids),
        attention_mask: of(&whole.attention_mask),
        given: Given::Part(Part {
            candidates: candidates.clone().into(),
            rows: whole.rows,
            first,
            width,
        }),
        ..whole.clone()
    }
}

/// `whole` in parts of these rows, as the training loop trains on them. Returns the loss of a row, and what the last step
/// gave, in which all gradients are.
fn train_in_parts(
    running: &mut Running,
    whole: &RowBatch,
    parts: &[usize],
    width: usize,
) -> (f64, Outputs) {
    let mut batches = Vec::new();
    let mut first = 0;
    for rows in parts {
        batches.push(part(whole, first, *rows, width));
        first += rows;
    }
    let key = |index: usize| MaskKey {
        micro_batch: index as u32,
        ..MaskKey::default()
    };
    let mut all = vec![0.0; whole.columns * whole.rows * width];
    for (index, batch) in batches.iter().enumerate() {
        let gathers = batch.gathers().unwrap();
        let rows = running.given_rows(&gathers, key(index)).unwrap();
        for (row, place) in rows.chunks(width).zip(&gathers.places) {
            all[place * width..][..width].copy_from_slice(row);
        }
    }
    let given = Tensor {
        name: GIVEN.to_owned(),
        shape: vec![whole.columns * whole.rows, width],
        data: TensorData::F32(all.clone()),
    };
    let (mut sum, mut last) = (0.0, None);
    for (index, batch) in batches.iter().enumerate() {
        let outputs = running
            .train_step_given(batch, whole.rows, key(index), Some(&given))
            .unwrap();
        sum += outputs.figure(LOSS_SUM).unwrap();
        // What was embedded before is what is trained on, dropout included.
        let places = batch.gathers().unwrap().places;
        let own = outputs.floats(POOLED).unwrap().chunks(width);
        for (row, place) in own.zip(places) {
            let before = &all[place * width..][..width];
            assert!(row.iter().zip(before).all(|(a, b)| (a - b).abs() < 1e-5));
        }
        last = Some(outputs);
    }
    (sum / whole.rows as f64, last.unwrap())
}

/// A batch in parts has the losses of sentence-transformers, and the gradients of the batch at once to 1e-6.
#[test]
fn a_batch_in_parts_is_the_batch() {
    for (name, parts) in [
        ("pairs", &[2, 2][..]),
        ("symmetric", &[1, 3]),
        ("negatives", &[3, 1]),
        ("matryoshka", &[1, 1, 1, 1]),
    ] {
        for engine in [EngineKind::Session, EngineKind::TrainingApi] {
            let case = Case::open(name);
            let task = case.task(true, 0.0);
            let mut running = case.start(&task, engine, AttentionKind::Fused);
            let plain = case.task(false, 0.0);
            let mut at_once = case.start(&plain, engine, AttentionKind::Fused);
            for update in 0..case.losses().len() {
                let whole = case.batch(update);
                let (loss, outputs) = train_in_parts(&mut running, &whole, parts, 16);
                case.compare(update, loss, &outputs, &task);
                if update == 0 {
                    let expected = at_once
                        .train_step(&whole, whole.rows, MaskKey::default())
                        .unwrap();
                    for parameter in task.parameters() {
                        let name = &parameter.name;
                        let [found, expected] = [&outputs, &expected].map(|o| gradient(o, name));
                        assert_near(&found, &expected, 1e-6, name);
                    }
                }
                case.update(&mut running);
            }
        }
    }
}

/// What is embedded first has the dropout of what is trained on then, and leaves no gradient.
#[test]
fn parts_have_one_dropout() {
    let case = Case::open("pairs");
    for engine in [EngineKind::Session, EngineKind::TrainingApi] {
        let task = case.task(true, 0.3);
        let mut running = case.start(&task, engine, AttentionKind::Fused);
        let whole = case.batch(0);
        let (with, outputs) = train_in_parts(&mut running, &whole, &[2, 2], 16);
        assert!((with - case.losses()[0]).abs() > 1e-3, "{with}");
        let first = gradient(&outputs, "sentence_encoder.layers.0.fc1.weight");
        assert!(first.iter().any(|x| x.abs() > 1e-6));
    }
}
