//! Compiled kernels on a GPU, and their launch.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cudarc::driver::sys::{self, CUfunction, CUresult, CUstream};

use super::WITHOUT_KERNELS;
use super::compile::{HOPPER, knows_hopper, machine_code};
use crate::device::nvidia_capability;

/// Oldest compute capability with asynchronous copies and bf16 products.
const OLDEST: i32 = 8;

/// A GPU's kernels; never unloaded, as a process needs them until it ends.
#[derive(Debug)]
pub(super) struct Module {
    module: sys::CUmodule,
}

// SAFETY: a module is a handle that any thread may use.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

/// A kernel and the shared memory it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    function: CUfunction,
}

// SAFETY: a function is a handle that any thread may use.
unsafe impl Send for Kernel {}

/// Blocks, threads of each, bytes of shared memory of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Launch {
    pub grid: [usize; 3],
    pub threads: usize,
    pub shared: usize,
}

/// What a module was made from: source, definitions, device.
type Made = (&'static str, Vec<(&'static str, usize)>, i32);

/// The compiled `source`, once for all nodes of all sessions.
///
/// # Errors
/// As [`Module::new`].
pub(super) fn compiled(
    source: &'static str,
    definitions: Vec<(&'static str, usize)>,
    device_id: i32,
) -> Result<Arc<Module>, String> {
    static LOADED: Mutex<Option<HashMap<Made, Arc<Module>>>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    let made = (source, definitions, device_id);
    if let Some(module) = loaded.get(&made) {
        return Ok(Arc::clone(module));
    }
    let module = Arc::new(Module::new(source, &made.1, device_id)?);
    loaded.insert(made, Arc::clone(&module));
    Ok(module)
}

/// What the choice of kernels asks of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    /// Bytes of shared memory that a block may have.
    pub shared_memory: usize,
    /// Whether kernels for compute capability 9.0 alone can be compiled for it.
    pub hopper: bool,
}

