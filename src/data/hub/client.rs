//! Requests to the Hub, repeated where that may help, each on a thread of its own so that a signal ends the wait.

use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use serde_json::Value;
use ureq::config::RedirectAuthHeaders;
use ureq::tls::TlsConfig;

use super::RepoKind;
use super::certificates;
use super::error::HubError;
use crate::stop;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// Largest answer that is held in memory.
const LARGEST_ANSWER: u64 = 256 << 20;
/// Bytes handed over at once.
const PIECE: usize = 1 << 20;
/// No answer of a server makes this program wait longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// How often a wait looks for a signal.
const LOOK: Duration = Duration::from_millis(20);

/// When to try again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Requests for one answer at most, counted anew when a part of it arrived.
    pub attempts: u32,
    /// Pause before the second request; it doubles each time.
    pub first_pause: Duration,
    /// Time without a byte after which it is said that the Hub is waited for.
    pub word: Duration,
    /// Time without a byte after which a connection is given up.
    pub silence: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_pause: Duration::from_secs(1),
            word: Duration::from_secs(4),
            silence: Duration::from_secs(30),
        }
    }
}

/// What tells the Hub who asks.
#[derive(Debug, Clone)]
pub struct Token {
    pub value: String,
    /// The variable or file that it is from, for messages.
    pub origin: String,
}

/// Where the Hub is and what it may be asked.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Address without a slash at its end.
    pub endpoint: String,
    pub token: Option<Token>,
    /// Folder of HuggingFace's cache that holds the repositories; none where there is no home folder.
    pub cache: Option<PathBuf>,
    pub offline: bool,
    pub retry: Retry,
    /// Whether the process was asked to stop, so that waiting for the Hub is over.
    pub stopping: fn() -> bool,
}

impl HubSettings {
    /// As HuggingFace's variables say: HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE.
    pub fn from_env() -> Self {
        Self::from_variables(std::env::home_dir(), |name| std::env::var(name).ok())
    }

    /// The same for another home folder and other variables.
    pub(super) fn from_variables(
        home: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let home = path("HF_HOME").or_else(|| {
            let cache = path("XDG_CACHE_HOME");
            let cache = cache.or_else(|| Some(home?.join(".cache")));
            Some(cache?.join("huggingface"))
        });
        let stored = || {
            let file = path("HF_TOKEN_PATH").or_else(|| Some(home.as_ref()?.join("token")))?;
            Some(Token {
                value: std::fs::read_to_string(&file).ok()?,
                origin: file.display().to_string(),
            })
        };
        let named = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter();
        let named = named.filter_map(|name| {
            Some(Token {
                value: variable(name)?,
                origin: name.to_owned(),
            })
        });
        let token = named.chain(std::iter::from_fn(stored).take(1)).next();
        let token = token.map(|token| Token {
            value: token.value.trim().to_owned(),
            ..token
        });
        let offline = variable("HF_HUB_OFFLINE").map(|value| value.to_ascii_uppercase());
        Self {
            endpoint: variable("HF_ENDPOINT")
                .unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            token: token.filter(|token| !token.value.is_empty()),
            cache: path("HF_HUB_CACHE").or_else(|| Some(home?.join("hub"))),
            offline: offline.is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.as_str())),
            retry: Retry::default(),
            stopping: || stop::signal().is_some(),
        }
    }
}

/// A client of the Hub.
#[derive(Debug, Clone)]
pub struct Hub {
    pub(super) settings: HubSettings,
    agent: ureq::Agent,
    /// Whether the token was refused, so that no further request has it.
    token_refused: Arc<AtomicBool>,
    /// Whether it sent a whole file where a part was asked for.
    whole_files: Arc<AtomicBool>,
    /// Whether it was said that it is waited for: once, as there are many requests in a run.
    said_slow: Arc<AtomicBool>,
}

/// What of a file is asked for.
#[derive(Debug, Clone)]
enum Part {
    /// All of it.
    Whole,
    /// A range of a file of `size` bytes.
    Range { range: Range<u64>, size: u64 },
    /// All that follows the first bytes of a file of `size` bytes, from a server that sends whole files alone.
    Behind { first: u64, size: u64 },
}

/// One request.
#[derive(Debug, Clone)]
struct Request {
    what: String,
    url: String,
    part: Part,
    token: Option<Token>,
}

