//! The central directory of a zip archive, by which its entries are found without unpacking any.
//!
//! Only what `torch.save` writes is read: entries stored as they are, in one file.

use super::value::Refusal;
use crate::convert::ConvertError;
use crate::convert::tensors::TensorFile;
use std::collections::HashMap;

/// Most entries of an archive: one for each storage and a few more.
const MAX_ENTRIES: u64 = 100_000;
/// Longest directory.
const MAX_DIRECTORY: u64 = 64 << 20;

const END: &[u8] = b"PK\x05\x06";
const END_LEN: usize = 22;
const END_64: &[u8] = b"PK\x06\x06";
const END_64_LEN: usize = 56;
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const LOCATOR_64_LEN: usize = 20;
const CENTRAL: &[u8] = b"PK\x01\x02";
const CENTRAL_LEN: usize = 46;
const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_LEN: usize = 30;

/// Where an entry's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub start: u64,
    pub len: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?).into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?).into())
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Every entry of `file`, by name.
///
/// # Errors
/// Where it is no archive, is damaged, or has entries that torch.save does not write.
pub fn entries(file: &TensorFile) -> Result<HashMap<String, Place>, ConvertError> {
    let damaged = |reason: Refusal| ConvertError::damaged(file.path(), reason);
    let broken = || damaged("its zip archive is broken or cut off".into());
    let (start, len, count) = directory(file)?.ok_or_else(broken)?;
    if count > MAX_ENTRIES || len > MAX_DIRECTORY {
        return Err(damaged(format!("its zip archive has {count} entries")));
    }
    let directory = file.read(start, usize::try_from(len).map_err(|_| broken())?)?;
    let mut found = HashMap::new();
    let mut at = 0;
    for _ in 0..count {
        let (entry, next) = Entry::parse(&directory, at).ok_or_else(broken)?;
        at = next;
        let name = entry.name;
        if name.starts_with('/') || name.contains('\\') || name.split('/').any(|p| p == "..") {
            return Err(damaged(format!(
                "its entry {name:?} leads out of the archive"
            )));
        }
        if !entry.plain {
            return Err(damaged(format!(
                "its entry {name:?} is compressed or encrypted, which torch.save does not do; where it is a zipped \
                 folder, unpack it and give the folder"
            )));
        }
        let local = file.read(entry.local, LOCAL_LEN)?;
        let lengths = u16_at(&local, 26).zip(u16_at(&local, 28));
        let (name_len, extra_len) = lengths
            .filter(|_| local.starts_with(LOCAL))
            .ok_or_else(broken)?;
        let start = entry.local + LOCAL_LEN as u64 + name_len + extra_len;
        if start
            .checked_add(entry.len)
            .is_none_or(|end| end > file.len())
        {
            return Err(damaged(format!(
                "its entry {name:?} does not lie within the file"
            )));
        }
        let place = Place {
            start,
            len: entry.len,
        };
        if found.insert(name.clone(), place).is_some() {
            return Err(damaged(format!("its entry {name:?} is there twice")));
        }
    }
    Ok(found)
}

/// Offset, length and number of entries of the directory; none where there is none.
fn directory(file: &TensorFile) -> Result<Option<(u64, u64, u64)>, ConvertError> {
    let tail_len = file.len().min((END_LEN + LOCATOR_64_LEN + 0xffff) as u64);
    let tail_start = file.len() - tail_len;
    let tail = file.read(tail_start, usize::try_from(tail_len).unwrap_or(0))?;
    let Some(end) = tail.windows(END.len()).rposition(|window| window == END) else {
        return Ok(None);
    };
    let locator = end
        .checked_sub(LOCATOR_64_LEN)
        .filter(|&at| tail[at..].starts_with(LOCATOR_64));
    if let Some(offset) = locator.and_then(|at| u64_at(&tail, at + 8)) {
        let record = file.read(offset, END_64_LEN)?;
        let fields = u64_at(&record, 48).zip(u64_at(&record, 40));
        let fields = fields.zip(u64_at(&record, 32));
        return Ok(fields
            .filter(|_| record.starts_with(END_64))
            .map(|((start, len), count)| (start, len, count)));
    }
    let fields = u32_at(&tail, end + 16).zip(u32_at(&tail, end + 12));
    let fields = fields.zip(u16_at(&tail, end + 10));
    Ok(fields.map(|((start, len), count)| (start, len, count)))
}

/// A line of the directory.
struct Entry {
    name: String,
    /// Neither compressed nor encrypted.
    plain: bool,
    len: u64,
    /// Offset of the entry's own header.
    local: u64,
}

impl Entry {
    /// The line at `at`, and where the next one begins.
    fn parse(directory: &[u8], at: usize) -> Option<(Entry, usize)> {
        let line = directory.get(at..)?;
        if !line.starts_with(CENTRAL) {
            return None;
        }
        let (flags, method) = (u16_at(line, 8)?, u16_at(line, 10)?);
        let (mut packed, mut len) = (u32_at(line, 20)?, u32_at(line, 24)?);
        let mut local = u32_at(line, 42)?;
        let name_end = CENTRAL_LEN + u16_at(line, 28)? as usize;
        let extra_end = name_end + u16_at(line, 30)? as usize;
        let next = extra_end + u16_at(line, 32)? as usize;
        let name = std::str::from_utf8(line.get(CENTRAL_LEN..name_end)?).ok()?;
        // Sizes of 4 GiB and more are in the extra field of zip64, those that need it.
        let mut extra = line.get(name_end..extra_end)?;
        while let (Some(tag), Some(size)) = (u16_at(extra, 0), u16_at(extra, 2)) {
            let size = size as usize;
            let field = extra.get(4..4 + size)?;
            if tag == 1 {
                let mut place = 0;
                for value in [&mut len, &mut packed, &mut local] {
                    if *value == u64::from(u32::MAX) {
                        *value = u64_at(field, place)?;
                        place += 8;
                    }
                }
            }
            extra = &extra[4 + size..];
        }
        let entry = Entry {
            name: name.to_owned(),
            plain: method == 0 && flags & 1 == 0 && packed == len,
            len,
            local,
        };
        Some((entry, at + next))
    }
}
