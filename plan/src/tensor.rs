//! Tensors of the host, as they pass in and out of models.

/// Elements of a tensor, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// `float`.
    F32(Vec<f32>),
    /// `int64`.
    I64(Vec<i64>),
    /// `uint8`.
    U8(Vec<u8>),
    /// `uint32`.
    U32(Vec<u32>),
    /// `bool`.
    Bool(Vec<bool>),
}

impl TensorData {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::U8(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::Bool(values) => values.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A named input or output of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Name in the graph.
    pub name: String,
    /// Dimensions; none for a scalar.
    pub shape: Vec<usize>,
    /// As many elements as the shape says.
    pub data: TensorData,
}

impl Tensor {
    /// The only element of a float tensor that has one.
    pub fn scalar(&self) -> Option<f32> {
        match &self.data {
            TensorData::F32(values) if values.len() == 1 => Some(values[0]),
            TensorData::F32(_)
            | TensorData::I64(_)
            | TensorData::U8(_)
            | TensorData::U32(_)
            | TensorData::Bool(_) => None,
        }
    }
}

/// A parameter, or a moment of one, in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedArray {
    /// The parameter's name.
    pub name: String,
    /// The parameter's dimensions.
    pub shape: Vec<usize>,
    /// As many elements as the shape says, in row-major order.
    pub values: Vec<f32>,
}
