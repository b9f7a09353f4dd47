//! Several ranks that MPI's launcher starts: the same run as of one process, whatever happens to them.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::common::{self, binary, pretrain, stdout};
use crate::embeddings;

/// Waiting ranks spin: no more of them than cores.
static CORES: Mutex<()> = Mutex::new(());

fn cores() -> MutexGuard<'static, ()> {
    CORES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The launcher of the MPI that is on this machine, or is fetched now.
static LAUNCHER: LazyLock<PathBuf> = LazyLock::new(|| {
    let find = mpnet_runtime::collective::mpi::launcher;
    if find().is_err() {
        let folder = tempfile::tempdir().unwrap();
        stdout(binary("mpnet", folder.path()).args(["runtime", "install", "mpi"]));
    }
    find().unwrap()
});

/// The session engine on one thread, so that runs of one process and of several differ in nothing else.
const SETTINGS: [&str; 6] = [
    "--engine",
    "session",
    "--threads",
    "1",
    "--logging-steps",
    "1",
];

/// The run on the example text with `further` flags.
fn run(folder: &Path, further: &[&str]) -> assert_cmd::Command {
    pretrain(folder, &[&SETTINGS[..], further].concat())
}

/// The same command, started by `ranks` ranks.
fn by_ranks(ranks: usize, command: &assert_cmd::Command) -> assert_cmd::Command {
    let mut started = assert_cmd::Command::new(&*LAUNCHER);
    started
        .args(["-n", &ranks.to_string()])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap())
        .env("HF_HUB_OFFLINE", "1")
        .env("RUST_LOG", "mpnet=debug");
    started
}

/// The parameters and losses of a run in `folder`, and each update's batches, from what it said.
struct Ran {
    parameters: Vec<f32>,
    losses: Vec<f64>,
    batches: BTreeMap<u64, String>,
    said: String,
}

fn finish(mut command: assert_cmd::Command) -> Ran {
    command.env("RUST_LOG", "mpnet=debug");
    let output = command.assert().success().get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    let out = command.get_current_dir().unwrap().join("out");
    let latest = std::fs::read_to_string(out.join("latest")).unwrap();
    let checkpoint = mpnet::checkpoint::load(&out.join(latest.trim())).unwrap();
    let arrays = checkpoint.parameters.into_iter();
    Ran {
        parameters: arrays.flat_map(|array| array.values).collect(),
        losses: losses(&out),
        batches: batches(&said),
        said,
    }
}

/// `update 3: batches 9f…` of the first rank's log.
fn batches(said: &str) -> BTreeMap<u64, String> {
    let found = said.lines().filter_map(|line| {
        let (before, digest) = line.split_once(": batches ")?;
        let update = before.rsplit(' ').next()?.parse().ok()?;
        Some((update, digest.to_owned()))
    });
    found.collect()
}

/// Of all updates and validations.
fn losses(out: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let losses = records.filter_map(|record: serde_json::Value| record["loss"].as_f64());
    losses.collect()
}

/// That they are the same to 1e-6 of their size.
fn assert_close(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let size = norm(&mut a.iter().map(|&a| f64::from(a)));
    assert!(
        difference <= 1e-6 * size,
        "{what}: {difference:e} of {size}"
    );
}

/// Embeddings gathered over ranks are each other's negatives, with the gradients of one process that has the whole batch.
#[test]
fn two_ranks_share_a_batch_of_embeddings() {
    let _cores = cores();
    let settings = [
        "--batch-size",
        "8",
        "--total-updates",
        "10",
        "--adam-eps",
        "1e-3",
        "--dropout",
        "0",
        "--attention-dropout",
        "0",
        "--activation-dropout",
        "0",
    ];
    let [one, parts, two] = [
        (1, &[][..]),
        (1, &["--mini-batch-size", "4"]),
        (2, &["--mini-batch-size", "4"]),
    ]
    .map(|(ranks, further)| {
        let folder = tempfile::tempdir().unwrap();
        embeddings::material(folder.path());
        let further = [&SETTINGS[..], &settings, further].concat();
        let command = embeddings::finetune(folder.path(), &further);
        finish(match ranks {
            1 => command,
            ranks => by_ranks(ranks, &command),
        })
    });
    assert_close(&one.parameters, &parts.parameters, "a batch in parts");
    assert_close(&parts.parameters, &two.parameters, "two ranks");
    assert_eq!(parts.batches, two.batches);
    assert_eq!(parts.losses.len(), two.losses.len());
    for (a, b) in parts.losses.iter().zip(&two.losses) {
        assert!((a - b).abs() <= 1e-6 * a, "{a}, {b}");
    }
    // Those of updates alone: validation is in batches of what is embedded at once.
    let updates = |ran: &Ran| {
        ran.losses
            .iter()
            .skip(1)
            .take(10)
            .copied()
            .collect::<Vec<_>>()
    };
    for (a, b) in updates(&one).iter().zip(updates(&parts)) {
        assert!((a - b).abs() <= 1e-5 * a, "{a}, {b}");
    }
}

