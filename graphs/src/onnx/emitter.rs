//! Collects the ONNX nodes and initializers of one graph while its operators are emitted.

use super::proto::{AttributeProto, AttributeType, DataLocation, DataType, NodeProto, TensorProto};
use super::usage::OperatorUse;
use crate::ir::{DType, Dim, Graph, Operation, Symbol, Type};
use mpnet_plan::{KernelId, OWN_DOMAIN, SizeInput};
use std::collections::{BTreeMap, HashMap};

/// Domain of ONNX Runtime's own operators.
pub const CONTRIB_DOMAIN: &str = "com.microsoft";

/// One attribute of an ONNX node.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Text(&'static str),
}

impl Attribute {
    pub(super) fn proto(self, name: &str) -> AttributeProto {
        let mut proto = AttributeProto {
            name: name.to_owned(),
            ..AttributeProto::default()
        };
        let kind = match self {
            Attribute::Int(i) => {
                proto.i = Some(i);
                AttributeType::Int
            }
            Attribute::Ints(ints) => {
                proto.ints = ints;
                AttributeType::Ints
            }
            Attribute::Float(f) => {
                proto.f = Some(f);
                AttributeType::Float
            }
            Attribute::Text(text) => {
                proto.s = Some(text.as_bytes().to_vec());
                AttributeType::String
            }
        };
        proto.set_type(kind);
        proto
    }
}

/// The number of an element type in ONNX's `TensorProto.DataType`.
pub fn onnx_type(dtype: DType) -> i32 {
    let of_onnx = match dtype {
        DType::F32 => DataType::Float,
        DType::BF16 => DataType::Bfloat16,
        DType::F16 => DataType::Float16,
        DType::U32 => DataType::Uint32,
        DType::I64 => DataType::Int64,
        DType::U8 => DataType::Uint8,
        DType::Bool => DataType::Bool,
    };
    of_onnx as i32
}

/// The size of a symbol, read off an input when the graph runs.
#[derive(Debug, Clone)]
struct Source {
    input: String,
    axis: usize,
    /// What the input's dimension has beside the symbol.
    rest: Dim,
    /// How often the symbol is in the input's dimension.
    times: usize,
}

/// An operator that can be written as ONNX nodes.
pub trait Emit: Operation {
    /// Writes the nodes that compute `outputs`.
    ///
    /// # Errors
    /// Why they cannot be written.
    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String>;
}

/// Nodes and initializers of one ONNX graph in the making.
#[derive(Debug, Default)]
pub struct Emitter {
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) initializers: Vec<TensorProto>,
    sources: HashMap<Symbol, Source>,
    /// Types of the graph's values.
    types: HashMap<String, Type>,
    /// Element types of all values.
    elements: HashMap<String, DType>,
    /// What the nodes need kernels for, with their number.
    pub(super) operators: BTreeMap<OperatorUse, usize>,
    /// A node that reads or gives a value of unknown type.
    pub(super) untyped: Option<String>,
    /// Emitted size vectors, shared among the nodes that need them.
    shapes: HashMap<Vec<Dim>, String>,
    indices: HashMap<(Vec<i64>, bool), String>,
    temporaries: usize,
    /// The opset of a model for programs that are not ours, in which no size is computed that need not be.
    pub export_opset: Option<i64>,
    /// The tables that are stored in 8 bits, with the names of elements and of scales.
    pub(super) tables: HashMap<String, [String; 2]>,
    /// The right sides of products that are computed in 8 bits, with the names of elements and of scales.
    pub(super) products: HashMap<String, [String; 2]>,
    /// Left sides of such products, in 8 bits, with the scale of each row.
    rounded: HashMap<String, [String; 2]>,
    /// Sizes that are inputs, where they are not computed.
    pub(crate) size_inputs: Option<Vec<SizeInput>>,
    /// The runtime's kernels that the model may use.
    pub(crate) kernels: Vec<KernelId>,
}

impl Emitter {
    /// An emitter that can read every symbol off the inputs of `graph`, where they tell it.
    pub(super) fn new<O: Operation>(graph: &Graph<O>) -> Emitter {
        let mut emitter = Emitter::default();
        // Plain dimensions first, then those from which known symbols can be subtracted, then multiples.
        for multiples in [false, false, true] {
            for input in graph.inputs() {
                for (axis, dim) in graph.ty(*input).shape.iter().enumerate() {
                    emitter.learn(graph.label(*input), axis, dim, multiples);
                }
            }
        }
        emitter
    }

