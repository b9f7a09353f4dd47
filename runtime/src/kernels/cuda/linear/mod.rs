//! Products of rows in 16 bits with a matrix, by cuBLASLt, which adds what stands beside them: operators `Linear` and
//! `LinearGradient`.

mod algorithm;
mod cublaslt;

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::definition::{Call, Definition, attribute, rows_and_width};
use algorithm::{Operands, multiply};
use cublaslt::{Number, Product, Side};

/// `Linear` for rows of one type.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    pub element: TensorElementType,
    pub transposed: bool,
}

impl Definition for Linear {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        vec![
            OperatorInput::required(self.element),
            OperatorInput::required(self.element),
            OperatorInput::optional(self.element),
        ]
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        vec![self.element]
    }

    fn read(&mut self, node: &KernelContext<'_>) -> ort::Result<()> {
        self.transposed = attribute::<i64>(node, "transposed")? != 0;
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let mut shape = call.shape(0)?;
        let (rows, inner) = rows_and_width(&shape)?;
        let (first, second) = rows_and_width(&call.shape(1)?)?;
        let (columns, depth) = match self.transposed {
            true => (second, first),
            false => (first, second),
        };
        if depth != inner {
            return Err(ort::Error::new(format!(
                "rows of {inner} elements meet a matrix for {depth}"
            )));
        }
        if let Some(last) = shape.last_mut() {
            *last = columns as i64;
        }
        // cuBLASLt counts along columns: what it takes for its left operand is our matrix, read the other way round.
        let product = Product {
            rows: columns,
            columns: rows,
            depth,
            left: match self.transposed {
                true => Side::AsStored,
                false => Side::Transposed,
            },
            right: Side::AsStored,
            element: Number::of(self.element)?,
            result: Number::of(self.element)?,
            bias: !call.optional(2)?.is_null(),
            adds: false,
        };
        let operands = Operands {
            left: call.input(1)?,
            right: call.input(0)?,
            bias: call.optional(2)?,
            added: call.output(0, &shape)?,
            result: call.output(0, &shape)?,
        };
        // SAFETY: the tensors have the sizes that the product is for; nothing else writes the result.
        unsafe { multiply(call, &product, &operands) }
    }
}

/// `LinearGradient` for rows of one type.
#[derive(Debug, Clone)]
pub(super) struct LinearGradient {
    pub element: TensorElementType,
    /// Below 0 for none.
    pub segment: i64,
}

impl Definition for LinearGradient {
    fn name(&self) -> &'static str {
        "LinearGradient"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        [self.element, self.element, TensorElementType::Float32]
            .map(OperatorInput::required)
            .into()
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        vec![TensorElementType::Float32]
    }

    fn read(&mut self, node: &KernelContext<'_>) -> ort::Result<()> {
        self.segment = attribute(node, "segment")?;
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let (rows, out) = rows_and_width(&call.shape(0)?)?;
        let (same, inner) = rows_and_width(&call.shape(1)?)?;
        let shape = call.shape(2)?;
        if rows != same || shape != [out as i64, inner as i64] {
            return Err(ort::Error::new(
                "rows and the gradient gathered so far have different sizes",
            ));
        }
        let product = Product {
            rows: inner,
            columns: out,
            depth: rows,
            left: Side::AsStored,
            right: Side::Transposed,
            element: Number::of(self.element)?,
            result: Number::F32,
            bias: false,
            adds: true,
        };
        let operands = Operands {
            left: call.input(1)?,
            right: call.input(0)?,
            bias: std::ptr::null(),
            added: call.input(2)?,
            result: call.output(0, &shape)?,
        };
        // SAFETY: the tensors have the sizes that the product is for; the result is what is added or lies elsewhere.
        unsafe { multiply(call, &product, &operands)? };
        call.wrote_gradient(self.segment)
    }
}
