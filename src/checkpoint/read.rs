//! Reading: nothing is trusted that was not checked.

use super::data_file;
use super::error::CheckpointError;
use super::state::{FORMAT_VERSION, HeadParameter, TrainerState};
use super::sums::{self, hash};
use super::{
    Checkpoint, DATA_FILE, FIRST_MOMENT, MODEL_FILE, OPTIMIZER_FILE, Result, SECOND_MOMENT,
    STATE_FILE, SUMS_FILE, TOKENIZER_FOLDER,
};
use crate::data::tokenizer::TOKENIZER_FILES;
use memmap2::Mmap;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::parameters::{Parameter, parameters};
use mpnet_runtime::engine::{NamedArray, OptimizerState};
use safetensors::{Dtype, SafeTensors};
use std::fs::File;
use std::path::Path;

/// The first format version whose checkpoints have a `SHA256SUMS`.
const FIRST_WITH_SUMS: u64 = 2;

/// Largest `trainer_state.json` that is read.
const MAX_STATE_BYTES: u64 = 16 << 20;

/// Reads the checkpoint in `folder`, checking hashes, names, shapes and types.
///
/// # Errors
/// Naming the file and what is wrong with it.
pub fn load(folder: &Path) -> Result<Checkpoint> {
    read(folder, true)
}

/// Reads the checkpoint in `folder` without the optimizer's state.
///
/// # Errors
/// As [`load`].
pub fn load_model(folder: &Path) -> Result<Checkpoint> {
    read(folder, false)
}

fn read(folder: &Path, with_optimizer: bool) -> Result<Checkpoint> {
    let state = read_state(folder)?;
    // The state file was checked against its own hash, and holds those of the tensors.
    if let Some(sums) = sums::read(folder)? {
        for name in TOKENIZER_FILES.map(|name| format!("{TOKENIZER_FOLDER}/{name}")) {
            sums::check(folder, &name, &sums)?;
        }
    }
    check_hash(folder, MODEL_FILE, &state)?;
    let arrays = |file: &str, prefix: &str| {
        read_arrays(&folder.join(file), prefix, &state.model, &state.head)
    };
    let parameters = arrays(MODEL_FILE, "")?;
    let optimizer = (with_optimizer && state.sha256.contains_key(OPTIMIZER_FILE))
        .then(|| -> Result<OptimizerState> {
            check_hash(folder, OPTIMIZER_FILE, &state)?;
            let path = folder.join(OPTIMIZER_FILE);
            Ok(OptimizerState {
                step: match state.optimizer_step {
                    Some(step) => step,
                    None => i64::try_from(state.step)
                        .map_err(|_| CheckpointError::damaged(&path, "its step is too large"))?,
                },
                loss_scaling: state.loss_scaling,
                first_moments: arrays(OPTIMIZER_FILE, FIRST_MOMENT)?,
                second_moments: arrays(OPTIMIZER_FILE, SECOND_MOMENT)?,
            })
        })
        .transpose()?;
    // Checkpoints that were made elsewhere have it in the state, if at all.
    let data = match with_optimizer && state.sha256.contains_key(DATA_FILE) {
        true => {
            check_hash(folder, DATA_FILE, &state)?;
            data_file::read(folder)?
        }
        false => state.data,
    };
    let tokenizer = folder.join(TOKENIZER_FOLDER);
    Ok(Checkpoint {
        model: state.model,
        config: state.config,
        step: state.step,
        best_loss: state.best_loss,
        best_figure: state.best_figure,
        validated: state.validated,
        data,
        seed: state.seed,
        parameters,
        optimizer,
        tokenizer: tokenizer.is_dir().then_some(tokenizer),
    })
}

/// Reads `trainer_state.json`.
///
/// # Errors
/// Where it is missing, too large, of a newer version, or does not describe a valid model.
pub fn read_state(folder: &Path) -> Result<TrainerState> {
    let path = folder.join(STATE_FILE);
    let size = std::fs::metadata(&path)
        .map_err(CheckpointError::io("read", &path))?
        .len();
    if size > MAX_STATE_BYTES {
        return Err(CheckpointError::damaged(
            &path,
            format!("it has {size} bytes"),
        ));
    }
    let text = std::fs::read(&path).map_err(CheckpointError::io("read", &path))?;
    let sums = sums::read(folder)?;
    if let Some(sums) = &sums {
        sums::check(folder, STATE_FILE, sums)?;
    }
    let value: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|e| CheckpointError::damaged(&path, e.to_string()))?;
    match value
        .get("format_version")
        .and_then(serde_json::Value::as_u64)
    {
        Some(found) if found > FORMAT_VERSION => {
            return Err(CheckpointError::Version {
                path,
                found,
                known: FORMAT_VERSION,
            });
        }
        Some(version) if version >= FIRST_WITH_SUMS && sums.is_none() => {
            return Err(CheckpointError::damaged(
                &folder.join(SUMS_FILE),
                "it is missing",
            ));
        }
        Some(_) => {}
        None => return Err(CheckpointError::damaged(&path, "it has no format_version")),
    }
    let state: TrainerState = serde_json::from_value(value)
        .map_err(|e| CheckpointError::damaged(&path, e.to_string()))?;
    state
        .model
        .validate()
        .map_err(|e| CheckpointError::damaged(&path, e.to_string()))?;
    Ok(state)
}

