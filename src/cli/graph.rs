//! `mpnet graph`: a model's graph as text, and its figures.

use super::hardware::{CompiledForArgs, RecomputeArgs};
use super::model_file::ModelArgs;
use crate::output::{OutputError, say};
use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use mpnet_graphs::ir::Bindings;
use mpnet_graphs::ir::cost::{Cost, costs, parameter_count};
use mpnet_graphs::ir::memory::{execution_order, memory};
use mpnet_graphs::lower::evaluation;
use mpnet_graphs::lower::export::{self, Weights};
use mpnet_graphs::lower::ort_training::{self, training_graph};
use mpnet_graphs::lower::portable::{self, Options, step_graph};
use mpnet_graphs::model::AttentionForm;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::encoder::{Head, TextSizes, encoder};
use mpnet_graphs::model::pretraining::pretraining;
use mpnet_graphs::onnx::model::OPSET;
use mpnet_graphs::ops::Graph;
use mpnet_graphs::passes::Pipeline;
use mpnet_plan::{AdamW, Provider, Symbol};

/// Which graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// The two-stream model as it is defined
    Model,
    /// Loss, gradients and accumulation, optimised
    Training,
    /// The same as the session engine runs it on --provider in --precision
    Step,
    /// Loss and accuracy, optimised
    Evaluation,
    /// The same as the session engine runs it on --provider in --precision
    EvaluationStep,
    /// The encoder as it is exported in f32
    Export,
}

/// Arguments of `mpnet graph`.
#[derive(Debug, Args)]
pub struct GraphArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Print this graph
    #[arg(long, value_enum, default_value_t = Stage::Training)]
    pub stage: Stage,
    #[command(flatten)]
    pub compiled_for: CompiledForArgs,
    #[command(flatten)]
    pub recompute: RecomputeArgs,
    /// Print the passes that make the graph of a stage other than model, in order, and nothing else
    #[arg(long)]
    pub passes: bool,
    /// Print every node, not only the figures
    #[arg(long)]
    pub nodes: bool,
    /// Print what lies in memory at its fullest
    #[arg(long)]
    pub memory: bool,
    /// Rows of the batch that the figures are for
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,
    /// Tokens of a row [default: the longest row of the model]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub length: Option<u32>,
    /// Predicted tokens of a row [default: 15 % of its tokens]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub predicted: Option<u32>,
}

impl GraphArgs {
    fn options(&self) -> Options {
        let placement = self.compiled_for.execution().place();
        Options {
            optimizer: AdamW::default(),
            provider: self.compiled_for.provider,
            precision: placement.precision,
            fused_attention: placement.fused_attention,
            own_kernels: placement.own_kernels,
            gradient_checkpointing: self.recompute.gradient_checkpointing,
            ranks: 1,
            shards: 1,
            expose: false,
        }
    }

    /// The passes of the stage.
    fn pipeline(&self, config: &ModelConfig) -> Result<Pipeline> {
        match self.stage {
            Stage::Training => {
                let options = ort_training::Options {
                    optimizer: AdamW::default(),
                    gradient_checkpointing: self.recompute.gradient_checkpointing,
                    expose: false,
                };
                let provider = self.compiled_for.provider;
                Ok(ort_training::training_passes(config, &options, provider)?)
            }
            Stage::Step => Ok(portable::step_passes(config, &self.options())?),
            Stage::Evaluation => Ok(evaluation::passes()),
            Stage::EvaluationStep => Ok(portable::eval_passes(self.options())),
            Stage::Export => Ok(export::pipeline(Weights::F32, OPSET)),
            Stage::Model => {
                bail!("no passes make the graph of --stage model; ask for --stage step or another")
            }
        }
    }

    /// The sizes of the batch that the figures are for.
    fn sizes(&self, longest: usize) -> Result<Bindings> {
        let length = self.length.map_or(longest, |n| n as usize);
        let share = (0.15 * length as f64).round_ties_even() as usize;
        let predicted = self.predicted.map_or(share.max(1), |n| n as usize);
        ensure!(
            length <= longest,
            "--length {length} is more than the model's longest row, {longest} tokens"
        );
        ensure!(
            predicted < length,
            "--predicted {predicted} leaves none of the {length} tokens of a row to predict from"
        );
        Ok(Bindings::new([
            (Symbol::BATCH, self.batch_size as usize),
            (Symbol::LENGTH, length),
            (Symbol::PREDICTED, predicted),
        ]))
    }
}

/// Prints the graph.
///
/// # Errors
/// Where the model is not valid.
pub fn run(args: &GraphArgs) -> Result<()> {
    let config = args.model.config()?;
    if args.passes {
        say!("{}", args.pipeline(&config)?.to_string().trim_end())?;
        return Ok(());
    }
    let sizes = args.sizes(config.max_positions)?;
    let graph: Graph = match args.stage {
        Stage::Model => pretraining(&config, true, AttentionForm::Expanded)?.graph,
        Stage::Training => training_graph(&config, false, Provider::Cpu)?.0,
        Stage::Step => step_graph(&config, &args.options())?.graph,
        Stage::Evaluation => evaluation::eval_graph(&config, false)?,
        Stage::EvaluationStep => portable::eval_graph(&config, &args.options())?,
        Stage::Export => {
            let mut graph = encoder(&config, &Head::None, &TextSizes::default())?;
            export::pipeline(Weights::F32, OPSET).run(&mut graph)?;
            graph
        }
    };
    if args.nodes {
        say!("{}", graph.to_string().trim_end())?;
    }
    let costs = costs(&graph, &sizes);
    say!(
        "{:<18}{:>6}{:>14}{:>14}",
        "op",
        "nodes",
        "GFLOP",
        "MB moved"
    )?;
    let line = |name: &str, nodes: usize, cost: &Cost| -> Result<(), OutputError> {
        let (gflop, megabytes) = (cost.flops as f64 / 1e9, cost.bytes as f64 / 1e6);
        say!("{name:<18}{nodes:>6}{gflop:>14.3}{megabytes:>14.1}")
    };
    for (name, (nodes, cost)) in &costs.by_op {
        line(name, *nodes, cost)?;
    }
    line("total", graph.nodes().len(), &costs.total)?;
    let parameters = parameter_count(&graph);
    say!(
        "{} inputs, {} parameter tensors of {:.1} M elements, {:.1} MB in f32",
        graph.inputs().len(),
        graph.parameters().len(),
        parameters as f64 / 1e6,
        4.0 * parameters as f64 / 1e6
    )?;
    let order = execution_order(&graph);
    let peak = memory(&graph, &order, &sizes);
    say!(
        "{:.2} GB of intermediate values at most, at node {} of {}",
        peak.peak as f64 / 1e9,
        peak.at + 1,
        order.len()
    )?;
    if args.memory {
        let mut alive: Vec<_> = peak.alive.iter().collect();
        alive.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
        for ((op, ty), (count, bytes)) in alive {
            say!("{:>8.3} GB  {count:>4} × {ty} of {op}", *bytes as f64 / 1e9)?;
        }
    }
    let size = |symbol| sizes.get(symbol).unwrap_or_default();
    say!(
        "figures for {} rows of {} tokens, {} of them predicted",
        size(Symbol::BATCH),
        size(Symbol::LENGTH),
        size(Symbol::PREDICTED)
    )?;
    Ok(())
}