#[test]
fn two_ranks_train_as_one_process_does_in_every_break_mode() {
    let _cores = cores();
    for mode in ["eos", "complete", "none", "chunk"] {
        let settings = ["--total-updates", "20", "--sample-break-mode", mode];
        let [one, two] = [(1, "2"), (2, "1")].map(|(ranks, each)| {
            let folder = tempfile::tempdir().unwrap();
            let mut command = run(folder.path(), &settings);
            command.args(["--update-freq", each, "--eval-interval-steps", "10"]);
            finish(match ranks {
                1 => command,
                ranks => by_ranks(ranks, &command),
            })
        });
        assert_close(&one.parameters, &two.parameters, mode);
        assert_eq!(one.batches.len(), 20);
        assert_eq!(one.batches, two.batches, "{mode}");
        // But for the first update, in which the ranks agree on their order, gradients are summed in the step that makes
        // them.
        let began = |how: &str| {
            let told = format!("{how} sums of gradients began while the step ran");
            two.said.matches(&told).count()
        };
        assert_eq!((began("0 of 2"), began("2 of 2")), (1, 19), "{}", two.said);
        assert_eq!(one.losses.len(), two.losses.len());
        for (a, b) in one.losses.iter().zip(&two.losses) {
            assert!((a - b).abs() <= 1e-6 * a, "{mode}: {a}, {b}");
        }
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let _cores = cores();
    let schedule = ["--lr-scheduler", "constant", "--warmup-updates", "2"];
    let straight = tempfile::tempdir().unwrap();
    let mut whole = run(straight.path(), &schedule);
    whole.args(["--update-freq", "2", "--total-updates", "12"]);
    let whole = finish(whole);
    let folder = tempfile::tempdir().unwrap();
    let mut all = BTreeMap::new();
    let mut parameters = Vec::new();
    // By the flags of the first start, each time.
    for (ranks, updates) in [(2, "4"), (1, "8"), (2, "12")] {
        let mut command = run(folder.path(), &schedule);
        command.args(["--update-freq", "1", "--total-updates", updates]);
        if updates != "4" {
            command.arg("--resume");
        }
        let ran = finish(by_ranks(ranks, &command));
        all.extend(ran.batches);
        parameters = ran.parameters;
    }
    assert_eq!(all, whole.batches);
    assert_close(&parameters, &whole.parameters, "2, 1 and 2 ranks");

    // Two micro-batches are not for three ranks to share.
    let mut command = run(folder.path(), &schedule);
    command.args(["--update-freq", "1", "--total-updates", "13", "--resume"]);
    let output = by_ranks(3, &command).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    for part in [
        "updates of 2 micro-batches",
        "3 ranks cannot share",
        "--batch-size 8",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

/// Each rank updates a part and has the moments of that alone; checkpoints hold all of them. Without clipping, as the
/// norm of parts is added up in another order than that of the whole.
#[test]
fn ranks_that_share_the_optimizer_make_the_same_updates() {
    let _cores = cores();
    let schedule = [
        "--lr-scheduler",
        "constant",
        "--warmup-updates",
        "2",
        "--clip-grad-norm",
        "0",
    ];
    let straight = tempfile::tempdir().unwrap();
    let mut whole = run(straight.path(), &schedule);
    whole.args(["--update-freq", "2", "--total-updates", "12"]);
    let whole = finish(whole);
    let folder = tempfile::tempdir().unwrap();
    let mut parameters = Vec::new();
    for (ranks, shared, updates) in [(2, true, "4"), (1, false, "8"), (2, true, "12")] {
        let mut command = run(folder.path(), &schedule);
        command.args(["--update-freq", "1", "--total-updates", updates]);
        if shared {
            command.arg("--shard-optimizer");
        }
        if updates != "4" {
            command.arg("--resume");
        }
        parameters = match ranks {
            1 => finish(command),
            ranks => finish(by_ranks(ranks, &command)),
        }
        .parameters;
    }
    assert_close(&parameters, &whole.parameters, "a shared optimizer");
}

#[test]
fn ranks_that_differ_are_named() {
    let _cores = cores();
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("texts");
    std::fs::create_dir(&text).unwrap();
    std::fs::write(text.join("a.txt"), "some words\n".repeat(400)).unwrap();
    let text = text.display().to_string();
    for (flags, said) in [
        (
            ["--seed", "7"],
            "rank 1 on HOST has other settings than rank 0 on HOST: seed is 7 there and 12345 here",
        ),
        (
            ["--lr", "2e-3"],
            "schedule.peak is 0.002 there and 0.001 here",
        ),
        (["--train-dir", &text], "text.files.train_dir"),
    ] {
        let command = run(folder.path(), &["--total-updates", "2"]);
        let mut started = by_ranks(1, &command);
        started.args([":", "-n", "1"]).arg(command.get_program());
        let output = started
            .args(command.get_args())
            .args(flags)
            .output()
            .unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr);
        let host = mpnet::machine::host_name();
        assert!(
            text.contains(&said.replace("HOST", &host)),
            "{flags:?}: {text}"
        );
        assert!(!folder.path().join("out/latest").exists());
    }
}

/// A run of two ranks, watched.
struct Started {
    launcher: Child,
    folder: PathBuf,
}

impl Started {
    fn new(folder: &Path, command: &assert_cmd::Command, log: &Path) -> Started {
        let command = by_ranks(2, command);
        let log = File::create(log).unwrap();
        let launcher = Command::new(command.get_program())
            .args(command.get_args())
            .current_dir(folder)
            .env("HF_HUB_OFFLINE", "1")
            .env("RUST_LOG", "mpnet=debug")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Started {
            launcher,
            folder: folder.canonicalize().unwrap(),
        }
    }

    /// The processes of its ranks: those that run in its folder and were told a rank.
    fn ranks(&self) -> BTreeMap<usize, u32> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let here = std::fs::read_link(entry.path().join("cwd"));
            if here.is_ok_and(|here| here == self.folder) {
                let variables = std::fs::read(entry.path().join("environ")).unwrap_or_default();
                let mut variables = variables.split(|&byte| byte == 0);
                let rank = variables.find_map(|v| v.strip_prefix(b"PMI_RANK="));
                let rank = rank.and_then(|rank| std::str::from_utf8(rank).ok()?.parse().ok());
                found.extend(rank.map(|rank: usize| (rank, pid)));
            }
        }
        found
    }

    /// The launcher's exit code once it and all ranks are gone, and how long that took.
    fn end(mut self) -> (Option<i32>, Duration) {
        let started = Instant::now();
        let status = self.launcher.wait().unwrap();
        while !self.ranks().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        (status.code(), started.elapsed())
    }
}

