//! `pretrain-mpnet` end to end on the example text.

mod common;

use common::{
    assert_same_files, binary, failure, files, pretrain, repository, small_text, stdout,
    validation_losses,
};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

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
        ],
    ));
    let losses = validation_losses(&printed);
    assert_eq!(losses.len(), 2, "{printed}");
    assert!(losses[1] < losses[0] - 2.0, "{losses:?}");
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
    let expected = [
        "best",
        "checkpoint-60/model.safetensors",
        "checkpoint-60/optimizer.safetensors",
        "checkpoint-60/tokenizer/tokenizer.json",
        "checkpoint-60/tokenizer/tokenizer_config.json",
        "checkpoint-60/trainer_state.json",
        "latest",
    ];
    assert_eq!(left, expected);
}

#[test]
fn one_seed_gives_the_same_bytes_and_another_does_not() {
    let folders: Vec<_> = ["7", "7", "8"]
        .iter()
        .map(|seed| {
            let folder = tempfile::tempdir().unwrap();
            let texts = [
                small_text(folder.path(), "valid.txt"),
                small_text(folder.path(), "test.txt"),
            ];
            drop(texts);
            let mut command = binary("pretrain-mpnet", folder.path());
            command
                .args([
                    "--preset",
                    "tiny",
                    "--batch-size",
                    "8",
                    "--update-freq",
                    "2",
                ])
                .args([
                    "--total-updates",
                    "6",
                    "--seed",
                    seed,
                    "--checkpoint-dir",
                    "out",
                ])
                .args(["--valid-file", "valid.txt", "--test-file", "test.txt"])
                .arg("--tokenizer-name")
                .arg(repository("examples/tokenizer"))
                .arg("--train-dir")
                .arg(repository("examples/corpus/train"));
            stdout(&mut command);
            folder
        })
        .collect();
    let out = |i: usize| folders[i].path().join("out");
    assert_same_files(&out(0), &out(1));
    let weights = |i: usize| std::fs::read(out(i).join("checkpoint-6/model.safetensors")).unwrap();
    assert_ne!(weights(0), weights(2));
}

#[test]
fn a_resumed_run_is_the_run_that_was_not_stopped() {
    let settings = |further: &[&'static str]| {
        let all = [
            "--total-updates",
            "12",
            "--save_steps",
            "6",
            "--eval-interval-steps",
            "100",
        ];
        [all.as_slice(), further].concat()
    };
    let straight = tempfile::tempdir().unwrap();
    stdout(&mut pretrain(straight.path(), &settings(&[])));

    let resumed = tempfile::tempdir().unwrap();
    stdout(&mut pretrain(resumed.path(), &settings(&[])));
    // As if the run had been killed after its sixth update.
    let out = resumed.path().join("out");
    std::fs::remove_dir_all(out.join("checkpoint-12")).unwrap();
    std::fs::write(out.join("latest"), "checkpoint-6\n").unwrap();
    std::fs::remove_file(out.join("best")).unwrap();
    let printed = stdout(&mut pretrain(resumed.path(), &settings(&["--resume"])));
    assert!(!printed.contains("validation after update 0"), "{printed}");
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |f: &Path| std::fs::read(f.join("out/checkpoint-12").join(file)).unwrap();
        assert!(
            read(straight.path()) == read(resumed.path()),
            "{file} differs"
        );
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

/// A stop by `signal` after the first logged update: the exit code, and the checkpoint it leaves.
#[cfg(unix)]
fn stopped_by(signal: &str, code: i32) {
    let folder = tempfile::tempdir().unwrap();
    let prepared = pretrain(
        folder.path(),
        &["--total-updates", "100000", "--logging-steps", "1"],
    );
    let mut child = Command::new(prepared.get_program())
        .args(prepared.get_args())
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let running = lines.any(|line| line.unwrap().starts_with("update 2/"));
    assert!(running, "the run ended before its second update");
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let rest: Vec<String> = lines.map(|line| line.unwrap()).collect();
    assert_eq!(child.wait().unwrap().code(), Some(code), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("saved")), "{rest:?}");
    let out = folder.path().join("out");
    let latest = std::fs::read_to_string(out.join("latest")).unwrap();
    mpnet::checkpoint::load(&out.join(latest.trim())).unwrap();
}

#[test]
#[cfg(unix)]
fn an_interrupt_saves_and_stops() {
    stopped_by("-INT", 130);
}

#[test]
#[cfg(unix)]
fn a_termination_saves_and_stops() {
    stopped_by("-TERM", 143);
}
