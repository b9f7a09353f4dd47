//! Matrix product over the last two dimensions, with the transpositions that kernels absorb.

use super::operator::{Arithmetic, Emitted, Expansion, Kernel, Operator, Vjp, exactly};
use crate::ir::{Array, Bindings, Cost, Dim, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use mpnet_plan::KernelId;
use ndarray::{Axis, Ix2, IxDyn};

/// `alpha · op(A) · op(B)`: batch dimensions equal, or B a plain matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct MatMul {
    pub trans_a: bool,
    pub trans_b: bool,
    /// A is stored `[M, batch…, K]` and read as `[batch…, M, K]`.
    pub trans_batch_a: bool,
    /// Likewise for B.
    pub trans_batch_b: bool,
    pub alpha: f32,
    /// By a kernel of ours, in f32 tensors.
    pub blocked: Option<Blocked>,
}

/// What the kernel of ours does beside the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    /// It rounds operands to bf16; sums are f32.
    pub in_bf16: bool,
    /// It adds a third input, of the result's type.
    pub adds: bool,
}

impl Default for MatMul {
    fn default() -> MatMul {
        MatMul {
            trans_a: false,
            trans_b: false,
            trans_batch_a: false,
            trans_batch_b: false,
            alpha: 1.0,
            blocked: None,
        }
    }
}

impl MatMul {
    fn is_plain(&self) -> bool {
        *self == MatMul::default()
    }

    fn adds(&self) -> bool {
        self.blocked.is_some_and(|blocked| blocked.adds)
    }

    /// The dimension that both operands are summed over.
    pub fn contracted(&self, a: &Type) -> Dim {
        let dims = unbatch(&a.shape, self.trans_batch_a);
        dims[if self.trans_a {
            dims.len() - 2
        } else {
            dims.len() - 1
        }]
        .clone()
    }
}

/// `[M, batch…, K]` as `[batch…, M, K]`.
fn unbatch<T: Clone>(shape: &[T], transposed: bool) -> Vec<T> {
    let mut dims = shape.to_vec();
    if transposed {
        let rank = dims.len();
        dims[..rank - 1].rotate_left(1);
    }
    dims
}

impl Graph {
    /// `op(a) · op(b)`.
    ///
    /// # Errors
    /// Where the shapes do not fit.
    pub fn matmul(&mut self, a: ValueId, b: ValueId, op: MatMul) -> Result<ValueId, GraphError> {
        self.apply1(op, &[a, b])
    }

    /// `x · weightᵀ` for a weight stored `[out, in]`.
    ///
    /// # Errors
    /// Where the shapes do not fit.
    pub fn linear(&mut self, x: ValueId, weight: ValueId) -> Result<ValueId, GraphError> {
        let op = MatMul {
            trans_b: true,
            ..MatMul::default()
        };
        self.matmul(x, weight, op)
    }
}

