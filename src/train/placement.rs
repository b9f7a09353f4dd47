//! What was decided: where a graph runs and how. What is asked for ([`Execution`]) meets what the machine has
//! here and nowhere else, and the GPU's driver is asked once.

use super::execution::{AttentionKind, EngineKind, Execution, Requested};
use crate::machine;
use anyhow::{Context as _, Result, bail};
use mpnet_graphs::lower::portable::attends;
use mpnet_graphs::model::Task;
use mpnet_plan::{Bf16Form, Bindings, Plugin, Precision, Provider};
use mpnet_runtime::device::nvidia_capability;
use mpnet_runtime::library::{self, Loaded, LocateOptions};
use mpnet_runtime::processor::Capability;
use mpnet_runtime::provider;
use std::fmt;

/// Most bytes of parameters and moments that the training API hands out and takes back: it does so in a
/// file whose offsets end at 2 GiB.
const LARGEST_STATE: u64 = 1800 << 20;

/// The first NVIDIA GPUs with products in bf16 and with what this project's kernels need.
const AMPERE: (i32, i32) = (8, 0);

/// Where a graph runs, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Which engine. What is left open is decided [for a model](Placement::for_model).
    pub engine: EngineKind,
    pub provider: Provider,
    /// Which of the provider's devices.
    pub device_id: i32,
    pub precision: Precision,
    /// Whether attention is one operator, where the provider has a kernel of it for the model.
    pub fused_attention: bool,
    /// Whether what lies between matrix products is by kernels of ours, where the provider has them.
    pub own_kernels: bool,
    /// Compute layers once more for their derivative instead of keeping what they computed.
    pub gradient_checkpointing: bool,
    /// Accept nodes on the processor that the provider has no kernel for.
    pub allow_cpu_nodes: bool,
    /// Whether each rank keeps and computes only its part of the optimizer.
    pub shard_optimizer: bool,
    /// Threads of ONNX Runtime; all cores where absent.
    pub threads: Option<usize>,
    /// The largest batch to come, for whose steps a GPU's memory is set aside.
    pub largest_batch: Option<Bindings>,
}

impl Execution {
    /// What it comes to on this machine.
    pub fn place(&self) -> Placement {
        let capability = match self.provider {
            None | Some(Provider::Cuda) => nvidia_capability(self.device_id),
            Some(_) => None,
        };
        self.place_beside(capability)
    }

    /// What it comes to where the NVIDIA GPU has this compute capability, or there is none.
    fn place_beside(&self, capability: Option<(i32, i32)>) -> Placement {
        let provider = self
            .provider
            .unwrap_or_else(|| provider::detect(capability));
        let old = provider == Provider::Cuda && capability.is_some_and(|found| found < AMPERE);
        let precision = self.precision.unwrap_or(match self.engine {
            EngineKind::TrainingApi => Precision::F32,
            EngineKind::Auto | EngineKind::Session if old => Precision::F16,
            EngineKind::Auto | EngineKind::Session => provider.info().precision,
        });
        Placement {
            engine: self.engine,
            provider,
            device_id: self.device_id,
            precision,
            fused_attention: self.attention == AttentionKind::Fused && !old,
            own_kernels: !self.no_own_kernels && !old,
            gradient_checkpointing: self.gradient_checkpointing,
            allow_cpu_nodes: self.allow_cpu_nodes,
            shard_optimizer: self.shard_optimizer,
            threads: self.threads,
            largest_batch: self.largest_batch,
        }
    }
}

impl Placement {
    /// Arithmetic operations a second that there are at most, where that is known.
    pub fn peak(&self) -> Option<f64> {
        machine::peak(self.provider, self.device_id, self.precision, self.threads)
    }

    /// The build to run it on, with the provider's plug-in where it is one: those asked for, else from the cache or
    /// fetched now.
    ///
    /// # Errors
    /// Where there is none, or it cannot be loaded.
    pub fn load(&self, requested: Requested) -> Result<Loaded> {
        let training_api = match self.engine {
            EngineKind::Session => false,
            EngineKind::TrainingApi => true,
            // On the processor one build serves both engines, and is a third of the other's download.
            EngineKind::Auto => {
                self.provider == Provider::Cpu && library::has_training_build(self.provider)
            }
        };
        let options = LocateOptions::for_provider(requested.build, self.provider, training_api)?;
        let loaded = library::load(&library::locate(&options)?)?;
        let plugin = match self.provider.info().plugin {
            None => return Ok(loaded),
            Some(Plugin::Package(package)) => library::locate_plugin(package)?,
            Some(Plugin::Path) => requested.plugin.context(
                "the provider is a plug-in without a path: name its library by --provider plugin:PATH",
            )?,
        };
        Ok(loaded.with_plugin(&plugin)?)
    }

