//! How a call of attention is cut into blocks, and the shared memory that they take.

use std::ffi::c_void;

use ort::value::TensorElementType;

use super::super::definition::element_number;
use super::super::module::Launch;
use super::{KEY_RECORD, ROW_RECORD, THREADS};
use crate::kernels::attention::Sizes;

/// Which sources the kernels are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernels {
    /// `f32.cu`.
    F32,
    /// `tensor_cores.cu`: 16 bits.
    TensorCores,
    /// `hopper.cu`: 16 bits, heads of 64 columns, compute capability 9.0.
    Hopper,
}

/// Bytes of a `KeyInfo` and of a `RowInfo` of `hopper.cu`.
pub(super) const KEY_INFO: usize = 784;
pub(super) const ROW_INFO: usize = 1296;

/// How one call is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiling {
    pub sizes: Sizes,
    pub kernels: Kernels,
    /// Rows, and slots, of a tile.
    pub tile: usize,
}

impl Tiling {
    /// The largest tiles that fit the `most` bytes of shared memory that a block may have; `hopper` on a GPU that has
    /// what [`Kernels::Hopper`] needs.
    pub fn new(sizes: Sizes, element: TensorElementType, most: usize, hopper: bool) -> Self {
        let of = |kernels, tile| Self {
            sizes,
            kernels,
            tile,
        };
        let for_hopper = of(Kernels::Hopper, 64);
        match element_number(element) {
            // Larger heads leave a thread too few registers for larger tiles.
            0 if sizes.width <= 64 && of(Kernels::F32, 64).query_memory() <= most => {
                of(Kernels::F32, 64)
            }
            0 => of(Kernels::F32, 32),
            _ if hopper && for_hopper.suits_hopper(most) => for_hopper,
            _ => of(Kernels::TensorCores, 64),
        }
    }

    /// Whether `hopper.cu` is for these sizes. Of few keys the sum of a row's gradients needs the care that
    /// `tensor_cores.cu` takes; tokens are sorted by numbers of 16 bits.
    fn suits_hopper(self, most: usize) -> bool {
        let sizes = self.sizes;
        sizes.width == 64
            && sizes.length >= 2 * self.tile
            && sizes.length.max(sizes.positions) < 1 << 16
            && self.query_memory().max(self.arrange_memory()) <= most
    }

    /// Bytes of a float.
    fn element(self) -> usize {
        match self.kernels {
            Kernels::F32 => 4,
            Kernels::TensorCores | Kernels::Hopper => 2,
        }
    }

    fn tiles_of(self, n: usize) -> usize {
        n.div_ceil(self.tile)
    }

    pub fn key_tiles(self) -> usize {
        let all = self.tiles_of(self.sizes.length);
        match (self.kernels, self.sizes.predicted) {
            (_, 0) => all,
            (Kernels::Hopper, predicted) => all + self.tiles_of(predicted),
            (Kernels::F32 | Kernels::TensorCores, _) => 2 * all - self.sizes.left() / self.tile,
        }
    }

    pub fn row_tiles(self) -> usize {
        let (rows, predicted) = (self.sizes.rows, self.sizes.predicted);
        let queries_only = rows == predicted && predicted > 0;
        let plain = if queries_only {
            0
        } else {
            self.tiles_of(self.sizes.length)
        };
        plain + self.mixed_tiles(queries_only)
    }

    /// Tiles of rows whose limits differ.
    fn mixed_tiles(self, queries_only: bool) -> usize {
        // On Hopper a query's row has a row of its predicted token beside it, there or not.
        if queries_only && self.kernels != Kernels::Hopper {
            self.tiles_of(self.sizes.predicted)
        } else {
            self.tiles_of(2 * self.sizes.predicted)
        }
    }

    /// Lists of keys' tiles for `hopper.cu`: as columns of products, and those of side A as rows.
    pub fn lists_of_keys(self) -> usize {
        self.key_tiles() + self.tiles_of(self.sizes.length)
    }

    /// All lists of a text for `hopper.cu`.
    pub fn lists(self) -> usize {
        self.lists_of_keys() + self.mixed_tiles(false)
    }

    /// Floats of a head's bias: −∞, then the bias by distance, in whole 16 bytes.
    pub fn table(self) -> usize {
        (3 * self.sizes.positions).next_multiple_of(4)
    }

    /// Bytes of `tiles` tiles and what lies behind them in shared memory: in f32, weights.
    fn tiles(self, tiles: usize) -> usize {
        let row = self.sizes.width * self.element();
        let (row, weights) = match self.kernels {
            Kernels::F32 => (row + 16, self.tile * (self.tile + 4) * 4),
            Kernels::TensorCores => (row + 16, 0),
            Kernels::Hopper => (row, 0),
        };
        tiles * self.tile * row + weights
    }

