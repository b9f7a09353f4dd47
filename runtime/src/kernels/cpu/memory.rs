//! The tensors that a kernel on the processor reads and writes.

use std::ops::Range;

use ort::operator::ComputeContext;
use ort::value::DynTensorValueType;

/// Elements of a chunk: some pages of each tensor.
const CHUNK: usize = 1 << 14;

/// An output that threads write parts of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared(pub *mut f32);

// SAFETY: every thread writes other elements.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The same without so many elements at its beginning.
    pub(super) fn from(&self, start: usize) -> Self {
        Self(self.0.wrapping_add(start))
    }

    /// Some of the elements, to be written.
    ///
    /// # Safety
    /// The elements lie in the output, and nobody else touches them while the result lives.
    pub(super) unsafe fn part<'a>(&self, range: Range<usize>) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

/// An input's elements.
pub(super) fn input<'a, T: ort::value::PrimitiveTensorElementType + 'a>(
    context: &'a ComputeContext,
    index: usize,
) -> ort::Result<&'a [T]> {
    let value = context
        .input(index)?
        .ok_or_else(|| ort::Error::new("an input is missing"))?;
    let (shape, elements) = value.try_extract_tensor::<T>()?;
    let count = shape.num_elements();
    // SAFETY: ONNX Runtime keeps its inputs for as long as the kernel runs, which the context's borrow does not
    // outlast; the value that was made for this call only refers to them.
    Ok(unsafe { std::slice::from_raw_parts(elements.as_ptr(), count) })
}

/// The shape of an input.
pub(super) fn shape(context: &ComputeContext, index: usize) -> ort::Result<Vec<i64>> {
    let value = context.input(index)?;
    let value = value.ok_or_else(|| ort::Error::new("an input is missing"))?;
    Ok(value.shape().to_vec())
}

/// An input's elements where they may be those of an output, and its shape.
pub(super) fn tensor(context: &ComputeContext, index: usize) -> ort::Result<(Shared, Vec<i64>)> {
    let value = context.input(index)?;
    let value = value.ok_or_else(|| ort::Error::new("an input is missing"))?;
    let shape = value.shape().to_vec();
    let pointer = value.downcast::<DynTensorValueType>()?.data_ptr();
    Ok((Shared(pointer.cast_mut().cast()), shape))
}

/// An output's elements, to be written.
pub(super) fn output(
    context: &ComputeContext,
    index: usize,
    shape: Vec<i64>,
) -> ort::Result<Shared> {
    let value = context
        .output(index, shape)?
        .ok_or_else(|| ort::Error::new("an output is missing"))?;
    let pointer = value.downcast::<DynTensorValueType>()?.data_ptr();
    Ok(Shared(pointer.cast_mut().cast()))
}

/// Runs `work` on ranges that together are `0..len`, shared out among the threads of the session.
pub(super) fn chunks(
    context: &ComputeContext,
    len: usize,
    work: impl Fn(Range<usize>) + Sync + Send,
) -> ort::Result<()> {
    context.par_for(len.div_ceil(CHUNK), 0, |index| {
        work(index * CHUNK..((index + 1) * CHUNK).min(len));
    })
}
