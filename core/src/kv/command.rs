//! Commands: the writes put, delete and compare-and-swap (CAS), and their encoding in the log.
//!
//! | command | payload in the log |
//! | --- | --- |
//! | put | `"op":"PUT","key":"snack","value":"chips"` |
//! | delete | `"op":"DELETE","key":"snack"` |
//! | swap | `"op":"CAS","key":"snack","expect":"chips","value":"nuts"` (`"expect":null`: must be absent) |
//!
//! A write with a session has the client name and the sequence number before the key:
//! `"op":"PUT","client":"c","seq":7,"key":"snack","value":"chips"`.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::session::{LoggedSession, Session};
use super::text::{Key, Value, push_json_string};

/// A checked write command of a client.
///
/// ```
/// use coracle_core::kv::{Command, Key, Value};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Sets the key only if it is absent.
/// let key = Key::new("lock")?;
/// let acquire = Command::Cas { key, expect: None, value: Value::from_text("till-4")? };
/// assert_eq!(acquire.key().as_str(), "lock");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets the key to the value.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Value,
    },
    /// Removes the key.
    Delete {
        /// The key.
        key: Key,
    },
    /// Compare-and-swap: sets the key to the value if its current value is the expected one. Values
    /// are compared as text.
    Cas {
        /// The key.
        key: Key,
        /// The expected value; `None`: the key must be absent.
        expect: Option<Value>,
        /// Its new value.
        value: Value,
    },
}

impl Command {
    /// The key that the command reads or changes.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::Cas { key, .. } => key,
        }
    }

    /// The number of bytes of keys and values in the command.
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

    /// Appends the command's encoding in the log to `line`, with the session if there is one.
    pub fn write_payload(&self, session: Option<&Session>, line: &mut String) {
        line.push_str(match self {
            Self::Put { .. } => "\"op\":\"PUT\",",
            Self::Delete { .. } => "\"op\":\"DELETE\",",
            Self::Cas { .. } => "\"op\":\"CAS\",",
        });
        if let Some(session) = session {
            line.push_str("\"client\":");
            push_json_string(line, session.client().as_str());
            line.push_str(",\"seq\":");
            line.push_str(&session.seq().to_string());
            line.push(',');
        }
        line.push_str("\"key\":");
        push_json_string(line, self.key().as_str());
        if let Self::Cas { expect, .. } = self {
            line.push_str(",\"expect\":");
            line.push_str(expect.as_ref().map_or("null", Value::as_json));
        }
        if let Self::Put { value, .. } | Self::Cas { value, .. } = self {
            line.push_str(",\"value\":");
            line.push_str(value.as_json());
        }
    }
}

/// A command as parsed from the log, borrowed from its line.
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
        /// The expected value as JSON text; `None`: the key must be absent.
        expect: Option<&'a str>,
        /// The new value as JSON text.
        value: &'a str,
    },
}

impl Operation<'_> {
    /// The key that the operation reads or changes.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::Cas { key, .. } => key,
        }
    }
}

/// A command with its session, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The client name and sequence number, if the client sent them.
    pub session: Option<Session>,
    /// The command to execute.
    pub command: Command,
}

/// A write as parsed from the log, borrowed from its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedWrite<'a> {
    /// The client name and sequence number, if the client sent them.
    pub session: Option<LoggedSession<'a>>,
    /// The operation to execute.
    pub operation: Operation<'a>,
}

