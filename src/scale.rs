//! What many GPUs would make of a run: a small model of step, collectives, text, checkpoints and failures.
//!
//! Bandwidths are those of NCCL's tests ("bus bandwidth"): bytes of the buffer × 2(n − 1)/n a second, whatever the number
//! of ranks. Measured ones stand beside the constants; what was not measured is a published figure, named.

/// Bus bandwidth between GPUs of one machine by NVLink, bytes a second: 329e9, 355e9 and 361e9 were measured between 2, 4
/// and 8 H100 (NVLink multicast off).
pub fn nvlink(gpus: f64) -> f64 {
    match gpus {
        n if n <= 2.0 => 329e9,
        n if n <= 4.0 => 355e9,
        _ => 361e9,
    }
}

/// Share of a network link's rate that collectives reach, as NCCL's tests on InfiniBand show it.
const LINK_SHARE: f64 = 0.92;
/// Seconds for a message between machines, and between GPUs of one.
const HOP_BETWEEN: f64 = 12e-6;
const HOP_WITHIN: f64 = 3e-6;
/// Share of a micro-batch that is its backward pass, beside which gradients are summed.
const BACKWARD: f64 = 2.0 / 3.0;
/// What kernels beside a collective take longer, of its time: they want its multiprocessors (0.67 ms for 1.4 between two
/// H200, benches/RESULTS.md).
const BESIDE: f64 = 0.47;
/// Tokens a second that one thread reads and tokenizes (benches/RESULTS.md, words not seen before).
const TOKENIZED: f64 = 2.7e6;
/// GPU-hours between failures: 419 unexpected interruptions of 16,384 H100 in 54 days (Llama 3, arXiv 2407.21783).
const HOURS_TO_FAILURE: f64 = 16_384.0 * 54.0 * 24.0 / 419.0;
/// Seconds that a restart takes: start, compiling, the first batches.
const RESTART: f64 = 60.0;

/// What is planned.
#[derive(Debug, Clone, Copy)]
pub struct Cluster {
    pub nodes: usize,
    pub gpus_per_node: usize,
    /// Network of a machine, in bits a second: of all its adapters.
    pub link: f64,
    /// Processor's cores of a machine.
    pub cores: usize,
    /// Bytes a second that a checkpoint is written with.
    pub disk: f64,
}

/// The run on it.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Parameters of the model.
    pub parameters: f64,
    /// Those of the embeddings' table, whose gradient comes last.
    pub table: f64,
    /// Seconds of a micro-batch on one GPU.
    pub micro_batch: f64,
    /// Seconds of the optimizer on one GPU.
    pub optimizer: f64,
    /// Micro-batches of an update on each rank.
    pub update_freq: f64,
    /// Tokens of a micro-batch.
    pub tokens: f64,
    /// Whether ranks share the optimizer.
    pub sharded: bool,
}

/// What it would come to.
#[derive(Debug, Clone, Copy)]
pub struct Forecast {
    pub ranks: f64,
    /// Seconds of an update's collectives as a ring, and as trees; the better one counts.
    pub ring: f64,
    pub tree: f64,
    /// Seconds of an update.
    pub update: f64,
    /// Of the tokens a second of as many GPUs alone.
    pub efficiency: f64,
    pub tokens_per_second: f64,
    /// Threads of each rank that tokenizing takes, as each rank reads all of the text.
    pub data_threads: f64,
    /// The cores that a rank has.
    pub cores: f64,
    /// Bytes of a checkpoint, and seconds to write it (training goes on meanwhile).
    pub checkpoint: f64,
    pub writing: f64,
    /// Failures a day.
    pub failures: f64,
    /// Seconds between checkpoints at which failures cost the least (Young, 1974).
    pub interval: f64,
    /// Share of the time that failures cost then.
    pub lost: f64,
}

