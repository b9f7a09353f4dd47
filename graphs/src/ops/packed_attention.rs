//! Two-stream attention of all rows, whose queries, keys and values are one product.

use super::concat::Concat;
use super::dropping::Dropping;
use super::operator::{Arithmetic, Emitted, Expansion, Kernel, Operator, Vjp, places};
use super::slice::Slice;
use super::two_stream_attention::TwoStreamAttention;
use super::two_stream_attention::TwoStreamAttentionGrad;
use crate::ir::{Array, Bindings, Cost, Dim, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::Emitter;
use crate::ops::Graph;
use mpnet_plan::KernelId;
use ndarray::Axis;

/// [`TwoStreamAttention`] of all Q rows over the first S, queries, keys and values side by side in
/// `[Q, B, 3·D]`; the further inputs are the same. Keys and values of the rows behind S are not read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PackedAttention {
    pub inner: TwoStreamAttention,
}

places! {
    /// The inputs of [`PackedAttention`].
    Inputs: PACKED, POSITIONS, KEEP, BIAS, DROPOUT
}

places! {
    /// The inputs of [`PackedAttentionGrad`]: the gradient and what the operator gave, then its inputs.
    GradInputs: GRADIENT, CONTEXT, SUMS, PACKED, POSITIONS, KEEP, BIAS, DROPOUT
}

impl PackedAttention {
    /// The types of the inner operator's inputs.
    pub(super) fn unpacked(inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [packed, positions, keep, rest @ ..] = inputs else {
            return Err("takes queries, keys and values, positions and a mask of keys".to_owned());
        };
        let ([q, b, width], [_, s]) = (&packed.shape[..], &keep.shape[..]) else {
            return Err("takes floats [rows, batch, width] and a mask [batch, keys]".to_owned());
        };
        let third = match width.as_const() {
            Some(width) if width % 3 == 0 => Dim::from(width / 3),
            _ => return Err("the width must be thrice that of the queries".to_owned()),
        };
        let rows = |n: &Dim| Type::new(packed.dtype, [n.clone(), b.clone(), third.clone()]);
        let mut types = vec![rows(q), rows(s), rows(s)];
        types.extend([(*positions).clone(), (*keep).clone()]);
        types.extend(rest.iter().map(|t| (*t).clone()));
        match positions.shape.last() == Some(q) {
            true => Ok(types),
            false => Err("every row must have a position".to_owned()),
        }
    }

    /// Slices that take `[Q, B, 3·D]` apart.
    fn slices(inputs: &[&Type]) -> Result<[Vec<Slice>; 3], String> {
        let types = PackedAttention::unpacked(inputs)?;
        let (width, keys) = (types[0].shape[2].clone(), types[1].shape[0].clone());
        let part = |i: usize| {
            let mut slices = vec![];
            if i > 0 {
                slices.push(Slice {
                    axis: 0,
                    start: Dim::from(0),
                    end: keys.clone(),
                });
            }
            let start = (0..i).fold(Dim::from(0), |sum, _| sum + width.clone());
            let end = start.clone() + width.clone();
            slices.push(Slice {
                axis: 2,
                start,
                end,
            });
            slices
        };
        Ok([part(0), part(1), part(2)])
    }

    /// The inner operator's inputs, in a graph.
    pub(super) fn take_apart(
        graph: &mut Graph,
        inputs: &[ValueId],
    ) -> Result<Vec<ValueId>, GraphError> {
        let types: Vec<&Type> = inputs.iter().map(|v| graph.ty(*v)).collect();
        let slices = PackedAttention::slices(&types).map_err(|reason| GraphError::Emit {
            op: "PackedAttention",
            reason,
        })?;
        let mut parts = Vec::new();
        for slices in slices {
            let mut part = inputs[0];
            for slice in slices {
                part = graph.slice(part, slice.axis, slice.start, slice.end)?;
            }
            parts.push(part);
        }
        parts.extend(&inputs[1..]);
        Ok(parts)
    }

    /// The same of arrays.
    pub(super) fn split(inputs: &[&Array]) -> Vec<Array> {
        let (packed, keys) = (inputs[0], inputs[2].shape()[1]);
        let width = packed.shape()[2] / 3;
        (0..3)
            .map(|i| {
                let rows = if i == 0 { packed.shape()[0] } else { keys };
                let mut part = packed.clone();
                part.slice_axis_inplace(Axis(0), (0..rows).into());
                part.slice_axis_inplace(Axis(2), (i * width..(i + 1) * width).into());
                part
            })
            .collect()
    }
}

