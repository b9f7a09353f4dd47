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

    #[error(
        "the Hub refuses the token of {origin}: it has expired or was withdrawn, and without one it does not show {what} ({url}). Put a new one there, or set HF_TOKEN"
    )]
    TokenRefused {
        what: String,
        url: String,
        origin: String,
    },

    #[error(
        "{what}: the certificate of {url} is not to be trusted ({problem}). Where a company's proxy opens connections, SSL_CERT_FILE names the file with the company's authority"
    )]
    Certificate {
        what: String,
        url: String,
        problem: String,
    },

    #[error("{url} does not serve parts of files")]
    NoRanges { url: String },

    #[error("waiting for {what} ended by a signal")]
    Stopped { what: String },

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

    #[error("{what} is not in {}, and HF_HUB_OFFLINE forbids to ask the Hub for it", cache.as_ref().map_or("a cache, as there is no home folder".into(), |cache| cache.display().to_string()))]
    Offline {
        what: String,
        cache: Option<PathBuf>,
    },

    #[error("keeping {what}")]
    Write {
        what: String,
        #[source]
        source: std::io::Error,
    },

    #[error("there is no folder to keep files of the Hub in: set HF_HOME to one")]
    NoCache,

    #[error("the Hub's cache: {path}; HF_HUB_CACHE names another folder for it")]
    Cache {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl HubError {
    /// Whether the Hub cannot be asked at present, rather than having answered: what was fetched before will do.
    pub(super) fn is_of_the_way(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Status { .. } | Self::Certificate { .. } => true,
            Self::NotFound { .. }
            | Self::Forbidden { .. }
            | Self::TokenRefused { .. }
            | Self::NoRanges { .. }
            | Self::Stopped { .. }
            | Self::Malformed { .. }
            | Self::Offline { .. }
            | Self::Write { .. }
            | Self::NoCache
            | Self::Cache { .. } => false,
        }
    }
}
