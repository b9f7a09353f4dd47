//! Where an MPI library is: named by the user, beside the launcher, where the system looks, or in the cache.

use std::path::{Path, PathBuf};

use crate::collective::{CollectiveError, Result};
use crate::library;

/// What this program fetches where nothing else is there.
pub const PACKAGE: &str = "mpich";

/// Names the library's file, or the folder of an installation.
const VARIABLE: &str = "MPNET_MPI";

/// Names under which libraries are known, best first: the standard interface, Open MPI's, MPICH's.
const NAMES: &[&str] = &[
    "libmpi_abi.so.1",
    "libmpi.so.40",
    "libmpi.so.12",
    "libmpich.so.12",
];

/// Set by Open MPI's launcher, whose ranks only its own library joins.
const OPEN_MPI: &str = "OMPI_COMM_WORLD_RANK";

/// A library of MPI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file, or a name that the system's loader knows.
    pub path: PathBuf,
    /// The launcher that belongs to it.
    pub launcher: Option<PathBuf>,
}

/// The library that this process would use.
///
/// # Errors
/// There is none.
pub fn find() -> Result<Found> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        return match named.is_dir() {
            false if named.exists() => Ok(with_launcher(named)),
            false => Err(missing(&format!(
                "{VARIABLE} names {}, which is not there",
                named.display()
            ))),
            true => library_in(&named)
                .ok_or_else(|| missing(&format!("{VARIABLE} names {}", named.display()))),
        };
    }
    installations()
        .iter()
        .find_map(|folder| library_in(folder))
        .or_else(known_to_the_system)
        .or_else(installed)
        .ok_or_else(|| missing("beside mpiexec, where the system's loader looks, in the cache"))
}

/// The launcher that belongs to the library that would be used.
///
/// # Errors
/// There is no library, or it has no launcher beside it.
pub fn launcher() -> Result<PathBuf> {
    let found = find()?;
    found.launcher.ok_or_else(|| {
        missing(&format!(
            "{} has no mpiexec beside it",
            found.path.display()
        ))
    })
}

fn missing(tried: &str) -> CollectiveError {
    CollectiveError::NoLibrary {
        library: "MPI",
        tried: tried.to_owned(),
        remedy: format!("`mpnet runtime install mpi` brings one, or {VARIABLE}=FILE names it"),
    }
}

/// Folders in which MPI may be installed, each with `bin` and `lib`.
fn installations() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut add = |program: PathBuf| {
        let real = std::fs::canonicalize(&program).unwrap_or_else(|_| program.clone());
        for program in [program, real] {
            found.extend(program.ancestors().nth(2).map(Path::to_owned));
        }
    };
    // Who started this process: hydra_pmi_proxy, prted or mpiexec itself.
    #[cfg(target_os = "linux")]
    if std::env::var_os(OPEN_MPI).is_some() || std::env::var_os("PMI_RANK").is_some() {
        let parent = std::os::unix::process::parent_id();
        if let Ok(program) = std::fs::read_link(format!("/proc/{parent}/exe")) {
            add(program);
        }
    }
    for name in ["mpiexec", "mpirun"] {
        if let Ok(program) = which::which(name) {
            add(program);
        }
    }
    found
}

/// The names to look for: Open MPI's alone below its launcher.
fn names() -> impl Iterator<Item = &'static str> {
    let open_mpi = std::env::var_os(OPEN_MPI).is_some();
    let fits = move |name: &&str| !open_mpi || **name == *"libmpi.so.40";
    NAMES.iter().copied().filter(fits)
}

fn library_in(installation: &Path) -> Option<Found> {
    let folders = ["lib", "lib64", "."].map(|folder| installation.join(folder));
    names()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.exists())
        .map(with_launcher)
}

fn with_launcher(path: PathBuf) -> Found {
    let beside = |path: &Path| {
        let program = path.ancestors().nth(2)?.join("bin/mpiexec");
        program.exists().then_some(program)
    };
    let launcher = beside(&path).or_else(|| beside(&std::fs::canonicalize(&path).ok()?));
    Found { path, launcher }
}

/// The one that this program has fetched.
fn installed() -> Option<Found> {
    let path = library::installed_library(library::library_of(PACKAGE)?)?;
    std::env::var_os(OPEN_MPI)
        .is_none()
        .then(|| with_launcher(path))
}

/// A library that the system's loader finds by its name.
fn known_to_the_system() -> Option<Found> {
    names().map(PathBuf::from).find_map(|path| {
        super::functions::load(&path).ok()?;
        let launcher = which::which("mpiexec").ok();
        Some(Found { path, launcher })
    })
}
