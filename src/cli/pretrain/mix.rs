//! `--mix FILE.toml` and `--train-dir DIR:0.7`: several texts and their weights.

use crate::cli::exit::UsageError;
use crate::data::hub::DatasetName;
use crate::data::source::Fields;
use crate::train::config::{MixFrom, MixPart, TextPaths};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Shortest text of a dataset, in characters, where nothing is said.
pub const DATASET_MIN_LENGTH: usize = 64;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    part: Vec<Written>,
}

/// A part as it is written, with the names of the flags.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    train_dir: Option<PathBuf>,
    dataset_name: Option<String>,
    dataset_split: Option<String>,
    dataset_revision: Option<String>,
    weight: f64,
    text_field: Option<Fields>,
    min_text_length: Option<usize>,
}

/// The parts that the file at `path` names, from whose folder its paths lead; `shortest` is the run's
/// `--min-text-length`.
///
/// # Errors
/// Where it can't be read or says what makes no sense.
pub fn read(path: &Path, shortest: Option<usize>) -> Result<Vec<MixPart>, UsageError> {
    let wrong = |problem: String| UsageError(format!("--mix {}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let file: File = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let parts = file.part.into_iter().enumerate();
    let parts = parts.map(|(index, part)| {
        part.resolve(path.parent().unwrap_or(Path::new("")), shortest)
            .map_err(|problem| wrong(format!("part {}: {problem}", index + 1)))
    });
    let parts: Vec<MixPart> = parts.collect::<Result<_, _>>()?;
    match parts.is_empty() {
        true => Err(wrong("it has no [[part]]".into())),
        false => Ok(parts),
    }
}

impl Written {
    fn resolve(self, folder: &Path, shortest: Option<usize>) -> Result<MixPart, String> {
        let dataset_only = self.dataset_split.is_some() || self.dataset_revision.is_some();
        let (from, usual) = match (self.train_dir, self.dataset_name) {
            (Some(_), None) if dataset_only => {
                return Err("dataset-split and dataset-revision go with dataset-name".into());
            }
            (Some(path), None) => (MixFrom::Files(folder.join(path)), 0),
            (None, Some(name)) => {
                let name: DatasetName = name.parse()?;
                let from = MixFrom::Dataset {
                    name,
                    split: self.dataset_split.unwrap_or_else(|| "train".into()),
                    revision: self.dataset_revision.unwrap_or_else(|| "main".into()),
                };
                (from, DATASET_MIN_LENGTH)
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err("give either train-dir or dataset-name".into());
            }
        };
        Ok(MixPart {
            from,
            weight: usable(self.weight)?,
            text_field: self.text_field,
            min_text_length: self.min_text_length.or(shortest).unwrap_or(usual),
        })
    }
}

fn usable(weight: f64) -> Result<f64, String> {
    match weight.is_finite() && weight > 0.0 {
        true => Ok(weight),
        false => Err(format!("a weight is above 0, not {weight}")),
    }
}

/// The path and the weight in `PATH:WEIGHT`; a path that there is has none.
fn weighted(given: &Path) -> (PathBuf, Option<f64>) {
    let text = given.to_str().filter(|_| !given.exists());
    let parts = text.and_then(|text| text.rsplit_once(':'));
    match parts.and_then(|(path, weight)| Some((path, weight.parse().ok()?))) {
        Some((path, weight)) => (path.into(), Some(weight)),
        None => (given.to_owned(), None),
    }
}

/// What `--train-dir` asks for: paths whose texts are one, or several texts with their weights.
pub enum TrainDirs {
    One(TextPaths),
    Mix(Vec<MixPart>),
}

/// The texts that `--train-dir` names, `given` as often as it was.
///
/// # Errors
/// Where some have a weight and some have none; where none has, all their texts count alike, as of several
/// `data_files` of HuggingFace's `datasets`.
pub fn train_dirs(given: &[PathBuf], shortest: Option<usize>) -> Result<TrainDirs, UsageError> {
    let unweighted = given.iter().all(|given| weighted(given).1.is_none());
    if given.len() == 1 || unweighted {
        let paths = given.iter().map(|given| weighted(given).0);
        return Ok(TrainDirs::One(TextPaths(paths.collect())));
    }
    let parts = given.iter().map(|given_one| match weighted(given_one) {
        (path, Some(weight)) => Ok(MixPart {
            weight: usable(weight).map_err(|e| UsageError(format!("--train-dir: {e}")))?,
            from: MixFrom::Files(path),
            text_field: None,
            min_text_length: shortest.unwrap_or(0),
        }),
        (path, None) => Err(UsageError(format!(
            "--train-dir is given {} times and {} has no weight: give each one, as in {}:0.7",
            given.len(),
            path.display(),
            path.display()
        ))),
    });
    Ok(TrainDirs::Mix(parts.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Vec<MixPart>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mix.toml");
        std::fs::write(&path, text).unwrap();
        let mut parts = read(&path, None).map_err(|e| e.to_string())?;
        // As seen from the folder of the file.
        for part in &mut parts {
            if let MixFrom::Files(path) = &mut part.from {
                *path = path.strip_prefix(folder.path()).unwrap_or(path).into();
            }
        }
        Ok(parts)
    }

    /// As Cargo, pyproject.toml and docker-compose take them.
    #[test]
    fn paths_lead_from_the_files_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mix.toml");
        let absolute = folder.path().join("elsewhere");
        let text = format!(
            "[[part]]\ntrain-dir = '../web/*.txt'\nweight = 1\n[[part]]\ntrain-dir = '{}'\nweight = 1\n",
            absolute.display()
        );
        std::fs::write(&path, text).unwrap();
        let found: Vec<MixFrom> = read(&path, None)
            .unwrap()
            .into_iter()
            .map(|p| p.from)
            .collect();
        let expected = [folder.path().join("../web/*.txt"), absolute].map(MixFrom::Files);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_names_folders_and_datasets() {
        let parts = file(
            "[[part]]\ntrain-dir = 'web'\nweight = 3\n\
             [[part]]\ndataset-name = 'o/d:c'\nweight = 0.5\ntext-field = ['title', 'body']\n",
        )
        .unwrap();
        assert_eq!(parts[0].from, MixFrom::Files("web".into()));
        assert_eq!((parts[0].weight, parts[0].min_text_length), (3.0, 0));
        let MixFrom::Dataset { name, split, .. } = &parts[1].from else {
            panic!("{parts:?}");
        };
        assert_eq!(
            (name.config.as_deref(), split.as_str()),
            (Some("c"), "train")
        );
        assert_eq!(parts[1].min_text_length, DATASET_MIN_LENGTH);
        assert_eq!(parts[1].text_field.as_ref().unwrap().names().len(), 2);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, said) in [
            ("", "part"),
            ("part = []", "no [[part]]"),
            ("[[part]]\nweight = 1\n", "part 1: give either"),
            ("[[part]]\ntrain-dir = 'a'\n", "weight"),
            ("[[part]]\ntrain-dir = 'a'\nweight = 0\n", "above 0"),
            ("[[part]]\ntrain-dir = 'a'\nweight = nan\n", "above 0"),
            (
                "[[part]]\ntrain-dir = 'a'\nweight = 1\nsplit = 'x'\n",
                "split",
            ),
            (
                "[[part]]\ntrain-dir = 'a'\ndataset-split = 'x'\nweight = 1\n",
                "go with dataset-name",
            ),
        ] {
            let error = file(text).unwrap_err();
            assert!(
                error.contains("--mix") && error.contains(said),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn folders_carry_weights_behind_a_colon() {
        let dirs = |given: &[&str]| {
            let given: Vec<PathBuf> = given.iter().map(PathBuf::from).collect();
            train_dirs(&given, None)
        };
        let Ok(TrainDirs::Mix(parts)) = dirs(&["a:0.7", "b:c:2"]) else {
            panic!("a mixture");
        };
        assert_eq!(parts[0].from, MixFrom::Files("a".into()));
        assert_eq!(parts[1].from, MixFrom::Files("b:c".into()));
        assert_eq!((parts[0].weight, parts[1].weight), (0.7, 2.0));
        let one = |given: &[&str]| match dirs(given) {
            Ok(TrainDirs::One(TextPaths(paths))) => paths,
            Ok(TrainDirs::Mix(_)) | Err(_) => panic!("{given:?} is one text"),
        };
        assert_eq!(one(&["b", "a"]), [Path::new("b"), Path::new("a")]);
        assert_eq!(one(&["a:3"]), [Path::new("a")]);
        assert_eq!(one(&["a"]), [Path::new("a")]);
        let error = dirs(&["a:1", "b"]).err().unwrap().to_string();
        assert!(error.contains("b:0.7"), "{error}");
        assert!(dirs(&["a:1", "b:-1"]).is_err());
        // A name with a colon that is there is a name.
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("x:0.5");
        std::fs::create_dir(&odd).unwrap();
        assert_eq!(weighted(&odd), (odd, None));
    }
}
