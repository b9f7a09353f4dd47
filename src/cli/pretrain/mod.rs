//! `pretrain-mpnet`: annotated-mpnet's flags and this program's own, a group a file, checked and
//! resolved.

mod architecture;
mod checkpoints;
mod data;
mod logging;
mod optimization;
mod range;

use super::exit::{self, UsageError};
use super::hardware::HardwareArgs;
use super::spelling::normalize;
use crate::train::config::TrainConfig;
use crate::train::run::run;
use crate::train::trainer::Ended;
use anyhow::Result;
use clap::Parser;
use std::ffi::OsString;
use std::path::PathBuf;

/// Pretrain MPNet (masked and permuted language modelling) with ONNX Runtime.
#[derive(Debug, Parser)]
#[command(
    name = "pretrain-mpnet",
    version,
    rename_all = "kebab-case",
    args_override_self = true
)]
pub struct PretrainArgs {
    #[command(flatten)]
    pub architecture: architecture::ArchitectureArgs,
    #[command(flatten)]
    pub data: data::DataArgs,
    #[command(flatten)]
    pub optimization: optimization::OptimizationArgs,
    #[command(flatten)]
    pub checkpoints: checkpoints::CheckpointArgs,
    #[command(flatten)]
    pub logging: logging::LoggingArgs,
    #[command(flatten)]
    pub hardware: HardwareArgs,
    /// ONNX Runtime to use: a library or training wheel, or a folder that holds one
    #[arg(long, value_name = "PATH", help_heading = "Hardware")]
    pub ort: Option<PathBuf>,
    /// Threads of ONNX Runtime [default: all cores]
    #[arg(long, help_heading = "Hardware")]
    pub threads: Option<usize>,
}

impl PretrainArgs {
    /// Flags that are declared for their meaning in annotated-mpnet but can't be obeyed yet, where
    /// one is used.
    fn unavailable(&self) -> Option<&'static str> {
        let logs = self.logging.tensorboard_log_dir.is_some();
        [
            (self.data.dataset_name.is_some(), "--dataset-name"),
            (self.checkpoints.trust_checkpoint, "--trust-checkpoint"),
            (
                self.architecture.gradient_checkpointing,
                "--gradient-checkpointing",
            ),
            (logs, "--tensorboard-log-dir"),
            (self.logging.wandb, "--wandb"),
            (self.logging.wandb_watch, "--wandb-watch"),
        ]
        .into_iter()
        .find_map(|(used, flag)| used.then_some(flag))
    }

    /// The run that these flags ask for.
    ///
    /// # Errors
    /// Where they contradict each other or ask for what is not there.
    pub fn resolve(self) -> Result<TrainConfig, UsageError> {
        if let Some(flag) = self.unavailable() {
            return Err(UsageError(format!(
                "{flag} is not available in this version; leave it out"
            )));
        }
        let text = self.data.resolve()?;
        let (architecture, max_tokens) = self.architecture.resolve()?;
        let (schedule, optimizer) = self.optimization.resolve()?;
        let checkpoint_interval = self.checkpoints.interval();
        Ok(TrainConfig {
            architecture,
            tokenizer: self.data.tokenizer_name,
            text,
            max_tokens,
            batch_size: self.optimization.batch_size,
            update_freq: self.optimization.update_freq,
            data_threads: self.data.num_workers,
            schedule,
            optimizer,
            seed: self.optimization.seed,
            checkpoint_interval,
            keep_checkpoints: usize::try_from(self.checkpoints.keep_checkpoints).ok(),
            eval_interval: self
                .logging
                .eval_interval(checkpoint_interval, schedule.total_updates),
            logging_steps: self.logging.logging_steps.max(1),
            start_from: self.checkpoints.hf_model_path,
            resume: self
                .checkpoints
                .resume
                .then_some(self.checkpoints.resume_checkpoint)
                .map(Option::unwrap_or_default),
            checkpoint_dir: self.checkpoints.checkpoint_dir,
            execution: self.hardware.execution(self.threads),
            ort: self.ort,
        })
    }
}

/// Parses `arguments` and trains. Returns the exit code.
///
/// # Errors
/// Where anything fails.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Result<u8> {
    let args = PretrainArgs::parse_from(normalize(arguments));
    exit::init_logging(args.logging.debug);
    let config = args.resolve()?;
    let ended = run(&config, || config.execution.load(config.ort.clone()))?;
    Ok(match ended {
        Ended::Finished => exit::DONE,
        Ended::Signal(signal) => 128 + signal as u8,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(line: &str) -> Result<TrainConfig, String> {
        let words = line.split_whitespace().map(OsString::from);
        let args = PretrainArgs::try_parse_from(normalize(
            std::iter::once("pretrain-mpnet".into()).chain(words),
        ))
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

    #[test]
    fn contradictions_name_the_flags() {
        for (line, said) in [
            ("", "--train-dir"),
            ("--train-dir a", "all three"),
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
            ("--dataset-name x", "--dataset-name"),
            ("--wandb FILES", "--wandb"),
            ("--total-updates 0 FILES", "--total-updates"),
            ("--lr nan FILES", "--lr"),
            ("--lr 0 FILES", "--lr"),
            ("--beta1 1 FILES", "--beta1 1"),
            ("--beta2 nan FILES", "--beta2"),
            ("--weight-decay inf FILES", "--weight-decay"),
            ("--end-learning-rate nan FILES", "--end-learning-rate"),
            ("--dropout 1 FILES", "--dropout 1"),
        ] {
            let error = resolve(&line.replace("FILES", FILES)).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
