//! Runs that are killed, interrupted, or fed numbers that are none.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::common::{self, failure, files, pretrain, stdout};

/// Kills of each kind: `MPNET_KILLS`, else few.
fn kills() -> u32 {
    let given = std::env::var("MPNET_KILLS").ok();
    given.map_or(3, |n| n.parse().expect("MPNET_KILLS is a number"))
}

/// Long enough to be killed many times, saving all the while.
fn settings(kills: u32) -> Vec<String> {
    let updates = (12 * kills).clamp(40, 400).to_string();
    ["--total-updates", &updates, "--save_steps", "2"]
        .into_iter()
        .chain(["--keep-checkpoints", "2", "--eval-interval-steps", "5"])
        .map(str::to_owned)
        .collect()
}

/// The command without the test library around it, so that it can be watched and killed; what it says
/// goes to `log`.
fn spawn(command: &assert_cmd::Command, log: &File) -> Child {
    Command::new(command.get_program())
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap())
        .env("RUST_LOG", "mpnet=debug")
        .env(
            "TMPDIR",
            command.get_current_dir().unwrap().join("temporary"),
        )
        .stdout(log.try_clone().unwrap())
        .stderr(log.try_clone().unwrap())
        .spawn()
        .unwrap()
}

fn send(signal: &str, child: &Child) {
    let status = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

/// The files of the checkpoint that `pointer` names.
fn named(out: &Path, pointer: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let name = std::fs::read_to_string(out.join(pointer)).unwrap();
    files(&out.join(name.trim()))
}

/// Whether a run left a checkpoint half-written or half-removed, under a name that says so.
fn is_unfinished(out: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(out) else {
        return false;
    };
    entries.any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().starts_with(".unfinished-")
    })
}

/// The moments of a run by what it says then, and what they are called.
const MOMENTS: [(&str, &str); 7] = [
    ("opening the text", "start-up"),
    ("loading ONNX Runtime", "start-up"),
    ("compiling the model", "compile"),
    ("evaluating the validation text", "evaluation"),
    ("evaluating the test text", "evaluation"),
    ("saving update", "saving"),
    ("update ", "training"),
];

/// What a run is at, from what it has said.
fn moment(out: &Path, said: &str) -> &'static str {
    if is_unfinished(out) {
        return "saving";
    }
    let of_line = |line: &str| MOMENTS.iter().find(|(words, _)| line.contains(words));
    let last = said.lines().rev().find_map(of_line);
    last.map_or("start-up", |(_, name)| name)
}

/// How long `settings` take.
fn time_of(folder: &Path, settings: &[&str]) -> Duration {
    let started = Instant::now();
    stdout(&mut pretrain(folder, settings));
    started.elapsed()
}

/// Kills a run at random moments with each of `signals` in turn, resumes it each time, and compares its
/// end with that of a run left alone.
fn killed_runs_end_as_undisturbed_ones(signals: &[&str], engine: &str) {
    let kills = kills();
    let settings = settings(kills);
    let mut settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    settings.extend(["--engine", engine, "--logging-steps", "1"]);
    let straight = tempfile::tempdir().unwrap();
    let whole = time_of(straight.path(), &settings);
    let short = [&settings[..], &["--total-updates", "1"]].concat();
    let start = time_of(tempfile::tempdir().unwrap().path(), &short);
    // From the first moment on, and rather early, so that there is something left to kill.
    let latest = start + whole.saturating_sub(start) / kills;

    let disturbed = tempfile::tempdir().unwrap();
    let out = disturbed.path().join("out");
    let log = disturbed.path().join("log");
    let temporary = disturbed.path().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let (mut killed, mut attempts, mut moments) = (0, 0, BTreeMap::new());
    // Fractions of the golden ratio: spread evenly, and no two alike.
    let mut share = 0.0_f64;
    loop {
        attempts += 1;
        assert!(attempts < 20 * kills + 20, "the run gets nowhere");
        let mut command = pretrain(disturbed.path(), &settings);
        if out.join("latest").exists() {
            command.arg("--resume");
        }
        let mut child = spawn(&command, &File::create(&log).unwrap());
        if killed < kills {
            share = (share + 0.618_034) % 1.0;
            std::thread::sleep(latest.mul_f64(share));
            if child.try_wait().unwrap().is_none() {
                let said = std::fs::read_to_string(&log).unwrap();
                send(signals[killed as usize % signals.len()], &child);
                *moments.entry(moment(&out, &said)).or_insert(0) += 1;
                killed += 1;
            }
        }
        let status = child.wait().unwrap();
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        // Whatever happened, what `latest` names is whole.
        if out.join("latest").exists() {
            let name = std::fs::read_to_string(out.join("latest")).unwrap();
            mpnet::checkpoint::load(&out.join(name.trim())).unwrap();
        }
        match status.code() {
            Some(0) => break,
            Some(129 | 130 | 138 | 143) | None => {}
            Some(code) => panic!("exit {code}: {said}"),
        }
    }
    eprintln!("{killed} kills with {signals:?} in {attempts} starts: {moments:?}");
    assert!(killed > kills / 2, "the run ended before it was killed");
    // What killed runs had left there is gone.
    let left = common::contents(&temporary).into_keys();
    // ONNX Runtime's own, one for all processes.
    let left: Vec<_> = left.filter(|name| name != Path::new(".ses")).collect();
    assert!(left.is_empty(), "{left:?}");
    let expected = straight.path().join("out");
    for pointer in ["latest", "best"] {
        let (a, b) = (named(&expected, pointer), named(&out, pointer));
        assert!(a.keys().eq(b.keys()), "{pointer}: {:?}", b.keys());
        for (name, bytes) in a {
            assert!(bytes == b[&name], "{pointer}: {} differs", name.display());
        }
    }
}

