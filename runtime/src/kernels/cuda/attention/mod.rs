//! Two-stream attention on NVIDIA GPUs as an operator of ONNX Runtime: by tensor cores in 16 bits (`hopper.cu` on
//! compute capability 9.0, else `tensor_cores.cu`) or in f32 throughout (`f32.cu`).

mod hopper;
mod tiling;

use std::ffi::c_void;

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::definition::{Call, Definition, Source, arguments, element_number, grid, whole};
use super::module::{Launch, abilities};
use crate::kernels::attention::{Attributes, Pass, Sizes};
use tiling::{Kernels, Tiling};

const TENSOR_CORES: &str = concat!(
    include_str!("../common.cuh"),
    include_str!("two_stream.cuh"),
    include_str!("halves.cuh"),
    include_str!("tensor_cores.cu")
);
const HOPPER: &str = concat!(
    include_str!("../common.cuh"),
    include_str!("two_stream.cuh"),
    include_str!("halves.cuh"),
    include_str!("hopper.cu")
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

/// What both passes take.
#[derive(Debug, Clone, Copy)]
struct Operands {
    tiling: Tiling,
    device: DeviceSizes,
    query: *const c_void,
    key: *const c_void,
    value: *const c_void,
    positions: *const c_void,
    keep: *const c_void,
    bias: *const c_void,
    /// Dropout's factors.
    of_heads: *const c_void,
    of_rows: *const c_void,
    of_keys: *const c_void,
}

/// What `prepare` makes: records of the keys, and the heads' tables of the bias.
#[derive(Debug, Clone, Copy)]
struct Prepared {
    keys: *const c_void,
    tables: *const c_void,
}

/// What the derivative takes beside the operands, and its results.
#[derive(Debug, Clone, Copy)]
struct Gradients {
    context: *const c_void,
    d_context: *const c_void,
    lse: *const c_void,
    d_query: *const c_void,
    d_key: *const c_void,
    d_value: *const c_void,
    d_bias: *const c_void,
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
        let source = source(&definitions, tiling, name);
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

    /// The context and the log-sum-exp.
    fn results(
        &self,
        call: &Call<'_>,
        tiling: Tiling,
    ) -> ort::Result<(*const c_void, *const c_void)> {
        Ok((
            call.output(0, &tiling.sizes.query_shape())?,
            call.output(1, &tiling.sizes.row_shape())?,
        ))
    }

    /// The gradients, those of keys and values that no row has being zeros.
    fn gradients(&self, call: &mut Call<'_>, operands: &Operands) -> ort::Result<Gradients> {
        let (tiling, sizes) = (operands.tiling, operands.tiling.sizes);
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
                // A single stream has nothing behind the keys, and a grid of nothing is no launch.
                if sizes.predicted > 0 {
                    self.start(
                        call,
                        tiling,
                        "clear_behind_keys",
                        grid([sizes.predicted, sizes.batch], THREADS),
                        &mut arguments![packed, operands.device],
                    )?;
                }
                (
                    tiling.thirds_of(packed),
                    call.output(1, &sizes.bias_shape())?,
                )
            }
        };
        Ok(Gradients {
            context: call.input(1)?,
            d_context: call.input(0)?,
            lse: call.input(2)?,
            d_query,
            d_key,
            d_value,
            d_bias,
        })
    }

    /// Adds up what every tile of rows of every text has left of the bias' gradient.
    fn sum_bias(
        &self,
        call: &mut Call<'_>,
        tiling: Tiling,
        d_bias: *const c_void,
        parts: *const c_void,
    ) -> ort::Result<()> {
        let definitions = self.definitions(tiling);
        let count = tiling.row_tiles() * tiling.sizes.batch;
        let distances = tiling.sizes.heads * tiling.sizes.distances();
        // SAFETY: the callers' kernels have written that many parts.
        unsafe {
            call.sum_parts(
                &source(&definitions, tiling, "sum_parts"),
                &[d_bias],
                parts,
                count,
                distances,
            )
        }
    }

    fn forward(
        &self,
        call: &mut Call<'_>,
        operands: &Operands,
        prepared: Prepared,
    ) -> ort::Result<()> {
        let tiling = operands.tiling;
        let (out, sums) = self.results(call, tiling)?;
        self.start(
            call,
            tiling,
            "forward",
            tiling.launch(tiling.row_tiles(), tiling.forward_memory()),
            &mut arguments![
                out,
                sums,
                operands.query,
                operands.key,
                operands.value,
                operands.positions,
                prepared.keys,
                prepared.tables,
                operands.of_heads,
                operands.of_rows,
                operands.device
            ],
        )
    }

    fn backward(
        &self,
        call: &mut Call<'_>,
        operands: &Operands,
        prepared: Prepared,
    ) -> ort::Result<()> {
        let (tiling, sizes) = (operands.tiling, operands.tiling.sizes);
        let gradients = self.gradients(call, operands)?;
        let heads = sizes.batch * sizes.heads;
        let parts = tiling.row_tiles() * sizes.batch * sizes.heads * sizes.distances();
        let rows = call.scratch(heads * sizes.rows * ROW_RECORD)?;
        let largest = call.scratch(heads)?;
        let parts = call.scratch(parts)?;
        self.start(
            call,
            tiling,
            "row_records",
            grid([sizes.heads, sizes.batch], 256),
            &mut arguments![
                rows,
                largest,
                gradients.context,
                gradients.d_context,
                gradients.lse,
                operands.value,
                operands.positions,
                operands.of_heads,
                operands.of_rows,
                operands.device
            ],
        )?;
        self.start(
            call,
            tiling,
            "backward_query",
            tiling.launch(tiling.row_tiles(), tiling.query_memory()),
            &mut arguments![
                gradients.d_query,
                parts,
                gradients.d_context,
                operands.query,
                operands.key,
                operands.value,
                rows,
                prepared.keys,
                largest,
                prepared.tables,
                operands.device
            ],
        )?;
        self.sum_bias(call, tiling, gradients.d_bias, parts)?;
        self.start(
            call,
            tiling,
            "backward_key_value",
            tiling.launch(tiling.key_tiles(), tiling.key_value_memory()),
            &mut arguments![
                gradients.d_key,
                gradients.d_value,
                gradients.d_context,
                operands.query,
                operands.key,
                operands.value,
                rows,
                prepared.keys,
                prepared.tables,
                operands.device
            ],
        )
    }

    /// The kernels of `tensor_cores.cu` and `f32.cu`.
    fn compute_anywhere(&self, call: &mut Call<'_>, operands: &Operands) -> ort::Result<()> {
        let (tiling, sizes) = (operands.tiling, operands.tiling.sizes);
        let keys = call.scratch(sizes.batch * sizes.keys() * KEY_RECORD)?;
        let tables = call.scratch(sizes.heads * tiling.table())?;
        let count = sizes.batch * sizes.keys() + sizes.heads * tiling.table();
        self.start(
            call,
            tiling,
            "prepare",
            grid([count.div_ceil(THREADS), 1], THREADS),
            &mut arguments![
                keys,
                tables,
                operands.positions,
                operands.keep,
                operands.of_keys,
                operands.bias,
                operands.device
            ],
        )?;
        let prepared = Prepared { keys, tables };
        match self.pass {
            Pass::Forward => self.forward(call, operands, prepared),
            Pass::Backward => self.backward(call, operands, prepared),
        }
    }
}

fn source<'a>(
    definitions: &'a [(&'static str, usize)],
    tiling: Tiling,
    kernel: &'static str,
) -> Source<'a> {
    let text = match tiling.kernels {
        Kernels::F32 => F32,
        Kernels::TensorCores => TENSOR_CORES,
        Kernels::Hopper => HOPPER,
    };
    Source {
        text,
        definitions,
        kernel,
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
        let gpu = abilities(call.device_id()).map_err(ort::Error::new)?;
        let tiling = Tiling::new(sizes, self.element, gpu.shared_memory, gpu.hopper);
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

        let operands = Operands {
            tiling,
            device,
            query,
            key,
            value,
            positions,
            keep,
            bias,
            of_heads,
            of_rows,
            of_keys,
        };
        match tiling.kernels {
            Kernels::Hopper => self.compute_on_hopper(call, &operands),
            Kernels::F32 | Kernels::TensorCores => self.compute_anywhere(call, &operands),
        }
    }
}
