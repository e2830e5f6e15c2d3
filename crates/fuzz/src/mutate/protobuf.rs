//! Damage to one field of a protobuf message, however deep, with the lengths around it mended.

use super::bytes::{changes, edge, put_varint};
use crate::random::Random;

/// A field: its number and kind as one, and what it holds.
#[derive(Debug, Clone, PartialEq)]
struct Field {
    tag: u64,
    value: Value,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(u64),
    /// Four or eight bytes.
    Fixed(Vec<u8>),
    /// Text, bytes or a message.
    Bytes(Vec<u8>),
}

/// Changes a field. Bytes that are no message are changed anyhow.
pub(super) fn message(bytes: &mut Vec<u8>, lent: &[u8], random: &mut Random) {
    let Some(mut fields) = parse(bytes).filter(|fields| !fields.is_empty()) else {
        return changes(bytes, lent, random);
    };
    let at = random.below(fields.len());
    match random.below(10) {
        0 => _ = fields.remove(at),
        1 => fields.push(fields[at].clone()),
        2 => {
            let with = random.below(fields.len());
            fields.swap(at, with);
        }
        _ => match &mut fields[at].value {
            Value::Number(number) => *number = edge(random),
            Value::Fixed(bytes) => bytes.iter_mut().for_each(|byte| *byte = random.next() as u8),
            Value::Bytes(bytes) if random.one_in(8) => changes(bytes, lent, random),
            Value::Bytes(bytes) => message(bytes, lent, random),
        },
    }
    *bytes = encode(&fields);
}

/// The fields of a message; `None` if it is none.
fn parse(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Value::Number(take_varint(&mut bytes)?),
            1 => Value::Fixed(take(&mut bytes, 8)?),
            2 => {
                let length = take_varint(&mut bytes)?;
                Value::Bytes(take(&mut bytes, usize::try_from(length).ok()?)?)
            }
            5 => Value::Fixed(take(&mut bytes, 4)?),
            _ => return None,
        };
        fields.push(Field { tag, value });
    }
    Some(fields)
}

fn encode(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Field { tag, value } in fields {
        put_varint(&mut bytes, *tag);
        match value {
            Value::Number(number) => put_varint(&mut bytes, *number),
            Value::Fixed(fixed) => bytes.extend_from_slice(fixed),
            Value::Bytes(content) => {
                put_varint(&mut bytes, content.len() as u64);
                bytes.extend_from_slice(content);
            }
        }
    }
    bytes
}

fn take(bytes: &mut &[u8], length: usize) -> Option<Vec<u8>> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken.to_vec())
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(7 * index)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_as_it_was_read() {
        // Field 1 = 300, field 2 = a message with field 1 = -1, field 3 fixed32.
        let bytes =
            [&[0x08, 0xac, 0x02, 0x12, 0x0b, 0x08][..], &[0xff; 9], &[0x01, 0x1d, 1, 2, 3, 4]].concat();
        let fields = parse(&bytes).unwrap();
        assert_eq!(fields.len(), 3);
        assert_eq!(encode(&fields), bytes);
        let Value::Bytes(inner) = &fields[1].value else { panic!("{fields:?}") };
        assert_eq!(parse(inner).unwrap()[0].value, Value::Number(u64::MAX));
        assert!(parse(&bytes[..bytes.len() - 1]).is_none());
    }
}
