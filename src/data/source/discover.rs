//! The files that a folder, a file's name or a pattern stands for, and what of them is left out.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::Kind;
use super::format::Foreign;
use crate::data::error::{DataError, Result};

/// Files that programs keep beside their data.
const SIDE_FILES: [&str; 9] = [
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "metadata.jsonl",
    "metadata.csv",
    "metadata.parquet",
    "croissant.json",
    "checksums.txt",
];
/// What programs keep beside their data under names that begin with `_`, up to their first dot.
const HIDDEN: [&str; 10] = [
    "_success",
    "_metadata",
    "_common_metadata",
    "_temporary",
    "_delta_log",
    "_spark_metadata",
    "_symlink_format_manifest",
    "_logs",
    "__macosx",
    "__pycache__",
];
/// How such names begin where a number follows.
const HIDDEN_NUMBERED: [&str; 3] = ["_started_", "_committed_", "_temporary"];
/// The first words of files that are about the data.
const ABOUT: [&str; 11] = [
    "license",
    "licence",
    "readme",
    "notice",
    "copying",
    "changelog",
    "authors",
    "citation",
    "contributing",
    "sha256sums",
    "md5sums",
];
/// Letters of a language, a licence or a version behind such a word.
const ABBREVIATION: usize = 3;
/// Two files that every run's folder has: its configuration and its log.
pub const RUN_FILES: [&str; 2] = ["config.toml", "metrics.jsonl"];
/// Files of another kind than the rest are strays where they are no larger than this together and the rest is
/// larger, and they are less than a fiftieth of all.
const STRAY_BYTES: u64 = 64 << 10;
const STRAY_SHARE: u64 = 50;
/// Files that a message names.
const NAMED: usize = 3;

/// Why a file is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// Its name, or its folder's, is one that programs give to what is beside data, or says that it is about the data.
    SideFile,
    /// Its name, or its folder's, begins with `_`, as of what Hadoop and Spark hide, and is not a known one.
    Underlined,
    /// A run's folder, with what this program writes there.
    Run,
    /// A link that leads nowhere.
    Dangling,
    /// One or a few small ones of another kind than the rest.
    Stray,
    /// Its ending is not known.
    OtherKind,
    /// It is validation or test text of the run.
    Evaluation,
}

impl LeftOut {
    /// In words, after a number of files.
    pub fn said(self) -> &'static str {
        match self {
            LeftOut::SideFile => "beside the data, by their names",
            LeftOut::Underlined => "named with a _ in front (a path or pattern with it reads them)",
            LeftOut::Run => "with a run of this program",
            LeftOut::Dangling => "that are links to nothing",
            LeftOut::Stray => {
                "small and of another kind than the rest (name them by a pattern to read them)"
            }
            LeftOut::OtherKind => "of other kinds",
            LeftOut::Evaluation => "that are validation or test text of this run",
        }
    }

    /// Whether it is worth a warning.
    fn is_odd(self) -> bool {
        match self {
            LeftOut::SideFile | LeftOut::Run => false,
            LeftOut::Underlined
            | LeftOut::Dangling
            | LeftOut::Stray
            | LeftOut::OtherKind
            | LeftOut::Evaluation => true,
        }
    }
}

/// Tells a file or folder apart from all others, whatever it is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileId(#[cfg(unix)] (u64, u64), #[cfg(not(unix))] PathBuf);

