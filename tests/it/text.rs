//! Text as people keep it, on the command line: what is taken, left out and mixed, and what of it is said.

use std::path::Path;

use serde_json::Value;

use crate::common::{
    binary, contents, failure, files, pretrain, pretrain_on, repository, small_text, stdout,
};

/// What a run that succeeds says on standard error.
fn said(run: &mut assert_cmd::Command) -> String {
    let output = run.assert().success().get_output().stderr.clone();
    String::from_utf8(output).unwrap()
}

/// The last checkpoint's bytes of what updates depend on, where every text is trained on in one order.
fn trained(folder: &Path) -> Vec<Vec<u8>> {
    let found = files(&folder.join("out/checkpoint-2"));
    let names = ["model.safetensors", "optimizer.safetensors"];
    names.map(|name| found[Path::new(name)].clone()).into()
}

/// The example text in two files `a.txt` and `b.txt` of `texts` in `folder`.
fn two_files(folder: &Path) {
    let text = std::fs::read_to_string(repository("examples/corpus/train/00.txt")).unwrap();
    let lines: Vec<&str> = text.lines().take(400).collect();
    std::fs::create_dir(folder.join("texts")).unwrap();
    for (name, part) in ["a.txt", "b.txt"].into_iter().zip(lines.chunks(200)) {
        std::fs::write(folder.join("texts").join(name), part.join("\n")).unwrap();
    }
}

/// What the log of the run in `out` says of its text.
fn summary(folder: &Path) -> Value {
    let log = std::fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    let mut lines = log
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    lines.find_map(|line| line.get("text").cloned()).unwrap()
}

const TWO: [&str; 2] = ["--total-updates", "2"];

#[test]
fn what_stands_beside_text_is_left_out_and_named() {
    let [alone, beside] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for folder in [&alone, &beside] {
        two_files(folder.path());
    }
    let texts = beside.path().join("texts");
    for (name, text) in [
        ("notes.foo", "another ending\n"),
        ("README.md", "about it\n"),
        ("_posts/c.txt", "hidden by its name\n"),
    ] {
        let path = texts.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    // A name that is no UTF-8 can't be in the log as it is, and keeps no line out of it.
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"README_\xe9.txt");
        std::fs::write(texts.join(name), "about it\n").unwrap();
    }
    let run = |folder: &Path| said(&mut pretrain_on(folder, Path::new("texts"), &TWO));
    assert_eq!(run(alone.path()), "");
    let warned = run(beside.path());
    for words in [
        "leaving out 1 file of other kinds: notes.foo",
        "leaving out 1 folder named with a _ in front (a path or pattern with it reads them): _posts",
    ] {
        assert!(warned.contains(words), "no '{words}': {warned}");
    }
    assert!(!warned.contains("README"), "{warned}");
    assert!(trained(alone.path()) == trained(beside.path()));
    let told = summary(beside.path()).to_string();
    assert!(
        told.contains("README.md") && told.contains("notes.foo"),
        "{told}"
    );
}

#[test]
fn validation_text_inside_the_training_folder_is_not_trained_on() {
    let [outside, inside] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for folder in [&outside, &inside] {
        two_files(folder.path());
    }
    let texts = inside.path().join("texts");
    for (name, as_name) in [("valid.txt", "held-out.txt"), ("test.txt", "test.txt")] {
        let from = small_text(inside.path(), name);
        std::fs::copy(from, texts.join(as_name)).unwrap();
    }
    let without = said(&mut pretrain_on(outside.path(), Path::new("texts"), &TWO));
    assert_eq!(without, "");
    let mut run = pretrain_on(inside.path(), Path::new("texts"), &TWO);
    run.args([
        "--valid-file",
        "texts/held-out.txt",
        "--test-file",
        "texts/test.txt",
    ]);
    let warned = said(&mut run);
    let words =
        "leaving out 2 files that are validation or test text of this run: held-out.txt, test.txt";
    assert!(warned.contains(words), "{warned}");
    assert!(trained(outside.path()) == trained(inside.path()));
}

