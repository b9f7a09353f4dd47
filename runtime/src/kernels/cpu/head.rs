//! Two-stream attention of one head of one row of the batch, a block of rows at a time.

use std::ops::Range;

use super::memory::Shared;
use super::product::{Matrix, product};
use super::rows;
use crate::kernels::attention::{Attributes, Sizes};

/// Rows whose scores are held at once.
const BLOCK: usize = 64;

/// The operator's inputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub sizes: Sizes,
    pub attributes: Attributes,
    /// `[R, B, H·d]`
    pub query: &'a [f32],
    /// `[S, B, H·d]`
    pub key: &'a [f32],
    /// `[S, B, H·d]`
    pub value: &'a [f32],
    /// `[B, Q]`
    pub positions: &'a [i64],
    /// `[B, S]`
    pub keep: &'a [bool],
    /// `[H, 2M − 1]`
    pub bias: &'a [f32],
    /// `[B, H, R, S]`, 1 where a weight is kept.
    pub mask: Option<&'a [u8]>,
}

/// The derivative's further inputs, and its outputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gradients<'a> {
    /// `[R, B, H·d]`
    pub d_context: &'a [f32],
    /// `[R, B, H·d]`
    pub context: &'a [f32],
    /// `[B, H, R]`
    pub sums: &'a [f32],
    pub query: Shared,
    pub key: Shared,
    pub value: Shared,
    /// `[B, H, 2M − 1]`, zeros before.
    pub bias: Shared,
}

impl Inputs<'_> {
    /// Whether positions lie in the bias and the mask has an element for every weight.
    pub(super) fn check(&self) -> Result<(), String> {
        let sizes = &self.sizes;
        let longest = sizes.positions as i64;
        if let Some(position) = self.positions.iter().find(|p| !(0..longest).contains(*p)) {
            return Err(format!("position {position} is not below {longest}"));
        }
        let weights = sizes.batch * sizes.heads * sizes.rows * sizes.keys();
        match self.mask {
            Some(mask) if mask.len() != weights => Err(format!(
                "dropout's mask has {} elements, the attention {weights} weights",
                mask.len()
            )),
            Some(_) | None => Ok(()),
        }
    }
}

/// One head.
pub(super) struct Head<'a> {
    inputs: &'a Inputs<'a>,
    batch: usize,
    head: usize,
    /// Of every key, its position.
    places: Vec<u32>,
    /// Of every key, −∞ where it is padding.
    blocked: Vec<f32>,
    /// The keys' columns, `[d, S]`.
    key_columns: Vec<f32>,
}

/// Rows that see nearly the same keys.
struct Block {
    rows: Range<usize>,
    /// Keys that any of them sees.
    spans: [Range<usize>; 2],
}

impl<'a> Head<'a> {
    /// The head of that index in `[B, H]`.
    pub(super) fn new(inputs: &'a Inputs<'a>, index: usize) -> Self {
        let sizes = &inputs.sizes;
        let (batch, head) = (index / sizes.heads, index % sizes.heads);
        let positions = &inputs.positions[batch * sizes.all()..][..sizes.keys()];
        let keep = &inputs.keep[batch * sizes.keys()..][..sizes.keys()];
        let blocked = |keep: &bool| if *keep { 0.0 } else { f32::NEG_INFINITY };
        let mut this = Self {
            inputs,
            batch,
            head,
            places: positions.iter().map(|&p| p as u32).collect(),
            blocked: keep.iter().map(blocked).collect(),
            key_columns: Vec::new(),
        };
        this.key_columns = this.columns(&this.gathered(inputs.key, sizes.keys()));
        this
    }

    /// This head's part of `rows` rows, one behind the other: where they lie, they are whole pages apart.
    fn gathered(&self, tensor: &[f32], rows: usize) -> Vec<f32> {
        let width = self.inputs.sizes.width;
        let mut part = Vec::with_capacity(rows * width);
        for row in 0..rows {
            part.extend_from_slice(&self.part(tensor, row)[..width]);
        }
        part
    }

    /// The columns of gathered rows.
    fn columns(&self, gathered: &[f32]) -> Vec<f32> {
        let width = self.inputs.sizes.width;
        let mut columns = Vec::with_capacity(gathered.len());
        for column in 0..width {
            columns.extend(gathered.iter().skip(column).step_by(width));
        }
        columns
    }

    /// Elements between two rows.
    fn stride(&self) -> usize {
        let sizes = &self.inputs.sizes;
        sizes.batch * sizes.heads * sizes.width
    }

    /// This head's first element in a row of queries, keys or values.
    fn column(&self) -> usize {
        let sizes = &self.inputs.sizes;
        (self.batch * sizes.heads + self.head) * sizes.width
    }

