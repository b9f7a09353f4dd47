//! Models as people bring them: what is kept, what is refused, and what is said of the rest.

use std::path::Path;

use mpnet::checkpoint::{self, Checkpoint, Pointer};
use mpnet::cli::model_file::preset_model;
use mpnet::cli::presets::Preset;
use mpnet::convert::pytorch::{self, Object};
use mpnet::initialize::initial_parameters;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::common::hub::{HubServer, Repo};
use crate::common::{self, binary, failure, failure_without_a_trace, pretrain, repository, stdout};

/// A model of the tiny preset with the example tokenizer, `hf` in `folder`, as `convert-to-hf` writes it.
fn huggingface(folder: &Path, further: &[&str]) {
    let mut model = preset_model(Preset::Tiny);
    (model.vocab_size, model.padded_vocab_size) = (4096, 4096);
    model.mask_token_id = 4095;
    let checkpoint = Checkpoint {
        parameters: initial_parameters(&model, 7),
        model,
        config: Value::Null,
        step: 0,
        best_loss: None,
        best_figure: None,
        validated: None,
        data: Value::Null,
        seed: 0,
        optimizer: None,
        tokenizer: Some(repository("examples/tokenizer/tokenizer.json")),
    };
    let run = folder.join("run");
    checkpoint::prepare(&run).unwrap();
    checkpoint::save(&run, &checkpoint).unwrap();
    checkpoint::set_pointer(&run, Pointer::Best, 0).unwrap();
    checkpoint::set_pointer(&run, Pointer::Latest, 0).unwrap();
    stdout(convert(folder, "run", "hf").args(further));
}

/// `convert-to-hf` from one path to another, both in `folder`.
fn convert(folder: &Path, from: &str, to: &str) -> assert_cmd::Command {
    let mut command = binary("convert-to-hf", folder);
    command.args([
        "--mpnet-checkpoint-path",
        from,
        "--hf-model-folder-path",
        to,
    ]);
    command
}

/// The JSON in a file.
fn json_in(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Changes the JSON in a file.
fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = json_in(path);
    change(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

/// Another tokenizer of the same size: two of its words have changed places.
fn other_tokenizer(folder: &Path) {
    let target = folder.join("other");
    std::fs::create_dir_all(&target).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let from = repository("examples/tokenizer").join(file);
        std::fs::copy(from, target.join(file)).unwrap();
    }
    change(&target.join("tokenizer.json"), |definition| {
        let words = definition["model"]["vocab"].as_object_mut().unwrap();
        let (the, and) = (words["the"].clone(), words["and"].clone());
        words.insert("the".into(), and);
        words.insert("and".into(), the);
    });
}

/// `pretrain-mpnet` on the example text for two updates, without a tokenizer's name.
pub fn from_model(folder: &Path, further: &[&str]) -> assert_cmd::Command {
    for name in ["valid.txt", "test.txt"] {
        common::small_text(folder, name);
    }
    let mut command = binary("pretrain-mpnet", folder);
    command.args([
        "--preset",
        "tiny",
        "--checkpoint-dir",
        "out",
        "--threads",
        "2",
    ]);
    command.args([
        "--batch-size",
        "4",
        "--update-freq",
        "1",
        "--total-updates",
        "2",
    ]);
    command
        .arg("--train-dir")
        .arg(repository("examples/corpus/train"));
    command.args(["--valid-file", "valid.txt", "--test-file", "test.txt"]);
    command.args(further);
    command
}

#[test]
fn a_run_from_a_model_has_the_models_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &[]);
    stdout(&mut from_model(folder.path(), &["--hf-model-path", "hf"]));
    let kept = folder
        .path()
        .join("out/checkpoint-2/tokenizer/tokenizer.json");
    let own = repository("examples/tokenizer/tokenizer.json");
    assert_eq!(std::fs::read(kept).unwrap(), std::fs::read(own).unwrap());
    // It goes on with the same one, without its being named.
    stdout(&mut from_model(
        folder.path(),
        &["--resume", "--total-updates", "3", "--override"],
    ));
    assert!(folder.path().join("out/checkpoint-3").is_dir());
}

#[test]
fn another_tokenizer_than_the_models_is_refused_unless_accepted() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &[]);
    other_tokenizer(folder.path());
    let other = ["--hf-model-path", "hf", "--tokenizer-name", "other"];
    let said = failure(&mut from_model(folder.path(), &other), 1);
    for word in ["other/tokenizer.json", "hf/tokenizer.json", "--override"] {
        assert!(said.contains(word), "no '{word}': {said}");
    }
    assert!(!folder.path().join("out").exists());
    // A checkpoint's is compared as well.
    let run = ["--hf-model-path", "run", "--tokenizer-name", "other"];
    let said = failure(&mut from_model(folder.path(), &run), 1);
    assert!(said.contains("--override"), "{said}");
    let accepted = [&other[..], &["--override", "--dry-run"]].concat();
    stdout(&mut from_model(folder.path(), &accepted));
    // How rows are cut and padded makes no other tokenizer.
    change(&folder.path().join("hf/tokenizer.json"), |definition| {
        definition["truncation"] = json!({
            "direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0
        });
    });
    let same = ["--hf-model-path", "hf", "--dry-run"];
    stdout(&mut pretrain(folder.path(), &same));
}

