//! Plug-ins: execution providers in libraries of their own, which builds of ONNX Runtime from 1.22 on load.

mod api;

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::AsPointer;
use ort::environment::Environment;
use ort::session::builder::SessionBuilder;
use ort::sys::{OrtEnv, OrtEpDevice};

use crate::library::Loaded;
use api::PluginApi;

/// What is wrong with a plug-in.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The build knows no plug-ins.
    #[error(
        "ONNX Runtime {version} ({}) loads no plug-ins, which came with 1.22: leave out --ort, or give a newer build with it",
        path.display()
    )]
    BuildTooOld {
        /// The build's version.
        version: String,
        /// Its library.
        path: PathBuf,
    },
    /// The path leads nowhere.
    #[error("there is no plug-in at {}", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// ONNX Runtime does not load it.
    #[error("ONNX Runtime {version} does not load the plug-in {}", path.display())]
    Refused {
        /// The plug-in's library.
        path: PathBuf,
        /// The build's version.
        version: String,
        /// ONNX Runtime's message.
        source: ort::Error,
    },
}

/// A provider's device.
#[derive(Debug, Clone)]
pub struct Device {
    /// Name of the provider in ONNX Runtime.
    pub provider: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Who made it.
    pub vendor: String,
    handle: *const OrtEpDevice,
}

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// A processor.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// A processor for neural networks.
    Npu,
    /// What ONNX Runtime has a number for that this program does not know.
    Unknown(i32),
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("processor"),
            Self::Gpu => f.write_str("GPU"),
            Self::Npu => f.write_str("NPU"),
            Self::Unknown(number) => write!(f, "device of kind {number}"),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} by {}", self.vendor, self.kind, self.provider)
    }
}

/// A plug-in that a build has loaded.
pub struct Plugin {
    /// Its library.
    pub path: PathBuf,
    /// The devices of its providers.
    pub devices: Vec<Device>,
    api: &'static PluginApi,
    environment: Environment,
}

// SAFETY: ONNX Runtime's devices are only read, live until their library is unregistered, which never happens, and its
// functions may be called by any thread.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("path", &self.path)
            .field("devices", &self.devices)
            .finish_non_exhaustive()
    }
}

/// A library is registered once: a second registration would list its devices twice.
static REGISTERED: Mutex<Vec<Arc<Plugin>>> = Mutex::new(Vec::new());

impl Plugin {
    /// Loads the plug-in in the library file `path` into `loaded`.
    pub(crate) fn load(loaded: &Loaded, path: &Path) -> Result<Arc<Self>, PluginError> {
        // Beside a relative path ONNX Runtime looks in the folder of its own library.
        let path = path.canonicalize().map_err(|source| PluginError::Missing {
            path: path.to_owned(),
            source,
        })?;
        let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(present) = registered.iter().find(|plugin| plugin.path == path) {
            return Ok(Arc::clone(present));
        }
        let Some(api) = PluginApi::of(loaded.base()) else {
            return Err(PluginError::BuildTooOld {
                version: loaded.version.clone(),
                path: loaded.path.clone(),
            });
        };
        let environment = loaded.environment().clone();
        let name = format!("mpnet.{}", registered.len());
        let devices =
            register(api, &environment, &name, &path).map_err(|source| PluginError::Refused {
                path: path.clone(),
                version: loaded.version.clone(),
                source,
            })?;
        let plugin = Arc::new(Self {
            path,
            devices,
            api,
            environment,
        });
        registered.push(Arc::clone(&plugin));
        Ok(plugin)
    }

    /// The devices of the provider of that name; of the first one where it is empty.
    pub fn devices_of(&self, provider: &str) -> Vec<&Device> {
        let first = self.devices.first().map(|device| device.provider.as_str());
        let wanted = match provider {
            "" => first,
            named => Some(named),
        };
        let devices = self.devices.iter();
        devices
            .filter(|device| Some(device.provider.as_str()) == wanted)
            .collect()
    }

