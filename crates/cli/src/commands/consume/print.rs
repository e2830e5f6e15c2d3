//! How a record is written: its value and an end of line, or one JSON object on a line.

use std::io::{self, BufWriter, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holdfast_client::{ConsumedRecord, Header};
use serde::ser::{SerializeMap, SerializeSeq as _};
use serde::{Serialize, Serializer};

use crate::args::{ConsumeArgs, Format};

/// Written at once.
const BUFFER: usize = 256 << 10;

/// Writes records, and counts them.
pub(super) struct Printer<W: Write = io::Stdout> {
    format: Format,
    topic: String,
    key_separator: Option<Vec<u8>>,
    /// Printed for a value that is not there.
    tombstone: Vec<u8>,
    output: BufWriter<W>,
    count: u64,
}

impl Printer {
    pub(super) fn new(format: Format, args: &ConsumeArgs) -> Printer {
        let (separator, tombstone) = (args.key_separator.as_deref(), args.tombstone.as_deref());
        Printer::to(io::stdout(), format, &args.topic, separator, tombstone)
    }
}

impl<W: Write> Printer<W> {
    fn to(
        output: W,
        format: Format,
        topic: &str,
        key_separator: Option<&str>,
        tombstone: Option<&str>,
    ) -> Printer<W> {
        Printer {
            format,
            topic: topic.to_owned(),
            key_separator: key_separator.map(|separator| separator.as_bytes().to_vec()),
            tombstone: tombstone.unwrap_or_default().as_bytes().to_vec(),
            output: BufWriter::with_capacity(BUFFER, output),
            count: 0,
        }
    }

    /// Records printed.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn print(&mut self, partition: u32, record: &ConsumedRecord) -> io::Result<()> {
        match self.format {
            Format::Text => {
                if let Some(separator) = &self.key_separator {
                    self.output.write_all(record.key.as_deref().unwrap_or_default())?;
                    self.output.write_all(separator)?;
                }
                self.output.write_all(record.value.as_deref().unwrap_or(&self.tombstone))?;
            }
            Format::Json => {
                let line = Line { topic: &self.topic, partition, record };
                serde_json::to_writer(&mut self.output, &line)?;
            }
        }
        self.output.write_all(b"\n")?;
        self.count += 1;
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

struct Line<'a> {
    topic: &'a str,
    partition: u32,
    record: &'a ConsumedRecord,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.record;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("topic", self.topic)?;
        map.serialize_entry("partition", &self.partition)?;
        map.serialize_entry("offset", &record.offset.0)?;
        map.serialize_entry("timestamp", &(record.timestamp >= 0).then_some(record.timestamp))?;
        entry(&mut map, ["key", "key_base64"], record.key.as_ref())?;
        entry(&mut map, ["value", "value_base64"], record.value.as_ref())?;
        map.serialize_entry("headers", &Headers(&record.headers))?;
        map.end()
    }
}

/// A list of objects of key and value.
pub(crate) struct Headers<'a>(pub(crate) &'a [Header]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for header in self.0 {
            list.serialize_element(&HeaderEntry(header))?;
        }
        list.end()
    }
}

struct HeaderEntry<'a>(&'a Header);

impl Serialize for HeaderEntry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        entry(&mut map, ["key", "key_base64"], Some(&self.0.key))?;
        entry(&mut map, ["value", "value_base64"], self.0.value.as_ref())?;
        map.end()
    }
}

/// Bytes as text under the first name where they are UTF-8, as base64 under the second otherwise; `null` for none.
pub(crate) fn entry<M: SerializeMap>(
    map: &mut M,
    [text_name, base64_name]: [&'static str; 2],
    bytes: Option<&Bytes>,
) -> Result<(), M::Error> {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => map.serialize_entry(text_name, &()),
        Some((Ok(text), _)) => map.serialize_entry(text_name, text),
        Some((Err(_), bytes)) => map.serialize_entry(base64_name, &STANDARD.encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_client::Offset;

    use super::*;

    fn record(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> ConsumedRecord {
        ConsumedRecord {
            offset: Offset(7),
            timestamp: 1000,
            key: key.map(Bytes::from_static),
            value: value.map(Bytes::from_static),
            headers: Vec::new(),
        }
    }

    fn printed(format: Format, separator: Option<&str>, record: &ConsumedRecord) -> Vec<u8> {
        printed_with(format, separator, None, record)
    }

    fn printed_with(
        format: Format,
        separator: Option<&str>,
        tombstone: Option<&str>,
        record: &ConsumedRecord,
    ) -> Vec<u8> {
        let mut printer = Printer::to(Vec::new(), format, "orders", separator, tombstone);
        printer.print(2, record).unwrap();
        printer.flush().unwrap();
        assert_eq!(printer.count(), 1);
        printer.output.get_ref().clone()
    }

    #[test]
    fn text_is_the_bytes_and_an_end_of_line() {
        assert_eq!(printed(Format::Text, None, &record(Some(b"k"), Some(b"\xff\x00"))), b"\xff\x00\n");
        assert_eq!(printed(Format::Text, Some("=>"), &record(Some(b"k"), Some(b"v"))), b"k=>v\n");
        assert_eq!(printed(Format::Text, Some(":"), &record(None, None)), b":\n");
        let gone = record(Some(b"k"), None);
        assert_eq!(printed_with(Format::Text, Some(":"), Some("<gone>"), &gone), b"k:<gone>\n");
        let empty = record(Some(b"k"), Some(b""));
        assert_eq!(printed_with(Format::Text, Some(":"), Some("<gone>"), &empty), b"k:\n");
    }

    #[test]
    fn json_keeps_every_byte() {
        let mut full = record(Some(b"k\xff"), Some("grüße".as_bytes()));
        full.headers = vec![
            Header { key: Bytes::from_static(b"trace"), value: None },
            Header { key: Bytes::from_static(b"trace"), value: Some(Bytes::from_static(b"\xfe")) },
        ];
        let line = String::from_utf8(printed(Format::Json, None, &full)).unwrap();
        assert_eq!(
            line,
            "{\"topic\":\"orders\",\"partition\":2,\"offset\":7,\"timestamp\":1000,\"key_base64\":\"a/8=\",\
             \"value\":\"grüße\",\"headers\":[{\"key\":\"trace\",\"value\":null},\
             {\"key\":\"trace\",\"value_base64\":\"/g==\"}]}\n"
        );
        let mut bare = record(None, None);
        bare.timestamp = -1;
        let line = String::from_utf8(printed(Format::Json, None, &bare)).unwrap();
        assert!(line.contains(r#""timestamp":null,"key":null,"value":null,"headers":[]"#), "{line}");
    }
}
