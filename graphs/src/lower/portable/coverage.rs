//! Whether a provider has kernels for the operators of a model, by its lists.

use crate::ir::DType;
use crate::onnx::usage::OperatorUse;
use mpnet_plan::{KernelId, OWN_DOMAIN, Precision, Provider};

/// The letter of an element type in the lists of [`mpnet_plan::Coverage`].
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

/// Whether `provider` is known to run `used` itself, by a kernel of ONNX Runtime or of this project.
pub fn covers(provider: Provider, used: &OperatorUse) -> bool {
    if used.domain == OWN_DOMAIN {
        return covers_own(provider, used);
    }
    let Some(coverage) = &provider.info().coverage else {
        return false;
    };
    let list = match used.domain.as_str() {
        "" => coverage.standard,
        _ => coverage.contrib,
    };
    let op_type = used.op_type.as_str();
    let takes = |types: &str, dtype| types.contains(letter(dtype));
    let adds = used.adds && coverage.scatters_without_adding.contains(&op_type);
    let sizes = used.open_sizes && coverage.constant_sizes;
    !adds
        && !sizes
        && list.iter().any(|(op, types)| {
            *op == op_type
                && takes(types, used.dtype)
                && (op_type != "Cast" || takes(types, used.result))
        })
}

/// Whether the runtime registers a kernel of ours for `used`.
fn covers_own(provider: Provider, used: &OperatorUse) -> bool {
    let element = match used.dtype {
        DType::F32 => Precision::F32,
        DType::BF16 => Precision::BF16,
        DType::F16 => Precision::F16,
        DType::I64 | DType::U32 | DType::U8 | DType::Bool => return false,
    };
    used.op_type
        .parse::<KernelId>()
        .is_ok_and(|kernel| provider.registrations().contains(&(kernel, element)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(op_type: &str, dtype: DType) -> OperatorUse {
        OperatorUse {
            domain: OWN_DOMAIN.to_owned(),
            op_type: op_type.to_owned(),
            dtype,
            result: dtype,
            open_sizes: false,
            adds: false,
            outputs: 1,
        }
    }

    #[test]
    fn an_operator_of_ours_is_covered_only_where_the_runtime_has_a_kernel_of_it() {
        let attention = |dtype| own("TwoStreamAttention", dtype);
        assert!(covers(Provider::Cpu, &attention(DType::F32)));
        assert!(!covers(Provider::Cpu, &attention(DType::BF16)));
        assert!(covers(Provider::Cuda, &attention(DType::BF16)));
        assert!(!covers(Provider::Rocm, &attention(DType::F32)));
        assert!(!covers(Provider::Cpu, &own("ResidualNorm", DType::F32)));
        assert!(!covers(Provider::Cuda, &own("Unheard", DType::F32)));
        // The optimizer is f32 whatever the step is.
        assert!(covers(Provider::Cpu, &own("AdamWUpdate", DType::F32)));
        assert!(!covers(Provider::Cuda, &own("AdamWUpdate", DType::F16)));
    }
}
