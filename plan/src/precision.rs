//! The arithmetic of a training step.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Arithmetic of a step. Parameters, accumulated gradients, the loss and the optimizer are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Precision {
    /// f32 throughout.
    #[default]
    #[serde(rename = "fp32")]
    F32,
    /// Matrix products and activations in bf16.
    #[serde(rename = "bf16")]
    BF16,
    /// Matrix products and activations in f16; the loss has to be scaled up.
    #[serde(rename = "fp16")]
    F16,
}

impl Precision {
    /// Every precision, in the order in which help texts list them.
    pub const ALL: &[Self] = &[Self::F32, Self::BF16, Self::F16];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "fp32",
            Self::BF16 => "bf16",
            Self::F16 => "fp16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that is no precision's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no precision '{name}'; there are: {}", names().join(", "))]
pub struct UnknownPrecision {
    /// The name given.
    pub name: String,
}

fn names() -> Vec<&'static str> {
    Precision::ALL.iter().map(|p| p.name()).collect()
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        Self::ALL
            .iter()
            .copied()
            .find(|precision| precision.name() == name)
            .ok_or_else(|| UnknownPrecision {
                name: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for &precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        let error = "fp8".parse::<Precision>().unwrap_err().to_string();
        assert!(error.contains("'fp8'") && error.contains("bf16"), "{error}");
    }
}
