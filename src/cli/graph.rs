//! `mpnet graph`: a model's graph as text, and its figures.

use super::model_file::ModelArgs;
use anyhow::Result;
use clap::{Args, ValueEnum};
use mpnet_graphs::ir::Graph;
use mpnet_graphs::lower::ort_training::{eval_graph, training_graph};
use mpnet_graphs::model::pretraining::{masked_lm, pretraining};
use std::collections::BTreeMap;

/// Which graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// The two-stream model as it is defined
    Model,
    /// Loss, gradients and accumulation, optimised
    Training,
    /// Loss and accuracy, optimised
    Evaluation,
    /// The single-stream encoder with the LM head
    Encoder,
}

/// Arguments of `mpnet graph`.
#[derive(Debug, Args)]
pub struct GraphArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Which graph
    #[arg(long, value_enum, default_value_t = Stage::Training)]
    pub stage: Stage,
    /// Every node, not only the figures
    #[arg(long)]
    pub nodes: bool,
}

/// Prints the graph.
///
/// # Errors
/// Where the model is not valid.
pub fn run(args: &GraphArgs) -> Result<()> {
    let config = args.model.config()?;
    let graph: Graph = match args.stage {
        Stage::Model => pretraining(&config, true)?.graph,
        Stage::Training => training_graph(&config, false)?.0,
        Stage::Evaluation => eval_graph(&config, false)?,
        Stage::Encoder => masked_lm(&config)?,
    };
    if args.nodes {
        print!("{graph}");
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for node in graph.nodes() {
        *counts.entry(node.op.operator().name()).or_default() += 1;
    }
    for (name, count) in &counts {
        println!("{count:6} {name}");
    }
    let parameters: usize = mpnet_graphs::model::parameters::parameters(&config)
        .iter()
        .map(mpnet_graphs::model::parameters::Parameter::len)
        .sum();
    println!(
        "{} nodes, {} inputs, {} parameter tensors, {:.1} M parameters",
        graph.nodes().len(),
        graph.inputs().len(),
        graph.parameters().len(),
        parameters as f64 / 1e6
    );
    Ok(())
}
