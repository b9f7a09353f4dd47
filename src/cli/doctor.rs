//! `mpnet doctor`: what of ONNX Runtime is on this machine, what it lacks, and the line that helps.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use mpnet_runtime::doctor::{self, ProviderState, Report};
use mpnet_runtime::library::{Installed, LocateOptions, Origin, default_wheel, wheel_of};

/// Arguments of `mpnet doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// ONNX Runtime library or wheel, or a folder holding one
    #[arg(long, value_name = "PATH")]
    pub ort: Option<PathBuf>,
}

/// Examines the machine and prints what was found.
///
/// # Errors
/// There is no build with which this machine can train.
pub fn run(arguments: &DoctorArgs) -> Result<()> {
    let report = doctor::examine(&LocateOptions::for_user(arguments.ort.clone())?);
    print_cache(&report);
    print_build(&report);
    print_providers(&report);
    match &report.used {
        Ok(_) => Ok(()),
        Err(_) => bail!("no ONNX Runtime can be used on this machine"),
    }
}

fn print_cache(report: &Report) {
    println!("cache      {}", report.cache.display());
    match &report.installed {
        Ok(builds) if builds.is_empty() => println!("           empty"),
        Ok(builds) => {
            for (build, health) in builds {
                let name = format!("{} {}", build.manifest.name, build.manifest.version);
                match health {
                    Ok(()) => println!("           {name}: whole"),
                    Err(error) => {
                        println!("           {name}: damaged: {error}");
                        println!("           fix: {}", repair(build));
                    }
                }
            }
        }
        Err(error) => println!("           {error}"),
    }
    match report.clients.as_slice() {
        [] => println!("fetching   neither pip nor uv was found; one is needed to fetch a build"),
        clients => println!("fetching   {}", clients.join(", ")),
    }
    if let Some(wheel) = default_wheel() {
        println!(
            "           default for this machine: {}",
            wheel.requirement()
        );
    }
}

/// The line that replaces a damaged build.
fn repair(build: &Installed) -> String {
    match wheel_of(&build.manifest.name) {
        Some(wheel) => format!("mpnet runtime install --force {}", wheel.package),
        None => format!(
            "rm -r {}, then --ort with its wheel",
            build.folder.display()
        ),
    }
}

fn print_build(report: &Report) {
    match &report.used {
        Ok((build, loaded)) => {
            let origin = match build.origin {
                Origin::Requested => "--ort",
                Origin::Environment => "ORT_DYLIB_PATH",
                Origin::Cache => "the cache",
            };
            println!("in use     ONNX Runtime {} from {origin}", loaded.version);
            println!("           {}", loaded.path.display());
            if loaded.has_training_api {
                println!("           has the training API");
            } else {
                println!(
                    "           lacks the training API, which the session engine does without"
                );
            }
        }
        Err(error) => {
            println!("in use     none: {error}");
            println!("           fix: mpnet runtime install");
        }
    }
}

fn print_providers(report: &Report) {
    for provider in &report.providers {
        let entry = provider.entry;
        match &provider.state {
            ProviderState::Works => println!("{:<10} works", entry.name),
            ProviderState::Fails(reason) => println!("{:<10} fails: {reason}", entry.name),
            ProviderState::Absent => {
                println!(
                    "{:<10} is not in this build; needs {}",
                    entry.name, entry.needs
                );
                match wheel_of(entry.package) {
                    Some(wheel) => {
                        println!("           fix: mpnet runtime install {}", wheel.package);
                    }
                    None => println!(
                        "           fix: pip download --no-deps {}, then --ort with the wheel",
                        entry.package
                    ),
                }
            }
        }
    }
}
