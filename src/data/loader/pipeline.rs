//! The threads of a loader: one reads, one tokenizes (on a pool) and shuffles, one masks.
//!
//! Every step takes its input in order, so that the number of threads changes nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::data::collator::{Batch, Collator};
use crate::data::error::{DataError, Result};
use crate::data::rng::{Purpose, below, keyed};
use crate::data::tokenizer::Tokenizer;

use super::grouping::Grouping;
use super::mixture::{Mixture, Place, Placed};
use super::order::Next;
use super::samples::{Packer, Row};
use super::state::{LoaderState, Snapshot};

/// Texts handed over at once, and their bytes.
const BLOCK_TEXTS: usize = 64;
const BLOCK_BYTES: usize = 256 << 10;
/// Blocks tokenized at once by each thread of the pool.
const BLOCKS_PER_THREAD: usize = 2;

/// Texts in order, with the place after each.
pub type Block = Vec<Placed>;

/// Reads texts until there is an error or nobody receives them.
pub fn read(mut mixture: Mixture, sender: &Sender<Result<Block>>) {
    loop {
        let (mut block, mut bytes) = (Vec::new(), 0);
        while block.len() < BLOCK_TEXTS && bytes < BLOCK_BYTES {
            match mixture.next() {
                Ok((next, place)) => {
                    if let Next::Text(text) = &next {
                        bytes += text.len();
                    }
                    block.push((next, place));
                }
                Err(error) => {
                    // What was read before is good.
                    if sender.send(Ok(block)).is_ok() {
                        drop(sender.send(Err(error)));
                    }
                    return;
                }
            }
        }
        if sender.send(Ok(block)).is_err() {
            return;
        }
    }
}

/// A text's tokens or the end of an epoch, with the place after it.
pub enum Tokenized {
    Text(Vec<u32>, Place),
    EpochEnd(Place),
}

/// Batches that are cut, and the state after them.
pub struct Group {
    pub batches: Arc<Vec<Vec<Row>>>,
    pub after: Arc<Snapshot>,
}

/// Makes groups of batches out of texts.
pub struct Shuffler {
    pub tokenizer: Arc<Tokenizer>,
    pub threads: rayon::ThreadPool,
    pub blocks: Receiver<Result<Block>>,
    pub packer: Packer,
    pub grouping: Grouping,
    /// Rows that the shuffle buffer holds, at least 1.
    pub buffer_size: usize,
    /// Where it stands, but for the row that is not full.
    pub state: Snapshot,
    /// What is tokenized and not yet in rows.
    pub pending: VecDeque<Result<Tokenized>>,
    /// Ends of epochs since the last text that rows can be made of.
    pub empty: u32,
    /// The text's name, for messages.
    pub source: String,
}

impl Shuffler {
    /// Sends groups until there is an error or nobody receives them.
    pub fn run(mut self, sender: &Sender<Result<Group>>) {
        loop {
            let group = self.group();
            let failed = group.is_err();
            if sender.send(group).is_err() || failed {
                return;
            }
        }
    }

    fn group(&mut self) -> Result<Group> {
        let mut rows = std::mem::take(&mut self.state.left);
        let mut tokens = rows.iter().map(|row| row.len()).sum();
        while !self.grouping.is_full(rows.len(), tokens) {
            let row = self.next_row()?;
            tokens += row.len();
            rows.push(row);
        }
        let (batches, left) = self.grouping.cut(rows, self.state.groups);
        self.state.left = left;
        self.state.groups += 1;
        self.state.open.clone_from(&self.packer.open);
        Ok(Group {
            batches: Arc::new(batches),
            after: Arc::new(self.state.clone()),
        })
    }

    /// A row drawn from the shuffle buffer once that is full, or from what the epoch left of it.
    fn next_row(&mut self) -> Result<Row> {
        loop {
            let held = self.state.buffer.len();
            if held >= self.buffer_size || (self.state.draining && held > 0) {
                let mut rng = keyed(self.grouping.seed, Purpose::Buffer, 0, self.state.drawn);
                self.state.drawn += 1;
                let place = below(&mut rng, held as u32) as usize;
                return Ok(self.state.buffer.swap_remove(place));
            }
            self.state.draining = false;
            let rows = &mut self.state.buffer;
            match self.pending.pop_front().transpose()? {
                Some(Tokenized::Text(tokens, place)) => {
                    if self.packer.push(&tokens, rows) {
                        self.empty = 0;
                    }
                    self.state.cursors[place.part] = place.cursor;
                }
                Some(Tokenized::EpochEnd(place)) => {
                    let parts = self.state.cursors.len();
                    self.state.cursors[place.part] = place.cursor;
                    // A mixture has no end at which every text was there once.
                    if parts == 1 {
                        self.packer.end_epoch(rows);
                        self.state.draining = true;
                    }
                    self.empty += 1;
                    // A resumed run may have only the end of the first one before it.
                    if self.empty as usize > parts {
                        return Err(DataError::NoTokens {
                            name: self.source.clone(),
                        });
                    }
                }
                None => self.tokenize()?,
            }
        }
    }

