//! Tensors and scratch of a node in the GPU's memory.

use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::operator::ComputeContext;
use ort::value::DynTensorValueType;

/// An input's memory.
pub(super) fn input(context: &ComputeContext, index: usize) -> ort::Result<*const c_void> {
    let value = context
        .input(index)?
        .ok_or_else(|| ort::Error::new("an input is missing"))?;
    Ok(value.downcast::<DynTensorValueType>()?.data_ptr())
}

/// The memory of an optional input, null where it is not given.
pub(super) fn optional(context: &ComputeContext, index: usize) -> ort::Result<*const c_void> {
    if index >= context.num_inputs()? {
        return Ok(ptr::null());
    }
    match context.input(index)? {
        Some(value) => Ok(value.downcast::<DynTensorValueType>()?.data_ptr()),
        None => Ok(ptr::null()),
    }
}

/// The memory of an output of that shape, null where the model does not name it.
pub(super) fn optional_output(
    context: &ComputeContext,
    index: usize,
    shape: Vec<i64>,
) -> ort::Result<*const c_void> {
    match context.output(index, shape)? {
        Some(value) => Ok(value.downcast::<DynTensorValueType>()?.data_ptr()),
        None => Ok(ptr::null()),
    }
}

/// Memory of the GPU that the nodes of a session share while they run, one after another on one stream.
///
/// It is kept: what an allocator gives belongs to no stream, so that ONNX Runtime's arena would not merge it with the
/// memory of the stream around it and would lose it to the stream bit by bit, tens of megabytes a step.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Block>>);

struct Block {
    memory: *mut c_void,
    floats: usize,
    allocator: Allocator,
}

// SAFETY: memory of a GPU belongs to no thread, and ONNX Runtime's allocators may be used from any.
unsafe impl Send for Block {}

impl Pool {
    /// Room for that many floats, which no other `place` of the same call has.
    ///
    /// # Errors
    /// The GPU has no room.
    pub(super) fn block(
        &self,
        context: &ComputeContext,
        device_id: i32,
        place: usize,
        floats: usize,
    ) -> ort::Result<*const c_void> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = blocks.get(place)
            && block.floats >= floats
        {
            return Ok(block.memory);
        }
        let device = MemoryInfo::new(
            AllocationDevice::CUDA,
            device_id,
            AllocatorType::Device,
            MemoryType::Default,
        )?;
        let allocator = context.allocator(&device)?;
        let memory = allocator.alloc::<f32>(floats.max(1))?.into_raw();
        let block = Block {
            memory,
            floats,
            allocator,
        };
        match blocks.get_mut(place) {
            // Kernels that still use the old one come before those that get its memory next.
            Some(old) => *old = block,
            None => blocks.push(block),
        }
        Ok(memory)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: this allocator gave the memory, which is freed once.
        unsafe { self.allocator.free(self.memory) };
    }
}
