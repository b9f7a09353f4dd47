//! `mpnet export`, `mpnet eval` and `--hf-model-path`, through the binaries. Exported graphs run in ONNX
//! Runtime here, and by `tests/tract/run` in tract, which shares no code with it.

use std::path::Path;

use mpnet::checkpoint;
use mpnet_runtime::engine::NamedArray;
use mpnet_runtime::library::{self, LocateOptions};
use ort::session::Session;
use ort::value::{PrimitiveTensorElementType, TensorRef};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

use crate::common::{
    binary, failure, failure_without_a_trace, files, pretrain, repository, stdout,
};

/// `mpnet export` of a golden case's HuggingFace folder to `folder`/onnx.
fn export(folder: &Path, case: &str, further: &[&str]) -> assert_cmd::Command {
    let mut command = binary("mpnet", folder);
    let model = repository("tests/data/golden").join(case).join("hf");
    command.arg("export").arg(model).args(["--output", "onnx"]);
    command.args(further);
    command
}

/// The elements of a stored i64 tensor.
fn whole(tensor: &TensorView) -> Vec<i64> {
    let each = tensor.data().as_chunks().0.iter();
    each.map(|b| i64::from_le_bytes(*b)).collect()
}

/// The elements of a stored f32 tensor.
fn floats(tensor: &TensorView) -> Vec<f32> {
    let each = tensor.data().as_chunks().0.iter();
    each.map(|b| f32::from_le_bytes(*b)).collect()
}

/// The golden ids and what transformers computes of them.
fn golden(case: &str) -> (Vec<i64>, Vec<i64>, [usize; 2], Vec<f32>) {
    let path = repository("tests/data/golden")
        .join(case)
        .join("hf_expected.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| tensors.tensor(name).unwrap();
    let ids = tensor("input_ids");
    let shape = [ids.shape()[0], ids.shape()[1]];
    let mask = whole(&tensor("attention_mask"));
    (whole(&ids), mask, shape, floats(&tensor("logits")))
}

/// An exported model in ONNX Runtime, for batches of any shape.
struct Exported(Session);

impl Exported {
    fn load(model: &Path) -> Exported {
        let build = library::locate(&LocateOptions::for_user(None).unwrap()).unwrap();
        let loaded = library::load(&build).unwrap();
        let mut builder = Session::builder(loaded.environment()).unwrap();
        Exported(builder.commit_from_file(model).unwrap())
    }

    /// Its first output for ids and mask of `shape`.
    fn run<T>(&mut self, ids: &[T], mask: &[T], shape: [usize; 2]) -> Vec<f32>
    where
        T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
    {
        let ids = TensorRef::from_array_view((shape, ids)).unwrap();
        let mask = TensorRef::from_array_view((shape, mask)).unwrap();
        let inputs = ort::inputs!["input_ids" => ids, "attention_mask" => mask];
        let outputs = self.0.run(inputs).unwrap();
        outputs[0].try_extract_tensor::<f32>().unwrap().1.to_vec()
    }
}

/// Fails where values at places that are no padding are further apart than `tolerance`, relative to the
/// largest where that is above 1.
fn assert_close(ours: &[f32], theirs: &[f32], mask: &[i64], tolerance: f32, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let width = ours.len() / mask.len();
    let largest = theirs.iter().fold(1f32, |most, x| most.max(x.abs()));
    for (place, (a, b)) in ours.iter().zip(theirs).enumerate() {
        if mask[place / width] != 0 {
            let off = (a - b).abs() / largest;
            assert!(off <= tolerance, "{what}: {a} for {b} at {place}");
        }
    }
}

#[test]
fn onnx_runtime_computes_what_transformers_computes() {
    for case in ["postln-gelu", "postln-padded"] {
        let folder = tempfile::tempdir().unwrap();
        let (ids, mask, shape, expected) = golden(case);
        let [texts, length] = shape.map(|size| size.to_string());
        for (options, tolerance) in [
            (&[][..], 1e-4),
            (&["--external-data"][..], 1e-4),
            (&["--int8"][..], 5e-2),
            (&["--opset", "20"][..], 1e-4),
            (&["--int8=dynamic"][..], 1e-1),
            (&["--int8=dynamic", "--opset", "20"][..], 1e-1),
            (&["--batch", &texts, "--length", &length][..], 1e-4),
        ] {
            stdout(export(folder.path(), case, &["--head", "mlm"]).args(options));
            let mut model = Exported::load(&folder.path().join("onnx/model.onnx"));
            let found = model.run(&ids, &mask, shape);
            let what = format!("{case} {options:?}");
            assert_close(&found, &expected, &mask, tolerance, &what);
        }
    }
}

#[test]
fn rows_of_any_length_and_padding_do_not_change_each_other() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&mut export(
        folder.path(),
        "postln-gelu",
        &["--head", "none"],
    ));
    let mut model = Exported::load(&folder.path().join("onnx/model.onnx"));
    let ids: Vec<i64> = (0..20)
        .map(|i| if i == 0 { 0 } else { 10 + 7 * i })
        .collect();
    for length in [1, 2, 9, 20] {
        let alone = model.run(&ids[..length], &vec![1; length], [1, length]);
        let mut padded = ids[..length].to_vec();
        padded.resize(24, 1);
        let mut mask = vec![1; length];
        mask.resize(24, 0);
        let padded = model.run(&padded, &mask, [1, 24]);
        assert_close(
            &padded[..alone.len()],
            &alone,
            &vec![1; length],
            1e-5,
            &format!("{length}"),
        );
    }
}

