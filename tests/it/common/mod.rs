//! What the end-to-end tests share: the binaries, the example text, folders compared byte for byte.

pub mod hub;
#[cfg(target_os = "linux")]
pub mod shim;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// One of the three binaries, run in `folder`.
pub fn binary(name: &str, folder: &Path) -> Command {
    let mut command = Command::cargo_bin(name).expect("the binary is built with its tests");
    command.current_dir(folder);
    // Nothing is asked of the real Hub.
    command.env("HF_HUB_OFFLINE", "1").env_remove("HF_ENDPOINT");
    command
}

/// `pretrain-mpnet` on the example text: the tiny model, one micro-batch of 8 rows an update,
/// checkpoints in `out` below `folder`. Two folders give the same command line.
pub fn pretrain(folder: &Path, further: &[&str]) -> Command {
    pretrain_on(folder, &repository("examples/corpus/train"), further)
}

/// The same on the text at `train`.
pub fn pretrain_on(folder: &Path, train: &Path, further: &[&str]) -> Command {
    small_text(folder, "valid.txt");
    small_text(folder, "test.txt");
    let mut command = binary("pretrain-mpnet", folder);
    command
        .args([
            "--preset",
            "tiny",
            "--checkpoint-dir",
            "out",
            "--threads",
            "2",
        ])
        .args(["--batch-size", "8", "--update-freq", "1", "--lr", "1e-3"])
        .arg("--tokenizer-name")
        .arg(repository("examples/tokenizer"))
        .arg("--train-dir")
        .arg(train)
        .args(["--valid-file", "valid.txt", "--test-file", "test.txt"])
        .args(further);
    command
}

/// The first lines of an example text, so that evaluations stay short.
pub fn small_text(folder: &Path, name: &str) -> PathBuf {
    let text = std::fs::read_to_string(repository("examples/corpus").join(name)).unwrap();
    let few: Vec<&str> = text.lines().take(24).collect();
    let path = folder.join(name);
    std::fs::write(&path, few.join("\n") + "\n").unwrap();
    path
}

/// What a command printed to standard output.
pub fn stdout(command: &mut Command) -> String {
    let output = command.assert().success().get_output().stdout.clone();
    String::from_utf8(output).unwrap()
}

/// What a command that fails with `code` says on standard error.
pub fn failure(command: &mut Command, code: i32) -> String {
    let output = command.assert().code(code).get_output().stderr.clone();
    let said = String::from_utf8(output).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Everything below `folder`, hidden or not, by its path from there: a file's bytes, nothing for a
/// folder.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, None);
                folders.push(path);
            } else {
                found.insert(name, Some(std::fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// Every file below `folder` with its bytes, by its path from there.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = contents(folder).into_iter();
    all.filter_map(|(name, bytes)| Some((name, bytes?)))
        .collect()
}

/// What a command that fails with `code` says on standard error; it must leave `folder` as it was.
pub fn failure_without_a_trace(folder: &Path, command: &mut Command, code: i32) -> String {
    let before = contents(folder);
    let said = failure(command, code);
    let after = contents(folder);
    let names: Vec<_> = after.keys().filter(|p| !before.contains_key(*p)).collect();
    assert!(names.is_empty(), "left behind: {names:?}");
    assert!(before == after, "files have changed");
    said
}

/// That two folders hold the same files with the same bytes, but for what has times in it.
pub fn assert_same_files(a: &Path, b: &Path) {
    let timeless = |folder| {
        let mut found = files(folder);
        found.remove(Path::new("metrics.jsonl"));
        found
    };
    let (a, b) = (timeless(a), timeless(b));
    let names = |f: &BTreeMap<PathBuf, Vec<u8>>| f.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    for (name, bytes) in &a {
        assert!(*bytes == b[name], "{} differs", name.display());
    }
}

/// The validation losses that a run printed, in order.
pub fn validation_losses(printed: &str) -> Vec<f64> {
    printed
        .lines()
        .filter(|line| line.starts_with("validation after update"))
        .map(|line| {
            let after = line.split_once("| loss ").unwrap().1;
            after.split(' ').next().unwrap().parse().unwrap()
        })
        .collect()
}
