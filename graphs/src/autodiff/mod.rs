//! Reverse-mode differentiation over the IR: derivatives are IR too, and only what leads from a
//! parameter to the loss is built.

mod recompute;

use crate::ir::{Dim, GraphError, Type, ValueId};
use crate::ops::Graph;
use crate::ops::Vjp;
use recompute::Recompute;

/// Appends the gradient of `loss` (a float without dimensions) to `graph` and returns that of each
/// parameter, in order; `None` for a parameter on which the loss does not depend.
///
/// # Errors
/// Where the loss is no float without dimensions or an operator on the way has no derivative.
pub fn gradients(graph: &mut Graph, loss: ValueId) -> Result<Vec<Option<ValueId>>, GraphError> {
    gradients_from_checkpoints(graph, loss, &[])
}

/// [`gradients`] that keep less (gradient checkpointing, Chen et al. 2016, arXiv 1604.06174): what
/// lies between two neighbours of `checkpoints`, given in the order in which they are computed, is
/// computed once more when the gradient of the second is known, from the first. The same numbers in
/// the same operations: the gradients are the same to the bit.
///
/// # Errors
/// As [`gradients`].
pub fn gradients_from_checkpoints(
    graph: &mut Graph,
    loss: ValueId,
    checkpoints: &[ValueId],
) -> Result<Vec<Option<ValueId>>, GraphError> {
    if *graph.ty(loss) != Type::f32([]) {
        return Err(GraphError::Derivative {
            op: "loss",
            reason: format!("it is {}, not one float", graph.ty(loss)),
        });
    }
    let forward = graph.nodes.len();
    // Which values depend on a parameter through floats.
    let mut active = vec![false; graph.values.len()];
    for parameter in &graph.parameters {
        active[parameter.0] = true;
    }
    for node in &graph.nodes {
        if node.inputs.iter().any(|v| active[v.0]) {
            for output in &node.outputs {
                active[output.0] = graph.ty(*output).dtype.is_float();
            }
        }
    }
    let mut grads: Vec<Contributions> = vec![Contributions::default(); graph.values.len()];
    let mut recompute = Recompute::new(graph, checkpoints);
    let one = graph.scalar(1.0)?;
    grads[loss.0].add(graph, one)?;
    for index in (0..forward).rev() {
        let node = graph.nodes[index].clone();
        let outputs = node.outputs.iter().map(|v| grads[v.0].sum(graph));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        if outputs.iter().all(Option::is_none) || !node.inputs.iter().any(|v| active[v.0]) {
            continue;
        }
        // What is computed again waits for what has reached the node, and for the gradients so far of
        // parameters that are used once more before it: a tied embedding's would hold on to the
        // gradient of the logits until the end.
        let known = |graph: &Graph| {
            let used = |p: &ValueId| graph.nodes[..index].iter().any(|n| n.inputs.contains(p));
            let shared = graph.parameters.iter().filter(|p| used(p));
            let so_far = shared.flat_map(|p| grads[p.0].0.iter().map(|(_, grad)| *grad));
            let reached = outputs.iter().flatten().copied();
            reached.chain(so_far).collect()
        };
        let again = recompute.node(graph, index, known)?;
        let at = Vjp {
            node: &again,
            grads: &outputs,
        };
        let operator = node.op.operator();
        let inputs = operator.vjp(graph, &at)?;
        if inputs.len() != node.inputs.len() {
            return Err(GraphError::Derivative {
                op: operator.name(),
                reason: format!(
                    "{} gradients for {} inputs",
                    inputs.len(),
                    node.inputs.len()
                ),
            });
        }
        for (input, grad) in node.inputs.iter().zip(inputs) {
            let Some(grad) = grad.filter(|_| active[input.0]) else {
                continue;
            };
            let grad = undo_broadcast(graph, grad, *input)?;
            grads[input.0].add(graph, grad)?;
        }
    }
    let parameters = graph.parameters.clone();
    parameters.iter().map(|p| grads[p.0].sum(graph)).collect()
}

/// What the uses of one value have added to its gradient so far, summed in pairs of equally many:
/// in 16 bits, the sum over the layers that read the position bias would otherwise lose to rounding
/// what the later layers add.
#[derive(Debug, Clone, Default)]
struct Contributions(Vec<(u32, ValueId)>);

impl Contributions {
    fn add(&mut self, graph: &mut Graph, grad: ValueId) -> Result<(), GraphError> {
        let mut merged = (1, grad);
        while let Some((uses, sum)) = self.0.pop_if(|(uses, _)| *uses == merged.0) {
            merged = (uses + merged.0, graph.add(sum, merged.1)?);
        }
        self.0.push(merged);
        Ok(())
    }

    /// The whole gradient; none where nothing was added.
    fn sum(&mut self, graph: &mut Graph) -> Result<Option<ValueId>, GraphError> {
        let Some((mut uses, mut sum)) = self.0.pop() else {
            return Ok(None);
        };
        while let Some((further, more)) = self.0.pop() {
            (uses, sum) = (uses + further, graph.add(more, sum)?);
        }
        self.0.push((uses, sum));
        Ok(Some(sum))
    }
}