#[test]
fn a_folder_holds_what_optimum_and_sentence_transformers_look_for() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&mut export(
        folder.path(),
        "postln-gelu",
        &["--head", "sentence", "--normalize"],
    ));
    let left = files(&folder.path().join("onnx"));
    let json = |name: &str| -> Value { serde_json::from_slice(&left[Path::new(name)]).unwrap() };
    let modules = json("modules.json");
    let kinds: Vec<&str> = modules
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["type"].as_str().unwrap())
        .collect();
    assert!(
        kinds[0].ends_with("Transformer")
            && kinds[1].ends_with("Pooling")
            && kinds[2].ends_with("Normalize")
    );
    assert_eq!(
        json("1_Pooling/config.json")["pooling_mode_mean_tokens"],
        true
    );
    assert_eq!(json("config.json")["architectures"][0], "MPNetModel");
    // Again into the same folder, and not into a stranger's.
    stdout(&mut export(
        folder.path(),
        "postln-gelu",
        &["--head", "mlm"],
    ));
    assert!(!folder.path().join("onnx/modules.json").exists());
    let thesis = folder.path().join("onnx/thesis.doc");
    std::fs::write(&thesis, "years of work").unwrap();
    let mut again = export(folder.path(), "postln-gelu", &[]);
    let said = failure_without_a_trace(folder.path(), &mut again, 1);
    assert!(said.contains("choose another folder"), "{said}");
    std::fs::remove_file(thesis).unwrap();
    std::fs::remove_file(folder.path().join("onnx/model.onnx")).unwrap();
    let said = failure(&mut export(folder.path(), "postln-gelu", &[]), 1);
    assert!(said.contains("choose another folder"), "{said}");
    let said = failure(
        &mut export(folder.path(), "postln-gelu", &["--opset", "16"]),
        2,
    );
    assert!(said.contains("16"), "{said}");
}

/// Where transformers.js looks for them, each in its own arithmetic.
#[test]
fn several_models_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (ids, mask, shape, expected) = golden("postln-gelu");
    let options = ["--head", "mlm", "--layout", "transformers.js"];
    let mut command = export(folder.path(), "postln-gelu", &options);
    stdout(command.args(["--dtype", "fp32,fp16", "--int8=weights,dynamic"]));
    let models = [
        ("model.onnx", 1e-4),
        ("model_fp16.onnx", 1e-2),
        ("model_quantized.onnx", 5e-2),
        ("model_int8.onnx", 1e-1),
    ];
    for (name, tolerance) in models {
        let mut model = Exported::load(&folder.path().join("onnx/onnx").join(name));
        let found = model.run(&ids, &mask, shape);
        assert_close(&found, &expected, &mask, tolerance, name);
    }
    // It is known for an export, and gone when another is written there.
    let narrow = ["--head", "mlm", "--int32-inputs"];
    stdout(&mut export(folder.path(), "postln-gelu", &narrow));
    assert!(!folder.path().join("onnx/onnx").exists());
    let mut model = Exported::load(&folder.path().join("onnx/model.onnx"));
    let narrow = |values: &[i64]| -> Vec<i32> { values.iter().map(|v| *v as i32).collect() };
    let found = model.run(&narrow(&ids), &narrow(&mask), shape);
    assert_close(&found, &expected, &mask, 1e-4, "i32");
    let mut burn = export(folder.path(), "postln-gelu", &["--format", "burn"]);
    let said = failure(burn.args(["--layout", "transformers.js"]), 2);
    assert!(said.contains("--layout"), "{said}");
    let mut long = export(folder.path(), "postln-gelu", &["--length", "49"]);
    let said = failure(&mut long, 2);
    assert!(said.contains("48 positions"), "{said}");
}

#[test]
fn only_sentence_embeddings_are_normalized() {
    let folder = tempfile::tempdir().unwrap();
    let model = repository("tests/data/golden/postln-gelu/hf");
    let mut convert = binary("convert-to-hf", folder.path());
    convert.arg("--mpnet-checkpoint-path").arg(model);
    convert.args(["--hf-model-folder-path", "hf"]);
    for command in [&mut export(folder.path(), "postln-gelu", &[]), &mut convert] {
        command.arg("--normalize");
        let said = failure_without_a_trace(folder.path(), command, 2);
        assert!(said.contains("--head sentence"), "{said}");
        command.args(["--head", "mlm"]);
        let said = failure_without_a_trace(folder.path(), command, 2);
        assert!(said.contains("--head sentence"), "{said}");
    }
}

