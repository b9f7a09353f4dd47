//! What a file is, by its content where that tells, else by its name.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use mpnet_runtime::lfs::refuse_pointer;

use super::bytes::decompressed;
use super::fields::Fields;
use super::format::Foreign;
use super::json_field::Field;
use super::marked::Marked;
use super::{Compression, Format, Kind};
use crate::data::error::{DataError, Result};

/// Bytes that are looked at, before and after decompression.
const HEAD: usize = 64 << 10;
const PARQUET: &[u8] = b"PAR1";
const NOT_READ: &str = "which is not read";

/// What was found.
#[derive(Debug)]
pub struct Looked {
    pub kind: Kind,
    /// What is odd about it, to be said.
    pub note: Option<String>,
}

/// Looks into the file at `path`, whose texts are in `fields`.
///
/// # Errors
/// When it can't be read or is of a kind that is not read.
pub fn look(path: &Path, fields: &Fields) -> Result<Looked> {
    refuse_pointer(path)?;
    let named = Kind::of(path);
    let raw = head_of(path)?;
    let refuse = |problem: String| {
        Err(DataError::Source {
            name: path.display().to_string(),
            problem,
        })
    };
    let by_name = Looked {
        kind: named.unwrap_or_default(),
        note: None,
    };
    if raw.is_empty() {
        return Ok(by_name);
    }
    let compression = Compression::of_content(&raw);
    let head = match compression {
        Compression::None => raw,
        // What is damaged is named with its place by the reader.
        some => unpack(raw, some),
    };
    if compression != Compression::None && head.is_empty() {
        let kind = Kind {
            compression,
            ..by_name.kind
        };
        return Ok(Looked { kind, note: None });
    }
    let of = |format: Format| Kind {
        format,
        compression,
    };
    let kind = if head.starts_with(PARQUET) {
        of(Format::Parquet)
    } else if is_text(&head) {
        of(text_format(&head, named, fields))
    } else {
        if let Some(foreign) = Foreign::of_content(&head) {
            let inside = match compression {
                Compression::None => String::new(),
                some => format!(", compressed by {}", some.name()),
            };
            return refuse(format!(
                "it is {}{inside}, {NOT_READ}; {}",
                foreign.name, foreign.remedy
            ));
        }
        // A damaged file is its reader's to describe.
        if let Some(Kind {
            format: Format::Parquet,
            ..
        }) = named
        {
            return Ok(Looked {
                kind: of(Format::Parquet),
                note: None,
            });
        }
        if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
            return refuse("it is UTF-16; make UTF-8 of it: iconv -f UTF-16 -t UTF-8 FILE".into());
        }
        if let Some(named) = named
            && named.compression != compression
        {
            return refuse(format!(
                "it is named as compressed by {} and is not, nor is it text; Hadoop and Spark write blocks of their own \
                 under such names: write it with gzip or zstd",
                named.compression.name()
            ));
        }
        if let Some(at) = head.iter().position(|&byte| byte == 0) {
            let hint = Foreign::of_name(path).map_or_else(
                || "take it out, or make UTF-8 text of it".to_owned(),
                |foreign| format!("it may be {}: {}", foreign.name, foreign.remedy),
            );
            return refuse(format!("byte {at} is NUL, so it is no text; {hint}"));
        }
        // Not UTF-8: the reader names the line.
        of(by_name.kind.format)
    };
    if kind.format == Format::Text
        && let Some(marked) = Marked::of_content(&String::from_utf8_lossy(&head))
    {
        let note = format!(
            "{}, whose marks are trained on as text; {}",
            marked.name, marked.remedy
        );
        return Ok(Looked {
            kind,
            note: Some(note),
        });
    }
    let note = match named {
        Some(named) if named == kind => None,
        Some(named) if named.format == Format::Json && kind == of(Format::JsonLines) => None,
        Some(named) => Some(format!(
            "named as {}, read as what it holds: {}",
            named.name(),
            kind.name()
        )),
        None => Some(format!(
            "no known ending, read as what it holds: {}",
            kind.name()
        )),
    };
    Ok(Looked { kind, note })
}

fn head_of(path: &Path) -> Result<Vec<u8>> {
    let fail = |source| DataError::Read {
        path: path.to_owned(),
        source,
    };
    let mut head = Vec::new();
    let file = File::open(path).map_err(fail)?;
    file.take(HEAD as u64)
        .read_to_end(&mut head)
        .map_err(fail)?;
    Ok(head)
}

/// What of the start of a compressed file can be decompressed.
fn unpack(raw: Vec<u8>, compression: Compression) -> Vec<u8> {
    let mut head = Vec::new();
    let Ok(mut inner) = decompressed(BufReader::new(Cursor::new(raw)), compression) else {
        return head;
    };
    let mut part = [0; 4096];
    while head.len() < HEAD {
        match inner.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(count) => head.extend_from_slice(&part[..count]),
        }
    }
    head
}

/// Whether it is UTF-8 without NUL; a character may be cut off at the end.
fn is_text(head: &[u8]) -> bool {
    let whole = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && head.len() >= HEAD,
    };
    whole && !head.contains(&0)
}

/// The format of a text file: that of its name, where the content doesn't say otherwise.
fn text_format(head: &[u8], named: Option<Kind>, fields: &Fields) -> Format {
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let in_objects = text.starts_with('{');
    let in_array = text
        .strip_prefix('[')
        .is_some_and(|rest| rest.trim_start().starts_with(['{', '"', ']']));
    match named.map(|kind| kind.format) {
        Some(Format::Json) => Format::Json,
        Some(Format::JsonLines) if in_array || (in_objects && spread_out(text)) => Format::Json,
        Some(Format::JsonLines) => Format::JsonLines,
        Some(Format::Text) if in_objects && all_objects(text, head.len(), Some(fields)) => {
            Format::JsonLines
        }
        Some(Format::Text) => Format::Text,
        // Parquet by its name alone.
        Some(Format::Csv | Format::Tsv | Format::Parquet) | None
            if in_objects && all_objects(text, head.len(), None) =>
        {
            Format::JsonLines
        }
        Some(Format::Csv) => Format::Csv,
        Some(Format::Tsv) => Format::Tsv,
        Some(Format::Parquet) | None if in_array => Format::Json,
        Some(Format::Parquet) | None => Format::Text,
    }
}

/// Whether the first object goes on after its first line.
fn spread_out(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default().trim_end();
    first == "{"
}

/// Whether every line, but for one that is cut off, is a JSON object; with any of `fields`, where given.
fn all_objects(text: &str, looked_at: usize, fields: Option<&Fields>) -> bool {
    let mut lines: Vec<&str> = text.split('\n').collect();
    if looked_at >= HEAD {
        lines.pop();
    }
    let mut lines = lines.into_iter().filter(|line| !line.trim().is_empty());
    let usual = Fields::default();
    let mut any = false;
    let every = lines.by_ref().all(|line| {
        let found = match Field::read(line.trim(), fields.unwrap_or(&usual)) {
            Ok((found, _)) => found,
            Err(_) => return false,
        };
        any = any || !matches!(found, Field::Missing(_));
        line.trim_start().starts_with('{')
    });
    every && (any || fields.is_none())
}
