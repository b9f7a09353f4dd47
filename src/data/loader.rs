//! Training batches without end, prepared on a thread of their own and resumable at any batch.
//!
//! A cycle is one pass over one file, as in annotated-mpnet: cycle c reads file c mod n of the sorted
//! files in an order drawn from (seed, c), and its last batch has the rows that are left.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::collator::{Batch, Collator};
use super::error::{DataError, Result};
use super::masking::Masking;
use super::rng::{Purpose, keyed, shuffle};
use super::source::{TextFile, training_files};
use super::tokenizer::Tokenizer;

/// Folders up to this many bytes are checked whole before the first batch, so that a bad file is
/// found now and not hours into the run: about a second of reading.
const CHECK_UP_TO_BYTES: u64 = 1 << 30;

/// What a [`TrainLoader`] reads and how.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Folder of text files.
    pub train_dir: PathBuf,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Tokens of a row at most, `<s>` and `</s>` included.
    pub max_tokens: usize,
    /// Decides the order of the rows and all masking.
    pub seed: u64,
    /// What is predicted, and from what.
    pub masking: Masking,
    /// Threads that tokenize and mask; 0 takes half of the cores.
    pub threads: usize,
    /// Batches that may wait for the engine.
    pub prefetch: usize,
}

/// Where a loader stands: with it and the same text, batches go on as if never interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    /// The seed in use; it outlives a different seed in the configuration of the resumed run.
    pub seed: u64,
    /// The cycle that the next batch is of.
    pub cycle: u64,
    /// Rows of that cycle already used.
    pub row: u64,
    /// Rows in the file of that cycle, to notice that it changed; 0 before its first batch.
    pub rows_in_file: u64,
    /// Rows used since the run began.
    pub total_rows: u64,
}

impl LoaderState {
    /// The start of a run.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            cycle: 0,
            row: 0,
            rows_in_file: 0,
            total_rows: 0,
        }
    }

    fn start_next_cycle(&mut self) {
        self.cycle = self.cycle.wrapping_add(1);
        self.row = 0;
        self.rows_in_file = 0;
    }
}

type Prepared = Result<(Batch, LoaderState)>;

/// Training batches in order, for ever.
#[derive(Debug)]
pub struct TrainLoader {
    /// `None` once the loader is being dropped.
    prepared: Option<Receiver<Prepared>>,
    producer: Option<JoinHandle<()>>,
    state: LoaderState,
}

impl TrainLoader {
    /// Starts preparing batches, from the beginning or from `state`.
    ///
    /// # Errors
    /// When the folder is missing or holds no text, a file that is looked at is not UTF-8, the
    /// configuration makes no sense, or the text is not the one that `state` was left in.
    pub fn new(
        config: LoaderConfig,
        tokenizer: Arc<Tokenizer>,
        state: Option<LoaderState>,
    ) -> Result<Self> {
        let state = match state {
            Some(state) => {
                if state.seed != config.seed {
                    tracing::warn!(
                        "resuming with the data seed {} of the checkpoint, not {}",
                        state.seed,
                        config.seed
                    );
                }
                state
            }
            None => LoaderState::new(config.seed),
        };
        let (sender, prepared) = bounded(config.prefetch.max(1));
        let producer = Producer::new(config, tokenizer, state.clone())?;
        let producer = std::thread::Builder::new()
            .name("mpnet-data".into())
            .spawn(move || producer.run(&sender))
            .map_err(|e| DataError::Loader {
                problem: format!("can't start its thread: {e}"),
            })?;
        Ok(Self {
            prepared: Some(prepared),
            producer: Some(producer),
            state,
        })
    }

    /// The next batch and the state after it, waiting for it where it is not ready.
    ///
    /// # Errors
    /// What went wrong on the loader's thread; after an error there are no more batches.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends and it can fail"
    )]
    pub fn next(&mut self) -> Result<(Batch, LoaderState)> {
        let received = self.prepared.as_ref().and_then(|p| p.recv().ok());
        let (batch, state) = received.unwrap_or_else(|| Err(self.why_it_ended()))?;
        self.state = state.clone();
        Ok((batch, state))
    }

    /// The batches of one update: `update_freq` of them.
    ///
    /// # Errors
    /// Those of [`next`](Self::next).
    pub fn next_update(&mut self, update_freq: usize) -> Result<Vec<Batch>> {
        (0..update_freq)
            .map(|_| self.next().map(|(batch, _)| batch))
            .collect()
    }

    /// The state after the last batch that was handed out.
    pub fn state(&self) -> &LoaderState {
        &self.state
    }

    fn why_it_ended(&mut self) -> DataError {
        let ended = self.producer.take().map(JoinHandle::join);
        let panic = ended.and_then(std::result::Result::err);
        let said = panic.as_deref().and_then(|p| {
            let text = p.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| p.downcast_ref::<&str>().copied())
        });
        DataError::Loader {
            problem: match said {
                Some(text) => format!("its thread panicked: {text}"),
                None => "it has stopped after an earlier error".into(),
            },
        }
    }
}

