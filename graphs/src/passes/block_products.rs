//! Matrix products by the kernel of ours: in f32, or rounding what they read to bf16 where tensors stay f32.
//!
//! The residual stream, softmax, normalization, the loss and all that lies between products are f32 in both, as nothing
//! is gained there by 16 bits on a processor. So are the products inside fused attention's kernel.

use crate::ir::{GraphError, ValueId};
use crate::ops::matmul::{Blocked, MatMul};
use crate::ops::{Graph, Op};

/// Marks every product of f32 tensors.
pub(crate) fn block_products(graph: &mut Graph, in_bf16: bool) -> Result<(), GraphError> {
    let blocked = Blocked {
        in_bf16,
        adds: false,
    };
    for node in &mut graph.nodes {
        if let Op::MatMul(product) = &mut node.op {
            product.blocked.get_or_insert(blocked);
        }
    }
    Ok(())
}

/// Lets a product add what is added to it alone, an input of the graph: a gradient is then gathered where it lies,
/// and nothing of its size is made beside it.
///
/// The product stands where the addition stood, by which ONNX Runtime's order goes: gradients are gathered layer by
/// layer, and what a layer's need is freed with it.
pub(crate) fn add_into_products(graph: &mut Graph) -> Result<(), GraphError> {
    let mut uses = vec![0usize; graph.values.len()];
    let read = graph.nodes.iter().flat_map(|node| &node.inputs);
    let given = graph.outputs.iter().map(|(_, value)| value);
    read.chain(given).for_each(|value| uses[value.0] += 1);
    let mut makers = vec![None; graph.values.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        if let Op::MatMul(product) = &node.op
            && matches!(product.blocked, Some(Blocked { adds: false, .. }))
        {
            makers[node.outputs[0].0] = Some(index);
        }
    }
    let inputs: Vec<ValueId> = graph.inputs().to_vec();
    let mut gone = vec![false; graph.nodes.len()];
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let (Op::Add(_), [gathered, product]) = (&node.op, &node.inputs[..]) else {
            continue;
        };
        let (gathered, product, sum) = (*gathered, *product, node.outputs[0]);
        let Some(maker) = makers[product.0].filter(|_| uses[product.0] == 1) else {
            continue;
        };
        if !inputs.contains(&gathered) || graph.ty(gathered) != graph.ty(sum) {
            continue;
        }
        let mut merged = graph.nodes[maker].clone();
        if let Op::MatMul(MatMul {
            blocked: Some(blocked),
            ..
        }) = &mut merged.op
        {
            blocked.adds = true;
            merged.inputs.push(gathered);
            merged.outputs = vec![sum];
            graph.nodes[index] = merged;
            gone[maker] = true;
        }
    }
    let mut places = gone.into_iter();
    graph.nodes.retain(|_| !places.next().unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Type;
    use crate::passes::testing::rewritten;

    fn both(graph: &mut Graph) -> Result<(), GraphError> {
        block_products(graph, true)?;
        add_into_products(graph)
    }

    #[test]
    fn a_product_adds_to_what_is_gathered_where_nobody_else_reads_it() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([2.into(), 3.into()]));
        let gathered = graph.input("gathered", Type::f32([3.into(), 3.into()]));
        let op = MatMul {
            trans_a: true,
            ..MatMul::default()
        };
        let product = graph.matmul(x, x, op)?;
        let sum = graph.add(gathered, product)?;
        graph.output("sum", sum);
        let mut elsewhere = graph.clone();
        assert_eq!(rewritten(&mut graph, both), ["MatMul"]);
        elsewhere.output("product", product);
        assert_eq!(rewritten(&mut elsewhere, both), ["MatMul", "Add"]);
        Ok(())
    }
}
