//! Training batches without end, prepared on threads of their own and resumable at any batch.
//!
//! Shards are shuffled anew each epoch and read one after the other; their texts become rows, which pass
//! through a shuffle buffer that is used up at the end of an epoch: every text comes once in each.
//!
//! Rows, not texts, are shuffled: packing then joins neighbours, and the buffer is small and
//! bounded, token ids without text. It is part of the checkpoint, so that nothing is read twice
//! after a resume. Compressed streams are the exception: they cannot be sought, and are decoded
//! again up to where they were.
//!
//! Where several ranks train together each of them reads all of the text and makes every batch: a batch then depends
//! on seed and position alone, whatever their number, and a state is that of any rank.
//!
//! Batches are cut a group of a thousand rows at a time. A loader's state is shared, not copied:
//! after a batch it is a pointer to what was there when its group was cut, and a number.

mod grouping;
mod mixture;
mod order;
mod pipeline;
mod samples;
mod state;

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, bounded};

use super::collator::{Batch, Collator};
use super::error::{DataError, Result};
use super::masking::Masking;
use super::source::{Counts, Position, Sources, TextSummary};
use super::tokenizer::Tokenizer;
use grouping::Grouping;
use order::{Order, OrderConfig, is_long};
use pipeline::Shuffler;

pub use grouping::GROUP_ROWS;
use mixture::Mixture;
pub use samples::BreakMode;
use samples::Packer;
use state::Snapshot;
pub use state::{LoaderState, Read};

/// Text up to this many bytes is checked whole before the first batch, so that a bad file is found now
/// and not hours into the run: about a second of reading.
const CHECK_UP_TO_BYTES: u64 = 256 << 20;
/// Tokens of a batch at most, padding included. A group of batches is in memory at once, and no device
/// holds one as large.
const LARGEST_BATCH: usize = 1 << 24;
/// Threads that tokenize at most; more would take longer to start than they save.
const MOST_THREADS: usize = 1024;
/// Blocks of texts that may wait to be tokenized.
const BLOCKS_AHEAD: usize = 8;

/// A further text of a mixture.
#[derive(Debug, Clone)]
pub struct Part {
    pub sources: Arc<Sources>,
    /// Shorter texts are passed over, in characters.
    pub min_text_length: usize,
    /// How often a text comes from here, beside the other parts' weights; above 0.
    pub weight: f64,
}

/// What a [`TrainLoader`] reads and how.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// The text.
    pub sources: Arc<Sources>,
    /// Shard and position up to which texts are never trained on.
    pub held_out: (u64, Position),
    /// Shorter texts are passed over, in characters.
    pub min_text_length: usize,
    /// The weight of that text where it is mixed with further ones.
    pub weight: f64,
    /// Texts that it is mixed with.
    pub further: Vec<Part>,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Tokens of a batch at most, padding included, instead of a number of rows.
    pub max_batch_tokens: Option<usize>,
    /// Tokens of a row at most, `<s>` and `</s>` included.
    pub max_tokens: usize,
    /// How texts become rows.
    pub sample_break_mode: BreakMode,
    /// Rows of the shuffle buffer.
    pub buffer_size: usize,
    /// Put rows of like lengths into a batch.
    pub group_by_length: bool,
    /// Rows that are cut into batches at once, at least. Changes the batches.
    pub group_rows: usize,
    /// Decides the order of the rows and all masking.
    pub seed: u64,
    /// What is predicted, and from what.
    pub masking: Masking,
    /// Threads that tokenize; 0 takes half of the cores.
    pub threads: usize,
    /// Batches that may wait for the engine.
    pub prefetch: usize,
}

impl LoaderConfig {
    /// `sources` with the usual settings.
    pub fn new(sources: Arc<Sources>, batch_size: usize, max_tokens: usize, seed: u64) -> Self {
        Self {
            sources,
            held_out: (0, Position::default()),
            min_text_length: 0,
            weight: 1.0,
            further: Vec::new(),
            batch_size,
            max_batch_tokens: None,
            max_tokens,
            sample_break_mode: BreakMode::default(),
            buffer_size: 10_000,
            group_by_length: true,
            group_rows: grouping::GROUP_ROWS,
            seed,
            masking: Masking::default(),
            threads: 0,
            prefetch: 8,
        }
    }

    /// All parts of the text.
    fn parts(&self) -> Vec<Part> {
        let first = Part {
            sources: Arc::clone(&self.sources),
            min_text_length: self.min_text_length,
            weight: self.weight,
        };
        [&[first], self.further.as_slice()].concat()
    }

    /// What the user asked for, for messages.
    fn name(&self) -> String {
        let parts = self.parts();
        let names: Vec<&str> = parts.iter().map(|part| part.sources.name()).collect();
        names.join(" + ")
    }

    /// Tells other text apart.
    fn fingerprint(&self) -> String {
        let parts = self.parts();
        let each: Vec<String> = parts
            .iter()
            .map(|part| part.sources.fingerprint())
            .collect();
        each.join("+")
    }