/// What arrives of an answer: bytes, then how it ended.
enum Arrived {
    Bytes(Vec<u8>),
    End(Result<(), Failed>),
}

/// Why an attempt gave no answer.
enum Failed {
    /// Another one may.
    ForNow {
        status: Option<u16>,
        /// The pause that the server asks for.
        pause: Option<Duration>,
        problem: String,
    },
    /// The server does not know the token that it was given.
    Token,
    Final(HubError),
}

impl Hub {
    pub fn new(settings: HubSettings) -> Self {
        let silence = Some(settings.retry.silence);
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("mpnet/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(silence)
            .timeout_recv_response(silence)
            .timeout_per_read(silence);
        if !settings.offline && settings.endpoint.starts_with("https:") {
            let roots = certificates::trusted(|name| std::env::var_os(name));
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Self {
            settings,
            agent: config.build().into(),
            token_refused: Arc::default(),
            whole_files: Arc::default(),
            said_slow: Arc::default(),
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

    /// What the API says of a repository at a revision: commit, files with sizes, card. Where the cache could do, the
    /// Hub is not waited for long.
    pub(super) fn info(
        &self,
        kind: RepoKind,
        repo: &str,
        revision: &str,
        cached: bool,
    ) -> Result<Value, HubError> {
        let what = format!("the {} {repo} at revision {revision}", kind.word());
        let url = format!(
            "{}/api/{}/{repo}/revision/{}?blobs=true",
            self.settings.endpoint,
            kind.plural(),
            escape(revision, false)
        );
        let attempts = self.settings.retry.attempts;
        let attempts = if cached { attempts.min(2) } else { attempts };
        let mut bytes = Vec::new();
        self.repeat(&what, &url, attempts, &mut bytes, |_| Part::Whole)?;
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
        let mut body = Vec::new();
        let attempts = self.settings.retry.attempts;
        self.repeat(what, url, attempts, &mut body, |_| Part::Whole)?;
        Ok(body)
    }

    /// A range of a file of `size` bytes. A connection that breaks goes on where it broke.
    ///
    /// # Errors
    /// Where it can't be had, or the file has another size; [`HubError::NoRanges`] where the server sends whole files
    /// alone.
    pub(super) fn get_range(
        &self,
        what: &str,
        url: &str,
        range: Range<u64>,
        size: u64,
    ) -> Result<Vec<u8>, HubError> {
        let mut body = Vec::new();
        let attempts = self.settings.retry.attempts;
        self.repeat(what, url, attempts, &mut body, |arrived| Part::Range {
            range: range.start + arrived..range.end,
            size,
        })?;
        Ok(body)
    }

    /// A file of `size` bytes, in pieces, from a server that sends whole files alone. A connection that breaks starts
    /// again, without handing out anything twice.
    ///
    /// # Errors
    /// Where it can't be had, or the file has another size, and those of `into`.
    pub(super) fn get_whole(
        &self,
        what: &str,
        url: &str,
        size: u64,
        into: &mut dyn Body,
    ) -> Result<(), HubError> {
        let attempts = self.settings.retry.attempts;
        self.repeat(what, url, attempts, into, |first| Part::Behind {
            first,
            size,
        })
    }

    /// Attempts until one succeeds or there were enough without progress. `part` says what to ask for when so many
    /// bytes have arrived.
    fn repeat(
        &self,
        what: &str,
        url: &str,
        most: u32,
        body: &mut dyn Body,
        part: impl Fn(u64) -> Part,
    ) -> Result<(), HubError> {
        let retry = self.settings.retry;
        let (mut arrived, mut attempts, mut said) = (0, 0, false);
        loop {
            let before = arrived;
            let token = self.settings.token.clone();
            let request = Request {
                what: what.to_owned(),
                url: url.to_owned(),
                part: part(arrived),
                token: token.filter(|_| !self.token_refused.load(Ordering::Relaxed)),
            };
            let whole = matches!(request.part, Part::Whole);
            let ended = self.attempt(request, &mut |bytes| {
                arrived += bytes.len() as u64;
                body.take(bytes)
            });
            if whole && ended.is_err() {
                body.clear();
                arrived = 0;
            }
            let (status, pause, problem) = match ended {
                Ok(()) => return Ok(()),
                Err(Failed::Final(error)) => {
                    let whole = matches!(error, HubError::NoRanges { .. });
                    self.whole_files.fetch_or(whole, Ordering::Relaxed);
                    return Err(self.with_token(error));
                }
                Err(Failed::Token) => {
                    // A public repository is shown without one.
                    self.token_refused.store(true, Ordering::Relaxed);
                    if let Some(token) = &self.settings.token {
                        tracing::warn!(
                            "the Hub refuses the token of {}: it has expired or was withdrawn; asking without it",
                            token.origin
                        );
                    }
                    continue;
                }
                Err(Failed::ForNow {
                    status,
                    pause,
                    problem,
                }) => (status, pause, problem),
            };
            attempts = if arrived > before { 1 } else { attempts + 1 };
            if attempts >= most {
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
            let pause = pause.unwrap_or(retry.first_pause * 2u32.pow(attempts.min(6) - 1));
            let pause = pause.min(LONGEST_PAUSE);
            let again = format!(
                "{what}: {problem}; trying again in {:.1} s, at most {most} times in all",
                pause.as_secs_f64()
            );
            // Once in the log's ordinary lines: more would drown what else there is.
            if std::mem::replace(&mut said, true) {
                tracing::debug!("{again}");
            } else {
                tracing::warn!("{again}");
            }
            let end = Instant::now() + pause;
            while Instant::now() < end {
                self.unless_stopping(what)?;
                std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
            }
        }
    }

    /// Whether the server is known to send no parts of files.
    pub(super) fn sends_whole_files(&self) -> bool {
        self.whole_files.load(Ordering::Relaxed)
    }

    /// An error that says so where the token was refused before.
    fn with_token(&self, error: HubError) -> HubError {
        let refused = self.token_refused.load(Ordering::Relaxed);
        match (error, &self.settings.token) {
            (HubError::Forbidden { what, url, .. }, Some(token)) if refused => {
                HubError::TokenRefused {
                    what,
                    url,
                    origin: token.origin.clone(),
                }
            }
            (error, _) => error,
        }
    }

    fn unless_stopping(&self, what: &str) -> Result<(), HubError> {
        if (self.settings.stopping)() {
            return Err(HubError::Stopped {
                what: what.to_owned(),
            });
        }
        Ok(())
    }

    /// One request; what arrives goes into `take`, even where the answer ends early.
    fn attempt(
        &self,
        request: Request,
        take: &mut dyn FnMut(&[u8]) -> Result<(), HubError>,
    ) -> Result<(), Failed> {
        let (what, url) = (request.what.clone(), request.url.clone());
        let lost = |problem: String| {
            Failed::Final(HubError::Malformed {
                what: what.clone(),
                problem,
            })
        };
        let (sender, receiver) = bounded(2);
        let agent = self.agent.clone();
        std::thread::Builder::new()
            .name("mpnet-hub".into())
            .spawn(move || {
                let ended = receive(&agent, &request, &sender);
                // Where nobody waits any more nobody misses it.
                drop(sender.send(Arrived::End(ended)));
            })
            .map_err(|e| lost(format!("can't start a thread: {e}")))?;
        let Retry { word, silence, .. } = self.settings.retry;
        let mut last = Instant::now();
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok(Arrived::Bytes(bytes)) => {
                    take(&bytes).map_err(Failed::Final)?;
                    last = Instant::now();
                }
                Ok(Arrived::End(ended)) => return ended,
                Err(RecvTimeoutError::Timeout) => {
                    self.unless_stopping(&what).map_err(Failed::Final)?;
                    if last.elapsed() >= word && !self.said_slow.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            "waiting for {what}: {url} has sent nothing for {:.0} s, and is given up after {:.0} s",
                            word.as_secs_f64(),
                            silence.as_secs_f64()
                        );
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(lost("the thread that asks has ended".into()));
                }
            }
        }
    }
}

/// Where an answer goes.
pub(super) trait Body {
    /// Takes what follows.
    ///
    /// # Errors
    /// Where it can't be kept.
    fn take(&mut self, bytes: &[u8]) -> Result<(), HubError>;

    /// Forgets what it has, as the answer starts again.
    fn clear(&mut self);
}

impl Body for Vec<u8> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn clear(&mut self) {
        Vec::clear(self);
    }
}

/// Asks once and sends what arrives.
fn receive(agent: &ureq::Agent, request: &Request, sender: &Sender<Arrived>) -> Result<(), Failed> {
    let Request {
        what,
        url,
        part,
        token,
    } = request;
    let mut asked = agent.get(url);
    if let Some(token) = token {
        asked = asked.header("Authorization", format!("Bearer {}", token.value));
    }
    if let Part::Range { range, .. } = part {
        let last = range.end.saturating_sub(1);
        asked = asked.header("Range", format!("bytes={}-{last}", range.start));
    }
    let malformed = |problem: String| {
        Failed::Final(HubError::Malformed {
            what: what.clone(),
            problem,
        })
    };
    let mut answer = asked.call().map_err(|e| match e {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TooManyRedirects => {
            malformed(format!("asking {url}: {e}"))
        }
        other => match certificates::problem(&other) {
            Some(problem) => Failed::Final(HubError::Certificate {
                what: what.clone(),
                url: url.clone(),
                problem,
            }),
            None => broken(&other),
        },
    })?;
    let header = |name: &str| answer.headers().get(name)?.to_str().ok();
    let length = answer.body().content_length();
    match (answer.status().as_u16(), part) {
        (206, Part::Range { range, size }) => {
            let there = header("Content-Range").map(str::to_owned);
            let fits = match &there {
                Some(there) => {
                    let total = there.rsplit_once('/').map(|(_, total)| total.parse());
                    there.starts_with(&format!("bytes {}-", range.start))
                        && total == Some(Ok(*size))
                }
                // Some mirrors do not repeat the range; its length tells.
                None => length == Some(range.end - range.start),
            };
            if !fits {
                return Err(malformed(format!(
                    "asked for byte {} of {size} of {url}, it answers with '{}': the file has changed on the Hub, or \
                     a proxy is in the way",
                    range.start,
                    there.unwrap_or_default()
                )));
            }
        }
        (200, Part::Whole | Part::Behind { .. }) => {}
        (200, Part::Range { range, size }) if *range == (0..*size) => {}
        (200, Part::Range { .. }) => {
            return Err(Failed::Final(HubError::NoRanges { url: url.clone() }));
        }
        (404 | 410, _) => {
            return Err(Failed::Final(HubError::NotFound {
                what: what.clone(),
                url: url.clone(),
            }));
        }
        (401, _) if token.is_some() => return Err(Failed::Token),
        (status @ (401 | 403), _) => {
            return Err(Failed::Final(HubError::Forbidden {
                what: what.clone(),
                url: url.clone(),
                status,
            }));
        }
        (status @ (408 | 429 | 500..=599), _) => {
            let pause = header("Retry-After").and_then(|text| text.parse().ok());
            return Err(Failed::ForNow {
                status: Some(status),
                pause: pause.map(Duration::from_secs),
                problem: format!("{url} answers {status}"),
            });
        }
        (other, _) => return Err(malformed(format!("{url} answers {other}"))),
    }
    let (expected, mut skipped) = match part {
        Part::Range { range, .. } => (Some(range.end - range.start), 0),
        Part::Behind { first, size } => (Some(*size), *first),
        Part::Whole => (length, 0),
    };
    // What is kept in memory has a limit; files on their way to the disk have their size.
    let limit = match part {
        Part::Whole => expected.unwrap_or(LARGEST_ANSWER).min(LARGEST_ANSWER),
        Part::Range { .. } | Part::Behind { .. } => expected.unwrap_or(LARGEST_ANSWER),
    };
    let mut reader = answer.body_mut().as_reader().take(limit + 1);
    let (mut piece, mut got) = (vec![0; PIECE], 0);
    loop {
        let read = reader.read(&mut piece).map_err(|e| broken(&e))?;
        if read == 0 {
            break;
        }
        got += read as u64;
        if got > limit {
            return Err(malformed(match expected {
                Some(expected) => {
                    format!("{url} sends more than the {expected} bytes that it should")
                }
                None => format!("{url} sends more than {limit} bytes"),
            }));
        }
        let behind = skipped.min(read as u64);
        skipped -= behind;
        let new = piece[behind as usize..read].to_vec();
        if sender.send(Arrived::Bytes(new)).is_err() {
            // Nobody waits any more, and nobody hears this.
            return Err(broken(&"nobody waits for the answer"));
        }
    }
    match expected {
        Some(expected) if got < expected => Err(broken(&format!(
            "the answer ended after {got} of {expected} bytes"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// A connection that broke.
fn broken(problem: &dyn std::fmt::Display) -> Failed {
    Failed::ForNow {
        status: None,
        pause: None,
        problem: problem.to_string(),
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