#[test]
fn kills_change_nothing() {
    killed_runs_end_as_undisturbed_ones(&["-KILL"], "training-api");
}

#[test]
fn terminations_change_nothing() {
    killed_runs_end_as_undisturbed_ones(&["-TERM", "-INT", "-USR1", "-HUP"], "session");
}

/// The moments of a run, in the order in which they come, by what it says then.
const PHASES: [&str; 7] = [
    "opening the text",
    "loading ONNX Runtime",
    "compiling the model",
    "evaluating the validation text",
    "update 3/",
    "saving update 10",
    "evaluating the test text",
];

#[test]
fn a_termination_in_any_phase_changes_nothing() {
    // Texts that are long enough to be stopped in.
    let [valid, test] = ["valid.txt", "test.txt"].map(|name| {
        let path = common::repository("examples/corpus").join(name);
        path.display().to_string()
    });
    let settings = [
        &["--total-updates", "12", "--save_steps", "2"][..],
        &["--logging-steps", "1", "--eval-interval-steps", "4"],
        &["--valid-file", &valid, "--test-file", &test],
    ];
    let settings = settings.concat();
    let straight = tempfile::tempdir().unwrap();
    stdout(&mut pretrain(straight.path(), &settings));
    let disturbed = tempfile::tempdir().unwrap();
    let out = disturbed.path().join("out");
    for phase in PHASES {
        let mut command = pretrain(disturbed.path(), &settings);
        if out.join("latest").exists() {
            command.arg("--resume");
        }
        let (reader, writer) = std::io::pipe().unwrap();
        let mut run = Command::new(command.get_program());
        run.args(command.get_args())
            .current_dir(disturbed.path())
            .env("RUST_LOG", "mpnet=debug")
            .stdout(writer.try_clone().unwrap())
            .stderr(writer);
        let mut child = run.spawn().unwrap();
        // It holds the other end of the pipe, which would never be read to its end.
        drop(run);
        let (mut said, mut sent) = (Vec::new(), false);
        for line in BufReader::new(reader).lines() {
            let line = line.unwrap();
            // A second one would stop it at once.
            if line.contains(phase) && !std::mem::replace(&mut sent, true) {
                send("-TERM", &child);
            }
            said.push(line);
        }
        assert_eq!(
            child.wait().unwrap().code(),
            Some(143),
            "{phase}: {said:#?}"
        );
        let stopped = |line: &String| line.contains("stopped by signal 15");
        assert!(said.iter().any(stopped), "{phase}: {said:#?}");
        if out.join("latest").exists() {
            let name = std::fs::read_to_string(out.join("latest")).unwrap();
            mpnet::checkpoint::load(&out.join(name.trim())).unwrap();
        }
    }
    stdout(pretrain(disturbed.path(), &settings).arg("--resume"));
    let expected = straight.path().join("out");
    for pointer in ["latest", "best"] {
        assert!(
            named(&expected, pointer) == named(&out, pointer),
            "{pointer}"
        );
    }
}

