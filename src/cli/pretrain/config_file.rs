//! `--config FILE.toml`: flags by their names, which those of the command line win over.

use crate::cli::exit::UsageError;
use clap::{ArgAction, ArgMatches, Command};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Flags of one start and not of the run.
const NOT_KEPT: &[&str] = &[
    "config",
    "resume",
    "resume-checkpoint",
    "override",
    "dry-run",
    "trust-checkpoint",
];

/// `arguments` with the flags of the file that `--config` names before all others, so that the others
/// win.
///
/// # Errors
/// Where the file cannot be read or holds what is no flag.
pub fn expand(arguments: Vec<OsString>, command: &Command) -> Result<Vec<OsString>, UsageError> {
    let Some(path) = named(&arguments) else {
        return Ok(arguments);
    };
    let flags = read(&path, command)?;
    let mut arguments = arguments.into_iter();
    let program = arguments.next();
    Ok(program.into_iter().chain(flags).chain(arguments).collect())
}

/// The last file that `--config` names.
fn named(arguments: &[OsString]) -> Option<PathBuf> {
    let mut found = None;
    let mut rest = arguments.iter().take_while(|a| *a != "--");
    while let Some(argument) = rest.next() {
        if argument == "--config" {
            found = rest.next().map(PathBuf::from);
        } else if let Some(path) = argument.to_str().and_then(|a| a.strip_prefix("--config=")) {
            found = Some(PathBuf::from(path));
        }
    }
    found
}

