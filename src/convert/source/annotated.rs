//! Checkpoints of annotated-mpnet and of microsoft/MPNet's fairseq.

use super::super::ConvertError;
use super::super::plan::plan;
use super::super::pytorch::{self, Entry};
use super::super::tensors::Tensor;
use super::super::weight_map::{BUCKETS, Layout, POSITIONS, WORDS, stored_name, unwrapped};
use super::{Source, SourceOptions, apply_tokenizer, tokenizer};
use mpnet_graphs::model::Objective;
use mpnet_graphs::model::config::{Activation, ModelConfig, POSITION_OFFSET};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Opens a PyTorch file.
///
/// # Errors
/// Where it is damaged, refused, or holds another model.
pub fn open(path: &Path, options: &SourceOptions) -> Result<Source, ConvertError> {
    let file = pytorch::open(path)?;
    let root = file.root();
    let (states, layout) = match (root.field("model_states"), root.field("model")) {
        (Some(states), _) => (states, Layout::Annotated),
        (None, Some(states)) => (states, Layout::Fairseq),
        (None, None) => {
            return Err(ConvertError::model(
                path,
                match root.field("state_dict") {
                    Some(_) => {
                        "it is a checkpoint of PyTorch Lightning, which says no sizes: load it there and write its \
                         model with save_pretrained"
                    }
                    None => {
                        "it has neither 'model_states' (annotated-mpnet) nor 'model' (fairseq); for HuggingFace's \
                         pytorch_model.bin give its folder"
                    }
                },
            ));
        }
    };
    let args = root
        .field("args")
        .ok_or_else(|| ConvertError::model(path, "it has no 'args', which say its sizes"))?;
    let states = states
        .entries()
        .ok_or_else(|| ConvertError::damaged(path, "its parameters are no dictionary"))?;
    let tensors: Vec<(&str, Tensor)> = states
        .into_iter()
        .filter_map(|(name, entry)| Some((name, entry.tensor()?)))
        .collect();
    let given: Vec<&str> = tensors.iter().map(|(name, _)| *name).collect();
    let names = unwrapped(layout, &given).into_iter();
    let order: Vec<(String, Tensor)> = names
        .zip(tensors.into_iter().map(|(_, tensor)| tensor))
        .collect();
    let tensors: BTreeMap<String, Tensor> = order.iter().cloned().collect();

    let mut notes = Vec::new();
    let mut model = model(path, layout, args, &tensors)?;
    let mut own: Vec<PathBuf> = path
        .parent()
        .map(|p| p.join("tokenizer"))
        .into_iter()
        .collect();
    let named = args.field("tokenizer_name").and_then(Entry::text);
    own.extend(named.map(PathBuf::from));
    let tokenizer = tokenizer(options, &own, &mut notes)?;
    match &tokenizer {
        Some(tokenizer) => apply_tokenizer(path, &mut model, tokenizer)?,
        None => notes.push(format!(
            "there is no tokenizer beside it: <mask> is taken for token {}; --tokenizer names a folder \
             with the tokenizer.json that it was trained with",
            model.mask_token_id
        )),
    }
    let mut plan = plan(path, layout, &model, tensors)?;
    notes.append(&mut plan.notes);
    plan.notes = notes;
    let step = root.field("steps").and_then(Entry::index).or_else(|| {
        let history = root.field("optimizer_history")?.items()?;
        history.last()?.field("num_updates")?.index()
    });
    let mut source = Source {
        tokenizer: tokenizer.map(|t| t.path().to_owned()),
        step: step.unwrap_or(0) as u64,
        // 10e6 is annotated-mpnet's sign that there was none.
        best_loss: root
            .field("best_loss")
            .and_then(Entry::number)
            .filter(|loss| (0.0..1e6).contains(loss)),
        ..Source::new(path, layout, model, plan)
    };
    if layout == Layout::Annotated && !options.no_optimizer {
        match optimizer_file(path) {
            Some(file) => moments(&file, &order, &mut source)?,
            None => source
                .notes
                .push("there are no optimizer moments beside it: they start from zero".into()),
        }
    }
    Ok(source)
}