/// Whether the process was still there.
fn send(signal: &str, pid: u32) -> bool {
    let mut kill = Command::new("kill");
    let output = kill.args([signal, &pid.to_string()]).output();
    output.unwrap().status.success()
}

/// What a run says before each of its phases.
const PHASES: [&str; 6] = [
    "| loss",
    "saving update",
    "opening the text",
    "evaluating the validation text",
    "compiling the model",
    "update ",
];

/// Kills of ranks at random moments: `MPNET_KILLS`, else few.
fn kills() -> u32 {
    let given = std::env::var("MPNET_KILLS").ok();
    given.map_or(2, |n| n.parse().expect("MPNET_KILLS is a number"))
}

#[test]
fn killed_ranks_end_the_others_and_the_resumed_run_is_an_undisturbed_one() {
    let _cores = cores();
    let kills = kills();
    let updates = (6 * kills).clamp(12, 100).to_string();
    let mut settings = vec!["--total-updates", &updates, "--save_steps", "2"];
    settings.extend(["--keep-checkpoints", "2", "--eval-interval-steps", "3"]);
    let straight = tempfile::tempdir().unwrap();
    finish(by_ranks(2, &run(straight.path(), &settings)));

    let folder = tempfile::tempdir().unwrap();
    let (out, log) = (folder.path().join("out"), folder.path().join("log"));
    let (mut killed, mut attempts, mut longest) = (0, 0, Duration::ZERO);
    let mut share = 0.0_f64;
    loop {
        attempts += 1;
        assert!(attempts < 20 * kills + 20, "the run gets nowhere");
        let mut command = run(folder.path(), &settings);
        if out.join("latest").exists() {
            command.arg("--resume");
        }
        let mut started = Started::new(folder.path(), &command, &log);
        if killed < kills {
            // What a rank is at when it is killed: by what was said, and a while after that.
            let phase = PHASES[killed as usize % PHASES.len()];
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            while !said().contains(phase) && started.launcher.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            share = (share + 0.618_034) % 1.0;
            std::thread::sleep(Duration::from_millis(300).mul_f64(share));
            let ranks = started.ranks();
            if let Some(&pid) = ranks.get(&(killed as usize / 2 % 2)) {
                killed += u32::from(send("-KILL", pid));
            }
        }
        let (code, took) = started.end();
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        if out.join("latest").exists() {
            let name = std::fs::read_to_string(out.join("latest")).unwrap();
            mpnet::checkpoint::load(&out.join(name.trim())).unwrap();
        }
        match code {
            Some(0) => break,
            Some(1 | 75) => panic!("a rank failed by itself: {said}"),
            Some(_) | None => longest = longest.max(took),
        }
    }
    eprintln!("{killed} kills of a rank in {attempts} starts; all were gone within {longest:?}");
    assert!(killed > kills / 2, "the run ended before it was killed");
    for pointer in ["latest", "best"] {
        let [a, b] = [straight.path().join("out"), out.clone()].map(|out| {
            let name = std::fs::read_to_string(out.join(pointer)).unwrap();
            common::files(&out.join(name.trim()))
        });
        assert!(
            a == b,
            "{pointer}: another checkpoint than that of an undisturbed run"
        );
    }
}

