//! Sums of gradients over micro-batches, of which the ranks are told, and the sum of their squares: `gradients.cu` as
//! operators.

use std::ffi::c_void;

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::definition::{Call, Definition, Source, arguments, attribute, grid, whole};

const SOURCE: &str = concat!(include_str!("common.cuh"), include_str!("gradients.cu"));
const THREADS: usize = 256;
/// Blocks at most; each goes on where it ends.
const BLOCKS: usize = 2048;
/// The same for sums of squares, of which each block leaves one behind.
const PARTS: usize = 1024;

fn source(kernel: &'static str) -> Source<'static> {
    Source {
        text: SOURCE,
        definitions: &[("ELEMENT", 0)],
        kernel,
    }
}

/// Blocks for so many floats, four to a thread.
fn blocks(count: usize, most: usize) -> usize {
    count.div_ceil(4 * THREADS).clamp(1, most)
}

/// Elements of a tensor of that shape.
fn elements(shape: &[i64]) -> ort::Result<usize> {
    let count = usize::try_from(shape.iter().product::<i64>());
    count.map_err(|_| ort::Error::new("an input has no size"))
}

/// Whether four floats may be loaded at once from each.
fn aligned(pointers: &[*const c_void]) -> i32 {
    i32::from(pointers.iter().all(|p| p.addr().is_multiple_of(16)))
}

/// `AddGradient`.
#[derive(Debug, Clone, Default)]
pub(super) struct AddGradient {
    segment: i64,
}

impl Definition for AddGradient {
    fn name(&self) -> &'static str {
        "AddGradient"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        [TensorElementType::Float32; 2]
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
        let shape = call.shape(0)?;
        let count = elements(&shape)?;
        if elements(&call.shape(1)?)? != count {
            return Err(ort::Error::new("sum and gradient have different sizes"));
        }
        let (so_far, gradient) = (call.input(0)?, call.input(1)?);
        let sum = call.output(0, &shape)?;
        let (length, aligned) = (count as i64, aligned(&[sum, so_far, gradient]));
        let mut arguments = arguments![sum, so_far, gradient, length, aligned];
        let launch = grid([blocks(count, BLOCKS), 1], THREADS);
        // SAFETY: the parameters of `add_gradient`; all three have `count` elements.
        unsafe { call.launch(&source("add_gradient"), launch, &mut arguments)? };
        call.wrote_gradient(self.segment)
    }
}

/// `SumSquares`.
#[derive(Debug, Clone)]
pub(super) struct SumSquares;

impl Definition for SumSquares {
    fn name(&self) -> &'static str {
        "SumSquares"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        vec![OperatorInput::required(TensorElementType::Float32)]
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        vec![TensorElementType::Float32]
    }

    fn read(&mut self, _: &KernelContext<'_>) -> ort::Result<()> {
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let count = elements(&call.shape(0)?)?;
        let (x, total) = (call.input(0)?, call.output(0, &[])?);
        let blocks = blocks(count, PARTS);
        let parts = call.scratch(blocks)?;
        let (length, aligned, of_parts) = (count as i64, aligned(&[x]), whole(blocks)?);
        let mut arguments = arguments![parts, x, length, aligned];
        // SAFETY: the parameters of `sum_squares`; x has `count` elements, the scratch room for each block's sum.
        unsafe {
            call.launch(
                &source("sum_squares"),
                grid([blocks, 1], THREADS),
                &mut arguments,
            )?;
        }
        let mut arguments = arguments![total, parts, of_parts];
        // SAFETY: the parameters of `sum_of_parts`; each block has left a sum behind.
        unsafe {
            call.launch(
                &source("sum_of_parts"),
                grid([1, 1], THREADS),
                &mut arguments,
            )
        }
    }
}
