//! What this machine computes with: accelerators, asked of their drivers, and the processor's cores.

use std::ffi::CStr;

use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute as Attribute, CUresult};

/// How many threads compute at once on the processor: one for each core, but no more than this process may run on by
/// its affinity and its control group's quota.
pub fn processor_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    sysinfo::System::physical_core_count()
        .filter(|&cores| cores > 0)
        .map_or(allowed, |cores| cores.min(allowed))
}

/// Name of an NVIDIA GPU, as its driver says it; none where the GPU or its driver is missing.
pub fn nvidia_name(device_id: i32) -> Option<String> {
    let device = nvidia_device(device_id)?;
    let mut name = [0u8; 256];
    // SAFETY: the driver writes at most as many bytes as it is told, with a NUL at the end.
    done(unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as i32, device) })?;
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    Some(name.to_string_lossy().into_owned())
}

/// How many NVIDIA GPUs CUDA counts, of those that `CUDA_VISIBLE_DEVICES` leaves; none where there is no driver.
pub fn nvidia_count() -> Option<usize> {
    // SAFETY: loading the driver's library does no more than set it up.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let mut count = 0;
    // SAFETY: plain queries into live variables.
    unsafe {
        done(sys::cuInit(0))?;
        done(sys::cuDeviceGetCount(&mut count))?;
    }
    usize::try_from(count).ok()
}

/// Compute capability of an NVIDIA GPU, (9, 0) for instance; none where the GPU or its driver is missing.
pub fn nvidia_capability(device_id: i32) -> Option<(i32, i32)> {
    let device = nvidia_device(device_id)?;
    let (mut major, mut minor) = (0, 0);
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
        // SAFETY: a plain query into a live variable.
        done(unsafe { sys::cuDeviceGetAttribute(found, attribute, device) })?;
    }
    Some((major, minor))
}

/// How two GPUs reach each other's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Directly, atomics included: NVLink.
    NvLink,
    /// Directly, over PCIe.
    Peer,
    /// By way of the host.
    Host,
}

/// How two NVIDIA GPUs are connected; none where one of them or the driver is missing.
pub fn nvidia_link(one: i32, other: i32) -> Option<Link> {
    use sys::CUdevice_P2PAttribute as Attribute;
    let (one, other) = (nvidia_device(one)?, nvidia_device(other)?);
    let has = |attribute| {
        let mut value = 0;
        // SAFETY: a plain query into a live variable.
        done(unsafe { sys::cuDeviceGetP2PAttribute(&mut value, attribute, one, other) })?;
        Some(value != 0)
    };
    let atomics = has(Attribute::CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED)?;
    Some(
        match has(Attribute::CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED)? {
            true if atomics => Link::NvLink,
            true => Link::Peer,
            false => Link::Host,
        },
    )
}

/// The version of CUDA that NVIDIA's driver has, (13, 0) for instance; none without a driver.
pub fn nvidia_driver() -> Option<(i32, i32)> {
    // SAFETY: loading the driver's library does no more than set it up.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let mut version = 0;
    // SAFETY: a plain query into a live variable.
    done(unsafe { sys::cuDriverGetVersion(&mut version) })?;
    Some((version / 1000, version % 1000 / 10))
}

/// The driver's handle of the GPU that CUDA counts as `device_id`, of those that `CUDA_VISIBLE_DEVICES` leaves.
fn nvidia_device(device_id: i32) -> Option<CUdevice> {
    // SAFETY: loading the driver's library does no more than set it up.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let mut device = 0;
    // SAFETY: plain queries into live variables.
    unsafe {
        done(sys::cuInit(0))?;
        done(sys::cuDeviceGet(&mut device, device_id))?;
    }
    Some(device)
}

fn done(result: CUresult) -> Option<()> {
    (result == CUresult::CUDA_SUCCESS).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_those_that_may_run() {
        let threads = processor_threads();
        assert!(threads >= 1 && threads <= std::thread::available_parallelism().unwrap().get());
    }
}
