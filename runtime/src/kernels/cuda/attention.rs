//! Two-stream attention on NVIDIA GPUs: `two_stream_attention.cu` as an operator of ONNX Runtime.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use ort::memory::{AllocatedBlock, Allocator};
use ort::operator::{
    ComputeContext, Kernel as OrtKernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::memory::{device_allocator, input, optional, output};
use super::module::{Kernel, Launch, Module, compiled};
use crate::kernels::attention::{Attributes, Pass, Sizes};

const SOURCE: &str = include_str!("two_stream_attention.cu");
/// Rows and slots of a tile.
const TILE: usize = 64;
const THREADS: usize = 128;
const KEY_RECORD: usize = 8;
const ROW_RECORD: usize = 16;

/// How queries, keys and values come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// As three tensors.
    Apart,
    /// Side by side in one, `[Q, B, 3·D]`, of all rows.
    Packed,
}

/// The operator for one type of floats.
pub(super) struct Attention {
    pass: Pass,
    layout: Layout,
    element: TensorElementType,
    device_id: i32,
}

impl Attention {
    pub(super) fn new(
        pass: Pass,
        layout: Layout,
        element: TensorElementType,
        device_id: i32,
    ) -> Self {
        Self {
            pass,
            layout,
            element,
            device_id,
        }
    }
}

impl Operator for Attention {
    type Kernel<'attr> = Node;

    fn name(&self) -> &str {
        match (self.layout, self.pass) {
            (Layout::Apart, pass) => pass.operator(),
            (Layout::Packed, Pass::Forward) => "PackedAttention",
            (Layout::Packed, Pass::Backward) => "PackedAttentionGrad",
        }
    }

    fn execution_provider_type(&self) -> Option<&str> {
        Some(super::PROVIDER)
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let mut inputs = self
            .pass
            .inputs(self.element, &[TensorElementType::Uint32; 3]);
        if self.layout == Layout::Packed {
            // Keys and values come with the queries.
            let key = self.pass.query() + 1;
            inputs.drain(key..key + 2);
        }
        inputs
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let mut outputs = self.pass.outputs(self.element);
        if (self.layout, self.pass) == (Layout::Packed, Pass::Backward) {
            outputs.drain(1..3);
        }
        outputs
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Node> {
        let attributes = Attributes::read(node)?;
        if ![32, 64, 96, 128].contains(&attributes.width) {
            return Err(ort::Error::new(format!(
                "the attention kernel knows heads of 32, 64, 96 and 128 columns, not {}: use --attention expanded",
                attributes.width
            )));
        }
        let definitions = vec![
            ("HEAD_DIM", attributes.width),
            (
                "BF16",
                usize::from(self.element == TensorElementType::Bfloat16),
            ),
            ("DROPOUT", usize::from(attributes.ratio > 0.0)),
        ];
        let module = compiled(SOURCE, definitions, self.device_id).map_err(ort::Error::new)?;
        Ok(Node {
            pass: self.pass,
            layout: self.layout,
            attributes,
            device_id: self.device_id,
            module,
            kernels: HashMap::new(),
        })
    }
}

/// A node of a graph.
pub(super) struct Node {
    pass: Pass,
    layout: Layout,
    attributes: Attributes,
    device_id: i32,
    module: Arc<Module>,
    /// By name, with the shared memory that they were given.
    kernels: HashMap<&'static str, (Kernel, usize)>,
}

/// `Sizes` of the source.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct DeviceSizes {
    batch: i32,
    heads: i32,
    length: i32,
    predicted: i32,
    rows: i32,
    positions: i32,
    text_stride: i32,
    scale: f32,
    keep_probability: f32,
    drop_limit: u32,
}

/// One call: what all launches share.
struct Call<'a> {
    node: &'a mut Node,
    sizes: Sizes,
    device: DeviceSizes,
    stream: *mut c_void,
}

