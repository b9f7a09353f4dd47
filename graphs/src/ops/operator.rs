//! What every operator has to say about itself.

use crate::ir::{Array, Bindings, Dim, Graph, GraphError, Node, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Which builds of ONNX Runtime have the kernels an operator is emitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernel {
    /// The ONNX standard: everywhere.
    Standard,
    /// `com.microsoft` kernels of ordinary builds.
    Contrib,
    /// Kernels of this project, registered with whichever build runs the model.
    Own,
    /// `com.microsoft` kernels of training builds only.
    Training,
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
pub trait Operator {
    /// Its name in printed graphs.
    fn name(&self) -> &'static str;

    /// Its attributes in printed graphs, with a leading space.
    fn attributes(&self) -> String {
        String::new()
    }

    /// Sizes among its attributes.
    fn dims(&self) -> Vec<&Dim> {
        Vec::new()
    }

    /// Output types for these input types, or why there are none.
    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String>;

    /// Vector-Jacobian product: one optional gradient for each input. The driver sums gradients,
    /// undoes broadcasting and asks only where a gradient flows.
    ///
    /// # Errors
    /// Where there is no derivative.
    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError>;

    /// Reference evaluation in f64.
    fn evaluate(&self, bindings: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String>;

    /// Writes the ONNX nodes that compute `outputs`.
    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String>;

    /// Which builds can run what [`Operator::emit`] writes.
    fn kernel(&self) -> Kernel {
        Kernel::Standard
    }

    /// The type of the `com.microsoft` node that [`Operator::emit`] writes, where ordinary builds
    /// have it ([`Kernel::Contrib`]).
    fn contrib(&self) -> Option<&'static str> {
        None
    }

    /// The same in operators that more builds have, appended to `graph`: one value for each output.
    /// `None` where the operator is as plain as it can be.
    ///
    /// # Errors
    /// Where the inputs are not the operator's.
    fn expand(
        &self,
        _graph: &mut Graph,
        _inputs: &[ValueId],
    ) -> Result<Option<Vec<ValueId>>, GraphError> {
        Ok(None)
    }
}

/// The answer of an operator that is used only in graphs that are not differentiated again.
pub(super) fn no_second_derivative(op: &'static str) -> GraphError {
    GraphError::Derivative {
        op,
        reason: "it is itself part of a derivative; second derivatives are not built".to_owned(),
    }
}
