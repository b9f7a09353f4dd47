//! The session engine end to end: golden cases on an ordinary build, and runs that go from one engine to
//! the other.

use std::path::Path;

use mpnet::cli::model_file::preset_model;
use mpnet::cli::presets::Preset;
use mpnet::data::MaskKey;
use mpnet::data::synthetic::synthetic_batch;
use mpnet::initialize::initial_parameters;
use mpnet::train::engine::start;
use mpnet::train::execution::{EngineKind, Execution, Requested};
use mpnet::train::micro_batch::MicroBatch as _;
use mpnet::train::placement::Placement;
use mpnet_graphs::lower::ort_training::Options;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::task::LOSS_SUM;
use mpnet_graphs::optimizer::adamw::AdamW;
use mpnet_plan::Provider;
use serde_json::Value;

use crate::common::{binary, pretrain, repository, stdout};

const CASES: [&str; 6] = [
    "golden/postln-gelu",
    "golden/postln-padded",
    "golden/preln-relu",
    "golden-modes/plm",
    "golden-modes/mlm-padded",
    "golden-modes/return-mlm",
];

/// On the ordinary build that is pinned: fp32 at the tolerances of the training API, with attention in
/// ordinary operators and as one of ours, fp16 at its own.
#[test]
fn every_golden_case_passes_in_fp32_and_fp16() {
    for (precision, attention) in [("fp32", "expanded"), ("fp32", "fused"), ("fp16", "fused")] {
        let mut command = binary("mpnet", &repository(""));
        command.args(["verify", "--engine", "session", "--precision", precision]);
        command.args(["--attention", attention]);
        for name in CASES {
            command
                .arg("--case")
                .arg(repository("tests/data").join(name));
        }
        let printed = stdout(&mut command);
        let passed = printed.matches(" 0 outside their tolerance").count();
        assert_eq!(passed, CASES.len(), "{printed}");
    }
}

/// Updates of a run, with a checkpoint in the middle.
const UPDATES: usize = 20;

/// The loss of every update, in bits, as `metrics.jsonl` has them: with all their places.
fn losses(folder: &Path) -> Vec<f64> {
    let metrics = std::fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|record| record["kind"] == "train")
        .map(|record| record["loss"].as_f64().unwrap())
        .collect()
}

/// What is left of [`UPDATES`] on `engine`, from the start or from a checkpoint.
fn train(folder: &Path, engine: &str, further: &[&str]) -> Vec<f64> {
    let mut command = pretrain(folder, &["--engine", engine]);
    let (updates, half) = (UPDATES.to_string(), (UPDATES / 2).to_string());
    command
        .args(["--total-updates", &updates, "--save_steps", &half])
        .args(["--logging-steps", "1", "--eval-interval-steps", "100"])
        .args(further);
    stdout(&mut command);
    losses(folder)
}

/// To 1e-5 of their size, which is some 1e-4 bits.
fn assert_equal(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-5 * b, "{found:?}, not {expected:?}");
    }
}

#[test]
fn a_run_goes_on_with_the_other_engine_as_if_it_were_the_same() {
    let engines = ["training-api", "session"];
    let runs = engines.map(|engine| {
        let folder = tempfile::tempdir().unwrap();
        let losses = train(folder.path(), engine, &[]);
        assert_eq!(losses.len(), UPDATES);
        (folder, losses)
    });
    assert_equal(&runs[1].1, &runs[0].1);
    // Attention in ordinary operators drops the same weights as ours.
    let folder = tempfile::tempdir().unwrap();
    let expanded = train(folder.path(), "session", &["--attention", "expanded"]);
    assert_equal(&expanded, &runs[0].1);
    for (from, to) in [(0, 1), (1, 0)] {
        let checkpoint = format!("out/checkpoint-{}", UPDATES / 2);
        let checkpoint = runs[from].0.path().join(checkpoint);
        let resume = |further: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            let path = checkpoint.to_str().unwrap();
            let resume = ["--resume", "--resume-checkpoint", path];
            let found = train(folder.path(), engines[to], &[&resume, further].concat());
            assert_eq!(found.len(), UPDATES / 2);
            found
        };
        let expected = &runs[from].1[UPDATES / 2..];
        assert_equal(&resume(&[]), expected);
        // Another rate of learning is seen in the losses: that they are equal says something.
        let other = resume(&["--override", "--lr", "1.01e-3"]);
        let apart = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-5 * b;
        assert!(other.iter().zip(expected).any(apart), "{other:?}");
    }
}

