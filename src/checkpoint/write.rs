//! Writing: beside the final name, synced, renamed last.

use super::data_file;
use super::error::CheckpointError;
use super::lock::Lock;
use super::pointer::{pointed, steps};
use super::state::{FORMAT_VERSION, HeadParameter, TrainerState};
use super::sums::{self, hash, sync};
use super::{
    Checkpoint, DATA_FILE, FIRST_MOMENT, MODEL_FILE, OPTIMIZER_FILE, Pointer, Result,
    SECOND_MOMENT, STATE_FILE, TOKENIZER_FOLDER, folder_name,
};
use crate::arrays::write_safetensors;
use crate::data::tokenizer::{TOKENIZER_FILES, copy_tokenizer};
use crate::staging::{UNFINISHED, replace_folder, sync_folder, temporary_folder};
use mpnet_graphs::model::parameters::parameters;
use mpnet_runtime::engine::NamedArray;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Followed by the step, in the name of a checkpoint that is being replaced.
const REPLACED: &str = ".unfinished-replaced-";

/// Followed by the step, in the name of a checkpoint that is being removed.
const REMOVED: &str = ".unfinished-removed-";

/// Makes sure that checkpoints can be written to `dir`, before hours of work depend on it. Leaves
/// nothing there.
///
/// # Errors
/// Where they cannot.
pub fn check_writable(dir: &Path) -> Result<()> {
    // The nearest folder that is there: the others are created below it.
    let whole = std::path::absolute(dir).map_err(not_writable(dir))?;
    let nearest = whole.ancestors().find(|folder| folder.exists());
    let nearest = nearest.unwrap_or(Path::new("/"));
    match tempfile::tempfile_in(nearest) {
        Ok(_) => Ok(()),
        Err(source) => Err(not_writable(dir)(source)),
    }
}

/// Creates the checkpoint folder and locks it. What an interrupted run left unfinished there is
/// removed, or, where it was the only whole checkpoint of its step, put back.
///
/// # Errors
/// Where it cannot be written to, or another run holds it.
pub fn prepare(dir: &Path) -> Result<Lock> {
    fs::create_dir_all(dir).map_err(not_writable(dir))?;
    let lock = Lock::acquire(dir)?;
    for entry in fs::read_dir(dir).map_err(not_writable(dir))? {
        let entry = entry.map_err(not_writable(dir))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(UNFINISHED)) else {
            continue;
        };
        let replaced: Option<u64> = name.strip_prefix(REPLACED).and_then(|s| s.parse().ok());
        match replaced.map(|step| dir.join(folder_name(step))) {
            Some(target) if !target.exists() => fs::rename(entry.path(), target),
            Some(_) | None if entry.path().is_dir() => fs::remove_dir_all(entry.path()),
            Some(_) | None => fs::remove_file(entry.path()),
        }
        .map_err(not_writable(dir))?;
    }
    Ok(lock)
}

fn not_writable(dir: &Path) -> impl Fn(std::io::Error) -> CheckpointError {
    move |source| CheckpointError::NotWritable {
        path: dir.to_owned(),
        source,
    }
}

/// Writes `checkpoint` as `dir/checkpoint-<step>` and returns that path. A checkpoint of the same
/// step is replaced.
///
/// # Errors
/// Where a file cannot be written; what was there before stays.
pub fn save(dir: &Path, checkpoint: &Checkpoint) -> Result<PathBuf> {
    let target = dir.join(folder_name(checkpoint.step));
    let folder = temporary_folder(dir, UNFINISHED)
        .map_err(CheckpointError::io("create a folder in", dir))?;
    fill(folder.path(), checkpoint)?;
    sync_folder(folder.path()).map_err(CheckpointError::io("sync", folder.path()))?;
    // One of its step is put back by the next run's `prepare` if it stays there.
    let old = dir.join(format!("{REPLACED}{}", checkpoint.step));
    replace_folder(folder.path(), &target, &old).map_err(CheckpointError::io("write", &target))?;
    // It has moved: there is nothing left to remove.
    let _ = folder.keep();
    match fs::remove_dir_all(&old) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(CheckpointError::io("remove", &old)(e));
        }
        Ok(()) | Err(_) => {}
    }
    sync_folder(dir).map_err(CheckpointError::io("sync", dir))?;
    Ok(target)
}

/// The parameters behind the model's own.
fn head_of(checkpoint: &Checkpoint) -> Vec<HeadParameter> {
    let own: HashSet<String> = parameters(&checkpoint.model)
        .into_iter()
        .map(|parameter| parameter.name)
        .collect();
    let all = checkpoint.parameters.iter();
    let head = all.filter(|array| !own.contains(&array.name));
    head.map(|array| HeadParameter {
        name: array.name.clone(),
        shape: array.shape.clone(),
    })
    .collect()
}

