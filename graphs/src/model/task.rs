//! What is trained, as a value: the graph of a loss, its figures, its parameters and the symbols of its batches.
//!
//! Lowering takes any [`Task`]; the host's side of one is a type of micro-batches that gives the graph's inputs and
//! binds its symbols. Pretraining under each objective is the task that a [`ModelConfig`] is by
//! itself.

use super::AttentionForm;
use super::config::ModelConfig;
use super::parameters::Parameter;
use crate::ir::{GraphError, Symbol, ValueId};
use crate::ops::Graph;
use mpnet_plan::DropoutSite;
use std::sync::Arc;

/// Output of steps and evaluations: the loss of the batch, summed over its items, in nats.
pub const LOSS_SUM: &str = "loss_sum";
/// Output of steps and evaluations: how many of the batch's items came out right, as a float.
pub const CORRECT: &str = "correct";
/// Names, until it is differentiated, what a step differentiates in place of the loss.
pub const OBJECTIVE: &str = "objective";
/// Input: the place of each row's class, i64 `[B]`.
pub const CLASSES: &str = "classes";
/// Output of an evaluation for verification: the numbers from which the loss is computed.
pub const LOGITS: &str = "logits";

/// Something to train.
pub trait Task {
    /// Every parameter, in the order in which graphs take them.
    fn parameters(&self) -> Vec<Parameter>;

    /// The symbols of its graph: every batch gives a size for each.
    fn symbols(&self) -> &'static [Symbol];

    /// Its attention, where the rows are those of two streams whose content rows the last layer skips.
    fn two_streams(&self) -> Option<TwoStreams>;

    /// The graph of one batch's loss; with `training` it has dropout. [`loss_graph`] checks it.
    ///
    /// # Errors
    /// Where the task's settings are not valid.
    fn loss(&self, training: bool, attention: AttentionForm) -> Result<LossGraph, GraphError>;
}

/// A task of any kind.
impl Task for Arc<dyn Task> {
    fn parameters(&self) -> Vec<Parameter> {
        self.as_ref().parameters()
    }

    fn symbols(&self) -> &'static [Symbol] {
        self.as_ref().symbols()
    }

    fn two_streams(&self) -> Option<TwoStreams> {
        self.as_ref().two_streams()
    }

    fn loss(&self, training: bool, attention: AttentionForm) -> Result<LossGraph, GraphError> {
        self.as_ref().loss(training, attention)
    }
}

/// The sizes that decide whether a kernel has two-stream attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwoStreams {
    /// Columns of a head.
    pub head_dim: usize,
    /// Positions are below this.
    pub positions: usize,
}

impl TwoStreams {
    /// Those of `model`.
    pub fn of(model: &ModelConfig) -> TwoStreams {
        TwoStreams {
            head_dim: model.head_dim(),
            positions: model.max_positions,
        }
    }
}

