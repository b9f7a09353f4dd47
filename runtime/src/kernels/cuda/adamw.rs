//! AdamW's update of a segment: `adamw.cu` as an operator.

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::definition::{Call, Definition, Source, arguments, attribute, grid, rows_and_width};

const SOURCE: &str = concat!(include_str!("common.cuh"), include_str!("adamw.cu"));
const THREADS: usize = 256;
/// Blocks at most; each goes on where it ends.
const BLOCKS: usize = 4096;

/// `AdamWUpdate`.
#[derive(Debug, Clone, Default)]
pub(super) struct AdamW {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
}

impl Definition for AdamW {
    fn name(&self) -> &'static str {
        "AdamWUpdate"
    }

    fn inputs(&self) -> Vec<OperatorInput> {
        [TensorElementType::Float32; 9]
            .map(OperatorInput::required)
            .into()
    }

    fn outputs(&self) -> Vec<TensorElementType> {
        vec![TensorElementType::Float32; 3]
    }

    fn read(&mut self, node: &KernelContext<'_>) -> ort::Result<()> {
        self.beta1 = attribute(node, "beta1")?;
        self.beta2 = attribute(node, "beta2")?;
        self.epsilon = attribute(node, "epsilon")?;
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let shape = call.shape(0)?;
        let (_, count) = rows_and_width(&shape)?;
        let (p, m, v, g) = (
            call.input(0)?,
            call.input(1)?,
            call.input(2)?,
            call.input(3)?,
        );
        let (norm, factor) = (call.input(4)?, call.input(5)?);
        let (step, decay, correction) = (call.input(6)?, call.input(7)?, call.input(8)?);
        let new_p = call.output(0, &shape)?;
        let new_m = call.output(1, &shape)?;
        let new_v = call.output(2, &shape)?;
        let (beta1, beta2, epsilon) = (self.beta1, self.beta2, self.epsilon);
        let elements = count as i64;
        let mut arguments = arguments![
            new_p, new_m, new_v, p, g, m, v, norm, factor, step, decay, correction, elements,
            beta1, beta2, epsilon
        ];
        let source = Source {
            text: SOURCE,
            definitions: &[("ELEMENT", 0)],
            kernel: "adamw",
        };
        let launch = grid([count.div_ceil(4 * THREADS).min(BLOCKS), 1], THREADS);
        // SAFETY: the parameters of `adamw`; the vectors have one length, the numbers one element.
        unsafe { call.launch(&source, launch, &mut arguments) }
    }
}
