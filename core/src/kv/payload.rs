//! The encoding of commands in the log.
//!
//! | command | payload in the log |
//! | --- | --- |
//! | put | `"op":"PUT","key":"snack","value":"chips"` |
//! | delete | `"op":"DELETE","key":"snack"`; by revision `"op":"DELETE","key":"snack","rev":7` |
//! | swap | `"op":"CAS","key":"snack","expect":"chips","value":"nuts"` (`"expect":null`: must be absent) |
//! | swap by revision | `"op":"CAS","key":"snack","rev":7,"value":"nuts"` (`"rev":0`: must be absent) |
//! | with a time to live | `"op":"PUT","key":"snack","ttl_ms":250,"value":"chips"`, and a swap likewise |
//! | time to live alone | `"op":"TOUCH","key":"snack","ttl_ms":250`, `"op":"PERSIST","key":"snack"` |
//! | tick | `"op":"TICK","time_us":7000,"applied":12,"expired":["snack"]` |
//! | increment | `"op":"INCR","key":"visits","by":1` |
//! | delete by prefix | `"op":"DELETE_PREFIX","limit":1000,"prefix":"snack/"` |
//! | transaction | `"op":"TXN","if":[…],"then":[…],"else":[…]` (see `txn`) |
//! | raised level | `"op":"LEVEL","level":1` |
//!
//! A write with a session has the client name and the sequence number after `op`:
//! `"op":"PUT","client":"c","seq":7,"key":"snack","value":"chips"`.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::command::{Command, DELETE_PREFIX_KEYS_MAX, LoggedWrite, Operation};
use super::level::Level;
use super::revision::Revision;
use super::session::{LoggedSession, Session};
use super::text::{KEY_BYTES_MAX, Key, Value, push, push_json_string};
use super::ttl::{LogTime, TICK_KEYS_MAX, Tick, Ttl, push_ttl};
use super::txn::{Expected, Txn};

impl Command {
    /// Appends the command's encoding in the log to `line`, with the session if there is one.
    pub fn write_payload(&self, session: Option<&Session>, line: &mut String) {
        line.push_str(match self {
            Self::Put { .. } | Self::PutExpiring { .. } => "\"op\":\"PUT\",",
            Self::Delete { .. } | Self::DeleteRevision { .. } => "\"op\":\"DELETE\",",
            Self::Cas { .. } | Self::CasRevision { .. } | Self::CasExpiring { .. } => "\"op\":\"CAS\",",
            Self::Touch { .. } => "\"op\":\"TOUCH\",",
            Self::Persist { .. } => "\"op\":\"PERSIST\",",
            Self::Tick(_) => "\"op\":\"TICK\",",
            Self::Incr { .. } => "\"op\":\"INCR\",",
            Self::DeletePrefix { .. } => "\"op\":\"DELETE_PREFIX\",",
            Self::Txn(_) => "\"op\":\"TXN\",",
            Self::RaiseLevel(_) => "\"op\":\"LEVEL\",",
        });
        if let Some(session) = session {
            line.push_str("\"client\":");
            push_json_string(line, session.client().as_str());
            line.push_str(",\"seq\":");
            line.push_str(&session.seq().to_string());
            line.push(',');
        }
        if let Some(key) = self.key() {
            line.push_str("\"key\":");
            push_json_string(line, key.as_str());
        }
        self.write_rest(line);
    }

