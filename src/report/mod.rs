//! `mpnet report`: one self-contained HTML page of a run, from the records beside its checkpoints.

mod chart;
mod page;

use crate::train::log::metrics::{self, METRICS_FILE};
use crate::train::log::record::{Event, Record, Start, Test};
use crate::train::measures::FIGURES;
use anyhow::{Context, Result, ensure};
use chart::{Chart, Floor, Series};
use std::path::Path;

/// What the page shows.
struct Run {
    /// The last start: a resumed run has several.
    start: Start,
    starts: usize,
    charts: Vec<Chart>,
    events: Vec<Event>,
    test: Option<Test>,
    /// Of the last record.
    step: u64,
    time: f64,
}

/// The page of the run whose checkpoints are in `dir`; it loads itself anew every `refresh` seconds
/// where that is given and the run has not ended.
///
/// # Errors
/// Where `dir` holds no records of a run.
pub fn html(dir: &Path, refresh: Option<u64>) -> Result<String> {
    let records = metrics::read(dir).with_context(|| {
        format!(
            "reading {}: give the folder of a run's checkpoints",
            dir.join(METRICS_FILE).display()
        )
    })?;
    let run = gather(records)
        .with_context(|| format!("{} does not begin a run", dir.join(METRICS_FILE).display()))?;
    ensure!(
        run.charts.iter().any(|chart| !chart.is_empty()) || run.step == run.start.step,
        "{} holds no figures",
        dir.join(METRICS_FILE).display()
    );
    let name = std::path::absolute(dir)?;
    Ok(page::page(&run, &name.display().to_string(), refresh))
}

