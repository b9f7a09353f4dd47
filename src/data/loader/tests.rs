//! The loader as a whole: what comes, how often, in an order that depends on nothing but the seed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use rand::Rng;
use tempfile::TempDir;

use super::*;
use crate::data::fixture;
use crate::data::hub::server::{HubServer, Repo, parquet_of};
use crate::data::hub::{Hub, HubSettings, Retry, dataset_files};
use crate::data::rng::{Purpose, keyed, shuffle};
use crate::data::source::ReadOptions;
use crate::data::source::tests::every_source;

/// Text i is a word of its own, once or more: `b`, `c`, … `ba`, `bb`, ….
fn texts(count: usize) -> Vec<String> {
    let word = |mut i: usize| {
        let mut word = String::new();
        loop {
            word.insert(0, char::from(b'a' + (i % 26) as u8));
            i /= 26;
            if i == 0 {
                return word;
            }
        }
    };
    (0..count)
        .map(|i| vec![word(i); 1 + i * 7 % 9].join(" "))
        .collect()
}

/// Files of text, one for each list.
fn folder(files: &[&[String]]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (index, texts) in files.iter().enumerate() {
        let path = folder.path().join(format!("{index}.txt"));
        std::fs::write(path, texts.join("\n") + "\n").unwrap();
    }
    folder
}

fn sources(path: &Path) -> Arc<Sources> {
    Arc::new(Sources::local(path, "text").unwrap())
}

/// Batches of 3 rows of at most 16 tokens, a buffer of 40 rows.
fn config(sources: &Arc<Sources>) -> LoaderConfig {
    LoaderConfig {
        buffer_size: 40,
        group_rows: 1,
        threads: 1,
        prefetch: 2,
        ..LoaderConfig::new(Arc::clone(sources), 3, 16, 11)
    }
}

fn loader(config: LoaderConfig, state: Option<LoaderState>) -> Result<TrainLoader> {
    static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| Arc::new(fixture::tokenizer()));
    TrainLoader::new(config, Arc::clone(&TOKENIZER), state)
}

fn take(config: LoaderConfig, count: usize) -> Vec<Batch> {
    let mut loader = loader(config, None).unwrap();
    (0..count).map(|_| loader.next().unwrap().0).collect()
}

fn message(result: Result<TrainLoader>) -> String {
    let error = match result {
        Ok(mut loader) => loop {
            if let Err(error) = loader.next() {
                break error;
            }
        },
        Err(error) => error,
    };
    error.to_string()
}

/// The ids of each row in text order, without padding.
fn rows(batch: &Batch) -> Vec<Vec<i64>> {
    let width = batch.width();
    let each = batch
        .positions
        .chunks(width)
        .zip(batch.input_ids.chunks(width));
    each.map(|(positions, ids)| {
        let mut row: Vec<(i64, i64)> = positions.iter().copied().zip(ids.iter().copied()).collect();
        row.truncate(batch.length);
        row.sort_unstable();
        row.into_iter()
            .map(|(_, id)| id)
            .filter(|&id| id != 1)
            .collect()
    })
    .collect()
}

fn counts(batches: &[Batch]) -> HashMap<Vec<i64>, usize> {
    let mut counts = HashMap::new();
    for row in batches.iter().flat_map(rows) {
        *counts.entry(row).or_insert(0) += 1;
    }
    counts
}

#[test]
fn every_text_comes_once_an_epoch_and_in_another_order() {
    let all = texts(120);
    let folder = folder(&[&all[..50], &[], &all[50..]]);
    let sources = sources(folder.path());
    let batches = take(config(&sources), 80);
    let (first, second) = batches.split_at(40);
    // Within a group of batches, rows are put together by length: only without that is an epoch 40 batches.
    let whole = take(
        LoaderConfig {
            group_by_length: false,
            ..config(&sources)
        },
        80,
    );
    let epochs: Vec<_> = whole.chunks(40).map(counts).collect();
    assert_eq!(epochs[0].len(), 120);
    assert!(epochs[0].values().all(|&count| count == 1));
    assert_eq!(epochs[0], epochs[1]);
    assert_ne!(whole[..40], whole[40..]);
    assert!(first.iter().chain(second).all(|batch| batch.rows == 3));
}

