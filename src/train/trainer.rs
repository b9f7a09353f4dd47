//! The training loop: updates, evaluations, checkpoints, and a clean end whatever ends it.

use super::bad_batch;
use super::config::TrainConfig;
use super::engine::Running;
use super::evaluate::{Evaluation, Totals, evaluate};
use super::feed::{AnyBatch, HeldOut};
use super::feeder::{Feeder, Prepared, stalled};
use super::figures::{Figures, UpdateFigures};
use super::log::Log;
use super::log::record::{Record, Test, Valid, now};
use super::measures::Measures;
use super::position::{Best, BestBy, Position};
use super::prepare::PreparedRun;
use super::ranks::{Ranks, Said, Same, TEXT, Value, digest};
use super::saver::{Attempts, Job, Saver};
use super::whole::Whole;
use crate::checkpoint::{self, Checkpoint, Pointer};
use crate::data::Tokenizer;
use crate::data::dropout::MaskKey;
use crate::launch::children::Progress;
use crate::stop::StopSignal;
use anyhow::{Context, Result, anyhow};
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::digest::hexadecimal;
use mpnet_runtime::engine::{NamedArray, OptimizerState, Tensor, TensorData};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All updates were made.
    Finished,
    /// A signal of that number asked for a stop, this rank or another; a checkpoint was saved.
    Signal(i32),
}

/// A run in progress.
pub struct Trainer<'a> {
    config: &'a TrainConfig,
    model: ModelConfig,
    tokenizer: Arc<Tokenizer>,
    running: Running,
    feeder: Feeder,
    /// What of the model is not trained.
    whole: Whole,
    valid: Option<Box<dyn HeldOut>>,
    test: Option<Box<dyn HeldOut>>,
    /// Rows of floats that the micro-batches of an update give each other, and floats of a row, where they do.
    gathers: Option<[usize; 2]>,
    measures: Option<Measures>,
    position: Position,
    ranks: Ranks,
    stop: StopSignal,
    /// The signal that asked a rank to stop, once all have heard of it.
    asked: Option<i32>,
    /// Where this rank's parent looks up how far it is.
    progress: Progress,
    pub log: Log,
    figures: Figures,
    saver: Saver,
    /// Updates skipped in a row.
    skipped_in_row: u64,
    /// The last step that this run saved, or that it was resumed from.
    saved: Option<u64>,
    /// The step that this run saved only because it was the best so far: it goes when a better one
    /// comes.
    only_best: Option<u64>,
}

