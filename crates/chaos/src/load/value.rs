//! What a record carries: a number that no other record of its partition has, and bytes to a fixed size.

use holdfast_checker::history::put_value;
use holdfast_client::Record;

/// Bytes of a probe, as `holdfast bench probe` sends them.
const SIZE: usize = 100;

/// A record with the number, for one partition.
pub(crate) fn record(value: u64, partition: u32) -> Record {
    let mut bytes = vec![b'p'; SIZE];
    // There is room: the size is a constant.
    let _ = put_value(&mut bytes, value);
    Record::new(bytes).with_partition(partition)
}
