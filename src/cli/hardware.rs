//! The flags that say what runs the graph and where.

use super::common::OrtArgs;
use super::values::{OrAuto, ProviderChoice, ProviderParser, count, precision_or_auto, provider};
use crate::train::execution::{AttentionKind, EngineKind, Execution, Requested};
use crate::train::flags::Effect;
use clap::Args;
use mpnet_plan::{Precision, Provider};

/// What a training step keeps.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Hardware")]
pub struct RecomputeArgs {
    /// Compute every layer once more for its derivative instead of keeping its activations: the same
    /// updates in less memory and more time
    #[arg(long, add = Effect::Surroundings(&[]))]
    pub gradient_checkpointing: bool,
}

/// What runs the graph, and where. None of it is part of a run: it may go on elsewhere.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hardware")]
pub struct HardwareArgs {
    /// Run the graph with this engine
    #[arg(long, value_enum, default_value_t, add = Effect::Surroundings(&[]))]
    pub engine: EngineKind,
    /// Run it here; `plugin:PATH` takes the first provider of the plug-in in that library
    #[arg(long, value_name = "PROVIDER", default_value = "auto", value_parser = ProviderParser,
        add = Effect::Surroundings(&[]))]
    pub provider: ProviderChoice,
    /// Take this one of the provider's devices
    #[arg(long, value_name = "N", default_value_t = 0, add = Effect::Surroundings(&[]))]
    pub device_id: u16,
    /// Compute in this arithmetic; parameters, gradients and the optimizer are always f32
    #[arg(long, value_name = "PRECISION", default_value = "auto",
        value_parser = precision_or_auto(), add = Effect::Surroundings(&[]))]
    pub precision: OrAuto<Precision>,
    /// Compute attention like this
    #[arg(long, value_enum, default_value_t, add = Effect::Surroundings(&[]))]
    pub attention: AttentionKind,
    /// Leave what lies between matrix products to ONNX Runtime's operators
    #[arg(long, add = Effect::Surroundings(&[]))]
    pub no_own_kernels: bool,
    /// Accept that operators which the provider lacks run on the processor
    #[arg(long, add = Effect::Surroundings(&[]))]
    pub allow_cpu_nodes: bool,
    #[command(flatten)]
    pub ort: OrtArgs,
    /// Give ONNX Runtime this many threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = count::<usize>, add = Effect::Surroundings(&[]))]
    pub threads: Option<usize>,
}

impl HardwareArgs {
    /// The libraries that were named.
    pub fn requested(&self) -> Requested {
        Requested {
            build: self.ort.ort.clone(),
            plugin: self.provider.plugin.clone(),
        }
    }

    /// The same, as the rest of the program has it.
    pub fn execution(&self) -> Execution {
        Execution {
            engine: self.engine,
            provider: self.provider.provider,
            device_id: self.device_id.into(),
            precision: self.precision,
            attention: self.attention,
            no_own_kernels: self.no_own_kernels,
            gradient_checkpointing: false,
            allow_cpu_nodes: self.allow_cpu_nodes,
            shard_optimizer: false,
            threads: self.threads,
            largest_batch: None,
        }
    }
}

/// What the session engine's models are compiled for, without a run.
#[derive(Debug, Clone, Args)]
pub struct CompiledForArgs {
    /// Compile for this provider
    #[arg(long, value_name = "PROVIDER", default_value = "cpu", value_parser = provider())]
    pub provider: Provider,
    /// Compile for this arithmetic
    #[arg(long, value_name = "PRECISION", default_value = "auto",
        value_parser = precision_or_auto())]
    pub precision: OrAuto<Precision>,
}

impl CompiledForArgs {
    /// As a run on this machine would ask for it.
    pub fn execution(&self) -> Execution {
        Execution {
            provider: Some(self.provider),
            precision: self.precision,
            ..Execution::default()
        }
    }
}
