//! The flags that say what runs the graph and where.

use crate::train::execution::{AttentionKind, EngineKind, Execution};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use mpnet_graphs::lower::portable::Precision;
use mpnet_runtime::provider::{PROVIDERS, Provider};

/// `--engine`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineChoice {
    /// The training API where the build has it and can save the model, else sessions
    Auto,
    /// ONNX Runtime's training API
    TrainingApi,
    /// Ordinary sessions, on any build and provider
    Session,
}

/// `--precision`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionChoice {
    /// What suits the provider
    Auto,
    Fp32,
    /// Matrix products and activations in bf16
    Bf16,
    /// Matrix products and activations in fp16, with loss scaling
    Fp16,
}

impl PrecisionChoice {
    /// The arithmetic; none where the provider decides.
    pub fn precision(self) -> Option<Precision> {
        match self {
            PrecisionChoice::Auto => None,
            PrecisionChoice::Fp32 => Some(Precision::F32),
            PrecisionChoice::Bf16 => Some(Precision::BF16),
            PrecisionChoice::Fp16 => Some(Precision::F16),
        }
    }
}

/// `--attention`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttentionChoice {
    /// By one operator of ours where the provider has a kernel of it
    Fused,
    /// In ONNX Runtime's operators
    Expanded,
}

/// What a training step keeps.
#[derive(Debug, Clone, Copy, Args)]
pub struct RecomputeArgs {
    /// Compute every layer once more for its derivative instead of keeping its activations: the same
    /// updates in less memory and more time
    #[arg(long, help_heading = "Hardware")]
    pub gradient_checkpointing: bool,
}

/// What runs the graph, and where.
#[derive(Debug, Clone, Args)]
pub struct HardwareArgs {
    /// What runs the graph
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto, help_heading = "Hardware")]
    pub engine: EngineChoice,
    /// Where it runs; auto is CUDA where there is an NVIDIA GPU, else the processor
    #[arg(long, default_value = "auto", help_heading = "Hardware",
        value_parser = PossibleValuesParser::new(
            std::iter::once("auto").chain(PROVIDERS.iter().map(|entry| entry.name))))]
    pub provider: String,
    /// Which of the provider's devices
    #[arg(long, default_value_t = 0, help_heading = "Hardware")]
    pub device_id: u16,
    /// Arithmetic
    #[arg(long, value_enum, default_value_t = PrecisionChoice::Auto, help_heading = "Hardware")]
    pub precision: PrecisionChoice,
    /// How attention is computed
    #[arg(long, value_enum, default_value_t = AttentionChoice::Fused, help_heading = "Hardware")]
    pub attention: AttentionChoice,
    /// On NVIDIA GPUs, leave what lies between matrix products to ONNX Runtime's operators
    #[arg(long, help_heading = "Hardware")]
    pub no_own_kernels: bool,
    /// Accept that operators which the provider lacks run on the processor
    #[arg(long, help_heading = "Hardware")]
    pub allow_cpu_nodes: bool,
}

impl HardwareArgs {
    /// The same, resolved, with the threads of ONNX Runtime.
    pub fn execution(&self, threads: Option<usize>) -> Execution {
        Execution {
            engine: match self.engine {
                EngineChoice::Auto => EngineKind::Auto,
                EngineChoice::TrainingApi => EngineKind::TrainingApi,
                EngineChoice::Session => EngineKind::Session,
            },
            provider: self.provider.parse::<Provider>().ok(),
            device_id: self.device_id.into(),
            precision: self.precision.precision(),
            attention: match self.attention {
                AttentionChoice::Fused => AttentionKind::Fused,
                AttentionChoice::Expanded => AttentionKind::Expanded,
            },
            no_own_kernels: self.no_own_kernels,
            gradient_checkpointing: false,
            allow_cpu_nodes: self.allow_cpu_nodes,
            threads,
            largest_batch: None,
        }
    }
}
