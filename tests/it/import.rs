//! `mpnet import` and `convert-to-hf` on other programs' files, bit for bit.

use std::path::Path;

use mpnet::checkpoint::{self, Checkpoint};
use mpnet::convert::pytorch::{self, Object};
use mpnet::verify::Case;
use mpnet_runtime::engine::NamedArray;
use safetensors::SafeTensors;

use crate::common::{binary, failure, failure_without_a_trace, files, repository, stdout};

fn import(folder: &Path, model: &str, further: &[&str]) -> assert_cmd::Command {
    let mut command = binary("mpnet", folder);
    command.args(["import", model, "--output", "run"]);
    command.args(further);
    command
}

/// What `mpnet import` makes of a file of tests/data.
fn imported(model: &str) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    let model = repository("tests/data").join(model);
    stdout(&mut import(folder.path(), model.to_str().unwrap(), &[]));
    let run = folder.path().join("run");
    let found = checkpoint::resolve(&run, checkpoint::Pointer::Latest).unwrap();
    checkpoint::load(&found).unwrap()
}

fn golden(case: &str) -> Case {
    Case::load(&repository("tests/data/golden").join(case)).unwrap()
}

fn assert_same(ours: &[NamedArray], theirs: &[NamedArray]) {
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!((&ours.name, &ours.shape), (&theirs.name, &theirs.shape));
        let bits = |a: &NamedArray| -> Vec<u32> { a.values.iter().map(|v| v.to_bits()).collect() };
        assert!(bits(ours) == bits(theirs), "{} differs", ours.name);
    }
}

#[test]
fn every_format_gives_the_golden_weights_bit_for_bit() {
    for (model, case) in [
        ("pytorch/annotated-postln-gelu.pt", "postln-gelu"),
        ("pytorch/annotated-postln-padded.pt", "postln-padded"),
        ("pytorch/fairseq.pt", "postln-gelu"),
        ("golden/postln-gelu/hf", "postln-gelu"),
        ("golden/postln-padded/hf", "postln-padded"),
    ] {
        let (found, case) = (imported(model), golden(case));
        assert_same(&found.parameters, &case.weights);
        let (a, b) = (&found.model, &case.model);
        assert_eq!(a.padded_vocab_size, b.padded_vocab_size, "{model}");
        assert_eq!(a.max_positions, b.max_positions, "{model}");
        assert_eq!(a.encoder_attention_heads, b.encoder_attention_heads);
        assert_eq!(
            found.step,
            if model.contains("fairseq") {
                500_000
            } else {
                0
            }
        );
    }
}

/// annotated-mpnet itself was seen to load such files, and to go on from them (tests/python/check_annotated_export.py).
#[test]
fn a_checkpoint_for_annotated_mpnet_holds_what_the_model_has() {
    let folder = tempfile::tempdir().unwrap();
    let run = stdout(&mut crate::common::pretrain(
        folder.path(),
        &["--total-updates", "1", "--normalize-before"],
    ));
    assert!(run.contains("update 1/1"), "{run}");
    let export = |further: &[&str]| {
        let mut command = binary("mpnet", folder.path());
        command.args([
            "export",
            "out",
            "--format",
            "annotated-mpnet",
            "--output",
            "theirs",
        ]);
        command.args(further);
        command
    };
    let said = failure(&mut export(&["--dtype", "fp16", "--head", "mlm"]), 2);
    assert!(said.contains("leave --head, --dtype out"), "{said}");
    // Twice: what is there from before is replaced.
    for _ in 0..2 {
        stdout(&mut export(&[]));
    }
    let theirs = folder.path().join("theirs/best_checkpoint.pt");
    stdout(&mut import(folder.path(), theirs.to_str().unwrap(), &[]));
    let [ours, again] = ["out", "run"].map(|run| {
        let found = checkpoint::resolve(&folder.path().join(run), checkpoint::Pointer::Latest);
        checkpoint::load(&found.unwrap()).unwrap()
    });
    assert_same(&again.parameters, &ours.parameters);
    assert_eq!(again.model, ours.model);

    std::fs::write(folder.path().join("theirs/mine"), "").unwrap();
    let said = failure_without_a_trace(folder.path(), &mut export(&[]), 1);
    assert!(
        said.contains("theirs exists and holds other things"),
        "{said}"
    );
}

