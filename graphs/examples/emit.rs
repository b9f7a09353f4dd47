//! scratch
use mpnet_graphs::{lower::ort_training::*, model::config::*, optimizer::adamw::AdamW};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let case: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&a[1]).unwrap()).unwrap();
    let config: ModelConfig = serde_json::from_value(case["model"].clone()).unwrap();
    let t = &case["train"];
    let f = |k: &str| t[k].as_f64().unwrap() as f32;
    let opt = AdamW {
        beta1: f("beta1"),
        beta2: f("beta2"),
        epsilon: f("adam_eps"),
        weight_decay: f("weight_decay"),
        clip_grad_norm: f("clip_grad_norm"),
    };
    let s = std::time::Instant::now();
    let art = compile(
        &config,
        &Options {
            optimizer: opt,
            expose: a.len() > 3,
        },
    )
    .unwrap();
    eprintln!("{:?}", s.elapsed());
    let d = std::path::Path::new(&a[2]);
    std::fs::create_dir_all(d).unwrap();
    std::fs::write(d.join("training_model.onnx"), art.training).unwrap();
    std::fs::write(d.join("eval_model.onnx"), art.eval).unwrap();
    std::fs::write(d.join("optimizer_model.onnx"), art.optimizer).unwrap();
    for s in art.dropout {
        eprintln!("{} {:?}", s.name, s.ratio)
    }
}