fn gather(records: Vec<Record>) -> Option<Run> {
    let (mut start, mut starts, mut test) = (None, 0, None);
    let mut events = Vec::new();
    let (mut step, mut time) = (0, 0.0);
    let series = |name| Series::new(name);
    let (mut loss, mut valid_loss) = (series("train"), series("valid"));
    let (mut acc, mut valid_acc) = (series("train"), series("valid"));
    let (mut lr, mut gnorm) = (series("lr"), series("norm"));
    let (mut speed, mut mfu) = (series("tokens/s"), series("% of peak"));
    let (mut each, mut collectives, mut lag) =
        (series("each device"), series("collectives"), series("lag"));
    let (mut memory, mut waiting) = (series("MB"), series("%"));
    let mut measured = FIGURES.map(series);
    for record in records {
        step = record.step().max(step);
        match record {
            Record::Start(found) => {
                time = found.time;
                start = Some(found);
                starts += 1;
            }
            Record::Train(r) => {
                time = r.time;
                loss.push(r.step, r.loss);
                acc.push(r.step, r.acc);
                lr.push(r.step, r.lr);
                gnorm.push(r.step, r.gnorm);
                speed.push(r.step, r.tokens_per_second);
                waiting.push(r.step, 100.0 * r.waiting);
                if let Some(ranks) = r.ranks {
                    each.push(r.step, ranks.tokens_per_second_per_device);
                    collectives.push(r.step, 100.0 * ranks.collectives);
                    lag.push(r.step, 100.0 * ranks.lag);
                }
                if let Some(share) = r.mfu {
                    mfu.push(r.step, 100.0 * share);
                }
                if let Some(bytes) = r.memory {
                    memory.push(r.step, bytes as f64 / 1e6);
                }
            }
            Record::Valid(r) => {
                time = r.time;
                valid_loss.push(r.step, r.loss);
                valid_acc.push(r.step, r.acc);
                for (series, name) in measured.iter_mut().zip(FIGURES) {
                    if let Some(&figure) = r.figures.get(name) {
                        series.push(r.step, figure);
                    }
                }
            }
            Record::Test(r) => {
                time = r.time;
                test = Some(r);
            }
            Record::Event(r) => {
                time = r.time;
                events.push(r);
            }
        }
    }
    let chart = Chart::new;
    let start = start?;
    let [losses, accuracies] = start.unit.titles();
    Some(Run {
        start,
        starts,
        charts: vec![
            chart(losses, Floor::Lowest, vec![loss, valid_loss]),
            chart(accuracies, Floor::Zero, vec![acc, valid_acc]),
            chart("Measures of embeddings", Floor::Zero, measured.into()),
            chart("Learning rate", Floor::Zero, vec![lr]),
            chart("Gradient norm before clipping", Floor::Zero, vec![gnorm]),
            chart(
                "Throughput, tokens a second",
                Floor::Zero,
                vec![speed, each],
            ),
            chart("Share of the device's peak, %", Floor::Zero, vec![mfu]),
            chart("Memory of the process, MB", Floor::Zero, vec![memory]),
            chart("Time waiting for data, %", Floor::Zero, vec![waiting]),
            chart(
                "Ranks: time in collectives, and lag of the slowest, %",
                Floor::Zero,
                vec![collectives, lag],
            ),
        ],
        events,
        test,
        step,
        time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::log::record::{LossUnit, RankFigures, Train, Valid};
    use std::collections::BTreeMap;
    use std::fmt::Write;

    fn records() -> Vec<Record> {
        let start = Start {
            step: 0,
            time: 1.0,
            total_updates: 20,
            parameters: 5,
            vocabulary: 7,
            version: "0".into(),
            onnxruntime: "1.19.2".into(),
            execution: "<b>cpu</b>".into(),
            system: "linux".into(),
            processors: 2,
            text: Vec::new(),
            unit: LossUnit::BitsPerToken,
            config: serde_json::json!({"tokenizer": "</script><script>alert(1)</script>"}),
        };
        let mut records = vec![Record::Start(start)];
        for step in 1..=10 {
            records.push(Record::Train(Train {
                step,
                time: 2.0,
                loss: 10.0 / step as f64,
                acc: 0.1,
                lr: 1e-3,
                gnorm: 1.0,
                tokens_per_second: 1000.0,
                mfu: None,
                memory: Some(1_000_000),
                waiting: 0.0,
                ranks: RankFigures::of(&[1.0, 1.0, 1.3], 1000.0, 0.05),
                skipped: 0,
                predicted_share: None,
                mixture: Vec::new(),
                passed: crate::data::source::Passed::default(),
            }));
        }
        records.push(Record::Valid(Valid {
            step: 10,
            time: 3.0,
            loss: 2.0,
            acc: 0.2,
            best_loss: Some(2.0),
            unit: LossUnit::BitsPerToken,
            figures: BTreeMap::new(),
        }));
        records.push(Record::Event(Event {
            step: 7,
            time: 3.0,
            text: "update 7 is skipped & counted".into(),
        }));
        records
    }

    fn write(dir: &Path, records: &[Record]) {
        let mut text = String::new();
        for record in records {
            writeln!(text, "{}", serde_json::to_string(record).unwrap()).unwrap();
        }
        // What a killed run leaves.
        text += "{\"kind\":\"tra";
        std::fs::write(dir.join(METRICS_FILE), text).unwrap();
    }

    #[test]
    fn a_page_has_the_curves_and_nothing_from_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &records());
        let page = html(folder.path(), Some(5)).unwrap();
        for part in [
            "Loss, bits per predicted token",
            "Gradient norm",
            "each device",
            "lag of the slowest",
            "update 7 is skipped &amp; counted",
            "&lt;b&gt;cpu&lt;/b&gt;",
            "http-equiv=\"refresh\" content=\"5\"",
            "<polyline",
        ] {
            assert!(page.contains(part), "no {part}");
        }
        assert!(!page.contains("<script>alert"));
        assert!(!page.contains("Share of the device"), "no figures of it");
        for outside in ["src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn a_finished_run_is_not_refreshed_and_no_run_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let said = html(folder.path(), None).unwrap_err().to_string();
        assert!(said.contains(METRICS_FILE), "{said}");
        let mut all = records();
        all.push(Record::Test(Test {
            step: 20,
            time: 9.0,
            loss: 1.5,
            acc: 0.3,
            unit: LossUnit::BitsPerToken,
        }));
        write(folder.path(), &all);
        let page = html(folder.path(), Some(5)).unwrap();
        assert!(!page.contains("http-equiv=\"refresh\""));
        write(folder.path(), &all[1..]);
        let said = html(folder.path(), None).unwrap_err().to_string();
        assert!(said.contains("does not begin a run"), "{said}");
    }
}
