//! Tables whose keys came out of a keyed hash: hashing them again would buy nothing, and nobody outside
//! can aim for a collision.

use std::hash::{BuildHasherDefault, Hasher};

/// For a `HashMap<u64, _>`.
pub type Prehashed = BuildHasherDefault<Identical>;

/// Gives a `u64` back as its own hash.
#[derive(Debug, Default, Clone, Copy)]
pub struct Identical(u64);

impl Hasher for Identical {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
