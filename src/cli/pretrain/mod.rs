//! `pretrain-mpnet`: annotated-mpnet's flags and this program's own, a group a file, checked and
//! resolved.

mod architecture;
mod data;
mod masking;
mod mix;
mod start;

use super::exit::{self, UsageError};
use super::model_file::MPNET_BASE;
use super::spelling::normalize;
use super::training::{OwnSettings, RunArgs, config_file, flags_of, matches, train};
use crate::data::batch_problem;
use crate::launch::Launch;
use crate::train::config::{Pretraining, TaskConfig, TrainConfig};
use crate::train::flags::Flags;
use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;
use std::path::Path;

/// What follows the list of flags.
const EXAMPLES: &str = "\
Examples:
  Train on files:
    pretrain-mpnet --train-dir texts/ --valid-file valid.txt --test-file test.txt --total-updates 10000
  Go on from the latest checkpoint of ./checkpoints, with the flags of that run:
    pretrain-mpnet --config checkpoints/config.toml --resume
  See what a run would take, from a short measurement:
    pretrain-mpnet --config run.toml --dry-run

annotated-mpnet's spellings of one dash, such as -save_steps, are accepted too.";

/// Pretrain MPNet (masked and permuted language modelling) with ONNX Runtime
#[derive(Debug, Parser)]
#[command(
    name = "pretrain-mpnet",
    version,
    rename_all = "kebab-case",
    args_override_self = true,
    after_help = EXAMPLES
)]
pub struct PretrainArgs {
    #[command(flatten)]
    pub architecture: architecture::ArchitectureArgs,
    #[command(flatten)]
    pub data: data::DataArgs,
    #[command(flatten)]
    pub masking: masking::MaskingArgs,
    #[command(flatten)]
    pub start: start::StartArgs,
    #[command(flatten)]
    pub run: RunArgs,
}

impl PretrainArgs {
    /// The run that these flags ask for, whatever launchers say.
    ///
    /// # Errors
    /// Where they contradict each other or ask for what is not there.
    pub fn resolve(&self) -> Result<TrainConfig, UsageError> {
        let launch = self.run.ranks.launch(|_| None).map_err(UsageError)?;
        self.resolve_for(launch)
    }

    /// The run that these flags ask for, of which this process is the rank that `launch` says.
    ///
    /// # Errors
    /// Where they contradict each other or ask for what is not there.
    pub fn resolve_for(&self, launch: Launch) -> Result<TrainConfig, UsageError> {
        // What the rest of the program refuses it names by the configuration's fields.
        let named = |UsageError(said)| UsageError(flags().translate(&said));
        let config = self.config(launch).map_err(named)?;
        let Some(task) = config.task.pretraining() else {
            return Ok(config);
        };
        let model = task.architecture.model(&MPNET_BASE);
        model
            .validate()
            .map_err(|e| named(UsageError(e.to_string())))?;
        let rows = (config.batch_size, task.batching.max_batch_tokens);
        match batch_problem(rows.0, rows.1, config.max_tokens) {
            Some(problem) => Err(named(UsageError(problem))),
            None => Ok(config),
        }
    }

    fn config(&self, launch: Launch) -> Result<TrainConfig, UsageError> {
        self.start.tell_of_no_effect();
        let (architecture, max_tokens) = self.architecture.resolve()?;
        let (text, batching) = self.data.resolve()?;
        let task = TaskConfig::Pretraining(Pretraining {
            architecture,
            text,
            batching,
            masking: self.masking.resolve()?,
        });
        let own = OwnSettings {
            tokenizer: self.data.tokenizer_name.clone(),
            max_tokens,
            data_threads: self.data.num_workers,
            start_from: self.start.hf_model_path.clone(),
            max_bad_rows: self.data.read.bad_rows.max_bad_rows,
        };
        self.run.config(task, own, launch)
    }
}

/// Every flag, and what it decides.
pub fn flags() -> Flags {
    flags_of(&PretrainArgs::command())
}

