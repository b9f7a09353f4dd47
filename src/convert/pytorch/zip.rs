//! `torch.save`'s present format: a zip archive without compression.

use super::directory::{self, Place};
use super::machine::{MAX_BYTES, unpickle};
use super::state::PyTorchFile;
use super::storage::storages;
use super::value::Refusal;
use crate::convert::ConvertError;
use crate::convert::tensors::TensorFile;
use std::collections::HashMap;
use std::sync::Arc;

/// Reads an archive.
pub fn open(file: &Arc<TensorFile>) -> Result<PyTorchFile, ConvertError> {
    let path = file.path();
    let damaged = |reason: Refusal| ConvertError::damaged(path, reason);
    let places = directory::entries(file)?;
    // Everything lies in one folder, whose name is free.
    let mut folders = places.keys().filter_map(|n| n.strip_suffix("/data.pkl"));
    let folder = match (folders.next(), folders.next()) {
        (Some(folder), None) if !folder.contains('/') => folder.to_owned(),
        (Some(_), _) | (None, _) => {
            return Err(damaged(
                "its zip archive is not one of torch.save: it has no data.pkl, or several".into(),
            ));
        }
    };
    let place = |name: &str| places.get(&format!("{folder}/{name}"));
    let bytes = |place: &Place| -> Result<Vec<u8>, ConvertError> {
        let len = usize::try_from(place.len)
            .ok()
            .filter(|_| place.len <= MAX_BYTES)
            .ok_or_else(|| damaged(format!("its data.pkl has {} bytes", place.len)))?;
        file.read(place.start, len)
    };
    if let Some(order) = place("byteorder")
        && bytes(order)? != b"little"
    {
        return Err(damaged("it was written by a big-endian machine".into()));
    }
    let pickle = place("data.pkl").ok_or_else(|| damaged("it has no data.pkl".into()))?;
    let pickle = bytes(pickle)?;
    let (values, _) = unpickle(&mut pickle.as_slice()).map_err(damaged)?;
    let mut offsets = HashMap::new();
    for storage in storages(&values).map_err(damaged)? {
        let place = place(&format!("data/{}", storage.key));
        let declared = storage.len.checked_mul(storage.element.size());
        match place {
            // CVE-2026-24747: what is declared must be what is there.
            Some(place) if declared.map(|n| n as u64) == Some(place.len) => {
                offsets.insert(storage.key, place.start);
            }
            Some(place) => {
                return Err(damaged(format!(
                    "its storage '{}' is declared with {} elements of {} bytes, but has {} bytes",
                    storage.key,
                    storage.len,
                    storage.element.size(),
                    place.len
                )));
            }
            None => {
                return Err(damaged(format!(
                    "its storage '{}' is not there",
                    storage.key
                )));
            }
        }
    }
    Ok(PyTorchFile::new(file, values, offsets))
}
