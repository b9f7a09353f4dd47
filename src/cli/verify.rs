//! `mpnet verify`: golden cases on this machine's ONNX Runtime.

use super::exit;
use super::hardware::HardwareArgs;
use crate::verify::{Case, verify};
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;

/// Arguments of `mpnet verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Folder of a golden case; can be given more than once
    #[arg(long, value_name = "DIR", required = true)]
    pub case: Vec<PathBuf>,
    /// ONNX Runtime to use
    #[arg(long, value_name = "PATH")]
    pub ort: Option<PathBuf>,
    #[command(flatten)]
    pub hardware: HardwareArgs,
    /// Threads of ONNX Runtime [default: all cores]
    #[arg(long)]
    pub threads: Option<usize>,
    /// JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

/// Verifies every case. The exit code is 1 if any quantity is outside its tolerance.
///
/// # Errors
/// Where a case cannot be run.
pub fn run(args: &VerifyArgs) -> Result<u8> {
    let execution = args.hardware.execution(args.threads);
    let loaded = execution.load(args.ort.clone())?;
    let mut reports = Vec::new();
    for folder in &args.case {
        let context = || format!("verifying {}", folder.display());
        let case = Case::load(folder).with_context(context)?;
        let report = verify(&loaded, &case, &execution).with_context(context)?;
        if !args.json {
            println!("{report}\n");
        }
        reports.push(report);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    }
    let passed = reports.iter().all(crate::verify::Report::passed);
    Ok(if passed { exit::DONE } else { exit::FAILED })
}
