//! Types of values: element type and symbolic shape.

use mpnet_plan::Dim;
use std::fmt;

/// Element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    F32,
    /// Half precision with f32's range and 8 significant bits.
    BF16,
    /// Half precision with 11 significant bits and a largest value of 65504.
    F16,
    I64,
    /// The counters of dropout's hash.
    U32,
    /// Bytes: dropout's masks.
    U8,
    Bool,
}

impl DType {
    /// Whether derivatives flow through values of this type.
    pub fn is_float(self) -> bool {
        match self {
            DType::F32 | DType::BF16 | DType::F16 => true,
            DType::I64 | DType::U32 | DType::U8 | DType::Bool => false,
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::BF16 | DType::F16 => 2,
            DType::I64 => 8,
            DType::U8 | DType::Bool => 1,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            DType::U32 => "u32",
            DType::I64 => "i64",
            DType::U8 => "u8",
            DType::Bool => "bool",
        })
    }
}

/// Element type and shape of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Type {
    pub dtype: DType,
    pub shape: Vec<Dim>,
}

impl Type {
    /// A type of these dimensions.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = Dim>) -> Type {
        Type {
            dtype,
            shape: shape.into_iter().collect(),
        }
    }

    /// A float tensor.
    pub fn f32(shape: impl IntoIterator<Item = Dim>) -> Type {
        Type::new(DType::F32, shape)
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, dim) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}