    /// Appends the members after the key.
    fn write_rest(&self, line: &mut String) {
        match self {
            Self::Put { value, .. } => push_value(line, value),
            Self::Delete { .. } | Self::Persist { .. } => {}
            Self::Cas { expect, value, .. } => {
                push_expect(line, expect.as_ref());
                push_value(line, value);
            }
            Self::PutExpiring { value, ttl, .. } => {
                push_ttl(line, Some(*ttl));
                push_value(line, value);
            }
            Self::CasExpiring { expected, value, ttl, .. } => {
                match expected {
                    Expected::Absent => push_expect(line, None),
                    Expected::Value(value) => push_expect(line, Some(value)),
                    Expected::Revision(rev) => push(line, format_args!(",\"rev\":{rev}")),
                }
                push_ttl(line, Some(*ttl));
                push_value(line, value);
            }
            Self::Touch { ttl, .. } => push_ttl(line, Some(*ttl)),
            Self::Tick(tick) => {
                push(line, format_args!("\"time_us\":{},\"applied\":{}", tick.time.0, tick.applied));
                line.push_str(",\"expired\":[");
                for (position, key) in tick.expired.iter().enumerate() {
                    line.push_str(if position > 0 { "," } else { "" });
                    push_json_string(line, key.as_str());
                }
                line.push(']');
            }
            Self::DeleteRevision { rev, .. } => push(line, format_args!(",\"rev\":{rev}")),
            Self::CasRevision { rev, value, .. } => {
                push(line, format_args!(",\"rev\":{rev}"));
                push_value(line, value);
            }
            Self::Incr { by, .. } => push(line, format_args!(",\"by\":{by}")),
            Self::DeletePrefix { prefix, keys_max } => {
                push(line, format_args!("\"limit\":{keys_max},\"prefix\":"));
                push_json_string(line, prefix);
            }
            Self::Txn(txn) => txn.push_json(line),
            Self::RaiseLevel(Level(level)) => push(line, format_args!("\"level\":{level}")),
        }
    }
}

fn push_expect(line: &mut String, expect: Option<&Value>) {
    line.push_str(",\"expect\":");
    line.push_str(expect.map_or("null", Value::as_json));
}

fn push_value(line: &mut String, value: &Value) {
    line.push_str(",\"value\":");
    line.push_str(value.as_json());
}

impl<'a> LoggedWrite<'a> {
    /// Parses a payload from the log; `None` when it is not a command of this version.
    #[must_use]
    pub fn read(payload: &'a str) -> Option<Self> {
        if let Some(rest) = payload.strip_prefix("\"op\":\"PUT\",") {
            let (session, key, rest) = take_session_and_key(rest)?;
            let operation = match rest.strip_prefix(",\"value\":") {
                Some(value) => Operation::Put { key, value },
                None => {
                    let ((ttl, value), key) = (take_ttl_and_value(rest)?, Key::new(&key).ok()?);
                    Operation::Other(Command::PutExpiring { key, value, ttl })
                }
            };
            return Some(Self { session, operation });
        }
        if let Some(rest) = payload.strip_prefix("\"op\":\"DELETE\",") {
            let (session, key, rest) = take_session_and_key(rest)?;
            let operation = match rest.strip_prefix(",\"rev\":") {
                None if rest.is_empty() => Operation::Delete { key },
                None => return None,
                Some(digits) => {
                    let (key, rev) = (Key::new(&key).ok()?, Revision(read_number(digits)?));
                    Operation::Other(Command::DeleteRevision { key, rev })
                }
            };
            return Some(Self { session, operation });
        }
        let Some(rest) = payload.strip_prefix("\"op\":\"CAS\",") else { return Self::read_other(payload) };
        let (session, key, rest) = take_session_and_key(rest)?;
        if let Some(rest) = rest.strip_prefix(",\"rev\":") {
            let (digits, _) = rest.split_once(',')?;
            let (key, rev) = (Key::new(&key).ok()?, Revision(read_number(digits)?));
            let command = swap(key, Expected::Revision(rev), &rest[digits.len()..])?;
            return Some(Self { session, operation: Operation::Other(command) });
        }
        let (expect, rest) = take_json(rest.strip_prefix(",\"expect\":")?)?;
        let expect = (expect != "null").then_some(expect);
        let Some(value) = rest.strip_prefix(",\"value\":") else {
            let expected = match expect {
                None => Expected::Absent,
                Some(json) => Expected::Value(Value::from_json(json).ok()?),
            };
            let command = swap(Key::new(&key).ok()?, expected, rest)?;
            return Some(Self { session, operation: Operation::Other(command) });
        };
        Some(Self { session, operation: Operation::Cas { key, expect, value } })
    }

