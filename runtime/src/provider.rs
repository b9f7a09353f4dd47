//! Execution providers in ONNX Runtime: which one this machine has, and how a session gets one.

use mpnet_plan::Provider;
use ort::ep::{self, ExecutionProviderDispatch};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use crate::engine::EngineError;

/// Oldest compute capability of CUDA 13, with which the pinned build was made.
const OLDEST_CUDA: (i32, i32) = (7, 5);

/// What `auto` stands for beside an NVIDIA GPU of this compute capability: CUDA where its builds support it;
/// else, and where there is none, the processor. The others are used only when asked for.
pub fn detect(capability: Option<(i32, i32)>) -> Provider {
    match capability {
        Some(capability) if capability >= OLDEST_CUDA => Provider::Cuda,
        Some(_) | None => Provider::Cpu,
    }
}

/// Whether the training-api engine runs on `provider`.
///
/// # Errors
/// [`EngineError::Provider`] where it does not.
pub(crate) fn require_training_api(provider: Provider) -> Result<(), EngineError> {
    if provider.trains() {
        Ok(())
    } else {
        Err(EngineError::Provider { provider })
    }
}

/// Whether the provider's devices have numbers by which one is chosen: OpenVINO runs on the processor alone, WebGPU
/// takes the device that its driver prefers.
fn chooses_devices(provider: Provider) -> bool {
    match provider {
        Provider::Cuda | Provider::Rocm | Provider::MigraphX | Provider::DirectMl => true,
        Provider::Cpu | Provider::OpenVino | Provider::WebGpu => false,
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
    if device_id != 0 && !chooses_devices(provider) {
        return Err(ort::Error::new(format!(
            "the provider {provider} has one device here: --device-id {device_id} is none of its"
        )));
    }
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
    if !provider.info().takes_optimized_graphs {
        builder = builder.with_optimization_level(GraphOptimizationLevel::Disable)?;
    }
    if allow_cpu_nodes {
        Ok(builder)
    } else {
        Ok(builder.with_disable_cpu_fallback()?)
    }
}
