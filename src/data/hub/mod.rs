//! The HuggingFace Hub: datasets read by ranges, models and tokenizers fetched into HuggingFace's own
//! cache.

mod cache;
mod certificates;
mod client;
mod dataset;
mod error;
mod file;
mod model;
#[cfg(test)]
#[path = "../../../tests/it/common/hub.rs"]
pub(crate) mod server;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod troubles;

pub use client::{Hub, HubSettings, Retry, Token};
pub use dataset::{DatasetName, dataset_files};
pub use error::HubError;
pub use file::{HubFile, HubReader, HubWindow};
pub use model::{WEIGHT_FILES, index_of, model_folder, tokenizer_folder};

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    Model,
    Dataset,
}

impl RepoKind {
    /// Its part of the API's addresses, and of the cache's folder names.
    fn plural(self) -> &'static str {
        match self {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        }
    }

    /// What it is called, for messages.
    fn word(self) -> &'static str {
        match self {
            RepoKind::Model => "model",
            RepoKind::Dataset => "dataset",
        }
    }

    /// What comes before a repository's name in the addresses of its files.
    fn prefix(self) -> &'static str {
        match self {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        }
    }
}

/// Whether this can be the name of a repository: `NAME` or `OWNER/NAME`.
fn is_repo_name(name: &str) -> bool {
    let part = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        !part.is_empty() && part.bytes().all(allowed) && !part.starts_with(['.', '-'])
    };
    name.len() <= 96 && name.split('/').count() <= 2 && name.split('/').all(part)
}
