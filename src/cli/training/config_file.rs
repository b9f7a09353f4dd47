//! `--config FILE.toml`: flags by their names, which those of the command line win over.

use crate::cli::exit::UsageError;
use crate::train::flags::Effect;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// `arguments` with the flags of the file that `--config` names before all others, so that the others
/// win.
///
/// # Errors
/// Where the file cannot be read or holds what is no flag.
pub fn expand(arguments: Vec<OsString>, command: &Command) -> Result<Vec<OsString>, UsageError> {
    let Some(path) = named(&arguments) else {
        return Ok(arguments);
    };
    let mut flags = read(&path, command)?;
    flags.retain(|flag| !replaced(flag, &arguments, command));
    let mut arguments = arguments.into_iter();
    let program = arguments.next();
    Ok(program.into_iter().chain(flags).chain(arguments).collect())
}

/// Whether the command line has values of its own for `flag`, which may be given several times: those of
/// the file would be added to them.
fn replaced(flag: &OsStr, arguments: &[OsString], command: &Command) -> bool {
    let text = flag.to_string_lossy();
    let name = text.split('=').next().unwrap_or_default();
    let repeated = command.get_arguments().any(|a| {
        matches!(a.get_action(), ArgAction::Append)
            && a.get_long().is_some_and(|long| name == format!("--{long}"))
    });
    let with_value = format!("{name}=");
    repeated
        && arguments.iter().any(|argument| {
            let argument = argument.to_string_lossy();
            argument == name || argument.starts_with(&with_value)
        })
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
                    flags.extend(flags_of(&key, &value, command)?);
                }
            }
            value => flags.extend(flags_of(&key, &value, command)?),
        }
    }
    Ok(flags)
}

/// The flags of one setting: one, none, or one for each value of a list.
fn flags_of(key: &str, value: &Value, command: &Command) -> Result<Vec<OsString>, String> {
    let name = key.replace('_', "-");
    let repeated = command.get_arguments().any(|a| {
        a.get_long() == Some(name.as_str()) && matches!(a.get_action(), ArgAction::Append)
    });
    let values = match value {
        Value::Array(values) if repeated => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let flags = values.iter().map(|value| flag(key, value, command));
    Ok(flags
        .collect::<Result<Vec<_>, String>>()?
        .into_iter()
        .flatten()
        .collect())
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
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let positional = command.get_positionals().flat_map(|argument| {
        let names = argument.get_value_names().unwrap_or_default();
        names.iter().map(|name| format!(" {name}"))
    });
    let positional: String = positional.collect();
    let mut text = format!(
        "# Every flag in effect. '{name}{positional} --config' with this file makes the same run.\n"
    );
    let mut heading = None;
    for argument in command.get_arguments() {
        let kept = argument
            .get::<Effect>()
            .is_some_and(|e| *e != Effect::Start);
        let Some(name) = argument.get_long().filter(|_| kept) else {
            continue;
        };
        let id = argument.get_id().as_str();
        let value = match argument.get_action() {
            ArgAction::SetTrue => Value::Boolean(matches.get_flag(id)),
            ArgAction::Set => match matches
                .get_raw(id)
                .and_then(|mut values| values.next_back())
            {
                Some(raw) => typed(argument, raw),
                None => continue,
            },
            ArgAction::Append => {
                let values: Vec<Value> = matches
                    .get_raw(id)
                    .into_iter()
                    .flatten()
                    .map(|raw| typed(argument, raw))
                    .collect();
                match <[Value; 1]>::try_from(values) {
                    Ok([one]) => one,
                    Err(none) if none.is_empty() => continue,
                    Err(several) => Value::Array(several),
                }
            }
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

/// A number where the flag takes one, and TOML can hold it.
fn typed(flag: &Arg, raw: &OsStr) -> Value {
    let text = raw.to_string_lossy();
    let of = flag.get_value_parser().type_id();
    let integers = [
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<i64>(),
    ];
    let floats = [TypeId::of::<f32>(), TypeId::of::<f64>()];
    let number = if integers.iter().any(|ty| of == *ty) {
        text.parse().ok().map(Value::Integer)
    } else if floats.iter().any(|ty| of == *ty) {
        text.parse().ok().map(Value::Float)
    } else {
        None
    };
    number.unwrap_or_else(|| Value::String(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pretrain::PretrainArgs;
    use crate::train::config::TrainConfig;
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
        assert_eq!(args.run.optimization.lr, 1e-3);
        assert_eq!(args.run.optimization.batch_size, 8);
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

    /// The file of a run's settings, and the run.
    fn started(line: impl IntoIterator<Item = OsString>) -> (String, TrainConfig) {
        let command = PretrainArgs::command();
        let line = crate::cli::spelling::normalize(line, &command);
        let matches = command.clone().try_get_matches_from(line).unwrap();
        let args = PretrainArgs::from_arg_matches(&matches).unwrap();
        (effective(&command, &matches), args.resolve().unwrap())
    }

    fn started_again(line: &str) -> (String, TrainConfig) {
        let line = format!("x {line}");
        let (text, config) = started(line.split_whitespace().map(OsString::from));
        let mut again = vec![OsString::from("x")];
        again.extend(parse(&text, &PretrainArgs::command()).unwrap());
        let (text_again, config_again) = started(again);
        assert_eq!(text, text_again);
        assert_eq!(
            serde_json::to_value(config).unwrap(),
            serde_json::to_value(&config_again).unwrap()
        );
        (text, config_again)
    }

    #[test]
    fn the_effective_configuration_makes_the_same_run() {
        started_again("--train-dir a --valid-file b --test-file c --lr 3e-4 -prenorm --seed 7");
        started_again("--dataset-name a/b:c --dataset-split s --lr-scheduler cosine -end_lr 1e-5");
        started_again("--dry-run --resume --resume-checkpoint x --override --threads 2 --ort lib");
    }

    #[test]
    fn strings_stay_strings_and_numbers_numbers() {
        let (text, config) = started_again(
            "--wandb --wandb-name 1e5 --wandb-id 007 --checkpoint-dir 1.50 -save_steps 20 --lr 3e-4",
        );
        for kept in [
            "lr = 0.0003\n",
            "seed = 12345\n",
            "checkpoint-interval = 20\n",
            "wandb-name = \"1e5\"\n",
            "wandb-id = \"007\"\n",
            "checkpoint-dir = \"1.50\"\n",
        ] {
            assert!(text.contains(kept), "no {kept} in {text}");
        }
        let wandb = config.operation.log.wandb.unwrap();
        assert_eq!((wandb.name.as_deref(), &*wandb.id), (Some("1e5"), "007"));
        assert!(config.checkpoint_dir.ends_with("1.50"));
    }

    #[test]
    fn what_is_of_one_start_is_not_kept() {
        let (text, _) = started_again("--dry-run --resume --override");
        for flag in [
            "config",
            "resume",
            "resume-checkpoint",
            "override",
            "dry-run",
        ] {
            assert!(!text.contains(&format!("\n{flag} =")), "{flag} in {text}");
        }
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
