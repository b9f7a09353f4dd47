//! GELU of a sum with a bias and dropout behind it, and its derivative: `bias_gelu.cu` as operators.

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::definition::{
    Call, Definition, RowDropout, Source, arguments, attribute, element_number, grid, piece,
    rows_and_width, whole,
};

const SOURCE: &str = concat!(include_str!("common.cuh"), include_str!("bias_gelu.cu"));
const THREADS: usize = 128;
/// Rows that a thread loads at once.
const AHEAD: usize = 2;
/// Blocks at most: some for each multiprocessor of a large GPU.
const BLOCKS: usize = 3168;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    Backward,
}

/// `BiasGelu` or `BiasGeluGrad` for rows of one type.
#[derive(Debug, Clone)]
pub(super) struct BiasGelu {
    pub pass: Pass,
    pub element: TensorElementType,
    pub dropout: RowDropout,
    pub approximate: bool,
}

impl BiasGelu {
    /// Gradients before the operator's own inputs.
    fn gradients(&self) -> usize {
        match self.pass {
            Pass::Forward => 0,
            Pass::Backward => 1,
        }
    }
}

impl Definition for BiasGelu {
    fn name(&self) -> &'static str {
        match self.pass {
            Pass::Forward => "BiasGelu",
            Pass::Backward => "BiasGeluGrad",
        }
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        use TensorElementType::{Float32, Uint32};
        let mut plain = vec![self.element; self.gradients() + 1];
        plain.push(Float32);
        let plain = plain.into_iter().map(OperatorInput::required);
        plain
            .chain([Uint32; 2].map(OperatorInput::optional))
            .collect()
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        match self.pass {
            Pass::Forward => vec![self.element],
            Pass::Backward => vec![self.element, TensorElementType::Float32, self.element],
        }
    }

    fn read(&mut self, node: &KernelContext<'_>) -> ort::Result<()> {
        self.dropout = RowDropout::read(node)?;
        self.approximate = attribute::<i64>(node, "approximate")? != 0;
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let first = self.gradients();
        let shape = call.shape(first)?;
        let (rows, width) = rows_and_width(&shape)?;
        let (x, bias) = (call.input(first)?, call.input(first + 1)?);
        let [of_rows, of_columns] = self.dropout.factors(call, first + 2)?;
        let (limit, keep) = (self.dropout.limit(), self.dropout.keep());
        let approximate = i32::from(self.approximate);
        let piece = piece(self.element, width);
        let across = width.div_ceil(piece * THREADS);
        let down = rows.div_ceil(AHEAD).min(BLOCKS.div_ceil(across.max(1)));
        let (count, columns) = (whole(rows)?, whole(width)?);
        let definitions = [("ELEMENT", element_number(self.element)), ("PIECE", piece)];
        let source = |kernel| Source {
            text: SOURCE,
            definitions: &definitions,
            kernel,
        };
        let launch = grid([across, down], THREADS);
        match self.pass {
            Pass::Forward => {
                let y = call.output(0, &shape)?;
                let mut arguments = arguments![
                    y,
                    x,
                    bias,
                    of_rows,
                    of_columns,
                    count,
                    columns,
                    limit,
                    keep,
                    approximate
                ];
                // SAFETY: the parameters of `bias_gelu`; x and y have `count` rows of `columns`.
                unsafe { call.launch(&source("bias_gelu"), launch, &mut arguments) }
            }
            Pass::Backward => {
                let dy = call.input(0)?;
                let dx = call.output(0, &shape)?;
                let d_bias = call.output(1, &[width as i64])?;
                let y = call.optional_output(2, &shape)?;
                let parts = call.scratch(down * width)?;
                let mut arguments = arguments![
                    dx,
                    y,
                    parts,
                    dy,
                    x,
                    bias,
                    of_rows,
                    of_columns,
                    count,
                    columns,
                    limit,
                    keep,
                    approximate
                ];
                let source = source("bias_gelu_grad");
                // SAFETY: the parameters of `bias_gelu_grad`; the scratch has a row of sums for each row of blocks.
                unsafe { call.launch(&source, launch, &mut arguments)? };
                // SAFETY: the rows of blocks have left `width` sums each.
                unsafe { call.sum_parts(&source, &[d_bias], parts, down, width) }
            }
        }
    }
}
