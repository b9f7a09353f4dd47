//! Rows of several texts, such as an anchor, its positive and negatives, or two texts and a score: tokenized, in memory,
//! and in batches.
//!
//! There are far fewer of them than of text to pretrain on, and every epoch needs all in a new order: they take 4 bytes
//! a token. A batch depends on seed and position alone.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::{DataError, Result};
use super::rng::{Purpose, keyed, shuffle};
use super::source::{Passed, Sources, TextSummary};
use super::tokenizer::Tokenizer;
use crate::launch::Share;

/// Rows read and tokenized a moment at a time.
const READ_AT_ONCE: usize = 1024;
/// More classes are taken for a column of something else.
const MOST_CLASSES: usize = 10_000;
/// Batches that are cut from rows sorted by length together: lengths of one then differ little.
const BATCHES_AT_ONCE: usize = 32;

/// What is done to a text before and after it is tokenized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextCut {
    /// Tokens that are left of it at most, special ones included.
    pub max_tokens: usize,
    /// Whether it is written in lower case first.
    pub lower_case: bool,
}

/// What rows are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// An anchor, its positive, and negatives: other rows' texts are negatives, too.
    Ranked {
        /// Where batches come in parts whose embeddings are gathered: elements of an embedding.
        gathered: Option<usize>,
    },
    /// Texts that are compared with each other alone.
    Compared,
    /// Texts and a number.
    Scored,
    /// Texts and the name of a class; the texts become one, with `</s>` between.
    Classified,
}

impl RowKind {
    /// Columns behind the texts.
    fn labels(self) -> usize {
        match self {
            RowKind::Ranked { .. } | RowKind::Compared => 0,
            RowKind::Scored | RowKind::Classified => 1,
        }
    }
}

/// Tokenized rows of as many texts each.
#[derive(Debug)]
pub struct RowSet {
    name: String,
    fingerprint: String,
    kind: RowKind,
    columns: usize,
    /// Row by row.
    texts: Vec<Box<[u32]>>,
    /// Of each row that has one: its score, or the place of its class.
    labels: Vec<f32>,
    /// The names of all classes, in the order of their places.
    classes: Vec<String>,
    pad: u32,
    passed: Passed,
    summary: TextSummary,
}

/// Several rows as an engine takes them: column by column, all anchors first.
#[derive(Debug, Clone, PartialEq)]
pub struct RowBatch {
    pub rows: usize,
    /// Texts of a row.
    pub columns: usize,
    /// Tokens of the longest text.
    pub length: usize,
    /// `[columns · rows, length]`
    pub input_ids: Vec<i64>,
    /// The same shape, 1 where the id is no padding.
    pub attention_mask: Vec<i64>,
    pub given: Given,
    /// Tokens that are no padding.
    pub tokens: usize,
}

/// What a batch has beside its texts.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    Nothing,
    /// Which texts behind the anchors count for which anchor, `[rows, (columns − 1) · rows]`.
    Candidates(Vec<i64>),
    /// The batch of which it is a part.
    Part(Part),
    /// The score of each row.
    Scores(Vec<f32>),
    /// The place of each row's class.
    Classes(Vec<i64>),
}

/// Where a batch stands in one of which it is a part.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// As [`Given::Candidates`], of the whole.
    pub candidates: Arc<[i64]>,
    /// Rows of the whole.
    pub rows: usize,
    /// The part's first row in it.
    pub first: usize,
    /// Elements of an embedding.
    pub width: usize,
}

impl Part {
    /// Where the embedding of each text of the whole is, for a part of `own` rows of `columns` texts: among the part's
    /// own, or behind these among all.
    pub fn places(&self, own: usize, columns: usize) -> Vec<i64> {
        let place = |text: usize| {
            let (column, row) = (text / self.rows, text % self.rows);
            match self.has(row, own) {
                true => column * own + row - self.first,
                false => columns * own + text,
            }
        };
        (0..columns * self.rows)
            .map(|text| place(text) as i64)
            .collect()
    }

