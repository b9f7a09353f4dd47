//! What goes wrong between this machine and the Hub, against a server on the loopback: certificates, tokens, caches,
//! mirrors, signals.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use ureq::tls::{RootCerts, TlsConfig};

use super::certificates::{problem, trusted};
use super::server::{HubServer, Trouble, company};
use super::tests::{client, client_with, name, open, parquet, read, repo, served, texts, token};
use super::*;

fn model() -> HubServer {
    let server = HubServer::start();
    let files = [
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", vec![7; 3000]),
    ];
    server.add("models/o/m", repo(&files));
    server
}

fn count(roots: &RootCerts) -> usize {
    match roots {
        RootCerts::Specific(certificates) => certificates.len(),
        _ => 0,
    }
}

#[test]
fn a_companys_authority_is_trusted_where_a_variable_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (file, server) = company(folder.path());
    let ordinary = trusted(|_| None);
    assert!(count(&ordinary) > 50);
    let url = format!("{}/api/models/o/m/revision/main", server.endpoint);
    let ask = |roots: RootCerts| {
        let tls = TlsConfig::builder().root_certs(roots).build();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls);
        let agent: ureq::Agent = config.build().into();
        agent
            .get(&url)
            .call()
            .map(|answer| answer.status().as_u16())
    };
    let error = ask(ordinary).unwrap_err();
    assert!(problem(&error).is_some(), "{error:?}");
    for variable in ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        let named = |name: &str| (name == variable).then(|| OsString::from(&file));
        assert_eq!(ask(trusted(named)).unwrap(), 404, "{variable}");
    }
    // A folder with certificates under any name.
    let named = |name: &str| (name == "REQUESTS_CA_BUNDLE").then(|| folder.path().into());
    assert_eq!(ask(trusted(named)).unwrap(), 404);
}

#[test]
fn an_untrusted_certificate_is_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_, server) = company(folder.path());
    let hub = client(&server, folder.path());
    let error = tokenizer_folder(&hub, "o/m", "main").unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, HubError::Certificate { .. }), "{text}");
    assert!(
        text.contains("UnknownIssuer") && text.contains("SSL_CERT_FILE"),
        "{text}"
    );
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_hub_in_trouble_is_not_needed_for_what_is_there() {
    let server = model();
    let (datasets, all) = served();
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&server, cache.path());
    let folder = model_folder(&hub, "o/m", "main").unwrap().unwrap();
    server.trouble(Trouble {
        api: Some(503),
        ..Trouble::default()
    });
    let before = server.connections();
    let again = model_folder(&hub, "o/m", "main").unwrap().unwrap();
    assert_eq!(again, folder);
    // It is not waited for as long as where nothing else helps.
    assert_eq!(server.connections() - before, 2);
    let text = model_folder(&hub, "o/other", "main")
        .unwrap_err()
        .to_string();
    assert!(text.contains("503"), "{text}");

    // A dataset, whole in the cache.
    let hub = client(&datasets, cache.path());
    let (files, commit) = dataset_files(&hub, &name("o/d"), "train", "main").unwrap();
    for (file, part) in files.iter().zip([&all[..150], &all[150..]]) {
        let snapshot = hub.snapshot(RepoKind::Dataset, "o/d", &commit).unwrap();
        let path = snapshot.join(file.path());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, parquet(part)).unwrap();
    }
    datasets.trouble(Trouble {
        api: Some(500),
        ..Trouble::default()
    });
    datasets.asked();
    assert_eq!(read(&open(&hub, "o/d").unwrap()).unwrap(), all);
    assert!(datasets.asked().is_empty());
}

#[test]
fn a_token_that_expired_keeps_nobody_from_public_files() {
    let server = model();
    server.trouble(Trouble {
        no_token: true,
        ..Trouble::default()
    });
    let cache = tempfile::tempdir().unwrap();
    let hub = client_with(&server, cache.path(), |s| s.token = Some(token()));
    model_folder(&hub, "o/m", "main").unwrap().unwrap();
    let (datasets, _) = served();
    let mut gated = repo(&[("data/train.parquet", parquet(&texts(0..10)))]);
    gated.gated = true;
    datasets.add("datasets/o/gated", gated);
    datasets.trouble(Trouble {
        no_token: true,
        ..Trouble::default()
    });
    let hub = client_with(&datasets, cache.path(), |s| s.token = Some(token()));
    let error = read(&open(&hub, "o/gated").unwrap()).unwrap_err();
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains("refuses the token of HF_TOKEN"), "{text}");
}

