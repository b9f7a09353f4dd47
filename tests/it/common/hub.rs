//! A server on the loopback that speaks the part of the Hub's API that is used, and misbehaves on
//! demand; and real parquet files for it. Used by the unit tests too.

// Each of its users needs a part of this.
#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

/// The commit that every repository of the server is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The branch of what the Hub made of datasets, and its commit.
const CONVERTED: &str = "refs/convert/parquet";
const CONVERTED_COMMIT: &str = "fedcba9876543210fedcba9876543210fedcba98";
/// The token that gated repositories ask for.
pub const TOKEN: &str = "hf_let_me_in";

/// A repository.
#[derive(Clone, Default)]
pub struct Repo {
    pub files: BTreeMap<String, Vec<u8>>,
    /// `configs` of the dataset's card.
    pub configs: Option<Value>,
    pub gated: bool,
}

/// What goes wrong with one request for a file.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// This answer instead.
    Status(u16),
    /// This answer, and a wait of no seconds.
    RetryAfter(u16),
    /// The connection is cut after this many bytes of the body.
    Cut(usize),
    /// A pause before each tenth of the body.
    Slow(Duration),
    /// No byte of the body for this long, then the connection is cut.
    Silent(Duration),
}

/// What is wrong with every answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// The API answers with this status.
    pub api: Option<u16>,
    /// Requests with a token are refused, as with one that has expired.
    pub no_token: bool,
    /// Ranges are ignored: files come whole.
    pub whole: bool,
    /// Answers with a part of a file do not say which.
    pub no_content_range: bool,
    /// The API answers this late.
    pub late: Duration,
}

/// A request for a file's bytes: path and range.
pub type Asked = (String, Option<(u64, u64)>);

#[derive(Default)]
struct Inside {
    repos: Mutex<BTreeMap<String, Repo>>,
    faults: Mutex<VecDeque<Fault>>,
    asked: Mutex<Vec<Asked>>,
    trouble: Mutex<Trouble>,
    connections: AtomicUsize,
}

/// The server; its threads live as long as the process.
pub struct HubServer {
    pub endpoint: String,
    inside: Arc<Inside>,
}

impl HubServer {
    /// Starts one without repositories.
    pub fn start() -> HubServer {
        HubServer::listen(None)
    }

    /// Starts one that speaks TLS.
    pub fn start_tls(config: Arc<rustls::ServerConfig>) -> HubServer {
        HubServer::listen(Some(config))
    }

    fn listen(tls: Option<Arc<rustls::ServerConfig>>) -> HubServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let inside = Arc::new(Inside::default());
        let shared = Arc::clone(&inside);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                shared.connections.fetch_add(1, Ordering::Relaxed);
                // A client that hangs up is what these tests are about.
                std::thread::spawn(move || match tls {
                    Some(config) => {
                        let server = rustls::ServerConnection::new(config).unwrap();
                        let mut stream = rustls::StreamOwned::new(server, stream);
                        let ended = answer(&mut stream, &shared);
                        stream.conn.send_close_notify();
                        ended.and_then(|()| stream.flush()).is_ok()
                    }
                    None => answer(&stream, &shared).is_ok(),
                });
            }
        });
        HubServer { endpoint, inside }
    }

    /// What is wrong from now on.
    pub fn trouble(&self, trouble: Trouble) {
        *self.inside.trouble.lock().unwrap() = trouble;
    }

    /// Connections that were made so far.
    pub fn connections(&self) -> usize {
        self.inside.connections.load(Ordering::Relaxed)
    }

    /// Adds `datasets/OWNER/NAME` or `models/OWNER/NAME`.
    pub fn add(&self, name: &str, repo: Repo) {
        self.inside.repos.lock().unwrap().insert(name.into(), repo);
    }

    /// Adds a dataset, and what the Hub made of it in parquet, on a branch of its own.
    pub fn add_converted(&self, name: &str, repo: Repo, converted: Repo) {
        self.add(name, repo);
        self.add(&format!("{name}@{CONVERTED}"), converted);
    }

    /// The next requests for files go wrong, one after the other.
    pub fn go_wrong(&self, faults: &[Fault]) {
        self.inside.faults.lock().unwrap().extend(faults);
    }

    /// Requests for files' bytes since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.inside.asked.lock().unwrap())
    }
}

