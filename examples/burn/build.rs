//! The exported ONNX model as Burn source and weights.

use burn_onnx::ModelGen;

fn main() {
    println!("cargo::rerun-if-env-changed=MPNET_ONNX");
    let model = std::env::var("MPNET_ONNX")
        .expect("MPNET_ONNX names the model.onnx that mpnet export wrote");
    println!("cargo::rerun-if-changed={model}");
    ModelGen::new()
        .input(&model)
        .out_dir("model/")
        .run_from_script();
}
