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

use super::command::{Command, LoggedWrite, Operation, Write};
use super::expiry::Expiry;
use super::level::Level;
use super::map::Held;
use super::payload::{read_number, take_string};
use super::revision::{KeyMeta, Revision, Stamp};
use super::session::Session;
use super::session_table::{SessionLimits, SessionLineError, SessionTable};
use super::text::{Key, KeyError, Value, ValueError, push_json_string};
use super::ttl::{LogTime, Ttl};
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
    /// The line is not a key with its content.
    Pair(TextError),
    /// The line is out of order: the level comes first, then the last tick, sessions come before
    /// all keys, and keys ascend, each once.
    Order,
    /// The line states a level that this version does not know.
    Level,
    /// The line states a tick or a log time that no log can have.
    Tick,
    /// The line is not a line of the session table, or does not fit the lines before it.
    Session(SessionLineError),
}

impl fmt::Display for StateLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair(fault) => fault.fmt(f),
            Self::Order => f.write_str(
                "it is out of order: level and tick come first, then sessions, then keys, ascending and each once",
            ),
            Self::Level => {
                f.write_str("this version does not support its level; a later version may have written it")
            }
            Self::Tick => f.write_str("it states an impossible tick"),
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
        let checked_key = |text: &str| Key::new(text).map_err(TextError::Key);
        let command = match operation {
            Operation::Put { key, value } => {
                Command::Put { key: checked_key(&key)?, value: checked_value(value)? }
            }
            Operation::Delete { key } => Command::Delete { key: checked_key(&key)? },
            Operation::Cas { key, expect, value } => Command::Cas {
                key: checked_key(&key)?,
                expect: expect.map(checked_value).transpose()?,
                value: checked_value(value)?,
            },
            Operation::Other(command) => command,
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

/// Parses a line of a state into a key with its content and its time to live, if it has one.
fn read_pair(line: &str, head: Head) -> Result<(Key, Held, Option<Expiry>), TextError> {
    let text = line.strip_prefix("{\"key\":").ok_or(TextError::Unknown)?;
    let (key, rest) = take_string(text).ok_or(TextError::Unknown)?;
    let key = Key::new(&key).map_err(TextError::Key)?;
    let mut written = String::with_capacity(text.len() - rest.len());
    push_json_string(&mut written, key.as_str());
    if text.strip_suffix(rest) != Some(written.as_str()) {
        return Err(TextError::Form);
    }
    let (meta, expiry, rest) = match head.first {
        Revision::NONE => (KeyMeta::default(), None, rest),
        first => {
            let (meta, rest) = read_meta(rest, first)?;
            let (expiry, rest) = read_expiry(rest, head)?;
            (meta, expiry, rest)
        }
    };
    let json = rest.strip_prefix(",\"value\":").and_then(|rest| rest.strip_suffix('}'));
    let value = checked_value(json.ok_or(TextError::Unknown)?)?;
    Ok((key, Held { value, stamp: Stamp::of(meta) }, expiry))
}

/// Parses the revisions of a key: none is older than `first`, or older than its creation.
fn read_meta(text: &str, first: Revision) -> Result<(KeyMeta, &str), TextError> {
    let members = || {
        let (rev, rest) = take_revision(text.strip_prefix(",\"rev\":")?)?;
        let (created, rest) = take_revision(rest.strip_prefix(",\"created\":")?)?;
        Some((KeyMeta::of(rev, created), rest))
    };
    let (meta, rest) = members().ok_or(TextError::Unknown)?;
    let is_in_order = first <= meta.created && meta.created <= meta.rev && meta.rev <= Revision::MAX;
    if is_in_order { Ok((meta, rest)) } else { Err(TextError::Form) }
}

/// Parses the time to live of a key, if the text begins with one. A dated key expires at most its
/// time to live after the last tick.
fn read_expiry(text: &str, head: Head) -> Result<(Option<Expiry>, &str), TextError> {
    let Some(text) = text.strip_prefix(",\"since\":") else { return Ok((None, text)) };
    let members = || {
        let (since, rest) = take_revision(text)?;
        let (Revision(ms), rest) = take_revision(rest.strip_prefix(",\"ttl_ms\":")?)?;
        let (until, rest) = match rest.strip_prefix(",\"until_us\":") {
            None => (None, rest),
            Some(text) => take_revision(text).map(|(Revision(until), rest)| (Some(LogTime(until)), rest))?,
        };
        Some((Expiry { since, ttl: Ttl::from_ms(ms)?, until }, rest))
    };
    let (expiry, rest) = members().ok_or(TextError::Unknown)?;
    let (tick, time) = head.tick;
    let latest = time.after(expiry.ttl.duration());
    let is_possible = match expiry.until {
        None => true,
        Some(until) => {
            expiry.since < tick && until <= latest && until >= LogTime(0).after(expiry.ttl.duration())
        }
    };
    let is_in_order = head.first <= expiry.since && expiry.since <= Revision::MAX;
    if is_possible && is_in_order { Ok((Some(expiry), rest)) } else { Err(TextError::Form) }
}

/// Splits a number in canonical form off the front of `text`.
fn take_revision(text: &str) -> Option<(Revision, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((Revision(read_number(digits)?), rest))
}

/// The first lines of a state, which decide how the others are read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    /// The entry that raised the level; [`Revision::NONE`]: none has.
    pub(super) first: Revision,
    /// The last tick, with its log time; [`Revision::NONE`]: there was none.
    pub(super) tick: (Revision, LogTime),
}