/// A tokenizer with more entries than the model has rows for.
#[test]
fn a_tokenizer_larger_than_the_model_is_refused_with_both_sizes() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &[]);
    let grow = |definition: &mut Value| {
        let words = definition["model"]["vocab"].as_object_mut().unwrap();
        let first = words.len();
        for further in first..first + 200 {
            words.insert(format!("further{further}"), further.into());
        }
    };
    // Beside the model: a tokenizer of another model was put there.
    change(&folder.path().join("hf/tokenizer.json"), grow);
    let model = ["--hf-model-path", "hf"];
    let run = &mut from_model(folder.path(), &model);
    let said = failure_without_a_trace(folder.path(), run, 1);
    for word in ["4096", "4296", "tokenizer"] {
        assert!(said.contains(word), "no '{word}': {said}");
    }
    // And one that was asked for, although another one is said to be the model's.
    other_tokenizer(folder.path());
    change(&folder.path().join("other/tokenizer.json"), grow);
    let asked = [&model[..], &["--tokenizer-name", "other", "--override"]].concat();
    let run = &mut from_model(folder.path(), &asked);
    let said = failure_without_a_trace(folder.path(), run, 1);
    for word in ["4096", "4296", "tokenizer"] {
        assert!(said.contains(word), "no '{word}': {said}");
    }
}

/// Makes a definition one of Unigram, or of BPE over bytes, with as many entries and the same special tokens.
fn of_another_model(definition: &mut Value, bytes: bool) {
    const SIZE: usize = 4096;
    definition["normalizer"] = Value::Null;
    // What stands for a space in front of a word, and letters; then entries that no text has.
    let space = if bytes { "\u{120}" } else { "\u{2581}" };
    let letters = [space.to_owned()]
        .into_iter()
        .chain(('a'..='z').map(String::from));
    let special = ["<s>", "<pad>", "</s>", "[UNK]"].map(str::to_owned);
    let mut entries: Vec<String> = special.into_iter().chain(letters).collect();
    entries.extend((entries.len()..SIZE - 1).map(|i| format!("entry{i}")));
    entries.push("<mask>".to_owned());
    let entries = entries.into_iter();
    definition["model"] = if bytes {
        definition["pre_tokenizer"] = json!({
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        });
        definition["decoder"] = json!({
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        });
        let vocabulary: serde_json::Map<String, Value> = entries
            .enumerate()
            .map(|(id, entry)| (entry, id.into()))
            .collect();
        json!({
            "type": "BPE", "dropout": null, "unk_token": "[UNK]", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": [],
        })
    } else {
        let spaces = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
        definition["pre_tokenizer"] = spaces.clone();
        definition["decoder"] = spaces;
        let vocabulary: Vec<Value> = entries.map(|entry| json!([entry, -8.0])).collect();
        json!({"type": "Unigram", "unk_id": 3, "vocab": vocabulary, "byte_fallback": false})
    };
}

/// transformers builds these two anew from their configuration, wrongly where it has none.
#[test]
fn tokenizers_of_unigram_and_of_bytes_are_trained_with_and_kept() {
    for bytes in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        huggingface(folder.path(), &[]);
        let hf = folder.path().join("hf");
        change(&hf.join("tokenizer.json"), |d| of_another_model(d, bytes));
        std::fs::remove_file(hf.join("tokenizer_config.json")).unwrap();
        let definition = json_in(&hf.join("tokenizer.json"));
        let checked = stdout(binary("mpnet", folder.path()).args(["tokenizer", "check", "hf"]));
        assert!(
            checked.contains("there is no tokenizer_config.json")
                && checked.contains("it can be trained with"),
            "{checked}"
        );
        stdout(&mut from_model(folder.path(), &["--hf-model-path", "hf"]));
        stdout(&mut convert(folder.path(), "out", "again"));
        let mut export = binary("mpnet", folder.path());
        stdout(export.args(["export", "out", "--output", "onnx", "--head", "sentence"]));
        for written in ["again", "onnx"] {
            let written = folder.path().join(written);
            let config = json_in(&written.join("tokenizer_config.json"));
            assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
            assert_eq!(config["model_max_length"], 128);
            assert_eq!(
                config["model_input_names"],
                json!(["input_ids", "attention_mask"])
            );
            let roles = [
                "bos_token",
                "eos_token",
                "unk_token",
                "pad_token",
                "mask_token",
            ];
            let tokens = ["<s>", "</s>", "[UNK]", "<pad>", "<mask>"];
            for (role, token) in roles.into_iter().zip(tokens) {
                assert_eq!(config[role], token);
            }
            let kept = json_in(&written.join("tokenizer.json"));
            for part in ["model", "normalizer", "pre_tokenizer", "added_tokens"] {
                assert!(kept[part] == definition[part], "{part}");
            }
        }
    }
}

#[test]
fn a_model_without_a_tokenizer_asks_for_one() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &["--no-save-tokenizer"]);
    let said = failure_without_a_trace(
        folder.path(),
        &mut from_model(folder.path(), &["--hf-model-path", "hf"]),
        1,
    );
    assert!(said.contains("--tokenizer-name"), "{said}");
    let same = ["--hf-model-path", "hf", "--dry-run"];
    stdout(&mut pretrain(folder.path(), &same));
}

/// The tensors of a HuggingFace folder, by name: shape and bytes.
fn tensors(hf: &Path) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(hf.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Vec<_> = tensors
        .iter()
        .map(|(name, t)| (name.to_owned(), t.shape().to_vec(), t.data().to_vec()))
        .collect();
    found.sort();
    found
}

/// Writes tensors as the weights of a folder.
fn write_tensors(hf: &Path, tensors: &[(String, Vec<usize>, Vec<u8>)]) {
    let views = tensors.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), data).unwrap();
        (name.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, &hf.join("model.safetensors")).unwrap();
}