    /// From now on sizes are inputs. A provider for accelerators would leave the nodes that compute
    /// them to the processor.
    pub(super) fn take_sizes_as_inputs(&mut self) {
        self.size_inputs = Some(Vec::new());
    }

    /// Whether the model may use the runtime's kernel, in place of ONNX Runtime's.
    pub fn has(&self, kernel: KernelId) -> bool {
        self.kernels.contains(&kernel)
    }

    /// The input of these sizes, where sizes are inputs.
    fn size_input(&mut self, dims: &[Dim], scalar: bool) -> Option<String> {
        let inputs = self.size_inputs.as_mut()?;
        let known = inputs.iter().find(|i| i.dims == dims && i.scalar == scalar);
        if let Some(known) = known {
            return Some(known.name.clone());
        }
        let name = format!("size.{}", inputs.len());
        inputs.push(SizeInput {
            name: name.clone(),
            dims: dims.to_vec(),
            scalar,
        });
        self.elements.insert(name.clone(), DType::I64);
        Some(name)
    }

    fn learn(&mut self, input: String, axis: usize, dim: &Dim, multiples: bool) {
        let unknown: Vec<Symbol> = dim
            .terms()
            .flat_map(|(symbols, _)| symbols.iter().copied())
            .filter(|s| !self.sources.contains_key(s))
            .collect();
        let [symbol] = unknown[..] else { return };
        let own = dim.terms().find(|(symbols, _)| *symbols == [symbol]);
        let times = own.map_or(1, |(_, coefficient)| coefficient);
        let Some(times) = usize::try_from(times).ok().filter(|&n| n == 1 || multiples) else {
            return;
        };
        let rest = dim.clone() - Dim::from(times) * Dim::from(symbol);
        let simple = rest.terms().all(|(symbols, _)| !symbols.contains(&symbol));
        if simple {
            let source = Source {
                input,
                axis,
                rest,
                times,
            };
            self.sources.insert(symbol, source);
        }
    }

    pub(super) fn declare(&mut self, name: String, ty: Type) {
        self.elements.insert(name.clone(), ty.dtype);
        self.types.insert(name, ty);
    }

    /// A fresh name for a value between the nodes of one operator.
    pub fn temporary(&mut self, dtype: DType) -> String {
        let name = self.unnamed();
        self.elements.insert(name.clone(), dtype);
        name
    }

    fn unnamed(&mut self) -> String {
        self.temporaries += 1;
        format!("t{}", self.temporaries)
    }

    /// The number of dimensions of a value.
    ///
    /// # Errors
    /// Where the value is not one of the graph's.
    pub fn rank(&self, name: &str) -> Result<usize, String> {
        self.types
            .get(name)
            .map(Type::rank)
            .ok_or_else(|| format!("'{name}' has no known type"))
    }

    /// The dimensions of a value.
    ///
    /// # Errors
    /// Where the value is not one of the graph's.
    pub fn shape(&self, name: &str) -> Result<Vec<Dim>, String> {
        self.types
            .get(name)
            .map(|ty| ty.shape.clone())
            .ok_or_else(|| format!("'{name}' has no known type"))
    }

    /// The element type of a value.
    ///
    /// # Errors
    /// Where the value is not known.
    pub fn dtype(&self, name: &str) -> Result<DType, String> {
        self.elements
            .get(name)
            .copied()
            .ok_or_else(|| format!("'{name}' has no known type"))
    }

    /// `x` converted, between the nodes of one operator.
    pub fn convert(&mut self, x: &str, to: DType) -> String {
        let output = self.temporary(to);
        let to = Attribute::Int(i64::from(onnx_type(to)));
        self.standard_with(
            "Cast",
            &[x.to_owned()],
            std::slice::from_ref(&output),
            [("to", to)],
        );
        output
    }

