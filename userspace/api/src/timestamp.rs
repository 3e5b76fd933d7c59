//! Moments, in text as RFC 3339 in UTC with milliseconds.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// A moment, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timestamp {
    unix_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a moment in RFC 3339")]
pub struct NotATimestamp(String);

impl From<SystemTime> for Timestamp {
    fn from(at: SystemTime) -> Self {
        Self::from(OffsetDateTime::from(at))
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(at: OffsetDateTime) -> Self {
        Self {
            unix_ms: at.unix_timestamp() * 1000 + i64::from(at.millisecond()),
        }
    }
}

impl Timestamp {
    /// The moment `unix_s` seconds after 1970.
    #[must_use]
    pub fn from_unix_s(unix_s: u64) -> Self {
        Self {
            unix_ms: i64::try_from(unix_s.saturating_mul(1000)).unwrap_or(i64::MAX),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        );
        let nanos = i128::from(self.unix_ms) * 1_000_000;
        let text = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
        match text.and_then(|at| at.format(format).ok()) {
            Some(text) => f.write_str(&text),
            // Beyond the year 9999: nothing that is shown here lives so long.
            None => f.write_str("9999-12-31T23:59:59.999Z"),
        }
    }
}

impl From<Timestamp> for String {
    fn from(at: Timestamp) -> Self {
        at.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = NotATimestamp;

    fn try_from(text: String) -> Result<Self, NotATimestamp> {
        match OffsetDateTime::parse(&text, &Rfc3339) {
            Ok(at) => Ok(Self::from(at)),
            Err(_) => Err(NotATimestamp(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_its_text() {
        let at = Timestamp::try_from("2027-01-15T08:00:00.250Z".to_owned()).expect("literal");
        assert_eq!(at.to_string(), "2027-01-15T08:00:00.250Z");
        assert_eq!(
            Timestamp::from_unix_s(1_800_000_000).to_string(),
            "2027-01-15T08:00:00.000Z"
        );
        assert!(Timestamp::try_from("yesterday".to_owned()).is_err());
    }

    #[test]
    fn a_moment_beyond_the_calendar_still_prints() {
        assert!(
            Timestamp::from_unix_s(u64::MAX)
                .to_string()
                .starts_with("9999")
        );
    }
}
