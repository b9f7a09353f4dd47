//! Puts builds into the cache: pinned wheels through a client, and wheels that the user has.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use mpnet_plan::Provider;

use super::cache::{
    Cache, Installed, Manifest, cache_folder, library_folder, or_own, plugin_folder,
};
use super::client::{self, Client, ClientKind, Fetched};
use super::error::{LibraryError, Result, io};
use super::pinned::default_wheel;
use super::pinned_wheel::PinnedWheel;
use super::{digest, files, wheel};
use crate::digest::sha256_file;

/// How to install.
#[derive(Debug, Clone)]
pub struct InstallOptions {
    /// The folder of builds; [`cache_folder`](super::cache_folder) by default.
    pub cache: PathBuf,
    /// Only this client; by default whichever is there.
    pub client: Option<ClientKind>,
    /// Where to look for clients, as in the variable `PATH`.
    pub search_path: Option<OsString>,
    /// Fetch again what is there already.
    pub force: bool,
}

impl InstallOptions {
    /// The user's cache folder and search path.
    ///
    /// # Errors
    /// [`LibraryError::NoCacheFolder`].
    pub fn for_user() -> Result<Self> {
        Ok(Self {
            cache: or_own(cache_folder())?,
            client: None,
            search_path: std::env::var_os("PATH"),
            force: false,
        })
    }

    /// The same for plug-ins.
    ///
    /// # Errors
    /// [`LibraryError::NoCacheFolder`].
    pub fn for_plugins() -> Result<Self> {
        Ok(Self {
            cache: or_own(plugin_folder())?,
            ..Self::for_user()?
        })
    }

    /// The same for libraries that join ranks.
    ///
    /// # Errors
    /// [`LibraryError::NoCacheFolder`].
    pub fn for_libraries() -> Result<Self> {
        Ok(Self {
            cache: or_own(library_folder())?,
            ..Self::for_user()?
        })
    }
}

/// Makes sure that `wheel` (by default the one for this machine) is in the cache, fetching it if needed.
///
/// Safe to run in several processes at once: one fetches, the others wait and find it.
///
/// # Errors
/// Nothing is published for this machine, there is no client or none succeeds, or what came is not what it must be.
pub fn install(wheel: Option<&'static PinnedWheel>, options: &InstallOptions) -> Result<Installed> {
    let wheel = wheel
        .or_else(default_wheel)
        .ok_or(LibraryError::NothingPublished {
            provider: Provider::Cpu,
            package: Provider::Cpu.info().package,
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
        })?;
    let cache = Cache::at(options.cache.clone());
    let key = wheel.key();
    if !options.force
        && let Some(installed) = cache.find(&key)
    {
        return Ok(installed);
    }
    let (cache, _lock) = cache.writable()?;
    if !options.force
        && let Some(installed) = cache.find(&key)
    {
        return Ok(installed);
    }
    let clients = client::find(options.search_path.as_deref(), options.client);
    if clients.is_empty() {
        return Err(LibraryError::NoClient {
            requirement: wheel.requirement(),
        });
    }
    let mut complaints = Vec::new();
    for client in &clients {
        let folder = cache.unfinished()?;
        match client.fetch(wheel, folder.path())? {
            Ok(fetched) => {
                let installed = accept(
                    &cache,
                    wheel,
                    client,
                    &fetched,
                    folder.path(),
                    options.force,
                )?;
                tracing::info!(path = %installed.folder.display(), "installed {}", wheel.requirement());
                return Ok(installed);
            }
            Err(complaint) => complaints.push(complaint),
        }
    }
    Err(LibraryError::ClientsFailed {
        requirement: wheel.requirement(),
        complaints: complaints.join("; "),
    })
}

/// Checks what a client brought and moves it into the cache.
fn accept(
    cache: &Cache,
    wheel: &PinnedWheel,
    client: &Client,
    fetched: &Fetched,
    folder: &Path,
    force: bool,
) -> Result<Installed> {
    let contents = match fetched {
        Fetched::Wheel(file) => {
            digest::check(file, &wheel.wheel)?;
            let contents = folder.join("contents");
            wheel::unpack(file, &contents, |path| {
                wheel.files().any(|file| Path::new(file.path) == path)
            })?;
            contents
        }
        Fetched::Unpacked(contents) => contents.clone(),
    };
    let build = folder.join("build");
    for file in wheel.files() {
        let source = contents.join(file.path);
        digest::check(&source, file)?;
        let target = build.join(file.path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(io("create the folder", parent))?;
        }
        fs::rename(&source, &target).map_err(io("move", source))?;
        if file.path.starts_with("bin/") {
            make_executable(&target)?;
        }
    }
    let manifest = Manifest {
        name: wheel.package.to_owned(),
        version: wheel.version.to_owned(),
        source: client.kind.to_string(),
        wheel_sha256: match fetched {
            Fetched::Wheel(_) => Some(wheel.wheel.sha256.to_owned()),
            Fetched::Unpacked(_) => None,
        },
        library: wheel.library.path.into(),
        library_bytes: wheel.library.bytes,
    };
    if force {
        cache.remove(&wheel.key())?;
    }
    cache.adopt(&wheel.key(), &build, &manifest)
}

/// Lets a file be run, as clients do with a wheel's programs.
fn make_executable(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .map_err(io("make executable", path))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Unpacks a wheel that the user gave into the cache, under its hash.
///
/// # Errors
/// The wheel is damaged or holds no ONNX Runtime.
pub(super) fn install_wheel(file: &Path, cache: PathBuf) -> Result<Installed> {
    let cache = Cache::at(cache);
    let sha256 = sha256_file(file).map_err(io("read", file))?;
    let key = format!("wheel-{}", &sha256[..16]);
    if let Some(installed) = cache.find(&key) {
        return Ok(installed);
    }
    let (cache, _lock) = cache.writable()?;
    let folder = cache.unfinished()?;
    let build = folder.path().join("build");
    wheel::unpack(file, &build, wheel::is_library_or_licence)?;
    let library = files::library_in(&build).ok_or_else(|| LibraryError::WheelWithoutLibrary {
        path: file.to_owned(),
    })?;
    let library_bytes = library.metadata().map_err(io("read", &library))?.len();
    let manifest = Manifest {
        name: file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        version: String::new(),
        source: "wheel".to_owned(),
        wheel_sha256: Some(sha256),
        library: library.strip_prefix(&build).unwrap_or(&library).to_owned(),
        library_bytes,
    };
    cache.adopt(&key, &build, &manifest)
}
