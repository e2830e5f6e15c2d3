//! Damage to lines of text.

use super::bytes::{changes, edge};
use crate::random::Random;

/// Changes one line, or the order of lines.
pub(super) fn lines(bytes: &mut Vec<u8>, lent: &[u8], random: &mut Random) {
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if lines.is_empty() {
        return changes(bytes, lent, random);
    }
    let at = random.below(lines.len());
    match random.below(6) {
        0 => _ = lines.remove(at),
        1 => lines.push(lines[at].clone()),
        2 => {
            let with = random.below(lines.len());
            lines.swap(at, with);
        }
        3 => digits(&mut lines[at], random),
        _ => changes(&mut lines[at], lent, random),
    }
    *bytes = lines.concat();
}

/// Replaces a number in a text by another one.
fn digits(line: &mut Vec<u8>, random: &mut Random) {
    let is_digit = |line: &[u8], at: usize| line.get(at).is_some_and(u8::is_ascii_digit);
    let starts: Vec<usize> =
        (0..line.len()).filter(|&at| is_digit(line, at) && (at == 0 || !is_digit(line, at - 1))).collect();
    let Some(&start) = random.pick(&starts) else { return };
    let end = (start..).find(|&at| !is_digit(line, at)).unwrap_or(start);
    let number = edge(random).to_string();
    line.splice(start..end, number.into_bytes());
}
