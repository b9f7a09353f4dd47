//! Cross entropy of logits that lack their bias, and its derivative: `cross_entropy.cu` as operators.

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::definition::{
    Call, Definition, Source, arguments, attribute, element_number, grid, piece, rows_and_width,
    whole,
};

const SOURCE: &str = concat!(include_str!("common.cuh"), include_str!("cross_entropy.cu"));
const THREADS: usize = 256;
/// Blocks of the derivative at most.
const BLOCKS: usize = 1584;

/// `BiasCrossEntropy` for products of one type.
#[derive(Debug, Clone)]
pub(super) struct CrossEntropy {
    pub element: TensorElementType,
    pub ignored: i64,
}

/// `BiasCrossEntropyGrad` for products of one type.
#[derive(Debug, Clone)]
pub(super) struct CrossEntropyGrad {
    pub element: TensorElementType,
    pub ignored: i64,
}

impl Definition for CrossEntropy {
    fn name(&self) -> &'static str {
        "BiasCrossEntropy"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        use TensorElementType::{Float32, Int64};
        [self.element, Float32, Int64]
            .map(OperatorInput::required)
            .into()
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        use TensorElementType::{Float32, Int64};
        vec![Float32, Int64, Float32]
    }

    fn read(&mut self, node: &KernelContext<'_>) -> ort::Result<()> {
        self.ignored = attribute(node, "ignore_index")?;
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let (rows, classes) = rows_and_width(&call.shape(0)?)?;
        let (x, bias, targets) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let loss = call.output(0, &[])?;
        let best = call.output(1, &[rows as i64])?;
        let sums = call.output(2, &[rows as i64])?;
        let losses = call.scratch(rows)?;
        let definitions = definitions(self.element, classes);
        let source = |kernel| Source {
            text: SOURCE,
            definitions: &definitions,
            kernel,
        };
        let (count, columns, ignored) = (whole(rows)?, whole(classes)?, self.ignored);
        let mut arguments = arguments![best, sums, losses, x, bias, targets, columns, ignored];
        let launch = grid([rows, 1], THREADS);
        // SAFETY: the parameters of `cross_entropy`; every row has its place in outputs and scratch.
        unsafe { call.launch(&source("cross_entropy"), launch, &mut arguments)? };
        let mut arguments = arguments![loss, losses, count];
        let launch = grid([1, 1], THREADS);
        // SAFETY: the parameters of `sum_losses`.
        unsafe { call.launch(&source("sum_losses"), launch, &mut arguments) }
    }
}

impl Definition for CrossEntropyGrad {
    fn name(&self) -> &'static str {
        "BiasCrossEntropyGrad"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        use TensorElementType::{Float32, Int64};
        [Float32, self.element, Float32, Int64, Float32]
            .map(OperatorInput::required)
            .into()
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        vec![self.element, TensorElementType::Float32]
    }

    fn read(&mut self, node: &KernelContext<'_>) -> ort::Result<()> {
        self.ignored = attribute(node, "ignore_index")?;
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let shape = call.shape(1)?;
        let (rows, classes) = rows_and_width(&shape)?;
        let (d_loss, x, bias) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let (targets, sums) = (call.input(3)?, call.input(4)?);
        let dx = call.output(0, &shape)?;
        let d_bias = call.output(1, &[classes as i64])?;
        let definitions = definitions(self.element, classes);
        let across = classes.div_ceil(THREADS * piece(self.element, classes));
        let down = rows.min(BLOCKS.div_ceil(across.max(1)));
        let parts = call.scratch(down * classes)?;
        let source = Source {
            text: SOURCE,
            definitions: &definitions,
            kernel: "cross_entropy_grad",
        };
        let (count, columns, ignored) = (whole(rows)?, whole(classes)?, self.ignored);
        let mut arguments = arguments![
            dx, parts, d_loss, x, bias, targets, sums, count, columns, ignored
        ];
        // SAFETY: the parameters of `cross_entropy_grad`; the scratch has a row of sums for each row of blocks.
        unsafe { call.launch(&source, grid([across, down], THREADS), &mut arguments)? };
        // SAFETY: the rows of blocks have left a sum for each class.
        unsafe { call.sum_parts(&source, &[d_bias], parts, down, classes) }
    }
}

fn definitions(element: TensorElementType, classes: usize) -> [(&'static str, usize); 2] {
    let piece = piece(element, classes);
    [("ELEMENT", element_number(element)), ("PIECE", piece)]
}
