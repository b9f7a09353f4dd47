//! The graph itself: values, nodes, inputs, parameters and outputs.

use super::operation::Operation;
use super::types::Type;

/// Index of a value in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) usize);

/// Index of a node in its graph; nodes stand in an order in which they can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) usize);

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Fed by the caller with every batch.
    Input,
    /// A trainable tensor.
    Parameter,
    /// An output of a node.
    Computed,
}

/// One value: its type, its origin and, for everything that has an outside name, that name.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    pub ty: Type,
    pub kind: ValueKind,
    pub name: Option<String>,
}

/// One application of an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Node<O> {
    pub op: O,
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
}

/// What is wrong with a graph or with an operation asked of one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    #[error("{op} of {inputs}: {reason}")]
    Shape {
        op: &'static str,
        inputs: String,
        reason: String,
    },
    #[error("differentiating {op}: {reason}")]
    Derivative { op: &'static str, reason: String },
    #[error("after {stage}: {reason}")]
    Invalid { stage: String, reason: String },
    #[error("emitting {op}: {reason}")]
    Emit { op: &'static str, reason: String },
    #[error("evaluating {op}: {reason}")]
    Evaluate { op: &'static str, reason: String },
    /// What a graph is to be built from is not valid, in its own words.
    #[error("{0}")]
    Description(String),
}

/// An SSA graph: every value is an input, a parameter, or the output of exactly one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph<O> {
    pub(crate) values: Vec<Value>,
    pub(crate) nodes: Vec<Node<O>>,
    pub(crate) inputs: Vec<ValueId>,
    pub(crate) parameters: Vec<ValueId>,
    /// Outside name and value.
    pub(crate) outputs: Vec<(String, ValueId)>,
}

impl<O> Default for Graph<O> {
    fn default() -> Graph<O> {
        Graph {
            values: Vec::new(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            parameters: Vec::new(),
            outputs: Vec::new(),
        }
    }
}

impl<O: Operation> Graph<O> {
    /// A graph without nodes.
    pub fn new() -> Graph<O> {
        Graph::default()
    }

    fn push_value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(self.values.len() - 1)
    }

    /// Declares an input that arrives with every batch.
    pub fn input(&mut self, name: impl Into<String>, ty: Type) -> ValueId {
        let id = self.push_value(Value {
            ty,
            kind: ValueKind::Input,
            name: Some(name.into()),
        });
        self.inputs.push(id);
        id
    }

    /// Declares a trainable parameter.
    pub fn parameter(&mut self, name: impl Into<String>, ty: Type) -> ValueId {
        let id = self.push_value(Value {
            ty,
            kind: ValueKind::Parameter,
            name: Some(name.into()),
        });
        self.parameters.push(id);
        id
    }

    /// Names `value` as an output; outputs keep the order in which they were named.
    pub fn output(&mut self, name: impl Into<String>, value: ValueId) {
        self.outputs.push((name.into(), value));
    }

    /// Appends a node and returns its outputs.
    ///
    /// # Errors
    /// Where the operator's shape rule refuses the inputs.
    pub fn apply(
        &mut self,
        op: impl Into<O>,
        inputs: &[ValueId],
    ) -> Result<Vec<ValueId>, GraphError> {
        let op = op.into();
        let types: Vec<&Type> = inputs.iter().map(|v| self.ty(*v)).collect();
        let outputs = infer(&op, &types)?;
        let outputs: Vec<ValueId> = outputs
            .into_iter()
            .map(|ty| {
                self.push_value(Value {
                    ty,
                    kind: ValueKind::Computed,
                    name: None,
                })
            })
            .collect();
        self.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
        });
        Ok(outputs)
    }

    /// [`Graph::apply`] for the first output, which every operator has.
    ///
    /// # Errors
    /// As [`Graph::apply`].
    pub fn apply1(&mut self, op: impl Into<O>, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        Ok(self.apply(op, inputs)?[0])
    }

    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        &self.values[value.0].ty
    }

    /// A value's record.
    pub fn value(&self, value: ValueId) -> &Value {
        &self.values[value.0]
    }

    /// Nodes, in an order in which they can run.
    pub fn nodes(&self) -> &[Node<O>] {
        &self.nodes
    }

    /// Inputs fed with every batch, in order.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// Trainable parameters, in order.
    pub fn parameters(&self) -> &[ValueId] {
        &self.parameters
    }

    /// Named outputs, in order.
    pub fn outputs(&self) -> &[(String, ValueId)] {
        &self.outputs
    }

    /// The node that computes each value, where one does.
    pub fn producers(&self) -> Vec<Option<NodeId>> {
        let mut producers = vec![None; self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for output in &node.outputs {
                producers[output.0] = Some(NodeId(i));
            }
        }
        producers
    }

    /// How often each value is read, by nodes and as an output.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        for node in &self.nodes {
            for input in &node.inputs {
                counts[input.0] += 1;
            }
        }
        for (_, value) in &self.outputs {
            counts[value.0] += 1;
        }
        counts
    }

    /// Replaces every use of a value, outputs included, by `map`'s entry for it.
    pub(crate) fn replace_uses(&mut self, map: &[ValueId]) {
        for node in &mut self.nodes {
            for input in &mut node.inputs {
                *input = map[input.0];
            }
        }
        for (_, value) in &mut self.outputs {
            *value = map[value.0];
        }
    }

    /// The map for [`Graph::replace_uses`] that changes nothing.
    pub(crate) fn identity_map(&self) -> Vec<ValueId> {
        (0..self.values.len()).map(ValueId).collect()
    }
}

/// The output types of `op`, with the inputs named in an error.
pub(crate) fn infer<O: Operation>(op: &O, inputs: &[&Type]) -> Result<Vec<Type>, GraphError> {
    op.infer(inputs).map_err(|reason| {
        let inputs = inputs
            .iter()
            .map(|t| t.to_string())
            .collect::<Vec<_>>()
            .join(", ");
        GraphError::Shape {
            op: op.name(),
            inputs: format!("({inputs})"),
            reason,
        }
    })
}
