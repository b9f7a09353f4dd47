//! A rank's GPU: a stream for collectives, and memory for what comes from the host.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::{CudaContext, DriverError, result, sys};
use libloading::Library;

use super::Vendor;
use crate::collective::{Buffer, CollectiveError, Element, Memory, Result};

/// A GPU and a stream of its own on it.
pub(super) enum Gpu {
    Nvidia {
        context: Arc<CudaContext>,
        stream: sys::CUstream,
        /// What another stream has reached.
        reached: sys::CUevent,
    },
    Amd(Hip),
}

impl Gpu {
    /// # Errors
    /// There is no such GPU, or no driver.
    pub(super) fn open(vendor: Vendor, device: i32) -> Result<Self> {
        match vendor {
            Vendor::Nvidia => {
                if crate::device::nvidia_name(device).is_none() {
                    return Err(CollectiveError::NoGpu { device });
                }
                let ordinal = usize::try_from(device).unwrap_or(0);
                let context = CudaContext::new(ordinal).map_err(cuda("set up the GPU"))?;
                let (stream, reached) = first_served().map_err(cuda("make a stream"))?;
                Ok(Self::Nvidia {
                    context,
                    stream,
                    reached,
                })
            }
            Vendor::Amd => Hip::open(device).map(Self::Amd),
        }
    }

    /// Makes it this thread's GPU.
    pub(super) fn bind(&self) -> Result<()> {
        match self {
            Self::Nvidia { context, .. } => context.bind_to_thread().map_err(cuda("use the GPU")),
            // SAFETY: a plain call.
            Self::Amd(hip) => hip.check("hipSetDevice", unsafe { (hip.set_device)(hip.device) }),
        }
    }

    /// The stream, as the library takes it.
    pub(super) fn stream(&self) -> *mut c_void {
        match self {
            Self::Nvidia { stream, .. } => stream.cast(),
            Self::Amd(hip) => hip.stream,
        }
    }

    /// Whether all is done that the stream was given.
    pub(super) fn is_idle(&self) -> Result<bool> {
        match self {
            Self::Nvidia { stream, .. } => {
                // SAFETY: the stream is live.
                match unsafe { sys::cuStreamQuery(*stream) } {
                    sys::CUresult::CUDA_SUCCESS => Ok(true),
                    sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
                    error => Err(cuda("wait for the GPU")(DriverError(error))),
                }
            }
            Self::Amd(hip) => {
                /// `hipErrorNotReady`.
                const NOT_READY: c_int = 600;
                // SAFETY: the stream is live.
                match unsafe { (hip.stream_query)(hip.stream) } {
                    0 => Ok(true),
                    NOT_READY => Ok(false),
                    code => hip.check("hipStreamQuery", code).map(|()| false),
                }
            }
        }
    }

    /// Lets the stream wait until another one has done what it was given so far.
    pub(super) fn follow(&self, other: *mut c_void) -> Result<()> {
        match self {
            Self::Nvidia {
                stream, reached, ..
            } => {
                // SAFETY: the caller's stream, this GPU's own stream and event are live.
                let waits = unsafe {
                    sys::cuEventRecord(*reached, other.cast())
                        .result()
                        .and_then(|()| sys::cuStreamWaitEvent(*stream, *reached, 0).result())
                };
                waits.map_err(cuda("wait for another stream"))
            }
            // The provider has no operator of ours that would run beside a sum.
            Self::Amd(hip) => {
                // SAFETY: the caller's stream is live.
                hip.check("hipStreamSynchronize", unsafe {
                    (hip.stream_synchronize)(other)
                })
            }
        }
    }

    fn allocate(&self, bytes: usize) -> Result<*mut c_void> {
        match self {
            Self::Nvidia { .. } => {
                // SAFETY: the memory is freed by `free`.
                let memory = unsafe { result::malloc_sync(bytes) };
                memory
                    .map(|address| address as *mut c_void)
                    .map_err(cuda("make room on the GPU"))
            }
            Self::Amd(hip) => {
                let mut memory = ptr::null_mut();
                // SAFETY: the pointer is live.
                hip.check("hipMalloc", unsafe { (hip.malloc)(&mut memory, bytes) })?;
                Ok(memory)
            }
        }
    }

    fn free(&self, memory: *mut c_void) -> Result<()> {
        match self {
            // SAFETY: it came from `allocate`, and nothing uses it any more.
            Self::Nvidia { .. } => unsafe { result::free_sync(memory as sys::CUdeviceptr) }
                .map_err(cuda("free memory of the GPU")),
            // SAFETY: as above.
            Self::Amd(hip) => hip.check("hipFree", unsafe { (hip.free)(memory) }),
        }
    }

