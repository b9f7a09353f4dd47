//! The training loop: updates, evaluations, checkpoints, and a clean end whatever ends it.

use super::config::TrainConfig;
use super::engine::Running;
use super::evaluate::{Evaluation, Totals, evaluate};
use super::inputs::{batch_inputs, dropout_inputs, loss_scale};
use super::progress::{Progress, UpdateFigures};
use super::stop::StopSignal;
use crate::checkpoint::{self, Checkpoint, Pointer};
use crate::data::dropout::MaskKey;
use crate::data::{Batch, EvaluationSet, LoaderState, Tokenizer, TrainLoader};
use anyhow::{Context, Result, anyhow};
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::NamedArray;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All updates were made.
    Finished,
    /// A signal of that number asked for a stop; a checkpoint was saved.
    Signal(i32),
}

/// Where a run stands beside its parameters.
#[derive(Debug, Clone)]
pub struct Position {
    /// Updates made.
    pub step: u64,
    /// Lowest validation loss so far, in bits per predicted token.
    pub best_loss: Option<f64>,
    /// The last step whose validation loss was taken.
    pub validated: Option<u64>,
    pub data: LoaderState,
}

/// A run in progress.
pub struct Trainer<'a> {
    pub config: &'a TrainConfig,
    pub model: &'a ModelConfig,
    pub tokenizer: &'a Tokenizer,
    pub running: Running,
    pub loader: TrainLoader,
    pub valid: EvaluationSet,
    pub test: EvaluationSet,
    pub position: Position,
    pub stop: StopSignal,
    pub progress: Progress,
    /// The last step that this run saved.
    pub saved: Option<u64>,
    /// The step that this run saved only because it was the best so far: it goes when a better one
    /// comes.
    pub only_best: Option<u64>,
}