    /// The number of each row of the whole that is among the part's `own` rows, −1 of the others.
    pub fn own_rows(&self, own: usize) -> Vec<i64> {
        let number = |row: usize| if self.has(row, own) { row as i64 } else { -1 };
        (0..self.rows).map(number).collect()
    }

    fn has(&self, row: usize, own: usize) -> bool {
        (self.first..self.first + own).contains(&row)
    }
}

impl Given {
    /// For texts that are embedded, whatever stands beside them.
    pub fn blank(kind: RowKind, rows: usize, columns: usize) -> Given {
        match kind {
            RowKind::Ranked { gathered } => {
                let candidates = vec![1; rows * (columns - 1) * rows];
                match gathered {
                    Some(width) => Given::Part(Part {
                        candidates: candidates.into(),
                        rows,
                        first: 0,
                        width,
                    }),
                    None => Given::Candidates(candidates),
                }
            }
            RowKind::Compared => Given::Nothing,
            RowKind::Scored => Given::Scores(vec![0.0; rows]),
            RowKind::Classified => Given::Classes(vec![0; rows]),
        }
    }
}

impl RowSet {
    /// Reads and tokenizes all rows of `sources`, whose fields stay apart. Classes are those of `classes`, or where that
    /// is none all that there are.
    ///
    /// # Errors
    /// Where a row cannot be read, a score is no number, a class is unknown, or there are fewer than two rows, of which
    /// none would be another's negative.
    pub fn open(
        sources: &Sources,
        tokenizer: &Tokenizer,
        cut: &TextCut,
        kind: RowKind,
        classes: Option<&[String]>,
    ) -> Result<RowSet> {
        let wrong = |problem: String| DataError::Source {
            name: sources.name().to_owned(),
            problem,
        };
        let mut rows = sources.texts();
        let (mut texts, mut labels, mut columns, mut count) = (Vec::new(), Vec::new(), 0, 0);
        loop {
            let some: Vec<String> = rows.by_ref().take(READ_AT_ONCE).collect::<Result<_>>()?;
            if some.is_empty() {
                break;
            }
            let mut apart = Vec::new();
            for row in &some {
                let mut row: Vec<String> = serde_json::from_str(row)
                    .map_err(|e| wrong(format!("a row of it is not one of columns: {e}")))?;
                columns = row.len().saturating_sub(kind.labels());
                labels.extend(row.split_off(columns));
                match cut.lower_case {
                    true => apart.extend(row.iter().map(|text| text.to_lowercase())),
                    false => apart.extend(row),
                }
            }
            count += some.len();
            let tokenized = match kind {
                RowKind::Classified => joined(tokenizer, &apart, columns, cut.max_tokens)?,
                RowKind::Ranked { .. } | RowKind::Compared | RowKind::Scored => {
                    tokenizer.encode_batch(&apart, cut.max_tokens)?
                }
            };
            texts.extend(tokenized.into_iter().map(Vec::into_boxed_slice));
        }
        if count < 2 {
            return Err(wrong(format!(
                "it has {count} rows with a text in each column, and a row needs others to be told from: give 2 or more"
            )));
        }
        let (labels, classes) = match kind {
            RowKind::Ranked { .. } | RowKind::Compared => (Vec::new(), Vec::new()),
            RowKind::Scored => (numbers(&labels).map_err(wrong)?, Vec::new()),
            RowKind::Classified => {
                let classes = classes.map_or_else(|| all_classes(&labels), <[String]>::to_vec);
                (places(&labels, &classes).map_err(wrong)?, classes)
            }
        };
        Ok(RowSet {
            name: sources.name().to_owned(),
            fingerprint: format!("{}/{count}", sources.fingerprint()),
            kind,
            columns: match kind {
                RowKind::Classified => 1,
                RowKind::Ranked { .. } | RowKind::Compared | RowKind::Scored => columns,
            },
            texts,
            labels,
            classes,
            pad: tokenizer.pad_id(),
            passed: rows.passed(),
            summary: sources.summary(None),
        })
    }

