//! A running digest of everything that happens: two runs of a seed must end with the same one.

use std::hash::Hasher;

/// FNV-1a over whatever is hashed into it. Not std's hasher, whose result may change between versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
