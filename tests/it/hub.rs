//! A Hub on the loopback: trained on its dataset, its models read, and both refused with a reason.

use std::io::{BufRead, BufReader};
use std::path::Path;

use parquet::basic::Compression;
use serde_json::Value;

use crate::common::hub::{Fault, HubServer, Repo, Trouble, company, parquet_of};
use crate::common::{self, binary, failure, files, repository, stdout};

/// The example text as a dataset `o/bible` of two files, the lines as they are.
fn server() -> HubServer {
    let text = std::fs::read_to_string(repository("examples/corpus/train/00.txt")).unwrap();
    let lines: Vec<Option<&[u8]>> = text.lines().map(|line| Some(line.as_bytes())).collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    let repo = Repo {
        files: [("train-0.parquet", first), ("train-1.parquet", second)]
            .map(|(name, rows)| (name.to_owned(), parquet_of(rows, 100, Compression::SNAPPY)))
            .into(),
        ..Repo::default()
    };
    let server = HubServer::start();
    server.add("datasets/o/bible", repo);
    server
}

fn pretrain(server: &HubServer, folder: &Path, further: &[&str]) -> assert_cmd::Command {
    let mut command = binary("pretrain-mpnet", folder);
    command
        .env_remove("HF_HUB_OFFLINE")
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_HOME", folder.join("hf"))
        .args(["--dataset-name", "o/bible", "--eval-samples", "20"])
        .args(["--preset", "tiny", "--checkpoint-dir", "out"])
        .args(["--batch-size", "4", "--update-freq", "1", "--lr", "1e-3"])
        .args(["--end-learning-rate", "1e-3", "--warmup-updates", "0"])
        .arg("--tokenizer-name")
        .arg(repository("examples/tokenizer"))
        .args(further);
    command
}