    /// The names of the classes, where rows have one.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.texts.len() / self.columns
    }

    /// Texts of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// What was passed over when they were read.
    pub fn passed(&self) -> Passed {
        self.passed
    }

    /// What was found and taken.
    pub fn summary(&self) -> &TextSummary {
        &self.summary
    }

    fn row(&self, row: usize) -> &[Box<[u32]>] {
        &self.texts[row * self.columns..(row + 1) * self.columns]
    }

    /// Tokens of the longest text of a row.
    fn longest(&self, row: usize) -> usize {
        let lengths = self.row(row).iter().map(|text| text.len());
        lengths.max().unwrap_or(0)
    }

    /// How many batches of `batch_size` rows they are, the last with what is left.
    pub fn batch_count(&self, batch_size: usize) -> usize {
        self.rows().div_ceil(batch_size)
    }

    /// The batches of `share` in the order of the rows, each with its number.
    pub fn batches(
        &self,
        batch_size: usize,
        share: Share,
    ) -> impl Iterator<Item = (usize, RowBatch)> + '_ {
        let numbers = (0..self.batch_count(batch_size)).filter(move |index| share.has(*index));
        numbers.map(move |index| {
            let first = index * batch_size;
            let rows: Vec<usize> = (first..(first + batch_size).min(self.rows())).collect();
            (index, self.batch(&rows))
        })
    }

    /// These rows as a batch.
    pub fn batch(&self, rows: &[usize]) -> RowBatch {
        let text = |place: usize| -> &[u32] {
            let (column, row) = (place / rows.len(), rows[place % rows.len()]);
            &self.row(row)[column]
        };
        let labels = rows.iter().map(|row| self.labels[*row]);
        let given = match self.kind {
            RowKind::Ranked { gathered } => {
                let candidates = candidates(rows.len(), self.columns * rows.len(), text);
                match gathered {
                    Some(width) => Given::Part(Part {
                        candidates: candidates.into(),
                        rows: rows.len(),
                        first: 0,
                        width,
                    }),
                    None => Given::Candidates(candidates),
                }
            }
            RowKind::Compared => Given::Nothing,
            RowKind::Scored => Given::Scores(labels.collect()),
            RowKind::Classified => Given::Classes(labels.map(|place| place as i64).collect()),
        };
        padded(rows.len(), self.columns, self.pad, given, text)
    }

    /// These rows as a batch in parts of so many rows.
    fn parts(&self, all: &[usize], rows: usize) -> Vec<RowBatch> {
        let given = self.batch(all).given;
        let mut parts = Vec::new();
        for (index, some) in all.chunks(rows).enumerate() {
            let mut part = self.batch(some);
            if let Given::Part(whole) = &given {
                part.given = Given::Part(Part {
                    first: index * rows,
                    ..whole.clone()
                });
            }
            parts.push(part);
        }
        parts
    }
}

impl RowBatch {
    /// The same where it is a part of none but itself.
    pub fn alone(&self) -> RowBatch {
        let mut alone = self.clone();
        if let Given::Part(part) = &mut alone.given {
            let rows = self.rows;
            part.candidates = vec![1; rows * (self.columns - 1) * rows].into();
            (part.rows, part.first) = (rows, 0);
        }
        alone
    }
}

/// The numbers that `labels` are.
fn numbers(labels: &[String]) -> std::result::Result<Vec<f32>, String> {
    let number = |label: &String| {
        let number = label.trim().parse::<f32>().ok();
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| format!("the score '{label}' of a row is no number"))
    };
    labels.iter().map(number).collect()
}

/// The different `labels`: in the order of numbers where all are whole ones, else of letters.
fn all_classes(labels: &[String]) -> Vec<String> {
    let different: BTreeSet<&String> = labels.iter().collect();
    let mut classes: Vec<String> = different.into_iter().cloned().collect();
    let number = |class: &String| class.trim().parse::<i64>().ok();
    if classes.iter().all(|class| number(class).is_some()) {
        classes.sort_by_key(number);
    }
    classes
}

