//! `convert-to-hf` against the folders that annotated-mpnet's converter and transformers write.

mod common;

use common::{binary, failure, files, repository, stdout};
use mpnet::checkpoint::{self, Checkpoint, Pointer};
use mpnet::verify::Case;
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;

/// A native checkpoint of a golden case's starting weights, as a run in `folder` leaves it.
fn native(folder: &Path, case: &str) {
    let case = Case::load(&repository("tests/data/golden").join(case)).unwrap();
    let checkpoint = Checkpoint {
        model: case.model,
        config: Value::Null,
        step: 7,
        best_loss: None,
        validated: None,
        data: Value::Null,
        seed: 0,
        parameters: case.weights,
        optimizer: None,
        tokenizer: Some(repository("examples/tokenizer/tokenizer.json")),
    };
    checkpoint::prepare(folder).unwrap();
    checkpoint::save(folder, &checkpoint).unwrap();
    checkpoint::set_pointer(folder, Pointer::Latest, 7).unwrap();
    checkpoint::set_pointer(folder, Pointer::Best, 7).unwrap();
}

/// `convert-to-hf` from `checkpoint` to `hf`, both in `folder`.
fn convert(folder: &Path, checkpoint: &str) -> assert_cmd::Command {
    let mut command = binary("convert-to-hf", folder);
    command.args(["--mpnet-checkpoint-path", checkpoint]);
    command.args(["--hf-model-folder-path", "hf"]);
    command
}

#[test]
fn golden_weights_are_transformers_own_bit_for_bit() {
    for case in ["postln-gelu", "postln-padded"] {
        let folder = tempfile::tempdir().unwrap();
        native(&folder.path().join("run"), case);
        stdout(&mut convert(folder.path(), "run"));
        let theirs = repository("tests/data/golden").join(case).join("hf");
        let (ours, theirs) = (files(&folder.path().join("hf")), files(&theirs));
        let tensors = |f: &std::collections::BTreeMap<_, Vec<u8>>| {
            let bytes = f[Path::new("model.safetensors")].clone();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let mut found: Vec<_> = tensors
                .iter()
                .map(|(name, t)| {
                    (
                        name.to_owned(),
                        t.dtype(),
                        t.shape().to_vec(),
                        t.data().to_vec(),
                    )
                })
                .collect();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            found
        };
        let (a, b) = (tensors(&ours), tensors(&theirs));
        assert_eq!(a.len(), b.len());
        for (ours, theirs) in a.iter().zip(&b) {
            assert!(ours == theirs, "{} differs from {}", ours.0, theirs.0);
        }
        let config = |f: &std::collections::BTreeMap<_, Vec<u8>>| -> Value {
            serde_json::from_slice(&f[Path::new("config.json")]).unwrap()
        };
        let (ours_config, theirs_config) = (config(&ours), config(&theirs));
        for key in [
            "model_type",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
            "vocab_size",
            "relative_attention_num_buckets",
            "hidden_act",
            "layer_norm_eps",
            "pad_token_id",
            "bos_token_id",
            "eos_token_id",
        ] {
            assert_eq!(ours_config[key], theirs_config[key], "{case}: {key}");
        }
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            assert!(ours.contains_key(Path::new(file)), "no {file}");
        }
    }
}

#[test]
fn a_best_checkpoint_pt_that_is_not_there_means_our_own_best() {
    let folder = tempfile::tempdir().unwrap();
    native(&folder.path().join("checkpoints"), "postln-gelu");
    // The third command of annotated-mpnet's README, as it stands.
    let mut command = binary("convert-to-hf", folder.path());
    command.args([
        "--mpnet-checkpoint-path",
        "./checkpoints/best_checkpoint.pt",
    ]);
    command.args(["--hf-model-folder-path", "./my_cool_hf_model/"]);
    stdout(&mut command);
    assert!(
        folder
            .path()
            .join("my_cool_hf_model/model.safetensors")
            .is_file()
    );
    assert!(folder.path().join("my_cool_hf_model/config.json").is_file());
}

#[test]
fn what_huggingface_cannot_represent_is_refused_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    native(&folder.path().join("run"), "preln-relu");
    let said = failure(&mut convert(folder.path(), "run"), 1);
    assert!(
        said.contains("cannot represent") && said.contains("--force"),
        "{said}"
    );
    assert!(!folder.path().join("hf").exists());
    stdout(convert(folder.path(), "run").arg("--force"));
    assert!(folder.path().join("hf/model.safetensors").is_file());
}

#[test]
fn a_missing_checkpoint_and_a_strangers_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let said = failure(&mut convert(folder.path(), "nowhere"), 1);
    assert!(said.contains("nowhere"), "{said}");
    native(&folder.path().join("run"), "postln-gelu");
    std::fs::create_dir(folder.path().join("hf")).unwrap();
    std::fs::write(folder.path().join("hf/thesis.doc"), "years of work").unwrap();
    let said = failure(&mut convert(folder.path(), "run"), 1);
    assert!(said.contains("choose another folder"), "{said}");
    assert_eq!(files(&folder.path().join("hf")).len(), 1);
}

#[test]
fn a_damaged_checkpoint_is_named() {
    let folder = tempfile::tempdir().unwrap();
    native(&folder.path().join("run"), "postln-gelu");
    let weights = folder.path().join("run/checkpoint-7/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let said = failure(&mut convert(folder.path(), "run"), 1);
    assert!(
        said.contains("damaged") && said.contains("model.safetensors"),
        "{said}"
    );
    assert!(!folder.path().join("hf").exists());
}
