//! Loads a build into the process, once, and hands its API to the crate `ort`.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use super::error::{LibraryError, Result};
#[cfg(target_os = "linux")]
use super::{elf, python_symbols};
use crate::plugin::{Plugin, PluginError};
#[cfg(target_os = "linux")]
use crate::scratch::Scratch;

/// A build of ONNX Runtime in use in this process.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Version that the build tells, such as "1.19.2".
    pub version: String,
    /// Whether it was built with the training API.
    pub has_training_api: bool,
    /// The library file.
    pub path: PathBuf,
    environment: Environment,
    base: ApiBase,
    plugin: Option<Arc<Plugin>>,
}

/// The entry of a loaded build, which hands out its API in any version that it knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ApiBase(&'static ort::sys::OrtApiBase);

impl ApiBase {
    /// # Safety
    /// `base` must be that of a library that is never closed.
    unsafe fn new(base: *const ort::sys::OrtApiBase) -> Self {
        // SAFETY: by the caller's promise.
        Self(unsafe { &*base })
    }

    /// The table of that version, whose first fields are those of every older one; none where the build is older.
    pub(crate) fn table(self, version: u32) -> Option<NonNull<ort::sys::OrtApi>> {
        // SAFETY: GetApi takes any number.
        NonNull::new(unsafe { (self.0.GetApi)(version) }.cast_mut())
    }

    /// Version that the build tells.
    pub(crate) fn version(self) -> String {
        // SAFETY: ONNX Runtime returns a static string with a closing NUL.
        unsafe { CStr::from_ptr((self.0.GetVersionString)()) }
            .to_string_lossy()
            .into_owned()
    }
}

impl Loaded {
    /// The same with the plug-in in the library file `path`.
    ///
    /// # Errors
    /// The build knows no plug-ins, or refuses this one.
    pub fn with_plugin(self, path: &Path) -> std::result::Result<Self, PluginError> {
        let plugin = Plugin::load(&self, path)?;
        Ok(Self {
            plugin: Some(plugin),
            ..self
        })
    }

    /// The plug-in to take providers from, where there is one.
    pub fn plugin(&self) -> Option<&Plugin> {
        self.plugin.as_deref()
    }

    pub(crate) fn base(&self) -> ApiBase {
        self.base
    }

    /// The environment in which every session of the process lives.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// This build, if it has the training API.
    ///
    /// # Errors
    /// [`LibraryError::NoTrainingApi`] otherwise.
    pub fn require_training_api(&self) -> Result<&Self> {
        if self.has_training_api {
            Ok(self)
        } else {
            Err(LibraryError::NoTrainingApi {
                path: self.path.clone(),
                version: self.version.clone(),
            })
        }
    }
}

/// ONNX Runtime allows one environment a process, so the first build loaded stays until the end.
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// Loads the library file `path`, a plain build or a training wheel's extension.
///
/// # Errors
/// The file is no usable ONNX Runtime, or another one is loaded already.
pub(super) fn load_file(path: &Path) -> Result<Loaded> {
    let path = std::path::absolute(path).map_err(super::error::io("resolve", path))?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(present) = &*loaded {
        if present.path == path {
            return Ok(present.clone());
        }
        return Err(LibraryError::AlreadyLoaded {
            loaded: present.path.clone(),
            requested: path,
        });
    }
    disable_telemetry();
    let base = attach(&path)?;
    let version = base.version();
    let environment = start_environment().map_err(|source| LibraryError::Environment {
        path: path.clone(),
        source,
    })?;
    let has_training_api = ort::training::training_api().is_ok();
    tracing::info!(version, has_training_api, path = %path.display(), "loaded ONNX Runtime");
    let build = Loaded {
        version,
        has_training_api,
        path,
        environment,
        base,
        plugin: None,
    };
    *loaded = Some(build.clone());
    Ok(build)
}