/// The example is built by hand; what it is built from is what is written today.
#[test]
fn the_burn_example_is_what_export_writes() {
    let folder = tempfile::tempdir().unwrap();
    let burn = ["--format", "burn"];
    stdout(&mut export(folder.path(), "postln-gelu", &burn));
    let written = files(&folder.path().join("onnx"));
    let kept = files(&repository("examples/burn/encoder"));
    assert!(written.keys().eq(kept.keys()), "{:?}", written.keys());
    for (name, bytes) in &written {
        let same = kept[name] == *bytes;
        assert!(same, "{name:?} is another: run tests/python/check_burn.py");
    }
    // What Cargo left there stays, and a stranger's package is not touched.
    std::fs::write(folder.path().join("onnx/Cargo.lock"), "").unwrap();
    stdout(&mut export(folder.path(), "postln-gelu", &burn));
    assert!(folder.path().join("onnx/Cargo.lock").is_file());
    std::fs::write(folder.path().join("onnx/build.rs"), "fn main() {}").unwrap();
    let said = failure(&mut export(folder.path(), "postln-gelu", &burn), 1);
    assert!(said.contains("choose another folder"), "{said}");
    let fp16 = ["--format", "burn", "--dtype", "fp16"];
    let said = failure(&mut export(folder.path(), "postln-gelu", &fp16), 2);
    assert!(said.contains("--dtype"), "{said}");
}

#[test]
fn a_runs_own_figures_come_from_eval_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let printed = stdout(&mut pretrain(folder.path(), &["--total-updates", "4"]));
    let last = printed
        .lines()
        .find(|l| l.contains("validation after update 4"))
        .unwrap();
    let figure = last
        .split("loss ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let mut convert = binary("convert-to-hf", folder.path());
    convert.args([
        "--mpnet-checkpoint-path",
        "out",
        "--hf-model-folder-path",
        "hf",
    ]);
    stdout(&mut convert);
    for (model, text) in [
        ("out", "valid.txt"),
        ("out", "vali?.*"),
        ("hf", "valid.txt"),
    ] {
        let mut command = binary("mpnet", folder.path());
        command.args(["eval", model, "--text", text, "--batch-size", "8", "--json"]);
        let found: Value = serde_json::from_str(&stdout(&mut command)).unwrap();
        let loss = found["loss"].as_f64().unwrap();
        assert_eq!(format!("{loss:.4}"), figure, "{model}: {last}");
    }
    let mut command = binary("mpnet", folder.path());
    command.args([
        "eval",
        "out",
        "--text",
        "valid.txt",
        "--max-tokens",
        "99999",
    ]);
    assert!(failure(&mut command, 1).contains("positions"));
}

#[test]
fn a_run_starts_from_a_huggingface_folder_of_other_length() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&mut pretrain(folder.path(), &["--total-updates", "1"]));
    let mut convert = binary("convert-to-hf", folder.path());
    convert.args([
        "--mpnet-checkpoint-path",
        "out",
        "--hf-model-folder-path",
        "hf",
    ]);
    stdout(&mut convert);
    let load = |run: &str| {
        let run = folder.path().join(run);
        let found = checkpoint::resolve(&run, checkpoint::Pointer::Latest).unwrap();
        checkpoint::load(&found).unwrap()
    };
    let first = load("out");
    let longer = (first.model.max_positions + 8).to_string();
    // A rate of next to nothing: the weights stay.
    let further = [
        "--total-updates",
        "1",
        "--lr",
        "1e-12",
        "--hf-model-path",
        "hf",
    ];
    let mut command = pretrain(folder.path(), &further);
    command.args(["--max-tokens", &longer, "--checkpoint-dir", "second"]);
    let output = command.assert().success().get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("positions lengthened"), "{said}");
    let second = load("second");
    assert_eq!(second.model.max_positions, first.model.max_positions + 8);
    for (a, b) in first.parameters.iter().zip(&second.parameters) {
        same_but_for_new_rows(a, b);
    }
    let mut command = pretrain(folder.path(), &["--hf-model-path", "some/name"]);
    let said = failure_without_a_trace(folder.path(), &mut command, 1);
    assert!(said.contains("some/name") && said.contains("Hub"), "{said}");
}

fn same_but_for_new_rows(a: &NamedArray, b: &NamedArray) {
    let far = a
        .values
        .iter()
        .zip(&b.values)
        .find(|(a, b)| (*a - *b).abs() > 1e-9 + a.abs() * 1e-6);
    assert!(far.is_none(), "{}: {far:?}", a.name);
    assert_eq!(
        a.shape == b.shape,
        !a.name.contains("embed_positions"),
        "{}",
        a.name
    );
}
