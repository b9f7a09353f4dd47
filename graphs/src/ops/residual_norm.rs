//! What joins a branch to the residual stream in one operator: bias, dropout, residual, layer
//! normalization.
//!
//! The result comes in f32 for the stream and in 16 bits for products, so that no cast is left;
//! the derivative adds up the gradients of both, and keeps the sum in 16 bits.

use super::dropping::{Dropping, RowDropout};
use super::layer_norm::LayerNorm;
use super::layer_norm::LayerNormGrad;
use super::operator::{
    Arithmetic, Emitted, Expansion, Kernel, Operator, Vjp, exactly, operands, places,
};
use crate::ir::{Array, Bindings, Cost, DType, Dim, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use mpnet_plan::KernelId;
use ndarray::Axis;

/// Layer normalization of `residual + dropout(branch + bias)`, rows `[R, B, D]`, with its `scale` and
/// `shift`, all three vectors f32 `[D]`; the inputs of dropout come last.
///
/// Gives the normalized rows twice, like `residual` and, for matrix products, like `branch`; then, for
/// the derivative, the sum like `branch` and every row's mean and inverse deviation, f32 `[R, B, 1]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResidualNorm {
    pub epsilon: f32,
    pub dropout: RowDropout,
}

places! {
    /// The inputs of [`ResidualNorm`].
    Inputs: RESIDUAL, BRANCH, BIAS, SCALE, SHIFT, DROPOUT
}

places! {
    /// The inputs of [`ResidualNormGrad`] behind the gradients.
    GradInputs: SUM, SCALE, MEAN, INVERSE, DROPOUT
}

places! {
    /// The inputs of [`NormalizedAgain`].
    AgainInputs: SUM, MEAN, INVERSE, SCALE, SHIFT, AFTER
}

/// Checks that rows have three dimensions, and gives those of their vectors and statistics.
pub(super) fn parts(rows: &Type) -> Result<(Type, Type), String> {
    let [r, b, d] = &rows.shape[..] else {
        return Err("takes floats [rows, batch, width]".to_owned());
    };
    if !rows.dtype.is_float() {
        return Err("takes floats [rows, batch, width]".to_owned());
    }
    let statistics = Type::f32([r.clone(), b.clone(), Dim::from(1)]);
    Ok((Type::f32([d.clone()]), statistics))
}

impl Operator for ResidualNorm {
    fn name(&self) -> &'static str {
        "ResidualNorm"
    }

    fn attributes(&self) -> String {
        self.dropout.shown()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [residual, branch, bias, scale, shift, dropped @ ..] = inputs else {
            return Err("takes 5 inputs and those of dropout".to_owned());
        };
        let (vector, statistics) = parts(branch)?;
        if residual.shape != branch.shape || !residual.dtype.is_float() {
            return Err("the residual and its branch have different shapes".to_owned());
        }
        if [bias, scale, shift].iter().any(|v| ***v != vector) {
            return Err(format!("bias, scale and shift must be {vector}"));
        }
        self.dropout.check(branch, dropped)?;
        let (normal, low) = ((*residual).clone(), (*branch).clone());
        Ok(vec![
            normal,
            low.clone(),
            low,
            statistics.clone(),
            statistics,
        ])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let [normal, copy, rest @ ..] = at.grads else {
            return Err(derivative("it has five outputs"));
        };
        let gradients = match (normal, copy) {
            (Some(_), Some(_)) => Gradients::Both,
            (Some(_), None) => Gradients::Normal,
            (None, _) => Gradients::Copy,
        };
        if rest.iter().any(Option::is_some) {
            return Err(derivative("the loss depends on its sum or statistics"));
        }
        let op = ResidualNormGrad {
            gradients,
            dropout: self.dropout,
        };
        let mut inputs: Vec<ValueId> = [normal, copy].into_iter().flatten().copied().collect();
        inputs.extend([at.output(2), at.input(3), at.output(3), at.output(4)]);
        inputs.extend(&at.node.inputs[Inputs::DROPOUT..]);
        let grads = graph.apply(op, &inputs)?;
        let mut all: Vec<_> = grads.into_iter().map(Some).collect();
        all.resize(at.node.inputs.len(), None);
        Ok(all)
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::ResidualNorm)]
    }

    fn optional_outputs(&self) -> bool {
        true
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::PerInput {
            full: vec![Inputs::RESIDUAL, Inputs::BIAS, Inputs::SCALE, Inputs::SHIFT],
            gives_stream: true,
        }
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Bias, dropout (2), residual, then layer normalization.
        node.flops(11 * node.output(0))
    }

    fn dropping(&mut self) -> Option<(&mut Dropping, usize)> {
        Some((&mut self.dropout.dropping, Inputs::DROPOUT))
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let branch = inputs[Inputs::BRANCH] + inputs[Inputs::BIAS];
        let kept = self
            .dropout
            .multipliers(&branch, &inputs[Inputs::DROPOUT..]);
        let sum = inputs[Inputs::RESIDUAL] + branch * kept;
        let norm = LayerNorm {
            epsilon: self.epsilon,
        };
        let mut outputs =
            norm.evaluate(sizes, &[&sum, inputs[Inputs::SCALE], inputs[Inputs::SHIFT]])?;
        let copy = outputs[0].clone();
        outputs.splice(1..1, [copy, sum]);
        Ok(outputs)
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let attributes = [
            ("epsilon", Attribute::Float(self.epsilon)),
            ("ratio", Attribute::Float(self.dropout.effective_ratio())),
        ];
        let kernel = KernelId::ResidualNorm;
        emitter.own(kernel, &inputs[Inputs::BRANCH], inputs, outputs, attributes);
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let [residual, branch, bias, scale, shift, dropped @ ..] = inputs else {
            return Err(GraphError::Emit {
                op: self.name(),
                reason: "takes 5 inputs and those of dropout".to_owned(),
            });
        };
        let bias = graph.cast_like(*bias, *branch)?;
        let y = graph.add(*branch, bias)?;
        let y = self.dropout.apply(graph, y, dropped)?;
        let y = graph.cast_like(y, *residual)?;
        let sum = graph.add(*residual, y)?; // [R, B, D]
        let wide = graph.cast(sum, DType::F32)?;
        let norm = LayerNorm {
            epsilon: self.epsilon,
        };
        let outputs = graph.apply(norm, &[wide, *scale, *shift])?;
        let normal = graph.cast_like(outputs[0], *residual)?;
        let copy = graph.cast_like(outputs[0], *branch)?;
        let sum = graph.cast_like(sum, *branch)?;
        Ok(Some(vec![normal, copy, sum, outputs[1], outputs[2]]))
    }
}

