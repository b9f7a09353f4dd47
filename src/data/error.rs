//! What can go wrong between a text file and a batch, said so that the user can mend it.

use std::path::PathBuf;

/// Result of the data path.
pub type Result<T> = std::result::Result<T, DataError>;

/// An error of the data path: what was being done, to which file or value, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("training folder {path}: {problem}; point --train-dir at a folder of UTF-8 .txt files")]
    TrainingFolder { path: PathBuf, problem: String },

    #[error("reading text file {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error(
        "text file {path} is not UTF-8: line {line}, byte offset {offset}; convert it to UTF-8 (iconv -t utf-8) or take it out"
    )]
    NotUtf8 {
        path: PathBuf,
        /// Counted from 1, at line feeds.
        line: u64,
        /// Of the first bad byte, counted from 0.
        offset: u64,
    },

    #[error("{path} holds no text: every line is blank; it needs at least one line with a word")]
    NoText { path: PathBuf },

    #[error(
        "text file {path} has {lines} lines, more than the {} that can be shuffled; split it",
        u32::MAX
    )]
    TooManyLines { path: PathBuf, lines: u64 },

    #[error(
        "text file {path} changed while it was in use: {problem}; training text must stay as it is during a run, and until the run is resumed"
    )]
    FileChanged { path: PathBuf, problem: String },

    #[error(
        "no tokenizer at {name}: there is no such folder or file. Give a folder with a tokenizer.json (save_pretrained of a HuggingFace fast tokenizer writes one) or make one with `mpnet tokenizer train`; names on the HuggingFace Hub have to be downloaded to a folder first"
    )]
    TokenizerNotFound { name: String },

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