/// Bytes of numbers.
fn numbers(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// What a command that succeeds says on standard error.
fn said(command: &mut assert_cmd::Command) -> String {
    let output = command.assert().success().get_output().stderr.clone();
    String::from_utf8(output).unwrap()
}

/// What `convert-to-hf --head sentence` from `hf` to `again`, both in `folder`, says.
fn sentence_again(folder: &Path) -> String {
    said(convert(folder, "hf", "again").args(["--head", "sentence"]))
}

/// Width of the tiny preset.
const WIDTH: usize = 128;

/// Makes `hf` in `folder` a sentence-transformers folder with all that one may hold: of the releases before
/// 6, or of 6.
fn sentence_folder(folder: &Path, newest: bool) {
    huggingface(folder, &["--head", "sentence"]);
    let hf = folder.join("hf");
    let class = |name: &str| match (newest, name) {
        (false, _) => format!("sentence_transformers.models.{name}"),
        (true, "Pooling") => {
            "sentence_transformers.sentence_transformer.modules.pooling.Pooling".into()
        }
        (true, _) => format!(
            "sentence_transformers.base.modules.{}.{name}",
            name.to_lowercase()
        ),
    };
    let names = ["Transformer", "Pooling", "Dense", "Normalize"];
    let paths = ["", "1_Pooling", "2_Dense", "3_Normalize"];
    let modules: Vec<Value> = names
        .iter()
        .zip(paths)
        .enumerate()
        .map(|(i, (name, path))| {
            json!({"idx": i, "name": i.to_string(), "path": path, "type": class(name)})
        })
        .collect();
    std::fs::write(hf.join("modules.json"), json!(modules).to_string()).unwrap();
    std::fs::create_dir_all(hf.join("2_Dense")).unwrap();
    let mut dense = json!({
        "in_features": WIDTH, "out_features": 3, "bias": true,
        "activation_function": "torch.nn.modules.linear.Identity",
    });
    let settings = json!({
        "prompts": {"query": "search: ", "document": ""}, "default_prompt_name": "query",
        "similarity_fn_name": "dot", "model_type": "SentenceTransformer",
        "__version__": {"sentence_transformers": "6.2.0"},
    });
    let (pooling, transformer) = if newest {
        dense["module_input_name"] = "sentence_embedding".into();
        dense["module_output_name"] = "sentence_embedding".into();
        (
            json!({"embedding_dimension": WIDTH, "pooling_mode": "cls", "include_prompt": false}),
            json!({
                "transformer_task": "feature-extraction", "module_output_name": "token_embeddings",
                "modality_config": {"text": {"method": "forward"}},
            }),
        )
    } else {
        (
            json!({
                "word_embedding_dimension": WIDTH, "pooling_mode_cls_token": true,
                "pooling_mode_mean_tokens": false, "include_prompt": false,
            }),
            json!({"max_seq_length": 99, "do_lower_case": true}),
        )
    };
    change(&hf.join("tokenizer_config.json"), |config| {
        config["model_max_length"] = if newest { 99 } else { 128 }.into();
    });
    std::fs::write(hf.join("2_Dense/config.json"), dense.to_string()).unwrap();
    std::fs::write(hf.join("1_Pooling/config.json"), pooling.to_string()).unwrap();
    std::fs::write(
        hf.join("sentence_bert_config.json"),
        transformer.to_string(),
    )
    .unwrap();
    std::fs::write(
        hf.join("config_sentence_transformers.json"),
        settings.to_string(),
    )
    .unwrap();
    let weights = [
        ("linear.bias".into(), vec![3], numbers([0.5, -0.5, 0.25])),
        (
            "linear.weight".into(),
            vec![3, WIDTH],
            numbers((0..3 * WIDTH).map(|i| i as f32)),
        ),
    ];
    write_tensors(&hf.join("2_Dense"), &weights);
}

#[test]
fn everything_of_a_sentence_model_is_kept_whatever_the_release() {
    for newest in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        sentence_folder(folder.path(), newest);
        let (hf, again) = (folder.path().join("hf"), folder.path().join("again"));
        assert_eq!(sentence_again(folder.path()), "");
        let modules = json_in(&again.join("modules.json"));
        let types: Vec<&str> = (0..4)
            .map(|i| modules[i]["type"].as_str().unwrap())
            .collect();
        let names = ["Transformer", "Pooling", "Dense", "Normalize"];
        assert_eq!(
            types,
            names.map(|name| format!("sentence_transformers.models.{name}"))
        );
        assert!(again.join("3_Normalize").is_dir());
        let transformer = json_in(&again.join("sentence_bert_config.json"));
        assert_eq!(
            transformer,
            json!({"max_seq_length": 99, "do_lower_case": !newest})
        );
        assert_eq!(
            json_in(&again.join("tokenizer_config.json"))["model_max_length"],
            99
        );
        let pooling = json_in(&again.join("1_Pooling/config.json"));
        assert_eq!(pooling["pooling_mode_cls_token"], true);
        assert_eq!(pooling["pooling_mode_mean_tokens"], false);
        assert_eq!(pooling["include_prompt"], false);
        assert_eq!(pooling["word_embedding_dimension"], WIDTH);
        let settings = json_in(&again.join("config_sentence_transformers.json"));
        let mut expected = json_in(&hf.join("config_sentence_transformers.json"));
        expected.as_object_mut().unwrap().remove("__version__");
        assert_eq!(settings, expected);
        let dense = json_in(&again.join("2_Dense/config.json"));
        assert_eq!(
            dense["activation_function"],
            "torch.nn.modules.linear.Identity"
        );
        let (ours, theirs) = (again.join("2_Dense"), hf.join("2_Dense"));
        assert!(tensors(&ours) == tensors(&theirs));
        assert!(tensors(&again) == tensors(&hf));
        // So it is by an export, whose ONNX model computes it all.
        let mut export = binary("mpnet", folder.path());
        export.args(["export", "hf", "--output", "onnx", "--head", "sentence"]);
        let notes = said(&mut export);
        assert!(notes.contains("of a prompt"), "{notes}");
        let onnx = folder.path().join("onnx");
        for file in [
            "modules.json",
            "sentence_bert_config.json",
            "2_Dense/model.safetensors",
        ] {
            let (a, b) = (again.join(file), onnx.join(file));
            assert_eq!(
                std::fs::read(a).unwrap(),
                std::fs::read(b).unwrap(),
                "{file}"
            );
        }
        // An encoder alone says what it leaves.
        let left = said(convert(folder.path(), "hf", "alone").args(["--head", "none"]));
        for word in [
            "left out: Pooling (cls)",
            "Dense",
            "Normalize",
            "prompts",
            "99 tokens",
        ] {
            assert!(left.contains(word), "no '{word}': {left}");
        }
        let mut import = binary("mpnet", folder.path());
        let left = said(import.args(["import", "hf", "-o", "native"]));
        assert!(
            left.contains("Pooling (cls)") && left.contains("pooler is left out"),
            "{left}"
        );
    }
}

