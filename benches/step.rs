//! Times whole training steps (dropout masks, forward, backward, optimizer) of one architecture on
//! synthetic rows, as one JSON line: `cargo bench --bench step -- --layers 4 --dim 256 …`.

use anyhow::{Context, Result};
use clap::Parser;
use mpnet::cli::hardware::{HardwareArgs, RecomputeArgs};
use mpnet::data::loader::GROUP_ROWS;
use mpnet::data::masking::Masking;
use mpnet::data::synthetic::synthetic_batch;
use mpnet::data::tokenizer::Vocabulary;
use mpnet::data::{Batch, MaskKey};
use mpnet::initialize::initial_parameters;
use mpnet::train::config::Architecture;
use mpnet::train::engine::start;
use mpnet::train::execution::Execution;
use mpnet::train::micro_batch::MicroBatch;
use mpnet_graphs::lower::ort_training::Options;
use mpnet_graphs::model::config::{Activation, ModelConfig};
use mpnet_graphs::optimizer::adamw::AdamW;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Instant;

/// Times whole training steps; the defaults are MPNet-base's.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value_t = 12)]
    layers: usize,
    #[arg(long, default_value_t = 768)]
    dim: usize,
    #[arg(long, default_value_t = 3072)]
    ffn: usize,
    #[arg(long, default_value_t = 12)]
    heads: usize,
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Tokens a row.
    #[arg(long, default_value_t = 512)]
    seq: usize,
    /// Rows of a quarter to all of these tokens, evenly spread, and like lengths together as in training
    #[arg(long)]
    ragged: bool,
    #[arg(long, default_value_t = 30527)]
    vocab: usize,
    #[arg(long, default_value_t = 0.1)]
    dropout: f32,
    /// Timed steps; the median counts.
    #[arg(long, default_value_t = 10)]
    steps: u64,
    /// Steps before the timed ones.
    #[arg(long, default_value_t = 3)]
    warmup: u64,
    #[command(flatten)]
    hardware: HardwareArgs,
    #[command(flatten)]
    recompute: RecomputeArgs,
    /// Cargo passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let threads = args.hardware.threads.unwrap_or(2);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    let config = model(&args);
    let started = Instant::now();
    let execution = Execution {
        largest_batch: Some(Masking::default().batch_sizes(args.batch, args.seq)),
        gradient_checkpointing: args.recompute.gradient_checkpointing,
        threads: Some(threads),
        ..args.hardware.execution()
    };
    let placement = execution.place();
    let loaded = placement
        .load(args.hardware.requested())
        .context("finding ONNX Runtime")?;
    let options = Options {
        optimizer: AdamW::default(),
        gradient_checkpointing: placement.gradient_checkpointing,
        expose: false,
    };
    let initial = initial_parameters(&config, 1);
    let mut running = start(&loaded, &config, &options, &initial, &placement)?;
    drop(initial);
    let start_s = started.elapsed().as_secs_f64();

    let batches = batches(&config, &args);
    let mut step_ms = Vec::new();
    let mut tokens = 0;
    for step in 0..args.warmup + args.steps {
        let batch = &batches[step as usize % batches.len()];
        let begun = Instant::now();
        let key = MaskKey {
            seed: 1,
            update: step,
            micro_batch: 0,
            site: 0,
        };
        running.train_step(batch, batch.items(), key)?;
        running.engine.optimizer_step(1e-4)?;
        if step >= args.warmup {
            step_ms.push(begun.elapsed().as_secs_f64() * 1e3);
            tokens += batch.tokens;
        }
    }
    let all_ms: f64 = step_ms.iter().sum();
    step_ms.sort_by(f64::total_cmp);
    let median = step_ms[step_ms.len() / 2];
    // Steps of different lengths have no typical one.
    let tokens_per_s = match args.ragged {
        true => tokens as f64 / all_ms * 1e3,
        false => (args.batch * args.seq) as f64 / median * 1e3,
    };
    println!(
        "{}",
        serde_json::json!({
            "ort": loaded.version,
            "layers": args.layers,
            "dim": args.dim,
            "batch": args.batch,
            "seq": args.seq,
            "threads": threads,
            "step_ms": (median * 100.0).round() / 100.0,
            "ragged": args.ragged,
            "tokens_per_s": (tokens_per_s * 10.0).round() / 10.0,
            "peak_gib": peak_gib().map(|gib| (gib * 100.0).round() / 100.0),
            "start_s": (start_s * 100.0).round() / 100.0,
        })
    );
    Ok(())
}

/// What the steps take in turn: full rows, or as many groups of like lengths as make up a loader's group.
fn batches(config: &ModelConfig, args: &Args) -> Vec<Batch> {
    if !args.ragged {
        let full = |i| synthetic_batch(config, &vec![args.seq; args.batch], i);
        return (0..4).map(full).collect();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut lengths: Vec<usize> = (0..GROUP_ROWS.max(32 * args.batch))
        .map(|_| rng.random_range(args.seq / 4..=args.seq))
        .collect();
    lengths.sort_unstable();
    let groups = lengths.chunks_exact(args.batch).enumerate();
    let mut batches: Vec<Batch> = groups
        .map(|(i, lengths)| synthetic_batch(config, lengths, i as u64))
        .collect();
    batches.shuffle(&mut rng);
    batches
}

fn model(args: &Args) -> ModelConfig {
    let architecture = Architecture {
        encoder_layers: args.layers,
        encoder_embed_dim: args.dim,
        encoder_ffn_dim: args.ffn,
        encoder_attention_heads: args.heads,
        activation_fn: Activation::Gelu,
        normalize_before: false,
        max_positions: args.seq,
        relative_attention_num_buckets: ModelConfig::default_num_buckets(args.seq),
        relative_attention_max_distance: ModelConfig::default_max_distance(args.seq),
        dropout: args.dropout,
        attention_dropout: args.dropout,
        activation_dropout: args.dropout,
    };
    architecture.model(&Vocabulary {
        size: args.vocab,
        pad: 1,
        bos: 0,
        eos: 2,
        unk: 3,
        mask: args.vocab as i64 - 1,
    })
}

/// Most memory that the process held at once, where the system tells.
fn peak_gib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / f64::from(1 << 20))
}
