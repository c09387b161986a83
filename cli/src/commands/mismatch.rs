//! Type mismatches in compare-and-swap: explains a failed `cas` whose expected and actual values
//! have different JSON types, because the number 42 and the string "42" look alike on a command
//! line.

use std::fmt;

use serde_json::value::RawValue;

/// The result of comparing the expected value with the actual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// A different value of the expected type, or any value where the key had to be absent.
    OtherValue,
    OtherKind {
        found: Kind,
        expected: Kind,
    },
    /// A different revision than the expected one.
    OtherRevision(u64),
}

/// A JSON type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    String,
    Number,
    Boolean,
    Array,
    Object,
    Null,
}

impl Kind {
    fn of(value: &RawValue) -> Self {
        match value.get().as_bytes().first() {
            Some(b'"') => Self::String,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            Some(b'n') | None => Self::Null,
            Some(_) => Self::Number,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Array => "an array",
            Self::Object => "an object",
            Self::Null => "null",
        }
    }
}

impl Found {
    pub(crate) fn new(expected: Option<&RawValue>, actual: Option<&RawValue>) -> Self {
        match (expected, actual) {
            (_, None) => Self::Nothing,
            (None, Some(_)) => Self::OtherValue,
            (Some(expected), Some(actual)) => {
                let (expected, found) = (Kind::of(expected), Kind::of(actual));
                if expected == found { Self::OtherValue } else { Self::OtherKind { found, expected } }
            }
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (found, expected) = match *self {
            Self::OtherKind { found, expected } => (found, expected),
            Self::OtherRevision(rev) => return write!(f, ": its revision is {rev}"),
            Self::Nothing => return f.write_str(": it is absent"),
            Self::OtherValue => return Ok(()),
        };
        write!(f, ": it holds {}, and {} was expected", found.name(), expected.name())?;
        match (found, expected) {
            (_, Kind::String) => f.write_str("; --json takes OLD and VALUE as JSON"),
            (Kind::String, _) => f.write_str("; without --json, OLD and VALUE are strings"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(expected: Option<&str>, actual: Option<&str>) -> String {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let (expected, actual) = (expected.map(raw), actual.map(raw));
        Found::new(expected.as_deref(), actual.as_deref()).to_string()
    }

    #[test]
    fn another_type_is_named_and_another_value_of_the_same_type_is_not() {
        assert_eq!(found(Some("1"), None), ": it is absent");
        assert_eq!(found(None, Some("1")), "");
        assert_eq!(found(Some("1"), Some("2")), "");
        assert_eq!(
            found(Some("\"42\""), Some("42")),
            ": it holds a number, and a string was expected; --json takes OLD and VALUE as JSON"
        );
        assert_eq!(
            found(Some("42"), Some("\"42\"")),
            ": it holds a string, and a number was expected; without --json, OLD and VALUE are strings"
        );
        assert_eq!(found(Some("[]"), Some("{}")), ": it holds an object, and an array was expected");
    }
}
