//! Two-stream attention in one operator: scores, relative bias, visibility, padding, softmax,
//! dropout and the weighted sum of values, without a tensor of scores.
//!
//! Every row sees one key in each of L slots, side A (a token that is not predicted, or a masked
//! copy) or side B (a predicted token), and the rows that see side A alone, most of them, are
//! grouped: tiles that nobody sees are never touched. Dropout drops what the device's hash drops,
//! so that the operator and its form in ordinary operators drop the same weights. The bias enters
//! by distance, `[H, 2M − 1]`; its gradient is gathered on chip in integers, whose order of
//! addition changes nothing, so that a run gives the same bits twice.

use super::dropping::Dropping;
use super::operator::{Arithmetic, Emitted, Kernel, Operator, Vjp, places};
use crate::ir::{Array, Bindings, Cost, DType, Dim, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use mpnet_plan::KernelId;

/// Attention of `query` `[R, B, D]` over `key` and `value` `[S, B, D]`; D is divided among the heads.
///
/// Further inputs are `positions` i64 `[B, Q]` of all rows, keys first; `keep` bool `[B, S]`, false
/// for keys that are padding; and `bias` f32 `[H, 2M − 1]` by `pos[key] − pos[query] + M − 1`, for
/// positions below M. The rows of `query` are all Q, or those behind the S keys. Of the keys, the
/// last Q − S are masked copies of the tokens before them; who sees whom is the rule of two-stream
/// attention (`model/streams.rs`); with Q = S every row sees every key.
///
/// What drops weights is a mask u8 `[B, H, R, S]` or factors u32 `[B, H, 1, 1]`, `[R, 1]` and `[S]`.
///
/// Gives the context `[R, B, D]` and the logarithm of every row's sum of exponentials, f32
/// `[B, H, R]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwoStreamAttention {
    /// Factor of the products of queries and keys.
    pub scale: f32,
    /// Probability of a weight being dropped.
    pub ratio: f32,
    pub dropping: Dropping,
}

places! {
    /// The inputs of [`TwoStreamAttention`].
    Inputs: QUERY, KEY, VALUE, POSITIONS, KEEP, BIAS, DROPOUT
}

places! {
    /// The inputs of [`TwoStreamAttentionGrad`]: the gradient and what the operator gave, then its inputs.
    GradInputs: GRADIENT, CONTEXT, SUMS, QUERY, KEY, VALUE, POSITIONS, KEEP, BIAS, DROPOUT
}

impl TwoStreamAttention {
    pub(super) fn shown(&self) -> String {
        let dropping = match self.dropping {
            Dropping::Nothing => String::new(),
            Dropping::Mask => format!(" dropout={} by mask", self.ratio),
            Dropping::Factors => format!(" dropout={} by factors", self.ratio),
        };
        format!(" scale={}{dropping}", self.scale)
    }

    /// Checks the inputs, and gives the type of the log-sum-exp.
    pub(super) fn check(&self, inputs: &[&Type]) -> Result<Type, String> {
        let [query, key, value, positions, keep, bias, dropped @ ..] = inputs else {
            return Err(format!("takes {} inputs", self.inputs()));
        };
        if inputs.len() != self.inputs() {
            return Err(format!("takes {} inputs", self.inputs()));
        }
        let ([r, b, d], [s, kb, kd]) = (&query.shape[..], &key.shape[..]) else {
            return Err("queries and keys must be [rows, batch, width]".to_owned());
        };
        if key != value || !query.dtype.is_float() || query.dtype != key.dtype {
            return Err("queries, keys and values must be floats of one kind".to_owned());
        }
        let ([h, distances], [pb, q]) = (&bias.shape[..], &positions.shape[..]) else {
            return Err("the bias must be [heads, distances], positions [batch, rows]".to_owned());
        };
        let whole = match (d.as_const(), h.as_const(), distances.as_const()) {
            (Some(d), Some(h), Some(n)) => h > 0 && d % h == 0 && n % 2 == 1,
            _ => false,
        };
        if !whole || bias.dtype != DType::F32 {
            return Err("the bias' heads must divide the width".to_owned());
        }
        if b != kb || d != kd || b != pb || positions.dtype != DType::I64 {
            return Err("batches and widths must be the same".to_owned());
        }
        if **keep != Type::new(DType::Bool, [b.clone(), s.clone()]) {
            return Err("the mask of keys must be bool [batch, keys]".to_owned());
        }
        if r != q && r.clone() + s.clone() != *q {
            return Err(
                "the rows must be all that have positions, or those behind the keys".into(),
            );
        }
        let one = || Dim::from(1);
        let wanted = match self.dropping {
            Dropping::Nothing => vec![],
            Dropping::Mask => {
                let shape = [b.clone(), h.clone(), r.clone(), s.clone()];
                vec![Type::new(DType::U8, shape)]
            }
            Dropping::Factors => vec![
                Type::new(DType::U32, [b.clone(), h.clone(), one(), one()]),
                Type::new(DType::U32, [r.clone(), one()]),
                Type::new(DType::U32, [s.clone()]),
            ],
        };
        if dropped
            .iter()
            .zip(&wanted)
            .any(|(found, wanted)| *found != wanted)
        {
            return Err("dropout's inputs have the wrong shapes".to_owned());
        }
        Ok(Type::f32([b.clone(), h.clone(), r.clone()]))
    }

