//! Every format and compression: the same texts, from the start and from every position.

use std::io::Write;
use std::path::{Path, PathBuf};

use ::parquet::basic::Compression as Codec;

use super::*;
use crate::data::error::{DataError, Result};
use crate::data::hub::server::parquet_of;

/// The same `texts` in every format and compression, one folder each: its name, and three shards in it.
pub(crate) fn every_source(root: &Path, texts: &[String]) -> Vec<(String, PathBuf)> {
    let mut made = Vec::new();
    let formats = Format::ALL.iter().map(|format| format.entry().endings[0]);
    let compressions = COMPRESSIONS
        .iter()
        .map(|entry| (entry.endings[0], entry.compression));
    let compressions: Vec<_> = [("", Compression::None)]
        .into_iter()
        .chain(compressions)
        .collect();
    for format in formats {
        for &(ending, compression) in &compressions {
            // Each compression once in every way of reading: by lines, by cells, from the end.
            if compression != Compression::None && ["json", "tsv"].contains(&format) {
                continue;
            }
            let name = format!("{format}.{ending}")
                .trim_end_matches('.')
                .to_owned();
            let folder = root.join(&name);
            std::fs::create_dir(&folder).unwrap();
            let each = texts.len().div_ceil(3);
            for (index, part) in texts.chunks(each).enumerate() {
                let bytes = compress(compression, &encode(format, part));
                std::fs::write(folder.join(format!("{index}.{name}")), bytes).unwrap();
            }
            made.push((name, folder));
        }
    }
    made
}

/// Two members, frames or streams, as `cat a.gz b.gz` makes them.
fn compress(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    let (a, b) = bytes.split_at(bytes.len() / 2);
    [a, b].map(|part| one_member(compression, part)).concat()
}

fn one_member(compression: Compression, part: &[u8]) -> Vec<u8> {
    match compression {
        Compression::None => part.to_vec(),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(part, 1).unwrap(),
        Compression::Xz => {
            let options = lzma_rust2::XzOptions::with_preset(0);
            let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Bzip2 => {
            let level = bzip2::Compression::fast();
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), level);
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap()
        }
    }
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
        "csv" | "tsv" => {
            let delimiter = if format == "csv" { b',' } else { b'\t' };
            let mut writer = csv::WriterBuilder::new()
                .delimiter(delimiter)
                .from_writer(Vec::new());
            writer.write_record(["id", "text", "b"]).unwrap();
            for text in texts {
                writer.write_record(["1", text, "a, \"b\"\n\t"]).unwrap();
            }
            writer.into_inner().unwrap()
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
    let mut rows = shard.open(&Fields::default(), Position::default())?;
    std::iter::from_fn(|| rows.next().transpose()).collect()
}

fn said(name: &str, content: &[u8]) -> String {
    rows_of(name, content).unwrap_err().to_string()
}

/// WMT and GLUE have such files, of programs that know no quoting.
#[test]
fn quotes_that_close_nowhere_are_letters_in_tsv_and_a_fault_in_csv() {
    let tsv = b"id\ttext\n1\t\"Yes\" he said\n2\t\"No\n3\tthird\n";
    let read = rows_of("a.tsv", tsv).unwrap();
    assert_eq!(read, ["\"Yes\" he said", "\"No", "third"]);
    // Programs that quote are read as before.
    let quoted = b"id\ttext\n1\t\"a \"\"word\"\"\"\n2\t\"two\nlines\"\n";
    let read = rows_of("a.tsv", quoted).unwrap();
    assert_eq!(read, ["a \"word\"", "two\nlines"]);
    let text = said(
        "a.tsv",
        b"text\tn\n\"two\nlines\"\t1\n\"open\t2\nb\t3\n\"c\"\t4\n",
    );
    assert!(
        text.contains("line 4") && text.contains("closes lines further on"),
        "{text}"
    );

    for open in [
        &b"text,n\n\"open,1\nb,2\nc,3\n"[..],
        b"n,text\n1,a\n2,\"cut o",
    ] {
        let text = said("a.csv", open);
        assert!(
            text.contains("line ") && text.contains("never closes"),
            "{text}"
        );
    }
    assert_eq!(rows_of("a.csv", b"n,text\n1,\"a\"\"b\"").unwrap(), ["a\"b"]);
    assert_eq!(
        rows_of("a.csv", b"n,text\n1,5\" pipe").unwrap(),
        ["5\" pipe"]
    );
}

