//! Every format and compression: the same texts, from the start and from every position.

use std::io::Write;
use std::path::PathBuf;

use ::parquet::basic::Compression as Codec;

use super::*;
use crate::data::hub::server::parquet_of;

/// The same `texts` in every format and compression, one folder each: its name, and three shards in it.
pub(crate) fn every_source(root: &Path, texts: &[String]) -> Vec<(String, PathBuf)> {
    let mut made = Vec::new();
    for format in ["txt", "jsonl", "json", "parquet"] {
        for ending in ["", ".gz", ".zst"] {
            let folder = root.join(format!("{format}{ending}"));
            std::fs::create_dir(&folder).unwrap();
            let each = texts.len().div_ceil(3);
            for (index, part) in texts.chunks(each).enumerate() {
                let plain = encode(format, part);
                let bytes = match ending {
                    ".gz" => gzip(&plain),
                    ".zst" => zstd::encode_all(&plain[..], 1).unwrap(),
                    _ => plain,
                };
                std::fs::write(folder.join(format!("{index}.{format}{ending}")), bytes).unwrap();
            }
            made.push((format!("{format}{ending}"), folder));
        }
    }
    made
}

/// Two members, as `cat a.gz b.gz` makes them.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let (a, b) = bytes.split_at(bytes.len() / 2);
    let member = |part: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    [member(a), member(b)].concat()
}

fn encode(format: &str, texts: &[String]) -> Vec<u8> {
    let object = |text: &String| serde_json::json!({"id": {"a": [1]}, "text": text}).to_string();
    match format {
        "txt" => (texts.join("\n\n") + "\n").into_bytes(),
        "jsonl" => texts
            .iter()
            .map(|t| object(t) + "\n")
            .collect::<String>()
            .into_bytes(),
        "json" => {
            let objects: Vec<String> = texts.iter().map(object).collect();
            format!("[\n {}\n]\n", objects.join(",\n ")).into_bytes()
        }
        "parquet" => {
            let rows: Vec<Option<&[u8]>> = texts.iter().map(|t| Some(t.as_bytes())).collect();
            parquet_of(&rows, 20, Codec::SNAPPY)
        }
        other => panic!("no format {other}"),
    }
}

fn write(name: &str, content: &[u8]) -> (tempfile::TempDir, Shard) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    let shard = Shard::file(&path).unwrap();
    (folder, shard)
}

fn rows_of(name: &str, content: &[u8]) -> Result<Vec<String>> {
    let (_folder, shard) = write(name, content);
    let mut rows = shard.open("text", Position::default())?;
    std::iter::from_fn(|| rows.next().transpose()).collect()
}

fn said(name: &str, content: &[u8]) -> String {
    rows_of(name, content).unwrap_err().to_string()
}

#[test]
fn every_source_gives_the_same_texts_and_goes_on_at_every_position() {
    let texts: Vec<String> = (0..130)
        .map(|i| format!("text {i} \"ä€\\ {}", "word ".repeat(i % 7)))
        .collect();
    let texts: Vec<String> = texts.iter().map(|t| t.trim().to_owned()).collect();
    let root = tempfile::tempdir().unwrap();
    for (name, folder) in every_source(root.path(), &texts) {
        let sources = Sources::local(&folder, "text").unwrap();
        let all: Vec<String> = sources.texts().map(|t| t.unwrap()).collect();
        assert_eq!(all, texts, "{name}");
        let shard = &sources.shards()[0];
        let mut rows = shard.open("text", Position::default()).unwrap();
        for after in 1..=44 {
            rows.next().unwrap().unwrap();
            let mut again = shard.open("text", rows.position()).unwrap();
            assert_eq!(again.position(), rows.position(), "{name}");
            let next = again.next().unwrap();
            assert_eq!(
                next.as_ref(),
                texts[..44].get(after),
                "{name} after {after}"
            );
        }
    }
}

#[test]
fn lines_split_and_drop_as_python_does() {
    // What `[l for l in open(p, encoding="utf-8").read().splitlines() if l and not l.isspace()]` gives.
    let text = "one\n\n  \t\ntwo\r\nthree\rfour\x0bfive\x0csix\x1cseven\u{85}eight\u{2028}nine\n\x1f\n last ";
    let expected = [
        "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", " last ",
    ];
    assert_eq!(rows_of("a.txt", text.as_bytes()).unwrap(), expected);
    let (_folder, shard) = write("a.txt", text.as_bytes());
    let mut rows = shard.open("text", Position::default()).unwrap();
    for next in &expected[1..] {
        rows.next().unwrap();
        let mut again = shard.open("text", rows.position()).unwrap();
        assert_eq!(again.next().unwrap().as_deref(), Some(*next));
    }
    assert!(rows_of("a.txt", b"").unwrap().is_empty());
}

#[test]
fn json_may_be_an_array_or_objects_one_after_the_other() {
    let objects = r#"{"text": "a, [b] {\"c\"}"}, {"x": 1, "text": "d"} "#;
    for whole in [
        format!("[{objects}]"),
        format!("\u{feff} [ {objects} ]\n"),
        objects.to_owned(),
        objects.replace(", {\"x", "\n{\"x"),
        r#"["a, [b] {\"c\"}", "d"]"#.to_owned(),
    ] {
        assert_eq!(
            rows_of("a.json", whole.as_bytes()).unwrap(),
            ["a, [b] {\"c\"}", "d"],
            "{whole}"
        );
    }
    assert!(rows_of("a.json", b"[]").unwrap().is_empty());
    let null = br#"[{"text": null}, {"text": "  "}, {"text": "x"}]"#;
    assert_eq!(rows_of("a.json", null).unwrap(), ["x"]);
}