    /// Parses the payload of a rarer command.
    fn read_other(payload: &'a str) -> Option<Self> {
        let (op, rest) = payload.strip_prefix("\"op\":\"")?.split_once("\",")?;
        let (session, rest) = take_session(rest)?;
        let command = match op {
            "INCR" => {
                let (key, rest) = take_string(rest.strip_prefix("\"key\":")?)?;
                let by = rest.strip_prefix(",\"by\":")?.parse().ok()?;
                Command::Incr { key: Key::new(&key).ok()?, by }
            }
            "DELETE_PREFIX" => {
                let (digits, rest) = rest.strip_prefix("\"limit\":")?.split_once(',')?;
                let keys_max = u32::try_from(read_number(digits)?).ok()?;
                let (prefix, rest) = take_string(rest.strip_prefix("\"prefix\":")?)?;
                let is_limited = (1..=DELETE_PREFIX_KEYS_MAX).contains(&keys_max)
                    && prefix.len() <= KEY_BYTES_MAX
                    && rest.is_empty();
                is_limited.then(|| Command::DeletePrefix { prefix: prefix.into(), keys_max })?
            }
            "TXN" => {
                let (conditions, rest) = take_json(rest.strip_prefix("\"if\":")?)?;
                let (then, rest) = take_json(rest.strip_prefix(",\"then\":")?)?;
                let (otherwise, rest) = take_json(rest.strip_prefix(",\"else\":")?)?;
                let txn = Txn::from_json(Some(conditions), Some(then), Some(otherwise)).ok()?;
                rest.is_empty().then(|| Command::Txn(Arc::new(txn)))?
            }
            "TOUCH" => {
                let (key, rest) = take_string(rest.strip_prefix("\"key\":")?)?;
                let ttl = Ttl::from_ms(read_number(rest.strip_prefix(",\"ttl_ms\":")?)?)?;
                Command::Touch { key: Key::new(&key).ok()?, ttl }
            }
            "PERSIST" => {
                let (key, rest) = take_string(rest.strip_prefix("\"key\":")?)?;
                rest.is_empty().then_some(Command::Persist { key: Key::new(&key).ok()? })?
            }
            "TICK" => {
                let tick = read_tick(rest)?;
                session.is_none().then(|| Command::Tick(Arc::new(tick)))?
            }
            "LEVEL" => {
                let level = Level(read_number(rest.strip_prefix("\"level\":")?)?);
                let is_known = Level::FIRST < level && level <= Level::MAX;
                (is_known && session.is_none()).then_some(Command::RaiseLevel(level))?
            }
            _ => return None,
        };
        Some(Self { session, operation: Operation::Other(command) })
    }
}

/// Parses the rest of a swap that has a time to live, or depends on a revision.
fn swap(key: Key, expected: Expected, rest: &str) -> Option<Command> {
    match (rest.strip_prefix(",\"value\":"), expected) {
        (Some(json), Expected::Revision(rev)) => {
            Some(Command::CasRevision { key, rev, value: Value::from_json(json).ok()? })
        }
        (Some(_), _) => None,
        (None, expected) => {
            let (ttl, value) = take_ttl_and_value(rest)?;
            Some(Command::CasExpiring { key, expected, value, ttl })
        }
    }
}

/// Parses the members of a time to live and a value, which end a payload.
fn take_ttl_and_value(text: &str) -> Option<(Ttl, Value)> {
    let (digits, json) = text.strip_prefix(",\"ttl_ms\":")?.split_once(",\"value\":")?;
    Some((Ttl::from_ms(read_number(digits)?)?, Value::from_json(json).ok()?))
}

