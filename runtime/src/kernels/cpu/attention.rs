//! Two-stream attention on the processor as an operator of ONNX Runtime, its threads sharing out the heads.

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::head::{Gradients, Head, Inputs};
use super::memory::{Shared, input, output};
use crate::kernels::attention::{Attributes, Pass, Sizes};

/// The operator, in f32.
pub(super) struct Attention {
    pass: Pass,
}

impl Attention {
    pub(super) fn new(pass: Pass) -> Self {
        Self { pass }
    }
}

impl Operator for Attention {
    type Kernel<'attr> = Node;

    fn name(&self) -> &str {
        self.pass.operator()
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        self.pass
            .inputs(TensorElementType::Float32, &[TensorElementType::Uint8])
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let types = self.pass.outputs(TensorElementType::Float32);
        types.into_iter().map(OperatorOutput::required)
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Node> {
        Ok(Node {
            pass: self.pass,
            attributes: Attributes::read(node)?,
        })
    }
}

/// A node of a graph.
pub(super) struct Node {
    pass: Pass,
    attributes: Attributes,
}

impl Kernel for Node {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let first = self.pass.query();
        let sizes = Sizes::read(context, first, self.attributes.width)?;
        let mask = match self.attributes.ratio > 0.0 {
            true => Some(input::<u8>(context, first + 6)?),
            false => None,
        };
        let inputs = Inputs {
            sizes,
            attributes: self.attributes,
            query: input(context, first)?,
            key: input(context, first + 1)?,
            value: input(context, first + 2)?,
            positions: input(context, first + 3)?,
            keep: input(context, first + 4)?,
            bias: input(context, first + 5)?,
            mask,
        };
        inputs.check().map_err(ort::Error::new)?;
        let heads = sizes.batch * sizes.heads;
        match self.pass {
            Pass::Forward => {
                let result = output(context, 0, sizes.query_shape())?;
                let sums = output(context, 1, sizes.row_shape())?;
                context.par_for(heads, 0, |head| {
                    // SAFETY: every head is computed once and has its own part of the outputs.
                    unsafe { Head::new(&inputs, head).forward(&result, &sums) }
                })
            }
            Pass::Backward => {
                let parts = vec![0.0f32; heads * sizes.distances()];
                let parts = std::cell::UnsafeCell::new(parts);
                // SAFETY: nothing else refers to the vector until the threads are done.
                let start = unsafe { (*parts.get()).as_mut_ptr() };
                let gradients = Gradients {
                    d_context: input(context, 0)?,
                    context: input(context, 1)?,
                    sums: input(context, 2)?,
                    query: output(context, 0, sizes.query_shape())?,
                    key: output(context, 1, sizes.key_shape())?,
                    value: output(context, 2, sizes.key_shape())?,
                    bias: Shared(start),
                };
                let d_bias = output(context, 3, sizes.bias_shape())?;
                context.par_for(heads, 0, |head| {
                    // SAFETY: every head is computed once and has its own part of the outputs.
                    unsafe { Head::new(&inputs, head).backward(&gradients) }
                })?;
                let parts = parts.into_inner();
                // SAFETY: the output has that many elements, and the threads are done.
                let d_bias = unsafe {
                    std::slice::from_raw_parts_mut(d_bias.0, sizes.heads * sizes.distances())
                };
                d_bias.fill(0.0);
                for rows in parts.chunks_exact(d_bias.len().max(1)) {
                    d_bias.iter_mut().zip(rows).for_each(|(sum, x)| *sum += x);
                }
                Ok(())
            }
        }
    }
}
