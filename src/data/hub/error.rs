//! What can go wrong between this machine and the Hub.

use std::path::PathBuf;

/// An error of the Hub, or on the way to it.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error(
        "{what} is not on the Hub ({url} answers 404): check the spelling, the configuration and the revision"
    )]
    NotFound { what: String, url: String },

    #[error(
        "the Hub does not show {what} ({url} answers {status}): it is gated or private, or there is no such repository. Accept its terms on its page and set HF_TOKEN to a token of that account"
    )]
    Forbidden {
        what: String,
        url: String,
        status: u16,
    },

    #[error("reading {what}: {url} answers {status}, after {attempts} attempts; try again later")]
    Status {
        what: String,
        url: String,
        status: u16,
        attempts: u32,
    },

    #[error(
        "reading {what}: no whole answer from {url} in {attempts} attempts, the last ended with: {problem}. Check the network and HF_ENDPOINT"
    )]
    Connection {
        what: String,
        url: String,
        attempts: u32,
        problem: String,
    },

    #[error("reading {what}: {problem}")]
    Malformed { what: String, problem: String },

    #[error("{what} is not in {cache}, and HF_HUB_OFFLINE forbids to ask the Hub for it")]
    Offline { what: String, cache: PathBuf },

    #[error("keeping {what}")]
    Write {
        what: String,
        #[source]
        source: std::io::Error,
    },

    #[error("the Hub's cache: {path}")]
    Cache {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}
