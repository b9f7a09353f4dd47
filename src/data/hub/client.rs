//! Requests to the Hub, repeated where that may help.

use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use ureq::config::RedirectAuthHeaders;

use super::RepoKind;
use super::error::HubError;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// Largest answer that is held in memory.
const LARGEST_ANSWER: u64 = 256 << 20;
/// No answer of a server makes this program wait longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// When to try again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Requests for one answer at most, counted anew when a part of it arrived.
    pub attempts: u32,
    /// Pause before the second request; it doubles each time.
    pub first_pause: Duration,
    /// Time without a byte after which a connection is given up.
    pub silence: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_pause: Duration::from_secs(1),
            silence: Duration::from_secs(30),
        }
    }
}

/// Where the Hub is and what it may be asked.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Address without a slash at its end.
    pub endpoint: String,
    pub token: Option<String>,
    /// Folder of HuggingFace's cache that holds the repositories.
    pub cache: PathBuf,
    pub offline: bool,
    pub retry: Retry,
}

impl HubSettings {
    /// As HuggingFace's variables say: HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE.
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = variable("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")));
            cache.unwrap_or_default().join("huggingface")
        });
        let stored = || std::fs::read_to_string(home.join("token")).ok();
        let token = variable("HF_TOKEN").or_else(stored);
        let offline = variable("HF_HUB_OFFLINE").map(|value| value.to_ascii_uppercase());
        Self {
            endpoint: variable("HF_ENDPOINT")
                .unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            token: token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()),
            cache: variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            offline: offline.is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.as_str())),
            retry: Retry::default(),
        }
    }
}

/// A client of the Hub.
#[derive(Debug)]
pub struct Hub {
    pub(super) settings: HubSettings,
    agent: ureq::Agent,
}

/// Why an attempt gave no answer.
enum Failed {
    /// Another one may: the status where there was one, the pause that the server asks for, the problem.
    ForNow(Option<u16>, Option<Duration>, String),
    Final(HubError),
}

impl Hub {
    pub fn new(settings: HubSettings) -> Self {
        let silence = Some(settings.retry.silence);
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("mpnet/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(silence)
            .timeout_recv_response(silence)
            .timeout_per_read(silence)
            .build();
        Self {
            settings,
            agent: config.into(),
        }
    }

    /// The address of a file.
    pub(super) fn file_url(
        &self,
        kind: RepoKind,
        repo: &str,
        revision: &str,
        path: &str,
    ) -> String {
        let (endpoint, prefix) = (&self.settings.endpoint, kind.prefix());
        format!(
            "{endpoint}/{prefix}{repo}/resolve/{}/{}",
            escape(revision, false),
            escape(path, true)
        )
    }

    /// What the API says of a repository at a revision: commit, files with sizes, card.
    pub(super) fn info(
        &self,
        kind: RepoKind,
        repo: &str,
        revision: &str,
    ) -> Result<Value, HubError> {
        let what = format!("the {} {repo} at revision {revision}", kind.word());
        let url = format!(
            "{}/api/{}/{repo}/revision/{}?blobs=true",
            self.settings.endpoint,
            kind.plural(),
            escape(revision, false)
        );
        let bytes = self.get(&what, &url)?;
        serde_json::from_slice(&bytes).map_err(|e| HubError::Malformed {
            what,
            problem: format!("{url} answers with no JSON: {e}"),
        })
    }

    /// A whole answer.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn get(&self, what: &str, url: &str) -> Result<Vec<u8>, HubError> {
        self.repeat(what, url, |hub, body| {
            body.clear();
            let ended = hub.attempt(what, url, None, body);
            if ended.is_err() {
                body.clear();
            }
            ended
        })
    }

    /// A range of a file of `size` bytes. A connection that breaks goes on where it broke.
    ///
    /// # Errors
    /// Where it can't be had, or the file has another size.
    pub(super) fn get_range(
        &self,
        what: &str,
        url: &str,
        range: Range<u64>,
        size: u64,
    ) -> Result<Vec<u8>, HubError> {
        self.repeat(what, url, |hub, body| {
            let left = range.start + body.len() as u64..range.end;
            hub.attempt(what, url, Some((left, size)), body)
        })
    }

