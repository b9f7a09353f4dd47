//! Libraries that a CUDA build needs, loaded before it from wherever they are: the system's folders or those of
//! Python wheels.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use object::read::elf::{Dyn as _, FileHeader as _};
use object::{Endianness, elf};

use super::error::{LibraryError, Result};

/// The provider beside the build's library.
const PROVIDER: &str = "libonnxruntime_providers_cuda.so";
/// Loaded by the provider when it first needs it, where it does not ask for another one at once.
const LAZY: &str = "libcudnn.so.9";

/// Loads what the CUDA provider of the build `library` needs and the system does not find by itself.
///
/// # Errors
/// [`LibraryError::MissingLibraries`], with the packages that have them.
pub(crate) fn preload(library: &Path) -> Result<()> {
    let provider = library.with_file_name(PROVIDER);
    if !provider.exists() {
        // The build has no CUDA provider: ONNX Runtime says so when it is asked for.
        return Ok(());
    }
    let folders = wheel_folders(Some(library));
    let mut missing = Vec::new();
    let needed = needed(&provider)?;
    let knows_cudnn = needed.iter().any(|name| name.starts_with("libcudnn."));
    for name in needed {
        if !load(&name, &folders) {
            missing.push(name);
        }
    }
    if !knows_cudnn && !load(LAZY, &folders) {
        tracing::warn!(
            "{LAZY} is not found; operators that need it will fail. `pip install {}` brings it",
            package(LAZY).unwrap_or("nvidia-cudnn-cu13")
        );
    }
    if missing.is_empty() {
        return Ok(());
    }
    let packages: BTreeSet<&str> = missing.iter().filter_map(|name| package(name)).collect();
    Err(LibraryError::MissingLibraries {
        library: provider,
        names: missing.join(", "),
        remedy: remedy(&missing, &packages),
    })
}

/// What brings the missing libraries.
fn remedy(missing: &[String], packages: &BTreeSet<&str>) -> String {
    let mut steps = Vec::new();
    if missing.iter().any(|name| name.starts_with("libcuda.so")) {
        steps.push("install NVIDIA's driver".to_owned());
    }
    if !packages.is_empty() {
        let packages: Vec<&str> = packages.iter().copied().collect();
        steps.push(format!("pip install {}", packages.join(" ")));
    }
    if steps.is_empty() {
        steps.push("install them through the system's package manager".to_owned());
    }
    steps.join(" and ")
}

/// Package of the registry that has a library of CUDA.
fn package(name: &str) -> Option<&'static str> {
    let (stem, version) = name.split_once(".so.")?;
    let major = version.split('.').next()?;
    Some(match (stem, major) {
        ("libcublas" | "libcublasLt", "11") => "nvidia-cublas-cu11",
        ("libcublas" | "libcublasLt", "12") => "nvidia-cublas-cu12",
        ("libcublas" | "libcublasLt", _) => "nvidia-cublas",
        ("libcudart", "11") => "nvidia-cuda-runtime-cu11",
        ("libcudart", "12") => "nvidia-cuda-runtime-cu12",
        ("libcudart", _) => "nvidia-cuda-runtime",
        ("libcurand", _) => "nvidia-curand",
        ("libcufft", "10") => "nvidia-cufft-cu11",
        ("libcufft", "11") => "nvidia-cufft-cu12",
        ("libcufft", _) => "nvidia-cufft",
        ("libnvrtc", _) => "nvidia-cuda-nvrtc",
        ("libcudnn", "8") => "nvidia-cudnn-cu11",
        ("libcudnn", _) => "nvidia-cudnn-cu13",
        _ => return None,
    })
}

/// Whether a library could be loaded, by its name or from one of the folders.
fn load(name: &str, folders: &[PathBuf]) -> bool {
    let candidates = std::iter::once(PathBuf::from(name)).chain(
        folders
            .iter()
            .map(|folder| folder.join(name))
            .filter(|path| path.exists()),
    );
    for path in candidates {
        if let Ok(library) = open(&path) {
            tracing::debug!(path = %path.display(), "loaded");
            // Stays loaded, so that the provider finds it by its name.
            std::mem::forget(library);
            return true;
        }
    }
    false
}

fn open(path: &Path) -> Result<libloading::os::unix::Library, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY};
    // SAFETY: NVIDIA's libraries and the system's do no more than set themselves up when loaded.
    unsafe { Library::open(Some(path), RTLD_LAZY | RTLD_GLOBAL) }
}

/// The folders `nvidia/*/lib` of every Python installation that can be guessed.
pub(crate) fn wheel_folders(library: Option<&Path>) -> Vec<PathBuf> {
    let mut packages: Vec<PathBuf> = Vec::new();
    // `site-packages/onnxruntime/capi/libonnxruntime.so`
    packages.extend(library.and_then(|library| library.ancestors().nth(3).map(Path::to_owned)));
    let prefixes = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .into_iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from);
    let from_path = ["python3", "python"]
        .into_iter()
        .filter_map(|name| which::which(name).ok())
        .flat_map(|python| [python.clone(), fs::canonicalize(&python).unwrap_or(python)])
        .filter_map(|python| python.ancestors().nth(2).map(Path::to_owned));
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local"));
    let system = ["/usr", "/usr/local"].map(PathBuf::from);
    for prefix in prefixes.chain(from_path).chain(home).chain(system) {
        for python in folders_in(&prefix.join("lib")) {
            let named = |name: &str| python.join(name);
            packages.extend([named("site-packages"), named("dist-packages")]);
        }
        packages.push(prefix.join("lib/python3/dist-packages"));
    }
    let mut found = Vec::new();
    for package in packages {
        for part in folders_in(&package.join("nvidia")) {
            let folder = part.join("lib");
            if folder.is_dir() && !found.contains(&folder) {
                found.push(folder);
            }
        }
    }
    found
}

/// Folders in a folder, by name; none where it can't be read.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// The libraries that a shared object asks for, in the order in which it does.
fn needed(path: &Path) -> Result<Vec<String>> {
    let unreadable = |reason: String| LibraryError::NotALibrary {
        path: path.to_owned(),
        reason,
    };
    let file = fs::File::open(path).map_err(super::error::io("open", path))?;
    // SAFETY: builds are written once, under another name, and never changed.
    let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(super::error::io("map", path))?;
    let data = &bytes[..];
    let failed = |error: object::Error| unreadable(error.to_string());
    let header = elf::FileHeader64::<Endianness>::parse(data).map_err(failed)?;
    let endian = header.endian().map_err(failed)?;
    let sections = header.sections(endian, data).map_err(failed)?;
    let mut names = Vec::new();
    let Some((entries, link)) = sections.dynamic(endian, data).map_err(failed)? else {
        return Ok(names);
    };
    let strings = sections.strings(endian, data, link).map_err(failed)?;
    for entry in entries {
        if entry.tag32(endian) == Some(elf::DT_NEEDED.0 as i32)
            && let Ok(name) = entry.string(endian, strings)
        {
            names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(names)
}
