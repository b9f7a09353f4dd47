//! `pretrain-mpnet` end to end on the example text.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::{
    assert_same_files, binary, failure, files, pretrain, repository, small_text, stdout,
    validation_losses,
};

#[test]
fn a_short_run_learns_and_leaves_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let printed = stdout(&mut pretrain(
        folder.path(),
        &[
            "--total-updates",
            "60",
            "--lr",
            "2e-3",
            "--logging-steps",
            "20",
            "--eval-interval-steps",
            "30",
        ],
    ));
    let losses = validation_losses(&printed);
    assert_eq!(losses.len(), 3, "{printed}");
    assert!(losses[1] < losses[0], "{losses:?}");
    assert!(losses[2] < losses[0] - 2.0, "{losses:?}");
    for figure in [
        "| acc ",
        "| lr ",
        "| gnorm ",
        "tokens/s",
        "update 20/60",
        "test, best checkpoint",
    ] {
        assert!(printed.contains(figure), "no '{figure}': {printed}");
    }
    let left: Vec<String> = files(&folder.path().join("out"))
        .keys()
        .map(|p| p.display().to_string())
        .collect();
    // Of update 30, which was the best for a while, nothing is left.
    let expected = [
        "best",
        "checkpoint-60/SHA256SUMS",
        "checkpoint-60/data_state.json.zst",
        "checkpoint-60/model.safetensors",
        "checkpoint-60/optimizer.safetensors",
        "checkpoint-60/tokenizer/tokenizer.json",
        "checkpoint-60/tokenizer/tokenizer_config.json",
        "checkpoint-60/trainer_state.json",
        "config.toml",
        "latest",
        "metrics.jsonl",
    ];
    assert_eq!(left, expected);
}

#[test]
fn one_seed_gives_the_same_bytes_and_another_does_not() {
    let folders = ["7", "7", "8"].map(|seed| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = binary("pretrain-mpnet", folder.path());
        small_text(folder.path(), "valid.txt");
        small_text(folder.path(), "test.txt");
        // All threads, as by default.
        command
            .args(["--preset", "tiny", "--batch-size", "8"])
            .args(["--update-freq", "2", "--total-updates", "6"])
            .args(["--seed", seed, "--checkpoint-dir", "out"])
            .args(["--valid-file", "valid.txt", "--test-file", "test.txt"])
            .arg("--tokenizer-name")
            .arg(repository("examples/tokenizer"))
            .arg("--train-dir")
            .arg(repository("examples/corpus/train"));
        stdout(&mut command);
        folder
    });
    let out = |i: usize| folders[i].path().join("out");
    assert_same_files(&out(0), &out(1));
    let weights = |i: usize| std::fs::read(out(i).join("checkpoint-6/model.safetensors")).unwrap();
    assert_ne!(weights(0), weights(2));
}

/// A learning rate that does not depend on how long the run is to be.
const CONSTANT_RATE: [&str; 4] = ["--end-learning-rate", "1e-3", "--warmup-updates", "0"];

/// A constant learning rate, a validation every 6 updates, and `further`.
fn constant(folder: &Path, further: &[&str]) -> assert_cmd::Command {
    let settings = ["--eval-interval-steps", "6"];
    pretrain(folder, &[&CONSTANT_RATE[..], &settings, further].concat())
}

#[test]
fn a_resumed_run_is_the_run_that_was_not_stopped() {
    let straight = tempfile::tempdir().unwrap();
    stdout(&mut constant(straight.path(), &["--total-updates", "12"]));

    let stopped = tempfile::tempdir().unwrap();
    stdout(&mut constant(stopped.path(), &["--total-updates", "6"]));
    // Elsewhere, from a checkpoint that is named.
    let elsewhere = tempfile::tempdir().unwrap();
    let named = stopped.path().join("out/checkpoint-6");
    let named = ["--resume-checkpoint", named.to_str().unwrap()];
    let on = ["--total-updates", "12", "--resume"];
    stdout(&mut constant(elsewhere.path(), &[&on[..], &named].concat()));
    // In the same folder.
    let printed = stdout(&mut constant(stopped.path(), &on));
    assert!(!printed.contains("validation after update 0"), "{printed}");
    assert!(!printed.contains("validation after update 6"), "{printed}");

    let expected = |folder: &Path| files(&folder.join("out/checkpoint-12"));
    let all = expected(straight.path());
    for folder in [stopped.path(), elsewhere.path()] {
        let found = expected(folder);
        assert!(all.keys().eq(found.keys()), "{:?}", found.keys());
        for (name, bytes) in &all {
            assert!(found[name] == *bytes, "{} differs", name.display());
        }
        for pointer in ["latest", "best"] {
            let text = std::fs::read_to_string(folder.join("out").join(pointer)).unwrap();
            assert_eq!(text, "checkpoint-12\n");
        }
    }
}

