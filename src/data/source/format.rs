//! The tables of formats and compressions: what a file may be called, what is in it, and who reads it. Help,
//! messages and `docs/formats.md` are made from them. A format's line stands beside its reader.

use std::path::Path;

use super::Format;
use super::marked::MARKED;

/// What is around that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// Nothing.
    #[default]
    None,
    /// gzip, several members included.
    Gzip,
    /// Zstandard, several frames included.
    Zstd,
    /// xz, several streams included.
    Xz,
    /// bzip2, several streams included.
    Bzip2,
    /// LZ4 frames.
    Lz4,
}

/// One line of the table of compressions.
#[derive(Debug)]
pub struct CompressionEntry {
    pub compression: Compression,
    pub name: &'static str,
    /// Without the dot, lower case; the usual one first.
    pub endings: &'static [&'static str],
    pub reader: &'static str,
}

/// A kind of file that is recognized and not read.
#[derive(Debug)]
pub struct Foreign {
    /// With its article, for sentences.
    pub name: &'static str,
    pub endings: &'static [&'static str],
    /// Bytes that such files have at an offset; none where only the ending tells.
    pub magic: &'static [(usize, &'static [u8])],
    /// What makes it readable.
    pub remedy: &'static str,
}

pub const COMPRESSIONS: [CompressionEntry; 5] = [
    CompressionEntry {
        compression: Compression::Gzip,
        name: "gzip",
        endings: &["gz", "gzip", "bgz"],
        reader: "flate2",
    },
    CompressionEntry {
        compression: Compression::Zstd,
        name: "Zstandard",
        endings: &["zst", "zstd"],
        reader: "zstd",
    },
    CompressionEntry {
        compression: Compression::Xz,
        name: "xz",
        endings: &["xz"],
        reader: "lzma-rust2",
    },
    CompressionEntry {
        compression: Compression::Bzip2,
        name: "bzip2",
        endings: &["bz2"],
        reader: "bzip2",
    },
    CompressionEntry {
        compression: Compression::Lz4,
        name: "LZ4",
        endings: &["lz4"],
        reader: "lz4_flex",
    },
];

pub const FOREIGN: [Foreign; 16] = [
    Foreign {
        name: "an Arrow file",
        endings: &["arrow", "feather"],
        magic: &[(0, b"ARROW1"), (0, b"\xff\xff\xff\xff"), (0, b"FEA1")],
        remedy: "make parquet of it: python -c \"import datasets as d; \
                 d.load_from_disk('FOLDER').to_parquet('text.parquet')\" for a folder of save_to_disk, \
                 pyarrow.feather.read_table and pyarrow.parquet.write_table for one file",
    },
    Foreign {
        name: "a tar archive",
        endings: &["tar", "tgz", "txz", "tbz2"],
        magic: &[(257, b"ustar")],
        remedy: "unpack it: tar -xf FILE",
    },
    Foreign {
        name: "a zip archive or an Office document",
        endings: &["zip", "xlsx", "docx", "odt", "ods", "epub"],
        magic: &[(0, b"PK\x03\x04"), (0, b"PK\x05\x06")],
        remedy: "unpack it (unzip FILE), or save its text as .txt or .csv",
    },
    Foreign {
        name: "a 7z archive",
        endings: &["7z"],
        magic: &[(0, b"7z\xbc\xaf\x27\x1c")],
        remedy: "unpack it: 7z x FILE",
    },
    Foreign {
        name: "a rar archive",
        endings: &["rar"],
        magic: &[(0, b"Rar!\x1a\x07")],
        remedy: "unpack it: unrar x FILE",
    },
    Foreign {
        name: "an lzma file of the old kind",
        endings: &["lzma"],
        magic: &[(0, b"\x5d\x00\x00")],
        remedy: "decompress it: xz --format=lzma -d FILE",
    },
    Foreign {
        name: "an lzip file",
        endings: &["lz"],
        magic: &[(0, b"LZIP")],
        remedy: "decompress it: lzip -d FILE",
    },
    Foreign {
        name: "compressed by compress",
        endings: &["z"],
        magic: &[(0, b"\x1f\x9d")],
        remedy: "decompress it: gzip -d FILE",
    },
    Foreign {
        name: "in Snappy frames",
        endings: &["snappy", "sz"],
        magic: &[(0, b"\xff\x06\x00\x00sNaPpY")],
        remedy: "decompress it (python-snappy: python -m snappy -d FILE TEXT)",
    },
    Foreign {
        name: "compressed by brotli",
        endings: &["br"],
        magic: &[],
        remedy: "decompress it: brotli -d FILE",
    },
    Foreign {
        name: "an Avro file",
        endings: &["avro"],
        magic: &[(0, b"Obj\x01")],
        remedy: "make JSON lines of it: fastavro FILE > text.jsonl",
    },
    Foreign {
        name: "an ORC file",
        endings: &["orc"],
        magic: &[(0, b"ORC")],
        remedy: "make parquet of it: pyarrow.orc.read_table and pyarrow.parquet.write_table",
    },
    Foreign {
        name: "an encrypted parquet file",
        endings: &[],
        magic: &[(0, b"PARE")],
        remedy: "write it without encryption",
    },
    Foreign {
        name: "a PDF",
        endings: &["pdf"],
        magic: &[(0, b"%PDF-")],
        remedy: "take its text out: pdftotext FILE text.txt",
    },
    Foreign {
        name: "an SQLite database",
        endings: &["sqlite", "sqlite3", "db"],
        magic: &[(0, b"SQLite format 3\0")],
        remedy: "make CSV of it: sqlite3 -header -csv FILE 'select text from ...' > text.csv",
    },
    Foreign {
        name: "Python's or NumPy's or HDF5's",
        endings: &["pkl", "pickle", "npy", "npz", "h5", "hdf5", "pt", "bin"],
        magic: &[
            (0, b"\x93NUMPY"),
            (0, b"\x89HDF\r\n\x1a\n"),
            (0, b"\x80\x04\x95"),
            (0, b"\x80\x05\x95"),
        ],
        remedy: "write its texts as .jsonl or .parquet with the program that made it",
    },
];