fn read_tick(text: &str) -> Option<Tick> {
    let (time, rest) = text.strip_prefix("\"time_us\":")?.split_once(',')?;
    let (applied, keys) = rest.strip_prefix("\"applied\":")?.split_once(",\"expired\":")?;
    let (time, applied) = (LogTime(read_number(time)?), Revision(read_number(applied)?));
    let keys: Vec<Cow<'_, str>> = serde_json::from_str(keys).ok()?;
    let is_limited = keys.len() <= TICK_KEYS_MAX && time.is_plausible() && applied <= Revision::MAX;
    let expired = keys.iter().map(|key| Key::new(key).ok()).collect::<Option<_>>()?;
    is_limited.then_some(Tick { time, applied, expired })
}

/// The part of a payload between `op` and the other members, parsed: the session, if any, the key,
/// and the rest of the text.
type Front<'a> = (Option<LoggedSession<'a>>, Cow<'a, str>, &'a str);

#[inline]
fn take_session_and_key(text: &str) -> Option<Front<'_>> {
    let Some(rest) = text.strip_prefix("\"key\":") else { return take_both(text) };
    let (key, rest) = take_string(rest)?;
    Some((None, key, rest))
}

/// A separate function, so that parsing a line without a session does not become slower.
#[inline(never)]
fn take_both(text: &str) -> Option<Front<'_>> {
    let (session, rest) = take_session(text)?;
    let (key, rest) = take_string(rest.strip_prefix("\"key\":")?)?;
    Some((session, key, rest))
}

/// Parses the session at the front of `text`, if there is one.
fn take_session(text: &str) -> Option<(Option<LoggedSession<'_>>, &str)> {
    let Some(rest) = text.strip_prefix("\"client\":") else { return Some((None, text)) };
    let (client, rest) = take_string(rest)?;
    let (digits, rest) = rest.strip_prefix(",\"seq\":")?.split_once(',')?;
    Some((Some(LoggedSession::checked(client, read_number(digits)?)?), rest))
}