impl Drop for TrainLoader {
    fn drop(&mut self) {
        // Without a receiver the thread ends at its next send.
        self.prepared = None;
        if let Some(producer) = self.producer.take() {
            // A panic there has no one left to hear of it.
            drop(producer.join());
        }
    }
}

/// One pass over one file.
struct Cycle {
    file: TextFile,
    /// Its rows in the order of this cycle.
    order: Vec<u32>,
}

/// The side that reads, tokenizes and masks.
struct Producer {
    config: LoaderConfig,
    tokenizer: Arc<Tokenizer>,
    collator: Collator,
    threads: rayon::ThreadPool,
    files: Vec<PathBuf>,
    state: LoaderState,
    /// The cycle of `state`, once it is open.
    current: Option<Cycle>,
}

impl Producer {
    fn new(config: LoaderConfig, tokenizer: Arc<Tokenizer>, state: LoaderState) -> Result<Self> {
        let wrong = |problem: String| DataError::Loader { problem };
        if config.batch_size == 0 {
            return Err(wrong("the batch size is 0; it must be at least 1".into()));
        }
        if config.max_tokens < 3 {
            return Err(wrong(format!(
                "rows of {} tokens have no room for a word between <s> and </s>; take 3 or more",
                config.max_tokens
            )));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match config.threads {
            0 => (cores / 2).max(1),
            some => some,
        };
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("mpnet-data-{index}"))
            .build()
            .map_err(|e| wrong(format!("can't start its threads: {e}")))?;
        let files = training_files(&config.train_dir)?;
        check_small_folder(&files)?;
        let mut producer = Self {
            collator: Collator::new(&tokenizer, &config.masking)?,
            config,
            tokenizer,
            threads,
            files,
            state,
            current: None,
        };
        producer.current = Some(producer.open_cycle()?);
        Ok(producer)
    }

