//! `mpnet doctor`: what of ONNX Runtime is on this machine, what it lacks, and the line that helps.

use std::path::Path;
use std::process::{Command, Stdio};

use super::common::OrtArgs;
use super::doctor_ranks;
use crate::output::{OutputError, say};
use anyhow::{Result, bail};
use clap::Args;
use mpnet_plan::{Plugin, Provider};
use mpnet_runtime::doctor::{self, Failure, ProviderReport, ProviderState, Report};
use mpnet_runtime::library::{
    Installed, LocateOptions, Origin, default_wheel, installed_plugin, plugin_of, wheel_of,
};
use mpnet_runtime::processor::Capability;

/// Arguments of `mpnet doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub ort: OrtArgs,
    /// Print only the build's providers, a line each, for the doctor that examines the others
    #[arg(long, hide = true)]
    pub providers_only: bool,
    /// Be a rank of those by which a doctor tries out a library: RANK/SIZE/FOLDER, without a folder for MPI
    #[arg(long, value_name = "RANK/SIZE/FOLDER", hide = true)]
    pub rank_of: Option<String>,
}

/// What a doctor in another process says of its build's providers, by name; or why it can say nothing.
type Answer = Result<Vec<(String, ProviderState)>, String>;

/// A build other than the one in use.
struct Elsewhere {
    /// Package and version.
    build: String,
    answer: Answer,
}

impl Elsewhere {
    fn state(&self, provider: Provider) -> Option<&ProviderState> {
        let states = self.answer.iter().flatten();
        let mut named = states.filter(|(name, _)| name == provider.name());
        named.next().map(|(_, state)| state)
    }
}

/// Examines the machine and prints what was found.
///
/// # Errors
/// There is no build with which this machine can train.
pub fn run(arguments: &DoctorArgs) -> Result<()> {
    if let Some(rank) = &arguments.rank_of {
        return doctor_ranks::be_rank(rank);
    }
    let report = doctor::examine(&LocateOptions::for_user(arguments.ort.ort.clone())?);
    if arguments.providers_only {
        let answer = answer(&report);
        say!("{}", serde_json::to_string(&answer)?)?;
        return Ok(());
    }
    say!("processor  {}", Capability::here())?;
    print_cache(&report)?;
    print_build(&report)?;
    print_providers(&report, &elsewhere(&report))?;
    doctor_ranks::print()?;
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
        .map(|(build, _)| {
            let name = format!("{} {}", build.manifest.name, build.manifest.version);
            Elsewhere {
                build: name.trim_end().to_owned(),
                answer: match std::env::current_exe() {
                    Ok(program) => ask(&program, &build.library()),
                    Err(error) => Err(format!("this program is not found: {error}")),
                },
            }
        })
        .collect()
}

/// What this process says to the doctor that started it.
fn answer(report: &Report) -> Answer {
    if let Err(error) = &report.used {
        return Err(error.to_string());
    }
    let providers = report.providers.as_ref().map_err(String::clone)?;
    let state = |p: &ProviderReport| (p.provider.name().to_owned(), p.state.clone());
    Ok(providers.iter().map(state).collect())
}

/// What a doctor of its own says of the build with the library at `library`.
fn ask(program: &Path, library: &Path) -> Answer {
    let output = Command::new(program)
        .args(["doctor", "--providers-only", "--ort"])
        .arg(library)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{} cannot be run: {e}", program.display()))?;
    let last = output
        .stdout
        .trim_ascii()
        .rsplit(|&byte| byte == b'\n')
        .next();
    match last.map(serde_json::from_slice::<Answer>) {
        Some(Ok(answer)) => answer,
        Some(Err(_)) | None => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim_end().lines().last().unwrap_or_default();
            Err(format!("it ended with {} {said}", output.status)
                .trim_end()
                .to_owned())
        }
    }
}

