//! Products of rows with a matrix in 16 bits, with what stands beside them in one kernel: a bias added to the result,
//! or a weight's gradient added in f32 to what has been gathered of it.

use super::matmul::MatMul;
use super::operator::{Arithmetic, Emitted, Expansion, Kernel, Operator, exactly};
use crate::ir::{Array, Bindings, Cost, DType, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use crate::ops::add_gradient::AddGradient;
use mpnet_plan::KernelId;

/// `x · weightᵀ + bias` for rows x `[.., in]`, a weight `[out, in]` and, where there is one, a bias `[out]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// The weight is stored `[in, out]`.
    pub transposed: bool,
}

impl Linear {
    fn product(&self) -> MatMul {
        MatMul {
            trans_b: !self.transposed,
            ..MatMul::default()
        }
    }
}

impl Operator for Linear {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn attributes(&self) -> String {
        match self.transposed {
            true => " transposed".to_owned(),
            false => String::new(),
        }
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let (operands, bias) = match inputs {
            [operands @ .., bias] if inputs.len() == 3 => (operands, Some(bias)),
            operands => (operands, None),
        };
        let [x, weight] = exactly(operands)?;
        if weight.rank() != 2 {
            return Err("takes a weight of two dimensions".to_owned());
        }
        let result = self.product().infer(&[x, weight])?;
        let columns = result[0].shape.last().cloned();
        match bias {
            Some(bias) if **bias != Type::new(x.dtype, columns) => {
                Err(format!("adds {bias} to the columns of {}", result[0]))
            }
            Some(_) | None => Ok(result),
        }
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::Linear)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Low
    }

    fn cost(&self, node: &Operands) -> Cost {
        self.product().cost(node)
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let product = self.product().evaluate(sizes, &inputs[..2])?;
        Ok(match inputs.get(2) {
            Some(bias) => product.into_iter().map(|y| y + *bias).collect(),
            None => product,
        })
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let transposed = Attribute::Int(i64::from(self.transposed));
        emitter.own(
            KernelId::Linear,
            &inputs[0],
            inputs,
            outputs,
            [("transposed", transposed)],
        );
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let mut y = graph.matmul(inputs[0], inputs[1], self.product())?;
        if let Some(bias) = inputs.get(2) {
            y = graph.add(y, *bias)?;
        }
        Ok(Some(vec![y]))
    }
}

/// The gradient of [`Linear`]'s weight added in f32 to what has been gathered of it: `gathered + dyᵀ · x`.
///
/// Inputs: dy `[rows, out]` and x `[rows, in]` of one type, gathered `[out, in]` in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearGradient {
    /// Which of the plan's segments the sum lies in, where the runtime is told, as of [`AddGradient`]'s.
    pub segment: Option<usize>,
}

/// dyᵀ · x.
const GRADIENT: MatMul = MatMul {
    trans_a: true,
    trans_b: false,
    trans_batch_a: false,
    trans_batch_b: false,
    alpha: 1.0,
    blocked: None,
};

impl Operator for LinearGradient {
    fn name(&self) -> &'static str {
        "LinearGradient"
    }

    fn attributes(&self) -> String {
        self.segment
            .map_or_else(String::new, |segment| format!(" {segment}"))
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [dy, x, gathered] = exactly(inputs)?;
        if dy.rank() != 2 || x.rank() != 2 {
            return Err("takes rows of two dimensions".to_owned());
        }
        let product = GRADIENT.infer(&[dy, x])?.remove(0);
        if gathered.dtype != DType::F32 || gathered.shape != product.shape {
            return Err(format!("adds {product} to {gathered}"));
        }
        Ok(vec![(*gathered).clone()])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::LinearGradient)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::PerInput {
            full: vec![2],
            gives_stream: false,
        }
    }

    fn cost(&self, node: &Operands) -> Cost {
        GRADIENT.cost(node)
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let [dy, x, gathered] = exactly(inputs)?;
        let product = GRADIENT.evaluate(sizes, &[dy, x])?;
        Ok(product.into_iter().map(|sum| sum + *gathered).collect())
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        // Segments are numbered from 0: -1 is none.
        let segment = self.segment.map_or(Ok(-1), i64::try_from);
        let segment = segment.map_err(|error| error.to_string())?;
        emitter.own(
            KernelId::LinearGradient,
            &inputs[0],
            inputs,
            outputs,
            [("segment", Attribute::Int(segment))],
        );
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let product = graph.matmul(inputs[0], inputs[1], GRADIENT)?;
        let product = graph.cast(product, DType::F32)?;
        Ok(Some(vec![match self.segment {
            Some(segment) => graph.apply1(AddGradient { segment }, &[inputs[2], product])?,
            None => graph.add(inputs[2], product)?,
        }]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::Dim;
    use crate::ops::testing::*;

    pub fn linear() -> Spec {
        const PLAIN: Linear = Linear { transposed: false };
        Spec::default()
            .variadic()
            .example(
                Example::of(PLAIN)
                    .given(f32([1, 2]), &[1.0, 2.0])
                    .given(f32([3, 2]), &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
                    .given(f32([3]), &[0.5, 0.0, -1.0])
                    .gives(&[1, 3], &[1.5, 2.0, 2.0])
                    .derivative_refused(),
            )
            .example(
                Example::of(Linear { transposed: true })
                    .given(f32([1, 2]), &[1.0, 2.0])
                    .given(f32([2, 3]), &[1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
                    .gives(&[1, 3], &[1.0, 2.0, 3.0])
                    .derivative_refused(),
            )
            .example(
                Example::of(PLAIN)
                    .floats([Dim::from(L), B.into(), 4.into()])
                    .floats([3, 4])
                    .derivative_refused(),
            )
            .rejects(PLAIN, [f32([2, 3]), f32([3, 2])], "contracts 3 with 2")
            .rejects(PLAIN, [f32([2, 3]), f32([1, 2, 3])], "two dimensions")
            .rejects(PLAIN, [f32([2, 3]), f32([4, 3]), f32([3])], "adds")
    }

    pub fn linear_gradient() -> Spec {
        const OP: LinearGradient = LinearGradient { segment: None };
        Spec::default()
            .example(
                Example::of(OP)
                    .given(f32([2, 1]), &[1.0, 2.0])
                    .given(f32([2, 2]), &[1.0, 2.0, 3.0, 4.0])
                    .given(f32([1, 2]), &[10.0, 20.0])
                    .gives(&[1, 2], &[17.0, 30.0])
                    .derivative_refused(),
            )
            .example(
                Example::of(LinearGradient { segment: Some(1) })
                    .floats([5, 2])
                    .floats([5, 3])
                    .floats([2, 3])
                    .derivative_refused(),
            )
            .rejects(OP, [f32([2, 1]), f32([2, 2]), f32([2, 2])], "adds")
            .rejects(
                OP,
                [f32([2, 1, 1]), f32([2, 2]), f32([1, 2])],
                "two dimensions",
            )
    }
}