/// The flags in a `--config` file, as the command line has them.
///
/// # Errors
/// Where it cannot be read or holds what is no flag.
pub fn read_config(path: &Path) -> Result<Vec<OsString>, UsageError> {
    config_file::read(path, &PretrainArgs::command())
}

/// Parses `arguments` and trains. Returns the exit code.
///
/// # Errors
/// Where anything fails.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Result<u8> {
    let command = PretrainArgs::command();
    let matches = matches(&command, normalize(arguments, &command))?;
    let args = PretrainArgs::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    exit::init_logging(args.run.logging.debug)?;
    let resolve = |launch| Ok(args.resolve_for(launch)?);
    let (code, _) = train(&command, &matches, &args.run, resolve)?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Masking;
    use crate::train::changes::collect;
    use crate::train::config::Text;
    use crate::train::flags::Effect;
    use mpnet_graphs::model::Objective;

    fn resolve(line: &str) -> Result<TrainConfig, String> {
        let words = line.split_whitespace().map(OsString::from);
        let words = std::iter::once("pretrain-mpnet".into()).chain(words);
        let args = PretrainArgs::try_parse_from(normalize(words, &PretrainArgs::command()))
            .map_err(|e| e.to_string())?;
        args.resolve().map_err(|e| e.to_string())
    }

    fn pretraining(line: &str) -> Pretraining {
        resolve(line).unwrap().task.pretraining().unwrap().clone()
    }

    const FILES: &str = "--train-dir a --valid-file b --test-file c";

    #[test]
    fn defaults_are_those_of_annotated_mpnet() {
        let config = resolve(FILES).unwrap();
        let a = &config.task.pretraining().unwrap().architecture;
        assert_eq!(
            (
                a.encoder_layers,
                a.encoder_embed_dim,
                a.encoder_ffn_dim,
                a.encoder_attention_heads
            ),
            (12, 768, 3072, 12)
        );
        assert_eq!((config.max_tokens, a.max_positions), (512, 512));
        assert_eq!(
            (
                a.relative_attention_num_buckets,
                a.relative_attention_max_distance
            ),
            (32, 128)
        );
        assert_eq!(
            (config.batch_size, config.update_freq, config.seed),
            (16, 8, 12_345)
        );
        let s = config.schedule;
        assert_eq!((s.peak, s.end, s.power), (6e-4, 0.0, 1.0));
        assert_eq!((s.warmup_updates, s.total_updates), (1000, 10_000));
        let o = config.optimizer;
        assert_eq!((o.beta1, o.beta2, o.epsilon), (0.9, 0.98, 1e-6));
        assert_eq!((o.weight_decay, o.clip_grad_norm), (0.01, 1.0));
        assert_eq!(
            (config.eval_interval, config.checkpoint_interval),
            (5000, None)
        );
        assert_eq!((config.logging_steps, config.keep_checkpoints), (25, None));
    }

    #[test]
    fn the_second_command_of_annotated_mpnet_parses_as_it_stands() {
        let config = resolve(
            "--train-dir DIR --valid-file FILE --test-file FILE --total-updates 10000 \
             --warmup-updates 1000 --batch-size 256 --update-freq 4 --lr 0.0002",
        )
        .unwrap();
        assert_eq!((config.batch_size, config.update_freq), (256, 4));
        assert_eq!(config.schedule.peak, 2e-4);
    }

    #[test]
    fn short_spellings_and_intervals() {
        let config = resolve(&format!(
            "{FILES} -save_steps 200 -gc_steps 3 -prenorm -wd 0"
        ))
        .unwrap();
        assert_eq!(
            (config.checkpoint_interval, config.eval_interval),
            (Some(200), 200)
        );
        assert_eq!(config.update_freq, 3);
        let task = config.task.pretraining().unwrap();
        assert!(task.architecture.normalize_before);
        let config = resolve(&format!(
            "{FILES} --keep-checkpoints 0 --eval-interval-steps -1"
        ))
        .unwrap();
        assert_eq!(
            (config.keep_checkpoints, config.eval_interval),
            (Some(0), 10_000)
        );
    }

    /// Every flag of annotated-mpnet's `pretrain-mpnet`, short spellings included, and this program's
    /// own: the list of the project's command line page (cli.md).
    const FLAGS: &str = "--encoder-layers --encoder-embed-dim --encoder-ffn-dim \
        --encoder-attention-heads --dropout --attention-dropout --activation-dropout --max-positions \
        --max-tokens --relative-attention-num-buckets --relative-attention-max-distance \
        --activation-fn --normalize-before --gradient-checkpointing --tokenizer-name --train-dir \
        --valid-file --test-file --dataset-name --text-field --buffer-size --eval-samples \
        --min-text-length --num-workers --total-updates --warmup-updates --batch-size --update-freq \
        --lr --end-learning-rate --power --beta1 --beta2 --adam-eps --weight-decay --clip-grad-norm \
        --seed --compile --checkpoint-dir --save_steps --save-steps --checkpoint-interval \
        --keep-checkpoints --save-optimizer-state --resume --resume-checkpoint --trust-checkpoint \
        --hf-model-path --tensorboard-log-dir --logging-steps --eval-interval-steps --debug --wandb \
        --wandb-project --wandb-name --wandb-id --wandb-watch --engine --provider --device-id \
        --precision --ort --preset --config --threads --dry-run --log-format --override \
        --no-save-optimizer-state --max-skipped-updates -save_steps -log_dir -warmup_steps -gc_steps \
        -wd -grad_clip -end_lr -num_buckets -activation -prenorm";

    #[test]
    fn every_flag_is_declared_and_says_what_it_does() {
        let command = PretrainArgs::command();
        for flag in FLAGS.split_whitespace() {
            let spelled = normalize([OsString::from(flag)], &command);
            let name = spelled[0].to_str().unwrap().strip_prefix("--").unwrap();
            let found = command.get_arguments().find(|a| {
                a.get_long() == Some(name)
                    || a.get_all_aliases().unwrap_or_default().contains(&name)
            });
            assert!(found.is_some(), "{flag} is not declared");
        }
        for argument in command.get_arguments() {
            let effect = argument.get::<Effect>();
            let id = argument.get_id();
            assert!(effect.is_some(), "{id} does not say what it decides");
        }
    }

    /// Flags that change nothing in a configuration: by their meaning, or as they say when used.
    const WITHOUT_EFFECT: &[&str] = &[
        // The default, and the graph is always compiled.
        "save-optimizer-state",
        "compile",
        // They say so.
        "trust-checkpoint",
        "wandb-watch",
        // Beside the configuration: how errors are logged, and a file of flags.
        "debug",
        "config",
        // They start other processes.
        "devices",
        "restarts",
    ];

    #[test]
    fn every_flag_changes_the_run_or_is_known_not_to() {
        // What some flags need beside them.
        let beside = |name: &str| match name {
            "resume-checkpoint" | "override" => "--resume",
            "wandb-project" | "wandb-name" | "wandb-id" => "--wandb",
            "rank" | "world-size" | "local-rank" => {
                "--rank 1 --world-size 2 --global-batch-size 960"
            }
            "dataset-split" | "dataset-revision" | "eval-samples" => "--dataset-name a/b",
            _ => "",
        };
        let run = |line: &str| resolve(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        let values = |config: &TrainConfig| {
            let mut leaves = Vec::new();
            collect(
                String::new(),
                &serde_json::to_value(config).unwrap(),
                &mut leaves,
            );
            leaves
        };
        let mix = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&mix, "[[part]]\ntrain-dir = 'a'\nweight = 1\n").unwrap();
        let mix = mix.path().display().to_string();
        for argument in PretrainArgs::command().get_arguments() {
            let Some(name) = argument
                .get_long()
                .filter(|n| *n != "help" && *n != "version")
            else {
                continue;
            };
            let value = match name {
                "activation-fn" => "relu",
                "attention" => "expanded",
                "engine" => "session",
                "provider" => "cuda",
                "precision" => "fp32",
                "preset" => "small",
                "mix" => &mix,
                "log-format" => "json",
                "lr-scheduler" => "cosine",
                "input-mode" => "mlm",
                "sample-break-mode" => "complete",
                "dataset-name" => "a/c",
                "max-positions" => "1024",
                "max-tokens" => "128",
                "max-batch-tokens" => "1024",
                "encoder-attention-heads" => "6",
                "encoder-embed-dim" => "96",
                "relative-attention-num-buckets" => "16",
                "relative-attention-max-distance" => "200",
                "rank" | "local-rank" => "0",
                "global-batch-size" => "96",
                name if takes_value(argument) && is_share(name) => "0.25",
                _ if takes_value(argument) => "3",
                _ => "",
            };
            let base = format!("{FILES} {}", beside(name));
            let (before, after) = (run(&base), run(&format!("{base} --{name} {value}")));
            let changed = format!("{before:?}") != format!("{after:?}");
            assert_eq!(changed, !WITHOUT_EFFECT.contains(&name), "--{name} {value}");
            // It changes the saved values that it says it decides.
            let (before, after) = (values(&before), values(&after));
            let paths: Vec<&String> = before.iter().chain(&after).map(|(path, _)| path).collect();
            let differs = |path: &str| {
                let value = |leaves: &[(String, serde_json::Value)]| {
                    leaves
                        .iter()
                        .find(|(p, _)| p == path)
                        .map(|(_, v)| v.clone())
                };
                value(&before) != value(&after)
            };
            let effect = *argument.get::<Effect>().unwrap();
            for decided in effect.paths() {
                let below = |path: &&&String| path.starts_with(decided);
                assert!(
                    paths.iter().filter(below).any(|path| differs(path)),
                    "--{name} does not change {decided}"
                );
            }
            if effect == Effect::Start {
                assert!(!paths.iter().any(|path| differs(path)), "--{name}");
            }
        }
    }

    fn takes_value(argument: &clap::Arg) -> bool {
        argument.get_action().takes_values()
    }

    fn is_share(name: &str) -> bool {
        ["dropout", "prob", "beta"]
            .iter()
            .any(|part| name.contains(part))
    }

    #[test]
    fn the_masking_flags_of_the_original() {
        assert_eq!(pretraining(FILES).masking, Masking::default());
        let masking = |line: &str| pretraining(&format!("{line} {FILES}")).masking;
        let all =
            masking("--pred-prob 0.3 --keep-prob 0 --rand-prob 0.2 --max-gram 3 --return-mlm");
        let expected = Masking {
            objective: Objective::MpnetMlm,
            pred_prob: 0.3,
            keep_prob: 0.0,
            rand_prob: 0.2,
            whole_words: true,
            max_gram: 3,
        };
        assert_eq!(all, expected);
        assert_eq!(masking("--input-mode plm").objective, Objective::Plm);
        assert_eq!(masking("--input-mode mlm").objective, Objective::Mlm);
        assert!(!masking("--no-whole-word-mask").whole_words);
    }

    #[test]
    fn datasets_win_and_are_the_default() {
        let name = |line: &str| match pretraining(line).text {
            Text::Dataset(dataset) => (dataset.name.name, dataset.name.config, dataset.split),
            other @ (Text::Files(_) | Text::Mix(_)) => panic!("{other:?}"),
        };
        let fineweb = "HuggingFaceFW/fineweb-edu".to_owned();
        assert_eq!(name(""), (fineweb.clone(), None, "train".into()));
        assert_eq!(name("--dataset-name="), (fineweb, None, "train".into()));
        let line = format!("--dataset-name a/b:c --dataset-split test {FILES}");
        assert_eq!(name(&line), ("a/b".into(), Some("c".into()), "test".into()));
        assert_eq!(pretraining("").batching.min_text_length, 64);
        assert_eq!(pretraining(FILES).batching.min_text_length, 0);
    }

    #[test]
    fn a_global_batch_is_the_same_on_any_number_of_ranks() {
        let resolved = |line: &str| resolve(&format!("{FILES} --batch-size 4 {line}")).unwrap();
        for ranks in ["", "--rank 0 --world-size 2", "--rank 2 --world-size 3"] {
            let config = resolved(&format!("--global-batch-size 24 {ranks}"));
            assert_eq!((config.batch_size, config.update_freq), (4, 6), "{ranks}");
        }
        // Otherwise each rank makes as many.
        let config = resolved("--update-freq 2 --rank 1 --world-size 3");
        assert_eq!(config.update_freq, 6);
        assert_eq!((config.launch.rank, config.launch.world), (1, 3));
    }

    #[test]
    fn contradictions_name_the_flags() {
        for (line, said) in [
            ("--train-dir a", "all three"),
            ("--dataset-name a/b/c", "a/b/c"),
            ("--logging-steps 0 FILES", "--logging-steps"),
            ("--dataset-name a/b --eval-samples 0", "--eval-samples"),
            ("--max-batch-tokens 511 FILES", "--max-batch-tokens 511"),
            ("--sample-break-mode doc FILES", "doc"),
            (
                "--max-tokens 512 --max-positions 128 FILES",
                "--max-positions 128",
            ),
            (
                "--encoder-attention-heads 7 FILES",
                "--encoder-attention-heads 7",
            ),
            ("--resume-checkpoint x FILES", "--resume"),
            ("--hf-model-path x --resume FILES", "--resume"),
            ("--override FILES", "--resume"),
            ("--total-updates 0 FILES", "--total-updates"),
            ("--lr nan FILES", "--lr"),
            ("--max-tokens 2 FILES", "--max-tokens 2 leaves no room"),
            ("--batch-size 0 FILES", "at least 1"),
            (
                "--lr-scheduler cosine --power 2 FILES",
                "--power has no effect",
            ),
            (
                "--lr-scheduler constant -end_lr 0 FILES",
                "--end-learning-rate has no effect",
            ),
            ("--lr 0 FILES", "--lr"),
            ("--beta1 1 FILES", "'1' for '--beta1"),
            ("--beta2 nan FILES", "--beta2"),
            ("--weight-decay inf FILES", "--weight-decay"),
            ("--end-learning-rate nan FILES", "--end-learning-rate"),
            ("--dropout 1 FILES", "'1' for '--dropout"),
            ("--input-mode plm --return-mlm FILES", "--return-mlm"),
            ("--input-mode plm --keep-prob 0 FILES", "--keep-prob"),
            ("--input-mode clm FILES", "clm"),
            ("--pred-prob 0 FILES", "--pred-prob 0"),
            ("--keep-prob 0.6 --rand-prob 0.6 FILES", "--rand-prob 0.6"),
            ("--max-gram 2 --no-whole-word-mask FILES", "--max-gram 2"),
            ("--global-batch-size 100 FILES", "give 96 or 112"),
            (
                "--global-batch-size 48 --rank 0 --world-size 4 FILES",
                "--batch-size 16 × 4 ranks: give 64",
            ),
            (
                "--global-batch-size 64 --max-batch-tokens 1024 FILES",
                "give --update-freq instead",
            ),
            ("--rank 1 FILES", "--world-size is not"),
            ("--rank 2 --world-size 2 FILES", "--rank is 2"),
            ("--devices 0 FILES", "at least 1"),
            ("--devices 2 --rank 0 --world-size 2 FILES", "--rank"),
        ] {
            let error = resolve(&line.replace("FILES", FILES)).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
