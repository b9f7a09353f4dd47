//! A server on the loopback that speaks the part of the Hub's API that is used, and misbehaves on
//! demand; and real parquet files for it. Used by the unit tests too.

// Each of its users needs a part of this.
#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

/// The commit that every repository of the server is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The token that gated repositories ask for.
pub const TOKEN: &str = "hf_let_me_in";

/// A repository.
#[derive(Default)]
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

/// A request for a file's bytes: path and range.
pub type Asked = (String, Option<(u64, u64)>);

#[derive(Default)]
struct Inside {
    repos: Mutex<BTreeMap<String, Repo>>,
    faults: Mutex<VecDeque<Fault>>,
    asked: Mutex<Vec<Asked>>,
}

/// The server; its threads live as long as the process.
pub struct HubServer {
    pub endpoint: String,
    inside: Arc<Inside>,
}

impl HubServer {
    /// Starts one without repositories.
    pub fn start() -> HubServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let inside = Arc::new(Inside::default());
        let shared = Arc::clone(&inside);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A client that hangs up is what these tests are about.
                std::thread::spawn(move || drop(answer(&stream, &shared)));
            }
        });
        HubServer { endpoint, inside }
    }

    /// Adds `datasets/OWNER/NAME` or `models/OWNER/NAME`.
    pub fn add(&self, name: &str, repo: Repo) {
        self.inside.repos.lock().unwrap().insert(name.into(), repo);
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

fn answer(stream: &TcpStream, inside: &Inside) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    let (mut range, mut token) = (None, false);
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        if name.eq_ignore_ascii_case("range") {
            let parts = value.trim_start_matches("bytes=").split_once('-').unwrap();
            range = Some((parts.0.parse().unwrap(), parts.1.parse().unwrap()));
        }
        token |= name.eq_ignore_ascii_case("authorization") && value == format!("Bearer {TOKEN}");
    }
    if let Some(api) = path.strip_prefix("/api/") {
        let (name, rest) = api.split_once("/revision/").unwrap_or((api, ""));
        let revision = rest.split('?').next().unwrap_or("");
        let repos = inside.repos.lock().unwrap();
        let known = ["main", COMMIT].contains(&revision);
        return match repos.get(name).filter(|_| known) {
            Some(repo) => {
                let files: Vec<Value> = repo.files.iter().map(file_entry).collect();
                let info = json!({
                    "sha": COMMIT, "siblings": files, "cardData": {"configs": repo.configs},
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
    mut stream: &TcpStream,
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
    let file = file.split_once('/').unwrap().1;
    let bytes = {
        let repos = inside.repos.lock().unwrap();
        let found = repos.get(&repo_key(repo));
        found.and_then(|repo| repo.files.get(file)).cloned()
    };
    let Some(bytes) = bytes else {
        return reply(stream, 404, "X-Error-Code: EntryNotFound\r\n", b"not found");
    };
    let (status, headers, body) = match range {
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

fn head(mut stream: &TcpStream, status: u16, headers: &str, length: usize) -> std::io::Result<()> {
    let text = format!(
        "HTTP/1.1 {status} Whatever\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(text.as_bytes())
}

fn reply(mut stream: &TcpStream, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
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
