//! How ranks find each other: rank 0 makes an id, which all others need.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::functions::{Functions, ID_BYTES, UniqueId};
use super::{Joining, Mpi};
use crate::collective::{Collective, CollectiveError, Result};

/// How the id comes from rank 0 to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rendezvous {
    /// By MPI, whose launcher has started the ranks.
    Mpi,
    /// By a file in a folder that all see. The key is new for each start of a run.
    Folder {
        /// The folder; it is made where it is missing.
        path: PathBuf,
        /// What no earlier start has used.
        key: String,
    },
    /// Not at all: all know rank 0's host, and a port that is free there, as `HOST:PORT`, from which the library
    /// makes the same id for each.
    Address(String),
}

/// How often a rank looks for the file.
const INTERVAL: Duration = Duration::from_millis(20);
/// By which all ranks make the same id.
const ADDRESS: &str = "NCCL_COMM_ID";

/// The id; with MPI, where it came by that.
///
/// # Errors
/// The library finds no network, or the others are not found.
pub(super) fn exchange(
    functions: &Functions,
    joining: &Joining<'_>,
) -> Result<(UniqueId, Option<Mpi>)> {
    match joining.rendezvous {
        Rendezvous::Address(address) => {
            // SAFETY: ranks are joined while this program reads no variables elsewhere; the library reads it in this
            // thread.
            unsafe { std::env::set_var(ADDRESS, address) };
            Ok((functions.unique_id()?, None))
        }
        Rendezvous::Mpi => {
            let mpi = Mpi::open(joining.rank, joining.world_size)?;
            let mut id = match joining.rank {
                0 => functions.unique_id()?.0.to_vec(),
                _ => Vec::new(),
            };
            let ranks: &dyn Collective = &mpi;
            ranks.broadcast_bytes(&mut id, 0)?;
            let id = id
                .try_into()
                .map_err(|_| not_an_id("MPI's broadcast".into()))?;
            Ok((UniqueId(id), Some(mpi)))
        }
        Rendezvous::Folder { path, key } => {
            let file = id_file(path, key);
            let id = match joining.rank {
                0 => {
                    let id = functions.unique_id()?;
                    leave(path, &file, &id)?;
                    id
                }
                _ => wait_for(&file, joining.timeout)?,
            };
            Ok((id, None))
        }
    }
}

/// Removes what the others have read.
pub(super) fn clean_up(rendezvous: &Rendezvous) {
    match rendezvous {
        Rendezvous::Folder { path, key } => {
            let _ = fs::remove_file(id_file(path, key));
        }
        Rendezvous::Mpi | Rendezvous::Address(_) => {}
    }
}

fn id_file(folder: &Path, key: &str) -> PathBuf {
    // A key may come from a launcher's variables.
    let plain = |c: char| {
        if c.is_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    folder.join(format!(
        "nccl-id-{}",
        key.chars().map(plain).collect::<String>()
    ))
}

fn io(doing: String) -> impl FnOnce(std::io::Error) -> CollectiveError {
    move |source| CollectiveError::Io { doing, source }
}

/// Writes the id aside and gives the file its name.
fn leave(folder: &Path, file: &Path, id: &UniqueId) -> Result<()> {
    fs::create_dir_all(folder).map_err(io(format!(
        "make the folder {} for ranks to meet",
        folder.display()
    )))?;
    let aside = file.with_extension("new");
    let doing = || format!("write {}, by which ranks find each other", file.display());
    fs::write(&aside, id.0).map_err(io(doing()))?;
    fs::rename(&aside, file).map_err(io(doing()))
}

fn wait_for(file: &Path, timeout: Duration) -> Result<UniqueId> {
    let start = Instant::now();
    loop {
        match fs::read(file) {
            Ok(bytes) => {
                let id: Option<[u8; ID_BYTES]> = bytes.try_into().ok();
                return id
                    .map(UniqueId)
                    .ok_or_else(|| not_an_id(file.display().to_string()));
            }
            Err(error) if start.elapsed() >= timeout => {
                return Err(io(format!(
                    "read {}, which rank 0 should have left within {} s",
                    file.display(),
                    timeout.as_secs()
                ))(error));
            }
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}

fn not_an_id(source: String) -> CollectiveError {
    CollectiveError::NotAnId {
        source_name: source,
    }
}
