//! Which kernels each provider has for what the graphs use: one list a provider.

mod cpu;
mod cuda;
mod directml;
mod migraphx;
mod openvino;
mod webgpu;

use super::target::Target;
use crate::ir::DType;
use crate::onnx::emitter::OWN_DOMAIN;
use crate::onnx::usage::OperatorUse;

/// Where a provider's list of kernels comes from.
pub fn source(target: Target) -> &'static str {
    match target {
        Target::Cpu => cpu::SOURCE,
        Target::Cuda => cuda::SOURCE,
        Target::Rocm => cuda::ROCM_SOURCE,
        Target::MigraphX => migraphx::SOURCE,
        Target::DirectMl => directml::SOURCE,
        Target::OpenVino => openvino::SOURCE,
        Target::WebGpu => webgpu::SOURCE,
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

/// Whether `target` runs `used` itself.
pub fn covers(target: Target, used: &OperatorUse) -> bool {
    // The runtime registers them; where it has none, the graph has none.
    if used.domain == OWN_DOMAIN {
        return true;
    }
    let kernels = match target {
        Target::Cpu => cpu::KERNELS,
        Target::Cuda | Target::Rocm => cuda::KERNELS,
        Target::MigraphX => migraphx::KERNELS,
        Target::DirectMl => directml::KERNELS,
        Target::OpenVino => openvino::KERNELS,
        Target::WebGpu => webgpu::KERNELS,
    };
    let refused = match target {
        // It scatters, but its kernels do not add.
        Target::DirectMl => used.adds,
        Target::OpenVino => used.adds && used.op_type == "ScatterND",
        Target::MigraphX => used.open_sizes,
        Target::Cpu | Target::Cuda | Target::Rocm | Target::WebGpu => false,
    };
    let name = match used.domain.is_empty() {
        true => used.op_type.clone(),
        false => format!("*{}", used.op_type),
    };
    let takes = |types: &str, dtype| types.contains(letter(dtype));
    !refused
        && kernels.iter().any(|(op, types)| {
            *op == name && takes(types, used.dtype) && (name != "Cast" || takes(types, used.result))
        })
}