/// The place among `classes` of each of `labels`.
fn places(labels: &[String], classes: &[String]) -> std::result::Result<Vec<f32>, String> {
    if classes.len() < 2 {
        return Err(format!(
            "all rows are of the class {}: there is nothing to tell apart",
            classes.concat()
        ));
    }
    if classes.len() > MOST_CLASSES {
        return Err(format!(
            "its rows are of {} classes, more than the {MOST_CLASSES} that are taken: is its last column a label?",
            classes.len()
        ));
    }
    let known: HashMap<&String, usize> = classes.iter().zip(0..).collect();
    let place = |label: &String| {
        let place = known.get(label).map(|place| *place as f32);
        place.ok_or_else(|| {
            format!(
                "the class '{label}' of a row is none of those that are trained: {}",
                classes.join(", ")
            )
        })
    };
    labels.iter().map(place).collect()
}

/// The texts of each row of `columns` texts as one of `max_tokens` at most: `<s> … </s></s> … </s>`, cut as
/// transformers cuts pairs, the longer one first.
fn joined(
    tokenizer: &Tokenizer,
    texts: &[String],
    columns: usize,
    max_tokens: usize,
) -> Result<Vec<Vec<u32>>> {
    let whole =
        tokenizer.encode_batch(texts, if columns == 1 { max_tokens } else { usize::MAX })?;
    if columns == 1 {
        return Ok(whole);
    }
    let eos = tokenizer.eos_id();
    let join = |row: &[Vec<u32>]| {
        // Without what begins and ends them.
        let inner: Vec<&[u32]> = row.iter().map(|text| &text[1..text.len() - 1]).collect();
        let lengths = inner.iter().map(|text| text.len()).collect();
        let kept = cut_longest(lengths, max_tokens.saturating_sub(2 * columns));
        let mut tokens = vec![tokenizer.bos_id()];
        for (place, (text, kept)) in inner.iter().zip(kept).enumerate() {
            if place > 0 {
                tokens.push(eos);
            }
            tokens.extend(&text[..kept]);
            tokens.push(eos);
        }
        tokens
    };
    Ok(whole.chunks(columns).map(join).collect())
}

/// How much of texts of these lengths is kept of `most` in all: the longest are cut to one length; where that does not
/// divide, the one that was longest before is a token longer, of equal ones the last.
fn cut_longest(before: Vec<usize>, most: usize) -> Vec<usize> {
    let mut kept = before.clone();
    while kept.iter().sum::<usize>() > most {
        let longest = kept.iter().copied().max().unwrap_or(0);
        let places = (0..kept.len()).filter(|place| kept[*place] == longest);
        if let Some(place) = places.min_by_key(|place| before[*place]) {
            kept[place] -= 1;
        }
    }
    kept
}

/// A batch of so many rows of texts, of which `text` gives each by its place, column by column.
pub fn padded<'t>(
    rows: usize,
    columns: usize,
    pad: u32,
    given: Given,
    text: impl Fn(usize) -> &'t [u32],
) -> RowBatch {
    let places = columns * rows;
    let length = (0..places).map(|at| text(at).len()).max().unwrap_or(0);
    let mut input_ids = vec![i64::from(pad); places * length];
    let mut attention_mask = vec![0; places * length];
    let mut tokens = 0;
    for place in 0..places {
        let start = place * length;
        for (at, &id) in text(place).iter().enumerate() {
            input_ids[start + at] = id.into();
            attention_mask[start + at] = 1;
        }
        tokens += text(place).len();
    }
    RowBatch {
        rows,
        columns,
        length,
        input_ids,
        attention_mask,
        given,
        tokens,
    }
}

