//! The session engine end to end: golden cases on an ordinary build, and runs that go from one engine to
//! the other.

mod common;

use common::{binary, pretrain, repository, stdout};
use std::path::Path;

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

/// The loss of every update that a run printed.
fn losses(printed: &str) -> Vec<f64> {
    printed
        .lines()
        .filter(|line| line.starts_with("update "))
        .map(|line| {
            let after = line.split_once("| loss ").unwrap().1;
            after.split(' ').next().unwrap().parse().unwrap()
        })
        .collect()
}

/// Twelve updates with a checkpoint after the sixth, on `engine`.
fn train(folder: &Path, engine: &str, further: &[&str]) -> Vec<f64> {
    let mut command = pretrain(folder, &["--engine", engine]);
    command
        .args([
            "--total-updates",
            "12",
            "--save_steps",
            "6",
            "--logging-steps",
            "1",
        ])
        .args(["--eval-interval-steps", "100"])
        .args(further);
    losses(&stdout(&mut command))
}

#[test]
fn a_run_goes_on_with_the_other_engine_as_if_it_were_the_same() {
    let engines = ["training-api", "session"];
    let runs = engines.map(|engine| {
        let folder = tempfile::tempdir().unwrap();
        let losses = train(folder.path(), engine, &[]);
        assert_eq!(losses.len(), 12);
        (folder, losses)
    });
    let assert_equal = |found: &[f64], expected: &[f64]| {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!(
                (a - b).abs() <= 1e-5 * b.max(10.0),
                "{found:?}, not {expected:?}"
            );
        }
    };
    assert_equal(&runs[1].1, &runs[0].1);
    // Attention in ordinary operators drops the same weights as ours.
    let folder = tempfile::tempdir().unwrap();
    let expanded = train(folder.path(), "session", &["--attention", "expanded"]);
    assert_equal(&expanded, &runs[0].1);
    for (from, to) in [(0, 1), (1, 0)] {
        let checkpoint = runs[from].0.path().join("out/checkpoint-6");
        let folder = tempfile::tempdir().unwrap();
        let resume = [
            "--resume",
            "--resume-checkpoint",
            checkpoint.to_str().unwrap(),
        ];
        let second_half = train(folder.path(), engines[to], &resume);
        assert_equal(&second_half, &runs[from].1[6..]);
    }
}
