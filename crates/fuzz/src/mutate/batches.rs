//! Damage to one of the record batches that stand end to end.

use bytes::Bytes;
use holdfast_core::record_batch::{Compression, HEADER_LEN, RecordBatch};
use holdfast_proto::compression::{compress, decompress};

use super::bytes::{changes, number};
use crate::mend;
use crate::random::Random;

/// A record section is decompressed up to this, to be changed inside.
const LARGEST_SECTION: usize = 1 << 20;
const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// Changes one batch: its header, or its records behind their compression.
pub(super) fn batches(bytes: &mut Vec<u8>, lent: &[u8], random: &mut Random) {
    let ranges = mend::batches(bytes);
    let Some(range) = random.pick(&ranges).cloned() else { return changes(bytes, lent, random) };
    let mut batch = bytes[range.clone()].to_vec();
    match random.below(3) {
        0 => {
            // A header never changes its length: the records would move into it.
            let mut head = batch[..HEADER_LEN].to_vec();
            number(&mut head, random);
            batch[..HEADER_LEN].copy_from_slice(&head[..HEADER_LEN]);
        }
        1 => {
            let mut section = batch.split_off(HEADER_LEN);
            changes(&mut section, lent, random);
            batch.extend_from_slice(&section);
        }
        _ => batch = records(batch, lent, random),
    }
    mend::batch(&mut batch);
    bytes.splice(range, batch);
}

/// Changes records as they are without compression, and compresses them again, perhaps otherwise.
fn records(batch: Vec<u8>, lent: &[u8], random: &mut Random) -> Vec<u8> {
    let Ok(whole) = RecordBatch::check_crc(Bytes::from(batch.clone())) else { return batch };
    let codec = whole.header().compression();
    let Ok(section) = decompress(codec, whole.section(), LARGEST_SECTION) else { return batch };
    let mut section = section.to_vec();
    changes(&mut section, lent, random);
    let codec = if random.one_in(2) { codec } else { CODECS[random.below(CODECS.len())] };
    let Ok(packed) = compress(codec, &section) else { return batch };
    let mut changed = batch[..HEADER_LEN].to_vec();
    changed[22] = (changed[22] & !0x07) | codec as u8;
    changed.extend_from_slice(&packed);
    changed
}
