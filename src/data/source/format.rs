//! What a file holds, by the ending of its name.

use std::path::Path;

/// How rows are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One text a line.
    #[default]
    Text,
    /// One JSON object a line.
    JsonLines,
    /// An array of JSON objects, or one object after another.
    Json,
    /// A column of a parquet file.
    Parquet,
}

/// What is around that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Nothing.
    #[default]
    None,
    /// gzip, several members included.
    Gzip,
    /// Zstandard, several frames included.
    Zstd,
}

/// Format and compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kind {
    pub format: Format,
    pub compression: Compression,
}

impl Kind {
    /// The kind that a file's name tells; `None` for other endings.
    pub fn of(path: &Path) -> Option<Kind> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let (stem, ending) = name.rsplit_once('.')?;
        let (ending, compression) = match ending {
            "gz" => (stem.rsplit_once('.')?.1, Compression::Gzip),
            "zst" | "zstd" => (stem.rsplit_once('.')?.1, Compression::Zstd),
            plain => (plain, Compression::None),
        };
        let format = match ending {
            "txt" => Format::Text,
            "jsonl" | "ndjson" => Format::JsonLines,
            "json" => Format::Json,
            "parquet" => Format::Parquet,
            _ => return None,
        };
        Some(Kind {
            format,
            compression,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_tell_the_kind() {
        let kind = |name: &str| Kind::of(Path::new(name)).map(|k| (k.format, k.compression));
        assert_eq!(kind("a/b.TXT"), Some((Format::Text, Compression::None)));
        assert_eq!(
            kind("b.jsonl.gz"),
            Some((Format::JsonLines, Compression::Gzip))
        );
        assert_eq!(kind("b.json.zst"), Some((Format::Json, Compression::Zstd)));
        assert_eq!(
            kind("b.0.parquet"),
            Some((Format::Parquet, Compression::None))
        );
        for other in ["README.md", "data.gz", "txt", "a.txt.bak"] {
            assert_eq!(kind(other), None, "{other}");
        }
    }
}
