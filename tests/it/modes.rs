//! The other input modes end to end: both engines train them alike, a checkpoint knows what it was trained
//! for, and HuggingFace gets its model.

use std::path::Path;

use serde_json::Value;

use crate::common::{binary, failure, pretrain, repository, stdout, validation_losses};

/// Flags of a mode, and what a checkpoint records of it.
const MODES: [(&[&str], &str, &str); 3] = [
    (&["--input-mode", "plm"], "input_mode", "\"plm\""),
    (
        &["--input-mode", "mlm", "--max-gram", "3"],
        "input_mode",
        "\"mlm\"",
    ),
    (
        &["--return-mlm", "--pred-prob", "0.2"],
        "return_mlm",
        "true",
    ),
];

/// Ten updates on `engine`; what they printed.
fn train(folder: &Path, engine: &str, mode: &[&str]) -> String {
    let mut command = pretrain(folder, &["--engine", engine, "--total-updates", "10"]);
    command.args(["--logging-steps", "1", "--warmup-updates", "2"]);
    stdout(command.args(mode))
}

#[test]
fn every_mode_trains_alike_on_both_engines_and_becomes_a_model() {
    for (mode, field, recorded) in MODES {
        let [api, session] = ["training-api", "session"].map(|engine| {
            let folder = tempfile::tempdir().unwrap();
            let printed = train(folder.path(), engine, mode);
            (folder, validation_losses(&printed))
        });
        assert_eq!(api.1.len(), session.1.len());
        for (a, b) in api.1.iter().zip(&session.1) {
            assert!(
                (a - b).abs() <= 1e-4 * b,
                "{recorded}: {:?}, {:?}",
                api.1,
                session.1
            );
        }
        let (first, last) = (api.1[0], api.1[api.1.len() - 1]);
        assert!(
            last < first - 0.1,
            "{recorded} learns nothing: {first}, {last}"
        );

        let folder = api.0.path();
        let state = std::fs::read(folder.join("out/checkpoint-10/trainer_state.json")).unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        assert_eq!(state["model"][field].to_string(), recorded);

        // Another objective is another run.
        let other = ["--resume", "--total-updates", "11"];
        let said = failure(&mut pretrain(folder, &other), 1);
        let flag = field.replace('_', "-");
        let difference = format!("--{flag} is {recorded} there and ");
        assert!(said.contains(&difference), "{said}");
        stdout(pretrain(folder, &other).args(mode));

        let mut convert = binary("convert-to-hf", folder);
        convert.args(["--mpnet-checkpoint-path", "out"]);
        stdout(convert.args(["--hf-model-folder-path", "hf"]));
        let config = std::fs::read(folder.join("hf/config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["model_type"], "mpnet");
        assert!(config.get("input_mode").is_none());
        assert!(folder.join("hf/model.safetensors").is_file());
    }
}

#[test]
fn flags_that_contradict_a_mode_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, word) in [
        (&["--input-mode", "mlm", "--return-mlm"][..], "--return-mlm"),
        (&["--input-mode", "plm", "--rand-prob", "0"], "--rand-prob"),
        (&["--pred-prob", "1.5"], "'1.5' for '--pred-prob"),
        (&["--max-gram", "0"], "'0' for '--max-gram"),
    ] {
        let said = failure(&mut pretrain(folder.path(), flags), 2);
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn graphs_of_a_golden_case_are_those_of_its_mode() {
    let case = repository("tests/data/golden-modes/mlm-padded/case.json");
    let mut command = binary("mpnet", &repository(""));
    command.args(["graph", "--nodes", "--stage", "evaluation", "--model"]);
    let printed = stdout(command.arg(case));
    // One stream: no row that is not of the text.
    assert!(printed.contains("i64[B, L]"), "{printed}");
    assert!(!printed.contains("L+P"), "{printed}");
}
