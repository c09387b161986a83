//! Keys and values: JSON text that is checked once, where it enters.
//!
//! A value stays the JSON text that the client sent, without white space outside of strings and
//! with strings in their shortest form; numbers keep every digit. So no number is converted to an
//! `f64`, which would lose digits, and nothing is encoded again on its way through the log, the
//! store and the replies.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest value, in bytes of its compact JSON text.
pub const VALUE_BYTES_MAX: usize = 512 << 10;
/// The deepest nesting of arrays and objects in a value.
pub const NESTING_MAX: usize = 64;

/// A key: 1 to [`KEY_BYTES_MAX`] bytes of UTF-8. Keys are ordered by their bytes; cloning copies no
/// text.
///
/// A key stores a hash of its text, so that the maps of all nodes find it without hashing the text
/// again.
///
/// ```
/// use coracle_core::kv::{KEY_BYTES_MAX, Key};
///
/// assert!(Key::new("snack").is_ok());
/// assert!(Key::new("").is_err());
/// assert!(Key::new(&"k".repeat(KEY_BYTES_MAX + 1)).is_err());
/// ```
#[derive(Clone)]
pub struct Key {
    text: Arc<str>,
    hash: u64,
}

impl Key {
    /// Checks a key.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when it is empty or too long.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        match text.len() {
            0 => Err(KeyError::Empty),
            1..=KEY_BYTES_MAX => Ok(Self::from_log(text)),
            _ => Err(KeyError::TooLong),
        }
    }

    /// Builds a key that was checked before it went into the log.
    pub(crate) fn from_log(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(text.as_bytes());
        Self { text: text.into(), hash: hasher.finish() }
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The hash of the text: equal for equal keys, within one process.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.text).finish()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        // Different keys nearly always differ in their hash, so their text, which may be far away,
        // is rarely compared.
        self.hash == other.hash && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

/// The reason why a key is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// The key is empty.
    Empty,
    /// The key is longer than [`KEY_BYTES_MAX`].
    TooLong,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a key must not be empty"),
            Self::TooLong => write!(f, "a key has at most {KEY_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for KeyError {}

/// A value: any JSON value except `null`, as compact text. Cloning copies no text.
///
/// ```
/// use coracle_core::kv::Value;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let value = Value::from_json(r#"{ "price": 1e400 }"#)?;
/// assert_eq!(value.as_json(), r#"{"price":1e400}"#);
/// assert_eq!(Value::from_text("chips")?, Value::from_json(r#""chips""#)?);
/// assert!(Value::from_json("null").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(Arc<str>);

impl Value {
    /// Checks and compacts JSON text that is known to be well-formed.
    ///
    /// # Errors
    ///
    /// [`ValueError`] when it is `null`, nested too deep, too long, or has a lone surrogate.
    pub fn new(json: &RawValue) -> Result<Self, ValueError> {
        if json.get() == "null" {
            return Err(ValueError::Null);
        }
        let text = compact(json.get())?;
        if text.len() > VALUE_BYTES_MAX {
            return Err(ValueError::TooLong);
        }
        Ok(Self(text.into()))
    }

    /// Checks and compacts JSON text.
    ///
    /// # Errors
    ///
    /// [`ValueError`] when it is not JSON, or as for [`Value::new`].
    pub fn from_json(text: &str) -> Result<Self, ValueError> {
        Self::new(serde_json::from_str(text).map_err(|_| ValueError::NotJson)?)
    }

    /// Encodes a string as a value.
    ///
    /// # Errors
    ///
    /// [`ValueError::TooLong`] when it is too long once encoded.
    pub fn from_text(text: &str) -> Result<Self, ValueError> {
        let mut json = String::with_capacity(text.len() + 2);
        push_json_string(&mut json, text);
        if json.len() > VALUE_BYTES_MAX { Err(ValueError::TooLong) } else { Ok(Self(json.into())) }
    }

    /// Builds a value from a JSON string, with its quotes, that has no escapes and needs none.
    pub(crate) fn from_plain_string(json: &str) -> Result<Self, ValueError> {
        if json.len() > VALUE_BYTES_MAX { Err(ValueError::TooLong) } else { Ok(Self(json.into())) }
    }

    /// Builds a value that was checked before it went into the log.
    pub(crate) fn from_log(json: &str) -> Self {
        Self(json.into())
    }

    /// The value as compact JSON text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

/// The reason why a value is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueError {
    /// The value is `null`, which would look like "no value".
    Null,
    /// The text is not JSON.
    NotJson,
    /// The value has a lone surrogate (half a pair), which is not a character.
    LoneSurrogate,
    /// The arrays and objects are nested deeper than [`NESTING_MAX`].
    TooDeep,
    /// The value is longer than [`VALUE_BYTES_MAX`].
    TooLong,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("a value must not be null"),
            Self::NotJson => f.write_str("the value is not JSON"),
            Self::LoneSurrogate => f.write_str("the value has a lone surrogate, which is not a character"),
            Self::TooDeep => write!(f, "a value is nested at most {NESTING_MAX} deep"),
            Self::TooLong => write!(f, "a value has at most {VALUE_BYTES_MAX} bytes of JSON"),
        }
    }
}

