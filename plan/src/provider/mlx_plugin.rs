//! Apple's processors by the plug-in of MLX; not tried on a Mac.

use super::{Plugin, ProviderInfo, plugin};

pub(super) const INFO: ProviderInfo = ProviderInfo {
    name: "plugin:mlx",
    runtime_name: "MLXExecutionProvider",
    plugin: Some(Plugin::Package("onnxruntime-ep-mlx")),
    needs: "a Mac with Apple's own processor",
    ..plugin::INFO
};
