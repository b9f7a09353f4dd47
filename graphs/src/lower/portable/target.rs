//! What each execution provider of ordinary builds has beside the ONNX standard.

use super::Precision;
use crate::model::Objective;
use crate::model::config::ModelConfig;
use crate::ops::{Kernel, Op};
use std::fmt;
use std::str::FromStr;

/// An execution provider as the compiler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    Cpu,
    Cuda,
    Rocm,
    MigraphX,
    DirectMl,
    OpenVino,
    WebGpu,
}

/// A row of the table.
struct Row {
    target: Target,
    name: &'static str,
    /// `com.microsoft` kernels for floats that its ordinary builds have.
    contrib: &'static [&'static str],
    /// Whether its LayerNormalization also gives mean and deviation, which the derivative reads.
    layer_norm_statistics: bool,
    /// Whether its scatters can add.
    scatter_adds: bool,
    /// Whether ScatterND is the way to add rows that may go to the same place. The CPU's loses some
    /// of them: its threads add without locks. CUDA's has one thread a row, ScatterElements one an
    /// element.
    scatter_nd_adds: bool,
    /// Whether dropout masks are computed there from a few counters, instead of being copied there.
    dropout_on_device: bool,
    /// Precisions in which the runtime brings a kernel of two-stream attention.
    attention: &'static [Precision],
    /// Whether the runtime brings kernels of what lies between matrix products and of the optimizer.
    own_kernels: bool,
    /// Whether its buffers have addresses that offsets can be added to. Where they are handles, a
    /// part of a buffer cannot be bound.
    addresses: bool,
}

/// The fused kernels that the graphs use, in ONNX Runtime's list of kernels for CPU, CUDA and
/// DirectML.
const ALL: &[&str] = &["FusedMatMul", "Gelu", "FastGelu"];

/// Every target, in the order of the enum.
const TABLE: &[Row] = &[
    Row {
        target: Target::Cpu,
        name: "cpu",
        contrib: ALL,
        layer_norm_statistics: true,
        scatter_adds: true,
        scatter_nd_adds: false,
        dropout_on_device: false,
        attention: &[Precision::F32],
        own_kernels: false,
        addresses: true,
    },
    Row {
        target: Target::Cuda,
        name: "cuda",
        contrib: ALL,
        layer_norm_statistics: true,
        scatter_adds: true,
        scatter_nd_adds: false,
        dropout_on_device: true,
        attention: &[Precision::F32, Precision::BF16, Precision::F16],
        own_kernels: true,
        addresses: true,
    },
    Row {
        target: Target::Rocm,
        name: "rocm",
        contrib: ALL,
        layer_norm_statistics: true,
        scatter_adds: true,
        scatter_nd_adds: false,
        dropout_on_device: true,
        attention: &[],
        own_kernels: false,
        addresses: true,
    },
    Row {
        target: Target::MigraphX,
        name: "migraphx",
        contrib: &[],
        layer_norm_statistics: false,
        scatter_adds: true,
        scatter_nd_adds: true,
        dropout_on_device: true,
        attention: &[],
        own_kernels: false,
        addresses: true,
    },
    Row {
        target: Target::DirectMl,
        name: "directml",
        contrib: ALL,
        layer_norm_statistics: false,
        scatter_adds: false,
        scatter_nd_adds: false,
        dropout_on_device: true,
        attention: &[],
        own_kernels: false,
        addresses: false,
    },
    Row {
        target: Target::OpenVino,
        name: "openvino",
        contrib: &[],
        layer_norm_statistics: false,
        scatter_adds: true,
        scatter_nd_adds: false,
        dropout_on_device: false,
        attention: &[],
        own_kernels: false,
        addresses: true,
    },
    Row {
        target: Target::WebGpu,
        name: "webgpu",
        contrib: &["Gelu", "FastGelu"],
        layer_norm_statistics: false,
        scatter_adds: false,
        scatter_nd_adds: false,
        dropout_on_device: true,
        attention: &[],
        own_kernels: false,
        addresses: false,
    },
];

impl Target {
    fn row(self) -> &'static Row {
        let index = match self {
            Target::Cpu => 0,
            Target::Cuda => 1,
            Target::Rocm => 2,
            Target::MigraphX => 3,
            Target::DirectMl => 4,
            Target::OpenVino => 5,
            Target::WebGpu => 6,
        };
        &TABLE[index]
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether dropout masks are computed there from a few counters.
    pub fn dropout_on_device(self) -> bool {
        self.row().dropout_on_device
    }

    /// Whether the runtime has further kernels of its own there, in every precision.
    pub fn has_own_kernels(self) -> bool {
        self.row().own_kernels
    }