/// Layers that are computed again give the same bits: same losses to the last digit, same parameters.
#[test]
fn gradient_checkpointing_changes_nothing_but_memory() {
    for engine in ["training-api", "session"] {
        let run = |further: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            let mut command = pretrain(
                folder.path(),
                &["--engine", engine, "--total-updates", "3", "--threads", "1"],
            );
            stdout(command.args(["--logging-steps", "1"]).args(further));
            let saved = folder.path().join("out/checkpoint-3/model.safetensors");
            std::fs::read(saved).unwrap()
        };
        assert!(run(&[]) == run(&["--gradient-checkpointing"]), "{engine}");
    }
}

/// The parameters and moments after a few updates are the same to the bit with 1, 2 and 4 threads, and twice: no sum's
/// order depends on how the work is shared out. (The training API's products are not ours.)
#[test]
fn any_number_of_threads_makes_the_same_updates() {
    let doctor = binary("mpnet", &repository("")).arg("doctor").output();
    let doctor = String::from_utf8(doctor.unwrap().stdout).unwrap();
    let mut precisions = vec!["fp32"];
    match doctor.contains("multiplies matrices in bf16") {
        true => precisions.push("bf16"),
        false => eprintln!("SKIPPED: this processor has no instructions for bf16"),
    }
    for precision in precisions {
        let run = |threads: &str| {
            let folder = tempfile::tempdir().unwrap();
            let mut command = pretrain(folder.path(), &["--total-updates", "3"]);
            command.args(["--provider", "cpu", "--precision", precision]);
            stdout(command.args(["--threads", threads]));
            let read = |name: &str| {
                let path = folder.path().join("out/checkpoint-3").join(name);
                std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            };
            ["model.safetensors", "optimizer.safetensors"].map(read)
        };
        let alone = run("1");
        for threads in ["1", "2", "4"] {
            assert!(run(threads) == alone, "{threads} threads in {precision}");
        }
    }
}

/// Layers that normalize before they compute leave the stream's mean as it is. ONNX Runtime's own normalization had
/// nothing left of the variance beside a mean of 1,000, up to 1.26, and gave NaN.
#[test]
fn a_residual_stream_with_a_mean_of_1000_trains_on_the_default_build() {
    let config = ModelConfig {
        normalize_before: true,
        dropout: 0.0,
        attention_dropout: 0.0,
        activation_dropout: 0.0,
        ..preset_model(Preset::Tiny)
    };
    let mut initial = initial_parameters(&config, 1);
    let bias = "sentence_encoder.emb_layer_norm.bias";
    let bias = initial.iter_mut().find(|array| array.name == bias);
    bias.unwrap().values.fill(1000.0);
    let execution = Execution {
        provider: Some(Provider::Cpu),
        threads: Some(1),
        ..Execution::default()
    };
    let placement = execution.place();
    let loaded = placement.load(Requested::default()).unwrap();
    let batch = synthetic_batch(&config, &[32, 32], 0);
    for engine in [EngineKind::Auto, EngineKind::TrainingApi] {
        if engine == EngineKind::TrainingApi && !loaded.has_training_api {
            eprintln!("SKIPPED: the default build has no training API");
            continue;
        }
        let options = Options {
            optimizer: AdamW::default(),
            gradient_checkpointing: false,
            expose: false,
        };
        let placement = Placement {
            engine,
            ..placement
        };
        let mut running = start(&loaded, &config, &options, &initial, &placement).unwrap();
        let mut losses = Vec::new();
        for _ in 0..5 {
            let outputs = running
                .train_step(&batch, batch.items(), MaskKey::default())
                .unwrap();
            losses.push(outputs.figure(LOSS_SUM).unwrap());
            let norm = running.engine.optimizer_step(1e-3).unwrap();
            assert!(norm.is_finite(), "{engine:?}: {norm}");
        }
        let falls = losses.iter().all(|loss| loss.is_finite()) && losses[4] < losses[0];
        assert!(falls, "{engine:?}: {losses:?}");
    }
}
