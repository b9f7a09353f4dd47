//! What joins a branch to the residual stream, and its derivative: `residual_norm.cu` as operators.

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::definition::{
    Call, Definition, RowDropout, Source, arguments, attribute, element_number, grid,
    rows_and_width,
};

const SOURCE: &str = concat!(include_str!("common.cuh"), include_str!("residual_norm.cu"));
const WARPS: usize = 4;
/// Blocks of the forward kernel at most; each goes on where it ends.
const BLOCKS: usize = 8192;
/// The same of the derivative, whose blocks each leave sums behind: what a large GPU runs at once.
const GRAD_BLOCKS: usize = 264;

/// `ResidualNorm` for branches of one type.
#[derive(Debug, Clone)]
pub(super) struct ResidualNorm {
    pub element: TensorElementType,
    pub dropout: RowDropout,
    pub epsilon: f32,
}

impl Definition for ResidualNorm {
    fn name(&self) -> &'static str {
        "ResidualNorm"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        use TensorElementType::{Float32, Uint32};
        let plain = [Float32, self.element, Float32, Float32, Float32];
        let factors = [
            OperatorInput::optional(Uint32),
            OperatorInput::optional(Uint32),
        ];
        plain
            .map(OperatorInput::required)
            .into_iter()
            .chain(factors)
            .collect()
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        use TensorElementType::Float32;
        vec![Float32, self.element, self.element, Float32, Float32]
    }

    fn read(&mut self, node: &KernelContext<'_>) -> ort::Result<()> {
        self.dropout = RowDropout::read(node)?;
        self.epsilon = attribute(node, "epsilon")?;
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let shape = call.shape(1)?;
        let (rows, width) = rows_and_width(&shape)?;
        let [residual, branch, bias, scale, shift] = inputs(call)?;
        let [of_rows, of_columns] = self.dropout.factors(call, 5)?;
        let statistics = [&shape[..shape.len() - 1], &[1]].concat();
        let normal = call.optional_output(0, &shape)?;
        let copy = call.optional_output(1, &shape)?;
        let sum = call.optional_output(2, &shape)?;
        let mean = call.optional_output(3, &statistics)?;
        let inverse = call.optional_output(4, &statistics)?;
        let (limit, keep) = (self.dropout.limit(), self.dropout.keep());
        let (count, epsilon) = (rows as i64, self.epsilon);
        let mut arguments = arguments![
            normal, copy, sum, mean, inverse, residual, branch, bias, scale, shift, of_rows,
            of_columns, count, limit, keep, epsilon,
        ];
        let source = Source {
            text: SOURCE,
            definitions: &[("ELEMENT", element_number(self.element)), ("WIDTH", width)],
            kernel: "residual_norm",
        };
        let launch = grid([rows.div_ceil(WARPS).min(BLOCKS), 1], 32 * WARPS);
        // SAFETY: the parameters of `residual_norm`; all rows have the shape that was read.
        unsafe { call.launch(&source, launch, &mut arguments) }
    }
}

/// `ResidualNormGrad` for branches of one type.
#[derive(Debug, Clone)]
pub(super) struct ResidualNormGrad {
    pub element: TensorElementType,
    pub dropout: RowDropout,
}

impl Definition for ResidualNormGrad {
    fn name(&self) -> &'static str {
        "ResidualNormGrad"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        use TensorElementType::{Float32, Uint32};
        let gradients = [Float32, self.element].map(OperatorInput::optional);
        let plain = [self.element, Float32, Float32, Float32].map(OperatorInput::required);
        let factors = [Uint32, Uint32].map(OperatorInput::optional);
        gradients.into_iter().chain(plain).chain(factors).collect()
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        use TensorElementType::Float32;
        vec![Float32, self.element, Float32, Float32, Float32]
    }

    fn read(&mut self, node: &KernelContext<'_>) -> ort::Result<()> {
        self.dropout = RowDropout::read(node)?;
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let shape = call.shape(2)?;
        let (rows, width) = rows_and_width(&shape)?;
        let (d_normal, d_copy) = (call.optional(0)?, call.optional(1)?);
        let (sum, scale) = (call.input(2)?, call.input(3)?);
        let (mean, inverse) = (call.input(4)?, call.input(5)?);
        let [of_rows, of_columns] = self.dropout.factors(call, 6)?;
        let d_residual = call.output(0, &shape)?;
        let d_branch = call.output(1, &shape)?;
        let vector = [width as i64];
        let (d_bias, d_scale) = (call.output(2, &vector)?, call.output(3, &vector)?);
        let d_shift = call.output(4, &vector)?;
        let blocks = rows.div_ceil(WARPS).min(GRAD_BLOCKS);
        let parts = call.scratch(blocks * 3 * width)?;
        let (limit, keep) = (self.dropout.limit(), self.dropout.keep());
        let count = rows as i64;
        let mut arguments = arguments![
            d_residual, d_branch, parts, d_normal, d_copy, sum, scale, mean, inverse, of_rows,
            of_columns, count, limit, keep,
        ];
        let source = Source {
            text: SOURCE,
            definitions: &[("ELEMENT", element_number(self.element)), ("WIDTH", width)],
            kernel: "residual_norm_grad",
        };
        // SAFETY: the parameters of `residual_norm_grad`; the scratch has room for each block's sums.
        unsafe { call.launch(&source, grid([blocks, 1], 32 * WARPS), &mut arguments)? };
        // SAFETY: a block has left three rows of `width` behind; the outputs have `width` elements.
        unsafe { call.sum_parts(&source, &[d_bias, d_scale, d_shift], parts, blocks, width) }
    }
}

/// `NormalizedAgain` for branches of one type.
#[derive(Debug, Clone)]
pub(super) struct NormalizedAgain {
    pub element: TensorElementType,
}

impl Definition for NormalizedAgain {
    fn name(&self) -> &'static str {
        "NormalizedAgain"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        use TensorElementType::Float32;
        let plain = [self.element, Float32, Float32, Float32, Float32];
        let all = plain.into_iter().chain([self.element]);
        all.map(OperatorInput::required).collect()
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        vec![self.element]
    }

    fn read(&mut self, _: &KernelContext<'_>) -> ort::Result<()> {
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let shape = call.shape(0)?;
        let (rows, width) = rows_and_width(&shape)?;
        let [sum, mean, inverse, scale, shift] = inputs(call)?;
        let copy = call.output(0, &shape)?;
        let count = rows as i64;
        let mut arguments = arguments![copy, sum, mean, inverse, scale, shift, count];
        let source = Source {
            text: SOURCE,
            definitions: &[("ELEMENT", element_number(self.element)), ("WIDTH", width)],
            kernel: "normalized_again",
        };
        let launch = grid([rows.div_ceil(WARPS).min(BLOCKS), 1], 32 * WARPS);
        // SAFETY: the parameters of `normalized_again`; all rows have the shape that was read.
        unsafe { call.launch(&source, launch, &mut arguments) }
    }
}

/// The first inputs, all of which must be given.
fn inputs<const N: usize>(call: &Call<'_>) -> ort::Result<[*const std::ffi::c_void; N]> {
    let mut found = [std::ptr::null(); N];
    for (index, input) in found.iter_mut().enumerate() {
        *input = call.input(index)?;
    }
    Ok(found)
}
