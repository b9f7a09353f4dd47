//! Criterion benchmarks of the data path: tokenizing, masking, loading and dropout masks, one thread each.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mpnet::data::rng::{Purpose, keyed};
use mpnet::data::{
    Collator, LoaderConfig, MaskKey, Masking, Sources, Tokenizer, TrainLoader, fill_keep_mask,
};

/// Tokenizer and texts: the example's, or those that MPNET_BENCH_TOKENIZER and MPNET_BENCH_TEXT name.
fn inputs() -> (Tokenizer, Vec<String>) {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/");
    let named = |variable: &str, example: &str| {
        std::env::var(variable).unwrap_or_else(|_| examples.to_owned() + example)
    };
    let tokenizer = Tokenizer::load(&named("MPNET_BENCH_TOKENIZER", "tokenizer")).unwrap();
    let text = named("MPNET_BENCH_TEXT", "corpus/valid.txt");
    let sources = Sources::local(Path::new(&text), "text").unwrap();
    let texts = sources.texts().map(|text| text.unwrap()).collect();
    (tokenizer, texts)
}

fn tokenize(c: &mut Criterion) {
    let (tokenizer, texts) = inputs();
    // Passages joined by fives, so that rows of 512 tokens are full.
    let texts: Vec<String> = texts.chunks(5).map(|five| five.join(" ")).collect();
    let mut group = c.benchmark_group("tokenize");
    for max_tokens in [128, 512] {
        let encode = |text: &String| tokenizer.encode(text, max_tokens).unwrap();
        let tokens: usize = texts.iter().map(|text| encode(text).len()).sum();
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(format!("{} texts, {max_tokens} tokens", texts.len()), |b| {
            b.iter(|| texts.iter().for_each(|text| drop(black_box(encode(text)))));
        });
    }
}

fn collate(c: &mut Criterion) {
    let (tokenizer, texts) = inputs();
    let texts: Vec<String> = texts.chunks(5).map(|five| five.join(" ")).collect();
    let mut group = c.benchmark_group("collate");
    for (rows, max_tokens) in [(16, 128), (16, 512)] {
        let rows: Vec<_> = (texts.iter().cycle().take(rows))
            .map(|text| tokenizer.encode(text, max_tokens).unwrap())
            .collect();
        let mut collator = Collator::new(&tokenizer, &Masking::default()).unwrap();
        let mut rng = keyed(1, Purpose::Training, 0, 0);
        let tokens: usize = rows.iter().map(Vec::len).sum();
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(format!("{} rows, {max_tokens} tokens", rows.len()), |b| {
            b.iter(|| black_box(collator.collate(&rows, &mut rng).unwrap()));
        });
    }
}

fn load(c: &mut Criterion) {
    let (tokenizer, _) = inputs();
    let train = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/corpus/train");
    let sources = Sources::local(Path::new(train), "text").unwrap();
    let config = LoaderConfig {
        threads: 1,
        ..LoaderConfig::new(Arc::new(sources), 16, 128, 1)
    };
    let mut loader = TrainLoader::new(config, Arc::new(tokenizer), None).unwrap();
    let mut group = c.benchmark_group("load");
    group.throughput(Throughput::Elements(16));
    group.bench_function("16 rows, 128 tokens, from file to batch", |b| {
        b.iter(|| black_box(loader.next().unwrap()));
    });
}

fn dropout(c: &mut Criterion) {
    let mut group = c.benchmark_group("dropout");
    let mut mask = vec![0; 1 << 22];
    let one_thread = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    group.throughput(Throughput::Bytes(mask.len() as u64));
    let mut update = 0;
    group.bench_function("keep-mask, 4 MiB", |b| {
        one_thread.install(|| {
            b.iter(|| {
                update += 1;
                let key = MaskKey {
                    seed: 1,
                    update,
                    micro_batch: 0,
                    site: 0,
                };
                fill_keep_mask(black_box(&mut mask), 0.1, key);
            });
        });
    });
}

criterion_group!(benches, tokenize, collate, load, dropout);
criterion_main!(benches);
