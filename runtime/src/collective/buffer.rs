//! Memory that a collective reads and writes, and the numbers in it.

use std::ffi::c_void;

use super::{CollectiveError, Result};

/// Type of a buffer's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// Byte.
    U8,
    /// 32-bit integer without sign.
    U32,
    /// 64-bit integer without sign.
    U64,
}

impl Element {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }
}

/// Where a buffer lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// In the host's memory.
    Host,
    /// In the memory of the GPU that the collective was opened on.
    Device,
}

/// Elements in memory that belongs to somebody else.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    /// The first element.
    pub pointer: *mut c_void,
    /// Number of elements.
    pub len: usize,
    /// Their type.
    pub element: Element,
    /// Where they are.
    pub memory: Memory,
}

impl Buffer {
    /// The elements of a slice.
    pub fn of<T: Number>(values: &mut [T]) -> Self {
        Self {
            pointer: values.as_mut_ptr().cast(),
            len: values.len(),
            element: T::ELEMENT,
            memory: Memory::Host,
        }
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.len.saturating_mul(self.element.bytes())
    }

    /// The part of this rank, of as many equal parts as there are ranks.
    ///
    /// # Errors
    /// The length is no multiple of their number.
    pub fn own_part(
        &self,
        operation: &'static str,
        rank: usize,
        world_size: usize,
    ) -> Result<Self> {
        let len = self.len / world_size.max(1);
        match self.part(rank * len, len) {
            Some(part) if len * world_size == self.len => Ok(part),
            Some(_) | None => Err(CollectiveError::Shape {
                operation,
                world_size,
                len: self.len,
            }),
        }
    }

    /// `len` elements from `start` on; `None` if they are not all in it.
    pub fn part(&self, start: usize, len: usize) -> Option<Self> {
        let end = start.checked_add(len)?;
        (end <= self.len).then(|| Self {
            pointer: self.pointer.wrapping_byte_add(start * self.element.bytes()),
            len,
            ..*self
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A number that collectives know.
pub trait Number: sealed::Sealed + Copy + Default + 'static {
    /// Its type.
    const ELEMENT: Element;
}

/// A whole number, of which the largest is well defined.
pub trait Whole: Number {}

macro_rules! numbers {
    ($($type:ty: $element:ident $(, $whole:ident)?;)*) => {$(
        impl sealed::Sealed for $type {}
        impl Number for $type {
            const ELEMENT: Element = Element::$element;
        }
        $(impl $whole for $type {})?
    )*};
}

numbers! {
    f32: F32;
    f64: F64;
    i32: I32, Whole;
    i64: I64, Whole;
    u8: U8, Whole;
    u32: U32, Whole;
    u64: U64, Whole;
}