/// An accepted line of a state.
pub(super) enum StateLine {
    /// The level, with the entry that raised it.
    Level(Revision),
    /// The last tick, with its log time.
    Tick(Revision, LogTime),
    /// A line of the session table, which was added there.
    Session,
    /// A key with its content, and its time to live.
    Key(Key, Held, Option<Expiry>),
}

/// Accepts the next line of a state, after `last_key`. `head` is what the first lines have said; a
/// session is added to `sessions`.
pub(super) fn accept_line(
    line: &str,
    head: Head,
    sessions: &mut SessionTable,
    last_key: Option<&Key>,
) -> Result<StateLine, StateLineError> {
    if line.starts_with("{\"key\":") {
        let (key, held, expiry) = read_pair(line, head).map_err(StateLineError::Pair)?;
        let is_next = last_key.is_none_or(|last| *last < key);
        return if is_next { Ok(StateLine::Key(key, held, expiry)) } else { Err(StateLineError::Order) };
    }
    let is_at_head = head.tick.0 == Revision::NONE && sessions.is_untouched() && last_key.is_none();
    if let Some(text) = line.strip_prefix("{\"level\":") {
        let is_first = is_at_head && head.first == Revision::NONE;
        let level = read_level(text)?;
        sessions.keep_by_time();
        return if is_first { Ok(StateLine::Level(level)) } else { Err(StateLineError::Order) };
    }
    if let Some(text) = line.strip_prefix("{\"tick\":") {
        let is_next = is_at_head && head.first > Revision::NONE;
        let (tick, time) = read_tick(text, head.first).ok_or(StateLineError::Tick)?;
        return if is_next { Ok(StateLine::Tick(tick, time)) } else { Err(StateLineError::Order) };
    }
    restore_unless_mutant(sessions, line).map_err(StateLineError::Session)?;
    if sessions.last_mark().is_some_and(|mark| mark > head.tick.1) {
        return Err(StateLineError::Tick);
    }
    if last_key.is_none() { Ok(StateLine::Session) } else { Err(StateLineError::Order) }
}

/// Parses the rest of the line of the level, and returns the entry that raised it.
fn read_level(text: &str) -> Result<Revision, StateLineError> {
    let members = || {
        let (Revision(level), rest) = take_revision(text)?;
        let (since, rest) = take_revision(rest.strip_prefix(",\"since\":")?)?;
        (rest == "}").then_some((Level(level), since))
    };
    match members() {
        Some((Level::REVISIONS, since)) if Revision::NONE < since && since <= Revision::MAX => Ok(since),
        _ => Err(StateLineError::Level),
    }
}

/// Parses the rest of the line of the last tick, which is later than the entry that raised the
/// level.
fn read_tick(text: &str, first: Revision) -> Option<(Revision, LogTime)> {
    let (tick, rest) = take_revision(text)?;
    let (Revision(time), rest) = take_revision(rest.strip_prefix(",\"time_us\":")?)?;
    let is_possible = first < tick && tick <= Revision::MAX && LogTime(time).is_plausible();
    (rest == "}" && is_possible).then_some((tick, LogTime(time)))
}

/// Checks the lines of a state one by one, without building its map, because a file may be as large
/// as all the data of a node.
#[derive(Debug)]
pub struct StateLines {
    head: Head,
    sessions: SessionTable,
    last_key: Option<Key>,
    keys: usize,
}

