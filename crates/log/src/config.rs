//! The `log` section of a broker's configuration.

use serde::{Deserialize, Serialize};

use crate::ByteSize;

const MIN_SEGMENT_SIZE: u64 = 1 << 20;
/// Positions inside a segment are kept as u32.
const MAX_SEGMENT_SIZE: u64 = 2 << 30;
const MIN_INDEX_INTERVAL: u64 = 1 << 10;
const MAX_INDEX_INTERVAL: u64 = 1 << 20;

/// How a broker keeps partition data on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogConfig {
    /// Size at which the active segment is sealed. Larger: fewer files; smaller: space returns sooner.
    /// Default: 512MiB. Minimum: 1MiB. Maximum: 2GiB.
    pub segment_size: ByteSize,
    /// Bytes of log per entry of the index that is kept in memory, 16 bytes each. A read searches at most this
    /// many bytes for its first batch.
    /// Default: 4KiB. Minimum: 1KiB. Maximum: 1MiB.
    pub index_interval: ByteSize,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { segment_size: ByteSize(512 << 20), index_interval: ByteSize(4 << 10) }
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
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_reported_together() {
        assert_eq!(LogConfig::default().validate(), Vec::<String>::new());
        let config = LogConfig { segment_size: ByteSize(1), index_interval: ByteSize(1 << 30) };
        assert_eq!(config.validate().len(), 2);
    }

    #[test]
    fn keys_are_kebab_case_and_unknown_ones_refused() {
        let config: LogConfig = serde_json::from_str(r#"{"segment-size":"1MiB"}"#).unwrap();
        assert_eq!(config, LogConfig { segment_size: ByteSize(1 << 20), ..LogConfig::default() });
        assert!(serde_json::from_str::<LogConfig>(r#"{"segment_size":1}"#).is_err());
    }
}
