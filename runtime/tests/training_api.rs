//! The training-api engine on the real library, against what ONNX Runtime's Python API and PyTorch made of the
//! same artifacts (see data/make_toy.py).

use std::path::{Path, PathBuf};

use mpnet_plan::Provider;
use mpnet_runtime::checkpoint_file;
use mpnet_runtime::engine::{
    Engine, EngineError, NamedArray, OptimizerState, Tensor, TensorData, TrainingApiEngine,
    TrainingApiOptions,
};
use mpnet_runtime::library::{self, Loaded, LocateOptions};
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

fn loaded() -> Loaded {
    let build = library::locate(&LocateOptions::for_user(None).unwrap()).unwrap();
    library::load(&build).unwrap()
}

fn options(expected: &Expected, undecayed: &[String]) -> TrainingApiOptions {
    TrainingApiOptions {
        artifacts: toy(),
        parameters: expected
            .parameters
            .iter()
            .map(|parameter| parameter.name.clone())
            .collect(),
        undecayed: undecayed.to_vec(),
        hidden: Vec::new(),
        weight_decay: expected.weight_decay,
        gradient_norm_output: "gradient_norm".to_owned(),
        provider: Provider::Cpu,
        device_id: 0,
        threads: Some(2),
    }
}

fn engine(expected: &Expected, undecayed: &[String]) -> TrainingApiEngine {
    TrainingApiEngine::new(&loaded(), options(expected, undecayed)).unwrap()
}

