//! Where the library is: named by the user, where the system looks, in a Python package, or in the cache.

use std::path::PathBuf;

use super::Vendor;
use super::functions::Functions;
use crate::collective::{CollectiveError, Result};
use crate::device;
use crate::library;

/// Names the library's file.
const VARIABLE: &str = "MPNET_NCCL";

/// A library between GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file, or a name that the system's loader knows.
    pub path: PathBuf,
    /// "2.31.2".
    pub version: String,
}

/// The package of NCCL that fits this machine's driver.
pub fn package() -> &'static str {
    match device::nvidia_driver() {
        // Those for CUDA 12 run on later drivers, those for 13 on no earlier one.
        Some((..13, _)) => "nvidia-nccl-cu12",
        Some(_) | None => "nvidia-nccl-cu13",
    }
}

/// The library that this process would use.
///
/// # Errors
/// There is none.
pub fn find(vendor: Vendor) -> Result<Found> {
    let name = match vendor {
        Vendor::Nvidia => "libnccl.so.2",
        Vendor::Amd => "librccl.so.1",
    };
    let missing = |tried: String| CollectiveError::NoLibrary {
        library: vendor.library(),
        tried,
        remedy: match vendor {
            Vendor::Nvidia => {
                format!("`mpnet runtime install nccl` brings one, or {VARIABLE}=FILE names it")
            }
            Vendor::Amd => format!("it comes with ROCm; {VARIABLE}=FILE names it"),
        },
    };
    let load = |path: PathBuf| {
        let version = Functions::load(vendor, &path)?.version()?;
        Ok::<_, CollectiveError>(Found { path, version })
    };
    if let Some(named) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        return match named.exists() {
            true => load(named),
            false => Err(missing(format!(
                "{VARIABLE} names {}, which is not there",
                named.display()
            ))),
        };
    }
    if let Ok(found) = load(name.into()) {
        return Ok(found);
    }
    let mut refused = None;
    for path in candidates(vendor, name)
        .into_iter()
        .filter(|path| path.exists())
    {
        match load(path) {
            Ok(found) => return Ok(found),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| {
        missing(format!(
            "{name} is not where the system's loader looks, in no Python package, not in the cache"
        ))
    }))
}

fn candidates(vendor: Vendor, name: &str) -> Vec<PathBuf> {
    match vendor {
        Vendor::Nvidia => {
            let folders = library::nvidia_folders();
            let mut found: Vec<PathBuf> = folders.iter().map(|folder| folder.join(name)).collect();
            found.extend(library::library_of(package()).and_then(library::installed_library));
            found
        }
        Vendor::Amd => vec![PathBuf::from("/opt/rocm/lib").join(name)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NCCL makes ids without a GPU, so that what finds and loads it is tested where it is; its package is too large
    /// to be fetched for that.
    #[test]
    fn nccl_is_found_or_said_to_be_missing() {
        match find(Vendor::Nvidia) {
            Ok(found) => {
                assert!(found.version.starts_with("2."), "{found:?}");
                let functions = Functions::load(Vendor::Nvidia, &found.path).unwrap();
                let ids = [
                    functions.unique_id().unwrap(),
                    functions.unique_id().unwrap(),
                ];
                assert_ne!(ids[0], ids[1]);
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("mpnet runtime install nccl"), "{text}");
            }
        }
    }
}