impl Operator for PackedAttention {
    fn name(&self) -> &'static str {
        "PackedAttention"
    }

    fn attributes(&self) -> String {
        self.inner.shown()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let types = PackedAttention::unpacked(inputs)?;
        self.inner.infer(&types.iter().collect::<Vec<_>>())
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let mut inputs = vec![at.grad()?, at.output(0), at.output(1)];
        inputs.extend(&at.node.inputs);
        let grads = graph.apply(PackedAttentionGrad { forward: *self }, &inputs)?;
        let mut all = vec![Some(grads[0]), None, None, Some(grads[1])];
        all.resize(at.node.inputs.len(), None);
        Ok(all)
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::PackedAttention)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::PerInput {
            full: vec![Inputs::BIAS],
            gives_stream: false,
        }
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Scores and context.
        node.flops(2 * 2 * node.output(0) * node.dim(Inputs::KEEP, 1))
    }

    fn dropping(&mut self) -> Option<(&mut Dropping, usize)> {
        Some((&mut self.inner.dropping, Inputs::DROPOUT))
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let parts = PackedAttention::split(inputs);
        let inner: Vec<&Array> = parts.iter().chain(inputs[1..].iter().copied()).collect();
        self.inner.evaluate(sizes, &inner)
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        self.inner
            .emit_packed(KernelId::PackedAttention, emitter, inputs, outputs)
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let inner = PackedAttention::take_apart(graph, inputs)?;
        Ok(Some(graph.apply(self.inner, &inner)?))
    }
}

/// Gradients of queries `[Q, B, D]`, keys and values `[S, B, D]` side by side, 0 behind the keys.
pub(super) fn pack(graph: &mut Graph, parts: &[ValueId]) -> Result<ValueId, GraphError> {
    let rows = graph.ty(parts[0]).shape[0].clone();
    let mut padded = Vec::new();
    for part in parts {
        let own = graph.ty(*part).shape[0].clone();
        let after = rows.clone() - own;
        padded.push(match after.is(0) {
            true => *part,
            false => graph.apply1(
                super::slice::Pad {
                    axis: 0,
                    before: Dim::from(0),
                    after,
                },
                &[*part],
            )?,
        });
    }
    graph.apply1(Concat { axis: 2 }, &padded)
}

/// Derivative of [`PackedAttention`] with respect to the product `[Q, B, 3·D]` and the bias; inputs as
/// those of [`TwoStreamAttentionGrad`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PackedAttentionGrad {
    pub forward: PackedAttention,
}

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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::PackedAttentionGrad)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::PerInput {
            full: vec![GradInputs::SUMS, GradInputs::BIAS],
            gives_stream: false,
        }
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Five products, the scores once more among them.
        node.flops(2 * 5 * node.input(GradInputs::GRADIENT) * node.dim(GradInputs::KEEP, 1))
    }

    fn dropping(&mut self) -> Option<(&mut Dropping, usize)> {
        Some((&mut self.forward.inner.dropping, GradInputs::DROPOUT))
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let (own, forward) = inputs.split_at(GradInputs::PACKED);
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

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let inner = self.forward.inner;
        let kernel = KernelId::PackedAttentionGrad;
        inner.emit_packed(kernel, emitter, inputs, outputs)
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let (own, forward) = inputs.split_at(GradInputs::PACKED);
        let forward = PackedAttention::take_apart(graph, forward)?;
        let grads = graph.apply(self.inner(), &[own, &forward].concat())?;
        Ok(Some(vec![pack(graph, &grads[..3])?, grads[3]]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::{DType, Dim};
    use crate::ops::dropping::Dropping;
    use crate::ops::testing::*;
    use crate::ops::two_stream_attention::tests::{OPS, all_rows};

    /// Two heads of width 2, positions below 6.
    pub(in crate::ops) fn inputs(op: PackedAttention, example: Example) -> Example {
        let keys = Dim::from(L) + Dim::from(P);
        let all = all_rows();
        let example = example
            .floats([all.clone(), B.into(), Dim::from(12)])
            .indices([B.into(), all.clone()], 6)
            .given(
                bool([Dim::from(B), keys.clone()]),
                &[
                    1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0,
                ],
            )
            .floats([2, 11]);
        match op.inner.dropping {
            Dropping::Nothing => example,
            Dropping::Mask => example.bytes([B.into(), Dim::from(2), all, keys]),
            Dropping::Factors => example
                .given(
                    Type::new(DType::U32, [B.into(), 2.into(), 1.into(), 1.into()]),
                    &[3_405_691_583.0, 2_654_435_769.0, 1_013_904_223.0, 40_503.0],
                )
                .factors([all, 1.into()])
                .factors([keys]),
        }
    }

    pub fn packed_attention() -> Spec {
        let mut spec = Spec::default();
        for inner in OPS {
            let op = PackedAttention { inner };
            spec = spec.example(inputs(op, Example::of(op)).differentiable());
        }
        let plain = PackedAttention { inner: OPS[0] };
        spec.rejects(
            plain,
            [f32([4, 2, 7]), i64([2, 4]), bool([2, 3]), f32([2, 5])],
            "thrice",
        )
        .rejects(
            plain,
            [f32([4, 2, 6]), i64([2, 5]), bool([2, 3]), f32([2, 5])],
            "every row",
        )
    }

    pub fn packed_attention_grad() -> Spec {
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
