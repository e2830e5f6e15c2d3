//! The `log` section of a broker's configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ByteSize;

const MIN_SEGMENT_SIZE: u64 = 1 << 20;
/// Positions inside a segment are kept as u32.
const MAX_SEGMENT_SIZE: u64 = 2 << 30;
const MIN_SEGMENT_AGE: Duration = Duration::from_secs(60);
const MIN_INDEX_INTERVAL: u64 = 1 << 10;
const MAX_INDEX_INTERVAL: u64 = 1 << 20;

/// How a broker keeps partition data on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogConfig {
    /// Size at which the active segment is sealed. Larger: fewer files; smaller: space returns sooner.
    /// Default: 512MiB. Minimum: 1MiB. Maximum: 2GiB.
    pub segment_size: ByteSize,
    /// Age at which the active segment is sealed even if it is small, counted from its first batch or, after a restart
    /// that was not in order, from that. Longer: fewer files of topics that are rarely written to.
    /// Default: 7days. Minimum: 1min.
    #[serde(with = "age")]
    pub segment_age: Duration,
    /// Bytes of log per entry of the index, 16 bytes each, which is in a file. A read searches at most this many bytes
    /// for its first batch.
    /// Default: 4KiB. Minimum: 1KiB. Maximum: 1MiB.
    pub index_interval: ByteSize,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_size: ByteSize(512 << 20),
            segment_age: Duration::from_secs(7 * 24 * 60 * 60),
            index_interval: ByteSize(4 << 10),
        }
    }
}

impl LogConfig {
    /// Every problem of this section, one line each; empty if it can be used.
    pub fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut within = |key, size: ByteSize, minimum, maximum| {
            if size.0 < minimum || size.0 > maximum {
                let (minimum, maximum) = (ByteSize(minimum), ByteSize(maximum));
                problems.push(format!("{key} is {size}, must be {minimum} to {maximum}"));
            }
        };
        within("segment-size", self.segment_size, MIN_SEGMENT_SIZE, MAX_SEGMENT_SIZE);
        within("index-interval", self.index_interval, MIN_INDEX_INTERVAL, MAX_INDEX_INTERVAL);
        if self.segment_age < MIN_SEGMENT_AGE {
            let (age, minimum) = (humantime::format_duration(self.segment_age), MIN_SEGMENT_AGE);
            problems.push(format!(
                "segment-age is {age}, must be at least {}",
                humantime::format_duration(minimum)
            ));
        }
        problems
    }
}

/// A duration as people write it: `7days`, `12h 30min`.
mod age {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(age: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*age))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| {
            de::Error::custom(format!("{text:?} is not a duration such as \"12h\" or \"7days\": {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_reported_together() {
        assert_eq!(LogConfig::default().validate(), Vec::<String>::new());
        let config = LogConfig {
            segment_size: ByteSize(1),
            segment_age: Duration::from_millis(1),
            index_interval: ByteSize(1 << 30),
        };
        assert_eq!(config.validate().len(), 3);
    }

    #[test]
    fn keys_are_kebab_case_and_unknown_ones_refused() {
        let config: LogConfig =
            serde_json::from_str(r#"{"segment-size":"1MiB","segment-age":"12h"}"#).unwrap();
        let expected = LogConfig {
            segment_size: ByteSize(1 << 20),
            segment_age: Duration::from_secs(12 * 60 * 60),
            ..LogConfig::default()
        };
        assert_eq!(config, expected);
        assert_eq!(serde_json::to_value(&config).unwrap()["segment-age"], "12h");
        assert!(serde_json::from_str::<LogConfig>(r#"{"segment_size":1}"#).is_err());
    }
}
