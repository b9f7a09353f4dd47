//! Writes a HuggingFace model folder: whole, or not at all, one tensor at a time.

use super::ConvertError;
use super::hf_config::{CONFIG_FILE, HfConfig, unrepresentable};
use super::model_card::{MARK, model_card};
use super::plan::Stored;
use super::sentence_transformers::{MODULE_FILES, write_modules};
use super::source::Source;
use super::weight_map::{BY_VOCABULARY, Layout, by_native, in_encoder};
use crate::arrays::{Planned, stream_safetensors};
use crate::data::tokenizer::{
    CONFIG_FILE as TOKENIZER_CONFIG_FILE, TOKENIZER_FILES, copy_tokenizer,
};
use crate::initialize::normal;
use crate::staging::Staging;
use clap::ValueEnum;
use half::{bf16, f16};
use mpnet_graphs::model::encoder::Head;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use safetensors::Dtype;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::ops::Range;
use std::path::Path;

const MODEL_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
/// The model card, which its owner may replace.
const CARD_FILE: &str = "README.md";
/// Seed of the pooler.
const POOLER_SEED: u64 = 12_345;
const MAX_LENGTH: &str = "model_max_length";

/// Element type of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum WeightType {
    /// f32
    #[default]
    #[value(alias = "fp32")]
    Float32,
    /// f16
    #[value(alias = "fp16")]
    Float16,
    /// bf16
    #[value(name = "bfloat16", alias = "bf16")]
    BFloat16,
}

impl WeightType {
    /// transformers' name.
    pub fn name(self) -> &'static str {
        match self {
            WeightType::Float32 => "float32",
            WeightType::Float16 => "float16",
            WeightType::BFloat16 => "bfloat16",
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            WeightType::Float32 => Dtype::F32,
            WeightType::Float16 => Dtype::F16,
            WeightType::BFloat16 => Dtype::BF16,
        }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        let each = values.iter();
        match self {
            WeightType::Float32 => each.flat_map(|x| x.to_le_bytes()).collect(),
            WeightType::Float16 => each.flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            WeightType::BFloat16 => each
                .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
                .collect(),
        }
    }
}

/// How to write.
#[derive(Debug, Clone, Copy)]
pub struct HfOptions {
    /// The language model head, or the encoder alone, in whose folder transformers' `AutoModel` finds
    /// every weight.
    pub head: Head,
    pub dtype: WeightType,
    /// Bytes of weights in one file at most, unless one tensor alone has more.
    pub max_shard_size: u64,
    /// Cut the vocabulary to the tokenizer's size.
    pub trim_vocab: bool,
    pub tokenizer: bool,
    /// Write what HuggingFace cannot represent.
    pub force: bool,
}

/// Bytes of `text` as transformers reads it: 5GB, 500MB, 1GiB.
///
/// # Errors
/// Where it is no such size.
pub fn parse_size(text: &str) -> Result<u64, ConvertError> {
    let upper = text.trim().to_ascii_uppercase();
    let units = [
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("", 1),
    ];
    let found = units.into_iter().find_map(|(unit, bytes)| {
        let number = upper.strip_suffix(unit)?.trim().parse::<f64>().ok()?;
        Some(number * bytes as f64)
    });
    found
        .filter(|&bytes| (1.0..1e18).contains(&bytes))
        .map(|bytes| bytes as u64)
        .ok_or_else(|| ConvertError::Size(text.to_owned()))
}

/// A tensor of the folder and where its elements come from.
struct Output<'a> {
    planned: Planned,
    content: Content<'a>,
}

enum Content<'a> {
    /// These rows of a parameter.
    Stored(&'a Stored, Range<usize>),
    Made(Vec<f32>),
}