    /// Tokenizes the next blocks.
    fn tokenize(&mut self) -> Result<()> {
        let gone = |_| DataError::Loader {
            problem: "the thread that reads has stopped".into(),
        };
        let mut texts = self.blocks.recv().map_err(gone)??;
        let most = self.threads.current_num_threads() * BLOCKS_PER_THREAD;
        let mut failed = None;
        for _ in 1..most {
            match self.blocks.try_recv() {
                Ok(Ok(more)) => texts.extend(more),
                Ok(Err(error)) => {
                    failed = Some(error);
                    break;
                }
                Err(_) => break,
            }
        }
        self.take(texts);
        // The texts before it are good, and come first however many blocks were waiting.
        self.pending.extend(failed.map(Err));
        Ok(())
    }

    fn take(&mut self, block: Block) {
        use rayon::prelude::*;
        let (tokenizer, wanted) = (&*self.tokenizer, self.packer.wanted_tokens());
        let tokenized: Vec<Result<Tokenized>> = self.threads.install(|| {
            let tokenized = block.into_par_iter().map(|(next, place)| match next {
                Next::Text(text) => Ok(Tokenized::Text(tokenizer.encode(&text, wanted)?, place)),
                Next::EpochEnd => Ok(Tokenized::EpochEnd(place)),
            });
            tokenized.collect()
        });
        for one in tokenized {
            let failed = one.is_err();
            self.pending.push_back(one);
            if failed {
                break;
            }
        }
    }
}

/// Masks the batches of `state`'s group, then of those that come, until nobody receives them.
pub fn mask(
    mut collator: Collator,
    mut state: LoaderState,
    groups: &Receiver<Result<Group>>,
    sender: &Sender<Result<(Batch, LoaderState)>>,
) {
    loop {
        while state.next < state.group.len() {
            let mut rng = keyed(state.seed, Purpose::Training, 0, state.batches);
            let batch = collator.collate(&state.group[state.next], &mut rng);
            state.next += 1;
            state.batches += 1;
            let prepared = batch.map(|batch| {
                state.total_rows = state.total_rows.saturating_add(batch.rows as u64);
                (batch, state.clone())
            });
            let failed = prepared.is_err();
            if sender.send(prepared).is_err() || failed {
                return;
            }
        }
        match groups.recv() {
            Ok(Ok(group)) => {
                state.after = group.after;
                state.group = group.batches;
                state.next = 0;
            }
            Ok(Err(error)) => {
                // Where the receiver is gone nobody misses the error.
                drop(sender.send(Err(error)));
                return;
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fixture;
    use crate::data::loader::samples::BreakMode;

    #[test]
    fn texts_before_an_error_are_used_however_many_blocks_wait() {
        let text = |text: &str| (Next::Text(text.to_owned()), Place::default());
        let tokenizer = Arc::new(fixture::tokenizer());
        // The reader is as far ahead as it can be, or only just ahead.
        for waiting in [1, 3] {
            let (sender, blocks) = crossbeam_channel::bounded(waiting);
            let writer = std::thread::spawn(move || {
                sender.send(Ok(vec![text("a"), text("b")])).unwrap();
                sender.send(Ok(vec![text("c")])).unwrap();
                let problem = "line 4 is damaged".to_owned();
                sender.send(Err(DataError::Loader { problem })).unwrap();
            });
            if waiting == 3 {
                writer.join().unwrap();
            }
            let mut shuffler = Shuffler {
                tokenizer: Arc::clone(&tokenizer),
                threads: rayon::ThreadPoolBuilder::new()
                    .num_threads(2)
                    .build()
                    .unwrap(),
                blocks,
                packer: Packer {
                    mode: BreakMode::Eos,
                    max_tokens: 8,
                    bos: tokenizer.bos_id(),
                    eos: tokenizer.eos_id(),
                    open: Vec::new(),
                },
                grouping: Grouping {
                    batch_size: 1,
                    max_batch_tokens: None,
                    by_length: false,
                    least_rows: 1,
                    seed: 1,
                },
                buffer_size: 1,
                state: Snapshot::new(1),
                pending: VecDeque::new(),
                empty: 0,
                source: "a test".to_owned(),
            };
            let rows = (0..3).map(|_| shuffler.next_row().map(drop));
            let rows: Result<Vec<()>> = rows.collect();
            assert_eq!(rows.unwrap().len(), 3, "{waiting}");
            let error = shuffler.next_row().unwrap_err().to_string();
            assert!(error.contains("line 4"), "{error}");
        }
    }
}
