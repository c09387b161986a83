//! Counters: keys whose value is a whole number, and the sum of such a value and a number.

use super::outcome::Outcome;
use super::text::Value;
use crate::mutant::{self, Mutant};

/// Returns the sum of the number in `value`, or of 0 if there is no value, and `by`. The result
/// fits a signed 64-bit number.
///
/// # Errors
///
/// [`Outcome::NotANumber`] or [`Outcome::OutOfRange`].
pub(super) fn sum(value: Option<&Value>, by: i64) -> Result<i64, Outcome> {
    let number = match value.map(Value::as_json) {
        None => 0,
        Some(json) if is_whole_number(json) => json.parse().map_err(|_| Outcome::OutOfRange)?,
        Some(_) => return Err(Outcome::NotANumber),
    };
    wrapped_by_mutant(number, by).or_else(|| by.checked_add(number)).ok_or(Outcome::OutOfRange)
}

/// A number as a value.
pub(super) fn value_of(number: i64) -> Value {
    Value::from_log(&number.to_string())
}

/// Returns whether JSON text is a number without a fraction and an exponent.
fn is_whole_number(json: &str) -> bool {
    let digits = json.strip_prefix('-').unwrap_or(json);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Deliberate bug: a sum that is out of range wraps around.
fn wrapped_by_mutant(number: i64, by: i64) -> Option<i64> {
    mutant::is_active(Mutant::SumWraps).then(|| number.wrapping_add(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of(json: &str, by: i64) -> Result<i64, Outcome> {
        sum(Value::from_json(json).ok().as_ref(), by)
    }

    #[test]
    fn only_whole_numbers_of_64_bits_are_counters() {
        assert_eq!(sum(None, 5), Ok(5));
        assert_eq!(sum_of("-7", 5), Ok(-2));
        assert_eq!(sum_of("-0", 0), Ok(0));
        assert_eq!(sum_of("9223372036854775806", 1), Ok(i64::MAX));
        assert_eq!(sum_of("-9223372036854775808", 0), Ok(i64::MIN));
        for (json, by) in
            [("9223372036854775807", 1), ("-9223372036854775808", -1), ("18446744073709551617", 0)]
        {
            assert_eq!(sum_of(json, by), Err(Outcome::OutOfRange), "{json}");
        }
        for json in ["\"5\"", "5.0", "1e2", "true", "[1]", "{}", "\"-\""] {
            assert_eq!(sum_of(json, 1), Err(Outcome::NotANumber), "{json}");
        }
        assert_eq!(value_of(-2).as_json(), "-2");
    }
}
