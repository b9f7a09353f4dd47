//! Collates batches of token ids from standard input, a JSON array of rows a line, and prints every batch as
//! a line of JSON: what `tests/python/check_collator.py` compares with annotated-mpnet's collator.

use std::io::{BufRead, BufWriter, Write};

use anyhow::{Context, Result};
use clap::Parser;
use mpnet::data::rng::{Purpose, keyed};
use mpnet::data::{Collator, Masking, Tokenizer};
use serde_json::json;

#[derive(Debug, Parser)]
struct Args {
    /// Folder of the tokenizer that made the rows
    tokenizer: String,
    /// Times that each batch is collated
    #[arg(long, default_value_t = 1)]
    repeat: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 0.15)]
    pred_prob: f64,
    #[arg(long, default_value_t = 0.1)]
    keep_prob: f64,
    #[arg(long, default_value_t = 0.1)]
    rand_prob: f64,
    #[arg(long)]
    no_whole_word_mask: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let masking = Masking {
        pred_prob: args.pred_prob,
        keep_prob: args.keep_prob,
        rand_prob: args.rand_prob,
        whole_words: !args.no_whole_word_mask,
        ..Masking::default()
    };
    let tokenizer = Tokenizer::load(&args.tokenizer)?;
    let mut collator = Collator::new(&tokenizer, &masking)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for (index, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.context("reading the rows")?;
        let rows: Vec<Vec<u32>> = serde_json::from_str(&line)
            .with_context(|| format!("reading the rows of line {}", index + 1))?;
        for repeat in 0..args.repeat {
            let mut rng = keyed(args.seed, Purpose::Training, index as u64, repeat);
            let batch = collator.collate(&rows, &mut rng)?;
            let printed = json!({
                "rows": batch.rows,
                "length": batch.length,
                "predicted": batch.predicted,
                "input_ids": batch.input_ids,
                "positions": batch.positions,
                "targets": batch.targets,
                "attention_mask": batch.attention_mask,
            });
            writeln!(out, "{printed}").context("writing a batch")?;
        }
    }
    out.flush().context("writing the batches")
}