    /// The weights before dropout, what dropout multiplies them with, both `[B, H, R, S]`, and the
    /// log-sum-exp.
    pub(super) fn weights(&self, inputs: &[&Array]) -> (Array, Array, Array) {
        let [query, key, _, positions, keep, bias, dropped @ ..] = inputs else {
            unreachable!("the shape rule has seen the inputs")
        };
        let (rows, batch, keys) = (query.shape()[0], query.shape()[1], key.shape()[0]);
        let (heads, all) = (bias.shape()[0], positions.shape()[1]);
        let width = query.shape()[2] / heads;
        let predicted = all - keys;
        let (length, first) = (keys - predicted, all - rows);
        let middle = (bias.shape()[1] as f64 - 1.0) / 2.0;
        let shape = [batch, heads, rows, keys];
        let mut weights = Array::zeros(&shape[..]);
        let mut factors = Array::ones(&shape[..]);
        let mut sums = Array::zeros(&shape[..3]);
        let limit = (f64::from(self.ratio) * 2f64.powi(32)).round();
        for b in 0..batch {
            for h in 0..heads {
                for r in 0..rows {
                    let score = |k: usize| {
                        if keep[[b, k]] == 0.0 || !sees(first + r, k, length, predicted) {
                            return f64::NEG_INFINITY;
                        }
                        let product: f64 = (h * width..(h + 1) * width)
                            .map(|d| query[[r, b, d]] * key[[k, b, d]])
                            .sum();
                        let distance = positions[[b, k]] - positions[[b, first + r]] + middle;
                        product * f64::from(self.scale) + bias[[h, distance as usize]]
                    };
                    let scores: Vec<f64> = (0..keys).map(score).collect();
                    let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = scores.iter().map(|s| (s - peak).exp()).sum();
                    sums[[b, h, r]] = peak + sum.ln();
                    for k in 0..keys {
                        weights[[b, h, r, k]] = (scores[k] - peak).exp() / sum;
                        let kept = match (self.dropping, dropped) {
                            (Dropping::Mask, [mask]) => mask[[b, h, r, k]] != 0.0,
                            (Dropping::Factors, [of_heads, of_rows, of_keys]) => {
                                let hash = (of_heads[[b, h, 0, 0]] as u32)
                                    .wrapping_mul(of_rows[[r, 0]] as u32)
                                    .wrapping_mul(of_keys[[k]] as u32);
                                f64::from(hash) >= limit
                            }
                            _ => continue,
                        };
                        let scale = 1.0 / (1.0 - f64::from(self.ratio));
                        factors[[b, h, r, k]] = if kept { scale } else { 0.0 };
                    }
                }
            }
        }
        (weights, factors, sums)
    }

    pub(super) fn emit_as(
        &self,
        kernel: KernelId,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let first = inputs.len() - self.inputs();
        let width = emitter.shape(&inputs[first])?[2].as_const();
        let bias = &inputs[first + Inputs::BIAS];
        let attributes = self.emitted(emitter, width, bias)?;
        emitter.own(kernel, &inputs[0], inputs, outputs, attributes);
        Ok(())
    }

    /// [`Self::emit_as`] where queries, keys and values are one input.
    pub(super) fn emit_packed(
        &self,
        kernel: KernelId,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let first = inputs.len() - (self.inputs() - 2);
        let width = emitter.shape(&inputs[first])?[2].as_const();
        let bias = &inputs[first + Inputs::BIAS - 2];
        let attributes = self.emitted(emitter, width.map(|w| w / 3), bias)?;
        emitter.own(kernel, &inputs[0], inputs, outputs, attributes);
        Ok(())
    }

