//! What is at a path: a model of a kind that can be read, or of another that is named.

use super::super::ConvertError;
use super::super::hf_config::CONFIG_FILE;
use super::super::sentence_transformers::{MODULES_FILE, encoder_folder};
use crate::checkpoint::STATE_FILE;
use crate::data::hub::{WEIGHT_FILES, index_of};
use mpnet_runtime::lfs::refuse_pointer;
use std::fs;
use std::path::{Path, PathBuf};

/// What makes a folder one of PEFT.
const ADAPTER_FILE: &str = "adapter_config.json";

/// What a folder is that several processes have written together, and what to do.
const PARTS: &str = "is a checkpoint in the parts of several processes (FSDP or DeepSpeed): join them with the tool that \
                     wrote them (accelerate merge-weights, or zero_to_fp32.py) and save_pretrained";

/// A model that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A checkpoint of this program, or a run's folder of them.
    Native,
    /// A folder of transformers.
    HuggingFace,
    /// A folder of sentence-transformers whose encoder is in a folder of its own.
    SentenceTransformers { encoder: PathBuf },
    /// A file of annotated-mpnet or fairseq.
    PyTorch,
    /// Nothing is there.
    Nothing,
}

/// What else is at a path, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherKind {
    path: PathBuf,
    /// What it is and what to do.
    what: String,
}

impl OtherKind {
    pub(in crate::convert) fn said(&self) -> String {
        format!("{} {}", self.path.display(), self.what)
    }
}

/// The kind of what is at `path`.
///
/// # Errors
/// Where it is of a kind that is not read, or a Git LFS pointer; the message says which and what to do.
pub fn of(path: &Path) -> Result<Kind, ConvertError> {
    let other = |what: String| {
        Err(ConvertError::Other(OtherKind {
            path: path.to_owned(),
            what,
        }))
    };
    if path.is_file() {
        refuse_pointer(path)?;
        return match file(path) {
            Some(what) => other(what),
            None => Ok(Kind::PyTorch),
        };
    }
    if !path.is_dir() {
        let native = path.file_name().is_some_and(|n| n == "best_checkpoint.pt");
        return Ok(if native { Kind::Native } else { Kind::Nothing });
    }
    let has = |name: &str| path.join(name).is_file();
    let weights = WEIGHT_FILES
        .iter()
        .any(|name| has(name) || has(&index_of(name)));
    if has(ADAPTER_FILE) && !weights {
        return other(adapter(path));
    }
    if has(CONFIG_FILE) {
        return if !weights && in_parts(&names_in(path)) {
            other(PARTS.to_owned())
        } else {
            Ok(Kind::HuggingFace)
        };
    }
    if has(MODULES_FILE) {
        return match encoder_folder(path)? {
            Some(encoder) if encoder.join(CONFIG_FILE).is_file() => {
                Ok(Kind::SentenceTransformers { encoder })
            }
            Some(encoder) if encoder.join(ADAPTER_FILE).is_file() => other(adapter(&encoder)),
            Some(encoder) => other(format!(
                "is a folder of sentence-transformers without the encoder's {}",
                encoder.join(CONFIG_FILE).display()
            )),
            None => other(
                "is a folder of sentence-transformers without an encoder of transformers (its modules.json \
                 names no Transformer)"
                    .to_owned(),
            ),
        };
    }
    match folder(path, weights) {
        Some(what) => other(what),
        None => Ok(Kind::Native),
    }
}

/// What a file is that cannot be read alone, and what to do.
fn file(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let of_folder = [CONFIG_FILE, MODULES_FILE, "tokenizer.json"].contains(&name.as_str())
        || name.ends_with(".safetensors")
        || name.ends_with(".index.json")
        || name.starts_with("pytorch_model");
    if of_folder {
        return Some(format!(
            "is one file of a model's folder: give the folder, {}",
            folder.display()
        ));
    }
    if name.ends_with(".onnx") {
        return Some(
            "is an ONNX model, which has lost its parameters' names: give the model that it was exported from"
                .to_owned(),
        );
    }
    if name.ends_with(".gguf") {
        return Some(
            "is a GGUF file of llama.cpp, which is not read: give the model that it was made from"
                .to_owned(),
        );
    }
    None
}

