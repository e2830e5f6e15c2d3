//! Damage: of bytes anywhere, or of one part of a format, with the checksums and lengths around it mended.

mod batches;
mod bytes;
mod protobuf;
mod text;

use crate::corpus::Input;
use crate::mend;
use crate::random::Random;
use bytes::changes;

/// An input never grows beyond this.
const LARGEST: usize = 256 << 10;

/// What a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Bytes,
    Batches,
    Journal,
    Snapshot,
    Map,
    Checkpoint,
    Index,
    Lines,
    Protobuf,
}

impl Shape {
    fn of(name: &str) -> Shape {
        let name = name.rsplit('/').next().unwrap_or(name);
        match name {
            "replica-state" => Shape::Journal,
            "snapshot" => Shape::Snapshot,
            "metadata-map" => Shape::Map,
            _ if name.starts_with("checkpoint") || name == "compaction" => Shape::Checkpoint,
            _ if name.ends_with(".journal") => Shape::Journal,
            _ if name.ends_with(".log") || name.ends_with(".batch") => Shape::Batches,
            _ if name.ends_with(".index") => Shape::Index,
            _ if name.ends_with(".jsonl") => Shape::Lines,
            _ if name.ends_with(".pb") => Shape::Protobuf,
            _ => Shape::Bytes,
        }
    }
}

/// An input that is `seed` with some damage; `other` lends pieces.
pub(crate) fn mutate(seed: &Input, other: &Input, random: &mut Random) -> Input {
    let mut input = seed.clone();
    let names: Vec<String> = input.files.keys().cloned().collect();
    // Mostly one file: a folder with one bad file gets further than one with many.
    let files = if random.one_in(8) { 2 } else { 1 };
    for _ in 0..files {
        let Some(name) = random.pick(&names) else { break };
        if random.one_in(40) {
            input.files.remove(name);
            continue;
        }
        let lent = other.files.get(name).map_or_else(|| other.bytes(), Vec::as_slice);
        if let Some(bytes) = input.files.get_mut(name) {
            damage(Shape::of(name), bytes, lent, random);
            bytes.truncate(LARGEST);
        }
    }
    input
}

fn damage(shape: Shape, bytes: &mut Vec<u8>, lent: &[u8], random: &mut Random) {
    // Raw damage now and then everywhere: it is what checksums are for.
    if random.one_in(4) {
        return changes(bytes, lent, random);
    }
    match shape {
        Shape::Bytes => changes(bytes, lent, random),
        Shape::Batches => batches::batches(bytes, lent, random),
        Shape::Journal => journal(bytes, lent, random),
        Shape::Snapshot => mended(bytes, lent, random, mend::snapshot),
        Shape::Map => mended(bytes, lent, random, mend::map),
        Shape::Checkpoint => mended(bytes, lent, random, mend::checkpoint),
        Shape::Index => mended(bytes, lent, random, mend::index),
        Shape::Lines => text::lines(bytes, lent, random),
        Shape::Protobuf => protobuf::message(bytes, lent, random),
    }
}

fn mended(bytes: &mut Vec<u8>, lent: &[u8], random: &mut Random, mend: fn(&mut [u8])) {
    changes(bytes, lent, random);
    mend(bytes);
}

/// Changes the payloads of a journal: one of them, or their order.
fn journal(bytes: &mut Vec<u8>, lent: &[u8], random: &mut Random) {
    let Some(mut payloads) = mend::payloads(bytes).filter(|payloads| !payloads.is_empty()) else {
        return changes(bytes, lent, random);
    };
    let at = random.below(payloads.len());
    match random.below(6) {
        0 => _ = payloads.remove(at),
        1 => payloads.push(payloads[at].clone()),
        2 => {
            let with = random.below(payloads.len());
            payloads.swap(at, with);
        }
        _ => changes(&mut payloads[at], lent, random),
    }
    *bytes = mend::journal_of(&payloads);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_does_the_same_damage() {
        let input = Input::of("x.log", vec![7; 300]);
        let damaged = |seed| mutate(&input, &input, &mut Random::new("x", seed));
        assert_eq!(damaged(5), damaged(5));
        let different = (0..200).filter(|&seed| damaged(seed) != input).count();
        assert!(different > 190, "{different} of 200 seeds change something");
    }

    #[test]
    fn nothing_is_too_short_to_be_damaged() {
        for bytes in [&b""[..], b"x", b"\n"] {
            for name in
                ["x", "x.log", "replica-state", "snapshot", "checkpoint", "x.index", "x.jsonl", "x.pb"]
            {
                let input = Input::of(name, bytes);
                for seed in 0..200 {
                    mutate(&input, &Input::default(), &mut Random::new(name, seed));
                }
            }
        }
    }
}
