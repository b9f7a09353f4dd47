//! What accelerators this machine has, asked of their drivers.

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};

/// Compute capability of an NVIDIA GPU, (9, 0) for instance; none where the GPU or its driver is missing.
pub fn nvidia_capability(device_id: i32) -> Option<(i32, i32)> {
    // SAFETY: loading the driver's library does no more than set it up.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let done = |result: CUresult| (result == CUresult::CUDA_SUCCESS).then_some(());
    let (mut device, mut major, mut minor) = (0, 0, 0);
    // SAFETY: plain queries into live variables.
    unsafe {
        done(sys::cuInit(0))?;
        done(sys::cuDeviceGet(&mut device, device_id))?;
        for (found, attribute) in [
            (
                &mut major,
                Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            ),
            (
                &mut minor,
                Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            ),
        ] {
            done(sys::cuDeviceGetAttribute(found, attribute, device))?;
        }
    }
    Some((major, minor))
}
