//! How a call of attention is cut into blocks, and the shared memory that they take.

use std::ffi::c_void;

use ort::value::TensorElementType;

use super::super::definition::element_number;
use super::super::module::Launch;
use super::{KEY_RECORD, ROW_RECORD, THREADS};
use crate::kernels::attention::Sizes;

/// How one call is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiling {
    pub sizes: Sizes,
    /// Bytes of a float.
    element: usize,
    /// Rows, and slots, of a tile.
    pub tile: usize,
}

impl Tiling {
    /// The largest tiles that fit the shared memory of a block.
    pub fn new(sizes: Sizes, element: TensorElementType, most: usize) -> Self {
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

    pub fn key_tiles(self) -> usize {
        let all = self.sizes.length.div_ceil(self.tile);
        match self.sizes.predicted {
            0 => all,
            _ => 2 * all - self.sizes.left() / self.tile,
        }
    }

    pub fn row_tiles(self) -> usize {
        let (rows, predicted) = (self.sizes.rows, self.sizes.predicted);
        if rows == predicted && predicted > 0 {
            return predicted.div_ceil(self.tile);
        }
        self.sizes.length.div_ceil(self.tile) + (2 * predicted).div_ceil(self.tile)
    }

    /// Floats of a head's bias: −∞, then the bias by distance, in whole 16 bytes.
    pub fn table(self) -> usize {
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

    pub fn forward_memory(self) -> usize {
        let records = self.stages() * self.tile * KEY_RECORD;
        self.tiles(1 + 2 * self.stages()) + 4 * (records + self.table())
    }

    pub fn query_memory(self) -> usize {
        let records = self.stages() * self.tile * KEY_RECORD;
        // Sums of the bias' gradient: in f32 of two words.
        let tables = match self.element {
            4 => 3,
            _ => 2,
        };
        self.tiles(2 + 2 * self.stages()) + 4 * (records + tables * self.table())
    }

    pub fn key_value_memory(self) -> usize {
        let records = self.stages() * self.tile * ROW_RECORD;
        self.tiles(2 + 2 * self.stages()) + 4 * (records + self.table())
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
        [0, 1, 2].map(|third| packed.wrapping_byte_add(self.element * third * columns))
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
