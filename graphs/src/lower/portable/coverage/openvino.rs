//! OpenVINO's operators on a processor, asked of the build 1.24.1 inside a larger model: some are taken only
//! there.

use super::Kernels;

pub const SOURCE: &str = "onnxruntime/core/providers/openvino/ov_versions/data_ops.cc of ONNX Runtime 1.24.1 (at b5963e82c8), on a processor";

pub const KERNELS: Kernels = &[
    ("Add", "fhluc"),
    ("And", "o"),
    ("ArgMax", "fhluc"),
    ("Cast", "fhlouc"),
    ("Concat", "fhlouc"),
    ("DequantizeLinear", "c"),
    ("Div", "fhluc"),
    ("Equal", "fhlouc"),
    ("Erf", "fh"),
    ("Exp", "fh"),
    ("Expand", "fhlouc"),
    ("*FusedMatMul", "fh"),
    ("Gather", "fhlouc"),
    ("GatherElements", "fhlouc"),
    ("*Gelu", "fh"),
    ("Identity", "fhlouc"),
    ("LayerNormalization", "fh"),
    ("Less", "fhluc"),
    ("LogSoftmax", "fh"),
    ("MatMul", "fhlu"),
    ("Mul", "fhluc"),
    ("Neg", "fhl"),
    ("Pad", "fhlouc"),
    ("Range", "fl"),
    ("ReduceSum", "fhlu"),
    ("ReduceSumSquare", "fhlu"),
    ("Relu", "fhl"),
    ("Reshape", "fhlouc"),
    ("ScatterElements", "fhlouc"),
    ("ScatterND", "fhlouc"),
    ("Sigmoid", "fh"),
    ("Slice", "fhlouc"),
    ("Softmax", "fh"),
    ("Split", "fhlouc"),
    ("Sqrt", "fh"),
    ("Sub", "fhluc"),
    ("Tanh", "fh"),
    ("Transpose", "fhlouc"),
    ("Unsqueeze", "fhlouc"),
    ("Where", "fhlouc"),
];
