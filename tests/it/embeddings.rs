//! Sentence embeddings: losses and gradients against sentence-transformers' (golden cases made by
//! `tests/python/golden_embeddings.py`), and `mpnet finetune` end to end.

use std::collections::BTreeMap;
use std::path::Path;

use assert_cmd::Command;
use mpnet::data::MaskKey;
use mpnet::data::pairs::{Given, RowBatch};
use mpnet::train::engine::start;
use mpnet::train::execution::{AttentionKind, EngineKind, Execution};
use mpnet_graphs::lower::ort_training::Options;
use mpnet_graphs::model::config::{Activation, ModelConfig};
use mpnet_graphs::model::pooling::Pooling;
use mpnet_graphs::model::ranking::Ranking;
use mpnet_graphs::model::scored::Scored;
use mpnet_graphs::model::sentences::{SentenceLoss, Sentences};
use mpnet_graphs::model::task::LOSS_SUM;
use mpnet_graphs::model::triplets::Triplets;
use mpnet_graphs::model::{Objective, Task};
use mpnet_graphs::optimizer::adamw::AdamW;
use mpnet_plan::{Provider, names};
use mpnet_runtime::engine::NamedArray;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

use crate::common::{binary, failure, files, pretrain, repository, stdout};

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

/// The model of the cases.
fn model(about: &Value) -> ModelConfig {
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
        dropout: 0.0,
        attention_dropout: 0.0,
        activation_dropout: 0.0,
    }
}

/// The batch of update `update` of a case, of which every text counts.
fn batch(case: &SafeTensors, update: usize, columns: usize, triplets: bool) -> RowBatch {
    let tensor = |name: &str| case.tensor(&format!("{update}.{name}")).unwrap();
    let ids = tensor("input_ids");
    let attention_mask = integers(&tensor("attention_mask"));
    let rows = ids.shape()[0] / columns;
    RowBatch {
        rows,
        columns,
        length: ids.shape()[1],
        input_ids: integers(&ids),
        tokens: attention_mask.iter().filter(|m| **m == 1).count(),
        attention_mask,
        given: match case.tensor(&format!("{update}.labels")) {
            Ok(scores) => Given::Scores(floats(&scores).into_iter().map(|x| x as f32).collect()),
            Err(_) if triplets => Given::Nothing,
            Err(_) => Given::Candidates(vec![1; rows * rows * (columns - 1)]),
        },
    }
}

