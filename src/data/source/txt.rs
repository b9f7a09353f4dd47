//! Lines of text: one row for each that is not blank.

use std::path::Path;

use super::bytes::Bytes;
use super::{Compression, Format, FormatEntry, Position, Rows, is_blank};
use crate::data::error::{DataError, Result};

/// Lines of text.
pub const TEXT: FormatEntry = FormatEntry {
    name: "text",
    endings: &["txt"],
    magic: None,
    holds: "UTF-8, one text a line; lines end where Python's `str.splitlines` ends them",
    reader: "this program",
    of_text: |head| match head.some_objects() {
        true => Format::JsonLines,
        false => Format::Text,
    },
    open: |file| match file.fields.are_apart() {
        true => Err(DataError::Source {
            name: file.path.display().to_string(),
            problem: format!(
                "it is plain text, which has no columns {}: make JSON lines, CSV or parquet of it",
                file.fields.quoted()
            ),
        }),
        false => Ok(Box::new(Lines::open(file.path, file.compression, file.at)?)),
    },
};

/// The characters at which Python's `str.splitlines` ends a line, so that rows equal annotated-mpnet's.
fn ends_line(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Where the first line of `text` ends and the next one begins; none where it is one line.
fn end_of_line(text: &str) -> Option<(usize, usize)> {
    // The first bytes in UTF-8 of the characters that end a line: others are passed over without being decoded.
    let may_end = |byte: &u8| *byte < b' ' || *byte == 0xc2 || *byte == 0xe2;
    let mut at = 0;
    loop {
        at += text.as_bytes()[at..].iter().position(may_end)?;
        let c = text[at..].chars().next()?;
        let next = at + c.len_utf8();
        if ends_line(c) {
            return Some((at, next));
        }
        at = next;
    }
}

/// The rows of a text file.
pub struct Lines {
    bytes: Bytes,
    /// What lies between two line feeds, and how much of it was handed out.
    line: String,
    used: usize,
    rows: u64,
}

impl Lines {
    /// Opens a file at a position in it.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn open(path: &Path, compression: Compression, at: Position) -> Result<Self> {
        Ok(Self {
            bytes: Bytes::open(path, compression, at.byte)?,
            line: String::new(),
            used: 0,
            rows: at.row,
        })
    }
}

impl Rows for Lines {
    fn next(&mut self) -> Result<Option<String>> {
        loop {
            while self.used < self.line.len() {
                let rest = &self.line[self.used..];
                let (end, next) = end_of_line(rest).unwrap_or((rest.len(), rest.len()));
                let text = &rest[..end];
                self.used += next;
                if !is_blank(text) {
                    self.rows += 1;
                    return Ok(Some(text.to_owned()));
                }
            }
            let mut bytes = std::mem::take(&mut self.line).into_bytes();
            let start = self.bytes.offset();
            let more = self.bytes.line(&mut bytes)?;
            self.used = 0;
            if bytes.contains(&0) {
                let before = bytes.iter().take_while(|byte| **byte != 0).count();
                let at = start + before as u64;
                return Err(DataError::Row {
                    name: self.bytes.path().display().to_string(),
                    place: format!("line {}", self.bytes.line_of(at)?),
                    problem: format!("byte {at} of the file is NUL, so it is no text; take it out"),
                });
            }
            self.line = String::from_utf8(bytes).map_err(|e| {
                let bad = start + e.utf8_error().valid_up_to() as u64;
                self.bytes.not_utf8(bad)
            })?;
            if !more {
                return Ok(None);
            }
        }
    }

    fn position(&self) -> Position {
        Position {
            row: self.rows,
            byte: self.bytes.offset() - (self.line.len() - self.used) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_every_character_that_ends_one_and_at_no_other() {
        for c in (0..0x3000).filter_map(char::from_u32) {
            let text = format!("äÂ\u{80}€ {c}x\n");
            let end = text.find(ends_line).unwrap();
            let next = end + text[end..].chars().next().unwrap().len_utf8();
            assert_eq!(end_of_line(&text), Some((end, next)), "{c:?}");
        }
        assert_eq!(end_of_line("one line â€"), None);
    }
}
