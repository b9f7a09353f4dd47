//! What of a model a task trains, and what it carries along: checkpoints have the whole model.
//!
//! A task that trains the encoder alone keeps the language model head as it was, so that whatever reads a checkpoint
//! reads one of any task.

use mpnet_graphs::model::Task;
use mpnet_runtime::engine::{NamedArray, OptimizerState};

/// The parameters of a model that its task does not train, each with its place among all.
#[derive(Debug, Default)]
pub struct Whole(Vec<(usize, NamedArray)>);

impl Whole {
    /// Parts `all` parameters into those of `task`, in their order, and the others.
    pub fn part(all: Vec<NamedArray>, task: &dyn Task) -> (Whole, Vec<NamedArray>) {
        let names: Vec<String> = task.parameters().into_iter().map(|p| p.name).collect();
        let (mut kept, mut trained) = (Vec::new(), Vec::new());
        for (place, array) in all.into_iter().enumerate() {
            match names.contains(&array.name) {
                true => trained.push(array),
                false => kept.push((place, array)),
            }
        }
        (Whole(kept), trained)
    }

    /// Those of `all` that are trained.
    pub fn trained(&self, mut all: Vec<NamedArray>) -> Vec<NamedArray> {
        all.retain(|array| !self.0.iter().any(|(_, kept)| kept.name == array.name));
        all
    }

    /// All of them again.
    pub fn join(&self, mut trained: Vec<NamedArray>) -> Vec<NamedArray> {
        for (place, array) in &self.0 {
            trained.insert((*place).min(trained.len()), array.clone());
        }
        trained
    }

    /// The optimizer's state of the trained ones.
    pub fn trained_state(&self, state: OptimizerState) -> OptimizerState {
        OptimizerState {
            first_moments: self.trained(state.first_moments),
            second_moments: self.trained(state.second_moments),
            ..state
        }
    }

    /// The optimizer's state of all: what was never updated has moments of zero.
    pub fn join_state(&self, state: OptimizerState) -> OptimizerState {
        let still = Whole(
            self.0
                .iter()
                .map(|(place, array)| {
                    let values = vec![0.0; array.values.len()];
                    (
                        *place,
                        NamedArray {
                            values,
                            ..array.clone()
                        },
                    )
                })
                .collect(),
        );
        OptimizerState {
            first_moments: still.join(state.first_moments),
            second_moments: still.join(state.second_moments),
            ..state
        }
    }
}
