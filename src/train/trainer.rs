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
use anyhow::{Context, Result, bail};
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::NamedArray;
use std::path::PathBuf;

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
        }
        let mut evaluated = None;
        while self.position.step < self.config.schedule.total_updates {
            if self.stop.received().is_some() {
                return self.stopped();
            }
            self.update()?;
            let step = self.position.step;
            if self
                .config
                .checkpoint_interval
                .is_some_and(|n| step.is_multiple_of(n))
            {
                self.save(None)?;
                checkpoint::prune(&self.config.checkpoint_dir, self.config.keep_checkpoints)?;
            }
            if step.is_multiple_of(self.config.eval_interval) {
                if !self.validate()? {
                    return self.stopped();
                }
                evaluated = Some(step);
            }
        }
        if evaluated != Some(self.position.step) && !self.validate()? {
            return self.stopped();
        }
        self.save(None)?;
        if !self.final_test()? {
            return self.stopped();
        }
        Ok(Ended::Finished)
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
            bail!(
                "the loss of update {step} is {}: training has diverged. The last checkpoint in {} is \
                 sound; a lower --lr, a longer --warmup-updates or a smaller --clip-grad-norm helps",
                average.loss,
                self.config.checkpoint_dir.display()
            );
        }
        let lr = self.config.schedule.lr(step);
        let gradient_norm = self
            .running
            .engine
            .optimizer_step(lr as f32)
            .with_context(|| format!("making update {step}"))?;
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

    /// Evaluates, and keeps the parameters if they are the best so far. False if a signal came.
    fn validate(&mut self) -> Result<bool> {
        let Some(found) = self.evaluate_valid()? else {
            return Ok(false);
        };
        let best = self.position.best_loss.is_none_or(|best| found.loss < best);
        if best {
            self.position.best_loss = Some(found.loss);
            self.save(Some(Pointer::Best))?;
        }
        self.progress.validation(self.position.step, &found, best);
        Ok(true)
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

    fn stopped(&mut self) -> Result<Ended> {
        let signal = self.stop.received().unwrap_or(0);
        let path = self.save(None)?;
        self.progress.note(&format!(
            "stopped by signal {signal} after update {}; saved {}",
            self.position.step,
            path.display()
        ));
        Ok(Ended::Signal(signal))
    }

    fn save(&mut self, pointer: Option<Pointer>) -> Result<PathBuf> {
        let step = self.position.step;
        let parameters: Vec<NamedArray> = self.running.engine.parameters()?;
        let optimizer = self.running.engine.optimizer_state()?;
        let checkpoint = Checkpoint {
            model: self.model.clone(),
            config: serde_json::to_value(self.config)?,
            step,
            best_loss: self.position.best_loss,
            data: serde_json::to_value(&self.position.data)?,
            seed: self.config.seed,
            parameters,
            optimizer: Some(optimizer),
            tokenizer: Some(self.tokenizer.path().to_owned()),
        };
        let dir = &self.config.checkpoint_dir;
        let path = checkpoint::save(dir, &checkpoint)
            .with_context(|| format!("saving the checkpoint of update {step}"))?;
        checkpoint::set_pointer(dir, Pointer::Latest, step)?;
        if let Some(pointer) = pointer {
            checkpoint::set_pointer(dir, pointer, step)?;
        }
        Ok(path)
    }
}