#[test]
fn the_number_of_threads_and_of_waiting_batches_changes_nothing() {
    let all = texts(500);
    let folder = folder(&[&all[..300], &all[300..]]);
    let sources = sources(folder.path());
    let one = take(config(&sources), 400);
    for (threads, prefetch) in [(0, 1), (4, 30)] {
        let other = LoaderConfig {
            threads,
            prefetch,
            ..config(&sources)
        };
        assert_eq!(take(other, 400), one);
    }
    let seed = LoaderConfig {
        seed: 12,
        ..config(&sources)
    };
    assert_ne!(take(seed, 400), one);
}

/// Batches 1…200 of `config` with 0, 1 and 4 threads, in one go and saved and restored at 50 points.
fn check_resuming(name: &str, config: &LoaderConfig) {
    let expected = take(
        LoaderConfig {
            threads: 1,
            ..config.clone()
        },
        200,
    );
    for threads in [0, 1, 4] {
        let config = LoaderConfig {
            threads,
            ..config.clone()
        };
        let mut rng = keyed(threads as u64, Purpose::Shuffle, 0, 0);
        let mut stops: Vec<u32> = (1..200).collect();
        shuffle(&mut rng, &mut stops);
        stops.truncate(50);
        let mut current = loader(config.clone(), None).unwrap();
        for (index, expected) in (1..).zip(&expected) {
            let (batch, state) = current.next().unwrap();
            assert!(
                batch == *expected,
                "{name}, {threads} threads: batch {index} differs"
            );
            assert_eq!(state.batches(), u64::from(index));
            if stops.contains(&index) {
                let saved = serde_json::to_vec(current.state()).unwrap();
                let state = serde_json::from_slice(&saved).unwrap();
                // The state's seed counts.
                let config = LoaderConfig {
                    seed: rng.next_u64(),
                    ..config.clone()
                };
                current = loader(config, Some(state)).unwrap();
            }
        }
    }
}

#[test]
fn resumes_at_any_batch_from_every_source_in_every_mode() {
    let all = texts(330);
    let root = tempfile::tempdir().unwrap();
    // Every format, and every compression on some format: each way of reading once.
    let chosen = [
        "txt",
        "jsonl",
        "json",
        "csv",
        "parquet",
        "txt.bz2",
        "jsonl.zst",
        "jsonl.lz4",
        "csv.gz",
        "csv.xz",
        "parquet.gz",
    ];
    let mut made: Vec<(String, Arc<Sources>)> = every_source(root.path(), &all)
        .into_iter()
        .filter(|(name, _)| chosen.contains(&name.as_str()))
        .map(|(name, folder)| (name, sources(&folder)))
        .collect();
    let server = HubServer::start();
    made.push(("the Hub".into(), hub_sources(&server, root.path(), &all)));
    for (name, sources) in &made {
        for mode in BreakMode::ALL {
            let config = LoaderConfig {
                sample_break_mode: mode,
                // A group is of 32 batches: most points are in the middle of one.
                batch_size: 2,
                ..config(sources)
            };
            check_resuming(&format!("{name}, {}", mode.name()), &config);
        }
    }
}

#[test]
fn every_format_gives_the_batches_of_lines_of_text() {
    let all = texts(330);
    let root = tempfile::tempdir().unwrap();
    let made = every_source(root.path(), &all);
    let batches = |folder: &Path| take(config(&sources(folder)), 150);
    let (name, lines) = &made[0];
    assert_eq!(name, "txt");
    let expected = batches(lines);
    for (name, folder) in &made[1..] {
        assert!(batches(folder) == expected, "{name}");
    }
}

