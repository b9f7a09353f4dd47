//! What each operator's file says about itself in its tests, and how it is checked.

use super::dropping::Dropping;
use super::operator::{Arithmetic, Kernel, Vjp};
use super::reduce::ReduceSum;
use super::{Op, binary::Mul};
use crate::autodiff::gradients;
use crate::ir::{
    Array, Bindings, DType, Dim, GraphError, Operands, Symbol, Type, ValueId, interpret, verify,
};
use crate::onnx::conformance;
use crate::onnx::model::{to_onnx, to_onnx_with_sizes};
use crate::ops::Graph;
use mpnet_plan::KernelId;
use ndarray::IxDyn;
use proptest::prelude::{prop, prop_compose};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

/// The sizes under which every example runs.
pub(crate) const SIZES: Bindings = Bindings::new([
    (Symbol::BATCH, 2),
    (Symbol::LENGTH, 5),
    (Symbol::PREDICTED, 3),
]);

pub(crate) const B: Symbol = Symbol::BATCH;
pub(crate) const L: Symbol = Symbol::LENGTH;
pub(crate) const P: Symbol = Symbol::PREDICTED;

/// Half the distance of a central difference; its error is this squared.
const STEP: f64 = 1e-5;
/// Largest difference of a derivative from its central difference, relative above 1.
const TOLERANCE: f64 = 1e-7;

/// Everything that one operator's tests declare.
#[derive(Default)]
pub(crate) struct Spec {
    examples: Vec<Example>,
    rejected: Vec<(Op, Vec<Type>, &'static str)>,
    variadic: bool,
}

/// What holds of an operator's derivative.
#[derive(Debug, Clone, Copy)]
enum Derivative {
    /// Every float input has one, equal to its central difference; the others have none.
    Numeric,
    /// No input has one.
    Nothing,
    /// Asking is an error.
    Refused,
    /// Integers, about which nobody asks, or values at which there is none.
    Unchecked,
}

/// An operator on given inputs.
pub(crate) struct Example {
    op: Op,
    inputs: Vec<(Type, Array)>,
    derivative: Option<Derivative>,
    /// Outputs that the loss reads.
    read: Vec<usize>,
    gives: Vec<Array>,
    rng: ChaCha8Rng,
}

impl Spec {
    pub fn example(mut self, example: Example) -> Spec {
        self.examples.push(example);
        self
    }

    /// The operator may take any number of inputs.
    pub fn variadic(mut self) -> Spec {
        self.variadic = true;
        self
    }

    /// The shape rule refuses these types with a reason that contains `reason`.
    pub fn rejects(
        mut self,
        op: impl Into<Op>,
        types: impl IntoIterator<Item = Type>,
        reason: &'static str,
    ) -> Spec {
        let types = types.into_iter().collect();
        self.rejected.push((op.into(), types, reason));
        self
    }

    /// Checks everything declared; `is_own` tells the operator that the file is about.
    pub fn check(self, is_own: fn(&Op) -> bool) {
        assert!(!self.examples.is_empty(), "a spec needs an example");
        for (op, types, reason) in &self.rejected {
            assert!(is_own(op), "{op:?} belongs to another file");
            assert_rejected(op, types, reason);
        }
        for example in self.examples {
            assert!(
                is_own(&example.op),
                "{:?} belongs to another file",
                example.op
            );
            if !self.variadic {
                example.check_arity();
            }
            example.check();
        }
    }
}

impl Example {
    pub fn of(op: impl Into<Op>) -> Example {
        Example::seeded(op, 0)
    }

