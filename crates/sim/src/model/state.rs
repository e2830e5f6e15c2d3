//! A state of the search, in numbers.

use super::Bounds;
use super::step::{Happening, Step};

/// What may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) duplicates: u8,
    pub(super) timers: u8,
    pub(super) reconnects: u8,
    pub(super) kills: u8,
    pub(super) power_cuts: u8,
    pub(super) retries: u8,
    /// Records that were produced.
    pub(super) produced: u8,
}

impl Budget {
    pub(super) fn of(bounds: &Bounds) -> Budget {
        Budget {
            duplicates: bounds.duplicates,
            timers: bounds.timers,
            reconnects: bounds.reconnects,
            kills: bounds.kills,
            power_cuts: bounds.power_cuts,
            retries: bounds.retries,
            produced: 0,
        }
    }

    /// What is left after a step.
    pub(super) fn after(self, step: Step) -> Budget {
        let mut budget = self;
        let spent = match step.local.happening {
            Happening::Produced { again: false, .. } => {
                budget.produced += 1;
                None
            }
            Happening::Produced { again: true, .. } => Some(&mut budget.retries),
            Happening::Timer => Some(&mut budget.timers),
            Happening::Connected { .. } => Some(&mut budget.reconnects),
            Happening::Killed => Some(&mut budget.kills),
            Happening::PowerLost { .. } => Some(&mut budget.power_cuts),
            Happening::Told { .. } | Happening::Received { .. } | Happening::Flushed => None,
        };
        if let Some(left) = spent {
            *left = left.saturating_sub(1);
        }
        if step.repeats {
            budget.duplicates = budget.duplicates.saturating_sub(1);
        }
        if step.local.killed_after.is_some() {
            budget.kills = budget.kills.saturating_sub(1);
        }
        budget
    }

    fn packed(self) -> u64 {
        u64::from_le_bytes([
            self.duplicates,
            self.timers,
            self.reconnects,
            self.kills,
            self.power_cuts,
            self.retries,
            self.produced,
            0,
        ])
    }
}

/// The whole world, by the numbers of its parts.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) nodes: [u32; 4],
    pub(super) history: u32,
    pub(super) budget: Budget,
    /// Messages on their way, ascending.
    pub(super) network: Vec<u32>,
}

impl State {
    /// 128 bits that stand for the state: two states of a search are taken for the same if these are. Well mixed, the
    /// odds that any two of ten million states collide are below 10^-24.
    pub(super) fn fingerprint(&self) -> u128 {
        let mut hash = Fingerprint::default();
        for &node in &self.nodes {
            hash.write(node.into());
        }
        hash.write(self.history.into());
        hash.write(self.budget.packed());
        for &message in &self.network {
            hash.write(message.into());
        }
        hash.finish()
    }

    /// Puts a message on its way.
    pub(super) fn send(&mut self, message: u32) {
        if let Err(place) = self.network.binary_search(&message) {
            self.network.insert(place, message);
        }
    }

    /// Takes a message from its way.
    pub(super) fn take(&mut self, message: u32) {
        if let Ok(place) = self.network.binary_search(&message) {
            self.network.remove(place);
        }
    }
}

/// Two lanes of multiply and fold, each word into both.
struct Fingerprint([u64; 2]);

impl Default for Fingerprint {
    fn default() -> Self {
        Fingerprint([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344])
    }
}

impl Fingerprint {
    fn write(&mut self, word: u64) {
        let [one, other] = &mut self.0;
        *one = fold(*one ^ word, 0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ word;
        *other = fold(*other ^ word.rotate_left(32), 0xc2b2_ae3d_27d4_eb4f).wrapping_add(word);
    }

    fn finish(&self) -> u128 {
        let [one, other] = self.0;
        let ends = [fold(one ^ other, 0xd6e8_feb8_6659_fd93), fold(other, 0xa076_1d64_78bd_642f) ^ one];
        u128::from(ends[0]) << 64 | u128::from(ends[1])
    }
}

/// Both halves of the product, so that no bit of the word is lost at the top. The factor is odd.
fn fold(word: u64, factor: u64) -> u64 {
    let product = u128::from(word) * u128::from(factor);
    (product >> 64) as u64 ^ product as u64
}
