//! Against a server on the loopback: datasets streamed by ranges, faults survived, errors told apart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parquet::basic::Compression as Codec;
use serde_json::json;

use super::model::Download;
use super::server::{Asked, COMMIT, Fault, HubServer, Repo, TOKEN, parquet_of};
use super::*;
use crate::data::source::{Position, Sources};

pub(super) fn texts(range: std::ops::Range<usize>) -> Vec<String> {
    range
        .map(|i| format!("text {i} {}", "of some length ".repeat(20)))
        .collect()
}

pub(super) fn parquet(texts: &[String]) -> Vec<u8> {
    let rows: Vec<Option<&[u8]>> = texts.iter().map(|t| Some(t.as_bytes())).collect();
    parquet_of(&rows, 60, Codec::SNAPPY)
}

pub(super) fn repo(files: &[(&str, Vec<u8>)]) -> Repo {
    Repo {
        files: files
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), bytes.clone()))
            .collect(),
        ..Repo::default()
    }
}

pub(super) fn client(server: &HubServer, cache: &Path) -> Arc<Hub> {
    client_with(server, cache, |_| {})
}

pub(super) fn client_with(
    server: &HubServer,
    cache: &Path,
    change: impl FnOnce(&mut HubSettings),
) -> Arc<Hub> {
    let mut settings = HubSettings {
        endpoint: server.endpoint.clone(),
        token: None,
        cache: Some(cache.to_owned()),
        offline: false,
        stopping: || false,
        retry: Retry {
            attempts: 3,
            first_pause: Duration::from_millis(5),
            silence: Duration::from_millis(500),
            ..Retry::default()
        },
    };
    change(&mut settings);
    Arc::new(Hub::new(settings))
}

pub(super) fn token() -> Token {
    Token {
        value: TOKEN.into(),
        origin: "HF_TOKEN".into(),
    }
}

pub(super) fn name(text: &str) -> DatasetName {
    text.parse().unwrap()
}

pub(super) fn open(hub: &Arc<Hub>, dataset: &str) -> Result<Sources, HubError> {
    let (files, _) = dataset_files(hub, &name(dataset), "train", "main")?;
    Ok(Sources::hub(dataset.to_owned(), files, "text"))
}

pub(super) fn read(sources: &Sources) -> crate::data::Result<Vec<String>> {
    sources.texts().collect()
}

/// A dataset `o/d` of two shards with 150 texts each.
pub(super) fn served() -> (HubServer, Vec<String>) {
    let server = HubServer::start();
    let all = texts(0..300);
    let files = [
        ("data/train-00000.parquet", parquet(&all[..150])),
        ("data/train-00001.parquet", parquet(&all[150..])),
        ("data/test-00000.parquet", parquet(&texts(900..910))),
        ("README.md", b"card".to_vec()),
    ];
    server.add("datasets/o/d", repo(&files));
    (server, all)
}

#[test]
fn streams_a_dataset_and_reads_of_it_only_the_text() {
    let (server, all) = served();
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&server, cache.path());
    let sources = open(&hub, "o/d").unwrap();
    assert_eq!(read(&sources).unwrap(), all);
    let asked = server.asked();
    assert!(asked.iter().all(|(_, range)| range.is_some()));
    // Files are smaller than what is read at once at their end, so that each is asked for once.
    assert_eq!(asked.len(), 2, "{asked:?}");
    let mut test = dataset_files(&hub, &name("o/d"), "test", "main").unwrap().0;
    assert_eq!(test.remove(0).path(), "data/test-00000.parquet");
}

#[test]
fn goes_on_in_the_middle_of_a_row_group_without_what_came_before() {
    let server = HubServer::start();
    // Noise, so that the file is larger than what is read at once at its end.
    let noise = |i: usize| -> String {
        let word = |w: usize| ((i * 1_000_003 + w) * 2_654_435_761 % 4_294_967_291).to_string();
        (0..60).map(word).collect()
    };
    let all: Vec<String> = (0..1500).map(noise).collect();
    let rows: Vec<Option<&[u8]>> = all.iter().map(|t| Some(t.as_bytes())).collect();
    let file = parquet_of(&rows, 500, Codec::SNAPPY);
    let size = file.len() as u64;
    server.add("datasets/o/d", repo(&[("train.parquet", file)]));
    let cache = tempfile::tempdir().unwrap();
    let sources = open(&client(&server, cache.path()), "o/d").unwrap();
    let mut rows = sources.open(0, Position::default(), 0).unwrap();
    for text in &all[..1230] {
        assert_eq!(rows.next().unwrap().as_ref(), Some(text));
    }
    let sum = |asked: &[Asked]| -> u64 {
        asked
            .iter()
            .filter_map(|(_, r)| r.map(|(from, to)| to + 1 - from))
            .sum()
    };
    let whole = sum(&server.asked());
    let mut again = sources.open(0, rows.position(), 0).unwrap();
    for text in &all[1230..] {
        assert_eq!(again.next().unwrap().as_ref(), Some(text));
    }
    assert_eq!(again.next().unwrap(), None);
    let rest = sum(&server.asked());
    assert!(
        rest < whole * 2 / 3,
        "{rest} of {whole} bytes, {size} in the file"
    );
}

