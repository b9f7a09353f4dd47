//! What runs the graph, where, and in which arithmetic.

use anyhow::{Result, bail};
use mpnet_graphs::ir::Bindings;
use mpnet_graphs::lower::portable::Precision;
use mpnet_runtime::device::nvidia_capability;
use mpnet_runtime::library::{self, Loaded, LocateOptions};
use mpnet_runtime::provider::Provider;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// The training API where the build has it and the rest allows it, else sessions.
    #[default]
    Auto,
    TrainingApi,
    Session,
}

/// How attention is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionKind {
    /// By this project's kernel where the provider has one.
    #[default]
    Fused,
    /// In ordinary operators.
    Expanded,
}

/// What was asked for.
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
    /// Accept nodes on the processor that the provider has no kernel for.
    pub allow_cpu_nodes: bool,
    /// Threads of ONNX Runtime; all cores where absent.
    pub threads: Option<usize>,
    /// The largest batch to come, for whose steps a GPU's memory is set aside.
    pub largest_batch: Option<Bindings>,
}

impl Execution {
    /// Where to run.
    pub fn provider(&self) -> Provider {
        self.provider
            .unwrap_or_else(|| Provider::detect(self.device_id))
    }

    /// The arithmetic: what was asked for, else what the provider's devices are fast and safe at.
    pub fn precision(&self) -> Precision {
        if self.engine == EngineKind::TrainingApi {
            return self.precision.unwrap_or_default();
        }
        self.precision.unwrap_or_else(|| match self.provider() {
            // Which has no products in bf16.
            Provider::Cuda if self.on_old_cuda() => Precision::F16,
            Provider::Cuda | Provider::Rocm | Provider::MigraphX => Precision::BF16,
            Provider::Cpu | Provider::DirectMl | Provider::OpenVino | Provider::WebGpu => {
                Precision::F32
            }
        })
    }

    /// Whether it is an NVIDIA GPU from before compute capability 8.0.
    fn on_old_cuda(&self) -> bool {
        self.provider() == Provider::Cuda
            && nvidia_capability(self.device_id).is_some_and(|capability| capability < (8, 0))
    }

    /// Whether what lies between matrix products is by kernels of ours, where the provider has them.
    pub fn own_kernels(&self) -> bool {
        !self.no_own_kernels && !self.on_old_cuda()
    }

    /// Whether attention is one operator, where the provider has a kernel of it.
    pub fn fused_attention(&self) -> bool {
        match self.attention {
            // The kernel for NVIDIA GPUs needs what came with compute capability 8.0.
            AttentionKind::Fused => !self.on_old_cuda(),
            AttentionKind::Expanded => false,
        }
    }

    /// Whether the training API is looked for.
    pub fn wants_training_api(&self) -> bool {
        match self.engine {
            EngineKind::Session => false,
            EngineKind::TrainingApi => true,
            EngineKind::Auto => self.fits_training_api(),
        }
    }

    /// Whether it is the engine of choice: on the processor it needs less memory than sessions, on a
    /// GPU its builds are old and know f32 alone.
    fn fits_training_api(&self) -> bool {
        self.provider() == Provider::Cpu && self.precision() == Precision::F32
    }

    /// The build to run it on: `requested`, else one from the cache or fetched now.
    ///
    /// # Errors
    /// Where there is none, or it cannot be loaded.
    pub fn load(&self, requested: Option<PathBuf>) -> Result<Loaded> {
        let options =
            LocateOptions::for_provider(requested, self.provider(), self.wants_training_api())?;
        Ok(library::load(&library::locate(&options)?)?)
    }

    /// Whether sessions run it, rather than the training API.
    ///
    /// # Errors
    /// Where the training API is asked for with what it can't do here.
    pub fn uses_sessions(&self, loaded: &Loaded) -> Result<bool> {
        match self.engine {
            EngineKind::Session => Ok(true),
            EngineKind::Auto => Ok(!(self.fits_training_api() && loaded.has_training_api)),
            EngineKind::TrainingApi => {
                if !self.provider().trains() {
                    bail!(
                        "the training API has no build for {}: use --engine session",
                        self.provider()
                    );
                }
                if self.precision() != Precision::F32 {
                    bail!(
                        "the training-api engine knows fp32 alone: use --engine session for {}",
                        self.precision().name()
                    );
                }
                Ok(false)
            }
        }
    }
}
