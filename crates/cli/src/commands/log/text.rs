//! Bytes, times and codecs as text.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use holdfast_core::record_batch::Compression;

/// Milliseconds since 1970 as RFC 3339; a dash for none, and the number where no calendar has it.
pub(super) fn time(timestamp_ms: i64) -> String {
    // The year 9999 ends there: humantime knows no later one.
    const LAST: u64 = 253_402_300_799_999;
    match u64::try_from(timestamp_ms) {
        Err(_) => "-".to_owned(),
        Ok(ms) if ms > LAST => format!("{ms}ms"),
        Ok(ms) => humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string(),
    }
}

/// The codec's name, as `--compression` takes it.
pub(super) fn codec(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

/// Bytes in quotes on one line: text as it is, everything that a terminal might act on escaped, other bytes as `\xNN`.
pub(super) fn quoted(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "null".to_owned() };
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        text.extend(chunk.valid().chars().flat_map(|char| match char {
            '\'' => "'".chars().collect::<Vec<_>>(),
            char => char.escape_debug().collect(),
        }));
        for byte in chunk.invalid() {
            // Writing to memory does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

/// How long they are.
pub(super) fn size(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".to_owned(), |bytes| format!("{} B", bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_unescaped() {
        for (bytes, text) in [
            (&b"plain it's"[..], r#""plain it's""#),
            ("grüße 🦀".as_bytes(), r#""grüße 🦀""#),
            (b"\x1b[31m\r\n\0\"\\", r#""\u{1b}[31m\r\n\0\"\\""#),
            (b"a\xff\xfeb", r#""a\xff\xfeb""#),
            ("\u{202e}".as_bytes(), r#""\u{202e}""#),
        ] {
            assert_eq!(quoted(Some(bytes)), text);
        }
        assert_eq!((quoted(None), quoted(Some(b""))), ("null".to_owned(), "\"\"".to_owned()));
    }

    #[test]
    fn every_timestamp_has_a_text() {
        assert_eq!(time(-1), "-");
        assert_eq!(time(1_000), "1970-01-01T00:00:01.000Z");
        assert_eq!(time(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(time(i64::MAX), "9223372036854775807ms");
    }
}
