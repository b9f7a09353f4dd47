//! Machines as they are: some cores of many, no telemetry, file systems without locks or folder syncs, no home, no
//! folder that can be written to but the checkpoints'.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::hub::{HubServer, Trouble};
use crate::common::{contents, failure, pretrain, shim, stdout};
use crate::hub::sharded_model;
use crate::models::from_model;

const SETTINGS: [&str; 4] = ["--total-updates", "3", "--save_steps", "2"];

/// `pretrain-mpnet` as a plain command, started by `before`.
fn started_by(before: &[&str], run: &assert_cmd::Command, folder: &Path) -> Command {
    let mut command = match before {
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(run.get_program());
            command
        }
        [] => Command::new(run.get_program()),
    };
    command.args(run.get_args()).current_dir(folder);
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The build that the session engine takes, as a file.
fn library() -> PathBuf {
    use mpnet_runtime::library::{InstallOptions, install, wheel_of};
    let options = InstallOptions::for_user().unwrap();
    install(wheel_of("onnxruntime"), &options)
        .unwrap()
        .library()
}

#[test]
fn on_one_core_of_several_no_thread_leaves_it() {
    for engine in ["training-api", "session"] {
        let folder = tempfile::tempdir().unwrap();
        let settings = ["--total-updates", "5", "--engine", engine];
        let run = pretrain(folder.path(), &settings);
        // The number of threads is the program's choice.
        let run = without_threads(&run, folder.path());
        let mut child = started_by(&["taskset", "-c", "0"], &run, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        let tasks = process.join("task");
        let (mut seen, mut names) = (BTreeSet::new(), BTreeSet::new());
        while child.try_wait().unwrap().is_none() {
            // Until then it is `taskset`.
            let started = fs::read_link(process.join("exe"));
            if !started.is_ok_and(|program| program.ends_with("pretrain-mpnet")) {
                continue;
            }
            for task in fs::read_dir(&tasks).into_iter().flatten().flatten() {
                let Ok(status) = fs::read_to_string(task.path().join("status")) else {
                    continue;
                };
                let field = |name: &str| {
                    let line = status.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|line| line.trim().to_owned())
                };
                seen.extend(field("Cpus_allowed_list:"));
                names.extend(field("Name:"));
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(seen, BTreeSet::from(["0".to_owned()]), "{engine}");
        assert!(names.len() > 2, "{names:?}");
        assert!(!said.contains("affinity"), "{said}");
    }
}

fn without_threads(run: &assert_cmd::Command, folder: &Path) -> assert_cmd::Command {
    let mut other = assert_cmd::Command::new(run.get_program());
    let mut arguments = run.get_args();
    while let Some(argument) = arguments.next() {
        if argument == "--threads" {
            arguments.next();
        } else {
            other.arg(argument);
        }
    }
    other.current_dir(folder);
    for (name, value) in run.get_envs() {
        if let Some(value) = value {
            other.env(name, value);
        }
    }
    other
}

/// Builds from 1.29 on would leave a queue of events and the number of a device.
#[test]
fn onnx_runtime_keeps_no_events() {
    let library = library();
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    for name in ["cache", "temporary", "config", "data"] {
        fs::create_dir_all(home.join(name)).unwrap();
    }
    let mut run = pretrain(folder.path(), &SETTINGS);
    run.arg("--engine").arg("session").arg("--ort").arg(library);
    run.env("HOME", &home)
        .env("XDG_CACHE_HOME", home.join("cache"))
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("XDG_DATA_HOME", home.join("data"))
        .env("TMPDIR", home.join("temporary"))
        .env_remove("ORT_DISABLE_TELEMETRY");
    stdout(&mut run);
    let left: Vec<PathBuf> = contents(&home)
        .into_iter()
        .filter_map(|(path, bytes)| bytes.map(|_| path))
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn file_systems_without_locks_and_folder_syncs_are_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = pretrain(folder.path(), &SETTINGS);
    shim::load(&mut run, folder.path()).env(shim::NO_LOCKS, "1");
    let output = run.assert().success().get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    let lines = said.lines().filter(|line| line.contains("without locks"));
    assert_eq!(lines.count(), 1, "{said}");
    mpnet::checkpoint::verify(&folder.path().join("out/checkpoint-3")).unwrap();
}

/// `HOME` leads nowhere, and of the caches one is a file: what is needed is given by its path.
#[test]
fn without_a_home_or_a_cache_a_run_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("file");
    fs::write(&nowhere, "in the way").unwrap();
    let mut run = pretrain(folder.path(), &SETTINGS);
    run.arg("--engine")
        .arg("session")
        .arg("--ort")
        .arg(library());
    run.env("HOME", nowhere.join("home"))
        .env("MPNET_CACHE", nowhere.join("cache"))
        .env("HF_HOME", nowhere.join("hub"))
        .env_remove("XDG_CACHE_HOME");
    stdout(&mut run);
}

/// All that a run needs is there: a model and its tokenizer in the Hub's cache, the build in this program's. Nothing can
/// be written to either, there is no home folder, and the Hub is in trouble or is not asked.
#[test]
fn a_run_is_trained_with_caches_that_are_read_only_and_without_a_home() {
    let folder = tempfile::tempdir().unwrap();
    let server = HubServer::start();
    server.add("models/o/model", sharded_model(folder.path()));
    let cache = folder.path().join("cache");
    let builds = mpnet_runtime::library::InstallOptions::for_user().unwrap();
    let run = |output: &str| {
        let mut run = from_model(folder.path(), &["--hf-model-path", "o/model"]);
        run.args(["--checkpoint-dir", output])
            .env_remove("HF_HUB_OFFLINE")
            .env("HF_ENDPOINT", &server.endpoint)
            .env("HF_HOME", &cache);
        run
    };
    stdout(&mut run("filled"));
    let before = contents(&cache);
    let builds = builds.cache.parent().unwrap();
    let refuse_writes = format!("{}:{}", cache.display(), builds.display());
    for (output, offline) in [("in-trouble", "0"), ("offline", "1")] {
        server.trouble(Trouble {
            api: Some(503),
            ..Trouble::default()
        });
        let mut run = run(output);
        shim::load(&mut run, folder.path())
            .env(shim::READ_ONLY, &refuse_writes)
            .env("MPNET_CACHE", builds)
            .env("HF_HUB_OFFLINE", offline)
            .env_remove("HOME")
            .env_remove("XDG_CACHE_HOME");
        let ended = run.assert().success().get_output().clone();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(!said.contains("Read-only"), "{said}");
        // What is in the cache is taken, and how to be spared the question is said.
        let told = said.contains("503") && said.contains("HF_HUB_OFFLINE=1");
        assert_eq!(told, offline == "0", "{said}");
        let weights = |run: &str| {
            let path = folder
                .path()
                .join(run)
                .join("checkpoint-2/model.safetensors");
            fs::read(path).unwrap()
        };
        assert!(weights(output) == weights("filled"));
    }
    assert!(contents(&cache) == before);
}

/// Every thread of a run, by its name.
fn threads_of(run: &assert_cmd::Command, folder: &Path) -> Vec<String> {
    let mut child = started_by(&[], run, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let tasks = PathBuf::from(format!("/proc/{}/task", child.id()));
    let mut seen = std::collections::BTreeMap::new();
    while child.try_wait().unwrap().is_none() {
        for task in fs::read_dir(&tasks).into_iter().flatten().flatten() {
            if let Ok(name) = fs::read_to_string(task.path().join("comm")) {
                seen.insert(task.file_name(), name.trim().to_owned());
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success());
    let mut names: Vec<String> = seen.into_values().collect();
    names.sort();
    names
}

/// A control group of half a core, as containers have them: what says so are files, which others stand in for.
#[test]
fn in_a_control_group_of_half_a_core_there_is_one_thread_of_a_kind() {
    let folder = tempfile::tempdir().unwrap();
    let group = folder.path().join("group");
    fs::create_dir(&group).unwrap();
    fs::write(group.join("cgroup.controllers"), "cpu memory\n").unwrap();
    fs::write(group.join("cpu.max"), "50000 100000\n").unwrap();
    let list = folder.path().join("cgroup");
    fs::write(&list, format!("0::/../../..{}\n", group.display())).unwrap();
    let threads = |further: &[&str], in_group: bool| {
        let _ = fs::remove_dir_all(folder.path().join("out"));
        let run = pretrain(
            folder.path(),
            &[&["--total-updates", "2"], further].concat(),
        );
        let mut run = match further.is_empty() {
            true => without_threads(&run, folder.path()),
            false => run,
        };
        if in_group {
            shim::load(&mut run, folder.path())
                .env(shim::FROM, "/proc/self/cgroup")
                .env(shim::TO, &list);
        }
        threads_of(&run, folder.path())
    };
    let one = threads(&["--threads", "1", "--num-workers", "1"], false);
    let found = threads(&[], true);
    // Some end before they are seen.
    assert!(found.len() <= one.len(), "{found:?} and {one:?}");
    let tokenize = found.iter().filter(|name| name.starts_with("mpnet-data"));
    assert_eq!(tokenize.count(), 1);
}

/// The same line starts a run and goes on with it, as job scripts do.
#[test]
fn the_first_start_may_say_resume() {
    let folder = tempfile::tempdir().unwrap();
    let start = |updates| {
        let mut run = pretrain(folder.path(), &["--total-updates", updates, "--override"]);
        run.arg("--resume");
        let output = run.assert().success().get_output().clone();
        String::from_utf8(output.stderr).unwrap()
    };
    let said = start("2");
    assert!(said.contains("starts anew"), "{said}");
    let said = start("4");
    assert!(!said.contains("starts anew"), "{said}");
    // A checkpoint that is named has to be there.
    let mut run = pretrain(folder.path(), &["--resume", "--resume-checkpoint", "gone"]);
    let said = failure(&mut run, 1);
    assert!(said.contains("there is no checkpoint at gone"), "{said}");
}
