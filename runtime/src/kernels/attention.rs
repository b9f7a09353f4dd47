//! What the kernels of two-stream attention share: their inputs, outputs, attributes and sizes.

use ort::operator::{ComputeContext, KernelContext, OperatorInput};
use ort::value::TensorElementType;

/// The operator or its derivative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    Backward,
}

impl Pass {
    pub(super) fn operator(self) -> &'static str {
        match self {
            Self::Forward => "TwoStreamAttention",
            Self::Backward => "TwoStreamAttentionGrad",
        }
    }

    /// Index of the queries among the inputs; the context's gradient, the context and the log-sum-exp come first.
    pub(super) fn query(self) -> usize {
        match self {
            Self::Forward => 0,
            Self::Backward => 3,
        }
    }

    /// Inputs with floats of the type `element`, and `dropped` for dropout at the end.
    pub(super) fn inputs(
        self,
        element: TensorElementType,
        dropped: &[TensorElementType],
    ) -> Vec<OperatorInput> {
        use TensorElementType::{Bool, Float32, Int64};
        let own: &[_] = match self {
            Self::Forward => &[],
            Self::Backward => &[element, element, Float32],
        };
        own.iter()
            .chain(&[element, element, element, Int64, Bool, Float32])
            .map(|&ty| OperatorInput::required(ty))
            .chain(dropped.iter().map(|&ty| OperatorInput::optional(ty)))
            .collect()
    }

    /// Types of the outputs, with floats of the type `element`.
    pub(super) fn outputs(self, element: TensorElementType) -> Vec<TensorElementType> {
        let floats = match self {
            Self::Forward => 1,
            Self::Backward => 3,
        };
        std::iter::repeat_n(element, floats)
            .chain([TensorElementType::Float32])
            .collect()
    }
}

/// The node's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Attributes {
    /// Columns of a head.
    pub width: usize,
    /// Factor of the products of queries and keys.
    pub scale: f32,
    /// Probability of a weight being dropped.
    pub ratio: f32,
}

impl Attributes {
    pub(super) fn read(node: &KernelContext<'_>) -> ort::Result<Self> {
        let missing = |name| ort::Error::new(format!("the node has no attribute '{name}'"));
        let width: i64 = node.get("width").ok_or_else(|| missing("width"))?;
        Ok(Self {
            width: columns(width).map_err(ort::Error::new)?,
            scale: node.get("scale").ok_or_else(|| missing("scale"))?,
            ratio: node.get("ratio").ok_or_else(|| missing("ratio"))?,
        })
    }

    /// A weight whose hash is below is dropped.
    pub(super) fn drop_limit(self) -> u32 {
        (f64::from(self.ratio) * 2f64.powi(32)).round() as u32
    }
}

/// Columns of a head, from the node's attribute.
fn columns(width: i64) -> Result<usize, String> {
    usize::try_from(width)
        .ok()
        .filter(|&width| width > 0)
        .ok_or_else(|| format!("a head of attention cannot have {width} columns"))
}

/// The sizes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub batch: usize,
    pub heads: usize,
    /// Columns of a head.
    pub width: usize,
    /// Tokens of a row; the last of them are predicted.
    pub length: usize,
    pub predicted: usize,
    /// Rows of the queries: all that have positions, or those behind the keys.
    pub rows: usize,
    /// Positions are below this.
    pub positions: usize,
}

impl Sizes {
    /// The sizes that the shapes of queries, keys, values, positions, key mask and bias tell.
    pub(super) fn new(shapes: &[Vec<i64>; 6], width: usize) -> Result<Self, String> {
        let unsuitable = || format!("two-stream attention does not fit inputs of {shapes:?}");
        let [query, key, value, positions, keep, bias] =
            shapes.each_ref().map(|shape| shape.as_slice());
        let size = |n: i64| usize::try_from(n).map_err(|_| unsuitable());
        let (&[rows, batch, columns], &[keys, key_batch, _]) = (query, key) else {
            return Err(unsuitable());
        };
        let (&[heads, distances], &[position_batch, all]) = (bias, positions) else {
            return Err(unsuitable());
        };
        let (rows, batch, keys, all) = (size(rows)?, size(batch)?, size(keys)?, size(all)?);
        let (heads, distances) = (size(heads)?, size(distances)?);
        let fits = key[2] == columns
            && value == key
            && key_batch == query[1]
            && position_batch == query[1]
            && keep == [query[1], key[0]]
            && heads * width == size(columns)?
            && distances % 2 == 1
            // Copies for half of the keys at most, and a query for each.
            && keys <= all
            && 2 * (all - keys) <= keys
            && (rows == all || rows + keys == all);
        if !fits {
            return Err(unsuitable());
        }
        let predicted = all - keys;
        Ok(Self {
            batch,
            heads,
            width,
            length: keys - predicted,
            predicted,
            rows,
            positions: distances.div_ceil(2),
        })
    }