/// The flags in the file at `path`.
///
/// # Errors
/// Where it cannot be read or holds what is no flag.
pub fn read(path: &Path, command: &Command) -> Result<Vec<OsString>, UsageError> {
    let wrong = |problem: String| UsageError(format!("--config {}: {problem}", path.display()));
    let size = std::fs::metadata(path)
        .map_err(|e| wrong(e.to_string()))?
        .len();
    if size > MAX_BYTES {
        return Err(wrong(format!(
            "it has {size} bytes, which is no configuration"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    parse(&text, command).map_err(wrong)
}

/// The flags in `text`; tables in it are headings.
///
/// # Errors
/// In words, without the file.
pub fn parse(text: &str, command: &Command) -> Result<Vec<OsString>, String> {
    let table: Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let mut flags = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(table) => {
                for (key, value) in table {
                    flags.extend(flag(&key, &value, command)?);
                }
            }
            value => flags.extend(flag(&key, &value, command)?),
        }
    }
    Ok(flags)
}

fn flag(key: &str, value: &Value, command: &Command) -> Result<Option<OsString>, String> {
    let name = key.replace('_', "-");
    if name == "config" {
        return Err("it names another --config".into());
    }
    let declared = command
        .get_arguments()
        .find(|a| a.get_long() == Some(name.as_str()))
        .ok_or_else(|| format!("there is no flag --{name}"))?;
    let switch = matches!(declared.get_action(), ArgAction::SetTrue);
    let text = match (value, switch) {
        (Value::Boolean(true), true) => return Ok(Some(format!("--{name}").into())),
        (Value::Boolean(false), true) => return Ok(None),
        (Value::String(_) | Value::Integer(_) | Value::Float(_), true) => {
            return Err(format!("{key} is true or false"));
        }
        (Value::String(text), false) => text.clone(),
        (Value::Integer(number), false) => number.to_string(),
        (Value::Float(number), false) => number.to_string(),
        (Value::Boolean(yes), false) => yes.to_string(),
        (Value::Datetime(_) | Value::Array(_) | Value::Table(_), true | false) => {
            return Err(format!("{key} is no text, number, true or false"));
        }
    };
    Ok(Some(format!("--{name}={text}").into()))
}

/// Every setting in effect, as a file that `--config` takes.
pub fn effective(command: &Command, matches: &ArgMatches) -> String {
    let mut text = String::from(
        "# Every flag in effect. 'pretrain-mpnet --config' with this file makes the same run.\n",
    );
    let mut heading = None;
    for argument in command.get_arguments() {
        let Some(name) = argument.get_long().filter(|name| !NOT_KEPT.contains(name)) else {
            continue;
        };
        let id = argument.get_id().as_str();
        let value = match argument.get_action() {
            ArgAction::SetTrue => Value::Boolean(matches.get_flag(id)),
            ArgAction::Set => match matches
                .get_raw(id)
                .and_then(|mut values| values.next_back())
            {
                Some(raw) => typed(raw),
                None => continue,
            },
            _ => continue,
        };
        if heading != argument.get_help_heading() {
            heading = argument.get_help_heading();
            if let Some(heading) = heading {
                text += &format!("\n[{}]\n", heading.to_lowercase().replace(' ', "-"));
            }
        }
        text += &format!("{name} = {value}\n");
    }
    text
}

/// A number where it is written as one.
fn typed(raw: &OsStr) -> Value {
    let text = raw.to_string_lossy();
    let integer = text.parse().ok().filter(|n: &i64| n.to_string() == text);
    match (integer, text.parse::<f64>()) {
        (Some(number), _) => Value::Integer(number),
        (None, Ok(number)) if number.is_finite() => Value::Float(number),
        (None, Ok(_) | Err(_)) => Value::String(text.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pretrain::PretrainArgs;
    use clap::{CommandFactory, FromArgMatches, Parser};
    use proptest::prelude::*;

    fn flags(text: &str) -> Result<Vec<String>, String> {
        let found = parse(text, &PretrainArgs::command())?;
        Ok(found
            .iter()
            .map(|f| f.to_string_lossy().into_owned())
            .collect())
    }

    #[test]
    fn flags_of_the_command_line_win() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        std::fs::write(
            &path,
            "lr = 1e-3\nbatch_size = 4\n[Model]\nnormalize-before = true\n",
        )
        .unwrap();
        let line = ["x", "--config", path.to_str().unwrap(), "--batch-size", "8"];
        let line = expand(line.map(OsString::from).to_vec(), &PretrainArgs::command()).unwrap();
        let args = PretrainArgs::try_parse_from(line).unwrap();
        assert_eq!(args.optimization.lr, 1e-3);
        assert_eq!(args.optimization.batch_size, 8);
        assert!(args.architecture.normalize_before);
    }

    #[test]
    fn what_is_no_flag_is_named() {
        for (text, said) in [
            ("no-such = 1", "--no-such"),
            ("config = 'x'", "another --config"),
            ("lr = [1]", "lr is no"),
            ("normalize-before = 1", "true or false"),
            ("lr = ", "TOML"),
        ] {
            let error = flags(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn the_effective_configuration_makes_the_same_run() {
        let command = PretrainArgs::command();
        let line = "x --train-dir a --valid-file b --test-file c --lr 3e-4 -prenorm --seed 7";
        let line = crate::cli::spelling::normalize(line.split(' ').map(OsString::from));
        let parse_all = |line: Vec<OsString>| {
            let matches = command.clone().try_get_matches_from(line).unwrap();
            let args = PretrainArgs::from_arg_matches(&matches).unwrap();
            (effective(&command, &matches), args.resolve().unwrap())
        };
        let (text, config) = parse_all(line);
        let mut again = vec![OsString::from("x")];
        again.extend(parse(&text, &command).unwrap());
        let (text_again, config_again) = parse_all(again);
        assert_eq!(text, text_again);
        assert_eq!(
            serde_json::to_value(config).unwrap(),
            serde_json::to_value(config_again).unwrap()
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", at in 0_usize..40, with in any::<char>()) {
            let _ = flags(&text);
            let mut real: Vec<char> = "lr = 1e-3\nbatch-size = 4\n[a]\nseed = 'x'".chars().collect();
            let at = at % real.len();
            real[at] = with;
            let _ = flags(&real.into_iter().collect::<String>());
        }
    }
}
