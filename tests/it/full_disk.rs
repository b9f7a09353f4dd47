//! Writes that fail at every point: limits, full disks, folders that cannot be written to. The last
//! checkpoint that was written stays loadable.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::{self, failure, files, pretrain, stdout};

/// That every line of a file is JSON: what was cut off by a full disk was taken back.
fn only_whole_lines(path: &Path) {
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

/// By a limit on the size of files: 1 block is 512 or 1024 bytes.
#[test]
fn writes_that_fail_leave_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ["--total-updates", "2", "--save_steps", "2"];
    stdout(&mut pretrain(folder.path(), &settings));
    let out = folder.path().join("out");
    let before = files(&out.join("checkpoint-2"));
    for blocks in [0, 1, 8, 64, 1024, 4096, 5000, 8192, 10_000] {
        let mut command = pretrain(folder.path(), &settings);
        command.args([
            "--total-updates",
            "3",
            "--resume",
            "--override",
            "--save-retry",
            "0",
        ]);
        let limited = Command::new("bash")
            .arg("-c")
            // Without its signal, a write beyond the limit is an error.
            .arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""))
            .arg("bash")
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&limited.stderr);
        assert!(!said.contains("panicked"), "{blocks}: {said}");
        let code = limited.status.code();
        assert!(matches!(code, Some(0 | 1)), "{blocks}: {code:?} {said}");
        let latest = fs::read_to_string(out.join("latest")).unwrap();
        let latest = out.join(latest.trim());
        mpnet::checkpoint::load(&latest).unwrap_or_else(|e| panic!("{blocks}: {e}"));
        if code == Some(1) {
            assert!(!out.join("checkpoint-3").exists(), "{blocks}: {said}");
        }
        assert!(files(&out.join("checkpoint-2")) == before, "{blocks}");
        only_whole_lines(&out.join("metrics.jsonl"));
        let _ = fs::remove_dir_all(out.join("checkpoint-3"));
        fs::write(out.join("latest"), "checkpoint-2\n").unwrap();
        fs::write(out.join("best"), "checkpoint-2\n").unwrap();
    }
}

/// The limit, too low for the optimizer, is lifted while the run waits: it loses nothing.
#[test]
fn a_checkpoint_is_tried_again_until_there_is_room() {
    for engine in ["training-api", "session"] {
        tried_again(engine);
    }
}

fn tried_again(engine: &str) {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        "--total-updates",
        "4",
        "--save_steps",
        "2",
        "--engine",
        engine,
    ];
    stdout(&mut pretrain(folder.path(), &settings));
    let out = folder.path().join("out");
    let expected = files(&out.join("checkpoint-4"));
    fs::remove_dir_all(&out).unwrap();
    let command = pretrain(folder.path(), &settings);
    let mut child = Command::new("bash")
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -S -f 6144; exec \"$@\"")
        .arg("bash")
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = false;
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("is tried again") && !std::mem::replace(&mut told, true) {
            assert!(line.contains("update 2"), "{line}");
            assert!(!out.join("latest").exists());
            let id = child.id().to_string();
            let mut lift = Command::new("prlimit");
            let lifted = lift.args(["--fsize=unlimited", "--pid", &id]).status();
            assert!(lifted.unwrap().success());
        }
    }
    assert!(told && child.wait().unwrap().success());
    assert!(files(&out.join("checkpoint-4")) == expected);
    assert_eq!(load_latest(&out), 4);
}

/// Standard output and error go to a disk without room or to a pipe whose reader has ended, as those of a
/// run in the background may.
#[test]
fn nobody_has_to_listen() {
    let [heard, unheard, unread] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let settings = ["--total-updates", "3", "--logging-steps", "1"];
    let settings = [&settings[..], &["--wandb-watch"]].concat();
    stdout(&mut pretrain(heard.path(), &settings));
    let full = || {
        let file = File::options().write(true).open("/dev/full");
        Stdio::from(file.unwrap())
    };
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    let outputs: [(_, &dyn Fn() -> Stdio); 2] = [(&unheard, &full), (&unread, &closed)];
    for (folder, output) in outputs {
        let command = pretrain(folder.path(), &settings);
        let status = Command::new(command.get_program())
            .args(command.get_args())
            .current_dir(folder.path())
            .stdout(output())
            .stderr(output())
            .status();
        assert_eq!(status.unwrap().code(), Some(0));
        common::assert_same_files(&heard.path().join("out"), &folder.path().join("out"));
    }
}

