//! What a resumed run would do differently from the run that it resumes.

use super::config::{Text, TrainConfig};
use super::flags::Flags;
use super::schedule::Schedule;
use anyhow::Result;
use serde_json::Value;

/// The settings in which `config` differs from those `saved` with a checkpoint of update `step`, as
/// text that names their flags, where that changes the updates to come. The tokenizer is not looked at:
/// its content counts, not its name.
///
/// # Errors
/// Where the configuration cannot be written as JSON.
pub fn changes(
    saved: &Value,
    config: &TrainConfig,
    step: u64,
    flags: &Flags,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut leaves = Vec::new();
    collect(String::new(), &serde_json::to_value(config)?, &mut leaves);
    for (path, now) in &leaves {
        let pointer = format!("/{}", path.replace('.', "/"));
        let by_effect = path.starts_with("schedule.") || path == "tokenizer";
        // What an older version, or another program, did not save cannot be compared.
        if let Some(before) = saved.pointer(&pointer)
            && !by_effect
            && flags.matter(path)
            && !same(before, now)
        {
            found.push(match path.as_str() {
                "update_freq" => format!(
                    "an update was of {before} micro-batches and is now of {now} (--update-freq on each rank, or \
                     --global-batch-size)"
                ),
                path => change(&flags.name(path), before, now),
            });
        }
    }
    if let Some(before) = saved.get("text")
        && let Ok(before) = serde_json::from_value::<Text>(before.clone())
        && let Some(task) = config.task.pretraining()
    {
        found.extend(other_kind_of_text(&before, &task.text, flags));
    }
    if let Some(before) = saved.get("schedule")
        && let Ok(schedule) = serde_json::from_value::<Schedule>(before.clone())
        && let Some(update) = first_other_rate(&schedule, &config.schedule, step)
    {
        let (before, now) = (schedule, config.schedule);
        found.push(format!(
            "the learning rate of update {update} was to be {:.3e} and is now {:.3e} ({})",
            before.lr(update),
            now.lr(update),
            flags.below("schedule")
        ));
    }
    Ok(found)
}

/// The values in `value`, each with its path.
pub(crate) fn collect(path: String, value: &Value, leaves: &mut Vec<(String, Value)>) {
    let Value::Object(fields) = value else {
        leaves.push((path, value.clone()));
        return;
    };
    for (field, value) in fields {
        let path = if path.is_empty() {
            field.clone()
        } else {
            format!("{path}.{field}")
        };
        collect(path, value, leaves);
    }
}

/// The difference in words. `flags` names what decides the value.
fn change(flags: &str, before: &Value, now: &Value) -> String {
    // A switch is there or not; one that starts with "no-" makes the value false.
    if let (Value::Bool(before), Value::Bool(_)) = (before, now) {
        let given = *before != flags.starts_with("--no-");
        return if given {
            format!("{flags} was given and is not now")
        } else {
            format!("{flags} was not given and is now")
        };
    }
    format!("{flags} was {} and is now {}", shown(before), shown(now))
}

/// Files now and a dataset before, or the other way round.
fn other_kind_of_text(before: &Text, now: &Text, flags: &Flags) -> Option<String> {
    let told = |text: &Text| match text {
        Text::Files(files) => format!("{} {}", flags.name("text.files.train_dir"), files.train_dir),
        Text::Mix(mix) => format!("a mixture of {} texts (--mix)", mix.parts.len()),
        Text::Dataset(dataset) => {
            let flag = flags.name("text.dataset.name");
            match &dataset.name.config {
                Some(config) => format!("{flag} {}:{config}", dataset.name.name),
                None => format!("{flag} {}", dataset.name.name),
            }
        }
    };
    match (before, now) {
        (Text::Files(_), Text::Files(_))
        | (Text::Dataset(_), Text::Dataset(_))
        | (Text::Mix(_), Text::Mix(_)) => None,
        (Text::Files(_), Text::Dataset(_) | Text::Mix(_))
        | (Text::Dataset(_), Text::Files(_) | Text::Mix(_))
        | (Text::Mix(_), Text::Files(_) | Text::Dataset(_)) => Some(format!(
            "the text was that of {} and is now that of {}",
            told(before),
            told(now)
        )),
    }
}

/// The first update of the saved run's remaining ones that has another learning rate now.
fn first_other_rate(before: &Schedule, now: &Schedule, step: u64) -> Option<u64> {
    let last = before.total_updates.min(now.total_updates);
    (step.saturating_add(1)..=last).find(|&update| before.lr(update) != now.lr(update))
}

/// As it was given. Most numbers are f32, which JSON writes with more digits.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "not given".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(x) if !number.is_u64() && f64::from(x as f32) == x => (x as f32).to_string(),
            Some(_) | None => number.to_string(),
        },
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Object(_) => value.to_string(),
    }
}