    /// Attempts until one succeeds or there were enough without progress.
    fn repeat(
        &self,
        what: &str,
        url: &str,
        attempt: impl Fn(&Self, &mut Vec<u8>) -> Result<(), Failed>,
    ) -> Result<Vec<u8>, HubError> {
        let retry = self.settings.retry;
        let (mut body, mut attempts) = (Vec::new(), 0);
        loop {
            let before = body.len();
            let (status, asked, problem) = match attempt(self, &mut body) {
                Ok(()) => return Ok(body),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::ForNow(status, asked, problem)) => (status, asked, problem),
            };
            attempts = if body.len() > before { 1 } else { attempts + 1 };
            if attempts >= retry.attempts {
                let (what, url) = (what.to_owned(), url.to_owned());
                return Err(match status {
                    Some(status) => HubError::Status {
                        what,
                        url,
                        status,
                        attempts,
                    },
                    None => HubError::Connection {
                        what,
                        url,
                        attempts,
                        problem,
                    },
                });
            }
            let pause = asked.unwrap_or(retry.first_pause * 2u32.pow(attempts.min(6) - 1));
            let pause = pause.min(LONGEST_PAUSE);
            tracing::debug!(
                "{what}: {problem}; trying again in {:.1} s",
                pause.as_secs_f64()
            );
            std::thread::sleep(pause);
        }
    }

    /// One request; what arrives is appended to `body` even where it ends early.
    fn attempt(
        &self,
        what: &str,
        url: &str,
        range: Option<(Range<u64>, u64)>,
        body: &mut Vec<u8>,
    ) -> Result<(), Failed> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.settings.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some((range, _)) = &range {
            let last = range.end.saturating_sub(1);
            request = request.header("Range", format!("bytes={}-{last}", range.start));
        }
        let broken = |e: &dyn std::fmt::Display| Failed::ForNow(None, None, e.to_string());
        let malformed = |problem: String| {
            Failed::Final(HubError::Malformed {
                what: what.to_owned(),
                problem,
            })
        };
        let mut answer = request.call().map_err(|e| match e {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TooManyRedirects => {
                malformed(format!("asking {url}: {e}"))
            }
            other => broken(&other),
        })?;
        let status = answer.status().as_u16();
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        match (status, &range) {
            (206, Some((range, size))) => {
                let part = header("Content-Range").unwrap_or_default().to_owned();
                let total = part.rsplit_once('/').map(|(_, total)| total.parse());
                if !part.starts_with(&format!("bytes {}-", range.start)) || total != Some(Ok(*size))
                {
                    return Err(malformed(format!(
                        "asked for byte {} of {size} of {url}, it answers with '{part}': the file has \
                         changed on the Hub, or a proxy is in the way",
                        range.start
                    )));
                }
            }
            (200, None) => {}
            (200, Some(_)) => {
                return Err(malformed(format!("{url} does not serve parts of files")));
            }
            (404 | 410, _) => {
                return Err(Failed::Final(HubError::NotFound {
                    what: what.to_owned(),
                    url: url.to_owned(),
                }));
            }
            (401 | 403, _) => {
                return Err(Failed::Final(HubError::Forbidden {
                    what: what.to_owned(),
                    url: url.to_owned(),
                    status,
                }));
            }
            (408 | 429 | 500..=599, _) => {
                let asked = header("Retry-After").and_then(|text| text.parse().ok());
                let asked = asked.map(Duration::from_secs);
                let problem = format!("{url} answers {status}");
                return Err(Failed::ForNow(Some(status), asked, problem));
            }
            (other, _) => return Err(malformed(format!("{url} answers {other}"))),
        }
        let expected = match &range {
            Some((range, _)) => Some(range.end - range.start),
            None => answer.body().content_length(),
        };
        let before = body.len() as u64;
        let limit = expected.unwrap_or(LARGEST_ANSWER).min(LARGEST_ANSWER);
        let reader = answer.body_mut().as_reader();
        let read = reader.take(limit + 1).read_to_end(body);
        let got = body.len() as u64 - before;
        match (read, expected) {
            (Ok(_), None) if got <= limit => Ok(()),
            (Ok(_), Some(expected)) if got == expected => Ok(()),
            (_, Some(expected)) if got > expected => Err(malformed(format!(
                "{url} sends more than the {expected} bytes that it should"
            ))),
            (Ok(_), None) => Err(malformed(format!("{url} sends more than {limit} bytes"))),
            (Ok(_), Some(expected)) => Err(Failed::ForNow(
                None,
                None,
                format!("the answer ended after {got} of {expected} bytes"),
            )),
            (Err(e), _) => Err(broken(&e)),
        }
    }
}

/// A part of an address, its slashes kept where they separate folders.
fn escape(text: &str, slashes: bool) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b'/' if slashes => escaped.push('/'),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}
