//! The part of ONNX Runtime's API that plug-ins need, which the crate `ort` has only where every build must be 1.22.

use std::ffi::{c_char, c_int, c_void};

use ort::sys::{
    OrtApi, OrtEnv, OrtEpDevice, OrtHardwareDevice, OrtSessionOptions, OrtStatusPtr, os_char,
};

use crate::library::ApiBase;

/// The first version of the API with these functions.
pub(super) const VERSION: u32 = 22;

/// Functions that were added between the newest that `ort` asks every build for and those here.
const BETWEEN: usize = 25;

/// A kind of device, as `OrtHardwareDeviceType` numbers it.
pub(super) type DeviceType = c_int;

/// ONNX Runtime's table at [`VERSION`], up to the last function that is used: a newer table only adds at its end.
#[repr(C)]
#[expect(
    non_snake_case,
    reason = "the functions have the names of ONNX Runtime's header"
)]
pub(super) struct PluginApi {
    older: OrtApi,
    between: [*const c_void; BETWEEN],
    pub RegisterExecutionProviderLibrary:
        unsafe extern "system" fn(*mut OrtEnv, *const c_char, *const os_char) -> OrtStatusPtr,
    pub UnregisterExecutionProviderLibrary:
        unsafe extern "system" fn(*mut OrtEnv, *const c_char) -> OrtStatusPtr,
    pub GetEpDevices: unsafe extern "system" fn(
        *const OrtEnv,
        *mut *const *const OrtEpDevice,
        *mut usize,
    ) -> OrtStatusPtr,
    pub SessionOptionsAppendExecutionProvider_V2: unsafe extern "system" fn(
        *mut OrtSessionOptions,
        *mut OrtEnv,
        *const *const OrtEpDevice,
        usize,
        *const *const c_char,
        *const *const c_char,
        usize,
    ) -> OrtStatusPtr,
    policies: [*const c_void; 2],
    pub HardwareDevice_Type: unsafe extern "system" fn(*const OrtHardwareDevice) -> DeviceType,
    vendor_id: *const c_void,
    pub HardwareDevice_Vendor: unsafe extern "system" fn(*const OrtHardwareDevice) -> *const c_char,
    device_id: *const c_void,
    device_metadata: *const c_void,
    pub EpDevice_EpName: unsafe extern "system" fn(*const OrtEpDevice) -> *const c_char,
    vendor: *const c_void,
    metadata: *const c_void,
    options: *const c_void,
    pub EpDevice_Device: unsafe extern "system" fn(*const OrtEpDevice) -> *const OrtHardwareDevice,
}

impl PluginApi {
    /// That of a build; none where it is older than 1.22.
    pub(super) fn of(base: ApiBase) -> Option<&'static Self> {
        // Asked for a table that it does not have, a build complains to the terminal.
        let minor: u32 = base.version().split('.').nth(1)?.parse().ok()?;
        if minor < VERSION {
            return None;
        }
        // SAFETY: from that version on a table begins with these fields, and it lives as long as the library, which
        // is never closed.
        base.table(VERSION)
            .map(|table| unsafe { table.cast::<Self>().as_ref() })
    }
}
