//! `mpnet plan`: what a run would come to on many GPUs, by a small model of them.

use super::model_file::ModelArgs;
use super::values::{count, positive};
use crate::data::Masking;
use crate::output::say;
use crate::scale::{Cluster, Forecast, Work, forecast};
use anyhow::{Context, Result};
use clap::Args;
use mpnet_graphs::ir::cost::costs;
use mpnet_graphs::lower::ort_training::training_graph;
use mpnet_graphs::model::parameters::parameters;
use mpnet_plan::Provider;

/// Floating-point operations a second of a training step on one H100 in bf16: 23.3 TFLOP in 77.2 ms, MPNet-base,
/// 64 × 512 tokens (benches/RESULTS.md).
const H100: f64 = 302e12;
/// Bytes a second that AdamW moves on it: seven of four bytes for each parameter in 1.1 ms.
const OPTIMIZER: f64 = 2.8e12;

/// Arguments of `mpnet plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Machines; every power of two below is shown, too
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count::<usize>)]
    pub nodes: usize,
    /// GPUs of a machine
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count::<usize>)]
    pub gpus_per_node: usize,
    /// Network of a machine, all its adapters together
    #[arg(long, value_name = "RATE", default_value = "400Gb", value_parser = link)]
    pub link: f64,
    /// Processor's cores of a machine
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = count::<usize>)]
    pub cores_per_node: usize,
    /// Rows of a micro-batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count::<usize>)]
    pub batch_size: usize,
    /// Micro-batches of an update, on each rank
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count::<usize>)]
    pub update_freq: usize,
    /// Tokens of a row
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count::<usize>)]
    pub max_tokens: usize,
    /// Milliseconds of a micro-batch on one GPU, as --dry-run of a run measures it [default: reckoned for an H100 in bf16]
    #[arg(long, value_name = "MS", value_parser = positive)]
    pub micro_batch_ms: Option<f64>,
    /// Reckon with an optimizer that ranks share
    #[arg(long)]
    pub shard_optimizer: bool,
    /// Megabytes a second that checkpoints are written with
    #[arg(long, value_name = "MB", default_value_t = 1000.0, value_parser = positive)]
    pub disk: f64,
}

/// Bits a second: `400Gb`, `400Gbps`, `25 Gb/s`.
fn link(text: &str) -> Result<f64, String> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = lower[number.len()..].trim();
    let factor = match unit.trim_end_matches("ps").trim_end_matches("/s") {
        "gb" | "gbit" => 1e9,
        "mb" | "mbit" => 1e6,
        "tb" | "tbit" => 1e12,
        _ => return Err("it is no rate such as 400Gb, 25Gb or 1.6Tb, in bits a second".into()),
    };
    positive(number).map(|number| factor * number)
}

/// Prints the forecast.
///
/// # Errors
/// Where the model cannot be read.
pub fn run(args: &PlanArgs) -> Result<()> {
    let model = args.model.config()?;
    let sizes = Masking::default().batch_sizes(args.batch_size, args.max_tokens);
    let graph = training_graph(&model, false, Provider::Cuda)?.0;
    let flops = costs(&graph, &sizes).total.flops as f64;
    let number: f64 = parameters(&model).iter().map(|p| p.len() as f64).sum();
    let table = model.padded_vocab_size * model.encoder_embed_dim;
    let work = Work {
        parameters: number,
        table: table as f64,
        micro_batch: args.micro_batch_ms.map_or(flops / H100, |ms| ms / 1e3),
        optimizer: 28.0 * number / OPTIMIZER,
        update_freq: args.update_freq as f64,
        tokens: (args.batch_size * args.max_tokens) as f64,
        sharded: args.shard_optimizer,
    };
    say!(
        "model        {:.1} M parameters, {:.0} MB of gradients an update",
        number / 1e6,
        4.0 * number / 1e6
    )?;
    say!(
        "micro-batch  {} × {} tokens, {:.1} ms on one GPU{}; {} of them an update on each",
        args.batch_size,
        args.max_tokens,
        1e3 * work.micro_batch,
        match args.micro_batch_ms {
            Some(_) => "",
            None => " (reckoned for an H100 in bf16)",
        },
        args.update_freq
    )?;
    say!("")?;
    say!(
        "  GPUs   rows an update   update, ms   ring, ms   tree, ms   efficiency      tokens/s   data threads"
    )?;
    let mut last = None;
    let nodes = (0..).map(|power| 1_usize << power);
    let nodes = nodes.take_while(|&nodes| nodes < args.nodes);
    for nodes in nodes.chain([args.nodes]) {
        let cluster = Cluster {
            nodes,
            gpus_per_node: args.gpus_per_node,
            link: args.link,
            cores: args.cores_per_node,
            disk: 1e6 * args.disk,
        };
        let found = forecast(&cluster, &work);
        say!(
            "{:>6} {:>16.0} {:>12.2} {:>10.2} {:>10.2} {:>11.1} % {:>13.3e} {:>14.1}",
            found.ranks,
            found.ranks * work.update_freq * args.batch_size as f64,
            1e3 * found.update,
            1e3 * found.ring,
            1e3 * found.tree,
            100.0 * found.efficiency,
            found.tokens_per_second,
            found.data_threads
        )?;
        last = Some(found);
    }
    let last = last.context("no machines")?;
    say!("")?;
    say!(
        "checkpoint   {:.2} GB, written in {:.1} s while training goes on",
        last.checkpoint / 1e9,
        last.writing
    )?;
    say!(
        "failures     {:.2} a day; a checkpoint every {:.0} min costs the least, {:.2} % of the time",
        last.failures,
        last.interval / 60.0,
        100.0 * last.lost
    )?;
    for limit in limits(&last, args) {
        say!("limit        {limit}")?;
    }
    Ok(())
}

/// Where this stops to scale.
fn limits(found: &Forecast, args: &PlanArgs) -> Vec<String> {
    let mut limits = Vec::new();
    if found.efficiency < 0.9 {
        limits.push(format!(
            "collectives take {:.0} % of an update: a larger --update-freq, or a faster --link",
            100.0 * (1.0 - found.efficiency)
        ));
    }
    if found.data_threads > found.cores {
        limits.push(format!(
            "each rank tokenizes all of the text, {:.1} threads of it, and has {:.1} cores: text beyond that is waited for",
            found.data_threads, found.cores
        ));
    }
    let rows = found.ranks * args.update_freq as f64 * args.batch_size as f64;
    if rows > 8192.0 {
        limits.push(format!(
            "{rows:.0} rows an update are more than the 8,192 that MPNet was trained with: the schedule has to change with \
             them"
        ));
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_in_bits() {
        for (text, rate) in [
            ("400Gb", 4e11),
            ("25 Gb/s", 2.5e10),
            ("1.6tbps", 1.6e12),
            ("100Mbit", 1e8),
        ] {
            assert_eq!(link(text), Ok(rate), "{text}");
        }
        for text in ["400", "Gb", "400GB of it", "-1Gb", "0Gb", ""] {
            assert!(link(text).is_err(), "{text}");
        }
    }
}