/// The model that `args` describe.
fn model(
    path: &Path,
    layout: Layout,
    args: Entry,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<ModelConfig, ConvertError> {
    let optional = |names: &[&str]| names.iter().find_map(|n| args.field(n)?.index());
    let required = |names: &[&str]| {
        optional(names)
            .ok_or_else(|| ConvertError::model(path, format!("its args have no {}", names[0])))
    };
    let ratio = |name: &str| args.field(name).and_then(Entry::number).unwrap_or(0.1) as f32;
    let truth = |name: &str| args.field(name).and_then(Entry::truth).unwrap_or(false);
    let rows = |native: &str| Some(tensors.get(&stored_name(layout, native)?)?.rows());
    let activation = args.field("activation_fn").and_then(Entry::text);
    let activation = activation.unwrap_or("gelu");
    let activation_fn = Activation::from_name(activation)
        .ok_or_else(|| ConvertError::model(path, format!("its activation is {activation:?}")))?;
    let normalize_before = truth("normalize_before") || truth("encoder_normalize_before");
    if normalize_before && layout == Layout::Fairseq {
        return Err(ConvertError::model(
            path,
            "it is pre-LN, which in fairseq moves the embeddings' layer norm to the end",
        ));
    }
    let max_positions = match layout {
        Layout::Fairseq => rows(POSITIONS).map(|n| n.saturating_sub(POSITION_OFFSET)),
        Layout::Native | Layout::HuggingFace | Layout::Annotated => None,
    };
    let max_positions = match max_positions {
        Some(positions) => positions,
        None => required(&["max_positions", "max_tokens"])?,
    };
    if max_positions > 1 << 24 {
        return Err(ConvertError::model(path, "its rows are longer than any"));
    }
    let padded =
        rows(WORDS).ok_or_else(|| ConvertError::model(path, format!("it has no {WORDS}")))?;
    let vocab_size = optional(&["original_vocab_size"]).unwrap_or(padded);
    let buckets = optional(&["relative_attention_num_buckets"])
        .or_else(|| rows(BUCKETS))
        .unwrap_or_else(|| ModelConfig::default_num_buckets(max_positions));
    let token = |name: &str, default: i64| match args.field(name).and_then(Entry::index) {
        Some(id) => id as i64,
        None => default,
    };
    Ok(ModelConfig {
        encoder_layers: required(&["encoder_layers"])?,
        encoder_embed_dim: required(&["encoder_embed_dim"])?,
        encoder_ffn_dim: required(&["encoder_ffn_dim", "encoder_ffn_embed_dim"])?,
        encoder_attention_heads: required(&["encoder_attention_heads"])?,
        activation_fn,
        normalize_before,
        max_positions,
        relative_attention_num_buckets: buckets,
        relative_attention_max_distance: optional(&["relative_attention_max_distance"])
            .unwrap_or_else(|| ModelConfig::default_max_distance(max_positions)),
        vocab_size,
        padded_vocab_size: padded,
        pad_token_id: token("pad_token_id", 1),
        bos_token_id: token("bos_token_id", 0),
        eos_token_id: token("eos_token_id", 2),
        unk_token_id: token("unk_token_id", 3),
        mask_token_id: token("mask_token_id", vocab_size as i64 - 1),
        objective: Objective::default(),
        dropout: ratio("dropout"),
        attention_dropout: ratio("attention_dropout"),
        activation_dropout: ratio("activation_dropout"),
    })
}

/// Where annotated-mpnet puts the optimizer's state of a checkpoint.
fn optimizer_file(checkpoint: &Path) -> Option<PathBuf> {
    let stem = checkpoint.file_stem()?.to_str()?;
    let stem = match stem {
        "best_checkpoint" => "best",
        stem => stem,
    };
    let name = format!("optimizer/{stem}_optimizer_state.pt");
    Some(checkpoint.parent()?.join(name)).filter(|file| file.is_file())
}

/// Takes over Adam's moments. The optimizer numbers its parameters: those that decay, then the others,
/// both in the model's order.
fn moments(
    path: &Path,
    order: &[(String, Tensor)],
    source: &mut Source,
) -> Result<(), ConvertError> {
    let damaged = |reason: String| ConvertError::damaged(path, reason);
    let file = pytorch::open(path)?;
    let state = file
        .root()
        .field("optimizer")
        .and_then(|o| o.field("state"));
    let states = state
        .and_then(Entry::numbered)
        .ok_or_else(|| damaged("it has no state of an optimizer".into()))?;
    let known = |name: &str| source.parameters.iter().find(|p| p.name == name);
    let decays = |name: &str, shape: &[usize]| shape.len() != 1 && !name.ends_with(".bias");
    let listed: Vec<&str> = order
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| known(name).is_some())
        .collect();
    let (decayed, others): (Vec<&str>, Vec<&str>) = listed
        .iter()
        .partition(|name| known(name).is_some_and(|p| decays(name, &p.shape)));
    let numbers: BTreeMap<&str, usize> = decayed
        .into_iter()
        .chain(others)
        .enumerate()
        .map(|(number, name)| (name, number))
        .collect();
    if states.len() != numbers.len() {
        return Err(damaged(format!(
            "it has moments of {} parameters, the model has {}",
            states.len(),
            numbers.len()
        )));
    }
    let mut both = [Vec::new(), Vec::new()];
    let mut steps = None;
    for parameter in &source.parameters {
        let state = numbers
            .get(parameter.name.as_str())
            .and_then(|number| states.get(number))
            .ok_or_else(|| damaged(format!("it has no moments of '{}'", parameter.name)))?;
        for (tensors, name) in both.iter_mut().zip(["exp_avg", "exp_avg_sq"]) {
            let tensor = state
                .field(name)
                .and_then(Entry::tensor)
                .filter(|t| t.shape == parameter.shape && t.element.is_float())
                .ok_or_else(|| {
                    damaged(format!(
                        "its {name} of '{}' is not there or of another shape",
                        parameter.name
                    ))
                })?;
            tensors.push(tensor);
        }
        if steps.is_none() {
            steps = match state.field("step") {
                Some(step) => match step.tensor() {
                    Some(tensor) => tensor.read(0..1)?.first().map(|&s| f64::from(s)),
                    None => step.number(),
                },
                None => None,
            };
        }
    }
    let steps = steps.ok_or_else(|| damaged("it does not say how many updates it made".into()))?;
    if steps as u64 != source.step {
        source.notes.push(format!(
            "{} is of update {steps}, the model of update {}: its moments are left out",
            path.display(),
            source.step
        ));
        return Ok(());
    }
    source.moments = Some(both);
    Ok(())
}