/// Has builds from 1.29 on keep no events of this machine and send none: they read this variable while they are
/// loaded, before they can be told by their API.
fn disable_telemetry() {
    const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
    if std::env::var_os(VARIABLE).is_none_or(|value| value != "1") {
        // SAFETY: a build is loaded once, before the threads that compute, read and write are started; until then no
        // thread of this program reads the environment other than through the standard library, which locks it.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}

/// Loads the library and makes its API that of the crate `ort`; returns its entry.
fn attach(path: &Path) -> Result<ApiBase> {
    #[cfg(target_os = "linux")]
    match elf::analyse(path)? {
        elf::Kind::Plain => attach_plain(path),
        elf::Kind::Extension(extension) => attach_extension(path, &extension),
    }
    #[cfg(not(target_os = "linux"))]
    attach_plain(path)
}

fn attach_plain(path: &Path) -> Result<ApiBase> {
    #[cfg(windows)]
    load_with_neighbours(path)?;
    match ort::init_from(path) {
        // The environment is built later, in the same way for both kinds of build.
        Ok(_builder) => {}
        Err(ort::LoadDynamicError::Dlopen { error, path }) => {
            return Err(LibraryError::Refused {
                path,
                reason: reason(&error),
            });
        }
        Err(ort::LoadDynamicError::MissingApi { path }) => {
            return Err(LibraryError::NotOnnxRuntime { path });
        }
        Err(ort::LoadDynamicError::InvalidVersionString) => {
            return Err(LibraryError::NotOnnxRuntime {
                path: path.to_owned(),
            });
        }
        Err(ort::LoadDynamicError::BadVersion { version_str, path }) => {
            return Err(LibraryError::TooOld {
                path,
                found: version_str,
                minimum: ort::MINOR_VERSION,
            });
        }
    }
    // SAFETY: `init_from` has just checked the library's entry point, so the handle opened here is the same library, and it is never closed.
    unsafe {
        let refused = |error: libloading::Error| LibraryError::Refused {
            path: path.to_owned(),
            reason: reason(&error),
        };
        let library = libloading::Library::new(path).map_err(refused)?;
        let getter: libloading::Symbol<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase> =
            library.get(b"OrtGetApiBase").map_err(refused)?;
        let base = ApiBase::new(getter());
        std::mem::forget(library);
        Ok(base)
    }
}

/// Loads the library so that what it needs is looked for beside it first, as DirectML.dll, of which the system has an
/// older one. Whoever loads it later gets the same.
#[cfg(windows)]
fn load_with_neighbours(path: &Path) -> Result<()> {
    use libloading::os::windows::{LOAD_WITH_ALTERED_SEARCH_PATH, Library};
    // SAFETY: as for any library of ONNX Runtime, whose initialisers are trusted; it is never closed.
    match unsafe { Library::load_with_flags(path, LOAD_WITH_ALTERED_SEARCH_PATH) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(LibraryError::Refused {
            path: path.to_owned(),
            reason: reason(&error),
        }),
    }
}

#[cfg(target_os = "linux")]
fn attach_extension(path: &Path, extension: &elf::Extension) -> Result<ApiBase> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};

    if minor(&extension.version).is_none_or(|minor| minor < ort::MINOR_VERSION) {
        return Err(LibraryError::TooOld {
            path: path.to_owned(),
            found: extension.version.clone(),
            minimum: ort::MINOR_VERSION,
        });
    }
    let refused = |reason: String| LibraryError::Refused {
        path: path.to_owned(),
        reason,
    };

    let stand_ins = python_symbols::shared_object(&extension.python_symbols)
        .map_err(|error| refused(error.to_string()))?;
    let scratch =
        Scratch::new().map_err(super::error::io("create a folder in", std::env::temp_dir()))?;
    let file = scratch.file("python-symbols.so");
    std::fs::write(&file, &stand_ins).map_err(super::error::io("write", &file))?;

    // SAFETY: the object holds data only, so loading it runs no code; it is never closed.
    let stand_ins = unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_GLOBAL) };
    std::mem::forget(stand_ins.map_err(|error| refused(reason(&error)))?);

    // SAFETY: the extension's initialisers call nothing of Python, and it is never closed.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|error| refused(reason(&error)))?;
    let (anchor, unloaded) = &extension.anchor;
    // SAFETY: the symbol is only used as an address.
    let anchor = unsafe { library.get::<*const ()>(anchor.as_bytes()) };
    let anchor = anchor.map_err(|error| refused(reason(&error)))?.into_raw() as u64;
    std::mem::forget(library);

    let base = anchor
        .wrapping_sub(*unloaded)
        .wrapping_add(extension.api_base) as *const ort::sys::OrtApiBase;
    // SAFETY: `base` lies in the loaded library, at a table whose second entry was seen to be the function
    // that returns the version string and whose first entry points into code.
    let base = unsafe { ApiBase::new(base) };
    let version = base.version();
    if version != extension.version {
        return Err(LibraryError::VersionMismatch {
            path: path.to_owned(),
            expected: extension.version.clone(),
            loaded: version,
        });
    }
    // SAFETY: the version string has just proved the table to be OrtApiBase; the one that GetApi returns lives as
    // long as the library.
    let api = base
        .table(ort::sys::ORT_API_VERSION)
        .map(|api| unsafe { api.as_ref() });
    let Some(api) = api else {
        return Err(LibraryError::TooOld {
            path: path.to_owned(),
            found: version,
            minimum: ort::MINOR_VERSION,
        });
    };
    ort::set_api(api.clone());
    Ok(base)
}

/// Why the system's loader failed, in its own words, which name what a library misses.
fn reason(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

#[cfg(target_os = "linux")]
fn minor(version: &str) -> Option<u32> {
    version.split('.').nth(1)?.parse().ok()
}

fn start_environment() -> ort::Result<Environment> {
    let environment = ort::init()
        .with_name("mpnet")
        .with_telemetry(false)
        .with_logger(Arc::new(
            |level, _category, _id, location, message| match level {
                LogLevel::Verbose => tracing::trace!(target: "onnxruntime", location, "{message}"),
                LogLevel::Info => tracing::debug!(target: "onnxruntime", location, "{message}"),
                LogLevel::Warning => tracing::warn!(target: "onnxruntime", location, "{message}"),
                LogLevel::Error | LogLevel::Fatal => {
                    tracing::error!(target: "onnxruntime", location, "{message}");
                }
            },
        ))
        .build()?;
    environment.set_log_level(LogLevel::Warning);
    Ok(environment)
}
