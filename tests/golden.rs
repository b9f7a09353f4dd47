//! Golden cases of annotated-mpnet through `mpnet verify`, on the real ONNX Runtime; and that a case
//! which is wrong fails.

mod common;

use common::{binary, repository, stdout};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const CASES: [&str; 3] = ["postln-gelu", "postln-padded", "preln-relu"];

fn case(name: &str) -> PathBuf {
    repository("tests/data/golden").join(name)
}

/// A copy of a case of which the tensor `name` in `file` was changed at its first element.
fn changed(file: &str, name: &str, change: impl Fn(f32) -> f32) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(case(CASES[0])).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
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
fn json_has_a_row_a_quantity() {
    let output = verify(&case(CASES[1])).success();
    let reports: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let rows = reports[0]["rows"].as_array().unwrap();
    assert!(rows.len() > 70, "{}", rows.len());
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
        verify(copy.path()).code(1);
    }
}

#[test]
fn a_nan_fails() {
    let copy = changed("expected.safetensors", "final.lm_head.bias", |_| f32::NAN);
    verify(copy.path()).code(1);
}