fn derivative(reason: &str) -> GraphError {
    GraphError::Derivative {
        op: "ResidualNorm",
        reason: reason.to_owned(),
    }
}

/// Which outputs of the operator have a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gradients {
    /// The normalized rows.
    Normal,
    /// Their copy for matrix products.
    Copy,
    Both,
}

/// Derivative of [`super::residual_norm::ResidualNorm`] with respect to residual, branch, bias, scale
/// and shift.
///
/// Inputs are the gradients, the sum, the scale, mean and inverse deviation, and those of dropout.
/// The residual's gradient is f32, the branch's like the sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResidualNormGrad {
    pub gradients: Gradients,
    pub dropout: RowDropout,
}

impl ResidualNormGrad {
    /// How many gradients come in.
    pub(crate) fn incoming(&self) -> usize {
        match self.gradients {
            Gradients::Normal | Gradients::Copy => 1,
            Gradients::Both => 2,
        }
    }

    /// The place of an input behind the gradients, of those that [`GradInputs`] names.
    fn place(&self, input: usize) -> usize {
        self.incoming() + input
    }
}

impl Operator for ResidualNormGrad {
    fn name(&self) -> &'static str {
        "ResidualNormGrad"
    }

    fn attributes(&self) -> String {
        let of = match self.gradients {
            Gradients::Normal => " of=normal",
            Gradients::Copy => " of=copy",
            Gradients::Both => "",
        };
        format!("{of}{}", self.dropout.shown())
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        if inputs.len() < self.place(GradInputs::DROPOUT) {
            return Err(format!(
                "takes {} inputs or more",
                self.place(GradInputs::DROPOUT)
            ));
        }
        let (gradients, rest) = inputs.split_at(self.incoming());
        let [sum, scale, mean, inverse, dropped @ ..] = rest else {
            return Err("takes a sum, a scale and statistics".to_owned());
        };
        let (vector, statistics) = parts(sum)?;
        let fits = |g: &&Type| g.shape == sum.shape && g.dtype.is_float();
        if !gradients.iter().all(fits) || **mean != statistics || **inverse != statistics {
            return Err("gradients, sum and statistics do not fit".to_owned());
        }
        if **scale != vector {
            return Err(format!("scale must be {vector}"));
        }
        self.dropout.check(sum, dropped)?;
        let residual = Type::f32(sum.shape.iter().cloned());
        let branch = (*sum).clone();
        Ok(vec![
            residual,
            branch,
            vector.clone(),
            vector.clone(),
            vector,
        ])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::ResidualNormGrad)]
    }

    fn arithmetic(&self) -> Arithmetic {
        let mut full: Vec<usize> = [GradInputs::SCALE, GradInputs::MEAN, GradInputs::INVERSE]
            .map(|input| self.place(input))
            .to_vec();
        match self.gradients {
            // The gradient of the normalized rows comes first.
            Gradients::Normal | Gradients::Both => full.push(0),
            Gradients::Copy => {}
        }
        Arithmetic::PerInput {
            full,
            gives_stream: true,
        }
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Layer normalization's, dropout (2), the bias' gradient.
        node.flops(16 * node.output(0))
    }

    fn dropping(&mut self) -> Option<(&mut Dropping, usize)> {
        let place = self.place(GradInputs::DROPOUT);
        Some((&mut self.dropout.dropping, place))
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let (gradients, rest) = inputs.split_at(self.incoming());
        let gradient = gradients
            .iter()
            .skip(1)
            .fold(gradients[0].clone(), |sum, g| sum + *g);
        let mut outputs = LayerNormGrad.evaluate(
            sizes,
            &[
                &gradient,
                rest[GradInputs::SUM],
                rest[GradInputs::SCALE],
                rest[GradInputs::MEAN],
                rest[GradInputs::INVERSE],
            ],
        )?;
        let branch = &outputs[0]
            * &self
                .dropout
                .multipliers(&outputs[0], &rest[GradInputs::DROPOUT..]);
        let bias = branch.sum_axis(Axis(0)).sum_axis(Axis(0));
        outputs.splice(1..1, [branch, bias]);
        Ok(outputs)
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        // A gradient that is not there has an empty name.
        let mut named = inputs.to_vec();
        match self.gradients {
            Gradients::Normal => named.insert(1, String::new()),
            Gradients::Copy => named.insert(0, String::new()),
            Gradients::Both => {}
        }
        let ratio = Attribute::Float(self.dropout.effective_ratio());
        let kernel = KernelId::ResidualNormGrad;
        let sum = &inputs[self.place(GradInputs::SUM)];
        emitter.own(kernel, sum, &named, outputs, [("ratio", ratio)]);
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let (gradients, rest) = inputs.split_at(self.incoming());
        let mut gradient = graph.cast(gradients[0], DType::F32)?;
        for further in &gradients[1..] {
            let further = graph.cast(*further, DType::F32)?;
            gradient = graph.add(gradient, further)?;
        }
        let sum = graph.cast(rest[GradInputs::SUM], DType::F32)?;
        let inputs = [
            gradient,
            sum,
            rest[GradInputs::SCALE],
            rest[GradInputs::MEAN],
            rest[GradInputs::INVERSE],
        ];
        let grads = graph.apply(LayerNormGrad, &inputs)?;
        let branch = graph.cast_like(grads[0], rest[GradInputs::SUM])?;
        let branch = self
            .dropout
            .apply(graph, branch, &rest[GradInputs::DROPOUT..])?;
        let wide = graph.cast(branch, DType::F32)?;
        let bias = graph.reduce_sum(wide, &[0, 1], false)?;
        Ok(Some(vec![grads[0], branch, bias, grads[1], grads[2]]))
    }
}