#[test]
fn checkpoints_at_intervals_are_pruned_but_best_and_latest_stay() {
    let folder = tempfile::tempdir().unwrap();
    let further = [
        "--total-updates",
        "8",
        "-save_steps",
        "2",
        "--keep-checkpoints",
        "2",
        "-gc_steps",
        "1",
        "-warmup_steps=1",
        "-wd",
        "0.02",
        "-grad_clip",
        "0.5",
        "-end_lr",
        "1e-4",
        "-num_buckets",
        "16",
        "-activation",
        "relu",
        "-prenorm",
    ];
    stdout(&mut pretrain(
        folder.path(),
        &[further.as_slice(), &["--eval-interval-steps", "4"]].concat(),
    ));
    let out = folder.path().join("out");
    let pointed = |name: &str| {
        std::fs::read_to_string(out.join(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!(pointed("latest"), "checkpoint-8");
    assert!(out.join(pointed("best")).is_dir());
    assert!(out.join("checkpoint-6").is_dir());
    assert!(!out.join("checkpoint-2").exists());
    let state = std::fs::read(out.join("checkpoint-8/trainer_state.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    let model = &state["model"];
    assert_eq!(model["activation_fn"], "relu");
    assert_eq!(model["normalize_before"], true);
    assert_eq!(model["relative_attention_num_buckets"], 16);
    assert_eq!(state["config"]["schedule"]["warmup_updates"], 1);
    assert_eq!(state["config"]["schedule"]["end"], 1e-4);
    assert_eq!(state["config"]["checkpoint_interval"], 2);
}

#[test]
fn annotated_mpnets_second_command_runs_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    small_text(folder.path(), "valid.txt");
    small_text(folder.path(), "test.txt");
    let mut command = binary("pretrain-mpnet", folder.path());
    command
        .arg("--train-dir")
        .arg(repository("examples/corpus/train"))
        .args(["--valid-file", "valid.txt", "--test-file", "test.txt"])
        .args(["--total-updates", "1", "--warmup-updates", "1000"])
        .args(["--batch-size", "2", "--update-freq", "4", "--lr", "0.0002"])
        // Its default is microsoft/mpnet-base, and MPNet-base is too large a model for a test.
        .arg("--tokenizer-name")
        .arg(repository("examples/tokenizer"))
        .args(["--preset", "tiny"]);
    stdout(&mut command);
    let mut command = binary("convert-to-hf", folder.path());
    command
        .args([
            "--mpnet-checkpoint-path",
            "./checkpoints/best_checkpoint.pt",
        ])
        .args(["--hf-model-folder-path", "./my_cool_hf_model/"]);
    stdout(&mut command);
    assert!(
        folder
            .path()
            .join("my_cool_hf_model/model.safetensors")
            .is_file()
    );
}

#[test]
fn flags_that_exclude_each_other_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    for (further, word) in [
        (vec!["--hf-model-path", "x", "--resume"], "--hf-model-path"),
        (vec!["--resume-checkpoint", "x"], "--resume"),
        (vec!["--no-such-flag"], "--no-such-flag"),
    ] {
        let said = failure(&mut pretrain(folder.path(), &further), 2);
        assert!(said.contains(word), "{further:?}: {said}");
    }
    let mut one_file = binary("pretrain-mpnet", folder.path());
    let said = failure(one_file.args(["--train-dir", "x"]), 2);
    assert!(
        said.contains("--valid-file") && said.contains("--test-file"),
        "{said}"
    );
    assert!(!folder.path().join("out").exists());
    assert!(!folder.path().join("checkpoints").exists());
}

#[test]
fn a_finished_run_resumed_elsewhere_is_only_tested() {
    let folder = tempfile::tempdir().unwrap();
    let first = ["--total-updates", "2"];
    stdout(&mut pretrain(folder.path(), &first));
    let further = ["--resume", "--resume-checkpoint", "out", "--checkpoint-dir"];
    let mut again = pretrain(
        folder.path(),
        &[&first[..], &further, &["elsewhere"]].concat(),
    );
    let output = again.assert().success().get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--total-updates 2"), "{said}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("test, best checkpoint"), "{printed}");
    let weights = |out: &str| {
        let path = folder.path().join(out).join("checkpoint-2");
        std::fs::read(path.join("model.safetensors")).unwrap()
    };
    assert!(weights("out") == weights("elsewhere"));
}

/// A run of which `signal` stops after a line that starts with `line`: what it printed from then on.
#[cfg(unix)]
fn stopped_by(signal: &str, code: i32, command: &assert_cmd::Command, line: &str) -> Vec<String> {
    let mut child = Command::new(command.get_program())
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reached = lines.any(|found| found.unwrap().starts_with(line));
    assert!(reached, "the run never printed '{line}'");
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let rest: Vec<String> = lines.map(|line| line.unwrap()).collect();
    assert_eq!(child.wait().unwrap().code(), Some(code), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("saved")), "{rest:?}");
    rest
}

#[test]
#[cfg(unix)]
fn an_interrupt_saves_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let further = ["--total-updates", "100000", "--logging-steps", "1"];
    let run = pretrain(folder.path(), &further);
    stopped_by("-INT", 130, &run, "update 2/");
    let out = folder.path().join("out");
    let latest = std::fs::read_to_string(out.join("latest")).unwrap();
    mpnet::checkpoint::load(&out.join(latest.trim())).unwrap();
}