#[test]
fn survives_faults_and_says_when_there_are_too_many() {
    let (server, all) = served();
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&server, cache.path());
    let sources = open(&hub, "o/d").unwrap();
    for faults in [
        vec![Fault::Status(429), Fault::Status(503)],
        vec![Fault::RetryAfter(429)],
        vec![
            Fault::Cut(1000),
            Fault::Cut(5000),
            Fault::Cut(0),
            Fault::Cut(7),
        ],
        vec![Fault::Slow(Duration::from_millis(20))],
        vec![Fault::Silent(Duration::from_millis(900))],
    ] {
        server.go_wrong(&faults);
        assert_eq!(read(&sources).unwrap(), all, "{faults:?}");
    }
    server.go_wrong(&[Fault::Status(503); 3]);
    let text = read(&sources).unwrap_err().to_string();
    assert!(
        text.contains("503") && text.contains("train-00000"),
        "{text}"
    );
    server.go_wrong(&[Fault::Cut(0); 3]);
    let text = read(&sources).unwrap_err().to_string();
    assert!(
        text.contains("3 attempts") && text.contains("train-00000"),
        "{text}"
    );
}

#[test]
fn errors_are_told_apart() {
    let (server, all) = served();
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&server, cache.path());
    let text = open(&hub, "o/missing").unwrap_err().to_string();
    assert!(text.contains("o/missing") && text.contains("404"), "{text}");
    let text = dataset_files(&hub, &name("o/d"), "validation", "main").unwrap_err();
    assert!(text.to_string().contains("\"validation\""), "{text}");
    let text = dataset_files(&hub, &name("o/d"), "train", "v2").unwrap_err();
    assert!(text.to_string().contains("revision v2"), "{text}");

    let gated = Repo {
        gated: true,
        ..repo(&[("train.parquet", parquet(&all))])
    };
    server.add("datasets/o/gated", gated);
    let text = read(&open(&hub, "o/gated").unwrap())
        .unwrap_err()
        .to_string();
    assert!(text.contains("401") && text.contains("HF_TOKEN"), "{text}");
    let with_token = client_with(&server, cache.path(), |s| s.token = Some(token()));
    assert_eq!(read(&open(&with_token, "o/gated").unwrap()).unwrap(), all);

    // A page of the second row group is not what its checksum or codec says.
    let mut corrupt = parquet(&all);
    let middle = corrupt.len() / 3;
    corrupt[middle..middle + 400].fill(0xa5);
    server.add("datasets/o/corrupt", repo(&[("train.parquet", corrupt)]));
    let text = read(&open(&hub, "o/corrupt").unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("train.parquet") && text.contains("damaged"),
        "{text}"
    );

    let nothing = parquet_of(&[], 10, Codec::SNAPPY);
    server.add("datasets/o/empty", repo(&[("train.parquet", nothing)]));
    assert!(read(&open(&hub, "o/empty").unwrap()).unwrap().is_empty());
    let unlike = [Some(&b"caf\xe9"[..])];
    let latin = parquet_of(&unlike, 10, Codec::SNAPPY);
    server.add("datasets/o/latin", repo(&[("train.parquet", latin)]));
    let text = read(&open(&hub, "o/latin").unwrap())
        .unwrap_err()
        .to_string();
    assert!(text.contains("row 0 is not UTF-8"), "{text}");
    for (field, said) in [("body", "\"id\", \"text\", \"filler\""), ("id", "INT64")] {
        let (files, _) = dataset_files(&hub, &name("o/d"), "train", "main").unwrap();
        let sources = Sources::hub("o/d".into(), files, field);
        let text = read(&sources).unwrap_err().to_string();
        assert!(
            text.contains(said) && text.contains("train-00000"),
            "{text}"
        );
    }

    let nobody = client_with(&server, cache.path(), |s| {
        s.endpoint = "http://127.0.0.1:9".into()
    });
    let text = open(&nobody, "o/d").unwrap_err().to_string();
    assert!(
        text.contains("HF_ENDPOINT") && text.contains("3 attempts"),
        "{text}"
    );
}

