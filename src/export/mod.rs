//! The encoder for other programs: an ONNX model in a folder that Optimum and sentence-transformers load,
//! or in a Cargo package that makes a Burn module of it.

mod burn;

use crate::convert::hf_config::{CONFIG_FILE, HfConfig};
use crate::convert::json::write_json;
use crate::convert::sentence_transformers::{is_module_file, write_modules};
use crate::convert::{ConvertError, OutputHead, Source, write_annotated_mpnet};
use crate::data::tokenizer::{TOKENIZER_FILES, write_tokenizer};
use crate::staging::Staging;
use clap::ValueEnum;
use mpnet_graphs::ir::GraphError;
use mpnet_graphs::lower::export::{Weights, lower};
use mpnet_graphs::model::encoder::{Head, TextSizes, encoder};
use mpnet_graphs::onnx::export::ExportOptions;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// The model's file.
pub const MODEL_FILE: &str = "model.onnx";
/// What follows the model's name in that of the file of large tensors beside it, as Optimum has it.
const DATA_SUFFIX: &str = "_data";
/// The folder of the models where transformers.js and fastembed look for them.
const MODELS_FOLDER: &str = "onnx";
/// Opsets that can be asked for, those that bring something: the first has LayerNormalization, the second GELU as
/// one operator.
pub const OPSETS: [i64; 2] = [17, 20];
/// Protobuf ends at 2 GiB: above this the tensors are written beside the model.
const MOST_INSIDE: usize = 1_900_000_000;

/// What is written around the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A folder for ONNX Runtime, Optimum and sentence-transformers
    #[default]
    Onnx,
    /// A Cargo package that is a Burn module once it is built
    Burn,
    /// No ONNX model, but a checkpoint from which annotated-mpnet goes on (--resume), and the tokenizer
    AnnotatedMpnet,
}

/// Where in the folder the models are, and what they are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Layout {
    /// model.onnx in the folder itself
    #[default]
    Optimum,
    /// onnx/model.onnx, onnx/model_fp16.onnx, onnx/model_quantized.onnx (8-bit weights) and onnx/model_int8.onnx
    /// (8-bit arithmetic), for transformers.js, fastembed and sentence-transformers
    #[value(name = "transformers.js", alias = "fastembed")]
    TransformersJs,
}

impl Layout {
    /// The file of the model with these weights, one of `count` models, below the folder.
    fn file(self, weights: Weights, count: usize) -> String {
        let suffix = match weights {
            Weights::F32 => "",
            Weights::F16 => "_fp16",
            Weights::Int8 => "_quantized",
            Weights::Int8Dynamic => "_int8",
        };
        match self {
            Layout::Optimum if count == 1 => MODEL_FILE.to_owned(),
            Layout::Optimum => format!("model{suffix}.onnx"),
            Layout::TransformersJs => format!("{MODELS_FOLDER}/model{suffix}.onnx"),
        }
    }
}

/// What to export.
#[derive(Debug, Clone)]
pub struct Options {
    pub format: Format,
    pub layout: Layout,
    pub head: OutputHead,
    pub opset: i64,
    /// A model for each.
    pub weights: Vec<Weights>,
    /// Tensors beside the model whatever its size.
    pub external_data: bool,
    /// How many texts of what length, where they are not free.
    pub sizes: TextSizes,
    /// Inputs of 32 bits instead of 64.
    pub int32_inputs: bool,
}

/// Why an export fails.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Convert(#[from] ConvertError),
    #[error("building the graph")]
    Graph(#[from] GraphError),
    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} exists and holds other things than an exported model: choose another folder", path.display())]
    Occupied { path: std::path::PathBuf },
}

