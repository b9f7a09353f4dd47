//! annotated-mpnet's flags of one dash and several letters, such as `-save_steps`.

use clap::Command;
use std::ffi::OsString;

/// Gives those that `command` declares as another spelling of a flag, alone or with `=value`, their second
/// dash; everything from `--` on stays.
pub fn normalize(
    arguments: impl IntoIterator<Item = OsString>,
    command: &Command,
) -> Vec<OsString> {
    let spellings: Vec<&str> = command
        .get_arguments()
        .flat_map(|argument| argument.get_all_aliases().unwrap_or_default())
        .collect();
    let mut ended = false;
    arguments
        .into_iter()
        .map(|argument| {
            ended |= argument == "--";
            let Some(text) = argument.to_str().filter(|_| !ended) else {
                return argument;
            };
            let flag = text.split('=').next().unwrap_or_default();
            let other = flag.strip_prefix('-').filter(|f| spellings.contains(f));
            match other {
                Some(_) => format!("-{text}").into(),
                None => argument,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::normalize;
    use crate::cli::pretrain::PretrainArgs;
    use clap::CommandFactory;
    use std::ffi::OsString;

    #[test]
    fn values_and_everything_after_two_dashes_stay() {
        let given = [
            "x",
            "-save_steps",
            "200",
            "-wd=0.1",
            "-prenorm",
            "--lr",
            "-1",
            "-seed",
            "--",
            "-wd",
        ];
        let expected = [
            "x",
            "--save_steps",
            "200",
            "--wd=0.1",
            "--prenorm",
            "--lr",
            "-1",
            "-seed",
            "--",
            "-wd",
        ];
        assert_eq!(
            normalize(given.map(OsString::from), &PretrainArgs::command()),
            expected.map(OsString::from)
        );
    }
}
