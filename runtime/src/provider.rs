//! Execution providers in ONNX Runtime: which one this machine has, and how a session gets one.

use mpnet_plan::{Precision, Provider};
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider as _, ExecutionProviderDispatch};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use crate::engine::EngineError;
use crate::plugin::Plugin;

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
        Provider::Cuda
        | Provider::Rocm
        | Provider::MigraphX
        | Provider::DirectMl
        | Provider::OpenVinoPlugin
        | Provider::WebGpuPlugin
        | Provider::TensorRtRtxPlugin
        | Provider::MlxPlugin
        | Provider::Plugin => true,
        Provider::Cpu | Provider::OpenVino | Provider::WebGpu => false,
    }
}

/// The option under which OpenVINO takes properties of its own.
const OPENVINO_CONFIGURATION: &str = "load_config";

/// What OpenVINO is told of its arithmetic. Newer versions choose bf16 by themselves on processors that multiply in it.
fn openvino_configuration(precision: Precision) -> String {
    let hint = match precision {
        // In fp16 the graph converts by itself.
        Precision::F32 | Precision::F16 => "f32",
        Precision::BF16 => "bf16",
    };
    format!(r#"{{"CPU": {{"INFERENCE_PRECISION_HINT": "{hint}"}}}}"#)
}

/// Whether the first provider of a plug-in at a path of the user's is OpenVINO's, which is told its arithmetic there too.
fn has_openvino(plugin: &Plugin) -> bool {
    let devices = plugin.devices_of(Provider::Plugin.info().runtime_name);
    let name = Provider::OpenVinoPlugin.info().runtime_name;
    devices.iter().any(|device| device.provider == name)
}

/// Which provider a session takes, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The provider.
    pub provider: Provider,
    /// Which of its devices.
    pub device_id: i32,
    /// The arithmetic of steps.
    pub precision: Precision,
    /// Where the provider is from, if it is in no build.
    pub plugin: Option<&'a Plugin>,
}

/// Session options that put every node on the target's provider; on the processor only those it has no kernel for,
/// where `allow_cpu_nodes` accepts that.
///
/// # Errors
/// The build lacks the provider, or it cannot be set up on this machine.
pub(crate) fn register(
    builder: SessionBuilder,
    target: Target<'_>,
    allow_cpu_nodes: bool,
) -> ort::Result<SessionBuilder> {
    let Target {
        provider,
        device_id,
        precision,
        plugin,
    } = target;
    if device_id != 0 && !chooses_devices(provider) {
        return Err(ort::Error::new(format!(
            "the provider {provider} has one device here: --device-id {device_id} is none of its"
        )));
    }
    let in_build = |builder: SessionBuilder, dispatch: ExecutionProviderDispatch| {
        Ok(builder.with_execution_providers([dispatch.error_on_failure()])?)
    };
    let in_plugin = |builder: SessionBuilder, options: &[(&str, String)]| {
        let plugin = plugin
            .ok_or_else(|| ort::Error::new(format!("the library of {provider} was not loaded")))?;
        plugin.append(builder, provider.info().runtime_name, device_id, options)
    };
    let builder: ort::Result<SessionBuilder> = match provider {
        Provider::Cpu => return Ok(builder),
        Provider::Cuda => in_build(
            builder,
            ep::CUDA::default()
                .with_device_id(device_id)
                .with_tf32(false)
                // Doubling regions would waste up to half of the memory on buffers that are allocated once.
                .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
                .build(),
        ),
        Provider::Rocm => in_build(
            builder,
            ep::ROCm::default().with_device_id(device_id).build(),
        ),
        Provider::MigraphX => in_build(
            builder,
            ep::MIGraphX::default().with_device_id(device_id).build(),
        ),
        Provider::DirectMl => in_build(
            builder,
            ep::DirectML::default().with_device_id(device_id).build(),
        ),
        Provider::OpenVino => in_build(
            builder,
            ep::OpenVINO::default()
                .with_device_type("CPU")
                .with_arbitrary_config(OPENVINO_CONFIGURATION, openvino_configuration(precision))
                .build(),
        ),
        Provider::WebGpu => in_build(builder, ep::WebGPU::default().build()),
        Provider::OpenVinoPlugin => {
            let configuration = openvino_configuration(precision);
            in_plugin(builder, &[(OPENVINO_CONFIGURATION, configuration)])
        }
        Provider::Plugin if plugin.is_some_and(has_openvino) => {
            let configuration = openvino_configuration(precision);
            in_plugin(builder, &[(OPENVINO_CONFIGURATION, configuration)])
        }
        Provider::WebGpuPlugin
        | Provider::TensorRtRtxPlugin
        | Provider::MlxPlugin
        | Provider::Plugin => in_plugin(builder, &[]),
    };
    let mut builder = builder?;
    if !provider.info().takes_optimized_graphs {
        builder = builder.with_optimization_level(GraphOptimizationLevel::Disable)?;
    }
    if allow_cpu_nodes {
        Ok(builder)
    } else {
        Ok(builder.with_disable_cpu_fallback()?)
    }
}
