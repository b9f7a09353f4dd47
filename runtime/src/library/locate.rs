//! Finds the build to use: the one asked for, the environment's, the cache's, or one fetched now.

use crate::lfs::refuse_pointer;
use std::fs;
use std::path::{Path, PathBuf};

use mpnet_plan::Provider;

use super::cache::{Cache, plugin_folder};
use super::error::{LibraryError, Result};
use super::files::{files_below, is_wheel, library_in};
use super::install::{self, InstallOptions};
use super::pinned::{default_wheel, plugin_of, wheel_of};
use super::pinned_wheel::PinnedWheel;

/// Where to look for a build.
#[derive(Debug, Clone)]
pub struct LocateOptions {
    /// `--ort`: a library, a wheel, or a folder holding one.
    pub requested: Option<PathBuf>,
    /// The variable `ORT_DYLIB_PATH`, read in the same way.
    pub environment: Option<PathBuf>,
    /// The build to take from the cache or to fetch; the default one for this machine if absent.
    pub wheel: Option<&'static PinnedWheel>,
    /// Fetch a build if none is found.
    pub download: bool,
    /// The cache, and how to fetch.
    pub install: InstallOptions,
}

impl LocateOptions {
    /// The user's environment and cache, with downloads.
    ///
    /// # Errors
    /// [`LibraryError::NoCacheFolder`].
    pub fn for_user(requested: Option<PathBuf>) -> Result<Self> {
        Ok(Self {
            requested,
            environment: std::env::var_os("ORT_DYLIB_PATH")
                .filter(|value| !value.is_empty())
                .map(PathBuf::from),
            wheel: None,
            download: true,
            install: InstallOptions::for_user()?,
        })
    }

    /// The same for a build that has `provider`, with the training API or without.
    ///
    /// # Errors
    /// [`LibraryError::NoCacheFolder`]; [`LibraryError::NothingPublished`] if no build is pinned for this machine
    /// and the user names none.
    pub fn for_provider(
        requested: Option<PathBuf>,
        provider: Provider,
        training_api: bool,
    ) -> Result<Self> {
        let options = Self::for_user(requested)?;
        if options.requested.is_some() || options.environment.is_some() {
            return Ok(options);
        }
        Ok(Self {
            wheel: Some(wheel_for(provider, training_api)?),
            ..options
        })
    }
}

/// Whether a build with `provider` and the training API is pinned for this machine.
pub fn has_training_build(provider: Provider) -> bool {
    provider
        .info()
        .training_package
        .and_then(wheel_of)
        .is_some()
}

/// The pinned build for this machine that has `provider`, with the training API or without.
fn wheel_for(provider: Provider, training_api: bool) -> Result<&'static PinnedWheel> {
    let info = provider.info();
    let training_package = info.training_package.filter(|_| training_api);
    let package = training_package.unwrap_or(info.package);
    wheel_of(package).ok_or(LibraryError::NothingPublished {
        provider,
        package,
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
    })
}

/// How a build was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `--ort`.
    Requested,
    /// `ORT_DYLIB_PATH`.
    Environment,
    /// The cache, from an earlier installation or from one made now.
    Cache,
}

/// A build of ONNX Runtime on this machine, not loaded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The library file or the training wheel's extension.
    pub path: PathBuf,
    /// How it was found.
    pub origin: Origin,
}

/// Finds a build, fetching one if there is none and `download` is set.
///
/// # Errors
/// The path asked for holds no build, or none can be fetched.
pub fn locate(options: &LocateOptions) -> Result<Build> {
    let cache = || options.install.cache.clone();
    if let Some(path) = &options.requested {
        return Ok(Build {
            path: resolve("--ort", path, cache())?,
            origin: Origin::Requested,
        });
    }
    if let Some(path) = &options.environment {
        return Ok(Build {
            path: resolve("ORT_DYLIB_PATH", path, cache())?,
            origin: Origin::Environment,
        });
    }
    let installed = if options.download {
        install::install(options.wheel, &options.install)?
    } else {
        options
            .wheel
            .or_else(default_wheel)
            .and_then(|wheel| Cache::at(cache()).find(&wheel.key()))
            .ok_or_else(|| LibraryError::NotInstalled { cache: cache() })?
    };
    Ok(Build {
        path: installed.library(),
        origin: Origin::Cache,
    })
}

/// The library of a pinned plug-in, fetched if it is not in the cache.
///
/// # Errors
/// It is not published for this machine, or cannot be fetched.
pub fn locate_plugin(package: &'static str) -> Result<PathBuf> {
    let wheel = plugin_of(package).ok_or(LibraryError::NoPlugin {
        package,
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
    })?;
    let installed = install::install(Some(wheel), &InstallOptions::for_plugins()?)?;
    Ok(installed.library())
}

/// The library of a pinned plug-in, if it was fetched.
pub fn installed_plugin(package: &str) -> Option<PathBuf> {
    let cache = Cache::at(plugin_folder().ok()?);
    Some(cache.find(&plugin_of(package)?.key())?.library())
}

/// The library that a path of the user's stands for.
fn resolve(origin: &'static str, path: &Path, cache: PathBuf) -> Result<PathBuf> {
    let Ok(metadata) = fs::metadata(path) else {
        return Err(LibraryError::Missing {
            origin,
            path: path.to_owned(),
        });
    };
    if metadata.is_file() {
        refuse_pointer(path)?;
        return if is_wheel(path) {
            Ok(install::install_wheel(path, cache)?.library())
        } else {
            Ok(path.to_owned())
        };
    }
    if let Some(library) = library_in(path) {
        return Ok(library);
    }
    match files_below(path).into_iter().find(|file| is_wheel(file)) {
        Some(wheel) => Ok(install::install_wheel(&wheel, cache)?.library()),
        None => Err(LibraryError::EmptyFolder {
            origin,
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_provider_without_a_build_here_gets_no_other_ones() {
        let error = wheel_for(Provider::DirectMl, false).unwrap_err();
        assert!(
            matches!(
                error,
                LibraryError::NothingPublished {
                    provider: Provider::DirectMl,
                    ..
                }
            ),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains("directml") && text.contains("--ort"),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_git_has_not_fetched_is_named_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let hash = "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
        let pointer = format!("version https://git-lfs.github.com/spec/v1\n{hash}\nsize 12345\n");
        for name in ["libonnxruntime.so", "onnxruntime-1.32.0-py3-none-any.whl"] {
            let path = folder.path().join(name);
            fs::write(&path, &pointer).unwrap();
            let error = resolve("--ort", &path, folder.path().to_owned()).unwrap_err();
            assert!(error.to_string().contains("git lfs pull"), "{error}");
        }
    }

    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn a_build_has_the_provider_that_is_asked_for() {
        let package = |provider, training| wheel_for(provider, training).unwrap().package;
        assert_eq!(package(Provider::Cpu, true), "onnxruntime-training-cpu");
        assert_eq!(package(Provider::Cpu, false), "onnxruntime");
        assert_eq!(package(Provider::OpenVino, false), "onnxruntime-openvino");
    }
}