/// Writes the model of `source` as the HuggingFace model folder `target`. A model that is there already
/// is replaced.
///
/// # Errors
/// Where HuggingFace cannot represent the model (unless forced), or a file cannot be written; what was
/// there before stays.
pub fn write_hf_folder(
    target: &Path,
    source: &Source,
    options: &HfOptions,
) -> Result<(), ConvertError> {
    let config = &source.model;
    let reasons = unrepresentable(config);
    if !reasons.is_empty() && !options.force {
        return Err(ConvertError::Unrepresentable { reasons });
    }
    let tokenizer = match (options.tokenizer, &source.tokenizer) {
        (false, _) => None,
        (true, Some(tokenizer)) => Some(tokenizer),
        (true, None) => return Err(ConvertError::NoTokenizer),
    };
    refuse_strangers(target)?;
    let folder =
        Staging::new(target).map_err(ConvertError::io("create a folder beside", target))?;

    let vocabulary = match options.trim_vocab {
        true => config.vocab_size,
        false => config.padded_vocab_size,
    };
    let outputs = outputs(source, options, vocabulary);
    let parameters = outputs
        .iter()
        .map(|o| o.planned.shape.iter().product::<usize>())
        .sum();
    write_weights(folder.path(), &outputs, options)?;
    let hf_config = HfConfig::new(config, vocabulary, options.dtype.name());
    let hf_config = match options.head {
        Head::MaskedLm => hf_config,
        Head::None | Head::Sentence { .. } => hf_config.encoder_alone(),
    };
    write_json(folder.path(), CONFIG_FILE, &hf_config)?;
    if let Head::Sentence { normalize } = options.head {
        write_modules(folder.path(), config, normalize)?;
    }
    if let Some(tokenizer) = tokenizer {
        write_tokenizer(tokenizer, folder.path(), config.max_positions)?;
    }
    let card = target.join(CARD_FILE);
    let path = folder.path().join(CARD_FILE);
    // The owner's words stay with the model.
    match fs::read_to_string(&card) {
        Ok(words) if !words.contains(MARK) => fs::write(&path, words),
        Ok(_) | Err(_) => fs::write(&path, model_card(source, vocabulary, parameters, options)),
    }
    .map_err(ConvertError::io("write", &path))?;
    folder.replace().map_err(ConvertError::io("write", target))
}

/// Every tensor of the folder, in the order of their names. What HuggingFace has no place for is left
/// out.
fn outputs<'a>(source: &'a Source, options: &HfOptions, vocabulary: usize) -> Vec<Output<'a>> {
    let dtype = options.dtype.dtype();
    let padded = source.model.padded_vocab_size;
    let mut lines = by_native(Layout::HuggingFace, &source.model);
    let mut outputs = Vec::new();
    for stored in &source.parameters {
        let Some(line) = lines.remove(&stored.name) else {
            continue;
        };
        let of_vocabulary = BY_VOCABULARY.contains(&stored.name.as_str());
        let rows = match of_vocabulary && stored.shape[0] == padded {
            true => vocabulary,
            false => stored.shape[0],
        };
        let share = rows / line.parts.len().max(1);
        for (index, name) in line.parts.into_iter().enumerate() {
            let mut shape = stored.shape.clone();
            shape[0] = share;
            outputs.push(Output {
                planned: Planned { name, dtype, shape },
                content: Content::Stored(stored, index * share..(index + 1) * share),
            });
        }
    }
    match options.head {
        Head::MaskedLm => {}
        Head::None | Head::Sentence { .. } => {
            outputs = encoder_alone(outputs);
            outputs.extend(pooler(source.model.encoder_embed_dim, dtype));
        }
    }
    outputs.sort_by(|a, b| a.planned.name.cmp(&b.planned.name));
    outputs
}

/// The encoder's tensors under the names of an `MPNetModel`.
fn encoder_alone(outputs: Vec<Output>) -> Vec<Output> {
    let mut kept = Vec::new();
    for mut output in outputs {
        if let Some(name) = in_encoder(&output.planned.name) {
            output.planned.name = name.to_owned();
            kept.push(output);
        }
    }
    kept
}

