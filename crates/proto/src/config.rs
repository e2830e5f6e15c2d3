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

/// The same, or `"never"` for `None`.
pub mod duration_or_never {
    use std::time::Duration;

    use serde::de::IntoDeserializer as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    const NEVER: &str = "never";

    /// Writes it with units.
    ///
    /// # Errors
    /// As the serializer gives them.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, serializer),
            None => serializer.serialize_str(NEVER),
        }
    }

    /// Reads it with units.
    ///
    /// # Errors
    /// Where it is neither a duration nor `never`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        match String::deserialize(deserializer)? {
            text if text == NEVER => Ok(None),
            text => super::duration::deserialize(text.into_deserializer()).map(Some),
        }
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
    fn never_is_no_duration() {
        let read = |text: &'static str| {
            let deserializer: StrDeserializer<'_, Error> = text.into_deserializer();
            super::duration_or_never::deserialize(deserializer)
        };
        assert_eq!(read("never").unwrap(), None);
        assert_eq!(read("15m").unwrap(), Some(Duration::from_secs(900)));
        assert!(read("sometimes").is_err());
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