/// Bad rows in the middle: passed over, the same batches as without them, and counted once though the run
/// stops and goes on anywhere.
#[test]
fn bad_rows_change_no_batch_and_are_counted_once() {
    let all = texts(90);
    let (clean, marred) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (index, part) in all.chunks(30).enumerate() {
        let name = format!("{index}.jsonl");
        let line = |text: &String| serde_json::json!({ "text": text }).to_string();
        let lines: Vec<String> = part.iter().map(line).collect();
        std::fs::write(clean.path().join(&name), lines.join("\n")).unwrap();
        let (front, back) = lines.split_at(17);
        let bad = [
            front,
            &["{\"text\":".to_owned(), "{\"text\": 1}".to_owned()],
            back,
        ]
        .concat();
        std::fs::write(marred.path().join(&name), bad.join("\n")).unwrap();
    }
    let options = |max_bad_rows: u64| ReadOptions {
        max_bad_rows,
        ..ReadOptions::default()
    };
    let with = |most: u64| {
        let sources = Sources::local(marred.path(), options(most)).unwrap();
        config(&Arc::new(sources))
    };
    let expected = take(config(&sources(clean.path())), 60);
    let text = message(loader(with(5), None));
    assert!(
        text.contains("line 1") && text.contains("--max-bad-rows"),
        "{text}"
    );
    let mut whole = loader(with(6), None).unwrap();
    assert_eq!(whole.summary()[0].passed.unwrap().bad, 6);
    let mut stopped = loader(with(6), None).unwrap();
    let mut seen = 0;
    for expected in &expected {
        let (batch, state) = stopped.next().unwrap();
        assert!(batch == *expected);
        assert_eq!(whole.next().unwrap().1.passed(), state.passed());
        seen = seen.max(state.passed().bad);
        let saved = serde_json::to_vec(&state).unwrap();
        stopped = loader(with(6), Some(serde_json::from_slice(&saved).unwrap())).unwrap();
    }
    assert!((1..=6).contains(&seen), "{seen}");
}

/// 60 texts of single letters' words and 30 of others, mixed three to one.
fn mixed(folders: [&Path; 2], weights: [f64; 2]) -> LoaderConfig {
    LoaderConfig {
        weight: weights[0],
        further: vec![Part {
            sources: sources(folders[1]),
            min_text_length: 0,
            weight: weights[1],
        }],
        ..config(&sources(folders[0]))
    }
}

#[test]
fn a_mixture_keeps_its_weights_and_resumes_anywhere() {
    let all = texts(330);
    let (many, few) = (
        folder(&[&all[..200], &all[200..300]]),
        folder(&[&all[300..]]),
    );
    let config = mixed([many.path(), few.path()], [0.75, 0.25]);
    for mode in BreakMode::ALL {
        let config = LoaderConfig {
            sample_break_mode: mode,
            ..config.clone()
        };
        check_resuming(&format!("a mixture, {}", mode.name()), &config);
    }
    let mut current = loader(config.clone(), None).unwrap();
    assert_eq!(current.summary().len(), 2);
    for _ in 0..1000 {
        current.next().unwrap();
    }
    let read = current.state().read();
    let share = read[1].texts as f64 / (read[0].texts + read[1].texts) as f64;
    assert!((share - 0.25).abs() < 0.03, "{share}");
    // The small part went through many epochs, each of its texts as often as the others.
    let small: Vec<Vec<i64>> = take(self::config(&sources(few.path())), 40)
        .iter()
        .flat_map(rows)
        .collect();
    let counts = counts(&take(config.clone(), 1000));
    let times: Vec<usize> = small.iter().map(|row| counts[row]).collect();
    assert!(times.iter().all(|&t| t >= 15), "{times:?}");
    // The numbers of threads change nothing, another seed and other weights do.
    let first = take(config.clone(), 50);
    let threads = LoaderConfig {
        threads: 4,
        prefetch: 9,
        ..config.clone()
    };
    assert!(take(threads, 50) == first);
    assert!(take(LoaderConfig { seed: 5, ..config }, 50) != first);
    let other = mixed([many.path(), few.path()], [0.5, 0.5]);
    assert!(take(other, 50) != first);
}

#[test]
fn a_mixture_of_other_parts_or_without_weights_is_refused() {
    let all = texts(90);
    let (a, b) = (folder(&[&all[..60]]), folder(&[&all[60..]]));
    let config = mixed([a.path(), b.path()], [1.0, 2.0]);
    let state = loader(config.clone(), None).unwrap().next().unwrap().1;
    let swapped = mixed([b.path(), a.path()], [1.0, 2.0]);
    assert!(message(loader(swapped, Some(state.clone()))).contains("not the text"));
    let alone = self::config(&sources(a.path()));
    assert!(message(loader(alone, Some(state))).contains("not the text"));
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let wrong = mixed([a.path(), b.path()], [1.0, weight]);
        assert!(message(loader(wrong, None)).contains("weights"), "{weight}");
    }
}

#[test]
fn states_from_before_anything_was_counted_are_read() {
    let folder = folder(&[&texts(60)]);
    let mut current = loader(config(&sources(folder.path())), None).unwrap();
    let state = current.next().unwrap().1;
    let mut old = serde_json::to_value(&state).unwrap();
    assert!(
        old["cursor"]
            .as_object_mut()
            .unwrap()
            .remove("passed")
            .is_some()
    );
    let mut again = loader(
        config(&sources(folder.path())),
        Some(serde_json::from_value(old).unwrap()),
    )
    .unwrap();
    assert!(again.next().unwrap().0 == current.next().unwrap().0);
}