    /// Gives `builder` one of the plug-in's devices.
    ///
    /// # Errors
    /// There is no such device, or the provider refuses an option.
    pub(crate) fn append(
        &self,
        mut builder: SessionBuilder,
        provider: &str,
        index: i32,
        options: &[(&str, String)],
    ) -> ort::Result<SessionBuilder> {
        let devices = self.devices_of(provider);
        let device = usize::try_from(index).ok().and_then(|at| devices.get(at));
        let Some(device) = device else {
            return Err(ort::Error::new(match devices.len() {
                0 => format!(
                    "the plug-in {} finds no device of its provider on this machine",
                    self.path.display()
                ),
                count => format!(
                    "the plug-in {} has {count} of its devices here: --device-id {index} is none of them",
                    self.path.display()
                ),
            }));
        };
        let strings = |texts: Vec<&str>| -> ort::Result<Vec<CString>> {
            let owned = texts.into_iter().map(CString::new);
            owned
                .collect::<Result<_, _>>()
                .map_err(|_| ort::Error::new("an option has a NUL in it"))
        };
        let keys = strings(options.iter().map(|(key, _)| *key).collect())?;
        let values = strings(options.iter().map(|(_, value)| value.as_str()).collect())?;
        let pointers = |texts: &[CString]| -> Vec<*const c_char> {
            texts.iter().map(|text| text.as_ptr()).collect()
        };
        // SAFETY: options, environment and device are live, and the two arrays have the length given; ONNX Runtime
        // copies the strings.
        unsafe {
            ort::Error::result_from_status((self.api.SessionOptionsAppendExecutionProvider_V2)(
                builder.ptr_mut(),
                environment(&self.environment),
                &device.handle,
                1,
                pointers(&keys).as_ptr(),
                pointers(&values).as_ptr(),
                options.len(),
            ))?;
        }
        Ok(builder)
    }
}

/// The environment as functions take it that add to it under a lock of its own.
fn environment(environment: &Environment) -> *mut OrtEnv {
    environment.ptr().cast_mut()
}

/// Registers the library under `name` and returns the devices that came with it.
fn register(
    api: &PluginApi,
    env: &Environment,
    name: &str,
    path: &Path,
) -> ort::Result<Vec<Device>> {
    let before = devices(api, env)?;
    let name = CString::new(name).map_err(|_| ort::Error::new("the name has a NUL in it"))?;
    let path = native(path)?;
    // SAFETY: all three are live, and the strings end in NUL.
    unsafe {
        ort::Error::result_from_status((api.RegisterExecutionProviderLibrary)(
            environment(env),
            name.as_ptr(),
            path.as_ptr(),
        ))?;
    }
    let known = |device: &Device| before.iter().any(|other| other.handle == device.handle);
    let mut found = devices(api, env)?;
    found.retain(|device| !known(device));
    Ok(found)
}

/// Every device that the environment knows.
fn devices(api: &PluginApi, env: &Environment) -> ort::Result<Vec<Device>> {
    let mut handles = std::ptr::null();
    let mut count = 0;
    // SAFETY: the pointers outlive the call.
    unsafe {
        ort::Error::result_from_status((api.GetEpDevices)(env.ptr(), &mut handles, &mut count))?;
    }
    if handles.is_null() || count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the array is the environment's, and is read before another library is registered, under a lock.
    let handles = unsafe { std::slice::from_raw_parts(handles, count) };
    let describe = |&handle: &*const OrtEpDevice| {
        // SAFETY: a device's names are static strings of its library, or null.
        unsafe {
            let hardware = (api.EpDevice_Device)(handle);
            Device {
                provider: text((api.EpDevice_EpName)(handle)),
                kind: match (api.HardwareDevice_Type)(hardware) {
                    0 => DeviceKind::Cpu,
                    1 => DeviceKind::Gpu,
                    2 => DeviceKind::Npu,
                    number => DeviceKind::Unknown(number),
                },
                vendor: text((api.HardwareDevice_Vendor)(hardware)),
                handle,
            }
        }
    };
    Ok(handles.iter().map(describe).collect())
}

/// # Safety
/// `pointer` must be null or a string with a closing NUL.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: by the caller's promise.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

/// A path as ONNX Runtime takes it.
#[cfg(unix)]
fn native(path: &Path) -> ort::Result<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| ort::Error::new("the path has a NUL in it"))
}

/// A path as ONNX Runtime takes it.
#[cfg(windows)]
fn native(path: &Path) -> ort::Result<Vec<ort::sys::os_char>> {
    use std::os::windows::ffi::OsStrExt as _;
    Ok(path.as_os_str().encode_wide().chain([0]).collect())
}