/// The abilities of the GPU.
///
/// # Errors
/// There is no such GPU.
pub(super) fn abilities(device_id: i32) -> Result<Abilities, String> {
    use sys::CUdevice_attribute as Attribute;
    let mut device = 0;
    // SAFETY: a plain query into a live variable.
    check("find the GPU", unsafe {
        sys::cuDeviceGet(&mut device, device_id)
    })?;
    let ask = |attribute| {
        let mut found = 0;
        // SAFETY: as above.
        let asked = unsafe { sys::cuDeviceGetAttribute(&mut found, attribute, device) };
        check("be asked for the GPU's abilities", asked).map(|()| found)
    };
    let shared = ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    let capability = (
        ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    Ok(Abilities {
        shared_memory: usize::try_from(shared).unwrap_or(0),
        hopper: capability == HOPPER && knows_hopper(),
    })
}

impl Module {
    /// Compiles `source` for the GPU and loads it there.
    ///
    /// # Errors
    /// The GPU is older than the kernels, or a library of CUDA fails.
    fn new(source: &str, definitions: &[(&str, usize)], device_id: i32) -> Result<Self, String> {
        let Some((major, minor)) = nvidia_capability(device_id) else {
            return Err(format!(
                "NVIDIA's driver or its GPU {device_id} is not found: install the driver"
            ));
        };
        let (mut device, mut driver) = (0, 0);
        // SAFETY: plain queries into live variables; the driver is there and started.
        unsafe {
            check(
                "be asked for its version",
                sys::cuDriverGetVersion(&mut driver),
            )?;
            check("find the GPU", sys::cuDeviceGet(&mut device, device_id))?;
        }
        if major < OLDEST {
            return Err(format!(
                "this program's GPU kernels need compute capability {OLDEST}.0 or newer, this GPU has \
                 {major}.{minor}: use {WITHOUT_KERNELS}"
            ));
        }
        let code = machine_code(source, definitions, (major, minor), driver)?;
        let mut context = ptr::null_mut();
        let mut module = ptr::null_mut();
        // SAFETY: the device's own context is the one ONNX Runtime works in; it is made current while the code is
        // loaded and stays retained, as the module does.
        unsafe {
            check(
                "open the GPU",
                sys::cuDevicePrimaryCtxRetain(&mut context, device),
            )?;
            check("enter the GPU", sys::cuCtxPushCurrent_v2(context))?;
            let loaded = check(
                "load the kernels",
                sys::cuModuleLoadData(&mut module, code.as_ptr().cast()),
            );
            check("leave the GPU", sys::cuCtxPopCurrent_v2(&mut context))?;
            loaded?;
        }
        Ok(Self { module })
    }

    /// A kernel that takes at most `shared` bytes of shared memory a block.
    pub(super) fn kernel(&self, name: &str, shared: usize) -> Result<Kernel, String> {
        use sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED;
        let (mut function, mut given) = (ptr::null_mut(), 0);
        let text = CString::new(name).map_err(|e| e.to_string())?;
        // SAFETY: the module is live, the name ends in NUL, `given` is a live variable.
        unsafe {
            check(
                "find a kernel",
                sys::cuModuleGetFunction(&mut function, self.module, text.as_ptr()),
            )?;
            check(
                "be asked for a kernel's shared memory",
                sys::cuFuncGetAttribute(&mut given, SHARED, function),
            )?;
        }
        // Nodes share the kernel: what one was given stays.
        let wanted = i32::try_from(shared).unwrap_or(i32::MAX);
        if wanted > given {
            // SAFETY: a kernel of a live module.
            let set = unsafe { sys::cuFuncSetAttribute(function, SHARED, wanted) };
            check(
                &format!(
                    "give '{name}' {shared} bytes of shared memory; {WITHOUT_KERNELS} needs none"
                ),
                set,
            )?;
        }
        Ok(Kernel { function })
    }
}

impl Kernel {
    /// Starts the kernel on `stream`.
    ///
    /// # Safety
    /// `arguments` point to values of the kernel's parameter types, in their order, whose own pointers are to the
    /// GPU's memory, large enough for what the kernel does with them until the stream has passed it.
    pub(super) unsafe fn launch(
        self,
        launch: Launch,
        stream: *mut c_void,
        arguments: &mut [*mut c_void],
    ) -> Result<(), String> {
        let [x, y, z] = launch.grid.map(|n| n as u32);
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        let started = unsafe {
            sys::cuLaunchKernel(
                self.function,
                x,
                y,
                z,
                launch.threads as u32,
                1,
                1,
                launch.shared as u32,
                stream as CUstream,
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        check("start a kernel", started)
    }
}

/// Writes zeros to words of 32 bits in the GPU's memory, on a stream.
///
/// # Errors
/// The driver refuses.
pub(super) fn clear(words: *const c_void, count: usize, stream: *mut c_void) -> Result<(), String> {
    if count == 0 {
        return Ok(());
    }
    // SAFETY: the driver checks the address; the callers pass scratch of at least that many words.
    let cleared = unsafe { sys::cuMemsetD32Async(words.addr() as u64, 0, count, stream.cast()) };
    check("clear memory", cleared)
}

/// Seconds that what `run` starts on a stream takes, which is waited for.
///
/// By the host's clock: the driver's events have another name in each version of CUDA.
///
/// # Errors
/// The driver refuses, or `run` fails.
pub(super) fn timed(
    stream: *mut c_void,
    run: impl FnOnce() -> Result<(), String>,
) -> Result<f64, String> {
    // SAFETY: ONNX Runtime's stream, which lives as long as its node's call.
    let wait = || unsafe { sys::cuStreamSynchronize(stream.cast()) };
    check("wait for the GPU", wait())?;
    let start = Instant::now();
    run()?;
    check("wait for the GPU", wait())?;
    Ok(start.elapsed().as_secs_f64())
}

fn check(doing: &str, result: CUresult) -> Result<(), String> {
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        error => Err(format!("the CUDA driver cannot {doing}: {error:?}")),
    }
}
