//! The one table of execution providers: how each is called, where its build comes from and what it needs.

use std::fmt;
use std::str::FromStr;

use ort::ep::{self, ExecutionProviderDispatch};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use crate::device::nvidia_capability;
use crate::engine::EngineError;

/// Where a graph is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// The processor; every build has it.
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
    /// AMD GPUs through ROCm's own provider.
    Rocm,
    /// AMD GPUs through MIGraphX.
    MigraphX,
    /// GPUs on Windows.
    DirectMl,
    /// Intel processors and GPUs.
    OpenVino,
    /// GPUs through WebGPU.
    WebGpu,
}

/// Oldest compute capability of CUDA 13, with which the pinned build was made.
const OLDEST_CUDA: (i32, i32) = (7, 5);

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The provider.
    pub provider: Provider,
    /// Its name on the command line.
    pub name: &'static str,
    /// Its name in ONNX Runtime.
    pub runtime_name: &'static str,
    /// The package whose build has it, for inference and the session engine.
    pub package: &'static str,
    /// The package whose build has it and the training API.
    pub training_package: Option<&'static str>,
    /// What the machine needs.
    pub needs: &'static str,
    /// Whether a graph may write over memory that it reads.
    pub updates_in_place: bool,
}

/// Every provider, in the order in which they are listed.
pub const PROVIDERS: &[Entry] = &[
    Entry {
        provider: Provider::Cpu,
        name: "cpu",
        runtime_name: "CPUExecutionProvider",
        package: "onnxruntime",
        training_package: Some("onnxruntime-training-cpu"),
        needs: "nothing",
        updates_in_place: true,
    },
    Entry {
        provider: Provider::Cuda,
        name: "cuda",
        runtime_name: "CUDAExecutionProvider",
        package: "onnxruntime-gpu",
        training_package: Some("onnxruntime-training"),
        needs: "an NVIDIA GPU and driver; CUDA 13 and cuDNN 9, or CUDA 11.8 and cuDNN 8 for the training build",
        updates_in_place: true,
    },
    Entry {
        provider: Provider::Rocm,
        name: "rocm",
        runtime_name: "ROCMExecutionProvider",
        package: "onnxruntime-rocm",
        training_package: None,
        needs: "an AMD GPU and ROCm",
        updates_in_place: true,
    },
    Entry {
        provider: Provider::MigraphX,
        name: "migraphx",
        runtime_name: "MIGraphXExecutionProvider",
        package: "onnxruntime-migraphx",
        training_package: None,
        needs: "an AMD GPU, ROCm and MIGraphX",
        updates_in_place: true,
    },
    Entry {
        provider: Provider::DirectMl,
        name: "directml",
        runtime_name: "DmlExecutionProvider",
        package: "onnxruntime-directml",
        training_package: None,
        needs: "Windows and a GPU with DirectX 12",
        updates_in_place: false,
    },
    Entry {
        provider: Provider::OpenVino,
        name: "openvino",
        runtime_name: "OpenVINOExecutionProvider",
        package: "onnxruntime-openvino",
        training_package: None,
        needs: "an Intel processor or GPU and OpenVINO's libraries",
        updates_in_place: true,
    },
    Entry {
        provider: Provider::WebGpu,
        name: "webgpu",
        runtime_name: "WebGpuExecutionProvider",
        package: "onnxruntime-webgpu",
        training_package: None,
        needs: "a GPU with a Vulkan, Metal or DirectX 12 driver",
        updates_in_place: false,
    },
];

impl Provider {
    /// This provider's row.
    pub fn entry(self) -> &'static Entry {
        // Every variant has its row: `parses_its_own_name` goes through them all.
        let index = match self {
            Self::Cpu => 0,
            Self::Cuda => 1,
            Self::Rocm => 2,
            Self::MigraphX => 3,
            Self::DirectMl => 4,
            Self::OpenVino => 5,
            Self::WebGpu => 6,
        };
        &PROVIDERS[index]
    }

    /// What `auto` stands for here: CUDA where there is an NVIDIA GPU that its builds support, with a driver;
    /// else the processor. The others are used only when asked for.
    pub fn detect(device_id: i32) -> Self {
        match nvidia_capability(device_id) {
            Some(capability) if capability >= OLDEST_CUDA => Self::Cuda,
            Some(_) | None => Self::Cpu,
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// Whether a graph may write over memory that it reads; otherwise what it writes lies beside.
    pub(crate) fn updates_in_place(self) -> bool {
        self.entry().updates_in_place
    }

    /// Whether there is a build of it with the training API.
    pub fn trains(self) -> bool {
        self.entry().training_package.is_some()
    }

    /// Whether the training-api engine runs on it.
    ///
    /// # Errors
    /// [`EngineError::Provider`] where it does not.
    pub(crate) fn require_training_api(self) -> Result<(), EngineError> {
        match self.trains() {
            true => Ok(()),
            false => Err(EngineError::Provider { provider: self }),
        }
    }
}

/// Session options that put every node on `provider`; on the processor only those it has no kernel for, where
/// `allow_cpu_nodes` accepts that.
///
/// # Errors
/// The build lacks the provider, or it cannot be set up on this machine.
pub(crate) fn register(
    builder: SessionBuilder,
    provider: Provider,
    device_id: i32,
    allow_cpu_nodes: bool,
) -> ort::Result<SessionBuilder> {
    let dispatch: ExecutionProviderDispatch = match provider {
        Provider::Cpu => return Ok(builder),
        Provider::Cuda => ep::CUDA::default()
            .with_device_id(device_id)
            .with_tf32(false)
            // Doubling regions would waste up to half of the memory on buffers that are allocated once.
            .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
            .build(),
        Provider::Rocm => ep::ROCm::default().with_device_id(device_id).build(),
        Provider::MigraphX => ep::MIGraphX::default().with_device_id(device_id).build(),
        Provider::DirectMl => ep::DirectML::default().with_device_id(device_id).build(),
        Provider::OpenVino => ep::OpenVINO::default().with_device_type("CPU").build(),
        Provider::WebGpu => ep::WebGPU::default().build(),
    };
    let mut builder = builder.with_execution_providers([dispatch.error_on_failure()])?;
    if matches!(provider, Provider::OpenVino | Provider::WebGpu) {
        // OpenVINO optimises by itself and misreads what ONNX Runtime has fused; WebGPU's Gemm misreads its shapes.
        builder = builder.with_optimization_level(GraphOptimizationLevel::Disable)?;
    }
    match allow_cpu_nodes {
        true => Ok(builder),
        false => Ok(builder.with_disable_cpu_fallback()?),
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
    PROVIDERS.iter().map(|entry| entry.name).collect()
}

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Self, UnknownProvider> {
        PROVIDERS
            .iter()
            .find(|entry| entry.name == name)
            .map(|entry| entry.provider)
            .ok_or_else(|| UnknownProvider {
                name: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_its_own_name() {
        for entry in PROVIDERS {
            assert_eq!(entry.name.parse(), Ok(entry.provider));
            assert_eq!(entry.provider.entry(), entry);
        }
        let error = "tpu".parse::<Provider>().unwrap_err().to_string();
        assert!(
            error.contains("'tpu'") && error.contains("cpu, cuda"),
            "{error}"
        );
    }

    #[test]
    fn the_training_api_has_builds_for_two() {
        let trains = |entry: &&Entry| entry.provider.require_training_api().is_ok();
        let names: Vec<&str> = PROVIDERS.iter().filter(trains).map(|e| e.name).collect();
        assert_eq!(names, ["cpu", "cuda"]);
    }
}