    /// Whether `op` is one of them.
    pub fn brings(self, op: &Op) -> bool {
        self.has_own_kernels()
            && matches!(
                op,
                Op::AdamWUpdate(_)
                    | Op::BiasCrossEntropy(_)
                    | Op::BiasCrossEntropyGrad(_)
                    | Op::BiasGelu(_)
                    | Op::BiasGeluGrad(_)
                    | Op::FactorDropout(_)
                    | Op::GeluGrad(_)
                    | Op::LayerNormGrad(_)
                    | Op::NormalizedAgain(_)
                    | Op::PackedAttention(_)
                    | Op::PackedAttentionGrad(_)
                    | Op::ResidualNorm(_)
                    | Op::ResidualNormGrad(_)
            )
    }

    /// Whether the runtime has a kernel of the attention of a model: for two streams, whose content rows
    /// the last layer skips; on GPUs for heads of up to 128 columns, in whole 16 bytes or, for tensor cores,
    /// a multiple of 32, and as many positions as their shared memory holds.
    pub fn attends(self, config: &ModelConfig, precision: Precision) -> bool {
        let fits = match self {
            Target::Cuda => {
                let multiple = match precision {
                    Precision::F32 => 4,
                    Precision::BF16 | Precision::F16 => 32,
                };
                config.head_dim().is_multiple_of(multiple)
                    && config.head_dim() <= 128
                    && config.max_positions <= 2048
            }
            Target::Cpu => true,
            Target::Rocm
            | Target::MigraphX
            | Target::DirectMl
            | Target::OpenVino
            | Target::WebGpu => false,
        };
        let two_streams = match config.objective {
            Objective::Mpnet => true,
            Objective::MpnetMlm | Objective::Plm | Objective::Mlm => false,
        };
        fits && two_streams && self.row().attention.contains(&precision)
    }

    /// Whether offsets can be added to the addresses of its buffers.
    pub fn has_addresses(self) -> bool {
        self.row().addresses
    }

    /// Whether it runs `op` as it is emitted.
    pub fn has(self, op: &Op) -> bool {
        let operator = op.operator();
        match operator.kernel() {
            Kernel::Standard => self.has_standard(op),
            Kernel::Contrib => operator
                .contrib()
                .is_some_and(|kernel| self.row().contrib.contains(&kernel)),
            Kernel::Own => match op {
                Op::TwoStreamAttention(_) | Op::TwoStreamAttentionGrad(_) => {
                    !self.row().attention.is_empty()
                }
                Op::AdamWUpdate(_) => self == Target::Cpu,
                _ => false,
            },
            Kernel::Training => false,
        }
    }

    /// The exceptions among what every provider should have.
    fn has_standard(self, op: &Op) -> bool {
        let row = self.row();
        let scatters = matches!(op, Op::ScatterElements(_) | Op::CrossEntropyGrad(_));
        let by_rows = row.scatter_adds && row.scatter_nd_adds;
        (by_rows || !matches!(op, Op::ScatterAdd(_)))
            && (row.scatter_adds || !scatters)
            && (row.layer_norm_statistics || !matches!(op, Op::LayerNorm(_)))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no target's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no target '{0}'")]
pub struct UnknownTarget(pub String);

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(name: &str) -> Result<Target, UnknownTarget> {
        TABLE
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.target)
            .ok_or_else(|| UnknownTarget(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{TABLE, Target};
    use crate::ops::gelu::Gelu;
    use crate::ops::matmul::MatMul;
    use crate::ops::scatter_add::ScatterAdd;
    use crate::ops::softmax_grad::SoftmaxGrad;

    #[test]
    fn every_row_is_found_by_its_target_and_its_name() {
        for row in TABLE {
            assert_eq!(row.target.row().name, row.name);
            assert_eq!(row.name.parse(), Ok(row.target));
        }
        assert!("tpu".parse::<Target>().is_err());
    }

    #[test]
    fn training_kernels_are_nowhere_and_fused_ones_where_the_table_says() {
        let transposed = MatMul {
            trans_a: true,
            ..MatMul::default()
        };
        for row in TABLE {
            assert!(!row.target.has(&SoftmaxGrad.into()));
            assert!(row.target.has(&MatMul::default().into()));
        }
        assert!(Target::Cuda.has(&transposed.clone().into()));
        assert!(!Target::OpenVino.has(&transposed.into()));
        assert!(Target::WebGpu.has(&Gelu { approximate: true }.into()));
        assert!(Target::MigraphX.has(&ScatterAdd.into()));
        assert!(!Target::Cpu.has(&ScatterAdd.into()));
    }
}
