//! What a run trains and evaluates on, whatever its task: batches, where they stand, and sets kept aside.

use super::micro_batch::MicroBatch;
use crate::data::source::Passed;
use crate::data::{Batch, EvaluationSet, LoaderState, Read, TrainLoader};
use crate::launch::Share;
use anyhow::Result;
use std::sync::Arc;

/// A micro-batch of any task.
pub type AnyBatch = Box<dyn MicroBatch>;

/// Batches without end.
pub trait Loader: Send {
    /// The batches of one update: `micro_batches` of them.
    ///
    /// # Errors
    /// Where the text cannot be read.
    fn next_update(&mut self, micro_batches: usize) -> Result<Vec<AnyBatch>>;

    /// Where it stands after the last batch that was handed out.
    fn state(&self) -> Arc<dyn DataState>;
}

/// Where a loader stands: with it and the same text, batches go on as if never interrupted.
pub trait DataState: Send + Sync + std::fmt::Debug {
    /// As checkpoints have it.
    ///
    /// # Errors
    /// Where it cannot be written as JSON.
    fn saved(&self) -> serde_json::Result<serde_json::Value>;

    /// What was read of each part of the text since the run began; nothing where that is not counted.
    fn read(&self) -> Vec<Read>;

    /// What the present pass over the text passed over.
    fn passed(&self) -> Passed;
}

/// A set that is evaluated: the same batches every time.
pub trait HeldOut {
    /// How many batches it has.
    fn batch_count(&self) -> usize;

    /// The batches of `share` in order, each with its number.
    fn batches<'s>(
        &'s self,
        share: Share,
    ) -> Box<dyn Iterator<Item = (usize, Result<AnyBatch>)> + 's>;
}

/// A batch of a task's own type as one of any.
fn any(batch: impl MicroBatch + 'static) -> AnyBatch {
    Box::new(batch)
}

impl Loader for TrainLoader {
    fn next_update(&mut self, micro_batches: usize) -> Result<Vec<AnyBatch>> {
        let batches: Vec<Batch> = TrainLoader::next_update(self, micro_batches)?;
        Ok(batches.into_iter().map(any).collect())
    }

    fn state(&self) -> Arc<dyn DataState> {
        Arc::new(TrainLoader::state(self).clone())
    }
}

impl DataState for LoaderState {
    fn saved(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn read(&self) -> Vec<Read> {
        LoaderState::read(self)
    }

    fn passed(&self) -> Passed {
        LoaderState::passed(self)
    }
}

impl HeldOut for EvaluationSet {
    fn batch_count(&self) -> usize {
        EvaluationSet::batch_count(self)
    }

    fn batches<'s>(
        &'s self,
        share: Share,
    ) -> Box<dyn Iterator<Item = (usize, Result<AnyBatch>)> + 's> {
        let batches = EvaluationSet::batches(self, share);
        Box::new(batches.map(|(index, batch)| (index, batch.map(any).map_err(Into::into))))
    }
}