impl ExportError {
    fn io(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> ExportError {
        move |source| ExportError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// Exports the model of `source` into the folder `target`: the ONNX model, `config.json`, the tokenizer
/// and, for sentence embeddings, what sentence-transformers reads.
///
/// # Errors
/// Where the target holds other things, or a file cannot be read or written; what was there stays.
pub fn export(source: &Source, target: &Path, options: &Options) -> Result<(), ExportError> {
    source.check_head(&options.head)?;
    let ours = match options.format {
        Format::Onnx => is_ours,
        Format::Burn => burn::is_ours,
        Format::AnnotatedMpnet => return Ok(write_annotated_mpnet(target, source)?),
    };
    refuse_strangers(target, ours)?;
    let staging =
        Staging::new(target).map_err(ExportError::io("create a folder beside", target))?;
    for weights in &options.weights {
        let file = options.layout.file(*weights, options.weights.len());
        write_model(source, &staging.path().join(file), *weights, options)?;
    }
    let config = HfConfig::new(
        &source.model,
        source.model.padded_vocab_size,
        match options.weights[..] {
            [Weights::F16] => "float16",
            _ => "float32",
        },
    );
    let config = config.of_class(options.head.class(), options.head.config());
    write_json(staging.path(), CONFIG_FILE, &config)?;
    if let Some(tokenizer) = &source.tokenizer {
        write_tokenizer(
            tokenizer,
            staging.path(),
            options.head.length(&source.model),
        )
        .map_err(ConvertError::from)?;
    }
    if options.format == Format::Burn {
        burn::write_package(staging.path())?;
        // What Cargo has built there stays.
        staging.add()
    } else {
        if let OutputHead::Sentence(sentence) = &options.head {
            write_modules(staging.path(), &source.model, sentence)?;
        }
        staging.replace()
    }
    .map_err(ExportError::io("write", target))
}

/// Only an empty folder, or one that `ours` knows for an earlier export, is written to.
fn refuse_strangers(target: &Path, ours: fn(&Path) -> bool) -> Result<(), ExportError> {
    let empty = || fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
    match !target.exists() || ours(target) || empty() {
        true => Ok(()),
        false => Err(ExportError::Occupied {
            path: target.to_owned(),
        }),
    }
}

/// Whether `target` is an exported model's folder, with nothing else in it.
fn is_ours(target: &Path) -> bool {
    let model = |name: &OsStr| name.to_str().is_some_and(is_model_file);
    let known = |name: &OsStr| {
        let mut files = [CONFIG_FILE, MODELS_FOLDER]
            .iter()
            .chain(&TOKENIZER_FILES)
            .copied();
        files.any(|file| name == file) || model(name) || name.to_str().is_some_and(is_module_file)
    };
    let names = |folder: &Path| -> Vec<OsString> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        // An entry that cannot be read has a name that nobody knows.
        entries
            .map(|entry| entry.map_or_else(|_| OsString::new(), |entry| entry.file_name()))
            .collect()
    };
    let (own, models) = (names(target), names(&target.join(MODELS_FOLDER)));
    own.iter().chain(&models).any(|name| model(name))
        && own.iter().all(|name| known(name))
        && models.iter().all(|name| model(name))
}

/// Whether a file of that name is a model of ours, or the tensors beside one.
fn is_model_file(name: &str) -> bool {
    let name = name.strip_suffix(DATA_SUFFIX).unwrap_or(name);
    let all = [
        Weights::F32,
        Weights::F16,
        Weights::Int8,
        Weights::Int8Dynamic,
    ];
    all.iter()
        .any(|weights| name == Layout::Optimum.file(*weights, 2))
}

/// Writes the model with `weights` and, where it is large, its tensors beside it; the folder is made where there is none.
///
/// # Errors
/// Where a file cannot be read or written.
fn write_model(
    source: &Source,
    model_path: &Path,
    weights: Weights,
    options: &Options,
) -> Result<(), ExportError> {
    if let Some(folder) = model_path.parent() {
        fs::create_dir_all(folder).map_err(ExportError::io("create", folder))?;
    }
    let head = match &options.head {
        OutputHead::None => Head::None,
        OutputHead::MaskedLm => Head::MaskedLm,
        OutputHead::Sentence(sentence) => {
            Head::Sentence(sentence.head().map_err(ConvertError::Modules)?)
        }
        OutputHead::Task(head) => {
            let refused = format!("no ONNX graph is built with the head of {}", head.class);
            return Err(ConvertError::Modules(refused).into());
        }
    };
    let graph = encoder(&source.model, &head, &options.sizes)?;
    let elements: usize = source
        .parameters
        .iter()
        .map(|p| p.shape.iter().product::<usize>())
        .sum();
    let size = match weights {
        // Some weights of an 8-bit model stay as they are.
        Weights::F32 | Weights::Int8 | Weights::Int8Dynamic => 4,
        Weights::F16 => 2,
    };
    let external = options.external_data || elements.saturating_mul(size) > MOST_INSIDE;
    let mut model =
        BufWriter::new(File::create(model_path).map_err(ExportError::io("create", model_path))?);
    let name = model_path.file_name().unwrap_or_default().to_string_lossy();
    let data_file = format!("{name}{DATA_SUFFIX}");
    let data_path = model_path.with_file_name(&data_file);
    let mut data: Box<dyn Write> = match external {
        true => Box::new(BufWriter::new(
            File::create(&data_path).map_err(ExportError::io("create", &data_path))?,
        )),
        false => Box::new(std::io::sink()),
    };
    let places: HashMap<&str, usize> = source
        .parameters
        .iter()
        .enumerate()
        .map(|(index, p)| (p.name.as_str(), index))
        .collect();
    let mut parameter = |name: &str| -> Result<Vec<f32>, String> {
        if let OutputHead::Sentence(sentence) = &options.head
            && let Some(tensor) = sentence.parameter(name)
        {
            return tensor.read(0..tensor.rows()).map_err(|e| e.to_string());
        }
        let index = places
            .get(name)
            .ok_or_else(|| format!("the model has no '{name}'"))?;
        let array = source.read(&source.parameters[*index]);
        array.map(|a| a.values).map_err(|e| e.to_string())
    };
    let lowered = ExportOptions {
        opset: options.opset,
        dims: ["batch_size", "sequence_length"],
        metadata: metadata(source, options),
        outside: external.then_some(data_file),
        int32_inputs: options.int32_inputs,
    };
    lower(
        graph,
        "main_graph",
        weights,
        &lowered,
        &mut parameter,
        &mut model,
        &mut data,
    )?;
    model
        .flush()
        .map_err(ExportError::io("write", model_path))?;
    data.flush().map_err(ExportError::io("write", &data_path))
}

/// What the model says of itself.
fn metadata(source: &Source, options: &Options) -> Vec<(String, String)> {
    let task = match &options.head {
        OutputHead::None | OutputHead::Sentence(_) => "feature-extraction",
        OutputHead::MaskedLm => "fill-mask",
        OutputHead::Task(head) => head.pipeline,
    };
    [
        ("model_type", "mpnet".to_owned()),
        ("task", task.to_owned()),
        ("max_length", options.head.length(&source.model).to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}