/// Parses a number in canonical form: only digits, and no leading zero.
pub(super) fn read_number(digits: &str) -> Option<u64> {
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
    use crate::kv::command::Write;
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
    fn the_rarer_payloads_are_encoded_as_documented() {
        let commands = others(&key("a\"b"), &value("[1, 2]"));
        let expected = [
            r#""op":"DELETE","client":"c","seq":7,"key":"a\"b","rev":7"#,
            r#""op":"CAS","client":"c","seq":7,"key":"a\"b","rev":0,"value":[1,2]"#,
            r#""op":"INCR","client":"c","seq":7,"key":"a\"b","by":-9223372036854775808"#,
            r#""op":"DELETE_PREFIX","client":"c","seq":7,"limit":1000,"prefix":"a\"b""#,
            r#""op":"TXN","client":"c","seq":7,"if":[{"key":"a\"b","rev":7}],"then":[],"else":[]"#,
            r#""op":"PUT","client":"c","seq":7,"key":"a\"b","ttl_ms":250,"value":[1,2]"#,
            r#""op":"CAS","client":"c","seq":7,"key":"a\"b","expect":null,"ttl_ms":250,"value":[1,2]"#,
            r#""op":"CAS","client":"c","seq":7,"key":"a\"b","expect":[1,2],"ttl_ms":250,"value":[1,2]"#,
            r#""op":"CAS","client":"c","seq":7,"key":"a\"b","rev":7,"ttl_ms":250,"value":[1,2]"#,
            r#""op":"TOUCH","client":"c","seq":7,"key":"a\"b","ttl_ms":250"#,
            r#""op":"PERSIST","client":"c","seq":7,"key":"a\"b""#,
        ];
        for (command, expected) in commands.iter().zip(expected) {
            assert_eq!(payload_of(Some(&session("c", 7)), command), expected);
            assert_eq!(payload(command), expected.replace(r#""client":"c","seq":7,"#, ""));
        }
        assert_eq!(payload(&Command::RaiseLevel(Level::REVISIONS)), r#""op":"LEVEL","level":1"#);
        let tick = Tick { time: LogTime(7000), applied: Revision(12), expired: vec![key("a\"b"), key("c")] };
        let text = r#""op":"TICK","time_us":7000,"applied":12,"expired":["a\"b","c"]"#;
        let tick = Command::Tick(Arc::new(tick));
        assert_eq!(payload(&tick), text);
        assert_eq!(Write::checked(text).map(|write| write.command), Ok(tick));
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
            assert_eq!(Write::checked(&payload).map(|write| write.command), Ok(command.clone()));
        };
        let put = Command::Put { key: key.clone(), value: value.clone() };
        expects(&put, Operation::Put { key: text.into(), value: value.as_json() });
        expects(&Command::Delete { key: key.clone() }, Operation::Delete { key: text.into() });
        for expect in [None, Some(value.clone())] {
            let cas = Command::Cas { key: key.clone(), expect: expect.clone(), value: value.clone() };
            let expect = expect.as_ref().map(Value::as_json);
            expects(&cas, Operation::Cas { key: text.into(), expect, value: value.as_json() });
        }
        for command in others(&key, &value) {
            expects(&command, Operation::Other(command.clone()));
        }
    }

    /// One command of each kind that is parsed into a [`Command`] at once.
    fn others(key: &Key, value: &Value) -> Vec<Command> {
        let condition = format!(r#"[{{"key":{},"rev":7}}]"#, serde_json::to_string(key.as_str()).unwrap());
        let ttl = Ttl::from_ms(250).unwrap();
        let expiring =
            |expected| Command::CasExpiring { key: key.clone(), expected, value: value.clone(), ttl };
        vec![
            Command::DeleteRevision { key: key.clone(), rev: Revision(7) },
            Command::CasRevision { key: key.clone(), rev: Revision::NONE, value: value.clone() },
            Command::Incr { key: key.clone(), by: i64::MIN },
            Command::DeletePrefix { prefix: key.as_str().into(), keys_max: DELETE_PREFIX_KEYS_MAX },
            Command::Txn(Arc::new(Txn::from_json(Some(&condition), None, None).unwrap())),
            Command::PutExpiring { key: key.clone(), value: value.clone(), ttl },
            expiring(Expected::Absent),
            expiring(Expected::Value(value.clone())),
            expiring(Expected::Revision(Revision(7))),
            Command::Touch { key: key.clone(), ttl },
            Command::Persist { key: key.clone() },
        ]
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
            r#""op":"DELETE","key":"a","rev":-1"#,
            r#""op":"DELETE","key":"a","rev":01"#,
            r#""op":"DELETE","key":"","rev":1"#,
            r#""op":"CAS","key":"a","rev":1,"value":null"#,
            r#""op":"CAS","key":"a","rev":1,"expect":1,"value":1"#,
            r#""op":"INCR","key":"a","by":1.5"#,
            r#""op":"INCR","key":"a","by":9223372036854775808"#,
            r#""op":"INCR","key":"","by":1"#,
            r#""op":"DELETE_PREFIX","limit":0,"prefix":"a""#,
            r#""op":"DELETE_PREFIX","limit":1001,"prefix":"a""#,
            r#""op":"DELETE_PREFIX","limit":1,"prefix":"a","x":1"#,
            r#""op":"TXN","if":[],"then":[]"#,
            r#""op":"TXN","if":[],"then":[1],"else":[]"#,
            r#""op":"TXN","if":[],"then":[],"else":[],"x":1"#,
            r#""op":"LEVEL","level":0"#,
            r#""op":"LEVEL","level":2"#,
            r#""op":"LEVEL","client":"c","seq":1,"level":1"#,
        ];
        for other in others {
            assert_eq!(LoggedWrite::read(other), None, "{other}");
        }
        let long = format!(r#""op":"DELETE_PREFIX","limit":1,"prefix":"{}""#, "p".repeat(KEY_BYTES_MAX + 1));
        assert_eq!(LoggedWrite::read(&long), None);
        let long =
            format!(r#""op":"DELETE","client":"{}","seq":1,"key":"a""#, "c".repeat(CLIENT_BYTES_MAX + 1));
        assert_eq!(LoggedWrite::read(&long), None);
    }
}
