//! The flags of what is predicted, and from what.

use crate::cli::exit::UsageError;
use crate::cli::values::{count, share};
use crate::data::Masking;
use crate::train::flags::Effect;
use clap::Args;
use clap::builder::PossibleValuesParser;
use mpnet_graphs::model::Objective;

/// The objective and the masking, microsoft/MPNet's options.
#[derive(Debug, Args)]
#[command(next_help_heading = "Masking")]
pub struct MaskingArgs {
    /// Train like this: mpnet masks and permutes, plm permutes alone, mlm masks alone
    #[arg(long, value_name = "MODE", default_value = "mpnet",
        value_parser = PossibleValuesParser::new(["mpnet", "plm", "mlm"]),
        add = Effect::Updates(&["masking.input_mode"]))]
    pub input_mode: String,
    /// Add the loss of the content stream's masks (mpnet)
    #[arg(long, add = Effect::Updates(&["masking.return_mlm"]))]
    pub return_mlm: bool,
    /// Share of the tokens that is predicted, above 0
    #[arg(long, value_name = "SHARE", default_value_t = Masking::default().pred_prob,
        value_parser = share, add = Effect::Updates(&["masking.pred_prob"]))]
    pub pred_prob: f64,
    /// Share of the predicted tokens that is shown as it is (mpnet, mlm) [default: 0.1]
    #[arg(long, value_name = "SHARE", value_parser = share,
        add = Effect::Updates(&["masking.keep_prob"]))]
    pub keep_prob: Option<f64>,
    /// Share of the predicted tokens that is shown as another token (mpnet, mlm) [default: 0.1]
    #[arg(long, value_name = "SHARE", value_parser = share,
        add = Effect::Updates(&["masking.rand_prob"]))]
    pub rand_prob: Option<f64>,
    /// Predict single tokens rather than whole words
    #[arg(long, add = Effect::Updates(&["masking.whole_words"]))]
    pub no_whole_word_mask: bool,
    /// Predict up to this many consecutive words together
    #[arg(long, value_name = "N", default_value_t = Masking::default().max_gram,
        value_parser = count::<usize>, add = Effect::Updates(&["masking.max_gram"]))]
    pub max_gram: usize,
}

impl MaskingArgs {
    /// The masking.
    ///
    /// # Errors
    /// Where flags contradict each other.
    pub fn resolve(&self) -> Result<Masking, UsageError> {
        let mode = &self.input_mode;
        let objective = Objective::of(mode, self.return_mlm).ok_or_else(|| {
            UsageError(format!(
                "--return-mlm adds a loss to mpnet's: leave it out with --input-mode {mode}"
            ))
        })?;
        let shown = self.keep_prob.or(self.rand_prob);
        if objective == Objective::Plm && shown.is_some() {
            return Err(UsageError(
                "--input-mode plm shows the mask alone: leave out --keep-prob and --rand-prob"
                    .into(),
            ));
        }
        let usual = Masking::default();
        let masking = Masking {
            objective,
            pred_prob: self.pred_prob,
            keep_prob: self.keep_prob.unwrap_or(usual.keep_prob),
            rand_prob: self.rand_prob.unwrap_or(usual.rand_prob),
            whole_words: !self.no_whole_word_mask,
            max_gram: self.max_gram,
        };
        match masking.problem() {
            Some(problem) => Err(UsageError(problem)),
            None => Ok(masking),
        }
    }
}