#[test]
fn every_pooling_mode_and_every_combination_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &["--head", "sentence"]);
    let flags = [
        "pooling_mode_cls_token",
        "pooling_mode_max_tokens",
        "pooling_mode_mean_tokens",
        "pooling_mode_mean_sqrt_len_tokens",
        "pooling_mode_weightedmean_tokens",
        "pooling_mode_lasttoken",
    ];
    let modes = [
        "cls",
        "max",
        "mean",
        "mean_sqrt_len_tokens",
        "weightedmean",
        "lasttoken",
    ];
    let config = folder.path().join("hf/1_Pooling/config.json");
    let again = folder.path().join("again/1_Pooling/config.json");
    for chosen in [1usize, 2, 4, 8, 16, 32, 6, 33, 63] {
        let used = |i: usize| chosen >> i & 1 == 1;
        let names: Vec<&str> = (0..6).filter(|i| used(*i)).map(|i| modes[i]).collect();
        let old: serde_json::Map<String, Value> = (0..6)
            .map(|i| (flags[i].to_owned(), used(i).into()))
            .chain([("word_embedding_dimension".to_owned(), WIDTH.into())])
            .collect();
        for written in [
            Value::Object(old),
            json!({"embedding_dimension": WIDTH, "pooling_mode": names}),
        ] {
            std::fs::write(&config, written.to_string()).unwrap();
            sentence_again(folder.path());
            let found = json_in(&again);
            for (i, flag) in flags.iter().enumerate() {
                assert_eq!(found[flag], used(i), "{flag} of {written}");
            }
        }
    }
    // An order that releases before 6 have no words for stays in those of 6.
    let order = json!({"embedding_dimension": WIDTH, "pooling_mode": ["mean", "cls"]});
    std::fs::write(&config, order.to_string()).unwrap();
    sentence_again(folder.path());
    assert_eq!(json_in(&again)["pooling_mode"], json!(["mean", "cls"]));
    // And is read back as such; so is an exported model's.
    let mut export = binary("mpnet", folder.path());
    stdout(export.args(["export", "again", "--output", "onnx", "--head", "sentence"]));
    let exported = json_in(&folder.path().join("onnx/1_Pooling/config.json"));
    assert_eq!(exported["pooling_mode"], json!(["mean", "cls"]));
}

/// Checks that the folder `hf` is refused as a sentence model because of `what`, and that its encoder can be had all the
/// same; what is said then.
fn encoder_alone_of_no_sentence_model(folder: &Path, what: &str) -> String {
    let mut sentence = convert(folder, "hf", "again");
    let refusal = failure_without_a_trace(folder, sentence.args(["--head", "sentence"]), 1);
    assert!(
        refusal.contains(what) && refusal.contains("--head none"),
        "no '{what}': {refusal}"
    );
    let target = tempfile::tempdir().unwrap();
    let to = target.path().join("to");
    said(convert(folder, "hf", to.to_str().unwrap()).args(["--head", "none"]))
}

#[test]
fn modules_that_cannot_be_kept_are_named() {
    let folder = tempfile::tempdir().unwrap();
    sentence_folder(folder.path(), false);
    let hf = folder.path().join("hf");
    let kept = common::files(&hf);
    let refused = |what: &str, file: &str, edit: &dyn Fn(&mut Value)| {
        let path = hf.join(file);
        change(&path, edit);
        let alone = encoder_alone_of_no_sentence_model(folder.path(), what);
        assert!(alone.contains(what), "no '{what}': {alone}");
        std::fs::write(&path, &kept[Path::new(file)]).unwrap();
    };
    for class in [
        "LSTM",
        "CNN",
        "WordWeights",
        "SpladePooling",
        "LayerNorm",
        "Router",
    ] {
        refused(class, "modules.json", &|modules| {
            modules[2]["type"] = format!("sentence_transformers.models.{class}").into();
        });
    }
    refused("custom_code.Pooling", "modules.json", &|modules| {
        modules[1]["type"] = "custom_code.Pooling".into();
    });
    refused("no module that pools", "modules.json", &|modules| {
        modules.as_array_mut().unwrap().truncate(1);
    });
    refused("fill-mask", "sentence_bert_config.json", &|config| {
        config["transformer_task"] = "fill-mask".into();
    });
    refused(
        "SparseEncoder",
        "config_sentence_transformers.json",
        &|config| {
            config["model_type"] = "SparseEncoder".into();
        },
    );
    refused("token_embeddings", "2_Dense/config.json", &|config| {
        config["module_input_name"] = "token_embeddings".into();
    });
    refused("use_residual", "2_Dense/config.json", &|config| {
        config["use_residual"] = true.into();
    });
    refused("'median'", "1_Pooling/config.json", &|config| {
        config["pooling_mode"] = "median".into();
    });
    // SPLADE: its encoder is a whole MPNetForMaskedLM.
    refused("SpladePooling", "modules.json", &|modules| {
        modules.as_array_mut().unwrap().truncate(2);
        modules[0]["type"] = "sentence_transformers.models.Transformer".into();
        modules[1]["type"] = "sentence_transformers.sparse_encoder.models.SpladePooling".into();
    });
}

