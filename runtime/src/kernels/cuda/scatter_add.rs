//! Rows added to those of a table that their indices name, in the order of the indices: `scatter_add.cu` as an
//! operator. ONNX Runtime's ScatterElements adds by atomics, in any order, and wants an index for each number.

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::definition::{Call, Definition, Source, arguments, grid, rows_and_width, whole};

const SOURCE: &str = concat!(include_str!("common.cuh"), include_str!("scatter_add.cu"));
const THREADS: usize = 256;
/// Rows that one block adds up.
const CHUNK: usize = 64;
/// Threads of the one block that looks for the beginnings.
const SCANNING: usize = 1024;

/// `ScatterAdd`.
#[derive(Debug, Clone)]
pub(super) struct ScatterAdd;

impl Definition for ScatterAdd {
    fn name(&self) -> &'static str {
        "ScatterAdd"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        use TensorElementType::{Float32, Int64};
        [Float32, Int64, Float32]
            .map(OperatorInput::required)
            .into()
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        vec![TensorElementType::Float32]
    }

    fn read(&mut self, _: &KernelContext<'_>) -> ort::Result<()> {
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let shape = call.shape(0)?;
        let (height, width) = rows_and_width(&shape)?;
        let (count, same) = rows_and_width(&call.shape(2)?)?;
        let indices = call.shape(1)?;
        if same != width || indices != [count as i64] {
            return Err(ort::Error::new(
                "table, indices and rows have different sizes",
            ));
        }
        let (table, indices, rows) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let result = call.output(0, &shape)?;
        // A list that has chunks has more than one chunk's rows.
        let most_chunks = count.div_ceil(CHUNK) * 2;
        let counts = call.scratch(height)?;
        let begins = call.scratch(height + 1)?;
        let chunks = call.scratch(height + 1)?;
        let listed = call.scratch(count)?;
        let ordered = call.scratch(count)?;
        let sums = call.scratch(most_chunks * width)?;
        let (of_indices, of_table, columns) = (whole(count)?, whole(height)?, whole(width)?);
        let source = |kernel| Source {
            text: SOURCE,
            definitions: &[("ELEMENT", 0)],
            kernel,
        };
        let each_index = grid([count.div_ceil(THREADS), 1], THREADS);
        call.clear(counts, height)?;
        // SAFETY: the parameters of each kernel; the scratch has a number for each row of the table or each index, and
        // a row of sums for each chunk.
        unsafe {
            call.launch(
                &source("count_indices"),
                each_index,
                &mut arguments![counts, indices, of_indices, of_table],
            )?;
            call.launch(
                &source("begin_lists"),
                grid([1, 1], SCANNING),
                &mut arguments![begins, chunks, counts, of_table],
            )?;
            call.launch(
                &source("list_indices"),
                each_index,
                &mut arguments![listed, counts, begins, indices, of_indices, of_table],
            )?;
            call.launch(
                &source("order_lists"),
                each_index,
                &mut arguments![ordered, listed, begins, indices, of_table],
            )?;
            call.launch(
                &source("sum_chunks"),
                grid([most_chunks, 1], THREADS),
                &mut arguments![sums, ordered, begins, chunks, rows, of_table, columns],
            )?;
            call.launch(
                &source("add_lists"),
                grid([height, 1], THREADS),
                &mut arguments![result, table, sums, ordered, begins, chunks, rows, columns],
            )
        }
    }
}
