//! The matrix product as an operator of ONNX Runtime: `FusedMatMul` in fixed blocks, to which a third input may be
//! added, which may lie where the result does.

use std::convert::Infallible;

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::{Arithmetic, Product};
use crate::kernels::cpu::memory::{Shared, input, output, shape, tensor};
use crate::kernels::cpu::product::Matrix;
use crate::processor::{Capability, F32Instructions};

/// The operator; its tensors are f32.
pub(in crate::kernels::cpu) struct MatMul;

impl Operator for MatMul {
    type Kernel<'attr> = Node;

    fn name(&self) -> &str {
        "BlockedMatMul"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let float = TensorElementType::Float32;
        [
            OperatorInput::required(float),
            OperatorInput::required(float),
            OperatorInput::optional(float),
        ]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Node> {
        let missing = |name| ort::Error::new(format!("the node has no attribute '{name}'"));
        let flag = |name| -> ort::Result<bool> {
            let value: i64 = node.get(name).ok_or_else(|| missing(name))?;
            Ok(value != 0)
        };
        let operand = |transposed, batch| -> ort::Result<Operand> {
            Ok(Operand {
                transposed: flag(transposed)?,
                batch_inside: flag(batch)?,
            })
        };
        let arithmetic = match flag("bf16")? {
            true => Arithmetic::Bf16(
                Capability::here()
                    .bf16()
                    .map_err(|error| ort::Error::new(error.to_string()))?,
            ),
            false => Arithmetic::F32(F32Instructions::here()),
        };
        Ok(Node {
            arithmetic,
            a: operand("transA", "transBatchA")?,
            b: operand("transB", "transBatchB")?,
            alpha: node.get("alpha").ok_or_else(|| missing("alpha"))?,
        })
    }
}

/// How an operand lies in its tensor.
#[derive(Debug, Clone, Copy, Default)]
struct Operand {
    /// The matrices' rows are columns.
    transposed: bool,
    /// Rows come before the batch's dimensions: `[M, batch…, K]`.
    batch_inside: bool,
}

/// The matrices of an operand.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Matrices {
    batch: Vec<usize>,
    rows: usize,
    columns: usize,
    /// Elements between two rows, two columns and two matrices.
    row: usize,
    column: usize,
    next: usize,
}

impl Operand {
    fn matrices(self, shape: &[usize]) -> Result<Matrices, String> {
        let [outer @ .., width] = shape else {
            return Err("an operand is no matrix".to_owned());
        };
        let (batch, height) = match (outer, self.batch_inside) {
            ([height, batch @ ..], true) => (batch, *height),
            ([batch @ .., height], false) => (batch, *height),
            ([], _) => return Err("an operand is no matrix".to_owned()),
        };
        let count: usize = batch.iter().product();
        let (distance, next) = match self.batch_inside {
            true => (count * width, *width),
            false => (*width, height * width),
        };
        let stored = Matrices {
            batch: batch.to_vec(),
            rows: height,
            columns: *width,
            row: distance,
            column: 1,
            next,
        };
        Ok(match self.transposed {
            true => Matrices {
                rows: stored.columns,
                columns: stored.rows,
                row: 1,
                column: stored.row,
                ..stored
            },
            false => stored,
        })
    }
}

/// A node of a graph.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels::cpu) struct Node {
    arithmetic: Arithmetic,
    a: Operand,
    b: Operand,
    alpha: f32,
}

/// The products of one call.
struct Products {
    /// Of the result.
    shape: Vec<usize>,
    count: usize,
    sizes: [usize; 3],
    a: Matrices,
    b: Matrices,
}

impl Node {
    /// What there is to do for operands of those shapes.
    fn products(&self, a: &[usize], b: &[usize]) -> Result<Products, String> {
        let unsuitable = || format!("a product of {a:?} and {b:?} is not defined");
        let (of_a, mut of_b) = (self.a.matrices(a)?, self.b.matrices(b)?);
        if of_a.columns != of_b.rows {
            return Err(unsuitable());
        }
        let mut shape = of_a.batch.clone();
        shape.extend([of_a.rows, of_b.columns]);
        let mut count: usize = of_a.batch.iter().product();
        let mut sizes = [of_a.rows, of_a.columns, of_b.columns];
        if of_b.batch.is_empty() && !self.a.transposed && !self.a.batch_inside {
            // All rows of the batch lie one behind the other.
            sizes[0] *= count;
            count = 1;
        } else if of_b.batch.is_empty() {
            of_b.next = 0;
        } else if of_a.batch != of_b.batch {
            return Err(unsuitable());
        }
        Ok(Products {
            shape,
            count,
            sizes,
            a: of_a,
            b: of_b,
        })
    }

    /// Computes them, the work shared out by `share`.
    ///
    /// # Safety
    /// The tensors have the shapes that `products` was made of; what is added has that of the result.
    unsafe fn run<E>(
        &self,
        products: &Products,
        [a, b]: [&[f32]; 2],
        added: Option<Shared>,
        c: Shared,
        share: impl Fn(usize, &(dyn Fn(usize) + Sync + Send)) -> Result<(), E>,
    ) -> Result<(), E> {
        let [m, _, n] = products.sizes;
        let matrix = |tensor: &[f32], of: &Matrices| Matrix {
            start: tensor.as_ptr(),
            row: of.row,
            column: of.column,
        };
        let (a, b) = (matrix(a, &products.a), matrix(b, &products.b));
        let product = |index: usize| {
            let of_index = |first: Matrix, next| Matrix {
                start: first.start.wrapping_add(index * next),
                ..first
            };
            Product {
                sizes: products.sizes,
                factor: self.alpha,
                a: of_index(a, products.a.next),
                b: of_index(b, products.b.next),
                added: added.map(|added| Matrix::rows(added.from(index * m * n).0, n)),
                c: c.from(index * m * n),
                c_row: n,
            }
        };
        if products.count == 1 {
            // SAFETY: the caller's promise; the node was made on a processor with the instructions.
            return unsafe { product(0).run(self.arithmetic, share) };
        }
        share(products.count, &|index| {
            let alone = |count, work: &(dyn Fn(usize) + Sync + Send)| {
                (0..count).for_each(work);
                Ok::<_, Infallible>(())
            };
            // SAFETY: as above; every product has its own part of the result.
            let Ok(()) = unsafe { product(index).run(self.arithmetic, alone) };
        })
    }
}

impl Kernel for Node {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let sizes = |index| -> ort::Result<Vec<usize>> {
            let shape = shape(context, index)?.into_iter();
            Ok(shape.map(|n| usize::try_from(n).unwrap_or(0)).collect())
        };
        let (a, b) = (sizes(0)?, sizes(1)?);
        let products = self.products(&a, &b).map_err(ort::Error::new)?;
        let result: Vec<i64> = products.shape.iter().map(|&n| n as i64).collect();
        let operands = [input(context, 0)?, input(context, 1)?];
        let added = match context.num_inputs()? {
            3.. => Some(tensor(context, 2)?),
            _ => None,
        };
        if let Some((_, shape)) = &added
            && *shape != result
        {
            return Err(ort::Error::new(
                "what is added has another shape than the product",
            ));
        }
        let added = added.map(|(added, _)| added);
        let c = output(context, 0, result)?;
        // SAFETY: the shapes are those of the tensors.
        unsafe {
            self.run(&products, operands, added, c, |count, work| {
                // Each is a piece of work of its own, which the next free thread takes.
                context.par_for(count, count, work)
            })
        }
    }
}

#[cfg(test)]
mod tests;
