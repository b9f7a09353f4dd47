//! Tensors and scratch of a node in the GPU's memory.

use std::ffi::c_void;
use std::ptr;

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

/// The memory of an output of that shape.
pub(super) fn output(
    context: &ComputeContext,
    index: usize,
    shape: Vec<i64>,
) -> ort::Result<*const c_void> {
    let value = context
        .output(index, shape)?
        .ok_or_else(|| ort::Error::new("an output is missing"))?;
    Ok(value.downcast::<DynTensorValueType>()?.data_ptr())
}

/// Where scratch comes from. What comes after its release on the stream may use it again.
pub(super) fn device_allocator(context: &ComputeContext, device_id: i32) -> ort::Result<Allocator> {
    context.allocator(&MemoryInfo::new(
        AllocationDevice::CUDA,
        device_id,
        AllocatorType::Device,
        MemoryType::Default,
    )?)
}