/// Ten updates of the case `name` on `engine`: every loss to 1e-5, the first update's gradients to 1e-4.
fn check(name: &str, engine: EngineKind, attention: AttentionKind) {
    let about: Value = serde_json::from_slice(&data("cases.json")).unwrap();
    let asked = &about["cases"][name];
    let columns = asked["columns"].as_u64().unwrap() as usize;
    let number = |name: &str| asked[name].as_f64().unwrap() as f32;
    let task = Sentences {
        model: model(&about),
        pooling: vec![match asked["pooling"].as_str().unwrap() {
            "cls" => Pooling::Cls,
            _ => Pooling::Mean,
        }],
        columns,
        loss: match asked["loss"].as_str().unwrap() {
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
            other => panic!("no loss {other}"),
        },
        matryoshka: match asked["matryoshka"].as_array() {
            Some(widths) => widths
                .iter()
                .map(|w| w.as_u64().unwrap() as usize)
                .collect(),
            None => Vec::new(),
        },
    };
    let bytes = data("model.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let initial = task.parameters().into_iter().map(|parameter| {
        let values = floats(&tensors.tensor(&parameter.name).unwrap());
        NamedArray {
            name: parameter.name,
            shape: parameter.shape,
            values: values.into_iter().map(|x| x as f32).collect(),
        }
    });
    let initial: Vec<NamedArray> = initial.collect();
    let number = |name: &str| about["optimizer"][name].as_f64().unwrap() as f32;
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
    let loaded = training_api.place().load(None).unwrap();
    let mut running = start(&loaded, &task, &options, &initial, &placement).unwrap();
    let bytes = data(&format!("{name}.safetensors"));
    let case = SafeTensors::deserialize(&bytes).unwrap();
    let losses = floats(&case.tensor("losses").unwrap());
    for (update, expected) in losses.iter().enumerate() {
        let triplets = matches!(task.loss, SentenceLoss::Triplets(_));
        let batch = batch(&case, update, columns, triplets);
        let outputs = running
            .train_step(&batch, batch.rows, MaskKey::default())
            .unwrap();
        let loss = outputs.figure(LOSS_SUM).unwrap() / batch.rows as f64;
        assert!(
            (loss - expected).abs() <= 1e-5 * expected.abs().max(1.0),
            "{name} on {engine:?}, update {update}: {loss}, not {expected}"
        );
        if update == 0 {
            for parameter in &initial {
                let expected = floats(&case.tensor(&format!("grad.{}", parameter.name)).unwrap());
                let found = outputs
                    .floats(&names::exposed_gradient(&parameter.name))
                    .unwrap();
                let scale = expected.iter().fold(0f64, |m, g| m.max(g.abs())).max(1e-3);
                for (found, expected) in found.iter().zip(&expected) {
                    assert!(
                        (f64::from(*found) - expected).abs() <= 1e-4 * scale,
                        "{name} on {engine:?}: {} is {found}, not {expected}",
                        parameter.name
                    );
                }
            }
        }
        running
            .engine
            .optimizer_step(about["rate"].as_f64().unwrap() as f32)
            .unwrap();
    }
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
        check(name, EngineKind::Session, AttentionKind::Fused);
        check(name, EngineKind::Session, AttentionKind::Expanded);
        check(name, EngineKind::TrainingApi, AttentionKind::Fused);
    }
}

/// Pairs of neighbouring lines of the example text.
fn pairs(path: &Path, lines: std::ops::Range<usize>) {
    let text = std::fs::read_to_string(repository("examples/corpus/train/00.txt")).unwrap();
    let text: Vec<&str> = text.lines().filter(|line| line.len() > 20).collect();
    let rows: String = lines
        .map(|at| {
            let row = serde_json::json!({ "anchor": text[2 * at], "positive": text[2 * at + 1] });
            format!("{row}\n")
        })
        .collect();
    std::fs::write(path, rows).unwrap();
}

/// What to measure embeddings by: the pairs of `train.jsonl` as a search, as triplets, and as scored pairs.
fn measures(folder: &Path) -> [&'static str; 10] {
    let rows = std::fs::read_to_string(folder.join("train.jsonl")).unwrap();
    let rows: Vec<Value> = rows
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let [mut queries, mut corpus, mut triplets, mut scored] = [(); 4].map(|()| String::new());
    let mut relevant = "query-id,corpus-id\n".to_owned();
    for (id, row) in rows.iter().enumerate() {
        let other = &rows[(id + 1) % rows.len()];
        let [anchor, positive, negative] = [&row["anchor"], &row["positive"], &other["positive"]];
        let line = |to: &mut String, value: Value| *to += &format!("{value}\n");
        line(
            &mut queries,
            serde_json::json!({ "id": id, "text": anchor }),
        );
        line(
            &mut corpus,
            serde_json::json!({ "id": format!("t{id}"), "text": positive }),
        );
        relevant += &format!("{id},t{id}\n");
        let triplet =
            serde_json::json!({ "anchor": anchor, "positive": positive, "negative": negative });
        line(&mut triplets, triplet);
        for (second, score) in [(positive, 1.0), (negative, 0.25)] {
            let pair =
                serde_json::json!({ "sentence1": anchor, "sentence2": second, "score": score });
            line(&mut scored, pair);
        }
    }
    for (name, content) in [
        ("queries.jsonl", queries),
        ("corpus.jsonl", corpus),
        ("relevant.csv", relevant),
        ("triplets.jsonl", triplets),
        ("scored.jsonl", scored),
    ] {
        std::fs::write(folder.join(name), content).unwrap();
    }
    [
        "--queries",
        "queries.jsonl",
        "--corpus",
        "corpus.jsonl",
        "--relevant",
        "relevant.csv",
        "--triplets",
        "triplets.jsonl",
        "--scored-pairs",
        "scored.jsonl",
    ]
}