/// The layer that `MPNetModel` has behind the encoder and that pretraining knows nothing of, fresh, as
/// transformers would make it.
fn pooler(width: usize, dtype: Dtype) -> [Output<'static>; 2] {
    let output = |name: &str, shape: &[usize], values| Output {
        planned: Planned {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
        },
        content: Content::Made(values),
    };
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(POOLER_SEED);
    let weight = normal(&mut rng, width * width);
    [
        output("pooler.dense.bias", &[width], vec![0.0; width]),
        output("pooler.dense.weight", &[width, width], weight),
    ]
}

/// Writes the weights into one file, or into shards with an index.
fn write_weights(
    folder: &Path,
    outputs: &[Output],
    options: &HfOptions,
) -> Result<(), ConvertError> {
    let mut shards: Vec<(u64, &[Output])> = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, output) in outputs.iter().enumerate() {
        let bytes = output.planned.bytes() as u64;
        if size > 0 && size + bytes > options.max_shard_size {
            shards.push((size, &outputs[start..index]));
            (start, size) = (index, 0);
        }
        size += bytes;
    }
    shards.push((size, &outputs[start..]));
    let total: u64 = shards.iter().map(|(size, _)| size).sum();
    let mut weight_map = BTreeMap::new();
    let count = shards.len();
    for (index, (_, shard)) in shards.into_iter().enumerate() {
        let name = match count {
            1 => MODEL_FILE.to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        weight_map.extend(
            shard
                .iter()
                .map(|o| (o.planned.name.as_str(), name.clone())),
        );
        let path = folder.join(&name);
        let planned: Vec<Planned> = shard.iter().map(|o| o.planned.clone()).collect();
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        stream_safetensors(&path, &planned, metadata, |index| {
            let output = &shard[index];
            let bytes = match &output.content {
                Content::Stored(stored, rows) => options.dtype.encode(&stored.read(rows.clone())?),
                Content::Made(values) => options.dtype.encode(values),
            };
            Ok::<_, Failure>(bytes)
        })
        .map_err(|failure| match failure {
            Failure::Reading(error) => error,
            Failure::Writing(error) => ConvertError::io("write", &path)(error),
        })?;
    }
    if count > 1 {
        let index = serde_json::json!({
            "metadata": { "total_size": total },
            "weight_map": weight_map,
        });
        write_json(folder, INDEX_FILE, &index)?;
    }
    Ok(())
}

/// Either end of the stream.
enum Failure {
    Reading(ConvertError),
    Writing(std::io::Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Writing(error)
    }
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Failure {
        Failure::Reading(error)
    }
}

/// Writes `value` as the file of that name, or path, below `folder`.
pub(crate) fn write_json(
    folder: &Path,
    file: &'static str,
    value: &impl serde::Serialize,
) -> Result<(), ConvertError> {
    let json = serde_json::to_string_pretty(value).map_err(|e| ConvertError::Encode {
        file,
        reason: e.to_string(),
    })?;
    let path = folder.join(file);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(ConvertError::io("create", parent))?;
    }
    fs::write(&path, json + "\n").map_err(ConvertError::io("write", &path))
}

/// Copies the tokenizer of that definition into `folder`, for a model of `max_positions`.
pub(crate) fn write_tokenizer(
    definition: &Path,
    folder: &Path,
    max_positions: usize,
) -> Result<(), ConvertError> {
    copy_tokenizer(definition, folder)?;
    limit_length(folder, max_positions)
}

/// A tokenizer made for longer rows than the model has positions for would send transformers beyond
/// the position table: its `model_max_length` becomes the model's.
fn limit_length(folder: &Path, max_positions: usize) -> Result<(), ConvertError> {
    let path = folder.join(TOKENIZER_CONFIG_FILE);
    if !path.is_file() {
        return Ok(());
    }
    let encode = |e: serde_json::Error| ConvertError::Encode {
        file: TOKENIZER_CONFIG_FILE,
        reason: e.to_string(),
    };
    let text = fs::read(&path).map_err(ConvertError::io("read", &path))?;
    let mut json: serde_json::Value = serde_json::from_slice(&text).map_err(encode)?;
    // Where it names none, transformers writes 1e30.
    let length = json[MAX_LENGTH].as_f64().unwrap_or(f64::INFINITY);
    if let Some(fields) = json
        .as_object_mut()
        .filter(|_| length > max_positions as f64)
    {
        fields.insert(MAX_LENGTH.to_owned(), max_positions.into());
        write_json(folder, TOKENIZER_CONFIG_FILE, &json)?;
    }
    Ok(())
}

