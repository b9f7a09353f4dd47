//! What a model is trained to predict, and from what: the input modes of microsoft/MPNet.

use serde::{Deserialize, Serialize};

/// A pretraining objective. All have the same parameters.
///
/// It is written as the original's options `input_mode` and `return_mlm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(try_from = "Spelling", into = "Spelling")]
pub enum Objective {
    /// Masked and permuted language modelling: the predicted tokens in permuted order, each from the
    /// tokens before it and the masks of itself and of those after it.
    #[default]
    Mpnet,
    /// [`Objective::Mpnet`], and the same tokens once more from the content stream's masks: the loss
    /// is the sum of both.
    MpnetMlm,
    /// Permuted language modelling: each predicted token from the tokens before it alone.
    Plm,
    /// Masked language modelling, in a single stream.
    Mlm,
}

impl Objective {
    /// Every objective.
    pub const ALL: [Objective; 4] = [
        Objective::Mpnet,
        Objective::MpnetMlm,
        Objective::Plm,
        Objective::Mlm,
    ];

    /// The original's options, `input_mode` and `return_mlm`.
    pub fn options(self) -> (&'static str, bool) {
        match self {
            Objective::Mpnet => ("mpnet", false),
            Objective::MpnetMlm => ("mpnet", true),
            Objective::Plm => ("plm", false),
            Objective::Mlm => ("mlm", false),
        }
    }

    /// The objective of an input mode (microsoft/MPNet's names), if it has that joint loss.
    pub fn of(input_mode: &str, return_mlm: bool) -> Option<Objective> {
        Objective::ALL
            .into_iter()
            .find(|objective| objective.options() == (input_mode, return_mlm))
    }

    /// How often a row's predicted tokens stand behind it once more, masked: a batch has
    /// `L + copies · P` columns.
    pub fn copies(self) -> usize {
        match self {
            Objective::Mpnet | Objective::MpnetMlm => 2,
            Objective::Plm => 1,
            Objective::Mlm => 0,
        }
    }
}

/// An objective as files spell it.
#[derive(Serialize, Deserialize)]
struct Spelling {
    #[serde(default = "default_mode")]
    input_mode: String,
    #[serde(default)]
    return_mlm: bool,
}

/// Files that don't say are MPNet's.
fn default_mode() -> String {
    Objective::default().options().0.to_owned()
}

impl TryFrom<Spelling> for Objective {
    type Error = String;

    fn try_from(spelling: Spelling) -> Result<Objective, String> {
        let Spelling {
            input_mode,
            return_mlm,
        } = spelling;
        Objective::of(&input_mode, return_mlm).ok_or_else(|| {
            format!(
                "there is no input_mode '{input_mode}' with return_mlm {return_mlm}: the modes are mpnet, \
                 plm and mlm, and return_mlm goes with mpnet"
            )
        })
    }
}

impl From<Objective> for Spelling {
    fn from(objective: Objective) -> Spelling {
        let (input_mode, return_mlm) = objective.options();
        Spelling {
            input_mode: input_mode.to_owned(),
            return_mlm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_has_its_objective_and_mpnet_alone_a_joint_loss() {
        let of = Objective::of;
        assert_eq!(of("mpnet", false), Some(Objective::Mpnet));
        assert_eq!(of("mpnet", true), Some(Objective::MpnetMlm));
        assert_eq!(of("plm", false), Some(Objective::Plm));
        assert_eq!(of("mlm", false), Some(Objective::Mlm));
        assert_eq!(
            [of("plm", true), of("mlm", true), of("clm", false)],
            [None; 3]
        );
        assert_eq!(Objective::ALL.map(Objective::copies), [2, 2, 1, 0]);
    }
}
