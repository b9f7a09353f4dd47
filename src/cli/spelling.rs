//! annotated-mpnet's other spellings of its flags, as the ones that this program declares.

use std::ffi::OsString;

/// Other spelling → declared flag.
pub const SPELLINGS: &[(&str, &str)] = &[
    ("-activation", "--activation-fn"),
    ("-end_lr", "--end-learning-rate"),
    ("-gc_steps", "--update-freq"),
    ("-grad_clip", "--clip-grad-norm"),
    ("-log_dir", "--tensorboard-log-dir"),
    ("-num_buckets", "--relative-attention-num-buckets"),
    ("-prenorm", "--normalize-before"),
    ("-save_steps", "--checkpoint-interval"),
    ("-warmup_steps", "--warmup-updates"),
    ("-wd", "--weight-decay"),
    ("--logging_steps", "--logging-steps"),
    ("--save-steps", "--checkpoint-interval"),
    ("--save_steps", "--checkpoint-interval"),
];

/// Replaces other spellings, alone or with `=value`; everything from `--` on stays.
pub fn normalize(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut ended = false;
    arguments
        .into_iter()
        .map(|argument| {
            ended |= argument == "--";
            let Some(text) = argument.to_str().filter(|_| !ended) else {
                return argument;
            };
            let (flag, value) = match text.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (text, None),
            };
            let declared = SPELLINGS.iter().find(|(other, _)| *other == flag);
            match (declared, value) {
                (Some((_, declared)), Some(value)) => format!("{declared}={value}").into(),
                (Some((_, declared)), None) => declared.into(),
                (None, _) => argument,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{SPELLINGS, normalize};
    use crate::cli::pretrain::PretrainArgs;
    use clap::CommandFactory;
    use std::ffi::OsString;

    #[test]
    fn every_spelling_is_of_a_declared_flag_and_clashes_with_none() {
        let command = PretrainArgs::command();
        let declared: Vec<String> = command
            .get_arguments()
            .filter_map(|a| a.get_long().map(|l| format!("--{l}")))
            .collect();
        for (other, flag) in SPELLINGS {
            assert!(declared.iter().any(|d| d == flag), "{flag} is not declared");
            assert!(declared.iter().all(|d| d != other), "{other} is declared");
        }
    }

    #[test]
    fn values_and_everything_after_two_dashes_stay() {
        let given = [
            "x",
            "-save_steps",
            "200",
            "-wd=0.1",
            "--lr",
            "-wd",
            "--",
            "-wd",
        ];
        let expected = [
            "x",
            "--checkpoint-interval",
            "200",
            "--weight-decay=0.1",
            "--lr",
            "--weight-decay",
            "--",
            "-wd",
        ];
        assert_eq!(
            normalize(given.map(OsString::from)),
            expected.map(OsString::from)
        );
    }
}
