//! Products of rows with a matrix by the kernel of ours, which adds a bias or adds to a gathered gradient by itself.

use super::matching::{Matching, replace};
use crate::ir::{DType, GraphError, Type, ValueId};
use crate::ops::linear::{Linear, LinearGradient};
use crate::ops::matmul::MatMul;
use crate::ops::{Graph, Node, Op};

/// Whether floats are in 16 bits, as the kernel takes them.
fn in_16_bits(ty: &Type) -> bool {
    ty.dtype.is_float() && ty.dtype != DType::F32
}

/// `node` as a product of rows with a matrix.
fn rows_by_matrix(graph: &Graph, node: &Node) -> Option<Linear> {
    let (Op::MatMul(product), [x, matrix]) = (&node.op, &node.inputs[..]) else {
        return None;
    };
    let expected = MatMul {
        trans_b: product.trans_b,
        ..MatMul::default()
    };
    let fits = *product == expected && graph.ty(*matrix).rank() == 2 && in_16_bits(graph.ty(*x));
    fits.then_some(Linear {
        transposed: !product.trans_b,
    })
}

/// Makes products of rows with a matrix [`Linear`], and of the vector that is added to one alone its bias.
pub(crate) fn linear(graph: &mut Graph) -> Result<(), GraphError> {
    let matching = Matching::new(graph);
    let found = graph.nodes.iter().map(|node| {
        if let Some(product) = rows_by_matrix(graph, node) {
            return Some((product.into(), node.inputs.clone()));
        }
        let with_bias = matching.linear(*node.outputs.first()?)?;
        let maker = matching.made_by(with_bias.product)?;
        let product = rows_by_matrix(graph, maker)?;
        let columns = graph.ty(with_bias.product).shape.last();
        if graph.ty(with_bias.bias).shape.first() != columns {
            return None;
        }
        let inputs = [&maker.inputs[..], &[with_bias.bias]].concat();
        Some((product.into(), inputs))
    });
    let found = found.collect();
    // The products that have become part of another node go with the dead code.
    replace(graph, found)
}

/// Lets a weight's gradient add to what is gathered of it, an input of the graph, instead of being rounded, converted
/// and added. It stands where the addition stood, as of
/// [`add_into_products`](super::block_products::add_into_products).
pub(crate) fn add_into_gradients(graph: &mut Graph) -> Result<(), GraphError> {
    let matching = Matching::new(graph);
    let inputs: Vec<ValueId> = graph.inputs().to_vec();
    let found = graph.nodes.iter().map(|node| {
        let segment = match &node.op {
            Op::Add(_) => None,
            Op::AddGradient(op) => Some(op.segment),
            _ => return None,
        };
        let &[gathered, gradient] = &node.inputs[..] else {
            return None;
        };
        let cast = matching.made_by(gradient)?;
        if !inputs.contains(&gathered)
            || !matches!(cast.op, Op::Cast(_))
            || !matching.read_once(gradient)
        {
            return None;
        }
        let product = matching.made_by(cast.inputs[0])?;
        let expected = MatMul {
            trans_a: true,
            ..MatMul::default()
        };
        let &[dy, x] = &product.inputs[..] else {
            return None;
        };
        let fits = product.op == Op::MatMul(expected)
            && matching.read_once(product.outputs[0])
            && [dy, x].map(|v| graph.ty(v).rank()) == [2, 2]
            && in_16_bits(graph.ty(dy));
        fits.then(|| (LinearGradient { segment }.into(), vec![dy, x, gathered]))
    });
    let found = found.collect();
    replace(graph, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Dim, Symbol};
    use crate::passes::dead_code;
    use crate::passes::testing::rewritten;

    fn all(graph: &mut Graph) -> Result<(), GraphError> {
        linear(graph)?;
        add_into_gradients(graph)?;
        dead_code::run(graph)
    }

    fn low<D: Into<Dim>, const N: usize>(shape: [D; N]) -> Type {
        Type::new(DType::BF16, shape.map(Into::into))
    }

    #[test]
    fn a_layer_and_its_gradient_are_one_operator_each() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", low([Symbol::LENGTH.into(), Dim::from(3)]));
        let dy = graph.input("dy", low([Symbol::LENGTH.into(), Dim::from(5)]));
        let weight = graph.input("weight", low([5, 3]));
        let bias = graph.input("bias", low([5]));
        let gathered = graph.input("gathered", Type::f32([5, 3].map(Dim::from)));
        let y = graph.linear(x, weight)?;
        let y = graph.add(y, bias)?;
        let dx = graph.matmul(dy, weight, MatMul::default())?;
        let op = MatMul {
            trans_a: true,
            ..MatMul::default()
        };
        let gradient = graph.matmul(dy, x, op)?;
        let gradient = graph.cast(gradient, DType::F32)?;
        let sum = graph.add(gathered, gradient)?;
        for (name, value) in [("y", y), ("dx", dx), ("sum", sum)] {
            graph.output(name, value);
        }
        let mut read_elsewhere = graph.clone();
        let left = rewritten(&mut graph, all);
        assert_eq!(left, ["Linear", "Linear", "LinearGradient"]);
        read_elsewhere.output("gradient", gradient);
        let left = rewritten(&mut read_elsewhere, all);
        assert_eq!(left, ["Linear", "Linear", "MatMul", "Cast", "Add"]);
        Ok(())
    }

    #[test]
    fn products_in_f32_stay() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([2, 3].map(Dim::from)));
        let weight = graph.input("weight", Type::f32([5, 3].map(Dim::from)));
        let y = graph.linear(x, weight)?;
        graph.output("y", y);
        assert_eq!(rewritten(&mut graph, all), ["MatMul"]);
        Ok(())
    }
}
