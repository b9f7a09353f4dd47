//! Models as people bring them: what is kept, what is refused, and what is said of the rest.

use std::path::Path;

use mpnet::checkpoint::{self, Checkpoint, Pointer};
use mpnet::cli::model_file::preset_model;
use mpnet::cli::presets::Preset;
use mpnet::initialize::initial_parameters;
use serde_json::{Value, json};

use crate::common::{self, binary, failure, failure_without_a_trace, pretrain, repository, stdout};

/// A model of the tiny preset with the example tokenizer, `hf` in `folder`, as `convert-to-hf` writes it.
fn huggingface(folder: &Path, further: &[&str]) {
    let mut model = preset_model(Preset::Tiny);
    (model.vocab_size, model.padded_vocab_size) = (4096, 4096);
    model.mask_token_id = 4095;
    let checkpoint = Checkpoint {
        parameters: initial_parameters(&model, 7),
        model,
        config: Value::Null,
        step: 0,
        best_loss: None,
        validated: None,
        data: Value::Null,
        seed: 0,
        optimizer: None,
        tokenizer: Some(repository("examples/tokenizer/tokenizer.json")),
    };
    let run = folder.join("run");
    checkpoint::prepare(&run).unwrap();
    checkpoint::save(&run, &checkpoint).unwrap();
    checkpoint::set_pointer(&run, Pointer::Best, 0).unwrap();
    checkpoint::set_pointer(&run, Pointer::Latest, 0).unwrap();
    stdout(convert(folder, "run", "hf").args(further));
}

/// `convert-to-hf` from one path to another, both in `folder`.
fn convert(folder: &Path, from: &str, to: &str) -> assert_cmd::Command {
    let mut command = binary("convert-to-hf", folder);
    command.args([
        "--mpnet-checkpoint-path",
        from,
        "--hf-model-folder-path",
        to,
    ]);
    command
}

/// The JSON in a file.
fn json_in(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Changes the JSON in a file.
fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = json_in(path);
    change(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

/// Another tokenizer of the same size: two of its words have changed places.
fn other_tokenizer(folder: &Path) {
    let target = folder.join("other");
    std::fs::create_dir_all(&target).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let from = repository("examples/tokenizer").join(file);
        std::fs::copy(from, target.join(file)).unwrap();
    }
    change(&target.join("tokenizer.json"), |definition| {
        let words = definition["model"]["vocab"].as_object_mut().unwrap();
        let (the, and) = (words["the"].clone(), words["and"].clone());
        words.insert("the".into(), and);
        words.insert("and".into(), the);
    });
}

/// `pretrain-mpnet` on the example text for two updates, without a tokenizer's name.
fn from_model(folder: &Path, further: &[&str]) -> assert_cmd::Command {
    for name in ["valid.txt", "test.txt"] {
        common::small_text(folder, name);
    }
    let mut command = binary("pretrain-mpnet", folder);
    command.args([
        "--preset",
        "tiny",
        "--checkpoint-dir",
        "out",
        "--threads",
        "2",
    ]);
    command.args([
        "--batch-size",
        "4",
        "--update-freq",
        "1",
        "--total-updates",
        "2",
    ]);
    command
        .arg("--train-dir")
        .arg(repository("examples/corpus/train"));
    command.args(["--valid-file", "valid.txt", "--test-file", "test.txt"]);
    command.args(further);
    command
}

#[test]
fn a_run_from_a_model_has_the_models_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &[]);
    stdout(&mut from_model(folder.path(), &["--hf-model-path", "hf"]));
    let kept = folder
        .path()
        .join("out/checkpoint-2/tokenizer/tokenizer.json");
    let own = repository("examples/tokenizer/tokenizer.json");
    assert_eq!(std::fs::read(kept).unwrap(), std::fs::read(own).unwrap());
    // It goes on with the same one, without its being named.
    stdout(&mut from_model(
        folder.path(),
        &["--resume", "--total-updates", "3", "--override"],
    ));
    assert!(folder.path().join("out/checkpoint-3").is_dir());
}

#[test]
fn another_tokenizer_than_the_models_is_refused_unless_accepted() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &[]);
    other_tokenizer(folder.path());
    let other = ["--hf-model-path", "hf", "--tokenizer-name", "other"];
    let said = failure(&mut from_model(folder.path(), &other), 1);
    for word in ["other/tokenizer.json", "hf/tokenizer.json", "--override"] {
        assert!(said.contains(word), "no '{word}': {said}");
    }
    assert!(!folder.path().join("out").exists());
    // A checkpoint's is compared as well.
    let run = ["--hf-model-path", "run", "--tokenizer-name", "other"];
    let said = failure(&mut from_model(folder.path(), &run), 1);
    assert!(said.contains("--override"), "{said}");
    let accepted = [&other[..], &["--override", "--dry-run"]].concat();
    stdout(&mut from_model(folder.path(), &accepted));
    // How rows are cut and padded makes no other tokenizer.
    change(&folder.path().join("hf/tokenizer.json"), |definition| {
        definition["truncation"] = json!({
            "direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0
        });
    });
    let same = ["--hf-model-path", "hf", "--dry-run"];
    stdout(&mut pretrain(folder.path(), &same));
}

#[test]
fn a_model_without_a_tokenizer_asks_for_one() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &["--no-save-tokenizer"]);
    let said = failure_without_a_trace(
        folder.path(),
        &mut from_model(folder.path(), &["--hf-model-path", "hf"]),
        1,
    );
    assert!(said.contains("--tokenizer-name"), "{said}");
    let same = ["--hf-model-path", "hf", "--dry-run"];
    stdout(&mut pretrain(folder.path(), &same));
}
