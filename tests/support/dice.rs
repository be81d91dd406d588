//! Random choices that can be repeated.

use std::time::SystemTime;

/// A seeded generator (splitmix64: Steele, Lea, Flood, OOPSLA 2014). Not for secrets.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Seeded from `FANFARE_TEST_SEED`, else from the clock; prints the seed, which cargo shows when
    /// the test fails.
    pub fn from_environment() -> Self {
        let seed = std::env::var("FANFARE_TEST_SEED").map_or_else(
            |_| {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                now.unwrap().as_nanos() as u64
            },
            |seed| seed.parse().expect("FANFARE_TEST_SEED is not a number"),
        );
        println!("to repeat: FANFARE_TEST_SEED={seed}");
        Self(seed)
    }

    /// The generator of this seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is at least 1. Slightly uneven for huge bounds.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// So many random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.bits() as u8).collect()
    }

    /// One of `choices`, which is not empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// A valid Solana address: base58 of 32 bytes.
    pub fn wallet(&mut self) -> String {
        bs58::encode(self.bytes(32)).into_string()
    }
}