impl Operator for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn attributes(&self) -> String {
        let mut text = String::new();
        for (on, name) in [
            (self.trans_a, " trans_a"),
            (self.trans_b, " trans_b"),
            (self.trans_batch_a, " trans_batch_a"),
            (self.trans_batch_b, " trans_batch_b"),
        ] {
            if on {
                text.push_str(name);
            }
        }
        if self.alpha != 1.0 {
            text.push_str(&format!(" alpha={}", self.alpha));
        }
        match self.blocked {
            Some(Blocked { in_bf16: true, .. }) => text.push_str(" blocked in_bf16"),
            Some(Blocked { in_bf16: false, .. }) => text.push_str(" blocked"),
            None => {}
        }
        text
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let (inputs, added) = match self.adds() {
            true => (inputs.get(..2).unwrap_or(inputs), inputs.get(2)),
            false => (inputs, None),
        };
        let [a, b] = exactly(inputs)?;
        if a.dtype != b.dtype || !a.dtype.is_float() {
            return Err("takes floats of one type".to_owned());
        }
        let dtype = a.dtype;
        if a.rank() < 2 || b.rank() < 2 {
            return Err("takes matrices".to_owned());
        }
        if (self.trans_batch_a && a.rank() < 3) || (self.trans_batch_b && b.rank() < 3) {
            return Err("has no batch dimension to transpose".to_owned());
        }
        let (a, b) = (
            unbatch(&a.shape, self.trans_batch_a),
            unbatch(&b.shape, self.trans_batch_b),
        );
        let matrix = |s: &[Dim], t: bool| {
            let (x, y) = (s[s.len() - 2].clone(), s[s.len() - 1].clone());
            if t { (y, x) } else { (x, y) }
        };
        let (m, k) = matrix(&a, self.trans_a);
        let (k2, n) = matrix(&b, self.trans_b);
        if k != k2 {
            return Err(format!("contracts {k} with {k2}"));
        }
        let batch = &a[..a.len() - 2];
        let plain_b = b.len() == 2;
        if !(plain_b && (!self.trans_a || batch.is_empty())) && batch != &b[..b.len() - 2] {
            return Err("batch dimensions differ".to_owned());
        }
        let mut shape = batch.to_vec();
        shape.extend([m, n]);
        let result = Type::new(dtype, shape);
        match added {
            Some(added) if **added != result => Err(format!("adds {added} to {result}")),
            None if self.adds() => Err("lacks what it adds".to_owned()),
            Some(_) | None => Ok(vec![result]),
        }
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        if self.trans_batch_a || self.trans_batch_b || self.blocked.is_some() {
            return Err(GraphError::Derivative {
                op: self.name(),
                reason: "differentiate before products are made ready for a kernel".to_owned(),
            });
        }
        let (mut a, b, mut dy) = (at.input(0), at.input(1), at.grad()?);
        let op = |trans_a, trans_b| MatMul {
            trans_a,
            trans_b,
            alpha: self.alpha,
            ..MatMul::default()
        };
        let da = if self.trans_a {
            graph.matmul(b, dy, op(self.trans_b, true))?
        } else {
            graph.matmul(dy, b, op(false, !self.trans_b))?
        };
        // With a plain B every batch is just more rows of one product.
        if graph.ty(b).rank() == 2 && graph.ty(a).rank() > 2 {
            a = graph.flatten_rows(a)?;
            dy = graph.flatten_rows(dy)?;
        }
        let db = if self.trans_b {
            graph.matmul(dy, a, op(true, self.trans_a))?
        } else {
            graph.matmul(a, dy, op(!self.trans_a, false))?
        };
        Ok(vec![Some(da), Some(db)])
    }

    fn kernels(&self) -> Vec<Kernel> {
        if self.blocked.is_some() {
            vec![Kernel::Own(KernelId::BlockedMatMul)]
        } else if self.is_plain() {
            vec![Kernel::Standard]
        } else {
            vec![Kernel::Contrib("FusedMatMul")]
        }
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Low
    }

    fn cost(&self, node: &Operands) -> Cost {
        // A product and a sum for each pair of elements.
        let pairs = node.size(&self.contracted(node.input_type(0)));
        node.flops(2 * node.output(0) * pairs)
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let canonical = |x: &Array, batch: bool, trans: bool| {
            let mut axes: Vec<usize> = unbatch(&(0..x.ndim()).collect::<Vec<_>>(), batch);
            if trans {
                let rank = axes.len();
                axes.swap(rank - 2, rank - 1);
            }
            x.view()
                .permuted_axes(IxDyn(&axes))
                .as_standard_layout()
                .into_owned()
        };
        let a = canonical(inputs[0], self.trans_batch_a, self.trans_a);
        let b = canonical(inputs[1], self.trans_batch_b, self.trans_b);
        let flat = |x: &Array| -> Result<ndarray::Array3<f64>, String> {
            let (r, c) = (x.shape()[x.ndim() - 2], x.shape()[x.ndim() - 1]);
            let n = x.shape()[..x.ndim() - 2].iter().product::<usize>();
            x.clone()
                .into_shape_with_order((n, r, c))
                .map_err(|e| e.to_string())
        };
        let (a3, b3) = (flat(&a)?, flat(&b)?);
        let mut shape = a.shape().to_vec();
        let rank = shape.len();
        shape[rank - 1] = b.shape()[b.ndim() - 1];
        let mut out = ndarray::Array3::zeros((a3.dim().0, a3.dim().1, b3.dim().2));
        for (i, mut o) in out.axis_iter_mut(Axis(0)).enumerate() {
            let lhs = a3.index_axis(Axis(0), i);
            let rhs = b3.index_axis(Axis(0), if b3.dim().0 == 1 { 0 } else { i });
            let lhs = lhs
                .into_dimensionality::<Ix2>()
                .map_err(|e| e.to_string())?;
            o.assign(&(lhs.dot(&rhs) * f64::from(self.alpha)));
        }
        let out = out
            .into_shape_with_order(IxDyn(&shape))
            .map_err(|e| e.to_string())?;
        Ok(vec![match self.adds() {
            true => out + inputs[2],
            false => out,
        }])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let flag = |name, on| (name, Attribute::Int(i64::from(on)));
        let attributes = [
            flag("transA", self.trans_a),
            flag("transB", self.trans_b),
            flag("transBatchA", self.trans_batch_a),
            flag("transBatchB", self.trans_batch_b),
            ("alpha", Attribute::Float(self.alpha)),
        ];
        if let Some(Blocked { in_bf16, .. }) = self.blocked {
            let kernel = KernelId::BlockedMatMul;
            let attributes = attributes.into_iter().chain([flag("bf16", in_bf16)]);
            emitter.own(kernel, &inputs[0], inputs, outputs, attributes);
        } else if self.is_plain() {
            emitter.product(inputs, outputs);
        } else {
            emitter.contrib("FusedMatMul", inputs, outputs, attributes);
        }
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        if self.is_plain() {
            return Ok(None);
        }
        let mut plain = |x: ValueId, batch: bool, trans: bool| {
            let rank = graph.ty(x).rank();
            let mut axes: Vec<usize> = unbatch(&(0..rank).collect::<Vec<_>>(), batch);
            if trans {
                axes.swap(rank - 2, rank - 1);
            }
            match axes.is_sorted() {
                true => Ok(x),
                false => graph.transpose(x, &axes),
            }
        };
        let a = plain(inputs[0], self.trans_batch_a, self.trans_a)?;
        let b = plain(inputs[1], self.trans_batch_b, self.trans_b)?;
        let y = graph.matmul(a, b, MatMul::default())?;
        Ok(Some(vec![graph.scale(y, f64::from(self.alpha))?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    use crate::ops::transpose::Transpose;
    use proptest::prelude::*;

    pub fn matmul() -> Spec {
        let plain = MatMul::default;
        let batch_a = MatMul {
            trans_batch_a: true,
            ..plain()
        };
        Spec::default()
            .example(
                Example::of(MatMul {
                    alpha: 0.5,
                    ..plain()
                })
                .given(f32([2, 2]), &[1.0, 2.0, 3.0, 4.0])
                .given(f32([2, 1]), &[10.0, 100.0])
                .gives(&[2, 1], &[105.0, 215.0])
                .differentiable(),
            )
            .example(
                Example::of(plain())
                    .floats([B, L])
                    .floats([L, P])
                    .differentiable(),
            )
            .example(
                Example::of(batch_a.clone())
                    .floats([3, 2, 4])
                    .floats([2, 4, 5])
                    .derivative_refused(),
            )
            .rejects(plain(), [f32([2, 3]), f32([2, 3])], "contracts 3 with 2")
            .rejects(plain(), [f32([3]), f32([3, 2])], "takes matrices")
            .rejects(plain(), [f32([2, 3]), i64([3, 2])], "takes floats")
            .rejects(
                plain(),
                [f32([4, 2, 3]), f32([5, 3, 2])],
                "batch dimensions differ",
            )
            .rejects(batch_a, [f32([2, 3]), f32([3, 2])], "no batch dimension")
    }

    #[test]
    fn a_batch_transposition_is_one_of_the_operand() {
        let (stored, other) = ([3, 2, 4], [2, 4, 5]);
        let inputs = Example::of(MatMul::default())
            .floats(stored)
            .floats(other)
            .arrays();
        let fused = MatMul {
            trans_batch_a: true,
            ..MatMul::default()
        };
        let perm = vec![1, 0, 2];
        let moved = evaluate(&Transpose { perm }.into(), &inputs[..1]).remove(0);
        let expected = evaluate(&MatMul::default().into(), &[moved, inputs[1].clone()]);
        assert_eq!(evaluate(&fused.into(), &inputs), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_transposition_and_batch_has_its_gradients(
            batch in prop::collection::vec(1..3usize, 0..3),
            [m, k, n] in [1..4usize, 1..4, 1..4],
            [trans_a, trans_b, plain_b]: [bool; 3],
            seed: u64,
        ) {
            let op = MatMul { trans_a, trans_b, alpha: 0.75, ..MatMul::default() };
            let matrix = |rows, columns, swap| if swap { [columns, rows] } else { [rows, columns] };
            let a = [&batch[..], &matrix(m, k, trans_a)].concat();
            // A plain matrix goes with any batch of an operand that is not transposed.
            let shared: &[usize] = if plain_b && !trans_a { &[] } else { &batch };
            let b = [shared, &matrix(k, n, trans_b)].concat();
            Example::seeded(op, seed).floats(a).floats(b).differentiable().check();
        }
    }
}
