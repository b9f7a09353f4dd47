//! `mpnet runtime install|list|path`: the builds of ONNX Runtime in the cache, their plug-ins, and the libraries that
//! join ranks.

use super::common::OrtArgs;
use super::values::one_of;
use crate::output::say;
use anyhow::{Context as _, Result, anyhow};
use clap::{Args, Subcommand};
use mpnet_plan::{Plugin, Provider};
use mpnet_runtime::collective;
use mpnet_runtime::library::{self, ClientKind, InstallOptions, LocateOptions};

/// The verbs of `mpnet runtime`.
#[derive(Debug, Subcommand)]
pub enum RuntimeCommand {
    /// Fetch a build through pip or uv, check its SHA-256 and unpack it into the cache
    Install(InstallArgs),
    /// List the builds in the cache
    List,
    /// Print the library that would be loaded
    Path(PathArgs),
}

/// Arguments of `mpnet runtime install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Package to fetch, or the provider whose build or plug-in it is (such as `plugin:openvino`), or `nccl` or
    /// `mpi`, which join several GPUs or processors [default: the training build for this machine]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Fetch with this program [default: whichever is there]
    #[arg(long, value_name = "CLIENT",
        value_parser = one_of(vec![("pip".into(), ClientKind::Pip), ("uv".into(), ClientKind::Uv)]))]
    pub client: Option<ClientKind>,
    /// Fetch again what is in the cache already
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `mpnet runtime path`.
#[derive(Debug, Args)]
pub struct PathArgs {
    #[command(flatten)]
    pub ort: OrtArgs,
}

/// Runs one verb.
///
/// # Errors
/// The cache cannot be used, or nothing could be fetched or found.
pub fn run(command: &RuntimeCommand) -> Result<()> {
    match command {
        RuntimeCommand::Install(arguments) => install(arguments),
        RuntimeCommand::List => list(),
        RuntimeCommand::Path(arguments) => path(arguments),
    }
}

fn install(arguments: &InstallArgs) -> Result<()> {
    let (wheel, options) = match &arguments.name {
        None => (None, InstallOptions::for_user()?),
        Some(name) => {
            let package = package(name);
            if let Some(wheel) = library::library_of(package) {
                (Some(wheel), InstallOptions::for_libraries()?)
            } else if let Some(wheel) = library::plugin_of(package) {
                (Some(wheel), InstallOptions::for_plugins()?)
            } else {
                let wheel = library::wheel_of(package);
                let wheel = wheel.ok_or_else(|| unknown_package(package))?;
                (Some(wheel), InstallOptions::for_user()?)
            }
        }
    };
    let options = InstallOptions {
        client: arguments.client,
        force: arguments.force,
        ..options
    };
    let what = arguments.name.as_deref().unwrap_or("ONNX Runtime");
    let installed =
        library::install(wheel, &options).with_context(|| format!("installing {what}"))?;
    say!("{}", installed.library().display())?;
    Ok(())
}

/// The package that a name stands for.
fn package(name: &str) -> &str {
    match name {
        "mpi" => collective::mpi::PACKAGE,
        "nccl" => collective::nccl::package(),
        _ => match name.parse::<Provider>() {
            Ok(provider) => match provider.info().plugin {
                Some(Plugin::Package(package)) => package,
                Some(Plugin::Path) | None => provider.info().package,
            },
            Err(_) => name,
        },
    }
}

fn unknown_package(package: &str) -> anyhow::Error {
    let known = library::wheels_here()
        .chain(library::plugins_here())
        .chain(library::libraries_here());
    let known: Vec<_> = known.map(|wheel| wheel.package).collect();
    anyhow!(
        "there is no pinned build '{package}' for this machine, only: {}; download its wheel and give it with --ort",
        known.join(", ")
    )
}

fn list() -> Result<()> {
    let cache = library::cache_folder()?;
    let mut builds = library::list(&cache).context("listing the builds in the cache")?;
    for folder in [library::plugin_folder()?, library::library_folder()?] {
        builds.extend(library::list(&folder).context("listing the libraries in the cache")?);
    }
    if builds.is_empty() {
        say!(
            "no build in {}; `mpnet runtime install` fetches one",
            cache.display()
        )?;
    }
    for build in builds {
        say!(
            "{} {} ({:.1} MB, by {}) {}",
            build.manifest.name,
            build.manifest.version,
            build.manifest.library_bytes as f64 / 1e6,
            build.manifest.source,
            build.library().display()
        )?;
        if let Err(error) = build.verify() {
            say!("  damaged: {error}")?;
        }
    }
    Ok(())
}

fn path(arguments: &PathArgs) -> Result<()> {
    let options = LocateOptions {
        download: false,
        ..LocateOptions::for_user(arguments.ort.ort.clone())?
    };
    let build = library::locate(&options).context("looking for ONNX Runtime")?;
    say!("{}", build.path.display())?;
    Ok(())
}