#[test]
fn messages_without_words_are_passed_over() {
    let rows = concat!(
        r#"{"text": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{"id": 1}]}]}"#,
        "\n",
        r#"{"text": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "b"}]}]}"#,
    );
    assert_eq!(rows_of("a.jsonl", rows.as_bytes()).unwrap(), ["a", "b"]);
}

/// `gzip -d` takes such a file too; GNU's manual speaks of tapes, whose blocks are filled up with zeros.
#[test]
fn zeros_behind_gzip_are_passed_over() {
    let mut padded = compress(Compression::Gzip, b"some text\nmore text\n");
    padded.resize(padded.len() + 200_000, 0);
    let read = rows_of("a.txt.gz", &padded).unwrap();
    assert_eq!(read, ["some text", "more text"]);
    padded.push(b'x');
    let text = format!(
        "{:#}",
        anyhow::Error::from(rows_of("a.txt.gz", &padded).unwrap_err())
    );
    assert!(text.contains("a.txt.gz"), "{text}");
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
        let mut rows = shard.open(&Fields::default(), Position::default()).unwrap();
        for after in 1..=44 {
            rows.next().unwrap().unwrap();
            let mut again = shard.open(&Fields::default(), rows.position()).unwrap();
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
    let mut rows = shard.open(&Fields::default(), Position::default()).unwrap();
    for next in &expected[1..] {
        rows.next().unwrap();
        let mut again = shard.open(&Fields::default(), rows.position()).unwrap();
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

/// As `json.dump` of a dictionary of lists and pandas' `to_json` write it.
#[test]
fn one_object_of_columns_is_rows() {
    let lists = r#"{"id": [1, 2, 3, 4], "text": ["a", null, "b\ud83d", "c"]}"#;
    let numbered =
        r#"{"id":{"0":1,"1":2,"2":3,"3":4},"text":{"0":"a","1":null,"2":"b\ud83d","3":"c"}}"#;
    let expected = ["a", "b\u{fffd}", "c"];
    for json in [lists, numbered] {
        assert_eq!(rows_of("a.json", json.as_bytes()).unwrap(), expected);
        let (_folder, shard) = write("a.json", format!("\n{json}\n").as_bytes());
        let mut rows = shard.open(&Fields::default(), Position::default()).unwrap();
        let mut places = vec![rows.position()];
        while rows.next().unwrap().is_some() {
            places.push(rows.position());
        }
        assert_eq!((rows.passed().missing, rows.passed().replaced), (1, 1));
        // It goes on at every row.
        for (done, place) in places.into_iter().enumerate() {
            let mut rest = shard.open(&Fields::default(), place).unwrap();
            let rest: Result<Vec<String>> =
                std::iter::from_fn(|| rest.next().transpose()).collect();
            assert_eq!(rest.unwrap(), expected[done..]);
        }
    }
    let text = said("a.json", br#"{"text": ["a", 5]}"#);
    assert!(
        text.contains("row 1") && text.contains("a number"),
        "{text}"
    );
    // A row that has lists stays one: a line of JSON lines, or one of several objects.
    assert_eq!(
        rows_of("a.jsonl", br#"{"text": ["a", "b"]}"#).unwrap(),
        ["a\nb"]
    );
    let two = br#"{"text": ["a", "b"]} {"text": ["c"]}"#;
    assert_eq!(rows_of("a.json", two).unwrap(), ["a\nb", "c"]);
    let talk = br#"{"text": [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]}"#;
    assert_eq!(rows_of("a.json", talk).unwrap(), ["a\nb"]);
}

#[test]
fn a_json_array_that_was_cut_off_is_noticed_after_going_on_too() {
    let (_folder, shard) = write("a.json", br#"[{"text": "a"}, {"text": "b"}, "#);
    let mut rows = shard.open(&Fields::default(), Position::default()).unwrap();
    assert_eq!(rows.next().unwrap().as_deref(), Some("a"));
    let mut again = shard.open(&Fields::default(), rows.position()).unwrap();
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
        text.contains("\"body\", \"n\"") && text.contains("--text-field"),
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
    let cut = compress(Compression::Gzip, b"some text\nmore text\n");
    let text = format!(
        "{:#}",
        anyhow::Error::from(rows_of("a.txt.gz", &cut[..cut.len() - 9]).unwrap_err())
    );
    assert!(text.contains("a.txt.gz"), "{text}");
    let text = said(
        "a.txt.zst",
        &one_member(Compression::Zstd, b"some text\n")[..14],
    );
    assert!(
        text.contains("a.txt.zst") && text.contains("Zstandard"),
        "{text}"
    );
}

#[test]
fn content_decides_where_the_name_says_otherwise() {
    let texts = ["one", "two", "three"].map(str::to_owned);
    let kind = |format, compression| Kind {
        format,
        compression,
    };
    for (name, holds, found) in [
        ("a.txt", "jsonl", Format::JsonLines),
        ("a.txt", "parquet", Format::Parquet),
        ("a.jsonl", "json", Format::Json),
        ("a.jsonl", "parquet", Format::Parquet),
        ("a.json", "jsonl", Format::Json),
        ("a.csv", "tsv", Format::Csv),
        ("a.tsv", "csv", Format::Tsv),
        ("a.csv", "jsonl", Format::JsonLines),
        ("a.parquet", "jsonl", Format::JsonLines),
        ("a.parquet", "txt", Format::Text),
        ("a.data", "jsonl", Format::JsonLines),
        ("a.data", "json", Format::Json),
        ("a", "txt", Format::Text),
        ("a", "parquet", Format::Parquet),
    ] {
        for compression in [Compression::None, Compression::Gzip, Compression::Xz] {
            for ending in ["", ".gz", ".zst"] {
                let name = format!("{name}{ending}");
                let content = compress(compression, &encode(holds, &texts));
                let (_folder, shard) = write(&name, &content);
                assert_eq!(
                    shard.kind(),
                    kind(found, compression),
                    "{name} with {holds}"
                );
                assert_eq!(
                    rows_of(&name, &content).unwrap(),
                    texts,
                    "{name} with {holds}, {compression:?}"
                );
            }
        }
    }
    let one_spread_out = b"{\n \"text\": \"a\"\n}\n{\n \"text\": \"b\"\n}\n";
    assert_eq!(rows_of("a.jsonl", one_spread_out).unwrap(), ["a", "b"]);
    // Lines of text stay lines of text, though some are JSON.
    let lines = b"{\"text\": 1}\nplain\n";
    assert_eq!(rows_of("a.txt", lines).unwrap().len(), 2);
    let text = said("a.txt", b"{\"other\": 1}\n");
    assert!(text.contains("but: \"other\""), "{text}");
    for separator in [";", "|", "\t"] {
        let rows = format!("id{separator}text\n1{separator}a, b\n");
        assert_eq!(rows_of("a.csv", rows.as_bytes()).unwrap(), ["a, b"]);
    }
}

#[test]
fn what_is_no_text_is_refused_with_what_to_do() {
    let refused = |name: &str, content: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Shard::file(&path).unwrap_err().to_string()
    };
    let mut tar = vec![0; 600];
    tar[..5].copy_from_slice(b"a.txt");
    tar[257..262].copy_from_slice(b"ustar");
    for (name, content, said) in [
        ("a.tar", tar.clone(), "tar -xf"),
        ("a.txt", tar.clone(), "tar -xf"),
        ("a.txt.gz", compress(Compression::Gzip, &tar), "gzip"),
        ("a.txt", b"PK\x03\x04\x00\x00\xff".to_vec(), "unzip"),
        ("a.jsonl", b"ARROW1\0\0".to_vec(), "to_parquet"),
        (
            "data-0.arrow",
            b"\xff\xff\xff\xff\x10\0\0\0".to_vec(),
            "to_parquet",
        ),
        ("a.csv", b"Obj\x01\x04\x00".to_vec(), "fastavro"),
        ("a.txt", b"\xff\xfea\0b\0".to_vec(), "UTF-16"),
        ("a.txt", b"text\0more".to_vec(), "byte 4 is NUL"),
        ("a.bin", b"\0\x01\x02".to_vec(), "NUL"),
        // How Hadoop's LZ4 codec begins: the lengths of a block and of its first part.
        ("a.txt.lz4", b"\0\0\x10\0\0\0\x05\x20".to_vec(), "Hadoop"),
    ] {
        let text = refused(name, &content);
        assert!(text.contains(name) && text.contains(said), "{name}: {text}");
    }
    // Words that are also magic numbers.
    for text in ["ORC armies", "PAR for the course", "%PDF-like", "BZh9 what"] {
        assert_eq!(rows_of("a.txt", text.as_bytes()).unwrap(), [text]);
    }
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:\
        4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    for name in ["a.txt", "a.parquet", "a.jsonl.zst"] {
        assert!(refused(name, pointer.as_bytes()).contains("git lfs pull"));
    }
    let late = ["text\n".repeat(20_000).as_bytes(), b"\0\n"].concat();
    let text = said("a.txt", &late);
    assert!(
        text.contains("line 20001") && text.contains("NUL"),
        "{text}"
    );
}

#[test]
fn rows_without_the_field_are_passed_over_and_counted() {
    let lines = b"{\"id\": 1}\n{\"text\": \"a\"}\n{\"text\": null}\n{\"id\": NaN, \"text\": \"b\\ud800\"}\n{\"id\": 2}\n";
    let (_folder, shard) = write("a.jsonl", lines);
    let mut rows = shard.open(&Fields::default(), Position::default()).unwrap();
    let all: Vec<String> = std::iter::from_fn(|| rows.next().unwrap()).collect();
    assert_eq!(all, ["a", "b\u{fffd}"]);
    let passed = Passed {
        missing: 3,
        replaced: 1,
        bad: 0,
    };
    assert_eq!(rows.passed(), passed);
    for name in ["a.jsonl", "a.json"] {
        let text = said(name, b"{\"body\": 1}\n{\"body\": 2}\n");
        assert!(
            text.contains("no row") && text.contains("body") && text.contains("--text-field"),
            "{text}"
        );
    }
    // After going on in the middle, rows before are known to have had it.
    let mut rows = shard.open(&Fields::default(), Position::default()).unwrap();
    rows.next().unwrap();
    rows.next().unwrap();
    let mut again = shard.open(&Fields::default(), rows.position()).unwrap();
    assert_eq!(again.next().unwrap(), None);
}

#[test]
fn bad_rows_are_passed_over_as_far_as_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let files: [(&str, &[u8]); 4] = [
        ("a.txt", b"one\n\xff\ntwo\n"),
        (
            "b.jsonl",
            b"{\"text\": \"three\"}\n{\n{\"text\": 4}\n{\"text\": \"four\"}\n",
        ),
        ("c.csv", b"text,n\nfive,1\nsix\n\xff,2\nseven,3\n"),
        ("d.json", b"[{\"text\": \"eight\"}, 9, {\"text\": \"ten\"}]"),
    ];
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let rows = [Some(&b"eleven"[..]), Some(b"\xff"), Some(b"twelve")];
    let parquet = parquet_of(&rows, 2, Codec::SNAPPY);
    std::fs::write(folder.path().join("e.parquet"), parquet).unwrap();
    let all = |max_bad_rows: u64| {
        let options = ReadOptions {
            max_bad_rows,
            ..ReadOptions::default()
        };
        let sources = Sources::local(folder.path(), options).unwrap();
        let mut texts = sources.texts_quietly();
        let read: Result<Vec<String>> = texts.by_ref().collect();
        read.map(|read| (read, texts.passed().bad))
    };
    let expected = [
        "one", "two", "three", "four", "five", "seven", "eight", "ten", "eleven", "twelve",
    ];
    let (read, bad) = all(7).unwrap();
    assert_eq!((read, bad), (expected.map(str::to_owned).to_vec(), 7));
    for (most, named) in [
        (0, "a.txt"),
        (1, "line 2"),
        (3, "c.csv"),
        (5, "line 1"),
        (6, "row 1"),
    ] {
        let text = all(most).unwrap_err().to_string();
        assert!(
            text.contains(named) && text.contains("--max-bad-rows"),
            "{text}"
        );
    }
    // What is broken beyond a row ends reading at any number.
    let cut = write("a.json", b"[{\"text\": \"a\"}, ");
    let mut rows = Tolerant::new(
        cut.1.open(&Fields::default(), Position::default()).unwrap(),
        u64::MAX,
        true,
    );
    rows.next().unwrap();
    assert!(rows.next().is_err());
}

#[test]
fn a_column_of_nulls_and_lists_of_messages_are_read_from_parquet() {
    use ::parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;
    let schema = "message m {
        optional int32 text;
        optional group messages (LIST) { repeated group list { optional group element {
            optional binary role (STRING); optional binary content (STRING); } } }
        optional group turns (LIST) { repeated group list { optional group element {
            optional group content (LIST) { repeated group list { optional group element {
                optional binary text (STRING); } } } } } }
        optional group tags (LIST) { repeated group bag { optional binary array_element (STRING); } }
        optional binary title (STRING);
    }";
    let schema = std::sync::Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, schema, std::sync::Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let text = |texts: &[&str]| -> Vec<ByteArray> { texts.iter().map(|&t| t.into()).collect() };
    let mut column = group.next_column().unwrap().unwrap();
    let none = column
        .typed::<Int32Type>()
        .write_batch(&[], Some(&[0, 0, 0]), None);
    none.unwrap();
    column.close().unwrap();
    // Two messages, none, one without content.
    for values in [text(&["user", "bot", "user"]), text(&["hi", "ho"])] {
        let mut column = group.next_column().unwrap().unwrap();
        let last = if values.len() == 3 { 4 } else { 3 };
        let written = column.typed::<ByteArrayType>().write_batch(
            &values,
            Some(&[4, 4, 0, last]),
            Some(&[0, 1, 0, 0]),
        );
        written.unwrap();
        column.close().unwrap();
    }
    // Two parts of one turn and one of the next, no turn, a part without words.
    let mut column = group.next_column().unwrap().unwrap();
    let written = column.typed::<ByteArrayType>().write_batch(
        &text(&["a", "b", "c"]),
        Some(&[7, 7, 7, 0, 6]),
        Some(&[0, 2, 1, 0, 0]),
    );
    written.unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let tags = text(&["x", "y", "z"]);
    let written = column.typed::<ByteArrayType>().write_batch(
        &tags,
        Some(&[3, 3, 3, 0]),
        Some(&[0, 0, 1, 0]),
    );
    written.unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let titles = text(&["A", "B"]);
    let written = column
        .typed::<ByteArrayType>()
        .write_batch(&titles, Some(&[1, 0, 1]), None);
    written.unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();

    let (_folder, shard) = write("a.parquet", &bytes);
    let rows = |fields: &[&str]| -> Result<Vec<String>> {
        let fields: Vec<String> = fields.iter().map(|&f| f.to_owned()).collect();
        let mut rows = shard.open(&fields.into(), Position::default())?;
        std::iter::from_fn(|| rows.next().transpose()).collect()
    };
    assert!(rows(&["text"]).unwrap().is_empty());
    assert_eq!(rows(&["messages"]).unwrap(), ["hi\nho"]);
    assert_eq!(rows(&["turns"]).unwrap(), ["a\nb\nc"]);
    assert_eq!(rows(&["turns.content"]).unwrap(), ["a\nb\nc"]);
    assert_eq!(rows(&["messages.role"]).unwrap(), ["user\nbot", "user"]);
    assert_eq!(rows(&["tags"]).unwrap(), ["x", "y\nz"]);
    assert_eq!(
        rows(&["title", "messages", "text"]).unwrap(),
        ["A\nhi\nho", "B"]
    );
    let error = rows(&["nothing"]).unwrap_err().to_string();
    assert!(error.contains("messages.content"), "{error}");
}

/// Scores and labels beside texts that stay apart; a text itself is none.
#[test]
fn numbers_in_parquet_are_read_beside_texts() {
    use ::parquet::data_type::{ByteArrayType, DoubleType, Int64Type};
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;
    let schema =
        "message m { required binary text (STRING); optional int64 label; required double score; }";
    let schema = std::sync::Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, schema, std::sync::Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let texts = ["a", "b", "c"].map(Into::into);
    let written = column
        .typed::<ByteArrayType>()
        .write_batch(&texts, None, None);
    written.unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let written = column
        .typed::<Int64Type>()
        .write_batch(&[7, -1], Some(&[1, 0, 1]), None);
    written.unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let written = column
        .typed::<DoubleType>()
        .write_batch(&[0.2, 1.0, 2.5], None, None);
    written.unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();

    let (_folder, shard) = write("a.parquet", &bytes);
    let columns = ["text", "score", "label"].map(str::to_owned).to_vec();
    let read = |row| -> Vec<String> {
        let at = Position { row, byte: 0 };
        let mut rows = shard.open(&Fields::apart(columns.clone()), at).unwrap();
        std::iter::from_fn(|| rows.next().unwrap()).collect()
    };
    let expected = [r#"["a","0.2","7"]"#, r#"["c","2.5","-1"]"#];
    assert_eq!(read(0), expected);
    assert_eq!(read(1), expected[1..]);
    let whole = shard.open(&"label".into(), Position::default());
    assert!(whole.err().unwrap().to_string().contains("not a text"));
}

#[test]
fn every_codec_of_parquet_is_read() {
    let texts: Vec<String> = (0..300)
        .map(|i| {
            format!("text {i} {}", "word ".repeat(i % 40))
                .trim()
                .to_owned()
        })
        .collect();
    let rows: Vec<Option<&[u8]>> = texts.iter().map(|t| Some(t.as_bytes())).collect();
    for codec in [
        Codec::UNCOMPRESSED,
        Codec::SNAPPY,
        Codec::GZIP(Default::default()),
        Codec::BROTLI(Default::default()),
        Codec::ZSTD(Default::default()),
        // In Hadoop's frames, read here.
        Codec::LZ4,
        Codec::LZ4_RAW,
    ] {
        let (_folder, shard) = write("a.parquet", &parquet_of(&rows, 70, codec));
        let mut rows = shard.open(&Fields::default(), Position::default()).unwrap();
        for text in &texts {
            let found = rows.next().unwrap();
            assert_eq!(found.as_deref(), Some(text.as_str()), "{codec:?}");
        }
        let at = Position { row: 100, byte: 0 };
        let mut again = shard.open(&Fields::default(), at).unwrap();
        assert_eq!(
            again.next().unwrap().as_deref(),
            Some(texts[100].as_str()),
            "{codec:?}"
        );
    }
}

#[test]
fn zstandard_with_the_largest_window_is_read() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.window_log(31).unwrap();
    encoder.write_all(b"some text\n").unwrap();
    let bytes = encoder.finish().unwrap();
    assert_eq!(rows_of("a.txt.zst", &bytes).unwrap(), ["some text"]);
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
        let opened = shard.open(&field.into(), Position::default());
        opened.map(drop).unwrap_err().to_string()
    };
    let text = open("body");
    assert!(text.contains("\"id\", \"text\", \"filler\""), "{text}");
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
    let mut rows = shard.open(&Fields::default(), Position::default()).unwrap();
    rows.next().unwrap();
    let position = rows.position();
    std::fs::write(folder.path().join("a.txt"), "f\n").unwrap();
    let error = shard.open(&Fields::default(), position).err().unwrap();
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
