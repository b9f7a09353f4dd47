//! Where a run's records go: the terminal, `metrics.jsonl`, TensorBoard, Weights & Biases.

pub mod metrics;
pub mod record;
pub mod spikes;
pub mod tensorboard;
pub mod terminal;
pub mod wandb;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use metrics::Metrics;
use record::{Event, Record, Start, now};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tensorboard::EventFile;
use wandb::{Sync, Wandb};

/// How the terminal is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people, and a progress bar
    #[default]
    Text,
    /// A JSON object a line, as in metrics.jsonl
    Json,
}

/// Where to log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogConfig {
    pub format: LogFormat,
    /// Folder of the event files, where they are wanted.
    pub tensorboard: Option<PathBuf>,
    pub wandb: Option<Wandb>,
}

/// The event files of a run.
struct TensorBoard {
    train: EventFile,
    valid: EventFile,
    test: EventFile,
}

impl TensorBoard {
    fn create(dir: &Path, resumed: Option<u64>) -> std::io::Result<TensorBoard> {
        let time = now();
        let open = |name: &str| EventFile::create(&dir.join(name), time, resumed);
        Ok(TensorBoard {
            train: open("train")?,
            valid: open("valid")?,
            test: open("test")?,
        })
    }
}

/// Running figures of annotated-mpnet's scalars, since the run began or was resumed.
#[derive(Default)]
struct Meters {
    items: f64,
    loss: f64,
    accuracy: f64,
    tokens: f64,
    updates: f64,
}

/// One update, for TensorBoard.
pub struct UpdateScalars {
    pub step: u64,
    pub loss: f64,
    pub accuracy: f64,
    pub items: usize,
    pub lr: f64,
    pub gnorm: f64,
    pub tokens: usize,
}

/// Takes records to wherever they are wanted.
pub struct Log {
    bar: ProgressBar,
    format: LogFormat,
    metrics: Metrics,
    tensorboard: Option<TensorBoard>,
    meters: Meters,
    sync: Option<Sync>,
    step: u64,
}

impl Log {
    /// For a run that starts as `start` says and keeps its checkpoints in `dir`. A rank that does not write for all
    /// (`writes`) prints lines and nothing else.
    pub fn new(dir: &Path, config: &LogConfig, start: Start, fresh: bool, writes: bool) -> Log {
        let lines_alone = LogConfig::default();
        let config = if writes { config } else { &lines_alone };
        let target = match config.format {
            LogFormat::Text if writes => ProgressDrawTarget::stderr(),
            LogFormat::Text | LogFormat::Json => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(start.total_updates), target)
            .with_position(start.step);
        let template = "{bar:30} {pos}/{len} [{elapsed_precise} < {eta_precise}] {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.reset_eta();
        let resumed = (!fresh).then_some(start.step + 1);
        let tensorboard = config.tensorboard.as_ref().and_then(|folder| {
            TensorBoard::create(folder, resumed)
                .inspect_err(|error| {
                    tracing::warn!(
                        "{} cannot be written, the run goes on without TensorBoard: {error}",
                        folder.display()
                    );
                })
                .ok()
        });
        let sync = match (&config.wandb, &config.tensorboard) {
            (Some(wandb), Some(folder)) => Sync::new(wandb.clone(), folder),
            (Some(_) | None, Some(_) | None) => None,
        };
        let mut log = Log {
            bar,
            format: config.format,
            metrics: match writes {
                true => Metrics::new(dir, start.step, fresh),
                false => Metrics::none(),
            },
            tensorboard,
            meters: Meters::default(),
            sync,
            step: start.step,
        };
        log.record(&Record::Start(start));
        log
    }

    /// Takes one record.
    pub fn record(&mut self, record: &Record) {
        self.metrics.write(record);
        match self.format {
            LogFormat::Text => {
                if let Some(line) = record.line() {
                    let line = match record {
                        Record::Train(train) => format!(
                            "update {}/{} {line}",
                            train.step,
                            self.bar.length().unwrap_or_default()
                        ),
                        Record::Start(_)
                        | Record::Valid(_)
                        | Record::Test(_)
                        | Record::Event(_) => line,
                    };
                    self.bar.suspend(|| terminal::print(&line));
                }
            }
            LogFormat::Json => {
                if let Ok(line) = serde_json::to_string(record) {
                    terminal::print(&line);
                }
            }
        }
        match record {
            Record::Valid(r) => {
                let mut scalars = vec![("loss", r.loss), ("acc", r.acc)];
                scalars.extend(r.best_loss.map(|best| ("best_loss", best)));
                let figures = r.figures.iter();
                scalars.extend(figures.map(|(name, figure)| (name.as_str(), *figure)));
                self.scalars(|t| &mut t.valid, r.step, &scalars);
                if let Some(sync) = &mut self.sync {
                    sync.send();
                }
            }
            Record::Test(r) => {
                self.scalars(|t| &mut t.test, r.step, &[("loss", r.loss), ("acc", r.acc)]);
            }
            Record::Start(_) | Record::Train(_) | Record::Event(_) => {}
        }
    }

    /// Takes the figures of one update: the progress bar and TensorBoard have every one.
    pub fn update(&mut self, update: &UpdateScalars) {
        self.step = update.step;
        self.bar.set_position(update.step);
        self.bar.set_message(format!("loss {:.3}", update.loss));
        let meters = &mut self.meters;
        let items = update.items as f64;
        meters.items += items;
        meters.loss += items * update.loss;
        meters.accuracy += items * update.accuracy;
        meters.tokens += update.tokens as f64;
        meters.updates += 1.0;
        let scalars = [
            ("acc", meters.accuracy / meters.items.max(1.0)),
            ("loss", update.loss),
            ("sbal", meters.loss / meters.items.max(1.0)),
            ("lr", update.lr),
            ("gnorm", update.gnorm),
            ("ttp", meters.tokens),
            ("tpb", meters.tokens / meters.updates),
        ];
        self.scalars(|t| &mut t.train, update.step, &scalars);
    }

    fn scalars(
        &mut self,
        file: impl FnOnce(&mut TensorBoard) -> &mut EventFile,
        step: u64,
        scalars: &[(&str, f64)],
    ) {
        let Some(tensorboard) = &mut self.tensorboard else {
            return;
        };
        if let Err(error) = file(tensorboard).scalars(now(), step, scalars) {
            tracing::warn!("scalars of update {step} are lost to TensorBoard: {error}");
        }
    }

    /// Something to know.
    pub fn event(&mut self, text: impl Into<String>) {
        self.record(&Record::Event(Event {
            step: self.step,
            time: now(),
            text: text.into(),
        }));
    }

    /// What ended the run, for those who look at it later; the terminal has it from elsewhere.
    pub fn failure(&mut self, error: &anyhow::Error) {
        self.metrics.write(&Record::Event(Event {
            step: self.step,
            time: now(),
            text: format!("the run failed: {error:#}"),
        }));
    }

    /// Sends what is left to send.
    pub fn finish(&mut self) {
        if let Some(sync) = &mut self.sync {
            sync.finish();
        }
    }
}