    /// The same with engine and attention decided for a model.
    ///
    /// # Errors
    /// Where the training API is asked for with what it can't do here.
    pub fn for_model(&self, task: &dyn Task) -> Result<Placement> {
        if self.precision == Precision::F16
            && matches!(
                self.provider,
                Provider::Cpu | Provider::OpenVino | Provider::OpenVinoPlugin
            )
        {
            tracing::warn!(
                "{} has no products in fp16, which only adds conversions there: --precision fp32 is faster, \
                 and bf16 where `mpnet doctor` says that the processor multiplies in it",
                self.provider
            );
        }
        let engine = match self.engine {
            // Sessions need less memory, and the same bits come out of them on any number of threads.
            EngineKind::Session | EngineKind::Auto => EngineKind::Session,
            EngineKind::TrainingApi => {
                let bytes = state_bytes(task);
                if !self.provider.trains() {
                    bail!(
                        "the training API has no build for {}: use --engine session",
                        self.provider
                    );
                }
                if self.precision != Precision::F32 {
                    bail!(
                        "the training-api engine knows fp32 alone: use --engine session for {}",
                        self.precision
                    );
                }
                if bytes > LARGEST_STATE {
                    bail!(
                        "the training-api engine could not save this model: parameters and moments take {:.1} GB, \
                         and its files end at {:.1}: use --engine session",
                        bytes as f64 / 1e9,
                        LARGEST_STATE as f64 / 1e9
                    );
                }
                EngineKind::TrainingApi
            }
        };
        Ok(Placement {
            engine,
            fused_attention: self.fused_attention && attends(self.provider, task, self.precision),
            ..*self
        })
    }
}

/// As the first line of a run has it.
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = match self.engine {
            EngineKind::Auto => "an",
            EngineKind::TrainingApi => "training-api",
            EngineKind::Session => "session",
        };
        write!(f, "{engine} engine on {}", self.provider)?;
        if self.provider.info().memory.is_some() {
            write!(f, " device {}", self.device_id)?;
        }
        let attention = if self.fused_attention {
            "fused"
        } else {
            "expanded"
        };
        write!(f, " in {}", self.precision)?;
        if self.precision == Precision::BF16
            && self.provider.info().bf16 == Bf16Form::Products
            && let Ok(instructions) = Capability::here().bf16()
        {
            write!(f, " by {instructions}")?;
        }
        write!(f, ", attention {attention}")?;
        if !self.own_kernels {
            write!(f, ", without own kernels")?;
        }
        if self.gradient_checkpointing {
            write!(f, ", gradient checkpointing")?;
        }
        if self.shard_optimizer {
            write!(f, ", the optimizer shared among ranks")?;
        }
        Ok(())
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
    fn what_is_left_open_follows_from_the_gpu() {
        let placed = |capability, asked: Execution| asked.place_beside(capability);
        let asked = Execution::default();
        for (capability, provider, precision, kernels) in [
            (None, Provider::Cpu, Precision::F32, true),
            (Some((7, 0)), Provider::Cpu, Precision::F32, true),
            (Some((7, 5)), Provider::Cuda, Precision::F16, false),
            (Some((9, 0)), Provider::Cuda, Precision::BF16, true),
        ] {
            let found = placed(capability, asked);
            assert_eq!((found.provider, found.precision), (provider, precision));
            assert_eq!(
                (found.own_kernels, found.fused_attention),
                (kernels, kernels)
            );
        }
        let training_api = Execution {
            engine: EngineKind::TrainingApi,
            ..asked
        };
        let found = placed(Some((9, 0)), training_api);
        assert_eq!(
            (found.provider, found.precision),
            (Provider::Cuda, Precision::F32)
        );
        let plain = Execution {
            provider: Some(Provider::Cpu),
            precision: Some(Precision::BF16),
            attention: AttentionKind::Expanded,
            no_own_kernels: true,
            ..asked
        };
        let found = placed(Some((9, 0)), plain);
        assert_eq!(
            (found.provider, found.precision),
            (Provider::Cpu, Precision::BF16)
        );
        assert!(!found.own_kernels && !found.fused_attention);
    }

    #[test]
    fn sessions_are_the_engine_unless_the_training_api_is_asked_for_and_can() {
        let placement = Execution::default().place_beside(None);
        let engine = |placement: Placement| {
            let placed = placement.for_model(&preset_model(Preset::Base)).unwrap();
            placed.engine
        };
        assert_eq!(engine(placement), EngineKind::Session);
        let asked = Placement {
            engine: EngineKind::TrainingApi,
            ..placement
        };
        for (changed, preset, said) in [
            (asked, Preset::Large, "could not save this model"),
            (
                Placement {
                    precision: Precision::BF16,
                    ..asked
                },
                Preset::Tiny,
                "fp32 alone",
            ),
            (
                Placement {
                    provider: Provider::WebGpu,
                    ..asked
                },
                Preset::Tiny,
                "no build for webgpu",
            ),
        ] {
            let error = changed.for_model(&preset_model(preset)).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
        assert_eq!(engine(asked), EngineKind::TrainingApi);
    }

    #[test]
    fn a_placement_is_told_in_words() {
        let placement = Execution::default().place_beside(Some((9, 0)));
        let decided = placement.for_model(&preset_model(Preset::Base)).unwrap();
        assert_eq!(
            decided.to_string(),
            "session engine on cuda device 0 in bf16, attention fused"
        );
        let placement = Execution::default().place_beside(Some((7, 5)));
        let decided = placement.for_model(&preset_model(Preset::Base)).unwrap();
        assert_eq!(
            decided.to_string(),
            "session engine on cuda device 0 in fp16, attention expanded, without own kernels"
        );
    }
}
