//! What a record carries: a number that no other record of its partition has, and bytes that follow from it. So whoever
//! reads it can tell whether it is what was sent, without having kept that.

use holdfast_checker::history::{put_value, value_of};
use holdfast_client::Record;

/// Bytes of a probe, as `holdfast bench probe` sends them.
pub(crate) const SIZE: usize = 100;

/// A record with the number, for one partition.
pub(crate) fn record(value: u64, partition: u32, size: usize) -> Record {
    Record::new(bytes_of(value, partition, size)).with_partition(partition)
}

fn bytes_of(value: u64, partition: u32, size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = filling(value, partition).take(size).collect();
    // There is room: sizes are constants.
    let _ = put_value(&mut bytes, value);
    bytes
}

/// The number of a record that is what was sent, byte for byte.
pub(crate) fn unchanged(bytes: &[u8], partition: u32) -> Option<u64> {
    let value = value_of(bytes)?;
    let behind = size_of::<u64>();
    let same =
        bytes.iter().skip(behind).copied().eq(filling(value, partition).take(bytes.len()).skip(behind));
    same.then_some(value)
}

/// Bytes without end that no two records share, and that do not compress (SplitMix64).
fn filling(value: u64, partition: u32) -> impl Iterator<Item = u8> {
    let mut state = value ^ (u64::from(partition) << 48);
    let mut word = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    std::iter::repeat_with(move || word().to_be_bytes()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record is known again, and with any bit turned, in another partition or with another's end it is not.
    #[test]
    fn a_record_that_was_changed_is_known_as_such() {
        let good = bytes_of(42, 7, SIZE);
        assert_eq!((good.len(), unchanged(&good, 7)), (SIZE, Some(42)));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unchanged(&bad, 7), None, "bit {bit}");
        }
        assert_eq!(unchanged(&good, 8), None);
        let spliced = [&good[..50], &bytes_of(43, 7, SIZE)[50..]].concat();
        assert_eq!(unchanged(&spliced, 7), None);
        assert_eq!(unchanged(&good[..4], 7), None);
    }
}