fn borrowed(inputs: &[Tensor]) -> Vec<&Tensor> {
    inputs.iter().collect()
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
    engine
        .train_step(&borrowed(&inputs(expected, batch)))
        .unwrap()[0]
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
        .eval_step(&borrowed(&inputs(&expected, &expected.batches[0])))
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
    resumed.set_optimizer_state(state.clone()).unwrap();
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

/// The options with one thing changed, and the error that this gives.
fn refused(change: impl FnOnce(&mut TrainingApiOptions)) -> EngineError {
    let mut options = options(&expected(), &[]);
    change(&mut options);
    match TrainingApiEngine::new(&loaded(), options) {
        Ok(_) => panic!("an engine was made"),
        Err(error) => error,
    }
}

#[test]
fn options_that_do_not_fit_the_artifacts_are_errors() {
    let error = refused(|options| options.artifacts = toy().join("nowhere"));
    assert!(
        matches!(&error, EngineError::Io { path, .. } if path.ends_with("nowhere/checkpoint")),
        "{error}"
    );
    let error = refused(|options| options.parameters.push("third.bias".to_owned()));
    assert!(
        matches!(&error, EngineError::UnknownParameter { name } if name == "third.bias"),
        "{error}"
    );
    let error = refused(|options| drop(options.parameters.remove(0)));
    assert!(
        matches!(&error, EngineError::UnlistedParameter { name } if name == "first.weight"),
        "{error}"
    );
    let error = refused(|options| options.parameters.push("first.bias".to_owned()));
    assert!(
        matches!(&error, EngineError::Duplicate { name } if name == "first.bias"),
        "{error}"
    );
    let error = refused(|options| options.undecayed.push("third.bias".to_owned()));
    assert!(
        matches!(&error, EngineError::UnknownParameter { name } if name == "third.bias"),
        "{error}"
    );
    let error = refused(|options| options.gradient_norm_output = "gnorm".to_owned());
    assert!(
        matches!(&error, EngineError::NoGradientNorm { .. }),
        "{error}"
    );
    let error = refused(|options| options.provider = Provider::WebGpu);
    assert!(
        matches!(
            &error,
            EngineError::Provider {
                provider: Provider::WebGpu
            }
        ),
        "{error}"
    );
    let error = refused(|options| options.provider = Provider::Cuda);
    assert!(
        matches!(
            &error,
            EngineError::ProviderSetUp {
                provider: Provider::Cuda,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn artifacts_that_are_damaged_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let copy = || {
        for file in [
            "training_model.onnx",
            "eval_model.onnx",
            "optimizer_model.onnx",
            "checkpoint",
        ] {
            std::fs::copy(toy().join(file), folder.path().join(file)).unwrap();
        }
    };
    for (file, wanted) in [
        ("checkpoint", "no checkpoint of ONNX Runtime"),
        (
            "training_model.onnx",
            "set up training from the artifacts in",
        ),
        ("eval_model.onnx", "set up training from the artifacts in"),
        (
            "optimizer_model.onnx",
            "set up training from the artifacts in",
        ),
    ] {
        copy();
        let bytes = std::fs::read(folder.path().join(file)).unwrap();
        std::fs::write(folder.path().join(file), &bytes[..bytes.len() / 2]).unwrap();
        let error = refused(|options| options.artifacts = folder.path().to_owned());
        assert!(error.to_string().contains(wanted), "{file}: {error}");
        std::fs::remove_file(folder.path().join(file)).unwrap();
        let error = refused(|options| options.artifacts = folder.path().to_owned());
        assert!(
            matches!(&error, EngineError::Io { path, .. } if path.ends_with(file)),
            "{file}: {error}"
        );
    }
}

#[test]
fn inputs_that_do_not_fit_the_graph_are_errors() {
    let expected = expected();
    let mut engine = engine(&expected, &[]);
    let mut step = |change: fn(&mut Vec<Tensor>)| {
        let mut inputs = inputs(&expected, &expected.batches[0]);
        change(&mut inputs);
        engine.train_step(&borrowed(&inputs)).unwrap_err()
    };
    let error = step(|inputs| drop(inputs.pop()));
    assert!(
        matches!(&error, EngineError::MissingInput { name, .. } if name == "keep"),
        "{error}"
    );
    let error = step(|inputs| inputs[0].name = "label".to_owned());
    assert!(
        matches!(&error, EngineError::UnknownInput { name, .. } if name == "label"),
        "{error}"
    );
    let error = step(|inputs| inputs.push(inputs[0].clone()));
    assert!(
        matches!(&error, EngineError::Duplicate { name } if name == "labels"),
        "{error}"
    );
    let error = step(|inputs| inputs[1].shape = vec![6, 5]);
    assert!(
        matches!(&error, EngineError::Length { name, length: 24, .. } if name == "features"),
        "{error}"
    );
    let error = step(|inputs| inputs[1].shape = vec![usize::MAX, 2]);
    assert!(
        matches!(&error, EngineError::Length { name, .. } if name == "features"),
        "{error}"
    );
    // These only ONNX Runtime can tell: another rank, another type, rows that don't match.
    for change in [
        (|inputs| inputs[1].shape = vec![24]) as fn(&mut Vec<Tensor>),
        |inputs| inputs[0].data = TensorData::F32(vec![0.0; 6]),
        |inputs| (inputs[0].shape, inputs[0].data) = (vec![5], TensorData::I64(vec![0; 5])),
    ] {
        let error = step(change);
        assert!(
            matches!(&error, EngineError::Runtime { doing, .. } if doing == "run the training graph"),
            "{error}"
        );
    }
    // After all that the engine still works.
    let wanted = expected.onnxruntime.losses[0];
    assert_close(
        "loss",
        &[loss(&mut engine, &expected, &expected.batches[0])],
        &[wanted],
        1e-6,
    );
}

#[test]
fn an_update_needs_gradients() {
    let expected = expected();
    let mut engine = engine(&expected, &expected.undecayed);
    assert!(matches!(
        engine.optimizer_step(0.1),
        Err(EngineError::NoGradients)
    ));
    loss(&mut engine, &expected, &expected.batches[0]);
    engine.optimizer_step(0.1).unwrap();
    assert!(matches!(
        engine.optimizer_step(0.1),
        Err(EngineError::NoGradients)
    ));
}

#[test]
fn parameters_and_moments_that_do_not_fit_change_nothing() {
    let expected = expected();
    let mut engine = engine(&expected, &expected.undecayed);
    let before = engine.parameters().unwrap();
    let mut changed = before.clone();
    changed[0].values[0] += 1.0;

    let mut wrong = changed.clone();
    wrong[3].shape = vec![1, 3];
    let error = engine.set_parameters(&wrong).unwrap_err();
    assert!(
        matches!(&error, EngineError::ParameterShape { name, .. } if name == "second.bias"),
        "{error}"
    );
    let mut wrong = changed.clone();
    wrong[3].name = "third.bias".to_owned();
    let error = engine.set_parameters(&wrong).unwrap_err();
    assert!(
        matches!(&error, EngineError::UnknownParameter { name } if name == "third.bias"),
        "{error}"
    );
    let mut wrong = changed.clone();
    wrong[3].values.pop();
    let error = engine.set_parameters(&wrong).unwrap_err();
    assert!(
        matches!(&error, EngineError::Length { name, .. } if name == "second.bias"),
        "{error}"
    );
    assert_eq!(bits(&engine.parameters().unwrap()), bits(&before));
    assert!(matches!(
        engine.parameter("third.bias"),
        Err(EngineError::UnknownParameter { .. })
    ));

    let state = OptimizerState {
        step: 1,
        first_moments: before.clone(),
        second_moments: before[1..].to_vec(),
        loss_scaling: None,
    };
    let error = engine.set_optimizer_state(state).unwrap_err();
    assert!(
        matches!(&error, EngineError::MissingMoment { which: "second", name } if name == "first.weight"),
        "{error}"
    );
    // One parameter alone may be replaced.
    engine.set_parameters(&changed[..1]).unwrap();
    assert_eq!(bits(&engine.parameters().unwrap()), bits(&changed));
}

#[test]
fn starts_from_a_checkpoint_that_this_crate_wrote() {
    let expected = expected();
    let folder = tempfile::tempdir().unwrap();
    for file in [
        "training_model.onnx",
        "eval_model.onnx",
        "optimizer_model.onnx",
    ] {
        std::fs::copy(toy().join(file), folder.path().join(file)).unwrap();
    }
    let mut arrays: Vec<_> = expected.parameters.iter().map(Parameter::array).collect();
    arrays[0].values[0] = f32::from_bits(0x0000_0001);
    arrays[0].values[1] = -0.0;
    std::fs::write(
        folder.path().join("checkpoint"),
        checkpoint_file::write(&arrays, None).unwrap(),
    )
    .unwrap();
    let mut options = options(&expected, &[]);
    options.artifacts = folder.path().to_owned();
    let mut engine = TrainingApiEngine::new(&loaded(), options).unwrap();
    // Everything has been read: the folder may go.
    drop(folder);
    assert_eq!(bits(&engine.parameters().unwrap()), bits(&arrays));
    let state = engine.optimizer_state().unwrap();
    assert_eq!(state.step, 0);
    engine.set_optimizer_state(state).unwrap();
}
