//! A whole ONNX model from a graph.

use super::emitter::{CONTRIB_DOMAIN, Emit, Emitter, onnx_type};
use super::proto::{
    Dimension, DimensionValue, GraphProto, ModelProto, OperatorSetIdProto, TensorShapeProto,
    TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use super::usage::OperatorUse;
use super::write::write;
use crate::ir::{DType, Dim, Graph, GraphError, Symbol, Type, ValueId, verify};
use mpnet_plan::{KernelId, OWN_DOMAIN, SizeInput};
use std::collections::BTreeMap;

/// Version of the standard operators in every emitted model: the oldest that has what is emitted,
/// known to every ONNX Runtime from 1.17 on.
pub const OPSET: i64 = 18;

/// Version of the ONNX file format; 1.19.2, the last training build, reads up to 10.
pub const IR_VERSION: i64 = 8;

/// Serialises `graph` as an ONNX model whose inputs are `inputs`, in that order; nodes may use the runtime's `kernels`.
///
/// # Errors
/// Where the graph is invalid, or has a node that `check` refuses.
pub fn to_onnx<O: Emit>(
    graph: &Graph<O>,
    name: &str,
    inputs: &[ValueId],
    check: &dyn Fn(&O) -> Result<(), String>,
    kernels: Vec<KernelId>,
) -> Result<Vec<u8>, GraphError> {
    let mut emitter = Emitter::new(graph);
    emitter.kernels = kernels;
    Ok(emit(graph, name, inputs, check, emitter)?.bytes)
}

/// A serialised model and what a caller has to know of it.
pub struct Emitted {
    pub bytes: Vec<u8>,
    /// Inputs behind those of the graph.
    pub sizes: Vec<SizeInput>,
    /// What it needs kernels for, with the number of nodes.
    pub operators: BTreeMap<OperatorUse, usize>,
}

/// [`to_onnx`] with symbolic sizes as further inputs, behind `inputs`.
///
/// # Errors
/// Where the graph is invalid, or has a node that `check` refuses.
pub fn to_onnx_with_sizes<O: Emit>(
    graph: &Graph<O>,
    name: &str,
    inputs: &[ValueId],
    check: &dyn Fn(&O) -> Result<(), String>,
    kernels: Vec<KernelId>,
) -> Result<Emitted, GraphError> {
    let mut emitter = Emitter::new(graph);
    emitter.take_sizes_as_inputs();
    emitter.kernels = kernels;
    emit(graph, name, inputs, check, emitter)
}

fn emit<O: Emit>(
    graph: &Graph<O>,
    name: &str,
    inputs: &[ValueId],
    check: &dyn Fn(&O) -> Result<(), String>,
    emitter: Emitter,
) -> Result<Emitted, GraphError> {
    verify(graph, "the last pass, ready to emit")?;
    for node in graph.nodes() {
        check(&node.op).map_err(|reason| GraphError::Emit {
            op: node.op.name(),
            reason,
        })?;
    }
    let Body { mut emitter, names } = body(graph, emitter)?;
    let info = |name: &str, value: ValueId| value_info(name, graph.ty(value));
    if let Some(node) = emitter.untyped {
        return Err(GraphError::Emit {
            op: "model",
            reason: format!("the type of '{node}' is open"),
        });
    }
    let sizes = emitter.size_inputs.take().unwrap_or_default();
    let proto = GraphProto {
        name: name.to_owned(),
        node: emitter.nodes,
        initializer: emitter.initializers,
        input: inputs
            .iter()
            .map(|v| info(&names[v.0], *v))
            .chain(sizes.iter().map(size_info))
            .collect(),
        output: graph.outputs().iter().map(|(n, v)| info(n, *v)).collect(),
    };
    Ok(Emitted {
        bytes: serialize(proto)?,
        sizes,
        operators: emitter.operators,
    })
}

/// The nodes of a graph, and what its values are called.
pub(super) struct Body {
    pub emitter: Emitter,
    pub names: Vec<String>,
}

/// Emits the nodes of `graph` behind those of `emitter`.
///
/// # Errors
/// Naming the operator that could not be emitted.
pub(super) fn body<O: Emit>(graph: &Graph<O>, mut emitter: Emitter) -> Result<Body, GraphError> {
    let mut names: Vec<String> = (0..graph.values.len())
        .map(|i| {
            graph.values[i]
                .name
                .clone()
                .unwrap_or_else(|| format!("v{i}"))
        })
        .collect();
    // A computed value takes the name of the first output that it is.
    let producers = graph.producers();
    let mut copies = Vec::new();
    for (output, value) in graph.outputs() {
        if producers[value.0].is_some() && names[value.0] == format!("v{}", value.0) {
            names[value.0] = output.clone();
        } else if names[value.0] != *output {
            copies.push((names[value.0].clone(), output.clone()));
            emitter.declare(output.clone(), graph.ty(*value).clone());
        }
    }
    emit_nodes(&mut emitter, graph, &names)?;
    for (value, output) in copies {
        emitter.standard("Identity", &[value], &[output]);
    }
    Ok(Body { emitter, names })
}

/// Emits every node of `graph`, reading values under the names that `names` gives them.
///
/// # Errors
/// Naming the operator that could not be emitted.
fn emit_nodes<O: Emit>(
    emitter: &mut Emitter,
    graph: &Graph<O>,
    names: &[String],
) -> Result<(), GraphError> {
    let mut read = vec![false; graph.values.len()];
    let inputs = graph.nodes().iter().flat_map(|node| &node.inputs);
    for value in inputs.chain(graph.outputs().iter().map(|(_, v)| v)) {
        read[value.0] = true;
    }
    for (value, name) in names.iter().enumerate() {
        emitter.declare(name.clone(), graph.values[value].ty.clone());
    }
    for node in graph.nodes() {
        let list = |values: &[ValueId]| -> Vec<String> {
            values.iter().map(|v| names[v.0].clone()).collect()
        };
        let (first, outputs) = (emitter.nodes.len(), list(&node.outputs));
        node.op
            .emit(emitter, &list(&node.inputs), &outputs)
            .map_err(|reason| GraphError::Emit {
                op: node.op.name(),
                reason,
            })?;
        if node.op.optional_outputs() {
            let unread = node.outputs.iter().zip(&outputs);
            let unread: Vec<_> = unread.filter(|(v, _)| !read[v.0]).collect();
            let emitted = emitter.nodes[first..].iter_mut();
            for output in emitted.flat_map(|node| &mut node.output) {
                if unread.iter().any(|(_, name)| *name == output) {
                    output.clear();
                }
            }
        }
    }
    Ok(())
}

fn size_info(input: &SizeInput) -> ValueInfoProto {
    let shape = (!input.scalar).then(|| Dim::from(input.dims.len()));
    value_info(&input.name, &Type::new(DType::I64, shape))
}

/// Serialises a graph in protobuf form with this crate's versions and domains.
///
/// # Errors
/// Where protobuf cannot encode it (above 2 GiB).
pub(crate) fn serialize(graph: GraphProto) -> Result<Vec<u8>, GraphError> {
    let opset = |domain: &str, version: i64| OperatorSetIdProto {
        domain: domain.to_owned(),
        version,
    };
    let mut domains = vec![opset("", OPSET), opset(CONTRIB_DOMAIN, 1)];
    if graph.node.iter().any(|node| node.domain == OWN_DOMAIN) {
        domains.push(opset(OWN_DOMAIN, 1));
    }
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        opset_import: domains,
        metadata_props: Vec::new(),
    };
    let mut bytes = Vec::new();
    write(model, &mut bytes)?;
    Ok(bytes)
}

