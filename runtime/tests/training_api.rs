//! The training-api engine on the real library, against what ONNX Runtime's Python API and PyTorch made of the
//! same artifacts (see data/make_toy.py).

use std::path::{Path, PathBuf};

use mpnet_runtime::engine::{
    Engine, NamedArray, Tensor, TensorData, TrainingApiEngine, TrainingApiOptions,
};
use mpnet_runtime::library;
use mpnet_runtime::provider::Provider;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    batch: usize,
    learning_rate: f32,
    weight_decay: f32,
    accumulation: usize,
    undecayed: Vec<String>,
    parameters: Vec<Parameter>,
    batches: Vec<Batch>,
    onnxruntime: OnnxRuntime,
    torch: Torch,
}

#[derive(Deserialize)]
struct Parameter {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Parameter {
    fn array(&self) -> NamedArray {
        NamedArray {
            name: self.name.clone(),
            shape: self.shape.clone(),
            values: self.values.clone(),
        }
    }
}

#[derive(Deserialize)]
struct Batch {
    features: Vec<f32>,
    keep: Vec<bool>,
    labels: Vec<i64>,
}

#[derive(Deserialize)]
struct OnnxRuntime {
    losses: Vec<f32>,
    norms: Vec<f32>,
    eval_loss_of_first_batch: f32,
}

#[derive(Deserialize)]
struct Torch {
    losses: Vec<f32>,
    norms: Vec<f32>,
    parameters: std::collections::BTreeMap<String, Vec<f32>>,
}

fn toy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/toy")
}

fn expected() -> Expected {
    serde_json::from_str(&std::fs::read_to_string(toy().join("expected.json")).unwrap()).unwrap()
}

fn engine(expected: &Expected, undecayed: &[String]) -> TrainingApiEngine {
    let build = library::locate(&library::LocateOptions::for_user(None).unwrap()).unwrap();
    let loaded = library::load(&build).unwrap();
    TrainingApiEngine::new(
        &loaded,
        TrainingApiOptions {
            artifacts: toy(),
            parameters: expected
                .parameters
                .iter()
                .map(|parameter| parameter.name.clone())
                .collect(),
            undecayed: undecayed.to_vec(),
            weight_decay: expected.weight_decay,
            gradient_norm_output: "gradient_norm".to_owned(),
            provider: Provider::Cpu,
            threads: Some(2),
        },
    )
    .unwrap()
}

/// The inputs in another order than the graph's, to see that names decide.
fn inputs(expected: &Expected, batch: &Batch) -> Vec<Tensor> {
    let rows = expected.batch;
    let tensor = |name: &str, shape: Vec<usize>, data| Tensor {
        name: name.to_owned(),
        shape,
        data,
    };
    vec![
        tensor("labels", vec![rows], TensorData::I64(batch.labels.clone())),
        tensor(
            "features",
            vec![rows, 4],
            TensorData::F32(batch.features.clone()),
        ),
        tensor("keep", vec![rows, 1], TensorData::Bool(batch.keep.clone())),
    ]
}

#[test]
fn starts_from_the_parameters_of_the_checkpoint() {
    let expected = expected();
    let arrays: Vec<_> = expected.parameters.iter().map(Parameter::array).collect();
    assert_eq!(
        bits(&engine(&expected, &[]).parameters().unwrap()),
        bits(&arrays)
    );
}

fn loss(engine: &mut TrainingApiEngine, expected: &Expected, batch: &Batch) -> f32 {
    engine.train_step(&inputs(expected, batch)).unwrap()[0]
        .scalar()
        .unwrap()
}

fn train(engine: &mut TrainingApiEngine, expected: &Expected) -> (Vec<f32>, Vec<f32>) {
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for (index, batch) in expected.batches.iter().enumerate() {
        losses.push(loss(engine, expected, batch));
        if index % expected.accumulation == expected.accumulation - 1 {
            norms.push(engine.optimizer_step(expected.learning_rate).unwrap());
        }
    }
    (losses, norms)
}

fn assert_close(what: &str, got: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (index, (a, b)) in got.iter().zip(wanted).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * b.abs().max(1.0),
            "{what}[{index}]: {a} is not {b}"
        );
    }
}

#[test]
fn trains_as_the_python_api_does() {
    let expected = expected();
    let mut engine = engine(&expected, &[]);
    let (losses, norms) = train(&mut engine, &expected);
    assert_close("losses", &losses, &expected.onnxruntime.losses, 1e-6);
    assert_close("norms", &norms, &expected.onnxruntime.norms, 1e-6);
    let evaluation = engine
        .eval_step(&inputs(&expected, &expected.batches[0]))
        .unwrap();
    let TensorData::F32(loss) = &evaluation[0].data else {
        panic!("{evaluation:?}")
    };
    assert_close(
        "evaluation",
        loss,
        &[expected.onnxruntime.eval_loss_of_first_batch],
        1e-6,
    );
}

#[test]
fn spares_parameters_from_decay_as_pytorch_does() {
    let expected = expected();
    let mut engine = engine(&expected, &expected.undecayed);
    let (losses, norms) = train(&mut engine, &expected);
    assert_close("losses", &losses, &expected.torch.losses, 2e-6);
    assert_close("norms", &norms, &expected.torch.norms, 2e-6);
    for NamedArray { name, values, .. } in engine.parameters().unwrap() {
        assert_close(&name, &values, &expected.torch.parameters[&name], 2e-6);
    }
}

/// Nothing depends on the run of the process: the same steps leave the same bits.
fn bits(arrays: &[NamedArray]) -> Vec<(String, Vec<u32>)> {
    arrays
        .iter()
        .map(|array| {
            (
                array.name.clone(),
                array.values.iter().map(|value| value.to_bits()).collect(),
            )
        })
        .collect()
}

#[test]
fn resumes_bit_for_bit_from_parameters_and_moments() {
    let expected = expected();
    let (before, after) = expected.batches.split_at(3 * expected.accumulation);
    let step = |engine: &mut TrainingApiEngine, batches: &[Batch]| {
        let mut losses = Vec::new();
        for update in batches.chunks(expected.accumulation) {
            for batch in update {
                losses.push(loss(engine, &expected, batch).to_bits());
            }
            engine.optimizer_step(expected.learning_rate).unwrap();
        }
        losses
    };
    let mut straight = engine(&expected, &expected.undecayed);
    step(&mut straight, before);
    let parameters = straight.parameters().unwrap();
    let state = straight.optimizer_state().unwrap();
    assert_eq!(state.step, 3);
    assert!(
        state
            .second_moments
            .iter()
            .all(|moment| moment.values.iter().any(|&value| value > 0.0))
    );

    let mut resumed = engine(&expected, &expected.undecayed);
    resumed.set_optimizer_state(&state).unwrap();
    resumed.set_parameters(&parameters).unwrap();
    assert_eq!(resumed.optimizer_state().unwrap(), state);
    assert_eq!(step(&mut resumed, after), step(&mut straight, after));
    assert_eq!(
        bits(&resumed.parameters().unwrap()),
        bits(&straight.parameters().unwrap())
    );
    assert_eq!(
        resumed.optimizer_state().unwrap(),
        straight.optimizer_state().unwrap()
    );
}
