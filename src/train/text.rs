//! Opens a run's text: what it is trained on, and the texts kept aside.

use super::config::{Dataset, Mix, MixFrom, Pretraining, Text, TextFiles, TrainConfig};
use crate::data::hub::{Hub, HubSettings};
use crate::data::source::{FileId, Position, ReadOptions, Sources, discover};
use crate::data::{DataError, EvaluationSet, LoaderConfig, Part, Tokenizer};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::sync::Arc;

/// A run's text.
pub struct Opened {
    pub loader: LoaderConfig,
    pub valid: EvaluationSet,
    pub test: EvaluationSet,
}

/// The run and what of it is pretraining.
#[derive(Clone, Copy)]
struct Run<'a> {
    config: &'a TrainConfig,
    task: &'a Pretraining,
}

impl Run<'_> {
    fn reading(&self) -> ReadOptions {
        self.config.reading(&self.task.batching.text_field)
    }
}

/// Opens the text of `config`, which pretrains as `task` says.
///
/// # Errors
/// Where some of it is missing or can't be read.
pub fn open(config: &TrainConfig, task: &Pretraining, tokenizer: &Tokenizer) -> Result<Opened> {
    let run = Run { config, task };
    match &task.text {
        Text::Files(files) => open_files(run, files, tokenizer),
        Text::Dataset(dataset) => open_dataset(run, dataset, tokenizer),
        Text::Mix(mix) => open_mix(run, mix, tokenizer),
    }
}

fn loader(run: Run, sources: Sources, held_out: (u64, Position)) -> LoaderConfig {
    let Run { config, task } = run;
    let batching = &task.batching;
    LoaderConfig {
        masking: task.masking.clone(),
        held_out,
        min_text_length: batching.min_text_length,
        max_batch_tokens: batching.max_batch_tokens,
        sample_break_mode: batching.sample_break_mode,
        buffer_size: batching.buffer_size,
        group_by_length: batching.group_by_length,
        threads: config.data_threads,
        ..LoaderConfig::new(
            Arc::new(sources),
            config.batch_size,
            config.max_tokens,
            config.seed,
        )
    }
}

/// Validation and test text, and what tells its files apart.
struct Aside {
    valid: EvaluationSet,
    test: EvaluationSet,
    files: Vec<FileId>,
}

fn aside(run: Run, valid_file: &Path, test_file: &Path, tokenizer: &Tokenizer) -> Result<Aside> {
    let evaluation = |path: &Path, kept: &mut Vec<FileId>| -> Result<EvaluationSet> {
        let found = discover(path)?;
        found.tell(&path.display().to_string(), path);
        kept.extend(found.files.iter().filter_map(|file| FileId::of(file).ok()));
        let sources = Sources::discovered(path.display().to_string(), found, run.reading())?;
        let Run { config, task } = run;
        Ok(EvaluationSet::open(
            &sources,
            tokenizer,
            config.batch_size,
            config.max_tokens,
            config.seed,
            &task.masking,
        )?)
    };
    let mut files = Vec::new();
    let valid = evaluation(valid_file, &mut files).context("the validation text (--valid-file)")?;
    let test = evaluation(test_file, &mut files).context("the test text (--test-file)")?;
    Ok(Aside { valid, test, files })
}

fn open_files(run: Run, files: &TextFiles, tokenizer: &Tokenizer) -> Result<Opened> {
    let aside = aside(run, &files.valid_file, &files.test_file, tokenizer)?;
    let sources = Sources::local_without(&files.train_dir.0, run.reading(), &aside.files)?;
    Ok(Opened {
        loader: loader(run, sources, (0, Position::default())),
        valid: aside.valid,
        test: aside.test,
    })
}

fn open_mix(run: Run, mix: &Mix, tokenizer: &Tokenizer) -> Result<Opened> {
    let aside = aside(run, &mix.valid_file, &mix.test_file, tokenizer)?;
    let hub = Arc::new(Hub::new(HubSettings::from_env()));
    let mut parts = mix.parts.iter().map(|part| -> Result<Part> {
        let mut reading = run.reading();
        if let Some(fields) = &part.text_field {
            reading.fields = fields.clone();
        }
        let sources = match &part.from {
            MixFrom::Files(path) => {
                Sources::local_without(std::slice::from_ref(path), reading, &aside.files)?
            }
            MixFrom::Dataset {
                name,
                split,
                revision,
            } => Sources::dataset(&hub, name, split, revision, reading)
                .with_context(|| format!("finding the dataset {} (--mix)", name.name))?,
        };
        Ok(Part {
            sources: Arc::new(sources),
            min_text_length: part.min_text_length,
            weight: part.weight,
        })
    });
    let Some(first) = parts.next().transpose()? else {
        bail!("a mixture of no texts");
    };
    let further = parts.collect::<Result<Vec<Part>>>()?;
    let usual = loader(
        run,
        first.sources.as_ref().clone(),
        (0, Position::default()),
    );
    Ok(Opened {
        loader: LoaderConfig {
            sources: first.sources,
            min_text_length: first.min_text_length,
            weight: first.weight,
            further,
            ..usual
        },
        valid: aside.valid,
        test: aside.test,
    })
}

