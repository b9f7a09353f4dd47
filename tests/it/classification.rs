//! Classes of texts: `mpnet finetune --task classification` end to end; numbers are compared in `golden_tasks.rs`.

use std::path::Path;

use assert_cmd::Command;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::common::{binary, failure, files, pretrain, stdout};

/// A tiny model, and rows to train it on: texts whose first word says their class.
fn material(folder: &Path) {
    stdout(&mut pretrain(folder, &["--total-updates", "2"]));
    std::fs::rename(folder.join("out"), folder.join("start")).unwrap();
    let words = ["the", "and", "of"];
    let row = |place: usize| (words[place % 3], place);
    let write = |name: &str, row: &dyn Fn(usize) -> Value| {
        let lines: String = (0..36).map(|place| format!("{}\n", row(place))).collect();
        std::fs::write(folder.join(name), lines).unwrap();
    };
    write("train.jsonl", &|place| {
        let (word, place) = row(place);
        json!({ "text": format!("{word} earth {place}"), "label": place % 3 + 8 })
    });
    write("pairs.jsonl", &|place| {
        let (word, place) = row(place);
        let label = if word == "the" { "no" } else { "yes" };
        json!({ "sentence1": format!("{word} earth"), "sentence2": place, "label": label })
    });
    write(
        "other.jsonl",
        &|place| json!({ "text": "the earth", "label": place % 4 }),
    );
    write(
        "same.jsonl",
        &|_| json!({ "text": "the earth", "label": "x" }),
    );
}

fn finetune(folder: &Path, rows: &str, further: &[&str]) -> Command {
    let mut command = binary("mpnet", folder);
    command
        .args(["finetune", "start", "--task", "classification"])
        .args(["--train-pairs", rows, "--valid-pairs", rows])
        .args(["--checkpoint-dir", "out", "--output", "model"])
        .args(["--threads", "2", "--batch-size", "12", "--lr", "3e-3"])
        .args(["--end-learning-rate", "3e-3", "--warmup-updates", "0"])
        .args(["--eval-interval-steps", "10", "--best-by", "accuracy"])
        .args(further);
    command
}

/// Loss and accuracy of every validation.
fn validations(printed: &str) -> Vec<(f64, f64)> {
    let number = |line: &str, name: &str| -> f64 {
        let (_, rest) = line.split_once(name).unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let lines = printed.lines().filter(|l| l.starts_with("validation"));
    lines
        .map(|line| (number(line, "| loss "), number(line, "| acc ")))
        .collect()
}

#[test]
fn a_short_run_learns_and_leaves_a_folder_for_transformers() {
    let folder = tempfile::tempdir().unwrap();
    material(folder.path());
    let printed = stdout(&mut finetune(
        folder.path(),
        "train.jsonl",
        &["--total-updates", "30"],
    ));
    let found = validations(&printed);
    assert_eq!(found.len(), 4, "{printed}");
    assert!(found[3].0 < 0.5 * found[0].0, "{printed}");
    assert_eq!(found[3].1, 1.0, "{printed}");
    let read = |name: &str| std::fs::read(folder.path().join("model").join(name)).unwrap();
    let config: Value = serde_json::from_slice(&read("config.json")).unwrap();
    assert_eq!(config["architectures"][0], "MPNetForSequenceClassification");
    assert_eq!(config["id2label"], json!({ "0": "8", "1": "9", "2": "10" }));
    assert_eq!(config["label2id"], json!({ "8": 0, "9": 1, "10": 2 }));
    let (weights, card) = (read("model.safetensors"), read("README.md"));
    let tensors = SafeTensors::deserialize(&weights).unwrap();
    let width = tensors.tensor("classifier.dense.weight").unwrap().shape()[0];
    let output = tensors.tensor("classifier.out_proj.weight").unwrap();
    assert_eq!(output.shape(), [3, width]);
    let known = |name: &str| name.starts_with("mpnet.") || name.starts_with("classifier.");
    let all = tensors.names();
    assert!(
        all.iter()
            .all(|name| known(name) && !name.contains("pooler")),
        "{all:?}"
    );
    assert!(
        String::from_utf8(card)
            .unwrap()
            .contains("text-classification")
    );
    // The checkpoint is one of the whole model, which other heads are made of, too.
    let mut convert = binary("convert-to-hf", folder.path());
    convert.args([
        "--mpnet-checkpoint-path",
        "out",
        "--hf-model-folder-path",
        "lm",
    ]);
    let said = convert.assert().success().get_output().clone();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains("classifier.dense.weight and more, is left out"),
        "{said}"
    );
}

#[test]
fn a_resumed_run_is_the_run_that_was_not_stopped() {
    let [straight, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let run = |folder: &Path, further: &[&str]| {
        stdout(&mut finetune(folder, "pairs.jsonl", further));
    };
    for folder in [&straight, &stopped] {
        material(folder.path());
    }
    run(straight.path(), &["--total-updates", "12"]);
    run(stopped.path(), &["--total-updates", "6"]);
    run(stopped.path(), &["--total-updates", "12", "--resume"]);
    let last = |folder: &Path| files(&folder.join("out/checkpoint-12"));
    assert!(last(straight.path()).len() > 5);
    assert_eq!(last(straight.path()), last(stopped.path()));
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    material(folder.path());
    for (rows, further, code, said) in [
        ("same.jsonl", &[][..], 1, "nothing to tell apart"),
        (
            "train.jsonl",
            &["--valid-pairs", "other.jsonl"],
            1,
            "the class '0' of a row is none of",
        ),
        (
            "train.jsonl",
            &["--valid-pairs", "pairs.jsonl"],
            1,
            "the class 'no' of a row is none of",
        ),
        ("train.jsonl", &["--columns", "text,none"], 1, "\"none\""),
        (
            "train.jsonl",
            &["--triplets", "train.jsonl"],
            2,
            "classes are no embeddings",
        ),
        (
            "train.jsonl",
            &["--best-by", "ndcg@10"],
            2,
            "not measured without --queries",
        ),
        (
            "train.jsonl",
            &["--loss", "cosent"],
            2,
            "--loss is for --task embeddings",
        ),
    ] {
        let told = failure(&mut finetune(folder.path(), rows, further), code);
        assert!(told.contains(said), "{rows} {further:?}: {told}");
    }
    assert!(!folder.path().join("out").exists());
    assert!(!folder.path().join("model").exists());
}