fn fill(folder: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let mut sha256 = BTreeMap::new();
    let parameters = named("", &checkpoint.parameters);
    write_tensors(folder, MODEL_FILE, parameters, &mut sha256)?;
    if let Some(optimizer) = &checkpoint.optimizer {
        let moments = named(FIRST_MOMENT, &optimizer.first_moments)
            .chain(named(SECOND_MOMENT, &optimizer.second_moments));
        write_tensors(folder, OPTIMIZER_FILE, moments, &mut sha256)?;
    }
    if let Some(tokenizer) = &checkpoint.tokenizer {
        let copy = folder.join(TOKENIZER_FOLDER);
        fs::create_dir(&copy).map_err(CheckpointError::io("create", &copy))?;
        copy_tokenizer(tokenizer, &copy)?;
        for name in TOKENIZER_FILES {
            let file = copy.join(name);
            if file.is_file() {
                sync(&file)?;
            }
        }
        sync_folder(&copy).map_err(CheckpointError::io("sync", &copy))?;
    }
    data_file::write(folder, &checkpoint.data)?;
    let data = folder.join(DATA_FILE);
    sync(&data)?;
    sha256.insert(DATA_FILE.to_owned(), hash(&data)?);
    let state = TrainerState {
        format_version: FORMAT_VERSION,
        model: checkpoint.model.clone(),
        head: head_of(checkpoint),
        config: checkpoint.config.clone(),
        step: checkpoint.step,
        best_loss: checkpoint.best_loss,
        best_figure: checkpoint.best_figure,
        validated: checkpoint.validated,
        data: serde_json::Value::Null,
        seed: checkpoint.seed,
        optimizer_step: checkpoint.optimizer.as_ref().map(|o| o.step),
        loss_scaling: checkpoint.optimizer.as_ref().and_then(|o| o.loss_scaling),
        sha256: sha256.clone(),
    };
    let path = folder.join(STATE_FILE);
    let text = serde_json::to_string_pretty(&state).map_err(|e| CheckpointError::Encode {
        path: path.clone(),
        reason: e.to_string(),
    })?;
    fs::write(&path, text + "\n").map_err(CheckpointError::io("write", &path))?;
    sync(&path)?;
    sums::write(folder, &sha256)
}

/// Moments under their names in the file.
fn named<'a>(
    prefix: &str,
    moments: &'a [NamedArray],
) -> impl Iterator<Item = (String, &'a NamedArray)> {
    moments
        .iter()
        .map(move |m| (format!("{prefix}{}", m.name), m))
}

fn write_tensors<'a>(
    folder: &Path,
    name: &str,
    arrays: impl IntoIterator<Item = (String, &'a NamedArray)>,
    sha256: &mut BTreeMap<String, String>,
) -> Result<()> {
    let path = folder.join(name);
    write_safetensors(&path, arrays, None).map_err(CheckpointError::io("write", &path))?;
    sync(&path)?;
    sha256.insert(name.to_owned(), hash(&path)?);
    Ok(())
}

/// Removes all but the newest `keep` checkpoints up to the one that `latest` names; never that one nor
/// the one that `best` names, and none where the newest is damaged on the disk.
///
/// # Errors
/// Where a folder cannot be read or removed.
pub fn prune(dir: &Path, keep: Option<usize>) -> Result<()> {
    let Some(keep) = keep else { return Ok(()) };
    let named = [pointed(dir, Pointer::Latest)?, pointed(dir, Pointer::Best)?];
    let mut steps = steps(dir)?;
    // Later ones are of a run before this one, and count for nothing.
    steps.retain(|&step| named[0].is_none_or(|latest| step <= latest));
    let surplus = steps.len().saturating_sub(keep);
    if surplus == 0 {
        return Ok(());
    }
    if let Some(latest) = named[0]
        && let Err(error) = super::verify(&dir.join(folder_name(latest)))
    {
        tracing::warn!("older checkpoints are kept, as the newest cannot be read back: {error}");
        return Ok(());
    }
    for step in steps.into_iter().take(surplus) {
        if !named.contains(&Some(step)) {
            remove(dir, step)?;
        }
    }
    Ok(())
}

/// Removes the checkpoint of `step`, if it is there.
///
/// # Errors
/// Where it cannot be.
pub fn remove(dir: &Path, step: u64) -> Result<()> {
    let path = dir.join(folder_name(step));
    let going = dir.join(format!("{REMOVED}{step}"));
    // Under another name first: a run that is killed here leaves nothing in part under its own.
    match fs::rename(&path, &going).and_then(|()| fs::remove_dir_all(&going)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(CheckpointError::io("remove", &path)(e))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{check_writable, prepare};
    use std::fs;

    #[test]
    fn what_an_interruption_left_is_removed_or_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a/b");
        check_writable(&dir).unwrap();
        assert!(!folder.path().join("a").exists());
        drop(prepare(&dir).unwrap());
        // Between the two renames of a replacement; after them; while one was written.
        for name in [
            ".unfinished-replaced-3",
            ".unfinished-replaced-4",
            "checkpoint-4",
            ".unfinished-xyz",
            ".unfinished-removed-2",
        ] {
            fs::create_dir(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("file"), name).unwrap();
        }
        // While a pointer was written.
        fs::write(dir.join(".unfinished-abc"), "checkpoint-4").unwrap();
        drop(prepare(&dir).unwrap());
        let mut left: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["checkpoint-3", "checkpoint-4"]);
        let read = |path| fs::read_to_string(dir.join(path)).unwrap();
        assert_eq!(read("checkpoint-3/file"), ".unfinished-replaced-3");
        assert_eq!(read("checkpoint-4/file"), "checkpoint-4");
    }

    /// In a process of its own, as the working directory is everybody's.
    #[cfg(unix)]
    #[test]
    fn a_working_directory_that_is_gone_is_an_error() {
        const ASKED: &str = "MPNET_TEST_GONE";
        if std::env::var_os(ASKED).is_some() {
            std::fs::remove_dir(std::env::current_dir().unwrap()).unwrap();
            let said = check_writable(std::path::Path::new("a/b")).unwrap_err();
            assert!(said.to_string().contains("a/b"), "{said}");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let inside = place.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let name = "checkpoint::write::tests::a_working_directory_that_is_gone_is_an_error";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .current_dir(&inside)
            .env(ASKED, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }

    #[test]
    fn a_folder_below_a_file_is_not_writable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        for dir in [file.clone(), file.join("below/it")] {
            let said = check_writable(&dir).unwrap_err().to_string();
            assert!(said.contains(&dir.display().to_string()), "{said}");
            assert!(said.contains("choose another"), "{said}");
        }
    }
}