impl std::error::Error for ValueError {}

/// Characters that JSON allows in a string without an escape, and that many programs take for the
/// end of a line: NEL and the two separators of Unicode. They are escaped, because other programs
/// split the output into lines.
const LINE_SEPARATORS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// Returns whether a byte of a string may belong to a character that is written with an escape: one
/// that JSON requires to be escaped, or the first byte of a [line separator](LINE_SEPARATORS).
pub(crate) fn may_need_escape(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\' | 0xc2 | 0xe2)
}

/// Appends `text` as a JSON string in its shortest form, except that [`LINE_SEPARATORS`] are
/// escaped.
pub(crate) fn push_json_string(json: &mut String, text: &str) {
    if text.bytes().any(may_need_escape) {
        let string = serde_json::to_string(text).expect("a string can always be encoded");
        if !string.contains(LINE_SEPARATORS) {
            return json.push_str(&string);
        }
        for character in string.chars() {
            if LINE_SEPARATORS.contains(&character) {
                let _ = write!(json, "\\u{:04x}", u32::from(character));
            } else {
                json.push(character);
            }
        }
    } else {
        json.push('"');
        json.push_str(text);
        json.push('"');
    }
}

/// Appends formatted text.
pub(crate) fn push(line: &mut String, text: fmt::Arguments<'_>) {
    line.write_fmt(text).expect("a String takes any text");
}

/// Deserializes a member that is present, so that an explicit `null` differs from an absent member.
pub(crate) fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Compacts well-formed JSON: no white space outside of strings, and strings in their shortest
/// form.
fn compact(json: &str) -> Result<Cow<'_, str>, ValueError> {
    let is_plain_string = json.starts_with('"') && !json.contains('\\') && !json.contains(LINE_SEPARATORS);
    if is_plain_string {
        return Ok(Cow::Borrowed(json));
    }
    let mut compacted = String::with_capacity(json.len());
    let mut depth = 0;
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        let token_len = match first {
            '"' => push_string_token(&mut compacted, rest)?,
            ' ' | '\t' | '\n' | '\r' => first.len_utf8(),
            _ => {
                match first {
                    '[' | '{' => depth += 1,
                    ']' | '}' => depth -= 1,
                    _ => {}
                }
                if depth > NESTING_MAX {
                    return Err(ValueError::TooDeep);
                }
                compacted.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[token_len..];
    }
    Ok(Cow::Owned(compacted))
}

