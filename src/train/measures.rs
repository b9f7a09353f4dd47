//! What embeddings are measured by, while they are trained and after: scored pairs, triplets, and retrieval.

use super::engine::Running;
use super::metrics::{best, cosine, retrieval, spearman};
use crate::data::pairs::{Given, RowBatch, RowKind, TextCut, padded};
use crate::data::source::{Fields, ReadOptions, Sources};
use crate::data::{DataError, Tokenizer};
use anyhow::{Context, Result, bail};
use mpnet_graphs::model::sentences::EMBEDDINGS;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Columns of scored pairs.
const SCORED: [&str; 3] = ["sentence1", "sentence2", "score"];
/// Columns of triplets.
const TRIPLETS: [&str; 3] = ["anchor", "positive", "negative"];
/// Columns of queries and of the texts that are searched.
const TEXTS: [&str; 2] = ["id", "text"];
/// Columns of what is relevant to what.
const RELEVANT: [&str; 2] = ["query-id", "corpus-id"];

/// Files to measure embeddings by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct MeasureFiles {
    /// Pairs of texts, each with a score of how near they are.
    pub scored_pairs: Option<PathBuf>,
    /// Texts, each with one that is to be nearer than another.
    pub triplets: Option<PathBuf>,
    pub retrieval: Option<RetrievalFiles>,
}

/// Files of a search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetrievalFiles {
    pub queries: PathBuf,
    pub corpus: PathBuf,
    pub relevant: PathBuf,
}

/// Names of the figures.
pub const FIGURES: [&str; 4] = ["spearman", "triplets", "ndcg@10", "recall@10"];

/// One figure and its name.
pub type Figure = (&'static str, f64);

/// Texts to embed, each once, and what is asked of them.
#[derive(Debug)]
pub struct Measures {
    texts: Texts,
    scored: Option<Scored>,
    /// Anchor, positive, negative.
    triplets: Option<Vec<[usize; 3]>>,
    search: Option<Search>,
    /// Texts are embedded as so many rows of so many columns at once, which are of that kind.
    shape: [usize; 2],
    kind: RowKind,
    pad: u32,
}

/// Different texts, tokenized.
#[derive(Debug, Default)]
struct Texts {
    tokens: Vec<Vec<u32>>,
    places: HashMap<String, usize>,
}

#[derive(Debug)]
struct Scored {
    pairs: Vec<[usize; 2]>,
    scores: Vec<f64>,
}

#[derive(Debug)]
struct Search {
    queries: Vec<usize>,
    corpus: Vec<usize>,
    /// Of each query, places in the corpus.
    relevant: Vec<HashSet<usize>>,
}

impl MeasureFiles {
    /// Whether there is nothing to measure by.
    pub fn is_empty(&self) -> bool {
        *self == MeasureFiles::default()
    }

    /// Reads the files; texts are embedded as so many rows of so many columns at once, the columns and the kind being
    /// those of the task that is running.
    ///
    /// # Errors
    /// Where one is missing or is not what it should be.
    pub fn open(
        &self,
        tokenizer: &Tokenizer,
        cut: TextCut,
        shape: [usize; 2],
        kind: RowKind,
    ) -> Result<Measures> {
        let mut measures = Measures {
            texts: Texts::default(),
            scored: None,
            triplets: None,
            search: None,
            shape,
            kind,
            pad: tokenizer.pad_id(),
        };
        let mut reader = Reader {
            texts: &mut measures.texts,
            tokenizer,
            cut,
        };
        if let Some(path) = &self.scored_pairs {
            measures.scored = Some(reader.scored(path).context("--scored-pairs")?);
        }
        if let Some(path) = &self.triplets {
            measures.triplets = Some(reader.triplets(path).context("--triplets")?);
        }
        if let Some(files) = &self.retrieval {
            measures.search = Some(reader.search(files)?);
        }
        Ok(measures)
    }
}

struct Reader<'a> {
    texts: &'a mut Texts,
    tokenizer: &'a Tokenizer,
    cut: TextCut,
}

