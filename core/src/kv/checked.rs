//! Strict parsing of files: accepts exactly the text that this program writes, and returns the
//! reason why any other text is rejected.
//!
//! A checksum proves that text is unchanged since it was written, not that this program wrote it. A
//! file that another program made, or that was edited and got a new checksum, may hold a value that
//! is not JSON, an empty key, or a sequence number that overflows with the next write. Such a fault
//! would be noticed long after the start, and on all nodes at once. So files are checked here
//! before they are used.
//!
//! There is one rule: what was parsed is encoded again, and the result must be the same text. So
//! the reader checks each command or limit that is added to the writer, without a change to the
//! reader.
//!
//! Deliberately not used for log lines that are about to be applied: those were checked when they
//! were proposed, or when they were read from the disk.

use std::fmt;

use super::command::{Command, LoggedWrite, Operation, Write, take_string};
use super::session::Session;
use super::session_table::{SessionLimits, SessionLineError, SessionTable};
use super::text::{Key, KeyError, Value, ValueError, push_json_string};
use crate::mutant::{self, Mutant};

/// The reason why text is not in the form that this program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextError {
    /// The text is not a command, or not a key with a value, of this version.
    Unknown,
    /// The key is not one that a client could have sent.
    Key(KeyError),
    /// The value is not one that a client could have sent.
    Value(ValueError),
    /// The text can be parsed, but this program would have written it differently.
    Form,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("this version cannot parse it; a later version may have written it"),
            Self::Key(error) => error.fmt(f),
            Self::Value(error) => error.fmt(f),
            Self::Form => f.write_str("its text is not in canonical form"),
        }
    }
}

impl std::error::Error for TextError {}

/// The reason why a line is not the next line of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateLineError {
    /// The line is not a key with its value.
    Pair(TextError),
    /// The line is out of order: keys ascend, each once, and sessions come before all keys.
    Order,
    /// The line is not a line of the session table, or does not fit the lines before it.
    Session(SessionLineError),
}

impl fmt::Display for StateLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair(fault) => fault.fmt(f),
            Self::Order => {
                f.write_str("it is out of order: sessions come first, then keys, ascending and each once")
            }
            Self::Session(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StateLineError {}

impl Write {
    /// Parses a payload from a file.
    ///
    /// # Errors
    ///
    /// [`TextError`] when the payload is not a command, or differs from the text that
    /// [`Command::write_payload`] makes of the command.
    pub fn checked(payload: &str) -> Result<Self, TextError> {
        let LoggedWrite { session, operation } = LoggedWrite::read(payload).ok_or(TextError::Unknown)?;
        let key = Key::new(operation.key()).map_err(TextError::Key)?;
        let command = match operation {
            Operation::Put { value, .. } => Command::Put { key, value: checked_value(value)? },
            Operation::Delete { .. } => Command::Delete { key },
            Operation::Cas { expect, value, .. } => Command::Cas {
                key,
                expect: expect.map(checked_value).transpose()?,
                value: checked_value(value)?,
            },
        };
        let session = session.map(Session::from);
        let mut written = String::with_capacity(payload.len());
        command.write_payload(session.as_ref(), &mut written);
        if written == payload { Ok(Self { session, command }) } else { Err(TextError::Form) }
    }
}

fn checked_value(json: &str) -> Result<Value, TextError> {
    let value = Value::from_json(json).map_err(TextError::Value)?;
    if value.as_json() == json { Ok(value) } else { Err(TextError::Form) }
}

/// Parses a line of a state into a key and its value.
pub(super) fn read_pair(line: &str) -> Result<(Key, Value), TextError> {
    let text = line.strip_prefix("{\"key\":").ok_or(TextError::Unknown)?;
    let (key, rest) = take_string(text).ok_or(TextError::Unknown)?;
    let json = rest.strip_prefix(",\"value\":").and_then(|rest| rest.strip_suffix('}'));
    let value = checked_value(json.ok_or(TextError::Unknown)?)?;
    let key = Key::new(&key).map_err(TextError::Key)?;
    let mut written = String::with_capacity(text.len() - rest.len());
    push_json_string(&mut written, key.as_str());
    let is_written_so = text.strip_suffix(rest) == Some(written.as_str());
    if is_written_so { Ok((key, value)) } else { Err(TextError::Form) }
}

/// Accepts the next line of a state, after `last_key`: a session is added to `sessions`, a key and
/// its value are returned.
pub(super) fn accept_line(
    line: &str,
    sessions: &mut SessionTable,
    last_key: Option<&Key>,
) -> Result<Option<(Key, Value)>, StateLineError> {
    if line.starts_with("{\"key\":") {
        let (key, value) = read_pair(line).map_err(StateLineError::Pair)?;
        let is_next = last_key.is_none_or(|last| *last < key);
        return if is_next { Ok(Some((key, value))) } else { Err(StateLineError::Order) };
    }
    restore_unless_mutant(sessions, line).map_err(StateLineError::Session)?;
    if last_key.is_none() { Ok(None) } else { Err(StateLineError::Order) }
}

/// Checks the lines of a state one by one, without building its map, because a file may be as large
/// as all the data of a node.
#[derive(Debug)]
pub struct StateLines {
    sessions: SessionTable,
    last_key: Option<Key>,
    keys: usize,
}

impl StateLines {
    /// A checker before the first line. The limits are those of the state.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self { sessions: SessionTable::new(limits), last_key: None, keys: 0 }
    }

    /// Checks the next line, without its line break.
    ///
    /// # Errors
    ///
    /// [`StateLineError`] when it is not the next line that a state would write.
    pub fn check(&mut self, line: &str) -> Result<(), StateLineError> {
        if let Some((key, _)) = accept_line(line, &mut self.sessions, self.last_key.as_ref())? {
            self.last_key = Some(key);
            self.keys += 1;
        }
        Ok(())
    }

    /// The number of keys so far.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys
    }
}