/// The Hub answers long after the signal.
#[cfg(unix)]
#[test]
fn a_signal_ends_a_run_that_waits_for_the_hub() {
    let server = server();
    server.trouble(Trouble {
        late: std::time::Duration::from_secs(3600),
        ..Trouble::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let run = pretrain(&server, folder.path(), &["--total-updates", "1"]);
    let mut command = std::process::Command::new(run.get_program());
    command.args(run.get_args()).current_dir(folder.path());
    command
        .env_remove("HF_HUB_OFFLINE")
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_HOME", folder.path().join("hf"))
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    // That it waits, and for what, is said long before it gives up.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let waits = |line: &String| line.contains("waiting for the dataset o/bible");
    let mut said: Vec<String> = Vec::new();
    while !said.iter().any(waits) {
        let line = lines.next().expect("it says that it waits").unwrap();
        assert!(!line.contains("trying again"), "{line}");
        said.push(line);
    }
    let id = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-TERM", &id])
        .status();
    assert!(sent.unwrap().success());
    let status = child.wait().unwrap();
    said.extend(lines.map(Result::unwrap));
    let said = said.join("\n");
    assert_eq!(status.code(), Some(128 + 15), "{said}");
    assert!(said.contains("stopped by signal 15"), "{said}");
    assert!(!folder.path().join("out").exists());
}

/// Only what is named has the authority; `SSL_CERT_DIR` and the system's store are read by the process itself.
#[cfg(target_os = "linux")]
#[test]
fn a_companys_authority_is_taken_from_variables_and_from_the_system() {
    use crate::common::shim;
    let folder = tempfile::tempdir().unwrap();
    let authorities = folder.path().join("authorities");
    std::fs::create_dir(&authorities).unwrap();
    let (file, server) = company(&authorities);
    server.add("models/o/tokenizer", tokenizer(|_| {}));
    let check = || {
        let cache = tempfile::tempdir().unwrap();
        let mut check = binary("mpnet", folder.path());
        check
            .env_remove("HF_HUB_OFFLINE")
            .env("HF_ENDPOINT", &server.endpoint)
            .env("HF_HOME", cache.path())
            .args(["tokenizer", "check", "o/tokenizer"]);
        for variable in [
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
        ] {
            check.env_remove(variable);
        }
        (check, cache)
    };
    let (mut without, _cache) = check();
    let said = failure(&mut without, 1);
    assert!(
        said.contains("UnknownIssuer") && said.contains("SSL_CERT_FILE"),
        "{said}"
    );
    for (variable, path) in [
        ("SSL_CERT_FILE", &file),
        ("SSL_CERT_DIR", &authorities),
        ("REQUESTS_CA_BUNDLE", &file),
        ("REQUESTS_CA_BUNDLE", &authorities),
        ("CURL_CA_BUNDLE", &file),
    ] {
        let (mut with, _cache) = check();
        let printed = stdout(with.env(variable, path));
        assert!(
            printed.contains("it can be trained with"),
            "{variable}: {printed}"
        );
    }
    // A company's administrator has put it into the system's store.
    let (mut with, _cache) = check();
    shim::load(&mut with, folder.path())
        .env(shim::FROM, "/etc/ssl/certs/ca-certificates.crt")
        .env(shim::TO, &file);
    let printed = stdout(&mut with);
    assert!(printed.contains("it can be trained with"), "{printed}");
}

#[test]
fn a_run_on_a_dataset_goes_on_where_it_was() {
    let server = server();
    let [straight, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    server.go_wrong(&[Fault::RetryAfter(429), Fault::Cut(100)]);
    let printed = stdout(&mut pretrain(
        &server,
        straight.path(),
        &["--total-updates", "6"],
    ));
    // Which texts of the dataset these are.
    let text = "text the split train of the dataset o/bible at commit";
    assert!(printed.contains(text), "{printed}");
    stdout(&mut pretrain(
        &server,
        stopped.path(),
        &["--total-updates", "3"],
    ));
    let on = ["--total-updates", "6", "--resume"];
    stdout(&mut pretrain(&server, stopped.path(), &on));
    let of = |folder: &Path| files(&folder.join("out/checkpoint-6"));
    let (expected, found) = (of(straight.path()), of(stopped.path()));
    for name in [
        "model.safetensors",
        "optimizer.safetensors",
        "data_state.json.zst",
    ] {
        assert!(
            expected[Path::new(name)] == found[Path::new(name)],
            "{name} differs"
        );
    }
}

/// The example tokenizer as a repository, after `change`.
fn tokenizer(change: impl Fn(&mut Value)) -> Repo {
    let read = |name: &str| std::fs::read(repository("examples/tokenizer").join(name)).unwrap();
    let mut definition = serde_json::from_slice(&read("tokenizer.json")).unwrap();
    change(&mut definition);
    let files = [
        ("tokenizer.json", definition.to_string().into_bytes()),
        ("tokenizer_config.json", read("tokenizer_config.json")),
    ];
    Repo {
        files: files.map(|(name, bytes)| (name.to_owned(), bytes)).into(),
        ..Repo::default()
    }
}

#[test]
fn a_tokenizer_by_its_name_is_compared_when_a_run_goes_on() {
    let server = server();
    server.add("models/o/tokenizer", tokenizer(|_| {}));
    server.add(
        "models/o/other",
        tokenizer(|definition| {
            let vocabulary = &mut definition["model"]["vocab"];
            let the = vocabulary["the"].take();
            vocabulary["the"] = vocabulary["and"].take();
            vocabulary["and"] = the;
        }),
    );
    let folder = tempfile::tempdir().unwrap();
    let run = |updates: &str, name: &str, further: &[&str]| {
        let mut command = pretrain(&server, folder.path(), &["--total-updates", updates]);
        command.args(["--tokenizer-name", name]).args(further);
        command
    };
    stdout(&mut run("1", "o/tokenizer", &[]));
    let said = failure(&mut run("2", "o/other", &["--resume"]), 1);
    for word in ["--tokenizer-name is another tokenizer", "--override"] {
        assert!(said.contains(word), "no '{word}': {said}");
    }
    stdout(&mut run("2", "o/tokenizer", &["--resume"]));
    stdout(&mut run("3", "o/other", &["--resume", "--override"]));
}

#[test]
fn what_the_hub_refuses_is_said() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    // What is not refused ends soon.
    let said = |further: &[&str]| {
        let mut command = pretrain(&server, folder.path(), &["--total-updates", "1"]);
        failure(command.args(further), 1)
    };
    let missing = said(&["--dataset-name", "o/nothing"]);
    assert!(
        missing.contains("o/nothing") && missing.contains("404"),
        "{missing}"
    );
    let split = said(&["--dataset-split", "validation"]);
    assert!(split.contains("validation"), "{split}");
    let field = said(&["--text-field", "body"]);
    assert!(field.contains("\"id\", \"text\", \"filler\""), "{field}");
    let kind = said(&["--text-field", "id"]);
    assert!(kind.contains("INT64, not a text"), "{kind}");
    assert!(!folder.path().join("out").exists());
    let good =
        [Some(&b"some text that is long enough to be trained on, of sixty-four characters"[..]);
            100];
    let with_one = |bad: &'static [u8]| {
        let mut rows = good;
        rows[60] = Some(bad);
        parquet_of(&rows, 40, Compression::UNCOMPRESSED)
    };
    // The header of the first page of texts.
    let mut damaged = parquet_of(&good, 40, Compression::UNCOMPRESSED);
    let text = damaged.windows(9).position(|w| w == b"some text");
    let text = text.expect("the text as it is");
    damaged[text - 30..text].fill(0xa5);
    for (dataset, file, gated, words) in [
        (
            "o/empty",
            parquet_of(&[], 9, Compression::SNAPPY),
            false,
            ["o/empty", "holds no text"],
        ),
        ("o/gated", with_one(b"x"), true, ["401", "HF_TOKEN"]),
        (
            "o/latin",
            with_one(b"caf\xe9"),
            false,
            ["row 60 is not UTF-8", "train.parquet"],
        ),
        (
            "o/corrupt",
            damaged,
            false,
            ["train.parquet", "it is damaged"],
        ),
    ] {
        let files = [("train.parquet".to_owned(), file)].into();
        server.add(
            &format!("datasets/{dataset}"),
            Repo {
                files,
                gated,
                ..Repo::default()
            },
        );
        let said = said(&["--dataset-name", dataset]);
        for word in words {
            assert!(said.contains(word), "no '{word}': {said}");
        }
    }
    let many = said(&["--eval-samples", "100000"]);
    assert!(many.contains("--eval-samples"), "{many}");
    let tokenizer = said(&["--tokenizer-name", "o/tokenizer"]);
    assert!(
        tokenizer.contains("o/tokenizer") && tokenizer.contains("404"),
        "{tokenizer}"
    );
}

/// `mpnet tokenizer train` on the server's datasets.
fn train_tokenizer(server: &HubServer, folder: &Path, further: &[&str]) -> assert_cmd::Command {
    let mut command = binary("mpnet", folder);
    command
        .env_remove("HF_HUB_OFFLINE")
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_HOME", folder.join("hf"))
        .args(["tokenizer", "train", "--output", "made"])
        .args(["--vocab-size", "600"])
        .args(further);
    command
}

#[test]
fn a_tokenizer_is_trained_on_a_dataset_as_on_files() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let made = |further: &[&str]| {
        stdout(&mut train_tokenizer(&server, folder.path(), further));
        let made = files(&folder.path().join("made"));
        std::fs::remove_dir_all(folder.path().join("made")).unwrap();
        made
    };
    let text = repository("examples/corpus/train/00.txt");
    let of_files = made(&[text.to_str().unwrap()]);
    server.go_wrong(&[Fault::Status(503), Fault::Cut(100)]);
    assert!(made(&["--dataset-name", "o/bible"]) == of_files);
    let of_few = made(&["--dataset-name", "o/bible", "--max-texts", "50"]);
    assert!(of_few != of_files);

    let refused = |further: &[&str], code: i32, words: &[&str]| {
        let said = failure(&mut train_tokenizer(&server, folder.path(), further), code);
        for word in words {
            assert!(said.contains(word), "no '{word}': {said}");
        }
        assert!(!folder.path().join("made").exists());
    };
    let dataset = ["--dataset-name", "o/bible"];
    refused(&["--dataset-name", "o/nothing"], 1, &["o/nothing", "404"]);
    refused(
        &[&dataset[..], &["--dataset-split", "validation"]].concat(),
        1,
        &["\"validation\""],
    );
    refused(
        &[&dataset[..], &["--dataset-revision", "v2"]].concat(),
        1,
        &["revision v2"],
    );
    refused(
        &[&dataset[..], &["--text-field", "body"]].concat(),
        1,
        &["\"id\", \"text\", \"filler\"", "--text-field"],
    );
    refused(
        &[&dataset[..], &["text.txt"]].concat(),
        2,
        &["--dataset-name"],
    );
    refused(&[], 2, &["TEXT"]);
}