    /// Copies from the host; done when this returns.
    ///
    /// # Safety
    /// Both have room for so many bytes.
    unsafe fn upload(
        &self,
        target: *mut c_void,
        source: *const c_void,
        bytes: usize,
    ) -> Result<()> {
        match self {
            Self::Nvidia { .. } => {
                // SAFETY: the caller vouches for both.
                let source = unsafe { std::slice::from_raw_parts(source.cast::<u8>(), bytes) };
                // SAFETY: the caller vouches for both.
                unsafe { result::memcpy_htod_sync(target as sys::CUdeviceptr, source) }
                    .map_err(cuda("copy to the GPU"))
            }
            // SAFETY: the caller vouches for both.
            Self::Amd(hip) => unsafe { hip.copy(target, source, bytes, Hip::TO_DEVICE) },
        }
    }

    /// Copies to the host; done when this returns.
    ///
    /// # Safety
    /// Both have room for so many bytes.
    unsafe fn download(
        &self,
        target: *mut c_void,
        source: *const c_void,
        bytes: usize,
    ) -> Result<()> {
        match self {
            Self::Nvidia { .. } => {
                // SAFETY: the caller vouches for both.
                let target = unsafe { std::slice::from_raw_parts_mut(target.cast::<u8>(), bytes) };
                // SAFETY: the caller vouches for both.
                unsafe { result::memcpy_dtoh_sync(target, source as sys::CUdeviceptr) }
                    .map_err(cuda("copy from the GPU"))
            }
            // SAFETY: the caller vouches for both.
            Self::Amd(hip) => unsafe { hip.copy(target, source, bytes, Hip::TO_HOST) },
        }
    }
}

/// A stream whose kernels get the multiprocessors that become free before those of others do, and an event. Both are
/// there until the process ends.
fn first_served() -> Result<(sys::CUstream, sys::CUevent), DriverError> {
    let (mut least, mut greatest) = (0, 0);
    let mut stream = ptr::null_mut();
    let mut event = ptr::null_mut();
    let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
    let untimed = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as c_uint;
    // SAFETY: the pointers are live, and the GPU is this thread's.
    unsafe {
        sys::cuCtxGetStreamPriorityRange(&mut least, &mut greatest).result()?;
        sys::cuStreamCreateWithPriority(&mut stream, flags, greatest).result()?;
        sys::cuEventCreate(&mut event, untimed).result()?;
    }
    Ok((stream, event))
}

fn cuda(doing: &'static str) -> impl FnOnce(DriverError) -> CollectiveError {
    move |error| CollectiveError::Call {
        library: "CUDA's driver",
        function: doing,
        message: format!("{:?}", error.0),
        code: error.0 as i32,
    }
}

/// Memory of the GPU through which buffers of the host go.
pub(super) struct Staging {
    memory: *mut c_void,
    bytes: usize,
}

impl Default for Staging {
    fn default() -> Self {
        Self {
            memory: ptr::null_mut(),
            bytes: 0,
        }
    }
}

/// Where each staged buffer begins.
const ALIGNMENT: usize = 256;

impl Staging {
    /// The same buffers in the GPU's memory: those of the host are copied there.
    pub(super) fn place(&mut self, gpu: &Gpu, buffers: &[Buffer]) -> Result<Vec<Buffer>> {
        let host = |buffer: &&Buffer| buffer.memory == Memory::Host;
        let room = |buffer: &Buffer| buffer.bytes().next_multiple_of(ALIGNMENT);
        let needed: usize = buffers.iter().filter(host).map(room).sum();
        self.make_room(gpu, needed)?;
        let mut offset = 0;
        let mut placed = Vec::with_capacity(buffers.len());
        for buffer in buffers {
            placed.push(match buffer.memory {
                Memory::Device => *buffer,
                Memory::Host => {
                    let pointer = self.memory.wrapping_byte_add(offset);
                    offset += room(buffer);
                    if buffer.len > 0 {
                        // SAFETY: there is room for all of them, and the caller vouches for the buffer.
                        unsafe { gpu.upload(pointer, buffer.pointer, buffer.bytes())? };
                    }
                    Buffer {
                        pointer,
                        memory: Memory::Device,
                        ..*buffer
                    }
                }
            });
        }
        Ok(placed)
    }