#[test]
fn a_stored_row_of_token_types_is_added_to_every_word() {
    let found = imported("pytorch/hf-bin");
    let mut expected = golden("postln-gelu").weights;
    let width = expected[0].shape[1];
    let bytes = std::fs::read(repository(
        "tests/data/golden/postln-gelu/hf/model.safetensors",
    ));
    assert!(bytes.is_ok() && expected[0].name.ends_with("embed_tokens.weight"));
    // The row that make_peer_files.py stored: torch.linspace(-0.5, 0.5, width).
    let step = 1.0 / (width - 1) as f32;
    for (word, found) in expected[0]
        .values
        .iter_mut()
        .zip(&found.parameters[0].values)
    {
        assert!((found - *word).abs() <= 0.5 + 1e-6);
        *word = *found;
    }
    let row = |values: &[f32], index: usize| values[index * width..(index + 1) * width].to_vec();
    let before = golden("postln-gelu").weights.remove(0).values;
    let (first, last) = (row(&found.parameters[0].values, 0), row(&before, 0));
    for (i, (now, before)) in first.iter().zip(last).enumerate() {
        assert!(
            (now - before - (-0.5 + i as f32 * step)).abs() < 1e-6,
            "{i}"
        );
    }
    assert_same(&found.parameters, &expected);
}

#[test]
fn shards_of_a_pytorch_model_are_found_by_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let hf = folder.path().join("hf");
    std::fs::create_dir(&hf).unwrap();
    let whole = repository("tests/data/pytorch/hf-bin");
    let shard = "pytorch_model-00001-of-00001.bin";
    std::fs::copy(whole.join("pytorch_model.bin"), hf.join(shard)).unwrap();
    std::fs::copy(whole.join("config.json"), hf.join("config.json")).unwrap();
    let index = |file: &str| {
        let map = serde_json::json!({ "weight_map": { "mpnet.embeddings.LayerNorm.bias": file } });
        let path = hf.join("pytorch_model.bin.index.json");
        std::fs::write(path, map.to_string()).unwrap();
    };
    index(shard);
    stdout(&mut import(folder.path(), "hf", &[]));
    let found = checkpoint::load(&folder.path().join("run/checkpoint-0")).unwrap();
    assert_same(&found.parameters, &imported("pytorch/hf-bin").parameters);
    std::fs::remove_dir_all(folder.path().join("run")).unwrap();
    index("../hf/other.bin");
    let said = failure_without_a_trace(folder.path(), &mut import(folder.path(), "hf", &[]), 1);
    assert!(said.contains("in other folders"), "{said}");
}