impl<'a> LoggedWrite<'a> {
    /// Parses a payload from the log; `None` when it is not a command of this version.
    #[must_use]
    pub fn read(payload: &'a str) -> Option<Self> {
        if let Some(rest) = payload.strip_prefix("\"op\":\"PUT\",") {
            let (session, key, rest) = take_session_and_key(rest)?;
            let operation = Operation::Put { key, value: rest.strip_prefix(",\"value\":")? };
            return Some(Self { session, operation });
        }
        if let Some(rest) = payload.strip_prefix("\"op\":\"DELETE\",") {
            let (session, key, rest) = take_session_and_key(rest)?;
            return rest.is_empty().then_some(Self { session, operation: Operation::Delete { key } });
        }
        let (session, key, rest) = take_session_and_key(payload.strip_prefix("\"op\":\"CAS\",")?)?;
        let (expect, rest) = take_json(rest.strip_prefix(",\"expect\":")?)?;
        let value = rest.strip_prefix(",\"value\":")?;
        let expect = (expect != "null").then_some(expect);
        Some(Self { session, operation: Operation::Cas { key, expect, value } })
    }
}

impl From<LoggedWrite<'_>> for Write {
    fn from(LoggedWrite { session, operation }: LoggedWrite<'_>) -> Self {
        let key = Key::from_log(operation.key());
        let command = match operation {
            Operation::Put { value, .. } => Command::Put { key, value: Value::from_log(value) },
            Operation::Delete { .. } => Command::Delete { key },
            Operation::Cas { expect, value, .. } => {
                Command::Cas { key, expect: expect.map(Value::from_log), value: Value::from_log(value) }
            }
        };
        Self { session: session.map(Session::from), command }
    }
}

/// The part of a payload between `op` and the other members, parsed: the session, if any, the key,
/// and the rest of the text.
type Front<'a> = (Option<LoggedSession<'a>>, Cow<'a, str>, &'a str);

#[inline]
fn take_session_and_key(text: &str) -> Option<Front<'_>> {
    let Some(rest) = text.strip_prefix("\"key\":") else { return take_session(text) };
    let (key, rest) = take_string(rest)?;
    Some((None, key, rest))
}

/// A separate function, so that parsing a line without a session does not become slower.
#[inline(never)]
fn take_session(text: &str) -> Option<Front<'_>> {
    let (client, rest) = take_string(text.strip_prefix("\"client\":")?)?;
    let (digits, rest) = rest.strip_prefix(",\"seq\":")?.split_once(',')?;
    let session = LoggedSession::checked(client, read_number(digits)?)?;
    let (key, rest) = take_string(rest.strip_prefix("\"key\":")?)?;
    Some((Some(session), key, rest))
}

/// Parses a number in canonical form: only digits, and no leading zero.
fn read_number(digits: &str) -> Option<u64> {
    let is_canonical =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if is_canonical { digits.parse().ok() } else { None }
}

/// Parses a string at the front of `text`, and returns it with the rest. Only a string with an
/// escape needs the JSON parser.
pub(super) fn take_string(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let (string, rest) = text.strip_prefix('"')?.split_once('"')?;
    if !string.contains('\\') {
        return Some((Cow::Borrowed(string), rest));
    }
    let (token, rest) = take_json(text)?;
    Some((Cow::Owned(serde_json::from_str(token).ok()?), rest))
}

