//! A Cargo package that turns the exported model into a Burn module when it is built, by `burn-onnx`.
//!
//! `burn-onnx` is not linked here: it is the package's own build that reads the model.

use super::ExportError;
use std::fs;
use std::path::Path;

/// The build script, by whose first words an earlier package is known.
const BUILD_FILE: &str = "build.rs";
const MARK: &str = "//! Written by `mpnet export --format burn`";
const BUILD: &str = r#"//! Written by `mpnet export --format burn`: the ONNX model as Burn source, and its weights.

use burn_onnx::ModelGen;

fn main() {
    println!("cargo::rerun-if-changed=model.onnx");
    ModelGen::new()
        .input("model.onnx")
        .out_dir("model/")
        .run_from_script();
}
"#;

const MANIFEST: &str = r#"# Written by `mpnet export --format burn`.
[package]
name = "mpnet-encoder"
version = "0.1.0"
edition = "2024"
publish = false
description = "An MPNet encoder as a Burn module"

[lib]
path = "lib.rs"

[features]
# Burn's portable backend; with default-features = false the program that depends on this chooses one.
default = ["flex"]
flex = ["burn/flex"]

[dependencies]
burn = { version = "0.22", default-features = false, features = ["std"] }
burn-store = { version = "0.22", default-features = false, features = ["std"] }

[build-dependencies]
burn-onnx = "0.22"
"#;

const LIBRARY: &str = r#"//! An MPNet encoder as a Burn module: `Model::forward(input_ids, attention_mask)`, both `[rows, length]`.
//!
//! `Model::default()` reads the weights where the build left them; a program that is shipped takes
//! `model.bpk` from there along and calls `Model::from_file`.

include!(concat!(env!("OUT_DIR"), "/model/model.rs"));
"#;

/// The package's files but for the model.
const FILES: [(&str, &str); 3] = [
    ("Cargo.toml", MANIFEST),
    (BUILD_FILE, BUILD),
    ("lib.rs", LIBRARY),
];

/// Whether `target` is an exported package.
pub fn is_ours(target: &Path) -> bool {
    fs::read_to_string(target.join(BUILD_FILE)).is_ok_and(|found| found.starts_with(MARK))
}

/// Writes the package around the model in `folder`.
pub fn write_package(folder: &Path) -> Result<(), ExportError> {
    for (name, text) in FILES {
        let path = folder.join(name);
        fs::write(&path, text).map_err(ExportError::io("write", &path))?;
    }
    Ok(())
}