impl FileId {
    /// That of the file or folder at `path`, links followed.
    ///
    /// # Errors
    /// Where there is none.
    pub fn of(path: &Path) -> io::Result<FileId> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let metadata = std::fs::metadata(path)?;
            Ok(FileId((metadata.dev(), metadata.ino())))
        }
        #[cfg(not(unix))]
        {
            std::fs::canonicalize(path).map(FileId)
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Discovered {
    /// Sorted by path.
    pub files: Vec<PathBuf>,
    pub left_out: BTreeMap<LeftOut, Vec<PathBuf>>,
}

impl Discovered {
    /// Leaves out files for which `is` holds.
    fn leave_out(&mut self, why: LeftOut, is: impl Fn(&Path) -> bool) {
        let (out, files) = std::mem::take(&mut self.files)
            .into_iter()
            .partition::<Vec<_>, _>(|path| is(path));
        self.files = files;
        if !out.is_empty() {
            self.left_out.entry(why).or_default().extend(out);
        }
    }

    /// Leaves out files that are beside the data by their names.
    fn leave_out_by_name(&mut self) {
        self.leave_out(LeftOut::SideFile, is_side_file);
        self.leave_out(LeftOut::Underlined, |path| {
            starts_with(path.file_name().unwrap_or_default(), b"_")
        });
    }

    /// Takes in what was found elsewhere, but for files that are there already.
    pub fn join(&mut self, other: Discovered) {
        if self.files.is_empty() {
            self.files = other.files;
        } else {
            let known: HashSet<FileId> = self.files.iter().flat_map(|p| FileId::of(p)).collect();
            let new = |path: &PathBuf| FileId::of(path).map_or(true, |id| !known.contains(&id));
            self.files.extend(other.files.into_iter().filter(new));
        }
        for (why, paths) in other.left_out {
            self.left_out.entry(why).or_default().extend(paths);
        }
    }

    /// Leaves out the files that are among `ids`, unless nothing would be left: that is said.
    pub fn without(&mut self, ids: &[FileId]) {
        let among = |path: &Path| FileId::of(path).is_ok_and(|id| ids.contains(&id));
        if self.files.iter().all(|path| among(path)) {
            if let Some(first) = self.files.first() {
                tracing::warn!(
                    "{}: the run trains on the text that it validates or tests on, as there is no other; \
                     their losses tell nothing of other text",
                    first.display()
                );
            }
            return;
        }
        self.leave_out(LeftOut::Evaluation, among);
    }

    /// Says of what was left out what one would not expect. `name` is what was asked for, and names are shown as they
    /// are below `place`.
    pub fn tell(&self, name: &str, place: &Path) {
        for (why, paths) in self.left_out.iter().filter(|(why, _)| why.is_odd()) {
            let folders = paths.iter().filter(|path| path.is_dir()).count();
            let count = |count: usize, what: &str| match count {
                1 => format!("1 {what}"),
                several => format!("{several} {what}s"),
            };
            tracing::warn!(
                "{name}: leaving out {} {}: {}",
                match (paths.len() - folders, folders) {
                    (files, 0) => count(files, "file"),
                    (0, folders) => count(folders, "folder"),
                    (files, folders) =>
                        format!("{} and {}", count(files, "file"), count(folders, "folder")),
                },
                why.said(),
                named(place, paths, paths.len())
            );
        }
    }
}

/// The names of the first of `count` files for a message.
pub fn named(place: &Path, paths: &[PathBuf], count: usize) -> String {
    let short = |path: &PathBuf| {
        path.strip_prefix(place)
            .unwrap_or(path)
            .display()
            .to_string()
    };
    let mut names: Vec<String> = paths.iter().take(NAMED).map(short).collect();
    if count > names.len() {
        names.push(format!("and {} more", count - names.len()));
    }
    names.join(", ")
}

/// The text files of a folder, sub-folders included, or that a pattern matches, or the one file; sorted
/// by path.
///
/// A folder's are those with a known ending; where there is none, every file that is not hidden, as
/// annotated-mpnet takes them. Links are followed, each real folder once.
///
/// # Errors
/// When there is none, or a folder can't be read.
pub fn discover(path: &Path) -> Result<Discovered> {
    let fail = |problem: String| DataError::TrainingFolder {
        path: path.to_owned(),
        problem,
    };
    if path.is_file() {
        return Ok(Discovered {
            files: vec![path.to_owned()],
            ..Discovered::default()
        });
    }
    if path.is_dir() {
        return of_folder(path);
    }
    if path.exists() {
        return Err(fail(
            "it is a pipe or a device, which is read only once, and a run goes through its text several times: write it \
             to a file first"
                .into(),
        ));
    }
    let text = path.to_string_lossy();
    if !text.contains(['*', '?', '[']) {
        return Err(fail("there is no such file or folder".into()));
    }
    let options = glob::MatchOptions {
        require_literal_separator: true,
        require_literal_leading_dot: true,
        ..glob::MatchOptions::default()
    };
    let matched =
        glob::glob_with(&text, options).map_err(|e| fail(format!("it is no pattern: {e}")))?;
    let mut found = Discovered::default();
    for entry in matched {
        let entry = entry.map_err(|e| fail(format!("can't list {e}")))?;
        if entry.is_file() {
            found.files.push(entry);
        } else if is_dangling(&entry) {
            found
                .left_out
                .entry(LeftOut::Dangling)
                .or_default()
                .push(entry);
        }
    }
    found.files.sort();
    // A pattern that begins with the name asks for the file.
    let asked = path.file_name().unwrap_or_default().to_string_lossy();
    let asked = asked.split(['*', '?', '[']).next().unwrap_or_default();
    if asked.is_empty() {
        found.leave_out_by_name();
    }
    if found.files.is_empty() {
        return Err(fail("no file matches it".into()));
    }
    Ok(found)
}

/// Whether a file, by its name, is beside the data.
fn is_side_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lower = name.to_ascii_lowercase();
    if is_hidden(&lower) || SIDE_FILES.contains(&lower.as_str()) {
        return true;
    }
    // README.txt, LICENSE-2.0.txt, readme_en.txt and NOTICE-third-parties.txt, not readmes.jsonl nor license_plates.txt.
    let stem = lower.split('.').next().unwrap_or_default();
    let mut words = stem.split(|c: char| !c.is_ascii_alphanumeric());
    let Some(first) = words.next().filter(|first| ABOUT.contains(first)) else {
        return false;
    };
    let in_capitals = name.starts_with(&first.to_ascii_uppercase());
    in_capitals || words.all(|word| word.len() <= ABBREVIATION)
}

