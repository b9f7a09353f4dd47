//! `convert-to-hf` against the folders that annotated-mpnet's converter and transformers write.

use std::path::Path;

use mpnet::checkpoint::{self, Checkpoint, Pointer};
use mpnet::verify::Case;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::{binary, failure, failure_without_a_trace, files, repository, stdout};

/// A native checkpoint of a golden case's starting weights, as a run in `folder` leaves it.
fn native(folder: &Path, case: &str) {
    let case = Case::load(&repository("tests/data/golden").join(case)).unwrap();
    let checkpoint = Checkpoint {
        model: case.model,
        config: Value::Null,
        step: 7,
        best_loss: None,
        best_figure: None,
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
        let weights = Path::new("model.safetensors");
        assert!(ours[weights] == theirs[weights], "the files differ");
        let (a, b) = (tensors(&ours), tensors(&theirs));
        assert_eq!(a.len(), b.len());
        for (ours, theirs) in a.iter().zip(&b) {
            assert!(ours == theirs, "{} differs from {}", ours.0, theirs.0);
        }
        let config = |f: &std::collections::BTreeMap<_, Vec<u8>>| -> Value {
            serde_json::from_slice(&f[Path::new("config.json")]).unwrap()
        };
        let (ours_config, theirs_config) = (config(&ours), config(&theirs));
        let mut theirs_config = theirs_config;
        theirs_config
            .as_object_mut()
            .unwrap()
            .remove("transformers_version");
        assert_eq!(ours_config, theirs_config, "{case}");
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
    for reason in ["cannot represent", "pre-LN", "16 relative", "40", "--force"] {
        assert!(said.contains(reason), "no '{reason}': {said}");
    }
    assert!(!folder.path().join("hf").exists());
    stdout(convert(folder.path(), "run").arg("--force"));
    assert!(folder.path().join("hf/model.safetensors").is_file());
}

#[test]
fn a_missing_checkpoint_and_a_strangers_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let said = failure_without_a_trace(folder.path(), &mut convert(folder.path(), "nowhere"), 1);
    assert!(said.contains("nowhere"), "{said}");
    std::fs::write(folder.path().join("best_checkpoint.pt"), "PK").unwrap();
    let mut theirs = convert(folder.path(), "best_checkpoint.pt");
    let said = failure_without_a_trace(folder.path(), &mut theirs, 1);
    assert!(
        said.contains("best_checkpoint.pt") && said.contains("torch.save"),
        "{said}"
    );
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

#[test]
fn a_model_is_replaced_but_its_readme_stays() {
    let folder = tempfile::tempdir().unwrap();
    let hf = folder.path().join("hf");
    native(&folder.path().join("run"), "postln-gelu");
    stdout(&mut convert(folder.path(), "run"));
    std::fs::write(hf.join("README.md"), "about it").unwrap();
    std::fs::write(hf.join("config.json"), "{}").unwrap();
    stdout(convert(folder.path(), "run").arg("--no-save-tokenizer"));
    let left = files(&hf);
    let names: Vec<_> = left.keys().map(|p| p.to_str().unwrap()).collect();
    assert_eq!(names, ["README.md", "config.json", "model.safetensors"]);
    // The card of this program is replaced, its owner's is not.
    assert_eq!(left[Path::new("README.md")], b"about it");
    assert!(left[Path::new("config.json")].len() > 100);
}

#[test]
fn the_tokenizer_cuts_rows_at_the_models_length() {
    let folder = tempfile::tempdir().unwrap();
    native(&folder.path().join("run"), "postln-gelu");
    stdout(&mut convert(folder.path(), "run"));
    let read = |path: &Path| -> Value {
        let text = std::fs::read(path.join("tokenizer_config.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let mut expected = read(&repository("examples/tokenizer"));
    assert_eq!(expected["model_max_length"], 512);
    expected["model_max_length"] = 48.into();
    assert_eq!(read(&folder.path().join("hf")), expected);
}

#[test]
fn no_damage_to_a_checkpoint_panics_and_none_to_its_tensors_passes() {
    let folder = tempfile::tempdir().unwrap();
    native(folder.path(), "postln-gelu");
    let checkpoint = folder.path().join("checkpoint-7");
    for file in ["model.safetensors", "trainer_state.json"] {
        let path = checkpoint.join(file);
        let whole = std::fs::read(&path).unwrap();
        let load = |bytes: &[u8], what: &str| {
            std::fs::write(&path, bytes).unwrap();
            let loaded = checkpoint::load(&checkpoint);
            // A digit of the state may be another digit; tensors have a hash.
            if file == "model.safetensors" {
                let error = loaded.expect_err(what).to_string();
                assert!(error.contains(file), "{what}: {error}");
            }
        };
        for step in 0..100 {
            let at = step * (whole.len() - 1) / 99;
            load(&whole[..at], "cut off");
            let mut changed = whole.clone();
            changed[at] ^= 1 << (step % 8);
            load(&changed, "a bit changed");
        }
        std::fs::write(&path, whole).unwrap();
        checkpoint::load(&checkpoint).unwrap();
    }
}

#[test]
fn shards_types_and_a_trimmed_vocabulary_come_back() {
    let folder = tempfile::tempdir().unwrap();
    native(&folder.path().join("run"), "postln-padded");
    let case = Case::load(&repository("tests/data/golden/postln-padded")).unwrap();
    stdout(convert(folder.path(), "run").args(["--max-shard-size", "20kB", "--no-save-tokenizer"]));
    let hf = folder.path().join("hf");
    let written = files(&hf);
    let index: Value =
        serde_json::from_slice(&written[Path::new("model.safetensors.index.json")]).unwrap();
    let map = index["weight_map"].as_object().unwrap();
    let mut bytes = 0;
    for (name, shard) in map {
        let shard = &written[Path::new(shard.as_str().unwrap())];
        let tensors = SafeTensors::deserialize(shard).unwrap();
        assert!(
            tensors.len() == 1 || shard.len() < 22_000,
            "{}",
            shard.len()
        );
        bytes += tensors.tensor(name).unwrap().data().len();
    }
    assert_eq!(index["metadata"]["total_size"], bytes);
    let back = |name: &str| {
        let run = folder.path().join(name);
        stdout(binary("mpnet", folder.path()).args(["import", "hf", "-o", name]));
        checkpoint::load(&checkpoint::resolve(&run, Pointer::Best).unwrap()).unwrap()
    };
    assert_eq!(back("whole").parameters, case.weights);

    stdout(convert(folder.path(), "run").args(["--trim-vocab", "--no-save-tokenizer"]));
    let trimmed = back("trimmed");
    let (rows, width) = (case.model.vocab_size, case.model.encoder_embed_dim);
    assert!(rows < case.model.padded_vocab_size);
    assert_eq!(trimmed.model.padded_vocab_size, rows);
    assert_eq!(
        trimmed.parameters[0].values,
        case.weights[0].values[..rows * width]
    );
    assert_eq!(trimmed.parameters.last().unwrap().shape, [rows]);

    for (dtype, bits) in [("float16", 11), ("bfloat16", 8)] {
        stdout(convert(folder.path(), "run").args(["--dtype", dtype, "--no-save-tokenizer"]));
        let config: Value = serde_json::from_slice(&files(&hf)[Path::new("config.json")]).unwrap();
        assert_eq!(config["dtype"], dtype);
        let found = back(dtype).parameters;
        for (found, expected) in found.iter().zip(&case.weights) {
            for (a, b) in found.values.iter().zip(&expected.values) {
                // Half a unit in the last place; below that f16 has no normal numbers.
                let tolerance = b.abs() * 2f32.powi(-bits) + 2f32.powi(-25);
                assert!((a - b).abs() <= tolerance, "{}: {a} for {b}", found.name);
            }
        }
        assert!(found[0] != case.weights[0]);
    }
}

#[test]
fn the_card_tells_the_runs_figures() {
    let folder = tempfile::tempdir().unwrap();
    native(&folder.path().join("run"), "postln-gelu");
    stdout(&mut convert(folder.path(), "run"));
    let card = std::fs::read_to_string(folder.path().join("hf/README.md")).unwrap();
    for words in [
        "pipeline_tag: fill-mask",
        "| layers | 2 |",
        "| updates made | 7 |",
    ] {
        assert!(card.contains(words), "no '{words}': {card}");
    }
}

#[test]
fn an_encoder_alone_has_every_tensor_of_automodel() {
    let folder = tempfile::tempdir().unwrap();
    native(&folder.path().join("run"), "postln-gelu");
    let mut command = convert(folder.path(), "run");
    command.args(["--head", "sentence", "--normalize", "--no-save-tokenizer"]);
    stdout(&mut command);
    let hf = folder.path().join("hf");
    let written = files(&hf);
    let json = |name: &str| -> Value { serde_json::from_slice(&written[Path::new(name)]).unwrap() };
    assert_eq!(json("config.json")["architectures"][0], "MPNetModel");
    assert_eq!(json("modules.json").as_array().unwrap().len(), 3);
    assert!(hf.join("2_Normalize").is_dir());
    let golden = files(&repository("tests/data/golden/postln-gelu/hf"));
    let name = Path::new("model.safetensors");
    let theirs = SafeTensors::deserialize(&golden[name]).unwrap();
    let ours = SafeTensors::deserialize(&written[name]).unwrap();
    let mut expected: Vec<String> = theirs
        .names()
        .into_iter()
        .filter_map(|name| Some(name.strip_prefix("mpnet.")?.to_owned()))
        .collect();
    for name in &expected {
        let theirs = theirs.tensor(&format!("mpnet.{name}")).unwrap();
        assert!(ours.tensor(name).unwrap() == theirs, "{name} differs");
    }
    expected.extend(["pooler.dense.bias", "pooler.dense.weight"].map(str::to_owned));
    expected.sort();
    let mut found = ours.names();
    found.sort();
    assert_eq!(found, expected);
    let card = std::fs::read_to_string(hf.join("README.md")).unwrap();
    assert!(card.contains("sentence-similarity"), "{card}");

    // Without its head it is another model, but the same encoder; and the folder is replaced.
    let mut import = binary("mpnet", folder.path());
    stdout(import.args(["import", "hf", "-o", "back"]));
    let back = checkpoint::resolve(&folder.path().join("back"), Pointer::Best).unwrap();
    let case = Case::load(&repository("tests/data/golden/postln-gelu")).unwrap();
    let encoder = |arrays: Vec<mpnet_runtime::engine::NamedArray>| -> Vec<_> {
        let kept = arrays
            .into_iter()
            .filter(|a| !a.name.starts_with("lm_head."));
        kept.collect()
    };
    let found = encoder(checkpoint::load(&back).unwrap().parameters);
    assert_eq!(found, encoder(case.weights));
    stdout(&mut convert(folder.path(), "run"));
    assert!(!hf.join("modules.json").exists());
}