#[test]
fn a_folder_with_the_head_of_another_task_is_no_sentence_model() {
    let folder = tempfile::tempdir().unwrap();
    sentence_folder(folder.path(), false);
    let hf = folder.path().join("hf");
    std::fs::remove_file(hf.join("modules.json")).unwrap();
    // What CrossEncoder writes in releases 3 and 5.
    for (added, what) in [
        (json!(null), "MPNetForSequenceClassification"),
        (
            json!({"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "5.1.2"}),
            "it is a CrossEncoder",
        ),
    ] {
        change(&hf.join("config.json"), |config| {
            config["architectures"] = json!(["MPNetForSequenceClassification"]);
            if !added.is_null() {
                config["sentence_transformers"] = added.clone();
            }
        });
        encoder_alone_of_no_sentence_model(folder.path(), what);
    }
}

#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &[]);
    let hf = folder.path().join("hf");
    let mut all = tensors(&hf);
    let one = all
        .iter_mut()
        .find(|(name, ..)| name.contains("layer.1.intermediate.dense.weight"));
    one.unwrap().2[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    write_tensors(&hf, &all);
    let said =
        failure_without_a_trace(folder.path(), &mut convert(folder.path(), "hf", "again"), 1);
    assert!(
        said.contains("not finite")
            && said.contains("model.safetensors")
            && said.contains("layers.1"),
        "{said}"
    );
}

#[test]
fn old_folders_whose_encoder_is_in_one_of_its_own_are_read() {
    let folder = tempfile::tempdir().unwrap();
    sentence_folder(folder.path(), false);
    let hf = folder.path().join("hf");
    let expected = {
        sentence_again(folder.path());
        common::files(&folder.path().join("again"))
    };
    let inner = hf.join("0_Transformer");
    std::fs::create_dir(&inner).unwrap();
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "sentence_bert_config.json",
    ] {
        std::fs::rename(hf.join(file), inner.join(file)).unwrap();
    }
    change(&hf.join("modules.json"), |modules| {
        modules[0]["path"] = "0_Transformer".into();
    });
    sentence_again(folder.path());
    assert!(common::files(&folder.path().join("again")) == expected);
    // Without its list of modules it is only named.
    std::fs::remove_file(hf.join("modules.json")).unwrap();
    let said = failure(&mut convert(folder.path(), "hf", "again"), 1);
    assert!(said.contains("hf/0_Transformer"), "{said}");
}

#[test]
fn a_tokenizer_alone_gets_the_configuration_that_transformers_needs() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &["--head", "none"]);
    let hf = folder.path().join("hf");
    let definition = hf.join("tokenizer.json");
    let kept = std::fs::read(&definition).unwrap();
    let config = hf.join("tokenizer_config.json");
    let written = |edit: &dyn Fn(&mut Value), given: Option<Value>| {
        std::fs::write(&definition, &kept).unwrap();
        change(&definition, edit);
        match given {
            Some(given) => std::fs::write(&config, given.to_string()).unwrap(),
            None => {
                let _ = std::fs::remove_file(&config);
            }
        }
        stdout(convert(folder.path(), "hf", "again").args(["--head", "none"]));
        json_in(&folder.path().join("again/tokenizer_config.json"))
    };
    let roles = json!({
        "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
        "unk_token": "[UNK]", "pad_token": "<pad>", "mask_token": "<mask>", "model_max_length": 128,
    });
    let with = |further: Value| {
        let mut all = roles.clone();
        all.as_object_mut()
            .unwrap()
            .extend(further.as_object().unwrap().clone());
        all
    };
    let mpnet = json!({"tokenizer_class": "MPNetTokenizer"});
    assert_eq!(written(&|_| {}, None), with(mpnet));
    let cased = |d: &mut Value| d["normalizer"]["lowercase"] = false.into();
    let expected = with(json!({"tokenizer_class": "MPNetTokenizer", "do_lower_case": false}));
    assert_eq!(written(&cased, None), expected);
    // A flag that says otherwise than the definition is mended.
    let lower = json!({"tokenizer_class": "MPNetTokenizer", "do_lower_case": true});
    assert_eq!(written(&cased, Some(lower)), expected);
    let accents = |d: &mut Value| d["normalizer"]["strip_accents"] = false.into();
    assert_eq!(written(&accents, None)["strip_accents"], false);
    let plain = with(json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
    }));
    let sequence = |d: &mut Value| {
        d["normalizer"] =
            json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]});
    };
    assert_eq!(written(&sequence, None), plain);
    for class in ["MPNetTokenizer", "TokenizersBackend"] {
        let given = json!({"tokenizer_class": class, "model_max_length": 1e30});
        assert_eq!(written(&sequence, Some(given)), plain);
    }
    // What its owner has chosen stays, but for what MPNet cannot take.
    let roberta = json!({
        "tokenizer_class": "RobertaTokenizer", "model_max_length": 64, "mine": 1,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    });
    let found = written(&sequence, Some(roberta));
    assert_eq!(found["tokenizer_class"], "RobertaTokenizer");
    assert_eq!(
        (&found["model_max_length"], &found["mine"]),
        (&json!(64), &json!(1))
    );
    assert_eq!(found["model_input_names"], plain["model_input_names"]);
}