/// The rows of [`super::residual_norm::ResidualNorm`] like its `branch`, from its sum `[R, B, D]`, mean and
/// inverse deviation f32 `[R, B, 1]`, scale and shift f32 `[D]`.
///
/// A last input, of floats that are not read, says after what: computed earlier, the rows would have to
/// be kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormalizedAgain;

impl Operator for NormalizedAgain {
    fn name(&self) -> &'static str {
        "NormalizedAgain"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [sum, mean, inverse, scale, shift, after] = exactly(inputs)?;
        let (vector, statistics) = parts(sum)?;
        if **mean != statistics || **inverse != statistics {
            return Err("sum and statistics do not fit".to_owned());
        }
        if **scale != vector || **shift != vector {
            return Err(format!("scale and shift must be {vector}"));
        }
        match after.dtype.is_float() {
            true => Ok(vec![(*sum).clone()]),
            false => Err("what it waits for must be floats".to_owned()),
        }
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::NormalizedAgain)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::PerInput {
            full: vec![
                AgainInputs::MEAN,
                AgainInputs::INVERSE,
                AgainInputs::SCALE,
                AgainInputs::SHIFT,
            ],
            gives_stream: false,
        }
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Subtract, normalize, scale, shift; what it waits for is not read.
        let Cost { flops, bytes } = node.flops(4 * node.output(0));
        Cost {
            flops,
            bytes: bytes - node.input_bytes(AgainInputs::AFTER),
        }
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let [sum, mean, inverse, scale, shift, _] = exactly(inputs)?;
        Ok(vec![(*sum - *mean) * *inverse * *scale + *shift])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let kernel = KernelId::NormalizedAgain;
        emitter.own(kernel, &inputs[AgainInputs::SUM], inputs, outputs, []);
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let [sum, mean, inverse, scale, shift, _] = operands(self.name(), inputs)?;
        let wide = graph.cast(sum, DType::F32)?;
        let centred = graph.sub(wide, mean)?;
        let normal = graph.mul(centred, inverse)?;
        let scaled = graph.mul(normal, scale)?;
        let shifted = graph.add(scaled, shift)?;
        Ok(Some(vec![graph.cast_like(shifted, sum)?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::Dim;
    use crate::ops::dropping::tests::{ALL, given};
    use crate::ops::testing::*;

    pub fn residual_norm() -> Spec {
        let shape = || [Dim::from(L), Dim::from(B), Dim::from(4)];
        let mut spec = Spec::default();
        for dropout in ALL {
            let op = ResidualNorm {
                epsilon: 0.25,
                dropout,
            };
            for read in [&[0, 1][..], &[0], &[1]] {
                let example = Example::of(op)
                    .floats(shape())
                    .floats(shape())
                    .floats([4])
                    .floats([4])
                    .floats([4]);
                let example = given(dropout, shape(), example);
                spec = spec.example(example.reading(read).differentiable());
            }
        }
        let plain = ResidualNorm {
            epsilon: 0.25,
            dropout: ALL[0],
        };
        let rows = || f32([2, 3, 4]);
        let vector = || f32([4]);
        spec.rejects(
            plain,
            [rows(), f32([2, 3, 5]), f32([5]), f32([5]), f32([5])],
            "different shapes",
        )
        .rejects(
            plain,
            [rows(), rows(), vector(), f32([3]), vector()],
            "bias, scale and shift must be",
        )
        .rejects(
            plain,
            [f32([2, 4]), f32([2, 4]), vector(), vector(), vector()],
            "[rows, batch, width]",
        )
    }

    pub fn residual_norm_grad() -> Spec {
        let shape = || [Dim::from(L), Dim::from(B), Dim::from(4)];
        let statistics = || [Dim::from(L), Dim::from(B), Dim::from(1)];
        let mut spec = Spec::default();
        for dropout in ALL {
            for gradients in [Gradients::Normal, Gradients::Copy, Gradients::Both] {
                let op = ResidualNormGrad { gradients, dropout };
                let incoming = (0..op.incoming()).fold(Example::of(op), |e, _| e.floats(shape()));
                let example = incoming
                    .floats(shape())
                    .floats([4])
                    .floats(statistics())
                    .floats(statistics());
                spec = spec.example(given(dropout, shape(), example).derivative_refused());
            }
        }
        let plain = ResidualNormGrad {
            gradients: Gradients::Normal,
            dropout: ALL[0],
        };
        let rows = || f32([2, 3, 4]);
        let column = || f32([2, 3, 1]);
        spec.rejects(
            plain,
            [rows(), rows(), f32([4]), f32([2, 3]), column()],
            "statistics do not fit",
        )
        .rejects(
            plain,
            [rows(), rows(), f32([3]), column(), column()],
            "scale must be",
        )
    }

    pub fn normalized_again() -> Spec {
        let types = |mean: Type, scale: Type, after: Type| {
            [f32([1, 1, 2]), mean, f32([1, 1, 1]), scale, f32([2]), after]
        };
        Spec::default()
            .example(
                Example::of(NormalizedAgain)
                    .given(f32([1, 1, 2]), &[3.0, 5.0])
                    .given(f32([1, 1, 1]), &[4.0])
                    .given(f32([1, 1, 1]), &[0.5])
                    .given(f32([2]), &[1.0, 10.0])
                    .given(f32([2]), &[0.0, 7.0])
                    .given(f32([3]), &[1.0, 2.0, 3.0])
                    .gives(&[1, 1, 2], &[-0.5, 12.0])
                    .derivative_refused(),
            )
            .rejects(
                NormalizedAgain,
                types(f32([1, 1, 2]), f32([2]), f32([1])),
                "statistics do not fit",
            )
            .rejects(
                NormalizedAgain,
                types(f32([1, 1, 1]), f32([3]), f32([1])),
                "scale and shift must be",
            )
            .rejects(
                NormalizedAgain,
                types(f32([1, 1, 1]), f32([2]), i64([1])),
                "must be floats",
            )
    }
}