/// Splits a JSON value off the front of `text`.
fn take_json(text: &str) -> Option<(&str, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let value = values.next()?.ok()?;
    Some((value.get(), &text[values.byte_offset()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::session::{CLIENT_BYTES_MAX, ClientName, SEQ_MAX};

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn value(json: &str) -> Value {
        Value::from_json(json).unwrap()
    }

    fn session(client: &str, seq: u64) -> Session {
        Session::new(ClientName::new(client).unwrap(), seq).unwrap()
    }

    fn payload(command: &Command) -> String {
        payload_of(None, command)
    }

    fn payload_of(session: Option<&Session>, command: &Command) -> String {
        let mut line = String::new();
        command.write_payload(session, &mut line);
        line
    }

    #[test]
    fn payloads_are_encoded_as_documented() {
        let put = Command::Put { key: key("snack"), value: value("\"chips\"") };
        assert_eq!(payload(&put), r#""op":"PUT","key":"snack","value":"chips""#);
        let delete = Command::Delete { key: key("a\"b") };
        assert_eq!(payload(&delete), r#""op":"DELETE","key":"a\"b""#);
        let cas = Command::Cas { key: key("k"), expect: None, value: value("[1, 2]") };
        assert_eq!(payload(&cas), r#""op":"CAS","key":"k","expect":null,"value":[1,2]"#);
        let of_c = payload_of(Some(&session("c", 7)), &put);
        assert_eq!(of_c, r#""op":"PUT","client":"c","seq":7,"key":"snack","value":"chips""#);
        let of_c = payload_of(Some(&session("\"", 0)), &delete);
        assert_eq!(of_c, r#""op":"DELETE","client":"\"","seq":0,"key":"a\"b""#);
        let of_c = payload_of(Some(&session("c", SEQ_MAX)), &cas);
        assert_eq!(
            of_c,
            r#""op":"CAS","client":"c","seq":9007199254740992,"key":"k","expect":null,"value":[1,2]"#
        );
    }

    #[test]
    fn an_encoded_command_is_parsed_back() {
        let texts = ["snack", "größe", "a\"b\\", "\u{0}\n", "\",\"value\":1", "\",\"key\":\"", "{\"op\":"];
        let values = [
            r#""chips""#,
            "1e999",
            "-0.5",
            r#"{"value":",\"value\":","x":[]}"#,
            r#""\",\"value\":2""#,
            "true",
        ];
        let sessions = texts.map(|client| Some(session(client, client.len() as u64)));
        for session in sessions.into_iter().chain([None]) {
            for text in texts {
                for json in values {
                    check_reading(session.as_ref(), text, json);
                }
            }
        }
    }

    fn check_reading(session: Option<&Session>, text: &str, json: &str) {
        let (key, value) = (key(text), value(json));
        let expects = |command: &Command, operation: Operation<'_>| {
            let payload = payload_of(session, command);
            let session = session.map(LoggedSession::from);
            assert_eq!(LoggedWrite::read(&payload), Some(LoggedWrite { session, operation }), "{payload}");
        };
        let put = Command::Put { key: key.clone(), value: value.clone() };
        expects(&put, Operation::Put { key: text.into(), value: value.as_json() });
        expects(&Command::Delete { key: key.clone() }, Operation::Delete { key: text.into() });
        for expect in [None, Some(value.clone())] {
            let cas = Command::Cas { key: key.clone(), expect: expect.clone(), value: value.clone() };
            let expect = expect.as_ref().map(Value::as_json);
            expects(&cas, Operation::Cas { key: text.into(), expect, value: value.as_json() });
        }
    }

    #[test]
    fn other_payloads_are_rejected() {
        let others = [
            "",
            r#""op":"NOOP""#,
            r#""op":"DELETE","key":"a","x":1"#,
            r#""op":"PUT","key":1"#,
            r#""op":"PUT","client":"c","key":"a","value":1"#,
            r#""op":"PUT","seq":1,"key":"a","value":1"#,
            r#""op":"PUT","client":"","seq":1,"key":"a","value":1"#,
            r#""op":"PUT","client":"c","seq":-1,"key":"a","value":1"#,
            r#""op":"PUT","client":"c","seq":+1,"key":"a","value":1"#,
            r#""op":"PUT","client":"c","seq":01,"key":"a","value":1"#,
            r#""op":"PUT","client":"c","seq":,"key":"a","value":1"#,
            r#""op":"PUT","client":"c","seq":9007199254740993,"key":"a","value":1"#,
            r#""op":"DELETE","client":"c","seq":1"#,
        ];
        for other in others {
            assert_eq!(LoggedWrite::read(other), None, "{other}");
        }
        let long =
            format!(r#""op":"DELETE","client":"{}","seq":1,"key":"a""#, "c".repeat(CLIENT_BYTES_MAX + 1));
        assert_eq!(LoggedWrite::read(&long), None);
    }
}