/// A company's own authority in a file, and a server with a certificate of it for 127.0.0.1.
pub fn company(folder: &Path) -> (PathBuf, HubServer) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let file = folder.join("company.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let own = KeyPair::generate().unwrap();
    let params_of_server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let issuer = Issuer::from_params(&params, &key);
    let certificate = params_of_server.signed_by(&own, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(own.serialize_der()).unwrap(),
        )
        .unwrap();
    (file, HubServer::start_tls(Arc::new(config)))
}

fn answer(mut stream: impl Read + Write, inside: &Inside) -> std::io::Result<()> {
    let trouble = *inside.trouble.lock().unwrap();
    let mut lines = BufReader::new(&mut stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    let (mut range, mut token, mut given) = (None, false, false);
    for line in lines.by_ref() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        given |= name.eq_ignore_ascii_case("authorization");
        if name.eq_ignore_ascii_case("range") && !trouble.whole {
            let parts = value.trim_start_matches("bytes=").split_once('-').unwrap();
            range = Some((parts.0.parse().unwrap(), parts.1.parse().unwrap()));
        }
        token |= name.eq_ignore_ascii_case("authorization") && value == format!("Bearer {TOKEN}");
    }
    drop(lines);
    let stream = &mut stream;
    if trouble.no_token && given {
        return reply(
            stream,
            401,
            "",
            b"Invalid credentials in Authorization header",
        );
    }
    if let Some(api) = path.strip_prefix("/api/") {
        std::thread::sleep(trouble.late);
        if let Some(status) = trouble.api {
            return reply(stream, status, "", b"trouble");
        }
        let (name, rest) = api.split_once("/revision/").unwrap_or((api, ""));
        let revision = rest.split('?').next().unwrap_or("");
        let repos = inside.repos.lock().unwrap();
        let found = match revision {
            "main" | COMMIT => repos.get(name),
            "refs%2Fconvert%2Fparquet" => repos.get(&format!("{name}@{CONVERTED}")),
            _ => None,
        };
        let commit = match revision {
            "main" | COMMIT => COMMIT,
            _ => CONVERTED_COMMIT,
        };
        return match found {
            Some(repo) => {
                let files: Vec<Value> = repo.files.iter().map(file_entry).collect();
                let info = json!({
                    "sha": commit, "siblings": files, "cardData": {"configs": repo.configs},
                });
                reply(stream, 200, "", info.to_string().as_bytes())
            }
            None => reply(stream, 404, "X-Error-Code: RepoNotFound\r\n", b"not found"),
        };
    }
    // As on the Hub, a redirection leads to where the files are.
    if !path.starts_with("/cdn/") {
        let (name, _) = path.split_once("/resolve/").unwrap_or((&path, ""));
        let repos = inside.repos.lock().unwrap();
        let gated = repos.get(&repo_key(name)).is_some_and(|repo| repo.gated);
        return match gated && !token {
            true => reply(stream, 401, "X-Error-Code: GatedRepo\r\n", b"gated"),
            false => reply(stream, 302, &format!("Location: /cdn{path}\r\n"), b""),
        };
    }
    serve_file(stream, inside, path.trim_start_matches("/cdn"), range)
}

fn repo_key(path: &str) -> String {
    match path.trim_start_matches('/') {
        dataset if dataset.starts_with("datasets/") => dataset.to_owned(),
        model => format!("models/{model}"),
    }
}

fn file_entry((name, bytes): (&String, &Vec<u8>)) -> Value {
    // The hash need only be one: the client takes it as a name.
    json!({"rfilename": name, "size": bytes.len(), "blobId": format!("{:040x}", bytes.len())})
}

