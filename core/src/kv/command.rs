//! Commands: what a client wants done to the store, and its form in the log.
//!
//! | command | payload in the log |
//! | --- | --- |
//! | put | `"op":"PUT","key":"snack","value":"chips"` |
//! | delete | `"op":"DELETE","key":"snack"` |
//! | swap | `"op":"CAS","key":"snack","expect":"chips","value":"nuts"` (`"expect":null`: must be absent) |

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::text::{Key, Value, push_json_string};

/// A change that a client asks for, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Set the key to the value.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Value,
    },
    /// Remove the key.
    Delete {
        /// The key.
        key: Key,
    },
    /// Set the key to the value if it has the expected one now (compare and swap). Values are compared as text.
    Cas {
        /// The key.
        key: Key,
        /// What it must hold; `None`: it must be absent.
        expect: Option<Value>,
        /// Its new value.
        value: Value,
    },
}

impl Command {
    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::Cas { key, .. } => key,
        }
    }

    /// Bytes of keys and values in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let (expect, value) = match self {
            Self::Put { value, .. } => (None, Some(value)),
            Self::Delete { .. } => (None, None),
            Self::Cas { expect, value, .. } => (expect.as_ref(), Some(value)),
        };
        let len = |value: Option<&Value>| value.map_or(0, |value| value.as_json().len());
        self.key().as_str().len() + len(expect) + len(value)
    }

    /// Appends the command's form in the log to `line`.
    pub fn write_payload(&self, line: &mut String) {
        let push_value = |line: &mut String, value: &Value| {
            line.push_str(",\"value\":");
            line.push_str(value.as_json());
        };
        match self {
            Self::Put { key, value } => {
                line.push_str("\"op\":\"PUT\",\"key\":");
                push_json_string(line, key.as_str());
                push_value(line, value);
            }
            Self::Delete { key } => {
                line.push_str("\"op\":\"DELETE\",\"key\":");
                push_json_string(line, key.as_str());
            }
            Self::Cas { key, expect, value } => {
                line.push_str("\"op\":\"CAS\",\"key\":");
                push_json_string(line, key.as_str());
                line.push_str(",\"expect\":");
                line.push_str(expect.as_ref().map_or("null", Value::as_json));
                push_value(line, value);
            }
        }
    }
}

/// A command as it is read from the log, borrowed from its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// See [`Command::Put`].
    Put {
        /// The key.
        key: Cow<'a, str>,
        /// The value as JSON text.
        value: &'a str,
    },
    /// See [`Command::Delete`].
    Delete {
        /// The key.
        key: Cow<'a, str>,
    },
    /// See [`Command::Cas`].
    Cas {
        /// The key.
        key: Cow<'a, str>,
        /// What it must hold, as JSON text.
        expect: Option<&'a str>,
        /// The new value as JSON text.
        value: &'a str,
    },
}

impl<'a> Operation<'a> {
    /// Reads a payload from the log; `None` when it is no command of this version.
    #[must_use]
    pub fn read(payload: &'a str) -> Option<Self> {
        if let Some(rest) = payload.strip_prefix("\"op\":\"PUT\",\"key\":") {
            let (key, rest) = take_key(rest)?;
            return Some(Self::Put { key, value: rest.strip_prefix(",\"value\":")? });
        }
        if let Some(rest) = payload.strip_prefix("\"op\":\"DELETE\",\"key\":") {
            let (key, rest) = take_key(rest)?;
            return rest.is_empty().then_some(Self::Delete { key });
        }
        let (key, rest) = take_key(payload.strip_prefix("\"op\":\"CAS\",\"key\":")?)?;
        let (expect, rest) = take_json(rest.strip_prefix(",\"expect\":")?)?;
        let value = rest.strip_prefix(",\"value\":")?;
        Some(Self::Cas { key, expect: (expect != "null").then_some(expect), value })
    }
}

/// Takes a key from the front of `text`. Only keys with an escape need a parser.
fn take_key(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let (key, rest) = text.strip_prefix('"')?.split_once('"')?;
    if !key.contains('\\') {
        return Some((Cow::Borrowed(key), rest));
    }
    let (token, rest) = take_json(text)?;
    Some((Cow::Owned(serde_json::from_str(token).ok()?), rest))
}

/// Takes a JSON value from the front of `text`.
fn take_json(text: &str) -> Option<(&str, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let value = values.next()?.ok()?;
    Some((value.get(), &text[values.byte_offset()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn value(json: &str) -> Value {
        Value::from_json(json).unwrap()
    }

    fn payload(command: &Command) -> String {
        let mut line = String::new();
        command.write_payload(&mut line);
        line
    }

    #[test]
    fn payloads_read_as_the_contract_says() {
        let put = Command::Put { key: key("snack"), value: value("\"chips\"") };
        assert_eq!(payload(&put), r#""op":"PUT","key":"snack","value":"chips""#);
        let delete = Command::Delete { key: key("a\"b") };
        assert_eq!(payload(&delete), r#""op":"DELETE","key":"a\"b""#);
        let cas = Command::Cas { key: key("k"), expect: None, value: value("[1, 2]") };
        assert_eq!(payload(&cas), r#""op":"CAS","key":"k","expect":null,"value":[1,2]"#);
    }

    #[test]
    fn what_was_written_is_read() {
        let keys = ["snack", "größe", "a\"b\\", "\u{0}\n", "\",\"value\":1", "{\"op\":"];
        let values = [
            r#""chips""#,
            "1e999",
            "-0.5",
            r#"{"value":",\"value\":","x":[]}"#,
            r#""\",\"value\":2""#,
            "true",
        ];
        for text in keys {
            for json in values {
                let (key, value) = (key(text), value(json));
                let json = value.as_json();
                let put = payload(&Command::Put { key: key.clone(), value: value.clone() });
                assert_eq!(Operation::read(&put), Some(Operation::Put { key: text.into(), value: json }));
                let delete = payload(&Command::Delete { key: key.clone() });
                assert_eq!(Operation::read(&delete), Some(Operation::Delete { key: text.into() }));
                for expect in [None, Some(value.clone())] {
                    let command =
                        Command::Cas { key: key.clone(), expect: expect.clone(), value: value.clone() };
                    let expect = expect.as_ref().map(Value::as_json);
                    let read = Operation::Cas { key: text.into(), expect, value: json };
                    assert_eq!(Operation::read(&payload(&command)), Some(read));
                }
            }
        }
    }

    #[test]
    fn other_payloads_are_no_commands() {
        for other in
            ["", "\"op\":\"NOOP\"", "\"op\":\"DELETE\",\"key\":\"a\",\"x\":1", "\"op\":\"PUT\",\"key\":1"]
        {
            assert_eq!(Operation::read(other), None, "{other}");
        }
    }
}
