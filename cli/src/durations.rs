//! Parsers for durations in flags: `50ms`, `1.5s`, `2min`, and `0` where it means "off".
//!
//! The syntax is humantime's. This module adds error messages with valid examples, the bounds of
//! each kind of flag, and the range `MIN..MAX`.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// The longest valid duration: a longer one is probably a wrong unit. Arbitrary.
const SPAN_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a text is not a valid duration or range.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum DurationError {
    #[error("expected a number with a unit, such as 50ms, 1.5s or 2min")]
    Shape,
    #[error("must be more than 0, such as 50ms, 1.5s or 2min")]
    Zero,
    #[error("must be at most a year")]
    TooLong,
    #[error("expected MIN..MAX, such as 300ms..600ms")]
    RangeShape,
    #[error("MIN must be less than MAX, as in 300ms..600ms")]
    RangeOrder,
}

/// Parses a duration above zero.
pub(crate) fn positive(text: &str) -> Result<Duration, DurationError> {
    let span = span(text)?;
    if span.is_zero() { Err(DurationError::Zero) } else { Ok(span) }
}

/// Parses a duration for which zero means "off". Returns zero and not `None`, because clap
/// interprets an `Option` as an optional flag.
pub(crate) fn zero_for_off(text: &str) -> Result<Duration, DurationError> {
    span(text)
}

/// The milliseconds of a duration that is not zero; a part of one counts as one.
pub(crate) fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn span(text: &str) -> Result<Duration, DurationError> {
    let span = humantime::parse_duration(text.trim()).map_err(|_| DurationError::Shape)?;
    if span > SPAN_MAX { Err(DurationError::TooLong) } else { Ok(span) }
}

/// The bounds of a random duration, with `min` below `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DurationRange {
    /// Inclusive.
    pub(crate) min: Duration,
    /// Inclusive.
    pub(crate) max: Duration,
}

impl FromStr for DurationRange {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let (min, max) = text.split_once("..").ok_or(DurationError::RangeShape)?;
        if min.trim().is_empty() || max.trim().is_empty() {
            return Err(DurationError::RangeShape);
        }
        let (min, max) = (positive(min)?, positive(max)?);
        if min < max { Ok(Self { min, max }) } else { Err(DurationError::RangeOrder) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_spellings_are_understood() {
        assert_eq!(positive("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(positive("1000s"), Ok(Duration::from_secs(1000)));
        assert_eq!(positive("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(positive("1min 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(zero_for_off("0"), Ok(Duration::ZERO));
        assert_eq!(zero_for_off("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn a_missing_unit_a_zero_and_more_than_a_year_are_rejected() {
        for text in ["", "50", "ms", "fast", "-1s", "1e3s"] {
            assert_eq!(positive(text), Err(DurationError::Shape), "{text}");
        }
        assert_eq!(positive("0"), Err(DurationError::Zero));
        assert_eq!(positive("0ms"), Err(DurationError::Zero));
        assert_eq!(zero_for_off("3years"), Err(DurationError::TooLong));
    }

    #[test]
    fn a_duration_is_rounded_up_to_milliseconds() {
        for (span, ms) in [("1ns", 1), ("1ms", 1), ("1000001ns", 2), ("1year", 31_557_600_000)] {
            assert_eq!(humantime::parse_duration(span).map(whole_ms), Ok(ms));
        }
    }

    #[test]
    fn a_range_has_two_ends_in_order() {
        let range = |text: &str| text.parse::<DurationRange>();
        let (min, max) = (Duration::from_millis(300), Duration::from_millis(600));
        assert_eq!(range("300ms..600ms"), Ok(DurationRange { min, max }));
        assert_eq!(range("300ms .. 600ms"), Ok(DurationRange { min, max }));
        for text in ["300ms", "300ms..", "..600ms", ".."] {
            assert_eq!(range(text), Err(DurationError::RangeShape), "{text}");
        }
        assert_eq!(range("600ms..300ms"), Err(DurationError::RangeOrder));
        assert_eq!(range("300ms..300ms"), Err(DurationError::RangeOrder));
        assert_eq!(range("0..300ms"), Err(DurationError::Zero));
        assert_eq!(range("300ms-600ms..1s"), Err(DurationError::Shape));
    }
}