/// A tiny model, pretrained for a moment in `folder`, and pairs to train it on.
fn material(folder: &Path) {
    stdout(&mut pretrain(folder, &["--total-updates", "2"]));
    std::fs::rename(folder.join("out"), folder.join("start")).unwrap();
    pairs(&folder.join("train.jsonl"), 0..40);
    pairs(&folder.join("valid.jsonl"), 40..56);
}

/// `mpnet finetune` on that.
fn finetune(folder: &Path, further: &[&str]) -> Command {
    let mut command = binary("mpnet", folder);
    command
        .args(["finetune", "start", "--task", "embeddings"])
        .args([
            "--train-pairs",
            "train.jsonl",
            "--valid-pairs",
            "valid.jsonl",
        ])
        .args([
            "--checkpoint-dir",
            "out",
            "--output",
            "model",
            "--threads",
            "2",
        ])
        .args(["--batch-size", "8", "--lr", "1e-3", "--max-tokens", "24"])
        .args(["--end-learning-rate", "1e-3", "--warmup-updates", "0"])
        .args(further);
    command
}

#[test]
fn a_short_run_learns_and_leaves_a_folder_for_sentence_transformers() {
    let folder = tempfile::tempdir().unwrap();
    material(folder.path());
    let settings = [
        "--total-updates",
        "20",
        "--eval-interval-steps",
        "10",
        "--normalize",
        // What it trains on, which so few rows teach it by heart.
        "--valid-pairs",
        "train.jsonl",
    ];
    let measures = measures(folder.path());
    let printed = stdout(finetune(folder.path(), &settings).args(measures));
    let losses: Vec<f64> = printed
        .lines()
        .filter_map(|line| line.split_once("| loss ")?.1.split_once(" nats per row"))
        .map(|(loss, _)| loss.parse().unwrap())
        .collect();
    assert_eq!(losses.len(), 3, "{printed}");
    assert!(losses[2] < losses[0] - 0.5, "{losses:?}");
    let written: Vec<String> = files(&folder.path().join("model"))
        .keys()
        .map(|p| p.display().to_string())
        .collect();
    let expected = [
        "1_Pooling/config.json",
        "README.md",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    for name in expected {
        assert!(written.contains(&name.to_owned()), "no {name}: {written:?}");
    }
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(folder.path().join("model").join(name)).unwrap())
            .unwrap()
    };
    assert_eq!(read("sentence_bert_config.json")["max_seq_length"], 24);
    assert_eq!(
        read("1_Pooling/config.json")["pooling_mode_mean_tokens"],
        true
    );
    let modules = read("modules.json");
    let last = modules.as_array().unwrap().last().unwrap();
    assert_eq!(last["type"], "sentence_transformers.models.Normalize");
    // What is not trained is as it was, and the checkpoint is one of the whole model.
    let head = |path: &str| {
        let bytes = std::fs::read(folder.path().join(path)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let of = |name: &str| tensors.tensor(name).unwrap().data().to_vec();
        (
            of("lm_head.dense.weight"),
            of("sentence_encoder.layers.0.fc1.weight"),
        )
    };
    let (before, after) = (
        head("start/checkpoint-2/model.safetensors"),
        head("out/checkpoint-20/model.safetensors"),
    );
    assert_eq!(before.0, after.0);
    assert_ne!(before.1, after.1);
    // The report and the exports take it.
    let mut report = binary("mpnet", folder.path());
    stdout(report.args(["report", "out"]));
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(page.contains("Loss, nats per row"));
    assert!(page.contains("Measures of embeddings"));
    // What it was measured by, it is by the folder that came out.
    let figures = |line: &str| -> BTreeMap<String, f64> {
        line.split(" | ")
            .filter_map(|part| part.split_once(' '))
            .filter(|(name, _)| ["spearman", "triplets", "ndcg@10", "recall@10"].contains(name))
            .map(|(name, figure)| (name.to_owned(), figure.trim().parse().unwrap()))
            .collect()
    };
    let validated: Vec<BTreeMap<String, f64>> = printed
        .lines()
        .filter(|line| line.starts_with("validation"))
        .map(figures)
        .collect();
    assert_eq!((validated.len(), validated[0].len()), (3, 4), "{printed}");
    for (name, before) in &validated[0] {
        assert!(validated[2][name] > *before, "{name}: {printed}");
    }
    let mut eval = binary("mpnet", folder.path());
    eval.args(["eval", "model", "--task", "embeddings"])
        .args(measures);
    assert_eq!(figures(&stdout(&mut eval)), validated[2]);
    let said = failure(binary("mpnet", folder.path()).args(["eval", "model"]), 2);
    assert!(said.contains("--text"), "{said}");
}

