//! Two-stream attention on NVIDIA GPUs as an operator of ONNX Runtime: by tensor cores in 16 bits
//! (`tensor_cores.cu`), else in f32 throughout (`f32.cu`).

mod tiling;

use std::ffi::c_void;

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::definition::{
    Call, Definition, Source, arguments, element_number, grid, scratch, whole,
};
use super::module::{Launch, most_shared_memory};
use crate::kernels::attention::{Attributes, Pass, Sizes};
use tiling::Tiling;

const TENSOR_CORES: &str = concat!(
    include_str!("../common.cuh"),
    include_str!("two_stream.cuh"),
    include_str!("tensor_cores.cu")
);
const F32: &str = concat!(
    include_str!("../common.cuh"),
    include_str!("two_stream.cuh"),
    include_str!("f32.cu")
);
const THREADS: usize = 128;
/// Floats of a `KeyRecord` and of a `RowRecord` of the sources.
const KEY_RECORD: usize = 2;
const ROW_RECORD: usize = 4;

/// How queries, keys and values come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// As three tensors.
    Apart,
    /// Side by side in one, `[Q, B, 3·D]`, of all rows.
    Packed,
}

/// The operator for one type of floats.
#[derive(Debug, Clone)]
pub(super) struct Attention {
    pub pass: Pass,
    pub layout: Layout,
    pub element: TensorElementType,
    pub attributes: Attributes,
}

/// `Sizes` of the sources.
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

/// What the kernels of both passes take.
#[derive(Debug, Clone, Copy)]
struct Shared {
    tiling: Tiling,
    device: DeviceSizes,
    query: *const c_void,
    key: *const c_void,
    value: *const c_void,
    positions: *const c_void,
    /// Dropout's factors.
    of_heads: *const c_void,
    of_rows: *const c_void,
    /// Records of the keys, and the heads' tables of the bias: what `prepare` has made.
    keys: *const c_void,
    tables: *const c_void,
}

impl Attention {
    /// The kernel `name`, compiled for the node.
    fn start(
        &self,
        call: &mut Call<'_>,
        tiling: Tiling,
        name: &'static str,
        launch: Launch,
        arguments: &mut [*mut c_void],
    ) -> ort::Result<()> {
        let definitions = self.definitions(tiling);
        let source = self.source(&definitions, name);
        // SAFETY: every caller gives the parameters that `name` has in the sources, and memory of the shapes that
        // were checked.
        unsafe { call.launch(&source, launch, arguments) }
    }

    fn definitions(&self, tiling: Tiling) -> [(&'static str, usize); 4] {
        [
            ("ELEMENT", element_number(self.element)),
            ("HEAD_DIM", self.attributes.width),
            ("DROPOUT", usize::from(self.attributes.ratio > 0.0)),
            ("TILE", tiling.tile),
        ]
    }

    fn source<'a>(
        &self,
        definitions: &'a [(&'static str, usize)],
        kernel: &'static str,
    ) -> Source<'a> {
        let text = match element_number(self.element) {
            0 => F32,
            _ => TENSOR_CORES,
        };
        Source {
            text,
            definitions,
            kernel,
        }
    }

    fn forward(&self, call: &mut Call<'_>, shared: &Shared) -> ort::Result<()> {
        let (tiling, sizes) = (shared.tiling, shared.tiling.sizes);
        let out = call.output(0, &sizes.query_shape())?;
        let sums = call.output(1, &sizes.row_shape())?;
        self.start(
            call,
            tiling,
            "forward",
            tiling.launch(tiling.row_tiles(), tiling.forward_memory()),
            &mut arguments![
                out,
                sums,
                shared.query,
                shared.key,
                shared.value,
                shared.positions,
                shared.keys,
                shared.tables,
                shared.of_heads,
                shared.of_rows,
                shared.device
            ],
        )
    }

    fn backward(&self, call: &mut Call<'_>, shared: &Shared) -> ort::Result<()> {
        let (tiling, sizes) = (shared.tiling, shared.tiling.sizes);
        let allocator = call.allocator()?;
        let [gradient, out, sums] = [call.input(0)?, call.input(1)?, call.input(2)?];
        let ([d_query, d_key, d_value], d_bias) = match self.layout {
            Layout::Apart => (
                [
                    call.output(0, &sizes.query_shape())?,
                    call.output(1, &sizes.key_shape())?,
                    call.output(2, &sizes.key_shape())?,
                ],
                call.output(3, &sizes.bias_shape())?,
            ),
            Layout::Packed => {
                let mut shape = sizes.query_shape();
                shape[2] *= 3;
                let packed = call.output(0, &shape)?;
                self.start(
                    call,
                    tiling,
                    "clear_behind_keys",
                    grid([sizes.predicted, sizes.batch], THREADS),
                    &mut arguments![packed, shared.device],
                )?;
                (
                    tiling.thirds_of(packed),
                    call.output(1, &sizes.bias_shape())?,
                )
            }
        };
        let heads = sizes.batch * sizes.heads;
        let parts = tiling.row_tiles() * sizes.batch;
        let distances = sizes.heads * sizes.distances();
        let rows = scratch(&allocator, heads * sizes.rows * ROW_RECORD)?;
        let largest = scratch(&allocator, heads)?;
        let sums_of_bias = scratch(&allocator, parts * distances)?;
        let [rows, largest, sums_of_bias] =
            [&rows, &largest, &sums_of_bias].map(|block| block.as_ptr());
        self.start(
            call,
            tiling,
            "row_records",
            grid([sizes.heads, sizes.batch], 256),
            &mut arguments![
                rows,
                largest,
                out,
                gradient,
                sums,
                shared.value,
                shared.positions,
                shared.of_heads,
                shared.of_rows,
                shared.device
            ],
        )?;
        self.start(
            call,
            tiling,
            "backward_query",
            tiling.launch(tiling.row_tiles(), tiling.query_memory()),
            &mut arguments![
                d_query,
                sums_of_bias,
                gradient,
                shared.query,
                shared.key,
                shared.value,
                rows,
                shared.keys,
                largest,
                shared.tables,
                shared.device
            ],
        )?;
        let definitions = self.definitions(tiling);
        let source = self.source(&definitions, "sum_parts");
        // SAFETY: every tile of rows of every text has left a part behind.
        unsafe { call.sum_parts(&source, &[d_bias], sums_of_bias, parts, distances)? };
        self.start(
            call,
            tiling,
            "backward_key_value",
            tiling.launch(tiling.key_tiles(), tiling.key_value_memory()),
            &mut arguments![
                d_key,
                d_value,
                gradient,
                shared.query,
                shared.key,
                shared.value,
                rows,
                shared.keys,
                shared.tables,
                shared.device
            ],
        )
    }
}