impl Foreign {
    /// The kind whose bytes `head`, the start of a file, has.
    pub fn of_content(head: &[u8]) -> Option<&'static Foreign> {
        let has = |&(offset, bytes): &(usize, &[u8])| {
            head.get(offset..)
                .is_some_and(|rest| rest.starts_with(bytes))
        };
        FOREIGN.iter().find(|foreign| foreign.magic.iter().any(has))
    }

    /// The kind that a file's name tells.
    pub fn of_name(path: &Path) -> Option<&'static Foreign> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let (stem, last) = name.rsplit_once('.')?;
        let of = |ending: &str| FOREIGN.iter().find(|f| f.endings.contains(&ending));
        // An archive may be compressed: .tar.gz.
        match (of(last), Compression::of_ending(last)) {
            (None, Some(_)) => of(stem.rsplit_once('.')?.1),
            (found, _) => found,
        }
    }
}

impl Format {
    /// The format whose bytes `head`, the start of a file, has.
    pub fn of_magic(head: &[u8]) -> Option<Format> {
        let has = |magic: &[u8]| head.starts_with(magic);
        let mut all = Format::ALL.iter().copied();
        all.find(|format| format.entry().magic.is_some_and(has))
    }
}

impl Compression {
    fn of_ending(ending: &str) -> Option<Compression> {
        let entry = COMPRESSIONS.iter().find(|e| e.endings.contains(&ending));
        entry.map(|entry| entry.compression)
    }

    /// What it is called; nothing for none.
    pub fn name(self) -> &'static str {
        let entry = COMPRESSIONS.iter().find(|e| e.compression == self);
        entry.map_or("", |entry| entry.name)
    }

    /// The compression that starts as `head` does.
    pub fn of_content(head: &[u8]) -> Compression {
        match head {
            [0x1f, 0x8b, 8, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            // The second magic number is that of an empty file.
            [
                b'B',
                b'Z',
                b'h',
                b'1'..=b'9',
                0x31,
                0x41,
                0x59,
                0x26,
                0x53,
                0x59,
                ..,
            ]
            | [
                b'B',
                b'Z',
                b'h',
                b'1'..=b'9',
                0x17,
                0x72,
                0x45,
                0x38,
                0x50,
                0x90,
                ..,
            ] => Compression::Bzip2,
            [0x04, 0x22, 0x4d, 0x18, ..] => Compression::Lz4,
            _ => Compression::None,
        }
    }
}

