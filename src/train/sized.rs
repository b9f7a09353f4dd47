//! Adds to every batch the sizes that the session engine's models take as inputs.

use mpnet_graphs::model::Objective;
use mpnet_graphs::model::pretraining::{INPUT_IDS, TARGETS};
use mpnet_plan::{Bindings, SizeInput, Symbol};
use mpnet_runtime::engine::{Engine, NamedArray, OptimizerState, Result, SessionEngine, Tensor};

/// A session engine that is fed with batches alone.
pub struct SizedEngine {
    pub engine: SessionEngine,
    /// What the batches are made for.
    pub objective: Objective,
    /// Further inputs of the step.
    pub step_sizes: Vec<SizeInput>,
    /// Further inputs of the evaluation.
    pub eval_sizes: Vec<SizeInput>,
}

/// The `sizes` that follow from the shapes of `inputs`.
fn evaluate(objective: Objective, sizes: &[SizeInput], inputs: &[&Tensor]) -> Vec<Tensor> {
    let size = |name: &str, axis: usize| {
        let input = inputs.iter().find(|input| input.name == name);
        input
            .and_then(|input| input.shape.get(axis))
            .copied()
            .unwrap_or(0)
    };
    let predicted = size(TARGETS, 1);
    let bindings = Bindings::new([
        (Symbol::BATCH, size(INPUT_IDS, 0)),
        (
            Symbol::LENGTH,
            size(INPUT_IDS, 1).saturating_sub(objective.copies() * predicted),
        ),
        (Symbol::PREDICTED, predicted),
    ]);
    sizes.iter().map(|size| size.tensor(&bindings)).collect()
}

impl Engine for SizedEngine {
    fn train_step(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let sizes = evaluate(self.objective, &self.step_sizes, inputs);
        let all: Vec<&Tensor> = inputs.iter().copied().chain(&sizes).collect();
        self.engine.train_step(&all)
    }

    fn eval_step(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let sizes = evaluate(self.objective, &self.eval_sizes, inputs);
        let all: Vec<&Tensor> = inputs.iter().copied().chain(&sizes).collect();
        self.engine.eval_step(&all)
    }

    fn optimizer_step(&mut self, learning_rate: f32) -> Result<f32> {
        self.engine.optimizer_step(learning_rate)
    }

    fn forget_gradients(&mut self) -> Result<()> {
        self.engine.forget_gradients()
    }

    fn parameter(&mut self, name: &str) -> Result<NamedArray> {
        self.engine.parameter(name)
    }

    fn parameters(&mut self) -> Result<Vec<NamedArray>> {
        self.engine.parameters()
    }

    fn set_parameters(&mut self, parameters: &[NamedArray]) -> Result<()> {
        self.engine.set_parameters(parameters)
    }

    fn optimizer_state(&mut self) -> Result<OptimizerState> {
        self.engine.optimizer_state()
    }

    fn set_optimizer_state(&mut self, state: OptimizerState) -> Result<()> {
        self.engine.set_optimizer_state(state)
    }
}
