//! Damage to bytes of which nothing is known.

use crate::random::Random;

/// Changes of one input at most.
const MOST_CHANGES: usize = 6;
/// Bytes put in or repeated at once, at most.
const LONGEST_PIECE: usize = 64;
/// Numbers at which arithmetic breaks.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX as u64,
    i64::MIN as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// One of them.
pub(super) fn edge(random: &mut Random) -> u64 {
    EDGES[random.below(EDGES.len())]
}

/// One to some changes anywhere.
pub(super) fn changes(bytes: &mut Vec<u8>, lent: &[u8], random: &mut Random) {
    for _ in 0..=random.below(MOST_CHANGES) {
        change(bytes, lent, random);
    }
}

fn change(bytes: &mut Vec<u8>, lent: &[u8], random: &mut Random) {
    if bytes.is_empty() {
        bytes.push(random.next() as u8);
        return;
    }
    let at = random.below(bytes.len());
    let end = at + 1 + random.below(LONGEST_PIECE.min(bytes.len() - at));
    match random.below(9) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => number(bytes, random),
        3 => varint(bytes, at, random),
        4 => bytes.truncate(at),
        5 => _ = bytes.drain(at..end),
        6 => {
            let piece = bytes[at..end].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, piece);
        }
        7 => {
            let from = random.below(lent.len());
            let until = (from + 1 + random.below(LONGEST_PIECE)).min(lent.len());
            bytes.splice(at..at, lent[from..until].iter().copied());
        }
        _ => {
            let piece: Vec<u8> = (0..random.below(LONGEST_PIECE)).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, piece);
        }
    }
}

/// Writes a number at which arithmetic breaks over what is there, in 1, 2, 4 or 8 bytes of either order.
pub(super) fn number(bytes: &mut [u8], random: &mut Random) {
    let width = 1 << random.below(4);
    let value = edge(random);
    let value = if random.one_in(2) { value } else { value.wrapping_add(random.next() % 16).wrapping_sub(8) };
    let little = value.to_le_bytes();
    let mut written = little[..width].to_vec();
    if random.one_in(2) {
        written.reverse();
    }
    let at = random.below(bytes.len().saturating_sub(width - 1));
    for (to, byte) in bytes.iter_mut().skip(at).zip(written) {
        *to = byte;
    }
}

/// Puts a variable-length number, as postcard, protobuf and records have them, in the place of a byte.
fn varint(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let mut written = Vec::new();
    put_varint(&mut written, edge(random));
    bytes.splice(at..=at, written);
}

/// Appends a number, seven bits a byte, the lowest first.
pub(super) fn put_varint(bytes: &mut Vec<u8>, mut rest: u64) {
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}