/// Copies the string token at the front of `rest`, and returns its length in `rest`.
fn push_string_token(compacted: &mut String, rest: &str) -> Result<usize, ValueError> {
    let mut is_escaped = false;
    let closing = rest.bytes().skip(1).position(|byte| {
        let closes = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        closes
    });
    let len = closing.map_or(rest.len(), |position| position + 2);
    let token = &rest[..len];
    if token.contains('\\') || token.contains(LINE_SEPARATORS) {
        let text: String = serde_json::from_str(token).map_err(|_| ValueError::LoneSurrogate)?;
        push_json_string(compacted, &text);
    } else {
        compacted.push_str(token);
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compacted(json: &str) -> Result<String, ValueError> {
        Value::from_json(json).map(|value| value.as_json().to_owned())
    }

    #[test]
    fn a_value_loses_only_its_white_space() {
        for (given, kept) in [
            (r#""chips""#, r#""chips""#),
            (r#"" two  spaces ""#, r#"" two  spaces ""#),
            (" [ 1 , 2.50 ,\t1e999,\r\n-0.0 ] ", "[1,2.50,1e999,-0.0]"),
            ("18446744073709551617", "18446744073709551617"),
            (r#"{ "b" : [ ] , "a" : { "x y" : null } }"#, r#"{"b":[],"a":{"x y":null}}"#),
            ("true", "true"),
            (r#""größe 👍""#, r#""größe 👍""#),
        ] {
            assert_eq!(compacted(given).as_deref(), Ok(kept));
        }
    }

    #[test]
    fn strings_take_their_shortest_form() {
        let escaped = [r#""\u0041\/\u00e9\ud83d\udc4d""#, r#"["a\\","\"","\u0000"]"#];
        assert_eq!(compacted(escaped[0]).as_deref(), Ok(r#""A/é👍""#));
        assert_eq!(compacted(escaped[1]).as_deref(), Ok(r#"["a\\","\"","\u0000"]"#));
    }

    /// Many programs take NEL and the separators of Unicode for the end of a line, and JSON allows
    /// them without an escape.
    #[test]
    fn line_separators_are_escaped() {
        let given = "\"a\u{85}b\u{2028}c\u{2029}d\"";
        let kept = r#""a\u0085b\u2028c\u2029d""#;
        assert_eq!(compacted(given).as_deref(), Ok(kept));
        assert_eq!(
            compacted(&format!("{{{given}:[{given}]}}")).as_deref(),
            Ok(format!("{{{kept}:[{kept}]}}").as_str())
        );
        assert_eq!(Value::from_text("a\u{85}b\u{2028}c\u{2029}d").unwrap().as_json(), kept);
        assert_eq!(compacted("\"â ‧ é\"").as_deref(), Ok("\"â ‧ é\""));
    }

    #[test]
    fn an_invalid_value_is_rejected_with_its_error() {
        for (given, error) in [
            ("null", ValueError::Null),
            ("nul", ValueError::NotJson),
            ("", ValueError::NotJson),
            (r#""\ud800""#, ValueError::LoneSurrogate),
            (r#"{"\udfff":1}"#, ValueError::LoneSurrogate),
        ] {
            assert_eq!(compacted(given), Err(error), "{given}");
        }
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(compacted(&nested(NESTING_MAX)).is_ok());
        assert_eq!(compacted(&nested(NESTING_MAX + 1)), Err(ValueError::TooDeep));
        assert!(compacted(&nested(200_000)).is_err());
    }

    #[test]
    fn lengths_are_limited_exactly() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert!(Key::new(&"k".repeat(KEY_BYTES_MAX)).is_ok());
        assert_eq!(Key::new(&"k".repeat(KEY_BYTES_MAX + 1)), Err(KeyError::TooLong));
        assert!(Value::from_text(&"v".repeat(VALUE_BYTES_MAX - 2)).is_ok());
        assert_eq!(Value::from_text(&"v".repeat(VALUE_BYTES_MAX - 1)), Err(ValueError::TooLong));
        let padded = format!("[{}1]", " ".repeat(VALUE_BYTES_MAX));
        assert_eq!(compacted(&padded).as_deref(), Ok("[1]"), "white space does not count");
    }
}