/// A file system at a path, until dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path, arguments: &[&str]) -> Mount {
        fs::create_dir_all(path).unwrap();
        let status = Command::new("mount").args(arguments).arg(path).status();
        assert!(status.unwrap().success(), "mount {arguments:?}");
        Mount(path.to_owned())
    }

    /// A small one in memory.
    fn small(path: &Path) -> Mount {
        Mount::new(path, &["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
    }

    /// Fills it with a file but for `free` bytes.
    fn fill(&self, free: u64) -> PathBuf {
        let ballast = self.0.join("ballast");
        let _ = fs::remove_file(&ballast);
        let mut df = Command::new("df");
        let df = df.args(["--output=avail", "-B1"]).arg(&self.0).output();
        let df = df.unwrap();
        let available = String::from_utf8(df.stdout).unwrap();
        let available: u64 = available.lines().last().unwrap().trim().parse().unwrap();
        let size = available.saturating_sub(free);
        let mut fallocate = Command::new("fallocate");
        let fallocate = fallocate.args(["-l", &size.max(1).to_string()]);
        assert!(fallocate.arg(&ballast).status().unwrap().success());
        ballast
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// The output of a command that may fail but not crash.
fn run(command: &mut assert_cmd::Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    output
}

/// What `latest` names, loaded.
fn load_latest(out: &Path) -> u64 {
    let latest = fs::read_to_string(out.join("latest")).unwrap();
    mpnet::checkpoint::load(&out.join(latest.trim()))
        .unwrap()
        .step
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .args(["-a", "-T"])
        .arg(from)
        .arg(to)
        .status();
    assert!(status.unwrap().success());
}

/// Room for a part of one checkpoint, of the next, and so on: 11.8 MB each, from 4 KB to 40 MB.
#[test]
#[ignore = "needs root: mounts a small file system"]
fn a_small_disk_keeps_the_last_checkpoint_and_a_retry_finds_room() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        "--save_steps",
        "2",
        "--keep-checkpoints",
        "1",
        "--logging-steps",
        "1",
    ];
    let logs = ["--tensorboard-log-dir", "out/tb", "--save-retry"];
    let settings = [&settings[..], &["--total-updates", "10"], &logs].concat();
    let with = |retry: &'static str| [&settings[..], &[retry]].concat();
    stdout(&mut pretrain(folder.path(), &with("0")));
    let expected = files(&folder.path().join("out/checkpoint-10"));
    // A run that was stopped after update 4.
    let begun = folder.path().join("begun");
    fs::rename(folder.path().join("out"), folder.path().join("whole")).unwrap();
    let out = folder.path().join("out");
    let mut first = pretrain(folder.path(), &with("0"));
    stopped_at(&mut first, "update 4/");
    fs::rename(&out, &begun).unwrap();

    let (mut failed, mut finished) = (0, 0);
    let sizes = (0..5)
        .map(|i| 4096_u64 << (3 * i))
        .chain((2..=8).map(|i| i * 5_000_000));
    for free in sizes {
        let disk = Mount::small(&out);
        copy(&begun, &out);
        let before = load_latest(&out);
        disk.fill(free);
        let output = run(pretrain(folder.path(), &with("0")).arg("--resume"));
        let after = load_latest(&out);
        assert!(after >= before, "{free}: {after}");
        only_whole_lines(&out.join("metrics.jsonl"));
        match output.status.code() {
            Some(0) => finished += 1,
            _ => failed += 1,
        }
        // With room again it goes on to the same end.
        fs::remove_file(out.join("ballast")).unwrap();
        stdout(pretrain(folder.path(), &with("0")).arg("--resume"));
        assert!(files(&out.join("checkpoint-10")) == expected, "{free}");
        drop(disk);
    }
    eprintln!("{failed} runs failed on the way, {finished} had room enough");
    assert!(failed > 3 && finished > 3);

    // Room is made while the run waits for it.
    let disk = Mount::small(&out);
    copy(&begun, &out);
    let ballast = disk.fill(1 << 20);
    let command = pretrain(folder.path(), &with("60"));
    let mut child = Command::new(command.get_program())
        .args(command.get_args())
        .arg("--resume")
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut told = false;
    for line in lines {
        if line.unwrap().contains("is tried again") && !std::mem::replace(&mut told, true) {
            fs::remove_file(&ballast).unwrap();
        }
    }
    assert!(told && child.wait().unwrap().success());
    assert!(files(&out.join("checkpoint-10")) == expected);
}

/// Interrupts a run when it prints a line that starts so.
fn stopped_at(command: &mut assert_cmd::Command, line: &str) {
    let mut child = Command::new(command.get_program())
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for found in lines {
        if found.unwrap().starts_with(line) {
            let id = child.id().to_string();
            assert!(
                Command::new("kill")
                    .args(["-INT", &id])
                    .status()
                    .unwrap()
                    .success()
            );
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// A folder that became read-only, as a file system does after an error of its disk.
#[test]
#[ignore = "needs root: mounts a folder read-only"]
fn a_read_only_folder_is_an_error_that_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ["--total-updates", "2", "--save_steps", "2"];
    stdout(&mut pretrain(folder.path(), &settings));
    let out = folder.path().join("out");
    let before = files(&out);
    let bound = Mount::new(&out, &["--bind", out.to_str().unwrap()]);
    let status = Command::new("mount")
        .args(["-o", "remount,bind,ro"])
        .arg(&out)
        .status();
    assert!(status.unwrap().success());
    let on = ["--total-updates", "4", "--resume", "--override"];
    for settings in [&settings[..], &on] {
        let said = failure(&mut pretrain(folder.path(), settings), 1);
        assert!(said.contains("cannot be written to"), "{said}");
        assert!(said.contains("--checkpoint-dir"), "{said}");
    }
    // It can still be read: converted, and gone on from elsewhere.
    load_latest(&out);
    let elsewhere = [
        "--resume-checkpoint",
        "out",
        "--checkpoint-dir",
        "elsewhere",
    ];
    stdout(&mut pretrain(
        folder.path(),
        &[&on[..], &elsewhere].concat(),
    ));
    assert_eq!(load_latest(&folder.path().join("elsewhere")), 4);
    drop(bound);
    assert!(files(&out) == before);
}
