//! Readers of files that anyone may have written, on files that have been tampered with: an error or a
//! result, never a panic, and no memory out of proportion to the file.
//!
//! `MPNET_FUZZ` is the number of inputs for each reader; a thousand where it is not set.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use mpnet::checkpoint::{self, Checkpoint};
use mpnet_graphs::model::config::{Activation, ModelConfig};
use mpnet_graphs::model::parameters::parameters;
use mpnet_runtime::checkpoint_file;
use mpnet_runtime::engine::{NamedArray, OptimizerState};
use sha2::{Digest, Sha256};

/// Counts what each thread has allocated, so that a file cannot claim more than it holds.
struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; only numbers are kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get().wrapping_add(layout.size()));
        PEAK.set(PEAK.get().max(LIVE.get()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // What another thread has allocated may take it below zero.
        LIVE.set(LIVE.get().saturating_sub(layout.size()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What reading allocates however small the file is, in bytes: buffers, above all.
const SLACK: usize = 200_000;

/// Inputs for each reader.
fn count() -> u64 {
    let given = std::env::var("MPNET_FUZZ").ok();
    given.map_or(1000, |n| n.parse().expect("MPNET_FUZZ is a number"))
}

/// SplitMix64: repeatable, and good enough to choose bytes by.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Numbers that break arithmetic on sizes.
const EXTREMES: [&str; 8] = [
    "0",
    "-1",
    "1e308",
    "18446744073709551615",
    "9223372036854775807",
    "4294967296",
    "1099511627776",
    "null",
];

/// A few changes: bits, bytes, lengths, pieces moved, numbers made extreme.
fn mutate(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            break;
        }
        // Headers are in front: half of all changes go there.
        let reach = match random.below(2) {
            0 => bytes.len().min(4096),
            _ => bytes.len(),
        };
        let at = random.below(reach);
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                let value = [0, u64::MAX, 1 << 40, u64::from(u32::MAX)][random.below(4)];
                let end = bytes.len().min(at + 8);
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            4 => {
                let end = bytes.len().min(at + 1 + random.below(64));
                bytes.drain(at..end);
            }
            5 => {
                let end = bytes.len().min(at + 1 + random.below(64));
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            6 => {
                // A number in a text becomes an extreme one.
                if let Some(from) = bytes[at..].iter().position(u8::is_ascii_digit) {
                    let from = at + from;
                    let digits = bytes[from..].iter().take_while(|b| b.is_ascii_digit());
                    let end = from + digits.count();
                    let extreme = EXTREMES[random.below(EXTREMES.len())];
                    bytes.splice(from..end, extreme.bytes());
                }
            }
            _ => {
                let deep = ["[", "{\"a\":", "\"", "\\u0000", "["][random.below(5)];
                let many = deep.repeat(1 + random.below(200));
                bytes.splice(at..at, many.bytes());
            }
        }
    }
    bytes
}

/// Runs `read` on mutations of `original`; returns how many it accepted.
fn fuzz(
    what: &str,
    count: u64,
    original: &[u8],
    factor: usize,
    mut read: impl FnMut(&[u8]) -> bool,
) -> u64 {
    assert!(read(original), "{what}: the file itself is not read");
    let mut random = Random(0x5eed);
    let (mut accepted, mut worst) = (0, 0);
    for index in 0..count {
        let input = mutate(original, &mut random);
        let before = LIVE.get();
        PEAK.set(before);
        accepted += u64::from(read(&input));
        let peak = PEAK.get().saturating_sub(before);
        let limit = factor * input.len().max(original.len()) + SLACK;
        assert!(
            peak <= limit,
            "{what}, input {index}: {peak} bytes allocated for a file of {}",
            input.len()
        );
        worst = worst.max(peak);
    }
    println!(
        "{what}: {count} inputs of about {} bytes, {accepted} accepted, at most {worst} bytes allocated",
        original.len()
    );
    accepted
}

fn model() -> ModelConfig {
    ModelConfig {
        encoder_layers: 1,
        encoder_embed_dim: 4,
        encoder_ffn_dim: 4,
        encoder_attention_heads: 2,
        activation_fn: Activation::Gelu,
        normalize_before: false,
        max_positions: 6,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 16,
        vocab_size: 10,
        padded_vocab_size: 16,
        pad_token_id: 1,
        bos_token_id: 0,
        eos_token_id: 2,
        unk_token_id: 3,
        mask_token_id: 9,
        dropout: 0.1,
        attention_dropout: 0.1,
        activation_dropout: 0.1,
        objective: Default::default(),
    }
}

fn arrays() -> Vec<NamedArray> {
    let values = |n| (0..n).map(|i| i as f32).collect();
    parameters(&model())
        .into_iter()
        .map(|p| NamedArray {
            values: values(p.len()),
            name: p.name,
            shape: p.shape,
        })
        .collect()
}

fn sample(dir: &Path) -> std::path::PathBuf {
    let checkpoint = Checkpoint {
        model: model(),
        config: serde_json::json!({"seed": 1}),
        step: 5,
        best_loss: Some(1.5),
        best_figure: None,
        validated: Some(5),
        data: serde_json::json!({"row": 1}),
        seed: 1,
        parameters: arrays(),
        optimizer: Some(OptimizerState {
            step: 5,
            first_moments: arrays(),
            second_moments: arrays(),
            loss_scaling: None,
        }),
        tokenizer: None,
    };
    checkpoint::save(dir, &checkpoint).unwrap()
}

/// What of a checkpoint guards a file that was changed in it.
#[derive(Clone, Copy)]
enum Hashes {
    /// Its hash from before the change.
    Old,
    /// Its hash after the change: nothing but the reader itself stands in the way.
    Right,
}

/// Changes the file `name` of a checkpoint where it lies.
fn fuzz_file(name: &str, count: u64, factor: usize, hashes: Hashes) {
    let folder = tempfile::tempdir().unwrap();
    let target = sample(folder.path());
    let state_file = target.join(checkpoint::STATE_FILE);
    let path = target.join(name);
    let sha256 = |bytes: &[u8]| -> String {
        let digest = Sha256::digest(bytes);
        digest.iter().map(|b| format!("{b:02x}")).collect()
    };
    if let Hashes::Right = hashes {
        // The first version has no hash of the state.
        std::fs::remove_file(target.join(checkpoint::SUMS_FILE)).unwrap();
        let state = std::fs::read_to_string(&state_file).unwrap();
        let first = state.replacen("\"format_version\": 2", "\"format_version\": 1", 1);
        assert!(first != state);
        std::fs::write(&state_file, first).unwrap();
    }
    let original = std::fs::read(&path).unwrap();
    let state = std::fs::read_to_string(&state_file).unwrap();
    let (known, said) = match hashes {
        Hashes::Old => (None, "its old hash"),
        Hashes::Right if name == checkpoint::STATE_FILE => (None, "no hash"),
        Hashes::Right => (Some(sha256(&original)), "its right hash"),
    };
    let what = format!("{name} with {said}");
    let accepted = fuzz(&what, count, &original, factor, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        if let Some(known) = &known {
            let state = state.replace(known.as_str(), &sha256(bytes));
            std::fs::write(&state_file, state).unwrap();
        }
        checkpoint::load(&target).is_ok()
    });
    if matches!(hashes, Hashes::Old) && name != checkpoint::SUMS_FILE {
        // A mutation may undo itself, no more.
        assert!(accepted <= count / 50, "{name}: {accepted} accepted");
    }
}

/// Most of the inputs where hashes do not stop them at once.
fn fuzz_guarded(name: &str, factor: usize) {
    let few = count() / 10;
    fuzz_file(name, count() - few, factor, Hashes::Right);
    fuzz_file(name, few, factor, Hashes::Old);
}

#[test]
fn parameters_of_a_checkpoint() {
    fuzz_guarded(checkpoint::MODEL_FILE, 24);
}

#[test]
fn moments_of_a_checkpoint() {
    fuzz_guarded(checkpoint::OPTIMIZER_FILE, 24);
}

#[test]
fn state_of_a_checkpoint() {
    fuzz_guarded(checkpoint::STATE_FILE, 64);
}

#[test]
fn data_position_of_a_checkpoint() {
    fuzz_guarded(checkpoint::DATA_FILE, 64);
}

#[test]
fn hashes_of_a_checkpoint() {
    fuzz_file(checkpoint::SUMS_FILE, count(), 64, Hashes::Old);
}

#[test]
fn checkpoint_of_the_training_api() {
    let state = OptimizerState {
        step: 5,
        first_moments: arrays(),
        second_moments: arrays(),
        loss_scaling: None,
    };
    let all = arrays();
    let all: Vec<&NamedArray> = all.iter().collect();
    let original = checkpoint_file::write(&all, Some(&state)).unwrap();
    fuzz("ORT checkpoint", count(), &original, 16, |bytes| {
        checkpoint_file::read(bytes).is_ok()
    });
}

#[test]
fn configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    let original =
        b"lr = 1e-3\nbatch-size = 4\nprecision = 'fp32'\n[Model]\nnormalize-before = true\n";
    fuzz("--config", count(), original, 400, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        mpnet::cli::pretrain::read_config(&path).is_ok()
    });
}