    /// Reads the shapes of the inputs from `first` on.
    pub(super) fn read(context: &ComputeContext, first: usize, width: usize) -> ort::Result<Self> {
        let mut shapes: [Vec<i64>; 6] = Default::default();
        for (index, shape) in shapes.iter_mut().enumerate() {
            let value = context.input(first + index)?;
            let value = value.ok_or_else(|| ort::Error::new("an input is missing"))?;
            *shape = value.shape().to_vec();
        }
        Self::new(&shapes, width).map_err(ort::Error::new)
    }

    /// The same where queries, keys and values are side by side in one input, of all rows.
    pub(super) fn read_packed(
        context: &ComputeContext,
        first: usize,
        width: usize,
    ) -> ort::Result<Self> {
        let mut found: [Vec<i64>; 4] = Default::default();
        for (index, shape) in found.iter_mut().enumerate() {
            let value = context.input(first + index)?;
            let value = value.ok_or_else(|| ort::Error::new("an input is missing"))?;
            *shape = value.shape().to_vec();
        }
        let [packed, positions, keep, bias] = found;
        let (&[rows, batch, columns], &[_, keys]) = (&packed[..], &keep[..]) else {
            return Err(ort::Error::new(format!(
                "packed attention does not fit inputs of {packed:?} and {keep:?}"
            )));
        };
        let third = columns / 3;
        let key = vec![keys, batch, third];
        let shapes = [
            vec![rows, batch, third],
            key.clone(),
            key,
            positions,
            keep,
            bias,
        ];
        Self::new(&shapes, width).map_err(ort::Error::new)
    }

    pub(super) fn keys(&self) -> usize {
        self.length + self.predicted
    }

    /// Rows that have positions.
    pub(super) fn all(&self) -> usize {
        self.keys() + self.predicted
    }

    /// Tokens that are not predicted.
    pub(super) fn left(&self) -> usize {
        self.length - self.predicted
    }

    /// Distances that the bias tells apart.
    pub(super) fn distances(&self) -> usize {
        2 * self.positions - 1
    }

    pub(super) fn query_shape(&self) -> Vec<i64> {
        [self.rows, self.batch, self.heads * self.width]
            .map(|n| n as i64)
            .into()
    }

    pub(super) fn key_shape(&self) -> Vec<i64> {
        [self.keys(), self.batch, self.heads * self.width]
            .map(|n| n as i64)
            .into()
    }

    pub(super) fn row_shape(&self) -> Vec<i64> {
        [self.batch, self.heads, self.rows].map(|n| n as i64).into()
    }

    pub(super) fn bias_shape(&self) -> Vec<i64> {
        [self.heads, self.distances()].map(|n| n as i64).into()
    }

    /// How far a row sees, counted through all rows: the predicted tokens below, the masked copies from there on.
    pub(super) fn limit(&self, row: usize) -> usize {
        match row {
            row if row < self.left() => 0,
            row if row < self.length => row - self.left() + 1,
            row if row < self.keys() => 0,
            row => row - self.keys(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Sizes, columns};

    fn shapes() -> [Vec<i64>; 6] {
        [
            vec![9, 2, 8],
            vec![7, 2, 8],
            vec![7, 2, 8],
            vec![2, 9],
            vec![2, 7],
            vec![4, 9],
        ]
    }

    #[test]
    fn sizes_follow_from_shapes() {
        let sizes = Sizes::new(&shapes(), 2).unwrap();
        assert_eq!((sizes.length, sizes.predicted), (5, 2));
        assert_eq!((sizes.keys(), sizes.all(), sizes.positions), (7, 9, 5));
        let limits: Vec<_> = (0..9).map(|row| sizes.limit(row)).collect();
        assert_eq!(limits, [0, 0, 0, 1, 2, 0, 0, 0, 1]);
        let mut queries = shapes();
        queries[0][0] = 2;
        assert_eq!(Sizes::new(&queries, 2).unwrap().rows, 2);
    }

    #[test]
    fn heads_have_columns() {
        assert_eq!(columns(64), Ok(64));
        for wrong in [0, -1, i64::MIN] {
            assert!(columns(wrong).unwrap_err().contains(&wrong.to_string()));
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        for (input, axis) in [
            (0, 0),
            (0, 1),
            (0, 2),
            (1, 2),
            (2, 0),
            (3, 0),
            (4, 1),
            (5, 1),
        ] {
            let mut shapes = shapes();
            shapes[input][axis] -= 1;
            let error = Sizes::new(&shapes, 2).unwrap_err();
            assert!(error.contains("does not fit"), "{input}, {axis}");
        }
        let mut flat = shapes();
        flat[0].pop();
        let error = Sizes::new(&flat, 2).unwrap_err();
        assert!(error.contains("does not fit"), "{error}");
    }
}