/// Which of the texts behind the `rows` anchors count for which anchor. One that is a positive of the same text in any
/// row, or the anchor itself, is no negative of it.
fn candidates<'t>(rows: usize, places: usize, text: impl Fn(usize) -> &'t [u32]) -> Vec<i64> {
    // Equal texts get equal numbers.
    let mut numbers = HashMap::new();
    let number: Vec<usize> = (0..places)
        .map(|place| {
            let next = numbers.len();
            *numbers.entry(text(place)).or_insert(next)
        })
        .collect();
    let related: HashSet<(usize, usize)> = (0..rows)
        .flat_map(|row| [number[row], number[rows + row]].map(|other| (number[row], other)))
        .collect();
    let mut counts = Vec::with_capacity(rows * (places - rows));
    for anchor in 0..rows {
        for candidate in rows..places {
            let own = candidate - rows == anchor;
            let negative = !related.contains(&(number[anchor], number[candidate]));
            counts.push(i64::from(own || negative));
        }
    }
    counts
}

/// Where a [`RowLoader`] stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowState {
    /// What tells other rows apart; empty before the first batch.
    fingerprint: String,
    /// The seed in use; it outlives a different one in the configuration of the resumed run.
    seed: u64,
    batch_size: usize,
    by_length: bool,
    /// Passes over the rows that are complete, and batches of the present one.
    epoch: u64,
    batch: u64,
    pub passed: Passed,
}

/// Batches of rows without end, shuffled anew in each epoch.
///
/// Each batch is full, so that all are of as many negatives; the rows that are left at the end of an epoch are others
/// each time.
#[derive(Debug)]
pub struct RowLoader {
    rows: RowSet,
    state: RowState,
    /// The batches of the present epoch.
    order: Vec<Vec<usize>>,
    part: Option<usize>,
}

impl RowLoader {
    /// From the beginning, or from `state`, on `rows`.
    ///
    /// # Errors
    /// Where the rows are not those that `state` was left in, or batches are cut otherwise.
    pub fn new(
        rows: RowSet,
        batch_size: usize,
        by_length: bool,
        seed: u64,
        state: Option<RowState>,
    ) -> Result<RowLoader> {
        let wrong = |problem: String| Err(DataError::Loader { problem });
        if batch_size > rows.rows() {
            return wrong(format!(
                "batch_size {batch_size} is more than the {} rows of {}: make it smaller",
                rows.rows(),
                rows.name
            ));
        }
        let fresh = RowState {
            fingerprint: rows.fingerprint.clone(),
            seed,
            batch_size,
            by_length,
            epoch: 0,
            batch: 0,
            passed: rows.passed(),
        };
        let state = match state {
            None => fresh,
            Some(state) if state.fingerprint != fresh.fingerprint => {
                return wrong(format!(
                    "{} does not hold the rows of the checkpoint: names, sizes or number of its files, its columns \
                     or its number of rows differ. Resume with the rows as they were",
                    rows.name
                ));
            }
            Some(state) if (state.batch_size, state.by_length) != (batch_size, by_length) => {
                return wrong(format!(
                    "the checkpoint's batches were of batch_size {}{}: resume with those",
                    state.batch_size,
                    match state.by_length {
                        true => ", grouped by length",
                        false => "",
                    }
                ));
            }
            Some(state) => state,
        };
        let mut loader = RowLoader {
            rows,
            state,
            order: Vec::new(),
            part: None,
        };
        loader.order = loader.epoch();
        Ok(loader)
    }

    /// What was found and taken.
    pub fn summary(&self) -> &TextSummary {
        self.rows.summary()
    }

    /// Where it stands after the last batch that was handed out.
    pub fn state(&self) -> &RowState {
        &self.state
    }

    /// Cuts batches into parts of so many rows, whose embeddings are gathered.
    #[must_use]
    pub fn in_parts(mut self, rows: Option<usize>) -> RowLoader {
        self.part = rows;
        self
    }

    /// How many embeddings the parts of a batch have in all, and the elements of one, where they are gathered.
    pub fn gathers(&self) -> Option<[usize; 2]> {
        let RowKind::Ranked { gathered } = self.rows.kind else {
            return None;
        };
        gathered.map(|width| [self.rows.columns * self.state.batch_size, width])
    }

    /// Rows of a part, where batches come in some.
    pub fn part(&self) -> Option<usize> {
        self.part
    }

    /// The next batch.
    pub fn next_batch(&mut self) -> RowBatch {
        let rows = self.next_rows();
        self.rows.batch(&rows)
    }

