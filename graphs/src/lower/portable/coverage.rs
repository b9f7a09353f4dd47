//! Which kernels each provider has for what the graphs use, as ONNX Runtime documents it.

use super::target::Target;
use crate::ir::DType;
use crate::onnx::emitter::OWN_DOMAIN;
use crate::onnx::usage::OperatorUse;

/// Where a provider's list of kernels comes from.
pub fn source(target: Target) -> &'static str {
    match target {
        Target::Cpu | Target::Cuda | Target::DirectMl => {
            "docs/OperatorKernels.md of ONNX Runtime (at 001d12d, 2026)"
        }
        Target::Rocm => "CUDA's kernels, which ROCm's provider is translated from",
        Target::MigraphX | Target::OpenVino | Target::WebGpu => {
            "no list of types is published: what the provider lacks is found when a model is loaded"
        }
    }
}

/// Element types by letter: f32, h = f16, b = bf16, l = i64, u = u32, c = u8, o = bool.
fn letter(dtype: DType) -> char {
    match dtype {
        DType::F32 => 'f',
        DType::F16 => 'h',
        DType::BF16 => 'b',
        DType::I64 => 'l',
        DType::U32 => 'u',
        DType::U8 => 'c',
        DType::Bool => 'o',
    }
}

/// Operator and the types that its kernel takes at opset 18; contrib operators are marked by `*`.
type Kernels = &'static [(&'static str, &'static str)];

const CUDA: Kernels = &[
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
    ("Sub", "fhbluc"),
    ("Tanh", "fhb"),
    ("Transpose", "fhblouc"),
    ("Unsqueeze", "fhblouc"),
    ("Where", "fhblc"),
];

const DIRECTML: Kernels = &[
    ("Add", "fhluc"),
    ("And", "o"),
    ("ArgMax", "fhluc"),
    ("Cast", "fhlouc"),
    ("Concat", "fhlouc"),
    ("DequantizeLinear", "c"),
    ("Div", "fhluc"),
    ("Equal", "fhluc"),
    ("Erf", "fh"),
    ("Exp", "fh"),
    ("Expand", "fhlouc"),
    ("*FastGelu", "fh"),
    ("*FusedMatMul", "fh"),
    ("Gather", "fhlouc"),
    ("GatherElements", "fhlouc"),
    ("*Gelu", "fh"),
    ("Identity", "fhlouc"),
    ("LayerNormalization", "fh"),
    ("Less", "fhluc"),
    ("LogSoftmax", "fh"),
    ("MatMul", "fh"),
    ("Mul", "fhluc"),
    ("Neg", "fhl"),
    ("Pad", "fhlouc"),
    ("Range", "fl"),
    ("ReduceSum", "fhlu"),
    ("ReduceSumSquare", "fhlu"),
    ("Relu", "fh"),
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

/// Whether `target` has a kernel for `used`; `None` where no list tells.
pub fn covers(target: Target, used: &OperatorUse) -> Option<bool> {
    // The runtime registers them; where it has none, the graph has none.
    if used.domain == OWN_DOMAIN {
        return Some(true);
    }
    let kernels = match target {
        Target::Cuda | Target::Rocm => CUDA,
        Target::DirectMl => DIRECTML,
        Target::Cpu | Target::MigraphX | Target::OpenVino | Target::WebGpu => return None,
    };
    // DirectML scatters, but its kernels do not add.
    if target == Target::DirectMl && used.adds {
        return Some(false);
    }
    let name = match used.domain.is_empty() {
        true => used.op_type.clone(),
        false => format!("*{}", used.op_type),
    };
    let types = kernels.iter().find(|(op, _)| *op == name);
    Some(types.is_some_and(|(_, types)| types.contains(letter(used.dtype))))
}