/// A file with a byte turned over.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ["--total-updates", "6", "--save_steps", "2"];
    stdout(&mut pretrain(folder.path(), &settings));
    let out = folder.path().join("out");
    let whole = files(&out.join("checkpoint-6"));
    for file in [
        "model.safetensors",
        "optimizer.safetensors",
        "trainer_state.json",
        "tokenizer/tokenizer.json",
        "SHA256SUMS",
    ] {
        damage(&out.join("checkpoint-6").join(file));
        let mut command = pretrain(folder.path(), &settings);
        let output = command.arg("--resume").assert().success();
        let said = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        assert!(said.contains("checkpoint-6"), "{file}: {said}");
        assert!(
            said.contains("resuming from out/checkpoint-4 instead"),
            "{file}: {said}"
        );
        // It is made again.
        assert!(files(&out.join("checkpoint-6")) == whole, "{file}");
    }
    // All of them: the newest is named.
    for step in [2, 4, 6] {
        damage(&out.join(format!("checkpoint-{step}/model.safetensors")));
    }
    let said = failure(pretrain(folder.path(), &settings).arg("--resume"), 1);
    assert!(said.contains("checkpoint-6/model.safetensors"), "{said}");
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let held = mpnet::checkpoint::Lock::acquire(&out).unwrap();
    let settings = ["--total-updates", "1"];
    let said = failure(&mut pretrain(folder.path(), &settings), 1);
    assert!(said.contains("in use by another run"), "{said}");
    drop(held);
    stdout(&mut pretrain(folder.path(), &settings));
}

#[test]
fn changed_flags_are_refused_and_accepted_with_override() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ["--total-updates", "4", "--save_steps", "2"];
    stdout(&mut pretrain(folder.path(), &settings));
    let other = ["--resume", "--resume-checkpoint", "out/checkpoint-2"];
    let other = [
        &settings[..],
        &other,
        &["--weight-decay", "0.1", "--seed", "1"],
    ]
    .concat();
    let said = failure(&mut pretrain(folder.path(), &other), 1);
    for word in ["--weight-decay was 0.01", "--seed was 12345", "--override"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    stdout(pretrain(folder.path(), &other).arg("--override"));
}

#[test]
fn parameters_that_are_no_numbers_are_skipped_counted_and_stop_the_run() {
    for engine in ["training-api", "session"] {
        let folder = tempfile::tempdir().unwrap();
        // Of what is poisoned no checkpoint is made, however often one is due.
        let settings = ["--engine", engine, "--eval-interval-steps", "100"];
        let first = [&settings[..], &["--total-updates", "2"]].concat();
        stdout(&mut pretrain(folder.path(), &first));
        let out = folder.path().join("out");
        // The same run, its parameters poisoned.
        let mut found = mpnet::checkpoint::load(&out.join("checkpoint-2")).unwrap();
        found.parameters[0].values[1000] = f32::NAN;
        found.step = 3;
        let poisoned = mpnet::checkpoint::save(&out, &found).unwrap();
        let on = [
            &settings[..],
            &["--total-updates", "50", "--max-skipped-updates", "4"],
            &["--save_steps", "1", "--keep-checkpoints", "1"],
            &["--resume", "--override", "--resume-checkpoint"],
            &[poisoned.to_str().unwrap()],
        ];
        let mut command = pretrain(folder.path(), &on.concat());
        let output = command.assert().code(1).get_output().clone();
        let said = String::from_utf8(output.stderr).unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(
            printed.contains("update 5 is skipped, 2 in a row"),
            "{printed}"
        );
        assert!(said.contains("4 updates in a row were skipped"), "{said}");
        let refused = "no checkpoint of update 4: ";
        assert!(printed.contains(refused), "{printed}");
        let bytes = std::fs::read(out.join("skipped-batch-7.safetensors")).unwrap();
        let batch = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(
            batch.tensor("micro_batch.0.input_ids").unwrap().shape()[0],
            8
        );
        let latest = std::fs::read_to_string(out.join("latest")).unwrap();
        assert_eq!(latest, "checkpoint-2\n");
        mpnet::checkpoint::load(&out.join("checkpoint-2")).unwrap();
    }
}
