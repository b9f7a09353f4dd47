//! NVIDIA GPUs by the plug-in of TensorRT for RTX; not tried on a GPU.

use super::{Plugin, ProviderInfo, plugin};

pub(super) const INFO: ProviderInfo = ProviderInfo {
    name: "plugin:nv-tensorrt-rtx",
    runtime_name: "NvTensorRTRTXExecutionProvider",
    plugin: Some(Plugin::Package("onnxruntime-ep-nv-tensorrt-rtx-cu13")),
    needs: "an NVIDIA RTX GPU and driver, and CUDA 13",
    ..plugin::INFO
};
