//! PyTorch files made to do harm: each is refused quickly, with a message, and in little memory.
#![cfg(unix)]

use std::io::Write;
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::common::{failure_without_a_trace, repository};

/// A zip archive as torch.save writes it, with these entries below `archive/`.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    archive(&[(
        "data.pkl",
        &[b"\x80\x02", &parts.concat()[..], b"."].concat(),
    )])
}

fn text(text: &str) -> Vec<u8> {
    [
        b"X",
        &(text.len() as u32).to_le_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

fn int(n: i32) -> Vec<u8> {
    [b"J", &n.to_le_bytes()[..]].concat()
}

/// A tensor of four f32 at storage '0', declared with `len` elements, of this shape and stride.
fn tensor(len: i32, offset: i32, shape: i32, stride: i32) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage")[..],
        b"ctorch\nFloatStorage\n",
        &text("0"),
        &text("cpu"),
        &int(len),
        b"tQ",
        &int(offset),
        &int(shape),
        b"\x85",
        &int(stride),
        b"\x85\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

fn with_tensor(tensor: &[u8]) -> Vec<u8> {
    let pickle = [
        b"\x80\x02}(",
        &text("model_states")[..],
        b"}",
        &text("x"),
        tensor,
        b"su.",
    ]
    .concat();
    archive(&[("data.pkl", &pickle), ("data/0", &[0; 16])])
}

/// An archive with one entry of any name, as no well-behaved program writes it.
fn traversing() -> Vec<u8> {
    let bytes = archive(&[
        ("data.pkl", b"\x80\x02}."),
        ("xx/../../../../tmp/owned", b"x"),
    ]);
    assert!(bytes.windows(5).any(|w| w == b"/../."));
    bytes
}

/// PyTorch's format of before 2017: a tar archive, which its safe loader once unpickled with the
/// unsafe one (CVE-2025-32434).
fn tar() -> Vec<u8> {
    let mut bytes = Vec::new();
    let payload = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.";
    for name in ["sys_info", "pickle", "tensors", "storages"] {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", payload.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(header);
        let mut block = [0u8; 512];
        block[..payload.len()].copy_from_slice(payload);
        bytes.extend(block);
    }
    bytes.extend([0; 1024]);
    bytes
}

const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

fn legacy(rest: &[u8]) -> Vec<u8> {
    [LEGACY, b"\x80\x02M\xe9\x03.", b"\x80\x02}.", rest].concat()
}

/// Each file with a word of the message that refuses it.
fn corpus() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let system = b"cposix\nsystem\nX\x08\x00\x00\x00touch ow\x85R";
    let real = std::fs::read(repository("tests/data/pytorch/annotated-postln-gelu.pt")).unwrap();
    let nested =
        |open: &[u8], close: &[u8], n: usize| pickle(&[&open.repeat(n), b"N", &close.repeat(n)]);
    // Each level holds the one below ten times: 10^40 leaves, were they ever counted.
    let mut bomb = b"]q\x00N\x61".to_vec();
    for level in 1..40u8 {
        bomb.extend([b']', b'q', level]);
        bomb.push(b'(');
        bomb.extend([b'h', level - 1].repeat(10));
        bomb.push(b'e');
    }
    // A tuple of a million values, called with a million times.
    let mut copies = b"(".to_vec();
    copies.extend(b"N".repeat(1_000_000));
    copies.extend(b"tq\x000ccollections\nOrderedDict\nq\x010");
    copies.extend(b"h\x01h\x00R0".repeat(2_100_000));
    let mut long_key = text(&"k".repeat(1 << 20));
    long_key.extend(b"q\x00ctorch\nFloatStorage\nq\x01");
    long_key.extend(text("storage"));
    long_key.extend(b"q\x02");
    long_key.extend(b"(h\x02h\x01h\x00h\x00K\x04tQ0".repeat(1000));
    vec![
        (
            "a __reduce__ to os.system",
            pickle(&[system]),
            "\"posix\".\"system\"",
        ),
        (
            "the same by the stack",
            pickle(&[b"\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R"]),
            "\"system\"",
        ),
        (
            "the same in an old object",
            pickle(&[b"(X\x04\x00\x00\x00trueios\nsystem\n"]),
            "Inst",
        ),
        (
            "the same by eval",
            pickle(&[b"cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R"]),
            "\"eval\"",
        ),
        (
            "getattr to reach another",
            pickle(&[b"cbuiltins\ngetattr\n"]),
            "\"getattr\"",
        ),
        (
            "a name with dots",
            pickle(&[b"ctorch\nserialization.os.system\n"]),
            "serialization.os.system",
        ),
        ("a registered extension", pickle(&[b"\x82\x01"]), "Ext1"),
        (
            "the legacy format with os.system",
            legacy(&[b"\x80\x02", &system[..], b"."].concat()),
            "system",
        ),
        ("CVE-2025-32434: a tar archive", tar(), "tar archive"),
        // CVE-2026-24747: items set in a tensor, and a storage smaller than it is declared.
        (
            "CVE-2026-24747: items of a tensor",
            with_tensor(&[&tensor(4, 0, 4, 1)[..], b"K\x00K\x01s"].concat()),
            "no dictionary",
        ),
        (
            "CVE-2026-24747: many items",
            with_tensor(&[&tensor(4, 0, 4, 1)[..], b"(K\x00K\x01u"].concat()),
            "no dictionary",
        ),
        (
            "CVE-2026-24747: a short storage",
            with_tensor(&tensor(1 << 30, 0, 1 << 30, 1)),
            "16 bytes",
        ),
        (
            "a storage that is longer",
            with_tensor(&tensor(3, 0, 3, 1)),
            "16 bytes",
        ),
        (
            "a tensor beyond its storage",
            with_tensor(&tensor(4, 1, 4, 1)),
            "outside its storage",
        ),
        (
            "a stride beyond its storage",
            with_tensor(&tensor(4, 0, 2, 4)),
            "outside its storage",
        ),
        (
            "a tensor larger than its storage",
            with_tensor(&tensor(4, 0, i32::MAX, 0)),
            "outside its storage",
        ),
        (
            "a negative size",
            with_tensor(&tensor(4, 0, -1, 1)),
            "no storage or shape",
        ),
        (
            "a missing storage",
            archive(&[(
                "data.pkl",
                &[b"\x80\x02", &tensor(4, 0, 4, 1)[..], b"."].concat(),
            )]),
            "not there",
        ),
        (
            "the state of a tensor",
            with_tensor(&[&tensor(4, 0, 4, 1)[..], b"}b"].concat()),
            "has none",
        ),
        ("a memo bomb", pickle(&[&bomb]), "neither 'model_states'"),
        ("copies of a long tuple", pickle(&[&copies]), "values"),
        ("copies of a long key", pickle(&[&long_key]), "no storage"),
        (
            "a million lists in each other",
            nested(b"]", b"a", 1_000_000),
            "neither 'model_states'",
        ),
        (
            "a million tuples in each other",
            nested(b"", b"\x85", 1_000_000),
            "neither 'model_states'",
        ),
        (
            "a million brackets",
            pickle(&[&b"(".repeat(1_000_000)]),
            "empty stack",
        ),
        (
            "a dictionary in itself",
            pickle(&[b"}q\x00X\x0c\x00\x00\x00model_statesh\x00s"]),
            "args",
        ),
        (
            "more values than any model has",
            pickle(&[&b"N".repeat(3_000_000)]),
            "more than",
        ),
        (
            "a text of four gigabytes",
            pickle(&[b"X\xff\xff\xff\xff"]),
            "MiB",
        ),
        (
            "a text of 2^63 bytes",
            pickle(&[b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"]),
            "MiB",
        ),
        (
            "a text that breaks off",
            pickle(&[b"X\xff\xff\xff\x00abc"]),
            "breaks off",
        ),
        ("an unknown opcode", pickle(&[b"\xff"]), "unknown opcode"),
        ("an empty stack", pickle(&[b"0"]), "empty stack"),
        (
            "a value that was not kept",
            pickle(&[b"h\x07"]),
            "did not keep",
        ),
        (
            "an archive without a pickle",
            archive(&[("data/0", b"x")]),
            "no data.pkl",
        ),
        (
            "an archive that leads out of itself",
            traversing(),
            "leads out",
        ),
        (
            "a truncated archive",
            real[..real.len() / 2].to_vec(),
            "zip archive is broken",
        ),
        (
            "a truncated legacy file",
            LEGACY[..10].to_vec(),
            "neither a zip",
        ),
        (
            "a legacy file that ends early",
            legacy(b"\x80\x02}"),
            "breaks off",
        ),
        ("an empty file", Vec::new(), "neither a zip"),
        (
            "a text file",
            b"import os; os.system('true')".to_vec(),
            "neither a zip",
        ),
    ]
}

/// `mpnet import` with an address space of 1 GiB.
fn import(folder: &Path) -> assert_cmd::Command {
    let binary = assert_cmd::cargo::cargo_bin("mpnet");
    let mut command = assert_cmd::Command::new("sh");
    command.current_dir(folder);
    command.arg("-c");
    command.arg("ulimit -v 1048576 && exec \"$0\" import file.pt --output run");
    command.arg(binary);
    command.timeout(std::time::Duration::from_secs(60));
    command
}

#[test]
fn all_are_refused_with_a_message() {
    let folder = tempfile::tempdir().unwrap();
    for (what, bytes, word) in corpus() {
        std::fs::write(folder.path().join("file.pt"), bytes).unwrap();
        let said = failure_without_a_trace(folder.path(), &mut import(folder.path()), 1);
        assert!(said.contains("file.pt"), "{what}: {said}");
        assert!(said.contains(word), "{what}: no '{word}': {said}");
        assert!(said.len() < 1000, "{what}: {said}");
    }
}

/// Any byte of a real file's pickle may be another, and a file may end anywhere.
#[test]
fn no_damage_to_a_real_file_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.pt");
    for file in ["annotated-postln-gelu.pt", "fairseq.pt"] {
        let real = std::fs::read(repository("tests/data/pytorch").join(file)).unwrap();
        let open = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let options = mpnet::convert::source::SourceOptions::default();
            mpnet::convert::Source::open(&path, &options).map(|_| ())
        };
        open(&real).unwrap();
        for step in 0..200 {
            let at = step * real.len() / 200;
            let said = open(&real[..at]).unwrap_err().to_string();
            assert!(said.contains("file.pt"), "{file} cut off at {at}: {said}");
            let mut changed = real.clone();
            let at = step * 31 % 6000;
            changed[at] ^= 1 << (step % 8);
            // Another number may be as good as the first; it must only not panic.
            let _ = open(&changed);
        }
    }
}
