//! Execution providers: all that is known of each, one a file.

mod cpu;
mod cuda;
mod directml;
mod migraphx;
mod mlx_plugin;
mod openvino;
mod openvino_plugin;
mod plugin;
mod rocm;
mod tensorrt_rtx_plugin;
mod webgpu;
mod webgpu_plugin;

use std::fmt;
use std::str::FromStr;

use crate::{KernelId, Precision};

/// Declares the enum, the list of all and where each one's facts are: a provider cannot be without them.
macro_rules! providers {
    ($($(#[doc = $doc:literal])* $name:ident: $module:ident,)*) => {
        /// Where a graph is executed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Provider {
            $($(#[doc = $doc])* $name,)*
        }

        impl Provider {
            /// Every provider, in the order in which they are listed.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// All that is known of it.
            pub fn info(self) -> &'static ProviderInfo {
                match self {
                    $(Self::$name => &$module::INFO,)*
                }
            }
        }
    };
}

providers! {
    /// The processor; every build has it.
    Cpu: cpu,
    /// NVIDIA GPUs.
    Cuda: cuda,
    /// AMD GPUs through ROCm's own provider.
    Rocm: rocm,
    /// AMD GPUs through MIGraphX.
    MigraphX: migraphx,
    /// GPUs on Windows.
    DirectMl: directml,
    /// Intel processors, through OpenVINO.
    OpenVino: openvino,
    /// GPUs through WebGPU.
    WebGpu: webgpu,
    /// Intel processors, through the plug-in of OpenVINO.
    OpenVinoPlugin: openvino_plugin,
    /// GPUs through the plug-in of WebGPU.
    WebGpuPlugin: webgpu_plugin,
    /// NVIDIA GPUs through the plug-in of TensorRT for RTX.
    TensorRtRtxPlugin: tensorrt_rtx_plugin,
    /// Apple's processors through the plug-in of MLX.
    MlxPlugin: mlx_plugin,
    /// A plug-in at a path of the user's.
    Plugin: plugin,
}

/// Where a provider comes from that is in no build: a library of its own, which a plain build loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// This package.
    Package(&'static str),
    /// A path that the user names.
    Path,
}

/// What a step in bf16 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bf16Form {
    /// Tensors are bf16 where that is safe.
    Tensors,
    /// All tensors stay f32; matrix products, by a kernel of this project, round what they read.
    Products,
    /// The graph is the one in f32, and the provider is told to round.
    Hint,
}

/// What is known of a provider.
#[derive(Debug)]
pub struct ProviderInfo {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its name in ONNX Runtime.
    pub runtime_name: &'static str,
    /// The package whose build has it, or loads it, for inference and the session engine.
    pub package: &'static str,
    /// Where it comes from, if no build has it.
    pub plugin: Option<Plugin>,
    /// The package whose build has it and the training API.
    pub training_package: Option<&'static str>,
    /// What the machine needs, in words.
    pub needs: &'static str,
    /// The arithmetic that its devices are fast and safe at.
    pub precision: Precision,
    /// What its steps in bf16 are.
    pub bf16: Bf16Form,
    /// ONNX Runtime's name for the memory in which it works; none where that is the processor's, or what it reads is
    /// copied there and what it writes back.
    pub memory: Option<&'static str>,
    /// Whether a graph may write over memory that it reads; otherwise what it writes lies beside.
    pub updates_in_place: bool,
    /// Whether its buffers have addresses that offsets can be added to. Where they are handles, a part of a
    /// buffer cannot be bound.
    pub addresses: bool,
    /// Whether ONNX Runtime's own optimizations leave graphs as the provider can read them.
    pub takes_optimized_graphs: bool,
    /// `com.microsoft` operators that graphs use there.
    pub contrib: &'static [&'static str],
    /// Whether its LayerNormalization also gives mean and deviation, which the derivative reads.
    pub layer_norm_statistics: bool,
    /// Whether its scatters can add.
    pub scatter_adds: bool,
    /// Whether ScatterND is the way to add rows that may go to the same place. The CPU's loses some of them:
    /// its threads add without locks. CUDA's has one thread a row, ScatterElements one an element.
    pub scatter_nd_adds: bool,
    /// Whether dropout masks are computed there from a few factors, instead of being copied there.
    pub dropout_on_device: bool,
    /// Kernels of this project: in steps of which precisions each one serves.
    pub kernels: &'static [(KernelId, &'static [Precision])],
    /// Kernels of ONNX Runtime, where somebody has listed them.
    pub coverage: Option<Coverage>,
}

/// An operator and the element types that its kernel takes at opset 18, a letter each: f = f32, h = f16,
/// b = bf16, l = i64, u = u32, c = u8, o = bool.
pub type OperatorTypes = (&'static str, &'static str);

