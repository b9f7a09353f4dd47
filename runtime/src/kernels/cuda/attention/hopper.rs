//! The launches of the kernels for compute capability 9.0 (`hopper.cu`).

use std::ffi::c_void;

use super::super::definition::{Call, arguments};
use super::super::module::Launch;
use super::tiling::{KEY_INFO, ROW_INFO};
use super::{Attention, Operands};
use crate::kernels::attention::Pass;

/// Threads of a block of `arrange`.
const ARRANGING: usize = 512;

/// What `arrange` makes.
#[derive(Debug, Clone, Copy)]
struct Arranged {
    /// Members of the tiles of rows and keys.
    members: *const c_void,
    /// What is known of the keys of each tile.
    keys: *const c_void,
    /// Where positions of a tile's rows follow each other.
    runs: *const c_void,
    /// Room for the largest norms of each head of each text.
    norms: *const c_void,
    /// The heads' tables of the bias.
    tables: *const c_void,
}

impl Attention {
    pub(super) fn compute_on_hopper(
        &self,
        call: &mut Call<'_>,
        operands: &Operands,
    ) -> ort::Result<()> {
        let (tiling, sizes) = (operands.tiling, operands.tiling.sizes);
        let rows_of_a = sizes.length.div_ceil(tiling.tile);
        let members = call.scratch(sizes.batch * tiling.lists() * tiling.tile)?;
        let keys = sizes.batch * tiling.lists_of_keys() * KEY_INFO;
        let keys = call.scratch(keys / size_of::<f32>())?;
        let runs = call.scratch(sizes.batch * rows_of_a)?;
        let norms = call.scratch(sizes.batch * sizes.heads * 2)?;
        let tables = call.scratch(sizes.heads * tiling.table())?;
        let arranged = Arranged {
            members,
            keys,
            runs,
            norms,
            tables,
        };
        self.start(
            call,
            tiling,
            "arrange",
            Launch {
                grid: [sizes.batch + sizes.heads, 1, 1],
                threads: ARRANGING,
                shared: tiling.arrange_memory(),
            },
            &mut arguments![
                arranged.members,
                arranged.keys,
                arranged.runs,
                arranged.norms,
                arranged.tables,
                operands.positions,
                operands.keep,
                operands.of_keys,
                operands.bias,
                operands.device
            ],
        )?;
        match self.pass {
            Pass::Forward => self.forward_on_hopper(call, operands, arranged),
            Pass::Backward => self.backward_on_hopper(call, operands, arranged),
        }
    }

    fn forward_on_hopper(
        &self,
        call: &mut Call<'_>,
        operands: &Operands,
        arranged: Arranged,
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
                arranged.keys,
                arranged.tables,
                arranged.members,
                arranged.runs,
                operands.of_heads,
                operands.of_rows,
                operands.device
            ],
        )
    }

    fn backward_on_hopper(
        &self,
        call: &mut Call<'_>,
        operands: &Operands,
        arranged: Arranged,
    ) -> ort::Result<()> {
        let (tiling, sizes) = (operands.tiling, operands.tiling.sizes);
        let gradients = self.gradients(call, operands)?;
        let heads = sizes.batch * sizes.heads;
        let tiles = tiling.row_tiles();
        let rows = call.scratch(heads * tiles * ROW_INFO / size_of::<f32>())?;
        let parts = call.scratch(tiles * heads * sizes.distances())?;
        self.start(
            call,
            tiling,
            "row_info",
            Launch {
                threads: 256,
                ..tiling.launch(tiles.max(tiling.key_tiles()), 0)
            },
            &mut arguments![
                rows,
                arranged.norms,
                gradients.context,
                gradients.d_context,
                gradients.lse,
                operands.value,
                operands.positions,
                arranged.members,
                arranged.runs,
                operands.of_heads,
                operands.of_rows,
                operands.device
            ],
        )?;
        self.start(
            call,
            tiling,
            "backward_query",
            tiling.launch(tiles, tiling.query_memory()),
            &mut arguments![
                gradients.d_query,
                parts,
                gradients.d_context,
                operands.query,
                operands.key,
                operands.value,
                rows,
                arranged.keys,
                arranged.norms,
                arranged.tables,
                arranged.members,
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
                arranged.keys,
                arranged.tables,
                arranged.members,
                operands.device
            ],
        )
    }
}