#[test]
fn configurations_come_from_the_card_or_the_folders() {
    let server = HubServer::start();
    let small = parquet(&texts(0..3));
    let files = [
        ("data/CC-1/000.parquet", small.clone()),
        ("data/CC-2/000.parquet", small.clone()),
        ("sample/10BT/000.parquet", small.clone()),
        ("dev/valid.parquet", small.clone()),
    ];
    let card = Repo {
        configs: Some(json!([
            {"config_name": "sample-10BT", "data_files": [{"split": "train", "path": "sample/10BT/*"}]},
            {"config_name": "default", "data_files": [
                {"split": "train", "path": ["data/*/*"]}, {"split": "validation", "path": "dev"}]},
        ])),
        ..repo(&files)
    };
    server.add("datasets/o/card", card);
    server.add(
        "datasets/o/folders",
        repo(&[("en/a.parquet", small.clone()), ("de/a.parquet", small)]),
    );
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&server, cache.path());
    let paths = |dataset: &str, split: &str| -> Vec<String> {
        let (files, _) = dataset_files(&hub, &name(dataset), split, "main").unwrap();
        files.iter().map(|file| file.path().to_owned()).collect()
    };
    assert_eq!(
        paths("o/card", "train"),
        ["data/CC-1/000.parquet", "data/CC-2/000.parquet"]
    );
    assert_eq!(paths("o/card", "validation"), ["dev/valid.parquet"]);
    assert_eq!(
        paths("o/card:sample-10BT", "train"),
        ["sample/10BT/000.parquet"]
    );
    assert_eq!(paths("o/folders:de", "train"), ["de/a.parquet"]);
    let text = dataset_files(&hub, &name("o/card:fr"), "train", "main").unwrap_err();
    assert!(text.to_string().contains("sample-10BT, default"), "{text}");
}

#[test]
fn one_of_several_configurations_is_never_guessed() {
    let server = HubServer::start();
    let small = parquet(&texts(0..3));
    let config = |name: &str| json!({"config_name": name, "data_dir": format!("{name}/")});
    let several: Vec<_> = (0..30).map(|i| config(&format!("lang{i}"))).collect();
    let of = |configs: &[serde_json::Value]| Repo {
        configs: Some(configs.into()),
        ..repo(&[
            ("lang0/train.parquet", small.clone()),
            ("lang7/train.parquet", small.clone()),
        ])
    };
    server.add("datasets/o/several", of(&several));
    server.add("datasets/o/one", of(&several[7..8]));
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&server, cache.path());
    let files = |dataset: &str| dataset_files(&hub, &name(dataset), "train", "main");
    let text = files("o/several").unwrap_err().to_string();
    for said in [
        "--dataset-name o/several:CONFIG",
        "lang0, lang1",
        "lang19 and 10 more",
    ] {
        assert!(text.contains(said), "no '{said}': {text}");
    }
    for dataset in ["o/several:lang7", "o/one"] {
        let paths: Vec<String> = files(dataset)
            .unwrap()
            .0
            .iter()
            .map(|f| f.path.clone())
            .collect();
        assert_eq!(paths, ["lang7/train.parquet"], "{dataset}");
    }
}

