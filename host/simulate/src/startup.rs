//! How long pods take from their creation until they are Ready.

use jiff::SignedDuration;

use crate::chance::Chance;

/// The standard normal distribution's 99th percentile.
const Z99: f64 = 2.326_347_9;

/// Start-up times: log-normal, with these quantiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Startup {
    /// Half of them take at most so long.
    pub p50: SignedDuration,
    /// Ninety-nine of a hundred.
    pub p99: SignedDuration,
}

impl Default for Startup {
    fn default() -> Self {
        Self { p50: SignedDuration::from_secs(20), p99: SignedDuration::from_secs(60) }
    }
}

impl Startup {
    /// The next one.
    pub fn draw(&self, chance: &mut Chance) -> SignedDuration {
        let (p50, p99) = (self.p50.as_secs_f64().max(0.001), self.p99.as_secs_f64());
        let spread = (p99.max(p50) / p50).ln() / Z99;
        let seconds = p50 * (spread * chance.normal()).exp();
        // The longest that is drawn is a day: nobody waits for more.
        SignedDuration::from_millis((seconds.min(86_400.0) * 1000.0).round() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_are_those_asked_for() {
        let mut chance = Chance::new(7);
        let startup = Startup::default();
        let mut drawn: Vec<i64> = (0..10_000).map(|_| startup.draw(&mut chance).as_secs()).collect();
        drawn.sort_unstable();
        assert!((19..=21).contains(&drawn[5_000]), "{}", drawn[5_000]);
        assert!((54..=66).contains(&drawn[9_900]), "{}", drawn[9_900]);
    }
}
