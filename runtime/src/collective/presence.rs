//! What each rank leaves word of in a folder that all see: which process it is, and how far.
//!
//! `rank-N.json` is a rank's own file, `failed.json` that of the first that fails. A rank looks at that one and at
//! the next rank's, so that many ranks do not read many files; only to name those that are behind it reads all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{CollectiveError, Result};

/// How far a rank is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Word {
    /// The update that it makes.
    pub(super) update: u64,
    /// Collectives that are behind it.
    pub(super) calls: u64,
    /// The one that it waits for.
    pub(super) operation: Option<String>,
    /// What it waits for outside them, and for how many seconds.
    pub(super) waits_for: Option<(String, u64)>,
}

/// A rank's file.
#[derive(Debug, Serialize, Deserialize)]
struct Left {
    /// Of this start of this run: files of another one say nothing.
    key: String,
    process: Process,
    word: Word,
}

/// Which process a rank is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    /// Processes of one space see each other.
    space: String,
    id: u32,
}

/// The file of the first rank that fails.
#[derive(Debug, Serialize, Deserialize)]
struct Failed {
    key: String,
    rank: usize,
    reason: String,
}

/// This rank among the others of the folder.
#[derive(Debug)]
pub(super) struct Presence {
    folder: PathBuf,
    key: String,
    rank: usize,
    hosts: Vec<String>,
    process: Process,
    /// What was written last, and is not written again.
    last: Option<Word>,
}

/// This machine's name.
pub(super) fn host() -> String {
    sysinfo::System::host_name().unwrap_or_else(|| "an unnamed host".to_owned())
}