/// The files of a HuggingFace model of shards, with the tokenizer of the examples.
pub fn sharded_model(folder: &Path) -> Repo {
    stdout(&mut common::pretrain(folder, &["--total-updates", "1"]));
    let mut convert = binary("convert-to-hf", folder);
    convert.args(["--mpnet-checkpoint-path", "out"]);
    convert.args(["--hf-model-folder-path", "hf", "--max-shard-size", "1MB"]);
    stdout(&mut convert);
    let files = files(&folder.join("hf"));
    let names = files.into_iter();
    Repo {
        files: names
            .map(|(name, bytes)| (name.to_str().unwrap().to_owned(), bytes))
            .collect(),
        ..Repo::default()
    }
}

#[test]
fn a_model_of_the_hub_is_imported_evaluated_exported_and_trained_on() {
    let server = HubServer::start();
    let folder = tempfile::tempdir().unwrap();
    let repo = sharded_model(folder.path());
    assert!(repo.files.len() > 6, "{:?}", repo.files.keys());
    server.add("models/o/model", repo);
    let mpnet = |name: &str, arguments: &[&str]| {
        let mut command = binary(name, folder.path());
        command.env_remove("HF_HUB_OFFLINE");
        command.env("HF_ENDPOINT", &server.endpoint);
        command.env("HF_HOME", folder.path().join("cache"));
        command.args(arguments);
        command
    };
    server.go_wrong(&[Fault::RetryAfter(503), Fault::Cut(1000)]);
    stdout(&mut mpnet("mpnet", &["import", "o/model", "-o", "back"]));
    let weights = |run: &str| {
        let of_run = files(&folder.path().join(run));
        let name = |p: &&std::path::PathBuf| p.ends_with("model.safetensors");
        of_run[of_run.keys().find(name).unwrap()].clone()
    };
    assert!(weights("back") == weights("out"), "the weights differ");

    // From here on everything is in the cache.
    server.asked();
    let evaluate = |model: &str| {
        let text = ["eval", model, "--text", "valid.txt", "--json"];
        stdout(&mut mpnet("mpnet", &text))
    };
    assert_eq!(evaluate("o/model"), evaluate("out"));
    for (model, output) in [("o/model", "one"), ("hf", "two")] {
        stdout(&mut mpnet("mpnet", &["export", model, "-o", output]));
    }
    let [one, two] = ["one", "two"].map(|f| files(&folder.path().join(f)));
    assert!(one == two, "the exports differ");
    let further = ["--total-updates", "1", "--hf-model-path", "o/model"];
    let mut train = common::pretrain(folder.path(), &further);
    train.env("HF_HOME", folder.path().join("cache"));
    let printed = stdout(train.args(["--checkpoint-dir", "on"]));
    assert!(printed.contains("validation after update 0"), "{printed}");
    assert!(server.asked().is_empty());

    let missing = failure(&mut mpnet("mpnet", &["import", "o/none", "-o", "x"]), 1);
    assert!(
        missing.contains("o/none") && missing.contains("404"),
        "{missing}"
    );
    server.add("models/o/empty", Repo::default());
    let empty = failure(&mut mpnet("mpnet", &["export", "o/empty", "-o", "x"]), 1);
    assert!(empty.contains("config.json"), "{empty}");
    let file = failure(&mut mpnet("mpnet", &["import", "o/model.pt", "-o", "x"]), 1);
    assert!(!file.contains("404"), "{file}");
}
