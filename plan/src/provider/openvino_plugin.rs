//! Intel's processors by OpenVINO's plug-in. Its build 1.8.1 took every model of this project whole.

use super::{Plugin, ProviderInfo, openvino};

pub(super) const INFO: ProviderInfo = ProviderInfo {
    name: "plugin:openvino",
    package: "onnxruntime",
    plugin: Some(Plugin::Package("onnxruntime-ep-openvino")),
    needs: "an Intel processor",
    ..openvino::INFO
};
