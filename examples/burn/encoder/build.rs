//! Written by `mpnet export --format burn`: the ONNX model as Burn source, and its weights.

use burn_onnx::ModelGen;

fn main() {
    println!("cargo::rerun-if-changed=model.onnx");
    ModelGen::new()
        .input("model.onnx")
        .out_dir("model/")
        .run_from_script();
}