#[test]
fn cutting_and_padding_of_a_tokenizer_become_the_models() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &["--head", "sentence"]);
    let hf = folder.path().join("hf");
    let before = json_in(&hf.join("tokenizer.json"));
    change(&hf.join("sentence_bert_config.json"), |c| {
        c["max_seq_length"] = 77.into()
    });
    change(&hf.join("tokenizer.json"), |definition| {
        definition["truncation"] = json!({
            "direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 2
        });
        definition["padding"] = json!({
            "strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]",
        });
    });
    sentence_again(folder.path());
    let mut export = binary("mpnet", folder.path());
    stdout(export.args(["export", "hf", "--output", "onnx", "--head", "sentence"]));
    for written in ["again", "onnx"] {
        let mut found = json_in(&folder.path().join(written).join("tokenizer.json"));
        assert_eq!(found["truncation"]["max_length"], 77);
        assert_eq!(found["padding"]["strategy"], "BatchLongest");
        assert_eq!(found["padding"]["pad_id"], 1);
        assert_eq!(found["padding"]["pad_token"], "<pad>");
        found["truncation"] = Value::Null;
        found["padding"] = Value::Null;
        assert!(found == before, "the rest stays");
    }
}

#[test]
fn a_decoder_of_its_own_is_compared_and_refused_or_said() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &[]);
    let hf = folder.path().join("hf");
    let mut all = tensors(&hf);
    let (_, shape, words) = all
        .iter()
        .find(|t| t.0.ends_with("word_embeddings.weight"))
        .unwrap()
        .clone();
    let copy = |data: Vec<u8>| ("lm_head.decoder.weight".to_owned(), shape.clone(), data);
    all.push(copy(words.clone()));
    write_tensors(&hf, &all);
    let said_of = |head: &str| said(convert(folder.path(), "hf", "again").args(["--head", head]));
    assert_eq!(said_of("mlm"), "", "an equal one needs no word");
    let mut other = words.clone();
    *other.last_mut().unwrap() ^= 1;
    *all.last_mut().unwrap() = copy(other);
    write_tensors(&hf, &all);
    assert!(said_of("mlm").contains("WARNING: its lm_head.decoder.weight"));
    assert!(
        !said_of("none").contains("decoder"),
        "an encoder has no decoder"
    );
    let mut import = binary("mpnet", folder.path());
    let imported = said(import.args(["import", "hf", "-o", "native"]));
    assert!(imported.contains("lm_head.decoder.weight"), "{imported}");
    change(&hf.join("config.json"), |c| {
        c["tie_word_embeddings"] = false.into()
    });
    let refused = failure(&mut convert(folder.path(), "hf", "other"), 1);
    assert!(
        refused.contains("lm_head.decoder.weight") && refused.contains("--head none"),
        "{refused}"
    );
    // Where the embeddings are stored under the decoder's name alone, it is they.
    all.retain(|t| !t.0.ends_with("word_embeddings.weight"));
    *all.last_mut().unwrap() = copy(words);
    write_tensors(&hf, &all);
    assert_eq!(said_of("mlm"), "");
    let found = tensors(&folder.path().join("again"));
    assert!(
        found
            .iter()
            .any(|t| t.0.ends_with("word_embeddings.weight"))
    );
}

#[test]
fn wrappers_names_are_taken_off_and_a_missing_tensor_is_named() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &[]);
    let hf = folder.path().join("hf");
    let all = tensors(&hf);
    let rename = |name: &dyn Fn(&str) -> String| {
        let renamed = all.iter().map(|(n, s, d)| (name(n), s.clone(), d.clone()));
        renamed.collect::<Vec<_>>()
    };
    // As torch.save writes them.
    let write_bin = |tensors: &[(String, Vec<usize>, Vec<u8>)]| {
        let named = tensors.iter().enumerate().map(|(index, (name, shape, _))| {
            let shape = shape.clone();
            (name.clone(), Object::Tensor { index, shape })
        });
        let root = Object::Dict(named.collect());
        let file = std::fs::File::create(hf.join("pytorch_model.bin")).unwrap();
        let values = |index: usize| -> std::io::Result<Vec<f32>> {
            let bytes = tensors[index].2.chunks_exact(4);
            Ok(bytes
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect())
        };
        pytorch::save(file, &root, tensors.len(), values).unwrap();
    };
    let wrappers: [&dyn Fn(&str) -> String; 6] = [
        &|n| format!("_orig_mod.{n}"),
        &|n| format!("module.{n}"),
        &|n| format!("module._orig_mod.{n}"),
        &|n| n.replace("mpnet.encoder.", "mpnet.encoder._orig_mod."),
        &|n| n.replace("layer.0.", "layer.0._fsdp_wrapped_module."),
        &|n| format!("0.auto_model.{n}"),
    ];
    for wrapper in wrappers {
        write_tensors(&hf, &rename(wrapper));
        stdout(&mut convert(folder.path(), "hf", "again"));
        assert!(tensors(&folder.path().join("again")) == all);
        std::fs::remove_file(hf.join("model.safetensors")).unwrap();
        write_bin(&rename(wrapper));
        stdout(&mut convert(folder.path(), "hf", "again"));
        assert!(tensors(&folder.path().join("again")) == all);
        std::fs::remove_file(hf.join("pytorch_model.bin")).unwrap();
    }
    let encoder: Vec<_> = all
        .iter()
        .filter_map(|(n, s, d)| Some((n.strip_prefix("mpnet.")?, s, d)))
        .map(|(n, s, d)| (format!("module.{n}"), s.clone(), d.clone()))
        .collect();
    write_tensors(&hf, &encoder);
    stdout(convert(folder.path(), "hf", "again").args(["--head", "none"]));
    // Two that would have one name are not chosen from.
    let mut twice = rename(&|n| n.to_owned());
    let (name, shape, data) = all.last().unwrap();
    twice.push((format!("_orig_mod.{name}"), shape.clone(), data.clone()));
    write_tensors(&hf, &twice);
    let said = failure(&mut convert(folder.path(), "hf", "other"), 1);
    assert!(said.contains(name.as_str()), "{said}");
    let without: Vec<_> = rename(&|n| n.to_owned());
    let words = "mpnet.embeddings.word_embeddings.weight";
    let without: Vec<_> = without.into_iter().filter(|t| t.0 != words).collect();
    write_tensors(&hf, &without);
    let said = failure(&mut convert(folder.path(), "hf", "other"), 1);
    assert!(said.contains(&format!("has no tensor {words}")), "{said}");
}