#[test]
fn without_the_hub_the_card_in_the_cache_says_which_files() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("datasets--o--d");
    let snapshot = folder.join("snapshots").join(COMMIT);
    let put = |file: &str, bytes: &[u8]| {
        let path = snapshot.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    std::fs::create_dir_all(folder.join("refs")).unwrap();
    std::fs::write(folder.join("refs/main"), COMMIT).unwrap();
    let small = parquet(&texts(0..3));
    for file in [
        "data/CC-1/000.parquet",
        "sample/train-0.parquet",
        "dev/000.parquet",
        "notes.txt",
    ] {
        put(file, &small);
    }
    let server = HubServer::start();
    let hub = client_with(&server, cache.path(), |s| s.offline = true);
    let paths = |dataset: &str, split: &str| -> Result<Vec<String>, String> {
        let found = dataset_files(&hub, &name(dataset), split, "main");
        let (files, commit) = found.map_err(|e| e.to_string())?;
        assert_eq!(commit, COMMIT);
        Ok(files.iter().map(|file| file.path.clone()).collect())
    };
    // By their names alone: where a folder names a split, files do not, as in the library `datasets`.
    assert_eq!(paths("o/d", "validation").unwrap(), ["dev/000.parquet"]);
    assert!(paths("o/d", "train").unwrap_err().contains("train"));
    let card = "---\nlicense: odc-by\nsize_categories:\n- n>1T\nconfigs:\n\
                - config_name: default\n  data_files:\n  - split: train\n    path: data/*/*\n\
                \x20 - split: validation\n    path:\n    - \"dev/*\"\n\
                - config_name: 10\n  data_files: sample/*\n---\n# A dataset\n---\n";
    put("README.md", card.as_bytes());
    assert_eq!(paths("o/d", "train").unwrap(), ["data/CC-1/000.parquet"]);
    assert_eq!(paths("o/d", "validation").unwrap(), ["dev/000.parquet"]);
    assert_eq!(
        paths("o/d:10", "train").unwrap(),
        ["sample/train-0.parquet"]
    );
    let text = paths("o/d:fr", "train").unwrap_err();
    assert!(text.contains("default, 10"), "{text}");
    let text = paths("o/d", "test").unwrap_err();
    assert!(
        text.contains("HF_HUB_OFFLINE") && text.contains("split test"),
        "{text}"
    );
    put("README.md", b"---\nconfigs: [\n---\n");
    let text = paths("o/d", "train").unwrap_err();
    assert!(
        text.contains("README.md") && text.contains("YAML"),
        "{text}"
    );
    put("README.md", b"no head\n");
    assert_eq!(paths("o/d", "validation").unwrap(), ["dev/000.parquet"]);
    // A link of the cache whose file is gone.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../gone", snapshot.join("train-1.parquet")).unwrap();
        let text = paths("o/d", "train").unwrap_err();
        assert!(text.contains("train-1.parquet"), "{text}");
    }
    assert!(server.asked().is_empty());
}

#[test]
fn the_cache_is_huggingfaces() {
    let (server, all) = served();
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&server, cache.path());
    open(&hub, "o/d").unwrap();
    let folder = cache.path().join("datasets--o--d");
    assert_eq!(
        std::fs::read_to_string(folder.join("refs/main")).unwrap(),
        COMMIT
    );
    // What HuggingFace's own tools put there is read instead of the Hub, and alone without it.
    let snapshot = folder.join("snapshots").join(COMMIT).join("data");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("train-00000.parquet"), parquet(&all[..150])).unwrap();
    server.asked();
    assert_eq!(read(&open(&hub, "o/d").unwrap()).unwrap(), all);
    assert!(
        server
            .asked()
            .iter()
            .all(|(path, _)| path.contains("train-00001"))
    );
    let offline = client_with(&server, cache.path(), |s| {
        s.offline = true;
        s.endpoint = "http://127.0.0.1:9".into();
    });
    assert_eq!(read(&open(&offline, "o/d").unwrap()).unwrap(), all[..150]);
    let text = open(&offline, "o/other").unwrap_err().to_string();
    assert!(text.contains("HF_HUB_OFFLINE"), "{text}");
}

