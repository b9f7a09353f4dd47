//! The learning rate of every update: linear warm-up, then polynomial decay.

use serde::{Deserialize, Serialize};

/// Linear warm-up and polynomial decay, as fairseq's `polynomial_decay`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Learning rate at the end of the warm-up.
    pub peak: f64,
    /// Learning rate after the last update.
    pub end: f64,
    pub power: f64,
    pub warmup_updates: u64,
    pub total_updates: u64,
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
        self.end + (self.peak - self.end) * (1.0 - progress).powf(self.power)
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn warms_up_then_decays_to_the_end() {
        let schedule = Schedule {
            peak: 1.0,
            end: 0.1,
            power: 2.0,
            warmup_updates: 4,
            total_updates: 14,
        };
        let lr: Vec<f64> = [1, 4, 9, 14, 20].map(|u| schedule.lr(u)).to_vec();
        assert_eq!(lr[..2], [0.25, 1.0]);
        assert!((lr[2] - (0.1 + 0.9 * 0.25)).abs() < 1e-12);
        assert_eq!(lr[3..], [0.1, 0.1]);
    }

    #[test]
    fn without_warm_up_the_first_update_has_the_peak_and_the_last_the_end() {
        let schedule = Schedule {
            peak: 1.0,
            end: 0.0,
            power: 1.0,
            warmup_updates: 0,
            total_updates: 5,
        };
        assert_eq!([1, 3, 5].map(|u| schedule.lr(u)), [1.0, 0.5, 0.0]);
    }
}