/// Whether a folder written by this program can hold it, or its owner's own words beside it.
fn known(name: &OsStr) -> bool {
    let files = [MODEL_FILE, INDEX_FILE, CONFIG_FILE, CARD_FILE];
    let shard = |name: &str| name.starts_with("model-") && name.ends_with(".safetensors");
    files
        .iter()
        .chain(&TOKENIZER_FILES)
        .chain(&MODULE_FILES)
        .any(|file| name == *file)
        || name.to_str().is_some_and(shard)
}

/// A folder with anything else in it is not replaced.
fn refuse_strangers(target: &Path) -> Result<(), ConvertError> {
    if !target.exists() {
        return Ok(());
    }
    let occupied = || ConvertError::Occupied {
        path: target.to_owned(),
    };
    if !target.is_dir() {
        return Err(occupied());
    }
    for entry in fs::read_dir(target).map_err(ConvertError::io("read", target))? {
        let name = entry.map_err(ConvertError::io("read", target))?.file_name();
        if !known(&name) {
            return Err(occupied());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{self, Checkpoint};
    use crate::convert::import::import;
    use crate::convert::source::SourceOptions;
    use crate::convert::testing::{config, numbered};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn native_to_hf_to_native_is_the_identity(
            layers in 1usize..4, heads in 1usize..4, width in 1usize..6, vocab in 5usize..40,
            max_shard_size in 1u64..20_000,
        ) {
            let config = config(layers, heads, width, vocab);
            let place = tempfile::tempdir().unwrap();
            let first = Checkpoint {
                parameters: numbered(&config),
                model: config,
                config: serde_json::Value::Null,
                step: 0,
                best_loss: None,
                validated: None,
                data: serde_json::Value::Null,
                seed: 1,
                optimizer: None,
                tokenizer: None,
            };
            let open = |path: &Path| Source::open(path, &SourceOptions::default()).unwrap();
            let native = checkpoint::save(place.path(), &first).unwrap();
            let options = HfOptions {
                head: Head::MaskedLm,
                dtype: WeightType::Float32,
                max_shard_size,
                trim_vocab: false,
                tokenizer: false,
                force: false,
            };
            let hf = place.path().join("hf");
            write_hf_folder(&hf, &open(&native), &options).unwrap();
            // Every number of the model is another one: none is lost or comes twice.
            let mut all: Vec<f32> = fs::read_dir(&hf)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
                .flat_map(|path| super::super::safetensors_file::tensors(&path).unwrap())
                .flat_map(|(_, tensor)| tensor.read(0..tensor.rows()).unwrap())
                .collect();
            all.sort_by(f32::total_cmp);
            prop_assert!(all.iter().enumerate().all(|(i, &x)| x == i as f32 + 1.0));
            let again = import(&open(&hf), &place.path().join("back"), 1).unwrap();
            let again = checkpoint::load(&again).unwrap();
            prop_assert_eq!(again.parameters, first.parameters);
        }
    }

    #[test]
    fn sizes_are_read_as_transformers_reads_them() {
        for (text, bytes) in [
            ("5GB", 5_000_000_000),
            ("500 mb", 500_000_000),
            ("1GiB", 1 << 30),
            ("10KiB", 10 << 10),
            ("1.5kB", 1500),
            ("77", 77),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "GB", "-1GB", "0", "nan", "5 TB", "five"] {
            let said = parse_size(text).unwrap_err().to_string();
            assert!(said.contains("--max-shard-size"), "{said}");
        }
    }
}
