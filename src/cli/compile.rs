//! `mpnet compile`: the artifacts of a model for a target.

use super::model_file::ModelArgs;
use crate::checkpoint::{self, Pointer};
use crate::staging::Staging;
use crate::train::engine::write_artifacts;
use crate::train::initialize::initial_parameters;
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use mpnet_graphs::lower::inference;
use mpnet_graphs::lower::ort_training::{Options, compile};
use mpnet_graphs::model::pretraining::masked_lm;
use mpnet_graphs::optimizer::adamw::AdamW;
use std::path::PathBuf;
use std::time::Instant;

/// What the files are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// ONNX Runtime's training API: four files
    OrtTraining,
    /// The single-stream encoder with the LM head, parameters as inputs: encoder.onnx
    Encoder,
}

/// Arguments of `mpnet compile`.
#[derive(Debug, Args)]
pub struct CompileArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// What to compile for
    #[arg(long, value_enum, default_value_t = Target::OrtTraining)]
    pub target: Target,
    /// Folder to write
    #[arg(long, short, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Seed of fresh parameters, where no checkpoint is given
    #[arg(long, default_value_t = 12_345)]
    pub seed: u64,
    /// Train without dropout: the training model then takes no masks
    #[arg(long)]
    pub no_dropout: bool,
    #[arg(long, default_value_t = 0.9)]
    pub beta1: f32,
    #[arg(long, default_value_t = 0.98)]
    pub beta2: f32,
    #[arg(long, default_value_t = 1e-6)]
    pub adam_eps: f32,
    /// Weight decay of the optimizer model, which knows one for all parameters
    #[arg(long, default_value_t = 0.01)]
    pub weight_decay: f32,
    #[arg(long, default_value_t = 1.0)]
    pub clip_grad_norm: f32,
    /// Gradients and logits as further outputs, for verification
    #[arg(long)]
    pub expose: bool,
}

/// Compiles and writes.
///
/// # Errors
/// Where the model is not valid or a file cannot be written.
pub fn run(args: &CompileArgs) -> Result<()> {
    let start = Instant::now();
    let mut config = args.model.config()?;
    if args.no_dropout {
        config.dropout = 0.0;
        config.attention_dropout = 0.0;
        config.activation_dropout = 0.0;
    }
    let output = args.output.display();
    ensure!(
        args.output.is_dir() || !args.output.exists(),
        "{output} is not a folder: choose another --output"
    );
    let context = || format!("writing {output}");
    let staging = Staging::new(&args.output).with_context(context)?;
    let folder = staging.path();
    match args.target {
        Target::OrtTraining => {
            let options = Options {
                optimizer: AdamW {
                    beta1: args.beta1,
                    beta2: args.beta2,
                    epsilon: args.adam_eps,
                    weight_decay: args.weight_decay,
                    clip_grad_norm: args.clip_grad_norm,
                },
                expose: args.expose,
            };
            let artifacts = compile(&config, &options).context("compiling the model")?;
            let parameters = match &args.model.checkpoint {
                Some(path) => {
                    let path = checkpoint::resolve(path, Pointer::Latest)?;
                    checkpoint::load_model(&path)?.parameters
                }
                None => initial_parameters(&config, args.seed),
            };
            write_artifacts(folder, &artifacts, &parameters)?;
            for site in &artifacts.dropout {
                let shape: Vec<String> = site.shape.iter().map(|d| d.to_string()).collect();
                println!(
                    "mask {} [{}] ratio {}",
                    site.name,
                    shape.join(", "),
                    site.ratio
                );
            }
        }
        Target::Encoder => {
            let graph = masked_lm(&config).context("building the encoder")?;
            let bytes = inference::lower(graph, "mpnet_encoder").context("lowering the encoder")?;
            let path = folder.join("encoder.onnx");
            std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    staging.add().with_context(context)?;
    println!("{output} written in {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
