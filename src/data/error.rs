//! What can go wrong between a text file and a batch, said so that the user can mend it.

use std::path::PathBuf;

use mpnet_runtime::lfs::LfsPointer;

use super::hub::HubError;

/// Result of the data path.
pub type Result<T> = std::result::Result<T, DataError>;

/// An error of the data path: what was being done, to which file or value, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error(
        "text {path}: {problem}; give a folder, a file or a pattern of UTF-8 text: {}",
        super::source::endings()
    )]
    TrainingFolder { path: PathBuf, problem: String },

    #[error("reading text file {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error(
        "text file {path} is not UTF-8: line {line}, byte offset {offset}; convert it to UTF-8 (iconv -t utf-8) or take it out, or pass over such rows (--max-bad-rows)"
    )]
    NotUtf8 {
        path: PathBuf,
        /// Counted from 1, at line feeds.
        line: u64,
        /// Of the first bad byte, counted from 0.
        offset: u64,
    },

    #[error("{name}: {problem}")]
    Source { name: String, problem: String },

    #[error("{name}, {place}: {problem}, or pass over such rows (--max-bad-rows)")]
    Row {
        name: String,
        /// `line 3`, counted from 1, or `row 2`, counted from 0.
        place: String,
        problem: String,
    },

    #[error(transparent)]
    Hub(#[from] HubError),

    /// Nothing was fetched where a file should be.
    #[error(transparent)]
    Pointer(#[from] LfsPointer),

    #[error("{name} holds no text: every row is blank{}", if *shortest > 0 { format!(" or shorter than the {shortest} characters of min_text_length") } else { String::new() })]
    NoText { name: String, shortest: usize },

    #[error(
        "{name} holds no text that the tokenizer makes a token of: is it text, and is this its tokenizer?"
    )]
    NoTokens { name: String },

    #[error(
        "text file {path} changed while it was in use: {problem}; training text must stay as it is during a run, and until the run is resumed"
    )]
    FileChanged { path: PathBuf, problem: String },

    #[error(
        "no tokenizer at {name}: there is no such folder or file{}. Give a folder with a tokenizer.json (save_pretrained of a HuggingFace fast tokenizer writes one), a name on the HuggingFace Hub, or make one with `mpnet tokenizer train`",
        hub.as_ref().map(|e| format!(", and {e}")).unwrap_or_default()
    )]
    TokenizerNotFound {
        name: String,
        /// What the Hub said, where it was asked.
        hub: Option<HubError>,
    },

    #[error("reading tokenizer file {path}")]
    TokenizerRead {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error("tokenizer file {path} can't be used: {problem}")]
    TokenizerInvalid { path: PathBuf, problem: String },

    #[error(
        "the tokenizer in {path} has no {role} token, which MPNet needs; name one as \"{role}_token\" in tokenizer_config.json beside tokenizer.json and add it to the vocabulary (usual: {usual})"
    )]
    MissingToken {
        path: PathBuf,
        role: &'static str,
        usual: &'static str,
    },

    #[error("tokenizing a text that starts {start:?}: {problem}")]
    Tokenize { start: String, problem: String },

    #[error("writing {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error("training a tokenizer: {problem}")]
    TokenizerTraining { problem: String },

    #[error("making a batch: {problem}")]
    Collate { problem: String },

    #[error("data loader: {problem}")]
    Loader { problem: String },
}

impl DataError {
    /// Whether one row is at fault and reading can go on behind it.
    pub fn is_bad_row(&self) -> bool {
        matches!(self, DataError::Row { .. } | DataError::NotUtf8 { .. })
    }
}