    /// The node's attributes for queries of that `width` and this `bias`.
    fn emitted(
        &self,
        emitter: &Emitter,
        width: Option<usize>,
        bias: &str,
    ) -> Result<[(&'static str, Attribute); 3], String> {
        let (Some(width), Some(heads)) = (width, emitter.shape(bias)?[0].as_const()) else {
            return Err("its heads have no fixed width".to_owned());
        };
        let ratio = match self.dropping {
            Dropping::Nothing => 0.0,
            Dropping::Mask | Dropping::Factors => self.ratio,
        };
        Ok([
            ("width", Attribute::Int((width / heads) as i64)),
            ("scale", Attribute::Float(self.scale)),
            ("ratio", Attribute::Float(ratio)),
        ])
    }

    /// How many inputs it takes.
    fn inputs(&self) -> usize {
        Inputs::DROPOUT
            + match self.dropping {
                Dropping::Nothing => 0,
                Dropping::Mask => 1,
                Dropping::Factors => 3,
            }
    }
}

/// Whether `row` sees `key`, both counted through tokens, masked copies and queries.
fn sees(row: usize, key: usize, length: usize, predicted: usize) -> bool {
    let left = length - predicted;
    let limit = match row {
        r if r < left => 0,
        r if r < length => r - left + 1,
        r if r < length + predicted => 0,
        r => r - length - predicted,
    };
    match key {
        k if k < left => true,
        k if k < length => k - left < limit,
        k => k - length >= limit,
    }
}

impl Operator for TwoStreamAttention {
    fn name(&self) -> &'static str {
        "TwoStreamAttention"
    }

    fn attributes(&self) -> String {
        self.shown()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let sums = self.check(inputs)?;
        Ok(vec![inputs[0].clone(), sums])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let mut inputs = vec![at.grad()?, at.output(0), at.output(1)];
        inputs.extend(&at.node.inputs);
        let op = TwoStreamAttentionGrad { forward: *self };
        let grads = graph.apply(op, &inputs)?;
        let [query, key, value, bias] = grads[..] else {
            return Err(GraphError::Derivative {
                op: self.name(),
                reason: "it has four derivatives".to_owned(),
            });
        };
        let mut all = vec![Some(query), Some(key), Some(value), None, None, Some(bias)];
        all.resize(at.node.inputs.len(), None);
        Ok(all)
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::TwoStreamAttention)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::PerInput {
            full: vec![Inputs::BIAS],
            gives_stream: false,
        }
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Scores and context.
        node.flops(2 * 2 * node.output(0) * node.dim(Inputs::KEY, 0))
    }

    fn dropping(&mut self) -> Option<(&mut Dropping, usize)> {
        Some((&mut self.dropping, Inputs::DROPOUT))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let (weights, factors, sums) = self.weights(inputs);
        let [query, value, bias] =
            [Inputs::QUERY, Inputs::VALUE, Inputs::BIAS].map(|place| inputs[place]);
        let width = query.shape()[2] / bias.shape()[0];
        let mut context = Array::zeros(query.raw_dim());
        for ((b, h, r, k), weight) in four(&weights * &factors)?.indexed_iter() {
            for d in h * width..(h + 1) * width {
                context[[r, b, d]] += weight * value[[k, b, d]];
            }
        }
        Ok(vec![context, sums])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        self.emit_as(KernelId::TwoStreamAttention, emitter, inputs, outputs)
    }
}

/// An array of four dimensions.
pub(super) fn four(array: Array) -> Result<ndarray::Array4<f64>, String> {
    array.into_dimensionality().map_err(|e| e.to_string())
}

/// Derivative of [`TwoStreamAttention`] with respect to queries, keys, values and bias.
///
/// Inputs are the context's gradient, the context and the log-sum-exp, then those of the operator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwoStreamAttentionGrad {
    pub forward: TwoStreamAttention,
}