#[test]
fn mirrors_that_know_no_ranges_serve_whole_files() {
    let (server, all) = served();
    let cache = tempfile::tempdir().unwrap();
    // Larger than what is asked for at its end, so that a part of it is asked for.
    let long = |range| -> Vec<String> {
        texts(range)
            .iter()
            .enumerate()
            .map(|(i, text)| format!("{text} {}", (i * 7919) % 104_729))
            .collect()
    };
    let large = long(0..6000);
    server.add(
        "datasets/o/large",
        repo(&[("data/train.parquet", parquet(&large))]),
    );
    server.trouble(Trouble {
        whole: true,
        ..Trouble::default()
    });
    let hub = client(&server, cache.path());
    assert_eq!(read(&open(&hub, "o/d").unwrap()).unwrap(), all);
    assert_eq!(read(&open(&hub, "o/large").unwrap()).unwrap(), large);
    let asked = server.asked();
    let of_large = asked.iter().filter(|(path, _)| path.contains("o/large"));
    // Once for a part, once for all of it.
    assert_eq!(of_large.count(), 2);

    let server = model();
    server.trouble(Trouble {
        whole: true,
        ..Trouble::default()
    });
    let hub = client(&server, cache.path());
    let url = hub.file_url(RepoKind::Model, "o/m", "main", "model.safetensors");
    let download = super::model::Download {
        what: "the weights".into(),
        url,
        size: Some(3000),
        sha256: None,
    };
    server.go_wrong(&[
        super::server::Fault::Cut(10),
        super::server::Fault::Cut(1000),
        super::server::Fault::Cut(2000),
    ]);
    let mut found = Vec::new();
    download.write(&hub, 1000, &mut found).unwrap();
    assert_eq!(found, vec![7; 3000]);

    server.trouble(Trouble {
        no_content_range: true,
        ..Trouble::default()
    });
    let mut found = Vec::new();
    download.write(&hub, 1000, &mut found).unwrap();
    assert_eq!(found, vec![7; 3000]);
}

#[test]
fn a_signal_ends_the_wait_for_the_hub() {
    let server = model();
    server.trouble(Trouble {
        late: Duration::from_secs(600),
        ..Trouble::default()
    });
    let cache = tempfile::tempdir().unwrap();
    let stopped = |s: &mut HubSettings| {
        s.stopping = || true;
        s.retry.silence = Duration::from_secs(300);
    };
    let hub = client_with(&server, cache.path(), stopped);
    let start = Instant::now();
    let error = model_folder(&hub, "o/m", "main").unwrap_err();
    assert!(matches!(error, HubError::Stopped { .. }), "{error}");
    // Between two attempts too, however long the pause.
    server.trouble(Trouble {
        api: Some(503),
        ..Trouble::default()
    });
    let hub = client_with(&server, cache.path(), |s| {
        stopped(s);
        s.retry.first_pause = Duration::from_secs(300);
    });
    let error = model_folder(&hub, "o/m", "main").unwrap_err();
    assert!(matches!(error, HubError::Stopped { .. }), "{error}");
    // Not a matter of speed: without a look at signals it were minutes.
    assert!(start.elapsed() < Duration::from_secs(250));
}

/// Permissions mean nothing to root, who runs some tests: a file in a folder's place refuses everybody.
#[test]
fn caches_that_cannot_be_written_to_or_are_absent_do() {
    let server = model();
    let place = tempfile::tempdir().unwrap();
    let in_the_way = place.path().join("file");
    std::fs::write(&in_the_way, "").unwrap();
    for cache in [Some(in_the_way.join("below")), None] {
        let hub = client_with(&server, place.path(), |s| s.cache = cache.clone());
        let folder = model_folder(&hub, "o/m", "main").unwrap().unwrap();
        assert_eq!(
            std::fs::read(folder.join("model.safetensors")).unwrap(),
            vec![7; 3000]
        );
    }
    let (datasets, all) = served();
    let hub = client_with(&datasets, place.path(), |s| s.cache = None);
    assert_eq!(read(&open(&hub, "o/d").unwrap()).unwrap(), all);
    let hub = client_with(&datasets, place.path(), |s| {
        s.cache = None;
        s.offline = true;
    });
    let text = open(&hub, "o/d").unwrap_err().to_string();
    assert!(text.contains("HF_HUB_OFFLINE"), "{text}");
}

#[test]
fn what_is_in_a_cache_is_found_without_a_write() {
    let server = model();
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&server, cache.path());
    let folder = model_folder(&hub, "o/m", "main").unwrap().unwrap();
    // Nothing can be created beside the reference, nor the reference be replaced.
    let refs = cache.path().join("models--o--m/refs");
    let time = |path: &Path| path.metadata().unwrap().modified().unwrap();
    let before = (time(&refs), time(&folder), time(cache.path()));
    assert_eq!(
        model_folder(&hub, "o/m", "main").unwrap(),
        Some(folder.clone())
    );
    assert_eq!((time(&refs), time(&folder), time(cache.path())), before);
}