/// A graph that computes the loss of one batch.
pub struct LossGraph {
    /// The batch's inputs, the parameters and what follows from them; no outputs.
    pub graph: Graph,
    /// The loss, summed over the batch's items, `[]`: becomes [`LOSS_SUM`].
    pub loss_sum: ValueId,
    /// What is differentiated in its place, `[]`, where a batch is a part of another whose loss depends on its items.
    pub objective: Option<ValueId>,
    /// Further figures that batches add up, f32 `[]`, under the names of the outputs that they become:
    /// [`CORRECT`] among them.
    pub figures: Vec<(&'static str, ValueId)>,
    /// What every step gives beside the figures, under the names of the outputs that it becomes.
    pub stepped: Vec<(&'static str, ValueId)>,
    /// What every evaluation gives beside the figures, under the names of the outputs that it becomes.
    pub evaluated: Vec<(&'static str, ValueId)>,
    /// What an evaluation shows for verification, under the names of the outputs that it becomes.
    pub exposed: Vec<(&'static str, ValueId)>,
    /// The dropout masks among the inputs.
    pub sites: Vec<DropoutSite>,
    /// What each layer reads, from the first on: where derivatives can start from when they compute the
    /// layers again.
    pub checkpoints: Vec<ValueId>,
}

impl LossGraph {
    /// The loss and the other figures with their names.
    pub fn all_figures(&self) -> impl Iterator<Item = (&'static str, ValueId)> {
        [(LOSS_SUM, self.loss_sum)]
            .into_iter()
            .chain(self.figures.iter().copied())
    }

    /// What a step gives: the figures, what is differentiated where that is something else ([`OBJECTIVE`]), and more.
    pub fn step_outputs(&self) -> impl Iterator<Item = (&'static str, ValueId)> {
        let objective = self.objective.map(|value| (OBJECTIVE, value));
        (self.all_figures().chain(objective)).chain(self.stepped.iter().copied())
    }
}

/// [`Task::loss`], with no symbol that the task's batches don't bind.
///
/// # Errors
/// As [`Task::loss`]; naming a symbol that the task does not declare.
pub fn loss_graph(
    task: &dyn Task,
    training: bool,
    attention: AttentionForm,
) -> Result<LossGraph, GraphError> {
    let loss = task.loss(training, attention)?;
    let invalid = |reason: String| GraphError::Invalid {
        stage: "the task's definition".to_owned(),
        reason,
    };
    if !loss.figures.iter().any(|(name, _)| *name == CORRECT) {
        return Err(invalid(format!(
            "its figures lack '{CORRECT}', of which accuracy is a share"
        )));
    }
    let declared = task.symbols();
    for input in loss.graph.inputs() {
        let mut dims = loss.graph.ty(*input).shape.iter();
        if let Some(symbol) =
            dims.find_map(|dim| dim.symbols().find(|symbol| !declared.contains(symbol)))
        {
            return Err(invalid(format!(
                "'{}' has the size {}, which the task's batches don't give",
                loss.graph.label(*input),
                symbol.letters()
            )));
        }
    }
    Ok(loss)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Dim, Type};
    use crate::lower::portable::{Options, compile};
    use crate::model::parameters::Init;
    use mpnet_plan::{AdamW, Precision, Provider};

    /// Least squares over pairs: other inputs, another symbol and another figure than pretraining has.
    struct LeastSquares {
        symbols: &'static [Symbol],
        figures: &'static [&'static str],
    }

    const PAIRS: Symbol = Symbol::new("N");

    impl Task for LeastSquares {
        fn parameters(&self) -> Vec<Parameter> {
            vec![Parameter {
                name: "slope".to_owned(),
                shape: vec![1],
                init: Init::Zeros,
            }]
        }

        fn symbols(&self) -> &'static [Symbol] {
            self.symbols
        }

        fn two_streams(&self) -> Option<TwoStreams> {
            None
        }

        fn loss(&self, _training: bool, _: AttentionForm) -> Result<LossGraph, GraphError> {
            let mut graph = Graph::new();
            let pairs = Type::f32([Dim::from(PAIRS)]);
            let x = graph.input("x", pairs.clone());
            let y = graph.input("y", pairs);
            let slope = graph.parameter("slope", Type::f32([Dim::from(1)]));
            let found = graph.mul(x, slope)?;
            let error = graph.sub(found, y)?;
            let square = graph.mul(error, error)?;
            let errors = graph.reduce_sum(error, &[0], false)?;
            Ok(LossGraph {
                loss_sum: graph.reduce_sum(square, &[0], false)?,
                figures: self.figures.iter().map(|name| (*name, errors)).collect(),
                objective: None,
                stepped: Vec::new(),
                evaluated: Vec::new(),
                exposed: Vec::new(),
                sites: Vec::new(),
                checkpoints: Vec::new(),
                graph,
            })
        }
    }

    #[test]
    fn a_task_of_its_own_inputs_symbols_and_figures_is_compiled() -> Result<(), GraphError> {
        let options = Options {
            optimizer: AdamW::default(),
            provider: Provider::Cpu,
            precision: Precision::F32,
            fused_attention: true,
            own_kernels: true,
            gradient_checkpointing: false,
            ranks: 1,
            shards: 1,
            expose: false,
        };
        let task = LeastSquares {
            symbols: &[PAIRS],
            figures: &["error_sum", CORRECT],
        };
        let plan = compile(&task, &options)?.plan;
        let names: Vec<&str> = plan.slots.iter().map(|slot| slot.name.as_str()).collect();
        assert_eq!(names, ["slope"]);
        let step = crate::onnx::conformance::graph_of(&plan.models.step);
        let outputs: Vec<&str> = step.output.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(
            outputs,
            ["loss", LOSS_SUM, "error_sum", CORRECT, "gradient.slope.new"]
        );
        Ok(())
    }

    #[test]
    fn symbols_that_no_batch_gives_and_missing_figures_are_refused() {
        let refused = |symbols, figures| {
            let task = LeastSquares { symbols, figures };
            let loss = loss_graph(&task, true, AttentionForm::Expanded);
            loss.map(|_| ()).unwrap_err().to_string()
        };
        let error = refused(&[], &[CORRECT]);
        assert!(error.contains("'x' has the size N"), "{error}");
        let error = refused(&[PAIRS], &["error_sum"]);
        assert!(error.contains("its figures lack 'correct'"), "{error}");
    }
}