#[test]
fn a_pooler_is_kept_or_said_to_be_random() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &[]);
    let fresh = said(convert(folder.path(), "run", "hf").args(["--head", "none"]));
    assert!(fresh.contains("no pooler"), "{fresh}");
    let hf = folder.path().join("hf");
    let mut all = tensors(&hf);
    for (name, _, data) in all.iter_mut().filter(|t| t.0.starts_with("pooler.")) {
        let count = data.len() / 4;
        let start = name.len() as f32;
        *data = numbers((0..count).map(|i| start + i as f32));
    }
    write_tensors(&hf, &all);
    for head in ["none", "sentence"] {
        assert_eq!(
            said(convert(folder.path(), "hf", "again").args(["--head", head])),
            ""
        );
        assert!(tensors(&folder.path().join("again")) == all, "{head}");
    }
    let mut export = binary("mpnet", folder.path());
    let exported = said(export.args(["export", "hf", "--output", "onnx"]));
    assert!(exported.contains("pooler is left out"), "{exported}");
}

#[test]
fn a_missing_lm_head_is_said_where_one_is_written() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &["--head", "none"]);
    let again = |head: &str| said(convert(folder.path(), "hf", "again").args(["--head", head]));
    assert_eq!(again("none"), "");
    assert_eq!(again("sentence"), "");
    assert!(again("mlm").contains("WARNING: it has no LM head"));
    let export = |head: &str| {
        let mut export = binary("mpnet", folder.path());
        said(export.args(["export", "hf", "--output", "onnx", "--head", head]))
    };
    assert!(!export("none").contains("LM head"));
    assert!(export("mlm").contains("WARNING: it has no LM head"));
    let mut import = binary("mpnet", folder.path());
    let imported = said(import.args(["import", "hf", "-o", "native"]));
    assert!(
        imported.contains("WARNING: it has no LM head"),
        "{imported}"
    );
}

#[test]
fn a_model_without_relative_positions_gets_zeros() {
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &[]);
    let hf = folder.path().join("hf");
    let bias = "mpnet.encoder.relative_attention_bias.weight";
    let all = tensors(&hf);
    let rest: Vec<_> = all.iter().filter(|t| t.0 != bias).cloned().collect();
    write_tensors(&hf, &rest);
    let said = said(&mut convert(folder.path(), "hf", "again"));
    assert!(said.contains(bias) && said.contains("zeros"), "{said}");
    let found = tensors(&folder.path().join("again"));
    let (_, shape, data) = found.iter().find(|t| t.0 == bias).unwrap();
    assert_eq!(shape, &all.iter().find(|t| t.0 == bias).unwrap().1);
    assert!(data.iter().all(|byte| *byte == 0));
}

/// A Git LFS pointer.
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 437971872\n";

