//! What a resumed run would do differently from the run that it resumes.

use super::config::TrainConfig;
use super::schedule::Schedule;
use anyhow::Result;
use serde_json::Value;

/// Settings that change no update: where things are, how often they are saved and told.
const HARMLESS: &[&str] = &[
    "checkpoint_dir",
    "checkpoint_interval",
    "keep_checkpoints",
    "eval_interval",
    "logging_steps",
    "data_threads",
    "start_from",
    "resume",
    "ort",
    // Compared by its effect.
    "schedule",
    // Compared by its content.
    "tokenizer",
];

/// The settings in which `config` differs from those `saved` with a checkpoint of update `step`, as
/// text, where that changes the updates to come.
///
/// # Errors
/// Never in practice.
pub fn changes(saved: &Value, config: &TrainConfig, step: u64) -> Result<Vec<String>> {
    let now = serde_json::to_value(config)?;
    let mut found = Vec::new();
    let (Some(saved), Some(now)) = (saved.as_object(), now.as_object()) else {
        return Ok(found);
    };
    for (name, value) in now {
        // What an older version, or another program, did not save cannot be compared.
        if let Some(before) = saved.get(name)
            && !HARMLESS.contains(&name.as_str())
        {
            collect(name, before, value, &mut found);
        }
    }
    if let Some(before) = saved.get("schedule")
        && let Ok(schedule) = serde_json::from_value::<Schedule>(before.clone())
        && let Some(update) = first_other_rate(&schedule, &config.schedule, step)
    {
        let (before, now) = (schedule, config.schedule);
        found.push(format!(
            "the learning rate of update {update} was to be {:.3e} and is now {:.3e} \
             (--total-updates, --warmup-updates, --lr, --end-learning-rate or --power)",
            before.lr(update),
            now.lr(update)
        ));
    }
    Ok(found)
}

/// The first update of the saved run's remaining ones that has another learning rate now.
fn first_other_rate(before: &Schedule, now: &Schedule, step: u64) -> Option<u64> {
    let last = before.total_updates.min(now.total_updates);
    (step.saturating_add(1)..=last).find(|&update| before.lr(update) != now.lr(update))
}

/// Goes down to the values that differ.
fn collect(name: &str, before: &Value, now: &Value, found: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            for (field, value) in now {
                if let Some(before) = before.get(field) {
                    collect(field, before, value, found);
                }
            }
            for field in before.keys().filter(|field| !now.contains_key(*field)) {
                found.push(format!("{name} no longer has '{field}'"));
            }
        }
        (before, now) if before == now || same_number(before, now) => {}
        (before, now) => found.push(format!(
            "--{} was {} and is now {}",
            name.replace('_', "-"),
            shown(before),
            shown(now)
        )),
    }
}

/// As it was written: most numbers are f32.
fn shown(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if !value.is_u64() && f64::from(number as f32) == number => {
            (number as f32).to_string()
        }
        Some(_) | None => value.to_string(),
    }
}

/// Whether they are one number, however it is written.
fn same_number(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        (Some(_) | None, Some(_) | None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pretrain::PretrainArgs;
    use clap::Parser;

    fn config(further: &str) -> TrainConfig {
        let line = format!("x --train-dir a --valid-file b --test-file c {further}");
        let args = PretrainArgs::try_parse_from(line.split_whitespace()).unwrap();
        args.resolve().unwrap()
    }

    fn found(before: &str, now: &str, step: u64) -> Vec<String> {
        let saved = serde_json::to_value(config(before)).unwrap();
        changes(&saved, &config(now), step).unwrap()
    }

    #[test]
    fn what_changes_an_update_is_named_and_the_rest_is_not() {
        for (now, said) in [
            ("--batch-size 8", "--batch-size was 16 and is now 8"),
            ("--seed 1", "--seed was 12345"),
            ("--dropout 0.2", "--dropout was"),
            ("--lr 1e-3", "learning rate of update 6"),
            ("--total-updates 20000", "learning rate of update 1001"),
            ("--weight-decay 0", "--weight-decay was 0.01 and is now 0"),
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
