//! Two-stream attention on NVIDIA GPUs as an operator of ONNX Runtime: by tensor cores in 16 bits
//! (`two_stream_tensor_cores.cu`), else in f32 throughout (`two_stream_f32.cu`).

use std::ffi::c_void;

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::definition::{
    Call, Definition, Source, arguments, element_number, grid, scratch, whole,
};
use super::module::{Launch, most_shared_memory};
use crate::kernels::attention::{Attributes, Pass, Sizes};

const TENSOR_CORES: &str = concat!(
    include_str!("common.cuh"),
    include_str!("two_stream.cuh"),
    include_str!("two_stream_tensor_cores.cu")
);
const F32: &str = concat!(
    include_str!("common.cuh"),
    include_str!("two_stream.cuh"),
    include_str!("two_stream_f32.cu")
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

/// How one call is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    sizes: Sizes,
    /// Bytes of a float.
    element: usize,
    /// Rows, and slots, of a tile.
    tile: usize,
}

impl Tiling {
    /// The largest tiles that fit the shared memory of a block.
    fn new(sizes: Sizes, element: TensorElementType, most: usize) -> Self {
        let of = |element, tile| Self {
            sizes,
            element,
            tile,
        };
        match element_number(element) {
            // Larger heads leave a thread too few registers for larger tiles.
            0 if sizes.width <= 64 && of(4, 64).query_memory() <= most => of(4, 64),
            0 => of(4, 32),
            _ => of(2, 64),
        }
    }

    fn key_tiles(self) -> usize {
        let all = self.sizes.length.div_ceil(self.tile);
        match self.sizes.predicted {
            0 => all,
            _ => 2 * all - self.sizes.left() / self.tile,
        }
    }

    fn row_tiles(self) -> usize {
        let (rows, predicted) = (self.sizes.rows, self.sizes.predicted);
        if rows == predicted && predicted > 0 {
            return predicted.div_ceil(self.tile);
        }
        self.sizes.length.div_ceil(self.tile) + (2 * predicted).div_ceil(self.tile)
    }

    /// Floats of a head's bias: −∞, then the bias by distance, in whole 16 bytes.
    fn table(self) -> usize {
        (3 * self.sizes.positions).next_multiple_of(4)
    }

    /// Bytes of `tiles` tiles and what lies behind them in shared memory: in f32, weights.
    fn tiles(self, tiles: usize) -> usize {
        let weights = match self.element {
            4 => self.tile * (self.tile + 4) * 4,
            _ => 0,
        };
        tiles * self.tile * (self.sizes.width * self.element + 16) + weights
    }

    /// How many tiles of rows or keys are in shared memory at once: the next are loaded while tensor cores
    /// are at work.
    fn stages(self) -> usize {
        match self.element {
            4 => 1,
            _ => 2,
        }
    }

    fn forward_memory(self) -> usize {
        let records = self.stages() * self.tile * KEY_RECORD;
        self.tiles(1 + 2 * self.stages()) + 4 * (records + self.table())
    }

    fn query_memory(self) -> usize {
        let records = self.stages() * self.tile * KEY_RECORD;
        // Sums of the bias' gradient: in f32 of two words.
        let tables = match self.element {
            4 => 3,
            _ => 2,
        };
        self.tiles(2 + 2 * self.stages()) + 4 * (records + tables * self.table())
    }

    fn key_value_memory(self) -> usize {
        let records = self.stages() * self.tile * ROW_RECORD;
        self.tiles(2 + 2 * self.stages()) + 4 * (records + self.table())
    }

    fn launch(self, tiles: usize, shared: usize) -> Launch {
        Launch {
            grid: [tiles, self.sizes.heads, self.sizes.batch],
            threads: THREADS,
            shared,
        }
    }

    /// Where queries, keys and values of `packed` begin that lie side by side.
    fn thirds_of(self, packed: *const c_void) -> [*const c_void; 3] {
        let columns = self.sizes.heads * self.sizes.width;
        [0, 1, 2].map(|third| packed.wrapping_byte_add(self.element * third * columns))
    }
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
        match self.pass {
            Pass::Forward => {
                let out = call.output(0, &sizes.query_shape())?;
                let sums = call.output(1, &sizes.row_shape())?;
                self.start(
                    call,
                    tiling,
                    "forward",
                    tiling.launch(tiling.row_tiles(), tiling.forward_memory()),
                    &mut arguments![
                        out, sums, query, key, value, positions, keys, tables, of_heads, of_rows,
                        device
                    ],
                )
            }
            Pass::Backward => {
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
                            &mut arguments![packed, device],
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
                        rows, largest, out, gradient, sums, value, positions, of_heads, of_rows,
                        device
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
                        query,
                        key,
                        value,
                        rows,
                        keys,
                        largest,
                        tables,
                        device
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
                        d_key, d_value, gradient, query, key, value, rows, keys, tables, device
                    ],
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(width: usize, positions: usize) -> Sizes {
        Sizes {
            batch: 2,
            heads: 12,
            width,
            length: 512,
            predicted: 77,
            rows: 666,
            positions,
        }
    }

    #[test]
    fn tiles_in_f32_shrink_to_what_fits() {
        let tile = |width, positions, most| {
            Tiling::new(sizes(width, positions), TensorElementType::Float32, most).tile
        };
        assert_eq!(tile(64, 512, 232_448), 64);
        assert_eq!(tile(64, 512, 101_376), 32);
        assert_eq!(tile(128, 512, 232_448), 32);
    }

    #[test]
    fn every_row_and_slot_has_a_tile() {
        let tiling = Tiling::new(sizes(64, 512), TensorElementType::Bfloat16, 232_448);
        assert_eq!(tiling.row_tiles(), 8 + 3);
        // The tile in which the predicted tokens begin is one on both sides.
        assert_eq!(tiling.key_tiles(), 8 + 2);
    }
}
