//! What a file is, by its content where that tells, else by its name.

use std::borrow::Cow;
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
const NOT_READ: &str = "which is not read";

/// What was found.
#[derive(Debug)]
pub struct Looked {
    pub kind: Kind,
    /// What is odd about it, to be said.
    pub note: Option<String>,
}

/// Looks into the file at `path`.
///
/// # Errors
/// When it can't be read or is of a kind that is not read.
pub fn look(path: &Path) -> Result<Looked> {
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
    let kind = if let Some(format) = Format::of_magic(&head) {
        of(format)
    } else if is_text(&head) {
        let head = TextHead::new(&head);
        of(match named {
            Some(named) => (named.format.entry().of_text)(&head),
            None => head.unnamed(),
        })
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
        if let Some(Kind { format, .. }) = named
            && format.entry().magic.is_some()
        {
            return Ok(Looked {
                kind: of(format),
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

/// The start of a file of text.
#[derive(Debug)]
pub struct TextHead<'a> {
    /// From the first character on that is no space.
    text: Cow<'a, str>,
    /// Whether the file goes on behind it.
    cut: bool,
}

impl<'a> TextHead<'a> {
    fn new(head: &'a [u8]) -> TextHead<'a> {
        let head_length = head.len();
        TextHead {
            text: String::from_utf8_lossy(head),
            cut: head_length >= HEAD,
        }
    }

    fn text(&self) -> &str {
        self.text.trim_start_matches('\u{feff}').trim_start()
    }

    /// What a file is whose name tells nothing.
    pub fn unnamed(&self) -> Format {
        if self.all_objects() {
            Format::JsonLines
        } else if self.in_array() {
            Format::Json
        } else {
            Format::Text
        }
    }

    /// Whether it is an array of objects or strings.
    pub fn in_array(&self) -> bool {
        let inside = self.text().strip_prefix('[');
        inside.is_some_and(|rest| rest.trim_start().starts_with(['{', '"', ']']))
    }

    /// Whether it is an object that goes on after its first line.
    pub fn spread_out(&self) -> bool {
        let first = self.text().lines().next().unwrap_or_default().trim_end();
        first == "{"
    }

    /// Whether every line, but for one that is cut off, is a JSON object.
    pub fn all_objects(&self) -> bool {
        self.objects().is_some()
    }

    /// Whether they are, and there is one.
    pub fn some_objects(&self) -> bool {
        self.objects().is_some_and(|count| count > 0)
    }

    /// How many lines are JSON objects; none where one that is not cut off is none.
    fn objects(&self) -> Option<usize> {
        let text = self.text();
        let mut lines: Vec<&str> = text.split('\n').collect();
        if self.cut {
            lines.pop();
        }
        let mut count = 0;
        for line in lines
            .into_iter()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            if !line.starts_with('{') {
                return None;
            }
            Field::read(line, &Fields::default()).ok()?;
            count += 1;
        }
        text.starts_with('{').then_some(count)
    }
}
