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

    /// `get_*_schedule_with_warmup` of transformers 4, whose factor of a number of steps is ours of that update
    /// (`num_cycles` 0.5, as is the default there).
    #[test]
    fn with_warm_up_the_rates_are_those_of_transformers() {
        let (warmup, total) = (7.0, 50.0);
        let factor = |decay: Decay, step: f64| -> f64 {
            if step < warmup {
                return step / warmup;
            }
            let progress = (step - warmup) / (total - warmup);
            match decay {
                Decay::Constant => 1.0,
                Decay::Linear => (total - step) / (total - warmup),
                Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * 0.5 * 2.0 * progress).cos()),
                // With lr_end 1e-5 of a peak of 2e-3, and power 3.
                Decay::Polynomial => {
                    let remaining = 1.0 - progress;
                    ((2e-3 - 1e-5) * remaining.powi(3) + 1e-5) / 2e-3
                }
            }
        };
        for &decay in Decay::value_variants() {
            let end = if decay == Decay::Polynomial {
                1e-5
            } else {
                0.0
            };
            let schedule = Schedule {
                peak: 2e-3,
                end,
                power: 3.0,
                warmup_updates: 7,
                total_updates: 50,
                decay,
            };
            for update in 1..=50 {
                let expected = 2e-3 * factor(decay, update as f64);
                let found = schedule.lr(update);
                assert!(
                    (found - expected).abs() < 1e-15,
                    "{decay:?} {update}: {found} {expected}"
                );
            }
        }
    }

    /// PyTorch's `CosineAnnealingLR`, `LinearLR` and `PolynomialLR`, step by step as it computes them from the
    /// rate before.
    #[test]
    fn without_warm_up_the_rates_are_those_of_pytorch() {
        let (peak, end, power, all) = (2e-3, 1e-5, 3.0, 40.0);
        let next = |decay: Decay, before: f64, t: f64| -> f64 {
            let half_wave = |t: f64| 1.0 + (std::f64::consts::PI * t / all).cos();
            match decay {
                Decay::Constant => before,
                Decay::Cosine => half_wave(t) / half_wave(t - 1.0) * (before - end) + end,
                Decay::Linear => {
                    let change = end / peak - 1.0;
                    before * (1.0 + change / (all + (t - 1.0) * change))
                }
                // Which ends at 0.
                Decay::Polynomial => {
                    before * ((1.0 - t / all) / (1.0 - (t - 1.0) / all)).powf(power)
                }
            }
        };
        for &decay in Decay::value_variants() {
            let schedule = Schedule {
                peak,
                end: if decay == Decay::Polynomial { 0.0 } else { end },
                power,
                warmup_updates: 0,
                total_updates: 41,
                decay,
            };
            let mut expected = peak;
            for update in 1..=41 {
                if update > 1 {
                    expected = next(decay, expected, (update - 1) as f64);
                }
                let found = schedule.lr(update);
                assert!(
                    (found - expected).abs() < 1e-14,
                    "{decay:?} {update}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_schedule_saved_without_a_decay_is_polynomial() {
        let saved = r#"{"peak":1.0,"end":0.1,"power":2.0,"warmup_updates":4,"total_updates":14}"#;
        assert_eq!(serde_json::from_str::<Schedule>(saved).unwrap(), SCHEDULE);
    }
}