impl StateLines {
    /// A checker before the first line. The limits are those of the state.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self { head: Head::default(), sessions: SessionTable::new(limits), last_key: None, keys: 0 }
    }

    /// Checks the next line, without its line break.
    ///
    /// # Errors
    ///
    /// [`StateLineError`] when it is not the next line that a state would write.
    pub fn check(&mut self, line: &str) -> Result<(), StateLineError> {
        match accept_line(line, self.head, &mut self.sessions, self.last_key.as_ref())? {
            StateLine::Level(first) => self.head.first = first,
            StateLine::Tick(tick, time) => self.head.tick = (tick, time),
            StateLine::Session => {}
            StateLine::Key(key, ..) => {
                self.last_key = Some(key);
                self.keys += 1;
            }
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
            (r#""op":"INCR","key":"k","by":+1"#, TextError::Form),
            (r#""op":"CAS","key":"k","rev":1,"value":[1, 2]"#, TextError::Form),
            (
                r#""op":"TXN","if":[],"then":[{"op":"put","key":"k","value":[1, 2]}],"else":[]"#,
                TextError::Form,
            ),
            (r#""op":"TXN","if":[],"then":[{"op":"put","key":"","value":1}],"else":[]"#, TextError::Unknown),
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
        let level = r#"{"level":1,"since":5}"#;
        let with_revisions = r#"{"key":"a","rev":7,"created":5,"value":1}"#;
        assert_eq!(read(&[level, session, with_revisions]), Ok(1));
        for lines in [[session, level], [level, level]] {
            assert_eq!(read(&lines), Err(StateLineError::Order));
        }
        assert_eq!(read(&[a, level]), Err(StateLineError::Order));
        assert_eq!(read(&[with_revisions]), Err(StateLineError::Pair(TextError::Unknown)));
        for line in [r#"{"level":2,"since":5}"#, r#"{"level":1,"since":0}"#, r#"{"level":1}"#] {
            assert_eq!(read(&[line]), Err(StateLineError::Level), "{line}");
        }
        for (line, fault) in [
            (a, TextError::Unknown),
            (r#"{"key":"a","rev":7,"created":4,"value":1}"#, TextError::Form),
            (r#"{"key":"a","rev":7,"created":8,"value":1}"#, TextError::Form),
            (r#"{"key":"a","rev":07,"created":5,"value":1}"#, TextError::Unknown),
            (r#"{"key":"a","rev":4611686018427387905,"created":5,"value":1}"#, TextError::Form),
        ] {
            assert_eq!(read(&[level, line]), Err(StateLineError::Pair(fault)), "{line}");
        }
    }

    #[test]
    fn a_line_of_a_key_that_expires_fits_the_last_tick() {
        let read = |lines: &[&str]| {
            let mut check = StateLines::new(SessionLimits::default());
            lines.iter().try_for_each(|line| check.check(line)).map(|()| check.keys())
        };
        let session = r#"{"session":"c","used":1,"forgotten":null,"outcomes":[[1,"done"]]}"#;
        let level = r#"{"level":1,"since":5}"#;
        let tick = r#"{"tick":9,"time_us":1000000}"#;
        let expiring = |members: &str| format!(r#"{{"key":"a","rev":7,"created":5,{members},"value":1}}"#);
        for members in [
            r#""since":7,"ttl_ms":250"#,
            r#""since":12,"ttl_ms":250"#,
            r#""since":8,"ttl_ms":250,"until_us":1250000"#,
            r#""since":8,"ttl_ms":250,"until_us":250000"#,
        ] {
            assert_eq!(read(&[level, tick, session, &expiring(members)]), Ok(1), "{members}");
        }
        for (members, fault) in [
            (r#""since":4,"ttl_ms":250"#, TextError::Form),
            (r#""since":8,"ttl_ms":0"#, TextError::Unknown),
            (r#""since":8,"ttl_ms":315360000001"#, TextError::Unknown),
            (r#""since":8,"ttl_ms":250,"until_us":1250001"#, TextError::Form),
            (r#""since":8,"ttl_ms":250,"until_us":249999"#, TextError::Form),
            (r#""since":9,"ttl_ms":250,"until_us":1250000"#, TextError::Form),
            (r#""ttl_ms":250"#, TextError::Unknown),
        ] {
            let line = expiring(members);
            assert_eq!(read(&[level, tick, &line]), Err(StateLineError::Pair(fault)), "{members}");
        }
        for lines in [[tick, level], [session, tick]] {
            assert_eq!(read(&lines), Err(StateLineError::Order));
        }
        for line in [r#"{"tick":5,"time_us":1}"#, r#"{"tick":9}"#, r#"{"tick":9,"time_us":9007199254740993}"#]
        {
            assert_eq!(read(&[level, line]), Err(StateLineError::Tick), "{line}");
        }
    }
}
