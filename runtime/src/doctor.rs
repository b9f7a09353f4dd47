//! Examines this machine: the builds of ONNX Runtime on it, the one that would be used, and what each provider does with one op.

use std::ffi::CStr;
use std::path::PathBuf;
use std::ptr;

use mpnet_plan::{Plugin, Precision, Provider};
use ort::session::Session;
use ort::value::TensorRef;
use serde::{Deserialize, Serialize};

use crate::library::{self, Build, Installed, LibraryError, Loaded, LocateOptions};
use crate::plugin::PluginError;
use crate::provider::{self, Target};

/// A build in the cache and the outcome of checking its bytes.
pub type CheckedBuild = (Installed, Result<(), LibraryError>);

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// The cache folder.
    pub cache: PathBuf,
    /// Programs that can fetch a build.
    pub clients: Vec<String>,
    /// The builds in the cache.
    pub installed: Result<Vec<CheckedBuild>, LibraryError>,
    /// The build that would be used, loaded.
    pub used: Result<(Build, Loaded), LibraryError>,
    /// Every provider, in the table's order, or why the build does not say which it has; none if no build could be
    /// loaded.
    pub providers: Result<Vec<ProviderReport>, String>,
}

/// How a provider fares with the build used.
#[derive(Debug)]
pub struct ProviderReport {
    /// Which provider.
    pub provider: Provider,
    /// What it can do.
    pub state: ProviderState,
}

/// Why a provider that is in a build does not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened.
    pub reason: String,
    /// What helps, where that is known.
    pub remedy: Option<String>,
}

/// What a provider can do with the build used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderState {
    /// It ran one op and the result was right; on the first of these devices, where it lists them.
    Works(Vec<String>),
    /// It is in the build but failed.
    Fails(Failure),
    /// The build does not have it.
    Absent,
}

/// Examines the machine. Nothing is fetched; the build found is loaded into this process.
pub fn examine(options: &LocateOptions) -> Report {
    let used = library::locate(&LocateOptions {
        download: false,
        ..options.clone()
    })
    .and_then(|build| library::load(&build).map(|loaded| (build, loaded)));
    let providers = match &used {
        Ok((_, loaded)) => examine_providers(loaded),
        Err(_) => Ok(Vec::new()),
    };
    Report {
        cache: options.install.cache.clone(),
        clients: library::clients(&options.install),
        installed: library::list(&options.install.cache).map(|installed| {
            installed
                .into_iter()
                .map(|build| {
                    let health = build.verify();
                    (build, health)
                })
                .collect()
        }),
        used,
        providers,
    }
}

fn examine_providers(loaded: &Loaded) -> Result<Vec<ProviderReport>, String> {
    let available = available_providers()
        .map_err(|e| format!("the build does not say which providers it has: {e}"))?;
    let examined = Provider::ALL.iter().map(|&provider| {
        let info = provider.info();
        let state = match info.plugin {
            Some(Plugin::Package(package)) => examine_plugin(loaded, provider, package),
            Some(Plugin::Path) => ProviderState::Absent,
            None if available.iter().any(|name| name == info.runtime_name) => {
                match try_provider(loaded, provider) {
                    Ok(()) => ProviderState::Works(Vec::new()),
                    Err(failure) => ProviderState::Fails(failure),
                }
            }
            None => ProviderState::Absent,
        };
        ProviderReport { provider, state }
    });
    Ok(examined.collect())
}

/// How the provider of a plug-in fares, if it was fetched and the build loads plug-ins.
fn examine_plugin(loaded: &Loaded, provider: Provider, package: &str) -> ProviderState {
    let Some(path) = library::installed_plugin(package) else {
        return ProviderState::Absent;
    };
    let loaded = match loaded.clone().with_plugin(&path) {
        Ok(loaded) => loaded,
        Err(PluginError::BuildTooOld { .. }) => return ProviderState::Absent,
        Err(error) => return ProviderState::Fails(failure(&with_cause(&error))),
    };
    match try_provider(&loaded, provider) {
        Ok(()) => {
            let devices = loaded.plugin().into_iter();
            let devices = devices.flat_map(|p| p.devices_of(provider.info().runtime_name));
            ProviderState::Works(devices.map(ToString::to_string).collect())
        }
        Err(failure) => ProviderState::Fails(failure),
    }
}