/// Whether a name in small letters is one of those that programs hide things under.
fn is_hidden(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    HIDDEN.contains(&stem) || HIDDEN_NUMBERED.iter().any(|start| stem.starts_with(start))
}

fn of_folder(folder: &Path) -> Result<Discovered> {
    let fail = |problem: String| DataError::TrainingFolder {
        path: folder.to_owned(),
        problem,
    };
    let mut found = Discovered::default();
    let mut folders = vec![folder.to_owned()];
    let mut seen = HashSet::new();
    while let Some(current) = folders.pop() {
        let unreadable = |e: io::Error| fail(format!("can't list {}: {e}", current.display()));
        let mut deeper = Vec::new();
        for entry in std::fs::read_dir(&current).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (name, path) = (entry.file_name(), entry.path());
            if starts_with(&name, b".") {
                continue;
            }
            let link = entry.file_type().map_err(unreadable)?.is_symlink();
            // What a link leads to. A folder may hold millions of files: each is asked once.
            let kind = std::fs::metadata(&path).map(|metadata| metadata.file_type());
            let odd = match kind {
                Ok(kind) if kind.is_file() => {
                    found.files.push(path);
                    continue;
                }
                Ok(kind) if kind.is_dir() && starts_with(&name, b"_") => {
                    match is_hidden(&name.to_string_lossy().to_ascii_lowercase()) {
                        true => LeftOut::SideFile,
                        false => LeftOut::Underlined,
                    }
                }
                Ok(kind) if kind.is_dir() && is_run(&path) => LeftOut::Run,
                Ok(kind) if kind.is_dir() => {
                    deeper.push((link, path));
                    continue;
                }
                Err(_) if link => LeftOut::Dangling,
                // Pipes, sockets and devices.
                Ok(_) => LeftOut::OtherKind,
                Err(_) => continue,
            };
            found.left_out.entry(odd).or_default().push(path);
        }
        if current == folder {
            seen.insert(FileId::of(folder).map_err(unreadable)?);
        }
        // Real folders first, so that a link to one of them is the one that is passed over.
        deeper.sort();
        for (_, path) in &deeper {
            if seen.insert(FileId::of(path).map_err(unreadable)?) {
                folders.push(path.clone());
            }
        }
    }
    found.files.sort();
    let everything: Vec<PathBuf> = (found.files.iter())
        .chain(found.left_out.values().flatten())
        .cloned()
        .collect();
    found.leave_out_by_name();
    if found.files.iter().any(|file| Kind::of(file).is_some()) {
        found.leave_out(LeftOut::OtherKind, |file| Kind::of(file).is_none());
        leave_strays(&mut found);
    } else if found
        .files
        .iter()
        .any(|file| Foreign::of_name(file).is_none())
    {
        found.leave_out(LeftOut::OtherKind, |file| Foreign::of_name(file).is_some());
    } else if let Some((file, foreign)) = found
        .files
        .first()
        .and_then(|file| Some((file, Foreign::of_name(file)?)))
    {
        return Err(fail(format!(
            "it holds no file that is read; {} is {}: {}",
            named(folder, std::slice::from_ref(file), 1),
            foreign.name,
            foreign.remedy
        )));
    }
    if found.files.is_empty() {
        return Err(fail(match everything.as_slice() {
            [] => "it holds no text file".into(),
            files => format!(
                "it holds no text file but what stands beside data: {}; name a file itself to read it",
                named(folder, files, files.len())
            ),
        }));
    }
    Ok(found)
}