fn print_providers(report: &Report, elsewhere: &[Elsewhere]) -> Result<(), OutputError> {
    if let Err(problem) = &report.providers {
        say!("providers  {problem}")?;
    }
    for other in elsewhere {
        if let Err(problem) = &other.answer {
            say!("{} could not be examined: {problem}", other.build)?;
        }
    }
    for &provider in Provider::ALL {
        let name = provider.name();
        let mut here = report.providers.iter().flatten();
        match here.find(|p| p.provider == provider).map(|p| &p.state) {
            Some(ProviderState::Works(devices)) => {
                say!("{name:<10} works")?;
                print_devices(devices)?;
            }
            Some(ProviderState::Fails(failure)) => print_failure(provider, "", failure)?,
            Some(ProviderState::Absent) | None => {
                let others = || elsewhere.iter().map(|e| (e, e.state(provider)));
                let working = others().find_map(|(other, state)| match state {
                    Some(ProviderState::Works(devices)) => Some((other, devices)),
                    Some(ProviderState::Fails(_) | ProviderState::Absent) | None => None,
                });
                let failing = others().find_map(|(other, state)| match state {
                    Some(ProviderState::Fails(failure)) => Some((other, failure)),
                    Some(ProviderState::Works(_) | ProviderState::Absent) | None => None,
                });
                match (working, failing) {
                    (Some((other, devices)), _) => {
                        say!("{name:<10} works in {}", other.build)?;
                        print_devices(devices)?;
                    }
                    (None, Some((other, failure))) => {
                        print_failure(provider, &format!(" in {}", other.build), failure)?;
                    }
                    (None, None) => print_absence(provider)?,
                }
            }
        }
    }
    Ok(())
}

fn print_failure(provider: Provider, build: &str, failure: &Failure) -> Result<(), OutputError> {
    let reason = failure.reason.replace('\n', " ");
    say!("{:<10} fails{build}: {reason}", provider.name())?;
    match &failure.remedy {
        Some(remedy) => say!("           fix: {remedy}")?,
        None => say!("           needs {}", provider.info().needs)?,
    }
    Ok(())
}

/// What a plug-in found.
fn print_devices(devices: &[String]) -> Result<(), OutputError> {
    let mut numbered = devices.iter().enumerate();
    numbered.try_for_each(|(number, device)| say!("           --device-id {number}: {device}"))
}

/// That a plug-in is not there, or no build to load it; nothing of those that are not for this machine.
fn print_plugin_absence(provider: Provider, package: &str) -> Result<(), OutputError> {
    if plugin_of(package).is_none() {
        return Ok(());
    }
    if installed_plugin(package).is_some() {
        say!("{provider:<10} was fetched, but no build here loads plug-ins, as 1.22 and newer do")?;
        return say!("           fix: mpnet runtime install onnxruntime");
    }
    let needs = provider.info().needs;
    say!("{provider:<10} is not fetched; needs {needs}")?;
    say!("           fix: mpnet runtime install {provider}")
}

fn print_absence(provider: Provider) -> Result<(), OutputError> {
    match provider.info().plugin {
        Some(Plugin::Package(package)) => return print_plugin_absence(provider, package),
        Some(Plugin::Path) => return Ok(()),
        None => {}
    }
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// What another doctor says, or does not live to say.
    fn asked(script: &str) -> Answer {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("doctor");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        ask(&program, Path::new("lib.so"))
    }

    #[test]
    fn what_another_doctor_says_arrives_as_it_was_meant() {
        let failure = Failure {
            reason: "no GPU; or no driver; who knows".into(),
            remedy: Some("install a; and b".into()),
        };
        let answer: Answer = Ok(vec![
            (
                "cpu".into(),
                ProviderState::Works(vec!["Intel processor".into()]),
            ),
            ("cuda".into(), ProviderState::Fails(failure)),
        ]);
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(asked(&format!("echo noise; echo '{text}'")), answer);
    }

    #[test]
    fn a_doctor_that_dies_is_no_build_without_providers() {
        let error = asked("echo 'terminate called' >&2; kill -SEGV $$").unwrap_err();
        assert!(
            error.contains("signal") && error.contains("terminate called"),
            "{error}"
        );
        assert!(ask(Path::new("/nowhere/mpnet"), Path::new("lib.so")).is_err());
    }
}
