//! Points in time as people type them: `2026-11-30T12:00:00Z`, `2026-11-30 12:00`, `2026-11-30`, `1795515072.5`, or `1h30m` for so
//! long ago. Without an offset they are of the local time zone, as for docker.

use std::time::Duration;

use contd_types::Timestamp;
use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// How a point in time is written; for help and errors.
const FORMS: &str = "write a time (2026-11-30T12:00:00Z, 2026-11-30), seconds since 1970, or how long ago (10m, 1h30m)";

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// This one.
    At(Timestamp),
    /// So long ago.
    Ago(Duration),
}

impl Moment {
    /// Returns the point in time, as of `now`.
    pub(crate) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(duration) => {
                Timestamp(now.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
            }
        }
    }
}

/// Parses a point in time.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    let at = |at: jiff::Timestamp| {
        let nanos =
            u64::try_from(at.as_nanosecond()).map_err(|_| format!("{text}: nothing of contd is older than 1970"));
        nanos.map(|nanos| Moment::At(Timestamp(nanos)))
    };
    if let Some(seconds) = seconds_since_1970(text) {
        return Ok(Moment::At(seconds));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return at(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return TimeZone::system().to_timestamp(time).map_err(|error| error.to_string()).and_then(at);
    }
    match text.parse::<SignedDuration>().map(Duration::try_from) {
        Ok(Ok(ago)) => Ok(Moment::Ago(ago)),
        _ => Err(FORMS.to_owned()),
    }
}

/// Parses digits, with a fraction of up to nine.
fn seconds_since_1970(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos).map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp(1_795_515_072_500_000_000);

    #[test]
    fn a_moment_is_a_time_seconds_or_a_while_ago() {
        for text in ["1795515072.5", "2026-11-24T10:11:12.5Z", "2026-11-24T12:11:12.5+02:00"] {
            assert_eq!(moment(text), Ok(Moment::At(AT)), "{text}");
        }
        for (text, seconds) in [("10m", 600), ("1h30m", 5400), ("90s", 90), ("1.5h", 5400), ("0s", 0)] {
            assert_eq!(moment(text), Ok(Moment::Ago(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!(moment("500ms"), Ok(Moment::Ago(Duration::from_millis(500))));
        assert_eq!(Moment::Ago(Duration::from_secs(1)).resolve(AT), Timestamp(AT.0 - 1_000_000_000));
        assert_eq!(Moment::Ago(Duration::MAX).resolve(AT), Timestamp(0));
    }

    #[test]
    fn without_an_offset_a_time_is_of_the_local_zone() {
        let local = |time: DateTime| TimeZone::system().to_timestamp(time).expect("a time").as_nanosecond();
        let midnight = jiff::civil::date(2026, 11, 24).at(0, 0, 0, 0);
        let Ok(Moment::At(Timestamp(day))) = moment("2026-11-24") else { panic!("no time") };
        assert_eq!(i128::from(day), local(midnight));
        let Ok(Moment::At(Timestamp(noon))) = moment("2026-11-24 12:00") else { panic!("no time") };
        assert_eq!(i128::from(noon), local(midnight) + 12 * 3600 * 1_000_000_000);
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for bad in ["", "soon", "-10m", "1.2.3", "1969-12-31T23:59:59Z", "2026-13-01", "99999999999999999999"] {
            assert!(moment(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
