//! `mpnet compile`: the artifacts of a model for a target.

use super::common::SeedArgs;
use super::exit;
use super::hardware::{CompiledForArgs, RecomputeArgs};
use super::model_file::ModelArgs;
use super::optimizer::OptimizerArgs;
use crate::output::say;
use crate::staging::Staging;
use crate::train::engine::write_artifacts;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use mpnet_graphs::lower::ort_training::{Options, compile};
use mpnet_graphs::lower::portable::{self, OperatorUse, coverage};
use mpnet_graphs::model::AttentionForm;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::onnx::model::OPSET;
use mpnet_plan::{Dim, Plan, Provider, Randomness, SizeInput};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What the files are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// ONNX Runtime's training API: four files
    OrtTraining,
    /// The session engine on a provider: five models
    Session,
}

/// Arguments of `mpnet compile`.
#[derive(Debug, Args)]
pub struct CompileArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Compile this
    #[arg(long, value_enum, default_value_t = Target::OrtTraining)]
    pub target: Target,
    /// Write the files to this folder
    #[arg(long, short, value_name = "FOLDER", required_unless_present = "check")]
    pub output: Option<PathBuf>,
    /// List the operators of the session engine's models and whether the provider has kernels for
    /// them; exit code 1 where it lacks one
    #[arg(long, requires = "provider")]
    pub check: bool,
    #[command(flatten)]
    pub compiled_for: CompiledForArgs,
    #[command(flatten)]
    pub recompute: RecomputeArgs,
    #[command(flatten)]
    pub seed: SeedArgs,
    /// Train without dropout: the training model then takes no masks
    #[arg(long)]
    pub no_dropout: bool,
    #[command(flatten)]
    pub optimizer: OptimizerArgs,
    /// Give gradients and logits as further outputs, for verification
    #[arg(long)]
    pub expose: bool,
}

/// Compiles and writes.
///
/// # Errors
/// Where the model is not valid or a file cannot be written.
pub fn run(args: &CompileArgs) -> Result<u8> {
    let start = Instant::now();
    let mut config = args.model.config()?;
    if args.no_dropout {
        config.dropout = 0.0;
        config.attention_dropout = 0.0;
        config.activation_dropout = 0.0;
    }
    if args.check {
        return check(args, &config);
    }
    let Some(target_folder) = &args.output else {
        return Ok(exit::DONE);
    };
    let output = target_folder.display();
    ensure!(
        target_folder.is_dir() || !target_folder.exists(),
        "{output} is not a folder: choose another --output"
    );
    let context = || format!("writing {output}");
    let staging = Staging::new(target_folder).with_context(context)?;
    let folder = staging.path();
    let lines = match args.target {
        Target::Session => write_session(args, &config, folder)?,
        Target::OrtTraining => {
            let options = Options {
                optimizer: args.optimizer.optimizer(),
                gradient_checkpointing: args.recompute.gradient_checkpointing,
                expose: args.expose,
            };
            let provider = args.compiled_for.provider;
            ensure!(
                provider.trains(),
                "the training API has no build for {provider}: use --target session"
            );
            // Python's training API has no kernel of ours.
            let attention = AttentionForm::Expanded;
            let artifacts =
                compile(&config, &options, provider, attention).context("compiling the model")?;
            let parameters = args.model.parameters(&config, args.seed.seed)?;
            write_artifacts(folder, &artifacts, &parameters)?;
            randomness_lines(&artifacts.dropout)
        }
    };
    staging.add().with_context(context)?;
    for line in lines {
        say!("{line}")?;
    }
    say!("{output} written in {:.2} s", start.elapsed().as_secs_f64())?;
    Ok(exit::DONE)
}

impl CompileArgs {
    /// The session engine's models for the provider and the arithmetic asked for.
    fn session(&self, config: &ModelConfig) -> Result<(Provider, portable::Artifacts)> {
        let provider = self.compiled_for.provider;
        let placement = self.compiled_for.execution().place();
        let options = portable::Options {
            optimizer: self.optimizer.optimizer(),
            provider,
            precision: placement.precision,
            fused_attention: placement.fused_attention,
            own_kernels: placement.own_kernels,
            gradient_checkpointing: self.recompute.gradient_checkpointing,
            ranks: 1,
            shards: 1,
            expose: self.expose,
        };
        let artifacts = portable::compile(config, &options)
            .with_context(|| format!("compiling the model for {provider}"))?;
        Ok((provider, artifacts))
    }
}