#[test]
fn a_json_array_that_was_cut_off_is_noticed_after_going_on_too() {
    let (_folder, shard) = write("a.json", br#"[{"text": "a"}, {"text": "b"}, "#);
    let mut rows = shard.open("text", Position::default()).unwrap();
    assert_eq!(rows.next().unwrap().as_deref(), Some("a"));
    let mut again = shard.open("text", rows.position()).unwrap();
    assert_eq!(again.next().unwrap().as_deref(), Some("b"));
    let text = again.next().unwrap_err().to_string();
    assert!(text.contains("without the ]"), "{text}");
}

#[test]
fn damage_is_named_with_its_place() {
    let text = said("a.txt", b"good\nalso good\nba\xffd\n");
    assert!(text.contains("a.txt") && text.contains("line 3") && text.contains("17"));
    let text = said("a.jsonl", b"{\"text\": \"a\"}\n\n{\"text\": \"\xff\"}\n");
    assert!(text.contains("line 3") && text.contains("UTF-8"), "{text}");
    let text = said("a.jsonl", b"{\"text\": \"a\"}\n{\"text\": \n");
    assert!(text.contains("line 2") && text.contains("no"), "{text}");
    let text = said("a.jsonl", b"{\"body\": \"a\", \"n\": 1}\n");
    assert!(
        text.contains("body, n") && text.contains("--text-field"),
        "{text}"
    );
    let text = said("a.jsonl", b"{\"text\": [1]}\n");
    assert!(text.contains("a list"), "{text}");
    let text = said("a.json", b"[{\"text\": \"a\"},\n{\"text\": \"b\"");
    assert!(text.contains("line 2") && text.contains("ends"), "{text}");
    let text = said("a.json", b"\n[{\"text\": \"a\"},\n{\"text\": \"b\"},\n");
    assert!(
        text.contains("line 4") && text.contains("without the ]"),
        "{text}"
    );
    let text = said("a.json", b"[{\"text\": \"a\"}]\n[{\"text\": \"b\"}]\n");
    assert!(
        text.contains("line 2") && text.contains("one array"),
        "{text}"
    );
    let text = said("a.json", b"{\"text\": \"a\"}\n] {\"text\": \"b\"}\n");
    assert!(text.contains("line 2") && text.contains("JSON"), "{text}");
    let cut = gzip(b"some text\nmore text\n");
    let text = format!(
        "{:#}",
        anyhow::Error::from(rows_of("a.txt.gz", &cut[..cut.len() - 9]).unwrap_err())
    );
    assert!(text.contains("a.txt.gz"), "{text}");
    let text = said("a.txt.zst", b"not compressed at all");
    assert!(text.contains("a.txt.zst"), "{text}");
}

#[test]
fn parquet_says_what_is_wrong_with_it() {
    let rows: Vec<Option<&[u8]>> = (0..50).map(|_| Some(&b"some text"[..])).collect();
    let good = parquet_of(&rows, 20, Codec::SNAPPY);
    assert_eq!(rows_of("a.parquet", &good).unwrap().len(), 50);
    let nulls = [None, Some(&b"x"[..]), None, Some(b" "), Some(b"y")];
    assert_eq!(
        rows_of("a.parquet", &parquet_of(&nulls, 2, Codec::UNCOMPRESSED)).unwrap(),
        ["x", "y"]
    );
    assert!(
        rows_of("a.parquet", &parquet_of(&[], 2, Codec::SNAPPY))
            .unwrap()
            .is_empty()
    );

    let (_folder, shard) = write("a.parquet", &good);
    let open = |field: &str| {
        let opened = shard.open(field, Position::default());
        opened.map(drop).unwrap_err().to_string()
    };
    let text = open("body");
    assert!(text.contains("id, text, filler"), "{text}");
    let text = open("id");
    assert!(
        text.contains("INT64") && text.contains("--text-field"),
        "{text}"
    );

    let text = said(
        "a.parquet",
        &parquet_of(&[Some(b"good"), Some(b"\xff")], 9, Codec::SNAPPY),
    );
    assert!(text.contains("row 1 is not UTF-8"), "{text}");
    let text = said("a.parquet", &good[..good.len() / 2]);
    assert!(
        text.contains("a.parquet") && text.contains("damaged"),
        "{text}"
    );
    // Bytes of the first text page: an error that names the file, or other text, never a panic.
    let mut named = 0;
    for place in (4..good.len()).step_by(13) {
        let mut bad = good.clone();
        bad[place] ^= 0x5a;
        if let Err(error) = rows_of("a.parquet", &bad) {
            named += 1;
            assert!(error.to_string().contains("a.parquet"), "{error}");
        }
    }
    assert!(named > 10, "{named}");
}

#[test]
fn a_shard_that_shrinks_is_an_error() {
    let (folder, shard) = write("a.txt", b"first\nsecond\n");
    let mut rows = shard.open("text", Position::default()).unwrap();
    rows.next().unwrap();
    let position = rows.position();
    std::fs::write(folder.path().join("a.txt"), "f\n").unwrap();
    let error = shard.open("text", position).err().unwrap();
    assert!(matches!(error, DataError::FileChanged { .. }), "{error}");
}

#[test]
fn other_text_has_another_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let of = |field: &str| Sources::local(folder.path(), field).unwrap().fingerprint();
    std::fs::write(folder.path().join("a.txt"), "one").unwrap();
    let first = of("text");
    assert_eq!(first, of("text"));
    assert_ne!(first, of("body"));
    std::fs::write(folder.path().join("a.txt"), "longer").unwrap();
    assert_ne!(first, of("text"));
    std::fs::write(folder.path().join("a.txt"), "two").unwrap();
    std::fs::write(folder.path().join("b.txt"), "one").unwrap();
    assert_ne!(first, of("text"));
}