#[test]
fn a_run_of_annotated_mpnet_comes_with_its_moments() {
    let found = imported("pytorch/trained.pt");
    assert_eq!((found.step, found.best_loss), (2, Some(7.25)));
    let optimizer = found.optimizer.unwrap();
    assert_eq!(optimizer.step, 2);
    let bytes =
        std::fs::read(repository("tests/data/pytorch/trained-moments.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(expected.len(), 2 * found.parameters.len());
    for (prefix, moments) in [
        ("exp_avg.", &optimizer.first_moments),
        ("exp_avg_sq.", &optimizer.second_moments),
    ] {
        for moment in moments {
            let theirs = expected
                .tensor(&format!("{prefix}{}", moment.name))
                .unwrap();
            let ours: Vec<u8> = moment.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert!(ours == theirs.data(), "{prefix}{} differs", moment.name);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let model = repository("tests/data/pytorch/trained.pt");
    let model = model.to_str().unwrap();
    stdout(&mut import(folder.path(), model, &["--no-optimizer"]));
    let left = checkpoint::load(&folder.path().join("run/checkpoint-2")).unwrap();
    assert!(left.optimizer.is_none());
}

#[test]
fn a_pytorch_file_is_converted_in_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = repository("tests/data/pytorch/annotated-postln-gelu.pt");
    std::fs::copy(theirs, folder.path().join("best_checkpoint.pt")).unwrap();
    let mut command = binary("convert-to-hf", folder.path());
    command.args(["--mpnet-checkpoint-path", "./best_checkpoint.pt"]);
    command.args(["--hf-model-folder-path", "hf", "--no-save-tokenizer"]);
    stdout(&mut command);
    let ours = files(&folder.path().join("hf"));
    let theirs = files(&repository("tests/data/golden/postln-gelu/hf"));
    let weights = Path::new("model.safetensors");
    assert!(ours[weights] == theirs[weights], "the files differ");
}

/// The published fairseq checkpoints of before relative positions, as far as a file of the tests is one.
#[test]
fn a_fairseq_file_without_relative_positions_gets_zeros() {
    let given = pytorch::open(&repository("tests/data/pytorch/fairseq.pt")).unwrap();
    let states = given.root().field("model").unwrap().entries().unwrap();
    let (mut names, mut tensors) = (Vec::new(), Vec::new());
    for (name, entry) in states {
        let Some(tensor) = entry.tensor() else {
            continue;
        };
        if name.contains("relative_attention_bias") {
            continue;
        }
        let (index, shape) = (tensors.len(), tensor.shape.clone());
        let rows = shape[0];
        names.push((name.to_owned(), Object::Tensor { index, shape }));
        tensors.push(tensor.read(0..rows).unwrap());
    }
    let args = given.root().field("args").unwrap();
    let sizes = [
        "encoder_layers",
        "encoder_embed_dim",
        "encoder_ffn_embed_dim",
        "encoder_attention_heads",
    ];
    let sizes = sizes.map(|name| {
        let size = args.field(name).and_then(|size| size.index()).unwrap();
        (name.to_owned(), Object::Whole(size as i32))
    });
    let root = Object::Dict(vec![
        ("args".into(), Object::Dict(sizes.into())),
        ("model".into(), Object::Dict(names)),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("fairseq.pt")).unwrap();
    let values = |index: usize| -> std::io::Result<Vec<f32>> { Ok(tensors[index].clone()) };
    pytorch::save(file, &root, tensors.len(), values).unwrap();
    let output = import(folder.path(), "fairseq.pt", &[]).assert().success();
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(
        said.contains("relative_attention_bias") && said.contains("zeros"),
        "{said}"
    );
    let found = checkpoint::load(&folder.path().join("run/checkpoint-0")).unwrap();
    let mut expected = golden("postln-gelu").weights;
    for weights in &mut expected {
        if weights.name.contains("relative_attention_bias") {
            weights.values.fill(0.0);
        }
    }
    assert_same(&found.parameters, &expected);
}

#[test]
fn what_is_missing_misshapen_or_too_much_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let hf = folder.path().join("hf");
    std::fs::create_dir(&hf).unwrap();
    let golden = files(&repository("tests/data/golden/postln-gelu/hf"));
    let config = &golden[Path::new("config.json")];
    let weights = &golden[Path::new("model.safetensors")];
    std::fs::write(hf.join("config.json"), config).unwrap();
    let write = |change: &dyn Fn(&str) -> Option<String>| {
        let tensors = SafeTensors::deserialize(weights).unwrap();
        let kept = tensors
            .iter()
            .filter_map(|(name, t)| Some((change(name)?, t)));
        safetensors::serialize_to_file(kept, None, &hf.join("model.safetensors")).unwrap();
    };
    let refused = |words: &[&str]| {
        let said = failure_without_a_trace(folder.path(), &mut import(folder.path(), "hf", &[]), 1);
        for word in words {
            assert!(said.contains(word), "no '{word}': {said}");
        }
    };
    let gone = "mpnet.encoder.layer.1.attention.attn.k.bias";
    write(&|name| (name != gone).then(|| name.to_owned()));
    refused(&[gone, "no tensor"]);
    let text = String::from_utf8(config.clone()).unwrap();
    write(&|name| Some(name.to_owned()));
    for (old, new, words) in [
        (
            "\"intermediate_size\": 64",
            "\"intermediate_size\": 63",
            "[63, 32]",
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            "layer.2.",
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 99999999999",
            "describe",
        ),
        (
            "\"hidden_size\": 32",
            "\"hidden_size\": 9999999999999",
            "describe",
        ),
        (
            "\"model_type\": \"mpnet\"",
            "\"model_type\": \"bert\"",
            "bert",
        ),
        (
            "\"hidden_act\": \"gelu\"",
            "\"hidden_act\": \"mish\"",
            "mish",
        ),
    ] {
        assert!(text.contains(old), "{old}");
        std::fs::write(hf.join("config.json"), text.replace(old, new)).unwrap();
        refused(&[words]);
    }
    std::fs::write(hf.join("config.json"), config).unwrap();
    // An encoder saved alone, with a pooler and something strange.
    write(&|name| {
        let name = name.strip_prefix("mpnet.")?;
        Some(match name {
            "embeddings.LayerNorm.bias" => "embeddings.LayerNorm.bias".to_owned(),
            name => name.to_owned(),
        })
    });
    let output = import(folder.path(), "hf", &[]).assert().success();
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("no LM head"), "{said}");
    let said = failure(&mut import(folder.path(), "some/name", &[]), 1);
    assert!(said.contains("some/name") && said.contains("Hub"), "{said}");
}