#[test]
fn the_environment_says_where_the_hub_and_its_cache_are() {
    let home = tempfile::tempdir().unwrap();
    let none = HubSettings::from_variables(None, |_| None);
    assert!(none.cache.is_none() && none.token.is_none());
    let at_home = HubSettings::from_variables(Some(home.path().to_owned()), |_| None);
    let expected = home.path().join(".cache/huggingface/hub");
    assert_eq!(at_home.cache, Some(expected));
    let folder = home.path().join(".cache/huggingface");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "stored\n").unwrap();
    let stored = HubSettings::from_variables(Some(home.path().to_owned()), |_| None);
    let found = stored.token.unwrap();
    assert_eq!(found.value, "stored");
    assert!(found.origin.ends_with("token"), "{}", found.origin);
    let named = HubSettings::from_variables(Some(home.path().to_owned()), |name| {
        (name == "HF_TOKEN").then(|| "named".to_owned())
    });
    let found = named.token.unwrap();
    assert_eq!(
        (found.value.as_str(), found.origin.as_str()),
        ("named", "HF_TOKEN")
    );
}

#[test]
fn converted_datasets_need_no_configuration_called_default() {
    let server = HubServer::start();
    let all = texts(0..20);
    let cache = tempfile::tempdir().unwrap();
    let converted = |configs: &[&str]| {
        let files: Vec<(String, Vec<u8>)> = configs
            .iter()
            .map(|config| (format!("{config}/train/0000.parquet"), parquet(&all)))
            .collect();
        let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(n, b)| (&**n, b.clone())).collect();
        server.add_converted(
            "datasets/o/c",
            repo(&[("a.json", Vec::new())]),
            repo(&files),
        );
        client(&server, cache.path())
    };
    let hub = converted(&["sample"]);
    assert_eq!(read(&open(&hub, "o/c").unwrap()).unwrap(), all);
    let hub = converted(&["one", "two"]);
    let text = open(&hub, "o/c").unwrap_err().to_string();
    assert!(
        text.contains("one, two") && text.contains("o/c:CONFIG"),
        "{text}"
    );
    assert_eq!(read(&open(&hub, "o/c:two").unwrap()).unwrap(), all);
    let text = open(&hub, "o/c:three").unwrap_err().to_string();
    assert!(
        text.contains("\"three\"") && text.contains("one, two"),
        "{text}"
    );
    let hub = converted(&["default", "two"]);
    assert_eq!(read(&open(&hub, "o/c").unwrap()).unwrap(), all);
}

/// As the library `datasets` 5.2 assigns them.
#[test]
fn splits_are_told_by_paths() {
    let server = HubServer::start();
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&server, cache.path());
    let split = |paths: &[&str], split: &str| -> Vec<String> {
        let files: Vec<(&str, Vec<u8>)> = paths.iter().map(|p| (*p, Vec::new())).collect();
        server.add("datasets/o/s", repo(&files));
        let files = dataset_files(&hub, &name("o/s"), split, "main");
        let files = files.map_or(Vec::new(), |(files, _)| files);
        files.iter().map(|file| file.path().to_owned()).collect()
    };
    let sharded = [
        "data/en-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "train.parquet",
    ];
    assert_eq!(split(&sharded, "en"), [sharded[0]]);
    assert_eq!(split(&sharded, "train"), [sharded[1]]);
    // Folders come before files.
    let folders = [
        "a/test-results/b.parquet",
        "train/eval.parquet",
        "x.parquet",
    ];
    assert_eq!(split(&folders, "train"), [folders[1]]);
    assert_eq!(split(&folders, "test"), [folders[0]]);
    let both = ["test-results/train/0.parquet"];
    assert_eq!(split(&both, "train"), both);
    assert_eq!(split(&both, "test"), both);
    let files = [
        "dev_1.parquet",
        "eval.parquet",
        "latest.parquet",
        "my train.parquet",
    ];
    assert_eq!(split(&files, "validation"), [files[0]]);
    assert_eq!(split(&files, "dev"), [files[0]]);
    assert_eq!(split(&files, "test"), [files[1]]);
    assert_eq!(split(&files, "train"), [files[3]]);
    let unnamed = ["constrain.parquet", "other.parquet"];
    assert_eq!(split(&unnamed, "train"), unnamed);
    assert!(split(&unnamed, "test").is_empty());
}
