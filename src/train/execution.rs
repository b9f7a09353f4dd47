//! What runs the graph, where, and in which arithmetic.

use anyhow::{Result, bail};
use clap::ValueEnum;
use mpnet_graphs::model::Task;
use mpnet_plan::{Bindings, Precision, Provider};
use mpnet_runtime::device::nvidia_capability;
use mpnet_runtime::library::{self, Loaded, LocateOptions};
use mpnet_runtime::provider;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most bytes of parameters and moments that the training API hands out and takes back: it does so in a
/// file whose offsets end at 2 GiB.
const LARGEST_STATE: u64 = 1800 << 20;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// The training API where the build has it, can save the model and the rest allows it, else sessions
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
    /// Compute layers once more for their derivative instead of keeping what they computed.
    pub gradient_checkpointing: bool,
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
            .unwrap_or_else(|| provider::detect(self.device_id))
    }

    /// The arithmetic: what was asked for, else what the provider's devices are fast and safe at.
    pub fn precision(&self) -> Precision {
        if self.engine == EngineKind::TrainingApi {
            return self.precision.unwrap_or_default();
        }
        self.precision.unwrap_or_else(|| {
            if self.on_old_cuda() {
                // These GPUs have no products in bf16.
                Precision::F16
            } else {
                self.provider().info().precision
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

    /// Whether sessions run `task`, rather than the training API.
    ///
    /// # Errors
    /// Where the training API is asked for with what it can't do here.
    pub fn uses_sessions(&self, loaded: &Loaded, task: &dyn Task) -> Result<bool> {
        match self.engine {
            EngineKind::Session => Ok(true),
            EngineKind::Auto => Ok(!(self.fits_training_api()
                && loaded.has_training_api
                && state_bytes(task) <= LARGEST_STATE)),
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
                let bytes = state_bytes(task);
                if bytes > LARGEST_STATE {
                    bail!(
                        "the training-api engine could not save this model: parameters and moments take {:.1} GB, \
                         and its files end at {:.1}: use --engine session",
                        bytes as f64 / 1e9,
                        LARGEST_STATE as f64 / 1e9
                    );
                }
                Ok(false)
            }
        }
    }
}

/// Bytes of a model's parameters and their two moments, in f32.
fn state_bytes(task: &dyn Task) -> u64 {
    let parameters = task.parameters();
    parameters.iter().map(|p| 3 * 4 * p.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::model_file::preset_model;
    use crate::cli::presets::Preset;

    #[test]
    fn the_training_api_can_save_a_base_model_but_no_large_one() {
        let bytes = |preset: Preset| state_bytes(&preset_model(preset));
        assert!(bytes(Preset::Base) <= LARGEST_STATE);
        assert!(bytes(Preset::Large) > LARGEST_STATE);
    }
}
