//! What a line says: a value, a key and a value, or one JSON object as `consume --format json` prints it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holdfast_client::{Header, Record};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::lines::find;
use crate::args::ProduceArgs;

/// How lines become records.
#[derive(Debug)]
pub(super) enum Form {
    /// The bytes as they are.
    Text {
        /// Between key and value; without it there are no keys.
        separator: Option<Vec<u8>>,
        /// The value of records that have none.
        tombstone: Option<Vec<u8>>,
    },
    /// An object with key, value, headers and timestamp.
    Json,
}

impl Form {
    pub(super) fn of(args: &ProduceArgs) -> Form {
        let bytes = |text: &Option<String>| text.clone().map(String::into_bytes);
        if args.json {
            return Form::Json;
        }
        Form::Text { separator: bytes(&args.key_separator), tombstone: bytes(&args.tombstone) }
    }

    /// The record that a line stands for, or why it stands for none.
    pub(super) fn record(&self, line: Bytes) -> Result<Record, String> {
        let (separator, tombstone) = match self {
            Form::Json => return json(&line),
            Form::Text { separator, tombstone } => (separator.as_deref(), tombstone.as_deref()),
        };
        let cut = separator.and_then(|separator| Some((find(&line, separator)?, separator.len())));
        let (key, value) = match cut {
            Some((at, length)) => (Some(line.slice(..at)), line.slice(at + length..)),
            None => (None, line),
        };
        Ok(match key {
            Some(key) if tombstone == Some(&value[..]) => Record::tombstone(key),
            Some(key) => Record::new(value).with_key(key),
            None => Record::new(value),
        })
    }
}

/// What `consume --format json` prints of a record.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Option<String>,
    key_base64: Option<String>,
    #[serde(default, deserialize_with = "given")]
    value: Option<Option<String>>,
    value_base64: Option<String>,
    #[serde(default)]
    headers: Vec<HeaderEntry>,
    timestamp: Option<i64>,
    /// Where it was read says nothing of where it goes.
    #[serde(rename = "topic")]
    _topic: Option<IgnoredAny>,
    #[serde(rename = "partition")]
    _partition: Option<IgnoredAny>,
    #[serde(rename = "offset")]
    _offset: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderEntry {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
}

/// Tells `null` from nothing at all: a value that was forgotten must not delete its key.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn json(line: &[u8]) -> Result<Record, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let value = match (line.value, line.value_base64) {
        (None, None) => return Err("it has no value; null stands for a record without one".to_owned()),
        (value, base64) => bytes("value", value.flatten(), base64)?,
    };
    let key = bytes("key", line.key, line.key_base64)?;
    let mut record = match (key, value) {
        (Some(key), Some(value)) => Record::new(value).with_key(key),
        (None, Some(value)) => Record::new(value),
        (Some(key), None) => Record::tombstone(key),
        (None, None) => return Err("it has neither key nor value".to_owned()),
    };
    for HeaderEntry { key, key_base64, value, value_base64 } in line.headers {
        let key = bytes("key of a header", key, key_base64)?.ok_or("a header has no key")?;
        let value = bytes("value of a header", value, value_base64)?;
        record = record.with_raw_header(Header { key, value });
    }
    Ok(match line.timestamp {
        Some(timestamp) => record.with_timestamp(timestamp),
        None => record,
    })
}

/// What is given as text, or as base64.
fn bytes(what: &str, text: Option<String>, base64: Option<String>) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("its {what} is given twice: as text and as base64")),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => match STANDARD.decode(base64) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) => Err(format!("its {what} is no base64: {error}")),
        },
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(separator: Option<&str>, tombstone: Option<&str>, line: &'static str) -> Record {
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        let form = Form::Text { separator: bytes(separator), tombstone: bytes(tombstone) };
        form.record(Bytes::from_static(line.as_bytes())).unwrap()
    }

    #[test]
    fn a_line_has_a_key_where_there_is_a_separator_and_no_value_where_it_says_so() {
        assert_eq!(text(None, None, "a:b"), Record::new("a:b"));
        assert_eq!(text(Some(":"), None, "a:b:c"), Record::new("b:c").with_key("a"));
        assert_eq!(text(Some(":"), None, "alone"), Record::new("alone"));
        assert_eq!(text(Some(":"), Some("-"), "a:-"), Record::tombstone("a"));
        assert_eq!(text(Some(":"), Some(""), "a:"), Record::tombstone("a"));
        assert_eq!(text(Some(":"), Some("-"), "a:--"), Record::new("--").with_key("a"));
        assert_eq!(text(Some(":"), Some("-"), "-"), Record::new("-"), "nothing says which key is gone");
    }

    #[test]
    fn json_lines_are_read_as_consume_prints_them() {
        let record = |line: &'static str| Form::Json.record(Bytes::from_static(line.as_bytes()));
        let printed = r#"{"topic":"t","partition":2,"offset":7,"timestamp":1000,"key_base64":"a/8=","value":"grüße",
            "headers":[{"key":"trace","value":null},{"key":"trace","value_base64":"/g=="}]}"#;
        let read = record(printed).unwrap();
        assert_eq!((read.key(), read.value()), (Some(&b"k\xff"[..]), Some("grüße".as_bytes())));
        assert_eq!((read.timestamp(), read.partition(), read.headers().len()), (Some(1000), None, 2));
        assert_eq!(read.headers()[0].value, None);
        assert_eq!(record(r#"{"key":"a","value":null}"#).unwrap(), Record::tombstone("a"));
        assert_eq!(record(r#"{"key":null,"value":""}"#).unwrap(), Record::new(""));
        for (line, why) in [
            (r#"{"key":"a"}"#, "no value"),
            (r#"{"key":"a","vlaue":"b"}"#, "vlaue"),
            (r#"{"value":null}"#, "neither"),
            (r#"{"key":"a","key_base64":"YQ==","value":""}"#, "twice"),
            (r#"{"key":"a","value_base64":"%"}"#, "base64"),
            ("a:b", "expected"),
        ] {
            let error = record(line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
