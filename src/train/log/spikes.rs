//! Sudden rises of the loss.

/// Updates that the mean looks back on: few, so that a loss that falls fast does not count as noise.
const MEMORY: f64 = 20.0;
/// Updates before the first report.
const ENOUGH: u64 = 50;
/// Standard deviations above the mean that make a spike.
const DEVIATIONS: f64 = 6.0;
/// And bits or nats at least.
const LEAST: f64 = 0.5;

/// A running mean and variance of the loss.
#[derive(Debug, Clone, Default)]
pub struct Spikes {
    seen: u64,
    mean: f64,
    variance: f64,
}

impl Spikes {
    /// Takes note of an update's loss; the mean before it where it is a spike.
    pub fn spike(&mut self, loss: f64) -> Option<f64> {
        let (mean, above) = (self.mean, loss - self.mean);
        let limit = (DEVIATIONS * self.variance.sqrt()).max(LEAST);
        let spike = self.seen >= ENOUGH && above > limit;
        self.seen += 1;
        // Few updates are averaged plainly.
        let weight = 1.0 / MEMORY.min(self.seen as f64);
        self.mean += weight * above;
        self.variance = (1.0 - weight) * (self.variance + weight * above * above);
        spike.then_some(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::Spikes;

    #[test]
    fn a_jump_is_a_spike_and_noise_or_a_slow_change_is_not() {
        let mut spikes = Spikes::default();
        for i in 0..400 {
            let loss = 12.0 - 0.01 * f64::from(i) + 0.1 * f64::from(i % 3);
            assert_eq!(spikes.spike(loss), None, "update {i}");
        }
        let mean = spikes.spike(11.0).unwrap();
        assert!((8.0..9.5).contains(&mean), "{mean}");
        assert_eq!(Spikes::default().spike(100.0), None, "nothing to compare");
    }
}