    /// An example whose random inputs depend on `seed`.
    pub fn seeded(op: impl Into<Op>, seed: u64) -> Example {
        Example {
            op: op.into(),
            inputs: Vec::new(),
            derivative: None,
            read: vec![0],
            gives: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// A random input of magnitudes 0.2 to 1.8: no derivative is taken beside a kink at 0.
    pub fn floats<D: Into<Dim>>(mut self, shape: impl IntoIterator<Item = D>) -> Example {
        let ty = f32(shape);
        let array = Array::from_shape_simple_fn(sizes_of(&ty), || {
            let magnitude = self.rng.random_range(0.2..1.8);
            if self.rng.random() {
                magnitude
            } else {
                -magnitude
            }
        });
        self.inputs.push((ty, array));
        self
    }

    /// Random indices below `bound`.
    pub fn indices<D: Into<Dim>>(
        mut self,
        shape: impl IntoIterator<Item = D>,
        bound: i64,
    ) -> Example {
        let ty = i64(shape);
        let draw = || self.rng.random_range(0..bound) as f64;
        let array = Array::from_shape_simple_fn(sizes_of(&ty), draw);
        self.inputs.push((ty, array));
        self
    }

    /// Random booleans.
    pub fn mask<D: Into<Dim>>(mut self, shape: impl IntoIterator<Item = D>) -> Example {
        let ty = bool(shape);
        let draw = || f64::from(u8::from(self.rng.random::<bool>()));
        let array = Array::from_shape_simple_fn(sizes_of(&ty), draw);
        self.inputs.push((ty, array));
        self
    }

    /// Random bytes 0 and 1.
    pub fn bytes<D: Into<Dim>>(self, shape: impl IntoIterator<Item = D>) -> Example {
        let mut example = self.mask(shape);
        if let Some((ty, _)) = example.inputs.last_mut() {
            ty.dtype = DType::U8;
        }
        example
    }

    /// Random odd factors of dropout's hash.
    pub fn factors<D: Into<Dim>>(mut self, shape: impl IntoIterator<Item = D>) -> Example {
        let ty = typed(DType::U32, shape);
        let draw = || f64::from(self.rng.random::<u32>() | 1);
        let array = Array::from_shape_simple_fn(sizes_of(&ty), draw);
        self.inputs.push((ty, array));
        self
    }

    /// An input of these values.
    pub fn given(mut self, ty: Type, values: &[f64]) -> Example {
        let array = array(&sizes_of(&ty), values);
        self.inputs.push((ty, array));
        self
    }

    /// The next output has this shape and these values.
    pub fn gives(mut self, shape: &[usize], values: &[f64]) -> Example {
        self.gives.push(array(shape, values));
        self
    }

    /// The loss reads these outputs instead of the first.
    pub fn reading(mut self, outputs: &[usize]) -> Example {
        self.read = outputs.to_vec();
        self
    }

    /// Every float input has a derivative.
    pub fn differentiable(mut self) -> Example {
        self.derivative = Some(Derivative::Numeric);
        self
    }

    /// No input has a derivative.
    pub fn not_differentiable(mut self) -> Example {
        self.derivative = Some(Derivative::Nothing);
        self
    }

    /// Differentiating is an error.
    pub fn derivative_refused(mut self) -> Example {
        self.derivative = Some(Derivative::Refused);
        self
    }

    /// Whether there is a derivative is left open.
    pub fn derivative_unchecked(mut self) -> Example {
        self.derivative = Some(Derivative::Unchecked);
        self
    }

    /// The inputs' values.
    pub fn arrays(&self) -> Vec<Array> {
        self.inputs.iter().map(|(_, a)| a.clone()).collect()
    }

    /// The operator's outputs.
    pub fn evaluate(&self) -> Vec<Array> {
        evaluate(&self.op, &self.arrays())
    }

    /// Σ over the outputs of `weights` · output, differentiated by central differences with respect
    /// to input `input`.
    pub fn difference(&self, weights: &[Option<Array>], input: usize) -> Array {
        let arrays = self.arrays();
        let loss = |arrays: &[Array]| -> f64 {
            evaluate(&self.op, arrays)
                .iter()
                .zip(weights)
                .filter_map(|(y, w)| Some((y * w.as_ref()?).sum()))
                .sum()
        };
        let mut out = Array::zeros(arrays[input].raw_dim());
        for (i, slope) in out.iter_mut().enumerate() {
            let moved = |by: f64| {
                let mut arrays = arrays.clone();
                if let Some(x) = arrays[input].iter_mut().nth(i) {
                    *x += by;
                }
                loss(&arrays)
            };
            *slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        }
        out
    }

    /// Checks shapes, values, derivative and emission.
    pub fn check(&self) {
        let (mut graph, inputs, outputs) = self.graph();
        for (i, output) in outputs.iter().enumerate() {
            graph.output(format!("out{i}"), *output);
        }
        verify(&graph, "an operator's example").expect("a valid graph");
        let values = interpret(&graph, &SIZES, &self.feeds()).expect("outputs of inferred shapes");
        for (value, expected) in values.iter().zip(&self.gives) {
            assert_close(value, expected, 1e-12, &format!("{:?}", self.op));
        }
        self.check_expansion(&values);
        self.check_emission(&graph);
        self.check_16_bits();
        self.check_dropping();
        self.check_sizes(&values);
        match self
            .derivative
            .expect("an example says what its derivative is")
        {
            Derivative::Numeric => self.check_gradients(),
            Derivative::Nothing => {
                let grads = self.vjp(&mut graph, &inputs, &outputs);
                assert_eq!(grads, Ok(vec![None; inputs.len()]), "{:?}", self.op);
            }
            Derivative::Unchecked => {}
            Derivative::Refused => {
                let name = self.op.operator().name();
                match self.vjp(&mut graph, &inputs, &outputs) {
                    Err(GraphError::Derivative { op, .. }) => assert_eq!(op, name),
                    other => panic!("{name} has a derivative: {other:?}"),
                }
            }
        }
    }

    /// The example as a graph: its inputs, and one that tells the sizes of all symbols.
    fn graph(&self) -> (Graph, Vec<ValueId>, Vec<ValueId>) {
        let mut graph = Graph::new();
        let differentiable = matches!(self.derivative, Some(Derivative::Numeric));
        let inputs: Vec<ValueId> = self
            .inputs
            .iter()
            .enumerate()
            .map(|(i, (ty, _))| {
                let name = format!("in{i}");
                if differentiable && ty.dtype.is_float() {
                    graph.parameter(name, ty.clone())
                } else {
                    graph.input(name, ty.clone())
                }
            })
            .collect();
        graph.input("sizes", f32([B, L, P]));
        let outputs = graph
            .apply(self.op.clone(), &inputs)
            .expect("the shape rule takes the example");
        (graph, inputs, outputs)
    }

    fn feeds(&self) -> HashMap<String, Array> {
        let sizes = Array::zeros(sizes_of(&f32([B, L, P])));
        let inputs = self.arrays().into_iter().enumerate();
        inputs
            .map(|(i, array)| (format!("in{i}"), array))
            .chain([("sizes".to_owned(), sizes)])
            .collect()
    }

    /// The operator's derivative where every output has a gradient that the loss reads.
    fn vjp(
        &self,
        graph: &mut Graph,
        inputs: &[ValueId],
        outputs: &[ValueId],
    ) -> Result<Vec<Option<ValueId>>, GraphError> {
        let node = graph.nodes()[0].clone();
        assert_eq!(
            (node.inputs.as_slice(), node.outputs.as_slice()),
            (inputs, outputs)
        );
        let mut grads = vec![None; outputs.len()];
        for &i in &self.read {
            let ty = graph.ty(outputs[i]).clone();
            grads[i] = Some(graph.input(format!("grad{i}"), ty));
        }
        let at = Vjp {
            node: &node,
            grads: &grads,
        };
        self.op.operator().vjp(graph, &at)
    }

    /// Compares autodiff's gradients with central differences, and sees none on other inputs.
    fn check_gradients(&self) {
        let (mut graph, inputs, outputs) = self.graph();
        let mut feeds = self.feeds();
        let mut rng = self.rng.clone();
        let values = self.evaluate();
        let mut weights: Vec<Option<Array>> = vec![None; outputs.len()];
        let mut loss = graph.scalar(0.0).expect("a scalar");
        for &i in &self.read {
            let name = format!("weight{i}");
            let ty = graph.ty(outputs[i]).clone();
            let rank = ty.rank();
            let weight = graph.input(&name, ty);
            let draw = || rng.random_range(-1.0..1.0);
            let array = Array::from_shape_simple_fn(values[i].raw_dim(), draw);
            feeds.insert(name, array.clone());
            weights[i] = Some(array);
            let mut term = graph
                .apply1(Mul, &[outputs[i], weight])
                .expect("equal shapes");
            if rank > 0 {
                let sum = ReduceSum {
                    axes: (0..rank).collect(),
                    keep_dims: false,
                };
                term = graph.apply1(sum, &[term]).expect("all dimensions");
            }
            loss = graph.add(loss, term).expect("scalars");
        }
        let parameters = graph.parameters().to_vec();
        assert!(!parameters.is_empty(), "{:?} has no float input", self.op);
        let grads = gradients(&mut graph, loss).expect("a derivative");
        for (parameter, grad) in parameters.iter().zip(grads) {
            let name = graph.label(*parameter);
            graph.output(name, grad.expect("a gradient of every float input"));
        }
        let found = interpret(&graph, &SIZES, &feeds).expect("gradients of their inputs' shapes");
        let floats = (0..inputs.len()).filter(|&i| self.inputs[i].0.dtype.is_float());
        for (input, grad) in floats.zip(found) {
            let expected = self.difference(&weights, input);
            let what = format!("{:?}: gradient of input {input}", self.op);
            assert_close(&grad, &expected, TOLERANCE, &what);
        }
        let (mut graph, inputs, outputs) = self.graph();
        let grads = self
            .vjp(&mut graph, &inputs, &outputs)
            .expect("a derivative");
        for ((ty, _), grad) in self.inputs.iter().zip(grads) {
            assert_eq!(ty.dtype.is_float(), grad.is_some(), "{:?}: {ty}", self.op);
        }
    }

    /// Where the operator has an expansion, sees it give the same values.
    fn check_expansion(&self, expected: &[Array]) {
        let (mut graph, inputs, outputs) = self.graph();
        let expansion = self.op.operator().expand(&mut graph, &inputs);
        let Some(values) = expansion.expect("inputs of the operator") else {
            return;
        };
        for (i, (value, output)) in values.iter().zip(&outputs).enumerate() {
            assert_eq!(graph.ty(*value), graph.ty(*output), "{:?}", self.op);
            graph.output(format!("out{i}"), *value);
        }
        verify(&graph, "an expansion").expect("a valid graph");
        let found = interpret(&graph, &SIZES, &self.feeds()).expect("outputs of inferred shapes");
        assert_eq!(found.len(), expected.len(), "{:?}", self.op);
        for (value, expected) in found.iter().zip(expected) {
            assert_close(value, expected, 1e-9, &format!("expanded {:?}", self.op));
        }
    }

    /// Emits the example for its preferred kernel and for the last one that it can do with, and sees nothing
    /// else than declared.
    fn check_emission(&self, graph: &Graph) {
        let inputs = [graph.inputs(), graph.parameters()].concat();
        let kernels = self.op.operator().kernels();
        let (Some(first), Some(last)) = (kernels.first(), kernels.last()) else {
            panic!("{:?} has no kernel", self.op);
        };
        let any = |_: &Op| Ok(());
        let own = KernelId::ALL.to_vec();
        let preferred = to_onnx_with_sizes(graph, "example", &inputs, &any, own);
        let preferred = preferred.expect("an ONNX model").bytes;
        let plain = to_onnx(graph, "example", &inputs, &any, Vec::new()).expect("an ONNX model");
        for (model, kernel) in [(preferred, first), (plain, last)] {
            conformance::check(&model, &[*kernel]);
            let named = match kernel {
                Kernel::Standard | Kernel::Feature(_) => continue,
                Kernel::Contrib(name) | Kernel::Training(name) => name,
                Kernel::Own(kernel) => kernel.op_type(),
            };
            let nodes = conformance::graph_of(&model).node;
            assert!(nodes.iter().any(|n| n.op_type == named), "{:?}", self.op);
        }
        let refuse = |_: &Op| Err("no kernel".to_owned());
        match to_onnx(graph, "example", &inputs, &refuse, Vec::new()) {
            Err(GraphError::Emit { op, .. }) => assert_eq!(op, self.op.operator().name()),
            other => panic!("{:?}: {other:?}", self.op),
        }
    }

    /// The operator takes its inputs in the element types that it says it takes in 16 bits, and so does
    /// its expansion.
    fn check_16_bits(&self) {
        let arithmetic = self.op.operator().arithmetic();
        let low = |place: usize| match &arithmetic {
            Arithmetic::Full | Arithmetic::Stream => false,
            Arithmetic::PerInput { full, .. } => !full.contains(&place),
            Arithmetic::Low | Arithmetic::Join | Arithmetic::Move | Arithmetic::Follow => true,
        };
        if let Arithmetic::PerInput { full, .. } = &arithmetic {
            let is_float = |place: &usize| self.inputs[*place].0.dtype.is_float();
            assert!(full.iter().all(is_float), "{:?}: {full:?}", self.op);
        }
        let mut graph = Graph::new();
        let inputs: Vec<ValueId> = self
            .inputs
            .iter()
            .enumerate()
            .map(|(place, (ty, _))| {
                let mut ty = ty.clone();
                if ty.dtype.is_float() && low(place) {
                    ty.dtype = DType::BF16;
                }
                graph.input(format!("in{place}"), ty)
            })
            .collect();
        let outputs = graph.apply(self.op.clone(), &inputs);
        let outputs = outputs.unwrap_or_else(|error| panic!("in 16 bits: {error}"));
        let operator = self.op.operator();
        let expansion = operator.expand(&mut graph, &inputs);
        let expansion = expansion.unwrap_or_else(|error| panic!("{:?}: {error}", self.op));
        for (value, output) in expansion.into_iter().flatten().zip(&outputs) {
            assert_eq!(graph.ty(value), graph.ty(*output), "{:?}", self.op);
        }
        let types = |values: &[ValueId]| -> Vec<Type> {
            values.iter().map(|v| graph.ty(*v).clone()).collect()
        };
        let (inputs, outputs) = (types(&inputs), types(&outputs));
        let cost = operator.cost(&Operands::new(&inputs, &outputs, &SIZES));
        let bytes: u64 = [&inputs[..], &outputs].concat().iter().map(bytes_of).sum();
        assert!(cost.bytes <= 4 * bytes, "{:?}: {cost:?}", self.op);
    }

    /// An operator that names no symbolic size among its attributes gives the same whatever the sizes.
    fn check_sizes(&self, expected: &[Array]) {
        let operator = self.op.operator();
        if operator.dims().iter().any(|dim| dim.as_const().is_none()) {
            return;
        }
        let others = [(B, 7), (L, 11), (P, 13)];
        let arrays = self.arrays();
        let arrays: Vec<&Array> = arrays.iter().collect();
        let found = operator.evaluate(&Bindings::new(others), &arrays);
        assert_eq!(found.as_deref(), Ok(expected), "{:?}", self.op);
    }

    /// Where the operator drops elements by a mask, that is where it says the mask is.
    fn check_dropping(&self) {
        let mut op = self.op.clone();
        let Some((dropping, place)) = op.operator_mut().dropping() else {
            return;
        };
        let dtype = match dropping {
            Dropping::Nothing => {
                assert_eq!(self.inputs.len(), place, "{:?}", self.op);
                return;
            }
            Dropping::Mask => DType::U8,
            Dropping::Factors => DType::U32,
        };
        let of_dropping = self.inputs.iter().skip(place).map(|(ty, _)| ty.dtype);
        assert!(of_dropping.clone().count() > 0, "{:?}", self.op);
        assert!(
            of_dropping.clone().all(|found| found == dtype),
            "{:?}",
            self.op
        );
        let before = self.inputs.iter().take(place).map(|(ty, _)| ty.dtype);
        assert!(before.clone().all(|found| found != dtype), "{:?}", self.op);
    }

    /// One input less and one input more are refused.
    fn check_arity(&self) {
        let types: Vec<Type> = self.inputs.iter().map(|(ty, _)| ty.clone()).collect();
        assert_rejected(&self.op, &[types.clone(), vec![f32([1])]].concat(), "");
        if let Some((_, fewer)) = types.split_last() {
            assert_rejected(&self.op, fewer, "");
        }
    }
}

/// What the operators of a graph say runs them.
pub(crate) fn kernels_of(graph: &Graph) -> Vec<Kernel> {
    let nodes = graph.nodes().iter();
    nodes
        .flat_map(|node| node.op.operator().kernels())
        .collect()
}

/// The outputs of `op`.
pub(crate) fn evaluate(op: &Op, inputs: &[Array]) -> Vec<Array> {
    let inputs: Vec<&Array> = inputs.iter().collect();
    op.operator().evaluate(&SIZES, &inputs).expect("outputs")
}

fn assert_rejected(op: &Op, types: &[Type], reason: &str) {
    let mut graph = Graph::new();
    let inputs: Vec<ValueId> = types
        .iter()
        .map(|ty| graph.input("x", ty.clone()))
        .collect();
    let error = match graph.apply(op.clone(), &inputs) {
        Err(error @ GraphError::Shape { .. }) => error.to_string(),
        other => panic!("{op:?} of {types:?}: {other:?}"),
    };
    let name = op.operator().name();
    assert!(error.starts_with(name) && error.contains(reason), "{error}");
    for ty in types {
        assert!(
            error.contains(&ty.to_string()),
            "{error} does not name {ty}"
        );
    }
    assert!(graph.nodes().is_empty(), "a refused node was added");
}

/// Fails unless shapes are equal and every difference is at most `tolerance`, relative above 1.
/// Infinities must be equal; NaN never passes.
pub(crate) fn assert_close(found: &Array, expected: &Array, tolerance: f64, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    for (i, (&x, &y)) in found.iter().zip(expected).enumerate() {
        let close = x == y || (x - y).abs() <= tolerance * y.abs().max(1.0);
        assert!(close, "{what}: element {i} is {x}, expected {y}");
    }
}

/// A tensor of these values.
pub(crate) fn array(shape: &[usize], values: &[f64]) -> Array {
    Array::from_shape_vec(IxDyn(shape), values.to_vec()).expect("as many values as elements")
}

fn bytes_of(ty: &Type) -> u64 {
    (sizes_of(ty).iter().product::<usize>() * ty.dtype.size()) as u64
}

fn sizes_of(ty: &Type) -> Vec<usize> {
    mpnet_plan::shape(&ty.shape, &SIZES).unwrap()
}

fn typed<D: Into<Dim>>(dtype: DType, shape: impl IntoIterator<Item = D>) -> Type {
    Type::new(dtype, shape.into_iter().map(Into::into))
}

pub(crate) fn f32<D: Into<Dim>>(shape: impl IntoIterator<Item = D>) -> Type {
    typed(DType::F32, shape)
}

pub(crate) fn i64<D: Into<Dim>>(shape: impl IntoIterator<Item = D>) -> Type {
    typed(DType::I64, shape)
}

pub(crate) fn u8<D: Into<Dim>>(shape: impl IntoIterator<Item = D>) -> Type {
    typed(DType::U8, shape)
}

pub(crate) fn bool<D: Into<Dim>>(shape: impl IntoIterator<Item = D>) -> Type {
    typed(DType::Bool, shape)
}

/// The shape of a tensor without dimensions.
pub(crate) const SCALAR: [usize; 0] = [];

prop_compose! {
    /// Two shapes that broadcast against each other.
    pub(crate) fn broadcastable()(
        dims in prop::collection::vec((1..4usize, 0..3), 0..4),
        dropped in 0..4usize,
        swap: bool,
    ) -> (Vec<usize>, Vec<usize>) {
        let one_where = |which| dims.iter().map(|&(n, w)| if w == which { 1 } else { n }).collect();
        let (a, b): (Vec<usize>, Vec<usize>) = (one_where(1), one_where(2));
        let b = b[dropped.min(b.len())..].to_vec();
        if swap { (b, a) } else { (a, b) }
    }
}

mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "element 1")]
    fn nan_is_never_close() {
        assert_close(
            &array(&[2], &[1.0, f64::NAN]),
            &array(&[2], &[1.0, f64::NAN]),
            1.0,
            "x",
        );
    }

    #[test]
    #[should_panic(expected = "element 0")]
    fn a_difference_beyond_tolerance_is_not_close() {
        assert_close(&array(&[1], &[2.1]), &array(&[1], &[2.0]), 0.01, "x");
    }
}
