//! `mpnet doctor`: what of ONNX Runtime is on this machine, what it lacks, and the line that helps.

use std::path::Path;
use std::process::{Command, Stdio};

use super::common::OrtArgs;
use crate::output::{OutputError, say};
use anyhow::{Result, bail};
use clap::Args;
use mpnet_plan::Provider;
use mpnet_runtime::doctor::{self, ProviderState, Report};
use mpnet_runtime::library::{Installed, LocateOptions, Origin, default_wheel, wheel_of};

/// Arguments of `mpnet doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub ort: OrtArgs,
    /// Print only the build's providers, a line each, for the doctor that examines the others
    #[arg(long, hide = true)]
    pub providers_only: bool,
}

/// What a build other than the one in use says of one of its providers.
struct Elsewhere {
    provider: String,
    /// Package and version of the build.
    build: String,
    /// Why it fails, if it does.
    failure: Option<String>,
}

/// Examines the machine and prints what was found.
///
/// # Errors
/// There is no build with which this machine can train.
pub fn run(arguments: &DoctorArgs) -> Result<()> {
    let report = doctor::examine(&LocateOptions::for_user(arguments.ort.ort.clone())?);
    if arguments.providers_only {
        for provider in &report.providers {
            match &provider.state {
                ProviderState::Works => say!("{}", provider.provider)?,
                ProviderState::Fails(reason) => {
                    say!("{} {}", provider.provider, reason.replace('\n', " "))?;
                }
                ProviderState::Absent => {}
            }
        }
        return Ok(());
    }
    print_cache(&report)?;
    print_build(&report)?;
    print_providers(&report, &elsewhere(&report))?;
    match &report.used {
        Ok(_) => Ok(()),
        Err(_) => bail!("no ONNX Runtime can be used on this machine"),
    }
}

fn print_cache(report: &Report) -> Result<(), OutputError> {
    say!("cache      {}", report.cache.display())?;
    match &report.installed {
        Ok(builds) if builds.is_empty() => say!("           empty")?,
        Ok(builds) => {
            for (build, health) in builds {
                let name = format!("{} {}", build.manifest.name, build.manifest.version);
                match health {
                    Ok(()) => say!("           {name}: whole")?,
                    Err(error) => {
                        say!("           {name}: damaged: {error}")?;
                        say!("           fix: {}", repair(build))?;
                    }
                }
            }
        }
        Err(error) => say!("           {error}")?,
    }
    match report.clients.as_slice() {
        [] => say!("fetching   neither pip nor uv was found; one is needed to fetch a build")?,
        clients => say!("fetching   {}", clients.join(", "))?,
    }
    if let Some(wheel) = default_wheel() {
        say!(
            "           default for this machine: {}",
            wheel.requirement()
        )?;
    }
    Ok(())
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

fn print_build(report: &Report) -> Result<(), OutputError> {
    match &report.used {
        Ok((build, loaded)) => {
            let origin = match build.origin {
                Origin::Requested => "--ort",
                Origin::Environment => "ORT_DYLIB_PATH",
                Origin::Cache => "the cache",
            };
            say!("in use     ONNX Runtime {} from {origin}", loaded.version)?;
            say!("           {}", loaded.path.display())?;
            if loaded.has_training_api {
                say!("           has the training API")?;
            } else {
                say!("           lacks the training API, which the session engine does without")?;
            }
        }
        Err(error) => {
            say!("in use     none: {error}")?;
            say!("           fix: mpnet runtime install")?;
        }
    }
    Ok(())
}

/// What the other builds of the cache say, each in a process of its own: one process can load one build.
fn elsewhere(report: &Report) -> Vec<Elsewhere> {
    let used = report.used.as_ref().ok().map(|(build, _)| &build.path);
    let others = report.installed.iter().flatten();
    others
        .filter(|(build, health)| health.is_ok() && Some(&build.library()) != used)
        .flat_map(|(build, _)| {
            let name = format!("{} {}", build.manifest.name, build.manifest.version);
            ask(&build.library(), name.trim_end())
        })
        .collect()
}

fn ask(library: &Path, build: &str) -> Vec<Elsewhere> {
    let answer = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .args(["doctor", "--providers-only", "--ort"])
            .arg(library)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
    });
    let Ok(answer) = answer else {
        return Vec::new();
    };
    String::from_utf8_lossy(&answer.stdout)
        .lines()
        .map(|line| {
            let (provider, failure) = match line.split_once(' ') {
                Some((provider, reason)) => (provider, Some(reason.to_owned())),
                None => (line, None),
            };
            Elsewhere {
                provider: provider.to_owned(),
                build: build.to_owned(),
                failure,
            }
        })
        .collect()
}

fn print_providers(report: &Report, elsewhere: &[Elsewhere]) -> Result<(), OutputError> {
    for &provider in Provider::ALL {
        let name = provider.name();
        let here = report.providers.iter().find(|p| p.provider == provider);
        let others = || elsewhere.iter().filter(|e| e.provider == name);
        match here.map(|found| &found.state) {
            Some(ProviderState::Works) => say!("{name:<10} works")?,
            Some(ProviderState::Fails(reason)) => print_failure(provider, "", reason)?,
            Some(ProviderState::Absent) | None => {
                let working = others().find(|e| e.failure.is_none());
                let failing = others().find_map(|e| Some((e, e.failure.as_ref()?)));
                match (working, failing) {
                    (Some(other), _) => say!("{name:<10} works in {}", other.build)?,
                    (None, Some((other, reason))) => {
                        print_failure(provider, &format!(" in {}", other.build), reason)?;
                    }
                    (None, None) => print_absence(provider)?,
                }
            }
        }
    }
    Ok(())
}

fn print_failure(provider: Provider, build: &str, reason: &str) -> Result<(), OutputError> {
    // What misses libraries ends with the line that brings them.
    let (reason, fix) = match reason.rsplit_once("; ") {
        Some((reason, fix)) => (reason, Some(fix)),
        None => (reason, None),
    };
    say!("{:<10} fails{build}: {reason}", provider.name())?;
    match fix {
        Some(fix) => say!("           fix: {fix}")?,
        None => say!("           needs {}", provider.info().needs)?,
    }
    Ok(())
}

fn print_absence(provider: Provider) -> Result<(), OutputError> {
    say!(
        "{:<10} is in no build here; needs {}",
        provider.name(),
        provider.info().needs
    )?;
    let package = provider.info().package;
    match wheel_of(package) {
        Some(_) => say!("           fix: mpnet runtime install {provider}")?,
        None => {
            say!("           fix: pip download --no-deps {package}, then --ort with the wheel")?
        }
    }
    Ok(())
}