/// A line of `what` a model takes: its name and dimensions, or their values where they are it.
fn input_line(what: &str, name: &str, dims: &[Dim], further: &str) -> String {
    let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
    format!("{what} {name} [{}]{further}", dims.join(", "))
}

/// Which sizes a model takes as inputs, each an expression of the batch's.
fn size_lines(model: &str, sizes: &[SizeInput]) -> Vec<String> {
    let sizes = sizes.iter();
    let line = |size: &SizeInput| input_line(&format!("{model} size"), &size.name, &size.dims, "");
    sizes.map(line).collect()
}

/// What a training model takes for its dropout.
fn randomness_lines(randomness: &Randomness) -> Vec<String> {
    match randomness {
        Randomness::Masks(sites) => (sites.iter())
            .map(|site| {
                let ratio = format!(" ratio {}", site.ratio);
                input_line("mask", &site.name, &site.shape, &ratio)
            })
            .collect(),
        Randomness::Factors(factors) => (factors.iter())
            .map(|factor| input_line("factor", &factor.name, &factor.shape, ""))
            .collect(),
    }
}

/// Returns the lines to print.
fn write_session(args: &CompileArgs, config: &ModelConfig, folder: &Path) -> Result<Vec<String>> {
    let Plan {
        models,
        step_sizes,
        evaluation_sizes,
        dropout,
        ..
    } = args.session(config)?.1.plan;
    for (name, bytes) in [
        ("step.onnx", &models.step),
        ("eval.onnx", &models.evaluation),
        ("optimizer.onnx", &models.optimizer),
        ("clear.onnx", &models.clear),
        ("copy.onnx", &models.copy),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok([
        size_lines("step", &step_sizes),
        size_lines("eval", &evaluation_sizes),
        randomness_lines(&dropout),
    ]
    .concat())
}

/// The version of the operator's set.
fn opset(used: &OperatorUse) -> i64 {
    if used.domain.is_empty() { OPSET } else { 1 }
}

/// Prints every operator of the session engine's models and whether the provider has it; then those
/// that it lacks.
fn check(args: &CompileArgs, config: &ModelConfig) -> Result<u8> {
    let (provider, artifacts) = args.session(config)?;
    let Some(known) = &provider.info().coverage else {
        bail!("the kernels of {provider} are not listed here: a run on it says what it lacks");
    };
    say!(
        "{:34} {:9} {:>5} {:>6}  kernel",
        "operator",
        "type",
        "opset",
        "nodes"
    )?;
    let mut nodes = 0;
    let mut lacking = Vec::new();
    for (used, count) in &artifacts.operators {
        let mut name = match used.domain.is_empty() {
            true => used.op_type.clone(),
            false => format!("{}::{}", used.domain, used.op_type),
        };
        if used.open_sizes {
            name.push_str(" with open sizes");
        }
        let types = match used.op_type.as_str() {
            "Cast" => format!("{}>{}", used.dtype, used.result),
            _ => used.dtype.to_string(),
        };
        let covered = coverage::covers(provider, used);
        let verdict = if covered { "yes" } else { "NO" };
        let opset = opset(used);
        say!("{name:34} {types:9} {opset:>5} {count:>6}  {verdict}")?;
        nodes += count;
        if !covered {
            lacking.push((name, types, used, *count));
        }
    }
    let missing: usize = lacking.iter().map(|(.., count)| count).sum();
    say!("{nodes} nodes at opset {OPSET}, {missing} without a kernel on {provider}")?;
    say!("by {}", known.source)?;
    if lacking.is_empty() {
        return Ok(exit::DONE);
    }
    say!("without a kernel, training on {provider} needs --allow-cpu-nodes for:")?;
    for (name, types, used, count) in lacking {
        say!("  {count} {name} {types}, opset {}", opset(used))?;
    }
    Ok(exit::FAILED)
}