/// Whether a path is a link to what is not there.
fn is_dangling(path: &Path) -> bool {
    path.is_symlink() && !path.exists()
}

/// Whether a folder is a run's: `--train-dir .` with checkpoints below it is no text.
fn is_run(folder: &Path) -> bool {
    RUN_FILES.iter().all(|name| folder.join(name).is_file())
}

fn starts_with(name: &OsStr, with: &[u8]) -> bool {
    name.as_encoded_bytes().starts_with(with)
}

/// Leaves out the few small files of another kind than the rest.
fn leave_strays(found: &mut Discovered) {
    let kind = |file: &Path| Kind::of(file).map(|kind| kind.format);
    let (mut bytes, mut counts) = (BTreeMap::new(), BTreeMap::new());
    for file in &found.files {
        let size = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        *bytes.entry(kind(file)).or_insert(0) += size;
        *counts.entry(kind(file)).or_insert(0usize) += 1;
    }
    let (all, files) = (bytes.values().sum::<u64>(), found.files.len());
    let strays: Vec<_> = bytes
        .into_iter()
        .filter(|(kind, size)| {
            all > STRAY_BYTES
                && *size <= STRAY_BYTES
                && size * STRAY_SHARE < all
                && counts[kind] * 2 <= files
        })
        .map(|(kind, _)| kind)
        .collect();
    found.leave_out(LeftOut::Stray, |file| strays.contains(&kind(file)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let files = discover(path).unwrap().files;
        let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
        files.iter().map(name).collect()
    }

    fn fill(folder: &Path, files: &[(&str, usize)]) {
        for (name, size) in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![b'x'; *size]).unwrap();
        }
    }

    #[test]
    fn folders_mix_formats_and_patterns_choose() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        for name in [
            "b.txt",
            "a.parquet",
            "c.json",
            "README.md",
            ".hidden.txt",
            "sub/d.jsonl.gz",
        ] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(
            names(folder.path()),
            ["a.parquet", "b.txt", "c.json", "d.jsonl.gz"]
        );
        assert_eq!(names(&folder.path().join("*.txt")), ["b.txt"]);
        assert_eq!(names(&folder.path().join("**/*.gz")), ["d.jsonl.gz"]);
        assert_eq!(names(&folder.path().join("README.md")), ["README.md"]);
        assert_eq!(names(&folder.path().join("READ*")), ["README.md"]);
    }

    #[test]
    fn what_stands_beside_the_data_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        fill(
            folder.path(),
            &[
                ("a.parquet", 9),
                ("LICENSE.txt", 11),
                ("readme.txt", 5),
                ("readmes.parquet", 9),
                ("_SUCCESS", 0),
                ("_metadata.parquet", 7),
                ("dataset_infos.json", 7),
                ("metadata.jsonl", 7),
                ("state.json", 7),
                ("_delta_log/0.json", 7),
                ("_temporary/0/part.parquet", 7),
                ("_started_123", 0),
            ],
        );
        assert_eq!(names(folder.path()), ["a.parquet", "readmes.parquet"]);
        assert_eq!(
            names(&folder.path().join("*")),
            ["a.parquet", "readmes.parquet"]
        );
        let found = discover(folder.path()).unwrap().left_out;
        assert_eq!(found[&LeftOut::SideFile].len(), 10);
        assert!(!found.contains_key(&LeftOut::Underlined));
    }

    #[test]
    fn what_only_looks_like_a_side_file_is_read_or_named() {
        let folder = tempfile::tempdir().unwrap();
        let about = [
            "LICENSE-2.0.txt",
            "NOTICE-third-parties.txt",
            "readme_en.txt",
        ];
        let data = [
            "license_plates.txt",
            "noticeboard.txt",
            "readme-collection.txt",
        ];
        for name in about.iter().chain(&data) {
            fill(folder.path(), &[(name, 5)]);
        }
        fill(folder.path(), &[("_chapter.txt", 5), ("_posts/a.txt", 5)]);
        assert_eq!(names(folder.path()), data);
        let found = discover(folder.path()).unwrap().left_out;
        assert_eq!(found[&LeftOut::SideFile].len(), about.len());
        assert_eq!(
            found[&LeftOut::Underlined].len(),
            2,
            "a file and a folder, of which a warning is due"
        );
        assert!(LeftOut::Underlined.is_odd() && !LeftOut::SideFile.is_odd());
        assert_eq!(names(&folder.path().join("_posts")), ["a.txt"]);
        assert_eq!(names(&folder.path().join("_*.txt")), ["_chapter.txt"]);
    }

    #[test]
    fn small_files_of_another_kind_are_strays_and_large_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        fill(
            folder.path(),
            &[
                ("a.parquet", 100_000),
                ("b.parquet", 100_000),
                ("notes.txt", 300),
            ],
        );
        assert_eq!(names(folder.path()), ["a.parquet", "b.parquet"]);
        let found = discover(folder.path()).unwrap().left_out;
        assert_eq!(found[&LeftOut::Stray].len(), 1);
        fill(folder.path(), &[("books.txt", 70_000)]);
        assert_eq!(names(folder.path()).len(), 4);
    }

    #[test]
    fn without_known_endings_every_file_is_text() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("part-1"), "x").unwrap();
        std::fs::write(folder.path().join(".part-2"), "x").unwrap();
        std::fs::write(folder.path().join("old.tar.gz"), "x").unwrap();
        assert_eq!(names(folder.path()), ["part-1"]);
    }

    #[test]
    fn nothing_to_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let said = |path: &Path| discover(path).unwrap_err().to_string();
        assert!(said(folder.path()).contains("no text file"));
        assert!(said(&folder.path().join("nowhere")).contains("no such file or folder"));
        assert!(said(&folder.path().join("*.txt")).contains("no file matches"));
        fill(folder.path(), &[("_SUCCESS", 0), ("metadata.jsonl", 5)]);
        assert!(said(folder.path()).contains("metadata.jsonl"));
        let underlined = tempfile::tempdir().unwrap();
        fill(underlined.path(), &[("_posts/a.txt", 5)]);
        assert!(said(underlined.path()).contains("_posts"));
        fill(folder.path(), &[("data.arrow", 5)]);
        let text = said(folder.path());
        assert!(
            text.contains("Arrow") && text.contains("to_parquet"),
            "{text}"
        );
    }

    #[test]
    fn validation_text_inside_the_folder_is_left_out_under_any_name() {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), &[("a.txt", 5), ("b.txt", 5), ("c.txt", 5)]);
        let outside = tempfile::tempdir().unwrap();
        let hard = outside.path().join("valid.txt");
        std::fs::hard_link(folder.path().join("b.txt"), &hard).unwrap();
        let mut found = discover(folder.path()).unwrap();
        found.without(&[FileId::of(&hard).unwrap()]);
        assert_eq!(found.files.len(), 2);
        assert_eq!(
            found.left_out[&LeftOut::Evaluation],
            [folder.path().join("b.txt")]
        );
        // Where it is all there is, it is trained on, and that is said.
        let mut only = discover(&folder.path().join("b.txt")).unwrap();
        only.without(&[FileId::of(&hard).unwrap()]);
        assert_eq!(only.files.len(), 1);
    }

    #[test]
    fn a_run_below_its_text_is_no_text() {
        let folder = tempfile::tempdir().unwrap();
        fill(
            folder.path(),
            &[
                ("a.txt", 5),
                ("checkpoints/config.toml", 5),
                ("checkpoints/metrics.jsonl", 5),
                ("checkpoints/checkpoint-2/data_state.json.zst", 5),
            ],
        );
        assert_eq!(names(folder.path()), ["a.txt"]);
        let run = folder.path().join("checkpoints");
        let found = discover(folder.path()).unwrap().left_out;
        assert_eq!(found[&LeftOut::Run].as_slice(), std::slice::from_ref(&run));
        // A folder that was named is read, whatever it is.
        assert_eq!(names(&run), ["data_state.json.zst", "metrics.jsonl"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn names_of_other_encodings_are_read_and_pipes_are_named() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), &[("a.txt", 5)]);
        let latin = folder.path().join(OsStr::from_bytes(b"caf\xe9.txt"));
        std::fs::write(&latin, "text\n").unwrap();
        let pipe = folder.path().join("pipe.txt");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let found = discover(folder.path()).unwrap();
        assert_eq!(found.files, [folder.path().join("a.txt"), latin]);
        assert_eq!(
            found.left_out[&LeftOut::OtherKind].as_slice(),
            std::slice::from_ref(&pipe)
        );
        let said = discover(&pipe).unwrap_err().to_string();
        assert!(
            said.contains("a pipe") && said.contains("to a file"),
            "{said}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_to_nothing_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), &[("a.txt", 5)]);
        let link = folder.path().join("b.txt");
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
        for place in [folder.path().to_owned(), folder.path().join("*.txt")] {
            let found = discover(&place).unwrap();
            assert_eq!(found.files.len(), 1);
            assert_eq!(
                found.left_out[&LeftOut::Dangling].as_slice(),
                std::slice::from_ref(&link)
            );
        }
        std::fs::remove_file(folder.path().join("a.txt")).unwrap();
        let said = discover(folder.path()).unwrap_err().to_string();
        assert!(said.contains("b.txt"), "{said}");
    }

    #[cfg(unix)]
    #[test]
    fn links_to_folders_are_followed_and_each_folder_is_read_once() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fill(outside.path(), &[("far/x.txt", 5)]);
        fill(folder.path(), &[("near/y.txt", 5)]);
        symlink(outside.path().join("far"), folder.path().join("linked")).unwrap();
        symlink(outside.path().join("far"), folder.path().join("again")).unwrap();
        symlink(folder.path(), folder.path().join("near/loop")).unwrap();
        symlink(folder.path().join("near"), folder.path().join("a")).unwrap();
        assert_eq!(names(folder.path()), ["x.txt", "y.txt"]);
    }
}