impl Presence {
    /// A name for this start, which no other one has.
    pub(super) fn new_key() -> String {
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos());
        format!("{}-{}-{time}", host(), std::process::id())
    }

    /// Removes what ranks of earlier starts have left in `folder`, of which `key` is not the name.
    pub(super) fn clear(folder: &Path, key: &str) {
        #[derive(Deserialize)]
        struct Of {
            key: String,
        }
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        for path in files.map(|file| file.path()) {
            let name = path.file_name().and_then(|name| name.to_str());
            let ours = name.is_some_and(|n| n == "failed.json" || n.starts_with("rank-"));
            if ours && read::<Of>(&path).is_none_or(|left| left.key != key) {
                // What stays says nothing, as its key is another.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// # Errors
    /// The folder cannot be made.
    pub(super) fn new(folder: &Path, key: String, rank: usize, hosts: Vec<String>) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|source| CollectiveError::Io {
            doing: format!("make the folder {} for word of the ranks", folder.display()),
            source,
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            key,
            rank,
            hosts,
            process: Process {
                space: space(),
                id: std::process::id(),
            },
            last: None,
        })
    }

    fn path(&self, rank: usize) -> PathBuf {
        self.folder.join(format!("rank-{rank}.json"))
    }

    fn failed_path(&self) -> PathBuf {
        self.folder.join("failed.json")
    }

    /// "rank 3 on node7".
    fn name(&self, rank: usize) -> String {
        match self.hosts.get(rank) {
            Some(host) => format!("rank {rank} on {host}"),
            None => format!("rank {rank}"),
        }
    }

    /// Leaves word of how far this rank is.
    pub(super) fn leave(&mut self, word: &Word) {
        if self.last.as_ref() == Some(word) {
            return;
        }
        let left = Left {
            key: self.key.clone(),
            process: self.process.clone(),
            word: word.clone(),
        };
        match write(&self.path(self.rank), &left) {
            Ok(()) => self.last = Some(word.clone()),
            // Word that does not arrive costs a name in a message, not the run.
            Err(error) => tracing::debug!(%error, "no word could be left for the other ranks"),
        }
    }

    /// Tells the others that this rank fails, unless another one has before.
    pub(super) fn fail(&mut self, reason: &str) {
        if self.failed().is_none() {
            let failed = Failed {
                key: self.key.clone(),
                rank: self.rank,
                reason: reason.to_owned(),
            };
            if let Err(error) = write(&self.failed_path(), &failed) {
                tracing::debug!(%error, "the other ranks could not be told");
            }
        }
    }

    fn failed(&self) -> Option<Failed> {
        read::<Failed>(&self.failed_path()).filter(|failed| failed.key == self.key)
    }

    fn left(&self, rank: usize) -> Option<Left> {
        read::<Left>(&self.path(rank)).filter(|left| left.key == self.key)
    }

    /// Whether another rank has failed or is gone, as a sentence.
    pub(super) fn missing(&self) -> Option<String> {
        if let Some(failed) = self.failed()
            && failed.rank != self.rank
        {
            return Some(format!(
                "{} failed: {}",
                self.name(failed.rank),
                failed.reason
            ));
        }
        let next = (self.rank + 1) % self.hosts.len().max(1);
        self.left(next)
            .filter(|left| next != self.rank && self.is_gone(&left.process))
            .map(|left| {
                format!(
                    "{} is gone: its process {} ended without a word; its last is of update {}",
                    self.name(next),
                    left.process.id,
                    left.word.update
                )
            })
    }

    fn is_gone(&self, process: &Process) -> bool {
        process.space == self.process.space && !is_running(process.id)
    }

    /// Who has not come to the collective that this rank waits for, as a sentence.
    pub(super) fn behind(&self, own: &Word) -> String {
        let behind: Vec<String> = (0..self.hosts.len())
            .filter(|&rank| rank != self.rank)
            .filter_map(|rank| match self.left(rank) {
                None => Some(format!("{} left no word", self.name(rank))),
                Some(left) if self.is_gone(&left.process) => {
                    Some(format!("{} is gone", self.name(rank)))
                }
                Some(left) if left.word.calls < own.calls || left.word.operation.is_none() => {
                    Some(format!(
                        "{} has not come: its last word is of update {} (process {})",
                        self.name(rank),
                        left.word.update,
                        left.process.id
                    ))
                }
                Some(_) => None,
            })
            .collect();
        match behind.is_empty() {
            true => "all other ranks wait, too: the connection between them may be broken".into(),
            false => behind.join("; "),
        }
    }

    /// What those wait for who have not come to the collective that this rank waits for, as a sentence; none where
    /// one of them is missing without a word of that.
    pub(super) fn excuse(&self, own: &Word) -> Option<String> {
        let mut excuses = Vec::new();
        for rank in (0..self.hosts.len()).filter(|&rank| rank != self.rank) {
            let left = self
                .left(rank)
                .filter(|left| !self.is_gone(&left.process))?;
            match left.word.waits_for {
                Some((what, seconds)) => excuses.push(format!(
                    "{} has waited for {what} for {seconds} s",
                    self.name(rank)
                )),
                None if left.word.calls < own.calls || left.word.operation.is_none() => {
                    return None;
                }
                None => {}
            }
        }
        (!excuses.is_empty()).then(|| excuses.join("; "))
    }

    /// Removes what this rank has left, and the folder after the last.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(self.path(self.rank));
        // Not while another one's word is in it.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Which processes see each other: those of one start of one machine, and there of one container.
fn space() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let container = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}/{}/{}", host(), boot.trim(), container.display())
}

/// Whether a process of this machine runs, one that nobody has waited for yet not counted.
#[cfg(target_os = "linux")]
fn is_running(id: u32) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{id}/stat")) else {
        return !Path::new("/proc/self/stat").exists();
    };
    // "12 (a name, perhaps with brackets) S 1 …"
    let state = text.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    !state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

/// Elsewhere nobody is taken for gone.
#[cfg(not(target_os = "linux"))]
fn is_running(_: u32) -> bool {
    true
}

