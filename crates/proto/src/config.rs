//! What the configuration of several components shares.

/// Durations in configuration files: `"100ms"`, `"1s"`, `"2m 30s"`. For `#[serde(with = "...")]`.
pub mod duration {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes it with units.
    ///
    /// # Errors
    /// As the serializer gives them.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    /// Reads it with units.
    ///
    /// # Errors
    /// Where it has no unit or an unknown one.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| {
            D::Error::custom(format!("{text:?} is not a duration such as \"100ms\" or \"1s\": {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    fn read(text: &str) -> Result<Duration, Error> {
        let deserializer: StrDeserializer<'_, Error> = text.into_deserializer();
        super::duration::deserialize(deserializer)
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(read("100ms").unwrap(), Duration::from_millis(100));
        assert_eq!(read("2m 30s").unwrap(), Duration::from_secs(150));
        for text in ["100", "", "1 parsec", "-1s"] {
            assert!(read(text).is_err(), "{text:?} was accepted");
        }
    }
}