    /// All rows of the queries in blocks of one kind.
    fn blocks(&self) -> Vec<Block> {
        let sizes = &self.inputs.sizes;
        let first = sizes.all() - sizes.rows;
        let bounds = [0, sizes.left(), sizes.length, sizes.keys(), sizes.all()];
        let mut blocks = Vec::new();
        for kind in bounds.windows(2) {
            let (start, end) = (kind[0].max(first), kind[1]);
            for start in (start..end).step_by(BLOCK) {
                let end = (start + BLOCK).min(end);
                let (low, high) = (sizes.limit(start), sizes.limit(end - 1));
                let (seen, unseen) = (sizes.left() + high, sizes.length + low);
                let spans = match seen < unseen {
                    true => [0..seen, unseen..sizes.keys()],
                    false => [0..sizes.keys(), 0..0],
                };
                let rows = start - first..end - first;
                blocks.push(Block { rows, spans });
            }
        }
        blocks
    }

    /// What one row sees: the keys up to the first of the pair and from the second on.
    fn seen(&self, row: usize) -> [Range<usize>; 2] {
        let sizes = &self.inputs.sizes;
        let limit = sizes.limit(row + sizes.all() - sizes.rows);
        [0..sizes.left() + limit, sizes.length + limit..sizes.keys()]
    }

    /// Where in the bias of this head its part for a row begins: there is the key at position 0.
    fn first_distance(&self, row: usize) -> usize {
        let sizes = &self.inputs.sizes;
        let index = self.batch * sizes.all() + row + sizes.all() - sizes.rows;
        sizes.positions - 1 - self.inputs.positions[index] as usize
    }

