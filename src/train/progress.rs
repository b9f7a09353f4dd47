//! What the owner of a run sees: a progress bar, and a log line every few updates.

use super::evaluate::Evaluation;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// The figures of one update.
#[derive(Debug, Clone, Copy)]
pub struct UpdateFigures {
    pub step: u64,
    pub average: Evaluation,
    pub lr: f64,
    /// Norm of all gradients before clipping.
    pub gradient_norm: f32,
    /// Tokens that are not padding.
    pub tokens: usize,
    /// Time without a batch.
    pub waited: Duration,
}

/// Writes to the terminal.
pub struct Progress {
    bar: ProgressBar,
    every: u64,
    total: u64,
    since: Instant,
    sums: Sums,
}

/// Over the updates since the last line.
#[derive(Debug, Default)]
struct Sums {
    updates: f64,
    loss: f64,
    accuracy: f64,
    tokens: usize,
    waited: Duration,
}

impl Progress {
    /// A run of `total` updates, `done` of them made, with a line every `every` updates.
    pub fn new(done: u64, total: u64, every: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
            .with_position(done);
        let template = "{bar:30} {pos}/{len} [{elapsed_precise} < {eta_precise}] {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Progress {
            bar,
            every: every.max(1),
            total,
            since: Instant::now(),
            sums: Sums::default(),
        }
    }

    /// After an update. Loss and accuracy of a line are means over the updates since the line before.
    pub fn update(&mut self, figures: &UpdateFigures) {
        let sums = &mut self.sums;
        sums.updates += 1.0;
        sums.loss += figures.average.loss;
        sums.accuracy += figures.average.accuracy;
        sums.tokens += figures.tokens;
        sums.waited += figures.waited;
        self.bar.set_position(figures.step);
        self.bar
            .set_message(format!("loss {:.3}", figures.average.loss));
        if figures.step.is_multiple_of(self.every) || figures.step == self.total {
            let elapsed = self.since.elapsed().as_secs_f64().max(1e-9);
            self.note(&format!(
                "update {}/{} | loss {:.4} | acc {:.4} | lr {:.3e} | gnorm {:.3} | {:.0} tokens/s | \
                 waiting for data {:.1} %",
                figures.step,
                self.total,
                self.sums.loss / self.sums.updates,
                self.sums.accuracy / self.sums.updates,
                figures.lr,
                figures.gradient_norm,
                self.sums.tokens as f64 / elapsed,
                100.0 * self.sums.waited.as_secs_f64() / elapsed,
            ));
            self.restart();
        }
    }

    /// After an evaluation of the validation text.
    pub fn validation(&mut self, step: u64, found: &Evaluation, best: bool) {
        let mark = if best { " | best so far" } else { "" };
        self.note(&format!(
            "validation after update {step} | loss {:.4} bits per token | acc {:.4}{mark}",
            found.loss, found.accuracy
        ));
        self.restart();
    }

    /// After the evaluation of the test text.
    pub fn test(&mut self, found: &Evaluation) {
        self.note(&format!(
            "test, best checkpoint | loss {:.4} bits per token | acc {:.4}",
            found.loss, found.accuracy
        ));
    }

    /// A line that stays.
    pub fn note(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }

    /// Evaluations don't count as training time.
    fn restart(&mut self) {
        self.since = Instant::now();
        self.sums = Sums::default();
    }
}