impl<'a> Trainer<'a> {
    /// The run `config`, of which all is there. `peak` is what its device could do at most, where known.
    pub fn new(
        config: &'a TrainConfig,
        prepared: PreparedRun,
        running: Running,
        ranks: Ranks,
        log: Log,
        peak: Option<f64>,
        stop: StopSignal,
    ) -> Trainer<'a> {
        let total = config.schedule.total_updates;
        let patience = config.operation.save_patience;
        Trainer {
            config,
            model: prepared.model,
            tokenizer: prepared.tokenizer,
            running,
            whole: prepared.whole,
            feeder: prepared.feeder,
            valid: prepared.valid,
            test: prepared.test,
            gathers: prepared.gathers,
            measures: prepared.measures,
            position: prepared.position,
            log,
            figures: Figures::new(config.logging_steps, total, config.task.unit(), peak),
            saver: Saver::new(&config.checkpoint_dir, patience, stop.clone()),
            progress: Progress::of(ranks.launch()),
            ranks,
            stop,
            asked: None,
            skipped_in_row: 0,
            saved: prepared.saved,
            only_best: None,
        }
    }

    /// Runs to the end, or until a signal asks for a stop.
    ///
    /// # Errors
    /// Where the engine, the data or a checkpoint fails; checkpoints written so far stay.
    pub fn run(&mut self) -> Result<Ended> {
        if self.position.step == 0 && self.valid.is_some() && !self.starts_from_a_model() {
            // Parameters that were just drawn are no model to keep.
            match self.evaluate_valid()? {
                Some(start) => {
                    let figures = self.measure()?;
                    self.tell_validation(&start, figures);
                }
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
            if self.asked_to_stop() {
                return self.stopped();
            }
            if !self.update()? {
                return self.stopped();
            }
            let best = match self
                .validation_is_due()
                .then(|| self.validate())
                .transpose()?
            {
                Some(Some(best)) => best,
                Some(None) => return self.stopped(),
                None => false,
            };
            if best || self.at_interval() {
                self.save(best)?;
            }
        }
        let step = self.position.step;
        if self.valid.is_some() && self.position.validated != Some(step) {
            match self.validate()? {
                Some(true) => self.save(true)?,
                Some(false) => {}
                None => return self.stopped(),
            }
        }
        if self.saved != Some(step) {
            self.save(false)?;
        }
        self.wait_for_saving()?;
        if !self.final_test()? {
            return self.stopped();
        }
        self.tell_notes();
        self.log.finish();
        self.ranks.wait("ending the run")?;
        Ok(Ended::Finished)
    }

    /// Whether the run trains a model on, which may then be better than what becomes of it.
    fn starts_from_a_model(&self) -> bool {
        self.config.start_from.is_some()
    }

    /// Whether all ranks know of a signal. A process alone knows at once, several once they have met.
    fn asked_to_stop(&mut self) -> bool {
        if self.ranks.world() == 1 {
            self.asked = self.stop.received();
        }
        self.asked.is_some()
    }

    /// Waits until the first rank has written everything. That may take longer than ranks wait for each other
    /// (`save_patience`), so they meet all the while.
    fn wait_for_saving(&mut self) -> Result<()> {
        if self.ranks.world() == 1 {
            return self.saver.wait();
        }
        let between = self.config.operation.collective_timeout / 4;
        while {
            let writing = !self.saver.is_done_within(between)?;
            self.ranks.any(writing, "waiting for the checkpoint")?
        } {}
        Ok(())
    }

    /// Whether the present step is one to validate at, and was not validated yet.
    fn validation_is_due(&self) -> bool {
        let step = self.position.step;
        let valid = self.valid.is_some() && self.position.validated != Some(step);
        valid && step.is_multiple_of(self.config.eval_interval)
    }

    /// Whether the present step is one of `checkpoint_interval`.
    fn at_interval(&self) -> bool {
        let (interval, step) = (self.config.checkpoint_interval, self.position.step);
        // What a run starts from is kept as long as it is the best.
        step > 0 && interval.is_some_and(|n| step.is_multiple_of(n))
    }

    /// One update: the micro-batches, the sums over all ranks, the optimizer, the figures. False if a signal came
    /// before it.
    fn update(&mut self) -> Result<bool> {
        self.tell_notes();
        let step = self.position.step + 1;
        self.progress.at(step);
        self.ranks.group().set_update(step);
        let (started, before) = (Instant::now(), self.ranks.spent());
        let (feeder, log) = (&mut self.feeder, &mut self.log);
        let stop = &self.stop;
        let fed = self.ranks.while_waiting_for(TEXT, || {
            feeder.next(stop, |waited| log.event(stalled(step, waited)))
        })?;
        let mut said = Said {
            waited: started.elapsed(),
            ..Said::default()
        };
        let mut totals = Totals::new(self.config.update_freq);
        let batches = fed.iter().flat_map(|fed| &fed.batches);
        // A rank without batches takes part, too: the others wait for it.
        let given = self.gather(step, batches)?;
        let mut flops = 0;
        if let Some(fed) = &fed {
            flops = self.train(step, fed, given.as_ref(), &mut totals, &mut said)?;
        }
        said.empty = fed.is_none();
        said.signal = self.stop.received().unwrap_or(0);
        // Sums may have begun in the last step, and it may have waited for other ranks there.
        let waited_for_ranks = self.ranks.spent() - before;
        said.busy = started.elapsed().saturating_sub(waited_for_ranks);
        // Before the ranks meet, as some have begun in their last step.
        let summing = self.running.engine.sum_gradients();
        summing.with_context(|| format!("summing the gradients of update {step}"))?;
        let doing = format!("adding up the figures of update {step}");
        let heard = self.ranks.meet(&said, totals.slots(), &doing)?;
        if self.ranks.world() > 1 {
            self.asked = heard.signal();
        }
        let Some(fed) = fed.filter(|_| !heard.is_empty()) else {
            self.running.engine.forget_gradients()?;
            return Ok(false);
        };
        let finite = heard.is_finite();
        let average = Totals::of(heard.slots).average(self.config.task.unit());
        let lr = self.config.schedule.lr(step);
        let gradient_norm = match finite {
            true => self.running.engine.optimizer_step(lr as f32),
            false => {
                let forgotten = self.running.engine.forget_gradients();
                forgotten.map(|()| f32::NAN)
            }
        }
        .with_context(|| format!("making update {step}"))?;
        let Prepared {
            batches,
            counts,
            state,
        } = fed;
        self.position.step = step;
        self.position.data = state;
        let update = UpdateFigures {
            step,
            average,
            lr,
            gradient_norm,
            tokens: counts.tokens,
            items: counts.items,
            own_shares: counts.own_shares,
            // Micro-batches of the other ranks are about as large.
            flops: flops * self.ranks.world() as u64,
            waited: said.waited,
            collectives: self.ranks.spent() - before,
        };
        if gradient_norm.is_finite() {
            self.skipped_in_row = 0;
        } else {
            self.skipped(&update, &batches)?;
        }
        let state = &self.position.data;
        self.figures
            .update(&update, &heard.said, state.as_ref(), &mut self.log);
        Ok(true)
    }

    /// What the micro-batches of update `step`, of which `batches` are this rank's, give each other, where they do.
    fn gather<'b>(
        &mut self,
        step: u64,
        batches: impl Iterator<Item = &'b (usize, AnyBatch)>,
    ) -> Result<Option<Tensor>> {
        let Some([rows, width]) = self.gathers else {
            return Ok(None);
        };
        let mut all = vec![0.0; rows * width];
        let mut name = "";
        for (index, batch) in batches {
            let Some(gathers) = batch.gathers() else {
                continue;
            };
            let key = self.key(step, *index);
            let found = self.running.given_rows(&gathers, key);
            let found = found.with_context(|| {
                format!(
                    "embedding the texts of micro-batch {} of update {step}",
                    index + 1
                )
            })?;
            for (row, place) in found.chunks(width).zip(&gathers.places) {
                all[place * width..(place + 1) * width].copy_from_slice(row);
            }
            name = gathers.input;
        }
        let doing = format!("gathering the embeddings of update {step}");
        self.ranks.sum(&mut all, &doing)?;
        Ok(Some(Tensor {
            name: name.to_owned(),
            shape: vec![rows, width],
            data: TensorData::F32(all),
        }))
    }

    /// Names a micro-batch of update `step`, from which its dropout follows.
    fn key(&self, step: u64, index: usize) -> MaskKey {
        MaskKey {
            seed: self.config.seed,
            update: step,
            micro_batch: index as u32,
            site: 0,
        }
    }

    /// Forward and backward on this rank's micro-batches of update `step`, which are `given` what all of them have. Returns
    /// their floating-point operations,
    /// where they are counted.
    fn train(
        &mut self,
        step: u64,
        fed: &Prepared,
        given: Option<&Tensor>,
        totals: &mut Totals,
        said: &mut Said,
    ) -> Result<u64> {
        let Prepared {
            batches, counts, ..
        } = fed;
        if let Some(digest) = counts.digest {
            tracing::debug!("update {step}: batches {}", hexadecimal(digest));
        }
        let mut flops = 0;
        for (place, (index, batch)) in batches.iter().enumerate() {
            if place + 1 == batches.len() {
                self.running.engine.before_last_step();
            }
            let key = self.key(step, *index);
            let outputs = self
                .running
                .train_step_given(batch.as_ref(), counts.items, key, given)
                .with_context(|| {
                    format!("training on micro-batch {} of update {step}", index + 1)
                })?;
            let loss = totals.add(*index, &outputs, batch.items())?;
            said.not_finite += usize::from(!loss.is_finite());
            if self.figures.counts_operations() {
                flops += self.running.step_cost(&batch.sizes())?;
            }
        }
        Ok(flops)
    }

    /// Counts an update that changed nothing; too many in a row end the run.
    fn skipped(&mut self, update: &UpdateFigures, batches: &[(usize, AnyBatch)]) -> Result<()> {
        self.skipped_in_row += 1;
        let figures = format!(
            "loss {}, gradient norm {}",
            update.average.loss, update.gradient_norm
        );
        self.log.event(format!(
            "update {} is skipped, {} in a row: {figures}",
            update.step, self.skipped_in_row
        ));
        let limit = self.config.operation.max_skipped_updates;
        if self.skipped_in_row < limit.max(1) {
            return Ok(());
        }
        let (dir, share) = (&self.config.checkpoint_dir, self.ranks.share());
        let saved = bad_batch::save(dir, update.step, share, batches, &figures);
        let batch = match saved {
            Ok(path) => format!("the last batch is in {}", path.display()),
            Err(error) => format!("the last batch could not be saved: {error:#}"),
        };
        let what = format!(
            "{} updates in a row were skipped, the last with {figures}; {batch}",
            self.skipped_in_row
        );
        Err(self.diverged(&what))
    }

    /// Says what the thread that saves has to say.
    fn tell_notes(&mut self) {
        for note in self.saver.notes() {
            self.log.event(note);
        }
    }

    /// What else is measured of the parameters as they are.
    fn measure(&mut self) -> Result<BTreeMap<String, f64>> {
        let Some(measures) = &self.measures else {
            return Ok(BTreeMap::new());
        };
        let found = measures
            .measure(&mut self.running)
            .context("measuring embeddings")?;
        Ok(found
            .into_iter()
            .map(|(name, figure)| (name.to_owned(), figure))
            .collect())
    }

    fn tell_validation(&mut self, found: &Evaluation, figures: BTreeMap<String, f64>) {
        self.log.record(&Record::Valid(Valid {
            step: self.position.step,
            time: now(),
            loss: found.loss,
            acc: found.accuracy,
            best_loss: self.position.best.map(|best| best.loss),
            unit: self.config.task.unit(),
            figures,
        }));
        self.figures.restart();
    }

    fn evaluate_valid(&mut self) -> Result<Option<Evaluation>> {
        tracing::debug!("evaluating the validation text");
        let Some(valid) = &self.valid else {
            return Ok(None);
        };
        evaluate(
            &mut self.running,
            valid.as_ref(),
            &self.ranks,
            &self.stop,
            self.config.task.unit(),
        )
        .context("evaluating the validation text")
    }

    /// Checks that all ranks have the same parameters.
    fn compare_parameters(&mut self) -> Result<()> {
        if self.ranks.world() == 1 {
            return Ok(());
        }
        let parameters = digest(&self.running.engine.parameters()?);
        let same = Same {
            what: "other parameters",
            value: Value::Digest(parameters),
        };
        let doing = format!("comparing parameters after update {}", self.position.step);
        self.ranks.compare(&[same], &doing)
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
        let figures = self.measure()?;
        let by = self.config.task.best_by();
        let now = Best {
            loss: found.loss,
            figure: match by {
                BestBy::Loss => None,
                BestBy::Accuracy => Some(found.accuracy),
                BestBy::Figure(name) => figures.get(name).copied(),
            },
        };
        let position = &mut self.position;
        let best = position.best.is_none_or(|before| now.is_better(&before));
        if best {
            position.best = Some(now);
        }
        position.validated = Some(position.step);
        self.tell_validation(&found, figures);
        self.compare_parameters()?;
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
        let Some(test) = &self.test else {
            return Ok(true);
        };
        let best = checkpoint::resolve(&self.config.checkpoint_dir, Pointer::Best)
            .and_then(|folder| checkpoint::load_model(&folder))
            .context("loading the best checkpoint for the test")?;
        let best = self.whole.trained(best.parameters);
        self.running.engine.set_parameters(&best)?;
        drop(best);
        tracing::debug!("evaluating the test text");
        let unit = self.config.task.unit();
        let found = evaluate(
            &mut self.running,
            test.as_ref(),
            &self.ranks,
            &self.stop,
            unit,
        )
        .context("evaluating the test text")?;
        if let Some(found) = &found {
            self.log.record(&Record::Test(Test {
                step: self.position.step,
                time: now(),
                loss: found.loss,
                acc: found.accuracy,
                unit,
            }));
        }
        Ok(found.is_some())
    }

    /// After a signal: saves, unless this step is saved already.
    fn stopped(&mut self) -> Result<Ended> {
        let signal = match self.asked {
            Some(signal) => signal,
            // It came in an evaluation, to this rank or another.
            None => (self.ranks)
                .stopped(&self.stop, "agreeing on the signal")?
                .unwrap_or(0),
        };
        let step = self.position.step;
        // Not again: during the test the engine holds the best parameters, not the last.
        if self.saved != Some(step) {
            self.save(false)?;
        }
        self.wait_for_saving()?;
        self.tell_notes();
        if self.saved != Some(step) {
            return Err(self.diverged("the parameters are not finite"));
        }
        let folder = checkpoint::folder_name(step);
        self.log.event(format!(
            "stopped by signal {signal} after update {step}; saved {}",
            self.config.checkpoint_dir.join(folder).display()
        ));
        self.log.finish();
        self.ranks.wait("ending the run")?;
        Ok(Ended::Signal(signal))
    }

    /// The optimizer's state; an engine may need room in the temporary folder to hand it out, and is
    /// asked again where there is none.
    fn optimizer_state(&mut self) -> Result<OptimizerState> {
        let mut attempts = Attempts::new(self.config.operation.save_patience, &self.stop);
        loop {
            let error = match self.running.engine.optimizer_state() {
                Ok(state) => return Ok(state),
                Err(error) => error,
            };
            if !attempts.are_left() {
                return Err(error).with_context(|| {
                    format!(
                        "saving update {}; earlier checkpoints are as they were: make room in {} and go on \
                         with --resume",
                        self.position.step,
                        std::env::temp_dir().display()
                    )
                });
            }
            let told = format!(
                "the optimizer's state of update {} could not be taken, and is tried again: {:#}",
                self.position.step,
                anyhow::Error::new(error)
            );
            tracing::warn!("{told}");
            self.log.event(told);
            attempts.rest();
        }
    }

    /// Saves the present step as the latest checkpoint and, where it is, as the best, while training
    /// goes on. What is not finite is not saved: nothing could go on from it.
    fn save(&mut self, best: bool) -> Result<()> {
        // Where nothing says which is the best, that is the last.
        let best = best || self.valid.is_none();
        // Before more memory is taken.
        self.wait_for_saving()?;
        let saved = match self.ranks.writes() {
            true => self.write(best)?,
            false => {
                // Where ranks share the optimizer, they hand out its state together.
                if self.running.placement.shard_optimizer
                    && self.config.operation.save_optimizer_state
                {
                    drop(self.optimizer_state()?);
                }
                false
            }
        };
        let step = self.position.step;
        let doing = format!("saving update {step}");
        if self.ranks.any(saved, &doing)? {
            self.saved = Some(step);
        }
        Ok(())
    }

    /// What [`save`](Self::save) does on the rank that writes. Returns whether there is such a checkpoint.
    fn write(&mut self, best: bool) -> Result<bool> {
        let step = self.position.step;
        let parameters = self.whole.join(self.running.engine.parameters()?);
        let optimizer = self.config.operation.save_optimizer_state;
        let optimizer = optimizer.then(|| self.optimizer_state()).transpose()?;
        let optimizer = optimizer.map(|state| self.whole.join_state(state));
        let moments = optimizer.iter();
        let moments = moments.flat_map(|o| o.first_moments.iter().chain(&o.second_moments));
        if let Some(array) = parameters.iter().chain(moments).find(|a| !is_finite(a)) {
            self.log.event(format!(
                "no checkpoint of update {step}: '{}' or its moments are not finite",
                array.name
            ));
            return Ok(false);
        }
        let checkpoint = Checkpoint {
            model: self.model.clone(),
            config: self.config.saved()?,
            step,
            best_loss: self.position.best.map(|best| best.loss),
            best_figure: self.position.best.and_then(|best| best.figure),
            validated: self.position.validated,
            data: self.position.data.saved()?,
            seed: self.config.seed,
            parameters,
            optimizer,
            tokenizer: Some(self.tokenizer.path().to_owned()),
        };
        let interval = self.at_interval();
        let superseded = match best {
            true => {
                let only_best = (!interval).then_some(step);
                std::mem::replace(&mut self.only_best, only_best)
            }
            false => None,
        };
        self.saver.submit(Job {
            checkpoint,
            best,
            superseded,
            keep: self.config.keep_checkpoints.filter(|_| interval),
        })?;
        Ok(true)
    }
}

/// Whether every value is a finite number.
fn is_finite(array: &NamedArray) -> bool {
    // In blocks without a branch, which the processor does several at once.
    let mut blocks = array.values.chunks(1024);
    blocks.all(|block| block.iter().fold(true, |all, v| all & v.is_finite()))
}
