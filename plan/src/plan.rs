//! A plan: the models of a training run in ordinary sessions, and how an engine connects them.

use crate::{AdamW, Precision, Provider, Randomness, SizeInput};

/// What the compiler produces and the session engine executes.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the models run.
    pub provider: Provider,
    /// The arithmetic of step and evaluation.
    pub precision: Precision,
    /// What the optimizer was made for.
    pub optimizer: AdamW,
    /// The models.
    pub models: Models,
    /// Every trainable parameter, in the model's order.
    pub slots: Vec<Slot>,
    /// The long vectors in which parameters, gradients and moments lie.
    pub segments: Vec<Segment>,
    /// Ranks that share the optimizer: each updates its part of every segment, and has the moments of that alone.
    pub shards: usize,
    /// Further inputs of the step.
    pub step_sizes: Vec<SizeInput>,
    /// Further inputs of the evaluation.
    pub evaluation_sizes: Vec<SizeInput>,
    /// What the step takes for its dropout.
    pub dropout: Randomness,
}

/// The models of a plan, as ONNX files' bytes.
#[derive(Debug, Clone)]
pub struct Models {
    /// Batch, dropout, parameters and gradients so far in; figures and new gradients out.
    pub step: Vec<u8>,
    /// Batch and parameters in, figures out.
    pub evaluation: Vec<u8>,
    /// Segments of parameters, gradients and moments in, or one rank's parts of them; new ones and the gradients' norm
    /// out.
    pub optimizer: Vec<u8>,
    /// Where there are several ranks: a rank's parts of the gradients in, all of them unless ranks share the optimizer,
    /// and the sum of their squares out.
    pub squares: Option<Vec<u8>>,
    /// Segments of gradients out, filled with [`ZERO`](crate::names::ZERO).
    pub clear: Vec<u8>,
    /// One vector copied: the way in and out of a device's memory.
    pub copy: Vec<u8>,
}

/// A value that a model reads and the output that replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Name of the input.
    pub input: String,
    /// Name of the output.
    pub output: String,
}

/// A parameter's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name, which is also the step's and the evaluation's input.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Index of its segment.
    pub segment: usize,
    /// Its first element in there.
    pub offset: usize,
    /// Its gradient in the step: so far, and with the step's own added.
    pub gradient: Link,
    /// The step's output that copies the gradient to the host, where it has one.
    pub exposed: Option<String>,
}

/// One long vector of parameters, and those of their gradients and moments. It comes in as many equal parts as there
/// are shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Elements.
    pub len: usize,
    /// Whether the parameters in it decay.
    pub decays: bool,
    /// The parameters in the optimizer.
    pub parameters: Link,
    /// The gradients: the optimizer's input, the clearing model's output.
    pub gradients: Link,
    /// The running means of the gradients in the optimizer.
    pub first_moments: Link,
    /// The running means of their squares in the optimizer.
    pub second_moments: Link,
}