/// [`read_state`], once the parameters beside it have the hash that it gives.
///
/// # Errors
/// As [`read_state`], or where they have another.
pub fn read_checked_state(folder: &Path) -> Result<TrainerState> {
    let state = read_state(folder)?;
    check_hash(folder, MODEL_FILE, &state)?;
    Ok(state)
}

/// Checks every file of the checkpoint in `folder` against its hash.
///
/// # Errors
/// Naming the first that is missing or damaged.
pub fn verify(folder: &Path) -> Result<()> {
    match sums::read(folder)? {
        Some(sums) => sums.keys().try_for_each(|name| {
            let known = [MODEL_FILE, OPTIMIZER_FILE, DATA_FILE, STATE_FILE];
            let tokenizer = name
                .strip_prefix(TOKENIZER_FOLDER)
                .and_then(|n| n.strip_prefix('/'));
            if known.contains(&name.as_str())
                || tokenizer.is_some_and(|n| TOKENIZER_FILES.contains(&n))
            {
                return sums::check(folder, name, &sums);
            }
            Err(CheckpointError::damaged(
                &folder.join(SUMS_FILE),
                format!("it names '{name}', which is no file of a checkpoint"),
            ))
        }),
        None => load(folder).map(drop),
    }
}

fn check_hash(folder: &Path, name: &str, state: &TrainerState) -> Result<()> {
    let path = folder.join(name);
    let expected = state.sha256.get(name).ok_or_else(|| {
        CheckpointError::damaged(
            &folder.join(STATE_FILE),
            format!("it has no hash of {name}"),
        )
    })?;
    if *expected != hash(&path)? {
        return Err(CheckpointError::damaged(
            &path,
            "its SHA-256 is not the one in trainer_state.json",
        ));
    }
    Ok(())
}

/// Reads the parameters in `folder`, in the order of `model`'s.
///
/// # Errors
/// Where the file does not hold just these parameters in these shapes.
pub fn load_parameters(folder: &Path, model: &ModelConfig) -> Result<Vec<NamedArray>> {
    let path = folder.join(MODEL_FILE);
    read_arrays(&path, "", model, &[])
}

/// The parameters of the model and of a task's head, or what stands for them under `prefix`, from a safetensors file.
fn read_arrays(
    path: &Path,
    prefix: &str,
    model: &ModelConfig,
    head: &[HeadParameter],
) -> Result<Vec<NamedArray>> {
    let file = File::open(path).map_err(CheckpointError::io("open", path))?;
    // SAFETY: the mapping is read-only, and checkpoints are never modified in place by this program;
    // another program that truncates one while it is read ends this process with a bus error.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.map_err(CheckpointError::io("map", path))?;
    let tensors = SafeTensors::deserialize(&map)
        .map_err(|e| CheckpointError::damaged(path, e.to_string()))?;
    let found = tensors
        .names()
        .iter()
        .filter(|n| n.starts_with(prefix))
        .count();
    // Before a list is made of layers that are not there.
    if model.encoder_layers > found {
        return Err(CheckpointError::damaged(
            path,
            format!(
                "it holds {found} tensors, the model has {} layers",
                model.encoder_layers
            ),
        ));
    }
    let own = parameters(model).into_iter();
    let own = own.map(|Parameter { name, shape, .. }| HeadParameter { name, shape });
    let expected: Vec<HeadParameter> = own.chain(head.iter().cloned()).collect();
    if found != expected.len() {
        return Err(CheckpointError::damaged(
            path,
            format!("it holds {found} tensors, the model has {}", expected.len()),
        ));
    }
    expected
        .into_iter()
        .map(|parameter| {
            let name = format!("{prefix}{}", parameter.name);
            let view = tensors
                .tensor(&name)
                .map_err(|_| CheckpointError::damaged(path, format!("it lacks '{name}'")))?;
            if view.dtype() != Dtype::F32 || view.shape() != parameter.shape {
                return Err(CheckpointError::damaged(
                    path,
                    format!(
                        "'{name}' is {:?} of shape {:?}, not F32 of shape {:?}",
                        view.dtype(),
                        view.shape(),
                        parameter.shape
                    ),
                ));
            }
            let (values, _) = view.data().as_chunks::<4>();
            Ok(NamedArray {
                name: parameter.name,
                shape: parameter.shape,
                values: values.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            })
        })
        .collect()
}