    /// # Errors
    /// When the settings make no sense.
    fn check(&self) -> Result<()> {
        let wrong = |problem: String| Err(DataError::Loader { problem });
        if let Some(problem) =
            batch_problem(self.batch_size, self.max_batch_tokens, self.max_tokens)
        {
            return wrong(problem);
        }
        if self.threads > MOST_THREADS {
            return wrong(format!(
                "{} threads (data_threads) are more than {MOST_THREADS}; take as many as there are cores",
                self.threads
            ));
        }
        Ok(())
    }
}

/// What is wrong with batches of `batch_size` rows, or of `max_batch_tokens`, of rows of up to
/// `max_tokens`, if anything is. The fields of a run's configuration are named, not flags.
pub fn batch_problem(
    batch_size: usize,
    max_batch_tokens: Option<usize>,
    max_tokens: usize,
) -> Option<String> {
    let too_large = |what: String| {
        Some(format!(
            "{what} makes batches of more than {LARGEST_BATCH} tokens, which is not possible; make it smaller"
        ))
    };
    if batch_size == 0 {
        return Some("batch_size is 0; it must be at least 1".into());
    }
    if max_tokens > LARGEST_BATCH {
        return too_large(format!("max_tokens {max_tokens}"));
    }
    if max_tokens < 3 {
        return Some(format!(
            "max_tokens {max_tokens} leaves no room for text between <s> and </s>; take 3 or more"
        ));
    }
    match max_batch_tokens {
        Some(limit) if limit < max_tokens => Some(format!(
            "max_batch_tokens {limit} has no room for a row of max_tokens {max_tokens}"
        )),
        Some(limit) if limit > LARGEST_BATCH => too_large(format!("max_batch_tokens {limit}")),
        None if batch_size.saturating_mul(max_tokens) > LARGEST_BATCH => too_large(format!(
            "batch_size {batch_size} of max_tokens {max_tokens}"
        )),
        Some(_) | None => None,
    }
}

type Prepared = Result<(Batch, LoaderState)>;

/// Training batches in order, for ever.
#[derive(Debug)]
pub struct TrainLoader {
    prepared: Receiver<Prepared>,
    /// The threads, to say why one of them ended. They end by themselves once nobody receives.
    threads: Vec<JoinHandle<()>>,
    state: LoaderState,
    summary: Vec<TextSummary>,
}

impl TrainLoader {
    /// Starts preparing batches, from the beginning or from `state`.
    ///
    /// # Errors
    /// When there is no text, a file that is looked at can't be read, the configuration makes no sense, or
    /// the text is not the one that `state` was left in.
    pub fn new(
        config: LoaderConfig,
        tokenizer: Arc<Tokenizer>,
        state: Option<LoaderState>,
    ) -> Result<Self> {
        config.check()?;
        let parts = config.parts();
        let summary = parts
            .iter()
            .map(|part| {
                let counts = check_small(part, &tokenizer)?;
                let mut summary = part.sources.summary(counts.as_ref());
                summary.weight = (parts.len() > 1).then_some(part.weight);
                Ok(summary)
            })
            .collect::<Result<Vec<_>>>()?;
        let state = start(&config, state)?;
        let pool = thread_pool(config.threads)?;
        let orders = parts.iter().zip(&state.after.cursors).enumerate();
        let orders = orders.map(|(index, (part, &cursor))| {
            let order = OrderConfig {
                sources: Arc::clone(&part.sources),
                seed: state.seed,
                part: index as u64,
                held_out: if index == 0 {
                    config.held_out
                } else {
                    (0, Position::default())
                },
                min_text_length: part.min_text_length,
            };
            (Order::new(order, cursor), part.weight)
        });
        let mixture = Mixture::new(orders.collect(), state.seed)?;
        let packer = Packer {
            mode: config.sample_break_mode,
            max_tokens: config.max_tokens,
            bos: tokenizer.bos_id(),
            eos: tokenizer.eos_id(),
            open: state.after.open.clone(),
        };
        let grouping = Grouping {
            batch_size: config.batch_size,
            max_batch_tokens: config.max_batch_tokens,
            by_length: config.group_by_length,
            least_rows: config.group_rows,
            seed: state.seed,
        };
        let collator = Collator::new(&tokenizer, &config.masking)?;
        let (blocks_in, blocks) = bounded(BLOCKS_AHEAD);
        let (groups_in, groups) = bounded(1);
        let (batches_in, prepared) = bounded(config.prefetch.max(1));
        let shuffler = Shuffler {
            tokenizer,
            threads: pool,
            blocks,
            packer,
            grouping,
            // Rows are drawn by numbers of 32 bits.
            buffer_size: config.buffer_size.clamp(1, u32::MAX as usize),
            state: state.after.as_ref().clone(),
            pending: VecDeque::new(),
            empty: 0,
            source: config.name(),
        };
        let masked = state.clone();
        let threads = vec![
            spawn("mpnet-read", move || pipeline::read(mixture, &blocks_in))?,
            spawn("mpnet-shuffle", move || shuffler.run(&groups_in))?,
            spawn("mpnet-mask", move || {
                pipeline::mask(collator, masked, &groups, &batches_in);
            })?,
        ];
        Ok(Self {
            prepared,
            threads,
            state,
            summary,
        })
    }