/// An error and what it comes from.
fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Names of the providers that the loaded build was made with.
fn available_providers() -> ort::Result<Vec<String>> {
    let api = ort::api();
    let mut names: *mut *mut std::ffi::c_char = ptr::null_mut();
    let mut count = 0;
    // SAFETY: both pointers outlive the call.
    unsafe {
        ort::Error::result_from_status((api.GetAvailableProviders)(&mut names, &mut count))?;
    }
    let count = match usize::try_from(count) {
        Ok(count) if !names.is_null() => count,
        Ok(_) | Err(_) => return Err(ort::Error::new(format!("it lists {count} providers"))),
    };
    // SAFETY: ONNX Runtime returned `count` strings with closing NULs, released once after they are copied.
    unsafe {
        let found = std::slice::from_raw_parts(names, count)
            .iter()
            .map(|name| CStr::from_ptr(*name).to_string_lossy().into_owned())
            .collect();
        let released = (api.ReleaseAvailableProviders)(names, count as std::ffi::c_int);
        if let Err(error) = ort::Error::result_from_status(released) {
            tracing::debug!(%error, "the list of providers could not be released");
        }
        Ok(found)
    }
}

/// Runs one op on `provider`.
///
/// # Errors
/// It does not run there, or is wrong.
fn try_provider(loaded: &Loaded, provider: Provider) -> Result<(), Failure> {
    if provider == Provider::Cuda {
        library::preload_cuda(&loaded.path).map_err(|error| match error {
            LibraryError::MissingLibraries { names, remedy, .. } => Failure {
                reason: format!("this machine does not have {names}"),
                remedy: Some(remedy),
            },
            other => failure(&other),
        })?;
    }
    match run_one_op(loaded, provider) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failure(&"1.5 + 1.5 is not 3 on it")),
        Err(error) => Err(failure(&error)),
    }
}

fn failure(reason: &dyn std::fmt::Display) -> Failure {
    Failure {
        reason: reason.to_string(),
        remedy: None,
    }
}

/// Adds a tensor to itself on `provider` and says whether the sum is right.
fn run_one_op(loaded: &Loaded, provider: Provider) -> ort::Result<bool> {
    let builder = Session::builder(loaded.environment())?.with_intra_threads(1)?;
    let target = Target {
        provider,
        device_id: 0,
        precision: Precision::F32,
        plugin: loaded.plugin(),
    };
    let mut session =
        provider::register(builder, target, false)?.commit_from_memory(&add_model())?;
    let values = [1.5f32];
    let input = TensorRef::from_array_view(([1usize], &values[..]))?;
    let outputs = session.run(ort::inputs![input])?;
    let (_, sums) = outputs[0].try_extract_tensor::<f32>()?;
    Ok(sums == [3.0])
}

/// An ONNX model of y = x + x for x of one float, written field by field: protobuf's rules fit in two closures.
fn add_model() -> Vec<u8> {
    let bytes = |field: u8, payload: &[u8]| {
        // Wire type 2: a length and that many bytes; every payload here is shorter than 128.
        let mut message = vec![field << 3 | 2, payload.len() as u8];
        message.extend_from_slice(payload);
        message
    };
    let number = |field: u8, value: u8| vec![field << 3, value];
    const FLOAT: u8 = 1;
    let shape = bytes(1, &number(1, 1));
    let tensor_type = bytes(1, &[number(1, FLOAT), bytes(2, &shape)].concat());
    let value = |name: &str| [bytes(1, name.as_bytes()), bytes(2, &tensor_type)].concat();
    let node = [
        bytes(1, b"x"),
        bytes(1, b"x"),
        bytes(2, b"y"),
        bytes(4, b"Add"),
    ]
    .concat();
    let graph = [
        bytes(1, &node),
        bytes(2, b"add"),
        bytes(11, &value("x")),
        bytes(12, &value("y")),
    ]
    .concat();
    [number(1, 8), bytes(7, &graph), bytes(8, &number(2, 13))].concat()
}
