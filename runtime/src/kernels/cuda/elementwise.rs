//! Dropout, and the derivatives of GELU and layer normalization, where no other operator has them inside:
//! `elementwise.cu` as operators.

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::definition::{
    Call, Definition, RowDropout, Source, arguments, element_number, grid, rows_and_width, whole,
};

const SOURCE: &str = concat!(include_str!("common.cuh"), include_str!("elementwise.cu"));
const THREADS: usize = 256;
const WARPS: usize = THREADS / 32;
/// Blocks at most: some for each multiprocessor of a large GPU; each goes on where it ends.
const BLOCKS: usize = 2048;
/// The same for layer normalization, whose blocks each leave sums behind.
const NORM_BLOCKS: usize = 396;

/// Blocks that share the elements of a tensor.
fn blocks(element: TensorElementType, elements: usize) -> [usize; 2] {
    let vector = if element_number(element) == 0 { 4 } else { 8 };
    [elements.div_ceil(THREADS * vector).min(BLOCKS), 1]
}

/// `FactorDropout` of one type of floats.
#[derive(Debug, Clone)]
pub(super) struct FactorDropout {
    pub element: TensorElementType,
    pub dropout: RowDropout,
}

impl Definition for FactorDropout {
    fn name(&self) -> &'static str {
        "FactorDropout"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        use TensorElementType::Uint32;
        [self.element, Uint32, Uint32]
            .map(OperatorInput::required)
            .into()
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        vec![self.element]
    }

    fn read(&mut self, node: &KernelContext<'_>) -> ort::Result<()> {
        self.dropout = RowDropout::read(node)?;
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let shape = call.shape(0)?;
        let (rows, width) = rows_and_width(&shape)?;
        let (x, y) = (call.input(0)?, call.output(0, &shape)?);
        let [of_rows, of_columns] = self.dropout.factors(call, 1)?;
        let (limit, keep) = (self.dropout.limit(), self.dropout.keep());
        let (count, columns) = ((rows * width) as i64, whole(width)?);
        let source = Source {
            text: SOURCE,
            definitions: &[("ELEMENT", element_number(self.element))],
            kernel: "factor_dropout",
        };
        let launch = grid(blocks(self.element, rows * width), THREADS);
        let mut arguments = arguments![y, x, of_rows, of_columns, count, columns, limit, keep];
        // SAFETY: the parameters of `factor_dropout`; x and y have `count` elements.
        unsafe { call.launch(&source, launch, &mut arguments) }
    }
}

/// `GeluGrad` or, by the tanh approximation, `FastGeluGrad`, of one type of floats.
#[derive(Debug, Clone)]
pub(super) struct GeluGrad {
    pub element: TensorElementType,
    pub approximate: bool,
}

impl Definition for GeluGrad {
    fn name(&self) -> &'static str {
        match self.approximate {
            true => "FastGeluGrad",
            false => "GeluGrad",
        }
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        [self.element; 2].map(OperatorInput::required).into()
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
        let (dy, x, dx) = (call.input(0)?, call.input(1)?, call.output(0, &shape)?);
        let (count, approximate) = ((rows * width) as i64, i32::from(self.approximate));
        let source = Source {
            text: SOURCE,
            definitions: &[("ELEMENT", element_number(self.element))],
            kernel: "gelu_grad",
        };
        let launch = grid(blocks(self.element, rows * width), THREADS);
        let mut arguments = arguments![dx, dy, x, count, approximate];
        // SAFETY: the parameters of `gelu_grad`; inputs and output have `count` elements.
        unsafe { call.launch(&source, launch, &mut arguments) }
    }
}

/// `LayerNormalizationGrad` in f32.
#[derive(Debug, Clone)]
pub(super) struct LayerNormGrad;

impl Definition for LayerNormGrad {
    fn name(&self) -> &'static str {
        "LayerNormalizationGrad"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        [TensorElementType::Float32; 5]
            .map(OperatorInput::required)
            .into()
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        vec![TensorElementType::Float32; 3]
    }

    fn read(&mut self, _: &KernelContext<'_>) -> ort::Result<()> {
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let shape = call.shape(0)?;
        let (rows, width) = rows_and_width(&shape)?;
        let (dy, x, scale) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let (mean, inverse) = (call.input(3)?, call.input(4)?);
        let dx = call.output(0, &shape)?;
        let d_scale = call.output(1, &[width as i64])?;
        let d_bias = call.output(2, &[width as i64])?;
        let blocks = rows.div_ceil(WARPS).min(NORM_BLOCKS);
        let parts = call.scratch(blocks * 2 * width)?;
        let source = Source {
            text: SOURCE,
            definitions: &[("ELEMENT", 0), ("WIDTH", width)],
            kernel: "layer_norm_grad",
        };
        let count = rows as i64;
        let mut arguments = arguments![dx, parts, dy, x, scale, mean, inverse, count];
        // SAFETY: the parameters of `layer_norm_grad`; the scratch has room for each block's sums.
        unsafe { call.launch(&source, grid([blocks, 1], THREADS), &mut arguments)? };
        // SAFETY: each block has left two rows of `width` behind.
        unsafe { call.sum_parts(&source, &[d_scale, d_bias], parts, blocks, width) }
    }
}