/// Adds the session of a line; deliberate bug: leaves it out.
fn restore_unless_mutant(sessions: &mut SessionTable, line: &str) -> Result<(), SessionLineError> {
    if mutant::is_active(Mutant::SessionsLeftOut) { Ok(()) } else { sessions.restore(line) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::text::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

    #[test]
    fn a_payload_that_was_never_proposed_is_rejected_with_its_fault() {
        let long_key = format!(r#""op":"PUT","key":"{}","value":1"#, "k".repeat(KEY_BYTES_MAX + 1));
        let long_value = format!(r#""op":"PUT","key":"k","value":"{}""#, "v".repeat(VALUE_BYTES_MAX));
        for (payload, fault) in [
            (r#""op":"PUT","key":"k","value":"#, TextError::Value(ValueError::NotJson)),
            (r#""op":"PUT","key":"k","value":nonsense"#, TextError::Value(ValueError::NotJson)),
            (r#""op":"PUT","key":"k","value":1,"more":2"#, TextError::Value(ValueError::NotJson)),
            (r#""op":"PUT","key":"k","value":null"#, TextError::Value(ValueError::Null)),
            (r#""op":"PUT","key":"k","value":[1, 2]"#, TextError::Form),
            (r#""op":"PUT","key":"k","value":1 "#, TextError::Form),
            (r#""op":"PUT","key":"k","value":"\u0041""#, TextError::Form),
            (r#""op":"PUT","key":"\u0041","value":1"#, TextError::Form),
            (r#""op":"PUT","key":"","value":1"#, TextError::Key(KeyError::Empty)),
            (r#""op":"DELETE","key":"""#, TextError::Key(KeyError::Empty)),
            (r#""op":"DELETE","key":"a	b""#, TextError::Form),
            (r#""op":"CAS","key":"k","expect": 1,"value":2"#, TextError::Form),
            (r#""op":"CAS","key":"k","expect":1,"value":x"#, TextError::Value(ValueError::NotJson)),
            (r#""op":"SWAP","key":"k","value":1"#, TextError::Unknown),
            (r#""op":"PUT","client":"c","seq":9007199254740993,"key":"k","value":1"#, TextError::Unknown),
            (&long_key, TextError::Key(KeyError::TooLong)),
            (&long_value, TextError::Value(ValueError::TooLong)),
        ] {
            assert_eq!(Write::checked(payload), Err(fault), "{payload:.60}");
        }
    }

    #[test]
    fn lines_out_of_order_or_of_another_form_are_rejected() {
        let session = r#"{"session":"c","used":1,"forgotten":null,"outcomes":[[1,"done"]]}"#;
        let (a, b) = (r#"{"key":"a","value":1}"#, r#"{"key":"b","value":1}"#);
        let read = |lines: &[&str]| {
            let mut check = StateLines::new(SessionLimits::default());
            lines.iter().try_for_each(|line| check.check(line)).map(|()| check.keys())
        };
        assert_eq!(read(&[session, a, b]), Ok(2));
        assert_eq!(read(&[b, a]), Err(StateLineError::Order));
        assert_eq!(read(&[a, a]), Err(StateLineError::Order));
        assert_eq!(read(&[a, session]), Err(StateLineError::Order));
        for (line, fault) in [
            (r#"{"key":"","value":1}"#, TextError::Key(KeyError::Empty)),
            (r#"{"key":"a","value":}"#, TextError::Value(ValueError::NotJson)),
            (r#"{"key":"a","value":1,"x":1}"#, TextError::Value(ValueError::NotJson)),
            (r#"{"key":"\u0061","value":1}"#, TextError::Form),
            (r#"{"key":"a","value":1}}"#, TextError::Value(ValueError::NotJson)),
            (r#"{"key":"a"}"#, TextError::Unknown),
        ] {
            assert_eq!(read(&[line]), Err(StateLineError::Pair(fault)), "{line}");
        }
        assert!(matches!(read(&[""]), Err(StateLineError::Session(_))));
    }
}