/// `texts` as a dataset of two parquet files on a server.
fn hub_sources(server: &HubServer, cache: &Path, texts: &[String]) -> Arc<Sources> {
    let file = |texts: &[String]| {
        let rows: Vec<Option<&[u8]>> = texts.iter().map(|t| Some(t.as_bytes())).collect();
        parquet_of(
            &rows,
            40,
            parquet::basic::Compression::ZSTD(Default::default()),
        )
    };
    let half = texts.len() / 2;
    let files = [
        ("train-0.parquet".to_owned(), file(&texts[..half])),
        ("train-1.parquet".to_owned(), file(&texts[half..])),
    ];
    let repo = Repo {
        files: files.into(),
        ..Repo::default()
    };
    server.add("datasets/o/d", repo);
    let hub = Arc::new(Hub::new(HubSettings {
        endpoint: server.endpoint.clone(),
        token: None,
        cache: Some(cache.to_owned()),
        stopping: || false,
        offline: false,
        retry: Retry {
            first_pause: Duration::from_millis(5),
            ..Retry::default()
        },
    }));
    let (files, _) = dataset_files(&hub, &"o/d".parse().unwrap(), "train", "main").unwrap();
    Arc::new(Sources::hub("o/d".into(), files, "text"))
}

#[test]
fn resumes_with_token_limits_and_without_groups() {
    let all = texts(200);
    let folder = folder(&[&all]);
    let sources = sources(folder.path());
    let limited = LoaderConfig {
        max_batch_tokens: Some(40),
        ..config(&sources)
    };
    check_resuming("tokens", &limited);
    for batch in take(limited, 100) {
        assert!(batch.rows * batch.length <= 40);
    }
    let plain = LoaderConfig {
        group_by_length: false,
        ..config(&sources)
    };
    check_resuming("as they come", &plain);
}

#[test]
fn held_out_and_short_texts_are_never_trained_on() {
    let all = texts(120);
    let folder = folder(&[&all[..50], &all[50..]]);
    let sources = sources(folder.path());
    let mut texts = sources.texts();
    let held: Vec<String> = texts.by_ref().take(60).map(|t| t.unwrap()).collect();
    assert_eq!(held, all[..60]);
    let config = LoaderConfig {
        held_out: texts.position(),
        min_text_length: 4,
        group_by_length: false,
        ..config(&sources)
    };
    let long = all[60..].iter().filter(|t| t.chars().count() >= 4).count();
    let counts = counts(&take(config, long));
    assert_eq!(counts.len(), long);
    assert!(counts.values().all(|&count| count == 3), "three epochs");
}

#[test]
fn rows_filled_to_the_brim_have_no_padding() {
    let all = texts(300);
    let folder = folder(&[&all]);
    let full = LoaderConfig {
        sample_break_mode: BreakMode::None,
        ..config(&sources(folder.path()))
    };
    for batch in take(full, 200) {
        assert_eq!((batch.length, batch.tokens), (16, 3 * 16));
    }
}

#[test]
fn text_without_a_token_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    // Not blank, but nothing is left of it once it is normalized.
    std::fs::write(folder.path().join("a.txt"), "\u{200b}\n\u{1}\u{2}\n").unwrap();
    let sources = sources(folder.path());
    let config = |mode: BreakMode| LoaderConfig {
        sample_break_mode: mode,
        ..config(&sources)
    };
    for mode in BreakMode::ALL {
        let text = message(loader(config(mode), None));
        let folder = folder.path().display().to_string();
        assert!(
            text.contains(&folder) && text.contains("no text that the tokenizer"),
            "{}: {text}",
            mode.name()
        );
    }
    // A few tokens of many texts are enough, though a row takes several epochs.
    std::fs::write(folder.path().join("b.txt"), "a\n").unwrap();
    let few = |mode: BreakMode| LoaderConfig {
        sources: self::sources(folder.path()),
        ..config(mode)
    };
    assert_eq!(take(few(BreakMode::None), 1)[0].length, 16);
    // Texts are rows here, whatever is in them.
    let lengths: Vec<usize> = take(few(BreakMode::Eos), 8)
        .iter()
        .map(|batch| batch.length)
        .collect();
    assert!(lengths.contains(&2), "{lengths:?}");
}

