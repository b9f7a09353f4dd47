//! `docs/flags.md`: every flag of the three binaries, from their declarations.

use super::convert::ConvertArgs;
use super::pretrain::PretrainArgs;
use crate::train::flags::Effect;
use clap::{Arg, ArgAction, Command, CommandFactory};

/// The page, for these verbs of `mpnet`.
pub fn page(verbs: &Command) -> String {
    let mut page = String::from(
        "<!-- Made by `cargo run --bin mpnet -- flags > docs/flags.md`; a test compares them. -->\n\
         # Flags\n\n\
         annotated-mpnet's spellings with one dash (`-save_steps`) are accepted with one or two. Of the flags \
         of `pretrain-mpnet`, those marked \"same\" must have the same value when a run is resumed, or \
         `--override` accepts the change; the others may have another. `config.toml`, which a run writes \
         beside its checkpoints, keeps every flag in effect but those marked \"this start\".\n",
    );
    page += "\n## pretrain-mpnet\n";
    flags_of(&PretrainArgs::command(), true, &mut page);
    page += "\n## convert-to-hf\n";
    flags_of(&ConvertArgs::command(), false, &mut page);
    for verb in verbs.get_subcommands() {
        verb_of("mpnet", verb, &mut page);
    }
    page
}

fn verb_of(before: &str, verb: &Command, page: &mut String) {
    if verb.is_hide_set() {
        return;
    }
    let name = format!("{before} {}", verb.get_name());
    if verb.has_subcommands() {
        for verb in verb.get_subcommands() {
            verb_of(&name, verb, page);
        }
        return;
    }
    let about = verb.get_about().map(ToString::to_string);
    *page += &format!("\n## {name}\n\n{}.\n", about.unwrap_or_default());
    flags_of(verb, false, page);
}

/// The table of a command, a heading at a time, and what it only accepts.
fn flags_of(command: &Command, effects: bool, page: &mut String) {
    let mut heading = None;
    let mut accepted = Vec::new();
    for argument in command.get_arguments() {
        if argument.is_hide_set() {
            if effects {
                accepted.push(format!("`--{}`", argument.get_long().unwrap_or_default()));
            }
            continue;
        }
        let of = argument.get_help_heading();
        if heading != Some(of) {
            heading = Some(of);
            if let Some(of) = of {
                *page += &format!("\n### {of}\n");
            }
            let (further, line) = if effects {
                (" resumed |", "---|")
            } else {
                ("", "")
            };
            *page += &format!("\n| flag | | default |{further}\n|---|---|---|{line}\n");
        }
        *page += &format!(
            "| {} | {} | {} |",
            spellings(argument, effects),
            help(argument),
            default(argument)
        );
        if effects {
            *page += &format!(" {} |", resumed(argument));
        }
        *page += "\n";
    }
    if !accepted.is_empty() {
        *page += &format!(
            "\nAccepted for annotated-mpnet's sake, and without effect: {}.\n",
            accepted.join(", ")
        );
    }
}

/// The flag, its value and its other spellings, which `pretrain-mpnet` takes with one dash.
fn spellings(argument: &Arg, one_dash: bool) -> String {
    let values = argument.get_value_names().unwrap_or_default();
    let takes_value = argument.get_action().takes_values();
    let Some(long) = argument.get_long() else {
        let name = values
            .first()
            .map_or(argument.get_id().as_str(), |v| v.as_str());
        return format!("`{name}`");
    };
    let mut first = format!("--{long}");
    if let Some(value) = values.first().filter(|_| takes_value) {
        first += &format!(" {value}");
    }
    let mut all = vec![format!("`{first}`")];
    all.extend(argument.get_short().map(|short| format!("`-{short}`")));
    let dashes = if one_dash { "-" } else { "--" };
    for alias in argument.get_visible_aliases().unwrap_or_default() {
        all.push(format!("`{dashes}{alias}`"));
    }
    all.join(", ")
}

/// The help, and the names that it accepts, in one line.
fn help(argument: &Arg) -> String {
    let long = argument.get_long_help().or(argument.get_help());
    let help = long.map(ToString::to_string).unwrap_or_default();
    let help = help.replace("\n\n", ". ").replace('\n', " ");
    // What is said of the default has a column of its own.
    let help = match help.rsplit_once(" [default: ") {
        Some((help, _)) => help.to_owned(),
        None => help,
    };
    let values: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}`: {help}", value.get_name()),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    let help = help.replace('|', "\\|").replace('<', "&lt;");
    if values.is_empty() || !argument.get_action().takes_values() {
        help
    } else {
        format!("{help}<br>{}", values.join("<br>"))
    }
}

fn default(argument: &Arg) -> String {
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        return String::new();
    }
    let help = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    if let Some((_, said)) = help.rsplit_once("[default: ") {
        return said.trim_end_matches(']').to_owned();
    }
    let values = argument.get_default_values().iter();
    let values: Vec<String> = values
        .map(|v| format!("`{}`", v.to_string_lossy()))
        .collect();
    values.join(" ")
}

fn resumed(argument: &Arg) -> &'static str {
    match argument.get::<Effect>() {
        Some(Effect::Updates(_)) => "same",
        Some(Effect::Surroundings(_)) => "",
        Some(Effect::Start) => "this start",
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::verbs::command;

    #[test]
    fn the_page_is_what_the_declarations_say() {
        let page = page(&command());
        let there = include_str!("../../docs/flags.md");
        assert!(
            page == there,
            "docs/flags.md is not up to date: cargo run --bin mpnet -- flags > docs/flags.md"
        );
    }

    /// All commands below `command`, itself included.
    fn all(command: &Command) -> Vec<Command> {
        let mut found = vec![command.clone()];
        found.extend(command.get_subcommands().flat_map(all));
        found
    }

    #[test]
    fn every_flag_of_every_command_has_a_help_and_a_name_for_its_value() {
        for root in [PretrainArgs::command(), ConvertArgs::command(), command()] {
            for command in all(&root) {
                let name = command.get_name();
                for argument in command.get_arguments() {
                    let id = argument.get_id().as_str();
                    assert!(argument.get_help().is_some(), "{name}: {id} has no help");
                    let names = argument.get_value_names().unwrap_or_default();
                    assert!(
                        !argument.get_action().takes_values()
                            || argument.is_positional()
                            || names.iter().all(|n| !n.contains('_')),
                        "{name}: {id} has no name for its value"
                    );
                }
            }
        }
    }
}
