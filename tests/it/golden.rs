//! Golden cases of annotated-mpnet through `mpnet verify`, on the real ONNX Runtime; and that a case
//! which is wrong fails.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{binary, failure, repository, stdout};

const CASES: [&str; 6] = [
    "golden/postln-gelu",
    "golden/postln-padded",
    "golden/preln-relu",
    "golden-modes/plm",
    "golden-modes/mlm-padded",
    "golden-modes/return-mlm",
];

fn case(name: &str) -> PathBuf {
    repository("tests/data").join(name)
}

/// A copy of a case.
fn copy() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(case(CASES[0])).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

/// A copy of a case of which the tensor `name` in `file` was changed at its first element.
fn changed(file: &str, name: &str, change: impl Fn(f32) -> f32) -> TempDir {
    let copy = copy();
    let path = copy.path().join(file);
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut data: Vec<u8> = tensors.tensor(name).unwrap().data().to_vec();
    // Golden figures are f64 or f32; the first element is changed in its own type.
    let wide = data.len()
        == 8 * tensors
            .tensor(name)
            .unwrap()
            .shape()
            .iter()
            .product::<usize>();
    if wide {
        let value = f64::from_le_bytes(data[..8].try_into().unwrap());
        let new = f64::from(change(value as f32));
        data[..8].copy_from_slice(&new.to_le_bytes());
    } else {
        let value = f32::from_le_bytes(data[..4].try_into().unwrap());
        data[..4].copy_from_slice(&change(value).to_le_bytes());
    }
    let views = tensors.tensors().into_iter().map(|(n, view)| {
        let bytes = if n == name {
            data.as_slice()
        } else {
            view.data()
        };
        let view = TensorView::new(view.dtype(), view.shape().to_vec(), bytes).unwrap();
        (n, view)
    });
    let changed = safetensors::serialize(views, None).unwrap();
    drop(bytes);
    std::fs::write(&path, changed).unwrap();
    copy
}

fn verify(folder: &Path) -> assert_cmd::assert::Assert {
    binary("mpnet", folder)
        .args(["verify", "--json", "--case"])
        .arg(folder)
        .assert()
}

#[test]
fn every_case_is_within_its_tolerances() {
    for name in CASES {
        let mut command = binary("mpnet", &repository(""));
        command.arg("verify").arg("--case").arg(case(name));
        let printed = stdout(&mut command);
        assert!(printed.contains(" 0 outside their tolerance"), "{printed}");
        for quantity in [
            "logits",
            "loss_sum",
            "grad.lm_head.bias",
            "gnorms",
            "lrs",
            "accuracies",
        ] {
            assert!(
                printed.contains(quantity),
                "no row of {quantity}: {printed}"
            );
        }
    }
}

#[test]
fn cases_pass_with_gradient_checkpointing_on_both_engines() {
    for engine in ["training-api", "session"] {
        for name in [CASES[0], CASES[2], CASES[5]] {
            let mut command = binary("mpnet", &repository(""));
            command.args(["verify", "--gradient-checkpointing", "--engine", engine]);
            let printed = stdout(command.arg("--case").arg(case(name)));
            assert!(printed.contains(" 0 outside their tolerance"), "{printed}");
        }
    }
}

#[test]
fn json_has_a_row_for_every_expected_quantity() {
    let folder = case(CASES[1]);
    let output = verify(&folder).success();
    let reports: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let rows = reports[0]["rows"].as_array().unwrap();
    let mut quantities: Vec<&str> = rows
        .iter()
        .map(|row| {
            assert_eq!(row["passed"], true);
            assert!(row["difference"].as_f64().unwrap() <= row["tolerance"].as_f64().unwrap());
            row["quantity"].as_str().unwrap()
        })
        .collect();
    quantities.sort_unstable();
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut expected = tensors.names();
    expected.sort_unstable();
    assert_eq!(quantities, expected);
}

#[test]
fn a_wrong_figure_fails() {
    for (file, tensor) in [
        ("expected.safetensors", "logits"),
        ("expected.safetensors", "grad.lm_head.bias"),
        ("expected.safetensors", "losses"),
        (
            "weights.safetensors",
            "sentence_encoder.layers.0.fc1.weight",
        ),
    ] {
        let copy = changed(file, tensor, |value| value + 0.1);
        let output = verify(copy.path()).code(1);
        let reports: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
        let rows = reports[0]["rows"].as_array().unwrap();
        assert!(rows.iter().any(|row| row["passed"] == false), "{tensor}");
    }
}

#[test]
fn a_nan_fails() {
    let copy = changed("expected.safetensors", "final.lm_head.bias", |_| f32::NAN);
    verify(copy.path()).code(1);
}

#[test]
fn a_case_that_cannot_be_run_says_why() {
    let edited = |old: &str, new: &str| {
        let copy = copy();
        let path = copy.path().join("case.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "no {old}");
        std::fs::write(&path, text.replace(old, new)).unwrap();
        copy
    };
    let heads = r#""encoder_attention_heads": 4"#;
    let freq = r#""update_freq": 1"#;
    let refused = |folder: &Path, words: &[&str]| {
        let said = failure(
            binary("mpnet", folder)
                .args(["verify", "--case"])
                .arg(folder),
            1,
        );
        for word in words {
            assert!(said.contains(word), "no '{word}': {said}");
        }
    };
    for (old, new, word) in [
        (
            heads,
            r#""encoder_attention_heads": 0"#,
            "encoder_attention_heads",
        ),
        (
            heads,
            r#""encoder_attention_heads": 5"#,
            "encoder_attention_heads",
        ),
        (heads, r#""encoder_attention_heads": "x""#, "case.json"),
        (
            heads,
            r#""encoder_attention_heads": 4, "input_mode": "clm""#,
            "input_mode 'clm'",
        ),
        (
            heads,
            r#""encoder_attention_heads": 4, "input_mode": "plm", "return_mlm": true"#,
            "return_mlm true",
        ),
        (freq, r#""update_freq": 0"#, "update_freq"),
        (freq, r#""update_freq": 2"#, "5.input_ids"),
        (
            r#""encoder_ffn_dim": 64"#,
            r#""encoder_ffn_dim": 63"#,
            "fc1.weight",
        ),
    ] {
        let copy = edited(old, new);
        refused(copy.path(), &[word]);
    }
    let copy = copy();
    std::fs::write(copy.path().join("batches.safetensors"), "short").unwrap();
    refused(copy.path(), &["batches.safetensors"]);
    std::fs::remove_file(copy.path().join("expected.safetensors")).unwrap();
    refused(copy.path(), &["expected.safetensors", "golden case"]);
}
