//! CUDA's kernels, which ROCm's provider is translated from.

use super::Kernels;

pub const SOURCE: &str = "docs/OperatorKernels.md of ONNX Runtime (at 001d12d, 2026)";

pub const KERNELS: Kernels = &[
    ("Add", "fhbluc"),
    ("And", "o"),
    ("ArgMax", "fh"),
    ("Cast", "fhblouc"),
    ("Concat", "fhblouc"),
    ("DequantizeLinear", "c"),
    ("Div", "fhbluc"),
    ("Equal", "fhluo"),
    ("Erf", "fhb"),
    ("Exp", "fhb"),
    ("Expand", "fhblouc"),
    ("*FastGelu", "fhb"),
    ("*FusedMatMul", "fhb"),
    ("Gather", "fhblouc"),
    ("GatherElements", "fhblouc"),
    ("*Gelu", "fhb"),
    ("Identity", "fhblouc"),
    ("LayerNormalization", "fhb"),
    ("Less", "fhlu"),
    ("LogSoftmax", "fh"),
    ("MatMul", "fhb"),
    ("Mul", "fhbluc"),
    ("Neg", "fhbl"),
    ("Pad", "fho"),
    ("Range", "fl"),
    ("ReduceSum", "fhbl"),
    ("ReduceSumSquare", "fh"),
    ("Relu", "fhb"),
    ("Reshape", "fhblouc"),
    ("ScatterElements", "fhblouc"),
    ("ScatterND", "fhblouc"),
    ("Sigmoid", "fhb"),
    ("Slice", "fhblouc"),
    ("Softmax", "fhb"),
    ("Split", "fhblouc"),
    ("Sqrt", "fhb"),
    ("Squeeze", "fhblouc"),
    ("Sub", "fhbluc"),
    ("Tanh", "fhb"),
    ("Transpose", "fhblouc"),
    ("Unsqueeze", "fhblouc"),
    ("Where", "fhblc"),
];

pub const ROCM_SOURCE: &str = "CUDA's kernels, which ROCm's provider is translated from";