    /// The next batch in parts of so many `rows`, the last with what is left.
    pub fn next_parts(&mut self, rows: usize) -> Vec<RowBatch> {
        let all = self.next_rows();
        self.rows.parts(&all, rows)
    }

    /// The rows of the next batch.
    fn next_rows(&mut self) -> Vec<usize> {
        if self.state.batch as usize >= self.order.len() {
            self.state.epoch += 1;
            self.state.batch = 0;
            self.order = self.epoch();
        }
        let rows = self.order[self.state.batch as usize].clone();
        self.state.batch += 1;
        rows
    }

    /// The rows of every batch of the present epoch.
    fn epoch(&self) -> Vec<Vec<usize>> {
        let RowState {
            seed,
            batch_size,
            by_length,
            epoch,
            ..
        } = self.state;
        let mut order: Vec<usize> = (0..self.rows.rows()).collect();
        shuffle(&mut keyed(seed, Purpose::Rows, epoch, 0), &mut order);
        order.truncate(order.len() / batch_size * batch_size);
        if by_length {
            for group in order.chunks_mut(batch_size * BATCHES_AT_ONCE) {
                group.sort_by_key(|row| self.rows.longest(*row));
            }
        }
        let mut batches: Vec<Vec<usize>> = order.chunks(batch_size).map(<[_]>::to_vec).collect();
        if by_length {
            shuffle(&mut keyed(seed, Purpose::Rows, epoch, 1), &mut batches);
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::source::{Fields, ReadOptions};
    use super::*;

    fn rows(content: &str, ending: &str, columns: &[&str]) -> Result<RowSet> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("rows.{ending}"));
        std::fs::write(&path, content).unwrap();
        let options = ReadOptions {
            fields: Fields::apart(columns.iter().map(|c| (*c).to_owned()).collect()),
            max_bad_rows: 0,
        };
        let sources = Sources::local(&path, options)?;
        let cut = TextCut {
            max_tokens: 32,
            lower_case: false,
        };
        RowSet::open(
            &sources,
            &fixture::tokenizer(),
            &cut,
            RowKind::Ranked { gathered: None },
            None,
        )
    }

    fn many(count: usize) -> RowSet {
        let line = |i: usize| {
            let words = "word ".repeat(1 + i * 7 % 13);
            format!("{{\"anchor\": \"{words}{i}\", \"positive\": \"that {i}\"}}\n")
        };
        let lines: String = (0..count).map(line).collect();
        rows(&lines, "jsonl", &["anchor", "positive"]).unwrap()
    }

    #[test]
    fn columns_are_read_in_the_order_asked_for_and_rows_that_lack_one_are_passed_over() {
        let json = "{\"q\": \"some\", \"a\": \"words\", \"x\": 1}\n{\"q\": \"some\"}\n\
                    {\"q\": \"some\", \"a\": \" \"}\n{\"a\": \"to\", \"q\": \"evaluate\"}\n";
        let csv = "a,x,q\nwords,,some\n,,some\nto,1,evaluate\n";
        let [json, csv] = [(json, "jsonl"), (csv, "csv")]
            .map(|(content, ending)| rows(content, ending, &["q", "a"]).unwrap());
        assert_eq!(json.texts, csv.texts);
        assert_eq!((json.rows(), json.columns()), (2, 2));
        assert_eq!(json.passed().missing, 2);
        let tokenizer = fixture::tokenizer();
        let text = |text: &str| tokenizer.encode(text, 32).unwrap().into_boxed_slice();
        assert_eq!(
            json.texts,
            ["some", "words", "evaluate", "to"].map(text).to_vec()
        );
        for (content, ending, said) in [
            ("a,b\n1,2\n", "csv", "\"q\" and \"a\""),
            ("{\"q\": \"x\"}\n", "jsonl", "--columns"),
            ("q a\nq a\n", "txt", "no columns"),
            ("{\"q\": \"x\", \"a\": \"y\"}\n", "jsonl", "it has 1 rows"),
        ] {
            let error = rows(content, ending, &["q", "a"]).unwrap_err().to_string();
            assert!(error.contains(said), "{ending}: {error}");
        }
    }

