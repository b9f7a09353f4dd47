//! `pretrain-mpnet`: annotated-mpnet's flags and this program's own, checked and resolved.

use super::exit::{self, UsageError};
use super::hardware::HardwareArgs;
use super::presets::Preset;
use super::spelling::normalize;
use crate::train::config::{Architecture, TextFiles, TrainConfig};
use crate::train::run::run;
use crate::train::schedule::Schedule;
use crate::train::trainer::Ended;
use anyhow::Result;
use clap::Parser;
use clap::builder::PossibleValuesParser;
use mpnet_graphs::model::config::{Activation, ModelConfig};
use mpnet_graphs::optimizer::adamw::AdamW;
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
    /// Architecture that the flags below refine
    #[arg(long, value_enum, default_value_t = Preset::Base, help_heading = "Architecture")]
    pub preset: Preset,
    /// Encoder layers [default: the preset's]
    #[arg(long, help_heading = "Architecture")]
    pub encoder_layers: Option<usize>,
    /// Hidden width [default: the preset's]
    #[arg(long, help_heading = "Architecture")]
    pub encoder_embed_dim: Option<usize>,
    /// Width inside the feed-forward layers [default: the preset's]
    #[arg(long, help_heading = "Architecture")]
    pub encoder_ffn_dim: Option<usize>,
    /// Attention heads [default: the preset's]
    #[arg(long, help_heading = "Architecture")]
    pub encoder_attention_heads: Option<usize>,
    /// Dropout after the embeddings and each sublayer
    #[arg(long, default_value_t = 0.1, help_heading = "Architecture")]
    pub dropout: f32,
    /// Dropout of the attention probabilities
    #[arg(long, default_value_t = 0.1, help_heading = "Architecture")]
    pub attention_dropout: f32,
    /// Dropout after the feed-forward activation
    #[arg(long, default_value_t = 0.1, help_heading = "Architecture")]
    pub activation_dropout: f32,
    /// Positions of the model [default: --max-tokens]
    #[arg(long, help_heading = "Architecture")]
    pub max_positions: Option<usize>,
    /// Longest row, special tokens included [default: the preset's]
    #[arg(long, help_heading = "Architecture")]
    pub max_tokens: Option<usize>,
    /// Buckets of relative distances [default: from the length]
    #[arg(long, help_heading = "Architecture")]
    pub relative_attention_num_buckets: Option<usize>,
    /// Largest distance told apart [default: from the length]
    #[arg(long, help_heading = "Architecture")]
    pub relative_attention_max_distance: Option<usize>,
    /// Activation function
    #[arg(long, default_value = "gelu", help_heading = "Architecture",
        value_parser = PossibleValuesParser::new(Activation::ALL.map(Activation::name)))]
    pub activation_fn: String,
    /// Pre-LN instead of post-LN layers
    #[arg(long, help_heading = "Architecture")]
    pub normalize_before: bool,
    /// Recompute activations in the backward pass
    #[arg(long, help_heading = "Architecture")]
    pub gradient_checkpointing: bool,

    /// Tokenizer: a folder with tokenizer.json
    #[arg(long, default_value = "microsoft/mpnet-base", help_heading = "Data")]
    pub tokenizer_name: String,
    /// Folder of UTF-8 .txt files to train on, one text a line
    #[arg(long, help_heading = "Data")]
    pub train_dir: Option<PathBuf>,
    /// Text to validate on
    #[arg(long, help_heading = "Data")]
    pub valid_file: Option<PathBuf>,
    /// Text to test on at the end
    #[arg(long, help_heading = "Data")]
    pub test_file: Option<PathBuf>,
    /// Dataset on the HuggingFace Hub
    #[arg(long, help_heading = "Data")]
    pub dataset_name: Option<String>,
    /// Field of the text in a dataset
    #[arg(long, default_value = "text", help_heading = "Data")]
    pub text_field: String,
    /// Rows in the shuffle buffer of a dataset
    #[arg(long, default_value_t = 10_000, help_heading = "Data")]
    pub buffer_size: usize,
    /// Validation and test rows taken from a dataset
    #[arg(long, default_value_t = 500, help_heading = "Data")]
    pub eval_samples: usize,
    /// Shortest text of a dataset that is used, in characters
    #[arg(long, default_value_t = 64, help_heading = "Data")]
    pub min_text_length: usize,
    /// Threads that tokenize and mask; 0 takes half of the cores
    #[arg(long, default_value_t = 0, help_heading = "Data")]
    pub num_workers: usize,

    /// Updates to make
    #[arg(long, default_value_t = 10_000, help_heading = "Training")]
    pub total_updates: u64,
    /// Updates until the peak learning rate [default: a tenth of --total-updates]
    #[arg(long, help_heading = "Training")]
    pub warmup_updates: Option<u64>,
    /// Rows of a micro-batch
    #[arg(long, default_value_t = 16, help_heading = "Training")]
    pub batch_size: usize,
    /// Micro-batches of an update
    #[arg(long, default_value_t = 8, help_heading = "Training")]
    pub update_freq: usize,
    /// Peak learning rate
    #[arg(long, default_value_t = 6e-4, help_heading = "Training")]
    pub lr: f64,
    /// Learning rate after the last update
    #[arg(long, default_value_t = 0.0, help_heading = "Training")]
    pub end_learning_rate: f64,
    /// Power of the decay
    #[arg(long, default_value_t = 1.0, help_heading = "Training")]
    pub power: f64,
    #[arg(long, default_value_t = 0.9, help_heading = "Training")]
    pub beta1: f32,
    #[arg(long, default_value_t = 0.98, help_heading = "Training")]
    pub beta2: f32,
    #[arg(long, default_value_t = 1e-6, help_heading = "Training")]
    pub adam_eps: f32,
    #[arg(long, default_value_t = 0.01, help_heading = "Training")]
    pub weight_decay: f32,
    /// Largest norm of all gradients together; 0 clips nothing
    #[arg(long, default_value_t = 1.0, help_heading = "Training")]
    pub clip_grad_norm: f32,
    #[arg(long, default_value_t = 12_345, help_heading = "Training")]
    pub seed: u64,
    /// Accepted for annotated-mpnet's sake: the graph is always compiled
    #[arg(long, help_heading = "Training")]
    pub compile: bool,

    /// Folder of the checkpoints
    #[arg(long, default_value = "./checkpoints", help_heading = "Checkpoints")]
    pub checkpoint_dir: PathBuf,
    /// Updates between two checkpoints; -1 keeps only the best and the last
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, help_heading = "Checkpoints")]
    pub checkpoint_interval: i64,
    /// Checkpoints to keep, beside the best and the last; -1 keeps all
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, help_heading = "Checkpoints")]
    pub keep_checkpoints: i64,
    /// Accepted for annotated-mpnet's sake: the optimizer's state is always saved
    #[arg(long, help_heading = "Checkpoints")]
    pub save_optimizer_state: bool,
    /// Go on from the latest checkpoint of --checkpoint-dir
    #[arg(long, help_heading = "Checkpoints")]
    pub resume: bool,
    /// The checkpoint to resume from
    #[arg(long, requires = "resume", help_heading = "Checkpoints")]
    pub resume_checkpoint: Option<PathBuf>,
    /// Load a PyTorch checkpoint of doubtful origin
    #[arg(long, help_heading = "Checkpoints")]
    pub trust_checkpoint: bool,
    /// HuggingFace model to start from
    #[arg(long, conflicts_with = "resume", help_heading = "Checkpoints")]
    pub hf_model_path: Option<String>,

    /// Folder for TensorBoard
    #[arg(long, help_heading = "Logging")]
    pub tensorboard_log_dir: Option<PathBuf>,
    /// Updates between two log lines
    #[arg(long, default_value_t = 25, help_heading = "Logging")]
    pub logging_steps: u64,
    /// Updates between two validations [default: the checkpoint interval, else 5000]
    #[arg(long, allow_negative_numbers = true, help_heading = "Logging")]
    pub eval_interval_steps: Option<i64>,
    /// Log everything
    #[arg(long, help_heading = "Logging")]
    pub debug: bool,
    /// Log to Weights & Biases
    #[arg(long, help_heading = "Logging")]
    pub wandb: bool,
    #[arg(long, default_value = "annotated-mpnet", help_heading = "Logging")]
    pub wandb_project: String,
    #[arg(long, help_heading = "Logging")]
    pub wandb_name: Option<String>,
    #[arg(long, help_heading = "Logging")]
    pub wandb_id: Option<String>,
    #[arg(long, help_heading = "Logging")]
    pub wandb_watch: bool,

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
        [
            (self.dataset_name.is_some(), "--dataset-name"),
            (self.hf_model_path.is_some(), "--hf-model-path"),
            (self.trust_checkpoint, "--trust-checkpoint"),
            (self.gradient_checkpointing, "--gradient-checkpointing"),
            (self.tensorboard_log_dir.is_some(), "--tensorboard-log-dir"),
            (self.wandb, "--wandb"),
            (self.wandb_watch, "--wandb-watch"),
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
        let text = match (self.train_dir, self.valid_file, self.test_file) {
            (Some(train_dir), Some(valid_file), Some(test_file)) => TextFiles {
                train_dir,
                valid_file,
                test_file,
            },
            (None, None, None) => {
                return Err(UsageError(
                    "no text to train on: give --train-dir, --valid-file and --test-file".into(),
                ));
            }
            _ => {
                return Err(UsageError(
                    "--train-dir, --valid-file and --test-file go together: give all three".into(),
                ));
            }
        };
        let positive = |flag: &str, value: u64| {
            if value == 0 {
                return Err(UsageError(format!("{flag} must be at least 1")));
            }
            Ok(value)
        };
        let total = positive("--total-updates", self.total_updates)?;
        positive("--batch-size", self.batch_size as u64)?;
        positive("--update-freq", self.update_freq as u64)?;
        let sizes = self.preset.sizes();
        let max_tokens = self.max_tokens.unwrap_or(match self.max_positions {
            Some(positions) => sizes.max_tokens.min(positions),
            None => sizes.max_tokens,
        });
        let max_positions = self.max_positions.unwrap_or(max_tokens);
        if max_tokens > max_positions {
            return Err(UsageError(format!(
                "--max-tokens {max_tokens} is above --max-positions {max_positions}: the model would \
                 have no position for the last tokens of a row"
            )));
        }
        if max_tokens < 3 {
            return Err(UsageError(format!(
                "--max-tokens {max_tokens} leaves no room for text between <s> and </s>"
            )));
        }
        let width = self.encoder_embed_dim.unwrap_or(sizes.width);
        let heads = self.encoder_attention_heads.unwrap_or(sizes.heads);
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(UsageError(format!(
                "--encoder-attention-heads {heads} does not divide --encoder-embed-dim {width}"
            )));
        }
        let warmup = self.warmup_updates.unwrap_or(total / 10);
        if warmup > total {
            tracing::warn!(
                "--warmup-updates {warmup} is above --total-updates {total}: the run ends before its \
                 peak learning rate"
            );
        }
        for (flag, value) in [("--lr", self.lr), ("--power", self.power)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(UsageError(format!(
                    "{flag} {value} is not a positive number"
                )));
            }
        }
        for (flag, value) in [
            ("--end-learning-rate", self.end_learning_rate),
            ("--adam-eps", self.adam_eps.into()),
            ("--weight-decay", self.weight_decay.into()),
            ("--clip-grad-norm", self.clip_grad_norm.into()),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(UsageError(format!(
                    "{flag} {value} is not zero or a positive number"
                )));
            }
        }
        for (flag, value) in [
            ("--dropout", self.dropout),
            ("--attention-dropout", self.attention_dropout),
            ("--activation-dropout", self.activation_dropout),
            ("--beta1", self.beta1),
            ("--beta2", self.beta2),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(UsageError(format!(
                    "{flag} {value} is not at least 0 and below 1"
                )));
            }
        }
        let interval = u64::try_from(self.checkpoint_interval)
            .ok()
            .filter(|&n| n > 0);
        let eval_interval = match self.eval_interval_steps {
            Some(n) => u64::try_from(n).ok().filter(|&n| n > 0).unwrap_or(total),
            None => interval.unwrap_or(5000),
        };
        let activation_fn = Activation::from_name(&self.activation_fn).ok_or_else(|| {
            UsageError(format!("there is no activation '{}'", self.activation_fn))
        })?;
        Ok(TrainConfig {
            architecture: Architecture {
                encoder_layers: self.encoder_layers.unwrap_or(sizes.layers),
                encoder_embed_dim: width,
                encoder_ffn_dim: self.encoder_ffn_dim.unwrap_or(sizes.ffn),
                encoder_attention_heads: heads,
                activation_fn,
                normalize_before: self.normalize_before,
                max_positions,
                relative_attention_num_buckets: self
                    .relative_attention_num_buckets
                    .unwrap_or_else(|| ModelConfig::default_num_buckets(max_positions)),
                relative_attention_max_distance: self
                    .relative_attention_max_distance
                    .unwrap_or_else(|| ModelConfig::default_max_distance(max_positions)),
                dropout: self.dropout,
                attention_dropout: self.attention_dropout,
                activation_dropout: self.activation_dropout,
            },
            tokenizer: self.tokenizer_name,
            text,
            max_tokens,
            batch_size: self.batch_size,
            update_freq: self.update_freq,
            data_threads: self.num_workers,
            schedule: Schedule {
                peak: self.lr,
                end: self.end_learning_rate,
                power: self.power,
                warmup_updates: warmup,
                total_updates: total,
            },
            optimizer: AdamW {
                beta1: self.beta1,
                beta2: self.beta2,
                epsilon: self.adam_eps,
                weight_decay: self.weight_decay,
                clip_grad_norm: self.clip_grad_norm,
            },
            seed: self.seed,
            checkpoint_dir: self.checkpoint_dir,
            checkpoint_interval: interval,
            keep_checkpoints: usize::try_from(self.keep_checkpoints).ok(),
            eval_interval,
            logging_steps: self.logging_steps.max(1),
            resume: self
                .resume
                .then_some(self.resume_checkpoint)
                .map(Option::unwrap_or_default),
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
    exit::init_logging(args.debug);
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