fn open_dataset(run: Run, dataset: &Dataset, tokenizer: &Tokenizer) -> Result<Opened> {
    let Run { config, task } = run;
    let hub = Arc::new(Hub::new(HubSettings::from_env()));
    let name = &dataset.name;
    let reading = run.reading();
    let sources = Sources::dataset(&hub, name, &dataset.split, &dataset.revision, reading)
        .with_context(|| format!("finding the dataset {} (--dataset-name)", name.name))?;
    let called = sources.name().to_owned();
    let mut texts = sources.texts();
    let shortest = task.batching.min_text_length;
    let mut long_enough = texts
        .by_ref()
        .filter(|text| !text.as_ref().is_ok_and(|t| t.chars().count() < shortest));
    let mut take = |role: &str| -> Result<EvaluationSet> {
        let kept: Vec<String> = long_enough
            .by_ref()
            .take(dataset.eval_samples)
            .collect::<crate::data::Result<_>>()?;
        EvaluationSet::new(
            &called,
            kept.into_iter().map(Ok),
            tokenizer,
            config.batch_size,
            config.max_tokens,
            config.seed,
            &task.masking,
        )
        .map_err(|error| match error {
            DataError::NoText { name, .. } => DataError::NoText { name, shortest },
            other => other,
        })
        .with_context(|| format!("taking the {role} texts from it (--eval-samples)"))
    };
    let (valid, test) = (take("validation")?, take("test")?);
    let held_out = texts.position();
    let left = texts.find(|text| !text.as_ref().is_ok_and(|t| t.chars().count() < shortest));
    match left {
        Some(text) => drop(text?),
        None => bail!(
            "{called} has no text left to train on once validation and test texts are taken: make \
             --eval-samples {} smaller",
            dataset.eval_samples
        ),
    }
    drop(texts);
    Ok(Opened {
        loader: loader(run, sources, held_out),
        valid,
        test,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pretrain::PretrainArgs;
    use crate::data::fixture;
    use clap::Parser;
    use std::path::PathBuf;

    /// Opens a run's text, with `valid` and `test` in `folder` to validate and test on.
    fn opened(folder: &Path, valid: &str, test: &str) -> Result<Opened> {
        let path = |name: &str| folder.join(name).display().to_string();
        let line = [
            "x",
            "--train-dir",
            &path("a.txt"),
            "--valid-file",
            &path(valid),
        ];
        let line = line.into_iter().map(PathBuf::from);
        let line = line.chain(["--test-file".into(), folder.join(test)]);
        let config = PretrainArgs::parse_from(line).resolve()?;
        let task = config.task.pretraining().context("it pretrains")?;
        open(&config, task, &fixture::tokenizer())
    }

    #[test]
    fn validation_and_test_text_is_a_file_a_folder_or_a_pattern() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        for (name, text) in [
            ("a.txt", "a\nb\n"),
            ("b.txt", "c\n"),
            ("sub/c.jsonl", "{\"text\": \"d\"}\n{\"text\": \"e\"}\n"),
            ("no-ending", "f\n"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        for (valid, rows) in [
            ("a.txt", 2),
            ("no-ending", 1),
            ("sub", 2),
            ("*.txt", 3),
            ("**/*.jsonl", 2),
        ] {
            let found = opened(folder.path(), valid, "a.txt").unwrap();
            assert_eq!(found.valid.rows(), rows, "{valid}");
            let found = opened(folder.path(), "a.txt", valid).unwrap();
            assert_eq!(found.test.rows(), rows, "{valid}");
        }
        for (valid, test, said) in [
            ("*.json", "a.txt", ["--valid-file", "no file matches"]),
            ("a.txt", "nowhere", ["--test-file", "no such file"]),
        ] {
            let Err(error) = opened(folder.path(), valid, test) else {
                panic!("{valid} and {test} were opened");
            };
            let error = format!("{error:#}");
            assert!(said.iter().all(|s| error.contains(s)), "{error}");
        }
    }
}