/// Whether they are one value, however a number is written.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        (Some(_) | None, Some(_) | None) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pretrain::{PretrainArgs, flags};
    use clap::{CommandFactory, Parser};

    const FILES: &str = "--train-dir a --valid-file b --test-file c";

    fn config(line: &str) -> TrainConfig {
        let line = format!("x {line}");
        let args = PretrainArgs::try_parse_from(line.split_whitespace()).unwrap();
        args.resolve().unwrap()
    }

    fn compared(before: &str, now: &str, step: u64) -> Vec<String> {
        let saved = serde_json::to_value(config(before)).unwrap();
        changes(&saved, &config(now), step, &flags()).unwrap()
    }

    fn found(before: &str, now: &str, step: u64) -> Vec<String> {
        compared(
            &format!("{FILES} {before}"),
            &format!("{FILES} {now}"),
            step,
        )
    }

    #[test]
    fn what_changes_an_update_is_named_and_the_rest_is_not() {
        for (now, said) in [
            ("--batch-size 8", "--batch-size was 16 and is now 8"),
            ("--seed 1", "--seed was 12345"),
            ("--dropout 0.2", "--dropout was 0.1 and is now 0.2"),
            ("--lr 1e-3", "learning rate of update 6"),
            ("--total-updates 20000", "learning rate of update 1001"),
            (
                "--lr-scheduler cosine",
                "--lr, --lr-scheduler, --end-learning-rate or --power)",
            ),
            ("--weight-decay 0", "--weight-decay was 0.01 and is now 0"),
            ("--adam-eps 1e-8", "--adam-eps was"),
            (
                "--no-group-by-length",
                "--no-group-by-length was not given and is now",
            ),
            (
                "--no-whole-word-mask",
                "--no-whole-word-mask was not given and is now",
            ),
            ("--normalize-before", "--normalize-before was not given"),
            (
                "--max-batch-tokens 1024",
                "--max-batch-tokens was not given and is now 1024",
            ),
            ("--input-mode mlm", "--input-mode was mpnet and is now mlm"),
            ("--return-mlm", "--return-mlm was not given and is now"),
            ("--train-dir other", "--train-dir was a and is now a, other"),
        ] {
            let further = format!("--warmup-updates 1000 {now}");
            let found = found("--warmup-updates 1000", &further, 5);
            assert!(
                found.len() == 1 && found[0].contains(said),
                "{now}: {found:?}"
            );
        }
        let harmless =
            "--checkpoint-dir x --checkpoint-interval 3 --logging-steps 1 --num-workers 3 --resume";
        assert_eq!(found("", harmless, 5), [""; 0]);
    }

    #[test]
    fn another_dataset_is_named_by_its_flags() {
        let before = "--dataset-name a/b:c";
        for (now, said) in [
            (
                "--dataset-name x/b:c",
                "--dataset-name was a/b and is now x/b",
            ),
            ("--dataset-name a/b:d", "--dataset-name was c and is now d"),
            (
                "--dataset-name a/b",
                "--dataset-name was c and is now not given",
            ),
            (
                "--dataset-name a/b:c --dataset-split s",
                "--dataset-split was train and is now s",
            ),
            (
                "--dataset-name a/b:c --dataset-revision r",
                "--dataset-revision was main",
            ),
        ] {
            let found = compared(before, now, 0);
            assert!(
                found.len() == 1 && found[0].contains(said),
                "{now}: {found:?}"
            );
        }
    }

    #[test]
    fn files_and_a_dataset_are_told_apart_in_words() {
        let dataset = "--dataset-name o/d:small --min-text-length 0";
        assert_eq!(
            compared(FILES, dataset, 0),
            ["the text was that of --train-dir a and is now that of --dataset-name o/d:small"]
        );
        assert_eq!(
            compared(dataset, FILES, 0),
            ["the text was that of --dataset-name o/d:small and is now that of --train-dir a"]
        );
    }

    /// Every value of a saved configuration, changed by itself, is either told with flags that the program
    /// declares or one that no update depends on.
    #[test]
    fn every_value_that_can_differ_has_a_declared_flag() {
        let command = PretrainArgs::command();
        let declared = |flag: &str| {
            let name = flag.trim_start_matches("--");
            command.get_arguments().any(|a| a.get_long() == Some(name))
        };
        for line in [FILES, "--dataset-name a/b:c"] {
            let config = config(&format!("{line} --max-batch-tokens 1024"));
            let saved = serde_json::to_value(&config).unwrap();
            let mut leaves = Vec::new();
            collect(String::new(), &saved, &mut leaves);
            assert!(leaves.len() > 40, "{leaves:?}");
            for (path, value) in leaves {
                assert!(!flags().of(&path).is_empty(), "no flag decides {path}");
                let mut changed = saved.clone();
                let pointer = format!("/{}", path.replace('.', "/"));
                *changed.pointer_mut(&pointer).unwrap() = match value {
                    Value::Bool(yes) => (!yes).into(),
                    Value::Number(_) => 77.into(),
                    Value::String(text) => format!("{text}-other").into(),
                    Value::Null => "other".into(),
                    other => panic!("{path}: {other}"),
                };
                for said in changes(&changed, &config, 0, &flags()).unwrap() {
                    let mut named = said
                        .split([' ', '(', ')', ','])
                        .filter(|word| word.starts_with("--"))
                        .peekable();
                    assert!(named.peek().is_some(), "{path}: no flag in: {said}");
                    for flag in named {
                        assert!(declared(flag), "{path}: {flag} does not exist: {said}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_longer_run_is_the_same_run_where_its_rates_are() {
        let constant = "--lr 1e-3 --end-learning-rate 1e-3 --warmup-updates 0";
        let longer = format!("{constant} --total-updates 20");
        let shorter = format!("{constant} --total-updates 10");
        assert_eq!(found(&shorter, &longer, 3), [""; 0]);
        // Nothing is left of the first.
        assert_eq!(
            found("--total-updates 10", "--total-updates 20", 10),
            [""; 0]
        );
    }
}
