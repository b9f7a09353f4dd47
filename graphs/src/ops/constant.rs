//! A tensor known at compile time.

use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, DType, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;
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

    fn evaluate(&self, _: &Bindings, _: &[&Array]) -> Result<Vec<Array>, String> {
        Array::from_shape_vec(IxDyn(&self.shape), self.values.to_vec())
            .map(|a| vec![a])
            .map_err(|e| e.to_string())
    }

    fn emit(&self, emitter: &mut Emitter, _: &[String], outputs: &[String]) -> Result<(), String> {
        emitter.initializer(&outputs[0], self.dtype, &self.shape, &self.values);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
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
}
