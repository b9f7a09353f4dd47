//! GPUs through WebGPU's plug-in, which has the kernels of the build.

use super::{Plugin, ProviderInfo, webgpu};

pub(super) const INFO: ProviderInfo = ProviderInfo {
    name: "plugin:webgpu",
    package: "onnxruntime",
    plugin: Some(Plugin::Package("onnxruntime-ep-webgpu")),
    // What a session reads and writes is copied to the device and back.
    memory: None,
    ..webgpu::INFO
};