/// Writes a file aside and gives it its name.
fn write(path: &Path, value: &impl Serialize) -> std::io::Result<()> {
    let text = serde_json::to_vec(value)?;
    let aside = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&aside, text)?;
    fs::rename(&aside, path)
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(calls: u64) -> Word {
        Word {
            update: 7,
            calls,
            operation: Some("all_reduce".into()),
            waits_for: None,
        }
    }

    fn pair(folder: &Path) -> [Presence; 2] {
        [0, 1].map(|rank| {
            let hosts = vec!["a".to_owned(), "b".to_owned()];
            let mut presence = Presence::new(folder, "key".into(), rank, hosts).unwrap();
            presence.leave(&word(3));
            presence
        })
    }

    #[test]
    fn who_fails_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let [zero, mut one] = pair(folder.path());
        assert_eq!(zero.missing(), None);
        one.fail("no text");
        assert_eq!(
            zero.missing().as_deref(),
            Some("rank 1 on b failed: no text")
        );
        assert_eq!(one.missing(), None);
        // Of an earlier start it says nothing.
        let hosts = vec!["a".to_owned(), "b".to_owned()];
        let later = Presence::new(folder.path(), "later".into(), 0, hosts).unwrap();
        assert_eq!(later.missing(), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn who_is_gone_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let [zero, mut one] = pair(folder.path());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        one.process.id = child.id();
        child.wait().unwrap();
        one.last = None;
        one.leave(&word(3));
        let missing = zero.missing().unwrap();
        assert!(missing.contains("rank 1 on b is gone"), "{missing}");
    }

    #[test]
    fn who_waits_for_its_text_is_excused() {
        let folder = tempfile::tempdir().unwrap();
        let [zero, mut one] = pair(folder.path());
        assert_eq!(zero.excuse(&word(4)), None);
        let waiting = Word {
            operation: None,
            waits_for: Some(("its text".into(), 9)),
            ..word(3)
        };
        one.leave(&waiting);
        assert_eq!(
            zero.excuse(&word(4)).as_deref(),
            Some("rank 1 on b has waited for its text for 9 s")
        );
        // A third that has not come for no reason is missing.
        let hosts = ["a", "b", "c"].map(str::to_owned).to_vec();
        let mut two = Presence::new(folder.path(), "key".into(), 2, hosts.clone()).unwrap();
        two.leave(&word(2));
        let zero = Presence::new(folder.path(), "key".into(), 0, hosts).unwrap();
        assert_eq!(zero.excuse(&word(4)), None);
        two.leave(&word(4));
        assert!(zero.excuse(&word(4)).is_some());
    }

    #[test]
    fn nothing_stays_but_what_others_have_there() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("ranks");
        let [zero, mut one] = pair(&place);
        one.fail("no text");
        fs::write(place.join("notes.txt"), "somebody else's").unwrap();
        fs::write(place.join("rank-7.json"), "half a w").unwrap();
        Presence::clear(&place, "key");
        assert!(place.join("failed.json").exists() && !place.join("rank-7.json").exists());
        assert_eq!(
            zero.missing().as_deref(),
            Some("rank 1 on b failed: no text")
        );
        Presence::clear(&place, "later");
        let names = || {
            let files = fs::read_dir(&place).unwrap();
            files
                .map(|file| file.unwrap().file_name())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(), ["notes.txt"]);
        fs::remove_file(place.join("notes.txt")).unwrap();
        one.last = None;
        one.leave(&word(3));
        zero.remove();
        assert!(place.exists());
        one.remove();
        assert!(!place.exists());
    }

    #[test]
    fn who_is_behind_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let [zero, mut one] = pair(folder.path());
        let behind = zero.behind(&word(4));
        assert!(
            behind.contains("rank 1 on b has not come: its last word is of update 7"),
            "{behind}"
        );
        one.leave(&word(4));
        assert!(zero.behind(&word(4)).contains("all other ranks wait"));
    }
}
