//! Numbers from a seed: the same ones for the same seed is all that they must be.

/// xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From the environment's `SEED`, else the given one; it is printed, so that a failure can be repeated.
    pub fn from_environment(or: u64) -> Self {
        let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(or);
        println!("SEED={seed}");
        Self(seed)
    }

    /// A number below the limit, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}