    /// The next batch and the state after it, waiting for it where it is not ready.
    ///
    /// # Errors
    /// What went wrong on the loader's threads; after an error there are no more batches.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends and it can fail"
    )]
    pub fn next(&mut self) -> Result<(Batch, LoaderState)> {
        let received = self.prepared.recv();
        let (batch, state) = received.unwrap_or_else(|_| Err(self.why_it_ended()))?;
        self.state = state.clone();
        Ok((batch, state))
    }

    /// The batches of one update: `micro_batches` of them.
    ///
    /// # Errors
    /// Those of [`next`](Self::next).
    pub fn next_update(&mut self, micro_batches: usize) -> Result<Vec<Batch>> {
        (0..micro_batches)
            .map(|_| self.next().map(|(batch, _)| batch))
            .collect()
    }

    /// What of the text was found, taken and left out, for each part.
    pub fn summary(&self) -> &[TextSummary] {
        &self.summary
    }

    /// The state after the last batch that was handed out.
    pub fn state(&self) -> &LoaderState {
        &self.state
    }

    fn why_it_ended(&mut self) -> DataError {
        // The others have ended or will, as each lives on the one before or after it.
        let panic = self
            .threads
            .drain(..)
            .find_map(|thread| thread.join().err());
        let said = panic.as_deref().map(|p| {
            let text = p.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| p.downcast_ref::<&str>().copied());
            text.unwrap_or("no message")
        });
        DataError::Loader {
            problem: match said {
                Some(text) => format!("a thread of it panicked: {text}"),
                None => "it has stopped after an earlier error".into(),
            },
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(run).map_err(|e| DataError::Loader {
        problem: format!("can't start its thread {name}: {e}"),
    })
}

fn thread_pool(threads: usize) -> Result<rayon::ThreadPool> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match threads {
        0 => (cores / 2).max(1),
        some => some,
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("mpnet-data-{index}"))
        .build()
        .map_err(|e| DataError::Loader {
            problem: format!("can't start its threads: {e}"),
        })
}

/// The state to start from: `resumed`, where it fits the configuration.
fn start(config: &LoaderConfig, resumed: Option<LoaderState>) -> Result<LoaderState> {
    let fingerprint = config.fingerprint();
    let Some(state) = resumed.filter(|state| !state.fingerprint.is_empty()) else {
        return Ok(LoaderState {
            fingerprint,
            source: config.name(),
            after: Arc::new(Snapshot::new(config.parts().len())),
            mode: config.sample_break_mode,
            max_tokens: config.max_tokens,
            ..LoaderState::new(config.seed)
        });
    };
    let wrong = |problem: String| Err(DataError::Loader { problem });
    if state.fingerprint != fingerprint {
        return wrong(format!(
            "{} is not the text of the checkpoint, which was {}: names, sizes or number of its files, or \
             text_field, differ. Resume with the text as it was",
            config.name(),
            state.source
        ));
    }
    if (state.mode, state.max_tokens) != (config.sample_break_mode, config.max_tokens) {
        return wrong(format!(
            "the checkpoint's rows were made with sample_break_mode {} and max_tokens {}: resume with those",
            state.mode.name(),
            state.max_tokens
        ));
    }
    if state.seed != config.seed {
        tracing::warn!(
            "resuming with the data seed {} of the checkpoint, not {}",
            state.seed,
            config.seed
        );
    }
    Ok(state)
}

/// Reads every file of text that is small enough to be read whole at once and counts the texts: there must
/// be one to train on.
fn check_small(config: &Part, tokenizer: &Tokenizer) -> Result<Option<Counts>> {
    let sources = &config.sources;
    let small = |bytes: u64| bytes <= CHECK_UP_TO_BYTES;
    if !sources.local_bytes().is_some_and(small) {
        return Ok(None);
    }
    let mut counts = Counts {
        texts: vec![0; sources.shards().len()],
        ..Counts::default()
    };
    let (mut any, mut has_tokens) = (false, false);
    let mut texts = sources.texts_quietly();
    while let Some(text) = texts.next().transpose()? {
        if !is_long(&text, config.min_text_length) {
            continue;
        }
        any = true;
        counts.texts[texts.position().0 as usize] += 1;
        // One beside <s> and </s> will do.
        has_tokens = has_tokens || tokenizer.encode(&text, 3)?.len() > 2;
    }
    counts.passed = texts.passed();
    let name = || sources.name().to_owned();
    if !any {
        return Err(DataError::NoText {
            name: name(),
            shortest: config.min_text_length,
        });
    }
    if !has_tokens {
        return Err(DataError::NoTokens { name: name() });
    }
    Ok(Some(counts))
}

#[cfg(test)]
mod tests;
