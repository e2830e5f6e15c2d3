//! The last offset of each key, in memory that is bounded from the begin.
//!
//! A key is known by 128 bits: two SipHash values under keys that this process drew. Two keys with the same bits would count as
//! one, and the earlier record of the two would go: among the 2.8 million keys of 64 MiB that has a chance of one in 10^25.

use std::hash::{BuildHasher, RandomState};

use holdfast_core::Offset;

/// Bytes of a place in the table.
const PLACE: usize = size_of::<Place>();
/// Of so many places no more than so many are taken: looking for one stays short.
const LOAD: (usize, usize) = (4, 5);

/// Hash and offset of a key. The offset is one more than it is, so that zeros are an empty place.
type Place = [u64; 3];

/// Open addressing with linear probing. Nothing is removed.
pub(super) struct KeyMap {
    hashers: [RandomState; 2],
    places: Vec<Place>,
    taken: usize,
    most: usize,
}

impl KeyMap {
    /// For as many of `keys` as fit `bytes`, but for one at least.
    pub(super) fn new(bytes: usize, keys: u64) -> KeyMap {
        let keys = usize::try_from(keys).unwrap_or(usize::MAX);
        let wanted = keys.saturating_mul(LOAD.1) / LOAD.0;
        let places = (bytes / PLACE).min(wanted.saturating_add(2)).max(2);
        let most = (places / LOAD.1 * LOAD.0).clamp(1, places - 1);
        let hashers = [RandomState::new(), RandomState::new()];
        KeyMap { hashers, places: vec![[0; 3]; places], taken: 0, most }
    }

    /// `key` is at `offset`, which is higher than all before. False if it does not fit any more; nothing is changed then.
    pub(super) fn insert(&mut self, key: &[u8], offset: Offset) -> bool {
        let (hash, number) = self.find(key);
        let [.., known] = &mut self.places[number];
        if *known == 0 {
            if self.taken == self.most {
                return false;
            }
            self.taken += 1;
        }
        self.places[number] = [hash[0], hash[1], offset.0 + 1];
        true
    }

    /// The last offset of `key`; `None` if it was not inserted.
    pub(super) fn last(&self, key: &[u8]) -> Option<Offset> {
        let (_, number) = self.find(key);
        self.places[number][2].checked_sub(1).map(Offset)
    }

    /// Where it is, or would be. There always is an empty place.
    fn find(&self, key: &[u8]) -> ([u64; 2], usize) {
        let hash = [self.hashers[0].hash_one(key), self.hashers[1].hash_one(key)];
        // The high half of a product: even for any number of places.
        let mut number = ((u128::from(hash[0]) * self.places.len() as u128) >> 64) as usize;
        loop {
            let [first, second, known] = self.places[number];
            if known == 0 || [first, second] == hash {
                return (hash, number);
            }
            number = (number + 1) % self.places.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> [u8; 8] {
        number.to_be_bytes()
    }

    #[test]
    fn the_last_offset_of_each_key_is_found() {
        let mut map = KeyMap::new(1 << 20, 1000);
        for offset in 0..1000 {
            assert!(map.insert(&key(offset % 300), Offset(offset)));
        }
        for number in 0..300 {
            let last = if number < 100 { 900 + number } else { 600 + number };
            assert_eq!(map.last(&key(number)), Some(Offset(last)));
        }
        assert_eq!(map.last(&key(300)), None);
        assert_eq!(map.last(b""), None);
        assert!(map.insert(b"", Offset(1000)));
        assert_eq!(map.last(b""), Some(Offset(1000)));
    }

    #[test]
    fn a_full_map_takes_no_other_key_and_forgets_none() {
        for bytes in [0, 1, PLACE * 2, PLACE * 10, PLACE * 99] {
            let mut map = KeyMap::new(bytes, u64::MAX);
            assert!(map.places.len() * PLACE <= bytes.max(2 * PLACE));
            let fitting = (0..1000).take_while(|number| map.insert(&key(*number), Offset(*number))).count();
            assert!(fitting >= 1.max(bytes / PLACE * 3 / 4), "{fitting} of {bytes} bytes");
            assert!(!map.insert(&key(5000), Offset(5000)));
            assert!(map.insert(&key(0), Offset(5000)));
            assert_eq!(map.last(&key(0)), Some(Offset(5000)));
            assert_eq!(map.last(&key(5000)), None);
        }
    }

    #[test]
    fn no_more_is_taken_than_there_may_be_keys() {
        assert!(KeyMap::new(usize::MAX, 100).places.len() < 130);
        assert!(KeyMap::new(usize::MAX, 0).places.len() < 4);
    }
}
