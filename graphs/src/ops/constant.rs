//! A tensor known at compile time.

use super::operator::{Arithmetic, Emitted, Kernel, Operator, Vjp};
use crate::ir::{Array, Bindings, Cost, DType, Dim, GraphError, Operands, Storage, Type, ValueId};
use crate::onnx::emitter::Emitter;
use crate::ops::Graph;
use ndarray::IxDyn;
use std::sync::Arc;

/// A tensor known at compile time. Values are held as f64, which represents every f32, boolean and
/// index exactly.
#[derive(Debug, Clone)]
pub struct Constant {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub values: Arc<[f64]>,
}

/// Equal when every bit is: 0 and −0 are not.
impl PartialEq for Constant {
    fn eq(&self, other: &Constant) -> bool {
        let mut pairs = self.values.iter().zip(&other.values[..]);
        (self.dtype, &self.shape) == (other.dtype, &other.shape)
            && self.values.len() == other.values.len()
            && pairs.all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

impl Graph {
    /// A constant tensor.
    ///
    /// # Errors
    /// Where the shape does not fit the number of values.
    pub fn constant(
        &mut self,
        dtype: DType,
        shape: &[usize],
        values: impl IntoIterator<Item = f64>,
    ) -> Result<ValueId, GraphError> {
        self.apply1(
            Constant {
                dtype,
                shape: shape.to_vec(),
                values: values.into_iter().collect(),
            },
            &[],
        )
    }

    /// A float without dimensions.
    ///
    /// # Errors
    /// Never in practice; see [`Graph::constant`].
    pub fn scalar(&mut self, value: f64) -> Result<ValueId, GraphError> {
        self.constant(DType::F32, &[], [value])
    }

    /// A number without dimensions, of the element type of `x`.
    ///
    /// # Errors
    /// Never in practice; see [`Graph::constant`].
    pub fn scalar_like(&mut self, x: ValueId, value: f64) -> Result<ValueId, GraphError> {
        self.constant(self.ty(x).dtype, &[], [value])
    }

    /// `x · factor`.
    ///
    /// # Errors
    /// Never in practice; see [`Graph::constant`].
    pub fn scale(&mut self, x: ValueId, factor: f64) -> Result<ValueId, GraphError> {
        if factor == 1.0 {
            return Ok(x);
        }
        let factor = self.scalar_like(x, factor)?;
        self.mul(x, factor)
    }

    /// An index without dimensions.
    ///
    /// # Errors
    /// Never in practice; see [`Graph::constant`].
    pub fn index(&mut self, value: i64) -> Result<ValueId, GraphError> {
        self.constant(DType::I64, &[], [value as f64])
    }
}

impl Operator for Constant {
    fn name(&self) -> &'static str {
        "Constant"
    }

    fn attributes(&self) -> String {
        match &self.values[..] {
            [value] => format!(" {value}"),
            values => format!(" {} values", values.len()),
        }
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        if !inputs.is_empty() {
            return Err("takes no input".to_owned());
        }
        if self.shape.iter().product::<usize>() != self.values.len() {
            return Err(format!(
                "{} values do not fill shape {:?}",
                self.values.len(),
                self.shape
            ));
        }
        Ok(vec![Type::new(
            self.dtype,
            self.shape.iter().map(|&d| Dim::from(d)),
        )])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(Vec::new())
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Follow
    }

    fn cost(&self, _: &Operands) -> Cost {
        // It lies in the file.
        Cost::default()
    }

    fn storage(&self) -> Storage {
        Storage::File
    }

    fn evaluate(&self, _: &Bindings, _: &[&Array]) -> Result<Vec<Array>, String> {
        Array::from_shape_vec(IxDyn(&self.shape), self.values.to_vec())
            .map(|a| vec![a])
            .map_err(|e| e.to_string())
    }

    fn emit(&self, emitter: &mut Emitter, _: &[String], outputs: &[String]) -> Emitted {
        emitter.initializer(&outputs[0], self.dtype, &self.shape, &self.values);
        Ok(())
    }
}

/// The indices 0, 1, … of a symbolic dimension, i64 `[len]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Iota {
    pub len: Dim,
}

impl Graph {
    /// `[0, 1, …, len − 1]`.
    ///
    /// # Errors
    /// Never in practice.
    pub fn iota(&mut self, len: Dim) -> Result<ValueId, GraphError> {
        self.apply1(Iota { len }, &[])
    }
}

impl Operator for Iota {
    fn name(&self) -> &'static str {
        "Iota"
    }

    fn attributes(&self) -> String {
        format!(" {}", self.len)
    }

    fn dims(&self) -> Vec<&Dim> {
        vec![&self.len]
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        if !inputs.is_empty() {
            return Err("takes no input".to_owned());
        }
        Ok(vec![Type::new(DType::I64, [self.len.clone()])])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(Vec::new())
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Follow
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.moves()
    }

    fn evaluate(&self, bindings: &Bindings, _: &[&Array]) -> Result<Vec<Array>, String> {
        let len = self.len.eval(bindings)?.max(0);
        Ok(vec![
            ndarray::Array1::from_iter((0..len).map(|i| i as f64)).into_dyn(),
        ])
    }

    fn emit(&self, emitter: &mut Emitter, _: &[String], outputs: &[String]) -> Emitted {
        let len = emitter.dim_scalar(&self.len)?;
        let zero = emitter.index_scalar(0);
        let one = emitter.index_scalar(1);
        emitter.standard("Range", &[zero, len, one], outputs);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn constant() -> Spec {
        let constant = |shape: &[usize]| Constant {
            dtype: DType::F32,
            shape: shape.to_vec(),
            values: [1.5, 2.0].into(),
        };
        Spec::default()
            .example(
                Example::of(constant(&[2, 1]))
                    .gives(&[2, 1], &[1.5, 2.0])
                    .not_differentiable(),
            )
            .rejects(constant(&[3]), [], "2 values do not fill shape [3]")
    }

    pub fn iota() -> Spec {
        let of = |len: Dim| Example::of(Iota { len });
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        Spec::default()
            .example(
                of(Dim::from(L) + P.into())
                    .gives(&[8], &values)
                    .not_differentiable(),
            )
            .example(of(3.into()).gives(&[3], &values[..3]).not_differentiable())
            .rejects(Iota { len: L.into() }, [i64([2])], "takes no input")
    }
}