/// Which kernels a provider has for what the graphs use.
#[derive(Debug)]
pub struct Coverage {
    /// Where the lists come from.
    pub source: &'static str,
    /// Operators of the ONNX standard.
    pub standard: &'static [OperatorTypes],
    /// Operators of `com.microsoft`.
    pub contrib: &'static [OperatorTypes],
    /// Those among them that cannot add where they scatter.
    pub scatters_without_adding: &'static [&'static str],
    /// Whether sizes, axes and bounds must be constants of the model.
    pub constant_sizes: bool,
}

impl Provider {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// Whether there is a build of it with the training API.
    pub fn trains(self) -> bool {
        self.info().training_package.is_some()
    }

    /// Whether there is a kernel of this project's operator `kernel`, in steps of that precision.
    pub fn has_kernel(self, kernel: KernelId, precision: Precision) -> bool {
        let kernels = self.info().kernels.iter();
        kernels
            .clone()
            .any(|(id, precisions)| *id == kernel && precisions.contains(&precision))
    }

    /// The float type of `kernel` in steps of that precision.
    fn element(self, kernel: KernelId, step: Precision) -> Precision {
        match step {
            Precision::BF16 if self.info().bf16 != Bf16Form::Tensors => Precision::F32,
            Precision::F32 | Precision::BF16 | Precision::F16 => kernel.element(step),
        }
    }

    /// Kernels of this project with each float type by which one is chosen: what a runtime has to register.
    pub fn registrations(self) -> Vec<(KernelId, Precision)> {
        let mut found = Vec::new();
        for (kernel, precisions) in self.info().kernels {
            for precision in *precisions {
                let registration = (*kernel, self.element(*kernel, *precision));
                if !found.contains(&registration) {
                    found.push(registration);
                }
            }
        }
        found
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that is no provider's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no provider '{name}'; there are: {}", names().join(", "))]
pub struct UnknownProvider {
    /// The name given.
    pub name: String,
}

fn names() -> Vec<&'static str> {
    Provider::ALL.iter().map(|p| p.name()).collect()
}

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Self, UnknownProvider> {
        Self::ALL
            .iter()
            .copied()
            .find(|provider| provider.name() == name)
            .ok_or_else(|| UnknownProvider {
                name: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for &provider in Provider::ALL {
            assert_eq!(provider.to_string().parse(), Ok(provider));
        }
        let error = "tpu".parse::<Provider>().unwrap_err().to_string();
        assert!(
            error.contains("'tpu'") && error.contains("cpu, cuda"),
            "{error}"
        );
    }

    #[test]
    fn two_providers_have_builds_with_the_training_api() {
        let trains = Provider::ALL.iter().filter(|p| p.trains());
        let names: Vec<&str> = trains.map(|p| p.name()).collect();
        assert_eq!(names, ["cpu", "cuda"]);
    }

    #[test]
    fn each_operator_is_listed_once_with_letters_of_element_types() {
        for &provider in Provider::ALL {
            let coverage = provider.info().coverage.iter();
            for list in coverage.flat_map(|known| [known.standard, known.contrib]) {
                assert!(list.is_sorted_by(|a, b| a.0 < b.0), "{provider}");
                for (operator, types) in list {
                    assert!(!types.is_empty(), "{provider}: {operator}");
                    assert!(
                        types.chars().all(|c| "fhbluco".contains(c)),
                        "{operator}: {types}"
                    );
                }
            }
        }
    }

    #[test]
    fn each_kernel_is_listed_once_and_comes_with_its_derivative() {
        let pairs = [
            (KernelId::BiasCrossEntropy, KernelId::BiasCrossEntropyGrad),
            (KernelId::BiasGelu, KernelId::BiasGeluGrad),
            (KernelId::CrossEntropy, KernelId::CrossEntropyGrad),
            (KernelId::PackedAttention, KernelId::PackedAttentionGrad),
            (KernelId::ResidualNorm, KernelId::ResidualNormGrad),
            (
                KernelId::TwoStreamAttention,
                KernelId::TwoStreamAttentionGrad,
            ),
        ];
        for &provider in Provider::ALL {
            let kernels = provider.info().kernels;
            assert!(kernels.is_sorted_by(|a, b| a.0 < b.0), "{provider}");
            for (forward, backward) in pairs {
                for &precision in Precision::ALL {
                    assert_eq!(
                        provider.has_kernel(forward, precision),
                        provider.has_kernel(backward, precision),
                        "{forward} on {provider} in {precision}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_always_f32_is_registered_once() {
        let cuda = Provider::Cuda.registrations();
        let of = |kernel| cuda.iter().filter(|(id, _)| *id == kernel).count();
        assert_eq!(of(KernelId::AdamWUpdate), 1);
        assert_eq!(of(KernelId::TwoStreamAttention), Precision::ALL.len());
    }
}