/// The forecast for `work` on `cluster`.
pub fn forecast(cluster: &Cluster, work: &Work) -> Forecast {
    let (nodes, local) = (cluster.nodes as f64, cluster.gpus_per_node as f64);
    let ranks = nodes * local;
    let bytes = 4.0 * work.parameters;
    let moved = |n: f64| 2.0 * (n - 1.0) / n;
    // A ring over all GPUs leaves and enters each machine once for each adapter, so that all adapters carry it together.
    let bandwidth = match cluster.nodes {
        1 => nvlink(local),
        _ => nvlink(local).min(LINK_SHARE * cluster.link / 8.0),
    };
    let (ring, tree) = match ranks {
        n if n <= 1.0 => (0.0, 0.0),
        n => {
            let steps = 2.0 * (n - 1.0);
            let between = steps / local * if nodes > 1.0 { 1.0 } else { 0.0 };
            let within = steps - between;
            let ring = moved(n) * bytes / bandwidth + between * HOP_BETWEEN + within * HOP_WITHIN;
            // Double trees between machines, chains within.
            let hops = 2.0 * nodes.log2().ceil() * HOP_BETWEEN + 2.0 * (local - 1.0) * HOP_WITHIN;
            (ring, 2.0 * bytes / bandwidth + hops)
        }
    };
    let collectives = ring.min(tree);
    let optimizer = match work.sharded {
        true => work.optimizer / ranks,
        false => work.optimizer,
    };
    let alone = work.update_freq * work.micro_batch + work.optimizer;
    // Where the optimizer is shared, half of a collective puts the parameters together, after the update.
    let sums = match work.sharded {
        true => 0.5 * collectives,
        false => collectives,
    };
    let hidden = (sums * (1.0 - work.table / work.parameters)).min(BACKWARD * work.micro_batch);
    let waited = collectives - hidden + BESIDE * hidden;
    let update = work.update_freq * work.micro_batch + optimizer + waited;
    let tokens_per_second = ranks * work.update_freq * work.tokens / update;
    let checkpoint = 12.0 * work.parameters;
    let between = HOURS_TO_FAILURE * 3600.0 / ranks;
    // Training waits only while the parameters are fetched from the GPU.
    let pause: f64 = checkpoint / 10e9;
    let interval = (2.0 * pause * between)
        .sqrt()
        .max(checkpoint / cluster.disk);
    Forecast {
        ranks,
        ring,
        tree,
        update,
        efficiency: alone / update,
        tokens_per_second,
        data_threads: tokens_per_second / TOKENIZED,
        cores: cluster.cores as f64 / local,
        checkpoint,
        writing: checkpoint / cluster.disk,
        failures: 24.0 * 3600.0 / between,
        interval,
        lost: (interval / 2.0 + RESTART) / between + pause / interval,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(nodes: usize, gpus_per_node: usize) -> Cluster {
        Cluster {
            nodes,
            gpus_per_node,
            link: 8.0 * 400e9,
            cores: 16 * gpus_per_node,
            disk: 1e9,
        }
    }

    fn base(update_freq: f64) -> Work {
        Work {
            parameters: 109.6e6,
            table: 23.4e6,
            micro_batch: 0.0772,
            optimizer: 0.0011,
            update_freq,
            tokens: 64.0 * 512.0,
            sharded: false,
        }
    }

    #[test]
    fn what_was_measured_comes_out() {
        // The all-reduce of 109.6 M f32 between two H200 took 1.42 ms, between eight H100 2.13 ms.
        for (gpus, measured) in [(2, 1.42e-3), (8, 2.13e-3)] {
            let found = forecast(&cluster(1, gpus), &base(1.0));
            let collectives = found.ring.min(found.tree);
            assert!(
                (collectives / measured - 1.0).abs() < 0.12,
                "{gpus}: {collectives}"
            );
        }
        let alone = forecast(&cluster(1, 1), &base(1.0));
        assert_eq!((alone.efficiency, alone.ring), (1.0, 0.0));
        // Two H200 kept 0.97 of their speed at 64 rows each and 0.94 to 0.98 at 16: there is no skew in this model.
        for (micro_batch, kept) in [(0.0722, 0.97), (0.0217, 0.96)] {
            let work = Work {
                micro_batch,
                ..base(1.0)
            };
            let found = forecast(&cluster(1, 2), &work).efficiency;
            assert!((found - kept).abs() < 0.025, "{found}, measured {kept}");
        }
        // BERT-large, 336 M parameters, kept 86 % of its speed from 8 GPUs to 64 (MLPerf v3.1), with smaller batches and
        // gradients of 16 bits on 8 adapters of 400 Gb: this model has no stragglers and is above that.
        let large = Work {
            parameters: 336e6 / 2.0,
            micro_batch: 0.05,
            ..base(1.0)
        };
        let [one, eight] = [1, 8].map(|nodes| forecast(&cluster(nodes, 8), &large));
        let kept = eight.tokens_per_second / 8.0 / one.tokens_per_second;
        assert!((0.86..1.0).contains(&kept), "{kept}");
    }

    #[test]
    fn slow_links_and_many_ranks_cost_and_accumulation_helps() {
        let slow = Cluster {
            link: 25e9,
            ..cluster(2, 8)
        };
        let [once, often] = [1.0, 8.0].map(|freq| forecast(&slow, &base(freq)));
        // By hand: 822 MB through 2.9 GB/s are 0.29 s, of which two thirds of a micro-batch hide 0.05 at half their time:
        // 0.26 beside 0.078 s of work, and beside 0.62.
        assert!((once.efficiency - 0.23).abs() < 0.02 && (often.efficiency - 0.70).abs() < 0.02);
        let [few, many] = [2, 125].map(|nodes| forecast(&cluster(nodes, 8), &base(1.0)));
        assert!(many.efficiency < few.efficiency && many.tree < many.ring);
        assert!(
            many.failures > 0.4 && many.failures < 0.6,
            "{}",
            many.failures
        );
        assert!(few.data_threads < few.cores && many.data_threads > many.cores);
        let sharded = Work {
            sharded: true,
            ..base(1.0)
        };
        assert!(forecast(&cluster(2, 8), &sharded).update < few.update);
    }
}