impl Trainer<'_> {
    /// Runs to the end, or until a signal asks for a stop.
    ///
    /// # Errors
    /// Where the engine, the data or a checkpoint fails; checkpoints written so far stay.
    pub fn run(&mut self) -> Result<Ended> {
        if self.position.step == 0 {
            match self.evaluate_valid()? {
                Some(start) => self.progress.validation(0, &start, false),
                None => return self.stopped(),
            }
        } else if self.validation_is_due() {
            // The run stopped before it.
            match self.validate()? {
                Some(true) => self.save(true)?,
                Some(false) => {}
                None => return self.stopped(),
            }
        }
        while self.position.step < self.config.schedule.total_updates {
            if self.stop.received().is_some() {
                return self.stopped();
            }
            self.update()?;
            let best = match self
                .validation_is_due()
                .then(|| self.validate())
                .transpose()?
            {
                Some(Some(best)) => best,
                Some(None) => return self.stopped(),
                None => false,
            };
            let interval = self.at_interval();
            if best || interval {
                self.save(best)?;
            }
            if interval {
                checkpoint::prune(&self.config.checkpoint_dir, self.config.keep_checkpoints)?;
            }
        }
        let step = self.position.step;
        if self.position.validated != Some(step) {
            match self.validate()? {
                Some(true) => self.save(true)?,
                Some(false) => {}
                None => return self.stopped(),
            }
        }
        if self.saved != Some(step) {
            self.save(false)?;
        }
        if !self.final_test()? {
            return self.stopped();
        }
        Ok(Ended::Finished)
    }

    /// Whether the present step is one to validate at, and was not validated yet.
    fn validation_is_due(&self) -> bool {
        let step = self.position.step;
        step.is_multiple_of(self.config.eval_interval) && self.position.validated != Some(step)
    }

    /// Whether the present step is one of `checkpoint_interval`.
    fn at_interval(&self) -> bool {
        let interval = self.config.checkpoint_interval;
        interval.is_some_and(|n| self.position.step.is_multiple_of(n))
    }

    /// One update: the micro-batches, the optimizer, the figures.
    fn update(&mut self) -> Result<()> {
        let step = self.position.step + 1;
        let waiting = std::time::Instant::now();
        let batches = self.loader.next_update(self.config.update_freq)?;
        let waited = waiting.elapsed();
        let predicted: usize = batches.iter().map(|b| b.predicted_tokens).sum();
        let mut totals = Totals::default();
        for (index, batch) in batches.iter().enumerate() {
            let inputs = self.training_inputs(batch, step, index as u32, predicted);
            let outputs = self.running.engine.train_step(&inputs).with_context(|| {
                format!("training on micro-batch {} of update {step}", index + 1)
            })?;
            totals.add(&outputs, batch.predicted_tokens)?;
        }
        let average = totals.average();
        if !average.loss.is_finite() {
            return Err(self.diverged(&format!("the next loss is {}", average.loss)));
        }
        let lr = self.config.schedule.lr(step);
        let gradient_norm = self
            .running
            .engine
            .optimizer_step(lr as f32)
            .with_context(|| format!("making update {step}"))?;
        if !gradient_norm.is_finite() {
            return Err(self.diverged(&format!("the next gradient's norm is {gradient_norm}")));
        }
        self.position.step = step;
        self.position.data = self.loader.state().clone();
        self.progress.update(&UpdateFigures {
            step,
            average,
            lr,
            gradient_norm,
            tokens: batches.iter().map(|b| b.tokens).sum(),
            waited,
        });
        Ok(())
    }

    fn training_inputs(
        &self,
        batch: &Batch,
        step: u64,
        micro_batch: u32,
        predicted: usize,
    ) -> Vec<mpnet_runtime::engine::Tensor> {
        let key = MaskKey {
            seed: self.config.seed,
            update: step,
            micro_batch,
            site: 0,
        };
        let mut inputs = batch_inputs(batch);
        inputs.push(loss_scale(predicted));
        inputs.extend(dropout_inputs(&self.running.dropout, batch, key));
        inputs
    }

    fn evaluate_valid(&mut self) -> Result<Option<Evaluation>> {
        let stop = &self.stop;
        evaluate(self.running.engine.as_mut(), &self.valid, |_| {
            stop.received().is_none()
        })
        .context("evaluating the validation text")
    }

    /// Evaluates the validation text: whether the parameters are the best so far. None if a signal
    /// came.
    fn validate(&mut self) -> Result<Option<bool>> {
        let Some(found) = self.evaluate_valid()? else {
            return Ok(None);
        };
        if !found.loss.is_finite() {
            return Err(self.diverged(&format!("the validation loss is {}", found.loss)));
        }
        let position = &mut self.position;
        let best = position.best_loss.is_none_or(|best| found.loss < best);
        if best {
            position.best_loss = Some(found.loss);
        }
        position.validated = Some(position.step);
        self.progress.validation(position.step, &found, best);
        Ok(Some(best))
    }

    /// The error of a run whose figures are no longer numbers.
    fn diverged(&self, what: &str) -> anyhow::Error {
        let kept = match self.saved {
            Some(step) => format!(
                "{} is sound; ",
                self.config
                    .checkpoint_dir
                    .join(checkpoint::folder_name(step))
                    .display()
            ),
            None => String::new(),
        };
        anyhow!(
            "training has diverged: {what} after update {}; {kept}a lower --lr, a longer \
             --warmup-updates or a smaller --clip-grad-norm helps",
            self.position.step
        )
    }

    /// Evaluates the test text with the best parameters. False if a signal came.
    fn final_test(&mut self) -> Result<bool> {
        let best = checkpoint::load_parameters(
            &checkpoint::resolve(&self.config.checkpoint_dir, Pointer::Best)?,
            self.model,
        )?;
        self.running.engine.set_parameters(&best)?;
        let stop = &self.stop;
        let found = evaluate(self.running.engine.as_mut(), &self.test, |_| {
            stop.received().is_none()
        })
        .context("evaluating the test text")?;
        if let Some(found) = &found {
            self.progress.test(found);
        }
        Ok(found.is_some())
    }

    /// After a signal: saves, unless this step is saved already.
    fn stopped(&mut self) -> Result<Ended> {
        let signal = self.stop.received().unwrap_or(0);
        let step = self.position.step;
        // Not again: during the test the engine holds the best parameters, not the last.
        if self.saved != Some(step) {
            self.save(false)?;
        }
        let folder = checkpoint::folder_name(step);
        self.progress.note(&format!(
            "stopped by signal {signal} after update {step}; saved {}",
            self.config.checkpoint_dir.join(folder).display()
        ));
        Ok(Ended::Signal(signal))
    }

    /// Saves the present step as the latest checkpoint and, where it is, as the best.
    fn save(&mut self, best: bool) -> Result<()> {
        let step = self.position.step;
        let parameters: Vec<NamedArray> = self.running.engine.parameters()?;
        let optimizer = self.running.engine.optimizer_state()?;
        let checkpoint = Checkpoint {
            model: self.model.clone(),
            config: serde_json::to_value(self.config)?,
            step,
            best_loss: self.position.best_loss,
            validated: self.position.validated,
            data: serde_json::to_value(&self.position.data)?,
            seed: self.config.seed,
            parameters,
            optimizer: Some(optimizer),
            tokenizer: Some(self.tokenizer.path().to_owned()),
        };
        let dir = &self.config.checkpoint_dir;
        checkpoint::save(dir, &checkpoint)
            .with_context(|| format!("saving the checkpoint of update {step}"))?;
        self.saved = Some(step);
        checkpoint::set_pointer(dir, Pointer::Latest, step)?;
        if best {
            checkpoint::set_pointer(dir, Pointer::Best, step)?;
            let only_best = (!self.at_interval()).then_some(step);
            if let Some(old) = std::mem::replace(&mut self.only_best, only_best) {
                checkpoint::remove(dir, old)?;
            }
        }
        Ok(())
    }
}