#[test]
fn several_training_texts_without_weights_are_one() {
    let [together, apart] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for folder in [&together, &apart] {
        two_files(folder.path());
    }
    stdout(&mut pretrain_on(together.path(), Path::new("texts"), &TWO));
    let mut both = pretrain_on(apart.path(), Path::new("texts/a.txt"), &TWO);
    // The second one has the files of the others, too: each counts once.
    both.args(["--train-dir", "texts", "--train-dir", "texts/b.txt"]);
    assert_eq!(said(&mut both), "");
    assert!(trained(together.path()) == trained(apart.path()));
    // A resumed run has the same ones, in the same order.
    let resumed = |train: &[&str]| {
        let mut run = pretrain_on(
            apart.path(),
            Path::new(train[0]),
            &["--resume", "--dry-run"],
        );
        run.args(["--total-updates", "2"]);
        run.args(train[1..].iter().flat_map(|next| ["--train-dir", *next]));
        run
    };
    stdout(&mut resumed(&["texts/a.txt", "texts", "texts/b.txt"]));
    let other = failure(&mut resumed(&["texts/b.txt"]), 1);
    assert!(other.contains("--train-dir"), "{other}");
}

#[test]
fn paths_of_a_mixture_lead_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    two_files(folder.path());
    std::fs::create_dir(folder.path().join("settings")).unwrap();
    let mixture = "[[part]]\ntrain-dir = '../texts/a.txt'\nweight = 3\n\
                   [[part]]\ntrain-dir = '../texts/b.txt'\nweight = 1\nmax_tokens = 5\n";
    let file = folder.path().join("settings/mix.toml");
    std::fs::write(&file, mixture).unwrap();
    let run = || {
        let mut run = binary("pretrain-mpnet", folder.path());
        run.args([
            "--preset",
            "tiny",
            "--checkpoint-dir",
            "out",
            "--batch-size",
            "4",
        ]);
        run.args([
            "--update-freq",
            "1",
            "--total-updates",
            "1",
            "--mix",
            "settings/mix.toml",
        ]);
        run.arg("--tokenizer-name")
            .arg(repository("examples/tokenizer"));
        run.args(["--valid-file", "texts/a.txt", "--test-file", "texts/b.txt"]);
        run
    };
    // What the file says is shown as it stands there.
    let wrong = failure(&mut run(), 2);
    assert!(
        wrong.contains("7 | max_tokens = 5") && wrong.contains("unknown field `max_tokens`"),
        "{wrong}"
    );
    std::fs::write(&file, mixture.replace("max_tokens = 5\n", "")).unwrap();
    let printed = stdout(&mut run());
    assert!(
        printed.contains("text settings/../texts/a.txt (weight 3)"),
        "{printed}"
    );
}

/// The rows of a checkpoint that wait in the shuffle buffer, as ids of tokens.
fn waiting_rows(folder: &Path) -> String {
    let found = mpnet::checkpoint::load(&folder.join("out/checkpoint-1")).unwrap();
    let state: mpnet::data::LoaderState = serde_json::from_value(found.data).unwrap();
    format!("{state:?}")
}

#[test]
fn special_tokens_in_a_text_are_words_unless_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts");
    std::fs::create_dir(&texts).unwrap();
    let line = "in the <mask> beginning <s> was the <pad> word\n";
    std::fs::write(texts.join("a.txt"), line.repeat(100)).unwrap();
    let run = |further: &[&str]| {
        let one = ["--total-updates", "1"];
        let mut run = pretrain_on(
            folder.path(),
            Path::new("texts"),
            &[&one[..], further].concat(),
        );
        assert_eq!(said(&mut run), "");
        let rows = waiting_rows(folder.path());
        std::fs::remove_dir_all(folder.path().join("out")).unwrap();
        rows
    };
    let (words, tokens) = (run(&[]), run(&["--special-in-text"]));
    // `<mask>` is token 4095; as words it is `<`, `mask` and `>`.
    assert!(!words.contains("4095"), "{words}");
    assert!(tokens.contains("4095"), "{tokens}");
}

