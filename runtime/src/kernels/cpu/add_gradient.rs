//! A gradient added to what has been gathered of it, as an operator of ONNX Runtime.

use std::ptr;

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::{DynTensorValueType, TensorElementType};

use super::Told;
use super::memory::{Shared, chunks, input, output};

/// The operator.
pub(super) struct AddGradient(pub Told);

impl Operator for AddGradient {
    type Kernel<'attr> = Node;

    fn name(&self) -> &str {
        "AddGradient"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [TensorElementType::Float32; 2].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Node> {
        let missing = || ort::Error::new("the node has no attribute 'segment'");
        Ok(Node {
            segment: node.get("segment").ok_or_else(missing)?,
            told: self.0.clone(),
        })
    }
}

/// A node of a graph.
pub(super) struct Node {
    segment: i64,
    told: Told,
}

impl Kernel for Node {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let so_far = context.input(0)?;
        let so_far = so_far.ok_or_else(|| ort::Error::new("an input is missing"))?;
        let shape = so_far.shape().to_vec();
        let len = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
        let so_far = so_far.downcast::<DynTensorValueType>()?.data_ptr();
        let so_far = Shared(so_far.cast_mut().cast());
        let gradient = input::<f32>(context, 1)?;
        if gradient.len() != len {
            return Err(ort::Error::new("sum and gradient have different sizes"));
        }
        let sum = output(context, 0, shape)?;
        chunks(context, len, |range| {
            // The new sum may lie where the old one does: no slice refers to either.
            let (so_far, sum) = (so_far, sum);
            for index in range {
                // SAFETY: all have `len` elements, and this one is of one thread.
                unsafe {
                    let added = so_far.0.add(index).read() + gradient[index];
                    sum.0.add(index).write(added);
                }
            }
        })?;
        self.told.wrote(self.segment, ptr::null_mut())
    }
}
