//! AdamW's update of a segment as an operator of ONNX Runtime, in one pass over its vectors.

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::memory::{chunks, input, output, tensor};
use super::vector::widest;

/// Elements that are copied out before any is written: new vectors may lie where old ones do.
const BLOCK: usize = 512;
/// Parameter, first and second moment, gradient; the scalars come behind.
const VECTORS: usize = 4;
/// Norm, factor of the gradient, step size, decay, correction of the second moment.
const SCALARS: usize = 5;

/// The operator.
pub(super) struct AdamWUpdate;

impl Operator for AdamWUpdate {
    type Kernel<'attr> = Node;

    fn name(&self) -> &str {
        "AdamWUpdate"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        std::iter::repeat_n(TensorElementType::Float32, VECTORS + SCALARS)
            .map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        std::iter::repeat_n(TensorElementType::Float32, VECTORS - 1).map(OperatorOutput::required)
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Node> {
        let attribute = |name| {
            let missing = || ort::Error::new(format!("the node has no attribute '{name}'"));
            node.get(name).ok_or_else(missing)
        };
        Ok(Node {
            beta1: attribute("beta1")?,
            beta2: attribute("beta2")?,
            epsilon: attribute("epsilon")?,
        })
    }
}

/// A node of a graph.
pub(super) struct Node {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
}

/// The numbers of one update.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    /// Of the gradient.
    factor: f32,
    step_size: f32,
    /// Of the parameter.
    decay: f32,
    second_correction: f32,
}

impl Kernel for Node {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let scalar = |index: usize| -> ort::Result<f32> {
            let values = input::<f32>(context, VECTORS + index)?;
            values
                .first()
                .copied()
                .ok_or_else(|| ort::Error::new("a number of the update is empty"))
        };
        let norm = scalar(0)?;
        let numbers = Numbers {
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            factor: scalar(1)?,
            step_size: scalar(2)?,
            decay: scalar(3)?,
            second_correction: scalar(4)?,
        };
        let (parameter, shape) = tensor(context, 0)?;
        let (first, of_first) = tensor(context, 1)?;
        let (second, of_second) = tensor(context, 2)?;
        let (gradient, of_gradient) = tensor(context, 3)?;
        if of_gradient != shape || of_first != shape || of_second != shape {
            return Err(ort::Error::new("the vectors have different sizes"));
        }
        let len = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
        let new = [
            output(context, 0, shape.clone())?,
            output(context, 1, shape.clone())?,
            output(context, 2, shape)?,
        ];
        let old = [parameter, first, second, gradient];
        let finite = norm < f32::INFINITY;
        chunks(context, len, |range| {
            for start in range.clone().step_by(BLOCK) {
                let count = BLOCK.min(range.end - start);
                let mut blocks = [[0.0f32; BLOCK]; VECTORS];
                // SAFETY: all vectors have `len` elements, this range is of one thread, and no slice refers to them.
                unsafe {
                    for (block, vector) in blocks.iter_mut().zip(old) {
                        vector.0.add(start).copy_to(block.as_mut_ptr(), count);
                    }
                }
                let [parameter, first, second, gradient] = &mut blocks;
                if finite {
                    update(parameter, first, second, gradient, numbers);
                }
                // SAFETY: as above; what was read of this range is in the blocks.
                unsafe {
                    for (block, vector) in blocks.iter().zip(new) {
                        vector.0.add(start).copy_from(block.as_ptr(), count);
                    }
                }
            }
        })
    }
}

widest! {
    /// One update of some elements.
    fn update(
        parameter: &mut [f32; BLOCK],
        first: &mut [f32; BLOCK],
        second: &mut [f32; BLOCK],
        gradient: &[f32; BLOCK],
        numbers: Numbers,
    ) {
        let n = numbers;
        for i in 0..BLOCK {
            let g = gradient[i] * n.factor;
            first[i] = first[i] * n.beta1 + g * (1.0 - n.beta1);
            second[i] = second[i] * n.beta2 + g * g * (1.0 - n.beta2);
            let denominator = second[i].sqrt() * n.second_correction + n.epsilon;
            parameter[i] = parameter[i] * n.decay - first[i] / denominator * n.step_size;
        }
    }
}