impl Operator for TwoStreamAttentionGrad {
    fn name(&self) -> &'static str {
        "TwoStreamAttentionGrad"
    }

    fn attributes(&self) -> String {
        self.forward.shown()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [gradient, context, sums, forward @ ..] = inputs else {
            return Err("takes a gradient, what the operator gave and its inputs".to_owned());
        };
        let expected = self.forward.check(forward)?;
        if *gradient != forward[0] || *context != forward[0] || **sums != expected {
            return Err("gradient, context or log-sum-exp do not fit".to_owned());
        }
        let given = [Inputs::QUERY, Inputs::KEY, Inputs::VALUE, Inputs::BIAS];
        let [query, key, value, bias] = given.map(|i| forward[i].clone());
        Ok(vec![query, key, value, Type::new(DType::F32, bias.shape)])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::TwoStreamAttentionGrad)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::PerInput {
            full: vec![GradInputs::SUMS, GradInputs::BIAS],
            gives_stream: false,
        }
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Five products, the scores once more among them.
        node.flops(2 * 5 * node.output(0) * node.dim(GradInputs::KEY, 0))
    }

    fn dropping(&mut self) -> Option<(&mut Dropping, usize)> {
        Some((&mut self.forward.dropping, GradInputs::DROPOUT))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let gradient = inputs[GradInputs::GRADIENT];
        let forward = &inputs[GradInputs::QUERY..];
        let (weights, factors, _) = self.forward.weights(forward);
        let (weights, factors) = (four(weights)?, four(factors)?);
        let (query, key, value, positions, bias) = (
            forward[Inputs::QUERY],
            forward[Inputs::KEY],
            forward[Inputs::VALUE],
            forward[Inputs::POSITIONS],
            forward[Inputs::BIAS],
        );
        let width = query.shape()[2] / bias.shape()[0];
        let first = positions.shape()[1] - query.shape()[0];
        let middle = (bias.shape()[1] - 1) / 2;
        let scale = f64::from(self.forward.scale);

        let mut d_weights = weights.clone();
        let mut d_value = Array::zeros(value.raw_dim());
        for ((b, h, r, k), factor) in factors.indexed_iter() {
            let heads = h * width..(h + 1) * width;
            let sum: f64 = heads
                .clone()
                .map(|d| gradient[[r, b, d]] * value[[k, b, d]])
                .sum();
            d_weights[[b, h, r, k]] = sum * factor;
            for d in heads {
                d_value[[k, b, d]] += weights[[b, h, r, k]] * factor * gradient[[r, b, d]];
            }
        }
        let delta = (&d_weights * &weights).sum_axis(ndarray::Axis(3)); // [B, H, R]
        let mut d_query = Array::zeros(query.raw_dim());
        let mut d_key = Array::zeros(key.raw_dim());
        let mut d_bias = Array::zeros(bias.raw_dim());
        for ((b, h, r, k), weight) in weights.indexed_iter() {
            let d_score = weight * (d_weights[[b, h, r, k]] - delta[[b, h, r]]);
            let distance = positions[[b, k]] - positions[[b, first + r]] + middle as f64;
            d_bias[[h, distance as usize]] += d_score;
            for d in h * width..(h + 1) * width {
                d_query[[r, b, d]] += d_score * scale * key[[k, b, d]];
                d_key[[k, b, d]] += d_score * scale * query[[r, b, d]];
            }
        }
        Ok(vec![d_query, d_key, d_value, d_bias])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let kernel = KernelId::TwoStreamAttentionGrad;
        self.forward.emit_as(kernel, emitter, inputs, outputs)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::Dim;
    use crate::ops::testing::*;

    /// Queries, keys and values of two heads of width 2, positions below 6, for all rows or the last.
    pub(in crate::ops) fn inputs(example: Example, rows: Dim) -> Example {
        let keys = Dim::from(L) + Dim::from(P);
        let all = keys.clone() + Dim::from(P);
        let four = Dim::from(4);
        example
            .floats([rows, B.into(), four.clone()])
            .floats([keys.clone(), B.into(), four.clone()])
            .floats([keys.clone(), B.into(), four])
            .indices([B.into(), all], 6)
            // Five tokens and three copies: nobody sees the second one of the second row.
            .given(
                bool([Dim::from(B), keys]),
                &[
                    1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0,
                ],
            )
            .floats([2, 11])
    }

    pub(in crate::ops) fn dropped(op: TwoStreamAttention, rows: Dim, example: Example) -> Example {
        let keys = Dim::from(L) + Dim::from(P);
        let example = inputs(example, rows.clone());
        match op.dropping {
            Dropping::Nothing => example,
            Dropping::Mask => example.bytes([B.into(), Dim::from(2), rows, keys]),
            Dropping::Factors => example
                .given(
                    Type::new(DType::U32, [B.into(), 2.into(), 1.into(), 1.into()]),
                    &[3_405_691_583.0, 2_654_435_769.0, 1_013_904_223.0, 40_503.0],
                )
                .factors([rows, 1.into()])
                .factors([keys]),
        }
    }

    pub(in crate::ops) const OPS: [TwoStreamAttention; 3] = [
        op(Dropping::Nothing),
        op(Dropping::Mask),
        op(Dropping::Factors),
    ];

    const fn op(dropping: Dropping) -> TwoStreamAttention {
        TwoStreamAttention {
            scale: 0.7,
            ratio: 0.25,
            dropping,
        }
    }

    pub(in crate::ops) fn all_rows() -> Dim {
        Dim::from(L) + Dim::from(P) + Dim::from(P)
    }

    pub fn two_stream_attention() -> Spec {
        let mut spec = Spec::default();
        for op in OPS {
            for rows in [all_rows(), P.into()] {
                spec = spec.example(dropped(op, rows, Example::of(op)).differentiable());
            }
        }
        let plain = OPS[0];
        let reject = |spec: Spec, change: fn(&mut [Type; 6]), reason| {
            let mut types = [
                f32([4, 2, 6]),
                f32([3, 2, 6]),
                f32([3, 2, 6]),
                i64([2, 4]),
                bool([2, 3]),
                f32([2, 5]),
            ];
            types[0] = f32([4, 2, 6]);
            change(&mut types);
            spec.rejects(plain, types, reason)
        };
        spec = reject(spec, |t| t[2] = f32([2, 2, 6]), "floats of one kind");
        spec = reject(spec, |t| t[0] = f32([4, 6]), "[rows, batch, width]");
        spec = reject(spec, |t| t[5] = f32([4, 5]), "divide the width");
        spec = reject(spec, |t| t[3] = i64([3, 4]), "must be the same");
        spec = reject(spec, |t| t[4] = bool([2, 4]), "bool [batch, keys]");
        spec = reject(spec, |t| t[3] = i64([2, 5]), "behind the keys");
        let mask = OPS[1];
        spec.rejects(
            mask,
            [
                f32([4, 2, 6]),
                f32([3, 2, 6]),
                f32([3, 2, 6]),
                i64([2, 4]),
                bool([2, 3]),
                f32([2, 5]),
                u8([2, 2, 4, 4]),
            ],
            "dropout's inputs",
        )
    }

    #[test]
    fn one_query_of_one_head_by_hand() {
        // A token, its copy and the query: the query sees the copy alone, the token itself alone.
        let op = OPS[0];
        let example = Example::of(op)
            .given(f32([3, 1, 1]), &[1.0, 2.0, 3.0])
            .given(f32([2, 1, 1]), &[10.0, 20.0])
            .given(f32([2, 1, 1]), &[5.0, 7.0])
            .given(i64([1, 3]), &[1.0, 1.0, 1.0])
            .given(bool([1, 2]), &[1.0, 1.0])
            .given(f32([1, 3]), &[0.0, 0.5, 0.0]);
        let found = example.evaluate();
        assert_close(
            &found[0],
            &array(&[3, 1, 1], &[5.0, 7.0, 7.0]),
            1e-12,
            "context",
        );
        let scale = f64::from(op.scale);
        let sums = [10.0 * scale + 0.5, 40.0 * scale + 0.5, 60.0 * scale + 0.5];
        assert_close(&found[1], &array(&[1, 1, 3], &sums), 1e-12, "log-sum-exp");
    }

    pub fn two_stream_attention_grad() -> Spec {
        let mut spec = Spec::default();
        for op in OPS {
            for rows in [all_rows(), P.into()] {
                let four = Dim::from(4);
                let example = Example::of(TwoStreamAttentionGrad { forward: op })
                    .floats([rows.clone(), B.into(), four.clone()])
                    .floats([rows.clone(), B.into(), four])
                    .floats([B.into(), Dim::from(2), rows.clone()]);
                spec = spec.example(dropped(op, rows, example).derivative_refused());
            }
        }
        let types = [
            f32([4, 2, 6]),
            f32([4, 2, 6]),
            f32([2, 2, 3]),
            f32([4, 2, 6]),
            f32([3, 2, 6]),
            f32([3, 2, 6]),
            i64([2, 4]),
            bool([2, 3]),
            f32([2, 5]),
        ];
        spec.rejects(
            TwoStreamAttentionGrad { forward: OPS[0] },
            types,
            "log-sum-exp do not fit",
        )
    }
}
