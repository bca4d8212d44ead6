//! Chance that follows from a seed (SplitMix64): the same on every machine and in every release.

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A wait of a process that happens so often in a second, in seconds.
    pub fn wait(&mut self, per_second: f64) -> f64 {
        -(1.0 - self.share()).ln() / per_second
    }

    /// From a normal distribution with mean 0 and deviation 1 (Box and Muller's transform).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.share()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_what_they_should_be() {
        let mut chance = Chance::new(1);
        let mean = |mut of: Box<dyn FnMut() -> f64>| (0..20_000).map(|_| of()).sum::<f64>() / 20_000.0;
        let mut other = chance.clone();
        assert!((mean(Box::new(move || other.wait(0.5))) - 2.0).abs() < 0.05);
        let mut other = chance.clone();
        assert!(mean(Box::new(move || other.normal())).abs() < 0.03);
        assert!((0.0..1.0).contains(&chance.share()));
    }
}
