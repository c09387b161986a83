//! Parsers for integers in flags, with messages that name the valid range.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use thiserror::Error;

/// Why a text is not a valid number.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum NumberError {
    #[error("expected a whole number without a unit, such as 1000000")]
    Shape,
    #[error("must be at least 1")]
    Zero,
    #[error("expected a whole number from {0} to {1}")]
    OutOfRange(u64, u64),
    #[error("expected the id of a node: a whole number, such as 4")]
    Id,
}

/// Parses an integer that is not 0.
pub(crate) fn at_least_one(text: &str) -> Result<u64, NumberError> {
    match text.trim().parse() {
        Ok(0) => Err(NumberError::Zero),
        Ok(count) => Ok(count),
        Err(_) => Err(NumberError::Shape),
    }
}

/// Parses the id of a node.
pub(crate) fn id(text: &str) -> Result<u64, NumberError> {
    text.trim().parse().map_err(|_| NumberError::Id)
}

/// Parses the number of nodes of a cluster in one process.
pub(crate) fn nodes(text: &str) -> Result<u8, NumberError> {
    within(text, 1..=9)
}

/// Parses the maximum number of concurrent clients.
pub(crate) fn clients(text: &str) -> Result<NonZeroU32, NumberError> {
    within(text, 1..=u32::MAX).map(|count| NonZeroU32::new(count).expect("it is at least 1"))
}

/// Parses a number within bounds, both inclusive.
pub(crate) fn within<T>(text: &str, bounds: RangeInclusive<T>) -> Result<T, NumberError>
where
    T: Copy + PartialOrd + TryFrom<u64> + Into<u64>,
{
    let (least, most) = ((*bounds.start()).into(), (*bounds.end()).into());
    let number = text.trim().parse::<u64>().ok().and_then(|number| T::try_from(number).ok());
    number.filter(|number| bounds.contains(number)).ok_or(NumberError::OutOfRange(least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_named() {
        assert_eq!((nodes("1"), nodes(" 9 ")), (Ok(1), Ok(9)));
        for text in ["0", "10", "300", "-1", "three", "", "1.5"] {
            let complaint = nodes(text).unwrap_err().to_string();
            assert_eq!(complaint, "expected a whole number from 1 to 9", "{text}");
        }
        assert_eq!(clients("10000").map(NonZeroU32::get), Ok(10_000));
        assert!(clients("0").is_err());
    }

    #[test]
    fn a_count_has_no_unit_and_is_not_0() {
        assert_eq!(at_least_one("7"), Ok(7));
        assert_eq!(at_least_one("0"), Err(NumberError::Zero));
        assert_eq!(at_least_one("16MiB"), Err(NumberError::Shape));
    }

    #[test]
    fn an_id_is_a_whole_number() {
        assert_eq!((id("0"), id("4")), (Ok(0), Ok(4)));
        for text in ["four", "-1", ""] {
            assert_eq!(id(text), Err(NumberError::Id), "{text}");
        }
    }
}