#[test]
#[cfg(unix)]
fn a_termination_before_the_first_update_loses_nothing() {
    let straight = tempfile::tempdir().unwrap();
    let settings = ["--total-updates", "2"];
    // Long enough to be stopped in.
    let valid = repository("examples/corpus/valid.txt");
    let valid = ["--valid-file", valid.to_str().unwrap()];
    let settings = [&settings[..], &valid].concat();
    stdout(&mut pretrain(straight.path(), &settings));
    let stopped = tempfile::tempdir().unwrap();
    let run = pretrain(stopped.path(), &settings);
    stopped_by("-TERM", 143, &run, "ONNX Runtime");
    assert!(stopped.path().join("out/checkpoint-0").is_dir());
    stdout(pretrain(stopped.path(), &settings).arg("--resume"));
    let last = |folder: &Path| files(&folder.join("out/checkpoint-2"));
    assert!(last(straight.path()) == last(stopped.path()));
}

#[test]
#[cfg(unix)]
fn a_stop_during_the_test_leaves_the_last_parameters() {
    let test = repository("examples/corpus/test.txt");
    let settings = [
        "--total-updates",
        "2",
        "--eval-interval-steps",
        "1",
        "--warmup-updates",
        "0",
        "--lr",
        "0.5",
        "--end-learning-rate",
        "0.5",
        "--test-file",
        test.to_str().unwrap(),
    ];
    let [straight, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    stdout(&mut pretrain(straight.path(), &settings));
    // At this rate the second update makes it worse: the best parameters are not the last.
    let best = std::fs::read_to_string(straight.path().join("out/best")).unwrap();
    assert_eq!(best, "checkpoint-1\n");
    let run = pretrain(stopped.path(), &settings);
    let rest = stopped_by("-INT", 130, &run, "validation after update 2");
    assert!(
        !rest.iter().any(|line| line.starts_with("test")),
        "{rest:?}"
    );
    assert_same_files(&straight.path().join("out"), &stopped.path().join("out"));
}

/// Gigabytes of activations that a dry run says.
fn activations(said: &str) -> f64 {
    let (_, rest) = said.split_once("activations").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_dry_run_says_what_its_graph_takes_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for engine in ["training-api", "session"] {
        let [fused, expanded] = ["fused", "expanded"].map(|attention| {
            let settings = ["--dry-run", "--engine", engine, "--attention", attention];
            let said = stdout(&mut pretrain(folder.path(), &settings));
            for word in [
                engine,
                "parameters",
                "moments",
                "tokens",
                "time",
                "tokens/s",
            ] {
                assert!(said.contains(word), "{word}: {said}");
            }
            activations(&said)
        });
        // One has the weights of every pair of tokens in memory, the other none.
        assert!(
            fused > 0.0 && fused < expanded,
            "{engine}: {fused} and {expanded} GB"
        );
    }
    assert!(!folder.path().join("out").exists());
}