/// The rows of `columns` in the file at `path`; at least one.
fn rows<const N: usize>(path: &Path, columns: [&str; N]) -> Result<Vec<[String; N]>> {
    let options = ReadOptions {
        fields: Fields::apart(columns.map(str::to_owned).to_vec()),
        max_bad_rows: 0,
    };
    let sources = Sources::local(path, options)?;
    let mut rows = Vec::new();
    for row in sources.texts() {
        let row: Vec<String> = serde_json::from_str(&row?)?;
        if let Ok(row) = <[String; N]>::try_from(row) {
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return Err(DataError::Source {
            name: sources.name().to_owned(),
            problem: format!("no row of it has all of the columns {}", columns.join(", ")),
        }
        .into());
    }
    Ok(rows)
}

impl Reader<'_> {
    /// The place of `text` among all.
    fn place(&mut self, text: &str) -> Result<usize> {
        let text = match self.cut.lower_case {
            true => text.to_lowercase(),
            false => text.to_owned(),
        };
        if let Some(place) = self.texts.places.get(&text) {
            return Ok(*place);
        }
        let place = self.texts.tokens.len();
        let tokens = self.tokenizer.encode(&text, self.cut.max_tokens)?;
        self.texts.tokens.push(tokens);
        self.texts.places.insert(text, place);
        Ok(place)
    }

    fn scored(&mut self, path: &Path) -> Result<Scored> {
        let (mut pairs, mut scores) = (Vec::new(), Vec::new());
        for [first, second, score] in rows(path, SCORED)? {
            let number: f64 = score
                .trim()
                .parse()
                .ok()
                .filter(|n: &f64| n.is_finite())
                .with_context(|| format!("{}: the score '{score}' is no number", path.display()))?;
            pairs.push([self.place(&first)?, self.place(&second)?]);
            scores.push(number);
        }
        if scores.iter().all(|score| *score == scores[0]) {
            bail!(
                "{}: all scores are {}, so no order of theirs can be compared",
                path.display(),
                scores[0]
            );
        }
        Ok(Scored { pairs, scores })
    }

    fn triplets(&mut self, path: &Path) -> Result<Vec<[usize; 3]>> {
        let rows = rows(path, TRIPLETS)?.into_iter();
        rows.map(|[anchor, positive, negative]| {
            Ok([
                self.place(&anchor)?,
                self.place(&positive)?,
                self.place(&negative)?,
            ])
        })
        .collect()
    }

    fn search(&mut self, files: &RetrievalFiles) -> Result<Search> {
        let queries = rows(&files.queries, TEXTS).context("--queries")?;
        let corpus = rows(&files.corpus, TEXTS).context("--corpus")?;
        let known = |rows: &[[String; 2]]| -> HashMap<String, usize> {
            let ids = rows.iter().enumerate();
            ids.map(|(place, [id, _])| (id.clone(), place)).collect()
        };
        let (query_ids, corpus_ids) = (known(&queries), known(&corpus));
        let mut relevant = vec![HashSet::new(); queries.len()];
        for [query, text] in rows(&files.relevant, RELEVANT).context("--relevant")? {
            let (Some(&query), Some(&text)) = (query_ids.get(&query), corpus_ids.get(&text)) else {
                bail!(
                    "{} (--relevant) names the query '{query}' and the text '{text}', which are not both there",
                    files.relevant.display()
                );
            };
            relevant[query].insert(text);
        }
        let mut search = Search {
            queries: Vec::new(),
            corpus: Vec::new(),
            relevant: Vec::new(),
        };
        for [_, text] in &corpus {
            search.corpus.push(self.place(text)?);
        }
        // A query without anything relevant cannot find it.
        for ([_, text], relevant) in queries.iter().zip(relevant) {
            if !relevant.is_empty() {
                search.queries.push(self.place(text)?);
                search.relevant.push(relevant);
            }
        }
        Ok(search)
    }
}

impl Measures {
    /// Measures the embeddings of the model that is running.
    ///
    /// # Errors
    /// Where the engine fails.
    pub fn measure(&self, running: &mut Running) -> Result<Vec<Figure>> {
        let all = self.embed(running)?;
        let near = |a: usize, b: usize| cosine(&all[a], &all[b]);
        let [spearmans, triples, ndcg, recall] = FIGURES;
        let mut figures = Vec::new();
        if let Some(scored) = &self.scored {
            let found = scored.pairs.iter().map(|&[a, b]| near(a, b).into());
            let found: Vec<f64> = found.collect();
            let correlation = spearman(&found, &scored.scores).unwrap_or(0.0);
            figures.push((spearmans, correlation));
        }
        if let Some(triplets) = &self.triplets {
            let right = triplets
                .iter()
                .filter(|[a, p, n]| near(*a, *p) > near(*a, *n));
            let share = right.count() as f64 / triplets.len() as f64;
            figures.push((triples, share));
        }
        if let Some(search) = &self.search {
            let results: Vec<Vec<usize>> = search
                .queries
                .iter()
                .map(|&query| {
                    let scores = search.corpus.iter().map(|&text| near(query, text));
                    best(&scores.collect::<Vec<f32>>())
                })
                .collect();
            let queries = results.iter().map(Vec::as_slice);
            let found = retrieval(queries.zip(&search.relevant));
            figures.extend([(ndcg, found.ndcg), (recall, found.recall)]);
        }
        Ok(figures)
    }

    /// The embedding of each text.
    fn embed(&self, running: &mut Running) -> Result<Vec<Vec<f32>>> {
        let texts = &self.texts.tokens;
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| texts[text].len());
        let mut all = vec![Vec::new(); texts.len()];
        // The graph takes rows of two texts or more: here each has some of the texts, whatever they are.
        let [most, columns] = self.shape;
        for some in order.chunks(most * columns) {
            let rows = some.len().div_ceil(columns);
            // What is left of the last row is the last text again.
            let places: Vec<usize> = (0..rows * columns)
                .map(|place| some[place.min(some.len() - 1)])
                .collect();
            let given = Given::blank(self.kind, rows, columns);
            let text = |place: usize| -> &[u32] { &texts[places[place]] };
            let batch: RowBatch = padded(rows, columns, self.pad, given, text);
            let outputs = running.eval_step(&batch)?;
            let found = outputs.floats(EMBEDDINGS)?;
            let width = found.len() / places.len();
            for (embedding, &text) in found.chunks(width).zip(&places) {
                all[text] = embedding.to_vec();
            }
        }
        Ok(all)
    }
}