    /// Prepares groups of batches until there is an error or nobody receives them.
    fn run(mut self, sender: &Sender<Prepared>) {
        loop {
            match self.group() {
                Ok(group) => {
                    for item in group {
                        if sender.send(Ok(item)).is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    // Where the receiver is gone nobody misses the error.
                    drop(sender.send(Err(error)));
                    return;
                }
            }
        }
    }

    /// Opens the file of the state's cycle, or of the next cycle that has text.
    fn open_cycle(&mut self) -> Result<Cycle> {
        for _ in 0..=self.files.len() {
            let place = (self.state.cycle % self.files.len() as u64) as usize;
            let file = TextFile::open(&self.files[place])?;
            let (rows, known) = (file.rows() as u64, self.state.rows_in_file);
            if self.state.row > 0 && (rows != known || self.state.row >= rows) {
                return Err(DataError::FileChanged {
                    path: self.files[place].clone(),
                    problem: format!(
                        "it has {rows} texts, and had {known} when the checkpoint was written"
                    ),
                });
            }
            if rows > 0 {
                tracing::debug!(cycle = self.state.cycle, file = %file.path().display(), rows, "cycle");
                self.state.rows_in_file = rows;
                let mut order: Vec<u32> = (0..rows as u32).collect();
                let mut rng = keyed(self.state.seed, Purpose::Shuffle, self.state.cycle, 0);
                shuffle(&mut rng, &mut order);
                return Ok(Cycle { file, order });
            }
            self.state.start_next_cycle();
        }
        Err(DataError::TrainingFolder {
            path: self.config.train_dir.clone(),
            problem: "its files hold no text: every line is blank".into(),
        })
    }

    /// The next batches of this cycle: one for each thread, fewer at the end of the cycle.
    fn group(&mut self) -> Result<Vec<(Batch, LoaderState)>> {
        let mut cycle = match self.current.take() {
            Some(cycle) => cycle,
            None => self.open_cycle()?,
        };
        let batch_size = self.config.batch_size;
        let first = self.state.row as usize;
        let wanted = self.threads.current_num_threads() * batch_size;
        let texts = cycle.order[first..]
            .iter()
            .take(wanted)
            .map(|&row| cycle.file.row(row as usize))
            .collect::<Result<Vec<_>>>()?;

        let (tokenizer, collator) = (&*self.tokenizer, &self.collator);
        let (max_tokens, state) = (self.config.max_tokens, &self.state);
        let batches: Vec<Result<Batch>> = self.threads.install(|| {
            let rows = tokenizer.encode_batch(&texts, max_tokens)?;
            Ok(rows
                .par_chunks(batch_size)
                .enumerate()
                .map_init(
                    || collator.clone(),
                    |collator, (index, rows)| {
                        let row = state.row + (index * batch_size) as u64;
                        let mut rng = keyed(state.seed, Purpose::Training, state.cycle, row);
                        collator.collate(rows, &mut rng)
                    },
                )
                .collect())
        })?;

        let mut group = Vec::with_capacity(batches.len());
        for batch in batches {
            let batch = batch?;
            self.state.row += batch.rows as u64;
            self.state.total_rows = self.state.total_rows.saturating_add(batch.rows as u64);
            if self.state.row == self.state.rows_in_file {
                self.state.start_next_cycle();
            }
            group.push((batch, self.state.clone()));
        }
        if self.state.row > 0 {
            self.current = Some(cycle);
        }
        Ok(group)
    }
}

/// Looks at every file of a folder that is small enough to be read whole at once.
fn check_small_folder(files: &[PathBuf]) -> Result<()> {
    let sizes = files
        .iter()
        .map(|file| file.metadata().map_or(0, |m| m.len()));
    if sizes.sum::<u64>() > CHECK_UP_TO_BYTES {
        return Ok(());
    }
    let (mut texts, started) = (0, std::time::Instant::now());
    for file in files {
        texts += TextFile::open(file)?.rows();
    }
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(
        "training text: {texts} texts in {} files, checked in {seconds:.1} s",
        files.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use std::collections::HashMap;
    use tempfile::TempDir;

    /// A folder of three files: 7 texts, none, 5 texts; text i of all is the letter i three times.
    fn corpus() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let lines = |from: u8, to: u8| -> String {
            (from..to)
                .map(|i| format!("{0} {0} {0}\n", char::from(b'a' + i)))
                .collect()
        };
        std::fs::write(folder.path().join("0.txt"), lines(0, 7)).unwrap();
        std::fs::write(folder.path().join("1.txt"), "\n \n").unwrap();
        std::fs::write(folder.path().join("2.txt"), lines(7, 12)).unwrap();
        folder
    }

    fn config(folder: &TempDir, threads: usize) -> LoaderConfig {
        LoaderConfig {
            train_dir: folder.path().to_owned(),
            batch_size: 3,
            max_tokens: 16,
            seed: 11,
            masking: Masking::default(),
            threads,
            prefetch: 2,
        }
    }

    fn loader(config: LoaderConfig, state: Option<LoaderState>) -> Result<TrainLoader> {
        TrainLoader::new(config, Arc::new(fixture::tokenizer()), state)
    }

    fn take(loader: &mut TrainLoader, count: usize) -> Vec<(Batch, LoaderState)> {
        (0..count).map(|_| loader.next().unwrap()).collect()
    }

    /// The letter of each row: its token at position 1.
    fn letters(batch: &Batch) -> Vec<i64> {
        let rows = batch.positions.chunks(batch.width());
        rows.zip(batch.input_ids.chunks(batch.width()))
            .map(|(positions, ids)| ids[positions.iter().position(|&p| p == 1).unwrap()])
            .collect()
    }

    #[test]
    fn cycles_go_through_the_files_and_every_text_comes_once_a_cycle() {
        let folder = corpus();
        let mut loader = loader(config(&folder, 2), None).unwrap();
        let mut orders = Vec::new();
        for _ in 0..2 {
            // 7 texts: batches of 3, 3, 1; then 5 texts: 3, 2.
            let batches = take(&mut loader, 5);
            let sizes: Vec<usize> = batches.iter().map(|(b, _)| b.rows).collect();
            assert_eq!(sizes, [3, 3, 1, 3, 2]);
            let order: Vec<i64> = batches.iter().flat_map(|(b, _)| letters(b)).collect();
            let mut counts = HashMap::new();
            for letter in &order[..7] {
                *counts.entry(*letter).or_insert(0) += 1;
            }
            assert_eq!(counts.len(), 7, "the first file's texts, each once");
            orders.push(order);
        }
        assert_ne!(orders[0], orders[1], "each cycle has its own order");
        assert_eq!(loader.state().total_rows, 24);
        assert_eq!(loader.state().cycle, 6);
    }

    #[test]
    fn threads_and_prefetching_change_nothing() {
        let folder = corpus();
        let one = take(&mut loader(config(&folder, 1), None).unwrap(), 20);
        let mut many = config(&folder, 3);
        many.prefetch = 9;
        assert_eq!(one, take(&mut loader(many, None).unwrap(), 20));
        let mut other_seed = config(&folder, 1);
        other_seed.seed = 12;
        assert_ne!(one, take(&mut loader(other_seed, None).unwrap(), 20));
    }

    #[test]
    fn resumes_at_every_batch() {
        let folder = corpus();
        let whole = take(&mut loader(config(&folder, 2), None).unwrap(), 18);
        for stop in 1..12 {
            let saved = serde_json::to_string(&whole[stop - 1].1).unwrap();
            let state: LoaderState = serde_json::from_str(&saved).unwrap();
            let mut resumed = config(&folder, 1);
            resumed.seed = 999; // the state's seed counts
            let mut resumed = loader(resumed, Some(state)).unwrap();
            assert_eq!(
                take(&mut resumed, 6),
                whole[stop..stop + 6],
                "stop at {stop}"
            );
        }
    }

    #[test]
    fn an_update_has_all_its_batches() {
        let folder = corpus();
        let single = take(&mut loader(config(&folder, 2), None).unwrap(), 6);
        let mut loader = loader(config(&folder, 2), None).unwrap();
        for update in 0..2 {
            let batches = loader.next_update(3).unwrap();
            let expected = single[3 * update..3 * update + 3].iter();
            assert!(expected.map(|(batch, _)| batch).eq(&batches));
            assert_eq!(loader.state(), &single[3 * update + 2].1);
        }
    }

    #[test]
    fn bad_folders_and_configurations_fail_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let text = loader(config(&folder, 1), None).unwrap_err().to_string();
        assert!(text.contains("no text file"), "{text}");
        std::fs::write(folder.path().join("a.txt"), "\n\n").unwrap();
        let text = loader(config(&folder, 1), None).unwrap_err().to_string();
        assert!(text.contains("hold no text"), "{text}");
        std::fs::write(folder.path().join("b.txt"), "good\n").unwrap();
        std::fs::write(folder.path().join("c.txt"), b"good\n\xfe\n").unwrap();
        let text = loader(config(&folder, 1), None).unwrap_err().to_string();
        assert!(text.contains("c.txt") && text.contains("line 2"), "{text}");
        std::fs::remove_file(folder.path().join("c.txt")).unwrap();
        for (batch_size, max_tokens, expected) in [(0, 16, "batch size"), (3, 2, "tokens")] {
            let mut wrong = config(&folder, 1);
            (wrong.batch_size, wrong.max_tokens) = (batch_size, max_tokens);
            let text = loader(wrong, None).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
        assert!(loader(config(&folder, 1), None).is_ok());
    }

    #[test]
    fn text_that_changed_is_noticed_at_resumption() {
        let folder = corpus();
        let state = take(&mut loader(config(&folder, 1), None).unwrap(), 1)
            .remove(0)
            .1;
        std::fs::write(folder.path().join("0.txt"), "a\nb\nc\nd\ne\n").unwrap();
        let text = loader(config(&folder, 1), Some(state))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("0.txt") && text.contains("5 texts, and had 7"),
            "{text}"
        );
    }

    #[test]
    fn an_error_on_the_thread_arrives_and_so_does_every_later_call() {
        let folder = corpus();
        let mut loader = loader(config(&folder, 1), None).unwrap();
        let mut batches = 0;
        // The open file is read to its end; a later cycle finds the file gone.
        std::fs::remove_file(folder.path().join("2.txt")).unwrap();
        let error = loop {
            match loader.next() {
                Ok(_) => batches += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(batches, 3);
        assert!(error.to_string().contains("2.txt"), "{error}");
        assert!(loader.next().unwrap_err().to_string().contains("stopped"));
    }

    #[test]
    fn a_loader_can_be_dropped_while_it_is_ahead() {
        let folder = corpus();
        for _ in 0..20 {
            let mut loader = loader(config(&folder, 2), None).unwrap();
            loader.next().unwrap();
        }
    }
}
