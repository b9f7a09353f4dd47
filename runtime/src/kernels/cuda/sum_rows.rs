//! The sum of all rows of a tensor, added up in one order: `sum_rows.cu` as an operator.

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::definition::{
    Call, Definition, Source, arguments, element_number, grid, piece, rows_and_width, whole,
};

const SOURCE: &str = concat!(include_str!("common.cuh"), include_str!("sum_rows.cu"));
const THREADS: usize = 96;
/// Rows that a thread loads at once.
const AHEAD: usize = 8;
/// Blocks at most: some for each multiprocessor of a large GPU.
const BLOCKS: usize = 1584;

/// `SumRows` for rows of one type.
#[derive(Debug, Clone)]
pub(super) struct SumRows {
    pub element: TensorElementType,
}

impl Definition for SumRows {
    fn name(&self) -> &'static str {
        "SumRows"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        vec![OperatorInput::required(self.element)]
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        vec![self.element]
    }

    fn read(&mut self, _: &KernelContext<'_>) -> ort::Result<()> {
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let (rows, width) = rows_and_width(&call.shape(0)?)?;
        let (x, y) = (call.input(0)?, call.output(0, &[width as i64])?);
        let piece = piece(self.element, width);
        let across = width.div_ceil(piece * THREADS);
        let down = rows
            .div_ceil(AHEAD)
            .clamp(1, BLOCKS.div_ceil(across.max(1)));
        let parts = call.scratch(down * width)?;
        let definitions = [("ELEMENT", element_number(self.element)), ("PIECE", piece)];
        let source = |kernel| Source {
            text: SOURCE,
            definitions: &definitions,
            kernel,
        };
        let (count, columns, blocks) = (whole(rows)?, whole(width)?, whole(down)?);
        let mut arguments = arguments![parts, x, count, columns];
        // SAFETY: the parameters of `sum_rows`; x has `count` rows, the scratch a row of sums for each row of blocks.
        unsafe {
            call.launch(
                &source("sum_rows"),
                grid([across, down], THREADS),
                &mut arguments,
            )?;
        }
        let mut arguments = arguments![y, parts, blocks, columns];
        let launch = grid([width.div_ceil(32), 1], 256);
        // SAFETY: the parameters of `sum_of_blocks`; the rows of blocks have left `columns` sums each.
        unsafe { call.launch(&source("sum_of_blocks"), launch, &mut arguments) }
    }
}