#[test]
fn a_signal_to_one_rank_stops_all_at_the_same_update() {
    let _cores = cores();
    let settings = [
        "--total-updates",
        "5000",
        "--lr-scheduler",
        "constant",
        "--warmup-updates",
        "2",
    ];
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let started = Started::new(folder.path(), &run(folder.path(), &settings), &log);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    while !said().contains("update 3/5000") {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(send("-TERM", started.ranks()[&1]));
    let (code, _) = started.end();
    let said = said();
    let (_, after) = said
        .split_once("stopped by signal 15 after update ")
        .expect(&said);
    let update: u64 = after.split(';').next().unwrap().parse().unwrap();
    assert_eq!(said.matches("stopped by signal").count(), 1, "{said}");
    assert_eq!(code, Some(143), "{said}");
    let out = folder.path().join("out");
    let latest = std::fs::read_to_string(out.join("latest")).unwrap();
    assert_eq!(latest.trim(), format!("checkpoint-{update}"));
    let other = std::fs::read_to_string(out.join("logs/rank-1.log")).unwrap();
    assert!(other.contains(&format!("after update {update}")), "{other}");

    // One process goes on from there.
    let further = (update + 2).to_string();
    let mut command = run(folder.path(), &settings);
    command.args(["--resume", "--total-updates", &further]);
    let ran = finish(command);
    assert_eq!(ran.batches.len(), 2);
}

#[test]
fn ranks_are_started_by_the_program_itself() {
    let _cores = cores();
    let folder = tempfile::tempdir().unwrap();
    let bin = LAUNCHER.parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let mut command = run(folder.path(), &["--total-updates", "3", "--devices", "2"]);
    let ran = finish(std::mem::replace(
        command.env("PATH", &path),
        assert_cmd::Command::new("true"),
    ));
    assert_eq!(ran.batches.len(), 3);
    let said = stdout(
        run(
            folder.path(),
            &[
                "--dry-run",
                "--devices",
                "2",
                "--resume",
                "--total-updates",
                "4",
            ],
        )
        .env("PATH", &path)
        .args(["--lr-scheduler", "constant", "--override"]),
    );
    for part in [
        "rank 0",
        "rank 1",
        "1 of 2 micro-batches",
        "on each of 2 ranks",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let said = common::failure(
        run(folder.path(), &["--devices", "2"])
            .env("RANK", "0")
            .env("WORLD_SIZE", "2"),
        2,
    );
    assert!(said.contains("leave it out under a launcher"), "{said}");
    let said = common::failure(
        run(folder.path(), &["--devices", "all"]).args(["--provider", "cpu"]),
        2,
    );
    assert!(said.contains("give a number"), "{said}");
}

#[test]
fn an_engine_that_trains_alone_is_refused() {
    let _cores = cores();
    let folder = tempfile::tempdir().unwrap();
    let command = run(folder.path(), &["--engine", "training-api"]);
    let output = by_ranks(2, &command).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("use --engine session"), "{said}");
}