    fn make_room(&mut self, gpu: &Gpu, bytes: usize) -> Result<()> {
        if bytes > self.bytes {
            self.clear(gpu)?;
            self.memory = gpu.allocate(bytes)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Room for so many floats, of whatever values.
    pub(super) fn reserve(&mut self, gpu: &Gpu, floats: usize) -> Result<Buffer> {
        let element = Element::F32;
        self.make_room(gpu, floats.saturating_mul(element.bytes()))?;
        Ok(Buffer {
            pointer: self.memory,
            len: floats,
            element,
            memory: Memory::Device,
        })
    }

    /// Copies what was placed back to the host.
    pub(super) fn bring_back(
        &self,
        gpu: &Gpu,
        buffers: &[Buffer],
        placed: &[Buffer],
    ) -> Result<()> {
        for (buffer, placed) in buffers.iter().zip(placed) {
            if buffer.memory == Memory::Host && buffer.len > 0 {
                // SAFETY: both are as long as each other.
                unsafe { gpu.download(buffer.pointer, placed.pointer, buffer.bytes())? };
            }
        }
        Ok(())
    }

    /// Gives the memory back.
    pub(super) fn clear(&mut self, gpu: &Gpu) -> Result<()> {
        if !self.memory.is_null() {
            gpu.free(std::mem::replace(&mut self.memory, ptr::null_mut()))?;
            self.bytes = 0;
        }
        Ok(())
    }
}

/// An AMD GPU through HIP's runtime.
pub(super) struct Hip {
    device: c_int,
    stream: *mut c_void,
    set_device: unsafe extern "C" fn(c_int) -> c_int,
    malloc: unsafe extern "C" fn(*mut *mut c_void, usize) -> c_int,
    free: unsafe extern "C" fn(*mut c_void) -> c_int,
    memcpy: unsafe extern "C" fn(*mut c_void, *const c_void, usize, c_int) -> c_int,
    stream_query: unsafe extern "C" fn(*mut c_void) -> c_int,
    stream_synchronize: unsafe extern "C" fn(*mut c_void) -> c_int,
    get_error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    /// Never unloaded.
    _library: ManuallyDrop<Library>,
}

impl Hip {
    /// `hipMemcpyHostToDevice`.
    const TO_DEVICE: c_int = 1;
    /// `hipMemcpyDeviceToHost`.
    const TO_HOST: c_int = 2;
    /// `hipStreamNonBlocking`.
    const NOT_BLOCKING: c_uint = 1;
    /// Its names in ROCm 7, 6 and 5.
    const NAMES: [&str; 4] = [
        "libamdhip64.so.7",
        "libamdhip64.so.6",
        "libamdhip64.so.5",
        "libamdhip64.so",
    ];

    fn open(device: c_int) -> Result<Self> {
        let load = |name: &str| {
            // SAFETY: the library does no more than set itself up when loaded.
            unsafe { Library::new(name) }.ok()
        };
        let (name, library) = Self::NAMES
            .iter()
            .find_map(|name| Some((*name, load(name)?)))
            .ok_or_else(|| CollectiveError::NoLibrary {
                library: "HIP",
                tried: Self::NAMES.join(", "),
                remedy: "it comes with ROCm".to_owned(),
            })?;
        let failed = |error: libloading::Error| CollectiveError::Library {
            library: "HIP",
            path: PathBuf::from(name),
            reason: error.to_string(),
        };
        type CreateStream = unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int;
        // SAFETY: the signatures are those of `hip_runtime_api.h`.
        let (mut hip, create_stream) = unsafe {
            let create: CreateStream = *library.get("hipStreamCreateWithFlags").map_err(failed)?;
            let hip = Self {
                device,
                stream: ptr::null_mut(),
                set_device: *library.get("hipSetDevice").map_err(failed)?,
                malloc: *library.get("hipMalloc").map_err(failed)?,
                free: *library.get("hipFree").map_err(failed)?,
                memcpy: *library.get("hipMemcpy").map_err(failed)?,
                stream_query: *library.get("hipStreamQuery").map_err(failed)?,
                stream_synchronize: *library.get("hipStreamSynchronize").map_err(failed)?,
                get_error_string: *library.get("hipGetErrorString").map_err(failed)?,
                _library: ManuallyDrop::new(library),
            };
            (hip, create)
        };
        // SAFETY: plain calls, with a live pointer.
        unsafe {
            hip.check("hipSetDevice", (hip.set_device)(device))?;
            let mut stream = ptr::null_mut();
            let code = create_stream(&mut stream, Self::NOT_BLOCKING);
            hip.check("hipStreamCreateWithFlags", code)?;
            hip.stream = stream;
        }
        Ok(hip)
    }

    /// # Safety
    /// Both have room for so many bytes.
    unsafe fn copy(
        &self,
        target: *mut c_void,
        source: *const c_void,
        bytes: usize,
        direction: c_int,
    ) -> Result<()> {
        // SAFETY: the caller vouches for both.
        let code = unsafe { (self.memcpy)(target, source, bytes, direction) };
        self.check("hipMemcpy", code)
    }

    fn check(&self, function: &'static str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the text is the library's, and ends with a NUL.
        let message = unsafe {
            let text = (self.get_error_string)(code);
            match text.is_null() {
                true => String::new(),
                false => CStr::from_ptr(text).to_string_lossy().into_owned(),
            }
        };
        Err(CollectiveError::Call {
            library: "HIP",
            function,
            message,
            code,
        })
    }
}