    /// Adds a node; `typed_by` is the value by whose element type its kernel is chosen.
    fn push(
        &mut self,
        (domain, op_type): (&str, &str),
        typed_by: Option<&String>,
        inputs: &[String],
        outputs: &[String],
        attributes: impl IntoIterator<Item = (&'static str, Attribute)>,
    ) {
        let node = NodeProto {
            name: format!("{op_type}_{}", self.nodes.len()),
            domain: domain.to_owned(),
            op_type: op_type.to_owned(),
            input: inputs.to_vec(),
            output: outputs.to_vec(),
            attribute: attributes.into_iter().map(|(n, a)| a.proto(n)).collect(),
        };
        let element = |value: Option<&String>| value.and_then(|v| self.elements.get(v)).copied();
        match (element(typed_by), element(outputs.first())) {
            (Some(dtype), Some(result)) => {
                let sizes = self.size_inputs.iter().flatten();
                let open_sizes = sizes.map(|s| &s.name).any(|name| inputs.contains(name));
                let used = OperatorUse::new(&node, dtype, result, open_sizes);
                *self.operators.entry(used).or_insert(0) += 1;
            }
            _ => self.untyped = Some(node.name.clone()),
        }
        self.nodes.push(node);
    }

    /// A node of the ONNX standard without attributes.
    pub fn standard(&mut self, op_type: &str, inputs: &[String], outputs: &[String]) {
        self.push(("", op_type), inputs.first(), inputs, outputs, []);
    }

    /// A node of the ONNX standard.
    pub fn standard_with(
        &mut self,
        op_type: &str,
        inputs: &[String],
        outputs: &[String],
        attributes: impl IntoIterator<Item = (&'static str, Attribute)>,
    ) {
        self.push(("", op_type), inputs.first(), inputs, outputs, attributes);
    }

    /// A node of ONNX Runtime's own domain; of this project's where the runtime has a kernel of an operator that
    /// ONNX Runtime has in training builds alone.
    pub fn contrib(
        &mut self,
        op_type: &str,
        inputs: &[String],
        outputs: &[String],
        attributes: impl IntoIterator<Item = (&'static str, Attribute)>,
    ) {
        let kind = (CONTRIB_DOMAIN, op_type);
        self.push(kind, inputs.first(), inputs, outputs, attributes);
    }

    /// A node of this project's domain, whose kernel is chosen by the element type of `typed_by`.
    pub fn own(
        &mut self,
        kernel: KernelId,
        typed_by: &String,
        inputs: &[String],
        outputs: &[String],
        attributes: impl IntoIterator<Item = (&'static str, Attribute)>,
    ) {
        let kind = (OWN_DOMAIN, kernel.op_type());
        self.push(kind, Some(typed_by), inputs, outputs, attributes);
    }

    /// `outputs`: of two inputs the first where a condition holds, else the second.
    pub fn select(&mut self, inputs: &[String], outputs: &[String]) {
        self.push(("", "Where"), inputs.get(1), inputs, outputs, []);
    }

    /// A node of the ONNX standard between the nodes of one operator; returns its output, of the first
    /// input's element type.
    pub fn apply(&mut self, op_type: &str, inputs: &[String]) -> String {
        let output = self.like(inputs.first());
        self.standard(op_type, inputs, std::slice::from_ref(&output));
        output
    }

    /// [`Emitter::apply`] for an output of another element type.
    pub fn apply_as(&mut self, op_type: &str, inputs: &[String], dtype: DType) -> String {
        let output = self.temporary(dtype);
        self.standard(op_type, inputs, std::slice::from_ref(&output));
        output
    }

    /// A fresh name for a value of the element type of another.
    fn like(&mut self, value: Option<&String>) -> String {
        match value.and_then(|value| self.elements.get(value)) {
            Some(dtype) => self.temporary(*dtype),
            None => self.unnamed(),
        }
    }

    /// `x` with a dimension of size 1 inserted at `axis`.
    pub fn unsqueeze(&mut self, x: &str, axis: i64) -> String {
        let axes = self.indices(&[axis]);
        self.apply("Unsqueeze", &[x.to_owned(), axes])
    }

    /// A reduction over all dimensions to a value without any, by `op_type` with its inputs.
    pub fn total(&mut self, op_type: &str, inputs: &[String], outputs: &[String]) {
        let keep = |keep| [("keepdims", Attribute::Int(keep))];
        if self.size_inputs.is_none() {
            return self.standard_with(op_type, inputs, outputs, keep(0));
        }
        // OpenVINO leaves nodes without dimensions to the processor, but for a few: this is one.
        let kept = self.like(inputs.first());
        self.standard_with(op_type, inputs, std::slice::from_ref(&kept), keep(1));
        self.standard("Squeeze", &[kept], outputs);
    }

    /// `x` of one element without its dimensions.
    pub fn scalar(&mut self, x: &str, outputs: &[String]) {
        self.standard("Squeeze", &[x.to_owned()], outputs);
    }

    /// The rows `indices` of `table`; of one in 8 bits only these become floats.
    pub fn gather(&mut self, table: &str, indices: &str, outputs: &[String]) {
        let indices = indices.to_owned();
        let Some([elements, scales]) = self.tables.get(table).cloned() else {
            return self.standard("Gather", &[table.to_owned(), indices], outputs);
        };
        // They have a sign, for which the graph has no type; nobody asks for it in an export.
        let rows = self.apply_as("Gather", &[elements, indices.clone()], DType::U8);
        let rows = self.convert(&rows, DType::F32);
        let scales = self.apply_as("Gather", &[scales, indices], DType::F32);
        self.standard("Mul", &[rows, scales], outputs);
    }

    /// The product of two matrices; by a right side that is kept for that, one of 8-bit integers.
    pub fn product(&mut self, inputs: &[String], outputs: &[String]) {
        let Some([elements, scales]) = self.products.get(&inputs[1]).cloned() else {
            return self.standard("MatMul", inputs, outputs);
        };
        let [left, of_rows] = self.rounded(&inputs[0]);
        let zero = self.middle();
        let inputs = [left, elements, zero];
        // The sums are i32, for which the graph has no type; nobody asks for it in an export.
        let sums = self.apply_as("MatMulInteger", &inputs, DType::I64);
        let sums = self.convert(&sums, DType::F32);
        let sums = self.apply("Mul", &[sums, of_rows]);
        self.standard("Mul", &[sums, scales], outputs);
    }

    /// `x` in u8 around 128, and the scale of each row: one for the whole would be that of the few large
    /// elements which the encoder's states have.
    fn rounded(&mut self, x: &str) -> [String; 2] {
        if let Some(known) = self.rounded.get(x) {
            return known.clone();
        }
        let size = self.apply("Abs", &[x.to_owned()]);
        let largest = self.temporary(DType::F32);
        let keep = ("keepdims", Attribute::Int(1));
        let result = std::slice::from_ref(&largest);
        // From opset 18 on the axes are an input.
        if self.export_opset >= Some(18) {
            let axes = self.indices(&[-1]);
            self.standard_with("ReduceMax", &[size, axes], result, [keep]);
        } else {
            let axes = ("axes", Attribute::Ints(vec![-1]));
            self.standard_with("ReduceMax", &[size], result, [axes, keep]);
        }
        let [part, least, middle] =
            [1.0 / 127.0, f32::MIN_POSITIVE, 128.0].map(|value| self.shared_float(value));
        let scale = self.apply("Mul", &[largest, part]);
        // A row of zeros stays one.
        let scale = self.apply("Add", &[scale, least]);
        let whole = self.apply("Div", &[x.to_owned(), scale.clone()]);
        let whole = self.apply("Round", &[whole]);
        let whole = self.apply("Add", &[whole, middle]);
        let whole = self.convert(&whole, DType::U8);
        let rounded = [whole, scale];
        self.rounded.insert(x.to_owned(), rounded.clone());
        rounded
    }

    /// 128 in u8.
    fn middle(&mut self) -> String {
        let name = "eight_bits.middle";
        if !self.elements.contains_key(name) {
            self.initializer(name, DType::U8, &[], &[128.0]);
        }
        name.to_owned()
    }

    /// A constant float without dimensions, one for all who ask for it.
    fn shared_float(&mut self, value: f32) -> String {
        let name = format!("constant.{value:e}");
        if !self.elements.contains_key(&name) {
            self.initializer(&name, DType::F32, &[], &[f64::from(value)]);
        }
        name
    }

    /// A constant tensor under a given name.
    pub fn initializer(&mut self, name: &str, dtype: DType, shape: &[usize], values: &[f64]) {
        let raw_data = match dtype {
            DType::F32 => values
                .iter()
                .flat_map(|&v| (v as f32).to_le_bytes())
                .collect(),
            DType::BF16 => values
                .iter()
                .flat_map(|&v| half::bf16::from_f64(v).to_le_bytes())
                .collect(),
            DType::F16 => values
                .iter()
                .flat_map(|&v| half::f16::from_f64(v).to_le_bytes())
                .collect(),
            DType::U32 => values
                .iter()
                .flat_map(|&v| (v as u32).to_le_bytes())
                .collect(),
            DType::I64 => values
                .iter()
                .flat_map(|&v| (v as i64).to_le_bytes())
                .collect(),
            DType::U8 => values.iter().map(|&v| v as u8).collect(),
            DType::Bool => values.iter().map(|&v| u8::from(v != 0.0)).collect(),
        };
        self.elements.insert(name.to_owned(), dtype);
        self.initializers.push(TensorProto {
            name: name.to_owned(),
            data_type: onnx_type(dtype),
            dims: shape.iter().map(|&d| d as i64).collect(),
            raw_data: Some(raw_data),
            external_data: Vec::new(),
            data_location: DataLocation::Default as i32,
        });
    }

    fn index_constant(&mut self, values: &[i64], scalar: bool) -> String {
        let key = (values.to_vec(), scalar);
        if let Some(name) = self.indices.get(&key) {
            return name.clone();
        }
        let name = self.temporary(DType::I64);
        let floats: Vec<f64> = values.iter().map(|&v| v as f64).collect();
        let shape: &[usize] = if scalar { &[] } else { &[values.len()] };
        self.initializer(&name, DType::I64, shape, &floats);
        self.indices.insert(key, name.clone());
        name
    }

    /// A constant i64 vector.
    pub fn indices(&mut self, values: &[i64]) -> String {
        self.index_constant(values, false)
    }

    /// A constant i64 without dimensions.
    pub fn index_scalar(&mut self, value: i64) -> String {
        self.index_constant(&[value], true)
    }

    /// A constant float without dimensions.
    pub fn float_scalar(&mut self, value: f32) -> String {
        let name = self.temporary(DType::F32);
        self.initializer(&name, DType::F32, &[], &[f64::from(value)]);
        name
    }

    /// Sizes as an i64 vector, computed from the inputs' shapes where they are symbolic.
    ///
    /// # Errors
    /// Where no input tells a symbol.
    pub fn dims(&mut self, dims: &[Dim]) -> Result<String, String> {
        let constant: Option<Vec<i64>> = dims
            .iter()
            .map(|d| d.as_const().map(|n| n as i64))
            .collect();
        if let Some(values) = constant {
            return Ok(self.indices(&values));
        }
        if let Some(name) = self.size_input(dims, false) {
            return Ok(name);
        }
        if let Some(name) = self.shapes.get(dims) {
            return Ok(name.clone());
        }
        let name = match dims {
            [dim] => self.size(dim)?,
            _ => {
                let parts = dims
                    .iter()
                    .map(|d| self.dims(std::slice::from_ref(d)))
                    .collect::<Result<Vec<_>, _>>()?;
                let name = self.temporary(DType::I64);
                let axis = [("axis", Attribute::Int(0))];
                self.standard_with("Concat", &parts, std::slice::from_ref(&name), axis);
                name
            }
        };
        self.shapes.insert(dims.to_vec(), name.clone());
        Ok(name)
    }

    /// One size as an i64 without dimensions.
    ///
    /// # Errors
    /// As [`Emitter::dims`].
    pub fn dim_scalar(&mut self, dim: &Dim) -> Result<String, String> {
        if let Some(n) = dim.as_const() {
            return Ok(self.index_scalar(n as i64));
        }
        if let Some(name) = self.size_input(std::slice::from_ref(dim), true) {
            return Ok(name);
        }
        let vector = self.dims(std::slice::from_ref(dim))?;
        Ok(self.apply("Squeeze", &[vector]))
    }

    /// `x` as a tensor of `shape`, in the form that asks for the fewest sizes while it runs.
    ///
    /// # Errors
    /// As [`Emitter::dims`].
    pub fn reshape(&mut self, x: &str, shape: &[Dim], outputs: &[String]) -> Result<(), String> {
        let from = self.shape(x)?;
        if let Some(axes) = inserted_ones(&from, shape).filter(|_| self.export_opset.is_some()) {
            let axes = self.indices(&axes);
            self.standard("Unsqueeze", &[x.to_owned(), axes], outputs);
            return Ok(());
        }
        let target = self.reshape_target(&from, shape)?;
        self.standard("Reshape", &[x.to_owned(), target], outputs);
        Ok(())
    }

    /// The second input of a Reshape: -1 stands for one symbolic dimension, 0 in a plain model for one that
    /// stays in its place.
    fn reshape_target(&mut self, from: &[Dim], shape: &[Dim]) -> Result<String, String> {
        let symbolic = shape.iter().filter(|d| d.as_const().is_none()).count();
        let stays =
            |(axis, dim): (usize, &Dim)| dim.as_const().is_none() && from.get(axis) == Some(dim);
        let staying = shape
            .iter()
            .enumerate()
            .filter(|place| stays(*place))
            .count();
        if self.export_opset.is_some() && symbolic > 1 && symbolic - staying <= 1 {
            let values: Vec<i64> = shape
                .iter()
                .enumerate()
                .map(|(axis, dim)| match dim.as_const() {
                    Some(n) => n as i64,
                    None if stays((axis, dim)) => 0,
                    None => -1,
                })
                .collect();
            return Ok(self.indices(&values));
        }
        if symbolic == 1 {
            let values: Vec<i64> = shape
                .iter()
                .map(|d| d.as_const().map_or(-1, |n| n as i64))
                .collect();
            return Ok(self.indices(&values));
        }
        self.dims(shape)
    }

    /// One symbolic size, i64[1]: the sum of its terms.
    fn size(&mut self, dim: &Dim) -> Result<String, String> {
        let terms: Vec<(Vec<Symbol>, i64)> = dim.terms().map(|(s, c)| (s.to_vec(), c)).collect();
        let mut sum: Option<String> = None;
        for (symbols, coefficient) in terms {
            let mut term =
                (coefficient != 1 || symbols.is_empty()).then(|| self.indices(&[coefficient]));
            for symbol in symbols {
                let size = self.symbol(symbol)?;
                term = Some(match term {
                    Some(term) => self.apply("Mul", &[term, size]),
                    None => size,
                });
            }
            sum = match (sum, term) {
                (Some(sum), Some(term)) => Some(self.apply("Add", &[sum, term])),
                (sum, term) => sum.or(term),
            };
        }
        sum.ok_or_else(|| "an empty size".to_owned())
    }

    fn symbol(&mut self, symbol: Symbol) -> Result<String, String> {
        let key = vec![Dim::from(symbol)];
        if let Some(name) = self.shapes.get(&key) {
            return Ok(name.clone());
        }
        let source = self
            .sources
            .get(&symbol)
            .cloned()
            .ok_or_else(|| format!("no input tells the size of {}", symbol.letters()))?;
        let whole = self.temporary(DType::I64);
        self.standard_with(
            "Shape",
            &[source.input],
            std::slice::from_ref(&whole),
            [
                ("start", Attribute::Int(source.axis as i64)),
                ("end", Attribute::Int(source.axis as i64 + 1)),
            ],
        );
        let name = if source.rest.is(0) {
            whole
        } else {
            let rest = self.dims(std::slice::from_ref(&source.rest))?;
            self.apply("Sub", &[whole, rest])
        };
        let name = if source.times == 1 {
            name
        } else {
            let times = self.indices(&[source.times as i64]);
            self.apply("Div", &[name, times])
        };
        self.shapes.insert(key, name.clone());
        Ok(name)
    }
}

/// The axes at which dimensions of size 1 have to be inserted into `from` to get `to`, if that is all.
fn inserted_ones(from: &[Dim], to: &[Dim]) -> Option<Vec<i64>> {
    let mut axes = Vec::new();
    let mut rest = from.iter().peekable();
    for (axis, dim) in to.iter().enumerate() {
        if rest.peek() == Some(&dim) {
            rest.next();
        } else if dim.is(1) {
            axes.push(axis as i64);
        } else {
            return None;
        }
    }
    (rest.next().is_none() && !axes.is_empty()).then_some(axes)
}