#[test]
fn an_update_has_all_its_batches() {
    let all = texts(60);
    let folder = folder(&[&all]);
    let sources = sources(folder.path());
    let single = take(config(&sources), 6);
    let mut loader = loader(config(&sources), None).unwrap();
    for update in 1..=2 {
        assert_eq!(
            loader.next_update(3).unwrap(),
            single[3 * update - 3..3 * update]
        );
        assert_eq!(loader.state().batches(), 3 * update as u64);
        assert_eq!(loader.state().total_rows(), 9 * update as u64);
    }
}

#[test]
fn bad_folders_and_configurations_fail_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "\n\n").unwrap();
    let start = |change: fn(&mut LoaderConfig)| {
        let mut config = config(&sources(folder.path()));
        change(&mut config);
        loader(config, None)
    };
    let text = start(|_| {}).unwrap_err().to_string();
    assert!(text.contains("holds no text"), "{text}");
    std::fs::write(folder.path().join("b.txt"), "good\n").unwrap();
    std::fs::write(folder.path().join("c.txt"), b"good\n\xfe\n").unwrap();
    let text = start(|_| {}).unwrap_err().to_string();
    assert!(text.contains("c.txt") && text.contains("line 2"), "{text}");
    std::fs::remove_file(folder.path().join("c.txt")).unwrap();
    type Change = fn(&mut LoaderConfig);
    let cases: [(Change, &str); 7] = [
        (|c| c.batch_size = 0, "batch_size is 0"),
        (
            |c| c.batch_size = usize::MAX,
            "batch_size 18446744073709551615",
        ),
        (|c| c.threads = 100_000, "100000 threads (data_threads)"),
        (|c| c.max_tokens = 2, "tokens"),
        (
            |c| c.max_tokens = usize::MAX,
            "max_tokens 18446744073709551615",
        ),
        (|c| c.max_batch_tokens = Some(15), "max_batch_tokens 15"),
        (
            |c| c.max_batch_tokens = Some(usize::MAX),
            "max_batch_tokens 18446744073709551615",
        ),
    ];
    for (change, said) in cases {
        let text = start(change).unwrap_err().to_string();
        assert!(text.contains(said), "{text}");
    }
    assert!(start(|_| {}).is_ok());
    for shortest in [5, usize::MAX / 4 + 1, usize::MAX] {
        let mut config = config(&sources(folder.path()));
        config.min_text_length = shortest;
        let text = message(loader(config, None));
        let said = format!("shorter than the {shortest} characters of min_text_length");
        assert!(text.contains(&said), "{text}");
    }
}

#[test]
fn other_text_or_settings_are_noticed_at_resumption() {
    let all = texts(60);
    let folder = folder(&[&all]);
    let first = config(&sources(folder.path()));
    let mut current = loader(first.clone(), None).unwrap();
    let state = current.next().unwrap().1;
    let resume = |config: LoaderConfig| message(loader(config, Some(state.clone())));
    let mode = LoaderConfig {
        sample_break_mode: BreakMode::Chunk,
        ..first
    };
    assert!(resume(mode).contains("sample_break_mode eos and max_tokens 16"));
    std::fs::write(folder.path().join("0.txt"), "a\nb\n").unwrap();
    let text = resume(config(&sources(folder.path())));
    assert!(text.contains("not the text of the checkpoint"), "{text}");
}

#[test]
fn an_error_on_a_thread_arrives_and_so_does_every_later_call() {
    let all = texts(60);
    let folder = folder(&[&all[..30], &all[30..]]);
    let mut current = loader(config(&sources(folder.path())), None).unwrap();
    std::fs::remove_file(folder.path().join("0.txt")).unwrap();
    std::fs::remove_file(folder.path().join("1.txt")).unwrap();
    let error = loop {
        if let Err(error) = current.next() {
            break error;
        }
    };
    assert!(error.to_string().contains(".txt"), "{error}");
    let text = current.next().unwrap_err().to_string();
    assert!(text.contains("stopped"), "{text}");
}

#[test]
fn a_loader_can_be_dropped_while_it_is_ahead() {
    let all = texts(60);
    let folder = folder(&[&all]);
    for _ in 0..20 {
        let mut loader = loader(config(&sources(folder.path())), None).unwrap();
        loader.next().unwrap();
    }
}
