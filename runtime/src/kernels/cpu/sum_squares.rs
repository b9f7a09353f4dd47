//! The sum of a tensor's squares as an operator of ONNX Runtime.
//!
//! ONNX Runtime's own adds up a whole tensor in f32, so that of some ten million elements up to a thousandth is lost,
//! and how much depends on the number of threads. Here it is a sum of sums of blocks.

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::memory::{input, output};
use super::vector::widest;

/// Elements of a block.
const BLOCK: usize = 1 << 14;

/// The operator, in f32.
pub(super) struct SumSquares;

impl Operator for SumSquares {
    type Kernel<'attr> = Node;

    fn name(&self) -> &str {
        "SumSquares"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<Node> {
        Ok(Node)
    }
}

/// A node of a graph.
pub(super) struct Node;

impl Kernel for Node {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let x = input::<f32>(context, 0)?;
        let total = sum_squares(x, |count, work| context.par_for(count, 0, work))?;
        let y = output(context, 0, Vec::new())?;
        // SAFETY: the output is one number.
        unsafe { y.part(0..1)[0] = total };
        Ok(())
    }
}

/// The sum of all squares; `share` calls what it is given with every number below the one given.
fn sum_squares<E>(
    x: &[f32],
    share: impl FnOnce(usize, &(dyn Fn(usize) + Sync + Send)) -> Result<(), E>,
) -> Result<f32, E> {
    let mut parts = vec![0.0f32; x.len().div_ceil(BLOCK)];
    let shared = super::memory::Shared(parts.as_mut_ptr());
    share(parts.len(), &|block| {
        let elements = &x[block * BLOCK..((block + 1) * BLOCK).min(x.len())];
        // SAFETY: every block has its own element, which nothing else refers to meanwhile.
        unsafe { shared.part(block..block + 1)[0] = of_block(elements) };
    })?;
    Ok(parts.iter().map(|&part| f64::from(part)).sum::<f64>() as f32)
}

widest! {
    /// The sum of a block's squares, in 64 partial sums.
    fn of_block(x: &[f32]) -> f32 {
        const LANES: usize = 64;
        let mut sums = [0.0f32; LANES];
        let mut whole = x.chunks_exact(LANES);
        for part in &mut whole {
            sums.iter_mut().zip(part).for_each(|(s, x)| *s += x * x);
        }
        sums.iter_mut().zip(whole.remainder()).for_each(|(s, x)| *s += x * x);
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn alone(count: usize, work: &(dyn Fn(usize) + Sync + Send)) -> Result<(), Infallible> {
        (0..count).for_each(work);
        Ok(())
    }

    /// In one sum in f32, 2^24 is where adding 1 changes nothing any more.
    #[test]
    fn nothing_of_a_long_sum_is_lost() {
        for len in [0, 1, 63, BLOCK + 1, (1 << 24) + 4096] {
            let x = vec![1.0f32; len];
            let Ok(sum) = sum_squares(&x, alone);
            assert_eq!(f64::from(sum), len as f64);
        }
        let Ok(sum) = sum_squares(&[1.0, f32::NAN], alone);
        assert!(sum.is_nan());
        let Ok(sum) = sum_squares(&[1e30, 1.0], alone);
        assert_eq!(sum, f32::INFINITY);
    }
}