    /// This head's elements of a tensor, from `row` on.
    fn part<'b>(&self, tensor: &'b [f32], row: usize) -> &'b [f32] {
        &tensor[row * self.stride() + self.column()..]
    }

    fn mask(&self, row: usize) -> Option<&[u8]> {
        let sizes = &self.inputs.sizes;
        let row = (self.batch * sizes.heads + self.head) * sizes.rows + row;
        self.inputs
            .mask
            .map(|mask| &mask[row * sizes.keys()..][..sizes.keys()])
    }

    /// Scores of a block, scaled, with their bias, −∞ for padding, into `scores` `[rows, S]` where a row of it may see
    /// a key; what no row of the block sees stays as it is. `then` gets every row with its largest score.
    fn scores(
        &self,
        block: &Block,
        scores: &mut [f32],
        mut then: impl FnMut(usize, &mut [f32], f32),
    ) {
        let sizes = &self.inputs.sizes;
        let keys = sizes.keys();
        let scale = self.inputs.attributes.scale;
        for span in &block.spans {
            let query = self.part(self.inputs.query, block.rows.start);
            // SAFETY: the rows and columns lie in the tensors, whose sizes were checked, and in `scores`.
            unsafe {
                product(
                    [block.rows.len(), sizes.width, span.len()],
                    scale,
                    Matrix::rows(query.as_ptr(), self.stride()),
                    (self.key_columns.as_ptr().add(span.start), keys),
                    false,
                    (scores.as_mut_ptr().add(span.start), keys),
                );
            }
        }
        let all_bias = &self.inputs.bias[self.head * sizes.distances()..][..sizes.distances()];
        for (row, scores) in block.rows.clone().zip(scores.chunks_exact_mut(keys)) {
            let bias = &all_bias[self.first_distance(row)..];
            let [low, high] = self.seen(row);
            scores[low.end..high.start].fill(f32::NEG_INFINITY);
            let mut largest = f32::NEG_INFINITY;
            for span in [low, high] {
                let (places, blocked) = (&self.places[span.clone()], &self.blocked[span.clone()]);
                largest = largest.max(rows::add_bias(&mut scores[span], bias, places, blocked));
            }
            then(row, scores, largest);
        }
    }

    fn keep_scale(&self) -> f32 {
        1.0 / (1.0 - self.inputs.attributes.ratio)
    }

    /// Writes this head's part of the context and its log-sum-exp.
    ///
    /// # Safety
    /// `context` is `[R, B, H·d]` and `sums` `[B, H, R]`, and no other thread touches this head's part.
    pub(super) unsafe fn forward(&self, context: &Shared, sums: &Shared) {
        let sizes = &self.inputs.sizes;
        let keys = sizes.keys();
        let mut scores = vec![0.0; BLOCK * keys];
        let values = self.gathered(self.inputs.value, keys);
        let first_sum = (self.batch * sizes.heads + self.head) * sizes.rows;
        for block in self.blocks() {
            self.scores(&block, &mut scores, |row, scores, largest| {
                let shift = if largest == f32::NEG_INFINITY {
                    0.0
                } else {
                    largest
                };
                let sum = rows::exponentials(scores, shift);
                let (log, inverse) = match sum > 0.0 {
                    true => (shift + sum.ln(), 1.0 / sum),
                    false => (0.0, 0.0),
                };
                match self.mask(row) {
                    Some(mask) => rows::drop_out(scores, mask, inverse * self.keep_scale()),
                    None => rows::scale(scores, inverse),
                }
                // SAFETY: the caller's promise.
                unsafe { *sums.0.add(first_sum + row) = log };
            });
            for (index, span) in block.spans.iter().enumerate() {
                // SAFETY: the rows of the block lie in the context, the keys in the values.
                unsafe {
                    product(
                        [block.rows.len(), span.len(), sizes.width],
                        1.0,
                        Matrix::rows(scores.as_ptr().add(span.start), keys),
                        (values.as_ptr().add(span.start * sizes.width), sizes.width),
                        index > 0,
                        (self.output(context, block.rows.start), self.stride()),
                    );
                }
            }
        }
    }

    /// Writes this head's part of the gradients.
    ///
    /// # Safety
    /// The outputs have the shapes that their fields say, and no other thread touches this head's part.
    pub(super) unsafe fn backward(&self, gradients: &Gradients<'_>) {
        let sizes = &self.inputs.sizes;
        let keys = sizes.keys();
        let scale = self.inputs.attributes.scale;
        let mut weights = vec![0.0; BLOCK * keys];
        let mut d_scores = vec![0.0; BLOCK * keys];
        let key_rows = self.gathered(self.inputs.key, keys);
        let value_columns = self.columns(&self.gathered(self.inputs.value, keys));
        let query_rows = self.gathered(self.inputs.query, sizes.rows);
        let gradient_rows = self.gathered(gradients.d_context, sizes.rows);
        let first_sum = (self.batch * sizes.heads + self.head) * sizes.rows;
        let bias_start = (self.batch * sizes.heads + self.head) * sizes.distances();
        // SAFETY: the caller's promise; the parts of heads lie one behind the other.
        let d_bias = unsafe {
            std::slice::from_raw_parts_mut(gradients.bias.0.add(bias_start), sizes.distances())
        };
        // SAFETY: both have a row for every key.
        unsafe {
            self.clear(&gradients.key);
            self.clear(&gradients.value);
        }
        for block in self.blocks() {
            self.scores(&block, &mut weights, |row, scores, _| {
                rows::exponentials(scores, gradients.sums[first_sum + row]);
            });
            let count = block.rows.len();
            let first = block.rows.start * sizes.width;
            let (query, gradient) = (&query_rows[first..], &gradient_rows[first..]);
            for span in &block.spans {
                // SAFETY: the rows of the block lie in the context's gradient, the keys in the values.
                unsafe {
                    product(
                        [count, sizes.width, span.len()],
                        1.0,
                        Matrix::rows(gradient.as_ptr(), sizes.width),
                        (value_columns.as_ptr().add(span.start), keys),
                        false,
                        (d_scores.as_mut_ptr().add(span.start), keys),
                    );
                }
            }
            let both = d_scores
                .chunks_exact_mut(keys)
                .zip(weights.chunks_exact_mut(keys));
            for (row, (d_scores, weights)) in block.rows.clone().zip(both) {
                let of_row = |tensor| self.part(tensor, row)[..sizes.width].iter();
                let products = of_row(gradients.d_context).zip(of_row(gradients.context));
                let delta = products.map(|(x, y)| x * y).sum();
                let [low, high] = self.seen(row);
                d_scores[low.end..high.start].fill(0.0);
                if let Some(mask) = self.mask(row) {
                    rows::drop_out(d_scores, mask, self.keep_scale());
                }
                rows::score_gradients(d_scores, weights, delta);
                if let Some(mask) = self.mask(row) {
                    rows::drop_out(weights, mask, self.keep_scale());
                }
                let d_bias = &mut d_bias[self.first_distance(row)..];
                for span in [low, high] {
                    for (&place, gradient) in self.places[span.clone()].iter().zip(&d_scores[span])
                    {
                        d_bias[place as usize] += gradient;
                    }
                }
            }
            for (index, span) in block.spans.iter().enumerate() {
                let start = span.start.min(keys.saturating_sub(1));
                // SAFETY: the rows of the block lie in the queries, the keys in keys and values.
                unsafe {
                    let weights = Matrix::rows(weights.as_ptr().add(span.start), keys);
                    let d_scores = Matrix::rows(d_scores.as_ptr().add(span.start), keys);
                    product(
                        [span.len(), count, sizes.width],
                        1.0,
                        weights.transposed(),
                        (gradient.as_ptr(), sizes.width),
                        true,
                        (self.output(&gradients.value, start), self.stride()),
                    );
                    product(
                        [span.len(), count, sizes.width],
                        scale,
                        d_scores.transposed(),
                        (query.as_ptr(), sizes.width),
                        true,
                        (self.output(&gradients.key, start), self.stride()),
                    );
                    product(
                        [count, span.len(), sizes.width],
                        scale,
                        d_scores,
                        (key_rows.as_ptr().add(span.start * sizes.width), sizes.width),
                        index > 0,
                        (
                            self.output(&gradients.query, block.rows.start),
                            self.stride(),
                        ),
                    );
                }
            }
        }
    }

    /// This head's elements of an output, from `row` on.
    unsafe fn output(&self, tensor: &Shared, row: usize) -> *mut f32 {
        // SAFETY: the caller's promise that the output has that row.
        unsafe { tensor.0.add(row * self.stride() + self.column()) }
    }

    /// Zeros in this head's part of a tensor with a row for every key.
    unsafe fn clear(&self, tensor: &Shared) {
        for row in 0..self.inputs.sizes.keys() {
            // SAFETY: the caller's promise.
            unsafe {
                let part = self.output(tensor, row);
                std::slice::from_raw_parts_mut(part, self.inputs.sizes.width).fill(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