    /// How many tiles of rows or keys are in shared memory at once: the next are loaded while tensor cores
    /// are at work.
    fn stages(self) -> usize {
        match self.kernels {
            Kernels::F32 => 1,
            Kernels::TensorCores | Kernels::Hopper => 2,
        }
    }

    /// Bytes of what is known of a tile's keys.
    fn keys(self) -> usize {
        match self.kernels {
            Kernels::F32 | Kernels::TensorCores => 4 * self.tile * KEY_RECORD,
            Kernels::Hopper => KEY_INFO,
        }
    }

    /// Bytes of what is known of a tile's rows.
    fn rows(self) -> usize {
        match self.kernels {
            Kernels::F32 | Kernels::TensorCores => 4 * self.tile * ROW_RECORD,
            Kernels::Hopper => ROW_INFO,
        }
    }

    pub fn forward_memory(self) -> usize {
        self.tiles(1 + 2 * self.stages()) + self.stages() * self.keys() + 4 * self.table()
    }

    pub fn query_memory(self) -> usize {
        // Sums of the bias' gradient: in f32 of two words.
        let tables = match self.kernels {
            Kernels::F32 => 3,
            Kernels::TensorCores | Kernels::Hopper => 2,
        };
        self.tiles(2 + 2 * self.stages()) + self.stages() * self.keys() + 4 * tables * self.table()
    }

    pub fn key_value_memory(self) -> usize {
        self.tiles(2 + 2 * self.stages()) + self.stages() * self.rows() + 4 * self.table()
    }

    /// Shared memory of `arrange` of `hopper.cu`.
    pub fn arrange_memory(self) -> usize {
        8 * self.sizes.length.next_multiple_of(self.tile) + 4 * self.sizes.predicted
    }

    pub fn launch(self, tiles: usize, shared: usize) -> Launch {
        Launch {
            grid: [tiles, self.sizes.heads, self.sizes.batch],
            threads: THREADS,
            shared,
        }
    }

    /// Where queries, keys and values of `packed` begin that lie side by side.
    pub fn thirds_of(self, packed: *const c_void) -> [*const c_void; 3] {
        let columns = self.sizes.heads * self.sizes.width;
        [0, 1, 2].map(|third| packed.wrapping_byte_add(self.element() * third * columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TensorElementType::{Bfloat16, Float32};

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

    const H100: usize = 232_448;

    #[test]
    fn tiles_in_f32_shrink_to_what_fits() {
        let tile =
            |width, positions, most| Tiling::new(sizes(width, positions), Float32, most, true).tile;
        assert_eq!(tile(64, 512, H100), 64);
        assert_eq!(tile(64, 512, 101_376), 32);
        assert_eq!(tile(128, 512, H100), 32);
    }

    #[test]
    fn every_row_and_slot_has_a_tile() {
        let tiling = Tiling::new(sizes(64, 512), Bfloat16, H100, false);
        assert_eq!(tiling.row_tiles(), 8 + 3);
        // The tile in which the predicted tokens begin is one on both sides.
        assert_eq!(tiling.key_tiles(), 8 + 2);
        let mut queries = sizes(64, 512);
        queries.rows = 77;
        let tiling = Tiling::new(queries, Bfloat16, H100, true);
        assert_eq!((tiling.row_tiles(), tiling.key_tiles()), (3, 8 + 2));
        assert_eq!((tiling.lists_of_keys(), tiling.lists()), (18, 21));
    }

    #[test]
    fn hopper_has_kernels_of_its_own() {
        let kernels =
            |sizes: Sizes, element, hopper| Tiling::new(sizes, element, H100, hopper).kernels;
        let usual = sizes(64, 512);
        assert_eq!(kernels(usual, Bfloat16, true), Kernels::Hopper);
        assert_eq!(kernels(usual, Bfloat16, false), Kernels::TensorCores);
        assert_eq!(kernels(usual, Float32, true), Kernels::F32);
        assert_eq!(
            kernels(sizes(32, 512), Bfloat16, true),
            Kernels::TensorCores
        );
        // The tables of the bias and of its gradient do not fit.
        assert_eq!(
            kernels(sizes(64, 8_000), Bfloat16, true),
            Kernels::TensorCores
        );
        let mut short = usual;
        (short.length, short.rows) = (127, 127 + 2 * 20);
        short.predicted = 20;
        assert_eq!(kernels(short, Bfloat16, true), Kernels::TensorCores);
    }

    #[test]
    fn memory_is_what_the_check_in_python_gives() {
        let tiling = Tiling::new(sizes(64, 512), Bfloat16, H100, true);
        let (tiles, table) = (64 * 64 * 2, 4 * 1536);
        assert_eq!(tiling.forward_memory(), 5 * tiles + 1568 + table);
        assert_eq!(tiling.query_memory(), 6 * tiles + 1568 + 2 * table);
        assert_eq!(tiling.key_value_memory(), 6 * tiles + 2592 + table);
    }
}