impl Call<'_> {
    /// Starts a kernel with `pointers` and, behind them, `further` and the sizes.
    ///
    /// # Safety
    /// The pointers are those that the kernel takes, to memory of the sizes that it expects.
    unsafe fn run(
        &mut self,
        name: &'static str,
        launch: Launch,
        pointers: &[*const c_void],
        further: &[i32],
    ) -> ort::Result<()> {
        let known = self
            .node
            .kernels
            .get(name)
            .filter(|(_, shared)| *shared >= launch.shared);
        let kernel = match known {
            Some((kernel, _)) => *kernel,
            None => {
                let kernel = self
                    .node
                    .module
                    .kernel(name, launch.shared)
                    .map_err(ort::Error::new)?;
                self.node.kernels.insert(name, (kernel, launch.shared));
                kernel
            }
        };
        let mut arguments: Vec<*mut c_void> = pointers
            .iter()
            .map(|pointer| ptr::from_ref(pointer).cast_mut().cast())
            .collect();
        arguments.extend(
            further
                .iter()
                .map(|number| ptr::from_ref(number).cast_mut().cast()),
        );
        if further.is_empty() {
            arguments.push(ptr::from_mut(&mut self.device).cast());
        }
        // SAFETY: the caller's promise.
        unsafe { kernel.launch(launch, self.stream, &mut arguments) }.map_err(ort::Error::new)
    }

    fn key_tiles(&self) -> usize {
        let all = self.sizes.length.div_ceil(TILE);
        match self.sizes.predicted {
            0 => all,
            _ => 2 * all - self.sizes.left() / TILE,
        }
    }

    fn row_tiles(&self) -> usize {
        let (rows, predicted) = (self.sizes.rows, self.sizes.predicted);
        if rows == predicted && predicted > 0 {
            return predicted.div_ceil(TILE);
        }
        self.sizes.length.div_ceil(TILE) + (2 * predicted).div_ceil(TILE)
    }

    fn tile_bytes(&self) -> usize {
        TILE * (self.sizes.width + 8) * 2
    }

    fn grid(&self, tiles: usize) -> [usize; 3] {
        [tiles, self.sizes.heads, self.sizes.batch]
    }
}

/// Where queries, keys and values of `columns` begin that lie side by side, in 16 bits each.
fn thirds_of(packed: *const c_void, columns: usize) -> [*const c_void; 3] {
    [0, 1, 2].map(|third| packed.wrapping_byte_add(2 * third * columns))
}

/// Memory of the GPU until the call is over; what comes after it on the stream may use it again.
fn scratch(allocator: &Allocator, bytes: usize) -> ort::Result<AllocatedBlock<'_>> {
    allocator.alloc::<u8>(bytes)
}

impl OrtKernel for Node {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let first = self.pass.query();
        let layout = self.layout;
        let sizes = match layout {
            Layout::Apart => Sizes::read(context, first, self.attributes.width)?,
            Layout::Packed => Sizes::read_packed(context, first, self.attributes.width)?,
        };
        let whole =
            |n: usize| i32::try_from(n).map_err(|_| ort::Error::new("a tensor is too large"));
        // Columns of the queries, and how many such there are side by side.
        let columns = sizes.heads * sizes.width;
        let (thirds, own) = match layout {
            Layout::Apart => (1, 6),
            Layout::Packed => (3, 4),
        };
        let device = DeviceSizes {
            batch: whole(sizes.batch)?,
            heads: whole(sizes.heads)?,
            length: whole(sizes.length)?,
            predicted: whole(sizes.predicted)?,
            rows: whole(sizes.rows)?,
            positions: whole(sizes.positions)?,
            text_stride: whole(thirds * columns)?,
            scale: self.attributes.scale,
            keep_probability: 1.0 - self.attributes.ratio,
            drop_limit: self.attributes.drop_limit(),
        };
        let stream = context
            .stream()?
            .map_or(ptr::null_mut(), |stream| stream.as_ptr());
        let allocator = device_allocator(context, self.device_id)?;
        let pass = self.pass;
        let mut call = Call {
            node: self,
            sizes,
            device,
            stream,
        };
        let at = |index: usize| input(context, first + index);
        let [query, key, value] = match layout {
            Layout::Apart => [at(0)?, at(1)?, at(2)?],
            Layout::Packed => thirds_of(at(0)?, columns),
        };
        let [positions, keep, bias] = [at(own - 3)?, at(own - 2)?, at(own - 1)?];
        let factor = |index: usize| optional(context, first + own + index);
        let [of_heads, of_rows, of_keys] = [factor(0)?, factor(1)?, factor(2)?];
        if device.drop_limit > 0 && (of_heads.is_null() || of_rows.is_null() || of_keys.is_null()) {
            return Err(ort::Error::new(
                "dropout on the GPU needs its factors as inputs",
            ));
        }

