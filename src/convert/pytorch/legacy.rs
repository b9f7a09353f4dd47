//! `torch.save`'s format before 1.6: pickles one after the other, then the storages.

use super::machine::unpickle;
use super::state::PyTorchFile;
use super::storage::storages;
use super::value::{Node, Refusal, Values};
use crate::convert::ConvertError;
use crate::convert::tensors::TensorFile;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::sync::Arc;

/// The magic number, a pickled integer of ten bytes, behind the pickle's own two bytes.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The version of the format.
const VERSION: i64 = 1001;

/// Whether a file that begins with `head` is one.
pub fn is_legacy(head: &[u8]) -> bool {
    head.first() == Some(&0x80) && head.get(2..2 + MAGIC.len()) == Some(MAGIC)
}

/// Reads a legacy file.
pub fn open(file: &Arc<TensorFile>) -> Result<PyTorchFile, ConvertError> {
    let path = file.path();
    let damaged = |reason: Refusal| ConvertError::damaged(path, reason);
    let mut reader = BufReader::new(File::open(path).map_err(ConvertError::io("read", path))?);
    let mut position = 0;
    let mut next = |reader: &mut BufReader<File>| -> Result<Values, ConvertError> {
        let (values, len) = unpickle(reader).map_err(damaged)?;
        position += len;
        Ok(values)
    };
    next(&mut reader)?;
    let version = next(&mut reader)?;
    if *version.get(version.root) != Node::Int(VERSION) {
        return Err(damaged("it is of an unknown legacy version".into()));
    }
    let system = next(&mut reader)?;
    if let Some(little) = system.field(system.root, "little_endian")
        && *system.get(little) == Node::Bool(false)
    {
        return Err(damaged("it was written by a big-endian machine".into()));
    }
    let values = next(&mut reader)?;
    let keys = next(&mut reader)?;
    let Node::List(listed) = keys.get(keys.root) else {
        return Err(damaged("it has no list of its storages".into()));
    };
    let mut known: HashMap<String, _> = storages(&values)
        .map_err(damaged)?
        .into_iter()
        .map(|s| (s.key.clone(), s))
        .collect();
    let mut offsets = HashMap::new();
    for key in listed {
        let key = keys.text(*key).unwrap_or_default();
        let storage = known.remove(key).ok_or_else(|| {
            damaged(format!(
                "its list of storages names '{key}', no tensor does"
            ))
        })?;
        let mut len = [0; 8];
        reader
            .read_exact(&mut len)
            .map_err(|e| damaged(format!("it breaks off before its storages: {e}")))?;
        position += 8;
        let len = i64::from_le_bytes(len);
        let bytes = storage.len.checked_mul(storage.element.size());
        let end = bytes.and_then(|n| position.checked_add(n as u64));
        let (Some(bytes), Some(end)) = (bytes, end.filter(|&end| end <= file.len())) else {
            return Err(damaged(format!("its storage '{key}' goes beyond its end")));
        };
        if usize::try_from(len).ok() != Some(storage.len) {
            return Err(damaged(format!(
                "its storage '{key}' is declared with {} elements, but has {len}",
                storage.len
            )));
        }
        offsets.insert(storage.key, position);
        reader
            .seek_relative(bytes as i64)
            .map_err(ConvertError::io("read", path))?;
        position = end;
    }
    if let Some(key) = known.into_keys().next() {
        return Err(damaged(format!("its storage '{key}' is not there")));
    }
    Ok(PyTorchFile::new(file, values, offsets))
}
