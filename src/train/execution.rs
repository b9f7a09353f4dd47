//! What runs the graph, where, and in which arithmetic, as it is asked for.

use clap::ValueEnum;
use mpnet_plan::{Bindings, Precision, Provider};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// Sessions
    #[default]
    Auto,
    /// ONNX Runtime's training API
    TrainingApi,
    /// Ordinary sessions, on any build and provider
    Session,
}

/// How attention is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum AttentionKind {
    /// By one operator of ours where the provider has a kernel of it
    #[default]
    Fused,
    /// In ONNX Runtime's operators
    Expanded,
}

/// Libraries that were asked for by their paths.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Requested {
    /// The build of ONNX Runtime.
    #[serde(rename = "ort")]
    pub build: Option<PathBuf>,
    /// The plug-in that the provider is in.
    #[serde(skip)]
    pub plugin: Option<PathBuf>,
}

/// What was asked for. [`Placement`](super::placement::Placement) is what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Execution {
    pub engine: EngineKind,
    /// The best that this machine has where absent.
    pub provider: Option<Provider>,
    /// Which of the provider's devices.
    pub device_id: i32,
    /// What suits the provider where absent.
    pub precision: Option<Precision>,
    pub attention: AttentionKind,
    /// Leave what lies between matrix products to ONNX Runtime's operators, also where this project has kernels.
    pub no_own_kernels: bool,
    /// Compute layers once more for their derivative instead of keeping what they computed.
    pub gradient_checkpointing: bool,
    /// Accept nodes on the processor that the provider has no kernel for.
    pub allow_cpu_nodes: bool,
    /// Let each rank keep and compute only its part of the optimizer.
    pub shard_optimizer: bool,
    /// Threads of ONNX Runtime; all cores where absent.
    pub threads: Option<usize>,
    /// The largest batch to come, for whose steps a GPU's memory is set aside.
    pub largest_batch: Option<Bindings>,
}