    #[test]
    fn a_batch_stands_column_by_column_and_padded() {
        let set = many(5);
        let batch = set.batch(&[3, 1]);
        let texts = [
            &set.row(3)[0],
            &set.row(1)[0],
            &set.row(3)[1],
            &set.row(1)[1],
        ];
        let longest = texts.iter().map(|text| text.len()).max().unwrap();
        assert_eq!((batch.rows, batch.columns, batch.length), (2, 2, longest));
        for (place, text) in texts.iter().enumerate() {
            let ids = &batch.input_ids[place * longest..][..longest];
            let mask = &batch.attention_mask[place * longest..][..longest];
            let padded = |at: usize| text.get(at).map_or(i64::from(set.pad), |&id| id.into());
            assert!((0..longest).all(|at| ids[at] == padded(at)));
            assert!((0..longest).all(|at| mask[at] == i64::from(at < text.len())));
        }
        assert_eq!(
            batch.tokens,
            texts.iter().map(|text| text.len()).sum::<usize>()
        );
    }

    #[test]
    fn repeated_texts_are_no_negatives() {
        // Anchors a, a, c; positives p, q, a; negatives p, n, n.
        let lines = [["a", "p", "p"], ["a", "q", "n"], ["c", "a", "n"]];
        let numbers = |place: usize| lines[place % 3][place / 3].as_bytes()[0].into();
        let texts: Vec<[u32; 1]> = (0..9).map(|place| [numbers(place)]).collect();
        let found = candidates(3, 9, |place| &texts[place]);
        #[rustfmt::skip]
        let expected = [
            // Its own, the other positive of a, and a itself; p is a positive of a wherever it stands.
            1, 0, 0,  0, 1, 1,
            0, 1, 0,  0, 1, 1,
            1, 1, 1,  1, 1, 1,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn parts_of_a_batch_say_where_they_stand() {
        let gathered = RowKind::Ranked { gathered: Some(3) };
        let mut set = many(5);
        set.kind = gathered;
        let [first, last] = <[RowBatch; 2]>::try_from(set.parts(&[4, 0, 2], 2)).unwrap();
        assert_eq!((first.rows, last.rows), (2, 1));
        let (Given::Part(part), Given::Part(rest)) = (&first.given, &last.given) else {
            panic!("they are no parts")
        };
        // Of texts 0 to 5 of the whole: anchors 0 and 1 are the part's first two, positives 3 and 4 its others.
        assert_eq!(part.places(2, 2), [0, 1, 4 + 2, 2, 3, 4 + 5]);
        assert_eq!(part.own_rows(2), [0, 1, -1]);
        assert_eq!(rest.places(1, 2), [2, 2 + 1, 0, 2 + 3, 2 + 4, 1]);
        assert_eq!(rest.own_rows(1), [-1, -1, 2]);
        let Given::Part(whole) = set.batch(&[4, 0, 2]).given else {
            panic!("it is no part")
        };
        assert_eq!(part.candidates, whole.candidates);
        let Given::Part(alone) = last.alone().given else {
            panic!("it is no part")
        };
        assert_eq!((alone.rows, alone.first, alone.candidates.len()), (1, 0, 1));
    }

    #[test]
    fn labels_are_numbers_or_classes() {
        let labels = |labels: &[&str]| labels.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        assert_eq!(numbers(&labels(&["0.5", " 3 "])).unwrap(), [0.5, 3.0]);
        for wrong in ["", "five", "nan", "inf"] {
            let said = numbers(&labels(&["1", wrong])).unwrap_err();
            assert!(said.contains("no number"), "{said}");
        }
        assert_eq!(
            all_classes(&labels(&["10", "9", "10", "-1"])),
            ["-1", "9", "10"]
        );
        assert_eq!(all_classes(&labels(&["b", "10", "9"])), ["10", "9", "b"]);
        let classes = labels(&["no", "yes"]);
        assert_eq!(
            places(&labels(&["yes", "no"]), &classes).unwrap(),
            [1.0, 0.0]
        );
        let said = places(&labels(&["maybe"]), &classes).unwrap_err();
        assert!(
            said.contains("'maybe'") && said.contains("no, yes"),
            "{said}"
        );
        let said = places(&labels(&["no"]), &classes[..1]).unwrap_err();
        assert!(said.contains("nothing to tell apart"), "{said}");
    }

    /// As `LongestFirst` of HuggingFace's tokenizers cuts pairs of these lengths.
    #[test]
    fn the_longer_text_is_cut_first() {
        for (before, most, expected) in [
            ([3, 4], 7, [3, 4]),
            ([3, 9], 7, [3, 4]),
            ([9, 3], 7, [4, 3]),
            ([10, 9], 7, [4, 3]),
            ([9, 10], 7, [3, 4]),
            ([9, 9], 7, [3, 4]),
            ([9, 9], 0, [0, 0]),
        ] {
            assert_eq!(cut_longest(before.to_vec(), most), expected, "{before:?}");
        }
    }

    #[test]
    fn texts_of_a_class_are_one() {
        let tokenizer = fixture::tokenizer();
        let texts = ["some words", "to evaluate some words"].map(str::to_owned);
        let [first, second] = [&texts[0], &texts[1]].map(|t| tokenizer.encode(t, 32).unwrap());
        let whole = joined(&tokenizer, &texts, 2, 32).unwrap().concat();
        let expected = [&first[..], &[tokenizer.eos_id()], &second[1..]].concat();
        assert_eq!(whole, expected);
        // As many tokens of the longer one as the shorter one has.
        let most = 2 * first.len();
        assert!(most < whole.len());
        let cut = joined(&tokenizer, &texts, 2, most).unwrap().concat();
        assert_eq!(cut.len(), most);
        assert_eq!(cut[..first.len()], first[..]);
        let alone = joined(&tokenizer, &texts, 1, 32).unwrap();
        assert_eq!(alone, [first, second]);
    }

    #[test]
    fn an_epoch_has_every_row_once_and_goes_on_from_anywhere() {
        let loader = |state| RowLoader::new(many(70), 8, true, 5, state).unwrap();
        let mut whole = loader(None);
        let (mut batches, mut states) = (Vec::new(), vec![whole.state().clone()]);
        for _ in 0..20 {
            batches.push(whole.next_batch());
            states.push(whole.state().clone());
        }
        // 70 rows are 8 batches of 8 an epoch.
        let rows: HashSet<usize> = loader(None).order.concat().into_iter().collect();
        assert_eq!(rows.len(), 64);
        assert_ne!(batches[0], batches[8], "another order in the next epoch");
        for from in [0, 3, 8, 13] {
            let saved = serde_json::to_value(&states[from]).unwrap();
            let mut resumed = loader(Some(serde_json::from_value(saved).unwrap()));
            for batch in &batches[from..] {
                assert_eq!(resumed.next_batch(), *batch, "from {from}");
            }
        }
        let padding = |by_length: bool| -> usize {
            let mut loader = RowLoader::new(many(70), 8, by_length, 5, None).unwrap();
            (0..8).map(|_| loader.next_batch().length).sum()
        };
        assert!(padding(true) < padding(false));
    }

    #[test]
    fn other_rows_and_other_batches_are_refused() {
        let state = RowLoader::new(many(70), 8, true, 5, None).unwrap();
        let state = Some(state.state().clone());
        let refused = |rows: usize, size: usize, by_length: bool| {
            let loader = RowLoader::new(many(rows), size, by_length, 5, state.clone());
            loader.unwrap_err().to_string()
        };
        assert!(refused(71, 8, true).contains("does not hold the rows"));
        assert!(refused(70, 9, true).contains("batch_size 8, grouped"));
        assert!(refused(70, 8, false).contains("batch_size 8, grouped"));
        assert!(refused(70, 71, true).contains("more than the 70 rows"));
    }
}
