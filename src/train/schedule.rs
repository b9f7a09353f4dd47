//! The learning rate of every update: linear warm-up, then a decay. It is a function of the update alone,
//! so that a resumed run needs no state of it.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the learning rate goes from its peak to its end, as a function of the share of the way gone, 0
/// to 1.
///
/// A further one is a variant here, with its two lines below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// By the power --power of what is left of the way: fairseq's, and a line where the power is 1
    #[default]
    Polynomial,
    /// Along half a cosine wave
    Cosine,
    /// Along a straight line
    Linear,
    /// Stay at the peak
    Constant,
}

/// Which values of a [`Schedule`] its decay depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reads {
    pub end: bool,
    pub power: bool,
}

impl Decay {
    /// What it depends on, beside the share of the way.
    pub fn reads(self) -> Reads {
        let (end, power) = match self {
            Decay::Polynomial => (true, true),
            Decay::Cosine | Decay::Linear => (true, false),
            Decay::Constant => (false, false),
        };
        Reads { end, power }
    }

    /// What is left of the difference between peak and end, 1 to 0, where `progress` of the way is gone.
    fn left(self, progress: f64, power: f64) -> f64 {
        match self {
            Decay::Polynomial => (1.0 - progress).powf(power),
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Decay::Linear => 1.0 - progress,
            Decay::Constant => 1.0,
        }
    }
}

/// Linear warm-up and a decay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Learning rate at the end of the warm-up.
    pub peak: f64,
    /// Learning rate of the last update.
    pub end: f64,
    /// Of the polynomial decay.
    pub power: f64,
    /// Updates up to the peak.
    pub warmup_updates: u64,
    /// Updates of the run.
    pub total_updates: u64,
    /// Checkpoints that don't say have the only one there was.
    #[serde(default)]
    pub decay: Decay,
}

impl Schedule {
    /// Learning rate of `update`, counted from 1.
    pub fn lr(&self, update: u64) -> f64 {
        if update <= self.warmup_updates {
            return self.peak * update as f64 / self.warmup_updates as f64;
        }
        let (done, all) = match self.warmup_updates {
            0 => (update - 1, self.total_updates.saturating_sub(1)),
            warmup => (update - warmup, self.total_updates.saturating_sub(warmup)),
        };
        let progress = if all == 0 {
            1.0
        } else {
            (done as f64 / all as f64).min(1.0)
        };
        self.end + (self.peak - self.end) * self.decay.left(progress, self.power)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        peak: 1.0,
        end: 0.1,
        power: 2.0,
        warmup_updates: 4,
        total_updates: 14,
        decay: Decay::Polynomial,
    };

    #[test]
    fn warms_up_then_decays_to_the_end() {
        let lr: Vec<f64> = [1, 4, 9, 14, 20].map(|u| SCHEDULE.lr(u)).to_vec();
        assert_eq!(lr[..2], [0.25, 1.0]);
        assert!((lr[2] - (0.1 + 0.9 * 0.25)).abs() < 1e-12);
        assert_eq!(lr[3..], [0.1, 0.1]);
    }

    #[test]
    fn without_warm_up_the_first_update_has_the_peak_and_the_last_the_end() {
        for decay in [Decay::Polynomial, Decay::Cosine, Decay::Linear] {
            let schedule = Schedule {
                end: 0.0,
                power: 1.0,
                warmup_updates: 0,
                total_updates: 5,
                decay,
                ..SCHEDULE
            };
            let found = [1, 3, 5].map(|u| schedule.lr(u));
            for (found, expected) in found.into_iter().zip([1.0, 0.5, 0.0]) {
                assert!((found - expected).abs() < 1e-15, "{decay:?}: {found}");
            }
        }
    }

    #[test]
    fn every_decay_warms_up_alike_and_a_constant_one_stays() {
        for &decay in Decay::value_variants() {
            let schedule = Schedule { decay, ..SCHEDULE };
            assert_eq!([1, 2, 3, 4].map(|u| schedule.lr(u)), [0.25, 0.5, 0.75, 1.0]);
            let later = [5, 9, 14, 1000].map(|u| schedule.lr(u));
            if decay == Decay::Constant {
                assert_eq!(later, [1.0; 4]);
            } else {
                assert!(later.is_sorted_by(|a, b| a >= b), "{decay:?}: {later:?}");
                assert!((later[3] - 0.1).abs() < 1e-15, "{decay:?}");
            }
        }
    }

    #[test]
    fn a_schedule_saved_without_a_decay_is_polynomial() {
        let saved = r#"{"peak":1.0,"end":0.1,"power":2.0,"warmup_updates":4,"total_updates":14}"#;
        assert_eq!(serde_json::from_str::<Schedule>(saved).unwrap(), SCHEDULE);
    }
}
