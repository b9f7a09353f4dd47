//! What every operator has to say about itself.

use super::dropping::Dropping;
use crate::ir::{Array, Bindings, Cost, Dim, GraphError, Operands, Storage, Type, ValueId};
use crate::onnx::emitter::Emitter;
use crate::ops::{Graph, Node};

pub use crate::onnx::kernel::{Feature, Kernel};

/// The outcome of [`Operator::emit`].
pub type Emitted = Result<(), String>;
/// The outcome of [`Operator::expand`]: one value for each output.
pub type Expansion = Result<Option<Vec<ValueId>>, GraphError>;

/// In which element type an operator takes its floats where a graph works in 16 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arithmetic {
    /// In 16 bits, whatever they come in: what makes activations.
    Low,
    /// In f32, whatever they come in.
    Full,
    /// In f32, whatever they come in: what starts the residual stream anew.
    Stream,
    /// Each input as its kernel, one of ours, wants it.
    PerInput {
        /// Inputs that are f32 in every precision: the stream, vectors, tables and sums. The others are in
        /// 16 bits.
        full: Vec<usize>,
        /// Whether its first output is the stream or the stream's gradient.
        gives_stream: bool,
    },
    /// In f32 where one of them is the stream, which the sum becomes; else as `Follow`.
    Join,
    /// In f32 where they are the stream, which the result stays; else as `Follow`.
    Move,
    /// In 16 bits where any of them is, or is the stream.
    Follow,
}

/// Gradients that reached a node, and the node itself, for [`Operator::vjp`].
pub struct Vjp<'a> {
    pub node: &'a Node,
    /// One for each output; `None` where nothing depends on it.
    pub grads: &'a [Option<ValueId>],
}

impl Vjp<'_> {
    /// The node's input `i`.
    pub fn input(&self, i: usize) -> ValueId {
        self.node.inputs[i]
    }

    /// The node's output `i`.
    pub fn output(&self, i: usize) -> ValueId {
        self.node.outputs[i]
    }

    /// The gradient of the first output, where no other output has one.
    ///
    /// # Errors
    /// Where only another output has a gradient, or another one too.
    pub fn grad(&self) -> Result<ValueId, GraphError> {
        match self.grads {
            [Some(grad), rest @ ..] if rest.iter().all(Option::is_none) => Ok(*grad),
            _ => Err(GraphError::Derivative {
                op: self.node.op.operator().name(),
                reason: "only its first output has a derivative, and the loss depends on another"
                    .to_owned(),
            }),
        }
    }

    /// The answer of an operator that stands only where nobody differentiates.
    pub fn refused(&self) -> GraphError {
        GraphError::Derivative {
            op: self.node.op.operator().name(),
            reason:
                "it is itself part of a derivative or of the optimizer; second derivatives are \
                     not built"
                    .to_owned(),
        }
    }
}

/// Names the places of an operator's inputs, once for all its rules: constants 0, 1, … of a type of that
/// name.
macro_rules! places {
    (@ $place:expr;) => {};
    (@ $place:expr; $name:ident $($rest:ident)*) => {
        pub(crate) const $name: usize = $place;
        $crate::ops::operator::places!(@ $place + 1; $($rest)*);
    };
    ($(#[$doc:meta])* $names:ident: $($name:ident),+ $(,)?) => {
        $(#[$doc])*
        pub(crate) struct $names;

        // The list names all inputs, also those that no rule asks for.
        #[allow(dead_code)]
        impl $names {
            $crate::ops::operator::places!(@ 0; $($name)+);
        }
    };
}
pub(crate) use places;

/// The inputs, of which there must be N.
///
/// # Errors
/// Where there are more or fewer.
pub(super) fn exactly<T, const N: usize>(inputs: &[T]) -> Result<&[T; N], String> {
    let plural = if N == 1 { "" } else { "s" };
    let refused = |_| format!("takes {N} input{plural}, not {}", inputs.len());
    inputs.try_into().map_err(refused)
}

/// [`exactly`] for the inputs of an expansion.
///
/// # Errors
/// Where there are more or fewer than N.
pub(super) fn operands<const N: usize>(
    op: &'static str,
    inputs: &[ValueId],
) -> Result<[ValueId; N], GraphError> {
    let refused = |reason| GraphError::Emit { op, reason };
    exactly(inputs).copied().map_err(refused)
}

/// A row index as it is held in an array.
///
/// # Errors
/// Where there is no such row among `rows`.
pub(super) fn row_index(what: &str, index: f64, rows: usize) -> Result<usize, String> {
    if index >= 0.0 && index < rows as f64 {
        Ok(index as usize)
    } else {
        Err(format!("{what} {index} is not below {rows}"))
    }
}

/// The rules of one operator.
///
/// What a rule without a body here says nobody else knows: no pass, figure or target matches over
/// operators to find it out. The others have answers that are right, or refused, where nothing is said.
pub trait Operator {
    /// Its name in printed graphs.
    fn name(&self) -> &'static str;

    /// Its attributes in printed graphs, with a leading space.
    fn attributes(&self) -> String {
        String::new()
    }

    /// Sizes among its attributes, so that constant folding sees where they are symbolic.
    fn dims(&self) -> Vec<&Dim> {
        Vec::new()
    }

    /// Output types for these input types, or why there are none.
    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String>;

    /// Kernels any one of which runs what [`Operator::emit`] writes, preferred ones first.
    fn kernels(&self) -> Vec<Kernel>;

    /// What it does where a graph works in 16 bits.
    fn arithmetic(&self) -> Arithmetic;

    /// What it costs to run.
    fn cost(&self, node: &Operands) -> Cost;

    /// Where its results lie; not to say so counts too much memory, never too little.
    fn storage(&self) -> Storage {
        Storage::Own
    }

    /// Whether its kernel takes a node without the results that nobody reads. ONNX Runtime frees a result
    /// after the last node that reads it, so that one without any is held until the run is over.
    fn optional_outputs(&self) -> bool {
        false
    }

    /// Where it drops elements itself: what decides which, and the place of the first input that does.
    /// Where an operator forgets to say so, its mask stays an input that a device does not get, which the
    /// verifier refuses.
    fn dropping(&mut self) -> Option<(&mut Dropping, usize)> {
        None
    }

    /// Vector-Jacobian product: one optional gradient for each input. The driver sums gradients,
    /// undoes broadcasting and asks only where a gradient flows.
    ///
    /// # Errors
    /// Where there is no derivative, as that of a derivative.
    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let _ = graph;
        Err(at.refused())
    }

    /// Reference evaluation in f64.
    fn evaluate(&self, bindings: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String>;

    /// Writes the ONNX nodes that compute `outputs`.
    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted;

    /// The same in operators that more builds have, appended to `graph`. `None` where the operator is as
    /// plain as it can be.
    ///
    /// # Errors
    /// Where the inputs are not the operator's.
    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let _ = (graph, inputs);
        Ok(None)
    }
}