#[test]
fn a_tokenizer_is_fetched_once() {
    let server = HubServer::start();
    let definition = crate::data::fixture::definition().to_string().into_bytes();
    let files = [
        ("tokenizer.json", definition.clone()),
        ("tokenizer_config.json", b"{}".to_vec()),
        ("model.safetensors", vec![0; 1000]),
    ];
    server.add("models/o/m", repo(&files));
    server.add("models/o/slow", repo(&[("vocab.txt", b"a".to_vec())]));
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&server, cache.path());
    server.go_wrong(&[Fault::Status(503), Fault::Cut(100)]);
    let folder = tokenizer_folder(&hub, "o/m", "main").unwrap().unwrap();
    assert_eq!(
        std::fs::read(folder.join("tokenizer.json")).unwrap(),
        definition
    );
    assert_eq!(
        folder,
        cache
            .path()
            .join(format!("models--o--m/snapshots/{COMMIT}"))
    );
    assert!(folder.join("tokenizer.json").is_symlink() || !cfg!(unix));
    assert!(!folder.join("model.safetensors").exists());
    server.asked();
    tokenizer_folder(&hub, "o/m", "main").unwrap().unwrap();
    assert!(server.asked().is_empty());
    let gone = client_with(&server, cache.path(), |s| {
        s.endpoint = "http://127.0.0.1:9".into()
    });
    assert_eq!(
        tokenizer_folder(&gone, "o/m", "main").unwrap(),
        Some(folder)
    );
    let text = tokenizer_folder(&hub, "o/slow", "main")
        .unwrap_err()
        .to_string();
    assert!(text.contains("tokenizer.json"), "{text}");
    let text = tokenizer_folder(&hub, "o/none", "main")
        .unwrap_err()
        .to_string();
    assert!(text.contains("404"), "{text}");
    assert!(
        tokenizer_folder(&hub, "a/folder/here", "main")
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_models_weights_are_fetched_in_parts() {
    let server = HubServer::start();
    let bytes: Vec<u8> = (0..1000u32).flat_map(u32::to_le_bytes).collect();
    server.add("models/o/m", repo(&[("model.safetensors", bytes.clone())]));
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&server, cache.path());
    let download = |sha256| Download {
        what: "the weights".into(),
        url: hub.file_url(RepoKind::Model, "o/m", COMMIT, "model.safetensors"),
        size: Some(4000),
        sha256,
    };
    server.go_wrong(&[Fault::Status(503), Fault::Cut(100)]);
    let mut found = Vec::new();
    download(None).write(&hub, 1500, &mut found).unwrap();
    assert!(found == bytes);
    let ranges: Vec<_> = server.asked().into_iter().filter_map(|(_, r)| r).collect();
    let expected = [
        (0, 1499),
        (0, 1499),
        (100, 1499),
        (1500, 2999),
        (3000, 3999),
    ];
    assert_eq!(ranges, expected);
    let other = "0".repeat(64);
    let error = download(Some(&other)).write(&hub, 1500, &mut Vec::new());
    assert!(error.unwrap_err().to_string().contains("4000 bytes"));
}

#[test]
fn of_a_model_the_best_weights_are_fetched() {
    // Shards are those that the index names.
    const INDEX: &str = r#"{"weight_map": {"a": "pytorch_model-00001-of-00002.bin",
        "b": "pytorch_model-00002-of-00002.bin"}}"#;
    let server = HubServer::start();
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&server, cache.path());
    let fetched = |name: &str, files: &[&str]| {
        let files: Vec<_> = files
            .iter()
            .map(|name| match name.ends_with(".index.json") {
                true => (*name, INDEX.as_bytes().to_vec()),
                false => (*name, name.as_bytes().to_vec()),
            })
            .collect();
        server.add(&format!("models/{name}"), repo(&files));
        let folder = model_folder(&hub, name, "main").unwrap().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let both = [
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "vocab.txt",
    ];
    assert_eq!(
        fetched("o/both", &both),
        ["config.json", "model.safetensors", "vocab.txt"]
    );
    let shards = [
        "config.json",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "pytorch_model.bin.index.json",
    ];
    let further = ["onnx/model-1.bin", "model-x.txt", "pytorch_model-a/b.bin"];
    assert_eq!(
        fetched("o/shards", &[&shards[..], &further].concat()),
        shards
    );
    server.add("models/o/bare", repo(&[("config.json", Vec::new())]));
    let text = model_folder(&hub, "o/bare", "main")
        .unwrap_err()
        .to_string();
    assert!(text.contains("neither model.safetensors nor"), "{text}");
}

#[test]
fn names_of_datasets() {
    let parsed = name("HuggingFaceFW/fineweb-edu:sample-10BT");
    assert_eq!(parsed.name, "HuggingFaceFW/fineweb-edu");
    assert_eq!(parsed.config.as_deref(), Some("sample-10BT"));
    assert_eq!(name("squad").config, None);
    for (wrong, word) in [
        ("", "'' is no name of a dataset"),
        ("a/b/c", "'a/b/c' is no name"),
        ("../x", "'../x' is no name"),
        ("a/b:", "no configuration after the colon"),
        ("a b", "'a b' is no name"),
    ] {
        let said = wrong.parse::<DatasetName>().unwrap_err();
        assert!(said.contains(word), "{wrong}: {said}");
    }
}
