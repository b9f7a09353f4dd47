//! `pretrain-mpnet`: annotated-mpnet's flags and this program's own, a group a file, checked and
//! resolved.

mod architecture;
mod checkpoints;
mod config_file;
mod data;
mod logging;
mod masking;
mod mix;
mod optimization;
mod ranks;

use super::exit::{self, UsageError};
use super::hardware::{HardwareArgs, RecomputeArgs};
use super::model_file::MPNET_BASE;
use super::spelling::normalize;
use crate::data::batch_problem;
use crate::launch::{Launch, Launcher, RESTART, STARTED_BY, children};
use crate::output::OutputError;
use crate::stop::StopSignal;
use crate::train::config::{Operation, TrainConfig};
use crate::train::execution::Execution;
use crate::train::flags::{Effect, Flag, Flags};
use crate::train::run::{CommandLine, run};
use crate::train::trainer::Ended;
use anyhow::{Context, Result, anyhow};
use clap::{CommandFactory, FromArgMatches, Parser};
use mpnet_plan::Provider;
use mpnet_runtime::collective::{Kind, mpi};
use mpnet_runtime::device::nvidia_count;
use ranks::Devices;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    pub optimization: optimization::OptimizationArgs,
    #[command(flatten)]
    pub checkpoints: checkpoints::CheckpointArgs,
    #[command(flatten)]
    pub logging: logging::LoggingArgs,
    #[command(flatten)]
    pub hardware: HardwareArgs,
    #[command(flatten)]
    pub recompute: RecomputeArgs,
    #[command(flatten)]
    pub ranks: ranks::RankArgs,
    /// Read flags from this TOML file, by their names; those of the command line win
    #[arg(long, value_name = "FILE.toml", help_heading = "Run", add = Effect::Start)]
    pub config: Option<PathBuf>,
    /// Say what would run, from a short measurement, and leave nothing behind
    #[arg(long, help_heading = "Run", add = Effect::Start)]
    pub dry_run: bool,
}

impl PretrainArgs {
    /// Says of flags of annotated-mpnet's that something else would be expected of.
    fn tell_of_no_effect(&self) {
        let flags = [
            (
                self.checkpoints.trust_checkpoint,
                "--trust-checkpoint has no effect: no checkpoint is executed, so none needs trust",
            ),
            (
                self.logging.wandb_watch,
                "--wandb-watch has no effect: of the gradients the norm is sent, with the rest",
            ),
        ];
        for (_, text) in flags.into_iter().filter(|(used, _)| *used) {
            tracing::warn!("{text}");
        }
    }

    /// The run that these flags ask for, whatever launchers say.
    ///
    /// # Errors
    /// Where they contradict each other or ask for what is not there.
    pub fn resolve(self) -> Result<TrainConfig, UsageError> {
        let launch = self.ranks.launch(|_| None).map_err(UsageError)?;
        self.resolve_for(launch)
    }

    /// The run that these flags ask for, of which this process is the rank that `launch` says.
    ///
    /// # Errors
    /// Where they contradict each other or ask for what is not there.
    pub fn resolve_for(self, launch: Launch) -> Result<TrainConfig, UsageError> {
        // What the rest of the program refuses it names by the configuration's fields.
        let named = |UsageError(said)| UsageError(flags().translate(&said));
        let config = self.config(launch).map_err(named)?;
        let model = config.architecture.model(&MPNET_BASE);
        model
            .validate()
            .map_err(|e| named(UsageError(e.to_string())))?;
        let rows = (config.batch_size, config.batching.max_batch_tokens);
        match batch_problem(rows.0, rows.1, config.max_tokens) {
            Some(problem) => Err(named(UsageError(problem))),
            None => Ok(config),
        }
    }

    fn config(self, launch: Launch) -> Result<TrainConfig, UsageError> {
        self.tell_of_no_effect();
        let (architecture, max_tokens) = self.architecture.resolve()?;
        let (text, batching) = self.data.resolve()?;
        let schedule = self.optimization.schedule()?;
        let checkpoint_interval = self.checkpoints.interval();
        let operation = self.operation();
        Ok(TrainConfig {
            architecture,
            tokenizer: self.data.tokenizer_name,
            text,
            batching,
            max_tokens,
            masking: self.masking.resolve()?,
            batch_size: self.optimization.batch_size,
            update_freq: (self.optimization)
                .micro_batches(launch.world, self.data.max_batch_tokens.is_some())?,
            data_threads: self.data.num_workers,
            schedule,
            optimizer: self.optimization.optimizer.optimizer(),
            seed: self.optimization.seed.seed,
            checkpoint_interval,
            keep_checkpoints: usize::try_from(self.checkpoints.keep_checkpoints).ok(),
            eval_interval: self
                .logging
                .eval_interval(checkpoint_interval, schedule.total_updates),
            logging_steps: self.logging.logging_steps,
            start_from: self.checkpoints.hf_model_path,
            resume: self
                .checkpoints
                .resume
                .then_some(self.checkpoints.resume_checkpoint)
                .map(Option::unwrap_or_default),
            checkpoint_dir: self.checkpoints.checkpoint_dir,
            execution: Execution {
                gradient_checkpointing: self.recompute.gradient_checkpointing,
                shard_optimizer: self.ranks.shard_optimizer,
                ..self.hardware.execution()
            },
            launch,
            ort: self.hardware.ort.ort,
            operation,
        })
    }