/// What to do with an adapter.
fn adapter(folder: &Path) -> String {
    let text = fs::read(folder.join(ADAPTER_FILE)).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let base = json["base_model_name_or_path"].as_str();
    let base = base.filter(|base| !base.is_empty());
    let kind = json["peft_type"].as_str().unwrap_or("an adapter");
    format!(
        "is an adapter of PEFT ({kind}) for {}, not a whole model: merge it first, in Python: \
         PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(merged)",
        base.unwrap_or("a model that it does not name")
    )
}

/// The names of what is in a folder.
fn names_in(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// What a folder is that is neither a model of transformers nor a checkpoint of this program, and what to
/// do; `weights` is whether it has files of weights.
fn folder(path: &Path, weights: bool) -> Option<String> {
    let names = names_in(path);
    if names.iter().any(|name| name == STATE_FILE) {
        let text = fs::read(path.join(STATE_FILE)).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        // The Trainer's file has the same name as this program's.
        state.get("log_history")?;
        return Some(format!(
            "is a checkpoint of transformers' Trainer without {CONFIG_FILE}{}: give a folder that \
             save_pretrained wrote",
            match in_parts(&names) {
                true => ", its weights in the parts of several processes",
                false => "",
            }
        ));
    }
    if let Some(newest) = newest_of_trainer(path, &names) {
        return Some(format!(
            "is the output folder of transformers' Trainer, which has not saved a model at its end: give one \
             of its checkpoints, the newest is {}",
            newest.display()
        ));
    }
    let encoder = |name: &&String| {
        let numbered = name
            .split_once('_')
            .is_some_and(|(n, _)| n.parse::<u32>().is_ok());
        numbered && path.join(name).join(CONFIG_FILE).is_file() && name.ends_with("Transformer")
    };
    if let Some(inner) = names.iter().find(encoder) {
        return Some(format!(
            "is a folder of sentence-transformers without {MODULES_FILE}: give its encoder, {}",
            path.join(inner).display()
        ));
    }
    if in_parts(&names) {
        return Some(PARTS.to_owned());
    }
    if weights {
        return Some(format!(
            "has weights but no {CONFIG_FILE}, which says their sizes: take it from the model that they are of"
        ));
    }
    let ending = |endings: &[&str]| {
        let found = names
            .iter()
            .find(|name| endings.iter().any(|end| name.ends_with(end)));
        found.map(|name| path.join(name))
    };
    // A run of this program has files of PyTorch's names only where someone has put them there.
    let native = names
        .iter()
        .any(|name| path.join(name).join(STATE_FILE).is_file());
    if native {
        return None;
    }
    if let Some(file) = ending(&[".pt", ".pth", ".ckpt"]) {
        return Some(format!(
            "is a folder with files of PyTorch: give the file, {} say",
            file.display()
        ));
    }
    if let Some(file) = ending(&[".onnx"]) {
        return Some(format!(
            "holds an ONNX model, {}, which has lost its parameters' names: give the model that it was exported \
             from",
            file.display()
        ));
    }
    None
}

/// Whether a folder holds the parts of several processes.
fn in_parts(names: &[String]) -> bool {
    names.iter().any(|name| {
        name.starts_with("global_step")
            || name.starts_with("pytorch_model_fsdp")
            || name == "zero_to_fp32.py"
            || name.ends_with(".distcp")
    })
}

/// The newest checkpoint of transformers' Trainer in `folder`.
fn newest_of_trainer(folder: &Path, names: &[String]) -> Option<PathBuf> {
    let steps = names.iter().filter_map(|name| {
        let step: u64 = name.strip_prefix("checkpoint-")?.parse().ok()?;
        let folder = folder.join(name);
        let has = |file: &str| folder.join(file).is_file();
        (has(CONFIG_FILE) || has(MODULES_FILE) || has(ADAPTER_FILE)).then_some((step, folder))
    });
    steps
        .max_by_key(|(step, _)| *step)
        .map(|(_, folder)| folder)
}