impl Definition for Attention {
    fn name(&self) -> &'static str {
        match (self.layout, self.pass) {
            (Layout::Apart, pass) => pass.operator(),
            (Layout::Packed, Pass::Forward) => "PackedAttention",
            (Layout::Packed, Pass::Backward) => "PackedAttentionGrad",
        }
    }

    fn inputs(&self) -> Vec<OperatorInput> {
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

    fn outputs(&self) -> Vec<TensorElementType> {
        let mut outputs = self.pass.outputs(self.element);
        if (self.layout, self.pass) == (Layout::Packed, Pass::Backward) {
            outputs.drain(1..3);
        }
        outputs
    }

    fn read(&mut self, node: &KernelContext<'_>) -> ort::Result<()> {
        self.attributes = Attributes::read(node)?;
        let width = self.attributes.width;
        let (multiple, kind) = match element_number(self.element) {
            0 => (4, "f32"),
            _ => (32, "16 bits"),
        };
        if width == 0 || width > 128 || !width.is_multiple_of(multiple) {
            return Err(ort::Error::new(format!(
                "the attention kernel in {kind} knows heads of a multiple of {multiple} columns up to 128, not of \
                 {width}: use --attention expanded"
            )));
        }
        Ok(())
    }

    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()> {
        let first = self.pass.query();
        let width = self.attributes.width;
        let sizes = match self.layout {
            Layout::Apart => Sizes::read(call.context(), first, width)?,
            Layout::Packed => Sizes::read_packed(call.context(), first, width)?,
        };
        let most = most_shared_memory(call.device_id()).map_err(ort::Error::new)?;
        let tiling = Tiling::new(sizes, self.element, most);
        // How many tensors of queries' width lie side by side, and the inputs before dropout's factors.
        let (thirds, own) = match self.layout {
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
            text_stride: whole(thirds * sizes.heads * sizes.width)?,
            scale: self.attributes.scale,
            keep_probability: 1.0 - self.attributes.ratio,
            drop_limit: self.attributes.drop_limit(),
        };
        let at = |index: usize| call.input(first + index);
        let [query, key, value] = match self.layout {
            Layout::Apart => [at(0)?, at(1)?, at(2)?],
            Layout::Packed => tiling.thirds_of(at(0)?),
        };
        let [positions, keep, bias] = [at(own - 3)?, at(own - 2)?, at(own - 1)?];
        let factor = |index: usize| call.optional(first + own + index);
        let [of_heads, of_rows, of_keys] = [factor(0)?, factor(1)?, factor(2)?];
        if device.drop_limit > 0 && (of_heads.is_null() || of_rows.is_null() || of_keys.is_null()) {
            return Err(ort::Error::new(
                "dropout on the GPU needs its factors as inputs",
            ));
        }

        let allocator = call.allocator()?;
        let keys = scratch(&allocator, sizes.batch * sizes.keys() * KEY_RECORD)?;
        let tables = scratch(&allocator, sizes.heads * tiling.table())?;
        let (keys, tables) = (keys.as_ptr(), tables.as_ptr());
        let count = sizes.batch * sizes.keys() + sizes.heads * tiling.table();
        self.start(
            call,
            tiling,
            "prepare",
            grid([count.div_ceil(THREADS), 1], THREADS),
            &mut arguments![keys, tables, positions, keep, of_keys, bias, device],
        )?;
        let shared = Shared {
            tiling,
            device,
            query,
            key,
            value,
            positions,
            of_heads,
            of_rows,
            keys,
            tables,
        };
        match self.pass {
            Pass::Forward => self.forward(call, &shared),
            Pass::Backward => self.backward(call, &shared),
        }
    }
}