    fn operation(&self) -> Operation {
        let checkpoints = &self.checkpoints;
        Operation {
            save_optimizer_state: !checkpoints.no_save_optimizer_state,
            accept_changes: checkpoints.accept_changes,
            max_skipped_updates: self.optimization.max_skipped_updates,
            max_bad_rows: self.data.read.max_bad_rows,
            dry_run: self.dry_run,
            save_patience: Duration::from_secs(checkpoints.save_retry),
            collective_timeout: self.ranks.timeout(),
            deterministic: self.ranks.deterministic,
            log: self.logging.log(&checkpoints.checkpoint_dir),
        }
    }
}

impl PretrainArgs {
    /// The ranks to start, where these flags ask for some and nothing has started this process as one of them.
    ///
    /// # Errors
    /// Where there are no such devices, or there is no way to start ranks on them.
    fn start_ranks(&self, launch: &Launch) -> Result<Option<children::Start>> {
        let Some(devices) = self.ranks.devices else {
            return Ok(None);
        };
        if std::env::var_os(STARTED_BY).is_some() {
            return Ok(None);
        }
        if launch.by != Launcher::None {
            return Err(UsageError(format!(
                "--devices starts ranks of its own, and this is {launch}: leave it out under a launcher"
            ))
            .into());
        }
        let provider = self.hardware.execution().place().provider;
        let count = match devices {
            Devices::Count(count) => count,
            Devices::All => match (provider, nvidia_count()) {
                (Provider::Cuda, Some(count)) if count > 0 => count,
                (provider, _) => {
                    return Err(UsageError(format!(
                        "--devices all counts NVIDIA GPUs, and this run is on {provider}: give a number"
                    ))
                    .into());
                }
            },
        };
        let mut start = children::Start {
            count,
            through: None,
            program: std::env::current_exe().context("finding this program's own file")?,
            arguments: std::env::args_os().skip(1).collect(),
            checkpoints: self.checkpoints.checkpoint_dir.clone(),
            restarts: self.ranks.restarts,
        };
        if Kind::choose(provider, count) == Kind::Mpi {
            // Processes that something else started are no ranks of MPI.
            let launcher = mpi::launcher().with_context(|| {
                format!("--devices {count} on {provider} starts its ranks through MPI's mpiexec")
            })?;
            let count = count.to_string();
            start.through = Some(vec![launcher.into(), "-n".into(), count.into()]);
        }
        Ok(Some(start))
    }
}

/// Every flag, and what it decides.
pub fn flags() -> Flags {
    let command = PretrainArgs::command();
    let flag = |argument: &clap::Arg| {
        Some(Flag {
            name: argument.get_long()?.to_owned(),
            effect: *argument.get::<Effect>()?,
        })
    };
    Flags(command.get_arguments().filter_map(flag).collect())
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
    let arguments = config_file::expand(normalize(arguments, &command), &command)?;
    let matches = command.clone().get_matches_from(arguments);
    let args = PretrainArgs::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    exit::init_logging(args.logging.debug)?;
    let launch = args
        .ranks
        .launch(|name| std::env::var(name).ok())
        .map_err(UsageError)?;
    if let Some(start) = args.start_ranks(&launch)? {
        return children::run(&start, &StopSignal::listen()?);
    }
    let mut config = args.resolve_for(launch)?;
    if std::env::var_os(RESTART).is_some() {
        config.resume = Some(PathBuf::new());
    }
    let command_line = CommandLine {
        flags: flags(),
        in_effect: config_file::effective(&command, &matches),
    };
    let ended = run(&config, &command_line).map_err(|error| {
        // An error of standard output is known by its type.
        if error.is::<OutputError>() {
            return error;
        }
        anyhow!("{}", command_line.flags.translate(&format!("{error:#}")))
    })?;
    Ok(match ended {
        Ended::Finished => exit::DONE,
        Ended::Signal(signal) => 128 + signal as u8,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Masking;
    use crate::train::changes::collect;
    use crate::train::config::Text;
    use mpnet_graphs::model::Objective;

    fn resolve(line: &str) -> Result<TrainConfig, String> {
        let words = line.split_whitespace().map(OsString::from);
        let words = std::iter::once("pretrain-mpnet".into()).chain(words);
        let args = PretrainArgs::try_parse_from(normalize(words, &PretrainArgs::command()))
            .map_err(|e| e.to_string())?;
        args.resolve().map_err(|e| e.to_string())
    }

    const FILES: &str = "--train-dir a --valid-file b --test-file c";

    #[test]
    fn defaults_are_those_of_annotated_mpnet() {
        let config = resolve(FILES).unwrap();
        let a = &config.architecture;
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
        assert!(config.architecture.normalize_before);
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
        assert_eq!(resolve(FILES).unwrap().masking, Masking::default());
        let masking = |line: &str| resolve(&format!("{line} {FILES}")).unwrap().masking;
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
        let name = |line: &str| match resolve(line).unwrap().text {
            Text::Dataset(dataset) => (dataset.name.name, dataset.name.config, dataset.split),
            other @ (Text::Files(_) | Text::Mix(_)) => panic!("{other:?}"),
        };
        let fineweb = "HuggingFaceFW/fineweb-edu".to_owned();
        assert_eq!(name(""), (fineweb.clone(), None, "train".into()));
        assert_eq!(name("--dataset-name="), (fineweb, None, "train".into()));
        let line = format!("--dataset-name a/b:c --dataset-split test {FILES}");
        assert_eq!(name(&line), ("a/b".into(), Some("c".into()), "test".into()));
        assert_eq!(resolve("").unwrap().batching.min_text_length, 64);
        assert_eq!(resolve(FILES).unwrap().batching.min_text_length, 0);
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