/// Format and compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct Kind {
    pub format: Format,
    pub compression: Compression,
}

impl Kind {
    /// The kind that a file's name tells; `None` for other endings.
    pub fn of(path: &Path) -> Option<Kind> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let (stem, last) = name.rsplit_once('.')?;
        let (ending, compression) = match Compression::of_ending(last) {
            Some(compression) => (stem.rsplit_once('.')?.1, compression),
            None => (last, Compression::None),
        };
        let mut formats = Format::ALL.iter().copied();
        let format = formats.find(|format| format.entry().endings.contains(&ending))?;
        Some(Kind {
            format,
            compression,
        })
    }

    /// What it is called: `JSON lines, gzip`.
    pub fn name(self) -> String {
        let format = self.format.entry().name;
        match self.compression.name() {
            "" => format.to_owned(),
            compression => format!("{format}, {compression}"),
        }
    }
}

fn dotted(endings: impl Iterator<Item = &'static &'static str>) -> String {
    let all: Vec<String> = endings.map(|ending| format!(".{ending}")).collect();
    all.join(", ")
}

/// The usual endings in a sentence, for help and messages.
pub fn endings() -> String {
    let formats = Format::ALL.iter().map(|format| format.entry());
    let formats = formats.filter_map(|entry| entry.endings.first());
    let compressions = COMPRESSIONS
        .iter()
        .filter_map(|entry| entry.endings.first());
    format!(
        "{}, each also {}",
        dotted(formats).replacen(".txt", ".txt (one text a line)", 1),
        dotted(compressions)
    )
}

/// The tables of `docs/formats.md`.
pub fn tables() -> String {
    let mut text = String::from("| format | endings | content | reader |\n|---|---|---|---|\n");
    for entry in Format::ALL.iter().map(|format| format.entry()) {
        text += &format!(
            "| {} | {} | {} | {} |\n",
            entry.name,
            dotted(entry.endings.iter()),
            entry.holds,
            entry.reader
        );
    }
    text += "\n| compression | endings | reader |\n|---|---|---|\n";
    for entry in &COMPRESSIONS {
        text += &format!(
            "| {} | {} | {} |\n",
            entry.name,
            dotted(entry.endings.iter()),
            entry.reader
        );
    }
    text += "\n| not read | endings | what makes it readable |\n|---|---|---|\n";
    for entry in &FOREIGN {
        text += &format!(
            "| {} | {} | {} |\n",
            entry.name,
            dotted(entry.endings.iter()),
            entry.remedy.replace('|', "\\|")
        );
    }
    text +=
        "\n| read with a warning | begins with | what makes text alone of it |\n|---|---|---|\n";
    for marked in &MARKED {
        text += &format!(
            "| {} | `{}` | {} |\n",
            marked.name,
            marked.begins.join("`, `"),
            marked.remedy
        );
    }
    text
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
        for (name, format) in [
            ("a.jsonlines", Format::JsonLines),
            ("a.jl.bz2", Format::JsonLines),
            ("a.pq", Format::Parquet),
            ("a.parq.xz", Format::Parquet),
            ("a.tsv.bgz", Format::Tsv),
            ("a.csv.lz4", Format::Csv),
        ] {
            assert_eq!(Kind::of(Path::new(name)).unwrap().format, format, "{name}");
        }
        for other in ["README.md", "data.gz", "txt", "a.txt.bak"] {
            assert_eq!(kind(other), None, "{other}");
        }
        let foreign = |name: &str| Foreign::of_name(Path::new(name)).map(|f| f.name);
        assert_eq!(foreign("web.tar.gz"), Some("a tar archive"));
        assert_eq!(foreign("data-00000-of-00001.arrow"), Some("an Arrow file"));
        assert_eq!(foreign("a.txt.gz"), None);
    }

    #[test]
    fn the_documentation_is_in_step() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/formats.md");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(
            text.contains(&tables()),
            "docs/formats.md has other tables than src/data/source/format.rs; they are now:\n{}",
            tables()
        );
    }
}