        // −∞, then the bias by distance, in whole 16 bytes.
        let table = (3 * sizes.positions).next_multiple_of(4);
        let count = sizes.batch * sizes.keys() + sizes.heads * table;
        let records = scratch(&allocator, sizes.batch * sizes.keys() * KEY_RECORD)?;
        let bias_of_heads = scratch(&allocator, sizes.heads * table * 4)?;
        let (keys, tables) = (records.as_ptr(), bias_of_heads.as_ptr());
        let launch = Launch {
            grid: [count.div_ceil(THREADS), 1, 1],
            threads: THREADS,
            shared: 0,
        };
        let pointers = [keys, tables, positions, keep, of_keys, bias];
        // SAFETY: the parameters of `prepare`; the scratch has a record for every key and a table for every head.
        unsafe { call.run("prepare", launch, &pointers, &[])? };
        let (tile, table) = (call.tile_bytes(), table * 4);
        match pass {
            Pass::Forward => {
                let out = output(context, 0, sizes.query_shape())?;
                let sums = output(context, 1, sizes.row_shape())?;
                let launch = Launch {
                    grid: call.grid(call.row_tiles()),
                    threads: THREADS,
                    shared: 5 * tile + 2 * TILE * KEY_RECORD + table,
                };
                let pointers = [
                    out, sums, query, key, value, positions, keys, tables, of_heads, of_rows,
                ];
                // SAFETY: the parameters of `forward`, of the shapes that were checked.
                unsafe { call.run("forward", launch, &pointers, &[]) }
            }
            Pass::Backward => {
                let [gradient, out, sums] =
                    [input(context, 0)?, input(context, 1)?, input(context, 2)?];
                let ([d_query, d_key, d_value], d_bias) = match layout {
                    Layout::Apart => (
                        [
                            output(context, 0, sizes.query_shape())?,
                            output(context, 1, sizes.key_shape())?,
                            output(context, 2, sizes.key_shape())?,
                        ],
                        output(context, 3, sizes.bias_shape())?,
                    ),
                    Layout::Packed => {
                        let mut shape = sizes.query_shape();
                        shape[2] *= 3;
                        let packed = output(context, 0, shape)?;
                        let launch = Launch {
                            grid: [sizes.predicted, sizes.batch, 1],
                            threads: THREADS,
                            shared: 0,
                        };
                        // SAFETY: the parameters of `clear_behind_keys`; every row has three parts.
                        unsafe { call.run("clear_behind_keys", launch, &[packed], &[])? };
                        (
                            thirds_of(packed, columns),
                            output(context, 1, sizes.bias_shape())?,
                        )
                    }
                };
                let (heads, distances) = (sizes.batch * sizes.heads, sizes.distances());
                let parts = call.row_tiles() * sizes.batch;
                let rows = scratch(&allocator, heads * sizes.rows * ROW_RECORD)?;
                let largest = scratch(&allocator, heads * 4)?;
                let sums_of_bias = scratch(&allocator, parts * sizes.heads * distances * 4)?;
                let [rows, largest, sums_of_bias] =
                    [&rows, &largest, &sums_of_bias].map(|b| b.as_ptr());
                let launch = Launch {
                    grid: [sizes.heads, sizes.batch, 1],
                    threads: 256,
                    shared: 0,
                };
                let pointers = [
                    rows, largest, out, gradient, sums, value, positions, of_heads, of_rows,
                ];
                // SAFETY: the parameters of `row_records`; the scratch has a record for every row of a head.
                unsafe { call.run("row_records", launch, &pointers, &[])? };
                let launch = Launch {
                    grid: call.grid(call.row_tiles()),
                    threads: THREADS,
                    shared: 6 * tile + 2 * TILE * KEY_RECORD + 2 * table,
                };
                let pointers = [
                    d_query,
                    sums_of_bias,
                    gradient,
                    query,
                    key,
                    value,
                    rows,
                    keys,
                    largest,
                    tables,
                ];
                // SAFETY: the parameters of `backward_query`; the scratch has room for each tile's sums.
                unsafe { call.run("backward_query", launch, &pointers, &[])? };
                let columns_of_bias = sizes.heads * distances;
                let launch = Launch {
                    grid: [columns_of_bias.div_ceil(32), 1, 1],
                    threads: 256,
                    shared: 0,
                };
                let further = [whole(parts)?, whole(columns_of_bias)?];
                // SAFETY: the parameters of `sum_bias`.
                unsafe { call.run("sum_bias", launch, &[d_bias, sums_of_bias], &further)? };
                let launch = Launch {
                    grid: call.grid(call.key_tiles()),
                    threads: THREADS,
                    shared: 6 * tile + 2 * TILE * ROW_RECORD + table,
                };
                let pointers = [
                    d_key, d_value, gradient, query, key, value, rows, keys, tables,
                ];
                // SAFETY: the parameters of `backward_key_value`.
                unsafe { call.run("backward_key_value", launch, &pointers, &[]) }
            }
        }
    }
}
