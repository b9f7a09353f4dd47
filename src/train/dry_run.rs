//! `--dry-run`: what a run would take, from its graph and a short measurement.

use super::config::TrainConfig;
use super::engine::Running;
use super::feeder::{Feeder, stalled};
use super::ranks::Ranks;
use crate::data::dropout::MaskKey;
use crate::machine;
use crate::output::{complain, say};
use crate::stop::StopSignal;
use anyhow::{Context, Result};
use mpnet_plan::Symbol;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Micro-batches that are measured, after a first that is not.
const MEASURED: u32 = 5;
/// No further one is started after this long.
const LONGEST: Duration = Duration::from_secs(30);

/// Prints what the run would take from update `step` on, unless `stop` comes first; of several ranks the first one does,
/// and each measures. Nothing is written.
///
/// # Errors
/// Where a batch cannot be read or trained on.
pub fn dry_run(
    config: &TrainConfig,
    running: &mut Running,
    feeder: &mut Feeder,
    ranks: &Ranks,
    step: u64,
    stop: &StopSignal,
) -> Result<()> {
    let count: u64 = running
        .task
        .parameters()
        .iter()
        .map(|p| p.len() as u64)
        .sum();
    let sizes = config.largest_batch();
    let rows = sizes.get(Symbol::BATCH).unwrap_or_default();
    let activations = running.step_memory(&sizes);
    let flops = running.step_cost(&sizes)?;

    // Whole updates would change nothing more: gradients are what costs.
    let (mut tokens, mut measured, mut took) = (0, 0, Duration::ZERO);
    let mut done = 0;
    let mut batches = VecDeque::new();
    for index in 0..=MEASURED {
        while batches.is_empty() {
            let report = |waited| complain(&stalled(step + 1, waited));
            let fed = feeder.next(stop, report);
            match fed.context("reading a batch to measure")? {
                Some(prepared) => batches.extend(prepared.batches),
                None => return Ok(()),
            }
        }
        let Some((number, batch)) = batches.pop_front() else {
            break;
        };
        let key = MaskKey {
            seed: config.seed,
            update: step + 1,
            micro_batch: number as u32,
            site: 0,
        };
        let started = Instant::now();
        if let Some(gathers) = batch.gathers() {
            running
                .given_rows(&gathers, key)
                .context("measuring what embeds a part of a batch")?;
        }
        running
            .train_step(batch.as_ref(), batch.items(), key)
            .context("measuring a step")?;
        // The first one allocates, and ranks connect when they first add up gradients.
        if index == 0 {
            running
                .engine
                .optimizer_step(0.0)
                .context("making a first update")?;
        } else {
            took += started.elapsed();
            tokens += batch.tokens();
            done += running.step_cost(&batch.sizes())?;
            measured += 1;
            if took > LONGEST {
                break;
            }
        }
    }
    ranks.wait("measuring an update")?;
    let (started, before) = (Instant::now(), ranks.spent());
    running
        .engine
        .optimizer_step(0.0)
        .context("measuring an update")?;
    let optimizer = started.elapsed();
    let collectives = ranks.spent() - before;

    let updates = config.schedule.total_updates.saturating_sub(step);
    let per_batch = took.as_secs_f64() / f64::from(measured.max(1));
    let world = ranks.world();
    let per_rank = config.update_freq / world;
    let per_update = per_batch * per_rank as f64 + optimizer.as_secs_f64();
    let tokens_per_batch = f64::from(tokens as u32) / f64::from(measured.max(1));
    let tokens_per_update = tokens_per_batch * config.update_freq as f64;
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let memory =
        machine::memory().map_or(String::new(), |memory| format!(", {:.3} GB", gb(memory)));
    let holds = ranks.texts(&format!(
        "{}, {per_rank} of {} micro-batches, {:.3} s an update{memory}",
        running.placement, config.update_freq, per_update
    ))?;
    if !ranks.writes() {
        return Ok(());
    }
    say!("dry run: nothing is trained, nothing is written")?;
    say!("execution    {}", running.placement)?;
    for (rank, holds) in holds.iter().enumerate().filter(|_| world > 1) {
        say!("rank {rank:<8}{}: {holds}", ranks.host(rank))?;
    }
    say!("parameters   {count} ({:.1} M)", count as f64 / 1e6)?;
    say!("memory       weights      {:>9.3} GB", gb(4 * count))?;
    say!("             gradients    {:>9.3} GB", gb(4 * count))?;
    let parts = if running.placement.shard_optimizer {
        world as u64
    } else {
        1
    };
    say!(
        "             moments      {:>9.3} GB",
        gb(8 * count / parts)
    )?;
    say!(
        "             activations  {:>9.3} GB at most, for {} × {} tokens",
        gb(activations),
        rows,
        config.max_tokens
    )?;
    if let Some(memory) = machine::memory() {
        say!("             this process {:>9.3} GB now", gb(memory))?;
    }
    if world > 1 {
        say!(
            "collectives  {:.1} ms an update for {:.3} GB of gradients, by {}",
            1e3 * collectives.as_secs_f64(),
            gb(4 * count),
            ranks.group().description()
        )?;
    }
    say!(
        "work         {:.3} TFLOP for a micro-batch of {} × {} tokens",
        flops as f64 / 1e12,
        rows,
        config.max_tokens
    )?;
    say!(
        "steps        {updates} updates of {} × {} rows{}",
        config.update_freq,
        rows,
        match world {
            1 => String::new(),
            _ => format!(", {per_rank} × {rows} on each of {world} ranks"),
        }
    )?;
    say!(
        "tokens       {tokens_per_update:.0} an update, {:.3e} in all, at the lengths measured",
        tokens_per_update * updates as f64
    )?;
    say!(
        "time         {per_update:.3} s an update, {} in all, without validation",
        duration(per_update * updates as f64)
    )?;
    say!(
        "speed        {:.0} tokens/s{}, measured over {measured} micro-batches",
        tokens_per_update / per_update.max(1e-9),
        match world {
            1 => String::new(),
            _ => format!(
                " ({world} × {:.0})",
                tokens_per_update / per_update.max(1e-9) / world as f64
            ),
        }
    )?;
    if let Some(peak) = running.placement.peak() {
        let done = done as f64 / f64::from(measured.max(1)) * per_rank as f64;
        say!(
            "peak         {:.1} % of the {:.2} TFLOP/s that there are at most{}",
            100.0 * done / per_update.max(1e-9) / peak,
            peak / 1e12,
            match world {
                1 => "",
                _ => " on a rank",
            }
        )?;
    }
    Ok(())
}

/// Seconds in the largest unit that fits.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}
