//! Derivative of two-stream attention whose queries, keys and values are one product.

use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use super::packed_attention::{PackedAttention, pack};
use super::two_stream_attention_grad::TwoStreamAttentionGrad;
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Derivative of [`PackedAttention`] with respect to the product `[Q, B, 3·D]` and the bias; inputs as
/// those of [`TwoStreamAttentionGrad`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PackedAttentionGrad {
    pub forward: PackedAttention,
}

/// Inputs before those of the operator itself.
const OWN_INPUTS: usize = 3;

impl PackedAttentionGrad {
    fn inner(&self) -> TwoStreamAttentionGrad {
        TwoStreamAttentionGrad {
            forward: self.forward.inner,
        }
    }
}

impl Operator for PackedAttentionGrad {
    fn name(&self) -> &'static str {
        "PackedAttentionGrad"
    }

    fn attributes(&self) -> String {
        self.forward.inner.shown()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [gradient, context, sums, forward @ ..] = inputs else {
            return Err("takes a gradient, what the operator gave and its inputs".to_owned());
        };
        let unpacked = PackedAttention::unpacked(forward)?;
        let inner = [*gradient, *context, *sums].into_iter().chain(&unpacked);
        let outputs = self.inner().infer(&inner.collect::<Vec<_>>())?;
        Ok(vec![forward[0].clone(), outputs[3].clone()])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let (own, forward) = inputs.split_at(OWN_INPUTS);
        let parts = PackedAttention::split(forward);
        let inner = own.iter().copied().chain(&parts);
        let inner: Vec<&Array> = inner.chain(forward[1..].iter().copied()).collect();
        let grads = self.inner().evaluate(sizes, &inner)?;
        let mut packed = Array::zeros(forward[0].raw_dim());
        let width = forward[0].shape()[2] / 3;
        for (i, part) in grads[..3].iter().enumerate() {
            for (at, value) in part.indexed_iter() {
                packed[[at[0], at[1], i * width + at[2]]] = *value;
            }
        }
        Ok(vec![packed, grads[3].clone()])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let inner = self.forward.inner;
        inner.emit_packed(self.name(), emitter, inputs, outputs)
    }

    fn kernel(&self) -> Kernel {
        Kernel::Own
    }

    fn expand(
        &self,
        graph: &mut Graph,
        inputs: &[ValueId],
    ) -> Result<Option<Vec<ValueId>>, GraphError> {
        let (own, forward) = inputs.split_at(OWN_INPUTS);
        let forward = PackedAttention::take_apart(graph, forward)?;
        let grads = graph.apply(self.inner(), &[own, &forward].concat())?;
        Ok(Some(vec![pack(graph, &grads[..3])?, grads[3]]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::Dim;
    use crate::ops::packed_attention::tests::inputs;
    use crate::ops::testing::*;
    use crate::ops::two_stream_attention::tests::{OPS, all_rows};

    pub fn spec() -> Spec {
        let mut spec = Spec::default();
        for inner in OPS {
            let forward = PackedAttention { inner };
            let example = Example::of(PackedAttentionGrad { forward })
                .floats([all_rows(), B.into(), Dim::from(4)])
                .floats([all_rows(), B.into(), Dim::from(4)])
                .floats([B.into(), Dim::from(2), all_rows()]);
            spec = spec.example(inputs(forward, example).derivative_refused());
        }
        let plain = PackedAttentionGrad {
            forward: PackedAttention { inner: OPS[0] },
        };
        spec.rejects(
            plain,
            [
                f32([4, 2, 2]),
                f32([4, 2, 2]),
                f32([2, 2, 3]),
                f32([4, 2, 6]),
                i64([2, 4]),
                bool([2, 3]),
                f32([2, 5]),
            ],
            "log-sum-exp do not fit",
        )
    }
}
