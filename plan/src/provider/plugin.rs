//! A plug-in of which only its path is known: nothing is taken for granted that the ONNX standard does not promise.

use super::{Bf16Form, Plugin, ProviderInfo};
use crate::Precision;

pub(super) const INFO: ProviderInfo = ProviderInfo {
    name: "plugin",
    // The first of a plug-in's providers is taken.
    runtime_name: "",
    package: "onnxruntime",
    plugin: Some(Plugin::Path),
    training_package: None,
    needs: "what its vendor says",
    precision: Precision::F32,
    bf16: Bf16Form::Tensors,
    // What a session reads and writes is copied to the device and back.
    memory: None,
    updates_in_place: false,
    addresses: true,
    takes_optimized_graphs: false,
    contrib: &[],
    layer_norm_statistics: false,
    scatter_adds: false,
    scatter_nd_adds: false,
    dropout_on_device: false,
    kernels: &[],
    coverage: None,
};