/// The declaration of a graph's input or output.
pub(crate) fn value_info(name: &str, ty: &Type) -> ValueInfoProto {
    declared(name, ty, |dim| dim.to_string())
}

/// The same with names for the symbols B and L.
pub(super) fn value_info_named(name: &str, ty: &Type, dims: [&str; 2]) -> ValueInfoProto {
    let [batch, length] = dims;
    let named = |dim: &Dim| {
        if *dim == Dim::from(Symbol::BATCH) {
            batch.to_owned()
        } else if *dim == Dim::from(Symbol::LENGTH) {
            length.to_owned()
        } else {
            dim.to_string()
        }
    };
    declared(name, ty, named)
}

fn declared(name: &str, ty: &Type, dim_name: impl Fn(&Dim) -> String) -> ValueInfoProto {
    let dims = ty.shape.iter().map(|dim| Dimension {
        value: Some(match dim.as_const() {
            Some(n) => DimensionValue::Size(n as i64),
            None => DimensionValue::Name(dim_name(dim)),
        }),
    });
    let tensor = TensorType {
        elem_type: onnx_type(ty.dtype),
        shape: Some(TensorShapeProto {
            dim: dims.collect(),
        }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: TypeProto {
            value: Some(TypeValue::Tensor(tensor)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::conformance::{check, listing};
    use crate::ops::Graph;

    fn emit(graph: &Graph) -> Result<Vec<u8>, GraphError> {
        to_onnx(graph, "test", graph.inputs(), &|_| Ok(()), Vec::new())
    }

    #[test]
    fn a_value_with_two_names_and_a_passed_on_input_are_copied() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([Dim::from(2)]));
        let y = graph.relu(x)?;
        graph.output("first", y);
        graph.output("second", y);
        graph.output("copy", x);
        let model = emit(&graph)?;
        check(&model, &[]);
        let nodes: Vec<String> = listing(&model)
            .lines()
            .filter(|l| l.contains(" = "))
            .map(String::from)
            .collect();
        let expected = [
            "first = Relu(x)",
            "second = Identity(first)",
            "copy = Identity(x)",
        ];
        assert_eq!(nodes, expected);
        Ok(())
    }

    #[test]
    fn sizes_are_read_off_the_inputs() -> Result<(), GraphError> {
        let (l, p) = (Dim::from(Symbol::LENGTH), Dim::from(Symbol::PREDICTED));
        let mut graph = Graph::new();
        graph.input("rows", Type::f32([l.clone() + p.clone() + p.clone()]));
        graph.input("targets", Type::f32([p.clone()]));
        let indices = graph.iota(l * p)?;
        graph.output("indices", indices);
        let model = emit(&graph)?;
        check(&model, &[]);
        insta::assert_snapshot!(listing(&model));
        Ok(())
    }

    #[test]
    fn a_size_is_read_off_its_multiple() -> Result<(), GraphError> {
        let p = Dim::from(Symbol::PREDICTED);
        let mut graph = Graph::new();
        graph.input("x", Type::f32([Dim::from(3) * p.clone()]));
        let indices = graph.iota(p)?;
        graph.output("indices", indices);
        let model = emit(&graph)?;
        check(&model, &[]);
        assert!(listing(&model).contains("Div"), "{}", listing(&model));
        Ok(())
    }

    #[test]
    fn a_size_that_no_input_tells_is_refused() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let p = Dim::from(Symbol::PREDICTED);
        graph.input("x", Type::f32([p.clone() * p.clone()]));
        let indices = graph.iota(p)?;
        graph.output("indices", indices);
        let error = emit(&graph).unwrap_err().to_string();
        assert_eq!(error, "emitting Iota: no input tells the size of P");
        Ok(())
    }

    #[test]
    fn an_invalid_graph_is_refused() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([Dim::from(2)]));
        let y = graph.relu(x)?;
        graph.output("y", y);
        graph.nodes.clear();
        let error = emit(&graph).unwrap_err().to_string();
        let expected = "after the last pass, ready to emit: output 'y' is never computed";
        assert_eq!(error, expected);
        Ok(())
    }
}
