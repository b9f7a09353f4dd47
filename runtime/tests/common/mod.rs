//! Fetches what the tests need by package name, as a user would, and keeps it between runs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder for this key below Cargo's folder for tests, filled once by `python3 -m pip` with these arguments.
pub fn pip(key: &str, arguments: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = root.join(key);
    let lock = File::create(root.join(format!("{key}.lock"))).unwrap();
    lock.lock().unwrap();
    if folder.exists() {
        return folder;
    }
    let fresh = tempfile::tempdir_in(root).unwrap();
    let arguments = arguments.iter().map(|argument| match *argument {
        "{}" => fresh.path().as_os_str().to_owned(),
        other => other.into(),
    });
    let output = Command::new("python3")
        .args(["-m", "pip"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::rename(fresh.keep(), &folder).unwrap();
    folder
}

/// The folder with the wheel of a release of `onnxruntime` for x86-64 Linux.
pub fn onnxruntime_wheel(version: &str) -> PathBuf {
    pip(
        &format!("onnxruntime-{version}"),
        &[
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--python-version=3.11",
            "--implementation=cp",
            "--platform=manylinux_2_28_x86_64",
            "--platform=manylinux_2_27_x86_64",
            "--platform=manylinux_2_17_x86_64",
            "--platform=manylinux2014_x86_64",
            "--dest",
            "{}",
            &format!("onnxruntime=={version}"),
        ],
    )
}