/// Sums a gradient over the dimensions along which its value was repeated.
fn undo_broadcast(graph: &mut Graph, grad: ValueId, value: ValueId) -> Result<ValueId, GraphError> {
    let from = graph.ty(grad).shape.clone();
    let to = graph.ty(value).shape.clone();
    if from == to {
        return Ok(grad);
    }
    let extra = from.len().saturating_sub(to.len());
    let axes: Vec<usize> = (0..from.len())
        .filter(|&i| i < extra || (to[i - extra] != from[i] && to[i - extra] == Dim::from(1)))
        .collect();
    if axes.is_empty() {
        return Err(GraphError::Derivative {
            op: "broadcast",
            reason: format!("{} for {}", graph.ty(grad), graph.ty(value)),
        });
    }
    let sum = graph.reduce_sum(grad, &axes, false)?;
    graph.reshape(sum, to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Array, Bindings, DType, interpret};
    use std::collections::HashMap;

    fn vector(n: usize) -> Type {
        Type::f32([Dim::from(n)])
    }

    #[test]
    fn gradients_of_several_uses_are_summed_and_unused_parameters_have_none() {
        let mut graph = Graph::new();
        let x = graph.parameter("x", vector(2));
        graph.parameter("unused", vector(2));
        let square = graph.mul(x, x).unwrap();
        let sum = graph.add(square, x).unwrap();
        let loss = graph.reduce_sum(sum, &[0], false).unwrap();
        let grads = gradients(&mut graph, loss).unwrap();
        assert_eq!(grads[1], None);
        graph.output("dx", grads[0].unwrap());
        let feed = |values: [f64; 2]| ndarray::arr1(&values).into_dyn();
        let feeds: HashMap<String, Array> = [
            ("x".to_owned(), feed([3.0, -1.0])),
            ("unused".to_owned(), feed([0.0, 0.0])),
        ]
        .into();
        let sizes = Bindings::new([]);
        let outputs = interpret(&graph, &sizes, &feeds).unwrap();
        assert_eq!(outputs, [feed([7.0, -1.0])]); // 2x + 1
    }

    #[test]
    fn many_uses_are_summed_in_pairs() {
        let mut graph = Graph::new();
        let x = graph.parameter("x", vector(2));
        let factors: Vec<ValueId> = (0..8)
            .map(|i| graph.input(format!("f{i}"), vector(2)))
            .collect();
        let mut losses = factors.iter().map(|f| {
            let product = graph.mul(x, *f).unwrap();
            graph.reduce_sum(product, &[0], false).unwrap()
        });
        let first = losses.next().unwrap();
        let rest: Vec<ValueId> = losses.collect();
        let loss = rest
            .into_iter()
            .fold(first, |sum, loss| graph.add(sum, loss).unwrap());
        let grad = gradients(&mut graph, loss).unwrap()[0].unwrap();
        let producers = graph.producers();
        fn depth(graph: &Graph, producers: &[Option<crate::ir::NodeId>], value: ValueId) -> usize {
            match producers[value.0].map(|n| &graph.nodes[n.0]) {
                Some(node) if matches!(node.op, crate::ops::Op::Add(_)) => {
                    let depths = node.inputs.iter().map(|v| depth(graph, producers, *v));
                    1 + depths.max().unwrap_or(0)
                }
                _ => 0,
            }
        }
        assert_eq!(depth(&graph, &producers, grad), 3);
    }

    #[test]
    fn only_what_leads_to_a_parameter_is_differentiated() {
        let mut graph = Graph::new();
        let x = graph.input("x", vector(2));
        let scale = graph.parameter("scale", Type::f32([]));
        // The error function has no derivative here, and none is asked for.
        let curve = graph.erf(x).unwrap();
        let scaled = graph.mul(curve, scale).unwrap();
        let loss = graph.reduce_sum(scaled, &[0], false).unwrap();
        assert!(gradients(&mut graph, loss).unwrap()[0].is_some());
        let curve = graph.erf(scaled).unwrap();
        let loss = graph.reduce_sum(curve, &[0], false).unwrap();
        let error = gradients(&mut graph, loss).unwrap_err();
        assert!(error.to_string().starts_with("differentiating Erf: "));
    }

    #[test]
    fn nothing_flows_through_integers() {
        let mut graph = Graph::new();
        let x = graph.parameter("x", vector(2));
        let best = graph.argmax(x).unwrap();
        let loss = graph.cast(best, DType::F32).unwrap();
        assert_eq!(gradients(&mut graph, loss), Ok(vec![None]));
    }

    #[test]
    fn a_loss_with_dimensions_is_refused() {
        let mut graph = Graph::new();
        let x = graph.parameter("x", vector(2));
        let error = gradients(&mut graph, x).unwrap_err();
        assert_eq!(
            error.to_string(),
            "differentiating loss: it is f32[2], not one float"
        );
    }
}
