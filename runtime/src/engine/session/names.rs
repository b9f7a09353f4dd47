//! How the session engine's models call their values.

use super::Slot;

/// Names that the maker of the models chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionNames {
    /// The step's input that scales the loss.
    pub loss_scale: String,
    /// The step's output that this scales.
    pub loss: String,
    /// Before the name of a parameter: its gradient among the step's outputs, where it is one.
    pub exposed_gradient_prefix: String,
    /// The optimizer's output with the norm of the gradients.
    pub gradient_norm: String,
    /// The optimizer's scalars: `lr / (1 − β1^t)`.
    pub step_size: String,
    /// `1 − lr · weight_decay`
    pub decay: String,
    /// `1 / √(1 − β2^t)`
    pub second_correction: String,
    /// What gradients are to be multiplied by.
    pub gradient_scale: String,
    /// What the clearing model fills gradients with.
    pub zero: String,
    /// Before the name of a parameter: its gradient in the step.
    pub gradient_prefix: String,
    /// After the name of a value: the one that replaces it.
    pub new_suffix: String,
    /// `{}` stands for the index, before the kind: the vectors of a segment.
    pub segment_prefix: String,
    /// A segment's parameters.
    pub parameters: String,
    /// A segment's gradients.
    pub gradients: String,
    /// A segment's running means.
    pub first_moments: String,
    /// A segment's running means of squares.
    pub second_moments: String,
    /// Input and output of the copying model.
    pub copy: (String, String),
}

impl SessionNames {
    /// The gradient of a parameter.
    pub(super) fn gradient(&self, parameter: &str) -> String {
        format!("{}{parameter}", self.gradient_prefix)
    }

    /// What replaces a value.
    pub(super) fn replacement(&self, name: &str) -> String {
        format!("{name}{}", self.new_suffix)
    }

    /// A vector of a segment.
    pub(super) fn segment(&self, index: usize, kind: &str) -> String {
        let prefix = self.segment_prefix.replace("{}", &index.to_string());
        format!("{prefix}{kind}")
    }

    /// Whether the name is a parameter's, or that of a parameter's gradient, old or new.
    pub(super) fn is_bound(&self, name: &str, parameters: &[Slot]) -> bool {
        let name = name.strip_suffix(&self.new_suffix).unwrap_or(name);
        let name = name.strip_prefix(&self.gradient_prefix).unwrap_or(name);
        parameters.iter().any(|slot| slot.name == name)
    }
}
