//! Sentence embeddings: `mpnet finetune` end to end; numbers are compared in `golden_tasks.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use assert_cmd::Command;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::{binary, failure, files, pretrain, repository, stdout};

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
pub fn material(folder: &Path) {
    stdout(&mut pretrain(folder, &["--total-updates", "2"]));
    std::fs::rename(folder.join("out"), folder.join("start")).unwrap();
    pairs(&folder.join("train.jsonl"), 0..40);
    pairs(&folder.join("valid.jsonl"), 40..56);
}

/// `mpnet finetune` on that.
pub fn finetune(folder: &Path, further: &[&str]) -> Command {
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

/// Rows with a score, by every loss that fits them; triplets by theirs.
#[test]
fn the_other_losses_train() {
    let folder = tempfile::tempdir().unwrap();
    material(folder.path());
    measures(folder.path());
    for (loss, rows, unit) in [
        ("cosent", "scored.jsonl", "nats per row"),
        ("cosine", "scored.jsonl", "per row"),
        ("triplet", "triplets.jsonl", "per row"),
    ] {
        let flags = ["--loss", loss, "--train-pairs", rows, "--valid-pairs", rows];
        let further = ["--total-updates", "20", "--output", loss];
        let printed = stdout(finetune(folder.path(), &flags).args(further));
        let told: Vec<f64> = printed
            .lines()
            .filter(|line| line.starts_with("validation"))
            .filter_map(|line| {
                line.split_once("| loss ")?
                    .1
                    .split_once(&format!(" {unit} "))
            })
            .map(|(loss, _)| loss.parse().unwrap())
            .collect();
        assert_eq!(told.len(), 2, "{printed}");
        assert!(told[1] < 0.95 * told[0], "{loss}: {told:?}");
        assert!(folder.path().join(loss).join("modules.json").exists());
    }
}

/// A model that training makes worse is written as it was.
#[test]
fn the_start_is_kept_where_nothing_is_better() {
    let folder = tempfile::tempdir().unwrap();
    material(folder.path());
    let measures = measures(folder.path());
    let worse = [
        "--total-updates",
        "4",
        "--lr",
        "0.5",
        "--end-learning-rate",
        "0.5",
        "--best-by",
        "accuracy",
    ];
    let printed = stdout(finetune(folder.path(), &worse).args(measures));
    let best: Vec<&str> = printed
        .lines()
        .filter(|l| l.contains("best so far"))
        .collect();
    assert!(best.len() == 1 && best[0].contains("update 0"), "{printed}");
    let pointer = std::fs::read_to_string(folder.path().join("out/best")).unwrap();
    assert_eq!(pointer.trim(), "checkpoint-0");
    assert!(printed.contains("checkpoint-0 → model"), "{printed}");
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
        (&["--output", "./out"], 2, "--checkpoint-dir"),
        (&["--matryoshka", "64,129"], 2, "--matryoshka 129"),
        (&["--dataset-name", "a/b"], 2, "both name rows"),
        (&["--task", "poetry"], 2, "poetry"),
        (&["--loss", "triplet"], 1, "negative"),
        (
            &["--loss", "cosine", "--scale", "3"],
            2,
            "--scale is for --loss ranking",
        ),
        (
            &["--loss", "cosent", "--symmetric"],
            2,
            "--symmetric is for",
        ),
        (&["--margin", "1"], 2, "--margin is for --loss triplet"),
        (
            &["--loss", "cosent", "--columns", "anchor,positive,anchor2"],
            1,
            "anchor2",
        ),
        (
            &["--loss", "triplet", "--columns", "anchor,positive"],
            1,
            "takes an anchor, a positive and a negative, not 2 texts",
        ),
        (
            &["--loss", "cosent", "--columns", "anchor,positive"],
            1,
            "is no number",
        ),
        (
            &["--mini-batch-size", "4", "--update-freq", "2"],
            2,
            "raise --batch-size",
        ),
        (
            &["--best-by", "spearman"],
            2,
            "not measured without --scored-pairs",
        ),
    ] {
        let told = failure(&mut finetune(folder.path(), further), code);
        assert!(told.contains(said), "{further:?}: {told}");
    }
    assert!(!folder.path().join("out").exists());
    assert!(!folder.path().join("model").exists());
}