#[test]
fn a_resumed_run_is_the_run_that_was_not_stopped() {
    let straight = tempfile::tempdir().unwrap();
    material(straight.path());
    let stopped = tempfile::tempdir().unwrap();
    material(stopped.path());
    let every = ["--eval-interval-steps", "6", "--total-updates"];
    let run = |folder: &Path, further: &[&str]| {
        stdout(&mut finetune(folder, &[&every[..], further].concat()));
    };
    run(straight.path(), &["12"]);
    run(stopped.path(), &["6"]);
    run(stopped.path(), &["12", "--resume"]);
    let expected = |folder: &Path| files(&folder.join("out/checkpoint-12"));
    let all: BTreeMap<_, _> = expected(straight.path());
    assert!(all.len() > 5);
    assert_eq!(all, expected(stopped.path()));
    let model = |folder: &Path| {
        let mut files = files(&folder.join("model"));
        // The card names the folder of the checkpoint.
        files.remove(Path::new("README.md"));
        files
    };
    assert_eq!(model(straight.path()), model(stopped.path()));
    let said = failure(
        &mut finetune(
            stopped.path(),
            &["--total-updates", "14", "--resume", "--scale", "5"],
        ),
        1,
    );
    assert!(said.contains("--scale was 20 and is now 5"), "{said}");
}

#[test]
fn what_cannot_be_trained_is_refused_before_anything_is_spent() {
    let folder = tempfile::tempdir().unwrap();
    material(folder.path());
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    std::fs::write(folder.path().join("taken/thesis.tex"), "mine").unwrap();
    std::fs::write(
        folder.path().join("one.jsonl"),
        "{\"anchor\": \"a\", \"positive\": \"b\"}\n",
    )
    .unwrap();
    for (further, code, said) in [
        (&["--columns", "question"][..], 2, "anchor and a positive"),
        (&["--columns", "anchor,none"], 1, "\"none\""),
        (&["--train-pairs", "one.jsonl"], 1, "it has 1 rows"),
        (&["--train-pairs", "nowhere.jsonl"], 1, "--train-pairs"),
        (&["--batch-size", "1"], 2, "--batch-size 1"),
        (
            &["--batch-size", "41"],
            1,
            "--batch-size 41 is more than the 40 rows",
        ),
        (&["--max-tokens", "4000"], 2, "positions"),
        (&["--output", "taken"], 1, "taken"),
        (&["--matryoshka", "64,129"], 2, "--matryoshka 129"),
        (&["--dataset-name", "a/b"], 2, "both name rows"),
        (&["--task", "poetry"], 2, "poetry"),
    ] {
        let told = failure(&mut finetune(folder.path(), further), code);
        assert!(told.contains(said), "{further:?}: {told}");
    }
    assert!(!folder.path().join("out").exists());
    assert!(!folder.path().join("model").exists());
}