#[test]
fn what_short_rows_cost_the_others_is_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts");
    std::fs::create_dir(&texts).unwrap();
    let text = std::fs::read_to_string(repository("examples/corpus/train/00.txt")).unwrap();
    let long: String = text.lines().take(8).collect::<Vec<_>>().join(" ");
    // In each batch some rows of one word, put together as they come.
    std::fs::write(texts.join("a.txt"), format!("{long}\nword\n").repeat(100)).unwrap();
    let mixed = ["--no-group-by-length", "--logging-steps", "1"];
    let printed = |further: &[&str]| {
        let _ = std::fs::remove_dir_all(folder.path().join("out"));
        let further = [&TWO[..], further].concat();
        stdout(&mut pretrain_on(
            folder.path(),
            Path::new("texts"),
            &further,
        ))
    };
    let costly = printed(&mixed);
    assert!(costly.contains("short rows leave"), "{costly}");
    let log = std::fs::read_to_string(folder.path().join("out/metrics.jsonl")).unwrap();
    let share = log.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line.get("predicted_share")?.as_f64()
    });
    assert!(share.is_some_and(|share| share < 0.2), "{share:?}");
    // Text of rows that are alike costs nothing worth a word.
    std::fs::write(texts.join("a.txt"), format!("{long}\n").repeat(100)).unwrap();
    let even = printed(&mixed);
    assert!(!even.contains("short rows"), "{even}");
}

/// A client that sends for ever, of a run that is asked to stop.
#[cfg(unix)]
#[test]
fn a_client_of_wandb_that_never_returns_holds_up_no_stop() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let client = programs.join("wandb");
    // Long enough for a run that waits as it does without a signal to see it end well.
    std::fs::write(
        &client,
        "#!/bin/sh\n[ \"$1\" = --version ] || exec sleep 15\n",
    )
    .unwrap();
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755)).unwrap();
    let further = [
        "--wandb",
        "--tensorboard-log-dir",
        "board",
        "--logging-steps",
        "1",
    ];
    let run = pretrain(
        folder.path(),
        &[&["--total-updates", "100000"][..], &further].concat(),
    );
    let mut command = std::process::Command::new(run.get_program());
    let path = std::env::var("PATH").unwrap();
    command
        .args(run.get_args())
        .current_dir(folder.path())
        .env("HF_HUB_OFFLINE", "1")
        .env("PATH", format!("{}:{path}", programs.display()))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let trains = || {
        let log = std::fs::read_to_string(folder.path().join("out/metrics.jsonl"));
        log.is_ok_and(|log| log.contains("tokens_per_second"))
    };
    while !trains() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let id = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-TERM", &id])
        .status();
    assert!(sent.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(128 + 15), "{said}");
    assert!(
        said.contains("wandb sync has not returned and was ended"),
        "{said}"
    );
    assert!(
        said.contains("wandb sync --sync-tensorboard --append"),
        "{said}"
    );
    assert!(contents(folder.path()).contains_key(Path::new("out/latest")));
}

/// pandas' `to_json` and `json.dump` of a dictionary of lists.
#[test]
fn columns_of_json_train_as_lines_do() {
    let [lines, columns] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for folder in [&lines, &columns] {
        two_files(folder.path());
    }
    for name in ["a.txt", "b.txt"] {
        let path = columns.path().join("texts").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let rows: Vec<&str> = text.lines().collect();
        let ids: Vec<usize> = (0..rows.len()).collect();
        let json = serde_json::json!({"text": rows, "id": ids}).to_string();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(path.with_extension("json"), json).unwrap();
    }
    for folder in [&lines, &columns] {
        stdout(&mut pretrain_on(folder.path(), Path::new("texts"), &TWO));
    }
    assert!(trained(lines.path()) == trained(columns.path()));
}