#[test]
fn git_lfs_pointers_are_named() {
    for file in [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "modules.json",
        "sentence_bert_config.json",
        "2_Dense/model.safetensors",
    ] {
        let folder = tempfile::tempdir().unwrap();
        sentence_folder(folder.path(), false);
        std::fs::write(folder.path().join("hf").join(file), POINTER).unwrap();
        let mut sentence = convert(folder.path(), "hf", "again");
        let said = failure_without_a_trace(folder.path(), sentence.args(["--head", "sentence"]), 1);
        assert!(
            said.contains(file) && said.contains("git lfs pull"),
            "{file}: {said}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    huggingface(folder.path(), &[]);
    for file in ["model.safetensors", "trainer_state.json"] {
        let path = folder.path().join("run/checkpoint-0").join(file);
        std::fs::write(path, POINTER).unwrap();
        let said = failure(&mut convert(folder.path(), "run", "again"), 1);
        assert!(
            said.contains(file) && said.contains("git lfs pull"),
            "{said}"
        );
    }
    for file in ["model.pt", "pytorch_model.bin"] {
        std::fs::write(folder.path().join(file), POINTER).unwrap();
        let said = failure(&mut convert(folder.path(), file, "again"), 1);
        assert!(
            said.contains(file) && said.contains("git lfs pull"),
            "{said}"
        );
    }
}

#[test]
fn folders_and_files_of_other_kinds_are_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let adapter = json!({"peft_type": "LORA", "base_model_name_or_path": "microsoft/mpnet-base"});
    write("adapter/adapter_config.json", &adapter.to_string());
    write("adapter/adapter_model.safetensors", "");
    // The Trainer keeps its own state beside an adapter, in a file of this program's name.
    write("trained-adapter/adapter_config.json", &adapter.to_string());
    write(
        "trained-adapter/trainer_state.json",
        "{\"log_history\": []}",
    );
    let transformer = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    ]);
    write("sentence-adapter/modules.json", &transformer.to_string());
    write("sentence-adapter/adapter_config.json", &adapter.to_string());
    for step in [500, 1500, 1000] {
        write(&format!("trainer/checkpoint-{step}/config.json"), "{}");
    }
    write("trainer-state/trainer_state.json", "{\"log_history\": []}");
    write(
        "deepspeed/global_step100/zero_pp_rank_0_optim_states.pt",
        "",
    );
    write("deepspeed/zero_to_fp32.py", "");
    write("no-config/model.safetensors", "");
    write("fairseq/checkpoint_best.pt", "");
    write("fairseq/dict.txt", "");
    write("exported/model.onnx", "");
    write("exported/tokenizer.json", "");
    let bow = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.WordEmbeddings"}
    ]);
    write("words/modules.json", &bow.to_string());
    write("tensorflow/config.json", "{\"model_type\": \"mpnet\"}");
    write("tensorflow/tf_model.h5", "");
    write("fsdp/config.json", "{\"model_type\": \"mpnet\"}");
    write("fsdp/pytorch_model_fsdp_0/__0_0.distcp", "");
    write("empty/notes.txt", "");
    for (path, words) in [
        (
            "adapter",
            vec![
                "adapter of PEFT (LORA)",
                "microsoft/mpnet-base",
                "merge_and_unload",
            ],
        ),
        (
            "trained-adapter",
            vec!["adapter of PEFT", "merge_and_unload"],
        ),
        (
            "sentence-adapter",
            vec!["adapter of PEFT", "merge_and_unload"],
        ),
        ("trainer", vec!["Trainer", "trainer/checkpoint-1500"]),
        ("trainer-state", vec!["Trainer", "config.json"]),
        ("deepspeed", vec!["DeepSpeed", "zero_to_fp32.py"]),
        ("no-config", vec!["config.json"]),
        (
            "no-config/model.safetensors",
            vec!["give the folder, no-config"],
        ),
        (
            "trainer/checkpoint-500/config.json",
            vec!["give the folder"],
        ),
        (
            "fairseq",
            vec!["give the file", "fairseq/checkpoint_best.pt"],
        ),
        ("exported", vec!["ONNX", "exported from"]),
        ("exported/model.onnx", vec!["ONNX", "exported from"]),
        ("words", vec!["sentence-transformers without an encoder"]),
        ("tensorflow", vec!["tf_model.h5", "TensorFlow"]),
        ("fsdp", vec!["FSDP", "merge-weights"]),
        ("empty", vec!["empty"]),
    ] {
        let said = failure_without_a_trace(root, &mut convert(root, path, "hf"), 1);
        for word in words {
            assert!(said.contains(word), "{path}: no '{word}': {said}");
        }
    }
}

#[test]
fn a_sentence_model_of_the_hub_comes_whole_whatever_its_shards_are_called() {
    let folder = tempfile::tempdir().unwrap();
    sentence_folder(folder.path(), false);
    sentence_again(folder.path());
    let hf = folder.path().join("hf");
    let all = tensors(&hf);
    let (first, second) = all.split_at(all.len() / 2);
    let mut map = serde_json::Map::new();
    for (file, part) in [("encoder_a.safetensors", first), ("b.safetensors", second)] {
        write_tensors(&hf, part);
        std::fs::rename(hf.join("model.safetensors"), hf.join(file)).unwrap();
        map.extend(part.iter().map(|(name, ..)| (name.clone(), file.into())));
    }
    let index = json!({ "weight_map": map }).to_string();
    std::fs::write(hf.join("model.safetensors.index.json"), index).unwrap();
    let files = common::files(&hf).into_iter();
    let mut repo = Repo {
        files: files
            .map(|(name, bytes)| (name.to_str().unwrap().to_owned(), bytes))
            .collect(),
        ..Repo::default()
    };
    let server = HubServer::start();
    server.add("models/o/whole", repo.clone());
    repo.files.remove("b.safetensors");
    server.add("models/o/part", repo);
    let from_hub = |name: &str, to: &str| {
        let mut command = convert(folder.path(), name, to);
        command.args(["--head", "sentence"]);
        command.env_remove("HF_HUB_OFFLINE");
        command.env("HF_ENDPOINT", &server.endpoint);
        command.env("HF_HOME", folder.path().join("cache"));
        command
    };
    stdout(&mut from_hub("o/whole", "fetched"));
    let mut again = common::files(&folder.path().join("again"));
    let mut fetched = common::files(&folder.path().join("fetched"));
    for files in [&mut again, &mut fetched] {
        files.remove(Path::new("README.md"));
    }
    assert!(
        fetched == again,
        "{:?} and {:?}",
        fetched.keys(),
        again.keys()
    );
    // Once more, from the cache alone.
    stdout(from_hub("o/whole", "fetched").env("HF_HUB_OFFLINE", "1"));
    let said = failure(&mut from_hub("o/part", "other"), 1);
    assert!(
        said.contains("b.safetensors") && said.contains("does not have"),
        "{said}"
    );
}