fn serve_file(
    stream: &mut dyn Write,
    inside: &Inside,
    path: &str,
    range: Option<(u64, u64)>,
) -> std::io::Result<()> {
    let asked = (path.to_owned(), range);
    inside.asked.lock().unwrap().push(asked);
    let fault = inside.faults.lock().unwrap().pop_front();
    match fault {
        Some(Fault::Status(status)) => return reply(stream, status, "", b"trouble"),
        Some(Fault::RetryAfter(status)) => {
            return reply(stream, status, "Retry-After: 0\r\n", b"trouble");
        }
        Some(Fault::Cut(_) | Fault::Slow(_) | Fault::Silent(_)) | None => {}
    }
    let (repo, file) = path.split_once("/resolve/").unwrap();
    let (revision, file) = file.split_once('/').unwrap();
    let bytes = {
        let repos = inside.repos.lock().unwrap();
        let branch = if revision == CONVERTED_COMMIT {
            format!("@{CONVERTED}")
        } else {
            String::new()
        };
        let found = repos.get(&(repo_key(repo) + &branch));
        found.and_then(|repo| repo.files.get(file)).cloned()
    };
    let Some(bytes) = bytes else {
        return reply(stream, 404, "X-Error-Code: EntryNotFound\r\n", b"not found");
    };
    let silent = inside.trouble.lock().unwrap().no_content_range;
    let (status, headers, body) = match range {
        Some((from, to)) if silent => (206, String::new(), &bytes[from as usize..=to as usize]),
        Some((from, to)) => (
            206,
            format!("Content-Range: bytes {from}-{to}/{}\r\n", bytes.len()),
            &bytes[from as usize..=to as usize],
        ),
        None => (200, String::new(), &bytes[..]),
    };
    match fault {
        Some(Fault::Cut(after)) => {
            head(stream, status, &headers, body.len())?;
            stream.write_all(&body[..after.min(body.len())])
        }
        Some(Fault::Silent(time)) => {
            head(stream, status, &headers, body.len())?;
            std::thread::sleep(time);
            Ok(())
        }
        Some(Fault::Slow(pause)) => {
            head(stream, status, &headers, body.len())?;
            for part in body.chunks(body.len().div_ceil(10).max(1)) {
                std::thread::sleep(pause);
                stream.write_all(part)?;
            }
            Ok(())
        }
        Some(Fault::Status(_) | Fault::RetryAfter(_)) | None => {
            reply(stream, status, &headers, body)
        }
    }
}

fn head(stream: &mut dyn Write, status: u16, headers: &str, length: usize) -> std::io::Result<()> {
    let text = format!(
        "HTTP/1.1 {status} Whatever\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(text.as_bytes())
}

fn reply(stream: &mut dyn Write, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    head(stream, status, headers, body.len())?;
    stream.write_all(body)
}

/// A parquet file of columns `id`, `text` (`None` is null) and `filler`, this many rows a row group,
/// with small pages.
pub fn parquet_of(texts: &[Option<&[u8]>], rows_per_group: usize, codec: Compression) -> Vec<u8> {
    let schema = "message schema { required int64 id; optional binary text (UTF8); \
                  required binary filler (UTF8); }";
    let properties = WriterProperties::builder()
        .set_compression(codec)
        .set_data_page_row_count_limit(7)
        .set_write_batch_size(7)
        .set_dictionary_enabled(false)
        .build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    for (start, group) in texts.chunks(rows_per_group).enumerate() {
        let mut writer = file.next_row_group().unwrap();
        let ids: Vec<i64> = (0..group.len()).map(|i| (start + i) as i64).collect();
        let mut column = writer.next_column().unwrap().unwrap();
        column
            .typed::<Int64Type>()
            .write_batch(&ids, None, None)
            .unwrap();
        column.close().unwrap();
        let levels: Vec<i16> = group.iter().map(|t| i16::from(t.is_some())).collect();
        let there: Vec<ByteArray> = group.iter().flatten().map(|t| t.to_vec().into()).collect();
        let mut column = writer.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&there, Some(&levels), None)
            .unwrap();
        column.close().unwrap();
        let filler: Vec<ByteArray> = (0..group.len())
            .map(|i| "filler ".repeat(50 + i % 3).into_bytes().into())
            .collect();
        let mut column = writer.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&filler, None, None)
            .unwrap();
        column.close().unwrap();
        writer.close().unwrap();
    }
    file.close().unwrap();
    bytes
}
