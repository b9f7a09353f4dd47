//! One arena of GPU memory for all sessions of the process: what a training step has freed the next evaluation
//! uses, and a free block is not withheld from what is somewhat smaller than it.
//!
//! The largest batch's share of it, as `ir::memory` computes it in ONNX Runtime's order of
//! execution, is taken at once. That order is depth first from the last output: a weight's
//! gradient that is moved forward can delay all others, as one for the tied embedding did (16
//! instead of 12 GiB).

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use ort::AsPointer;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};

use super::binding::check;

/// Asks the driver for what is needed, not for twice as much.
const SAME_AS_REQUESTED: usize = 1;
/// ONNX Runtime's 128 MiB would leave as much unused behind every block.
const MOST_UNUSED: usize = 1 << 20;

/// Makes the arena of an NVIDIA GPU that sessions with [`SHARED`] use, once a process.
///
/// # Errors
/// ONNX Runtime refuses it.
pub(super) fn share(environment: &Environment, device_id: i32) -> ort::Result<()> {
    static SHARED: Mutex<Option<HashSet<i32>>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if !shared.get_or_insert_default().contains(&device_id) {
        register(environment, device_id)?;
        shared.get_or_insert_default().insert(device_id);
    }
    Ok(())
}

/// The entry of a session's options that makes it use the arena.
pub(super) const SHARED: (&str, &str) = ("session.use_env_allocators", "1");

fn register(environment: &Environment, device_id: i32) -> ort::Result<()> {
    let memory = MemoryInfo::new(
        AllocationDevice::CUDA,
        device_id,
        AllocatorType::Device,
        MemoryType::Default,
    )?;
    let settings: [(&CStr, usize); 2] = [
        (c"arena_extend_strategy", SAME_AS_REQUESTED),
        (c"max_dead_bytes_per_chunk", MOST_UNUSED),
    ];
    let keys = settings.map(|(key, _)| key.as_ptr());
    let values = settings.map(|(_, value)| value);
    let device = CString::new(device_id.to_string()).map_err(ort::Error::wrap)?;
    let (option, value) = ([c"device_id".as_ptr()], [device.as_ptr()]);
    let mut arena = ptr::null_mut();
    let api = ort::api();
    // SAFETY: keys, values and names live until the calls are over; the settings are released once, after their use.
    unsafe {
        check((api.CreateArenaCfgV2)(
            keys.as_ptr(),
            values.as_ptr(),
            keys.len(),
            &mut arena,
        ))?;
        let registered = check((api.CreateAndRegisterAllocatorV2)(
            environment.ptr().cast_mut(),
            c"CUDAExecutionProvider".as_ptr(),
            memory.ptr(),
            arena,
            option.as_ptr(),
            value.as_ptr(),
            option.len(),
        ));
        (api.ReleaseArenaCfg)(arena);
        registered
    }
}
