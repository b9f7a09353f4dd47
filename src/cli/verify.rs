//! `mpnet verify`: golden cases on this machine's ONNX Runtime.

use super::exit;
use super::hardware::{HardwareArgs, RecomputeArgs};
use super::model_file::ModelArgs;
use crate::output::say;
use crate::train::execution::Execution;
use crate::train::placement::Placement;
use crate::verify::{Case, Report, against_f32, verify};
use anyhow::{Context, Result, ensure};
use clap::Args;
use mpnet_runtime::library::Loaded;
use std::path::PathBuf;

/// Of the parameters where no checkpoint gives them.
const SEED: u64 = 12_345;

/// Arguments of `mpnet verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Run the golden case in this folder; can be given more than once
    #[arg(long, value_name = "DIR", required_unless_present = "against_fp32")]
    pub case: Vec<PathBuf>,
    /// Compare one step of a model in --precision with the same step in fp32
    #[arg(long)]
    pub against_fp32: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Rows of the compared step
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub rows: usize,
    /// Tokens of each of its rows
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub length: usize,
    #[command(flatten)]
    pub hardware: HardwareArgs,
    #[command(flatten)]
    pub recompute: RecomputeArgs,
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

/// Verifies every case, or the precision. The exit code is 1 if any quantity is outside its tolerance.
///
/// # Errors
/// Where a case cannot be run.
pub fn run(args: &VerifyArgs) -> Result<u8> {
    let execution = Execution {
        gradient_checkpointing: args.recompute.gradient_checkpointing,
        ..args.hardware.execution()
    };
    let placement = execution.place();
    let loaded = placement.load(args.hardware.requested())?;
    let mut reports = Vec::new();
    if args.against_fp32 {
        let report = precision(args, &loaded, &placement).context("comparing precisions")?;
        if !args.json {
            say!("{report}\n")?;
        }
        reports.push(report);
    }
    for folder in &args.case {
        let context = || format!("verifying {}", folder.display());
        let case = Case::load(folder).with_context(context)?;
        let report = verify(&loaded, &case, &placement).with_context(context)?;
        if !args.json {
            say!("{report}\n")?;
        }
        reports.push(report);
    }
    if args.json {
        say!("{}", serde_json::to_string_pretty(&reports)?)?;
    }
    let passed = reports.iter().all(Report::passed);
    Ok(if passed { exit::DONE } else { exit::FAILED })
}

fn precision(args: &VerifyArgs, loaded: &Loaded, placement: &Placement) -> Result<Report> {
    let config = args.model.config()?;
    ensure!(
        args.rows >= 1 && (3..=config.max_positions).contains(&args.length),
        "--rows {} and --length {}: at least one row is needed, and 3 to {} tokens in it",
        args.rows,
        args.length,
        config.max_positions
    );
    let parameters = args.model.parameters(&config, SEED)?;
    against_f32(
        loaded,
        &config,
        &parameters,
        (args.rows, args.length),
        placement,
    )
}
