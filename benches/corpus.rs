//! The whole data path over a corpus: tokens per second, padding and memory. It prints, nothing more.
//!
//! `cargo bench --bench corpus -- --text PATH --tokenizer DIR [--threads 1] [--seconds 20] [--batches N]
//! [--batch 16] [--tokens 512] [--mode eos] [--plain] [--buffer 10000]`, or `-- --synthesize GIGABYTES FILE` to
//! make a corpus. With `--batches` it prints one line: tokens per second of the first N, from the start of the loader
//! with nothing in its cache.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mpnet::data::rng::{Purpose, below, keyed};
use mpnet::data::{BreakMode, LoaderConfig, Sources, Tokenizer, TrainLoader};

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let value = |name: &str| {
        let place = arguments.iter().position(|a| a == name)?;
        arguments.get(place + 1).cloned()
    };
    let number = |name: &str, usual: usize| {
        value(name).map_or(usual, |text| text.parse().expect("a number"))
    };
    if let Some(gigabytes) = value("--synthesize") {
        let file = arguments.last().expect("the file");
        synthesize(gigabytes.parse().expect("a number"), Path::new(file));
        return;
    }
    let (Some(text), Some(tokenizer)) = (value("--text"), value("--tokenizer")) else {
        println!("usage: see the first lines of benches/corpus.rs");
        return;
    };
    let tokenizer = Arc::new(Tokenizer::load(&tokenizer).expect("a tokenizer"));
    let sources = Arc::new(Sources::local(Path::new(&text), "text").expect("text"));
    let (batch, tokens) = (number("--batch", 16), number("--tokens", 512));
    let config = LoaderConfig {
        threads: number("--threads", 1),
        buffer_size: number("--buffer", 10_000),
        sample_break_mode: value("--mode").map_or(BreakMode::Eos, |mode| {
            BreakMode::from_name(&mode).expect("a break mode")
        }),
        group_by_length: !arguments.iter().any(|a| a == "--plain"),
        ..LoaderConfig::new(sources, batch, tokens, 1)
    };
    let started = Instant::now();
    let mut loader = TrainLoader::new(config, tokenizer, None).expect("a loader");
    if let Some(batches) = value("--batches") {
        let batches = 0..batches.parse().expect("a number");
        let tokens = batches.map(|_: usize| loader.next().expect("a batch").0.tokens);
        let tokens: usize = tokens.sum();
        let seconds = started.elapsed().as_secs_f64();
        println!("{tokens} tokens, {:.0} tokens/s", tokens as f64 / seconds);
        return;
    }
    loader.next().expect("a batch");
    println!(
        "first batch after {:.2} s, {:.2} CPU seconds, {:.0} MiB",
        started.elapsed().as_secs_f64(),
        cpu_seconds(),
        resident()
    );
    measure(&mut loader, number("--seconds", 20));
}

/// Takes batches as fast as they come; a line every tenth of the time.
fn measure(loader: &mut TrainLoader, seconds: usize) {
    let (started, limit) = (Instant::now(), Duration::from_secs(seconds as u64));
    let cpu = cpu_seconds();
    let (mut tokens, mut padded, mut next) = (0usize, 0usize, limit / 10);
    let (mut predicted, mut own_shares) = (0usize, 0usize);
    while started.elapsed() < limit {
        let (batch, _) = loader.next().expect("a batch");
        tokens += batch.tokens;
        padded += batch.rows * batch.length;
        predicted += batch.predicted_tokens;
        own_shares += batch.own_shares;
        if started.elapsed() >= next {
            next += limit / 10;
            println!(
                "{:5.1} s: {:9.0} tokens/s, {:9.0} per CPU second, padding {:.2} %, predicted {:.2} % of rows alone, {:.0} MiB, epoch {}",
                started.elapsed().as_secs_f64(),
                tokens as f64 / started.elapsed().as_secs_f64(),
                tokens as f64 / (cpu_seconds() - cpu),
                100.0 * (1.0 - tokens as f64 / padded as f64),
                100.0 * predicted as f64 / own_shares as f64,
                resident(),
                loader.state().epoch(),
            );
        }
    }
}

/// Resident memory of this process in MiB; 0 where the system does not say.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Processor time of all threads so far, where ticks are hundredths of a second, as on Linux.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or("");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

/// Lines of 20 to 700 words out of 60,000, frequent ones more often.
fn synthesize(gigabytes: u64, path: &Path) {
    let mut rng = keyed(1, Purpose::Shuffle, 0, 0);
    let syllables = ["ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "zu"];
    let words: Vec<String> = (0..60_000usize)
        .map(|i| {
            let digits = i.to_string();
            let parts = digits.bytes().map(|d| syllables[usize::from(d - b'0')]);
            parts.collect()
        })
        .collect();
    let mut file = BufWriter::new(std::fs::File::create(path).expect("a new file"));
    let mut left = gigabytes as i64 * 1_000_000_000;
    while left > 0 {
        for _ in 0..20 + below(&mut rng, 681) {
            // The product of two even draws is small more often than not.
            let (a, b) = (below(&mut rng, 60_000), below(&mut rng, 60_000));
            let word = &words[(u64::from(a) * u64::from(b) / 60_000) as usize];
            file.write_all(word.as_bytes()).expect("space on the disk");
            file.write_all(b" ").expect("space on the disk");
            left -= word.len() as i64 + 1;
        }
        file.write_all(b"\n").expect("space on the disk");
    }
    file.flush().expect("space on the disk");
}
